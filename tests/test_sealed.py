"""The test set is sealed: every shipped protocol reads it once, after the last fit, and selects nothing on it."""

import functools
import typing as t

import numpy as np
import pytest
import sklearn.cluster
import torch

from bench.suites import resolve
from protocols.base import FeatureSet, ProtocolError
from protocols.check import Sealed
from protocols.fewshot import FewShot
from protocols.mlp import MLP
from protocols.probe import Probe
from protocols.sgd_linear import SGDLinear
from protocols.solver import Problem

QUICK = {"mlp": MLP(epochs=2), "sgd_linear": SGDLinear(epochs=2), "fewshot": FewShot(draws=2)}
SHIPPED = {name: QUICK.get(name) or one() for name, one in resolve.protocols().items()
           if one.features_only}  # fmt: skip


def overlapping(rows: int, seed: int) -> FeatureSet:
    """Three classes, with an outlier and a feature that tells nothing."""
    draw = np.random.Generator(np.random.Philox(seed))
    labels = np.arange(rows) % 3
    x = np.eye(3, 6)[labels] + draw.normal(size=(rows, 6))
    return FeatureSet(torch.from_numpy(x).float(), torch.from_numpy(labels), 3)


class Watched(Sealed):
    """Notes the order of reads and fits in one list."""

    def __init__(self, rows: FeatureSet, events: list[str]) -> None:
        super().__init__(rows)
        object.__setattr__(self, "events", events)

    def __getattribute__(self, name: str) -> t.Any:
        if name in ("features", "labels") and "events" in object.__getattribute__(self, "__dict__"):
            object.__getattribute__(self, "events").append(name)
        return super().__getattribute__(name)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Filled with "fit" whenever anything is fitted."""
    noted: list[str] = []

    def watch(owner: type, method: str) -> None:
        original = getattr(owner, method)

        @functools.wraps(original)
        def watched(*arguments: t.Any, **named: t.Any) -> t.Any:
            noted.append("fit")
            return original(*arguments, **named)

        monkeypatch.setattr(owner, method, watched)

    watch(Problem, "solve")
    watch(torch.optim.Adam, "step")
    watch(torch.optim.SGD, "step")
    watch(sklearn.cluster.KMeans, "fit")
    return noted


@pytest.mark.parametrize("name", SHIPPED)
def test_the_test_rows_are_read_once_and_after_the_last_fit(name: str, events: list[str]) -> None:
    SHIPPED[name].score(overlapping(60, 0), Watched(overlapping(30, 1), events), seed=0)
    reads = [event for event in events if event != "fit"]
    assert reads == ([] if name == "geometry" else ["features", "labels"])
    assert events[len(events) - len(reads) :] == reads
    learns = name not in ("argmax", "assignment", "geometry", "knn", "retrieval")
    assert ("fit" in events) == learns


def test_sealed_rows_are_read_once_and_in_order() -> None:
    rows = overlapping(9, 0)
    sealed = Sealed(rows)
    assert (len(sealed), sealed.classes) == (9, 3)
    with pytest.raises(ProtocolError, match="its labels are read before"):
        _ = sealed.labels
    assert torch.equal(sealed.features, rows.features)
    with pytest.raises(ProtocolError, match="its features are read a second time"):
        _ = sealed.features
    assert torch.equal(sealed.labels, rows.labels)
    with pytest.raises(ProtocolError, match="its labels are read a second time"):
        _ = sealed.labels


@pytest.mark.parametrize("name", ["linear", "svm", "mlp", "sgd_linear"])
def test_the_whole_selection_path_is_kept(name: str) -> None:
    protocol = SHIPPED[name]
    details = t.cast(t.Any, protocol.score(overlapping(60, 0), overlapping(30, 1), seed=0)).details
    tried = [step.get("strength", step.get("learning_rate")) for step in details["path"]]
    wanted = getattr(protocol, "strengths", None) or getattr(protocol, "learning_rates", ())
    assert tried == list(wanted)[: len(tried)] and len(tried) >= 3
    first = [] if isinstance(protocol, Probe) else ["validation_accuracy"]
    best = max(details["path"], key=lambda step: (*(step[name] for name in first), -step["validation_loss"]))
    chosen = details.get("strength", details.get("learning_rate"))
    assert chosen == best.get("strength", best.get("learning_rate"))


def test_each_draw_of_few_labels_keeps_its_selection_path() -> None:
    scores = FewShot(draws=2).score(overlapping(60, 0), overlapping(30, 1), seed=0)
    assert [len(draw["path"]) >= 3 for draw in scores.details["draws"]] == [True, True]
