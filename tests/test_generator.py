"""A generator out of its run folder, and the ways through its latent space."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ssl_jax import checkpoint, generator, rng, types
from ssl_jax.methods import gan
from ssl_jax.models import dcgan, mlp
from ssl_jax.optim import scheduled_adam
from tests import gan_runs


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    return gan_runs.train(tmp_path_factory, "generator")


@pytest.fixture(scope="module")
def plain(setting):
    return generator.load(setting / "plain")


@pytest.fixture(scope="module")
def conditional(setting):
    return generator.load(setting / "classes")


def tickets(count, seed=3):
    return np.stack([np.full(count, seed), np.arange(count)], axis=1).astype(np.int32)


def test_facts_come_from_the_run_folder(plain, conditional):
    assert (plain.step, plain.latent, plain.latent_law) == (40, 8, "normal")
    assert (plain.classes, plain.image_shape, plain.class_name(3)) == (None, (8, 8, 1), "3")
    assert (conditional.latent_law, conditional.classes) == ("uniform", 10)
    assert conditional.class_names == gan_runs.WORDS and conditional.class_name(1) == "eins"


def test_samples_are_the_averaged_generators_in_evaluation_mode(setting, plain):
    params, stats_, _ = checkpoint.restore_networks(setting / "plain", None)
    latents = np.concatenate([jax.random.normal(rng.stream(3, "sample", number), (1, 8)) for number in range(5)])
    drawn, labels = plain.latents_of(tickets(5))
    np.testing.assert_array_equal(drawn, latents)
    assert labels is None
    network = dcgan.Generator(size_px=8, image_channels=1, channels=(16,))
    images = {}
    for name in ("generator", "generator_average"):
        variables = {"params": params[name], "batch_stats": stats_[name]}
        images[name] = np.asarray(network.apply(variables, latents, train=False))
    # Else the next lines would not tell the one from the other.
    assert np.abs(images["generator"] - images["generator_average"]).max() > 0.01
    np.testing.assert_allclose(plain.generate(latents, None), images["generator_average"], atol=1e-5)
    sampled = plain.sample(tickets(5))
    assert sampled.dtype == np.uint8 and sampled.shape == (5, 8, 8, 1)
    np.testing.assert_allclose(sampled, (images["generator_average"] + 1) * 127.5, atol=0.502)


def test_samples_with_classes_show_them_in_turn(conditional):
    latents, labels = conditional.latents_of(tickets(12))
    assert labels.tolist() == [*range(10), 0, 1] and np.abs(latents).max() <= 1 and np.abs(latents).max() > 0.9
    images = conditional.generate(latents, labels)
    np.testing.assert_allclose(conditional.sample(tickets(12)), (images + 1) * 127.5, atol=0.502)
    assert np.abs(images - conditional.generate(latents, (labels + 1) % 10)).max() > 0.01


def test_an_image_does_not_depend_on_its_company(plain):
    many = plain.sample(tickets(150))
    np.testing.assert_array_equal(plain.sample(tickets(1)), many[:1])
    np.testing.assert_array_equal(plain.sample(tickets(150)[77:99]), many[77:99])
    latents, _ = plain.latents_of(tickets(150))
    np.testing.assert_array_equal(plain.generate(latents[140:], None), plain.generate(latents, None)[140:])
    assert plain.sample(tickets(0)).shape == (0, 8, 8, 1)


def test_one_program_serves_every_number_of_images(plain, caplog):
    plain.sample(tickets(1))
    with jax.log_compiles():
        plain.sample(tickets(70))
        plain.sample(tickets(3))
        assert [each for each in caplog.messages if each.startswith("Compiling")] == []
        # Else the line before would see nothing.
        jax.jit(lambda x: x + 1)(np.float32(1))
        assert [each for each in caplog.messages if each.startswith("Compiling")]


def test_gradients_go_through_images_of(conditional):
    latents, labels = conditional.latents_of(tickets(4))
    images = conditional.images_of(jnp.asarray(latents), jnp.asarray(labels))
    np.testing.assert_allclose(images, conditional.generate(latents, labels), atol=1e-5)

    # An argument of the compiled function, as its weights would otherwise be constants in the program.
    @jax.jit
    def brightness(images_of, latents):
        return jnp.mean(images_of(latents, labels))

    slope = jax.grad(brightness, argnums=1)(conditional.images_of, latents)
    step = np.zeros_like(latents)
    step[2, 5] = 0.02
    ends = [float(brightness(conditional.images_of, latents + sign * step)) for sign in (1, -1)]
    assert float(slope[2, 5]) == pytest.approx((ends[0] - ends[1]) / 0.04, rel=0.02, abs=2e-6)
    assert sum(leaf.size for leaf in jax.tree.leaves(conditional.images_of)) > 1000


def test_the_discriminator_sees_pixels_from_minus_one_to_one(setting, conditional):
    params, _, _ = checkpoint.restore_networks(setting / "classes", ("discriminator",))
    images, labels = conditional.sample(tickets(6)), np.array([0, 1, 2, 3, 4, 9], np.int32)
    network = dcgan.Discriminator(channels=(16,), norm="none", classes=10)
    inputs = images.astype(np.float32) / 127.5 - 1
    expected = network.apply({"params": params["discriminator"]}, inputs, labels, train=False)
    np.testing.assert_allclose(conditional.discriminate(images, labels), expected, atol=1e-4)


def test_labels_are_given_where_there_are_classes_and_nowhere_else(plain, conditional):
    with pytest.raises(types.UsageError, match="labels"):
        plain.generate(np.zeros((2, 8)), np.zeros(2, np.int32))
    with pytest.raises(types.UsageError, match="labels"):
        conditional.generate(np.zeros((2, 8)), None)


def test_runs_that_make_no_images_are_refused(tmp_path):
    with pytest.raises(types.UsageError, match=r"there is no run folder .*nothing"):
        generator.load(tmp_path / "nothing")
    with pytest.raises(types.UsageError, match="is no run folder"):
        generator.load(tmp_path)
    config = {"method": {"type": "methods.simsiam.SimSiam"}, "preprocess": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(types.UsageError, match=r"is no GAN's run \(methods.simsiam.SimSiam\): give the --workdir"):
        generator.load(tmp_path)


def test_a_run_on_points_is_refused_and_a_best_that_nothing_chose(setting, tmp_path):
    networks = {"generator": mlp.Generator(hidden=(4,)), "discriminator": mlp.Discriminator(hidden=(4,))}
    adam = scheduled_adam(1e-3)
    method = gan.GAN(**networks, generator_optimizer=adam, discriminator_optimizer=adam, loss="hinge", latent=3)
    state = method.init(jax.random.key(0), {"image": jax.ShapeDtypeStruct((4, 2), jnp.float32)})
    optimizer = {"type": "optim.scheduled_adam", "learning_rate": 1e-3}
    sections = {name: {"type": f"models.mlp.{name.title()}", "hidden": [4]} for name in networks}
    sections |= {"generator_optimizer": optimizer, "discriminator_optimizer": optimizer}
    config = {"method": {"type": "methods.gan.GAN", **sections, "loss": "hinge", "latent": 3}, "preprocess": {}}
    (tmp_path / "config.json").write_text(json.dumps({**config, "data": {}}))
    (tmp_path / "summary.json").write_text(json.dumps({"steps_per_epoch": 1, "batch_size": 4, "total_steps": 1}))
    saved = checkpoint.Policy(every=1).open(tmp_path)
    saved.save(1, state, config=config)
    saved.close()
    with pytest.raises(types.UsageError, match=r"makes vectors of 2 numbers \(generator models.mlp.Generator\)"):
        generator.load(tmp_path)
    with pytest.raises(types.UsageError, match="knows no best checkpoint"):
        generator.load(setting / "plain", which="best")


@pytest.mark.parametrize("value", [0.3, 1.0, 2.5])
def test_truncation_moves_every_coordinate_to_the_truncated_laws_quantile(value):
    latents = np.linspace(-5, 5, 41, dtype=np.float32).reshape(1, -1)
    law = stats.truncnorm(-value, value)
    expected = law.ppf(stats.norm.cdf(latents.astype(np.float64)))
    moved = generator.truncated(latents, value, "normal")
    np.testing.assert_allclose(moved, expected, atol=2e-6)
    np.testing.assert_array_equal(moved, -generator.truncated(-latents, value, "normal"))
    drawn = np.asarray(jax.random.normal(jax.random.key(0), (20000,)))
    assert stats.kstest(generator.truncated(drawn, value, "normal"), law.cdf).pvalue > 0.01


def test_truncation_far_out_changes_nothing_and_the_uniform_law_shrinks():
    latents = np.linspace(-4, 4, 9, dtype=np.float32)
    np.testing.assert_allclose(generator.truncated(latents, 8.0, "normal"), latents, atol=1e-5)
    np.testing.assert_array_equal(generator.truncated(latents / 4, 0.5, "uniform"), latents / 8)


@pytest.mark.parametrize(
    "value, law", [(0.0, "normal"), (-1.0, "uniform"), (float("nan"), "normal"), (float("inf"), "normal")]
)
def test_truncation_to_nothing_or_everything_is_refused(value, law):
    with pytest.raises(types.UsageError, match=f"truncation={value:g}: it must be above 0"):
        generator.truncated(np.zeros((1, 2)), value, law)


def test_uniform_latents_cannot_be_truncated_above_one():
    with pytest.raises(types.UsageError, match=r"truncation=1.5.*at most 1"):
        generator.truncated(np.zeros((1, 2)), 1.5, "uniform")


def test_a_round_trip_keeps_to_the_sphere_at_one_speed_and_comes_back():
    stops = np.asarray(jax.random.normal(jax.random.key(1), (3, 2, 6)))
    stops = 2 * stops / np.linalg.norm(stops, axis=-1, keepdims=True)
    way = generator.round_trip(stops, 5, "normal")
    assert way.shape == (15, 2, 6) and way.dtype == np.float32
    np.testing.assert_allclose(way[::5], stops, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(way, axis=-1), 2, atol=1e-5)
    angles = np.arccos(np.clip(np.sum(way * np.roll(way, -1, axis=0), axis=-1) / 4, -1, 1)).reshape(3, 5, 2)
    np.testing.assert_allclose(angles, np.broadcast_to(angles[:, :1], angles.shape), atol=1e-3)
    whole = np.arccos(np.sum(stops * np.roll(stops, -1, axis=0), axis=-1) / 4)
    np.testing.assert_allclose(angles.sum(axis=1), whole, atol=2e-3)


def test_a_round_trip_of_uniform_latents_is_straight():
    stops = np.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(
        generator.round_trip(stops, 4, "uniform"),
        [[1, 0], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0, 1], [0.25, 0.75], [0.5, 0.5], [0.75, 0.25]],
    )


def test_between_stops_in_one_line_the_way_is_straight():
    stops = np.array([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])
    way = generator.round_trip(stops, 3, "normal")
    np.testing.assert_allclose(way, generator.round_trip(stops, 3, "uniform"), atol=1e-6)
    assert np.isfinite(generator.round_trip(np.array([[1.0, 2.0], [0.0, 0.0]]), 3, "normal")).all()
