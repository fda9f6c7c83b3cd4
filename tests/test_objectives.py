"""Divergences against their definitions: closed forms, sums over discrete distributions, suprema on a grid."""

import math
import typing as t

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor, nn

from encoders import objectives
from encoders.base import ImageSet, Training
from encoders.bigan import BiGAN
from encoders.dcgan import DCGAN
from encoders.gan import GAN
from encoders.history import NonFiniteLoss

CASES: dict[str, objectives.Divergence] = {
    **{name: objectives.divergence(t.cast(objectives.Objective, name)) for name in objectives.DIVERGENCES},
    "weighted_jensen_shannon(0.3)": objectives.divergence("weighted_jensen_shannon", pi=0.3),
    "alpha(-1)": objectives.divergence("alpha", alpha=-1),
    "alpha(0.3)": objectives.divergence("alpha", alpha=0.3),
    "alpha(2)": objectives.divergence("alpha", alpha=2),
    "alpha(2.5)": objectives.divergence("alpha", alpha=2.5),
}
every = pytest.mark.parametrize("name", CASES)


def by_definition(name: str, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The integrand of the divergence as textbooks write it, from two densities."""
    mid = (p + q) / 2
    mixture = 0.3 * p + 0.7 * q
    jensen_shannon = p * np.log(p / mid) + q * np.log(q / mid)  # twice the divergence, as in f-GAN's table
    order = float(name[6:-1]) if name.startswith("alpha") else 0.5
    return {
        "gan": p * np.log(p / (p + q)) + q * np.log(q / (p + q)),
        "jensen_shannon": jensen_shannon,
        "weighted_jensen_shannon(0.3)": 0.3 * p * np.log(p / mixture) + 0.7 * q * np.log(q / mixture),
        "kl": p * np.log(p / q),
        "reverse_kl": q * np.log(q / p),
        "jeffrey": (p - q) * np.log(p / q),
        "pearson": (p - q) ** 2 / q,
        "neyman": (p - q) ** 2 / p,
        "squared_hellinger": (np.sqrt(p) - np.sqrt(q)) ** 2,
        "total_variation": np.abs(p - q) / 2,
    }.get(name, (p**order * q ** (1 - order) - q - order * (p - q)) / (order * (order - 1)))


def bound(divergence: objectives.Divergence, ratio: Tensor, p: Tensor, q: Tensor) -> float:
    """E_P[T] - E_Q[f*(T)] at the best T there is, f'(p/q)."""
    best = divergence.slope(ratio)
    return float((p * best - q * divergence.conjugate(best)).sum())


@every
def test_the_bound_at_its_best_is_the_divergence_of_two_discrete_distributions(name: str) -> None:
    p, q = np.array([0.2, 0.5, 0.3]), np.array([0.45, 0.35, 0.2])
    wanted = by_definition(name, p, q).sum()
    divergence, P, Q = CASES[name], torch.from_numpy(p), torch.from_numpy(q)
    assert bound(divergence, P / Q, P, Q) == pytest.approx(wanted, abs=1e-12)
    assert float((Q * divergence.f(P / Q)).sum()) == pytest.approx(wanted, abs=1e-12)


CLOSED_FORMS = {  # of N(1, 1) from N(0, 1)
    "kl": 0.5,
    "reverse_kl": 0.5,
    "jeffrey": 1.0,
    "pearson": math.e - 1,
    "neyman": math.e - 1,
    "squared_hellinger": 2 - 2 * math.exp(-1 / 8),
    "total_variation": 2 * stats.norm.cdf(0.5) - 1,
    "alpha(-1)": (math.e - 1) / 2,
    "alpha(0.3)": (math.exp(0.3 * -0.7 / 2) - 1) / (0.3 * -0.7),
    "alpha(2)": (math.e - 1) / 2,
    "alpha(2.5)": (math.exp(2.5 * 1.5 / 2) - 1) / (2.5 * 1.5),
}


@every
def test_the_bound_at_its_best_is_the_divergence_of_two_gaussians(name: str) -> None:
    x = torch.linspace(-10, 11, 42_001, dtype=torch.float64)
    p, q = (torch.exp(-((x - mean) ** 2) / 2) / math.sqrt(2 * math.pi) for mean in (1, 0))
    found = bound(CASES[name], torch.exp(x - 0.5), p, q) * float(x[1] - x[0])

    def integrand(x: float) -> float:
        return float(by_definition(name, stats.norm.pdf(x, 1), stats.norm.pdf(x)))

    wanted = CLOSED_FORMS[name] if name in CLOSED_FORMS else integrate.quad(integrand, -10, 11)[0]
    assert found == pytest.approx(wanted, abs=1e-6)


@every
def test_any_other_discriminator_gives_a_smaller_bound(name: str) -> None:
    p, q = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.45, 0.35, 0.2])
    divergence = CASES[name]
    best = bound(divergence, p / q, p, q)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        v = torch.randn(3, generator=generator) * 2
        assert float((p * divergence.activation(v) - q * divergence.composite(v)).sum()) <= best + 1e-6


def slopes(divergence: objectives.Divergence) -> Tensor:
    """Points all over the slopes that f has, which are the domain's but for where f* is linear."""
    return divergence.slope(torch.logspace(-1.5, 1.5, 61, dtype=torch.float64))


@every
def test_the_conjugate_is_the_supremum_over_all_ratios(name: str) -> None:
    divergence = CASES[name]
    u = torch.exp(torch.linspace(-14, 14, 200_001, dtype=torch.float64))
    f = divergence.f(u)
    points = slopes(divergence)
    if name == "total_variation":
        points = torch.linspace(-0.49, 0.49, 21, dtype=torch.float64)
    for s in points:
        assert float(divergence.conjugate(s)) == pytest.approx(float((u * s - f).max()), abs=1e-5, rel=1e-6)


@pytest.mark.parametrize("alpha", [1.5, 2.0, 2.5])
def test_an_alpha_divergence_has_a_flat_conjugate_left_of_all_slopes(alpha: float) -> None:
    divergence = objectives.divergence("alpha", alpha=alpha)
    s = torch.tensor([-5.0, -100.0])  # f'(u) is above -1/(alpha - 1) for every u > 0, so the supremum is at u = 0
    assert divergence.conjugate(s).tolist() == pytest.approx([-1 / alpha, -1 / alpha])


@every
def test_the_conjugate_of_the_slope_is_u_slope_less_f(name: str) -> None:
    divergence = CASES[name]
    u = torch.logspace(-1.5, 1.5, 61, dtype=torch.float64)
    wanted = u * divergence.slope(u) - divergence.f(u)
    assert torch.allclose(divergence.conjugate(divergence.slope(u)), wanted, atol=1e-9)


@every
def test_the_slope_is_the_derivative(name: str) -> None:
    u = torch.logspace(-1.5, 1.5, 60, dtype=torch.float64, requires_grad=True)  # none is 1, the total variation's kink
    (gradient,) = torch.autograd.grad(CASES[name].f(u).sum(), u)
    assert torch.allclose(gradient, CASES[name].slope(u.detach()), atol=1e-10)


@every
def test_the_activation_rises_within_the_domain_and_the_composite_is_the_conjugate_of_it(name: str) -> None:
    divergence = CASES[name]
    v = torch.linspace(-12, 12, 101, dtype=torch.float64)
    s = divergence.activation(v)
    low, high = divergence.domain
    assert bool((s[1:] > s[:-1]).all())
    assert low < float(s.min()) and float(s.max()) < high
    assert torch.allclose(divergence.composite(v), divergence.conjugate(s), rtol=1e-8, atol=1e-9)


@every
def test_the_composite_has_the_gradient_that_finite_differences_find(name: str) -> None:
    v = torch.linspace(-3.05, 3.05, 20, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(CASES[name].composite, (v,))
    assert torch.autograd.gradcheck(CASES[name].activation, (v,))


EXPONENTIAL = {  # who has no finite value, and hence no gradient, where: the conjugate itself grows like e^v
    "kl": "fake",
    "jeffrey": "fake",
    "squared_hellinger": "both",
    "reverse_kl": "real",
    "neyman": "both",
    "alpha(0.3)": "fake",  # e^(3 v / 7)
}


@every
@pytest.mark.parametrize("extreme", [-80.0, 80.0])
def test_gradients_are_finite_at_extreme_logits_in_float32(name: str, extreme: float) -> None:
    v = torch.tensor([extreme], requires_grad=True)
    loss = CASES[name].discriminator_loss(v, v) + CASES[name].generator_loss(v, "minimax")
    (gradient,) = torch.autograd.grad(loss, v)
    assert bool(torch.isfinite(gradient).all()) and bool(torch.isfinite(loss))


@pytest.mark.parametrize("name", [name for name in CASES if name not in EXPONENTIAL])
@pytest.mark.parametrize("extreme", [-10_000.0, 10_000.0])
def test_what_is_not_itself_exponential_never_overflows(name: str, extreme: float) -> None:
    v = torch.tensor([extreme], requires_grad=True)
    loss = CASES[name].discriminator_loss(v, v) + CASES[name].generator_loss(v, "minimax")
    (gradient,) = torch.autograd.grad(loss, v)
    assert bool(torch.isfinite(gradient).all()) and bool(torch.isfinite(loss))


def test_gans_objective_is_the_cross_entropy_to_the_bit() -> None:
    real, fake = (torch.randn(64, generator=torch.Generator().manual_seed(seed), requires_grad=True) for seed in (0, 1))
    gan = objectives.divergence("gan")
    pairs = [
        (gan.discriminator_loss(real, fake), objectives.cross_entropy(real, fake)),
        (gan.pair_loss(real, fake, "non_saturating"), objectives.cross_entropy(fake, real)),
        (gan.generator_loss(fake, "non_saturating") + 0 * real.sum(), objectives.non_saturating(fake) + 0 * real.sum()),
    ]
    for ours, known in pairs:
        assert torch.equal(ours, known)
        for one, other in zip(torch.autograd.grad(ours, (real, fake)), torch.autograd.grad(known, (real, fake))):
            assert torch.equal(one, other)


def test_minimax_is_what_the_discriminator_gains() -> None:
    real, fake = torch.tensor([0.3, 2.0]), torch.tensor([-1.0, 0.5])
    gan = objectives.divergence("gan")
    assert gan.generator_loss(fake, "minimax").item() == pytest.approx(torch.log(1 - torch.sigmoid(fake)).mean().item())
    assert gan.pair_loss(real, fake, "minimax") == -gan.discriminator_loss(real, fake)


@pytest.mark.parametrize("objective", ["gan", "jensen_shannon"])
def test_a_perfect_discriminator_reports_the_jensen_shannon_divergence(objective: objectives.Objective) -> None:
    p, q = np.array([0.2, 0.5, 0.3]), np.array([0.45, 0.35, 0.2])
    mid = (p + q) / 2
    wanted = (p * np.log(p / mid)).sum() / 2 + (q * np.log(q / mid)).sum() / 2
    real = torch.from_numpy(np.log(p / q)).repeat_interleave(torch.tensor([4, 10, 6]))  # 20 draws, as often as p says
    fake = torch.from_numpy(np.log(p / q)).repeat_interleave(torch.tensor([9, 7, 4]))
    divergence = objectives.divergence(objective)
    assert divergence.observed == "jensen_shannon_bound"
    found = divergence.estimate(divergence.discriminator_loss(real, fake))
    assert found.item() == pytest.approx(wanted, abs=1e-6)


def test_guessing_bounds_the_jensen_shannon_divergence_by_zero() -> None:
    gan = objectives.divergence("gan")
    zero = torch.zeros(3)
    assert gan.estimate(gan.discriminator_loss(zero, zero)).item() == pytest.approx(0, abs=1e-6)


def test_of_disjoint_supports_kl_is_infinite_and_jensen_shannon_ln_2() -> None:
    def best(objective: objectives.Objective, sure: float) -> float:
        divergence = objectives.divergence(objective)
        real, fake = torch.tensor([sure]), torch.tensor([-sure])
        return divergence.estimate(divergence.discriminator_loss(real, fake)).item()

    assert best("gan", 60.0) == pytest.approx(math.log(2), abs=1e-6)
    assert best("jensen_shannon", 60.0) == pytest.approx(math.log(2), abs=1e-6)
    assert best("weighted_jensen_shannon", 60.0) == pytest.approx(math.log(2), abs=1e-6)
    assert best("total_variation", 60.0) == pytest.approx(1, abs=1e-6)
    assert best("squared_hellinger", 60.0) == pytest.approx(2, abs=1e-6)
    assert [best("kl", sure) for sure in (30.0, 1e3, 1e6)] == pytest.approx([30, 1e3, 1e6])  # without a bound


class Line(nn.Module):
    """A critic of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x.squeeze(1)


@pytest.mark.parametrize("distance", [0.5, 3.0])
def test_of_disjoint_supports_a_critic_of_slope_1_finds_the_distance(distance: float) -> None:
    real, fake = torch.full((8, 1), distance), torch.zeros(8, 1)
    critic = Line()
    optimizer = torch.optim.SGD(critic.parameters(), 0.01)
    for _ in range(200):
        estimate = objectives.wasserstein(critic(real), critic(fake))
        loss = 10 * objectives.gradient_penalty(critic, (real,), (fake,)) - estimate
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    slope = 1 + distance / 20  # where distance x slope - 10 (slope - 1)^2 is largest
    assert estimate.item() == pytest.approx(distance * slope, rel=1e-4)


def test_the_penalty_is_on_the_slope_towards_all_inputs_together() -> None:
    def critic(x: Tensor, z: Tensor) -> Tensor:
        return 3 * x.sum(dim=(1, 2)) + 2 * z.sum(
            dim=1
        )  # 4 pixels of slope 3, 7 numbers of slope 2: 36 + 28 = 8 squared

    real, fake = (torch.rand(5, 2, 2), torch.rand(5, 7)), (torch.rand(5, 2, 2), torch.rand(5, 7))
    assert objectives.gradient_penalty(critic, real, fake).item() == pytest.approx((8 - 1) ** 2)


def test_the_penalty_is_taken_between_real_and_generated() -> None:
    seen: list[Tensor] = []

    def critic(x: Tensor) -> Tensor:
        seen.append(x)
        return x.sum(dim=1)

    objectives.gradient_penalty(critic, (torch.full((1000, 2), 5.0),), (torch.full((1000, 2), 3.0),))
    points = seen[0].detach()
    assert torch.equal(points[:, 0], points[:, 1])  # one share an image
    assert 3 <= points.min() < 3.1 and 4.9 < points.max() <= 5


def test_the_penalty_is_in_float32_under_bfloat16() -> None:
    layer = nn.Linear(2, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.rand(3, 2)).dtype == torch.bfloat16
        penalty = objectives.gradient_penalty(lambda x: layer(x).squeeze(1), (torch.rand(3, 2),), (torch.rand(3, 2),))
    assert penalty.item() == pytest.approx((layer.weight.norm().item() - 1) ** 2, rel=1e-6)


@pytest.fixture(scope="module")
def noise() -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 1, 8, 8), dtype=np.uint8)
    return ImageSet(pixels, None, tuple("0123456789"), "noise")


@pytest.mark.parametrize("objective", t.get_args(objectives.Objective))
@pytest.mark.parametrize("generator_loss", t.get_args(objectives.GeneratorLoss))
def test_every_objective_is_a_choice_of_gan_dcgan_and_bigan(
    objective: objectives.Objective, generator_loss: objectives.GeneratorLoss, noise: ImageSet
) -> None:
    chosen: dict[str, t.Any] = {"objective": objective, "generator_loss": generator_loss, "epochs": 1, "batch_size": 24}
    for recipe in (
        GAN(optimizer="adam", learning_rate=2e-4, generator_hidden=8, discriminator_hidden=8, **chosen),
        DCGAN(width=4, **chosen),
        BiGAN(hidden=8, **chosen),
    ):
        run = Training(0)
        module = recipe.fit(noise, run)
        assert all(bool(torch.isfinite(tap).all()) for tap in module(torch.from_numpy(noise.images)).values())
        assert objectives.divergence(objective).observed in run.history[0]


@pytest.mark.parametrize("objective", ["kl", "squared_hellinger"])
def test_a_diverging_objective_ends_as_one(objective: objectives.Objective, noise: ImageSet) -> None:
    recipe = DCGAN(width=4, objective=objective, learning_rate=100.0, epochs=200, batch_size=24)
    with pytest.raises(NonFiniteLoss, match="became"):
        recipe.fit(noise, Training(0))
