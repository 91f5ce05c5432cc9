"""L2-regularised multinomial logistic regression, many problems in one compiled call."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import types

_EXACT = jax.lax.Precision.HIGHEST
_NEWTON_STEPS = 100
_CONJUGATE_STEPS = 200
_HALVINGS = 20
_SMALL_CURVATURE = 1e-8
_matmul = functools.partial(jnp.matmul, precision=_EXACT)


class Regression(NamedTuple):
    """Fitted weights; the leading axes are those of the call that made them.

    Attributes:
        coefficients: float32 [..., d, k].
        intercepts: float32 [..., k], centred over the classes.
        converged: bool [...], whether `fit` reached its tolerance.
    """

    coefficients: jax.Array
    intercepts: jax.Array
    converged: np.ndarray | bool = True


def standardise(train: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Every array less the mean and over the standard deviation of `train`'s columns; no label is looked at.

    A column that is constant over `train` is only centred: it has no scale of its own.

    Args:
        train: float [n, d].
        *others: float [m, d].

    Returns:
        The arrays in the order given, float32.
    """
    mean = train.mean(axis=0, dtype=np.float64)
    deviation = train.std(axis=0, dtype=np.float64)
    # A constant column of large values has a rounding-error deviation, which must not become its scale.
    alive = deviation > 1e-6 * np.abs(mean) + 1e-12
    shift = mean.astype(np.float32)[None, :]
    scale = np.where(alive, deviation, 1.0).astype(np.float32)[None, :]
    return [(array.astype(np.float32) - shift) / scale for array in (train, *others)]


def rotate(train: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Every array in the principal axes of `train`, a rotation about the origin; no label is looked at.

    It changes no fit's predictions, for the penalty is the same in every rotated frame, and makes `fit` several times
    faster, for Hessians are nearly diagonal there.

    Args:
        train: float [n, d].
        *others: float [m, d].

    Returns:
        The arrays in the order given, float32.
    """
    arrays = [jnp.asarray(array, jnp.float32) for array in (train, *others)]
    axes = jnp.linalg.eigh(_matmul(arrays[0].T, arrays[0]))[1]
    return [np.asarray(_matmul(array, axes)) for array in arrays]


def fit(
    features: np.ndarray | jax.Array,
    labels: np.ndarray | jax.Array,
    *,
    classes: int,
    penalties: Sequence[float],
    weights: np.ndarray | jax.Array | None = None,
    start: Regression | None = None,
    tolerance: float = 1e-4,
) -> Regression:
    """The minimiser of `sum_i weights_i CE_i + |W|^2 / (2 C)` for every C, the intercept unpenalised.

    The objective is scikit-learn's `LogisticRegression(C=C)`: a small C is a strong penalty. Newton's method with
    conjugate gradients, preconditioned by the Hessian's diagonal, so fastest on features from `rotate`.

    Args:
        features: float [n, d], or [s, n, d] for s problems with rows of their own; best standardised.
        labels: int [n] or [s, n], in [0, classes).
        classes: the number of classes, k.
        penalties: the values of C, all positive.
        weights: float [n] or [s, n] that each row's loss is multiplied by; 0 leaves a row out. None: all 1.
        start: where to begin, coefficients [d, k] or [s, d, k]: a solution for another C or for other rows saves
            time and changes the answer by no more than the tolerance. None: zeros.
        tolerance: bound on a diagonal estimate of the Newton decrement (the Hessian's diagonal stands for the Hessian)
            over the square root of the number of rows: half its square is about the mean loss still to be won, in nats.

    Returns:
        Coefficients [c, d, k], with [s, ...] before it where the features have it. A problem that has not reached the
        tolerance after the last step is returned as it is, `converged` False.

    Raises:
        UsageError: no penalties, or one that is not positive.
        RunError: a result is not finite.
    """
    if not penalties or min(penalties) <= 0:
        raise types.UsageError(f"penalties={tuple(penalties)}: give at least one value of C, each above 0")
    features = jnp.asarray(features, jnp.float32)
    labels = jnp.asarray(labels, jnp.int32)
    weights = jnp.ones(labels.shape, jnp.float32) if weights is None else jnp.asarray(weights, jnp.float32)
    one_set = features.ndim == 2
    if one_set:
        features, labels, weights = features[None], labels[None], weights[None]
    if start is None:
        sets, _, width = features.shape
        begin = jnp.zeros((sets, width, classes)), jnp.zeros((sets, classes))
    else:
        begin = (jnp.asarray(start.coefficients, jnp.float32), jnp.asarray(start.intercepts, jnp.float32))
        begin = tuple(array[None] for array in begin) if one_set else begin
    ascending = np.argsort(penalties)
    strengths = jnp.asarray(1 / np.asarray(penalties, np.float64)[ascending], jnp.float32)
    coefficients, intercepts, excess = jax.tree.map(
        lambda array: array[:, np.argsort(ascending)],
        _fit_sets(features, labels, weights, begin, strengths, jnp.float32(tolerance)),
    )
    excess = np.asarray(excess)
    finite = np.isfinite(excess + np.asarray(jnp.sum(coefficients, axis=(2, 3)) + jnp.sum(intercepts, axis=2)))
    if not finite.all():
        place = int(np.argmin(finite.all(axis=0)))
        raise types.RunError(
            f"the logistic regression with C={penalties[place]:g} gave numbers that are not finite: check the features "
            "for such values"
        )
    # Both sides of the comparison inside the loop were rounded to float32, which must not tell here.
    fitted = Regression(coefficients, intercepts, excess <= 1.001 * tolerance)
    return jax.tree.map(lambda array: array[0], fitted) if one_set else fitted


def accuracy(regression: Regression, features: np.ndarray | jax.Array, labels: np.ndarray | jax.Array) -> np.ndarray:
    """The share of rows that each fitted problem classifies as labelled.

    Args:
        regression: coefficients [..., d, k].
        features: float [m, d], the same for every problem.
        labels: int [m].

    Returns:
        float64 [...].
    """
    return _each(_hits, regression, features, labels)


def cross_entropy(
    regression: Regression, features: np.ndarray | jax.Array, labels: np.ndarray | jax.Array
) -> np.ndarray:
    """The mean over rows of -log p(label), in nats, for each fitted problem; arguments and shape as for `accuracy`."""
    return _each(_losses, regression, features, labels)


def _each(count, regression, features, labels):
    coefficients, intercepts = np.asarray(regression.coefficients), np.asarray(regression.intercepts)
    *leading, width, classes = coefficients.shape
    features, labels = jnp.asarray(features, jnp.float32), jnp.asarray(labels, jnp.int32)
    problems = zip(coefficients.reshape(-1, width, classes), intercepts.reshape(-1, classes), strict=True)
    # One after the other: the logits of all together can be many times larger than the features.
    sums = [float(count(*problem, features, labels)) for problem in problems]
    return np.asarray(sums, np.float64).reshape(leading) / labels.size


@jax.jit
def _hits(coefficients, intercepts, features, labels):
    logits = _matmul(features, coefficients) + intercepts[None, :]
    return jnp.sum(jnp.argmax(logits, axis=-1) == labels)


@jax.jit
def _losses(coefficients, intercepts, features, labels):
    logits = jax.nn.log_softmax(_matmul(features, coefficients) + intercepts[None, :])
    return -jnp.sum(jnp.take_along_axis(logits, labels[:, None], axis=-1))


@jax.jit
def _fit_sets(features, labels, weights, start, strengths, tolerance):
    """Arrays with a leading axis of sets: coefficients [s, c, d, k], intercepts [s, c, k], decrements a row [s, c]."""
    # Loops over sets and penalties, not vmap: vmap's batched small products are ten times slower on CPU, and every
    # problem would take as many steps as the slowest.
    one = functools.partial(_fit_path, strengths=strengths, tolerance=tolerance)
    return jax.lax.map(lambda one_set: one(*one_set), (features, labels, weights, start))


def _fit_path(features, labels, weights, start, strengths, tolerance):
    """One set under every penalty, each started from the solution of the next stronger one."""
    rows, _ = features.shape
    features = jnp.where(weights[:, None] > 0, features, 0.0)
    inputs = jnp.concatenate([features, jnp.ones((rows, 1))], axis=1)
    coefficients, intercepts = start
    targets = jax.nn.one_hot(labels, intercepts.size)
    solution = jnp.concatenate([coefficients.T, intercepts[:, None]], axis=1)

    def advance(solution, strength):
        solution, excess = _newton(solution, inputs, targets, weights[:, None], strength, tolerance)
        return solution, (solution, excess)

    _, (solutions, excess) = jax.lax.scan(advance, solution, strengths)
    coefficients = jnp.swapaxes(solutions[:, :, :-1], 1, 2)
    intercepts = solutions[:, :, -1] - jnp.mean(solutions[:, :, -1], axis=-1, keepdims=True)
    return coefficients, intercepts, excess


def _newton(solution, inputs, targets, weights, strength, tolerance):
    """The minimiser [k, d + 1], the last column the intercepts, and its Newton decrement a row.

    `inputs` [n, d + 1] ends in a column of ones; `targets` are [n, k], `weights` [n, 1], `strength` is 1 / C.
    """
    width = inputs.shape[1]
    ridge = strength * (jnp.arange(width) < width - 1)[None, :]
    spread = jnp.sum(weights * inputs**2, axis=0)[None, :]
    total = jnp.sum(weights)
    goal = tolerance**2 * total

    def forward(vector):
        return _matmul(inputs, vector.T)

    def backward(residuals):
        # In this order of contraction, which is three times faster on CPU than its transpose.
        return _matmul(residuals.T, inputs)

    def gradient_at(solution, logits):
        return backward(weights * (jax.nn.softmax(logits) - targets)) + ridge * solution

    def diagonal_at(probabilities):
        curvature = jnp.sum(weights * probabilities * (1 - probabilities), axis=0) / total
        return jnp.maximum(curvature, _SMALL_CURVATURE)[:, None] * spread + ridge + _SMALL_CURVATURE

    def direction_at(gradient, probabilities):
        """Conjugate gradients on the Newton equation."""
        diagonal = diagonal_at(probabilities)
        square = jnp.sum(gradient**2 / diagonal)
        # Loose far from the minimum, where the quadratic model is poor; never tighter than the answer has to be, for
        # float32 would not get there.
        enough = jnp.maximum(square * jnp.clip(square / total, 1e-4, 0.01), 0.1 * goal)

        def unfinished(carry):
            count, _, _, _, size = carry
            return (count < _CONJUGATE_STEPS) & (size > enough)

        def advance(carry):
            count, step, residual, search, size = carry
            outer = forward(search)
            outer = weights * probabilities * (outer - jnp.sum(probabilities * outer, axis=-1, keepdims=True))
            image = backward(outer) + ridge * search
            length = size / jnp.sum(search * image)
            residual = residual - length * image
            scaled = residual / diagonal
            new_size = jnp.sum(residual * scaled)
            return count + 1, step + length * search, residual, scaled + new_size / size * search, new_size

        start = (0, jnp.zeros_like(gradient), -gradient, -gradient / diagonal, square)
        return jax.lax.while_loop(unfinished, advance, start)[1]

    def step_length(solution, logits, gradient, direction, change):
        """The largest of 1, 1/2, ... at which the slope along the direction has not turned steeply upwards."""
        allowed = 0.5 * jnp.abs(jnp.sum(gradient * direction))

        def too_far(length):
            moved = jax.nn.softmax(logits + length * change)
            slope = jnp.sum(weights * (moved - targets) * change)
            return slope + jnp.sum(ridge * (solution + length * direction) * direction) > allowed

        def unfinished(carry):
            count, length = carry
            return (count < _HALVINGS) & too_far(length)

        return jax.lax.while_loop(unfinished, lambda carry: (carry[0] + 1, carry[1] / 2), (0, jnp.float32(1)))[1]

    def square_at(gradient, logits):
        return jnp.sum(gradient**2 / diagonal_at(jax.nn.softmax(logits)))

    def unfinished(carry):
        count, _, _, _, square = carry
        return (count < _NEWTON_STEPS) & (square > goal)

    def advance(carry):
        count, solution, logits, gradient, _ = carry
        direction = direction_at(gradient, jax.nn.softmax(logits))
        change = forward(direction)
        length = step_length(solution, logits, gradient, direction, change)
        solution = solution + length * direction
        logits = logits + length * change
        gradient = gradient_at(solution, logits)
        return count + 1, solution, logits, gradient, square_at(gradient, logits)

    logits = forward(solution)
    gradient = gradient_at(solution, logits)
    start = (0, solution, logits, gradient, square_at(gradient, logits))
    _, solution, _, _, square = jax.lax.while_loop(unfinished, advance, start)
    return solution, jnp.sqrt(square / total)
