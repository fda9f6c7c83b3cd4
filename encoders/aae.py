"""Adversarial autoencoder: an autoencoder whose codes are pushed onto a prior by a discriminator.

Source: Makhzani et al. 2015, arXiv:1511.05644. Deterministic encoder, Gaussian prior. Differs: Adam, as every public
implementation we know uses it, in place of the paper's SGD with momentum; the `conv` body is Deep InfoMax's encoder.
"""

import typing as t

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import networks, objectives
from encoders.base import Encoder, ImageSet, ImageShape, Training
from encoders.networks import CodeDiscriminator, CodeTaps, unit
from encoders.training import Adam, Player, Turn, constant_then_decay, settle, train


class AAE(Encoder):
    """Reconstruct, then tell codes from the prior, then hide the codes in the prior: three turns a batch."""

    source: t.ClassVar[str] = "Makhzani et al. 2015, arXiv:1511.05644"

    body: t.Literal["mlp", "conv"] = "mlp"  # the paper's perceptrons, or strided convolutions for colour images
    latent: PositiveInt = 8  # dimensions of the code
    prior_std: PositiveFloat = 5.0  # of the Gaussian that the codes should follow
    hidden: PositiveInt = 1000
    epochs: NonNegativeInt = 400
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat = 2e-4  # of the reconstruction; decays to 1 % over the second half
    adversarial_learning_rate: PositiveFloat = 1e-4  # of both sides of the game; decays likewise
    beta1: NonNegativeFloat = 0.5

    @property
    def taps(self) -> tuple[str, ...]:
        return (*self._bodies[0].taps, "code")

    def build(self, shape: ImageShape) -> CodeTaps:
        return CodeTaps(self._bodies[0](shape, self.latent, self.hidden), nn.Identity())

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            taps = self.build(data.shape)
            decoder = self._bodies[1](data.shape, self.latent, self.hidden)
            discriminator = CodeDiscriminator(self.latent, self.hidden)

        def encode(images: Tensor) -> tuple[Tensor, Tensor]:
            x = unit(images)
            return x, taps.body(x)[1]

        def reconstruct(images: Tensor) -> dict[str, Tensor]:
            x, code = encode(images)
            return {"autoencoder": F.mse_loss(decoder(code).float(), x)}

        def judge(images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                _, code = encode(images)
            prior = torch.randn(len(code), self.latent, device=code.device) * self.prior_std
            return {"discriminator": objectives.cross_entropy(discriminator(prior), discriminator(code))}

        def hide(images: Tensor) -> dict[str, Tensor]:
            _, code = encode(images)
            return {"encoder": objectives.non_saturating(discriminator(code))}

        reconstruction = Adam(self.learning_rate, self.beta1)
        adversarial = Adam(self.adversarial_learning_rate, self.beta1)
        players = [
            Player("autoencoder", [taps.body, decoder], reconstruction, constant_then_decay),
            Player("discriminator", [discriminator], adversarial, constant_then_decay),
            Player("encoder", [taps.body], adversarial, constant_then_decay),
        ]
        train(run, data, players, [Turn(reconstruct), Turn(judge), Turn(hide)], self.epochs, self.batch_size)
        return settle(taps, data, run)

    @property
    def _bodies(self) -> tuple[t.Any, t.Any]:
        if self.body == "mlp":
            return networks.MLPEncoder, networks.MLPDecoder
        return networks.ConvEncoder, networks.ConvGenerator
