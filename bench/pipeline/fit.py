"""A run's encoder: trained and published, or read from the files of an earlier call."""

import hashlib
import logging
import math
import shutil
import time
import typing as t

import numpy as np
import safetensors.torch
import torch
from pydantic import TypeAdapter
from torch import nn

from bench.datasets import Dataset
from bench.host import machine
from bench.host.distributed import device_of
from bench.pipeline import epochs, samples
from bench.pipeline.checkpoints import Checkpoints
from bench.pipeline.plan import PlannedRun, Settings, Watcher, check_planned, load_data, recipe, record_of
from bench.pipeline.samples import SAMPLES
from bench.suites.suite import RunSpec
from encoders.base import Encoder, EncoderError, Generative, ImageSet, Progress, Training, visible_to
from encoders.distributed import ProcessGroup
from encoders.loading import restore
from results import files, layout, store
from results.layout import RunDirectory
from results.record import Provenance, Run

logger = logging.getLogger(__name__)
HISTORY_SECONDS = 10.0  # between two writings of the history of a training that goes on


class Fitted(t.NamedTuple):
    module: nn.Module
    generator: nn.Module | None
    seconds: dict[str, float]
    resumed_elsewhere: bool
    updates: dict[str, int]  # by player


def fit(
    planned: PlannedRun,
    encoder: Encoder,
    dataset: Dataset,
    watcher: Watcher,
    keeper: Checkpoints,
    device: torch.device,
    provenance: Provenance,
    group: ProcessGroup,
) -> Fitted:
    """Train, then publish encoder and generator, both frozen, with all that is told of them: run.json comes last."""
    spec, directory = planned.spec, planned.directory
    images = visible_to(dataset.pretraining, encoder, spec.seed)
    training = Training(spec.seed, device, planned.precision, keeper=keeper, group=group)
    training.ends_after = spec.snapshot.epoch if spec.snapshot else None
    training.kept_after = epochs.keepers(planned, keeper)
    told = time.monotonic()

    def report(progress: Progress) -> None:
        nonlocal told
        watcher.training(progress)
        if training.history and time.monotonic() - told >= HISTORY_SECONDS:
            files.replace(directory.history, _csv(training.history))
            told = time.monotonic()

    training.report = report
    watcher.stage("fitting")
    started = time.perf_counter()
    with machine.left_as_it_was(f"{planned.title}: its encoder"):
        module = encoder.fit(images, training)
    seconds = {"fit": training.earlier_seconds + time.perf_counter() - started}
    provenance = provenance.model_copy(update={"resumed_elsewhere": not keeper.exact})
    contents = {directory.weights.name: _weights(module), directory.history.name: _csv(training.history)}
    generator, hashes = training.generator, {"weights_sha256": _sha256(contents[directory.weights.name])}
    if generator is not None and isinstance(encoder, Generative):
        contents[directory.generator.name] = _weights(generator)
        hashes["generator_sha256"] = _sha256(contents[directory.generator.name])
        contents |= _pictures(directory, encoder, generator, module, dataset, spec.seed)
    contents[directory.encoder_json.name] = _description(spec, dataset, encoder, hashes)
    counts, updates = (len(dataset.train), len(dataset.test)), training.updates
    record = record_of(planned, provenance, images=counts, status="done", seconds=seconds, updates=updates)
    run = record.model_dump(mode="json", include={*Run.model_fields, "seconds", "updates", "provenance"})
    heavy = (directory.weights.name, directory.generator.name)
    beside = {name: _sha256(content) for name, content in contents.items() if name not in heavy}
    run |= {"taps": _dimensions(module, images, device), **hashes, "files": beside}
    store.publish_run(directory.path, run, contents)
    shutil.rmtree(directory.checkpoint, ignore_errors=True)
    return Fitted(module, generator, seconds, not keeper.exact, training.updates)


_PART = TypeAdapter(tuple[PlannedRun, Settings])


def part_of_worker(planned: PlannedRun, settings: Settings) -> str:
    """What `worker_fit` is told, as text."""
    return _PART.dump_json((planned, settings)).decode()


def worker_fit(part: str, group: ProcessGroup) -> None:
    """Another rank's part of a fit; what it leaves behind is the first one's, too."""
    planned, settings = _PART.validate_json(part)
    machine.prepare(settings.threads)
    device = machine.pick_device(device_of(group, settings.device))
    spec, encoder = planned.spec, recipe(planned.spec, settings)
    training = Training(spec.seed, device, planned.precision, group=group)
    training.ends_after = spec.snapshot.epoch if spec.snapshot else None
    dataset = load_data(spec, settings)
    check_planned(planned, dataset)
    with machine.left_as_it_was(f"{planned.title}, rank {group.rank}: its encoder"):
        encoder.fit(visible_to(dataset.pretraining, encoder, spec.seed), training)


def reload(planned: PlannedRun, encoder: Encoder, dataset: Dataset) -> Fitted | None:
    """Encoder and generator of an earlier call, their files checked before they are read; None to make them again.

    What follows from them is made again where it is damaged: encoder.json, and the pictures.
    """
    directory, shape = planned.directory, dataset.train.shape
    store.finish_publishing(directory.path)  # what a process that was killed has begun to publish
    if not directory.run_json.exists():
        return None
    try:
        run = store.read_run(directory.run_json, "seconds", "provenance", "encoder_version", "taps", "weights_sha256")
        module = restore(encoder.build, shape, directory.weights, run["weights_sha256"])
        generator = None
        wanted = any(tap == SAMPLES for tap, _ in planned.missing)
        wanted |= planned.again and directory.generator.exists()
        if isinstance(encoder, Generative) and wanted:
            sha256 = run.get("generator_sha256")
            generator = restore(encoder.build_generator, shape, directory.generator, sha256)
    except (files.StoreError, EncoderError):
        logger.warning("the encoder in %s is damaged or missing; training it again", directory.path)
        files.set_aside(directory.run_json)
        return None
    if not store.is_kept(directory, directory.encoder_json):
        hashes = {field: sha256 for field, sha256 in run.items() if field in ("weights_sha256", "generator_sha256")}
        files.replace(directory.encoder_json, _description(planned.spec, dataset, encoder, hashes))
        store.note_files(directory, [directory.encoder_json])
    if isinstance(encoder, Generative) and generator is not None:
        pictures = [path for path in layout.files_beside(directory) if path.parent == directory.pictures]
        if not all(store.is_kept(directory, path) for path in pictures):
            shutil.rmtree(directory.pictures)
            made = _pictures(directory, encoder, generator, module, dataset, planned.spec.seed)
            for name, picture in made.items():
                files.replace(directory.path / name, picture)
            store.note_files(directory, [directory.path / name for name in made])
    shutil.rmtree(directory.checkpoint, ignore_errors=True)  # of a fit that was killed at its very end
    resumed_elsewhere = run["provenance"].get("resumed_elsewhere", False)
    return Fitted(module, generator, run["seconds"], resumed_elsewhere, run.get("updates", {}))


def _pictures(
    directory: RunDirectory, encoder: Generative, generator: nn.Module, module: nn.Module, dataset: Dataset, seed: int
) -> dict[str, bytes]:
    """Pictures of what a generator makes, by their names in the run's directory."""
    made = samples.pictures(encoder, generator, module, dataset.test, seed)
    return {f"{directory.pictures.name}/{name}": picture for name, picture in made.items()}


def _description(spec: RunSpec, dataset: Dataset, encoder: Encoder, hashes: dict[str, str]) -> bytes:
    """What encoder.json says."""
    about = {
        "encoder": spec.encoder.name,
        "params": spec.encoder.params,
        "encoder_version": spec.encoder.version,
        "shape": list(dataset.train.shape),
        "taps": list(encoder.taps),
        **hashes,
    }
    return files.canonical(about)


def _weights(module: nn.Module) -> bytes:
    return safetensors.torch.save({name: v.cpu().contiguous() for name, v in module.state_dict().items()})


def _dimensions(module: nn.Module, images: ImageSet, device: torch.device) -> dict[str, int]:
    with torch.no_grad():
        taps = module(torch.from_numpy(np.array(images.images[:2])).to(device))
    return {tap: rows.shape[1] for tap, rows in taps.items()}


def _csv(rows: list[dict[str, float]]) -> bytes:
    """The history as CSV; an encoder that is not trained by gradient has only a header."""
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["epoch", "seconds", "images_per_second"]
    lines = [",".join(columns), *(",".join(repr(row.get(column, math.nan)) for column in columns) for row in rows)]
    return ("\n".join(lines) + "\n").encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
