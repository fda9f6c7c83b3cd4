"""Features of any model, judged like ours: a file of them in, records out that stand in a leaderboard as a row.

A row stands in a dataset's table only if the file's labels are that dataset's in canonical order, so that both were
judged on the same images. Other features stand in a table of their own, with whatever has the same labels in the same
order.
"""

import dataclasses
import hashlib
import json
import re
import shlex
import time
import typing as t
from pathlib import Path

import torch

from bench import features, machine, resolve, run
from bench.diagnostics import diagnose
from bench.formats import DataError
from bench.run import Settings
from bench.strict_yaml import wrong
from bench.suite import DatasetSpec, read_dataset, read_protocols
from protocols.base import FeatureSet, Scores
from results import leaderboard, store
from results.leaderboard import Leaderboard
from results.record import Record

SUITE = "features"  # the directory of what was scored
UNNAMED = "unnamed"  # data that only its labels tell from other data
TAP = "features"


def score(
    path: Path,
    name: str,
    protocols: t.Sequence[str],
    dataset: DatasetSpec | None,
    seed: int,
    labels: str,
    settings: Settings,
) -> Leaderboard:
    """Judge the features of a file (see `bench.features`), publish a record a protocol, and give the table they join.

    name: of the row; "" for the file's. seed: of the pretraining; files of one name are one row, with a seed each.
    labels: of the training images that the model saw, a number or "all".

    Raises DataError for features that cannot be judged or are not this dataset's, ConfigError for a name, a protocol or
    labels that are none, ProtocolError for a protocol not defined on them, StoreError where records cannot be kept.
    """
    label = name or path.stem.lower()
    if not re.fullmatch(resolve.NAME, label):
        raise wrong("--name", f"wanted a name such as my-model ({resolve.NAME}), got {label!r}")
    if not re.fullmatch("all|[0-9]{1,9}", labels):
        raise wrong("--labels", f"wanted a number or all, got {labels!r}")
    known = resolve.protocols(settings.plugins)
    judges = read_protocols(protocols, settings.plugins)
    for protocol in judges:
        if taps := known[protocol.name].reads:
            problem = f"{protocol.name!r} reads {', '.join(taps)} of encoders of ours, not features of any model"
            raise wrong("--protocol", problem)
        if not known[protocol.name].features_only:
            problem = f"{protocol.name!r} needs the encoder beside its features; name it in a suite's `protocols`"
            raise wrong("--protocol", problem)
    device = torch.device("cpu")  # where protocols compute is where features lie
    machine.prepare(settings.threads)
    made = machine.provenance(device, settings.threads, "float32")
    train, test = features.read(path)
    if dataset is None:
        dataset, fingerprint = DatasetSpec(name=UNNAMED), _digest(train.labels, test.labels)
        place = UNNAMED
    else:
        train, test, fingerprint = _of_dataset(path, train, test, dataset, settings)
        place = run.folder(dataset)
    key = _digest(train.features, train.labels, test.features, test.labels, saw=labels)
    directory = store.run_directory(settings.output / SUITE, label, place, seed, key)
    store.check_writable(settings.output / SUITE)
    alarms = diagnose(train.features)
    for protocol in judges:
        started = time.perf_counter()
        judge = known[protocol.name].model_validate_json(json.dumps(protocol.params))
        scores = judge.score(train, test, seed=seed)
        seconds = time.perf_counter() - started
        predictions = digest = None
        if isinstance(scores, Scores):
            predictions = directory.predictions(TAP, protocol.file_name)
            if not store.is_record(directory.record(TAP, protocol.file_name)):  # else they are that record's
                store.replace(predictions, run.predictions_npz(scores, test))
            digest = run.predictions_digest(scores.predictions, test.labels, scores.others)
        record = Record(
            suite=SUITE,
            key=key,
            dataset=dataset.name,
            split=dataset.split,
            limit=dataset.limit,
            pretrain=dataset.pretrain,
            size=dataset.size,
            mode=dataset.mode,
            fingerprint=fingerprint,
            train_images=len(train),
            test_images=len(test),
            encoder=SUITE,
            label=label,
            params={},
            encoder_version=1,
            is_control=False,
            labels="all" if labels == "all" else int(labels),
            seed=seed,
            status="done",
            tap=TAP,
            dimensions=train.features.shape[1],
            protocol=protocol.name,
            protocol_label=protocol.label,
            protocol_params=protocol.params,
            protocol_version=protocol.version,
            metrics=scores.metrics,
            details=scores.details | {"solver": judge.solver},
            alarms=alarms,
            predictions=predictions and predictions.relative_to(directory.path).as_posix(),
            predictions_sha256=digest,
            seconds={"score": seconds},
            provenance=made,
        )
        store.publish_record(directory.record(TAP, protocol.file_name), record)
    table = dataset.name, dataset.limit, dataset.split, fingerprint
    contents = store.read_store(settings.output)
    beside = [one for one in contents.records if (one.dataset, one.limit, one.split, one.fingerprint) == table]
    return leaderboard.of(dataclasses.replace(contents, records=beside))


def _of_dataset(
    path: Path, train: FeatureSet, test: FeatureSet, dataset: DatasetSpec, settings: Settings
) -> tuple[FeatureSet, FeatureSet, str]:
    """The same features once their labels say that they are of this dataset's images, and its fingerprint."""
    loaded = run.load_images(dataset, settings)
    limit = f" --limit {dataset.limit}" if dataset.limit else ""
    split = " --split validation" if dataset.split == "validation" else ""
    form = {key: value for key in ("size", "mode", "pretrain") if (value := getattr(dataset, key)) is not None}
    entry = ", ".join(f"{key}: {value}" for key, value in {"name": dataset.name, **form}.items())
    name = shlex.quote("{" + entry + "}" if form else dataset.name)
    way_out = f"`frostbench extract pixels --dataset {name}{limit}{split} --output images.npz` writes its images"
    for part, rows, images in (("train", train, loaded.train), ("test", test, loaded.test)):
        assert images.labels is not None
        if len(rows) != len(images):
            came = f"{len(rows):,} rows; {dataset.label} has {len(images):,} images there"
        elif wrong := int((rows.labels.numpy() != images.labels).sum()):
            came = f"{wrong:,} of {len(rows):,} labels that are not those of {dataset.label} in its canonical order"
        else:
            continue
        raise DataError(
            f"{path}, {part}: {came}. {way_out} in that order; without --dataset a table of its own is made"
        )
    classes = len(loaded.train.classes)
    train, test = (FeatureSet(part.features, part.labels, classes) for part in (train, test))
    return train, test, loaded.fingerprint


def named(dataset: str, limit: int, split: t.Literal["test", "validation"]) -> DatasetSpec | None:
    """The images that a command line names, None for none."""
    if dataset:
        asked: dict[str, t.Any] = {"limit": limit} if limit else {}
        return read_dataset(dataset).model_copy(update=asked | ({"split": split} if split == "validation" else {}))
    if limit or split == "validation":
        raise wrong("--limit, --split", "say which images of a dataset; name one by --dataset")
    return None


def _digest(*rows: torch.Tensor, saw: str = "") -> str:
    """16 hex digits for these numbers in this order and shape."""
    digest = hashlib.sha256(saw.encode())
    for tensor in rows:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:16]
