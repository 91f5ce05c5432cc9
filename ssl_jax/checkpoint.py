"""Checkpoints: saved behind the running step, restored whole or refused by name. The only user of Orbax."""

import dataclasses
import json
import math
import pathlib
import shutil
import time
import types
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers
from orbax.checkpoint._src.futures import future, signaling_client

from ssl_jax import digests, log, quiet
from ssl_jax.types import RunError, Steps, TrainState, UsageError

_REMOVED = ".removed"
"""Where checkpoints go in one move before they are removed, so that a kill leaves no half of one under its name."""
_TIMES = "_CHECKPOINT_METADATA"
"""A file that Orbax changes after all others; nothing that is restored depends on it."""

# Orbax measures its time limits by the wall clock: one put forward would end a sound save, and one put back hold it up.
for _module in (future, signaling_client):
    _module.time = types.SimpleNamespace(**{**vars(time), "time": time.monotonic})


@dataclasses.dataclass(frozen=True)
class Policy:
    """When to save and what to keep.

    Attributes:
        every: steps between saves; the last step is always saved.
        keep_latest: how many of the newest stay.
        best: the scalar by which one more is kept, such as "eval/knn/accuracy"; "" keeps none. It is compared at
            the steps that its evaluator runs at, and those are saved too.
        best_is: whether the highest or the lowest value is the best; one that is not finite never is.

    Raises:
        UsageError: for fewer than one step between saves or fewer than one to keep.
    """

    every: Steps
    keep_latest: int = 2
    best: str = ""
    best_is: Literal["highest", "lowest"] = "highest"

    def __post_init__(self):
        for name in ("every", "keep_latest"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} comes to {getattr(self, name)}, but must be at least 1")

    def open(self, run_folder: pathlib.Path) -> "Checkpoints":
        """The checkpoints of a run folder, made on the first save."""
        return Checkpoints(run_folder / "checkpoints", self)


class Checkpoints:
    """The checkpoints of one run, a folder named by its step each.

    Each holds `state` (a TrainState), `config` (the resolved config) and `feed` (the position in the data), and the
    digests of its files, since damage in compressed arrays would else be restored unnoticed. They are written before
    the folder takes its name, so a checkpoint that counts has them; one of an earlier version is restored unchecked,
    and a sentence says so.
    """

    def __init__(self, folder: pathlib.Path, policy: Policy):
        quiet.orbax()
        self.folder = folder.absolute()
        self._policy = policy
        self._uncompared: tuple[int, float | None] | None = None
        keep = [checkpoint_managers.LatestN(policy.keep_latest)]
        best = {}
        if policy.best:
            _check_values(self.folder)
            best = {"best_fn": _best_value, "best_mode": "max"}
            keep.append(
                checkpoint_managers.BestN(
                    get_metric_fn=_best_value, n=1, reverse=False, keep_checkpoints_without_metrics=False
                )
            )
        options = ocp.CheckpointManagerOptions(
            **best,
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(keep),
            cleanup_tmp_directories=True,
            todelete_subdir=_REMOVED,
            enable_async_checkpointing=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._note_digests),
        )
        with quiet.one_line(self.folder, "open"):
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._remove()

    def latest(self) -> int | None:
        """The newest complete step, None if there is none; a save that a kill cut short does not count."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step with the best value of `Policy.best`, None if none was compared."""
        self._settle()
        return self._manager.best_step()

    def save(
        self, step: int, state: TrainState, *, config: Mapping[str, Any], scalars: Mapping[str, float] | None = None
    ) -> None:
        """Copies the state off the device and writes it in the background; the state may be donated right after.

        Args:
            step: the state's step.
            state: what to save.
            config: the resolved config.
            scalars: what was measured at this step; names other than `Policy.best` are left out.

        Raises:
            RunError: when this save, or the one before it, could not be written.
        """
        self._settle()
        self._remove()
        value = self._value(scalars)
        metrics = None if value is None else {"best": value}
        with quiet.one_line(self.folder / str(step), "write"):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    config=ocp.args.JsonSave(dict(config)),
                    feed=ocp.args.JsonSave({"next_batch": step}),
                ),
                metrics=metrics,
                force=True,
            )

    def compare(self, step: int, scalars: Mapping[str, float | None]) -> None:
        """Notes what was measured at a step after it was saved; the next `save`, `wait` or `best` writes it down.

        Nothing happens for a step that is not kept or has its value, or without `Policy.best` among the scalars.
        """
        self._settle()
        if self._policy.best:
            self._uncompared = (step, self._value(scalars))

    def wait(self) -> None:
        """Returns once everything saved so far is on the disk."""
        self._settle()
        with quiet.one_line(self.folder, "write"):
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        self._remove()

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state saved at `step`, laid out as `like`: a tree of ShapeDtypeStructs with shardings.

        Raises:
            UsageError: naming every array that is missing, unexpected or of another shape or type.
            RunError: when the files are damaged.
        """
        place = self.folder / str(step)
        with quiet.one_line(place, "read"):
            _check_files(place)
            stored = _stored_tree(place)
        refuse_differences(like, stored, place)
        with quiet.one_line(place, "read"):
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like), feed=ocp.args.JsonRestore())
            )
            position = restored.feed["next_batch"]
        if position != step:
            raise RunError(f"checkpoint {place} belongs to step {step} but its data position is {position}")
        return restored.state

    def close(self) -> None:
        """Waits for what is being written; without it the last save would be lost."""
        with quiet.one_line(self.folder, "write"):
            self._manager.close()
        self._remove()

    def _remove(self):
        if jax.process_index() == 0:
            shutil.rmtree(self.folder / _REMOVED, ignore_errors=True)

    def _value(self, scalars):
        value = (scalars or {}).get(self._policy.best)
        if value is None or not math.isfinite(value):
            return None
        return float(value) if self._policy.best_is == "highest" else -float(value)

    def _settle(self):
        """Writes the value that waits for its step to be saved, and drops the step that was the best before it."""
        if self._uncompared is None:
            return
        (step, value), self._uncompared = self._uncompared, None
        place = self.folder / str(step)
        with quiet.one_line(place, "write"):
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
            before, kept = self._manager.best_step(), self._manager.all_steps()
            if value is not None and step in kept and jax.process_index() == 0 and not (place / "metrics").exists():
                log.replace(place / "best.json", json.dumps({"best": value}))
                (place / "metrics.tmp").mkdir(exist_ok=True)
                (place / "best.json").rename(place / "metrics.tmp" / "metrics")
                (place / "metrics.tmp").rename(place / "metrics")
                digests.add(place, "metrics/metrics")
            multihost_utils.sync_global_devices(f"compared {step}")
            self._manager.reload()
            # Nobody may delete before everybody has read what is there.
            multihost_utils.sync_global_devices(f"read again after {step}")
            if before not in (None, self._manager.best_step(), *sorted(kept)[-self._policy.keep_latest :]):
                self._manager.delete(before)

    def _note_digests(self):
        """Runs where a save is complete but for its name."""
        if jax.process_index() == 0:
            for folder in self.folder.glob("*.orbax-checkpoint-tmp"):
                digests.write(folder, without=(_TIMES,))


def restore_networks(
    run_folder: pathlib.Path, names: tuple[str, ...] | None, *, which: Literal["last", "best"] | int = "last"
) -> tuple[Any, Any, int]:
    """Reads single networks out of a run, without building its method or optimiser.

    Args:
        run_folder: the folder of a run.
        names: network names, such as ("encoder",); None for all.
        which: "last", "best", or a step.

    Returns:
        Parameters by network, batch statistics by network, and the step they are from; host arrays.

    Raises:
        UsageError: for a folder without checkpoints, a network that the run does not have, "best" where nothing was
            compared, or a step that is not kept.
        RunError: when the files are damaged.
    """
    quiet.orbax()
    if which not in ("last", "best") and not isinstance(which, int):
        raise UsageError(f'which={which!r} is neither "last" nor "best"')
    folder = pathlib.Path(run_folder).absolute() / "checkpoints"
    if not folder.is_dir():
        raise UsageError(f"{run_folder} holds no checkpoints: give the --workdir of an experiments.train run")
    _check_values(folder)
    # Read-only, because the run may still be training.
    options = ocp.CheckpointManagerOptions(best_fn=_best_value, best_mode="max", read_only=True)
    with quiet.one_line(folder, "read"), ocp.CheckpointManager(folder, options=options) as manager:
        latest, best, kept = manager.latest_step(), manager.best_step(), sorted(manager.all_steps())
    if latest is None:
        raise UsageError(f"{folder} holds no complete checkpoint yet")
    if which == "best" and best is None:
        raise UsageError(f"{folder} knows no best checkpoint, as its run compared none; ask for the last")
    if isinstance(which, int) and which not in kept:
        raise UsageError(f"{folder} keeps no step {which}; it has {', '.join(map(str, kept))}")
    step = {"best": best, "last": latest}.get(which, which)
    place = folder / str(step)
    with quiet.one_line(place, "read"):
        _check_files(place)
        stored = _stored_tree(place)
    there = sorted(stored["params"])
    names = tuple(there) if names is None else names
    missing = [name for name in names if name not in there]
    if missing:
        raise UsageError(f"{place} has no network {', '.join(missing)}; it has {', '.join(there)}")
    target = {kind: {name: stored[kind][name] for name in names} for kind in ("params", "stats")}
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), target)
    on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target)
    with quiet.one_line(place, "read"), ocp.PyTreeCheckpointer() as reader:
        read = reader.restore(
            place / "state",
            args=ocp.args.PyTreeRestore(target, partial_restore=True, restore_args=on_host),
        )
    return read["params"], read["stats"], step


def refuse_differences(wanted: Any, stored: Any, place: pathlib.Path | str) -> None:
    """Raises UsageError naming every leaf that is missing from, unexpected in, or different in `stored`."""
    want, have = _named(wanted), _named(stored)
    faults = [f"missing {name}" for name in sorted(want.keys() - have.keys())]
    faults += [f"unexpected {name}" for name in sorted(have.keys() - want.keys())]
    for name in sorted(want.keys() & have.keys()):
        wish, there = want[name], have[name]
        if (tuple(wish.shape), str(wish.dtype)) != (tuple(there.shape), str(there.dtype)):
            faults.append(f"{name} is {there.dtype}{list(there.shape)}, not {wish.dtype}{list(wish.shape)}")
    if faults:
        raise UsageError(f"checkpoint {place} does not fit this config: {'; '.join(faults)}")


def _named(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _stored_tree(place):
    with ocp.StandardCheckpointer() as reader:
        metadata = reader.metadata(place / "state").item_metadata
    if metadata is None:
        raise ValueError("its state cannot be read")
    return metadata.tree


def _check_files(place):
    """Raises ValueError for a checkpoint that lacks a part or holds a file that is not as it was saved."""
    missing = [part for part in ("state", "config", "feed") if not (place / part).is_dir()]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}, as a checkpoint of this version does")
    if jax.process_index() == 0 and not digests.verify(place):  # one reads for all: what it finds ends all
        log.say(f"checkpoint {place} has no {digests.NAME}, so damage in it would go unnoticed")


def _best_value(metrics):
    return metrics["best"]


def _check_values(folder):
    """Raises RunError for a compared value that is damaged or gone; Orbax would not say whose it is."""
    for place in sorted(item for item in folder.glob("[0-9]*") if item.name.isdecimal()):
        with quiet.one_line(place, "read"):
            digests.verify(place, ("metrics/metrics",))
            if (place / "metrics").is_dir():
                _best_value(json.loads((place / "metrics" / "metrics").read_text()))
