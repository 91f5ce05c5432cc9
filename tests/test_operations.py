"""The count of operations against XLA's own, which on CPU sees every product and convolution."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from experiments import operations
from ssl_jax.models import convolution_forms, convolution_maps


def counted(function, *shapes):
    given = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    traced = jax.jit(function).trace(*given)
    return operations.count(traced.jaxpr), traced.lower().cost_analysis()["flops"]


@pytest.mark.parametrize(
    ("window", "stride", "padding", "images", "dilation", "groups"),
    [
        ((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 1),
        ((3, 3), (2, 2), ((1, 1), (0, 2)), (1, 1), (1, 1), 1),
        ((4, 3), (1, 2), ((2, 2), (1, 1)), (2, 3), (1, 1), 1),
        ((3, 2), (1, 1), ((2, 1), (0, 0)), (1, 1), (2, 3), 1),
        ((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 4),
    ],
)
def test_convolutions(window, stride, padding, images, dilation, groups):
    def convolve(x, kernel):
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, stride, padding, images, dilation, layout, groups)

    shapes = ((2, 9, 7, 8), (*window, 8 // groups, 12))
    ours, xla = counted(convolve, *shapes)
    assert ours == xla > 0

    x, kernel = (jax.ShapeDtypeStruct(shape, "float32") for shape in shapes)
    y = jax.eval_shape(convolve, x, kernel).shape

    def of_images(y, given):
        return jax.linear_transpose(lambda x: convolve(x, given), x)(y)

    def of_kernel(y, given):
        return jax.linear_transpose(lambda kernel: convolve(given, kernel), kernel)(y)

    for gradient, given in ((of_images, shapes[1]), (of_kernel, shapes[0])):
        ours, xla = counted(gradient, y, given)
        assert ours == xla > 0


def test_products_and_what_calls_them():
    def product(x, y):
        return jnp.einsum("bij,bjk->bik", x, y)

    shapes = ((5, 7, 3), (5, 3, 11))
    ours, xla = counted(product, *shapes)
    assert ours == xla == 2 * 5 * 7 * 3 * 11
    assert counted(jax.jit(product), *shapes)[0] == ours
    dearer = counted(
        lambda x, y: lax.cond(x[0, 0, 0] > 0, product, lambda x, y: product(2 * x, y) + product(x, 2 * y), x, y),
        *shapes,
    )
    assert dearer[0] == 2 * ours


def test_a_loop_counts_each_turn():
    def looped(x):
        return lax.scan(lambda carry, _: (carry @ carry, None), x, length=6)[0]

    assert counted(looped, (4, 4))[0] == 6 * 2 * 4**3

    def until(x):
        return lax.while_loop(lambda x: x[0, 0] > 0, lambda x: x @ x, x)

    assert counted(until, (4, 4))[0] == 2 * 4**3


def test_what_nothing_uses_is_not_counted():
    def gradient(x, y):
        return jax.vjp(lambda x: x @ y, x)[1](x @ y)[0]  # the value of the inner product is thrown away

    assert counted(gradient, (5, 3), (3, 3))[0] == 2 * 2 * 5 * 3 * 3


def test_a_whole_step_and_its_rules_of_derivation_count_as_xla_counts_them(monkeypatch):
    monkeypatch.setattr(convolution_forms, "_on_cpu", lambda: False)

    def step(x, kernel):
        return jax.grad(lambda kernel: jnp.sum(jnp.square(convolution_maps.conv(x, kernel, 2, 1))))(kernel)

    ours, xla = counted(step, (4, 32, 32, 16), (3, 3, 16, 64))
    assert ours == pytest.approx(xla, rel=0.02)  # XLA's has the squares and the sum
