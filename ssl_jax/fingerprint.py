"""The SHA-256 of a tree of arrays, by which a network is told from every other."""

import hashlib
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def sha256(tree: Any) -> str:
    """The hash of names, types, shapes and bytes of all leaves, as 64 hexadecimal digits.

    Args:
        tree: arrays on host or device, divided over devices of other processes as well, all of which must then call
            this; dicts, tuples and dataclasses of the same keys count as the same.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    digest = hashlib.sha256()
    for name in sorted(named):
        leaf = named[name]
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            leaf = multihost_utils.process_allgather(leaf, tiled=True)
        array = np.ascontiguousarray(leaf)
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
