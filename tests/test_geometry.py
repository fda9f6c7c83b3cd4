"""Geometry: bodies whose dimension, rank and evenness are known; CKA by its definition."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from protocols.base import FeatureSet
from protocols.check import Sealed
from protocols.geometry import Geometry, intrinsic_dimension, linear_cka, uniformity


def normal(rows: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, d, generator=torch.Generator().manual_seed(seed))


def measured(x: Tensor, rows: int = 10_000) -> dict[str, float]:
    features = FeatureSet(x, torch.zeros(len(x), dtype=torch.int64), 1)
    return Geometry(rows=rows).score(features, features, seed=0).metrics


def turned(x: Tensor, seed: int = 1) -> Tensor:
    return x @ torch.linalg.qr(normal(x.shape[1], x.shape[1], seed))[0]


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_a_cube_has_the_dimension_it_has_whatever_it_lies_in(dimension: int) -> None:
    cube = torch.rand(4000, dimension, generator=torch.Generator().manual_seed(0))
    flat = turned(torch.cat([cube, torch.zeros(4000, 12 - dimension)], dim=1))
    assert intrinsic_dimension(flat) == pytest.approx(dimension, rel=0.08)
    assert intrinsic_dimension(torch.cat([flat, flat[:500]])) == pytest.approx(intrinsic_dimension(flat))


def test_intrinsic_dimension_of_three_rows_by_hand() -> None:
    # neighbours at 1, 3; at 1, 2; at 2, 3: the ratios are 3, 2 and 3/2, and (3 - 1) / ln(3 * 2 * 3/2) is the answer
    assert intrinsic_dimension(torch.tensor([[0.0], [1.0], [3.0]])) == pytest.approx(2 / math.log(9))


def test_uniformity_by_hand_and_its_least_value() -> None:
    square = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]).double()  # each has two at sqrt 2 and one at 2
    assert uniformity(square) == pytest.approx(math.log((2 * math.exp(-4) + math.exp(-8)) / 3))
    assert uniformity(torch.ones(5, 1).double()) == 0
    even = torch.nn.functional.normalize(normal(3000, 200).double())
    assert uniformity(even) == pytest.approx(-4, abs=0.1)  # all at about sqrt 2 from each other


def test_alignment_is_the_squared_distance_to_the_nearest_other_direction() -> None:
    x = torch.tensor([[1.0, 0], [2, 0], [0, 3], [0, 1], [-1, 0]])  # (-1, 0) is at sqrt 2 from two others
    assert measured(x)["alignment"] == pytest.approx(2 / 5, abs=1e-6)


def test_evenly_spread_rows_beat_collapsed_ones() -> None:
    spread, narrow = measured(normal(800, 16)), measured(normal(800, 16) * 0.01 + 5)
    assert spread["uniformity"] < -3 < -0.01 < narrow["uniformity"]
    assert narrow["alignment"] < 1e-3 < spread["alignment"]


def test_constant_features_have_neither_rank_nor_dimension() -> None:
    constant = measured(torch.full((50, 4), 0.1))
    assert constant["effective_rank"] == constant["intrinsic_dimension"] == 0
    assert constant["uniformity"] == pytest.approx(0, abs=1e-9)
    assert constant["alignment"] == pytest.approx(0, abs=1e-9)


def test_two_rows_have_a_rank_only() -> None:
    assert measured(normal(2, 5)) == {"effective_rank": pytest.approx(1)}


def test_neither_labels_nor_test_rows_are_read() -> None:
    x = normal(200, 6)
    one, other = (FeatureSet(x, labels, 2) for labels in (torch.zeros(200).long(), torch.arange(200) % 2))
    test = Sealed(other)
    assert Geometry().score(one, test, seed=0) == Geometry().score(other, test, seed=1)
    assert test.read == []


def test_rows_are_evenly_spaced() -> None:
    x = normal(100, 4)
    assert measured(x, rows=12) == measured(x[torch.linspace(0, 99, 12).long()])


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) of the linear kernels, with the centring matrix written out."""
    n = len(x)
    centring = np.eye(n) - np.ones((n, n)) / n
    k, l_ = (centring @ (rows @ rows.T) @ centring for rows in (x, y))
    return float(np.trace(k @ l_) / np.sqrt(np.trace(k @ k) * np.trace(l_ @ l_)))


@pytest.mark.parametrize(("rows", "d", "e"), [(200, 5, 9), (30, 80, 3), (30, 80, 100), (50, 1, 1)])
def test_cka_is_that_of_its_definition(rows: int, d: int, e: int) -> None:
    x = normal(rows, d) + 3
    y = x[:, :1] + 0.5 * normal(rows, e, seed=1)
    found = linear_cka(x, y)
    assert found == pytest.approx(by_definition(x.double().numpy(), y.double().numpy()), abs=1e-6)
    assert linear_cka(y, x) == pytest.approx(found)
    assert 0 < found < 1


def test_cka_sees_no_turn_scale_or_shift_and_knows_strangers() -> None:
    x = normal(2000, 6)
    assert linear_cka(x, 3 * turned(x) + 7) == pytest.approx(1, abs=1e-5)
    assert linear_cka(x, normal(2000, 6, seed=9)) < 0.02
    assert linear_cka(x, torch.full((2000, 3), 0.1)) == 0
