"""Genotypes: what may be sampled, what they stand for, which of them are the same."""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.networks import space as spaces
from jaxnas.networks.materialize import network_spec
from jaxnas.networks.space import SearchSpace, Stage

SPACE = SearchSpace(
    image=(9, 7, 3),
    classes=5,
    stages=(
        Stage(widths=(2, 4, 5), blocks=2),
        Stage(widths=(3, 8), blocks=1),
        Stage(widths=(6,), blocks=2),
    ),
    kernels=(1, 3, 7),
    expansions=(2, 3),
    word_bits=(3, 4, 8),
)
TINY = SearchSpace(
    image=(2, 2, 1),
    classes=2,
    stages=(Stage(widths=(2, 3), blocks=2),),
    kernels=(3,),
    expansions=(2,),
    word_bits=(8,),
)


def random_genotypes(space, count, seed=0):
    """Uniform below the cardinalities, not canonical: every vector is a network."""
    rng = np.random.default_rng(seed)
    counts = spaces.cardinalities(space)
    return jnp.asarray(rng.integers(0, counts, (count, len(counts))), jnp.int32)


def all_genotypes(space):
    ranges = map(range, spaces.cardinalities(space))
    return jnp.array(list(itertools.product(*ranges)), jnp.int32)


def canonicals(space, genotypes):
    one = jax.jit(jax.vmap(lambda genotype: spaces.canonical(space, genotype)))
    return np.asarray(one(genotypes))


def presence(genotype):
    return tuple(np.asarray(genotype)[3:-1:8])


def plain_decode(space, genotype):
    """The network in plain Python: genes taken one by one, blocks walked in order."""
    genes = iter(int(gene) for gene in genotype)
    width = stem_width = space.stages[0].widths[next(genes)]
    words = [next(genes), next(genes)]
    producer, slot, blocks = 0, 0, []
    for stage in space.stages:
        for _ in range(stage.blocks):
            present, operation, kernel, chosen, expansion, residual, *block_words = (
                next(genes) for _ in range(8)
            )
            slot += 1
            block = {"present": bool(present), "in_width": width, "source": producer}
            if present:
                out_width = stage.widths[chosen]
                factor = space.expansions[expansion] if operation == 2 else 1
                block |= {
                    "operation": operation,
                    "kernel": kernel,
                    "expanded_width": width * factor,
                    "out_width": out_width,
                    "residual": residual == 1 and out_width >= width,
                    "weight_bits": block_words[0],
                    "activation_bits": block_words[1],
                }
                width, producer = out_width, slot
            else:
                block |= {"out_width": width, "residual": False}
            blocks.append(block)
    (head,) = genes
    ends = {
        "stem_width": stem_width,
        "stem_weight_bits": words[0],
        "stem_activation_bits": words[1],
        "head_width": width,
        "head_weight_bits": head,
    }
    return ends, blocks, producer


def test_cardinalities_count_the_choices_of_every_gene():
    counts = spaces.cardinalities(SPACE)
    stem, head, wide = [3, 3, 3], [3], [3, 2, 1]
    blocks = [[2, 3, 3, wide[stage], 2, 2, 3, 3] for stage in (0, 0, 1, 2, 2)]
    assert counts.dtype == np.int32
    assert counts.tolist() == stem + sum(blocks, []) + head
    assert SPACE.genes == len(counts) and SPACE.slots == 5
    assert SPACE.stage_of_slot == (0, 0, 1, 2, 2)


def test_map_sizes_and_padded_widths():
    assert [SPACE.map_size(stage) for stage in range(3)] == [(9, 7), (4, 3), (2, 1)]
    assert [SPACE.padded_width(stage) for stage in range(3)] == [5, 8, 8]


KEYS = 4000


@pytest.fixture(scope="module")
def samples():
    keys = jax.random.split(jax.random.key(0), KEYS)
    drawn = jax.jit(jax.vmap(lambda key: spaces.sample(key, SPACE)))(keys)
    np.testing.assert_array_equal(spaces.sample(keys[7], SPACE), drawn[7])
    return np.asarray(drawn)


def test_samples_are_canonical_networks_of_every_value(samples):
    counts = spaces.cardinalities(SPACE)
    assert samples.dtype == np.int32 and samples.shape == (KEYS, SPACE.genes)
    assert (samples >= 0).all() and (samples < counts).all()
    np.testing.assert_array_equal(canonicals(SPACE, samples), samples)
    for gene, count in enumerate(counts):
        assert set(samples[:, gene]) == set(range(count))
    assert len({tuple(sample) for sample in samples}) > 0.95 * KEYS


def test_sampled_genes_are_uniform(samples):
    """Those that canonical leaves alone: of the stem, of presence, of the head."""
    counts = spaces.cardinalities(SPACE)
    for gene in [0, 1, 2, -1, *range(3, 3 + 8 * SPACE.slots, 8)]:
        share = np.bincount(samples[:, gene], minlength=counts[gene]) / KEYS
        deviation = np.sqrt((1 - 1 / counts[gene]) / counts[gene] / KEYS)
        np.testing.assert_allclose(share, 1 / counts[gene], atol=5 * deviation)


def test_decode_equals_a_walk_in_plain_python():
    genotypes = random_genotypes(SPACE, 300)
    decoded = jax.jit(jax.vmap(lambda g: spaces.decode(SPACE, g)))(genotypes)
    decoded = jax.tree.map(np.asarray, decoded)
    for row, genotype in enumerate(genotypes):
        one = jax.tree.map(lambda leaf: leaf[row], decoded)  # noqa: B023
        ends, blocks, producer = plain_decode(SPACE, genotype)
        for name, value in ends.items():
            assert getattr(one, name) == value, name
        assert one.source[-1] == producer
        for slot, block in enumerate(blocks):
            for name, value in block.items():
                assert getattr(one, name)[slot] == value, (slot, name)


def test_decode_alone_equals_decode_in_a_batch():
    genotype = random_genotypes(SPACE, 1)[0]
    alone = spaces.decode(SPACE, genotype)
    batched = jax.vmap(lambda g: spaces.decode(SPACE, g))(genotype[None])
    for name, one, other in zip(alone._fields, alone, batched, strict=True):
        np.testing.assert_array_equal(one, other[0], err_msg=name)


def test_canonical_is_idempotent_and_keeps_the_network():
    genotypes = random_genotypes(SPACE, 100)
    canonical = canonicals(SPACE, genotypes)
    assert (canonical < spaces.cardinalities(SPACE)).all()
    assert (canonical != genotypes).any(axis=1).mean() > 0.9
    np.testing.assert_array_equal(canonicals(SPACE, canonical), canonical)
    for before, after in zip(genotypes, jnp.asarray(canonical), strict=True):
        assert network_spec(SPACE, before) == network_spec(SPACE, after)


def test_distinct_canonical_genotypes_are_distinct_networks():
    """All within a stretch of a small space's canonical genotypes. With the test
    above: equal networks in equal slots are equal canonical genotypes."""
    genotypes = all_genotypes(TINY)
    distinct = jnp.asarray(np.unique(canonicals(TINY, genotypes), axis=0))
    assert 100 < len(distinct) < len(genotypes) / 2
    distinct = distinct[-100:]
    networks = {(network_spec(TINY, one), presence(one)) for one in distinct}
    assert len(networks) == len(distinct)


def test_numpy_genotypes_are_accepted():
    genotype = np.asarray(random_genotypes(SPACE, 1)[0])
    expected = spaces.describe(SPACE, jnp.asarray(genotype))
    assert spaces.describe(SPACE, genotype) == expected


def test_a_change_of_one_gene_changes_the_network_or_not_the_canonical_genotype():
    genotypes = random_genotypes(SPACE, 80, seed=1)
    rng = np.random.default_rng(2)
    counts = spaces.cardinalities(SPACE)
    twins = np.array(genotypes)
    for twin in twins:
        gene = rng.choice(np.flatnonzero(counts > 1))
        twin[gene] = (twin[gene] + rng.integers(1, counts[gene])) % counts[gene]
    twins = jnp.asarray(twins)
    equal = []
    pairs = zip(genotypes, twins, strict=True)
    canonical = canonicals(SPACE, genotypes), canonicals(SPACE, twins)
    for row, (genotype, twin) in enumerate(pairs):
        same_place = presence(genotype) == presence(twin)
        same = network_spec(SPACE, genotype) == network_spec(SPACE, twin)
        found = np.array_equal(canonical[0][row], canonical[1][row])
        assert found == (same and same_place)
        equal.append(found)
    assert 0.2 < np.mean(equal) < 0.8


def test_bad_spaces_say_what_is_wrong_and_how_to_mend_it():
    def refused(text, **changes):
        with pytest.raises(ValueError, match=re.escape(text)):
            dataclasses.replace(TINY, **changes)

    stage = TINY.stages[0]
    refused("needs at least one stage", stages=())
    refused("image (2, 2, 1) is too small for 3 stages", stages=(stage,) * 3)
    refused("use fewer stages or larger images", stages=(stage,) * 3)
    refused("image (0, 2, 1)", image=(0, 2, 1))
    refused("image (2, 2, 0)", image=(2, 2, 0))
    refused("classes must be at least 2, found 1", classes=1)
    refused("0 blocks", stages=(stage, Stage(widths=(2,), blocks=0)))
    refused("stage 0 widths", stages=(Stage(widths=(), blocks=1),))
    refused("found (4, 2)", stages=(Stage(widths=(4, 2), blocks=1),))
    refused("found (2, 2)", stages=(Stage(widths=(2, 2), blocks=1),))
    refused("found (0, 2)", stages=(Stage(widths=(0, 2), blocks=1),))
    refused("kernels must be odd", kernels=(3, 4))
    refused("kernels must be a rising", kernels=(5, 3))
    refused("expansions", expansions=())
    refused("word_bits must be a rising, non-empty list of values from 2", word_bits=())
    refused("found (1, 8)", word_bits=(1, 8))
    refused("found (8, 32)", word_bits=(8, 32))


def test_widest_words_change_nothing_but_words():
    genotypes = random_genotypes(SPACE, 50, seed=3)
    for genotype in genotypes:
        before = network_spec(SPACE, genotype)
        after = network_spec(SPACE, spaces.widest_words(SPACE, genotype))
        wide = dataclasses.replace(before.stem_words, weight=8, activation=8)
        stages = tuple(
            tuple(dataclasses.replace(block, words=wide) for block in stage)
            for stage in before.stages
        )
        expected = dataclasses.replace(
            before, stem_words=wide, stages=stages, head_weight_bits=8
        )
        assert after == expected


def test_smallest_is_the_narrowest_network_without_blocks():
    genotype = spaces.smallest(SPACE)
    spec = network_spec(SPACE, genotype)
    assert spec.stages == ((), (), ())
    assert spec.stem_width == 2
    assert (spec.stem_words.weight, spec.stem_words.activation) == (8, 8)
    assert spec.head_weight_bits == 8
    np.testing.assert_array_equal(spaces.canonical(SPACE, genotype), genotype)


def test_join_is_the_inverse_of_taking_apart():
    genotype = random_genotypes(SPACE, 1)[0]
    blocks = spaces.block_genes(SPACE, genotype)
    assert blocks.shape == (5, 8)
    joined = spaces.join(genotype[:3], blocks, genotype[-1:])
    np.testing.assert_array_equal(joined, genotype)


def described(text):
    """The network that a description mentions, read back from its words."""
    parts = text.split(" | ")
    stages, words = [[]], r"w(\d+)a(\d+)"
    for part in parts[1:-1]:
        if part == "pool":
            stages.append([])
            continue
        pattern = rf"(conv|sep|inv) (\d+)x\2 (\d+)( e\d+)?( \+skip)? {words}"
        operation, side, width, factor, skip, weight, activation = re.fullmatch(
            pattern, part
        ).groups()
        assert (factor is not None) == (operation == "inv")
        names = {"conv": "convolution", "sep": "separable", "inv": "inverted"}
        block = names[operation], int(side), int(width), factor, bool(skip)
        stages[-1].append((*block, int(weight), int(activation)))
    stem = re.fullmatch(rf"stem 3x3 (\d+) {words}", parts[0]).groups()
    head = re.fullmatch(r"dense w(\d+)", parts[-1]).groups()
    return tuple(map(int, stem + head)), stages


def test_descriptions_mention_all_that_a_network_is():
    for genotype in random_genotypes(SPACE, 100, seed=4):
        spec = network_spec(SPACE, genotype)
        ends, stages = described(spaces.describe(SPACE, genotype))
        stem = spec.stem_words
        expected = spec.stem_width, stem.weight, stem.activation, spec.head_weight_bits
        assert ends == expected
        width = spec.stem_width
        for blocks, mentioned in zip(spec.stages, stages, strict=True):
            for block, mention in zip(blocks, mentioned, strict=True):
                is_inverted = block.operation == "inverted"
                factor = f" e{block.expanded_width // width}" if is_inverted else None
                assert mention == (
                    block.operation,
                    block.kernel,
                    block.out_width,
                    factor,
                    block.residual,
                    block.words.weight,
                    block.words.activation,
                )
                width = block.out_width
