"""Which picture of one set belongs to which of another, by their names or, where they have none, by their order."""

import collections
import re
from typing import Any

import numpy as np

from ssl_jax.types import UsageError


def rows(a: Any, b: Any) -> np.ndarray:
    """The row of `b` that belongs to each row of `a`.

    Where both have ids (`source.Source.ids`), equal ids belong together: without the folder that is named like the
    split, without the file's extension, and without an `_A` or `_B` at the end. Where they have none, records belong
    together by order, which is refused of sets that TFDS has shuffled.

    Args:
        a, b: a `source.Source` each.

    Returns:
        int64 [n].

    Raises:
        UsageError: a picture of either has no counterpart, or more than one.
    """
    here, there = a.ids(), b.ids()
    if here is None or there is None:
        if a.examples != b.examples or not (a.keeps_order and b.keeps_order):
            why = "differ in number" if a.examples != b.examples else "were shuffled when they were written"
            raise UsageError(
                f"{_words(a)} ({a.examples} images) and {_words(b)} ({b.examples}) cannot be paired: they have no ids "
                f"and {why}: prepare them from a folder of images, in which counterparts have one name"
            )
        return np.arange(b.examples)
    keys_a, keys_b = ([_bare(name, s.split) for name in ids] for s, ids in ((a, here), (b, there)))
    for records, keys, ids in ((a, keys_a, here), (b, keys_b, there)):
        key, count = collections.Counter(keys).most_common(1)[0]
        if count > 1:
            some = [name for name, bare in zip(ids, keys, strict=True) if bare == key]
            raise UsageError(
                f"{_words(records)} has {count} pictures called {key!r} ({some[0]}, {some[1]}): rename them"
            )
    for records, keys, ids, others, wanted in ((a, keys_a, here, b, keys_b), (b, keys_b, there, a, keys_a)):
        known = set(wanted)
        alone = [name for name, key in zip(ids, keys, strict=True) if key not in known]
        if alone:
            raise UsageError(
                f"{len(alone)} of {records.examples} pictures of {_words(records)} have no counterpart in "
                f"{_words(others)}, the first of them {alone[0]!r}: counterparts have one file name, but for _A and _B"
            )
    places = {key: row for row, key in enumerate(keys_b)}
    return np.array([places[key] for key in keys_a])


def _bare(name: str, split: str) -> str:
    first, slash, rest = name.partition("/")
    if slash and first.lower() in re.findall(r"[a-z]\w*", split.lower()):
        name = rest
    return re.sub(r"(_[ab])?(\.[a-z]\w*)?$", "", name, count=1, flags=re.IGNORECASE)


def _words(records: Any) -> str:
    return f"data set {records.name!r}, split {records.split!r}"
