"""One run from start to end: load, fit, extract, score, record."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import logging
import math
import shutil
import time
import typing as t
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from bench import corruptions, data, machine, resolve, samples, views
from bench.checkpoints import Checkpoints, Resume, ResumeRefused
from bench.diagnostics import diagnose, few_updates
from bench.extract import extract, features_on_disk
from bench.ranks import local_rank, local_world, together
from bench.samples import SAMPLES
from bench.sources import place
from bench.stopping import Stopping
from bench.suite import DatasetSpec, EncoderSpec, ProtocolSpec, RunSpec
from encoders.base import (
    Encoder,
    EncoderError,
    Features,
    Generative,
    ImageSet,
    Progress,
    Training,
    seeded,
    shown,
)  # fmt: skip
from encoders.loading import restore
from encoders.ranks import Ranks
from protocols.base import (
    Corrupted,
    CorruptionProtocol,
    FeatureSet,
    Protocol,
    Quality,
    SampleProtocol,
    Samples,
    Scores,
)  # fmt: skip
from results import store
from results.record import Alarm, Provenance, Record
from results.redaction import message, trace
from results.store import RunDirectory

logger = logging.getLogger(__name__)
HISTORY_SECONDS = 10.0  # between two writings of the history of a training that goes on

Recipe = t.TypeVar("Recipe", bound=Encoder | Protocol)


@dataclasses.dataclass(frozen=True)
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
        return f"{self.spec.encoder.label}, {self.spec.dataset.label}, seed {self.spec.seed}"


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
    runs = {key: store.run_directory(suite, spec.encoder.label, place, spec.seed, key) for key in keys}
    key = next((key for key, one in runs.items() if one.run_json.exists()), next(iter(runs)))
    spec, directory = keys[key], runs[key]
    encoder = recipe(spec, settings)
    reads = {name: protocol.reads for name, protocol in resolve.protocols(settings.plugins, reread=False).items()}
    judged = (*encoder.taps, SAMPLES) if isinstance(encoder, Generative) else encoder.taps
    wanted = [(tap, p) for tap in judged for p in spec.protocols if tap in (reads[p.name] or encoder.taps)]
    missing = tuple((tap, p) for tap, p in wanted if not any(one in whole for one in records(directory, tap, p)))
    budget = encoder.label_budget
    labels: int | t.Literal["all"] = 0 if not encoder.uses_labels else "all" if budget is None else budget
    return PlannedRun(spec, key, fingerprint, precision, directory, missing, encoder.is_control, labels)


def records(directory: RunDirectory, tap: str, protocol: ProtocolSpec) -> list[Path]:
    """Where the scores of a tap may stand: those of other versions of the protocol's definition are as good."""
    return [directory.record(tap, name) for name in protocol.file_names]


def folder(dataset: DatasetSpec) -> str:
    """The name of the directory of a dataset's runs."""
    learned = f"-from-{data.slug(dataset.pretrain)}" if dataset.pretrain else ""
    return data.slug(dataset.name, **dataset.asked()) + learned


def recipe(spec: RunSpec, settings: Settings) -> Encoder:
    """The encoder a spec names, with its parameters. Raises EncoderError if it is a plugin's that has changed since."""
    known = resolve.encoders(settings.plugins, reread=False)
    return _as_planned(known[spec.encoder.name].model_validate_json(json.dumps(spec.encoder.params)), spec.encoder)


def _as_planned(recipe: Recipe, spec: EncoderSpec | ProtocolSpec) -> Recipe:
    """A recipe whose code is the one in the key of its run; another process may find other files."""
    if resolve.code(recipe) != spec.code:
        raise EncoderError(f"the plugin of {spec.name!r} has changed since the suite was read: run the command again")
    return recipe


def load_data(spec: RunSpec, settings: Settings) -> data.Dataset:
    """The spec's dataset, as its limit and split have it."""
    return load_images(spec.dataset, settings)


def load_images(wanted: DatasetSpec, settings: Settings) -> data.Dataset:
    """A dataset as it is asked for, and likewise the one that encoders learn from if it is another."""
    load, asked = functools.partial(data.load, root=settings.data_root, offline=settings.offline), wanted.asked()
    judged = load(wanted.name, **asked)
    return data.transfer(judged, load(wanted.pretrain, **asked)) if wanted.pretrain else judged


def execute(
    planned: PlannedRun,
    settings: Settings,
    watcher: Watcher,
    stopping: Stopping,
    *,
    wait: bool = True,
    alone: bool = False,
) -> str | None:
    """Do what is missing of a run. The files are the outcome; returns the error of a run that failed, else None.

    Raises store.Unwritable (no room, no right to write), ResumeRefused and KeyboardInterrupt: they are not the run's
    fault. A training that is stopped so, or killed, goes on next time. Where another process is at this run, waits for
    it and does what it leaves; or raises store.Claimed if not told to wait. `alone`: nobody would see this process die,
    so it notes what it is at, and a run at which it has died twice fails.
    """
    device = machine.pick_device(settings.device)
    ranks_here = local_world(settings.ranks)
    if device.type == "cuda" and torch.cuda.device_count() < ranks_here:
        raise machine.MachineError(f"{ranks_here} ranks on {torch.cuda.device_count()} GPUs; wanted one for each")
    machine.prepare(settings.threads)
    made = machine.provenance(device, settings.threads, planned.precision, settings.ranks)
    watcher.stage("waiting for another process that makes it")
    with store.claim(planned.directory.path, wait=wait) as locked:
        left = tuple(one for one in planned.missing if planned.again or not _is_there(planned, one))
        planned = dataclasses.replace(planned, missing=left)
        if not planned.missing:
            return None
        try:
            with (
                _noted(planned.directory) if alone and locked else contextlib.nullcontext(),
                machine.left_as_it_was(f"{planned.title}: its code"),
            ):
                _execute(planned, settings, watcher, stopping, device, made)
        except (store.Unwritable, KeyboardInterrupt):  # no failure of the method: no record of it
            raise
        except ResumeRefused as refused:  # nor is this, but its table should say why the run is not there
            fail(planned, str(refused), made)
            raise
        except BaseException as error:  # a method can also call sys.exit
            said = message(error, kind=not isinstance(error, EncoderError))
            return failure(fail(planned, said, made, {"traceback": trace(error), "place": place(error)}))
        return None


KEPT = "kept"  # an empty file in features/ that are to stay
MOST_DEATHS = 2  # of a process at one run, without another checkpoint or record in between


class _Deadly(EncoderError):
    """A run at which process after process has died; they left nothing else that tells why."""


@contextlib.contextmanager
def _noted(directory: RunDirectory) -> t.Iterator[None]:
    """Inside the block a file says that this process is at the run.

    Raises _Deadly if too many have ended there, now and whenever it is tried in the suite's own process again: else
    each such run would end the suite twice a command.
    """
    left = [one for name in ("run.json", "checkpoint/step*", "scores/*/*.json") for one in directory.path.glob(name)]
    reached = sorted(one.relative_to(directory.path).as_posix() for one in left)
    deaths = 0
    with contextlib.suppress(store.StoreError, ValueError, KeyError, TypeError):
        before = json.loads(store.read_bytes(directory.in_flight, store.LARGEST_JSON))
        deaths = before["deaths"] + 1 if before["reached"] == reached else 0
    if deaths >= MOST_DEATHS:
        way_out = "`--executor processes` tries it in a process of its own"
        raise _Deadly(f"the process has died {MOST_DEATHS} times at this run; perhaps memory ran out; {way_out}")
    store.replace(directory.in_flight, store.canonical({"deaths": deaths, "reached": reached}))
    try:
        yield
    finally:
        directory.in_flight.unlink(missing_ok=True)


def _is_there(planned: PlannedRun, wanted: tuple[str, ProtocolSpec]) -> bool:
    """Whether a record was made since the run was planned."""
    return any(store.is_record(path) for path in records(planned.directory, *wanted))


def fail(planned: PlannedRun, said: str, made: Provenance, details: dict[str, str] | None = None) -> Record:
    """Leave a record of a run that failed; the next success removes it."""
    known = {"traceback": "", **(details or {})}
    record = _record(planned, made, status="failed", error=said, details=known, seconds={})
    store.publish_record(planned.directory.failed, record)
    return record


def failure(failed: Record) -> str:
    """The error of a run that failed, and where it was raised in a file of the user's own."""
    where = failed.details.get("place")
    return f"{failed.error} ({where})" if where else str(failed.error)


class _Fitted(t.NamedTuple):
    module: nn.Module
    generator: nn.Module | None
    seconds: dict[str, float]
    resumed_elsewhere: bool
    updates: dict[str, int]  # by player


def _execute(
    planned: PlannedRun,
    settings: Settings,
    watcher: Watcher,
    stopping: Stopping,
    device: torch.device,
    made: Provenance,
) -> None:
    spec, directory = planned.spec, planned.directory
    watcher.stage("loading")
    dataset = load_data(spec, settings)
    _check_planned(planned, dataset)
    encoder = recipe(spec, settings)
    known = resolve.protocols(settings.plugins, reread=False)
    made = made.model_copy(update={"solvers": {one.name: known[one.name].solver for one in spec.protocols}})
    fitted = _reload(planned, encoder, dataset)
    if fitted is None:
        shutil.rmtree(directory.views, ignore_errors=True)  # of an encoder that was damaged
        keeper = Checkpoints(
            directory.checkpoint,
            planned.key,
            machine.numeric_environment(device, settings.threads),
            seconds=settings.checkpoint_seconds,
            resume=settings.resume,
            stopping=stopping,
        )
        part = _PART.dump_json((planned, settings)).decode()
        with together(follow, (part,), settings.ranks, device.type) as ranks:
            fitted = _fit(planned, encoder, dataset, watcher, keeper, device, made, ranks)
    module, generator, seconds, resumed_elsewhere, updates = fitted
    made = made.model_copy(update={"resumed_elsewhere": resumed_elsewhere})
    module.to(device)
    watcher.stage("extracting")
    started = time.perf_counter()
    parts = {"train": dataset.train, "test": dataset.test}
    features = features_on_disk(directory.features, spec.encoder.name, module, parts, encoder.taps, device)
    train, test = features["train"], features["test"]
    seconds = seconds | {"extract": time.perf_counter() - started}
    _keep_views(directory, encoder.taps, features, parts)
    alarms = {tap: diagnose(train[tap]) for tap in {tap for tap, _ in planned.missing} - {SAMPLES}}
    left = len(planned.missing)
    for (tap, name), group in _together(planned.missing).items():
        scored: t.Iterator[Scores | Quality]
        settled = [_as_planned(known[name].model_validate_json(json.dumps(one.params)), one) for one in group]
        if generator is not None and tap == SAMPLES:
            scored, alarms[tap] = _judge_samples(
                settled, encoder, module, generator.to(device), dataset, test, spec.seed
            )
        else:
            gallery, queries = _feature_set(train, tap, dataset.train), _feature_set(test, tap, dataset.test)
            features_of = functools.partial(_features, spec.encoder.name, module, tap, encoder.taps, device)
            scored = (
                _judge_corrupted(settled, gallery, queries, dataset.test, features_of, spec.seed)
                if issubclass(known[name], CorruptionProtocol)
                else known[name].score_all(settled, gallery, queries, seed=spec.seed)
            )
        for protocol in group:
            watcher.stage(f"scoring {tap} with {protocol.label}")
            started = time.perf_counter()
            scores = next(scored)
            score_seconds = time.perf_counter() - started  # work that several share is done for the first of them
            predictions = predictions_sha256 = None
            if isinstance(scores, Scores):
                predictions = directory.predictions(tap, protocol.file_name)
                predictions_sha256 = predictions_digest(scores.predictions, queries.labels, scores.others)
                _keep_predictions(planned, (tap, protocol), predictions_npz(scores, queries))
            record = _record(
                planned,
                made,
                dataset=dataset,
                status="done",
                tap=tap,
                dimensions=None if tap == SAMPLES else train[tap].shape[1],
                protocol=protocol.name,
                protocol_label=protocol.label,
                protocol_params=protocol.params,
                protocol_version=protocol.version,
                protocol_code=protocol.code,
                metrics=scores.metrics,
                details=scores.details | {"solver": known[name].solver},
                alarms=[*alarms[tap], *few_updates(updates)],
                updates=updates,
                predictions=predictions and predictions.relative_to(directory.path).as_posix(),
                predictions_sha256=predictions_sha256,
                seconds=seconds | {"score": score_seconds},
            )
            left -= 1
            if not left:
                _tidy(directory, settings)
            store.publish_record(directory.record(tap, protocol.file_name), record)


def _keep_predictions(planned: PlannedRun, judged: tuple[str, ProtocolSpec], content: bytes) -> None:
    """Before the record that names them; where a process without locks was quicker they belong to its record."""
    if planned.again or not _is_there(planned, judged):
        store.replace(planned.directory.predictions(judged[0], judged[1].file_name), content)


def _keep_views(
    directory: RunDirectory, taps: t.Sequence[str], features: dict[str, Features], parts: dict[str, ImageSet]
) -> None:
    """Views of each tap that has none, or damaged ones."""
    for tap in taps:
        kept = directory.view(tap), directory.neighbours(tap)
        if not all(store.is_kept(directory, path) for path in kept):
            sets = {part: _feature_set(rows, tap, parts[part]) for part, rows in features.items()}
            views.keep(directory, tap, sets, parts)
            store.note_files(directory, kept)


def _check_planned(planned: PlannedRun, dataset: data.Dataset) -> None:
    if dataset.fingerprint != planned.fingerprint:
        name = planned.spec.dataset.name
        raise data.DataError(f"{name} is not what was planned with: it has changed, or differs here")


def _tidy(directory: RunDirectory, settings: Settings) -> None:
    """Remove what nobody needs any more, before the last record: after it nobody looks at a run again."""
    directory.failed.unlink(missing_ok=True)
    directory.in_flight.unlink(missing_ok=True)
    if settings.keep_features:
        store.replace(directory.features / KEPT, b"")
    elif not keeps_features(directory):
        shutil.rmtree(directory.features, ignore_errors=True)


def keeps_features(directory: RunDirectory) -> bool:
    return (directory.features / KEPT).exists()


def _together(missing: t.Iterable[tuple[str, ProtocolSpec]]) -> dict[tuple[str, str], list[ProtocolSpec]]:
    """{(tap, name of a protocol): its settings}, which may share their work."""
    groups: dict[tuple[str, str], list[ProtocolSpec]] = {}
    for tap, protocol in missing:
        groups.setdefault((tap, protocol.name), []).append(protocol)
    return groups


def _judge_samples(
    judges: t.Sequence[Protocol],
    encoder: Encoder,
    module: nn.Module,
    generator: nn.Module,
    dataset: data.Dataset,
    features: Features,
    seed: int,
) -> tuple[t.Iterator[Quality], list[Alarm]]:
    """What each protocol says of the generator's images, one after the other; and what looks wrong with them.

    `features`: of the test images.
    """
    assert isinstance(encoder, Generative)
    codes = encoder.codes(features)
    reconstructions = None if codes is None else samples.make(encoder, generator, codes)
    train, test = (
        _feature_set({SAMPLES: torch.from_numpy(np.array(part.images)).flatten(1) / 255}, SAMPLES, part)
        for part in (dataset.train, dataset.test)
    )

    with seeded(seed, "likelihoods"):
        likelihoods = encoder.log_likelihoods(module, generator, dataset.pretraining, dataset.test)

    def made(count: int) -> Tensor | None:
        drawn = samples.draw(encoder, dataset.test.shape, count, seed)
        return None if drawn is None else samples.make(encoder, generator, drawn)

    def found() -> t.Iterator[Quality]:
        for judge in judges:
            assert isinstance(judge, SampleProtocol)
            images = Samples(made(judge.samples), reconstructions, dataset.train.shape, likelihoods)
            yield judge.judge(images, train, test, seed=seed)

    return found(), samples.alarms(encoder, made(1000), features, dataset.test, seed)


def _judge_corrupted(
    judges: t.Sequence[Protocol],
    train: FeatureSet,
    test: FeatureSet,
    images: ImageSet,
    features_of: t.Callable[[ImageSet], FeatureSet],
    seed: int,
) -> t.Iterator[Scores]:
    """What each protocol says of features of the damaged test images, which are the same whatever the run's seed."""

    def corrupted() -> t.Iterator[Corrupted]:
        clean = torch.from_numpy(np.array(images.images))
        for kind in corruptions.KINDS:
            for severity in corruptions.SEVERITIES:
                damaged = corruptions.corrupt(clean, kind, severity, seed=0).numpy()
                yield Corrupted(kind, severity, features_of(dataclasses.replace(images, images=damaged)))

    for judge in judges:
        assert isinstance(judge, CorruptionProtocol)
        yield judge.judge(train, test, corrupted(), seed=seed)


def _features(
    name: str, module: nn.Module, tap: str, taps: t.Sequence[str], device: torch.device, images: ImageSet
) -> FeatureSet:
    """What a frozen module gives of images at one of its taps."""
    batches = [batch[tap] for _, batch in extract(name, module, images, taps, device)]
    return _feature_set({tap: torch.cat(batches)}, tap, images)


def _fit(
    planned: PlannedRun,
    encoder: Encoder,
    dataset: data.Dataset,
    watcher: Watcher,
    keeper: Checkpoints,
    device: torch.device,
    made: Provenance,
    ranks: Ranks,
) -> _Fitted:
    """Train, then publish encoder and generator, both frozen, with all that is told of them: run.json comes last."""
    spec, directory = planned.spec, planned.directory
    images = shown(dataset.pretraining, encoder, spec.seed)
    training = Training(spec.seed, device, planned.precision, keeper=keeper, ranks=ranks)
    told = time.monotonic()

    def report(progress: Progress) -> None:
        nonlocal told
        watcher.training(progress)
        if training.history and time.monotonic() - told >= HISTORY_SECONDS:
            store.replace(directory.history, _csv(training.history))
            told = time.monotonic()

    training.report = report
    watcher.stage("fitting")
    started = time.perf_counter()
    with machine.left_as_it_was(f"{planned.title}: its encoder"):
        module = encoder.fit(images, training)
    seconds = {"fit": training.earlier_seconds + time.perf_counter() - started}
    made = made.model_copy(update={"resumed_elsewhere": not keeper.exact})
    files = {directory.weights.name: _weights(module), directory.history.name: _csv(training.history)}
    generator, hashes = training.generator, {"weights_sha256": _sha256(files[directory.weights.name])}
    if generator is not None and isinstance(encoder, Generative):
        files[directory.generator.name] = _weights(generator)
        hashes["generator_sha256"] = _sha256(files[directory.generator.name])
        files |= _pictures(directory, encoder, generator, module, dataset, spec.seed)
    files[directory.encoder_json.name] = _description(spec, dataset, encoder, hashes)
    judged = {"tap", "dimensions", "metrics", "details", "alarms", "error", "status"}
    judged |= {"predictions", "predictions_sha256"}
    record = _record(planned, made, dataset=dataset, status="done", seconds=seconds, updates=training.updates)
    run = record.model_dump(mode="json", exclude=judged)
    for field in [field for field in run if field.startswith("protocol")]:
        del run[field]
    heavy = (directory.weights.name, directory.generator.name)
    beside = {name: _sha256(content) for name, content in files.items() if name not in heavy}
    run |= {"taps": _dimensions(module, images, device), **hashes, "files": beside}
    store.publish_run(directory.path, run, files)
    shutil.rmtree(directory.checkpoint, ignore_errors=True)
    return _Fitted(module, generator, seconds, not keeper.exact, training.updates)


_PART = TypeAdapter(tuple[PlannedRun, Settings])


def follow(part: str, ranks: Ranks) -> None:
    """Another rank's part of a fit; what it leaves behind is the first one's, too."""
    planned, settings = _PART.validate_json(part)
    machine.prepare(settings.threads)
    on_gpu = machine.pick_device(settings.device).type == "cuda"
    device = machine.pick_device(f"cuda:{local_rank(ranks)}" if on_gpu else "cpu")
    spec, encoder = planned.spec, recipe(planned.spec, settings)
    training = Training(spec.seed, device, planned.precision, ranks=ranks)
    dataset = load_data(spec, settings)
    _check_planned(planned, dataset)
    with machine.left_as_it_was(f"{planned.title}, rank {ranks.rank}: its encoder"):
        encoder.fit(shown(dataset.pretraining, encoder, spec.seed), training)


def _reload(planned: PlannedRun, encoder: Encoder, dataset: data.Dataset) -> _Fitted | None:
    """Encoder and generator of an earlier call, their files checked before they are read; None to make them again.

    What follows from them is made again where it is damaged: encoder.json, and the pictures.
    """
    directory, shape = planned.directory, dataset.train.shape
    store.settle(directory.path)  # what a process that was killed has begun to publish
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
    except (store.StoreError, EncoderError):
        logger.warning("the encoder in %s is damaged or gone; training it again", directory.path)
        store.set_aside(directory.run_json)
        return None
    if not store.is_kept(directory, directory.encoder_json):
        hashes = {field: sha256 for field, sha256 in run.items() if field in ("weights_sha256", "generator_sha256")}
        store.replace(directory.encoder_json, _description(planned.spec, dataset, encoder, hashes))
        store.note_files(directory, [directory.encoder_json])
    if isinstance(encoder, Generative) and generator is not None:
        pictures = [path for path in store.files_beside(directory) if path.parent == directory.pictures]
        if not all(store.is_kept(directory, path) for path in pictures):
            shutil.rmtree(directory.pictures)
            made = _pictures(directory, encoder, generator, module, dataset, planned.spec.seed)
            for name, picture in made.items():
                store.replace(directory.path / name, picture)
            store.note_files(directory, [directory.path / name for name in made])
    shutil.rmtree(directory.checkpoint, ignore_errors=True)  # of a fit that was killed at its very end
    resumed_elsewhere = run["provenance"].get("resumed_elsewhere", False)
    return _Fitted(module, generator, run["seconds"], resumed_elsewhere, run.get("updates", {}))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _pictures(
    directory: RunDirectory,
    encoder: Generative,
    generator: nn.Module,
    module: nn.Module,
    dataset: data.Dataset,
    seed: int,
) -> dict[str, bytes]:
    """Pictures of what a generator makes, by their names in the run's directory."""
    made = samples.pictures(encoder, generator, module, dataset.test, seed)
    return {f"{directory.pictures.name}/{name}": picture for name, picture in made.items()}


def _description(spec: RunSpec, dataset: data.Dataset, encoder: Encoder, hashes: dict[str, str]) -> bytes:
    """What encoder.json says."""
    about = {
        "encoder": spec.encoder.name,
        "params": spec.encoder.params,
        "encoder_version": spec.encoder_version,
        "shape": list(dataset.train.shape),
        "taps": list(encoder.taps),
        **hashes,
    }
    return store.canonical(about)


def _weights(module: nn.Module) -> bytes:
    return safetensors.torch.save({name: v.cpu().contiguous() for name, v in module.state_dict().items()})


def _record(planned: PlannedRun, made: Provenance, *, dataset: data.Dataset | None = None, **judged: t.Any) -> Record:
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
        train_images=len(dataset.train) if dataset else 0,
        test_images=len(dataset.test) if dataset else 0,
        encoder=spec.encoder.name,
        label=spec.encoder.label,
        params=spec.encoder.params,
        encoder_version=spec.encoder_version,
        code=spec.encoder.code,
        is_control=planned.is_control,
        labels=planned.labels,
        seed=spec.seed,
        provenance=made,
        **judged,
    )


def _feature_set(features: Features, tap: str, images: ImageSet) -> FeatureSet:
    assert images.labels is not None
    return FeatureSet(features[tap], torch.from_numpy(np.array(images.labels)), len(images.classes))


def predictions_digest(predicted: Tensor, labels: Tensor, others: t.Mapping[str, Tensor]) -> str:
    """SHA-256 of the classes, predicted and true, whatever numbers they are stored as."""
    digest = hashlib.sha256(torch.stack([predicted.cpu(), labels.cpu()]).long().numpy().astype("<i8").data)
    for name in sorted(others):
        digest.update(name.encode())
        digest.update(others[name].cpu().long().numpy().astype("<i8").data)
    return digest.hexdigest()


def predictions_npz(scores: Scores, test: FeatureSet) -> bytes:
    """A class for every test row, beside the true one, in the order of the rows; then whatever else was predicted."""
    small = np.min_scalar_type(test.classes)
    buffer = io.BytesIO()
    named = {"predicted": scores.predictions, "label": test.labels, **scores.others}
    classes: dict[str, t.Any] = {name: rows.cpu().numpy().astype(small) for name, rows in named.items()}
    np.savez_compressed(buffer, **classes)
    return buffer.getvalue()


def _dimensions(module: nn.Module, images: ImageSet, device: torch.device) -> dict[str, int]:
    with torch.no_grad():
        taps = module(torch.from_numpy(np.array(images.images[:2])).to(device))
    return {tap: rows.shape[1] for tap, rows in taps.items()}


def _csv(rows: list[dict[str, float]]) -> bytes:
    """The history as CSV; an encoder that is not trained by gradient has only a header."""
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["epoch", "seconds", "images_per_second"]
    lines = [",".join(columns), *(",".join(repr(row.get(column, math.nan)) for column in columns) for row in rows)]
    return ("\n".join(lines) + "\n").encode()
