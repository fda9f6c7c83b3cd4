"""Whether stored results still say what they said: their hashes, and every number made again from the predictions."""

import collections
import dataclasses
import json
from pathlib import Path

import numpy as np

from bench.pipeline.damage import GONE, OTHER, damage
from bench.suites import resolve
from bench.suites.suite import ProtocolSpec, RunSpec
from encoders.loading import MAX_RECIPE_BYTES
from results import files, layout, leaderboard, predictions, store
from results.files import StoreError
from results.layout import RunDirectory
from results.metrics import METRICS
from results.predictions import Classes
from results.record import Json, Record
from results.tables import FORMATS

DESCRIBED = ("encoder", "params", "encoder_version", "weights_sha256")  # by run.json and encoder.json both
TOLD = (
    *("key", "label", "encoder", "params", "encoder_version", "seed"),
    *("dataset", "limit", "split", "pretrain", "size", "mode", "fingerprint"),
)


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
        lines += [f"not checked: {reason} ({count:,})" for reason, count in self.unchecked.items()]
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
    here = [run for run in layout.runs_below(directory.absolute()) if run.run_json.exists()]
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
    for alike in truths.values():
        usual, _ = collections.Counter(alike.values()).most_common(1)[0]
        problem = "its true classes differ from those of other records of the same images"
        report.problems += [(path, problem) for path, true in alike.items() if true != usual]
    for run, about in sorted(runs.items()):
        _check_encoder(RunDirectory(run), about, report)
    suites = {parent for run in runs for parent in run.parents[2:3] if parent.is_relative_to(directory.absolute())}
    for path in sorted(suites):
        _check_tables(path, report)
    return report


def _check_place(run: Path, path: Path, record: Record, report: Report) -> None:
    """A record against the names that it stands under, which hold the keys of its run and of its protocol."""
    if run.name != (named := f"seed{record.seed}-{record.key}"):
        report.problems.append((path, f"belongs to the run {named}"))
    if record.encoder in resolve.encoders():
        made = record.provenance
        if RunSpec.of(record, made.precision).key(record.fingerprint, made.precision, made.ranks) != record.key:
            report.problems.append((path, f"its key {record.key} does not match its encoder, data, seed and precision"))
    else:
        report.unchecked["keys of encoders that are not built in"] += 1
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
        report.problems.append((path, f"belongs at {record.tap}/{stem}"))


def _check_numbers(run: Path, path: Path, record: Record, report: Report) -> Classes | None:
    """The true classes beside a record's predictions, of which every number that can be is made again."""
    if record.predictions is None:
        if any(name not in METRICS for name in record.metrics):
            report.problems.append((path, "has no predictions"))
        else:
            report.unchecked["numbers of protocols that predict no class"] += len(record.metrics)
        return None
    if record.predictions != f"predictions/{record.tap}/{path.stem}.npz":
        report.problems.append((path, f"names the predictions {record.predictions!r}, which are not its own"))
        return None
    kept = run / record.predictions
    try:
        classes = predictions.read(kept)
    except StoreError as error:
        report.problems.append((kept, error.problem))
        return None
    predicted, true = classes["predicted"], classes["label"]
    others = {name: rows for name, rows in classes.items() if name not in ("predicted", "label")}
    if len(true) != record.test_images:
        report.problems.append((kept, f"holds {len(true):,} predictions; its record has {record.test_images:,} images"))
    if record.predictions_sha256 is None:
        report.unchecked["hashes of predictions, which older records lack"] += 1
    elif predictions.digest(classes) != record.predictions_sha256:
        report.problems.append((kept, OTHER))
    again = _numbers(record, predicted, true, others)
    for name, value in {**record.metrics, **_repeated(record)}.items():
        if name not in again:
            older = name in ("mean_top1", "corrupted_top1") or name not in record.metrics
            why = "whose predictions older records lack" if older else "which needs features, not predictions"
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
            described = json.loads(files.read_bytes(path, MAX_RECIPE_BYTES))
            wrong = [f"{field} differs from run.json" for field in DESCRIBED if described[field] != run[field]]
        except StoreError as error:
            wrong = [error.problem]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            wrong = [f"does not describe an encoder: {type(error).__name__}: {error}"]
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
    beside = layout.files_beside(directory)
    known = run.get("files")
    if known is None:
        report.unchecked["recipes, histories, pictures and views, whose hashes older runs lack"] += len(beside)
        return
    for path in beside:
        problem = damage(path, known.get(layout.name_in(directory, path)))
        if problem is None:
            report.checked["files beside"] += 1
        else:
            report.problems.append((path, problem))
    if gone := known.keys() - {layout.name_in(directory, path) for path in beside}:
        report.unchecked["recipes, histories, pictures and views, which were not kept"] += len(gone)


def _check_tables(directory: Path, report: Report) -> None:
    """The tables of a suite against its records."""
    if not (directory / "leaderboard.json").exists():
        return
    contents = store.read_store(directory)
    board = leaderboard.of(contents)
    for form, suffix in FORMATS.items():
        path = directory / f"leaderboard.{suffix}"
        try:
            written = files.read_bytes(path)
        except files.Missing:
            continue
        except StoreError as error:
            report.problems.append((path, error.problem))
            continue
        if written != board.render(form).encode():
            report.problems.append((path, "differs from the table of the records; `frostbench run` writes it again"))
        report.checked["tables"] += 1
