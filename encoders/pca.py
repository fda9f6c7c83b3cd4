"""PCA: the directions of largest variance, the linear encoder that a learned one should beat."""

import typing as t

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from encoders.base import Encoder, EncoderError, Features, ImageSet, ImageShape, Training, derive_seed, frozen
from encoders.networks import unit


class PCA(Encoder):
    """Projection of the pixels on their first principal components (scikit-learn's PCA)."""

    source: t.ClassVar[str] = "Pearson 1901; sklearn.decomposition.PCA"
    is_control: t.ClassVar[bool] = True

    components: PositiveInt = 50
    """Number of principal components."""
    whiten: bool = False
    """Whether every component is scaled to unit variance."""

    @property
    def taps(self) -> tuple[str, ...]:
        return ("components",)

    def build(self, shape: ImageShape) -> nn.Module:
        return _Projection(shape[0] * shape[1] * shape[2], self.components)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        from sklearn.decomposition import PCA as ScikitPCA  # noqa: PLC0415 - a second that most runs need not wait

        pixels = unit(torch.from_numpy(data.images.reshape(len(data), -1).copy())).numpy()
        if self.components > min(pixels.shape):
            raise EncoderError(
                f"pca: components={self.components} exceeds {pixels.shape[0]} images of {pixels.shape[1]} pixels; "
                f"set components to {min(pixels.shape)} or fewer"
            )
        fitted = ScikitPCA(self.components, whiten=self.whiten, random_state=derive_seed(run.seed, "pca") % 2**32)
        fitted.fit(pixels)
        directions = torch.from_numpy(fitted.components_.T.copy())  # (d, components)
        if self.whiten:
            directions = directions / torch.from_numpy(fitted.explained_variance_).sqrt()
        module = self.build(data.shape)
        module.load_state_dict({"mean": torch.from_numpy(fitted.mean_), "directions": directions})
        return frozen(module).to(run.device)


class _Projection(nn.Module):
    mean: Tensor
    directions: Tensor

    def __init__(self, inputs: int, components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("directions", torch.zeros(inputs, components))

    def forward(self, images: Tensor) -> Features:
        return {"components": (unit(images.flatten(1)) - self.mean) @ self.directions}
