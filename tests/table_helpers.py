"""Tables by hand, their comparison, and the layers that traced networks consist of."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxnas.numerics import FixedPoint, quantize
from jaxnas.topology import LayerTable, from_rows

STEP = jnp.float32(0.125)


def table(*rows):
    """The given rows; columns that a row does not name are one, `mask=0` masks it."""
    full = [dict.fromkeys(LayerTable._fields, 1) | row for row in rows]
    mask = np.array([row.pop("mask") == 1 for row in full])
    return from_rows(full)._replace(mask=mask)


def spec(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def conv(x, kernel, stride=1, padding="SAME", **options):
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")} | options
    strides = (stride,) * (kernel.ndim - 2)
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


def weight(kernel, bits=8):
    return quantize(kernel, STEP, FixedPoint(bits=bits), stored="weight")


def bias(vector):
    return quantize(vector, STEP, FixedPoint(bits=16), stored="bias")[None]


def store(x, bits=8, stored="activation"):
    return quantize(x, STEP, FixedPoint(bits=bits), stored=stored)


def read_image(x):
    return store(x, 8, "input")


def max_pool(x, side=2):
    window = (1, side, side, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")


def assert_columns(table, **expected):
    for name, column in expected.items():
        found = getattr(table, name)
        assert found.dtype == (bool if name == "mask" else np.int32)
        np.testing.assert_array_equal(found, column, err_msg=name)


def assert_same_table(first, second):
    for name, one, other in zip(LayerTable._fields, first, second, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
