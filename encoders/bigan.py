"""BiGAN: an encoder learned by fooling a judge of (image, code) pairs.

Source: Donahue, Krähenbühl, Darrell 2017, arXiv:1605.09782, and the authors' code for MNIST (jeffdonahue/bigan).
Differs: batch-norm is settled in one pass over the training images, not a thousand random batches. The `conv` body is
Deep InfoMax's encoder with BiGAN's conventions; the paper has none for 32x32 images. Neither are the objectives the
paper's: f-GAN's divergences play the same game with another loss, and under `wasserstein_gp` (Gulrajani et al. 2017)
several steps of a critic without batch-norm come before each one of encoder and generator.
"""

import typing as t

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from encoders import networks, objectives, parameters
from encoders.base import Generative, ImageSet, ImageShape, Training
from encoders.batch_norm import finish
from encoders.networks import CodeTaps, Squash, unit
from encoders.players import Adam, Player, Turn, constant_then_decay
from encoders.training import train

Pair = tuple[Tensor, Tensor]  # images (b, c, h, w) and codes (b, latent)
Pairs = t.Callable[[Tensor], tuple[Pair, Pair]]  # from bytes to the real pairs and the generated ones


class BiGAN(Generative):
    """Encoder and generator, trained together against a discriminator of (image, code) pairs."""

    version: t.ClassVar[int] = 2
    equal_versions: t.ClassVar = {"float32": ((2, 1),)}  # 2 moved what saturates in bfloat16
    source: t.ClassVar[str] = "Donahue et al. 2017, arXiv:1605.09782"

    body: parameters.Body = "mlp"
    latent: PositiveInt = 50
    """Dimensions of the code, uniform on (-1, 1)."""
    hidden: parameters.Hidden = 1024
    epochs: parameters.Epochs = 400
    batch_size: parameters.BatchSize = 128
    learning_rate: parameters.DecayingLearningRate = 2e-4
    discriminator_learning_rate: parameters.DiscriminatorLearningRate = None
    beta1: parameters.Beta1 = 0.5
    weight_decay: parameters.WeightDecay = 2.5e-5
    objective: t.Literal[objectives.Objective, "wasserstein_gp"] = "gan"
    """Divergence between the two kinds of pairs; wasserstein_gp is a Wasserstein distance with a gradient penalty."""
    generator_loss: parameters.GeneratorLoss = "non_saturating"
    pi: parameters.Pi = 0.5
    alpha: parameters.Alpha = 0.5
    discriminator_steps: PositiveInt = 1
    """Steps of the discriminator before each step of encoder and generator; 1 moves all at once, as the authors do."""
    critic_steps: PositiveInt = 5
    """Steps of the critic before each step of encoder and generator; only for wasserstein_gp."""
    penalty: PositiveFloat = 10.0
    """Weight of the gradient penalty on image and code together; only for wasserstein_gp."""

    @property
    def revision(self) -> int:
        """One more for the convolutional critic, whose weights were moved by each other's gradients before."""
        return self.version + (self.body == "conv" and self.objective == "wasserstein_gp")

    @property
    def taps(self) -> tuple[str, ...]:
        return (*networks.BIGAN_BODIES[self.body][0].taps, "code")

    def build(self, shape: ImageShape) -> CodeTaps:
        return CodeTaps(networks.BIGAN_BODIES[self.body][0](shape, self.latent, self.hidden), Squash())

    def build_generator(self, shape: ImageShape) -> nn.Module:
        return networks.BIGAN_BODIES[self.body][1](shape, self.latent, self.hidden)

    def draw(self, count: int, device: torch.device) -> Tensor:
        return torch.rand(count, self.latent, device=device) * 2 - 1

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        discriminator_body = networks.BIGAN_BODIES[self.body][2]
        with run.seeded("init"):
            taps = self.build(data.shape)
            generator = self.build_generator(data.shape)
            norm = self.objective != "wasserstein_gp"  # the penalty is on each pair's slope, which batch-norm mixes
            discriminator = discriminator_body(data.shape, self.latent, self.hidden, norm)

        def pairs(images: Tensor) -> tuple[Pair, Pair]:
            x = unit(images)
            z = self.draw(len(x), x.device)
            return (x, taps.squash(taps.body(x)[1])), (generator(z), z)

        fooling, judging = (
            Adam(rate, self.beta1, weight_decay=self.weight_decay)
            for rate in (self.learning_rate, self.discriminator_learning_rate or self.learning_rate)
        )
        players = [
            Player("discriminator", [discriminator], judging, constant_then_decay),
            Player("generator", [generator, taps.body], fooling, constant_then_decay),
        ]
        if self.objective == "wasserstein_gp":
            turns = self._wasserstein(discriminator, pairs)
        else:
            turns = self._divergence(self.objective, discriminator, pairs)
        train(run, data, players, turns, self.epochs, self.batch_size)
        return finish(taps, generator, self.draw, data, run)

    def _divergence(self, objective: objectives.Objective, discriminator: nn.Module, pairs: Pairs) -> list[Turn]:
        divergence = objectives.divergence(objective, self.pi, self.alpha)

        def play(images: Tensor) -> dict[str, Tensor]:
            real, fake = (discriminator(*pair) for pair in pairs(images))
            loss = divergence.discriminator_loss(real, fake)
            return {
                "discriminator": loss,
                "generator": divergence.pair_loss(real, fake, self.generator_loss),
                divergence.observed: divergence.estimate(loss),
            }

        def discriminator_step(images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                real, fake = pairs(images)
            loss = divergence.discriminator_loss(discriminator(*real), discriminator(*fake))
            return {"discriminator": loss, divergence.observed: divergence.estimate(loss)}

        def generator_step(images: Tensor) -> dict[str, Tensor]:
            real, fake = (discriminator(*pair) for pair in pairs(images))
            return {"generator": divergence.pair_loss(real, fake, self.generator_loss)}

        if self.discriminator_steps > 1:
            return [
                Turn(discriminator_step, lambda _: self.discriminator_steps, (divergence.observed,)),
                Turn(generator_step),
            ]
        return [Turn(play, observes=(divergence.observed,))]

    def _wasserstein(self, critic: nn.Module, pairs: Pairs) -> list[Turn]:
        def critic_step(images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                real, fake = pairs(images)
            estimate = objectives.wasserstein(critic(*real), critic(*fake))
            loss = self.penalty * objectives.gradient_penalty(critic, real, fake) - estimate
            return {"discriminator": loss, "wasserstein_estimate": estimate}

        def generator_step(images: Tensor) -> dict[str, Tensor]:
            real, fake = pairs(images)
            return {"generator": objectives.wasserstein(critic(*real), critic(*fake))}

        return [
            Turn(critic_step, times=lambda _: self.critic_steps, observes=("wasserstein_estimate",)),
            Turn(generator_step),
        ]
