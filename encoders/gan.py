"""GAN: the features a discriminator learned while telling real images from generated ones.

Source: Goodfellow et al. 2014, arXiv:1406.2661, with the networks and settings of the authors' MNIST code
(goodfeli/adversarial, mnist.yaml): uniform noise, maxout discriminator with dropout, one forward pass and simultaneous
updates. Differs: momentum stays at its first value, 0.5 (theirs creeps to 0.7 over 250 epochs).
"""

import math
import typing as t

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import objectives, parameters
from encoders.base import Features, Generative, ImageSet, ImageShape, Training
from encoders.batch_norm import finish
from encoders.networks import Sigmoid, unit
from encoders.players import SGD, Adam, Player, Turn
from encoders.training import train


class GAN(Generative):
    """A generator against a maxout discriminator, both perceptrons; the discriminator's hidden layers are the taps."""

    version: t.ClassVar[int] = 3
    equal_versions: t.ClassVar = {"float32": ((2, 1),)}  # 2 moved what saturates in bfloat16
    source: t.ClassVar[str] = "Goodfellow et al. 2014, arXiv:1406.2661"

    latent: PositiveInt = 100
    """Dimensions of the noise, uniform with variance 1."""
    generator_hidden: PositiveInt = 1200
    """Units of each hidden layer of the generator."""
    discriminator_hidden: PositiveInt = 240
    """Units of each hidden layer of the discriminator."""
    pieces: PositiveInt = 5
    """Linear pieces of a maxout unit."""
    epochs: NonNegativeInt = 100
    """Passes over the training images. The authors give no number: they stopped by hand."""
    batch_size: parameters.BatchSize = 100
    learning_rate: parameters.LearningRate = 0.1
    discriminator_learning_rate: parameters.DiscriminatorLearningRate = None
    learning_rate_decay: PositiveFloat = Field(default=1 / 1.000004, le=1)
    """Factor of the learning rates per step, at most 1; applied after each epoch."""
    momentum: float = Field(default=0.5, ge=0, lt=1)
    """Momentum of sgd, or beta1 of adam; from 0 to below 1."""
    optimizer: t.Literal["sgd", "adam"] = "sgd"
    """sgd is the authors'; f-GAN's divergences were published with adam at a learning rate of 2e-4."""
    units: t.Literal["maxout", "plu"] = "maxout"
    """Units of the discriminator; plu is linear in three pieces and does not read `pieces`."""
    discriminator_steps: PositiveInt = 1
    """Steps of the discriminator before each step of the generator; 1 moves both at once, as the authors do."""
    objective: objectives.Objective = "gan"
    """Divergence between real and generated images that the discriminator bounds."""
    generator_loss: parameters.GeneratorLoss = "non_saturating"
    pi: parameters.Pi = 0.5
    alpha: parameters.Alpha = 0.5

    @property
    def taps(self) -> tuple[str, ...]:
        return ("hidden1", "hidden2")

    def build(self, shape: ImageShape) -> "_Discriminator":
        if self.units == "plu":
            return _Discriminator(math.prod(shape), self.discriminator_hidden, _PLU)
        return _Discriminator(math.prod(shape), self.discriminator_hidden, lambda i, o: _Maxout(i, o, self.pieces))

    def build_generator(self, shape: ImageShape) -> "_Generator":
        return _Generator(shape, self.latent, self.generator_hidden)

    def draw(self, count: int, device: torch.device) -> Tensor:
        return (torch.rand(count, self.latent, device=device) * 2 - 1) * math.sqrt(3)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            taps = self.build(data.shape)
            generator = self.build_generator(data.shape)
        generator.start_at(data)

        divergence = objectives.divergence(self.objective, self.pi, self.alpha)

        def sample(images: Tensor) -> Tensor:
            return generator(self.draw(len(images), images.device))

        def play(images: Tensor) -> dict[str, Tensor]:
            generated = sample(images)
            real, fake = taps.logits(unit(images)), taps.logits(generated)
            loss = divergence.discriminator_loss(real, fake)
            return {
                "discriminator": loss,
                "generator": divergence.generator_loss(fake, self.generator_loss),
                divergence.observed: divergence.estimate(loss),
            }

        def discriminator_step(images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                generated = sample(images)
            loss = divergence.discriminator_loss(taps.logits(unit(images)), taps.logits(generated))
            return {"discriminator": loss, divergence.observed: divergence.estimate(loss)}

        def generator_step(images: Tensor) -> dict[str, Tensor]:
            return {"generator": divergence.generator_loss(taps.logits(sample(images)), self.generator_loss)}

        turns = [Turn(play, observes=(divergence.observed,))]
        if self.discriminator_steps > 1:
            turns = [
                Turn(discriminator_step, lambda _: self.discriminator_steps, (divergence.observed,)),
                Turn(generator_step),
            ]

        batches = self.epochs * max(1, len(data) // self.batch_size)

        def decay(fraction: float) -> float:
            return self.learning_rate_decay ** (fraction * batches)

        kind = SGD if self.optimizer == "sgd" else Adam
        judging = kind(self.discriminator_learning_rate or self.learning_rate, self.momentum)
        players = [
            Player("discriminator", [taps], judging, decay),
            Player("generator", [generator], kind(self.learning_rate, self.momentum), decay),
        ]
        train(run, data, players, turns, self.epochs, self.batch_size)
        return finish(taps, generator, self.draw, data, run)


class _Maxout(nn.Module):
    """The largest of several linear pieces, for each unit."""

    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.pieces = nn.Linear(inputs, units * pieces)
        self.shape = (pieces, units)
        _uniform(self.pieces, 0.005)

    def forward(self, x: Tensor) -> Tensor:
        return self.pieces(x).unflatten(1, self.shape).amax(dim=1)  # (b, units)


class _PLU(nn.Module):
    """The identity between -1 and 1, of slope 0.1 beyond: max(a(x+c)-c, min(a(x-c)+c, x)) with a = 0.1, c = 1.

    Source: Nicolae 2018, arXiv:1809.09534.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, units)
        _uniform(self.linear, 0.05)

    def forward(self, x: Tensor) -> Tensor:
        h = self.linear(x)
        return torch.maximum(0.1 * (h + 1) - 1, torch.minimum(0.1 * (h - 1) + 1, h))


class _Discriminator(nn.Module):
    """784 - 240 units - 240 units - 1. As a module it gives its hidden layers; `logits` plays the game."""

    def __init__(self, inputs: int, hidden: int, layer: t.Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.first, self.second = layer(inputs, hidden), layer(hidden, hidden)
        self.last = nn.Linear(hidden, 1)
        _uniform(self.last, 0.005)

    def forward(self, images: Tensor) -> Features:
        first = self.first(unit(images).flatten(1))
        return {"hidden1": first, "hidden2": self.second(first)}

    def logits(self, x: Tensor) -> Tensor:
        h = self.first(F.dropout(x.flatten(1), 0.2, self.training))
        h = self.second(F.dropout(h, 0.5, self.training))
        return self.last(F.dropout(h, 0.5, self.training)).squeeze(1)


class _Generator(nn.Module):
    """100 - 1200 - 1200 - 784 with ReLU units. Gives images in [0, 1]."""

    def __init__(self, shape: ImageShape, latent: int, hidden: int) -> None:
        super().__init__()
        self.shape = shape
        self.first, self.second = nn.Linear(latent, hidden), nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, math.prod(shape))
        self.squash = Sigmoid()
        for layer in (self.first, self.second, self.last):
            _uniform(layer, 0.05)

    def start_at(self, data: ImageSet) -> None:
        """Set the output's bias to the log-odds of the mean image, as the authors do."""
        mean = torch.from_numpy(data.images.mean(axis=0) / 255).flatten().clamp(1e-7, 1 - 1e-7)
        with torch.no_grad():
            self.last.bias.copy_(torch.logit(mean))

    def forward(self, z: Tensor) -> Tensor:
        h = F.relu(self.second(F.relu(self.first(z))))
        return self.squash(self.last(h)).view(-1, *self.shape)


def _uniform(layer: nn.Linear, width: float) -> None:
    nn.init.uniform_(layer.weight, -width, width)
    nn.init.zeros_(layer.bias)
