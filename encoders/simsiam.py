"""SimSiam: a network predicts from one view what it says of the other itself, a target that no gradient moves.

Source: Chen and He 2021, arXiv:2011.10566. Defaults: solo-learn's for CIFAR (scripts/pretrain/cifar/simsiam.yaml).
Differs: what encoders/joint_embedding.py lists.
"""

import typing as t

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import parameters, views
from encoders.base import ImageSet, Training
from encoders.batch_norm import recalibrate_batch_norm
from encoders.joint_embedding import _JointEmbedding, exact
from encoders.networks import Projector
from encoders.players import SGD, Player, WarmupCosine


class SimSiam(_JointEmbedding):
    """Predict the projection of the other view, without a teacher, and without a gradient of the target."""

    source: t.ClassVar[str] = "Chen and He 2021, arXiv:2011.10566"
    colour_views: t.ClassVar[views.Preset] = "symmetric_weak"
    projector_layers: t.ClassVar[int] = 3

    predictor: PositiveInt = 512
    """Units of the predictor's hidden layer."""
    learning_rate: PositiveFloat = 0.5
    """Step size of SGD for batches of 256; that of the predictor stays what it is."""
    momentum: parameters.Momentum = 0.9
    weight_decay: parameters.WeightDecay = 1e-5

    def losses(self, one: Tensor, other: Tensor) -> dict[str, Tensor]:
        """Of predictions `one` and projections `other`: the negative cosine, on average; for both players."""
        loss = -F.cosine_similarity(one, other.detach(), dim=1).mean()
        return {"encoder": loss, "predictor": loss}

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            taps = self.build(data.shape)
            predictor = self._predictor()

        def step(x: Tensor, other: Tensor) -> dict[str, Tensor]:
            projections = [taps.project(x), taps.project(other)]
            predictions = [predictor(z) for z in projections]
            with exact(x):
                return self.losses(torch.cat(predictions), torch.cat(projections[::-1]))

        sgd = SGD(self.learning_rate, self.momentum, self.weight_decay)
        players = [
            Player("encoder", [taps], sgd, WarmupCosine(self.warmup), by_step=True),
            Player("predictor", [predictor], sgd),
        ]
        self._train(run, data, players, step)
        return recalibrate_batch_norm(taps, data, run)

    def _projector(self, widths: t.Sequence[int]) -> Projector:
        return Projector(widths, last_norm=True)

    def _predictor(self) -> nn.Module:
        return _Last(Projector([self.outputs, self.predictor, self.outputs]))


class _Last(nn.Module):
    def __init__(self, projector: Projector) -> None:
        super().__init__()
        self.projector = projector

    def forward(self, z: Tensor) -> Tensor:
        last: Tensor = self.projector(z)[-1]
        return last.float()
