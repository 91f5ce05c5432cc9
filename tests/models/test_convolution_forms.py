import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax.models import convolution_forms, convolution_maps
from tests.models.test_convolution_maps import derivatives, equations, plain


def maps(batch, size, channels, features, kernel_px, stride, padding, dtype=np.float64):
    """`conv`, `conv_transpose` and `kernel_gradient` as functions of two arrays, XLA's own, and arrays for each."""
    draw = np.random.default_rng(0).normal
    x = draw(size=(batch, *size, channels)).astype(dtype)
    kernel = draw(size=(kernel_px, kernel_px, channels, features)).astype(dtype)

    def expected(x, kernel):
        return plain(x, kernel, stride, padding, 1)

    y = draw(size=jax.eval_shape(expected, x, kernel).shape).astype(dtype)
    return {
        "conv": (lambda x, kernel: convolution_maps.conv(x, kernel, stride, padding), expected, (x, kernel)),
        "conv_transpose": (
            lambda y, kernel: convolution_maps.conv_transpose(y, kernel, stride, padding, size),
            lambda y, kernel: jax.vjp(lambda x: expected(x, kernel), x)[1](y)[0],
            (y, kernel),
        ),
        "kernel_gradient": (
            lambda x, y: convolution_maps.kernel_gradient(x, y, stride, padding, kernel.shape[:2]),
            lambda x, y: jax.vjp(lambda kernel: expected(x, kernel), kernel)[1](y)[0],
            (x, y),
        ),
    }


@pytest.mark.parametrize(
    ("shape", "derived"),
    [
        ((2, (9, 12), 3, 5, 3, 1, 0), ("conv",)),  # four columns as one and a spare row, 10 columns of output
        ((1, (13, 11), 3, 40, 7, 1, 0), ()),  # the features leave no columns to gather
        ((1, (11, 13), 3, 20, 7, 1, 3), ()),  # three columns
        ((2, (9, 11), 1, 6, 4, 2, 1), ("conv",)),
        ((2, (11, 9), 4, 8, 3, 3, 0), ()),  # with a stride that leaves pixels over
        ((2, (9, 12), 6, 3, 3, 1, 0), ("conv", "conv_transpose", "kernel_gradient")),  # few outputs
        ((1, (12, 13), 6, 2, 7, 1, 3), ()),
        ((2, (6, 5), 6, 1, 4, 1, 1), ()),
        ((2, (5, 6), 6, 1, 3, 1, 2), ("conv",)),  # outputs larger than images
        ((2, (5, 6), 6, 1, 2, 1, 3), ()),  # padding beyond the window
        ((2, (9, 10), 6, 5, 3, 2, 0), ()),
        ((1, (13, 13), 6, 5, 3, 2, 1), ()),
        ((2, (6, 7), 5, 4, 3, 1, 1), ("conv",)),  # two columns as one, of an odd number
        ((1, (5, 9), 16, 16, 2, 1, 0), ()),
        ((1, (9, 8), 7, 8, 5, 2, 2), ()),
        ((2, (8, 11), 5, 5, 1, 3, 0), ()),
        ((1, (15, 11), 6, 5, 7, 3, 3), ()),
        ((2, (1, 1), 6, 5, 3, 1, 1), ("conv",)),
        ((3, (1, 1), 5, 6, 3, 2, 1), ()),
    ],
)
def test_values_and_two_orders_of_derivatives_equal_laxs(shape, derived):
    check(shape, derived)


@pytest.mark.parametrize(
    ("shape", "derived"),
    [
        ((2, (6, 9), 5, 4, 3, 1, 1), ("kernel_gradient",)),
        ((2, (7, 5), 3, 4, 3, 1, 0), ()),
        ((1, (4, 7), 6, 5, 2, 1, 1), ()),  # outputs larger than images
        ((1, (5, 4), 4, 6, 4, 1, 1), ()),
        ((1, (6, 8), 5, 5, 5, 1, 2), ()),
        ((1, (9, 8), 5, 5, 7, 1, 1), ()),
        ((3, (1, 1), 5, 5, 3, 1, 1), ("conv",)),
        ((2, (1, 4), 5, 5, 2, 1, 3), ()),  # padding beyond the window
    ],
)
def test_the_crossed_kernel_gradient_equals_laxs_in_value_and_two_orders_of_derivatives(monkeypatch, shape, derived):
    """As for large maps, which would take long here."""
    monkeypatch.setattr(convolution_forms, "_is_crossed", lambda x, y, stride, window: True)
    check(shape, derived)
    own, _, arrays = maps(*shape, np.float32)["kernel_gradient"]
    assert products(own, arrays) == 1


@pytest.mark.parametrize(("copies_bytes", "pieces"), [(1, 12), (70_000, 4), (10**9, 1)])
def test_the_crossed_kernel_gradient_goes_through_the_batch_in_equal_pieces(monkeypatch, copies_bytes, pieces):
    monkeypatch.setattr(convolution_forms, "COPIES_BYTES", copies_bytes)
    monkeypatch.setattr(convolution_forms, "_is_crossed", lambda x, y, stride, window: True)
    images = 12  # of 10 padded rows of 9 pixels with 3 (5 + 4) numbers of 8 bytes: three of them take 58,320
    check((images, (8, 9), 5, 4, 3, 1, 1), ())
    with jax.enable_x64(True):
        own, _, arrays = maps(images, (8, 9), 5, 4, 3, 1, 1)["kernel_gradient"]
        copied = [e.outvars[0].aval.shape for e in equations(jax.make_jaxpr(own)(*arrays).jaxpr)]
    assert (images // pieces, 10, 9, 15) in copied


def test_pieces_of_low_precision_are_summed_in_float32(monkeypatch):
    monkeypatch.setattr(convolution_forms, "COPIES_BYTES", 1)
    own, _, (x, y) = maps(128, (16, 16), 16, 16, 3, 1, 1, np.float32)["kernel_gradient"]
    x, y = (jnp.asarray(array + 1, jnp.bfloat16) for array in (x, y))
    found = jax.jit(own)(x, y)
    wanted = own(x.astype(jnp.float32), y.astype(jnp.float32))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), wanted, rtol=2**-8)


def test_a_batch_of_unknown_size_is_crossed_in_one_piece():
    (size,) = jax.export.symbolic_shape("b", constraints=["b >= 64"])
    shapes = [jax.ShapeDtypeStruct((size, 16, 16, 16), np.float32)] * 2
    own, expected, arrays = maps(64, (16, 16), 16, 16, 3, 1, 1, np.float32)["kernel_gradient"]
    found = jax.export.export(jax.jit(own))(*shapes).call(*arrays)
    wanted = expected(*arrays)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def products(function, arrays):
    """How many matrix products a function is, 0 where it has a convolution."""
    names = [equation.primitive.name for equation in equations(jax.make_jaxpr(function)(*arrays).jaxpr)]
    return 0 if "conv_general_dilated" in names else names.count("dot_general")


def check(shape, derived):
    with jax.enable_x64(True):
        for name, (own, expected, arrays) in maps(*shape).items():
            order = derivatives if name in derived else jax.jit
            found, wanted = (jax.jit(order(function))(*arrays) for function in (own, expected))
            for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
                assert leaf.dtype == np.float64
                np.testing.assert_allclose(leaf, other, rtol=1e-9, atol=1e-9 * np.abs(other).max(), err_msg=name)


@pytest.mark.parametrize(
    "shape",
    [
        (1, (46, 49), 128, 130, 3, 1, 0),
        (1, (6, 7), 32, 33, 3, 2, 1),
        (1, (260, 259), 16, 18, 3, 2, 1),
        (1, (5, 6), 33, 32, 1, 2, 0),
        (2, (66, 65), 128, 129, 4, 2, 1),
    ],
)
def test_the_kernel_gradient_between_many_channels_equals_laxs_and_is_matrix_products(shape):
    with jax.enable_x64(True):
        own, expected, arrays = maps(*shape)["kernel_gradient"]
        found, wanted = jax.jit(own)(*arrays), jax.jit(expected)(*arrays)
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max())
        assert products(own, arrays) == shape[4] ** 2  # float32 would take `winograd` for some of these


@pytest.mark.parametrize(
    "shape",
    [
        (1, (260, 260), 15, 33, 3, 2, 1),
        (1, (250, 250), 16, 33, 3, 2, 1),  # images that a cache holds
        (2, (66, 65), 127, 129, 4, 2, 1),
        (1, (60, 62), 128, 129, 4, 2, 1),
        (1, (60, 62), 128, 129, 5, 2, 1),
    ],
)
def test_smaller_ones_keep_xlas_kernel_gradient(shape):
    with jax.enable_x64(True):
        own, _, arrays = maps(*shape)["kernel_gradient"]
        assert convolutions(own, arrays)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((1, (260, 260), 16, 18, 3, 2, 1), 0),
        ((1, (5, 6), 33, 32, 1, 2, 0), 0),
        ((1, (6, 7), 32, 33, 3, 2, 1), 1),
    ],
)
def test_products_of_a_position_have_an_axis_of_groups_where_it_pays(shape, axes):
    own, _, arrays = maps(*shape, np.float32)["kernel_gradient"]
    found = [e for e in equations(jax.make_jaxpr(own)(*arrays).jaxpr) if e.primitive.name == "dot_general"]
    assert {len(each.params["dimension_numbers"][1][0]) for each in found} == {axes}


def convolutions(function, arrays):
    found = [
        e for e in equations(jax.make_jaxpr(function)(*arrays).jaxpr) if e.primitive.name == "conv_general_dilated"
    ]
    return [(equation.params["window_strides"], equation.params["padding"]) for equation in found]


def test_the_forms_that_cpus_take():
    # A row more below, and columns: 16 features make 64 of 4 columns, 24 make 48 of 2.
    for features, columns in ((16, 4), (24, 2), (64, 1), (100, 1)):
        own, _, arrays = maps(1, (12, 12), 3, features, 3, 1, 0)["conv"]
        more = -10 % columns
        assert convolutions(own, arrays) == [((1, columns), ((0, 1), (0, more)))]
    own, _, arrays = maps(1, (12, 12), 6, 6, 3, 2, 0)["conv"]
    assert convolutions(own, arrays) == [((2, 2), ((0, 2), (0, 0)))]
    for channels, features in ((16, 16), (5, 8)):  # few enough for two columns as one, but in the images' gradient
        each = maps(1, (7, 9), channels, features, 3, 1, 1)
        forward, transposed = (convolutions(own, arrays) for own, _, arrays in (each["conv"], each["conv_transpose"]))
        assert forward == [((1, 2), ((1, 1), (1, 2)))]
        assert transposed[-1:] == [((1, 1), ((1, 1), (1, 1)))]
    # None where there is padding, for 1x1 kernels, or where a row would be much of the map.
    for shape in ((1, (12, 12), 17, 6, 3, 1, 1), (1, (12, 12), 6, 6, 1, 1, 0), (1, (4, 4), 17, 6, 4, 1, 0)):
        own, expected, arrays = maps(*shape)["conv"]
        assert convolutions(own, arrays) == convolutions(expected, arrays)
    few = maps(1, (12, 12), 3, 6, 3, 1, 0)["conv_transpose"], maps(1, (12, 12), 6, 3, 3, 1, 0)["kernel_gradient"]
    assert [convolutions(own, arrays) for own, _, arrays in few] == [[], []]


def test_the_crossed_kernel_gradient_is_for_many_pixels_of_some_channels_at_stride_1():
    def taken(*shape):
        own, _, arrays = maps(*shape, np.float32)["kernel_gradient"]
        return products(own, arrays)

    assert taken(8, (32, 32), 16, 16, 3, 1, 1) == taken(50, (13, 13), 17, 40, 3, 1, 1) == 1
    assert taken(120, (8, 8), 64, 64, 3, 1, 1) == taken(7, (32, 32), 16, 16, 3, 1, 1) == 0
    assert taken(8, (32, 32), 15, 16, 3, 1, 1) == taken(8, (32, 32), 16, 16, 4, 1, 1) == 0
    assert taken(8, (64, 64), 32, 32, 3, 2, 1) == 9


@pytest.mark.parametrize("name", ["conv", "conv_transpose", "kernel_gradient"])
@pytest.mark.parametrize(
    "shape",
    [
        (1, (12, 12), 3, 6, 3, 1, 0),
        (1, (12, 12), 6, 3, 3, 1, 0),
        (1, (12, 12), 32, 32, 3, 2, 1),
        (8, (32, 32), 16, 16, 3, 1, 1),
        (1, (12, 12), 32, 64, 1, 2, 0),
    ],
)
def test_other_devices_take_xlas_own_convolution(monkeypatch, name, shape):
    monkeypatch.setattr(convolution_forms, "_on_cpu", lambda: False)
    own, expected, arrays = maps(*shape)[name]
    # The last of each, since a gradient is traced with the convolution that it is taken of.
    found, wanted = (
        [e for e in equations(jax.make_jaxpr(function)(*arrays).jaxpr) if e.primitive.name == "conv_general_dilated"][
            -1
        ]
        for function in (own, expected)
    )
    assert {**found.params} == {**wanted.params}


def test_bfloat16_stays_bfloat16():
    for shape in ((1, (8, 8), 3, 6, 3, 1, 0), (1, (8, 8), 6, 3, 3, 1, 0), (1, (8, 8), 32, 32, 3, 2, 1)):
        for own, _, arrays in maps(*shape).values():
            answers = jax.eval_shape(derivatives(own), *(jnp.asarray(array, jnp.bfloat16) for array in arrays))
            assert {leaf.dtype for leaf in jax.tree.leaves(answers)} == {jnp.dtype("bfloat16")}
