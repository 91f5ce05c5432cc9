"""Optimisers with their schedules, and learning rates and decay chosen by parameter path."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ssl_jax import accumulation, schedules
from ssl_jax.types import Steps, UsageError


class Optimizer(NamedTuple):
    """An optax transformation that also tells its learning rate, and what it is made of.

    Attributes:
        init: as in `optax.GradientTransformation`.
        update: as in `optax.GradientTransformation`; `direction`, then `rate`.
        learning_rate: the scheduled rate at a step, for the curves.
        direction: the part before the rate: decay, momentum, trust ratio.
        rate: the part that multiplies by minus the scheduled rate.
        updates_per_step: how often a training step must call it for its schedules to hold; None where nothing changes.
        accumulate_steps: how many training steps make one update of `direction` and `rate`.
    """

    init: Callable[[Any], Any]
    update: Callable[..., Any]
    learning_rate: Callable[[jax.Array], jax.Array]
    direction: optax.GradientTransformation
    rate: optax.GradientTransformation
    updates_per_step: int | None = 1
    accumulate_steps: int = 1


def warmup_cosine(
    peak: float, *, decay_steps: int, warmup_steps: int = 0, hold_steps: int = 1
) -> Callable[[jax.Array], jax.Array]:
    """Linear warm-up to `peak`, then half a cosine down to zero at `decay_steps`.

    Args:
        peak: the highest rate.
        decay_steps: the step at which the rate is zero, the warm-up included.
        warmup_steps: steps of linear warm-up, 0 for none.
        hold_steps: the rate changes only every so many steps; one epoch's worth gives the authors' code, which sets the
            rate once an epoch, 1 the paper's cosine.

    Raises:
        UsageError: where the warm-up does not fit into the decay or `hold_steps` is below one.
    """
    if not 0 <= warmup_steps < decay_steps:
        raise UsageError(f"warmup_steps is {warmup_steps}: it must be at least 0 and below decay_steps={decay_steps}")
    if hold_steps < 1:
        raise UsageError(f"hold_steps is {hold_steps}: the rate is held for at least 1 step")

    def rate(step):
        held = (jnp.asarray(step) // hold_steps) * hold_steps
        progress = jnp.clip((held - warmup_steps) / (decay_steps - warmup_steps), 0.0, 1.0)
        cosine = 0.5 * peak * (1.0 + jnp.cos(jnp.pi * progress))
        climb = jnp.minimum(held + hold_steps, warmup_steps) / max(warmup_steps, 1)
        return jnp.where(held < warmup_steps, peak * climb, cosine)

    return rate


def sgd(
    base_learning_rate: float,
    batch_size: int,
    decay_steps: Steps,
    warmup_steps: Steps = 0,
    hold_steps: Steps = 1,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    constant_rate: tuple[str, ...] = (),
    no_decay: tuple[str, ...] = (),
    accumulate_steps: int = 1,
) -> Optimizer:
    """SGD with momentum as PyTorch defines it, a cosine schedule and linear learning-rate scaling.

    Decay is added to the gradient before the momentum, and the rate multiplies the momentum buffer, so a changing rate
    acts on the whole buffer (PyTorch's rule, which the SimSiam code uses).

    Args:
        base_learning_rate: the rate at 256 images an update; the peak is
            `base_learning_rate * batch_size * accumulate_steps / 256`.
        batch_size: images in a global batch, that of one training step.
        decay_steps: see `warmup_cosine`.
        warmup_steps: see `warmup_cosine`.
        hold_steps: see `warmup_cosine`.
        momentum: share of the buffer kept.
        weight_decay: L2 coefficient, on every parameter unless `no_decay` says otherwise.
        constant_rate: parameter paths ("predictor", "encoder/stem_conv") whose rate stays at the peak (SimSiam,
            section 4.1: the predictor should follow the latest representations, so its rate is not decayed).
        no_decay: parameter paths without weight decay.
        accumulate_steps: training steps that make one update, by the mean of their gradients; the parameters rest in
            between, and a last update whose steps are not complete is not made. Decay, momentum and moments act once an
            update. Schedules go by training steps still: an update takes the rate of its first step, and no rate is
            held for less than an update, so `n` steps of `b` images give the rates, and without batch norm the
            parameters, of one step of `n * b`. With batch norm they do not: every step normalises its own batch and
            moves the running statistics; for training that is what a batch of `n * b` with `norm_groups=n` does.

    Raises:
        UsageError: as `warmup_cosine`; for less than one step an update.
    """
    direction = optax.chain(_decay(weight_decay, no_decay), optax.trace(decay=momentum))
    schedule = (base_learning_rate, batch_size, decay_steps, warmup_steps, hold_steps)
    return _scheduled(direction, *schedule, constant_rate, no_decay, accumulate_steps)


def lars(
    base_learning_rate: float,
    batch_size: int,
    decay_steps: Steps,
    warmup_steps: Steps = 0,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    trust_coefficient: float = 0.001,
    constant_rate: tuple[str, ...] = (),
    no_decay: tuple[str, ...] = (),
    accumulate_steps: int = 1,
) -> Optimizer:
    """SGD whose gradient is rescaled per parameter to the norm of that parameter (You et al. 2017, arXiv 1708.03888).

    Without weight decay this is NVIDIA's LARC without clipping, which the SimSiam linear evaluation uses; a parameter
    or gradient of norm zero is left unscaled. Departure: with weight decay the ratio divides by the norm of gradient
    plus decay, as BYOL's and MoCo v3's code does, where the paper and LARC add the two norms. Arguments as in `sgd`.
    """
    direction = optax.chain(
        _decay(weight_decay, no_decay),
        optax.scale_by_trust_ratio(trust_coefficient=trust_coefficient),
        optax.trace(decay=momentum),
    )
    schedule = (base_learning_rate, batch_size, decay_steps, warmup_steps, 1)
    return _scheduled(direction, *schedule, constant_rate, no_decay, accumulate_steps)


def adam(
    base_learning_rate: float,
    batch_size: int,
    decay_steps: Steps,
    warmup_steps: Steps = 0,
    b1: float = 0.9,
    b2: float = 0.999,
    weight_decay: float = 0.0,
    constant_rate: tuple[str, ...] = (),
    no_decay: tuple[str, ...] = (),
    accumulate_steps: int = 1,
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101); the rest as in `sgd`."""
    direction = optax.chain(optax.scale_by_adam(b1=b1, b2=b2), _decay(weight_decay, no_decay))
    schedule = (base_learning_rate, batch_size, decay_steps, warmup_steps, 1)
    return _scheduled(direction, *schedule, constant_rate, no_decay, accumulate_steps)


def scheduled_adam(
    learning_rate: float | schedules.Schedule,
    b1: float = 0.0,
    b2: float | schedules.Schedule = 0.999,
    epsilon: float = 1e-8,
    updates_per_step: int = 1,
) -> Optimizer:
    """Adam as PyTorch defines it, its rate and second moment's decay constant or scheduled: for adversarial training.

    Args:
        learning_rate: the rate itself, not scaled by any batch size.
        b1: decay of the first moment.
        b2: decay of the second; where it is scheduled, the bias correction uses the present value, as PyTorch does.
        epsilon: added to the root of the second moment, after the bias correction.
        updates_per_step: how often a training step calls it, so that schedules go by training steps.

    Raises:
        UsageError: for less than one update a step.
    """
    if updates_per_step < 1:
        raise UsageError(f"updates_per_step={updates_per_step}: a step makes at least 1 update")

    def by_update(value):
        return lambda count: schedules.at(value, count // updates_per_step)

    if callable(b2):
        adam_by_update = optax.inject_hyperparams(optax.scale_by_adam, static_args=("b1", "eps"))
        direction = adam_by_update(b1=b1, b2=by_update(b2), eps=epsilon)
    else:
        direction = optax.scale_by_adam(b1=b1, b2=b2, eps=epsilon)
    rate = optax.scale_by_learning_rate(by_update(learning_rate))
    chain = optax.chain(direction, rate)
    follows = updates_per_step if callable(learning_rate) or callable(b2) else None
    return Optimizer(chain.init, chain.update, functools.partial(schedules.at, learning_rate), direction, rate, follows)


def by_parameter(
    optimizer: Optimizer, *, scale_of: Callable[[tuple], float], start_of: Callable[[tuple], int]
) -> Optimizer:
    """The same optimiser with a rate scale, and a step at which training starts, of each parameter's own.

    Before its start a parameter rests: it is not moved and not decayed, and its momentum and moments stay as they
    began, so that it starts as in a fresh run (Adam's bias correction included). The schedule runs on meanwhile.

    Args:
        optimizer: as `sgd`, `lars` and `adam` make it.
        scale_of: from a parameter's key path to what its rate is multiplied by.
        start_of: from a parameter's key path to the number of training steps that it sits out; of accumulated
            gradients it takes the first mean that holds none of those steps.
    """

    def by_start(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: start_of(path), params)

    def init(params):
        jax.eval_shape(optimizer.init, params)  # refuses paths that name no parameter
        starts = sorted(set(jax.tree.leaves(by_start(params))))
        return chain(starts).init(params)

    def update(updates, state, params=None):
        starts = sorted(set(jax.tree.leaves(by_start(updates))))
        return chain(starts).update(updates, state, params)

    def chain(starts):
        resting = {start: _resting_until(start, optimizer) for start in starts}
        return optax.chain(optax.partition(resting, by_start), optimizer.rate, _scaled(scale_of))

    steps = optimizer.accumulate_steps
    accumulated = accumulation.every(steps, optax.GradientTransformation(init, update))
    return optimizer._replace(init=accumulated.init, update=accumulated.update)


class RestingState(NamedTuple):
    """The state of parameters that start late: updates so far, int32, and the state that rests until then."""

    count: jax.Array
    inner: Any


def _resting_until(start, optimizer):
    direction = optimizer.direction

    def init(params):
        return RestingState(jnp.zeros([], jnp.int32), direction.init(params))

    def update(updates, state, params=None):
        awake = state.count * optimizer.accumulate_steps >= start
        updates, inner = direction.update(updates, state.inner, params)
        updates = jax.tree.map(lambda u: jnp.where(awake, u, jnp.zeros_like(u)), updates)
        inner = jax.tree.map(lambda new, old: jnp.where(awake, new, old), inner, state.inner)
        return updates, RestingState(state.count + 1, inner)

    return optax.GradientTransformation(init, update) if start else direction


def _scaled(scale_of):
    return optax.stateless(
        lambda updates, params: jax.tree_util.tree_map_with_path(lambda path, u: u * scale_of(path), updates)
    )


def matches(path: tuple, patterns: tuple[str, ...]) -> bool:
    """Whether a parameter's key path lies at or below one of the named paths, such as "predictor"."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return any(name == pattern or name.startswith(pattern + "/") for pattern in patterns)


def check_patterns(params: Any, patterns: tuple[str, ...]) -> None:
    """Raises UsageError for a path that names no parameter: a misspelt one would silently change nothing."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    for pattern in patterns:
        if not any(matches(path, (pattern,)) for path, _ in leaves):
            heads = sorted({jax.tree_util.keystr(path[:1], simple=True, separator="/") for path, _ in leaves})
            raise UsageError(f"no parameter lies under {pattern!r}; the networks are {', '.join(heads)}")


def _decay(weight_decay, no_decay):
    def mask(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: not matches(path, no_decay), params)

    return optax.add_decayed_weights(weight_decay, mask=mask)


def _scheduled(
    direction,
    base_learning_rate,
    batch_size,
    decay_steps,
    warmup_steps,
    hold_steps,
    constant_rate,
    no_decay,
    accumulate_steps,
):
    if 1 <= hold_steps < accumulate_steps:
        hold_steps = accumulate_steps
    peak = base_learning_rate * batch_size * accumulate_steps / 256
    schedule = warmup_cosine(peak, decay_steps=decay_steps, warmup_steps=warmup_steps, hold_steps=hold_steps)
    rate = _scale_by_rate(lambda update: schedule(update * accumulate_steps), peak, constant_rate)
    accumulated = accumulation.every(accumulate_steps, optax.chain(direction, rate))

    def init(params):
        check_patterns(params, (*constant_rate, *no_decay))
        return accumulated.init(params)

    def learning_rate(step):
        return jnp.asarray(schedule(step // accumulate_steps * accumulate_steps), jnp.float32)

    return Optimizer(init, accumulated.update, learning_rate, direction, rate, accumulate_steps=accumulate_steps)


def _scale_by_rate(schedule, peak, constant_rate):
    def init(params):
        del params
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    def update(updates, state, params=None):
        del params
        rate = schedule(state.count)
        updates = jax.tree_util.tree_map_with_path(
            lambda path, u: u * (-peak if matches(path, constant_rate) else -rate.astype(u.dtype)),
            updates,
        )
        return updates, optax.ScaleByScheduleState(count=state.count + 1)

    return optax.GradientTransformation(init, update)
