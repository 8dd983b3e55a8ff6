"""Children are networks of the space; what they inherit computes what it did before."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from search_helpers import assert_same, genotype_of, train_set

from jaxnas.networks import space as spaces
from jaxnas.networks import supernet
from jaxnas.networks.extents import Block, Network, extents, kernel_mask
from jaxnas.networks.layers import HeadParams, LayerParams, LayerStatistics
from jaxnas.networks.space import (
    BLOCK_GENES,
    CONVOLUTION,
    INVERTED,
    SEPARABLE,
    STEM_GENES,
    SearchSpace,
    Stage,
)
from jaxnas.search.morphisms import SECOND_MUTATION, inherit, mutate
from jaxnas.training import initial_weights

SPACE = SearchSpace(
    image=(8, 8, 1),
    classes=10,
    stages=(Stage(widths=(2, 4, 6), blocks=2), Stage(widths=(4, 6), blocks=1)),
)
KEY = jax.random.key(11)
COUNTS = spaces.cardinalities(SPACE)
NAMES = [*STEM_GENES, *BLOCK_GENES * SPACE.slots, "weight_bits"]
WIDE = {"weight_bits": 1, "activation_bits": 1}
FULL = genotype_of(
    SPACE,
    {"operation": INVERTED, "width": 1, "residual": 1, "expansion": 1} | WIDE,
    {"operation": CONVOLUTION, "kernel": 1, "width": 0, "weight_bits": 1},
    {"operation": SEPARABLE, "width": 1, "residual": 1} | WIDE,
)
EMPTY = spaces.smallest(SPACE)


@functools.cache
def sampled(count=200):
    keys = jax.random.split(KEY, count)
    draw = jax.jit(jax.vmap(lambda key: spaces.sample(key, SPACE)))
    return np.asarray(draw(keys))


@jax.jit
@jax.vmap
def canonical(genotypes):
    return spaces.canonical(SPACE, genotypes)


@jax.jit
@functools.partial(jax.vmap, in_axes=(0, 0))
def mutants(key, genotype):
    return mutate(key, SPACE, genotype)


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


def test_an_inserted_block_is_any_block_with_a_shortcut():
    first = len(STEM_GENES)
    rows = slice(first, first + len(BLOCK_GENES))
    children = children_of(EMPTY)
    inserted = children[(children[:, first] == 1) & (children[:, -9] == 0)]
    inserted = inserted[:, rows][inserted[:, 0] == EMPTY[0]]
    genes = dict(zip(BLOCK_GENES, inserted.T, strict=True))
    assert np.mean(genes["residual"]) > 0.9
    free = ("operation", "kernel", "width", "weight_bits", "activation_bits")
    drawn = as_set(np.stack([genes[name] for name in free], axis=1))
    sizes = [COUNTS[first + BLOCK_GENES.index(name)] for name in free]
    assert drawn == set(itertools.product(*map(range, sizes)))
    assert set(genes["expansion"][genes["operation"] == INVERTED]) == {0, 1}


@functools.cache
def weights():
    """What a training may leave, in used and in unused entries alike."""
    rng = np.random.default_rng(0)

    def normal(like, scale):
        return jnp.asarray(scale * rng.normal(size=like.shape), jnp.float32)

    def uniform(like):
        return jnp.asarray(rng.uniform(0.3, 2, like.shape), jnp.float32)

    def leave(layer):
        if isinstance(layer, HeadParams):
            return layer._replace(bias=normal(layer.bias, 0.3))
        if isinstance(layer, LayerStatistics):
            return LayerStatistics(normal(layer.mean, 0.5), uniform(layer.variance))
        gain = uniform(layer.gain) * jnp.sign(normal(layer.gain, 1))
        return layer._replace(gain=gain, offset=normal(layer.offset, 0.5))

    return jax.tree.map(leave, initial_weights(KEY, SPACE), is_leaf=is_layer)


def is_layer(node):
    return isinstance(node, HeadParams | LayerParams | LayerStatistics)


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


@jax.jit
def _child_weights(key, parent, child, weights):
    return inherit(key, SPACE, parent, child, weights)


def child_weights(parent, child, key=KEY):
    return _child_weights(key, jnp.asarray(parent), jnp.asarray(child), weights())


@jax.jit
def _answers(genotype, weights):
    images, fixed = train_set()[0][:8], ("fixed_point",)
    return supernet.apply(SPACE, *weights, genotype, images, schemes=fixed)[0]


def answers(genotype, weights):
    return np.asarray(_answers(jnp.asarray(genotype), weights))


def genes_of(genotype, slot):
    row = np.asarray(spaces.block_genes(SPACE, jnp.asarray(genotype)))[slot]
    return dict(zip(BLOCK_GENES, row.tolist(), strict=True))


def replaced(genotype, slot, **genes):
    changed = np.array(genotype)
    for name, value in genes.items():
        changed[len(STEM_GENES) + slot * len(BLOCK_GENES) + BLOCK_GENES.index(name)] = (
            value
        )
    return changed


def describe(genotype):
    return spaces.describe(SPACE, jnp.asarray(genotype, jnp.int32))


def decoded(genotype):
    return jax.tree.map(np.asarray, spaces.decode(SPACE, jnp.asarray(genotype)))


def shortcut_after(genotype, slot):
    """Whether the first block present behind a slot (-1 is the stem) has a shortcut."""
    one = decoded(genotype)
    behind = np.flatnonzero(one.present[slot + 1 :]) + slot + 1
    return len(behind) > 0 and bool(one.residual[behind[0]])


def widened(parent):
    one = decoded(parent)
    if parent[0] + 1 < COUNTS[0] and not shortcut_after(parent, -1):
        yield np.concatenate([[parent[0] + 1], parent[1:]])
    for slot in np.flatnonzero(one.present):
        width = genes_of(parent, slot)["width"]
        limit = len(SPACE.stages[SPACE.stage_of_slot[slot]].widths)
        if width + 1 < limit and not shortcut_after(parent, slot):
            yield replaced(parent, slot, width=width + 1)


def larger(parent, gene):
    one = decoded(parent)
    for slot in np.flatnonzero(one.present):
        relevant = gene == "kernel" or one.operation[slot] == INVERTED
        if relevant and genes_of(parent, slot)[gene] == 0:
            yield replaced(parent, slot, **{gene: 1})


def inserted(parent):
    """Rectified blocks with a shortcut, in the words of the rectified map before."""
    one = decoded(parent)
    producers = [(np.int32(0), one.stem_activation_bits)]
    producers += list(zip(one.operation, one.activation_bits, strict=True))
    for slot in np.flatnonzero(~one.present):
        operation, bits = producers[one.source[slot]]
        if operation == INVERTED:
            continue
        widths = SPACE.stages[SPACE.stage_of_slot[slot]].widths
        for kind, (index, width) in itertools.product((0, 1), enumerate(widths)):
            grows = width > one.in_width[slot]
            if width >= one.in_width[slot] and not (
                grows and shortcut_after(parent, slot)
            ):
                yield replaced(
                    parent,
                    slot,
                    present=1,
                    operation=(CONVOLUTION, SEPARABLE)[kind],
                    kernel=index % 2,
                    width=index,
                    residual=1,
                    weight_bits=kind,
                    activation_bits=int(bits),
                )


PRESERVING = {
    "same": lambda parent: [parent],
    "widen": widened,
    "kernel": lambda parent: larger(parent, "kernel"),
    "expansion": lambda parent: larger(parent, "expansion"),
    "insert": inserted,
}


@pytest.mark.parametrize("morphism", PRESERVING)
def test_the_child_answers_as_its_parent(morphism):
    """In fixed-point words, bit for bit."""
    pairs = 0
    for number, parent in enumerate(sampled()):
        expected = None
        for child in itertools.islice(PRESERVING[morphism](parent), 3):
            expected = answers(parent, weights()) if expected is None else expected
            np.testing.assert_array_equal(canonical(child[None])[0], child)
            key = jax.random.fold_in(KEY, number)
            found = answers(child, child_weights(parent, child, key))
            message = f"{describe(parent)} -> {describe(child)}"
            np.testing.assert_array_equal(found, expected, err_msg=message)
            pairs += 1
        if pairs >= 60:
            break
    assert pairs >= 40


def layers(tree):
    """The layers of a supernet tree, one per block slot, the head left out."""
    yield tree.stem
    for block in tree.stages:
        for layer in block:
            for slot in range(layer[0].shape[0]):
                yield jax.tree.map(lambda leaf: leaf[slot], layer)  # noqa: B023


def pairs():
    """Random networks with a child each; the last one is its own child."""
    parents = sampled()[:60]
    # In one batch with others, for the shape that is compiled already.
    keys = jax.random.split(jax.random.key(3), CHILDREN)
    children = np.array(mutants(keys, np.resize(parents, (CHILDREN, len(COUNTS)))))
    children = children[: len(parents)]
    children[-1] = parents[-1]
    return zip(parents, children, strict=True)


def test_a_child_keeps_what_both_networks_use():
    seen = 0
    for parent, child in pairs():
        found = child_weights(parent, child)
        (before, inputs_before), (after, inputs_after) = uses(parent), uses(child)
        start, end = jax.device_get((weights(), found))
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
        found = jax.device_get(child_weights(parent, child))
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
        child_weights(parent, child, jax.random.key(seed)).params.stages[0].spatial
        for seed in (0, 0, 1)
    )
    assert_same(first, again)
    assert not np.array_equal(first.kernel, other.kernel)


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
    found = answers(genotype, littered(genotype))
    np.testing.assert_array_equal(found, answers(genotype, weights()))
