"""VICReg: two views of an image agree, while no unit stands still and no two units say the same.

Source: Bardes, Ponce, LeCun 2022, arXiv:2105.04906. Defaults: solo-learn's for CIFAR (scripts/pretrain/cifar/
vicreg.yaml). Differs: what encoders/joint_embedding.py lists.
"""

import typing as t

from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn import functional as F

from encoders import views
from encoders.joint_embedding import _JointEmbedding


def variance(z: Tensor) -> Tensor:
    """How far the deviations of the units of z (b, d) lie below 1, on average over units."""
    return F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean()


def covariance(z: Tensor) -> Tensor:
    """The sum of squared covariances of different units of z (b, d), divided by the number of units."""
    centred = z - z.mean(dim=0)
    products = centred.T @ centred / (len(z) - 1)
    return (products.square().sum() - products.diagonal().square().sum()) / z.shape[1]


class VICReg(_JointEmbedding):
    """Variance, invariance and covariance of the projections of two views."""

    source: t.ClassVar[str] = "Bardes et al. 2022, arXiv:2105.04906"
    colour_views: t.ClassVar[views.Preset] = "solarized"
    projector_layers: t.ClassVar[int] = 3
    observes: t.ClassVar[tuple[str, ...]] = ("invariance", "variance", "covariance")

    invariance_weight: NonNegativeFloat = 25.0
    """Weight of the mean squared difference of the two projections."""
    variance_weight: NonNegativeFloat = 25.0
    """Weight of how far units' deviations lie below 1, for both views."""
    covariance_weight: NonNegativeFloat = 1.0
    """Weight of the squared covariances of different units, for both views."""

    def losses(self, one: Tensor, other: Tensor) -> dict[str, Tensor]:
        terms = {
            "invariance": F.mse_loss(one, other),
            "variance": variance(one) + variance(other),
            "covariance": covariance(one) + covariance(other),
        }
        weights = self.invariance_weight, self.variance_weight, self.covariance_weight
        total = sum((weight * term for weight, term in zip(weights, terms.values())), one.new_zeros(()))
        return {"encoder": total, **terms}
