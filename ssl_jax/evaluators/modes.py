"""Which modes of a mixture of Gaussians a generator finds, and how sharply."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ssl_jax import types

_PICTURE_PX = 320
_POINT_PX = 2
_NEAR_DEVIATIONS = 3


@dataclasses.dataclass(frozen=True)
class Modes:
    """Samples against the mixture they should follow.

    Scalars: `modes`, how many Gaussians hold at least a tenth of their fair share of the samples; `near`, the share of
    samples within three standard deviations of a mean (0.989 for the mixture itself); `divergence`, the
    Kullback-Leibler divergence in nats of the near samples' modes from the uniform law, 0 where all are equally
    frequent. The picture `samples` has the mixture in grey and the samples in red.

    Attributes:
        mixture: has `means` [k, 2], `deviation` and `draw(seed, count)`, as `data.points.Mixture`.
        samples: how many to draw.
        seed: of the samples.

    Raises:
        UsageError: for fewer samples than ten a mode; when called, for a method that makes no points.
    """

    mixture: Any
    samples: int = 10_000
    seed: int = 0

    def __post_init__(self):
        least = 10 * len(self.mixture.means)
        if self.samples < least:
            raise types.UsageError(f"evaluators.modes.Modes: samples={self.samples}, but it takes at least {least}")

    def __call__(
        self,
        exports: Mapping[str, Callable[..., np.ndarray]],
        state: types.TrainState,
        untrained: Callable[[], types.TrainState],
    ) -> types.Report:
        """Scalars and the picture, as the class says."""
        tickets = np.stack([np.full(self.samples, self.seed), np.arange(self.samples)], axis=1).astype(np.int32)
        points = exports["sample"](state, tickets, _as_given)
        if points.ndim != 2 or points.shape[1] != 2:
            raise types.UsageError(
                f"evaluators.modes.Modes: this method makes samples of {points.shape[1:]}, not points"
            )
        return types.Report(scalars=self._scalars(points), images={"samples": self._picture(points)})

    def _scalars(self, points):
        means = self.mixture.means.astype(np.float64)
        squares = np.sum((points[:, None, :] - means[None, :, :]) ** 2, axis=-1)
        nearest = squares.argmin(axis=1)
        near = squares.min(axis=1) <= (_NEAR_DEVIATIONS * self.mixture.deviation) ** 2
        counts = np.bincount(nearest[near], minlength=len(means))
        frequency = counts / max(1, counts.sum())
        held = frequency > 0
        divergence = np.sum(frequency[held] * np.log(frequency[held] * len(means)))
        found = int(np.sum(counts >= 0.1 * self.samples / len(means)))
        scalars = {"modes": found, "near": float(near.mean())}
        return {**scalars, "divergence": float(divergence)} if counts.any() else scalars

    def _picture(self, points):
        reach = 1.25 * float(np.abs(self.mixture.means).max())
        picture = np.full((_PICTURE_PX, _PICTURE_PX, 3), 255, np.uint8)
        for some, colour in ((self.mixture.draw(self.seed, 2000)[0], (190, 190, 190)), (points[:2000], (200, 40, 40))):
            places = (some + reach) / (2 * reach) * _PICTURE_PX
            inside = np.all((places >= 0) & (places < _PICTURE_PX - _POINT_PX), axis=1)
            for right, up in places[inside].astype(int):
                top = _PICTURE_PX - 1 - up
                picture[max(0, top - _POINT_PX + 1) : top + 1, right : right + _POINT_PX] = colour
        return picture


def _as_given(tickets):
    return tickets
