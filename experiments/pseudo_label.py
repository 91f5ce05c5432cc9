"""Self-training: a classifier labels images that have no label, and is trained again on those it is sure of.

    python -m experiments.pseudo_label --run=runs/tiny11 --config=configs/pseudo_label_tiny11.py --workdir=runs/ten \\
        --config.data.labels.per_class=10

Round 0 trains on the labelled images alone. Each later round begins again from the pre-trained encoder, with what the
round before predicted confidently beside the true labels. The unlabelled images are another split or data set, or the
rest of the training split, whose own labels then only say how often the kept guesses are right; no training sees them.
A round is a run of its own, `round_0` and so on below the run folder; the same command goes on where it stopped.
`summary.json` has each round's numbers, `guesses_1.npz` and so on which images were kept, under which labels.
"""

import numpy as np

from experiments import command, launch, transfer
from ssl_jax import build, self_training
from ssl_jax.types import UsageError


def main(arguments):
    """Runs the rounds and prints what they found."""
    if launch.PROCESSES.value != 1:
        raise UsageError("experiments.pseudo_label runs in one process, with all of its devices")
    config, folder = transfer.resolve(arguments, script="pseudo_label")
    print("\n" + launch.table(self_training.rounds(folder, config, labelled_rows(config), launch.fit)))


def labelled_rows(config):
    """Rows of the unlabelled set that are labelled training images, int64, however its split is written.

    Raises:
        UsageError: for a config without what self-training needs, or unlabelled images that are tested on.
    """
    if "self_training" not in config or not config["self_training"] or "unlabelled" not in config["self_training"]:
        raise UsageError("experiments.pseudo_label needs a config with a section self_training")
    if "labels" not in config["data"] or not config["data"]["labels"]:
        raise UsageError("experiments.pseudo_label needs a config with a section data.labels")
    train = transfer.records_of(config["data"], "config.data")
    unlabelled = transfer.records_of(config["self_training"]["unlabelled"], "config.self_training.unlabelled")
    for path, examples in transfer.tested_on(config):
        transfer.refuse_overlap(unlabelled, "guesses at", transfer.records_of(examples, path))
    subset = build.section(config["data"]["labels"], "config.data.labels")
    labelled = train.records()[subset.draw(train.labels(), train.class_names)]
    return np.flatnonzero(np.isin(unlabelled.records(), labelled))


if __name__ == "__main__":
    command.run(main)
