"""Distances between samples and real images: their names, their numbers, and what stands beside them."""

import dataclasses
import types as python_types

import numpy as np
import pytest

from ssl_jax import reference, types
from ssl_jax.analysis import generative, manifold
from ssl_jax.evaluators import distance

STATE = python_types.SimpleNamespace(step=1)
COUNTS = {"samples": 40, "subset_size": 20, "subsets": 5}
OWN = {
    *("frechet_distance", "kernel_distance", "kernel_distance_std", "precision", "recall", "density", "coverage"),
    *("classifier_score", "classes_found", "class_entropy"),
}
PUBLISHED = {
    *("fid", "kid", "kid_std", "inception_score", "inception_score_std"),
    *("precision", "recall", "density", "coverage"),
}


@dataclasses.dataclass(frozen=True)
class Shelf:
    """Examples in memory."""

    images: np.ndarray

    @property
    def examples(self):
        return len(self.images)

    def batches(self):
        yield {"image": self.images, "mask": np.ones(len(self.images), bool)}


@dataclasses.dataclass
class Eye:
    """Features are the first pixels, logits the last."""

    width: int = 3
    digest: str = "a"
    resize: str = "none"
    name: str = "encoder"
    with_logits: bool = True
    class_names: tuple[str, ...] = ()

    def __call__(self, images):
        assert images.dtype == np.uint8
        flat = images.reshape(len(images), -1).astype(np.float32)
        return flat[:, : self.width], 0.1 * flat[:, -3:] if self.with_logits else None

    def describe(self):
        return "an eye"


def pictures(count=50):
    return np.random.default_rng(0).integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)


def real(tmp_path, eye=None, count=50, **more):
    return reference.Reference(Shelf(pictures(count)), eye or Eye(), cache=str(tmp_path / "kept"), **more)


class Sampler:
    """An export that remembers what it was asked for; image number i of seed s is noise of its own, beyond [-1, 1]."""

    def __init__(self, shape=(4, 4, 1), spoiled=()):
        self.asked, self.shape, self.spoiled = [], shape, spoiled

    def __call__(self, state, tickets, preprocess):
        assert state is STATE and tickets.dtype == np.int32 and preprocess(tickets) is tickets
        self.asked.append(tickets)
        return np.stack([self.image(*ticket) for ticket in tickets])

    def image(self, seed, number):
        image = np.random.default_rng((seed, number)).uniform(-1.2, 1.2, self.shape).astype(np.float32)
        return np.full_like(image, np.nan) if number in self.spoiled else image


def report(tmp_path, sampler=None, eye=None, **more):
    evaluator = distance.Distance(real(tmp_path, eye), **{**COUNTS, "batch_size": 16, **more})
    return evaluator({"sample": sampler or Sampler()}, STATE, lambda: STATE)


def drawn(seed=0, count=40):
    images = np.stack([Sampler().image(seed, number) for number in range(count)])
    return np.rint((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)


def test_only_distances_by_inception_are_called_fid_and_kid(tmp_path):
    published, own = (report(tmp_path, eye=Eye(name=name)).scalars for name in ("inception", "encoder"))
    assert set(published) == PUBLISHED and set(own) == OWN
    assert (published["fid"], published["kid"]) == (own["frechet_distance"], own["kernel_distance"])
    assert published["inception_score"] == own["classifier_score"]
    headless = report(tmp_path, eye=Eye(with_logits=False, digest="b")).scalars
    assert set(headless) == OWN - {"classifier_score", "classes_found", "class_entropy"}


def test_the_numbers_are_those_of_the_samples_as_bytes_against_the_real_images(tmp_path):
    scalars = report(tmp_path, seed=7).scalars
    fakes, reals = drawn(7), pictures()
    features, logits = Eye()(fakes)
    truth = Eye()(reals)[0]
    moments = [generative.Moments.empty(3).updated(each) for each in (truth, features)]
    assert scalars["frechet_distance"] == pytest.approx(generative.frechet_distance(*moments), rel=1e-9)
    kernel = generative.kernel_distance(truth, features, subsets=5, subset_size=20)
    assert (scalars["kernel_distance"], scalars["kernel_distance_std"]) == pytest.approx(kernel, rel=1e-9)
    assert scalars["classifier_score"] == pytest.approx(generative.inception_score(logits, splits=10)[0], rel=1e-9)
    as_many = truth[np.linspace(0, 49, 40).round().astype(int)]
    assert (scalars["precision"], scalars["recall"]) == manifold.precision_recall(as_many, features, neighbours=3)
    assert (scalars["density"], scalars["coverage"]) == manifold.density_coverage(as_many, features, neighbours=5)


def test_the_noise_is_numbered_and_asked_for_in_equal_batches(tmp_path):
    sampler = Sampler()
    first = report(tmp_path, sampler, seed=3).scalars
    assert [len(tickets) for tickets in sampler.asked] == [16, 16, 16]
    asked = np.concatenate(sampler.asked)
    np.testing.assert_array_equal(asked, np.stack([np.full(48, 3), np.arange(48)], axis=1))
    assert report(tmp_path, seed=3, batch_size=40).scalars == pytest.approx(first, rel=1e-9)
    assert report(tmp_path, seed=4).scalars["frechet_distance"] != first["frechet_distance"]


def test_a_number_stands_with_all_that_it_depends_on(tmp_path):
    found = report(tmp_path, name="by_eye")
    (entry,) = found.summary.values()
    assert list(found.summary) == ["by_eye"] and entry.items() >= found.scalars.items()
    told = {"network": "an eye", "digest": "a", "resize": "none", "samples": 40, "real_images": 50}
    assert entry.items() >= {**told, "manifold_images": 40}.items() and "note" not in entry


def test_how_many_images_a_number_is_of(tmp_path):
    statistics = real(tmp_path, keep=30).statistics()
    expected = {
        **dict.fromkeys(("fid", "frechet_distance"), (40, 50)),
        **dict.fromkeys(("kid", "kid_std", "kernel_distance", "kernel_distance_std"), (40, 30)),
        **dict.fromkeys(("precision", "recall", "density", "coverage"), (30, 30)),
        **dict.fromkeys(("inception_score", "inception_score_std", "classifier_score"), (40, 0)),
        **dict.fromkeys(("classes_found", "class_entropy"), (40, 0)),
    }
    assert {name: distance.sides(name, 40, statistics) for name in OWN | PUBLISHED} == expected


def test_a_covariance_of_too_few_images_is_noted(tmp_path):
    wide = Eye(width=16)
    statistics = real(tmp_path, wide).statistics()
    assert "note" not in distance.facts(wide, statistics, 17)
    note = distance.facts(wide, statistics, 16)["note"]
    assert note.startswith("16 images for 16 features: the covariance is rank-deficient")


@pytest.mark.parametrize(
    ("counts", "found", "entropy"),
    [
        ((10, 10, 10, 10), 1.0, 1.0),
        ((39, 1, 0, 0), 0.5, 0.0843),  # a tenth of the fair share of 10 is 1
        ((40, 0, 0, 0), 0.25, 0.0),
    ],
)
def test_classes_found_and_their_entropy(counts, found, entropy):
    logits = np.eye(4, dtype=np.float32)[np.repeat(np.arange(4), counts)]
    scalars = distance._classes(logits)
    assert scalars == pytest.approx({"classes_found": found, "class_entropy": entropy}, abs=1e-4)
    assert not np.signbit(scalars["class_entropy"])


def test_classes_below_a_tenth_of_their_fair_share_are_not_found():
    logits = np.eye(4, dtype=np.float32)[np.repeat(np.arange(4), (1987, 5, 4, 4))]
    assert distance._classes(logits)["classes_found"] == 0.25
    logits = np.eye(4, dtype=np.float32)[np.repeat(np.arange(4), (1900, 50, 49, 1))]
    assert distance._classes(logits)["classes_found"] == 0.5


def test_samples_that_are_no_images_give_an_alarm_and_no_numbers(tmp_path):
    found = report(tmp_path, Sampler(spoiled=(39,)))
    assert not found.scalars and found.summary["distances"]["not_finite"] is True
    assert "fid" not in str(found.summary) and found.alarms[0].startswith("Samples 32 to 39 hold values")
    # What is drawn beyond the samples, to fill the last batch, is nobody's business.
    assert report(tmp_path, Sampler(spoiled=(40,))).scalars


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"samples": 19}, r"samples=19, and the kernel distance takes subset_size=20 of either side; give 20 or more"),
        ({"subset_size": 45}, r"samples=40, and the kernel distance takes subset_size=45.* or set subset_size to 40"),
        ({"samples": 60, "subset_size": 51}, r"50 real images, and the kernel distance takes subset_size=51"),
        ({"samples": 9, "subset_size": 5}, r"samples=9, and neighbours and splits take 10 at least"),
        ({"subset_size": 1}, r"subsets=5 of subset_size=1; give 1 or more of 2 or more"),
        ({"subsets": 0}, r"subsets=0 of subset_size=20"),
        ({"batch_size": 0}, r"batch_size=0, seed=0"),
        ({"seed": 2**31}, r"the seed lies in 0\.\.2\^31-1"),
        ({"name": ""}, r"name=''"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_training(tmp_path, more, message):
    with pytest.raises(types.UsageError, match=message):
        distance.Distance(real(tmp_path), **{**COUNTS, **more})


def test_real_images_that_are_not_kept_do_not_count(tmp_path):
    with pytest.raises(types.UsageError, match="15 real images, and the kernel distance takes subset_size=20"):
        distance.Distance(real(tmp_path, keep=15), **COUNTS)


def test_another_method_and_another_size_are_refused(tmp_path):
    with pytest.raises(types.UsageError, match="this method makes no samples; it has features, logits"):
        evaluator = distance.Distance(real(tmp_path), **COUNTS)
        evaluator({"logits": Sampler(), "features": Sampler()}, STATE, lambda: STATE)
    with pytest.raises(types.UsageError, match="images of 5x4x1 are compared with real ones of 4x4x1"):
        report(tmp_path, Sampler(shape=(5, 4, 1)))


class Translator:
    """An export that remembers what it was asked for, and answers with a negative that is no whole byte."""

    def __init__(self, spoiled=None):
        self.asked, self.spoiled = [], spoiled

    def __call__(self, state, images, preprocess):
        assert state is STATE and images.dtype == np.uint8
        self.asked.append(images)
        made = -1.1 * preprocess(images)
        if self.spoiled is not None:
            made[(images == self.spoiled).all(axis=(1, 2, 3))] = np.inf
        return made


def centred(images):
    return images.astype(np.float32) / 127.5 - 1


def others(count=70):
    return np.random.default_rng(9).integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)


def translation_report(tmp_path, translator=None, direction="ab", count=70, **more):
    translated = distance.Translated(Shelf(others(count)), direction, centred)
    evaluator = distance.Distance(real(tmp_path), **{**COUNTS, "batch_size": 16, "translated": translated, **more})
    exports = {"translate_ab": translator or Translator(), "translate_ba": None, "sample": None}
    if direction == "ba":
        exports = {"translate_ba": translator or Translator()}
    return evaluator(exports, STATE, lambda: STATE)


@pytest.mark.parametrize("direction", ["ab", "ba"])
def test_translations_are_compared_as_samples_are(tmp_path, direction):
    translator = Translator()
    found = translation_report(tmp_path, translator, direction)
    assert [len(images) for images in translator.asked] == [16, 16, 16]
    chosen = others()[np.linspace(0, 69, 40).round().astype(int)]
    np.testing.assert_array_equal(np.concatenate(translator.asked)[:40], chosen)
    made = np.rint((np.clip(-1.1 * centred(chosen), -1, 1) + 1) * 127.5).astype(np.uint8)
    statistics = real(tmp_path).statistics()
    expected = distance.compare(Eye(), statistics, [made], samples=40, subset_size=20, subsets=5)
    assert found.scalars == pytest.approx(expected, rel=1e-9)
    entry = found.summary["distances"]
    assert entry.items() >= {**found.scalars, "direction": direction, "samples": 40, "real_images": 50}.items()
    assert "direction" not in report(tmp_path).summary["distances"]


@pytest.mark.parametrize("batch_size", [8, 40, 100])
def test_translations_do_not_depend_on_batches_and_all_of_a_set_will_do(tmp_path, batch_size):
    translator = Translator()
    found = translation_report(tmp_path, translator, count=40, batch_size=batch_size)
    np.testing.assert_array_equal(np.concatenate(translator.asked)[:40], others(40))
    assert {len(images) for images in translator.asked} == {batch_size}
    assert found.scalars == pytest.approx(translation_report(tmp_path, count=40).scalars, rel=1e-9)


def test_padding_is_not_translated(tmp_path):
    class Masked(Shelf):
        def batches(self):
            for images in np.split(self.images, 2):
                ragged = np.concatenate([images[:20], np.full((3, 4, 4, 1), 7, np.uint8), images[20:]])
                yield {"image": ragged, "mask": ~(ragged == 7).all(axis=(1, 2, 3))}

    translator = Translator()
    translated = distance.Translated(Masked(others(70)), "ab", centred)
    evaluator = distance.Distance(real(tmp_path), **{**COUNTS, "samples": 70, "translated": translated})
    evaluator({"translate_ab": translator}, STATE, None)
    np.testing.assert_array_equal(np.concatenate(translator.asked)[:70], others(70))


def test_translations_that_are_not_finite_give_an_alarm_and_no_numbers(tmp_path):
    found = translation_report(tmp_path, Translator(spoiled=others(40)[39]), count=40)
    assert not found.scalars and found.summary["distances"].items() >= {"not_finite": True, "direction": "ab"}.items()
    assert found.alarms[0].startswith("Translations 32 to 39 hold values that are not finite")


def test_what_cannot_be_translated_is_refused(tmp_path):
    with pytest.raises(types.UsageError, match="samples=40 of 39 images to translate; set samples to 39 or less"):
        translation_report(tmp_path, count=39)
    with pytest.raises(types.UsageError, match="direction='aa'; it is 'ab' or 'ba'"):
        translation_report(tmp_path, direction="aa")
    translated = distance.Translated(Shelf(others()), "ba", centred)
    with pytest.raises(types.UsageError, match="this method has no translate_ba; it has sample"):
        distance.Distance(real(tmp_path), **COUNTS, translated=translated)({"sample": Sampler()}, STATE, None)
