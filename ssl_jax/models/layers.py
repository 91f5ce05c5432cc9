"""Convolution, dense layer and batch norm with PyTorch's conventions, and what the networks here share."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssl_jax import types
from ssl_jax.models import convolution_maps

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
        conv_general_dilated=_conv,
        name=name,
    )


def _conv(x, kernel, strides, margins, **_):
    """What linen calls for a square stride and padding without dilation or groups."""
    return convolution_maps.conv(x, kernel, strides[0], margins[0][0])


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

    Attributes:
        groups: 1 normalises a training batch as a whole. More cut it into as many contiguous parts of equal size, each
            normalised by its own statistics, as if it came alone (ghost batch norm, Hoffer et al., arXiv 1705.08741);
            the running statistics then take in the mean over the parts of what each would have brought. As many as
            there are devices is what `pmap` and PyTorch's DistributedDataParallel do, where no device waits for
            another between two layers. Departure: the latter keeps the first device's running statistics.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    groups: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise by the batch (`train`) or by the running statistics.

        Args:
            x: float [..., c]; [b, ..., c] with several groups.
            train: also updates collection "batch_stats", which must then be mutable.

        Returns:
            The same shape, in `dtype`.

        Raises:
            UsageError: if a training batch, or a group of it, holds one value a channel, which has no spread; if the
                groups do not divide the batch.
        """
        if not train or self.is_initializing():
            return super().__call__(x, use_running_average=not train)
        if self.groups != 1:
            return self._by_group(x)
        values = x.size // x.shape[-1]
        if values == 1:
            raise types.UsageError(f"batch norm needs more than one value a channel to train, got shape {x.shape}")
        before = self.get_variable("batch_stats", "var")
        normalized = super().__call__(x, use_running_average=False)
        after = self.get_variable("batch_stats", "var")
        taken_in = after - self.momentum * before
        self.put_variable("batch_stats", "var", after + taken_in / (values - 1))
        return normalized

    def _by_group(self, x):
        batch, channels = x.shape[0], x.shape[-1]
        if self.groups < 1 or batch % self.groups:
            nearest = min((n for n in range(1, batch + 1) if batch % n == 0), key=lambda n: abs(n - self.groups))
            raise types.UsageError(
                f"norm_groups={self.groups} does not divide a batch of {batch} examples; the nearest is {nearest}"
            )
        values = x.size // channels // self.groups
        if values == 1:
            raise types.UsageError(
                f"norm_groups={self.groups}: batch norm needs more than one value a channel and group to train, "
                f"got shape {x.shape}"
            )
        # The groups lead, so that a batch split over devices stays where it is.
        grouped = at_least_float32(x.reshape(self.groups, batch // self.groups, *x.shape[1:]))
        axes = tuple(range(1, grouped.ndim - 1))
        mean = jnp.mean(grouped, axes, keepdims=True)
        if self.use_fast_variance:
            variance = jnp.maximum(jnp.mean(jnp.square(grouped), axes, keepdims=True) - jnp.square(mean), 0.0)
        else:
            variance = jnp.mean(jnp.square(grouped - mean), axes, keepdims=True)
        for name, statistic in (("mean", mean), ("var", variance * (values / (values - 1)))):
            taken_in = jnp.mean(statistic.reshape(self.groups, channels), axis=0)
            kept = self.momentum * self.get_variable("batch_stats", name)
            self.put_variable("batch_stats", name, kept + (1 - self.momentum) * taken_in)
        factor = jax.lax.rsqrt(variance + self.epsilon)
        one_channel = (1,) * (grouped.ndim - 1) + (channels,)
        if self.use_scale:
            factor = factor * self.get_variable("params", "scale").reshape(one_channel)
        normalized = (grouped - mean) * factor
        if self.use_bias:
            normalized = normalized + self.get_variable("params", "bias").reshape(one_channel)
        return normalized.reshape(x.shape).astype(self.dtype)


def batch_norm(
    *,
    dtype: str,
    name: str,
    affine: bool = True,
    zero_scale: bool = False,
    fast_variance: bool = True,
    groups: int = 1,
) -> BatchNorm:
    """A `BatchNorm` layer.

    Args:
        dtype: what it computes in.
        name: its name in the parameter tree.
        affine: False leaves out scale and bias.
        zero_scale: starts the scale at 0 instead of 1.
        fast_variance: one pass over the input (mean of squares minus square of mean) instead of two.
        groups: into how many parts of a batch, each with statistics of its own.
    """
    return BatchNorm(
        use_bias=affine,
        use_scale=affine,
        scale_init=nn.initializers.zeros if zero_scale else nn.initializers.ones,
        use_fast_variance=fast_variance,
        groups=groups,
        dtype=compute_dtype(dtype),
        name=name,
    )
