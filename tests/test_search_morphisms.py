"""Children are networks of the space, and inherit what both networks use."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from morphism_helpers import (
    COUNTS,
    EMPTY,
    FULL,
    KEY,
    NAMES,
    SPACE,
    WIDE,
    canonical,
    child_weights,
    layers,
    mutants,
    replaced,
    sampled,
    weights,
)
from search_helpers import assert_same

from jaxnas.networks.extents import extents, kernel_mask
from jaxnas.networks.space import BLOCK_GENES, INVERTED, STEM_GENES
from jaxnas.search.morphisms import SECOND_MUTATION
from jaxnas.search.pruning import salient_first

CHILDREN = 4000


def children_of(genotype, seed=0):
    keys = jax.random.split(jax.random.key(seed), CHILDREN)
    return np.asarray(mutants(keys, jnp.tile(genotype, (CHILDREN, 1))))


def as_set(genotypes):
    return set(map(tuple, np.asarray(genotypes).tolist()))


def neighbours(genotype):
    """By brute force: the networks one gene away, grouped by that gene."""
    changes = [(g, v) for g, count in enumerate(COUNTS) for v in range(count)]
    changed = np.tile(genotype, (len(changes), 1))
    for row, (gene, value) in zip(changed, changes, strict=True):
        row[gene] = value
    groups = {}
    for (gene, _), network in zip(changes, np.asarray(canonical(changed)), strict=True):
        if not np.array_equal(network, genotype):
            groups.setdefault(gene, set()).add(tuple(network.tolist()))
    return groups


def test_a_mutant_is_another_network_of_the_space():
    parents = np.tile(sampled(), (20, 1))
    children = mutants(jax.random.split(KEY, len(parents)), parents)
    children = np.asarray(children)
    assert children.dtype == np.int32
    assert np.all(children >= 0) and np.all(children < COUNTS[None, :])
    np.testing.assert_array_equal(canonical(children), children)
    same = np.all(children == parents, axis=1)
    # Only a second change that takes back the first one gives the parent.
    assert 0 < same.mean() < 0.05


def test_one_gene_changes_or_two():
    """All genes that matter are equally likely, and all other values of a gene."""
    groups = neighbours(FULL)
    children = children_of(FULL)
    found = list(map(tuple, children.tolist()))
    near = set().union(*groups.values())
    assert len(groups) > 20 and len(near) == sum(map(len, groups.values()))
    alone = CHILDREN * (1 - SECOND_MUTATION)
    assert alone * 0.95 < sum(child in near for child in found) < alone * 1.12
    counts = {child: found.count(child) for child in near}
    for group in groups.values():
        expected = alone / len(groups) / len(group)
        for child in group:
            assert abs(counts[child] - expected) < 5 * expected**0.5 + 0.15 * expected
    far = as_set(children) - near - as_set(FULL[None])
    reachable = set().union(*(as_set(children_of(jnp.array(n), 1)) for n in near))
    assert far and far <= reachable


def test_genes_without_effect_do_not_change_alone():
    """In the trivial network: three genes of the stem, three slots and the head."""
    changed = [np.flatnonzero(child != EMPTY) for child in children_of(EMPTY)]
    single = {genes[0] for genes in map(list, changed) if len(genes) == 1}
    assert {NAMES[gene] for gene in single} <= {*STEM_GENES, "weight_bits", "present"}
    assert {0, 1, 2, len(COUNTS) - 1} <= single


def insertions(parent, slot):
    """Genes by name of the blocks that children have more than their parent."""
    first = len(STEM_GENES) + slot * len(BLOCK_GENES)
    rows = slice(first, first + len(BLOCK_GENES))
    children = children_of(parent)
    others = np.delete(np.arange(len(parent)), np.r_[rows])
    alone = np.all(children[:, others] == np.asarray(parent)[others], axis=1)
    chosen = children[alone & (children[:, first] == 1)][:, rows]
    return dict(zip(BLOCK_GENES, chosen.T, strict=True))


def test_an_inserted_block_hands_on_its_map():
    """Shortcut, width and words are those of the map, and all else is drawn."""
    narrow = np.asarray(EMPTY).copy()
    narrow[STEM_GENES.index("activation_bits")] = 0
    for parent, bits in ((np.asarray(EMPTY), 1), (narrow, 0)):
        genes = insertions(parent, 0)
        # A second mutation may change any of them.
        for name, value in (("residual", 1), ("width", 0), ("activation_bits", bits)):
            assert np.mean(genes[name] == value) > 0.9
        free = ("operation", "kernel", "weight_bits")
        drawn = as_set(np.stack([genes[name] for name in free], axis=1))
        assert drawn == set(itertools.product(range(3), range(2), range(2)))
        assert set(genes["expansion"][genes["operation"] == INVERTED]) == {0, 1}


def test_behind_a_linear_block_stands_a_linear_one():
    parent = canonical(replaced(EMPTY, 0, present=1, operation=INVERTED, width=2)[None])
    genes = insertions(np.asarray(parent[0]), 2)
    assert np.mean(genes["operation"] == INVERTED) > 0.9
    assert np.mean(genes["width"] == 1) > 0.9 and np.mean(genes["residual"]) > 0.9


class Use(NamedTuple):
    """Which weights of a layer and which of its filters a genotype uses."""

    kernel: np.ndarray
    filters: np.ndarray


def uses(genotype):
    """One `Use` per layer, in the order of `layers`, and the head's inputs."""
    return jax.tree.map(np.asarray, _uses(jnp.asarray(genotype)))


@jax.jit
def _uses(genotype):
    active = extents(SPACE, genotype)
    shapes = [layer.kernel.shape for layer in layers(weights().params)]
    found = []
    for extent, shape in zip(layers(active), shapes, strict=True):
        filters = extent.used & (jnp.arange(shape[-1]) < extent.out_width)
        found.append(Use(kernel_mask(extent, shape), filters))
    inputs = jnp.arange(weights().params.head.kernel.shape[0])
    return found, inputs < active.head.in_width


def pairs():
    """Random networks with a child each; the last one is its own child."""
    parents = sampled()[:60]
    # In one batch with others, for the shape that is compiled already.
    keys = jax.random.split(jax.random.key(3), CHILDREN)
    children = np.array(mutants(keys, np.resize(parents, (CHILDREN, len(COUNTS)))))
    children = children[: len(parents)]
    children[-1] = parents[-1]
    return zip(parents, children, strict=True)


@jax.jit
def salient(parent, child):
    return salient_first(SPACE, parent, child, weights())


def test_a_child_keeps_what_both_networks_use():
    seen = 0
    for parent, child in pairs():
        found = child_weights(KEY, parent, child, weights())
        (before, inputs_before), (after, inputs_after) = uses(parent), uses(child)
        start, end = jax.device_get((salient(parent, child), found))
        trees = start.params, end.params, start.statistics, end.statistics
        for had, has, old, new, *statistics in zip(
            before, after, *map(layers, trees), strict=True
        ):
            both = had.kernel & has.kernel
            np.testing.assert_array_equal(new.kernel[both], old.kernel[both])
            seen += both.any()
            for name in ("gain", "offset"):
                a, b = getattr(old, name), getattr(new, name)
                np.testing.assert_array_equal(b[had.filters], a[had.filters])
            for a, b in zip(*statistics, strict=True):
                np.testing.assert_array_equal(b[had.filters], a[had.filters])
        rows = inputs_before & inputs_after
        head, old = end.params.head, start.params.head
        np.testing.assert_array_equal(head.kernel[rows], old.kernel[rows])
        np.testing.assert_array_equal(head.bias, old.bias)
    assert seen > 100


def test_new_weights_are_zero_in_old_filters_and_random_in_new_ones():
    """New filters start with neutral normalisation, or silent behind a shortcut."""
    seen = dict.fromkeys(("grown", "new", "silent", "head"), 0)
    for parent, child in pairs():
        found = jax.device_get(child_weights(KEY, parent, child, weights()))
        (before, inputs_before), (after, inputs_after) = uses(parent), uses(child)
        trees = found.params, found.statistics
        for had, has, new, statistics in zip(
            before, after, *map(layers, trees), strict=True
        ):
            grown = has.kernel & ~had.kernel & had.filters[None, None, None, :]
            assert np.all(new.kernel[grown] == 0)
            added = has.filters & ~had.filters
            assert np.all(new.kernel[has.kernel & added[None, None, None, :]] != 0)
            assert np.all(statistics.mean[added] == 0)
            assert np.all(statistics.variance[added] == 1)
            assert np.all(new.offset[added] == 0)
            assert np.all(np.isin(new.gain[added], (0, 1)))
            silent = np.any(new.gain[added] == 0)
            for name, times in (("grown", grown.any()), ("new", added.any())):
                seen[name] += times
            seen["silent"] += silent
        rows = inputs_after & ~inputs_before
        assert np.all(found.params.head.kernel[rows] == 0)
        seen["head"] += rows.any()
    assert min(seen.values()) >= 3, seen


def test_new_filters_depend_on_the_key():
    parent, child = EMPTY, replaced(EMPTY, 0, present=1, **WIDE)
    first, again, other = (
        child_weights(jax.random.key(seed), parent, child, weights())
        .params.stages[0]
        .spatial
        for seed in (0, 0, 1)
    )
    assert_same(first, again)
    assert not np.array_equal(first.kernel, other.kernel)
