"""Every protocol keeps the promises of `check_protocol`, and one that breaks a promise is told which."""

import typing as t

import numpy as np
import pytest
import torch

from protocols.base import FeatureSet, Protocol, ProtocolError, Scores
from protocols.check import check_protocol
from protocols.knn import KNN
from protocols.linear import Linear


@pytest.mark.parametrize(
    "protocol",
    [
        KNN(),
        KNN(k=5),
        KNN(k=20, weights="distance"),
        KNN(k=5, metric="cosine"),
        KNN(k=200, metric="cosine", weights="temperature"),
        Linear(),
        Linear(strengths=(0.01,), validation=0.5),
        Linear(tolerance=1e-6),
    ],
    ids=str,
)
def test_the_protocol_keeps_its_promises(protocol: Protocol) -> None:
    check_protocol(protocol)


class Broken(Protocol):
    """1-NN, but for what a test breaks."""

    source = "none"

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:
        return self.spoil(KNN().score(train, test, seed=seed), train, test)

    def spoil(self, scores: Scores, train: FeatureSet, test: FeatureSet) -> Scores:
        return scores


def replaced(scores: Scores, **changes: t.Any) -> Scores:
    return Scores(
        **({"metrics": scores.metrics, "predictions": scores.predictions, "details": scores.details} | changes)
    )


class Shifted(Broken):
    by: int

    def spoil(self, scores: Scores, train: FeatureSet, test: FeatureSet) -> Scores:
        return replaced(scores, predictions=scores.predictions + self.by)


def test_settings_are_scored_one_after_the_other_each_as_it_is_alone() -> None:
    rows = FeatureSet(torch.eye(3), torch.arange(3), 3)
    scored = Shifted.score_all([Shifted(by=2), Shifted(by=0)], rows, rows, seed=0)
    assert next(scored).predictions.tolist() == [2, 3, 4]
    assert [scores.predictions.tolist() for scores in scored] == [[0, 1, 2]]


class Blind(Broken):
    def spoil(self, scores: Scores, train: FeatureSet, test: FeatureSet) -> Scores:
        return replaced(scores, metrics={"top1": 0.99})


class Peeking(Broken):
    def spoil(self, scores: Scores, train: FeatureSet, test: FeatureSet) -> Scores:
        return replaced(scores, metrics={"top1": 1.0}, predictions=test.labels.clone())


class Fickle(Broken):
    def spoil(self, scores: Scores, train: FeatureSet, test: FeatureSet) -> Scores:
        return replaced(scores, details={"drawn": float(np.random.Generator(np.random.PCG64()).random())})


class Ordered(Broken):
    def spoil(self, scores: Scores, train: FeatureSet, test: FeatureSet) -> Scores:
        flipped = torch.arange(len(test)) == 7  # the eighth row, whatever it holds
        blurred = float(test.features.std()) > 5
        return replaced(scores, predictions=(scores.predictions + (flipped & blurred)) % 3)


class Writing(Broken):
    def spoil(self, scores: Scores, train: FeatureSet, test: FeatureSet) -> Scores:
        train.features.sub_(1)
        return scores


class TorchSeeding(Broken):
    def spoil(self, scores: Scores, train: FeatureSet, test: FeatureSet) -> Scores:
        torch.rand(1)
        return scores


class NumpySeeding(Broken):
    def spoil(self, scores: Scores, train: FeatureSet, test: FeatureSet) -> Scores:
        np.random.rand()
        return scores


class Fragile(Broken):
    def spoil(self, scores: Scores, train: FeatureSet, test: FeatureSet) -> Scores:
        if len(train) < 3:
            raise IndexError("k=3 neighbours of 2")
        return scores


class Lacking(Broken):
    def spoil(self, scores: Scores, train: FeatureSet, test: FeatureSet) -> Scores:
        if len(train.labels.unique()) < train.classes:
            raise KeyError(2)
        return scores


class Percent(Broken):
    def spoil(self, scores: Scores, train: FeatureSet, test: FeatureSet) -> Scores:
        return replaced(scores, metrics={"top1": 100 * scores.metrics["top1"]})


class NaN(Broken):
    def spoil(self, scores: Scores, train: FeatureSet, test: FeatureSet) -> Scores:
        return replaced(scores, metrics=scores.metrics | {"top5": float("nan")})


class Floating(Broken):
    def spoil(self, scores: Scores, train: FeatureSet, test: FeatureSet) -> Scores:
        return replaced(scores, predictions=scores.predictions.float())


class Beyond(Broken):
    def spoil(self, scores: Scores, train: FeatureSet, test: FeatureSet) -> Scores:
        return replaced(scores, predictions=scores.predictions + 1)


class Tensors(Broken):
    def spoil(self, scores: Scores, train: FeatureSet, test: FeatureSet) -> Scores:
        return replaced(scores, details={"mean": train.features.mean()})


class Silent(Broken):
    def spoil(self, scores: Scores, train: FeatureSet, test: FeatureSet) -> Scores:
        return replaced(scores, metrics={})


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Blind, "score 1 on features that tell the classes apart"),
        (Peeking, "about 1/3 on constant features"),
        (Fickle, "the same scores for the same arguments and seed"),
        (Ordered, "a prediction that follows its test row"),
        (Writing, "arguments left as they were"),
        (TorchSeeding, "random state of torch and numpy left as it was"),
        (NumpySeeding, "random state of torch and numpy left as it was"),
        (Fragile, "fails on two train rows: IndexError: k=3 neighbours of 2"),
        (Lacking, "fails on a class that train lacks: KeyError: 2"),
        (Percent, "metrics that are fractions in 0..1"),
        (NaN, "metrics that are fractions in 0..1"),
        (Floating, "predictions int64"),
        (Beyond, "predictions of known classes"),
        (Tensors, "details that are plain JSON"),
        (Silent, "at least one metric"),
    ],
)
def test_a_broken_promise_is_named(broken: type[Broken], promise: str) -> None:
    with pytest.raises(ProtocolError, match=promise):
        check_protocol(broken())


def test_features_that_cannot_be_judged_are_refused() -> None:
    labels = torch.tensor([0, 1])
    for features, message in (
        (torch.zeros(2, 3, dtype=torch.float64), r"features must be float32 \(n, d\)"),
        (torch.zeros(0, 3), "neither of them 0"),
        (torch.zeros(3, 3), r"labels must be int64 \(3,\)"),
        (torch.tensor([[1.0], [float("nan")]]), "1 of 2 rows hold NaN or infinity"),
    ):
        with pytest.raises(ProtocolError, match=message):
            FeatureSet(features, labels, 2)
    with pytest.raises(ProtocolError, match=r"labels must lie in 0\.\.0; got 0\.\.1"):
        FeatureSet(torch.zeros(2, 3), labels, 1)
