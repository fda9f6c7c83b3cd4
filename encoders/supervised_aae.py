"""Supervised adversarial autoencoder: the decoder is told the label, so the code is left with the style.

Source: Makhzani et al. 2015, arXiv:1511.05644, section 4. Differs: Adam in place of SGD with momentum. Its code should
know the class as little as it can: a probe that reads classes from it measures what is left of them.
"""

import typing as t

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import networks, objectives, parameters
from encoders.adversarial_autoencoder import _AdversarialAutoencoder
from encoders.base import Features, ImageSet, ImageShape, Training
from encoders.batch_norm import finish
from encoders.networks import CodeDiscriminator, unit
from encoders.players import Turn
from encoders.priors import Categorical, Gaussian
from encoders.training import train


class SupervisedAAE(_AdversarialAutoencoder):
    """Reconstruct from code and label, and match the codes to the prior adversarially: three turns a batch."""

    version: t.ClassVar[int] = 2
    equal_versions: t.ClassVar = {"float32": ((2, 1),)}  # 2 moved what saturates in bfloat16
    source: t.ClassVar[str] = "Makhzani et al. 2015, arXiv:1511.05644"
    uses_labels: t.ClassVar[bool] = True

    classes: parameters.Classes = 10
    latent: PositiveInt = 10
    """Dimensions of the style."""
    prior_std: PositiveFloat = 1.0
    """Standard deviation of the Gaussian that the style should follow."""

    def build_generator(self, shape: ImageShape) -> networks.MLPDecoder:
        return networks.MLPDecoder(shape, self.latent + self.classes, self.hidden)

    def draw(self, count: int, device: torch.device) -> Tensor:
        style, label = self._prior.sample(count, device), Categorical(self.classes).sample(count, device)
        return torch.cat([style, label], dim=1)

    def codes(self, features: Features) -> None:
        """None: the decoder asks for the label as well."""

    @property
    def _prior(self) -> Gaussian:
        return Gaussian(self.latent, self.prior_std)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        data.check_classes(self.classes)
        with run.seeded("init"):
            taps = self.build(data.shape)
            decoder = self.build_generator(data.shape)
            discriminator = CodeDiscriminator(self.latent, self.hidden)

        def reconstruct(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            x = unit(images)
            code = torch.cat([taps.body(x)[1], F.one_hot(labels, self.classes)], dim=1)
            return {"autoencoder": F.mse_loss(decoder(code).float(), x)}

        def discriminator_step(images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                code = taps.body(unit(images))[1]
            real = self._prior.sample(len(code), code.device)
            return {"discriminator": objectives.cross_entropy(discriminator(real), discriminator(code))}

        def encoder_step(images: Tensor) -> dict[str, Tensor]:
            return {"encoder": objectives.non_saturating(discriminator(taps.body(unit(images))[1]))}

        players = self._players(taps, decoder, discriminator)
        turns = [Turn(reconstruct, reads_labels=True), Turn(discriminator_step), Turn(encoder_step)]
        train(run, data, players, turns, self.epochs, self.batch_size)
        return finish(taps, decoder, self.draw, data, run)
