"""A config with all its images in one folder, for a machine without a network, TFDS, Grain and ml_collections.

    python -m experiments.pack --config=configs/simsiam_cifar10.py --out=packed/cifar10 [--config.seed=1]

Writes `config.json` and an `.npz` file for each data set that the config trains on or evaluates with. Copy the folder
to any place and run there, with nothing but jax, flax, optax, orbax-checkpoint and numpy,

    python -m experiments.train --config=packed/cifar10/config.json --workdir=runs/cifar10 [--config.key=value]
    python -m experiments.benchmark --config=packed/cifar10/config.json

The batches are those of the config that was packed, bit for bit. What trains from a stream (images of varying size, a
crop on the host) cannot be packed, nor can the configs of experiments.linear_probe and its like, which are filled from
a run. Without matplotlib such a run has no `report.html`; all else is in its folder.
"""

import inspect
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import flags

from experiments import command, config_flag, output
from ssl_jax import build, log, loop
from ssl_jax.data import feed, packed, resident, unpaired
from ssl_jax.types import UsageError

CONFIG = config_flag.define_config("The experiment, such as configs/simsiam_cifar10.py.")
OUT = flags.DEFINE_string("out", "", "The folder to write, new or of an earlier call.")

EXAMPLES = {
    "data.feed.Evaluation": "data.packed.Evaluation",
    "data.unpaired.Test": "data.packed.Evaluation",
    "data.unpaired.Pairs": "data.packed.Pairs",
}
FEEDS = {"data.feed.training": "data.packed.training", "data.unpaired.training": "data.packed.unpaired"}
READERS = {"data.feed.training": feed.training, "data.unpaired.training": unpaired.training}
PACKED = {*EXAMPLES.values(), *FEEDS.values()}
FILES = ("data.resident.npz", "data.unpaired.npz")
KEPT = ("name", "split", "name_a", "split_a", "name_b", "split_b", "batch_size", "class_names", "image_shape")


def main(arguments):
    """Packs what the config names."""
    command.refuse_stray_words(arguments)
    if not CONFIG.value or not OUT.value:
        raise UsageError(
            "needs --config and --out: python -m experiments.pack --config=configs/NAME.py --out=packed/NAME"
        )
    print(write(pathlib.Path(OUT.value), build.normalised(command.config_of(CONFIG)), CONFIG.linked()))


def write(out: pathlib.Path, config: Mapping[str, Any], linked: list[list[str]]) -> str:
    """Writes the folder; returns a line that says what is in it.

    Args:
        out: new, empty, or of an earlier call.
        config: of experiments.train.
        linked: as `config_flag.ConfigFlag.linked` gives it.

    Raises:
        UsageError: for a faulty config, what cannot be packed, or a folder that is in use.
    """
    for gap in ("graft", "self_training"):
        if gap in config:
            raise UsageError(f"config.{gap} is filled from a run: only configs of experiments.train are packed")
    build.check(loop.fit, config, given=("folder", "config"))
    folder = output.claim(out, "packed.json", "experiments.pack")
    sets: dict[str, dict[str, np.ndarray]] = {}
    portable = pack(config, sets)
    portable[config_flag.LINKED] = [
        there for group in linked if len(there := [path for path in group if _has(portable, path)]) > 1
    ]
    files = [*(f"{content}.npz" for content in sets), "config.json"]
    folder.begin(files, {})
    for content, arrays in sets.items():
        log.replace(out / f"{content}.npz", arrays)
    folder.write("config.json", (json.dumps(portable, indent=2) + "\n").encode())
    folder.finish(files, {})
    size_mib = sum((out / file).stat().st_size for file in files) / 2**20
    return f"{out}: config.json and {len(sets)} data set{'s' if len(sets) != 1 else ''}, {size_mib:.1f} MiB"


def pack(config: Mapping[str, Any], sets: dict[str, dict[str, np.ndarray]], path: str = "config") -> dict[str, Any]:
    """The config with every data section replaced by one that reads a packed file.

    Args:
        config: a section, with those below it.
        sets: entries of the files by `content`; those that the section needs are added, equal ones once.
        path: where the section is.

    Raises:
        UsageError: for what cannot be packed.
    """
    kind = config["type"] if "type" in config else None
    if kind in FEEDS or kind in EXAMPLES or kind in FILES:
        return _packed(config, sets, path)
    if kind in PACKED:
        raise UsageError(f"{path} is packed already: copy the folder of that config")
    if config.get("origin"):
        log.say(f"{path}.origin: {config['origin']} is not packed; copy it as well, or leave this section out")
    return {
        key: pack(item, sets, f"{path}.{key}") if isinstance(item, Mapping) else item for key, item in config.items()
    }


def _has(config, path):
    for key in path.split("."):
        if not isinstance(config, Mapping) or key not in config:
            return False
        config = config[key]
    return True


def _packed(config, sets, path):
    kind = config["type"]
    kept = {key: config[key] for key in KEPT if key in config and config[key] is not None}
    if kind in FILES:
        names = ("image", "label") if kind == FILES[0] else ("image_a", "image_b")
        content = _add(sets, pathlib.Path(config["file"]).stem, resident.read_npz(config["file"], names))
        return {**config, "file": f"{config_flag.FOLDER}/{content}.npz"}
    if kind in FEEDS:
        _refuse_what_streams(config, path)
    if kind == "data.unpaired.training":
        arrays = {}
        for domain in "ab":
            given = {"name": config[f"name_{domain}"], "split": config[f"split_{domain}"]}
            size = {"size_px": config["load_px"]} if "load_px" in config else {}
            section = {"type": "data.unpaired.Test", **given, **size, "data_dir": config.get("data_dir", "")}
            arrays[f"image_{domain}"] = _examples(build.section(section, path))["image"]
    elif kind in FEEDS:
        place = {key: config[key] for key in ("name", "split", "data_dir") if key in config}
        expected = {key: config[key] for key in ("class_names", "image_shape") if key in config}
        arrays = _examples(build.section({"type": "data.feed.Evaluation", **place, **expected}, path))
        arrays = _without(arrays, config.get("without", ()), path)
    else:
        arrays = _examples(build.section(config, path))
        kept.pop("image_shape", None)
    _refuse_what_would_stream(config, arrays, path)
    content = _add(sets, config["name"] if "name" in config else config["name_a"], arrays)
    kind = (FEEDS | EXAMPLES)[kind]
    return {"type": kind, **kept, "content": content, "data_dir": config_flag.FOLDER}


def _examples(examples):
    """All that a set gives, without its padding."""
    batches = [{key: array[batch["mask"]] for key, array in batch.items()} for batch in examples.batches()]
    arrays = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0] if key != "mask"}
    arrays[packed.CLASS_NAMES] = np.array(examples.class_names, np.str_)
    if hasattr(examples, "names") and not examples.names()[0].endswith(" 0"):
        arrays[packed.NAMES] = np.array(examples.names(), np.str_)
    return arrays


def _without(arrays, classes, path):
    """The images that are of none of these classes, as `data.feed.training` leaves them out."""
    known = arrays[packed.CLASS_NAMES].tolist()
    unknown = [name for name in classes if name not in known]
    if unknown:
        raise UsageError(f"{path}.without: there is no class {unknown[0]!r}; the classes: {', '.join(known) or 'none'}")
    rows = ~np.isin(arrays["label"], [known.index(name) for name in classes])
    per_image = {key for key in arrays if key != packed.CLASS_NAMES}
    return {key: array[rows] if key in per_image else array for key, array in arrays.items()}


def _add(sets, name, arrays):
    content = packed.content_of(name, arrays)
    for there in sets:  # under the name of another set
        if there.rpartition("-")[2] == content.rpartition("-")[2]:
            return there
    sets[content] = arrays
    return content


def _refuse_what_streams(config, path):
    for key in ("labels", "guesses"):
        if config.get(key) is not None:
            raise UsageError(
                f"{path}.{key}: images that are drawn or guessed at cannot be packed; pack the whole split"
            )
    if config.get("crop") is not None or config.get("feeding") == "stream":
        key = "crop" if config.get("crop") is not None else "feeding"
        raise UsageError(f"{path}.{key}: what trains from a stream cannot be packed, only a resident set of one size")


def _refuse_what_would_stream(config, arrays, path):
    if config["type"] not in READERS:
        return
    defaults = {key: each.default for key, each in inspect.signature(READERS[config["type"]]).parameters.items()}
    told = {key: config.get(key, defaults[key]) for key in ("feeding", "resident_limit_mib")}
    needed_mib = sum(array.nbytes for key, array in arrays.items() if key in packed.IMAGES) / 2**20
    if told["feeding"] == "auto" and needed_mib > told["resident_limit_mib"]:
        raise UsageError(
            f"{path} needs {needed_mib:.0f} MiB and would train from a stream, which cannot be packed: "
            f"keep it on the device with --{path}.feeding=resident"
        )


if __name__ == "__main__":
    command.run(main)
