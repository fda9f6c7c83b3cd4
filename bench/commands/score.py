"""Features of any model, judged like ours: a file of them in, records out that stand in a leaderboard as a row.

A row stands in a dataset's table only if the file's labels are that dataset's in canonical order, so that both were
judged on the same images. Other features stand in a table of their own, with whatever has the same labels in the same
order.
"""

import dataclasses
import hashlib
import re
import shlex
import typing as t
from pathlib import Path

import torch

from bench.commands import feature_files
from bench.datasets.formats import DataError
from bench.errors import config_error
from bench.host import machine
from bench.pipeline.diagnostics import diagnose
from bench.pipeline.judge import by_protocol, configured, judge, keep_predictions, publish
from bench.pipeline.plan import PlannedRun, Settings, folder, load_images
from bench.suites import resolve
from bench.suites.reading import read_dataset, read_protocols
from bench.suites.suite import DatasetSpec, EncoderSpec, ProtocolSpec, RunSpec
from protocols.base import FeatureSet
from results import files, layout, leaderboard, store
from results.leaderboard import Leaderboard

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
    """Judge the features of a file (see `feature_files`), publish a record a protocol, and give the table they join.

    name: of the row; "" for the file's. seed: of the pretraining; files of one name are one row, with a seed each.
    labels: of the training images that the model saw, a number or "all".

    Raises DataError for features that cannot be judged or are not this dataset's, ConfigError for a name, a protocol or
    labels that are none, ProtocolError for a protocol not defined on them, StoreError where records cannot be kept.
    """
    label = name or path.stem.lower()
    if not re.fullmatch(resolve.NAME, label):
        raise config_error("--name", f"wanted a name such as my-model ({resolve.NAME}), got {label!r}")
    if not re.fullmatch("all|[0-9]{1,9}", labels):
        raise config_error("--labels", f"wanted a number or all, got {labels!r}")
    known = resolve.protocols(settings.plugins)
    protocols_asked = protocols_of_features(protocols, settings.plugins)
    machine.prepare(settings.threads)
    provenance = machine.provenance(torch.device("cpu"), settings.threads, "float32")  # where the features lie
    train, test = feature_files.read(path)
    if dataset is None:
        dataset, fingerprint = DatasetSpec(name=UNNAMED), _digest(train.labels, test.labels)
        place = UNNAMED
    else:
        train, test, fingerprint = _of_dataset(path, train, test, dataset, settings)
        place = folder(dataset)
    key = _digest(train.features, train.labels, test.features, test.labels, saw=labels)
    planned = PlannedRun(
        spec=RunSpec(
            suite=SUITE,
            dataset=dataset,
            encoder=EncoderSpec(name=SUITE, label=label, params={}, version=1),
            protocols=protocols_asked,
            seed=seed,
            precision="float32",
        ),
        key=key,
        fingerprint=fingerprint,
        precision="float32",
        directory=layout.run_directory(settings.output / SUITE, label, place, seed, key),
        missing=tuple((TAP, protocol) for protocol in protocols_asked),
        is_control=False,
        labels="all" if labels == "all" else int(labels),
    )
    files.check_writable(settings.output / SUITE)
    alarms = diagnose(train.features)
    for (tap, kind), specs in by_protocol(planned.missing).items():
        scored = known[kind].score_all(configured(known, specs), train, test, seed=seed)
        for judged in judge(tap, specs, scored):
            sha256 = keep_predictions(planned, judged, test)
            publish(planned, judged, known[kind].solver, provenance, sha256, train, test, alarms=alarms, seconds={})
    table = dataset.name, dataset.limit, dataset.split, fingerprint
    contents = store.read_store(settings.output)
    beside = [one for one in contents.records if (one.dataset, one.limit, one.split, one.fingerprint) == table]
    return leaderboard.of(dataclasses.replace(contents, records=beside))


def protocols_of_features(entries: t.Sequence[str], plugins: t.Sequence[Path]) -> tuple[ProtocolSpec, ...]:
    """Protocols as a command line names them, which judge features of any model. Raises ConfigError."""
    known, asked = resolve.protocols(plugins), read_protocols(entries, plugins)
    for protocol in asked:
        if taps := known[protocol.name].reads:
            problem = f"{protocol.name!r} scores {', '.join(taps)} of an encoder in a suite, not features from a file"
            raise config_error("--protocol", problem)
        if not known[protocol.name].features_only:
            problem = f"{protocol.name!r} needs the encoder, not only its features; use it in a suite's `protocols`"
            raise config_error("--protocol", problem)
    return asked


def _of_dataset(
    path: Path, train: FeatureSet, test: FeatureSet, dataset: DatasetSpec, settings: Settings
) -> tuple[FeatureSet, FeatureSet, str]:
    """The same features once their labels say that they are of this dataset's images, and its fingerprint."""
    loaded = load_images(dataset, settings)
    limit = f" --limit {dataset.limit}" if dataset.limit else ""
    split = " --split validation" if dataset.split == "validation" else ""
    form = {key: value for key in ("size", "mode", "pretrain") if (value := getattr(dataset, key)) is not None}
    entry = ", ".join(f"{key}: {value}" for key, value in {"name": dataset.name, **form}.items())
    name = shlex.quote("{" + entry + "}" if form else dataset.name)
    way_out = f"`frostbench extract pixels --dataset {name}{limit}{split} --output images.npz` writes its images"
    for part, rows, images in (("train", train, loaded.train), ("test", test, loaded.test)):
        assert images.labels is not None
        if len(rows) != len(images):
            came = f"{len(rows):,} rows, but {dataset.label} has {len(images):,} images"
        elif wrong := int((rows.labels.numpy() != images.labels).sum()):
            came = f"{wrong:,} of {len(rows):,} labels differ from those of {dataset.label} in its canonical order"
        else:
            continue
        raise DataError(
            f"{path}, {part}: {came}. {way_out} in that order; without --dataset the features get a table of their own"
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
        raise config_error("--limit, --split", "they select images of a dataset; name it with --dataset")
    return None


def _digest(*rows: torch.Tensor, saw: str = "") -> str:
    """16 hex digits for these numbers in this order and shape."""
    digest = hashlib.sha256(saw.encode())
    for tensor in rows:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:16]
