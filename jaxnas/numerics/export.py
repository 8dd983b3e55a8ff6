"""Words as files: an archive of arrays, and a manifest that says what bits mean."""

import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np

from jaxnas.numerics.codebooks import Binary, Codebook, Ternary
from jaxnas.numerics.deployment import StoredTensor
from jaxnas.numerics.exponents import PowerOfTwo
from jaxnas.numerics.fixed_point import FixedPoint
from jaxnas.numerics.floats import IEEE, MiniFloat
from jaxnas.numerics.formats import Format, word_dtype
from jaxnas.numerics.logarithmic import Logarithmic
from jaxnas.numerics.machine import MachineInteger
from jaxnas.numerics.posits import Posit
from jaxnas.numerics.primitives import Stored
from jaxnas.numerics.two_terms import TwoTermLogarithmic

VERSION = 1
FORMATS = (
    Binary,
    Codebook,
    FixedPoint,
    IEEE,
    Logarithmic,
    MachineInteger,
    MiniFloat,
    Posit,
    PowerOfTwo,
    Ternary,
    TwoTermLogarithmic,
)


def save_words(path: str | os.PathLike, words: Mapping[str, StoredTensor]) -> None:
    """Write `PATH.npz` (words and scales) and `PATH.json` (what they mean).

    The archive holds the arrays `words/NAME` and `scale/NAME` of every site, as NumPy
    reads them without this package. Both files appear whole or not at all.
    """
    npz, manifest = _files(path)
    npz.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"words/{name}": np.asarray(one.words) for name, one in words.items()}
    arrays |= {f"scale/{name}": np.asarray(one.scale) for name, one in words.items()}
    archive = io.BytesIO()
    np.savez_compressed(archive, **arrays)
    _write(npz, archive.getvalue())
    sites = {name: _described(one) for name, one in words.items()}
    text = json.dumps({"version": VERSION, "sites": sites}, indent=2) + "\n"
    _write(manifest, text.encode())


def load_words(path: str | os.PathLike) -> dict[str, StoredTensor]:
    """What `save_words` wrote to `path`, bit for bit, as NumPy arrays.

    Raises:
      ValueError: a file is missing or damaged, the manifest has another version or an
        unknown format, or it does not describe the arrays of the archive.
    """
    npz, manifest = _files(path)
    try:
        described = json.loads(manifest.read_text())
        content = io.BytesIO(npz.read_bytes())
        with np.load(content, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"no exported words can be read at {path} ({error}); give the path that "
            "save_words got, beside which PATH.npz and PATH.json lie"
        ) from error
    if described.get("version") != VERSION:
        raise ValueError(
            f"{manifest} has version {described.get('version')!r}, expected {VERSION}; "
            "export the words again"
        )
    return {
        name: _tensor(name, site, arrays) for name, site in described["sites"].items()
    }


def _files(path: str | os.PathLike) -> tuple[Path, Path]:
    return Path(f"{os.fspath(path)}.npz"), Path(f"{os.fspath(path)}.json")


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _described(tensor: StoredTensor) -> dict:
    format = tensor.format
    return {
        "stored": tensor.stored,
        "format": type(format).__name__,
        "options": dataclasses.asdict(format),
        "bits": format.bits,
        "fields": format.fields,
        "shape": list(tensor.words.shape),
        "scale_shape": list(np.shape(tensor.scale)),
    }


def _tensor(name: str, site: dict, arrays: Mapping) -> StoredTensor:
    format = _format(name, site)
    try:
        words, scale = arrays[f"words/{name}"], arrays[f"scale/{name}"]
    except KeyError:
        raise ValueError(f"the archive has no arrays for site {name!r}") from None
    fits = words.dtype == word_dtype(format.bits) and scale.dtype == np.float32
    shapes = [list(words.shape), list(scale.shape)]
    if not fits or shapes != [site["shape"], site["scale_shape"]]:
        raise ValueError(
            f"the arrays of site {name!r} are {words.dtype}{words.shape} and "
            f"{scale.dtype}{scale.shape}, which the manifest does not describe; the "
            "two files belong to different exports"
        )
    if site["stored"] not in get_args(Stored):
        raise ValueError(f"site {name!r} stores {site['stored']!r}, which is no kind")
    return StoredTensor(words, scale, format, site["stored"])


def _format(name: str, site: dict) -> Format:
    known = {kind.__name__: kind for kind in FORMATS}
    if site["format"] not in known:
        raise ValueError(
            f"site {name!r} has format {site['format']!r}; expected one of "
            f"{sorted(known)}"
        )
    options = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in site["options"].items()
    }
    return known[site["format"]](**options)
