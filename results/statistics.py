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


def mean_interval(
    values: t.Sequence[float], confidence: float = 0.95, bounds: tuple[float, float] = (0.0, 1.0)
) -> Interval:
    """The mean of values, one a seed, with Student's t interval of that mean, clipped to where values can lie.

    It covers the true mean over seeds in `confidence` of all experiments if the scores spread normally around it. With
    2 seeds it reaches 9 standard deviations either way, which is honest: they say little. Equal values give width zero.
    It speaks of seeds only, not of which test images were drawn. Source: Student 1908, The probable error of a mean.

    Raises ValueError for no values, and for values outside their bounds.
    """
    if not values:
        raise ValueError("a mean needs at least one value; got none")
    lowest, highest = bounds
    if not all(lowest <= value <= highest for value in values):  # NaN fails this too
        raise ValueError(f"values must lie in {lowest:g}..{highest:g}; got {list(values)}")
    n = len(values)
    if n == 1:
        return Interval(values[0], None, None, 1)
    if min(values) == max(values):  # the mean of equal values can be off by a rounding error
        return Interval(values[0], values[0], values[0], n)
    mean = math.fsum(values) / n  # fsum: the same bits in whatever order the values come
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * math.sqrt(variance / n)
    return Interval(mean, max(lowest, mean - half), min(highest, mean + half), n)
