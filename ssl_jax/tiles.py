"""CycleGAN's ResNet generator on pictures of any size, in bands of rows: the same numbers in a fraction of the memory.

Instance norm needs a channel's mean and variance over the whole picture before the next layer can begin, so the network
is walked through norm by norm. Only maps of the lowest resolution are held, two of them at most; the wider ones before
and after are computed anew, band after band, for each norm that comes later. With two halvings two such maps take
2 * `width` bytes for each pixel of the picture in float32: 2.1 GB for 4096 x 4096 at width 64, where the first full map
alone takes 4.3 GB.
"""

import dataclasses
import fractions
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import types
from ssl_jax.models import cyclegan, layers

Progress = Callable[[int, int], None]


def translate(
    generator: cyclegan.ResNetGenerator,
    params: Any,
    image: np.ndarray,
    tile_px: int,
    progress: Progress | None = None,
) -> np.ndarray:
    """What `generator.apply({"params": params}, image[None])[0]` gives, computed in tiles of `tile_px` rows.

    A tile has the picture's full width and is computed from as many rows around it as its layers look at; padding is at
    the true border alone, and statistics are the whole picture's. So the result depends on `tile_px` only by the
    rounding of single convolutions.

    Args:
        generator: what is computed is its `plan`.
        params: its parameters.
        image: float32 [h, w, c] in [-1, 1] with sides that the generator takes.
        tile_px: rows of the picture in a tile; the last may have fewer. See `check_tile`.
        progress: called with how many bands are done and how many there are, those of all layers together.

    Returns:
        float32 [h, w, image_channels] in [-1, 1].

    Raises:
        UsageError: for a tile that does not do, and for an image that the generator refuses.
    """
    check_tile(generator, tile_px)
    spec = jax.ShapeDtypeStruct((1, *image.shape), jnp.float32)
    # The generator's own checks of the image and the parameters.
    shape = jax.eval_shape(generator.apply, {"params": params}, spec).shape[1:]
    plan, dtype = generator.plan(), layers.compute_dtype(generator.dtype)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
    walk = _Walk(len(image), tile_px, _passes(plan), progress)
    lowest = len(image) * _lowest_scale(plan)
    maps = _Maps(image, None, ())
    for step in plan:
        if isinstance(step, cyclegan.Block):
            maps = _with_block(walk, maps, step, params[step.name])
        else:
            maps = _with_layer(walk, maps, step, params[step.name], lowest)
    output = np.empty(shape, np.float32)
    for rows, values in walk.bands(maps):
        output[rows] = values
    return output


def check_tile(generator: cyclegan.ResNetGenerator, tile_px: int) -> None:
    """Refuses tiles that cannot be computed one after the other.

    Raises:
        UsageError: for fewer rows than `least_px`, or rows that make no whole rows at the lowest resolution.
    """
    least, multiple = least_px(generator), _lowest_scale(generator.plan()).denominator
    if tile_px < least:
        raise types.UsageError(
            f"a tile of {tile_px} rows is smaller than the {least} that the layers look at beyond it: "
            f"give --tile_px={least} or more"
        )
    if tile_px % multiple:
        raise types.UsageError(
            f"a tile of {tile_px} rows is no multiple of {multiple}: give --tile_px={tile_px - tile_px % multiple}"
        )


def least_px(generator: cyclegan.ResNetGenerator) -> int:
    """The fewest rows of a tile: as many as the layers from one stored map to the next look at beyond it.

    With fewer most rows would be computed several times, and blocks, whose maps are replaced band by band, would need
    rows that are replaced already.
    """
    plan = generator.plan()
    multiple = _lowest_scale(plan).denominator
    return -(-max(_reach_px(plan), 1) // multiple) * multiple


@dataclasses.dataclass(frozen=True)
class _Ready:
    """A layer with what computing it takes: parameters, and the mean and 1 / deviation [c] where there is a norm."""

    layer: cyclegan.Layer
    params: Any
    statistics: tuple[jax.Array, jax.Array] | None = None


@dataclasses.dataclass(frozen=True)
class _Maps:
    """Feature maps as `array` [h, w, c] and the layers that follow; what these give need not be in memory.

    Where there is an `entry`, `array` is what that layer's convolution gave, its norm and activation yet to come.
    """

    array: np.ndarray
    entry: _Ready | None
    layers: tuple[_Ready, ...]

    def followed_by(self, ready: _Ready) -> "_Maps":
        """The maps after one layer more."""
        return dataclasses.replace(self, layers=(*self.layers, ready))


def _with_layer(walk, maps, layer, params, lowest):
    if not layer.norm:
        return maps.followed_by(_Ready(layer, params))
    store = _height(maps.followed_by(_Ready(layer, params))) == lowest
    array, ready = _convolved(walk, maps, layer, params, store)
    return _Maps(array, ready, ()) if store else maps.followed_by(ready)


def _with_block(walk, maps, block, params):
    if maps.entry is not None:
        for rows, values in walk.bands(maps):
            maps.array[rows] = values
        maps = _Maps(maps.array, None, ())
    inner = maps
    for layer in block.layers:
        # The second layer's values take the place of the first one's, and so on.
        array, ready = _convolved(walk, inner, layer, params[layer.name], True, None if inner is maps else inner.array)
        inner = _Maps(array, ready, ())
    for rows, values in walk.bands(inner, added_to=maps.array):
        maps.array[rows] = values
    return maps


def _convolved(walk, maps, layer, params, store, array=None):
    """What a layer's convolution gives, in `array` or a new one if it is stored at all, and the layer with statistics.

    The device takes mean and squared deviations of every row of the map by itself; rows, all of one length, are merged
    in float64 (Chan et al. 1979). Sums of squares would cancel where a mean is large, and one sum over millions of
    float32 rounds too often.
    """
    maps = maps.followed_by(_Ready(layer, params))
    means, squares = [], []
    for rows, (values, mean, square) in walk.bands(maps, unfinished=True):
        means.append(np.asarray(mean, np.float64))
        squares.append(np.asarray(square, np.float64))
        if store:
            array = np.empty((_height(maps), *values.shape[1:]), values.dtype) if array is None else array
            array[rows] = values
    means = np.concatenate(means)
    mean = np.mean(means, axis=0)
    variance = np.mean(np.concatenate(squares) + np.square(means - mean), axis=0)
    statistics = (mean, 1 / np.sqrt(variance + cyclegan.EPSILON))
    return array, _Ready(layer, params, tuple(jnp.asarray(numbers, jnp.float32) for numbers in statistics))


class _Walk:
    """Goes through maps of one picture band by band and tells how far it has come."""

    def __init__(self, height: int, tile_px: int, passes: int, progress: Progress | None):
        self._height, self._tile_px, self._progress = height, tile_px, progress
        self._done, self._all = 0, passes * -(-height // tile_px)

    def bands(
        self, maps: _Maps, *, unfinished: bool = False, added_to: np.ndarray | None = None
    ) -> Iterator[tuple[slice, Any]]:
        """Rows of the maps that `maps` stands for, and their values [rows, w, c], from the top on.

        A band's input is read before the band above is handed out, so that this may overwrite what it came from.

        Args:
            maps: what is computed.
            unfinished: of the last layer the convolution alone; values are then followed by each row's mean and mean
                squared deviation, float [rows, c].
            added_to: maps that the values are added to.
        """
        chain = [ready.layer for ready in maps.layers]
        height, waiting = _height(maps), None
        band_px = self._tile_px * height // self._height
        for start in range(0, height, band_px):
            rows = slice(start, min(start + band_px, height))
            seen, cuts = _seen(chain, rows, len(maps.array))
            # Copies, as JAX may compute on the very memory of what it is given.
            given = maps.array[seen].copy(), None if added_to is None else added_to[rows].copy()
            if waiting is not None:
                yield waiting
            entry = None if maps.entry is None else maps.entry.layer
            numbers = [(ready.params, ready.statistics) for ready in maps.layers]
            statistics = None if maps.entry is None else maps.entry.statistics
            values = _computed(entry, tuple(chain), cuts, unfinished, *given, statistics, numbers)
            waiting = rows, jax.tree.map(np.asarray, values)
            self._done += 1
            if self._progress is not None:
                self._progress(self._done, self._all)
        yield waiting


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _computed(entry, chain, cuts, unfinished, source, added_to, statistics, numbers):
    """One band. Of each layer's rows only those in its cut saw no border but the picture's."""
    x = source[None]
    if entry is not None:
        x = _finished(entry, x, statistics)
    for place, (layer, cut, (params, statistics)) in enumerate(zip(chain, cuts, numbers, strict=True), start=1):
        x = x.astype(params["kernel"].dtype)
        x = cyclegan.convolved(layer, x, params["kernel"], params["bias"])[:, cut[0] : cut[1]]
        if unfinished and place == len(chain):
            values = layers.at_least_float32(x[0])
            mean = jnp.mean(values, axis=1)
            return x[0], mean, jnp.mean(jnp.square(values - mean[:, None]), axis=1)
        x = _finished(layer, x, statistics)
    return x[0] if added_to is None else added_to + x[0]


def _finished(layer, x, statistics):
    """A layer's norm by the picture's statistics, and its activation."""
    if statistics is not None:
        mean, scale = (numbers.reshape(1, 1, 1, -1) for numbers in statistics)
        x = ((layers.at_least_float32(x) - mean) * scale).astype(x.dtype)
    return cyclegan.activated(layer, x)


def _seen(chain: Sequence[cyclegan.Layer], rows: slice, height: int) -> tuple[slice, tuple[tuple[int, int], ...]]:
    """What rows of a chain's input are needed for rows of its output, and what to keep of each layer's output.

    Args:
        chain: the layers.
        rows: of the last one's output.
        height: of the first one's input.

    Returns:
        The input's rows, and for each layer, computed on just the rows it needs, the first and the end of those rows
        of its result that the next one needs.
    """
    heights = [height]
    for layer in chain:
        heights.append(int(heights[-1] * _scale(layer)))
    cuts = []
    for layer, height in zip(reversed(chain), reversed(heights[:-1]), strict=True):
        above, below = layer.margin_px, layer.kernel_px - 1 - layer.margin_px
        if layer.transposed:
            # Row i adds to rows 2i - above to 2i + below.
            low, high = -((below - rows.start) // 2), (rows.stop - 1 + above) // 2
        elif layer.enlarged:
            low, high = (rows.start - above) // 2, (rows.stop - 1 + below) // 2
        else:
            # Down to a whole stride, so that what comes of the first row is a row of the map.
            low = (rows.start * layer.stride - above) // layer.stride * layer.stride
            high = (rows.stop - 1) * layer.stride + below
        low = max(low, 0)
        first = int(low * _scale(layer))
        cuts.append((rows.start - first, rows.stop - first))
        rows = slice(low, min(high + 1, height))
    return rows, tuple(reversed(cuts))


def _height(maps):
    return int(len(maps.array) * _scale(*(ready.layer for ready in maps.layers)))


def _scale(*chain):
    """How much higher maps become."""
    scale = fractions.Fraction(1)
    for layer in chain:
        scale *= 2 if layer.enlarged or layer.transposed else 1
        scale /= layer.stride
    return scale


def _all_layers(plan):
    return [layer for step in plan for layer in (step.layers if isinstance(step, cyclegan.Block) else (step,))]


def _lowest_scale(plan):
    chain = _all_layers(plan)
    return min(_scale(*chain[:end]) for end in range(len(chain) + 1))


def _reach_px(plan):
    """How many rows of the picture the layers from one stored map to the next look at beyond a band, at most."""
    far_px, lowest, reach = 2**10, _lowest_scale(plan), 0
    scale, chain = fractions.Fraction(1), []
    for layer in _all_layers(plan):
        chain.append(layer)
        end = scale * _scale(*chain)
        seen, _ = _seen(chain, slice(int(far_px * end), int(2 * far_px * end)), int(3 * far_px * scale))
        reach = max(reach, far_px - int(seen.start / scale), int(seen.stop / scale) - 2 * far_px)
        if end == lowest:
            scale, chain = end, []
    return reach


def _passes(plan):
    """How often `_Walk` goes through all bands."""
    passes = 1
    for before, step in zip([None, *plan], plan, strict=False):
        if isinstance(step, cyclegan.Block):
            passes += len(step.layers) + 1 + isinstance(before, cyclegan.Layer)
        else:
            passes += step.norm
    return passes
