"""The SHA-256 of a tree of arrays, by which a network is told from every other."""

import hashlib
from typing import Any

import jax
import numpy as np


def sha256(tree: Any) -> str:
    """The hash of names, types, shapes and bytes of all leaves, as 64 hexadecimal digits.

    Args:
        tree: arrays on host or device; dicts, tuples and dataclasses of the same keys count as the same.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    digest = hashlib.sha256()
    for name in sorted(named):
        array = np.ascontiguousarray(named[name])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
