"""Predictions beside a record: the class of every test image. Written and read here only."""

import hashlib
import io
import math
import typing as t
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from results import files
from results.arrays import Array, read_npz
from results.files import Missing, StoreError
from results.record import Record
from results.store import Contents

Classes = np.ndarray[t.Any, np.dtype[t.Any]]  # of integers from 0 up
MAX_BYTES = 2**30  # that the predictions of one record may take in memory
MAX_SHOWN_BYTES = 2**26  # of those that are drawn or sent


@dataclass(frozen=True)
class Predictions:
    """The class that a record gives each test image, and the true one; of few labels once for each of its draws."""

    predicted: Classes  # (draws, images)
    label: Classes  # (images,)

    @property
    def correct(self) -> np.ndarray[t.Any, np.dtype[np.bool_]]:
        """(images,): whether each was classified correctly, by the first draw."""
        return np.asarray(self.predicted[0] == self.label)


def digest(classes: t.Mapping[str, Classes]) -> str:
    """SHA-256 of `predicted` and `label`, then of what else was predicted, whatever integers they are stored as."""
    others = sorted(classes.keys() - {"predicted", "label"})
    digest = hashlib.sha256(np.stack([classes["predicted"], classes["label"]]).astype("<i8").data)
    for name in others:
        digest.update(name.encode())
        digest.update(classes[name].astype("<i8").data)
    return digest.hexdigest()


def to_npz(classes: t.Mapping[str, Classes], count: int) -> bytes:
    """`predicted` and `label` of every test row in the order of the rows, and what else was predicted.

    count: of the classes there are.
    """
    buffer = io.BytesIO()
    small: dict[str, t.Any] = {name: rows.astype(np.min_scalar_type(count)) for name, rows in classes.items()}
    np.savez_compressed(buffer, **small)
    return buffer.getvalue()


def read(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Classes]:
    """What `to_npz` wrote, as int64: {name: (images,)}, `predicted` and `label` among them.

    Raises StoreError for a file that is gone or not one of ours.
    """
    try:
        return {name: rows.astype(np.int64) for name, rows in _read(path, max_bytes).items()}
    except Missing as error:
        raise StoreError("is gone", path) from error


def _read(path: Path, max_bytes: int, names: t.Collection[str] = ()) -> dict[str, Classes]:
    content = files.read_bytes(path, max_bytes)
    try:
        arrays = read_npz(content, max_bytes, names)
        label = arrays["label"]
        for rows in (arrays["predicted"], *arrays.values()):
            if label.ndim != 1 or rows.shape != label.shape or not (_are_classes(rows) and _are_classes(label)):
                came = f"{rows.dtype} {rows.shape} and {label.dtype} {label.shape}"
                raise ValueError(f"wanted two rows of classes, predicted and label; got {came}")
    except KeyError as error:
        raise StoreError(f"cannot be read: it has no array {error}", path) from error
    except ValueError as error:
        raise StoreError(f"cannot be read: {error}", path) from error
    return arrays


def beside(
    record: Record, run: Path, max_bytes: int = MAX_SHOWN_BYTES, names: t.Collection[str] = ()
) -> dict[str, Classes]:
    """Those of a record as they are stored, {name: (images,)}; `run` is its run's directory; names: all if not given.

    Raises Missing, and StoreError for a file that has not a class for each test image.
    """
    path = run / str(record.predictions)
    arrays = _read(path, max_bytes, names)
    if len(arrays["label"]) != record.test_images:
        came = f"got {len(arrays['label']):,}"
        raise StoreError(f"wanted a class for each of {record.test_images:,} images; {came}", path)
    return arrays


def share(record: Record) -> float | None:
    """The top1 that the predictions of a record give; of few labels they are of the first draw."""
    return record.metrics.get("top1", next(iter(repeated(record)[1]), None))


def repeated(record: Record) -> tuple[str | None, list[float]]:
    """What a protocol repeated with one seed's encoder, and the top1 of each repetition."""
    for by, name in (("subset", "draws"), ("probe", "repeats")):
        every = record.details.get(name)
        if isinstance(every, list) and all(
            isinstance(one, dict) and isinstance(one.get("top1"), float) for one in every
        ):
            return by, [one["top1"] for one in every]
    return None, []


def of(record: Record, run: Path) -> Predictions:
    """What a record's predictions say of each test image; `run` is its run's directory.

    Raises Missing, and StoreError for a file that cannot be read or does not give the record's top1.
    """
    path = run / str(record.predictions)
    by, draws = repeated(record)
    few = by == "subset"
    size = 64 * (16 * record.test_images + 4096)  # predictions of other draws, or of corrupted images, may be in it
    arrays = beside(record, run, size, () if few else ("predicted", "label"))
    names = ["predicted", *(f"draw{one}" for one in range(1, len(draws)) if few and f"draw{one}" in arrays)]
    one = Predictions(np.stack([arrays[name] for name in names]), arrays["label"])
    top1 = share(record)
    if top1 is not None and not math.isclose(one.correct.mean(), top1, abs_tol=1e-9):
        percent = f"{100 * top1:.2f} % of {record.test_images:,} images"
        raise StoreError(f"these are not the predictions of its record, which has {percent} right", path)
    return one


def _are_classes(rows: Array) -> bool:
    kind, size = rows.dtype.kind, rows.dtype.itemsize
    return (kind == "u" and size <= 2) or (kind in "iu" and bool(((rows >= 0) & (rows < 2**16)).all()))


def classes(contents: Contents) -> t.Callable[[Record], Predictions | None]:
    """What `of` gives for a record of these contents that judges by them; None where it has none, or damaged ones.

    Each file is read once.
    """
    places = {id(record): path for path, record in contents.whole.items()}
    known: dict[int, Predictions | None] = {}
    labels: dict[tuple[str, bytes], Array] = {}  # that many records share

    def read(record: Record) -> Predictions | None:
        path = places.get(id(record))
        if path is None or record.predictions is None or next(iter(record.metrics), "") not in ("top1", "mean_top1"):
            return None
        if id(record) not in known:
            try:
                one = of(record, path.parents[2])
                label = labels.setdefault((one.label.dtype.str, one.label.tobytes()), one.label)
                known[id(record)] = Predictions(one.predicted, label)
            except StoreError:
                known[id(record)] = None
        return known[id(record)]

    return read


def answers(
    classes: t.Callable[[Record], Predictions | None],
) -> t.Callable[[Record], np.ndarray[t.Any, np.dtype[np.bool_]] | None]:
    """Whether each test image was classified correctly; None where `classes` has none, or few labels were drawn."""

    def correct(record: Record) -> np.ndarray[t.Any, np.dtype[np.bool_]] | None:
        one = classes(record) if "top1" in record.metrics else None
        return None if one is None else one.correct

    return correct
