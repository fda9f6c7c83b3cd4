"""What is damaged of a run's files, and which of it the suite that asks for the run makes again."""

import os
import typing as t
from pathlib import Path

from encoders.base import EncoderError
from encoders.loading import check_size
from results import files, layout, predictions, store
from results.files import StoreError
from results.layout import RunDirectory
from results.record import Record

GONE = "is gone"
OTHER = "changed since it was written: its record has another sha256"
MAX_BYTES = 2**30  # bytes of any file but weights


class Again(t.NamedTuple):
    """What of a run the suite that asks for it is to make again."""

    problems: list[tuple[Path, str]]
    records: set[Path]  # that count as missing until then


def to_make_again(run: RunDirectory, records: t.Mapping[Path, Record]) -> Again:
    """Damaged weights are trained again, and what follows from weights is made again from them, if they were kept.

    records: of this run.
    """
    if not records or not run.run_json.exists():
        return Again([], set())
    try:
        about = store.read_run(run.run_json, "weights_sha256")
    except StoreError as error:
        return Again([(run.run_json, error.problem)], set(records))
    weights = {run.weights: about["weights_sha256"], run.generator: about.get("generator_sha256")}
    found = {path: damage(path, sha256) for path, sha256 in weights.items() if path.exists()}
    if run.weights in found and (known := about.get("files")) is not None:
        ours = {run.views, *([run.pictures] if run.generator in found else [])}
        beside = [run.encoder_json, *(path for path in layout.files_beside(run) if path.parent in ours)]
        found |= {path: damage(path, known.get(layout.name_in(run, path))) for path in beside}
    problems = [(path, problem) for path, problem in found.items() if problem]
    missing = set(records) if problems else set()
    if run.weights in found:
        for path, record in records.items():
            if record.predictions is not None and (problem := _damaged_predictions(run, record)):
                problems.append((run.path / record.predictions, problem))
                missing.add(path)
    return Again(problems, missing)


def lost(run: RunDirectory) -> list[tuple[Path, str]]:
    """What is damaged of a run and only a training gives again."""
    try:
        store.read_history(run)
    except files.Missing:
        return []
    except StoreError as error:
        way_out = f"only training restores it: remove {run.path} and run the same command"
        return [(run.history, f"{error.problem}; {way_out}")]
    return []


def _damaged_predictions(run: RunDirectory, record: Record) -> str | None:
    try:
        kept = predictions.read(run.path / str(record.predictions))
    except StoreError as error:
        return error.problem
    if record.predictions_sha256 in (None, predictions.digest(kept)):
        return None
    return OTHER


def damage(path: Path, sha256: str | None) -> str | None:
    """What is wrong with a file of a run that has this digest there; None if nothing is."""
    if not os.path.lexists(path):
        return GONE
    try:
        if path.suffix == ".safetensors":
            check_size(path)  # which is known at once, while a digest reads all
            largest = files.MAX_BYTES
        else:
            largest = MAX_BYTES
        return None if files.file_digest(path, largest) == sha256 else store.CHANGED
    except (StoreError, EncoderError) as error:
        return str(error).removeprefix(str(path)).lstrip(": ")
