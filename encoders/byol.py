"""BYOL: a network predicts from one view what its own running mean, the teacher, says of the other.

Source: Grill et al. 2020, arXiv:2006.07733. Defaults: solo-learn's for CIFAR (scripts/pretrain/cifar/byol.yaml).
Differs: what encoders/joint_embedding.py lists.
"""

import typing as t

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import parameters
from encoders.base import ImageSet, Training
from encoders.batch_norm import recalibrate_batch_norm
from encoders.joint_embedding import MomentumTeacher, _JointEmbedding, exact, steps_of
from encoders.networks import Projector


class BYOL(_JointEmbedding):
    """Predict the teacher's projection of the other view; the teacher follows by a running mean of weights."""

    source: t.ClassVar[str] = "Grill et al. 2020, arXiv:2006.07733"

    projector: parameters.ProjectorHidden = 4096
    outputs: parameters.ProjectorOutputs = 256
    predictor: PositiveInt = 4096
    """Units of the predictor's hidden layer."""
    teacher_momentum: parameters.TeacherMomentum = 0.99
    learning_rate: parameters.LARSLearningRate = 1.0
    weight_decay: parameters.WeightDecay = 1e-5

    def losses(self, one: Tensor, other: Tensor) -> dict[str, Tensor]:
        """Of predictions `one` and projections `other`: 2 - 2 cos, on average."""
        return {"encoder": 2 - 2 * F.cosine_similarity(one, other, dim=1).mean()}

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            taps = self.build(data.shape)
            predictor = Projector([self.outputs, self.predictor, self.outputs])
        teacher = MomentumTeacher(taps, self.teacher_momentum, steps_of(self.epochs, self.batch_size, data))

        def step(x: Tensor, other: Tensor) -> dict[str, Tensor]:
            predictions = [predictor(taps.project(view))[-1].float() for view in (x, other)]
            with torch.no_grad():
                targets = [teacher.network.project(view) for view in (other, x)]
            with exact(x):
                return self.losses(torch.cat(predictions), torch.cat(targets))

        player = self._player("encoder", [taps, predictor, teacher], lambda: teacher.follow(taps))
        self._train(run, data, [player], step)
        return recalibrate_batch_norm(taps, data, run)
