"""Self-supervised methods: each loss against NumPy by hand, the teacher's mean, and the collapse that is to be seen."""

import typing as t

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.integrate import quad
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from bench.pipeline.diagnostics import diagnose
from encoders import networks
from encoders.barlow_twins import BarlowTwins
from encoders.base import EncoderError, Features, ImageSet, Training
from encoders.byol import BYOL
from encoders.dino import DINO, Centre, Prototypes
from encoders.distributed import ProcessGroup
from encoders.joint_embedding import MomentumTeacher, _JointEmbedding, steps_of
from encoders.lejepa import LeJEPA, epps_pulley, sigreg
from encoders.moco import MoCo, Queue, info_nce
from encoders.networks import POOLED_BODIES, ProjectedTaps, Projector
from encoders.rotation import Rotation, in_steps
from encoders.simclr import SimCLR, nt_xent
from encoders.simsiam import SimSiam
from encoders.vicreg import VICReg


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    images, _ = load_digits(return_X_y=True)
    pixels = np.round(images[:300] * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    return ImageSet(pixels, None, tuple("0123456789"), "digits")


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(7, 5, generator=generator)
    return one, one + 0.5 * torch.randn(7, 5, generator=generator)


def by_hand(pair: tuple[Tensor, Tensor]) -> tuple[t.Any, t.Any]:
    one, other = (z.double().numpy() for z in pair)
    return one, other


def test_nt_xent_is_the_formula_of_its_paper(pair: tuple[Tensor, Tensor]) -> None:
    z = np.concatenate(by_hand(pair))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    losses = []
    for i in range(14):
        others = [np.exp(z[i] @ z[k] / 0.5) for k in range(14) if k != i]
        losses.append(-np.log(np.exp(z[i] @ z[(i + 7) % 14] / 0.5) / np.sum(others)))
    assert float(nt_xent(*pair, 0.5)) == pytest.approx(np.mean(losses), rel=1e-5)


def test_nt_xent_of_identical_images_is_chance() -> None:
    assert float(nt_xent(torch.ones(8, 3), torch.ones(8, 3), 0.2)) == pytest.approx(np.log(15), rel=1e-5)


def test_info_nce_is_the_formula_of_moco(pair: tuple[Tensor, Tensor]) -> None:
    queries, keys = by_hand(pair)
    queue = np.random.default_rng(0).normal(size=(4, 5))
    losses = []
    for q, k in zip(queries, keys):
        own, others = np.exp(q @ k / 0.2), [np.exp(q @ other / 0.2) for other in queue]
        losses.append(-np.log(own / (own + sum(others))))
    found = info_nce(*pair, torch.from_numpy(queue).float(), 0.2)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-4)
    with_queue = torch.cat([pair[1], torch.from_numpy(queue).float()])
    assert torch.equal(MoCo(temperature=0.2).losses(pair[0], with_queue)["encoder"], found)


def test_the_queue_replaces_its_oldest_keys_view_by_view() -> None:
    queue = Queue(5, 2)
    assert torch.allclose(queue.keys.norm(dim=2), torch.ones(2, 5))
    for first in (0, 3, 6):
        queue.put(torch.arange(first, first + 3.0)[None, :, None] + torch.tensor([[[0.0]], [[100.0]]]).expand(2, 3, 2))
    assert queue.keys[0, :, 0].tolist() == [5, 6, 7, 8, 4]  # 0 to 8 came
    assert queue.keys[1, :, 1].tolist() == [105, 106, 107, 108, 104]
    assert set(queue.state_dict()) == {"keys", "oldest"}  # so they are kept with the loop's state


def test_dinos_loss_is_the_formula_of_its_paper(pair: tuple[Tensor, Tensor]) -> None:
    one, other = by_hand(pair)

    def softmax(z: t.Any) -> t.Any:
        return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)

    cross_entropy = -(softmax(other / 0.07) * np.log(softmax(one / 0.1))).sum(axis=1).mean()
    assert float(DINO().losses(*pair)["encoder"]) == pytest.approx(cross_entropy, rel=1e-4)


def test_dinos_centre_is_the_running_mean() -> None:
    centre = Centre(2, 0.9)
    for mean in ([1.0, 0.0], [1.0, 2.0]):
        centre.follow(torch.tensor(mean))
    assert centre.mean.tolist() == pytest.approx([0.9 * 0.1 + 0.1, 0.2])
    assert set(centre.state_dict()) == {"mean"}


def test_prototypes_are_cosines_and_stay_where_they_are_at_first() -> None:
    taps = ProjectedTaps(nn.Flatten(), Projector([4, 3]))
    student = Prototypes(taps, 3, 2)
    x = torch.rand(5, 1, 2, 2)
    z, directions = taps.project(x).detach().numpy(), student.directions.detach().numpy()
    cosines = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in directions] for a in z]
    np.testing.assert_allclose(student(x).detach().numpy(), cosines, rtol=1e-4)
    for moving in (False, True):
        (slope,) = torch.autograd.grad(student(x, torch.tensor(moving))[:, 0].sum(), student.directions)
        assert bool(slope.any()) == moving


@pytest.mark.parametrize("frozen_epochs", [1, 2])
def test_dinos_prototypes_move_after_the_epochs_at_first(digits: ImageSet, frozen_epochs: int) -> None:
    kept: list[Tensor] = []

    class Watched(DINO):
        def _player(self, name: str, moved: t.Any, after: t.Any = None) -> t.Any:
            def look() -> None:
                after()
                kept.append(moved[0].directions.detach().clone())

            return super()._player(name, moved, look)

    sizes: dict[str, t.Any] = {"body": "small", "projector": 8, "outputs": 4, "prototypes": 6}
    Watched(epochs=2, batch_size=150, frozen_epochs=frozen_epochs, **sizes).fit(digits, Training(0))  # 2 steps an epoch
    assert [torch.equal(kept[0], later) for later in kept] == [True, True, *[frozen_epochs == 2] * 2]


def test_barlow_twins_terms_are_the_formulae_of_their_paper(pair: tuple[Tensor, Tensor]) -> None:
    one, other = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in by_hand(pair))
    matrix = one.T @ other / 7
    invariance = sum((1 - matrix[i, i]) ** 2 for i in range(5))
    redundancy = sum(matrix[i, j] ** 2 for i in range(5) for j in range(5) if i != j)
    terms = BarlowTwins().losses(*pair)
    assert float(terms["invariance"]) == pytest.approx(invariance, rel=1e-4)
    assert float(terms["redundancy"]) == pytest.approx(redundancy, rel=1e-4)
    assert float(terms["encoder"]) == pytest.approx(0.1 * (invariance + 0.0051 * redundancy), rel=1e-4)


def test_vicreg_terms_are_the_formulae_of_their_paper(pair: tuple[Tensor, Tensor]) -> None:
    one, other = by_hand(pair)
    invariance = np.mean((one - other) ** 2)
    variance = sum(np.maximum(0, 1 - np.sqrt(z.var(0, ddof=1) + 1e-4)).mean() for z in (one, other))
    covariances = [np.cov(z.T) for z in (one, other)]
    covariance = sum((c**2).sum() - (np.diag(c) ** 2).sum() for c in covariances) / 5
    terms = VICReg().losses(*pair)
    assert [float(terms[name]) for name in ("invariance", "variance", "covariance")] == pytest.approx(
        [invariance, variance, covariance], rel=1e-4
    )
    assert float(terms["encoder"]) == pytest.approx(25 * invariance + 25 * variance + covariance, rel=1e-4)


def test_sigreg_is_the_integral_of_its_paper(pair: tuple[Tensor, Tensor]) -> None:
    direction = np.array([0.6, 0, 0, 0.8, 0])
    along = by_hand(pair)[0] @ direction

    def error(at: float) -> float:
        return np.abs(np.exp(1j * at * along).mean() - np.exp(-(at**2) / 2)) ** 2 * np.exp(-(at**2) / 2)

    knots = np.linspace(0, 3, 17)
    by_rule = 7 * 2 * np.trapezoid([error(at) for at in knots], knots)
    found = float(sigreg(pair[0], torch.from_numpy(direction).float()[:, None]))
    assert found == pytest.approx(by_rule, rel=1e-4)
    assert found == pytest.approx(7 * quad(error, -3, 3)[0], rel=0.02)


def test_sigreg_tells_a_gaussian_from_other_distributions() -> None:
    normal = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0))
    assert float(epps_pulley(normal).max()) < 5
    assert all(float(epps_pulley(other).min()) > 50 for other in (normal * 2, normal + 1, normal.sign(), normal * 0))


def test_lejepa_weighs_agreement_and_sigreg(pair: tuple[Tensor, Tensor]) -> None:
    terms = LeJEPA(slices=8).losses(*pair)
    agreement = ((pair[0] - pair[1]) / 2).square().mean()  # of each view with their mean
    assert torch.allclose(terms["invariance"], agreement)
    assert torch.allclose(terms["encoder"], 0.95 * terms["invariance"] + 0.05 * terms["sigreg"])


def test_predictions_of_byol_and_simsiam_are_judged_by_their_cosine() -> None:
    one, other = torch.tensor([[1.0, 0], [0, 2]]), torch.tensor([[3.0, 0], [4, 3]])  # cosines 1 and .6
    assert float(BYOL().losses(one, other)["encoder"]) == pytest.approx(2 - 2 * 0.8)
    assert float(SimSiam().losses(one, other)["encoder"]) == pytest.approx(-0.8)


def test_the_teacher_is_the_running_mean_of_the_network_exactly() -> None:
    network = ProjectedTaps(nn.Linear(1, 1), Projector([1, 1]))
    with torch.no_grad():
        network.body.weight.fill_(0.0)
    teacher = MomentumTeacher(network, 0.75, whole=2)
    with torch.no_grad():
        network.body.weight.fill_(1.0)
    seen = []
    for _ in range(3):
        teacher.follow(network)
        seen.append(teacher.network.body.weight.item())
    # momentum .75, .875 and 1
    assert seen == pytest.approx([0.25, 0.875 * 0.25 + 0.125, 0.875 * 0.25 + 0.125])
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert "steps" in teacher.state_dict()  # so it is kept with the loop's state


def test_the_momentum_of_a_teacher_may_end_below_one() -> None:
    network = nn.Linear(1, 1, bias=False)
    teacher = MomentumTeacher(network, 0.5, whole=2, last=0.75)
    with torch.no_grad():
        teacher.network.weight.fill_(0.0)
        network.weight.fill_(1.0)
    seen = []
    for _ in range(3):
        teacher.follow(network)
        seen.append(1 - teacher.network.weight.item())
    assert seen == pytest.approx([0.5, 0.5 * 0.625, 0.5 * 0.625 * 0.75])  # half of the way up after one of two


def test_steps_are_those_of_the_loop(digits: ImageSet) -> None:
    assert steps_of(3, 128, digits) == 3 * 2 and steps_of(3, 1000, digits) == 3


class Perceptron(nn.Sequential):
    """A body that is trained in a moment."""

    width = 64

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU())


class WithoutStopGradient(SimSiam):
    def losses(self, one: Tensor, other: Tensor) -> dict[str, Tensor]:
        loss = -F.cosine_similarity(one, other, dim=1).mean()
        return {"encoder": loss, "predictor": loss}


class Gain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, z: Tensor) -> Tensor:
        return self.gain * z


class WithoutPredictor(SimSiam):
    def _predictor(self) -> nn.Module:
        return Gain()


def learned(kind: type[SimSiam], digits: ImageSet) -> Features:
    recipe = kind(epochs=120, body="small", projector=32, outputs=32, predictor=8, batch_size=100, learning_rate=1.0)
    features: Features = recipe.fit(digits, Training(0))(torch.from_numpy(digits.images))
    return features


def test_simsiam_collapses_without_stop_gradient_or_predictor_and_an_alarm_says_so(
    digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(networks.POOLED_BODIES, "small", Perceptron)
    assert not diagnose(learned(SimSiam, digits)["projector3"])
    for kind in (WithoutStopGradient, WithoutPredictor):
        alarms = diagnose(learned(kind, digits)["projector3"])
        assert [alarm.name for alarm in alarms] == ["effective_rank"], kind


def test_rotations_are_learned_and_the_step_size_falls(digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(networks.POOLED_BODIES, "small", Perceptron)
    run = Training(0)
    Rotation(body="small", epochs=10, batch_size=50).fit(digits, run)
    assert run.history[-1]["accuracy"] > 0.6  # chance is .25
    assert [in_steps(fraction) for fraction in (0, 0.29, 0.3, 0.6, 0.8)] == pytest.approx([1, 1, 0.2, 0.04, 0.008])


def test_rotation_wants_square_images() -> None:
    with pytest.raises(EncoderError, match="rotation turns square images; got 8x9"):
        Rotation().build((1, 8, 9))


@pytest.mark.parametrize(
    ("body", "parameters", "millions"), [("resnet18", 11_168_832, (550, 560)), ("small", 1_227_072, (10, 20))]
)
def test_bodies_cost_what_they_say(body: str, parameters: int, millions: tuple[int, int]) -> None:
    network = POOLED_BODIES[body]((3, 32, 32)).eval()
    with FlopCounterMode(display=False) as counter:
        assert network(torch.zeros(1, 3, 32, 32)).shape == (1, network.width)
    assert millions[0] < counter.get_total_flops() / 2 / 1e6 < millions[1]  # multiply-adds
    assert sum(weight.numel() for weight in network.parameters()) == parameters  # resnet18: torchvision's, stem aside


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 17, 30)], ids=str)
@pytest.mark.parametrize("body", POOLED_BODIES)
def test_bodies_take_images_of_any_size(body: str, shape: tuple[int, int, int]) -> None:
    network = POOLED_BODIES[body](shape).eval()
    assert network(torch.zeros(2, *shape)).shape == (2, network.width)


def test_defaults_are_solo_learns() -> None:
    recipes: dict[type[_JointEmbedding], tuple[float, float, int, int]] = {
        VICReg: (0.3, 1e-4, 2048, 2048),
        SimCLR: (0.4, 1e-4, 2048, 256),
        BarlowTwins: (0.3, 1e-4, 2048, 2048),
        BYOL: (1.0, 1e-5, 4096, 256),
        SimSiam: (0.5, 1e-5, 2048, 2048),
        MoCo: (0.3, 1e-4, 2048, 256),
        DINO: (0.3, 1e-6, 2048, 256),
    }
    for kind, wanted in recipes.items():
        one = kind()  # type: ignore[call-arg]
        assert (one.learning_rate, one.weight_decay, one.projector, one.outputs) == wanted
        assert (one.epochs, one.batch_size, one.body) == (1000, 256, "resnet18")


def test_views_that_the_data_cannot_have_and_a_single_image_are_refused(digits: ImageSet) -> None:
    with pytest.raises(EncoderError, match="views: asymmetric changes colours"):
        VICReg(views="asymmetric", body="small", projector=8, outputs=8).fit(digits, Training(0))
    one = ImageSet(digits.images[:1], None, digits.classes, "one")
    with pytest.raises(EncoderError, match="at least two training images, to compare their views; got 1"):
        VICReg(body="small", projector=8, outputs=8).fit(one, Training(0))


def test_a_queue_smaller_than_a_batch_and_too_few_images_a_rank_are_refused(digits: ImageSet) -> None:
    sizes: dict[str, t.Any] = {"body": "small", "projector": 8, "outputs": 8}
    with pytest.raises(EncoderError, match="queue of 16 keys has no room for a batch of 20; set queue to 20 or more"):
        MoCo(batch_size=20, queue=16, **sizes).fit(digits, Training(0))
    with pytest.raises(EncoderError, match="two images a rank; got 4 a batch for 4 ranks: set batch_size to 8 or more"):
        SimCLR(batch_size=4, **sizes).fit(digits, Training(0, group=ProcessGroup(0, 4)))
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        SimCLR(batch_size=1, **sizes)


def test_images_whose_views_are_all_the_same_are_refused_before_training(digits: ImageSet) -> None:
    black = ImageSet(np.zeros_like(digits.images), None, digits.classes, "black")
    with pytest.raises(EncoderError, match=r"do not differ from the images \(affine, crop\), so nothing"):
        SimCLR(body="small", projector=8, outputs=8).fit(black, Training(0))
