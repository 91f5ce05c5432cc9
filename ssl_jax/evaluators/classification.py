"""A trained classifier's answers on a labelled set: accuracies with intervals, F1, calibration and confusions."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from ssl_jax import metrics, types
from ssl_jax.analysis import scores

_HERE = "evaluators.classification.Classification"
_PICTURE_PX = 600
_COUNTED_CLASSES = 30
_DIGIT_PX = (5, 3)
# Three bits a row, the left pixel the highest: 0 to 9.
_DIGITS = ("75557", "26227", "71747", "71717", "55711", "74717", "74757", "71111", "75757", "75717")
_PALE, _DARK = np.array([247.0, 250.0, 253.0]), np.array([8.0, 72.0, 140.0])
_PAPER, _GRID, _INK, _SOFT = (
    np.array(colour, np.uint8) for colour in ([255, 255, 255], [221, 226, 232], [28, 33, 40], [126, 136, 147])
)


@dataclasses.dataclass(frozen=True)
class Classification:
    """How well the network's own logits name the classes of `examples`, in one pass over them.

    Scalars: `accuracy`, `accuracy_top5` (only where there are more than 5 classes), `macro_f1` (the mean over all
    classes, one that neither occurs nor is predicted counting as 0) and `calibration_error` (of the top class), each in
    [0, 1]; and `loss`, the mean cross-entropy in nats.

    Summary: one entry called `name` with `examples`, the scalars, `accuracy_interval` and `macro_f1_interval` [low,
    high] at `level`, by a bootstrap over these images (it knows nothing of the spread between trainings, and wants more
    than a few images a class: `analysis.scores.bootstrap`), `level` itself, `classes` (`precision`, `recall`, `f1`,
    `support` by class name) and `confusion`, rows the true class and columns the predicted one, in the order of the
    class names. Two classes of one name are told apart by their numbers.

    Arrays: `confusion` int64 [k, k] and `confusion_classes`, the names. The picture `confusion` is the same, the darker
    a cell the larger its share of the row, with counts and class numbers up to 30 classes.

    Logits that are not finite give an alarm and no numbers.

    Attributes:
        examples: the labelled images that are classified.
        preprocess: uint8 images to what the export takes.
        export: the method's export that gives the logits, [b, k].
        name: of the entry in the summary; each such evaluator of a run has one of its own.
        bins: of the calibration error.
        resamples: of the bootstrap.
        level: the share of resamples inside the intervals.
        seed: of the resamples.

    Raises:
        UsageError: a set without class names, an unlabelled image, a label beyond the class names, an empty name, or
            bins, resamples, level or seed out of range; when called, an unknown export, or logits for another number
            of classes.
    """

    examples: types.Examples
    preprocess: Callable
    export: str = "logits"
    name: str = "test"
    bins: int = 15
    resamples: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self):
        classes = len(self.examples.class_names)
        if not classes:
            raise types.UsageError(
                f"{_HERE}: its set has no labels; give a labelled split, or leave this evaluator out"
            )
        labels = self.examples.labels()
        missing = np.count_nonzero(labels < 0)
        if missing:
            raise types.UsageError(f"{_HERE}: {missing} images of its set have no label; give a labelled split")
        if labels.max(initial=0) >= classes:
            raise types.UsageError(
                f"{_HERE}: a label of its set is {labels.max()}, but the set has {classes} class names "
                f"(0..{classes - 1}); put the set's class names right"
            )
        if not self.name:
            raise types.UsageError(f"{_HERE}: name is empty; call the set's entry in the summary, say 'test'")
        if self.bins < 1 or self.resamples < 1:
            raise types.UsageError(f"{_HERE}: bins={self.bins}, resamples={self.resamples}; each is at least 1")
        if not 0 < self.level < 1:
            raise types.UsageError(f"{_HERE}: level={self.level}; give a share between 0 and 1, say 0.95")
        if not 0 <= self.seed < 2**32:
            raise types.UsageError(f"{_HERE}: seed={self.seed} must lie in 0..2^32-1")

    def __call__(
        self,
        exports: Mapping[str, Callable[..., np.ndarray]],
        state: types.TrainState,
        untrained: Callable[[], types.TrainState],
    ) -> types.Report:
        """What the class says, or an alarm alone."""
        if self.export not in exports:
            raise types.UsageError(
                f"{_HERE}: no export {self.export!r} in this method, which has {', '.join(sorted(exports))}"
            )
        classes = len(self.examples.class_names)

        def answer(images):
            logits = np.asarray(exports[self.export](state, images, self.preprocess), np.float32)
            if logits.shape[1:] != (classes,):
                width = " x ".join(map(str, logits.shape[1:])) or "a single number"
                raise types.UsageError(
                    f"{_HERE}: export {self.export!r} gives {width} an image, but the set has {classes} classes; "
                    "build the classifier for this set's classes, or choose another export"
                )
            return logits

        logits, labels = metrics.collect(answer, self.examples.batches())
        bad = int(np.count_nonzero(~np.isfinite(logits).all(axis=1)))
        if bad:
            return types.Report(
                # Else the entry of an earlier step would stand for this one.
                summary={self.name: {"examples": len(labels), "not_finite": bad}},
                alarms=(
                    f"The logits are not finite for {bad} of {len(labels)} images of {self.name!r}, so there are no "
                    "accuracies: training has diverged. Go back to the last good checkpoint with a smaller learning "
                    "rate or a longer warm-up; with bfloat16 compute, try float32.",
                ),
            )
        entry = scores.entry(
            logits,
            labels,
            self.examples.class_names,
            bins=self.bins,
            resamples=self.resamples,
            level=self.level,
            seed=self.seed,
        )
        confusion = np.asarray(entry["confusion"], np.int64)
        return types.Report(
            scalars={name: entry[name] for name in scores.SCALARS if name in entry},
            images={"confusion": _picture(confusion)},
            arrays={"confusion": confusion, "confusion_classes": np.asarray(list(entry["classes"]), dtype=np.str_)},
            summary={self.name: entry},
        )


def _picture(confusion: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3]: a cell for each count of the confusion [k, k], numbered in the margins where there is room."""
    classes = len(confusion)
    support = confusion.sum(axis=1, keepdims=True)
    # The square root lifts the few confusions of a good classifier out of the paper's white.
    shades = np.sqrt(confusion / np.maximum(support, 1))[..., None]
    cells = np.rint(_PALE + shades * (_DARK - _PALE)).astype(np.uint8)
    if classes > _COUNTED_CLASSES:
        return _gridded(cells, size_px=max(1, _PICTURE_PX // classes))
    enlarge = 3 if classes <= 12 else 2
    longest = len(str(max(confusion.max(), classes - 1)))
    size_px = max(min(96, _PICTURE_PX // (classes + 1)), (4 * longest + 3) * enlarge)
    whole = np.full((classes + 1, classes + 1, 3), _PAPER)
    whole[1:, 1:] = cells
    picture = _gridded(whole, size_px=size_px)
    for row, column in np.ndindex(classes + 1, classes + 1):
        if row and column:
            number = confusion[row - 1, column - 1]
            ink = _PAPER if shades[row - 1, column - 1] > 0.6 else _INK
        else:
            number, ink = max(row, column) - 1, _SOFT
        # Of the counts 0 is the common one, and of the margins the corner has no class.
        if (row and column and not number) or number < 0:
            continue
        mask = _number(int(number), enlarge)
        top, left = (
            1 + place * (size_px + 1) + (size_px - extent) // 2
            for place, extent in zip((row, column), mask.shape, strict=True)
        )
        picture[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = ink
    return picture


def _gridded(cells: np.ndarray, *, size_px: int) -> np.ndarray:
    """Cells uint8 [r, c, 3] as squares, with a line of one pixel around each where there is room for it."""
    if size_px < 8:
        return cells.repeat(size_px, axis=0).repeat(size_px, axis=1)
    rows, columns, _ = cells.shape
    squares = np.full((rows, size_px + 1, columns, size_px + 1, 3), _GRID)
    squares[:, 1:, :, 1:] = cells[:, None, :, None]
    picture = squares.reshape(rows * (size_px + 1), columns * (size_px + 1), 3)
    return np.pad(picture, ((0, 1), (0, 1), (0, 0)), mode="wrap")


def _number(number: int, enlarge: int) -> np.ndarray:
    """Bool [h, w]: the digits of `number`, a pixel apart, each pixel enlarged."""
    height, width = _DIGIT_PX
    digits = str(number)
    mask = np.zeros((height, (width + 1) * len(digits) - 1), bool)
    for place, digit in enumerate(digits):
        rows = np.array([int(bits) for bits in _DIGITS[int(digit)]])
        mask[:, place * (width + 1) :][:, :width] = rows[:, None] >> np.arange(width)[::-1] & 1
    return mask.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
