"""Convolution, transposed convolution and kernel gradient, whose derivatives of any order stay on XLA's fast kernels.

They are the three bilinear maps of one sum over images, kernels and outputs; each is the derivative of the two others,
so that gradients of gradients (gradient penalties) are again these three. Left to itself, XLA takes the kernel gradient
of a transposed convolution through a dilated window, which on CPUs is some 50 times slower than the kernel gradient of
the strided convolution with images and outputs swapped.
"""

from functools import partial

import jax

from ssl_jax.models import convolution_forms


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int = 1) -> jax.Array:
    """A convolution of images [b, h, w, c] with a kernel [k, k, c / groups, f] to [b, h', w', f].

    h' is (h + 2 * padding - k) // stride + 1, as in `torch.nn.Conv2d`; both arrays have one type, the output's.
    """
    return convolution_forms.conv(x, kernel, stride, padding, groups)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def conv_transpose(
    y: jax.Array, kernel: jax.Array, stride: int, padding: int, size: tuple[int, int], groups: int = 1
) -> jax.Array:
    """The gradient of `conv` with respect to its images: [b, h', w', f] with the same kernel to [b, *size, c].

    `size` must be one that `conv` maps to h', w'; with a stride there are several.
    """
    return convolution_forms.conv_transpose(y, kernel, stride, padding, size, groups)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def kernel_gradient(
    x: jax.Array, y: jax.Array, stride: int, padding: int, window: tuple[int, int], groups: int = 1
) -> jax.Array:
    """The gradient of `conv` with respect to its kernel: images and outputs to [*window, c / groups, f]."""
    return convolution_forms.kernel_gradient(x, y, stride, padding, window, groups)


def _conv_gradients(stride, padding, groups, saved, y):
    x, kernel = saved
    of_kernel = kernel_gradient(x, y, stride, padding, kernel.shape[:2], groups)
    return conv_transpose(y, kernel, stride, padding, x.shape[1:3], groups), of_kernel


def _conv_transpose_gradients(stride, padding, size, groups, saved, x):
    y, kernel = saved
    return conv(x, kernel, stride, padding, groups), kernel_gradient(x, y, stride, padding, kernel.shape[:2], groups)


def _kernel_gradient_gradients(stride, padding, window, groups, saved, kernel):
    x, y = saved
    of_y = conv(x, kernel, stride, padding, groups)
    return conv_transpose(y, kernel, stride, padding, x.shape[1:3], groups), of_y


conv.defvjp(lambda x, kernel, *form: (conv(x, kernel, *form), (x, kernel)), _conv_gradients)
conv_transpose.defvjp(
    lambda y, kernel, *form: (conv_transpose(y, kernel, *form), (y, kernel)), _conv_transpose_gradients
)
kernel_gradient.defvjp(lambda x, y, *form: (kernel_gradient(x, y, *form), (x, y)), _kernel_gradient_gradients)
