"""The supernet: one program, of which a genotype uses its part and nothing else."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_helpers import (
    SPACE,
    active_masks,
    digits,
    genotypes,
    is_node,
    random_weights,
    run_supernet,
)

from jaxnas.networks import space as spaces
from jaxnas.networks import supernet
from jaxnas.networks.materialize import materialize, network_spec
from jaxnas.networks.space import SearchSpace, Stage

FIRST_STAGE = dataclasses.replace(SPACE, stages=SPACE.stages[:1])
"""For training: half of `SPACE`, since derivatives take long to compile."""
MINI = SearchSpace(
    image=(4, 4, 1),
    classes=2,
    stages=(Stage(widths=(1, 2), blocks=1),),
    kernels=(3,),
    expansions=(2,),
    word_bits=(8,),
)


def assert_trees_equal(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(one, other)


# Initial weights


def wide_space():
    stages = Stage(widths=(32,), blocks=2), Stage(widths=(48,), blocks=1)
    return SearchSpace(image=(8, 8, 3), classes=10, stages=stages)


def test_kernels_are_large_enough_for_every_choice():
    shapes = supernet.kernel_shapes(SPACE)
    assert shapes.stem == (3, 3, 1, 4)
    first, second = shapes.stages
    assert first.spatial == (2, 3, 3, 4, 4)
    assert first.expand == (2, 1, 1, 4, 8)
    assert first.depthwise == (2, 3, 3, 1, 8)
    assert first.project == (2, 1, 1, 8, 4)
    assert second.spatial == (1, 3, 3, 8, 8)
    assert second.expand == (1, 1, 1, 8, 16)
    assert shapes.head == (8, 3)


def test_initial_kernels_have_the_variance_of_he():
    space = wide_space()
    params, statistics = supernet.init(jax.random.key(0), space)
    for node in jax.tree.leaves((params, statistics), is_leaf=is_node):
        for name, leaf in node._asdict().items():
            neutral = 1.0 if name in ("gain", "variance") else 0.0
            if name != "kernel":
                np.testing.assert_array_equal(leaf, np.full(leaf.shape, neutral))
                continue
            fan_in = np.prod(leaf.shape[-4:-1]) if leaf.ndim > 2 else leaf.shape[0]
            error = 5 / np.sqrt(2 * leaf.size)
            np.testing.assert_allclose(np.std(leaf), np.sqrt(2 / fan_in), rtol=error)
            assert abs(np.mean(leaf)) < 5 * np.sqrt(2 / fan_in / leaf.size)
    shapes = jax.tree.leaves(supernet.kernel_shapes(space), is_leaf=supernet._is_shape)
    nodes = [node for node in jax.tree.leaves(params, is_leaf=is_node)]
    assert [node.kernel.shape for node in nodes] == shapes


def test_initial_weights_depend_on_the_key_alone():
    first, again, other = (
        supernet.init(jax.random.key(seed), MINI)[0] for seed in (0, 0, 1)
    )
    assert_trees_equal(first, again)
    assert not np.array_equal(first.stem.kernel, other.stem.kernel)
    kernel = np.asarray(first.stages[0].project.kernel)
    assert len(np.unique(kernel)) == kernel.size


# What a genotype does not use


def polluted(weights, genotype, garbage, space=SPACE):
    """The weights with garbage wherever the genotype uses none.

    Statistics are garbage that a batch may have: finite, of positive variance.
    """
    params, statistics = weights
    masks = active_masks(genotype, params, space)
    # Running statistics are used where gains are.
    moments = jax.tree.map(
        lambda node, mask: node._replace(mean=mask.gain, variance=mask.gain),
        statistics,
        masks._replace(head=()),
        is_leaf=is_node,
    )
    rng = np.random.default_rng(0)

    def pollute(leaf, mask):
        values = garbage * rng.uniform(0.5, 2, leaf.shape)
        return jnp.where(mask, leaf, jnp.asarray(values, jnp.float32))

    params = jax.tree.map(pollute, params, masks)
    garbage = abs(garbage) if np.isfinite(garbage) else 1e4
    return params, jax.tree.map(pollute, statistics, moments)


@pytest.mark.parametrize("garbage", [1e4, -3.0, np.nan, np.inf])
def test_unused_parameters_and_statistics_change_nothing(garbage):
    """Schemes take turns."""
    weights = random_weights()
    population = [*genotypes(8, seed=2), spaces.smallest(SPACE)]
    for index, genotype in enumerate(population):
        scheme = index % 2
        clean, _ = run_supernet(weights, genotype, scheme)
        dirty, _ = run_supernet(polluted(weights, genotype, garbage), genotype, scheme)
        np.testing.assert_array_equal(dirty, clean)


def test_used_parameters_change_the_logits():
    """The test above would notice a change: every used kind of weight matters."""
    params, statistics = random_weights()
    nodes, structure = jax.tree.flatten((params, statistics))
    population = genotypes(40, seed=2)
    clean = [run_supernet((params, statistics), one)[0] for one in population]
    for leaf in range(len(nodes)):
        changed = nodes[:leaf] + [nodes[leaf] * 1.7 + 0.3] + nodes[leaf + 1 :]
        weights = jax.tree.unflatten(structure, changed)
        assert any(
            not np.array_equal(run_supernet(weights, one)[0], logits)
            for one, logits in zip(population, clean, strict=True)
        )


# Training


WEIGHTS = jnp.asarray(np.random.default_rng(5).normal(size=(8, 3)), jnp.float32)


@functools.cache
def compiled_step():
    """Value, statistics and gradient of a training step in fixed-point words."""

    def loss(params, statistics, genotype, frozen, images):
        logits, moved = supernet.apply(
            FIRST_STAGE,
            params,
            statistics,
            genotype,
            images,
            scheme=0,
            schemes=("fixed_point",),
            train=True,
            frozen=frozen,
        )
        return jnp.sum(logits * WEIGHTS), (logits, moved)

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return lambda *weights, frozen=False: step(*weights, frozen, digits())


@functools.cache
def training_genotypes():
    """The first few random genotypes that together have all operations."""
    chosen, missing = [], set(spaces.OPERATIONS)
    for genotype in genotypes(30, seed=3, space=FIRST_STAGE):
        (blocks,) = network_spec(FIRST_STAGE, genotype).stages
        new = missing & {block.operation for block in blocks}
        if new and len(blocks) == 2:
            chosen.append(genotype)
            missing -= new
    assert not missing
    return chosen


def compact_step(module, variables):
    def loss(params):
        logits, moved = module.apply(
            variables | {"params": params}, digits(), train=True, mutable="batch_stats"
        )
        return jnp.sum(logits * WEIGHTS), (logits, moved["batch_stats"])

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return step(variables["params"])


def assert_trees_close(found, expected, unit):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5 * unit)
    jax.tree.map(close, found, expected)


def test_a_training_step_is_that_of_the_compact_network():
    weights = random_weights(0, FIRST_STAGE)
    for genotype in training_genotypes():
        (_, (logits, moved)), gradient = compiled_step()(*weights, genotype)
        module, variables = materialize(FIRST_STAGE, genotype, *weights)
        (_, (expected, moments)), slopes = compact_step(module, variables)
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
        _, found = materialize(FIRST_STAGE, genotype, gradient, moved)
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(slopes))
        assert largest > 1e-3
        assert_trees_close(found["params"], slopes, largest)
        assert_trees_close(found["batch_stats"], moments, 1)


def test_unused_parameters_get_no_gradient():
    params, statistics = random_weights(0, FIRST_STAGE)
    for genotype in training_genotypes():
        _, gradient = compiled_step()(params, statistics, genotype)
        masks = active_masks(genotype, params, FIRST_STAGE)
        leaves = jax.tree.leaves(gradient), jax.tree.leaves(masks)
        for leaf, mask in zip(*leaves, strict=True):
            assert np.isfinite(leaf).all()
            assert not np.asarray(leaf)[~np.asarray(mask)].any()


@pytest.mark.parametrize("garbage", [1e4, np.nan])
def test_unused_parameters_do_not_disturb_training(garbage):
    weights = random_weights(0, FIRST_STAGE)
    for genotype in training_genotypes():
        dirty = polluted(weights, genotype, garbage, FIRST_STAGE)
        (value, (logits, moved)), gradient = compiled_step()(*weights, genotype)
        clean = materialize(FIRST_STAGE, genotype, gradient, moved)[1]
        (other_value, (other, moved)), gradient = compiled_step()(*dirty, genotype)
        assert value == other_value
        np.testing.assert_array_equal(logits, other)
        found = materialize(FIRST_STAGE, genotype, gradient, moved)[1]
        assert_trees_equal(found, clean)


def test_statistics_of_unused_layers_stay():
    params, statistics = random_weights(0, FIRST_STAGE)
    genotype = spaces.smallest(FIRST_STAGE)
    (_, (_, moved)), _ = compiled_step()(params, statistics, genotype)
    assert_trees_equal(moved.stages, statistics.stages)
    assert not np.array_equal(moved.stem.mean, statistics.stem.mean)


def test_frozen_statistics_stay_and_normalise():
    params, statistics = random_weights(0, FIRST_STAGE)
    frozen = functools.partial(compiled_step(), params, frozen=True)
    for genotype in training_genotypes():
        (_, (logits, moved)), gradient = frozen(statistics, genotype)
        found, kept = (
            materialize(FIRST_STAGE, genotype, params, one)[1]
            for one in (moved, statistics)
        )
        assert_trees_equal(found, kept)
        assert any(np.any(leaf) for leaf in jax.tree.leaves(gradient))
        # What the batch is like no longer matters; what is stored does.
        other = jax.tree.map(lambda leaf: leaf + 0.5, statistics)
        (_, (shifted, _)), _ = frozen(other, genotype)
        assert np.abs(shifted - logits).max() > 1e-2
