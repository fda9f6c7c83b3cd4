"""GMM: a mixture of Gaussians fitted by expectation maximisation; where an image lies among them is its features.

It is a generative model as well: it gives samples, and the exact log-density of an image. With `pca` the directions
left out have one variance, as in probabilistic PCA (Tipping and Bishop 1999), so that densities are of the pixels;
samples are shown without this noise.

Source: Dempster, Laird and Rubin 1977, as scikit-learn's GaussianMixture does it, starting from k-means. Its defaults,
but for the number of components and the regularisation. On the first principal components by default: a full
covariance of 784 pixels, many of which never vary, is singular but for what `regularization` adds.
"""

import math
import typing as t
import warnings

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from encoders.base import EncoderError, Features, Generative, ImageSet, ImageShape, Training, derive_seed, frozen
from encoders.networks import unit


class GMM(Generative):
    """Each component's log-density at an image, and the probability that the image came from it."""

    source: t.ClassVar[str] = "Dempster et al. 1977; sklearn.mixture.GaussianMixture"

    components: PositiveInt = 10
    """Number of Gaussians."""
    covariance: t.Literal["full", "diagonal", "tied"] = "full"
    """Covariance of each component; tied: one full covariance for all."""
    pca: PositiveInt | None = 50
    """Principal components that are modelled; null: the pixels themselves."""
    iterations: PositiveInt = 100
    """Maximum number of iterations of expectation maximisation."""
    regularization: PositiveFloat = 1e-3
    """Added to every variance, of pixels in [0, 1]; keeps covariances invertible."""

    @property
    def taps(self) -> tuple[str, ...]:
        return ("log_densities", "responsibilities")

    def build(self, shape: ImageShape) -> "_Mixture":
        return _Mixture(math.prod(shape), self.pca, self.components, self.covariance)

    def build_generator(self, shape: ImageShape) -> "_Sampler":
        return _Sampler(shape, self.build(shape))

    def draw_for(self, shape: ImageShape, count: int, device: torch.device) -> Tensor:
        """What chooses a component, uniform on (0, 1), and a place in it, standard normal."""
        places = torch.randn(count, self.pca or math.prod(shape), device=device)
        return torch.cat([torch.rand(count, 1, device=device), places], dim=1)

    def pictures(self, made: Tensor) -> Tensor:
        return made.clamp(0, 1)

    @torch.no_grad()
    def log_likelihoods(
        self,
        module: nn.Module,  # noqa: ARG002
        generator: nn.Module,
        train: ImageSet,  # noqa: ARG002
        test: ImageSet,
    ) -> dict[str, Tensor]:
        assert isinstance(generator, _Sampler)
        device = generator.residual_variance.device
        rows = torch.split(torch.from_numpy(np.array(test.images)), 500)
        return {"log_likelihood": torch.cat([generator.log_density(some.to(device)).cpu() for some in rows])}

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
        generator = self.build_generator(data.shape)
        module = generator.mixture
        if self.pca is not None:
            chance = derive_seed(run.seed, "pca") % 2**32
            projection = ScikitPCA(self.pca, random_state=chance).fit(pixels)
            module.centre.copy_(torch.from_numpy(projection.mean_))
            module.directions.copy_(torch.from_numpy(projection.components_.T))
            total = np.square(pixels - projection.mean_).sum()
            pixels = projection.transform(pixels)
            left_out = (total - np.square(pixels).sum()) / len(data) / max(1, math.prod(data.shape) - self.pca)
            generator.residual_variance.fill_(max(0.0, left_out) + self.regularization)
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
        run.generator = frozen(generator).to(run.device)
        return module


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
        log_densities = self.log_densities(unit(images.flatten(1)).double())
        responsibilities = torch.softmax(log_densities + self.log_weights, dim=1)
        return {"log_densities": log_densities.float(), "responsibilities": responsibilities.float()}

    def log_densities(self, x: Tensor) -> Tensor:
        """Of each component (b, k), in nats."""
        if self.is_projected:
            x = (x - self.centre) @ self.directions
        residuals = x - self.means[:, None]  # (k, b, d)
        if self.is_diagonal:
            white, log_scales = residuals * self.whitening, self.whitening.log().sum(dim=(1, 2))
        else:
            white = residuals @ self.whitening
            log_scales = self.whitening.diagonal(dim1=1, dim2=2).log().sum(dim=1)
        normaliser = log_scales - x.shape[1] / 2 * math.log(2 * math.pi)  # (k,), or (1,) where covariances are tied
        return (normaliser[:, None] - white.square().sum(dim=2) / 2).T


class _Sampler(nn.Module):
    """Noise -> images, not held to [0, 1]; and the log-density of images."""

    residual_variance: Tensor

    def __init__(self, shape: ImageShape, mixture: _Mixture) -> None:
        super().__init__()
        self.shape, self.mixture = shape, mixture
        self.register_buffer("residual_variance", torch.ones((), dtype=torch.float64))  # of each direction left out

    def forward(self, noise: Tensor) -> Tensor:
        mixture, noise = self.mixture, noise.double()
        choose = mixture.log_weights.exp().cumsum(dim=0)
        component = torch.searchsorted(choose, noise[:, 0].contiguous()).clamp(max=len(choose) - 1)
        x = mixture.means[component]
        for one, whitening in enumerate(mixture.whitening.expand(len(choose), -1, -1)):
            rows = component == one
            at = noise[rows, 1:]
            if mixture.is_diagonal:
                x[rows] += at / whitening
            else:
                x[rows] += torch.linalg.solve_triangular(whitening, at, upper=True, left=False)
        if mixture.is_projected:
            x = x @ mixture.directions.T + mixture.centre
        return x.view(-1, *self.shape)

    def log_density(self, images: Tensor) -> Tensor:
        """Of uint8 images, as points in [0, 1]: (b,) nats."""
        mixture, x = self.mixture, unit(images.flatten(1)).double()
        inside = (mixture.log_densities(x) + mixture.log_weights).logsumexp(dim=1)
        if not mixture.is_projected:
            return inside
        x = x - mixture.centre
        squared = x.square().sum(dim=1) - (x @ mixture.directions).square().sum(dim=1)
        left_out = x.shape[1] - mixture.directions.shape[1]
        outside = squared / self.residual_variance + left_out * (2 * math.pi * self.residual_variance).log()
        return inside - outside / 2
