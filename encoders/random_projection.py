"""Random projection: as many Gaussian directions as one likes, chosen without a look at the images.

Source: Johnson and Lindenstrauss 1984; Gaussian entries of variance 1/components, as scikit-learn's
GaussianRandomProjection has them. Differs: drawn by torch, so that a seed gives the same matrix on every machine.
"""

import math
import typing as t

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from encoders.base import Encoder, Features, ImageSet, ImageShape, Training, frozen
from encoders.networks import unit


class RandomProjection(Encoder):
    """Pixels projected onto random directions, which keep squared distances in expectation."""

    source: t.ClassVar[str] = "Johnson and Lindenstrauss 1984"
    is_control: t.ClassVar[bool] = True

    components: PositiveInt = 50
    """Number of random directions; the default is that of pca."""

    @property
    def taps(self) -> tuple[str, ...]:
        return ("projection",)

    def build(self, shape: ImageShape) -> nn.Module:
        return _Projection(math.prod(shape), self.components)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            module = self.build(data.shape)
        return frozen(module).to(run.device)


class _Projection(nn.Module):
    directions: Tensor

    def __init__(self, inputs: int, components: int) -> None:
        super().__init__()
        self.register_buffer("directions", torch.randn(inputs, components) / math.sqrt(components))

    def forward(self, images: Tensor) -> Features:
        return {"projection": unit(images.flatten(1)) @ self.directions}  # (b, components)
