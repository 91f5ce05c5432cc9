import collections
import io
import itertools
import json

import numpy as np
import PIL.Image
import pytest
from absl import flags
from jax.sharding import PartitionSpec

from ssl_jax.data import resident, squares, unpaired, write
from ssl_jax.data.stream import UnpairedStream
from ssl_jax.types import RunError, UsageError

SMALL, LARGE, BATCH = 7, 20, 6  # three steps an epoch, two numbers left over


def png(pixels):
    out = io.BytesIO()
    PIL.Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(out, "PNG")
    return out.getvalue()


def write_set(data_dir, name, splits, shape, class_names=()):
    """Writes a set, in order; `splits` maps to lists of (encoded image, id)."""

    def records(pairs):
        for index, (data, called) in enumerate(pairs):
            label = {"label": index % len(class_names)} if class_names else {}
            yield index, {"image": data, "id": called, **label}

    with write.workspace(data_dir) as scratch:
        given = {split: lambda pairs=pairs: records(pairs) for split, pairs in splits.items()}
        built = write.records(name, given, shape, class_names, scratch, ordered=True)
        write.publish(built, data_dir / name / write.VERSION)


@pytest.fixture(scope="module")
def pixels():
    """Images of five test pairs of varying size; B is A in the negative."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (9 + index, 14 - index, 3), np.uint8) for index in range(5)]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, pixels):
    """`sized`: grey 4x5 images that say which they are, 7 of A and 20 of B; `photos`: colour images of many sizes."""
    folder = tmp_path_factory.mktemp("data")
    plain = {split: [(png(np.full((4, 5, 1), i, np.uint8)), f"{split}/{i}.png") for i in range(count)]
             for split, count in (("trainA", SMALL), ("trainB", LARGE))}  # fmt: skip
    write_set(folder, "sized", plain, (4, 5, 1))
    photos = {
        "testA": [(png(image), f"testA/{i}_A.png") for i, image in enumerate(pixels)],
        "testB": [(png(255 - image), f"testB/{i}_B.png") for i, image in reversed([*enumerate(pixels)])],
        "brokenB": [(png(pixels[0]), "sound"), (b"rubbish", "rotten")],
    }
    write_set(folder, "photos", photos, (None, None, 3), ("ant", "bee"))
    return str(folder)


def sized(data_dir, **more):
    arguments = {"name_a": "sized", "split_a": "trainA", "name_b": "sized", "split_b": "trainB", "batch_size": BATCH}
    return unpaired.training(**arguments | {"data_dir": data_dir} | more)


def photos(data_dir, **more):
    return sized(data_dir, **{"name_a": "photos", "split_a": "testA", "name_b": "photos", "split_b": "testB"} | more)


def drawn(feed, mesh, *, seed=0, first_step=0, steps=9):
    """Which images the batches hold, as lists of A and of B."""
    batches = feed.batches(mesh, seed, first_step)
    found = []
    for batch in itertools.islice(batches, steps):
        assert set(batch) == {"image_a", "image_b"}
        found.append([np.asarray(batch[name][:, 0, 0, 0]).tolist() for name in ("image_a", "image_b")])
    batches.close()
    return found


@pytest.fixture(params=["resident", "stream"])
def feeding(request):
    return request.param


def test_a_comes_by_permutations_modulo_its_size(data_dir, devices, feeding):
    feed = sized(data_dir, feeding=feeding)
    assert (feed.examples, feed.batch_size, feed.chosen) == (LARGE, BATCH, {})
    found = drawn(feed, devices, steps=12)
    epochs = [list(itertools.chain(*(a for a, _ in found[first : first + 3]))) for first in (0, 3, 6, 9)]
    for epoch in epochs:
        # 20 numbers modulo 7 give 0 to 5 three times and 6 twice; two of them are left over.
        counts = collections.Counter(epoch)
        assert sum(counts.values()) == 18 and set(counts) == set(range(SMALL)) and max(counts.values()) == 3
        assert counts[6] <= 2
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_an_epoch_of_the_larger_set_holds_no_image_twice(data_dir, devices, feeding):
    feed = sized(data_dir, split_a="trainB", split_b="trainA", feeding=feeding)
    found = drawn(feed, devices, steps=6)
    for first in (0, 3):
        numbers = [number for a, _ in found[first : first + 3] for number in a]
        assert len(set(numbers)) == 18
    assert {number for _, b in found for number in b} <= set(range(SMALL))


def test_b_is_drawn_anew_with_replacement(data_dir, devices, feeding):
    steps = 80
    found = drawn(sized(data_dir, feeding=feeding), devices, steps=steps)
    counts = np.bincount([number for _, b in found for number in b], minlength=LARGE)
    expected = steps * BATCH / LARGE
    assert len(counts) == LARGE and np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    # Six of twenty with replacement repeat themselves in 56 of 100 batches, and permutations never do.
    repeated = np.mean([len(set(b)) < BATCH for _, b in found])
    assert abs(repeated - (1 - np.prod(1 - np.arange(BATCH) / LARGE))) < 0.28
    assert len({tuple(b) for _, b in found}) == steps
    # Over an epoch each image of A meets another of B than before.
    together = collections.Counter(pair for a, b in found for pair in zip(a, b, strict=True))
    assert len(together) > 0.9 * SMALL * LARGE


def test_a_batch_is_a_function_of_seed_and_step(data_dir, devices, feeding):
    feed = sized(data_dir, feeding=feeding)
    whole = drawn(feed, devices)
    assert drawn(sized(data_dir, feeding=feeding), devices) == whole
    for first_step in (1, 3, 5):
        assert drawn(feed, devices, first_step=first_step, steps=4) == whole[first_step : first_step + 4]
    other = drawn(feed, devices, seed=1)
    for domain in (0, 1):
        assert [step[domain] for step in other] != [step[domain] for step in whole]
        assert [step[domain] for step in other[:3]] != [step[domain] for step in whole[3:6]]


def test_batches_lie_on_the_mesh_as_the_spec_says(data_dir, devices, feeding):
    feed = sized(data_dir, split_b="trainB[:9]", feeding=feeding)
    batch = next(feed.batches(devices, 0, 0))
    for name in ("image_a", "image_b"):
        assert batch[name].shape == feed.spec[name].shape == (BATCH, 4, 5, 1)
        assert batch[name].dtype == feed.spec[name].dtype == np.uint8
        assert batch[name].sharding.spec == PartitionSpec(("data", "shard"))


def test_eight_devices_see_what_one_sees(child, data_dir, devices):
    done = child(
        """
        import itertools, json, sys
        import numpy as np
        from ssl_jax import mesh
        from ssl_jax.data import unpaired

        found = {}
        for feeding in ("resident", "stream"):
            feed = unpaired.training("sized", "trainA", "sized", "trainB", 16, feeding=feeding, data_dir=sys.argv[1])
            batches = feed.batches(mesh.data_parallel(8), 3, 1)
            got = list(itertools.islice(batches, 3))
            batches.close()
            for name in ("image_a", "image_b"):
                shards = got[0][name].addressable_shards
                assert len(shards) == 8 and all(shard.data.shape == (2, 4, 5, 1) for shard in shards)
            found[feeding] = [
                [np.asarray(batch[name])[:, 0, 0, 0].tolist() for name in ("image_a", "image_b")] for batch in got
            ]
        print(json.dumps(found))
        """,
        data_dir,
        devices=8,
    )
    for feeding, found in json.loads(done.stdout).items():
        feed = sized(data_dir, batch_size=16, feeding=feeding)
        assert found == drawn(feed, devices, seed=3, first_step=1, steps=3)


def host_batches(feed, steps, **share):
    iterator = iter(feed.host_batches(0, 2, **share))
    try:
        return list(itertools.islice(iterator, steps))
    finally:
        if hasattr(iterator, "close"):
            iterator.close()


def test_processes_share_the_global_batch(data_dir):
    feed = photos(data_dir, load_px=8, feeding="stream", batch_size=4)
    whole = host_batches(feed, 4)
    shares = [host_batches(feed, 4, process=p, processes=2) for p in (0, 1)]
    for batch, a, b in zip(whole, *shares, strict=True):
        for name in ("image_a", "image_b"):
            assert a[name].shape == (2, 8, 8, 3)
            np.testing.assert_array_equal(np.concatenate([a[name], b[name]]), batch[name])


def test_worker_processes_change_nothing(data_dir):
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # as a script has done; Grain asks when it starts a worker
    alone, helped = (
        host_batches(photos(data_dir, load_px=8, feeding="stream", batch_size=3, workers=workers), 4)
        for workers in (0, 2)
    )
    for a, b in zip(alone, helped, strict=True):
        for name in ("image_a", "image_b"):
            np.testing.assert_array_equal(a[name], b[name])


def test_pictures_are_loaded_as_squares(data_dir, pixels, devices, feeding):
    feed = photos(data_dir, load_px=8, feeding=feeding, batch_size=5)
    batch = next(feed.batches(devices, 0, 0))
    assert {name: spec.shape for name, spec in feed.spec.items()} == dict.fromkeys(("image_a", "image_b"), (5, 8, 8, 3))
    for name, known in (("image_a", pixels), ("image_b", [255 - image for image in pixels])):
        expected = {squares.square(image, 8).tobytes() for image in known}
        found = {np.asarray(image).tobytes() for image in batch[name]}
        # A batch of all of A holds each once; B repeats itself.
        assert found == expected if name == "image_a" else found <= expected


def test_both_domains_together_decide_what_is_kept_in_memory(tmp_path):
    image = png(np.zeros((512, 512, 1), np.uint8))  # a quarter of a MiB
    many = {"trainA": [(image, str(i)) for i in range(3)], "trainB": [(image, str(i)) for i in range(2)]}
    write_set(tmp_path, "sized", many, (512, 512, 1))
    kind = lambda **more: type(sized(str(tmp_path), batch_size=2, resident_limit_mib=1, **more))  # noqa: E731
    assert kind() is UnpairedStream
    assert kind(split_b="trainB[:1]") is unpaired.ResidentUnpaired
    # What counts is the size after loading.
    assert kind(load_px=256) is unpaired.ResidentUnpaired
    assert kind(split_b="trainB[:1]", load_px=1024) is UnpairedStream
    assert kind(feeding="resident") is unpaired.ResidentUnpaired
    assert kind(feeding="stream", load_px=256) is UnpairedStream


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"name_b": "photos", "split_b": "testB"}, "images of 'photos' vary in size: give this data section a load_px"),
        ({"load_px": 0}, "images of 'sized' cannot be 0 px wide"),
        ({"batch_size": 21}, "batch_size=21, but the data set has 20 images: take 1 to 20"),
        ({"batch_size": 0}, "batch_size=0, but"),
        ({"split_b": "testB"}, "'sized' has no split 'testB'; its splits are: trainA .7 images., trainB .20 images."),
        ({"split_a": "trainA[:0]"}, "split 'trainA.:0.' of data set 'sized' has no images"),
        ({"channels_a": 3}, "'sized', split 'trainA', has images of 1 channel.s., and the run takes 3"),
        ({"channels_b": 3}, "'sized', split 'trainB', has images of 1 channel.s., and the run takes 3"),
        ({"feeding": "stream", "workers": -1}, "workers is -1"),
    ],
)
@pytest.mark.parametrize("way", ["resident", "stream"])
def test_impossible_feeds_are_refused(data_dir, way, more, message):
    with pytest.raises(UsageError, match=message) as caught:
        sized(data_dir, **{"feeding": way} | more)
    assert "\n" not in str(caught.value)
    assert sized(data_dir, feeding=way, channels_a=1, channels_b=1).examples == LARGE


def test_a_broken_image_is_named(data_dir, devices):
    message = r"^record 1 \(rotten\) of data set 'photos', split 'brokenB', in .* does not decode [^\n]*$"
    with pytest.raises(RunError, match=message):
        photos(data_dir, split_b="brokenB", load_px=8, feeding="resident", batch_size=2)
    batches = photos(data_dir, split_b="brokenB", load_px=8, feeding="stream", batch_size=2).batches(devices, 0, 0)
    with pytest.raises(RunError, match=message):
        list(itertools.islice(batches, 20))


# From a file


def numbered(count, *shape):
    return np.broadcast_to(np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1), (count, *shape))


def test_noise_is_two_sets():
    feed = unpaired.noise((6, 4, 5, 3), 2)
    image_a, image_b = feed.arrays["image_a"], feed.arrays["image_b"]
    assert image_a.shape == image_b.shape == (6, 4, 5, 3) and feed.spec["image_b"].shape == (2, 4, 5, 3)
    assert np.mean(image_a == image_b) < 0.1


def test_npz_of_any_channels_is_drawn_alike(tmp_path, data_dir, devices):
    np.savez(tmp_path / "a.npz", image_a=numbered(SMALL, 4, 4, 5), image_b=numbered(LARGE, 6, 3, 2))
    feed = unpaired.npz(str(tmp_path / "a.npz"), BATCH)
    assert feed.examples == LARGE
    assert feed.spec["image_a"].shape == (BATCH, 4, 4, 5) and feed.spec["image_b"].shape == (BATCH, 6, 3, 2)
    assert drawn(feed, devices, steps=5) == drawn(sized(data_dir, feeding="resident"), devices, steps=5)


def test_npz_needs_neither_tfds_nor_grain(child, tmp_path):
    np.savez(tmp_path / "a.npz", image_a=numbered(3, 4, 4, 1), image_b=numbered(4, 4, 4, 1))
    child(
        """
        import sys
        from ssl_jax import mesh
        from ssl_jax.data import unpaired
        assert next(unpaired.npz(sys.argv[1], 2).batches(mesh.data_parallel(1), 0, 0))["image_a"].shape == (2, 4, 4, 1)
        """,
        tmp_path / "a.npz",
        blocked=("tensorflow_datasets", "grain", "cv2", "PIL", "array_record", "tqdm", "ml_collections"),
    )


IMAGES = np.zeros((4, 2, 2, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"image_a": IMAGES}, "has no entry `image_b`: it needs image_a and image_b, uint8 [n, h, w, c]"),
        ({"image_a": IMAGES.astype(np.uint16), "image_b": IMAGES}, "`image_a` is uint16 [4, 2, 2, 3], and uint8 [n, h"),
        (
            {"image_a": IMAGES, "image_b": IMAGES[..., 0]},
            "`image_b` is uint8 [4, 2, 2], and uint8 [n, h, w, c] is read",
        ),
        ({"image_a": IMAGES, "image_b": IMAGES[:0]}, "domain B holds no images: both domains need some"),
        ({"image_a": IMAGES[:1], "image_b": IMAGES[:1]}, "batch_size=2, but the data set has 1 images"),
        ({"image_a": np.array([None])}, "is no .npz file of arrays"),
    ],
)
def test_npz_of_something_else_is_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UsageError) as caught:
        unpaired.npz(str(tmp_path / "a.npz"), 2)
    message = str(caught.value)
    assert words in message and str(tmp_path / "a.npz") in message and "\n" not in message


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"no file .*nowhere\.npz"):
        unpaired.npz(str(tmp_path / "nowhere.npz"), 2)
    assert unpaired.read_npz is resident.read_npz


# To be judged by


def read(examples):
    """All rows of a set's batches that are no padding, and the batches' lengths."""
    batches = list(examples.batches())
    assert sum(int(batch["mask"].sum()) for batch in batches) == examples.examples
    whole = {key: np.concatenate([batch[key][batch["mask"]] for batch in batches]) for key in batches[0]}
    return whole, [len(batch["mask"]) for batch in batches]


@pytest.mark.parametrize("limit", [None, 3, 99])
def test_test_images_are_squares_in_order(data_dir, pixels, limit):
    examples = unpaired.Test("photos", "testA", size_px=8, data_dir=data_dir, batch_size=2, limit=limit)
    count = 3 if limit == 3 else 5
    assert examples.examples == count and examples.class_names == ("ant", "bee")
    assert examples.labels().tolist() == [0, 1, 0, 1, 0][:count] and examples.labels().dtype == np.int32
    for _ in range(2):
        whole, lengths = read(examples)
        assert set(whole) == {"image", "label", "mask"} and lengths == [2] * (-(-count // 2))
        np.testing.assert_array_equal(whole["image"], [squares.square(image, 8) for image in pixels[:count]])
        assert whole["label"].tolist() == examples.labels().tolist() and whole["label"].dtype == np.int32


def test_test_images_of_one_size_need_no_size(data_dir):
    examples = unpaired.Test("sized", "trainA", data_dir=data_dir, limit=4)
    whole, lengths = read(examples)
    assert lengths == [4] and whole["image"].shape == (4, 4, 5, 1) and examples.class_names == ()
    assert whole["image"][:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert whole["label"].tolist() == examples.labels().tolist() == [-1] * 4


def test_pairs_by_their_names(data_dir, pixels):
    for limit in (None, 3):
        pairs = unpaired.Pairs("photos", "testA", "photos", "testB", 8, data_dir, batch_size=2, limit=limit)
        count = limit or 5
        whole, lengths = read(pairs)
        assert pairs.examples == count and lengths == [2] * (-(-count // 2))
        assert set(whole) == {"image_a", "image_b", "label", "mask"}
        # B lies the other way round.
        np.testing.assert_array_equal(whole["image_a"], [squares.square(image, 8) for image in pixels[:count]])
        np.testing.assert_array_equal(whole["image_b"], [squares.square(255 - image, 8) for image in pixels[:count]])
        assert whole["label"].tolist() == pairs.labels().tolist() == [0, 1, 0, 1, 0][:count]
        assert pairs.class_names == ("ant", "bee")


def test_pairs_of_one_size_need_no_size(data_dir):
    pairs = unpaired.Pairs("sized", "trainA", "sized", "trainA", data_dir=data_dir, batch_size=4)
    whole, _ = read(pairs)
    np.testing.assert_array_equal(whole["image_a"], whole["image_b"])
    assert whole["image_b"][:, 0, 0, 0].tolist() == list(range(SMALL)) and pairs.class_names == ()


def test_impossible_sets_are_refused(data_dir):
    def refuse(message, make, *arguments, **named):
        with pytest.raises(UsageError, match=message) as caught:
            make(*arguments, data_dir=data_dir, **named)
        assert "\n" not in str(caught.value)

    vary = "images of 'photos' vary in size: give this data section a size_px"
    refuse(vary, unpaired.Test, "photos", "testA")
    refuse(vary, unpaired.Pairs, "photos", "testA", "photos", "testB")
    refuse("13 of 20 pictures of .*'trainB' have no counterpart in .*'trainA', the first of them 'trainB/7.png'",
           unpaired.Pairs, "sized", "trainA", "sized", "trainB")  # fmt: skip
    for key in ("limit", "batch_size"):
        refuse(f"{key}=0: at least 1 image is read", unpaired.Test, "sized", "trainA", **{key: 0})
        refuse(
            f"{key}=0: at least 1 image is read", unpaired.Pairs, "photos", "testA", "photos", "testB", 8, **{key: 0}
        )
