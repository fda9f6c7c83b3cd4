"""k-means: how much nearer than usual each part of an image is to each of many typical patches.

Source: Coates, Lee and Ng 2011, "An analysis of single-layer networks in unsupervised feature learning", and the
authors' demonstration for CIFAR-10, which the defaults follow. Differs: centroids start as patches, not as noise.
"""

import math
import time
import typing as t

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.base import Encoder, EncoderError, Features, ImageSet, ImageShape, Training, derive_seed, frozen

BLOCK = 8192  # patches that are compared with all centroids at once


class KMeans(Encoder):
    """Patches, evened out in brightness and contrast and whitened; distances to centroids; sums over quadrants."""

    source: t.ClassVar[str] = "Coates et al. 2011, AISTATS"

    centroids: PositiveInt = 1600
    """Number of centroids; there are four times as many features."""
    patch: PositiveInt = 6
    """Side of a patch in pixels."""
    stride: PositiveInt = 1
    """Pixels between neighbouring patches of an image."""
    patches: PositiveInt = 400_000
    """Random patches to learn the centroids from."""
    iterations: PositiveInt = 50
    """Iterations of Lloyd's algorithm."""
    contrast: PositiveFloat = 10.0
    """Added to the variance of each patch, of pixels in 0..255, before it is normalised."""
    whitening: PositiveFloat = 0.1
    """Added to the variance of each direction of patches before they are whitened."""

    @property
    def taps(self) -> tuple[str, ...]:
        return ("pooled",)

    def build(self, shape: ImageShape) -> "_Triangle":
        if min(shape[1:]) < self.patch + self.stride:
            raise EncoderError(
                f"kmeans: quadrants of patches of {self.patch} pixels, {self.stride} apart, need images of at least "
                f"{self.patch + self.stride} pixels a side; got {shape[1]}x{shape[2]}: set patch or stride lower"
            )
        return _Triangle(shape[0], self.patch, self.stride, self.centroids, self.contrast)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        if self.patches < self.centroids:
            raise EncoderError(
                f"kmeans: {self.centroids} centroids asked of {self.patches} patches; set patches higher"
            )
        module = self.build(data.shape).to(run.device)
        chance = np.random.default_rng(derive_seed(run.seed, "patches"))
        patches = module.normalised(torch.from_numpy(self._draw(data, chance)).to(run.device))
        mean = patches.mean(dim=0)
        variances, directions = torch.linalg.eigh(torch.cov(patches.T).double())
        whitening = directions * (variances + self.whitening).rsqrt() @ directions.T
        module.mean.copy_(mean)
        module.whitening.copy_(whitening)
        patches = (patches - mean) @ module.whitening
        module.centroids.copy_(self._cluster(patches, run))
        return frozen(module)

    def _draw(self, data: ImageSet, chance: np.random.Generator) -> np.ndarray[t.Any, np.dtype[np.uint8]]:
        """Random patches (n, d) of random images."""
        channels, height, width = data.shape
        patches = np.empty((self.patches, channels, self.patch, self.patch), np.uint8)
        images = chance.integers(len(data), size=self.patches)
        rows = chance.integers(height - self.patch + 1, size=self.patches)
        columns = chance.integers(width - self.patch + 1, size=self.patches)
        for place in range(self.patch):  # a row of every patch at a time
            for across in range(self.patch):
                patches[:, :, place, across] = data.images[images, :, rows + place, columns + across]
        return patches.reshape(self.patches, -1)

    def _cluster(self, patches: Tensor, run: Training) -> Tensor:
        """Lloyd's algorithm. A centroid that no patch is nearest to becomes zero, the mean patch, as in the source."""
        centroids = patches[: self.centroids].clone()  # they lie in random order
        for iteration in range(self.iterations):
            started = time.perf_counter()
            sums, counts = torch.zeros_like(centroids), patches.new_zeros(len(centroids), 1)
            distortion = patches.new_zeros(())
            for block in torch.split(patches, BLOCK):
                squared, nearest = _squared_distances(block, centroids).min(dim=1)
                belongs = F.one_hot(nearest, len(centroids)).to(block)  # (b, k)
                sums += belongs.T @ block  # not index_add, whose order of summation is free on a GPU
                counts += belongs.sum(dim=0)[:, None]
                distortion += squared.sum()
            centroids = sums / counts.clamp(min=1)
            row = {"epoch": iteration + 1, "seconds": time.perf_counter() - started}
            run.history.append(row | {"distortion": float(distortion) / len(patches)})
        return centroids


class _Triangle(nn.Module):
    mean: Tensor
    whitening: Tensor
    centroids: Tensor

    def __init__(self, channels: int, patch: int, stride: int, centroids: int, contrast: float) -> None:
        super().__init__()
        self.patch, self.stride, self.contrast = patch, stride, contrast
        inputs = channels * patch**2
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("whitening", torch.zeros(inputs, inputs))
        self.register_buffer("centroids", torch.zeros(centroids, inputs))

    def normalised(self, patches: Tensor) -> Tensor:
        """Bytes (n, d) -> patches of mean 0 and about unit variance."""
        x = patches.float()
        variance, mean = torch.var_mean(x, dim=1, keepdim=True)
        return (x - mean) / (variance + self.contrast).sqrt()

    def forward(self, images: Tensor) -> Features:
        height, width = ((size - self.patch) // self.stride + 1 for size in images.shape[2:])
        if torch.compiler.is_exporting():  # a program for any number of images cannot count how often it takes a few
            return {"pooled": self._pooled(images, height, width)}
        few = math.ceil(BLOCK / (height * width))  # images at once: their distances to all centroids fill memory
        return {"pooled": torch.cat([self._pooled(some, height, width) for some in torch.split(images, few)])}

    def _pooled(self, images: Tensor, height: int, width: int) -> Tensor:
        patches = F.unfold(images.float(), self.patch, stride=self.stride).transpose(1, 2).flatten(0, 1)
        white = (self.normalised(patches) - self.mean) @ self.whitening
        distances = _squared_distances(white, self.centroids).sqrt()
        activations = F.relu(distances.mean(dim=1, keepdim=True) - distances)
        maps = activations.view(-1, height, width, len(self.centroids))
        halves = maps.tensor_split([math.ceil(height / 2)], dim=1)
        quadrants = [part for half in halves for part in half.tensor_split([math.ceil(width / 2)], dim=2)]
        return torch.cat([quadrant.sum(dim=(1, 2)) for quadrant in quadrants], dim=1)  # (b, 4k)


def _squared_distances(points: Tensor, centroids: Tensor) -> Tensor:
    """(n, d), (k, d) -> (n, k)."""
    products = points @ centroids.T
    lengths = points.square().sum(dim=1, keepdim=True), centroids.square().sum(dim=1)
    return (lengths[0] - 2 * products + lengths[1]).clamp(min=0)
