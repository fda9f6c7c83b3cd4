"""Predictions beside a record: the class of every test image. Written and read here only."""

import hashlib
import io
import math
import typing as t
from pathlib import Path

import numpy as np

from results import store
from results.arrays import read_arrays, read_npz
from results.record import Record
from results.statistics import Correct
from results.store import Contents, StoreError

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
    except store.Missing as error:
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


def correct(record: Record, run: Path) -> Correct:
    """(images,): whether each test image was classified correctly.

    Raises StoreError for files that cannot be read, and for predictions that do not give the record's top1.
    """
    path = run / str(record.predictions)
    largest = 16 * record.test_images + 4096  # bytes of an array and its header
    content = store.read_bytes(path, 64 * largest)  # predictions of other draws, or of corrupted images, may be in it
    try:
        kept = read_npz(content, 64 * largest, ("predicted", "label"))
        right: Correct = np.asarray(kept["predicted"] == kept["label"])
    except ValueError as error:
        raise StoreError(f"{path}: the predictions cannot be read: {error}") from error
    told = share(record) or 0.0
    if right.shape != (record.test_images,) or not math.isclose(right.mean(), told, abs_tol=1e-9):
        percent = f"{100 * told:.2f} % of {record.test_images:,} images"
        raise StoreError(f"{path}: these are not the predictions of its record, which has {percent} right")
    return right


def answers(contents: Contents) -> t.Callable[[Record], Correct | None]:
    """What `correct` gives for a record of these contents; None where it has no predictions, or damaged ones."""
    places = {id(record): path for path, record in contents.whole.items()}

    def read(record: Record) -> Correct | None:
        path = places.get(id(record))
        if path is None or record.predictions is None or "top1" not in record.metrics:
            return None
        try:
            return correct(record, path.parents[2])
        except StoreError:
            return None

    return read
