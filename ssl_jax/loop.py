"""The one training loop: it knows the protocols of `types` and no method's, data set's or evaluator's name."""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ssl_jax import checkpoint as checkpoints
from ssl_jax import log, sheet, types
from ssl_jax import mesh as meshes
from ssl_jax.journal import Journal
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
        UsageError: for a folder that holds another config, or a batch that the devices do not divide.
        RunError: for a non-finite metric, a damaged checkpoint, a full disk, or after SIGTERM or Ctrl-C.
    """
    del experiment  # built only so that a misspelt key is refused
    meshes.check_batch(data.batch_size, mesh)
    if not 0 <= seed < 2**32 or log_every < 1:
        raise UsageError(f"config.seed={seed} must lie in 0..2^32-1 and config.log_every={log_every} above 0")
    _check_best(checkpoint.best, evaluators)
    # Built before the folder is claimed: what it refuses must not leave a folder behind.
    trainer = Trainer(method, preprocess, data.spec, seed=seed, mesh=mesh, graft=graft)
    claim(folder, config)
    with contextlib.ExitStack() as stack:
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
        out = log.combine([settings.start(run) for settings in writers.values()] if first_process else [])
        stack.callback(out.close)
        if first_step == 0:
            out.arrays(0, {f"data/{name}": array for name, array in data.chosen.items()})
        journal = Journal(run, out, keeper, log_every, trainer)
        batches = data.batches(mesh, seed, first_step)
        stack.callback(batches.close)
        stop_signals = stack.enter_context(_stop_signals())

        def look(due, state, step):
            scalars = _evaluate({name: evaluators[name].run for name in due}, trainer, state, out, step)
            out.scalars(step, {**journal.clock(step), **scalars})
            _check_best(checkpoint.best, due, scalars)
            return scalars

        if first_step == 0 < duration and jax.process_count() == 1:  # several processes see only their shares
            first = next(batches)
            _show(first, trainer, out)
            batches = itertools.chain([first], batches)
            del first
        for step in range(first_step + 1, duration + 1):
            state, metrics = trainer.step(state, next(batches))
            journal.add(step, metrics)
            out.progress(step)
            stop = bool(stop_signals)
            if jax.process_count() > 1:
                stop = step % ASK_PROCESSES_STEPS == 0 and meshes.any_process(stop)
            due = [name for name, item in evaluators.items() if step % item.steps == 0 or step == duration]
            scalars = {}
            if due:
                journal.drain()
                try:
                    scalars = look(due, state, step)
                except Exception:
                    journal.save(step, state)  # a mistake in an evaluator must not cost the training
                    raise
            if stop or checkpoint.best in scalars or step % checkpoint.every == 0 or step == duration:
                journal.save(step, state, scalars)
            if stop and step < duration:
                keeper.wait()
                word = signal.Signals(stop_signals[0]).name if stop_signals else "another process"
                raise RunError(
                    f"stopped by {word} at step {step} of {duration}; "
                    f"all is saved in {folder}, and the same command goes on from there"
                )
        if first_step == duration and evaluators:
            look(list(evaluators), state, duration)
        keeper.wait()
        best = {"best_step": keeper.best()} if checkpoint.best else {}
        out.summary({"finished": True, "step": duration, "seed": seed, **best})
    return read_summary(folder)


def claim(folder: pathlib.Path, config: Mapping[str, Any]) -> None:
    """Makes `folder` the run folder of `config` and writes `config.json`, or raises UsageError if it is another's.

    What only watches a run (evaluators, writers, checkpoint policy), names it (experiment) or carries it (mesh,
    workers, the data's place) may change between two starts. Only the first process asks and writes; the others would
    race with it.
    """
    if jax.process_index() > 0:
        return
    file = folder / "config.json"
    plain = json.loads(json.dumps(config))
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
    elif folder.is_dir() and any(not item.name.startswith("config.json") for item in folder.iterdir()):
        raise UsageError(f"{folder} is not empty and holds no run: give --workdir a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    log.replace(file, json.dumps(plain, indent=2) + "\n")


def read_summary(folder: pathlib.Path) -> dict[str, Any]:
    """The run folder's `summary.json`, empty where there is none yet."""
    file = folder / "summary.json"
    return _read_json(file) if file.is_file() else {}


def _evaluate(evaluators, trainer, state, out, step):
    scalars = {}
    for name, evaluator in evaluators.items():
        try:
            report = evaluator(trainer.exports, state, trainer.untrained)
        except Exception as error:
            error.add_note(f"while evaluator {name!r} looked at step {step}")
            raise
        prefix = f"eval/{name}/"
        scalars |= {prefix + key: float(value) for key, value in report.scalars.items()}
        out.images(step, {prefix + key: image for key, image in report.images.items()})
        out.arrays(step, {prefix + key: array for key, array in report.arrays.items()})
        for sentence in report.alarms:
            out.alarm(step, sentence)
        if report.summary:
            out.summary(report.summary)
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


def _read_json(file):
    try:
        content = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise UsageError(f"{file} is damaged ({error}); put it right, or use a new --workdir") from error
    if not isinstance(content, dict):
        raise UsageError(f"{file} holds no JSON object; put it right, or use a new --workdir")
    return content


def _deciding(config):
    """The leaves that decide the result: all but what watches, names or carries, and where the data lie."""
    carrying = ("evaluators", "writers", "checkpoint", "log_every", "mesh", "experiment")
    leaves = _leaves({key: value for key, value in config.items() if key not in carrying})
    places = ("data_dir", "workers", "guesses.file", "guesses.data_dir")
    elsewhere = ("config.graft.origin", "config.self_training.unlabelled.data_dir")
    left_out = {*elsewhere, *(f"config.data.{place}" for place in places)}
    # An empty list says what a key says that a config of before did not have.
    return {key: value for key, value in leaves.items() if key not in left_out and value not in ([], ())}


def _leaves(config, path="config"):
    leaves = {}
    for key, value in config.items():
        nested = isinstance(value, dict) and value
        leaves |= _leaves(value, f"{path}.{key}") if nested else {f"{path}.{key}": value}
    return leaves


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that receives SIGTERM or SIGINT; the second one ends the process at once."""
    received: list[int] = []

    def note(number, frame):
        del frame
        received.append(number)
        signal.signal(number, before[number])

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
