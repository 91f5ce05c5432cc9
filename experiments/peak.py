"""How fast a device multiplies matrices and copies memory: what a step's speed is a share of."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Peak:
    """A large piece of work of one kind.

    Attributes:
        amount: floating-point operations or bytes of one call.
        work: starts one call and gives its result.
    """

    amount: float
    work: Callable[[], jax.Array]


def peaks() -> dict[str, Peak]:
    """`float32` and `bfloat16` matrix products, and `bytes`, a copy, on the first device.

    Products of float32 are computed as JAX does by default, in TF32 on GPUs that have it. Sizes go by the kind of
    device: hundredths of a second on a processor, milliseconds on an accelerator.
    """
    large = jax.default_backend() != "cpu"
    side, length = (8192, 2**28) if large else (1024, 2**23)
    product = jax.jit(jnp.matmul)
    found = {}
    for name in ("float32", "bfloat16"):
        # Drawn, as a constant's bits change less and cost a GPU less power: products of constants run faster.
        matrix = jax.random.normal(jax.random.key(0), (side, side), name)

        def multiply(matrix=matrix):
            return product(matrix, matrix)

        found[name] = Peak(2.0 * side**3, multiply)
    numbers = jnp.zeros(length, jnp.float32)
    copy = jax.jit(lambda x: x + 1)  # what only gives its argument back would not touch memory
    found["bytes"] = Peak(2.0 * numbers.nbytes, lambda: copy(numbers))
    return found
