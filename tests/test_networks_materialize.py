"""A compact network is its genotype's part of the supernet: in words, logits, steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_helpers import (
    SCHEMES,
    SPACE,
    by_site,
    digits,
    genotypes,
    random_weights,
    recorded,
    run_supernet,
)

from jaxnas.networks.compact import CompactNetwork
from jaxnas.networks.materialize import materialize, network_spec

COUNT = 40
TIE = 1e-5
"""How close two sums in different order come, relative to the largest: a logarithmic
word that differs must have been this close to the border between two words."""


def cut(array, like, stored):
    """The part of a supernet's array that belongs to an active part's."""
    if stored == "weight" and array.ndim == 4:
        margin = (array.shape[0] - like.shape[0]) // 2
        inner = slice(margin, margin + like.shape[0])
        array = array[inner, inner] if array.shape[0] > 1 else array
    return array[tuple(slice(size) for size in like.shape)]


def paired(supernet_words, compact_words):
    """Words of both in the order in which the compact network stores them."""
    large = {site: iter(words) for site, words in by_site(supernet_words).items()}
    counts = [len(supernet_words), len(compact_words)]
    assert counts[0] == counts[1]
    for word in compact_words:
        (site,) = by_site([word])
        yield next(large[site]), word


@pytest.fixture(scope="module")
def pairs():
    """For every genotype: words and logits of supernet and compact network.

    Schemes take turns. The supernet is compiled, the compact networks run operation by
    operation.
    """
    weights, results = random_weights(), {}
    host = jax.tree.map(np.asarray, weights)  # slicing it compiles nothing
    for index, genotype in enumerate(genotypes(COUNT)):
        number = index % len(SCHEMES)
        scheme = SCHEMES[number]
        expected, large = run_supernet(weights, genotype, number)
        module, variables = materialize(SPACE, genotype, *host, scheme=scheme)
        variables = jax.tree.map(jnp.asarray, variables)
        with recorded() as words:
            found = np.asarray(module.apply(variables, digits()))
            results[scheme, index] = large, words[:], expected, found
    return results


def is_same(large, small):
    assert large.format == small.format and large.stored == small.stored
    scale = cut(large.scale, small.scale, "scale") if large.scale.ndim else large.scale
    np.testing.assert_array_equal(scale, small.scale)
    return np.array_equal(cut(large.value, small.value, small.stored), small.value)


def assert_tie(large, small):
    """Neighbouring words of values that sums in another order can tell apart."""
    assert small.stored == "activation"
    one, other = cut(large.x, small.x, small.stored), small.x
    np.testing.assert_allclose(one, other, rtol=0, atol=TIE * np.abs(other).max())
    one, other = cut(large.value, small.value, small.stored), small.value
    apart = one != other
    base = small.format.base
    smallest = float(small.scale) * base ** (1 - 2**small.format.bits)
    ratio = np.maximum(np.abs(one[apart]), smallest)
    ratio /= np.maximum(np.abs(other[apart]), smallest)
    np.testing.assert_allclose(np.abs(np.log(ratio)), np.log(base), rtol=1e-3)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_words_and_logits_are_the_supernets(pairs, scheme):
    """Fixed-point sums are exact, so words are identical. A logarithmic map may tip
    over at a tie between two words; its network is then not followed any further."""
    tipped, kinds = 0, set()
    own = [pair for (one, _), pair in pairs.items() if one == scheme]
    for large, small, expected, found in own:
        for one, other in paired(large, small):
            kinds.add((other.stored, other.format.bits))
            if not is_same(one, other):
                assert scheme == "logarithmic", other.site
                assert_tie(one, other)
                tipped += 1
                break
        else:
            atol = 1e-5 * np.abs(expected).max()
            np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
    assert tipped <= 0.03 * len(own)
    widths = {(stored, bits) for stored in ("weight", "activation") for bits in (4, 8)}
    assert kinds == widths | {("input", 8), ("bias", 16)}


def test_logits_tell_networks_and_schemes_apart(pairs):
    """The weights of the tests above do not make all networks alike or silent."""
    logits = {key: found for key, (_, _, _, found) in pairs.items()}
    spread = [np.ptp(found) for found in logits.values()]
    assert np.median(spread) > 0.1
    flat = {tuple(found.ravel()) for found in logits.values()}
    assert len(flat) > 0.9 * COUNT
    moved = [np.abs(found[0] - found[1]).max() > 1e-3 for found in logits.values()]
    assert np.mean(moved) > 0.6
    saturated = np.mean(
        [
            np.mean(word.value == word.format.bounds(word.scale)[1])
            for _, words, _, _ in list(pairs.values())[:20]
            for word in words
            if word.stored == "activation"
        ]
    )
    assert saturated < 0.2


@pytest.mark.parametrize("scheme", SCHEMES)
def test_variables_are_what_the_module_declares(scheme):
    params, statistics = random_weights()
    for genotype in genotypes(4, seed=1):
        module, variables = materialize(
            SPACE, genotype, params, statistics, scheme=scheme
        )
        assert module == CompactNetwork(network_spec(SPACE, genotype, scheme=scheme))
        declared = jax.eval_shape(module.init, jax.random.key(0), digits())
        shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), variables)
        expected = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), declared)
        assert shapes == expected


def test_materialised_networks_train():
    """Their own training step moves the statistics of every layer."""
    params, statistics = random_weights()
    module, variables = materialize(SPACE, genotypes(3)[1], params, statistics)
    _, moved = module.apply(variables, digits(), train=True, mutable=["batch_stats"])
    old, new = variables["batch_stats"], moved["batch_stats"]
    assert jax.tree.structure(old) == jax.tree.structure(new)
    for one, other in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
        assert one.shape == other.shape and not np.array_equal(one, other)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(new))
