"""R3GAN's residual networks without norms (Huang et al., arXiv 2501.05441), the generator and its mirror image.

Source: github.com/brownvc/R3GAN, Networks.py, Resamplers.py and FusedOperators.py, read in other repositories;
the original was out of reach. With 4 stages of 768 channels and 10 classes the parameters count the published 20.78 M
and 21.28 M, which fixes the class embeddings' widths: that of the latent in the generator, that of the features in the
discriminator. Departures: a base of 7 px for sizes of 7 * 2^n; no float16 in the larger maps.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax import types
from ssl_jax.models import convolution, layers

EXPANSION = 2
BASES_PX = (4, 7)
SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # of the leaky ReLU: keeps the mean square of normal values


class Generator(nn.Module):
    """Latent vectors to images: a learned map times a linear function of the latent, residual blocks, doublings.

    Parameters lie under `basis`, `latent`, `stage1_block1`, ..., `stage2_width` (where it changes), ..., `image` and,
    conditional, `class_embedding`. There is no "batch_stats", and no tanh at the end.

    Attributes:
        size_px: height and width of the images, 4 or 7 times 2 ** (len(widths) - 1).
        image_channels: 1 or 3.
        widths: channels of each stage; between stages the size doubles.
        blocks: residual blocks a stage.
        channels_per_group: of the grouped convolutions, which have twice the stage's channels.
        classes: adds to the latent a learned vector a class, of the latent's width.
        dtype: what the layers compute in.

    Raises:
        UsageError: for a size that the stages cannot make, groups that do not divide, and for wrong image channels,
            classes, widths, blocks or dtype.
    """

    size_px: int = 32
    image_channels: int = 3
    widths: tuple[int, ...] = (768, 768, 768, 768)
    blocks: int = 2
    channels_per_group: int = 16
    classes: int | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check(self, "R3GAN's generator", self.image_channels)
        _base_px("R3GAN's generator", (self.size_px,), len(self.widths))
        super().__post_init__()

    @nn.compact
    def __call__(self, latent: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Latent float [b, d] and labels int [b] (read only with `classes`) to float32 images [b, h, w, c]."""
        convolution.check_label("R3GAN's generator", label, self.classes)
        x = latent.astype(layers.compute_dtype(self.dtype))
        if self.classes is not None:
            x = jnp.concatenate([x, _embed(self.classes, x.shape[-1], 1.0, self.dtype)(label, train=train)], axis=-1)
        base_px = _base_px("R3GAN's generator", (self.size_px,), len(self.widths))
        basis = self.param("basis", nn.initializers.normal(1.0), (1, base_px, base_px, self.widths[0]), jnp.float32)
        x = _dense(self.widths[0], self.dtype, "latent")(x, train=train)
        x = x.reshape(-1, 1, 1, self.widths[0]) * basis.astype(x.dtype)
        for stage, width in enumerate(self.widths, start=1):
            if width != x.shape[-1]:
                x = _conv(width, 1.0, self.dtype, f"stage{stage}_width")(x, train=train)
            if stage > 1:
                x = upsample(x)
            x = _blocks(self, x, stage)
        return layers.at_least_float32(_conv(self.image_channels, 1.0, self.dtype, "image")(x, train=train))


class Discriminator(nn.Module):
    """Images to logits: residual blocks and halvings, a weighted sum over the last map and a linear layer.

    Parameters lie under `image`, `stage1_block1`, ..., `stage2_width` (where it changes), ..., `basis`, `logit` and,
    conditional, `class_embedding`. There is no "batch_stats".

    Attributes:
        widths: channels of each stage, from the images down; between stages the size halves, to 4 or 7 px.
        blocks: residual blocks a stage.
        channels_per_group: of the grouped convolutions, which have twice the stage's channels.
        classes: makes the logit the inner product of the linear layer's output, which then has the last width, with a
            learned vector a class.
        dtype: what the layers compute in.

    Raises:
        UsageError: for groups that do not divide, and for wrong classes, widths, blocks or dtype.
    """

    widths: tuple[int, ...] = (768, 768, 768, 768)
    blocks: int = 2
    channels_per_group: int = 16
    classes: int | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check(self, "R3GAN's discriminator")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, label: jax.Array | None = None, *, train: bool) -> jax.Array:
        """Images float [b, h, w, c] and labels int [b] (read only with `classes`) to logits float32 [b].

        Raises:
            UsageError: for images of another size than 4 or 7 times 2 ** (len(widths) - 1), and for a missing label.
        """
        convolution.check_label("R3GAN's discriminator", label, self.classes)
        base_px = _base_px("R3GAN's discriminator", images.shape[1:3], len(self.widths))
        x = _conv(self.widths[0], 1.0, self.dtype, "image")(images, train=train)
        for stage, width in enumerate(self.widths, start=1):
            if stage > 1:
                x = downsample(x)
            if width != x.shape[-1]:
                x = _conv(width, 1.0, self.dtype, f"stage{stage}_width")(x, train=train)
            x = _blocks(self, x, stage)
        # A depthwise convolution of the whole map.
        basis = self.param("basis", nn.initializers.normal(1 / base_px), (base_px, base_px, x.shape[-1]), jnp.float32)
        x = jnp.einsum("bhwc,hwc->bc", layers.at_least_float32(x), basis)
        if self.classes is None:
            return layers.at_least_float32(_dense(1, self.dtype, "logit")(x, train=train)).reshape(-1)
        x = _dense(self.widths[-1], self.dtype, "logit")(x, train=train)
        embedding = _embed(self.classes, x.shape[-1], x.shape[-1] ** -0.5, self.dtype)(label, train=train)
        return (layers.at_least_float32(x) * layers.at_least_float32(embedding)).sum(axis=-1)


class Block(nn.Module):
    """x plus a 1x1, a grouped 3x3 and a 1x1 convolution of x, the last of which starts at 0.

    Biased leaky ReLUs stand between them; they hold the only biases, which start at 0.

    Attributes:
        hidden: channels of the grouped convolution.
        channels_per_group: of its groups.
        network_blocks: how many blocks the network has; its fourth root divides the first two kernels' start.
        dtype: what the layers compute in.
    """

    hidden: int
    channels_per_group: int
    network_blocks: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps float [b, h, w, c] to the same shape; parameters lie under `conv1`, `conv2` and `conv3`."""
        # With 3 layers a block, each of those that do not start at 0 takes blocks ** (-1 / (2 * 3 - 2)) (Fixup init).
        gain = GAIN * self.network_blocks**-0.25
        groups = self.hidden // self.channels_per_group
        y = _conv(self.hidden, gain, self.dtype, "conv1", use_bias=True)(x, train=False)
        y = nn.leaky_relu(y, SLOPE)
        y = _conv(self.hidden, gain, self.dtype, "conv2", kernel_px=3, groups=groups, use_bias=True)(y, train=False)
        y = nn.leaky_relu(y, SLOPE)
        return x + _conv(x.shape[-1], 0.0, self.dtype, "conv3")(y, train=False)


def upsample(x: jax.Array) -> jax.Array:
    """[b, h, w, c] to [b, 2 h, 2 w, c]: a new pixel is 3/4 of the nearest and 1/4 of the next one, 0 past the border.

    In each direction this is the reference's filter, [1, 2, 1] convolved with [1, 1], hence [1, 3, 3, 1].
    """
    for axis in (1, 2):
        before, after = _neighbours(x, x, axis)
        shape = [2 * size if each == axis else size for each, size in enumerate(x.shape)]
        x = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis=axis + 1).reshape(shape)
    return x


def downsample(x: jax.Array) -> jax.Array:
    """[b, h, w, c] of even sizes to [b, h / 2, w / 2, c]: in each direction 1, 3, 3, 1 eighths, 0 past the border."""
    for axis in (1, 2):
        even, odd = (jax.lax.slice_in_dim(x, start, None, 2, axis) for start in (0, 1))
        before, after = _neighbours(odd, even, axis)
        x = 0.375 * (even + odd) + 0.125 * (before + after)
    return x


def _neighbours(x, y, axis):
    """At each position along an axis the previous value of x and the next of y, 0 past the border."""
    edge = jnp.zeros_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis))
    before = jnp.concatenate([edge, jax.lax.slice_in_dim(x, 0, -1, axis=axis)], axis=axis)
    return before, jnp.concatenate([jax.lax.slice_in_dim(y, 1, None, axis=axis), edge], axis=axis)


def _blocks(network, x, stage):
    for block in range(1, network.blocks + 1):
        x = Block(
            hidden=EXPANSION * x.shape[-1],
            channels_per_group=network.channels_per_group,
            network_blocks=network.blocks * len(network.widths),
            dtype=network.dtype,
            name=f"stage{stage}_block{block}",
        )(x)
    return x


def _normal(gain):
    """Normal with deviation gain / sqrt(fan-in), as the reference starts every weight."""
    return nn.initializers.variance_scaling(gain**2, "fan_in", "normal") if gain else nn.initializers.zeros


def _conv(features, gain, dtype, name, *, kernel_px=1, groups=1, use_bias=False):
    return convolution.Conv(
        features,
        kernel_px=kernel_px,
        groups=groups,
        use_bias=use_bias,
        kernel_init=_normal(gain),
        dtype=dtype,
        name=name,
    )


def _dense(features, dtype, name):
    return convolution.Dense(features, use_bias=False, kernel_init=_normal(1.0), dtype=dtype, name=name)


def _embed(classes, features, gain, dtype):
    """The reference's linear layer of a one-hot vector: its fan-in is the number of classes."""
    return convolution.ClassEmbedding(classes, features, _normal(gain), dtype=dtype, name="class_embedding")


def _check(network, name, image_channels=3):
    convolution.check_network(name, network.classes, network.dtype, network.widths, image_channels=image_channels)
    if network.blocks < 1:
        raise types.UsageError(f"{name} blocks is {network.blocks}; give at least 1 a stage")
    size = network.channels_per_group
    wrong = [width for width in network.widths if size < 1 or EXPANSION * width % size]
    if wrong:
        raise types.UsageError(f"{name} cannot split {EXPANSION} * {wrong[0]} channels into groups of {size}")


def _base_px(name, sizes_px, stages):
    factor = 2 ** (stages - 1)
    for base_px in BASES_PX:
        if all(size_px == base_px * factor for size_px in sizes_px):
            return base_px
    given, possible = "x".join(map(str, sizes_px)), " or ".join(str(base_px * factor) for base_px in BASES_PX)
    raise types.UsageError(f"{name} with {stages} stages takes {possible} px, not {given}")
