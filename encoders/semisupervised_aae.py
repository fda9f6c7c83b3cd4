"""Semi-supervised adversarial autoencoder: the code is a class and a style, and a few labels say which class is which.

Source: Makhzani et al. 2015, arXiv:1511.05644, section 5. Differs: Adam in place of SGD with momentum, 500 units a
layer, 100 epochs, and Gaussian noise where the discriminators read, after musyoku's implementation;
encoders/category_and_style.py says what else, and what `consistency` adds. The labelled images are counted among the
unlabelled ones too.
"""

import typing as t

import numpy as np
import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import parameters
from encoders.base import ImageSet, Training
from encoders.batch_norm import finish
from encoders.category_and_style import _CategoryAndStyleAAE, blurred
from encoders.networks import unit
from encoders.players import Adam, Player, Turn, constant_then_decay
from encoders.training import train


class SemiSupervisedAAE(_CategoryAndStyleAAE):
    """Reconstruct from class and style, match both to their priors, and classify the few labelled images.

    The tap `label` has the probabilities of the classes; the protocol `argmax` reads its answer from them.
    """

    version: t.ClassVar[int] = 2
    equal_versions: t.ClassVar = {"float32": ((2, 1),)}  # 2 moved what saturates in bfloat16
    source: t.ClassVar[str] = "Makhzani et al. 2015, arXiv:1511.05644, section 5"
    uses_labels: t.ClassVar[bool] = True
    category_tap: t.ClassVar[str] = "label"

    labels: parameters.Labels = 100
    classes: parameters.Classes = 10
    latent: PositiveInt = 10
    """Dimensions of the style."""
    noise: NonNegativeFloat = 0.3
    """Standard deviation of the Gaussian noise on pixels in [0, 1] and on what the discriminators read."""
    consistency: NonNegativeFloat = 0.0
    """Weight of the KL divergence between the classes of an image and of a jittered copy; 0: not used."""

    @property
    def label_budget(self) -> int | None:
        return self.labels

    @property
    def _categories(self) -> int:
        return self.classes

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        data.check_classes(self.classes)
        assert data.labels is not None
        rows = np.flatnonzero(data.labels >= 0)
        images, labels = torch.from_numpy(data.images[rows]), torch.from_numpy(data.labels[rows])
        images, labels = images.to(run.device), labels.to(run.device)
        optimizer = Adam(self.learning_rate, self.beta1)
        with run.seeded("init"):
            taps = self.build(data.shape)
            decoder = self.build_generator(data.shape)
            players, turns = self._game(
                taps,
                decoder,
                pixel_noise=self.noise,
                judge_noise=self.noise,
                decoder_noise=0,
                consistency=self.consistency,
                smoothness=0,
                balance=0,
            )

        def classify(unlabelled: Tensor) -> dict[str, Tensor]:
            drawn = torch.randint(len(labels), (len(unlabelled),), device=labels.device)
            logits, _ = taps.heads(blurred(unit(images[drawn]), self.noise))
            return {"classifier": F.cross_entropy(logits.float(), labels[drawn])}

        players.append(Player("classifier", [taps.body, taps.category], optimizer, constant_then_decay))
        train(run, data, players, [*turns, Turn(classify)], self.epochs, self.batch_size)
        return finish(taps, decoder, self.draw, data, run)
