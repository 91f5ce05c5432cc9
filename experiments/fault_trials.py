"""What can befall a run, each as a trial: broken off in some way, started again, and compared with a whole one."""

import dataclasses
import pathlib
import shutil
import signal
import socket
import time
from collections.abc import Callable

from experiments.fault_runs import (
    EVERY_STEPS,
    JUMPING_CLOCK,
    SLOW_EVALUATOR,
    STEPS,
    Outcome,
    Setting,
    being_saved,
    differences,
    ended_well,
    kept,
    logged,
    stop,
    wait_for,
)

Trial = Callable[[Setting, pathlib.Path], Outcome]

STOP_SECONDS = 10.0
"""How long a stop signal may take, whatever is at work; schedulers kill half a minute after it."""


def kill_training(setting: Setting, run: pathlib.Path) -> Outcome:
    """SIGKILL at any step."""
    goal = setting.draw.randint(1, STEPS - 1)
    return broken_off(setting, run, lambda: logged(run) >= goal, signal.SIGKILL)


def kill_saving(setting: Setting, run: pathlib.Path) -> Outcome:
    """SIGKILL at any moment of a save."""
    goal = setting.draw.randint(0, STEPS - EVERY_STEPS)
    return broken_off(setting, run, lambda: being_saved(run) and logged(run) >= goal, signal.SIGKILL)


def kill_evaluating(setting: Setting, run: pathlib.Path) -> Outcome:
    """SIGKILL while an evaluator is at work."""
    return _broken_off_evaluating(setting, run, signal.SIGKILL)


def kill_starting(setting: Setting, run: pathlib.Path) -> Outcome:
    """SIGKILL while `config.json` and `summary.json` are written, of a fresh run or of one that goes on."""
    begun = setting.draw.random() < 0.5
    if begun:
        broken_off(setting, run, lambda: logged(run) >= 12, signal.SIGTERM, resume=False)
    before = (run / "config.json").stat().st_mtime_ns if begun else 0
    names = (run / "config.json.tmp", run / "summary.json.tmp", run / "config.json")

    def writing():
        return any(path.exists() and path.stat().st_mtime_ns > before for path in names)

    return broken_off(setting, run, writing, signal.SIGKILL)


def stop_training(setting: Setting, run: pathlib.Path) -> Outcome:
    """SIGTERM at any step: nothing may be lost."""
    goal = setting.draw.randint(1, STEPS - 4)
    return broken_off(setting, run, lambda: logged(run) >= goal, signal.SIGTERM)


def stop_saving(setting: Setting, run: pathlib.Path) -> Outcome:
    """SIGTERM while a checkpoint is written: nothing may be lost."""
    goal = setting.draw.randint(0, STEPS - 2 * EVERY_STEPS)
    return broken_off(setting, run, lambda: being_saved(run) and logged(run) >= goal, signal.SIGTERM)


def stop_evaluating(setting: Setting, run: pathlib.Path) -> Outcome:
    """SIGTERM while an evaluator has ten minutes of work before it: nothing may be lost, and it may not take long."""
    return _broken_off_evaluating(setting, run, signal.SIGTERM)


def start_twice(setting: Setting, run: pathlib.Path) -> Outcome:
    """A second start on the folder of a run at work; the first is then stopped and goes on."""
    whole, mark = setting.unbroken(), run.with_name(run.name + "_looks")
    env = {"FAULT_MARK": str(mark), "FAULT_SECONDS": "600"}
    with setting.started(setting.command(run, script=SLOW_EVALUATOR), env=env) as (child, said):
        if not wait_for(child, mark.exists):
            return Outcome("the first ended at once", faults=(said()[-300:],))
        code, refusal = setting.finished(setting.command(run))
        faults = ended_well(code, refusal, (2,), f"is being trained by process {child.pid} on {socket.gethostname()}")
        stop(child, signal.SIGTERM)
        faults += ended_well(child.returncode, said(), (1,), "stopped by SIGTERM")
    mark.unlink()
    return Outcome("the second refused", faults=(*faults, *resumed(setting, run, whole)))


def damaged_checkpoint(setting: Setting, run: pathlib.Path) -> Outcome:
    """One file of the newest checkpoint flipped, cut short or deleted."""
    whole, draw = setting.unbroken(), setting.draw
    _broken_off_evaluating(setting, run, signal.SIGTERM, resume=False)
    newest = run / "checkpoints" / str(kept(run)[-1])
    file = draw.choice(sorted(path for path in newest.rglob("*") if path.is_file()))
    harm = harm_file(file, draw)
    code, said = setting.finished(setting.command(run))
    if code == 0:
        faults = ended_well(code, said, (0,)) + differences(whole, run)
        return Outcome("made no difference", faults=tuple(f"{harm} {file.name}: {fault}" for fault in faults))
    faults = ended_well(code, said, (1,), str(newest), "delete that folder to go on from the one before it")
    shutil.rmtree(newest)
    faults += resumed(setting, run, whole)
    return Outcome("refused", faults=tuple(f"{harm} {file.name}: {fault}" for fault in faults))


def damaged_data(setting: Setting, run: pathlib.Path) -> Outcome:
    """A shard of the prepared data flipped or cut short in the middle of a run that reads it."""
    feeding, draw = setting.draw.choice(("resident", "stream")), setting.draw
    whole = setting.unbroken(f"--config.data.feeding={feeding}")
    data = run.with_name(run.name + "_data")
    shutil.copytree(setting.folder / "data", data)
    changed = (f"--config.data.feeding={feeding}", f"--config.data.data_dir={data}")
    words = setting.command(run, *changed)
    _broken_off_evaluating(setting, run, signal.SIGTERM, *changed, resume=False)
    before = kept(run)
    file = max(data.rglob("*train.array_record*"), key=lambda path: path.stat().st_size)
    whole_file = file.read_bytes()
    harm = harm_file(file, draw, ("flipped", "truncated"))
    code, said = setting.finished(words)
    faults = [] if code == 0 else ended_well(code, said, (1, 2), str(data))
    faults += [f"checkpoints {before} became {kept(run)}"] * (code != 0 and not set(before) <= set(kept(run)))
    if code:
        file.write_bytes(whole_file)
        faults += resumed(setting, run, whole, words)
    else:
        # A flipped pixel may decode: what trained on it is another run, which no checkpoint can know.
        faults += [] if harm == "flipped" else [f"{harm}, and nothing was said"]
    shutil.rmtree(data)
    happened = f"{feeding}, {harm}: {'refused' if code else 'read as it was'}"
    return Outcome(happened, faults=tuple(faults))


def kill_preparing(setting: Setting, run: pathlib.Path) -> Outcome:
    """SIGKILL while the data set is made, then the same command."""
    whole = setting.unbroken()
    data = run.with_name(run.name + "_data")
    words = setting.command(run, f"--config.data.data_dir={data}")
    delay = setting.draw.random() * 0.5
    with setting.started(words) as (child, _):
        hit = wait_for(child, lambda: any(data.glob(".preparing-*")) or any(data.glob("*")))
        time.sleep(delay)
        stop(child, signal.SIGKILL)
    made = any(path.name == "dataset_info.json" and ".preparing" not in str(path) for path in data.rglob("*.json"))
    faults = resumed(setting, run, whole, words)
    shutil.rmtree(data)
    return Outcome("hit after the move" if made else "hit at work" if hit else "missed", faults=tuple(faults))


def clock_jumps(setting: Setting, run: pathlib.Path) -> Outcome:
    """The wall clock jumps, by a second to eleven days, hundreds of times, and the run is killed in between."""

    words = setting.command(run, script=JUMPING_CLOCK)
    goal = setting.draw.randint(1, STEPS - 4)
    env = {"FAULT_SEED": str(setting.draw.randrange(10**6))}
    return broken_off(setting, run, lambda: logged(run) >= goal, signal.SIGKILL, words=words, env=env)


def harm_file(file: pathlib.Path, draw, harms: tuple[str, ...] = ("flipped", "truncated", "deleted")) -> str:
    """Flips a bit of a file, cuts it short anywhere, or deletes it; returns which."""
    harm, content = draw.choice(harms), bytearray(file.read_bytes())
    if harm == "deleted":
        file.unlink()
        return harm
    place = draw.randrange(len(content))
    if harm == "flipped":
        content[place] ^= 1 << draw.randrange(8)
    file.write_bytes(content if harm == "flipped" else content[:place])
    return harm


def broken_off(setting, run, condition, number, *, words=None, env=None, resume=True, within_seconds=0.03) -> Outcome:
    """Breaks a run off by a signal once a condition holds, a kill a little later, and goes on with the same command."""
    whole = setting.unbroken()
    words = words or setting.command(run)
    with setting.started(words, env=env) as (child, said):
        hit = wait_for(child, condition)
        if number == signal.SIGKILL:
            time.sleep(setting.draw.random() * within_seconds)
        seconds = stop(child, number)
        code, told = child.returncode, said()
    steps, saved = logged(run), kept(run)
    if not hit or code == 0:
        faults = ended_well(code, told, (0,))
        return Outcome("ended before it", faults=(*faults, *(differences(whole, run) if resume else ())))
    lost = steps - max(saved, default=0)
    faults = []
    if number == signal.SIGTERM:
        faults = ended_well(code, told, (1,), "stopped by SIGTERM at step", "the same command goes on from there")
        faults += [f"{lost} steps lost"] * (lost > 0) + [f"took {seconds:.0f} s"] * (seconds > STOP_SECONDS)
    # A save is written behind the steps that follow it, so a kill may cost the one under way as well.
    faults += [f"{lost} steps lost"] * (lost > 2 * EVERY_STEPS)
    if resume:
        faults += resumed(setting, run, whole, words, env)
    return Outcome(f"hit by {number.name}", max(lost, 0), tuple(faults), seconds)


def _broken_off_evaluating(setting, run, number, *overrides, resume=True) -> Outcome:
    mark = run.with_name(run.name + "_looks")
    words = setting.command(run, *overrides, script=SLOW_EVALUATOR)
    env = {"FAULT_MARK": str(mark), "FAULT_SECONDS": "600"}
    outcome = broken_off(setting, run, mark.exists, number, words=words, env=env, resume=False, within_seconds=2.0)
    mark.unlink(missing_ok=True)
    faults = list(outcome.faults)
    if resume:
        faults += resumed(setting, run, setting.unbroken(*overrides), setting.command(run, *overrides))
    return dataclasses.replace(outcome, faults=tuple(faults))


def resumed(setting, run, whole, words=None, env=None) -> list[str]:
    code, said = setting.finished(words or setting.command(run), env=env)
    return ended_well(code, said, (0,)) or differences(whole, run)
