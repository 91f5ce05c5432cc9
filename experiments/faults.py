"""Does a night's work survive the machine? Breaks small real runs off in every way, starts them again and compares.

    python -m experiments.faults --out=runs/faults [--trials=20] [--only=kill_saving,stop_evaluating] [--seed=0]

Every trial trains some digits in processes of its own, below --out. It passes if the run that was broken off ends as
one that nothing befell: parameters bit for bit, every step logged once, the same best checkpoint; if what was lost are
the steps since a save; and if all that was said was one line. `faults.json` has every trial, those of earlier calls on
the same folder too, as the table that is printed.
Exit codes: 0 all passed, 1 some did not, 2 a usage error.
"""

import dataclasses
import json
import pathlib
import random
import shutil
from collections.abc import Mapping, Sequence

from absl import flags

from experiments import command, fault_surroundings, fault_trials
from experiments.fault_runs import Outcome, Setting
from ssl_jax import log
from ssl_jax.types import RunError, UsageError

OUT = flags.DEFINE_string("out", "", "Folder of the trials; new, or one of an earlier call, whose programs are used.")
TRIALS = flags.DEFINE_integer("trials", 20, "How many trials of each fault.", lower_bound=1)
ONLY = flags.DEFINE_list("only", [], "Faults to try, all by default.")
SEED = flags.DEFINE_integer("seed", 0, "Of the moments, files and sizes.", lower_bound=0)

FAULTS: Mapping[str, fault_trials.Trial] = {
    trial.__name__: trial
    for trial in (
        fault_trials.kill_training,
        fault_trials.kill_saving,
        fault_trials.kill_evaluating,
        fault_trials.kill_starting,
        fault_trials.kill_preparing,
        fault_surroundings.kill_one_process,
        fault_trials.stop_training,
        fault_trials.stop_saving,
        fault_trials.stop_evaluating,
        fault_trials.start_twice,
        fault_trials.damaged_checkpoint,
        fault_trials.damaged_data,
        fault_surroundings.full_disk,
        fault_surroundings.full_disk_preparing,
        fault_surroundings.failing_disk,
        fault_trials.clock_jumps,
        fault_surroundings.wandb_unreachable,
        fault_surroundings.wandb_hanging,
    )
}


def main(arguments):
    """Runs the trials, prints the table and leaves with 1 if one failed."""
    command.refuse_stray_words(arguments)
    names = ONLY.value or list(FAULTS)
    unknown = [name for name in names if name not in FAULTS]
    if unknown or not OUT.value:
        raise UsageError(f"needs --out=FOLDER; --only takes {', '.join(FAULTS)}" + f", not {unknown}" * bool(unknown))
    folder = pathlib.Path(OUT.value).absolute()
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "config.py").is_file():
        raise UsageError(f"--out={folder} is not empty and holds no trials: give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "faults.json"
    found = read(file)
    for name in names:
        found[name] = tried(name, TRIALS.value, SEED.value, folder)
        told = {name: [dataclasses.asdict(outcome) for outcome in found[name]] for name in FAULTS if name in found}
        log.replace(file, json.dumps(told, indent=1) + "\n")
    found = {name: found[name] for name in told}
    print(table(found))
    failed = sum(bool(outcome.faults) for outcomes in found.values() for outcome in outcomes)
    if failed:
        raise RunError(f"{failed} trials failed; {file} says in what, and their runs are beside it")


def read(file: pathlib.Path) -> dict[str, list[Outcome]]:
    """The outcomes of earlier calls, which stand until their fault is tried again; {} without any."""
    if not file.is_file():
        return {}
    told = json.loads(file.read_text())
    return {
        name: [Outcome(**{**outcome, "faults": tuple(outcome["faults"])}) for outcome in outcomes]
        for name, outcomes in told.items()
        if name in FAULTS
    }


def tried(name: str, trials: int, seed: int, folder: pathlib.Path) -> list[Outcome]:
    """The outcomes of some trials of one fault; the folders of those that passed are removed."""
    outcomes = []
    for trial in range(trials):
        # Text, because the hash of a tuple differs from one Python to the next.
        setting = Setting(folder, random.Random(f"{seed}/{name}/{trial}"))
        run = folder / f"{name}_{seed}_{trial}"
        for left in folder.glob(f"{run.name}*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        outcome = FAULTS[name](setting, run)
        outcomes.append(outcome)
        print(
            f"{name} {trial + 1}/{trials}: {outcome.happened}{''.join(f'; {fault}' for fault in outcome.faults)}",
            flush=True,
        )
        if not outcome.faults:
            shutil.rmtree(run, ignore_errors=True)
    return outcomes


def table(found: Mapping[str, Sequence[Outcome]]) -> str:
    """The outcomes in Markdown, a row for each fault."""
    rows = [
        "| fault | trials | what happened | most steps lost | longest, s | as if unbroken |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, outcomes in found.items():
        happened = [outcome.happened for outcome in outcomes]
        words = "; ".join(f"{text} ({happened.count(text)})" for text in dict.fromkeys(happened))
        lost = max((outcome.lost for outcome in outcomes if outcome.lost is not None), default="-")
        seconds = max((outcome.seconds for outcome in outcomes if outcome.seconds is not None), default=None)
        longest = "-" if seconds is None else f"{seconds:.1f}"
        passed = sum(not outcome.faults for outcome in outcomes)
        rows.append(f"| {name} | {len(outcomes)} | {words} | {lost} | {longest} | {passed} of {len(outcomes)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    command.run(main)
