"""Integers of formats: what words stand for; comparing stores as rounding does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.numerics.codebooks import Binary, Ternary
from jaxnas.numerics.fixed_point import FixedPoint
from jaxnas.numerics.floats import IEEE, MiniFloat
from jaxnas.numerics.integer_formats import integer_values, stored_code
from jaxnas.numerics.logarithmic import Logarithmic
from jaxnas.numerics.words import all_words

FORMATS = [
    FixedPoint(bits=8),
    FixedPoint(bits=16, code="sign_magnitude"),
    Logarithmic(bits=8, base=2 ** (1 / 16), fraction=8),
    Logarithmic(bits=4, base=2**0.5, signed=False, fraction=9),
    Logarithmic(bits=5, base=2.0, fraction=16, zero=False),
    MiniFloat(exponent=4, mantissa=3, specials="finite"),
    Ternary(),
    Binary(),
]


def name_of(format):
    return f"{type(format).__name__}{format.bits}"


@pytest.mark.parametrize("format", FORMATS, ids=name_of)
def test_codes_are_all_numbers_and_no_other(format):
    table = integer_values(format)
    assert table.codes.dtype == np.int32 and (np.diff(table.codes) > 0).all()
    numbers = np.unique(np.asarray(format.decode(all_words(format.bits), 1.0)) + 0.0)
    np.testing.assert_array_equal(table.codes * 2.0**-table.fraction, numbers)
    halved = table.codes % 2 == 0
    assert table.fraction == 0 or not halved.all()  # no finer step than is needed


@pytest.mark.parametrize("left", [-20, -9, 0, 5])
@pytest.mark.parametrize("format", FORMATS, ids=name_of)
def test_integers_are_stored_as_the_numbers_they_stand_for(format, left):
    table = integer_values(format)
    rng = np.random.default_rng(left + 20)
    codes = np.r_[np.arange(-3000, 3000), rng.integers(-(2**24), 2**24, 2192)]
    stored = jax.jit(lambda codes: stored_code(codes, jnp.int32(left), table))
    found = stored(jnp.asarray(codes, jnp.int32))
    rounded = format.quantize(jnp.asarray(codes * 2.0**left, jnp.float32), 1.0)
    np.testing.assert_array_equal(found * 2.0**-table.fraction, rounded)


@pytest.mark.parametrize("format", FORMATS, ids=name_of)
def test_thresholds_are_the_last_numbers_before_the_next_value(format):
    table = integer_values(format)
    values = np.float32(table.codes * 2.0**-table.fraction)
    above = np.nextafter(table.thresholds, np.float32(np.inf))
    tiny = np.finfo(np.float32).tiny  # XLA takes subnormal numbers for zero
    above = np.where((table.thresholds < 0) & (above > -tiny), 0, above)
    np.testing.assert_array_equal(format.quantize(table.thresholds, 1.0), values[:-1])
    np.testing.assert_array_equal(format.quantize(above, 1.0), values[1:])


NO_INTEGERS = {
    "more than 16 bits": IEEE(name="float32"),
    "give Logarithmic a fraction": Logarithmic(bits=4, base=2**0.5),
    "not all numbers of MiniFloat": MiniFloat(exponent=4, mantissa=3),
}


@pytest.mark.parametrize("message", NO_INTEGERS)
def test_formats_of_other_numbers_are_refused(message):
    with pytest.raises(ValueError, match=message):
        integer_values(NO_INTEGERS[message])
