"""Two stores become one: what only one has is copied, what both have must be the same."""

import json
import typing as t
from dataclasses import dataclass
from pathlib import Path

from results import files, layout, store
from results.files import StoreError
from results.layout import RunDirectory
from results.record import Json


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
        for there in layout.runs_below(other):
            total += _copy_run(there, RunDirectory(into / there.path.relative_to(other)), other)
        for suite in sorted(other.glob("*/suite.json")):
            if (into / suite.relative_to(other)).exists():
                continue
            try:
                _check_inside(suite, other)
                files.replace(into / suite.relative_to(other), files.read_bytes(suite, files.MAX_JSON_BYTES))
            except files.Unwritable:
                raise
            except StoreError as error:
                total += Merged(0, 0, (str(error),))
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
        return str(json.loads(files.read_bytes(directory / "suite.json", files.MAX_JSON_BYTES))["suite"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{directory / 'suite.json'} is damaged: {error}") from error


def _copy_run(there: RunDirectory, here: RunDirectory, top: Path) -> Merged:
    """One run below `top`: the encoder first, each record after the predictions that it names."""
    try:
        _check_inside(there.path, top)
        if there.run_json.exists():
            run = store.read_run(there.run_json, "weights_sha256")
            beside = [] if here.run_json.exists() else _about_the_encoder(there)
            for path in beside:
                _check_inside(path, there.path)
                _check_whole(path, there, run)
            contents = {path.relative_to(there.path).as_posix(): files.read_bytes(path) for path in beside}
            store.publish_run(here.path, run, contents)
        elif there.failed.exists() and not here.run_json.exists() and not here.failed.exists():
            store.publish_record(here.failed, store.read_record(there.failed))
    except files.Unwritable:
        raise
    except StoreError as error:
        return Merged(0, 0, (f"the run {there.path} is left out: {error}",))
    total = Merged(0, 0, ())
    for path in sorted(there.path.glob("scores/*/*.json")):
        try:
            fresh = _copy_record(path, there, here)
        except files.Unwritable:
            raise
        except StoreError as error:
            total += Merged(0, 0, (str(error),))
        else:
            total += Merged(int(fresh), int(not fresh), ())
    return total


def _copy_record(path: Path, there: RunDirectory, here: RunDirectory) -> bool:
    """Whether it was new here."""
    _check_inside(path, there.path)
    record = store.read_record(path)
    place = here.path / path.relative_to(there.path)
    fresh = not place.exists()
    if record.predictions is not None and fresh:
        _check_inside(there.path / record.predictions, there.path)
        files.replace(here.path / record.predictions, files.read_bytes(there.path / record.predictions))
    store.publish_record(place, record)
    return fresh


def _check_inside(path: Path, directory: Path) -> None:
    """What somebody else's directory links to outside of it is not ours to copy. Raises StoreError."""
    if not path.resolve().is_relative_to(directory.resolve()):
        raise StoreError(f"{path} leads out of {directory}; what lies elsewhere is not copied")


def _check_whole(path: Path, run: RunDirectory, about: dict[str, Json]) -> None:
    """That a file is as its run.json has it, as far as that says. Raises StoreError."""
    known = {layout.name_in(run, run.weights): about["weights_sha256"], **(about.get("files") or {})}
    known |= {layout.name_in(run, run.generator): about["generator_sha256"]} if "generator_sha256" in about else {}
    wanted = known.get(layout.name_in(run, path))
    if wanted is not None and files.file_digest(path) != wanted:
        raise StoreError(f"{store.CHANGED}; not copied", path)


def _about_the_encoder(run: RunDirectory) -> list[Path]:
    return [*(path for path in (run.weights, run.generator) if path.exists()), *layout.files_beside(run)]
