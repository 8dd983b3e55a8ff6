"""Exact morphisms: on 200 random parents of every kind the child answers as before."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from morphism_helpers import (
    COUNTS,
    EMPTY,
    FULL,
    KEY,
    SPACE,
    canonical,
    mutants,
    replaced,
    sampled,
    weights,
)
from search_helpers import train_set

from jaxnas.networks import space as spaces
from jaxnas.networks import supernet
from jaxnas.networks.extents import Block, Network, extents
from jaxnas.networks.layers import FLOAT, LayerStatistics
from jaxnas.networks.space import BLOCK_GENES, CONVOLUTION, INVERTED, STEM_GENES
from jaxnas.search.morphisms import inherit
from jaxnas.search.pruning import salient_first

PARENTS = 200
NETWORKS = 1600
FIXED = "fixed_point"


@functools.partial(jax.jit, static_argnames="scheme")
def _answers(genotypes, weights, images, scheme):
    def one(member):
        genotype, weights = member
        return supernet.apply(SPACE, *weights, genotype, images, schemes=(scheme,))[0]

    return jax.lax.map(one, (genotypes, weights))


def answers(genotypes, weights, scheme=FIXED):
    """Logits `[PARENTS, images, classes]`; weights have that leading axis, too."""
    images = train_set()[0][:8]
    return np.asarray(_answers(jnp.asarray(genotypes), weights, images, scheme))


def repeated(tree):
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (PARENTS, *leaf.shape)), tree
    )


@jax.jit
def _inherited(keys, parents, children, weights):
    def one(member):
        return inherit(member[0], SPACE, *member[1:], weights)

    return jax.lax.map(one, (keys, parents, children))


class Parent(NamedTuple):
    genotype: np.ndarray
    one: spaces.Architecture | None

    def gene(self, slot, name):
        row = len(STEM_GENES) + slot * len(BLOCK_GENES)
        return int(self.genotype[row + BLOCK_GENES.index(name)])

    def shortcut_after(self, slot):
        """Whether the first block present behind a slot (-1 is the stem) has one."""
        behind = np.flatnonzero(self.one.present[slot + 1 :]) + slot + 1
        return len(behind) > 0 and bool(self.one.residual[behind[0]])


@functools.cache
def parents():
    decode = jax.jit(jax.vmap(lambda genotype: spaces.decode(SPACE, genotype)))
    found = jax.tree.map(np.asarray, decode(sampled(NETWORKS)))
    rows = zip(sampled(NETWORKS), zip(*found, strict=True), strict=True)
    return [Parent(row, spaces.Architecture(*one)) for row, one in rows]


def widened(parent):
    stem = parent.genotype[0]
    if stem + 1 < COUNTS[0] and not parent.shortcut_after(-1):
        yield np.concatenate([[stem + 1], parent.genotype[1:]])
    for slot in np.flatnonzero(parent.one.present):
        width = parent.gene(slot, "width")
        limit = len(SPACE.stages[SPACE.stage_of_slot[slot]].widths)
        if width + 1 < limit and not parent.shortcut_after(slot):
            yield replaced(parent.genotype, slot, width=width + 1)


def larger(gene, parent):
    for slot in np.flatnonzero(parent.one.present):
        relevant = gene == "kernel" or parent.one.operation[slot] == INVERTED
        if relevant and parent.gene(slot, gene) == 0:
            yield replaced(parent.genotype, slot, **{gene: 1})


@functools.cache
def drawn_insertions():
    """Children of `mutate` that differ within one slot, absent before; by parent."""
    keys = jax.random.split(KEY, 4 * NETWORKS)
    start = np.tile(sampled(NETWORKS), (4, 1))
    found = {}
    for parent, child in zip(start, np.asarray(mutants(keys, start)), strict=True):
        changes = np.flatnonzero(parent != child)
        slots = set((changes - len(STEM_GENES)) // len(BLOCK_GENES))
        if len(slots) == 1 and 0 <= min(slots) < SPACE.slots:
            found.setdefault(tuple(parent), []).append((min(slots), child))
    return found


def inserted(parent):
    for slot, child in drawn_insertions().get(tuple(parent.genotype), ()):
        if not parent.one.present[slot] and hands_on(parent.one, slot, child):
            yield child


def hands_on(one, slot, child):
    """Whether no second mutation took the block's shortcut, width, sign or words."""
    source = one.source[slot]
    bits = [one.stem_activation_bits, *one.activation_bits][source]
    linear = source > 0 and one.operation[source - 1] == INVERTED
    widths = SPACE.stages[SPACE.stage_of_slot[slot]].widths
    least = sum(width < one.in_width[slot] for width in widths)
    block = Parent(child, None)
    genes = {name: block.gene(slot, name) for name in BLOCK_GENES}
    expected = {"residual": 1, "width": least, "activation_bits": bits}
    expected |= {"operation": INVERTED} if linear else {}
    return all(genes[name] == value for name, value in expected.items())


def narrowed(parent):
    """Narrower maps that lose no shortcut for it."""
    stem = parent.genotype[0]
    if stem:
        yield np.concatenate([[stem - 1], parent.genotype[1:]])
    for slot in np.flatnonzero(parent.one.present):
        width = parent.gene(slot, "width")
        widths = SPACE.stages[SPACE.stage_of_slot[slot]].widths
        tied = parent.one.residual[slot]
        if width and (not tied or widths[width - 1] >= parent.one.in_width[slot]):
            yield replaced(parent.genotype, slot, width=width - 1)


def shortened(parent):
    """Shortcuts around convolutions, which subtract what these add."""
    one = parent.one
    wide = one.present & ~one.residual & (one.out_width >= one.in_width)
    for slot in np.flatnonzero(wide & (one.operation == CONVOLUTION)):
        yield replaced(parent.genotype, slot, residual=1)


PRESERVING = {
    "same": lambda parent: [parent.genotype],
    "widen": widened,
    "kernel": functools.partial(larger, "kernel"),
    "expansion": functools.partial(larger, "expansion"),
    "insert": inserted,
}
FLOATING = PRESERVING | {"skip": shortened}
CHANGES = FLOATING | {"narrow": narrowed}


@functools.cache
def pairs(morphism):
    """`PARENTS` random parents to which a morphism applies, and a child of each."""
    found = []
    for number, parent in enumerate(parents()):
        children = list(CHANGES[morphism](parent))
        if children:
            found.append((parent.genotype, children[number % len(children)]))
    start, end = map(np.stack, zip(*found[:PARENTS], strict=True))
    assert len(start) == PARENTS
    return start, end


@functools.cache
def inherited(morphism):
    keys = jax.random.split(KEY, PARENTS)
    return _inherited(keys, *pairs(morphism), weights())


@pytest.mark.parametrize("morphism", FLOATING)
def test_the_child_answers_in_floats_as_its_parent(morphism):
    parents, children = pairs(morphism)
    np.testing.assert_array_equal(canonical(children), children)
    expected = answers(parents, repeated(weights()), FLOAT)
    found = answers(children, inherited(morphism), FLOAT)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.all(np.ptp(expected.reshape(PARENTS, -1), axis=1) > 1e-3)


def signed(genotypes):
    """Whether a network has an inserted or other linear block, `[networks, slots]`."""
    rows = genotypes[:, len(STEM_GENES) : -1].reshape(len(genotypes), SPACE.slots, -1)
    return rows[:, :, BLOCK_GENES.index("operation")] == INVERTED


@pytest.mark.parametrize("morphism", PRESERVING)
def test_the_child_answers_in_words_as_its_parent(morphism):
    """Bit for bit. A linear block stores signs, so one that is inserted behind a
    rectified map has half as many words for it: there the answers move."""
    parents, children = pairs(morphism)
    expected = answers(parents, repeated(weights()))
    found = answers(children, inherited(morphism))
    same = np.all(found == expected, axis=(1, 2))
    coarser = np.any(signed(children) & ~signed(parents), axis=1)
    assert np.all(same | coarser)
    assert morphism == "insert" or not coarser.any()
    assert same.sum() >= PARENTS // 2


def error_in_words(of_children):
    """The largest change of a logit over the range of all logits, `[PARENTS]`."""
    parents, children = pairs("skip")
    expected = answers(parents, repeated(weights()))
    change = np.abs(answers(children, of_children) - expected).max(axis=(1, 2))
    return change / np.ptp(expected.reshape(PARENTS, -1), axis=1)


def test_a_shortcut_moves_answers_in_words_by_little():
    """The taps that subtract it are words, too; without them it moves them far more."""
    left_alone = np.median(error_in_words(repeated(weights())))
    median = np.median(error_in_words(inherited("skip")))
    assert 0 < median < 0.05
    assert median < left_alone / 5


@jax.jit
def _reordered(parents, children, weights):
    def one(member):
        return salient_first(SPACE, *member, weights)

    return jax.lax.map(one, (parents, children))


def test_channels_change_places_without_changing_an_answer():
    """Before a map narrows its parent's most salient channels move to the front."""
    parents, children = pairs("narrow")
    moved = _reordered(parents, children, weights())
    old, new = repeated(weights()).params, moved.params
    assert np.any(new.stem.gain != old.stem.gain, axis=1).sum() > 20
    assert np.any(new.head.kernel != old.head.kernel, axis=(1, 2)).sum() > 20
    expected = answers(parents, repeated(weights()))
    np.testing.assert_array_equal(answers(parents, moved), expected)


def littered(genotype):
    """The weights with extreme statistics wherever the genotype uses no filter."""

    def litter(extent, statistics):
        outputs = np.arange(statistics.mean.shape[-1])
        inside = outputs < np.asarray(extent.out_width)[..., None]
        used = inside & np.asarray(extent.used)[..., None]
        mean = jnp.where(used, statistics.mean, 1e3)
        return LayerStatistics(mean, jnp.where(used, statistics.variance, 0.0))

    active, statistics = extents(SPACE, genotype), weights().statistics
    stages = [
        Block(*map(litter, *stage))
        for stage in zip(active.stages, statistics.stages, strict=True)
    ]
    stem = litter(active.stem, statistics.stem)
    return weights()._replace(statistics=Network(stem, tuple(stages), ()))


@pytest.mark.parametrize("genotype", [EMPTY, FULL], ids=["empty", "full"])
def test_what_unused_filters_hold_does_not_matter(genotype):
    """A network that narrowed leaves statistics behind that nothing moves any more."""
    same = repeated(genotype)
    found = answers(same, repeated(littered(genotype)))
    np.testing.assert_array_equal(found, answers(same, repeated(weights())))
