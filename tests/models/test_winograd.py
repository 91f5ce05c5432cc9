"""Winograd's forms against XLA's convolution in float64, how much they round, and where they are taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from ssl_jax.models import convolution_forms, convolution_maps, winograd
from tests.models.test_convolution_forms import maps
from tests.models.test_convolution_maps import derivatives, equations

SHAPES = [
    (2, (8, 8), 5, 7, 3, 1, 1),
    (2, (7, 9), 3, 4, 3, 1, 1),  # tiles that reach beyond the outputs
    (1, (5, 4), 4, 3, 3, 1, 0),
    (3, (3, 6), 4, 3, 3, 1, 2),  # outputs larger than images
    (2, (1, 1), 4, 3, 3, 1, 1),
    (2, (8, 12), 5, 3, 4, 2, 1),
    (2, (9, 7), 3, 5, 4, 2, 1),  # pixels left over by the stride
    (2, (7, 8), 3, 5, 4, 2, 0),
    (1, (4, 4), 3, 5, 4, 2, 3),
    (2, (9, 9), 3, 2, 2, 1, 0),
    (1, (14, 13), 2, 3, 9, 3, 2),
]


@pytest.fixture
def filtered(monkeypatch):
    monkeypatch.setattr(convolution_forms, "_is_filtered", lambda *arguments: True)


@pytest.mark.usefixtures("filtered")
@pytest.mark.parametrize("shape", SHAPES)
def test_the_three_maps_equal_laxs_in_float64(shape):
    for name, (own, expected, arrays) in maps(*shape).items():
        with jax.enable_x64(True):
            wanted = jax.jit(expected)(*arrays)
        found = jax.jit(own)(*(array.astype(np.float32) for array in arrays))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-6 * np.abs(wanted).max(), err_msg=name)


@pytest.mark.usefixtures("filtered")
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[5]])
def test_two_orders_of_derivatives_equal_laxs(shape):
    for name, (own, expected, arrays) in maps(*shape).items():
        scaled = [array / np.sqrt(array.size) for array in arrays]  # so that the sines are not all of one turn
        with jax.enable_x64(True):
            wanted = jax.jit(derivatives(expected))(*scaled)
        found = jax.jit(derivatives(own))(*(array.astype(np.float32) for array in scaled))
        for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(leaf, other, rtol=0, atol=1e-5 * np.abs(other).max(), err_msg=name)


def rounding(shape):
    """Root mean square of the error over the deviation, of each map by Winograd's form and by the direct one."""
    found, double = {}, maps(*shape)
    for name, (own, direct, arrays) in maps(*shape, np.float32).items():
        with jax.enable_x64(True):
            wanted = np.asarray(jax.jit(double[name][1])(*(array.astype(np.float64) for array in arrays)))
        errors = [jax.jit(form)(*arrays) - wanted for form in (own, direct)]
        found[name] = [float(np.sqrt(np.mean(error**2)) / np.std(wanted)) for error in errors]
    return found


@pytest.mark.usefixtures("filtered")
@pytest.mark.parametrize(
    ("shape", "most", "times_direct"),
    [((4, (16, 16), 128, 128, 3, 1, 1), 1.3e-6, 3.5), ((4, (16, 16), 128, 128, 4, 2, 1), 1.9e-6, 6.2)],
)
def test_float32_rounds_as_much_as_is_said(shape, most, times_direct):
    for name, (own, direct) in rounding(shape).items():
        assert own < most and own < times_direct * direct, name


@pytest.mark.usefixtures("filtered")
@pytest.mark.parametrize(("shape", "points"), [((4, (8, 8), 6, 5, 3, 1, 1), 36), ((4, (16, 16), 6, 5, 4, 2, 1), 100)])
def test_a_tile_takes_as_many_products_as_is_said(shape, points):
    own, _, arrays = maps(*shape, np.float32)["conv"]
    found = list(equations(jax.make_jaxpr(own)(*arrays).jaxpr))
    assert not [equation for equation in found if equation.primitive.name == "conv_general_dilated"]
    # The product over channels is the one with an array of 36 or 25 points, whose channels are those of the stride too.
    sizes = [
        equation.outvars[0].aval.size * equation.invars[0].aval.shape[-1]
        for equation in found
        if equation.primitive.name == "dot_general" and equation.outvars[0].aval.ndim == 6
    ]
    tiles = 4 * 2 * 2
    assert sizes == [tiles * points * 6 * 5]


def taken(*shape, dtype=np.float32):
    """Which of the three maps leave XLA's convolution and take products at 6x6 or 5x5 points."""
    names = []
    for name, (own, _, arrays) in maps(*shape, np.float32).items():
        answer = jax.make_jaxpr(own)(*(jnp.asarray(array, dtype) for array in arrays))
        shapes = [variable.aval.shape for equation in equations(answer.jaxpr) for variable in equation.outvars]
        if any(shape[:2] in ((6, 6), (5, 5)) and len(shape) == 6 for shape in shapes):
            names.append(name)
    return names


ALL = ["conv", "conv_transpose", "kernel_gradient"]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((128, (8, 8), 64, 64, 3, 1, 1), ALL),  # as many pixels and channels as it must be
        ((127, (8, 8), 64, 64, 3, 1, 1), []),
        ((32, (4, 4), 512, 512, 3, 1, 1), ALL),
        ((1, (16, 16), 128, 128, 3, 1, 1), []),
        ((256, (16, 16), 63, 64, 3, 1, 1), []),
        ((8, (32, 32), 64, 64, 3, 1, 1), ALL),
        ((8, (33, 32), 64, 64, 3, 1, 1), []),  # a side too long for as many channels
        ((8, (16, 66), 64, 64, 3, 1, 1), []),
        ((1, (64, 64), 128, 128, 3, 1, 1), ALL),
        ((64, (16, 16), 64, 128, 4, 2, 1), ALL),
        ((63, (16, 16), 64, 128, 4, 2, 1), []),
        ((4, (64, 64), 64, 128, 4, 2, 1), ALL),
        ((4, (66, 64), 64, 128, 4, 2, 1), []),
        ((128, (16, 16), 64, 64, 3, 2, 1), []),
        ((128, (16, 16), 64, 64, 4, 1, 1), []),
    ],
)
def test_they_are_taken_for_much_work_between_many_channels(shape, expected):
    assert taken(*shape) == expected


def test_other_types_and_devices_and_groups_keep_their_forms(monkeypatch):
    shape = (128, (8, 8), 64, 64, 3, 1, 1)
    assert taken(*shape) == ALL
    assert taken(*shape, dtype=jnp.bfloat16) == []
    own, _, (x, kernel) = maps(*shape)["conv"]
    with jax.enable_x64(True), pytest.raises(TypeError, match="same dtypes"):  # as XLA's convolution says
        own(jnp.asarray(x, np.float32), jnp.asarray(kernel))
    (some,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((some, 8, 8, 64), np.float32)
    exported = export.export(jax.jit(own))(images, jax.ShapeDtypeStruct(kernel.shape, np.float32))
    assert "convolution" in exported.mlir_module()
    x, kernel = jnp.zeros((128, 8, 8, 128)), jnp.zeros((3, 3, 64, 128))
    grouped = jax.make_jaxpr(lambda x, kernel: convolution_maps.conv(x, kernel, 1, 1, 2))(x, kernel)
    assert [equation.primitive.name for equation in equations(grouped.jaxpr)].count("conv_general_dilated") == 1
    with monkeypatch.context() as patch:
        patch.setattr(jax, "device_count", lambda: 2)
        assert taken(*shape) == []
    monkeypatch.setattr(convolution_forms, "_on_cpu", lambda: False)
    assert taken(*shape) == []


def test_a_gradient_computes_a_part_once():
    """Images at the points serve the outputs and the kernel gradient, outputs' gradients both gradients."""
    shape = (128, (8, 8), 64, 64, 3, 1, 1)
    own, _, (x, kernel) = maps(*shape, np.float32)["conv"]

    def products(function):
        text = jax.jit(function).lower(x, kernel).compile().as_text()
        return text.count(" dot(")

    forward = products(own)
    both = products(jax.value_and_grad(lambda x, kernel: jnp.sum(jnp.sin(own(x, kernel))), (0, 1)))
    # Images, kernel and outputs: 2, 1 and 2 products, and the one over channels. Backward the outputs, two over the
    # channels, images and kernel; but not the images at their points again, nor the outputs for the second map.
    assert (forward, both) == (6, 6 + 2 + 2 + 2 + 1)


def test_the_matrices_make_a_correlation():
    for taps in (2, 3):
        outputs, images, kernels = (np.asarray(matrix, np.float64) for matrix in winograd._transforms(taps))
        x, kernel = np.random.default_rng(0).normal(size=taps + 3), np.random.default_rng(1).normal(size=taps)
        found = outputs.T @ ((images @ x) * (kernels @ kernel))
        np.testing.assert_allclose(found, np.correlate(x, kernel, "valid"), rtol=0, atol=1e-6)
