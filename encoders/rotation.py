"""Rotation: a network tells by how many right angles an image was turned, for which it must know what is up.

Source: RotNet, Gidaris, Singh, Komodakis 2018, arXiv:1803.07728. Defaults: the authors' for CIFAR-10
(gidariss/FeatureLearningRotNet, config/CIFAR10_RotNet_NIN4blocks.py). Differs: a residual network in place of
network-in-network; flips and shifts are not drawn for digits, and a shift repeats the edge, where theirs brings black
in; colours are scaled to [-1, 1].
"""

import typing as t

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import networks, parameters, views
from encoders.base import Encoder, EncoderError, Features, ImageSet, ImageShape, Training
from encoders.batch_norm import recalibrate_batch_norm
from encoders.networks import signed, unit
from encoders.players import SGD, Player, Turn
from encoders.training import train

COLOUR = views.View(flip=0.5, shift=1 / 8)  # 4 pixels of 32


def in_steps(fraction: float) -> float:
    """A fifth after .3, .6 and .8 of the training each."""
    return 0.2 ** sum(fraction >= end for end in (0.3, 0.6, 0.8))


class RotationTaps(nn.Module):
    """A pooled body with a linear classifier of four turns."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body, self.last = body, nn.Linear(width, 4)

    def forward(self, images: Tensor) -> Features:
        return {"backbone": self.body(signed(images))}

    def logits(self, x: Tensor) -> Tensor:
        return self.last(self.body(2 * x - 1)).float()


class Rotation(Encoder):
    """Classify each image's four turns."""

    source: t.ClassVar[str] = "Gidaris et al. 2018, arXiv:1803.07728"

    body: parameters.PooledBody = "resnet18"
    epochs: parameters.Epochs = 200
    batch_size: parameters.BatchSize = 128
    learning_rate: PositiveFloat = 0.1
    """Step size of SGD with Nesterov's momentum; a fifth after 30, 60 and 80 % of the training each."""
    momentum: parameters.Momentum = 0.9
    weight_decay: parameters.WeightDecay = 5e-4

    @property
    def taps(self) -> tuple[str, ...]:
        return ("backbone",)

    def build(self, shape: ImageShape) -> RotationTaps:
        if shape[1] != shape[2]:
            raise EncoderError(f"rotation turns square images; got {shape[1]}x{shape[2]}: crop or pad the dataset")
        body = networks.POOLED_BODIES[self.body](shape)
        taps = RotationTaps(body, body.width)
        return taps.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            taps = self.build(data.shape)
        view = COLOUR if data.shape[0] == 3 else views.View()

        def classify(images: Tensor) -> dict[str, Tensor]:
            (x,) = views.views_of(unit(images), [view])
            turns = torch.arange(4, device=x.device).repeat_interleave(len(x))
            logits = taps.logits(views.quarter_turns(x.repeat(4, 1, 1, 1), turns))
            accuracy = (logits.argmax(dim=1) == turns).float().mean()
            return {"encoder": F.cross_entropy(logits, turns), "accuracy": accuracy}

        sgd = SGD(self.learning_rate, self.momentum, self.weight_decay, nesterov=self.momentum > 0)
        players = [Player("encoder", [taps], sgd, in_steps)]
        train(run, data, players, [Turn(classify, observes=("accuracy",))], self.epochs, self.batch_size)
        return recalibrate_batch_norm(taps, data, run)
