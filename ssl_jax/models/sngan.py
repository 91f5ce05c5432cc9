"""SNGAN's residual networks for images of 32 px and the like (Miyato et al., arXiv 1802.05957, appendix B.4)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax import types
from ssl_jax.models import convolution, layers

BASES_PX = (4, 7)


def _xavier(square_gain: float) -> nn.initializers.Initializer:
    return nn.initializers.variance_scaling(square_gain, "fan_avg", "uniform")


class Generator(nn.Module):
    """Latent vectors to images: a dense layer, residual blocks that double the size, and a convolution with tanh.

    Parameters lie under `dense1`, `block1`, `block2`, ..., `norm` and `image`.

    Attributes:
        size_px: height and width of the images: 4 or 7 times 2 ** blocks, of which there are then as many.
        image_channels: 1 or 3.
        channels: of every map.
        classes: gives the blocks' batch norms a scale (from 1) and a bias (from 0) for each of so many classes.
        dtype: what the layers compute in.

    Raises:
        UsageError: for a size that no number of blocks makes, and for wrong image channels, classes, channels or dtype.

    Source: pfnet-research/sngan_projection as kwotsin/mimicry has it, nets/sngan/sngan_32.py and cgan_pd_32.py.
    Departures: nearest-neighbour upsampling as in the original, where mimicry's is bilinear; convolutions that batch
    norm follows have no bias, which it would cancel; epsilon 1e-5 (the original: 2e-5).
    """

    size_px: int = 32
    image_channels: int = 3
    channels: int = 256
    classes: int | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        convolution.check_network(
            "SNGAN's generator", self.classes, self.dtype, (self.channels,), image_channels=self.image_channels
        )
        _base_px(self.size_px)
        super().__post_init__()

    @nn.compact
    def __call__(self, latent: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Latent float [b, d] and labels int [b] (read only with `classes`) to float32 [b, h, w, c] in -1 to 1.

        `train` normalises by the batch and updates collection "batch_stats".

        Raises:
            UsageError: for a missing label.
        """
        convolution.check_label("SNGAN's generator", label, self.classes)
        base_px = _base_px(self.size_px)
        width = base_px * base_px * self.channels
        x = convolution.Dense(width, kernel_init=_xavier(1.0), dtype=self.dtype, name="dense1")(latent, train=train)
        x = x.reshape(-1, base_px, base_px, self.channels)
        blocks = (self.size_px // base_px).bit_length() - 1
        for block in range(1, blocks + 1):
            x = UpBlock(self.channels, self.classes, self.dtype, name=f"block{block}")(x, label, train=train)
        norm = convolution.ConditionalBatchNorm(None, dtype=self.dtype, name="norm")
        x = nn.relu(norm(x, None, train=train))
        image = convolution.Conv(self.image_channels, kernel_init=_xavier(1.0), dtype=self.dtype, name="image")
        return nn.tanh(layers.at_least_float32(image(x, train=train)))


class UpBlock(nn.Module):
    """Batch norm, ReLU, doubling, 3x3 convolution, batch norm, ReLU and 3x3 convolution, plus a 1x1 shortcut.

    Attributes:
        channels: of its output.
        classes: of its batch norms.
        dtype: what the layers compute in.
    """

    channels: int
    classes: int | None
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None, *, train: bool) -> jax.Array:
        """Maps float [b, h, w, c] to [b, 2 h, 2 w, channels]."""
        # Before the doubling, where it costs a quarter: a 1x1 convolution commutes with the repetition of pixels.
        shortcut = convolution.Conv(
            self.channels, kernel_px=1, kernel_init=_xavier(1.0), dtype=self.dtype, name="shortcut_conv"
        )(x, train=train)
        for layer in (1, 2):
            norm = convolution.ConditionalBatchNorm(self.classes, dtype=self.dtype, name=f"norm{layer}")
            x = nn.relu(norm(x, label, train=train))
            x = convolution.Conv(
                self.channels,
                use_bias=layer == 2,
                kernel_init=_xavier(2.0),
                dtype=self.dtype,
                name=f"conv{layer}",
            )(_repeat(x) if layer == 1 else x, train=train)
        return x + _repeat(shortcut)


class Discriminator(nn.Module):
    """Images to logits: four residual blocks of which two halve the size, ReLU, a sum over positions, a dense layer.

    All weights have a spectral norm, whose vectors lie in collection "batch_stats". Parameters lie under `block1` ...
    `block4`, `logit` and, conditional, `class_embedding`.

    Attributes:
        channels: of every map.
        classes: adds the inner product of the summed map with a vector a class (projection, arXiv 1802.05637).
        dtype: what the layers compute in.

    Raises:
        UsageError: for wrong classes, channels or dtype.

    Source: as of the generator. The spectral norm is PyTorch's, see `convolution.SpectralNorm`.
    """

    channels: int = 128
    classes: int | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        convolution.check_network("SNGAN's discriminator", self.classes, self.dtype, (self.channels,))
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Images float [b, h, w, c] and labels int [b] (read only with `classes`) to logits float32 [b].

        `train` takes a power iteration of every spectral norm and updates collection "batch_stats".

        Raises:
            UsageError: for images whose size is no multiple of 4 px, and for a missing label.
        """
        height, width = images.shape[1:3]
        if not height or not width or height % 4 or width % 4:
            raise types.UsageError(f"SNGAN's discriminator takes multiples of 4 px, not {height}x{width}")
        convolution.check_label("SNGAN's discriminator", label, self.classes)
        x = images
        for block in (1, 2, 3, 4):
            x = DownBlock(self.channels, block <= 2, block == 1, self.dtype, name=f"block{block}")(x, train=train)
        x = layers.at_least_float32(nn.relu(x)).sum(axis=(1, 2))
        logit = convolution.Dense(1, kernel_init=_xavier(1.0), spectral=True, dtype=self.dtype, name="logit")
        logits = layers.at_least_float32(logit(x, train=train)).reshape(-1)
        if self.classes is not None:
            embedding = convolution.ClassEmbedding(
                self.classes, self.channels, _xavier(1.0), spectral=True, dtype=self.dtype, name="class_embedding"
            )(label, train=train)
            logits += (x * layers.at_least_float32(embedding)).sum(axis=-1)
        return logits


class DownBlock(nn.Module):
    """Twice ReLU and a 3x3 convolution, with spectral norms, plus x, through a 1x1 convolution where shapes differ.

    Attributes:
        channels: of its output.
        halves: whether both end in a mean over 2x2 pixels.
        first: leaves out the first ReLU, since images come in.
        dtype: what the layers compute in.
    """

    channels: int
    halves: bool
    first: bool
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps float [b, h, w, c] to [b, h, w, channels] or [b, h / 2, w / 2, channels]."""

        def conv(kernel_px: int, square_gain: float, name: str) -> convolution.Conv:
            kernel_init = _xavier(square_gain)
            return convolution.Conv(
                self.channels, kernel_px, kernel_init=kernel_init, spectral=True, dtype=self.dtype, name=name
            )

        shortcut = _mean(x) if self.halves else x
        if self.halves or x.shape[-1] != self.channels:
            # After the mean, with which it commutes, where it costs a quarter.
            shortcut = conv(1, 1.0, "shortcut_conv")(shortcut, train=train)
        x = conv(3, 2.0, "conv1")(x if self.first else nn.relu(x), train=train)
        x = conv(3, 2.0, "conv2")(nn.relu(x), train=train)
        return (_mean(x) if self.halves else x) + shortcut


def _repeat(x):
    """Every pixel as 2x2 pixels."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)


def _mean(x):
    """The mean of every 2x2 pixels."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def _base_px(size_px):
    for base_px in BASES_PX:
        factor, rest = divmod(size_px, base_px)
        if factor > 1 and not rest and factor & (factor - 1) == 0:
            return base_px
    raise types.UsageError(
        f"SNGAN's generator makes 4 or 7 times a power of 2 px (8, 14, 16, 28, 32, ...), not {size_px}"
    )
