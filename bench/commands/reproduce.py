"""A run trained again from its record, elsewhere, and held against what was recorded.

The same code, data, seed, precision and threads on the same kind of processor give the same bits. What else was
different is named; whether the numbers still agree is judged by the interval that chance in the test images leaves.
"""

import dataclasses
import json
import tempfile
import time
import typing as t
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from bench.errors import config_error
from bench.host.distributed import check_processes
from bench.host.progress import Display, clock
from bench.host.stopping import Stopping
from bench.pipeline import plan
from bench.pipeline.execute import execute
from bench.pipeline.plan import Settings, load_images
from bench.suites import resolve
from bench.suites.suite import ProtocolSpec, RunSpec
from encoders.base import Encoder
from protocols.base import Protocol
from results import files, layout, predictions, store
from results.files import StoreError
from results.leaderboard import SHARES
from results.record import RUN_NEEDS, Json, Record, Run
from results.statistics import wilson

Verdict = t.Literal["bit-identical", "within the interval", "not reproduced"]
Recipe = t.TypeVar("Recipe", bound=Encoder | Protocol)
NEEDED = (*RUN_NEEDS, "provenance", "weights_sha256")


@dataclasses.dataclass(frozen=True)
class Reproduced:
    """What became of one run."""

    title: str
    verdict: Verdict
    findings: list[str]  # what differs, and by how much
    environment: list[str]  # what was not as it was when the record was made

    def text(self) -> str:
        lines = [f"{self.title}: {self.verdict}", *(f"  {finding}" for finding in self.findings)]
        return "\n".join(lines + [f"  different environment: {difference}" for difference in self.environment])


def reproduce(directory: Path, settings: Settings) -> t.Iterator[Reproduced]:
    """Train every run below a directory again, in a temporary place, and score it with the protocols of its records.

    `settings.threads` of 0 are those of each record. A run is bit-identical if its weights, numbers and predictions are
    the recorded ones; within the interval if each share of test images lies in the 95 % interval that leaderboards
    give one seed (Wilson's), which is about other test images and not about other seeds. Numbers that are no such
    shares are shown where they differ, and decide nothing else.

    Raises StoreError where there is no run, ConfigError for one that this frostbench has no code or data for.
    """
    found = layout.runs_below(directory.absolute()) if files.checked_path(directory).is_dir() else []
    runs = sorted(run.path for run in found if run.run_json.exists())
    if not runs:
        raise StoreError(f"no run in {directory}: wanted a run directory (with run.json), or one above several")
    whole = sorted(store.read_store(directory.absolute()).whole.items(), key=lambda one: one[0])
    done = [(file.parents[2], record) for file, record in whole if record.status == "done"]
    fitted = {run: record.seconds.get("fit", 0.0) + record.seconds.get("extract", 0.0) for run, record in done}
    took = clock(sum(fitted.values()) + sum(record.seconds.get("score", 0.0) for _, record in done))
    stopping = Stopping()
    with Display([str(path) for path in runs]) as display, stopping.on_signals():
        display.say(f"training {len(runs)} run{'s' * (len(runs) > 1)} again, which took {took} when recorded")
        for path in runs:
            yield _reproduce(path, [record for run, record in done if run == path], settings, display, stopping)


def _reproduce(
    path: Path, records: list[Record], settings: Settings, display: Display, stopping: Stopping
) -> Reproduced:
    before = store.read_run(path / "run.json", *NEEDED)
    judges = [_protocol(path, record, settings) for record in records]
    spec = _spec(path, before, judges, settings)
    fingerprint = load_images(spec.dataset, settings).fingerprint
    if fingerprint != before["fingerprint"]:
        raise config_error(str(path), f"its data has changed: {spec.dataset.label} has different images or labels")
    threads = settings.threads or before["provenance"]["threads"]
    ranks = before["provenance"].get("ranks", 1)
    check_processes(ranks, threads)
    with tempfile.TemporaryDirectory() as temporary:
        there = dataclasses.replace(settings, output=Path(temporary), threads=threads, ranks=ranks, resume="never")
        planned = plan.plan(spec, fingerprint, there, ())
        display.start(planned.title)
        started = time.monotonic()
        error = execute(planned, there, display, stopping)
        display.finish(planned.title, time.monotonic() - started, error)
        if error:
            return Reproduced(planned.title, "not reproduced", [f"failed: {error}"], [])
        now = store.read_run(planned.directory.run_json)
        pairs = []
        for record, judge in zip(records, judges):
            new = store.read_record(planned.directory.record(str(record.tap), judge.file_name))
            same = None if record.predictions is None else _same_predictions(path, record, planned.directory.path, new)
            pairs.append((record, new, same))
    verdict, findings = _held(before["weights_sha256"] == now["weights_sha256"], pairs)
    return Reproduced(planned.title, verdict, findings, _environment(before, now, pairs))


def _spec(path: Path, before: dict[str, Json], judges: t.Sequence[ProtocolSpec], settings: Settings) -> RunSpec:
    """What a run.json says was run, with what this frostbench has of it."""
    recipe = _known(path, before["encoder"], resolve.encoders(settings.plugins))
    try:
        encoder = recipe.model_validate_json(json.dumps(before["params"]))
    except ValidationError as error:
        problem = f"the parameters of {before['encoder']} have changed: {error.errors()[0]['msg']}"
        raise config_error(str(path), problem) from error
    params = encoder.model_dump(mode="json", exclude={*encoder.places})
    spec = RunSpec.of(Run.of(before), before["provenance"]["precision"])
    here = {"params": params, "version": encoder.revision, "code": resolve.code(encoder)}
    protocols = tuple({judge.file_name: judge for judge in judges}.values())
    changed = {"suite": "reproduced", "encoder": spec.encoder.model_copy(update=here), "protocols": protocols}
    return spec.model_copy(update=changed)


def _protocol(path: Path, record: Record, settings: Settings) -> ProtocolSpec:
    """The protocol of a record, in the version that this frostbench has."""
    judge = _known(path, str(record.protocol), resolve.protocols(settings.plugins))
    try:
        checked = judge.model_validate_json(json.dumps(record.protocol_params))
    except ValidationError as error:
        raise config_error(
            str(path), f"the settings of {record.protocol} have changed: {error.errors()[0]['msg']}"
        ) from error
    return ProtocolSpec(
        name=str(record.protocol),
        label=str(record.protocol_label),
        params=checked.model_dump(mode="json"),
        version=judge.version,
        code=resolve.code(checked),
    )


def _known(path: Path, name: str, known: dict[str, type[Recipe]]) -> type[Recipe]:
    if name not in known:
        raise config_error(
            str(path), f"no encoder or protocol is named {name!r}; if it is a plugin, give its file with --plugin"
        )
    return known[name]


def _same_predictions(path: Path, record: Record, new_path: Path, new: Record) -> bool | None:
    """Whether every image was given the same class; None if the recorded predictions cannot be read."""
    try:
        before = predictions.read(path / str(record.predictions))["predicted"]
    except StoreError:
        return None
    now = predictions.read(new_path / str(new.predictions))["predicted"]
    return np.array_equal(before, now)


def _held(same_weights: bool, pairs: t.Sequence[tuple[Record, Record, bool | None]]) -> tuple[Verdict, list[str]]:
    """The verdict on a run's numbers, (recorded, made again, whether predictions agree), and what differs."""
    findings = [] if same_weights else ["weights: different"]
    verdict: Verdict = "bit-identical" if same_weights else "within the interval"
    for record, new, same_predictions in pairs:
        name = f"{record.tap} {record.protocol_label}"
        if record.predictions is not None and not same_predictions:
            findings.append(
                f"{name}: " + ("different predictions" if same_predictions is False else "predictions not kept")
            )
            verdict = _worse(verdict, "within the interval")
        for metric, value in record.metrics.items():
            if (again := new.metrics.get(metric)) == value:
                continue
            if again is None or metric not in SHARES:
                findings.append(f"{name} {metric}: {value:.6g} recorded, {again} now; it has no interval")
                verdict = _worse(verdict, "within the interval" if again is not None else "not reproduced")
                continue
            low, high = wilson(value, record.test_images)  # a leaderboard's interval of one seed
            inside = low <= again <= high
            place = f"{'inside' if inside else 'outside'} {low:.4f} to {high:.4f}"
            findings.append(f"{name} {metric}: {value:.4f} recorded, {again:.4f} now, {place}")
            verdict = _worse(verdict, "within the interval" if inside else "not reproduced")
    if same_weights and findings:
        findings.insert(0, "weights: identical")
    return verdict, findings


def _worse(one: Verdict, other: Verdict) -> Verdict:
    order = t.get_args(Verdict)
    return max(one, other, key=order.index)


def _environment(
    before: dict[str, Json], now: dict[str, Json], pairs: t.Sequence[tuple[Record, Record, bool | None]]
) -> list[str]:
    """What was not as it was: `threads: 2 then, 1 now`."""
    facts = []
    for about in (before, now):
        made = about["provenance"]
        encoder = {"encoder's version": about["encoder_version"]}
        encoder |= {f"parameter {name}": value for name, value in about["params"].items()}
        machine = {fact: made.get(fact) for fact in ("commit", "dirty", "device", "threads", "precision")}
        facts.append(machine | made["versions"] | encoder | {"resumed elsewhere": made.get("resumed_elsewhere", False)})
    for record, new, _ in pairs:
        for version, told in zip((record.protocol_version, new.protocol_version), facts):
            told[f"{record.protocol_label}'s version"] = version
    then, here = facts
    return [
        f"{fact}: {then.get(fact)} then, {here.get(fact)} now"
        for fact in then | here
        if then.get(fact) != here.get(fact)
    ]
