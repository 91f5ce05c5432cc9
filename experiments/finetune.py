"""Fine-tuning of a pre-trained encoder: every parameter is trained, the encoder's at a fraction of the head's rate.

    python -m experiments.finetune --run=runs/tiny11 --config=configs/finetune_tiny11.py --workdir=runs/tiny11_tuned
    python -m experiments.finetune --run=... --config=configs/finetune_tiny11.py:staged --workdir=...
    python -m experiments.finetune --run=... --config=configs/finetune_tiny11.py:scratch --workdir=...

`--run` is a run folder or a file that experiments.export wrote; `--checkpoint=best` takes the best checkpoint instead
of the last. Few labels: `--config.data.labels.per_class=10`, or `--config.data.labels.share=0.01`, and
`--config.data.labels.seed=1` for another draw; the rows drawn are in the run's arrays.npz as `data/labelled`. `:staged`
thaws the encoder stage by stage from the top; `:scratch` takes the architecture alone and begins at random. The same
command on the same folder goes on where it stopped.
"""

from experiments import command, launch, transfer


def main(arguments):
    """Fills the config from the run and trains."""
    config, folder = transfer.resolve(arguments, script="finetune", train="all")
    launch.fit(folder, config)


if __name__ == "__main__":
    command.run(main)
