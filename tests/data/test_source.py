"""`data.source` on small sets written for the purpose."""

import io
import json
import pickle
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from ssl_jax import types
from ssl_jax.data import catalog, source, write


def png(pixels):
    out = io.BytesIO()
    PIL.Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(out, "PNG")
    return out.getvalue()


def write_set(data_dir, name, splits, shape, class_names=()):
    """Writes a set; `splits` maps to lists of (encoded image, label)."""

    def records(pairs):
        for index, (data, label) in enumerate(pairs):
            named = {"label": label} if class_names else {}
            yield index, {"image": data, "id": f"{name}-{index}", **named}

    with write.workspace(data_dir) as scratch:
        given = {split: lambda pairs=pairs: records(pairs) for split, pairs in splits.items()}
        built = write.records(name, given, shape, class_names, scratch, ordered=True)
        write.publish(built, data_dir / name / write.VERSION)
    return data_dir / name / write.VERSION


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (30, 6, 5, 3), np.uint8)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("data")
    pairs = [(png(image), index % 3) for index, image in enumerate(pixels)]
    write_set(folder, "small", {"train": pairs[:20], "test": pairs[20:]}, (6, 5, 3), ("ant", "bee", "cat"))
    varying = [(png(pixels[0]), None), (png(pixels[0, :4, :, :1]), None)]
    write_set(folder, "varying", {"train": varying}, (None, None, 3))
    return folder


@pytest.fixture
def copy(data_dir, tmp_path):
    """A copy of the data folder that a test may damage."""
    shutil.copytree(data_dir, tmp_path / "data")
    return tmp_path / "data"


def expect(message, name, split, data_dir):
    with pytest.raises(types.UsageError, match=message) as caught:
        source.open_source(name, split, str(data_dir))
    assert "\n" not in str(caught.value)


def test_describes_the_set(data_dir):
    opened = source.open_source("small", "train", str(data_dir))
    assert (opened.name, opened.split, opened.examples, len(opened)) == ("small", "train", 20, 20)
    assert opened.class_names == ("ant", "bee", "cat")
    assert opened.image_shape == (6, 5, 3)
    assert opened.bytes_when_resident == 20 * 6 * 5 * 3


def test_reads_records_one_by_one_and_all_at_once(data_dir, pixels):
    opened = source.open_source("small", "test", str(data_dir))
    everything = opened.read_all()
    assert everything["image"].dtype == np.uint8 and everything["label"].dtype == np.int32
    np.testing.assert_array_equal(everything["image"], pixels[20:])
    np.testing.assert_array_equal(everything["label"], np.arange(20, 30) % 3)
    for index in (0, 7, np.int64(9)):
        record = opened[index]
        np.testing.assert_array_equal(record["image"], pixels[20 + index])
        assert record["label"] == (20 + index) % 3
    for index in (-1, 10):
        with pytest.raises(IndexError):
            opened.read(index)


@pytest.mark.parametrize("split", ["train", "test", "train[15:]+test[:3]"])
def test_labels_without_images(data_dir, monkeypatch, split):
    monkeypatch.setattr(source, "_AT_ONCE", 7)
    opened = source.open_source("small", split, str(data_dir))
    expected = opened.read_all()["label"]
    monkeypatch.setattr(source.transforms, "decode", None)
    labels = opened.labels()
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, expected)


def test_labels_of_an_unlabelled_set_read_nothing(data_dir, monkeypatch):
    opened = source.open_source("varying", "train", str(data_dir))
    monkeypatch.setattr(opened, "_fetch", None)
    assert opened.labels().dtype == np.int32 and opened.labels().tolist() == [-1, -1]


def test_describes_a_record(data_dir):
    described = source.open_source("small", "train", str(data_dir)).describe(np.int64(3))
    assert described.startswith("record 3 (small-3) of data set 'small', split 'train', in ")


def test_names_of_the_records_without_images(data_dir, monkeypatch):
    monkeypatch.setattr(source, "_AT_ONCE", 7)
    monkeypatch.setattr(source.transforms, "decode", None)
    opened = source.open_source("small", "train[15:]+test[:3]", str(data_dir))
    assert opened.ids() == [f"small-{index}" for index in (*range(15, 20), *range(3))]
    assert source.open_source("small", "test", str(data_dir)).ids() == [f"small-{index}" for index in range(10)]
    assert opened.keeps_order


def test_read_all_joins_its_portions_in_order(data_dir, pixels, monkeypatch):
    monkeypatch.setattr(source, "_AT_ONCE", 7)
    everything = source.open_source("small", "train", str(data_dir)).read_all()
    np.testing.assert_array_equal(everything["image"], pixels[:20])


@pytest.mark.parametrize(
    ("split", "kept"),
    [
        ("train[:10%]", range(2)),
        ("train[-5:]", range(15, 20)),
        ("train[50%:]+test[:3]", range(10, 23)),
        ("train+test", range(30)),
    ],
)
def test_slices_as_tfds_does(data_dir, pixels, split, kept):
    opened = source.open_source("small", split, str(data_dir))
    np.testing.assert_array_equal(opened.read_all()["image"], pixels[kept.start : kept.stop])


def test_pickles_for_worker_processes(data_dir):
    opened = source.open_source("small", "train[3:]", str(data_dir))
    again = pickle.loads(pickle.dumps(opened))
    assert (again.name, again.split, again.examples) == ("small", "train[3:]", 17)
    np.testing.assert_array_equal(again[16]["image"], opened[16]["image"])


def test_images_of_varying_size_are_read_one_by_one(data_dir, pixels):
    opened = source.open_source("varying", "train", str(data_dir))
    assert opened.image_shape == (None, None, 3) and opened.bytes_when_resident is None
    assert opened.class_names == ()
    np.testing.assert_array_equal(opened[0]["image"], pixels[0])
    # A grey file among colour ones.
    np.testing.assert_array_equal(opened[1]["image"], np.repeat(pixels[0, :4, :, :1], 3, -1))
    assert opened[1]["label"] == -1
    with pytest.raises(types.UsageError, match=r"images of 'varying' vary in size.*stream"):
        opened.read_all()


def test_the_newest_whole_version_is_read(copy):
    for version in ("2.0.0", "10.0.0"):
        shutil.copytree(copy / "small" / "1.0.0", copy / "small" / version)
        path = copy / "small" / version / catalog.INFO
        path.write_text(json.dumps(json.loads(path.read_text()) | {"version": version}))
    (copy / "small" / "11.0.0").mkdir()
    assert catalog.find("small", str(copy)).name == "10.0.0"
    assert catalog.find("small:2.0.0", str(copy)).name == "2.0.0"
    assert source.open_source("small:2.0.0", "train", str(copy)).examples == 20
    expect(
        r"'small:3.0.0' in .*small has no prepared version; there are: 1.0.0, 10.0.0, 2.0.0", "small:3.0.0", "x", copy
    )


def test_configs(copy):
    for config in ("wide", "tall"):
        shutil.copytree(copy / "small", copy / "both" / config)
    assert catalog.find("both/tall", str(copy)).parts[-2:] == ("tall", "1.0.0")
    expect("'both' has several configs in .*both: write one of both/tall, both/wide", "both", "train", copy)
    (copy / "both" / ".config").mkdir()
    (copy / "both" / ".config" / "metadata.json").write_text('{"default_config_name": "wide"}')
    assert catalog.find("both", str(copy)).parts[-2:] == ("wide", "1.0.0")
    shutil.rmtree(copy / "both" / "wide")
    assert catalog.find("both", str(copy)).parts[-2:] == ("tall", "1.0.0")


def test_default_folder_is_that_of_tfds(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert source.open_source("small", "test").examples == 10
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert str(catalog.data_folder("")) == tfds.core.constants.get_default_data_dir()


def test_unknown_set_names_the_nearest_and_the_commands(data_dir):
    expect(
        r"'smal' is not prepared in .* \(the nearest there: small\); prepare it: python -m experiments.prepare "
        r"--tfds=smal --data_dir=\S+ \(.*\) or --images=DIR --name=smal",
        "smal",
        "train",
        data_dir,
    )
    expect("'imagenet2012' is not prepared in .*there are: small, varying", "imagenet2012", "train", data_dir)
    expect("no data set is there", "small", "train", data_dir / "nowhere")
    expect("'../small' is no data set's name", "../small", "train", data_dir)


def test_unknown_split_lists_the_splits(data_dir):
    message = r"'small' has no split 'val'; its splits are: train \(20 images\), test \(10 images\)"
    for split in ("val", "val[:10%]", "train+val"):
        expect(message, "small", split, data_dir)


@pytest.mark.parametrize("split", ["train[", "train[a:b]", "", "train[5]", "train[:200%]", "train[:999]"])
def test_malformed_split_shows_the_right_forms(data_dir, split):
    expect(r"split '.*' of data set 'small' cannot be read \(.+\): write for example 'train'", "small", split, data_dir)


@pytest.mark.parametrize("split", ["train[:0]", "train[5:2]", "train[5:2]+test"])
def test_a_split_without_images_is_refused(data_dir, split):
    expect(r"has no images: write for example 'train'", "small", split, data_dir)


def test_tfrecord_only_names_the_command(copy):
    path = copy / "small" / "1.0.0" / catalog.INFO
    contents = json.loads(path.read_text())
    path.write_text(json.dumps(contents | {"fileFormat": "tfrecord"}))
    expect(r"is in tfrecord form.*--tfrecord=\S*small/1.0.0 --data_dir=", "small", "train", copy)
    path.write_text(json.dumps(contents | {"fileFormat": "riegeli"}))
    expect(r"is in riegeli form.*--tfds=small", "small", "train", copy)
    # TFDS's own converter adds a second form beside the first.
    path.write_text(json.dumps(contents | {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}))
    assert len(source.open_source("small", "train", str(copy)).read_all()["label"]) == 20


def test_half_written_and_damaged_sets(copy):
    folder = copy / "small" / "1.0.0"
    shard = next(folder.glob("*-train.array_record*"))
    shard.rename(folder / "aside")
    again = rf": remove {folder} and prepare the data set again"
    expect(rf"shard \S*small-train\S* of data set 'small' is missing{again}", "small", "train", copy)
    assert source.open_source("small", "test", str(copy)).examples == 10
    (folder / "features.json").rename(copy / "features.json")
    expect(rf"description of data set 'small' in .* is damaged .*{again}", "small", "train", copy)
    (folder / catalog.INFO).write_text("{")
    expect(rf"dataset_info.json is damaged .*{again}", "small", "train", copy)
    (folder / catalog.INFO).unlink()
    expect(r"'small' is half-written: \S*1.0.0 has no dataset_info.json; remove that folder", "small", "train", copy)


def test_a_cut_off_shard_is_named_when_it_is_read(copy):
    shard = next((copy / "small" / "1.0.0").glob("*-train.array_record*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    opened = source.open_source("small", "train", str(copy))
    with pytest.raises(
        types.RunError, match=r"'small' split 'train' in .* is damaged among records 3 to 3 .*: remove .* and prep"
    ):
        opened.read(3)


def test_an_undecodable_record_is_named(tmp_path, pixels):
    pairs = [(png(pixels[0]), None), (b"rubbish", None), (png(pixels[0, :3]), None)]
    write_set(tmp_path, "bad", {"train": pairs}, (6, 5, 3))
    opened = source.open_source("bad", "train", str(tmp_path))
    opened.read(0)
    with pytest.raises(types.RunError, match=r"record 1 \(bad-1\) of data set 'bad', split 'train', in .* not decode"):
        opened.read(1)
    with pytest.raises(types.RunError, match=r"record 1 \(bad-1\)"):
        opened.read_all()
    with pytest.raises(types.RunError, match=r"record 2 \(bad-2\) .* is 3x5 px where the data set declares 6x5"):
        opened.read(2)


def test_a_set_without_images_names_its_features(tmp_path):
    class Texts(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        name = "texts"

        def _info(self):
            features = {"text": tfds.features.Text(), "score": tfds.features.Scalar(np.float32)}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": iter([("a", {"text": "a", "score": 1.0})])}

        def _generate_examples(self):
            raise NotImplementedError

    Texts(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    expect(
        r"'texts' has no feature `image` that holds an image; its features are: (text, score|score, text)",
        "texts",
        "train",
        tmp_path,
    )
