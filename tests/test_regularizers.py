"""Gradient penalties against closed forms and finite differences; PyTorch's are in methods/test_gan_parity.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import schedules
from ssl_jax.regularizers import GradientPenalty, squared_slopes
from ssl_jax.types import UsageError

KEY = jax.random.key(0)
SHAPE = (4, 3, 3, 2)


def images(number, shape=SHAPE):
    return jax.random.normal(jax.random.fold_in(KEY, number), shape)


REAL, FAKE, WEIGHT = images(1), images(2), images(3, (1, *SHAPE[1:]))


def linear(groups):
    return [(WEIGHT * group).sum(axis=(1, 2, 3)) for group in groups]


def quadratic(groups):
    """Half the squared norm, whose slope is the image itself."""
    return [0.5 * (group**2).sum(axis=(1, 2, 3)) for group in groups]


def squared_norm(values):
    return np.square(np.asarray(values)).reshape(len(values), -1).sum(axis=1)


def test_slopes_of_a_linear_and_a_quadratic_function():
    for group, slope in zip((REAL, FAKE), squared_slopes(linear, [REAL, FAKE]), strict=True):
        assert slope.shape == (4,)
        np.testing.assert_allclose(slope, squared_norm(WEIGHT)[0], rtol=1e-6)
        np.testing.assert_allclose(squared_slopes(quadratic, [group])[0], squared_norm(group), rtol=1e-6)


def test_slopes_are_those_of_finite_differences():
    with jax.enable_x64(True):
        points = np.random.default_rng(0).normal(size=(3, 5))
        weight = np.random.default_rng(1).normal(size=(5, 6))

        def judge(groups):
            return [jnp.sum(jnp.tanh(group @ weight) ** 2, axis=1) for group in groups]

        moves, step = np.eye(5), 1e-6
        differences = [
            (judge([points + step * move.reshape(1, 5)])[0] - judge([points - step * move.reshape(1, 5)])[0]) / step / 2
            for move in moves
        ]
        (found,) = squared_slopes(judge, [points])
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, np.square(differences).sum(axis=0), rtol=1e-7)


def test_r1_and_r2_are_half_the_squared_slope_at_real_and_generated_images():
    def penalty(**weights):
        return GradientPenalty(**weights)(quadratic, REAL, FAKE, KEY, 0)

    np.testing.assert_allclose(penalty(r1=3.0), 1.5 * squared_norm(REAL), rtol=1e-6)
    np.testing.assert_allclose(penalty(r2=5.0), 2.5 * squared_norm(FAKE), rtol=1e-6)
    both = penalty(r1=3.0, r2=5.0)
    np.testing.assert_allclose(both, 1.5 * squared_norm(REAL) + 2.5 * squared_norm(FAKE), rtol=1e-6)
    assert both.shape == (4,) and both.dtype == jnp.float32
    # How often it comes is the caller's.
    np.testing.assert_array_equal(penalty(r1=3.0, every=16), penalty(r1=3.0))


def test_weights_go_by_the_step():
    penalty = GradientPenalty(r1=schedules.Linear(4.0, 0.0, 10), r2=schedules.Linear(0.0, 2.0, 10))
    for step, r1, r2 in ((0, 4.0, 0.0), (5, 2.0, 1.0), (20, 0.0, 2.0)):
        wanted = r1 / 2 * squared_norm(REAL) + r2 / 2 * squared_norm(FAKE)
        np.testing.assert_allclose(penalty(quadratic, REAL, FAKE, KEY, jnp.int32(step)), wanted, rtol=1e-6)


def test_points_between_lie_on_the_line_one_share_an_image():
    """The slope of half the squared norm is the point itself, so that its norm tells where the point lies."""
    real, fake = jnp.zeros((500, 2)).at[:, 0].set(2.0), jnp.zeros((500, 2)).at[:, 1].set(0.5)
    penalty = GradientPenalty(interpolated=2.0)

    def judge(groups):
        return [0.5 * (group**2).sum(axis=1) for group in groups]

    found = np.asarray(penalty(judge, real, fake, KEY, 0))
    share = np.asarray(jax.random.uniform(KEY, (500, 1)))[:, 0]
    norm = np.hypot(2 * share, 0.5 * (1 - share))
    assert (norm < 0.9).any() and (norm > 1.1).any()
    np.testing.assert_allclose(found, 2 * (norm - 1) ** 2, rtol=1e-4, atol=1e-6)
    assert share.min() < 0.02 and share.max() > 0.98
    assert (found != np.asarray(penalty(judge, real, fake, jax.random.key(1), 0))).mean() > 0.99


def test_a_slope_of_zero_has_a_finite_gradient():
    def value(scale):
        def judge(groups):
            return [scale * group.sum(axis=(1, 2, 3)) for group in groups]

        return GradientPenalty(interpolated=10.0)(judge, REAL, FAKE, KEY, 0).mean()

    at_zero, gradient = jax.value_and_grad(value)(0.0)
    np.testing.assert_allclose(at_zero, 10.0, rtol=1e-6)
    assert np.isfinite(gradient)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing is penalised: set r1, r2 or interpolated"),
        ({"r1": -1.0}, "are weights: give numbers of at least 0"),
        ({"r1": 1.0, "interpolated": -0.1}, "are weights"),
        ({"r1": schedules.Linear(1.0, 0.0, 5), "r2": -1.0}, "are weights"),
        ({"r2": 1.0, "every": 0}, "every=0: a penalty comes every 1 update or more"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        GradientPenalty(**arguments)
