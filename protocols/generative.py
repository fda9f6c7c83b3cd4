"""How good samples and reconstructions are, as the papers of generative models measured it.

The measures are pure functions: rows in, numbers out. Images are floats (n, ...) in [0, 1], compared pixel by pixel.
"""

import hashlib
import math
import typing as t
from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from protocols.base import FeatureSet, ProtocolError, Quality, SampleProtocol, Samples, accuracy

SIGMAS = tuple(10 ** (-1 + place / 9) for place in range(10))  # 0.1 to 1: the grid of the GAN authors' script
BLOCK = 1000  # images that are compared with all samples at once


class GenerativeQuality(SampleProtocol):
    """Quality of samples and reconstructions: log-likelihood, Frechet distance, class coverage, squared error.

    - `parzen`: mean log-density of test images, nats, under a Gaussian about each sample, whose width is the best of
      ten for train images; higher is better. Its standard error over test images stands in the details.
    - `classifier_frechet`: squared Frechet distance from samples to test images in the last hidden layer of a small
      convolutional classifier trained on the same train images; 0 is best. No Frechet inception distance.
    - `classes_covered`, `effective_classes` and `kl_to_uniform` (nats): how samples spread over the classes that this
      classifier sees. One sample is enough to cover a class; the effective number is exp of the entropy of the shares.
    - `log_likelihood`, `elbo`, `binary_elbo`: nats of a test image under the model itself: its exact log-density, a
      lower bound of it, or a lower bound of its log-probability once each pixel is made 0 or 1 at random, with its grey
      as the probability; higher is better, and the last compares with itself only. Details have standard errors.
    - `reconstruction_error`: mean squared error of a pixel of test images; `reconstruction_ratio`: to that of another
      image's reconstruction.

    A generator without a prior has no samples, one without codes of images no reconstructions.
    """

    source = "Goodfellow et al. 2014, arXiv:1406.2661; Heusel et al. 2017, arXiv:1706.08500; the code of Donahue et al."

    validation: PositiveInt = 1000
    """Train images that choose the width of the Parzen windows."""

    def judge(self, made: Samples, train: FeatureSet, test: FeatureSet, *, seed: int) -> Quality:
        if len(test) < 2:
            raise ProtocolError("needs at least two test images, to measure their spread; got 1")
        metrics: dict[str, float] = {}
        details: dict[str, t.Any] = {}
        images = test.features
        if made.images is not None:
            chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[: self.validation]
            likelihood = parzen(made.images, train.features[chosen], images)
            classifier = _classifier(train, made.shape)
            (of_samples, guessed), (of_test, seen) = (looked_at(classifier, x) for x in (made.images, images))
            coverage = mode_coverage(guessed, train.classes)
            metrics |= {
                "parzen": likelihood.mean,
                "classifier_frechet": classifier_frechet_distance(of_samples, of_test),
                "classes_covered": coverage.covered,
                "effective_classes": coverage.effective,
                "kl_to_uniform": coverage.divergence,
            }
            details |= {
                "parzen_standard_error": likelihood.standard_error,
                "parzen_sigma": likelihood.sigma,
                "classifier_top1": accuracy(seen, test.labels),
            }
        for name, nats in made.log_likelihoods.items():
            metrics[name] = float(nats.mean())
            details[f"{name}_standard_error"] = float(nats.std()) / math.sqrt(len(nats))
        if made.reconstructions is not None:
            found = reconstruction(images, made.reconstructions.flatten(1))
            metrics["reconstruction_error"] = found.error
            if math.isfinite(found.ratio):
                metrics["reconstruction_ratio"] = found.ratio
        return Quality(metrics, details)


CLASSIFIER_IMAGES = 60_000  # that the classifier sees in training, however many there are
_CLASSIFIERS: dict[str, nn.Module] = {}  # the newest one: the same for every encoder on one dataset


def _classifier(train: FeatureSet, shape: tuple[int, int, int]) -> nn.Module:
    """Images (n, c * h * w) -> (hidden (n, 128), logits (n, classes)): two convolutions, pooled, and a hidden layer."""
    digest = hashlib.blake2b(train.features[:: max(1, len(train) // 1000)].cpu().numpy().tobytes())
    digest.update(train.labels.cpu().numpy().tobytes())
    key = f"{digest.hexdigest()} on {train.features.device}"
    if key not in _CLASSIFIERS:
        _CLASSIFIERS.clear()
        _CLASSIFIERS[key] = train_classifier(train, shape, CLASSIFIER_IMAGES)
    return _CLASSIFIERS[key]


def train_classifier(train: FeatureSet, shape: tuple[int, int, int], images: int) -> nn.Module:
    """A classifier that has seen so many images, some of them several times if there are fewer."""
    device = train.features.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)  # whatever the run's seed: distances compare between runs
        network = _Classifier(shape, train.classes).to(device)
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        order = torch.cat([torch.randperm(len(train)) for _ in range(-(-images // len(train)))]).to(device)
        for rows in torch.split(order[:images], 128):
            loss = F.cross_entropy(network(train.features[rows])[1], train.labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return network.eval().requires_grad_(False)


class _Classifier(nn.Module):
    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.shape = shape
        layers: list[nn.Module] = []
        for inputs, outputs in ((shape[0], 32), (32, 64)):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
        height, width = (math.ceil(math.ceil(side / 2) / 2) for side in shape[1:])
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * height * width, 128), nn.ReLU())
        self.last = nn.Linear(128, classes)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(rows.view(-1, *self.shape))
        return hidden, self.last(hidden)


def looked_at(classifier: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden units (n, 128) and the likeliest class (n,) of each image."""
    seen = [classifier(rows) for rows in torch.split(images, 500)]
    return torch.cat([hidden for hidden, _ in seen]), torch.cat([logits.argmax(dim=1) for _, logits in seen])


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
    means = log_densities(validation, samples, sigmas).mean(dim=1).tolist()
    sigma = sigmas[means.index(max(means))]
    values = log_densities(test, samples, [sigma])[0]
    return Parzen(float(values.mean()), float(values.std()) / math.sqrt(len(values)), sigma)


def log_densities(images: Tensor, samples: Tensor, sigmas: t.Sequence[float]) -> Tensor:
    """Of images (n, ...) under mixtures of Gaussians about samples (m, ...): (sigmas, n) nats, float64."""
    centres = samples.flatten(1).double()
    rows = []
    for block in torch.split(images.flatten(1), BLOCK):
        squared = torch.cdist(block.double(), centres).square()  # (b, m)
        rows.append(torch.stack([torch.logsumexp(squared / (-2 * sigma**2), dim=1) for sigma in sigmas]))
    normalisers = [math.log(len(centres)) + centres.shape[1] / 2 * math.log(2 * math.pi * s**2) for s in sigmas]
    return torch.cat(rows, dim=1) - torch.tensor(normalisers, dtype=torch.float64, device=images.device)[:, None]


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
    effective: float  # exp(entropy of the shares): so many classes, equally often, would have it; 1 to classes
    divergence: float  # KL(share of each class || uniform), 0 to ln(classes) nats, lower is better


def mode_coverage(predicted: Tensor, classes: int) -> Coverage:
    """How samples spread over the classes, which a classifier trained on the real images gave them: (n,) int64."""
    shares = torch.bincount(predicted, minlength=classes).double() / len(predicted)
    entropy = float(torch.special.entr(shares).sum())
    return Coverage(int((shares > 0).sum()), math.exp(entropy), math.log(classes) - entropy)
