"""A generator under way: what it makes of the same noise, and whether the contest has gone wrong."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import numpy as np

from ssl_jax import metrics, sheet, types
from ssl_jax.analysis import generative


@dataclasses.dataclass(frozen=True)
class Samples:
    """Samples of fixed noise as a picture, the discriminator's opinions, and alarms in words.

    Scalars, over `images` images of each kind:
    - `real_logit`, `held_out_logit`, `fake_logit`: the discriminator's mean logits, in evaluation mode;
    - `separability`: how often a real image's logit exceeds a sample's, 0.5 for a perfect generator, 1 where the
      discriminator has won; it reads only the order, so it means the same for every loss;
    - `memorised`: the same for training images against held-out ones, 0.5 unless the discriminator knows the training
      images by heart;
    - `diversity`: the mean distance between two samples over that between two real images; with m equally frequent
      images made again and again it is at most 1 - 1/m;
    - `nearest`: the median distance from a sample to the nearest other sample, over the same of real images; near 0
      where samples repeat each other, however many there are.
    Distances are Euclidean between `extractor` features, or without one between the pixels.

    The picture `samples` shows the numbers 0 to `grid` - 1 of the seed, the same noise each time.

    Attributes:
        real: training images.
        preprocess: uint8 images to what the discriminator takes.
        held_out: real images that are not trained on; None leaves out what needs them.
        extractor: see `types.Extractor`.
        classes: as of the method: the discriminator then judges each image by its label.
        images: how many real images and samples to look at, evenly spread over each set.
        grid: samples in the picture.
        columns: of the picture.
        seed: of the noise.
        batch_size: images asked for at once.
        won_above: the separability from which the alarm says that the discriminator has won; None never says it, for
            critics that are meant to (Wasserstein).

    Raises:
        UsageError: for fewer than 10 images, an empty grid or batch, or with classes an unlabelled image or another
            number of classes; when called, for a method without samples, or samples of another shape than the images.
    """

    real: types.Examples
    preprocess: Callable
    held_out: types.Examples | None = None
    extractor: types.Extractor | None = None
    classes: int | None = None
    images: int = 512
    grid: int = 64
    columns: int = 8
    seed: int = 0
    batch_size: int = 128
    won_above: float | None = 0.999

    def __post_init__(self):
        if min(self.grid, self.columns, self.batch_size) < 1:
            raise types.UsageError(
                f"evaluators.samples.Samples: grid={self.grid}, columns={self.columns} and "
                f"batch_size={self.batch_size} must be at least 1"
            )
        sets = {"real": self.real} | ({"held_out": self.held_out} if self.held_out is not None else {})
        for name, examples in sets.items():
            if min(self.images, examples.examples) < 10:
                raise types.UsageError(
                    f"evaluators.samples.Samples: images={self.images} of {examples.examples} in {name}; "
                    "it takes at least 10"
                )
            if self.classes is None:
                continue
            if np.any(examples.labels() < 0):
                raise types.UsageError(
                    f"evaluators.samples.Samples: classes={self.classes}, but {name} has images without a label: "
                    "give a labelled set, or set method.classes to None"
                )
            if len(examples.class_names) != self.classes:
                raise types.UsageError(
                    f"evaluators.samples.Samples: classes={self.classes}, but {name} has {len(examples.class_names)}"
                )

    def __call__(
        self,
        exports: Mapping[str, Callable[..., np.ndarray]],
        state: types.TrainState,
        untrained: Callable[[], types.TrainState],
    ) -> types.Report:
        """Scalars, the picture and alarms, as the class says; a method without samples is refused."""
        if not {"sample", "discriminate"} <= exports.keys():
            raise types.UsageError(
                "evaluators.samples.Samples: this method makes no samples; it has " + ", ".join(sorted(exports))
            )
        count = min(self.images, self.real.examples)
        numbers = np.arange(max(count, self.grid), dtype=np.int32)
        tickets = np.stack([np.full_like(numbers, self.seed), numbers], axis=1)
        made = self._in_batches(lambda some: exports["sample"](state, some, _as_given), tickets)
        shape = next(iter(self.real.batches()))["image"].shape[1:]
        if made.shape[1:] != shape:
            raise types.UsageError(
                f"evaluators.samples.Samples: samples are {made.shape[1:]} and real images {shape} (h, w, c): they are "
                "compared as they are, so give `real` and `held_out` the generator's size"
            )
        finite = np.isfinite(made).all(axis=tuple(range(1, made.ndim)))
        if not finite.all():
            return types.Report(
                alarms=(
                    f"{np.sum(~finite)} of {len(made)} samples hold values that are not finite: the training has "
                    "diverged. Go back to the last good checkpoint with lower rates or a stronger gradient penalty; "
                    "with bfloat16 compute, try float32.",
                ),
            )
        picture = sheet.grid(made[: self.grid], self.columns)
        made = sheet.as_bytes(made[:count])
        labels = {"fake": numbers[:count] % (self.classes or 1)}
        images = {"fake": made}
        for name, examples in (("real", self.real), ("held_out", self.held_out)):
            if examples is not None:
                chosen = np.linspace(0, examples.examples - 1, min(count, examples.examples)).round().astype(np.int64)
                images[name] = metrics.pick(examples.batches(), chosen)
                labels[name] = examples.labels()[chosen]
        logits = {name: self._logits(exports, state, images[name], labels[name]) for name in images}
        if not all(np.isfinite(values).all() for values in logits.values()):
            return types.Report(
                images={"samples": picture},
                alarms=(
                    "The discriminator's logits are not finite: the training has diverged. Go back to the last good "
                    "checkpoint with lower rates or a stronger gradient penalty; with bfloat16 compute, try float32.",
                ),
            )
        scalars = {f"{name}_logit": float(np.mean(values)) for name, values in logits.items()}
        scalars["separability"] = generative.separability(logits["real"], logits["fake"])
        if "held_out" in logits:
            scalars["memorised"] = generative.separability(logits["real"], logits["held_out"])
        spread = {name: _spread(self._features(images[name])) for name in ("real", "fake")}
        for place, name in enumerate(("diversity", "nearest")):
            scalars[name] = spread["fake"][place] / max(spread["real"][place], 1e-12)
        alarms = self._alarms(scalars, count) if int(state.step) > 0 else ()
        return types.Report(scalars=scalars, images={"samples": picture}, alarms=alarms)

    def _logits(self, exports, state, images, labels):
        prepare = _Judged(self.preprocess)

        def ask(rows):
            inputs = {"image": images[rows]}
            if self.classes is not None:
                inputs["label"] = labels[rows].astype(np.int32)
            return exports["discriminate"](state, inputs, prepare)

        return self._in_batches(ask, np.arange(len(images)))

    def _features(self, images):
        if self.extractor is None:
            return images.reshape(len(images), -1).astype(np.float64) / 255
        return self._in_batches(lambda some: self.extractor(some)[0], images)

    def _in_batches(self, ask, inputs):
        """`ask` of equal batches, the last one filled up, so that one compiled program serves all."""
        size = min(self.batch_size, len(inputs))
        padded = np.concatenate([inputs, np.repeat(inputs[:1], -len(inputs) % size, axis=0)])
        return np.concatenate([ask(padded[at : at + size]) for at in range(0, len(padded), size)])[: len(inputs)]

    def _alarms(self, scalars, count):
        alarms = []
        if scalars["diversity"] < 0.5 or scalars["nearest"] < 0.2:
            alarms.append(
                f"The generator has collapsed: {count} samples lie {scalars['diversity']:.2g} times as far apart as "
                f"real images, and each {scalars['nearest']:.2g} times as far from its nearest neighbour, so it makes "
                "few images again and again. Try a stronger gradient penalty, the relativistic loss, or a lower rate."
            )
        if self.won_above is not None and scalars["separability"] > self.won_above:
            alarms.append(
                "The discriminator has won: it ranks real images above samples "
                f"{scalars['separability']:.4%} of the time, so the generator learns little from it. Try a stronger "
                "gradient penalty, a lower rate of the discriminator's, fewer of its steps, or DiffAugment where the "
                "data are few."
            )
        if "memorised" in scalars and scalars["memorised"] > 0.9:
            alarms.append(
                f"The discriminator knows the training images by heart: it ranks them above held-out real images "
                f"{scalars['memorised']:.1%} of the time. Try DiffAugment, a stronger R1 penalty, or more images."
            )
        return tuple(alarms)


@dataclasses.dataclass(frozen=True)
class _Judged:
    """Prepares the images beside their labels; equal for equal preparations, so it is compiled once."""

    preprocess: Callable

    def __call__(self, inputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return {**inputs, "image": self.preprocess(inputs["image"])}


def _spread(features: np.ndarray) -> tuple[float, float]:
    """Mean distance over all pairs, and the median distance to the nearest other."""
    centred = features.astype(np.float64) - features.mean(axis=0, keepdims=True)
    squares = np.sum(centred**2, axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * centred @ centred.T, 0.0))
    np.fill_diagonal(distances, np.inf)
    nearest = float(np.median(distances.min(axis=1)))
    np.fill_diagonal(distances, 0.0)
    return float(distances.sum() / (len(features) * (len(features) - 1))), nearest


def _as_given(tickets):
    return tickets
