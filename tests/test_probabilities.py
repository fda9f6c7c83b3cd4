"""Top-5 accuracy, log loss and calibration of probes: known by hand, or from scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, top_k_accuracy_score

from protocols.base import FeatureSet, Protocol, Scores
from protocols.fewshot import FewShot
from protocols.knn import KNN
from protocols.linear import Linear
from protocols.mlp import MLP
from protocols.probabilities import beside, calibration_error
from protocols.probe import Probe
from protocols.sgd_linear import SGDLinear
from protocols.svm import SVM


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def blobs(rows: int, classes: int, seed: int) -> FeatureSet:
    labels = torch.arange(rows) % classes
    return FeatureSet((2 * torch.eye(classes)[labels] + noise(rows, classes, seed=seed)).float(), labels, classes)


def score(protocol: Protocol, train: FeatureSet, test: FeatureSet) -> Scores:
    scores = protocol.score(train, test, seed=0)
    assert isinstance(scores, Scores)
    return scores


def test_top_5_and_log_loss_are_those_of_scikit_learn() -> None:
    logits, labels = noise(400, 12), torch.arange(400) % 12
    found = beside(logits, logits.argmax(dim=1), labels, likelihood=True)
    assert found["top5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5))
    assert found["log_loss"] == pytest.approx(log_loss(labels, torch.softmax(logits, dim=1).numpy()))


def test_ten_classes_have_no_top_5_and_what_is_no_likelihood_no_log_loss() -> None:
    logits, labels = noise(20, 10), torch.arange(20) % 10
    assert set(beside(logits, logits.argmax(dim=1), labels, likelihood=True)) == {"log_loss", "ece"}
    assert beside(logits, logits.argmax(dim=1), labels, likelihood=False) == {}


def test_of_equal_logits_the_smaller_class_comes_first() -> None:
    logits, labels = torch.zeros(11, 11), torch.arange(11)
    assert beside(logits, logits.argmax(dim=1), labels, likelihood=False) == {"top5": pytest.approx(5 / 11)}


def test_what_cannot_be_told_is_never_among_the_five_and_its_infinite_log_loss_is_left_out() -> None:
    logits = torch.full((3, 11), -torch.inf)
    logits[:, :3] = torch.tensor([2.0, 1.0, 0.0])
    labels = torch.tensor([0, 1, 3])  # class 3 would be the fourth of equals
    found = beside(logits, logits.argmax(dim=1), labels, likelihood=True)
    assert found["top5"] == pytest.approx(2 / 3)
    assert "log_loss" not in found
    assert found["ece"] == pytest.approx(abs(float(torch.softmax(logits[0, :3], dim=0)[0]) - 1 / 3), abs=1e-6)


def test_calibration_error_known_by_hand() -> None:
    right = torch.tensor([True, False, True, True])
    # 0.61 and 0.64 share the bin (9/15, 10/15]: 1.25 of confidence, 1 right; 0.9 (13/15, 14/15]; 1.0 the last
    confidence = torch.tensor([0.61, 0.64, 0.9, 1.0], dtype=torch.float64)
    assert calibration_error(confidence, right) == pytest.approx((0.25 + 0.1 + 0.0) / 4)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below_whatever_rounding_made_of_it() -> None:
    edge = torch.tensor([0.2, 0.2 + 1e-16, 3 * (1 / 15), 0.19], dtype=torch.float64)
    right = torch.tensor([True, False, False, False])
    assert calibration_error(edge, right) == pytest.approx(abs(0.79 - 1) / 4)  # all four in (2/15, 3/15]


def test_certain_and_right_is_calibrated_and_certain_and_wrong_is_not() -> None:
    ones = torch.ones(7, dtype=torch.float64)
    assert calibration_error(ones, torch.ones(7, dtype=torch.bool)) == 0
    assert calibration_error(ones, torch.zeros(7, dtype=torch.bool)) == 1


@pytest.mark.parametrize(
    ("protocol", "names"),
    [
        (Linear(), ("top1", "top5", "log_loss", "ece")),
        (MLP(learning_rates=(1e-2,), epochs=2), ("top1", "top5", "log_loss", "ece")),
        (SGDLinear(learning_rates=(1e-1,), epochs=2), ("top1", "top5", "log_loss", "ece")),
        (FewShot(draws=2, head="linear"), ("mean_top1", "top5", "log_loss", "ece")),
        (FewShot(draws=2), ("mean_top1", "top5")),
        (SVM(), ("top1", "top5")),
        (KNN(k=20), ("top1", "top5")),
        (KNN(), ("top1",)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_protocol_tells_what_it_can_behind_its_own_metric(protocol: Protocol, names: tuple[str, ...]) -> None:
    metrics = score(protocol, blobs(300, 12, 1), blobs(120, 12, 2)).metrics
    assert sorted(metrics) == sorted(names)
    assert "top1" in next(iter(metrics))
    assert metrics.get("top5", 1) >= next(iter(metrics.values()))
    assert metrics.get("log_loss", 0) < math.log(12)


def test_the_linear_probe_is_judged_by_the_probabilities_of_its_fit() -> None:
    train, test = blobs(300, 12, 1), blobs(120, 12, 2)
    protocol: Probe = Linear()
    problem, fit, _ = protocol.fit(train, 0)
    probabilities = torch.softmax(problem.logits(fit, test.features), dim=1).numpy()
    metrics = score(protocol, train, test).metrics
    assert metrics["log_loss"] == pytest.approx(log_loss(test.labels, probabilities))
    assert metrics["top5"] == pytest.approx(top_k_accuracy_score(test.labels, probabilities, k=5))


def test_the_votes_of_neighbours_tell_the_five_and_never_a_class_without_a_vote() -> None:
    gallery = FeatureSet(torch.arange(12.0)[:, None], torch.arange(12), 12)
    queries = FeatureSet(torch.full((12, 1), 5.0), torch.arange(12), 12)  # neighbours 3 to 7: a vote for each
    assert score(KNN(k=5), gallery, queries).metrics["top5"] == pytest.approx(5 / 12)
    alike = FeatureSet(torch.zeros(5, 1), torch.zeros(5, dtype=torch.int64), 12)
    assert score(KNN(k=5), alike, queries).metrics["top5"] == pytest.approx(1 / 12)


def test_a_class_that_train_lacks_leaves_the_log_loss_of_a_solved_probe_undefined() -> None:
    train, test = blobs(300, 12, 1), blobs(120, 12, 2)
    metrics = score(Linear(), train.rows((train.labels != 7).nonzero()[:, 0]), test).metrics
    assert "log_loss" not in metrics
    assert metrics["top5"] <= 11 / 12
