"""What adversarial features are held against, each beside a known answer."""

import dataclasses
import math
import typing as t

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture
from sklearn.neural_network import BernoulliRBM
from torch import Tensor, nn

from encoders import networks, vae
from encoders.base import Encoder, EncoderError, Generative, ImageSet, ImageShape, Training, derive_seed, seeded
from encoders.check import check_encoder
from encoders.conditional_vae import ConditionalVAE
from encoders.denoising_autoencoder import Corruption, DenoisingAutoencoder, corrupt
from encoders.gmm import GMM
from encoders.image_statistics import ImageStatistics
from encoders.kmeans import KMeans
from encoders.patches import draw
from encoders.random_convolutions import RandomConvolutions
from encoders.random_patches import RandomPatches
from encoders.random_projection import RandomProjection
from encoders.rbm import RBM
from encoders.vae import VAE
from results.metrics import METRICS


def digits(shape: ImageShape = (1, 8, 8), count: int = 200) -> ImageSet:
    """scikit-learn's digits, enlarged, framed and tinted until they have this shape."""
    pixels = np.round(load_digits().images[:count] * 255 / 16)
    channels, height, width = shape
    larger = np.kron(pixels, np.ones((height // 8, width // 8)))
    framed = np.pad(larger, ((0, 0), *(((size - size // 8 * 8) // 2,) * 2 for size in (height, width))))
    tinted = framed[:, None] * np.linspace(1, 0.4, channels)[:, None, None]
    return ImageSet(tinted.astype(np.uint8), None, tuple("0123456789"), "digits")


def tensor(data: ImageSet) -> Tensor:
    return torch.from_numpy(data.images)


@pytest.fixture(autouse=True)
def generators_settle_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a few draws: most of the time that a training of one step takes would go into this."""
    monkeypatch.setattr("encoders.batch_norm.GENERATOR_BATCHES", 2)


RECIPES: list[Encoder] = [
    DenoisingAutoencoder(epochs=2, hidden=32),
    DenoisingAutoencoder(epochs=1, hidden=32, body="conv", corruption="gaussian"),
    DenoisingAutoencoder(epochs=1, hidden=32, corruption="salt_and_pepper"),
    VAE(epochs=2, hidden=32),
    VAE(epochs=1, hidden=32, body="conv", likelihood="gaussian", beta=4.0),
    GMM(components=3, pca=5),
    GMM(components=3, pca=None, covariance="diagonal", regularization=0.01),
    GMM(components=3, pca=5, covariance="tied"),
    RBM(hidden=16, iterations=1),
    KMeans(centroids=8, patches=200, iterations=2),
    RandomProjection(components=7),
    RandomPatches(dictionary=8, patches=200),
    ImageStatistics(),
    RandomConvolutions(filters=5),
]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=["grey", "colour"])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: repr(recipe)[:60])
def test_each_keeps_its_promises_on_both_sizes(recipe: Encoder, shape: ImageShape) -> None:
    check_encoder(recipe, digits(shape, count=20))


@pytest.mark.parametrize("recipe", [one for one in RECIPES if hasattr(one, "epochs")], ids=lambda r: repr(r)[:60])
def test_what_is_trained_by_gradient_trains_in_bfloat16_too(recipe: Encoder) -> None:
    data = digits((3, 32, 32), count=20)
    runs = [Training(0, precision="bfloat16") for _ in range(2)]
    first, again = (recipe.fit(data, run)(tensor(data)) for run in runs)
    exact = recipe.fit(data, Training(0))(tensor(data))
    for tap, rows in first.items():
        assert torch.isfinite(rows).all()
        assert torch.equal(rows, again[tap])
        assert not torch.equal(rows, exact[tap])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: repr(recipe)[:60])
def test_numpys_random_state_has_no_part_in_it(recipe: Encoder) -> None:
    data, before = digits(count=20), np.random.get_state()[1].copy()
    recipe.fit(data, Training(0))
    assert np.array_equal(before, np.random.get_state()[1])


# ---- denoising autoencoder --------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.0, 0.25, 1.0])
def test_masking_sets_that_share_of_the_pixels_to_zero_and_leaves_the_rest(level: float) -> None:
    x = torch.rand(100, 1, 28, 28) / 2 + 0.25
    with torch.random.fork_rng():
        torch.manual_seed(0)
        damaged = corrupt(x, "masking", level)
    gone = damaged == 0
    assert gone.float().mean() == pytest.approx(level, abs=5 * math.sqrt(level * (1 - level) / x.numel()))
    assert torch.equal(damaged[~gone], x[~gone])


def test_salt_and_pepper_is_half_of_each() -> None:
    x = torch.full((100, 1, 28, 28), 0.5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        damaged = corrupt(x, "salt_and_pepper", 0.4)
    shares = [(damaged == value).float().mean().item() for value in (0, 0.5, 1)]
    assert shares == pytest.approx([0.2, 0.6, 0.2], abs=5 * 0.5 / math.sqrt(x.numel()))


def test_gaussian_noise_has_mean_zero_and_this_std() -> None:
    x = torch.rand(100, 1, 28, 28)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        noise = corrupt(x, "gaussian", 0.3) - x
    assert noise.mean() == pytest.approx(0, abs=5 * 0.3 / math.sqrt(x.numel()))
    assert noise.std() == pytest.approx(0.3, rel=0.02)


@pytest.mark.parametrize("corruption", ["masking", "gaussian"])
def test_what_is_damaged_more_is_harder_to_give_back(corruption: Corruption) -> None:
    def loss(level: float) -> float:
        run, small = Training(0), {"epochs": 25, "hidden": 64, "batch_size": 20, "learning_rate": 5e-3}
        DenoisingAutoencoder(corruption=corruption, level=level, **small).fit(digits(), run)
        return run.history[-1]["autoencoder_loss"]

    assert loss(0.0) < loss(0.6)


# ---- VAE --------------------------------------------------------------------------------------------------------


def test_the_divergence_from_the_prior_is_the_integral_it_stands_for() -> None:
    mean, std = 0.7, 0.4
    posterior = torch.distributions.Normal(mean, std)
    z = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    ratio = posterior.log_prob(z) - torch.distributions.Normal(0.0, 1.0).log_prob(z)
    integral = torch.trapezoid(posterior.log_prob(z).exp() * ratio, z)
    codes, log_variances = torch.tensor([[mean, mean], [0, 0]]), torch.tensor([[2 * math.log(std)] * 2, [0, 0]])
    assert vae.divergence(codes, log_variances).tolist() == pytest.approx([2 * integral.item(), 0], abs=1e-6)


def test_likelihoods_are_those_of_their_distributions() -> None:
    x, logits = torch.rand(6, 1, 3, 4), torch.randn(6, 1, 3, 4)
    p = torch.sigmoid(logits)
    bernoulli = (x * p.log() + (1 - x) * (1 - p).log()).sum() / 6
    assert vae.bernoulli(logits, x).item() == pytest.approx(bernoulli.item(), rel=1e-5)

    def of_variance(variance: float) -> float:
        return torch.distributions.Normal(p, math.sqrt(variance)).log_prob(x).sum().item() / 6

    best = (x - p).square().mean().item()
    assert vae.gaussian(logits, x).item() == pytest.approx(of_variance(best), rel=1e-5)
    assert of_variance(best) > max(of_variance(1.1 * best), of_variance(0.9 * best))


def fitted_history(**settings: t.Any) -> list[dict[str, float]]:
    run = Training(0)
    VAE(**{"epochs": 15, "hidden": 64, "learning_rate": 5e-3, "batch_size": 20} | settings).fit(digits(), run)
    return run.history


def test_the_vaes_history_has_both_terms_and_their_difference_and_the_bound_grows() -> None:
    history = fitted_history(epochs=40)
    for row in history:
        assert row["elbo"] == pytest.approx(row["log_likelihood"] - row["kl"], rel=1e-4)
        assert row["vae_loss"] == pytest.approx(-row["elbo"], rel=1e-4)
        assert row["kl"] >= 0
    pixels = digits().images / 255
    mean = pixels.mean(axis=0).clip(1e-6, 1 - 1e-6)
    of_the_mean_image = (pixels * np.log(mean) + (1 - pixels) * np.log(1 - mean)).sum() / len(pixels)
    assert history[0]["elbo"] < of_the_mean_image < history[-1]["elbo"]


def test_beta_buys_a_smaller_divergence_with_a_worse_likelihood() -> None:
    weak, strong = fitted_history(beta=0.1)[-1], fitted_history(beta=10.0)[-1]
    assert strong["kl"] < weak["kl"]
    assert strong["log_likelihood"] < weak["log_likelihood"]
    assert strong["vae_loss"] == pytest.approx(10 * strong["kl"] - strong["log_likelihood"], rel=1e-4)


def test_the_vaes_code_is_the_posteriors_mean() -> None:
    module = VAE(epochs=0, hidden=32, latent=3).fit(digits(), Training(0))
    images = tensor(digits())
    mean, log_variance = module.body(networks.unit(images))[1].chunk(2, dim=1)
    assert torch.equal(module(images)["code"], mean)
    assert mean.shape == log_variance.shape == (200, 3)


def log_likelihoods(recipe: Generative, train: ImageSet, test: ImageSet) -> tuple[nn.Module, nn.Module, Tensor]:
    """Encoder and generator, both frozen, and the only log-likelihood that they give: (n_test,) nats."""
    run = Training(0)
    module = recipe.fit(train, run)
    assert run.generator is not None
    with seeded(0, "test"):
        ((name, nats),) = recipe.log_likelihoods(module, run.generator, train, test).items()
    assert METRICS[name].higher_is_better
    assert nats.shape == (len(test),)
    return module, run.generator, nats


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_bound_of_test_images_by_hand(likelihood: t.Literal["bernoulli", "gaussian"]) -> None:
    data = digits(count=30)
    train, test = (dataclasses.replace(data, images=data.images[rows]) for rows in (slice(20), slice(20, 30)))
    recipe = VAE(epochs=3, hidden=16, latent=2, likelihood=likelihood)
    module, decoder, nats = log_likelihoods(recipe, train, test)
    with seeded(0, "test"):
        noise = [torch.randn(20, 2)] if likelihood == "gaussian" else []
        noise.append(torch.randn(10, 2))

    def terms(images: ImageSet, noise: Tensor) -> tuple[t.Any, ...]:
        mean, log_variance = module.body(networks.unit(tensor(images)))[1].double().chunk(2, dim=1)
        code = mean + noise * (log_variance / 2).exp()
        p = expit(decoder(code.float()).double().numpy()).reshape(len(images), 64)
        kl = ((mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2).numpy()
        return images.images.reshape(-1, 64) / 255, p, kl

    x, p, kl = terms(test, noise[-1])
    if likelihood == "bernoulli":
        expected = (x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=1) - kl
    else:
        seen, made, _ = terms(train, noise[0])
        variance = ((seen - made) ** 2).mean()  # of train: nothing is chosen on test
        expected = norm(p, np.sqrt(variance)).logpdf(x).sum(axis=1) - kl
    assert nats.numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("recipe", [VAE, ConditionalVAE])
def test_the_bound_is_below_the_log_probability_that_quadrature_gives(
    recipe: type[VAE] | type[ConditionalVAE],
) -> None:
    """Of binary images under a code of one dimension."""
    labels = load_digits().target[:200].astype(np.int64)
    data = dataclasses.replace(digits(), images=(digits().images > 127).astype(np.uint8) * 255, labels=labels)
    shape = {"epochs": 60, "hidden": 64, "latent": 1, "learning_rate": 5e-3, "batch_size": 20}
    module, decoder, _ = log_likelihoods(recipe(**shape), data, data)  # type: ignore[arg-type]
    bounds = []
    for seed in range(40):
        with seeded(seed):
            bounds.append(recipe(**shape).log_likelihoods(module, decoder, data, data)["binary_elbo"])  # type: ignore[arg-type]
    z = torch.linspace(-8, 8, 801)[:, None]
    x, probabilities = networks.unit(tensor(data)).flatten(1), []
    for label in range(10) if recipe is ConditionalVAE else [None]:
        told = [z] if label is None else [z, nn.functional.one_hot(torch.tensor(label), 10).expand(len(z), -1)]
        logits = decoder(torch.cat(told, dim=1)).flatten(1)
        given = -nn.functional.binary_cross_entropy_with_logits(
            logits.expand(len(x), -1, -1), x[:, None].expand(-1, len(z), -1), reduction="none"
        ).double().sum(dim=2)  # fmt: skip
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(z[:, 0]).double()
        probabilities.append((given + prior + math.log(16 / 800)).logsumexp(dim=1))
    exact = torch.stack(probabilities).logsumexp(dim=0) - math.log(len(probabilities))
    gap = exact - torch.stack(bounds).mean(dim=0)
    assert gap.min() > -0.5  # of each image; its bound is a mean over forty codes
    assert 0 < gap.mean() < 4


def test_equally_likely_decoders_are_averaged_as_probabilities() -> None:
    data = digits(count=20)

    def bounds(*offsets: float) -> Tensor:
        decoders = [lambda code, by=by: (code[:, :1] + by).expand(-1, 64).reshape(-1, 1, 8, 8) for by in offsets]
        with seeded(0):
            return vae.lower_bounds(
                "bernoulli", lambda x: x.flatten(1)[:, :4], decoders, data, data, torch.device("cpu")
            )["binary_elbo"]

    one, other, both = bounds(-1.0), bounds(-1.2), bounds(-1.0, -1.2)
    assert torch.allclose(bounds(-1.0, -1.0), one, rtol=1e-12)
    assert torch.allclose(both, torch.logaddexp(one, other) - math.log(2), rtol=1e-12)
    assert bool((one != other).all())


# ---- GMM --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariance", ["full", "diagonal", "tied"])
def test_densities_and_responsibilities_are_scikit_learns(covariance: t.Literal["full", "diagonal", "tied"]) -> None:
    data = digits()
    recipe = GMM(components=4, covariance=covariance, pca=None, regularization=0.01)
    features = recipe.fit(data, Training(3))(tensor(data))
    theirs = GaussianMixture(
        4,
        covariance_type=covariance.removesuffix("onal"),
        reg_covar=0.01,
        random_state=derive_seed(3, "gmm") % 2**32,
    )
    pixels = networks.unit(tensor(data)).flatten(1).double().numpy()
    theirs.fit(pixels)
    expected = theirs._estimate_log_prob(pixels)  # the log-density of each component, which it has no public name for
    assert np.allclose(features["log_densities"].numpy(), expected, rtol=1e-5, atol=1e-5)
    assert np.allclose(features["responsibilities"].numpy(), theirs.predict_proba(pixels), rtol=0, atol=1e-5)


def test_one_gaussian_is_the_one_of_the_data() -> None:
    data = digits()
    features = GMM(components=1, pca=None, regularization=1e-2).fit(data, Training(0))(tensor(data))
    pixels = networks.unit(tensor(data)).flatten(1).double()
    covariance = torch.cov(pixels.T, correction=0) + 1e-2 * torch.eye(64)
    normal = torch.distributions.MultivariateNormal(pixels.mean(dim=0), covariance)
    assert torch.allclose(features["log_densities"][:, 0].double(), normal.log_prob(pixels), rtol=1e-5)
    assert torch.equal(features["responsibilities"], torch.ones(200, 1))


def test_pca_before_the_mixture_keeps_what_is_asked_of_it() -> None:
    data = digits()
    all_64 = GMM(components=3, pca=64, regularization=0.01).fit(data, Training(0))(tensor(data))["log_densities"]
    pixels = GMM(components=3, pca=None, regularization=0.01).fit(data, Training(0))(tensor(data))["log_densities"]
    assert torch.allclose(all_64.logsumexp(dim=1).mean(), pixels.logsumexp(dim=1).mean(), rtol=0.05)  # a rotation only
    with pytest.raises(EncoderError, match="10 Gaussians of 65 dimensions asked of 200 images of 64 pixels"):
        GMM(pca=65).fit(data, Training(0))


@pytest.mark.parametrize("covariance", ["full", "diagonal", "tied"])
def test_the_log_likelihood_of_test_images_is_scikit_learns(
    covariance: t.Literal["full", "diagonal", "tied"],
) -> None:
    data = digits()
    train, test = (dataclasses.replace(data, images=data.images[rows]) for rows in (slice(150), slice(150, 200)))
    recipe = GMM(components=4, covariance=covariance, pca=None, regularization=0.01)
    *_, nats = log_likelihoods(recipe, train, test)
    theirs = GaussianMixture(
        4, covariance_type=covariance.removesuffix("onal"), reg_covar=0.01, random_state=derive_seed(0, "gmm") % 2**32
    )
    seen, unseen = (networks.unit(tensor(part)).flatten(1).double().numpy() for part in (train, test))
    assert np.allclose(nats.numpy(), theirs.fit(seen).score_samples(unseen), rtol=1e-9)


def whole_covariances(generator: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, and means and covariances (k, 64, ...) in pixels, of what is modelled in a few directions."""
    mixture = generator.mixture
    inside = [torch.linalg.inv(whitening @ whitening.T) for whitening in mixture.whitening]
    directions = mixture.directions
    outside = torch.eye(64) - directions @ directions.T
    covariances = [directions @ one @ directions.T + generator.residual_variance * outside for one in inside]
    return mixture.log_weights.exp(), mixture.means @ directions.T + mixture.centre, torch.stack(covariances)


def test_directions_that_pca_leaves_out_have_one_variance_and_densities_are_of_the_pixels() -> None:
    data = digits()
    train, test = (dataclasses.replace(data, images=data.images[rows]) for rows in (slice(150), slice(150, 200)))
    _, generator, nats = log_likelihoods(GMM(components=3, pca=5), train, test)
    pixels = networks.unit(tensor(train)).flatten(1).double()
    left_out = np.linalg.eigvalsh(np.cov(pixels.numpy().T, bias=True))[:-5].mean()
    assert generator.residual_variance.item() == pytest.approx(left_out + 1e-3)
    weights, means, covariances = whole_covariances(generator)
    each = torch.distributions.MultivariateNormal(means, covariances)
    x = networks.unit(tensor(test)).flatten(1).double()
    assert torch.allclose(nats, (each.log_prob(x[:, None]) + weights.log()).logsumexp(dim=1), rtol=1e-9)


@pytest.mark.parametrize(
    "recipe",
    [
        GMM(components=3, pca=5), GMM(components=3, pca=5, covariance="tied"),
        GMM(components=3, pca=5, covariance="diagonal"), GMM(components=3, pca=None, regularization=0.01),
    ],
    ids=lambda recipe: repr(recipe)[:60],
)  # fmt: skip
def test_samples_of_a_mixture_have_its_mean_and_its_covariance(recipe: GMM) -> None:
    run = Training(0)
    recipe.fit(digits(), run)
    assert run.generator is not None
    mixture = run.generator.mixture
    with seeded(0):
        made = run.generator(recipe.draw_for((1, 8, 8), 40_000, torch.device("cpu"))).flatten(1)
    if mixture.is_projected:
        made = (made - mixture.centre) @ mixture.directions
    weights = mixture.log_weights.exp()
    whitening = mixture.whitening if recipe.covariance != "diagonal" else torch.diag_embed(mixture.whitening[:, 0])
    covariances = torch.stack([torch.linalg.inv(one @ one.T) for one in whitening]).expand(3, -1, -1)
    mean = weights @ mixture.means
    between = mixture.means.T @ (weights[:, None] * mixture.means) - mean[:, None] * mean
    covariance = (weights[:, None, None] * covariances).sum(dim=0) + between
    spread = covariance.diagonal().sqrt()
    assert ((made.mean(dim=0) - mean) / spread).abs().max() < 5 / 200
    assert ((torch.cov(made.T) - covariance) / spread / spread[:, None]).abs().max() < 8 / 200
    pictured = recipe.pictures(run.generator(recipe.draw_for((1, 8, 8), 100, torch.device("cpu"))))
    assert pictured.min() == 0


# ---- RBM --------------------------------------------------------------------------------------------------------


def test_hidden_units_are_scikit_learns() -> None:
    data = digits()
    features = RBM(hidden=16, iterations=2).fit(data, Training(3))(tensor(data))["hidden"]
    theirs = BernoulliRBM(16, n_iter=2, random_state=derive_seed(3, "rbm") % 2**32)
    expected = theirs.fit_transform(networks.unit(tensor(data)).flatten(1).numpy())
    assert np.allclose(features.numpy(), expected, atol=1e-6)


# ---- k-means ----------------------------------------------------------------------------------------------------


def test_the_triangle_by_hand() -> None:
    """2x2 images of 1x1 patches in two colours; nothing whitened: each quadrant is one pixel."""
    module = KMeans(centroids=2, patch=1).build((2, 2, 2))
    module.contrast = 0.5  # (255, 0) has mean 127.5 and unbiased variance 32512.5, so it becomes about (.7071, -.7071)
    module.whitening.copy_(torch.eye(2))
    root = 127.5 / math.sqrt(32512.5 + 0.5)
    module.centroids.copy_(torch.tensor([[root, -root], [0.0, 0.0]]))
    images = torch.zeros(1, 2, 2, 2, dtype=torch.uint8)
    images[0, 0, 0, 1] = 255  # only the upper right pixel is the first centroid; the others are grey: the second
    apart = math.hypot(root, root)
    upper_right, grey = [apart / 2, 0], [0, apart / 2]  # the distances are 0 and `apart`, their mean half of it
    pooled = module(images)["pooled"][0]
    assert pooled.tolist() == pytest.approx([*grey, *upper_right, *grey, *grey], abs=1e-4)


def test_quadrants_are_sums_over_their_patches() -> None:
    recipe = KMeans(centroids=5, patch=3, patches=100, iterations=1)  # 8x8 images have 6x6 patches: 3x3 a quadrant
    module = recipe.fit(digits(), Training(0))
    image = tensor(digits())[7:8]
    pooled = module(image)["pooled"][0].view(4, 5)
    expected = torch.zeros(2, 2, 5)
    for row in range(6):
        for column in range(6):
            patch = image[:, :, row : row + 3, column : column + 3].flatten(1)
            white = (module.normalised(patch) - module.mean) @ module.whitening
            distances = (white - module.centroids).norm(dim=1)
            expected[row // 3, column // 3] += (distances.mean() - distances).clamp(min=0)
    assert torch.allclose(pooled, expected.view(4, 5), atol=1e-4)


def test_patches_are_whitened_and_kmeans_reduces_their_distance_to_centroids() -> None:
    run = Training(0)
    recipe = KMeans(centroids=20, patches=2000, iterations=10, patch=3, whitening=1e-6)
    module = recipe.fit(digits(), run)
    drawn = draw(digits(), 2000, 3, np.random.default_rng(derive_seed(0, "patches")))
    white = module.white(module.normalised(torch.from_numpy(drawn)))
    variances = torch.linalg.eigvalsh(torch.cov(white.T))
    assert variances[0] == pytest.approx(0, abs=0.01)  # the mean of each patch is gone: one direction has no variance
    assert torch.allclose(variances[1:], torch.ones(8), atol=0.01)
    distortions = [row["distortion"] for row in run.history]
    assert distortions == sorted(distortions, reverse=True)
    assert distortions[-1] < 0.9 * distortions[0]


def test_kmeans_says_when_images_are_too_small_for_quadrants() -> None:
    with pytest.raises(EncoderError, match="at least 7 pixels a side; got 6x8: set patch or stride lower"):
        KMeans().build((1, 6, 8))
    with pytest.raises(EncoderError, match="centroids=1600 exceeds patches=100"):
        KMeans(patches=100).fit(digits(), Training(0))


# ---- random patches ---------------------------------------------------------------------------------------------


def test_near_patches_by_hand() -> None:
    """In NumPy, one patch at a time: the two nearest of five, and of their negatives, where nothing is shared."""
    recipe = RandomPatches(dictionary=5, fraction=0.4, patch=3, patches=300, whitening=0.01)
    data = digits()
    module = recipe.fit(data, Training(0))
    drawn = draw(data, 300, 3, np.random.default_rng(derive_seed(0, "patches"))) / 255
    mean = drawn.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(drawn.T))
    whitening = directions @ np.diag((variances + 0.01) ** -0.5) @ directions.T
    dictionary = (drawn[:5] - mean) @ whitening
    expected = np.zeros((2, 2, 10))
    image = data.images[7, 0] / 255
    for row in range(6):
        for column in range(6):
            white = (image[row : row + 3, column : column + 3].ravel() - mean) @ whitening
            for sign, first in ((1, 0), (-1, 5)):
                nearest = np.argsort(np.linalg.norm(sign * white - dictionary, axis=1))[:2]
                expected[row // 3, column // 3, first + nearest] += 1
    pooled = module(tensor(data)[7:8])["pooled"].view(2, 2, 10)
    assert pooled.numpy().tolist() == expected.tolist()
    assert pooled.sum() == 36 * 2 * 2  # patches, of which each has two nearest, twice


def test_equal_patches_are_near_together() -> None:
    blank = dataclasses.replace(digits(count=20), images=np.zeros((20, 1, 8, 8), np.uint8))
    pooled = RandomPatches(dictionary=5, patch=3, patches=100).fit(blank, Training(0))(tensor(blank))["pooled"]
    assert torch.equal(pooled, torch.full((20, 4 * 2 * 5), 9.0))  # all patches of every quadrant are near to all


def test_random_patches_learn_no_dictionary_larger_than_their_patches() -> None:
    with pytest.raises(EncoderError, match="dictionary=2048 exceeds patches=100; raise patches"):
        RandomPatches(patches=100).fit(digits(), Training(0))


# ---- random projection ------------------------------------------------------------------------------------------


def test_random_directions_keep_squared_distances_in_the_mean() -> None:
    data = digits(count=50)
    pixels = networks.unit(tensor(data)).flatten(1)
    projected = RandomProjection(components=2000).fit(data, Training(0))(tensor(data))["projection"]
    ratios = (torch.pdist(projected) / torch.pdist(pixels)).square()
    assert ratios.mean() == pytest.approx(1, abs=0.05)  # each has a standard deviation of sqrt(2/2000) = 0.03
    assert ratios.std() < 0.06


def test_a_random_projection_is_a_control_and_another_seed_is_another() -> None:
    data = digits(count=10)
    one, other = (RandomProjection().fit(data, Training(seed))(tensor(data))["projection"] for seed in (0, 1))
    assert RandomProjection.is_control
    assert not torch.allclose(one, other)
    darker = dataclasses.replace(data, images=data.images // 2)
    assert torch.equal(one, RandomProjection().fit(darker, Training(0))(tensor(data))["projection"])


# ---- image statistics and random convolutions -------------------------------------------------------------------


@pytest.mark.parametrize("bins", [1, 7, 16, 256])
def test_image_statistics_are_numpys(bins: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 9, 5), np.uint8)
    images[0, 0] = 255  # the last bin has it, and its deviation is 0
    rows = ImageStatistics(bins=bins).fit(dataclasses.replace(digits(), images=images), Training(0))
    statistics = rows(torch.from_numpy(images))["statistics"].view(4, 3, 2 + bins).numpy()
    assert np.allclose(statistics[:, :, 0], images.mean(axis=(2, 3)) / 255, atol=1e-6)
    assert np.allclose(statistics[:, :, 1], images.std(axis=(2, 3)) / 255, atol=1e-6)
    for image, row in zip(images.reshape(12, -1), statistics.reshape(12, -1)):
        assert np.allclose(row[2:], np.histogram(image, bins, (0, 256))[0] / 45, atol=1e-6)


def test_random_convolutions_by_hand() -> None:
    data = digits((3, 8, 8), count=3)
    module = RandomConvolutions(filters=4, size=3, bias=-0.5).fit(data, Training(0))
    x, weights = data.images / 255, module.weights.numpy()
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))  # (n, c, 6, 6, 3, 3)
    answers = np.einsum("nchwij,fcij->nfhw", windows, weights) - 0.5
    expected = np.concatenate([np.maximum(answers, 0), np.maximum(-answers, 0)], axis=1).mean(axis=(2, 3))
    assert np.allclose(module(tensor(data))["pooled"].numpy(), expected, atol=1e-5)


def test_random_filters_follow_the_seed_and_not_the_images() -> None:
    data = digits(count=10)
    darker = dataclasses.replace(data, images=data.images // 2)
    one, same, other = (
        RandomConvolutions(filters=3).fit(images, Training(seed)).weights
        for images, seed in ((data, 0), (darker, 0), (data, 1))
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    with pytest.raises(EncoderError, match="filters of 9 pixels need images of at least as many a side; got 8x8"):
        RandomConvolutions(size=9).build(data.shape)
