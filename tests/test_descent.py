"""The probes trained by gradient descent: what no line can tell apart, optima known from elsewhere, the choice."""

import typing as t

import numpy as np
import pytest
import torch

from protocols.base import FeatureSet
from protocols.descent import Descent
from protocols.linear import fit
from protocols.mlp import MLP
from protocols.sgd_linear import SGDLinear


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def features(x: np.ndarray, y: np.ndarray, classes: int) -> FeatureSet:
    return FeatureSet(torch.from_numpy(x).float(), torch.from_numpy(y).long(), classes)


def exclusive_or(rows: int, seed: int) -> FeatureSet:
    corners = generator(seed).integers(0, 2, size=(rows, 2))
    return features(corners + generator(seed + 1).normal(0, 0.1, (rows, 2)), corners.sum(axis=1) % 2, 2)


def overlapping(rows: int, seed: int, d: int = 8) -> FeatureSet:
    draw = generator(seed)
    labels = np.arange(rows) % 4
    return features(2 * np.eye(4, d)[labels] + draw.normal(size=(rows, d)), labels, 4)


def test_a_hidden_layer_tells_apart_what_a_line_cannot() -> None:
    train, test = exclusive_or(600, 0), exclusive_or(300, 10)
    assert MLP(learning_rates=(1e-2,), epochs=20).score(train, test, seed=0).metrics["top1"] == 1.0
    assert SGDLinear(learning_rates=(1e-2,), epochs=20).score(train, test, seed=0).metrics["top1"] < 0.8


def test_sgd_comes_to_the_loss_of_the_best_line() -> None:
    train, test = overlapping(800, 0), overlapping(1000, 1)
    details = SGDLinear(learning_rates=(3e-2,)).score(train, test, seed=0).details
    best = fit(train.features, train.labels, 1e-6, 1e-6).loss
    assert best - 1e-6 <= details["refit"]["loss"] <= best + 0.01
    assert details["refit"]["steps"] == 100 * 4  # 800 rows in batches of 256


PROBES: list[Descent] = [MLP(learning_rates=(1e-2, 1e-3), epochs=4), SGDLinear(learning_rates=(1e-1, 1e-3), epochs=4)]


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: type(probe).__name__)
def test_neither_scale_nor_shift_nor_a_constant_feature_moves_a_prediction(probe: Descent) -> None:
    train, test = overlapping(300, 0), overlapping(200, 1)
    scales = torch.tensor([1, 2, 4, 8, 2.0**10, 2.0**-10, 2.0**12, 0.5])

    def moved(rows: FeatureSet) -> FeatureSet:
        return FeatureSet(rows.features * scales, rows.labels, 4)

    straight, scaled = probe.score(train, test, seed=0), probe.score(moved(train), moved(test), seed=0)
    assert torch.equal(straight.predictions, scaled.predictions)
    far = [FeatureSet(rows.features + 3000, rows.labels, 4) for rows in (train, test)]
    assert (probe.score(*far, seed=0).predictions == straight.predictions).double().mean() > 0.99


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: type(probe).__name__)
def test_the_learning_rate_with_the_best_validation_accuracy_is_trained_again(probe: Descent) -> None:
    details = probe.score(overlapping(300, 0), overlapping(200, 1), seed=0).details
    best = max(details["path"], key=lambda step: (step["validation_accuracy"], -step["validation_loss"]))
    assert details["learning_rate"] == details["refit"]["learning_rate"] == best["learning_rate"]
    assert [step["learning_rate"] for step in details["path"]] == list(probe.learning_rates)
    assert details["validation_rows"] == 50
    assert {step["steps"] for step in details["path"]} == {4}  # 250 rows are less than a batch of 256
    assert details["refit"]["steps"] == 8  # 300 rows are more


def test_a_hopeless_learning_rate_is_not_chosen() -> None:
    probe = SGDLinear(learning_rates=(1e-7, 3e-2), epochs=10)
    assert probe.score(overlapping(300, 0), overlapping(200, 1), seed=0).details["learning_rate"] == 3e-2


@pytest.mark.parametrize("labels", [[0], [1, 1], [0, 1, 2]])
@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: type(probe).__name__)
def test_the_fewest_rows(probe: Descent, labels: list[int]) -> None:
    train = features(np.eye(3)[labels], np.array(labels), 3)
    scores = probe.score(train, train, seed=0)
    assert scores.predictions.shape == (len(labels),)
    assert all(np.isfinite(step["loss"]) for step in scores.details["path"])


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: type(probe).__name__)
def test_repeats_are_other_trainings_and_the_first_is_the_only_one_of_before(probe: Descent) -> None:
    train, test = overlapping(300, 0), overlapping(200, 1, d=8)
    short = probe.model_copy(update={"epochs": 1, "batch": 16})
    alone = short.score(train, test, seed=0)
    repeated = short.model_copy(update={"repeats": 3}).score(train, test, seed=0)
    assert torch.equal(repeated.predictions, alone.predictions)
    assert repeated.metrics == alone.metrics
    assert repeated.details == alone.details | {"repeats": repeated.details["repeats"]}
    top1 = [one["top1"] for one in repeated.details["repeats"]]
    assert len(top1) == 3
    assert top1[0] == alone.metrics["top1"]
    assert len(set(top1)) > 1


def test_the_seed_decides_and_nothing_else() -> None:
    train, test = overlapping(300, 0), overlapping(200, 1)
    losses: list[t.Any] = []
    for seed, disturbance in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(disturbance)
        losses.append(PROBES[0].score(train, test, seed=seed).details["refit"]["loss"])
    assert losses[0] == losses[1] != losses[2]
