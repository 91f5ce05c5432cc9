"""How many directions features fill: measures of collapse that need no labels, from singular values."""

import jax
import numpy as np

from ssl_jax import types

_AT_ONCE = 2**22
# Rounding features to float32 moves no singular value by more than this share of their Frobenius norm (Weyl 1912).
_FLOAT32_ROUNDING = 2.0**-24
_SMALLEST_NORM = 1e-12
_RANK_ME_EPSILON = 1e-7
_DEAD = 1e-6
_FIRST_FITTED, _LAST_FITTED = 12, 100


def singular_values(features: np.ndarray | jax.Array, *, centred: bool) -> np.ndarray:
    """The singular values of `features`, or of what is left of them around their mean, the largest first.

    They are roots of eigenvalues of the Gram matrix of the smaller side, in float64 a part of the features at a time:
    products in float32 would blur what is below 1e-4 of the largest. A value s is off by at most about 1e-16 s_1^2 / s,
    1e-6 of itself at 1e-5 of the largest s_1. What rounding alone may have made is 0: below sqrt(min(n, d) 2.2e-16) of
    the largest, which is 3e-7 at 512 channels, or below 2^-24 of the root of the sum of squares of all features as
    they are.

    Args:
        features: float [n, d], taken as float32.
        centred: whether the mean over rows is taken off first, so that the squares over n are the eigenvalues of the
            covariance.

    Returns:
        float64 [min(n, d)], at least 0. Around the mean one of them is 0 where n <= d.

    Raises:
        UsageError: features that are not [n, d], n and d 1 or more, or not finite.
    """
    features = _checked(features)
    rows, width = features.shape
    gram = np.zeros((min(rows, width),) * 2)
    if rows < width:
        for start in range(0, width, max(1, _AT_ONCE // rows)):
            part = features[:, start : start + max(1, _AT_ONCE // rows)].astype(np.float64)
            if centred:
                part -= part.mean(axis=0)
            gram += part @ part.T
    else:
        mean = features.mean(axis=0, dtype=np.float64) if centred else 0.0
        for start in range(0, rows, max(1, _AT_ONCE // width)):
            part = features[start : start + max(1, _AT_ONCE // width)].astype(np.float64)
            part -= mean
            gram += part.T @ part
    squares = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0)
    everything = np.einsum("nd,nd->", features, features, dtype=np.float64)
    rounding = max(len(gram) * np.finfo(np.float64).eps * squares[0], _FLOAT32_ROUNDING**2 * everything)
    return np.sqrt(np.where(squares > rounding, squares, 0.0))


def rank_me(values: np.ndarray) -> float:
    """The smooth rank exp(-sum p_k log p_k), p_k = s_k / sum s + 1e-7: 1 for one direction, m for m equal values.

    RankMe, Garrido et al. 2023 (arXiv 2210.02885, eq. 2), which takes the features as they are, their mean
    included; 25,600 images suffice there. It orders runs of one method and one width, and is no threshold. The
    paper's 1e-7 is not taken off again, so equal values give up to 0.03 % more than their number at 512 channels.

    Args:
        values: singular values float [m], as of `singular_values(features, centred=False)`.

    Returns:
        0.0 where all values are 0.
    """
    total = values.sum()
    if not total > 0:
        return 0.0
    shares = values / total + _RANK_ME_EPSILON
    return float(np.exp(-np.sum(shares * np.log(shares))))


def collapse_auc(values: np.ndarray) -> float:
    """The mean over k of the share that the k largest singular values have in the sum of all.

    Li, Efros and Pathak 2022 (arXiv 2209.15007, eq. 2), whose code takes features around their mean. Equal values give
    (m + 1) / 2m, about 0.5; one direction alone gives 1. Give more rows than channels: fewer leave only as many values,
    and the number then says little.

    Args:
        values: singular values float [m] of centred features, the largest first.

    Returns:
        In (0.5, 1]; 1.0 where all values are 0.
    """
    total = values.sum()
    return float(np.mean(np.cumsum(values)) / total) if total > 0 else 1.0


def alpha_req(values: np.ndarray) -> float:
    """The power a of the law k^-a that the eigenvalues of the covariance follow; good features are said to lie near 1.

    alpha-ReQ, Agrawal et al. 2022 (NeurIPS). As in the authors' code it is a least-squares line through the logarithms
    of the 12th to the 100th eigenvalue, each weighed by 1 / k so that every octave counts alike (Stringer et al. 2019).
    Of fewer than 100 eigenvalues above 0 the line goes to the last, and of fewer than 24 it starts in their middle,
    from which there are at least two: the authors give no rule for so few, so compare only runs of one width.

    Args:
        values: singular values float [m] of centred features, the largest first; their squares are fitted.

    Returns:
        0 for equal values; infinity where fewer than two are above 0, for then everything lies on one line.
    """
    count = int(np.count_nonzero(values > 0))
    if count < 2:
        return float("inf")
    last = min(count, _LAST_FITTED)
    first = min(_FIRST_FITTED, max(1, last // 2))
    places = np.arange(first, last + 1)
    logarithms, heights, weights = np.log(places), 2 * np.log(values[first - 1 : last]), 1 / places
    across = logarithms - np.average(logarithms, weights=weights)
    # Not -0.0 for equal values.
    return float(-np.sum(weights * across * heights) / np.sum(weights * across**2)) + 0.0


def nesum(values: np.ndarray) -> float:
    """The sum of the eigenvalues of the covariance over the largest: 1 for one direction, m for m equal ones.

    NESum, He and Ozay 2022 (ICML), as Tsitsulin et al. (arXiv 2305.16562) compare it.

    Args:
        values: singular values float [m] of centred features, the largest first; their squares are summed.

    Returns:
        0.0 where all values are 0.
    """
    return float(np.sum((values / values[0]) ** 2)) if values[0] > 0 else 0.0


def stable_rank(values: np.ndarray) -> float:
    """The sum of squared singular values over the largest square: 1 for one direction, m for m equal ones.

    Tsitsulin et al. (arXiv 2305.16562), of the features as they are. Of centred features it would be `nesum`, number
    for number; so a stable rank far below that tells of a mean that outweighs all differences.

    Args:
        values: singular values float [m], as of `singular_values(features, centred=False)`.

    Returns:
        0.0 where all values are 0.
    """
    return nesum(values)


def condition_number(values: np.ndarray) -> float:
    """The largest singular value over the smallest, 1 for equal ones; Tsitsulin et al. (arXiv 2305.16562).

    Args:
        values: singular values float [m], as of `singular_values(features, centred=False)`.

    Returns:
        At least 1; infinity where a value is 0, which JSON cannot hold.
    """
    return float(values[0] / values[-1]) if values[-1] > 0 else float("inf")


def measures(features: np.ndarray | jax.Array) -> dict[str, float]:
    """All measures of this module, each of the spectrum that its source takes.

    Args:
        features: float [n, d], taken as float32. Give more rows than channels.

    Returns:
        `rank_me`, `stable_rank` and `condition_number` of the features as they are; `alpha_req`, `collapse_auc`
        and `nesum` of the features around their mean.
        `deviation`: the mean over channels of the deviation of unit features, times sqrt(d); 1 where they spread
        evenly, 0 where all point the same way (`metrics.output_deviation` without the factor).
        `dead_channels`: an int, how many channels stay within 1e-6 of their largest size; of a single row, all.
        `width`: an int, d.
        `alpha_req` and `condition_number` may be infinite.

    Raises:
        UsageError: as `singular_values`.
    """
    features = _checked(features)
    raw = singular_values(features, centred=False)
    around_mean = singular_values(features, centred=True)
    lowest, highest = features.min(axis=0).astype(np.float64), features.max(axis=0).astype(np.float64)
    return {
        "rank_me": rank_me(raw),
        "alpha_req": alpha_req(around_mean),
        "collapse_auc": collapse_auc(around_mean),
        "nesum": nesum(around_mean),
        "stable_rank": stable_rank(raw),
        "condition_number": condition_number(raw),
        "deviation": _deviation(features),
        "dead_channels": int(np.count_nonzero(highest - lowest <= _DEAD * np.maximum(np.abs(lowest), np.abs(highest)))),
        "width": features.shape[1],
    }


def _deviation(features: np.ndarray) -> float:
    rows, width = features.shape
    lengths = np.sqrt(np.einsum("nd,nd->n", features, features, dtype=np.float64))
    units = np.maximum(lengths, _SMALLEST_NORM)[:, None]
    parts = [slice(start, start + max(1, _AT_ONCE // width)) for start in range(0, rows, max(1, _AT_ONCE // width))]
    mean = sum(np.sum(features[part] / units[part], axis=0) for part in parts) / rows
    variance = sum(np.sum((features[part] / units[part] - mean) ** 2, axis=0) for part in parts) / rows
    return float(np.sqrt(variance).mean() * np.sqrt(width))


def _checked(features: np.ndarray | jax.Array) -> np.ndarray:
    features = np.asarray(features, np.float32)
    if features.ndim != 2 or not features.size:
        raise types.UsageError(f"spectrum of features of shape {features.shape}: give [n, d], n and d 1 or more")
    if not np.isfinite(features).all():
        raise types.UsageError("spectrum of features with infinities or no numbers: look for a run that diverged")
    return features
