"""What a few seeds and one test set say about scores, about differences and about ranks.

Two things are drawn at random behind every accuracy: the seed of the training and the images of the test set. What
speaks of new seeds needs two of them; with one, a statement is about that one trained model on new images. Each
function says which of the two it speaks of. Nothing here speaks of new training sets: a suite has one.
"""

import functools
import math
import typing as t
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtri, ndtr, ndtri, stdtrit

Floats = np.ndarray[t.Any, np.dtype[np.float64]]
Integers = np.ndarray[t.Any, np.dtype[np.int64]]
Correct = np.ndarray[t.Any, np.dtype[np.bool_]]  # (seeds, images): was this image told right by this seed's model
FURTHEST = 10_000  # seeds; what needs more cannot be had
_FREEDOMS = 1024  # steps of inverse degrees of freedom
_ROWS = 64  # of a column that are compared with all others at once: 5,000 others are a few MiB


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
    middle, half = mean(values), float(stdtrit(n - 1, (1 + confidence) / 2)) * deviation(values) / math.sqrt(n)
    return Interval(middle, max(lowest, middle - half), min(highest, middle + half), n)


def mean(values: t.Sequence[float]) -> float:
    """The mean of values, with the same bits in whatever order they come; of equal values exactly theirs."""
    return values[0] if min(values) == max(values) else math.fsum(values) / len(values)


def deviation(values: t.Sequence[float]) -> float:
    """The standard deviation of values, over n - 1; exactly 0 of equal values and of one alone."""
    if min(values) == max(values):
        return 0.0
    middle = mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1))


def wilson(share: t.Any, images: t.Any, confidence: float = 0.95) -> tuple[t.Any, t.Any]:
    """(low, high) of the share of right answers on new images, from that on so many; arrays go together.

    It speaks of these trained models on other images of the same kind. Of a mean over seeds it is an upper bound: that
    varies less over images than one model does. Wilson's interval rather than Clopper and Pearson's: it covers 95 % on
    average where theirs covers 95 % at the least, about 97 to 99 % at a share near 1, and unlike Wald's it keeps its
    width at a share of exactly 1. Source: Wilson 1927; Brown, Cai, DasGupta 2001, Interval estimation for a binomial.
    """
    z2 = ndtri((1 + confidence) / 2) ** 2
    middle = (share + z2 / (2 * images)) / (1 + z2 / images)
    half = np.sqrt(z2 * (share * (1 - share) / images + z2 / (4 * images**2))) / (1 + z2 / images)
    return np.minimum(share, middle - half), np.maximum(share, middle + half)  # at 0 and 1 rounding would cross


def joined(images: t.Any, first: tuple[t.Any, t.Any], second: tuple[t.Any, t.Any], confidence: float) -> t.Any:
    """The half-width of an interval whose error is a sum of what images add and of what the seeds of two methods add.

    `images`: the half-width over images alone, of the same confidence, which many images make as good as known;
    `first`, `second`: a standard error and its degrees of freedom each, (0, inf) for none. Arrays go together. Each
    part alone keeps its normal or Student's quantile, so the ends are exact. Parts added as squares (Banerjee 1960)
    would cover up to 98.9 % with two seeds, and Satterthwaite's degrees of freedom from 87 % on. Here the seeds of both
    methods have the sum of their degrees of freedom, or those of one method, less what the other may have lent it, if
    that is more; and powers higher than squares are added to the images' part, up to the larger one of two where two
    seeds say nearly nothing. The constants are chosen for the coverage at 95 %, computed over all ratios of the parts:

        of one     2          3          5         of two  2 and 2    2 and 3    2 and 5    3 and 3    5 and 5
        covers  94.1-96.6  94.8-95.8  94.7-95.0    covers  93.1-96.9  93.0-96.8  93.5-96.8  93.9-95.8  93.9-95.0
    """

    def quantile(freedom: t.Any, at: float) -> t.Any:
        return stdtrit(np.minimum(freedom, 1e12), (1 + at) / 2)

    (error, freedom), (other, others) = first, second
    deviation, total = images / quantile(np.inf, confidence), error**2 + other**2
    lent = 1 / (freedom + others - 0.72)  # of one method's error by the other
    spent = (0.1 + 0.03 / np.maximum(freedom, others)) * deviation  # of an error with one degree of freedom

    def alone(error: t.Any, freedom: t.Any, other: t.Any) -> t.Any:
        less = np.maximum(lent * other, np.where(freedom == 1, spent, 0.0))
        return quantile(freedom, confidence) * error - quantile(freedom, 0.95) * less

    less = np.where(freedom + others == 2, spent, 0.0)
    both = (1 - 2 / (freedom + others) ** 2) * quantile(freedom + others, confidence) * (np.sqrt(total) - less)
    seeds = np.maximum(np.maximum(alone(error, freedom, other), alone(other, others, error)), np.maximum(both, 0))
    shares = error**4 / freedom + other**4 / others
    welch = np.divide(total**2, shares, out=np.ones_like(shares), where=shares > 0)
    power = 2 + 2.5 / np.maximum(welch - 1, 0.01)
    larger, smaller = np.maximum(images, seeds), np.minimum(images, seeds)
    ratio = np.divide(smaller, larger, out=np.zeros_like(larger), where=larger > 0)
    return larger * (1 + ratio**power) ** (1 / power)


# ---- many scores at once, without their predictions: leaderboards ------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """The scores of a leaderboard's column, an entry a row. Greater is better."""

    mean: Floats  # over the row's seeds
    deviation: Floats  # of its seeds; 0 where there is one
    seeds: Integers
    images: int | None  # that were told right or wrong; None: the score is no share of images

    def reach(self, confidence: float) -> tuple[Floats, Floats]:
        """How far below and above its mean each row's truth may lie, on new images and, from two seeds, with new seeds.

        Student's half-width over seeds and Wilson's reach over images, see `joined`: covers 93 to 97 % where all seeds
        err on the same images, as far as a share of so many images can. Without predictions nobody knows whether they
        do; seeds that err on different images average these out, and the interval then covers more. Infinite where one
        seed is all that is known.
        """
        seeds = self.deviation / np.sqrt(self.seeds), np.maximum(self.seeds - 1, 1)
        below, above = (joined(side, seeds, (0.0, np.inf), confidence) for side in self._images(confidence))
        return below, above

    def below(self, first: Integers, second: Integers, confidence: float) -> Floats:
        """How far below the difference of two rows' means, each given by its place, the truth of it may lie.

        The squares of Student's half-width over the seeds of both, with Welch's degrees of freedom, and of Wilson's
        reaches over images are added: unlike `joined` this errs on no side but the wide one at every confidence, as
        comparisons of thousands of pairs need it. Places go together as arrays do.
        """
        below, above = self._images(confidence)
        squares = (below**2)[first] + (above**2)[second]
        if self.deviation.any():
            variance, freedom = self.deviation**2 / self.seeds, np.maximum(self.seeds - 1, 1)
            fourth = variance**2 / freedom
            total, shares = variance[first] + variance[second], fourth[first] + fourth[second]
            inverse = np.divide(shares, total**2, out=np.ones_like(total), where=total > 0)  # of Welch's
            squares += _squared_quantiles(confidence)[np.ceil(inverse * _FREEDOMS).astype(np.int64)] * total
        half: Floats = np.sqrt(squares)
        return half

    def _images(self, confidence: float) -> tuple[Floats, Floats]:
        if self.images is None:
            unknown = np.where(self.seeds > 1, 0.0, np.inf)
            return unknown, unknown
        low, high = wilson(self.mean, self.images, confidence)
        return self.mean - low, high - self.mean


@functools.lru_cache(maxsize=8)
def _squared_quantiles(confidence: float) -> Floats:
    """Of Student's t at inverse degrees of freedom 0, 1 / 1024, ..., 1: one a pair would take seconds."""
    freedom = 1 / np.linspace(1e-12, 1, _FREEDOMS + 1)  # an inverse is rounded up, which is cautious
    squared: Floats = np.asarray(stdtrit(freedom, (1 + confidence) / 2), np.float64) ** 2
    return squared


@dataclass(frozen=True)
class Ranking:
    """What a column says of each of its rows, in the order of its scores. All of it holds together."""

    low: Integers  # the best rank that a row may have, 1 being the best
    high: Integers  # the worst
    tie: Integers  # 1: no row is better; 2: none is but those of 1; and so on
    difference: Floats  # to the best mean, at most 0
    difference_low: Floats  # so far below the row with the best mean it may be
    difference_high: Floats  # so far it is below whichever row is told to be the most ahead; from 0 up in tie 1 only


def ranking(scores: Scores, confidence: float = 0.95) -> Ranking:
    """Ranks as far as the scores tell them, from comparisons of every row with every other, corrected for their number.

    Two rows differ if the interval of their difference, at Bonferroni's level for all pairs of the column, leaves out
    0. So rows that are equally good are told apart, any two of them, with a probability of at most 1 - confidence,
    however few the seeds are and however they spread (in simulations 6 % at worst, of two rows of two seeds). A row's
    rank lies between one more than the number of rows that are better and the number of rows that are not worse; all
    these intervals hold together (Mogstad, Romano, Shaikh, Wilhelm 2024, Inference for ranks). Differences have the
    same intervals, so one that leaves out 0 is never of a row that may be the first, and every other one is. (Holm's
    steps would tell a few more pairs apart, of which no interval could say so.)

    It assumes scores that spread normally over seeds, and methods that err on the same images no less often than by
    chance: then two rows differ no more by their images than independent ones. A paired test sees more, but needs the
    predictions. Rows of one seed stand for that one trained model.
    """
    count = len(scores.mean)
    order = np.argsort(-scores.mean, kind="stable")
    level = 1 - (1 - confidence) / max(1, math.comb(count, 2))
    better, worse, tie = (np.zeros(count, np.int64) for _ in range(3))  # by place: the rows ahead, those behind
    high = np.full(count, np.inf)
    for start in range(0, count, _ROWS):
        rows = order[start : start + _ROWS, None]
        ahead = order[: start + len(rows)]
        leads = scores.mean[ahead] - scores.mean[rows] - scores.below(ahead, rows, level)  # at the least; (rows, ahead)
        leads[:, start:][np.triu_indices(len(rows))] = -np.inf  # a row leads neither itself nor what is before it
        told = leads > 0
        better[start : len(ahead)] = told.sum(1)
        worse[: len(ahead)] += told.sum(0)
        high[start : len(ahead)] = -leads.max(1)
        for place, its in enumerate(told, start):
            tie[place] = 1 + (its * tie[: len(ahead)]).max()
    places = np.argsort(order, kind="stable")
    best, everyone = order[:1], np.arange(count)
    to_best = scores.mean - scores.mean[best]
    low = to_best - scores.below(everyone, best, level)
    low[best] = high[:1] = 0.0
    return Ranking(1 + better[places], count - worse[places], tie[places], to_best, low, high[places])


def holm(p_values: t.Sequence[float]) -> list[float]:
    """p-values corrected for their number, in their order; rejecting those <= a has a family-wise error of at most a.

    Valid whatever the dependence between the tests. Source: Holm 1979, A simple sequentially rejective procedure.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = largest
    return corrected


# ---- two methods on the same images, from their predictions ------------------------------------------------------


def mcnemar(won: int, lost: int) -> float:
    """The exact two-sided p of so many images won and lost between two models, the others being equal.

    Under the null each image that one of the two tells right and the other wrong is as likely to be either's. It speaks
    of these two trained models on new images. Source: McNemar 1947; the exact binomial form.
    """
    from scipy.stats import binomtest  # noqa: PLC0415 - slow to import

    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def mcnemar_over_seeds(correct: Correct, other: Correct) -> float:
    """One exact two-sided p for all pairs of seeds: McNemar's test with the images as clusters.

    Each image has the number of pairs in which it is won less those in which it is lost, and under the null either
    sign is equally likely. All 2^images signs are counted, so that images which are hard for every seed count once and
    not once a seed, as they would in a sum or in Fisher's combination of the tests. With one pair it is McNemar's
    exact test. It speaks of these trained models on new images, not of new seeds. Resolves p down to about 1e-14.

    correct, other: (pairs, images).
    """
    net = np.abs(correct.sum(0) - other.sum(0).astype(np.int64))
    observed = abs(int(correct.sum()) - int(other.sum()))
    reach = int(net.sum())
    if reach == 0:
        return 1.0
    turn = np.arange(2 * reach + 1) / (2 * reach + 1)
    spectrum = np.ones(len(turn))  # the characteristic function of the signed sum, a cosine an image
    for size, images in zip(*np.unique(net[net > 0], return_counts=True)):
        spectrum *= np.cos(2 * np.pi * turn * size) ** images
    chance = np.fft.ifft(spectrum).real  # of each sum, 0 first, then 1, ..., reach, -reach, ..., -1
    return min(1.0, max(0.0, 2 * float(chance[observed : reach + 1].sum()))) if observed else 1.0


@dataclass(frozen=True)
class Estimate:
    """An accuracy or a difference of two, with its interval and the two-sided p of being 0."""

    mean: float
    low: float
    high: float
    p: float


def hierarchical_bootstrap(
    correct: Correct, other: Correct | None = None, *, confidence: float = 0.95, draws: int = 20_000, seed: int = 0
) -> Estimate:
    """The accuracy of one method, or what it has more than another on the same images, over new images and new seeds.

    correct: (seeds, images); other: (its seeds, the same images). The seeds of two methods are not paired: nothing but
    a number is common to them. A level with one seed is left out, and the estimate then speaks of that one model.

    Images are resampled, with all seeds' answers for both methods, from an urn that holds one more of either extreme:
    no difference seen is not no difference possible (Bonett and Price 2012). Seeds are too few to resample (of two,
    half of the samples have no spread at all), so their mean has Student's quantiles, and `joined` says how both come
    together and what that covers: 93 to 97 %, and up to 98 at accuracies of 99 % and more. What images and seeds share,
    the noise of one answer, is counted once: a mean over images and one over seeds both hold it (Owen 2007, The
    pigeonhole bootstrap). Where two seeds happen to err equally often nothing would be left, so half of what images say
    with that noise is the least. p is 1 less the confidence of the interval that ends at 0, and at least
    1 / (1 + draws). The same arguments give the same bits.
    """
    random = np.random.Generator(np.random.Philox(seed))
    methods = [correct] if other is None else [correct, other]
    lowest = 0 if other is None else -1
    by_image = correct.mean(0) - (0 if other is None else other.mean(0))
    images = len(by_image)
    value, often = np.unique(np.append(by_image, [lowest, 1]), return_counts=True)
    share = often / often.sum()
    resampled = np.sort(random.multinomial(images, share, draws) @ value / images - share @ value)
    spread = float(by_image.var(ddof=1)) if images > 1 else 0.0
    noise = sum(components(method).answer / len(method) for method in methods)
    quiet = math.sqrt(max(0.0, 1 - noise / spread) if spread else 1.0)  # what is left of a deviation without noise
    seeds = [(deviation(method.mean(1).tolist()) / math.sqrt(len(method)), float(len(method) - 1) or math.inf)
             for method in methods]  # fmt: skip
    first, second = [*seeds, (0.0, math.inf)][:2]
    mean = float(correct.mean() - (0.0 if other is None else other.mean()))

    def reach(confidence: float, side: int) -> float:
        """How far below (-1) or above (1) the mean the truth may lie."""
        far = max(0.0, side * float(resampled[round((draws - 1) * (1 + side * confidence) / 2)]))
        return max(far / 2, float(joined(quiet * far, first, second, confidence)))

    least, most = 1 / (1 + draws), 1.0  # p lies between them
    while mean and most > 1.001 * least:
        middle = math.sqrt(least * most)
        least, most = (middle, most) if reach(1 - middle, -1 if mean > 0 else 1) > abs(mean) else (least, middle)
    low, high = mean - reach(confidence, -1), mean + reach(confidence, 1)
    return Estimate(mean, max(float(lowest), low), min(1.0, high), most)


@dataclass(frozen=True)
class Components:
    """The variances that make one answer (1 right, 0 wrong) of one seed's model to one image."""

    image: float  # of images that are easy or hard for every seed
    seed: float  # of models that are good or bad on every image
    answer: float  # the rest: which model errs on which image


def components(correct: Correct) -> Components:
    """The split of the variance of (seeds, images) answers, by the mean squares of a two-way random layout.

    `image` / images is the variance of an accuracy over test sets, `seed` that over seeds, on infinitely many images.
    A seed stands for all that follows from it, see `split`. One seed: `seed` and `answer` cannot be told, and are 0.
    Source: Searle, Casella, McCulloch 1992, Variance components; negative estimates are 0.
    """
    seeds, images = correct.shape
    by_image, by_seed, mean = correct.mean(0), correct.mean(1), correct.mean()
    images_square = seeds * float(((by_image - mean) ** 2).sum()) / max(1, images - 1)
    if seeds == 1:
        return Components(images_square, 0.0, 0.0)
    seeds_square = images * float(((by_seed - mean) ** 2).sum()) / (seeds - 1)
    rest = float(correct.mean() * (1 - correct.mean())) * correct.size  # of 0 and 1 the sum of squares is known
    rest -= images_square * max(1, images - 1) + seeds_square * (seeds - 1)
    answer = max(0.0, rest) / ((seeds - 1) * max(1, images - 1))
    return Components(max(0.0, images_square - answer) / seeds, max(0.0, seeds_square - answer) / images, answer)


@dataclass(frozen=True)
class Split:
    """The standard deviations that make one accuracy; None where the design does not tell."""

    test: float  # over test sets
    seed: float | None  # over seeds on this test set: all that follows from a seed, the next three together
    pretraining: float | None
    probe: float | None  # its own initial weights and orders
    subset: float | None  # the draw of the labels that it is fitted on


def split(correct: Correct, repeated: t.Sequence[t.Sequence[float]] = (), by: str | None = None) -> Split:
    """What makes the accuracies of (seeds, images) answers differ, as standard deviations in the unit of an accuracy.

    `repeated`: for each seed the accuracies of several probes of its one encoder, by="probe" with other initial weights
    and orders, by="subset" on other draws of labels; the answers are of the first. Over test sets: from the mean
    squares of `components`. The probe or the subset: the mean variance within seeds. Pretraining: the variance of the
    seeds' means less what a mean of so few leaves of that within, a one-way random layout (Searle, Casella, McCulloch
    1992); a negative estimate is 0. A split of train on which a probe chooses follows the seed and counts as
    pretraining. Without repetitions pretraining cannot be told from the probe, and with one seed not at all.
    """
    seeds, images = correct.shape
    variance = components(correct)
    test = math.sqrt((variance.image + variance.answer) / images)
    if min(map(len, repeated), default=1) < 2:
        return Split(test, deviation(correct.mean(1).tolist()) if seeds > 1 else None, None, None, None)
    within = mean([deviation(values) ** 2 for values in repeated])
    count = len(repeated) / sum(1 / len(values) for values in repeated)
    parts = {by: math.sqrt(within)}
    if seeds == 1:
        return Split(test, None, None, parts.get("probe"), parts.get("subset"))
    between = max(0.0, deviation([mean(values) for values in repeated]) ** 2 - within / count)
    return Split(test, math.sqrt(between + within), math.sqrt(between), parts.get("probe"), parts.get("subset"))


# ---- many data sets ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Friedman:
    """Whether methods differ over data sets, and how far apart mean ranks must be: a critical-difference diagram."""

    p: float  # of Iman and Davenport's F
    ranks: tuple[float, ...]  # a method's mean rank over data sets, 1 the best
    critical_difference: float  # of two mean ranks, Nemenyi's
    groups: tuple[tuple[int, ...], ...]  # methods that a bar joins: the largest sets within the critical difference


def friedman(scores: Floats, confidence: float = 0.95) -> Friedman:
    """Friedman's test of (data sets, methods) scores, greater being better; data sets are the sample.

    It speaks of new data sets like these, and needs at least 5 of them and 3 methods to say anything. Ties share their
    mean rank. Source: Demsar 2006, Statistical comparisons of classifiers over multiple data sets.

    Raises ValueError for fewer.
    """
    from scipy.stats import f, rankdata, studentized_range  # noqa: PLC0415 - slow to import

    sets, methods = scores.shape
    if sets < 5 or methods < 3:
        raise ValueError(f"Friedman's test needs 5 data sets and 3 methods; got {sets} and {methods}")
    ranks = rankdata(-scores, axis=1)
    mean = ranks.mean(0)
    between = sets * float(((mean - (methods + 1) / 2) ** 2).sum())
    within = float(((ranks - (methods + 1) / 2) ** 2).sum()) - between  # as Conover 1999, which allows for ties
    freedom = (methods - 1, (methods - 1) * (sets - 1))
    statistic = math.inf if within <= 1e-12 * between else (between / freedom[0]) / (within / freedom[1])
    p = float(f.sf(statistic, *freedom)) if between else 1.0
    quantile = float(studentized_range.ppf(confidence, methods, np.inf)) / math.sqrt(2)
    critical = quantile * math.sqrt(methods * (methods + 1) / (6 * sets))
    order = np.argsort(mean, kind="stable").tolist()
    ends = [sum(bool(mean[one] <= mean[first] + critical) for one in order) for first in order]
    bars = [
        order[start:end] for start, end in enumerate(ends) if end - start > 1 and (not start or end > ends[start - 1])
    ]
    return Friedman(p, tuple(mean.tolist()), critical, tuple(tuple(bar) for bar in bars))


# ---- before the experiment ---------------------------------------------------------------------------------------


def power(delta: float, deviation: float, seeds: int, confidence: float = 0.95) -> float:
    """The probability that a two-sided t test sees a difference `delta` of two methods with so many seeds each.

    `deviation`: the standard deviation over seeds, the same for both and in the unit of `delta`. It speaks of new seeds
    on this test set. Source: Cohen 1988, Statistical power analysis.
    """
    freedom, shift = 2 * (seeds - 1), delta / deviation * math.sqrt(seeds / 2)
    critical = float(stdtrit(freedom, (1 + confidence) / 2))
    node, weight = np.polynomial.legendre.leggauss(200)  # scipy's noncentral t is NaN where the power is nearly 1
    spread = np.sqrt(chdtri(freedom, (1 + node) / 2) / freedom)  # estimated over true, at quantiles of its distribution
    seen = ndtr(shift - critical * spread) + ndtr(-shift - critical * spread)
    return float(weight @ seen / 2)


def seeds_needed(delta: float, deviation: float, power_wanted: float = 0.8, confidence: float = 0.95) -> int | None:
    """The fewest seeds of each method that see a difference with the power wanted, at least 2; None: over 10,000.

    As `power`, of which this is the inverse.
    """
    if deviation == 0:
        return 2
    low, high = 1, FURTHEST  # too few, enough
    if power(delta, deviation, high, confidence) < power_wanted:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(delta, deviation, middle, confidence) >= power_wanted else (middle, high)
    return high


def smallest_difference(
    deviation: float, seeds: int, power_wanted: float = 0.8, confidence: float = 0.95
) -> float | None:
    """The smallest difference that so many seeds of each method see with the power wanted; None of one seed."""
    from scipy.optimize import brentq  # noqa: PLC0415 - slow to import

    if seeds < 2:
        return None
    if deviation == 0:
        return 0.0
    return float(brentq(lambda ratio: power(ratio, 1.0, seeds, confidence) - power_wanted, 1e-6, 1e3)) * deviation
