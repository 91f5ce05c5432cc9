"""Self-training: a classifier labels images that have no label, and is trained again on those it is sure of.

    python -m experiments.pseudo_label --run=runs/tiny11 --config=configs/pseudo_label_tiny11.py --workdir=runs/pseudo

Round 0 trains on the labelled images alone. Each later round begins again from the pre-trained encoder, with what the
round before predicted confidently beside the true labels. The unlabelled images are another split or data set, or the
rest of the training split, whose own labels then only say how often the kept guesses are right; no training sees them.
A round is a run of its own, `round_0` and so on below the run folder; the same command goes on where it stopped.
`summary.json` has each round's numbers, `guesses_1.npz` and so on which images were kept, under which labels.
"""

import json

import numpy as np

from experiments import command, launch, transfer
from ssl_jax import build, classifier, log, loop, self_training
from ssl_jax.types import UsageError


def main(arguments):
    """Runs the rounds and prints what they found."""
    config, folder = transfer.resolve(arguments, script="pseudo_label")
    if launch.PROCESSES.value != 1:
        raise UsageError("experiments.pseudo_label runs in one process, with all of its devices")
    print("\n" + launch.table(rounds(folder, config, launch.fit)))


def rounds(folder, config, fit):
    """Trains round after round, and writes `summary.json` after each.

    Args:
        folder: the run folder, with a run in it for every round.
        config: without gaps, and with a section `self_training`.
        fit: (folder, config) to the summary of a finished run.

    Returns:
        A dict for each round: its number, scores, and, but for the last, what was kept of its predictions.
    """
    if "self_training" not in config:
        raise UsageError("experiments.pseudo_label needs a config with a section self_training")
    section = config["self_training"]
    config = {key: value for key, value in config.items() if key != "self_training"}
    build.check(loop.fit, config, given=("folder", "config"))
    settings = build.section(section, "config.self_training")
    labelled = _labelled(config["data"], section["unlabelled"], settings)
    loop.claim(folder, {**config, "self_training": section})
    found = []
    for number in range(settings.rounds + 1):
        place = folder / f"round_{number}"
        summary = fit(place, _with_guesses(config, section["unlabelled"], folder, number))
        found.append({"round": number, **_scores(summary)})
        if number < settings.rounds:
            trained = classifier.load(place)
            kept = self_training.guess(
                trained.probabilities,
                settings,
                round_=number + 1,
                labelled=labelled,
                class_names=trained.class_names,
            )
            log.replace(
                folder / f"guesses_{number + 1}.npz",
                {"rows": kept.rows, "labels": kept.labels, "confidences": kept.confidences},
            )
            found[-1] |= {
                "kept": len(kept.rows),
                "of": kept.candidates,
                "kept_precision": kept.precision,
                "unlabelled_accuracy": kept.accuracy,
            }
        finished = number == settings.rounds
        told = {**(summary if finished else {}), "finished": finished, "rounds": found}
        log.replace(folder / "summary.json", json.dumps(log.plain(told), indent=2))
    return found


def _labelled(data, unlabelled, settings):
    """Rows of the unlabelled set that are labelled training images: none where it is another set."""
    place = ("name", "split", "data_dir")
    if any(data[key] != unlabelled[key] for key in place):
        return np.zeros(0, np.int64)
    chosen = build.section(data["labels"], "config.data.labels")
    return chosen.draw(settings.unlabelled.labels(), data["class_names"])


def _with_guesses(config, unlabelled, folder, number):
    if number == 0:
        return config
    place = {key: unlabelled[key] for key in ("name", "split", "data_dir")}
    guesses = {"type": "data.feed.Guesses", "file": str(folder / f"guesses_{number}.npz"), **place}
    return {**config, "data": {**config["data"], "guesses": guesses}}


def _scores(summary):
    return {
        f"{name}_{key}": found[key] for name, found in log.scores(summary).items() for key in ("accuracy", "macro_f1")
    }


if __name__ == "__main__":
    command.run(main)
