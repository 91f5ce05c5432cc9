"""What a pre-trained encoder is worth with few labels: a table of ways to use it against numbers of labels.

    python -m experiments.few_labels --run=runs/tiny11 --set=tiny11 --out=runs/tiny11_few --labels=1,5,10,50,all \\
        --steps=300,300,300,600,2000

Ways: `probe` (configs/probe_SET.py), `finetune`, `staged` and `scratch` (configs/finetune_SET.py and its forms) and
`pseudo` (configs/pseudo_label_SET.py; not for all labels, which leave nothing to guess at). Every cell is trained
--draws times, with the draw's number as the seed of the labelled images and of the training; all ways see the same
draws. Each training is a run below --out, and the same command goes on where it stopped. The table and every accuracy
are in a JSON file there.
"""

import importlib
import itertools
import json
import math
import pathlib
import statistics

from absl import flags

from experiments import command, launch, pseudo_label, transfer
from ssl_jax import build, log, loop, pretrained, self_training
from ssl_jax.types import RunError, UsageError

FORMS = {
    "probe": ("probe", None),
    "finetune": ("finetune", None),
    "staged": ("finetune", "staged"),
    "scratch": ("finetune", "scratch"),
    "pseudo": ("pseudo_label", None),
}

SET = flags.DEFINE_string("set", "", "The ending of the configs' names, such as tiny11.")
OUT = flags.DEFINE_string("out", "", "The folder of all runs.")
LABELS = flags.DEFINE_list("labels", ["1", "5", "10", "50", "all"], "Labelled images a class.")
STEPS = flags.DEFINE_list("steps", ["300", "300", "300", "600", "2000"], "Updates of each training, for each of these.")
WAYS = flags.DEFINE_list("ways", list(FORMS), "Which ways.")
DRAWS = flags.DEFINE_integer("draws", 3, "Trainings of each cell.", lower_bound=2)
DATA_DIR = flags.DEFINE_string("data_dir", "", "Where prepared data sets lie.")


def main(arguments):
    """Trains every cell and prints the table."""
    command.refuse_stray_words(arguments)
    for flag in ("config", "workdir", "wandb", "coordinator", "processes", "process"):
        if flags.FLAGS[flag].present:
            raise UsageError(f"experiments.few_labels takes no --{flag}: --set and --out say what and where")
    if not transfer.RUN.value or not SET.value or not OUT.value:
        raise UsageError(
            "needs --run, --set and --out: "
            "python -m experiments.few_labels --run=runs/tiny11 --set=tiny11 --out=runs/tiny11_few"
        )
    _check_lists()
    network = pretrained.read(transfer.RUN.value, "encoder", which=transfer.CHECKPOINT.value)
    steps_of = dict(zip(LABELS.value, STEPS.value, strict=True))
    cells = [
        (draw, labels, way)
        for draw, labels, way in itertools.product(range(DRAWS.value), LABELS.value, WAYS.value)
        if (way, labels) != ("pseudo", "all")
    ]
    # Filled and checked before the first one trains.
    configs = {
        cell: transfer.fill(_config(cell, int(steps_of[cell[1]])), network, quiet=number > 0)
        for number, cell in enumerate(cells)
    }
    accuracies: dict[str, dict[str, list[float]]] = {}
    for (draw, labels, way), config in configs.items():
        folder = pathlib.Path(OUT.value) / way / f"labels_{labels}" / f"draw_{draw}"
        if way == "pseudo":
            found = self_training.rounds(folder, config, pseudo_label.labelled_rows(config), _fit)[-1]
            accuracy = found["test_accuracy"] if "test_accuracy" in found else math.nan
        else:
            scores = log.scores(_fit(folder, config))
            accuracy = scores["test"]["accuracy"] if "test" in scores else math.nan
        if math.isnan(accuracy):
            raise RunError(f"{folder} has no accuracy named test: its evaluator is called otherwise, or it diverged")
        accuracies.setdefault(way, {}).setdefault(labels, []).append(accuracy)
        print(f"{way}, {labels} labels a class, draw {draw}: {accuracy:.3f}", flush=True)
    file = pathlib.Path(OUT.value) / f"few_labels_{'_'.join(accuracies)}.json"
    told = {"encoder": network.describe(), "sha256": network.sha256, "accuracies": accuracies, **log.environment()}
    log.replace(file, json.dumps(told, indent=2))
    print(f"\naccuracy, mean and standard deviation over {DRAWS.value} draws; every number: {file}\n")
    print(launch.table([_row(way, by_labels) for way, by_labels in accuracies.items()]))


def _check_lists():
    for way in WAYS.value:
        if way not in FORMS:
            raise UsageError(f"--ways={way}: the ways are {', '.join(FORMS)}")
    for text in (*LABELS.value, *STEPS.value):
        if not text.isdigit() and text != "all":
            raise UsageError(f"{text!r} in --labels or --steps is no whole number (nor, in --labels, the word all)")
    if len(LABELS.value) != len(STEPS.value) or "all" in STEPS.value:
        raise UsageError(
            f"--labels has {len(LABELS.value)} entries and --steps {len(STEPS.value)}: give one number each"
        )


def _config(cell, steps):
    draw, labels, way = cell
    stem, form = FORMS[way]
    try:
        module = importlib.import_module(f"configs.{stem}_{SET.value}")
    except ModuleNotFoundError as error:
        raise UsageError(f"--set={SET.value}: there is no configs/{stem}_{SET.value}.py") from error
    config = module.get_config(*[form] if form else [])
    config.seed, config.duration, config.data.data_dir = draw, f"{steps} steps", DATA_DIR.value
    config.data.labels.seed = draw
    config.data.labels.per_class = None if labels == "all" else int(labels)
    config.writers = {"files": {"type": "writers.files.Files"}}
    return build.normalised(config.to_dict())


def _fit(folder, config):
    return loop.fit(folder=folder, config=config, **build.arguments(loop.fit, config, given=("folder", "config")))


def _row(way, by_labels):
    cells = {}
    for labels, values in by_labels.items():
        head = f"{labels} label{'' if labels == '1' else 's'}"
        cells[head] = f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"
    return {"way": way, **cells}


if __name__ == "__main__":
    command.run(main)
