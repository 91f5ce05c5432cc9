"""Pictures restored by a generator: the latent whose image, degraded as the picture was, comes nearest to it.

Bora et al. 2017 (arXiv 1703.03208): minimise || degrade(G(z)) - picture ||^2 + prior * ||z||^2 over z, from several
starts. Images are float32 [b, h, w, c] in [-1, 1] unless they are said to be uint8.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssl_jax import image_ops
from ssl_jax.types import RunError, UsageError

Task = Literal["deblur", "inpaint", "upscale"]


@dataclasses.dataclass(frozen=True, eq=False)
class Degradation:
    """What happened to a picture; `degradation` makes one.

    Attributes:
        task: what undoes it.
        strength: see `degradation`.
        size: height and width of the degraded picture.
        missing: bool [h, w], pixels that are gone; None where none are.
        apply: images [b, h, w, c] to degraded ones [b, *size, c], differentiable; missing pixels become 0.
    """

    task: Task
    strength: float
    size: tuple[int, int]
    missing: np.ndarray | None
    apply: Callable[[jax.Array], jax.Array]

    def error(self, images: jax.Array, degraded: jax.Array) -> jax.Array:
        """Mean squared difference [b] between images, once degraded, and `degraded`, over the pixels that are there."""
        difference = self.apply(images) - degraded
        if self.missing is None:
            return jnp.mean(difference**2, axis=(1, 2, 3))
        return jnp.mean(self.apply(difference) ** 2, axis=(1, 2, 3)) / np.mean(~self.missing)

    def enlarged(self, degraded: np.ndarray) -> np.ndarray:
        """The restoration without a generator, at full size: bicubic interpolation for small pictures, else nothing."""
        if self.task != "upscale":
            return degraded
        size = [side * round(self.strength) for side in self.size]
        shape = (len(degraded), *size, degraded.shape[-1])
        return np.clip(np.asarray(jax.image.resize(degraded, shape, "cubic")), -1.0, 1.0)

    def completed(self, images: np.ndarray, degraded: np.ndarray) -> np.ndarray:
        """Generated images, of which pictures with missing pixels take these alone and keep all others."""
        return images if self.missing is None else np.where(self.missing[None, :, :, None], images, degraded)


def degradation(
    task: Task, strength: float | None, height: int, width: int, mask: np.ndarray | None = None
) -> Degradation:
    """What a task undoes.

    Args:
        task: "deblur": a Gaussian blur over reflected borders. "upscale": the mean of each square of pixels.
            "inpaint": a centred square hole.
        strength: deblur: standard deviation in pixels; None is the side over 28, but at least 1. upscale: the whole
            number that both sides are divided by; None is 4, or 2 where 4 leaves less than 4 px. inpaint: the hole's
            side as a share of the image's shorter one; None is 0.5.
        height, width: of the images.
        mask: bool [height, width], for inpaint: the missing pixels, instead of a square; strength must be None.

    Raises:
        UsageError: for a strength or mask that these images cannot have.
    """
    if task != "inpaint" and mask is not None:
        raise UsageError(f"a mask says which pixels are missing, and the task is {task}: take inpaint or no mask")
    if task == "deblur":
        return _blurred(strength, height, width)
    return _shrunk(strength, height, width) if task == "upscale" else _holed(strength, height, width, mask)


def _blurred(strength, height, width):
    side = min(height, width)
    largest = (side - 1) / 3  # the window reaches three deviations, and must not reach over the picture
    sigma_px = min(max(1.0, side / 28), largest) if strength is None else strength
    if not 0 < sigma_px <= largest:
        raise UsageError(
            f"strength={strength}: a blur's deviation in pixels lies above 0 and, for images of {side} px, is at most "
            f"{largest:.3g}"
        )
    window_px = 2 * min(math.ceil(3 * sigma_px), side - 1) + 1

    def blur(images: jax.Array) -> jax.Array:
        return image_ops.gaussian_blur(images, jnp.full(len(images), sigma_px), window_px)

    return Degradation("deblur", sigma_px, (height, width), None, blur)


def _shrunk(strength, height, width):
    fit = [factor for factor in range(2, min(height, width) + 1) if height % factor == 0 and width % factor == 0]
    wanted = [strength]
    if strength is None:
        # Of fewer than 4 x 4 pixels there is little to restore from.
        wanted = [factor for factor in (4, 2) if min(height, width) >= 4 * factor] or [2]
    factors = [factor for factor in wanted if factor in fit]
    if not factors:
        raise UsageError(
            f"strength={strength}: images of {height}x{width} px are enlarged by a whole number that divides both "
            f"sides: {', '.join(map(str, fit)) or 'there is none'}"
        )
    factor = int(factors[0])
    size = (height // factor, width // factor)

    def shrink(images: jax.Array) -> jax.Array:
        return images.reshape(len(images), size[0], factor, size[1], factor, -1).mean(axis=(2, 4))

    return Degradation("upscale", float(factor), size, None, shrink)


def _holed(strength, height, width, mask):
    if mask is None:
        side = min(height, width)
        share = 0.5 if strength is None else strength
        hole_px = round(share * side) if 0 < share < 1 else 0
        if not 0 < hole_px < side:
            raise UsageError(
                f"strength={strength}: a hole's share of the side lies between 0 and 1 and, for images of {side} px, "
                f"is {1 / side:.3g} to {1 - 1 / side:.3g}"
            )
        missing = np.zeros((height, width), bool)
        top, left = (height - hole_px) // 2, (width - hole_px) // 2
        missing[top : top + hole_px, left : left + hole_px] = True
    else:
        if strength is not None:
            raise UsageError(f"strength={strength} and a mask both say which pixels are missing: give one of them")
        missing = np.asarray(mask, bool)
        share = float(missing.mean())
        if missing.shape != (height, width) or missing.all() or not missing.any():
            raise UsageError(
                f"the mask marks {missing.sum()} of {missing.size} pixels as missing: some must be, and not all"
            )
    known = (~missing).astype(np.float32)[None, :, :, None]
    return Degradation("inpaint", share, (height, width), missing, lambda images: images * known)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How latents are looked for: Adam on `Degradation.error` plus `prior` times the latent's squared length.

    Where pixels differ by Gaussian noise of variance v, the most probable latent is found with a prior of v over the
    count of numbers in a degraded picture.

    Attributes:
        law: of the latents; uniform ones are kept within [-1, 1], and should have a prior of 0.
        steps: updates.
        learning_rate: of Adam.
        prior: the weight of the latent's squared length.

    Raises:
        UsageError: for no steps, a rate that is not above 0, or a prior below 0.
    """

    law: Literal["normal", "uniform"] = "normal"
    steps: int = 300
    learning_rate: float = 0.05
    prior: float = 1e-4

    def __post_init__(self):
        if self.steps < 1 or not 0 < self.learning_rate < math.inf or not 0 <= self.prior < math.inf:
            raise UsageError(
                f"steps={self.steps}, learning_rate={self.learning_rate}, prior={self.prior}: they must be at least 1, "
                "above 0, and at least 0"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """The best of a picture's starts, for p pictures.

    Attributes:
        latents: float32 [p, latent].
        labels: int32 [p], None without classes.
        images: float32 [p, h, w, c].
        objectives: float32 [p].
    """

    latents: np.ndarray
    labels: np.ndarray | None
    images: np.ndarray
    objectives: np.ndarray


def search(
    images_of: Callable[[jax.Array, jax.Array | None], jax.Array],
    degraded: np.ndarray,
    degradation: Degradation,
    settings: Settings,
    *,
    latents: np.ndarray,
    labels: np.ndarray | None = None,
    told: Callable[[], object] = lambda: None,
) -> Found:
    """All starts of all pictures at once; each picture keeps the least objective that any of its starts has met.

    Args:
        images_of: latents [n, latent] and labels [n] or None to images [n, h, w, c], differentiable. As a
            `jax.tree_util.Partial` of one function it may hold other arrays in every call: calls with the same shapes,
            degradation and settings then share one compiled step.
        degraded: the pictures, [p, *degradation.size, c].
        degradation: what was done to them.
        settings: of the search.
        latents: the starts, [p, s, latent].
        labels: the starts' classes, int32 [p, s]; None without classes.
        told: called after every step, `settings.steps` + 1 times, such as a bar's update.

    Raises:
        RunError: where the generator makes no finite image.
    """
    if not isinstance(images_of, jax.tree_util.Partial):
        images_of = jax.tree_util.Partial(images_of)
    pictures, starts, width = latents.shape
    begin = jnp.asarray(latents, jnp.float32).reshape(-1, width)
    kinds = None if labels is None else jnp.asarray(labels, jnp.int32).reshape(-1)
    given = images_of, jnp.repeat(jnp.asarray(degraded, jnp.float32), starts, axis=0), kinds
    least = jnp.full(len(begin), jnp.inf, jnp.float32)
    state = begin, optax.adam(settings.learning_rate).init(begin), begin, least
    # A plain loop over a compiled step: inside a compiled loop XLA leaves its fast convolutions on CPUs.
    for _ in range(settings.steps + 1):  # the last one only looks at where the one before has led
        state = _step(degradation, settings, *given, state)
        told()
    _, _, best, least = state
    objectives = np.asarray(least).reshape(pictures, starts)
    if not np.isfinite(objectives.min(axis=1)).all():
        raise RunError("the generator's images are not finite: take an earlier checkpoint or another run")
    chosen = np.arange(pictures) * starts + objectives.argmin(axis=1)
    best, kinds = np.asarray(best)[chosen], None if kinds is None else np.asarray(kinds)[chosen]
    return Found(best, kinds, np.asarray(_make(images_of, best, kinds)), objectives.min(axis=1))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _step(degradation, settings, images_of, degraded, labels, state):
    latents, moments, best, least = state

    def objective(latents):
        error = degradation.error(images_of(latents, labels), degraded)
        each = error + settings.prior * jnp.sum(latents**2, axis=1)
        return jnp.sum(each), each

    slopes, each = jax.grad(objective, has_aux=True)(latents)
    better = each < least
    best, least = jnp.where(better[:, None], latents, best), jnp.where(better, each, least)
    updates, moments = optax.adam(settings.learning_rate).update(slopes, moments)
    latents = latents + updates
    return jnp.clip(latents, -1.0, 1.0) if settings.law == "uniform" else latents, moments, best, least


@jax.jit
def _make(images_of, latents, labels):
    return images_of(latents, labels)


def psnr(images: np.ndarray, truth: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """Peak signal-to-noise ratio in dB, float64 [b], infinite for equal images: 10 log10(255^2 / mean squared error).

    Args:
        images, truth: uint8 [b, h, w, c].
        where: bool [h, w], the pixels that count; None counts all.
    """
    squared = (images.astype(np.float64) - truth) ** 2
    error = squared.mean(axis=(1, 2, 3)) if where is None else squared[:, where].mean(axis=(1, 2))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / error)
