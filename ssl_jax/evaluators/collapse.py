"""Whether the outputs still differ from image to image."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from ssl_jax import metrics, types


@dataclasses.dataclass(frozen=True)
class Collapse:
    """SimSiam's collapse gauge on the output in evaluation mode, and an alarm in words.

    Scalars: `deviation`, the mean over channels of the standard deviation over images of the normalised output;
    `healthy`, 1 / sqrt(d), its value for evenly spread outputs; `ratio`, the first over the second, in [0, 1].

    A ratio r is a mean cosine of 1 - r^2 between the outputs of two images where all channels vary alike, and a share
    of r^2 of the channels alive where those vary alike about 0. Healthy runs of the paper sit near r = 1 and collapsed
    ones at 0 (figure 2 of arXiv 2011.10566). The threshold of 0.2 is a mean cosine of 0.96, or 1 channel in 25: partial
    collapse is caught before the output is a constant to rounding, and a run that merely learns few channels is left
    alone. Outputs that fill only a rotated subspace pass unseen.

    Before the first update nothing is said: without batch statistics of its own an untrained network maps all images
    to nearly the same place.

    Attributes:
        examples: images, labelled or not.
        preprocess: uint8 images to what the export takes.
        export: the method's export that gives the output, [b, d].
        images: how many images to look at, evenly spread over the set, so that a set in class order does no harm.
        threshold: the ratio below which the alarm goes off.

    Raises:
        UsageError: fewer than 2 images; when called, an unknown export.
    """

    examples: types.Examples
    preprocess: Callable
    export: str = "output"
    images: int = 1024
    threshold: float = 0.2

    def __post_init__(self):
        if min(self.images, self.examples.examples) < 2:
            raise types.UsageError(
                f"evaluators.collapse.Collapse: images={self.images} of a set of {self.examples.examples}; "
                "a deviation wants at least 2"
            )

    def __call__(
        self,
        exports: Mapping[str, Callable[..., np.ndarray]],
        state: types.TrainState,
        untrained: Callable[[], types.TrainState],
    ) -> types.Report:
        """The scalars that the class names, and at most one alarm."""
        if self.export not in exports:
            raise types.UsageError(
                f"evaluators.collapse.Collapse: no export {self.export!r} in this method, "
                f"which has {', '.join(sorted(exports))}"
            )
        outputs = self._outputs(exports[self.export], state)
        finite = np.isfinite(outputs)
        healthy = 1 / math.sqrt(outputs.shape[1])
        deviation = float(metrics.output_deviation(outputs))
        scalars = {"deviation": deviation, "healthy": healthy, "ratio": deviation / healthy}
        if not finite.all():
            bad = int(np.sum(~finite.all(axis=1)))
            return types.Report(
                scalars={"healthy": healthy},
                alarms=(
                    f"The output is not finite for {bad} of {len(outputs)} images: training has diverged. Go back to "
                    "the last good checkpoint with a smaller learning rate or a longer warm-up; with bfloat16 "
                    "compute, try float32.",
                ),
            )
        if scalars["ratio"] < self.threshold and int(state.step) > 0:
            return types.Report(
                scalars=scalars,
                alarms=(
                    f"The output has collapsed: its deviation over {len(outputs)} images is {deviation:.2g}, where "
                    f"evenly spread outputs have {healthy:.2g}, so different images get all but the same output, or "
                    "differ in a few channels only, and a low loss means nothing. Check that the stop-gradient and "
                    "the predictor are in place and that the predictor's learning rate is not decayed; then try "
                    "a smaller learning rate, and augmentation strong enough for the two views to differ.",
                ),
            )
        return types.Report(scalars=scalars)

    def _outputs(self, export: Callable[..., np.ndarray], state: types.TrainState) -> np.ndarray:
        """float [n, d] of evenly spread images, asked for in batches of the set's own shape."""
        count = min(self.images, self.examples.examples)
        chosen = np.linspace(0, self.examples.examples - 1, count).round().astype(np.int64)
        images = metrics.pick(self.examples.batches(), chosen)
        size = len(next(iter(self.examples.batches()))["image"])
        padded = np.concatenate([images, np.repeat(images[:1], -count % size, axis=0)])
        parts = [export(state, padded[first : first + size], self.preprocess) for first in range(0, len(padded), size)]
        return np.concatenate(parts)[:count].reshape(count, -1)
