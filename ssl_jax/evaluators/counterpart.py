"""A translator measured against the truth, on sets where every image's counterpart in the other domain is known."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ssl_jax import sheet, types
from ssl_jax.analysis import translation

_HERE = "evaluators.counterpart.Counterpart"
_SHOWN = 10
_DIRECTIONS = (("a", "b"), ("b", "a"))


@dataclasses.dataclass(frozen=True)
class Counterpart:
    """Translations of all images against their true counterparts, pixel by pixel and as a classifier reads them.

    Scalars, translations rounded to bytes as they would be saved:
    - `psnr_ab`, `psnr_ba`: the peak signal-to-noise ratio in decibels, `analysis.translation.psnr`;
    - `error_ab`, `error_ba`: the mean absolute difference of pixels in [0, 1];
    - `read_ab`: the share of translated images of A that `reader_b` takes for their class, and `read_ba` likewise;
    - `read_real_a`, `read_real_b`: the share of the real images that the same readers take for their class, which is
      the most that one can expect of translations.

    Summary: one entry called `name` with these numbers, `examples`, and the readers in words. The pictures `a_to_b` and
    `b_to_a` have a row for each of the first 10 images: the image, its translation, the truth.

    Translations that are not finite give an alarm and no numbers.

    Attributes:
        pairs: has `examples`, `class_names`, `labels()` and `batches()` as `types.Examples`, but in place of `image`
            `image_a` and `image_b`, uint8 [b, h, w, c] of the two domains.
        preprocess: uint8 images of either domain to what the generators take, in [-1, 1].
        reader_a, reader_b: classifiers trained on real images of the domain, with the pairs' classes.
        batch_size: images asked for at once.
        name: of the entry in the summary; each such evaluator of a run has one of its own.

    Raises:
        UsageError: for an empty name, batch or set; with a reader, for an unlabelled image or other classes than its;
            when called, for a method that does not translate, a translation of another shape than the truth, or a
            reader without logits.
    """

    pairs: Any
    preprocess: Callable
    reader_a: types.Extractor | None = None
    reader_b: types.Extractor | None = None
    batch_size: int = 64
    name: str = "counterpart"

    def __post_init__(self):
        if self.batch_size < 1 or self.pairs.examples < 1 or not self.name:
            raise types.UsageError(
                f"{_HERE}: batch_size={self.batch_size}, {self.pairs.examples} pairs, name={self.name!r}; give at "
                "least 1 and 1, and the entry in the summary a name"
            )
        for side, reader in self._readers().items():
            if tuple(reader.class_names) != tuple(self.pairs.class_names):
                raise types.UsageError(
                    f"{_HERE}: reader_{side} knows the classes {_listed(reader.class_names)} and the pairs have "
                    f"{_listed(self.pairs.class_names)}; give a classifier that was trained on the pairs' classes"
                )
            if np.any(self.pairs.labels() < 0):
                raise types.UsageError(f"{_HERE}: pairs without a label cannot be read; leave reader_{side} out")

    def __call__(
        self,
        exports: Mapping[str, Callable[..., np.ndarray]],
        state: types.TrainState,
        untrained: Callable[[], types.TrainState],
    ) -> types.Report:
        """Scalars, pictures and the entry of the summary, as the class says."""
        if not exports.keys() >= {"translate_ab", "translate_ba"}:
            raise types.UsageError(f"{_HERE}: this method does not translate; it has {', '.join(sorted(exports))}")
        sums, rows, bad = {}, {"ab": [], "ba": []}, 0
        for given, labels in self._batches():
            count = len(labels)
            shown = {side: sheet.as_bytes(self.preprocess(images))[:count] for side, images in given.items()}
            for one, other in _DIRECTIONS:
                way = f"{one}{other}"
                made = exports[f"translate_{way}"](state, given[one], self.preprocess)[:count]
                spoiled = int(np.sum(~np.isfinite(made).reshape(count, -1).all(axis=1)))
                bad += spoiled
                if spoiled:
                    continue
                made = sheet.as_bytes(made)
                for name, value in self._measured(one, other, made, shown[other], labels).items():
                    sums[name] = sums.get(name, 0.0) + value * count
                missing = _SHOWN - len(rows[way])
                rows[way] += list(zip(shown[one][:missing], made, shown[other], strict=False))
        examples = self.pairs.examples
        if bad:
            return types.Report(
                # Else the entry of an earlier step would stand for this one.
                summary={self.name: {"examples": examples, "not_finite": bad}},
                alarms=(
                    f"{bad} of {2 * examples} translations of {self.name!r} hold values that are not finite, so there "
                    "are no numbers: the training has diverged. Go back to the last good checkpoint with lower rates; "
                    "with bfloat16 compute, try float32.",
                ),
            )
        scalars = {name: total / examples for name, total in sorted(sums.items())}
        described = {f"reader_{side}": reader.describe() for side, reader in self._readers().items()}
        return types.Report(
            scalars=scalars,
            images={f"{way[0]}_to_{way[1]}": _picture(rows[way]) for way in rows},
            summary={self.name: {"examples": examples, **described, **scalars}},
        )

    def _measured(self, one, other, made, truth, labels):
        """The scalars of a batch of translations from domain `one` to `other`."""
        if made.shape != truth.shape:
            raise types.UsageError(
                f"{_HERE}: translations from {one.upper()} are {made.shape[1:]} and their truths {truth.shape[1:]} "
                "(h, w, c): give pairs of one size, and the generators its channels"
            )
        way, reader = f"{one}{other}", self._readers().get(other)
        found = {f"psnr_{way}": translation.psnr(made, truth), f"error_{way}": translation.pixel_error(made, truth)}
        if reader is not None:
            found[f"read_{way}"] = _read(reader, made, labels, f"reader_{other}")
            found[f"read_real_{other}"] = _read(reader, truth, labels, f"reader_{other}")
        return found

    def _readers(self) -> dict[str, types.Extractor]:
        readers = {"a": self.reader_a, "b": self.reader_b}
        return {side: reader for side, reader in readers.items() if reader is not None}

    def _batches(self):
        """(images by domain, labels of those that count): images filled up, so that one compiled program serves all."""
        for batch in self.pairs.batches():
            keep = np.asarray(batch["mask"], bool)
            images = {side: np.asarray(batch[f"image_{side}"])[keep] for side in "ab"}
            labels = np.asarray(batch["label"], np.int32)[keep]
            for first in range(0, len(labels), self.batch_size):
                some = labels[first : first + self.batch_size]
                padding = min(self.batch_size, len(keep)) - len(some)
                yield {side: _filled(each[first : first + len(some)], padding) for side, each in images.items()}, some


def _filled(images: np.ndarray, padding: int) -> np.ndarray:
    return np.concatenate([images, np.repeat(images[:1], padding, axis=0)])


def _read(reader: types.Extractor, images: np.ndarray, labels: np.ndarray, name: str) -> float:
    """The share of the images uint8 [n, h, w, c] that the reader takes for their class."""
    _, logits = reader(images)
    if logits is None:
        raise types.UsageError(f"{_HERE}: {name} has features alone, no logits; give a run of methods.classify")
    return float(np.mean(logits.argmax(axis=1) == labels))


def _picture(rows: list[tuple[np.ndarray, ...]]) -> np.ndarray:
    return sheet.grid(np.stack([sheet.coloured(image) for row in rows for image in row]), columns=3)


def _listed(names: tuple[str, ...]) -> str:
    listed = ", ".join(names[:5]) or "none"
    return f"{listed}, ... ({len(names)})" if len(names) > 5 else listed
