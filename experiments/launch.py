"""What the scripts that train share: their flags, and the way from a finished config to a finished run."""

import pathlib
from collections.abc import Mapping
from typing import Any

from absl import flags

from experiments import command, config_flag
from ssl_jax import build, log, loop, mesh
from ssl_jax.types import UsageError

CONFIG = config_flag.define_config("The experiment, such as configs/simsiam_digits.py.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run folder; holding an unfinished run of this config, it goes on.")
COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of process 0, where JAX cannot find it by itself.")
PROCESSES = flags.DEFINE_integer(
    "processes", 1, "How many processes train together; 0: JAX finds out (Slurm, TPU).", lower_bound=0
)
PROCESS = flags.DEFINE_integer("process", -1, "Which of them this is, from 0; -1: JAX finds out.")
WANDB = flags.DEFINE_enum("wandb", "off", ["off", "offline", "online"], "Also write to Weights & Biases.")


def config_and_folder(arguments: list[str], example: str) -> tuple[dict[str, Any], pathlib.Path]:
    """The config as the flags leave it and the run folder; joins the other processes if there are any.

    Raises:
        UsageError: for a stray word, a flag that is missing, or processes that cannot come together.
    """
    command.refuse_stray_words(arguments)
    if not CONFIG.value or not WORKDIR.value:
        raise UsageError(f"needs --config and --workdir, then any --config.key=value: {example}")
    config = build.normalised(command.config_of(CONFIG))
    if WANDB.value != "off":
        wandb = {"wandb": {"type": "writers.weights_and_biases.WandB", "mode": WANDB.value}}
        config["writers"] = wandb | (config["writers"] if "writers" in config else {}) | wandb
    if PROCESSES.value != 1:
        mesh.join_processes(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    elif COORDINATOR.value or PROCESS.value >= 0:
        raise UsageError("--coordinator and --process need --processes=N, the same in every process")
    return config, pathlib.Path(WORKDIR.value)


def fit(folder: pathlib.Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Trains what the config says in `folder`, or goes on with it; returns its summary and prints what it found."""
    summary = loop.fit(folder=folder, config=config, **build.arguments(loop.fit, config, given=("folder", "config")))
    if summary and mesh.is_first_process():
        for table in (log.format_table(summary), log.format_scores(summary)):
            if table:
                print(f"\n{table}")
        page = f"; {folder / 'report.html'} has every picture" if (folder / "report.html").is_file() else ""
        print(f"\n{folder} is finished at step {summary['step']}; {folder / 'summary.json'} has every number{page}")
    return summary


def table(rows: list[Mapping[str, Any]]) -> str:
    """Rows by column name as plain text; what a row lacks is `-`, a number with a point has three digits after it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return log.aligned([names] + [[_cell(row[name]) if name in row else "-" for name in names] for row in rows])


def _cell(value):
    if value is None:
        return "unknown"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
