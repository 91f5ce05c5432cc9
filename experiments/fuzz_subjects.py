"""What `experiments.fuzz` tries: for each kind of case a function that draws one and puts it before the readers."""

import copy
import functools
import importlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments import fuzz_input, output
from ssl_jax import build, comparison, log, loop, pretrained, report, report_comparison, run_folder, types
from ssl_jax.data import folder as folders
from ssl_jax.data import headers, pictures, transforms

OUR_ERRORS = (types.UsageError, types.RunError)
LIMIT_VARIABLE = headers.LIMIT_VARIABLE
SHARES = {"configs": 40, "pictures": 35, "runs": 22, "names": 3}
"""Cases of each kind in a hundred."""
Case = Callable[[np.random.Generator], None]

_CONFIGS = (
    "simsiam_digits",
    "simsiam_photos",
    "simsiam_imagenet",
    "gan_digits",
    "gan_gaussians",
    "gan_cifar10_r3gan",
    "gan_cifar10_sngan",
    "cyclegan_digits",
    "cyclegan_horse2zebra",
    "classify_digits",
    "classify_digit_domains",
)
# Where a mutated word would be a place on this disk.
_PLACES = ("data_dir", "cache", "file", "folder", "origin", "directory")


def of_kind(kind: str, place: pathlib.Path) -> Case:
    """The cases of one kind; they write below `place`, which is made."""
    place.mkdir()
    return {"configs": _configs, "pictures": _pictures, "runs": _runs, "names": _names}[kind](place)


def _configs(place: pathlib.Path) -> Case:
    sound = [_without_data(config, place) for config in map(_config, _CONFIGS)]
    for config in sound:
        build.arguments(loop.fit, copy.deepcopy(config), given=("folder", "config"))
    names = sorted({name for config in sound for name in _types(config)})

    def case(rng: np.random.Generator) -> None:
        config = sound[int(rng.integers(len(sound)))]
        held = {name: config.pop(name) for name in ("data",)} if rng.integers(4) else {}
        try:
            faulty = fuzz_input.mutated(config, rng, names)
        finally:
            config.update(held)
        faulty = {**faulty, **held} if isinstance(faulty, Mapping) else faulty
        build.arguments(loop.fit, _kept_here(faulty, place), given=("folder", "config"))

    return case


def _config(name: str) -> dict[str, Any]:
    return build.normalised(importlib.import_module(f"configs.{name}").get_config().to_dict())


def _without_data(config: dict[str, Any], place: pathlib.Path) -> dict[str, Any]:
    """The config over 16 pictures in a file, and without the evaluators that read a data set."""
    file = place / "pictures.npz"
    if not file.exists():
        np.savez(file, image=np.zeros((16, 8, 8, 1), np.uint8), label=np.zeros(16, np.int64))
    config["data"] = {"type": "data.resident.npz", "file": str(file), "batch_size": 8}
    read = [name for name, each in config["evaluators"].items() if any(_reads(inner) for inner in _sections(each))]
    config["evaluators"] = {name: each for name, each in config["evaluators"].items() if name not in read}
    return config


def _reads(section: Mapping[str, Any]) -> bool:
    return str(section.get("type", "")).startswith(("data.", "reference.", "extractors."))


def _sections(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ():
        yield from _sections(inner)


def _types(config: Mapping[str, Any]) -> list[str]:
    return [section["type"] for section in _sections(config) if isinstance(section.get("type"), str)]


def _kept_here(config: Any, place: pathlib.Path) -> Any:
    """The config with every place on the disk that it names below `place`."""
    here = str(place / "pictures.npz")

    def kept(old: Any) -> Any:
        return here if isinstance(old, str) and "\0" not in old else old

    for path in fuzz_input.places(config):
        if path[-1] in _PLACES:
            config = fuzz_input.replaced(config, path, kept)
    return config


def _pictures(place: pathlib.Path) -> Case:
    sound = fuzz_input.pictures()
    names, others = (
        sorted(sound),
        [*sound.values(), b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF0000WEBP", b"GIF89a", b"BM"],
    )

    def case(rng: np.random.Generator) -> None:
        name = names[int(rng.integers(len(names)))]
        data = fuzz_input.spoilt(sound[name], others, rng)
        file = place / f"one{pathlib.Path(name).suffix}"
        file.write_bytes(data)
        channels = int(rng.choice([1, 3]))
        # The ways of what prepares, of what classifies and translates, and of what reads a prepared set.
        found = folders.inspect_one(folders.File(file, file.name, "train", None))
        ((_, picture),) = pictures.read([file], place, channels)
        if isinstance(found, str) != isinstance(picture, str):
            raise AssertionError(
                f"one reader says {found if isinstance(found, str) else picture}, and the other takes it"
            )
        if not isinstance(found, str):
            _check_pixels(picture, channels)
            transforms.decode(folders.content(found), channels)
        try:
            decoded = transforms.decode(data, channels)
            _check_pixels(decoded, channels)
            if decoded.size > channels * int(np.prod(headers.size(data))):
                raise AssertionError(f"{decoded.shape} pixels where the header declares {headers.size(data)}")
        except ValueError as error:
            raise types.UsageError(f"{file}: {error}") from error
        finally:
            if isinstance(found, str) and not found.startswith(str(file)):
                raise AssertionError(f"a sentence that does not name its file: {found}")
        if isinstance(found, str):
            raise types.UsageError(found)

    return case


def _check_pixels(picture: np.ndarray, channels: int) -> None:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != channels:
        raise AssertionError(f"pixels {picture.dtype} {picture.shape}")


def _runs(place: pathlib.Path) -> Case:
    config = json.loads(json.dumps(_config("simsiam_digits")))
    files = {"config.json": config, "summary.json": _SUMMARY, "metrics.jsonl": list(_LINES), "made.json": _MADE}
    other = place / "other"
    _write(other, files)

    def case(rng: np.random.Generator) -> None:
        run = place / "run"
        _write(run, files)
        name = sorted(files)[int(rng.integers(len(files)))]
        if rng.integers(4) == 0:
            (run / name).write_bytes(fuzz_input.spoilt_text((run / name).read_text(), rng))
        else:
            faulty = fuzz_input.mutated(files[name], rng)
            text = _as_lines(faulty) if name == "metrics.jsonl" else fuzz_input.as_json(faulty)
            (run / name).write_bytes(text.encode("utf-8", "surrogatepass"))
        # A page takes a hundred times as long as all others together.
        readers = (*_READERS, _reported) if rng.integers(12) == 0 else _READERS
        _each(functools.partial(reader, run, other) for reader in readers)

    return case


def _each(readers: Iterator[Callable[[], Any]]) -> None:
    """Calls all, and raises the first of our own errors at the end."""
    told = []
    for reader in readers:
        try:
            reader()
        except OUR_ERRORS as error:
            told.append(error)
    several = [error for error in told if len(str(error).splitlines()) != 1]
    if told:
        raise (several or told)[0]


def _compared(run: pathlib.Path, other: pathlib.Path) -> None:
    compared = comparison.read([run, other])
    report_comparison.as_text(compared)
    report_comparison.as_csv(compared)
    report_comparison.as_latex(compared)
    page = report_comparison.write(compared, ())
    if "<script>alert" in page:
        raise AssertionError("a page with somebody else's script in it")


def _reported(run: pathlib.Path, _: pathlib.Path) -> None:
    page = report.write(run).read_text(encoding="utf-8", errors="surrogatepass")
    if "<script>alert" in page:
        raise AssertionError("a page with somebody else's script in it")


def _claimed(run: pathlib.Path, _: pathlib.Path) -> None:
    made = output.claim(run, "made.json", "experiments.fuzz")
    made.begin(["one.png"], dict(made.found))
    made.write("one.png", b"")
    made.finish(["one.png"], {})


_READERS: Sequence[Callable[[pathlib.Path, pathlib.Path], Any]] = (
    _compared,
    lambda run, _: pretrained.run_config(run),
    lambda run, _: build.check(loop.fit, pretrained.run_config(run), given=("folder", "config")),
    lambda run, _: build.clock_of(run),
    lambda run, _: log.kept_metrics(run, 20),
    lambda run, _: log.seconds_so_far(run, 20),
    lambda run, _: run_folder.read_summary(run),
    _claimed,
)


def _write(run: pathlib.Path, files: Mapping[str, Any]) -> None:
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    for name, content in files.items():
        (run / name).write_text(_as_lines(content) if name == "metrics.jsonl" else json.dumps(content))


def _as_lines(lines: Any) -> str:
    return "".join(fuzz_input.as_json(line) + "\n" for line in (lines if isinstance(lines, list) else [lines]))


def _names(place: pathlib.Path) -> Case:
    png = fuzz_input.pictures()["RGB.png"]

    def case(rng: np.random.Generator) -> None:
        root = place / "root"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for _ in range(int(rng.integers(1, 5))):
            _odd(root, rng, png)
        _each(iter((lambda: folders.inspect(folders.scan(root), "skip"), lambda: _listed(root))))
        outside = [path for path in place.iterdir() if path != root]
        if outside:
            raise AssertionError(f"{outside} appeared")

    return case


def _listed(root: pathlib.Path) -> None:
    for name, found in pictures.read(pictures.find(root), root, 3):
        for text in (name, found if isinstance(found, str) else name):
            if len(text.splitlines()) != 1:
                raise AssertionError(f"a name of several lines: {text!r}")
            text.encode("utf-8")


def _odd(root: pathlib.Path, rng: np.random.Generator, png: bytes) -> None:
    """Adds a file, folder, link or pipe of an odd name to a folder."""
    words = (
        b"cat",
        b"\xff\xfe",
        b"two\nlines",
        "\u202egnp.exe".encode(),
        b"<script>",
        b"'\"\\",
        b" ",
        b"-x",
        b"x" * 240,
        b"A",
        b"a",
    )
    here = os.fsencode(root) + b"/"
    for _ in range(int(rng.integers(3))):
        here += words[int(rng.integers(len(words)))] + b"/"
    try:
        os.makedirs(here, exist_ok=True)
    except (FileExistsError, NotADirectoryError):  # an earlier one is a file
        return
    path = here + words[int(rng.integers(len(words)))] + (b".png" if rng.integers(4) else b"")
    if os.path.lexists(path):
        return
    way = int(rng.integers(8))
    if way == 0:
        os.mkfifo(path)
    elif way == 1:
        os.symlink(rng.choice([b"/dev/zero", b".", b"..", b"/", b"nowhere", path, b"/etc/passwd"]), path)
    elif way == 2:
        os.makedirs(path)
    else:
        pathlib.Path(os.fsdecode(path)).write_bytes(png if rng.integers(5) else b"no picture")


_SUMMARY = {
    "finished": True,
    "step": 20,
    "total_steps": 20,
    "steps_per_epoch": 10,
    "batch_size": 32,
    "wall_seconds": 44.5,
    "seed": 7,
    "devices": 1,
    "device_kind": "cpu",
    "commit": "0123456789abcdef-dirty",
    "alarms": [{"step": 10, "sentence": "the outputs are all alike"}],
    "last": {"train/loss": -0.2, "eval/knn/accuracy": 0.9},
    "best": {"eval/knn/accuracy": {"value": 0.9, "step": 20}},
}
_LINES = tuple(
    {"step": step, "epoch": step / 10, "images": step * 32, "seconds": step * 2.0, "train/loss": -step / 100, **more}
    for step, more in ((10, {}), (20, {"eval/knn/accuracy": 0.9}))
)
_MADE = {"script": "experiments.fuzz", "finished": True, "files": ["one.png", "two/three.png"], "pictures": []}
