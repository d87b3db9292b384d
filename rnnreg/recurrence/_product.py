"""The matrix product of the library, at a stated precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_choice
from rnnreg._signatures import typed

PRECISIONS = (None, "default", "high", "highest", "bfloat16")


def check_precision(precision: str | None) -> None:
    """Raises where a precision is not one of those that a product can be asked for."""
    check_choice(precision, "precision", PRECISIONS)


@typed
def product(left: Array, right: Array, *, precision: str | None = None) -> Array:
    """left @ right.

    Args:
      left: `[…, K]`.
      right: `[K, N]`.
      precision: None leaves it to JAX's default, which is lower than float32 on accelerators; "default",
        "high" and "highest" are JAX's own; "bfloat16" rounds both operands to bfloat16 and sums in float32.
        A derivative multiplies its tangents or cotangents with the rounded operand: they are rounded too
        where the device has such products (GPU, TPU), and are not on a CPU.

    Returns:
      `[…, N]`.

    Raises:
      ValueError: "bfloat16" for float64 operands.

    >>> float(product(jnp.array([[1 + 2.0**-10]]), jnp.array([[1.0]]), precision="bfloat16")[0, 0])
    1.0
    """
    check_precision(precision)
    if precision != "bfloat16":
        return jnp.matmul(left, right, precision=precision)
    if jnp.result_type(left, right) == jnp.float64:
        raise ValueError(
            "precision='bfloat16' is for float32 networks; got float64 operands. Use precision=None there."
        )
    if left.dtype == jnp.bfloat16:
        return jnp.matmul(left, right)
    return _rounded_product(left, right)


def rounded(values: Array, precision: str | None) -> Array:
    """The values as an operand of a product at that precision."""
    return jax.lax.reduce_precision(values, 8, 7) if precision == "bfloat16" else values


def lax_precision(precision: str | None) -> jax.lax.DotAlgorithmPreset | str | None:
    """The same precision in the words of `jax.lax.dot_general`."""
    if precision != "bfloat16":
        return precision
    # XLA's CPU products know no bfloat16 algorithm; operands rounded by hand give its forward values.
    cpu = jax.default_backend() == "cpu"
    return "highest" if cpu else jax.lax.DotAlgorithmPreset.BF16_BF16_F32


@jax.custom_jvp
def _rounded_product(left: Array, right: Array) -> Array:
    return _dot(rounded(left, "bfloat16"), rounded(right, "bfloat16"))


@_rounded_product.defjvp
def _rounded_product_jvp(primals, tangents):
    left, right = (rounded(value, "bfloat16") for value in primals)
    d_left, d_right = tangents
    return _dot(left, right), _dot(d_left, right) + _dot(left, d_right)


def _dot(left: Array, right: Array) -> Array:
    return jnp.matmul(left, right, precision=lax_precision("bfloat16"))
