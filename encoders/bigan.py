"""BiGAN: an encoder learned by fooling a judge of (image, code) pairs.

Source: Donahue, Krähenbühl, Darrell 2017, arXiv:1605.09782, and the authors' code for MNIST (jeffdonahue/bigan).
Differs: batch-norm is settled in one pass over the training images, not a thousand random batches. The `conv` body is
Deep InfoMax's encoder with BiGAN's conventions; the paper has none for 32x32 images.
"""

import typing as t

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from encoders import networks, objectives
from encoders.base import Encoder, ImageSet, ImageShape, Training
from encoders.networks import CodeTaps, Squash, unit
from encoders.training import Adam, Player, Turn, constant_then_decay, settle, train


class BiGAN(Encoder):
    """Encoder and generator together fool a discriminator that sees an image and its code."""

    source: t.ClassVar[str] = "Donahue et al. 2017, arXiv:1605.09782"

    body: t.Literal["mlp", "conv"] = "mlp"  # the paper's perceptrons, or strided convolutions for colour images
    latent: PositiveInt = 50  # dimensions of the code, uniform on (-1, 1)
    hidden: PositiveInt = 1024
    epochs: NonNegativeInt = 400
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat = 2e-4  # decays to 1 % over the second half
    beta1: NonNegativeFloat = 0.5
    weight_decay: NonNegativeFloat = 2.5e-5  # L2, added to the gradient

    @property
    def taps(self) -> tuple[str, ...]:
        return (*self._bodies[0].taps, "code")

    def build(self, shape: ImageShape) -> CodeTaps:
        return CodeTaps(self._bodies[0](shape, self.latent, self.hidden), Squash())

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        _, generator_body, discriminator_body = self._bodies
        with run.seeded("init"):
            taps = self.build(data.shape)
            generator = generator_body(data.shape, self.latent, self.hidden)
            discriminator = discriminator_body(data.shape, self.latent, self.hidden)
        encoder, squash = taps.body, taps.squash

        def play(images: Tensor) -> dict[str, Tensor]:
            x = unit(images)
            z = torch.rand(len(x), self.latent, device=x.device) * 2 - 1
            real = discriminator(x, squash(encoder(x)[1]))
            fake = discriminator(generator(z), z)
            return {
                "discriminator": objectives.cross_entropy(real, fake),
                "generator": objectives.cross_entropy(fake, real),
            }

        adam = Adam(self.learning_rate, self.beta1, weight_decay=self.weight_decay)
        players = [
            Player("discriminator", [discriminator], adam, constant_then_decay),
            Player("generator", [generator, encoder], adam, constant_then_decay),
        ]
        train(run, data, players, [Turn(play)], self.epochs, self.batch_size)
        return settle(taps, data, run)

    @property
    def _bodies(self) -> tuple[t.Any, t.Any, t.Any]:
        if self.body == "mlp":
            return networks.BiGANEncoder, networks.BiGANGenerator, networks.BiGANDiscriminator
        return networks.ConvEncoder, networks.ConvGenerator, networks.ConvDiscriminator
