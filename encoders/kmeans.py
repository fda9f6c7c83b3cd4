"""k-means: how much nearer than usual each part of an image is to each of many typical patches.

Source: Coates, Lee and Ng 2011, "An analysis of single-layer networks in unsupervised feature learning", and the
authors' demonstration for CIFAR-10, which the defaults follow. Differs: centroids start as patches, not as noise.
"""

import time
import typing as t

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.base import Encoder, EncoderError, ImageSet, ImageShape, Training, derive_seed, frozen
from encoders.patches import BLOCK, PatchNetwork, draw


class KMeans(Encoder):
    """Distances of normalised, whitened patches to the centroids of k-means, summed over quadrants."""

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
        return _Triangle(shape, self.patch, self.stride, self.centroids, self.contrast)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        if self.patches < self.centroids:
            raise EncoderError(f"kmeans: centroids={self.centroids} exceeds patches={self.patches}; raise patches")
        module = self.build(data.shape).to(run.device)
        chance = np.random.default_rng(derive_seed(run.seed, "patches"))
        drawn = torch.from_numpy(draw(data, self.patches, self.patch, chance)).to(run.device)
        patches = module.learn_whitening(module.normalised(drawn), self.whitening)
        module.centroids.copy_(self._cluster(patches, run))
        return frozen(module)

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


class _Triangle(PatchNetwork):
    centroids: Tensor

    def __init__(self, shape: ImageShape, patch: int, stride: int, centroids: int, contrast: float) -> None:
        super().__init__(shape, patch, stride)
        self.contrast = contrast
        self.register_buffer("centroids", torch.zeros(centroids, self.inputs))

    def normalised(self, patches: Tensor) -> Tensor:
        """Bytes (n, d) -> patches of mean 0 and about unit variance."""
        x = patches.float()
        variance, mean = torch.var_mean(x, dim=1, keepdim=True)
        return (x - mean) / (variance + self.contrast).sqrt()

    def encode(self, white: Tensor) -> Tensor:
        """How much nearer than the mean distance each centroid is."""
        distances = _squared_distances(white, self.centroids).sqrt()
        return F.relu(distances.mean(dim=1, keepdim=True) - distances)


def _squared_distances(points: Tensor, centroids: Tensor) -> Tensor:
    """(n, d), (k, d) -> (n, k)."""
    products = points @ centroids.T
    lengths = points.square().sum(dim=1, keepdim=True), centroids.square().sum(dim=1)
    return (lengths[0] - 2 * products + lengths[1]).clamp(min=0)
