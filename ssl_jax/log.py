"""What the loop, the writers and the report share: a run's numbers, pictures, table, surroundings and safe files."""

import contextlib
import dataclasses
import errno
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ssl_jax import types

COUNTS = ("epoch", "images", "seconds")
"""What every line of scalars says beside its step and values."""

_LISTED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets", "grain", "wandb")


def combine(writers: Sequence[types.Writer]) -> types.Writer:
    """One writer that hands everything to each of `writers` in order.

    What a writer raises comes out as `types.RunError` that begins with the writer's class; `close` closes every one
    before it raises the first failure.
    """
    return _Combined(tuple(writers))


class _Combined:
    def __init__(self, writers: tuple[types.Writer, ...]):
        self._writers = writers

    def progress(self, step: int) -> None:
        self._each("progress", step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._each("scalars", step, values)

    def images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        self._each("images", step, images)

    def arrays(self, step: int, arrays: Mapping[str, np.ndarray]) -> None:
        self._each("arrays", step, arrays)

    def alarm(self, step: int, sentence: str) -> None:
        self._each("alarm", step, sentence)

    def summary(self, values: Mapping[str, Any]) -> None:
        self._each("summary", values)

    def close(self) -> None:
        failures = []
        for writer in self._writers:
            try:
                writer.close()
            except Exception as error:
                failures.append(_named(writer, "close", error))
        if failures:
            raise failures[0]

    def _each(self, call: str, *arguments: Any) -> None:
        for writer in self._writers:
            try:
                getattr(writer, call)(*arguments)
            except Exception as error:
                raise _named(writer, call, error) from error


def _named(writer: types.Writer, call: str, error: Exception) -> types.RunError:
    known = isinstance(error, types.RunError | types.UsageError)
    fault = f": {error}" if known else f" failed in {call}: {type(error).__name__}: {error}"
    named = types.RunError(type(writer).__name__ + fault)
    named.__cause__ = error
    return named


@dataclasses.dataclass(frozen=True)
class Column:
    """Accuracies in one setting.

    Attributes:
        name: `labels_1`, ..., `labels_all` or `knn`.
        head: the same in words.
        accuracies: by representation, in [0, 1].
        spreads: their standard deviations, where known.
    """

    name: str
    head: str
    accuracies: Mapping[str, float]
    spreads: Mapping[str, float]


def table(summary: Mapping[str, Any]) -> tuple[list[str], list[Column]]:
    """Representations (the trained ones last) and columns, from entries `labels_1`, ..., `labels_all`, `knn`.

    Each entry of the summary maps a representation to an accuracy, `labels_1_std` and so on to its spread;
    `knn_neighbours`, if there, is the k that the head of `knn` names.
    """
    names = sorted((name for name in summary if re.fullmatch(r"labels_\d+", name)), key=lambda name: int(name[7:]))
    names += [name for name in ("labels_all", "knn") if name in summary]
    knn = f"kNN (k={summary['knn_neighbours']})" if "knn_neighbours" in summary else "kNN"
    heads = {name: f"{name[7:]} labels" for name in names} | {"labels_1": "1 label", "knn": knn}
    spreads = {name: summary[f"{name}_std"] if f"{name}_std" in summary else {} for name in names}
    columns = [Column(name, heads[name], _known(summary[name]), _known(spreads[name])) for name in names]
    return trained_last(row for column in columns for row in column.accuracies), columns


def trained_last(rows: Iterable[str]) -> list[str]:
    """Representations, each once: `raw_pixels` and `untrained`, which any training must beat, then the others."""
    return sorted(dict.fromkeys(rows), key=lambda row: (row != "raw_pixels", row != "untrained"))


def _known(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def format_table(summary: Mapping[str, Any]) -> str:
    """`table` as plain text; absent cells are `-`, and without any entry the answer is ""."""
    rows, columns = table(summary)
    if not rows:
        return ""

    def cell(row: str, column: Column) -> str:
        if row not in column.accuracies:
            return "-"
        spread = f" ± {column.spreads[row]:.3f}" if row in column.spreads else ""
        return f"{column.accuracies[row]:.3f}{spread}"

    lines = [["accuracy", *(column.head for column in columns)]]
    lines += [[row, *(cell(row, column) for column in columns)] for row in rows]
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Cells as plain text in columns, a rule under the first line."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    texts = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([texts[0], "-" * max(map(len, texts)), *texts[1:]])


def scores(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The entries of a summary that say how well a classifier did, as `evaluators.classification` writes them."""
    wanted = {"accuracy", "accuracy_interval", "macro_f1", "classes"}
    return {name: value for name, value in summary.items() if isinstance(value, Mapping) and wanted <= value.keys()}


def counterparts(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The entries of a summary that say how true translations are, as `evaluators.counterpart` writes them."""
    wanted = {"examples", "psnr_ab", "psnr_ba", "error_ab", "error_ba"}
    return {name: value for name, value in summary.items() if isinstance(value, Mapping) and wanted <= value.keys()}


def format_scores(summary: Mapping[str, Any]) -> str:
    """`scores` and `counterparts` in words, a line each (of counterparts a line a direction); "" without any."""
    lines = []
    for name, found in scores(summary).items():
        low, high = found["accuracy_interval"]
        top5 = f", top-5 {found['accuracy_top5']:.3f}" if found.get("accuracy_top5") is not None else ""
        lines.append(
            f"{name}: accuracy {found['accuracy']:.3f} ({low:.3f} to {high:.3f}){top5}, macro F1 "
            f"{found['macro_f1']:.3f}, calibration error {found['calibration_error']:.3f}, {found['examples']:,} images"
        )
    for name, found in counterparts(summary).items():
        for one, other in ("ab", "ba"):
            way = f"{one}{other}"
            read = (
                f", {found[f'read_{way}']:.3f} read rightly ({found[f'read_real_{other}']:.3f} of real images)"
                if f"read_{way}" in found
                else ""
            )
            lines.append(
                f"{name}, {one.upper()} to {other.upper()}: PSNR {found[f'psnr_{way}']:.2f} dB, pixel error "
                f"{found[f'error_{way}']:.4f}{read}, {found['examples']:,} pairs"
            )
    return "\n".join(lines)


def read_metrics(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of the run folder's `metrics.jsonl`, none where there is no file.

    A last line cut off by a kill is left out. Raises RunError for any other line that is not one of a run.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    lines = []
    try:
        *texts, _ = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise types.RunError(f"{path} is damaged ({error}): move the file away") from None
    for number, text in enumerate(texts, start=1):
        try:
            lines.append(json.loads(text))
            if type(lines[-1]["step"]) is not int:
                raise ValueError("a step is an integer")
        except (ValueError, KeyError, TypeError, RecursionError):
            raise types.RunError(f"{path} line {number} is not a line of ours: move the file away") from None
    return lines


def kept_metrics(folder: pathlib.Path, first_step: int) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` that a start at `first_step` keeps: none at 0, else those up to it."""
    return [line for line in read_metrics(folder) if line["step"] <= first_step] if first_step else []


def seconds_so_far(folder: pathlib.Path, first_step: int) -> float:
    """The `seconds` of the last line of `metrics.jsonl` that a start at `first_step` keeps; 0.0 if there is none."""
    kept = [line["seconds"] for line in kept_metrics(folder, first_step) if "seconds" in line]
    return kept[-1] if kept else 0.0


def environment() -> dict[str, Any]:
    """What a number depends on beside its config: devices, library versions, python, and this package's commit.

    `commit` is null where the package does not lie in a git repository of its own; `-dirty` marks changed files in it.
    """
    versions = {}
    for name in _LISTED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "platform": jax.default_backend(),
        "device_kind": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        "python": platform.python_version(),
        "versions": versions,
        "commit": _commit(pathlib.Path(__file__).resolve()),
    }


def _commit(file: pathlib.Path) -> str | None:
    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=file.parent, capture_output=True, text=True, timeout=20, check=False
            )
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # Installed into an environment that lies in somebody's repository, the package must not claim that commit.
    if git("ls-files", "--error-unmatch", file.name) is None:
        return None
    commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", ".")
    return commit and commit + ("-dirty" if changed else "")


def plain(value: Any) -> Any:
    """`value` as JSON knows it; what is not a finite number becomes None."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return plain(np.asarray(value).tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, pathlib.PurePath) else value


def replace(path: pathlib.Path, content: str | bytes | Mapping[str, np.ndarray]) -> None:
    """Puts `content` (text, bytes, or arrays for an `.npz`) at `path` in one move, so that no reader meets half of it.

    Raises RunError with the path where the disk does not take it.
    """
    temporary = path.with_name(path.name + ".tmp")
    with writing(path):
        try:
            temporary.unlink(missing_ok=True)  # a link there, written through, would change a file elsewhere
            with temporary.open("xb") as file:
                if isinstance(content, str):
                    file.write(content.encode())
                elif isinstance(content, bytes):
                    file.write(content)
                else:
                    np.savez_compressed(file, **content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Turns a failure to write `path` inside the block into a RunError that names it."""
    try:
        yield
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or error
        raise types.RunError(f"cannot write {path}: {reason}; make room or choose another folder") from error


def say(sentence: str) -> None:
    """One line on stderr that survives a progress bar."""
    if sys.modules.get("tqdm"):
        sys.modules["tqdm"].tqdm.write(sentence, file=sys.stderr)
        sys.stderr.flush()
    else:
        print(sentence, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A length of time in words, such as "1 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
