"""Several run folders as plain data: their numbers over time, last and best, and what differs between their configs."""

import dataclasses
import json
import pathlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from ssl_jax import log, types
from ssl_jax.writers import files

Direction = Literal["largest", "smallest"]

ABSENT = "absent"
"""What stands for a key that a run's config does not have."""

_LONGEST_CURVE = 400


@dataclasses.dataclass(frozen=True)
class Curve:
    """One scalar of one run, all float64 [points]; `epochs` and `seconds` are NaN where a line does not say them."""

    steps: np.ndarray
    epochs: np.ndarray
    seconds: np.ndarray
    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class ComparedRun:
    """What a run folder's `config.json`, `metrics.jsonl` and `summary.json` say.

    Attributes:
        label: its name in a comparison, the shortest end of its path that no other run has.
        folder: where it lies.
        config: as stored.
        facts: what it is and how far it came, in words, by head; the same heads in every run.
        seconds: of training so far.
        curves: every scalar by name, without values that are not finite.
        last: the last value of every scalar.
        best: value and step of the scalars that have a best one, as `summary.json` has them.
    """

    label: str
    folder: pathlib.Path
    config: Mapping[str, Any]
    facts: Mapping[str, str]
    seconds: float
    curves: Mapping[str, Curve]
    last: Mapping[str, float]
    best: Mapping[str, tuple[float, int]]


@dataclasses.dataclass(frozen=True)
class Number:
    """One scalar over all runs.

    Attributes:
        name: of the scalar.
        kind: its last value, or its best one.
        values: one a run, None where a run has none.
        steps: of the best values; None elsewhere.
        direction: which value is the best, None where that is not known.
    """

    name: str
    kind: Literal["last", "best"]
    values: tuple[float | None, ...]
    steps: tuple[int | None, ...]
    direction: Direction | None

    @property
    def winners(self) -> frozenset[int]:
        """Positions of the best runs; empty without a direction, for one value alone, and where all are equal."""
        known = [value for value in self.values if value is not None]
        if self.direction is None or len(set(known)) < 2:
            return frozenset()
        top = max(known) if self.direction == "largest" else min(known)
        return frozenset(place for place, value in enumerate(self.values) if value == top)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: in the order given.
        numbers: every scalar, those of training first, each in the order in which the runs first said it.
        differences: the leaves of the configs that are not the same in all runs, as JSON by dotted name, one a run.
    """

    runs: tuple[ComparedRun, ...]
    numbers: tuple[Number, ...]
    differences: Mapping[str, tuple[str, ...]]


def read(folders: Sequence[pathlib.Path]) -> Comparison:
    """Compares run folders, of whatever method, finished or not.

    Raises:
        UsageError: for fewer than two folders, one given twice, or one that holds no run.
        RunError: for a damaged file.
    """
    if len(folders) < 2:
        raise types.UsageError(f"{len(folders)} run folders given: a comparison needs at least 2")
    for place, folder in enumerate(folders):
        for other in folders[:place]:
            if folder.resolve() == other.resolve():
                raise types.UsageError(f"{folder} is given twice: name each run once")
        if not (folder / "config.json").is_file():
            lacks = "it holds no config.json" if folder.is_dir() else "there is no such folder"
            raise types.UsageError(f"{folder} is no run folder: {lacks}; give what was a --workdir")
    runs = tuple(_run(folder, label) for folder, label in zip(folders, labels(folders), strict=True))
    return Comparison(runs, tuple(_numbers(runs)), differences([run.config for run in runs]))


def labels(folders: Sequence[pathlib.Path]) -> list[str]:
    """The shortest ends of some different folders' paths that tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    depths = [1] * len(parts)
    while True:
        ends = ["/".join(part[-depth:]) for part, depth in zip(parts, depths, strict=True)]
        shared = {end for end, count in Counter(ends).items() if count > 1}
        if not shared:
            return ends
        depths = [depth + (end in shared) for depth, end in zip(depths, ends, strict=True)]


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """The leaves that are not the same in all configs, as JSON by dotted name; `ABSENT` where one has no such key.

    An empty section is a leaf, and 1 is the same as 1.0.
    """
    flat = [dict(_leaves(config, "config")) for config in configs]
    found = {}
    for name in dict.fromkeys(name for leaves in flat for name in leaves):
        if len({_canonical(leaves[name]) if name in leaves else None for leaves in flat}) > 1:
            found[name] = tuple(
                json.dumps(leaves[name], ensure_ascii=False) if name in leaves else ABSENT for leaves in flat
            )
    return found


def direction(name: str) -> Direction | None:
    """Which value of a scalar is the best one, as `writers.files` holds it; None for training's own and for levels."""
    words = set(re.split(r"[/_]", name.lower()))
    if not name.startswith("eval/") or words & files.NONE_IS_BETTER:
        return None
    return "smallest" if words & files.LOWER_IS_BETTER else "largest"


def _run(folder, label):
    config, summary = _read(folder / "config.json"), {}
    if (folder / "summary.json").is_file():
        summary = _read(folder / "summary.json")
    try:
        lines = log.read_metrics(folder)
        curves = _curves(lines)
        last = {name: float(value) for name, value in summary.get("last", {}).items()}
        last |= {name: float(curve.values[-1]) for name, curve in curves.items()}
        best = {name: (float(each["value"]), int(each["step"])) for name, each in summary.get("best", {}).items()}
        seconds = max([float(summary.get("wall_seconds", 0.0)), *(line.get("seconds", 0.0) for line in lines[-1:])])
        facts = _facts(config, summary, lines, seconds)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise types.RunError(f"{folder} is damaged ({type(error).__name__}: {reason}): leave it out") from error
    return ComparedRun(label, folder, config, facts, seconds, curves, last, best)


def _read(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise types.RunError(f"{path} is damaged ({error}): put it right, or leave the run out") from error
    if not isinstance(content, dict):
        raise types.RunError(f"{path} is damaged (it holds no JSON object): put it right, or leave the run out")
    return content


def _curves(lines):
    points: dict[str, list[tuple[float, ...]]] = {}
    for line in lines:
        place = tuple(float(line.get(name, np.nan)) for name in ("step", "epoch", "seconds"))
        for name, value in line.items():
            # A value that was not finite stands there as null.
            if name != "step" and name not in log.COUNTS and isinstance(value, int | float):
                points.setdefault(name, []).append((*place, float(value)))
    return {name: Curve(*np.array(found, np.float64).T) for name, found in points.items()}


def smoothed(curve: Curve) -> Curve:
    """A curve to look at: at least 120 points become means over a fortieth of them, of which 400 at most are kept.

    Both coordinates are means, so a straight line stays the same line; shorter curves stay as they are.
    """
    window = len(curve.values) // 40
    if window < 3:
        return curve
    means = np.stack(
        [
            np.convolve(getattr(curve, axis.name), np.ones(window) / window, "valid")
            for axis in dataclasses.fields(Curve)
        ]
    )
    count = means.shape[1]
    return Curve(*means[:, np.rint(np.linspace(0, count - 1, min(count, _LONGEST_CURVE))).astype(np.int64)])


def _facts(config, summary, lines, seconds):
    ends = lines[-1] if lines else {}
    step = max(summary.get("step", 0), ends.get("step", 0))
    total = summary.get("total_steps")
    of = f"{step:,} of {total:,}" if total is not None else f"{step:,}"
    if summary.get("finished"):
        state = "finished"
    elif summary or lines:
        state = f"in progress or stopped at step {of}"
    else:
        state = "no numbers (just begun, or trained without the writer files)"
    epochs = step / summary["steps_per_epoch"] if summary.get("steps_per_epoch") else ends.get("epoch")
    device = f"{summary['devices']} \N{MULTIPLICATION SIGN} {summary['device_kind']}" if "devices" in summary else None
    commit = summary.get("commit")
    found = {
        "method": config["method"]["type"].rpartition(".")[2] if "method" in config else None,
        "data": ", ".join(dict.fromkeys(_data_names(config.get("data", {})))),
        "state": state,
        "steps": f"{step:,}" if summary or lines else None,
        "epochs": None if epochs is None else f"{epochs:.4g}",
        "wall time": log.duration(seconds) if seconds else None,
        "device": device,
        "commit": commit and commit[:12] + commit.removeprefix(commit.partition("-")[0]),
        "seed": str(summary.get("seed", config.get("seed"))),
        "alarms": str(len(summary.get("alarms", []))),
    }
    return {name: fact or "unknown" for name, fact in found.items()}


def _data_names(section):
    leaves = _leaves(section, "data")
    return [str(value) for name, value in leaves if re.fullmatch("name(_[ab])?", name.rpartition(".")[2])]


def _numbers(runs) -> Iterable[Number]:
    names = dict.fromkeys(name for run in runs for name in (*run.curves, *run.last))
    for name in sorted(names, key=lambda name: (not name.startswith("train/"), not name.startswith("eval/"))):
        nothing = (None,) * len(runs)
        yield Number(name, "last", tuple(run.last.get(name) for run in runs), nothing, direction(name))
        bests = [run.best.get(name) for run in runs]
        # Looked at once, at the end, the last one is the best one.
        if any(best and best[0] != run.last.get(name) for best, run in zip(bests, runs, strict=True)):
            values = tuple(best and best[0] for best in bests)
            yield Number(name, "best", values, tuple(best and best[1] for best in bests), direction(name))


def _leaves(config, path):
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{path}.{key}")
        else:
            yield f"{path}.{key}", value


def _canonical(value):
    """A leaf as text that is the same for numbers that are; true is no 1."""
    if isinstance(value, list):
        return f"[{','.join(map(_canonical, value))}]"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True)
