import dataclasses
import types as python_types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance

from ssl_jax import rng, sheet, trainer, types
from ssl_jax.evaluators import samples


@dataclasses.dataclass(frozen=True, eq=False)
class Shelf:
    """Images in memory, the last batch ragged and its padding poisonous."""

    images: np.ndarray
    targets: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    batch_size: int = 16

    @property
    def examples(self):
        return len(self.images)

    def labels(self):
        return np.full(self.examples, -1, np.int32) if self.targets is None else self.targets.astype(np.int32)

    def batches(self):
        for first in range(0, self.examples, self.batch_size):
            number = np.arange(first, first + self.batch_size)
            mask = number < self.examples
            image = self.images[np.minimum(number, self.examples - 1)].copy()
            image[~mask] = 255
            yield {"image": image, "label": self.labels()[np.minimum(number, self.examples - 1)], "mask": mask}


def pictures(count, seed=0, shape=(6, 5, 1)):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def centred(images):
    return images.astype(np.float32) / 127.5 - 1


def mean_of(inputs):
    return inputs["image"].mean(axis=(1, 2, 3))


REAL, HELD_OUT, FRESH = (pictures(100, seed) for seed in range(3))


class Contest:
    """Exports that answer from given images and a rule, and remember what they were asked.

    `made`: uint8 images, number i of any seed being image i (modulo how many there are), or floats as they are.
    `judge`: from what the discriminator is given, after the preprocessing, to logits.
    """

    def __init__(self, made, judge=mean_of):
        self.made, self.judge = made, judge
        self.tickets, self.judged, self.prepared = [], [], []
        self.exports = {"sample": self.sample, "discriminate": self.discriminate, "generate": None}

    def sample(self, state, tickets, preprocess):
        tickets = preprocess(tickets)
        self.tickets.append(tickets)
        made = self.made[tickets[:, 1] % len(self.made)]
        return centred(made) if made.dtype == np.uint8 else made

    def discriminate(self, state, inputs, preprocess):
        self.judged.append(inputs)
        self.prepared.append(preprocess)
        return np.asarray(self.judge(preprocess(inputs)), np.float32)


def report(made, judge=mean_of, step=1, real=REAL, **arguments):
    contest = Contest(made, judge)
    real = real if isinstance(real, Shelf) else Shelf(real)
    evaluator = samples.Samples(real, **{"preprocess": centred, "images": 100, **arguments})
    state = python_types.SimpleNamespace(step=np.int32(step))
    return evaluator(contest.exports, state, lambda: state), contest


def only_alarm(found):
    (alarm,) = found.alarms
    return alarm


def knows(images):
    """A discriminator that gives 1 to these images and 0 to all others."""
    known = {image.tobytes() for image in images}
    return lambda inputs: [float(sheet.as_bytes(image).tobytes() in known) for image in inputs["image"]]


def test_perfect_copies_look_perfect():
    found, _ = report(REAL, held_out=Shelf(HELD_OUT))
    scalars = found.scalars
    assert set(scalars) == {
        *("real_logit", "held_out_logit", "fake_logit"),
        *("separability", "memorised", "diversity", "nearest"),
    }
    for name in ("diversity", "nearest"):
        assert scalars[name] == pytest.approx(1)
    assert scalars["separability"] == 0.5
    assert scalars["memorised"] == pytest.approx(0.5, abs=0.12)
    assert scalars["real_logit"] == pytest.approx(centred(REAL).mean(), abs=1e-5)
    assert scalars["held_out_logit"] == pytest.approx(centred(HELD_OUT).mean(), abs=1e-5)
    assert scalars["fake_logit"] == scalars["real_logit"]
    assert all(type(value) is float for value in scalars.values())
    assert found.alarms == ()


def test_a_good_generator_raises_no_alarm():
    found, _ = report(FRESH)
    assert "memorised" not in found.scalars and "held_out_logit" not in found.scalars
    assert found.scalars["separability"] == pytest.approx(0.5, abs=0.12)
    assert found.scalars["diversity"] == pytest.approx(1, abs=0.03)
    assert found.scalars["nearest"] == pytest.approx(1, abs=0.05)
    assert found.alarms == ()


def test_scalars_are_those_of_the_definitions():
    made, held_out = np.concatenate([FRESH[:70], FRESH[:30] // 2]), HELD_OUT // 2 + 40
    found, _ = report(made, held_out=Shelf(held_out))
    logits = {name: mean_of({"image": centred(images)}) for name, images in (("real", REAL), ("fake", made))}
    held = mean_of({"image": centred(held_out)})

    def beats(some, others):
        return np.mean(some[:, None] > others) + np.mean(some[:, None] == others) / 2

    assert found.scalars["separability"] == pytest.approx(beats(logits["real"], logits["fake"]))
    assert found.scalars["memorised"] == pytest.approx(beats(logits["real"], held))
    apart = {}
    for name, images in (("real", REAL), ("fake", made)):
        pairs = distance.pdist(images.reshape(100, -1) / 255)
        lonely = distance.squareform(pairs) + np.diag(np.full(100, np.inf))
        apart[name] = pairs.mean(), np.median(lonely.min(axis=1))
    assert found.scalars["diversity"] == pytest.approx(apart["fake"][0] / apart["real"][0])
    assert found.scalars["nearest"] == pytest.approx(apart["fake"][1] / apart["real"][1])


@pytest.mark.parametrize(("different", "diversity"), [(1, 0), (2, 0.5), (3, 2 / 3), (10, 0.9)])
def test_a_collapse_to_few_images_raises_the_alarm(different, diversity):
    found, _ = report(FRESH[:different])
    alarm = only_alarm(found)
    for word in ("The generator has collapsed", "100 samples", "gradient penalty", "relativistic", "lower rate"):
        assert word in alarm
    # Of the pairs of two samples, a little more than 1 - 1/m are of different images.
    assert found.scalars["diversity"] == pytest.approx(diversity * 100 / 99, abs=0.12)
    assert found.scalars["nearest"] == pytest.approx(0, abs=1e-6)


def test_a_collapse_up_to_small_differences_raises_the_alarm_too():
    made = np.clip(FRESH[:3][np.arange(100) % 3].astype(int) + pictures(100, 5) % 8, 0, 255).astype(np.uint8)
    found, _ = report(made)
    assert 0 < found.scalars["nearest"] < 0.1
    assert "collapsed" in only_alarm(found)


def test_a_discriminator_that_has_won_raises_the_alarm():
    found, _ = report(FRESH, knows(REAL))
    assert found.scalars["separability"] == 1
    assert (found.scalars["real_logit"], found.scalars["fake_logit"]) == (1, 0)
    alarm = only_alarm(found)
    for word in ("The discriminator has won", "100.0000%", "gradient penalty", "fewer of its steps", "DiffAugment"):
        assert word in alarm


def test_when_it_has_won_is_an_argument():
    assert report(FRESH, knows(REAL), won_above=None)[0].alarms == ()
    almost = knows(REAL[:90])
    assert report(FRESH, almost)[0].alarms == ()
    assert report(FRESH, almost)[0].scalars["separability"] == pytest.approx(0.95)
    assert "95.0000%" in only_alarm(report(FRESH, almost, won_above=0.9)[0])


def test_a_discriminator_that_knows_its_images_by_heart_raises_the_alarm():
    # The samples are copies of the training images, so that it has not won as well.
    found, _ = report(REAL, knows(REAL), held_out=Shelf(HELD_OUT))
    assert found.scalars["memorised"] == 1
    alarm = only_alarm(found)
    for word in ("by heart", "held-out", "100.0%", "DiffAugment", "R1", "more images"):
        assert word in alarm
    assert report(REAL, knows(REAL))[0].alarms == ()


def test_several_troubles_are_all_told():
    found, _ = report(FRESH[:1], knows(REAL), held_out=Shelf(HELD_OUT))
    assert len(found.alarms) == 3


def test_nothing_is_said_before_the_first_update():
    found, _ = report(FRESH[:1], knows(REAL), held_out=Shelf(HELD_OUT), step=0)
    assert found.alarms == ()
    assert found.scalars["separability"] == 1


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_raise_an_alarm_and_no_curve(wrong):
    made = centred(FRESH)
    made[3, 2, 1, 0] = made[99, 0, 0, 0] = made[99, 0, 1, 0] = wrong
    found, _ = report(made)
    alarm = only_alarm(found)
    assert "2 of 100 samples hold values that are not finite" in alarm and "checkpoint" in alarm
    assert found.scalars == {} and found.images == {}


def test_noise_is_fixed_and_asked_for_in_batches_of_one_size():
    found, contest = report(FRESH, seed=9, images=50, grid=70, columns=10, batch_size=32)
    assert [len(tickets) for tickets in contest.tickets] == [32, 32, 32]
    assert all(tickets.dtype == np.int32 for tickets in contest.tickets)
    tickets = np.concatenate(contest.tickets)
    np.testing.assert_array_equal(tickets[:70], np.stack([np.full(70, 9), np.arange(70)], axis=1))
    assert {len(inputs["image"]) for inputs in contest.judged} == {32}
    np.testing.assert_array_equal(found.images["samples"], sheet.grid(FRESH[:70], 10))
    again, _ = report(FRESH, seed=9, images=50, grid=70, columns=10, batch_size=32)
    assert again.scalars == found.scalars


def test_batches_do_not_change_what_is_found():
    whole, _ = report(FRESH, held_out=Shelf(HELD_OUT), batch_size=1000)
    parts, contest = report(FRESH, held_out=Shelf(HELD_OUT), batch_size=7)
    assert parts.scalars == pytest.approx(whole.scalars)
    assert {len(tickets) for tickets in contest.tickets} == {7}


def test_real_images_are_spread_over_their_sets_and_padding_does_not_count():
    _, contest = report(FRESH, images=20, grid=5, held_out=Shelf(HELD_OUT[:15]), batch_size=10)
    judged = [inputs["image"] for inputs in contest.judged]
    assert all(images.dtype == np.uint8 for images in judged)
    fake, real, held_out = np.split(np.concatenate(judged), [20, 40])
    np.testing.assert_array_equal(fake, FRESH[:20])
    np.testing.assert_array_equal(real, REAL[np.linspace(0, 99, 20).round().astype(int)])
    np.testing.assert_array_equal(held_out[:15], HELD_OUT[:15])
    assert len(held_out) == 20


def labelled(images, count=100, classes=4, **options):
    names = tuple("abcdefgh"[:classes])
    return Shelf(images, np.random.default_rng(len(images)).integers(0, classes, count), names, **options)


def test_classes_are_judged_by_their_labels():
    real, held_out = labelled(REAL), labelled(HELD_OUT[:60], 60)

    def judge(inputs):
        return 10.0 * inputs["label"] + mean_of(inputs)

    found, contest = report(FRESH, judge, real=real, held_out=held_out, images=40, grid=10, classes=4, batch_size=20)
    labels = [inputs["label"] for inputs in contest.judged]
    assert all(each.dtype == np.int32 for each in labels)
    np.testing.assert_array_equal(np.concatenate(labels[:2]), np.arange(40) % 4)
    chosen = np.linspace(0, 99, 40).round().astype(int)
    np.testing.assert_array_equal(np.concatenate(labels[2:4]), real.labels()[chosen])
    held = np.linspace(0, 59, 40).round().astype(int)
    np.testing.assert_array_equal(np.concatenate(labels[4:]), held_out.labels()[held])
    expected = np.mean(10.0 * real.labels()[chosen] + mean_of({"image": centred(REAL[chosen])}))
    assert found.scalars["real_logit"] == pytest.approx(expected, rel=1e-5)


def test_without_classes_the_discriminator_sees_no_labels():
    _, contest = report(FRESH, real=labelled(REAL))
    assert all(inputs.keys() == {"image"} for inputs in contest.judged)


class Brightness:
    """An extractor of the mean and the deviation, that remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, images):
        self.asked.append(images)
        features = np.stack([images.mean(axis=(1, 2, 3)), images.std(axis=(1, 2, 3))], axis=1)
        return features.astype(np.float32), None


def test_the_extractor_says_what_is_alike():
    extractor = Brightness()
    # Pixels that change place look different pixel by pixel, and the same by brightness.
    shuffled = np.stack([np.random.default_rng(i).permutation(FRESH[0].ravel()).reshape(6, 5, 1) for i in range(100)])
    assert report(shuffled)[0].alarms == ()
    found, _ = report(shuffled, extractor=extractor, batch_size=30)
    assert "collapsed" in only_alarm(found)
    assert found.scalars["diversity"] == pytest.approx(0, abs=1e-4)
    assert all(images.dtype == np.uint8 and len(images) == 30 for images in extractor.asked)
    seen = np.concatenate(extractor.asked)
    np.testing.assert_array_equal(seen[:100], REAL)
    np.testing.assert_array_equal(seen[120:220], shuffled)


def test_an_extractor_gives_distances_between_its_features():
    found, _ = report(FRESH, extractor=Brightness())
    features = [Brightness()(images)[0].astype(np.float64) for images in (FRESH, REAL)]
    expected = np.divide(*(distance.pdist(each).mean() for each in features))
    assert found.scalars["diversity"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: report(FRESH, images=9), "images=9 of 100 in real; it takes at least 10"),
        (lambda: report(FRESH, real=REAL[:9]), "images=100 of 9 in real; it takes at least 10"),
        (lambda: report(FRESH, held_out=Shelf(HELD_OUT[:5])), "images=100 of 5 in held_out"),
        (lambda: report(FRESH, classes=4), "classes=4, but real has images without a label"),
        (lambda: report(FRESH, real=labelled(REAL), classes=3), "classes=3, but real has 4"),
        (
            lambda: report(FRESH, real=labelled(REAL), held_out=Shelf(HELD_OUT), classes=4),
            "classes=4, but held_out has images without a label",
        ),
        (
            lambda: report(FRESH, real=labelled(REAL), held_out=labelled(HELD_OUT, classes=2), classes=4),
            "classes=4, but held_out has 2",
        ),
        (
            lambda: samples.Samples(Shelf(REAL), centred)({"logits": None, "features": None}, None, None),
            "makes no samples; it has features, logits",
        ),
    ],
)
def test_bad_arguments_are_refused(make, words):
    with pytest.raises(types.UsageError, match=words):
        make()


@dataclasses.dataclass(frozen=True)
class Scaled:
    """A preparation that is equal to another with the same scale, as those of configs are."""

    scale: float = 127.5

    def __call__(self, images):
        return images.astype(jnp.float32) / self.scale - 1.0


def test_on_compiled_exports_each_program_is_compiled_once(devices):
    traced = []

    def sample(state, tickets):
        traced.append("sample")
        draw = jax.vmap(lambda ticket: jax.random.uniform(rng.stream(ticket[0], "sample", ticket[1]), (6, 5, 1)))
        return 2.0 * draw(tickets) - 1.0

    def discriminate(state, inputs):
        traced.append("discriminate")
        return jnp.mean(inputs["image"], axis=(1, 2, 3)) + state.params["weight"] * inputs["label"]

    method = python_types.SimpleNamespace(exports={"sample": sample, "discriminate": discriminate})
    exports = trainer.compiled_exports(method, devices)
    state = types.TrainState(step=jnp.int32(3), params={"weight": jnp.float32(2)}, stats={}, opt={}, memory={})
    real = labelled(REAL)
    found = [
        samples.Samples(real, Scaled(), images=40, grid=10, classes=4, batch_size=16)(exports, state, None)
        for _ in range(2)
    ]
    assert sorted(traced) == ["discriminate", "sample"]
    assert found[0].scalars == found[1].scalars
    chosen = np.linspace(0, 99, 40).round().astype(int)
    expected = np.mean(centred(REAL[chosen]).mean(axis=(1, 2, 3)) + 2 * real.labels()[chosen])
    assert found[0].scalars["real_logit"] == pytest.approx(expected, rel=1e-5)
    assert found[0].alarms == ()


TREES = """
import types
import jax.numpy as jnp
import numpy as np
from ssl_jax import mesh, trainer

def export(state, inputs):
    return state + inputs["image"].sum(axis=(1, 2)) * inputs["more"][0].astype(jnp.float32)

def halved(inputs):
    return {**inputs, "image": inputs["image"] / 2}

devices = mesh.data_parallel(4)
exports = trainer.compiled_exports(types.SimpleNamespace(exports={"one": export}), devices)
for count in (1, 4, 6, 8):
    image = np.arange(count * 6, dtype=np.float32).reshape(count, 2, 3)
    label = np.arange(count, dtype=np.int32) + 1
    found = exports["one"](jnp.float32(1), {"image": image, "more": (label,)}, halved)
    assert isinstance(found, np.ndarray) and found.shape == (count,), found
    np.testing.assert_allclose(found, 1 + image.sum(axis=(1, 2)) / 2 * label)
    plain = trainer.compiled_exports(
        types.SimpleNamespace(exports={"one": lambda state, images: state + images.sum(axis=(1, 2))}), devices
    )["one"](jnp.float32(1), image, jnp.negative)
    np.testing.assert_allclose(plain, 1 - image.sum(axis=(1, 2)))
print("alike")
"""


def test_exports_take_trees_of_any_length_on_several_devices(child):
    assert child(TREES, devices=4).stdout.strip() == "alike"


def test_samples_of_another_size_than_the_images_are_refused():
    contest = Contest(pictures(100, shape=(3, 3, 1)))
    with pytest.raises(types.UsageError, match=r"samples are \(3, 3, 1\) and real images \(6, 5, 1\)"):
        samples.Samples(Shelf(REAL), centred, images=50)(contest.exports, python_types.SimpleNamespace(step=1), None)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_discriminator_that_has_diverged_is_said(value):
    found, _ = report(FRESH, judge=lambda inputs: np.full(len(inputs["image"]), value))
    assert found.scalars == {} and "logits are not finite" in found.alarms[0] and "samples" in found.images


@pytest.mark.parametrize("field", ["grid", "columns", "batch_size"])
def test_nothing_is_no_number_of_samples(field):
    with pytest.raises(types.UsageError, match=f"{field}=0"):
        samples.Samples(Shelf(REAL), centred, **{field: 0})
