import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import metrics, types
from ssl_jax.analysis import spectrum

# Of both longer sides and of either layout of the Gram matrix.
SHAPES = pytest.mark.parametrize("shape", [(90, 20), (20, 90), (30, 30)], ids=["tall", "wide", "square"])


def gaussian(shape, seed=0, shift=0.0):
    return (np.random.default_rng(seed).normal(size=shape) + shift).astype(np.float32)


def of_values(values, rows=300, seed=0, *, centred=True):
    """Features float64 [rows, len(values)] of exactly these singular values, and of mean 0 where `centred`."""
    random = np.random.default_rng(seed)
    left = random.normal(size=(rows, len(values)))
    left = np.linalg.qr(left - left.mean(axis=0) if centred else left)[0]
    right = np.linalg.qr(random.normal(size=(len(values), len(values))))[0]
    return (left * values) @ right


@SHAPES
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("at_once", [None, 100, 1])
def test_singular_values_equal_numpys(shape, centred, at_once, monkeypatch):
    if at_once:
        monkeypatch.setattr(spectrum, "_AT_ONCE", at_once)
    features = gaussian(shape, shift=3.0)
    values = spectrum.singular_values(features, centred=centred)
    exact = features.astype(np.float64)
    reference = np.linalg.svd(exact - exact.mean(axis=0) if centred else exact, compute_uv=False)
    assert values.dtype == np.float64 and values.shape == (min(shape),)
    np.testing.assert_allclose(values, reference, rtol=1e-9, atol=1e-6)


def test_small_values_are_kept_to_the_stated_accuracy():
    features = (of_values(np.logspace(0, -5, 40)) * 100).astype(np.float32)
    reference = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(spectrum.singular_values(features, centred=False), reference, rtol=1e-5)
    in_float32 = np.linalg.eigvalsh(features.T @ features)[::-1]
    assert np.any(np.abs(in_float32[-8:] / reference[-8:] ** 2 - 1) > 0.5), "float32 would have done"


@SHAPES
@pytest.mark.parametrize("centred", [False, True])
def test_values_beyond_the_rank_are_zeros_though_features_are_rounded(shape, centred):
    low = (gaussian((shape[0], 4)) @ gaussian((4, shape[1]), seed=1)).astype(np.float32)
    values = spectrum.singular_values(low, centred=centred)
    assert np.all(values[:4] > 0.1 * values[0]) and np.all(values[4:] == 0)
    assert np.linalg.svd(low.astype(np.float64), compute_uv=False)[4] > 0
    assert spectrum.condition_number(values) == np.inf


@pytest.mark.parametrize("count", [1, 8, 512])
def test_equal_values_fill_all_directions(count):
    values = np.full(count, 3.0)
    # 1e-7 added to each share, to first order.
    assert spectrum.rank_me(values) == pytest.approx(count * (1 + 1e-7 * count * (np.log(count) - 1)), rel=1e-6)
    assert spectrum.collapse_auc(values) == pytest.approx((count + 1) / (2 * count))
    assert spectrum.nesum(values) == spectrum.stable_rank(values) == count
    assert spectrum.condition_number(values) == 1.0
    assert spectrum.alpha_req(values) == pytest.approx(0.0 if count > 1 else np.inf, abs=1e-12)


def test_one_direction_is_collapse():
    values = np.array([2.0] + [0.0] * 63)
    assert spectrum.rank_me(values) == pytest.approx(1.0, abs=2e-4)
    assert spectrum.collapse_auc(values) == pytest.approx(1.0)
    assert spectrum.nesum(values) == spectrum.stable_rank(values) == 1.0
    assert spectrum.condition_number(values) == spectrum.alpha_req(values) == np.inf


def test_no_direction_has_defined_values():
    values = np.zeros(16)
    assert (spectrum.rank_me(values), spectrum.nesum(values), spectrum.stable_rank(values)) == (0.0, 0.0, 0.0)
    assert spectrum.collapse_auc(values) == 1.0
    assert spectrum.condition_number(values) == spectrum.alpha_req(values) == np.inf


def test_formulas_of_a_spectrum_by_hand():
    values = np.array([4.0, 2.0, 1.0, 1.0])
    shares = np.array([1 / 2, 1 / 4, 1 / 8, 1 / 8])
    assert spectrum.rank_me(values) == pytest.approx(2**1.75, rel=1e-5)
    assert -np.sum(shares * np.log2(shares)) == 1.75
    assert spectrum.collapse_auc(values) == pytest.approx((4 / 8 + 6 / 8 + 7 / 8 + 1) / 4)
    assert spectrum.nesum(values) == pytest.approx((16 + 4 + 1 + 1) / 16)
    assert spectrum.condition_number(values) == 4.0


@pytest.mark.parametrize("count", [2, 3, 5, 12, 23, 24, 60, 150])
@pytest.mark.parametrize("power", [0.4, 1.0, 2.5])
def test_the_power_of_a_power_law_is_found(count, power):
    eigenvalues = 7.0 * np.arange(1, count + 1.0) ** -power
    assert spectrum.alpha_req(np.sqrt(eigenvalues)) == pytest.approx(power, abs=1e-9)
    # Zeros behind, as of features of low rank, change nothing.
    assert spectrum.alpha_req(np.sqrt(np.append(eigenvalues, np.zeros(9)))) == pytest.approx(power, abs=1e-9)


def test_the_power_is_that_of_the_weighted_line_from_the_12th_to_the_100th():
    random = np.random.default_rng(0)
    values = np.sort(random.exponential(size=200))[::-1]
    places = np.arange(12, 101)
    slope = np.polyfit(np.log(places), np.log(values[11:100] ** 2), 1, w=places**-0.5)[0]
    assert spectrum.alpha_req(values) == pytest.approx(-slope)
    values[:11] *= 5
    values[100:] *= 0.1
    assert spectrum.alpha_req(values) == pytest.approx(-slope)


def test_measures_find_a_power_law_in_rotated_features():
    features = of_values(np.arange(1, 65.0) ** -0.5, rows=500).astype(np.float32)
    found = spectrum.measures(features)
    assert found["alpha_req"] == pytest.approx(1.0, abs=1e-4)
    assert found["condition_number"] == pytest.approx(8.0, rel=1e-4)
    expected = np.sum(1 / np.arange(1, 65.0))
    assert found["nesum"] == pytest.approx(expected, rel=1e-4) and found["stable_rank"] == pytest.approx(
        expected, rel=1e-4
    )


def test_measures_take_each_the_spectrum_of_their_source():
    features = gaussian((400, 12), shift=5.0)
    exact = features.astype(np.float64)
    raw, around_mean = (np.linalg.svd(side, compute_uv=False) for side in (exact, exact - exact.mean(axis=0)))
    found = spectrum.measures(features)
    for name, values in (
        ("rank_me", raw),
        ("stable_rank", raw),
        ("condition_number", raw),
        ("alpha_req", around_mean),
        ("collapse_auc", around_mean),
        ("nesum", around_mean),
    ):
        assert found[name] == pytest.approx(getattr(spectrum, name)(values), rel=1e-6), name
    # The two are one number for one spectrum; what lies between them is the mean.
    assert found["stable_rank"] < 1.1 and found["nesum"] > 8


def test_isotropic_features_are_healthy():
    found = spectrum.measures(gaussian((4000, 16)))
    assert found["rank_me"] == pytest.approx(16, rel=0.01)
    assert found["collapse_auc"] == pytest.approx(17 / 32, abs=0.02)
    assert found["alpha_req"] < 0.2 and found["condition_number"] < 1.3
    assert found["deviation"] == pytest.approx(1.0, abs=0.01)
    assert found["dead_channels"] == 0 and found["width"] == 16


@pytest.mark.parametrize("at_once", [None, 40])
@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_deviation_is_that_of_the_training_gauge(at_once, shift, monkeypatch):
    if at_once:
        monkeypatch.setattr(spectrum, "_AT_ONCE", at_once)
    features = gaussian((70, 9), shift=shift)
    features[3] = 0
    expected = float(metrics.output_deviation(jnp.asarray(features))) * 3
    assert spectrum.measures(features)["deviation"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("value", "jitter"), [(0.0, False), (0.1, False), (0.1, True), (3e7, True)])
@pytest.mark.parametrize("shape", [(37, 5), (5, 37)], ids=["tall", "wide"])
def test_features_that_do_not_vary_but_by_rounding(value, jitter, shape):
    features = np.full(shape, value, np.float32) * np.arange(1, shape[1] + 1, dtype=np.float32)
    if jitter:
        features = np.where(gaussian(shape) > 0, np.nextafter(features, np.float32(np.inf)), features)
    assert not spectrum.singular_values(features, centred=True).any()
    found = spectrum.measures(features)
    assert found["deviation"] == pytest.approx(0.0, abs=1e-6) and found["dead_channels"] == shape[1]
    assert found["collapse_auc"] == 1.0 and found["nesum"] == 0.0 and found["alpha_req"] == np.inf
    assert found["rank_me"] == pytest.approx(1.0 if value else 0.0, abs=1e-4)
    assert found["stable_rank"] == pytest.approx(1.0 if value else 0.0)
    assert found["condition_number"] == np.inf


def test_a_single_row_has_one_direction():
    found = spectrum.measures(gaussian((1, 6)))
    assert found["rank_me"] == pytest.approx(1.0, abs=1e-5) and found["stable_rank"] == 1.0
    assert found["nesum"] == 0.0 and found["deviation"] == 0.0 and found["dead_channels"] == 6


def test_dead_channels_are_those_constant_to_rounding():
    features = gaussian((50, 6))
    features[:, 1] = 0
    features[:, 3] = 0.1
    features[::2, 4] = np.nextafter(np.float32(7), np.float32(8))
    features[1::2, 4] = 7
    features[:, 5] = 0
    features[17, 5] = -1e-20
    assert spectrum.measures(features)["dead_channels"] == 3
    assert isinstance(spectrum.measures(features)["dead_channels"], int)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((4, 3, 2)), r"shape \(4, 3, 2\)"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        (np.array([[1.0, np.nan]]), "diverged"),
        (np.array([[np.inf, 1.0]]), "diverged"),
    ],
)
def test_other_features_are_refused_in_one_line(features, message):
    for refusing in (spectrum.measures, lambda wrong: spectrum.singular_values(wrong, centred=True)):
        with pytest.raises(types.UsageError, match=message) as refusal:
            refusing(features)
        assert "\n" not in str(refusal.value)


def test_features_on_a_device_will_do():
    features = gaussian((30, 4))
    assert spectrum.measures(jnp.asarray(features)) == spectrum.measures(features)
