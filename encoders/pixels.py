"""Pixels: the image itself, scaled to [0, 1]. What any learned feature has to beat."""

import typing as t

from torch import Tensor, nn

from encoders.base import Encoder, Features, ImageSet, ImageShape, Training, frozen


class Pixels(Encoder):
    """Every pixel is a feature; nothing is learned."""

    source: t.ClassVar[str] = "the raw data"
    is_control: t.ClassVar[bool] = True

    @property
    def taps(self) -> tuple[str, ...]:
        return ("pixels",)

    def build(self, shape: ImageShape) -> nn.Module:  # noqa: ARG002 - any shape will do
        return _Flatten()

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        return frozen(self.build(data.shape)).to(run.device)


class _Flatten(nn.Module):
    def forward(self, images: Tensor) -> Features:
        return {"pixels": images.flatten(1).float() / 255}  # (b, c*h*w)
