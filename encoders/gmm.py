"""GMM: a mixture of Gaussians fitted by expectation maximisation; where an image lies among them is its features.

Source: Dempster, Laird and Rubin 1977, as scikit-learn's GaussianMixture does it, starting from k-means. Its defaults,
but for the number of components and the regularisation. On the first principal components by default: a full
covariance of 784 pixels, many of which never vary, is singular but for what `regularization` adds.
"""

import math
import typing as t
import warnings

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from encoders.base import Encoder, EncoderError, Features, ImageSet, ImageShape, Training, derive_seed, frozen
from encoders.networks import unit


class GMM(Encoder):
    """Each component's log-density at an image, and the probability that the image came from it."""

    source: t.ClassVar[str] = "Dempster et al. 1977; sklearn.mixture.GaussianMixture"

    components: PositiveInt = 10
    covariance: t.Literal["full", "diagonal", "tied"] = "full"  # tied: one full covariance for all components
    pca: PositiveInt | None = 50  # principal components that are modelled; null: the pixels themselves
    iterations: PositiveInt = 100  # at most
    regularization: PositiveFloat = 1e-3  # added to every variance, of pixels in [0, 1]

    @property
    def taps(self) -> tuple[str, ...]:
        return ("log_densities", "responsibilities")

    def build(self, shape: ImageShape) -> "_Mixture":
        return _Mixture(math.prod(shape), self.pca, self.components, self.covariance)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        from sklearn.decomposition import PCA as ScikitPCA  # noqa: PLC0415 - a second that most runs need not wait
        from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415
        from sklearn.mixture import GaussianMixture  # noqa: PLC0415

        pixels = unit(torch.from_numpy(data.images.reshape(len(data), -1).copy())).double().numpy()
        least = max(self.components, self.pca or 1)
        if len(data) < least or pixels.shape[1] < (self.pca or 1):
            raise EncoderError(
                f"gmm: {self.components} Gaussians of {self.pca or pixels.shape[1]} dimensions asked of {len(data)} "
                f"images of {pixels.shape[1]} pixels; set components or pca lower"
            )
        module = self.build(data.shape)
        if self.pca is not None:
            chance = derive_seed(run.seed, "pca") % 2**32
            projection = ScikitPCA(self.pca, random_state=chance).fit(pixels)
            module.centre.copy_(torch.from_numpy(projection.mean_))
            module.directions.copy_(torch.from_numpy(projection.components_.T))
            pixels = projection.transform(pixels)
        mixture = GaussianMixture(
            self.components,
            covariance_type={"full": "full", "diagonal": "diag", "tied": "tied"}[self.covariance],
            reg_covar=self.regularization,
            max_iter=self.iterations,
            random_state=derive_seed(run.seed, "gmm") % 2**32,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # `iterations` were asked for, and are done
            mixture.fit(pixels)
        module.log_weights.copy_(torch.from_numpy(mixture.weights_).log())
        module.means.copy_(torch.from_numpy(mixture.means_))
        module.whitening.copy_(torch.from_numpy(mixture.precisions_cholesky_).view_as(module.whitening))
        return frozen(module).to(run.device)


class _Mixture(nn.Module):
    """In float64: a log-density of hundreds of nats has to be right to a fraction of one."""

    centre: Tensor
    directions: Tensor
    log_weights: Tensor
    means: Tensor
    whitening: Tensor

    def __init__(self, pixels: int, pca: int | None, components: int, covariance: str) -> None:
        super().__init__()
        inputs = pca or pixels
        whitening = {
            "full": (components, inputs, inputs), "tied": (1, inputs, inputs), "diagonal": (components, 1, inputs)
        }[covariance]  # fmt: skip
        self.is_projected, self.is_diagonal = pca is not None, covariance == "diagonal"
        if self.is_projected:
            self.register_buffer("centre", torch.zeros(pixels, dtype=torch.float64))
            self.register_buffer("directions", torch.zeros(pixels, inputs, dtype=torch.float64))
        self.register_buffer("log_weights", torch.zeros(components, dtype=torch.float64))
        self.register_buffer("means", torch.zeros(components, inputs, dtype=torch.float64))
        self.register_buffer("whitening", torch.ones(whitening, dtype=torch.float64))

    def forward(self, images: Tensor) -> Features:
        x = unit(images.flatten(1)).double()
        if self.is_projected:
            x = (x - self.centre) @ self.directions
        residuals = x - self.means[:, None]  # (k, b, d)
        if self.is_diagonal:
            white, log_scales = residuals * self.whitening, self.whitening.log().sum(dim=(1, 2))
        else:
            white = residuals @ self.whitening
            log_scales = self.whitening.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        normaliser = log_scales - x.shape[1] / 2 * math.log(2 * math.pi)  # (k,), or (1,) where covariances are tied
        log_densities = (normaliser[:, None] - white.square().sum(dim=2) / 2).T  # (b, k), in nats
        responsibilities = torch.softmax(log_densities + self.log_weights, dim=1)
        return {"log_densities": log_densities.float(), "responsibilities": responsibilities.float()}
