"""How well a classifier does, from its answers alone: confusions, F1, calibration, and how sure of them one can be."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import rng, types

SCALARS = ("accuracy", "accuracy_top5", "macro_f1", "calibration_error", "loss")
"""The numbers of an `entry` that become curves."""

_DRAWS_AT_ONCE = 2**21
_TOP = 5


class PerClass(NamedTuple):
    """What each class scores, in the order of the classes.

    Attributes:
        precision: float64 [k], in [0, 1]: of the images taken for the class, the share that is of it.
        recall: float64 [k], in [0, 1]: of the images of the class, the share taken for it.
        f1: float64 [k], in [0, 1]: the harmonic mean of the two.
        support: int64 [k], images of the class.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


def entry(
    logits: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    bins: int = 15,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """All that a summary says of a classifier, as plain numbers.

    Args:
        logits: float32 [n, k], finite.
        labels: int [n], in [0, k).
        class_names: k names; two of one name are told apart by their numbers.
        bins: of the calibration error.
        resamples: of the bootstrap.
        level: the share of resamples inside the intervals.
        seed: of the resamples.

    Returns:
        `examples`, those of `SCALARS` that apply (`accuracy_top5` above 5 classes; `loss` in nats), `accuracy_interval`
        and `macro_f1_interval` [low, high] at `level`, `level`, `classes` (`precision`, `recall`, `f1`, `support` by
        name) and `confusion`, rows the true class.
    """
    classes = len(class_names)
    predictions = np.argmax(logits, axis=1)
    counts = confusion(labels, predictions, classes)
    intervals = bootstrap(labels, predictions, classes, resamples=resamples, level=level, seed=seed)
    probabilities, loss = _softmax(logits, labels)
    scalars = {
        "accuracy": float(np.trace(counts) / len(labels)),
        "macro_f1": macro_f1(counts),
        "calibration_error": calibration_error(probabilities, labels, bins),
        "loss": loss,
    }
    if classes > _TOP:
        best = jax.lax.top_k(jnp.asarray(logits), _TOP)[1]
        scalars["accuracy_top5"] = float(np.mean((np.asarray(best) == labels[:, None]).any(axis=1)))
    each = {key: values.tolist() for key, values in per_class(counts)._asdict().items()}
    names = _distinct(tuple(class_names))
    return {
        "examples": len(labels),
        **scalars,
        **{f"{key}_interval": list(edges) for key, edges in intervals.items()},
        "level": level,
        "classes": {name: {key: values[place] for key, values in each.items()} for place, name in enumerate(names)},
        "confusion": counts.tolist(),
    }


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """How many images of each class were taken for each.

    Args:
        labels: int [n], the true classes, in [0, classes).
        predictions: int [n], in [0, classes).
        classes: the number of classes.

    Returns:
        int64 [k, k]: rows are the true class, columns the predicted one.

    Raises:
        UsageError: the two differ in length, or a class lies outside the range.
    """
    labels, predictions = _checked(labels, predictions, classes)
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def per_class(confusion: np.ndarray) -> PerClass:
    """Precision, recall, F1 and support of each class of a confusion matrix [k, k].

    Where nothing can be divided (no image of the class, or none taken for it) the share is 0, as with scikit-learn's
    `precision_recall_fscore_support(labels=range(k), zero_division=0)`.
    """
    hits, support, predicted = np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return PerClass(
        precision=_ratio(hits, predicted),
        recall=_ratio(hits, support),
        f1=_ratio(2 * hits, support + predicted),
        support=support,
    )


def macro_f1(confusion: np.ndarray) -> float:
    """The mean F1 over all k classes of a confusion matrix [k, k], in [0, 1], each class counting alike.

    A class that neither occurs nor is predicted counts as 0: scikit-learn's `f1_score(average="macro",
    labels=range(k), zero_division=0)`. Without `labels`, scikit-learn leaves such a class out of the mean.
    """
    return float(per_class(confusion).f1.mean())


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """The expected calibration error of the top class, in [0, 1]: by how much confidence and accuracy differ.

    Images are sorted by confidence into equal bins; the mean over images of |accuracy - mean confidence| of their bin.
    Guo et al. 2017 (arXiv 1706.04599), eq. 3; bins are (lower, upper], as in the authors' code.

    Args:
        probabilities: float [n, k], in [0, 1]; bin edges are rounded to their type.
        labels: int [n], in [0, k).
        bins: at least 1; the authors report 15.

    Raises:
        UsageError: fewer than 1 bin, or no image.
    """
    if bins < 1 or not len(probabilities):
        raise types.UsageError(f"calibration error of {len(probabilities)} images in {bins} bins: each is at least 1")
    confidences = np.max(probabilities, axis=1)
    right = np.argmax(probabilities, axis=1) == labels
    edges = (np.arange(bins + 1) / bins).astype(confidences.dtype)
    places = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, bins - 1)
    # An image's share of its bin cancels against the bin's share of the images: sums suffice.
    surplus = np.bincount(places, weights=right - confidences.astype(np.float64), minlength=bins)
    return float(np.abs(surplus).sum() / len(labels))


def bootstrap(
    labels: np.ndarray, predictions: np.ndarray, classes: int, *, resamples: int, level: float, seed: int
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of accuracy and macro F1 over resampled images (Efron 1979): what another test set may give.

    Each resample draws n of the n images with replacement, by a key of its own, so that the result is a function of the
    arguments alone. A class that occurs among all images and not in a resample has no F1 there and is left out of that
    resample's mean; a class that occurs nowhere counts as 0, as in `macro_f1`. F1 is no mean over images: with only a
    few images a class, resamples score lower than all images do, and the interval may lie below the score itself. The
    spread between trainings is not in these intervals: that takes several seeds.

    Args:
        labels: int [n], the true classes, in [0, classes).
        predictions: int [n], in [0, classes).
        classes: the number of classes.
        resamples: at least 1; 1,000 for a level of 0.95.
        level: the share of resamples inside the interval, in (0, 1).
        seed: of the draws.

    Returns:
        (low, high) of `accuracy` and of `macro_f1`, each in [0, 1]. With a single image both are that image's score.

    Raises:
        UsageError: no image, a class outside the range, or resamples or level out of range.
    """
    labels, predictions = _checked(labels, predictions, classes)
    count = len(labels)
    if resamples < 1 or not 0 < level < 1 or not count:
        raise types.UsageError(
            f"bootstrap of {count} images with resamples={resamples}, level={level}: "
            "give at least 1 image, 1 resample or more, and a level between 0 and 1"
        )
    # Wrong answers fall into a class beyond the last, which is cut off.
    hits = np.where(labels == predictions, labels, classes)
    at_once = max(1, min(resamples, _DRAWS_AT_ONCE // count))
    accuracies, means = [], []
    occurring = np.count_nonzero(np.bincount(labels, minlength=classes) + np.bincount(predictions, minlength=classes))
    for first in range(0, resamples, at_once):
        # The last chunk draws too many, so that one compiled program serves all.
        drawn = np.asarray(_draw(np.arange(first, first + at_once), seed=seed, count=count))[: resamples - first]
        right, support, predicted = (_counts(codes[drawn], classes) for codes in (hits, labels, predictions))
        accuracies.append(right.sum(axis=1) / count)
        there = np.count_nonzero(support + predicted, axis=1)
        means.append(_ratio(2 * right, support + predicted).sum(axis=1) / there * (occurring / classes))
    quantiles = ((1 - level) / 2, (1 + level) / 2)
    found = {"accuracy": np.concatenate(accuracies), "macro_f1": np.concatenate(means)}
    return {name: tuple(float(edge) for edge in np.quantile(values, quantiles)) for name, values in found.items()}


@functools.partial(jax.jit, static_argnames=("seed", "count"))
def _draw(resamples: jax.Array, *, seed: int, count: int) -> jax.Array:
    """int32 [r, n]: positions of the images of each resample."""

    def one(resample):
        return jax.random.randint(rng.stream(seed, "bootstrap", resample), (count,), 0, count, jnp.int32)

    return jax.vmap(one)(resamples)


def _counts(codes: np.ndarray, classes: int) -> np.ndarray:
    """int64 [r, k]: how often each row of codes [r, n], in [0, k], says each class; the code k is not counted."""
    rows = np.arange(len(codes), dtype=codes.dtype)[:, None] * (classes + 1)
    counted = np.bincount((codes + rows).ravel(), minlength=len(codes) * (classes + 1))
    return counted.reshape(len(codes), classes + 1)[:, :classes]


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0)


def _checked(labels: np.ndarray, predictions: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    labels, predictions = (np.asarray(side).astype(np.int64) for side in (labels, predictions))
    if labels.shape != predictions.shape or labels.ndim != 1:
        raise types.UsageError(f"labels {labels.shape} and predictions {predictions.shape} are not two lists of a kind")
    for name, side in (("label", labels), ("prediction", predictions)):
        wrong = side[(side < 0) | (side >= classes)]
        if len(wrong):
            raise types.UsageError(f"a {name} is {wrong[0]}, outside 0..{classes - 1}: give the number of classes")
    return labels, predictions


def _softmax(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Probabilities float32 [n, k] of finite logits [n, k], and the labels' mean cross-entropy in nats."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    totals = weights.sum(axis=1, dtype=np.float64)
    losses = np.log(totals) - shifted[np.arange(len(labels)), labels]
    return weights / totals[:, None].astype(np.float32), float(losses.mean())


def _distinct(names: tuple[str, ...]) -> list[str]:
    return [f"{name} (class {place})" if names.count(name) > 1 else name for place, name in enumerate(names)]
