"""`experiments.pack`: what it writes trains and resumes where nothing reads data sets, Python configs or pictures."""

import importlib
import json
import pathlib
import shutil

import numpy as np
import pytest

from experiments import pack
from ssl_jax import build
from ssl_jax.types import UsageError

ABSENT = (
    "ml_collections", "tensorflow_datasets", "grain", "array_record", "tensorflow", "wandb", "tqdm", "PIL", "cv2",
    "matplotlib", "sklearn", "torch", "pandas",
)  # fmt: skip
BARE = f"""
import runpy, sys
from importlib.machinery import PathFinder

class Present(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {ABSENT!r} else super().find_spec(name, path, target)

sys.meta_path[:] = [Present if finder is PathFinder else finder for finder in sys.meta_path]
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
PLAIN = "import runpy, sys\nsys.argv = sys.argv[1:]\nrunpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
SMALL = """
from configs.simsiam_digits import get_config as digits

def get_config():
    config = digits()
    config.duration = "20 steps"
    config.log_every = "1 steps"
    config.data.batch_size = 64
    config.data.without = ("7",)
    config.method.encoder.channels = (16, 16)
    config.method.encoder.strides = (2, 2)
    config.method.projector.hidden = config.method.projector.output = 32
    config.method.predictor.hidden = 16
    for name in list(config.evaluators):
        if name in ("knn", "collapse"):
            config.evaluators[name].steps = "10 steps"
        else:
            del config.evaluators[name]
    config.checkpoint.every = "10 steps"
    config.checkpoint.best = ""
    return config
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def lines(workdir):
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


def test_a_packed_config_trains_alike_on_a_bare_machine(child, tmp_path, data_dir):
    config = tmp_path / "config.py"
    config.write_text(SMALL)
    given = (f"--config={config}", f"--config.data.data_dir={data_dir}")
    child(PLAIN, "experiments.train", *given, f"--workdir={tmp_path / 'plain'}", "--config.data.batch_size=32")
    child(PLAIN, "experiments.pack", *given, f"--out={tmp_path / 'first'}")
    packed = shutil.move(tmp_path / "first", tmp_path / "elsewhere")
    assert {path.suffix for path in packed.iterdir()} == {".json", ".npz"}
    assert len(list(packed.glob("*.npz"))) == 3, "without the sevens, all that trains, and the test images"

    words = ("experiments.train", f"--config={packed / 'config.json'}", f"--workdir={tmp_path / 'bare'}")
    words = (*words, "--config.data.batch_size=32")
    child(BARE, *words)
    plain, bare = lines(tmp_path / "plain"), lines(tmp_path / "bare")
    assert bare == plain and {"train/loss", "eval/knn/accuracy_cosine_10"} <= {key for line in bare for key in line}
    assert json.loads((tmp_path / "bare" / "summary.json").read_text())["finished"]
    assert list((tmp_path / "bare" / "images").glob("*.png"))

    done = child(BARE, "experiments.benchmark", words[1], "--rounds=1", "--steps=1")
    assert json.loads(done.stdout)["batch_size"] == 64

    # As if it had been killed between its two checkpoints, on a machine where the packed folder lies elsewhere.
    shutil.rmtree(tmp_path / "bare" / "checkpoints" / "20")
    moved = shutil.move(packed, tmp_path / "third")
    done = child(BARE, words[0], f"--config={moved / 'config.json'}", *words[2:])
    assert lines(tmp_path / "bare") == plain and "reached step 20" in done.stdout


@pytest.mark.parametrize(
    "name, small",
    [
        ("gan_digits", ("--config.method.generator.channels=(8,4)", "--config.method.discriminator.channels=(4,8)")),
        ("cyclegan_digits", ("--config.method.generator.width=4", "--config.method.generator.halvings=0")),
    ],
)
def test_generators_train_there_as_well(child, tmp_path, data_dir, name, small):
    config = importlib.import_module(f"configs.{name}").get_config()
    config.data.data_dir = str(data_dir)
    pack.write(tmp_path / "packed", build.normalised(config.to_dict()), [])
    words = (f"--config={tmp_path / 'packed' / 'config.json'}", f"--workdir={tmp_path / 'run'}", "--config.duration=2")
    child(BARE, "experiments.train", *words, *small, "--config.log_every=1")
    assert sum("train/" in line for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def section(**more):
    return {"type": "data.feed.training", "name": "digits", "split": "train", "batch_size": 8, **more}


@pytest.mark.parametrize(
    "more, says",
    [
        ({"feeding": "stream"}, "config.feeding: what trains from a stream cannot be packed"),
        ({"crop": {"type": "data.stream.HostCrop", "size_px": 8}}, "config.crop: what trains from a stream"),
        ({"labels": {"type": "subsets.Subset", "per_class": 1}}, "config.labels: images that are drawn"),
        ({"resident_limit_mib": 0}, "--config.feeding=resident"),
        ({"without": ("eleven",)}, "there is no class 'eleven'"),
    ],
)
def test_what_cannot_be_packed(data_dir, more, says):
    with pytest.raises(UsageError) as caught:
        pack.pack(section(data_dir=str(data_dir), **more), {})
    assert says in str(caught.value)


def test_equal_sets_are_written_once(data_dir):
    sets = {}
    place = {"split": "train[:20]", "data_dir": str(data_dir)}
    found = [
        pack.pack({**section(**place), "name": name}, sets)["content"] for name in ("digits", "digits", "digits:1.0.0")
    ]
    other = pack.pack({**section(**place), "split": "train[20:40]"}, sets)["content"]
    assert len(set(found)) == 1 and other != found[0] and list(sets) == [found[0], other]
    assert all(pathlib.PurePath(content).name == content for content in sets)
    np.testing.assert_array_equal(sets[found[0]]["class_names"], [str(digit) for digit in range(10)])
