import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import metrics, types


def batches(images, labels, size):
    for first in range(0, len(images), size):
        part, names = images[first : first + size], labels[first : first + size]
        missing = size - len(part)
        yield {
            "image": np.concatenate([part, np.full((missing, *part.shape[1:]), 255, np.uint8)]),
            "label": np.concatenate([names, np.full(missing, 77, np.int32)]),
            "mask": np.arange(size) < len(part),
        }


def test_mean_merges_batches_of_unlike_size_exactly():
    values = jnp.array([1.0, 2.0, 6.0])
    mean = metrics.Mean.empty()
    for part in (values[:2], values[2:]):
        mean = mean.merge(metrics.Mean.of(part))
    assert float(mean.compute()) == 3.0  # The mean of the two means would be 3.75.


def test_mean_never_reads_what_has_no_weight():
    mean = metrics.Mean.of(jnp.array([1.0, jnp.nan, 3.0]), jnp.array([3.0, 0.0, 1.0]))
    assert float(mean.compute()) == 1.5
    assert float(mean.count) == 4.0


def test_mean_of_nothing_is_not_a_number():
    assert np.isnan(metrics.Mean.empty().compute())


def test_mean_passes_through_jit():
    doubled = jax.jit(lambda mean: mean.merge(mean))(metrics.Mean.of(jnp.arange(3.0)))
    assert float(doubled.count) == 6.0


def test_accuracy_and_top_k_count_what_the_mask_keeps():
    logits = jnp.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
    labels = jnp.array([0, 1, 2, 0])
    mask = jnp.array([True, True, True, False])
    assert float(metrics.accuracy(logits, labels).compute()) == 0.5
    assert float(metrics.accuracy(logits, labels, mask).compute()) == pytest.approx(1 / 3)
    assert float(metrics.top_k(logits, labels, 2, mask).compute()) == pytest.approx(2 / 3)
    assert float(metrics.top_k(logits, labels, 3, mask).compute()) == 1.0


def test_output_deviation_of_isotropic_outputs_is_one_over_root_d():
    outputs = 7 * np.random.default_rng(0).normal(size=(20_000, 64))
    assert float(metrics.output_deviation(outputs)) == pytest.approx(1 / 8, rel=0.01)


def test_output_deviation_looks_at_directions_alone():
    lengths = np.linspace(1, 5, 50)[:, None]
    assert float(metrics.output_deviation(lengths * np.array([[1.0, -2.0, 0.5]]))) < 1e-6
    assert float(metrics.output_deviation(np.zeros((5, 3)))) == 0.0


def test_output_deviation_is_bounded_by_the_mean_cosine():
    outputs = np.random.default_rng(1).normal(size=(500, 16)) + 2
    unit = outputs / np.linalg.norm(outputs, axis=1, keepdims=True)
    bound = np.sqrt((1 - np.mean(unit @ unit.T)) / 16)
    assert bound * 0.9 < float(metrics.output_deviation(outputs)) <= bound + 1e-6


def test_collect_keeps_exactly_the_masked_examples():
    images = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1)
    labels = np.arange(7, dtype=np.int32) % 3
    tree, found = metrics.collect(
        lambda batch: {"twice": jnp.asarray(batch[:, 0, 0], jnp.int32) * 2, "once": batch}, batches(images, labels, 3)
    )
    np.testing.assert_array_equal(tree["twice"][:, 0], np.arange(7) * 2)
    np.testing.assert_array_equal(tree["once"], images)
    np.testing.assert_array_equal(found, labels)


def test_collect_refuses_an_empty_set():
    empty = [{"image": np.zeros((2, 1, 1, 1), np.uint8), "label": np.zeros(2, np.int32), "mask": np.zeros(2, bool)}]
    with pytest.raises(types.UsageError, match="no examples"):
        metrics.collect(lambda images: images, empty)


def test_pick_counts_positions_among_the_kept_and_keeps_the_order_asked_for():
    images = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1)
    masked = list(batches(images, np.zeros(7, np.int32), 3))
    masked.insert(1, {**masked[0], "mask": np.zeros(3, bool)})
    np.testing.assert_array_equal(metrics.pick(masked, [6, 0, 4, 0])[:, 0, 0, 0], [6, 0, 4, 0])


def test_pick_reads_no_further_than_it_has_to():
    def stream():
        yield from batches(np.zeros((3, 1, 1, 1), np.uint8), np.zeros(3, np.int32), 3)
        raise AssertionError("read on")

    assert metrics.pick(stream(), [2]).shape == (1, 1, 1, 1)


def test_pick_names_a_position_beyond_the_end():
    with pytest.raises(types.RunError, match="example 9 of a set that gave only 4"):
        metrics.pick(batches(np.zeros((4, 1, 1, 1), np.uint8), np.zeros(4, np.int32), 3), [0, 9])
