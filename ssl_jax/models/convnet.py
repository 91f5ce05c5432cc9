"""A plain small convolutional network, for images of a dozen pixels and minutes of two cores."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax import types
from ssl_jax.models import layers


class ConvNet(nn.Module):
    """3x3 convolutions, each with batch norm and ReLU, and a mean over all positions.

    Parameters lie under `conv1`, `norm1`, `conv2`, and so on.

    Attributes:
        channels: the channels that each convolution makes.
        strides: the stride of each.
        dtype: what the layers compute in, "float32" or "bfloat16".
        norm_groups: into how many parts a training batch is cut, each normalised by itself (`layers.BatchNorm`).

    Raises:
        UsageError: if channels and strides are empty or differ in length, or hold a number below 1.
    """

    channels: tuple[int, ...] = (32, 32, 64, 64, 128)
    strides: tuple[int, ...] = (1, 2, 1, 2, 1)
    dtype: str = "float32"
    norm_groups: int = 1

    def __post_init__(self) -> None:
        layers.compute_dtype(self.dtype)
        if not self.channels or len(self.channels) != len(self.strides):
            raise types.UsageError(
                f"ConvNet has {len(self.channels)} channels and {len(self.strides)} strides; give one stride a layer"
            )
        if min(*self.channels, *self.strides) < 1:
            raise types.UsageError(f"ConvNet channels {self.channels} and strides {self.strides} must be at least 1")
        super().__post_init__()

    @property
    def stages(self) -> tuple[tuple[str, ...], ...]:
        """The names of the parameter groups, one stage a convolution, from the images up."""
        return tuple((f"conv{layer}", f"norm{layer}") for layer in range(1, len(self.channels) + 1))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Images float [b, h, w, c] to features float32 [b, d]; d is the last of `channels`.

        `train` normalises by the batch and updates collection "batch_stats".
        """
        x = x.astype(layers.compute_dtype(self.dtype))
        for layer, (channels, stride) in enumerate(zip(self.channels, self.strides, strict=True), start=1):
            x = layers.conv(channels, kernel_px=3, stride=stride, dtype=self.dtype, name=f"conv{layer}")(x)
            norm = layers.batch_norm(dtype=self.dtype, name=f"norm{layer}", groups=self.norm_groups)
            x = nn.relu(norm(x, train=train))
        return jnp.mean(layers.at_least_float32(x), axis=(1, 2))
