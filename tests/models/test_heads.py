import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import types
from ssl_jax.models import heads

BATCH, IN, HIDDEN, OUT = 7, 5, 6, 4


def torch_head(torch, widths, norms):
    """Dense layers with the named batch norms; a dense layer has a bias only where none follows."""
    parts = []
    for layer, norm in enumerate(norms):
        parts.append(torch.nn.Linear(widths[layer], widths[layer + 1], bias=norm == "none"))
        if norm != "none":
            parts.append(torch.nn.BatchNorm1d(widths[layer + 1], affine=norm == "affine"))
        if layer + 1 < len(norms):
            parts.append(torch.nn.ReLU())
    return torch.nn.Sequential(*parts)


def copied(torch, head):
    """The weights of `torch_head` under our names."""
    params, stats, layer = {}, {}, 0
    for part in head:
        own = {name: value.detach().numpy().copy() for name, value in part.named_parameters()}
        if isinstance(part, torch.nn.Linear):
            layer += 1
            own["kernel"] = own.pop("weight").T
            params[f"dense{layer}"] = own
        elif isinstance(part, torch.nn.BatchNorm1d):
            if own:
                params[f"norm{layer}"] = {"scale": own["weight"], "bias": own["bias"]}
            stats[f"norm{layer}"] = {"mean": part.running_mean.numpy().copy(), "var": part.running_var.numpy().copy()}
    return {"params": params, "batch_stats": stats}


@pytest.mark.parametrize(
    ("head", "widths", "norms"),
    [
        (heads.Projector(HIDDEN, OUT), (IN, HIDDEN, HIDDEN, OUT), ("affine", "affine", "plain")),
        (heads.Projector(HIDDEN, OUT, layers=2), (IN, HIDDEN, OUT), ("affine", "plain")),
        (heads.Projector(HIDDEN, OUT, layers=2, last_norm="affine"), (IN, HIDDEN, OUT), ("affine", "affine")),
        (heads.Projector(HIDDEN, OUT, last_norm="none"), (IN, HIDDEN, HIDDEN, OUT), ("affine", "affine", "none")),
        (heads.Projector(HIDDEN, OUT, 2, "none", "none"), (IN, HIDDEN, OUT), ("none", "none")),
        (heads.Predictor(HIDDEN, OUT), (IN, HIDDEN, OUT), ("affine", "none")),
        (heads.Predictor(HIDDEN, OUT, output_norm="affine"), (IN, HIDDEN, OUT), ("affine", "affine")),
        (heads.Predictor(HIDDEN, OUT, hidden_norm="none"), (IN, HIDDEN, OUT), ("none", "none")),
    ],
)
def test_outputs_and_running_statistics_equal_pytorchs(torch, randomized, head, widths, norms):
    reference = randomized(torch_head(torch, widths, norms))
    variables = copied(torch, reference)
    features = np.random.default_rng(0).normal(size=(BATCH, IN)).astype(np.float32)
    template = jax.eval_shape(lambda key: head.init(key, features, train=False), jax.random.key(0))
    expected_shapes = jax.tree.map(np.shape, variables)
    assert jax.tree.map(np.shape, {"batch_stats": {}, **template}) == expected_shapes
    evaluated = head.apply(variables, features, train=False)
    trained, changed = head.apply(variables, features, train=True, mutable=["batch_stats"])
    with torch.no_grad():
        np.testing.assert_allclose(evaluated, reference.eval()(torch.tensor(features)).numpy(), atol=1e-5)
        np.testing.assert_allclose(trained, reference.train()(torch.tensor(features)).numpy(), atol=1e-5)
    expected = copied(torch, reference)["batch_stats"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), changed.get("batch_stats", {}), expected)


def test_dense_layers_start_as_pytorchs_linear():
    # U(-b, b) with b = 1 / sqrt(fan-in) has deviation b / sqrt(3); flax's own default is normal with a zero bias.
    predictor = heads.Predictor(hidden=400, output=900)
    params = predictor.init(jax.random.key(0), jnp.zeros((1, 100)), train=False)["params"]
    assert "bias" not in params["dense1"]
    for values, fan_in in (
        (params["dense1"]["kernel"], 100),
        (params["dense2"]["kernel"], 400),
        (params["dense2"]["bias"], 400),
    ):
        bound = fan_in**-0.5
        assert np.abs(values).max() <= bound
        assert np.abs(values).max() > 0.99 * bound
        np.testing.assert_allclose(np.std(values), bound / 3**0.5, rtol=2 / values.size**0.5)
        np.testing.assert_allclose(np.mean(values), 0.0, atol=3 * bound / values.size**0.5)


@pytest.mark.parametrize(
    "head", [heads.Projector(HIDDEN, OUT, dtype="bfloat16"), heads.Predictor(HIDDEN, OUT, dtype="bfloat16")]
)
def test_bfloat16_computes_narrow_and_keeps_and_answers_float32(head):
    features = jax.random.normal(jax.random.key(0), (BATCH, IN))
    variables = head.init(jax.random.key(1), features, train=False)
    answer, changed = head.apply(variables, features, train=True, mutable=["batch_stats"])
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, answer, changed))} == {jnp.dtype("float32")}
    expected = head.clone(dtype="float32").apply(variables, features, train=True, mutable=["batch_stats"])[0]
    assert 0 < np.abs(answer - expected).max() < 0.1


def test_a_spread_far_below_the_mean_is_still_normalised():
    # A collapsing head: mean of squares minus square of mean would keep nothing of such a spread in float32.
    predictor = heads.Predictor(HIDDEN, OUT, output_norm="affine")
    features = 1e-2 * jax.random.normal(jax.random.key(0), (BATCH, IN))
    variables = predictor.init(jax.random.key(1), features, train=False)
    kernel = 1.0 + jax.random.normal(jax.random.key(2), (IN, HIDDEN))

    def hidden_statistics(shift):
        params = {**variables["params"], "dense1": {"kernel": kernel}}
        inputs = {"params": params, "batch_stats": variables["batch_stats"]}
        _, changed = predictor.apply(inputs, features + shift, train=True, mutable=["batch_stats"])
        return changed["batch_stats"]["norm1"]["var"]

    np.testing.assert_allclose(hidden_statistics(100.0), hidden_statistics(0.0), rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: heads.Projector(layers=4), "Projector layers is 4; choose one of 2, 3"),
        (lambda: heads.Projector(last_norm="batch"), "Projector last_norm is 'batch'; choose one of 'plain', 'affine'"),
        (lambda: heads.Projector(hidden_norm="plain"), "Projector hidden_norm is 'plain'; choose one of 'affine'"),
        (lambda: heads.Predictor(hidden_norm="plain"), "Predictor hidden_norm is 'plain'; choose one of 'affine'"),
        (lambda: heads.Predictor(output_norm="plain"), "Predictor output_norm is 'plain'; choose one of 'none'"),
        (lambda: heads.Predictor(dtype="float8"), "dtype is 'float8'; choose one of"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(types.UsageError, match=message):
        make()
