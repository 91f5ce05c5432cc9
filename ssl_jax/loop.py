"""The one training loop: it knows the protocols of `types` and no method's, data set's or evaluator's name."""

import contextlib
import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ssl_jax import checkpoint as checkpoints
from ssl_jax import log, run_folder, sheet, types
from ssl_jax import mesh as meshes
from ssl_jax.journal import Journal
from ssl_jax.run_folder import read_summary
from ssl_jax.stop import Stopped, StopSignals
from ssl_jax.trainer import Trainer
from ssl_jax.types import Batch, RunError, Steps, UsageError

ASK_PROCESSES_STEPS = 20
"""How often several processes ask each other whether to stop: the question costs a round trip."""


@dataclasses.dataclass(frozen=True)
class Every:
    """An evaluator and when it runs.

    Attributes:
        steps: the interval; it runs at the end of the training as well, so "100 %" is the end alone.
        run: the evaluator.
    """

    steps: Steps
    run: types.Evaluator

    def __post_init__(self):
        if self.steps < 1:
            raise UsageError(f"steps={self.steps}: an evaluator runs every 1 step or more")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What a run belongs to, for writers that show it among others; it decides no result.

    Attributes:
        paper: the paper's name, "" where there is none.
        group: the name of the runs that it is one of, such as those of one config.
        tags: words to find it by, 1 to 64 characters each.

    Raises:
        UsageError: for a tag of another length.
    """

    paper: str = ""
    group: str = ""
    tags: tuple[str, ...] = ()

    def __post_init__(self):
        for tag in self.tags:
            if not 1 <= len(tag) <= 64:
                raise UsageError(f"tags holds {tag!r}: a tag has 1 to 64 characters")


def fit(
    *,
    folder: pathlib.Path,
    config: Mapping[str, Any],
    seed: int,
    duration: Steps,
    method: types.Method,
    data: types.Feed,
    preprocess: Callable[[Batch, jax.Array], Batch],
    evaluators: Mapping[str, Every],
    checkpoint: checkpoints.Policy,
    writers: Mapping[str, types.WriterSettings],
    mesh: jax.sharding.Mesh,
    log_every: Steps,
    graft: types.Graft | None = None,
    experiment: Experiment | None = None,
) -> Mapping[str, Any]:
    """Trains until `duration`, from the newest checkpoint in `folder` if there is one.

    Everything that decides the result is a function of (config, seed, step), so a run that was killed and started again
    ends with the parameters of one that was not.

    Args:
        folder: the run folder; made if need be.
        config: the resolved config, kept in the folder and in every checkpoint.
        seed: of everything random.
        duration: steps in all; after 0 the evaluators look at what the run began with.
        method: what learns.
        data: where the batches come from.
        preprocess: (batch, key) to what the method takes; runs compiled, on the device.
        evaluators: by name; what they find is logged as `eval/<name>/...`.
        checkpoint: when to save and what to keep.
        writers: by name; they are closed in this order.
        mesh: the devices.
        log_every: steps between two lines of training metrics, each a mean over those steps
            (after a resume, over those since it).
        graft: networks that the run begins with instead of fresh ones.
        experiment: what the run belongs to; writers read it in `config`.

    Returns:
        What `summary.json` says at the end; empty without a writer that writes it.

    Raises:
        UsageError: for a folder that holds another config or is being trained by another process, or a batch that the
            devices do not divide.
        RunError: for a non-finite metric, a damaged checkpoint, a full disk, or after SIGTERM or Ctrl-C.
    """
    del experiment  # built only so that a misspelt key is refused
    meshes.check_batch(data.batch_size, mesh)
    if not 0 <= seed < 2**32 or log_every < 1:
        raise UsageError(f"config.seed={seed} must lie in 0..2^32-1 and config.log_every={log_every} above 0")
    _check_best(checkpoint.best, evaluators)
    # Built before the folder is claimed: what it refuses must not leave a folder behind.
    trainer = Trainer(method, preprocess, data.spec, seed=seed, mesh=mesh, graft=graft)
    with contextlib.ExitStack() as stack:
        stack.enter_context(run_folder.training(folder, config, meshes.hint_of_cluster()))
        keeper = checkpoint.open(folder)
        stack.callback(keeper.close)
        first_step = keeper.latest() or 0
        if first_step > duration:
            raise UsageError(
                f"{folder} is at step {first_step}, beyond config.duration={duration} steps; has its data set changed?"
            )
        summary = read_summary(folder)
        if 0 < first_step == duration and summary and summary["finished"]:
            return summary
        state = keeper.restore(first_step, trainer.state_spec) if first_step else trainer.untrained()
        steps_per_epoch = data.examples // data.batch_size
        run = types.Run(folder, config, first_step, duration, steps_per_epoch, data.batch_size)
        first_process = jax.process_index() == 0
        told = run_folder.scalars_told(folder, first_step)
        out = log.combine([settings.start(run) for settings in writers.values()] if first_process else [])
        stack.callback(out.close)
        if first_step == 0:
            out.arrays(0, {f"data/{name}": array for name, array in data.chosen.items()})
        journal = Journal(run, out, keeper, log_every, trainer)
        batches = data.batches(mesh, seed, first_step)
        stack.callback(batches.close)
        signals = stack.enter_context(StopSignals().caught())
        # Last, so that nothing below it in the stack waits for a process that is lost.
        stack.enter_context(meshes.together())

        def end(step):
            keeper.wait()
            raise RunError(
                f"stopped by {signals.received or 'another process'} at step {step} of {duration}; "
                f"all is saved in {folder}, and the same command goes on from there"
            )

        def look(due, step):
            """Lets evaluators look at the state of `step`, which is saved: a stop need not wait for them."""
            try:
                with signals.interrupting():
                    reports = _reports({name: evaluators[name].run for name in due}, trainer, state, step)
            except Stopped:
                end(step)
            scalars = _tell(reports, journal.clock(step), out, step)
            keeper.compare(step, scalars)
            _check_best(checkpoint.best, due, scalars)

        if first_step or duration == 0:
            # The state is saved before the evaluators look, so a run may have ended between the two.
            keeper.compare(first_step, told)
            keeper.wait()
            due = _due(evaluators, first_step, duration)
            due = [name for name in due if meshes.any_process(not any(key.startswith(f"eval/{name}/") for key in told))]
            if due:
                look(due, first_step)
        elif jax.process_count() == 1:  # several processes see only their shares
            first = next(batches)
            _show(first, trainer, out)
            batches = itertools.chain([first], batches)
            del first
        for step in range(first_step + 1, duration + 1):
            state, metrics = trainer.step(state, next(batches))
            journal.add(step, metrics)
            out.progress(step)
            stop = bool(signals.received)
            if jax.process_count() > 1:
                stop = step % ASK_PROCESSES_STEPS == 0 and meshes.any_process(stop)
            due = _due(evaluators, step, duration)
            if stop or due or step % checkpoint.every == 0 or step == duration:
                journal.save(step, state)
            if stop and (due or step < duration):
                end(step)
            if due:
                look(due, step)
        keeper.wait()
        best = {"best_step": keeper.best()} if checkpoint.best else {}
        out.summary({"finished": True, "step": duration, "seed": seed, **best})
    return read_summary(folder)


def _due(evaluators, step, duration):
    return [name for name, item in evaluators.items() if step % item.steps == 0 or step == duration]


def _reports(evaluators, trainer, state, step):
    reports = {}
    for name, evaluator in evaluators.items():
        try:
            reports[name] = evaluator(trainer.exports, state, trainer.untrained)
        except Exception as error:
            error.add_note(f"while evaluator {name!r} looked at step {step}")
            raise
    return reports


def _tell(reports, clock, out, step):
    """Hands reports to the writers, scalars last: by them a later start knows that all of it was said."""
    scalars = {}
    for name, report in reports.items():
        prefix = f"eval/{name}/"
        scalars |= {prefix + key: float(value) for key, value in report.scalars.items()}
        out.images(step, {prefix + key: image for key, image in report.images.items()})
        out.arrays(step, {prefix + key: array for key, array in report.arrays.items()})
        if report.summary:
            out.summary(report.summary)
        for sentence in report.alarms:
            out.alarm(step, sentence)
    out.scalars(step, {**clock, **scalars})
    return scalars


def _check_best(best, evaluators, scalars=None):
    """Refuses a scalar to keep the best by that no evaluator gives, as soon as that can be told."""
    if not best:
        return
    name = best.split("/")[1] if best.startswith("eval/") and best.count("/") > 1 else None
    if scalars is None and name not in evaluators:
        raise UsageError(f"config.checkpoint.best={best!r} is not eval/NAME/... of {', '.join(evaluators) or 'none'}")
    if scalars is not None and name in evaluators and best not in scalars:
        there = ", ".join(key for key in scalars if key.startswith(f"eval/{name}/"))
        raise UsageError(f"config.checkpoint.best={best!r} is none of what {name} reports: {there}")


def _show(batch, trainer, out):
    views = trainer.preprocess(batch, np.int32(0))
    shown = {name: np.asarray(view[:32]) for name, view in views.items() if view.ndim == 4}
    out.images(0, {f"batch/{name}": sheet.grid(_stretched(view), columns=8) for name, view in shown.items()})


def _stretched(images):
    """Normalised images in [-1, 1], whatever mean and deviation they were normalised by."""
    low, high = np.quantile(images, (0.005, 0.995))
    return np.clip(2 * (images - low) / max(high - low, 1e-6) - 1, -1, 1)
