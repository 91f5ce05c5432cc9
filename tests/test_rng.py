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


def test_every_argument_of_a_child_counts_and_nothing_else():
    parents = [rng.stream(seed, "method", step) for seed in (0, 1) for step in (0, 5)]
    cases = list(itertools.product(range(len(parents)), ("latent", "augment", "group"), (0, 1, 1000)))
    keys = {(parent, *rest): data(rng.child(parents[parent], *rest)) for parent, *rest in cases}
    assert len(set(keys.values()) | {data(parent) for parent in parents}) == len(keys) + len(parents)
    assert all(data(rng.child(parents[parent], *rest)) == keys[parent, *rest] for parent, *rest in cases)
    assert data(rng.child(parents[0], "latent")) == keys[0, "latent", 0]


def test_children_of_children_depend_on_the_way():
    key = rng.stream(0, "method")
    ways = list(itertools.permutations(("a", "b", "c")))
    found = {data(rng.child(rng.child(rng.child(key, one), two), three)) for one, two, three in ways}
    assert len(found) == len(ways)


def test_a_child_is_a_typed_scalar_key_also_for_traced_arguments():
    key = rng.child(rng.stream(0, "method"), "discriminator", 2)
    assert key.shape == () and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    traced = jax.jit(lambda key, number: jax.random.key_data(rng.child(key, "discriminator", number)))
    for number in (0, 2, 5000):
        expected = data(rng.child(rng.stream(0, "method"), "discriminator", number))
        assert tuple(np.asarray(traced(rng.stream(0, "method"), np.int32(number))).tolist()) == expected


def test_children_draw_independent_numbers():
    key = rng.stream(0, "method")
    children = [rng.child(key, name, number) for name in ("latent", "augment") for number in range(4)]
    draws = np.stack([np.asarray(jax.random.normal(child, (4000,))) for child in [key, *children]])
    assert np.abs(np.corrcoef(draws) - np.eye(len(draws))).max() < 0.08


def test_children_are_those_of_earlier_runs():
    # As for streams: a run could no longer be resumed to the same end.
    assert data(rng.child(rng.stream(0, "method", 0), "latent")) == (1780201021, 3558834712)
    assert data(rng.child(rng.stream(5, "method", 9), "group", 1)) == (3473079626, 2618175463)
