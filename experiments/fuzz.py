"""Feeds readers what is almost right and looks for answers that are neither a result nor one line that says why not.

    python -m experiments.fuzz --cases=20000 --seed=0 [--kind=configs]

Four kinds of case, all in this process: configs through `build` up to constructed objects (nothing is initialised or
trained), picture files through what prepares, classifies and translates them, files of run folders through what
compares, reports and continues, and names of files. A case is a function of its kind, --seed and its number, which a
finding prints. Any other exception than the readers' own, a message of several lines, more than 10 seconds or more
than 512 MB is a finding, and the exit code is then 1.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tqdm
from absl import flags

from experiments import command, fuzz_subjects
from ssl_jax import types

CASES = flags.DEFINE_integer("cases", 20_000, "How many cases in all.", 1)
SEED = flags.DEFINE_integer("seed", 0, "Of the cases.", 0, 2**31 - 1)
KIND = flags.DEFINE_enum("kind", "all", ["all", *fuzz_subjects.SHARES], "Which kind of case.")
FIRST = flags.DEFINE_integer("first", 0, "The number of the first case, to look at a finding again.", 0)

_SECONDS, _MEGABYTES, _SHOWN = 10, 512, 20
# Pictures beyond this take no room, and those up to it little enough for thousands of them.
_LARGEST_MPX = "16"


@dataclasses.dataclass(frozen=True)
class Finding:
    """A case that ended in nobody's words; `number` and the seed make it again."""

    kind: str
    number: int
    fault: str


@dataclasses.dataclass
class Tally:
    """How the cases of each kind ended."""

    accepted: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    refused: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    findings: list[Finding] = dataclasses.field(default_factory=list)

    def lines(self) -> list[str]:
        """A line a kind, and one a finding for the first of them."""
        kinds = sorted({*self.accepted, *self.refused, *(finding.kind for finding in self.findings)})
        found = collections.Counter(finding.kind for finding in self.findings)
        counts = [
            f"{kind}: {self.accepted[kind] + self.refused[kind] + found[kind]} cases, {self.refused[kind]} refused, "
            f"{self.accepted[kind]} accepted, {found[kind]} findings"
            for kind in kinds
        ]
        return counts + [f"{each.kind} {each.number}: {each.fault}" for each in self.findings[:_SHOWN]]


class _OvertimeError(BaseException):
    """Raised into a case that takes too long; no reader catches it."""


def cases(wanted: Mapping[str, int], seed: int, folder: pathlib.Path, first: int = 0) -> Tally:
    """Runs cases in an empty folder, which is the current one meanwhile.

    Args:
        wanted: how many of each kind of `fuzz_subjects.SHARES`.
        seed: of the cases.
        folder: where they write.
        first: the number of the first case.
    """
    tally = Tally()
    with contextlib.chdir(folder), _limited(), _unheard() as bar, warnings.catch_warnings(action="ignore"):
        for kind, count in wanted.items():
            if not count:
                continue
            case = fuzz_subjects.of_kind(kind, folder / kind)
            for number in tqdm.trange(first, first + count, desc=kind, unit=" cases", disable=None, file=bar):
                # A word for the kind, so that kinds differ.
                drawn = np.random.default_rng([seed, number, *kind.encode()])
                _look(kind, number, lambda case=case, drawn=drawn: case(drawn), tally)
    return tally


def shares(count: int, kind: str = "all") -> dict[str, int]:
    """How many cases of each kind make `count` in all."""
    if kind != "all":
        return {kind: count}
    found = {name: count * share // 100 for name, share in fuzz_subjects.SHARES.items()}
    first = next(iter(found))
    return found | {first: found[first] + count - sum(found.values())}


def _look(kind: str, number: int, case: Callable[[], Any], tally: Tally) -> None:
    fault, refused = None, False
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        signal.setitimer(signal.ITIMER_REAL, _SECONDS)
        try:
            case()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except fuzz_subjects.OUR_ERRORS as error:
        fault, refused = _fault_of_words(str(error)), True
    except _OvertimeError:
        fault = f"took more than {_SECONDS} s, {_where(sys.exc_info()[2])}"
    except Exception as error:  # whatever else comes out is what this looks for
        fault = f"{type(error).__name__}: {str(error)[:200]!r}, {_where(error.__traceback__)}"
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib) >> 10
    if fault is None and grown_mb > _MEGABYTES:
        fault = f"took {grown_mb} MB"
    if fault is None:
        (tally.refused if refused else tally.accepted)[kind] += 1
    else:
        tally.findings.append(Finding(kind, number, fault))


def _fault_of_words(text: str) -> str | None:
    if len(text.splitlines()) != 1 or not text.strip():
        return f"a message of {len(text.splitlines())} lines: {text[:200]!r}"
    return f"a message of {len(text)} characters: {text[:200]!r}" if len(text) > 2000 else None


def _where(trace: Any) -> str:
    frames = [frame for frame in traceback.extract_tb(trace) if "ssl_jax" in frame.filename]
    return f"at {pathlib.Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "outside this project"


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """A clock that interrupts, and a bound on pictures; both as before afterwards."""

    def interrupt(_: int, __: Any) -> None:
        raise _OvertimeError

    name = fuzz_subjects.LIMIT_VARIABLE
    before, handler = os.environ.get(name), signal.signal(signal.SIGALRM, interrupt)
    os.environ[name] = _LARGEST_MPX
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, handler)
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _unheard() -> Iterator[Any]:
    """Keeps what the decoders below Python complain of from the error stream; yields that stream."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as stream:
            yield stream
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def main(arguments):
    """Runs, counts, prints."""
    command.refuse_stray_words(arguments)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        # So deep that a name with dots in it stays within.
        place = pathlib.Path(folder) / "a" / "b" / "c" / "d"
        place.mkdir(parents=True)
        tally = cases(shares(CASES.value, KIND.value), SEED.value, place, FIRST.value)
    print("\n".join(tally.lines()))
    print(f"{CASES.value} cases, {len(tally.findings)} findings, {time.monotonic() - start:.0f} s")
    if tally.findings:
        raise types.RunError(f"{len(tally.findings)} findings; --kind=KIND --first=NUMBER --cases=1 makes one again")


if __name__ == "__main__":
    command.run(main)
