import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from ssl_jax import types
from ssl_jax.analysis import regression

PENALTIES = (1.0, 0.0001, 0.1, 10.0, 0.01)


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    train, test = regression.standardise(images[:900], images[900:])
    return train, labels[:900], test, labels[900:]


def reference(features, labels, penalty, weights=None):
    model = LogisticRegression(C=penalty, tol=1e-8, max_iter=50_000)
    return model.fit(features.astype(np.float64), labels, sample_weight=weights)


def agrees(fitted, place, model):
    np.testing.assert_allclose(fitted.coefficients[place].T, model.coef_, atol=1e-3)
    np.testing.assert_allclose(fitted.intercepts[place], model.intercept_, atol=1e-3)


def test_equals_scikit_learn_for_every_penalty_in_the_order_given(digits):
    train, labels, test, test_labels = digits
    fitted = regression.fit(train, labels, classes=10, penalties=PENALTIES, tolerance=1e-5)
    assert fitted.coefficients.shape == (5, 64, 10)
    assert fitted.intercepts.shape == (5, 10)
    accuracies = regression.accuracy(fitted, test, test_labels)
    losses = regression.cross_entropy(fitted, test, test_labels)
    for place, penalty in enumerate(PENALTIES):
        model = reference(train, labels, penalty)
        agrees(fitted, place, model)
        logits = test @ np.asarray(fitted.coefficients[place]) + np.asarray(fitted.intercepts[place])[None]
        ours = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        np.testing.assert_allclose(ours, model.predict_proba(test.astype(np.float64)), atol=1e-3)
        assert accuracies[place] == model.score(test, test_labels)
        assert losses[place] == pytest.approx(log_loss(test_labels, model.predict_proba(test)), rel=1e-4)


def test_the_probe_s_tolerance_changes_no_accuracy(digits):
    train, labels, test, test_labels = digits
    tight, loose = (
        regression.accuracy(
            regression.fit(train, labels, classes=10, penalties=PENALTIES, tolerance=tolerance), test, test_labels
        )
        for tolerance in (1e-5, 1e-3)
    )
    np.testing.assert_allclose(tight, loose, atol=1.5 / len(test))


def test_sets_with_rows_of_their_own_equal_scikit_learn(digits):
    train, labels, test, test_labels = digits
    random = np.random.default_rng(0)
    rows = np.stack(
        [
            np.concatenate([random.choice(np.flatnonzero(labels == label), 3, replace=False) for label in range(10)])
            for _ in range(4)
        ]
    )
    fitted = regression.fit(train[rows], labels[rows], classes=10, penalties=(0.01, 1.0), tolerance=1e-5)
    assert fitted.coefficients.shape == (4, 2, 64, 10)
    accuracies = regression.accuracy(fitted, test, test_labels)
    for one in range(4):
        for place, penalty in enumerate((0.01, 1.0)):
            model = reference(train[rows[one]], labels[rows[one]], penalty)
            agrees(fitted, (one, place), model)
            assert accuracies[one, place] == model.score(test, test_labels)


def test_weights_multiply_and_leave_out(digits):
    train, labels, _, _ = digits
    weights = np.random.default_rng(1).integers(0, 3, len(labels)).astype(np.float32)
    fitted = regression.fit(train, labels, classes=10, penalties=(0.1,), weights=weights, tolerance=1e-5)
    agrees(fitted, 0, reference(train, labels, 0.1, weights))
    poisoned = np.where(weights[:, None] > 0, train, np.nan)
    again = regression.fit(poisoned, labels, classes=10, penalties=(0.1,), weights=weights, tolerance=1e-5)
    np.testing.assert_allclose(again.coefficients, fitted.coefficients, atol=1e-5)


def test_more_features_than_rows_equal_scikit_learn():
    random = np.random.default_rng(2)
    features, labels = random.normal(size=(20, 150)).astype(np.float32), np.arange(20) % 4
    fitted = regression.fit(features, labels, classes=4, penalties=(0.01, 1.0), tolerance=1e-5)
    for place, penalty in enumerate((0.01, 1.0)):
        agrees(fitted, place, reference(features, labels, penalty))


def test_a_start_changes_the_road_and_not_the_end(digits):
    train, labels, _, _ = digits
    cold = regression.fit(train, labels, classes=10, penalties=(0.1,), tolerance=1e-5)
    random = np.random.default_rng(3)
    far = regression.Regression(random.normal(size=(64, 10)).astype(np.float32) * 3, np.full(10, 5.0, np.float32))
    warm = regression.fit(train, labels, classes=10, penalties=(0.1,), start=far, tolerance=1e-5)
    np.testing.assert_allclose(warm.coefficients, cold.coefficients, atol=1e-4)
    np.testing.assert_allclose(warm.intercepts, cold.intercepts, atol=1e-4)


def test_rotation_changes_no_prediction(digits):
    train, labels, test, _ = digits
    straight = regression.fit(train, labels, classes=10, penalties=(0.1,), tolerance=1e-5)
    turned_train, turned_test = regression.rotate(train, test)
    scatter = turned_train.T @ turned_train
    np.testing.assert_allclose(scatter, np.diag(np.diag(scatter)), atol=1e-5 * scatter.max())
    turned = regression.fit(turned_train, labels, classes=10, penalties=(0.1,), tolerance=1e-5)
    assert not np.allclose(turned.coefficients, straight.coefficients, atol=0.01)
    np.testing.assert_allclose(
        turned_test @ np.asarray(turned.coefficients[0]), test @ np.asarray(straight.coefficients[0]), atol=1e-3
    )


def test_standardise_uses_the_first_array_alone_and_leaves_constant_columns_finite():
    random = np.random.default_rng(4)
    train, other = random.normal(3, 5, (50, 3)), random.normal(size=(8, 3))
    train[:, 1] = 1e4 + 1e-4 * np.arange(50) % 2
    ours, theirs = regression.standardise(train, other)
    np.testing.assert_allclose(ours[:, [0, 2]].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(ours[:, [0, 2]].std(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(
        theirs[:, 0], (other[:, 0] - train[:, 0].mean()) / train[:, 0].std(), rtol=1e-4, atol=1e-5
    )
    assert np.abs(ours[:, 1]).max() < 1e-2


def test_features_that_are_not_finite_are_an_error():
    features = np.random.default_rng(5).normal(size=(30, 4))
    features[3, 2] = np.nan
    with pytest.raises(types.RunError, match="C=1 gave numbers that are not finite"):
        regression.fit(features, np.arange(30) % 3, classes=3, penalties=(1.0,))


def test_a_problem_that_is_not_solved_is_returned_and_says_so(digits):
    train, labels, _, _ = digits
    # No float32 gradient is this small, so the steps run out; the answer is as good as float32 makes it.
    fitted = regression.fit(train[:60], labels[:60], classes=10, penalties=(0.1,), tolerance=1e-12)
    assert not fitted.converged[0]
    agrees(fitted, 0, reference(train[:60], labels[:60], 0.1))
    assert regression.fit(train[:60], labels[:60], classes=10, penalties=(0.1, 1.0)).converged.tolist() == [True, True]


@pytest.mark.parametrize("penalties", [(), (1.0, 0.0), (-1.0,)])
def test_penalties_out_of_range_are_refused(penalties):
    with pytest.raises(types.UsageError, match="above 0"):
        regression.fit(np.eye(4), np.arange(4), classes=4, penalties=penalties)
