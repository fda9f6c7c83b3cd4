"""Two stores become one: what only one has is copied, what both have must be the same."""

import json
import typing as t
from dataclasses import dataclass
from pathlib import Path

from results import store
from results.record import Record
from results.store import RunDirectory, StoreError


@dataclass(frozen=True)
class Merged:
    """What a merge came to."""

    new: int  # records that were copied
    same: int  # that both had, with the same numbers
    problems: tuple[str, ...]  # conflicts, of which both sides are kept, and what could not be read

    def __add__(self, more: "Merged") -> "Merged":
        return Merged(self.new + more.new, self.same + more.same, self.problems + more.problems)


def merge(into: Path, others: t.Iterable[Path]) -> Merged:
    """Copy into a store what others have more: runs with all their files, records. The others stay as they are.

    All are directories of suites, or all of one suite. A record whose run was made on both sides must have the same
    numbers; if not, the other's is kept in conflicts/ beside ours and named. Raises StoreError for directories that do
    not fit together, and Unwritable.
    """
    total = Merged(0, 0, ())
    for other in others:
        _must_fit(into, other)
        for there in store.runs_below(other):
            total += _copy_run(there, RunDirectory(into / there.path.relative_to(other)))
        for suite in sorted(other.glob("*/suite.json")):
            if not (into / suite.relative_to(other)).exists():
                store.replace(into / suite.relative_to(other), store.read_bytes(suite))
    return total


def _must_fit(into: Path, other: Path) -> None:
    for one in (into, other):
        if not one.is_dir():
            raise StoreError(f"no results in {one}: there is no such directory")
    if (into / "suite.json").exists() != (other / "suite.json").exists():
        suite, several = (into, other) if (into / "suite.json").exists() else (other, into)
        raise StoreError(f"{suite} is one suite's directory and {several} is not; name two suites, or what holds them")
    if (into / "suite.json").exists():
        names = [_suite_name(one) for one in (into, other)]
        if names[0] != names[1]:
            raise StoreError(
                f"{into} is of the suite {names[0]!r} and {other} of {names[1]!r}; name what holds them both"
            )


def _suite_name(directory: Path) -> str:
    try:
        return str(json.loads(store.read_bytes(directory / "suite.json"))["suite"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{directory / 'suite.json'} is damaged: {error}") from error


def _copy_run(there: RunDirectory, here: RunDirectory) -> Merged:
    """One run: the encoder first, each record after the predictions that it names."""
    try:
        if there.run_json.exists():
            run = store.read_run(there.run_json)
            fresh = not here.run_json.exists()
            files = _about_the_encoder(there) if fresh else []
            contents = {path.relative_to(there.path).as_posix(): store.read_bytes(path) for path in files}
            store.publish_run(here.path, run, contents)
        elif there.failed.exists() and not here.run_json.exists() and not here.failed.exists():
            store.publish_record(here.failed, store.read_record(there.failed))
    except store.Unwritable:
        raise
    except StoreError as error:
        return Merged(0, 0, (str(error),))
    total = Merged(0, 0, ())
    for path in sorted(there.path.glob("scores/*/*.json")):
        try:
            fresh = _copy_record(path, there, here)
        except store.Unwritable:
            raise
        except StoreError as error:
            total += Merged(0, 0, (str(error),))
        else:
            total += Merged(int(fresh), int(not fresh), ())
    return total


def _copy_record(path: Path, there: RunDirectory, here: RunDirectory) -> bool:
    """Whether it was new here."""
    record = store.read_record(path)
    place = here.path / path.relative_to(there.path)
    fresh = not place.exists()
    if record.predictions is not None and fresh:
        store.replace(here.path / _predictions(record), store.read_bytes(there.path / _predictions(record)))
    store.publish_record(place, record)
    return fresh


def _predictions(record: Record) -> Path:
    assert record.predictions is not None
    path = Path(record.predictions)
    if path.is_absolute() or ".." in path.parts or path.parts[:1] != ("predictions",):
        raise StoreError(f"a record names its predictions {record.predictions!r}; wanted a file below predictions/")
    return path


def _about_the_encoder(run: RunDirectory) -> list[Path]:
    files = [run.weights, run.generator, run.encoder_json, run.history, *sorted(run.pictures.glob("*.png"))]
    files += sorted(run.views.glob("*"))
    return [path for path in files if path.exists()]
