"""Denoising autoencoder: give the clean image back from a damaged one.

Source: Vincent et al. 2008 and 2010 (JMLR 11), their kinds of corruption and their cross-entropy. Differs: trained as a
whole, not greedily layer by layer with tied weights; the adversarial autoencoder's perceptrons or Deep InfoMax's
convolutions, and Adam, so that what it is compared with differs in the objective only.
"""

import typing as t

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import networks, parameters
from encoders.base import Generative, ImageSet, ImageShape, Training
from encoders.batch_norm import encoded, finish
from encoders.networks import CodeTaps, logits_of, unit
from encoders.players import Adam, Player, Turn, constant_then_decay
from encoders.training import train

Corruption = t.Literal["masking", "salt_and_pepper", "gaussian"]


def corrupt(x: Tensor, corruption: Corruption, level: float) -> Tensor:
    """Damaged copies of images in [0, 1], by torch's global generator.

    masking: each pixel becomes 0 with probability `level`; salt_and_pepper: it becomes 0 or 1, a fair coin's throw;
    gaussian: every pixel gains noise of standard deviation `level`, and may leave [0, 1].
    """
    if corruption == "gaussian":
        return x + level * torch.randn_like(x)
    noise = (torch.rand_like(x) < 0.5).to(x) if corruption == "salt_and_pepper" else torch.zeros_like(x)
    return torch.where(torch.rand_like(x) < level, noise, x)


class DenoisingAutoencoder(Generative):
    """Corrupted image -> code -> the clean image, by the cross-entropy of its pixels. Features are of clean images."""

    source: t.ClassVar[str] = "Vincent et al. 2010, JMLR 11"

    corruption: Corruption = "masking"
    """What damages an image: pixels set to 0, pixels set to 0 or 1 at random, or Gaussian noise."""
    level: NonNegativeFloat = 0.25
    """Share of the pixels that are destroyed, or the standard deviation of the Gaussian noise; 0: an autoencoder."""
    body: parameters.Body = "mlp"
    latent: PositiveInt = 50
    """Dimensions of the code."""
    hidden: parameters.Hidden = 1000
    epochs: parameters.Epochs = 400
    batch_size: parameters.BatchSize = 128
    learning_rate: parameters.DecayingLearningRate = 2e-4
    beta1: parameters.Beta1 = 0.5

    @property
    def taps(self) -> tuple[str, ...]:
        return (*networks.AAE_BODIES[self.body][0].taps, "code")

    def build(self, shape: ImageShape) -> CodeTaps:
        return CodeTaps(networks.AAE_BODIES[self.body][0](shape, self.latent, self.hidden), nn.Identity())

    def build_generator(self, shape: ImageShape) -> nn.Module:
        return logits_of(networks.AAE_BODIES[self.body][1](shape, self.latent, self.hidden))

    def pictures(self, made: Tensor) -> Tensor:
        return torch.sigmoid(made)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            taps = self.build(data.shape)
            decoder = self.build_generator(data.shape)

        def denoise(images: Tensor) -> dict[str, Tensor]:
            x = unit(images)
            _, code = taps.body(corrupt(x, self.corruption, self.level))
            return {"autoencoder": F.binary_cross_entropy_with_logits(decoder(code).float(), x)}

        adam = Adam(self.learning_rate, self.beta1)
        players = [Player("autoencoder", [taps.body, decoder], adam, constant_then_decay)]
        train(run, data, players, [Turn(denoise)], self.epochs, self.batch_size)
        return finish(taps, decoder, encoded(taps, data), data, run)
