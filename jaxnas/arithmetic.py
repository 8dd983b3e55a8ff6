"""The numbers that costs are computed in: one set of formulas, several arithmetics.

`FLOAT32` is JAX on the device: integers are divided exactly, products are float32 and
exact below 2**24 (or as long as they have 24 significant bits). `INT64` is NumPy on the
host, exact below 2**63. `hardware.relaxation` makes arithmetics that can be
differentiated.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


class Arithmetic(NamedTuple):
    """Functions of non-negative arrays that broadcast against each other."""

    xp: ModuleType  # of `where`, `minimum`, `sum` and the like
    column: Callable[[Any], Any]  # a column of a table, ready to be divided
    number: Callable[[Any], Any]  # a quotient or column, ready for products
    ceil_divide: Callable[[Any, Any], Any]
    floor_divide: Callable[[Any, Any], Any]
    exact_divide: Callable[[Any, Any], Any]  # of a multiple by its divisor
    maximum: Callable[[Any, Any], Any]


def _ceil_divide(dividend, divisor):
    return (dividend + (divisor - 1)) // divisor


def _floor_divide(dividend, divisor):
    return dividend // divisor


def _guessed_floor_divide(dividend, divisor):
    """Whole numbers below 2**31 with a quotient below 2**22; fast, as `//` is not.

    A float quotient may be a unit off (XLA divides by reciprocals), and its remainder
    tells.
    """
    quotient = jnp.floor(_float32(dividend) / _float32(divisor)).astype(jnp.int32)
    remainder = dividend - quotient * divisor
    return quotient + (remainder >= divisor) - (remainder < 0)


def _guessed_ceil_divide(dividend, divisor):
    if isinstance(divisor, int):  # XLA knows how to divide by constants
        return _ceil_divide(dividend, divisor)
    return _guessed_floor_divide(dividend + (divisor - 1), divisor)


def _guessed_exact_divide(dividend, divisor):
    quotient = jnp.round(_float32(dividend) / _float32(divisor))
    return jnp.where(divisor == 1, dividend, quotient.astype(jnp.int32))


def _float32(x):
    return jnp.asarray(x).astype(jnp.float32)


FLOAT32 = Arithmetic(
    xp=jnp,
    column=jnp.asarray,
    number=_float32,
    ceil_divide=_guessed_ceil_divide,
    floor_divide=_guessed_floor_divide,
    exact_divide=_guessed_exact_divide,
    maximum=jnp.maximum,
)

INT64 = Arithmetic(
    xp=np,
    column=lambda x: np.asarray(x).astype(np.int64),
    number=lambda x: np.asarray(x).astype(np.int64),
    ceil_divide=_ceil_divide,
    floor_divide=_floor_divide,
    exact_divide=_floor_divide,
    maximum=np.maximum,
)
