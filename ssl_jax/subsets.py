"""Which images count as labelled: class-balanced subsets, functions of labels and seed alone."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np

from ssl_jax import rng
from ssl_jax.types import UsageError


@dataclasses.dataclass(frozen=True)
class Subset:
    """So many labelled images of every class; all of them where neither count nor share is given.

    A larger subset of the same seed holds the smaller ones.

    Attributes:
        per_class: images of each class.
        share: part of each class's images, in (0, 1], rounded, at least one of each class: 0.01 for "1 % of labels".
        seed: another seed is another draw.

    Raises:
        UsageError: where both are given, or one is out of range.
    """

    per_class: int | None = None
    share: float | None = None
    seed: int = 0

    def __post_init__(self):
        if self.per_class is not None and self.share is not None:
            raise UsageError(f"per_class={self.per_class}, share={self.share}: give one of the two")
        if self.per_class is not None and self.per_class < 1:
            raise UsageError(f"per_class={self.per_class}: a subset takes at least 1 image of each class")
        if self.share is not None and not 0 < self.share <= 1:
            raise UsageError(f"share={self.share}: a share lies above 0 and is at most 1, such as 0.01 for 1 %")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed={self.seed} must lie in 0..2^32-1")

    @property
    def takes_all(self) -> bool:
        """Whether every image counts as labelled."""
        return self.per_class is None and self.share is None

    def draw(self, labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
        """Ascending positions, int64, of the images that the subset takes.

        Args:
            labels: int [n].
            class_names: one name a class, for the messages.

        Raises:
            UsageError: naming the first class that has fewer images than `per_class`, or a label out of range.
        """
        refuse_no_class(labels, len(class_names), "image {}".format)
        if self.takes_all:
            return np.arange(len(labels))
        members = shuffled_members(labels, len(class_names), seed=self.seed, name="label_subset")
        if self.per_class is not None:
            refuse_too_few([len(ours) for ours in members], self.per_class, class_names)
            counts = [self.per_class] * len(members)
        else:
            refuse_too_few([len(ours) for ours in members], 1, class_names)
            counts = [max(1, round(self.share * len(ours))) for ours in members]
        return np.sort(np.concatenate([ours[:count] for ours, count in zip(members, counts, strict=True)]))


def shuffled_members(
    labels: np.ndarray, classes: int, *, seed: int, name: str, draw: int = 0, among: np.ndarray | None = None
) -> list[np.ndarray]:
    """The positions of every class, each in an order of chance: what is cut off their fronts is nested and balanced.

    Args:
        labels: int [n] in [0, classes).
        classes: how many classes there are.
        seed: of the order.
        name: the stream's name, see `rng.stream`.
        draw: which of several independent orders.
        among: bool [n], the positions that count; None for all.

    Returns:
        int64 positions, one array a class.
    """
    order = np.asarray(jax.random.permutation(rng.stream(seed, name, draw), len(labels))).astype(np.int64)
    if among is not None:
        order = order[among[order]]
    return [order[labels[order] == label] for label in range(classes)]


def held_out(labels: np.ndarray, classes: int, share: float, *, seed: int, name: str) -> np.ndarray:
    """Bool [n]: the same share of every class, rounded, set aside; arguments as of `shuffled_members`."""
    aside = np.zeros(len(labels), bool)
    for ours in shuffled_members(labels, classes, seed=seed, name=name):
        aside[ours[: round(share * len(ours))]] = True
    return aside


def refuse_no_class(labels: np.ndarray, classes: int, describe: Callable[[int], str]) -> None:
    """Raises UsageError for a label outside 0..classes-1, with the words that `describe(position)` finds for it."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise UsageError(
            f"{describe(int(wrong[0]))} has label {labels[wrong[0]]}, outside 0..{classes - 1}, like {len(wrong) - 1} "
            "others: give a wholly labelled split"
        )


def refuse_too_few(members: Sequence[int], wanted: int, class_names: Sequence[str]) -> None:
    """Raises UsageError for the class with the fewest images if that is fewer than wanted."""
    fewest = int(np.argmin(members))
    if members[fewest] < wanted:
        raise UsageError(
            f"class {class_names[fewest]!r} has {members[fewest]} labelled images, fewer than the {wanted} asked for: "
            f"ask for at most {members[fewest]} a class"
        )
