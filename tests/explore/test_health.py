"""The verdict: each failure on features that have it, none on healthy ones, and the measures it goes by."""

import dataclasses

import numpy as np
import pytest

from ssl_jax.analysis import agreement, spectrum
from ssl_jax.explore import health
from ssl_jax.explore.subject import Subject


def simsiam(projections, predictions=None, other=None):
    """A run's subject: projections [n, d] of view 1, of view 2 (`other`), and predictions from view 1."""
    draw = np.random.default_rng(1)
    count = len(projections)
    other = projections + 0.1 * draw.normal(size=projections.shape) if other is None else other
    predictions = projections if predictions is None else predictions
    encoder = np.maximum(draw.normal(size=(count, 12)), 0)
    stages = {"encoder": encoder, "projector": projections, "predictor": predictions}
    views = {
        "encoder": np.stack([encoder, encoder], axis=1),
        "projector": np.stack([projections, other], axis=1),
        "predictor": np.stack([predictions, predictions], axis=1),
    }
    return Subject(
        features=encoder.astype(np.float32),
        told="a run",
        names=tuple(map(str, range(count))),
        labels=np.full(count, -1, np.int32),
        stages={name: np.asarray(values, np.float32) for name, values in stages.items()},
        views={name: np.asarray(values, np.float32) for name, values in views.items()},
    )


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def verdict(subject):
    return health.judge(health.measure(subject)).told


def test_even_projections_are_healthy():
    assert verdict(simsiam(normal(400, 32))) == "healthy"


def test_one_output_for_all_is_a_full_collapse_and_nothing_else():
    collapsed = np.ones((400, 32)) + 1e-3 * normal(400, 32)
    assert verdict(simsiam(collapsed, predictions=normal(400, 32))) == "full collapse"
    assert verdict(simsiam(np.ones((400, 32)))) == "full collapse"
    assert verdict(simsiam(np.zeros((400, 32)))) == "full collapse"


def test_few_directions_are_a_dimensional_collapse():
    assert verdict(simsiam(normal(400, 2) @ normal(2, 32))) == "dimensional collapse"
    assert verdict(simsiam(normal(400, 6) @ normal(6, 32))) == "healthy"


def test_a_narrow_projector_is_no_collapse():
    assert verdict(simsiam(normal(400, 3))) == "healthy"


def test_a_predictor_that_predicts_something_else_does_not_converge():
    assert (
        verdict(simsiam(normal(400, 32), predictions=np.roll(normal(400, 32), 1, axis=0))) == "predictor not converging"
    )


def test_a_predictor_that_agrees_better_than_the_views_do_is_healthy():
    mean = normal(400, 32)
    draw = np.random.default_rng(3)
    one, other = (mean + draw.normal(size=mean.shape) for _ in range(2))
    found = health.measure(simsiam(one, predictions=mean, other=other))
    assert found["agreement"]["predictions"] > found["agreement"]["projections"] + 0.1
    assert health.judge(found).kinds == ()


def test_two_failures_are_both_told():
    flat = normal(400, 2) @ normal(2, 32)
    told = health.judge(health.measure(simsiam(flat, predictions=np.roll(flat, 1, axis=0))))
    assert told.told == "predictor not converging and dimensional collapse"
    assert len(told.sentences) == 2 and "cosine of" in told.sentences[0] and "RankMe" in told.sentences[1]


def test_the_measures_are_those_of_their_networks():
    subject = simsiam(normal(300, 16))
    found = health.measure(subject)
    assert list(found) == ["encoder", "projector", "predictor", "agreement"]
    for name in ("encoder", "projector", "predictor"):
        expected = spectrum.measures(subject.stages[name])
        assert {key: found[name][key] for key in expected} == expected
        views = subject.views[name]
        assert found[name]["alignment"] == agreement.alignment(views[:, 0], views[:, 1])
        assert found[name]["lidar"] == agreement.lidar(views)
    first, second = subject.views["projector"][:, 0], subject.views["projector"][:, 1]
    assert found["agreement"]["projections"] == pytest.approx(agreement.mean_cosine(first, second))
    assert found["agreement"]["predictions"] == pytest.approx(
        agreement.mean_cosine(subject.views["predictor"][:, 0], second)
    )


def test_pixels_are_judged_by_their_rank_alone():
    draw = np.random.default_rng(0)
    bright = (0.9 + 0.01 * draw.normal(size=(200, 40))).astype(np.float32)
    subject = Subject(bright, "pixels", tuple(map(str, range(200))), np.full(200, -1, np.int32), pixels=True)
    assert health.measure(subject)["features"]["deviation"] < health.LEAST_DEVIATION
    assert verdict(subject) == "healthy"
    flat = Subject((draw.normal(size=(200, 2)) @ draw.normal(size=(2, 40)) + 9).astype(np.float32), *describe(subject))
    assert verdict(flat) == "dimensional collapse"
    one = Subject((1 + draw.uniform(size=(200, 1))).astype(np.float32), *describe(subject))
    assert verdict(one) == "healthy"
    constant = Subject(np.ones((200, 40), np.float32), *describe(subject))
    assert verdict(constant) == "full collapse"
    told = health.judge(health.measure(flat)).sentences[0]
    assert "predictor" not in told and "projector" not in told


def describe(subject):
    return "features", subject.names, subject.labels


def test_without_views_nothing_is_said_of_the_predictor():
    subject = simsiam(normal(400, 32), predictions=np.roll(normal(400, 32), 1, axis=0))
    without = dataclasses.replace(subject, views={})
    assert "agreement" not in health.measure(without) and verdict(without) == "healthy"
    assert "two views" not in health.part(without).html and "two views" in health.part(subject).html


def test_the_part_shows_the_verdict_and_its_numbers():
    part = health.part(simsiam(np.ones((400, 32)) + 1e-3 * normal(400, 32)))
    assert part.metrics["verdict"] == "full collapse" and part.metrics["projector"]["deviation"] < 0.2
    assert "verdict bad" in part.html and "Full collapse." in part.html
    assert part.files["spectrum.png"].startswith(b"\x89PNG") and part.lines[0].startswith("verdict: full collapse")
