"""Robustness: what the probe is fitted on, what it is judged on, and what a suite shows of it."""

import json
import typing as t
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.commands.verify import verify
from bench.datasets.corruptions import KINDS, SEVERITIES
from protocols.base import Corrupted, FeatureSet, ProtocolError
from protocols.check import Sealed
from protocols.robustness import Robustness
from protocols.solver import Problem
from results import store

PROBES: list[t.Literal["knn", "linear"]] = ["knn", "linear"]


def blobs(rows: int, seed: int) -> FeatureSet:
    """Two classes far apart in the first feature; the second tells nothing."""
    draw = np.random.Generator(np.random.Philox(seed))
    labels = np.arange(rows) % 2
    x = np.stack([20.0 * labels, np.zeros(rows)], axis=1) + draw.normal(size=(rows, 2))
    return FeatureSet(torch.from_numpy(x).float(), torch.from_numpy(labels), 2)


def mirrored(rows: FeatureSet, share: float) -> FeatureSet:
    """The same rows, the first `share` of them where the other class is."""
    features = rows.features.clone()
    features[: round(share * len(rows)), 0] = 20 - features[: round(share * len(rows)), 0]
    return FeatureSet(features, rows.labels, rows.classes)


@pytest.mark.parametrize("probe", PROBES)
def test_accuracy_is_the_share_that_stayed_with_its_class(probe: t.Literal["knn", "linear"]) -> None:
    test = blobs(20, 1)
    damage = {"haze": (0.1, 0.3), "rain": (0.5, 0.9)}
    corrupted = [
        Corrupted(kind, severity, mirrored(test, share))
        for kind, shares in damage.items()
        for severity, share in enumerate(shares, start=1)
    ]
    scores = Robustness(probe=probe).judge(blobs(40, 0), test, corrupted, seed=0)
    assert scores.metrics == {"corrupted_top1": pytest.approx(0.55), "clean_top1": 1}
    assert next(iter(scores.metrics)) == "corrupted_top1"
    assert torch.equal(scores.predictions, test.labels)
    assert scores.details["corruptions"] == {
        "haze": {"top1": pytest.approx(0.8), "severities": {"1": pytest.approx(0.9), "2": pytest.approx(0.7)}},
        "rain": {"top1": pytest.approx(0.3), "severities": {"1": pytest.approx(0.5), "2": pytest.approx(0.1)}},
    }
    json.dumps(scores.details, allow_nan=False)


@pytest.mark.parametrize("probe", PROBES)
def test_the_last_fit_is_before_the_first_read(
    probe: t.Literal["knn", "linear"], monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    solve = Problem.solve

    def noted(*arguments: t.Any) -> t.Any:
        events.append("fit")
        return solve(*arguments)

    class Watched(Sealed):
        def __getattribute__(self, name: str) -> t.Any:
            if name == "features":
                events.append("read")
            return super().__getattribute__(name)

    def corrupted() -> t.Iterator[Corrupted]:
        for severity in (1, 2):
            events.append("made")
            yield Corrupted("haze", severity, Watched(mirrored(blobs(20, 1), 0.5)))

    monkeypatch.setattr(Problem, "solve", noted)
    test = Watched(blobs(20, 1))
    events.clear()  # of the sealing itself
    Robustness(probe=probe).judge(blobs(40, 0), test, corrupted(), seed=0)
    assert events.index("read") > max((place for place, one in enumerate(events) if one == "fit"), default=-1)
    assert events.index("read") < events.index("made")
    assert ("fit" in events) == (probe == "linear")


def test_features_alone_are_not_enough() -> None:
    with pytest.raises(ProtocolError, match="Robustness needs the corrupted images"):
        Robustness().score(blobs(40, 0), blobs(20, 1), seed=0)


SUITE = """
suite: damaged
datasets: [{name: digits, limit: 600}]
seeds: [0, 1]
encoders: [pixels]
protocols: [{name: knn, k: 1}, robustness, {name: robustness, probe: linear, label: robust-linear}]
wandb: {mode: off}
"""


def test_a_probe_on_pixels_loses_accuracy_with_severity(frostbench: t.Callable[..., tuple[int, str, str]]) -> None:
    Path("damaged.yaml").write_text(SUITE)
    code, table, told = frostbench("run", "damaged.yaml", "--threads", "1")
    assert code == 0, told
    assert "robustness" in table and "robust-linear" in table
    records = {(one.protocol_label, one.seed): one for one in store.read_store(Path("runs")).records}
    for label in ("robustness", "robust-linear"):
        record = records[label, 0]
        kinds = record.details["corruptions"]
        assert list(kinds) == list(KINDS)
        assert all(list(one["severities"]) == [str(severity) for severity in SEVERITIES] for one in kinds.values())
        shares = np.array([list(one["severities"].values()) for one in kinds.values()])
        assert record.metrics["corrupted_top1"] == pytest.approx(shares.mean())
        severe = [record.metrics["clean_top1"], *shares.mean(axis=0)]
        assert severe == sorted(severe, reverse=True) and severe[-1] < severe[0] - 0.1
        assert (shares[:, -1] < record.metrics["clean_top1"]).all()
    assert records["robustness", 0].metrics["clean_top1"] == records["knn", 0].metrics["top1"]
    assert records["robustness", 0].metrics == records["robustness", 1].metrics  # the same images for every seed
    assert not verify(Path("runs")).problems


def test_robustness_of_a_file_of_features_is_refused(frostbench: t.Callable[..., tuple[int, str, str]]) -> None:
    frostbench("extract", "pixels", "--dataset", "digits", "--limit", "60", "--output", "pixels.npz")
    code, _, told = frostbench("score", "pixels.npz", "--protocol", "robustness")
    assert code == 2
    assert "'robustness' needs the encoder, not only its features" in told


def test_robustness_is_described(frostbench: t.Callable[..., tuple[int, str, str]]) -> None:
    code, said, _ = frostbench("describe", "robustness")
    assert code == 0
    assert "arXiv:1903.12261" in said and "probe = knn" in said
