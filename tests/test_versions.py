"""A version names a definition: what a protocol finds in kept features moves only where its version is raised.

`reference.npz` holds the features and what each protocol found in them when its version was new. After a version was
raised, `python -m tests.test_versions` adds what the new one finds; what is there already it leaves as it is.
"""

import contextlib
import functools
import io
import json
import typing as t
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import datasets
from bench.suites import resolve
from encoders.base import Training
from encoders.bigan import BiGAN
from encoders.untrained import Untrained
from protocols.base import Corrupted, CorruptionProtocol, FeatureSet, Protocol, Quality, SampleProtocol
from results.record import equal

REFERENCE = Path(__file__).with_name("reference.npz")
ROWS = 1000  # of train and of test
MOVED, IMAGES = 4, 1  # of the test rows: predictions that may move, and by how many the right ones may be more or fewer
FEATURES = ("pixels", "bigan/code", "untrained/penultimate")
SETTINGS: dict[str, list[dict[str, t.Any]]] = {  # where the defaults take too long or leave much of it unused
    "fewshot": [{"draws": 2}, {"draws": 2, "head": "linear"}],
    "knn": [{}, {"k": 5, "metric": "cosine"}],
    "mlp": [{"epochs": 5}],
    "robustness": [{}, {"probe": "linear"}],
    "sgd_linear": [{"epochs": 10}],
}
JUDGES = {  # of features: those of samples give no row a class
    f"{name} {json.dumps(settings)}": cls(**settings)
    for name, cls in resolve.protocols().items()
    if not issubclass(cls, SampleProtocol)
    for settings in SETTINGS.get(name, [{}])
}


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("judge", JUDGES)
def test_what_a_version_finds_stays(judge: str, features: str) -> None:
    protocol, name = JUDGES[judge], judge.partition(" ")[0]
    kept, metrics = _kept()
    versions = equal(protocol.equal_versions, protocol.version)
    known = next((key for one in versions if (key := _key(judge, one, features)) in metrics), None)
    assert known, f"no reference of {name}@{protocol.version}: `python -m tests.test_versions` adds it; commit the file"
    predictions, found = _found(protocol, features)
    labels = _labels()[1].numpy()
    way_out = (
        f"A change of what {name} computes is a new definition: raise `version` in protocols/{name}.py, run "
        "`python -m tests.test_versions`, commit tests/reference.npz and tell it in CHANGELOG.md. Another way to the "
        "same numbers (`solver`) must not move more than this."
    )
    for before, now in zip(kept[known], predictions):
        moved, right = int((before != now).sum()), int((now == labels).sum()) - int((before == labels).sum())
        said = f"{known}: {moved} of {ROWS} predictions moved and {right:+d} are right; wanted {MOVED} and ±{IMAGES}."
        assert moved <= MOVED and abs(right) <= IMAGES, f"{said} {way_out}"
    for metric, value in metrics[known].items():  # of fractions, an image; of other numbers, a thousandth
        said = f"{known}: {metric} was {value} and is {found[metric]}."
        assert abs(found[metric] - value) <= 1.001 * IMAGES / ROWS * max(1.0, abs(value)), f"{said} {way_out}"


def test_the_reference_is_small() -> None:
    assert REFERENCE.stat().st_size < 100_000


def _key(judge: str, version: int, features: str) -> str:
    name, _, settings = judge.partition(" ")
    return f"{name}@{version} {settings} of {features}"


def _found(protocol: Protocol, features: str) -> tuple[np.ndarray[t.Any, t.Any], dict[str, float]]:
    """(a row for each set of predictions, numbers by metric)"""
    train, test = (FeatureSet(rows, labels, 10) for rows, labels in zip(_features(features), _labels()))
    with _one_thread():
        if isinstance(protocol, CorruptionProtocol):
            half = torch.arange(test.features.shape[1]) % 2
            damaged = {"contrast": test.features / 2, "occlusion": test.features * half}
            corrupted = [Corrupted(kind, 1, FeatureSet(rows, test.labels, 10)) for kind, rows in damaged.items()]
            scores = protocol.judge(train, test, corrupted, seed=0)
        else:
            scores = protocol.score(train, test, seed=0)
    if isinstance(scores, Quality):
        return np.empty((0, ROWS), np.uint8), scores.metrics
    told = torch.stack([scores.predictions, *(scores.others[one] for one in sorted(scores.others))])
    return told.numpy().astype(np.uint8), scores.metrics


@functools.cache
def _labels() -> tuple[torch.Tensor, torch.Tensor]:
    dataset = datasets.load("mnist5k")
    first, second = (torch.from_numpy(np.array(part.labels)[:ROWS]) for part in (dataset.train, dataset.test))
    return first, second


@functools.cache
def _features(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Of train and test rows."""
    if name == "bigan/code":  # kept, in steps of 1 / 127: a training has other bits on other processors
        kept = _kept()[0]
        first, second = (torch.from_numpy(kept[f"{name} {part}"]).float() / 127 for part in ("train", "test"))
        return first, second
    dataset = datasets.load("mnist5k")
    parts = [torch.from_numpy(np.array(part.images[:ROWS])) for part in (dataset.train, dataset.test)]
    if name == "pixels":
        first, second = (images.flatten(1).float() / 255 for images in parts)
        return first, second
    encoder = Untrained(architecture="bigan", parameters={"hidden": 256})
    with _one_thread(), torch.no_grad():
        module = encoder.fit(dataset.train.without_labels(), Training(0))
        first, second = (module(images)["penultimate"] for images in parts)
    return first, second


@functools.cache
def _kept() -> tuple[dict[str, np.ndarray[t.Any, t.Any]], dict[str, dict[str, float]]]:
    """(features and predictions, numbers by what found them)"""
    with np.load(REFERENCE) as file:
        kept = dict(file)
    return kept, json.loads(str(kept.pop("metrics")))


@contextlib.contextmanager
def _one_thread() -> t.Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _bigan_codes() -> dict[str, np.ndarray[t.Any, t.Any]]:
    dataset = datasets.load("mnist5k")
    with _one_thread(), torch.no_grad():
        with torch.enable_grad():
            module = BiGAN(latent=20, hidden=256, epochs=10).fit(dataset.train.without_labels(), Training(0))
        parts = {"train": dataset.train, "test": dataset.test}
        codes = {part: module(torch.from_numpy(np.array(rows.images[:ROWS])))["code"] for part, rows in parts.items()}
    return {f"bigan/code {part}": torch.round(rows * 127).to(torch.int8).numpy() for part, rows in codes.items()}


def _write(kept: dict[str, np.ndarray[t.Any, t.Any]], metrics: dict[str, dict[str, float]]) -> None:
    buffer = io.BytesIO()
    packed: dict[str, t.Any] = {**kept, "metrics": np.array(json.dumps(metrics))}
    np.savez_compressed(buffer, **packed)
    REFERENCE.write_bytes(buffer.getvalue())
    _kept.cache_clear()


def main() -> None:
    """Add what is missing of the present versions, and drop those that no present one is equal to."""
    if not REFERENCE.exists():
        _write(_bigan_codes(), {})
    kept, metrics = _kept()
    wanted: dict[str, dict[str, float]] = {}
    arrays = {name: rows for name, rows in kept.items() if name.startswith("bigan/code ")}
    for judge, protocol in JUDGES.items():
        for features in FEATURES:
            versions = (protocol.version, *equal(protocol.equal_versions, protocol.version))
            keys = [_key(judge, one, features) for one in versions]
            key = next((one for one in keys if one in metrics), keys[0])
            if key in metrics:
                arrays[key], wanted[key] = kept[key], metrics[key]
            else:
                arrays[key], wanted[key] = _found(protocol, features)
                print(f"added: {key}: {wanted[key]}")
    _write(arrays, wanted)


if __name__ == "__main__":
    main()
