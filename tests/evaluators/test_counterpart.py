import dataclasses
import types as python_types

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import augment, sheet, trainer, types
from ssl_jax.analysis import translation
from ssl_jax.evaluators import counterpart

NAMES = ("dark", "light")


def pictures(count=23, seed=0, channels=1):
    """Of class 0 the pixels are below 100, of class 1 above 150; the classes come in turns."""
    low = np.random.default_rng(seed).integers(0, 100, (count, 6, 5, channels))
    return (low + 155 * (np.arange(count) % 2).reshape(-1, 1, 1, 1)).astype(np.uint8)


A = pictures()
B = 255 - np.repeat(A, 3, axis=-1)
LABELS = (np.arange(len(A)) % 2).astype(np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs in memory, the last batch ragged and its padding poisonous."""

    a: np.ndarray = dataclasses.field(default_factory=lambda: A)
    b: np.ndarray = dataclasses.field(default_factory=lambda: B)
    label: np.ndarray = dataclasses.field(default_factory=lambda: LABELS)
    class_names: tuple[str, ...] = NAMES
    batch_size: int = 10

    @property
    def examples(self):
        return len(self.a)

    def labels(self):
        return self.label

    def batches(self):
        for first in range(0, self.examples, self.batch_size):
            number = np.arange(first, first + self.batch_size)
            mask, number = number < self.examples, np.minimum(number, self.examples - 1)
            batch = {"image_a": self.a[number], "image_b": self.b[number], "label": self.label[number], "mask": mask}
            for name in ("image_a", "image_b"):
                batch[name][~mask] = 77
            yield batch


@dataclasses.dataclass
class Reader:
    """Takes bright pictures for one class and the others for another."""

    dark: int
    class_names: tuple[str, ...] = NAMES
    with_logits: bool = True
    name: str = "encoder"
    digest: str = "a"
    resize: str = "none"

    def __call__(self, images):
        assert images.dtype == np.uint8
        bright = images.mean(axis=(1, 2, 3), keepdims=True).reshape(-1, 1) > 127
        logits = np.where(bright ^ (self.dark == 1), [[0.0, 1.0]], [[1.0, 0.0]]).astype(np.float32)
        return logits, logits if self.with_logits else None

    def describe(self):
        return f"a reader whose dark is {self.dark}"


def centred(images):
    return np.asarray(images, np.float32) / 127.5 - 1


def right_ab(images):
    return -np.repeat(images, 3, axis=-1)


def right_ba(images):
    return -images[..., :1]


def report(ab=right_ab, ba=right_ba, pairs=None, **arguments):
    asked = []

    def export(rule):
        def call(state, images, preprocess):
            asked.append(images)
            return np.asarray(rule(preprocess(images)), np.float32)

        return call

    exports = {"translate_ab": export(ab), "translate_ba": export(ba)}
    evaluator = counterpart.Counterpart(pairs or Pairs(), **{"preprocess": centred, **arguments})
    return evaluator(exports, python_types.SimpleNamespace(step=1), None), asked


READERS = {"reader_a": Reader(dark=0), "reader_b": Reader(dark=1)}


def test_the_right_map_gets_the_highest_numbers():
    found, _ = report(**READERS)
    assert found.scalars == {
        **{"psnr_ab": 100, "psnr_ba": 100, "error_ab": 0, "error_ba": 0},
        **{"read_ab": 1, "read_ba": 1, "read_real_a": 1, "read_real_b": 1},
    }
    assert found.alarms == ()
    assert all(type(value) is float for value in found.scalars.values())


def off_ab(images):
    return right_ab(images) * 0.9 + 0.05


def off_ba(images):
    return right_ba(images) * 0.7


def test_numbers_are_over_all_pairs_and_padding_does_not_count():
    found, asked = report(off_ab, off_ba)
    made = {"ab": sheet.as_bytes(off_ab(centred(A))), "ba": sheet.as_bytes(off_ba(centred(B)))}
    expected = {
        "psnr_ab": translation.psnr(made["ab"], B),
        "psnr_ba": translation.psnr(made["ba"], A),
        "error_ab": translation.pixel_error(made["ab"], B),
        "error_ba": translation.pixel_error(made["ba"], A),
    }
    assert found.scalars == pytest.approx(expected)
    assert {len(images) for images in asked} == {10}
    assert not any((images == 77).all(axis=(1, 2, 3)).any() for images in asked)


@pytest.mark.parametrize("batch_size", [3, 10, 64])
def test_batches_do_not_change_what_is_found(batch_size):
    found, asked = report(off_ab, off_ba, batch_size=batch_size, **READERS)
    assert found.scalars == pytest.approx(report(off_ab, off_ba, **READERS)[0].scalars)
    assert {len(images) for images in asked} == {min(batch_size, 10)}


def test_what_is_read_is_the_translation_and_the_ceiling_is_the_real_image():
    # Only the first four pictures keep their class on the way to B; the reader of A mistakes dark for light.
    def some(images):
        made = right_ab(images)
        made[4:] = -made[4:]
        return made

    pairs = Pairs(A[:10], B[:10], LABELS[:10])
    found, _ = report(some, pairs=pairs, reader_b=Reader(dark=1), reader_a=Reader(dark=1))
    assert found.scalars["read_ab"] == pytest.approx(0.4) and found.scalars["read_real_b"] == 1
    assert found.scalars["read_ba"] == 0 and found.scalars["read_real_a"] == 0
    one, _ = report(pairs=pairs, reader_b=Reader(dark=1))
    assert {"read_ab", "read_real_b"} <= one.scalars.keys() and not {"read_ba", "read_real_a"} & one.scalars.keys()
    assert "read_ab" not in report()[0].scalars


def test_the_summary_has_the_numbers_and_what_they_depend_on():
    found, _ = report(off_ab, name="digits", **READERS)
    (entry,) = found.summary.values()
    assert list(found.summary) == ["digits"] and entry.items() >= found.scalars.items()
    assert entry["examples"] == 23
    assert (entry["reader_a"], entry["reader_b"]) == ("a reader whose dark is 0", "a reader whose dark is 1")


def test_pictures_have_image_translation_and_truth_in_a_row():
    found, _ = report(off_ab, off_ba, batch_size=4)
    assert set(found.images) == {"a_to_b", "b_to_a"}
    grey = np.repeat(A, 3, axis=-1)
    cells = [row for i in range(10) for row in (grey[i], sheet.as_bytes(off_ab(centred(A[i]))), B[i])]
    np.testing.assert_array_equal(found.images["a_to_b"], sheet.grid(np.stack(cells), 3))
    back = np.repeat(sheet.as_bytes(off_ba(centred(B))), 3, axis=-1)
    cells = [row for i in range(10) for row in (B[i], back[i], grey[i])]
    np.testing.assert_array_equal(found.images["b_to_a"], sheet.grid(np.stack(cells), 3))
    few, _ = report(pairs=Pairs(A[:2], B[:2], LABELS[:2]))
    assert few.images["a_to_b"].shape == (2 * 60 + 2, 3 * 50 + 4, 3)


def test_the_truth_is_prepared_as_the_image_is():
    a = np.repeat(A, 3, axis=-1)
    found, _ = report(lambda x: -x, lambda x: -x, Pairs(a, 255 - a), preprocess=augment.Plain(size_px=4))
    assert found.scalars["error_ab"] < 0.003 and found.images["a_to_b"].shape == (10 * 64 + 18, 3 * 64 + 4, 3)


def test_translations_that_are_not_finite_give_an_alarm_and_no_numbers():
    def spoiled(images):
        images = right_ab(images)
        images[1, 0, 0, 0] = np.nan
        return images

    found, _ = report(spoiled, **READERS)
    assert found.scalars == {} and found.images == {}
    assert found.summary == {"counterpart": {"examples": 23, "not_finite": 3}}
    assert "3 of 46 translations of 'counterpart' hold values that are not finite" in found.alarms[0]


def test_on_compiled_exports_each_program_is_compiled_once(devices):
    traced = []

    def translate(state, images):
        traced.append(1)
        return jnp.repeat(-images, 3, axis=-1) if images.shape[-1] == 1 else -images[..., :1]

    method = python_types.SimpleNamespace(exports={"translate_ab": translate, "translate_ba": translate})
    exports = trainer.compiled_exports(method, devices)
    state = types.TrainState(step=jnp.int32(3), params={}, stats={}, opt={}, memory={})
    found = counterpart.Counterpart(Pairs(), augment.Plain(), batch_size=8)(exports, state, None)
    assert found.scalars["psnr_ab"] == found.scalars["psnr_ba"] == 100
    assert len(traced) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"name": ""}, "name=''"),
        ({"pairs": Pairs(A[:0], B[:0])}, "0 pairs"),
        (
            {"reader_a": Reader(0, ("dark", "bright"))},
            "reader_a knows the classes dark, bright and the pairs have dark",
        ),
        ({"reader_b": Reader(0, ())}, "reader_b knows the classes none"),
        ({"pairs": Pairs(label=LABELS - 1), "reader_b": Reader(0)}, "without a label cannot be read; leave reader_b"),
        ({"reader_b": Reader(0, with_logits=False)}, "reader_b has features alone, no logits"),
        ({"ab": lambda images: images}, r"translations from A are \(6, 5, 1\) and their truths \(6, 5, 3\)"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, words):
    with pytest.raises(types.UsageError, match=words):
        report(**arguments)


def test_other_methods_are_refused():
    with pytest.raises(types.UsageError, match="does not translate; it has features"):
        counterpart.Counterpart(Pairs(), centred)({"features": None}, None, None)
