"""Whether generated images lie where real ones do and cover them all, by distances between features."""

from collections.abc import Iterator

import jax
import numpy as np

from ssl_jax import types

_DISTANCES_AT_ONCE = 2**24
# Rounding of a squared distance, as a share of the squared lengths: distances closer than that are equal. A dot product
# of d numbers is off by at most d * 1.1e-16 of them, and two distances are compared.
_ROUNDING = 1e-12


def precision_recall(
    real: np.ndarray | jax.Array, fake: np.ndarray | jax.Array, *, neighbours: int = 3
) -> tuple[float, float]:
    """The share of fake features inside the real ones' manifold (precision), and the reverse (recall).

    A set's manifold is the union of balls around its features, each reaching to its own k-th neighbour in the set, edge
    included. Kynkäänniemi et al. 2019 (arXiv 1904.06991, eqs. 1 and 2), as torch-fidelity's `prc`; the paper takes the
    features of VGG-16's second fully connected layer and 50,000 images of each.

    Args:
        real: float [n, d].
        fake: float [m, d].
        neighbours: k, 1 to min(n, m) - 1.

    Returns:
        Precision and recall, each in [0, 1].

    Raises:
        UsageError: a set with no k neighbours, widths that differ, or features that are not finite.
    """
    real, fake = _centred(real, fake)
    reach_real, reach_fake = _reach(real, neighbours, "real"), _reach(fake, neighbours, "fake")
    precise, recalled = 0, np.zeros(len(real), bool)
    for rows, squared in _squared(fake, real, shift=-_ROUNDING):
        precise += np.count_nonzero((squared <= reach_real).any(axis=1))
        recalled |= (squared <= reach_fake[rows, None]).any(axis=0)
    return float(precise / len(fake)), float(np.mean(recalled))


def density_coverage(
    real: np.ndarray | jax.Array, fake: np.ndarray | jax.Array, *, neighbours: int = 5
) -> tuple[float, float]:
    """In how many real balls a fake feature lies, over k (density); the share of balls that hold one (coverage).

    The balls are those of `precision_recall` around the real features, edge excluded. Naeem et al. 2020 (arXiv
    2002.09797, section 3), as the authors' `prdc`. Of two samples of one distribution the expected density is 1, and
    the expected coverage is 0.97 at k = 5 (lemmas 1 and 2). The ball of k + 1 or more equal real features is empty and
    never covered.

    Args:
        real: float [n, d].
        fake: float [m, d].
        neighbours: k, 1 to n - 1.

    Returns:
        Density, at least 0 and 1 for equal sets of distinct features, at times above; coverage, in [0, 1].

    Raises:
        UsageError: a real set with no k neighbours, no fake feature, widths that differ, or features that are not
            finite.
    """
    real, fake = _centred(real, fake)
    reach = _reach(real, neighbours, "real")
    held, covered = 0, 0
    for rows, squared in _squared(real, fake, shift=_ROUNDING):
        inside = squared < reach[rows, None]
        held += np.count_nonzero(inside)
        covered += np.count_nonzero(inside.any(axis=1))
    return float(held / (neighbours * len(fake))), float(covered / len(real))


def _reach(features: np.ndarray, neighbours: int, name: str) -> np.ndarray:
    """float64 [n]: each feature's squared distance to its k-th neighbour, itself not counted."""
    if not 1 <= neighbours < len(features):
        way = f"ask for 1 to {len(features) - 1} or give more images" if len(features) > 1 else "give more images"
        raise types.UsageError(
            f"{neighbours} neighbours of each of {len(features)} {name} features: there must be more features; {way}"
        )
    found = np.empty(len(features))
    for rows, squared in _squared(features, features):
        # One more, for each is its own nearest.
        found[rows] = np.partition(squared, neighbours, axis=1)[:, neighbours]
    return found


def _squared(first: np.ndarray, second: np.ndarray, shift: float = 0.0) -> Iterator[tuple[slice, np.ndarray]]:
    """Squared distances float64 [b, m] from some rows of `first` at a time, and which rows.

    Each is moved by `shift` times the squared lengths of its two features, for comparisons that rounding must not sway.
    """
    lengths = [(1 + shift) * np.einsum("nd,nd->n", side, side) for side in (first, second)]
    at_once = max(1, _DISTANCES_AT_ONCE // len(second))
    for start in range(0, len(first), at_once):
        rows = slice(start, min(start + at_once, len(first)))
        squared = first[rows] @ second.T
        squared *= -2.0
        squared += lengths[0][rows, None]
        squared += lengths[1]
        yield rows, squared


def _centred(*sets: np.ndarray | jax.Array) -> list[np.ndarray]:
    """float64 copies of features around the mean of the first set: far from 0 short distances would be lost."""
    sets = [np.asarray(features) for features in sets]
    shapes = [features.shape for features in sets]
    if any(len(shape) != 2 or not shape[0] or not shape[1] for shape in shapes):
        raise types.UsageError(
            f"features of shapes {shapes}: one row an image is needed; reshape to [n, d], n 1 or more"
        )
    if len({width for _, width in shapes}) > 1:
        raise types.UsageError(f"features of shapes {shapes}: give both sets of one network and layer")
    if not all(np.isfinite(features).all() for features in sets):
        raise types.UsageError("features hold infinities or no numbers: finite ones are needed; look for a divergence")
    mean = sets[0].mean(axis=0, dtype=np.float64)
    return [features - mean for features in sets]
