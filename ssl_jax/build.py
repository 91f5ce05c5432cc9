"""From a config to objects: every config error is found here, in one line with its dotted path.

A section that is an object carries `type`, an import path below `ssl_jax` such as "methods.simsiam.SimSiam"; its other
keys are that callable's own arguments. Nothing is registered anywhere, so a dead or misspelt key cannot exist.
"""

import dataclasses
import difflib
import fnmatch
import importlib
import inspect
import json
import pathlib
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

from ssl_jax import annotations
from ssl_jax.types import Steps, UsageError

_DEEPEST = 64
# What these do when they are called is no part of a training, and the config of a run folder may be anybody's.
_ACTING = (
    *("data.prepare.*", "data.tfrecord.*", "data.write.*", "*.ensure", "*.convert", "*.join_processes"),
    *("journal.*", "log.*", "lost_processes.*", "process.*", "quiet.*", "report*", "run_folder.*", "run_lock.*"),
)
MOST_STEPS = 2**31 - 1
"""They are counted on the device as int32."""


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
        if isinstance(value, int) and 0 <= value <= MOST_STEPS:
            return value
        if isinstance(value, int) and value > 0:
            raise UsageError(f"{path}={_shown(value)}: {MOST_STEPS:,} steps are the most")
        match = re.fullmatch(r"([0-9]*\.?[0-9]+) ?(steps?|epochs?|[kM]?images|%|)", str(value).strip())
        if not match:
            raise UsageError(
                f'{path}={_shown(value)} is not a duration: write steps (5000), "800 epochs", "25 Mimages" or "5 %"'
            )
        amount, unit = float(match[1]), match[2].rstrip("s")
        if unit == "%" and self.total_steps is None:
            raise UsageError(
                f'{path}={_shown(value)}: the whole cannot be a share of itself; write steps or "800 epochs"'
            )
        one = {
            "": 1.0,
            "step": 1.0,
            "epoch": float(self.examples // self.batch_size),
            "image": 1 / self.batch_size,
            "kimage": 1e3 / self.batch_size,
            "Mimage": 1e6 / self.batch_size,
            "%": (self.total_steps or 0) / 100,
        }
        steps = amount * one[unit]
        if steps > MOST_STEPS:
            raise UsageError(f"{path}={_shown(value)} comes to {steps:.3g} steps, and {MOST_STEPS:,} are the most")
        return max(round(steps), 1 if amount else 0)


def clock_of(folder: pathlib.Path) -> Clock:
    """What the durations in words of a run came to, from its own `summary.json`.

    Raises:
        UsageError: for a run folder without a sound one.
    """
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        counts = [summary[name] for name in ("batch_size", "steps_per_epoch", "total_steps")]
        if not all(type(count) is int and 0 <= count < 2**31 for count in counts):
            raise ValueError(f"counts of {counts}")
        batch_size, steps_per_epoch, total_steps = counts
        return Clock(steps_per_epoch * batch_size, max(batch_size, 1), total_steps)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
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
    _check_built(feed, hints["data"], "config.data")
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
    """The same config as plain dicts and tuples, as a file or JSON may have lists instead.

    Raises:
        UsageError: for sections or lists that lie more than 64 deep in each other.
    """
    return _normalised(value, _DEEPEST)


def _normalised(value, levels):
    if not levels:
        raise UsageError(f"the config has sections or lists more than {_DEEPEST} deep in each other: take them out")
    if isinstance(value, Mapping):
        return {str(key): _normalised(item, levels - 1) for key, item in value.items()}
    return tuple(_normalised(item, levels - 1) for item in value) if isinstance(value, list | tuple) else value


def _construct(value, hint, path, clock):
    if annotations.is_steps(hint) and value is not None:
        if clock is None and not isinstance(value, int):
            raise UsageError(f"{path}={_shown(value)}: no data set is at hand here to measure it by; write steps")
        return value if clock is None else clock.steps(value, path)
    if isinstance(value, tuple) and any(annotations.is_steps(kind) for kind in typing.get_args(hint)):
        return tuple(_construct(item, Steps, f"{path}[{place}]", clock) for place, item in enumerate(value))
    if not isinstance(value, Mapping):
        return value
    if "type" not in value:
        inner = typing.get_args(hint)[1]
        return {key: _construct(item, inner, _below(path, key), clock) for key, item in value.items()}
    target = _resolve(value["type"], path)
    hints = _hints(target)
    keywords = {
        key: _construct(item, hints[key], _below(path, key), clock) for key, item in value.items() if key != "type"
    }
    for key, item in keywords.items():
        _check_built(item, hints[key], _below(path, key))
    try:
        return target(**keywords)
    except UsageError as error:
        message = _one_line(error)
        raise UsageError(message if message.startswith("config.") else f"{path}: {message}") from error
    # AttributeError: an object of another kind than the constructor uses.
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {_one_line(error)}"
        raise UsageError(f"{path}: {value['type']} takes no such values ({reason})") from error


def _check(value, hint, path):
    """Raises UsageError unless a literal, or the section of an object, fits an annotation."""
    if isinstance(value, Mapping):
        if "type" in value:
            target = _resolve(value["type"], path)
            rest = {key: item for key, item in value.items() if key != "type"}
            _check_arguments(rest, inspect.signature(target).parameters, _hints(target), path, value["type"])
            if hint is not Any and not annotations.may_be_object(hint):
                raise UsageError(f"{path} is {_shown(value['type'])}, but should be {annotations.words(hint)}")
        elif typing.get_origin(hint) in (dict, annotations.MAPPING):
            for key, item in value.items():
                _check(item, typing.get_args(hint)[1], _below(path, key))
        elif not annotations.may_be_object(hint):
            raise UsageError(f"{path} is a section, but should be {annotations.words(hint)}")
        else:
            raise UsageError(f'{path} needs a `type`, such as "augment.Crop"')
    elif not annotations.fits(value, hint):
        raise UsageError(f"{path}={_shown(value)} should be {annotations.words(hint)}")


def _check_arguments(values, parameters, hints, path, name):
    parameters = {key: p for key, p in parameters.items() if key not in ("self", "parent")}
    for key in values:
        if key not in parameters:
            near = difflib.get_close_matches(key, parameters, 1, 0.5)
            advice = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(sorted(parameters))}"
            raise UsageError(f"{_below(path, key)}: {name} has no argument {_shown(key)}; {advice}")
    missing = [
        key
        for key, p in parameters.items()
        if p.default is p.empty and key not in values and p.kind not in (p.VAR_KEYWORD,)
    ]
    if missing:
        raise UsageError(f"{path}: {name} needs {', '.join(missing)}")
    for key, item in values.items():
        _check(item, hints.get(key, Any), _below(path, key))  # an unannotated argument takes anything


def _check_built(value, hint, path):
    """Raises UsageError unless an object made from a section is what its place asks for; literals were checked."""
    if typing.get_origin(hint) in (dict, annotations.MAPPING):
        for key, item in value.items():
            _check_built(item, typing.get_args(hint)[1], _below(path, key))
        return
    literal = isinstance(value, (int, float, str, tuple, type(None))) and not hasattr(value, "_fields")
    if not literal and not any(annotations.is_a(value, kind) for kind in annotations.members(hint)):
        raise UsageError(f"{path} is {type(value).__name__}, but should be {annotations.words(hint)}")


def _resolve(path, place):
    if not isinstance(path, str) or "." not in path:
        raise UsageError(f'{place}.type={_shown(path)} is not an import path below ssl_jax, such as "augment.Crop"')
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(f"ssl_jax.{module_name}")
    except ModuleNotFoundError as error:
        if error.name is None or not f"ssl_jax.{module_name}".startswith(error.name):
            raise UsageError(
                f"{place}.type={_shown(path)} needs the Python package {error.name!r}, which is not installed: "
                "`pip install -e .` installs all that this project needs"
            ) from error
        near = difflib.get_close_matches(module_name, _modules_that_define(name), 1, 0.0)
        advice = f"did you mean {f'{near[0]}.{name}'!r}?" if near else f"there is no module ssl_jax.{module_name}"
        raise UsageError(f"{place}.type={_shown(path)}: {advice}") from error
    target = getattr(module, name, None)
    # By the place of its definition as well, since one module may import it from another.
    defined = f"{getattr(target, '__module__', module_name)}.{name}".removeprefix("ssl_jax.")
    if any(fnmatch.fnmatchcase(each, pattern) for each in (path, defined) for pattern in _ACTING):
        raise UsageError(f"{place}.type={_shown(path)} is no part that a config can name: it acts when it is called")
    if not callable(target) or name.startswith("_"):
        own = [n for n, item in vars(module).items() if getattr(item, "__module__", None) == module.__name__]
        names = [n for n in own if callable(vars(module)[n]) and not n.startswith("_")]
        near = difflib.get_close_matches(name, names, 1, 0.5)
        there = f"ssl_jax.{module_name} has {', '.join(sorted(names)) or 'nothing to build'}"
        advice = f"did you mean {f'{module_name}.{near[0]}'!r}?" if near else there
        raise UsageError(f"{place}.type={_shown(path)}: {advice}")
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


def _below(path, key):
    """The dotted path of a key; one that would not show as it is in a line is quoted."""
    return f"{path}.{key}" if key.isprintable() and len(key) <= 100 else f"{path}.{_shown(key)}"


def _shown(value):
    """A value in a line, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text):,} characters)"


def _one_line(error):
    """A constructor's words, cut where a long value stands in them."""
    text = " ".join(str(error).split())
    return text if len(text) <= 1000 else f"{text[:1000]}... ({len(text):,} characters)"
