import dataclasses
import types as python_types

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import augment, sheet, trainer, types
from ssl_jax.analysis import translation as analysis
from ssl_jax.evaluators import translation


@dataclasses.dataclass(frozen=True, eq=False)
class Shelf:
    """Images in memory, the last batch ragged and its padding poisonous."""

    images: np.ndarray
    batch_size: int = 7
    class_names: tuple[str, ...] = ()

    @property
    def examples(self):
        return len(self.images)

    def labels(self):
        return np.full(self.examples, -1, np.int32)

    def batches(self):
        for first in range(0, self.examples, self.batch_size):
            number = np.arange(first, first + self.batch_size)
            mask = number < self.examples
            image = self.images[np.minimum(number, self.examples - 1)].copy()
            image[~mask] = 255
            yield {"image": image, "label": np.full(self.batch_size, -1, np.int32), "mask": mask}


def scenes(count, seed, channels=3, tint=0):
    """Smooth pictures of many tones, like photographs in what the alarms look at; `tint` is added to the last channel.

    Their pixels' tones are about evenly spread, so that neither figure nor ground stands out.
    """
    draws = np.random.default_rng(seed)
    down, across = np.mgrid[:16, :12] / 16
    turns, starts = draws.uniform(0.4, 1.6, (2, count, 2, 1, 1))
    waves = np.sin(2 * np.pi * (turns[:, 0] * down + starts[:, 0])) + np.sin(
        2 * np.pi * (turns[:, 1] * across + starts[:, 1])
    )
    images = np.repeat((127 + 55 * waves)[..., None], channels, axis=-1)
    images += draws.uniform(-8, 8, (count, 1, 1, channels))
    images[..., -1] += tint
    return np.clip(images, 0, 255).astype(np.uint8)


def strokes(count, seed, ink, ground):
    drawn = np.random.default_rng(seed).random((count, 16, 12, 1)) < 0.15
    return np.where(drawn, ink, ground).astype(np.uint8)


def centred(images):
    return np.asarray(images, np.float32) / 127.5 - 1


def unmoved(images):
    return images


A, B = scenes(40, 0), scenes(30, 1, tint=40)
TINT = np.array([0, 0, 40 / 127.5], np.float32)


def to_b(images):
    return np.clip(images + TINT, -1, 1)


def to_a(images):
    return np.clip(images - TINT, -1, 1)


class Translator:
    """Exports made of two maps of floats and two judges, that remember what they were asked."""

    def __init__(self, ab=to_b, ba=to_a, judge_a=None, judge_b=None):
        self.asked = []
        blue = lambda images: images[..., -1].mean(axis=(1, 2)) - images[..., 0].mean(axis=(1, 2))  # noqa: E731
        judges = {"a": judge_a or (lambda images: -blue(images)), "b": judge_b or blue}
        rules = {
            "translate_ab": ab,
            "translate_ba": ba,
            "reconstruct_a": lambda images: ba(ab(images)),
            "reconstruct_b": lambda images: ab(ba(images)),
            "discriminate_a": judges["a"],
            "discriminate_b": judges["b"],
        }
        self.exports = {name: self._export(name, rule) for name, rule in rules.items()} | {"other": None}

    def _export(self, name, rule):
        def call(state, images, preprocess):
            self.asked.append((name, images, preprocess))
            return np.asarray(rule(preprocess(images)), np.float32)

        return call


def report(translator=None, a=A, b=B, step=1, **arguments):
    translator = translator or Translator()
    evaluator = translation.Translation(Shelf(a), Shelf(b), **{"preprocess": centred, **arguments})
    state = python_types.SimpleNamespace(step=np.int32(step))
    return evaluator(translator.exports, state, lambda: state)


def only_alarm(found):
    (alarm,) = found.alarms
    return alarm


def test_a_good_translator_looks_good_and_raises_no_alarm():
    found = report()
    assert set(found.scalars) == {
        f"{name}_{side}" for name in ("reconstruction", "identity", "separability", "margin") for side in "ab"
    } | {f"{name}_{way}" for name in ("change", "correlation", "checkerboard", "diversity") for way in ("ab", "ba")}
    assert all(type(value) is float and np.isfinite(value) for value in found.scalars.values())
    scalars = found.scalars
    assert max(scalars["reconstruction_a"], scalars["reconstruction_b"]) < 0.01
    # Of three channels one moves by 40 levels, where it is not cut.
    assert scalars["change_ab"] == pytest.approx(40 / 255 / 3, rel=0.1)
    assert min(scalars["correlation_ab"], scalars["correlation_ba"]) > 0.98
    assert scalars["diversity_ab"] == pytest.approx(1, abs=0.1) and scalars["diversity_ba"] == pytest.approx(1, abs=0.1)
    assert scalars["separability_a"] == pytest.approx(0.5, abs=0.2)
    assert found.alarms == ()


def uneven(images):
    return np.clip(0.8 * images + 0.1, -1, 1)


def test_scalars_are_those_of_the_definitions():
    found = report(Translator(uneven, to_a), images=20, won_above=None)
    rows = np.linspace(0, 39, 20).round().astype(int), np.linspace(0, 29, 20).round().astype(int)
    a, b = A[rows[0]], B[rows[1]]
    seen = {
        "ab": sheet.as_bytes(uneven(centred(a))),
        "ba": sheet.as_bytes(to_a(centred(b))),
        "aba": sheet.as_bytes(to_a(uneven(centred(a)))),
        "bab": sheet.as_bytes(uneven(to_a(centred(b)))),
        "aa": sheet.as_bytes(to_a(centred(a))),
        "bb": sheet.as_bytes(uneven(centred(b))),
    }
    expected = {
        "reconstruction_a": analysis.pixel_error(seen["aba"], a),
        "reconstruction_b": analysis.pixel_error(seen["bab"], b),
        "change_ab": analysis.pixel_error(seen["ab"], a),
        "change_ba": analysis.pixel_error(seen["ba"], b),
        "identity_a": analysis.pixel_error(seen["aa"], a),
        "identity_b": analysis.pixel_error(seen["bb"], b),
        "correlation_ab": analysis.luminance_correlation(a, seen["ab"]),
        "correlation_ba": analysis.luminance_correlation(b, seen["ba"]),
        "checkerboard_ab": analysis.checkerboard(seen["ab"]) / max(analysis.checkerboard(b), 4e-4),
        "checkerboard_ba": analysis.checkerboard(seen["ba"]) / max(analysis.checkerboard(a), 4e-4),
        "diversity_ab": analysis.mean_distance(seen["ab"]) / analysis.mean_distance(b),
        "diversity_ba": analysis.mean_distance(seen["ba"]) / analysis.mean_distance(a),
    }
    assert {name: found.scalars[name] for name in expected} == pytest.approx(expected)
    assert len(set(expected.values())) == len(expected)


def test_discriminators_see_translations_as_they_are_made_and_real_images_prepared():
    def finely(images):
        return to_b(images) + 1e-4

    translator = Translator(finely)
    scalars = report(translator, images=20, batch_size=8).scalars

    def beats(real, fake):
        return np.mean(real[:, None] > fake) + np.mean(real[:, None] == fake) / 2

    blue = lambda images: images[..., -1].mean(axis=(1, 2)) - images[..., 0].mean(axis=(1, 2))  # noqa: E731
    a, b = (images[np.linspace(0, len(images) - 1, 20).round().astype(int)] for images in (A, B))
    assert scalars["separability_b"] == pytest.approx(beats(blue(centred(b)), blue(finely(centred(a)))))
    assert scalars["separability_a"] == pytest.approx(beats(-blue(centred(a)), -blue(to_a(centred(b)))))
    for name, images, preprocess in translator.asked:
        assert len(images) == 8
        assert (preprocess is centred) == (images.dtype == np.uint8), name
    shown = [images for name, images, _ in translator.asked if name == "discriminate_b" and images.dtype != np.uint8]
    np.testing.assert_array_equal(np.concatenate(shown)[:20], finely(centred(a)))


def test_pictures_have_image_translation_way_back_and_identity_in_a_row():
    found = report(Translator(uneven, to_a), grid=3, images=20)
    assert set(found.images) == {"a_to_b", "b_to_a"}
    a, b = (images[np.linspace(0, len(images) - 1, 20).round().astype(int)][[0, 10, 19]] for images in (A, B))
    rows = {
        "a_to_b": [a, uneven(centred(a)), to_a(uneven(centred(a))), to_a(centred(a))],
        "b_to_a": [b, to_a(centred(b)), uneven(to_a(centred(b))), uneven(centred(b))],
    }
    for name, columns in rows.items():
        columns = [images if images.dtype == np.uint8 else sheet.as_bytes(images) for images in columns]
        cells = [images[row] for row in range(3) for images in columns]
        np.testing.assert_array_equal(found.images[name], sheet.grid(np.stack(cells), 4))
    again = report(Translator(uneven, to_a), grid=3, images=20, step=9)
    np.testing.assert_array_equal(again.images["a_to_b"], found.images["a_to_b"])


def test_identity_can_be_left_out():
    translator = Translator()
    found = report(translator, identity=False, grid=2)
    assert not {"identity_a", "identity_b"} & found.scalars.keys() and "change_ab" in found.scalars
    # Three columns of 12 pixels enlarged to 60, two rows of 16.
    assert found.images["a_to_b"].shape == (2 * 64 + 2, 3 * 48 + 4, 3)
    assert sum(name == "translate_ba" for name, *_ in translator.asked) == 2


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_domains_of_different_channels_have_no_change_and_no_identity(channels):
    def colour(images):
        return np.repeat(images.mean(axis=-1, keepdims=True), 3, axis=-1)

    def fewer(images):
        return np.repeat(images.mean(axis=-1, keepdims=True), channels, axis=-1)

    judge = lambda images: images.mean(axis=(1, 2, 3))  # noqa: E731
    found = report(Translator(colour, fewer, judge, judge), a=scenes(30, 0, channels), b=scenes(30, 1), grid=2)
    missing = {f"{name}_{end}" for name, ends in (("change", ("ab", "ba")), ("identity", "ab")) for end in ends}
    assert not missing & found.scalars.keys() and len(found.scalars) == 12
    assert found.images["a_to_b"].shape == found.images["b_to_a"].shape == (2 * 64 + 2, 3 * 48 + 4, 3)
    grey = scenes(30, 0, channels)[0].mean(axis=-1)
    np.testing.assert_allclose(found.images["a_to_b"][0:64:4, 0:48:4, 1], grey, atol=0.51)
    assert found.alarms == ()


def test_what_a_preparation_resizes_is_compared_at_that_size():
    found = report(Translator(unmoved, unmoved), preprocess=augment.Plain(size_px=8), won_above=None)
    for name in ("change_ab", "reconstruction_b", "identity_a"):
        assert found.scalars[name] == 0
    assert found.scalars["correlation_ab"] == pytest.approx(1)
    assert found.images["a_to_b"].shape[0] == 8 * 64 + 14


def test_alarms_name_light_that_becomes_dark_each_direction_by_itself():
    found = report(Translator(lambda images: -to_b(images), to_a, undecided, undecided), won_above=None)
    alarm = only_alarm(found)
    assert found.scalars["correlation_ab"] < -0.95
    for word in ("A to B turn light into dark", "by -1.00", "another seed", "identity", "initial weights", "opposite"):
        assert word in alarm
    found = report(Translator(to_b, lambda images: -to_a(images)), won_above=None)
    assert "B to A turn light into dark" in only_alarm(found)


def undecided(images):
    return np.zeros(len(images))


def test_tones_that_are_drawn_anew_are_no_inversion():
    other = centred(scenes(40, 9))

    def unrelated(images):
        return other[: len(images)]

    found = report(Translator(unrelated, unrelated), won_above=None)
    assert abs(found.scalars["correlation_ab"]) < 0.2
    assert not [alarm for alarm in found.alarms if "light" in alarm]


WHITE_ON_BLACK, DARK_ON_PAPER = strokes(40, 0, 255, 0), strokes(40, 1, 30, 235)


def negative(images):
    return -images


def test_between_opposite_figures_the_negative_is_right_and_kept_tones_are_wrong():
    arguments = {"a": WHITE_ON_BLACK, "b": DARK_ON_PAPER, "won_above": None}
    assert report(Translator(negative, negative), **arguments).alarms == ()
    found = report(Translator(lambda images: 0.8 * images, lambda images: 0.8 * images), **arguments)
    inverted = [alarm for alarm in found.alarms if "keep light as light" in alarm]
    assert len(inverted) == 2
    for word in ("A to B", "identity loss 0", "another seed", 'polarity="same"'):
        assert word in inverted[0]


@pytest.mark.parametrize(("polarity", "count"), [("auto", 0), ("opposite", 0), ("same", 2)])
def test_polarity_can_be_said(polarity, count):
    arguments = {"a": WHITE_ON_BLACK, "b": DARK_ON_PAPER, "won_above": None, "polarity": polarity}
    found = report(Translator(negative, negative), **arguments)
    assert sum("turn light into dark" in alarm for alarm in found.alarms) == count
    found = report(Translator(negative, negative), polarity="opposite", won_above=None)
    assert found.alarms == ()


def test_copies_raise_the_alarm():
    found = report(Translator(lambda images: images + 0.01, to_a), won_above=None)
    alarm = only_alarm(found)
    for word in ("A to B are copies", "0.0", "identity loss", "cycle loss"):
        assert word in alarm
    assert found.scalars["change_ab"] < 0.02
    # A small change that is still a tenth of what tells unrelated images apart is none.
    apart = analysis.pixel_error(A[:30], B)
    moved = 0.12 * apart * 2
    assert report(Translator(lambda images: images + moved * (1 - 2 * (images > 0)), to_a), won_above=None).alarms == ()


def test_copies_are_told_in_sets_whose_images_lie_in_pairs_too():
    # An image's own counterpart is nearer than what tells the domains apart.
    a = scenes(40, 0)
    b = sheet.as_bytes(to_b(centred(a)))
    found = report(Translator(lambda images: images + 0.04, to_a), a=a, b=b, won_above=None)
    assert "A to B are copies" in only_alarm(found)


def board(levels):
    """Translations with a checkerboard of so many grey levels up and down."""
    pattern = (np.indices((16, 12)).sum(axis=0) % 2 * 2 - 1)[None, :, :, None] * np.float32(levels / 127.5)
    return lambda images: to_b(images) + pattern


def test_a_checkerboard_that_is_visible_raises_the_alarm_and_one_that_is_not_does_not():
    faint, visible = (report(Translator(board(levels)), won_above=None) for levels in (1, 10))
    assert faint.alarms == ()
    alarm = only_alarm(visible)
    for word in ("A to B have a checkerboard", "times as strong", "real images of B", "resizing"):
        assert word in alarm
    assert visible.scalars["checkerboard_ab"] > 10 > 2 > visible.scalars["checkerboard_ba"]
    # Where real images are as fine, nobody minds.
    fine = np.clip(B + 10.0 * (np.indices((16, 12)).sum(axis=0) % 2 * 2 - 1)[None, :, :, None], 0, 255).astype(np.uint8)
    found = report(Translator(board(10)), b=fine, won_above=None)
    assert not [alarm for alarm in found.alarms if "A to B have a checkerboard" in alarm]
    assert found.scalars["checkerboard_ab"] == pytest.approx(1, abs=0.3)


def test_one_picture_for_all_raises_the_alarm():
    one = centred(B[3:4])
    found = report(Translator(lambda images: 0.9 * one + 0.1 * to_b(images), to_a), won_above=None)
    alarms = [alarm for alarm in found.alarms if "all look alike" in alarm]
    assert len(alarms) == 1
    for word in ("A to B", "real images of B", "cycle loss"):
        assert word in alarms[0]
    assert found.scalars["diversity_ab"] == pytest.approx(0.1, abs=0.02)
    two = centred(B[3:5])
    found = report(Translator(lambda images: two[np.arange(len(images)) % 2], to_a), won_above=None)
    assert not [alarm for alarm in found.alarms if "all look alike" in alarm]


def knows(images, spread=0.05):
    """High logits for these images alone; two of each kind differ by twice the spread, from one to the next."""
    known = {image.tobytes() for image in images}

    def judge(asked):
        logits = np.array([float(sheet.as_bytes(image).tobytes() in known) for image in asked])
        return logits + spread * np.where(np.arange(len(logits)) % 2, -1.0, 1.0)

    return judge


def test_a_discriminator_that_has_won_raises_the_alarm():
    translator = Translator(judge_b=knows(B))
    found = report(translator)
    assert found.scalars["separability_b"] == 1
    alarm = only_alarm(found)
    for word in ("The discriminator of B has won", f"{found.scalars['margin_b']:.1f} standard", "more images"):
        assert word in alarm
    assert report(translator, won_above=None).alarms == ()
    # Every real image ranks above every translation here as well, and yet they are no further apart than among each
    # other.
    hesitant = report(Translator(judge_b=knows(B, spread=0.3)))
    assert hesitant.scalars["separability_b"] == 1 and hesitant.alarms == ()
    assert hesitant.scalars["margin_b"] == pytest.approx(1 / 0.3, rel=0.01)
    assert "discriminator of A" in only_alarm(report(Translator(judge_a=knows(A))))


def everything_wrong():
    one = -centred(A[:1])
    return Translator(lambda images: np.repeat(one, len(images), axis=0), unmoved, knows(A), knows(B))


def test_alarms_wait_until_they_are_asked_for():
    assert len(report(everything_wrong(), step=1).alarms) >= 3
    assert report(everything_wrong(), step=0).alarms == ()
    assert report(everything_wrong(), step=99, alarms_after=100).alarms == ()
    assert len(report(everything_wrong(), step=100, alarms_after=100).alarms) >= 3
    assert len(report(everything_wrong(), step=0).scalars) == 16


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("way", ["ab", "ba"])
def test_translations_that_are_not_finite_raise_an_alarm_and_no_curve(wrong, way):
    def spoiled(images):
        images = np.array(images)
        images[3, 2, 1, 0] = wrong
        return images

    found = report(Translator(**{"ab": unmoved, "ba": unmoved, way: spoiled}), images=16, identity=False)
    assert found.scalars == {} and found.images == {}
    # One of the translations, and one of either reconstruction.
    assert "3 of 64 images made hold values that are not finite: the training has diverged" in only_alarm(found)


def test_a_discriminator_that_has_diverged_is_said():
    found = report(Translator(judge_a=lambda images: np.full(len(images), np.nan)), step=0)
    assert found.scalars == {} and "logits are not finite" in only_alarm(found) and "a_to_b" in found.images


def test_images_of_one_tone_give_finite_numbers():
    flat = np.full((12, 4, 4, 1), 9, np.uint8)
    judge = lambda images: images.mean(axis=(1, 2, 3))  # noqa: E731
    found = report(Translator(unmoved, unmoved, judge, judge), a=flat, b=flat)
    assert all(np.isfinite(value) for value in found.scalars.values())


def test_batches_do_not_change_what_is_found():
    whole, parts = report(batch_size=1000), report(batch_size=7)
    assert parts.scalars == pytest.approx(whole.scalars)
    np.testing.assert_array_equal(parts.images["a_to_b"], whole.images["a_to_b"])


def test_on_compiled_exports_each_program_is_compiled_once(devices):
    traced = []

    def moved(name, sign):
        def export(state, images):
            traced.append(name)
            return images + sign * state.params["tint"]

        return export

    def judge(state, images):
        traced.append("discriminate")
        return jnp.mean(images, axis=(1, 2, 3))

    exports = {
        **{"translate_ab": moved("ab", 1), "translate_ba": moved("ba", -1)},
        **{"reconstruct_a": moved("a", 0), "reconstruct_b": moved("b", 0)},
        **{"discriminate_a": judge, "discriminate_b": judge},
    }
    exports = trainer.compiled_exports(python_types.SimpleNamespace(exports=exports), devices)
    state = types.TrainState(step=jnp.int32(3), params={"tint": jnp.float32(0.2)}, stats={}, opt={}, memory={})
    shelves = Shelf(A), Shelf(B)
    found = [translation.Translation(*shelves, augment.Plain(), won_above=None)(exports, state, None) for _ in range(2)]
    # Discriminators are asked for bytes and for floats.
    assert sorted(traced) == ["a", "ab", "b", "ba", *["discriminate"] * 4]
    assert found[0].scalars == found[1].scalars
    assert found[0].scalars["change_ab"] == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"images": 9}, "images=9 of 40 in a; it takes at least 10"),
        ({"b": B[:9]}, "images=64 of 9 in b; it takes at least 10"),
        ({"grid": 0}, "grid=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"alarms_after": -1}, "alarms_after=-1"),
        ({"polarity": "inverse"}, "polarity='inverse'; it is 'auto'"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(types.UsageError, match=words):
        report(**arguments)


def test_other_methods_are_refused():
    with pytest.raises(types.UsageError, match="does not translate; it has features, logits"):
        translation.Translation(Shelf(A), Shelf(B), centred)({"logits": None, "features": None}, None, None)


def test_a_generator_that_changes_the_size_is_refused():
    with pytest.raises(types.UsageError, match=r"images are \(16, 12\).*must keep the size"):
        report(Translator(lambda images: images[:, ::2], lambda images: np.repeat(images, 2, axis=1)))
