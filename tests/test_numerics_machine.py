"""Words of the machine's own numbers: casts both ways, and nothing lost."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.numerics import IEEE, Format, MachineInteger, flip
from jaxnas.numerics.machine import (
    FLOATS,
    INTEGERS,
    from_words,
    machine_format,
    to_words,
)


@pytest.mark.parametrize("name", [*INTEGERS, *FLOATS])
def test_words_are_the_bytes_in_memory(name):
    bytes_ = np.random.default_rng(0).integers(0, 256, 64, np.uint8)
    x = bytes_.view(jnp.dtype(name))
    words = to_words(jnp.asarray(x))
    np.testing.assert_array_equal(np.asarray(words).view(np.uint8), bytes_)
    again = np.asarray(from_words(words, name))
    assert again.dtype == name
    np.testing.assert_array_equal(again.view(np.uint8), bytes_)


@pytest.mark.parametrize("name", INTEGERS)
def test_a_flipped_bit_of_an_integer_is_a_power_of_two(name):
    format = machine_format(name)
    assert isinstance(format, Format) and format.dtype == name
    (x,) = np.random.default_rng(1).integers(0, 256, 64, np.uint8).view(name)[None]
    sign = -1 if format.signed else 1
    for bit in range(format.bits):
        words = flip(format.encode(jnp.asarray(x), 1.0), bit)
        change = np.asarray(format.decode(words, 1.0), object) - x.astype(object)
        size = 2**bit * (sign if bit == format.bits - 1 else 1)
        was_one = (x.astype(object) >> bit) & 1
        np.testing.assert_array_equal(change, np.where(was_one, -size, size))
    masks = format.fields.values()
    assert sum(masks) == 2**format.bits - 1


def test_other_dtypes_have_no_words_of_their_own():
    assert machine_format(jnp.float8_e4m3fn) is machine_format(bool) is None
    assert machine_format(jnp.bfloat16) == IEEE(name="bfloat16")
    with pytest.raises(ValueError, match="12 bits; expected 8, 16 or 32"):
        MachineInteger(bits=12)
