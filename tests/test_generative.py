"""Measures of samples, against closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from bench import datasets
from protocols import generative
from protocols.base import FeatureSet, ProtocolError, Quality, Samples
from protocols.generative import (
    SIGMAS,
    Coverage,
    GenerativeQuality,
    Reconstruction,
    classifier_frechet_distance,
    log_densities,
    mode_coverage,
    parzen,
    reconstruction,
)
from protocols.two_sample import TwoSample
from results.metrics import METRICS


def normal(count: int, dimensions: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_reconstructions_by_hand() -> None:
    images = torch.tensor([[[0.0, 0.0]], [[1.0, 1.0]]])
    assert reconstruction(images, images) == Reconstruction(error=0.0, ratio=0.0)
    assert reconstruction(images, images.flip(0)) == Reconstruction(error=1.0, ratio=math.inf)
    assert reconstruction(images, torch.full((2, 1, 2), 0.5)) == Reconstruction(error=0.25, ratio=1.0)  # the mean
    halfway = reconstruction(images, images * 0.8 + 0.1)
    assert (halfway.error, halfway.ratio) == pytest.approx((0.01, 0.01 / 0.81), rel=1e-5)


def digit_sets(rows: int = 1000) -> tuple[FeatureSet, FeatureSet]:
    found = datasets.load("mnist5k", limit=rows)
    train, test = (
        FeatureSet(torch.from_numpy(part.images / np.float32(255)).flatten(1), torch.from_numpy(part.labels.copy()), 10)
        for part in (found.train, found.test)
    )
    return train, test


def test_real_images_are_the_best_samples_and_their_own_reconstructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocols.generative.CLASSIFIER_IMAGES", 3000)
    both, test = digit_sets(2000)
    train, others = both.rows(torch.arange(1000)), both.rows(torch.arange(1000, 2000))
    shape = (1, 28, 28)
    noise = torch.rand(1000, *shape, generator=torch.Generator().manual_seed(0))
    ones = train.features[train.labels == 1][:90].repeat(11, 1).view(-1, *shape)

    def judged(images: Tensor | None, reconstructions: Tensor | None) -> dict[str, float]:
        return GenerativeQuality().judge(Samples(images, reconstructions, shape), train, test, seed=0).metrics

    real = judged(others.features.view(-1, *shape), test.features.view(-1, *shape))
    assert list(real) == [name for name in METRICS if name in real]
    assert (real["classes_covered"], real["reconstruction_error"], real["reconstruction_ratio"]) == (10, 0, 0)
    assert 9.5 < real["effective_classes"] <= 10
    assert real["kl_to_uniform"] < 0.05
    collapsed, wrong = judged(ones, None), judged(noise, noise)
    assert collapsed["kl_to_uniform"] > 1.5  # log 10 is what is left of 10 classes when all is one
    for other in (collapsed, wrong):
        assert other["parzen"] < real["parzen"] - 20
        assert other["classifier_frechet"] > 10 * real["classifier_frechet"]
    assert wrong["reconstruction_ratio"] == pytest.approx(1, abs=0.01)
    assert "reconstruction_error" not in collapsed
    assert set(judged(None, noise)) == {"reconstruction_error", "reconstruction_ratio"}


def test_the_classifier_is_the_same_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocols.generative.CLASSIFIER_IMAGES", 500)
    train, test = digit_sets(200)
    made = Samples(torch.rand(50, 1, 28, 28, generator=torch.Generator().manual_seed(0)), None, (1, 28, 28))
    first = GenerativeQuality().judge(made, train, test, seed=0)
    generative._CLASSIFIERS.clear()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert GenerativeQuality().judge(made, train, test, seed=0) == first
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(ProtocolError, match="GenerativeQuality judges what a generator makes, not features"):
        GenerativeQuality().score(train, test, seed=0)


def test_one_test_image_has_no_spread() -> None:
    train, test = digit_sets(50)
    made = Samples(torch.rand(5, 1, 28, 28), None, (1, 28, 28))
    with pytest.raises(ProtocolError, match="needs at least two test images, to measure their spread; got 1"):
        GenerativeQuality().judge(made, train, test.rows(torch.tensor([0])), seed=0)


def test_one_sample_is_one_gaussian() -> None:
    images, sample = normal(5, 12).view(5, 3, 4), normal(1, 12, seed=1).view(1, 3, 4)
    expected = torch.distributions.Normal(sample, 0.3).log_prob(images).sum(dim=(1, 2))
    assert torch.allclose(log_densities(images, sample, [0.3])[0], expected)


def test_many_samples_of_a_gaussian_are_a_wider_gaussian() -> None:
    samples, images = normal(200_000, 2), normal(50, 2, seed=1)
    wide = torch.distributions.Normal(0.0, math.sqrt(1 + 0.5**2)).log_prob(images).sum(dim=1)
    assert torch.allclose(log_densities(images, samples, [0.5])[0], wide, atol=0.05)


def test_parzen_picks_sigma_by_the_validation_images_alone_and_gives_the_standard_error() -> None:
    samples = torch.zeros(4, 50)
    validation, test = 0.35 * normal(2000, 50), 0.9 * normal(400, 50, seed=1)
    found = parzen(samples, validation, test)
    assert found.sigma == min(SIGMAS, key=lambda sigma: abs(math.log(sigma / 0.35)))  # .3594: the maximum likelihood's
    expected = torch.distributions.Normal(0.0, found.sigma).log_prob(test).sum(dim=1)
    assert found.mean == pytest.approx(expected.mean().item())
    assert found.standard_error == pytest.approx(expected.std().item() / 20)
    assert (SIGMAS[0], SIGMAS[-1], len(SIGMAS)) == (pytest.approx(0.1), 1.0, 10)


def exactly(mean: Tensor, covariance: Tensor, count: int) -> Tensor:
    """Rows whose sample mean and covariance are these to the last digits."""
    rows = normal(count, len(mean))
    rows -= rows.mean(dim=0)
    white = rows @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(rows.T))).T
    return white @ torch.linalg.cholesky(covariance).T + mean


def test_the_frechet_distance_of_gaussians_is_the_closed_form() -> None:
    """Of covariances that commute it is |m1 - m2|^2 + |sqrt(C1) - sqrt(C2)|^2."""
    turn = torch.linalg.qr(normal(3, 3))[0]
    first, second = (torch.tensor(variances, dtype=torch.float64) for variances in ([1.0, 4.0, 9.0], [4.0, 1.0, 0.25]))
    mean = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    one = exactly(torch.zeros(3, dtype=torch.float64), turn * first @ turn.T, 100)
    other = exactly(mean, turn * second @ turn.T, 60)
    expected = 1 + 4 + 0.25 + (1 - 2) ** 2 + (2 - 1) ** 2 + (3 - 0.5) ** 2
    assert classifier_frechet_distance(one, other) == pytest.approx(expected)
    assert classifier_frechet_distance(other, one) == pytest.approx(expected)
    assert classifier_frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_covariances_that_do_not_commute_share_the_root_of_their_product() -> None:
    first, second = (matrix @ matrix.T + torch.eye(2) for matrix in (normal(2, 2), normal(2, 2, seed=1)))
    zero = torch.zeros(2, dtype=torch.float64)
    product = first @ second  # a 2x2 matrix A has tr sqrt(A) = sqrt(tr A + 2 sqrt(det A))
    shared = math.sqrt(product.trace() + 2 * math.sqrt(torch.linalg.det(product)))
    expected = (first.trace() + second.trace()).item() - 2 * shared
    assert classifier_frechet_distance(exactly(zero, first, 50), exactly(zero, second, 50)) == pytest.approx(expected)


def test_fewer_rows_than_dimensions_give_a_finite_distance() -> None:
    assert classifier_frechet_distance(normal(5, 20), normal(5, 20)) == pytest.approx(0, abs=1e-6)
    assert classifier_frechet_distance(normal(5, 1), normal(5, 1) + 3) == pytest.approx(9)


def test_coverage_by_hand() -> None:
    assert mode_coverage(torch.arange(10).repeat(7), 10) == Coverage(10, pytest.approx(10), pytest.approx(0, abs=1e-12))
    assert mode_coverage(torch.full((50,), 3), 10) == Coverage(1, 1, pytest.approx(math.log(10)))
    assert mode_coverage(torch.tensor([0, 0, 1, 1]), 4) == Coverage(2, pytest.approx(2), pytest.approx(math.log(2)))
    stray = mode_coverage(torch.tensor([0] * 999 + [1]), 10)  # one sample covers a class, and hardly counts
    assert (stray.covered, stray.effective) == (2, pytest.approx(1000 / (999**0.999)))


def told_apart(images: Tensor, rows: int = 1500, samples: int = 1000) -> Quality:
    """A two-sample test of images (n, 784) against digits that they are not among."""
    train, test = digit_sets(rows)
    made = Samples(images[:samples].view(-1, 1, 28, 28), None, (1, 28, 28))
    return TwoSample(samples=samples).judge(made, train.rows(torch.arange(500)), test, seed=0)


def test_real_images_are_told_from_real_ones_by_chance_and_noise_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocols.two_sample.CLASSIFIER_IMAGES", 1500)
    others = digit_sets(1500)[0].features[500:]
    found = told_apart(others)
    accuracy, p = found.metrics.values()
    assert accuracy == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(1000))  # four standard deviations of the null
    assert p > 1e-4
    assert found.details["held_out"] == 1000
    right = found.details["told_right"]
    assert accuracy == right / 1000
    assert p == pytest.approx(binomtest(right, 1000, alternative="greater").pvalue)
    assert told_apart(others.clamp(max=254.7 / 255) + 0.001) == found  # stored as bytes they are the same
    noise = torch.rand(1000, 784, generator=torch.Generator().manual_seed(0))
    assert told_apart(noise).metrics == {"two_sample_accuracy": 1.0, "two_sample_p": pytest.approx(2.0**-1000)}
    inverted = told_apart(1 - others).metrics
    assert inverted["two_sample_accuracy"] > 0.99
    assert list(inverted) == [name for name in METRICS if name in inverted]


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_p_values_under_the_null_are_uniform_or_larger(threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a classifier that calls an image real if its pixel is above a threshold: half of them, or a fifth."""

    class Threshold(nn.Module):
        def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
            return rows, torch.cat([torch.full_like(rows, threshold), rows], dim=1)

    monkeypatch.setattr("protocols.two_sample.train_classifier", lambda *_: Threshold())
    drawn = torch.rand(1000, 600, 1, generator=torch.Generator().manual_seed(0)).mul(255).round().div(255)
    labels = torch.arange(200) % 2
    values = []
    for rows in drawn:
        made = Samples(rows[:400].view(-1, 1, 1, 1), None, (1, 1, 1))
        test = FeatureSet(rows[400:], labels, 2)
        values.append(TwoSample(samples=400).judge(made, test, test, seed=0).metrics["two_sample_p"])
    shares = [np.mean(np.array(values) <= level) for level in (0.01, 0.05, 0.2, 0.5)]
    assert all(share <= level + 3 * math.sqrt(level / 1000) for share, level in zip(shares, (0.01, 0.05, 0.2, 0.5)))
    assert threshold != 0.5 or shares[2] > 0.15  # not conservative where half are called real


def test_a_generator_without_samples_is_not_tested() -> None:
    train, test = digit_sets(50)
    nothing = TwoSample().judge(Samples(None, test.features.view(-1, 1, 28, 28), (1, 28, 28)), train, test, seed=0)
    assert nothing == Quality({}, {})
