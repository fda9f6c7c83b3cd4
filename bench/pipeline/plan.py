"""Where a run belongs and what of it is missing; its recipe, its data, and the record that it fills in."""

import dataclasses
import functools
import typing as t
from pathlib import Path

from bench import datasets
from bench.host import machine
from bench.pipeline.checkpoints import Resume
from bench.pipeline.samples import SAMPLES
from bench.suites import resolve
from bench.suites.suite import DatasetSpec, EncoderSpec, ProtocolSpec, Recipe, RunSpec
from encoders.base import Encoder, EncoderError, Generative, Progress
from results import layout, store
from results.layout import RunDirectory
from results.record import Provenance, Record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How and where runs are made: plain data, the same for every run of a suite."""

    output: Path  # absolute; a directory for each suite is made below it
    data_root: Path | None = None
    offline: bool = False
    device: str = "auto"
    threads: int = 1  # of each of its ranks
    plugins: tuple[Path, ...] = ()
    keep_features: bool = False  # of runs that have all their scores; what was kept before stays in any case
    checkpoint_seconds: float = 60.0  # between two checkpoints of a training
    resume: Resume = "exact"  # whether trainings go on from what is kept of them
    ranks: int = 1  # processes that train a run together
    time_limit: float = 0.0  # seconds of a run from the start of its process on; 0: none


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run with its place and what is missing there."""

    spec: RunSpec
    key: str
    fingerprint: str  # of its data
    precision: t.Literal["float32", "bfloat16"]
    directory: RunDirectory
    missing: tuple[tuple[str, ProtocolSpec], ...]  # (tap, protocol) without a record
    is_control: bool
    labels: int | t.Literal["all"]  # of the training images that the encoder is given
    again: bool = False  # files of it are damaged: what is missing has a record, and is made again all the same

    @property
    def title(self) -> str:
        epoch = f", epoch {self.spec.snapshot.epoch}" if self.spec.snapshot else ""
        return f"{self.spec.encoder.label}, {self.spec.dataset.label}, seed {self.spec.seed}{epoch}"


class Watcher(t.Protocol):
    """Whoever wants to see a run go on."""

    def stage(self, text: str) -> None: ...
    def training(self, progress: Progress) -> None: ...


def plan(spec: RunSpec, fingerprint: str, settings: Settings, whole: t.Container[Path]) -> PlannedRun:
    """Where a run belongs and what of it is missing: records that are not among the `whole` ones of the store."""
    precision = spec.precision
    if precision == "auto":  # else a machine without the device can plan for one that has it
        precision = machine.pick_precision(precision, machine.pick_device(settings.device))
    suite, place = settings.output / spec.suite, folder(spec.dataset)
    keys = {one.key(fingerprint, precision, settings.ranks): one for one in spec.equals(precision)}
    runs = {key: layout.run_directory(suite, spec.encoder.label, place, spec.seed, key) for key in keys}
    key = next((key for key, one in runs.items() if one.run_json.exists()), next(iter(runs)))
    spec, directory = keys[key], runs[key]
    encoder = recipe(spec, settings)
    missing = tuple(
        (tap, p)
        for tap, p in wanted(spec, encoder, settings)
        if not any(one in whole for one in records(directory, tap, p))
    )
    budget = encoder.label_budget
    labels: int | t.Literal["all"] = 0 if not encoder.uses_labels else "all" if budget is None else budget
    return PlannedRun(spec, key, fingerprint, precision, directory, missing, encoder.is_control, labels)


def wanted(spec: RunSpec, encoder: Encoder, settings: Settings) -> list[tuple[str, ProtocolSpec]]:
    """Every tap of a run with every protocol that reads it."""
    reads = {name: protocol.reads for name, protocol in resolve.protocols(settings.plugins, reread=False).items()}
    judged = (*encoder.taps, SAMPLES) if isinstance(encoder, Generative) else encoder.taps
    return [(tap, p) for tap in judged for p in spec.protocols if tap in (reads[p.name] or encoder.taps)]


def records(directory: RunDirectory, tap: str, protocol: ProtocolSpec) -> list[Path]:
    """Where the scores of a tap may stand: those of other versions of the protocol's definition are as good."""
    return [directory.record(tap, name) for name in protocol.file_names]


def folder(dataset: DatasetSpec) -> str:
    """The name of the directory of a dataset's runs."""
    learned = f"-from-{datasets.slug(dataset.pretrain)}" if dataset.pretrain else ""
    return datasets.slug(dataset.name, **dataset.asked()) + learned


def recipe(spec: RunSpec, settings: Settings) -> Encoder:
    """The encoder a spec names, with its parameters. Raises EncoderError if it is a plugin's that has changed since."""
    return as_planned(spec.encoder.recipe(resolve.encoders(settings.plugins, reread=False)), spec.encoder)


def as_planned(recipe: Recipe, spec: EncoderSpec | ProtocolSpec) -> Recipe:
    """A recipe whose code is the one in the key of its run; another process may find other files."""
    if resolve.code(recipe) != spec.code:
        raise EncoderError(f"the plugin of {spec.name!r} has changed since the suite was read: run the command again")
    return recipe


def load_data(spec: RunSpec, settings: Settings) -> datasets.Dataset:
    """The spec's dataset, as its limit and split have it; of a snapshot, with the images of its training."""
    judged = load_images(spec.dataset, settings)
    if spec.snapshot is None or spec.snapshot.learned_from == spec.dataset:
        return judged
    return dataclasses.replace(judged, learned_from=load_images(spec.snapshot.learned_from, settings).pretraining)


def load_images(wanted: DatasetSpec, settings: Settings) -> datasets.Dataset:
    """A dataset as it is asked for, and likewise the one that encoders learn from if it is another."""
    load, asked = functools.partial(datasets.load, root=settings.data_root, offline=settings.offline), wanted.asked()
    judged = load(wanted.name, **asked)
    return datasets.transfer(judged, load(wanted.pretrain, **asked)) if wanted.pretrain else judged


def check_planned(planned: PlannedRun, dataset: datasets.Dataset) -> None:
    if dataset.fingerprint != planned.fingerprint:
        name = planned.spec.dataset.name
        raise datasets.DataError(f"{name} has changed since the run was planned, or differs on this machine")


def record_of(
    planned: PlannedRun, provenance: Provenance, *, images: tuple[int, int] = (0, 0), **judged: t.Any
) -> Record:
    """A record of this run with what `judged` says. images: of train and of test."""
    spec = planned.spec
    return Record(
        suite=spec.suite,
        key=planned.key,
        dataset=spec.dataset.name,
        split=spec.dataset.split,
        limit=spec.dataset.limit,
        pretrain=spec.dataset.pretrain,
        size=spec.dataset.size,
        mode=spec.dataset.mode,
        fingerprint=planned.fingerprint,
        train_images=images[0],
        test_images=images[1],
        encoder=spec.encoder.name,
        label=spec.encoder.label,
        params=spec.encoder.params,
        encoder_version=spec.encoder.version,
        code=spec.encoder.code,
        is_control=planned.is_control,
        is_pretrained=spec.encoder.is_pretrained,
        labels=planned.labels,
        seed=spec.seed,
        epoch=spec.snapshot.epoch if spec.snapshot else None,
        provenance=provenance,
        **judged,
    )


def fail(planned: PlannedRun, error: str, provenance: Provenance, details: dict[str, str] | None = None) -> Record:
    """Leave a record of a run that failed; the next success removes it."""
    known = {"traceback": "", **(details or {})}
    record = record_of(planned, provenance, status="failed", error=error, details=known, seconds={})
    store.publish_record(planned.directory.failed, record)
    return record


def failure(failed: Record) -> str:
    """The error of a run that failed, and where it was raised in a file of the user's own."""
    where = failed.details.get("place")
    return f"{failed.error} ({where})" if where else str(failed.error)
