"""The Inception network behind FID, KID, precision, recall and Inception Score, by torch-fidelity's definition.

It is the network of December 2015 that TensorFlow 1 published (Szegedy et al., arXiv 1512.00567), not torchvision's
Inception v3: the resize, the average pools and one maximum pool differ, and scores by other networks cannot be
compared. Source: torch-fidelity 0.4.0, `feature_extractor_inceptionv3.py`, whose names the layers keep.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax import types

INPUT_PX = 299
FEATURES = 2048
LOGITS = 1008
EXACT = "highest"
"""Precision of every product: a GPU's default, TF32, keeps ten bits and would move the features."""


class Answer(NamedTuple):
    """What the network says of images.

    Attributes:
        features: float32 [b, 2048], the mean over the last feature map.
        logits: float32 [b, 1008], without the bias of the last layer, as Inception Score takes them
            (torch-fidelity's "logits_unbiased").
    """

    features: jax.Array
    logits: jax.Array


class Layer(NamedTuple):
    """One convolution in the tables below; `padding` is "SAME" (zeros) or "VALID" (none)."""

    name: str
    channels: int
    kernel_px: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"


Pool = Callable[[jax.Array], jax.Array]
Fork = tuple[Layer, ...]
"""Layers side by side on the same input."""
Branch = tuple[Layer | Pool | Fork, ...]
"""Steps one after another."""


def average_pool(x: jax.Array) -> jax.Array:
    """The mean of 3x3 pixels around each; at the edges of those inside the map alone, as in TensorFlow."""
    return nn.avg_pool(x, (3, 3), strides=(1, 1), padding="SAME", count_include_pad=False)


def max_pool(x: jax.Array) -> jax.Array:
    """The maximum of 3x3 pixels around each."""
    return nn.max_pool(x, (3, 3), strides=(1, 1), padding="SAME")


def halving_pool(x: jax.Array) -> jax.Array:
    """The maximum of 3x3 pixels at every second place, none of them beyond the edges."""
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding="VALID")


def block_a(pool_channels: int) -> tuple[Branch, ...]:
    """5x5 and double 3x3 convolutions on a map of 35x35."""
    return (
        (Layer("branch1x1", 64),),
        (Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, (5, 5))),
        (
            Layer("branch3x3dbl_1", 64),
            Layer("branch3x3dbl_2", 96, (3, 3)),
            Layer("branch3x3dbl_3", 96, (3, 3)),
        ),
        (average_pool, Layer("branch_pool", pool_channels)),
    )


def block_b() -> tuple[Branch, ...]:
    """From 35x35 to 17x17."""
    return (
        (Layer("branch3x3", 384, (3, 3), 2, "VALID"),),
        (
            Layer("branch3x3dbl_1", 64),
            Layer("branch3x3dbl_2", 96, (3, 3)),
            Layer("branch3x3dbl_3", 96, (3, 3), 2, "VALID"),
        ),
        (halving_pool,),
    )


def block_c(channels: int) -> tuple[Branch, ...]:
    """7x7 convolutions as pairs of a row and a column, on a map of 17x17."""
    return (
        (Layer("branch1x1", 192),),
        (
            Layer("branch7x7_1", channels),
            Layer("branch7x7_2", channels, (1, 7)),
            Layer("branch7x7_3", 192, (7, 1)),
        ),
        (
            Layer("branch7x7dbl_1", channels),
            Layer("branch7x7dbl_2", channels, (7, 1)),
            Layer("branch7x7dbl_3", channels, (1, 7)),
            Layer("branch7x7dbl_4", channels, (7, 1)),
            Layer("branch7x7dbl_5", 192, (1, 7)),
        ),
        (average_pool, Layer("branch_pool", 192)),
    )


def block_d() -> tuple[Branch, ...]:
    """From 17x17 to 8x8."""
    return (
        (Layer("branch3x3_1", 192), Layer("branch3x3_2", 320, (3, 3), 2, "VALID")),
        (
            Layer("branch7x7x3_1", 192),
            Layer("branch7x7x3_2", 192, (1, 7)),
            Layer("branch7x7x3_3", 192, (7, 1)),
            Layer("branch7x7x3_4", 192, (3, 3), 2, "VALID"),
        ),
        (halving_pool,),
    )


def block_e(pool: Pool) -> tuple[Branch, ...]:
    """3x3 convolutions as a row beside a column, on a map of 8x8."""
    return (
        (Layer("branch1x1", 320),),
        (
            Layer("branch3x3_1", 384),
            (Layer("branch3x3_2a", 384, (1, 3)), Layer("branch3x3_2b", 384, (3, 1))),
        ),
        (
            Layer("branch3x3dbl_1", 448),
            Layer("branch3x3dbl_2", 384, (3, 3)),
            (Layer("branch3x3dbl_3a", 384, (1, 3)), Layer("branch3x3dbl_3b", 384, (3, 1))),
        ),
        (pool, Layer("branch_pool", 192)),
    )


STEM: Branch = (
    Layer("Conv2d_1a_3x3", 32, (3, 3), 2, "VALID"),
    Layer("Conv2d_2a_3x3", 32, (3, 3), 1, "VALID"),
    Layer("Conv2d_2b_3x3", 64, (3, 3)),
    halving_pool,
    Layer("Conv2d_3b_1x1", 80),
    Layer("Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"),
    halving_pool,
)
BLOCKS = {
    "Mixed_5b": block_a(pool_channels=32),
    "Mixed_5c": block_a(pool_channels=64),
    "Mixed_5d": block_a(pool_channels=64),
    "Mixed_6a": block_b(),
    "Mixed_6b": block_c(channels=128),
    "Mixed_6c": block_c(channels=160),
    "Mixed_6d": block_c(channels=160),
    "Mixed_6e": block_c(channels=192),
    "Mixed_7a": block_d(),
    "Mixed_7b": block_e(average_pool),
    "Mixed_7c": block_e(max_pool),  # probably a slip of 2015, and part of the definition ever since
}


class Inception(nn.Module):
    """The whole network, for evaluation only: images in, features and logits out.

    Variables are named as in torch-fidelity, `Mixed_5b/branch1x1/conv/kernel` for `Mixed_5b.branch1x1.conv.weight`;
    batch norms use the running statistics in "batch_stats". What `init` draws has no meaning: `inception_weights.read`
    gives the published numbers.
    """

    @nn.compact
    def __call__(self, images: jax.Array) -> Answer:
        """Images uint8 [b, h, w, 3] of any size, RGB in 0..255, to their `Answer`.

        Raises:
            UsageError: for images of another type or shape.
        """
        if images.dtype != jnp.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise types.UsageError(
                f"Inception takes uint8 images [b, h, w, 3], got {images.dtype} {list(images.shape)}; round values to "
                "0..255 and repeat a gray channel three times"
            )
        x = (tf1_resize(images, INPUT_PX) - 128.0) / 128.0
        x = apply_branch(STEM, x)
        for name, branches in BLOCKS.items():
            x = Block(branches, name=name)(x)
        features = jnp.mean(x, axis=(1, 2))
        logits = nn.Dense(LOGITS, use_bias=False, precision=EXACT, name="fc")(features)
        return Answer(features, logits)


class Block(nn.Module):
    """Branches side by side, joined by channels.

    Attributes:
        branches: the steps of each.
    """

    branches: tuple[Branch, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps float32 [b, h, w, c] to [b, h', w', the channels of all branches]."""
        return jnp.concatenate([apply_branch(branch, x) for branch in self.branches], axis=-1)


class NormalizedConv(nn.Module):
    """A convolution without bias, batch norm by running statistics, ReLU.

    Attributes:
        layer: channels, kernel, stride and padding.
    """

    layer: Layer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps float32 [b, h, w, c] to [b, h', w', channels]."""
        _, channels, kernel_px, stride, padding = self.layer
        strides = (stride, stride)
        conv = nn.Conv(
            channels, kernel_px, strides=strides, padding=padding, use_bias=False, precision=EXACT, name="conv"
        )
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(conv(x)))


def apply_branch(branch: Branch, x: jax.Array) -> jax.Array:
    """The steps of a branch applied in turn; within a module's compact `__call__`, whose submodules they become."""
    for step in branch:
        if isinstance(step, Layer):
            x = NormalizedConv(step, name=step.name)(x)
        elif callable(step):
            x = step(x)
        else:
            x = jnp.concatenate([NormalizedConv(layer, name=layer.name)(x) for layer in step], axis=-1)
    return x


def tf1_resize(images: jax.Array, size_px: int) -> jax.Array:
    """Bilinear resize as TensorFlow 1 did it: corners are not aligned, pixels have no centres, nothing is smoothed.

    Target pixel i lies at source position i * source / target, so an enlarged image sits up and left of its
    place and a shrunken one leaves pixels out; positions beyond the last pixel take that pixel.

    Args:
        images: [b, h, w, c] of any real type.
        size_px: side of the result.

    Returns:
        float32 [b, size_px, size_px, c], in the range of the input.
    """
    _, height, width, _ = images.shape
    rows, columns = _weights(height, size_px), _weights(width, size_px)
    taken = jnp.einsum("sh,bhwc->bswc", rows, images.astype(jnp.float32), precision=EXACT)
    return jnp.einsum("tw,bswc->bstc", columns, taken, precision=EXACT)


def _weights(source_px: int, target_px: int) -> np.ndarray:
    """What each target pixel takes from the source pixels, float32 [target, source].

    In numpy: a compiler may skip the rounding of the position to float32, which is part of the definition.
    """
    position = np.arange(target_px, dtype=np.float32) * np.float32(source_px / target_px)
    position = np.minimum(position, np.float32(source_px - 1)).reshape(-1, 1)
    return np.maximum(0, 1 - np.abs(position - np.arange(source_px, dtype=np.float32).reshape(1, -1)))


def variables_spec() -> dict[str, Any]:
    """Shapes and dtypes of the network's variables: "params" and "batch_stats", as ShapeDtypeStructs."""
    images = jax.ShapeDtypeStruct((1, INPUT_PX, INPUT_PX, 3), jnp.uint8)
    return jax.eval_shape(lambda x: Inception().init(jax.random.key(0), x), images)
