import dataclasses
import functools
import itertools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import augment, image_ops
from ssl_jax.augment import Blur, Crop, Deform, Flip, Grayscale, Jitter, PadCrop, Plain, Solarize, Tone, TwoViews, View
from ssl_jax.types import UsageError

FULL = View(Crop(12), Jitter(), Grayscale(), Blur((0.1, 1.0)), Solarize(), Flip(), Tone())


def bytes_like(batch, height, width, channels, seed=0):
    generator = np.random.default_rng(seed)
    return jnp.asarray(generator.integers(0, 256, (batch, height, width, channels), dtype=np.uint8))


def unit(images):
    return images.astype(jnp.float32) / 255


@functools.cache
def compiled(operation):
    return jax.jit(operation)


def apply(operation, images, seed=0):
    return np.asarray(compiled(operation)(images, jax.random.key(seed)))


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Crop(0), "size_px"),
        (lambda: Crop(8, scale=(0.0, 1.0)), "scale"),
        (lambda: Crop(8, scale=(0.5, 0.4)), "scale"),
        (lambda: Crop(8, scale=(0.5, 1.1)), "scale"),
        (lambda: Crop(8, scale=(0.5,)), "scale"),
        (lambda: Crop(8, ratio=(0.0, 1.0)), "ratio"),
        (lambda: Crop(8, ratio=(2.0, 1.0)), "ratio"),
        (lambda: PadCrop(-1), "padding_px"),
        (lambda: Deform(0), "size_px"),
        (lambda: Deform(8, log_scale=(0.2, 0.1)), "log_scale"),
        (lambda: Deform(8, shift_px=-1.0), "shift_px"),
        (lambda: Deform(8, shear=-0.1), "shear"),
        (lambda: Jitter(brightness=-0.1), "brightness"),
        (lambda: Jitter(contrast=-0.1), "contrast"),
        (lambda: Jitter(saturation=-0.1), "saturation"),
        (lambda: Jitter(hue=0.6), "hue"),
        (lambda: Jitter(hue=-0.1), "hue"),
        (lambda: Jitter(probability=1.1), "probability"),
        (lambda: Grayscale(-0.1), "probability"),
        (lambda: Blur((0.0, 1.0)), "sigma"),
        (lambda: Blur((2.0, 1.0)), "sigma"),
        (lambda: Blur((0.1, float("inf"))), "sigma"),
        (lambda: Blur(probability=2.0), "probability"),
        (lambda: Blur(kernel_px=4), "kernel_px"),
        (lambda: Blur(kernel_px=-1), "kernel_px"),
        (lambda: Solarize(threshold=1.5), "threshold"),
        (lambda: Solarize(probability=float("nan")), "probability"),
        (lambda: Flip(1.5), "probability"),
        (lambda: Tone(log_gamma=-1.0), "log_gamma"),
        (lambda: Tone(log_gain=-1.0), "log_gain"),
        (lambda: Tone(noise=-1.0), "noise"),
        (lambda: View(mean=()), "mean"),
        (lambda: View(deviation=(0.5, 0.5)), "deviation"),
        (lambda: View(deviation=(0.0,)), "deviation"),
        (lambda: Plain(size_px=0), "size_px"),
        (lambda: Plain(size_px=32, resize_px=31), "resize_px"),
        (lambda: Plain(resize_px=0), "resize_px"),
        (lambda: Plain(mean=(0.1, 0.2)), "mean"),
    ],
)
def test_an_impossible_value_is_named(make, field):
    with pytest.raises(UsageError, match=rf"^augment\.\w+: {field} = .+ cannot be; it must be [^\n]+$"):
        make()


@pytest.mark.parametrize("view", [Plain(), lambda images: View()(images, jax.random.key(0))])
def test_other_images_are_refused(view):
    for images in (jnp.zeros((2, 8, 8, 3)), jnp.zeros((2, 8, 8), jnp.uint8)):
        with pytest.raises(UsageError, match=r"must be uint8 \[b, h, w, c\], not"):
            view(images)
    with pytest.raises(UsageError, match=r"jitter and grayscale take 1 or 3 channels, not 4"):
        View(jitter=Jitter())(jnp.zeros((2, 8, 8, 4), jnp.uint8), jax.random.key(0))
    with pytest.raises(UsageError, match=r"mean = \(0\.1, 0\.2, 0\.3\) does not fit images of 1 channel"):
        Plain(mean=(0.1, 0.2, 0.3))(jnp.zeros((2, 8, 8, 1), jnp.uint8))


def test_a_blur_wider_than_the_image_is_refused():
    with pytest.raises(UsageError, match=r"a window of 13 px is too wide for 6x9 images"):
        Blur()(jnp.zeros((2, 6, 9, 1)), jax.random.key(0))


@pytest.mark.parametrize("size", [(32, 32), (9, 30), (1, 1)])
def test_boxes_lie_within_the_image(size):
    boxes = jax.jit(Crop(8).boxes, static_argnums=(1, 2, 3))(jax.random.key(0), 2000, *size)
    top, left, height, width = np.asarray(boxes).T
    assert min(top.min(), left.min()) >= 0
    assert min(height.min(), width.min()) >= 1
    assert (top + height).max() <= size[0]
    assert (left + width).max() <= size[1]
    if size == (32, 32):
        assert top.max() > 12, "boxes reach down"
        assert (top + height).max() == 32, "and touch the lower border"


@pytest.mark.parametrize(
    ("size", "ratio", "box"),
    [
        ((20, 60), (0.9, 1.0), (0, 20, 20, 20)),
        ((60, 20), (1.0, 1.25), (20, 0, 20, 20)),
        ((20, 60), (2.0, 2.5), (0, 5, 20, 50)),
    ],
)
def test_the_largest_central_box_where_no_try_fits(size, ratio, box):
    crop = Crop(8, scale=(1.0, 1.0), ratio=ratio)
    boxes = jax.jit(crop.boxes, static_argnums=(1, 2, 3))(jax.random.key(0), 50, *size)
    np.testing.assert_array_equal(boxes, np.broadcast_to(box, (50, 4)))


def test_crop_resizes_the_boxes_it_draws():
    images, key = unit(bytes_like(6, 16, 20, 3)), jax.random.key(5)
    crop = Crop(8)
    boxes = jax.jit(crop.boxes, static_argnums=(1, 2, 3))(key, 6, 16, 20)
    expected = jax.jit(image_ops.crop_resize, static_argnums=5)(images, *boxes.T, 8)
    np.testing.assert_allclose(apply(crop, images, seed=5), expected, atol=1e-6)
    whole = Crop(16, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    np.testing.assert_array_equal(apply(whole, images[:, :, :16]), images[:, :, :16])


def test_every_order_of_four_comes_equally_often():
    ranks = np.asarray(augment.random_ranks(jax.random.key(1), 24_000, 4))
    orders, counts = np.unique(ranks, axis=0, return_counts=True)
    assert orders.tolist() == [list(order) for order in itertools.permutations(range(4))]
    assert ((counts - 1000) ** 2 / 1000).sum() < 60, "chi-square of 23 degrees, p = 4e-5"


def test_jitter_gives_every_image_an_order_and_factors_of_its_own(monkeypatch):
    handed = []
    monkeypatch.setattr(image_ops, "jitter", lambda images, *parameters: handed.extend(parameters))
    Jitter(probability=0.5)(jnp.zeros((4000, 1, 1, 3)), jax.random.key(0))
    *parameters, rank = map(np.asarray, handed)
    assert len(np.unique(rank, axis=0)) == 24
    active = np.stack(parameters) != np.array([[1.0], [1.0], [1.0], [0.0]])
    assert (active.all(axis=0) | (~active).all(axis=0)).all(), "all four or none"
    drawn = np.vstack([np.stack(parameters)[:, active[0]], rank.T[:3, active[0]]])
    related = np.corrcoef(drawn) - np.eye(7)
    related[4:, 4:] = 0.0
    assert np.abs(related).max() < 0.1


def test_jitter_draws_from_the_stated_ranges():
    gray = jnp.full((4000, 1, 1, 3), 0.4)
    factors = apply(Jitter(0.4, 0.0, 0.0, 0.0, probability=1.0), gray)[:, 0, 0, 0] / 0.4
    quantiles = np.quantile(factors, (0, 0.25, 0.5, 0.75, 1))
    np.testing.assert_allclose(quantiles, (0.6, 0.8, 1.0, 1.2, 1.4), atol=0.03)
    half = np.where(np.arange(2).reshape(1, 1, 2, 1) == 0, 0.45, 0.55) * np.ones((4000, 1, 2, 3))
    contrast = np.ptp(apply(Jitter(0.0, 1.5, 0.0, 0.0, probability=1.0), jnp.asarray(half, jnp.float32)), axis=2) / 0.1
    np.testing.assert_allclose(np.quantile(contrast, (0, 0.2, 0.5, 1)), (0.0, 0.5, 1.25, 2.5), atol=0.08)
    red = jnp.zeros((4000, 1, 1, 3)).at[..., 0].set(1.0)
    turned = apply(Jitter(0.0, 0.0, 0.0, 0.1, probability=1.0), red)[:, 0, 0]
    turn = (turned[:, 1] - turned[:, 2]) / 6
    np.testing.assert_allclose(np.quantile(turn, (0, 0.25, 0.5, 0.75, 1)), (-0.1, -0.05, 0, 0.05, 0.1), atol=0.005)
    faded = apply(Jitter(0.0, 0.0, 0.4, 0.0, probability=1.0), jnp.tile(jnp.array([0.6, 0.5, 0.5]), (4000, 1, 1, 1)))
    np.testing.assert_allclose(np.quantile(np.ptp(faded, axis=-1), (0, 0.5, 1)), (0.06, 0.1, 0.14), atol=0.004)


@pytest.mark.parametrize(
    "operation", [Jitter(), Grayscale(), Blur((1.0, 2.0)), Solarize(), Flip()], ids=lambda op: type(op).__name__
)
@pytest.mark.parametrize("channels", [1, 3])
def test_probability(operation, channels):
    images = unit(bytes_like(400, 7, 7, channels))
    never, always = (dataclasses.replace(operation, probability=p) for p in (0.0, 1.0))
    np.testing.assert_array_equal(apply(never, images), images)
    found = apply(always, images)
    assert found.shape == images.shape
    assert found.dtype == np.float32
    assert found.min() >= 0.0
    assert found.max() <= 1.0 + 1e-6
    changed = np.abs(apply(operation, images) - images).max(axis=(1, 2, 3)) > 1e-6
    if isinstance(operation, Grayscale) and channels == 1:
        assert not changed.any()
        return
    assert (np.abs(found - images).max(axis=(1, 2, 3)) > 1e-6).mean() > 0.99
    assert abs(changed.mean() - operation.probability) < 4 * (0.25 / 400) ** 0.5
    np.testing.assert_array_equal(apply(operation, images)[~changed], images[~changed])


def test_what_each_operation_does_where_it_applies():
    images = unit(bytes_like(3, 9, 9, 3))
    gray = apply(Grayscale(1.0), images)
    luma = np.asarray(images) @ np.array([[0.2989], [0.587], [0.114]])
    np.testing.assert_allclose(gray, luma * np.ones(3), atol=1e-6)
    np.testing.assert_array_equal(apply(Flip(1.0), images), images[:, :, ::-1])
    np.testing.assert_array_equal(apply(Solarize(0.25, 1.0), images), np.where(images >= 0.25, 1 - images, images))
    fixed = Blur((1.5, 1.5), probability=1.0)
    np.testing.assert_allclose(apply(fixed, images), image_ops.gaussian_blur(images, jnp.full(3, 1.5), 11), atol=1e-6)
    narrow = Blur((1.5, 1.5), probability=1.0, kernel_px=3)
    assert np.abs(apply(narrow, images) - apply(fixed, images)).max() > 0.02


def test_pad_crop_is_one_of_the_windows_and_all_occur():
    image = unit(bytes_like(1, 5, 5, 3))
    found = apply(PadCrop(2), jnp.tile(image, (600, 1, 1, 1)))
    padded = np.pad(image[0], ((2, 2), (2, 2), (0, 0)))
    windows = np.stack([padded[i : i + 5, j : j + 5] for i, j in itertools.product(range(5), repeat=2)])
    same = (found[:, None] == windows[None]).all(axis=(2, 3, 4))
    assert (same.sum(axis=1) == 1).all()
    assert (same.sum(axis=0) > 5).all()


def test_deform_draws_from_the_stated_ranges():
    still = {"log_scale": (0.0, 0.0), "shift_px": 0.0, "shear": 0.0}
    images = unit(bytes_like(4, 8, 8, 1))
    np.testing.assert_allclose(apply(Deform(8, **still), images), images, atol=1e-6)
    # A ramp shows where each pixel was read; the middle stays inside the image.
    down, right = (
        np.broadcast_to(np.arange(33).reshape(shape), (2000, 33, 33, 1)) for shape in ((-1, 1, 1), (1, -1, 1))
    )
    ramps = [jnp.asarray(ramp, jnp.float32) for ramp in (down, right)]

    def spans(**changed):
        row, column = (apply(Deform(33, **{**still, **changed}), ramp)[..., 0] for ramp in ramps)
        return {
            "down": row[:, 16, 16] - 16,
            "right": column[:, 16, 16] - 16,
            "height": row[:, 17, 16] - row[:, 16, 16],
            "width": column[:, 16, 17] - column[:, 16, 16],
            "slope": column[:, 17, 16] - column[:, 16, 16],
        }

    def check(values, low, high):
        np.testing.assert_allclose(
            np.quantile(values, (0, 0.5, 1)), (low, (low + high) / 2, high), atol=(high - low) / 20
        )

    shifted = spans(shift_px=1.2)
    check(shifted["down"], -1.2, 1.2)
    check(shifted["right"], -1.2, 1.2)
    assert abs(np.corrcoef(shifted["down"], shifted["right"])[0, 1]) < 0.1
    scaled = spans(log_scale=(-0.35, -0.05))
    check(np.log(scaled["height"]), -0.35, -0.05)
    check(np.log(scaled["width"]), -0.35, -0.05)
    assert abs(np.corrcoef(scaled["height"], scaled["width"])[0, 1]) < 0.1
    sheared = spans(shear=0.5)
    check(sheared["slope"], -0.5, 0.5)
    np.testing.assert_allclose(sheared["height"], 1.0, atol=1e-4)
    wide = apply(Deform(12, log_scale=(0.5, 0.5), shift_px=0.0), jnp.ones((3, 8, 8, 1)))
    assert (wide[:, 0] == 0).all(), "black outside"
    assert np.allclose(wide[:, 5:7, 5:7], 1.0, atol=1e-4)


def test_tone_is_gamma_gain_and_noise_unclipped():
    level = jnp.full((4000, 1, 1, 1), 0.25)
    gamma = np.log(apply(Tone(0.6, 0.0, 0.0), level).ravel()) / np.log(0.25)
    np.testing.assert_allclose(np.quantile(np.log(gamma), (0, 0.5, 1)), (-0.6, 0.0, 0.6), atol=0.05)
    gain = apply(Tone(0.0, 0.4, 0.0), jnp.ones((4000, 1, 1, 1))).ravel()
    np.testing.assert_allclose(np.quantile(np.log(gain), (0, 0.5, 1)), (-0.4, 0.0, 0.4), atol=0.04)
    noise = apply(Tone(0.0, 0.0, 0.08), jnp.zeros((40, 10, 10, 3)))
    assert abs(noise.std() - 0.08) < 0.003
    assert abs(noise.mean()) < 0.003
    assert np.abs(np.corrcoef(noise.reshape(40, -1))[~np.eye(40, dtype=bool)]).max() < 0.3, "noise of each image's own"


def test_a_view_is_its_operations_in_the_published_order_each_with_its_own_key():
    images, key = bytes_like(8, 16, 16, 3), jax.random.key(9)
    expected = unit(images)
    for name in ("crop", "jitter", "grayscale", "blur", "solarize", "flip", "tone"):
        expected = compiled(getattr(FULL, name))(expected, jax.random.fold_in(key, zlib.crc32(name.encode())))
    np.testing.assert_allclose(apply(FULL, images, seed=9), 2 * np.asarray(expected) - 1, atol=1e-4)


def test_mean_and_deviation_are_the_channels():
    images = bytes_like(2, 4, 4, 3)
    setting = {"mean": (0.4, 0.5, 0.6), "deviation": (0.1, 0.2, 0.3)}
    expected = (np.asarray(images) / 255 - np.array([0.4, 0.5, 0.6])) / np.array([0.1, 0.2, 0.3])
    np.testing.assert_allclose(apply(View(**setting), images), expected, atol=1e-5)
    np.testing.assert_allclose(Plain(**setting)(images), expected, atol=1e-5)


def test_adding_an_operation_leaves_the_others_draws_alone():
    images = bytes_like(64, 8, 8, 3)
    alone = apply(View(flip=Flip()), images)
    assert 10 < (np.abs(alone - apply(View(), images)).max(axis=(1, 2, 3)) > 0.1).sum() < 54
    others = View(Crop(8, (1.0, 1.0), (1.0, 1.0)), solarize=Solarize(0.5, 0.0), flip=Flip())
    np.testing.assert_allclose(apply(others, images), alone, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_two_views_of_bytes(channels):
    images, key = bytes_like(8, 16, 16, channels), jax.random.key(2)
    views = compiled(TwoViews(FULL))({"image": images, "label": jnp.zeros(8, jnp.int32)}, key)
    assert set(views) == {"view_1", "view_2"}
    for view in views.values():
        assert view.shape == (8, 12, 12, channels)
        assert view.dtype == jnp.float32
        assert bool(jnp.isfinite(view).all())
    assert (np.abs(views["view_1"] - views["view_2"]).max(axis=(1, 2, 3)) > 0.1).all()


def test_the_second_view_may_be_drawn_otherwise():
    images, key = bytes_like(8, 16, 16, 3), jax.random.key(2)
    alike = compiled(TwoViews(View(flip=Flip())))({"image": images}, key)
    views = compiled(TwoViews(View(flip=Flip()), View(Crop(8))))({"image": images}, key)
    np.testing.assert_array_equal(views["view_1"], alike["view_1"])
    assert alike["view_2"].shape == (8, 16, 16, 3)
    assert views["view_2"].shape == (8, 8, 8, 3)


def test_two_crops_made_on_the_host_become_a_view_each():
    crops = {"image_1": bytes_like(4, 8, 8, 3, seed=1), "image_2": bytes_like(4, 8, 8, 3, seed=2)}
    views = TwoViews(View())(crops, jax.random.key(0))
    for number in (1, 2):
        np.testing.assert_allclose(views[f"view_{number}"], 2 * unit(crops[f"image_{number}"]) - 1, atol=1e-6)


def test_bytes_fill_minus_one_to_one():
    images = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)
    expected = np.linspace(-1, 1, 256).reshape(1, 16, 16, 1)
    np.testing.assert_allclose(apply(View(), images), expected, atol=1e-6)
    np.testing.assert_allclose(Plain()(images), expected, atol=1e-6)


def test_the_key_decides_and_every_image_has_its_own_draws():
    images = jnp.tile(bytes_like(1, 16, 16, 3), (8, 1, 1, 1))
    first, again, other = (apply(FULL, images, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (np.abs(first - other).max(axis=(1, 2, 3)) > 0.1).all()
    for one, two in itertools.combinations(first, 2):
        assert np.abs(one - two).max() > 0.1


@pytest.mark.parametrize(
    ("plain", "shape"),
    [
        (Plain(), (10, 14)),
        (Plain(size_px=7), (7, 7)),
        (Plain(size_px=8, resize_px=11), (8, 8)),
        (Plain(resize_px=20), (20, 28)),
    ],
)
def test_plain_is_hashable_and_of_the_stated_size(plain, shape):
    assert hash(plain) == hash(dataclasses.replace(plain))
    found = jax.jit(lambda images, view: view(images), static_argnums=1)(bytes_like(2, 10, 14, 3), plain)
    assert found.shape == (2, *shape, 3)
    assert found.dtype == jnp.float32


def test_plain_crops_the_centre():
    image = bytes_like(1, 9, 12, 1)
    found = Plain(size_px=6, resize_px=9, mean=(0.0,), deviation=(1.0,))(image)
    np.testing.assert_array_equal(found, unit(image)[:, 2:8, 3:9])


SHARDED = """
import jax, numpy as np
from ssl_jax.augment import *
view = TwoViews(View(Crop(12), Jitter(), Grayscale(), Blur((0.1, 1.0)), Solarize(), Flip(), Tone()))
images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), dtype=np.uint8)
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
key = jax.random.key(7)
one = jax.jit(view)({"image": images}, key)
many = jax.jit(view, out_shardings=split)({"image": jax.device_put(images, split)}, key)
for name in one:
    assert len(many[name].sharding.device_set) == 8
    np.testing.assert_allclose(one[name], many[name], atol=2e-5)
print("alike")
"""


def test_eight_devices_draw_what_one_draws(child):
    assert child(SHARDED, devices=8).stdout.strip() == "alike"


def test_a_labelled_view_keeps_image_and_label_together():
    image = np.repeat(np.arange(6, dtype=np.uint8), 12).reshape(6, 2, 2, 3) * 40
    seen = augment.Labelled(augment.View(flip=augment.Flip()))(
        {"image": image, "label": np.arange(6)}, jax.random.key(0)
    )
    np.testing.assert_allclose(np.asarray(seen["image"])[:, 0, 0, 0], np.arange(6) * 40 / 255 * 2 - 1, atol=1e-6)
    np.testing.assert_array_equal(seen["label"], np.arange(6))
    cropped = augment.Labelled(augment.View())({"image_1": image, "label": np.arange(6)}, jax.random.key(0))
    assert cropped["image"].shape == (6, 2, 2, 3)
    with pytest.raises(UsageError, match="takes `image` and `label`, not image"):
        augment.Labelled(augment.View())({"image": image}, jax.random.key(0))


def test_unchanged_gives_the_batch_as_it_came():
    batch = {"image": np.arange(6.0, dtype=np.float32).reshape(3, 2), "label": np.arange(3, dtype=np.int32)}
    seen = jax.jit(augment.Unchanged())(batch, jax.random.key(0))
    assert seen.keys() == batch.keys()
    for name, array in batch.items():
        assert seen[name].dtype == array.dtype
        np.testing.assert_array_equal(seen[name], array)
    assert augment.Unchanged()(batch, jax.random.key(0)) is not batch
    assert hash(augment.Unchanged()) == hash(augment.Unchanged())
