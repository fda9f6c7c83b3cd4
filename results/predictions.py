"""Predictions beside a record: the class of every test image. Written and read here only."""

import hashlib
import io
import math
import typing as t
from pathlib import Path

import numpy as np

from results import files
from results.arrays import Array, read_arrays, read_npz
from results.by_class import Told
from results.files import StoreError
from results.record import Record
from results.statistics import Correct
from results.store import Contents

Classes = np.ndarray[t.Any, np.dtype[t.Any]]  # (images,), of integers
LARGEST = 2**30  # bytes that those of one record may take in memory


def digest(classes: t.Mapping[str, Classes]) -> str:
    """SHA-256 of `predicted` and `label`, then of what else was predicted, whatever integers they are stored as."""
    others = sorted(classes.keys() - {"predicted", "label"})
    found = hashlib.sha256(np.stack([classes["predicted"], classes["label"]]).astype("<i8").data)
    for name in others:
        found.update(name.encode())
        found.update(classes[name].astype("<i8").data)
    return found.hexdigest()


def to_npz(classes: t.Mapping[str, Classes], count: int) -> bytes:
    """`predicted` and `label` of every test row in the order of the rows, and what else was predicted.

    count: of the classes there are.
    """
    buffer = io.BytesIO()
    small: dict[str, t.Any] = {name: rows.astype(np.min_scalar_type(count)) for name, rows in classes.items()}
    np.savez_compressed(buffer, **small)
    return buffer.getvalue()


def read(path: Path) -> dict[str, Classes]:
    """What `to_npz` wrote, as int64. Raises StoreError, without the path, for a file that is not one of ours."""
    try:
        kept = read_arrays(path, LARGEST)
        true = kept["label"]
        for rows in (kept["predicted"], *kept.values()):
            if true.ndim != 1 or rows.shape != true.shape or not {rows.dtype.kind, true.dtype.kind} <= {"i", "u"}:
                came = f"{rows.dtype} {rows.shape} and {true.dtype} {true.shape}"
                raise StoreError(f"wanted two rows of classes, predicted and label; got {came}")
    except files.Missing as error:
        raise StoreError("is gone") from error
    except KeyError as error:
        raise StoreError(f"cannot be read: it has no array {error}") from error
    except StoreError as error:
        raise StoreError(str(error).removeprefix(f"{path}: ")) from error
    return {name: rows.astype(np.int64) for name, rows in kept.items()}


def share(record: Record) -> float | None:
    """The top1 that the predictions of a record give; of few labels they are of the first draw."""
    return record.metrics.get("top1", next(iter(repeated(record)[1]), None))


def repeated(record: Record) -> tuple[str | None, list[float]]:
    """What a protocol repeated with one seed's encoder, and the top1 of each repetition."""
    for by, name in (("subset", "draws"), ("probe", "repeats")):
        made = record.details.get(name)
        if isinstance(made, list) and all(isinstance(one, dict) and isinstance(one.get("top1"), float) for one in made):
            return by, [one["top1"] for one in made]
    return None, []


def told(record: Record, run: Path) -> Told:
    """What a record's predictions say of each test image.

    Raises StoreError for files that cannot be read, and for predictions that do not give the record's top1.
    """
    path = run / str(record.predictions)
    largest = 16 * record.test_images + 4096  # bytes of an array and its header
    content = files.read_bytes(path, 64 * largest)  # predictions of other draws, or of corrupted images, may be in it
    by, draws = repeated(record)
    try:
        kept = read_npz(content, 64 * largest, () if by == "subset" else ("predicted", "label"))
        names = ["predicted", *(f"draw{one}" for one in range(1, len(draws)) if by == "subset")]
        rows = {name: kept[name] for name in ("label", *names) if name in kept or name in ("predicted", "label")}
        if any(one.shape != (record.test_images,) or not _are_classes(one) for one in rows.values()):
            raise ValueError(f"wanted a class for each of {record.test_images:,} images")
        label = rows.pop("label")
    except (ValueError, KeyError) as error:
        raise StoreError(f"{path}: the predictions cannot be read: {error}") from error
    one = Told(np.stack(list(rows.values())), label)
    top1 = share(record) or 0.0
    if not math.isclose((one.predicted[0] == label).mean(), top1, abs_tol=1e-9):
        percent = f"{100 * top1:.2f} % of {record.test_images:,} images"
        raise StoreError(f"{path}: these are not the predictions of its record, which has {percent} right")
    return one


def _are_classes(rows: Array) -> bool:
    kind, size = rows.dtype.kind, rows.dtype.itemsize
    return (kind == "u" and size <= 2) or (kind in "iu" and bool(((rows >= 0) & (rows < 2**16)).all()))


def correct(record: Record, run: Path) -> Correct:
    """(images,): whether each test image was classified correctly. Raises StoreError as `told` does."""
    one = told(record, run)
    return np.asarray(one.predicted[0] == one.label)


def classes(contents: Contents) -> t.Callable[[Record], Told | None]:
    """What `told` gives for a record of these contents that judges by them; None where it has none, or damaged ones.

    Each file is read once.
    """
    places = {id(record): path for path, record in contents.whole.items()}
    known: dict[int, Told | None] = {}
    labels: dict[tuple[str, bytes], Array] = {}  # that many records share

    def read(record: Record) -> Told | None:
        path = places.get(id(record))
        if path is None or record.predictions is None or next(iter(record.metrics), "") not in ("top1", "mean_top1"):
            return None
        if id(record) not in known:
            try:
                one = told(record, path.parents[2])
                label = labels.setdefault((one.label.dtype.str, one.label.tobytes()), one.label)
                known[id(record)] = Told(one.predicted, label)
            except StoreError:
                known[id(record)] = None
        return known[id(record)]

    return read


def answers(classes: t.Callable[[Record], Told | None]) -> t.Callable[[Record], Correct | None]:
    """Whether each test image was classified correctly; None where `classes` has none, or few labels were drawn."""

    def right(record: Record) -> Correct | None:
        one = classes(record) if "top1" in record.metrics else None
        return None if one is None else np.asarray(one.predicted[0] == one.label)

    return right
