"""The interval over seeds: agreement with scipy.stats, known coverage, and the cases without a spread."""

import math

import numpy as np
import pytest
from scipy import stats

from results.statistics import Interval, mean_interval


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_interval_is_that_of_scipy(n: int, confidence: float) -> None:
    values = np.random.default_rng(n).normal(0.5, 0.001, n).tolist()
    found = mean_interval(values, confidence)
    low, high = stats.t.interval(confidence, n - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high), abs=1e-12)
    assert found.n == n


def test_a_known_interval() -> None:
    # mean 0.96, standard deviation 0.01, t(0.975, 2 degrees) = 4.302653: half-width 4.302653 * 0.01 / sqrt(3)
    found = mean_interval([0.95, 0.96, 0.97])
    assert found.mean == pytest.approx(0.96)
    assert found.low == pytest.approx(0.96 - 0.0248413, abs=1e-6)
    assert found.high == pytest.approx(0.96 + 0.0248413, abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_95_percent_of_intervals_hold_the_mean(n: int) -> None:
    experiments = np.random.default_rng(n).normal(0.5, 0.002, (5000, n)).tolist()
    intervals = [mean_interval(values) for values in experiments]
    held = sum((found.low or 0) <= 0.5 <= (found.high or 0) for found in intervals)
    assert held / 5000 == pytest.approx(0.95, abs=0.0125)  # 4 standard errors


def test_one_seed_has_no_interval() -> None:
    assert mean_interval([0.9684]) == Interval(0.9684, None, None, 1)


@pytest.mark.parametrize("value", [0.0, 0.1, 0.7, 0.9684, 1.0])
@pytest.mark.parametrize("n", [2, 3, 6, 7])
def test_equal_values_have_zero_width_around_exactly_themselves(value: float, n: int) -> None:
    assert mean_interval([value] * n) == Interval(value, value, value, n)


def test_the_interval_of_fractions_stays_within_0_and_1() -> None:
    found = mean_interval([0.98, 1.0])
    assert found.mean == pytest.approx(0.99)
    assert found.high == 1.0
    assert found.low == pytest.approx(0.99 - 12.7062 * 0.01, abs=1e-5)
    assert mean_interval([0.0, 0.01]).low == 0.0


def test_order_changes_no_bit() -> None:
    values = np.random.default_rng(0).random(11).tolist()
    assert mean_interval(values) == mean_interval(sorted(values)) == mean_interval(values[::-1])


@pytest.mark.parametrize("values", [[], [math.nan], [0.5, math.inf], [0.5, 96.84], [-0.1, 0.5]])
def test_what_is_not_fractions_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"lie in 0\.\.1|at least one"):
        mean_interval(values)
