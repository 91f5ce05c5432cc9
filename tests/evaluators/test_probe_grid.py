import dataclasses
import json
import types as python_types

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from ssl_jax import log, types
from ssl_jax.analysis import grid as analysis
from ssl_jax.evaluators import linear, probe_grid

TRAINED = python_types.SimpleNamespace(width=40)
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
    """The first pixels, and NaN for padding."""
    images = np.asarray(preprocess(images))
    padding = (images == 1).all(axis=(1, 2, 3))
    return np.where(padding[:, None], np.nan, images.reshape(len(images), -1)[:, 20 : 20 + state.width])


def build(train=None, test=None, probe=probe_grid.ProbeGrid, **arguments):
    digits = load_digits()
    images = (digits.images * 15.9).astype(np.uint8)[..., None]
    train = train or Shelf(images[:700], digits.target[:700])
    test = test or Shelf(images[1400:], digits.target[1400:])
    if probe is probe_grid.ProbeGrid:
        arguments = {
            "learning_rates": (0.01, 0.1, 1.0),
            "weight_decays": (0.001, 0.01, 0.1, 1.0, 10.0),
            "labels_per_class": (1, 5),
            "steps": 60,
            "batch_size": 256,
        } | arguments
    return probe(train, test, preprocess, **({"name": "simsiam"} | arguments))


def report(evaluator):
    return evaluator({"features": features}, TRAINED, lambda: None)


@pytest.fixture(scope="module")
def found():
    return report(build())


def without_seconds(report):
    return {key: value for key, value in report.summary.items() if key != "grid"}


def test_summary_holds_plain_numbers_under_the_names_agreed(found):
    accuracies = {"labels_1", "labels_1_std", "labels_5", "labels_5_std", "labels_all"}
    assert set(found.summary) == accuracies | {"chosen_setting", "grid", "test"}
    for key in accuracies:
        value = found.summary[key]["simsiam"]
        assert set(found.summary[key]) == {"simsiam"}
        assert type(value) is float
        assert 0 <= value <= 1
        assert found.scalars[f"{key}/simsiam"] == value
    assert set(found.scalars) == {f"{key}/simsiam" for key in accuracies}
    chosen = found.summary["chosen_setting"]["simsiam"]
    assert set(chosen) == {"labels_1", "labels_5", "labels_all"}
    for setting in chosen.values():
        assert setting["learning_rate"] in (0.01, 0.1, 1.0)
        assert setting["weight_decay"] in (0.001, 0.01, 0.1, 1.0, 10.0)
    assert found.summary["grid"]["settings"] == 15
    assert found.summary["grid"]["fit_seconds"] > 0
    assert found.summary["grid"]["feature_seconds"] > 0
    json.dumps(found.summary)
    # The entry is about the fit with all labels, whose accuracy the grid counted on its own.
    assert found.summary["test"]["accuracy"] == pytest.approx(found.summary["labels_all"]["simsiam"], abs=1e-9)
    assert log.scores(found.summary).keys() == {"test"}
    assert found.arrays["confusion"].sum() == found.summary["test"]["examples"]
    rows, columns = log.table(found.summary)
    assert rows == ["simsiam"]
    assert [column.name for column in columns] == ["labels_1", "labels_5", "labels_all"]
    assert found.alarms == ()


def test_more_labels_score_better_and_agree_with_the_exact_probe(found):
    one, five, whole = (found.summary[f"labels_{count}"]["simsiam"] for count in (1, 5, "all"))
    assert 0.2 < one < five - 0.05
    assert five < whole - 0.02
    exact = build(probe=linear.LinearProbe, labels_per_class=(5,), draws=3, baselines=())
    summary = exact({"features": features}, TRAINED, lambda: None).summary
    assert whole == pytest.approx(summary["labels_all"]["simsiam"], abs=0.011)
    # Same held-out images and draws: only the settings to choose from differ.
    assert five == pytest.approx(summary["labels_5"]["simsiam"], abs=0.03)


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(found):
    again, other = report(build()), report(build(seed=1))
    assert without_seconds(again) == without_seconds(found)
    assert again.summary["labels_1"] != other.summary["labels_1"]


def test_the_test_set_chooses_nothing_and_meets_the_chosen_setting_alone(found, monkeypatch):
    seen = []
    score = analysis.score

    def watched(fitted, images, labels):
        seen.append((len(labels), fitted.coefficients.shape[:3]))
        return score(fitted, images, labels)

    monkeypatch.setattr(analysis, "score", watched)
    probe = build()
    shuffled = np.random.default_rng(0).permutation(probe.test.targets)
    crossed = report(dataclasses.replace(probe, test=dataclasses.replace(probe.test, targets=shuffled)))
    assert crossed.summary["chosen_setting"] == found.summary["chosen_setting"]
    assert crossed.summary["labels_all"]["simsiam"] < 0.2
    assert [shape for count, shape in seen if count == 397] == [(3, 1, 1), (3, 1, 1), (1, 1, 1)]


def test_the_setting_is_chosen_without_fitting_the_held_out_images(monkeypatch):
    rows = []
    fit = analysis.fit

    def watched(images, labels, subsets, **more):
        rows.append(subsets)
        return fit(images, labels, subsets, **more)

    monkeypatch.setattr(analysis, "fit", watched)
    probe = build()
    report(probe)
    labels = probe.train.labels()
    held_out = probe._held_out(labels)
    for label in range(10):
        assert held_out[labels == label].sum() == round(0.2 * np.sum(labels == label))
    few, rest, whole = rows
    assert [len(subset) for subset in few] == [10, 10, 10, 50, 50, 50]
    assert not held_out[np.concatenate(few)].any()
    for one, five in zip(few[:3], few[3:], strict=True):
        assert set(one) <= set(five)
        np.testing.assert_array_equal(np.bincount(labels[five]), np.full(10, 5))
    np.testing.assert_array_equal(rest[0], np.flatnonzero(~held_out))
    np.testing.assert_array_equal(whole[0], np.arange(700))


def test_the_spread_divides_by_one_less_and_is_zero_for_one_draw(monkeypatch):
    few = {"labels_per_class": (1,), "learning_rates": (1.0,), "weight_decays": (0.1,)}
    taken = []
    score = analysis.score

    def watched(*arguments):
        taken.append(score(*arguments).accuracy)
        return score(*arguments)

    monkeypatch.setattr(analysis, "score", watched)
    summary = report(build(**few)).summary
    accuracies = taken[1][:, 0, 0]
    assert accuracies.shape == (3,)
    assert summary["labels_1"]["simsiam"] == pytest.approx(accuracies.mean())
    expected = (np.sum((accuracies - accuracies.mean()) ** 2) / 2) ** 0.5
    assert summary["labels_1_std"]["simsiam"] == pytest.approx(expected)
    assert report(build(**few, draws=1)).summary["labels_1_std"]["simsiam"] == 0.0


def test_all_labels_alone_and_what_the_alarms_say():
    alone = report(build(labels_per_class=(), learning_rates=(0.00001, 1.0, 1e30), weight_decays=(1.0, 10.0)))
    assert set(alone.summary) == {"labels_all", "chosen_setting", "grid", "test"}
    edge, diverged = alone.alarms
    assert edge.startswith("The grid probe's labels_all is best with 1, the smallest of weight_decays")
    assert edge.endswith("add smaller ones")
    assert diverged == "2 of the 6 settings of the grid probe diverged, at learning rates 1e+30: leave those out"


def test_an_edge_is_told_only_where_its_neighbour_is_clearly_worse():
    probe = build(learning_rates=(0.3, 0.1, 1.0))
    accuracy = np.full((3, 5), 0.80)
    accuracy[1, 2] = 0.81
    assert probe._edges(accuracy, (1, 2), "labels_5", 400) == []
    accuracy[1, 2] = 0.9
    (sentence,) = probe._edges(accuracy, (1, 2), "labels_5", 400)
    assert "best with 0.1, the smallest of learning_rates" in sentence
    accuracy[2, 4] = 0.95
    assert [sentence.split("of ")[1].split(",")[0] for sentence in probe._edges(accuracy, (2, 4), "labels_5", 400)] == [
        "learning_rates", "weight_decays",
    ]  # fmt: skip
    accuracy[:] = np.nan
    accuracy[1, 0] = 0.9
    assert probe._edges(accuracy, (1, 0), "labels_5", 400) == []


def test_features_that_are_not_finite_are_an_error():
    def broken(state, images, preprocess):
        return np.full((len(images), 4), np.nan)

    with pytest.raises(types.RunError, match="no setting gave finite numbers for labels_all"):
        build(labels_per_class=())({"features": broken}, TRAINED, lambda: None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"draws": 0}, "draws=0"),
        ({"labels_per_class": (0, 1)}, "each is at least 1"),
        ({"labels_per_class": (1, 60)}, r"labels_per_class holds 60, but class '\d' has 5\d training"),
        ({"learning_rates": ()}, "rates above 0"),
        ({"learning_rates": (0.0,)}, "rates above 0"),
        ({"weight_decays": (-1.0,)}, "coefficients of at least 0"),
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"validation_share": 1.0}, "validation_share=1.0"),
        ({"validation_share": 0.001}, "holds out 0 of 700"),
        ({"validation_share": 0.999}, "holds out 700 of 700"),
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
    with pytest.raises(types.UsageError, match="no export 'logits' in this method, which has features"):
        report(build(export="logits"))
