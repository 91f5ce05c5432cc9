"""How close generated images come to real ones, from the features and the logits of a fixed network."""

import dataclasses

import jax
import numpy as np
from scipy import special, stats

from ssl_jax import types

_PUBLISHED_SEED = 2020


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Mean and scatter of features that arrive in batches, so that they need not be held all at once.

    Attributes:
        count: features seen.
        mean: float64 [d].
        scatter: float64 [d, d], the sum of the outer products of the deviations from the mean.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def empty(cls, width: int) -> "Moments":
        """The moments of no features of `width` numbers each, the start of a stream."""
        return cls(0, np.zeros(width), np.zeros((width, width)))

    def updated(self, features: np.ndarray | jax.Array) -> "Moments":
        """These moments with the features [b, d] of one more batch, which may be of any length.

        Raises:
            UsageError: the features are not finite or not d wide.
        """
        batch = _checked(features).astype(np.float64)
        if not len(batch):
            return self.merged(Moments.empty(batch.shape[1]))
        mean = batch.mean(axis=0)
        deviations = batch - mean
        return self.merged(Moments(len(batch), mean, deviations.T @ deviations))

    def merged(self, other: "Moments") -> "Moments":
        """The moments of the features of both (the pairwise update of Chan, Golub and LeVeque 1979).

        Raises:
            UsageError: the two are not of one width.
        """
        _alike(self.mean.shape[0], other.mean.shape[0])
        count = self.count + other.count
        if not count:
            return self
        apart = other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(apart, apart) * (self.count * other.count / count)
        return Moments(count, self.mean + apart * (other.count / count), scatter)

    def covariance(self) -> np.ndarray:
        """The unbiased covariance float64 [d, d], as `numpy.cov(features, rowvar=False)`.

        Raises:
            UsageError: fewer than 2 features.
        """
        if self.count < 2:
            raise types.UsageError(f"covariance of {self.count} features: it needs 2 or more; give more images")
        return self.scatter / (self.count - 1)


def frechet_distance(first: Moments, second: Moments) -> float:
    """The squared Fréchet distance of two Gaussians with these moments: FID where the features are Inception's pool3.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)); Heusel et al. 2017 (arXiv 1706.08500, eq. 6). It falls with the number
    of images (its estimate is biased), so only distances from equally many compare: papers take 50,000 or 10,000.
    Covariances of fewer features than dimensions will do.

    Returns:
        At least 0, in squared units of the features; 0 up to rounding for equal moments.

    Raises:
        UsageError: fewer than 2 features on a side, or widths that differ.
    """
    _alike(first.mean.shape[0], second.mean.shape[0])
    covariances = [moments.covariance() for moments in sorted((first, second), key=lambda moments: moments.count)]
    # (S1 S2)^(1/2) has the trace of (R' S2 R)^(1/2) where S1 = R R', which is symmetric. The root of the set of fewer
    # features keeps its rank, so that few roots are taken of eigenvalues that are zeros but for rounding.
    root = _root(covariances[0])
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root.T @ covariances[1] @ root), 0.0)).sum()
    between = np.sum((first.mean - second.mean) ** 2)
    return max(0.0, float(between + sum(np.trace(covariance) for covariance in covariances) - 2 * shared))


def kernel_distance(
    first: np.ndarray | jax.Array, second: np.ndarray | jax.Array, *, subsets: int = 100, subset_size: int = 1000
) -> tuple[float, float]:
    """The squared maximum mean discrepancy under the kernel (x y / d + 1)^3: KID where the features are Inception's.

    Binkowski et al. 2018 (arXiv 1801.01401, section 4), the unbiased estimate on random subsets of both sets. The
    subsets are those of torch-fidelity, so the numbers are its numbers.

    Args:
        first: float [n, d].
        second: float [m, d].
        subsets: at least 1.
        subset_size: features of either set in a subset, 2 to min(n, m).

    Returns:
        Mean over subsets and standard deviation between them (ddof 0). An unbiased estimate of 0 is at times below 0.

    Raises:
        UsageError: a set with fewer features than a subset, widths that differ, or features that are not finite.
    """
    first, second = _checked(first), _checked(second)
    _alike(first.shape[1], second.shape[1])
    fewest = min(len(first), len(second))
    if subsets < 1 or subset_size < 2:
        raise types.UsageError(f"kernel distance in {subsets} subsets of {subset_size}: give 1 or more of 2 or more")
    if fewest < subset_size:
        way = f"pass subset_size={fewest} or less, or give more images" if fewest > 1 else "give more images"
        raise types.UsageError(
            f"kernel distance of {len(first)} and {len(second)} features in subsets of {subset_size}: "
            f"it needs {subset_size} of each; {way}"
        )
    draws = np.random.RandomState(_PUBLISHED_SEED)
    found = []
    for _ in range(subsets):
        # In this order, for both draw from one generator.
        rows = [draws.choice(len(features), subset_size, replace=False) for features in (first, second)]
        found.append(_discrepancy(first[rows[0]].astype(np.float64), second[rows[1]].astype(np.float64)))
    return float(np.mean(found)), float(np.std(found))


def inception_score(logits: np.ndarray | jax.Array, *, splits: int = 10) -> tuple[float, float]:
    """exp of the mean KL divergence between an image's class probabilities and those of all images of its split.

    Salimans et al. 2016 (arXiv 1606.03498, section 4). Images are shuffled as by torch-fidelity before they are split,
    so the numbers are its numbers.

    Args:
        logits: float [n, k], finite: of Inception's 1,008 outputs where the score shall compare with published ones.
        splits: 1 to n; papers take 10.

    Returns:
        Mean over splits, in [1, k], higher for images that are told apart surely and evenly, and standard deviation
        between splits (ddof 0).

    Raises:
        UsageError: fewer logits than splits, fewer than 1 split, or logits that are not finite.
    """
    logits = _checked(logits, "logits")
    count = len(logits)
    if not 1 <= splits <= count:
        raise types.UsageError(f"inception score of {count} logits in {splits} splits: each needs 1; ask for 1 to n")
    draws = np.random.RandomState(_PUBLISHED_SEED)
    order = draws.permutation(count)
    found = []
    for place in range(splits):
        rows = order[place * count // splits : (place + 1) * count // splits]
        each = special.log_softmax(logits[rows].astype(np.float64), axis=1)
        # A logarithm of the mean probability would be -inf for a class that no image can be of.
        overall = special.logsumexp(each, axis=0, keepdims=True) - np.log(len(rows))
        found.append(np.exp(np.mean(np.sum(np.exp(each) * (each - overall), axis=1))))
    return float(np.mean(found)), float(np.std(found))


def separability(first_scores: np.ndarray | jax.Array, second_scores: np.ndarray | jax.Array) -> float:
    """The probability that a score of `first` exceeds one of `second`, ties counting half.

    The area under the ROC curve with `first` as the positives, Mann-Whitney's U over n m (Hanley and McNeil 1982). Of a
    discriminator on real against generated images, 0.5 says that it cannot tell them and 1 that it always can.

    Args:
        first_scores: float [n], or of any shape with n numbers.
        second_scores: float [m], likewise.

    Returns:
        In [0, 1].

    Raises:
        UsageError: no score on a side, or one that is not a number.
    """
    first, second = np.ravel(first_scores), np.ravel(second_scores)
    if not len(first) or not len(second):
        raise types.UsageError(f"separability of {len(first)} and {len(second)} scores: it needs 1 or more of each")
    both = np.concatenate([first, second])
    if np.isnan(both).any():
        raise types.UsageError("separability of scores that are not numbers: they need an order; look for a divergence")
    ranks = stats.rankdata(both)[: len(first)]
    return float((ranks.sum() - len(first) * (len(first) + 1) / 2) / (len(first) * len(second)))


def _root(covariance: np.ndarray) -> np.ndarray:
    """float64 [d, r] whose product with its transpose is the covariance [d, d] of rank r."""
    values, axes = np.linalg.eigh(covariance)
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return axes[:, kept] * np.sqrt(values[kept])


def _discrepancy(first: np.ndarray, second: np.ndarray) -> float:
    """The unbiased estimate from float64 [s, d] twice: pairs of a feature with itself are left out."""
    size, width = first.shape
    within = 0.0
    for features in (first, second):
        kernel = (features @ features.T / width + 1) ** 3
        within += (kernel.sum() - np.trace(kernel)) / (size * (size - 1))
    return within - 2 * np.mean((first @ second.T / width + 1) ** 3)


def _checked(values: np.ndarray | jax.Array, name: str = "features") -> np.ndarray:
    values = np.asarray(values)
    if values.ndim != 2 or not values.shape[1]:
        raise types.UsageError(f"{name} of shape {values.shape}: one row an image is needed; reshape to [n, d]")
    if not np.isfinite(values).all():
        raise types.UsageError(f"{name} hold infinities or no numbers: finite ones are needed; look for a divergence")
    return values


def _alike(first: int, second: int) -> None:
    if first != second:
        raise types.UsageError(f"features of {first} and of {second} numbers: give both sets of one network and layer")
