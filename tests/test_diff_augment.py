"""The changes against the authors' rules written in numpy, and their laws over many draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util
from scipy import stats

from ssl_jax import diff_augment, rng, schedules
from ssl_jax.diff_augment import OPERATIONS, DiffAugment
from ssl_jax.types import UsageError


@functools.cache
def compiled(change):
    return jax.jit(change)


def apply(change, images, seed=0, step=0):
    return np.asarray(compiled(change)(images, jax.random.key(seed), step))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def uniform(name, count, seed=0):
    """The draws of one operation, as the code makes them."""
    return np.asarray(jax.random.uniform(rng.child(jax.random.key(seed), name), (count, 3)), np.float64)


def brightness(image, unit):
    return image + (unit[0] - 0.5)


def saturation(image, unit):
    mean = image.mean(axis=2, keepdims=True)
    return (image - mean) * (2 * unit[0]) + mean


def contrast(image, unit):
    return (image - image.mean()) * (unit[0] + 0.5) + image.mean()


def translation(image, unit):
    """Reads a copy with a border of zeros, indices held within it, as `rand_translation`."""
    reads = []
    for side, share in zip(image.shape[:2], unit[:2], strict=True):
        limit = int(side * 0.125 + 0.5)
        reads.append(np.clip(np.arange(side) + whole(share, -limit, limit + 1) + 1, 0, side + 1))
    return np.pad(image, ((1, 1), (1, 1), (0, 0)))[np.ix_(*reads)]


def cutout(image, unit):
    """Writes zeros at indices held within the image, as `rand_cutout`."""
    reads = []
    for side, share in zip(image.shape[:2], unit[:2], strict=True):
        hole = int(side * 0.5 + 0.5)
        reads.append(np.clip(np.arange(hole) + whole(share, 0, side + (1 - hole % 2)) - hole // 2, 0, side - 1))
    mask = np.ones(image.shape[:2])
    mask[np.ix_(*reads)] = 0
    return image * mask[..., None]


def whole(share, low, high):
    """The integer in [low, high) that a share in [0, 1) stands for, all equally wide."""
    return low + int(share * (high - low))


RULES = {rule.__name__: rule for rule in (brightness, saturation, contrast, translation, cutout)}


def by_hand(images, operations, probability=1.0, seed=0):
    changed = []
    draws = {name: uniform(name, len(images), seed) for name in operations}
    for place, image in enumerate(images.astype(np.float64)):
        for name in OPERATIONS:
            if name in operations and draws[name][place, 2] < probability:
                image = RULES[name](image, draws[name][place])
        changed.append(image)
    return np.stack(changed)


@pytest.mark.parametrize(
    ("operations", "shape"),
    [(OPERATIONS, shape) for shape in ((16, 8, 8, 1), (16, 8, 8, 3), (12, 9, 13, 3), (8, 16, 12, 1), (4, 1, 2, 3))]
    + [((name,), (12, 9, 12, 3)) for name in OPERATIONS],
)
def test_changes_are_the_authors(operations, shape):
    images = noise(*shape)
    found = apply(DiffAugment(operations), images, seed=3)
    assert (found.dtype, found.shape) == (np.float32, shape)
    np.testing.assert_allclose(found, by_hand(images, operations, seed=3), atol=2e-6)


def test_each_operation_is_drawn_for_each_image_with_the_probability():
    images = noise(64, 8, 8, 3)
    found = apply(DiffAugment(probability=0.4), images, seed=1)
    np.testing.assert_allclose(found, by_hand(images, OPERATIONS, 0.4, seed=1), atol=2e-6)
    same = (found == images).all(axis=(1, 2, 3))
    assert 0 < same.sum() < 20  # 0.6^5 of 64 are 5


@pytest.mark.parametrize(
    ("name", "factor_of", "image", "low", "high"),
    [
        ("brightness", lambda found: found[:, 0, 0, 0], np.zeros((2, 2, 3)), -0.5, 0.5),
        ("saturation", lambda found: found[:, 0, 0, 2], np.broadcast_to([-1.0, 0.0, 1.0], (2, 2, 3)), 0.0, 2.0),
        ("contrast", lambda found: found[:, 1, 0, 0], np.array([[[-1.0], [-1.0]], [[1.0], [1.0]]]), 0.5, 1.5),
    ],
)
@pytest.mark.parametrize("probability", [1.0, 0.5])
def test_colours_change_by_uniform_amounts_whatever_the_probability(name, factor_of, image, low, high, probability):
    images = np.broadcast_to(image, (4000, *image.shape)).astype(np.float32)
    found = apply(DiffAugment((name,), probability), images)
    changed = (found != images).any(axis=(1, 2, 3))
    assert changed.mean() == pytest.approx(probability, abs=0.03)
    amounts = factor_of(found)[changed]
    assert low <= amounts.min() and amounts.max() <= high
    assert stats.kstest(amounts, stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_shifts_are_whole_uniform_and_an_eighth_of_the_side_each_way():
    coded = 1.0 + np.arange(8 * 16, dtype=np.float32).reshape(8, 16, 1)
    found = apply(DiffAugment(("translation",)), np.broadcast_to(coded, (9000, 8, 16, 1)))
    centre = np.rint(found[:, 4, 8, 0] - 1).astype(int)
    down, right = centre // 16 - 4, centre % 16 - 8
    counts = np.zeros((3, 5))
    np.add.at(counts, (down + 1, right + 2), 1)
    assert counts.sum() == 9000
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3
    for d, r, image in zip(down[:50], right[:50], found[:50], strict=True):
        expected = np.zeros((8, 16), np.float32)
        for row in range(max(0, -d), min(8, 8 - d)):
            for column in range(max(0, -r), min(16, 16 - r)):
                expected[row, column] = coded[row + d, column + r, 0]
        np.testing.assert_array_equal(image[..., 0], expected)


@pytest.mark.parametrize(("side", "hole", "centres"), [(8, 4, 9), (9, 5, 9), (6, 3, 6)])
def test_holes_are_half_the_side_and_centred_anywhere(side, hole, centres):
    found = apply(DiffAugment(("cutout",)), np.ones((9000, side, side, 1), np.float32))[..., 0] == 0
    rows, columns = found.any(axis=2), found.any(axis=1)
    np.testing.assert_array_equal(found, rows[:, :, None] & columns[:, None, :])
    places = []
    for line in (rows, columns):
        first, last = line.argmax(axis=1), side - 1 - line[:, ::-1].argmax(axis=1)
        np.testing.assert_array_equal(line.sum(axis=1), last - first + 1)  # without gaps
        # A hole that leaves the image is the one whose other end shows.
        start = np.where(first > 0, first, last - hole + 1)
        assert (np.minimum(start + hole, side) == last + 1).all()
        places.append(start + hole // 2)
    counts = np.zeros((centres, centres))
    np.add.at(counts, tuple(places), 1)
    assert counts.sum() == 9000
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


def test_operations_and_images_have_draws_of_their_own():
    draws = np.stack([uniform(name, 3000) for name in OPERATIONS], axis=1).reshape(3000, -1)
    assert np.abs(np.corrcoef(draws.T) - np.eye(15)).max() < 0.08
    images = np.broadcast_to(noise(1, 8, 8, 3), (20, 8, 8, 3))
    found = apply(DiffAugment(), images)
    assert len(np.unique(found.reshape(20, -1).round(4), axis=0)) == 20


def test_an_image_does_not_feel_its_neighbours():
    images, others = noise(6, 8, 8, 3), noise(6, 8, 8, 3, seed=1)
    for place in range(6):
        mixed = others.copy()
        mixed[place] = images[place]
        np.testing.assert_array_equal(
            apply(DiffAugment(), mixed)[place], apply(DiffAugment(), images)[place], err_msg=str(place)
        )


def test_the_key_alone_decides():
    images = noise(6, 8, 8, 3)
    np.testing.assert_array_equal(apply(DiffAugment(), images, 5, step=0), apply(DiffAugment(), images, 5, step=9))
    assert np.abs(apply(DiffAugment(), images, 5) - apply(DiffAugment(), images, 6)).max() > 0.1


@pytest.mark.parametrize("channels", [1, 3])
def test_probability_of_zero_changes_nothing(channels):
    images = noise(40, 8, 8, channels)
    np.testing.assert_array_equal(apply(DiffAugment(probability=0.0), images), images)


def test_a_scheduled_probability_is_that_of_the_step():
    change = DiffAugment(("brightness",), schedules.Linear(0.0, 1.0, steps=100))
    images = noise(2000, 2, 2, 1)
    shares = [(apply(change, images, step=step) != images).any(axis=(1, 2, 3)).mean() for step in (0, 30, 100, 500)]
    assert shares[0] == 0 and shares[2] == shares[3] == 1
    assert shares[1] == pytest.approx(0.3, abs=0.04)


def test_order_is_fixed_and_holes_stay_empty():
    images = noise(8, 8, 8, 3) + 3
    found = apply(DiffAugment(("cutout", "brightness", "contrast")), images)
    np.testing.assert_array_equal(found, apply(DiffAugment(("contrast", "brightness", "cutout")), images))
    assert ((found == 0).all(axis=3).sum(axis=(1, 2)) >= 4).all()
    np.testing.assert_array_equal(apply(DiffAugment(()), images), images)


def test_saturation_leaves_one_channel_as_it_is():
    images = noise(8, 4, 4, 1)
    np.testing.assert_array_equal(apply(DiffAugment(("saturation",)), images), images)


@pytest.mark.parametrize("name", OPERATIONS)
def test_bfloat16_stays_and_is_near_float32(name):
    images = jnp.asarray(noise(6, 8, 8, 3), jnp.bfloat16)
    found = DiffAugment((name,))(images, jax.random.key(0), 0)
    assert found.dtype == jnp.bfloat16
    wide = by_hand(np.asarray(images, np.float32), (name,))
    np.testing.assert_allclose(np.asarray(found, np.float32), wide, atol=0.03)


@pytest.mark.parametrize("operations", [OPERATIONS, ("translation", "cutout")])
def test_slopes_are_right_to_second_order(operations):
    change = DiffAugment(operations)
    key = jax.random.key(2)

    @jax.jit
    def score(images):
        return jnp.sum(jnp.sin(3.0 * change(images, key, 0))) / 10

    test_util.check_grads(score, (noise(2, 4, 4, 3),), order=2, modes=["rev"], atol=2e-2, rtol=2e-2)


def test_a_penalty_on_the_slope_reaches_parameters_through_the_changes():
    """R1's value and gradient by hand: with cutout, the slope is the weight outside the hole and zero inside."""
    images, weight = noise(5, 8, 8, 1), noise(8, 8, 1, seed=1)
    change = DiffAugment(("cutout",))

    def penalty(weight):
        def score(images):
            return jnp.sum(jnp.tensordot(change(images, jax.random.key(0), 0) ** 2, weight, 3)) / 2

        return jnp.sum(jnp.square(jax.grad(score)(images)))

    value, slope = jax.jit(jax.value_and_grad(penalty))(weight)
    seen = images * (apply(change, np.ones_like(images)) != 0)
    np.testing.assert_allclose(value, np.sum((weight * seen) ** 2), rtol=1e-5)
    np.testing.assert_allclose(slope, np.sum(2 * weight * seen**2, axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DiffAugment(("cutout", "rotation")), r"operations: 'rotation' is none of brightness, saturation"),
        (lambda: DiffAugment(probability=1.5), r"probability=1.5: it must be within \[0, 1\]"),
        (lambda: DiffAugment(probability=-0.1), r"probability=-0.1: it must be within \[0, 1\]"),
    ],
)
def test_bad_arguments_are_refused(make, words):
    with pytest.raises(UsageError, match=words):
        make()


def test_all_operations_are_the_default():
    assert DiffAugment() == DiffAugment(tuple(diff_augment.OPERATIONS), 1.0)
    assert hash(DiffAugment()) == hash(DiffAugment(OPERATIONS))
