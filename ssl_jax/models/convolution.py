"""Layers with PyTorch's conventions, for generative networks: convolutions, spectral normalisation, batch norm."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ssl_jax import types
from ssl_jax.models import convolution_maps, layers

conv, conv_transpose = convolution_maps.conv, convolution_maps.conv_transpose

START_ITERATIONS = 15  # of a spectral norm, as in PyTorch

Initializer = Callable[[jax.Array, tuple[int, ...], jnp.dtype], jax.Array]


class SpectralNorm(nn.Module):
    """Divides a kernel by an estimate of its largest singular value (Miyato et al., arXiv 1802.05957).

    The estimate is v^T W u of the kernel as a matrix W [inputs, outputs]. The unit vectors u and v lie in collection
    "batch_stats" and are constants to gradients. A training call takes one power iteration first: u becomes the
    direction of W^T v, then v that of W u. Initialisation takes 15 from a random v.

    Source: `torch.nn.utils.parametrizations.spectral_norm`, whose order this is. The paper's begins with W u.
    """

    @nn.compact
    def __call__(self, kernel: jax.Array, *, train: bool) -> jax.Array:
        """Float [..., outputs] to the same; `train` updates collection "batch_stats" where that is mutable."""
        matrix = kernel.reshape(-1, kernel.shape[-1])
        fixed = lax.stop_gradient(matrix)

        def iterate(v: jax.Array) -> tuple[jax.Array, jax.Array]:
            u = _unit(fixed.T @ v)
            return u, _unit(fixed @ u)

        if self.has_variable("batch_stats", "v"):
            u, v = self.get_variable("batch_stats", "u"), self.get_variable("batch_stats", "v")
            u, v = iterate(v) if train else (u, v)
        else:
            first = iterate(jax.random.normal(self.make_rng("params"), matrix.shape[:1], matrix.dtype))
            u, v = lax.fori_loop(1, START_ITERATIONS, lambda _, vectors: iterate(vectors[1]), first)
        if self.is_mutable_collection("batch_stats"):
            self.put_variable("batch_stats", "u", u)
            self.put_variable("batch_stats", "v", v)
        return kernel / (v @ matrix @ u)


class Conv(nn.Module):
    """A square convolution with PyTorch's padding: parameters `kernel` [k, k, c / groups, features] and `bias`.

    Attributes:
        features: output channels.
        kernel_px: height and width of the kernel.
        stride: of the output positions.
        padding: zeros on every side; None is `kernel_px // 2`.
        groups: splits input and output channels into as many independent convolutions.
        use_bias: whether a bias is added, which starts at 0.
        kernel_init: how the kernel starts.
        spectral: divides the kernel by its `SpectralNorm`.
        dtype: what it computes in.

    Raises:
        UsageError: when called, if the groups do not divide the channels.
    """

    features: int
    kernel_px: int = 3
    stride: int = 1
    padding: int | None = None
    groups: int = 1
    use_bias: bool = True
    kernel_init: Initializer = nn.initializers.lecun_normal()
    spectral: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Images [b, h, w, c] to [b, h', w', features] in `dtype`; h' is (h + 2 padding - kernel_px) // stride + 1."""
        channels, padding = x.shape[-1], self.kernel_px // 2 if self.padding is None else self.padding
        if channels % self.groups or self.features % self.groups:
            raise types.UsageError(f"{self.groups} groups do not divide {channels} and {self.features} channels")
        shape = (self.kernel_px, self.kernel_px, channels // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        if self.spectral:
            kernel = SpectralNorm(name="spectral_norm")(kernel, train=train)
        dtype = layers.compute_dtype(self.dtype)
        y = conv(x.astype(dtype), kernel.astype(dtype), self.stride, padding, self.groups)
        return _with_bias(self, y) if self.use_bias else y


class ConvTranspose(nn.Module):
    """A square transposed convolution as `torch.nn.ConvTranspose2d`: `kernel` [k, k, features, c] and `bias`.

    The kernel is that of the convolution whose input gradient this is; PyTorch's [c, features, k, k] needs its axes
    transposed, and no flip. The defaults double the size; so does kernel 3 with an output padding of 1.

    Attributes:
        features: output channels.
        kernel_px, stride, use_bias, kernel_init, dtype: as in `Conv`.
        padding: rows and columns left out on every side.
        output_padding: rows and columns more at the bottom and on the right; fewer than `stride`.
    """

    features: int
    kernel_px: int = 4
    stride: int = 2
    padding: int = 1
    output_padding: int = 0
    use_bias: bool = True
    kernel_init: Initializer = nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)
    dtype: str = "float32"

    @nn.compact
    def __call__(self, y: jax.Array) -> jax.Array:
        """[b, h, w, c] to [b, h', w', features]; h' = (h - 1) stride - 2 padding + kernel_px + output_padding."""
        shape = (self.kernel_px, self.kernel_px, self.features, y.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        more = self.kernel_px + self.output_padding - 2 * self.padding
        size = ((y.shape[1] - 1) * self.stride + more, (y.shape[2] - 1) * self.stride + more)
        dtype = layers.compute_dtype(self.dtype)
        x = conv_transpose(y.astype(dtype), kernel.astype(dtype), self.stride, self.padding, size)
        return _with_bias(self, x) if self.use_bias else x


class Dense(nn.Module):
    """A dense layer: parameters `kernel` [c, features] and `bias`; the fields are those of `Conv`."""

    features: int
    use_bias: bool = True
    kernel_init: Initializer = nn.initializers.lecun_normal()
    spectral: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Float [b, c] to [b, features] in `dtype`."""
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        if self.spectral:
            kernel = SpectralNorm(name="spectral_norm")(kernel, train=train)
        dtype = layers.compute_dtype(self.dtype)
        y = x.astype(dtype) @ kernel.astype(dtype)
        return _with_bias(self, y) if self.use_bias else y


class ClassEmbedding(nn.Module):
    """One vector a class: parameter `embedding` [classes, features]; the other fields are those of `Conv`."""

    classes: int
    features: int
    embedding_init: Initializer
    spectral: bool = False
    dtype: str = "float32"

    @nn.compact
    def __call__(self, label: jax.Array, *, train: bool) -> jax.Array:
        """Labels int [b], 0 to classes - 1, to vectors [b, features] in `dtype`."""
        embedding = self.param("embedding", self.embedding_init, (self.classes, self.features), jnp.float32)
        if self.spectral:
            # Transposed, since PyTorch takes the classes for the outputs.
            embedding = SpectralNorm(name="spectral_norm")(embedding.T, train=train).T
        return embedding[label].astype(layers.compute_dtype(self.dtype))


class ConditionalBatchNorm(nn.Module):
    """Batch norm with a `scale` and a `bias` [classes, c] (arXiv 1707.00683), or [c] without classes.

    Scales start by `scale_init`, biases at 0. Statistics lie under `norm`.
    """

    classes: int | None = None
    scale_init: Initializer = nn.initializers.ones
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None, *, train: bool) -> jax.Array:
        """Normalises [b, h, w, c]; labels int [b] choose scale and bias where there are classes."""
        x = layers.batch_norm(dtype=self.dtype, name="norm", affine=False)(x, train=train)
        shape = (x.shape[-1],) if self.classes is None else (self.classes, x.shape[-1])

        def chosen(name: str, initializer: Initializer) -> jax.Array:
            values = self.param(name, initializer, shape, jnp.float32).astype(x.dtype)
            return (values if self.classes is None else values[label]).reshape(-1, 1, 1, x.shape[-1])

        return x * chosen("scale", self.scale_init) + chosen("bias", nn.initializers.zeros)


def check_network(name: str, classes: int | None, dtype: str, widths: tuple[int, ...], image_channels: int = 3) -> None:
    """Refuse, with a `UsageError`, another dtype, classes or widths below 1, and other than 1 or 3 image channels."""
    layers.compute_dtype(dtype)
    layers.check_choice(f"{name} image_channels", image_channels, (1, 3))
    if classes is not None and classes < 1:
        raise types.UsageError(f"{name} classes is {classes}; give None (unconditional) or at least 1")
    if not widths or min(widths) < 1:
        raise types.UsageError(f"{name} has widths {tuple(widths)}; give one layer or more, each at least 1 wide")


def check_label(name: str, label: jax.Array | None, classes: int | None) -> None:
    """Refuse, with a `UsageError`, to call a class-conditional network without labels."""
    if classes is not None and label is None:
        raise types.UsageError(f"{name} is conditional on {classes} classes and was given no label")


def _unit(vector):
    return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-12)


def _with_bias(module, y):
    bias = module.param("bias", nn.initializers.zeros, y.shape[-1:], jnp.float32)
    return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
