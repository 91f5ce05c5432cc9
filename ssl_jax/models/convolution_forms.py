"""How the maps of `convolution` are computed: on CPUs in the forms that XLA computes fast, else by its convolution.

On CPUs the shapes alone decide whether XLA takes its fast kernel. These forms, equal up to rounding, do; factors are of
one core's time in float32:

- a 3x3 window at stride 1 or 4x4 at stride 2 between many channels on small maps: `winograd`, 1.1 to 2.5 times for the
  three maps together, which share parts; a convolution alone 0.9 to 1.7 times, with 4x4 0.6 to 0.8;
- a convolution without padding gets one spare row below: 3 to 30 times where maps are large or outputs few (66 x 66 x
  256 to 256 channels; a 7x7 layer to RGB), else as fast;
- of few channels to fewer than 64: up to four neighbouring output columns as the channels of one, 3 to 7 times;
- between at most 16 channels at stride 1: two columns as one, 1.3 times; not for `conv_transpose`, mostly the gradient
  of images, since XLA's fast kernel keeps to one core where rows are short, and the other, which shares the work, lets
  the kernel's gradient go on meanwhile: 0.92 of a training step on two cores;
- a stride-1 gradient of images of few channels that is larger than the outputs: products, then their shifted sum, 2 to
  4 times;
- a transposed convolution of maps below 4 px: phase by phase, 9 times;
- a kernel gradient of few outputs at stride 1: one matrix product a row of the window, 2 to 5 times;
- one of few positions, between many channels on large maps or with a stride: one product a position, 1.3 to 6 times
  where images outgrow a cache;
- one at stride 1 of many pixels: a product for all positions, of the outputs as each row of the window meets them with
  the images as each column does, a few images at a time, 2 to 2.6 times;
- one of groups: the same, 100 times.

Nothing here is differentiated: `convolution` states the derivatives.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax.models import winograd

FEW_CHANNELS = 4
FAST_FEATURES = 64  # with fewer, convolutions of few channels miss the fast kernel
NARROW = 16  # convolutions between no more channels miss it too
MOST_COLUMNS = 4
LEAST_MAP_PX = 4
MOST_TAPS, MOST_TAPS_STRIDED = 9, 16
WIDE, WIDE_STRIDED, LEAST_PIXELS, LEAST_PIXELS_STRIDED = 128, 32, 2048, 1024
LEAST_NUMBERS = 2**20  # of images of fewer than WIDE_STRIDED channels
LEAST_CROSSED_PX, LEAST_CROSSED_PIXELS = 12, 8192
COPIES_BYTES = 2**18  # at 16 px and 32 channels one image; XLA shares a larger product between cores, at a loss
LEAST_FILTERED = 64  # channels
LEAST_FILTERED_WORK = {(3, 3, 1): 2**25, (4, 4, 2): 2**27}  # pixels times channels of both sides, by window and stride

Margins = list[tuple[int, int]]


def conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int) -> jax.Array:
    """See `convolution.conv`."""
    if _is_filtered(x.shape, kernel.shape, stride, groups, x, kernel):
        return winograd.conv(x, kernel, stride, padding)
    return _conv(x, kernel, stride, [(padding, padding)] * 2, groups)


def conv_transpose(
    y: jax.Array, kernel: jax.Array, stride: int, padding: int, size: tuple[int, int], groups: int
) -> jax.Array:
    """See `convolution.conv_transpose`."""
    if not _on_cpu():
        return _lax_conv_transpose(y, kernel, stride, padding, size, groups)
    if _is_filtered((*y.shape[:1], *size), kernel.shape, stride, groups, y, kernel):
        return winograd.conv_transpose(y, kernel, stride, padding, size)
    if groups == 1:
        if max(y.shape[1:3]) < LEAST_MAP_PX:
            phases = _conv_transpose_by_phases(y, kernel, stride, padding, size)
            if phases is not None:
                return phases
        if stride == 1 and kernel.shape[2] <= FEW_CHANNELS and min(size) > max(y.shape[1:3]):
            return _conv_transpose_by_products(y, kernel, padding, size)
    window, margins = kernel.shape[:2], []
    for axis in (0, 1):
        low = window[axis] - 1 - padding
        margins.append((low, size[axis] + window[axis] - 2 - low - (y.shape[1 + axis] - 1) * stride))
    flipped = kernel[::-1, ::-1].reshape(*window, kernel.shape[2], groups, -1)
    flipped = flipped.transpose(0, 1, 4, 3, 2).reshape(*window, kernel.shape[3] // groups, -1)
    if stride == 1:
        return _conv(y, flipped, 1, margins, groups, narrow_columns=1)
    return _lax_conv(y, flipped, (1, 1), margins, groups, dilation=stride)


def kernel_gradient(
    x: jax.Array, y: jax.Array, stride: int, padding: int, window: tuple[int, int], groups: int
) -> jax.Array:
    """See `convolution.kernel_gradient`."""
    if _on_cpu():
        if _is_filtered(x.shape, (*window, x.shape[-1], y.shape[-1]), stride, groups, x, y):
            return winograd.kernel_gradient(x, y, stride, padding, window[0])
        if groups == 1 and _is_crossed(x, y, stride, window):
            return _kernel_gradient_crossed(x, y, padding, window)
        if groups > 1 or _is_wide(x, y, stride, window):
            return _kernel_gradient_by_taps(x, y, stride, padding, window, groups)
        if stride == 1 and y.shape[-1] <= FEW_CHANNELS < x.shape[-1] and padding < min(window):
            return _kernel_gradient_by_rows(x, y, padding, window)
    return _lax_kernel_gradient(x, y, stride, [(padding, padding)] * 2, window, groups)


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _is_filtered(image_shape, kernel_shape, stride, groups, *arrays):
    """Whether Winograd's filtering beats the other forms of all three maps together, as a training step takes them."""
    least = LEAST_FILTERED_WORK.get((*kernel_shape[:2], stride))
    if least is None or groups > 1 or any(array.dtype != jnp.float32 for array in arrays) or not _on_cpu():
        return False
    # Devices that share a batch would send each other all images and outputs at their points.
    if not _is_one_known_batch(image_shape):
        return False
    narrowest = min(kernel_shape[2:])
    small = narrowest >= max(LEAST_FILTERED, 2 * max(image_shape[1:3]) // stride)
    return small and math.prod((*image_shape[:3], *kernel_shape[2:])) >= least


def _is_one_known_batch(shape):
    """Whether one device holds all images, and their sizes are numbers."""
    return jax.device_count() == 1 and all(isinstance(size, int) for size in shape)


def _is_wide(x, y, stride, window):
    """Whether one matrix product a position beats XLA's kernel gradient, which falls off where maps outgrow a cache."""
    narrowest, pixels, positions = min(x.shape[-1], y.shape[-1]), y[..., 0].size, window[0] * window[1]
    if stride == 1:
        return narrowest >= WIDE and pixels >= LEAST_PIXELS and positions <= MOST_TAPS
    if positions <= MOST_TAPS:
        return narrowest >= (NARROW if x.size >= LEAST_NUMBERS else WIDE_STRIDED)
    return narrowest >= WIDE and pixels >= LEAST_PIXELS_STRIDED and positions <= MOST_TAPS_STRIDED


def _is_crossed(x, y, stride, window):
    """Whether the images' and the outputs' copies, one a column and one a row, cost less than XLA's kernel gradient."""
    narrowest, pixels, positions = min(x.shape[-1], y.shape[-1]), y[..., 0].size, window[0] * window[1]
    large = y.shape[1] >= LEAST_CROSSED_PX and pixels >= LEAST_CROSSED_PIXELS
    return stride == 1 and large and narrowest >= NARROW and 1 < positions <= MOST_TAPS


def _lax_conv(x, kernel, strides, margins, groups=1, dilation=1):
    dilations, layout = (dilation, dilation), ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, strides, margins, dilations, None, layout, groups)


def _lax_conv_transpose(y, kernel, stride, padding, size, groups):
    images = jax.ShapeDtypeStruct((len(y), *size, kernel.shape[2] * groups), y.dtype)
    margins = [(padding, padding)] * 2
    return jax.linear_transpose(lambda x: _lax_conv(x, kernel, (stride, stride), margins, groups), images)(y)[0]


def _lax_kernel_gradient(x, y, stride, margins, window, groups):
    kernel = jax.ShapeDtypeStruct((*window, x.shape[-1] // groups, y.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda kernel: _lax_conv(x, kernel, (stride, stride), margins, groups), kernel)(y)[0]


def _conv(x, kernel, stride, margins: Margins, groups, narrow_columns=2):
    """With a spare row where there is no padding, and with several output columns as one where channels are few.

    `narrow_columns` are those of layers with more than a few channels and at most `NARROW`.
    """
    window, features = kernel.shape[:2], kernel.shape[3]
    if groups > 1 or max(window) == 1 or not _on_cpu():
        return _lax_conv(x, kernel, (stride, stride), margins, groups)
    height, width = ((x.shape[1 + i] + sum(margins[i]) - window[i]) // stride + 1 for i in (0, 1))
    columns = 1
    if kernel.shape[2] <= FEW_CHANNELS:
        columns = max(1, min(MOST_COLUMNS, FAST_FEATURES // features))
    elif stride == 1 and max(kernel.shape[2:]) <= NARROW:
        columns = narrow_columns
    if columns > 1:
        shifts = [(stride * i, stride * (columns - 1 - i)) for i in range(columns)]
        kernel = jnp.concatenate([jnp.pad(kernel, ((0, 0), shift, (0, 0), (0, 0))) for shift in shifts], axis=-1)
    (top, bottom), (left, right) = margins
    if max(top, bottom, left, right) <= 0 and height >= LEAST_MAP_PX:
        bottom += stride
    right += stride * (-width % columns)
    y = _lax_conv(x, kernel, (stride, stride * columns), [(top, bottom), (left, right)])
    return y.reshape(*y.shape[:2], -1, features)[:, :height, :width]


def _conv_transpose_by_products(y, kernel, padding, size):
    """At stride 1: one matrix product for what all positions of the window add to the images, then the shifted sum."""
    (rows, columns), (channels, features) = kernel.shape[:2], kernel.shape[2:]
    taps = jnp.einsum("ijcf,nf->ijcn", kernel, y.reshape(-1, features))
    taps, zero, x = taps.reshape(rows, columns, channels, *y.shape[:3]), jnp.zeros((), y.dtype), 0
    for row in range(rows):
        for column in range(columns):
            first = (row - padding, column - padding)
            margins = [(first[i], size[i] - first[i] - y.shape[1 + i], 0) for i in (0, 1)]
            x += lax.pad(taps[row, column], zero, [(0, 0, 0), (0, 0, 0), *margins])
    return x.transpose(1, 2, 3, 0)


def _conv_transpose_by_phases(y, kernel, stride, padding, size):
    """One plain convolution that makes the `stride` x `stride` phases of the images as channels, then interleaved.

    No faster than XLA's dilated convolution on wider maps. None where the kernel does not fall into whole phases, or
    the output reaches beyond them.
    """
    (height, width), (channels, features) = kernel.shape[:2], kernel.shape[2:]
    rows, columns = height // stride, width // stride
    whole = (stride * (y.shape[1] + rows - 1), stride * (y.shape[2] + columns - 1))
    if height % stride or width % stride or any(padding + need > have for need, have in zip(size, whole, strict=True)):
        return None
    phases = kernel.reshape(rows, stride, columns, stride, channels, features)[::-1, :, ::-1]
    phases = phases.transpose(0, 2, 5, 1, 3, 4).reshape(rows, columns, features, -1)
    x = _lax_conv(y, phases, (1, 1), [(rows - 1, rows - 1), (columns - 1, columns - 1)])
    x = x.reshape(*x.shape[:3], stride, stride, channels).transpose(0, 1, 3, 2, 4, 5).reshape(-1, *whole, channels)
    return x[:, padding : padding + size[0], padding : padding + size[1]]


def _kernel_gradient_by_taps(x, y, stride, padding, window, groups):
    """One matrix product a group and position in the window."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = ((size - 1) * stride + 1 for size in y.shape[1:3])
    y = y.reshape(-1, groups, y.shape[-1] // groups)
    # The axis of groups, even of one, makes XLA transpose the outputs once for its fast product of all positions. That
    # is worth it where there are many positions of many channels; a 1x1 window takes 3 to 6 times as long by it.
    without_groups_axis = groups == 1 and (max(window) == 1 or min(x.shape[-1], y.shape[-1]) < WIDE_STRIDED)
    taps = []
    for row in range(window[0]):
        for column in range(window[1]):
            seen = x[:, row : row + height : stride, column : column + width : stride].reshape(len(y), groups, -1)
            if without_groups_axis:
                taps.append(seen[:, 0].T @ y[:, 0])
            else:
                taps.append(jnp.einsum("ngc,ngf->cgf", seen, y))
    return jnp.stack(taps).reshape(*window, -1, y.shape[1] * y.shape[2])


def _kernel_gradient_crossed(x, y, padding, window):
    """At stride 1: a matrix product of the outputs as each row of the window meets them with the images by column.

    The entries of [rows, f, columns, c] are the sums for every position of the window, none of them in vain. It goes
    through the batch in pieces, whose copies stay in a core's cache, and sums them up in at least float32; not where
    devices may share the batch, or its size is not known.
    """
    (rows, columns), (batch, height, width, features), channels = window, y.shape, x.shape[-1]
    numbers = jnp.result_type(x, y)
    wide = jnp.promote_types(numbers, jnp.float32)
    at_once = batch
    if _is_one_known_batch(x.shape):
        image_numbers = (x.shape[1] + 2 * padding) * width * (rows * features + columns * channels)
        at_once = _largest_divisor(batch, COPIES_BYTES // (image_numbers * numbers.itemsize))

    def product(images, outputs):
        images = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        seen = jnp.concatenate([images[:, :, column : column + width] for column in range(columns)], axis=-1)
        # Transposed, XLA multiplies them by its fast kernel; padded before they are put side by side, it copies in
        # half the time.
        spare = images.shape[1] - height
        outputs = jnp.pad(outputs.transpose(3, 0, 1, 2), ((0, 0), (0, 0), (spare, spare), (0, 0)))
        met = [outputs[:, :, spare - row : spare - row + images.shape[1]] for row in range(rows)]
        met = jnp.concatenate(met).reshape(rows * features, -1)
        return jnp.matmul(met, seen.reshape(-1, columns * channels), preferred_element_type=wide)

    def add_piece(piece, total):
        return total + product(*(lax.dynamic_slice_in_dim(array, piece * at_once, at_once) for array in (x, y)))

    if at_once == batch:
        gradient = product(x, y)
    else:
        nothing = jnp.zeros((rows * features, columns * channels), wide)
        gradient = lax.fori_loop(0, batch // at_once, add_piece, nothing)
    return gradient.astype(numbers).reshape(rows, features, columns, channels).transpose(0, 2, 3, 1)


def _largest_divisor(number, limit):
    """The largest divisor of a number that is at most a limit, or 1."""
    return max(
        divisor for divisor in range(1, number + 1) if number % divisor == 0 and (divisor <= limit or divisor == 1)
    )


def _kernel_gradient_by_rows(x, y, padding, window):
    """At stride 1: one matrix product a row of the window, of the images with the outputs as each column meets them."""
    height, width, channels = x.shape[1:]
    margins = [(size - 1 - padding,) * 2 for size in window]
    y = jnp.pad(y.transpose(3, 0, 1, 2), ((0, 0), (0, 0), *margins))
    shifted = jnp.stack([y[..., column : column + width] for column in reversed(range(window[1]))])
    rows = [shifted[..., row : row + height, :].reshape(-1, x[..., 0].size) for row in reversed(range(window[0]))]
    gradient = jnp.stack([row @ x.reshape(-1, channels) for row in rows])
    return gradient.reshape(*window, -1, channels).swapaxes(2, 3)
