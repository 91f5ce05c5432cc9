"""The odd ones out: three scores of strangeness, the strangest images, and how well the scores find odd classes."""

from collections.abc import Sequence

import numpy as np

from ssl_jax.analysis import anomaly, pca
from ssl_jax.explore import blocks
from ssl_jax.explore.subject import Part, Subject, as_csv, evenly
from ssl_jax.types import UsageError

_NEIGHBOURS = 10
_SHOWN = 24
_FOLDS = 5
_LEAST = 2 * _NEIGHBOURS
_LEARNED_FROM = 10_000
_MOST_CHANNELS = 512
_TOLD = {
    "knn": f"distance to the {_NEIGHBOURS}th nearest image",
    "mahalanobis": "Mahalanobis distance",
    "isolation_forest": "isolation forest",
}


def normal_classes(subject: Subject, wanted: Sequence[str]) -> np.ndarray:
    """Bool [k]: which classes count as normal.

    Raises:
        UsageError: for images without labels, an unknown class, or where no class is left to be odd.
    """
    if not subject.labelled:
        raise UsageError("--normal names classes, and these images have no labels")
    for name in wanted:
        if name not in subject.class_names:
            raise UsageError(f"--normal: no class {name!r}; there are {', '.join(subject.class_names[:20])}")
    chosen = np.array([name in wanted for name in subject.class_names])
    present = np.unique(subject.labels[subject.labels >= 0])
    if chosen[present].all() or not chosen[present].any():
        raise UsageError(
            f"--normal={','.join(wanted)}: of the classes of these images {'all' if chosen[present].all() else 'none'} "
            "are normal; leave at least one out and one in"
        )
    return chosen


def part(subject: Subject, *, normal: Sequence[str] = (), training: Subject | None = None, seed: int = 0) -> Part:
    """Every image's scores, larger for stranger, and the strangest images.

    What is normal is learned from the training images where they are given (10,000 evenly taken of more), else from
    these images, of which none is its own neighbour; with `normal` from those of these classes alone. The area under
    the curve (AUROC) says how often an odd image scores above a normal one. Without training images the scores are then
    cross-fitted: every fifth image is scored by what was learned from the others, for an image that a covariance was
    fitted to looks more normal than it is. Of more than 512 channels the Mahalanobis distance takes the first 512
    principal components.

    Args:
        subject: the images that are scored.
        normal: names of classes; all others are odd.
        training: the images that normality is learned from.
        seed: of the forest.

    Raises:
        UsageError: see `normal_classes`, for features that do not vary, and for too few images.
    """
    subject.refuse_constant()
    count = len(subject.features)
    chosen = normal_classes(subject, normal) if normal else None
    features, labels = subject.features, subject.labels
    known = np.ones(count, bool)
    if training is not None:
        if training.features.shape[1] != features.shape[1]:
            raise UsageError(f"training features have {training.features.shape[1]} channels, these {features.shape[1]}")
        rows = evenly(len(training.features), _LEARNED_FROM)
        features = np.concatenate([features, training.features[rows]])
        labels = np.concatenate([labels, _translated(training, subject)[rows]])
        known = np.arange(len(features)) >= count
    fitted = known & (chosen[labels] & (labels >= 0)) if chosen is not None else known
    if fitted.sum() < _LEAST:
        raise UsageError(f"{fitted.sum()} normal images: the scores want {_LEAST} or more")
    if chosen is None or training is not None:
        scores = {name: found[:count] for name, found in _scores(features, fitted, seed).items()}
    else:
        scores = {name: np.empty(count) for name in _TOLD}
        # In turn within either kind, whatever the order of the images.
        folds = np.empty(count, int)
        for kind in (fitted, ~fitted):
            folds[kind] = np.arange(kind.sum()) % _FOLDS
        for fold in range(_FOLDS):
            held_out = folds == fold
            for name, found in _scores(features, fitted & ~held_out, seed).items():
                scores[name][held_out] = found[held_out]
    metrics: dict[str, object] = {"learned_from": int(fitted.sum())}
    html, lines = "", ()
    odd = None
    if chosen is not None:
        judged = subject.labels >= 0
        odd = ~chosen[subject.labels]
        areas = {name: anomaly.auroc(found[judged], odd[judged]) for name, found in scores.items()}
        metrics |= {"auroc": areas, "normal": list(normal), "odd_images": int(odd[judged].sum())}
        names = [name for name, inside in zip(subject.class_names, chosen, strict=True) if not inside]
        html += blocks.table(
            ["score", "AUROC"],
            [[_TOLD[name], area] for name, area in areas.items()],
            f"How often an image of {blocks.text(', '.join(names))} ({odd[judged].sum():,} images) scores above one of "
            f"the other classes ({(~odd[judged]).sum():,}): 0.5 is chance. Learned from {fitted.sum():,} normal images"
            + (" of the training set." if training is not None else ", each scored by what the others taught."),
        )
        told = ", ".join(f"{name} {area:.3f}" for name, area in areas.items())
        lines = (f"odd ones: AUROC {told} for {', '.join(names)}",)
    files: dict[str, str | bytes] = {"anomalies.csv": _csv(subject, scores, odd)}
    if subject.images is not None:
        pictures = []
        for name, found in scores.items():
            strangest = np.argsort(-found, kind="stable")[:_SHOWN]
            content = blocks.png(blocks.grid(subject.images[strangest], 8))
            files[f"strangest_{name}.png"] = content
            heading, label = _TOLD[name], f"The strangest images by {_TOLD[name]}"
            pictures.append(
                blocks.picture(content, label, heading, f"{blocks.text(subject.names[strangest[0]])} first.")
            )
        html += f'<div class="sheets">{"".join(pictures)}</div>'
    else:
        rows = [
            [_TOLD[name], *(subject.names[row] for row in np.argsort(-found)[:5])] for name, found in scores.items()
        ]
        html += blocks.table(["score", "strangest", "", "", "", ""], rows)
    return Part(html, files, metrics, lines)


def _scores(features: np.ndarray, fitted: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    few = features
    if features.shape[1] > _MOST_CHANNELS:
        few = pca.pca(features, min(_MOST_CHANNELS, len(features))).projected
    return {
        "knn": anomaly.knn_distance(features, _NEIGHBOURS, normal=fitted),
        "mahalanobis": anomaly.mahalanobis(few, normal=fitted),
        "isolation_forest": anomaly.isolation_forest(features, normal=fitted, seed=seed),
    }


def _translated(training: Subject, subject: Subject) -> np.ndarray:
    """The training images' labels as the subject numbers its classes, -1 for classes that it does not have."""
    if not training.class_names:
        return np.full(len(training.labels), -1, np.int32)
    places = {name: place for place, name in enumerate(subject.class_names)}
    return np.array([*(places.get(name, -1) for name in training.class_names), -1], np.int32)[training.labels]


def _csv(subject: Subject, scores: dict[str, np.ndarray], odd: np.ndarray | None) -> str:
    lines = [["image", "class", *scores, *(["odd"] if odd is not None else [])]]
    for row, name in enumerate(subject.names):
        told = [f"{found[row]:.6g}" for found in scores.values()]
        judged = [int(odd[row])] if odd is not None and subject.labels[row] >= 0 else []
        lines.append([name, subject.class_of(row), *told, *judged])
    return as_csv(lines)
