"""What Orbax says: of its own accord nothing, no log of every save and no tracebacks of its threads; else one line."""

import contextlib
import errno
import logging
import pathlib
import re
import sys
from collections.abc import Iterator

from ssl_jax.types import RunError, UsageError

_NOT_ITS_FAULT = re.compile(
    "RESOURCE_EXHAUSTED|Out of memory|DEADLINE_EXCEEDED|UNAVAILABLE|Permission denied|gloo|nccl", re.IGNORECASE
)
"""What reading may fail by although the checkpoint is sound."""


def orbax() -> None:
    """Stops the log of every save, and the tracebacks in which Orbax's threads repeat what we get as an exception."""
    logging.getLogger("absl").addFilter(_not_by_orbax)
    logging.getLogger("asyncio").addFilter(_not_of_a_failed_save)
    if not isinstance(sys.unraisablehook, _Unraisable):
        sys.unraisablehook = _Unraisable(sys.unraisablehook)


@contextlib.contextmanager
def one_line(place: pathlib.Path, verb: str) -> Iterator[None]:
    """Turns whatever Orbax throws into a RunError of one line that names the checkpoint and the way out.

    Args:
        place: the checkpoint.
        verb: what is done to it, "read" or what writes.
    """
    try:
        yield
    except (UsageError, RunError):
        raise
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
        if verb != "read":
            full = _cause(error, errno.ENOSPC) or "No space left" in str(error)
            way_out = "free some space and run the same command again" if full else "the earlier checkpoints stand"
            what = "the disk is full" if full else reason
            raise RunError(f"could not {verb} checkpoint {place}: {what}; {way_out}") from error
        if _NOT_ITS_FAULT.search(reason):
            raise RunError(f"could not read checkpoint {place}: {reason}; nothing is lost, try again") from error
        raise RunError(
            f"checkpoint {place} is damaged or foreign ({reason}); delete that folder to go on from the one before it"
        ) from error


def _not_by_orbax(record: logging.LogRecord) -> bool:
    return _is_others(record.pathname)


def _not_of_a_failed_save(record: logging.LogRecord) -> bool:
    """When several arrays of one save fail, Orbax raises the first and asyncio logs each of the others at exit."""
    message = record.getMessage()  # with where its coroutine is defined, and the path where the error has one
    return not ("exception was never retrieved" in message and "orbax" in message)


def _is_others(file: str) -> bool:
    return "orbax" not in pathlib.Path(file).parts


class _Unraisable:
    """Python's hook for exceptions that nobody can catch, but for those of reads and writes cut off by a failed one."""

    def __init__(self, hook):
        self._hook = hook

    def __call__(self, unraisable):
        coroutine = getattr(unraisable.object, "cr_code", None)
        late = unraisable.object is None and str(unraisable.exc_value) == "Event loop is closed"
        if not late and (coroutine is None or _is_others(coroutine.co_filename)):
            self._hook(unraisable)


def _cause(error, number):
    while error is not None:
        if isinstance(error, OSError) and error.errno == number:
            return True
        error = error.__cause__ or error.__context__
    return False
