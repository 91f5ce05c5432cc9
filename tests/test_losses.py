import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import losses


def vectors(seed, shape=(6, 5)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_cosine_loss_and_both_gradients_equal_pytorchs():
    torch = pytest.importorskip("torch", reason="needs the parity extra: make test PARITY=1")
    prediction, target, weight = vectors(0), vectors(1), vectors(2, (6,))
    prediction[2] *= 1e3
    target[3] *= 1e-3
    # The reference keeps a zero vector finite by an epsilon, and there the slope depends on where it stands.
    prediction[4] = 0.0
    values = losses.negative_cosine_similarity(prediction, target)
    gradients = jax.grad(lambda p, t: jnp.vdot(weight, losses.negative_cosine_similarity(p, t)), (0, 1))(
        prediction, target
    )
    theirs = [torch.tensor(array, requires_grad=True) for array in (prediction, target)]
    reference = -torch.nn.CosineSimilarity(dim=1)(*theirs)
    (reference * torch.tensor(weight)).sum().backward()
    np.testing.assert_allclose(values, reference.detach().numpy(), atol=1e-6)
    for gradient, their in zip(gradients, theirs, strict=True):
        np.testing.assert_allclose(gradient, their.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_cosine_loss_of_known_angles():
    prediction = jnp.array([[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [1.0, 1.0]])
    target = jnp.array([[7.0, 0.0], [5.0, 0.0], [0.5, 0.0], [2.0, 0.0]])
    np.testing.assert_allclose(
        losses.negative_cosine_similarity(prediction, target), [-1.0, 0.0, 1.0, -(0.5**0.5)], atol=1e-6
    )


def test_cosine_loss_is_finite_at_zero_vectors():
    zeros = jnp.zeros((2, 3))
    value, gradient = jax.value_and_grad(lambda p: losses.negative_cosine_similarity(p, zeros + 1.0).sum())(zeros)
    assert value == 0.0
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("kind", ["cosine", "cross entropy"])
def test_losses_of_bfloat16_are_computed_in_float32(kind):
    # Only the arguments are rounded: in bfloat16 throughout, the error would be near 1e-2.
    narrow = jnp.asarray(vectors(0, (4, 300)), jnp.bfloat16)
    if kind == "cosine":
        value = losses.negative_cosine_similarity(narrow, jnp.flip(narrow, axis=-1))
        a, b = np.asarray(narrow, np.float64), np.asarray(narrow, np.float64)[:, ::-1]
        expected = -(a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    else:
        value = losses.cross_entropy(narrow, jnp.arange(4))
        wide = np.asarray(narrow, np.float64)
        expected = np.log(np.exp(wide).sum(-1)) - wide[np.arange(4), np.arange(4)]
    assert value.dtype == jnp.float32
    assert value.shape == (4,)
    np.testing.assert_allclose(value, expected, atol=1e-5)


def test_cross_entropy_equals_pytorchs_also_for_large_logits():
    torch = pytest.importorskip("torch", reason="needs the parity extra: make test PARITY=1")
    logits, labels = vectors(0), np.array([0, 4, 1, 1, 3, 2], np.int32)
    logits[1] *= 1e4
    value = losses.cross_entropy(logits, labels)
    gradient = jax.grad(lambda x: losses.cross_entropy(x, labels).sum())(logits)
    theirs = torch.tensor(logits, requires_grad=True)
    reference = torch.nn.functional.cross_entropy(theirs, torch.tensor(labels).long(), reduction="none")
    reference.sum().backward()
    np.testing.assert_allclose(value, reference.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), atol=1e-6)


ADVERSARIAL = ("non_saturating", "least_squares", "hinge", "wasserstein", "relativistic")


def by_hand(name, real, fake):
    """The discriminator's and the generator's loss in float64."""

    def softplus(x):
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))

    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    return {
        "non_saturating": (softplus(-real) + softplus(fake), softplus(-fake)),
        "least_squares": ((real - 1) ** 2 / 2 + fake**2 / 2, (fake - 1) ** 2 / 2),
        "hinge": (np.maximum(0, 1 - real) + np.maximum(0, 1 + fake), -fake),
        "wasserstein": (fake - real, -fake),
        "relativistic": (softplus(fake - real), softplus(real - fake)),
    }[name]


@pytest.mark.parametrize("kind", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_losses_are_the_papers_in_float32(name, kind):
    real, fake = (jnp.asarray(5 * vectors(seed, (300,)), kind) for seed in (0, 1))
    ours = losses.discriminator_loss(name, real, fake), losses.generator_loss(name, real, fake)
    for value, expected in zip(ours, by_hand(name, real, fake), strict=True):
        assert (value.dtype, value.shape) == (jnp.float32, (300,))
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        # A discriminator that knows nothing says 0: then both pay log 2 for each image that they are asked of.
        ("non_saturating", 2 * np.log(2), np.log(2)),
        ("least_squares", 0.5, 0.5),
        ("hinge", 2.0, 0.0),
        ("wasserstein", 0.0, 0.0),
        ("relativistic", np.log(2), np.log(2)),
    ],
)
def test_adversarial_losses_of_a_discriminator_that_knows_nothing(name, discriminator, generator):
    nothing = jnp.zeros(3)
    np.testing.assert_allclose(losses.discriminator_loss(name, nothing, nothing), discriminator, rtol=1e-6)
    np.testing.assert_allclose(losses.generator_loss(name, nothing, nothing), generator, rtol=1e-6)


def test_the_relativistic_losses_are_each_other_with_the_roles_exchanged():
    real, fake = vectors(0, (50,)), vectors(1, (50,))
    ours = losses.generator_loss("relativistic", real, fake)
    np.testing.assert_array_equal(ours, losses.discriminator_loss("relativistic", fake, real))
    for loss in (losses.discriminator_loss, losses.generator_loss):
        # Only the difference counts.
        np.testing.assert_allclose(
            loss("relativistic", real + 2, fake + 2), loss("relativistic", real, fake), rtol=1e-5
        )


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_only_a_loss_that_needs_real_images_looks_at_them(name):
    real, fake = vectors(0, (5,)), vectors(1, (5,))
    slope = jax.grad(lambda real: losses.generator_loss(name, real, fake).sum())(real)
    assert bool(np.any(slope)) == losses.needs_real(name) == (name == "relativistic")


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_losses_pull_the_two_networks_apart(name):
    """The discriminator raises real logits and lowers those of samples, which the generator raises."""
    real, fake = jnp.linspace(-0.9, 0.9, 5), jnp.linspace(0.8, 0.1, 5)
    up, down = jax.grad(lambda *logits: losses.discriminator_loss(name, *logits).sum(), (0, 1))(real, fake)
    assert (up < 0).all()
    assert (down > 0).all()
    assert (jax.grad(lambda logits: losses.generator_loss(name, real, logits).sum())(fake) < 0).all()


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("size", [100.0, 1e4, 1e18])
def test_adversarial_losses_and_slopes_are_finite_for_large_logits(name, size):
    real, fake = (jnp.array(signs) * size for signs in ([1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0]))
    for loss in (losses.discriminator_loss, losses.generator_loss):
        value, slopes = jax.value_and_grad(lambda *logits, loss=loss: loss(name, *logits).sum(), (0, 1))(real, fake)
        assert np.isfinite(value)
        for slope in slopes:
            assert np.isfinite(slope).all()
            assert name == "least_squares" or (jnp.abs(slope) <= 1).all()
    # Softplus leaves a logit on the wrong side its full slope.
    if name == "non_saturating":
        pull = jax.grad(lambda fake: losses.generator_loss(name, real, fake).sum())(fake)
        np.testing.assert_allclose(pull, [0, -1, 0, -1], atol=1e-6)
