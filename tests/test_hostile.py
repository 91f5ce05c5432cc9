"""Files and names of anybody's: no pickle runs, nothing large is unpacked, nothing is written elsewhere."""

import ast
import html.parser
import io
import json
import os
import pathlib
import pickle
import struct
import zipfile

import numpy as np
import PIL.Image
import pytest

from experiments import fuzz_input, output
from ssl_jax import archive, build, comparison, pretrained, report, report_comparison, translator
from ssl_jax.data import folder, paths, resident, selection, unpaired
from ssl_jax.models import inception_weights, pytorch
from ssl_jax.types import RunError, UsageError
from tests import gan_runs, run_folders

ROOT = pathlib.Path(__file__).resolve().parents[1]
TREES = {
    str(file.relative_to(ROOT)): ast.parse(file.read_text())
    for top in ("ssl_jax", "experiments", "configs")
    for file in sorted((ROOT / top).rglob("*.py"))
}


def refused(call, *arguments):
    """The one line with which a call is refused."""
    with pytest.raises((UsageError, RunError, ValueError)) as error:
        call(*arguments)
    assert len(str(error.value).splitlines()) == 1, str(error.value)
    return str(error.value)


def test_nothing_loads_a_pickle():
    wrong = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                safe = {"np.load": {"allow_pickle": "False"}, "torch.load": {"weights_only": "True"}}
                if called in safe and not safe[called].items() <= given.items():
                    wrong.append(f"{name}:{node.lineno} {called}")
                if called in ("eval", "exec", "yaml.load") or called.startswith(("pickle.", "marshal.", "shelve.")):
                    wrong.append(f"{name}:{node.lineno} {called}")
            if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "marshal", "shelve"):
                wrong.append(f"{name}:{node.lineno} from {node.module}")
    assert wrong == [] and "ssl_jax/archive.py" in TREES


class Touch:
    """What makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.fixture
def malicious(tmp_path):
    """A pickle that makes the file `touched`, in each form in which NumPy and PyTorch keep one."""
    mark = Touch(tmp_path / "touched")
    raw = pickle.dumps(mark)
    objects = np.empty(1, object)
    objects[0] = mark
    whole = io.BytesIO()
    np.savez(whole, **dict.fromkeys(("image", "image_a", "rows", "features", "metadata"), objects))
    (tmp_path / "objects.npz").write_bytes(whole.getvalue())
    np.save(tmp_path / "objects.npy", objects, allow_pickle=True)
    for name in ("raw.npz", "raw.npy", "raw.pth", "raw.safetensors"):
        (tmp_path / name).write_bytes(raw)
    with zipfile.ZipFile(tmp_path / "zipped.pth", "w") as file:
        file.writestr("archive/data.pkl", raw)
        file.writestr("archive/version", "3\n")
    pickle.loads(raw)
    assert mark.path.exists()  # it would
    mark.path.unlink()
    yield tmp_path
    assert not mark.path.exists()


@pytest.mark.parametrize("name", ["objects.npz", "raw.npz", "raw.pth", "zipped.pth", "raw.safetensors"])
def test_no_reader_runs_a_pickle(malicious, name):
    pytest.importorskip("torch", reason="needs the parity extra: make test PARITY=1")
    file = malicious / name
    for reader in (pytorch.read_checkpoint, translator.from_file, inception_weights.read):
        assert str(file) in refused(reader, file)
    assert str(file) in refused(pretrained.read, str(file))
    for reader in (resident.npz, unpaired.npz, selection.read_guesses):
        assert str(file) in refused(reader, str(file), 1)
    (malicious / "arrays.npz").write_bytes(file.read_bytes())
    assert "arrays.npz is damaged" in refused(report.write, malicious)


def test_no_command_runs_a_pickle(malicious):
    (malicious / "in").mkdir()
    PIL.Image.new("RGB", (16, 16)).save(malicious / "in" / "1.png")
    out = f"--out={malicious / 'out'}"
    several = {
        "translate": ("--weights", ("objects.npz", "raw.npz"), (f"--input={malicious / 'in'}", out)),
        "explore": ("--features", ("objects.npz", "objects.npy", "raw.npy"), (out,)),
        "export": ("--run", ("objects.npz", "raw.safetensors"), (f"--out={malicious / 'out.npz'}",)),
    }
    for script, (flag, names, words) in several.items():
        answers = gan_runs.calls(script, *([f"{flag}={malicious / name}", *words] for name in names))
        for name, answer in zip(names, answers, strict=True):
            assert name in answer["error"] and len(answer["error"].splitlines()) == 1, answer
    assert not (malicious / "out").exists() and not (malicious / "out.npz").exists()


def npy(shape, dtype="|u1", data=b""):
    head = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def npz(path, **entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            file.writestr(f"{name}.npy", content)
    return path


def test_an_archive_is_held_against_its_own_sizes_and_the_memory(tmp_path, monkeypatch):
    huge = npz(tmp_path / "huge.npz", image=npy((10**6, 1000, 1000, 3)))
    assert "declares uint8 [1000000, 1000, 1000, 3] and the file does not have so much" in refused(archive.read, huge)
    (tmp_path / "huge.npy").write_bytes(npy((10**15,)))
    assert "does not have so much" in refused(archive.read_array, tmp_path / "huge.npy")
    sound = npz(tmp_path / "zeros.npz", image=npy((2**22,), data=bytes(2**22)))
    assert sound.stat().st_size < 10_000 and archive.read(sound)["image"].shape == (2**22,)
    monkeypatch.setattr(archive, "memory", lambda: 2**21)
    assert "it unpacks to 4,194,432 bytes, and this machine's memory has 2,097,152" in refused(archive.read, sound)
    for reader in (pytorch.read_checkpoint, lambda file: selection.read_guesses(str(file), 2)):
        assert "unpacks to" in refused(reader, sound)


def test_names_become_text_on_one_line():
    odd = {b"two\nlines": "two\\nlines", b"\xff.png": "\\xff.png", "\u202egnp".encode(): "\\u202egnp"}
    assert {name: paths.text(os.fsdecode(name)) for name in odd} == odd
    for plain in ("<b>'\"", "käse", "نیم‌فاصله", "a\\b", "-x", " 1"):
        assert paths.text(plain) == plain


def png(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (8, 8)).save(path, "PNG")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["two\nlines/1.png", "two\\nlines/1.png"], "both read as two\\nlines"),
        ([" cat/1.png", "dog/1.png"], "class folder ' cat'"),
        (["\udcff.png", "\\xff.png"], "two files that both read as \\xff.png"),
    ],
)
def test_names_that_would_be_taken_for_others_are_refused(tmp_path, names, says):
    for name in names:
        png(tmp_path / name)
    assert says in refused(folder.scan, tmp_path)


def test_what_is_no_file_is_passed_over_and_no_link_is_followed_for_ever(tmp_path):
    root = tmp_path / "in"
    png(root / "cat" / "1.png")
    os.mkfifo(root / "cat" / "pipe.png")
    (root / "cat" / "zero.png").symlink_to("/dev/zero")
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "folder.png").mkdir()
    (root / "cat" / "loop.png").symlink_to(root / "cat" / "loop.png")
    listing = folder.scan(root)
    assert [file.key for file in listing.files] == ["cat/1.png", "cat/loop.png"]
    found, (complaint,) = folder.inspect(listing, "skip")
    assert [image.file.key for image in found] == ["cat/1.png"] and "loop.png" in complaint


@pytest.mark.parametrize("file", ["../x", "/x", "a/../../x", "a//b", "x\0", "x" * 256, 3, "\ud800"])
def test_a_record_that_names_files_elsewhere_owns_nothing_there(tmp_path, file):
    (tmp_path / "x").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "made.json").write_text(json.dumps({"script": "one", "files": ["a", file]}))
    claimed = output.claim(tmp_path / "out", "made.json", "one")
    assert claimed.earlier == {"a"}
    claimed.begin(["b"], {})
    assert (tmp_path / "x").read_text() == "precious"


def test_nothing_is_written_through_a_link_to_elsewhere(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "made.json").write_text(json.dumps({"script": "one", "files": ["back/1.png"]}))
    (tmp_path / "out" / "back").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "1.png").write_text("precious")
    claimed = output.claim(tmp_path / "out", "made.json", "one")
    for files in ([], ["back/1.png"]):
        assert "is a link to elsewhere" in refused(claimed.begin, files, {})
    assert (tmp_path / "elsewhere" / "1.png").read_text() == "precious"


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"type": "data.prepare.images", "root": ".", "name": "x"}, "it acts when it is called"),
        ({"type": "models.inception_weights.convert", "pth": "a", "npz": "b"}, "it acts when it is called"),
        ({"type": "mesh.join_processes", "coordinator": "x:1", "processes": 2, "process": 0}, "it acts when"),
        ({"type": "run_folder.claim", "folder": "x", "config": {}}, "it acts when it is called"),
        ({"type": "data.digits.ensure", "data_dir": "x"}, "it acts when it is called"),
        ({"type": "os.system", "command": "x"}, "there is no module ssl_jax.os"),
        ({"type": "log.replace\n"}, "config.x.type='log.replace\\n'"),
        ({"type": "augment.Crop", "two\nlines": 1}, "config.x.'two\\nlines'"),
        ({"type": "augment.Crop", "size_px": "x" * 9999}, "(10,001 characters)"),
        ({"a": [[[[[[[[[[[[[[[[{}]]]]]]]]]]]]]]]], "b": fuzz_input.deep(70)}, "more than 64 deep"),
    ],
)
def test_a_config_names_parts_and_nothing_that_acts(section, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert says in refused(build.section, section, "config.x") and not list(tmp_path.iterdir())


class Seen(html.parser.HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.attributes = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        self.attributes.update(name for name, _ in attrs)


HOSTILE = "</script></style></title>--><script>alert(1)</script>' onload='x' \" onload=\"x\" <img src=x onerror=x>"


def hostile(value):
    if isinstance(value, dict):
        keep = {"eval/knn/accuracy", "train/loss", "data", "method", "type", "name", "split", "alarms", "step"}
        return {key if key in keep or len(value) > 4 else key + HOSTILE: hostile(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [hostile(item) for item in value]
    return HOSTILE if isinstance(value, str) else value


def test_no_page_holds_somebody_elses_markup(tmp_path):
    folders = []
    for number in range(2):
        lines = [
            {f"eval/{HOSTILE}/accuracy" if key.startswith("eval/knn/acc") else key: item for key, item in line.items()}
            for line in run_folders.lines([0.5, 0.7])
        ]
        summary = run_folders.summary([0.5, 0.7], total_steps=20)
        summary |= {"versions": {HOSTILE: HOSTILE}, "platform": HOSTILE, "machine": HOSTILE, "processes": HOSTILE}
        summary |= {"python": HOSTILE, "commit": HOSTILE, "device_kind": HOSTILE, "seed": HOSTILE, "devices": HOSTILE}
        summary |= {"batch_size": HOSTILE, "alarms": [{"step": 3, "sentence": HOSTILE}]}
        scores = {"accuracy": 0.5, "accuracy_interval": [0.4, 0.6], "macro_f1": 0.5}
        one = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 3}
        summary[HOSTILE] = scores | {"calibration_error": 0.1, "examples": 9, "classes": {HOSTILE: one}}
        config = hostile(run_folders.config(seed=number, note=HOSTILE))
        where = tmp_path / f"{number}<img src=x onerror=x>"
        run_folders.write(where, config=config, lines=lines, summary=summary)
        classes = np.array([HOSTILE, "$x^{$"])
        np.savez(
            where / "arrays.npz",
            **{
                "eval/test/confusion": np.array([[3, 1], [0, 2]]),
                "eval/test/confusion_classes": classes,
                f"eval/{HOSTILE.replace('/', '')}/confusion": np.eye(2, dtype=int),
                f"eval/{HOSTILE.replace('/', '')}/confusion_classes": classes,
            },
        )
        folders.append(where)
    compared = comparison.read(folders)
    pages = [
        *(report.write(where).read_text() for where in folders),
        report_comparison.write(compared, list(report_comparison.drawings(compared))),
    ]
    for text in pages:
        seen = Seen(text)
        assert "alert(1)" in text and not {"script", "img", "iframe"} & seen.elements
        assert not [name for name in seen.attributes if name.startswith("on")]
    drawn = [drawing.file for drawing in report_comparison.drawings(compared)]
    assert drawn and all("/" not in name and len(name) < 255 for name in drawn)
