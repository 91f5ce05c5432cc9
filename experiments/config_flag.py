"""The flag `--config`: a Python file of ml_collections, or the JSON file that a run folder or `experiments.pack` has.

    --config=configs/simsiam_digits.py --config.data.batch_size=128
    --config=runs/digits/config.json --config.seed=1

A run folder's `config.json` says all that the run was told, so that it repeats the run. JSON needs no other package.
A value on the command line is read as what the file has in its place: a number, text, a truth (`--config.key`,
`--noconfig.key`, `--config.key=false`) or a tuple, `--config.key=(1,2)`. In the texts of a JSON file `{folder}` at the
beginning stands for the folder that the file lies in, wherever that is copied to, and its key `linked` lists places
that one value fills, as a Python file's references do: setting one of them sets all. A run's own `config.json` has no
such list; what then stays as it was is said in a line.
"""

import ast
import difflib
import json
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from absl import flags

from ssl_jax.types import UsageError

FOLDER, LINKED = "{folder}", "linked"
_NAME = "config"
_TRUTHS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_OVERRIDE = re.compile(rf"--?(?P<no>no)?{_NAME}\.(?P<path>[^=]+)(?:=(?P<text>.*))?", re.DOTALL)

flags.disclaim_key_flags()


class ConfigFlag:
    """What `define_config` gives.

    Attributes:
        name: of the flag.
    """

    name = _NAME

    def __init__(self):
        self._read: dict[str, Any] | None = None
        self._linked: list[list[str]] = []

    @property
    def value(self) -> Any:
        """The config with what the command line changes: a dict, or ml_collections' own; None without the flag."""
        held = flags.FLAGS[self.name].value
        return self._read if isinstance(held, str) else held

    @property
    def file(self) -> str:
        """The file's name as it was typed, "" without the flag."""
        flag = flags.FLAGS[self.name]
        return flag.config_filename if hasattr(flag, "config_filename") else flag.value or ""

    def linked(self) -> list[list[str]]:
        """Groups of two or more places, such as "data.batch_size", that one value fills."""
        held = flags.FLAGS[self.name].value
        if held is None or isinstance(held, str):
            return self._linked
        groups: dict[int, list[str]] = {}
        references = list(_references(held))  # all kept, so that no two of them share an id
        for path, reference in references:
            groups.setdefault(id(reference), []).append(path)
        return [paths for paths in groups.values() if len(paths) > 1]

    def parse(self, arguments: list[str]) -> list[str]:
        """Gets the flag ready for `arguments`, the program's name first; returns those that absl shall parse.

        Raises:
            UsageError: for a JSON file that is missing or damaged, a key that it does not list, or a value of another
                type; for a Python file where ml_collections is not installed.
        """
        file = _file(arguments)
        if file is None:
            stray = [word for word in _own(arguments) if _OVERRIDE.fullmatch(word)]
            if stray:
                raise UsageError(f"{stray[0]} needs --{self.name}=FILE as well")
            return arguments
        if file.endswith(".json"):
            self._read = _json(file)
            self._linked = [list(paths) for paths in self._read.pop(LINKED, ())]
            words = _own(arguments)
            left = override(self._read, self._linked, words, say=not self._linked)
            return [arguments[0], *left, *arguments[1 + len(words) :]]
        try:
            from ml_collections import config_flags
        except ImportError as error:
            raise UsageError(
                f"--{self.name}={file} needs the Python package {error.name!r}, which is not installed: where it is, "
                f"python -m experiments.pack --config={file} --out=DIR makes DIR/config.json, which needs none"
            ) from error
        told = flags.FLAGS[self.name].help
        delattr(flags.FLAGS, self.name)
        config_flags.DEFINE_config_file(self.name, None, told, sys_argv=arguments)
        return arguments


def define_config(help: str) -> ConfigFlag:
    """Defines `--config`; a script that has it is run by `experiments.command`."""
    flags.DEFINE_string(_NAME, None, help)
    global _defined
    _defined = ConfigFlag()
    return _defined


_defined: ConfigFlag | None = None


def parse(arguments: list[str]) -> list[str]:
    """absl's parsing of all flags, `--config` among them if the script has one; returns the words that are none."""
    return flags.FLAGS(arguments if _defined is None else _defined.parse(arguments))


def override(config: dict[str, Any], linked: list[list[str]], words: list[str], *, say: bool = False) -> list[str]:
    """Puts values of a command line into a config, in place; returns the words that are none.

    Args:
        config: nested dicts.
        linked: as `ConfigFlag.linked` gives it.
        words: such as `--config.data.batch_size=128`, up to a `--`.
        say: whether a value that stays, where one of the same name and size was changed, is named on stderr.

    Raises:
        UsageError: for a key that the config does not list, or a value of another type.
    """
    left, rest, before = [], iter(words), {}
    for word in rest:
        match = _OVERRIDE.fullmatch(word)
        if not match:
            left.append(word)
            continue
        path, text = match["path"], match["text"]
        place, key = _place(config, path, word.partition("=")[0])
        truth = isinstance(place[key], bool)
        if match["no"] and (not truth or text is not None):
            raise UsageError(f"{word}: only what is true or false is switched off by `no`")
        if text is None:
            text = ("false" if match["no"] else "true") if truth else next(rest, None)
        if text is None:
            raise UsageError(f"{word} needs a value: {word}=VALUE")
        before.setdefault(path, place[key])
        value = _like(place[key], text, f"--{_NAME}.{path}")
        for each in next((group for group in linked if path in group), [path]):
            place, key = _place(config, each, word)
            place[key] = value
    if say:
        _say_what_stays(config, before)
    return left


def no_such_key(flag: str, advice: str) -> str:
    """The sentence about a flag of a key that the config does not have."""
    return f"{flag}: the config lists no such key; {advice or 'only what its file lists can be set here'}"


def _own(arguments):
    """The program's arguments up to a `--`."""
    words = arguments[1:]
    return words[: words.index("--")] if "--" in words else words


def _file(arguments):
    words = _own(arguments)
    found = None
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in (f"--{_NAME}", f"-{_NAME}"):
            found = value if equals else (words[place + 1] if place + 1 < len(words) else None)
    return found


def _json(file):
    path = pathlib.Path(file)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--{_NAME}={file}: {error.strerror}; give a config, such as runs/NAME/config.json") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--{_NAME}={file} is no JSON ({error}): give a run's config.json or a packed one") from error
    if not isinstance(config, dict):
        raise UsageError(f"--{_NAME}={file} holds no JSON object: give a run's config.json or a packed one")
    groups = config.get(LINKED, [])
    if not isinstance(groups, list) or not all(
        isinstance(paths, list) and all(isinstance(path, str) for path in paths) for paths in groups
    ):
        raise UsageError(f"--{_NAME}={file}: {LINKED!r} holds no lists of places: pack the config again")
    return _placed(config, str(path.resolve().parent))


def _placed(value, folder):
    if isinstance(value, dict):
        return {key: _placed(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_placed(item, folder) for item in value)
    return folder + value[len(FOLDER) :] if isinstance(value, str) and value.startswith(FOLDER) else value


def _say_what_stays(config, before):
    """Another place of that name that had the same value was perhaps meant to follow."""
    leaves = dict(_leaves(config))
    for path, old in before.items():
        stays = [
            f"{_NAME}.{other}"
            for other, value in leaves.items()
            if other.rpartition(".")[2] == path.rpartition(".")[2]
            and other not in before
            and old is not None
            and value == old
        ]
        if stays and leaves[path] != old:
            print(f"--{_NAME}.{path}={leaves[path]} leaves {', '.join(stays)} at {old!r}", file=sys.stderr)


def _leaves(config, path="") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _references(config, path="") -> Iterator[tuple[str, Any]]:
    """What stands behind every leaf of ml_collections' config: one object where values are linked."""
    for key in config:
        if isinstance(config[key], type(config)):
            yield from _references(config[key], f"{path}{key}.")
        else:
            yield f"{path}{key}", config.get_ref(key)


def _place(config, path, flag):
    *parents, last = path.split(".")
    place = config
    for key in (*parents, last):
        if not isinstance(place, Mapping) or key not in place:
            near = difflib.get_close_matches(key, place if isinstance(place, Mapping) else (), 1)
            raise UsageError(no_such_key(flag, f"Did you mean {near[0]} instead of {key}?" if near else ""))
        holder, place = place, place[key]
    return holder, last


def _like(old, text, flag):
    """A value read from text as one of the type that the file has."""
    try:
        if isinstance(old, Mapping):
            raise UsageError(f"{flag}={text}: that is a section; set one of its keys: {', '.join(old)}")
        if isinstance(old, bool):
            return _TRUTHS[text.lower()]
        if isinstance(old, str):
            return text
        if isinstance(old, int | float):
            return type(old)(text)
        if old is None:
            return _literal(text)
        read = _literal(text)
        if isinstance(read, str):
            raise UsageError(f"flag {flag}={text}: write a tuple, such as (1,2) or ('a','b')")
        return read if isinstance(read, tuple) else tuple(read) if isinstance(read, list) else (read,)
    except KeyError:
        raise UsageError(f"flag {flag}={text}: write true or false") from None
    except ValueError as error:
        raise UsageError(f"flag {flag}={text}: {error}") from error


def _literal(text):
    """What was None in the file had no type there; what its place takes is checked when it is built."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
