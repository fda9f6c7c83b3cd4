"""One run from start to end: load, fit, extract, score, record."""

import contextlib
import dataclasses
import functools
import json
import shutil
import time
import typing as t

import torch

from bench.host import machine
from bench.host.distributed import local_world, process_group
from bench.host.stopping import Stopping
from bench.pipeline import epochs, judge, snapshots
from bench.pipeline.checkpoints import Checkpoints, ResumeRefused
from bench.pipeline.diagnostics import diagnose, few_updates
from bench.pipeline.extract import features_on_disk
from bench.pipeline.fit import fit, part_of_worker, reload, worker_fit
from bench.pipeline.plan import PlannedRun, Settings, Watcher, check_planned, fail, failure, load_data, recipe
from bench.pipeline.samples import SAMPLES
from bench.suites import resolve
from bench.suites.sources import place
from encoders.base import EncoderError, Features, ImageSet
from protocols.base import CorruptionProtocol, Quality, Scores
from results import files, store
from results.layout import RunDirectory
from results.record import Provenance
from results.redaction import message, trace


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

    Raises files.Unwritable (no room, no right to write), ResumeRefused and KeyboardInterrupt: they are not the run's
    fault. A training that is stopped so, or killed, goes on next time. Where another process is at this run, waits for
    it and does what it leaves; or raises files.Claimed if not told to wait. `alone`: nobody would see this process die,
    so it notes what it is at, and a run at which it has died twice fails.
    """
    gpus, ranks_here = torch.cuda.device_count(), local_world(settings.ranks)
    device = machine.pick_device(machine.gpu_of(settings.device, gpus, ranks=ranks_here))
    machine.prepare(settings.threads)
    provenance = machine.provenance(device, settings.threads, planned.precision, settings.ranks)
    watcher.stage("waiting for another process that is at this run")
    if planned.spec.snapshot and (training := epochs.of_training(planned).path).exists():
        with files.claim(training, wait=wait):  # another process may be at the training that leaves the state
            pass
    with files.claim(planned.directory.path, wait=wait) as locked:
        left = tuple(one for one in planned.missing if planned.again or not judge.is_there(planned, one))
        planned = dataclasses.replace(planned, missing=left)
        if not planned.missing:
            return None
        try:
            with (
                _noted(planned.directory) if alone and locked else contextlib.nullcontext(),
                machine.left_as_it_was(f"{planned.title}: its code"),
            ):
                _execute(planned, settings, watcher, stopping, device, provenance)
        except (files.Unwritable, KeyboardInterrupt):  # no failure of the method: no record of it
            raise
        except ResumeRefused as refused:  # nor is this, but its table should say why the run is not there
            fail(planned, str(refused), provenance)
            raise
        except BaseException as error:  # a method can also call sys.exit
            said = message(error, kind=not isinstance(error, EncoderError))
            return failure(fail(planned, said, provenance, {"traceback": trace(error), "place": place(error)}))
        return None


KEPT = "kept"  # an empty file in features/ that are to stay
MAX_DEATHS = 2  # of a process at one run, without another checkpoint or record in between


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
    with contextlib.suppress(files.StoreError, ValueError, KeyError, TypeError):
        before = json.loads(files.read_bytes(directory.in_flight, files.MAX_JSON_BYTES))
        deaths = before["deaths"] + 1 if before["reached"] == reached else 0
    if deaths >= MAX_DEATHS:
        way_out = "`--executor processes` tries it in a separate process"
        raise _Deadly(f"the process has died {MAX_DEATHS} times at this run, perhaps for lack of memory; {way_out}")
    files.replace(directory.in_flight, files.canonical({"deaths": deaths, "reached": reached}))
    try:
        yield
    finally:
        directory.in_flight.unlink(missing_ok=True)


def _execute(
    planned: PlannedRun,
    settings: Settings,
    watcher: Watcher,
    stopping: Stopping,
    device: torch.device,
    provenance: Provenance,
) -> None:
    spec, directory = planned.spec, planned.directory
    watcher.stage("loading")
    dataset = load_data(spec, settings)
    check_planned(planned, dataset)
    encoder = recipe(spec, settings)
    known = resolve.protocols(settings.plugins, reread=False)
    provenance = provenance.model_copy(update={"solvers": {one.name: known[one.name].solver for one in spec.protocols}})
    fitted = reload(planned, encoder, dataset)
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
        with process_group(worker_fit, (part_of_worker(planned, settings),), settings.ranks, str(device)) as group:
            fitted = fit(planned, encoder, dataset, watcher, keeper, device, provenance, group)
    module, generator, seconds, resumed_elsewhere, updates = fitted
    provenance = provenance.model_copy(update={"resumed_elsewhere": resumed_elsewhere})
    module.to(device)
    watcher.stage("extracting")
    started = time.perf_counter()
    parts = {"train": dataset.train, "test": dataset.test}
    features = features_on_disk(directory.features, spec.encoder.name, module, parts, encoder.taps, device)
    seconds = seconds | {"extract": time.perf_counter() - started}
    _keep_views(directory, encoder.taps, features, parts)
    alarms = {tap: diagnose(features["train"][tap]) for tap in {tap for tap, _ in planned.missing} - {SAMPLES}}
    left = len(planned.missing)
    for (tap, name), specs in judge.by_protocol(planned.missing).items():
        protocols = judge.configured(known, specs)
        scored: t.Iterator[Scores | Quality]
        if generator is not None and tap == SAMPLES:
            train, test = judge.where_it_fits(device, *(judge.pixels_of(images) for images in parts.values()))
            pixels = train, test
            scored, alarms[tap] = judge.judge_samples(
                protocols, encoder, module, generator.to(device), dataset, features["test"], pixels, spec.seed
            )
        else:
            sets = (judge.feature_set(features[part][tap], images) for part, images in parts.items())
            train, test = judge.where_it_fits(device, *sets)
            again = functools.partial(judge.features_of, spec.encoder.name, module, tap, encoder.taps, device)
            scored = (
                judge.judge_corrupted(protocols, train, test, dataset.test, again, spec.seed)
                if issubclass(known[name], CorruptionProtocol)
                else known[name].score_all(protocols, train, test, seed=spec.seed)
            )
        for judged in judge.judge(tap, specs, scored, watcher):
            left -= 1
            sha256 = judge.keep_predictions(planned, judged, test)
            if not left:
                _tidy(directory, settings)
            judge.publish(
                planned, judged, known[name].solver, provenance, sha256, train, test,
                alarms=[*alarms[tap], *few_updates(updates)], seconds=seconds, updates=updates,
            )  # fmt: skip


def _keep_views(
    directory: RunDirectory, taps: t.Sequence[str], features: dict[str, Features], parts: dict[str, ImageSet]
) -> None:
    """Views of each tap that has none, or damaged ones."""
    for tap in taps:
        kept = directory.view(tap), directory.neighbours(tap)
        if not all(store.is_kept(directory, path) for path in kept):
            sets = {part: judge.feature_set(rows[tap], parts[part]) for part, rows in features.items()}
            snapshots.keep(directory, tap, sets, parts)
            store.note_files(directory, kept)


def _tidy(directory: RunDirectory, settings: Settings) -> None:
    """Remove what nobody needs any more, before the last record: after it nobody looks at a run again."""
    directory.failed.unlink(missing_ok=True)
    directory.in_flight.unlink(missing_ok=True)
    if settings.keep_features:
        files.replace(directory.features / KEPT, b"")
    elif not keeps_features(directory):
        shutil.rmtree(directory.features, ignore_errors=True)


def keeps_features(directory: RunDirectory) -> bool:
    return (directory.features / KEPT).exists()
