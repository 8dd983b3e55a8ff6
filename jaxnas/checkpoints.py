"""Pytrees of arrays on disk: whole steps or none, checked when they are read.

A checkpoint is a folder `<step>`, which holds the arrays as Orbax writes them and a
manifest: the path, dtype and shape of every leaf, and the length and CRC-32 of every
file. Orbax alone would cast or pad what it reads to fit another template, and return
wrong numbers where a bit of a file has flipped.
"""

import json
import os
import shutil
import zlib
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from jaxnas.trees import leaf_paths

_MANIFEST = "manifest.json"


def save(folder: str | os.PathLike, step: int, tree: PyTree, *, keep: int = 2) -> None:
    """Writes `tree` as checkpoint `step` of `folder`; the newest `keep` stay.

    Returns when everything is on disk. The folder of a step appears in one rename, so
    a process killed at any moment leaves the earlier checkpoints as they were. Only one
    process may write to a folder. Leaves are arrays of any dtype or Python numbers.

    Raises:
      ValueError: `step` is not beyond the latest one, `keep` is not positive, or a leaf
        is a typed random key.
    """
    folder = Path(folder).absolute()
    if keep < 1:
        raise ValueError(f"keep is {keep}; keep at least 1 checkpoint")
    latest = latest_step(folder)
    if step < 0 or (latest is not None and step <= latest):
        raise ValueError(
            f"cannot save step {step} in {folder}, where the latest step is {latest}; "
            "number the steps upwards from 0, or use another folder"
        )
    arrays = _host_arrays(tree)
    partial = folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    # Orbax refuses arrays without elements; the manifest says all there is to them.
    stored = {str(i): array for i, array in enumerate(arrays) if array.size}
    if stored:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            checkpointer.save(partial / "arrays", args=ocp.args.StandardSave(stored))
    manifest = {"leaves": _description(tree, arrays), "files": _digests(partial)}
    (partial / _MANIFEST).write_text(json.dumps(manifest))
    os.rename(partial, folder / str(step))
    for old in _steps(folder)[:-keep]:
        # Renamed first: half a deleted step must not look like a checkpoint.
        os.rename(folder / str(old), partial)
        shutil.rmtree(partial)


def latest_step(folder: str | os.PathLike) -> int | None:
    """The highest step that `save` completed in `folder`, or None."""
    return max(_steps(Path(folder)), default=None)


def restore(
    folder: str | os.PathLike, template: PyTree, step: int | None = None
) -> PyTree:
    """The tree saved as `step` (by default the latest), bit for bit.

    `template` gives the structure, the dtypes and the shapes; its jax arrays (or
    `jax.ShapeDtypeStruct`) come back as jax arrays with the same sharding, its numpy
    arrays as numpy arrays.

    Raises:
      ValueError: there is no such step, its files are damaged, or it holds a tree with
        other paths, dtypes or shapes than `template`.
    """
    folder = Path(folder).absolute()
    step = latest_step(folder) if step is None else step
    path = folder / str(step)
    if not path.is_dir():
        raise ValueError(
            f"no checkpoint {'' if step is None else f'of step {step} '}in {folder}; "
            f"found steps {_steps(folder)}: start again without resuming"
        )
    manifest = _read_manifest(path)
    leaves, structure = jax.tree.flatten(template)
    _require_same(path, manifest["leaves"], _description(template, leaves))
    stored = {}
    if (path / "arrays").exists():
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            stored = checkpointer.restore(path / "arrays")
    arrays = (
        stored.get(str(i), np.empty(shape, dtype))
        for i, (_, dtype, shape) in enumerate(manifest["leaves"])
    )
    return structure.unflatten(map(_like, leaves, arrays))


def _steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def _host_arrays(tree) -> list[np.ndarray]:
    for path, leaf in zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True):
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(
            leaf.dtype, jax.dtypes.prng_key
        ):
            raise ValueError(
                f"leaf {path!r} is a typed random key; "
                "save jax.random.key_data(key) and wrap it again when restored"
            )
    return [np.asarray(leaf) for leaf in jax.device_get(jax.tree.leaves(tree))]


def _description(tree, leaves) -> list[list]:
    """Path, dtype and shape of every leaf, as JSON gives them back."""
    rows = []
    for path, leaf in zip(leaf_paths(tree), leaves, strict=True):
        array = leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
        rows.append([path, array.dtype.name, list(array.shape)])
    return rows


def _digests(folder: Path) -> dict[str, list[int]]:
    """Length and CRC-32 of every file below `folder` but the manifest."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _MANIFEST:
            content = path.read_bytes()
            name = path.relative_to(folder).as_posix()
            digests[name] = [len(content), zlib.crc32(content)]
    return digests


def _read_manifest(path: Path) -> dict:
    """The manifest of an undamaged checkpoint."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
        expected = manifest["files"]
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, f"its {_MANIFEST} cannot be read") from error
    found = _digests(path)
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise _damaged(path, f"{name} is not as it was written")
    return manifest


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"checkpoint {path} is damaged: {reason}; delete this folder to go on from "
        "the step before, or start again without resuming"
    )


def _require_same(path: Path, found: list[list], expected: list[list]) -> None:
    if found == expected:
        return
    names = [row[0] for row in found], [row[0] for row in expected]
    for name in sorted(set(names[0]) ^ set(names[1])):
        kind = "lacks" if name in names[1] else "has an unknown"
        raise _incompatible(path, f"it {kind} leaf {name!r}")
    for (name, *stored), (_, *wanted) in zip(found, expected, strict=True):
        if stored != wanted:
            raise _incompatible(
                path, f"leaf {name!r} is {_text(stored)}, expected {_text(wanted)}"
            )


def _incompatible(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"checkpoint {path} is of another configuration: {reason}; resume with the "
        "configuration that wrote it, or use another folder"
    )


def _text(kind) -> str:
    dtype, shape = kind
    return f"{dtype}[{','.join(map(str, shape))}]"


def _like(leaf, array: np.ndarray):
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return jax.device_put(array, leaf.sharding)
    return array if isinstance(leaf, np.ndarray) else array[()].item()
