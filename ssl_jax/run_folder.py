"""The run folder: whose it is, what lies in it, and who may train there."""

import contextlib
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from ssl_jax import log, run_lock
from ssl_jax import mesh as meshes
from ssl_jax.types import RunError, UsageError


@contextlib.contextmanager
def training(folder: pathlib.Path, config: Mapping[str, Any], hint: str = "") -> Iterator[None]:
    """Claims `folder` for `config` and holds its lock while the block trains there.

    Args:
        folder: the run folder; made if need be.
        config: the resolved config.
        hint: see `run_lock.held`.

    Raises:
        UsageError: for a folder of something else, another config or another process's training; in every process,
            although only the first one looks.
        RunError: where nothing can be written.
    """
    with contextlib.ExitStack() as stack:
        refusal = None
        if jax.process_index() == 0:  # the others would race with it
            try:
                # Before the lock, so that a folder that is no run's is left as it is.
                _refuse_foreign(folder, _plain(config))
                with log.writing(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(run_lock.held(folder, hint))
                claim(folder, config)
            except (UsageError, RunError) as error:
                refusal = error
        if meshes.any_process(refusal is not None):
            raise refusal or UsageError(f"process 0 does not train in {folder}; its own line says why")
        yield


def claim(folder: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Makes `folder` the run folder of `config` and writes `config.json`, or raises UsageError if it is another's.

    What only watches a run (evaluators, writers, checkpoint policy), names it (experiment) or carries it (mesh,
    workers, the data's place) may change between two starts. Only the first process asks and writes; the others would
    race with it.
    """
    if jax.process_index() > 0:
        return
    plain = _plain(config)
    _refuse_foreign(folder, plain)
    folder.mkdir(parents=True, exist_ok=True)
    log.replace(folder / "config.json", json.dumps(plain, indent=2) + "\n")


def read_summary(folder: pathlib.Path) -> dict[str, Any]:
    """The run folder's `summary.json`, empty where there is none yet."""
    file = folder / "summary.json"
    return _read_json(file) if file.is_file() else {}


def scalars_told(folder: pathlib.Path, step: int) -> dict[str, Any]:
    """What `metrics.jsonl` says of `step`, all its lines in one; a number that is not finite is None there."""
    return {
        name: value for line in log.kept_metrics(folder, step) if line["step"] == step for name, value in line.items()
    }


def _refuse_foreign(folder, plain):
    file = folder / "config.json"
    ours = ("config.json", run_lock.NAME)  # a kill right after the lock leaves it alone
    if file.is_file():
        there = _read_json(file)
        old, new = _deciding(there), _deciding(plain)
        names = sorted(k for k in old.keys() | new.keys() if old.get(k, "absent") != new.get(k, "absent"))
        if names:
            faults = [f"{k} is {old.get(k, 'absent')!r} there, {new.get(k, 'absent')!r} here" for k in names[:3]]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise UsageError(f"{folder} holds a run of another config: {'; '.join(faults)}{more}; use a new --workdir")
    elif folder.is_file():
        raise UsageError(f"{folder} is a file: give --workdir a new folder")
    elif folder.is_dir() and any(not item.name.startswith(ours) for item in folder.iterdir()):
        raise UsageError(f"{folder} is not empty and holds no run: give --workdir a new folder")


def _plain(config):
    return json.loads(json.dumps(config))


def _read_json(file):
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file} is damaged ({error}); put it right, or use a new --workdir") from error
    if not isinstance(content, dict):
        raise UsageError(f"{file} holds no JSON object; put it right, or use a new --workdir")
    return content


def _deciding(config):
    """The leaves that decide the result: all but what watches, names or carries, and where the data lie.

    A data set's file may lie elsewhere if its name ends in the hash of what is inside, as `experiments.pack` writes it.
    """
    carrying = ("evaluators", "writers", "checkpoint", "log_every", "mesh", "experiment")
    leaves = _leaves({key: value for key, value in config.items() if key not in carrying})
    file = leaves.get("config.data.file")
    if isinstance(file, str) and re.fullmatch(r".+-[0-9a-f]{16}\.npz", pathlib.PurePath(file).name):
        leaves["config.data.file"] = pathlib.PurePath(file).name
    places = ("data_dir", "workers", "guesses.file", "guesses.data_dir")
    elsewhere = ("config.graft.origin", "config.self_training.unlabelled.data_dir")
    left_out = {*elsewhere, *(f"config.data.{place}" for place in places)}
    # An empty list, like these, says what a key says that a config of before did not have.
    later = {"norm_groups": 1, "accumulate_steps": 1}
    return {
        key: value
        for key, value in leaves.items()
        if key not in left_out and value not in ([], ()) and later.get(key.rpartition(".")[2]) != value
    }


def _leaves(config, path="config"):
    leaves = {}
    for key, value in config.items():
        nested = isinstance(value, dict) and value
        leaves |= _leaves(value, f"{path}.{key}") if nested else {f"{path}.{key}": value}
    return leaves
