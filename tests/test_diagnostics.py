"""Collapse alarms: each is raised by what it is named after, and by nothing that is in order."""

import pytest
import torch
from torch import Tensor

from bench.pipeline.diagnostics import DEAD, constant_samples, dead_units, diagnose, few_updates, prior_mismatch
from protocols.geometry import effective_rank


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(count: int, dimensions: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dimensions, generator=chance(seed))


def names(features: Tensor) -> list[str]:
    return [alarm.name for alarm in diagnose(features)]


def test_features_in_order_raise_nothing() -> None:
    for dimensions in (1, 2, 10, 50, 2000):
        assert names(normal(1000, dimensions)) == []
        assert names(1e-3 * normal(1000, dimensions) + 1) == []  # their scale and place are free
    one_hot = torch.eye(10)[torch.arange(1000) % 10]
    assert names(one_hot) == []


@pytest.mark.parametrize("offset", [1e3, 1e5, 1e6, -1e6])
def test_an_offset_that_float32_can_hold_is_no_collapse(offset: float) -> None:
    for features in (normal(1000, 64), normal(300, 500), 3 * normal(1000, 1)):
        assert names(features + offset) == []
        assert effective_rank(features + offset) == pytest.approx(effective_rank(features), rel=0.01)


def test_what_varies_by_rounding_only_is_a_collapse() -> None:
    constant = 1 + normal(1000, 20) * 2.0**-25  # rounded to the neighbours of 1
    assert constant.unique().numel() > 1
    assert "effective_rank" in names(constant)


def test_units_that_never_vary_are_dead() -> None:
    features = normal(200, 10)
    features[:, :6] = torch.arange(6.0)  # each another constant
    assert dead_units(features) == pytest.approx(0.6)
    (alarm,) = diagnose(features)
    assert (alarm.name, alarm.threshold) == ("dead_units", DEAD)
    assert alarm.text == "60% of the 10 units have the same value for every image; up to 50% is usual"
    features[0, :2] = -1  # active once is alive
    assert diagnose(features) == []


def test_a_constant_raises_every_alarm() -> None:
    assert names(torch.ones(100, 20)) == names(torch.zeros(100, 20)) == ["dead_units", "effective_rank"]


@pytest.mark.parametrize("shape", [(1000, 40), (40, 1000)])
def test_the_effective_rank_of_k_equal_directions_is_k(shape: tuple[int, int]) -> None:
    left = torch.linalg.qr(normal(shape[0], 6).double() - normal(shape[0], 6).double().mean(dim=0))[0]
    right = torch.linalg.qr(normal(shape[1], 6, seed=1).double())[0]
    assert effective_rank(left @ right.T + 7) == pytest.approx(6, rel=1e-6)  # the shared mean counts for nothing
    unequal = left[:, :2] * torch.tensor([3.0, 1.0]) @ right[:, :2].T
    assert effective_rank(unequal) == pytest.approx(4 / 3**0.75)  # exp of the entropy of (3/4, 1/4)
    assert effective_rank(torch.full(shape, 3.0)) == 0


def test_a_player_that_hardly_moved_raises_an_alarm() -> None:
    (alarm,) = few_updates({"critic": 1240, "generator": 13})
    assert (alarm.name, alarm.value, alarm.threshold) == ("few_updates", 13, 1000)
    assert alarm.text == "hardly a training: the generator had fewer than 1,000 updates (critic 1,240, generator 13)"
    assert few_updates({"critic": 5000, "generator": 1000}) == few_updates({}) == []


def test_units_that_all_say_the_same_are_a_collapse() -> None:
    line = normal(1000, 1) @ normal(1, 50, seed=1) + 0.001 * normal(1000, 50, seed=2)
    (alarm,) = diagnose(line)
    assert alarm.name == "effective_rank"
    assert 1 < alarm.value < 2
    assert alarm.threshold == pytest.approx(1 + 0.05 * 49)
    assert alarm.text == f"the effective rank of the 50 units is {alarm.value:.1f}; below 3.5 is a collapse"


def test_samples_that_are_all_alike() -> None:
    images = normal(500, 12).view(500, 3, 4)
    assert constant_samples(normal(300, 12, seed=1).view(300, 3, 4), images) == []
    (alarm,) = constant_samples(0.02 * normal(300, 12, seed=1).view(300, 3, 4) + 0.5, images)
    assert (alarm.name, alarm.value) == ("constant_samples", pytest.approx(0.02, rel=0.1))
    assert constant_samples(torch.ones(10, 3, 4), images)[0].value == 0


def test_codes_that_follow_their_prior_raise_nothing_and_others_do() -> None:
    prior = normal(2000, 5, seed=1)
    for seed in range(2, 22):
        assert prior_mismatch(normal(500, 5, seed=seed), prior, chance()) == []
    (alarm,) = prior_mismatch(normal(2000, 5) + torch.tensor([3.0, 0, 0, 0, 0]), prior, chance())
    assert alarm.value == pytest.approx(0.866, abs=0.03)  # 2 Phi(1.5) - 1, along the axis or near it
    assert alarm.value > alarm.threshold
    uniform = 2 * torch.rand(2000, 5, generator=chance()) - 1
    assert prior_mismatch(0.05 * normal(2000, 5), uniform, chance())[0].value == pytest.approx(0.45, abs=0.05)


def test_correlated_codes_with_the_right_marginals_are_found_off_the_axes() -> None:
    same = normal(5000, 1).expand(5000, 2)  # each dimension is N(0, 1), and their difference is 0
    (alarm,) = prior_mismatch(same, normal(5000, 2, seed=1), chance())
    assert alarm.value > 0.4
