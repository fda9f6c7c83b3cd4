"""DCGAN: a convolutional discriminator's layers, pooled to 4x4 and concatenated.

Source: Radford, Metz, Chintala 2015, arXiv:1511.06434, with the 5x5 kernels and 64-128-256 channels of the authors'
32x32 discriminator (Newmu/dcgan_code, svhn). The layers follow the size of the image: three at 28x28 and 32x32.
Trained on the dataset it is scored on; the paper's CIFAR-10 number used a discriminator trained on ImageNet.
Differs: both players step on every batch, and the generator from the images that were just judged; the authors' code
gives each batch to one of the two, and draws noise for each. It adds an L2 term of 1e-5 (faces) or 2.5e-5 (MNIST),
of which the paper and this have none.
"""

import typing as t

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from encoders import objectives, parameters
from encoders.base import Generative, ImageSet, ImageShape, Training
from encoders.batch_norm import finish
from encoders.networks import DCGANDiscriminator, DCGANGenerator, signed
from encoders.players import Adam, Player, Turn
from encoders.training import train


class DCGAN(Generative):
    """A convolutional generator against a convolutional discriminator, which is updated first in each step."""

    version: t.ClassVar[int] = 3
    equal_versions: t.ClassVar = {"float32": ((2, 1),)}  # 2 moved what saturates in bfloat16
    source: t.ClassVar[str] = "Radford et al. 2015, arXiv:1511.06434"

    latent: PositiveInt = 100
    """Dimensions of the noise, uniform on (-1, 1)."""
    width: parameters.ConvWidth = 64
    layers: parameters.ConvLayers = 3
    epochs: parameters.Epochs = 25
    batch_size: parameters.BatchSize = 128
    learning_rate: parameters.LearningRate = 2e-4
    discriminator_learning_rate: parameters.DiscriminatorLearningRate = None
    beta1: parameters.Beta1 = 0.5
    discriminator_steps: PositiveInt = 1
    """Steps of the discriminator before each step of the generator, each on a batch of its own."""
    objective: objectives.Objective = "gan"
    """Divergence between real and generated images that the discriminator bounds."""
    generator_loss: parameters.GeneratorLoss = "non_saturating"
    pi: parameters.Pi = 0.5
    alpha: parameters.Alpha = 0.5
    layer_taps: bool = False
    """Whether layers below the last are taps too; the images must be large enough for all layers."""

    @property
    def taps(self) -> tuple[str, ...]:
        below = tuple(f"layer{index}" for index in range(1, self.layers)) if self.layer_taps else ()
        return (*below, "last", "all")

    def build(self, shape: ImageShape) -> DCGANDiscriminator:
        network = DCGANDiscriminator(shape, self.width, self.layers, layer_taps=self.layer_taps)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def build_generator(self, shape: ImageShape) -> nn.Module:
        network = DCGANGenerator(shape, self.latent, self.width, self.layers)
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def draw(self, count: int, device: torch.device) -> Tensor:
        return torch.rand(count, self.latent, device=device) * 2 - 1

    def pictures(self, made: Tensor) -> Tensor:
        return (made + 1) / 2

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            taps = self.build(data.shape)
            generator = self.build_generator(data.shape)

        divergence = objectives.divergence(self.objective, self.pi, self.alpha)

        generated: list[Tensor] = []  # the last batch: the generator stands still until it has fooled the judge

        def discriminator_step(images: Tensor) -> dict[str, Tensor]:
            generated[:] = [generator(self.draw(len(images), images.device))]
            loss = divergence.discriminator_loss(taps.logits(signed(images)), taps.logits(generated[0].detach()))
            return {"discriminator": loss, divergence.observed: divergence.estimate(loss)}

        def generator_step(images: Tensor) -> dict[str, Tensor]:  # noqa: ARG001 - the generated ones alone
            return {"generator": divergence.generator_loss(taps.logits(generated[0]), self.generator_loss)}

        judging = Adam(self.discriminator_learning_rate or self.learning_rate, self.beta1)
        players = [
            Player("discriminator", [taps], judging),
            Player("generator", [generator], Adam(self.learning_rate, self.beta1)),
        ]
        turns = [
            Turn(discriminator_step, lambda _: self.discriminator_steps, (divergence.observed,)),
            Turn(generator_step),
        ]
        train(run, data, players, turns, self.epochs, self.batch_size)
        return finish(taps, generator, self.draw, data, run)
