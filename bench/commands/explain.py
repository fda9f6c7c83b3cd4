"""Why a run on disk is not the one that is asked for: which parts of its content key differ.

A key is a hash and says only that something changed; `run.json` says what went into it. See `RunSpec.key`.
"""

import dataclasses
import json
import typing as t
from pathlib import Path

from bench import datasets
from bench.errors import Json, nearest
from bench.host import machine
from bench.pipeline import plan
from bench.pipeline.plan import Settings, load_images
from bench.suites.reading import read_suite, shipped
from bench.suites.suite import DatasetSpec, ProtocolSpec, RunSpec, Suite
from results import files, store, tables
from results.layout import RunDirectory
from results.record import RUN_NEEDS, Run

Parts = dict[str, Json]  # what goes into a key, by the word that is shown for it; and the data's name
ABSENT = object()


@dataclasses.dataclass(frozen=True)
class Answer:
    """What differs between a run and another one, or what a suite asks for."""

    run: Path
    against: str
    rows: tuple[tuple[str, str, str], ...]  # part, this run's, the other's
    same_key: bool
    notes: tuple[str, ...]  # about the scores, and about what cannot be compared

    def render(self, *, width: int | None = None, colour: bool = False) -> str:
        """As text that ends with a newline."""
        if self.same_key:
            said = f"{self.run} has the same key as {self.against}: nothing that decides its weights has changed."
        else:
            said = f"{self.run} has a different key from {self.against}:"
        table = ""
        if self.rows:
            header = ("part", "this run", "the other")
            table = "\n" + tables.table(header, header, self.rows, width=width, colour=colour)
        return "\n".join([said + table, *self.notes]).rstrip("\n") + "\n"


def why(directory: Path, against: str, settings: Settings, overrides: t.Sequence[str] = ()) -> Answer:
    """A run's directory against another run's, or against a suite (a YAML file or a shipped one; by default its own).

    Raises StoreError for what is no run's directory, ConfigError for a suite that has an error or that this run cannot
    be of.
    """
    this = _described(directory)
    other = against or this["suite"]
    if Path(other).is_dir():
        return _two_runs(directory, this, Path(other))
    if not against and other not in shipped():
        raise files.StoreError(f"no shipped suite is named {other!r}; give its file: frostbench why {directory} FILE")
    asked = read_suite(other, overrides=overrides, plugins=settings.plugins)
    return _run_and_suite(directory, this, asked, other, settings)


def _described(directory: Path) -> dict[str, Json]:
    """What a finished run says of itself, or what a failed one left."""
    run = RunDirectory(directory)
    if run.run_json.exists():
        return store.read_run(run.run_json, *RUN_NEEDS, "provenance")
    if run.failed.exists():
        return store.read_record(run.failed).model_dump(mode="json")
    raise files.StoreError(f"{directory} is not a run directory: wanted one such as runs/SUITE/LABEL/DATASET/seed0-KEY")


def _parts(described: dict[str, Json]) -> Parts:
    return {
        "data": DatasetSpec.of(Run.of(described)).label,
        "data fingerprint": described["fingerprint"],
        "encoder": described["encoder"],
        "encoder version": described["encoder_version"],
        **{f"{described['label']}.{name}": value for name, value in described["params"].items()},
        "seed": described["seed"],
        "precision": described["provenance"]["precision"],
        "ranks": described["provenance"].get("ranks", 1),
    }


def _key(described: dict[str, Json], code: str = "") -> str:
    """The key that a run with this description has, made by this plugin."""
    made = described["provenance"]
    return RunSpec.of(Run.of(described), made["precision"], code).key(
        described["fingerprint"], made["precision"], made.get("ranks", 1)
    )


def _two_runs(directory: Path, this: dict[str, Json], other: Path) -> Answer:
    theirs = _described(other)
    rows = _differences(_parts(this), _parts(theirs))
    same = this["key"] == theirs["key"]
    used = ["none" if _key(one) == one["key"] else "one" for one in (this, theirs)]
    if used[0] != used[1] or (not same and not rows):  # run.json does not say which file it was
        rows.append(("plugin code", used[0], "another" if used == ["one", "one"] else used[1]))
    return Answer(directory, str(other), tuple(rows), same, ())


def _run_and_suite(directory: Path, this: dict[str, Json], asked: Suite, name: str, settings: Settings) -> Answer:
    labels = [encoder.label for encoder in asked.encoders]
    if this["label"] not in labels:
        near = nearest(this["label"], labels)
        raise files.StoreError(f"suite {name} has no label {this['label']!r}{near}; it has {', '.join(labels)}")
    mine = [spec for spec in asked.runs() if spec.encoder.label == this["label"]]
    dataset = DatasetSpec.of(Run.of(this))
    spec = min(
        mine, key=lambda one: (one.dataset != dataset, one.dataset.name != dataset.name, one.seed != this["seed"])
    )
    precision = machine.pick_precision(spec.precision, machine.pick_device(settings.device))
    alike = spec.equals(precision)  # a version that learns the same is no difference
    spec = next((one for one in alike if one.encoder.version == this["encoder_version"]), alike[0])
    notes = [f"This run failed: {this['error']}"] if this.get("error") else []
    try:
        fingerprint = load_images(spec.dataset, settings).fingerprint
    except datasets.DataMissing:
        fingerprint = this["fingerprint"]
        notes.append(f"The data fingerprint is not compared: {spec.dataset.name} was not found.")
    now = {
        **this,
        "dataset": spec.dataset.name, "pretrain": spec.dataset.pretrain, **spec.dataset.asked(),
        "fingerprint": fingerprint, "encoder": spec.encoder.name, "encoder_version": spec.encoder.version,
        "params": spec.encoder.params, "seed": spec.seed,
        "provenance": {"precision": precision, "ranks": settings.ranks},
    }  # fmt: skip
    rows, code = _differences(_parts(this), _parts(now)), spec.encoder.code
    if this["key"] != _key(this, code):
        was = "none" if this["key"] == _key(this) else "another"
        rows.append(("plugin code", was, code or "none"))
    same = this["key"] == spec.key(fingerprint, precision, settings.ranks)
    if same:
        notes += _to_do(RunDirectory(directory.absolute()), plan.plan(spec, fingerprint, settings, ()).missing)
    title = f"{name} ({spec.encoder.label}, {spec.dataset.label}, seed {spec.seed})"
    return Answer(directory, title, tuple(rows), same, tuple(notes))


def _to_do(directory: RunDirectory, wanted: t.Sequence[tuple[str, ProtocolSpec]]) -> list[str]:
    """A line for each protocol whose scores are not all here, and what is here in their place."""
    here = store.read_store(directory.path)
    missing: dict[str, list[str]] = {}
    for tap, protocol in wanted:
        if any(path in here.whole for path in plan.records(directory, tap, protocol)):
            continue
        why = "not scored yet"
        for record in here.records:
            if (record.tap, record.protocol_label) == (tap, protocol.label):
                then = {"protocol": record.protocol, "version": record.protocol_version, **record.protocol_params}
                now = {"protocol": protocol.name, "version": protocol.version, **protocol.params}
                changed = (f"{part} was {was}, is {asked}" for part, was, asked in _differences(then, now))
                why = f"scored before: {', '.join(changed) or 'with different plugin code'}"
        missing.setdefault(f"{protocol.label}@{protocol.version}: {why}", []).append(tap)
    return [f"To do: {about} ({', '.join(taps)})" for about, taps in missing.items()]


def _differences(this: Parts, other: Parts) -> list[tuple[str, str, str]]:
    names = dict.fromkeys([*this, *other])
    pairs = [(name, this.get(name, ABSENT), other.get(name, ABSENT)) for name in names]
    return [(name, _shown(one), _shown(two)) for name, one, two in pairs if _shown(one) != _shown(two)]


def _shown(value: Json) -> str:
    return "-" if value is ABSENT else value if isinstance(value, str) else json.dumps(value, sort_keys=True)
