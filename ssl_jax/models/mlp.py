"""Dense networks without norms for GANs on vectors, such as mixtures of Gaussians in two dimensions."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax import types
from ssl_jax.models import convolution, layers


class Generator(nn.Module):
    """Latent vectors to vectors: dense layers with ReLU and a linear one; a class joins the latent as a one-hot vector.

    Parameters lie under `dense1`, `dense2`, .... Kernels start normal with variance 2 / inputs (He), the last 1 /
    inputs (LeCun), biases at 0.

    Attributes:
        output: width of the vectors it makes.
        hidden: widths of the layers before.
        classes: how many classes, for the class-conditional form.
        dtype: what the layers compute in.

    Raises:
        UsageError: for widths or classes below 1, and another dtype.
    """

    output: int = 2
    hidden: tuple[int, ...] = (128, 128)
    classes: int | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        widths = (self.output, *self.hidden)
        convolution.check_network("the dense generator", self.classes, self.dtype, widths)
        super().__post_init__()

    @nn.compact
    def __call__(self, latent: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Latent float [b, d] and labels int [b] (read only with `classes`) to float32 [b, output].

        Raises:
            UsageError: for a missing label.
        """
        del train
        x = _with_class("the dense generator", latent, label, self.classes)
        for layer, width in enumerate(self.hidden, start=1):
            x = nn.relu(_dense(width, 2.0, self.dtype, f"dense{layer}")(x))
        return layers.at_least_float32(_dense(self.output, 1.0, self.dtype, f"dense{len(self.hidden) + 1}")(x))


class Discriminator(nn.Module):
    """Vectors to logits: dense layers with LeakyReLU 0.2 and a linear one; names, classes and starts as `Generator`.

    Attributes:
        hidden: widths of the layers before the last.
        classes: how many classes, for the class-conditional form.
        dtype: what the layers compute in.

    Raises:
        UsageError: for widths or classes below 1, no hidden layer, and another dtype.
    """

    hidden: tuple[int, ...] = (128, 128)
    classes: int | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        convolution.check_network("the dense discriminator", self.classes, self.dtype, self.hidden)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Vectors float [b, d] and labels int [b] (read only with `classes`) to logits float32 [b].

        Raises:
            UsageError: for images [b, h, w, c], and for a missing label.
        """
        del train
        if images.ndim != 2:
            raise types.UsageError(f"the dense discriminator takes vectors [b, d], not shape {images.shape}")
        x = _with_class("the dense discriminator", images, label, self.classes)
        for layer, width in enumerate(self.hidden, start=1):
            x = nn.leaky_relu(_dense(width, 2.0, self.dtype, f"dense{layer}")(x), 0.2)
        return layers.at_least_float32(_dense(1, 1.0, self.dtype, f"dense{len(self.hidden) + 1}")(x)).reshape(-1)


def _with_class(name: str, x: jax.Array, label: jax.Array | None, classes: int | None) -> jax.Array:
    convolution.check_label(name, label, classes)
    if classes is None:
        return x
    return jnp.concatenate([x, jax.nn.one_hot(label, classes, dtype=x.dtype)], axis=-1)


def _dense(features: int, gain: float, dtype: str, name: str) -> nn.Dense:
    kernel_init = nn.initializers.variance_scaling(gain, "fan_in", "normal")
    return nn.Dense(features, kernel_init=kernel_init, dtype=layers.compute_dtype(dtype), name=name)
