"""`experiments.measure` on handwritten digits: four things to measure, one table, one line for what cannot be.

One process runs all the cases, as flags are a process's own.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PLAIN = {"type": "augment.Plain", "mean": (0.0,), "deviation": (1.0,)}
SGD = {"type": "optim.sgd", "base_learning_rate": 0.1, "batch_size": 8, "decay_steps": 10}
CLASSIFIER = {
    "type": "methods.classify.Classify",
    "train": "all",
    "encoder": {"type": "models.convnet.ConvNet", "channels": (4, 6), "strides": (2, 2)},
    "head": {"type": "models.heads.Classifier", "classes": 10},
    "optimizer": SGD,
}
GAN = {
    "type": "methods.gan.GAN",
    "generator": {"type": "models.dcgan.Generator", "size_px": 8, "image_channels": 1, "channels": (4,)},
    "discriminator": {"type": "models.dcgan.Discriminator", "channels": (4,), "norm": "none"},
    "generator_optimizer": SGD,
    "discriminator_optimizer": SGD,
    "loss": "non_saturating",
    "latent": 3,
}
SCRIPT = """
import contextlib, io, json, pathlib, sys
import cv2, jax, jax.numpy as jnp, numpy as np
from absl import flags
from absl.testing import flagsaver
from experiments import measure
from ssl_jax import build
from ssl_jax.checkpoint import Policy
from ssl_jax.types import RunError, UsageError

home, cases = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])


def run_folder(name, config):
    folder = home / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text(json.dumps({"steps_per_epoch": 2, "batch_size": 8, "total_steps": 5}))
    method = build.section(config["method"], "config.method", build.Clock(16, 8, 5))
    side = 16 if name == "large" else 8
    spec = {"image": jax.ShapeDtypeStruct((8, side, side, 1), jnp.float32)}
    keeper = Policy(every=1).open(folder)
    keeper.save(5, method.init(jax.random.key(1), spec).replace(step=jnp.int32(5)), config=config)
    keeper.close()


for name, config in json.loads(sys.argv[3]).items():
    run_folder(name, config)
draw = np.random.default_rng(0)
for folder, shapes in {"pictures": [(8, 8)] * 40, "odd": [(8, 8)] * 39 + [(8, 9)]}.items():
    (home / folder).mkdir()
    for number, shape in enumerate(shapes):
        cv2.imwrite(str(home / folder / f"{number:02d}.png"), draw.integers(0, 256, shape, dtype=np.uint8))
(home / "broken").mkdir()
for number in range(40):
    (home / "broken" / f"{number:02d}.png").write_bytes(b"no picture")

outcomes = {}
for name, words in cases.items():
    printed = io.StringIO()
    with flagsaver.flagsaver(), contextlib.redirect_stdout(printed):
        left = flags.FLAGS(["measure", *words])
        try:
            measure.main(left)
        except (UsageError, RunError) as error:
            print(f"{type(error).__name__}: {error}")
    outcomes[name] = printed.getvalue()


class Shelf:
    def __init__(self, images):
        self.images = images

    def batches(self):
        for images in (self.images[:300], self.images[300:]):
            yield {"image": images, "mask": np.ones(len(images), bool)}


first = draw.normal(120, 20, (2000, 1))
pixels = np.concatenate([first, 0.5 * first + draw.normal(0, 5, (2000, 1)), np.full((2000, 1), 7.0)], axis=1)
pixels = np.rint(pixels).clip(0, 255).astype(np.uint8).reshape(2000, 1, 3, 1)
batches = measure.gaussian(*measure.fitted(Shelf(pixels), "here"), 3)
fake = np.concatenate([next(batches) for _ in range(80)])
again = next(measure.gaussian(*measure.fitted(Shelf(pixels), "here"), 3))
assert fake.dtype == np.uint8 and fake.shape[1:] == (1, 3, 1) and (fake[:250] == again).all()
assert (fake[:250] != fake[250:500]).any()
outcomes["moments"] = [
    [array.reshape(-1, 3).mean(axis=0).tolist(), np.cov(array.reshape(-1, 3), rowvar=False).tolist()]
    for array in (pixels, fake)
]
try:
    measure.fitted(Shelf(np.zeros((2, 64, 65, 1), np.uint8)), "here")
except UsageError as error:
    outcomes["beyond"] = str(error)
print(json.dumps(outcomes))
"""


def config_of(method):
    look = {"type": "loop.Every", "steps": "100 %", "run": {"preprocess": PLAIN}}
    return {
        "method": method,
        "data": {"type": "data.feed.training", "class_names": [str(digit) for digit in range(10)]},
        "preprocess": {"type": "augment.Labelled", "view": {"mean": (0.0,), "deviation": (1.0,)}},
        "evaluators": {"test": look},
    }


def call(words, home):
    environment = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": "1",
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(home / "kept"),
    }
    return subprocess.run(
        [sys.executable, *map(str, words)], env=environment, cwd=home, capture_output=True, text=True, timeout=400
    )


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What each case printed, and a look at the Gaussian."""
    home = tmp_path_factory.mktemp("measure")
    data = f"--data_dir={home / 'data'}"
    few = ["--samples=40", "--subset_size=20", data]
    encoder, test = f"--encoder={home / 'classifier'}", "--data=digits:test[:50]"
    cases = {
        "real": ["--real=digits:train[:60]", test, encoder, *few],
        "run": [f"--run={home / 'gan'}", test, encoder, *few, f"--out={home / 'run.json'}"],
        "again": [f"--run={home / 'gan'}", test, encoder, *few, "--seed=1", f"--out={home / 'again.json'}"],
        "images": [f"--images={home / 'pictures'}", test, encoder, *few],
        "gaussian": ["--gaussian=digits:train", test, encoder, *few],
        "two": [f"--run={home / 'gan'}", "--real=digits:train", test, encoder, *few],
        "none": [test, encoder, *few],
        "nothing_to_compare_with": [f"--run={home / 'gan'}", encoder, *few],
        "network": [f"--run={home / 'gan'}", test, *few],
        "split": ["--real=digits", test, encoder, *few],
        "same": [f"--real={test[7:]}", test, encoder, *few],
        "samples": ["--real=digits:train[:30]", test, encoder, *few],
        "subset": ["--real=digits:train[:60]", test, encoder, data, "--samples=60"],
        "method": [f"--run={home / 'classifier'}", test, encoder, *few],
        "odd": [f"--images={home / 'odd'}", test, encoder, *few],
        "broken": [f"--images={home / 'broken'}", test, encoder, *few],
        "size": [f"--run={home / 'large'}", test, encoder, *few],
        "out": [f"--run={home / 'gan'}", test, encoder, *few, f"--out={home / 'no' / 'x.json'}"],
    }
    large = {**GAN, "generator": {**GAN["generator"], "size_px": 16}}
    configs = {"classifier": config_of(CLASSIFIER), "gan": config_of(GAN), "large": config_of(large)}
    (home / "script.py").write_text(SCRIPT)
    done = call([home / "script.py", home, json.dumps(cases), json.dumps(configs)], home)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    return {**found, "json": [json.loads((home / f"{name}.json").read_text()) for name in ("run", "again")]}


NUMBERS = [
    *("frechet_distance", "kernel_distance", "kernel_distance_std", "classifier_score"),
    *("precision", "recall", "density", "coverage", "classes_found", "class_entropy"),
]
MANIFOLD = ("precision", "recall", "density", "coverage")


def rows(printed):
    lines = printed.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("---"))
    assert lines[start - 1].split() == ["number", "value", "samples", "real", "images", "network", "resize"]
    table = [line.split() for line in lines[start + 1 : start + 1 + len(NUMBERS)]]
    assert [row[0] for row in table] == NUMBERS
    return {row[0]: (float(row[1]), row[2:]) for row in table}


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("real", "real images of digits:train[:60], compared with digits:test[:50]"),
        ("run", "gan, its last checkpoint, step 5, compared with"),
        ("images", "pictures, compared with"),
        ("gaussian", "samples of a Gaussian fitted to digits:train, compared with"),
    ],
)
def test_every_number_stands_with_its_counts_network_and_resize(outcomes, case, told):
    printed = outcomes[case]
    assert told in printed and "step 5, with its head, SHA-256 " in printed
    for name, (value, beside) in rows(printed).items():
        real = "40" if name in MANIFOLD else "-" if name.startswith("class") else "50"
        assert np.isfinite(value) and beside == ["40", real, "encoder", "none"]
    assert "fid" not in printed


def test_real_images_and_their_gaussian_are_nearer_than_noise(outcomes):
    # This network was never trained, so it cannot tell the first two.
    found = {case: rows(outcomes[case])["frechet_distance"][0] for case in ("real", "gaussian", "images")}
    assert max(found["real"], found["gaussian"]) < 0.1 * found["images"]


def test_the_json_has_what_the_table_has_and_the_environment(outcomes):
    first, second = outcomes["json"]
    (network,) = first["networks"]
    assert list(network["numbers"]) == NUMBERS and (network["samples"], network["real_images"]) == (40, 50)
    assert len(network["digest"]) == 64 and network["resize"] == "none" and first["data"] == "digits:test[:50]"
    assert first["seed"] == 0 and second["seed"] == 1 and "jax" in first["versions"]
    for name, (value, _) in rows(outcomes["run"]).items():
        assert value == pytest.approx(network["numbers"][name], abs=1e-4)
    assert second["networks"][0]["numbers"] != network["numbers"]


def test_real_images_are_looked_at_once(outcomes):
    kept = ["kept from before" in outcomes[case] for case in ("real", "run", "again", "images")]
    assert kept == [False, True, True, True]


@pytest.mark.parametrize(
    ("case", "line"),
    [
        ("two", "UsageError: needs --data and one of --run, --images, --real and --gaussian: python -m"),
        ("none", "UsageError: needs --data and one of"),
        ("nothing_to_compare_with", "UsageError: needs --data and one of"),
        ("network", "UsageError: no network to compare by: give --encoder=RUN"),
        ("split", "UsageError: --real=digits: write NAME:SPLIT"),
        ("same", "UsageError: --data and --real are both digits:test[:50]"),
        ("samples", "UsageError: --real=digits:train[:30] has 30 images, and --samples=40: set --samples=30 or less"),
        ("subset", "UsageError: --data=digits:test[:50]: samples=60, and the kernel distance takes subset_size=1000"),
        ("method", "is no GAN's run (methods.classify.Classify)"),
        ("odd", "39.png is 8x9x1, and the images of digits:test[:50] are 8x8x1"),
        ("broken", "take it out of the folder"),
        ("size", "step 5 are 16x16x1, and the images of digits:test[:50] 8x8x1: give ones of one size"),
        ("out", "give a file in a folder that exists"),
    ],
)
def test_what_cannot_be_measured_is_one_line(outcomes, case, line):
    (printed,) = outcomes[case].splitlines()
    assert printed.startswith("UsageError: ") and line in printed


def test_the_gaussian_has_the_mean_and_covariance_of_the_pixels(outcomes):
    (mean, covariance), (fake_mean, fake_covariance) = outcomes["moments"]
    np.testing.assert_allclose(fake_mean, mean, atol=0.6)
    np.testing.assert_allclose(fake_covariance, covariance, atol=0.05 * covariance[0][0])
    assert fake_covariance[2][2] == 0 and fake_covariance[0][1] > 0.4 * fake_covariance[0][0]
    assert outcomes["beyond"] == "here: images of 4,160 numbers, and a covariance of 4,096 fits"


def test_a_mistake_ends_with_exit_code_2_and_one_line(tmp_path):
    done = call(["-m", "experiments.measure", "--data=digits:test"], tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: needs --data and one of --run")
    assert done.stderr.count("\n") == 1 and done.stdout == ""
