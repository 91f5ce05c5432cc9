"""What an annotation says of a config's value: whether it fits, and what should stand there in words."""

import inspect
import types as python_types
import typing
from typing import Any

from ssl_jax.types import Steps

MAPPING = typing.get_origin(typing.Mapping)
"""What `typing.get_origin` says of every annotated mapping but dict."""
_CALLABLE = typing.get_origin(typing.Callable)


def is_a(value, kind):
    """Whether an object made from a section is what one annotation, no union, asks for."""
    if kind is Any:
        return True
    if typing.get_origin(kind) is _CALLABLE:
        return callable(value)
    if getattr(kind, "_is_protocol", False):
        members = [name for name in (*vars(kind), *kind.__annotations__) if not name.startswith("_")]
        return all(hasattr(value, name) for name in members) and (callable(value) or "__call__" not in vars(kind))
    return inspect.isclass(kind) and isinstance(value, kind)


def members(hint):
    """The annotations that a union is of, or the one itself."""
    union = typing.get_origin(hint) in (typing.Union, python_types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def is_steps(hint):
    """Whether a duration may stand there."""
    return Steps in members(hint)


def may_be_object(hint):
    """Whether an object of a section of its own may stand there."""
    return any(
        kind is Any
        or (inspect.isclass(kind) and kind not in (int, float, str, bool, tuple, type(None)))
        or typing.get_origin(kind) is _CALLABLE
        for kind in members(hint)
        if typing.get_origin(kind) not in (tuple, typing.Literal)
    )


def fits(value, hint):
    """Whether a literal is what the annotation asks for; an integer is a float too, and True is no integer."""
    for kind in members(hint):
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        if kind is Any or (kind is type(None) and value is None):
            return True
        if origin is typing.Literal and any(value == choice and type(value) is type(choice) for choice in inner):
            return True
        if kind is Steps and isinstance(value, int | str) and not isinstance(value, bool):
            return True
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return True
        if kind in (str, bool) and isinstance(value, kind):
            return True
        if kind is int and isinstance(value, int) and not isinstance(value, bool):
            return True
        if origin is tuple and isinstance(value, tuple):
            kinds = inner[:1] * len(value) if inner[1:] == (Ellipsis,) else inner
            if len(kinds) == len(value) and all(fits(v, k) for v, k in zip(value, kinds, strict=True)):
                return True
    return False


def words(hint):
    """What should stand there, for the user's eyes."""
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(repr(value) for value in typing.get_args(hint))
    if is_steps(hint):
        return 'a duration: steps (5000), "800 epochs", "25 Mimages" or "5 %"'
    if len(members(hint)) > 1:
        return " or ".join(words(kind) for kind in members(hint))
    if hint is type(None):
        return "None"
    return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint).replace("typing.", "")
