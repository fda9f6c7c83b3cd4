"""What WGAN and WGAN-GP share: networks, noise and pictures. Their files say how each bounds the critic's slope."""

import typing as t

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from encoders import parameters
from encoders.base import Generative, ImageShape
from encoders.networks import DCGANDiscriminator, DCGANGenerator, MLPCritic, MLPGenerator, spectral_norm


class _WassersteinGAN(Generative):
    """A critic and a generator; the critic's layers are the taps."""

    body: t.Literal["conv", "mlp"] = "conv"
    """Networks: DCGAN's convolutions (conv), or WGAN's perceptrons (mlp)."""
    latent: PositiveInt = 100
    """Dimensions of the Gaussian noise."""
    width: PositiveInt = 64
    """Channels of the first convolution; each one after it has twice as many. Only for the body conv."""
    layers: PositiveInt = 3
    """Maximum number of convolutions; small images have fewer. Only for the body conv."""
    hidden: PositiveInt = 512
    """Units of each of the three hidden layers; only for the body mlp."""
    spectral_norm: bool = False
    """Whether the critic's weights have spectral norm 1: in place of WGAN's clipping, beside WGAN-GP's penalty."""
    epochs: NonNegativeInt = 25
    """Passes of the critic over the training images."""
    batch_size: parameters.BatchSize = 64
    learning_rate: PositiveFloat = 5e-5
    """Step size of RMSprop."""
    critic_learning_rate: PositiveFloat | None = None
    """Step size for the critic; null: learning_rate."""

    @property
    def taps(self) -> tuple[str, ...]:
        return MLPCritic.taps if self.body == "mlp" else ("last", "all")

    def _critic(self, shape: ImageShape, norm: bool) -> MLPCritic | DCGANDiscriminator:
        if self.body == "mlp":
            critic: MLPCritic | DCGANDiscriminator = MLPCritic(shape, self.hidden)
        else:
            critic = DCGANDiscriminator(shape, self.width, self.layers, norm=norm)
        if self.spectral_norm:
            spectral_norm(critic)
        return critic

    def build_generator(self, shape: ImageShape) -> nn.Module:
        if self.body == "mlp":
            return MLPGenerator(shape, self.latent, self.hidden)
        return DCGANGenerator(shape, self.latent, self.width, self.layers)

    def draw(self, count: int, device: torch.device) -> Tensor:
        return torch.randn(count, self.latent, device=device)

    def pictures(self, made: Tensor) -> Tensor:
        return ((made + 1) / 2).clamp(0, 1)  # the perceptrons' images may lie outside
