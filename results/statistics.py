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
from scipy.special import chdtri, digamma, ndtr, ndtri, polygamma, stdtrit

Floats = np.ndarray[t.Any, np.dtype[np.float64]]
Integers = np.ndarray[t.Any, np.dtype[np.int64]]
Correct = np.ndarray[t.Any, np.dtype[np.bool_]]  # (seeds, images): was this image told right by this seed's model
MAX_SEEDS = 10_000  # seeds; what needs more cannot be had
_FREEDOMS = 1024  # steps of inverse degrees of freedom
_ROWS = 64  # of a column that are compared with all others at once: 5,000 others are a few MiB


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
class Answers:
    """What the rows of a column answered about the same test images, a mean over each row's seeds."""

    share: np.ndarray[t.Any, np.dtype[np.float32]]  # (rows, images): of a row's seeds that are right; 0 if not known
    noise: Floats  # the variance of one seed's score that answers alone make, if seeds err independently; 0 of one seed
    known: Correct  # (rows,)
    strata: tuple[tuple[float, "Answers"], ...] = ()  # parts of the images, whose means have these weights in a score

    @classmethod
    def of(cls, correct: t.Sequence["Correct | None"], images: int) -> "Answers":
        """From each row's (seeds, images) answers, None where they are not known."""
        share, noise = np.zeros((len(correct), images), np.float32), np.zeros(len(correct))
        for row, one in enumerate(correct):
            if one is not None:
                share[row] = one.mean(0, dtype=np.float32)
                spread = float((share[row] * (1 - share[row])).mean(dtype=np.float64))
                noise[row] = spread * len(one) / max(1, len(one) - 1) / images
        return cls(share, noise, np.array([one is not None for one in correct], np.bool_))

    @classmethod
    def by_stratum(cls, counted: t.Sequence[Floats | None], strata: t.Sequence[tuple[float, Integers]]) -> "Answers":
        """From what each row's (seeds, images) count for, of scores that are weighted means over parts of the images.

        strata: the weight of each part and its images, which are drawn by themselves.
        """
        known = np.array([one is not None for one in counted], np.bool_)
        parts = []
        for weight, images in strata:
            share, noise = np.zeros((len(counted), len(images)), np.float32), np.zeros(len(counted))
            for row, one in enumerate(counted):
                if one is not None:
                    share[row] = one[:, images].mean(0)
                    apart = one[:, images] - one[0, images]  # of equal seeds exactly 0
                    spread = apart.var(0, ddof=1) if len(one) > 1 else np.zeros(1)
                    noise[row] = float(spread.mean()) / len(images)
            parts.append((weight, cls(share, noise, known)))
        noise = sum((weight**2 * part.noise for weight, part in parts), np.zeros(len(counted)))
        return cls(np.zeros((len(counted), 0), np.float32), noise, known, tuple(parts))

    @property
    def worth(self) -> float:
        """How many images without strata tell as much of a score that is the same in every stratum."""
        return 1 / sum(weight**2 / part.share.shape[1] for weight, part in self.strata)

    def spread(self, extremes: int) -> Floats:
        """The variance over new images of each row's mean, strata apart, as if so many more images were at either end.

        As none wrong of few images is not none possible.
        """
        total = np.zeros(len(self.known))
        for weight, part in self.strata:
            images = part.share.shape[1]
            squares = images * part.share.var(1, dtype=np.float64) + extremes / 2
            total += weight**2 * squares / (images + 2 * extremes) / max(1, images + 2 * extremes - (not extremes))
        return total

    def variance(self, first: Integers, second: Integers) -> Floats:
        """Over new images, of the difference of two rows' means for these trained models; places go together.

        One image more of either extreme is counted, as no difference seen is not no difference possible. Source:
        Bonett and Price 2012, Adjusted Wald confidence interval for a difference of binomial proportions, paired data.
        """
        if self.strata:
            parts = (weight**2 * part.variance(first, second) for weight, part in self.strata)
            return sum(parts, np.zeros(()))
        images, (mean, square, products) = self.share.shape[1], self._moments
        lead = images * (mean[first] - mean[second]) / (images + 2)
        both = 2.0 * products[first, second]
        return ((square[first] + square[second] - both + 2) / (images + 2) - lead**2) / (images + 2)

    @functools.cached_property
    def _moments(self) -> tuple[Floats, Floats, np.ndarray[t.Any, np.dtype[np.float32]]]:
        """Over images the mean and the sum of squares of each row, and the sum of products of each pair of rows."""
        mean, square = self.share.mean(1, dtype=np.float64), np.square(self.share).sum(1, dtype=np.float64)
        return mean, square, self.share @ self.share.T


@dataclass(frozen=True)
class Prior:
    """What the rows of a column say together of the variance over seeds, in units of each row's `Answers.noise`."""

    ratio: float  # the variance that a row is expected to have
    freedom: float  # for how many degrees of freedom that counts; 0: nothing is borrowed
    rows: int  # that it comes from

    @classmethod
    def fit(cls, ratios: Floats, freedom: Floats) -> "Prior":
        """From ratios, each a variance with its degrees of freedom: the scaled inverse chi-squared they come from.

        Source: Smyth 2004, Linear models and empirical Bayes methods for assessing differential expression, 6.2.
        """
        logs = np.log(ratios) - digamma(freedom / 2) + np.log(freedom / 2)
        excess = float(logs.var(ddof=1) - polygamma(1, freedom / 2).mean())
        prior = 2 * _inverse_trigamma(excess) if excess > 0 else np.inf
        shift = digamma(prior / 2) - math.log(prior / 2) if excess > 0 else 0.0
        return cls(float(np.exp(logs.mean() + shift)), float(prior), len(ratios))


def _inverse_trigamma(value: float) -> float:
    """Newton's steps on 1 / trigamma, which is nearly linear (Smyth 2004, appendix)."""
    root = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, root))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, root))
        root += step
        if abs(step) < 1e-10 * root:
            break
    return root


MIN_PRIOR_ROWS = 8  # that a prior is fitted on
MAX_PRIOR_FREEDOM = 4.0  # that is borrowed: seeds that collapse are rarer than a few rows can show


@dataclass(frozen=True)
class Scores:
    """The scores of a leaderboard's column, an entry a row. Greater is better."""

    mean: Floats  # over the row's seeds
    deviation: Floats  # of its seeds; 0 where there is one
    seeds: Integers  # 1 stands for these trained models: nothing is said of other seeds
    images: int | None  # that were told right or wrong; None: the score is no share of images
    answers: Answers | None = None  # with them differences are paired by image, and variances over seeds borrowed
    numerical: Floats | None = None  # the variance of a mean that another way to the same optimum adds; None: none
    borrows: bool = True  # whether variances over seeds are moderated by those of the other rows

    @functools.cached_property
    def prior(self) -> Prior:
        """What the column's rows with a variance over seeds say of it together; of fewer than 8 rows nothing.

        Rows whose seeds all answer alike have no randomness and are left out. The freedom is halved and at most 4.
        """
        fitted = self._random
        if not self.borrows or self.answers is None or self.images is None or fitted.sum() < MIN_PRIOR_ROWS:
            return Prior(1.0, 0.0, 0)
        rounding = 1 / (12 * self.images**2)  # the variance of what is counted in whole images
        ratios = np.maximum(self.deviation[fitted] ** 2, rounding) / self.answers.noise[fitted]
        found = Prior.fit(ratios, self.seeds[fitted] - 1.0)
        return Prior(found.ratio, min(found.freedom / 2, MAX_PRIOR_FREEDOM), found.rows)

    @property
    def _random(self) -> t.Any:
        """The rows whose seeds answer differently, as far as answers are known."""
        noise = np.zeros(len(self.mean)) if self.answers is None else self.answers.noise
        return (self.seeds > 1) & (noise > 0)

    @functools.cached_property
    def _over_seeds(self) -> tuple[Floats, Floats]:
        """(variance of a row's mean over new seeds, its degrees of freedom).

        With answers the variance is moderated towards the column's prior (limma's squeezeVar), but is never less than
        the row's own, nor than what the noise of its answers alone makes.
        """
        own, freedom = self.deviation**2, np.maximum(self.seeds - 1.0, 1.0)
        if self.answers is None:
            return own / self.seeds, freedom
        prior, noise = self.prior, self.answers.noise
        borrowed = (prior.freedom * prior.ratio * noise + freedom * own) / (prior.freedom + freedom)
        moderated = np.maximum(np.maximum(borrowed, own), noise)
        total = float(freedom[self._random].sum())
        more = np.where(self._random, np.minimum(freedom + prior.freedom, np.maximum(total, freedom)), freedom)
        return np.where(self._random, moderated, own) / self.seeds, more

    def reach(self, confidence: float) -> tuple[Floats, Floats]:
        """How far below and above its mean each row's truth may lie, on new images and, from two seeds, with new seeds.

        Student's half-width over seeds and Wilson's reach over images, see `joined`: covers 93 to 98 % as far as a
        share of so many images can. With answers known, images count for what they add beside the noise of the answers,
        which is in the variance over seeds; else all seeds are taken to err on the same images, and the interval covers
        more where they do not. Infinite where one seed is all that is known.
        """
        variance, freedom = self._over_seeds
        numerical = 0.0 if self.numerical is None else np.sqrt(self.numerical) * ndtri((1 + confidence) / 2)
        below, above = (
            joined(np.hypot(side, numerical), (np.sqrt(variance), freedom), (0.0, np.inf), confidence)
            for side in self._images(slice(None), confidence)
        )
        return below, above

    def below(self, first: Integers, second: Integers, *confidences: t.Any) -> list[Floats]:
        """How far below the difference of two rows' means, each given by its place, the truth of it may lie.

        The squares of Student's half-width over the seeds of both, with Welch's degrees of freedom, and of the
        half-width over images are added: unlike `joined` this errs on no side but the wide one at every confidence, as
        comparisons of thousands of pairs need it. Over images it is that of the paired answers, where both are known;
        else Wilson's reach of either. With answers the seeds' part is no less than that of either row alone, since
        Welch's freedom is too large where a variance happens to be small. Places go together as arrays do, and with
        levels of confidence; an array a level.
        """
        parts = self._parts(first, second)
        return [self._below(parts, confidence) for confidence in confidences]

    def _parts(self, first: Integers, second: Integers) -> "_Parts":
        variance, freedom = self._over_seeds
        fourth = variance**2 / freedom
        total, shares = variance[first] + variance[second], fourth[first] + fourth[second]
        inverse = np.divide(shares, total**2, out=np.ones_like(total), where=total > 0)
        if self.answers is None:
            return _Parts(first, second, total, inverse, None, None)
        apart = ~(self.answers.known[first] & self.answers.known[second])
        return _Parts(first, second, total, inverse, self._paired(first, second), apart)

    def _below(self, parts: "_Parts", confidence: t.Any) -> Floats:
        at = (1 + np.asarray(confidence)) / 2
        squares = 0.0 if parts.paired is None else parts.paired * ndtri(at) ** 2
        if parts.apart is None or parts.apart.any():
            below, above = self._images(parts.first, confidence)[0], self._images(parts.second, confidence)[1]
            wilsons = below**2 + above**2
            squares = wilsons if parts.apart is None else np.where(parts.apart, wilsons, squares)
        if self.numerical is not None:
            squares = squares + (self.numerical[parts.first] + self.numerical[parts.second]) * ndtri(at) ** 2
        if self.deviation.any():
            if at.ndim:
                seeds = stdtrit(1 / np.maximum(parts.inverse, 1e-12), at) ** 2 * parts.seeds
            else:
                steps = np.ceil(parts.inverse * _FREEDOMS).astype(np.int64)
                seeds = _squared_quantiles(confidence)[steps] * parts.seeds
            variance, freedom = self._over_seeds
            for rows in (parts.first, parts.second) if self.answers is not None else ():
                seeds = np.maximum(seeds, stdtrit(freedom[rows], at) ** 2 * variance[rows])
            squares = squares + seeds
        half: Floats = np.sqrt(squares)
        return half

    def _paired(self, first: Integers, second: Integers) -> Floats:
        """The variance of a difference over new images, without the noise of answers that seeds' variances hold."""
        assert self.answers is not None
        noise = np.where(self.seeds > 1, self.answers.noise / self.seeds, 0.0)
        return np.maximum(0.0, self.answers.variance(first, second) - noise[first] - noise[second])

    def _images(self, rows: t.Any, confidence: t.Any) -> tuple[Floats, Floats]:
        """How far below and above their means the truth of some rows may lie on new images, by Wilson."""
        mean = self.mean[rows]
        if self.images is None:
            unknown = np.where(self.seeds[rows] > 1, 0.0, np.inf)
            return unknown, unknown
        low, high = wilson(mean, self._independent[rows], confidence)
        return mean - low, high - mean

    @functools.cached_property
    def _independent(self) -> Floats:
        """How many images, answered by one model, a row's mean over seeds is worth."""
        assert self.images is not None
        images = np.full(len(self.mean), float(self.images))
        if self.answers is not None and self.answers.strata:
            return self._worth(self.answers)
        if self.answers is not None:
            spread = self.mean * (1 - self.mean)
            noise = np.where(self.seeds > 1, self.answers.noise / self.seeds, 0.0)
            left = self.answers.share.var(1, dtype=np.float64) / self.images - noise
            some = self.answers.known & (spread > 0)
            images[some] = np.maximum(images[some], spread[some] / np.maximum(left[some], 1e-9 * spread[some]))
        return images

    def _worth(self, answers: Answers) -> Floats:
        """The same of answers in strata: the fewer of two numbers.

        By the variance that was seen, and by one in which each stratum has an image more of either extreme. Source:
        Korn and Graubard 1998, Confidence intervals for proportions with small expected number of positive counts
        estimated from survey data, for the effective number; with Wilson's interval.
        """
        least = np.full(len(self.mean), np.inf)
        noise = np.where(self.seeds > 1, answers.noise / self.seeds, 0.0)
        for mean, extremes in ((self.mean, 0), ((self.mean * answers.worth + 1) / (answers.worth + 2), 1)):
            spread = np.clip(mean * (1 - mean), 0.0, None)
            left = answers.spread(extremes) - noise
            seen = answers.known & (left > 1e-9 * spread) & (spread > 0)
            least[seen] = np.minimum(least[seen], spread[seen] / left[seen])
        return np.where(np.isinf(least), answers.worth, least)


class _Parts(t.NamedTuple):
    """What makes the differences of pairs of rows uncertain, whatever the confidence."""

    first: Integers
    second: Integers
    seeds: Floats  # the variance over new seeds
    inverse: Floats  # of its degrees of freedom, Welch's
    paired: Floats | None  # the variance over new images, from paired answers
    apart: Correct | None  # pairs that lack answers


@functools.lru_cache(maxsize=8)
def _squared_quantiles(confidence: float) -> Floats:
    """Of Student's t at inverse degrees of freedom 0, 1 / 1024, ..., 1: one a pair would take seconds."""
    freedom = 1 / np.linspace(1e-12, 1, _FREEDOMS + 1)  # an inverse is rounded up, which is cautious
    squared: Floats = np.asarray(stdtrit(freedom, (1 + confidence) / 2), np.float64) ** 2
    return squared


@dataclass(frozen=True)
class Contrasts:
    """Differences of two rows each. The interval of one leaves out 0 exactly if its p is at most 1 - confidence."""

    difference: Floats
    half: Floats  # of the interval
    p: Floats  # two-sided, corrected for the number of these differences (Holm)


def contrasts(scores: Scores, first: Integers, second: Integers, confidence: float = 0.95) -> Contrasts:
    """The first row of each pair less the second, such as trained encoders less their own untrained networks.

    Any difference of rows that are equally good is found with a probability of at most 1 - confidence. Each interval
    has the level at which Holm's steps decide on it, so that it agrees with its p and covers at least as often.
    """
    difference = scores.mean[first] - scores.mean[second]
    least, most = np.full(len(first), 1e-15), np.ones(len(first))  # p lies between them
    parts = scores._parts(first, second)
    for _ in range(24):  # to six digits
        middle = np.sqrt(least * most)
        open_ = scores._below(parts, 1 - middle) >= np.abs(difference)
        least, most = np.where(open_, middle, least), np.where(open_, most, middle)
    p = np.where(difference == 0, 1.0, most)
    half = scores._below(parts, np.array(holm_levels(p.tolist(), confidence)))
    return Contrasts(difference, half, np.array(holm(p.tolist())))


@dataclass(frozen=True)
class Ranking:
    """What a column says of each of its rows, in the order of its scores. All of it holds together."""

    low: Integers  # the best rank that a row may have, 1 being the best
    high: Integers  # the worst
    tie: Integers  # 1: no row is better; 2: none is but those of 1; and so on
    difference: Floats  # to the best mean, at most 0
    difference_low: Floats  # so far below the row with the best mean it may be
    difference_high: Floats  # so far it is below whichever row is told to be the most ahead; from 0 up in tie 1 only
    may_be_best: Correct  # no row is better, at the level of comparisons with the best alone


def ranking(scores: Scores, confidence: float = 0.95) -> Ranking:
    """Ranks as far as the scores tell them, from comparisons of every row with every other, corrected for their number.

    Two rows differ if the interval of their difference, at Bonferroni's level for all pairs of the column, leaves out
    0. So rows that are equally good are told apart, any two of them, with a probability of at most 1 - confidence,
    however few the seeds are and however they spread (in simulations 6 % at worst, of two rows of two seeds). A row's
    rank lies between one more than the number of rows that are better and the number of rows that are not worse; all
    these intervals hold together (Mogstad, Romano, Shaikh, Wilhelm 2024, Inference for ranks). Differences have the
    same intervals. Whether a row may be the best is a question of its own: each row is compared with every other one,
    so the best row is missed with a probability of at most 1 - confidence (Hsu 1984, Constrained simultaneous
    confidence intervals for multiple comparisons with the best). So a row whose rank may be 1 need not be one of these.

    It assumes scores that spread normally over seeds. Without answers it also assumes methods that err on the same
    images no less often than by chance. Rows of one seed stand for that one trained model.
    """
    count = len(scores.mean)
    order = np.argsort(-scores.mean, kind="stable")
    level = 1 - (1 - confidence) / max(1, math.comb(count, 2))
    with_best = 1 - min(1.0, 2 * (1 - confidence) / max(1, count - 1))  # one-sided
    better, worse, tie = (np.zeros(count, np.int64) for _ in range(3))  # by place: the rows ahead, those behind
    high, may_be_best = np.full(count, np.inf), np.ones(count, np.bool_)
    for start in range(0, count, _ROWS):
        rows = order[start : start + _ROWS, None]
        ahead = order[: start + len(rows)]
        lead = scores.mean[ahead] - scores.mean[rows]  # (rows, ahead)
        lead[:, start:][np.triu_indices(len(rows))] = -np.inf  # a row leads neither itself nor what is before it
        leads, leads_once = (lead - below for below in scores.below(ahead, rows, level, with_best))  # at the least
        is_ahead = leads > 0
        better[start : len(ahead)] = is_ahead.sum(1)
        worse[: len(ahead)] += is_ahead.sum(0)
        high[start : len(ahead)] = -leads.max(1)
        may_be_best[start : len(ahead)] = ~(leads_once > 0).any(1)
        for place, its in enumerate(is_ahead, start):
            tie[place] = 1 + (its * tie[: len(ahead)]).max()
    places = np.argsort(order, kind="stable")
    best, everyone = order[:1], np.arange(count)
    to_best = scores.mean - scores.mean[best]
    low = to_best - scores.below(everyone, best, level)[0]
    low[best] = high[:1] = 0.0
    return Ranking(
        1 + better[places], count - worse[places], tie[places], to_best, low, high[places], may_be_best[places]
    )


def holm(p_values: t.Sequence[float]) -> list[float]:
    """p-values corrected for their number, in their order; rejecting those <= a has a family-wise error of at most a.

    Valid whatever the dependence between the tests. Source: Holm 1979, A simple sequentially rejective procedure.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = largest
    return corrected


def holm_levels(p_values: t.Sequence[float], confidence: float = 0.95) -> list[float]:
    """The confidence at which Holm's steps decide on each: an interval of that leaves out 0 exactly if `holm` rejects.

    p_values: not corrected, each 1 less the confidence of the interval that ends at 0.
    """
    count, found = len(p_values), sum(p <= 1 - confidence for p in holm(p_values))
    levels = [confidence] * count
    for place, index in enumerate(sorted(range(count), key=p_values.__getitem__)):
        levels[index] = 1 - (1 - confidence) / (count - min(place, found, count - 1))
    return levels


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
    low, high = 1, MAX_SEEDS  # too few, enough
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
