import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import schedules
from ssl_jax.types import UsageError


def follow(schedule, steps):
    """A schedule at steps that are traced, as a training's are."""
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.asarray(steps, jnp.int32)))


@pytest.mark.parametrize(("start", "end"), [(0.2, 2e-3), (0.9, 0.99), (0.0, 0.55), (1.0, 1.0)])
def test_cosine_at_its_landmarks_and_beyond(start, end):
    found = follow(schedules.Cosine(start, end, steps=1000), [0, 250, 500, 750, 1000, 1001, 10**9])
    share = np.array([1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4, 0, 0, 0])
    np.testing.assert_allclose(found, end + (start - end) * share, rtol=1e-6, atol=1e-7)
    assert (found[4:] == np.float32(end)).all()


def test_cosine_is_flat_at_both_ends_and_never_turns():
    fall = -np.diff(follow(schedules.Cosine(1.0, 0.0, steps=100), np.arange(101)))
    assert (fall >= 0).all()
    assert fall[0] < 0.02 * fall[50] and fall[-1] < 0.02 * fall[50]


def test_linear_holds_then_moves_then_stays():
    found = follow(schedules.Linear(2.0, -1.0, steps=40, hold_steps=10), [0, 9, 10, 20, 25, 30, 40, 41, 10**9])
    np.testing.assert_allclose(found, [2, 2, 2, 1, 0.5, 0, -1, -1, -1], atol=1e-6)
    found = follow(schedules.Linear(0.0, 0.55, steps=11), [0, 1, 5, 10, 11, 12])
    np.testing.assert_allclose(found, [0, 0.05, 0.25, 0.5, 0.55, 0.55], rtol=1e-6)


@pytest.mark.parametrize("value", [schedules.Cosine(0.3, 0.1, 7), schedules.Linear(0.3, 0.1, 7, 2), 0.25, 1])
def test_constants_and_schedules_are_float32_scalars_at_any_kind_of_step(value):
    kinds = (3, np.int32(3), jnp.int32(3), jnp.float32(3))
    found = [schedules.at(value, step) for step in kinds]
    found.append(jax.jit(lambda step: schedules.at(value, step))(3))
    for each in found:
        assert (each.shape, each.dtype) == ((), jnp.float32)
        # A compiled division may differ in the last bit.
        np.testing.assert_allclose(each, found[0], rtol=1e-6)


def test_a_constant_is_itself():
    assert schedules.at(0.25, 0) == 0.25
    assert schedules.at(0.25, 10**6) == 0.25


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: schedules.Cosine(1.0, 0.0, 0), r"steps=0: a schedule takes at least 1 step"),
        (lambda: schedules.Linear(1.0, 0.0, 0), r"steps=0: a schedule takes at least 1 step"),
        (lambda: schedules.Linear(1.0, 0.0, 10, 10), r"hold_steps=10: .*at least 0 and below steps=10"),
        (lambda: schedules.Linear(1.0, 0.0, 10, -1), r"hold_steps=-1: .*at least 0 and below steps=10"),
    ],
)
def test_impossible_schedules_are_refused(make, words):
    with pytest.raises(UsageError, match=words):
        make()


def test_equal_schedules_are_one_key():
    # What is compiled for a method is kept under its values.
    assert hash(schedules.Cosine(1.0, 0.0, 5)) == hash(schedules.Cosine(1.0, 0.0, 5))
    assert schedules.Linear(1.0, 0.0, 5) == schedules.Linear(1.0, 0.0, 5, 0) != schedules.Linear(1.0, 0.0, 6)


def test_epochwise_linear_is_the_references_and_ends_short_of_zero():
    """networks.get_scheduler's lambda_rule with epoch_count 1, its scheduler stepping at the end of each epoch."""
    schedule = schedules.EpochwiseLinear(2e-4, hold_steps=100 * 7, decay_steps=100 * 7, epoch_steps=7)
    for epoch in range(1, 201):
        rule = 1.0 - max(0, epoch - 100) / float(100 + 1)
        for step in (7 * (epoch - 1), 7 * epoch - 1):
            assert float(schedule(step)) == pytest.approx(2e-4 * rule, rel=1e-5)
    assert float(schedule(7 * 200 - 1)) == pytest.approx(2e-4 / 101, rel=1e-4)
    assert float(schedules.EpochwiseLinear(1.0, 5, 0, 10)(100)) == 1.0
    uneven = schedules.EpochwiseLinear(1.0, 15, 15, 10)
    values = [float(uneven(step)) for step in (0, 14, 15, 24, 25, 29)]
    assert values == pytest.approx([1, 1, 1 - 1 / 2.5, 1 - 1 / 2.5, 1 - 1.5 / 2.5, 1 - 1.5 / 2.5])
    with pytest.raises(UsageError, match="epoch_steps=0 must be at least 1"):
        schedules.EpochwiseLinear(1.0, 5, 5, 0)
