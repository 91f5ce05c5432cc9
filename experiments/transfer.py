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
    network = pretrained.read(RUN.value, "encoder", which=CHECKPOINT.value)
    return fill(config, network), folder


def fill(config: Mapping[str, Any], network: pretrained.Network, *, quiet: bool = False) -> dict[str, Any]:
    """The config with every gap filled from the encoder and from the data set that the section `data` names.

    Says on the console which encoder was taken, unless `quiet`.

    Raises:
        UsageError: for a data set without labels, or with images of other channels than the encoder takes.
    """
    grafted = "graft" in config and config["graft"] is not None
    records = _records(config["data"])
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


def _records(data):
    """The training set as a source, of which nothing is decoded yet."""
    place = {key: data[key] for key in ("name", "split", "data_dir") if key in data}
    if not {"name", "split"} <= place.keys():
        raise UsageError("config.data names no data set: take the type data.feed.training, with name and split")
    return build.section({"type": "data.source.open_source", **place}, "config.data")


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
