"""Exported words come back bit for bit, and damage is told."""

import dataclasses
import json

import numpy as np
import pytest

from jaxnas import numerics
from jaxnas.numerics.deployment import StoredTensor
from jaxnas.numerics.export import FORMATS, load_words, save_words
from jaxnas.numerics.fixed_point import FixedPoint
from jaxnas.numerics.floats import IEEE
from jaxnas.numerics.formats import word_dtype
from jaxnas.numerics.logarithmic import Logarithmic


def tensor(format, shape, seed=0):
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**format.bits, shape, dtype=np.uint64)
    scale = 2.0 ** -rng.integers(0, 9, (1,) * (len(shape) - 1) + shape[-1:])
    words = words.astype(word_dtype(format.bits))
    return StoredTensor(words, np.float32(scale), format, "weight")


WORDS = {
    "stem/kernel": tensor(FixedPoint(bits=6, code="sign_magnitude"), (3, 3, 1, 4)),
    "head/kernel": tensor(Logarithmic(bits=8, base=2**0.125), (5, 2), seed=1),
    "bias": tensor(FixedPoint(bits=16), (4,), seed=2)._replace(stored="bias"),
    "float": tensor(IEEE(name="float32"), (7,), seed=3),
}


def test_words_come_back(tmp_path):
    save_words(tmp_path / "net" / "v1.2", WORDS)
    back = load_words(tmp_path / "net" / "v1.2")
    assert list(back) == list(WORDS)
    for name, expected in WORDS.items():
        found = back[name]
        assert (found.format, found.stored) == (expected.format, expected.stored)
        for one, other in zip(found[:2], expected[:2], strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    names = {path.name for path in (tmp_path / "net").iterdir()}
    assert names == {"v1.2.npz", "v1.2.json"}


def test_the_manifest_describes_every_bit(tmp_path):
    save_words(tmp_path / "net", WORDS)
    site = json.loads((tmp_path / "net.json").read_text())["sites"]["stem/kernel"]
    assert site["bits"] == 6
    assert site["fields"] == {"sign": 32, "magnitude": 31}
    assert site["shape"] == [3, 3, 1, 4] and site["scale_shape"] == [1, 1, 1, 4]


def test_every_format_can_be_read_back():
    public = [getattr(numerics, name) for name in dir(numerics)]
    kinds = {
        kind
        for kind in public
        if dataclasses.is_dataclass(kind) and hasattr(kind, "encode")
    }
    assert kinds == set(FORMATS) and FixedPoint in kinds


def manifest(path, change):
    described = json.loads(path.read_text())
    change(described)
    path.write_text(json.dumps(described))


DAMAGE = {
    "version 7": lambda d: d.update(version=7),
    "format 'Decimal'": lambda d: d["sites"]["bias"].update(format="Decimal"),
    "which the manifest does not describe": (
        lambda d: d["sites"]["bias"].update(shape=[5])
    ),
    "no arrays for site 'other'": (
        lambda d: d["sites"].update(other=d["sites"]["bias"])
    ),
    "stores 'bread'": lambda d: d["sites"]["bias"].update(stored="bread"),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_manifests_that_do_not_fit_are_refused(message, tmp_path):
    save_words(tmp_path / "net", WORDS)
    manifest(tmp_path / "net.json", DAMAGE[message])
    with pytest.raises(ValueError, match=message):
        load_words(tmp_path / "net")


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="no exported words.*absent"):
        load_words(tmp_path / "absent")
    save_words(tmp_path / "net", WORDS)
    content = (tmp_path / "net.npz").read_bytes()
    (tmp_path / "net.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="no exported words"):
        load_words(tmp_path / "net")
