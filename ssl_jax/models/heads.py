"""The heads that methods train on top of an encoder's features."""

from typing import Literal

import flax.linen as nn
import jax

from ssl_jax import types
from ssl_jax.models import layers


class Projector(nn.Module):
    """SimSiam's projector: dense layers, each followed by batch norm, all but the last by ReLU as well.

    Parameters lie under `dense1`, `norm1`, `dense2`, and so on. A dense layer has a bias only if no batch norm follows.
    Departures: the reference code freezes a bias before its last batch norm, which cancels it; there is none here.
    The defaults are the reference code's. The paper's own default has an "affine" last batch norm: 68.1 % on ImageNet,
    and 68.2 % with a "plain" one.

    Attributes:
        hidden: width of the inner layers.
        output: width of the last.
        layers: how many dense layers, 3 (the paper on ImageNet) or 2 (on CIFAR-10).
        hidden_norm: batch norm of the inner layers, "affine" or "none" (an ablation).
        last_norm: batch norm of the last layer, "plain" (no scale and bias), "affine" or "none".
        dtype: what the layers compute in, "float32" or "bfloat16".
        norm_groups: into how many parts a training batch is cut, each normalised by itself (`layers.BatchNorm`).

    Raises:
        UsageError: for a value that is none of the choices.

    Source: SimSiam (arXiv 2011.10566), section 3 and appendix D.
    """

    hidden: int = 2048
    output: int = 2048
    layers: Literal[2, 3] = 3
    hidden_norm: Literal["affine", "none"] = "affine"
    last_norm: Literal["plain", "affine", "none"] = "plain"
    dtype: str = "float32"
    norm_groups: int = 1

    def __post_init__(self) -> None:
        layers.check_choice("Projector layers", self.layers, (2, 3))
        layers.check_choice("Projector hidden_norm", self.hidden_norm, ("affine", "none"))
        layers.check_choice("Projector last_norm", self.last_norm, ("plain", "affine", "none"))
        layers.compute_dtype(self.dtype)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Features float [b, c] to projections float32 [b, output]; `train` updates collection "batch_stats"."""
        x = x.astype(layers.compute_dtype(self.dtype))
        form = {"dtype": self.dtype, "groups": self.norm_groups, "train": train}
        for layer in range(1, self.layers):
            x = nn.relu(_dense_norm(x, self.hidden, layer, self.hidden_norm, **form))
        return layers.at_least_float32(_dense_norm(x, self.output, self.layers, self.last_norm, **form))


class Predictor(nn.Module):
    """SimSiam's predictor: a dense layer with batch norm and ReLU, and a dense layer.

    Parameters lie under `dense1`, `norm1` and `dense2`. A dense layer has a bias only if no batch norm follows.

    Attributes:
        hidden: width of the bottleneck, a quarter of the output in the paper.
        output: width of the projections that it predicts.
        hidden_norm: batch norm of the bottleneck, "affine" or "none" (an ablation).
        output_norm: batch norm of the output, "none" or "affine" (an ablation, unstable in the paper's table 3).
        dtype: what the layers compute in, "float32" or "bfloat16".
        norm_groups: into how many parts a training batch is cut, each normalised by itself (`layers.BatchNorm`).

    Raises:
        UsageError: for a value that is none of the choices.

    Source: SimSiam (arXiv 2011.10566), section 3.
    """

    hidden: int = 512
    output: int = 2048
    hidden_norm: Literal["affine", "none"] = "affine"
    output_norm: Literal["none", "affine"] = "none"
    dtype: str = "float32"
    norm_groups: int = 1

    def __post_init__(self) -> None:
        layers.check_choice("Predictor hidden_norm", self.hidden_norm, ("affine", "none"))
        layers.check_choice("Predictor output_norm", self.output_norm, ("none", "affine"))
        layers.compute_dtype(self.dtype)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Projections float [b, c] to predictions float32 [b, output]; `train` updates collection "batch_stats"."""
        x = x.astype(layers.compute_dtype(self.dtype))
        form = {"dtype": self.dtype, "groups": self.norm_groups, "train": train}
        x = nn.relu(_dense_norm(x, self.hidden, 1, self.hidden_norm, **form))
        return layers.at_least_float32(_dense_norm(x, self.output, 2, self.output_norm, **form))


class NoPredictor(nn.Module):
    """Projections as they are, the paper's ablation without a predictor (section 4.2, table 1), which collapses.

    It has no parameters, so an optimiser's `constant_rate` cannot name it.
    """

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Projections float32 [b, c], unchanged; `train` means nothing."""
        del train
        return x


class Classifier(nn.Module):
    """One linear layer from features to class logits.

    Parameters lie under `dense1`, and with a norm its statistics under `norm1`. The kernel starts normal with deviation
    0.01 and the bias at zero, as in the SimSiam authors' linear evaluation (`main_lincls.py`).

    Attributes:
        classes: how many logits.
        norm: "none", the published protocol; or "plain", a batch norm without scale and bias before the layer, which
            makes learning rates mean the same for features of every size (He et al. 2021, arXiv 2111.06377, A.1).
        dtype: what the layer computes in, "float32" or "bfloat16".

    Raises:
        UsageError: for fewer than 2 classes, or a value that is none of the choices.
    """

    classes: int
    norm: Literal["none", "plain"] = "none"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise types.UsageError(f"Classifier classes={self.classes}: a classifier tells at least 2 classes apart")
        layers.check_choice("Classifier norm", self.norm, ("none", "plain"))
        layers.compute_dtype(self.dtype)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Features float [b, c] to logits float32 [b, classes]; `train` updates collection "batch_stats"."""
        if self.norm == "plain":
            x = layers.batch_norm(dtype=self.dtype, name="norm1", affine=False, fast_variance=False)(x, train=train)
        x = x.astype(layers.compute_dtype(self.dtype))
        dense = nn.Dense(
            self.classes,
            kernel_init=nn.initializers.normal(0.01),
            dtype=layers.compute_dtype(self.dtype),
            name="dense1",
        )
        return layers.at_least_float32(dense(x))


def _dense_norm(x, features, layer, norm, *, dtype, groups, train):
    x = layers.dense(x.shape[-1], features, use_bias=norm == "none", dtype=dtype, name=f"dense{layer}")(x)
    if norm == "none":
        return x
    # Two passes for the variance: vectors are cheap, and a collapsing head's mean dwarfs its spread.
    affine = norm == "affine"
    normalize = layers.batch_norm(dtype=dtype, name=f"norm{layer}", affine=affine, fast_variance=False, groups=groups)
    return normalize(x, train=train)
