"""WGAN: a critic of clipped weights, which measures a distance where a discriminator would be sure.

Source: Arjovsky, Chintala, Bottou 2017, arXiv:1701.07875, with the settings and the critic's schedule of the authors'
code (martinarjovsky/WassersteinGAN), where the critic's turn ends with the epoch: with fewer than 100 batches an epoch
the first 25 epochs have one step of the generator each. Differs: the `conv` bodies are DCGAN's of 5x5 kernels, for
28x28 and 32x32 images where theirs are for 64x64, and their critic's last layer is dense; weights are clipped after
each step of the critic, where theirs are before the next. With `spectral_norm` (Miyato et al. 2018,
arXiv:1802.05957) the critic has no batch-norm, which would undo the bound on its slope.
"""

import functools
import typing as t

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from encoders import objectives
from encoders.base import Generative, ImageSet, ImageShape, Training
from encoders.networks import DCGANDiscriminator, DCGANGenerator, MLPCritic, MLPGenerator, signed, spectral_norm
from encoders.training import Player, Turn, settle, settle_generator, train


class WGAN(Generative):
    """Several steps of a critic with clipped weights for each of the generator; the critic's layers are the taps."""

    version: t.ClassVar[int] = 3
    equal_versions: t.ClassVar = {"float32": ((2, 1),)}  # 2 moved what saturates in bfloat16
    source: t.ClassVar[str] = "Arjovsky et al. 2017, arXiv:1701.07875"

    body: t.Literal["conv", "mlp"] = "conv"  # DCGAN's convolutions, or the authors' perceptrons
    latent: PositiveInt = 100  # dimensions of the Gaussian noise
    width: PositiveInt = 64  # of conv: channels of the first layer; doubled by each one after it
    layers: PositiveInt = 3  # of conv, at most; fewer where the images are small
    hidden: PositiveInt = 512  # of mlp: units of each of three layers
    spectral_norm: bool = False  # bounds the critic's slope in place of clipping
    epochs: NonNegativeInt = 25  # of the critic's images
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 5e-5  # of RMSprop
    critic_learning_rate: PositiveFloat | None = None  # null: learning_rate
    clip: PositiveFloat = 0.01  # the critic's weights stay within plus and minus this
    critic_steps: PositiveInt = 5  # for each step of the generator
    critic_steps_at_first: PositiveInt = 100  # instead, for its first 25 steps and every 500th

    @property
    def taps(self) -> tuple[str, ...]:
        return MLPCritic.taps if self.body == "mlp" else ("last", "all")

    def build(self, shape: ImageShape) -> MLPCritic | DCGANDiscriminator:
        if self.body == "mlp":
            critic: MLPCritic | DCGANDiscriminator = MLPCritic(shape, self.hidden)
        else:
            critic = DCGANDiscriminator(shape, self.width, self.layers, norm=not self.spectral_norm)
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

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            critic = self.build(data.shape)
            generator = self.build_generator(data.shape)

        def sample(images: Tensor) -> Tensor:
            return generator(self.draw(len(images), images.device))

        def criticise(images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                fake = sample(images)
            estimate = objectives.wasserstein(critic.logits(signed(images)), critic.logits(fake))
            return {"critic": -estimate, "wasserstein_estimate": estimate}  # clipped, up to an unknown factor

        def approach(images: Tensor) -> dict[str, Tensor]:
            return {"generator": -critic.logits(sample(images)).float().mean()}

        def steps(step: int) -> int:
            return self.critic_steps_at_first if step < 25 or step % 500 == 0 else self.critic_steps

        @torch.no_grad()
        def clip() -> None:
            for parameter in critic.parameters():
                parameter.clamp_(-self.clip, self.clip)

        rmsprop, rate = torch.optim.RMSprop, self.learning_rate
        judging = functools.partial(rmsprop, lr=self.critic_learning_rate or rate)
        players = [
            Player("critic", [critic], judging, after=None if self.spectral_norm else clip),
            Player("generator", [generator], functools.partial(rmsprop, lr=rate)),
        ]
        turns = [Turn(criticise, steps, ("wasserstein_estimate",), ends_with_epoch=True), Turn(approach)]
        if not self.spectral_norm:
            clip()
        train(run, data, players, turns, self.epochs, self.batch_size)
        run.generator = settle_generator(generator, self.draw, run)
        return settle(critic, data, run)
