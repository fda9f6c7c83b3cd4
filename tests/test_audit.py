"""The audit: it clears what is honest, names what peeks, and finds the copies that were put there."""

import dataclasses
import typing as t
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.commands import audit
from bench.commands.audit import Pair, duplicates, judged
from encoders.base import ImageSet
from protocols.argmax import Argmax
from protocols.assignment import Assignment
from protocols.base import FeatureSet, Protocol, Quality, Scores
from protocols.cluster import Cluster
from protocols.geometry import Geometry
from protocols.knn import KNN
from protocols.retrieval import Retrieval
from protocols.robustness import Robustness
from protocols.svm import SVM


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def clusters(rows: int, seed: int, shares: tuple[float, ...] = (0.25,) * 4) -> FeatureSet:
    """Tight ones, one a class."""
    labels = generator(seed).choice(len(shares), size=rows, p=shares)
    x = 3 * np.eye(len(shares), 6)[labels] + 0.05 * generator(seed + 100).normal(size=(rows, 6))
    return FeatureSet(torch.from_numpy(x).float(), torch.from_numpy(labels), len(shares))


TRAIN, TEST = clusters(200, 0), clusters(160, 1)


class Peeking(Protocol):
    """Takes one prediction in five from the test labels."""

    source = "none"

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:
        predictions = KNN().score(train, test, seed=seed).predictions.clone()
        predictions[::5] = test.labels[::5]
        return Scores({"top1": 0.5}, predictions, {})


class Useless(Protocol):
    source = "none"

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:
        return Scores({"top1": 0.5}, torch.zeros_like(test.labels), {})


class CountsLabels(Protocol):
    source = "none"

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Quality:
        return Quality({"parzen": float(train.labels @ torch.arange(len(train)))}, {})


HONEST: dict[str, Protocol] = {"knn": KNN(), "svm": SVM(strengths=(0.1,)), "cluster": Cluster(restarts=2),
                               "retrieval": Retrieval(), "argmax": Argmax(), "assignment": Assignment()}  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shares", [(0.25,) * 4, (0.7, 0.2, 0.06, 0.04)], ids=["equal", "unequal"])
def test_honest_protocols_are_cleared_whatever_the_permutation(seed: int, shares: tuple[float, ...]) -> None:
    # All rows of a cluster get one prediction: with the labels of train alone permuted, whole clusters would be right.
    verdicts, _ = judged(HONEST, clusters(200, 0, shares), clusters(160, 1, shares), seed)
    assert {name: verdict.faults for name, verdict in verdicts.items()} == dict.fromkeys(HONEST, ())
    assert all(verdict.true > 0.95 for verdict in verdicts.values())
    if shares[0] == 0.25:
        assert all(verdict.chance == pytest.approx(0.25, abs=0.03) for verdict in verdicts.values())


def test_false_alarms_are_as_rare_as_promised() -> None:
    alarms = sum(bool(judged({"it": Assignment()}, TRAIN, TEST, seed)[0]["it"].faults) for seed in range(300))
    assert alarms <= 10  # of 300 at 1 %: more with a probability of 0.0003


def test_a_protocol_that_peeks_is_named_beside_honest_ones() -> None:
    verdicts, _ = judged(HONEST | {"peeking": Peeking()}, TRAIN, TEST, 0)
    assert [name for name, verdict in verdicts.items() if verdict.faults] == ["peeking"]
    assert verdicts["peeking"].faults == ("not at chance",)
    assert verdicts["peeking"].permuted == pytest.approx(0.2 + 0.8 * 0.25, abs=0.08)


def test_a_protocol_that_learns_nothing_fails_the_control() -> None:
    verdicts, _ = judged({"useless": Useless()}, TRAIN, TEST, 0)
    assert verdicts["useless"].faults == ("no better on true labels",)
    assert verdicts["useless"].permuted == verdicts["useless"].chance  # the share of class 0


def test_a_protocol_without_classes_must_not_move_with_the_labels() -> None:
    verdicts, unmoved = judged({"geometry": Geometry(), "counts": CountsLabels()}, TRAIN, TEST, 0)
    assert (verdicts, unmoved) == ({}, {"geometry": True, "counts": False})


def test_a_protocol_of_corrupted_images_that_peeks_is_named() -> None:
    class Looks(Robustness):
        def judge(self, train: FeatureSet, test: FeatureSet, corrupted: t.Any, *, seed: int) -> Scores:
            honest = super().judge(train, test, corrupted, seed=seed)
            predictions = honest.predictions.clone()
            predictions[::3] = test.labels[::3]
            return dataclasses.replace(honest, predictions=predictions)

    labels = generator(3).permutation(np.arange(240) % 4)
    pictures = images(np.where(np.arange(64) // 16 == labels[:, None], 250, 20).reshape(240, 1, 8, 8), labels.tolist())
    rows = FeatureSet(torch.from_numpy(pictures.images).flatten(1) / 255, torch.from_numpy(labels), 4)
    verdicts, _ = judged({"robustness": Robustness(), "looks": Looks()}, rows, rows, 0, pictures)
    assert [name for name, verdict in verdicts.items() if verdict.faults] == ["looks"]


def images(rows: np.ndarray, labels: list[int]) -> ImageSet:
    return ImageSet(rows.astype(np.uint8), np.array(labels), tuple("0123456789"), "0" * 16)


def test_copies_and_near_copies_are_found_where_they_were_put() -> None:
    draw = generator(5)
    train, test = draw.integers(0, 256, (50, 1, 8, 8)), draw.integers(20, 236, (12, 1, 8, 8))
    test[2], test[4] = train[7], train[9]  # the second has another label
    train[30] = test[6] + 3 * (-1) ** np.arange(64).reshape(8, 8)  # of a contrast of about 62
    train[31] = test[8] + 12 * (-1) ** np.arange(64).reshape(8, 8)  # too far
    train[32], test[10], test[11] = 100, 100, 101  # blank: a copy, and one that nothing tells from others
    found = duplicates(images(train, list(range(10)) * 5), images(test, [0, 1, 7, 3, 8, 5, 6, 7, 8, 9, 2, 1]))
    assert (found.exact, found.relabelled) == (3, 1)
    (pair,) = found.near
    assert (pair.test, pair.train, pair.labels) == (6, 30, (6, 0))
    assert pair.distance == pytest.approx(3 / test[6].std(), rel=1e-4)
    far = duplicates(images(train, [0] * 50), images(test, [0] * 12), threshold=0.25)
    assert [(one.test, one.train) for one in far.near] == [(6, 30), (8, 31)]


def test_the_table_shows_both_and_names_what_fails() -> None:
    pair = Pair(3, 14, 0.0123, (5, 6))
    copies = audit.Duplicates(2, 1, (pair,), 0.15, 60_000, 10_000)
    verdicts = {"svm@1": audit.Verdict(1000, 0.13, 0.1, 0.002, 0.98, 0.0)}
    said = audit.Audit("mnist", verdicts, {"geometry@1": True}, copies)
    assert not said.holds
    text = said.render()
    assert "svm@1       13.00     10.00   7.60..12.50  0.002  98.00  not at chance" in text
    assert "geometry@1  -         -       -            -      -      ok, uses no labels" in text
    assert (
        "10,000 test images: 2 also in train (60,000 images) byte for byte, 1 of these with a different label; "
        "1 more differ from a train image by at most 0.15 of their contrast" in text
    )
    assert "test row 3 and train row 14: 0.012; classes 5 and 6" in text


SUITE = """suite: tried
datasets: [{name: digits, limit: 300}]
seeds: [0]
encoders: [pixels]
protocols: [knn, PROTOCOL]
"""
PLUGIN = """from protocols.base import Scores
from protocols.knn import KNN


class Leaking(KNN):
    '''Knows the answers.'''

    @classmethod
    def score_all(cls, protocols, train, test, *, seed):
        return iter([Scores({"top1": 1.0}, test.labels.clone(), {})])
"""


@pytest.mark.parametrize(
    ("arguments", "protocol", "status"),
    [
        (["audit", "suite.yaml"], "geometry", 0),
        (["audit", "suite.yaml"], "robustness", 0),
        (["audit", "suite.yaml", "--plugin", "leaking.py"], "leaking", 3),
        (["audit"], "svm", 2),
        (["audit", "suite.yaml", "--dataset", "digits"], "svm", 2),
        (["audit", "--dataset", "digitz"], "svm", 2),
    ],
)
def test_the_exit_code_tells_whether_all_holds(
    arguments: list[str],
    protocol: str,
    status: int,
    frostbench: t.Callable[..., t.Any],
) -> None:
    Path("suite.yaml").write_text(SUITE.replace("PROTOCOL", protocol))
    Path("leaking.py").write_text(PLUGIN)
    said = frostbench(*arguments)
    assert said.code == status, said.err
    assert ("knn@1" in said.out) == (status in (0, 3))
    assert (f"{protocol}@" in said.out) == (status in (0, 3))
    if status == 3:
        assert "not at chance" in said.out
