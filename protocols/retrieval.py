"""Retrieval: each test image asks for the train images of its class, and all of them are ranked by cosine similarity.

Source: mean average precision as in Philbin et al. 2007, CVPR, in the form of scikit-learn's average_precision_score;
precision at k. Differs: ranks are those of exact similarities, so that neither rounding nor the order of the rows moves
a number.
"""

import typing as t

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional

from protocols.base import FeatureSet, Protocol, Scores
from protocols.nearest import all_positive, nearest, nearness, told_apart
from protocols.ties import exact_ranks, few_values

_PAIRS = 2**23  # of a query and a gallery row whose similarity is found at once: 64 MiB
_RANKED = 2**20  # of these that are ranked at once, with ten numbers for each
_NEAR = 2.0**-20  # of 1; above it products in float64 have too few digits to part similarities
_FINITE = 2.0**1000  # in place of infinity
_MANTISSA = 2**63 - 1  # every bit of an integer but its sign


class Retrieval(Protocol):
    """Mean average precision of ranking the train rows (the gallery) by similarity to a test row.

    `map`: the mean over test rows of average precision, the sum over ranks of precision times the recall gained there;
    rows of equal similarity share a rank. `precision_at_K`: the share of the first k rows that are of the class; of
    equals on the border, the share expected in random order. Both are fractions, better higher; a test row whose class
    the gallery lacks scores 0, and k beyond the gallery is all of it. A row of zeros has similarity 0 to every row.

    Predictions are the class of the first row retrieved; of equals, the smaller gallery row. Similarities are ordered
    as exact arithmetic orders them. Details: `k` as used and `unanswerable`, the test rows whose class the gallery
    lacks.
    """

    source = "Philbin et al. 2007, CVPR"
    version = 2  # 1 took similarities within 2^-30 for equal

    k: PositiveInt = 10
    """Number of rows that precision_at_K reads."""

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:  # noqa: ARG002  # nothing is drawn
        k = min(self.k, len(train))
        queries, gallery = test.features, train.features
        first = nearest(queries, gallery, 1, "cosine").rows[:, 0]
        asked = test.labels
        size = max(1, 2**22 // gallery.shape[1])  # gallery rows that are float64 at a time: 32 MiB
        found = []
        block = max(1, _PAIRS // len(gallery))
        positive, simple = all_positive(queries, gallery), few_values(queries, gallery)
        numbers = torch.arange(len(test), device=queries.device)
        for few, labels, places in zip(*(torch.split(part, block) for part in (queries, asked, numbers))):
            x = functional.normalize(few.double(), eps=1e-300)
            similarity = [x @ functional.normalize(y.double(), eps=1e-300).T for y in torch.split(gallery, size)]
            right, rows = labels[:, None] == train.labels, max(1, _RANKED // len(gallery))
            refined = _refined(torch.cat(similarity, dim=1), few, gallery)
            for near, relevant, some, place in zip(
                *(torch.split(part, rows) for part in (refined, right, few, places))
            ):
                average, precision, tied = ranking(near, relevant, k, width=gallery.shape[1], positive=positive)
                if bool(tied.any()) and not simple:
                    ranks = exact_ranks(near[tied], some[tied], gallery, positive=positive)
                    average[tied], precision[tied], _ = ranking(ranks, relevant[tied], k)
                    first[place[tied]] = ranks.argmax(dim=1)  # the first of equals
                found.append((average, precision))
        average, precision = (torch.cat(parts) for parts in zip(*found))
        known = torch.isin(asked, train.labels)
        details: dict[str, t.Any] = {"k": k, "unanswerable": int((~known).sum())}
        metrics = {"map": float(average.mean()), f"precision_at_{self.k}": float(precision.mean())}
        return Scores(metrics, train.labels[first], details)


def _refined(similarity: Tensor, queries: Tensor, gallery: Tensor) -> Tensor:
    """The `nearness` of all pairs, in place of their similarities in float64 (m, n)."""
    near = (similarity > 1 - _NEAR).nonzero()
    for some in torch.split(near, max(1, 2**22 // gallery.shape[1])):
        query, row = some.T
        similarity[query, row] = nearness(queries.index_select(0, query), gallery.index_select(0, row)).clamp(
            max=_FINITE
        )
    return similarity


def ranking(
    found: Tensor, relevant: Tensor, k: int, *, width: int = 1, positive: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Average precision and precision at k of each query, both float64 (m,) in 0..1, 0 where nothing is relevant.

    And whether any rows shared a rank, bool (m,).
    Of what grows with the similarity, float64 (m, n), and what each query should find, bool (m, n), with 1 <= k <= n.
    width, positive: as `told_apart` asks of the rows.
    """
    n = relevant.shape[1]
    keys = (-found).view(torch.int64)  # nearest first; as integers, which fall where negative numbers grow
    keys = ((keys ^ ((keys >> 63) & _MANTISSA)) & ~1) | relevant  # relevance in the last bit
    keys = torch.from_numpy(np.sort(keys.cpu().numpy(), axis=1)).to(relevant.device)  # its sort is much the faster
    right, keys = keys & 1, keys & ~1
    ordered = -(keys ^ ((keys >> 63) & _MANTISSA)).view(torch.float64)
    starts = told_apart(ordered, width, relative=positive)  # of a rank, which equals share
    last = functional.pad(starts[:, 1:], (0, 1), value=True)
    hits = right.cumsum(dim=1)
    before = functional.pad((hits * last).cummax(dim=1).values[:, :-1], (1, 0))  # hits up to the rank before
    places = torch.arange(1, n + 1, device=keys.device)
    gained = (hits - before) * last * (hits / places.double())
    average = gained.sum(dim=1) / hits[:, -1].clamp(min=1)
    ranks = starts.cumsum(dim=1)
    border = ranks[:, k - 1 : k]
    nearer, equal = ranks < border, ranks == border
    share = (right * equal).sum(dim=1) / equal.sum(dim=1).double()
    precision = ((right * nearer).sum(dim=1) + share * (k - nearer.sum(dim=1))) / k
    return average, precision, ~starts[:, 1:].all(dim=1)
