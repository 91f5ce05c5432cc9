"""A run as files in its folder: what a resume, a report and a reader of numbers go by."""

import dataclasses
import json
import math
import re
import struct
import time
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax import log, types

LOWER_IS_BETTER = frozenset({"error", "loss", "distance", "fid", "kid", "reconstruction", "identity", "checkerboard"})
"""Words (parts of a scalar's name between `/` and `_`) that make the smallest value the best one in `summary.json`."""
NONE_IS_BETTER = frozenset({"std", "healthy", "margin", "separability", "correlation", "change"})
"""Words of scalars of which no value is a best one: spreads, levels, and what is right somewhere in between."""

_TOLD_BY_THE_LOOP = {"finished", "step", "seed"}


@dataclasses.dataclass(frozen=True)
class Files:
    """The run folder: `metrics.jsonl`, `summary.json`, `images/` and `arrays.npz`.

    `metrics.jsonl` has one strict JSON object a line: `step`, `epoch`, `images`, `seconds`, then values by name, each
    line on disk as soon as it is said. JSON has no NaN and no infinity: they are written as null, said once a name on
    stderr. A start at `first_step` voids what was written for later steps (at 0: everything); whoever resumes must
    therefore have said everything up to a step before that step's checkpoint is saved.

    `summary.json` holds `last` (every scalar) and `best` (`eval/` scalars, with their step; the largest, unless the
    name says one of `LOWER_IS_BETTER`; of a `<name>_std` and of a level called `healthy` none is better), `step`,
    `total_steps`, `finished` (false until `summary` says otherwise), `wall_seconds` (added up over resumes), `seed`,
    device, versions, `commit`, `alarms`, and on top what `summary` was told, which has precedence. JSON files are
    replaced whole, so a reader never meets half a file. A disk that does not take them raises `types.RunError` with the
    path.
    """

    def start(self, run: types.Run) -> types.Writer:
        return FilesWriter(run)


class FilesWriter:
    """What `Files` starts."""

    def __init__(self, run: types.Run):
        self._run = run
        self._step = run.first_step
        self._begun = time.monotonic()
        self._seconds_before = log.seconds_so_far(run.folder, run.first_step)
        self._last: dict[str, float] = {}
        self._best: dict[str, dict[str, float]] = {}
        self._alarms: list[dict[str, Any]] = []
        self._told: dict[str, Any] = {}
        self._arrays: dict[str, np.ndarray] = {}
        self._nulls: set[str] = set()
        self._environment = log.environment()
        with log.writing(run.folder):
            run.folder.mkdir(parents=True, exist_ok=True)
        self._metrics_path = run.folder / "metrics.jsonl"
        self._take_over()
        with log.writing(self._metrics_path):
            self._metrics = self._metrics_path.open("a", encoding="utf-8")
        self._write_summary()

    def _take_over(self) -> None:
        """Keeps of an earlier start what was written up to the first step, and removes the rest."""
        first = self._run.first_step
        lines = log.kept_metrics(self._run.folder, first)
        if self._metrics_path.exists():
            log.replace(self._metrics_path, "".join(json.dumps(line) + "\n" for line in lines))
        for line in lines:
            self._note(line.pop("step"), line)
        for path in (self._run.folder / "images").glob("*.png"):
            written = re.fullmatch(r".+-(\d{8,})", path.stem)
            if written and (first == 0 or int(written[1]) > first):
                with log.writing(path):
                    path.unlink()
        path = self._run.folder / "arrays.npz"
        if path.exists():
            with log.writing(path):
                with np.load(path, allow_pickle=False) as stored:
                    names = [name for name in stored.files if not name.startswith("step/")]
                    for name in names:
                        if first > 0 and stored[f"step/{name}"] <= first:
                            self._arrays |= {name: stored[name], f"step/{name}": stored[f"step/{name}"]}
                path.unlink()
            self._write_arrays()
        path = self._run.folder / "summary.json"
        if path.exists() and first > 0:
            try:
                earlier = json.loads(path.read_text(encoding="utf-8"))
                self._alarms = [alarm for alarm in earlier["alarms"] if alarm["step"] <= first]
                if earlier["step"] <= first:
                    own = self._own_summary()
                    self._told = {name: value for name, value in earlier.items() if name not in own}
            except (ValueError, KeyError, TypeError) as error:
                raise types.RunError(
                    f"{path} is not a summary of ours ({error!r}): move it away and start again"
                ) from None

    def progress(self, step: int) -> None:
        self._step = step

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._step = max(self._step, step)
        counts = {name: values[name] for name in log.COUNTS if name in values}
        line = {"step": step, **counts, **{name: value for name, value in values.items() if name not in counts}}
        for name, value in values.items():
            if not math.isfinite(value) and name not in self._nulls:
                self._nulls.add(name)
                log.say(f"{self._metrics_path}: {name} is {float(value)} at step {step}, written as null")
        with log.writing(self._metrics_path):
            self._metrics.write(_json(line) + "\n")
            self._metrics.flush()
        self._note(step, log.plain(values))
        if any(name.startswith("eval/") for name in values):
            self._write_summary()

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        for name, picture in images.items():
            path = self._run.folder / "images" / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)}-{step:08d}.png"
            with log.writing(path):
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(png(picture))

    def arrays(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        for name, values in arrays.items():
            self._arrays |= {name: np.asarray(values), f"step/{name}": np.asarray(step)}
        self._write_arrays()

    def alarm(self, step: int, sentence: str) -> None:
        self._alarms.append({"step": step, "sentence": sentence})
        self._write_summary()

    def summary(self, values: Mapping[str, Any]) -> None:
        taken = sorted(values.keys() & (self._own_summary().keys() - _TOLD_BY_THE_LOOP))
        if taken:
            raise types.UsageError(f"summary.json keeps {', '.join(taken)} for itself: call an evaluator otherwise")
        self._told |= values
        self._write_summary()

    def close(self) -> None:
        with log.writing(self._metrics_path):
            self._metrics.close()
        self._write_summary()

    def _note(self, step: int, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if value is None or name in log.COUNTS:
                continue
            self._last[name] = value
            parts = name.split("/")
            words = set(re.split(r"[/_]", name.lower()))
            if parts[0] == "eval" and not words & NONE_IS_BETTER:
                sign = -1 if LOWER_IS_BETTER & words else 1
                if name not in self._best or sign * value > sign * self._best[name]["value"]:
                    self._best[name] = {"value": value, "step": step}

    def _own_summary(self) -> dict[str, Any]:
        return {
            "finished": False,
            "step": self._step,
            "total_steps": self._run.total_steps,
            "steps_per_epoch": self._run.steps_per_epoch,
            "batch_size": self._run.batch_size,
            "wall_seconds": round(self._seconds_before + time.monotonic() - self._begun, 3),
            "seed": self._run.config.get("seed"),
            **self._environment,
            "alarms": self._alarms,
            "last": self._last,
            "best": self._best,
        }

    def _write_summary(self) -> None:
        log.replace(self._run.folder / "summary.json", _json({**self._own_summary(), **self._told}, indent=2))

    def _write_arrays(self) -> None:
        if self._arrays:
            log.replace(self._run.folder / "arrays.npz", self._arrays)


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(log.plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def png(picture: np.ndarray) -> bytes:
    """A PNG file of `picture`, uint8 [h, w, 3]; made here because a bare accelerator machine has no Pillow.

    Raises ValueError for another type or shape.
    """
    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"a picture is uint8 [h, w, 3], not {picture.dtype} {picture.shape}")
    height, width, _ = picture.shape
    above = np.concatenate([np.zeros_like(picture[:1]), picture[:-1]])
    rows = (picture - above).reshape(height, width * 3)  # PNG's filter 2: the difference to the row above, modulo 256
    filtered = np.concatenate([np.full((height, 1), 2, np.uint8), rows], axis=1)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(filtered.tobytes()),
        b"IEND": b"",
    }
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)
