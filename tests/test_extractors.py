"""Networks to compare by: a run's own features and logits prepared as it does, and a digest that tells all apart."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import augment, build, extractors, pretrained
from ssl_jax.checkpoint import Policy
from ssl_jax.models import inception, inception_weights
from ssl_jax.types import UsageError

PLAIN = {"type": "augment.Plain", "size_px": 12, "mean": (0.1,), "deviation": (0.4,)}
CLASSIFY = {
    "type": "methods.classify.Classify",
    "train": "all",
    "encoder": {"type": "models.convnet.ConvNet", "channels": (4, 6), "strides": (2, 2)},
    "head": {"type": "models.heads.Classifier", "classes": 3},
    "optimizer": {"type": "optim.sgd", "base_learning_rate": 0.1, "batch_size": 8, "decay_steps": 10},
}
SIMSIAM = {
    "type": "methods.simsiam.SimSiam",
    "encoder": CLASSIFY["encoder"],
    "projector": {"type": "models.heads.Projector", "hidden": 8, "output": 8, "layers": 2},
    "predictor": {"type": "models.heads.Predictor", "hidden": 4, "output": 8},
    "optimizer": CLASSIFY["optimizer"],
}


def config_of(method=CLASSIFY, plain=PLAIN):
    examples = {"type": "data.feed.Evaluation", "name": "digits", "split": "test"}
    look = {"type": "loop.Every", "steps": "100 %", "run": {"examples": examples, "preprocess": plain}}
    return {
        "method": method,
        "data": {"type": "data.feed.training", "class_names": ("ant", "bee", "cow")},
        "preprocess": {"type": "augment.Labelled", "view": {"mean": (0.1,), "deviation": (0.4,)}},
        "evaluators": {"test": look},
    }


def run_folder(folder, config=None, spec=("image",), steps=(3, 5), best=3):
    """The folder of a run with checkpoints at `steps`, drawn anew for each, in the form that trainings leave."""
    config = config_of() if config is None else config
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "summary.json").write_text(json.dumps({"steps_per_epoch": 2, "batch_size": 8, "total_steps": 5}))
    method = build.section(config["method"], "config.method", build.Clock(16, 8, 5))
    keeper = Policy(every=1, best="score").open(folder)
    for step in steps:
        shapes = {name: jax.ShapeDtypeStruct((8, 8, 8, 1), jnp.float32) for name in spec}
        state = method.init(jax.random.key(step), shapes).replace(step=jnp.int32(step))
        keeper.save(step, state, config=config, scalars={"score": float(step == best)})
    keeper.close()
    return folder


def images(count=5, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, channels), dtype=np.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_folder(tmp_path_factory.mktemp("extractors") / "classifier")


def test_a_classifier_gives_its_own_features_and_logits_of_images_prepared_as_it_evaluates(run):
    method = build.section(CLASSIFY, "config.method")
    state = method.init(jax.random.key(5), {"image": jax.ShapeDtypeStruct((8, 8, 8, 1), jnp.float32)})
    prepared = augment.Plain(size_px=12, mean=(0.1,), deviation=(0.4,))(images())
    extractor = extractors.Encoder(str(run))
    features, logits = extractor(images())
    assert features.shape == (5, 6) and features.dtype == logits.dtype == np.float32
    np.testing.assert_allclose(features, method.exports["features"](state, prepared), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logits, method.exports["logits"](state, prepared), rtol=1e-5, atol=1e-6)
    assert (extractor.name, extractor.class_names) == ("encoder", ("ant", "bee", "cow"))
    assert extractor.resize == "antialiased bilinear to 12x12 px"
    assert extractor.describe() == f"encoder of {run}, its last checkpoint, step 5, with its head"


def test_the_best_checkpoint_by_one_word(run):
    best = extractors.Encoder(str(run), checkpoint="best")
    assert best.describe() == f"encoder of {run}, its best checkpoint, step 3, with its head"
    assert np.abs(best(images())[0] - extractors.Encoder(str(run))(images())[0]).max() > 0.01


def test_a_run_without_a_head_gives_features_alone(tmp_path):
    folder = run_folder(tmp_path / "simsiam", config_of(SIMSIAM), spec=("view_1", "view_2"))
    extractor = extractors.Encoder(str(folder))
    features, logits = extractor(images())
    assert features.shape == (5, 6) and logits is None and extractor.class_names == ()
    assert extractor.describe() == f"encoder of {folder}, its last checkpoint, step 5"


def test_an_exported_file_is_normalised_as_its_run_was_and_not_resized(run, tmp_path):
    pretrained.write(pretrained.read(str(run)), tmp_path / "encoder.npz")
    exported = extractors.Encoder(str(tmp_path / "encoder.npz"))
    features, logits = exported(images())
    method = build.section(CLASSIFY, "config.method")
    state = method.init(jax.random.key(5), {"image": jax.ShapeDtypeStruct((8, 8, 8, 1), jnp.float32)})
    prepared = (images().astype(np.float32) / 255 - 0.1) / 0.4
    np.testing.assert_allclose(features, method.exports["features"](state, prepared), rtol=1e-5, atol=1e-6)
    assert logits is None and exported.resize == "none" and "an exported file, step 5" in exported.describe()


def test_every_difference_makes_another_digest_and_nothing_else_does(run, tmp_path):
    stride = {**CLASSIFY, "encoder": {**CLASSIFY["encoder"], "strides": (2, 1)}}
    found = {
        "last": extractors.Encoder(str(run)),
        "best": extractors.Encoder(str(run), checkpoint="best"),
        "preparation": extractors.Encoder(str(run_folder(tmp_path / "a", config_of(plain={**PLAIN, "size_px": 8})))),
        "stride": extractors.Encoder(str(run_folder(tmp_path / "b", config_of(stride)))),
    }
    assert len({extractor.digest for extractor in found.values()}) == 4
    assert extractors.Encoder(str(run_folder(tmp_path / "c"))).digest == found["last"].digest


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"resize_px": 14}, "antialiased bilinear, shorter side to 14 px, then the central 12x12 px"),
        ({"resize_px": 14, "size_px": None}, "antialiased bilinear, shorter side to 14 px"),
        ({"size_px": None}, "none"),
    ],
)
def test_the_resize_in_words(tmp_path, more, words):
    assert extractors.Encoder(str(run_folder(tmp_path / "run", config_of(plain={**PLAIN, **more})))).resize == words


def test_any_number_of_images_in_one_compiled_program(run):
    extractor, many = extractors.Encoder(str(run)), images(130)
    features, logits = extractor(many)
    assert (features.shape, logits.shape) == ((130, 6), (130, 3))
    for rows in (slice(0, 1), slice(125, 130), slice(0, 0)):
        some = extractor(many[rows])
        np.testing.assert_array_equal(some[0], features[rows])
        np.testing.assert_array_equal(some[1], logits[rows])
    assert extractor._answer._cache_size() == 1


def test_what_cannot_be_an_extractor_is_one_line(run, tmp_path):
    with pytest.raises(UsageError, match="origin is not set; set it to the run folder of a classifier"):
        extractors.Encoder()
    with pytest.raises(UsageError, match="there is no run folder or file"):
        extractors.Encoder(str(tmp_path / "nothing"))
    blind = run_folder(tmp_path / "blind", {**config_of(), "evaluators": {}})
    with pytest.raises(UsageError, match=r"no evaluator of this run has an augment\.Plain"):
        extractors.Encoder(str(blind))
    with pytest.raises(UsageError, match="images of 8x8x3 do not fit the encoder of"):
        extractors.Encoder(str(run))(images(channels=3))


class Tiny(nn.Module):
    """In the place of Inception, which takes a minute to compile: the first pixels' channels, and their sum."""

    @nn.compact
    def __call__(self, images):
        assert images.dtype == jnp.uint8 and images.shape[1:] == (8, 8, 3)
        scale = self.param("scale", nn.initializers.ones, (1, 1))
        features = images[:, 0, 0, :].astype(jnp.float32) * scale
        return inception.Answer(features, features.sum(axis=1, keepdims=True))


@dataclasses.dataclass
class Read:
    scale: float

    def __call__(self, path):
        assert path == "weights.pth"
        return {"params": {"scale": np.full((1, 1), self.scale, np.float32)}}


def test_inception_repeats_grey_and_hashes_its_weights(monkeypatch):
    monkeypatch.setattr(inception, "Inception", Tiny)
    monkeypatch.setattr(inception_weights, "read", Read(1.0))
    extractor = extractors.Inception("weights.pth")
    features, logits = extractor(images(40))
    np.testing.assert_array_equal(features, np.repeat(images(40)[:, 0, 0, :], 3, axis=1))
    np.testing.assert_array_equal(logits[:, 0], features.sum(axis=1))
    np.testing.assert_array_equal(extractor(images(3, channels=3))[0], images(3, channels=3)[:, 0, 0, :])
    assert (extractor.name, extractor.class_names) == ("inception", ()) and "weights.pth" in extractor.describe()
    assert "299x299" in extractor.resize
    monkeypatch.setattr(inception_weights, "read", Read(2.0))
    assert len({extractor.digest, extractors.Inception("weights.pth").digest}) == 2


def test_an_encoder_needs_nothing_of_inception(child, run):
    done = child(
        """
        import sys
        from ssl_jax import extractors
        print(extractors.Encoder(sys.argv[1]).describe())
        """,
        run,
        blocked=("ssl_jax.models.inception", "ssl_jax.models.inception_weights"),
    )
    assert "its last checkpoint, step 5, with its head" in done.stdout
