"""Whether stored results still say what they said: their hashes, and every number made again from the predictions."""

import collections
import dataclasses
import json
import os
import typing as t
from pathlib import Path

import numpy as np
import torch

from bench import resolve
from bench.run import predictions_digest
from bench.suite import DatasetSpec, EncoderSpec, ProtocolSpec, RunSpec
from encoders.base import EncoderError
from encoders.loading import LARGEST_RECIPE, check_size
from results import arrays, leaderboard, store
from results.metrics import METRICS
from results.record import Json, Record
from results.store import RunDirectory, StoreError
from results.text import FORMATS

Classes = np.ndarray[t.Any, np.dtype[np.int64]]  # (n,)
DESCRIBED = ("encoder", "params", "encoder_version", "weights_sha256")  # by run.json and encoder.json both
TOLD = (
    *("key", "label", "encoder", "params", "encoder_version", "seed"),
    *("dataset", "limit", "split", "pretrain", "size", "mode", "fingerprint"),
)
GONE = "is gone"
OTHER = "changed since it was written: its record has another sha256"
LARGEST = 2**30  # bytes of any file but weights, and what one of predictions may take in memory


@dataclasses.dataclass
class Report:
    """What was found."""

    checked: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # by what it is
    unchecked: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)  # by the reason
    problems: list[tuple[Path, str]] = dataclasses.field(default_factory=list)

    def text(self) -> str:
        """The problems, a line each, then what was checked and what could not be."""
        lines = [f"{path}: {problem}" for path, problem in sorted({*self.problems})]
        checked = ", ".join(f"{count:,} {what}" for what, count in self.checked.items()) or "nothing"
        lines.append(f"{len(lines) or 'no'} problem{'s' * (len(lines) != 1)}; checked: {checked}")
        lines += [f"not to be checked here: {reason} ({count:,})" for reason, count in self.unchecked.items()]
        return "\n".join(lines)


def verify(directory: Path) -> Report:
    """Check everything below a directory: of one run, a suite, several suites, or published records.

    Records: their SHA-256, their place, the key of their run, and each number from the predictions, whose SHA-256 is in
    the record and whose true classes all records of a dataset share. Encoders: the SHA-256 of their weights, and that
    run.json and encoder.json say what the records say. Tables: that they are what the records give.

    Raises StoreError where there is no such directory, or no result in it.
    """
    contents = store.read_store(directory)
    report = Report(problems=list(contents.damaged))
    here = [run for run in store.runs_below(directory.absolute()) if run.run_json.exists()]
    runs: dict[Path, Record | None] = {run.path: None for run in here}
    truths: dict[tuple[Json, ...], dict[Path, bytes]] = collections.defaultdict(dict)
    for path, record in sorted(contents.whole.items(), key=lambda one: one[0]):
        run = path.parent if record.status == "failed" else path.parents[2]
        runs[run] = record
        _check_place(run, path, record, report)
        if record.status == "done":
            true = _check_numbers(run, path, record, report)
            if true is not None:
                truths[record.dataset, record.limit, record.split, record.fingerprint][path] = true.tobytes()
        report.checked["records"] += 1
    if not runs:
        raise StoreError(f"no results in {directory}: wanted the directory of a run, of a suite, or of several")
    for files in truths.values():
        usual, _ = collections.Counter(files.values()).most_common(1)[0]
        problem = "its predictions are beside other true classes than those of the same images elsewhere"
        report.problems += [(path, problem) for path, true in files.items() if true != usual]
    for run, about in sorted(runs.items()):
        _check_encoder(RunDirectory(run), about, report)
    suites = {parent for run in runs for parent in run.parents[2:3] if parent.is_relative_to(directory.absolute())}
    for path in sorted(suites):
        _check_tables(path, report)
    return report


def _check_place(run: Path, path: Path, record: Record, report: Report) -> None:
    """A record against the names that it stands under, which hold the keys of its run and of its protocol."""
    if run.name != (named := f"seed{record.seed}-{record.key}"):
        report.problems.append((path, f"is of the run {named}"))
    if record.encoder in resolve.encoders():
        spec = RunSpec.model_construct(
            suite=record.suite,
            dataset=DatasetSpec.model_construct(name=record.dataset),
            encoder=EncoderSpec.model_construct(
                name=record.encoder, label=record.label, params=record.params, code=record.code
            ),
            encoder_version=record.encoder_version,
            protocols=(),
            seed=record.seed,
            precision="float32",
        )
        made = record.provenance
        if spec.key(record.fingerprint, made.precision, made.ranks) != record.key:
            report.problems.append((path, f"its encoder, data, seed and precision have another key than {record.key}"))
    else:
        report.unchecked["keys of encoders that are not ours"] += 1
    if record.status == "failed":
        return
    protocol = ProtocolSpec.model_construct(
        name=record.protocol or "",
        label=record.protocol_label or "",
        params=record.protocol_params,
        version=record.protocol_version or 0,
    )
    stem = protocol.file_name if record.protocol in resolve.protocols() else path.stem  # a plugin's key has its code
    if (path.parent.name, path.stem) != (record.tap, stem):
        report.problems.append((path, f"is of {record.tap}/{stem}"))


def _check_numbers(run: Path, path: Path, record: Record, report: Report) -> Classes | None:
    """The true classes beside a record's predictions, of which every number that can be is made again."""
    if record.predictions is None:
        if any(name not in METRICS for name in record.metrics):
            report.problems.append((path, "has no predictions"))
        else:
            report.unchecked["numbers of protocols that give no class"] += len(record.metrics)
        return None
    if record.predictions != f"predictions/{record.tap}/{path.stem}.npz":
        report.problems.append((path, f"names the predictions {record.predictions!r}, which are not its own"))
        return None
    kept = run / record.predictions
    try:
        predicted, true, others = read_all(kept)
    except StoreError as error:
        report.problems.append((kept, str(error)))
        return None
    if len(true) != record.test_images:
        report.problems.append((kept, f"holds {len(true):,} predictions; its record has {record.test_images:,} images"))
    if record.predictions_sha256 is None:
        report.unchecked["hashes of predictions, which older records have not"] += 1
    elif _digest(predicted, true, others) != record.predictions_sha256:
        report.problems.append((kept, OTHER))
    again = _numbers(record, predicted, true, others)
    for name, value in {**record.metrics, **_repeated(record)}.items():
        if name not in again:
            older = name in ("mean_top1", "corrupted_top1") or name not in record.metrics
            why = "whose predictions older records have not" if older else "which takes features, not predictions"
            report.unchecked[f"{name if name in record.metrics else 'repetitions'}, {why}"] += 1
            continue
        report.checked["numbers"] += 1
        if abs(again[name] - value) > 1e-12:
            report.problems.append((path, f"has {name} {value:.6f}; its predictions give {again[name]:.6f}"))
    return true


def _repeated(record: Record) -> dict[str, float]:
    """What details tell of further predictions: the share told right, by the name that these are stored under."""
    found: dict[str, float] = {}
    for kind, name in (("draw", "draws"), ("repeat", "repeats")):
        found |= {f"{kind}{place}": one["top1"] for place, one in enumerate(record.details.get(name) or []) if place}
    for kind, one in (record.details.get("corruptions") or {}).items():
        found |= {f"{kind}{severity}": share for severity, share in one["severities"].items()}
    return found


def _numbers(record: Record, predicted: Classes, true: Classes, others: dict[str, Classes]) -> dict[str, float]:
    """All that predictions give, by the metric's name or by that of a further prediction."""
    shares = {name: float((rows == true).mean()) for name, rows in others.items()}
    top1 = float((predicted == true).mean())
    found = shares | {"top1": top1, "clean_top1": top1}
    if shares.keys() == _repeated(record).keys():
        if record.protocol == "fewshot":
            found["mean_top1"] = float(np.mean([top1, *shares.values()]))
        if record.protocol == "robustness":  # of five severities of each kind
            found["corrupted_top1"] = float(np.mean([*shares.values()]))
    if record.protocol == "cluster":  # each cluster has a class of its own, so classes say what clusters would
        from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score  # noqa: PLC0415 - slow to import

        found["nmi"] = float(normalized_mutual_info_score(true, predicted))
        found["ari"] = float(adjusted_rand_score(true, predicted))
    return found


def read_predictions(path: Path) -> tuple[Classes, Classes]:
    """(predicted, true), each (n,). Raises StoreError for a file that is not one of ours."""
    return read_all(path)[:2]


def read_all(path: Path) -> tuple[Classes, Classes, dict[str, Classes]]:
    """(predicted, true), each (n,), and further predictions by name. Raises StoreError for a file that is not ours."""
    try:
        others = arrays.read_arrays(path, LARGEST)
        predicted, true = others.pop("predicted"), others.pop("label")
    except store.Missing as error:
        raise StoreError("is gone") from error
    except KeyError as error:
        raise StoreError(f"cannot be read: it has no array {error}") from error
    except StoreError as error:
        raise StoreError(str(error).removeprefix(f"{path}: ")) from error
    for rows in (predicted, *others.values()):
        if true.ndim != 1 or rows.shape != true.shape or not {rows.dtype.kind, true.dtype.kind} <= {"i", "u"}:
            came = f"{rows.dtype} {rows.shape} and {true.dtype} {true.shape}"
            raise StoreError(f"wanted two rows of classes, predicted and label; got {came}")
    more = {name: rows.astype(np.int64) for name, rows in others.items()}
    return predicted.astype(np.int64), true.astype(np.int64), more


def _check_encoder(directory: RunDirectory, record: Record | None, report: Report) -> None:
    """A run's run.json and encoder.json against its records, and its weights against both."""
    if not directory.run_json.exists():
        if record is not None and record.status == "done":
            report.unchecked["runs without a run.json: features of other models, or a damaged one set aside"] += 1
        return
    try:
        run = store.read_run(directory.run_json)
    except StoreError:
        return  # the store has named it as damaged
    report.checked["runs"] += 1
    _check_weights(directory, run, report)
    _check_files(directory, run, report)
    told = {} if record is None else record.model_dump(mode="json", include=set(TOLD))
    for field, value in told.items():
        if run.get(field) != value:
            report.problems.append((directory.run_json, f"{field} is {run.get(field)}; its records have {value}"))
    if (path := directory.encoder_json).exists():
        try:
            described = json.loads(store.read_bytes(path, LARGEST_RECIPE))
            wrong = [f"{field} is not what run.json says" for field in DESCRIBED if described[field] != run[field]]
        except StoreError as error:
            wrong = [str(error).removeprefix(f"{path}: ")]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            wrong = [f"describes no encoder: {type(error).__name__}: {error}"]
        report.problems += [(path, problem) for problem in wrong]


def _check_weights(directory: RunDirectory, run: dict[str, Json], report: Report) -> None:
    for path, field in ((directory.weights, "weights_sha256"), (directory.generator, "generator_sha256")):
        if field not in run:
            continue
        problem = damage(path, run[field])
        if problem == GONE:
            report.unchecked["weights, which were not kept"] += 1
        elif problem is None:
            report.checked["weights"] += 1
        else:
            report.problems.append((path, problem))


def _check_files(directory: RunDirectory, run: dict[str, Json], report: Report) -> None:
    """History, pictures and views against the SHA-256 that run.json has of each."""
    beside = store.files_beside(directory)
    known = run.get("files")
    if known is None:
        report.unchecked["recipes, histories, pictures and views, whose hashes older runs have not"] += len(beside)
        return
    for path in beside:
        problem = damage(path, known.get(store.name_in(directory, path)))
        if problem is None:
            report.checked["files beside"] += 1
        else:
            report.problems.append((path, problem))
    if gone := known.keys() - {store.name_in(directory, path) for path in beside}:
        report.unchecked["recipes, histories, pictures and views, which were not kept"] += len(gone)


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
        return Again([(run.run_json, str(error).removeprefix(f"{run.run_json}: "))], set(records))
    weights = {run.weights: about["weights_sha256"], run.generator: about.get("generator_sha256")}
    found = {path: damage(path, sha256) for path, sha256 in weights.items() if path.exists()}
    if run.weights in found and (known := about.get("files")) is not None:
        ours = {run.views, *([run.pictures] if run.generator in found else [])}
        beside = [run.encoder_json, *(path for path in store.files_beside(run) if path.parent in ours)]
        found |= {path: damage(path, known.get(store.name_in(run, path))) for path in beside}
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
    except store.Missing:
        return []
    except StoreError as error:
        way_out = f"only a training gives it again: remove {run.path} and run the same command"
        return [(run.history, f"{str(error).removeprefix(f'{run.history}: ')}; {way_out}")]
    return []


def _damaged_predictions(run: RunDirectory, record: Record) -> str | None:
    try:
        predicted, true, others = read_all(run.path / str(record.predictions))
    except StoreError as error:
        return str(error)
    if record.predictions_sha256 in (None, _digest(predicted, true, others)):
        return None
    return OTHER


def _digest(predicted: Classes, true: Classes, others: dict[str, Classes]) -> str:
    more = {name: torch.from_numpy(rows) for name, rows in others.items()}
    return predictions_digest(torch.from_numpy(predicted), torch.from_numpy(true), more)


def damage(path: Path, sha256: str | None) -> str | None:
    """What is wrong with a file of a run that has this digest there; None if nothing is."""
    if not os.path.lexists(path):
        return GONE
    try:
        if path.suffix == ".safetensors":
            check_size(path)  # which is known at once, while a digest reads all
            largest = store.LARGEST
        else:
            largest = LARGEST
        return None if store.file_digest(path, largest) == sha256 else store.CHANGED
    except (StoreError, EncoderError) as error:
        return str(error).removeprefix(str(path)).lstrip(": ")


def _check_tables(directory: Path, report: Report) -> None:
    """The tables of a suite against its records."""
    if not (directory / "leaderboard.json").exists():
        return
    contents = store.read_store(directory)
    board = leaderboard.of(contents)
    for form, suffix in FORMATS.items():
        path = directory / f"leaderboard.{suffix}"
        try:
            written = store.read_bytes(path)
        except store.Missing:
            continue
        except StoreError as error:
            report.problems.append((path, str(error).removeprefix(f"{path}: ")))
            continue
        if written != board.render(form).encode():
            report.problems.append((path, "is not what the records give here; `frostbench run` writes it again"))
        report.checked["tables"] += 1
