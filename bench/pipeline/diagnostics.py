"""Alarms: what can be wrong with a training, with frozen features, or with samples, that is seen without any label.

Pure functions of features. An alarm is no score: features that raise one may still classify, and it says why they may
not. Thresholds are ours, set so that raw pixels and untrained networks raise none on MNIST and CIFAR-10.
"""

import math

import torch
from torch import Tensor

from protocols.geometry import effective_rank
from results.record import Alarm

ROWS = 5000  # of the features are looked at; they lie in an order that has nothing to do with what they show
RANK_ROWS = 1000  # of these for the rank, which takes the cube of them in time
DEAD = 0.5  # share of units
RANK = 0.05  # of the way from 1 to the largest rank there could be
SPREAD = 0.1  # of the real images'
DISTANCE = 0.1  # between distribution functions, beyond what chance gives
CONFIDENCE = 1e-3  # the probability of an alarm about codes that follow their prior, beside DISTANCE
DIRECTIONS = 128
UPDATES = 1000  # of every player


def diagnose(features: Tensor) -> list[Alarm]:
    """The alarms that features (n, d) raise, at most one of each name: `dead_units`, `effective_rank`."""
    some = features[:ROWS]
    alarms = []
    dead = dead_units(some)
    if dead > DEAD:
        text = f"{dead:.0%} of the {some.shape[1]} units have the same value for every image; up to {DEAD:.0%} is usual"
        alarms.append(Alarm(name="dead_units", value=dead, threshold=DEAD, text=text))
    few = some[:RANK_ROWS]
    rank, least = effective_rank(few), 1 + RANK * (min(few.shape) - 1)
    if rank < least:
        text = f"the effective rank of the {some.shape[1]} units is {rank:.1f}; below {least:.1f} is a collapse"
        alarms.append(Alarm(name="effective_rank", value=rank, threshold=least, text=text))
    return alarms


def few_updates(updates: dict[str, int]) -> list[Alarm]:
    """An alarm if some player of a training has hardly moved, from how often each did."""
    player = min(updates, key=updates.__getitem__, default=None)
    if player is None or updates[player] >= UPDATES:
        return []
    moved = ", ".join(f"{name} {count:,}" for name, count in updates.items())
    text = f"hardly a training: the {player} had fewer than {UPDATES:,} updates ({moved})"
    return [Alarm(name="few_updates", value=updates[player], threshold=UPDATES, text=text)]


def dead_units(features: Tensor) -> float:
    """The share, in 0..1, of units (columns of (n, d)) that vary by a millionth of what the liveliest does, or less."""
    spread = features.amax(dim=0) - features.amin(dim=0)
    return float((spread <= 1e-6 * spread.max()).double().mean())


def constant_samples(samples: Tensor, images: Tensor) -> list[Alarm]:
    """An alarm if generated samples (n, ...) hardly differ from each other beside real images (m, ...) of their range.

    Its value is the root of the ratio of their total variances: 0 for one sample over and over, about 1 if all is well.
    """
    if min(len(samples), len(images)) < 2:
        return []
    variances = [rows[:ROWS].flatten(1).double().var(dim=0).sum() for rows in (samples, images)]
    ratio = math.sqrt(float(variances[0] / variances[1]))
    if ratio >= SPREAD:
        return []
    text = f"samples vary {ratio:.3f} times as much as images; below {SPREAD} is a collapse"
    return [Alarm(name="constant_samples", value=ratio, threshold=SPREAD, text=text)]


def prior_mismatch(codes: Tensor, prior: Tensor, generator: torch.Generator) -> list[Alarm]:
    """An alarm if codes (n, d) do not follow their prior, of which `prior` (m, d) are samples.

    Its value, in 0..1, is the largest distance between the two distribution functions (Kolmogorov and Smirnov's) along
    the axes and random directions. By chance alone it passes the threshold less DISTANCE with a probability below
    CONFIDENCE: the bound of Dvoretzky, Kiefer and Wolfowitz for each sample, summed over the directions.
    """
    codes, prior = codes[:ROWS].double(), prior[:ROWS].double()
    dimensions = codes.shape[1]
    random = torch.randn(dimensions, DIRECTIONS, dtype=torch.float64, generator=generator)
    directions = torch.cat([torch.eye(dimensions, dtype=torch.float64), random], dim=1)
    value = max(_largest_gap(a, b) for a, b in zip((codes @ directions).T, (prior @ directions).T))
    tests = 2 * directions.shape[1]  # two samples each
    chance = sum(math.sqrt(math.log(2 * tests / CONFIDENCE) / (2 * len(rows))) for rows in (codes, prior))
    threshold = DISTANCE + chance
    if value <= threshold:
        return []
    text = f"distribution functions of codes and prior differ by up to {value:.2f}; at most {threshold:.2f} is usual"
    return [Alarm(name="prior_mismatch", value=value, threshold=threshold, text=text)]


def _largest_gap(one: Tensor, other: Tensor) -> float:
    """Between the empirical distribution functions of (n,) and (m,)."""
    places = torch.cat([one, other]).contiguous()
    heights = [torch.searchsorted(rows.sort().values, places, right=True) / len(rows) for rows in (one, other)]
    return float((heights[0] - heights[1]).abs().max())
