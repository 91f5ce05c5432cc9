"""`data.prepare` and `experiments.prepare`: image folders, official builders, TFRecord copies."""

import errno
import gzip
import hashlib
import io
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import time
import zipfile

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle
from tensorflow_datasets.core.download import checksums, extractor

from ssl_jax import types
from ssl_jax.data import catalog, folder, prepare, source, tfrecord, unpaired, write

ROOT = pathlib.Path(__file__).resolve().parents[2]


def pixels(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path, array, kind="PNG", mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = PIL.Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, kind, **options)
    return path


def expect(message, make, *arguments, error=types.UsageError, **named):
    with pytest.raises(error, match=message) as caught:
        make(*arguments, **named)
    assert "\n" not in str(caught.value)


def by_id(data_dir, name, split="train"):
    """The records of a prepared set by their `id`, with the stored bytes beside what `Source` reads."""
    opened = source.open_source(name, split, str(data_dir))
    directory = catalog.find(name, str(data_dir))
    raw = tfds.builder_from_directory(directory).as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    return {raw[i]["id"].decode(): (raw[i]["image"], opened[i]) for i in range(len(opened))}


@pytest.fixture
def photos(tmp_path):
    """Six colour images of 8x10 in the classes `cat` and `dog`."""
    for index in range(6):
        save(tmp_path / "photos" / ("cat", "dog")[index % 2] / f"{index}.png", pixels(index, 8, 10, 3))
    return tmp_path / "photos"


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


def test_class_folders_round_trip(photos, data_dir):
    made = prepare.images(str(photos), "mine", str(data_dir))
    assert made.directory == data_dir / "mine" / "1.0.0"
    opened = source.open_source("mine", "train", str(data_dir))
    assert (opened.class_names, opened.image_shape, opened.examples) == (("cat", "dog"), (8, 10, 3), 6)
    records = by_id(data_dir, "mine")
    assert set(records) == {f"{('cat', 'dog')[i % 2]}/{i}.png" for i in range(6)}
    for index in range(6):
        stored, record = records[f"{('cat', 'dog')[index % 2]}/{index}.png"]
        assert stored == (photos / ("cat", "dog")[index % 2] / f"{index}.png").read_bytes()
        np.testing.assert_array_equal(record["image"], pixels(index, 8, 10, 3))
        assert record["label"] == index % 2
    assert [path.name for path in data_dir.iterdir()] == ["mine"]
    text = "\n".join(made.lines(str(data_dir)))
    assert "splits:  train 6" in text and "2 (cat, dog)" in text and "8 x 10 x 3" in text
    assert f'"name": "mine", "split": "train", "data_dir": "{data_dir}"' in text


def test_split_folders(tmp_path, data_dir):
    for split, count in (("train", 3), ("Test", 2), ("val", 1)):
        for index in range(count):
            save(tmp_path / "in" / split / "b" / f"{index}.png", pixels(index, 4, 4, 3))
    save(tmp_path / "in" / "train" / "a" / "deep" / "down" / "x.png", pixels(9, 4, 4, 3))
    prepare.images(str(tmp_path / "in"), "mine", str(data_dir))
    lengths = {split: len(source.open_source("mine", split, str(data_dir))) for split in ("train", "test", "val")}
    assert lengths == {"train": 4, "test": 2, "val": 1}
    assert by_id(data_dir, "mine")["train/a/deep/down/x.png"][1]["label"] == 0
    assert source.open_source("mine", "test", str(data_dir))[0]["label"] == 1


def test_unlabelled_folders_and_sizes_that_vary(tmp_path, data_dir):
    save(tmp_path / "in" / "a.png", pixels(0, 4, 5))
    save(tmp_path / "in" / "b.png", pixels(1, 6, 5))
    prepare.images(str(tmp_path / "in"), "flat", str(data_dir))
    opened = source.open_source("flat", "train", str(data_dir))
    assert (opened.class_names, opened.image_shape) == ((), (None, None, 1))
    np.testing.assert_array_equal(by_id(data_dir, "flat")["b.png"][1]["image"][..., 0], pixels(1, 6, 5))
    for split in ("train", "test"):
        save(tmp_path / "two" / split / "a.png", pixels(0, 4, 5))
    prepare.images(str(tmp_path / "two"), "two", str(data_dir))
    opened = source.open_source("two", "test", str(data_dir))
    assert (opened.class_names, opened.image_shape, opened[0]["label"]) == ((), (4, 5, 1), -1)


def test_an_unlabelled_split_beside_a_labelled_one(photos, tmp_path, data_dir):
    photos.rename(tmp_path / "train")
    (tmp_path / "in").mkdir()
    (tmp_path / "train").rename(tmp_path / "in" / "train")
    save(tmp_path / "in" / "test" / "x.png", pixels(7, 8, 10, 3))
    prepare.images(str(tmp_path / "in"), "mine", str(data_dir))
    assert source.open_source("mine", "test", str(data_dir))[0]["label"] == -1
    assert sorted(record["label"] for _, record in by_id(data_dir, "mine").values()) == [0, 0, 0, 1, 1, 1]


def test_all_formats_as_pillow_reads_them(tmp_path, data_dir):
    base = pixels(0, 16, 12, 3)
    root = tmp_path / "in"
    save(root / "rgb.JPG", base, "JPEG")
    save(root / "grey.jpeg", base, "JPEG", "L")
    save(root / "cmyk.jpg", base, "JPEG", "CMYK")
    save(root / "alpha.png", base, "PNG", "RGBA")
    save(root / "palette.PNG", base, "PNG", "P")
    save(root / "web.webp", base, "WEBP")
    save(root / "jpeg_inside.png", base, "JPEG")
    save(root / "no_extension", base, "PNG")
    save(root / "odd.dat", base, "WEBP")
    save(root / "deep.png", np.random.default_rng(0).integers(0, 65536, (16, 12), np.uint16))
    save(root / ".hidden.png", base)
    made = prepare.images(str(root), "formats", str(data_dir))
    assert made.notes == ()
    records = by_id(data_dir, "formats")
    assert len(records) == 10
    for name, (stored, record) in records.items():
        assert stored == (root / name).read_bytes()
        with PIL.Image.open(root / name) as picture:
            if name == "deep.png":
                expected = np.repeat(np.asarray(picture)[..., None] >> 8, 3, -1)
            else:
                expected = np.asarray(picture.convert("RGB"))
        assert np.abs(record["image"].astype(int) - expected).max() <= (1 if name == "cmyk.jpg" else 0), name


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_photographs_are_stored_upright(tmp_path, data_dir, orientation, mode):
    tags = PIL.Image.Exif()
    tags[0x0112] = orientation
    path = save(tmp_path / "in" / "a.jpg", pixels(0, 16, 24, 3), "JPEG", mode, exif=tags)
    prepare.images(str(path.parent), "photos", str(data_dir))
    stored, record = by_id(data_dir, "photos")["a.jpg"]
    as_stored = np.asarray(PIL.Image.open(path)).reshape(16, 24, -1)
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: 3, 7: 3, 8: 1}[orientation]
    mirrored = as_stored[:, ::-1] if orientation in (2, 4) else as_stored
    upright = np.rot90(mirrored, turns)
    # 5 and 7 are the transposes over the two diagonals.
    upright = {5: as_stored.transpose(1, 0, 2), 7: as_stored[::-1, ::-1].transpose(1, 0, 2)}.get(orientation, upright)
    np.testing.assert_array_equal(record["image"], upright)
    assert (stored == path.read_bytes()) == (orientation == 1)
    assert source.open_source("photos", "train", str(data_dir)).image_shape == record["image"].shape
    with PIL.Image.open(io.BytesIO(stored)) as picture:
        assert picture.getexif().get(0x0112, 1) == 1 or orientation == 1


def break_one(photos):
    path = photos / "cat" / "2.png"
    path.write_bytes(path.read_bytes()[:-40])
    return path


def test_a_broken_file_is_fatal_before_anything_is_written(photos, data_dir):
    path = break_one(photos)
    expect(rf"broken image {path}: .*nothing was written.*--broken=skip", prepare.images, photos, "mine", str(data_dir))
    assert not data_dir.exists()


def test_broken_files_are_skipped_by_choice(photos, data_dir):
    path = break_one(photos)
    (photos / "dog" / "not.JPG").write_text("<html>not found</html>")
    (photos / "dog" / "empty.png").touch()
    (photos / "dog" / "gone.png").symlink_to("nowhere")
    cut = save(photos / "cat" / "cut.jpg", pixels(0, 256, 256, 3), "JPEG")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    made = prepare.images(str(photos), "mine", str(data_dir), broken="skip")
    text = "\n".join(made.notes)
    assert f"skipped broken image {path}" in text and f"skipped broken image {cut}" in text
    assert "not.JPG: neither PNG, JPEG nor WebP inside" in text
    assert made.notes[-1] == "skipped 5 broken of 10 files"
    assert len(by_id(data_dir, "mine")) == 5


@pytest.mark.parametrize("blind", ["OpenCV", "Pillow"])
def test_either_decoder_finds_a_broken_file(photos, data_dir, monkeypatch, blind):
    if blind == "OpenCV":
        path = save(photos / "cat" / "cut.jpg", pixels(0, 8, 10, 3), "JPEG")
        path.write_bytes(path.read_bytes()[:-40])
        monkeypatch.setattr(folder.transforms, "decode", lambda data, channels: np.zeros((8, 10, channels), np.uint8))
    else:
        path = break_one(photos)
        monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: None)
        monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.getexif", lambda self: {})
    expect(rf"broken image {path}: ", prepare.images, photos, "mine", str(data_dir))


def test_other_files_are_named(photos, data_dir):
    (photos / "cat" / "notes.txt").write_text("a cat")
    save(photos / "dog" / "moving.gif", pixels(0, 4, 4), "GIF")
    (photos / "labels.csv").write_text("x")
    made = prepare.images(str(photos), "mine", str(data_dir))
    assert made.notes == ("left out 3 files that are no images: cat/notes.txt, dog/moving.gif, labels.csv",)


def test_unusable_folders(tmp_path, photos, data_dir):
    def refuse(message, root, name="mine"):
        expect(message, prepare.images, str(root), name, str(data_dir))
        assert not data_dir.exists()

    refuse(r"nowhere is not a folder", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refuse(r"empty holds no images: PNG, JPEG and WebP are read; it is empty", tmp_path / "empty")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    refuse(r"texts holds no images.*it holds a.txt", tmp_path / "texts")
    for name in ("mi-ne", "mine:1.0.0", "a/b", "", "digits"):
        refuse(r"--name=|is no data set's name", photos, name)
    (photos / "bird").mkdir()
    refuse(r"class folder \S*bird holds no images .*: fill it or remove it", photos)
    (photos / "bird").rmdir()
    save(photos / "loose.png", pixels(0, 4, 4))
    refuse(r"photos holds loose images \(loose.png\) beside class folders \(cat, dog\)", photos)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "x.png").write_text("x")
    expect(r"every image of split 'train' .*broken", prepare.images, tmp_path / "one", "one", str(data_dir), "skip")


def test_the_same_name_again(photos, data_dir):
    make = lambda **named: prepare.images(str(photos), "mine", str(data_dir), **named)  # noqa: E731
    shards = {path: path.read_bytes() for path in make().directory.iterdir()}
    again = "nothing to do; if it is damaged, replace it with --overwrite"
    assert make().notes == (f"already prepared from these files, {again}",)
    os.utime(photos / "cat" / "0.png")
    assert make().notes == (f"already prepared from the same images, {again}",)
    save(photos / "cat" / "0.png", pixels(99, 8, 10, 3))
    expect(r"1.0.0 was prepared from other images .*--overwrite, or take another --name", make)
    assert {path: path.read_bytes() for path in (data_dir / "mine" / "1.0.0").iterdir()} == shards
    make(overwrite=True)
    np.testing.assert_array_equal(by_id(data_dir, "mine")["cat/0.png"][1]["image"], pixels(99, 8, 10, 3))
    assert [path.name for path in data_dir.iterdir()] == ["mine"]


@pytest.mark.parametrize("fails", ["writing", "renaming"])
def test_a_failure_leaves_the_earlier_set_alone(photos, data_dir, monkeypatch, fails):
    before = {
        path: path.read_bytes() for path in prepare.images(str(photos), "mine", str(data_dir)).directory.iterdir()
    }
    save(photos / "cat" / "0.png", pixels(99, 8, 10, 3))
    real, target = os.rename, data_dir / "mine" / "1.0.0"

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full_for_the_new_one(old, new):
        # The earlier folder is already aside by then.
        return full() if new == target and pathlib.Path(old).name == "1.0.0" else real(old, new)

    if fails == "writing":
        monkeypatch.setattr(folder, "content", full)
    else:
        monkeypatch.setattr(os, "rename", full_for_the_new_one)
    expect(
        rf"the disk of {data_dir} is full",
        prepare.images,
        str(photos),
        "mine",
        str(data_dir),
        overwrite=True,
        error=types.RunError,
    )
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in target.iterdir()} == before
    assert [path.name for path in data_dir.iterdir()] == ["mine"]


@pytest.mark.parametrize("touched", [False, True], ids=["same files", "same images"])
def test_a_damaged_set_is_rebuilt_with_overwrite(photos, data_dir, touched):
    made = prepare.images(str(photos), "mine", str(data_dir)).directory
    shard = next(made.glob("*.array_record*"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    if touched:
        os.utime(photos / "cat" / "0.png")
    assert prepare.images(str(photos), "mine", str(data_dir), overwrite=True).notes == ()
    assert shard.read_bytes() == whole
    for name, message in ((shard.name, "shard .* is missing"), ("features.json", "description in .* is damaged")):
        (made / name).unlink()
        expect(f"{message}.*: replace it with --overwrite", prepare.images, str(photos), "mine", str(data_dir))
    prepare.images(str(photos), "mine", str(data_dir), overwrite=True)
    assert len(by_id(data_dir, "mine")) == 6


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_origin_is_named(photos, data_dir, text):
    made = prepare.images(str(photos), "mine", str(data_dir)).directory
    (made / write.ORIGIN).write_text(text)
    expect(rf"mine/1.0.0/origin.json is damaged .*: remove {made}", prepare.images, str(photos), "mine", str(data_dir))


@pytest.mark.parametrize("when", ["before the first", "after the first", "before the second", "after the second"])
def test_an_interrupted_exchange_is_rolled_back(photos, data_dir, monkeypatch, when):
    target = prepare.images(str(photos), "mine", str(data_dir)).directory
    before = {path: path.read_bytes() for path in target.iterdir()}
    save(photos / "cat" / "0.png", pixels(99, 8, 10, 3))
    real = os.rename

    def interrupted(old, new):
        # Only the two of the exchange, and each but once: the roll-back renames too.
        this = "first" if old == target else "second" if new == target else None
        if when == f"before the {this}":
            monkeypatch.undo()
            raise KeyboardInterrupt
        real(old, new)
        if when == f"after the {this}":
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare.images(str(photos), "mine", str(data_dir), overwrite=True)
    assert (before == {path: path.read_bytes() for path in target.iterdir()}) == (when != "after the second")
    assert len(by_id(data_dir, "mine")) == 6
    assert [path.name for path in data_dir.iterdir()] == ["mine"]


def test_split_folders_beside_other_folders(tmp_path, data_dir):
    for path in ("train/a/1.png", "test/a/2.png", "extra/3.png"):
        save(tmp_path / "in" / path, pixels(0, 4, 4, 3))
    message = r"in holds split folders \(test, train\) beside others \(extra\): move the others away, or rename"
    expect(message, prepare.images, str(tmp_path / "in"), "mine", str(data_dir))
    # A class may be called train.
    for path in ("train/1.png", "bus/2.png"):
        save(tmp_path / "vehicles" / path, pixels(0, 4, 4, 3))
    prepare.images(str(tmp_path / "vehicles"), "vehicles", str(data_dir))
    assert source.open_source("vehicles", "train", str(data_dir)).class_names == ("bus", "train")


@pytest.fixture
def domains(tmp_path):
    """Two domains in flat folders, spelled as people do."""
    for folder_name, count in (("TrainA", 3), ("trainb", 2), ("testA", 1), ("TESTB", 1), ("valA", 1)):
        for index in range(count):
            save(tmp_path / "in" / folder_name / f"{index}.jpg", pixels(index, 6 + index, 5, 3), "JPEG")
    return tmp_path / "in"


def test_folders_of_two_domains(domains, data_dir):
    made = prepare.images(str(domains), "mine", str(data_dir))
    for split, count in (("trainA", 3), ("trainB", 2), ("testA", 1), ("testB", 1), ("valA", 1)):
        opened = source.open_source("mine", split, str(data_dir))
        assert (opened.examples, opened.class_names) == (count, ())
    assert set(by_id(data_dir, "mine", "trainB")) == {"trainb/0.jpg", "trainb/1.jpg"}
    lines = made.lines(str(data_dir))
    assert made.notes == () and "splits:  trainA 3, trainB 2, testA 1, testB 1, valA 1" in lines
    names = '"name_a": "mine", "split_a": "trainA", "name_b": "mine", "split_b": "trainB"'
    assert lines[-1] == f'use:     {names}, "data_dir": "{data_dir}"'
    pairs = unpaired.Pairs("mine", "testA", "mine", "testB", data_dir=str(data_dir), size_px=4)
    assert pairs.examples == 1 and next(pairs.batches())["image_b"].shape == (1, 4, 4, 3)


def test_a_grey_domain_beside_a_coloured_one_is_told(domains, data_dir, tmp_path):
    for folder_name in ("trainb", "TESTB"):
        for path in (domains / folder_name).iterdir():
            save(path, pixels(0, 6, 5), "JPEG")
    made = prepare.images(str(domains), "mine", str(data_dir))
    why = "read with 3 channels because others of the set have colour"
    assert made.notes == (f"only grey pictures, {why}: testB, trainB",)
    assert source.open_source("mine", "trainB", str(data_dir)).image_shape[-1] == 3
    for domain in "AB":
        save(tmp_path / "grey" / f"train{domain}" / "0.png", pixels(0, 6, 5))
    assert prepare.images(str(tmp_path / "grey"), "grey", str(data_dir)).notes == ()
    assert source.open_source("grey", "trainA", str(data_dir)).image_shape == (6, 5, 1)


def test_unusable_folders_of_two_domains(domains, data_dir):
    def refuse(message):
        expect(message, prepare.images, str(domains), "mine", str(data_dir))
        assert not data_dir.exists()

    loose = save(domains / "loose.png", pixels(0, 4, 4))
    refuse(r"in holds folders of domains \(TESTB, TrainA, testA and 2 more\) beside loose.png: move the others away")
    loose.unlink()
    save(domains / "train" / "cat" / "0.png", pixels(0, 4, 4))
    refuse(r"in holds folders of domains \(TESTB, TrainA, testA and 2 more\) beside train: move the others away")
    shutil.rmtree(domains / "train")
    save(domains / "traina" / "0.png", pixels(0, 4, 4))
    refuse(r"in has several folders for split 'trainA', which differ only in case")
    shutil.rmtree(domains / "traina")
    for path in (domains / "trainb").iterdir():
        path.unlink()
    refuse(r"trainb holds no images: both domains need some; PNG, JPEG and WebP are read; it is empty")
    (domains / "trainb").rmdir()
    refuse(r"in holds trainA and no trainB: both domains need images to train on")
    (domains / "TrainA").rename(domains / "trainB")
    refuse(r"in holds trainB and no trainA: both domains need images to train on")


def test_a_folder_that_cannot_be_read_is_named(photos, data_dir, monkeypatch):
    real = pathlib.Path.iterdir

    def refuse(self):
        if self.name == "dog":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return real(self)

    # Not by its permissions, which do not hold the superuser back.
    monkeypatch.setattr(pathlib.Path, "iterdir", refuse)
    expect(rf"cannot read {photos}/dog \(Permission denied\)", prepare.images, str(photos), "mine", str(data_dir))


def test_a_name_that_another_kind_of_set_has(photos, data_dir):
    (data_dir / "cifar10" / "3.0.2").mkdir(parents=True)
    for overwrite in (False, True):
        expect(
            "cifar10 holds a data set that was not",
            prepare.images,
            photos,
            "cifar10",
            str(data_dir),
            "fatal",
            overwrite,
        )


def test_more_than_the_shuffler_keeps_in_memory(photos, data_dir, monkeypatch, tmp_path):
    prepare.images(str(photos), "mine", str(data_dir))
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 500)
    prepare.images(str(photos), "mine", str(tmp_path / "spilled"))
    ids = [[*by_id(where, "mine")] for where in (data_dir, tmp_path / "spilled")]
    assert ids[0] == ids[1] and len(ids[0]) == 6


# Official builders


def idx(array):
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(head + array.tobytes())


@pytest.fixture
def archives(tmp_path, monkeypatch):
    """Four small archives in Fashion-MNIST's form, which the builder is told to take for the official ones."""
    where = tmp_path / "archives"
    where.mkdir()
    for stem, count in (("train", 30), ("t10k", 20)):
        (where / f"{stem}-images-idx3-ubyte.gz").write_bytes(idx(pixels(count, count, 28, 28)))
        (where / f"{stem}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(count).astype(np.uint8) % 10))
    cls = tfds.builder_cls("fashion_mnist")
    infos = {url: checksums.compute_url_info(where / info.filename) for url, info in cls.url_infos.items()}
    monkeypatch.setattr(cls, "url_infos", infos)
    module = sys.modules[cls._split_generators.__module__]
    monkeypatch.setattr(module, "_TRAIN_EXAMPLES", 30)
    monkeypatch.setattr(module, "_TEST_EXAMPLES", 20)
    return where


def official(archives, data_dir):
    return prepare.official("fashion_mnist", str(data_dir), str(archives))


def test_official_builder_from_local_archives(archives, data_dir, monkeypatch):
    monkeypatch.setattr(tfds.download.DownloadManager, "_download", no_network)
    assert official(archives, data_dir).notes == ()
    opened = source.open_source("fashion_mnist", "train+test", str(data_dir))
    assert opened.class_names[:2] == ("T-shirt/top", "Trouser") and opened.image_shape == (28, 28, 1)
    everything = opened.read_all()
    expected = np.concatenate([pixels(30, 30, 28, 28), pixels(20, 20, 28, 28)])
    wanted = {image.tobytes(): index % 10 for index, image in enumerate(expected[:30])}
    wanted |= {image.tobytes(): index % 10 for index, image in enumerate(expected[30:])}
    assert {image.tobytes(): int(label) for image, label in zip(*everything.values(), strict=True)} == wanted
    assert sorted(path.name for path in data_dir.iterdir()) == ["fashion_mnist"]
    (note,) = official(archives, data_dir).notes
    made = data_dir / "fashion_mnist" / "3.0.1"
    assert note == f"already prepared, nothing to do; if it is damaged, remove {made} and prepare the data set again"
    shard = next(made.glob("*-test.array_record*"))
    shard.unlink()
    expect(f"shard {shard} is missing: remove {made} and prepare", official, archives, data_dir)


def test_both_domains_of_an_official_set(tmp_path, data_dir, monkeypatch):
    where, expected = tmp_path / "archives", {}
    where.mkdir()
    with zipfile.ZipFile(where / "small.zip", "w") as archive:
        for split, count in (("trainA", 3), ("trainB", 4), ("testA", 1), ("testB", 2)):
            files = [save(tmp_path / split / f"{i}.jpg", pixels(i, 8, 9, 3), "JPEG") for i in range(count)]
            expected[split] = {np.asarray(PIL.Image.open(file)).tobytes() for file in files}
            for file in files:
                archive.write(file, f"horse2zebra/{split}/{file.name}")
    cls = tfds.builder_cls("cycle_gan")
    address = next(url for url in cls.url_infos if url.endswith("/horse2zebra.zip"))
    (where / "small.zip").rename(where / cls.url_infos[address].filename)
    found = checksums.compute_url_info(where / cls.url_infos[address].filename)
    monkeypatch.setattr(cls, "url_infos", {address: found})
    made = prepare.official("cycle_gan/horse2zebra", str(data_dir), str(where))
    for split, images in expected.items():
        opened = source.open_source("cycle_gan/horse2zebra", split, str(data_dir))
        assert {opened[index]["image"].tobytes() for index in range(opened.examples)} == images
        assert opened.image_shape == (None, None, 3) and opened.ids() is None and not opened.keeps_order
        assert set(opened.labels()) == {"AB".index(split[-1])}
    names = '"name_a": "cycle_gan/horse2zebra", "split_a": "trainA", "name_b": "cycle_gan/horse2zebra", "split_b": '
    assert f'{names}"trainB"' in made.lines("")[-1]
    with pytest.raises(types.UsageError, match=r"differ in number: prepare them from a folder of images"):
        unpaired.Pairs("cycle_gan/horse2zebra", "testA", "cycle_gan/horse2zebra", "testB", 8, str(data_dir))


def no_network(*_):
    raise AssertionError("went to the network")


def test_missing_and_foreign_archives_are_named_before_anything_happens(archives, data_dir):
    (archives / "t10k-labels-idx1-ubyte.gz").rename(archives / "other")
    (archives / "train-images-idx3-ubyte.gz").rename(archives / "another")
    message = r"archives lacks 2 of fashion_mnist's archives: t(10k-labels|rain-images)\S+, t(rain-images|10k-labels)"
    expect(message, official, archives, data_dir)
    (archives / "other").rename(archives / "t10k-labels-idx1-ubyte.gz")
    (archives / "train-images-idx3-ubyte.gz").write_bytes(b"cut off")
    digest = hashlib.sha256(b"cut off").hexdigest()
    expect(
        rf"train-images-idx3-ubyte.gz is not the official archive.*{digest} and 7 bytes", official, archives, data_dir
    )
    expect(r"--archives=\S*nowhere is not a folder", official, archives / "nowhere", data_dir)
    assert not data_dir.exists() or not any(data_dir.iterdir())


def test_an_archive_that_a_builder_asks_for_later_is_not_fetched(archives, data_dir, monkeypatch):
    monkeypatch.setattr(prepare, "_check_archives", lambda *_: None)
    (archives / "t10k-labels-idx1-ubyte.gz").unlink()
    # Another archive is still being unpacked, in a thread, when the missing one is found: removing the scratch folder
    # under it would fail now and then.
    started, ended, real = [], [], extractor._copy

    def slow_copy(*given):
        started.append(given)
        time.sleep(0.3)
        real(*given)
        ended.append(given)

    monkeypatch.setattr(extractor, "_copy", slow_copy)
    expect(r"archives lacks t10k-labels-idx1-ubyte.gz: put it there", official, archives, data_dir)
    assert len(started) == len(ended)
    time.sleep(0.1)
    assert len(started) == len(ended)
    assert [path for path in data_dir.rglob("*") if path.name != "fashion_mnist"] == []


def test_a_builder_that_cannot_say_what_it_wants_is_run_all_the_same(archives, data_dir, monkeypatch, capsys):
    cls, real = tfds.builder_cls("fashion_mnist"), tfds.builder_cls("fashion_mnist")._split_generators

    def asks_for_more(self, manager):
        # TFDS's own manager has this name and a recorder has not.
        return real(self, manager) if manager.dataset_name == "" else None

    monkeypatch.setattr(tfds.download.DownloadManager, "dataset_name", "", raising=False)
    monkeypatch.setattr(cls, "_split_generators", asks_for_more)
    assert official(archives, data_dir).notes == ()
    assert "the archives of fashion_mnist are not checked beforehand (AttributeError: " in capsys.readouterr().err


def test_unknown_official_sets(data_dir):
    expect(r"TFDS has no data set 'fashon_mnist': did you mean fashion_mnist", prepare.official, "fashon_mnist")
    expect(r"TFDS has no data set 'zqzq': its catalogue", prepare.official, "zqzq", str(data_dir))
    expect(r"TFDS cannot make 'cycle_gan' that way: .*configs: ", prepare.official, "cycle_gan/zzz", str(data_dir))
    expect(r"TFDS cannot make 'mnist' that way: ", prepare.official, "mnist:0.0.1", str(data_dir))


def test_an_official_set_in_another_state(data_dir):
    there = pathlib.Path(tfds.builder_cls("fashion_mnist")(data_dir=str(data_dir)).data_dir)
    there.mkdir(parents=True)
    expect(r"is half-written \(no dataset_info.json\)", prepare.official, "fashion_mnist", str(data_dir))


def test_fashion_mnist_in_full(data_dir):
    where = os.environ.get("SSL_JAX_FASHION_MNIST")
    if not where:
        pytest.skip("needs Fashion-MNIST's four archives: set SSL_JAX_FASHION_MNIST to their folder")
    prepare.official("fashion_mnist", str(data_dir), where)
    for split, stem, count in (("train", "train", 60000), ("test", "t10k", 10000)):
        with gzip.open(pathlib.Path(where) / f"{stem}-images-idx3-ubyte.gz") as file:
            images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(count, 28 * 28)
        with gzip.open(pathlib.Path(where) / f"{stem}-labels-idx1-ubyte.gz") as file:
            labels = np.frombuffer(file.read(), np.uint8, offset=8)
        read = source.open_source("fashion_mnist", split, str(data_dir)).read_all()
        pairs = zip(read["image"].reshape(count, 28 * 28), read["label"], strict=True)
        ours = sorted((image.tobytes(), int(label)) for image, label in pairs)
        assert ours == sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


# TFRecord copies


@pytest.fixture
def tfrecord_set(photos, tmp_path):
    """The prepared photographs as a TFRecord set, framed here."""
    made = prepare.images(str(photos), "mine", str(tmp_path / "first")).directory
    version = tmp_path / "old" / "mine" / "1.0.0"
    shutil.copytree(made, version)
    (version / write.ORIGIN).unlink()
    shard = next(version.glob("*.array_record*"))
    raw = tfds.builder_from_directory(made).as_data_source(
        "train", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    framed = b"".join(frame(bytes(raw[index])) for index in range(len(raw)))
    shard.with_name(shard.name.replace("array_record", "tfrecord")).write_bytes(framed)
    shard.unlink()
    info = version / catalog.INFO
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    return version


def frame(data):
    head = struct.pack("<Q", len(data))
    return b"".join(
        [head, struct.pack("<I", tfrecord.masked_crc32c(head)), data, struct.pack("<I", tfrecord.masked_crc32c(data))]
    )


def test_checksum_is_that_of_tfrecord():
    # RFC 3720's vectors for CRC-32C, then TFRecord's mask.
    for data, crc in ((b"\0" * 32, 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (b"123456789", 0xE3069283)):
        assert tfrecord.masked_crc32c(data) == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32


def test_tfrecord_copy_round_trip(tfrecord_set, photos, tmp_path):
    before = {path: path.read_bytes() for path in tfrecord_set.iterdir()}
    expect("is in tfrecord form", source.open_source, "mine", "train", str(tfrecord_set.parents[1]))
    made = prepare.tfrecord_copy(str(tfrecord_set.parent), str(tmp_path / "new"))
    assert made.directory == tmp_path / "new" / "mine" / "1.0.0"
    assert {path: path.read_bytes() for path in tfrecord_set.iterdir()} == before
    # Same records in the same order as the set that the copy came from.
    ours, first = by_id(tmp_path / "new", "mine"), by_id(tmp_path / "first", "mine")
    assert [*ours] == [*first] and len(ours) == 6
    assert all(ours[key][0] == first[key][0] and ours[key][1]["label"] == first[key][1]["label"] for key in first)
    assert source.open_source("mine", "train", str(tmp_path / "new")).class_names == ("cat", "dog")
    again = prepare.tfrecord_copy(str(tfrecord_set), str(tmp_path / "new"))
    assert len(again.notes) == 1 and again.notes[0].startswith("already prepared from this copy, nothing to do; if")
    message = "mine/1.0.0 was re-framed from TFRecord files: take another --name"
    expect(message, prepare.images, str(photos), "mine", str(tmp_path / "new"))
    expect(message, prepare.images, str(photos), "mine", str(tmp_path / "new"), overwrite=True)
    expect(r"mine/1.0.0 exists already", prepare.tfrecord_copy, str(tfrecord_set), str(tmp_path / "first"))
    expect(r"is in array_record form, not TFRecord", prepare.tfrecord_copy, str(tmp_path / "new" / "mine"))
    expect(r"photos holds no TFDS data", prepare.tfrecord_copy, str(photos))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], r"is cut off in record 5"),
        (lambda data: data[:-200], r"is cut off in record \d"),
        (lambda data: data[:5], r"is cut off in record 0"),
        (lambda data: b"\x01" + data[1:], r"is damaged at record 0 or no TFRecord file"),
        (lambda data: data + frame(b"more"), r"holds 7 records where dataset_info.json counts 6"),
        (None, r"shard \S* is missing"),
    ],
)
def test_damaged_shards_are_named(tfrecord_set, tmp_path, damage, message):
    shard = next(tfrecord_set.glob("*.tfrecord*"))
    data = shard.read_bytes()
    shard.unlink()
    if damage:
        shard.write_bytes(damage(data))
    new = tmp_path / "new"
    expect(message, prepare.tfrecord_copy, str(tfrecord_set), str(new), error=types.RunError)
    assert not new.exists() or not any(new.iterdir())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("features.json", None, r"old/mine/1.0.0 is an incomplete copy \(.*\): get it again"),
        ("features.json", "{", r"old/mine/1.0.0 is an incomplete copy \(.*\): get it again"),
        ("features.json", "{}", r"old/mine/1.0.0 is an incomplete copy \(.*\): get it again"),
        ("dataset_info.json", "{", r"dataset_info.json is damaged \(.*\): get the copy again"),
    ],
)
def test_incomplete_copies_are_named(tfrecord_set, tmp_path, name, text, message):
    (tfrecord_set / name).unlink()
    if text is not None:
        (tfrecord_set / name).write_text(text)
    expect(message, prepare.tfrecord_copy, str(tfrecord_set), str(tmp_path / "new"))


# The command


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "experiments.prepare", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )


def test_the_command_prepares(photos, data_dir):
    (photos / "cat" / "2.png").write_text("broken")
    done = run(f"--images={photos}", "--name=mine", f"--data_dir={data_dir}", "--broken=skip")
    assert done.returncode == 0, done.stderr
    assert "skipped 1 broken of 6 files" in done.stdout and "splits:  train 5" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: give exactly one of --images=DIR, --tfds=NAME and --tfrecord=DIR; given: none"),
        (["--images=a", "--tfds=b"], "given: --images and --tfds"),
        (["--images=a"], "error: --images needs --name=NAME"),
        (["--tfds=a", "--name=b"], "error: --name goes with --images, not with --tfds"),
        (["--bogus"], "error: Unknown command line flag 'bogus'"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""
