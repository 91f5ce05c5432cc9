"""From a pre-trained encoder and a config with gaps to a config without: what the downstream scripts share.

A gap is a key whose value is None, and its name says what belongs there:
    encoder                  the section that builds the encoder, as its run has it
    mean, deviation          how that run normalised images
    classes, class_names     of the training set
    image_shape              height, width (None: any) and channels of its images
A `graft` section gets the encoder's place, step and hash; with `graft = None` the encoder begins at random.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import launch
from ssl_jax import build, mesh, pretrained
from ssl_jax.types import UsageError

RUN = flags.DEFINE_string("run", "", "The run folder, .npz or .safetensors file that the encoder comes from.")
CHECKPOINT = flags.DEFINE_enum("checkpoint", "last", ["last", "best"], "Which checkpoint of the run.")


def resolve(arguments: list[str], *, script: str, train: str | None = None) -> tuple[dict[str, Any], pathlib.Path]:
    """The config with its gaps filled, and the run folder; says on the console which encoder was taken.

    Args:
        arguments: what the command line holds beside flags.
        script: the script's name, for the messages.
        train: what the config's `method.train` must be, "head" or "all"; None takes either.

    Raises:
        UsageError: for a flag that is missing, a run without an encoder, a config that is not for this script, or a
            data set that does not suit.
    """
    example = f"python -m experiments.{script} --run=runs/NAME --config=configs/NAME.py --workdir=runs/NAME_{script}"
    config, folder = launch.config_and_folder(arguments, example)
    if not RUN.value:
        raise UsageError(f"needs --run, where the encoder comes from: {example}")
    there = config["method"]["train"] if "method" in config and "train" in config["method"] else None
    if there is None or train not in (None, there):
        wanted = f"is {train!r}" if train else "is set"
        raise UsageError(f"experiments.{script} takes a config whose method.train {wanted}; here it is {there!r}")
    network = pretrained.read(RUN.value, "encoder", which=_begun_from(folder) or CHECKPOINT.value)
    return fill(config, network), folder


def _begun_from(folder):
    """The step of the checkpoint of `--run` that the run in `folder` began from: it goes on from that, not a newer."""
    if not (folder / "config.json").is_file():
        return None
    begun = pretrained.run_config(folder)
    graft = begun.get("graft")
    return graft["step"] if graft and graft["origin"] == RUN.value else None


def fill(config: Mapping[str, Any], network: pretrained.Network, *, quiet: bool = False) -> dict[str, Any]:
    """The config with every gap filled from the encoder and from the data set that the section `data` names.

    Says on the console which encoder was taken, unless `quiet`.

    Raises:
        UsageError: for a section that is missing, a data set without labels, or with images of other channels than the
            encoder takes, or training images that an evaluator tests on.
    """
    for name in ("method", "data", "preprocess", "graft"):
        if name not in config:
            more = ": write graft = None where the encoder shall begin at random" if name == "graft" else ""
            raise UsageError(f"the config has no section {name!r}{more}")
    grafted = config["graft"] is not None
    records = records_of(config["data"], "config.data")
    here = f"data set {records.name!r}, split {records.split!r},"
    if not records.class_names:
        raise UsageError(
            f"{here} has no labels, and there is nothing to classify without: give a labelled set or split"
        )
    takes = _channels(network)
    if grafted and takes not in (None, records.image_shape[-1]):
        raise UsageError(
            f"{here} has images of {records.image_shape[-1]} channel(s), and the encoder of {network.origin} takes "
            f"{takes}: give images of the same kind, or pre-train on these"
        )
    for path, examples in tested_on(config):
        refuse_overlap(records, "trains on", records_of(examples, path))
    values = {
        "encoder": build.normalised(network.section),
        "mean": network.mean,
        "deviation": network.deviation,
        "classes": len(records.class_names),
        "class_names": records.class_names,
        "image_shape": records.image_shape,
    }
    filled = _filled(config, values)
    if grafted:
        filled["graft"] |= {"origin": network.origin, "step": network.step, "sha256": network.sha256}
    if mesh.is_first_process() and not quiet:
        print(
            f"{network.describe()}"
            if grafted
            else f"an encoder that begins at random, of the architecture of {network.origin}"
        )
    return filled


def _filled(value, values):
    if not isinstance(value, Mapping):
        return value
    return {
        key: values[key] if item is None and key in values else _filled(item, values) for key, item in value.items()
    }


def tested_on(config: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The sections that say which images the evaluators test on, each with its path."""
    found = []
    for name, every in (config["evaluators"] if "evaluators" in config else {}).items():
        for key in ("examples", "test"):
            if key in every["run"]:
                found.append((f"config.evaluators.{name}.run.{key}", every["run"][key]))
    return found


def records_of(section: Mapping[str, Any], path: str) -> Any:
    """The `data.source.Source` that a section reads, of which nothing is decoded yet."""
    place = {key: section[key] for key in ("name", "split", "data_dir") if key in section}
    if not {"name", "split"} <= place.keys():
        raise UsageError(f"{path} names no data set: take a type of data.feed, with name and split")
    return build.section({"type": "data.source.open_source", **place}, path)


def refuse_overlap(first: Any, verb: str, tested: Any) -> None:
    """Raises UsageError where a source holds records that are tested on."""
    shared = np.intersect1d(first.records(), tested.records()).size
    if shared:
        raise UsageError(
            f"{shared} images are in split {first.split!r} of {first.name!r}, which the run {verb}, and in split "
            f"{tested.split!r} of {tested.name!r}, which it is tested on: choose splits that do not meet"
        )


def _channels(network):
    """How many channels the encoder's images have, None where that cannot be told from its shapes."""
    module = build.section(network.section, "config.method.encoder")
    stored = jax.tree.map(jnp.shape, network.params)
    for channels in (1, 3):
        image = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
        made = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)
        if jax.tree.map(jnp.shape, made["params"]) == stored:
            return channels
    return None
