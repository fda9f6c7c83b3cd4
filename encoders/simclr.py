"""SimCLR: a view of an image is told from the views of all other images of the batch by the other view of it.

Source: Chen, Kornblith, Norouzi, Hinton 2020, arXiv:2002.05709. Defaults: solo-learn's for CIFAR (scripts/pretrain/
cifar/simclr.yaml). Differs: what encoders/joint_embedding.py lists.
"""

import typing as t

import torch
from torch import Tensor
from torch.nn import functional as F

from encoders import parameters, views
from encoders.joint_embedding import _JointEmbedding
from encoders.networks import Projector


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """The cross-entropy of finding each view's partner among the 2b - 1 other views, by cosine over temperature."""
    z = F.normalize(torch.cat([one, other]), dim=1)
    similarity = (z @ z.T / temperature).fill_diagonal_(-torch.inf)  # (2b, 2b)
    partner = torch.arange(len(z), device=z.device).roll(len(one))
    return F.cross_entropy(similarity, partner)


class SimCLR(_JointEmbedding):
    """Contrast of the projections of two views with those of other images."""

    source: t.ClassVar[str] = "Chen et al. 2020, arXiv:2002.05709"
    colour_views: t.ClassVar[views.Preset] = "symmetric"

    outputs: parameters.ProjectorOutputs = 256
    learning_rate: parameters.LARSLearningRate = 0.4
    temperature: parameters.Temperature = 0.2

    def losses(self, one: Tensor, other: Tensor) -> dict[str, Tensor]:
        return {"encoder": nt_xent(one, other, self.temperature)}

    def _projector(self, widths: t.Sequence[int]) -> Projector:
        return Projector(widths, norm=False)
