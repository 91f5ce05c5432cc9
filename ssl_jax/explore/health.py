"""Whether features are any good, without labels: measures of every network of a run, and a verdict in words."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_jax import figures
from ssl_jax.analysis import agreement, spectrum
from ssl_jax.explore import blocks
from ssl_jax.explore.subject import Part, Subject, relative_spread

LEAST_DEVIATION = 0.2
"""Below it the output has collapsed; see `evaluators.collapse.Collapse`, whose alarm has the same threshold."""
LEAST_RANK = 4.0
"""Below this RankMe of the projections around their mean few directions are in use; nothing is said of fewer than 8
channels."""
LARGEST_GAP = 0.15
"""By how much less predictions may agree with the other view's projections than those do with one another."""

_SMALLEST_WIDTH = 8
_CONSTANT = 1e-6
_UNIFORMITY_ROWS = 10_000
_ROWS = {
    "width": "channels",
    "dead_channels": "dead channels",
    "deviation": "deviation",
    "rank_me": "RankMe",
    "rank_around_mean": "RankMe around the mean",
    "stable_rank": "stable rank",
    "nesum": "NESum",
    "alpha_req": "alpha-ReQ",
    "collapse_auc": "collapse AUC",
    "condition_number": "condition number",
    "uniformity": "uniformity",
    "alignment": "alignment",
    "lidar": "LiDAR",
}
_NOTE = (
    "Deviation is 1 for outputs that spread evenly and 0 for a constant. RankMe, stable rank, NESum and LiDAR count "
    "the directions in use, each in its way; LiDAR and alignment go by random views. Alpha is the decay of the "
    "spectrum, best near 1; collapse AUC is 0.5 for an even spectrum and 1 for a single direction; uniformity is "
    "lower for a more even spread, alignment 0 for views that agree. Compare these numbers between runs of one method "
    "and width only."
)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is wrong with a run, if anything.

    Attributes:
        kinds: of "full collapse", "predictor not converging" and "dimensional collapse"; () for healthy.
        sentences: what was seen and what to try, one for each; for a healthy run what speaks for it.
    """

    kinds: tuple[str, ...]
    sentences: tuple[str, ...]

    @property
    def told(self) -> str:
        """The kinds in words."""
        return " and ".join(self.kinds) or "healthy"


def measure(subject: Subject) -> dict[str, dict[str, float]]:
    """The measures of each network (of `features` where there is none).

    Returns:
        By network what `spectrum.measures` says, `rank_around_mean` (RankMe's formula on the features around their
        mean), `relative_spread` (see `subject.relative_spread`), `uniformity`, and with views `alignment` (of the first
        two) and `lidar`. Of a run with a predictor and views also `agreement`: `projections`, the mean cosine between
        two views' projections, and `predictions`, that of a prediction and the other view's projection.
    """
    found: dict[str, dict[str, float]] = {}
    for name, features in _networks(subject).items():
        found[name] = spectrum.measures(features)
        found[name]["rank_around_mean"] = spectrum.rank_me(spectrum.singular_values(features, centred=True))
        found[name]["relative_spread"] = relative_spread(features)
        found[name]["uniformity"] = agreement.uniformity(features, rows=min(_UNIFORMITY_ROWS, len(features)))
        if name in subject.views:
            views = subject.views[name]
            found[name]["alignment"] = agreement.alignment(views[:, 0], views[:, 1])
            found[name]["lidar"] = agreement.lidar(views)
    if {"projector", "predictor"} <= subject.views.keys():
        first, second = (subject.views["projector"][:, view] for view in (0, 1))
        found["agreement"] = {
            "projections": agreement.mean_cosine(first, second),
            "predictions": agreement.mean_cosine(subject.views["predictor"][:, 0], second),
        }
    return found


def judge(measures: Mapping[str, Mapping[str, float]]) -> Verdict:
    """The verdict on what `measure` found.

    Full collapse: the deviation of the projections (without a projector, of the encoder's features) is below
    `LEAST_DEVIATION`; of pixels and of features from a file, which may lie anywhere, only what is constant has
    collapsed. Predictor not converging: predictions agree by `LARGEST_GAP` less with the other view's projections than
    those do with one another; the paper's predictor at its random start does so (section 4.2 of arXiv 2011.10566), a
    trained one agrees better, for it predicts a mean over views. Dimensional collapse: the rank around the mean is
    below `LEAST_RANK` without a full collapse.
    """
    name = next(name for name in ("projector", "encoder", "features") if name in measures)
    seen = measures[name]
    kinds, sentences = [], []
    output = "the projections" if name == "projector" else "the features"
    rank = f"RankMe of {output} around their mean is {seen['rank_around_mean']:.1f} of {seen['width']:,} channels"
    full = seen["relative_spread"] <= _CONSTANT if name == "features" else seen["deviation"] < LEAST_DEVIATION
    if full:
        kinds.append("full collapse")
        sentences.append(
            f"Different images get all but the same output: the deviation of {output} is {seen['deviation']:.2g}, "
            f"where 1 is healthy.{_advice(name, 'a smaller learning rate and stronger augmentation')}"
        )
    if "agreement" in measures and not full:
        both = measures["agreement"]
        if both["predictions"] < both["projections"] - LARGEST_GAP:
            kinds.append("predictor not converging")
            sentences.append(
                f"The predictor does not predict: its output agrees with the other view's projection by a cosine of "
                f"{both['predictions']:.2f}, where the two projections agree by {both['projections']:.2f}. Check that "
                "the predictor is trained and that its learning rate is not decayed too soon."
            )
    if not full and seen["width"] >= _SMALLEST_WIDTH and seen["rank_around_mean"] < LEAST_RANK:
        kinds.append("dimensional collapse")
        sentences.append(
            f"Few directions are in use: {rank}."
            f"{_advice(name, 'stronger augmentation, a wider projector, or a batch norm after its last layer')}"
        )
    if not kinds:
        told = "" if name == "features" else f"The deviation of {output} is {seen['deviation']:.2f} of 1. "
        sentences.append(
            f"{told}{rank}; nothing here speaks of a collapse. What the features are worth for a task only labels can "
            "say."
        )
    return Verdict(tuple(kinds), tuple(sentences))


def _advice(name: str, then: str) -> str:
    if name != "projector":
        return ""
    return f" Check that the stop-gradient and the predictor are in place and trained; then try {then}."


def _networks(subject: Subject) -> Mapping[str, np.ndarray]:
    return subject.stages or {"features": subject.features}


def part(subject: Subject) -> Part:
    """The verdict, a table of measures and the spectra.

    Metrics: `verdict`, `sentences`, and by network what `measure` says, infinities as None.
    """
    found = measure(subject)
    verdict = judge(found)
    measured = {name: values for name, values in found.items() if name != "agreement"}
    rows = [
        [told, *(values.get(key) for values in measured.values())]
        for key, told in _ROWS.items()
        if any(key in values for values in measured.values())
    ]
    html = (
        f'<div class="verdict{" bad" if verdict.kinds else ""}"><p><strong>{blocks.text(verdict.told.capitalize())}.'
        f"</strong> {blocks.text(' '.join(verdict.sentences))}</p></div>" + blocks.table(["", *measured], rows, _NOTE)
    )
    if "agreement" in found:
        html += (
            f'<p class="soft">Mean cosine between the projections of two views {found["agreement"]["projections"]:.3f},'
            f" between a prediction and the other view's projection {found['agreement']['predictions']:.3f}.</p>"
        )
    drawn = figures.lines(
        {name: _spectrum(features) for name, features in _networks(subject).items()},
        label="Singular values of the features around their mean, over the largest",
        x_label="singular value",
        y_label="over the largest",
        log_x=True,
        log_y=True,
    )
    html += blocks.panel(
        drawn, "Singular values around the mean over the largest; a cliff is a collapse of dimensions."
    )
    line = f"verdict: {verdict.told}. {' '.join(verdict.sentences)}"
    metrics: dict[str, Any] = {"verdict": verdict.told, "sentences": verdict.sentences, **found}
    return Part(html, {"spectrum.png": drawn.png}, metrics, (line,))


def _spectrum(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = spectrum.singular_values(features, centred=True)
    largest = values[0] if values[0] > 0 else math.nan
    return np.arange(1, len(values) + 1), values / largest
