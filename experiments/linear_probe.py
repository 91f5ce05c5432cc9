"""Linear evaluation of a pre-trained encoder: its weights stay as they are, one linear layer is trained on them.

    python -m experiments.linear_probe --run=runs/tiny11 --config=configs/probe_tiny11.py --workdir=runs/tiny11_probe

`--run` is a run folder or a file that experiments.export wrote; `--checkpoint=best` takes the best checkpoint instead
of the last. The architecture and the normalisation come from there; the config says the rest. Configs that end in
`:fast` train a whole grid of settings at once on cached features. The same command on the same folder goes on where it
stopped.
"""

from experiments import command, launch, transfer


def main(arguments):
    """Fills the config from the run and trains."""
    config, folder = transfer.resolve(arguments, script="linear_probe", train="head")
    launch.fit(folder, config)


if __name__ == "__main__":
    command.run(main)
