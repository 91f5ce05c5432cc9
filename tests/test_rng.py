import itertools

import jax
import numpy as np

from ssl_jax import rng


def data(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_every_argument_counts_and_nothing_else():
    cases = itertools.product((0, 1, 7), ("shuffle", "shuffel", "init"), (0, 1, 1000))
    keys = {case: data(rng.stream(*case)) for case in cases}
    assert len(set(keys.values())) == len(keys)
    assert all(data(rng.stream(*case)) == key for case, key in keys.items())


def test_a_traced_step_gives_the_key_of_the_step():
    traced = jax.jit(lambda step: jax.random.key_data(rng.stream(3, "method", step)))
    for step in (0, 1, 5000):
        assert tuple(np.asarray(traced(np.int32(step))).tolist()) == data(rng.stream(3, "method", step))


def test_seed_and_step_are_not_exchangeable():
    assert data(rng.stream(1, "shuffle", 2)) != data(rng.stream(2, "shuffle", 1))


def test_it_is_a_typed_scalar_key():
    key = rng.stream(0, "shuffle")
    assert key.shape == () and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)


def test_keys_are_those_of_earlier_runs():
    # A run that exists could no longer be resumed to the same end if these changed.
    assert data(rng.stream(0, "shuffle", 0)) == (3446940613, 1846128079)
    assert data(rng.stream(5, "preprocess", 123)) == (1358280559, 677649981)
