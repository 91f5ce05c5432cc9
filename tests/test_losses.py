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
