import math

import numpy as np
import pytest
from scipy import stats

from ssl_jax import types
from ssl_jax.data import points
from ssl_jax.evaluators import modes

MIXTURE = points.Mixture()


class Sample:
    """An export that answers with given points, and remembers what it was asked."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def __call__(self, state, tickets, preprocess):
        self.asked.append(preprocess(tickets))
        return self.answer


def report(answer, mixture=MIXTURE, **arguments):
    sample = Sample(np.asarray(answer, np.float32))
    return modes.Modes(mixture, samples=len(answer), **arguments)({"sample": sample}, None, None), sample


def of_modes(*counts, mixture=MIXTURE):
    """As many points at each mean as `counts` say, exactly on it."""
    return np.repeat(mixture.means[: len(counts)], counts, axis=0)


def red(picture):
    """Rows and columns of the samples' pixels."""
    return np.nonzero((picture == (200, 40, 40)).all(axis=2))


@pytest.mark.parametrize("mixture", [MIXTURE, points.Mixture("ring", deviation=0.02)])
def test_the_mixture_itself_is_found_whole(mixture):
    found, sample = report(mixture.draw(seed=5, count=20_000)[0], mixture, seed=3)
    assert found.scalars["modes"] == len(mixture.means)
    assert found.scalars["near"] == pytest.approx(1 - math.exp(-4.5), abs=0.003)
    assert 0 <= found.scalars["divergence"] < 1e-3
    assert found.alarms == ()
    (tickets,) = sample.asked
    assert tickets.dtype == np.int32
    np.testing.assert_array_equal(tickets, np.stack([np.full(20_000, 3), np.arange(20_000)], axis=1))


def test_one_mode_is_one_mode():
    drawn, labels = MIXTURE.draw(0, 25 * 2000)
    found, _ = report(drawn[labels == 7])
    assert found.scalars["modes"] == 1
    assert found.scalars["near"] == pytest.approx(1 - math.exp(-4.5), abs=0.008)
    assert found.scalars["divergence"] == pytest.approx(math.log(25))


def test_a_mode_counts_from_a_tenth_of_its_fair_share():
    shares = (250, 10, 9, 240)
    points_of_24 = of_modes(*shares, *[100] * 18, 191)
    assert len(points_of_24) == 2500
    found, _ = report(points_of_24)
    # 2,500 samples of 25 modes: a tenth of the fair share is 10.
    assert found.scalars["modes"] == 22
    assert found.scalars["near"] == 1
    counts = np.bincount(np.repeat(np.arange(23), (*shares, *[100] * 18, 191)), minlength=25)
    assert found.scalars["divergence"] == pytest.approx(stats.entropy(counts, np.full(25, 100)), rel=1e-6)


def test_points_count_as_near_up_to_three_deviations():
    offsets = np.zeros((250, 2))
    offsets[:100, 0] = 0.1499
    offsets[100:150, 1] = 0.1501
    found, _ = report(of_modes(*[10] * 25) + offsets)
    assert found.scalars["near"] == pytest.approx(0.8)
    # The modes whose points all lie beyond are not found.
    assert found.scalars["modes"] == 20
    assert found.scalars["divergence"] == pytest.approx(math.log(25 / 20))


@pytest.mark.parametrize("place", [100.0, -1e6, 1e30, np.inf, np.nan])
def test_points_far_away_are_nowhere_and_give_no_nan(place):
    found, _ = report(np.full((250, 2), place))
    assert found.scalars == {"modes": 0, "near": 0.0}
    assert len(red(found.images["samples"])[0]) == 0


def test_some_points_astray_do_not_hide_the_others():
    astray = of_modes(*[10] * 25)
    astray[::10] = 1e30
    found, _ = report(astray)
    assert found.scalars["near"] == pytest.approx(0.9)
    assert found.scalars["divergence"] == pytest.approx(0, abs=1e-6)
    assert found.scalars["modes"] == 25


@pytest.mark.parametrize(("right", "up"), [(4, 4), (-4, 4), (0, 0), (4, -4)])
def test_the_picture_shows_where_the_samples_lie(right, up):
    found, _ = report(np.full((250, 2), (right, up)))
    picture = found.images["samples"]
    assert (picture.dtype, picture.shape) == (np.uint8, (320, 320, 3))
    rows, columns = red(picture)
    assert len(rows) == 4
    # It reaches a quarter beyond the outermost means, 5 on the grid.
    assert columns.mean() == pytest.approx(160 + 32 * right, abs=2)
    assert rows.mean() == pytest.approx(160 - 32 * up, abs=2)
    assert (picture == 190).all(axis=2).sum() > 25 * 4


def test_bad_arguments_are_refused():
    with pytest.raises(types.UsageError, match=r"samples=249, but it takes at least 250"):
        modes.Modes(MIXTURE, samples=249)
    with pytest.raises(types.UsageError, match=r"makes samples of \(8, 8, 1\), not points"):
        report(np.zeros((250, 8, 8, 1)))
