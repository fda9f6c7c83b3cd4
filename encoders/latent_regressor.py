"""Latent regressor: an encoder that learns to read the noise off a GAN's images; it never sees a real one.

Source: Donahue et al. 2017, arXiv:1605.09782, and the authors' code (jeffdonahue/bigan), in which the encoder learns
beside the GAN from the first step: the networks and settings are BiGAN's, and the encoder's last layer starts at zero.
`joint_weight` 0.25 makes it their joint latent regressor. The tap `discriminator` is the GAN's own penultimate
layer: without `joint_weight` the encoder leaves the GAN alone, so it is the row D of their Table 1.
Differs: as BiGAN does from its paper.
"""

import typing as t

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import networks, objectives
from encoders.base import Features, Generative, ImageSet, ImageShape, Training
from encoders.networks import CodeTaps, Squash, unit
from encoders.training import Adam, Player, Turn, constant_then_decay, settle, settle_generator, train


class LatentRegressor(Generative):
    """A GAN, and an encoder from its images back to their noise, by sigmoid cross-entropy."""

    version: t.ClassVar[int] = 2
    source: t.ClassVar[str] = "Donahue et al. 2017, arXiv:1605.09782"

    body: t.Literal["mlp", "conv"] = "mlp"  # BiGAN's perceptrons, or strided convolutions for colour images
    latent: PositiveInt = 50  # dimensions of the noise, uniform on (-1, 1)
    hidden: PositiveInt = 1024
    joint_weight: NonNegativeFloat = 0.0  # of the regression in the generator's loss; 0.25 is the joint regressor
    epochs: NonNegativeInt = 400
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat = 2e-4  # decays to 1 % over the second half
    beta1: NonNegativeFloat = 0.5
    weight_decay: NonNegativeFloat = 2.5e-5  # L2, added to the gradient

    @property
    def taps(self) -> tuple[str, ...]:
        return (*self._bodies[0].taps, "code", "discriminator")

    def build(self, shape: ImageShape) -> "_Taps":
        encoder_body, _, discriminator_body = self._bodies
        encoder = encoder_body(shape, self.latent, self.hidden)
        nn.init.zeros_(encoder.last.weight)
        return _Taps(CodeTaps(encoder, Squash()), discriminator_body(shape, None, self.hidden))

    def build_generator(self, shape: ImageShape) -> nn.Module:
        return self._bodies[1](shape, self.latent, self.hidden)

    def draw(self, count: int, device: torch.device) -> Tensor:
        return torch.rand(count, self.latent, device=device) * 2 - 1

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            taps = self.build(data.shape)
            generator = self.build_generator(data.shape)
        encoder, discriminator = taps.encoder.body, taps.discriminator
        divergence = objectives.divergence("gan")

        def play(images: Tensor) -> dict[str, Tensor]:
            z = self.draw(len(images), images.device)
            generated = generator(z)
            real, fake = discriminator(unit(images)), discriminator(generated)
            judged = divergence.discriminator_loss(real, fake)
            regression = F.binary_cross_entropy_with_logits(encoder(generated)[1].float(), (z + 1) / 2)
            fooled = divergence.generator_loss(fake, "non_saturating")
            return {
                "discriminator": judged,
                "generator": fooled + self.joint_weight * regression if self.joint_weight else fooled,
                "encoder": regression,
                divergence.observed: divergence.estimate(judged),
            }

        adam = Adam(self.learning_rate, self.beta1, weight_decay=self.weight_decay)
        players = [
            Player("discriminator", [discriminator], adam, constant_then_decay),
            Player("generator", [generator], adam, constant_then_decay),
            Player("encoder", [encoder], adam, constant_then_decay),
        ]
        train(run, data, players, [Turn(play, observes=(divergence.observed,))], self.epochs, self.batch_size)
        run.generator = settle_generator(generator, self.draw, run)
        return settle(taps, data, run)

    @property
    def _bodies(self) -> tuple[t.Any, t.Any, t.Any]:
        if self.body == "mlp":
            return networks.BiGANEncoder, networks.BiGANGenerator, networks.BiGANDiscriminator
        return networks.ConvEncoder, networks.ConvGenerator, networks.ConvDiscriminator


class _Taps(nn.Module):
    def __init__(self, encoder: CodeTaps, discriminator: networks.BiGANDiscriminator) -> None:
        super().__init__()
        self.encoder, self.discriminator = encoder, discriminator

    def forward(self, images: Tensor) -> Features:
        return {**self.encoder(images), "discriminator": self.discriminator.penultimate(unit(images))}
