"""On a GPU, pretended by tests/pretend_gpu.py: no tensor is left on the processor, and no step waits."""

import contextlib
import dataclasses
import types
import typing as t
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.pipeline.judge import where_it_fits
from bench.suites import resolve
from encoders import training
from encoders.aae import AAE
from encoders.ali import ALI
from encoders.autoencoder import Autoencoder
from encoders.barlow_twins import BarlowTwins
from encoders.base import Encoder, ImageSet, Training, seeded, visible_to
from encoders.batch_norm import recalibrate_batch_norm
from encoders.bigan import BiGAN
from encoders.byol import BYOL
from encoders.check import check_encoder, fit_with_a_stop
from encoders.clustering_aae import ClusteringAAE
from encoders.conditional_vae import ConditionalVAE
from encoders.dcgan import DCGAN
from encoders.denoising_autoencoder import DenoisingAutoencoder
from encoders.dino import DINO
from encoders.gan import GAN
from encoders.gmm import GMM
from encoders.history import History
from encoders.image_statistics import ImageStatistics
from encoders.kmeans import KMeans
from encoders.label_informed_aae import LabelInformedAAE
from encoders.latent_regressor import LatentRegressor
from encoders.lejepa import LeJEPA
from encoders.moco import MoCo
from encoders.pca import PCA
from encoders.pixels import Pixels
from encoders.players import Adam, Player, Turn
from encoders.random_convolutions import RandomConvolutions
from encoders.random_patches import RandomPatches
from encoders.random_projection import RandomProjection
from encoders.rbm import RBM
from encoders.rotation import Rotation
from encoders.semisupervised_aae import SemiSupervisedAAE
from encoders.simclr import SimCLR
from encoders.simsiam import SimSiam
from encoders.sklearn import EncoderTransformer
from encoders.supervised_aae import SupervisedAAE
from encoders.untrained import Untrained
from encoders.vae import VAE
from encoders.vicreg import VICReg
from encoders.wgan import WGAN
from encoders.wgan_gp import WGANGP
from protocols import generative
from protocols.argmax import Argmax
from protocols.assignment import Assignment
from protocols.base import Corrupted, FeatureSet, Protocol, Quality, SampleProtocol, Samples, Scores
from protocols.cluster import Cluster
from protocols.fewshot import FewShot
from protocols.geometry import Geometry
from protocols.knn import KNN
from protocols.linear import Linear
from protocols.mlp import MLP
from protocols.retrieval import Retrieval
from protocols.robustness import Robustness
from protocols.sgd_linear import SGDLinear
from protocols.svm import SVM
from protocols.two_sample import TwoSample

CPU = torch.device("cpu")
SMALL: dict[str, t.Any] = {"epochs": 1, "batch_size": 20}
VIEWS: dict[str, t.Any] = {"body": "small", "projector": 16, **SMALL}

RECIPES: dict[str, Encoder] = {
    "aae": AAE(hidden=16, **SMALL),
    "aae conv": AAE(body="conv", hidden=16, prior="uniform", **SMALL),
    "aae gaussian": AAE(hidden=16, posterior="gaussian", prior="mixture", **SMALL),
    "aae universal": AAE(hidden=16, posterior="universal", prior="swiss_roll", **SMALL),
    "ali": ALI(latent=4, **SMALL),
    "ali mlp": ALI(body="mlp", hidden=16, latent=4, **SMALL),
    "autoencoder": Autoencoder(hidden=16, latent=4, **SMALL),
    "barlow_twins": BarlowTwins(outputs=16, **VIEWS),
    "bigan": BiGAN(hidden=16, latent=4, **SMALL | {"epochs": 2}),
    "bigan conv": BiGAN(body="conv", hidden=16, latent=4, **SMALL),
    "bigan wasserstein": BiGAN(objective="wasserstein_gp", hidden=16, latent=4, critic_steps=2, **SMALL),
    "byol": BYOL(outputs=8, predictor=16, **VIEWS),
    "clustering_aae": ClusteringAAE(hidden=16, clusters=5, consistency=1.0, smoothness=1.0, balance=1.0, **SMALL),
    "conditional_vae": ConditionalVAE(hidden=16, **SMALL),
    "dcgan": DCGAN(width=4, latent=8, **SMALL),
    "dino": DINO(outputs=8, prototypes=16, **VIEWS),
    "denoising_autoencoder": DenoisingAutoencoder(hidden=16, latent=4, corruption="salt_and_pepper", **SMALL),
    "gan": GAN(generator_hidden=16, discriminator_hidden=8, **SMALL),
    "gan steps": GAN(
        generator_hidden=16, discriminator_hidden=8, discriminator_steps=2, optimizer="adam", units="plu", **SMALL
    ),
    "gmm": GMM(components=3, pca=5, iterations=3),
    "gmm tied": GMM(components=3, pca=5, covariance="tied", iterations=3),
    "gmm diagonal": GMM(components=3, pca=None, covariance="diagonal", iterations=3),
    "image_statistics": ImageStatistics(bins=4),
    "kmeans": KMeans(centroids=8, patch=3, patches=200, iterations=3),
    "label_informed_aae": LabelInformedAAE(hidden=16, labels=20, **SMALL),
    "latent_regressor": LatentRegressor(hidden=16, latent=4, joint_weight=0.25, **SMALL),
    "lejepa": LeJEPA(outputs=8, slices=16, **VIEWS),
    "moco": MoCo(outputs=8, queue=64, **VIEWS),
    "pca": PCA(components=5),
    "pixels": Pixels(),
    "random_convolutions": RandomConvolutions(filters=3),
    "random_patches": RandomPatches(dictionary=8, patch=3, patches=200),
    "random_projection": RandomProjection(components=5),
    "rbm": RBM(hidden=8, iterations=1),
    "rotation": Rotation(body="small", **SMALL),
    "semisupervised_aae": SemiSupervisedAAE(hidden=16, labels=20, consistency=1.0, **SMALL),
    "simclr": SimCLR(outputs=8, **VIEWS),
    "simsiam": SimSiam(outputs=16, predictor=8, **VIEWS),
    "supervised_aae": SupervisedAAE(hidden=16, **SMALL),
    "untrained": Untrained(architecture="dcgan", parameters={"width": 4}),
    "vae": VAE(hidden=16, latent=4, **SMALL),
    "vae conv": VAE(likelihood="gaussian", body="conv", hidden=16, latent=4, **SMALL),
    "vicreg": VICReg(outputs=16, **VIEWS),
    "wgan": WGAN(width=4, latent=8, critic_steps=2, critic_steps_at_first=3, **SMALL),
    "wgan spectral": WGAN(
        body="mlp", hidden=16, latent=8, critic_steps=2, critic_steps_at_first=3, spectral_norm=True, **SMALL
    ),
    "wgan_gp": WGANGP(width=4, latent=8, critic_steps=2, **SMALL),
}
KERNELS = {  # operations of a step at most; about one kernel each, and the loop's own are among them
    "aae": 120,
    "aae conv": 143,
    "aae gaussian": 159,
    "aae universal": 147,
    "ali": 676,
    "ali mlp": 150,
    "autoencoder": 55,
    "barlow_twins": 828,
    "bigan": 149,
    "bigan conv": 172,
    "bigan wasserstein": 349,
    "byol": 1008,
    "clustering_aae": 468,
    "conditional_vae": 87,
    "dcgan": 119,
    "denoising_autoencoder": 50,
    "dino": 1073,
    "gan": 149,
    "gan steps": 557,
    "label_informed_aae": 199,
    "latent_regressor": 152,
    "lejepa": 921,
    "moco": 643,
    "rotation": 179,
    "semisupervised_aae": 401,
    "simclr": 768,
    "simsiam": 512,
    "supervised_aae": 150,
    "vae": 85,
    "vae conv": 98,
    "vicreg": 895,
    "wgan": 348,
    "wgan spectral": 1009,
    "wgan_gp": 253,
}
TRAINED = [name for name, recipe in RECIPES.items() if "epochs" in type(recipe).model_fields]


def images(count: int = 60, side: int = 16) -> ImageSet:
    """Noise; at 16 x 16 every convolutional body has convolutions whose layouts matter."""
    made = np.random.default_rng(0).integers(0, 256, (count, 1, side, side), dtype=np.uint8)
    return ImageSet(made, np.arange(count) % 10, tuple("0123456789"), "made up")


def fitted(
    recipe: Encoder, device: torch.device, precision: t.Any = "float32", stop: bool = False
) -> tuple[torch.nn.Module, Training]:
    run = Training(0, device, precision)
    several = isinstance(recipe, WGAN | WGANGP) or recipe in (RECIPES["gan steps"], RECIPES["bigan wasserstein"])
    count = getattr(recipe, "batch_size", 20) * (6 if several else 3)  # a step of these uses up to three batches
    given = visible_to(images(count, side=20 if isinstance(recipe, ALI) else 16), recipe, 0)
    return (fit_with_a_stop(recipe, given, run, after=1) if stop else recipe.fit(given, run)), run


@pytest.fixture(autouse=True)
def generators_settle_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encoders.batch_norm.GENERATOR_BATCHES", 2)


def test_every_encoder_is_here() -> None:
    of_files = {"pretrained"}  # what it is depends on a file
    assert resolve.encoders().keys() == {name.split()[0] for name in RECIPES} | of_files


@dataclasses.dataclass
class Steps:
    """What each step did on the device, but for the first of an epoch, which uploads the epoch's order."""

    waits: list[dict[tuple[str, str], int]] = dataclasses.field(default_factory=list)
    copies: list[dict[tuple[str, str], int]] = dataclasses.field(default_factory=list)
    kernels: list[int] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def steps_of(seen: t.Any) -> t.Iterator[Steps]:
    """Watches the trainings inside the block."""
    found, before = Steps(), None
    real = History.step_done

    def step_done(self: History, read: int) -> None:
        nonlocal before
        if before is not None:
            waits, copies, kernels = before
            found.waits.append(dict(seen.waits - waits))
            found.copies.append(dict(seen.uploads + seen.downloads - copies))
            found.kernels.append((seen.kernels - kernels).total())
        real(self, read)  # waits where an epoch ends
        kept = seen.waits.copy(), seen.uploads + seen.downloads, seen.kernels.copy()
        before = kept if self.index else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(History, "step_done", step_done)
        patch.setattr("encoders.history.REPORT_SECONDS", 1e9)
        yield found


@pytest.mark.parametrize("name", RECIPES)
def test_an_encoder_is_fitted_on_a_gpu_as_on_the_processor(name: str, gpu: types.ModuleType) -> None:
    """To about the same weights, as the kernels are the processor's here (Adam makes a rounding a step): all that is
    drawn in the loop is drawn from the seed. No step waits or copies, a stop changes no bit, and no random state is
    left changed."""
    recipe = RECIPES[name]
    before = torch.get_rng_state()
    with gpu.pretend_gpu() as seen:
        device_state = torch.cuda.get_rng_state()
        with steps_of(seen) as steps:
            module, run = fitted(recipe, gpu.CUDA)
        assert all(isinstance(x, gpu.Pretend) for x in (*module.parameters(), *module.buffers()))
        assert torch.equal(device_state, torch.cuda.get_rng_state())
        weights = {key: x.cpu() for key, x in module.state_dict().items()}
        if name in TRAINED:
            assert steps.waits == steps.copies == [{}] * len(steps.waits)
            assert max(steps.kernels) <= KERNELS[name]
            stopped, _ = fitted(recipe, gpu.CUDA, stop=True)
            for key, x in stopped.state_dict().items():
                assert torch.equal(x.cpu(), weights[key]), f"{key} differs once the training was stopped"
    assert torch.equal(before, torch.get_rng_state())
    alone, other = fitted(recipe, CPU)
    for key, x in alone.state_dict().items():
        torch.testing.assert_close(weights[key], x, rtol=0.02, atol=0.02, msg=lambda said, key=key: f"{key}: {said}")
    assert [row.keys() for row in run.history] == [row.keys() for row in other.history]


CONVOLUTIONS = {"ali", *(name for name in TRAINED if "conv" in name or "body='small'" in repr(RECIPES[name]))}


@pytest.mark.parametrize(  # convolutions take 20 times longer where bfloat16 is emulated
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in CONVOLUTIONS)) for name in TRAINED]
)
def test_a_step_in_bfloat16_does_not_wait_either(name: str, gpu: types.ModuleType) -> None:
    with gpu.pretend_gpu() as seen, steps_of(seen) as steps:
        fitted(RECIPES[name], gpu.CUDA, "bfloat16")
    assert steps.kernels
    assert steps.waits == steps.copies == [{}] * len(steps.waits)


PROTOCOLS: dict[str, Protocol] = {
    "argmax": Argmax(),
    "assignment": Assignment(),
    "cluster": Cluster(restarts=2),
    "cluster spectral": Cluster(method="spectral", restarts=2),
    "fewshot": FewShot(draws=2, head="linear"),
    "geometry": Geometry(),
    "knn": KNN(k=5, weights="distance"),
    "knn cosine": KNN(k=20, metric="cosine", weights="temperature"),
    "linear": Linear(),
    "mlp": MLP(epochs=2, learning_rates=(1e-3,)),
    "retrieval": Retrieval(),
    "sgd_linear": SGDLinear(epochs=2, learning_rates=(0.1,), repeats=2),
    "svm": SVM(),
}


def blobs(rows: int, seed: int) -> FeatureSet:
    labels = torch.arange(rows) % 4
    noise = np.random.default_rng(seed).normal(scale=3, size=(rows, 24))
    return FeatureSet(10 * torch.eye(4, 24)[labels] + torch.from_numpy(noise).float(), labels, 4)


def test_every_protocol_is_here() -> None:
    assert resolve.protocols().keys() == {name.split()[0] for name in PROTOCOLS} | {
        "robustness",
        "generative",
        "two_sample",
    }


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_scores_on_a_gpu_as_on_the_processor(name: str, gpu: types.ModuleType) -> None:
    train, test = blobs(100, 0), blobs(60, 1)
    expected = PROTOCOLS[name].score(train, test, seed=0)
    with gpu.pretend_gpu():
        found = PROTOCOLS[name].score(train.to(gpu.CUDA), test.to(gpu.CUDA), seed=0)
        assert found.metrics == pytest.approx(expected.metrics, rel=0.01)  # fused optimizers are the device's
        if isinstance(found, Scores):
            assert found.predictions.device == gpu.CUDA


@pytest.mark.parametrize("probe", ["knn", "linear"])
def test_robustness_is_judged_on_a_gpu(probe: t.Any, gpu: types.ModuleType) -> None:
    protocol = Robustness(probe=probe)
    sets = [blobs(100, 0), *(blobs(60, seed) for seed in (1, 2, 3))]

    def judged(train: FeatureSet, test: FeatureSet, *damaged: FeatureSet) -> Scores:
        of = [Corrupted("noise", severity, rows) for severity, rows in enumerate(damaged, 1)]
        return protocol.judge(train, test, of, seed=0)

    expected = judged(*sets)
    with gpu.pretend_gpu():
        found = judged(*(rows.to(gpu.CUDA) for rows in sets))
    assert found.metrics == pytest.approx(expected.metrics)


@pytest.mark.parametrize(
    "protocol",
    [generative.GenerativeQuality(samples=60, validation=50), TwoSample(samples=60)],
    ids=lambda one: type(one).__name__,
)
def test_samples_are_judged_on_a_gpu_as_on_the_processor(
    protocol: SampleProtocol, gpu: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("generative", "two_sample"):
        monkeypatch.setattr(f"protocols.{module}.CLASSIFIER_IMAGES", 256)
    chance = torch.Generator().manual_seed(0)
    real = FeatureSet(torch.rand(100, 64, generator=chance), torch.arange(100) % 4, 4)
    made, again = (torch.rand(count, 1, 8, 8, generator=chance) for count in (60, 100))

    def judged(device: torch.device) -> Quality:
        rows = real.to(device)
        samples = Samples(made.to(device), again.to(device), (1, 8, 8), {"elbo": torch.ones(100, device=device)})
        return protocol.judge(samples, rows, rows, seed=0)

    expected = judged(CPU)
    before = torch.get_rng_state()
    with gpu.pretend_gpu():
        device_state = torch.cuda.get_rng_state()
        found = judged(gpu.CUDA)
        assert torch.equal(device_state, torch.cuda.get_rng_state())
    generative._CLASSIFIERS.clear()  # one that pretends is of no use elsewhere
    assert torch.equal(before, torch.get_rng_state())
    assert found.metrics == pytest.approx(expected.metrics, rel=1e-4)


def test_a_suite_is_run_on_a_gpu(
    frostbench: t.Callable[..., t.Any], tmp_path: Path, gpu: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generative, "CLASSIFIER_IMAGES", 256)
    (tmp_path / "small.yaml").write_text(
        "suite: small\ndatasets: [{name: digits, limit: 60}]\nseeds: [0]\ncontrols: none\nwandb: {mode: off}\n"
        "encoders: [{name: bigan, hidden: 16, epochs: 1}, {name: dcgan, width: 4, epochs: 1}]\n"
        "protocols: [linear, {name: knn, k: 1}, {name: generative, samples: 50, validation: 20}]\n"
    )
    with gpu.pretend_gpu() as seen:
        done = frostbench("run", "small.yaml", "--device", "cuda", "--threads", "1", "--offline")
    assert done.code == 0, done.err
    assert any(line.startswith("encoders/training.py") for _, line in seen.uploads)
    assert any(line.startswith("protocols/") for _, line in seen.waits)


def test_images_beyond_a_share_of_its_memory_are_copied_a_batch_at_a_time(gpu: types.ModuleType) -> None:
    """Through main memory that is pinned, without a wait, to the same weights."""
    recipe = RECIPES["supervised_aae"]
    with gpu.pretend_gpu():
        whole, _ = fitted(recipe, gpu.CUDA)
        expected = {key: x.cpu() for key, x in whole.state_dict().items()}
    with gpu.pretend_gpu(memory=images().images.nbytes) as seen, steps_of(seen) as steps:
        module, _ = fitted(recipe, gpu.CUDA)
        assert all(torch.equal(x.cpu(), expected[key]) for key, x in module.state_dict().items())
    assert steps.waits == [{}] * len(steps.waits)
    assert all(steps.copies)


def test_features_are_scored_where_they_fit(gpu: types.ModuleType) -> None:
    sets = blobs(40, 0), blobs(20, 1)
    size = sum(rows.features.nbytes for rows in sets)
    for memory, device in ((4 * size, gpu.CUDA), (4 * size - 4, CPU)):
        with gpu.pretend_gpu(memory=memory):
            assert {rows.features.device for rows in where_it_fits(gpu.CUDA, *sets)} == {device}
    assert where_it_fits(CPU, *sets) == sets


@pytest.mark.parametrize("name", ["vae", "kmeans"])
def test_an_encoder_is_checked_on_a_gpu(name: str, gpu: types.ModuleType) -> None:
    with gpu.pretend_gpu() as seen:
        check_encoder(RECIPES[name], images(), device=gpu.CUDA)
    assert seen.kernels


def test_a_file_is_checked_on_a_gpu(frostbench: t.Callable[..., t.Any], tmp_path: Path, gpu: types.ModuleType) -> None:
    (tmp_path / "mine.py").write_text(
        "from encoders.pca import PCA\nfrom protocols.argmax import Argmax\n"
        "class Few(PCA):\n    components: int = 3\n"
        "class Largest(Argmax):\n    pass\n"
    )
    with gpu.pretend_gpu() as seen:
        done = frostbench("check", "mine.py", "--device", "cuda")
    assert done.code == 0, done.err
    assert seen.kernels


def test_a_transformer_learns_on_a_gpu(gpu: types.ModuleType) -> None:
    rows = images().images.reshape(60, -1).astype(np.float32)
    given: dict[str, t.Any] = {"encoder": "vae", "shape": (1, 16, 16), "params": {"hidden": 16, "latent": 4, **SMALL}}
    expected = EncoderTransformer(**given).fit_transform(rows)
    with gpu.pretend_gpu() as seen:
        found = EncoderTransformer(**given, device="cuda").fit_transform(rows)
    assert seen.kernels
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02)


def test_a_run_on_the_processor_does_not_start_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda._lazy_init", lambda: pytest.fail("CUDA was started"))
    monkeypatch.setattr("torch.cuda._lazy_call", lambda *_, **__: None)  # what is seeded once it is
    with seeded(0, "anything"):
        torch.rand(1)


def test_a_step_is_seeded_as_by_torch() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        expected = torch.get_rng_state()
        torch.rand(3)
        training._seed(7, CPU)
        assert torch.equal(torch.get_rng_state(), expected)


REFUSED: dict[str, t.Callable[[Tensor, Tensor], t.Any]] = {
    "sum": lambda x, c: x + c,
    "product": lambda x, c: x @ c.T,
    "cat": lambda x, c: torch.cat([x, c]),
    "where": lambda x, c: torch.where(x > 0, x, c),
    "in place": lambda x, c: c.add_(x),
    "out": lambda x, c: torch.mm(x, x.T, out=torch.empty(3, 3)),
    "index": lambda x, c: c[torch.zeros(2, dtype=torch.int64, device="cuda")],
    "layer": lambda x, c: torch.nn.Linear(4, 2)(x),
    "numpy": lambda x, c: x.numpy(),
    "asarray": lambda x, c: np.asarray(x),
    "generator": lambda x, c: torch.randn(3, device="cuda", generator=torch.Generator()),
    "whole numbers": lambda x, c: x.long() @ x.long().T,
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_pretence_refuses_what_a_gpu_refuses(what: str, gpu: types.ModuleType) -> None:
    with gpu.pretend_gpu(), pytest.raises((gpu.DeviceError, TypeError)):
        REFUSED[what](torch.ones(3, 4, device="cuda"), torch.ones(3, 4))


def test_the_pretence_allows_what_a_gpu_allows(gpu: types.ModuleType) -> None:
    with gpu.pretend_gpu() as seen:
        x, c = torch.ones(3, 4, device="cuda"), torch.ones(3, 4)
        for y in (
            x + 1,
            x * torch.tensor(2.0),
            x[torch.tensor([0, 1])],
            c.to(x),
            torch.tensor([1.0], device="cuda") + x,
        ):
            assert y.device == gpu.CUDA
        assert not seen.waits
        assert (x[x > 0].sum() == 12).item()
        assert seen.waits.total() == 2
        assert x.cpu().numpy().sum() == 12


class Mistaken(Autoencoder):
    """An autoencoder with a mistake in its loss that only a GPU shows."""

    def mistake(self, code: Tensor) -> Tensor:
        raise NotImplementedError

    def fit(self, data: ImageSet, run: Training) -> torch.nn.Module:
        taps = self.build(data.shape)

        def lose(shown: Tensor) -> dict[str, Tensor]:
            return {"autoencoder": self.mistake(taps.body(shown.float() / 255)[1])}

        player = Player("autoencoder", [taps.body], Adam(1e-3))
        training.train(run, data, [player], [Turn(lose)], self.epochs, self.batch_size)
        return recalibrate_batch_norm(taps, data, run)


class DrawsOnTheProcessor(Mistaken):
    def mistake(self, code: Tensor) -> Tensor:
        return (code + torch.randn(code.shape)).square().mean()


class Waits(Mistaken):
    def mistake(self, code: Tensor) -> Tensor:
        return code.square().mean() / max(1.0, float(code.detach().max()))


def test_a_tensor_left_on_the_processor_is_found(gpu: types.ModuleType) -> None:
    recipe = DrawsOnTheProcessor(hidden=16, latent=4, **SMALL)
    fitted(recipe, CPU)
    with gpu.pretend_gpu(), pytest.raises(gpu.DeviceError, match="not on the same device"):
        fitted(recipe, gpu.CUDA)


def test_a_wait_in_a_step_is_found(gpu: types.ModuleType) -> None:
    with gpu.pretend_gpu() as seen, steps_of(seen) as steps:
        fitted(Waits(hidden=16, latent=4, **SMALL), gpu.CUDA)
    assert steps.waits
    assert all(sum(waits.values()) == 1 for waits in steps.waits)


def test_a_moment_of_another_layout_than_its_weight_is_found(
    gpu: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encoders.checkpoint.in_layout_of", lambda parameter, tensor: tensor.contiguous())
    with gpu.pretend_gpu(), pytest.raises(gpu.DeviceError, match="have the layouts"):
        fitted(RECIPES["dcgan"], gpu.CUDA, stop=True)
