"""Convolutions by Winograd's minimal filtering: a quarter of the products of a 3x3 window, in float32 on CPUs.

Tiles of 4x4 outputs are interpolated from products at 6x6 points (Lavin and Gray, arXiv 1509.09308, F(4x4, 3x3)): 36
products a channel instead of 144. With the matrices A, B and G for one dimension, a tile d of images and a kernel g,

    y = A^T [(G g G^T) * (B^T d B)] A,

where * is at each point a matrix product over the channels. The gradients are the transposes of this, so that the three
maps of `convolution_maps` share their parts, and a compiled step computes a part once. Tiles overlap and are not cut
out: B^T for a whole row of tiles is one banded matrix, and with it a product, which is what CPUs do fastest.

A window of 2x2 has 5x5 points. A stride is folded first: 2x2 pixels become the channels of one, so that a 4x4 window at
stride 2 is one of 2x2, with 100 products a channel instead of 256.

The points are 0, +-sqrt(1/2), +-sqrt(2) and infinity: with 128 channels float32 then rounds 2.3 times as much as in a
direct convolution with a 3x3 window (6.8e-7 of the outputs' deviation, root mean square) and three times as much with
4x4. With 0, +-1 and +-2 it would be 4.7 and 3.8 times.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

TILE = 4
WINDOWS = (2, 3)  # after folding
POINTS = (0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2.0), -math.sqrt(2.0))

Sizes = tuple[int, int]


def conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """See `convolution_maps.conv`: images [b, h, w, c] and a kernel [k, k, c, f] to [b, h', w', f].

    `k / stride` must be among `WINDOWS`.
    """
    window = len(kernel) // stride
    height, width = ((size + 2 * padding - len(kernel)) // stride + 1 for size in x.shape[1:3])
    products = jnp.einsum(
        "ijvbuc,ijcf->ijvbuf",
        _images_at_points(x, stride, padding, (height, width), window),
        _kernel_at_points(kernel, stride),
    )
    return _from_points(products, _outputs(window, height), _outputs(window, width))


def conv_transpose(y: jax.Array, kernel: jax.Array, stride: int, padding: int, size: Sizes) -> jax.Array:
    """See `convolution_maps.conv_transpose`: outputs [b, h', w', f] to images [b, *size, c]."""
    window = len(kernel) // stride
    at_points = _outputs_at_points(y, window)
    products = jnp.einsum("ijvbuf,ijcf->ijvbuc", at_points, _kernel_at_points(kernel, stride))
    folded, rest = _folded_sizes(size, stride, padding, y.shape[1:3], window)
    x = _from_points(products, *(_images(window, folded[i], rest, y.shape[1 + i]) for i in (0, 1)))
    return _unfolded_images(x, stride, padding, size)


def kernel_gradient(x: jax.Array, y: jax.Array, stride: int, padding: int, window: int) -> jax.Array:
    """See `convolution_maps.kernel_gradient`: images and outputs to [window, window, c, f]."""
    images = _images_at_points(x, stride, padding, y.shape[1:3], window // stride)
    outputs = _outputs_at_points(y, window // stride)
    # Of one axis to sum over: of three, XLA would copy both arrays.
    images, outputs = (array.reshape(len(array) ** 2, -1, array.shape[-1]) for array in (images, outputs))
    products = jnp.einsum("ptc,ptf->pcf", images, outputs)
    gradient = _both(_kernels(window // stride)).T @ products.reshape(len(products), -1)
    gradient = gradient.reshape(window // stride, window // stride, stride, stride, x.shape[-1], y.shape[-1])
    return gradient.transpose(0, 2, 1, 3, 4, 5).reshape(window, window, x.shape[-1], y.shape[-1])


def _images_at_points(x, stride, padding, outputs, window):
    folded, rest = _folded_sizes(x.shape[1:3], stride, padding, outputs, window)
    if stride > 1:
        x = _margins(x, [(padding, stride * folded[i] - padding - x.shape[1 + i]) for i in (0, 1)])
        x = x.reshape(len(x), folded[0], stride, folded[1], stride, x.shape[-1])
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(len(x), *folded, -1)
    return _to_points(x, *(_images(window, folded[i], rest, outputs[i]) for i in (0, 1)))


def _unfolded_images(x, stride, padding, size):
    if stride == 1:
        return x
    images, height, width = x.shape[:3]
    x = x.reshape(images, height, width, stride, stride, -1).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(images, stride * height, stride * width, -1)
    return _margins(x, [(-padding, size[i] + padding - x.shape[1 + i]) for i in (0, 1)])


def _folded_sizes(size, stride, padding, outputs, window):
    """Height and width after folding, and the padding that is left: folding takes it in."""
    return (size, padding) if stride == 1 else (tuple(output + window - 1 for output in outputs), 0)


def _margins(x, margins):
    """Adds zeros above and below, left and right, or takes away where a margin is negative."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in margins), (0, 0, 0)])


def _outputs_at_points(y, window):
    return _to_points(y, *(_outputs(window, size) for size in y.shape[1:3]))


def _kernel_at_points(kernel, stride):
    window, (channels, features) = len(kernel) // stride, kernel.shape[2:]
    kernel = kernel.reshape(window, stride, window, stride, channels, features).transpose(0, 2, 1, 3, 4, 5)
    at_points = _both(_kernels(window)) @ kernel.reshape(window**2, -1)
    return at_points.reshape(*[len(_kernels(window))] * 2, -1, features)


def _to_points(x, rows, columns):
    """[b, h, w, c] to [points, points, tiles across, b, tiles down, c]; the matrices are [points, tiles, size]."""
    (images, height, width, channels), (points, tiles) = x.shape, rows.shape[:2]
    x = _times(rows.reshape(-1, height), x.reshape(images, height, -1))
    x = x.reshape(images, points, tiles, width, channels).transpose(1, 3, 0, 2, 4)
    x = _times(columns.reshape(-1, width), x.reshape(points, width, -1))
    return x.reshape(points, points, -1, images, tiles, channels)


def _from_points(x, rows, columns):
    """The transpose of `_to_points`."""
    images, channels, (points, tiles, height), width = x.shape[3], x.shape[5], rows.shape, columns.shape[2]
    x = _times(columns.reshape(-1, width).T, x.reshape(points, -1, images * tiles * channels))
    x = x.reshape(points, width, images, tiles, channels).transpose(2, 0, 3, 1, 4)
    x = _times(rows.reshape(-1, height).T, x.reshape(images, points * tiles, -1))
    return x.reshape(images, height, width, channels)


def _times(matrix, x):
    """One small matrix [k, h] with each of [n, h, m], as the batch of products that XLA has a fast kernel for."""
    return jnp.broadcast_to(matrix, (len(x), *matrix.shape)) @ x


def _both(matrix):
    """What a matrix of one dimension is for two."""
    return np.kron(matrix, matrix)


@functools.cache
def _images(window, size, padding, outputs):
    """B^T for all tiles [points, tiles, size]: each tile begins where the outputs of the one before end."""
    transform, tiles = _transforms(window)[1], -(-outputs // TILE)
    banded = np.zeros((len(transform), tiles, padding + size + padding + TILE + window), np.float32)
    for tile in range(tiles):
        banded[:, tile, TILE * tile :][:, : len(transform)] = transform
    return banded[:, :, padding : padding + size]


@functools.cache
def _outputs(window, size):
    """A for all tiles [points, tiles, size]."""
    transform, tiles = _transforms(window)[0], -(-size // TILE)
    banded = np.zeros((len(transform), tiles, TILE * tiles), np.float32)
    for tile in range(tiles):
        banded[:, tile, TILE * tile :][:, :TILE] = transform
    return banded[:, :, :size]


def _kernels(window):
    return _transforms(window)[2]


@functools.cache
def _transforms(window):
    """A [points, outputs], B^T [points, points] and G [points, window], which interpolate at the points."""
    points = np.array(POINTS[: TILE + window - 2])
    at_infinity = np.zeros((1, len(points) + 1))
    at_infinity[0, -1] = 1
    scales = np.array([np.prod([point - other for other in points if other != point]) for point in points])
    outputs = np.vstack([np.vander(points, TILE, increasing=True), at_infinity[:, -TILE:]])
    kernels = np.vstack([np.vander(points, window, increasing=True) / scales[:, None], at_infinity[:, -window:]])
    # sum_p A[p, i] B^T[p, k] G[p, j] is 1 for k = i + j and else 0, which says that the three make a correlation.
    products = np.einsum("pi,pj->ijp", outputs, kernels).reshape(-1, len(outputs))
    wanted = [np.eye(len(outputs))[i + j] for i in range(TILE) for j in range(window)]
    images = np.linalg.lstsq(products, np.array(wanted), rcond=None)[0]
    return tuple(matrix.astype(np.float32) for matrix in (outputs, images, kernels))
