"""How strange each row of features is, by three scores, and how well a score tells the odd rows from the others."""

import jax
import numpy as np

from ssl_jax import types
from ssl_jax.analysis import neighbours

_AT_ONCE = 2**22
_FLOAT32_ROUNDING = 2.0**-24


def knn_distance(features: np.ndarray | jax.Array, k: int, *, normal: np.ndarray | None = None) -> np.ndarray:
    """The Euclidean distance of each row to its k-th nearest normal row, itself not counted; larger is stranger.

    The score of Ramaswamy, Rastogi and Shim 2000 (SIGMOD), which takes the k-th distance and not the mean of k.

    Args:
        features: float [n, d].
        k: 1 to the number of normal rows less 1.
        normal: bool [n], the rows that count as normal; None counts all.

    Returns:
        float64 [n], at least 0, to the precision of float32.

    Raises:
        UsageError: k out of range, fewer than 2 normal rows, or features that are not [n, d] or not finite.
    """
    features, normal = _checked(features, normal)
    trained = int(normal.sum())
    if not 1 <= k < trained:
        raise types.UsageError(f"{k} neighbours among {trained} normal rows, none its own: ask for 1 to {trained - 1}")
    own_rows = np.where(normal, np.cumsum(normal) - 1, -1)
    return neighbours.euclidean(features[normal], features, k, own_rows=own_rows)[1][:, -1].astype(np.float64)


def mahalanobis(
    features: np.ndarray | jax.Array, *, normal: np.ndarray | None = None, shrinkage: float | None = None
) -> np.ndarray:
    """The distance of each row from the normal rows' mean, in deviations of their covariance; larger is stranger.

    sqrt((x - m)' S^-1 (x - m)) with S = (1 - s) C + s tr(C) / d I, the shrunk covariance (ddof 0): it can be inverted
    though there are fewer rows than channels. The square is what scikit-learn's `LedoitWolf.mahalanobis` returns.

    Args:
        features: float [n, d].
        normal: bool [n], the rows that the mean and the covariance are of; None takes all.
        shrinkage: s in [0, 1]; None estimates it by `ledoit_wolf_shrinkage`.

    Returns:
        float64 [n]. A direction in which S has no variance but rounding does not count, as may be with s = 0; so all
        rows are at 0 where the normal ones are equal.

    Raises:
        UsageError: a shrinkage out of range, fewer than 2 normal rows, or features that are not [n, d] or not finite.
    """
    features, normal = _checked(features, normal)
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise types.UsageError(f"shrinkage={shrinkage} of a covariance: give 0 to 1, or None to estimate it")
    mean, covariance, fourth = _moments(features[normal])
    if shrinkage is None:
        shrinkage = _shrinkage(covariance, fourth, int(normal.sum()))
    width = features.shape[1]
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / width * np.eye(width)
    variances, axes = np.linalg.eigh(shrunk)
    # Below this, rounding of the features to float32 or of the sums has made the variance.
    everything = np.trace(covariance) + mean @ mean
    kept = variances > max(width * np.finfo(np.float64).eps * variances[-1], _FLOAT32_ROUNDING**2 * everything)
    whitening = axes[:, kept] / np.sqrt(variances[kept])
    found = np.empty(len(features))
    for rows in _parts(features):
        found[rows] = np.linalg.norm((features[rows] - mean) @ whitening, axis=1)
    return found


def ledoit_wolf_shrinkage(features: np.ndarray | jax.Array) -> float:
    """How far to shrink the covariance of `features` [n, d] to a multiple of the identity: 1 all the way, 0 not at all.

    The optimum in expected squared error that Ledoit and Wolf 2004 (J. Multivariate Analysis 88, section 3.3) estimate
    in closed form; scikit-learn's `ledoit_wolf_shrinkage`. It falls with the number of rows, and is 0.0 of one channel.

    Raises:
        UsageError: fewer than 2 rows, or features that are not [n, d] or not finite.
    """
    features, _ = _checked(features, None)
    _, covariance, fourth = _moments(features)
    return _shrinkage(covariance, fourth, len(features))


def isolation_forest(
    features: np.ndarray | jax.Array, *, normal: np.ndarray | None = None, seed: int = 0, trees: int = 100
) -> np.ndarray:
    """How few random cuts set a row apart: 2^(-depth / expected depth); about 0.5 is usual and larger is stranger.

    Liu, Ting and Zhou 2008 (ICDM) by scikit-learn's `IsolationForest`, each tree on 256 of the normal rows. It cuts
    along channels, so unlike the other two scores it depends on how features are rotated.

    Args:
        features: float [n, d].
        normal: bool [n], the rows that the trees are grown on; None takes all.
        seed: of the trees; equal ones give equal scores.
        trees: 1 or more.

    Returns:
        float64 [n], in (0, 1].

    Raises:
        UsageError: no tree, fewer than 2 normal rows, or features that are not [n, d] or not finite.
    """
    features, normal = _checked(features, normal)
    if trees < 1:
        raise types.UsageError(f"an isolation forest of {trees} trees: give 1 or more, 100 as its authors")
    # Here, for it takes a second or two to import.
    from sklearn import ensemble

    forest = ensemble.IsolationForest(n_estimators=trees, random_state=seed).fit(features[normal])
    return -forest.score_samples(features)


def auroc(scores: np.ndarray, odd: np.ndarray) -> float:
    """The chance that an odd row's score is above another row's, equal ones counting half: the area under the ROC.

    By ranks (Hanley and McNeil 1982; the U of Mann and Whitney over the number of pairs).

    Args:
        scores: float [n], larger for stranger; infinities will do.
        odd: bool [n], at least one of either kind.

    Returns:
        In [0, 1]: 1 where every odd row scores above all others, 0.5 by chance.

    Raises:
        UsageError: only one kind of row, lists of different length, or a score that is no number.
    """
    scores, odd = np.asarray(scores, np.float64), np.asarray(odd, bool)
    if scores.shape != odd.shape or scores.ndim != 1:
        raise types.UsageError(f"scores {scores.shape} of rows {odd.shape}: give one score for each row")
    if np.isnan(scores).any():
        raise types.UsageError("AUROC of scores that are no numbers: look for features that are not finite")
    positives = int(odd.sum())
    negatives = len(odd) - positives
    if not (positives and negatives):
        raise types.UsageError(f"AUROC of {positives} odd and {negatives} other rows: give at least one of each")
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return float((ranks[places][odd].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean float64 [d], covariance [d, d] (ddof 0) and the mean fourth power of the distance to the mean."""
    mean = features.mean(axis=0, dtype=np.float64)
    scatter, fourth = np.zeros((len(mean),) * 2), 0.0
    for rows in _parts(features):
        centred = features[rows] - mean
        scatter += centred.T @ centred
        fourth += np.sum(np.sum(centred**2, axis=1) ** 2)
    return mean, scatter / len(features), fourth / len(features)


def _shrinkage(covariance: np.ndarray, fourth: float, rows: int) -> float:
    squares, width = np.sum(covariance**2), len(covariance)
    spread = squares - np.trace(covariance) ** 2 / width
    error = min((fourth - squares) / rows, spread)
    return float(max(0.0, error) / spread) if spread > 0 else 0.0


def _parts(features: np.ndarray) -> list[slice]:
    at_once = max(1, _AT_ONCE // features.shape[1])
    return [slice(start, start + at_once) for start in range(0, len(features), at_once)]


def _checked(features: np.ndarray | jax.Array, normal: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    features = np.asarray(features, np.float32)
    if features.ndim != 2 or not features.size:
        raise types.UsageError(f"anomalies in features of shape {features.shape}: give [n, d], n and d 1 or more")
    if not np.isfinite(features).all():
        raise types.UsageError("anomalies in features with infinities or no numbers: look for a run that diverged")
    normal = np.ones(len(features), bool) if normal is None else np.asarray(normal)
    if normal.shape != features.shape[:1] or normal.dtype != bool:
        raise types.UsageError(f"normal rows as {normal.dtype} {normal.shape}: give a bool for each of {len(features)}")
    if np.count_nonzero(normal) < 2:
        raise types.UsageError(f"anomalies against {np.count_nonzero(normal)} normal rows: 2 or more are needed")
    return features, normal
