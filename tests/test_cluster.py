"""Clustering: matchings known by hand, shapes that only one method sees, and chance where there is nothing."""

import numpy as np
import pytest
import torch

from protocols.base import FeatureSet
from protocols.cluster import Cluster


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def features(x: np.ndarray, y: np.ndarray, classes: int) -> FeatureSet:
    return FeatureSet(torch.from_numpy(x).float(), torch.from_numpy(y).long(), classes)


def places(at: np.ndarray, labels: np.ndarray, classes: int, seed: int) -> FeatureSet:
    """Rows close around (10 * at, 0)."""
    x = np.stack([10.0 * at, np.zeros(len(at))], axis=1) + generator(seed).normal(0, 0.1, (len(at), 2))
    return features(x, labels, classes)


def rings(rows: int, seed: int) -> FeatureSet:
    labels = np.arange(rows) % 2
    angles = generator(seed).uniform(0, 2 * np.pi, rows)
    radii = np.where(labels == 0, 1.0, 4.0) + generator(seed + 1).normal(0, 0.1, rows)
    return features(np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1), labels, 2)


@pytest.mark.parametrize("method", ["kmeans", "spectral"])
def test_no_two_clusters_have_one_name(method: str) -> None:
    # Clusters at 0 and 1 are of class 0, the one at 2 of class 1. Class 2 has no row, and takes the smaller of the two.
    at = np.repeat([0, 1, 2], [60, 30, 40])
    train = places(at, np.repeat([0, 0, 1], [60, 30, 40]), 3, 0)
    test = places(np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 0, 1]), 3, 1)
    scores = Cluster(method=method).score(train, test, seed=0)
    assert scores.predictions.tolist() == [0, 0, 0, 2, 1]
    assert scores.metrics["top1"] == pytest.approx(3 / 5)
    assert sorted(zip(scores.details["names"], scores.details["train_rows"])) == [(0, 60), (1, 40), (2, 30)]
    assert scores.details["train_top1"] == pytest.approx(100 / 130)


def test_indices_of_a_known_table() -> None:
    # Test rows: cluster a has 2 of class 0, cluster b one of 0 and one of 1. Pairs together in both: 1; in clusters: 2,
    # in classes: 3, of 6. ARI = (1 - 2*3/6) / ((2+3)/2 - 2*3/6) = 0. NMI by the definition.
    train = places(np.repeat([0, 1], 20), np.repeat([0, 1], 20), 2, 0)
    scores = Cluster().score(train, places(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), 2, 1), seed=0)
    information = 0.5 * np.log(0.5 / (0.5 * 0.75)) + 2 * 0.25 * np.log(0.25) - 0.25 * np.log(0.5 * 0.75 * 0.5 * 0.25)
    entropies = np.log(2), -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert scores.metrics["top1"] == 0.75
    assert scores.metrics["nmi"] == pytest.approx(2 * information / sum(entropies), abs=1e-12)
    assert scores.metrics["ari"] == pytest.approx(0, abs=1e-12)


def test_a_ring_inside_a_ring_is_seen_by_spectral_clustering_alone() -> None:
    train, test = rings(600, 0), rings(200, 10)
    assert Cluster(method="spectral").score(train, test, seed=0).metrics["top1"] == 1
    assert Cluster(method="kmeans").score(train, test, seed=0).metrics["top1"] < 0.75


def test_many_rows_give_the_clusters_of_all_eigenvectors(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = rings(400, 0), rings(100, 10)
    whole = Cluster(method="spectral").score(train, test, seed=0)
    monkeypatch.setattr("protocols.cluster._DENSE", 10)
    few = Cluster(method="spectral").score(train, test, seed=0)
    assert torch.equal(few.predictions, whole.predictions)
    assert whole.metrics["top1"] == 1


@pytest.mark.parametrize("method", ["kmeans", "spectral"])
def test_test_labels_name_no_cluster(method: str) -> None:
    at = np.repeat([0, 1], 30)
    train, swapped = places(at, at, 2, 0), places(at, 1 - at, 2, 1)
    assert Cluster(method=method).score(train, swapped, seed=0).metrics == {"top1": 0, "nmi": 1, "ari": 1}


@pytest.mark.parametrize("method", ["kmeans", "spectral"])
def test_constant_features_are_one_cluster(method: str) -> None:
    rows = features(np.full((40, 3), 0.1), np.arange(40) % 4, 4)
    scores = Cluster(method=method).score(rows, rows, seed=0)
    assert scores.metrics["top1"] == pytest.approx(0.25, abs=0.1)
    assert scores.metrics["nmi"] <= 0.35 and scores.metrics["ari"] == pytest.approx(0, abs=0.15)
