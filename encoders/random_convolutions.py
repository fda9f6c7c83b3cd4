"""Random convolutions: how strongly an image answers to random filters, and to their negatives, on average.

Source: Rolf et al. 2021, "A generalizable and accessible approach to machine learning with global satellite imagery"
(MOSAIKS): filters, a bias, ReLU, the mean over the image. Differs: Gaussian filters in place of patches of images, as
torchgeo's RCF has them, drawn by the seed of the run; number, size and bias are ours.
"""

import typing as t

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.base import Encoder, EncoderError, Features, ImageSet, ImageShape, Training, frozen
from encoders.networks import unit


class RandomConvolutions(Encoder):
    """Random filters, whatever the images: one layer, rectified, averaged over the image."""

    source: t.ClassVar[str] = "Rolf et al. 2021, Nature Communications 12:4392"
    is_control: t.ClassVar[bool] = True

    filters: PositiveInt = 256
    """Number of random filters; features are twice as many."""
    size: PositiveInt = 3
    """Pixels a side of a filter."""
    bias: float = -1.0
    """Added to what each filter answers."""

    @property
    def taps(self) -> tuple[str, ...]:
        return ("pooled",)

    def build(self, shape: ImageShape) -> nn.Module:
        if min(shape[1:]) < self.size:
            raise EncoderError(
                f"random_convolutions: filters of {self.size} pixels need images of at least as many a side; got "
                f"{shape[1]}x{shape[2]}: set size lower"
            )
        return _Filters(shape[0], self.filters, self.size, self.bias)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            module = self.build(data.shape)
        return frozen(module).to(run.device)


class _Filters(nn.Module):
    weights: Tensor

    def __init__(self, channels: int, filters: int, size: int, bias: float) -> None:
        super().__init__()
        self.bias = bias
        self.register_buffer("weights", torch.randn(filters, channels, size, size))

    def forward(self, images: Tensor) -> Features:
        answers = F.conv2d(unit(images), self.weights) + self.bias  # (b, filters, h, w)
        rectified = torch.cat([F.relu(answers), F.relu(-answers)], dim=1)
        return {"pooled": rectified.mean(dim=(2, 3))}  # (b, 2 * filters)
