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
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from encoders import objectives, parameters
from encoders.base import ImageSet, ImageShape, Training
from encoders.batch_norm import finish
from encoders.networks import DCGANDiscriminator, MLPCritic, signed
from encoders.players import Player, Turn
from encoders.training import train
from encoders.wasserstein import _WassersteinGAN


class WGAN(_WassersteinGAN):
    """A critic with clipped weights takes several steps for each of the generator; the critic's layers are the taps."""

    version: t.ClassVar[int] = 3
    equal_versions: t.ClassVar = {"float32": ((2, 1),)}  # 2 moved what saturates in bfloat16
    source: t.ClassVar[str] = "Arjovsky et al. 2017, arXiv:1701.07875"

    clip: PositiveFloat = 0.01
    """Bound of the critic's weights: they are clipped to plus and minus this."""
    critic_steps: parameters.CriticSteps = 5
    critic_steps_at_first: PositiveInt = 100
    """critic_steps for the generator's first 25 steps and every 500th."""

    def build(self, shape: ImageShape) -> MLPCritic | DCGANDiscriminator:
        return self._critic(shape, norm=not self.spectral_norm)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            critic = self.build(data.shape)
            generator = self.build_generator(data.shape)

        def sample(images: Tensor) -> Tensor:
            return generator(self.draw(len(images), images.device))

        def critic_step(images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                fake = sample(images)
            estimate = objectives.wasserstein(critic.logits(signed(images)), critic.logits(fake))
            return {"critic": -estimate, "wasserstein_estimate": estimate}  # clipped, up to an unknown factor

        def generator_step(images: Tensor) -> dict[str, Tensor]:
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
        turns = [Turn(critic_step, steps, ("wasserstein_estimate",), ends_with_epoch=True), Turn(generator_step)]
        if not self.spectral_norm:
            clip()
        train(run, data, players, turns, self.epochs, self.batch_size)
        return finish(critic, generator, self.draw, data, run)
