"""The formats images are stored in: each function finds its files in a place and says how to read them to arrays.

A finder takes a path and returns a `Stored`, or None where its files are not there. Readers check what they read (magic
numbers, sizes, counts, types) and raise DataError with the file's name; no reader runs anything a file brings with it.
Images come in slices, so that a set may outgrow memory; only the batches of CIFAR and SVHN, which are no larger than
the published ones, are read whole.
"""

# ruff: noqa: PLC0415 -- a reader imports its library when it reads, not before
import contextlib
import dataclasses
import gzip
import hashlib
import importlib.util
import io
import json
import math
import pickle
import struct
import typing as t
import zipfile
import zlib
from pathlib import Path

import numpy as np

Part = t.Literal["train", "test", "all"]  # all: one heap of images, to be split by whoever reads it
Array = np.ndarray[t.Any, np.dtype[t.Any]]

SLICE = 2**23  # bytes of images that are in memory at a time
LARGEST_FILE = 2**32  # bytes an idx file or a CIFAR batch may hold: far above any published set, far below a bomb
LARGEST_IMAGE = 2**24  # pixels
HARMLESS = 2**27  # bytes that anything may unpack to
LARGEST_RATIO = 300  # of unpacked to packed bytes beyond that; MNIST's is 5, a bomb's 1,000
IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP", "TIFF")  # Pillow's others include some that start programs
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".webp", ".tif", ".tiff"})


class DataError(Exception):
    """Data that is there but wrong; the message says what was wanted, what came and where."""


class Rows(t.NamedTuple):
    """What a reader returns; `bench.data` checks that the three fit together."""

    images: t.Iterable[Array]  # uint8 (k, c, h, w), one slice after the other, to be gone through once
    labels: Array  # integers (n,)
    classes: tuple[str, ...] | None = None  # None where the format does not name them


@dataclasses.dataclass(frozen=True)
class Stored:
    """A dataset found on disk: the files each part is made of, and how to read one part."""

    files: t.Mapping[Part, tuple[Path, ...]]  # {train, test} or {all}
    read: t.Callable[[Part], Rows]


def must_not_explode(where: Path | str, unpacked: int, packed: int) -> None:
    """Raise DataError for bytes that unpack to very many more."""
    if unpacked > max(HARMLESS, LARGEST_RATIO * packed):
        raise DataError(f"{where} would unpack from {packed:,} to {unpacked:,} bytes; data that is meant well does not")


# --- idx: MNIST and its kin -------------------------------------------------------------------------------------------


def idx(folder: Path) -> Stored | None:
    """The four idx files of MNIST's layout, plain or gzipped. Format: the end of yann.lecun.com/exdb/mnist."""
    files: dict[Part, tuple[Path, ...]] = {}
    parts: tuple[tuple[Part, str], ...] = (("train", "train"), ("test", "t10k"))
    for part, prefix in parts:
        images = _plain_or_gzipped(folder / f"{prefix}-images-idx3-ubyte")
        labels = _plain_or_gzipped(folder / f"{prefix}-labels-idx1-ubyte")
        if images is None or labels is None:
            return None
        files[part] = images, labels

    def read(part: Part) -> Rows:
        images, labels = files[part]
        return Rows((some[:, None] for some in _idx_slices(images, ndim=3)), read_idx(labels, ndim=1))

    return Stored(files, read)


def _plain_or_gzipped(path: Path) -> Path | None:
    return next((file for file in (path, path.with_name(f"{path.name}.gz")) if file.is_file()), None)


def read_idx(path: Path, ndim: int) -> Array:
    """The uint8 array of an idx file of bytes; its magic number, sizes and length must agree exactly."""
    return np.concatenate(list(_idx_slices(path, ndim)))


def _idx_slices(path: Path, ndim: int) -> t.Iterator[Array]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            header = file.read(4 + 4 * ndim)
            if header[:4] != bytes([0, 0, 8, ndim]):
                wanted = f"wanted the magic number 0x0000080{ndim} (bytes, {ndim} dimensions)"
                raise DataError(f"{path} is not the idx file it should be: {wanted}, got 0x{header[:4].hex()}")
            if len(header) < 4 + 4 * ndim:
                raise DataError(f"{path} is truncated: it ends inside its header")
            count, *shape = struct.unpack(f">{ndim}I", header[4:])
            claimed = count * math.prod(shape)
            if claimed > LARGEST_FILE:
                claims = f"{path} claims the shape {(count, *shape)}: {claimed:,} bytes"
                raise DataError(f"{claims}, more than {LARGEST_FILE:,}")
            must_not_explode(path, claimed, path.stat().st_size)
            yield from _slices(file, count, tuple(shape), np.dtype(np.uint8), path)
            if file.read(1):
                raise _wrong_length(path, (count, *shape), claimed, "more")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


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
    return DataError(f"{where} has the wrong length: its shape {shape} wants {wanted:,} bytes, it has {came}")


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

    def read(part: Part) -> Rows:
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
            f"{path} is not the published file: wanted MD5 {wanted}, got {digest}; remove it to fetch it anew"
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
        raise DataError(f"a CIFAR batch asks for {module}.{name}; only numpy arrays are read")


# --- SVHN and STL-10 --------------------------------------------------------------------------------------------------


def svhn(folder: Path) -> Stored | None:
    """SVHN's cropped digits: two MATLAB files; label 10 means the digit 0. Source: ufldl.stanford.edu/housenumbers."""
    files: dict[Part, tuple[Path, ...]] = {
        "train": (folder / "train_32x32.mat",),
        "test": (folder / "test_32x32.mat",),
    }

    def read(part: Part) -> Rows:
        from scipy.io import loadmat, whosmat

        [path] = files[part]
        try:
            claimed = sum(math.prod(shape) * 8 for _, shape, _ in whosmat(path))
            must_not_explode(path, claimed, path.stat().st_size)
            content = loadmat(path, variable_names=["X", "y"])
            images, labels = np.asarray(content["X"]), np.asarray(content["y"]).reshape(-1)
        except Exception as error:  # loadmat meets broken files with whatever it stumbles over
            raise DataError(f"{path} is not SVHN's MATLAB file (arrays X and y): {error}") from error
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

    def read(part: Part) -> Rows:
        images, labels = files[part]
        count, over = divmod(images.stat().st_size, 3 * 96 * 96)
        if over:
            size = f"{images.stat().st_size:,} bytes"
            raise DataError(f"{images} must hold images of 3 x 96 x 96 bytes; its {size} are no multiple of that")

        def columns_first() -> t.Iterator[Array]:
            with images.open("rb") as file:
                for some in _slices(file, count, (3, 96, 96), np.dtype(np.uint8), images):
                    yield some.transpose(0, 1, 3, 2)

        return Rows(columns_first(), np.fromfile(labels, np.uint8).astype(np.int64) - 1)

    return _if_all_there(files, read)


def _if_all_there(files: t.Mapping[Part, tuple[Path, ...]], read: t.Callable[[Part], Rows]) -> Stored | None:
    return Stored(files, read) if all(path.is_file() for part in files.values() for path in part) else None


# --- tables that ship with other packages -----------------------------------------------------------------------------


def packaged_csv(package: str, file: str, side: int, levels: int) -> Stored | None:
    """A gzipped table inside an installed package: side x side pixels of 0..levels and a label a row, as 0..255."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / file

    def read(_: Part) -> Rows:
        with gzip.open(path, "rt") as table:
            values = np.loadtxt(table, np.uint8, delimiter=",")
        pixels = np.round(values[:, :-1] * (255 / levels)).astype(np.uint8)
        return Rows([pixels.reshape(-1, 1, side, side)], values[:, -1])

    return _if_all_there({"all": (path,)}, read)


# --- npz --------------------------------------------------------------------------------------------------------------

NPZ_NAMES = (("{}_images", "{}_labels"), ("x_{}", "y_{}"))


def npz(path: Path) -> Stored | None:
    """One npz file with {train,test}_{images,labels}, or with Keras's x_train, y_train, x_test, y_test."""
    if not path.is_file():
        return None

    def read(part: Part) -> Rows:
        with _readable(path), path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise DataError(f"{path} is a single array, not an npz of several")
            members = arrays.zip.infolist() if arrays.zip else []
            must_not_explode(path, sum(member.file_size for member in members), path.stat().st_size)
            for names in NPZ_NAMES:
                image_name, label_name = (name.format(part) for name in names)
                if image_name in arrays and label_name in arrays:
                    break
            else:
                wanted = " or ".join(" and ".join(name.format(part) for name in names) for names in NPZ_NAMES)
                raise DataError(f"{path} has no {part} set: wanted the arrays {wanted}, found {', '.join(arrays)}")
            labels = arrays[label_name]
            if f"{image_name}.npy" not in {member.filename for member in members} or not isinstance(labels, np.ndarray):
                raise DataError(f"{path}: {image_name} and {label_name} must be arrays")
        if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras keeps CIFAR's
            labels = labels[:, 0]
        return Rows(_npz_slices(path, image_name), labels)

    return Stored({"train": (path,), "test": (path,)}, read)


def _npz_slices(path: Path, name: str) -> t.Iterator[Array]:
    """The images of an npz, channels first."""
    with _readable(path), zipfile.ZipFile(path) as arrays, arrays.open(f"{name}.npy") as file:
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, columns_first, dtype = header[np.lib.format.read_magic(file)](file)
        if dtype != np.uint8:
            raise DataError(f"{path}: {name} must be uint8 in 0..255, got {dtype}")
        channels_first = _channels_first(shape, f"{path}: {name}")
        if columns_first:  # Fortran's order, where no row is in one piece
            yield channels_first(np.frombuffer(file.read(), np.uint8).reshape(shape, order="F"))
        else:
            yield from map(channels_first, _slices(file, shape[0], shape[1:], dtype, f"{path}: {name}"))


@contextlib.contextmanager
def _readable(path: Path) -> t.Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # numpy and zipfile meet broken files with whatever they stumble over
        raise DataError(f"{path} is not an npz of plain numeric arrays; pickled objects are not read") from error


def _channels_first(shape: tuple[int, ...], where: str) -> t.Callable[[Array], Array]:
    """From (n, h, w), (n, h, w, c) or (n, c, h, w) to (n, c, h, w); c is 1 or 3, only one axis may look like it."""
    if len(shape) == 3:
        return lambda images: images[:, None]
    if len(shape) == 4:
        first, last = shape[1] in {1, 3}, shape[3] in {1, 3}
        if first and last:
            raise DataError(f"{where} has the shape {shape}, whose channels could be first or last")
        if first or last:
            return lambda images: images if first else images.transpose(0, 3, 1, 2)
    raise DataError(f"{where} must be (n, h, w), (n, h, w, c) or (n, c, h, w) with c 1 or 3; got {shape}")


# --- Parquet, as Hugging Face lays it out -----------------------------------------------------------------------------


def parquet(folder: Path) -> Stored | None:
    """train-*.parquet and test-*.parquet (or validation-*): an image column of encoded bytes and a label column."""
    train = tuple(sorted(folder.glob("train-*.parquet")))
    test = tuple(sorted(folder.glob("test-*.parquet")) or sorted(folder.glob("validation-*.parquet")))
    if not train or not test:
        return None
    files: dict[Part, tuple[Path, ...]] = {"train": train, "test": test}

    def read(part: Part) -> Rows:
        shards = [_read_shard(path) for path in files[part]]
        classes = {shard.classes for shard in shards}
        if len(classes) > 1:
            raise DataError(f"{folder}: the {part} files name different classes")
        labels = np.concatenate([shard.labels for shard in shards])
        encoded = (one for path, shard in zip(files[part], shards) for one in _encoded(path, shard.column))
        return Rows(_decode(encoded, len(labels), sum(path.stat().st_size for path in files[part])), labels, *classes)

    return Stored(files, read)


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

    try:
        schema = pq.read_schema(path)
        images = [field.name for field in schema if is_image(field.type)]
        labels = [name for name in ("label", "labels", "fine_label") if name in schema.names]
        if len(images) != 1 or not labels:
            wanted = "one column of image bytes (binary, or a struct with bytes), and label, labels or fine_label"
            raise DataError(f"{path} must have {wanted}; it has {', '.join(schema.names)}")
        label = read_columns(path, labels[:1])[labels[0]]
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error
    _check_whole(path, labels[0], label)
    if not pa.types.is_integer(label.type):
        raise DataError(f"{path}: {labels[0]} must be integers, got {label.type}")
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = described.get("info", {}).get("features", {}).get(labels[0], {}).get("names")
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: its metadata 'huggingface' is not what it should be: {error}") from error
    return _Shard(images[0], label.to_numpy(), tuple(names) if names else None)


def _encoded(path: Path, column: str) -> t.Iterator[tuple[str, io.BytesIO]]:
    """What errors call it and the bytes of every image of a Parquet file."""
    import pyarrow as pa
    import pyarrow.compute as pc

    row = 0
    try:
        for batch in _batches(path, [column]):
            images = batch[column]
            encoded = pc.struct_field(images, "bytes") if pa.types.is_struct(images.type) else images
            _check_whole(path, column, encoded)
            for content in encoded:
                yield f"{path}, row {row}", io.BytesIO(content.as_py())
                row += 1
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error


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
        must_not_explode(path, sum(group.total_byte_size for group in groups), size)
        rows = min(1024, HARMLESS // (largest + 1) + 1)
        for group in range(len(groups)):  # of several together pyarrow keeps all in memory until the last is read
            for batch in file.iter_batches(rows, row_groups=[group], columns=columns):
                unpacked += batch.nbytes
                must_not_explode(path, unpacked, size)
                yield batch


# --- folders of image files -------------------------------------------------------------------------------------------


def folder(path: Path) -> Stored | None:
    """PATH/{train,test}/<class>/<image files>, or PATH/<class>/<image files>, which is one heap yet to be split."""
    if not path.is_dir():
        return None
    if (path / "train").is_dir() and (path / "test").is_dir():
        by_class: dict[Part, dict[str, list[Path]]] = {
            "train": _images_by_class(path / "train"),
            "test": _images_by_class(path / "test"),
        }
    elif (path / "train").is_dir() and _folders(path / "train"):
        raise DataError(f"{path} has train but no test folder; wanted train/<class>/* and test/<class>/*, or <class>/*")
    else:
        by_class = {"all": _images_by_class(path)}
    classes = tuple(by_class.get("train", by_class.get("all", {})))
    for strange in set(by_class.get("test", {})) - set(classes):
        raise DataError(f"{path / 'test' / strange}: no class of that name in {path / 'train'}")

    def read(part: Part) -> Rows:
        pairs = [(file, name) for name, files in by_class[part].items() for file in files]
        packed = sum(file.stat().st_size for file, _ in pairs)
        images = _decode(((str(file), file) for file, _ in pairs), len(pairs), packed)
        return Rows(images, np.array([classes.index(name) for _, name in pairs]), classes)

    files = {part: tuple(file for group in groups.values() for file in group) for part, groups in by_class.items()}
    return Stored(files, read)


def _images_by_class(path: Path) -> dict[str, list[Path]]:
    groups = {
        group.name: sorted(f for f in group.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file())
        for group in _folders(path)
    }
    suffixes = " ".join(sorted(IMAGE_SUFFIXES))
    if not any(groups.values()):
        raise DataError(f"no images in {path}: wanted a folder for each class with {suffixes} files in it")
    for name, files in groups.items():
        if not files:
            raise DataError(f"no images in {path / name}: wanted {suffixes} files, or no such folder")
    return groups


def _folders(path: Path) -> list[Path]:
    entries = [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    return sorted(entries, key=lambda entry: (int(entry.name) if entry.name.isdecimal() else -1, entry.name))


def _decode(images: t.Iterable[tuple[str, Path | io.BytesIO]], count: int, packed: int) -> t.Iterator[Array]:
    """Encoded images, each with a name for errors, as slices (k, c, h, w); all of one size, all grey or all RGB.

    There are `count` of them, in `packed` bytes. One thread: for small images Pillow's time is spent in Python (2
    threads on 2 cores gained 7 % on CIFAR-10).
    """
    from PIL import Image

    decoded: Array = np.empty((0, 1, 1, 1), np.uint8)
    first, wanted = "", ("", (0, 0))
    filled = 0
    for row, (name, encoded) in enumerate(images):
        try:
            with Image.open(encoded, formats=IMAGE_FORMATS) as image:
                found = image.mode, image.size
                if row == 0:
                    if image.width * image.height > LARGEST_IMAGE:
                        raise DataError(f"{name} is {_described(*found)}: more than {LARGEST_IMAGE:,} pixels")
                    if image.mode not in {"L", "RGB"}:
                        raise DataError(f"{name} is {_described(*found)}; convert the images to 8-bit grey or RGB")
                    first, wanted = name, found
                    shape = image.height, image.width, len(image.getbands())
                    must_not_explode(name, count * math.prod(shape), packed)
                    decoded = np.empty((max(1, SLICE // math.prod(shape)), *shape), np.uint8)
                elif found != wanted:
                    raise DataError(f"{name} is {_described(*found)}, but {first} is {_described(*wanted)}")
                decoded[filled] = np.asarray(image).reshape(decoded.shape[1:])
        except DataError:
            raise
        except Exception as error:  # Pillow meets broken files with whatever it stumbles over
            raise DataError(f"{name} does not decode as an image: {error}") from error
        filled += 1
        if filled == len(decoded):
            yield decoded.transpose(0, 3, 1, 2)
            decoded, filled = np.empty_like(decoded), 0
    if filled or not count:
        yield decoded[:filled].transpose(0, 3, 1, 2)


def _described(mode: str, size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} {mode}"
