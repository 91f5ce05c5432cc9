import itertools
import json

import numpy as np
import pytest
from absl import flags
from jax.sharding import PartitionSpec

from ssl_jax.data.stream import HostCrop, Stream
from ssl_jax.types import RunError, UsageError

EXAMPLES, BATCH = 20, 6  # three steps an epoch, two images left over


class Numbers:
    """A set in memory whose images say which they are; of one size, or each of its own."""

    name = "numbers"
    image_shape = (2, 2, 1)

    def __init__(self, examples=EXAMPLES):
        self.examples = examples

    def __len__(self):
        return self.examples

    def __getitem__(self, index):
        assert 0 <= index < self.examples
        return {"image": np.full(self.image_shape, index, np.uint8), "label": index}

    def describe(self, index):
        return f"record {index} of {self.name}"


class Photographs(Numbers):
    """Gradients of different sizes, so that a crop shows by its values where it was taken."""

    name = "photographs"
    image_shape = (None, None, 3)

    def __getitem__(self, index):
        height, width = 20 + index, 45 - index
        rows, columns = np.mgrid[:height, :width]
        image = np.stack([rows * 250 / height, columns * 250 / width, np.full((height, width), index)], axis=-1)
        return {"image": image.astype(np.uint8), "label": index}


class Broken(Numbers):
    def __getitem__(self, index):
        raise ValueError(f"record {index} is broken")


def stream(source=None, batch_size=BATCH, crop=None, workers=0):
    return Stream(source or Numbers(), batch_size, crop=crop, workers=workers, prefetch=2)


def host_batches(feed, steps, *, seed=0, first_step=0, **share):
    iterator = iter(feed.host_batches(seed, first_step, **share))
    try:
        return list(itertools.islice(iterator, steps))
    finally:
        if hasattr(iterator, "close"):
            iterator.close()


def labels(feed, steps=9, **more):
    batches = host_batches(feed, steps, **more)
    for batch in batches:
        if "image" in batch:
            np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])
    return [batch["label"].tolist() for batch in batches]


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_every_epoch_is_a_permutation_without_its_tail():
    seen = labels(stream(), steps=12)
    epochs = [list(itertools.chain(*seen[first : first + 3])) for first in (0, 3, 6, 9)]
    for epoch in epochs:
        assert len(set(epoch)) == 18 and set(epoch) < set(range(EXAMPLES))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert len({frozenset(epoch) for epoch in epochs}) > 1, "the images left over must change"


def test_a_batch_of_all_images_holds_each_once_in_every_epoch():
    seen = labels(stream(Numbers(8), 8), steps=5)
    assert all(sorted(batch) == list(range(8)) for batch in seen)
    assert len({tuple(batch) for batch in seen}) == 5


def test_the_batch_of_a_step_is_a_function_of_seed_and_step():
    whole = labels(stream())
    assert labels(stream()) == whole
    for first_step in (1, 3, 5):
        assert labels(stream(), 4, first_step=first_step) == whole[first_step : first_step + 4]
    assert labels(stream(), seed=1) != whole


def test_epochs_of_neighbouring_seeds_are_unrelated():
    # Grain adds the epoch to the seed, which would make epoch 1 of seed 0 the epoch 0 of seed 1 if it were the run's.
    assert labels(stream(), 3, seed=1) != labels(stream(), 6)[3:]


def test_processes_share_the_global_batch():
    feed = stream(Photographs(), crop=HostCrop(size_px=8))
    whole = host_batches(feed, 4, first_step=2)
    shares = [host_batches(feed, 4, first_step=2, process=p, processes=2) for p in (0, 1)]
    joined = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*shares, strict=True)]
    assert shares[0][0]["label"].shape == (3,)
    same(joined, whole)


def test_worker_processes_change_nothing():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # as a script has done; Grain asks when it starts a worker
    crop = HostCrop(size_px=8)
    alone = host_batches(stream(Photographs(), crop=crop), 5, first_step=2)
    same(host_batches(stream(Photographs(), crop=crop, workers=2), 5, first_step=2), alone)


def test_two_crops_of_one_size_from_images_of_many():
    feed = stream(Photographs(), crop=HostCrop(size_px=8))
    assert {name: (spec.shape, spec.dtype) for name, spec in feed.spec.items()} == {
        "image_1": ((6, 8, 8, 3), np.uint8),
        "image_2": ((6, 8, 8, 3), np.uint8),
        "label": ((6,), np.int32),
    }
    batches = host_batches(feed, 3)
    for batch in batches:
        for name, spec in feed.spec.items():
            assert batch[name].shape == spec.shape and batch[name].dtype == spec.dtype
        # The third channel says whose crop it is, the first where it was taken.
        for name in ("image_1", "image_2"):
            np.testing.assert_array_equal(batch[name][:, 4, 4, 2], batch["label"])
        places = np.stack([batch[name][:, :, :, :2].mean((1, 2)) for name in ("image_1", "image_2")])
        assert (np.abs(places[0] - places[1]).max(-1) > 1).sum() >= 5


def test_crops_of_an_image_differ_from_epoch_to_epoch():
    crops = {}
    for batch in host_batches(stream(Photographs(), crop=HostCrop(size_px=8)), 9):
        for image, label in zip(batch["image_1"], batch["label"], strict=True):
            crops.setdefault(int(label), []).append(image.tobytes())
    assert sum(len(set(seen)) < len(seen) for seen in crops.values()) == 0


def test_crops_cover_the_areas_asked_for():
    feed = stream(Photographs(), crop=HostCrop(size_px=8, scale=(0.9, 1.0), ratio=(0.8, 1.25)))
    (batch,) = host_batches(feed, 1)
    assert set(batch) == {"image_1", "image_2", "label"}
    # A crop of nearly everything has nearly the whole gradient, of which 250 is the end, along its longer cut.
    spread = [np.ptp(batch["image_1"][..., k].astype(int), axis=(1, 2)) for k in (0, 1)]
    assert np.maximum(*spread).min() > 180


def test_batches_lie_on_the_mesh_as_the_spec_says(devices):
    feed = stream()
    batches = feed.batches(devices, 0, 4)
    got = [next(batches) for _ in range(3)]
    batches.close()
    assert [np.asarray(batch["label"]).tolist() for batch in got] == labels(stream(), 3, first_step=4)
    for name, spec in feed.spec.items():
        assert got[0][name].shape == spec.shape and got[0][name].dtype == spec.dtype
        assert got[0][name].sharding.spec == PartitionSpec(("data", "shard"))


def test_eight_devices_see_what_one_sees(child):
    done = child(
        """
        import json
        import numpy as np
        from ssl_jax import mesh
        from ssl_jax.data.stream import Stream

        class Numbers:
            name, image_shape, examples = "numbers", (2, 2, 1), 20
            def __len__(self):
                return 20
            def __getitem__(self, index):
                return {"image": np.full((2, 2, 1), index, np.uint8), "label": index}

        batches = Stream(Numbers(), 16, crop=None, workers=0).batches(mesh.data_parallel(8), 5, 1)
        got = [next(batches) for _ in range(3)]
        batches.close()
        assert all(shard.data.shape == (2, 2, 2, 1) for shard in got[0]["image"].addressable_shards)
        print(json.dumps([np.asarray(batch["label"]).tolist() for batch in got]))
        """,
        devices=8,
    )
    assert json.loads(done.stdout) == labels(stream(batch_size=16), 3, seed=5, first_step=1)


def test_varying_sizes_need_a_crop():
    with pytest.raises(UsageError, match=r"the images of 'photographs' vary in size: give .*data.stream.HostCrop"):
        stream(Photographs())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size_px": 0}, "size_px is 0"),
        ({"size_px": 8, "scale": (0.0, 1.0)}, r"scale is \(0.0, 1.0\)"),
        ({"size_px": 8, "scale": (0.5, 1.5)}, "scale is"),
        ({"size_px": 8, "ratio": (2.0, 1.0)}, "ratio is"),
    ],
)
def test_impossible_crops_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        HostCrop(**arguments)


@pytest.mark.parametrize("batch_size", [0, EXAMPLES + 1])
def test_a_batch_that_cannot_be_filled_is_refused(batch_size):
    with pytest.raises(UsageError, match=f"batch_size={batch_size}, but the data set has 20 images"):
        stream(batch_size=batch_size)


def test_fewer_than_no_workers_are_refused():
    with pytest.raises(UsageError, match="workers is -1"):
        stream(workers=-1)


def test_a_broken_record_reaches_the_training(devices):
    batches = stream(Broken()).batches(devices, 0, 0)
    with pytest.raises(ValueError, match=r"record [0-9]+ is broken"):
        next(batches)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_smaller_than_the_crop_is_named(workers):
    # The shorter side of image i is 20 + i px in the first half, and longer than 22 px in the second.
    message = (
        r"record (0|1) of photographs is 2[01]x4[45] px, smaller than the crop of 22 px: lower the crop's size_px, "
    )
    with pytest.raises(RunError, match=message):
        host_batches(stream(Photographs(), batch_size=EXAMPLES, crop=HostCrop(size_px=22), workers=workers), 1)
    for crop in (HostCrop(size_px=20), HostCrop(size_px=22, small_images="enlarged")):
        assert len(host_batches(stream(Photographs(), batch_size=EXAMPLES, crop=crop), 1)) == 1
