"""Fixed networks by whose features images are compared: the published Inception, or one that this project trained."""

import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import augment, build, fingerprint, pretrained
from ssl_jax.types import UsageError

_CLASSIFY = "methods.classify.Classify"
PLAIN = "augment.Plain"
"""The type of a section that prepares images without chance."""
_INCEPTION_AT_ONCE = 32
_ENCODER_AT_ONCE = 128


class Inception:
    """The network of December 2015 that FID, KID and Inception Score are defined by, see `models.inception`.

    A `types.Extractor` with features [b, 2048] and logits [b, 1008]. Grey images are repeated to three channels.
    """

    name = "inception"
    resize = "bilinear to 299x299 px as TensorFlow 1 resized, without antialiasing"
    class_names = ()

    def __init__(self, weights: str):
        """Args:
            weights: the published file, or the `.npz` made of it (see `models.inception_weights.read`).

        Raises:
            UsageError: for a missing, damaged or other file.
        """
        # Only here, so that whoever compares by an encoder needs nothing of it.
        from ssl_jax.models import inception, inception_weights

        network, variables = inception.Inception(), inception_weights.read(weights)
        self.digest = inception_weights.digest(variables)
        self._weights = weights
        self._answer = jax.jit(network.apply)
        self._variables = jax.device_put(variables)

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `types.Extractor`."""
        images = np.broadcast_to(images, (*images.shape[:3], 3)) if images.shape[-1] == 1 else images
        return _in_batches(functools.partial(self._answer, self._variables), images, _INCEPTION_AT_ONCE)

    def describe(self) -> str:
        """See `types.Extractor`."""
        return f"Inception of December 2015, weights {self._weights}"


class Encoder:
    """A network that this project trained, by the features of its encoder, and a classifier's logits as well.

    A `types.Extractor`. Distances by it compare generators judged by the very same network and by nothing else: none of
    them is an FID. Images are prepared as the run's own evaluation prepared them, by the first `augment.Plain` below
    its evaluators; for an exported file they are normalised as its run did and keep their size.
    """

    name = "encoder"

    def __init__(self, origin: str | None = None, checkpoint: Literal["last", "best"] = "last"):
        """Args:
            origin: a run folder (of `methods.classify`: features and logits; of another method with an encoder:
                features), or a file that experiments.export wrote.
            checkpoint: which checkpoint of the run.

        Raises:
            UsageError: for no origin, what is neither run nor file, a run that has no encoder or whose evaluation does
                not say how images are prepared, or "best" where nothing was compared.
            RunError: for damaged files.
        """
        if not origin:
            raise UsageError(
                "extractors.Encoder: origin is not set; set it to the run folder of a classifier or encoder, "
                "such as runs/classify_digits, or to a file of experiments.export"
            )
        path = pathlib.Path(origin)
        self.class_names: tuple[str, ...] = ()
        if path.is_file() or path.suffix in pretrained.FILE_SUFFIXES:
            parts = {"encoder": pretrained.read(origin)}
            plain = {"type": PLAIN, "mean": parts["encoder"].mean, "deviation": parts["encoder"].deviation}
        else:
            folder, config = run_of(path)
            parts = {"encoder": pretrained.read(str(folder), which=checkpoint)}
            plain = preparation(config, origin)
            if config["method"]["type"] == _CLASSIFY:
                # By its step, for a run that still trains may have gone on.
                parts["head"] = pretrained.read(str(folder), "head", which=parts["encoder"].step)
                names = config["data"]["class_names"] if "class_names" in config["data"] else None
                self.class_names = tuple(names or ())
        self._described = parts["encoder"].describe()
        prepare = build.section(plain, f"{origin}: preparation of images")
        self.resize = _resize_in_words(prepare)
        made_of = {
            "arrays": fingerprint.sha256({name: [part.params, part.stats] for name, part in parts.items()}),
            "sections": {name: part.section for name, part in parts.items()},
            "preparation": plain,
        }
        self.digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        modules = {name: build.section(part.section, f"{origin}: {name}") for name, part in parts.items()}
        self._variables = jax.device_put(
            {name: {"params": part.params, "batch_stats": part.stats} for name, part in parts.items()}
        )
        self._answer = jax.jit(functools.partial(_features_and_logits, modules, prepare))

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """See `types.Extractor`; raises UsageError for images with other channels than the network takes."""
        try:
            return _in_batches(functools.partial(self._answer, self._variables), images, _ENCODER_AT_ONCE)
        except flax.errors.ScopeParamShapeError as error:
            raise UsageError(
                f"images of {'x'.join(map(str, images.shape[1:]))} do not fit the {self._described}: give the network "
                "of a run on images of the same channels"
            ) from error

    def describe(self) -> str:
        """See `types.Extractor`; with the checkpoint and its step."""
        return self._described + (", with its head" if "head" in self._variables else "")


def run_of(folder: pathlib.Path) -> tuple[pathlib.Path, dict[str, Any]]:
    """The run folder, of a run of self-training its last round's, and its config, normalised.

    Raises:
        UsageError: for a folder that holds no run.
    """
    config = build.normalised(pretrained.run_config(folder))
    if "self_training" not in config:
        return folder, config
    folder = folder / f"round_{config['self_training']['rounds']}"
    return folder, build.normalised(pretrained.run_config(folder))


def preparation(config: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The first section of `augment.Plain` below a run's evaluators, the outer ones first.

    Args:
        config: of the run, normalised.
        origin: the run, for the message.

    Raises:
        UsageError: where there is none.
    """
    sections = [config["evaluators"]] if config.get("evaluators") else []
    for section in sections:
        if "type" in section and section["type"] == PLAIN:
            return dict(section)
        sections += [value for value in section.values() if isinstance(value, Mapping)]
    raise UsageError(
        f"{origin}: no evaluator of this run has an {PLAIN}, which would say how its images are prepared; "
        "give another run, or export the encoder (experiments.export), which prepares them without a resize"
    )


def _resize_in_words(prepare: augment.Plain) -> str:
    cut = f"{prepare.size_px}x{prepare.size_px} px"
    if prepare.resize_px is not None:
        then = f", then the central {cut}" if prepare.size_px is not None else ""
        return f"antialiased bilinear, shorter side to {prepare.resize_px} px{then}"
    return "none" if prepare.size_px is None else f"antialiased bilinear to {cut}"


def _features_and_logits(modules, prepare, variables, images):
    # A GPU's default would move the features, and what one machine keeps of real images another may read.
    with jax.default_matmul_precision("highest"):
        features = modules["encoder"].apply(variables["encoder"], prepare(images), train=False)
        logits = modules["head"].apply(variables["head"], features, train=False) if "head" in modules else None
    return features.reshape(len(images), -1).astype(jnp.float32), logits


def _in_batches(
    answer: Callable[[np.ndarray], tuple[jax.Array, jax.Array | None]], images: np.ndarray, at_once: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """What `answer` gives for images of any number, asked for equally many at a time, so that one program is compiled.

    It runs on one device: whoever calls may do so in one of several processes alone.
    """
    parts = []
    for first in range(0, max(len(images), 1), at_once):
        some = images[first : first + at_once]
        filled = np.pad(some, [(0, at_once - len(some))] + [(0, 0)] * (images.ndim - 1))
        features, logits = answer(filled)
        parts.append([None if array is None else np.asarray(array)[: len(some)] for array in (features, logits)])
    features, logits = zip(*parts, strict=True)
    return np.concatenate(features), None if logits[0] is None else np.concatenate(logits)
