"""How far generated images are from real ones: the numbers that papers report, and the same with one's own network.

Only distances by Inception are called FID and KID; by any other network they are `frechet_distance` and
`kernel_distance`, since their values mean nothing beside a published FID.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from ssl_jax import sheet, types
from ssl_jax.analysis import generative, manifold
from ssl_jax.reference import Reference, Statistics, gather

_HERE = "evaluators.distance.Distance"
_PUBLISHED = "inception"
_NEIGHBOURS = 3
_DENSITY_NEIGHBOURS = 5
_SPLITS = 10
_COMPARED = 10_000
_OF_EQUALLY_MANY = ("precision", "recall", "density", "coverage")
_FAIR = 0.1


@dataclasses.dataclass(frozen=True)
class Translated:
    """Images whose translations are compared, in place of samples of noise.

    Attributes:
        examples: images of the domain that is translated from; labels are not looked at.
        direction: "ab" compares the export `translate_ab` of them with a reference of domain B, "ba" the reverse.
        preprocess: uint8 images to what the export takes.

    Raises:
        UsageError: for another direction.
    """

    examples: types.Examples
    direction: Literal["ab", "ba"]
    preprocess: Callable

    def __post_init__(self):
        if self.direction not in ("ab", "ba"):
            raise types.UsageError(f"evaluators.distance.Translated: direction={self.direction!r}; it is 'ab' or 'ba'")


@dataclasses.dataclass(frozen=True)
class Distance:
    """Distances between images that a generator makes and real ones, by the features of a fixed network.

    Scalars by `extractors.Inception`: `fid`, `kid`, `inception_score`, `precision`, `recall`, `density`, `coverage`,
    and `kid_std`, `inception_score_std`. By any other extractor: `frechet_distance`, `kernel_distance`,
    `kernel_distance_std`, `precision`, `recall`, `density`, `coverage`; and where it has logits `classifier_score`,
    `classes_found`, `class_entropy`. See `compare`.

    The images are samples of noise or, with `translated`, translations of images; `samples` counts either. A distance
    of translations is of as many images as the domain has at most, often a few hundred, and compares with none but
    those of equally many.

    Summary: one entry called `name` with these numbers and what they depend on, see `facts`; with `translated` its
    `direction` besides. Images that are not finite give an alarm and no numbers.

    Attributes:
        reference: the real images and the network.
        samples: how many images to make; the samples numbered 0 to this - 1 of the seed, so always the same noise, or
            the translations of this many images, evenly spread over their set.
        seed: of the noise; translations have none.
        batch_size: images made at once.
        subset_size: images of either side in one subset of the kernel distance.
        subsets: how many of these.
        name: of the entry in the summary; each such evaluator of a run has one of its own.
        translated: the images to translate; None for samples.

    Raises:
        UsageError: for too few samples or real images, see `refuse_too_few`, more samples than images to translate, or
            settings out of range; when called, for a method that makes no samples (or does not translate), or images
            of another size than the real ones.
    """

    reference: Reference
    samples: int = 10_000
    seed: int = 0
    batch_size: int = 250
    subset_size: int = 1000
    subsets: int = 100
    name: str = "distances"
    translated: Translated | None = None

    def __post_init__(self):
        if self.batch_size < 1 or not 0 <= self.seed < 2**31 or not self.name:
            raise types.UsageError(
                f"{_HERE}: batch_size={self.batch_size}, seed={self.seed}, name={self.name!r}; batches hold at least "
                "1 image, the seed lies in 0..2^31-1, and the entry in the summary needs a name"
            )
        if self.translated is not None and self.samples > self.translated.examples.examples:
            count = self.translated.examples.examples
            raise types.UsageError(
                f"{_HERE}: samples={self.samples} of {count} images to translate; set samples to {count} or less"
            )
        refuse_too_few(self.samples, self.reference.kept, self.subset_size, self.subsets, _HERE)

    def __call__(
        self,
        exports: Mapping[str, Callable[..., np.ndarray]],
        state: types.TrainState,
        untrained: Callable[[], types.TrainState],
    ) -> types.Report:
        """What the class says, or an alarm alone."""
        export = "sample" if self.translated is None else f"translate_{self.translated.direction}"
        if export not in exports:
            lacking = "makes no samples" if self.translated is None else f"has no {export}"
            raise types.UsageError(f"{_HERE}: this method {lacking}; it has {', '.join(sorted(exports))}")
        real, extractor = self.reference.statistics(), self.reference.extractor
        told = facts(extractor, real, self.samples)
        if self.translated is not None:
            told["direction"] = self.translated.direction
        try:
            scalars = compare(
                extractor,
                real,
                self._made(exports[export], state),
                samples=self.samples,
                subset_size=self.subset_size,
                subsets=self.subsets,
            )
        except _NotFiniteError as error:
            return types.Report(
                # Else the entry of an earlier step would stand for this one.
                summary={self.name: {**told, "not_finite": True}},
                alarms=(
                    f"{error}, so there are no distances: training has diverged. Go back to the last good checkpoint "
                    "with lower rates or a stronger gradient penalty; with bfloat16 compute, try float32.",
                ),
            )
        return types.Report(scalars=scalars, summary={self.name: {**told, **scalars}})

    def _made(self, export, state) -> Iterator[np.ndarray]:
        """The images as uint8, asked for in batches of one size, so that one program is compiled."""
        first, noun = 0, "Samples" if self.translated is None else "Translations"
        for inputs, preprocess in self._noise() if self.translated is None else self._images():
            images = export(state, inputs, preprocess)[: self.samples - first]
            if not np.isfinite(images).all():
                raise _NotFiniteError(f"{noun} {first} to {first + len(images) - 1} hold values that are not finite")
            yield sheet.as_bytes(images)
            first += len(images)

    def _noise(self):
        for first in range(0, self.samples, self.batch_size):
            numbers = np.arange(first, first + self.batch_size, dtype=np.int32)
            yield np.stack([np.full_like(numbers, self.seed), numbers], axis=1), _as_given

    def _images(self):
        """The images to translate, the last batch filled up."""
        last = self.translated.examples.examples - 1
        wanted = set(np.linspace(0, last, self.samples).round().astype(np.int64).tolist())
        waiting, number = [], 0
        for batch in self.translated.examples.batches():
            for image in np.asarray(batch["image"])[np.asarray(batch["mask"], bool)]:
                if number in wanted:
                    waiting.append(image)
                number += 1
                if len(waiting) == self.batch_size:
                    yield np.stack(waiting), self.translated.preprocess
                    waiting = []
        if waiting:
            filled = waiting + waiting[:1] * (self.batch_size - len(waiting))
            yield np.stack(filled), self.translated.preprocess


def compare(
    extractor: types.Extractor,
    real: Statistics,
    images: Iterable[np.ndarray],
    *,
    samples: int,
    subset_size: int = 1000,
    subsets: int = 100,
) -> dict[str, float]:
    """All numbers that say how images relate to real ones, under the names that `Distance` lists.

    - `fid`, `frechet_distance`: `analysis.generative.frechet_distance` of all images of either side, at least 0;
    - `kid`, `kernel_distance`: `analysis.generative.kernel_distance`, around 0 for equal distributions; its subsets
      are drawn from at most 10,000 images a side, evenly spread, where torch-fidelity draws from all;
    - `precision`, `recall` with 3 neighbours, `density`, `coverage` with 5: see `analysis.manifold`;
    - `inception_score`, `classifier_score`: `analysis.generative.inception_score` in 10 splits, 1 to the number of
      classes;
    - `classes_found`: the share of the classes that at least a tenth as many images are taken for as if all classes
      were equally many, in [0, 1];
    - `class_entropy`: the entropy of the classes that images are taken for over its maximum, in [0, 1].

    `sides` says how many images each is of. Precision, recall, density and coverage take equally many of either side,
    evenly spread: their published values, and what equal distributions get, are of equal numbers.

    Args:
        extractor: what `real` was computed with.
        real: the real images.
        images: batches uint8 [b, h, w, c], together `samples` images or more; the rest is left out.
        samples: how many to compare.
        subset_size, subsets: of the kernel distance.

    Raises:
        UsageError: see `refuse_too_few`; images of another size than the real ones.
        RunError: where fewer images come than `samples`.
    """
    refuse_too_few(samples, len(real.features), subset_size, subsets, "compare")
    fake = gather(extractor, _of_shape(images, real.image_shape), samples, keep=_COMPARED, keep_logits=samples)
    features = fake.features
    published = extractor.name == _PUBLISHED
    frechet, kernel, score = (
        ("fid", "kid", "inception_score") if published else ("frechet_distance", "kernel_distance", "classifier_score")
    )
    found = {frechet: generative.frechet_distance(real.moments, fake.moments)}
    found[kernel], found[f"{kernel}_std"] = generative.kernel_distance(
        real.features, features, subsets=subsets, subset_size=subset_size
    )
    if fake.logits is not None:
        found[score], deviation = generative.inception_score(fake.logits, splits=_SPLITS)
        if published:
            found[f"{score}_std"] = deviation
    few, _ = sides("precision", samples, real)
    truth, features = _spread(real.features, few), _spread(features, few)
    found["precision"], found["recall"] = manifold.precision_recall(truth, features, neighbours=_NEIGHBOURS)
    found["density"], found["coverage"] = manifold.density_coverage(truth, features, neighbours=_DENSITY_NEIGHBOURS)
    if fake.logits is not None and not published:
        found |= _classes(fake.logits)
    return found


def sides(number: str, samples: int, real: Statistics) -> tuple[int, int]:
    """How many images one of the numbers of `compare` is of: samples, and real images (0 where it looks at none)."""
    if number in _OF_EQUALLY_MANY:
        few = min(samples, len(real.features), _COMPARED)
        return few, few
    if number.startswith(("kid", "kernel_distance")):
        return min(samples, _COMPARED), len(real.features)
    return samples, real.count if number in ("fid", "frechet_distance") else 0


def facts(extractor: types.Extractor, real: Statistics, samples: int) -> dict[str, Any]:
    """What every number of `compare` depends on, for those who read it later.

    `network` in words, its `digest`, `resize`, `samples`, `real_images`, `manifold_images` (of either side, of which
    precision, recall, density and coverage are), and a `note` where a covariance is of fewer images than features.
    """
    told = {
        "network": extractor.describe(),
        "digest": extractor.digest,
        "resize": extractor.resize,
        "samples": samples,
        "real_images": real.count,
        "manifold_images": sides("precision", samples, real)[0],
    }
    width, fewest = real.features.shape[1], min(samples, real.count)
    if fewest <= width:
        told["note"] = (
            f"{fewest} images for {width} features: the covariance is rank-deficient, and the Fréchet distance "
            "compares with none but those of equally many images"
        )
    return told


def refuse_too_few(samples: int, real_images: int, subset_size: int, subsets: int, here: str) -> None:
    """Raises UsageError where there are too few images of a side for one of the numbers, saying how many it takes.

    Args:
        samples: generated images.
        real_images: real images whose features are kept.
        subset_size, subsets: of the kernel distance.
        here: what the message begins with.
    """
    if subsets < 1 or subset_size < 2:
        raise types.UsageError(f"{here}: subsets={subsets} of subset_size={subset_size}; give 1 or more of 2 or more")
    for side, count in {f"samples={samples}": samples, f"{real_images} real images": real_images}.items():
        least = max(_DENSITY_NEIGHBOURS + 1, _SPLITS)
        if count < least:
            raise types.UsageError(
                f"{here}: {side}, and neighbours and splits take {least} at least; give more of them"
            )
        if count < subset_size:
            raise types.UsageError(
                f"{here}: {side}, and the kernel distance takes subset_size={subset_size} of either side; "
                f"give {subset_size} or more, or set subset_size to {count} or less"
            )


def _spread(features: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the features [n, d], evenly spread."""
    return features[np.linspace(0, len(features) - 1, min(most, len(features))).round().astype(np.int64)]


def _classes(logits: np.ndarray) -> dict[str, float]:
    counts = np.bincount(logits.argmax(axis=1), minlength=logits.shape[1])
    shares = counts[counts > 0] / len(logits)
    return {
        "classes_found": float(np.mean(counts >= _FAIR * len(logits) / len(counts))),
        # Of one class alone the sum is -0.0.
        "class_entropy": abs(float(np.sum(shares * np.log(shares)) / np.log(len(counts)))),
    }


def _of_shape(batches: Iterable[np.ndarray], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    for images in batches:
        if images.shape[1:] != tuple(shape):
            raise types.UsageError(
                f"images of {'x'.join(map(str, images.shape[1:]))} are compared with real ones of "
                f"{'x'.join(map(str, shape))}: give images of the same size and channels"
            )
        yield images


class _NotFiniteError(Exception):
    """Samples that are no images."""


def _as_given(tickets):
    return tickets
