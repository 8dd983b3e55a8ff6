"""DRAM words of the simulator: its own results, and a replay of its buffers."""

from functools import partial

import jax
import numpy as np
import pytest
from hardware_helpers import (
    layers,
    misses,
    operand_stream,
    random_layers,
    simulations,
    weight_stream,
)
from scipy import stats

from jaxnas.hardware import DATAFLOWS, Accelerator, dram_words


@pytest.fixture(scope="module")
def simulated(shared):
    """Found and expected words `[parts, layers]` of all simulations."""
    found, expected = [], []
    for dataflow in DATAFLOWS:
        path = shared("truth/scalesim.csv")
        table, (hardware, truth) = simulations(path, dataflow)
        # The simulator's operands are given with their padding.
        count = jax.jit(jax.vmap(partial(dram_words, padded=False)))
        words = np.stack([part[:, 0] for part in count(table, hardware)[:3]])
        found.append(words)
        names = ("dram_ifmap_reads", "dram_filter_reads", "dram_ofmap_writes")
        expected.append(np.stack([truth[name] for name in names]))
    return np.concatenate(found, axis=1), np.concatenate(expected, axis=1)


def test_weights_and_results_equal_the_simulator_in_every_row(simulated):
    found, expected = simulated
    assert found.shape[1] > 400
    np.testing.assert_array_equal(found[1:], expected[1:])


def test_totals_are_within_a_percent_of_the_simulator_and_ranked_as_there(simulated):
    found, expected = (words.sum(axis=0) for words in simulated)
    error = np.abs(found / expected - 1)
    assert error.mean() <= 0.01 and np.mean(error == 0) >= 0.75
    assert stats.spearmanr(found, expected).statistic >= 0.999


SMALL = dict(rows=5, columns=3, convention="scalesim", packed=True)


def replayed(stream, dataflow, sizes=(200, 700, 1500), count=24):
    """Words of small random layers, by the closed form and by replay."""
    tables = random_layers(0, (count, 1), largest=5)
    ones = 1 + 0 * tables.groups
    columns = dict.fromkeys(("input_bits", "weight_bits"), 8 * ones)
    columns |= dict.fromkeys(("kind", "dilation_height", "dilation_width"), ones)
    tables = tables._replace(mask=ones > 0, **columns)
    found, expected = [], []
    for size in sizes:
        memory = dict(operand_sram_bytes=size, weight_sram_bytes=size)
        hardware = Accelerator(dataflow=dataflow, **memory, **SMALL)
        found.append(dram_words(tables, hardware))
        for index in range(count):
            table = jax.tree.map(lambda column, i=index: column[i], tables)
            read = misses(stream(table, hardware), 50 * (size // 100))
            expected.append(read * int(table.groups[0]))
    return found, np.array(expected).reshape(len(sizes), count)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_weights_equal_a_replay_of_the_buffer(dataflow):
    found, expected = replayed(weight_stream, dataflow)
    words = np.stack([one.weight_reads[:, 0] for one in found])
    np.testing.assert_array_equal(words, expected)
    assert dataflow == "ws" or np.ptp(expected, axis=0).any()


@pytest.mark.parametrize(
    ("dataflow", "error"), [("os", 0.03), ("ws", 0.15), ("is", 0.03)]
)
def test_operands_are_near_a_replay_of_the_buffer(dataflow, error):
    found, expected = replayed(operand_stream, dataflow)
    words = np.stack([one.operand_reads[:, 0] for one in found])
    errors = np.abs(words / expected - 1)
    assert errors.mean() <= error
    # A buffer that is never full reads every word once.
    streams = replayed(operand_stream, dataflow, sizes=(10**7,))
    np.testing.assert_array_equal(streams[0][0].operand_reads[:, 0], streams[1][0])


def test_a_larger_buffer_of_the_simulator_may_move_more():
    # Its last drained line is written in full where lines fill half a memory evenly.
    layer = layers(out_height=40, out_width=40, output_bits=8)
    common = dict(rows=8, columns=8, convention="scalesim")
    small, large = (
        dram_words(layer, Accelerator(output_sram_bytes=size, **common)).output_writes
        for size in (1000 - 2, 1024)
    )
    assert large[0] == small[0] + 7
