"""How many floating-point operations a traced function's matrix products and convolutions take.

XLA's own count leaves out what a GPU's libraries compute, which there is nearly all of a step.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.interpreters import partial_eval


def count(jaxpr: Any) -> float:
    """Multiplications and additions of every product and convolution in a jaxpr, those of the functions it calls too.

    What nothing uses is not counted, nor are positions of a window that meet padding or the gaps of a dilation, as in
    XLA's count. The dearest of several branches counts, and the body of a loop of unknown length once. It is what is
    computed that counts: on CPUs some forms of convolutions multiply by zeros, 4 to 8 % of a whole step; Winograd's
    have fewer products, of which those that XLA merges count twice.

    Args:
        jaxpr: as `jax.make_jaxpr` and `jax.jit(f).trace(...)` give it.
    """
    open_jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    used, _ = partial_eval.dce_jaxpr(open_jaxpr, [True] * len(open_jaxpr.outvars))
    return _count(used)


def _count(jaxpr):
    total = 0.0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, inner = equation.primitive.name, [_count(each) for each in _jaxprs(equation.params)]
        if name == "dot_general":
            total += _product(equation)
        elif name == "conv_general_dilated":
            total += _convolution(equation)
        elif name == "cond":
            total += max(inner)
        elif name == "scan":
            total += equation.params["length"] * sum(inner)
        else:
            total += sum(inner)
    return total


def _jaxprs(params) -> Iterator[Any]:
    """Those that an equation calls; what only derives it further (`custom_vjp`'s rules) is a function, not a jaxpr."""
    for value in params.values():
        for item in value if isinstance(value, list | tuple) else [value]:
            if hasattr(getattr(item, "jaxpr", item), "eqns"):
                yield item


def _product(equation):
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return 2.0 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)


def _convolution(equation):
    params = equation.params
    layout = params["dimension_numbers"]
    images, kernel, output = (x.aval.shape for x in (*equation.invars, *equation.outvars))
    meetings = 1
    for axis, (low, _) in enumerate(params["padding"]):
        taps, places = (shape[of[2 + axis]] for shape, of in ((kernel, layout.rhs_spec), (output, layout.out_spec)))
        at = np.arange(places)[:, None] * params["window_strides"][axis] - low
        at = at + np.arange(taps) * params["rhs_dilation"][axis]
        gap, side = params["lhs_dilation"][axis], images[layout.lhs_spec[2 + axis]]
        meetings *= int(np.sum((at >= 0) & (at % gap == 0) & (at // gap < side)))
    batch, features = (output[layout.out_spec[place]] for place in (0, 1))
    return 2.0 * meetings * batch * features * kernel[layout.rhs_spec[1]]
