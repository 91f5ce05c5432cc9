import itertools
import json

import numpy as np
import pytest

from ssl_jax.data import resident
from ssl_jax.types import UsageError

EXAMPLES, BATCH = 20, 6  # three steps an epoch, two images left over


def feed(examples=EXAMPLES, batch_size=BATCH):
    """A set whose images say which they are."""
    image = np.arange(examples, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 2, 2, 1), np.uint8)
    return resident.Resident({"image": image, "label": np.arange(examples, dtype=np.int32)}, batch_size)


def drawn(mesh, *, seed=0, first_step=0, steps=9, **sizes):
    batches = list(itertools.islice(feed(**sizes).batches(mesh, seed, first_step), steps))
    for batch in batches:
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])
    return [np.asarray(batch["label"]).tolist() for batch in batches]


def test_every_epoch_is_a_permutation_without_its_tail(devices):
    labels = drawn(devices, steps=9)
    epochs = [list(itertools.chain(*labels[first : first + 3])) for first in (0, 3, 6)]
    for epoch in epochs:
        assert len(set(epoch)) == 18 and set(epoch) < set(range(EXAMPLES))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert len({frozenset(epoch) for epoch in epochs}) > 1, "the images left over must change"


def test_a_batch_of_all_images_holds_each_once(devices):
    (labels,) = drawn(devices, examples=8, batch_size=8, steps=1)
    assert sorted(labels) == list(range(8)) and labels != sorted(labels)


def test_the_batch_of_a_step_is_a_function_of_seed_and_step(devices):
    whole = drawn(devices, steps=9)
    assert drawn(devices, steps=9) == whole
    for first_step in (1, 3, 5):
        assert drawn(devices, first_step=first_step, steps=4) == whole[first_step : first_step + 4]
    assert drawn(devices, seed=1) != whole


def test_epochs_of_neighbouring_seeds_are_unrelated(devices):
    assert drawn(devices, seed=1, steps=3) != drawn(devices, seed=0, steps=6)[3:]


def test_every_position_is_equally_likely(devices):
    labels = np.array(drawn(devices, examples=4, batch_size=4, steps=400))
    counts = np.stack([np.bincount(column, minlength=4) for column in labels.T])
    # 100 expected; five standard deviations.
    assert np.abs(counts - 100).max() < 5 * np.sqrt(400 * 0.25 * 0.75)


def test_the_spec_describes_a_batch(devices):
    source = feed()
    batch = next(source.batches(devices, 0, 0))
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {k: (s.shape, s.dtype) for k, s in source.spec.items()}
    assert source.spec["image"].shape == (6, 2, 2, 1) and source.spec["image"].dtype == np.uint8


def test_eight_devices_see_what_one_sees(child, devices):
    done = child(
        """
        import itertools, json
        import numpy as np
        from ssl_jax import mesh
        from ssl_jax.data import resident

        image = np.arange(40, dtype=np.uint8).reshape(-1, 1, 1, 1)
        feed = resident.Resident({"image": image, "label": np.arange(40, dtype=np.int32)}, 16)
        batches = list(itertools.islice(feed.batches(mesh.data_parallel(8), 3, 1), 4))
        shards = batches[0]["image"].addressable_shards
        assert len(shards) == 8 and all(shard.data.shape == (2, 1, 1, 1) for shard in shards)
        print(json.dumps([np.asarray(batch["label"]).tolist() for batch in batches]))
        """,
        devices=8,
    )
    assert json.loads(done.stdout) == drawn(devices, examples=40, batch_size=16, seed=3, first_step=1, steps=4)


@pytest.mark.parametrize("batch_size", [0, -1, EXAMPLES + 1])
def test_a_batch_that_cannot_be_filled_is_refused(batch_size):
    with pytest.raises(UsageError, match=f"batch_size={batch_size}, but the data set has 20 images: take 1 to 20"):
        feed(batch_size=batch_size)


def test_noise_fills_the_range():
    source = resident.noise((50, 8, 8, 3), 10)
    image = source.arrays["image"]
    assert source.examples == 50 and source.spec["image"].shape == (10, 8, 8, 3)
    assert image.dtype == np.uint8 and image.min() == 0 and image.max() == 255
    assert abs(image.mean() - 127.5) < 3
    np.testing.assert_array_equal(image, resident.noise((50, 8, 8, 3), 10).arrays["image"])


def test_npz_holds_the_digits(digits_npz, devices):
    from sklearn import datasets

    scans = datasets.load_digits()
    source = resident.npz(str(digits_npz), 32)
    assert source.examples == 160
    assert source.spec["image"].shape == (32, 8, 8, 1) and source.spec["label"].dtype == np.int32
    batch = next(source.batches(devices, 0, 0))
    images = {scan.tobytes(): label for scan, label in zip(source.arrays["image"], scans.target, strict=False)}
    assert [images[np.asarray(image).tobytes()] for image in batch["image"]] == np.asarray(batch["label"]).tolist()


def test_npz_without_labels(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.zeros((4, 2, 2, 3), np.uint8))
    assert set(resident.npz(str(tmp_path / "a.npz"), 2).spec) == {"image"}


IMAGES = np.zeros((4, 2, 2, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": IMAGES}, "needs an entry `image`, uint8"),
        ({"image": IMAGES.astype(np.float32)}, "needs an entry `image`, uint8"),
        ({"image": IMAGES[..., 0]}, "needs an entry `image`, uint8"),
        ({"image": IMAGES, "label": np.zeros(3, np.int64)}, "one row an image, but have {'image': 4, 'label': 3}"),
        ({"image": IMAGES, "label": np.zeros(4)}, "`label` must be integers"),
        ({"image": IMAGES, "label": np.zeros((4, 1), np.int64)}, "`label` must be integers"),
        ({"image": IMAGES[:1]}, "batch_size=2, but the data set has 1 images"),
        ({"image": np.array([None])}, "is no .npz file of arrays"),
    ],
)
def test_npz_of_something_else_is_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UsageError) as caught:
        resident.npz(str(tmp_path / "a.npz"), 2)
    message = str(caught.value)
    assert words in message and str(tmp_path / "a.npz") in message and "\n" not in message


def test_files_that_are_no_npz_are_refused(tmp_path, digits_npz):
    with pytest.raises(UsageError, match=r"no file .*nowhere\.npz"):
        resident.npz(str(tmp_path / "nowhere.npz"), 2)
    np.save(tmp_path / "single.npy", IMAGES)
    whole = digits_npz.read_bytes()
    contents = {"text": b"not an archive", "empty": b"", "cut": whole[: len(whole) // 2]}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in ("single.npy", *contents):
        with pytest.raises(UsageError, match=f"{name} is no .npz file of arrays"):
            resident.npz(str(tmp_path / name), 2)
