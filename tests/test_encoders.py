"""Every encoder keeps the promises of `check_encoder`; then a fact of its own."""

import dataclasses
import functools
import math
import pickle
import sys
import tempfile
import typing as t
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA as ScikitPCA
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from bench.datasets import load
from bench.suites import resolve
from encoders import networks, off_the_shelf, training
from encoders.aae import AAE
from encoders.ali import ALI
from encoders.autoencoder import Autoencoder
from encoders.barlow_twins import BarlowTwins
from encoders.base import (
    Encoder,
    EncoderError,
    Features,
    Generative,
    ImageSet,
    ImageShape,
    Training,
    derive_seed,
    frozen,
    seeded,
    visible_to,
)
from encoders.bigan import BiGAN
from encoders.byol import BYOL
from encoders.category_and_style import probabilities
from encoders.check import Stopper, check_encoder
from encoders.clustering_aae import ClusteringAAE
from encoders.conditional_vae import ConditionalVAE
from encoders.dcgan import DCGAN
from encoders.denoising_autoencoder import DenoisingAutoencoder
from encoders.dino import DINO
from encoders.gan import GAN
from encoders.gmm import GMM
from encoders.image_statistics import ImageStatistics
from encoders.kmeans import KMeans
from encoders.label_informed_aae import LabelInformedAAE
from encoders.latent_regressor import LatentRegressor
from encoders.lejepa import LeJEPA
from encoders.loading import plain
from encoders.moco import MoCo
from encoders.pca import PCA
from encoders.pixels import Pixels
from encoders.pretrained import Pretrained
from encoders.random_convolutions import RandomConvolutions
from encoders.random_patches import RandomPatches
from encoders.random_projection import RandomProjection
from encoders.rbm import RBM
from encoders.rotation import Rotation
from encoders.semisupervised_aae import SemiSupervisedAAE
from encoders.simclr import SimCLR
from encoders.simsiam import SimSiam
from encoders.supervised_aae import SupervisedAAE
from encoders.untrained import Untrained
from encoders.vae import VAE
from encoders.vicreg import VICReg
from encoders.wgan import WGAN
from encoders.wgan_gp import WGANGP


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images[:300] * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    return ImageSet(pixels, labels[:300].astype(np.int64), tuple("0123456789"), "digits")


@pytest.fixture(autouse=True)
def generators_settle_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a few draws: most of the time that a training of one step takes would go into this."""
    monkeypatch.setattr("encoders.batch_norm.GENERATOR_BATCHES", 2)


WEIGHTS = tempfile.TemporaryDirectory()
with seeded(0, "off the shelf"):
    torch.save(off_the_shelf.network("torchvision:squeezenet1_1").state_dict(), Path(WEIGHTS.name, "weights.pth"))


SMALL: list[Encoder] = [
    Pixels(),
    PCA(components=5),
    PCA(components=5, whiten=True),
    Untrained(architecture="bigan", parameters={"hidden": 32}),
    Untrained(architecture="dcgan", parameters={"width": 4}),
    Autoencoder(epochs=2, hidden=32, loss="l2"),
    Autoencoder(epochs=2, hidden=32, loss="l1", body="conv"),
    GAN(epochs=2, generator_hidden=32, discriminator_hidden=16),
    DCGAN(epochs=1, width=4),
    BiGAN(epochs=2, hidden=32),
    BiGAN(epochs=1, hidden=32, body="conv"),
    AAE(epochs=2, hidden=32),
    AAE(epochs=1, hidden=32, body="conv"),
    DenoisingAutoencoder(epochs=2, hidden=32),
    VAE(epochs=2, hidden=32),
    ConditionalVAE(epochs=2, hidden=32),
    ConditionalVAE(epochs=1, hidden=32, body="conv", likelihood="gaussian"),
    GMM(components=3, pca=5),
    GMM(components=3, pca=None, covariance="diagonal", regularization=0.01),
    RBM(hidden=16, iterations=1),
    KMeans(centroids=8, patch=3, patches=200, iterations=2),
    RandomProjection(components=7),
    RandomPatches(dictionary=8, patch=3, patches=200),
    ImageStatistics(bins=4),
    RandomConvolutions(filters=3),
    Pretrained(
        model="torchvision:squeezenet1_1",
        weights=f"{WEIGHTS.name}/weights.pth",
        layers=("features.2", "output"),
        size=32,
    ),
    GAN(epochs=1, generator_hidden=32, discriminator_hidden=16, units="plu", discriminator_steps=2),
    BiGAN(epochs=1, hidden=32, objective="wasserstein_gp", critic_steps=2),
    BiGAN(epochs=1, hidden=32, body="conv", objective="wasserstein_gp", critic_steps=2),
    WGAN(epochs=2, width=4, critic_steps_at_first=3),
    WGAN(epochs=2, body="mlp", hidden=16, critic_steps_at_first=3),
    WGAN(epochs=2, width=4, critic_steps_at_first=3, spectral_norm=True),
    WGANGP(epochs=2, width=4, critic_steps=2),
    WGANGP(epochs=2, body="mlp", hidden=16, critic_steps=2, spectral_norm=True),
    LatentRegressor(epochs=2, hidden=32),
    LatentRegressor(epochs=1, hidden=32, body="conv", joint_weight=0.25),
    LatentRegressor(epochs=1, hidden=32, after_gan=True, discriminator_learning_rate=1e-3),
    ALI(epochs=2, body="mlp", hidden=32),
    ALI(epochs=1, hidden=32),
    VAE(epochs=1, hidden=32, body="conv"),
    DenoisingAutoencoder(epochs=1, hidden=32, body="conv"),
    AAE(epochs=2, hidden=32, posterior="gaussian", prior="mixture"),
    AAE(epochs=2, hidden=32, posterior="universal", prior="swiss_roll"),
    AAE(epochs=1, hidden=32, posterior="universal", prior="uniform", body="conv"),
    SupervisedAAE(epochs=2, hidden=32),
    LabelInformedAAE(epochs=2, hidden=32, labels=20),
    SemiSupervisedAAE(epochs=2, hidden=32, labels=20),
    ClusteringAAE(epochs=2, hidden=32),
    VICReg(epochs=2, body="small", projector=16, outputs=16),
    SimCLR(epochs=2, body="small", projector=16, outputs=8),
    SimCLR(epochs=1, body="conv", projector=16, outputs=8),
    BarlowTwins(epochs=2, body="small", projector=16, outputs=16),
    BYOL(epochs=2, body="small", projector=16, outputs=8, predictor=16),
    MoCo(epochs=2, body="small", projector=16, outputs=8, queue=300),
    DINO(epochs=2, body="small", projector=16, outputs=8, prototypes=12),
    SimSiam(epochs=2, body="small", projector=16, outputs=16, predictor=8),
    Rotation(epochs=2, body="small"),
    LeJEPA(epochs=2, body="small", projector=16, outputs=8, slices=16),
]


@pytest.fixture(scope="module")
def larger(digits: ImageSet) -> ImageSet:
    """Forty at 20x20, where every convolutional body has at least two convolutions."""
    images = np.pad(digits.images[:40].repeat(2, axis=2).repeat(2, axis=3), ((0, 0), (0, 0), (2, 2), (2, 2)))
    return dataclasses.replace(digits, images=images, labels=digits.labels[:40])


def in_batches_of(size: int, recipe: Encoder) -> Encoder:
    return recipe.model_copy(update={"batch_size": size}) if "batch_size" in type(recipe).model_fields else recipe


@pytest.mark.parametrize("recipe", SMALL, ids=lambda recipe: repr(recipe)[:60])
def test_keeps_its_promises(recipe: Encoder, larger: ImageSet) -> None:
    check_encoder(in_batches_of(10, recipe), larger)  # at least three steps, of which it is stopped after the second


TRAINED = [recipe for recipe in SMALL if "epochs" in type(recipe).model_fields]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("recipe", TRAINED, ids=lambda recipe: repr(recipe)[:60])
def test_optimizers_move_each_weight_by_its_own_gradient_and_moments(
    recipe: Encoder, precision: t.Literal["float32", "bfloat16"], larger: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are fused, and go through memory: all three have one layout, also after a resume, and plain ones agree."""
    steps, moved = 0, {}

    def check(optimizer: torch.optim.Optimizer, *_: object) -> None:
        nonlocal steps
        steps += 1
        (group,) = optimizer.param_groups
        weights = [parameter for parameter in group["params"] if parameter.grad is not None]
        plain = [nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format)) for weight in weights]
        settings = {name: value for name, value in group.items() if name not in ("params", "initial_lr")}
        twin = type(optimizer)(plain, **settings | {"fused": False} if "fused" in settings else settings)
        for weight, copy in zip(weights, plain):
            copy.grad = weight.grad.clone(memory_format=torch.contiguous_format)
            for name, kept in optimizer.state[weight].items():
                assert kept.shape != weight.shape or kept.stride() == weight.stride(), name
                twin.state[copy][name] = kept.clone(memory_format=torch.contiguous_format)
            assert weight.grad.stride() == weight.stride()
        twin.step()
        moved[optimizer] = weights, plain, group["lr"]

    def compare(optimizer: torch.optim.Optimizer, *_: object) -> None:
        weights, plain, learning_rate = moved[optimizer]
        for weight, copy in zip(weights, plain):
            torch.testing.assert_close(weight, copy, rtol=1e-6, atol=1e-3 * learning_rate, check_stride=False)

    def watched(start: t.Any, *arguments: t.Any) -> training.State:
        state: training.State = start(*arguments)
        for optimizer in state.optimizers.values():
            optimizer.register_step_pre_hook(check)
            optimizer.register_step_post_hook(compare)
        return state

    monkeypatch.setattr(training.State, "start", functools.partial(watched, training.State.start))
    few, data = in_batches_of(4, recipe), visible_to(larger, recipe, seed=0)
    first = Stopper(after=1)
    with pytest.raises(KeyboardInterrupt):
        few.fit(data, Training(0, precision=precision, keeper=first))
    taken = steps
    second = Stopper(after=1)
    second.content = first.content
    with pytest.raises(KeyboardInterrupt):
        few.fit(data, Training(0, precision=precision, keeper=second))
    assert steps > taken > 0


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=str)
@pytest.mark.parametrize("recipe", SMALL, ids=lambda recipe: repr(recipe)[:60])
def test_keeps_its_promises_at_full_size_in_both_precisions(
    recipe: Encoder, shape: ImageShape, precision: t.Literal["float32", "bfloat16"]
) -> None:
    rng = np.random.Generator(np.random.Philox(0))
    coarse = rng.integers(0, 256, (100, shape[0], 4, 4), np.uint8)
    images = coarse.repeat(shape[1] // 4, axis=2).repeat(shape[2] // 4, axis=3)
    check_encoder(recipe, ImageSet(images, np.arange(100) % 10, tuple("0123456789"), "patches"), precision)


@pytest.mark.parametrize("recipe", SMALL, ids=lambda recipe: repr(recipe)[:60])
def test_its_module_can_be_sent_to_workers(recipe: Encoder) -> None:
    with torch.random.fork_rng():
        module = recipe.build((1, 20, 20)).eval()
    images = torch.zeros(3, 1, 20, 20, dtype=torch.uint8)
    with torch.no_grad():
        before = module(images)
        given = pickle.loads(pickle.dumps(plain(module)))(images)
    assert all(torch.equal(rows.nan_to_num(), given[tap].nan_to_num()) for tap, rows in before.items())


def test_every_encoder_is_checked_here() -> None:
    assert {type(recipe) for recipe in SMALL} == set(resolve.encoders().values())


class Broken(Encoder):
    source: t.ClassVar[str] = "a mistake"
    mistake: str

    @property
    def taps(self) -> tuple[str, ...]:
        return ("other",) if self.mistake == "tap" else ("pixels",)

    def build(self, shape: ImageShape) -> nn.Module:
        module: nn.Module = _NaN() if self.mistake == "nan" else Pixels().build(shape)
        if self.mistake == "unsaved":
            module = _Unsaved()
        if self.mistake == "batch":
            module = _Mixed()
        return module

    def fit(self, train: ImageSet, run: Training) -> nn.Module:
        if self.mistake == "random state":
            torch.rand(1)
        if self.mistake == "images":
            train.images[0] = 255 - train.images[0]
        module = self.build(train.shape)
        if self.mistake == "unsaved":
            module.scale = 2.0  # type: ignore[assignment]
        if self.mistake == "seed":
            module = _Unsaved()
            module.scale = float(np.random.default_rng().random())
        return module.train() if self.mistake == "training" else frozen(module)


class _NaN(nn.Module):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"pixels": images.flatten(1).float() / 0}


class _Mixed(nn.Module):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        rows = images.flatten(1).float()
        return {"pixels": rows - rows.mean(dim=0)}


class _Unsaved(nn.Module):
    scale = 1.0

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"pixels": images.flatten(1).float() * self.scale}


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("tap", "promises taps"),
        ("nan", "NaN or infinity"),
        ("random state", "random state"),
        ("images", "changes the images"),
        ("training", "training mode"),
        ("unsaved", "saved and loaded"),
        ("seed", "gives different features for the same seed"),
        ("batch", "depend on the other images"),
    ],
)
def test_check_encoder_finds_a_broken_promise(mistake: str, words: str, digits: ImageSet) -> None:
    writable = dataclasses.replace(digits, images=digits.images.copy())
    with pytest.raises(EncoderError, match=words):
        check_encoder(Broken(mistake=mistake), writable)


class Unlikely(VAE):
    """Gives log-likelihoods of half of the images."""

    def log_likelihoods(
        self, module: nn.Module, generator: nn.Module, train: ImageSet, test: ImageSet
    ) -> dict[str, Tensor]:
        return {name: nats[::2] for name, nats in super().log_likelihoods(module, generator, train, test).items()}


def test_check_encoder_wants_a_log_likelihood_for_each_image(digits: ImageSet) -> None:
    with pytest.raises(EncoderError, match="Unlikely gives a binary_elbo that is not a finite number for each image"):
        check_encoder(Unlikely(epochs=2, hidden=8), digits)


def test_streams_of_random_numbers_are_pure_functions_and_leave_the_global_one_alone() -> None:
    assert derive_seed(0, "step", 1) == derive_seed(0, "step", 1) != derive_seed(0, "step", 2)
    before = torch.get_rng_state()
    with seeded(3, "init"):
        first = torch.rand(3)
    with seeded(3, "init"):
        assert torch.equal(first, torch.rand(3))
    assert torch.equal(before, torch.get_rng_state())


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_bigan_has_the_authors_networks() -> None:
    shape = (1, 28, 28)
    encoder = networks.BiGANEncoder(shape, 50)
    generator = networks.BiGANGenerator(shape, 50)
    discriminator = networks.BiGANDiscriminator(shape, 50)
    assert parameters(encoder) == 784 * 1024 + 1024 * 1024 + 1024 * 50  # no biases, no gains
    assert parameters(generator) == 50 * 1024 + 1024 * 1024 + 50 * 1024 + 1024 * 784
    assert parameters(discriminator) == 784 * 1024 + 1024 * 1024 + 50 * 1024 + 1024
    assert encoder.first.weight.std().item() == pytest.approx(0.02, rel=0.02)
    z = torch.rand(8, 50) * 2 - 1
    assert torch.equal(discriminator(generator(z), z), torch.zeros(8))  # the judge starts undecided


def test_bigan_starts_at_ln_2_for_both_players(digits: ImageSet) -> None:
    run = Training(0)
    BiGAN(epochs=1, hidden=32, batch_size=300).fit(digits.without_labels(), run)  # one step
    assert run.history[0]["discriminator_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert run.history[0]["generator_loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_bigan_defaults_are_the_papers() -> None:
    recipe = BiGAN()
    assert (recipe.latent, recipe.hidden, recipe.epochs, recipe.batch_size) == (50, 1024, 400, 128)
    assert (recipe.learning_rate, recipe.beta1, recipe.weight_decay) == (2e-4, 0.5, 2.5e-5)


def test_codes_of_a_uniform_prior_lie_between_minus_one_and_one(digits: ImageSet) -> None:
    module = BiGAN(epochs=0, hidden=32).fit(digits, Training(0))
    code = module(torch.from_numpy(digits.images))["code"]
    assert code.abs().max() < 1
    logits = module.body(networks.unit(torch.from_numpy(digits.images)))[1]
    assert torch.allclose(code, 2 * torch.sigmoid(logits) - 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 96, 96), (1, 8, 8), (2, 17, 30)])
def test_convolutional_bodies_fit_any_size(shape: ImageShape) -> None:
    images = torch.rand(2, *shape)
    z = torch.rand(2, 7)
    layers, logits = networks.ConvEncoder(shape, 7, hidden=16, width=4)(images)
    assert logits.shape == (2, 7)
    assert list(layers) == ["conv", "penultimate"]
    assert networks.ConvGenerator(shape, 7, width=4)(z).shape == images.shape
    assert networks.ConvDiscriminator(shape, 7, hidden=16, width=4)(images, z).shape == (2,)
    recipe = DCGAN(width=4)
    assert recipe.build(shape).eval()(images.mul(255).byte())["all"].shape[0] == 2


def test_deep_infomax_encoder_has_4096_features_at_32x32() -> None:
    layers, _ = networks.ConvEncoder((3, 32, 32), 64)(torch.rand(2, 3, 32, 32))
    assert layers["conv"].shape == (2, 4096)
    assert layers["penultimate"].shape == (2, 1024)


def test_images_too_small_for_convolutions_are_refused() -> None:
    with pytest.raises(EncoderError, match="at least 8x8; got 6x30"):
        DCGAN().build((1, 6, 30))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_dcgan_concatenates_7168_features(shape: ImageShape) -> None:
    features = DCGAN().build(shape).eval()(torch.zeros(2, *shape, dtype=torch.uint8))
    assert features["all"].shape == (2, (64 + 128 + 256) * 16)
    assert features["last"].shape == (2, 256 * 16)
    assert torch.equal(features["all"][:, -4096:], features["last"])


def test_dcgan_pools_each_layer_by_its_largest_value() -> None:
    module = DCGAN(width=4, layers=1).build((1, 8, 8)).eval()  # one 4x4 layer: nothing left to pool
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    layer = nn.functional.leaky_relu(module.convs[0](images.float() / 127.5 - 1), 0.2)
    assert torch.allclose(module(images)["all"], layer.flatten(1), atol=1e-6)


def test_a_maxout_unit_is_the_largest_of_its_pieces() -> None:
    module = GAN(discriminator_hidden=2, pieces=3).build((1, 1, 4))
    images = torch.randint(0, 256, (5, 1, 1, 4), dtype=torch.uint8)
    pieces = module.first.pieces(images.flatten(1).float() / 255)  # (5, 6): piece by piece, then unit by unit
    expected = torch.stack([pieces[:, [0, 2, 4]].amax(1), pieces[:, [1, 3, 5]].amax(1)], dim=1)
    assert torch.allclose(module(images)["hidden1"], expected)


def test_pca_is_scikit_learns(digits: ImageSet) -> None:
    module = PCA(components=5).fit(digits.without_labels(), Training(0))
    ours = module(torch.from_numpy(digits.images))["components"].numpy()
    theirs = ScikitPCA(5).fit_transform(digits.images.reshape(300, -1) / 255)
    assert np.allclose(np.abs(ours), np.abs(theirs), atol=1e-3)  # the sign of a direction is free


def test_pca_says_when_too_many_components_are_asked_of_it(digits: ImageSet) -> None:
    with pytest.raises(EncoderError, match="components=65 exceeds 300 images of 64 pixels; set components to 64"):
        PCA(components=65).fit(digits, Training(0))


def test_untrained_is_where_training_starts(digits: ImageSet) -> None:
    images = torch.from_numpy(digits.images)
    untrained = Untrained(architecture="bigan", parameters={"hidden": 32}).fit(digits, Training(5))(images)
    start = BiGAN(epochs=0, hidden=32).fit(digits, Training(5))(images)
    trained = BiGAN(epochs=2, hidden=32).fit(digits, Training(5))(images)
    assert torch.equal(untrained["penultimate"], start["penultimate"])
    assert not torch.equal(untrained["penultimate"], trained["penultimate"])


def test_untrained_is_another_recipe_when_its_architecture_has_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Untrained(architecture="bigan").revision
    monkeypatch.setattr(BiGAN, "version", BiGAN.version + 1)
    assert Untrained(architecture="bigan").revision == before + 1


@pytest.mark.parametrize("architecture", ["bigann", "pixels", "untrained", "networks"])
def test_untrained_refuses_what_is_not_trained(architecture: str) -> None:
    with pytest.raises(ValueError, match=architecture):
        Untrained(architecture=architecture)


def test_untrained_fills_in_the_defaults_of_its_architecture() -> None:
    assert Untrained(architecture="bigan").parameters == BiGAN().model_dump(mode="json")
    assert Untrained(architecture="bigan") == Untrained(architecture="bigan", parameters={"latent": 50})


def test_an_autoencoder_learns_to_give_the_pixels_back(digits: ImageSet) -> None:
    run = Training(0)
    Autoencoder(epochs=30, hidden=64, learning_rate=2e-3, batch_size=50).fit(digits.without_labels(), run)
    variance = (digits.images / 255).var(axis=0).mean()  # the loss of giving the mean image
    assert run.history[-1]["autoencoder_loss"] < variance / 2


def test_an_aae_pushes_its_codes_towards_the_prior(digits: ImageSet) -> None:
    def spread(epochs: int) -> float:
        recipe = AAE(epochs=epochs, hidden=64, latent=2, learning_rate=1e-3, adversarial_learning_rate=1e-3)
        module = recipe.fit(digits.without_labels(), Training(0))
        return module(torch.from_numpy(digits.images))["code"].std().item()

    assert spread(0) < 1  # where it starts
    assert 2 < spread(150) < 8  # near the prior's 5


NEW_AT_FULL_SIZE = [
    DCGAN(epochs=1, width=4, batch_size=4, layer_taps=True),
    WGAN(epochs=1, width=4, batch_size=4, critic_steps_at_first=2),
    WGAN(epochs=1, width=4, batch_size=4, critic_steps_at_first=2, spectral_norm=True),
    WGANGP(epochs=1, width=4, batch_size=4, critic_steps=2),
    LatentRegressor(epochs=1, hidden=16, batch_size=4),
    pytest.param(ALI(epochs=1, batch_size=4), marks=pytest.mark.slow),  # its optimizers are tested at 20x20
    BiGAN(epochs=1, hidden=16, batch_size=4, objective="wasserstein_gp"),
]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("recipe", NEW_AT_FULL_SIZE)
def test_adversaries_train_in_bfloat16_at_the_sizes_of_mnist_and_cifar10(recipe: Encoder, shape: ImageShape) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, *shape), dtype=np.uint8)
    images = ImageSet(pixels, None, ("0",), "noise")
    features = recipe.fit(images, Training(0, precision="bfloat16"))(torch.from_numpy(pixels))
    assert tuple(features) == recipe.taps
    assert all(rows.dtype == torch.float32 and bool(torch.isfinite(rows).all()) for rows in features.values())


@pytest.mark.parametrize("squash", [networks.Sigmoid(), networks.Tanh(), networks.Squash(), probabilities])
def test_what_saturates_keeps_its_slope_in_bfloat16(squash: t.Callable[[Tensor], Tensor]) -> None:
    logits = torch.tensor([[9.0, 0.0]], requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        squash(logits.to(torch.bfloat16))[0, 0].backward()
    assert logits.grad is not None and logits.grad[0, 0] > 0  # bfloat16 has 1 for sigmoid(9), and a slope of 0 there


@pytest.mark.parametrize(
    "recipe",
    [
        GAN(), DCGAN(width=4), WGAN(body="mlp"), WGAN(width=4), BiGAN(hidden=16), BiGAN(body="conv", hidden=16),
        ALI(latent=50), ALI(body="mlp", latent=50), AAE(hidden=16), Autoencoder(hidden=16),
    ],
    ids=lambda recipe: repr(recipe)[:40],
)  # fmt: skip
def test_generated_pixels_are_float32_in_bfloat16(recipe: Generative) -> None:
    generator = recipe.build_generator((3, 32, 32))
    with torch.autocast("cpu", torch.bfloat16):
        made = generator(torch.rand(2, recipe.latent))  # type: ignore[attr-defined]
    assert made.dtype == torch.float32


def test_categories_are_float32_in_bfloat16() -> None:
    taps = ClusteringAAE(hidden=16).build((1, 28, 28))
    with torch.autocast("cpu", torch.bfloat16):
        assert taps(torch.zeros(2, 1, 28, 28, dtype=torch.uint8))["cluster"].dtype == torch.float32


def test_dcgan_gives_each_layer_on_request() -> None:
    images = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    with seeded(0):
        alone = DCGAN(width=4).build((1, 28, 28)).eval()(images)
    with seeded(0):
        taps = DCGAN(width=4, layer_taps=True).build((1, 28, 28)).eval()(images)
    assert tuple(taps) == ("layer1", "layer2", "last", "all")
    assert torch.equal(torch.cat([taps["layer1"], taps["layer2"], taps["last"]], dim=1), taps["all"])
    assert torch.equal(taps["all"], alone["all"])
    with pytest.raises(
        EncoderError, match="layer_taps needs 3 layers, but 8x8 images have room for 1; set layers to 1"
    ):
        DCGAN(layer_taps=True).build((1, 8, 8))


def test_plu_is_the_formula_of_its_paper() -> None:
    module = GAN(units="plu", discriminator_hidden=5).build((1, 1, 3))
    with torch.no_grad():
        module.first.linear.weight.zero_()
        module.first.linear.bias.copy_(torch.tensor([-11.0, -1.0, 0.5, 1.0, 11.0]))
    hidden = module(torch.zeros(1, 1, 1, 3, dtype=torch.uint8))["hidden1"]
    assert hidden.tolist()[0] == pytest.approx([-2.0, -1.0, 0.5, 1.0, 2.0])


def steps_of(recipe: Encoder, images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The players in the order in which they move."""
    moves: list[str] = []

    def record(run: t.Any, images: t.Any, players: t.Sequence[training.Player], *rest: t.Any) -> None:
        watched = [
            dataclasses.replace(p, after=lambda p=p: (moves.append(p.name), p.after and p.after())[0]) for p in players
        ]
        training.train(run, images, watched, *rest)

    monkeypatch.setattr(sys.modules[type(recipe).__module__], "train", record)
    recipe.fit(images, Training(0))
    return moves


def test_discriminator_steps_come_before_each_of_the_generator(
    digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    small: dict[str, t.Any] = {"epochs": 2, "batch_size": 50, "generator_hidden": 8, "discriminator_hidden": 8}
    moves = steps_of(GAN(discriminator_steps=3, **small), digits, monkeypatch)
    assert moves == (["discriminator"] * 3 + ["generator"]) * 4  # 2 epochs of 6 batches
    assert steps_of(GAN(**small), digits, monkeypatch) == ["discriminator", "generator"] * 12


def test_discriminator_steps_of_dcgan_and_bigan(digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, small in ((DCGAN, {"width": 4}), (BiGAN, {"hidden": 8})):
        recipe = kind(epochs=2, batch_size=50, **small)  # type: ignore[arg-type]
        assert steps_of(recipe, digits, monkeypatch) == ["discriminator", "generator"] * 12
        more = recipe.model_copy(update={"discriminator_steps": 3})
        assert steps_of(more, digits, monkeypatch) == (["discriminator"] * 3 + ["generator"]) * 4  # 2 epochs of 6


def learning_rates(recipe: Encoder, images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Of each player, at the first step."""
    found = {}

    def record(run: t.Any, images: t.Any, players: t.Sequence[training.Player], *rest: t.Any) -> None:
        found.update({p.name: p.optimizer(p.parameters()).param_groups[0]["lr"] for p in players})

    monkeypatch.setattr(sys.modules[type(recipe).__module__], "train", record)
    recipe.fit(images, Training(0))
    return found


ADVERSARIAL = [GAN, DCGAN, BiGAN, ALI, WGAN, WGANGP, AAE, SupervisedAAE, LabelInformedAAE, SemiSupervisedAAE]


@pytest.mark.parametrize("kind", [*ADVERSARIAL, ClusteringAAE], ids=lambda kind: kind.__name__)
def test_a_discriminator_has_a_learning_rate_of_its_own(
    kind: type[Encoder], larger: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = "critic" if kind in (WGAN, WGANGP) else "discriminator"
    plain = learning_rates(kind(), larger, monkeypatch)
    other = learning_rates(kind(**{f"{judge}_learning_rate": 0.25}), larger, monkeypatch)
    judges = {name for name in plain if name.endswith(judge)}
    assert judges and {name for name in plain if other[name] != plain[name]} == judges
    assert {other[name] for name in judges} == {0.25}
    rival = "encoder" if "encoder" in plain else "generator"
    assert {plain[name] for name in judges} == {plain[rival]}


def test_gans_noise_is_uniform_with_variance_1(digits: ImageSet) -> None:
    noise = GAN().draw(1000, torch.device("cpu"))
    assert noise.shape == (1000, 100)
    assert math.sqrt(3) - 0.001 < noise.max() <= math.sqrt(3) and -math.sqrt(3) <= noise.min()
    assert noise.var().item() == pytest.approx(1, abs=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.02)


def test_wgans_perceptrons_make_images_by_a_linear_layer_for_25_epochs() -> None:
    assert WGAN().epochs == 25  # the authors' niter
    for recipe in (WGAN(body="mlp", hidden=8), WGANGP(body="mlp", hidden=8)):
        generator = recipe.build_generator((1, 4, 4))
        assert [layer for layer in generator.modules() if not list(layer.children())][-1].__class__ is nn.Linear
        pictures = recipe.pictures(torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0]))
        assert pictures.tolist() == [0, 0, 0.5, 1, 1]


def test_wgan_begins_with_many_steps_of_the_critic(digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = WGAN(body="mlp", hidden=8, epochs=7, batch_size=25, critic_steps=2, critic_steps_at_first=3)
    moves = steps_of(recipe, digits, monkeypatch)
    assert moves[: 25 * 4] == (["critic"] * 3 + ["generator"]) * 25
    assert moves[25 * 4 :] == (["critic"] * 2 + ["generator"]) * 4 + ["critic", "generator"]  # the last 9 of 84 batches


def test_wgans_long_turns_end_with_the_epoch(digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the authors' do, so that the generator moves in every epoch, however few batches it has."""
    recipe = WGAN(body="mlp", hidden=8, epochs=3, batch_size=30)
    assert steps_of(recipe, digits, monkeypatch) == (["critic"] * 10 + ["generator"]) * 3  # 100 asked of 10 batches


def test_wgan_keeps_the_critics_weights_clipped(digits: ImageSet) -> None:
    module = WGAN(body="mlp", hidden=16, epochs=1, clip=0.003, learning_rate=0.01).fit(digits, Training(0))
    largest = [parameter.abs().max().item() for parameter in module.parameters()]
    assert max(largest) == pytest.approx(0.003)


@pytest.mark.parametrize("recipe", [WGAN(body="mlp", hidden=16, epochs=3), WGANGP(body="mlp", hidden=16, epochs=3)])
def test_a_spectral_norm_critic_has_slope_at_most_1(recipe: WGAN | WGANGP, digits: ImageSet) -> None:
    chosen = (
        {"spectral_norm": True, "critic_steps_at_first": 5} if isinstance(recipe, WGAN) else {"spectral_norm": True}
    )
    run = Training(0)
    module = recipe.model_copy(update={"learning_rate": 1e-3, "epochs": 20, **chosen}).fit(digits, run)
    weights = [layer.weight for layer in (*module.layers, module.last)]
    assert [torch.linalg.matrix_norm(weight, 2).item() for weight in weights] == pytest.approx([1] * 4, rel=0.1)
    x = networks.signed(torch.from_numpy(digits.images))
    slopes = (module.logits(x[1:]) - module.logits(x[:-1])).abs() / (x[1:] - x[:-1]).flatten(1).norm(dim=1)
    assert slopes.max() < 1.1
    assert run.history[-1]["wasserstein_estimate"] > 0


def test_a_gradient_penalty_brings_the_critics_slope_to_about_1(digits: ImageSet) -> None:
    recipe = WGANGP(body="mlp", hidden=64, epochs=60, batch_size=50, learning_rate=1e-3)
    run = Training(0)
    module = recipe.fit(digits.without_labels(), run)
    assert run.history[-1]["wasserstein_estimate"] > 0
    x = networks.signed(torch.from_numpy(digits.images)).requires_grad_()
    (gradient,) = torch.autograd.grad(module.logits(x).sum(), x)
    assert 0.5 < gradient.flatten(1).norm(dim=1).mean() < 1.5


def test_a_convolutional_critic_learns_under_a_gradient_penalty(digits: ImageSet) -> None:
    run, images = Training(0), digits.images.repeat(2, axis=2).repeat(2, axis=3)
    recipe = WGANGP(width=8, epochs=10, batch_size=50, learning_rate=1e-3)
    recipe.fit(dataclasses.replace(digits, images=images, labels=None), run)
    assert run.history[-1]["wasserstein_estimate"] > 3  # 0.3 where weights are moved by each other's gradients


@pytest.mark.slow
def test_a_convolutional_critic_learns_two_thousand_digits() -> None:
    run, digits = Training(0), load("mnist5k", offline=True).train
    WGANGP(width=16, epochs=6).fit(dataclasses.replace(digits, images=digits.images[:2000], labels=None), run)
    assert run.history[-1]["wasserstein_estimate"] > 15  # 1.2 where weights are moved by each other's gradients


def test_the_critics_of_a_gradient_penalty_have_no_batch_norm() -> None:
    critics = [
        WGANGP().build((1, 28, 28)),
        networks.BiGANDiscriminator((1, 28, 28), 5, 8, norm=False),
        networks.ConvDiscriminator((1, 28, 28), 5, 8, norm=False),
    ]
    assert not [layer for critic in critics for layer in critic.modules() if "BatchNorm" in type(layer).__name__]
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in WGAN().build((1, 28, 28)).modules())


def test_a_conditional_vae_draws_images_of_the_class_it_is_told() -> None:
    pixels, labels = load_digits(return_X_y=True)
    images = ImageSet(
        np.round(pixels * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8), labels, tuple("0123456789"), "digits"
    )
    recipe, run = ConditionalVAE(epochs=30, hidden=128, latent=5), Training(0)
    code = recipe.fit(images, run)(torch.from_numpy(images.images))["code"]
    assert run.generator is not None
    classifier = LogisticRegression(max_iter=1000).fit(pixels / 16, labels)
    with seeded(0):
        drawn = recipe.draw(2000, torch.device("cpu"))
    told = drawn[:, 5:].argmax(dim=1).numpy()
    made = recipe.pictures(run.generator(drawn)).flatten(1).numpy()
    assert (classifier.predict(made) == told).mean() > 0.95
    assert np.bincount(told).min() > 150
    assert LogisticRegression(max_iter=1000).fit(code, labels).score(code, labels) < 0.5  # what is left is the style


def test_a_latent_regressor_leaves_its_gan_alone_and_a_joint_one_does_not(
    digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def discriminator(joint_weight: float) -> Tensor:
        recipe = LatentRegressor(hidden=16, epochs=4, batch_size=50, learning_rate=2e-3, joint_weight=joint_weight)
        return recipe.fit(digits, Training(0))(torch.from_numpy(digits.images))["discriminator"]

    def without_encoder(run: t.Any, images: t.Any, players: t.Any, turns: t.Any, *rest: t.Any) -> None:
        def losses(images: Tensor) -> dict[str, Tensor]:
            return {name: loss for name, loss in turns[0].losses(images).items() if name != "encoder"}

        turn = dataclasses.replace(turns[0], losses=losses)
        training.train(run, images, [p for p in players if p.name != "encoder"], [turn], *rest)

    regressor, joint = discriminator(0.0), discriminator(0.25)
    monkeypatch.setattr("encoders.latent_regressor.train", without_encoder)
    assert torch.equal(regressor, discriminator(0.0))
    assert not torch.equal(joint, regressor)


def test_a_latent_regressor_starts_undecided_and_learns_to_read_the_noise(digits: ImageSet) -> None:
    run = Training(0)
    LatentRegressor(hidden=32, epochs=1, batch_size=300).fit(digits.without_labels(), run)  # one step
    assert run.history[0]["encoder_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert run.history[0]["discriminator_loss"] == pytest.approx(math.log(2), abs=1e-6)
    run = Training(0)
    LatentRegressor(hidden=64, latent=2, epochs=60, batch_size=50, learning_rate=2e-3).fit(digits.without_labels(), run)
    assert run.history[-1]["encoder_loss"] < 0.6  # log 2 knows nothing; 1/2, the mean entropy, is all


def test_a_latent_regressor_after_its_gan_learns_to_read_the_same_gan(digits: ImageSet) -> None:
    def fitted(**how: t.Any) -> tuple[Features, nn.Module, list[dict[str, float]]]:
        run = Training(0)
        recipe = LatentRegressor(hidden=64, latent=2, epochs=30, batch_size=50, learning_rate=2e-3, **how)
        features = recipe.fit(digits.without_labels(), run)(torch.from_numpy(digits.images))
        assert run.generator is not None
        return features, run.generator, run.history

    (beside, one, _), (after, other, history) = fitted(), fitted(after_gan=True)
    assert torch.equal(beside["discriminator"], after["discriminator"])  # nothing of the GAN depends on the encoder
    assert all(torch.equal(weight, other.state_dict()[name]) for name, weight in one.state_dict().items())
    assert not torch.equal(beside["code"], after["code"])
    assert len(history) == 60  # as many epochs again
    assert history[30]["encoder_loss"] > 0.6  # of the first epoch of its own: log 2 knows nothing
    assert history[59]["encoder_loss"] < 0.56  # 1/2, the mean entropy, is all
    with pytest.raises(ValueError, match="set one of them"):
        LatentRegressor(after_gan=True, joint_weight=0.25)


def test_a_latent_regressors_discriminator_has_a_learning_rate_of_its_own(digits: ImageSet) -> None:
    def fitted(**rates: float) -> tuple[Features, Tensor]:
        run = Training(0)
        recipe = LatentRegressor(hidden=16, epochs=1, batch_size=300, **rates)  # one step
        features = recipe.fit(digits.without_labels(), run)(torch.from_numpy(digits.images))
        assert run.generator is not None
        return features, run.generator.state_dict()["last.weight"]

    (same, made), (also, again) = (
        fitted(learning_rate=1e-4),
        fitted(learning_rate=1e-4, discriminator_learning_rate=1e-2),
    )
    (_, slow), (_, fast) = fitted(learning_rate=1e-4), fitted(learning_rate=1e-2, discriminator_learning_rate=1e-4)
    assert torch.equal(made, again)
    assert torch.equal(same["code"], also["code"])
    assert not torch.equal(same["discriminator"], also["discriminator"])
    assert not torch.equal(slow, fast)


def test_ali_has_the_authors_networks() -> None:
    recipe, shape = ALI(), (3, 32, 32)
    module = recipe.build(shape)
    convolutions = 3 * 25 * 32 + 32 * 16 * 64 + 64 * 16 * 128 + 128 * 16 * 256 + 256 * 16 * 512 + 512 * 512
    norms, heads = 2 * (32 + 64 + 128 + 256 + 512 + 512), 512 * 128 + 128
    assert parameters(module) == convolutions + norms + heads
    features = frozen(module)(torch.zeros(2, *shape, dtype=torch.uint8))
    assert [rows.shape[1] for rows in features.values()] == [512, 64, 256 * 16 + 512 + 512 + 64]
    assert [tuple(conv.kernel_size) for conv in ALI().build((1, 28, 28)).body.convs][-2:] == [(3, 3), (1, 1)]
    with pytest.raises(EncoderError, match="at least 20x20 pixels; got 8x8; try body: mlp"):
        recipe.build((1, 8, 8))


def test_ali_reads_the_mean_of_its_posterior_as_the_code(digits: ImageSet) -> None:
    module = ALI(body="mlp", hidden=16, latent=3, epochs=1).fit(digits, Training(0))
    images = torch.from_numpy(digits.images)
    posterior = module.body(networks.unit(images))[1]
    assert torch.equal(module(images)["code"], posterior[:, :3])
    assert posterior.shape == (300, 6)
