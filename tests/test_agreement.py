"""Protocols beside independent implementations on feature sets of many kinds.

k-NN, logistic regression, SVM, NMI, ARI, average precision and CKA are those of scikit-learn, or of their definitions
written out in NumPy.
"""

import functools
import typing as t
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from protocols.base import FeatureSet
from protocols.cluster import Cluster
from protocols.geometry import linear_cka
from protocols.knn import KNN
from protocols.linear import Linear
from protocols.nearest import Metric
from protocols.retrieval import Retrieval
from protocols.svm import SVM

Array = np.ndarray[t.Any, np.dtype[t.Any]]


class Kind(t.NamedTuple):
    """What a feature set is like."""

    rows: int = 300  # of train
    queries: int = 200
    d: int = 8
    classes: int = 3
    shares: tuple[float, ...] | None = None  # of the classes; equal if not given
    spread: float = 1.5  # around the classes' centres
    whole: bool = False  # numbers, so that many distances are equal
    relu: bool = False
    copies: int = 0  # train rows that are copies of others with labels of their own
    constant: int = 0  # columns that never vary
    scales: float = 0.0  # powers of ten that columns lie apart
    shift: float = 0.0


KINDS: dict[str, Kind] = {
    "plain": Kind(),
    "two classes": Kind(classes=2),
    "forty classes": Kind(rows=800, classes=40),
    "one feature": Kind(d=1),
    "two features": Kind(d=2),
    "more features than rows": Kind(rows=60, d=150, spread=6),
    "wide": Kind(rows=200, d=700, spread=8),
    "many rows": Kind(rows=1500, d=5),
    "few rows": Kind(rows=12),
    "one query": Kind(queries=1),
    "fifty queries": Kind(queries=50),
    "imbalance 1 to 20": Kind(classes=2, shares=(0.05, 0.95)),
    "a rare class of three": Kind(rows=600, shares=(0.02, 0.38, 0.6)),
    "copied rows": Kind(copies=100),
    "copied rows, two features": Kind(d=2, copies=150),
    "constant columns": Kind(constant=4),
    "constant columns and copied rows": Kind(constant=3, copies=60),
    "whole numbers": Kind(whole=True, d=3),
    "whole numbers, imbalance": Kind(whole=True, d=4, shares=(0.1, 0.2, 0.7)),
    "sparse": Kind(relu=True, d=30),
    "scales from 1e-3 to 1e3": Kind(scales=6.0),
    "far from the origin": Kind(shift=300.0),
    "well apart": Kind(spread=0.1),
    "nothing to learn": Kind(spread=50.0),
}


@functools.cache
def feature_set(name: str) -> tuple[FeatureSet, FeatureSet]:
    """Train and test of this kind, the same each time."""
    kind = KINDS[name]
    draw = np.random.Generator(np.random.Philox(list(KINDS).index(name)))
    total = kind.rows + kind.queries
    y = draw.choice(kind.classes, size=total, p=kind.shares)
    y[: kind.classes] = np.arange(kind.classes)  # none is missing
    x = draw.normal(scale=2, size=(kind.classes, kind.d))[y] + kind.spread * draw.normal(size=(total, kind.d))
    if kind.whole:
        x = np.round(x)
    if kind.relu:
        x = np.maximum(x - 1, 0)
    if kind.copies:
        x[kind.classes : kind.classes + kind.copies] = x[kind.rows - kind.copies : kind.rows]
    x[:, : kind.constant] = 0.1
    x = x * 10.0 ** np.linspace(-kind.scales / 2, kind.scales / 2, kind.d) + kind.shift
    rows = torch.from_numpy(x).float(), torch.from_numpy(y).long()
    return (
        FeatureSet(rows[0][: kind.rows], rows[1][: kind.rows], kind.classes),
        FeatureSet(rows[0][kind.rows :], rows[1][kind.rows :], kind.classes),
    )


def arrays(name: str) -> tuple[Array, Array, Array, Array]:
    train, test = feature_set(name)
    return (train.features.double().numpy(), train.labels.numpy(),
            test.features.double().numpy(), test.labels.numpy())  # fmt: skip


def test_there_are_enough_kinds() -> None:
    assert len(KINDS) >= 20


# ---- k-NN ------------------------------------------------------------------------------------------------------------


def distances(queries: Array, gallery: Array, metric: Metric) -> Array:
    if metric == "euclidean":
        return np.sqrt(((queries[:, None] - gallery) ** 2).sum(axis=2))
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-300) for rows in (queries, gallery)]
    return 1 - unit[0] @ unit[1].T


def is_ambiguous(found: Array, k: int) -> Array:
    """Queries whose k nearest are not told by distance alone: scikit-learn takes any of the equal ones, (m,)."""
    if k == found.shape[1]:
        return np.zeros(len(found), bool)
    nearest = np.sort(found, axis=1)
    return nearest[:, k] - nearest[:, k - 1] <= 1e-9 * nearest[:, k].clip(1e-3)


def by_rule(found: Array, labels: Array, k: int, classes: int) -> Array:
    """Of equal distances the smaller row, of equal votes the smaller label."""
    nearest = np.argsort(np.round(found, 9), axis=1, kind="stable")[:, :k]
    return np.array([np.bincount(labels[row], minlength=classes).argmax() for row in nearest])


@pytest.mark.parametrize("metric", t.get_args(Metric))
@pytest.mark.parametrize("name", KINDS)
def test_knn_is_that_of_scikit_learn_label_for_label(name: str, metric: Metric) -> None:
    train, test = feature_set(name)
    x, y, queries, _ = arrays(name)
    found = distances(queries, x, metric)
    for k in (1, 5, min(20, len(x))):
        ours = KNN(k=k, metric=metric).score(train, test, seed=0).predictions.numpy()
        theirs = KNeighborsClassifier(k, metric=metric, algorithm="brute").fit(x, y).predict(queries)
        told = ~is_ambiguous(found, k)
        assert (ours[told] == theirs[told]).all()
        if KINDS[name].whole and metric == "euclidean":  # squares of whole numbers are exact: the rule can be seen
            assert not told.all()
            assert (ours == by_rule(found, y, k, train.classes)).all()


def tie_free(name: str) -> bool:
    return not (KINDS[name].whole or KINDS[name].copies)


@pytest.mark.parametrize("name", list(filter(tie_free, KINDS)))
def test_weighted_knn_is_that_of_scikit_learn_label_for_label(name: str) -> None:
    train, test = feature_set(name)
    x, y, queries, _ = arrays(name)
    k = min(20, len(x))
    ours = KNN(k=20, weights="distance").score(train, test, seed=0).predictions.numpy()
    assert (ours == KNeighborsClassifier(k, weights="distance", algorithm="brute").fit(x, y).predict(queries)).all()
    if min(np.linalg.norm(rows, axis=1).min() for rows in (x, queries)) > 0 and x.shape[1] > 1:  # else all are alike
        ours = KNN(k=20, metric="cosine", weights="temperature").score(train, test, seed=0).predictions.numpy()
        theirs = KNeighborsClassifier(
            k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
        )
        assert (ours == theirs.fit(x, y).predict(queries)).all()


SEVEN: dict[str, tuple[int, Kind]] = {  # inputs on which other harnesses fail
    "k beyond the gallery": (500, Kind(rows=30)),
    "a class that train lacks": (20, Kind()),
    "fifty test rows": (20, Kind(queries=50)),
    "one test row": (20, Kind(queries=1)),
    "unnormalised features": (20, Kind(scales=6.0, shift=50.0)),
    "duplicate rows": (20, Kind(copies=140)),
    "a constant feature set": (20, Kind(constant=8)),
}


@pytest.mark.parametrize("weights", ["uniform", "distance", "temperature"])
@pytest.mark.parametrize("name", SEVEN)
def test_knn_has_a_documented_answer_where_others_fail(
    name: str, weights: t.Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    k, kind = SEVEN[name]
    monkeypatch.setitem(KINDS, name, kind)
    train, test = feature_set(name)
    if name == "a class that train lacks":
        train = train.rows((train.labels != 1).nonzero()[:, 0])
    metric: Metric = "cosine" if weights == "temperature" else "euclidean"
    scores = KNN(k=k, metric=metric, weights=weights).score(train, test, seed=0)
    used = min(k, len(train))
    assert scores.predictions.shape == test.labels.shape
    assert scores.metrics["top1"] == pytest.approx(float((scores.predictions == test.labels).double().mean()))
    assert scores.details["k"] == used
    assert torch.isin(scores.predictions, train.labels).all()  # a class without a row has no vote
    if name == "k beyond the gallery":
        assert scores.details["warning"] == "k=500 neighbours asked of 30 gallery rows; using 30"
        if weights == "uniform":  # every row votes
            assert (scores.predictions == train.labels.bincount().argmax()).all()
    if name == "a constant feature set":  # all are equal: the first k rows vote
        assert (scores.predictions == train.labels[:used].bincount().argmax()).all()


# ---- linear probes ---------------------------------------------------------------------------------------------------


def standardised(name: str) -> tuple[Array, Array, Array, Array]:
    x, y, queries, labels = arrays(name)
    scaler = StandardScaler().fit(x)
    return scaler.transform(x), y, scaler.transform(queries), labels


def close(ours: float, theirs: float, queries: int) -> bool:
    """Within 0.1 point; or, of fewer than 1,000 test rows, within the one that lies on the border."""
    return abs(ours - theirs) <= max(0.001, 1 / queries) + 1e-9


@pytest.mark.parametrize("name", KINDS)
def test_logistic_regression_is_that_of_scikit_learn(name: str) -> None:
    train, test = feature_set(name)
    x, y, queries, labels = standardised(name)
    strength = 0.1
    model = LogisticRegression(C=1 / (strength * len(x)), tol=1e-8, max_iter=5000).fit(x, y)
    logits = model.decision_function(x)
    logits = np.stack([-logits / 2, logits / 2], axis=1) if logits.ndim == 1 else logits
    weights = np.concatenate([-model.coef_ / 2, model.coef_ / 2]) if len(model.coef_) == 1 else model.coef_
    loss = (
        np.logaddexp.reduce(logits, axis=1).mean()
        - logits[np.arange(len(x)), np.searchsorted(model.classes_, y)].mean()
    )
    theirs = loss + strength / 2 * (weights**2).sum()
    ours = Linear(strengths=(strength,), tolerance=1e-6).score(train, test, seed=0)
    assert ours.details["refit"]["objective"] <= theirs + 2e-6
    if len(model.coef_) > 1:  # scikit-learn penalises two classes as one vector, half as much
        assert close(ours.metrics["top1"], model.score(queries, labels), len(queries))


@pytest.mark.parametrize("name", KINDS)
def test_the_svm_is_that_of_scikit_learn(name: str) -> None:
    train, test = feature_set(name)
    x, y, queries, labels = standardised(name)
    strength = 0.3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LinearSVC(C=1 / (strength * len(x)), intercept_scaling=100.0, tol=1e-8, max_iter=200_000).fit(x, y)
    both = len(model.coef_) == 1
    weights = np.concatenate([-model.coef_, model.coef_]) if both else model.coef_
    biases = np.concatenate([-model.intercept_, model.intercept_]) if both else model.intercept_
    signs = np.where(y[:, None] == model.classes_, 1.0, -1.0)
    hinges = np.maximum(0, 1 - signs * (x @ weights.T + biases))
    theirs = (hinges**2).sum() / len(x) + strength / 2 * (weights**2).sum()
    ours = SVM(strengths=(strength,), tolerance=1e-6).score(train, test, seed=0)
    assert ours.details["refit"]["objective"] <= theirs + 2e-6
    assert close(ours.metrics["top1"], model.score(queries, labels), len(queries))


# ---- clusters, ranks, geometry ---------------------------------------------------------------------------------------


def nmi_and_ari(one: Array, other: Array) -> tuple[float, float]:
    """From their definitions, pair by pair and cell by cell."""
    n = len(one)
    table = np.array([[((one == a) & (other == b)).sum() for b in np.unique(other)] for a in np.unique(one)])
    shares, rows, columns = table / n, table.sum(axis=1) / n, table.sum(axis=0) / n
    information = sum(p * np.log(p / (rows[i] * columns[j])) for (i, j), p in np.ndenumerate(shares) if p)
    entropies = [-(p * np.log(p)).sum() for p in (rows, columns)]
    nmi = 1.0 if sum(entropies) == 0 else 2 * information / sum(entropies)
    upper = np.triu_indices(n, 1)
    same, alike = (values[:, None] == values for values in (one, other))
    together, first, second, pairs = (
        float(count.sum()) for count in ((same & alike)[upper], same[upper], alike[upper], np.ones(n * (n - 1) // 2))
    )
    if pairs == 0 or (first + second) / 2 == first * second / pairs:
        return nmi, 1.0
    return nmi, (together - first * second / pairs) / ((first + second) / 2 - first * second / pairs)


@pytest.mark.parametrize("method", ["kmeans", "spectral"])
@pytest.mark.parametrize("name", KINDS)
def test_nmi_and_ari_are_those_of_their_definitions(name: str, method: t.Any) -> None:
    train, test = feature_set(name)
    scores = Cluster(method=method, restarts=2).score(train, test, seed=0)
    nmi, ari = nmi_and_ari(scores.predictions.numpy(), test.labels.numpy())  # names are one to one
    assert scores.metrics["nmi"] == pytest.approx(nmi, abs=1e-6)
    assert scores.metrics["ari"] == pytest.approx(ari, abs=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_mean_average_precision_is_that_of_scikit_learn(name: str) -> None:
    train, test = feature_set(name)
    x, y, queries, labels = arrays(name)
    similarity = 1 - distances(queries.astype(np.longdouble), x.astype(np.longdouble), "cosine")
    ranks = rankdata(np.round(similarity, 16), method="dense", axis=1)  # equal ones are so in spite of rounding
    expected = [average_precision_score(y == label, row) for label, row in zip(labels, ranks)]
    assert Retrieval().score(train, test, seed=0).metrics["map"] == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_cka_is_that_of_its_definition(name: str) -> None:
    x = feature_set(name)[0].features
    other = torch.relu(
        x @ torch.from_numpy(np.random.Generator(np.random.Philox(7)).normal(size=(x.shape[1], 20))).float()
    )
    n = len(x)
    centring = np.eye(n) - 1 / n
    one, two = (centring @ rows @ rows.T @ centring for rows in (x.double().numpy(), other.double().numpy()))
    expected = (one * two).sum() / np.sqrt((one * one).sum() * (two * two).sum())
    assert linear_cka(x, other) == pytest.approx(expected, abs=1e-6)
