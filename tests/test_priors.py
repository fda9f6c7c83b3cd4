"""Priors have the moments and the geometry that their formulas give."""

import math

import pytest
import torch
from torch import Tensor

from encoders.base import seeded
from encoders.priors import Categorical, Gaussian, MixtureOfGaussians, Prior, SwissRoll, Uniform

CPU = torch.device("cpu")
COUNT = 20_000


def drawn(prior: Prior, count: int = COUNT) -> Tensor:
    with seeded(0, "test"):
        return prior.sample(count, CPU)


def drawn_of(prior: MixtureOfGaussians | SwissRoll, component: int, count: int = COUNT) -> Tensor:
    with seeded(0, "test"):
        return prior.sample_of(torch.full((count,), component))


@pytest.mark.parametrize(
    ("prior", "std"),
    [
        (Gaussian(6, std=5.0), 5.0),
        (Uniform(6), 2 / math.sqrt(3)),
        # A petal's middle is 1.4 away: E|z|^2 = 1.4^2 + 0.5^2 + 0.05^2, half of it in each dimension.
        (MixtureOfGaussians(6), math.sqrt((1.4**2 + 0.5**2 + 0.05**2) / 2)),
    ],
    ids=str,
)
def test_moments(prior: Prior, std: float) -> None:
    codes = drawn(prior)
    assert codes.shape == (COUNT, 6)
    assert codes.dtype == torch.float32
    assert torch.allclose(codes.mean(0), torch.zeros(6), atol=5 * std / math.sqrt(COUNT))
    assert torch.allclose(codes.std(0), torch.full((6,), std), rtol=0.03)


def test_a_uniform_prior_fills_its_box_and_no_more() -> None:
    codes = drawn(Uniform(2, limit=2.0))
    assert 1.99 < codes.abs().max() <= 2


@pytest.mark.parametrize("component", [0, 3, 7])
def test_a_petal_lies_in_its_direction_and_is_stretched_along_it(component: int) -> None:
    petal = drawn_of(MixtureOfGaussians(2), component)
    angle = 2 * math.pi * component / 10
    outward, sideways = (
        torch.tensor([math.cos(angle), math.sin(angle)]),
        torch.tensor([-math.sin(angle), math.cos(angle)]),
    )
    along, across = petal @ outward, petal @ sideways
    assert along.mean().item() == pytest.approx(1.4, abs=0.02)
    assert along.std().item() == pytest.approx(0.5, rel=0.03)
    assert across.mean().item() == pytest.approx(0, abs=0.002)
    assert across.std().item() == pytest.approx(0.05, rel=0.03)


def test_the_swiss_roll_is_a_spiral_of_two_turns_evenly_filled() -> None:
    codes = drawn(SwissRoll(2))
    radius = codes.norm(dim=1)  # r = 3 sqrt(u), so r^2 / 9 is uniform
    assert radius.max() <= 3
    assert (radius.square() / 9).mean().item() == pytest.approx(1 / 2, abs=0.01)
    assert (radius.square() / 9).var().item() == pytest.approx(1 / 12, rel=0.03)
    angle = 4 * math.pi * radius / 3
    assert torch.allclose(codes, torch.stack([radius * angle.cos(), radius * angle.sin()], 1), atol=1e-4)


def test_slices_of_the_swiss_roll_follow_each_other_from_the_inside_out() -> None:
    for component in range(10):
        share = drawn_of(SwissRoll(2), component, 1000).norm(dim=1).square() / 9
        assert component / 10 - 1e-4 <= share.min() and share.max() <= (component + 1) / 10 + 1e-4


@pytest.mark.parametrize("prior", [MixtureOfGaussians(4), SwissRoll(4)], ids=str)
def test_pairs_share_a_component_only_where_it_is_named(prior: MixtureOfGaussians | SwissRoll) -> None:
    def agreement(codes: Tensor) -> float:
        return torch.corrcoef(torch.stack([codes[:, 0], codes[:, 2]]))[0, 1].item()

    assert abs(agreement(drawn(prior))) < 0.05
    with seeded(0, "test"):
        named = prior.sample_of(torch.arange(COUNT) % 10)
    assert agreement(named) > 0.7


def test_categories_are_one_hot_and_equally_likely() -> None:
    codes = drawn(Categorical(16))
    assert set(codes.unique().tolist()) == {0, 1}
    assert torch.equal(codes.sum(1), torch.ones(COUNT))
    assert torch.allclose(codes.mean(0), torch.full((16,), 1 / 16), atol=0.01)
    assert torch.equal(Categorical(4).sample_of(torch.tensor([3, 0])), torch.tensor([[0.0, 0, 0, 1], [1, 0, 0, 0]]))
