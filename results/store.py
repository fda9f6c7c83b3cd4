"""Records and run.json in and out: the files are the truth, everything else is made again from them."""

import contextlib
import csv
import hashlib
import itertools
import json
import math
import os
import shutil
import typing as t
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ValidationError

from results.files import (
    MAX_BYTES,
    MAX_JSON_BYTES,
    Missing,
    StoreError,
    canonical,
    checked_path,
    conflict,
    file_digest,
    link,
    make_directory,
    private_directory,
    read_bytes,
    read_json,
    replace,
    set_aside,
    sync,
    to_json,
    writing,
)
from results.identity import as_json
from results.layout import RunDirectory, component, files_beside, name_in, result_files
from results.metrics import METRICS, lowest
from results.record import Json, Plan, Record, RunFacts

Model = t.TypeVar("Model", bound=BaseModel)
CHANGED = "changed since it was written: run.json has another sha256"
_PUBLISHING = "publishing"
_UNHASHED = {*Record.model_fields, "taps", "weights_sha256", "generator_sha256"}  # fields of a run.json without a hash


# ---- writing ----------------------------------------------------------------------------------------------------


def publish_record(path: Path, record: Record) -> None:
    """Write a record once. Already there with the same numbers is fine: the run was repeated and came out the same.

    A damaged record in its place is set aside in corrupt/. A failed run's record replaces the attempt's before.
    Raises Conflict and StoreError like `publish`, and StoreError for a record that could not be read back.
    """
    content = _record_to_bytes(path, record)
    if record.status == "failed":
        return replace(path, content)
    while not link(path, content):
        try:
            there = read_record(path)
        except StoreError:
            set_aside(path)
        else:
            if _same_numbers(there, record):
                return None
            raise conflict(path, content)
    return None


def publish_run(directory: Path, run: dict[str, Json], files: t.Mapping[str, bytes]) -> None:
    """Write a run.json and the files it speaks of, by their names in the run's directory, once: all of them or none.

    They are written apart, and take the name publishing/ in one rename; whoever sees that name can finish the rest.
    Already there with the same weights is fine, whenever and by whom they were made. Raises Conflict, of which
    conflicts/ keeps the run.json, and Unwritable.
    """
    content = sealed(directory, run)
    ready, there = directory / _PUBLISHING, directory / "run.json"
    finish_publishing(directory)  # what another process has begun
    if not there.exists():
        with private_directory(ready) as private:
            for name, part in {**files, there.name: content}.items():
                replace(private / name, part)
        finish_publishing(directory)
    hashes = ("weights_sha256", "generator_sha256")
    now = read_run(there)
    if [now.get(one) for one in hashes] != [run.get(one) for one in hashes]:
        raise conflict(there, content)


def sealed(directory: Path, run: dict[str, Json]) -> bytes:
    """A run.json with the hash of all that it says."""
    return canonical(run | {"sha256": _digest(directory, json.loads(canonical(run)))})  # of the order in the file


def finish_publishing(directory: Path) -> None:
    """Give the files of a publication that was begun their places, run.json last. Raises Unwritable."""
    ready, last = directory / _PUBLISHING, "run.json"
    with writing(directory / last):
        try:
            opened = os.open(ready, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return
        try:  # by the directory itself: another one can have its name by now
            found = os.fwalk(".", dir_fd=opened)
            names = [os.path.normpath(f"{parent}/{name}") for parent, _, files, _ in found for name in files]
            if last in names and not (directory / last).exists():  # else they came too late
                for some in (sorted({*names} - {last}), [last]):
                    places = [directory / name for name in some]
                    for name, place in zip(some, places):
                        make_directory(place.parent)
                        with contextlib.suppress(FileNotFoundError):  # somebody else was quicker
                            os.replace(name, place, src_dir_fd=opened)
                    for parent in sorted({place.parent for place in places}):
                        sync(parent)
        finally:
            os.close(opened)
        shutil.rmtree(ready, ignore_errors=True)


def file_digests(run: RunDirectory, paths: t.Iterable[Path] | None = None) -> dict[str, str]:
    """{file of a run: its SHA-256}, for run.json; of all that lies beside its weights unless told which."""
    wanted = files_beside(run) if paths is None else paths
    return {name_in(run, path): file_digest(path) for path in wanted}


def note_files(run: RunDirectory, paths: t.Iterable[Path]) -> None:
    """Have run.json say the SHA-256 of files that were made again from the frozen encoder; old ones say none."""
    about = read_run(run.run_json)
    if about.get("files") is not None:
        replace(run.run_json, sealed(run.path, about | {"files": about["files"] | file_digests(run, paths)}))


# ---- reading ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contents:
    """What a store holds. Damaged files are named with what is wrong; they are left where they are and not used."""

    records: list[Record]  # done and failed, in an order that does not depend on where they lie
    runs: list[dict[str, Json]]  # the run.json of every run
    damaged: list[tuple[Path, str]]
    whole: dict[Path, Record] = field(
        default_factory=dict, compare=False
    )  # every record that could be read, by its file
    plans: list[Plan] = field(default_factory=list)  # of each suite.json, in the order of their paths


def read_store(directory: Path) -> Contents:
    """Everything below a directory: of one run, a suite, several suites, or published records laid out like them.

    The same scores found twice (a copied directory, a run that two suites share) count once. Of a run that was made
    twice where bits may differ (another device, number of threads or version of a library) the newest counts. Where two
    finished records claim different numbers for the same thing made alike neither is used, and both are reported.
    Raises StoreError if there is no such directory.
    """
    if not checked_path(directory).is_dir():
        raise StoreError(f"no results in {directory}: there is no such directory")
    found: list[tuple[tuple[str | int, ...], Path, Record]] = []
    runs: list[dict[str, Json]] = []
    plans: list[Plan] = []
    damaged: list[tuple[Path, str]] = []
    for path in result_files(directory, damaged):
        try:
            if path.name == "run.json":
                runs.append(read_run(path))
            elif path.name == "suite.json":
                plans.append(_validated(Plan, read_json(path), path, "a suite"))
            else:
                record = read_record(path)
                found.append((_identity(record), path, record))
        except StoreError as error:
            damaged.append((path, error.problem))
    found.sort(key=lambda one: one[2].provenance.started, reverse=True)
    found.sort(key=lambda one: one[0])
    records: list[Record] = []
    for _, copies in itertools.groupby(found, key=lambda one: one[0]):
        same = [(path, record) for _, path, record in copies]  # the newest first
        alone = len(same) == 1 or same[0][1].status == "failed"
        rivals = {} if alone else {path: _rival(record, same) for path, record in same}
        damaged += [
            (path, f"has other numbers than {rival} for the same thing; neither is used: keep one")
            for path, rival in rivals.items()
            if rival
        ]
        records += [record for path, record in same if not rivals.get(path)][:1]
    return Contents(records, runs, sorted(damaged), {path: record for _, path, record in found}, plans)


def read_record(path: Path) -> Record:
    """One record, its hash verified before anything in it is used.

    Raises StoreError for a file that is missing, too large, not JSON, of another schema, or changed since written.
    """
    value = read_json(path)
    if not isinstance(value, dict) or not isinstance(claimed := value.pop("sha256", None), str):
        raise StoreError("not a record: it has no sha256", path)
    if claimed != _digest(path, value):
        raise StoreError("changed since it was written: its sha256 does not fit", path)
    if value.get("schema_version") != 1:
        raise StoreError(f"schema version {value.get('schema_version')}; this frostbench reads version 1", path)
    record = _validated(Record, value, path, "a record of schema version 1")
    _check_meaning(path, record)
    return record


def is_record(path: Path) -> bool:
    """Whether a whole record lies there."""
    try:
        read_record(path)
    except StoreError:
        return False
    return True


def read_run(path: Path, *needed: str) -> dict[str, Json]:
    """The run.json of a finished training, its hash verified; only those of before there were hashes have none.

    Raises StoreError for a file that is not one, lacks a `needed` field, or changed since written.
    """
    value = read_json(path)
    if not isinstance(value, dict) or value.get("schema_version") != 1:
        raise StoreError("not a run of schema version 1, which is what this frostbench reads", path)
    claimed = value.pop("sha256", None)
    hashed = claimed is not None or not value.keys() <= _UNHASHED
    if hashed and claimed != _digest(path, value):
        raise StoreError("changed since it was written: its sha256 does not fit", path)
    _validated(RunFacts, value, path, "a run of schema version 1")
    if lacking := [field for field in needed if field not in value]:
        raise StoreError(_lacks(lacking), path)
    return value


def _validated(model: type[Model], value: Json, path: Path, kind: str) -> Model:
    """Raises StoreError that names the fields which are not there, or else the first that is wrong."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        places = [(".".join(map(str, one["loc"])), one) for one in error.errors()]
        if lacking := [place for place, one in places if one["type"] == "missing"]:
            raise StoreError(_lacks(lacking), path) from error
        place, first = places[0]
        raise StoreError(f"not {kind}: {place}: {first['msg']}", path) from error


def _lacks(names: t.Sequence[str]) -> str:
    fields = f"field{'s' * (len(names) > 1)} {', '.join(names)}"
    return f"it lacks the {fields}: an older frostbench wrote it, or it is not whole; run its suite again"


def read_kept(run: RunDirectory, path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """What a file of a run holds, if run.json has its SHA-256; an older run.json, which has none, is believed.

    Raises Missing and StoreError.
    """
    content = read_bytes(path, max_bytes)
    with contextlib.suppress(Missing):  # published without it
        known = read_run(run.run_json).get("files")
        if known is not None and known.get(name_in(run, path)) != hashlib.sha256(content).hexdigest():
            raise StoreError(f"{CHANGED}", path)
    return content


def is_kept(run: RunDirectory, path: Path) -> bool:
    """Whether a file of a run is there, and as run.json has it."""
    try:
        read_kept(run, path)
    except StoreError:
        return False
    return True


def read_history(run: RunDirectory) -> list[dict[str, float]]:
    """The rows of history.csv without what is not finite, each with an epoch; none for what is not trained by gradient.

    Raises Missing and StoreError.
    """
    try:
        text = read_kept(run, run.history, MAX_JSON_BYTES).decode()
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(text.splitlines())]
    except (ValueError, TypeError, csv.Error) as error:
        raise StoreError(f"not a history: {error}", run.history) from error
    finite = [{name: value for name, value in row.items() if math.isfinite(value)} for row in rows]
    if not all("epoch" in row for row in finite):
        raise StoreError("not a history: wanted a number in the column 'epoch' of each row", run.history)
    return finite


# ---- what records say -------------------------------------------------------------------------------------------


def _record_to_bytes(path: Path, record: Record) -> bytes:
    """The fields in the record's own order, not sorted: the first metric is the one that tables show."""
    value = record.model_dump()  # not mode="json", which would quietly write None for NaN
    content = to_json(value | {"sha256": _digest(path, value)}, sort_keys=False)
    if len(content) > MAX_JSON_BYTES:
        raise StoreError(f"a record may have {MAX_JSON_BYTES} bytes; this one has {len(content)}", path)
    _check_meaning(path, record)
    return content


def _check_meaning(path: Path, record: Record) -> None:
    """What types do not say: its tap names a file, its predictions are the run's own, its metrics are fractions."""
    if record.tap is not None:
        try:
            component(record.tap)
        except StoreError as error:
            raise StoreError(f"its tap {error}", path) from error
    if record.predictions is not None:
        predictions = PurePosixPath(record.predictions)
        if predictions.parts[:1] != ("predictions",) or ".." in predictions.parts or "\0" in record.predictions:
            wanted = "which are not its own: wanted a file below predictions/"
            raise StoreError(f"names the predictions {record.predictions!r}, {wanted}", path)
    for metric, value in record.metrics.items():
        if metric not in METRICS and not lowest(metric) <= value <= 1:
            raise StoreError(f"metrics are fractions in {lowest(metric):g}..1; {metric} is {value}", path)


_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def _digest(path: Path, value: dict[str, Json]) -> str:
    """SHA-256 over what a record says, not over how its lines are laid out."""
    try:
        return hashlib.sha256(_compact(value).encode()).hexdigest()
    except (TypeError, ValueError) as error:
        raise StoreError(f"not JSON: {error}", path) from error


def _identity(record: Record) -> tuple[str | int, ...]:
    """What a record is about. Its numbers should follow from this, so it is also the order of a store's records."""
    run = (record.dataset, record.label, record.seed, record.key, record.status)
    judged = (record.tap or "", record.protocol_label or "", record.protocol_version or 0, record.protocol_code)
    return *run, *judged, as_json(record.protocol_params)


def _rival(record: Record, same: t.Iterable[tuple[Path, Record]]) -> Path | None:
    """Where a record of the same thing lies that was made alike and has other numbers: the newest such."""
    alike = (path for path, other in same if _made_alike(record, other) and not _same_numbers(record, other))
    return next(alike, None)


def _made_alike(one: Record, other: Record) -> bool:
    """Whether bits must be equal."""
    environment = {"device", "threads", "ranks", "precision", "versions", "resumed_elsewhere"}
    solvers = [record.details.get("solver", 1) for record in (one, other)]
    return solvers[0] == solvers[1] and (
        one.provenance.model_dump(include=environment) == other.provenance.model_dump(include=environment)
    )


def _same_numbers(one: Record, other: Record) -> bool:
    """Equal as JSON, apart from when, where and in which suite they were made, how long that took, alarms and digests.

    An alarm is no number of the run's: older records have none, and thresholds may change. Nor have they digests,
    counts of updates, the revision of a solver, or every metric that a protocol reports by now.
    """
    environment = ("suite", "seconds", "provenance", "alarms", "updates", "predictions_sha256", "metrics")
    left_out: dict[str, t.Any] = {**dict.fromkeys(environment, True), "details": {"solver"}}
    texts = [as_json(record.model_dump(exclude=left_out)) for record in (one, other)]
    shared = one.metrics.keys() & other.metrics.keys()
    return texts[0] == texts[1] and all(one.metrics[name] == other.metrics[name] for name in shared)
