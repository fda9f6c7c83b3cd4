"""What encoders of patches share: random patches, their whitening, and pooling over quadrants.

Source: Coates, Lee and Ng 2011, "An analysis of single-layer networks in unsupervised feature learning".
"""

import abc
import math
import typing as t

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.base import EncoderError, Features, ImageSet, ImageShape

BLOCK = 8192  # patches that are encoded at once


def draw(data: ImageSet, count: int, side: int, chance: np.random.Generator) -> np.ndarray[t.Any, np.dtype[np.uint8]]:
    """Random patches (count, d) of random images."""
    channels, height, width = data.shape
    patches = np.empty((count, channels, side, side), np.uint8)
    images = chance.integers(len(data), size=count)
    rows = chance.integers(height - side + 1, size=count)
    columns = chance.integers(width - side + 1, size=count)
    for place in range(side):  # a row of every patch at a time
        for across in range(side):
            patches[:, :, place, across] = data.images[images, :, rows + place, columns + across]
    return patches.reshape(count, -1)


class PatchNetwork(nn.Module, abc.ABC):
    """Whitens every patch of an image, encodes it, and sums the codes over each quadrant: tap `pooled`."""

    mean: Tensor
    whitening: Tensor

    def __init__(self, shape: ImageShape, patch: int, stride: int) -> None:
        super().__init__()
        if min(shape[1:]) < patch + stride:
            raise EncoderError(
                f"quadrants of patches of {patch} pixels, {stride} apart, need images of at least "
                f"{patch + stride} pixels a side; got {shape[1]}x{shape[2]}: set patch or stride lower"
            )
        self.patch, self.stride = patch, stride
        self.inputs = shape[0] * patch**2
        self.register_buffer("mean", torch.zeros(self.inputs))
        self.register_buffer("whitening", torch.zeros(self.inputs, self.inputs))

    @abc.abstractmethod
    def normalised(self, patches: Tensor) -> Tensor:
        """Bytes (n, d) -> what is whitened."""

    @abc.abstractmethod
    def encode(self, white: Tensor) -> Tensor:
        """Whitened patches (n, d) -> codes (n, k)."""

    def learn_whitening(self, patches: Tensor, added: float) -> Tensor:
        """ZCA of normalised patches (n, d), with so much added to the variance of each direction; they, whitened."""
        mean = patches.mean(dim=0)
        variances, directions = torch.linalg.eigh(torch.cov(patches.T).double())
        self.mean.copy_(mean)
        self.whitening.copy_(directions * (variances + added).rsqrt() @ directions.T)
        return self.white(patches)

    def white(self, normalised: Tensor) -> Tensor:
        return (normalised - self.mean) @ self.whitening.to(normalised.dtype)

    def forward(self, images: Tensor) -> Features:
        height, width = ((size - self.patch) // self.stride + 1 for size in images.shape[2:])
        if torch.compiler.is_exporting():  # a program for any number of images cannot count how often it takes a few
            return {"pooled": self._pooled(images, height, width)}
        few = math.ceil(BLOCK / (height * width))  # images at once: the codes of all their patches fill memory
        return {"pooled": torch.cat([self._pooled(some, height, width) for some in torch.split(images, few)])}

    def _pooled(self, images: Tensor, height: int, width: int) -> Tensor:
        patches = F.unfold(images.float(), self.patch, stride=self.stride).transpose(1, 2).flatten(0, 1)
        codes = self.encode(self.white(self.normalised(patches)))
        maps = codes.view(-1, height, width, codes.shape[1])
        halves = maps.tensor_split([math.ceil(height / 2)], dim=1)
        quadrants = [part for half in halves for part in half.tensor_split([math.ceil(width / 2)], dim=2)]
        return torch.cat([quadrant.sum(dim=(1, 2)) for quadrant in quadrants], dim=1)  # (b, 4k)
