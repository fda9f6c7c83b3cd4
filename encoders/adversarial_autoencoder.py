"""What the adversarial autoencoders share: perceptrons, and the players of reconstruction and of the game on codes."""

import typing as t

from torch import nn

from encoders import networks
from encoders.base import Generative, ImageShape
from encoders.networks import CodeTaps
from encoders.players import Adam, Player, constant_then_decay


class _AdversarialAutoencoder(Generative):
    """An autoencoder and a discriminator of its codes."""

    if t.TYPE_CHECKING:  # each method declares them, in an order of its own
        latent: int
        hidden: int
        learning_rate: float
        adversarial_learning_rate: float
        discriminator_learning_rate: float | None
        beta1: float

    @property
    def taps(self) -> tuple[str, ...]:
        return (*networks.MLPEncoder.taps, "code")

    def build(self, shape: ImageShape) -> CodeTaps:
        return CodeTaps(networks.MLPEncoder(shape, self.latent, self.hidden), nn.Identity())

    def _players(self, taps: CodeTaps, decoder: nn.Module, discriminator: nn.Module) -> list[Player]:
        reconstruction = Adam(self.learning_rate, self.beta1)
        adversarial = Adam(self.adversarial_learning_rate, self.beta1)
        judging = Adam(self.discriminator_learning_rate or self.adversarial_learning_rate, self.beta1)
        return [
            Player("autoencoder", [taps.body, decoder], reconstruction, constant_then_decay),
            Player("discriminator", [discriminator], judging, constant_then_decay),
            Player("encoder", [taps.body], adversarial, constant_then_decay),
        ]
