"""Corrupted parameters: the right leaves, the right words, the right types."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.faults.corruption import corrupt
from jaxnas.faults.flips import given_flips, network_flips
from jaxnas.faults.models import FaultModel, bit_flips
from jaxnas.faults.noise import dead_elements
from jaxnas.numerics import FixedPoint, absmax_scale

KEY = jax.random.key(0)
FLIPS = bit_flips(0.03)
# One random word for all words of a site: the cheapest model to compile.
SCRAMBLE = FaultModel(
    sample=lambda key, shape, format: jax.random.bits(key, (), jnp.uint8),
    apply=lambda mask, words: words ^ mask.astype(words.dtype),
)


def parameters():
    values = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)), jnp.float32)
    return {
        "a": {"kernel": values, "bias": values[0].astype(jnp.bfloat16)},
        "b": {"kernel": values[:2].astype(jnp.float16), "steps": jnp.arange(3)},
    }


def words_of(leaf):
    return np.asarray(leaf).view(f"u{leaf.dtype.itemsize}")


FLOATS = [("a", "kernel"), ("a", "bias"), ("b", "kernel")]


def changed_bits(before, after):
    return [
        int((words_of(before[a][b]) ^ words_of(after[a][b])).any()) for a, b in FLOATS
    ]


def test_corruption_keeps_dtypes_and_touches_selected_leaves_only():
    params = parameters()
    found = corrupt(KEY, params, SCRAMBLE, site="*/kernel")
    dtypes = [[leaf.dtype for leaf in jax.tree.leaves(t)] for t in (found, params)]
    assert dtypes[0] == dtypes[1]
    assert changed_bits(params, found) == [1, 0, 1]
    np.testing.assert_array_equal(found["b"]["steps"], params["b"]["steps"])


def test_all_floats_are_corrupted_by_default_and_twice_is_never():
    params = parameters()
    params["a"]["kernel"] = params["a"]["kernel"].at[0].set(jnp.nan)
    once = corrupt(KEY, params, bit_flips(0.1))
    assert changed_bits(params, once) == [1, 1, 1]
    twice = corrupt(KEY, once, bit_flips(0.1))
    assert changed_bits(params, twice) == [0, 0, 0]
    assert changed_bits(params, corrupt(KEY, params, bit_flips(0.0))) == [0, 0, 0]


def test_every_leaf_draws_from_its_own_number():
    params = parameters()
    everything = corrupt(KEY, params, SCRAMBLE)
    alone = corrupt(KEY, params, SCRAMBLE, site="b/kernel")
    assert changed_bits(everything, alone) == [1, 1, 0]
    first, second = corrupt(KEY, [jnp.ones(5), jnp.ones(5)], SCRAMBLE)
    assert (first != second).any()


def test_corruption_in_a_format_is_that_of_its_words():
    format, params = FixedPoint(bits=4), parameters()
    found = corrupt(KEY, params, FLIPS, format=format, site="b/kernel")["b"]["kernel"]
    values = params["b"]["kernel"].astype(jnp.float32)
    scale = absmax_scale(values, format)
    number = 2  # after a/bias and a/kernel
    fault = FLIPS.sample(jax.random.fold_in(KEY, number), values.shape, format)
    words = FLIPS.apply(fault, format.encode(values, scale))
    expected = format.decode(words, scale).astype(jnp.float16)
    np.testing.assert_array_equal(found, expected)


def test_corruption_is_the_same_compiled_and_batched():
    params, keys = parameters(), jax.random.split(KEY, 3)
    batched = jax.jit(jax.vmap(lambda key: corrupt(key, params, SCRAMBLE)))(keys)
    for i, key in enumerate(keys):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], batched)
        assert changed_bits(one, corrupt(key, params, SCRAMBLE)) == [0, 0, 0]


@pytest.mark.parametrize(
    "params, site, message",
    [
        ({"w": jnp.ones(2)}, "kernel", "'kernel'.*paths: w"),
        ({"n": jnp.arange(2)}, "*", "floating-point.*n"),
        ({"w": jnp.ones(2, jnp.float8_e4m3fn)}, "*", "float8"),
    ],
)
def test_leaves_that_cannot_be_corrupted_are_refused(params, site, message):
    with pytest.raises(ValueError, match=message):
        corrupt(KEY, params, FLIPS, site=site)


class Counted(NamedTuple):
    """A pytree with what frameworks keep beside parameters."""

    kernel: Any
    activation: Any
    words: Any
    key: Any
    rate: float


def mixed():
    words = jnp.asarray(np.random.default_rng(1).integers(-128, 127, 20), jnp.int8)
    return Counted(jnp.ones((3, 2)), jax.nn.relu, words, jax.random.key(3), 0.5)


def test_what_is_no_word_stays_the_object_that_it_was():
    tree = mixed()
    found = corrupt(KEY, tree, SCRAMBLE)
    assert (found.kernel != tree.kernel).all()
    for name in ("activation", "words", "key", "rate"):
        assert getattr(found, name) is getattr(tree, name)


def test_integer_leaves_are_words_as_they_stand_where_asked():
    tree = mixed()
    found = corrupt(KEY, tree, SCRAMBLE, integers=True)
    assert found.words.dtype == jnp.int8
    mask = SCRAMBLE.sample(jax.random.fold_in(KEY, 2), (20,), None)
    np.testing.assert_array_equal(
        words_of(found.words), words_of(tree.words) ^ np.uint8(mask)
    )
    silent = corrupt(KEY, tree, dead_elements(1.0), integers=True)
    assert not silent.words.any() and silent.words.dtype == jnp.int8
    scaled = corrupt(KEY, tree, SCRAMBLE, format=FixedPoint(bits=4), integers=True)
    np.testing.assert_array_equal(scaled.words, found.words)


def test_network_faults_count_all_bits_of_the_tree():
    """Every bit of it once, leaf by leaf, word by word."""
    params, bits = mixed(), 32 * 6 + 8 * 20
    clean = [params.kernel, params.words]

    @jax.jit
    def flipped(position):
        model = given_flips(position[None])
        tree = corrupt(KEY, [clean[0], jnp.arange(5), clean[1]], model, site="[02]",
                       integers=True)  # fmt: skip
        return tree[0], tree[2]

    for position in range(0, bits, 7):
        found = flipped(jnp.uint32(position))
        planes = [
            np.unpackbits((words_of(a) ^ words_of(b)).ravel().view(np.uint8),
                          bitorder="little")
            for a, b in zip(clean, found, strict=True)
        ]  # fmt: skip
        np.testing.assert_array_equal(
            np.flatnonzero(np.concatenate(planes)), [position]
        )
    once = corrupt(KEY, params, network_flips(9))
    assert int(np.bitwise_count(words_of(once.kernel) ^ words_of(clean[0])).sum()) == 9


def test_values_fail_as_they_are_read():
    params = parameters()
    silent = corrupt(KEY, params, dead_elements(1.0), site="a/*")
    assert not silent["a"]["kernel"].any() and not silent["a"]["bias"].any()
    assert silent["a"]["bias"].dtype == jnp.bfloat16
    assert silent["b"]["kernel"] is params["b"]["kernel"]
    wide = FaultModel(lambda *_: (), lambda _, v: v.astype(jnp.float32), "values")
    with pytest.raises(ValueError, match="bfloat16.*at 'a/bias' into float32"):
        corrupt(KEY, params, wide)


def test_formats_are_given_by_path():
    params, byte, nibble = parameters(), FixedPoint(bits=8), FixedPoint(bits=4)
    formats = {"b/*": nibble, "*/kernel": byte}
    found = corrupt(KEY, params, SCRAMBLE, format=formats)
    for site, format in (("a/kernel", byte), ("b/kernel", nibble), ("a/bias", None)):
        alone = corrupt(KEY, params, SCRAMBLE, format=format, site=site)
        a, b = site.split("/")
        np.testing.assert_array_equal(words_of(found[a][b]), words_of(alone[a][b]))
    with pytest.raises(ValueError, match="format for 'c/.*no leaf; the paths are: a/b"):
        corrupt(KEY, params, SCRAMBLE, format={"c/*": byte})
