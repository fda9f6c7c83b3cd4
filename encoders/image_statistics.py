"""Image statistics: how bright and how varied each channel is. What is left of an image without its shapes.

Source: the features that torchgeo-bench calls imagestats, and colour histograms (Swain and Ballard 1991). Differs:
the histograms are per channel, as shares of all pixels.
"""

import typing as t

import torch
from pydantic import Field
from torch import Tensor, nn

from encoders.base import Encoder, Features, ImageSet, ImageShape, Training, frozen
from encoders.networks import unit


class ImageStatistics(Encoder):
    """Mean, standard deviation and histogram of each channel; nothing is learned."""

    source: t.ClassVar[str] = "Swain and Ballard 1991, IJCV"
    is_control: t.ClassVar[bool] = True

    bins: int = Field(16, ge=1, le=256)
    """Number of equally wide bins of each channel's histogram."""

    @property
    def taps(self) -> tuple[str, ...]:
        return ("statistics",)

    def build(self, shape: ImageShape) -> nn.Module:  # noqa: ARG002 - any shape will do
        return _Statistics(self.bins)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        return frozen(self.build(data.shape)).to(run.device)


class _Statistics(nn.Module):
    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, images: Tensor) -> Features:
        variance, mean = torch.var_mean(unit(images.flatten(2)), dim=2, correction=0)  # (b, c)
        bins = images.flatten(2).int() * self.bins // 256
        shares = [(bins == one).float().mean(dim=2) for one in range(self.bins)]
        return {"statistics": torch.stack([mean, variance.sqrt(), *shares], dim=2).flatten(1)}  # (b, c * (2 + bins))
