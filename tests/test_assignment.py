"""Clusters named by their heads, and a classifier's own answers."""

import pytest
import torch

from protocols.argmax import Argmax
from protocols.assignment import Assignment
from protocols.base import FeatureSet, Protocol
from protocols.check import check_protocol


def features(rows: list[list[float]], labels: list[int], classes: int = 3) -> FeatureSet:
    return FeatureSet(torch.tensor(rows).float(), torch.tensor(labels), classes)


TRAIN = features([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.0, 0.2, 0.8]], [2, 0, 0, 1, 1])


@pytest.mark.parametrize("protocol", [Assignment(), Argmax()], ids=str)
def test_the_protocol_keeps_its_promises(protocol: Protocol) -> None:
    check_protocol(protocol)


def test_a_cluster_has_the_name_of_its_head_not_of_most_of_its_rows() -> None:
    scores = Assignment().score(
        TRAIN, features([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.4, 0.1]], [2, 1, 1, 0]), seed=0
    )
    assert scores.details == {"names": [2, 1, 1], "test_rows": [2, 1, 1]}  # class 0 has more rows in cluster 0
    assert scores.predictions.tolist() == [2, 1, 1, 2]
    assert scores.metrics == {"top1": 0.75}


def test_a_head_of_several_rows_votes() -> None:
    train = features([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1]], [1, 2, 2, 1, 0])
    assert Assignment().score(train, train, seed=0).details["names"] == [2, 0]  # of equals the smallest label


def test_labels_of_test_rows_move_no_prediction() -> None:
    rows = [[0.2, 0.5, 0.3], [0.9, 0.0, 0.1]]
    for protocol in (Assignment(), Argmax()):
        one = protocol.score(TRAIN, features(rows, [0, 1]), seed=0)
        other = protocol.score(TRAIN, features(rows, [2, 2]), seed=0)
        assert torch.equal(one.predictions, other.predictions)


def test_argmax_reads_the_place_of_the_largest_feature_and_no_training_label() -> None:
    test = features([[0.1, 0.7, 0.2], [0.4, 0.4, 0.2], [0.0, 0.1, 0.9]], [1, 1, 2])
    scores = Argmax().score(TRAIN, test, seed=0)
    assert scores.predictions.tolist() == [1, 0, 2]  # of equals the first
    assert scores.metrics == {"top1": pytest.approx(2 / 3)}
    relabelled = FeatureSet(TRAIN.features, 2 - TRAIN.labels, 3)
    assert torch.equal(Argmax().score(relabelled, test, seed=0).predictions, scores.predictions)
