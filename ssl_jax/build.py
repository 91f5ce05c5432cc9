"""From a config to objects: every config error is found here, in one line with its dotted path.

A section that is an object carries `type`, an import path below `ssl_jax` such as "methods.simsiam.SimSiam"; its other
keys are that callable's own arguments. Nothing is registered anywhere, so a dead or misspelt key cannot exist.
"""

import dataclasses
import difflib
import importlib
import inspect
import json
import pathlib
import re
import types as python_types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from ssl_jax.types import Steps, UsageError


@dataclasses.dataclass(frozen=True)
class Clock:
    """What a duration in words is measured by.

    Attributes:
        examples: images in one pass over the training data.
        batch_size: images in one step.
        total_steps: the training's length, None while that is what is being worked out.
    """

    examples: int
    batch_size: int
    total_steps: int | None = None

    def steps(self, value: int | str, path: str) -> int:
        """A duration as steps: `5000` or "5000", "5000 steps", "800 epochs", "25 Mimages" or "5 %" of the whole.

        An epoch is the steps of one pass, its incomplete last batch dropped. Parts of a step are rounded, but something
        never comes to nothing: "1 %" of 20 steps is 1.

        Raises:
            UsageError: for text that is none of these, or a negative number.
        """
        if isinstance(value, int) and value >= 0:
            return value
        match = re.fullmatch(r"([0-9]*\.?[0-9]+) ?(steps?|epochs?|[kM]?images|%|)", str(value).strip())
        if not match:
            raise UsageError(
                f'{path}={value!r} is not a duration: write steps (5000), "800 epochs", "25 Mimages" or "5 %"'
            )
        amount, unit = float(match[1]), match[2].rstrip("s")
        if unit == "%" and self.total_steps is None:
            raise UsageError(f'{path}={value!r}: the whole cannot be a share of itself; write steps or "800 epochs"')
        one = {
            "": 1.0,
            "step": 1.0,
            "epoch": float(self.examples // self.batch_size),
            "image": 1 / self.batch_size,
            "kimage": 1e3 / self.batch_size,
            "Mimage": 1e6 / self.batch_size,
            "%": (self.total_steps or 0) / 100,
        }
        return max(round(amount * one[unit]), 1 if amount else 0)


def clock_of(folder: pathlib.Path) -> Clock:
    """What the durations in words of a run came to, from its own `summary.json`.

    Raises:
        UsageError: for a run folder without a sound one.
    """
    try:
        summary = json.loads((folder / "summary.json").read_text())
        batch_size = summary["batch_size"]
        return Clock(summary["steps_per_epoch"] * batch_size, batch_size, summary["total_steps"])
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{folder} has no sound summary.json: train it with the writer `files`") from error


def arguments(function: Callable[..., Any], config: Mapping[str, Any], *, given: tuple[str, ...]) -> dict[str, Any]:
    """Builds every argument of `function` from the config section of its name.

    Args:
        function: such as `loop.fit`; one argument is `data`, a feed, and one is `duration`.
        config: nested mappings of literals; its keys are the function's arguments.
        given: arguments that the caller passes himself.

    Returns:
        Keyword arguments for `function`.

    Raises:
        UsageError: for the first fault found; the whole config is checked before anything is built.
    """
    config = normalised(config)
    hints = check(function, config, given=given)
    feed = _construct(config["data"], hints["data"], "config.data", None)
    clock = Clock(feed.examples, feed.batch_size)
    clock = dataclasses.replace(clock, total_steps=clock.steps(config["duration"], "config.duration"))
    if clock.total_steps == 0 and config["duration"] not in (0, "0", "0 steps"):
        raise UsageError(f"config.duration={config['duration']!r} comes to 0 steps of {feed.batch_size} images")
    built = {"data": feed}
    for name, value in config.items():
        if name != "data":
            built[name] = _construct(value, hints[name], f"config.{name}", clock)
    for name, value in built.items():
        _check_built(value, hints[name], f"config.{name}")
    return built


def check(function: Callable[..., Any], config: Mapping[str, Any], *, given: tuple[str, ...]) -> dict[str, Any]:
    """Checks a whole config against the signatures it names and builds nothing; arguments as of `arguments`.

    Returns:
        The annotations of the function's arguments.

    Raises:
        UsageError: for the first fault found.
    """
    hints = {name: kind for name, kind in typing.get_type_hints(function).items() if name not in given}
    parameters = {name: p for name, p in inspect.signature(function).parameters.items() if name not in given}
    _check_arguments(normalised(config), parameters, hints, "config", function.__name__)
    return hints


def section(value: Mapping[str, Any], path: str, clock: Clock | None = None) -> Any:
    """Builds one object from its section; see the module's docstring."""
    value = normalised(value)
    _check(value, Any, path)
    return _construct(value, Any, path, clock)


def normalised(value: Any) -> Any:
    """The same config as plain dicts and tuples, as a file or JSON may have lists instead."""
    if isinstance(value, Mapping):
        return {str(key): normalised(item) for key, item in value.items()}
    return tuple(normalised(item) for item in value) if isinstance(value, list | tuple) else value


def _construct(value, hint, path, clock):
    if _is_steps(hint) and value is not None:
        if clock is None and not isinstance(value, int):
            raise UsageError(f"{path}={value!r}: no data set is at hand here to measure it by; write steps")
        return value if clock is None else clock.steps(value, path)
    if isinstance(value, tuple) and any(_is_steps(kind) for kind in typing.get_args(hint)):
        return tuple(_construct(item, Steps, f"{path}[{place}]", clock) for place, item in enumerate(value))
    if not isinstance(value, Mapping):
        return value
    if "type" not in value:
        inner = typing.get_args(hint)[1]
        return {key: _construct(item, inner, f"{path}.{key}", clock) for key, item in value.items()}
    target = _resolve(value["type"], path)
    hints = _hints(target)
    keywords = {
        key: _construct(item, hints[key], f"{path}.{key}", clock) for key, item in value.items() if key != "type"
    }
    for key, item in keywords.items():
        _check_built(item, hints[key], f"{path}.{key}")
    try:
        return target(**keywords)
    except UsageError as error:
        message = str(error)
        raise UsageError(message if message.startswith("config.") else f"{path}: {message}") from error


def _check(value, hint, path):
    """Raises UsageError unless a literal, or the section of an object, fits an annotation."""
    if isinstance(value, Mapping):
        if "type" in value:
            target = _resolve(value["type"], path)
            rest = {key: item for key, item in value.items() if key != "type"}
            _check_arguments(rest, inspect.signature(target).parameters, _hints(target), path, value["type"])
            if hint is not Any and not _may_be_object(hint):
                raise UsageError(f"{path} is {value['type']!r}, but should be {_words(hint)}")
        elif typing.get_origin(hint) in (dict, _ABC_MAPPING):
            for key, item in value.items():
                _check(item, typing.get_args(hint)[1], f"{path}.{key}")
        elif not _may_be_object(hint):
            raise UsageError(f"{path} is a section, but should be {_words(hint)}")
        else:
            raise UsageError(f'{path} needs a `type`, such as "augment.Crop"')
    elif not _fits(value, hint):
        raise UsageError(f"{path}={value!r} should be {_words(hint)}")


def _check_arguments(values, parameters, hints, path, name):
    parameters = {key: p for key, p in parameters.items() if key not in ("self", "parent")}
    for key in values:
        if key not in parameters:
            near = difflib.get_close_matches(key, parameters, 1, 0.5)
            advice = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(sorted(parameters))}"
            raise UsageError(f"{path}.{key}: {name} has no argument {key!r}; {advice}")
    missing = [
        key
        for key, p in parameters.items()
        if p.default is p.empty and key not in values and p.kind not in (p.VAR_KEYWORD,)
    ]
    if missing:
        raise UsageError(f"{path}: {name} needs {', '.join(missing)}")
    for key, item in values.items():
        _check(item, hints.get(key, Any), f"{path}.{key}")  # an unannotated argument takes anything


def _check_built(value, hint, path):
    """Raises UsageError unless an object made from a section is what its place asks for; literals were checked."""
    if typing.get_origin(hint) in (dict, _ABC_MAPPING):
        for key, item in value.items():
            _check_built(item, typing.get_args(hint)[1], f"{path}.{key}")
        return
    literal = isinstance(value, (int, float, str, tuple, type(None))) and not hasattr(value, "_fields")
    if not literal and not any(_is_a(value, kind) for kind in _members(hint)):
        raise UsageError(f"{path} is {type(value).__name__}, but should be {_words(hint)}")


def _is_a(value, kind):
    if kind is Any:
        return True
    if typing.get_origin(kind) is _ABC_CALLABLE:
        return callable(value)
    if getattr(kind, "_is_protocol", False):
        members = [name for name in (*vars(kind), *kind.__annotations__) if not name.startswith("_")]
        return all(hasattr(value, name) for name in members) and (callable(value) or "__call__" not in vars(kind))
    return inspect.isclass(kind) and isinstance(value, kind)


def _resolve(path, place):
    if not isinstance(path, str) or "." not in path:
        raise UsageError(f'{place}.type={path!r} is not an import path below ssl_jax, such as "augment.Crop"')
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(f"ssl_jax.{module_name}")
    except ModuleNotFoundError as error:
        if error.name is None or not f"ssl_jax.{module_name}".startswith(error.name):
            raise UsageError(
                f"{place}.type={path!r} needs the Python package {error.name!r}, which is not installed: "
                "`pip install -e .` installs all that this project needs"
            ) from error
        near = difflib.get_close_matches(module_name, _modules_that_define(name), 1, 0.0)
        advice = f"did you mean {f'{near[0]}.{name}'!r}?" if near else f"there is no module ssl_jax.{module_name}"
        raise UsageError(f"{place}.type={path!r}: {advice}") from error
    target = getattr(module, name, None)
    if not callable(target) or name.startswith("_"):
        own = [n for n, item in vars(module).items() if getattr(item, "__module__", None) == module.__name__]
        names = [n for n in own if callable(vars(module)[n]) and not n.startswith("_")]
        near = difflib.get_close_matches(name, names, 1, 0.5)
        there = f"ssl_jax.{module_name} has {', '.join(sorted(names)) or 'nothing to build'}"
        advice = f"did you mean {f'{module_name}.{near[0]}'!r}?" if near else there
        raise UsageError(f"{place}.type={path!r}: {advice}")
    return target


def _modules_that_define(name):
    root, defines = pathlib.Path(__file__).parent, re.compile(rf"^(?:class|def) {re.escape(name)}\b", re.MULTILINE)
    files = [file for file in sorted(root.rglob("*.py")) if defines.search(file.read_text())]
    return [".".join(file.relative_to(root).with_suffix("").parts) for file in files]


def _hints(target):
    hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    if dataclasses.is_dataclass(target):
        hints = {**hints, **typing.get_type_hints(target)}
    return {key: hints.get(key, Any) for key in (*inspect.signature(target).parameters, *hints)}


_ABC_MAPPING, _ABC_CALLABLE = typing.get_origin(typing.Mapping), typing.get_origin(typing.Callable)


def _members(hint):
    union = typing.get_origin(hint) in (typing.Union, python_types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _is_steps(hint):
    return Steps in _members(hint)


def _may_be_object(hint):
    return any(
        kind is Any
        or (inspect.isclass(kind) and kind not in (int, float, str, bool, tuple, type(None)))
        or typing.get_origin(kind) is _ABC_CALLABLE
        for kind in _members(hint)
        if typing.get_origin(kind) not in (tuple, typing.Literal)
    )


def _fits(value, hint):
    for kind in _members(hint):
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
            if len(kinds) == len(value) and all(_fits(v, k) for v, k in zip(value, kinds, strict=True)):
                return True
    return False


def _words(hint):
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(repr(value) for value in typing.get_args(hint))
    if _is_steps(hint):
        return 'a duration: steps (5000), "800 epochs", "25 Mimages" or "5 %"'
    if len(_members(hint)) > 1:
        return " or ".join(_words(kind) for kind in _members(hint))
    if hint is type(None):
        return "None"
    return getattr(hint, "__name__", str(hint)) if not typing.get_args(hint) else str(hint).replace("typing.", "")
