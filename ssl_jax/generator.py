"""A trained generator as functions, made from its run folder and nothing else; and ways through its latent space."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import build, checkpoint, mesh, pretrained, sheet, trainer
from ssl_jax.types import RunError, TrainState, UsageError

METHOD = "methods.gan.GAN"
_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Generator:
    """A run's generator in evaluation mode, the averaged one where there is one.

    `sample`, `generate`, `latents_of` and `discriminate` take and return host arrays of any length; they compute in
    batches of one size, so that an image does not depend, not even in its last bit, on how many were asked for.

    Attributes:
        step: of the checkpoint.
        latent: width of the latent vectors.
        latent_law: "normal", or "uniform" in [-1, 1].
        classes: how many classes it makes; None for none.
        class_names: in the order of the labels; () where the run does not know them.
        image_shape: height, width and channels (1 or 3).
        latents_of: tickets int32 [b, 2], a seed and a number each, to latents float32 [b, latent] and labels int32 [b]
            (None without classes): what `sample` shows.
        sample: tickets int32 [b, 2] to images uint8 [b, h, w, c]. With classes, number i shows class i modulo k.
        generate: latents float32 [b, latent] and labels int32 [b], or None without classes, to images float32
            [b, h, w, c] in [-1, 1].
        discriminate: images uint8 [b, h, w, c] and labels as above to logits float32 [b]; high for real.
        draw: a key and a count to latents float32 [count, latent] of the law.
        images_of: `generate` as a pure function of arrays that gradients go through. It is a pytree that holds the
            weights: handed to a compiled function as an argument, they do not become constants of its program.
    """

    step: int
    latent: int
    latent_law: Literal["normal", "uniform"]
    classes: int | None
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    latents_of: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]
    sample: Callable[[np.ndarray], np.ndarray]
    generate: Callable[[np.ndarray, np.ndarray | None], np.ndarray]
    discriminate: Callable[[np.ndarray, np.ndarray | None], np.ndarray]
    draw: Callable[[jax.Array, int], jax.Array]
    images_of: Callable[[jax.Array, jax.Array | None], jax.Array]

    def class_name(self, label: int) -> str:
        """A class in words: its name where the run knows it, else its number."""
        return self.class_names[label] if self.class_names else str(label)


def load(folder: pathlib.Path, *, which: Literal["last", "best"] = "last") -> Generator:
    """The generator of images that a run of `methods.gan` trained.

    Raises:
        UsageError: for a folder that is no run, a run of another method or one that makes vectors, and "best" where
            nothing was compared.
        RunError: for damaged checkpoints.
    """
    config = build.normalised(pretrained.run_config_of(folder, METHOD, "GAN"))
    params, stats, step = checkpoint.restore_networks(folder, None, which=which)
    method = build.section(config["method"], "config.method", build.clock_of(folder))
    state = TrainState(step=jnp.int32(step), params=params, stats=stats, opt={}, memory={})
    spec = jax.eval_shape(method.exports["sample"], state, jax.ShapeDtypeStruct((1, 2), jnp.int32))
    if spec.ndim != 4:
        raise UsageError(
            f"{folder} makes vectors of {spec.shape[-1]} numbers (generator {config['method']['generator']['type']}), "
            "and images are needed: give the run of a config that makes images"
        )
    devices = mesh.data_parallel()
    state = jax.device_put(state, mesh.replicated(devices))
    exports = trainer.compiled_exports(method, devices)

    def sample(tickets: np.ndarray) -> np.ndarray:
        made = _in_batches(exports["sample"], state, np.asarray(tickets, np.int32), _as_given)
        return sheet.as_bytes(_finite(made, folder, step))

    def generate(latents: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        inputs = {"latent": np.asarray(latents, np.float32), **_labelled(method.classes, labels)}
        return _finite(_in_batches(exports["generate"], state, inputs, _as_given), folder, step)

    def discriminate(images: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        inputs = {"image": np.asarray(images, np.uint8), **_labelled(method.classes, labels)}
        return _in_batches(exports["discriminate"], state, inputs, _centred)

    draw_tickets = jax.jit(method.latents_of)

    def latents_of(tickets: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        drawn = draw_tickets(np.asarray(tickets, np.int32))
        return np.asarray(drawn["latent"]), None if method.classes is None else np.asarray(drawn["label"])

    def make(state: TrainState, latents: jax.Array, labels: jax.Array | None) -> jax.Array:
        return method.exports["generate"](state, {"latent": latents, **_labelled(method.classes, labels)})

    class_names = (config["data"]["class_names"] or ()) if "class_names" in config["data"] else ()
    if method.classes is not None and class_names and len(class_names) != method.classes:
        raise UsageError(
            f"{folder} was trained with method.classes={method.classes} on {len(class_names)} classes: its images have "
            "no names; train it with as many"
        )
    return Generator(
        step=step,
        latent=method.latent,
        latent_law=method.latent_law,
        classes=method.classes,
        class_names=class_names,
        image_shape=spec.shape[1:],
        latents_of=latents_of,
        sample=sample,
        generate=generate,
        discriminate=discriminate,
        draw=method.draw,
        images_of=jax.tree_util.Partial(make, state),
    )


def _finite(images, folder, step):
    broken = np.sum(~np.isfinite(images).all(axis=(1, 2, 3)))
    if broken:
        raise RunError(
            f"{broken} of {len(images)} images of {folder} at step {step} hold values that are not finite: its "
            "training has diverged; take an earlier checkpoint"
        )
    return images


def truncated(latents: np.ndarray, value: float, law: Literal["normal", "uniform"]) -> np.ndarray:
    """Latents of the same draw under a truncated law: fewer extremes, better and more alike images.

    The normal law given that every coordinate lies within [-value, value], as BigGAN truncates (arXiv 1809.11096,
    section 3.1). BigGAN draws coordinates anew until they do; here each is moved to the truncated law's value of the
    same quantile, which has the same distribution and keeps images of several values comparable. The uniform law
    becomes the one in [-value, value].

    Args:
        latents: float32 [..., latent] of the law.
        value: above 0; at most 1 for the uniform law.
        law: of the latents.

    Returns:
        float32 [..., latent].

    Raises:
        UsageError: for another value.
    """
    if not 0 < value < np.inf:
        raise UsageError(f"truncation={value:g}: it must be above 0, such as 0.5, 0.7 and 1")
    if law == "uniform":
        if value > 1:
            raise UsageError(f"truncation={value:g}: latents uniform in [-1, 1] can be cut to a value of at most 1")
        return np.asarray(value * latents, np.float32)
    return np.asarray(_truncated_normal(np.asarray(latents, np.float32), np.float32(value)))


@jax.jit
def _truncated_normal(latents, value):
    ndtr, ndtri = jax.scipy.special.ndtr, jax.scipy.special.ndtri
    beyond = ndtr(-value)
    # The map is odd, and probabilities below a half keep their digits in float32.
    moved = ndtri(beyond + ndtr(-jnp.abs(latents)) * (1.0 - 2.0 * beyond))
    return jnp.where(latents > 0, -moved, moved)


def round_trip(stops: np.ndarray, frames: int, law: Literal["normal", "uniform"]) -> np.ndarray:
    """Latents on the way from stop to stop and from the last back to the first: an endless loop.

    Between normal latents the way goes along the great circle (White 2016, arXiv 1609.04468), since a straight line
    would pass through lengths that the law never draws; between uniform ones it is straight.

    Args:
        stops: float32 [n, ..., latent], n at least 2.
        frames: latents from one stop to the next, the first included; the stops themselves are among them.
        law: of the latents.

    Returns:
        float32 [n * frames, ..., latent].
    """
    start, end = np.asarray(stops, np.float64), np.roll(np.asarray(stops, np.float64), -1, axis=0)
    start, end = start[:, None], end[:, None]
    share = (np.arange(frames) / frames).reshape(1, frames, *[1] * (start.ndim - 2))
    way = (1.0 - share) * start + share * end
    if law == "normal":
        lengths = np.linalg.norm(start, axis=-1, keepdims=True) * np.linalg.norm(end, axis=-1, keepdims=True)
        cosine = np.sum(start * end, axis=-1, keepdims=True) / np.maximum(lengths, 1e-12)
        angle = np.arccos(np.clip(cosine, -1.0, 1.0))
        sine = np.sin(angle)
        # No circle is determined by latents in one line.
        circle = np.sin((1.0 - share) * angle) * start + np.sin(share * angle) * end
        way = np.where(sine > 1e-6, circle / np.maximum(sine, 1e-6), way)
    return way.reshape(-1, *way.shape[2:]).astype(np.float32)


def _in_batches(export, state, inputs: Any, preprocess) -> np.ndarray:
    count = len(jax.tree.leaves(inputs)[0])
    parts = []
    for first in range(0, max(count, 1), _AT_ONCE):
        part = jax.tree.map(lambda array, at=first: array[at : at + _AT_ONCE], inputs)
        short = _AT_ONCE - len(jax.tree.leaves(part)[0])
        part = jax.tree.map(lambda array, n=short: np.pad(array, [(0, n)] + [(0, 0)] * (array.ndim - 1)), part)
        parts.append(export(state, part, preprocess)[: _AT_ONCE - short])
    return np.concatenate(parts)


def _labelled(classes, labels) -> dict[str, Any]:
    if (classes is None) != (labels is None):
        raise UsageError("labels: give them to a generator with classes, and none to one without")
    return {} if labels is None else {"label": labels.astype(jnp.int32)}


def _as_given(inputs):
    return inputs


def _centred(inputs):
    """Pixels as the generator makes them and the discriminator was trained on: in [-1, 1]."""
    return {**inputs, "image": inputs["image"].astype(jnp.float32) / 127.5 - 1.0}
