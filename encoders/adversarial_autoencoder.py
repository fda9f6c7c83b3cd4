"""What the adversarial autoencoders share: parameters, perceptrons, and the players of both games."""

from pydantic import PositiveInt
from torch import nn

from encoders import networks, parameters
from encoders.base import Generative, ImageShape
from encoders.networks import CodeTaps
from encoders.players import Adam, Player, constant_then_decay


class _AdversarialAutoencoder(Generative):
    """An autoencoder and a discriminator of its codes."""

    latent: PositiveInt
    hidden: parameters.Hidden = 1000
    epochs: parameters.Epochs = 400
    batch_size: parameters.BatchSize = 128
    learning_rate: parameters.DecayingLearningRate = 2e-4
    adversarial_learning_rate: parameters.AdversarialLearningRate = 1e-4
    discriminator_learning_rate: parameters.AdversaryLearningRate = None
    beta1: parameters.Beta1 = 0.5

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
