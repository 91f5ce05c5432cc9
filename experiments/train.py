"""Trains the experiment that a config describes; the same command on the same folder goes on where it stopped.

    python -m experiments.train --config=configs/simsiam_digits.py --workdir=runs/digits [--config.data.batch_size=128]

Durations are steps (5000) or text: "800 epochs", "25 Mimages", "5 %" of the whole. `--wandb=offline` or
`--wandb=online` adds Weights & Biases, `--processes` joins several processes. Exit codes: 0 done, 2 a usage or config
error, 1 anything else.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from experiments import command
from ssl_jax import build, log, loop, mesh
from ssl_jax.types import UsageError

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, such as configs/simsiam_digits.py.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run folder; holding an unfinished run of this config, it goes on.")
COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of process 0, where JAX cannot find it by itself.")
PROCESSES = flags.DEFINE_integer(
    "processes", 1, "How many processes train together; 0: JAX finds out (Slurm, TPU).", lower_bound=0
)
PROCESS = flags.DEFINE_integer("process", -1, "Which of them this is, from 0; -1: JAX finds out.")
WANDB = flags.DEFINE_enum("wandb", "off", ["off", "offline", "online"], "Also write to Weights & Biases.")


def main(arguments):
    """Builds what the config names and trains."""
    command.refuse_stray_words(arguments)
    if not CONFIG.value or not WORKDIR.value:
        raise UsageError(
            "experiments.train needs --config=configs/NAME.py and --workdir=runs/NAME, then any --config.key=value"
        )
    config = build.normalised(command.config_of(CONFIG))
    if WANDB.value != "off":
        wandb = {"wandb": {"type": "writers.weights_and_biases.WandB", "mode": WANDB.value}}
        config["writers"] = wandb | (config["writers"] if "writers" in config else {}) | wandb
    if PROCESSES.value != 1:
        mesh.join_processes(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    elif COORDINATOR.value or PROCESS.value >= 0:
        raise UsageError("--coordinator and --process need --processes=N, the same in every process")
    folder = pathlib.Path(WORKDIR.value)
    summary = loop.fit(folder=folder, config=config, **build.arguments(loop.fit, config, given=("folder", "config")))
    if summary and mesh.is_first_process():
        if table := log.format_table(summary):
            print(f"\n{table}\n")
        page = f"; {folder / 'report.html'} has every picture" if (folder / "report.html").is_file() else ""
        print(f"{folder} is finished at step {summary['step']}; {folder / 'summary.json'} has every number{page}")


if __name__ == "__main__":
    command.run(main)
