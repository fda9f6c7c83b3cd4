"""The probes beside scikit-learn and FAISS."""

import functools
import typing as t

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bench.speed.images import digits, features_of
from bench.speed.race import Case, Effort, Rates, Row, noted, race, seconds_of
from encoders.base import frozen, seeded
from encoders.bigan import BiGAN
from protocols.base import FeatureSet, Scores
from protocols.knn import KNN
from protocols.linear import Linear, fit
from protocols.nearest import nearest
from protocols.solver import Fit

STRENGTH = 1e-3  # of the one logistic regression that is compared
TOLERANCE = 1.2e-5  # of scikit-learn's slopes: on 60,000 x 1,024 its gap is then about our 1e-5


@functools.cache
def _probed(kind: t.Literal["pixels", "random"], train: int, test: int) -> tuple[str, FeatureSet, FeatureSet]:
    """Real digits as pixels (784-d), or as an untrained BiGAN encoder sees them (1,024-d)."""
    name, *sets = digits(train, test)
    cpu = torch.device("cpu")
    if kind == "random":
        with seeded(0, "init"):
            module = frozen(BiGAN().build(sets[0].shape))
        given = [features_of(module, "penultimate", images, cpu) for images in sets]
    else:
        rows = [torch.from_numpy(images.images).flatten(1).float() / 255 for images in sets]
        labels = [torch.from_numpy(np.array(images.labels)) for images in sets]
        given = [FeatureSet(x, y, len(sets[0].classes)) for x, y in zip(rows, labels)]
    return f"{name} {kind}", given[0], given[1]


def _on(features: FeatureSet, device: torch.device, rows: int | None = None) -> FeatureSet:
    return FeatureSet(features.features[:rows].to(device), features.labels[:rows].to(device), features.classes)


def linear_cases(at: Rates, effort: Effort) -> list[Case]:
    kind: t.Literal["pixels", "random"] = "random" if effort.thorough else "pixels"
    cases: list[Case] = [("path and fit", functools.partial(_linear_rows, kind, at, effort))]
    if effort.thorough:
        job = functools.partial(Linear(strengths=(STRENGTH,)).score, seed=0)
        cases.append(("cost by images", functools.partial(_cost_rows, "linear", "one strength", job, at, effort)))
    return cases


def _linear_rows(kind: t.Literal["pixels", "random"], at: Rates, effort: Effort) -> list[Row]:
    """The whole path, and one strength, beside one scikit-learn fit whose objective is at hand to compare."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - slow to import

    name, train, test = _probed(kind, effort.gallery, effort.queries)
    x, y = train.features.double(), train.labels.numpy()
    mean, deviation = x.mean(dim=0), x.std(dim=0, correction=0)
    scaled = [
        ((s.features.double() - mean) / deviation.where(deviation > 0, 1.0)).float().numpy() for s in (train, test)
    ]
    del x
    model = LogisticRegression(C=1 / (STRENGTH * len(train)), tol=TOLERANCE, max_iter=3000)
    given = _on(train, at.device), _on(test, at.device)
    scores: list[Scores] = []
    fits: list[Fit] = []
    memory: dict[str, int | None] = {}

    def path() -> None:
        with noted(memory, "path", at.device):
            scores[:] = [Linear().score(*given, seed=0)]

    def single() -> None:
        with noted(memory, "single", at.device):
            fits[:] = [fit(given[0].features, given[0].labels, STRENGTH)]

    seconds = race(
        {
            "path": functools.partial(seconds_of, path, at.device),
            "single": functools.partial(seconds_of, single, at.device),
            "sklearn": functools.partial(seconds_of, lambda: model.fit(scaled[0], y), torch.device("cpu")),
        },
        effort,
    )
    log_p = model.predict_log_proba(scaled[0]).astype(np.float64)
    objective = -float(log_p[np.arange(len(y)), y].mean()) + STRENGTH / 2 * float((model.coef_**2).sum())
    slopes = (np.exp(log_p) - np.eye(train.classes)[y]).T @ scaled[0] / len(y) + STRENGTH * model.coef_
    gap = float((slopes**2).sum()) / (2 * STRENGTH)
    logits = torch.from_numpy(scaled[1]).double() @ fits[0].weights.T.cpu() + fits[0].biases.cpu()
    tried, refit = scores[0].details["path"], scores[0].details["refit"]
    n, d = train.features.shape

    def row(which: str, case: str, passes: float, rounded: float, accuracy: float, remark: str) -> Row:
        # A pass takes two products with the weights and reads the features once; the covariance is one product.
        limit = at.limit((passes - rounded) * 4 * n * d * train.classes + 2 * n * d * d, (passes - rounded) * 4 * n * d)
        if rounded:
            limit += at.limit(rounded * 4 * n * d * train.classes, rounded * 2 * n * d, "bfloat16")
        return Row(
            "linear",
            f"{case}, {n:,} x {d:,} {name}",
            ours=seconds[which],
            images=n,
            alternative="scikit-learn LogisticRegression, one strength",
            theirs=seconds["sklearn"],
            limit=limit,
            our_accuracy=accuracy,
            their_accuracy=float((model.predict(scaled[1]) == test.labels.numpy()).mean()),
            added_bytes=memory[which],
            remark=remark,
        )

    share = 1 - scores[0].details["validation_rows"] / n  # of the rows, that a pass of the selection reads

    def over_all(kind: str) -> float:
        return float(refit[kind] + share * sum(one[kind] for one in tried))

    passes = refit["passes"] + sum(one["passes"] for one in tried)
    right = float((logits.argmax(dim=1) == test.labels).double().mean())
    objectives = f"objective {fits[0].objective:.6f}, theirs {objective:.6f}; gap {fits[0].gap:.1e}, theirs {gap:.1e}"
    iterations = f"{fits[0].passes} passes, theirs {int(model.n_iter_[0])} iterations"
    return [
        row(
            "path",
            f"path of {len(tried)} strengths and refit",
            over_all("passes"),
            over_all("rounded_passes"),
            scores[0].metrics["top1"],
            f"{passes} passes",
        ),
        row("single", "one strength", fits[0].passes, fits[0].rounded_passes, right, f"{objectives}; {iterations}"),
    ]


def _cost_rows(
    section: str, job: str, score: t.Callable[[FeatureSet, FeatureSet], object], at: Rates, effort: Effort
) -> list[Row]:
    """Six times the images in about six times the time."""
    name, train, test = _probed("pixels", effort.gallery, effort.queries)
    queries = _on(test, at.device, 1_000)
    few, all_ = _on(train, at.device, len(train) // 6), _on(train, at.device)
    contestants = {
        "few": functools.partial(seconds_of, lambda: score(few, queries), at.device),
        "all": functools.partial(seconds_of, lambda: score(all_, queries), at.device),
    }
    seconds = race(contestants, effort)
    return [
        Row(
            section,
            f"{job}, {len(few):,} -> {len(all_):,} {name}",
            ours=seconds["all"],
            images=len(all_),
            alternative=f"6 times ours on {len(few):,}",
            theirs=6 * seconds["few"],
            remark="1.00 is proportional",
        )
    ]


def knn_cases(at: Rates, effort: Effort) -> list[Case]:
    kinds: tuple[t.Literal["pixels", "random"], ...] = ("pixels", "random") if effort.thorough else ("pixels",)
    cases: list[Case] = [(kind, functools.partial(_knn_rows, kind, 1, effort.queries, at, effort)) for kind in kinds]
    if effort.thorough:
        cases.append(("200 neighbours", functools.partial(_knn_rows, "pixels", 200, effort.queries // 5, at, effort)))
        job = functools.partial(KNN(k=1).score, seed=0)
        cases.append(("cost by images", functools.partial(_cost_rows, "knn", "k=1", job, at, effort)))
    return cases


def _knn_rows(kind: t.Literal["pixels", "random"], k: int, asked: int, at: Rates, effort: Effort) -> list[Row]:
    """The nearest neighbours of each of the queries `asked`, and whether the alternatives found as near ones."""
    from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415 - slow to import

    name, train, test = _probed(kind, effort.gallery, effort.queries)
    test = _on(test, test.features.device, asked)
    gallery, queries = train.features.numpy(), test.features.numpy()
    on_device = train.features.to(at.device), test.features.to(at.device)
    found: dict[str, Tensor] = {}
    memory: dict[str, int | None] = {}

    def ours() -> None:
        with noted(memory, "ours", at.device):
            found["ours"] = nearest(on_device[1], on_device[0], k, "euclidean").rows.cpu()

    def brute() -> None:
        search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(gallery)
        found["scikit-learn brute"] = torch.from_numpy(search.kneighbors(queries, return_distance=False))

    alternatives: dict[str, t.Callable[[], None]] = {"scikit-learn brute": brute}
    try:
        import faiss  # type: ignore[import-not-found, import-untyped, unused-ignore] # noqa: PLC0415 - an extra
    except ImportError:
        missing = [
            Row("knn", f"{name}", alternative="FAISS is not installed: pip install -e '.[faiss]' in the checkout")
        ]
    else:
        missing = []

        def flat() -> None:
            index = faiss.IndexFlatL2(gallery.shape[1])
            index.add(gallery)
            found["FAISS IndexFlatL2"] = torch.from_numpy(index.search(queries, k)[1])

        alternatives["FAISS IndexFlatL2"] = flat
    cpu = torch.device("cpu")
    contestants = {"ours": functools.partial(seconds_of, ours, at.device)}
    contestants |= {who: functools.partial(seconds_of, search, cpu) for who, search in alternatives.items()}
    seconds = race(contestants, effort)
    n, d, m = *gallery.shape, len(queries)

    def accuracy(rows: Tensor) -> float:
        """Of the class that most neighbours have."""
        votes = functional.one_hot(train.labels[rows], train.classes).sum(dim=1)
        return float((votes.argmax(dim=1) == test.labels).double().mean())

    def distances(rows: Tensor) -> Tensor:
        """Squared, in float64, the nearest first: (m, k)."""
        x = test.features.double()
        unsorted = [(x - train.features[some].double()).square().sum(dim=1) for some in rows.T]
        return torch.stack(unsorted, dim=1).sort(dim=1).values

    nearest_possible = distances(found["ours"])
    rows = []
    for alternative in alternatives:
        agree = distances(found[alternative]) <= nearest_possible * (1 + 1e-12)  # copies are as near
        rows.append(
            Row(
                "knn",
                f"k={k}, {m:,} x {n:,} x {d:,} {name}",
                ours=seconds["ours"],
                images=m,
                alternative=alternative,
                theirs=seconds[alternative],
                limit=at.limit(2 * m * n * d, 4 * (m + n) * d),
                our_accuracy=accuracy(found["ours"]),
                their_accuracy=accuracy(found[alternative]),
                added_bytes=memory["ours"],
                remark=f"{float(agree.double().mean()):.2%} of its neighbours are as near as ours",
            )
        )
    return rows + missing
