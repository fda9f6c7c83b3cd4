"""One run from start to end: load, fit, extract, score, record."""

import dataclasses
import hashlib
import io
import json
import logging
import shutil
import time
import traceback
import typing as t
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import nn

from bench import data, machine, resolve
from bench.diagnostics import diagnose
from bench.extract import features_on_disk
from bench.suite import ProtocolSpec, RunSpec
from encoders.base import Encoder, EncoderError, Features, ImageSet, Progress, Training, shown
from protocols.base import FeatureSet
from results import store
from results.record import Provenance, Record
from results.store import RunDirectory

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How and where runs are made: plain data, the same for every run of a suite."""

    output: Path  # absolute; a directory for each suite is made below it
    data_root: Path | None = None
    offline: bool = False
    device: str = "auto"
    threads: int = 1
    plugins: tuple[Path, ...] = ()
    keep_features: bool = False  # of runs that have all their scores


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

    @property
    def title(self) -> str:
        return f"{self.spec.encoder.label}, {self.spec.dataset.label}, seed {self.spec.seed}"


class Watcher(t.Protocol):
    """Whoever wants to see a run go on."""

    def stage(self, text: str) -> None: ...
    def training(self, progress: Progress) -> None: ...


def plan(spec: RunSpec, fingerprint: str, settings: Settings, whole: t.Container[Path]) -> PlannedRun:
    """Where a run belongs and what of it is missing: records that are not among the `whole` ones of the store."""
    precision = machine.pick_precision(spec.precision, machine.pick_device(settings.device))
    key = spec.key(fingerprint, precision)
    place = data.slug(spec.dataset.name, spec.dataset.limit, spec.dataset.split)
    directory = store.run_directory(settings.output / spec.suite, spec.encoder.label, place, spec.seed, key)
    encoder = recipe(spec, settings)
    reads = {name: protocol.reads for name, protocol in resolve.protocols(settings.plugins).items()}
    pairs = [(tap, protocol) for tap in encoder.taps for protocol in spec.protocols]
    wanted = [(tap, p) for tap, p in pairs if tap in (reads[p.name] or (tap,))]
    missing = tuple((tap, p) for tap, p in wanted if directory.record(tap, p.file_name) not in whole)
    budget = encoder.label_budget
    labels: int | t.Literal["all"] = 0 if not encoder.uses_labels else "all" if budget is None else budget
    return PlannedRun(spec, key, fingerprint, precision, directory, missing, encoder.is_control, labels)


def recipe(spec: RunSpec, settings: Settings) -> Encoder:
    """The encoder a spec names, with its parameters."""
    return resolve.encoders(settings.plugins)[spec.encoder.name].model_validate_json(json.dumps(spec.encoder.params))


def load_data(spec: RunSpec, settings: Settings) -> data.Dataset:
    """The spec's dataset, as its limit and split have it."""
    wanted = spec.dataset
    return data.load(
        wanted.name, limit=wanted.limit, split=wanted.split, root=settings.data_root, offline=settings.offline
    )


def execute(planned: PlannedRun, settings: Settings, watcher: Watcher) -> str | None:
    """Do what is missing of a run. The files are the outcome; returns the error of a run that failed, else None.

    Raises store.Unwritable (no room, no right to write) and KeyboardInterrupt: they are not the run's fault.
    """
    device = machine.pick_device(settings.device)
    machine.prepare(settings.threads)
    made = machine.provenance(device, settings.threads, planned.precision)
    try:
        _execute(planned, settings, watcher, device, made)
    except store.Unwritable:
        raise
    except Exception as error:
        message = str(error) if isinstance(error, EncoderError) else f"{type(error).__name__}: {error}"
        fail(planned, message, made, "".join(traceback.format_exception(error)))
        return message
    planned.directory.failed.unlink(missing_ok=True)
    return None


def fail(planned: PlannedRun, message: str, made: Provenance, trace: str = "") -> None:
    """Leave a record of a run that failed; the next success removes it."""
    directory = planned.directory
    record = _record(planned, made, status="failed", error=message, details={"traceback": trace}, seconds={})
    store.publish_record(directory.failed, record)


def _execute(planned: PlannedRun, settings: Settings, watcher: Watcher, device: torch.device, made: Provenance) -> None:
    spec, directory = planned.spec, planned.directory
    watcher.stage("loading")
    dataset = load_data(spec, settings)
    encoder = recipe(spec, settings)
    fitted = _reload(encoder, directory, dataset.train) if directory.run_json.exists() else None
    module, seconds = fitted or _fit(planned, encoder, dataset, watcher, device, made)
    module.to(device)
    watcher.stage("extracting")
    started = time.perf_counter()
    parts = {"train": dataset.train, "test": dataset.test}
    features = features_on_disk(directory.features, spec.encoder.name, module, parts, encoder.taps, device)
    train, test = features["train"], features["test"]
    seconds = seconds | {"extract": time.perf_counter() - started}
    alarms = {tap: diagnose(train[tap]) for tap, _ in planned.missing}
    known = resolve.protocols(settings.plugins)
    for tap, protocol in planned.missing:
        watcher.stage(f"scoring {tap} with {protocol.label}")
        judge = known[protocol.name].model_validate_json(json.dumps(protocol.params))
        started = time.perf_counter()
        scores = judge.score(
            _feature_set(train, tap, dataset.train), _feature_set(test, tap, dataset.test), seed=spec.seed
        )
        score_seconds = time.perf_counter() - started
        predictions = directory.predictions(tap, protocol.file_name)
        store.replace(predictions, _predictions(scores.predictions.cpu().numpy(), dataset.test))
        record = _record(
            planned,
            made,
            dataset=dataset,
            status="done",
            tap=tap,
            dimensions=train[tap].shape[1],
            protocol=protocol.name,
            protocol_label=protocol.label,
            protocol_params=protocol.params,
            protocol_version=protocol.version,
            metrics=scores.metrics,
            details=scores.details,
            alarms=alarms[tap],
            predictions=predictions.relative_to(directory.path).as_posix(),
            seconds=seconds | {"score": score_seconds},
        )
        store.publish_record(directory.record(tap, protocol.file_name), record)
    if not settings.keep_features:
        shutil.rmtree(directory.features, ignore_errors=True)


def _fit(
    planned: PlannedRun,
    encoder: Encoder,
    dataset: data.Dataset,
    watcher: Watcher,
    device: torch.device,
    made: Provenance,
) -> tuple[nn.Module, dict[str, float]]:
    """Train, then publish the frozen encoder; run.json comes last and says that the rest is whole."""
    spec, directory = planned.spec, planned.directory
    images = shown(dataset.train, encoder, spec.seed)
    training = Training(spec.seed, device, planned.precision, watcher.training)
    watcher.stage("fitting")
    started = time.perf_counter()
    module = encoder.fit(images, training)
    seconds = {"fit": time.perf_counter() - started}
    weights = safetensors.torch.save({name: v.cpu().contiguous() for name, v in module.state_dict().items()})
    store.replace(directory.weights, weights)
    store.replace(directory.history, _csv(training.history))
    about = {
        "encoder": spec.encoder.name,
        "params": spec.encoder.params,
        "encoder_version": spec.encoder_version,
        "shape": list(dataset.train.shape),
        "taps": list(encoder.taps),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    store.replace(directory.encoder_json, store.canonical(about))
    run = _record(planned, made, dataset=dataset, status="done", seconds=seconds).model_dump(
        mode="json", exclude={"tap", "dimensions", "metrics", "details", "alarms", "predictions", "error", "status"}
    )
    for field in [field for field in run if field.startswith("protocol")]:
        del run[field]
    run |= {"taps": _dimensions(module, images, device), "weights_sha256": about["weights_sha256"]}
    store.publish_run(directory.run_json, run)
    return module, seconds


def _reload(encoder: Encoder, directory: RunDirectory, train: ImageSet) -> tuple[nn.Module, dict[str, float]] | None:
    """The frozen encoder of an earlier call, its file checked before it is read; None if it has to be made again."""
    try:
        run = store.read_run(directory.run_json)
        weights = directory.weights.read_bytes()
    except (store.StoreError, OSError):
        run, weights = {}, b""
    if hashlib.sha256(weights).hexdigest() != run.get("weights_sha256"):
        logger.warning("the encoder in %s is damaged or gone; training it again", directory.path)
        store.set_aside(directory.run_json)
        return None
    with torch.random.fork_rng():
        module = encoder.build(train.shape)
    module.load_state_dict(safetensors.torch.load(weights), strict=True)
    return module.eval().requires_grad_(False), run["seconds"]


def _record(planned: PlannedRun, made: Provenance, *, dataset: data.Dataset | None = None, **judged: t.Any) -> Record:
    spec = planned.spec
    return Record(
        suite=spec.suite,
        key=planned.key,
        dataset=spec.dataset.name,
        split=spec.dataset.split,
        limit=spec.dataset.limit,
        fingerprint=planned.fingerprint,
        train_images=len(dataset.train) if dataset else 0,
        test_images=len(dataset.test) if dataset else 0,
        encoder=spec.encoder.name,
        label=spec.encoder.label,
        params=spec.encoder.params,
        encoder_version=spec.encoder_version,
        is_control=planned.is_control,
        labels=planned.labels,
        seed=spec.seed,
        provenance=made,
        **judged,
    )


def _feature_set(features: Features, tap: str, images: ImageSet) -> FeatureSet:
    assert images.labels is not None
    return FeatureSet(features[tap], torch.from_numpy(np.array(images.labels)), len(images.classes))


def _predictions(predicted: np.ndarray[t.Any, t.Any], test: ImageSet) -> bytes:
    """A class for every test image, beside the true one, in the dataset's canonical order."""
    assert test.labels is not None
    small = np.min_scalar_type(len(test.classes))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, predicted=predicted.astype(small), label=test.labels.astype(small))
    return buffer.getvalue()


def _dimensions(module: nn.Module, images: ImageSet, device: torch.device) -> dict[str, int]:
    with torch.no_grad():
        taps = module(torch.from_numpy(np.array(images.images[:2])).to(device))
    return {tap: rows.shape[1] for tap, rows in taps.items()}


def _csv(rows: list[dict[str, float]]) -> bytes:
    """The history as CSV; an encoder that is not trained by gradient has only a header."""
    columns = list(rows[0]) if rows else ["epoch", "seconds", "images_per_second"]
    lines = [",".join(columns), *(",".join(repr(row[column]) for column in columns) for row in rows)]
    return ("\n".join(lines) + "\n").encode()
