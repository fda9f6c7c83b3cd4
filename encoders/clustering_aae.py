"""Clustering adversarial autoencoder: the code is one of a few categories and a style, and the category is a cluster.

Source: Makhzani et al. 2015, arXiv:1511.05644, section 6, with 16 and with 30 clusters. Differs: Adam in place of SGD
with momentum, 500 units a layer, 100 epochs, Gaussian noise instead of dropout on the pixels, and Gaussian noise where
the discriminators (after musyoku's implementation) and the decoder read; encoders/category_and_style.py says what else,
and what `consistency`, `smoothness` and `balance` add.
"""

import typing as t

from pydantic import NonNegativeFloat, PositiveInt
from torch import nn

from encoders import parameters
from encoders.base import ImageSet, Training
from encoders.batch_norm import finish
from encoders.category_and_style import _CategoryAndStyleAAE
from encoders.training import train


class ClusteringAAE(_CategoryAndStyleAAE):
    """Reconstruct from cluster and style, and match both to their priors adversarially: three turns a batch.

    The tap `cluster` has the probabilities of the clusters; the protocol `assignment` names and judges them.
    """

    version: t.ClassVar[int] = 2
    equal_versions: t.ClassVar = {"float32": ((2, 1),)}  # 2 moved what saturates in bfloat16
    source: t.ClassVar[str] = "Makhzani et al. 2015, arXiv:1511.05644, section 6"
    category_tap: t.ClassVar[str] = "cluster"

    clusters: PositiveInt = 16
    """Number of clusters."""
    latent: PositiveInt = 5
    """Dimensions of the style: few, so that the cluster has something left to say."""
    noise: parameters.PixelNoise = 0.5
    code_noise: NonNegativeFloat = 0.3
    """Standard deviation of the Gaussian noise on the cluster and the style that discriminators and decoder read."""
    consistency: NonNegativeFloat = 0.0
    """Weight of the KL divergence between the clusters of an image and of a jittered copy; 0: not used."""
    smoothness: NonNegativeFloat = 0.0
    """Weight of the KL divergence between the clusters of an image and of its worst neighbour; 0: not used."""
    balance: NonNegativeFloat = 0.0
    """Weight of the KL divergence between a batch's mean cluster and the uniform distribution; 0: not used."""

    @property
    def _categories(self) -> int:
        return self.clusters

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            taps = self.build(data.shape)
            decoder = self.build_generator(data.shape)
            players, turns = self._game(
                taps,
                decoder,
                pixel_noise=self.noise,
                judge_noise=self.code_noise,
                decoder_noise=self.code_noise,
                consistency=self.consistency,
                smoothness=self.smoothness,
                balance=self.balance,
            )
        train(run, data, players, turns, self.epochs, self.batch_size)
        return finish(taps, decoder, self.draw, data, run)
