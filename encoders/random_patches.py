"""Random patches: which patches of the training images, taken as they come, each part of an image is near to.

Source: Thiry, Arbel, Belilovsky and Oyallon 2021, arXiv:2101.07528, and the authors' kneighbors.py for CIFAR-10, whose
defaults these are. Differs: sums over quadrants, as k-means', where they average windows of 5x5, 3 apart, and leave it
to a trained bottleneck to make them fewer; whitening learned from patches drawn at random, not from all; no random
crops and flips; an image's patches on one scale with those of the dictionary. In float64, as nearness is a yes or no.
"""

import math
import typing as t

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from encoders.base import Encoder, EncoderError, ImageSet, ImageShape, Training, derive_seed, frozen
from encoders.patches import PatchNetwork, draw

TIE = 1e-9  # added to the largest distance that is near: equal patches are near together, whatever rounding does


class RandomPatches(Encoder):
    """Which of some training patches (and their negatives) are near to each whitened patch; sums over quadrants."""

    source: t.ClassVar[str] = "Thiry et al. 2021, arXiv:2101.07528"
    is_control: t.ClassVar[bool] = True

    dictionary: PositiveInt = 2048
    """Number of patches to be near to; features are eight times as many."""
    fraction: float = Field(0.4, gt=0, lt=1)
    """Share of the dictionary that counts as near."""
    patch: PositiveInt = 6
    """Pixels a side of a patch."""
    stride: PositiveInt = 1
    """Pixels from patch to patch."""
    patches: PositiveInt = 400_000
    """Number of patches drawn at random to learn the whitening from; the first are the dictionary."""
    whitening: PositiveFloat = 1e-3
    """Added to the variance of each direction of patches, of pixels in 0..1."""

    @property
    def taps(self) -> tuple[str, ...]:
        return ("pooled",)

    def build(self, shape: ImageShape) -> "_Nearest":
        return _Nearest(shape, self.patch, self.stride, self.dictionary, math.ceil(self.fraction * self.dictionary))

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        if self.patches < self.dictionary:
            raise EncoderError(
                f"random_patches: dictionary={self.dictionary} exceeds patches={self.patches}; raise patches"
            )
        module = self.build(data.shape).to(run.device)
        chance = np.random.default_rng(derive_seed(run.seed, "patches"))
        drawn = torch.from_numpy(draw(data, self.patches, self.patch, chance)).to(run.device)
        module.dictionary.copy_(module.learn_whitening(module.normalised(drawn), self.whitening)[: self.dictionary])
        return frozen(module)


class _Nearest(PatchNetwork):
    dictionary: Tensor

    def __init__(self, shape: ImageShape, patch: int, stride: int, dictionary: int, near: int) -> None:
        super().__init__(shape, patch, stride)
        self.near = near
        self.register_buffer("dictionary", torch.zeros(dictionary, self.inputs))

    def normalised(self, patches: Tensor) -> Tensor:
        return patches.double() / 255

    def encode(self, white: Tensor) -> Tensor:
        """(n, d) -> zeros and ones (n, 2k): near to the patch itself, then to its negative."""
        dictionary = self.dictionary.to(white.dtype)
        products = white @ dictionary.T
        half = dictionary.square().sum(dim=1) / 2  # half of a squared distance, without what all have in common
        return torch.cat([self._nearest(half - products), self._nearest(half + products)], dim=1)

    def _nearest(self, distances: Tensor) -> Tensor:
        farthest = distances.topk(self.near, dim=1, largest=False, sorted=False).values.amax(dim=1, keepdim=True)
        return (distances <= farthest + TIE).float()
