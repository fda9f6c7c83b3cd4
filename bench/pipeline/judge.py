"""Frozen features, and what a generator makes, are judged by protocols; each record is published when it is made."""

import dataclasses
import time
import typing as t

import numpy as np
import torch
from torch import Tensor, nn

from bench.datasets import Dataset, corruptions
from bench.pipeline import samples
from bench.pipeline.extract import extract
from bench.pipeline.plan import PlannedRun, Watcher, as_planned, record_of, records
from bench.pipeline.samples import SAMPLES
from bench.suites.suite import ProtocolSpec
from encoders.base import Encoder, Features, Generative, ImageSet, seeded
from protocols.base import Corrupted, CorruptionProtocol, FeatureSet, Protocol, Quality, SampleProtocol, Samples, Scores
from results import files, predictions, store
from results.record import Alarm, Provenance

SHARE_OF_MEMORY = 0.25  # of a GPU's that is free, for the features that are scored there; protocols take as much again


class Judged(t.NamedTuple):
    """What a protocol found at a tap of a run."""

    tap: str
    protocol: ProtocolSpec
    scores: Scores | Quality
    seconds: float  # work that several settings share counts for the first of them


def configured(known: t.Mapping[str, type[Protocol]], specs: t.Iterable[ProtocolSpec]) -> list[Protocol]:
    """Protocols with the settings of each spec. Raises EncoderError for a plugin that has changed since."""
    return [as_planned(spec.recipe(known), spec) for spec in specs]


def judge(
    tap: str, specs: t.Iterable[ProtocolSpec], scored: t.Iterator[Scores | Quality], watcher: Watcher | None = None
) -> t.Iterator[Judged]:
    """What several settings of one protocol find at a tap; the seconds of each are those that `scored` takes for it."""
    for spec in specs:
        if watcher:
            watcher.stage(f"scoring {tap} with {spec.label}")
        started = time.perf_counter()
        yield Judged(tap, spec, next(scored), time.perf_counter() - started)


def keep_predictions(planned: PlannedRun, judged: Judged, test: FeatureSet) -> str | None:
    """Write the classes that were predicted, if any, before the record that names them; their SHA-256.

    Where a process without locks was quicker, the predictions that are there belong to its record, and stay.
    """
    tap, protocol, scores, _ = judged
    if not isinstance(scores, Scores):
        return None
    named = {"predicted": scores.predictions, "label": test.labels, **scores.others}
    classes = {name: rows.cpu().numpy() for name, rows in named.items()}
    if planned.again or not is_there(planned, (tap, protocol)):
        path = planned.directory.predictions(tap, protocol.file_name)
        files.replace(path, predictions.to_npz(classes, test.classes))
    return predictions.digest(classes)


def publish(
    planned: PlannedRun,
    judged: Judged,
    solver: int,
    provenance: Provenance,
    predictions_sha256: str | None,
    train: FeatureSet,
    test: FeatureSet,
    *,
    alarms: list[Alarm],
    seconds: dict[str, float],
    updates: dict[str, int] | None = None,
) -> None:
    """Publish the record of what was found; its predictions are there, see `keep_predictions`."""
    directory, tap, protocol, scores = planned.directory, judged.tap, judged.protocol, judged.scores
    path = directory.predictions(tap, protocol.file_name) if predictions_sha256 else None
    record = record_of(
        planned,
        provenance,
        images=(len(train), len(test)),
        status="done",
        tap=tap,
        dimensions=None if tap == SAMPLES else train.features.shape[1],
        protocol=protocol.name,
        protocol_label=protocol.label,
        protocol_params=protocol.params,
        protocol_version=protocol.version,
        protocol_code=protocol.code,
        metrics=scores.metrics,
        details=scores.details | {"solver": solver},
        alarms=alarms,
        updates=updates or {},
        predictions=path and path.relative_to(directory.path).as_posix(),
        predictions_sha256=predictions_sha256,
        seconds=seconds | {"score": judged.seconds},
    )
    store.publish_record(directory.record(tap, protocol.file_name), record)


def is_there(planned: PlannedRun, wanted: tuple[str, ProtocolSpec]) -> bool:
    """Whether a record was made since the run was planned."""
    return any(store.is_record(path) for path in records(planned.directory, *wanted))


def by_protocol(missing: t.Iterable[tuple[str, ProtocolSpec]]) -> dict[tuple[str, str], list[ProtocolSpec]]:
    """{(tap, name of a protocol): its settings}, which may share their work."""
    groups: dict[tuple[str, str], list[ProtocolSpec]] = {}
    for tap, protocol in missing:
        groups.setdefault((tap, protocol.name), []).append(protocol)
    return groups


def judge_samples(
    judges: t.Sequence[Protocol],
    encoder: Encoder,
    module: nn.Module,
    generator: nn.Module,
    dataset: Dataset,
    features: Features,
    pixels: tuple[FeatureSet, FeatureSet],
    seed: int,
) -> tuple[t.Iterator[Quality], list[Alarm]]:
    """What each protocol says of the generator's images, one after the other; and what looks wrong with them.

    features: of the test images. pixels: of train and test, in 0..1.
    """
    assert isinstance(encoder, Generative)
    codes = encoder.codes(features)
    reconstructions = None if codes is None else samples.make(encoder, generator, codes)
    train, test = pixels

    with seeded(seed, "likelihoods"):
        likelihoods = encoder.log_likelihoods(module, generator, dataset.pretraining, dataset.test)

    device = test.features.device
    likelihoods = {name: nats.to(device) for name, nats in likelihoods.items()}
    if reconstructions is not None:
        reconstructions = reconstructions.to(device)

    def made(count: int) -> Tensor | None:
        drawn = samples.draw(encoder, dataset.test.shape, count, seed)
        return None if drawn is None else samples.make(encoder, generator, drawn)

    def found() -> t.Iterator[Quality]:
        for judge in judges:
            assert isinstance(judge, SampleProtocol)
            drawn = made(judge.samples)
            images = None if drawn is None else drawn.to(device)
            yield judge.judge(
                Samples(images, reconstructions, dataset.train.shape, likelihoods), train, test, seed=seed
            )

    return found(), samples.alarms(encoder, made(1000), features, dataset.test, seed)


def judge_corrupted(
    judges: t.Sequence[Protocol],
    train: FeatureSet,
    test: FeatureSet,
    images: ImageSet,
    extracted: t.Callable[[ImageSet], FeatureSet],
    seed: int,
) -> t.Iterator[Scores]:
    """What each protocol says of features of the damaged test images, which are the same whatever the run's seed."""

    def corrupted() -> t.Iterator[Corrupted]:
        clean = torch.from_numpy(np.array(images.images))
        for kind in corruptions.KINDS:
            for severity in corruptions.SEVERITIES:
                damaged = corruptions.corrupt(clean, kind, severity, seed=0).numpy()
                rows = extracted(dataclasses.replace(images, images=damaged))
                yield Corrupted(kind, severity, rows.to(test.features.device))

    for judge in judges:
        assert isinstance(judge, CorruptionProtocol)
        yield judge.judge(train, test, corrupted(), seed=seed)


def where_it_fits(device: torch.device, *sets: FeatureSet) -> tuple[FeatureSet, ...]:
    """The same rows on the device, if together they take no more than a share of a GPU's free memory."""
    if device.type != "cuda":
        return sets
    free, _ = torch.cuda.mem_get_info(device)
    fits = sum(rows.features.nbytes for rows in sets) <= SHARE_OF_MEMORY * free
    return tuple(rows.to(device) for rows in sets) if fits else sets


def features_of(
    name: str, module: nn.Module, tap: str, taps: t.Sequence[str], device: torch.device, images: ImageSet
) -> FeatureSet:
    """What a frozen module gives of images at one of its taps."""
    return feature_set(torch.cat([batch[tap] for _, batch in extract(name, module, images, taps, device)]), images)


def feature_set(rows: Tensor, images: ImageSet) -> FeatureSet:
    """Features of the first images of a set, with their labels."""
    assert images.labels is not None
    return FeatureSet(rows, torch.from_numpy(np.array(images.labels[: len(rows)])), len(images.classes))


def pixels_of(images: ImageSet) -> FeatureSet:
    """Pixels in 0..1, as features."""
    return feature_set(torch.from_numpy(np.array(images.images)).flatten(1) / 255, images)
