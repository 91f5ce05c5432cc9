"""Chosen and joined records: the same images as the source's, under the labels that were asked for."""

import numpy as np
import pytest

from ssl_jax import fingerprint, subsets
from ssl_jax.data import digits, feed, source
from ssl_jax.data.selection import Joined, Selection, read_guesses
from ssl_jax.types import RunError, UsageError


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    digits.ensure(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def scans(data_dir):
    return source.open_source("digits", "train", data_dir)


def test_a_selection_reads_the_rows_it_was_given(scans):
    rows = np.array([5, 3, 5, 1399])
    chosen, everything = Selection(scans, rows), scans.read_all()
    np.testing.assert_array_equal(chosen.read_all()["image"], everything["image"][rows])
    np.testing.assert_array_equal(chosen.labels(), everything["label"][rows])
    assert chosen.examples == len(chosen) == 4 and chosen.class_names == scans.class_names
    np.testing.assert_array_equal(chosen[1]["image"], everything["image"][3])
    assert chosen.describe(1) == scans.describe(3)
    assert chosen.bytes_when_resident == 4 * 64


def test_other_labels_stand_in_everywhere(scans):
    chosen = Selection(scans, np.array([0, 1]), np.array([7, 8]))
    assert chosen.read_all()["label"].tolist() == chosen.labels().tolist() == [7, 8]
    assert [chosen.read(0)["label"], chosen.read(1)["label"]] == [7, 8]


def test_joined_sources_are_one_after_the_other(scans, data_dir):
    tests = source.open_source("digits", "test", data_dir)
    joined = Joined(Selection(scans, np.array([9, 8])), tests)
    assert joined.examples == 399
    arrays = joined.read_all()
    np.testing.assert_array_equal(arrays["image"][:2], scans.read_rows(np.array([9, 8]))["image"])
    np.testing.assert_array_equal(arrays["image"][2:], tests.read_all()["image"])
    np.testing.assert_array_equal(joined.read_rows(np.array([5, 0]))["label"], arrays["label"][[5, 0]])
    assert joined.read(1)["label"] == arrays["label"][1] and joined.describe(2) == tests.describe(0)


@pytest.mark.parametrize("rows", [[], [-1], [1400]])
def test_rows_that_are_not_there_are_refused(scans, rows):
    with pytest.raises(UsageError, match="digits"):
        Selection(scans, np.array(rows, int))


@pytest.mark.parametrize("feeding", ["resident", "stream"])
def test_a_feed_without_a_class_shows_no_image_of_it(data_dir, scans, feeding, devices):
    made = feed.training("digits", "train", 100, feeding=feeding, data_dir=data_dir, without=("3", "8"))
    everything = scans.read_all()
    kept = ~np.isin(everything["label"], [3, 8])
    assert made.examples == kept.sum() and kept.sum() < 1400
    allowed = {image.tobytes() for image in everything["image"][kept]}
    batches = made.batches(devices, 0, 0)
    seen = set()
    for _ in range(made.examples // 100):
        seen |= {np.asarray(image).tobytes() for image in next(batches)["image"]}
    batches.close()
    assert seen <= allowed and len(seen) > 1000


def test_a_class_to_leave_out_must_be_there(data_dir):
    with pytest.raises(UsageError, match="no class 'ten' to leave out; its classes: 0, 1"):
        feed.training("digits", "train", 8, data_dir=data_dir, without=("ten",))
    with pytest.raises(UsageError, match="no image is left without"):
        feed.training("digits", "train", 8, data_dir=data_dir, without=tuple("0123456789"))


@pytest.mark.parametrize("feeding", ["resident", "stream"])
def test_a_feed_of_few_labels_shows_those_images_and_no_others(data_dir, scans, feeding, devices):
    made = feed.training(
        "digits", "train", 32, feeding=feeding, data_dir=data_dir, labels=subsets.Subset(per_class=2, seed=3)
    )
    rows = made.chosen["labelled"]
    everything = scans.read_all()
    assert np.bincount(everything["label"][rows]).tolist() == [2] * 10
    assert made.examples == 40, "20 images are repeated until they fill a batch"
    allowed = {everything["image"][row].tobytes(): everything["label"][row] for row in rows}
    batches = made.batches(devices, 0, 0)
    seen = set()
    for _ in range(3):
        batch = {name: np.asarray(array) for name, array in next(batches).items()}
        for image, label in zip(batch["image"], batch["label"], strict=True):
            assert allowed[image.tobytes()] == label
            seen.add(image.tobytes())
    batches.close()
    assert len(seen) == 20


def test_labelled_images_are_not_test_images(data_dir, scans):
    rows = subsets.Subset(per_class=100).draw(scans.labels(), scans.class_names)
    chosen = {image.tobytes() for image in scans.read_rows(rows)["image"]}
    tests = source.open_source("digits", "test", data_dir).read_all()["image"]
    assert len(chosen) == 1000 and not chosen & {image.tobytes() for image in tests}


def test_guesses_join_the_labelled_images(data_dir, scans, tmp_path, devices):
    file = tmp_path / "guesses.npz"
    np.savez(file, rows=np.array([100, 200, 300]), labels=np.array([9, 9, 9], np.int32))
    expected = fingerprint.sha256({"rows": np.array([100, 200, 300]), "labels": np.array([9, 9, 9], np.int32)})
    guesses = feed.Guesses(str(file), expected, "digits", "train", data_dir)
    made = feed.training("digits", "train", 13, data_dir=data_dir, labels=subsets.Subset(per_class=1), guesses=guesses)
    assert made.examples == 13 and made.chosen["guessed"].tolist() == [100, 200, 300]
    batches = made.batches(devices, 0, 0)
    batch = {name: np.asarray(array) for name, array in next(batches).items()}
    guessed = {image.tobytes() for image in scans.read_rows(np.array([100, 200, 300]))["image"]}
    under_nine = {image.tobytes() for image, label in zip(batch["image"], batch["label"], strict=True) if label == 9}
    assert guessed < under_nine and len(under_nine) == 4


def test_damaged_guesses_are_one_line(tmp_path):
    with pytest.raises(UsageError, match="no file"):
        read_guesses(str(tmp_path / "x.npz"), 3)
    (tmp_path / "x.npz").write_bytes(b"PK\3\4 nonsense")
    with pytest.raises(UsageError, match=r"no \.npz file"):
        read_guesses(str(tmp_path / "x.npz"), 3)
    np.savez(tmp_path / "y.npz", rows=np.array([1]), labels=np.array([3]))
    with pytest.raises(UsageError, match=r"0\.\.2"):
        read_guesses(str(tmp_path / "y.npz"), 3)


def test_a_set_that_is_not_the_expected_one_is_refused(data_dir):
    names = tuple("0123456789")
    feed.training("digits", "train", 8, data_dir=data_dir, class_names=names, image_shape=(8, 8, 1))
    with pytest.raises(UsageError, match="lacks ten and has 9 beside"):
        feed.Evaluation("digits", "test", data_dir=data_dir, class_names=(*names[:9], "ten"))
    with pytest.raises(UsageError, match="orders them otherwise"):
        feed.Evaluation("digits", "test", data_dir=data_dir, class_names=names[::-1])
    with pytest.raises(UsageError, match=r"images of 1 channel\(s\), and the run takes 3"):
        feed.Evaluation("digits", "test", data_dir=data_dir, image_shape=(8, 8, 3))
    with pytest.raises(UsageError, match="made for"):
        feed.training("digits", "train", 8, data_dir=data_dir, image_shape=(9, 9, 1))
    feed.Evaluation("digits", "test", data_dir=data_dir, image_shape=(9, 9, 1))


def test_guesses_that_are_others_than_before_are_refused(data_dir, tmp_path):
    np.savez(tmp_path / "guesses.npz", rows=np.array([1]), labels=np.array([2], np.int32))
    guesses = feed.Guesses(str(tmp_path / "guesses.npz"), "0" * 64, "digits", "train", data_dir)
    with pytest.raises(UsageError, match="other pseudo-labels than this run began with"):
        feed.training("digits", "train", 8, data_dir=data_dir, guesses=guesses)


def test_records_are_the_same_in_every_split_that_holds_them(data_dir):
    def records(split):
        return source.open_source("digits", split, data_dir).records()

    whole = records("train")
    assert len(set(whole)) == 1400
    np.testing.assert_array_equal(records("train[100:110]"), whole[100:110])
    np.testing.assert_array_equal(records("train[-5:]+test")[:5], whole[-5:])
    assert not set(whole) & set(records("test"))


@pytest.mark.parametrize("feeding", ["resident", "stream"])
def test_an_unlabelled_record_does_not_train_as_some_class(scans, feeding, devices, monkeypatch, data_dir):
    read = source.Source._decode
    spoilt = scans.read_all()["image"][77].tobytes()

    def decode(self, index, record):
        decoded = read(self, index, record)
        return {**decoded, "label": -1} if decoded["image"].tobytes() == spoilt else decoded

    monkeypatch.setattr(source.Source, "_decode", decode)
    names = tuple("0123456789")
    with pytest.raises((UsageError, RunError), match=r"record 77.* has label -1, outside 0\.\.9"):
        made = feed.training("digits", "train[:128]", 64, feeding=feeding, data_dir=data_dir, class_names=names)
        batches = made.batches(devices, 0, 0)
        for _ in range(2):
            next(batches)
