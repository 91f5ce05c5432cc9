"""Residual networks of torchvision's design (He et al., arXiv 1512.03385; version 1.5: a bottleneck's 3x3 strides)."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax import types
from ssl_jax.models import layers

STEMS = ("imagenet", "cifar")
STEM_CHANNELS = 64
STAGE_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
BOTTLENECK_DEPTHS = (50,)
BOTTLENECK_EXPANSION = 4


class ResNet(nn.Module):
    """ResNet-18, -34 or -50 without its classifier: images in, mean-pooled features out.

    Parameters lie under `stem_conv`, `stem_norm` and `stage1_block1` ... `stage4_block2`, each block holding `conv1`,
    `norm1`, `conv2`, `norm2` (in bottlenecks also `conv3`, `norm3`) and, where its shape changes, `shortcut_conv` and
    `shortcut_norm`.

    Attributes:
        depth: 18, 34 or 50.
        stem: "imagenet" is a 7x7 convolution of stride 2 and a max-pool of stride 2; "cifar" a 3x3 convolution of
            stride 1 alone, for images of some 32 px (SimSiam, arXiv 2011.10566, appendix D).
        width_multiplier: scales the channels of every layer; 64 times it must be a whole number of at least 1.
        last_scale: "zero" starts the scale of each block's last batch norm at 0, so that a block begins as its
            shortcut (the SimSiam paper, appendix A); "one" is torchvision's default.
        dtype: what the layers compute in, "float32" or "bfloat16".
        norm_groups: into how many parts a training batch is cut, each normalised by itself (`layers.BatchNorm`).

    Raises:
        UsageError: for another depth, stem, last_scale or dtype, and for a width that is not a whole number.
    """

    depth: int = 18
    stem: Literal["imagenet", "cifar"] = "imagenet"
    width_multiplier: float = 1.0
    last_scale: Literal["zero", "one"] = "zero"
    dtype: str = "float32"
    norm_groups: int = 1

    def __post_init__(self) -> None:
        layers.check_choice("ResNet depth", self.depth, tuple(STAGE_BLOCKS))
        layers.check_choice("ResNet stem", self.stem, STEMS)
        layers.check_choice("ResNet last_scale", self.last_scale, ("zero", "one"))
        layers.compute_dtype(self.dtype)
        channels = STEM_CHANNELS * self.width_multiplier
        if channels < 1 or channels != round(channels):
            nearest = max(1, round(channels)) / STEM_CHANNELS
            raise types.UsageError(
                f"ResNet width_multiplier {self.width_multiplier} makes {channels:g} channels of {STEM_CHANNELS}, "
                f"which must be whole and at least 1; the nearest is {nearest}"
            )
        super().__post_init__()

    @property
    def stages(self) -> tuple[tuple[str, ...], ...]:
        """The names of the parameter groups, the stem and four stages, from the images up."""
        blocks = enumerate(STAGE_BLOCKS[self.depth], start=1)
        stages = [tuple(f"stage{stage}_block{block}" for block in range(1, count + 1)) for stage, count in blocks]
        return (("stem_conv", "stem_norm"), *stages)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Images float [b, h, w, c] to features float32 [b, d]; d is 512 (depth 50: 2048) times the width multiplier.

        `train` normalises by the batch and updates collection "batch_stats".
        """
        channels = round(STEM_CHANNELS * self.width_multiplier)
        bottleneck = self.depth in BOTTLENECK_DEPTHS
        x = x.astype(layers.compute_dtype(self.dtype))
        if self.stem == "imagenet":
            x = layers.conv(channels, kernel_px=7, stride=2, dtype=self.dtype, name="stem_conv")(x)
        else:
            x = layers.conv(channels, kernel_px=3, stride=1, dtype=self.dtype, name="stem_conv")(x)
        x = nn.relu(layers.batch_norm(dtype=self.dtype, name="stem_norm", groups=self.norm_groups)(x, train=train))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage, blocks in enumerate(STAGE_BLOCKS[self.depth], start=1):
            for block in range(1, blocks + 1):
                x = Block(
                    channels=channels * 2 ** (stage - 1),
                    stride=2 if stage > 1 and block == 1 else 1,
                    bottleneck=bottleneck,
                    zero_last_scale=self.last_scale == "zero",
                    dtype=self.dtype,
                    norm_groups=self.norm_groups,
                    name=f"stage{stage}_block{block}",
                )(x, train=train)
        return jnp.mean(layers.at_least_float32(x), axis=(1, 2))


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3 and 1x1 with four times the channels at its end.

    Attributes:
        channels: channels of the 3x3 convolutions.
        stride: of the first 3x3 convolution and of the shortcut.
        bottleneck: whether it has three convolutions rather than two.
        zero_last_scale: whether the scale of its last batch norm starts at 0.
        dtype: what the layers compute in.
        norm_groups: as of `ResNet`.
    """

    channels: int
    stride: int
    bottleneck: bool
    zero_last_scale: bool
    dtype: str
    norm_groups: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps float [b, h, w, c] to [b, h / stride, w / stride, channels or 4 * channels], rounded up."""
        if self.bottleneck:
            widths = (self.channels, self.channels, self.channels * BOTTLENECK_EXPANSION)
            kernels_px, strides = (1, 3, 1), (1, self.stride, 1)
        else:
            widths = (self.channels, self.channels)
            kernels_px, strides = (3, 3), (self.stride, 1)
        shortcut = x
        for layer, (width, kernel_px, stride) in enumerate(zip(widths, kernels_px, strides, strict=True), start=1):
            last = layer == len(widths)
            x = layers.conv(width, kernel_px=kernel_px, stride=stride, dtype=self.dtype, name=f"conv{layer}")(x)
            norm = layers.batch_norm(
                dtype=self.dtype,
                name=f"norm{layer}",
                zero_scale=last and self.zero_last_scale,
                groups=self.norm_groups,
            )
            x = norm(x, train=train)
            if not last:
                x = nn.relu(x)
        if self.stride != 1 or shortcut.shape[-1] != widths[-1]:
            shortcut = layers.conv(widths[-1], kernel_px=1, stride=self.stride, dtype=self.dtype, name="shortcut_conv")(
                shortcut
            )
            norm = layers.batch_norm(dtype=self.dtype, name="shortcut_norm", groups=self.norm_groups)
            shortcut = norm(shortcut, train=train)
        return nn.relu(x + shortcut)
