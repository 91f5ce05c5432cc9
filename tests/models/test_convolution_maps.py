"""The three maps and two orders of their derivatives against lax, and what they become on eight devices."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ssl_jax.models import convolution_maps


def plain(x, kernel, stride, padding, groups):
    margins, layout = ((padding, padding), (padding, padding)), ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), margins, None, None, layout, groups)


def trio(size, kernel_px, stride, padding, groups, dtype=np.float32):
    """`conv`, `conv_transpose` and `kernel_gradient` as functions of two arrays, XLA's own, and arrays for each."""
    draw = np.random.default_rng(0).normal
    x = draw(size=(2, *size, 4)).astype(dtype)
    kernel = draw(size=(kernel_px, kernel_px, 4 // groups, 6)).astype(dtype)
    y = draw(size=jax.eval_shape(lambda: plain(x, kernel, stride, padding, groups)).shape).astype(dtype)
    form = (stride, padding)

    def own_plain(x, kernel):
        return plain(x, kernel, *form, groups)

    return {
        "conv": (lambda x, kernel: convolution_maps.conv(x, kernel, *form, groups), own_plain, (x, kernel)),
        "conv_transpose": (
            lambda y, kernel: convolution_maps.conv_transpose(y, kernel, *form, size, groups),
            lambda y, kernel: jax.vjp(lambda x: own_plain(x, kernel), x)[1](y)[0],
            (y, kernel),
        ),
        "kernel_gradient": (
            lambda x, y: convolution_maps.kernel_gradient(x, y, *form, kernel.shape[:2], groups),
            lambda x, y: jax.vjp(lambda kernel: own_plain(x, kernel), kernel)[1](y)[0],
            (x, y),
        ),
    }


def derivatives(function):
    """The value, the gradients of a nonlinear function of it, and those of a nonlinear function of these gradients."""

    def gradients(first, second):
        return jax.grad(lambda *arrays: jnp.sin(function(*arrays)).sum(), (0, 1))(first, second)

    def penalty(first, second):
        of_first, of_second = gradients(first, second)
        return jnp.sum(jnp.sin(of_first)) + jnp.sum(of_second**3)

    def answer(first, second):
        return function(first, second), gradients(first, second), jax.grad(penalty, (0, 1))(first, second)

    return answer


@pytest.mark.parametrize(
    ("size", "kernel_px", "stride", "padding", "groups", "derived"),
    [
        ((8, 8), 4, 2, 1, 1, ("conv",)),
        ((4, 4), 4, 2, 1, 1, ("conv", "conv_transpose")),  # the outputs' maps of 2 and 3 px go by phases
        ((6, 4), 4, 2, 1, 1, ()),
        ((9, 6), 6, 3, 2, 1, ()),
        ((5, 5), 4, 2, 1, 1, ()),
        ((9, 7), 4, 2, 1, 1, ("conv_transpose", "kernel_gradient")),
        ((9, 7), 3, 2, 1, 2, ("conv", "conv_transpose", "kernel_gradient")),
        ((7, 9), 1, 2, 0, 1, ()),
        ((10, 9), 5, 3, 2, 2, ()),
        ((5, 7), 3, 1, 0, 1, ("conv",)),
    ],
)
def test_values_and_two_orders_of_derivatives_equal_laxs(size, kernel_px, stride, padding, groups, derived):
    """The second derivatives of `conv` already take those of the two others; `derived` spares compile time."""
    with jax.enable_x64(True):
        for name, (own, expected, arrays) in trio(size, kernel_px, stride, padding, groups, np.float64).items():
            order = derivatives if name in derived else jax.jit
            found, wanted = (jax.jit(order(function))(*arrays) for function in (own, expected))
            for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
                assert leaf.dtype == np.float64
                np.testing.assert_allclose(leaf, other, rtol=1e-9, atol=1e-9 * np.abs(other).max(), err_msg=name)


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


@pytest.mark.parametrize("groups", [1, 2])
def test_no_derivative_slides_a_large_window_over_a_dilated_input(groups):
    """Those are the convolutions that XLA computes slowly on CPUs, as it does the kernel gradient of groups."""

    def slow(function, arrays):
        found = 0
        for equation in equations(jax.make_jaxpr(derivatives(function))(*arrays).jaxpr):
            if equation.primitive.name == "conv_general_dilated":
                numbers = equation.params["dimension_numbers"]
                window = [equation.invars[1].aval.shape[axis] for axis in numbers.rhs_spec[2:]]
                dilated = max(equation.params["lhs_dilation"]) > 1 and max(window) > 4
                found += dilated or equation.params["batch_group_count"] > 1
        return found

    maps = trio((16, 16), 4, 2, 1, groups)
    assert slow(*maps["conv_transpose"][1:]) and slow(*maps["conv"][1:])
    assert {name: slow(own, arrays) for name, (own, _, arrays) in maps.items()} == dict.fromkeys(maps, 0)


def test_bfloat16_stays_bfloat16_in_all_derivatives():
    for own, _, arrays in trio((8, 8), 4, 2, 1, 1).values():
        answers = jax.eval_shape(derivatives(own), *(jnp.asarray(array, jnp.bfloat16) for array in arrays))
        assert {leaf.dtype for leaf in jax.tree.leaves(answers)} == {jnp.dtype("bfloat16")}


DEVICES = """
import json, re
import jax, jax.numpy as jnp, numpy as np
from ssl_jax import mesh as meshes
from ssl_jax.models import convolution_forms, layers

mesh = meshes.data_parallel()
split, everywhere = meshes.split(mesh), meshes.replicated(mesh)


def exchanges(channels, features, kernel_px, stride, size):
    layer = layers.conv(features, kernel_px=kernel_px, stride=stride, dtype="float32", name=None)
    images = jax.ShapeDtypeStruct((16, *size, channels), jnp.float32, sharding=split)
    kernel = jax.ShapeDtypeStruct((kernel_px, kernel_px, channels, features), jnp.float32, sharding=everywhere)

    def loss(kernel, images):
        return jnp.sum(jnp.sin(layer.apply({"params": {"kernel": kernel}}, images)))

    text = jax.jit(jax.grad(loss, (0, 1)), out_shardings=(everywhere, split)).lower(kernel, images).compile().as_text()
    return sorted(set(re.findall(r" (all-\\w+|collective-\\w+|reduce-scatter)(?:-start)?\\(", text)))


print(json.dumps({name: exchanges(*shape) for name, shape in {
    "crossed": (16, 32, 3, 1, (26, 24)),
    "columns": (16, 16, 3, 1, (8, 8)),
    "stem": (3, 16, 3, 1, (8, 8)),
    "strided": (32, 64, 3, 2, (8, 8)),
    "shortcut": (32, 64, 1, 2, (8, 8)),
    "filtered on one device": (64, 64, 3, 1, (24, 24)),
}.items()}))
"""


def test_devices_that_share_a_batch_exchange_the_kernels_gradient_alone(child):
    found = json.loads(child(DEVICES, devices=8).stdout)
    assert len(found) == 6 and all(kinds == ["all-reduce"] for kinds in found.values()), found
