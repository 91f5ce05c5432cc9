"""L2-regularised multinomial logistic regression by SGD: a whole grid of settings, many label subsets, one call."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import rng, types

_EXACT = jax.lax.Precision.HIGHEST
# Below this part of the whole variance, float32 cannot tell an axis's variance from rounding.
_SMALLEST_VARIANCE = 1e-6


class Grid(NamedTuple):
    """Fitted weights: g label subsets, l learning rates, w weight decays; from `fit`.

    Attributes:
        coefficients: float32 [g, l, w, d, k].
        intercepts: float32 [g, l, w, k].
    """

    coefficients: jax.Array
    intercepts: jax.Array


class Scores(NamedTuple):
    """How well every fitted setting does on one labelled set; from `score`.

    Attributes:
        accuracy: float64 [g, l, w] in [0, 1]; NaN where a setting's logits are not finite.
        cross_entropy: float64 [g, l, w], the mean of -log p(label) in nats; NaN likewise.
    """

    accuracy: np.ndarray
    cross_entropy: np.ndarray


def fit(
    features: np.ndarray | jax.Array,
    labels: np.ndarray | jax.Array,
    rows: Sequence[np.ndarray],
    *,
    classes: int,
    learning_rates: Sequence[float],
    weight_decays: Sequence[float],
    steps: int,
    batch_size: int,
    momentum: float = 0.9,
    seed: int,
) -> Grid:
    """Every setting's way towards the minimiser of `mean CE + weight_decay |W|^2 / 2`, the intercept unpenalised.

    That minimiser is scikit-learn's at `C = 1 / (weight_decay * rows)`. Mini-batch SGD from zero with momentum and a
    cosine schedule down to zero; every setting sees the same batches, so that one product of a batch with the weights
    of all settings side by side replaces one product a setting. Batches are cut from random orders of the subset's
    rows, one order after another, so subsets of every size run the same program and each row is seen equally often,
    up to one. A subset's fit depends on no other row.

    Each subset is centred and turned into its own principal axes, and the step along axis i is
    `learning_rate / (variance_i / k + weight_decay)`: 1 / k is how steep the loss is in its logits at the start, and
    `variance_i` includes by how much that of a batch differs from it. So a learning rate means the same for features of
    any scale and any width: 0.1 to 1 is a good one, less is a path stopped early, and the answer is turned back. This
    changes how fast the minimiser is approached, not where it lies.

    Args:
        features: float [n, d], best standardised, since the penalty depends on their scale.
        labels: int [n], in [0, classes); those of no subset's rows are not read.
        rows: g arrays of row numbers, int, of any lengths above 0: the rows of each label subset.
        classes: the number of classes, k.
        learning_rates: l rates, each above 0.
        weight_decays: w coefficients, each at least 0.
        steps: updates, the same number for every subset.
        batch_size: rows in a batch; where a subset has fewer, its rows repeat.
        momentum: share of the velocity kept, in [0, 1).
        seed: of the order of rows; the batches of a subset depend on nothing else but its size.

    Returns:
        Weights for every subset and setting. A setting that diverged holds numbers that are not finite, or bad ones;
        it disturbs no other.

    Raises:
        UsageError: an empty list, an empty subset, or a number out of range.
    """
    _check(rows, learning_rates, weight_decays, steps, batch_size, momentum)
    counts = np.asarray([len(subset) for subset in rows])
    orders = _orders(counts, steps * batch_size, seed).reshape(len(rows), steps, batch_size)
    padded = np.stack([np.resize(np.asarray(subset, np.int32), counts.max()) for subset in rows])
    return _fit_subsets(
        jnp.asarray(features, jnp.float32),
        jnp.asarray(labels, jnp.int32),
        padded,
        counts,
        orders,
        jnp.asarray(learning_rates, jnp.float32),
        jnp.asarray(weight_decays, jnp.float32),
        jnp.float32(momentum),
        classes=classes,
    )


def score(grid: Grid, features: np.ndarray | jax.Array, labels: np.ndarray | jax.Array) -> Scores:
    """Accuracy and cross-entropy of every fitted setting on the same rows.

    Args:
        grid: from `fit`.
        features: float [m, d].
        labels: int [m].
    """
    hits, losses = _score(grid, jnp.asarray(features, jnp.float32), jnp.asarray(labels, jnp.int32))
    losses = np.asarray(losses, np.float64) / len(labels)
    accuracy = np.where(np.isfinite(losses), np.asarray(hits, np.float64) / len(labels), np.nan)
    return Scores(accuracy, np.where(np.isfinite(losses), losses, np.nan))


def choose(scores: Scores, weight_decays: Sequence[float]) -> tuple[int, int] | None:
    """The setting of best mean accuracy over the subsets: its places among the learning rates and the weight decays.

    Among equals, that of least mean cross-entropy, then the stronger decay, then the earlier rate. A setting that is
    not finite for any one subset is never chosen.

    Returns:
        The two places, or None where no setting is finite for all subsets.
    """
    accuracy, loss = scores.accuracy.mean(axis=0), scores.cross_entropy.mean(axis=0)
    decays = np.broadcast_to(np.asarray(weight_decays, np.float64)[None, :], accuracy.shape)
    finite = np.isfinite(accuracy) & np.isfinite(loss)
    if not finite.any():
        return None
    order = np.lexsort((-decays.ravel(), loss.ravel(), -accuracy.ravel(), ~finite.ravel()))
    return tuple(int(place) for place in np.unravel_index(order[0], accuracy.shape))


def _check(rows, learning_rates, weight_decays, steps, batch_size, momentum):
    if not len(rows) or min(len(subset) for subset in rows) < 1:
        raise types.UsageError("rows: give at least one label subset, each of at least one row")
    if not len(learning_rates) or not min(learning_rates) > 0:
        raise types.UsageError(f"learning_rates={tuple(learning_rates)}: give at least one, each above 0")
    if not len(weight_decays) or not min(weight_decays) >= 0:
        raise types.UsageError(f"weight_decays={tuple(weight_decays)}: give at least one, each at least 0")
    if steps < 1 or batch_size < 1:
        raise types.UsageError(f"steps={steps}, batch_size={batch_size}; each is at least 1")
    if not 0 <= momentum < 1:
        raise types.UsageError(f"momentum={momentum}: give one of at least 0 and below 1, such as 0.9")


def _orders(counts, length, seed):
    """int32 [g, length]: places within each subset, a fresh order of all of them after each is used up."""
    bits = np.asarray(jax.random.bits(rng.stream(seed, "grid_batches"), (length + int(counts.max()),)))
    orders = np.empty((len(counts), length), np.int32)
    for order, count in zip(orders, counts.tolist(), strict=True):
        passes = -(-length // count)
        # numpy's sort is ten times faster than XLA's on CPU.
        shuffled = np.argsort(bits[: passes * count].reshape(passes, count), axis=1)
        order[:] = shuffled.reshape(-1)[:length]
    return orders


@functools.partial(jax.jit, static_argnames="classes")
def _fit_subsets(features, labels, rows, counts, orders, rates, decays, momentum, *, classes):
    one = functools.partial(_fit_subset, rates=rates, decays=decays, momentum=momentum, classes=classes)
    # One after the other: vmap's batched products are slower on CPU, and hold all subsets' features at once.
    return jax.lax.map(lambda subset: one(features[subset[0]], labels[subset[0]], *subset[1:]), (rows, counts, orders))


def _fit_subset(features, labels, count, order, *, rates, decays, momentum, classes):
    """One subset's weights under all settings; the columns of `weights` [d, k * s] are those of s settings, by class.

    The settings run fastest, since sums over the classes are then sums of whole vectors.
    """
    steps, batch_size = order.shape
    width, settings = features.shape[1], rates.size * decays.size
    mean, variances, axes = _principal_axes(features, count)
    features = jnp.matmul(features - mean[None, :], axes, precision=_EXACT)
    targets = jax.nn.one_hot(labels, classes)
    by_class = functools.partial(jnp.tile, reps=classes)
    rate = by_class(jnp.repeat(rates, decays.size))
    decay = by_class(jnp.tile(decays, rates.size))
    total = jnp.sum(variances)
    # Drawn without replacement, a batch of all rows has the subset's own variances.
    chance = total * jnp.maximum(1 / batch_size - 1 / count, 0.0)
    curvature = (variances + chance + _SMALLEST_VARIANCE * total) / classes
    # Features without any variance have no gradient either: any length will do.
    lengths = rate[None, :] / (jnp.where(total > 0, curvature, 1.0)[:, None] + decay[None, :])
    intercept_lengths = rate * classes

    def advance(carry, now):
        (weights, intercepts), (velocity, intercept_velocity) = carry
        step, batch = now
        inputs = features[batch]
        logits = inputs @ weights + intercepts[None, :]
        probabilities = jax.nn.softmax(logits.reshape(batch_size, classes, settings), axis=1)
        residuals = (probabilities - targets[batch][:, :, None]).reshape(batch_size, classes * settings) / batch_size
        velocity = momentum * velocity + inputs.T @ residuals + decay[None, :] * weights
        intercept_velocity = momentum * intercept_velocity + jnp.sum(residuals, axis=0)
        share = 0.5 * (1 + jnp.cos(jnp.pi * step / steps))
        weights = weights - share * lengths * velocity
        intercepts = intercepts - share * intercept_lengths * intercept_velocity
        return ((weights, intercepts), (velocity, intercept_velocity)), None

    zeros = jnp.zeros((width, classes * settings)), jnp.zeros(classes * settings)
    ((weights, intercepts), _), _ = jax.lax.scan(advance, (zeros, zeros), (jnp.arange(steps), order))
    weights = jnp.matmul(axes, weights, precision=_EXACT)
    intercepts = intercepts - jnp.matmul(mean[None, :], weights, precision=_EXACT)[0]
    shape = classes, rates.size, decays.size
    return Grid(
        jnp.transpose(weights.reshape(width, *shape), (2, 3, 0, 1)), jnp.transpose(intercepts.reshape(shape), (1, 2, 0))
    )


def _principal_axes(features, count):
    """Mean [d], variances [d] and axes [d, d] of the first `count` rows: those after them repeat the first."""
    real = (jnp.arange(len(features)) < count)[:, None]
    mean = jnp.sum(jnp.where(real, features, 0.0), axis=0) / count
    centred = jnp.where(real, features - mean[None, :], 0.0)
    variances, axes = jnp.linalg.eigh(jnp.matmul(centred.T, centred, precision=_EXACT) / count)
    return mean, jnp.maximum(variances, 0.0), axes


@jax.jit
def _score(grid, features, labels):
    """Hits and summed losses, [g, l, w]; one learning rate of one subset at a time, for the logits take much room."""

    def one(coefficients, intercepts):
        decays, width, classes = coefficients.shape
        weights = jnp.transpose(coefficients, (1, 2, 0)).reshape(width, classes * decays)
        logits = (features @ weights).reshape(-1, classes, decays) + intercepts.T[None]
        losses = -jnp.take_along_axis(jax.nn.log_softmax(logits, axis=1), labels[:, None, None], axis=1)
        return jnp.sum(jnp.argmax(logits, axis=1) == labels[:, None], axis=0), jnp.sum(losses, axis=(0, 1))

    return jax.lax.map(lambda subset: jax.lax.map(lambda rate: one(*rate), subset), tuple(grid))
