"""WGAN-GP: a critic that is paid to have slope 1 between real and generated images.

Source: Gulrajani et al. 2017, arXiv:1704.00028: the penalty is two-sided, the critic has no batch-norm, and defaults
and networks are those of the authors' code for CIFAR-10 (igul222/improved_wgan_training, gan_cifar.py), whose beta1 is
0.5 where the paper's algorithm has 0; but `width` is 64, which it recommends beside its own 128. Differs: DCGAN's
initial weights; counted in epochs, not in steps. Their MNIST code (gan_mnist.py) differs from this: batches of 50, no
batch-norm in the generator, images in [0, 1] from a sigmoid. `spectral_norm` is Miyato et al.'s, arXiv:1802.05957.
Versions before 3 moved each weight of the convolutional critic by another's gradient: after 6 epochs of 2,000 digits
at `width` 16 (seed 0) the Wasserstein estimate was 1.2, and is 28 since; and `mlp` generators ended in a hyperbolic
tangent, which WGAN's authors' have not.
"""

import typing as t

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from encoders import objectives, parameters
from encoders.base import ImageSet, ImageShape, Training
from encoders.batch_norm import finish
from encoders.networks import DCGANDiscriminator, MLPCritic, signed
from encoders.players import Adam, Player, Turn
from encoders.training import train
from encoders.wasserstein import _WassersteinGAN


class WGANGP(_WassersteinGAN):
    """A critic with a gradient penalty takes several steps for each of the generator; its layers are the taps."""

    version: t.ClassVar[int] = 3
    equal_versions: t.ClassVar = {"float32": ((2, 1),)}  # 2 moved what saturates in bfloat16
    source: t.ClassVar[str] = "Gulrajani et al. 2017, arXiv:1704.00028"

    latent: PositiveInt = 128
    """Dimensions of the Gaussian noise."""
    epochs: NonNegativeInt = 100
    """Passes of the critic over the training images; the authors take 200,000 steps of the generator."""
    learning_rate: parameters.LearningRate = 1e-4
    beta1: parameters.Beta1 = 0.5
    beta2: NonNegativeFloat = 0.9
    """Decay rate of Adam's mean squared gradient, below 1."""
    penalty: PositiveFloat = 10.0
    """Weight of the gradient penalty: the mean squared difference of the critic's slope from 1."""
    critic_steps: parameters.CriticSteps = 5

    def build(self, shape: ImageShape) -> MLPCritic | DCGANDiscriminator:
        return self._critic(shape, norm=False)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            critic = self.build(data.shape)
            generator = self.build_generator(data.shape)

        def sample(images: Tensor) -> Tensor:
            return generator(self.draw(len(images), images.device))

        def critic_step(images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                real, fake = signed(images), sample(images)
            estimate = objectives.wasserstein(critic.logits(real), critic.logits(fake))
            penalty = objectives.gradient_penalty(critic.logits, (real,), (fake,))
            return {"critic": self.penalty * penalty - estimate, "wasserstein_estimate": estimate}

        def generator_step(images: Tensor) -> dict[str, Tensor]:
            return {"generator": -critic.logits(sample(images)).float().mean()}

        judging = Adam(self.critic_learning_rate or self.learning_rate, self.beta1, self.beta2)
        players = [
            Player("critic", [critic], judging),
            Player("generator", [generator], Adam(self.learning_rate, self.beta1, self.beta2)),
        ]
        turns = [Turn(critic_step, lambda _: self.critic_steps, ("wasserstein_estimate",)), Turn(generator_step)]
        train(run, data, players, turns, self.epochs, self.batch_size)
        return finish(critic, generator, self.draw, data, run)
