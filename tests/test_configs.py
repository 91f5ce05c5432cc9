"""Every config, without its data set: the file itself, its keys against their signatures, and the shapes of a step."""

import dataclasses
import functools
import importlib
import pathlib
import re

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from experiments import transfer
from ssl_jax import augment, build, loop, self_training
from ssl_jax.types import UsageError

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "configs"
NAMES = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "__init__")
NAMES += ["simsiam_photos:labelled"]
NAMES += [f"simsiam_digits:{form}" for form in ("no_stop_gradient", "no_predictor", "fixed_predictor")]
NAMES += [f"finetune_{data}:{form}" for data in ("digits", "tiny11", "photos") for form in ("staged", "scratch")]
NAMES += ["probe_digits:fast", "probe_tiny11:fast", "probe_cifar10:fast", "probe_cifar10:lars"]
NAMES += ["probe_imagenet:paper", "probe_imagenet:sgd"]
NAMES += ["gan_gaussians:ring", "gan_digits:judged", "gan_fashion_mnist:judged"]
NAMES += ["cyclegan_digits:identity", "cyclegan_digits:judged", "cyclegan_horse2zebra:no_identity"]
NAMES += ["cyclegan_horse2zebra:unet"]
NAMES += ["cyclegan_horse2zebra_64:judged", "cyclegan_photos:paired", "classify_digit_domains:b"]
FAMILY = {name: name.partition("_")[0] for name in NAMES}
PRETRAINING = [name for name in NAMES if FAMILY[name] == "simsiam"]
DOWNSTREAM = [name for name in NAMES if FAMILY[name] in ("probe", "finetune", "pseudo")]
CLASSIFIERS = DOWNSTREAM + [name for name in NAMES if FAMILY[name] == "classify"]
GANS = [name for name in NAMES if FAMILY[name] == "gan"]
IMAGE_GANS = [name for name in GANS if not name.startswith("gan_gaussians")]
CYCLEGANS = [name for name in NAMES if FAMILY[name] == "cyclegan"]
SCRIPTS = {"probe": "linear_probe", "finetune": "finetune", "pseudo": "pseudo_label"}
SCRIPTS |= {"simsiam": "train", "classify": "train", "gan": "train", "cyclegan": "train"}
ENCODER = {"type": "models.convnet.ConvNet", "channels": (4, 4, 4, 4, 4, 4), "strides": (1, 2, 1, 1, 1, 1)}
SIZES = {"cifar10": (32, 32, 3), "digits": (8, 8, 1), "fashion_mnist": (28, 28, 1), "tiny11": (64, 64, 3)}
SIZES |= {"digit_domains": (16, 16, 3)}
CLOCK = build.Clock(examples=50_000, batch_size=500, total_steps=1000)


def module(name):
    return importlib.import_module(f"configs.{name.partition(':')[0]}")


def config_of(name):
    """As `--config=configs/NAME.py:ARGUMENT` makes it."""
    _, _, argument = name.partition(":")
    return module(name).get_config(*[argument] if argument else [])


def filled(name):
    """The config as plain dicts, its gaps filled as `experiments.transfer` fills them."""
    config = build.normalised(config_of(name).to_dict())
    shape = next(iter(images(config).values()))
    classes = ("ant", "bee", "cow")
    values = {
        "encoder": ENCODER,
        "mean": (0.5,) * shape[-1],
        "deviation": (0.5,) * shape[-1],
        "classes": len(classes),
        "class_names": classes,
        "image_shape": shape if "crop" not in config["data"] else (None, None, 3),
    }
    config = transfer._filled(config, values)
    if config.get("graft"):
        config["graft"] |= {"origin": "runs/x", "step": 3, "sha256": "0" * 64}
    return config


def literals(value):
    if isinstance(value, dict):
        return [literal for item in value.values() for literal in literals(item)]
    if isinstance(value, tuple):
        return [literal for item in value for literal in literals(item)]
    return [value]


def sections(value):
    """Every section that is an object, innermost last."""
    if isinstance(value, dict):
        here = [value] if "type" in value else []
        return here + [section for item in value.values() for section in sections(item)]
    return []


def images(config):
    """What a config's feed gives: crops made on the host, squares of two domains, or the set's own images."""
    if "crop" in config["data"]:
        side = config["data"]["crop"]["size_px"]
        views = config["data"]["crop"].get("views", 2)
        return {f"image_{view + 1}": (side, side, 3) for view in range(views)}
    if "name_a" in config["data"]:
        side = config["data"].get("load_px")
        sizes = {domain: (side, side, 3) if side else SIZES[config["data"][f"name_{domain}"]] for domain in "ab"}
        return {f"image_{domain}": size for domain, size in sizes.items()}
    return {"image": SIZES[config["data"]["name"]]}


def view_shape(config):
    given = next(iter(images(config).values()))
    section = next(config["preprocess"][name] for name in ("first", "view", "a") if name in config["preprocess"])
    crop = section.get("crop")
    return (crop["size_px"], crop["size_px"], given[-1]) if crop and "size_px" in crop else given


@pytest.mark.parametrize("name", NAMES)
def test_a_config_holds_literals_only(name):
    config = config_of(name)
    assert isinstance(config, ml_collections.ConfigDict)
    plain = config.to_dict()
    # Lists are none: they cannot be overridden on the command line. None stands for a placeholder, which can.
    assert [literal for literal in literals(plain) if not isinstance(literal, int | float | str | bool | None)] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_docstring_says_how_to_run_it_and_what_to_expect(name):
    text = module(name).__doc__
    script, file = SCRIPTS[name.partition("_")[0]], name.partition(":")[0]
    run = "" if script == "train" else r"--run=runs/\w+ "
    assert re.search(rf"python -m experiments\.{script} {run}--config=configs/{file}\.py(:\w+)? --workdir=runs/", text)
    assert name.partition(":")[1] + name.partition(":")[2] in text
    assert re.search(r"RESULTS\.md|reach(es)? \d+\.\d|reports\s+\d+\.\d|[Ee]xpect", text)


@pytest.mark.parametrize("name", NAMES)
def test_every_section_fits_its_signature(name):
    config = filled(name) if name in DOWNSTREAM else config_of(name).to_dict()
    given = ("folder", "config")
    if "self_training" in config:
        build._check(config.pop("self_training"), self_training.SelfTraining, "config.self_training")
    build.check(loop.fit, config, given=given)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in GANS + CYCLEGANS or name in IMAGE_GANS])
def test_one_key_says_one_thing(name):
    config = config_of(name)
    config.data.batch_size = 64
    config.data.data_dir = "elsewhere"
    plain = config.to_dict()
    assert name in GANS or plain["method"]["optimizer"]["batch_size"] == 64
    read = [section for section in sections(plain) if section["type"].startswith("data.feed")]
    assert len(read) > 1 and {section["data_dir"] for section in read} == {"elsewhere"}
    assert {section["name"] for section in read} == {plain["data"]["name"]}


@pytest.mark.parametrize("name", CYCLEGANS)
def test_one_key_says_one_thing_of_either_domain(name):
    config = config_of(name)
    config.data.data_dir, config.data.name_a, config.data.name_b = "elsewhere", "first", "second"
    if "crop" in config.preprocess.a:
        config.preprocess.a.crop.size_px = 60
    plain = config.to_dict()
    read = [section for section in sections(plain["evaluators"]) if section["type"].startswith("data.")]
    assert len(read) > 1 and {section["data_dir"] for section in [*read, plain["data"]]} == {"elsewhere"}
    # Test images are loaded as large as a crop is, and are not cropped.
    assert {section.get("size_px") for section in read} == {60 if "crop" in plain["preprocess"]["a"] else None}
    assert len({section["type"] for section in read}) == 1 + any("name_a" in section for section in read)
    named = {(section["split"], section["name"]) for section in read if "name" in section}
    assert named == {("testA", "first"), ("testB", "second")}
    for section in [section for section in read if "name_a" in section]:
        domains = [(section[f"split_{domain}"], section[f"name_{domain}"]) for domain in "ab"]
        assert domains == [("testA", "first"), ("testB", "second")]


@pytest.mark.parametrize("name", [name for name in CYCLEGANS if "judged" in name])
def test_translations_are_judged_by_what_knows_their_target(name):
    evaluators = config_of(name).evaluators.to_dict()
    readers = {f"reader_{domain}": f"runs/classify_digits_{domain}" for domain in "ab" if "counterpart" in evaluators}
    found = evaluators.get("counterpart", {"run": {}})["run"]
    assert {reader: found[reader]["origin"] for reader in readers} == readers
    distances = {key: item["run"] for key, item in evaluators.items() if key.startswith("distance")}
    assert bool(readers) != bool(distances)
    for key, run in distances.items():
        one, other = run["translated"]["direction"]
        assert key == f"distance_{one}{other}" and run["name"] == f"distances_{one}{other}"
        assert run["translated"]["examples"]["split"] == f"test{one.upper()}"
        assert run["reference"]["examples"]["split"] == f"test{other.upper()}"


@pytest.mark.parametrize("name", PRETRAINING + IMAGE_GANS + CYCLEGANS)
def test_the_evaluation_sees_colours_as_training_does(name):
    plain = config_of(name).to_dict()
    seen = [section for section in sections(plain) if section["type"] in ("augment.View", "augment.Plain")]
    colours = {(section.get("mean"), section.get("deviation")) for section in seen}
    assert len({section["type"] for section in seen}) == 2 and len(colours) == 1


@pytest.mark.parametrize("name", PRETRAINING)
def test_init_and_step_evaluate_by_shape(name):
    config = build.normalised(config_of(name).to_dict())
    size = config["data"]["batch_size"]
    feed = {key: jax.ShapeDtypeStruct((size, *shape), jnp.uint8) for key, shape in images(config).items()}
    feed["label"] = jax.ShapeDtypeStruct((size,), jnp.int32)
    method = build.section(config["method"], "config.method", CLOCK)
    preprocess = build.section(config["preprocess"], "config.preprocess", CLOCK)
    key = jax.eval_shape(jax.random.key, 0)
    views = jax.eval_shape(preprocess, feed, key)
    assert set(views) == {"view_1", "view_2"}
    assert {(view.shape, view.dtype) for view in views.values()} == {
        ((size, *view_shape(config)), jnp.dtype("float32"))
    }
    state = jax.eval_shape(functools.partial(method.init, spec=views), key)
    assert set(state.params) == {"encoder", "projector", "predictor"}
    after, metrics = jax.eval_shape(method.step, state, views, key)
    # What a step returns has to be what the next one takes.
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert "loss" in metrics and {(m.shape, m.dtype) for m in metrics.values()} == {((), jnp.dtype("float32"))}
    plain = next(section for section in sections(config) if section["type"] == "augment.Plain")
    evaluated = jax.ShapeDtypeStruct((4, *next(iter(images(config).values()))), jnp.uint8)
    seen = jax.eval_shape(build.section(plain, "config.plain"), evaluated)
    assert seen.shape == (4, *view_shape(config))
    features = jax.eval_shape(method.exports["features"], state, seen)
    assert features.ndim == 2 and features.dtype == jnp.float32


@pytest.mark.parametrize("name", PRETRAINING)
def test_bfloat16_by_one_key(name):
    config = config_of(name)
    networks = config.method
    before = networks.encoder.dtype
    networks.encoder.dtype = "bfloat16"
    heads = {head.dtype for head in (networks.projector, networks.predictor) if "dtype" in head}
    assert before == "float32" and (heads == {"bfloat16"} or "dtype=bfloat16" not in module(name).__doc__)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_evaluates_by_shape(name):
    config = filled(name) if name in DOWNSTREAM else build.normalised(config_of(name).to_dict())
    classes = len(config["data"]["class_names"])
    size = config["data"]["batch_size"]
    feed = {key: jax.ShapeDtypeStruct((size, *shape), jnp.uint8) for key, shape in images(config).items()}
    feed["label"] = jax.ShapeDtypeStruct((size,), jnp.int32)
    clock = dataclasses.replace(CLOCK, total_steps=CLOCK.steps(config["duration"], "config.duration"))
    method = build.section(config["method"], "config.method", clock)
    preprocess = build.section(config["preprocess"], "config.preprocess", clock)
    key = jax.eval_shape(jax.random.key, 0)
    batch = jax.eval_shape(preprocess, feed, key)
    assert (batch["image"].shape, batch["image"].dtype) == ((size, *view_shape(config)), jnp.dtype("float32"))
    state = jax.eval_shape(functools.partial(method.init, spec=batch), key)
    after, metrics = jax.eval_shape(method.step, state, batch, key)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert {"loss", "accuracy"} <= set(metrics)
    plain = next(section for section in sections(config) if section["type"] == "augment.Plain")
    evaluated = jax.ShapeDtypeStruct((4, *next(iter(images(config).values()))), jnp.uint8)
    seen = jax.eval_shape(build.section(plain, "config.plain"), evaluated)
    assert seen.shape == (4, *view_shape(config))
    logits = jax.eval_shape(method.exports["logits"], state, seen)
    assert (logits.shape, logits.dtype) == ((4, classes), jnp.dtype("float32"))


@pytest.mark.parametrize("name", GANS)
def test_a_contest_evaluates_by_shape(name):
    config = build.normalised(config_of(name).to_dict())
    size = config["data"]["batch_size"]
    points = name not in IMAGE_GANS
    feed = {"label": jax.ShapeDtypeStruct((size,), jnp.int32)}
    if points:
        feed["image"] = jax.ShapeDtypeStruct((size, 2), jnp.float32)
    else:
        feed |= {key: jax.ShapeDtypeStruct((size, *shape), jnp.uint8) for key, shape in images(config).items()}
    clock = dataclasses.replace(CLOCK, batch_size=size)
    clock = dataclasses.replace(clock, total_steps=clock.steps(config["duration"], "config.duration"))
    method = build.section(config["method"], "config.method", clock)
    preprocess = build.section(config["preprocess"], "config.preprocess", clock)
    key = jax.eval_shape(jax.random.key, 0)
    batch = jax.eval_shape(preprocess, feed, key)
    state = jax.eval_shape(functools.partial(method.init, spec=batch), key)
    assert set(state.params) == {"generator", "discriminator", "generator_average"}
    after, metrics = jax.eval_shape(method.step, state, batch, key)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert {"generator_loss", "discriminator_loss"} <= set(metrics)
    assert {(m.shape, m.dtype) for m in metrics.values()} == {((), jnp.dtype("float32"))}
    tickets = jax.ShapeDtypeStruct((4, 2), jnp.int32)
    made = jax.eval_shape(method.exports["sample"], state, tickets)
    assert (made.shape, made.dtype) == ((4, *batch["image"].shape[1:]), jnp.dtype("float32"))


# Forms that are judged by more change neither networks nor data.
@pytest.mark.parametrize("name", [name for name in CYCLEGANS if name.partition(":")[2] not in ("judged", "paired")])
def test_a_translator_evaluates_by_shape(name):
    config = build.normalised(config_of(name).to_dict())
    size = config["data"]["batch_size"]
    feed = {key: jax.ShapeDtypeStruct((size, *shape), jnp.uint8) for key, shape in images(config).items()}
    clock = dataclasses.replace(CLOCK, batch_size=size)
    clock = dataclasses.replace(clock, total_steps=clock.steps(config["duration"], "config.duration"))
    method = build.section(config["method"], "config.method", clock)
    preprocess = build.section(config["preprocess"], "config.preprocess", clock)
    key = jax.eval_shape(jax.random.key, 0)
    batch = jax.eval_shape(preprocess, feed, key)
    seen = ((size, *view_shape(config)), jnp.dtype("float32"))
    assert {name: (images.shape, images.dtype) for name, images in batch.items()} == dict.fromkeys(feed, seen)
    state = jax.eval_shape(functools.partial(method.init, spec=batch), key)
    networks = {"generator_ab", "generator_ba", "discriminator_a", "discriminator_b"}
    averages = {"generator_ab_average", "generator_ba_average"} if "average" in config["method"] else set()
    assert set(state.params) == networks | averages
    assert state.memory["pool_a"].images.shape == (1, 50, *view_shape(config))
    after, metrics = jax.eval_shape(method.step, state, batch, key)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert {(m.shape, m.dtype) for m in metrics.values()} == {((), jnp.dtype("float32"))}
    assert {"cycle_a", "generator_loss_ab", "discriminator_loss_b"} <= set(metrics)
    assert ("identity_a" in metrics) == (config["method"]["identity"] > 0)
    plain = build.section(config["evaluators"]["translation"]["run"]["preprocess"], "config.plain")
    evaluated = jax.eval_shape(plain, jax.ShapeDtypeStruct((4, *view_shape(config)), jnp.uint8))
    for export, ask in method.exports.items():
        answer = jax.eval_shape(ask, state, evaluated)
        expected = (4,) if export.startswith("discriminate") else (4, *view_shape(config))
        assert (answer.shape, answer.dtype) == (expected, jnp.dtype("float32")), export


@pytest.mark.parametrize("name", GANS + CYCLEGANS)
def test_schedules_go_by_training_steps(name):
    """An optimiser that is called several times a step must be told so."""
    method = config_of(name).to_dict()["method"]
    calls = method.get("discriminator_steps", 1)
    assert method["discriminator_optimizer"].get("updates_per_step", 1) == calls
    assert method["generator_optimizer"].get("updates_per_step", 1) == 1


@pytest.mark.parametrize("name", DOWNSTREAM)
def test_nothing_that_the_encoder_decides_is_written_down(name):
    plain = config_of(name).to_dict()
    colours = [section for section in sections(plain) if "mean" in section]
    assert plain["method"]["encoder"] is None and len(colours) > 1
    assert {section["mean"] for section in colours} | {section["deviation"] for section in colours} == {None}
    assert all(section["class_names"] is None for section in sections(plain) if section["type"] == "data.feed.training")


# Batches whose crops were made on the host.


def host_batch(count=3):
    draw = np.random.default_rng(0)
    return {f"image_{k}": draw.integers(0, 256, (count, 6, 6, 3), dtype=np.uint8) for k in (1, 2)}


def test_crops_of_the_host_become_one_view_each():
    batch = host_batch()
    views = augment.TwoViews(augment.View())(batch, jax.random.key(0))
    for k in (1, 2):
        expected = batch[f"image_{k}"].astype(np.float32) / 255 * 2 - 1
        np.testing.assert_allclose(views[f"view_{k}"], expected, atol=1e-6)


def test_both_crops_are_augmented_by_draws_of_their_own():
    image = host_batch()["image_1"]
    two = augment.TwoViews(augment.View(tone=augment.Tone()))
    views = two({"image_1": image, "image_2": image}, jax.random.key(0))
    assert np.abs(np.asarray(views["view_1"] - views["view_2"])).max() > 0.05
    once = two({"image": image}, jax.random.key(0))
    np.testing.assert_array_equal(views["view_1"], once["view_1"])
    np.testing.assert_array_equal(views["view_2"], once["view_2"])


def test_a_batch_without_images_is_refused():
    with pytest.raises((UsageError, KeyError), match="image"):
        augment.TwoViews(augment.View())({"label": np.zeros(3, np.int32)}, jax.random.key(0))
