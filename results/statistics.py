"""What several seeds say about one number."""

import math
import typing as t
from dataclasses import dataclass

from scipy.special import stdtrit


@dataclass(frozen=True)
class Interval:
    """A mean over `n` values and the interval it lies in; one value alone has no interval."""

    mean: float
    low: float | None
    high: float | None
    n: int


def mean_interval(values: t.Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of fractions, one a seed, with Student's t interval of that mean, clipped to 0..1.

    It covers the true mean over seeds in `confidence` of all experiments if the scores spread normally around it. With
    2 seeds it reaches 9 standard deviations either way, which is honest: they say little. Equal values give width zero.
    It speaks of seeds only, not of which test images were drawn. Source: Student 1908, The probable error of a mean.

    Raises ValueError for no values, and for values that are not fractions in 0..1.
    """
    if not values:
        raise ValueError("a mean needs at least one value; got none")
    if not all(0 <= value <= 1 for value in values):  # NaN fails this too
        raise ValueError(f"values must be fractions in 0..1; got {list(values)}")
    n = len(values)
    if n == 1:
        return Interval(values[0], None, None, 1)
    if min(values) == max(values):  # the mean of equal values can be off by a rounding error
        return Interval(values[0], values[0], values[0], n)
    mean = math.fsum(values) / n  # fsum: the same bits in whatever order the values come
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * math.sqrt(variance / n)
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half), n)
