"""Label-informed adversarial autoencoder: each class is pushed onto a component of the prior of its own.

Source: Makhzani et al. 2015, arXiv:1511.05644, section 2.3: the discriminator is told the class, or that it is unknown.
Differs: Adam in place of SGD with momentum.
"""

import typing as t

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import networks, objectives, parameters
from encoders.adversarial_autoencoder import _AdversarialAutoencoder
from encoders.base import ImageSet, ImageShape, Training
from encoders.batch_norm import finish
from encoders.networks import CodeDiscriminator, unit
from encoders.players import Turn
from encoders.priors import MixtureOfGaussians, SwissRoll
from encoders.training import train


class LabelInformedAAE(_AdversarialAutoencoder):
    """Reconstruct, and match the codes of each class to its own component of the prior: three turns a batch.

    The code of an image of class k should lie in component k: a petal of the mixture, or a tenth of the Swiss roll. An
    image without a label should lie anywhere in the prior, which the discriminator is told as one more class.
    """

    version: t.ClassVar[int] = 2
    equal_versions: t.ClassVar = {"float32": ((2, 1),)}  # 2 moved what saturates in bfloat16
    source: t.ClassVar[str] = "Makhzani et al. 2015, arXiv:1511.05644"
    uses_labels: t.ClassVar[bool] = True

    labels: parameters.Labels = 1000
    prior: t.Literal["mixture", "swiss_roll"] = "mixture"
    """Distribution that the codes should follow, with a component per class."""
    classes: parameters.Classes = 10
    latent: int = Field(2, ge=2, multiple_of=2)
    """Dimensions of the code, even: the two-dimensional prior is repeated in each pair."""

    @property
    def label_budget(self) -> int | None:
        return self.labels

    def build_generator(self, shape: ImageShape) -> networks.MLPDecoder:
        return networks.MLPDecoder(shape, self.latent, self.hidden)

    def draw(self, count: int, device: torch.device) -> Tensor:
        return self._prior.sample(count, device)

    @property
    def _prior(self) -> MixtureOfGaussians | SwissRoll:
        return (MixtureOfGaussians if self.prior == "mixture" else SwissRoll)(self.latent, self.classes)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        data.check_classes(self.classes)
        with run.seeded("init"):
            taps = self.build(data.shape)
            decoder = self.build_generator(data.shape)
            discriminator = CodeDiscriminator(self.latent + self.classes + 1, self.hidden)

        def logits(code: Tensor, labels: Tensor) -> Tensor:
            known = torch.where(labels < 0, self.classes, labels)  # the last place says that the class is unknown
            return discriminator(torch.cat([code, F.one_hot(known, self.classes + 1)], dim=1))

        def reconstruct(images: Tensor) -> dict[str, Tensor]:
            x = unit(images)
            return {"autoencoder": F.mse_loss(decoder(taps.body(x)[1]).float(), x)}

        def discriminator_step(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                code = taps.body(unit(images))[1]
            anywhere, placed = (
                self._prior.sample(len(labels), labels.device),
                self._prior.sample_of(labels.clamp(min=0)),
            )
            real = torch.where(labels[:, None] < 0, anywhere, placed)
            return {"discriminator": objectives.cross_entropy(logits(real, labels), logits(code, labels))}

        def encoder_step(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return {"encoder": objectives.non_saturating(logits(taps.body(unit(images))[1], labels))}

        players = self._players(taps, decoder, discriminator)
        turns = [Turn(reconstruct), Turn(discriminator_step, reads_labels=True), Turn(encoder_step, reads_labels=True)]
        train(run, data, players, turns, self.epochs, self.batch_size)
        return finish(taps, decoder, self.draw, data, run)
