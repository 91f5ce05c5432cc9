"""Rounds of learning from one's own predictions: which images get which labels, and how often that is right."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ssl_jax import metrics, types
from ssl_jax.analysis import confidence


@dataclasses.dataclass(frozen=True)
class SelfTraining:
    """The section `self_training` of a config.

    Attributes:
        rounds: how often predictions become labels, after a first round on true labels alone.
        keep: which predictions do.
        unlabelled: the images; their own labels, if there are any, are only compared with.

    Raises:
        UsageError: for no rounds.
    """

    rounds: int
    keep: confidence.Rule
    unlabelled: types.Examples

    def __post_init__(self):
        if self.rounds < 1:
            raise types.UsageError(f"rounds={self.rounds}: self-training takes at least 1")


@dataclasses.dataclass(frozen=True)
class Guesses:
    """Predictions that were kept.

    Attributes:
        rows: int64 [n], positions in the unlabelled set, ascending.
        labels: int32 [n], the predicted classes.
        confidences: float32 [n], their probabilities.
        candidates: how many images there were to choose from.
        precision: share of the kept whose true label is the predicted one, over those whose true label is known; None
            where none is.
        accuracy: the same over all candidates.
    """

    rows: np.ndarray
    labels: np.ndarray
    confidences: np.ndarray
    candidates: int
    precision: float | None
    accuracy: float | None


def guess(
    probabilities: Callable[[np.ndarray], np.ndarray],
    settings: SelfTraining,
    *,
    round_: int,
    labelled: np.ndarray,
    class_names: Sequence[str],
) -> Guesses:
    """One pass over the unlabelled images, and what is kept of it.

    Args:
        probabilities: uint8 [b, h, w, c] to float32 [b, k].
        settings: see above.
        round_: which round the guesses are for, from 1.
        labelled: int [m], positions of the unlabelled set that have a true label in training: no candidates.
        class_names: the classifier's; true labels are compared where the unlabelled set has the same.

    Raises:
        UsageError: nothing is left to label, or the rule keeps nothing.
    """
    predicted, truth = metrics.collect(probabilities, settings.unlabelled.batches())
    candidates = np.setdiff1d(np.arange(len(truth)), labelled)
    if not len(candidates):
        raise types.UsageError(
            f"all {len(truth)} images are labelled, so none is left to guess at: lower config.data.labels, "
            "or name other images in config.self_training.unlabelled"
        )
    chosen = settings.keep.keep(predicted[candidates], round_)
    if not len(chosen):
        raise types.UsageError(
            f"round {round_} is sure of none of {len(candidates)} images (the surest at "
            f"{predicted[candidates].max():.3f}): loosen config.self_training.keep"
        )
    rows = candidates[chosen]
    guesses = predicted.argmax(axis=1).astype(np.int32)
    known = truth >= 0
    if tuple(settings.unlabelled.class_names) != tuple(class_names):
        known = np.zeros_like(known)
    right = guesses == truth
    return Guesses(
        rows=rows,
        labels=guesses[rows],
        confidences=predicted.max(axis=1)[rows].astype(np.float32),
        candidates=len(candidates),
        precision=_share(right[rows], known[rows]),
        accuracy=_share(right[candidates], known[candidates]),
    )


def _share(right, known):
    return float(np.mean(right[known])) if known.any() else None
