"""Which predictions a model may learn from: what is confident enough, by three rules."""

import dataclasses
from typing import Protocol

import numpy as np

from ssl_jax.types import UsageError


class Rule(Protocol):
    """Chooses predictions to keep."""

    def keep(self, probabilities: np.ndarray, round_: int) -> np.ndarray:
        """Ascending rows, int64, of the predictions to keep.

        Args:
            probabilities: float [n, k], rows that sum to 1.
            round_: which round of self-training this is, from 1.
        """


@dataclasses.dataclass(frozen=True)
class Fixed:
    """What is at least so confident (Lee 2013; the threshold of FixMatch, arXiv 2001.07685, is 0.95).

    Attributes:
        threshold: least probability of the predicted class, in (0, 1].
    """

    threshold: float = 0.95

    def __post_init__(self):
        if not 0 < self.threshold <= 1:
            raise UsageError(f"threshold={self.threshold} is a probability: give one above 0 and at most 1")

    def keep(self, probabilities: np.ndarray, round_: int) -> np.ndarray:
        """See `Rule.keep`; the round does not matter."""
        del round_
        return np.flatnonzero(probabilities.max(axis=1) >= self.threshold)


@dataclasses.dataclass(frozen=True)
class TopShare:
    """The most confident share of all; with growth, curriculum labelling (Cascante-Bonilla et al., arXiv 2001.06001).

    Attributes:
        share: what the first round keeps.
        growth: what each later round keeps more, at most until everything is kept.
    """

    share: float = 0.2
    growth: float = 0.0

    def __post_init__(self):
        _check_shares(self)

    def keep(self, probabilities: np.ndarray, round_: int) -> np.ndarray:
        """See `Rule.keep`; of equals the earlier rows."""
        count = round(_share(self, round_) * len(probabilities))
        return np.sort(_most_confident(probabilities.max(axis=1))[:count])


@dataclasses.dataclass(frozen=True)
class ClassBalanced:
    """The same number of each predicted class, the most confident ones (after Zou et al., arXiv 1810.07911).

    Keeps a model that favours some classes from teaching itself to favour them more. A class that is predicted less
    often than its number gives all it has.

    Attributes:
        share: what the first round keeps of all predictions, divided evenly over the classes.
        growth: what each later round keeps more, at most until everything is kept.
    """

    share: float = 0.2
    growth: float = 0.0

    def __post_init__(self):
        _check_shares(self)

    def keep(self, probabilities: np.ndarray, round_: int) -> np.ndarray:
        """See `Rule.keep`; of equals the earlier rows."""
        count = round(_share(self, round_) * len(probabilities) / probabilities.shape[1])
        order = _most_confident(probabilities.max(axis=1))
        predicted = probabilities.argmax(axis=1)[order]
        kept = [order[predicted == label][:count] for label in range(probabilities.shape[1])]
        return np.sort(np.concatenate(kept))


def _check_shares(rule):
    if not 0 < rule.share <= 1 or not 0 <= rule.growth <= 1:
        raise UsageError(
            f"share={rule.share}, growth={rule.growth}: a share lies above 0 and is at most 1, a growth from 0 to 1"
        )


def _share(rule, round_):
    return min(1.0, rule.share + rule.growth * (round_ - 1))


def _most_confident(confidences):
    return np.argsort(-confidences, kind="stable")
