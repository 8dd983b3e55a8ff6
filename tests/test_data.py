"""Splits, decoding, bad folders, batches and augmentation."""

import io
import sys

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jaxnas.data import augment, load_images

KEY = jax.random.key(7)
SPLITS = ("train", "validation", "test")


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(path, cells, labels, image="image", label="label"):
    path.parent.mkdir(parents=True, exist_ok=True)
    structs = [{"bytes": cell, "path": None} for cell in cells]
    pq.write_table(pa.table({image: structs, label: labels}), path)


def pictures(count, shape=(5, 4), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def fill(folder, shape=(5, 4), train=10, test=4, **columns):
    """A valid folder whose label is the number of the picture, and its pictures."""
    drawn = pictures(train, shape), pictures(test, shape, 1)
    for split, images in zip(("train", "test"), drawn, strict=True):
        labels = list(range(len(images)))
        write(folder / f"{split}.parquet", map(png, images), labels, **columns)
    return drawn


def test_digits_are_the_embedded_set_split_into_disjoint_parts():
    from sklearn.datasets import load_digits

    data = load_images("digits")
    sizes = [len(getattr(data, f"{split}_labels")) for split in SPLITS]
    assert sizes == [899, 359, 539] and data.classes == 10
    bunch = load_digits()
    words = np.rint(bunch.images * 255 / 16).astype(np.uint8).reshape(1797, 64)
    expected = sorted(zip(map(bytes, words), bunch.target, strict=True))
    found = []
    for split in SPLITS:
        images = getattr(data, f"{split}_images")
        assert images.shape[1:] == (8, 8, 1) and images.dtype == np.uint8
        labels = getattr(data, f"{split}_labels")
        assert labels.dtype == np.int32
        found += zip(map(bytes, images.reshape(-1, 64)), labels, strict=True)
    assert sorted(found) == expected


def test_seed_fixes_the_split_and_limit_keeps_its_beginning():
    full, again = load_images(seed=3), load_images(seed=3)
    few, other = load_images(seed=3, limit=20), load_images(seed=4)
    for name in full._fields[2:]:
        np.testing.assert_array_equal(getattr(full, name), getattr(again, name))
        np.testing.assert_array_equal(getattr(full, name)[:20], getattr(few, name))
    assert (full.train_labels[:100] != other.train_labels[:100]).any()


@pytest.mark.parametrize(
    "name, shape", [("mnist", (28, 28, 1)), ("cifar10", (32, 32, 3))]
)
def test_real_parquet_folder_gives_the_stored_pixels(shared, name, shape):
    folder = shared(f"data/{name}")
    data = load_images(folder, limit=30)
    assert data.name == name and data.classes == 10
    assert data.train_images.shape == data.test_images.shape == (30, *shape)
    train = {image.tobytes() for image in data.train_images}
    assert len(train) == 30
    assert not train & {image.tobytes() for image in data.validation_images}
    assert not train & {image.tobytes() for image in data.test_images}
    # A fifth of the test split, decoded apart: some of the thirty must be among it.
    rows = pq.read_table(folder / "test.parquet")[:2000].to_pylist()
    pixels = [Image.open(io.BytesIO(row["image"]["bytes"])).tobytes() for row in rows]
    stored = dict(zip(pixels, (row["label"] for row in rows), strict=True))
    found = [
        (image.tobytes(), label)
        for image, label in zip(data.test_images, data.test_labels, strict=True)
    ]
    known = [(stored[image], label) for image, label in found if image in stored]
    assert known and all(expected == label for expected, label in known)


@pytest.mark.parametrize("layout", ["", "data", "plain_text"])
@pytest.mark.parametrize("columns", [{}, {"image": "img", "label": "fine_label"}])
def test_folder_keeps_each_image_with_its_label(tmp_path, layout, columns):
    train, test = fill(tmp_path / layout, **columns)
    data = load_images(tmp_path, validation_share=0.3)
    assert data.train_images.shape == (7, 5, 4, 1) and data.classes == 10
    for split, source in [("train", train), ("validation", train), ("test", test)]:
        images = getattr(data, f"{split}_images")
        labels = getattr(data, f"{split}_labels")
        np.testing.assert_array_equal(images[..., 0], source[labels])
    used = [*data.train_labels, *data.validation_labels]
    assert sorted(used) == list(range(10)) and len(data.test_labels) == 4


def test_folder_with_several_files_and_its_own_validation_split(tmp_path):
    images = pictures(9, (4, 4, 3))
    for i in range(3):
        cells = map(png, images[3 * i : 3 * i + 3])
        write(tmp_path / f"train-0000{i}-of-00003.parquet", cells, [i] * 3)
    write(tmp_path / "validation-0.parquet", map(png, images[:2]), [0, 0])
    write(tmp_path / "test-0.parquet", map(png, images[5:6]), [1])
    data = load_images(tmp_path)
    assert sorted(data.train_labels) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data.validation_images.shape == (2, 4, 4, 3)
    np.testing.assert_array_equal(data.test_images[0], images[5])


def test_grey_pictures_among_colour_ones_become_colour(tmp_path):
    grey, colour = pictures(1)[0], pictures(1, (5, 4, 3))[0]
    write(tmp_path / "train.parquet", [png(grey), png(colour)] * 2, [0, 1, 0, 1])
    write(tmp_path / "test.parquet", [png(grey)], [0])
    data = load_images(tmp_path, validation_share=0.3)
    np.testing.assert_array_equal(data.test_images[0], np.stack([grey] * 3, -1))


def two_sizes(folder):
    write(
        folder / "train.parquet",
        map(png, [*pictures(3), pictures(1, (6, 4))[0]]),
        [0] * 4,
    )


def broken_bytes(folder):
    write(folder / "train.parquet", [b"no picture"] * 10, [0] * 10)


def deep_pixels(folder):
    deep = pictures(10).astype(np.uint16) * 257
    write(folder / "train.parquet", map(png, deep), [0] * 10)


def other_test_size(folder):
    write(folder / "test.parquet", map(png, pictures(2, (3, 3))), [0, 1])


def plain_numbers(folder):
    pq.write_table(
        pa.table({"image": [1, 2], "label": [0, 1]}), folder / "train.parquet"
    )


BAD_FOLDERS = {
    "no train": (lambda d: (d / "train.parquet").unlink(), "no train.*parquet.*put"),
    "no test": (lambda d: (d / "test.parquet").unlink(), "no test split.*give"),
    "not parquet": (
        lambda d: (d / "train.parquet").write_bytes(b"PAR1 nothing"),
        "cannot be read.*download",
    ),
    "no image column": (lambda d: fill(d, image="pixels"), "no column image or img"),
    "no label column": (lambda d: fill(d, label="y"), "no column label or .*rename"),
    "image sizes": (two_sizes, "differ in size, from 4x5 to 4x6.*resize"),
    "test size": (other_test_size, "splits .* differ in image size.*resize"),
    "broken bytes": (broken_bytes, "cannot be decoded.*PNG or JPEG"),
    "16 bits": (deep_pixels, "more than 8 bits.*convert"),
    "numbers": (plain_numbers, "expected encoded images"),
    "unlabelled": (
        lambda d: write(d / "train.parquet", map(png, pictures(3)), [0, -1, 1]),
        "the smallest is -1; expected one class number >= 0",
    ),
    "text labels": (
        lambda d: write(d / "train.parquet", map(png, pictures(2)), ["a", "b"]),
        "expected one class number",
    ),
    "too few": (lambda d: fill(d, train=2), "validation split .* would be empty.*give"),
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_bad_folder_is_explained_in_one_line(tmp_path, name):
    fill(tmp_path)
    damage, message = BAD_FOLDERS[name]
    damage(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        load_images(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["/no/such/folder", "./missing", "a/b/c"])
def test_missing_folder_is_not_looked_up_on_the_hub(source):
    with pytest.raises(ValueError, match=f"data folder {source} does not exist.*give"):
        load_images(source)


def test_hub_set_is_read_by_name_and_its_failure_explained(tmp_path, monkeypatch):
    import datasets
    import huggingface_hub

    fill(tmp_path)
    local = datasets.load_dataset(
        "parquet",
        data_files={s: str(tmp_path / f"{s}.parquet") for s in ("train", "test")},
        cache_dir=str(tmp_path / "cache"),
    )

    asked = []

    def dataset_info(self, name, **_):
        asked.append(name)
        if name != "owner/known":
            raise ConnectionError("no network\nand more")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(datasets, "load_dataset", lambda name: local)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert len(load_images("owner/known").train_labels) == 8
    with pytest.raises(ValueError, match=r"'owner/other' is neither .*\(no network\)"):
        load_images("owner/other")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert len(load_images("owner/other").train_labels) == 8
    assert asked == ["owner/known", "owner/other"]


def test_without_the_extra_the_cure_is_named(tmp_path, monkeypatch):
    fill(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'jaxnas\[datasets\]'"):
        load_images(tmp_path)
    with pytest.raises(ValueError, match=r"pip install 'jaxnas\[datasets\]'"):
        load_images("owner/name")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"validation_share": 0.0}, "validation_share is 0.0"),
        ({"test_share": 1.0}, "test_share 1.0"),
        ({"validation_share": 0.5, "test_share": 0.5}, "sum below 1"),
        ({"limit": 0}, "limit is 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        load_images("digits", **options)


def test_augment_gives_every_shift_of_the_padded_image_and_mirrors():
    image = pictures(1, (3, 4, 2))[0] | 1
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    moves = [padded[i : i + 3, j : j + 4] for i in range(3) for j in range(3)]
    batch = np.stack([image] * 300)
    plain = np.asarray(jax.jit(augment)(KEY, batch))
    flipped = np.asarray(augment(KEY, batch, flip=True))

    def which(picture, candidates):
        return [i for i, c in enumerate(candidates) if np.array_equal(picture, c)][0]

    places = np.array([which(p, moves) for p in plain])
    # 33 of each expected, standard deviation 5.4.
    assert np.bincount(places, minlength=9).min() > 12
    mirrored = np.array(
        [which(p, moves + [m[:, ::-1] for m in moves]) for p in flipped]
    )
    # 150 mirrored ones expected, standard deviation 8.7; the moves are the same.
    assert 100 < (mirrored >= 9).sum() < 200
    np.testing.assert_array_equal(mirrored % 9, places)
    np.testing.assert_array_equal(augment(KEY, batch, shift=0), batch)
    with pytest.raises(ValueError, match="shift is -1"):
        augment(KEY, batch, shift=-1)
