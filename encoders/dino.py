"""DINO: a network gives a view the same prototypes as its own running mean, the teacher, gives the other view.

Source: Caron et al. 2021, arXiv:2104.14294. Defaults: solo-learn's for CIFAR (scripts/pretrain/cifar/dino.yaml; what it
leaves out, solo/methods/dino.py). Differs: two views of one size, no small crops; and what encoders/joint_embedding.py
lists.
"""

import typing as t

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import parameters
from encoders.base import ImageSet, Training
from encoders.batch_norm import recalibrate_batch_norm
from encoders.joint_embedding import MomentumTeacher, _JointEmbedding, exact, steps_of
from encoders.networks import STD, ProjectedTaps, Projector


class Prototypes(nn.Module):
    """Cosines of projections of images in [0, 1] with directions that are learned: (b, prototypes)."""

    def __init__(self, taps: ProjectedTaps, outputs: int, prototypes: int) -> None:
        super().__init__()
        self.taps, self.directions = taps, nn.Linear(outputs, prototypes, bias=False).weight

    def forward(self, x: Tensor, moving: Tensor | bool = True) -> Tensor:
        """The directions have no gradient unless they are `moving`."""
        own = self.directions.detach()
        directions, z = own + (self.directions - own) * moving, self.taps.project(x)
        with exact(z):
            return F.normalize(z, dim=1) @ F.normalize(directions, dim=1).T


class Centre(nn.Module):
    """The running mean of the teacher's cosines (d,). Part of the loop's state."""

    mean: Tensor

    def __init__(self, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(width))

    def follow(self, mean: Tensor) -> None:
        self.mean.lerp_(mean, 1 - self.momentum)


class DINO(_JointEmbedding):
    """Predict the teacher's soft choice of prototypes for the other view, centred and sharpened against collapse."""

    source: t.ClassVar[str] = "Caron et al. 2021, arXiv:2104.14294"
    projector_layers: t.ClassVar[int] = 3

    outputs: parameters.ProjectorOutputs = 256
    prototypes: PositiveInt = 4096
    """Directions that projections are compared with."""
    frozen_epochs: NonNegativeInt = 1
    """Epochs at first in which the prototypes stay where they are."""
    temperature: PositiveFloat = 0.1
    """What the network's cosines are divided by before their softmax."""
    teacher_temperature: PositiveFloat = 0.07
    """The same of the teacher; a smaller one makes its choice sharper, against one that is the same everywhere."""
    centre_momentum: float = Field(0.9, ge=0, lt=1)
    """Decay rate of the mean that is subtracted from the teacher's cosines, against one choice for all images."""
    teacher_momentum: parameters.TeacherMomentum = 0.9995
    weight_decay: parameters.WeightDecay = 1e-6

    def losses(self, one: Tensor, other: Tensor) -> dict[str, Tensor]:
        """Of cosines `one`, and the teacher's for the other view less their centre: the cross-entropy, on average."""
        wanted = F.softmax(other / self.teacher_temperature, dim=1)
        return {"encoder": F.cross_entropy(one / self.temperature, wanted)}

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            taps = self.build(data.shape)
            student = Prototypes(taps, self.outputs, self.prototypes)
        teacher = MomentumTeacher(student, self.teacher_momentum, steps_of(self.epochs, self.batch_size, data))
        centre = Centre(self.prototypes, self.centre_momentum)
        frozen_steps = steps_of(self.frozen_epochs, self.batch_size, data)

        def step(x: Tensor, other: Tensor) -> dict[str, Tensor]:
            moving = teacher.steps >= frozen_steps
            given = torch.cat([student(view, moving) for view in (x, other)])
            with torch.no_grad():
                wanted = torch.cat([teacher.network(view) for view in (other, x)])
            with exact(x):
                losses = self.losses(given, wanted - centre.mean)
            (mean,) = run.group.mean([wanted.mean(dim=0)])
            centre.follow(mean)
            return losses

        player = self._player("encoder", [student, teacher, centre], lambda: teacher.follow(student))
        self._train(run, data, [player], step)
        return recalibrate_batch_norm(taps, data, run)

    def _projector(self, widths: t.Sequence[int]) -> Projector:
        projector = Projector(widths, norm=False, units=nn.GELU)
        for layer in projector.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=STD)
                nn.init.zeros_(layer.bias)
        return projector
