"""The formats images are stored in: each function finds its files in a place and says how to read them to arrays.

A finder takes a path and returns a `Stored`, or None where its files are not there. Readers check what they read (magic
numbers, sizes, counts, types) and raise DataError with the file's name; no reader runs anything a file brings with it.
Images come in slices, so that a set may outgrow memory; only the batches of CIFAR and SVHN, which are no larger than
the published ones, are read whole.
"""

# ruff: noqa: PLC0415 -- a reader imports its library when it reads, not before
import contextlib
import dataclasses
import functools
import gzip
import hashlib
import importlib.util
import io
import json
import logging
import math
import os
import pickle
import re
import struct
import typing as t
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np

if t.TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

# all: one heap of images, to be split by whoever reads it; validation: only of those with a test set besides
Part = t.Literal["train", "test", "validation", "all"]
SPLITS: dict[str, Part] = {  # what files and folders call them, in any case
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "t10k"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
}
Found = t.TypeVar("Found")
Array = np.ndarray[t.Any, np.dtype[t.Any]]

SLICE = 2**23  # bytes of images that are in memory at a time
MAX_FILE_BYTES = 2**32  # bytes an idx file or a CIFAR batch may hold: far above any published set, far below a bomb
MAX_PIXELS = 2**24  # pixels
HARMLESS = 2**27  # bytes that anything may unpack to
MAX_RATIO = 300  # of unpacked to packed bytes beyond that; MNIST's is 5, a bomb's 1,000
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP", "TIFF", "GIF")  # Pillow's others include some that start programs
IMAGE_SUFFIXES = {
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".pbm", ".pgm", ".ppm", ".pnm", ".webp"),
    *(".tif", ".tiff", ".gif"),
}
ORIENTATION = 0x0112  # of a camera that was turned, in EXIF
MODES = {"grey": "L", "rgb": "RGB"}  # Pillow's


class DataError(Exception):
    """Data that is there but wrong; the message says what was wanted, what came and where."""

    exit_code = 4


class Form(t.NamedTuple):
    """What all images are made to be; None leaves them as they are."""

    size: int | None = None  # pixels a side: of the largest square in the middle, scaled linearly
    mode: t.Literal["grey", "rgb"] | None = None


class Rows(t.NamedTuple):
    """What a reader returns; `bench.datasets` checks that the three fit together."""

    images: t.Iterable[Array]  # uint8 (k, c, h, w), one slice after the other, to be gone through once
    labels: Array  # integers or text (n,)
    classes: tuple[str, ...] | None = None  # None where the format does not name them


@dataclasses.dataclass(frozen=True)
class Stored:
    """A dataset found on disk: the files each part is made of, and how to read one part."""

    files: t.Mapping[Part, tuple[Path, ...]]  # {train, test}, {train, validation, test} or {all}
    read: t.Callable[[Part, Form], Rows]  # only where images are encoded do they come in this form


def check_unpacked_size(where: Path | str, unpacked: int, packed: int) -> None:
    """Raise DataError for bytes that unpack to very many more."""
    if unpacked > max(HARMLESS, MAX_RATIO * packed):
        raise DataError(f"{where} would unpack from {packed:,} to {unpacked:,} bytes: perhaps a decompression bomb")


@contextlib.contextmanager
def readable(otherwise: str, *, why: bool = False) -> t.Iterator[None]:
    """Raise DataError in place of whatever a library stumbles over in a broken file; `why` adds what that was."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{otherwise}: {error}" if why else otherwise) from error


def class_order(name: str) -> tuple[int, str]:
    """Numbers by their value, before them other names by their letters."""
    return (int(name) if name.isdecimal() and len(name) < 4000 else -1, name)


def _tested(parts: t.Mapping[Part, Found]) -> dict[Part, Found]:
    """The same parts; where a validation set is all there is to test on, it is the test set, as ImageNet has it."""
    found = dict(parts)
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    return found


@functools.cache
def _say(message: str) -> None:
    """Once, however often the data is loaded."""
    logger.warning(message)


# --- idx: MNIST and its kin -------------------------------------------------------------------------------------------


IDX_NAME = re.compile(rf"(.*?)[-_]?({'|'.join(SPLITS)})[-_.](images|labels)[-_.]idx[13]([-_.]ubyte)?(\.gz)?", re.I)


def idx(path: Path) -> Stored | None:
    """idx files as MNIST and EMNIST name them, plain or gzipped. Format: the end of yann.lecun.com/exdb/mnist.

    path: their folder; of one with several sets also how the names of one begin, such as emnist-letters. Images are as
    they are stored, which EMNIST's are columns first.
    """
    folder, beginning = (path, None) if path.is_dir() else (path.parent, path.name)
    sets: dict[str, dict[Part, dict[str, Path]]] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():  # a plain file comes before its gzipped one
        named = IDX_NAME.fullmatch(file.name)
        if named and beginning in (None, named[1]) and file.is_file():
            pair = sets.setdefault(named[1], {}).setdefault(SPLITS[named[2].lower()], {})
            pair.setdefault(named[3].lower(), file)
    found: dict[str, dict[Part, tuple[Path, ...]]] = {}
    for prefix, halves in sets.items():
        parts = _tested({part: (two["images"], two["labels"]) for part, two in halves.items() if len(two) == 2})
        if {"train", "test"} <= parts.keys():
            found[prefix] = {**parts}
    if len(found) > 1:
        raise DataError(f"{folder} has several sets; name one: {', '.join(f'idx:{folder / name}' for name in found)}")
    if not found:
        return None
    [files] = found.values()

    def read(part: Part, _: Form) -> Rows:
        images, labels = files[part]
        return Rows((some[:, None] for some in _idx_slices(images, ndim=3)), read_idx(labels, ndim=1))

    return Stored(files, read)


def read_idx(path: Path, ndim: int) -> Array:
    """The uint8 array of an idx file of bytes; its magic number, sizes and length must agree exactly."""
    return np.concatenate(list(_idx_slices(path, ndim)))


def _idx_slices(path: Path, ndim: int) -> t.Iterator[Array]:
    opened = gzip.open if path.suffix == ".gz" else open
    with readable(f"{path} cannot be read", why=True), opened(path, "rb") as file:
        header = file.read(4 + 4 * ndim)
        if header[:4] != bytes([0, 0, 8, ndim]):
            wanted = f"wanted the magic number 0x0000080{ndim} (bytes, {ndim} dimensions)"
            raise DataError(f"{path} is not an idx file: {wanted}, got 0x{header[:4].hex()}")
        if len(header) < 4 + 4 * ndim:
            raise DataError(f"{path} is truncated: it ends inside its header")
        count, *shape = struct.unpack(f">{ndim}I", header[4:])
        claimed = count * math.prod(shape)
        if claimed > MAX_FILE_BYTES:
            claims = f"{path} declares the shape {(count, *shape)}: {claimed:,} bytes"
            raise DataError(f"{claims}, more than {MAX_FILE_BYTES:,}")
        check_unpacked_size(path, claimed, path.stat().st_size)
        yield from _slices(file, count, tuple(shape), np.dtype(np.uint8), path)
        if file.read(1):
            raise _wrong_length(path, (count, *shape), claimed, "more")


def _slices(
    file: gzip.GzipFile | t.IO[bytes], count: int, shape: tuple[int, ...], dtype: np.dtype[t.Any], where: Path | str
) -> t.Iterator[Array]:
    """So many rows of this shape, as they follow each other in a file. Raises DataError if it ends before."""
    size = math.prod(shape) * dtype.itemsize
    step = max(1, SLICE // max(size, 1))
    for start in range(0, max(count, 1), step):  # none is a slice, too
        rows = min(step, count - start)
        content = file.read(rows * size)
        if len(content) != rows * size:
            raise _wrong_length(where, (count, *shape), count * size, f"{start * size + len(content):,}")
        yield np.frombuffer(content, dtype).reshape(rows, *shape)


def _wrong_length(where: Path | str, shape: tuple[int, ...], wanted: int, came: str) -> DataError:
    return DataError(f"{where} has the wrong length: its shape {shape} needs {wanted:,} bytes, it has {came}")


# --- CIFAR's own batches ----------------------------------------------------------------------------------------------

CIFAR_MD5 = {  # published at cs.toronto.edu/~kriz/cifar.html's archives, and pinned by torchvision
    "cifar-10-batches-py/data_batch_1": "c99cafc152244af753f735de768cd75f",
    "cifar-10-batches-py/data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "cifar-10-batches-py/data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "cifar-10-batches-py/data_batch_4": "634d18415352ddfa80567beed471001a",
    "cifar-10-batches-py/data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "cifar-10-batches-py/test_batch": "40351d587109b95175f43aff81a1287e",
    "cifar-10-batches-py/batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
    "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "cifar-100-python/meta": "7973b15100ade9c7d40fb424638fde48",
}


def cifar_batches(folder: Path) -> Stored | None:
    """CIFAR-10's and CIFAR-100's Python archives: pickles, opened only if their digest is the published one."""
    batches = [folder / name.split("/")[1] for name in CIFAR_MD5 if name.startswith(f"{folder.name}/")]
    if not batches or not all(path.is_file() for path in batches):
        return None
    *train, test, meta = batches
    files: dict[Part, tuple[Path, ...]] = {"train": (*train, meta), "test": (test, meta)}

    def read(part: Part, _: Form) -> Rows:
        *contents, names = map(_read_cifar_pickle, files[part])
        images = np.concatenate([batch["data"] for batch in contents]).reshape(-1, 3, 32, 32)
        fine = "labels" if "labels" in contents[0] else "fine_labels"
        classes = names.get("label_names") or names["fine_label_names"]
        return Rows([images], np.concatenate([batch[fine] for batch in contents]), tuple(classes))

    return Stored(files, read)


def _read_cifar_pickle(path: Path) -> dict[str, t.Any]:
    content = path.read_bytes()  # digested and unpickled from the same bytes: the file cannot change in between
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    wanted = CIFAR_MD5[f"{path.parent.name}/{path.name}"]
    if digest != wanted:
        raise DataError(
            f"{path} is not the published file: wanted MD5 {wanted}, got {digest}; remove it to download it again"
        )
    loaded = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    if not isinstance(loaded, dict):
        raise DataError(f"{path} holds a {type(loaded).__name__}, not a dictionary")
    return loaded


class _ArraysOnly(pickle.Unpickler):
    """MD5 can be forged, so the pickle itself may name nothing but numpy's arrays."""

    def find_class(self, module: str, name: str) -> t.Any:
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.zeros(0).__reduce__()[0]  # where this numpy keeps the same function
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        raise DataError(f"a CIFAR batch refers to {module}.{name}; only NumPy arrays are read")


# --- SVHN and STL-10 --------------------------------------------------------------------------------------------------


def svhn(folder: Path) -> Stored | None:
    """SVHN's cropped digits: two MATLAB files; label 10 means the digit 0. Source: ufldl.stanford.edu/housenumbers."""
    files: dict[Part, tuple[Path, ...]] = {"train": (folder / "train_32x32.mat",), "test": (folder / "test_32x32.mat",)}

    def read(part: Part, _: Form) -> Rows:
        from scipy.io import loadmat, whosmat

        [path] = files[part]
        with readable(f"{path} is not SVHN's MATLAB file (arrays X and y)", why=True):
            claimed = sum(math.prod(shape) * 8 for _, shape, _ in whosmat(path))
            check_unpacked_size(path, claimed, path.stat().st_size)
            content = loadmat(path, variable_names=["X", "y"])
            images, labels = np.asarray(content["X"]), np.asarray(content["y"]).reshape(-1)
        if images.ndim != 4 or images.shape[:3] != (32, 32, 3):
            raise DataError(f"{path}: X must be (32, 32, 3, n), got {images.shape}")
        if labels.dtype.kind not in "iu" or not np.isin(labels, range(1, 11)).all():
            raise DataError(f"{path}: labels must be integers in 1..10 (10 is the digit 0)")
        return Rows([images.transpose(3, 2, 0, 1)], labels % 10)

    return _if_all_there(files, read)


def stl10(folder: Path) -> Stored | None:
    """STL-10's labelled images: raw bytes, columns first, labels from 1. Source: cs.stanford.edu/~acoates/stl10."""
    files: dict[Part, tuple[Path, ...]] = {
        "train": (folder / "train_X.bin", folder / "train_y.bin"),
        "test": (folder / "test_X.bin", folder / "test_y.bin"),
    }

    def read(part: Part, _: Form) -> Rows:
        images, labels = files[part]
        count, over = divmod(images.stat().st_size, 3 * 96 * 96)
        if over:
            size = f"{images.stat().st_size:,} bytes"
            raise DataError(f"{images} must hold images of 3 x 96 x 96 bytes; {size} is not a multiple")

        def columns_first() -> t.Iterator[Array]:
            with images.open("rb") as file:
                for some in _slices(file, count, (3, 96, 96), np.dtype(np.uint8), images):
                    yield some.transpose(0, 1, 3, 2)

        return Rows(columns_first(), np.fromfile(labels, np.uint8).astype(np.int64) - 1)

    return _if_all_there(files, read)


def _if_all_there(files: t.Mapping[Part, tuple[Path, ...]], read: t.Callable[[Part, Form], Rows]) -> Stored | None:
    return Stored(files, read) if all(path.is_file() for part in files.values() for path in part) else None


# --- tables that ship with other packages -----------------------------------------------------------------------------


def packaged_csv(package: str, file: str, side: int, levels: int) -> Stored | None:
    """A gzipped table inside an installed package: side x side pixels of 0..levels and a label a row, as 0..255."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / file

    def read(_: Part, __: Form) -> Rows:
        with gzip.open(path, "rt") as table:
            values = np.loadtxt(table, np.uint8, delimiter=",")
        pixels = np.round(values[:, :-1] * (255 / levels)).astype(np.uint8)
        return Rows([pixels.reshape(-1, 1, side, side)], values[:, -1])

    return _if_all_there({"all": (path,)}, read)


# --- npz --------------------------------------------------------------------------------------------------------------

NOT_NPZ = "is not an npz of plain arrays of numbers or text; pickled objects are not read"
NPZ_NAMES = (("{}_images", "{}_labels"), ("x_{}", "y_{}"))


def npz(path: Path) -> Stored | None:
    """One npz file with {train,val,test}_{images,labels}, or with Keras's x_train, y_train and so on."""
    if not path.is_file():
        return None
    with readable(f"{path} {NOT_NPZ}"), path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise DataError(f"{path} is a single array, not an npz of several")
        there = list(archive)
    pairs: dict[Part, tuple[str, str]] = {}
    for split, part in SPLITS.items():
        for names in NPZ_NAMES:
            image_name, label_name = (name.format(split) for name in names)
            if image_name in there and label_name in there:
                if part in pairs:
                    raise DataError(f"{path}: {pairs[part][0]} and {image_name} are both the {part} set; remove one")
                pairs[part] = image_name, label_name
    pairs = _tested(pairs)
    for part in ("train", "test"):
        if part not in pairs:
            wanted = " or ".join(" and ".join(name.format(part) for name in names) for names in NPZ_NAMES)
            raise DataError(f"{path} has no {part} set: wanted the arrays {wanted}, found {', '.join(there)}")

    def read(part: Part, _: Form) -> Rows:
        image_name, label_name = pairs[part]
        with readable(f"{path} {NOT_NPZ}"), path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            members = arrays.zip.infolist()
            check_unpacked_size(path, sum(member.file_size for member in members), path.stat().st_size)
            labels = arrays[label_name]
            if f"{image_name}.npy" not in {member.filename for member in members} or not isinstance(labels, np.ndarray):
                raise DataError(f"{path}: {image_name} and {label_name} must be arrays")
            labels = np.char.decode(labels, "utf-8") if labels.dtype.kind == "S" else labels
        if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras keeps CIFAR's
            labels = labels[:, 0]
        return Rows(_npz_slices(path, image_name), labels)

    return Stored(dict.fromkeys(pairs, (path,)), read)


def _npz_slices(path: Path, name: str) -> t.Iterator[Array]:
    """The images of an npz, channels first."""
    with readable(f"{path} {NOT_NPZ}"), zipfile.ZipFile(path) as arrays, arrays.open(f"{name}.npy") as file:
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, columns_first, dtype = header[np.lib.format.read_magic(file)](file)
        if dtype != np.uint8:
            raise DataError(f"{path}: {name} must be uint8 in 0..255, got {dtype}")
        channels_first = _channels_first(shape, f"{path}: {name}")
        if columns_first:  # Fortran's order, where no row is in one piece
            yield channels_first(np.frombuffer(file.read(), np.uint8).reshape(shape, order="F"))
        else:
            yield from map(channels_first, _slices(file, shape[0], shape[1:], dtype, f"{path}: {name}"))


def _channels_first(shape: tuple[int, ...], where: str) -> t.Callable[[Array], Array]:
    """From (n, h, w), (n, h, w, c) or (n, c, h, w) to (n, c, h, w); c is 1 or 3, only one axis may look like it."""
    if len(shape) == 3:
        return lambda images: images[:, None]
    if len(shape) == 4:
        first, last = shape[1] in {1, 3}, shape[3] in {1, 3}
        if first and last:
            raise DataError(f"{where} has the shape {shape}, which is ambiguous: its channels may be first or last")
        if first or last:
            return lambda images: images if first else images.transpose(0, 3, 1, 2)
    raise DataError(f"{where} must be (n, h, w), (n, h, w, c) or (n, c, h, w) with c 1 or 3; got {shape}")


# --- Parquet, as Hugging Face lays it out -----------------------------------------------------------------------------


def parquet(folder: Path) -> Stored | None:
    """Parquet files of an image column of encoded bytes and a label column, named as Hugging Face names them.

    That is train-*.parquet, train.parquet or train/*.parquet, likewise test and validation: in the folder, or in one
    below it (data, default, or the name of the only configuration).
    """
    if not folder.is_dir():
        return None
    found = {folder: parts} if (parts := _parquet_parts(folder)) else {}
    found = found or {below: parts for below in _folders(folder) if (parts := _parquet_parts(below))}
    if len(found) > 1:
        raise DataError(f"{folder} has several sets; name one: {', '.join(f'parquet:{place}' for place in found)}")
    if not found:
        return None
    [(place, files)] = found.items()
    used = set().union(*files.values())
    if left := [file for file in [*place.glob("*.parquet"), *place.glob("*/*.parquet")] if file not in used]:
        _say(f"{place}: ignored {len(left):,} .parquet files whose names give no split, such as {left[0].name}")

    def read(part: Part, form: Form) -> Rows:
        shards = [_read_shard(path) for path in files[part]]
        classes = {shard.classes for shard in shards}
        if len(classes) > 1:
            raise DataError(f"{folder}: the {part} files name different classes")
        if len({shard.labels.dtype.kind in "iu" for shard in shards}) > 1:
            raise DataError(f"{folder}: some {part} files have integer labels, others text")
        labels = np.concatenate([shard.labels for shard in shards])
        encoded = (one for path, shard in zip(files[part], shards) for one in _encoded(path, shard.column))
        images = _decode(encoded, len(labels), sum(path.stat().st_size for path in files[part]), form)
        return Rows(images, labels, *classes)

    return Stored(files, read)


def _parquet_parts(place: Path) -> dict[Part, tuple[Path, ...]]:
    """The files of each part that lie in this folder; none unless there are train and test."""
    groups: dict[Part, dict[str, list[Path]]] = {}  # by part, then by what it is called here
    for entry in sorted(place.iterdir()):
        split, *_ = re.split(r"[-.]", entry.name)
        if entry.is_dir() and entry.name.lower() in SPLITS:
            found = sorted(entry.glob("*.parquet"))
        else:
            found = [entry] if entry.suffix == ".parquet" and split.lower() in SPLITS else []
        for file in filter(Path.is_file, found):  # opening a pipe would wait for ever
            called = f"{entry.name}/" if entry.is_dir() else split
            groups.setdefault(SPLITS[split.lower()], {}).setdefault(called, []).append(file)
    parts = _tested(groups)
    if not {"train", "test"} <= parts.keys():
        return {}
    for part, called in parts.items():
        if len(called) > 1:
            raise DataError(f"{place}: {' and '.join(called)} are both the {part} set; remove one")
    return {part: _whole_set(files) for part, called in parts.items() for files in called.values()}


def _whole_set(files: list[Path]) -> tuple[Path, ...]:
    """The same files. Raises DataError if their names (-00000-of-00003, or 0000) say that some are missing or twice."""
    numbered = [re.search(r"-(\d{1,9})-of-(\d{1,9})(?=[-.])", file.name) for file in files]
    if any(numbered):
        places = [(int(one[1]), int(one[2])) if one else (-1, -1) for one in numbered]
        counts = {of for _, of in places}
        if len(counts) > 1:
            other = next(file for file, (_, of) in zip(files, places) if of != places[0][1])
            raise DataError(f"{other} and {files[0].name} cannot be files of one set; remove one of the sets")
        count = counts.pop()
    elif all(file.stem.isdecimal() for file in files):
        places = [(int(file.stem), 0) for file in files]
        count = max(place for place, _ in places) + 1
    else:
        return tuple(files)
    known: dict[int, Path] = {}
    for file, (place, _) in zip(files, places):
        if place in known or place >= count:
            raise DataError(f"{file} is too many for {count} files with {known.get(place, files[0]).name}; remove one")
        known[place] = file
    if missing := [str(place) for place in range(count) if place not in known]:
        some = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise DataError(f"{files[0].parent}: of the {count} files such as {files[0].name}, number {some} is missing")
    return tuple(files)


LABELS = ("label", "labels", "fine_label", "cls")  # columns; the last is WebDataset's


class _Shard(t.NamedTuple):
    column: str  # of its images
    labels: Array
    classes: tuple[str, ...] | None


def _read_shard(path: Path) -> _Shard:
    """All of a Parquet file but its images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def is_image(kind: t.Any) -> bool:
        if pa.types.is_struct(kind):
            return any(child.name == "bytes" and is_image(child.type) for child in kind)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    with readable(f"{path} is not a readable Parquet file", why=True):
        schema = pq.read_schema(path)
        images = [field.name for field in schema if is_image(field.type)]
        labels = [name for name in LABELS if name in schema.names]
        if len(images) != 1 or not labels:
            wanted = f"one column of image bytes (binary, or a struct with bytes), and one of {', '.join(LABELS)}"
            raise DataError(f"{path} must have {wanted}; it has {', '.join(schema.names)}")
        label = read_columns(path, labels[:1])[labels[0]]
    _check_whole(path, labels[0], label)
    if pa.types.is_dictionary(label.type):
        label = label.cast(label.type.value_type)
    is_text = pa.types.is_string(label.type) or pa.types.is_large_string(label.type)
    if not (is_text or pa.types.is_integer(label.type) or pa.types.is_boolean(label.type)):
        raise DataError(f"{path}: {labels[0]} must be integers or text, got {label.type}")
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = described.get("info", {}).get("features", {}).get(labels[0], {}).get("names")
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: its metadata 'huggingface' is invalid: {error}") from error
    numbers = np.array(label.to_pylist(), np.str_) if is_text else label.to_numpy()
    return _Shard(
        images[0], numbers.astype(np.uint8) if numbers.dtype == np.bool_ else numbers, tuple(names) if names else None
    )


def _encoded(path: Path, column: str) -> t.Iterator[tuple[str, io.BytesIO]]:
    """What errors call it and the bytes of every image of a Parquet file."""
    import pyarrow as pa
    import pyarrow.compute as pc

    row = 0
    with readable(f"{path} is not a readable Parquet file", why=True):
        for batch in _batches(path, [column]):
            images = batch[column]
            encoded = pc.struct_field(images, "bytes") if pa.types.is_struct(images.type) else images
            _check_whole(path, column, encoded)
            for content in encoded:
                yield f"{path}, row {row}", io.BytesIO(content.as_py())
                row += 1


def _check_whole(path: Path, name: str, column: t.Any) -> None:
    if column.null_count:
        raise DataError(f"{path}: {column.null_count} of {len(column)} rows have no {name}")


def read_columns(path: Path, columns: list[str]) -> t.Any:
    """Columns of a Parquet file as a table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(path).empty_table().select(columns).schema
    return pa.Table.from_batches(list(_batches(path, columns)), schema)


def _batches(path: Path, columns: list[str]) -> t.Iterator[t.Any]:
    """A few rows at a time: a value that is kept once in the file may stand in a million rows of the table."""
    import pyarrow.parquet as pq

    size, unpacked = path.stat().st_size, 0
    with pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
        largest = max((group.total_byte_size for group in groups), default=0)  # no value is larger
        check_unpacked_size(path, sum(group.total_byte_size for group in groups), size)
        rows = min(1024, HARMLESS // (largest + 1) + 1)
        for group in range(len(groups)):  # of several together pyarrow keeps all in memory until the last is read
            for batch in file.iter_batches(rows, row_groups=[group], columns=columns):
                unpacked += batch.nbytes
                check_unpacked_size(path, unpacked, size)
                yield batch


# --- folders of image files -------------------------------------------------------------------------------------------


LIKE_A_SPLIT = re.compile(rf"({'|'.join(SPLITS)})([^a-z]|$)", re.I)  # train_images, val2017


def folder(path: Path) -> Stored | None:
    """PATH/{train,val,test}/<class>/<image files>, or PATH/<class>/<image files>, which is one heap yet to be split.

    Of val or valid and test one may be missing. What is no image that is read is passed over, which is said.
    """
    if not path.is_dir():
        return None
    splits: dict[Part, Path] = {}
    others = []
    for entry in _folders(path):
        part = SPLITS.get(entry.name.lower())
        if part is None:
            others.append(entry)
        elif part in splits:
            raise DataError(f"{path}: {splits[part].name} and {entry.name} are both the {part} set; remove one")
        else:
            splits[part] = entry
    if others and not splits and all(LIKE_A_SPLIT.match(other.name) for other in others):
        named = " and ".join(other.name for other in others[:3])
        raise DataError(
            f"{path}: {named} are named like splits, not classes; wanted train/<class>/* and test/<class>/*"
        )
    parts: dict[Part, Path] = _tested(splits) if splits else {"all": path}
    if splits and not {"train", "test"} <= parts.keys():
        [missing] = {"train", "test"} - parts.keys()
        has = f"{path} has {' and '.join(place.name for place in parts.values())} but no {missing} folder"
        raise DataError(f"{has}; wanted train/<class>/* and test/<class>/*, or <class>/* with no such class")
    passed_over: Counter[str] = Counter()
    if splits:
        passed_over["files outside the splits"] = _loose_files(path) + sum(_files_below(other) for other in others)
    by_class = {part: _images_by_class(place, passed_over) for part, place in parts.items()}
    if passed_over := +passed_over:
        _say(f"{path}: ignored {', '.join(f'{kind} ({count:,})' for kind, count in sorted(passed_over.items()))}")
    first: Part = "all" if "all" in parts else "train"
    classes = tuple(by_class[first])
    for part, groups in by_class.items():
        for strange in set(groups) - set(classes):
            raise DataError(f"{parts[part] / strange}: no class of that name in {parts[first]}")

    def read(part: Part, form: Form) -> Rows:
        pairs = [(file, name) for name, files in by_class[part].items() for file in files]
        packed = sum(file.stat().st_size for file, _ in pairs)
        images = _decode(((str(file), file) for file, _ in pairs), len(pairs), packed, form)
        return Rows(images, np.array([classes.index(name) for _, name in pairs]), classes)

    files = {part: tuple(file for group in groups.values() for file in group) for part, groups in by_class.items()}
    return Stored(files, read)


def _images_by_class(path: Path, passed_over: Counter[str]) -> dict[str, list[Path]]:
    """The images of each class; what else is there is counted by its kind."""
    passed_over["files outside the classes"] += _loose_files(path)
    passed_over["broken links"] += sum(not entry.exists() for entry in path.iterdir())
    groups: dict[str, list[Path]] = {}
    for group in _folders(path):
        files = groups[group.name] = []
        for entry in os.scandir(group):  # which asks the file system once a folder, not once a file
            suffix = Path(entry.name).suffix.lower()
            if entry.name.startswith("."):
                passed_over["hidden files"] += 1
            elif entry.is_dir():
                passed_over["files in folders inside a class"] += _files_below(Path(entry))
            elif not entry.is_file():
                passed_over["broken links" if entry.is_symlink() else "special files"] += 1
            elif suffix not in IMAGE_SUFFIXES:
                passed_over[f"{suffix} files" if suffix else "files without a suffix"] += 1
            else:
                files.append(Path(entry))
        files.sort()
    suffixes = " ".join(sorted(IMAGE_SUFFIXES))
    if not any(groups.values()):
        raise DataError(f"no images in {path}: wanted a folder for each class with {suffixes} files in it")
    for name, files in groups.items():
        if not files:
            raise DataError(f"no images in {path / name}: add {suffixes} files, or remove the folder")
    return groups


def _loose_files(path: Path) -> int:
    return sum(entry.is_file() and not entry.name.startswith(".") for entry in os.scandir(path))


def _files_below(path: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(path))


def _folders(path: Path) -> list[Path]:
    entries = [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    return sorted(entries, key=lambda entry: class_order(entry.name))


# --- encoded images ---------------------------------------------------------------------------------------------------


def _decode(
    images: t.Iterable[tuple[str, Path | io.BytesIO]], count: int, packed: int, form: Form
) -> t.Iterator[Array]:
    """Encoded images, each with a name for errors, as slices (k, c, h, w); all of one size, all grey or all RGB.

    There are `count` of them, in `packed` bytes. An orientation in EXIF is applied, and of an animation the first frame
    is read. One thread: for small images Pillow's time is spent in Python (2 threads on 2 cores gained 7 % on
    CIFAR-10).
    """
    from PIL import Image, ImageOps

    decoded: Array = np.empty((0, 1, 1, 1), np.uint8)
    first, wanted = "", ("", (0, 0))
    filled = animated = 0
    for row, (name, encoded) in enumerate(images):
        source = encoded.open("rb") if isinstance(encoded, Path) else encoded  # by its path Pillow 13 maps a raw TIFF
        with (  # .. that is turned, with height and width exchanged
            readable(f"{name} cannot be decoded as an image", why=True),
            source as file,
            Image.open(file, formats=IMAGE_FORMATS) as opened,
        ):
            came = _described(opened)
            if opened.width * opened.height > MAX_PIXELS:
                raise DataError(f"{name} is {came}: more than {MAX_PIXELS:,} pixels")
            if opened.mode not in MODES.values() and form.mode is None:
                raise DataError(f"{name} is {came}, neither 8-bit grey nor RGB; {_hint('mode')}")
            animated += getattr(opened, "is_animated", False)
            if opened.getexif().get(ORIENTATION, 1) != 1:
                ImageOps.exif_transpose(opened, in_place=True)
            image = _in_form(opened, form)
            found = image.mode, image.size
            if row == 0:
                first, wanted, before = name, found, came
                shape = image.height, image.width, len(image.getbands())
                if form.size is None:
                    check_unpacked_size(name, count * math.prod(shape), packed)
                decoded = np.empty((max(1, SLICE // math.prod(shape)), *shape), np.uint8)
            elif found != wanted:
                differ = [what for what, a, b in zip(("mode", "size"), found, wanted) if a != b]
                raise DataError(f"{name} is {came}, but {first} is {before}; {_hint(*differ)}")
            decoded[filled] = np.asarray(image).reshape(decoded.shape[1:])
        filled += 1
        if filled == len(decoded):
            yield decoded.transpose(0, 3, 1, 2)
            decoded, filled = np.empty_like(decoded), 0
    if animated:
        _say(f"{first} and others: {animated:,} of {count:,} images are animated; only their first frame is read")
    if filled or not count:
        yield decoded[:filled].transpose(0, 3, 1, 2)


def _hint(*differ: str) -> str:
    settings = {"mode": "`mode: rgb` (or grey)", "size": "`size: 64` (pixels a side)"}
    typed = {"mode": "mode: rgb", "size": "size: 64"}
    entry = ", ".join(["name: ...", *(typed[what] for what in differ)])
    return (
        f"to convert the images, give the dataset {' and '.join(settings[what] for what in differ)}: "
        f"{{{entry}}} in a suite, --dataset '{{{entry}}}' on a command line"
    )


def _described(image: "Image.Image") -> str:
    return f"{image.width} x {image.height} {image.mode}"


def in_form(slices: t.Iterable[Array], form: Form) -> t.Iterator[Array]:
    """Images (k, c, h, w) that are decoded already, in this form."""
    from PIL import Image

    for some in slices:
        channels = some.shape[1] if form.mode is None else len(MODES[form.mode])
        height, width = some.shape[2:] if form.size is None else (form.size, form.size)
        if some.shape[1:] == (channels, height, width) or not len(some):
            yield some
            continue
        pixels = some.transpose(0, 2, 3, 1) if some.shape[1] > 1 else some[:, 0]
        step = max(1, SLICE // (channels * height * width))
        for start in range(0, len(some), step):
            made = [np.asarray(_in_form(Image.fromarray(one), form)) for one in pixels[start : start + step]]
            yield np.stack(made).reshape(-1, height, width, channels).transpose(0, 3, 1, 2)


def _in_form(image: "Image.Image", form: Form) -> "Image.Image":
    """Of transparent pixels the colour counts, of 16 bits the upper 8."""
    from PIL import Image, ImageOps

    if form.mode is not None and image.mode != MODES[form.mode]:
        if image.mode.startswith("I"):
            values = np.asarray(image)
            if values.min() < 0 or values.max() >= 2**16:
                raise ValueError("its pixels are not 16-bit numbers")
            image = Image.fromarray((values >> 8).astype(np.uint8))
        elif image.mode == "F":
            raise ValueError("its pixels are floats of unknown range")
        elif image.has_transparency_data:
            image = image.convert("RGBA")
        image = image.convert(MODES[form.mode])
    if form.size is not None and image.size != (form.size, form.size):
        image = ImageOps.fit(image, (form.size, form.size), Image.Resampling.BILINEAR)
    return image
