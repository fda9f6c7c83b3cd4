"""Geometry: how features fill their space, seen without a label; and how alike two encoders are.

Source: effective rank (Roy and Vetterli 2007; RankMe, Garrido et al. 2023, arXiv:2210.02885); alignment and uniformity
(Wang and Isola 2020, arXiv:2005.10242); intrinsic dimension by two neighbours (Facco et al. 2017, Scientific Reports
7:12140); linear CKA (Kornblith et al. 2019, arXiv:1905.00414).
"""

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from protocols.base import FeatureSet, Protocol, Quality
from protocols.nearest import nearest

_BLOCK = 1024  # rows that are compared with all others at once


class Geometry(Protocol):
    """Measures of the train features alone: no label is used, and the test set is not read.

    At most `rows` train rows, evenly spaced, are looked at.

    - `effective_rank`: exp of the entropy of the singular values of centred features, 0 (nothing varies) to d.
    - `uniformity`: log of the mean of exp(-2 |x - y|^2) over pairs of rows made unit length, -4 or so to 0; lower is
      more evenly spread.
    - `alignment`: mean squared distance between unit rows and their nearest others, 0 to 4. Differs from the source,
      whose pairs are two views of one image: here no image is augmented. Lower is nearer together; to be read beside
      the uniformity, since a collapse has 0 of both.
    - `intrinsic_dimension`: of the set that the rows lie on, by the ratios of the distances to their second and their
      first neighbour; the maximum of the likelihood, not the source's fitted line. 0 where fewer than three differ.

    None has a best value by itself: see each source. Numbers that fewer than three rows cannot have are left out.
    """

    source = "Garrido et al. 2023, arXiv:2210.02885; Wang and Isola 2020, arXiv:2005.10242; Facco et al. 2017"

    rows: int = Field(10_000, ge=3)
    """Maximum number of train rows that are measured, evenly spaced."""

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Quality:  # noqa: ARG002  # test stays sealed
        rows = torch.linspace(0, len(train) - 1, min(self.rows, len(train)), device=train.labels.device).long()
        x = train.features[rows]
        metrics = {"effective_rank": effective_rank(x)}
        if len(x) > 2:
            unit = functional.normalize(x.double(), eps=1e-300)
            metrics |= {
                "uniformity": uniformity(unit),
                "alignment": float((unit - unit[_neighbours(unit.float(), 1)[0][:, 0]]).square().sum(dim=1).mean()),
                "intrinsic_dimension": intrinsic_dimension(x),
            }
        return Quality(metrics, {"rows": len(x)})


_ROUNDING = 2.0**-46  # variance, beside the mean square, of numbers that differ by the last bit of float32 only


def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the singular values of (n, d), as shares of their sum: 0 where nothing varies, at most d.

    Source: Roy and Vetterli 2007; RankMe (Garrido et al. 2023, arXiv:2210.02885). Differs: features are centred first,
    since a mean that all images share tells none of them apart.
    """
    centred = features.double() - features.double().mean(dim=0)
    gram = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    variances = torch.linalg.eigvalsh(gram)
    largest = variances[-1]
    if variances.sum() <= _ROUNDING * features.double().square().sum():
        return 0.0
    values = variances[variances > 1e-12 * largest].sqrt()  # what is below is rounding
    shares = values / values.sum()
    return math.exp(-float((shares * shares.log()).sum()))


def uniformity(unit: Tensor) -> float:
    """log of the mean of exp(-2 |x - y|^2) over all pairs of different rows of (n, d), float64 of unit length."""
    total = -float(len(unit))  # a row with itself
    for block in torch.split(unit, _BLOCK):
        squares = (block.square().sum(dim=1)[:, None] - 2 * block @ unit.T + unit.square().sum(dim=1)).clamp(min=0)
        total += float((-2 * squares).exp().sum())
    return math.log(total / (len(unit) * (len(unit) - 1)))


def intrinsic_dimension(features: Tensor) -> float:
    """The dimension of the set that rows (n, d) are drawn from, if it is about evenly dense around three neighbours.

    Copies of a row count once, since their distances of 0 say nothing; 0 where fewer than three rows differ.
    """
    different = torch.unique(features, dim=0)
    if len(different) < 3:
        return 0.0
    distances = _neighbours(different, 2)[1]
    total = float((distances[:, 1] / distances[:, 0]).log().sum())
    return (len(different) - 1) / total if total else 0.0


def _neighbours(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest other rows of each row, (n, k), and their distances; copies of a row are others."""
    found = nearest(features, features, k + 1, "euclidean")
    itself = found.rows == torch.arange(len(features), device=features.device)[:, None]
    itself[:, -1] |= ~itself.any(dim=1)  # behind so many copies of it that it is not among them
    shape = (len(features), k)
    return found.rows[~itself].view(shape), found.distances[~itself].view(shape)


def linear_cka(one: Tensor, other: Tensor) -> float:
    """How alike two encoders' features of the same rows are, (n, d) and (n, e): 0 to 1, 1 for the same but for a turn.

    Neither a rotation, nor a scale, nor a shift of either changes it. 0 where either has nothing that varies. With few
    rows for their dimensions it is high for anything. Source: Kornblith et al. 2019, arXiv:1905.00414.
    """
    x, y = (rows.double() - rows[0].double() for rows in (one, other))  # exactly 0 where nothing varies
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    if len(x) < max(x.shape[1], y.shape[1]):
        products = [rows @ rows.T for rows in (x, y)]
        shared, norms = (products[0] * products[1]).sum(), [torch.linalg.matrix_norm(gram) for gram in products]
    else:
        shared, norms = (x.T @ y).square().sum(), [torch.linalg.matrix_norm(rows.T @ rows) for rows in (x, y)]
    scale = float(norms[0] * norms[1])
    return float(shared) / scale if scale else 0.0
