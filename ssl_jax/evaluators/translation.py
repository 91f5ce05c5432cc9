"""A translator between two domains under way: what becomes of the same images, and which known way it goes wrong."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from ssl_jax import metrics, sheet, types
from ssl_jax.analysis import generative, translation

_HERE = "evaluators.translation.Translation"
_DIRECTIONS = (("a", "b"), ("b", "a"))
_EXPORTS = (
    *("translate_ab", "translate_ba", "reconstruct_a", "reconstruct_b"),
    *("discriminate_a", "discriminate_b"),
)
_FEWEST = 10
_UNRELATED = 0.2
"""Tones that are drawn anew, as of a photograph from a label map, correlate with the input's this weakly by chance."""
_COPY = 0.1
"""Of photographs two unrelated ones differ by about 0.25, so this is 6 of 255 grey levels: less than snow or a zebra's
stripes, and about what a generator loses by being one."""
_GRID_FLOOR = 4e-4
"""A checkerboard of a fiftieth of the pictures' contrast, which nobody sees; photographs of 128 pixels have as much."""
_GRID_TIMES = 10.0
"""Ten times the floor is a checkerboard of 5 grey levels up and down on a photograph, where eyes begin to see one."""
_ONE_PICTURE = 0.25
"""Two pictures made equally often have half the distance of real ones, one with variations of its own hardly any."""


@dataclasses.dataclass(frozen=True)
class Translation:
    """The same images of two domains translated and brought back, as pictures, numbers, and alarms in words.

    Scalars, over `images` images of each domain; pixels are rounded to bytes, as they would be saved, and in [0, 1]:
    - `reconstruction_a`, `reconstruction_b`: the mean absolute difference between images and their way there and back;
    - `change_ab`, `change_ba`: the same between images and translations, where the domains have equally many channels;
    - `identity_a`, `identity_b`: the same between images and what the generator that makes their own domain makes of
      them, likewise; 0 for one that leaves alone what needs no change;
    - `correlation_ab`, `correlation_ba`: whether light stays light, in [-1, 1], see
      `analysis.translation.luminance_correlation`;
    - `checkerboard_ab`, `checkerboard_ba`: how much of the translations' contrast repeats every two pixels, over what
      real images of the target domain have of it, taken as at least 0.0004; about 1 for a good translator;
    - `separability_a`, `separability_b`: how often the domain's discriminator ranks a real image above a translation,
      0.5 where it cannot tell them; a mean over many patches often ranks all of them rightly;
    - `margin_a`, `margin_b`: how far its mean logits of real images and of translations lie apart, in standard
      deviations within either;
    - `diversity_ab`, `diversity_ba`: the mean distance between two translations over that between two real images of
      the target domain; near 0 where every image becomes the same one.

    The pictures `a_to_b` and `b_to_a` have a row for each of the same images: the image, its translation, the way back,
    and its identity as above. Channels that make no colours are shown as their mean.

    Alarms, for each direction by itself, from step `alarms_after` on and never before the first update: light that
    becomes dark (or stays light where it should not), translations that are copies, that have a checkerboard, or that
    are all one picture, and a discriminator that has won. Numbers that are not finite are said at any step, and give no
    scalars.

    Attributes:
        a, b: images of the two domains; labels are not looked at.
        preprocess: uint8 images of either domain to what the generators take, in [-1, 1].
        images: how many of each to look at, evenly spread over the set.
        grid: rows of a picture.
        batch_size: images asked for at once.
        alarms_after: steps that a run is given to get going.
        polarity: whether light should stay light ("same") or become dark ("opposite"); "auto" judges by the images, see
            `analysis.translation.expected_polarity`.
        won_above: the margin from which a discriminator is said to have won, as good runs touch 8 at times; None never
            says it.
        identity: whether to look at it, where the channels allow.

    Raises:
        UsageError: for fewer than 10 images, an empty grid or batch, or another polarity; when called, for a method
            that does not translate, or translations of another size than their images.
    """

    a: types.Examples
    b: types.Examples
    preprocess: Callable
    images: int = 64
    grid: int = 8
    batch_size: int = 16
    alarms_after: types.Steps = 0
    polarity: Literal["auto", "same", "opposite"] = "auto"
    won_above: float | None = 10.0
    identity: bool = True

    def __post_init__(self):
        if min(self.grid, self.batch_size) < 1 or self.alarms_after < 0:
            raise types.UsageError(
                f"{_HERE}: grid={self.grid} and batch_size={self.batch_size} must be at least 1, "
                f"alarms_after={self.alarms_after} at least 0"
            )
        if self.polarity not in ("auto", "same", "opposite"):
            raise types.UsageError(f"{_HERE}: polarity={self.polarity!r}; it is 'auto', 'same' or 'opposite'")
        for name, examples in (("a", self.a), ("b", self.b)):
            if min(self.images, examples.examples) < _FEWEST:
                raise types.UsageError(
                    f"{_HERE}: images={self.images} of {examples.examples} in {name}; it takes at least {_FEWEST}"
                )

    def __call__(
        self,
        exports: Mapping[str, Callable[..., np.ndarray]],
        state: types.TrainState,
        untrained: Callable[[], types.TrainState],
    ) -> types.Report:
        """Scalars, pictures and alarms, as the class says."""
        if not exports.keys() >= set(_EXPORTS):
            raise types.UsageError(f"{_HERE}: this method does not translate; it has {', '.join(sorted(exports))}")

        def ask(export, inputs, preprocess=self.preprocess):
            return self._in_batches(lambda some: exports[export](state, some, preprocess), inputs)

        given = {"a": self._chosen(self.a), "b": self._chosen(self.b)}
        alike = given["a"].shape[-1] == given["b"].shape[-1]
        made = {}
        for one, other in _DIRECTIONS:
            made[f"{one}{other}"] = ask(f"translate_{one}{other}", given[one])
            made[f"back_{one}"] = ask(f"reconstruct_{one}", given[one])
            if self.identity and alike:
                made[f"own_{one}"] = ask(f"translate_{other}{one}", given[one])
        finite = np.concatenate([np.isfinite(images).reshape(len(images), -1).all(axis=1) for images in made.values()])
        if not finite.all():
            return _diverged(f"{np.sum(~finite)} of {len(finite)} images made hold values that are not finite")
        seen = {side: self._in_batches(self._as_seen, images) for side, images in given.items()}
        seen |= {name: sheet.as_bytes(images) for name, images in made.items()}
        pictures = {f"{one}_to_{other}": self._picture(seen, one, other) for one, other in _DIRECTIONS}
        logits = {}
        for one, other in _DIRECTIONS:
            logits[one] = ask(f"discriminate_{one}", given[one])
            logits[f"{other}{one}"] = ask(f"discriminate_{one}", made[f"{other}{one}"], _as_given)
        if not all(np.isfinite(values).all() for values in logits.values()):
            return _diverged("The discriminators' logits are not finite", pictures)
        scalars = {}
        for one, other in _DIRECTIONS:
            way = f"{one}{other}"
            scalars[f"reconstruction_{one}"] = translation.pixel_error(seen[f"back_{one}"], seen[one])
            if alike:
                scalars[f"change_{way}"] = translation.pixel_error(seen[way], seen[one])
            if f"own_{one}" in seen:
                scalars[f"identity_{one}"] = translation.pixel_error(seen[f"own_{one}"], seen[one])
            scalars[f"correlation_{way}"] = translation.luminance_correlation(seen[one], seen[way])
            real = max(translation.checkerboard(seen[other]), _GRID_FLOOR)
            scalars[f"checkerboard_{way}"] = translation.checkerboard(seen[way]) / real
            scalars[f"separability_{other}"] = generative.separability(logits[other], logits[way])
            scalars[f"margin_{other}"] = _margin(logits[other], logits[way])
            real = max(translation.mean_distance(seen[other]), 1e-12)
            scalars[f"diversity_{way}"] = translation.mean_distance(seen[way]) / real
        # Both directions of a number side by side.
        scalars = dict(sorted(scalars.items()))
        judged = int(state.step) >= max(1, self.alarms_after)
        return types.Report(scalars=scalars, images=pictures, alarms=self._alarms(scalars, seen) if judged else ())

    def _chosen(self, examples):
        """uint8 [n, h, w, c], always the same ones."""
        count = min(self.images, examples.examples)
        return metrics.pick(examples.batches(), np.linspace(0, examples.examples - 1, count).round().astype(np.int64))

    def _as_seen(self, images):
        """The bytes that a generator is shown: those of the set unless the preparation resizes."""
        return sheet.as_bytes(self.preprocess(images))

    def _in_batches(self, ask, inputs):
        """`ask` of equal batches, the last one filled up, so that one compiled program serves all."""
        size = min(self.batch_size, len(inputs))
        padded = np.concatenate([inputs, np.repeat(inputs[:1], -len(inputs) % size, axis=0)])
        return np.concatenate([ask(padded[at : at + size]) for at in range(0, len(padded), size)])[: len(inputs)]

    def _picture(self, seen, one, other):
        names = [name for name in (one, f"{one}{other}", f"back_{one}", f"own_{one}") if name in seen]
        rows = np.linspace(0, len(seen[one]) - 1, min(self.grid, len(seen[one]))).round().astype(np.int64)
        columns = [sheet.coloured(seen[name][rows]) for name in names]
        if len({images.shape for images in columns}) > 1:
            raise types.UsageError(
                f"{_HERE}: images are {columns[0].shape[1:3]} (h, w) and what becomes of them "
                f"{', '.join(str(images.shape[1:3]) for images in columns[1:])}: a generator must keep the size"
            )
        return sheet.grid(np.stack(columns, axis=1).reshape(-1, *columns[0].shape[1:]), len(names))

    def _alarms(self, scalars, seen):
        chosen = {"same": 1, "opposite": -1}
        expected = chosen.get(self.polarity) or translation.expected_polarity(seen["a"], seen["b"])
        apart = _apart(seen["a"], seen["b"])
        alarms = []
        for one, other in _DIRECTIONS:
            way, words = f"{one}{other}", f"Translations from {one.upper()} to {other.upper()}"
            correlation = scalars[f"correlation_{way}"]
            if expected * correlation < -_UNRELATED:
                alarms.append(f"{words} {_wrong_tones(correlation, expected)}")
            if f"change_{way}" in scalars and scalars[f"change_{way}"] < _COPY * apart:
                alarms.append(
                    f"{words} are copies: they differ from their images by {scalars[f'change_{way}']:.2g} of the range "
                    f"of a pixel, where images of A and of B differ by {apart:.2g}. Try a smaller weight of the "
                    "identity loss, then of the cycle loss, or a higher rate of the discriminators'."
                )
            if scalars[f"checkerboard_{way}"] > _GRID_TIMES:
                alarms.append(
                    f"{words} have a checkerboard, or noise as fine: what changes from pixel to pixel is "
                    f"{scalars[f'checkerboard_{way}']:,.0f} times as strong as in real images of {other.upper()}. "
                    "Train longer, for it often fades, or make the generators enlarge by resizing "
                    '(upsampling="resize") instead of transposed convolutions.'
                )
            if scalars[f"diversity_{way}"] < _ONE_PICTURE:
                alarms.append(
                    f"{words} all look alike: they lie {scalars[f'diversity_{way}']:.2g} times as far apart as real "
                    f"images of {other.upper()}, so the generator hardly looks at its image. Try a larger weight of "
                    "the cycle loss, or a lower rate."
                )
            margin = scalars[f"margin_{other}"]
            if self.won_above is not None and margin > self.won_above:
                alarms.append(
                    f"The discriminator of {other.upper()} has won: real images and translations lie {margin:.1f} "
                    "standard deviations apart in its eyes, so the generator learns little from it. Try a lower rate "
                    "of the discriminators', a smaller weight of the cycle loss, DiffAugment, or more images."
                )
        return tuple(alarms)


def _wrong_tones(correlation: float, expected: int) -> str:
    if expected > 0:
        return (
            f"turn light into dark: their luminance correlates with their images' by {correlation:.2f}. Neither "
            "discriminator nor cycle faults a negative, and a run that has found one rarely leaves it: start again "
            "with another seed, a weight of the identity loss (0.5), or smaller initial weights (the generator's "
            'deviation); where light should become dark, set polarity="opposite".'
        )
    return (
        f"keep light as light: their luminance correlates with their images' by {correlation:.2f}, where figures and "
        "ground of A and of B have opposite tones, so that figures become ground. Start again with the weight of the "
        'identity loss 0, which rewards kept tones, or another seed; where light should stay, set polarity="same".'
    )


def _margin(real: np.ndarray, fake: np.ndarray) -> float:
    """The distance of two samples' means in standard deviations within them (d' of signal detection)."""
    spread = np.sqrt((np.var(real, dtype=np.float64) + np.var(fake, dtype=np.float64)) / 2)
    return float((np.mean(real, dtype=np.float64) - np.mean(fake, dtype=np.float64)) / max(spread, 1e-6))


def _diverged(what: str, pictures: Mapping[str, np.ndarray] | None = None) -> types.Report:
    return types.Report(
        images=pictures or {},
        alarms=(
            f"{what}: the training has diverged. Go back to the last good checkpoint with lower rates; "
            "with bfloat16 compute, try float32.",
        ),
    )


def _apart(first: np.ndarray, second: np.ndarray) -> float:
    """The mean absolute difference of unrelated images of two sets, where both have one shape, else 0."""
    count = min(len(first), len(second))
    if first.shape[1:] != second.shape[1:]:
        return 0.0
    # Turned by half, for sets of pairs lie in one order.
    return translation.pixel_error(first[:count], np.roll(second[:count], count // 2, axis=0))


def _as_given(images):
    return images
