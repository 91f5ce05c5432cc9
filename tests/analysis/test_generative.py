"""The metrics of generated images: closed forms, refusals, and torch-fidelity's answers to the same features."""

import importlib
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as reference

from ssl_jax import types
from ssl_jax.analysis import generative, manifold

REASON = "needs the parity extra: make test PARITY=1"


@pytest.fixture(scope="module")
def fidelity():
    """torch-fidelity's module of a metric, also beside a torchvision whose compiled operators do not fit PyTorch."""
    torch = pytest.importorskip("torch", reason=REASON)
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    register = torch.library.register_fake

    def register_others(name, *arguments, **options):
        if isinstance(name, str) and name.startswith("torchvision::"):
            return lambda function: function
        return register(name, *arguments, **options)

    torch.library.register_fake = register_others
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pytest.importorskip("torchvision", reason=REASON)
            pytest.importorskip("torch_fidelity", reason=REASON)
    finally:
        torch.library.register_fake = register
    yield lambda metric: importlib.import_module(f"torch_fidelity.metric_{metric}")
    del library


def features(count, width=24, seed=0, shift=0.0):
    """float32 [n, d], correlated, far from 0 and of many scales, as a network's features are."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width)) * np.geomspace(0.05, 1, width)
    return (random.normal(size=(count, width)) @ mixing + 3 + shift).astype(np.float32)


def moments(array):
    return generative.Moments.empty(array.shape[1]).updated(array)


@pytest.mark.parametrize(("counts", "width"), [((600, 500), 24), ((40, 30), 64)])
def test_frechet_distance_equals_torch_fidelity(fidelity, counts, width):
    import torch

    first, second = features(counts[0], width), features(counts[1], width, seed=1, shift=0.2)
    module = fidelity("fid")
    statistics = [module.fid_features_to_statistics(torch.from_numpy(side)) for side in (first, second)]
    expected = module.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    found = generative.frechet_distance(moments(first), moments(second))
    assert found == pytest.approx(expected, rel=1e-4)
    assert found > 1


# torch-fidelity computes in the features' type, we in float64.
@pytest.mark.parametrize(("kind", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-4)])
def test_kernel_distance_equals_torch_fidelity(fidelity, kind, tolerance):
    import torch

    first, second = features(500).astype(kind), features(300, seed=1, shift=0.2).astype(kind)
    options = {"kid_subsets": 10, "kid_subset_size": 200, "verbose": False}
    expected = fidelity("kid").kid_features_to_metric(torch.from_numpy(first), torch.from_numpy(second), **options)
    found = generative.kernel_distance(first, second, subsets=10, subset_size=200)
    names = ("kernel_inception_distance_mean", "kernel_inception_distance_std")
    np.testing.assert_allclose(found, [expected[name] for name in names], rtol=tolerance)
    assert min(found) > 0


@pytest.mark.parametrize(("count", "splits"), [(500, 10), (503, 10), (97, 1)])
def test_inception_score_equals_torch_fidelity(fidelity, count, splits):
    import torch

    logits = 3 * features(count, 30, seed=2)
    expected = fidelity("isc").isc_features_to_metric(torch.from_numpy(logits), splits)
    found = generative.inception_score(logits, splits=splits)
    names = ("inception_score_mean", "inception_score_std")
    np.testing.assert_allclose(found, [expected[name] for name in names], rtol=1e-9)
    assert found[0] > 2


@pytest.mark.parametrize("neighbours", [1, 3, 7])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("save_memory", [False, True])
def test_precision_and_recall_equal_torch_fidelity(fidelity, neighbours, kind, save_memory):
    import torch

    real, fake = features(400).astype(kind), features(300, seed=1, shift=0.7).astype(kind)
    # torch-fidelity's first set is the generated one.
    expected = fidelity("prc").prc_features_to_metric(
        torch.from_numpy(fake),
        torch.from_numpy(real),
        prc_neighborhood=neighbours,
        prc_batch_size=130,
        save_cpu_ram=save_memory,
        verbose=False,
    )
    found = manifold.precision_recall(real, fake, neighbours=neighbours)
    np.testing.assert_allclose(found, [expected["precision"], expected["recall"]], rtol=1e-6)
    assert all(0.1 < share < 0.95 for share in found) and abs(found[0] - found[1]) > 0.02


def test_moments_of_ragged_batches_are_those_of_all_at_once():
    array = features(301) + 1000  # far from 0, where sums of squares would cancel
    streamed = generative.Moments.empty(24)
    for first, last in [(0, 1), (1, 1), (1, 130), (130, 299), (299, 301)]:
        streamed = streamed.updated(jnp.asarray(array[first:last]))
    exact = array.astype(np.float64)
    assert streamed.count == 301 and streamed.mean.dtype == streamed.scatter.dtype == np.float64
    np.testing.assert_allclose(streamed.mean, exact.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(streamed.covariance(), np.cov(exact, rowvar=False), rtol=1e-10, atol=1e-12)
    merged = moments(array[:100]).merged(moments(array[100:]))
    np.testing.assert_allclose(merged.covariance(), streamed.covariance(), rtol=1e-10, atol=1e-12)
    nothing = generative.Moments.empty(24)
    assert nothing.merged(nothing).count == 0
    np.testing.assert_array_equal(nothing.merged(streamed).scatter, streamed.scatter)


def gaussian(mean, covariance, count=11):
    return generative.Moments(count, np.array(mean, float), np.array(covariance, float) * (count - 1))


def test_frechet_distance_of_gaussians_in_closed_form():
    # Covariances that commute: |m1 - m2|^2 + sum (s1 - s2)^2, whatever the counts.
    first, second = gaussian([0, 1, 2], np.diag([4, 9, 0])), gaussian([1, 1, 0], np.diag([1, 25, 16]), count=90)
    assert generative.frechet_distance(first, second) == pytest.approx(5 + 1 + 4 + 16, rel=1e-12)
    # Two dimensions that do not: tr (S1 S2)^(1/2) is the root of tr(S1 S2) + 2 det(S1 S2)^(1/2).
    left, right = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[5.0, -2.0], [-2.0, 1.0]])
    shared = np.sqrt(np.trace(left @ right) + 2 * np.sqrt(np.linalg.det(left @ right)))
    expected = np.trace(left + right) - 2 * shared
    assert generative.frechet_distance(gaussian([7, 7], left), gaussian([7, 7], right)) == pytest.approx(expected)


@pytest.mark.parametrize("count", [2, 20, 500])
def test_frechet_distance_of_equal_sets_is_nothing_and_symmetric_of_others(count):
    first, second = moments(features(count, 48)), moments(features(count, 48, seed=1))
    whole = np.trace(first.covariance())
    assert 0 <= generative.frechet_distance(first, first) < 1e-12 * whole
    found = generative.frechet_distance(first, second)
    assert found > 1e-4 * whole
    assert generative.frechet_distance(second, first) == pytest.approx(found, rel=1e-10)


def test_frechet_distance_of_few_features_does_not_depend_on_the_order():
    few, many = moments(features(5, 48)), moments(features(20, 48, seed=1))
    found = generative.frechet_distance(few, many)
    # By the definition: the roots of the eigenvalues of S1 S2, of which 4 are not zero.
    values = np.sort(np.linalg.eigvals(few.covariance() @ many.covariance()).real)[-4:]
    expected = np.sum((few.mean - many.mean) ** 2) + np.trace(few.covariance() + many.covariance())
    assert found == pytest.approx(expected - 2 * np.sqrt(values).sum(), rel=1e-9)
    assert generative.frechet_distance(many, few) == found


def test_frechet_distance_from_a_collapsed_set():
    spread = gaussian([0, 0], np.diag([4, 9]))
    collapsed = moments(np.full((50, 2), 0.1, np.float32))
    assert generative.frechet_distance(spread, collapsed) == pytest.approx(13 + 0.02, rel=1e-6)
    assert generative.frechet_distance(collapsed, collapsed) == 0.0
    # Three images over and over, on the side of more features: most eigenvalues are zeros that rounding makes negative.
    real, modes = moments(features(400, 48)), moments(np.tile(features(3, 48, seed=1), (200, 1)))
    values, axes = np.linalg.eigh(modes.covariance())
    root = axes[:, -2:] * np.sqrt(values[-2:])
    shared = np.sqrt(np.linalg.eigvalsh(root.T @ real.covariance() @ root)).sum()
    expected = np.sum((real.mean - modes.mean) ** 2) + np.trace(real.covariance() + modes.covariance()) - 2 * shared
    assert generative.frechet_distance(real, modes) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_refuses_what_has_no_covariance_or_another_width():
    one, many = moments(features(1)), moments(features(5))
    for sides in [(one, many), (many, one)]:
        with pytest.raises(types.UsageError, match="covariance of 1 features: it needs 2 or more"):
            generative.frechet_distance(*sides)
    with pytest.raises(types.UsageError, match="features of 24 and of 8 numbers"):
        generative.frechet_distance(many, moments(features(5, 8)))
    with pytest.raises(types.UsageError, match="features of 24 and of 8 numbers"):
        many.updated(features(0, 8))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_features_of_a_diverged_network_are_refused(wrong):
    array = features(5)
    array[3, 2] = wrong
    for measure in (
        moments,
        generative.inception_score,
        lambda array: generative.kernel_distance(features(5), array, subset_size=5),
    ):
        with pytest.raises(types.UsageError, match="finite ones are needed"):
            measure(array)
    with pytest.raises(types.UsageError, match=r"features of shape \(5,\)"):
        generative.Moments.empty(5).updated(np.zeros(5))


def test_kernel_distance_of_whole_sets_by_a_loop_over_pairs():
    first, second = features(12, 4), features(12, 4, seed=1)

    def kernel(left, right):
        return (np.dot(left.astype(np.float64), right) / 4 + 1) ** 3

    def within(side):
        return np.mean([kernel(side[i], side[j]) for i in range(12) for j in range(12) if i != j])

    across = np.mean([kernel(left, right) for left in first for right in second])
    found, deviation = generative.kernel_distance(first, second, subsets=3, subset_size=12)
    assert found == pytest.approx(within(first) + within(second) - 2 * across, rel=1e-9)
    assert deviation == pytest.approx(0, abs=1e-9 * abs(found))


def test_kernel_distance_is_unbiased():
    # Two samples of one distribution: estimates lie on both sides of 0.
    found = [
        generative.kernel_distance(features(50, seed=seed), features(50, seed=seed + 100), subsets=1, subset_size=50)[0]
        for seed in range(20)
    ]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(20)
    assert min(found) < 0 < max(found)


def test_kernel_distance_says_what_to_pass_for_few_features():
    with pytest.raises(types.UsageError, match="needs 1000 of each; pass subset_size=40 or less") as refusal:
        generative.kernel_distance(features(60), features(40))
    assert "\n" not in str(refusal.value)
    with pytest.raises(types.UsageError, match="needs 1000 of each; give more images"):
        generative.kernel_distance(features(60), features(1))
    for options in ({"subsets": 0}, {"subset_size": 1}):
        with pytest.raises(types.UsageError, match="give 1 or more of 2 or more"):
            generative.kernel_distance(features(60), features(40), **options)
    with pytest.raises(types.UsageError, match="features of 24 and of 8 numbers"):
        generative.kernel_distance(features(5), features(5, 8), subset_size=5)


def test_inception_score_of_the_unsure_is_one_and_of_the_sure_and_even_the_number_of_classes():
    assert generative.inception_score(np.full((20, 7), 3.0)) == pytest.approx((1, 0), abs=1e-12)
    # Probabilities of exactly 0 for all images of a class, and a class that nobody is of.
    sure = np.eye(8, dtype=np.float32)[np.arange(70) % 7] * 1e4
    assert generative.inception_score(sure, splits=1) == pytest.approx((7, 0), abs=1e-9)
    one = np.tile(np.array([[1e4, 0, 0]]), (30, 1))
    assert generative.inception_score(one) == pytest.approx((1, 0), abs=1e-9)


def test_inception_score_refuses_more_splits_than_images():
    for splits in (0, 6):
        with pytest.raises(types.UsageError, match=f"inception score of 5 logits in {splits} splits"):
            generative.inception_score(np.zeros((5, 3)), splits=splits)


def test_separability_equals_scikit_learn():
    random = np.random.default_rng(0)
    first, second = random.integers(2, 12, (70, 2)).astype(np.float32), random.integers(0, 10, 50)  # many ties
    labels = np.repeat([1, 0], [140, 50])
    expected = reference.roc_auc_score(labels, np.concatenate([first.ravel(), second]))
    assert generative.separability(first, second) == pytest.approx(expected, rel=1e-12)
    assert generative.separability(second, first) == pytest.approx(1 - expected, rel=1e-12)
    assert 0.6 < expected < 0.9


def test_separability_at_its_ends_and_in_the_middle():
    assert generative.separability(jnp.array([2.0, 3.0]), jnp.array([1.0])) == 1.0
    assert generative.separability(np.array([-np.inf]), np.array([1.0, 2.0])) == 0.0
    assert generative.separability(np.ones(3), np.ones(5)) == 0.5
    with pytest.raises(types.UsageError, match="separability of 0 and 2 scores"):
        generative.separability(np.zeros(0), np.zeros(2))
    with pytest.raises(types.UsageError, match="not numbers"):
        generative.separability(np.array([np.nan]), np.zeros(2))
