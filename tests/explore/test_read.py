"""Where features come from: every network of a run, views as it trains, pixels, and files of anybody's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import augment, build, pretrained
from ssl_jax.data import feed
from ssl_jax.explore import read
from ssl_jax.types import UsageError
from tests.explore_subjects import METHOD, VIEW, config_of, run_folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return str(run_folder(tmp_path_factory.mktemp("read") / "run"))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return feed.Evaluation("digits", "test", data_dir=str(tmp_path_factory.mktemp("data")))


def state_of(step=5):
    method = build.section(METHOD, "config.method")
    spec = {name: jax.ShapeDtypeStruct((8, 8, 8, 1), jnp.float32) for name in ("view_1", "view_2")}
    return method, method.init(jax.random.key(step), spec)


def test_every_network_answers_on_images_prepared_as_the_run_evaluates(run, digits):
    found = read.of_run(run, digits)
    images = np.concatenate([batch["image"][batch["mask"]] for batch in digits.batches()])
    method, state = state_of()
    prepared = augment.Plain(size_px=12, mean=(0.1,), deviation=(0.4,))(images)
    features, projections = (np.asarray(method.exports[name](state, prepared)) for name in ("features", "output"))
    assert list(found.stages) == ["encoder", "projector", "predictor"]
    np.testing.assert_allclose(found.features, features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.stages["projector"], projections, rtol=1e-4, atol=1e-4)
    variables = {"params": state.params["predictor"], "batch_stats": state.stats["predictor"]}
    predictions = method.predictor.apply(variables, projections, train=False)
    np.testing.assert_allclose(found.stages["predictor"], predictions, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_array_equal(found.labels, digits.labels())
    assert found.told == f"encoder of {run}, its last checkpoint, step 5" and found.views == {}
    assert len(found.names) == 397 and len(set(found.names)) == 397


def test_a_part_of_the_images_is_taken_evenly(run, digits):
    whole, part = read.of_run(run, digits), read.of_run(run, digits, most=100)
    rows = np.linspace(0, 396, 100).round().astype(int)
    np.testing.assert_allclose(part.features, whole.features[rows], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(part.images, whole.images[rows])
    assert part.names == tuple(np.array(whole.names)[rows]) and part.labels.tolist() == whole.labels[rows].tolist()


def test_the_best_checkpoint_by_one_word(run, digits):
    best = read.of_run(run, digits, which="best", most=50)
    assert best.told.endswith("its best checkpoint, step 3")
    for name, last in read.of_run(run, digits, most=50).stages.items():
        assert np.abs(best.stages[name] - last).max() > 1e-3


def test_views_are_drawn_as_training_draws_them(run, digits):
    found = read.of_run(run, digits, most=90, views=3)
    assert {name: views.shape for name, views in found.views.items()} == {
        "encoder": (90, 3, 6),
        "projector": (90, 3, 8),
        "predictor": (90, 3, 8),
    }
    views = found.views["encoder"]
    assert np.abs(views[:, 0] - views[:, 1]).max() > 1e-3
    # A view of an image is nearer to its other views than to those of another image.
    own = np.linalg.norm(views[:, 0] - views[:, 1], axis=1).mean()
    others = np.linalg.norm(views[:-1, 0] - views[1:, 1], axis=1).mean()
    assert own < others
    again = read.of_run(run, digits, most=90, views=3).views["encoder"]
    np.testing.assert_array_equal(views, again)
    assert np.abs(read.of_run(run, digits, most=90, views=3, seed=1).views["encoder"] - views).max() > 1e-3
    seen = np.asarray(build.section(VIEW, "view")(found.images, jax.random.key(0)))
    method, state = state_of()
    like = np.asarray(method.exports["features"](state, seen))
    assert abs(like.std() / views.std() - 1) < 0.1


def test_where_training_crops_on_the_host_views_are_cropped_here(tmp_path):
    crop = {"type": "data.stream.HostCrop", "size_px": 8, "scale": (0.3, 1.0), "ratio": (0.75, 1.33)}
    folder = run_folder(tmp_path / "run", config_of(data={"type": "data.feed.training", "crop": crop}))
    view = read._networks(str(folder), "last")[2]
    assert view.crop == augment.Crop(8, (0.3, 1.0), (0.75, 1.33)) and view.tone is not None


def test_an_exported_encoder_has_one_stage_and_no_views(run, digits, tmp_path):
    file = tmp_path / "encoder.npz"
    pretrained.write(pretrained.read(run), file)
    found = read.of_run(str(file), digits, most=40, views=3)
    assert list(found.stages) == ["encoder"] and found.views == {}


def test_the_size_of_images_is_the_runs(run, tmp_path):
    assert read.size_of_run(tmp_path.parent / run) is None
    sized = run_folder(tmp_path / "sized", config_of(examples={"size_px": 40}))
    assert read.size_of_run(sized) == 40


def test_pixels_are_in_row_order(digits):
    found = read.of_pixels(digits, most=60)
    np.testing.assert_allclose(found.features, found.images.reshape(60, -1) / 255, rtol=1e-6)
    assert found.pixels and found.stages == {}


def test_large_images_are_shrunk_for_the_eye():
    images = np.full((2, 300, 200, 3), 77, np.uint8)
    assert read._shrunk(images).shape == (2, 96, 64, 3) and (read._shrunk(images) == 77).all()
    small = np.zeros((2, 96, 20, 1), np.uint8)
    assert read._shrunk(small) is small


def test_a_file_of_features_with_and_without_images(digits, tmp_path):
    features = np.random.default_rng(0).normal(size=(397, 5))
    np.save(tmp_path / "plain.npy", features)
    found = read.of_file(tmp_path / "plain.npy", most=50)
    np.testing.assert_allclose(found.features, features[np.linspace(0, 396, 50).round().astype(int)], rtol=1e-6)
    assert found.images is None and not found.labelled and found.names[-1] == "row 396"
    with_images = read.of_file(tmp_path / "plain.npy", digits)
    np.testing.assert_array_equal(with_images.labels, digits.labels())
    assert with_images.images.shape == (397, 8, 8, 1) and with_images.class_names == digits.class_names
    labels = np.arange(397) % 2
    np.savez(tmp_path / "labelled.npz", features=features, labels=labels, class_names=np.array(["x", "y"]))
    labelled = read.of_file(tmp_path / "labelled.npz")
    assert labelled.class_names == ("x", "y") and labelled.labels.tolist() == labels.tolist()


def test_labels_of_any_integers_and_an_archive_under_a_plain_name(tmp_path):
    labels = np.array([0, 1, 2, 255], np.uint8)
    with (tmp_path / "renamed.npy").open("wb") as file:
        np.savez(file, features=np.eye(4), labels=labels)
    found = read.of_file(tmp_path / "renamed.npy")
    assert found.labels.tolist() == [0, 1, 2, 255] and len(found.class_names) == 256
    np.savez(tmp_path / "signed.npz", features=np.eye(4), labels=np.array([0, -5, 1, -1]))
    assert read.of_file(tmp_path / "signed.npz").labels.tolist() == [0, -1, 1, -1]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("f.npy", np.zeros((3, 2, 2)), r"float64 \(3, 2, 2\), and features are numbers"),
        ("f.npy", np.array(["a", "b"]), "and features are numbers"),
        ("f.npy", np.array([{}, {}]), "is no file of numbers"),
        ("f.npz", {"other": np.zeros(3)}, "no array `features`: it holds other"),
        ("f.npz", {"features": np.zeros((4, 2)), "labels": np.zeros(3, int)}, r"labels are int64 \(3,\)"),
        (
            "f.npz",
            {"features": np.zeros((4, 2)), "labels": np.full(4, 9), "class_names": np.array(["a"])},
            "label of 9",
        ),
        ("f.npy", b"nothing", "is no file of numbers"),
        ("f.npy", np.full((4, 2), 1e200), "of 4 of 4 images are not finite"),
        ("f.npy", np.array([[1.0, 1e20], [0, 0], [3, 4]]), r"numbers up to 1.0e\+20, whose squares overflow"),
        (
            "f.npz",
            {"features": np.zeros((4, 2)), "labels": np.zeros(4, int), "class_names": np.array("a")},
            r"class_names of shape \(\)",
        ),
        ("f.txt", b"1 2", r"come as \.npy or \.npz"),
        ("f.npy", None, "cannot read"),
        (
            "f.npy",
            np.array([[1.0, np.nan], [1, 2], [3, 4]]),
            "of 1 of 3 images are not finite, the first of them 'row 0'",
        ),
        ("f.npy", np.zeros((396, 2)), "has 396 rows and the data 397 images"),
    ],
)
def test_a_file_of_something_else_is_one_line(digits, tmp_path, name, content, told):
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(file, **content)
    elif content is not None:
        np.save(file, content, allow_pickle=True)
    examples = digits if content is not None and len(content) == 396 else None
    with pytest.raises(UsageError, match=told) as caught:
        read.of_file(file, examples)
    assert "\n" not in str(caught.value)


def test_images_of_other_channels_are_refused(run):
    class Coloured:
        examples, class_names = 3, ()

        def labels(self):
            return np.full(3, -1, np.int32)

        def names(self):
            return ("a", "b", "c")

        def batches(self):
            yield {"image": np.zeros((3, 8, 8, 3), np.uint8), "mask": np.ones(3, bool)}

    with pytest.raises(UsageError, match="give ones of the same channels"):
        read.of_run(run, Coloured())


def test_a_run_that_diverged_is_told(run, digits, monkeypatch):
    def diverged(origin, name="encoder", *, which="last"):
        network = original(origin, name, which=which)
        return dataclasses.replace(network, params=jax.tree.map(lambda x: np.full_like(x, np.nan), network.params))

    original = pretrained.read
    monkeypatch.setattr(pretrained, "read", diverged)
    with pytest.raises(UsageError, match="the encoder of step 5 holds numbers that are not finite"):
        read.of_run(run, digits)
