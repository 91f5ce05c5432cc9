"""Mixtures of Gaussians in the plane: the smallest data on which a generator can lose modes, and be seen to."""

import dataclasses
import math
from typing import Literal

import jax
import numpy as np

from ssl_jax import rng
from ssl_jax.data.resident import Resident
from ssl_jax.types import UsageError


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Equally likely round Gaussians: 25 on a square grid, or eight on a ring (arXiv 1611.02163 and 1705.07761).

    Attributes:
        layout: "grid", 5 x 5 at distance `spacing`; or "ring", eight at radius `spacing`.
        spacing: between neighbours of the grid, or the ring's radius.
        deviation: of each Gaussian, in both directions.

    Raises:
        UsageError: for lengths that are not above 0.
    """

    layout: Literal["grid", "ring"] = "grid"
    spacing: float = 2.0
    deviation: float = 0.05

    def __post_init__(self):
        if not (self.spacing > 0 and self.deviation > 0):
            raise UsageError(f"spacing={self.spacing} and deviation={self.deviation} must be above 0")

    @property
    def means(self) -> np.ndarray:
        """The centres, float32 [modes, 2]."""
        if self.layout == "grid":
            line = self.spacing * np.arange(-2, 3)
            return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2).astype(np.float32)
        angles = 2 * math.pi * np.arange(8) / 8
        return (self.spacing * np.stack([np.cos(angles), np.sin(angles)], axis=-1)).astype(np.float32)

    def draw(self, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Points float32 [count, 2] and their modes int32 [count], every mode as often as any other, within one."""
        labels = np.arange(count, dtype=np.int32) % len(self.means)
        noise = np.asarray(jax.random.normal(rng.stream(seed, "mixture"), (count, 2)))
        return self.means[labels] + np.float32(self.deviation) * noise, labels


def training(mixture: Mixture, batch_size: int, examples: int = 100_000, seed: int = 0) -> Resident:
    """A resident feed of `examples` points drawn once, as `image` float32 [b, 2] with the mode as `label`.

    Raises:
        UsageError: for a batch that is larger than the set.
    """
    points, labels = mixture.draw(seed, examples)
    return Resident({"image": points, "label": labels}, batch_size)
