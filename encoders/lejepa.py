"""LeJEPA: two views of an image agree, and projections of all images look like a standard Gaussian from every side.

Source: Balestriero and LeCun 2025, arXiv:2511.08544; the statistic as in rbalestr-lab/lejepa. Defaults: the paper's
constants; optimiser, views, epochs and projector are those of SIGReg on CIFAR-10 in facebookresearch/eb_jepa
(arXiv:2602.03604, examples/image_jepa), joined with the paper's weight of 0.05 by us. Differs: two views of one size in
place of two large and six small ones; and what encoders/joint_embedding.py lists.
"""

import typing as t

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from encoders import parameters, views
from encoders.joint_embedding import _JointEmbedding

KNOTS, LARGEST = 17, 3.0  # of the integral over the characteristic function's argument


def epps_pulley(x: Tensor) -> Tensor:
    """How far samples (b, k) are from N(0, 1), column by column: (k,), about 1 for samples of it.

    The number of samples times the integral of |their characteristic function - that of N(0, 1)|^2 under the weight
    exp(-t^2 / 2), from -3 to 3 by the trapezoidal rule.
    """
    knots = torch.linspace(0, LARGEST, KNOTS, device=x.device)
    normal = torch.exp(-knots.square() / 2)
    turned = x[:, :, None] * knots  # (b, k, knots)
    error = (turned.cos().mean(dim=0) - normal).square() + turned.sin().mean(dim=0).square()
    return 2 * len(x) * torch.trapezoid(error * normal, knots)


def sigreg(z: Tensor, directions: Tensor) -> Tensor:
    """The mean of `epps_pulley` of codes z (b, d) along directions (d, k) of length 1."""
    return epps_pulley(z @ directions).mean()


class LeJEPA(_JointEmbedding):
    """Agreement of two views beside SIGReg: no teacher, no stop-gradient, one weight."""

    source: t.ClassVar[str] = "Balestriero and LeCun 2025, arXiv:2511.08544"
    colour_views: t.ClassVar[views.Preset] = "solarized"
    projector_layers: t.ClassVar[int] = 3
    observes: t.ClassVar[tuple[str, ...]] = ("invariance", "sigreg")

    outputs: parameters.ProjectorOutputs = 128
    sigreg_weight: float = Field(0.05, gt=0, lt=1)
    """Share of SIGReg in the loss; the rest is the agreement of views."""
    slices: PositiveInt = 1024
    """Random directions along which projections are compared with a Gaussian, drawn at each step."""
    epochs: parameters.Epochs = 300
    warmup: parameters.Warmup = 1 / 30

    def losses(self, one: Tensor, other: Tensor) -> dict[str, Tensor]:
        (random,) = torch.randn(1, one.shape[1], self.slices, device=one.device)  # the same on all ranks
        directions = F.normalize(random, dim=0)
        centre = (one + other) / 2
        invariance = ((one - centre).square() + (other - centre).square()).mean() / 2
        regularity = (sigreg(one, directions) + sigreg(other, directions)) / 2
        total = (1 - self.sigreg_weight) * invariance + self.sigreg_weight * regularity
        return {"encoder": total, "invariance": invariance, "sigreg": regularity}
