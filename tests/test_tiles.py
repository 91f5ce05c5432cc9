"""Pictures in tiles against the whole at once: borders, upsamplings, sizes of tiles, and what is held in memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import tiles, types
from ssl_jax.models import cyclegan

PLAIN = cyclegan.ResNetGenerator(3, width=4, blocks=1, deviation=0.3)
CASES = {
    "no blocks": (dataclasses.replace(PLAIN, blocks=0, upsampling="resize"), (40, 20, 3), 16),
    "one block": (dataclasses.replace(PLAIN, border="zeros"), (44, 28, 3), 20),
    "grey to colour": (dataclasses.replace(PLAIN, upsampling="resize", border="zeros"), (36, 24, 1), 12),
    "a short last tile": (dataclasses.replace(PLAIN, width=2, blocks=3), (52, 36, 3), 12),
    "one halving": (dataclasses.replace(PLAIN, halvings=1, outer_px=3), (22, 20, 3), 6),
    "no halving": (dataclasses.replace(PLAIN, halvings=0, outer_px=5), (17, 19, 3), 4),
    "one tile": (dataclasses.replace(PLAIN, image_channels=1), (16, 40, 3), 64),
}


def made(generator, shape):
    """Parameters, and an image whose upper half is flat and bright, its lower one loud and dark."""
    noise = np.asarray(jax.random.uniform(jax.random.key(1), shape, minval=-1.0))
    image = np.concatenate([0.7 + 0.05 * noise[: shape[0] // 2], 0.6 * noise[shape[0] // 2 :] - 0.4])
    params = jax.jit(generator.init)(jax.random.key(0), image[None])["params"]
    # Trained biases are not zero, and those of the head are not normed away.
    shift = lambda leaf: leaf + jnp.linspace(-0.5, 0.5, leaf.size) if leaf.ndim == 1 else leaf  # noqa: E731
    return jax.tree.map(shift, params), image


def whole(generator, params, image):
    return np.asarray(generator.apply({"params": params}, image[None])[0])


@pytest.mark.parametrize("case", CASES)
def test_tiles_give_what_the_whole_gives(case):
    generator, shape, tile_px = CASES[case]
    params, image = made(generator, shape)
    told = []
    found = tiles.translate(generator, params, image, tile_px, lambda *counts: told.append(counts))
    expected = whole(generator, params, image)
    assert found.dtype == np.float32 and found.shape == expected.shape and expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert told == [(number, len(told)) for number in range(1, len(told) + 1)]
    assert len(told) % -(-shape[0] // tile_px) == 0


def test_the_size_of_tiles_does_not_matter_and_a_tiles_own_statistics_would():
    generator = dataclasses.replace(PLAIN, width=2)
    params, image = made(generator, (56, 20, 3))
    kept = image.copy()
    found = [tiles.translate(generator, params, image, tile_px) for tile_px in (12, 24, 52)]
    for other in found[1:]:
        np.testing.assert_allclose(found[0], other, atol=2e-5)
    np.testing.assert_array_equal(image, kept)
    alone = whole(generator, params, image[:28])
    assert np.abs(alone - found[0][:28])[:16].mean() > 0.1


def test_statistics_hold_where_a_mean_is_large():
    """Of float32 sums of squares little would be left: the square of 2000 leaves 0.25 of its last digit."""
    generator = cyclegan.ResNetGenerator(1, width=1, blocks=0, halvings=0, outer_px=1)
    _, image = made(generator, (32, 24, 1))
    params = {
        "stem": {"kernel": np.full((1, 1, 1, 1), 1.0, np.float32), "bias": np.full(1, 2000.0, np.float32)},
        "head": {"kernel": np.full((1, 1, 1, 1), 0.5, np.float32), "bias": np.full(1, -0.2, np.float32)},
    }
    mapped = (image + np.float32(2000.0)).astype(np.float64)
    normed = (mapped - mapped.mean()) / np.sqrt(mapped.var() + cyclegan.EPSILON)
    found = tiles.translate(generator, params, image, 5)
    # A mean of 2000 in float32 is 0.0001 off at most.
    np.testing.assert_allclose(found, np.tanh(0.5 * np.maximum(normed, 0.0) - 0.2), atol=2e-4)


def test_wide_maps_are_never_held(monkeypatch):
    generator = dataclasses.replace(PLAIN, blocks=2)
    params, image = made(generator, (96, 16, 3))
    compute, read, written = tiles._computed, [], []

    def recorded(entry, chain, cuts, unfinished, source, *rest):
        result = compute(entry, chain, cuts, unfinished, source, *rest)
        read.append(source.shape)
        written.append((result[0] if unfinished else result).shape)
        return result

    monkeypatch.setattr(tiles, "_computed", recorded)
    tiles.translate(generator, params, image, 16)
    # The picture and maps of a quarter of its sides are all that bands are computed from, a little more than a band.
    assert {shape[1:] for shape in read} == {(16, 3), (4, 16)}
    assert max(shape[0] for shape in read if shape[2] == 3) <= 16 + 2 * 12
    assert max(shape[0] for shape in read if shape[2] != 3) <= 4 + 3
    assert max(rows * width for rows, width, _ in written) == 16 * 16


def test_what_does_not_do_is_said():
    params, image = made(PLAIN, (16, 16, 3))
    least = tiles.least_px(PLAIN)
    assert least == 12
    for tile_px, says in {
        8: "a tile of 8 rows is smaller than the 12 that the layers look at beyond it: give --tile_px=12 or more",
        0: "a tile of 0 rows",
        18: "a tile of 18 rows is no multiple of 4: give --tile_px=16",
    }.items():
        with pytest.raises(types.UsageError, match=says):
            tiles.translate(PLAIN, params, image, tile_px)
    with pytest.raises(types.UsageError, match="multiples of 4 px, not 15x16"):
        tiles.translate(PLAIN, params, image[1:], 16)
    with pytest.raises(types.UsageError, match="1x4 cannot be mirrored by 1"):
        tiles.translate(PLAIN, params, image[:4], 16)
