import dataclasses
import types as python_types

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import types
from ssl_jax.analysis import neighbours
from ssl_jax.evaluators import knn

STATE = python_types.SimpleNamespace(step=1)


@dataclasses.dataclass(frozen=True)
class Shelf:
    """Examples in memory, the last batch ragged and its padding poisonous."""

    images: np.ndarray
    targets: np.ndarray
    class_names: tuple[str, ...]
    batch_size: int = 16

    @property
    def examples(self):
        return len(self.images)

    def labels(self):
        return np.asarray(self.targets, np.int32)

    def batches(self):
        for first in range(0, len(self.images), self.batch_size):
            images = self.images[first : first + self.batch_size]
            missing = self.batch_size - len(images)
            padding = np.full((missing, *images.shape[1:]), 255, np.uint8)
            yield {
                "image": np.concatenate([images, padding]),
                "label": np.pad(self.targets[first : first + self.batch_size], (0, missing)).astype(np.int32),
                "mask": np.arange(self.batch_size) < len(images),
            }


def preprocess(images):
    return jnp.asarray(images, jnp.float32) / 127.5 - 1


def features(state, images, preprocess):
    return np.asarray(preprocess(images))


def shelves(train=90, test=37, classes=3, side=4, channels=1, noise=60, seed=0):
    """Noisy pictures, one prototype a class."""
    random = np.random.default_rng(seed)
    prototypes = random.integers(0, 256, (classes, side, side, channels))
    labels = random.integers(0, classes, train + test)
    images = prototypes[labels] + noise * random.normal(size=(train + test, side, side, channels))
    images = np.clip(images, 0, 255).astype(np.uint8)
    names = tuple(f"class {label}" for label in range(classes))
    return Shelf(images[:train], labels[:train], names), Shelf(images[train:], labels[train:], names)


def report(evaluator):
    return evaluator({"features": features}, STATE, lambda: STATE)


def flat(shelf):
    return np.asarray(preprocess(shelf.images)).reshape(shelf.examples, -1)


@pytest.mark.parametrize(("weighted", "cosine"), [(50, 7), (7, 50)])
def test_scalars_are_the_two_protocols_on_exactly_the_unpadded_examples(weighted, cosine):
    train, test = shelves(noise=150)
    scalars = report(knn.KNN(train, test, preprocess, weighted_neighbours=weighted, cosine_neighbours=cosine)).scalars
    votes = neighbours.weighted_knn(flat(train), train.targets, flat(test), classes=3, k=weighted, temperature=0.1)
    majority = neighbours.knn(flat(train), train.targets, flat(test), classes=3, k=cosine)
    by_weight, by_count = f"accuracy_weighted_{weighted}", f"accuracy_cosine_{cosine}"
    assert set(scalars) == {by_weight, by_count}
    assert scalars[by_weight] == np.mean(votes == test.targets)
    assert scalars[by_count] == np.mean(majority == test.targets)
    assert scalars[by_weight] != scalars[by_count]
    assert 0.34 < scalars[by_weight] < 1


def test_temperature_reaches_the_vote():
    train, test = shelves(noise=150)
    cold, hot = (
        report(knn.KNN(train, test, preprocess, weighted_neighbours=90, temperature=temperature, gallery=0)).scalars
        for temperature in (0.02, 100.0)
    )
    # All 90 with all but equal votes: the largest class wins everywhere.
    name = "accuracy_weighted_90"
    assert hot[name] == np.mean(test.targets == np.bincount(train.targets).argmax())
    assert cold[name] > hot[name]


def test_one_protocol_alone():
    train, test = shelves()
    scalars = report(knn.KNN(train, test, preprocess, weighted_neighbours=None, cosine_neighbours=1)).scalars
    assert set(scalars) == {"accuracy_cosine_1"}
    assert scalars["accuracy_cosine_1"] > 0.9


@pytest.mark.parametrize(("side", "channels", "tile"), [(4, 1, 64), (24, 3, 48), (96, 3, 64)])
def test_picture_is_a_row_for_each_test_image(side, channels, tile):
    train, test = shelves(side=side, channels=channels)
    evaluator = knn.KNN(train, test, preprocess, weighted_neighbours=10, gallery=5)
    picture = report(evaluator).images["neighbours"]
    assert picture.dtype == np.uint8
    assert picture.shape == (5 * (tile + 8), 9 * (tile + 8), 3)


def test_picture_frames_say_right_and_wrong():
    train, test = shelves(noise=0)
    crossed = dataclasses.replace(test, targets=(test.targets + 1) % 3)
    evaluator = knn.KNN(train, test, preprocess, weighted_neighbours=10, gallery=4)
    right = report(evaluator).images["neighbours"]
    wrong = report(dataclasses.replace(evaluator, test=crossed)).images["neighbours"]
    for picture, colour in ((right, (40, 160, 60)), (wrong, (210, 50, 45))):
        frames = picture.reshape(4, 72, 9, 72, 3)[:, 2, 1:, 36]
        np.testing.assert_array_equal(frames, np.broadcast_to(np.array(colour), frames.shape))
        # Without noise each neighbour is the test image itself, pixels enlarged and not blurred.
        inner = picture.reshape(4, 72, 9, 72, 3).transpose(0, 2, 1, 3, 4)[:, :, 4:-4, 4:-4]
        np.testing.assert_array_equal(inner, np.broadcast_to(inner[:, :1], inner.shape))
        np.testing.assert_array_equal(inner[0, 0, ::16, ::16, 0], test.images[0, :, :, 0])


def test_each_frame_is_that_of_its_own_neighbour():
    train, test = shelves(noise=150)
    picture = report(knn.KNN(train, test, preprocess, weighted_neighbours=10, gallery=4)).images["neighbours"]
    chosen = np.array([0, 12, 24, 36])
    nearest, _ = neighbours.nearest(flat(train), flat(test)[chosen], 8)
    right = train.targets[nearest] == test.targets[chosen][:, None]
    assert 0 < right.mean() < 1
    tiles = picture.reshape(4, 72, 9, 72, 3).transpose(0, 2, 1, 3, 4)
    np.testing.assert_array_equal(tiles[:, 1:, 2, 36, 1] == 160, right)
    np.testing.assert_array_equal(tiles[:, 1:, 4:-4:16, 4:-4:16, 0], train.images[nearest][..., 0])


def test_a_gallery_of_none_draws_none():
    train, test = shelves()
    assert not report(knn.KNN(train, test, preprocess, weighted_neighbours=10, gallery=0)).images


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "weighted_neighbours=200, but the train set has 90 images"),
        ({"weighted_neighbours": 10, "cosine_neighbours": 0}, "cosine_neighbours=0"),
        ({"weighted_neighbours": None, "cosine_neighbours": None}, "set at least one"),
        ({"weighted_neighbours": 10, "temperature": 0.0}, "temperature=0.0"),
    ],
)
def test_arguments_that_cannot_be_are_refused_at_once(changes, message):
    train, test = shelves()
    with pytest.raises(types.UsageError, match=message):
        knn.KNN(train, test, preprocess, **changes)


def test_sets_that_do_not_fit_are_refused():
    train, test = shelves()
    with pytest.raises(types.UsageError, match="train set has no labels"):
        knn.KNN(dataclasses.replace(train, class_names=()), test, preprocess)
    with pytest.raises(types.UsageError, match="class names"):
        knn.KNN(train, dataclasses.replace(test, class_names=("a", "b", "c")), preprocess)
    labels = np.where(np.arange(37) < 5, -1, test.targets)
    with pytest.raises(types.UsageError, match="5 images of its test set have no label"):
        knn.KNN(train, dataclasses.replace(test, targets=labels), preprocess, weighted_neighbours=10)
    with pytest.raises(types.UsageError, match="no export 'feature' in this method, which has features"):
        report(knn.KNN(train, test, preprocess, export="feature", weighted_neighbours=10))
