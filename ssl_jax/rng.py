"""The only place where random keys are born."""

import zlib

import jax


def stream(seed: int, name: str, step: int | jax.Array = 0) -> jax.Array:
    """The key of one named stream at one step, a function of its arguments alone.

    Nothing random is carried or stored, so a resumed run draws what the uninterrupted run would have drawn.

    Args:
        seed: the run's seed.
        name: what the randomness is for, such as "shuffle"; different names give independent keys.
        step: the step or epoch, a Python int or a traced int32 scalar.

    Returns:
        A typed key, scalar.
    """
    named = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return jax.random.fold_in(named, step)


def child(key: jax.Array, name: str, number: int | jax.Array = 0) -> jax.Array:
    """One of a key's named descendants: different names or numbers give independent keys.

    Args:
        key: a typed key, scalar; itself to be used for nothing else.
        name: what the randomness is for.
        number: which of several of that name, a Python int or a traced int32 scalar.

    Returns:
        A typed key, scalar.
    """
    return jax.random.fold_in(jax.random.fold_in(key, zlib.crc32(name.encode())), number)
