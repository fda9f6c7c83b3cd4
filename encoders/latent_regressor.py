"""Latent regressor: an encoder that learns to read the noise off a GAN's images; it never sees a real one.

Source: Donahue et al. 2017, arXiv:1605.09782, and the authors' code (jeffdonahue/bigan), in which the encoder learns
beside the GAN from the first step: the networks and settings are BiGAN's, and the encoder's last layer starts at zero.
`joint_weight` 0.25 makes it their joint latent regressor; `after_gan` trains the encoder once the GAN has been trained,
which their paper names first. The tap `discriminator` is the GAN's own penultimate layer: without `joint_weight` the
encoder leaves the GAN alone, so it is the row D of their Table 1.
Differs: as BiGAN does from its paper.
"""

import typing as t

import torch
from pydantic import NonNegativeFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import networks, objectives, parameters
from encoders.base import Features, Generative, ImageSet, ImageShape, Training
from encoders.batch_norm import finish
from encoders.networks import CodeTaps, Squash, unit
from encoders.players import Adam, Player, Turn, constant_then_decay
from encoders.training import train


class LatentRegressor(Generative):
    """A GAN, and an encoder from its images back to their noise, by sigmoid cross-entropy."""

    version: t.ClassVar[int] = 2
    equal_versions: t.ClassVar = {"float32": ((2, 1),)}  # 2 moved what saturates in bfloat16
    source: t.ClassVar[str] = "Donahue et al. 2017, arXiv:1605.09782"

    body: parameters.Body = "mlp"
    latent: PositiveInt = 50
    """Dimensions of the noise, uniform on (-1, 1)."""
    hidden: parameters.Hidden = 1024
    joint_weight: NonNegativeFloat = 0.0
    """Weight of the regression in the generator's loss; 0.25: the authors' joint regressor; 0: an independent GAN."""
    after_gan: bool = False
    """Whether the encoder is trained after the GAN, for as many epochs again, and not beside it."""
    epochs: parameters.Epochs = 400
    batch_size: parameters.BatchSize = 128
    learning_rate: parameters.DecayingLearningRate = 2e-4
    discriminator_learning_rate: parameters.DiscriminatorLearningRate = None
    beta1: parameters.Beta1 = 0.5
    weight_decay: parameters.WeightDecay = 2.5e-5

    @property
    def taps(self) -> tuple[str, ...]:
        return (*networks.BIGAN_BODIES[self.body][0].taps, "code", "discriminator")

    @model_validator(mode="after")
    def _is_joint_or_after(self) -> t.Self:
        if self.after_gan and self.joint_weight:
            raise ValueError("joint_weight trains the encoder with the GAN, after_gan after it; set one of them")
        return self

    def build(self, shape: ImageShape) -> "_Taps":
        encoder_body, _, discriminator_body = networks.BIGAN_BODIES[self.body]
        encoder = encoder_body(shape, self.latent, self.hidden)
        nn.init.zeros_(encoder.last.weight)
        return _Taps(CodeTaps(encoder, Squash()), discriminator_body(shape, None, self.hidden))

    def build_generator(self, shape: ImageShape) -> nn.Module:
        return networks.BIGAN_BODIES[self.body][1](shape, self.latent, self.hidden)

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
            fooled = divergence.generator_loss(fake, "non_saturating")
            losses = {"discriminator": judged, "generator": fooled, divergence.observed: divergence.estimate(judged)}
            if not self.after_gan:
                losses["encoder"] = regression(generated, z)
            if self.joint_weight:
                losses["generator"] = fooled + self.joint_weight * losses["encoder"]
            return losses

        def regression(generated: Tensor, z: Tensor) -> Tensor:
            return F.binary_cross_entropy_with_logits(encoder(generated)[1].float(), (z + 1) / 2)

        def regress(images: Tensor) -> dict[str, Tensor]:
            z = self.draw(len(images), images.device)
            with torch.no_grad():
                generated = generator(z)
            return {"encoder": regression(generated, z)}

        def with_gan(fraction: float) -> float:
            return constant_then_decay(min(2 * fraction, 1) if self.after_gan else fraction)

        def with_encoder(fraction: float) -> float:
            return constant_then_decay(max(2 * fraction - 1, 0) if self.after_gan else fraction)

        judging, adam = (
            Adam(rate, self.beta1, weight_decay=self.weight_decay)
            for rate in (self.discriminator_learning_rate or self.learning_rate, self.learning_rate)
        )
        players = [
            Player("discriminator", [discriminator], judging, with_gan),
            Player("generator", [generator], adam, with_gan),
            Player("encoder", [encoder], adam, with_encoder),
        ]
        observes, epochs = (divergence.observed,), self.epochs
        if self.after_gan:
            steps = self.epochs * (len(data) // min(self.batch_size, len(data)))  # of the GAN
            epochs = 2 * self.epochs
            turns = [
                Turn(play, lambda step: int(step < steps), observes),
                Turn(regress, lambda step: int(step >= steps)),
            ]
        else:
            turns = [Turn(play, observes=observes)]
        train(run, data, players, turns, epochs, self.batch_size)
        return finish(taps, generator, self.draw, data, run)


class _Taps(nn.Module):
    def __init__(self, encoder: CodeTaps, discriminator: networks.BiGANDiscriminator) -> None:
        super().__init__()
        self.encoder, self.discriminator = encoder, discriminator

    def forward(self, images: Tensor) -> Features:
        return {**self.encoder(images), "discriminator": self.discriminator.penultimate(unit(images))}
