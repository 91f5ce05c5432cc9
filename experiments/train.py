"""Trains the experiment that a config describes; the same command on the same folder goes on where it stopped.

    python -m experiments.train --config=configs/simsiam_digits.py --workdir=runs/digits [--config.data.batch_size=128]

Durations are steps (5000) or text: "800 epochs", "25 Mimages", "5 %" of the whole. `--wandb=offline` or
`--wandb=online` adds Weights & Biases, `--processes` joins several processes. Exit codes: 0 done, 2 a usage or config
error, 1 anything else.
"""

from experiments import command, launch


def main(arguments):
    """Builds what the config names and trains."""
    example = "python -m experiments.train --config=configs/NAME.py --workdir=runs/NAME"
    config, folder = launch.config_and_folder(arguments, example)
    launch.fit(folder, config)


if __name__ == "__main__":
    command.run(main)
