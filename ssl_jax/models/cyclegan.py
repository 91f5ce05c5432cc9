"""CycleGAN's networks (Zhu et al., arXiv 1703.10593): translators between two domains, and the judge of patches.

As the reference implementation builds them (junyanz/pytorch-CycleGAN-and-pix2pix, models/networks.py): instance norm
without scale, bias or running statistics, biases before it all the same, weights from N(0, 0.02). Nothing here changes
between training and use, so no call takes `train`.
"""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax import types
from ssl_jax.models import convolution, layers

EPSILON = 1e-5

Border = Literal["reflect", "zeros"]
Upsampling = Literal["transposed", "resize"]


def instance_norm(x: jax.Array) -> jax.Array:
    """Each image's channels [b, h, w, c] at mean 0 and variance 1 over their pixels (arXiv 1607.08022).

    Statistics are in at least float32, two passes, epsilon 1e-5 as `torch.nn.InstanceNorm2d`; the result has the type
    given.

    Raises:
        UsageError: for maps of one pixel, which have no spread.
    """
    if x.shape[1] * x.shape[2] == 1:
        raise types.UsageError("instance norm takes maps of more than one pixel: larger images, or fewer layers")
    values = layers.at_least_float32(x)
    centred = values - jnp.mean(values, axis=(1, 2), keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=(1, 2), keepdims=True)
    return (centred * jax.lax.rsqrt(variance + EPSILON)).astype(x.dtype)


def reflected(x: jax.Array, margin_px: int) -> jax.Array:
    """Maps [b, h, w, c] with a margin that mirrors them, edge pixels not repeated, as `torch.nn.ReflectionPad2d`.

    Raises:
        UsageError: for maps that are no larger than the margin.
    """
    if min(x.shape[1:3]) <= margin_px:
        raise types.UsageError(f"maps of {x.shape[1]}x{x.shape[2]} cannot be mirrored by {margin_px}: larger images")
    return jnp.pad(x, ((0, 0), (margin_px, margin_px), (margin_px, margin_px), (0, 0)), mode="reflect")


@dataclasses.dataclass(frozen=True)
class Layer:
    """One convolution of a generator and what surrounds it, in the order of the fields from `enlarged` on.

    Attributes:
        name: of its parameters, `kernel` and `bias`.
        features: output channels.
        kernel_px, stride: of the convolution.
        enlarged: whether every pixel first becomes 2 x 2.
        margin_px: on every side before the convolution, filled as `border` says.
        transposed: a transposed convolution that doubles the size; margin and border are then its own.
        norm: instance norm after it.
        activation: after that.
    """

    name: str
    features: int
    kernel_px: int = 3
    stride: int = 1
    enlarged: bool = False
    margin_px: int = 1
    border: Border = "zeros"
    transposed: bool = False
    norm: bool = True
    activation: Literal["relu", "tanh", "none"] = "relu"


@dataclasses.dataclass(frozen=True)
class Block:
    """Layers whose result is added to what they were given; their parameters lie under `name`."""

    name: str
    layers: tuple[Layer, ...]


class ResNetGenerator(nn.Module):
    """Images to images of the same size: halvings, residual blocks, doublings.

    With the defaults 11,378,179 parameters, with 6 blocks 7,837,699; the paper takes 9 blocks from 256 px on, 6 for
    128 px. The reference's dropout, off there by default, is left out.

    Attributes:
        image_channels: of the images made; the method sets it.
        width: channels of the first map.
        blocks: residual blocks.
        halvings: layers of stride 2, and of doubling; images have sides that are multiples of 2 ** halvings.
        outer_px: kernel of the first and the last layer.
        upsampling: "transposed" convolutions, or "resize": nearest neighbours, then a convolution, whose kernel pixels
            all meet every output equally often (Odena et al. 2016, distill.pub/2016/deconv-checkerboard).
        border: "reflect" mirrors the image at the border where the reference does, "zeros" pads there too.
        deviation: of the initial weights; a smaller one is what users report against colours that come out inverted.
        dtype: what the layers compute in.

    Raises:
        UsageError: for numbers out of range, and when called for images whose sides are no such multiples.
    """

    image_channels: int = 3
    width: int = 64
    blocks: int = 9
    halvings: int = 2
    outer_px: int = 7
    upsampling: Upsampling = "transposed"
    border: Border = "reflect"
    deviation: float = 0.02
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check("CycleGAN's generator", self.dtype, self.deviation, image_channels=self.image_channels, width=self.width)
        if min(self.blocks, self.halvings) < 0 or self.outer_px % 2 == 0 or self.outer_px < 1:
            raise types.UsageError(
                f"CycleGAN's generator: blocks={self.blocks} and halvings={self.halvings} must be at least 0, "
                f"outer_px={self.outer_px} odd"
            )
        layers.check_choice("CycleGAN's generator upsampling", self.upsampling, ("transposed", "resize"))
        layers.check_choice("CycleGAN's generator border", self.border, ("reflect", "zeros"))
        super().__post_init__()

    def plan(self) -> tuple[Layer | Block, ...]:
        """The network layer by layer, as `__call__` computes it and as `ssl_jax.tiles` does in bands."""
        wide, border, margin_px = self.width * 2**self.halvings, self.border, self.outer_px // 2
        plan: list[Layer | Block] = [Layer("stem", self.width, self.outer_px, margin_px=margin_px, border=border)]
        plan += [Layer(f"down{i}", self.width * 2**i, stride=2) for i in range(1, self.halvings + 1)]
        for i in range(1, self.blocks + 1):
            inner = (Layer("conv1", wide, border=border), Layer("conv2", wide, border=border, activation="none"))
            plan.append(Block(f"block{i}", inner))
        for i in range(1, self.halvings + 1):
            features = wide // 2**i
            if self.upsampling == "transposed":
                plan.append(Layer(f"up{i}", features, transposed=True))
            else:
                plan.append(Layer(f"up{i}", features, enlarged=True, border=border))
        head = Layer("head", self.image_channels, self.outer_px, margin_px=margin_px, border=border)
        plan.append(dataclasses.replace(head, norm=False, activation="tanh"))
        return tuple(plan)

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Images float [b, h, w, c] in [-1, 1] to float32 [b, h, w, image_channels] in [-1, 1]."""
        sides = images.shape[1:3]
        if any(side % 2**self.halvings for side in sides):
            raise types.UsageError(
                f"CycleGAN's generator of {self.halvings} halvings takes sides that are multiples of "
                f"{2**self.halvings} px, not {sides[0]}x{sides[1]}"
            )
        x = images.astype(layers.compute_dtype(self.dtype))
        for step in self.plan():
            if isinstance(step, Layer):
                x = _Computed(step, self.deviation, self.dtype, name=step.name)(x)
            else:
                x = x + _Stack(step.layers, self.deviation, self.dtype, name=step.name)(x)
        return layers.at_least_float32(x)


class _Computed(nn.Module):
    """A `Layer` with its parameters."""

    layer: Layer
    deviation: float
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layer, normal = self.layer, nn.initializers.normal(self.deviation)
        channels = (layer.features, x.shape[-1]) if layer.transposed else (x.shape[-1], layer.features)
        kernel = self.param("kernel", normal, (layer.kernel_px, layer.kernel_px, *channels), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (layer.features,), jnp.float32)
        x = convolved(layer, x, kernel.astype(x.dtype), bias.astype(x.dtype))
        return activated(layer, instance_norm(x) if layer.norm else x)


class _Stack(nn.Module):
    layers: tuple[Layer, ...]
    deviation: float
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = _Computed(layer, self.deviation, self.dtype, name=layer.name)(x)
        return x


def convolved(layer: Layer, x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """A layer up to its norm: maps [b, h, w, c] to [b, h', w', features]."""
    if layer.enlarged:
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    if layer.transposed:
        size = (2 * x.shape[1], 2 * x.shape[2])
        return convolution.conv_transpose(x, kernel, 2, layer.margin_px, size) + bias.reshape(1, 1, 1, -1)
    margin_px = layer.margin_px
    if layer.border == "reflect" and margin_px:
        x, margin_px = reflected(x, margin_px), 0
    return convolution.conv(x, kernel, layer.stride, margin_px) + bias.reshape(1, 1, 1, -1)


def activated(layer: Layer, x: jax.Array) -> jax.Array:
    """A layer's last part, after its norm; tanh is taken in at least float32."""
    if layer.activation == "tanh":
        return nn.tanh(layers.at_least_float32(x))
    return nn.relu(x) if layer.activation == "relu" else x


class UNetGenerator(nn.Module):
    """The paper's alternative: an encoder and a decoder of 4x4 convolutions, every encoder map handed to the decoder.

    The encoder's maps shrink by 2 at each of `halvings` layers, so the images' sides are multiples of 2 ** halvings.
    With the defaults (for 256 px) 54,409,603 parameters, and one pixel at the bottom.

    Attributes:
        image_channels, width, deviation, dtype: as of `ResNetGenerator`.
        halvings: 8 for 256 px, 7 for 128 px.

    Source: the reference's UnetGenerator with instance norm, without dropout.
    """

    image_channels: int = 3
    width: int = 64
    halvings: int = 8
    deviation: float = 0.02
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check("CycleGAN's U-Net", self.dtype, self.deviation, image_channels=self.image_channels, width=self.width)
        if self.halvings < 2:
            raise types.UsageError(f"CycleGAN's U-Net: halvings={self.halvings} must be at least 2")
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """As of `ResNetGenerator`."""
        sides, factor = images.shape[1:3], 2**self.halvings
        if any(side % factor for side in sides):
            raise types.UsageError(
                f"CycleGAN's U-Net of {self.halvings} halvings takes sides that are multiples of {factor} px, not "
                f"{sides[0]}x{sides[1]}"
            )
        settings = {"kernel_px": 4, "stride": 2, "padding": 1, "kernel_init": nn.initializers.normal(self.deviation)}
        settings["dtype"] = self.dtype
        x = images.astype(layers.compute_dtype(self.dtype))
        widths = [self.width * min(2**level, 8) for level in range(self.halvings)]
        maps = []
        for level, features in enumerate(widths, start=1):
            x = nn.leaky_relu(x, 0.2) if level > 1 else x
            x = convolution.Conv(features, **settings, name=f"down{level}")(x, train=False)
            if 1 < level < self.halvings:
                x = instance_norm(x)
            maps.append(x)
        for level in range(self.halvings, 1, -1):
            x = nn.relu(x)
            x = instance_norm(convolution.ConvTranspose(widths[level - 2], **settings, name=f"up{level}")(x))
            x = jnp.concatenate([maps[level - 2], x], axis=-1)
        x = convolution.ConvTranspose(self.image_channels, **settings, name="up1")(nn.relu(x))
        return nn.tanh(layers.at_least_float32(x))


class PatchGAN(nn.Module):
    """A discriminator whose every logit judges one patch: 70 x 70 px with 3 `strides`, 2,764,737 parameters.

    4x4 convolutions with zeros around: `strides` ones of stride 2, two of stride 1, LeakyReLU 0.2 between them,
    instance norm after all but the first and the last. Parameters lie under `conv1`, `conv2`, ... With 1 stride a patch
    has 16 px, with 2 it has 34.

    Attributes:
        width: channels of the first map; they double with each layer, up to 8 times as many.
        strides: layers of stride 2.
        norm: "instance", or "none", as gradient penalties prefer it.
        deviation: of the initial weights.
        dtype: what the layers compute in.

    Raises:
        UsageError: for numbers out of range, and when called for images too small for one patch.
    """

    width: int = 64
    strides: int = 3
    norm: Literal["instance", "none"] = "instance"
    deviation: float = 0.02
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _check("PatchGAN", self.dtype, self.deviation, width=self.width, strides=self.strides)
        layers.check_choice("PatchGAN norm", self.norm, ("instance", "none"))
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Images float [b, h, w, c] to logits float32 [b, h', w'], one a patch."""
        least = 3 * 2**self.strides
        if min(images.shape[1:3]) < least:
            raise types.UsageError(
                f"PatchGAN with strides={self.strides} takes images of {least} px at least, not "
                f"{images.shape[1]}x{images.shape[2]}: set fewer strides"
            )
        x = images.astype(layers.compute_dtype(self.dtype))
        for layer in range(1, self.strides + 3):
            last = layer == self.strides + 2
            x = convolution.Conv(
                1 if last else self.width * min(2 ** (layer - 1), 8),
                kernel_px=4,
                stride=2 if layer <= self.strides else 1,
                padding=1,
                kernel_init=nn.initializers.normal(self.deviation),
                dtype=self.dtype,
                name=f"conv{layer}",
            )(x, train=False)
            if layer > 1 and not last and self.norm == "instance":
                x = instance_norm(x)
            x = x if last else nn.leaky_relu(x, 0.2)
        return layers.at_least_float32(x)[..., 0]


def _check(name: str, dtype: str, deviation: float, **counts: int) -> None:
    layers.compute_dtype(dtype)
    for field, value in counts.items():
        if value < 1:
            raise types.UsageError(f"{name}: {field}={value} must be at least 1")
    if deviation <= 0:
        raise types.UsageError(f"{name}: deviation={deviation} must be above 0")
