"""Barlow Twins: the correlations of units over two views become the identity: each unit agrees with itself alone.

Source: Zbontar, Jing, Misra, LeCun, Deny 2021, arXiv:2103.03230. Defaults: solo-learn's for CIFAR (scripts/pretrain/
cifar/barlow.yaml). Differs: what encoders/joint_embedding.py lists.
"""

import typing as t

from pydantic import PositiveFloat
from torch import Tensor
from torch.nn import functional as F

from encoders.joint_embedding import _JointEmbedding


def correlations(one: Tensor, other: Tensor) -> Tensor:
    """Of each unit of one view (b, d) with each of the other, over the batch: (d, d)."""
    units = one.shape[1]
    first, second = (F.batch_norm(z, z.new_zeros(units), z.new_ones(units), training=True) for z in (one, other))
    return first.T @ second / len(one)


class BarlowTwins(_JointEmbedding):
    """The cross-correlation of the projections of two views, held near the identity."""

    source: t.ClassVar[str] = "Zbontar et al. 2021, arXiv:2103.03230"
    projector_layers: t.ClassVar[int] = 3
    observes: t.ClassVar[tuple[str, ...]] = ("invariance", "redundancy")

    redundancy_weight: PositiveFloat = 0.0051
    """Weight of the squared correlations of different units beside those of a unit with itself."""
    scale: PositiveFloat = 0.1
    """Factor of the whole loss."""

    def losses(self, one: Tensor, other: Tensor) -> dict[str, Tensor]:
        matrix = correlations(one, other)
        diagonal = matrix.diagonal()
        invariance = (1 - diagonal).square().sum()
        redundancy = matrix.square().sum() - diagonal.square().sum()
        total = self.scale * (invariance + self.redundancy_weight * redundancy)
        return {"encoder": total, "invariance": invariance, "redundancy": redundancy}
