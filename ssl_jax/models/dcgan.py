"""DCGAN's networks (Radford et al., arXiv 1511.06434): strided and transposed 4x4 convolutions with batch norm."""

from typing import Literal

import flax.linen as nn
import jax

from ssl_jax import types
from ssl_jax.models import convolution, layers

NORMAL = nn.initializers.normal(0.02)
NORMS = ("batch", "spectral", "none")


def _scale(key: jax.Array, shape: tuple[int, ...], dtype: jax.numpy.dtype) -> jax.Array:
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


class Generator(nn.Module):
    """Latent vectors to images: a dense layer, and transposed convolutions that double the size.

    Batch norm and ReLU follow every layer but the last, which has a bias and tanh. Parameters lie under `dense1`,
    `norm1`, `conv2`, `norm2`, ..., the last `conv`. Weights start from N(0, 0.02), scales from N(1, 0.02).

    Attributes:
        size_px: height and width of the images, a multiple of 2 ** len(channels).
        image_channels: 1 or 3.
        channels: of the map after each layer but the last; as many doublings. (1024, 512, 256, 128) is the paper's at
            64 px (4 x 4 to 64 x 64), (256, 128) makes 28 px from 7 x 7.
        classes: gives the batch norms a scale and a bias for each of so many classes.
        dtype: what the layers compute in.

    Raises:
        UsageError: for a size that the layers cannot make, and for wrong image channels, classes, channels or dtype.

    Source: the paper, section 3, and pytorch/examples, dcgan. The dense layer equals their transposed convolution of a
    1 x 1 map. Departures: the last layer has a bias; class-conditional batch norm is from arXiv 1802.05637.
    """

    size_px: int = 64
    image_channels: int = 3
    channels: tuple[int, ...] = (1024, 512, 256, 128)
    classes: int | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        convolution.check_network(
            "DCGAN's generator", self.classes, self.dtype, self.channels, image_channels=self.image_channels
        )
        _check_size("DCGAN's generator", (self.size_px,), len(self.channels))
        super().__post_init__()

    @nn.compact
    def __call__(self, latent: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Latent float [b, d] and labels int [b] (read only with `classes`) to float32 [b, h, w, c] in -1 to 1.

        `train` normalises by the batch and updates collection "batch_stats".
        """
        convolution.check_label("DCGAN's generator", label, self.classes)
        base_px = self.size_px // 2 ** len(self.channels)

        def normalized(x: jax.Array, layer: int) -> jax.Array:
            norm = convolution.ConditionalBatchNorm(self.classes, _scale, dtype=self.dtype, name=f"norm{layer}")
            return nn.relu(norm(x, label, train=train))

        x = convolution.Dense(
            base_px * base_px * self.channels[0], use_bias=False, kernel_init=NORMAL, dtype=self.dtype, name="dense1"
        )(latent, train=train)
        x = normalized(x.reshape(-1, base_px, base_px, self.channels[0]), 1)
        for layer, channels in enumerate((*self.channels[1:], self.image_channels), start=2):
            last = layer == len(self.channels) + 1
            x = convolution.ConvTranspose(
                channels, use_bias=last, kernel_init=NORMAL, dtype=self.dtype, name=f"conv{layer}"
            )(x)
            if not last:
                x = normalized(x, layer)
        return nn.tanh(layers.at_least_float32(x))


class Discriminator(nn.Module):
    """Images to logits: 4x4 convolutions of stride 2 with LeakyReLU 0.2, and a linear map of the flattened last map.

    Parameters lie under `conv1`, `conv2`, `norm2`, ..., `logit` and, conditional, `class_embedding`. Weights start
    from N(0, 0.02), scales from N(1, 0.02). Convolutions that batch norm follows have no bias.

    Attributes:
        channels: of each convolution; the images' size must be a multiple of 2 ** len(channels).
        norm: "batch" norm after every convolution but the first (the paper), "spectral" norm of every weight, "none".
        classes: adds the inner product of the flattened map with a vector a class (projection, arXiv 1802.05637).
        dtype: what the layers compute in.

    Raises:
        UsageError: for another norm, and for wrong classes, channels or dtype.

    Source: the paper, section 3, and pytorch/examples, dcgan, whose last 4 x 4 convolution is the linear map here.
    """

    channels: tuple[int, ...] = (128, 256, 512, 1024)
    norm: Literal["batch", "spectral", "none"] = "batch"
    classes: int | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        convolution.check_network("DCGAN's discriminator", self.classes, self.dtype, self.channels)
        layers.check_choice("DCGAN's discriminator norm", self.norm, NORMS)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Images float [b, h, w, c] and labels int [b] (read only with `classes`) to logits float32 [b].

        `train` normalises by the batch and updates collection "batch_stats", which norm "none" has not.

        Raises:
            UsageError: for images of another size than a multiple of 2 ** len(channels), and for a missing label.
        """
        _check_size("DCGAN's discriminator", images.shape[1:3], len(self.channels))
        convolution.check_label("DCGAN's discriminator", label, self.classes)
        spectral, x = self.norm == "spectral", images
        for layer, channels in enumerate(self.channels, start=1):
            batch = self.norm == "batch" and layer > 1
            x = convolution.Conv(
                channels,
                kernel_px=4,
                stride=2,
                padding=1,
                use_bias=not batch,
                kernel_init=NORMAL,
                spectral=spectral,
                dtype=self.dtype,
                name=f"conv{layer}",
            )(x, train=train)
            if batch:
                norm = convolution.ConditionalBatchNorm(None, _scale, dtype=self.dtype, name=f"norm{layer}")
                x = norm(x, None, train=train)
            x = nn.leaky_relu(x, 0.2)
        x = x.reshape(len(x), -1)
        dense = convolution.Dense(1, kernel_init=NORMAL, spectral=spectral, dtype=self.dtype, name="logit")
        logits = layers.at_least_float32(dense(x, train=train)).reshape(-1)
        if self.classes is not None:
            embedding = convolution.ClassEmbedding(
                self.classes, x.shape[-1], NORMAL, spectral=spectral, dtype=self.dtype, name="class_embedding"
            )(label, train=train)
            logits += layers.at_least_float32(x * embedding).sum(axis=-1)
        return logits


def _check_size(name: str, sizes_px: tuple[int, ...], halvings: int) -> None:
    if any(size_px < 1 or size_px % 2**halvings for size_px in sizes_px):
        given = "x".join(map(str, sizes_px))
        raise types.UsageError(f"{name} of {halvings} layers takes multiples of {2**halvings} px, not {given}")
