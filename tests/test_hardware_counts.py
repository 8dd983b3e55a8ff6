"""Counts beyond 2**24: exact on the host, as Python counts them."""

import numpy as np
import pytest
from hardware_helpers import layers, random_layers

from jaxnas.hardware import (
    DATAFLOWS,
    SystolicArray,
    cycles,
    exact_cycles,
    exact_sram_words,
    sram_words,
)

CHANNELS = [(3, 64), (64, 64), None, (64, 128), (128, 128), None, (128, 256)]
CHANNELS += [*[(256, 256)] * 2, None, (256, 512), *[(512, 512)] * 2, None]
CHANNELS += [(512, 512)] * 3


def vgg16():
    """VGG-16 for 224 x 224 images (Simonyan & Zisserman, 2015, configuration D)."""
    side, rows = 224, []
    for pair in CHANNELS:
        if pair is None:
            side //= 2
            continue
        rows.append((*pair, side, 3))
    rows += [(512 * 7 * 7, 4096, 1, 1), (4096, 4096, 1, 1), (4096, 1000, 1, 1)]
    inputs, outputs, side, kernel = np.array(rows).T
    maps = dict(out_height=side, out_width=side)
    return layers(
        in_channels=inputs,
        out_channels=outputs,
        kernel_height=kernel,
        kernel_width=kernel,
        **maps,
    )


@pytest.mark.parametrize("dataflow", [*DATAFLOWS, "best"])
def test_cycles_of_vgg16_as_python_counts_them(dataflow):
    table = vgg16()
    array = SystolicArray(rows=4, columns=3, dataflow=dataflow)
    expected = []
    for i in range(len(table.mask)):
        pixels = int(table.out_height[i]) * int(table.out_width[i])
        inputs = int(table.in_channels[i]) * int(table.kernel_height[i]) ** 2
        outputs = int(table.out_channels[i])
        spent = {
            "os": -(-pixels // 4) * -(-outputs // 3) * (inputs + 4 + 3 - 2),
            "ws": -(-inputs // 4) * -(-outputs // 3) * (pixels + 8 + 3 - 2),
            "is": -(-inputs // 4) * -(-pixels // 3) * (outputs + 8 + 3 - 2),
        }
        expected.append(spent.get(dataflow, min(spent.values())))
    found = exact_cycles(table, array)
    assert found.dtype == np.int64 and found.tolist() == expected
    assert max(expected) > 2**24


@pytest.mark.parametrize("convention", ["scalesim", "realistic"])
def test_small_counts_are_those_of_float32(convention):
    table = random_layers(0, (3, 50), largest=9)
    array = SystolicArray(rows=9, columns=20, dataflow="best", convention=convention)
    exact = exact_cycles(table, array)
    np.testing.assert_allclose(exact, cycles(table, array), rtol=3e-7)
    words = zip(exact_sram_words(table, array), sram_words(table, array), strict=True)
    for one, other in words:
        np.testing.assert_allclose(one, other, rtol=3e-7)


def test_counts_beyond_64_bits_are_refused():
    side = 2**15
    huge = layers(out_height=side, out_width=side, in_channels=2**30, out_channels=8)
    with pytest.raises(ValueError, match="layer of about 2.95e.20 operations, expect"):
        exact_cycles(huge, SystolicArray())
