"""Autoencoder: BiGAN's encoder and generator, trained to give the pixels back.

Source: the AE (l1) and AE (l2) rows of Donahue et al. 2017, arXiv:1605.09782, table 1: "the same architecture and
optimization algorithm is used across all methods". Their code for these two rows was not released.
"""

import typing as t

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import networks, parameters
from encoders.base import Generative, ImageSet, ImageShape, Training
from encoders.batch_norm import encoded, finish
from encoders.networks import CodeTaps, Squash, unit
from encoders.players import Adam, Player, Turn, constant_then_decay
from encoders.training import train


class Autoencoder(Generative):
    """Image -> code -> the same image, by absolute (l1) or squared (l2) error of the pixels."""

    version: t.ClassVar[int] = 2
    equal_versions: t.ClassVar = {"float32": ((2, 1),)}  # 2 moved what saturates in bfloat16
    source: t.ClassVar[str] = "Donahue et al. 2017, arXiv:1605.09782, table 1"

    loss: t.Literal["l1", "l2"] = "l2"
    """Error of the pixels: absolute (l1) or squared (l2)."""
    body: parameters.Body = "mlp"
    latent: PositiveInt = 50
    """Dimensions of the code, in (-1, 1)."""
    hidden: parameters.Hidden = 1024
    epochs: parameters.Epochs = 400
    batch_size: parameters.BatchSize = 128
    learning_rate: parameters.DecayingLearningRate = 2e-4
    beta1: parameters.Beta1 = 0.5
    weight_decay: parameters.WeightDecay = 2.5e-5

    @property
    def taps(self) -> tuple[str, ...]:
        return (*networks.BIGAN_BODIES[self.body][0].taps, "code")

    def build(self, shape: ImageShape) -> CodeTaps:
        return CodeTaps(networks.BIGAN_BODIES[self.body][0](shape, self.latent, self.hidden), Squash())

    def build_generator(self, shape: ImageShape) -> nn.Module:
        return networks.BIGAN_BODIES[self.body][1](shape, self.latent, self.hidden)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            taps = self.build(data.shape)
            generator = self.build_generator(data.shape)
        error = F.l1_loss if self.loss == "l1" else F.mse_loss

        def reconstruct(images: Tensor) -> dict[str, Tensor]:
            x = unit(images)
            code = taps.squash(taps.body(x)[1])
            return {"autoencoder": error(generator(code).float(), x)}

        adam = Adam(self.learning_rate, self.beta1, weight_decay=self.weight_decay)
        players = [Player("autoencoder", [taps.body, generator], adam, constant_then_decay)]
        train(run, data, players, [Turn(reconstruct)], self.epochs, self.batch_size)
        return finish(taps, generator, encoded(taps, data), data, run)
