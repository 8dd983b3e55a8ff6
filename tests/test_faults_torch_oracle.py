"""The same flipped bits in the same float32 weights, in PyTorch: the same logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.faults import Fault, bit_flips, given_flips, inject, sites, strikes
from jaxnas.numerics import IEEE, Rule, quantize_model

torch = pytest.importorskip("torch")

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
SHAPES = {
    "conv1": (4, 1, 3, 3),
    "conv2": (8, 4, 3, 3),
    "dense": (8, 10),
    "bias": (10,),
}
PARAMS = {
    name: RNG.normal(0, 0.4, shape).astype(np.float32) for name, shape in SHAPES.items()
}
IMAGES = RNG.normal(0, 1, (6, 1, 12, 12)).astype(np.float32)


def cnn(params, x):
    for name in ("conv1", "conv2"):
        kernel = params[name]
        x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, (2, 2), [(1, 1)] * 2))
    return x.mean((2, 3)) @ params["dense"] + params["bias"][None]


def torch_cnn(params, x):
    w = {name: torch.from_numpy(value) for name, value in params.items()}
    x = torch.from_numpy(x)
    with torch.inference_mode():
        for name in ("conv1", "conv2"):
            x = torch.relu(torch.nn.functional.conv2d(x, w[name], stride=2, padding=1))
        return (x.mean((2, 3)) @ w["dense"] + w["bias"]).numpy()


RULES = [Rule(weight=IEEE()), Rule(operation="add", path="bias", weight=IEEE())]
STORED = quantize_model(cnn, RULES)
ORDER = [site.name for site in sites(STORED, PARAMS, IMAGES)]


def with_words(changed):
    """The parameters with words exchanged: (name, word, value)."""
    params = {name: value.copy() for name, value in PARAMS.items()}
    for name, word, value in changed:
        params[name].reshape(-1).view(np.uint32)[word] = value
    return params


def assert_same_logits(found, expected):
    """NaN for NaN and infinity for infinity; numbers relative to the largest."""
    found = np.asarray(found)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    finite = np.abs(expected[np.isfinite(expected)])
    atol = 1e-5 * finite.max(initial=1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=atol)


def test_single_flips_give_the_logits_of_torch():
    assert set(ORDER) == set(SHAPES)
    table = [(name, word) for name in ORDER for word in range(PARAMS[name].size)]

    @jax.jit
    def faulty(position):
        return inject(STORED, Fault(given_flips(position[None])))(KEY, PARAMS, IMAGES)

    words = RNG.integers(len(table), size=20)
    bits = [*RNG.integers(32, size=12), *[30] * 4, *[31] * 2, 29, 23]
    differ = 0
    for entry, bit in zip(words, bits, strict=True):
        name, word = table[entry]
        old = PARAMS[name].reshape(-1).view(np.uint32)[word]
        expected = torch_cnn(with_words([(name, word, old ^ (1 << int(bit)))]), IMAGES)
        assert_same_logits(faulty(jnp.uint32(32 * entry + bit)), expected)
        differ += not np.array_equal(expected, torch_cnn(PARAMS, IMAGES))
    assert differ > 10


@pytest.mark.parametrize("seed", range(4))
def test_a_bit_error_rate_gives_the_logits_of_torch(seed):
    """Struck by words that are listed, so that the list is checked as well."""
    fault, key = Fault(bit_flips(1e-3)), jax.random.key(seed)
    found = jax.jit(inject(STORED, fault))(key, PARAMS, IMAGES)
    listed = strikes(STORED, fault)(key, PARAMS, IMAGES)
    changed = [(s.site, s.word, s.after) for s in listed]
    for s in listed:
        assert PARAMS[s.site].reshape(-1).view(np.uint32)[s.word] == s.before
    assert changed
    assert_same_logits(found, torch_cnn(with_words(changed), IMAGES))
