"""k-NN: a test row takes the class that its k nearest train rows vote for, found exactly.

Source: k=1, Euclidean, un-normalised features as in BiGAN (Donahue et al. 2017, arXiv:1605.09782); cosine with weights
exp(similarity / temperature) as in InstDisc (Wu et al. 2018, arXiv:1805.01978) and DINO (Caron et al. 2021,
arXiv:2104.14294). Differs: neighbours are the float64 ones, with stated rules for ties, on every device.
"""

import hashlib
import logging
import math
import typing as t
from collections import Counter

import torch
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional

from protocols.base import FeatureSet, Protocol, Scores

logger = logging.getLogger(__name__)

Metric = t.Literal["euclidean", "cosine"]


class KNN(Protocol):
    """The share of test rows whose nearest train rows (the gallery) vote for the right class.

    Neighbours are those of distances computed in float64: Euclidean, or 1 - cosine similarity, where a row of zeros has
    similarity 0 to every row. The rules where a choice is needed:

    - equal distances: the smaller gallery row is nearer;
    - equal votes: the smaller class label wins, as in scikit-learn;
    - k beyond the gallery: every gallery row votes, with a warning in the log and in the details;
    - `distance` weights are 1 / distance; where some neighbours lie at distance 0, only those vote, as in scikit-learn.

    Details: `k` as used, and `exact_scans`, the number of test rows whose neighbours the fast search could not prove,
    so that a scan of the whole gallery in float64 found them.
    """

    source = "Donahue et al. 2017, arXiv:1605.09782; Wu et al. 2018, arXiv:1805.01978"

    k: PositiveInt = 1
    metric: Metric = "euclidean"
    weights: t.Literal["uniform", "distance", "temperature"] = "uniform"
    temperature: PositiveFloat = 0.07  # read by temperature weights only

    @model_validator(mode="after")
    def _temperature_is_of_similarities(self) -> t.Self:
        if self.weights == "temperature" and self.metric != "cosine":
            raise ValueError("temperature weights are exp(cosine similarity / temperature); add `metric: cosine`")
        return self

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:  # noqa: ARG002  # nothing is drawn
        k = min(self.k, len(train))
        found = nearest(test.features, train.features, k, self.metric)
        if self.weights == "uniform":
            weights = torch.ones_like(found.distances)
        elif self.weights == "distance":
            weights = 1 / found.distances
            touches = weights.isinf()
            weights = torch.where(touches.any(dim=1, keepdim=True), touches.double(), weights)
        else:  # relative to the nearest, so that no temperature overflows
            weights = torch.exp((found.distances[:, :1] - found.distances) / self.temperature)
        votes = torch.zeros(len(test), train.classes, dtype=torch.float64, device=weights.device)
        every = torch.arange(len(test), device=weights.device)
        for i in range(k):  # one neighbour at a time: the order of the sum is the same on every device
            votes[every, train.labels[found.rows[:, i]]] += weights[:, i]
        predictions = votes.argmax(dim=1)  # the first of equals
        details: dict[str, t.Any] = {"k": k, "exact_scans": found.exact_scans}
        if k < self.k:
            details["warning"] = f"k={self.k} neighbours asked of {len(train)} gallery rows; using {k}"
            logger.warning(details["warning"])
        return Scores({"top1": float((predictions == test.labels).double().mean())}, predictions, details)


class Neighbours(t.NamedTuple):
    rows: Tensor  # int64 (m, k), nearest first; equal distances by row
    distances: Tensor  # float64 (m, k)
    exact_scans: int  # queries that were answered by a scan of the whole gallery


def nearest(queries: Tensor, gallery: Tensor, k: int, metric: Metric) -> Neighbours:
    """The k nearest rows of `gallery` (n, d) to each of `queries` (m, d), both float32, with 1 <= k <= n.

    Candidates come from float32 products; a bound on their rounding error proves that no other row can be nearer, and
    float64 distances of the candidates decide. About 250 MiB are used beside the arguments and the answer.
    """
    space = _Space(gallery, queries, metric)
    rows = torch.empty(len(queries), k, dtype=torch.int64, device=queries.device)
    squares = torch.empty(len(queries), k, dtype=torch.float64, device=queries.device)
    proved = torch.empty(len(queries), dtype=torch.bool, device=queries.device)
    size = max(1, min(8192, 2**26 // (4 * (space.width + 1)), 2**25 // (64 * k)))
    for start in range(0, len(queries), size):
        part = slice(start, start + size)
        rows[part], squares[part], proved[part] = _search(space, queries[part], gallery, k)
    doubtful = (~proved).nonzero()[:, 0]
    if len(doubtful):
        rows[doubtful], squares[doubtful] = _scan(space, queries[doubtful], gallery, k)
    return Neighbours(rows, squares / 2 if metric == "cosine" else squares.sqrt(), len(doubtful))


class _Space:
    """Where both metrics are squared Euclidean distance: the rows themselves, or the rows made unit length."""

    def __init__(self, gallery: Tensor, queries: Tensor, metric: Metric) -> None:
        self.metric = metric
        self.width = gallery.shape[1] + 2 * (metric == "cosine")
        # Any centre gives the same distances; one amid the gallery keeps the products, and so their errors, small.
        # A scale that is a power of two rounds nothing; with all lengths at most 1 nothing overflows.
        slices = self.slices(gallery)
        self.centre = torch.stack([self.embedded(rows, gallery=True).sum(0) for rows in slices]).sum(0) / len(gallery)
        largest = 1.0 if metric == "cosine" else max(float(gallery.abs().max()), float(queries.abs().max()))
        self.scale = 2.0 ** -math.ceil(math.log2(2 * largest * math.sqrt(self.width))) if largest else 1.0

    def slices(self, rows: Tensor) -> tuple[Tensor, ...]:
        return torch.split(rows, max(1, 2**24 // (8 * self.width)))

    def embedded(self, rows: Tensor, *, gallery: bool) -> Tensor:
        """Rows in float64; for cosine of unit length, so that half their squared distance is 1 - similarity."""
        rows = rows.double()
        if self.metric == "euclidean":
            return rows
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        zero = length == 0
        # A row of zeros points along an axis of its own: at right angles to everything else.
        axes = torch.tensor([1.0, 0.0] if gallery else [0.0, 1.0], dtype=rows.dtype, device=rows.device)
        return torch.cat([rows / length.masked_fill(zero, 1), zero * axes], dim=1)

    def operand(self, rows: Tensor, *, gallery: bool) -> tuple[Tensor, Tensor]:
        """Factors (float32) whose products [-x, 1] @ [y, |y|^2 / 2] rank the gallery for a query; lengths (float64)."""
        factor = torch.empty(len(rows), self.width + 1, device=rows.device)
        lengths = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
        start = 0
        for part in self.slices(rows):
            place = slice(start, start := start + len(part))
            moved = (self.embedded(part, gallery=gallery) - self.centre) * self.scale
            lengths[place] = torch.linalg.vector_norm(moved, dim=1)
            factor[place, :-1] = moved if gallery else -moved
        factor[:, -1] = lengths.square() / 2 if gallery else 1.0
        return factor, lengths

    def error(self, a: Tensor, b: Tensor) -> Tensor:
        """A bound on |product - exact value| for a query of length `a` and gallery rows no longer than `b`.

        The product sums width + 1 terms, each of factors rounded once: whatever the order of the sum, it errs by at
        most g = m u / (1 - m u) times the sum of the absolute terms, m = width + 3 (Higham 2002, section 3.1; the 8
        below covers what is rounded in the bound itself), and by underflow. The float64 distances that are compared in
        the end have an error of their own, also covered; unit rows (cosine) carry the rounding of their length as well.
        """
        coarse = 0.0 if torch.get_float32_matmul_precision() == "highest" else 2.0**-7  # products of bfloat16 or TF32
        terms = (self.width + 8) * 2.0**-24
        product = (terms / (1 - terms) + 3 * coarse) * b * (b / 2 + a)
        unit = self.scale if self.metric == "cosine" else 0.0
        return product + (self.width + 8) * (2.0**-50 * (a + b) * (a + b + unit) + 2.0**-100)


def _search(space: _Space, queries: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (m, k), squared distances (m, k), and whether they are proved (m,); what is not proved is not filled."""
    m, n, device = len(queries), len(gallery), queries.device
    x, a = space.operand(queries, gallery=False)
    size = max(1, min(2048, n, 2**25 // (4 * (space.width + 1)), 2**26 // (4 * m)))
    width = max(1, min(64, size // (4 * k)))  # of a block of columns; only its smallest product is looked at
    size -= size % width
    products = torch.empty(m * size, device=device)
    upper = torch.full((m, k), math.inf, dtype=torch.float64, device=device)
    query = row = torch.empty(0, dtype=torch.int64, device=device)
    lower = torch.empty(0, dtype=torch.float64, device=device)
    crowded = torch.zeros(m, dtype=torch.bool, device=device)
    for start in range(0, n, size):
        y, b = space.operand(gallery[start : start + size], gallery=True)
        missing = -len(y) % width
        y, b = functional.pad(y, (0, 0, 0, missing)), functional.pad(b, (0, missing))
        y[len(y) - missing :, -1] = math.inf  # the last block is filled with rows that are never near
        blocks = torch.mm(x, y.T, out=products[: m * len(y)].view(m, -1)).view(m, -1, width)
        smallest = blocks.amin(dim=2).double()  # (m, blocks)
        error = space.error(a[:, None], b.view(-1, width).amax(dim=1))
        # k blocks hold k rows no farther than their smallest products plus error: a row beyond that is no neighbour.
        upper = torch.cat([upper, smallest + error], dim=1).topk(k, largest=False).values
        bound = upper.amax(dim=1)
        hit = smallest - error <= bound[:, None]
        crowded |= hit.sum(dim=1) > 2 * k + 64
        hit[crowded] = False
        at_query, at_block = hit.nonzero(as_tuple=True)
        low = blocks[at_query, at_block].double() - error[at_query, at_block, None]  # (hits, width)
        which, lane = (low <= bound[at_query, None]).nonzero(as_tuple=True)
        query = torch.cat([query, at_query[which]])
        row = torch.cat([row, start + at_block[which] * width + lane])
        lower = torch.cat([lower, low[which, lane]])
        crowded |= torch.bincount(query, minlength=m) > 4 * k + 256
        keep = (lower <= bound[query]) & (row < n) & ~crowded[query]
        query, row, lower = query[keep], row[keep], lower[keep]

    squares = _squares(space, queries, gallery, query, row)
    order = row.argsort()
    order = order[squares[order].argsort(stable=True)]
    order = order[query[order].argsort(stable=True)]  # by query, then distance, then row
    query, row, squares = query[order], row[order], squares[order]
    counts = torch.bincount(query, minlength=m)
    proved = ~crowded & (counts >= k)
    place = (counts.cumsum(0) - counts)[proved, None] + torch.arange(k, device=device)
    nearest_rows = torch.empty(m, k, dtype=torch.int64, device=device)
    nearest_squares = torch.empty(m, k, dtype=torch.float64, device=device)
    nearest_rows[proved], nearest_squares[proved] = row[place], squares[place]
    return nearest_rows, nearest_squares, proved


def _squares(space: _Space, queries: Tensor, gallery: Tensor, query: Tensor, row: Tensor) -> Tensor:
    """Squared distances (p,) in float64 of pairs of a query and a gallery row, both int64 (p,)."""
    size = max(1, 2**24 // (8 * space.width))
    return torch.cat(
        [
            (space.embedded(queries[q], gallery=False) - space.embedded(gallery[r], gallery=True)).square().sum(dim=1)
            for q, r in zip(torch.split(query, size), torch.split(row, size))
        ]
    )


def _scan(space: _Space, queries: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Rows and squared distances (m, k) from all float64 distances; copies of a row beyond the first k cannot count."""
    copies: Counter[bytes] = Counter()
    kept: list[int] = []
    for i, row in enumerate(gallery.cpu().numpy()):
        digest = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
        copies[digest] += 1
        if copies[digest] <= k:
            kept.append(i)
    numbers = torch.tensor(kept, device=gallery.device)
    found = []
    for some in torch.split(queries, 16):
        x = space.embedded(some, gallery=False)[:, None]
        size = max(1, 2**21 // (len(some) * space.width))
        parts = [
            (x - space.embedded(gallery[part], gallery=True)).square().sum(dim=2) for part in torch.split(numbers, size)
        ]
        squares, order = torch.cat(parts, dim=1).sort(dim=1, stable=True)
        found.append((numbers[order[:, :k]], squares[:, :k]))
    return torch.cat([rows for rows, _ in found]), torch.cat([squares for _, squares in found])
