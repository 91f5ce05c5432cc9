"""Checkpoints: saved behind the running step, restored whole or refused by name. The only user of Orbax."""

import contextlib
import dataclasses
import errno
import json
import logging
import math
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from ssl_jax.types import RunError, Steps, TrainState, UsageError


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

    Each holds `state` (a TrainState), `config` (the resolved config) and `feed` (the position in the data).
    """

    def __init__(self, folder: pathlib.Path, policy: Policy):
        _quieten()
        self.folder = folder.absolute()
        self._policy = policy
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
            enable_async_checkpointing=True,
        )
        with _one_line(self.folder, "open"):
            self._manager = ocp.CheckpointManager(self.folder, options=options)

    def latest(self) -> int | None:
        """The newest complete step, None if there is none; a save that a kill cut short does not count."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step with the best value of `Policy.best`, None if none was compared."""
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
        metrics = None
        if scalars and self._policy.best in scalars and math.isfinite(scalars[self._policy.best]):
            sign = 1.0 if self._policy.best_is == "highest" else -1.0
            metrics = {"best": sign * float(scalars[self._policy.best])}
        with _one_line(self.folder / str(step), "write"):
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

    def wait(self) -> None:
        """Returns once everything saved so far is on the disk."""
        with _one_line(self.folder, "write"):
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state saved at `step`, laid out as `like`: a tree of ShapeDtypeStructs with shardings.

        Raises:
            UsageError: naming every array that is missing, unexpected or of another shape or type.
            RunError: when the files are damaged.
        """
        place = self.folder / str(step)
        with _one_line(place, "read"):
            stored = _stored_tree(place)
        refuse_differences(like, stored, place)
        with _one_line(place, "read"):
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like), feed=ocp.args.JsonRestore())
            )
        position = restored.feed["next_batch"]
        if position != step:
            raise RunError(f"checkpoint {place} belongs to step {step} but its data position is {position}")
        return restored.state

    def close(self) -> None:
        """Waits for what is being written; without it the last save would be lost."""
        with _one_line(self.folder, "write"):
            self._manager.close()


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
    _quieten()
    if which not in ("last", "best") and not isinstance(which, int):
        raise UsageError(f'which={which!r} is neither "last" nor "best"')
    folder = pathlib.Path(run_folder).absolute() / "checkpoints"
    if not folder.is_dir():
        raise UsageError(f"{run_folder} holds no checkpoints: give the --workdir of an experiments.train run")
    _check_values(folder)
    # Read-only, because the run may still be training.
    options = ocp.CheckpointManagerOptions(best_fn=_best_value, best_mode="max", read_only=True)
    with _one_line(folder, "read"), ocp.CheckpointManager(folder, options=options) as manager:
        latest, best, kept = manager.latest_step(), manager.best_step(), sorted(manager.all_steps())
    if latest is None:
        raise UsageError(f"{folder} holds no complete checkpoint yet")
    if which == "best" and best is None:
        raise UsageError(f"{folder} knows no best checkpoint, as its run compared none; ask for the last")
    if isinstance(which, int) and which not in kept:
        raise UsageError(f"{folder} keeps no step {which}; it has {', '.join(map(str, kept))}")
    step = {"best": best, "last": latest}.get(which, which)
    place = folder / str(step)
    with _one_line(place, "read"):
        stored = _stored_tree(place)
    there = sorted(stored["params"])
    names = tuple(there) if names is None else names
    missing = [name for name in names if name not in there]
    if missing:
        raise UsageError(f"{place} has no network {', '.join(missing)}; it has {', '.join(there)}")
    target = {kind: {name: stored[kind][name] for name in names} for kind in ("params", "stats")}
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), target)
    on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target)
    with _one_line(place, "read"), ocp.PyTreeCheckpointer() as reader:
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


def _best_value(metrics):
    return metrics["best"]


def _check_values(folder):
    """Raises RunError for a compared value that cannot be read; Orbax would not say whose it is."""
    for file in sorted(folder.glob("[0-9]*/metrics/metrics")):
        with _one_line(file.parents[1], "read"):
            _best_value(json.loads(file.read_text()))


def _quieten():
    """Stops the log of every save, and the tracebacks in which Orbax's threads repeat what we get as an exception."""
    logging.getLogger("absl").addFilter(_not_by_orbax)
    logging.getLogger("asyncio").addFilter(_not_of_a_failed_save)
    if not isinstance(sys.unraisablehook, _Unraisable):
        sys.unraisablehook = _Unraisable(sys.unraisablehook)


def _not_by_orbax(record: logging.LogRecord) -> bool:
    return _is_others(record.pathname)


def _not_of_a_failed_save(record: logging.LogRecord) -> bool:
    """When several arrays of one save fail, Orbax raises the first and asyncio logs each of the others at exit."""
    message = record.getMessage()
    return not ("exception was never retrieved" in message and "orbax-checkpoint" in message)


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


@contextlib.contextmanager
def _one_line(place: pathlib.Path, verb: str) -> Iterator[None]:
    """Turns whatever Orbax throws into one line that names the checkpoint and the way out."""
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
        raise RunError(
            f"checkpoint {place} is damaged or foreign ({reason}); delete that folder to go on from the one before it"
        ) from error


def _cause(error, number):
    while error is not None:
        if isinstance(error, OSError) and error.errno == number:
            return True
        error = error.__cause__ or error.__context__
    return False
