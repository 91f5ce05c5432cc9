"""Convolutions by Winograd's minimal filtering: a quarter of the products of a 3x3 window, in float32 on CPUs.

Tiles of 4x4 outputs are interpolated from products at 6x6 points (Lavin and Gray, arXiv 1509.09308, F(4x4, 3x3)): 36
products a channel instead of 144. With the matrices A, B and G for one dimension, a tile d of images and a kernel g,

    y = A^T [(G g G^T) * (B^T d B)] A,

where * is at each point a matrix product over the channels. The gradients are the transposes of this, so that the three
maps of `convolution_maps` share their parts, and a compiled step computes a part once. Tiles overlap and are not cut
out: B^T for a whole row of tiles is one banded matrix, and with it a product, which is what CPUs do fastest; but its
cost a pixel grows with the length of the row, so this is for sides of fewer pixels than there are channels.

A kernel of 2x2 taps has 5x5 points. A stride is folded first: 2x2 pixels become the channels of one, so that a 4x4
window at stride 2 has 2x2 taps, and 100 products a channel instead of 256.

The points are 0, +-sqrt(1/2), sqrt(2), for three taps -sqrt(2), and infinity. Between 128 channels float32 then rounds
three times as much as in a direct convolution of 3x3 (1.1e-6 of the deviation, root mean square; kernel gradients of
many tiles four times), and four to six times as much with 4x4 at stride 2 (1.6e-6). With 0, +-1 and +-2 it would be
twice that for 3x3. An error is relative to the largest value nearby, not to each output's; and a pixel that is infinite
makes its whole image so or undefined, not its neighbours alone.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

TILE = 4
POINTS = (0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2.0), -math.sqrt(2.0))


def conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """See `convolution_maps.conv`: images [b, h, w, c] and a kernel [k, k, c, f] to [b, h', w', f].

    `k / stride` is the number of taps, 2 or 3.
    """
    taps = len(kernel) // stride
    height, width = ((size + 2 * padding - len(kernel)) // stride + 1 for size in x.shape[1:3])
    products = jnp.einsum(
        "ijvbuc,ijcf->ijvbuf",
        _images_at_points(x, stride, padding, (height, width), taps),
        _kernel_at_points(kernel, stride),
    )
    return _from_points(products, _output_band(taps, height), _output_band(taps, width))


def conv_transpose(y: jax.Array, kernel: jax.Array, stride: int, padding: int, size: tuple[int, int]) -> jax.Array:
    """See `convolution_maps.conv_transpose`: outputs [b, h', w', f] to images [b, *size, c]."""
    taps = len(kernel) // stride
    at_points = _outputs_at_points(y, taps)
    products = jnp.einsum("ijvbuf,ijcf->ijvbuc", at_points, _kernel_at_points(kernel, stride))
    folded, rest = _folded_sizes(size, stride, padding, y.shape[1:3], taps)
    x = _from_points(products, *(_image_band(taps, folded[i], rest, y.shape[1 + i]) for i in (0, 1)))
    return _unfolded_images(x, stride, padding, size)


def kernel_gradient(x: jax.Array, y: jax.Array, stride: int, padding: int, window: int) -> jax.Array:
    """See `convolution_maps.kernel_gradient`: images and outputs to [window, window, c, f]."""
    taps = window // stride
    images, outputs = _images_at_points(x, stride, padding, y.shape[1:3], taps), _outputs_at_points(y, taps)
    # Of one axis to sum over: of three, XLA would copy both arrays.
    images, outputs = (array.reshape(len(array) ** 2, -1, array.shape[-1]) for array in (images, outputs))
    products = jnp.einsum("ptc,ptf->pcf", images, outputs)
    gradient = _both(_kernel_matrix(taps)).T @ products.reshape(len(products), -1)
    gradient = gradient.reshape(taps, taps, stride, stride, x.shape[-1], y.shape[-1])
    return gradient.transpose(0, 2, 1, 3, 4, 5).reshape(window, window, x.shape[-1], y.shape[-1])


def _images_at_points(x, stride, padding, outputs, taps):
    folded, rest = _folded_sizes(x.shape[1:3], stride, padding, outputs, taps)
    if stride > 1:
        x = _margins(x, [(padding, stride * folded[i] - padding - x.shape[1 + i]) for i in (0, 1)])
        x = x.reshape(len(x), folded[0], stride, folded[1], stride, x.shape[-1])
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(len(x), *folded, -1)
    return _to_points(x, *(_image_band(taps, folded[i], rest, outputs[i]) for i in (0, 1)))


def _unfolded_images(x, stride, padding, size):
    if stride == 1:
        return x
    batch, height, width = x.shape[:3]
    x = x.reshape(batch, height, width, stride, stride, -1).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(batch, stride * height, stride * width, -1)
    return _margins(x, [(-padding, size[i] + padding - x.shape[1 + i]) for i in (0, 1)])


def _folded_sizes(size, stride, padding, outputs, taps):
    """Height and width after folding, and the padding that is left: folding takes it in."""
    return (size, padding) if stride == 1 else (tuple(output + taps - 1 for output in outputs), 0)


def _margins(x, margins):
    """Adds zeros above and below, left and right, or takes away where a margin is negative."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in margins), (0, 0, 0)])


def _outputs_at_points(y, taps):
    return _to_points(y, *(_output_band(taps, size) for size in y.shape[1:3]))


def _kernel_at_points(kernel, stride):
    taps, (channels, features) = len(kernel) // stride, kernel.shape[2:]
    kernel = kernel.reshape(taps, stride, taps, stride, channels, features).transpose(0, 2, 1, 3, 4, 5)
    at_points = _both(_kernel_matrix(taps)) @ kernel.reshape(taps**2, -1)
    return at_points.reshape(*[len(_kernel_matrix(taps))] * 2, -1, features)


def _to_points(x, rows, columns):
    """[b, h, w, c] to [points, points, tiles across, b, tiles down, c]; the matrices are [points, tiles, size]."""
    (batch, height, width, channels), (points, tiles) = x.shape, rows.shape[:2]
    x = _times(rows.reshape(-1, height), x.reshape(batch, height, -1))
    x = x.reshape(batch, points, tiles, width, channels).transpose(1, 3, 0, 2, 4)
    x = _times(columns.reshape(-1, width), x.reshape(points, width, -1))
    return x.reshape(points, points, -1, batch, tiles, channels)


def _from_points(x, rows, columns):
    """The transpose of `_to_points`."""
    batch, channels, (points, tiles, height), width = x.shape[3], x.shape[5], rows.shape, columns.shape[2]
    x = _times(columns.reshape(-1, width).T, x.reshape(points, -1, batch * tiles * channels))
    x = x.reshape(points, width, batch, tiles, channels).transpose(2, 0, 3, 1, 4)
    x = _times(rows.reshape(-1, height).T, x.reshape(batch, points * tiles, -1))
    return x.reshape(batch, height, width, channels)


def _times(matrix, x):
    """One small matrix [k, h] with each of [n, h, m], as the batch of products that XLA has a fast kernel for."""
    return jnp.broadcast_to(matrix, (len(x), *matrix.shape)) @ x


def _both(matrix):
    """What a matrix of one dimension is for two."""
    return np.kron(matrix, matrix)


@functools.cache
def _image_band(taps, size, padding, outputs):
    """B^T for all tiles [points, tiles, size]: each tile begins where the outputs of the one before end."""
    return _band(_transforms(taps)[1], outputs, padding + size)[:, :, padding:]


@functools.cache
def _output_band(taps, size):
    """A for all tiles [points, tiles, size]."""
    return _band(_transforms(taps)[0], size, size)


def _band(transform, outputs, length):
    """A transform [points, n] at every tile's place in a row [points, tiles, length], zeros beside it."""
    tiles, (points, width) = -(-outputs // TILE), transform.shape
    banded = np.zeros((points, tiles, max(length, TILE * tiles + width)), np.float32)
    for tile in range(tiles):
        banded[:, tile, TILE * tile :][:, :width] = transform
    return banded[:, :, :length]


def _kernel_matrix(taps):
    return _transforms(taps)[2]


@functools.cache
def _transforms(taps):
    """A [points, outputs], B^T [points, points] and G [points, taps], which interpolate at the points."""
    points = np.array(POINTS[: TILE + taps - 2])
    at_infinity = np.zeros((1, len(points) + 1))
    at_infinity[0, -1] = 1
    scales = np.array([np.prod([point - other for other in points if other != point]) for point in points])
    outputs = np.vstack([np.vander(points, TILE, increasing=True), at_infinity[:, -TILE:]])
    kernels = np.vstack([np.vander(points, taps, increasing=True) / scales[:, None], at_infinity[:, -taps:]])
    # sum_p A[p, i] B^T[p, k] G[p, j] is 1 for k = i + j and else 0, which says that the three make a correlation.
    products = np.einsum("pi,pj->ijp", outputs, kernels).reshape(-1, len(outputs))
    wanted = [np.eye(len(outputs))[i + j] for i in range(TILE) for j in range(taps)]
    images = np.linalg.lstsq(products, np.array(wanted), rcond=None)[0]
    return tuple(matrix.astype(np.float32) for matrix in (outputs, images, kernels))
