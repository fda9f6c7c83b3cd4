"""How good samples and reconstructions are, as the papers of generative models measured it.

Pure functions: rows in, numbers out. Images are floats (n, ...) in [0, 1], compared pixel by pixel.
"""

import math
import typing as t
from dataclasses import dataclass

import torch
from torch import Tensor

SIGMAS = tuple(10 ** (-1 + place / 9) for place in range(10))  # 0.1 to 1: the grid of the GAN authors' script
BLOCK = 1000  # images that are compared with all samples at once


@dataclass(frozen=True)
class Reconstruction:
    error: float  # mean squared difference of a pixel, from 0, lower is better
    ratio: float  # to that of another image's reconstruction: 0 is perfect, 1 says that the code tells nothing


def reconstruction(images: Tensor, reconstructions: Tensor) -> Reconstruction:
    """How far images (n, ...) are from their reconstructions, and beside how far they are from those of other images.

    Each image is paired with the reconstruction of the one behind it, which is random if the order of the images is.
    Source: the log of the code of Donahue et al. 2017, arXiv:1605.09782. The ratio is infinite where all
    reconstructions are perfect and all images the same.
    """
    error = float((images - reconstructions).double().square().mean())
    other = float((images - reconstructions.roll(1, dims=0)).double().square().mean())
    return Reconstruction(error, error / other if other else math.inf)


@dataclass(frozen=True)
class Parzen:
    mean: float  # nats an image, higher is better
    standard_error: float  # over the test images; says nothing of other samples
    sigma: float


def parzen(samples: Tensor, validation: Tensor, test: Tensor, sigmas: t.Sequence[float] = SIGMAS) -> Parzen:
    """The log-density of test images under a Gaussian of width sigma about each sample, sigma the best for validation.

    Source: Breuleux et al. 2011; with 10,000 samples and the test images of MNIST it is what Goodfellow et al. 2014 and
    Makhzani et al. 2015 report. A poor estimate in so many dimensions, and good only to compare with theirs: the
    training images themselves score below many models (Theis et al. 2016, arXiv:1511.01844).
    """
    means = [float(log_densities(validation, samples, sigma).mean()) for sigma in sigmas]
    sigma = sigmas[means.index(max(means))]
    values = log_densities(test, samples, sigma)
    return Parzen(float(values.mean()), float(values.std()) / math.sqrt(len(values)), sigma)


def log_densities(images: Tensor, samples: Tensor, sigma: float) -> Tensor:
    """Of images (n, ...) under a mixture of Gaussians of width sigma about samples (m, ...): (n,) nats, float64."""
    centres = samples.flatten(1).double()
    normaliser = math.log(len(centres)) + centres.shape[1] / 2 * math.log(2 * math.pi * sigma**2)
    rows = []
    for block in torch.split(images.flatten(1).double(), BLOCK):
        squared = torch.cdist(block, centres).square()  # (b, m)
        rows.append(torch.logsumexp(-squared / (2 * sigma**2), dim=1) - normaliser)
    return torch.cat(rows)


def classifier_frechet_distance(one: Tensor, other: Tensor) -> float:
    """The squared Frechet distance between Gaussians fitted to two sets of features, (n, d) and (m, d): 0 is best.

    The features are those of a small classifier trained on the same dataset, so its values compare with each other
    only, and not with the Frechet inception distance, whose formula it is (Heusel et al. 2017, arXiv:1706.08500). It
    falls with the number of rows: compare sets of the same size, of more rows than dimensions.
    """
    means = [rows.double().mean(dim=0) for rows in (one, other)]
    first, second = (torch.cov(rows.double().T).view(2 * rows.shape[1:]) for rows in (one, other))
    variances, directions = torch.linalg.eigh(first)
    root = directions * variances.clamp(min=0).sqrt() @ directions.T
    shared = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0).sqrt().sum()  # tr sqrt(first @ second)
    return float((means[0] - means[1]).square().sum() + first.trace() + second.trace() - 2 * shared)


@dataclass(frozen=True)
class Coverage:
    covered: int  # classes with at least one sample
    divergence: float  # KL(share of each class || uniform), 0 to ln(classes) nats, lower is better


def mode_coverage(predicted: Tensor, classes: int) -> Coverage:
    """How samples spread over the classes, which a classifier trained on the real images gave them: (n,) int64."""
    shares = torch.bincount(predicted, minlength=classes).double() / len(predicted)
    entropy = torch.special.entr(shares).sum()
    return Coverage(int((shares > 0).sum()), math.log(classes) - float(entropy))
