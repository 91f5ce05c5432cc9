"""Convolution, dense layer and batch norm with PyTorch's conventions, and what the networks here share."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax import types

DTYPES = ("float32", "bfloat16", "float64")


def compute_dtype(name: str) -> jnp.dtype:
    """The type that a network's layers compute in; parameters and batch statistics keep their own.

    Raises:
        UsageError: for a name other than "float32", "bfloat16" and "float64", or "float64" without `jax_enable_x64`.
    """
    check_choice("dtype", name, DTYPES)
    if name == "float64" and not jax.config.jax_enable_x64:
        raise types.UsageError('dtype "float64" needs jax_enable_x64, which is off; use "float32"')
    return jnp.dtype(name)


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        UsageError: naming the argument, the value and the choices.
    """
    if value not in choices:
        raise types.UsageError(f"{name} is {value!r}; choose one of {', '.join(repr(choice) for choice in choices)}")


def at_least_float32(values: jax.Array) -> jax.Array:
    """The same values as float32, or unchanged if they are float64: the type in which every network answers."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def conv(features: int, *, kernel_px: int, stride: int, dtype: str, name: str) -> nn.Conv:
    """A square convolution without bias, initialised as in torchvision's ResNet: normal, variance 2 / fan-out.

    Its padding is `kernel_px // 2` on every side, as PyTorch writes it; "SAME" would pad a strided one unevenly.
    """
    margin_px = kernel_px // 2
    return nn.Conv(
        features,
        (kernel_px, kernel_px),
        strides=(stride, stride),
        padding=((margin_px, margin_px), (margin_px, margin_px)),
        use_bias=False,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        dtype=compute_dtype(dtype),
        name=name,
    )


def dense(in_features: int, features: int, *, use_bias: bool, dtype: str, name: str) -> nn.Dense:
    """A dense layer initialised as `torch.nn.Linear`: kernel and bias uniform in +-1/sqrt(in_features).

    The SimSiam paper (appendix A) warns that other initialisations of its heads may fail to converge.
    """
    bound = in_features**-0.5

    def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nn.Dense(
        features,
        use_bias=use_bias,
        kernel_init=uniform,
        bias_init=uniform,
        dtype=compute_dtype(dtype),
        name=name,
    )


class BatchNorm(nn.BatchNorm):
    """Batch norm over all axes but the last, with PyTorch's numbers.

    Epsilon 1e-5; of the running statistics 0.9 is kept at each update (PyTorch calls that momentum 0.1); the running
    variance takes in the unbiased estimate, as in PyTorch, where linen's own takes in the biased one. Statistics are
    computed and kept in at least float32, over the global batch under `jit` with a batch that is split over devices.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise by the batch (`train`) or by the running statistics.

        Args:
            x: float [..., c].
            train: also updates collection "batch_stats", which must then be mutable.

        Returns:
            The same shape, in `dtype`.

        Raises:
            UsageError: if a training batch holds one value a channel, which has no spread.
        """
        if not train or self.is_initializing():
            return super().__call__(x, use_running_average=not train)
        values = x.size // x.shape[-1]
        if values == 1:
            raise types.UsageError(f"batch norm needs more than one value a channel to train, got shape {x.shape}")
        before = self.get_variable("batch_stats", "var")
        normalized = super().__call__(x, use_running_average=False)
        after = self.get_variable("batch_stats", "var")
        taken_in = after - self.momentum * before
        self.put_variable("batch_stats", "var", after + taken_in / (values - 1))
        return normalized


def batch_norm(
    *, dtype: str, name: str, affine: bool = True, zero_scale: bool = False, fast_variance: bool = True
) -> BatchNorm:
    """A `BatchNorm` layer.

    Args:
        dtype: what it computes in.
        name: its name in the parameter tree.
        affine: False leaves out scale and bias.
        zero_scale: starts the scale at 0 instead of 1.
        fast_variance: one pass over the input (mean of squares minus square of mean) instead of two.
    """
    return BatchNorm(
        use_bias=affine,
        use_scale=affine,
        scale_init=nn.initializers.zeros if zero_scale else nn.initializers.ones,
        use_fast_variance=fast_variance,
        dtype=compute_dtype(dtype),
        name=name,
    )
