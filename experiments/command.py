"""How every script ends: in one line and with an exit code, never with a traceback for what the user can mend."""

import errno
import os
import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging

from experiments import config_flag
from ssl_jax import log, mesh, process
from ssl_jax.types import RunError, UsageError

USAGE, FAILURE = 2, 1


def run(
    main: Callable[[Any], None],
    argv: Sequence[str] | None = None,
    parse: Callable[[list[str]], Any] | None = None,
) -> NoReturn:
    """Runs a script's `main` under absl, in a process as `ssl_jax.process` prepares it, and leaves the process.

    Exit codes: 0 done (and for `--help`); 2 for a mistake in the flags or a `UsageError`; 1 for a
    `RunError`, a full disk or Ctrl-C. Each of these prints one line, `error: ...`, on the error stream. Any other
    exception is a defect of the program and keeps its traceback (Python's exit code 1).

    Args:
        main: takes what `parse` returns.
        argv: the program's name and arguments; `sys.argv` if None.
        parse: reads the flags from argv and returns what is left, `config_flag.parse` if None. The errors of flags,
            and the `AttributeError` and `OSError` of a config flag, become one line as well.
    """

    def parse_or_leave(arguments: list[str]) -> Any:
        try:
            left = (parse or config_flag.parse)(arguments)
        except UsageError as error:
            _leave(str(error), USAGE)
        except (flags.Error, AttributeError, KeyError, OSError) as error:
            _leave(_without_traceback(error), USAGE)
        except SystemExit:
            # absl leaves with 1 after it printed the help that was asked for.
            sys.exit(0)
        if flags.FLAGS["verbosity"].using_default_value:
            # Else absl shows what the libraries log for their own authors.
            flags.FLAGS.verbosity = logging.WARNING
        return left

    def main_or_leave(arguments: Any) -> None:
        try:
            process.begin()
            with mesh.together():
                main(arguments)
        except UsageError as error:
            _leave(str(error), USAGE)
        except RunError as error:
            _leave(str(error), FAILURE)
        except KeyboardInterrupt:
            _leave("interrupted", FAILURE)
        except Exception as error:
            full = _full_disk(error)
            if full is None:
                raise
            _leave(full, FAILURE)

    app.run(main_or_leave, argv=argv, flags_parser=parse_or_leave)
    raise AssertionError("absl's run never returns")


def config_of(flag: config_flag.ConfigFlag) -> dict[str, Any]:
    """The config that `--config` holds, as plain nested dicts.

    Raises:
        UsageError: for a file that is not there or fails when it is run; the flag only reads it here.
    """
    held = flag.value
    if isinstance(held, dict):
        return held
    try:
        return held.to_dict()
    except (OSError, AttributeError, KeyError, ImportError, SyntaxError, TypeError, ValueError) as error:
        raise UsageError(f"--{flag.name}: {_without_traceback(error)}") from error


def tell(line: str, out: str) -> None:
    """Prints a line, such as one of JSON, and appends it to the file `out` where one is named.

    Raises:
        RunError: where the file cannot be written.
    """
    print(line, flush=True)
    if out:
        path = pathlib.Path(out)
        with log.writing(path), path.open("a") as file:
            file.write(line + "\n")


def refuse_stray_words(arguments: Sequence[str]) -> None:
    """Raises UsageError for an argument that is no flag, such as `config.seed=3` without its dashes."""
    if len(arguments) > 1:
        raise UsageError(f"what is {arguments[1]!r}? Everything is a flag, such as --{arguments[1].lstrip('-')}")


def noise_section(flag: str, text: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """The data section of noise of a shape, from a flag's images x height x width x channels, in place of another.

    Args:
        flag, text: the flag's name and what the user gave.
        data: the section that it stands for, of whose batch size and number of sets it is.

    Raises:
        UsageError: for another text.
    """
    shape = re.fullmatch(r"(\d+)x(\d+)x(\d+)x([13])", text)
    if not shape:
        raise UsageError(f"--{flag}={text!r} is not a shape such as 50000x32x32x3")
    sizes = tuple(int(number) for number in shape.groups())
    room = "unpaired" if "unpaired" in data["type"] else "resident"
    return {"type": f"data.{room}.noise", "shape": sizes, "batch_size": data["batch_size"]}


def name_and_split(flag: str, text: str) -> tuple[str, str]:
    """A data set's name, which may end in a version, and a split, from a flag's NAME:SPLIT.

    Raises:
        UsageError: for another text.
    """
    match = re.fullmatch(r"([^:\[]+(?::\d+\.\d+\.\d+)?):([^:].*)", text)
    if not match:
        raise UsageError(f"--{flag}={text}: write NAME:SPLIT, such as fashion_mnist:test")
    return match[1], match[2]


def _without_traceback(error: BaseException) -> str:
    """What an error says to a user; ml-collections puts whole tracebacks and a KeyError's source form into texts."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if "Traceback" in text:
        return text.strip().splitlines()[-1].strip()
    bare_key = re.fullmatch(r"[\\'\"]+\w+[\\'\"]+", text.strip())
    if isinstance(error, KeyError) or bare_key or 'Did you mean "' in text:
        key, _, advice = re.sub(r"\\n", " ", re.sub(r"\\?['\"]", "", text)).strip().replace("\n", " ").partition(" ")
        words = [word.partition("=")[0] for word in sys.argv if re.search(rf"\.{re.escape(key)}\b", word)]
        place = words[0] if words else key
        return config_flag.no_such_key(place, advice)
    return text


def _full_disk(error: BaseException | None) -> str | None:
    text = os.strerror(errno.ENOSPC)
    while error is not None:
        named = getattr(error, "filename", None)
        # The writers below Python raise errors without a number, but with the system's words.
        if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or text in str(error):
            return f"the disk is full ({named or error}): free space there or name another folder"
        error = error.__cause__ or error.__context__
    return None


def _leave(text: str, code: int) -> NoReturn:
    print("error: " + " ".join(text.split()), file=sys.stderr)
    sys.exit(code)
