"""Image sets as arrays in memory: embedded digits, parquet folders, the hub.

The words of an image are its own pixels: one unsigned byte each, worth `word / 256`.
Splits are a permutation fixed by a seed; what a batch holds follows from a key alone.
"""

import importlib
import io
import os
import re
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, UInt8

from jaxnas.types import Key


class ImageData(NamedTuple):
    """Three disjoint splits of one labelled image set, on the host.

    Pixels are unsigned bytes in NHWC order, labels lie in `range(classes)`.
    """

    name: str
    classes: int
    train_images: UInt8[np.ndarray, "train height width channels"]
    train_labels: Int32[np.ndarray, " train"]
    validation_images: UInt8[np.ndarray, "validation height width channels"]
    validation_labels: Int32[np.ndarray, " validation"]
    test_images: UInt8[np.ndarray, "test height width channels"]
    test_labels: Int32[np.ndarray, " test"]


def load_images(
    source: str | os.PathLike = "digits",
    *,
    validation_share: float = 0.2,
    test_share: float = 0.3,
    seed: int = 0,
    limit: int | None = None,
) -> ImageData:
    """The train, validation and test images of `source`.

    `source` is `"digits"` (scikit-learn's 1,797 handwritten digits, 8x8, with their 17
    grey levels spread over 0..255), a folder in the Hugging Face parquet layout
    (`train*.parquet` and `test*.parquet`, in the folder or in one below it), or the
    name of a data set on the Hugging Face hub.

    `test_share` is taken from the digits only: the other sources bring a test split of
    their own. `validation_share` is taken from the digits or from the training split,
    unless the source brings a validation split. `limit` keeps the first images of each
    split, in the order that `seed` fixes.

    Raises:
      ValueError: an option is out of range; the folder or hub name is not there; a
        split, a column or a label is missing; an image cannot be decoded or differs in
        size; a split would be empty.
    """
    if min(validation_share, test_share) <= 0 or validation_share + test_share >= 1:
        raise ValueError(
            f"validation_share is {validation_share} and test_share {test_share}; "
            "give positive shares with a sum below 1, for example 0.2 and 0.3"
        )
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; give at least 1 image, or None for all")
    if os.fspath(source) == "digits":
        return _load_digits(validation_share, test_share, seed, limit)
    tables = _open_splits(os.fspath(source))
    return _load_splits(os.fspath(source), tables, validation_share, seed, limit)


def _permutation(size: int, seed: int, stream: int) -> np.ndarray:
    """A permutation that no NumPy release may change: raw words of a bit generator."""
    words = np.random.Philox(np.random.SeedSequence([seed, stream])).random_raw(size)
    return np.argsort(words, kind="stable")


def _parts(order: np.ndarray, *shares: float) -> list[np.ndarray]:
    """Cuts one part per share off the front of `order`; the rest comes first."""
    ends = np.cumsum([round(share * len(order)) for share in shares])
    *cut, rest = np.split(order, ends)
    return [rest, *cut]


def _load_digits(validation_share, test_share, seed, limit) -> ImageData:
    from sklearn.datasets import load_digits  # costs a second to import

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = bunch.target.astype(np.int32)
    order = _permutation(len(labels), seed, 0)
    train, test, validation = _parts(order, test_share, validation_share)
    orders = {"train": train, "validation": validation, "test": test}
    _require_rows("digits", orders)
    rows = [order[:limit] for order in orders.values()]
    return ImageData(
        "digits", 10, *(a[part] for part in rows for a in (images, labels))
    )


def _require_rows(source: str, orders: dict[str, np.ndarray]) -> None:
    for split, order in orders.items():
        if not len(order):
            raise ValueError(
                f"the {split} split of {source} would be empty; "
                "give more images or another validation_share or test_share"
            )


def _open_splits(source: str) -> dict:
    """Arrow tables by split, images still encoded."""
    if os.path.isdir(source):
        files = _parquet_files(Path(source))
        parquet = _optional("pyarrow.parquet", source)
        try:
            return {split: parquet.read_table(files[split]) for split in files}
        except Exception as error:
            raise ValueError(
                f"the parquet files of {source} cannot be read ({_cause(error)}); "
                "download them again"
            ) from error
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source):
        raise ValueError(
            f"data folder {source} does not exist; give an existing folder with "
            "train*.parquet and test*.parquet, or 'digits'"
        )
    datasets = _optional("datasets", source)
    hub = _optional("huggingface_hub", source)
    try:
        if not hub.constants.HF_HUB_OFFLINE:
            # Asked first: the loader retries for long where there is no network.
            hub.HfApi().dataset_info(source, timeout=10)
        splits = datasets.load_dataset(source)
        return {name: splits[name].with_format("arrow")[:] for name in splits}
    except Exception as error:
        raise ValueError(
            f"{source!r} is neither an existing folder nor a data set that the hub "
            f"gives ({_cause(error)}); check name, path and network, or set "
            "HF_HUB_OFFLINE=1 to use an earlier download"
        ) from error


def _optional(module: str, source: str):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"reading {source!r} needs {module.partition('.')[0]}; "
            "run: pip install 'jaxnas[datasets]'"
        ) from error


def _cause(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:120]


def _parquet_files(folder: Path) -> dict[str, list[str]]:
    """Parquet files per split, from the folder or the first one below that has some."""
    for base in [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]:
        files = {
            split: [str(path) for path in sorted(base.glob(f"{split}*.parquet"))]
            for split in ("train", "validation", "test")
        }
        if files["train"]:
            return {split: paths for split, paths in files.items() if paths}
    raise ValueError(
        f"no train*.parquet in {folder} or the folders directly below it; "
        "put train*.parquet and test*.parquet there"
    )


def _load_splits(source, tables, validation_share, seed, limit) -> ImageData:
    for split in ("train", "test"):
        if split not in tables:
            raise ValueError(
                f"{source} has no {split} split (found: {', '.join(tables)}); "
                f"give a set with one, for a folder as {split}*.parquet"
            )
    splits = {
        name: _encoded_split(f"the {name} split of {source}", tables[name])
        for name in ("train", "validation", "test")
        if name in tables
    }
    orders = {
        name: _permutation(len(split.labels), seed, stream)
        for stream, (name, split) in enumerate(splits.items())
    }
    if "validation" not in splits:
        splits["validation"] = splits["train"]
        orders["train"], orders["validation"] = _parts(
            orders["train"], validation_share
        )
    _require_rows(source, orders)
    arrays, channels = [], None
    for name in ("train", "validation", "test"):
        images, labels = _decode(splits[name], orders[name][:limit], channels)
        channels = images.shape[-1]
        arrays += [images, labels]
    shapes = sorted({images.shape[1:] for images in arrays[::2]})
    if len(shapes) > 1:
        raise ValueError(
            f"the splits of {source} differ in image size ({shapes}); "
            "resize all images to one size"
        )
    classes = 1 + max(int(split.labels.max(initial=0)) for split in splits.values())
    return ImageData(Path(source).name, classes, *arrays)


class _EncodedSplit(NamedTuple):
    """One split as its files hold it: an arrow column of PNG or JPEG bytes."""

    where: str
    cells: object
    labels: Int32[np.ndarray, " images"]


def _encoded_split(where: str, table) -> _EncodedSplit:
    image = _column(where, table.column_names, ("image", "img"))
    label = _column(where, table.column_names, ("label", "labels", "fine_label"))
    labels = np.asarray(table[label])
    if labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        raise ValueError(
            f"column {label!r} of {where} holds {table[label].type}, the smallest is "
            f"{min(labels.tolist())!r}; expected one class number >= 0 per image: "
            "number the classes and drop unlabelled images"
        )
    try:
        cells = table[image].combine_chunks().field("bytes")
    except (AttributeError, KeyError) as error:
        raise ValueError(
            f"column {image!r} of {where} holds {table[image].type}; "
            "expected encoded images, a struct of bytes and path"
        ) from error
    return _EncodedSplit(where, cells, labels.astype(np.int32))


def _column(where: str, found: list[str], expected: tuple[str, ...]) -> str:
    for name in expected:
        if name in found:
            return name
    raise ValueError(
        f"{where} has no column {' or '.join(expected)} (found: {', '.join(found)}); "
        f"rename the right one to {expected[0]}"
    )


def _decode(split: _EncodedSplit, order: np.ndarray, channels: int | None):
    """Pixels and labels of some rows; one channel where all images are grey."""
    pictures = [_open_picture(split, row) for row in order.tolist()]
    if channels is None:
        channels = 1 if all(p.mode in ("1", "L", "LA") for p in pictures) else 3
    sizes = sorted({picture.size for picture in pictures})
    if len(sizes) > 1:
        (w0, h0), (w1, h1) = sizes[0], sizes[-1]
        raise ValueError(
            f"the images of {split.where} differ in size, from {w0}x{h0} to {w1}x{h1} "
            "pixels; resize all images to one size"
        )
    width, height = sizes[0]
    images = np.empty((len(order), height, width, channels), np.uint8)
    mode = "L" if channels == 1 else "RGB"
    for pixels, picture in zip(images, pictures, strict=True):
        pixels[:] = np.asarray(picture.convert(mode)).reshape(pixels.shape)
    return images, split.labels[order]


def _open_picture(split: _EncodedSplit, row: int):
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(split.cells[row].as_py()))
        picture.load()
    except Exception as error:
        raise ValueError(
            f"image {row} of {split.where} cannot be decoded ({_cause(error)}); "
            "write every image as PNG or JPEG bytes into the parquet file"
        ) from error
    if picture.mode[0] in "IF":
        raise ValueError(
            f"image {row} of {split.where} has mode {picture.mode}, more than 8 bits "
            "per channel; convert the images to 8 bits"
        )
    return picture


def augment(
    key: Key,
    images: UInt8[Array | np.ndarray, "batch height width channels"],
    *,
    shift: int = 1,
    flip: bool = False,
) -> UInt8[Array, "batch height width channels"]:
    """Each image moved by up to `shift` pixels both ways, zeros moving in.

    With `flip`, every image is also mirrored left to right with probability 1/2.
    Raises ValueError if `shift` is negative.
    """
    if shift < 0:
        raise ValueError(f"shift is {shift}; give a number of pixels >= 0")
    batch, *shape = images.shape
    # One draw, sliced: a draw of its own for each use would compile one more kernel.
    # The remainder favours some moves by less than shift * 2**-30, relatively.
    bits = jax.random.bits(key, (batch, 3), jnp.uint32)
    corners = (bits[:, :2] % (2 * shift + 1)).astype(jnp.int32)
    padded = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))

    def crop(image, corner):
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), shape)

    moved = jax.vmap(crop)(padded, corners)
    if not flip:
        return moved
    mirrored = (bits[:, 2] >> 31).astype(bool)[:, None, None, None]
    return jnp.where(mirrored, moved[:, :, ::-1], moved)
