"""Retrieval: scikit-learn's average precision on rankings with and without ties; small rankings known by hand."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from protocols import retrieval
from protocols.base import FeatureSet
from protocols.retrieval import Retrieval, ranking
from protocols.ties import exact_ranks, few_values


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def features(x: object, y: object, classes: int) -> FeatureSet:
    return FeatureSet(torch.tensor(np.asarray(x)).float(), torch.tensor(np.asarray(y)).long(), classes)


@pytest.mark.parametrize("kinds", [1, 2, 5, 40, 10**9])  # of similarities: from one tie of all to no tie
@pytest.mark.parametrize("n", [1, 7, 300])
def test_average_precision_is_that_of_scikit_learn(n: int, kinds: int) -> None:
    draw = generator(n + kinds)
    similarity = draw.integers(0, kinds, size=(20, n)) / kinds * 2 - 1
    relevant = draw.random((20, n)) < 0.3
    relevant[:, 0] = True  # scikit-learn warns where nothing is
    average, _, _ = ranking(torch.from_numpy(similarity), torch.from_numpy(relevant), 1)
    expected = [average_precision_score(right, scores) for right, scores in zip(relevant, similarity)]
    assert average.numpy() == pytest.approx(np.array(expected), abs=1e-9)


def ranked(similarity: list[float], relevant: list[int], k: int) -> tuple[float, float]:
    average, precision, _ = ranking(torch.tensor([similarity]).double(), torch.tensor([relevant]).bool(), k)
    return float(average), float(precision)


def test_rankings_known_by_hand() -> None:
    falling = [0.9, 0.5, 0.1, -0.4]
    assert ranked(falling, [1, 0, 1, 0], 2) == pytest.approx(((1 + 2 / 3) / 2, 1 / 2))
    assert ranked(falling, [1, 1, 0, 0], 3) == pytest.approx((1, 2 / 3))
    assert ranked(falling, [0, 0, 0, 1], 1) == pytest.approx((1 / 4, 0))
    assert ranked(falling, [0, 0, 0, 0], 4) == (0, 0)


def test_of_equals_the_share_that_random_order_would_give() -> None:
    assert ranked([0.9, 0.2, 0.2, 0.2], [1, 1, 0, 0], 2)[1] == pytest.approx((1 + 1 / 3) / 2)
    assert ranked([0.2, 0.2, 0.2, 0.2], [1, 0, 0, 0], 4)[1] == pytest.approx(1 / 4)


def test_neither_order_nor_length_of_the_rows_moves_a_number() -> None:
    draw = generator(0)
    x, y = draw.integers(0, 3, size=(200, 3)), draw.integers(0, 4, 200)  # many ties, and rows of zeros
    queries, labels = draw.integers(0, 3, size=(50, 3)), draw.integers(0, 4, 50)
    test = features(queries, labels, 4)
    straight = Retrieval().score(features(x, y, 4), test, seed=0).metrics
    turned = draw.permutation(200)
    stretched = x[turned] * 2.0 ** draw.integers(-20, 20, size=(200, 1))
    assert Retrieval().score(features(stretched, y[turned], 4), test, seed=0).metrics == pytest.approx(straight)


def exact(queries: np.ndarray, gallery: np.ndarray, relevant: np.ndarray) -> float:
    """Mean average precision by similarities of whole numbers as fractions."""
    found = []
    for query, right in zip(queries, relevant):
        products = [int(query @ row) for row in gallery]
        squares = [int(row @ row) or 1 for row in gallery]
        values = [Fraction(product * abs(product), square) for product, square in zip(products, squares)]
        place = {value: i for i, value in enumerate(sorted(set(values)))}
        found.append(average_precision_score(right, [place[value] for value in values]))
    return float(np.mean(found))


@pytest.mark.parametrize("low", [0, -2])
def test_ties_are_those_of_exact_similarities(low: int) -> None:
    draw = generator(3)
    x, y = draw.integers(low, 4, size=(200, 5)), draw.integers(0, 3, 200)
    queries, labels = draw.integers(low, 4, size=(40, 5)), draw.integers(0, 3, 40)
    x[:50] *= draw.integers(1, 30, size=(50, 1))
    metrics = Retrieval().score(features(x, y, 3), features(queries, labels, 3), seed=0).metrics
    assert metrics["map"] == pytest.approx(exact(queries, x, labels[:, None] == y), abs=1e-12)


def test_similarities_near_1_are_told_apart() -> None:
    # Almost one-hot, as what a mixture is responsible for: similarities within 2^-30 of 1 and of each other.
    draw = generator(4)
    x, queries = (np.stack([np.full(n, 2**20), draw.integers(1, 30, n)], axis=1) for n in (150, 20))
    y, labels = (rows[:, 1] // 10 for rows in (x, queries))
    metrics = Retrieval().score(features(x, y, 3), features(queries, labels, 3), seed=0).metrics
    wanted = exact(queries.astype(object), x.astype(object), labels[:, None] == y)
    assert metrics["map"] == pytest.approx(wanted, abs=1e-9)
    assert wanted > np.mean(labels[:, None] == y) + 0.3


def fractions(x: np.ndarray) -> list[list[Fraction]]:
    return [[Fraction(float(value)) for value in row] for row in x.astype(np.float32)]


def exact_map(queries: np.ndarray, gallery: np.ndarray, relevant: np.ndarray) -> float:
    """Mean average precision by similarities of float32 rows as fractions."""
    asked, kept, found = fractions(queries), fractions(gallery), []
    squares = [sum(a * a for a in row) or Fraction(1) for row in kept]
    for query, right in zip(asked, relevant):
        products = [sum((a * b for a, b in zip(query, row) if a and b), Fraction(0)) for row in kept]
        values = [product * abs(product) / square for product, square in zip(products, squares)]
        place = {value: i for i, value in enumerate(sorted(set(values)))}
        found.append(average_precision_score(right, [place[value] for value in values]))
    return float(np.mean(found))


def almost_one_hot(draw: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Responsibilities: one of four is 1 less 1e-17 to 1e-12, some rows are copies, some have zeros."""
    labels = draw.integers(0, 4, n)
    x = 10.0 ** -draw.uniform(12, 45, size=(n, 4)) * (draw.random((n, 4)) < 0.7)
    x[np.arange(n), labels] = 1 - 10.0 ** -draw.uniform(12, 17, n)
    x[::7] = x[::7].round()
    x[3::10] = draw.dirichlet(np.ones(4), len(x[3::10]))
    return x, (labels + (draw.random(n) < 0.3)) % 4


@pytest.mark.parametrize("sign", [1, -1])
def test_crowded_similarities_rank_as_fractions_do(sign: int) -> None:
    draw = generator(5)
    (x, y), (queries, labels) = almost_one_hot(draw, 150), almost_one_hot(draw, 30)
    x[:, 1] *= sign
    x[20:40] = x[:20] * 2.0 ** draw.integers(-3, 3, size=(20, 1))
    train, test = features(x, y, 4), features(queries, labels, 4)
    metrics = Retrieval().score(train, test, seed=0).metrics
    assert metrics["map"] == pytest.approx(exact_map(queries, x, labels[:, None] == y), abs=1e-12)


@pytest.mark.parametrize("positive", [True, False])
def test_exact_ties_of_unlike_rows_are_ties(*, positive: bool) -> None:
    # A constant query is exactly as similar to a row as to its permutations, whose float64 sums may differ.
    draw = generator(6)
    one = draw.random(6).astype(np.float32) - (0 if positive else np.float32(0.5))
    x = np.stack([draw.permutation(one) for _ in range(40)])
    x[20:, 0] = np.nextafter(x[20:, 0], np.float32(2))  # the smallest step that float32 has
    queries, y = np.full((1, 6), 0.3), draw.integers(0, 2, 40)
    found = torch.ones(1, 40).double()  # as if float64 told nothing apart
    ranks = exact_ranks(found, torch.tensor(queries).float(), torch.from_numpy(x), positive=positive)
    assert len(ranks[0, :20].unique()) == 1
    assert len(ranks.unique()) > 1
    metrics = Retrieval().score(features(x, y, 2), features(queries, [1], 2), seed=0).metrics
    assert metrics["map"] == pytest.approx(exact_map(queries, x, np.array([[1]]) == y), abs=1e-12)


@pytest.mark.parametrize(("digits", "few"), [(8, True), (2**12, False)])
def test_small_whole_numbers_in_any_unit_need_no_more_than_float64(digits: int, few: bool) -> None:
    draw = generator(7)
    x = torch.from_numpy(draw.integers(0, digits, size=(50, 6)) * 2.0 ** draw.integers(-40, 40, size=(50, 1))).float()
    assert few_values(x, x) is few


def test_the_gallery_and_queries_in_several_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = generator(1)
    train = features(draw.normal(size=(300, 5)), draw.integers(0, 3, 300), 3)
    test = features(draw.normal(size=(70, 5)), draw.integers(0, 3, 70), 3)
    whole = Retrieval().score(train, test, seed=0)
    monkeypatch.setattr(retrieval, "_PAIRS", 2000)
    monkeypatch.setattr(retrieval, "_RANKED", 700)
    parts = Retrieval().score(train, test, seed=0)
    assert parts.metrics == pytest.approx(whole.metrics, abs=1e-12)
    assert torch.equal(parts.predictions, whole.predictions)


def test_a_class_that_the_gallery_lacks_scores_0() -> None:
    train = features([[1, 0], [0, 1]], [0, 0], 2)
    scores = Retrieval(k=1).score(train, features([[1, 0], [1, 0]], [0, 1], 2), seed=0)
    assert scores.metrics == {"map": 0.5, "precision_at_1": 0.5}
    assert scores.details == {"k": 1, "unanswerable": 1}
    assert scores.predictions.tolist() == [0, 0]


def test_k_beyond_the_gallery_is_all_of_it() -> None:
    train = features([[1, 0], [0, 1], [1, 1]], [0, 1, 1], 2)
    scores = Retrieval(k=50).score(train, features([[0, 1]], [1], 2), seed=0)
    assert scores.metrics == {"map": 1, "precision_at_50": pytest.approx(2 / 3)}
    assert scores.details["k"] == 3


def test_predictions_are_the_class_of_the_first_row_retrieved() -> None:
    train = features([[9, 1], [1, 9], [0.1, 0]], [0, 1, 2], 3)
    assert Retrieval().score(train, features([[5, 0.2], [0, 3]], [2, 1], 3), seed=0).predictions.tolist() == [2, 1]
