import dataclasses
import functools
import json
import re
import types as python_types

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from ssl_jax import types
from ssl_jax.analysis import pixels, regression
from ssl_jax.evaluators import linear

TRAINED = python_types.SimpleNamespace(width=40)
UNTRAINED = python_types.SimpleNamespace(width=3)
NAMES = tuple("0123456789")


@dataclasses.dataclass(frozen=True)
class Shelf:
    """Examples in memory, the last batch ragged and its padding poisonous."""

    images: np.ndarray
    targets: np.ndarray
    class_names: tuple[str, ...] = NAMES
    batch_size: int = 128

    @property
    def examples(self):
        return len(self.images)

    def labels(self):
        return np.asarray(self.targets, np.int32)

    def batches(self):
        for first in range(0, len(self.images), self.batch_size):
            images = self.images[first : first + self.batch_size]
            missing = self.batch_size - len(images)
            padding = np.full((missing, *images.shape[1:]), 255, np.uint8)
            yield {
                "image": np.concatenate([images, padding]),
                "label": np.pad(self.targets[first : first + self.batch_size], (0, missing)).astype(np.int32),
                "mask": np.arange(self.batch_size) < len(images),
            }


def preprocess(images):
    return jnp.asarray(images, jnp.float32) / 127.5 - 1


def features(state, images, preprocess):
    """The first pixels: the more of them, the better the encoder."""
    images = np.asarray(preprocess(images))
    return images.reshape(len(images), -1)[:, 20 : 20 + state.width]


def build(train=None, test=None, **arguments):
    digits = load_digits()
    images = (digits.images * 15.9).astype(np.uint8)[..., None]
    train = train or Shelf(images[:700], digits.target[:700])
    test = test or Shelf(images[1400:], digits.target[1400:])
    settings = {"name": "simsiam", "draws": 4, "labels_per_class": (1, 5)} | arguments
    return linear.LinearProbe(train, test, preprocess, **settings)


def report(evaluator):
    return evaluator({"features": features}, TRAINED, lambda: UNTRAINED)


@pytest.fixture(scope="module")
def found():
    return report(build())


def test_summary_holds_plain_numbers_under_the_names_agreed(found):
    rows = {"raw_pixels", "untrained", "simsiam"}
    assert set(found.summary) == {
        "labels_1", "labels_1_std", "labels_5", "labels_5_std", "labels_all", "knn", "chosen_penalty", "knn_neighbours",
    }  # fmt: skip
    assert found.summary["knn_neighbours"] == 10
    for key, by_row in found.summary.items():
        if key == "knn_neighbours":
            continue
        assert set(by_row) == rows
        if key != "chosen_penalty":
            assert all(type(value) is float and 0 <= value <= 1 for value in by_row.values())
    for chosen in found.summary["chosen_penalty"].values():
        assert set(chosen) == {"labels_1", "labels_5", "labels_all"}
        assert set(chosen.values()) <= set(linear.LinearProbe.penalties)
    json.dumps(found.summary)
    assert found.scalars["labels_5/simsiam"] == found.summary["labels_5"]["simsiam"]
    assert len(found.scalars) == 6 * 3
    assert found.alarms == ()


def test_better_features_and_more_labels_score_better(found):
    for key in ("labels_5", "labels_all", "knn"):
        by_row = found.summary[key]
        assert by_row["untrained"] + 0.2 < by_row["simsiam"]
    for row in ("raw_pixels", "simsiam"):
        assert (
            found.summary["labels_1"][row] + 0.1
            < found.summary["labels_5"][row]
            < found.summary["labels_all"][row] - 0.02
        )
        assert found.summary["labels_1_std"][row] > found.summary["labels_5_std"][row] > 0


def test_labels_all_is_scikit_learn_s_accuracy_at_the_chosen_penalty(found):
    probe = build()
    for row, width in (("raw_pixels", slice(None)), ("simsiam", slice(20, 60))):
        train, test = (
            np.asarray(preprocess(shelf.images)).reshape(shelf.examples, -1)[:, width].astype(np.float64)
            for shelf in (probe.train, probe.test)
        )
        scaler = StandardScaler().fit(train)
        model = LogisticRegression(C=found.summary["chosen_penalty"][row]["labels_all"], max_iter=10_000)
        model.fit(scaler.transform(train), probe.train.targets)
        accuracy = model.score(scaler.transform(test), probe.test.targets)
        assert found.summary["labels_all"][row] == pytest.approx(accuracy, abs=1.5 / 397)


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(found):
    # One count alone: the draws of the other, and rows that fill up, have no say in it.
    few = {"labels_per_class": (1,), "baselines": ()}
    again, other = report(build(**few)), report(build(**few, seed=1))
    assert again.summary["labels_1"]["simsiam"] == pytest.approx(found.summary["labels_1"]["simsiam"], abs=1e-3)
    assert abs(again.summary["labels_1"]["simsiam"] - other.summary["labels_1"]["simsiam"]) > 2e-3
    assert report(build(**few)).summary == again.summary


def test_test_labels_decide_nothing(found, monkeypatch):
    seen = []
    accuracy = regression.accuracy

    def watched(fitted, images, labels):
        seen.append((len(labels), fitted.coefficients.shape[:-2]))
        return accuracy(fitted, images, labels)

    monkeypatch.setattr(regression, "accuracy", watched)
    probe = build()
    shuffled = np.random.default_rng(0).permutation(probe.test.targets)
    crossed = report(dataclasses.replace(probe, test=dataclasses.replace(probe.test, targets=shuffled)))
    assert crossed.summary["chosen_penalty"] == found.summary["chosen_penalty"]
    assert crossed.summary["labels_all"]["simsiam"] < 0.2
    # Each row: one fit a draw for both counts, one with all labels; no penalty but the chosen one sees the test set.
    assert [shape for count, shape in seen if count == 397] == [(4,), (4,), (1,)] * 3


def test_the_penalty_is_chosen_on_held_out_training_images(found):
    probe = build(labels_per_class=(), baselines=())
    held_out = probe._held_out(probe.train.targets)
    pixels = np.asarray(preprocess(probe.train.images)).reshape(700, -1)[:, 20:60]
    scaled = StandardScaler().fit_transform(pixels.astype(np.float64))
    losses = []
    for penalty in probe.penalties:
        model = LogisticRegression(C=penalty, max_iter=10_000).fit(scaled[~held_out], probe.train.targets[~held_out])
        losses.append(log_loss(probe.train.targets[held_out], model.predict_proba(scaled[held_out])))
    chosen = found.summary["chosen_penalty"]["simsiam"]["labels_all"]
    assert chosen == probe.penalties[np.argmin(losses)]


def test_held_out_images_are_not_fitted_while_the_penalty_is_chosen():
    random = np.random.default_rng(0)
    train, labels, held_out = random.normal(size=(120, 300)), np.arange(120) % 10, np.arange(120) < 40
    fit = functools.partial(regression.fit, classes=10)
    fitted, penalty = linear._choose(fit, train, labels, held_out, (0.0001, 0.001, 10.0))
    # Labels that say nothing about the features: the strongest penalty is best, and chance is all it gets.
    assert penalty == 0.0001
    assert regression.accuracy(fitted, train[held_out], labels[held_out]) < 0.4
    assert regression.accuracy(fitted, train[~held_out], labels[~held_out]) > 0.9


def test_held_out_images_are_the_same_share_of_every_class_and_in_no_draw():
    probe = build()
    labels = np.asarray(probe.train.targets)
    held_out = probe._held_out(labels)
    for label in range(10):
        assert held_out[labels == label].sum() == round(0.2 * np.sum(labels == label))
    draws = probe._draws(labels, held_out)
    assert {count: rows.shape for count, rows in draws.items()} == {1: (4, 10), 5: (4, 50)}
    for count, rows in draws.items():
        assert not held_out[rows].any()
        for draw in rows:
            np.testing.assert_array_equal(np.bincount(labels[draw]), np.full(10, count))
            assert len(set(draw)) == len(draw)
    for one, five in zip(draws[1], draws[5], strict=True):
        assert set(one) <= set(five)
    assert len({tuple(draw) for draw in draws[1]}) == 4


def test_a_class_may_give_every_image_that_is_not_held_out_and_no_more():
    targets = build().train.targets
    fewest = min(count - round(0.2 * count) for count in np.bincount(targets).tolist())
    probe = build(labels_per_class=(fewest,))
    assert probe._draws(targets, probe._held_out(targets))[fewest].shape == (4, 10 * fewest)
    with pytest.raises(types.UsageError, match=f"has {fewest} training images beside"):
        build(labels_per_class=(fewest + 1,))


def test_maps_show_all_test_images_or_an_even_selection(found):
    for row in ("raw_pixels", "untrained", "simsiam"):
        assert found.arrays[f"map/{row}"].shape == (397, 2)
        assert found.arrays[f"map/{row}"].dtype == np.float32
        assert found.arrays[f"map_explained/{row}"].shape == (2,)
    probe = build(baselines=(), labels_per_class=(), map_examples=25)
    arrays = report(probe).arrays
    shown = np.linspace(0, 396, 25).round().astype(int)
    np.testing.assert_array_equal(arrays["map/simsiam"], found.arrays["map/simsiam"][shown])
    np.testing.assert_array_equal(arrays["map_labels"], np.asarray(probe.test.targets)[shown])
    np.testing.assert_array_equal(arrays["map_classes"], NAMES)
    assert arrays["map_classes"].dtype.kind == "U"  # what an npz gives back without pickle
    assert not [name for name in arrays if "images" in name]


def test_raw_pixels_are_the_stored_images_and_only_large_ones_are_shrunk():
    images = np.random.default_rng(0).integers(0, 256, (3, 40, 80, 3), dtype=np.uint8)
    assert pixels.vectors(images).shape == (3, 22 * 45 * 3)
    np.testing.assert_allclose(pixels.vectors(images[:, :32, :32]), images[:, :32, :32].reshape(3, -1) / 255, rtol=1e-6)


def test_the_spread_over_draws_divides_by_one_less_and_is_zero_for_one_draw(monkeypatch):
    taken = []
    accuracy = regression.accuracy

    def watched(fitted, images, labels):
        taken.append(accuracy(fitted, images, labels))
        return taken[-1]

    monkeypatch.setattr(regression, "accuracy", watched)
    few = {"labels_per_class": (1,), "baselines": (), "penalties": (0.1,)}
    summary = report(build(**few)).summary
    accuracies = next(found for found in taken if found.shape == (4,))
    expected = (np.sum((accuracies - accuracies.mean()) ** 2) / 3) ** 0.5
    assert summary["labels_1_std"]["simsiam"] == pytest.approx(expected)
    assert report(build(**few, draws=1)).summary["labels_1_std"]["simsiam"] == 0.0


def test_a_regression_that_stopped_short_is_an_alarm_and_not_a_failure(monkeypatch):
    fit = regression.fit

    def stopped(*arguments, penalties, **more):
        fitted = fit(*arguments, penalties=penalties, **more)
        return fitted._replace(converged=fitted.converged & (np.asarray(penalties) < 1))

    monkeypatch.setattr(regression, "fit", stopped)
    found = report(build(labels_per_class=(1,), baselines=("untrained",), penalties=(10.0, 0.1)))
    assert 0 < found.summary["labels_1"]["simsiam"] < 1
    assert [re.match(r"The logistic regression on (\w+) with C=10 stopped", each)[1] for each in found.alarms] == [
        "untrained", "simsiam",
    ]  # fmt: skip


def test_raw_pixels_are_not_preprocessed():
    def refused(images):
        raise AssertionError("raw pixels were preprocessed")

    few = {"labels_per_class": (), "penalties": (0.1,), "baselines": ("raw_pixels",)}
    probe = dataclasses.replace(build(**few), preprocess=refused)
    probe({"features": lambda state, images, _: features(TRAINED, images, preprocess)}, TRAINED, lambda: UNTRAINED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baselines": ("pixels",)}, "no baseline 'pixels'"),
        ({"name": "untrained"}, "is a baseline's"),
        ({"neighbours": 701}, "neighbours=701, but the train set has 700 images"),
        ({"draws": 0}, "draws=0"),
        ({"labels_per_class": (0, 1)}, "each is at least 1"),
        ({"penalties": ()}, "values of C above 0"),
        ({"validation_share": 1.0}, "validation_share=1.0"),
    ],
)
def test_arguments_that_cannot_be_are_refused_at_once(changes, message):
    with pytest.raises(types.UsageError, match=message):
        build(**changes)


def test_sets_that_do_not_fit_are_refused():
    probe = build()
    with pytest.raises(types.UsageError, match="test set has no labels"):
        dataclasses.replace(probe, test=dataclasses.replace(probe.test, class_names=()))
    with pytest.raises(types.UsageError, match="differ"):
        dataclasses.replace(probe, test=dataclasses.replace(probe.test, class_names=NAMES[:9]))
    unknown = np.where(np.arange(700) < 3, -1, probe.train.targets)
    with pytest.raises(types.UsageError, match="3 images of its train set have no label"):
        dataclasses.replace(probe, train=dataclasses.replace(probe.train, targets=unknown))
    with pytest.raises(types.UsageError, match=r"labels_per_class holds 60, but class '\d' has 5\d training"):
        build(labels_per_class=(1, 60))
    with pytest.raises(types.UsageError, match="holds out no image of 700"):
        build(validation_share=0.001)
    with pytest.raises(types.UsageError, match="no export 'logits' in this method, which has features"):
        report(build(export="logits"))
