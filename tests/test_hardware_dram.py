"""Laws of DRAM traffic on a million random layers, and what stays on the chip."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hardware_helpers import layers, padded, random_layers

from jaxnas.hardware import DATAFLOWS, Accelerator, cycles, dram_bytes, dram_words
from jaxnas.hardware.dram import kept
from jaxnas.hardware.energy import energy_parts
from jaxnas.hardware.systolic import sram_words
from jaxnas.hardware.windows import windows
from jaxnas.topology import macs, output_elements, products, stack, weights

NETWORKS, LAYERS = 380_000, 8  # of which less than half multiply


def violations(table, small, large):
    """Layers of one network that break each law; `large` has the larger buffers."""
    works = products(table).mask
    tolerance = 1 + 1e-5  # float32 counts beyond 2**24 are rounded
    padded = small.convention == "scalesim"
    moved, spent = dram_words(table, small), cycles(table, small)
    stays = kept(table, small)
    stays = jax.tree.map(lambda flag: flag & (not padded), stays)
    read = jnp.maximum(table.groups, 1) * windows(table, padded=padded).words
    more, less = (dram_bytes(table, hardware) for hardware in (small, large))
    positive = (*moved, *more, spent, *sram_words(table, small))
    positive = jnp.stack([*positive, *energy_parts(table, small)])

    def below(found, bound):
        return jnp.sum(works & (found * tolerance < bound))

    return {
        "negative": jnp.sum(~(positive >= 0)),
        "of nothing": jnp.sum(~works[None] & (positive > 0)),
        "cycles": below(spent * small.rows * small.columns, macs(table)),
        "operand": below(moved.operand_reads, jnp.where(stays.operand, 0, read)),
        "weights": below(moved.weight_reads, weights(table)),
        "results": below(
            moved.output_writes, jnp.where(stays.result, 0, output_elements(table))
        ),
        "memory": sum(below(a, b) for a, b in zip(more, less, strict=True)),
    }


@pytest.fixture(scope="module")
def million():
    """A million layers, each network with two accelerators of its own."""
    draw = np.random.default_rng(1).integers
    sizes, grown = {}, {}
    for name in ("operand", "weight", "output"):
        sizes[f"{name}_sram_bytes"] = 2 ** draw(0, 18, NETWORKS).astype(np.int32)
        growth = draw(1, 9, NETWORKS).astype(np.int32)
        grown[f"{name}_sram_bytes"] = sizes[f"{name}_sram_bytes"] * growth
    sides = {s: draw(1, 65, NETWORKS).astype(np.int32) for s in ("rows", "columns")}
    return random_layers(2, (NETWORKS, LAYERS)), sides | sizes, sides | grown


def broken(million, **options):
    table, small, large = million
    pair = [Accelerator(**options).replace(**sizes) for sizes in (small, large)]
    count = jax.jit(lambda *given: jax.tree.map(jnp.sum, jax.vmap(violations)(*given)))
    return {name: int(n) for name, n in count(table, *pair).items() if n}


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_no_layer_of_a_million_breaks_a_law(million, dataflow):
    assert products(million[0]).mask.sum() >= 10**6
    assert broken(million, dataflow=dataflow, convention="realistic") == {}


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_the_simulator_breaks_only_the_law_of_larger_buffers(million, dataflow):
    # Weights that just do not fit cost once more what the buffer took before its flush,
    # which grows with the buffer; results: see test_hardware_flushed_buffers.
    found = broken(million, dataflow=dataflow, convention="scalesim")
    assert set(found) <= {"memory"}


CHAIN = dict(
    in_height=4,
    in_width=4,
    in_channels=8,
    out_height=4,
    out_width=4,
    out_channels=8,
    weight_bits=8,
    bias_bits=16,
    input_bits=8,
    output_bits=8,
    read_bits=1024,
)


def chain(live, mask):
    one = layers(**CHAIN | dict(live_bits=live))
    return padded(one._replace(mask=np.array(mask) == 1))


def test_a_map_stays_between_two_layers_that_both_fit_masked_rows_between():
    table = chain([2048, 1, 2048, 1, 9999, 2048, 2048], [1, 0, 1, 0, 1, 1, 1])
    stays = kept(table, Accelerator(operand_sram_bytes=200, output_sram_bytes=56))
    np.testing.assert_array_equal(stays.operand, [0, 0, 1, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(stays.result, [1, 0, 0, 0, 0, 1, 0, 0])


def test_what_stays_is_not_moved_and_all_else_is_once():
    table = chain([2048] * 3, [1, 1, 1])
    large = Accelerator(dataflow="ws")
    found = dram_bytes(table, large)
    np.testing.assert_array_equal(found.operand[:3], [128, 0, 0])
    np.testing.assert_array_equal(found.output[:3], [0, 0, 128])
    np.testing.assert_array_equal(found.weight[:3], [64 + 8 * 2] * 3)
    assert found.total == 128 + 128 + 3 * 80


def test_a_shortcut_is_read_again_unless_it_stays():
    table = chain([2048 + 1024] * 2, [1, 1])
    table = table._replace(read_bits=table.read_bits + np.int32([0, 1024] + 6 * [0]))
    fits, spills = (
        dram_bytes(table, Accelerator(operand_sram_bytes=n, output_sram_bytes=0))
        for n in (384, 383)
    )
    np.testing.assert_array_equal(fits.operand[:2], [128, 0])
    np.testing.assert_array_equal(spills.operand[:2], [128, 256])


def test_partial_sums_are_written_and_read_back_as_they_do_not_fit():
    # 16 pixels, 8 outputs on two columns, a fan-in of 8 in four folds of two rows.
    table = chain([2**20], [1])
    array = dict(rows=2, columns=2, dataflow="ws", partial_sum_bits=32)
    at_once = 16 * 2 * 4
    fits = dram_words(table, Accelerator(output_sram_bytes=at_once, **array))
    spills = dram_words(table, Accelerator(output_sram_bytes=at_once - 1, **array))
    assert fits.partial_sums[0] == 0 and spills.partial_sums[0] == (2 * 4 - 2) * 128
    assert fits.output_writes[0] == spills.output_writes[0] == 128


def test_words_are_packed_or_take_whole_bytes():
    table = chain([2**20], [1])._replace(weight_bits=np.int32(8 * [3]))
    packed, whole = (
        dram_bytes(table, Accelerator(packed=flag)).weight[0] - 16
        for flag in (True, False)
    )
    assert (packed, whole) == (64 * 3 / 8, 64)


def test_traffic_is_the_same_eager_jitted_vmapped_and_with_leading_axes():
    count = partial(dram_bytes, hardware=Accelerator(dataflow="best"))
    tables = [random_layers(seed, (8,)) for seed in range(2)]
    expected = np.stack([np.stack(count(table)) for table in tables], axis=1)
    for form in (jax.vmap(count), count):
        found = jax.jit(form)(stack(tables))
        np.testing.assert_allclose(np.stack(found), expected, rtol=1e-6)
