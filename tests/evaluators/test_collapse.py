import dataclasses
import math
import types as python_types

import numpy as np
import pytest

from ssl_jax import types
from ssl_jax.evaluators import collapse

WIDTH = 64


@dataclasses.dataclass(frozen=True)
class Numbered:
    """Unlabelled images that hold their own number, the last batch ragged and its padding poisonous."""

    examples: int = 1500
    batch_size: int = 64
    class_names: tuple[str, ...] = ()

    def batches(self):
        for first in range(0, self.examples, self.batch_size):
            number = np.arange(first, first + self.batch_size)
            mask = number < self.examples
            number = np.where(mask, number, 65535)
            yield {
                "image": np.stack([number // 256, number % 256], axis=-1).astype(np.uint8)[:, None, None, :],
                "label": np.full(self.batch_size, -1, np.int32),
                "mask": mask,
            }


class Output:
    """An export that looks vectors up by number, and remembers what it was asked."""

    def __init__(self, vectors):
        self.vectors, self.asked, self.sizes = vectors, [], set()

    def __call__(self, state, images, preprocess):
        number = images[:, 0, 0, 0].astype(np.int64) * 256 + images[:, 0, 0, 1]
        self.asked.extend(number)
        self.sizes.add(len(images))
        return self.vectors[number]


def report(vectors, step=1, **arguments):
    output = Output(vectors)
    evaluator = collapse.Collapse(arguments.pop("examples", Numbered()), preprocess=None, **arguments)
    state = python_types.SimpleNamespace(step=np.int32(step))
    return evaluator({"output": output}, state, lambda: state), output


def spread(seed=0):
    return np.random.default_rng(seed).normal(size=(1500, WIDTH)).astype(np.float32)


def test_random_outputs_are_healthy():
    found, output = report(spread())
    assert found.scalars["healthy"] == 1 / math.sqrt(WIDTH)
    assert found.scalars["ratio"] == pytest.approx(1, abs=0.03)
    assert found.scalars["deviation"] == pytest.approx(found.scalars["ratio"] / 8)
    assert found.alarms == ()
    assert output.sizes == {64}


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1])
def test_constant_outputs_raise_the_alarm_with_what_to_look_at(noise):
    found, _ = report(np.ones((1500, WIDTH), np.float32) + noise * spread())
    (alarm,) = found.alarms
    for word in ("collapsed", "stop-gradient", "predictor", "learning rate", "augmentation"):
        assert word in alarm
    assert found.scalars["ratio"] == pytest.approx(noise, abs=0.01)


@pytest.mark.parametrize(("alive", "alarms"), [(1, 1), (2, 1), (6, 0), (32, 0)])
def test_ratio_is_the_root_of_the_share_of_channels_alive(alive, alarms):
    found, _ = report(np.where(np.arange(WIDTH)[None] < alive, spread(), 0))
    assert found.scalars["ratio"] == pytest.approx(math.sqrt(alive / WIDTH), abs=0.03)
    assert len(found.alarms) == alarms


def test_threshold_is_an_argument():
    assert not report(np.ones((1500, WIDTH)) + 0.1 * spread(), threshold=0.05)[0].alarms
    assert report(spread(), threshold=1.1)[0].alarms


def test_nothing_is_said_before_the_first_update():
    assert report(np.ones((1500, WIDTH), np.float32), step=0)[0].alarms == ()


def test_outputs_that_are_not_finite_raise_an_alarm_and_no_curve_of_nan():
    vectors = spread()
    vectors[1499, 3] = np.nan
    vectors[0, 2] = np.inf
    found, _ = report(vectors)
    (alarm,) = found.alarms
    assert "not finite for 2 of 1024 images" in alarm
    assert all(math.isfinite(value) for value in found.scalars.values())


def test_images_are_spread_over_the_set_and_padding_does_not_count():
    vectors = np.ones((1500, WIDTH), np.float32)
    # In class order: within one class all alike, so that the first images alone would look collapsed.
    vectors[:] = spread()[np.arange(1500) // 150]
    found, output = report(vectors, images=100)
    assert found.scalars["ratio"] > 0.8
    assert {0, 1499} <= set(output.asked)
    chosen = np.linspace(0, 1499, 100).round().astype(int)
    unit = vectors[chosen] / np.linalg.norm(vectors[chosen], axis=1, keepdims=True)
    assert found.scalars["deviation"] == pytest.approx(unit.std(axis=0).mean(), rel=1e-5)


def test_small_sets_are_taken_whole():
    found, output = report(spread(), examples=Numbered(examples=70))
    assert set(output.asked) == set(range(70))
    assert found.scalars["ratio"] > 0.9


def test_bad_arguments_are_refused():
    with pytest.raises(types.UsageError, match="at least 2"):
        report(spread(), images=1)
    with pytest.raises(types.UsageError, match="no export 'projection' in this method, which has output"):
        report(spread(), export="projection")
