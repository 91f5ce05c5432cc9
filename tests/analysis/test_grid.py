import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from ssl_jax import types
from ssl_jax.analysis import grid, regression

RATES, DECAYS = (0.3, 0.1), (0.001, 0.1, 1.0)


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    train, test = regression.standardise(images[:900], images[900:])
    return train, labels[:900], test, labels[900:]


@pytest.fixture(scope="module")
def subsets(digits):
    """Two subsets of different sizes without a row in common."""
    return [np.arange(100, 700), np.arange(40)]


@pytest.fixture(scope="module")
def fitted(digits, subsets):
    return fit(*digits[:2], subsets)


def fit(features, labels, rows, rates=RATES, decays=DECAYS, steps=60, batch_size=128, **more):
    settings = {"classes": 10, "learning_rates": rates, "weight_decays": decays, "steps": steps, "seed": 0} | more
    return grid.fit(features, labels, rows, batch_size=batch_size, **settings)


def objective(coefficients, intercepts, features, labels, decay):
    coefficients, intercepts = (np.asarray(array, np.float64) for array in (coefficients, intercepts))
    logits = features.astype(np.float64) @ coefficients + intercepts[None]
    losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(labels)), labels]
    return losses.mean() + decay / 2 * np.sum(coefficients**2)


def optimum(features, labels, decay):
    model = LogisticRegression(C=1 / (decay * len(labels)), tol=1e-6, max_iter=10_000)
    model.fit(features.astype(np.float64), labels)
    return objective(model.coef_.T, model.intercept_, features, labels, decay)


@pytest.mark.parametrize(
    ("rows", "batch_size", "steps"), [(np.arange(900), 256, 1000), (np.arange(30), 30, 500), (np.arange(400), 64, 3000)]
)
def test_reaches_scikit_learn_s_optimum(digits, rows, batch_size, steps):
    train, labels, _, _ = digits
    decays = (0.001, 0.01, 0.1, 1.0)
    found = fit(train, labels, [rows], (1.0,), decays, steps, batch_size)
    for place, decay in enumerate(decays):
        ours = found.coefficients[0, 0, place], found.intercepts[0, 0, place]
        gap = objective(*ours, train[rows], labels[rows], decay) - optimum(train[rows], labels[rows], decay)
        assert -1e-5 < gap < 1e-3, decay


def test_reaches_it_on_features_of_any_scale_place_and_correlation(digits):
    """Columns around 5 that are mixtures of each other, some ten times larger than others."""
    train, labels, _, _ = digits
    random = np.random.default_rng(0)
    mixed = train @ random.normal(size=(64, 64)) / 16 * np.geomspace(0.1, 1, 64)[None] + random.normal(5, 1, 64)[None]
    mixed = mixed.astype(np.float32)
    decays = (0.1, 1.0)
    found = fit(mixed, labels, [np.arange(900)], (0.3,), decays, 1000, 256)
    for place, decay in enumerate(decays):
        ours = objective(found.coefficients[0, 0, place], found.intercepts[0, 0, place], mixed, labels, decay)
        assert -1e-5 < ours - optimum(mixed, labels, decay) < 1e-3, decay


def test_more_features_than_rows_and_a_constant_feature():
    random = np.random.default_rng(2)
    features, labels = random.normal(size=(20, 150)).astype(np.float32), np.arange(20) % 4
    features[:, 3] = 7
    found = fit(features, labels, [np.arange(20)], (0.3, 1.0), (0.01, 1.0), 500, 20, classes=4)
    for rate in range(2):
        for place, decay in enumerate((0.01, 1.0)):
            weights = found.coefficients[0, rate, place], found.intercepts[0, rate, place]
            assert objective(*weights, features, labels, decay) - optimum(features, labels, decay) < 1e-3


def test_a_setting_in_a_grid_equals_that_setting_alone(digits, subsets, fitted):
    assert fitted.coefficients.shape == (2, 2, 3, 64, 10)
    assert fitted.intercepts.shape == (2, 2, 3, 10)
    for rate in range(2):
        for decay in range(3):
            alone = fit(*digits[:2], subsets, RATES[rate : rate + 1], DECAYS[decay : decay + 1])
            for ours, theirs in zip(alone, fitted, strict=True):
                np.testing.assert_allclose(ours[:, 0, 0], theirs[:, rate, decay], atol=1e-5)
    # And the settings differ, so that the comparison says something.
    assert np.abs(fitted.coefficients[:, 0] - fitted.coefficients[:, 1]).max() > 1e-3
    assert np.abs(np.diff(fitted.coefficients, axis=2)).max() > 1e-2


def test_a_subset_sees_no_row_but_its_own(digits, subsets, fitted):
    train, labels, _, _ = digits
    for turn, rows in enumerate(subsets):
        others = np.setdiff1d(np.arange(900), rows)
        poisoned, shuffled = train.copy(), labels.copy()
        poisoned[others] = np.nan
        shuffled[others] = np.random.default_rng(0).permutation(labels[others])
        again = fit(poisoned, shuffled, subsets)
        np.testing.assert_array_equal(again.coefficients[turn], fitted.coefficients[turn])
        np.testing.assert_array_equal(again.intercepts[turn], fitted.intercepts[turn])
        # Nor does it matter how many subsets there are, and how large.
        alone = fit(train, labels, [rows])
        np.testing.assert_allclose(alone.coefficients[0], fitted.coefficients[turn], atol=3e-4)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(digits, subsets, fitted):
    again, other = fit(*digits[:2], subsets), fit(*digits[:2], subsets, seed=1)
    np.testing.assert_array_equal(again.coefficients, fitted.coefficients)
    assert np.abs(other.coefficients - fitted.coefficients).max() > 1e-3


def test_every_row_is_seen_equally_often_up_to_one():
    orders = grid._orders(np.asarray([7, 30, 1]), 64, 0)
    for order, count in zip(orders, (7, 30, 1), strict=True):
        seen = np.bincount(order, minlength=count)
        assert len(seen) == count
        assert seen.max() - seen.min() <= 1
    assert not np.array_equal(orders[0][:7], orders[0][7:14])


def test_a_setting_that_diverges_disturbs_no_other_and_is_never_chosen(digits, subsets, fitted):
    train, labels, test, test_labels = digits
    found = fit(train, labels, subsets, (0.3, 1e30, 0.1), DECAYS)
    np.testing.assert_allclose(found.coefficients[:, (0, 2)], fitted.coefficients, atol=1e-5)
    scores = grid.score(found, test, test_labels)
    assert np.isnan(scores.accuracy[:, 1]).all()
    assert np.isnan(scores.cross_entropy[:, 1]).all()
    assert np.isfinite(scores.accuracy[:, (0, 2)]).all()
    assert grid.choose(scores, DECAYS)[0] in (0, 2)
    assert grid.choose(grid.Scores(*(array[:, 1:2] for array in scores)), DECAYS) is None


def test_scores_are_those_of_one_problem_at_a_time(digits, fitted):
    test, test_labels = digits[2:]
    scores = grid.score(fitted, test, test_labels)
    each = regression.Regression(fitted.coefficients, fitted.intercepts)
    np.testing.assert_array_equal(scores.accuracy, regression.accuracy(each, test, test_labels))
    np.testing.assert_allclose(scores.cross_entropy, regression.cross_entropy(each, test, test_labels), rtol=1e-5)


def test_the_choice_is_by_accuracy_then_cross_entropy_then_the_stronger_decay():
    def choose(accuracy, loss):
        return grid.choose(grid.Scores(np.asarray(accuracy), np.asarray(loss)), (0.1, 1.0, 0.01))

    equal = np.ones((1, 2, 3))
    assert choose(equal, equal) == (0, 1)
    loss = equal.copy()
    loss[0, 1, 2] = 0.5
    assert choose(equal, loss) == (1, 2)
    accuracy = 0.5 * equal
    accuracy[0, 1, 0] = 0.6
    assert choose(accuracy, loss) == (1, 0)
    # Means over the subsets; one that is not finite anywhere is out.
    assert choose([[[0.9, 0.5, 0.1]], [[0.1, 0.6, 0.9]]], np.ones((2, 1, 3))) == (0, 1)
    assert choose([[[0.9, 0.5, 0.1]], [[np.nan, 0.3, 0.1]]], np.ones((2, 1, 3))) == (0, 1)
    assert choose([[[0.9, 0.5, 0.1]]], np.asarray([[[np.nan, 1.0, 1.0]]])) == (0, 1)


def test_agrees_with_plain_sgd_on_the_features_as_they_are(digits):
    """The conventional protocol: optax, every weight at the same rate, no principal axes."""
    train, labels, test, test_labels = digits
    decay, steps = 0.01, 1500
    optimizer = optax.chain(
        optax.add_decayed_weights(decay, mask={"w": True, "b": False}),
        optax.sgd(optax.cosine_decay_schedule(0.05, steps), momentum=0.9),
    )
    inputs, targets = jnp.asarray(train), jnp.asarray(labels)

    def loss(params, batch):
        logits = inputs[batch] @ params["w"] + params["b"][None]
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, targets[batch]))

    def advance(carry, key):
        params, state = carry
        gradient = jax.grad(loss)(params, jax.random.randint(key, (256,), 0, len(labels)))
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    params = {"w": jnp.zeros((64, 10)), "b": jnp.zeros(10)}
    keys = jax.random.split(jax.random.key(0), steps)
    (params, _), _ = jax.jit(lambda carry: jax.lax.scan(advance, carry, keys))((params, optimizer.init(params)))
    theirs = np.mean(np.argmax(test @ np.asarray(params["w"]) + np.asarray(params["b"])[None], axis=1) == test_labels)
    found = fit(train, labels, [np.arange(900)], (0.1, 0.3), (decay,), 200, 256)
    ours = grid.score(found, test, test_labels).accuracy
    assert theirs > 0.85
    np.testing.assert_allclose(ours, theirs, atol=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": []}, "rows: give at least one label subset"),
        ({"rows": [np.arange(3), np.arange(0)]}, "each of at least one row"),
        ({"learning_rates": ()}, "learning_rates=()"),
        ({"learning_rates": (0.1, 0.0)}, "each above 0"),
        ({"learning_rates": (float("nan"),)}, "each above 0"),
        ({"weight_decays": ()}, "weight_decays=()"),
        ({"weight_decays": (0.1, -0.1)}, "each at least 0"),
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"momentum": 1.0}, "momentum=1.0"),
    ],
)
def test_arguments_that_cannot_be_are_refused(changes, message):
    arguments = {"rows": [np.arange(4)], "classes": 4, "learning_rates": (0.1,), "weight_decays": (0.1,), "seed": 0}
    arguments |= {"steps": 2, "batch_size": 4} | changes
    with pytest.raises(types.UsageError, match=message.replace("(", r"\(").replace(")", r"\)")):
        grid.fit(np.eye(4), np.arange(4), **arguments)
