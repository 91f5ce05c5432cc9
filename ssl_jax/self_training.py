"""Rounds of learning from one's own predictions: which images get which labels, and how often that is right."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ssl_jax import build, classifier, fingerprint, log, loop, metrics, run_folder, types
from ssl_jax.analysis import confidence


@dataclasses.dataclass(frozen=True)
class SelfTraining:
    """The section `self_training` of a config.

    Attributes:
        rounds: how often predictions become labels, after a first round on true labels alone.
        keep: which predictions do.
        unlabelled: the images; their own labels, if there are any, are only compared with.

    Raises:
        UsageError: for no rounds.
    """

    rounds: int
    keep: confidence.Rule
    unlabelled: types.Examples

    def __post_init__(self):
        if self.rounds < 1:
            raise types.UsageError(f"rounds={self.rounds}: self-training takes at least 1")


@dataclasses.dataclass(frozen=True)
class Guesses:
    """Predictions that were kept.

    Attributes:
        rows: int64 [n], positions in the unlabelled set, ascending.
        labels: int32 [n], the predicted classes.
        confidences: float32 [n], their probabilities.
        candidates: how many images there were to choose from.
        precision: share of the kept whose true label is the predicted one, over those whose true label is known; None
            where none is.
        accuracy: the same over all candidates.
    """

    rows: np.ndarray
    labels: np.ndarray
    confidences: np.ndarray
    candidates: int
    precision: float | None
    accuracy: float | None

    @property
    def sha256(self) -> str:
        """The hash that `data.feed.Guesses` expects."""
        return fingerprint.sha256({"rows": self.rows, "labels": self.labels})


def rounds(
    folder: pathlib.Path,
    config: Mapping[str, Any],
    labelled: np.ndarray,
    fit: Callable[[pathlib.Path, Mapping[str, Any]], Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Trains round after round, each a run below `folder`, and writes `summary.json` there after each.

    Args:
        folder: the run folder.
        config: without gaps, and with a section `self_training`.
        labelled: int [m], rows of the unlabelled set that have a true label in training.
        fit: (folder, config) to the summary of a finished run.

    Returns:
        A dict for each round: its number, scores, and, but for the last, what was kept of its predictions.

    Raises:
        UsageError: for a config that does not fit, a folder that holds another run or in which another process trains
            its rounds, or no images to learn from.
    """
    section = config["self_training"]
    inner = {key: value for key, value in config.items() if key != "self_training"}
    build.check(loop.fit, inner, given=("folder", "config"))
    settings = build.section(section, "config.self_training")
    if len(labelled) == settings.unlabelled.examples:  # said before a round is trained for nothing
        raise _nothing_left(len(labelled))
    with run_folder.training(folder, config):
        earlier = run_folder.read_summary(folder)
        if earlier.get("finished"):
            return earlier["rounds"]
        found: list[dict[str, Any]] = []
        kept = None
        for number in range(settings.rounds + 1):
            place = folder / f"round_{number}"
            summary = fit(place, _with_guesses(inner, section["unlabelled"], folder, number, kept))
            scores = log.scores(summary)
            found.append({"round": number})
            found[-1] |= {
                f"{name}_{key}": each[key] for name, each in scores.items() for key in ("accuracy", "macro_f1")
            }
            if number < settings.rounds:
                kept = _guesses(folder / f"guesses_{number + 1}.npz", place, settings, number + 1, labelled)
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


def _guesses(file, run, settings, round_, labelled):
    """The guesses that a finished round makes; once written they stand, as a round may have begun on them."""
    if file.is_file():
        with np.load(file, allow_pickle=False) as archive:
            stored = {name: archive[name] for name in archive.files}
        known = {name: None if np.isnan(stored[name]) else float(stored[name]) for name in ("precision", "accuracy")}
        arrays = {name: stored[name] for name in ("rows", "labels", "confidences")}
        return Guesses(**arrays, candidates=int(stored["candidates"]), **known)
    trained = classifier.load(run)
    kept = guess(trained.probabilities, settings, round_=round_, labelled=labelled, class_names=trained.class_names)
    facts = {
        name: np.float64(np.nan if (v := getattr(kept, name)) is None else v) for name in ("precision", "accuracy")
    }
    arrays = {name: getattr(kept, name) for name in ("rows", "labels", "confidences")}
    log.replace(file, {**arrays, **facts, "candidates": np.int64(kept.candidates)})
    return kept


def _with_guesses(config, unlabelled, folder, number, kept):
    if number == 0:
        return config
    place = {key: unlabelled[key] for key in ("name", "split", "data_dir") if key in unlabelled}
    file = str(folder / f"guesses_{number}.npz")
    guesses = {"type": "data.feed.Guesses", "file": file, "sha256": kept.sha256, **place}
    return {**config, "data": {**config["data"], "guesses": guesses}}


def guess(
    probabilities: Callable[[np.ndarray], np.ndarray],
    settings: SelfTraining,
    *,
    round_: int,
    labelled: np.ndarray,
    class_names: Sequence[str],
) -> Guesses:
    """One pass over the unlabelled images, and what is kept of it.

    Args:
        probabilities: uint8 [b, h, w, c] to float32 [b, k].
        settings: see above.
        round_: which round the guesses are for, from 1.
        labelled: int [m], positions of the unlabelled set that have a true label in training: no candidates.
        class_names: the classifier's; true labels are compared where the unlabelled set has the same.

    Raises:
        UsageError: nothing is left to label, or the rule keeps nothing.
    """
    predicted, truth = metrics.collect(probabilities, settings.unlabelled.batches())
    candidates = np.setdiff1d(np.arange(len(truth)), labelled)
    if not len(candidates):
        raise _nothing_left(len(truth))
    chosen = settings.keep.keep(predicted[candidates], round_)
    if not len(chosen):
        raise types.UsageError(
            f"round {round_} is sure of none of {len(candidates)} images (the surest at "
            f"{predicted[candidates].max():.3f}): loosen config.self_training.keep"
        )
    rows = candidates[chosen]
    guesses = predicted.argmax(axis=1).astype(np.int32)
    known = truth >= 0
    if tuple(settings.unlabelled.class_names) != tuple(class_names):
        known = np.zeros_like(known)
    right = guesses == truth
    return Guesses(
        rows=rows.astype(np.int64),
        labels=guesses[rows],
        confidences=predicted.max(axis=1)[rows].astype(np.float32),
        candidates=len(candidates),
        precision=_share(right[rows], known[rows]),
        accuracy=_share(right[candidates], known[candidates]),
    )


def _nothing_left(images):
    return types.UsageError(
        f"all {images} images are labelled, so none is left to guess at: lower config.data.labels.per_class or share, "
        "or name other images in config.self_training.unlabelled"
    )


def _share(right, known):
    return float(np.mean(right[known])) if known.any() else None
