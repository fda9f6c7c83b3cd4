"""Every protocol keeps the promises of `check_protocol`, and one that breaks a promise is told which."""

import typing as t

import numpy as np
import pytest
import torch

from protocols.base import FeatureSet, Protocol, ProtocolError, Quality, SampleProtocol, Samples, Scores
from protocols.check import check_protocol
from protocols.cluster import Cluster
from protocols.fewshot import FewShot
from protocols.generative import GenerativeQuality
from protocols.geometry import Geometry
from protocols.knn import KNN
from protocols.linear import Linear
from protocols.mlp import MLP
from protocols.retrieval import Retrieval
from protocols.sgd_linear import SGDLinear
from protocols.two_sample import TwoSample


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
        Cluster(restarts=3),
        Cluster(method="spectral", restarts=3),
        Retrieval(),
        Retrieval(k=5000),
        MLP(learning_rates=(1e-2, 1e-3), epochs=5),
        SGDLinear(learning_rates=(1e-1, 1e-2), epochs=5),
        FewShot(draws=2),
        FewShot(labels=20, draws=1, head="linear"),
        Geometry(),
        GenerativeQuality(),
        TwoSample(),
    ],
    ids=str,
)
def test_the_protocol_keeps_its_promises(protocol: Protocol, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("generative", "two_sample"):
        monkeypatch.setattr(f"protocols.{module}.CLASSIFIER_IMAGES", 500)
    check_protocol(protocol)


class Broken(Protocol):
    """1-NN, but for what a test breaks."""

    source = "none"

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:
        test = FeatureSet(test.features, test.labels, test.classes)  # read once
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


class Twice(Protocol):
    source = "none"

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:
        return max((KNN(k=k).score(train, test, seed=seed) for k in (1, 5)), key=lambda scores: scores.metrics["top1"])


class LabelsFirst(Protocol):
    source = "none"

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:
        prior = test.labels.bincount(minlength=test.classes)
        predictions = prior.argmax().repeat(len(test))
        return Scores({"top1": float((predictions == test.labels).double().mean())}, predictions, {})


class Selecting(Protocol):
    """Reads test once, and chooses k by it."""

    source = "none"

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:
        test = FeatureSet(test.features, test.labels, test.classes)
        return max(
            (KNN(k=k).score(train, test, seed=seed) for k in (1, 2, 5, 9, 20, 40, 80)),
            key=lambda scores: scores.metrics["top1"],
        )


class Transductive(Protocol):
    """Takes the first of the test rows away from each of them, unless it knows them all to be near a class."""

    source = "none"

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:
        features = test.features
        if float(features.std()) > 5:
            features = features - features[:1]
        return KNN().score(train, FeatureSet(features, test.labels, test.classes), seed=seed)


class Endless(Protocol):
    source = "none"

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Quality:
        return Quality({"parzen": float("inf")}, {})


class FickleQuality(Protocol):
    source = "none"

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Quality:
        return Quality({"parzen": float(np.random.Generator(np.random.PCG64()).random())}, {})


class Painter(SampleProtocol):
    """Says how bright the samples are, by chance."""

    source = "none"

    def judge(self, made: Samples, train: FeatureSet, test: FeatureSet, *, seed: int) -> Quality:
        assert made.images is not None
        return Quality({"parzen": float(made.images.mean() + torch.rand(()))}, {})


class Silent(Broken):
    def spoil(self, scores: Scores, train: FeatureSet, test: FeatureSet) -> Scores:
        return replaced(scores, metrics={})


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Blind, "score 1 on features that tell the classes apart"),
        (Peeking, "a prediction that does not depend on test labels"),
        (Fickle, "the same scores for the same arguments and seed"),
        (Ordered, "a prediction that follows its test row"),
        (Writing, "arguments left as they were"),
        (TorchSeeding, "random state of torch and numpy left as it was"),
        (NumpySeeding, "random state of torch and numpy left as it was"),
        (Fragile, "fails on two train rows: IndexError: k=3 neighbours of 2"),
        (Lacking, "fails on a class that train lacks: KeyError: 2"),
        (Percent, "metrics that are fractions in 0..1"),
        (NaN, "metrics that are finite"),
        (Endless, "metrics that are finite"),
        (FickleQuality, "the same scores for the same arguments and seed"),
        (Painter, "random state of torch and numpy left as it was"),
        (Twice, "the test set is sealed: its features are read a second time"),
        (LabelsFirst, "the test set is sealed: its labels are read before its features are classified"),
        (Selecting, "a prediction that does not depend on the other test rows"),
        (Transductive, "a prediction that follows its test row"),
        (Floating, "predictions int64"),
        (Beyond, "predictions of known classes"),
        (Tensors, "details that are plain JSON"),
        (Silent, "at least one metric"),
    ],
)
def test_a_broken_promise_is_named(broken: type[Protocol], promise: str) -> None:
    with pytest.raises(ProtocolError, match=promise):
        check_protocol(broken())


def test_features_that_cannot_be_judged_are_refused() -> None:
    labels = torch.tensor([0, 1])
    for features, message in (
        (torch.zeros(2, 3, dtype=torch.float64), r"features must be float32 \(n, d\)"),
        (torch.zeros(0, 3), "and not empty"),
        (torch.zeros(3, 3), r"labels must be int64 \(3,\)"),
        (torch.tensor([[1.0], [float("nan")]]), "1 of 2 rows hold NaN or infinity"),
    ):
        with pytest.raises(ProtocolError, match=message):
            FeatureSet(features, labels, 2)
    with pytest.raises(ProtocolError, match=r"labels must lie in 0\.\.0; got 0\.\.1"):
        FeatureSet(torch.zeros(2, 3), labels, 1)
