"""Statistics: agreement with scipy and statsmodels, known answers, and what simulations must give."""

import itertools
import math
import typing as t

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit
from statsmodels.stats import contingency_tables, multitest, proportion
from statsmodels.stats import power as reference

from results.statistics import (
    Answers,
    Prior,
    Scores,
    components,
    contrasts,
    friedman,
    hierarchical_bootstrap,
    holm,
    holm_levels,
    joined,
    mcnemar,
    mcnemar_over_seeds,
    power,
    ranking,
    seeds_needed,
    smallest_difference,
    split,
    wilson,
)

# ---- over images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [10, 1000, 10_000])
@pytest.mark.parametrize("right", [0.0, 0.1, 0.5, 0.97, 1.0])
def test_wilsons_interval_is_that_of_statsmodels(right: float, images: int) -> None:
    share = round(right * images) / images
    wanted = proportion.proportion_confint(round(right * images), images, method="wilson")
    assert wilson(share, images) == pytest.approx(wanted, abs=1e-12)


def test_a_perfect_score_on_few_images_is_not_certain() -> None:
    low, high = wilson(1.0, 100)
    assert (float(low), float(high)) == (pytest.approx(1 / (1 + 1.959964**2 / 100)), 1.0)  # 0.963


@pytest.mark.parametrize("share", [0.5, 0.9, 0.97])
def test_95_percent_of_wilsons_intervals_hold_the_share(share: float) -> None:
    counts = np.arange(1001)
    low, high = wilson(counts / 1000, 1000)
    held = stats.binom.pmf(counts, 1000, share)[(low <= share) & (share <= high)].sum()  # exact, no simulation
    assert 0.94 < held < 0.96


# ---- ranks ------------------------------------------------------------------------------------------------------


def column(values: list[list[float]], images: int | None = None) -> Scores:
    """Scores from the values of each row's seeds."""
    spread = [np.std(row, ddof=1) if len(row) > 1 else 0.0 for row in values]
    lengths = np.array([len(row) for row in values])
    return Scores(np.array([np.mean(row) for row in values]), np.array(spread), lengths, images)


def test_two_rows_are_told_apart_exactly_when_the_known_interval_leaves_out_zero() -> None:
    # Wilson, 1,000 images: 0.93 reaches down 1.75 points, 0.92 1.85, and 0.90 reaches up 1.71: 2.45 and 2.52 together
    apart = ranking(column([[0.93], [0.90]], 1000))
    assert (apart.low.tolist(), apart.high.tolist(), apart.tie.tolist()) == ([1, 2], [1, 2], [1, 2])
    tied = ranking(column([[0.92], [0.90]], 1000))
    assert (tied.low.tolist(), tied.high.tolist(), tied.tie.tolist()) == ([1, 1], [2, 2], [1, 1])
    assert tied.difference.tolist() == pytest.approx([0, -0.02])
    assert tied.difference_low[1] < -0.02 < 0 < tied.difference_high[1]


def test_the_reach_of_a_row_is_that_of_its_seeds_or_of_its_images_where_one_is_all_there_is() -> None:
    # the interval of test_a_known_interval; added as squares 24.84 and 3.94 tenths of a point would make 25.17
    below, above = column([[0.95, 0.96, 0.97]], 10_000).reach(0.95)
    assert below[0] == pytest.approx(0.0248413, abs=1e-5)
    assert above[0] == pytest.approx(0.0248413, abs=1e-5)
    low, _ = wilson(0.96, 10_000)
    below, _ = column([[0.9584, 0.96, 0.9616]], 10_000).reach(0.95)  # both parts about as large
    assert below[0] == pytest.approx((0.00397461**4.5 + float(0.96 - low) ** 4.5) ** (1 / 4.5), rel=1e-4)


def test_seeds_that_do_not_spread_leave_the_images() -> None:
    below, above = column([[0.9, 0.9]], 1000).reach(0.95)
    assert (0.9 - below[0], 0.9 + above[0]) == pytest.approx(wilson(0.9, 1000))


def test_one_seed_of_what_is_no_share_of_images_says_nothing() -> None:
    found = ranking(column([[5.0], [9.0], [1.0]]))
    assert found.tie.tolist() == [1, 1, 1]
    assert found.high.tolist() == [3, 3, 3]
    assert np.isinf(found.difference_low[[0, 2]]).all()


def test_rank_intervals_and_ties_of_rows_far_apart_and_of_rows_between() -> None:
    found = ranking(column([[0.50], [0.90], [0.905], [0.20]], 10_000))
    assert list(zip(found.low, found.high)) == [(3, 3), (1, 2), (1, 2), (4, 4)]
    assert found.tie.tolist() == [2, 1, 1, 3]
    assert ranking(column([[0.5]], 100)).high.tolist() == [1]


def test_ranks_do_not_depend_on_the_order_of_the_rows() -> None:
    random = np.random.default_rng(0)
    scores = column(random.normal(0.8, 0.05, (12, 3)).clip(0, 1).tolist(), 2000)
    wanted, order = ranking(scores), random.permutation(12)
    found = ranking(Scores(scores.mean[order], scores.deviation[order], scores.seeds[order], 2000))
    for name in ("low", "high", "tie", "difference"):
        assert getattr(found, name).tolist() == getattr(wanted, name)[order].tolist()


def told_apart(rows: int, seeds: int, spread: t.Sequence[float], *, shared: bool, runs: int) -> float:
    """How often any of equally good rows are told apart. `shared`: the seeds of a row err on the same images."""
    random, images = np.random.default_rng(rows * 100 + seeds), 1000
    able = (0.9 + random.normal(0, 1, (runs, rows, seeds)) * np.array(spread)[:, None]).clip(0, 1)
    if shared:
        values = (able + random.normal(0, math.sqrt(0.9 * 0.1 / images), (runs, rows, 1))).clip(0, 1)
    else:
        values = random.binomial(images, able) / images
    deviations = values.std(2, ddof=1) if seeds > 1 else np.zeros((runs, rows))
    scores = Scores(values.mean(2).ravel(), deviations.ravel(), np.full(runs * rows, seeds), images)
    first, second = (np.arange(runs)[:, None] * rows + places for places in np.nonzero(~np.eye(rows, dtype=bool)))
    level = 1 - 0.05 / math.comb(rows, 2)
    apart = (scores.mean[first] - scores.mean[second] > scores.below(first, second, level)[0]).any(1)
    for run in range(20):  # that is what the leaderboard does
        assert apart[run] == (ranking(column(values[run].tolist(), images)).high < rows).any()
    return float(apart.mean())


NULLS = [  # rows, seeds, standard deviation over seeds
    (2, 1, [0.0] * 2),
    (10, 1, [0.0] * 10),
    (2, 2, [0.005] * 2),
    (2, 2, [0.02, 0.001]),
    (2, 3, [0.02, 0.02]),
    (2, 5, [0.01] * 2),
    (10, 2, [0.01] * 10),
    (10, 3, np.geomspace(0.001, 0.05, 10).tolist()),
    (10, 10, [0.01] * 10),
]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("rows", "seeds", "spread"), NULLS)
def test_of_equally_good_rows_any_are_told_apart_in_at_most_6_percent(
    rows: int, seeds: int, spread: list[float], shared: bool
) -> None:
    assert told_apart(rows, seeds, spread, shared=shared, runs=10_000) <= 0.06


@pytest.mark.parametrize("images", [100, 1000])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_two_models_that_are_equally_good_are_told_apart_in_at_most_6_percent(images: int, share: float) -> None:
    found = np.arange(images + 1) / images
    chance = stats.binom.pmf(np.arange(images + 1), images, share)  # exact, no simulation
    low, high = wilson(found, images)
    apart = found[:, None] - found > np.hypot((found - low)[:, None], high - found)
    first, second = np.unravel_index(np.argmax(apart * chance), apart.shape)
    told = ranking(column([[found[first]], [found[second]]], images))
    assert told.tie.tolist() == [1, 2]  # the rule above is the leaderboard's
    assert 2 * chance @ apart @ chance <= 0.06


def test_what_may_be_the_first_is_what_no_interval_says_is_behind() -> None:
    random, told = np.random.default_rng(0), 0
    for _ in range(200):
        values = (random.normal(0.9, 0.02, (9, 1)) + random.normal(0, 0.005, (9, 3)) * random.random((9, 1))).clip(0, 1)
        few = [row[: random.integers(1, 4)] for row in values.tolist()]
        found = ranking(column(few, 5000))
        assert (found.tie == 1).tolist() == (found.difference_high >= 0).tolist() == (found.low == 1).tolist()
        assert (found.difference_low <= found.difference).all()
        assert (found.difference <= found.difference_high).all()
        told += int((found.tie > 1).sum())
    assert 200 < told < 1600  # both happen


def test_ranking_is_every_pair_compared_by_itself() -> None:
    random = np.random.default_rng(1)
    values = random.normal(0.9, 0.03, (150, 1)) + random.normal(0, 0.003, (150, 4))  # more than are compared at once
    scores = column([row[: random.integers(2, 5)] for row in values.clip(0, 1).tolist()], 5000)
    found, level = ranking(scores), 1 - 0.05 / math.comb(150, 2)
    one, other = np.indices((150, 150))
    leads = scores.mean[one] - scores.mean[other] - scores.below(one, other, level)[0]
    assert found.low.tolist() == (1 + (leads > 0).sum(0)).tolist()
    assert found.high.tolist() == (150 - (leads > 0).sum(1)).tolist()
    left, tie = np.ones(150, bool), np.zeros(150, int)
    while left.any():  # those that nobody who is left leads
        first = left & ~(leads[left] > 0).any(0)
        tie[first] = tie.max() + 1
        left &= ~first
    assert found.tie.tolist() == tie.tolist()
    assert tie.max() == 3


def test_the_true_ranks_lie_in_all_rank_intervals_in_95_percent() -> None:
    random, truth, held = np.random.default_rng(0), np.array([0.90, 0.89, 0.88, 0.85, 0.80, 0.5]), 0
    for _ in range(400):
        scores = random.binomial(2000, (truth + random.normal(0, 0.005, (5, 6))).T) / 2000
        found = ranking(column(scores.tolist(), 2000))
        held += bool(((found.low <= np.arange(1, 7)) & (np.arange(1, 7) <= found.high)).all())
    assert held / 400 > 0.95 - 3 * math.sqrt(0.05 * 0.95 / 400)
    assert found.low[5] == found.high[5] == 6  # and they say something


# ---- paired answers, borrowed variances -------------------------------------------------------------------------


def of(correct: np.ndarray[t.Any, t.Any]) -> Scores:
    """Scores of (rows, seeds, images) answers."""
    rows, seeds, images = correct.shape
    values = correct.mean(2)
    spread = values.std(1, ddof=1) if seeds > 1 else np.zeros(rows)
    return Scores(values.mean(1), spread, np.full(rows, seeds), images, Answers.of(list(correct), images))


def test_a_paired_variance_is_that_of_bonett_and_price() -> None:
    first, second = np.arange(1000) < 950, np.arange(1000) % 25 > 0  # 912 both, 38 the first alone, 48 the second
    won, lost = int((first & ~second).sum()), int((second & ~first).sum())
    wanted = ((won + lost + 2) / 1002 - ((won - lost) / 1002) ** 2) / 1002
    found = Answers.of([first[None], second[None]], 1000)
    assert found.variance(np.array([0]), np.array([1])) == pytest.approx([wanted], rel=1e-5)
    (half,) = of(np.stack([first, second])[:, None]).below(np.array([0]), np.array([1]), 0.95)
    assert half == pytest.approx([1.959964 * math.sqrt(wanted)], rel=1e-5)
    unknown = Answers.of([first[None], None], 1000)
    assert unknown.known.tolist() == [True, False]


def test_the_noise_of_answers_is_the_variance_of_a_score_whose_seeds_err_independently() -> None:
    random = np.random.default_rng(0)
    chance = random.beta(5, 1, 2000)
    correct = random.random((1, 4000, 2000)) < chance  # so many seeds of one row
    noise = Answers.of(list(correct), 2000).noise[0]
    assert noise == pytest.approx((chance * (1 - chance)).mean() / 2000, rel=0.02)
    assert correct.mean(2).var() == pytest.approx(noise, rel=0.1)


LIMMA = np.array([0.2, 1.3, 0.7, 3.1, 0.05, 0.9, 2.2, 0.4, 6.0, 0.6, 1.1, 0.3])


@pytest.mark.parametrize(
    ("variances", "freedom", "prior_freedom", "prior"),
    [  # df_prior and var_prior of limma's squeezeVar, as pylimma 0.2.0 has it
        (LIMMA, 2.0, 88.5015262056346, 1.301421442303293),
        (LIMMA[:8] * [0.1, 9, 1, 4, 20, 0.03, 1, 1], 4.0, 0.9657804412435408, 0.23905596037648666),
    ],
)
def test_a_prior_is_that_of_limma(variances: t.Any, freedom: float, prior_freedom: float, prior: float) -> None:
    found = Prior.fit(variances, np.full(len(variances), freedom))
    assert (found.freedom, found.ratio) == pytest.approx((prior_freedom, prior), rel=1e-9)


def test_variances_that_spread_less_than_by_chance_come_from_one() -> None:
    assert Prior.fit(np.full(9, 0.5), np.full(9, 2.0)).freedom == np.inf


def probit(
    random: np.random.Generator, accuracy: t.Any, points: t.Any, seeds: int, images: int
) -> np.ndarray[t.Any, t.Any]:
    """(rows, seeds, images) answers of rows with these accuracies, whose seeds deviate by so many percentage points.

    Half of what decides on an answer is common to all rows (hard images), a quarter to the seeds of a row and a quarter
    is an answer's own: over images the rows of results/published/mnist mostly correlate by .28 to .79 (here .34),
    and an answer's own noise is .15 to .64 of its variance (here .59).
    """
    accuracy, points = np.broadcast_arrays(np.asarray(accuracy, float), np.asarray(points, float))
    at = stats.norm.ppf(accuracy)
    deviation = (points / 100 / stats.norm.pdf(at))[:, None, None]
    shape = (len(accuracy), seeds, images)
    drawn = [random.standard_normal(one, np.float32) for one in ((images,), (shape[0], 1, images), shape)]
    noise = np.float32(0.5**0.5) * drawn[0] + np.float32(0.5) * drawn[1] + np.float32(0.5) * drawn[2]
    level = at[:, None, None] * np.sqrt(1 + deviation**2) + deviation * random.standard_normal((*shape[:2], 1))
    right: np.ndarray[t.Any, t.Any] = level.astype(np.float32) + noise > 0
    return right


SPREADS: dict[str, t.Callable[[np.random.Generator, int], t.Any]] = {  # points over seeds, of so many rows
    "equal": lambda random, rows: np.full(rows, 0.3),
    "log-normal": lambda random, rows: 0.2 * np.exp(0.6 * random.standard_normal(rows)),
    "half and half": lambda random, rows: np.where(np.arange(rows) % 2, 0.05, 1.0),
    "one of 20 times": lambda random, rows: np.where(np.arange(rows) == rows - 1, 2.0, 0.1),
}


def null(spread: str, rows: int, seeds: int, images: int, runs: int) -> dict[str, float]:
    """How often equally good rows are told apart, and how often intervals hold the truth; row 0 is the control."""
    random, found = np.random.default_rng(rows), []
    control, others = np.zeros(rows - 1, np.int64), np.arange(1, rows)
    for _ in range(runs):
        scores = of(probit(random, np.full(rows, 0.95), SPREADS[spread](random, rows), seeds, images))
        ranks, over = ranking(scores), contrasts(scores, others, control)
        below, above = scores.reach(0.95)
        found.append((
            (ranks.high < rows).any(), not ranks.may_be_best[0], (over.p <= 0.05).any(),
            ((scores.mean - below <= 0.95) & (scores.mean + above >= 0.95)).mean(),
            (np.abs(over.difference) <= scores.below(others, control, 0.95)[0]).mean(),
        ))  # fmt: skip
    names = ("pairs", "best", "controls", "cell", "difference")
    return dict(zip(names, np.mean(found, axis=0).tolist()))


def check_null(found: dict[str, float], spread: str, runs: int) -> None:
    chance = 2 * math.sqrt(0.05 * 0.95 / runs)  # of a simulation: two of its standard errors
    assert found["pairs"] <= (0.07 if spread == "one of 20 times" else 0.065) + chance
    assert found["best"] <= 0.05 + chance
    assert found["controls"] <= 0.065 + chance
    assert 0.93 - chance <= found["cell"] <= 0.98 + chance
    assert 0.93 - chance <= found["difference"] <= 0.99 + chance


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize(("rows", "seeds", "images"), [(12, 3, 1000), (8, 5, 1000)])
def test_rows_that_are_equally_good_are_rarely_told_apart_by_borrowed_variances(
    spread: str, rows: int, seeds: int, images: int
) -> None:
    check_null(null(spread, rows, seeds, images, 200), spread, 200)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("images", [1000, 10_000])
@pytest.mark.parametrize("rows", [8, 12, 40])
@pytest.mark.parametrize("seeds", [3, 5])
def test_rows_that_are_equally_good_are_rarely_told_apart_in_every_design(
    spread: str, rows: int, seeds: int, images: int
) -> None:
    runs = 800 if rows * images <= 120_000 else 300
    found = null(spread, rows, seeds, images, runs)
    print(spread, rows, seeds, images, runs, {name: round(100 * value, 1) for name, value in found.items()})
    check_null(found, spread, runs)


def told(runs: int) -> dict[str, float]:
    """Of 12 rows with 3 seeds and 10,000 images: how many pairs and differences to the control are rightly told."""
    random, sums = np.random.default_rng(7), np.zeros(4)
    first, control = np.arange(1, 12), np.zeros(11, np.int64)
    for _ in range(runs):
        truth = 0.95 + 0.0068 * random.standard_normal(12)
        scores = of(probit(random, truth, SPREADS["log-normal"](random, 12), 3, 10_000))
        alone = Scores(scores.mean, scores.deviation, scores.seeds, scores.images)
        one, other = np.triu_indices(12, 1)
        for place, some in enumerate((scores, alone)):
            lead = some.mean[one] - some.mean[other]
            found = np.abs(lead) > some.below(one, other, 1 - 0.05 / 66)[0]
            sums[place] += (found & (np.sign(lead) == np.sign(truth[one] - truth[other]))).sum()
        over = contrasts(scores, first, control)
        sums[2] += ((over.p <= 0.05) & (np.sign(over.difference) == np.sign(truth[1:] - truth[0]))).sum()
        half = alone.below(first, control, 1 - 0.05 / 66)[0]  # what tables told of controls before
        sums[3] += (np.abs(alone.mean[1:] - alone.mean[0]) > half).sum()
    return dict(zip(("pairs", "pairs before", "controls", "controls before"), (sums / runs).tolist()))


def test_pairing_and_borrowing_tell_many_more_rows_apart() -> None:
    found = told(40)
    assert found["pairs"] >= 8
    assert found["pairs before"] <= 3
    assert found["controls"] >= 3
    assert found["controls before"] <= 0.5


def test_a_variance_is_never_less_than_the_rows_own_nor_borrowed_from_few_rows() -> None:
    random = np.random.default_rng(1)
    scores = of(probit(random, np.full(9, 0.95), np.geomspace(0.01, 3, 9), 3, 2000))
    assert (scores.prior.rows, 0 < scores.prior.freedom <= 4) == (9, True)
    own, _ = Scores(scores.mean, scores.deviation, scores.seeds, 2000)._over_seeds
    moderated, freedom = scores._over_seeds
    assert (moderated >= own).all()
    assert (moderated > own).any()
    assert freedom == pytest.approx(np.full(9, 2 + scores.prior.freedom))
    few = of(probit(random, np.full(7, 0.95), np.full(7, 0.2), 3, 2000))
    assert (few.prior.rows, few.prior.freedom) == (0, 0.0)


def test_a_difference_is_no_surer_than_either_row_alone() -> None:
    scores = of(probit(np.random.default_rng(0), np.full(8, 0.95), np.where(np.arange(8) % 2, 0.02, 3), 3, 5000))
    variance, freedom = scores._over_seeds
    first, second = np.triu_indices(8, 1)
    (half,) = scores.below(first, second, 0.999)
    alone = stats.t.ppf(0.9995, freedom) * np.sqrt(variance)
    assert (half >= np.maximum(alone[first], alone[second])).all()


def test_rows_without_randomness_lend_nothing_and_borrow_nothing() -> None:
    random = np.random.default_rng(2)
    correct = probit(random, np.full(10, 0.95), np.full(10, 0.3), 3, 2000)
    correct[9] = correct[9, :1]  # pixels: each seed gives the same answers
    scores = of(correct)
    variance, _ = scores._over_seeds
    assert scores.prior.rows == 9
    assert variance[9] == 0
    assert scores.prior == of(correct[:9]).prior


def test_differences_to_controls_have_holms_p_and_intervals_that_agree_with_it() -> None:
    random = np.random.default_rng(3)
    for _ in range(20):
        scores = of(probit(random, 0.95 + 0.01 * random.standard_normal(9), np.full(9, 0.2), 3, 1000))
        found = contrasts(scores, np.arange(1, 9), np.zeros(8, np.int64))
        assert ((np.abs(found.difference) > found.half) == (found.p <= 0.05)).all()
    one = contrasts(scores, np.array([1]), np.array([0]))
    assert one.half == pytest.approx(scores.below(np.array([1]), np.array([0]), 0.95)[0], rel=1e-3)
    assert len(contrasts(scores, np.zeros(0, np.int64), np.zeros(0, np.int64)).p) == 0


def test_who_may_be_best_is_told_by_comparisons_with_the_best_alone() -> None:
    scores = column([[0.93], [0.91], [0.5]], 1000)
    one, other = np.array([0]), np.array([1])
    assert scores.below(one, other, 1 - 2 * 0.05 / 2)[0] > 0.02 > scores.below(one, other, 0.8)[0]
    assert ranking(scores).may_be_best.tolist() == [True, True, False]
    assert ranking(scores, 0.8).may_be_best.tolist() == [
        True,
        False,
        False,
    ]  # level 0.2: 0.1 for each of two, one-sided
    assert ranking(scores, 0.8).low.tolist() == [1, 1, 3]  # while all ranks together leave it open


@pytest.mark.parametrize("p_values", [[0.01, 0.04, 0.03, 0.005], [0.5], [0.9, 0.9, 1.0], [0.02] * 5, []])
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    wanted = multitest.multipletests(p_values, method="holm")[1] if p_values else []
    assert holm(p_values) == pytest.approx(list(wanted))


def test_holms_levels_are_those_of_the_steps_that_decide() -> None:
    levels = holm_levels([0.04, 0.001, 0.02, 0.9])  # 0.001 * 4 is told, 0.02 * 3 is not
    assert levels == pytest.approx([1 - 0.05 / 3, 1 - 0.05 / 4, 1 - 0.05 / 3, 1 - 0.05 / 3])
    assert holm_levels([0.03]) == [0.95]
    assert holm_levels([0.001, 0.001]) == pytest.approx([0.975, 0.95])


# ---- pairs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (5, 0), (10, 3), (7, 7), (120, 100)])
def test_mcnemar_is_that_of_statsmodels(won: int, lost: int) -> None:
    wanted = contingency_tables.mcnemar([[50, won], [lost, 20]], exact=True).pvalue if won + lost else 1.0
    assert mcnemar(won, lost) == pytest.approx(wanted)


def test_mcnemar_over_one_pair_is_mcnemar() -> None:
    random = np.random.default_rng(0)
    for images in (1, 5, 200):
        correct, other = random.random((1, images)) < 0.7, random.random((1, images)) < 0.5
        won, lost = int((correct & ~other).sum()), int((other & ~correct).sum())
        assert mcnemar_over_seeds(correct, other) == pytest.approx(mcnemar(won, lost))


def test_mcnemar_over_seeds_counts_every_sign_of_every_image() -> None:
    random = np.random.default_rng(1)
    for _ in range(20):
        correct, other = random.random((3, 9)) < 0.8, random.random((3, 9)) < 0.5
        net = correct.sum(0) - other.sum(0).astype(int)
        sums = [abs(sum(s * abs(n) for s, n in zip(signs, net))) for signs in itertools.product((-1, 1), repeat=9)]
        wanted = np.mean(np.array(sums) >= abs(net.sum()))
        assert mcnemar_over_seeds(correct, other) == pytest.approx(wanted)


def test_the_same_model_under_three_seeds_is_one_model() -> None:
    random = np.random.default_rng(2)
    correct, other = random.random((1, 300)) < 0.8, random.random((1, 300)) < 0.7
    once = mcnemar_over_seeds(correct, other)
    assert mcnemar_over_seeds(np.repeat(correct, 3, 0), np.repeat(other, 3, 0)) == pytest.approx(once)
    assert mcnemar_over_seeds(correct, correct) == 1.0
    assert 0 <= mcnemar_over_seeds(np.ones((3, 2000), bool), np.zeros((3, 2000), bool)) < 1e-12


def answers(random: np.random.Generator, easy: t.Any, seeds: int, spread: float) -> np.ndarray[t.Any, t.Any]:
    """What models of so many seeds tell right of images that are so easy (log-odds)."""
    chance = expit(easy + random.normal(0, spread, (seeds, 1)))
    right: np.ndarray[t.Any, t.Any] = random.random((seeds, len(easy))) < chance
    return right


def test_mcnemar_over_seeds_errs_in_5_percent_on_models_that_are_equally_good() -> None:
    random, errors = np.random.default_rng(3), 0
    for _ in range(400):
        easy = random.normal(1.5, 2, 500)
        errors += mcnemar_over_seeds(answers(random, easy, 3, 0), answers(random, easy, 3, 0)) <= 0.05
    assert errors / 400 == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 400))


# ---- seeds and images together ----------------------------------------------------------------------------------


def coverage(seeds: int, spread: float, runs: int) -> tuple[float, float]:
    """How often the interval of one method holds its accuracy, and that of a difference of two equals holds 0."""
    random = np.random.default_rng(seeds)
    everything = random.normal(1.5, 2, 400_000)
    truth = expit(everything + random.normal(0, spread, len(everything))).mean()
    one = two = 0
    for _ in range(runs):
        easy = random.normal(1.5, 2, 800)
        correct, other = answers(random, easy, seeds, spread), answers(random, easy, seeds, spread)
        alone = hierarchical_bootstrap(correct, draws=1000)
        paired = hierarchical_bootstrap(correct, other, draws=1000)
        one, two = one + (alone.low <= truth <= alone.high), two + (paired.low <= 0 <= paired.high)
    return one / runs, two / runs


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (2, 0.1), (3, 0.1)])
def test_the_bootstrap_covers_about_95_percent(seeds: int, spread: float) -> None:
    for held in coverage(seeds, spread, 200):
        assert 0.95 - 3 * math.sqrt(0.05 * 0.95 / 200) < held < 0.995


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.03, 0.1, 0.3])
@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_the_bootstrap_covers_93_to_97_percent(seeds: int, spread: float) -> None:
    if seeds == 1 and spread:
        pytest.skip("one seed tells nothing of others")
    for held in coverage(seeds, spread, 2000):
        assert 0.922 <= held <= 0.978  # with twice the simulation's own error, which is 0.4 of a point


@pytest.mark.parametrize("ratio", [0.1, 1.0, 10.0])  # of the variance of seeds to that of images
@pytest.mark.parametrize("share", [0.5, 0.9, 0.97, 0.995])
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_the_interval_of_a_leaderboards_cell_covers_93_to_97_percent(seeds: int, share: float, ratio: float) -> None:
    random, runs, images = np.random.default_rng(seeds), 20_000, 10_000
    variance = share * (1 - share) / images
    size = 1 / (ratio / images) - 1
    able = random.beta(share * size, (1 - share) * size, (runs, seeds))  # of this mean and ratio * variance
    assert able.var() == pytest.approx(ratio * variance, rel=0.1)
    values = (able + random.binomial(images, share, (runs, 1)) / images - share).clip(0, 1)
    scores = Scores(values.mean(1), values.std(1, ddof=1), np.full(runs, seeds), images)
    below, above = scores.reach(0.95)
    assert 0.93 <= ((scores.mean - below <= share) & (share <= scores.mean + above)).mean() <= 0.97


@pytest.mark.parametrize(
    ("first", "second", "least", "most"),
    [(1, None, 0.94, 0.966), (2, None, 0.947, 0.959), (4, None, 0.946, 0.951), (9, None, 0.947, 0.951),
     (1, 1, 0.93, 0.969), (1, 2, 0.93, 0.969), (1, 4, 0.934, 0.97), (2, 2, 0.937, 0.959), (4, 4, 0.938, 0.951)],
)  # fmt: skip
def test_joined_intervals_cover_what_their_table_says(
    first: int, second: int | None, least: float, most: float
) -> None:
    random, runs = np.random.default_rng(0), 30_000
    one = np.sqrt(random.chisquare(first, runs) / first)  # estimated over true
    two = np.sqrt(random.chisquare(second, runs) / second) if second else 0 * one
    found = []
    for images, seeds in [(0.0, 1.0), *((1.0, seeds) for seeds in np.geomspace(0.05, 20, 9))]:
        for other in np.geomspace(0.01, 100, 9) if second else [0.0]:
            part = (seeds * other * two, second or np.inf)
            half = joined(1.959964 * images * np.ones(runs), (seeds * one, first), part, 0.95)
            deviation = math.hypot(images, seeds, seeds * other)
            found.append(float(1 - 2 * stats.norm.sf(half / deviation).mean()))  # exact, given the estimates
    assert least < min(found)
    assert max(found) < most


def test_small_p_values_are_not_too_small() -> None:
    random, runs = np.random.default_rng(0), 30_000
    for first, second in ((1, 1), (1, 4), (2, 2), (4, 4)):
        one, two = (np.sqrt(random.chisquare(freedom, runs) / freedom) for freedom in (first, second))
        for seeds in (0.1, 1.0, 8.0):
            for other in (0.01, 0.1, 1.0):
                half = joined(2.5758 * np.ones(runs), (seeds * one, first), (seeds * other * two, second), 0.99)
                deviation = math.hypot(1, seeds, seeds * other)
                assert 2 * stats.norm.sf(half / deviation).mean() < 0.0125


def test_the_bootstrap_gives_the_same_bits_for_the_same_seed_and_about_the_same_for_another() -> None:
    random = np.random.default_rng(0)
    easy = random.normal(2, 3, 1000)
    correct, other = answers(random, easy, 3, 0.01), answers(random, easy - 1, 2, 0.01)
    once = hierarchical_bootstrap(correct, other)
    assert once == hierarchical_bootstrap(correct, other)
    again = hierarchical_bootstrap(correct, other, seed=1)
    assert once != again
    assert once.mean == pytest.approx(correct.mean() - other.mean())
    turned = hierarchical_bootstrap(other, correct)
    for same in (again.high - again.low, turned.high - turned.low):
        assert same == pytest.approx(once.high - once.low, rel=0.1)


def test_seeds_that_err_equally_often_by_chance_do_not_make_an_interval_of_no_width() -> None:
    wrong = np.arange(42)  # of 1,000 images: 10 under each seed of one, 11 under each of the other, all different
    correct, other = np.ones((2, 1000), bool), np.ones((2, 1000), bool)
    correct[0, wrong[:10]] = correct[1, wrong[10:20]] = False
    other[0, wrong[20:31]] = other[1, wrong[31:]] = False
    alone, paired = hierarchical_bootstrap(correct), hierarchical_bootstrap(correct, other)
    assert alone.low < 0.988 and alone.high > 0.991
    assert paired.low < -0.001 and paired.high > 0.003
    assert paired.p > 0.2


def test_no_difference_seen_is_not_no_difference_possible() -> None:
    correct = np.ones((1, 100), bool)
    found = hierarchical_bootstrap(correct, correct)
    assert found.mean == 0
    assert found.p == 1
    assert -0.06 < found.low < 0 < found.high < 0.06  # 3 of 100 is what none of 100 leaves possible


def test_components_of_a_layout_known_by_hand() -> None:
    # 2 seeds x 4 images: means 3/4 and 1/4 of seeds, 1, 1/2, 1/2, 0 of images; sums of squares 1/2, 1 and 1/2 left
    found = components(np.array([[1, 1, 1, 0], [1, 0, 0, 0]], bool))
    assert found.answer == pytest.approx(0.5 / 3)
    assert found.image == pytest.approx((1 / 3 - 0.5 / 3) / 2)
    assert found.seed == pytest.approx((0.5 - 0.5 / 3) / 4)
    alone = components(np.array([[1, 1, 0, 0]], bool))
    assert (alone.image, alone.seed, alone.answer) == (pytest.approx(1 / 3), 0, 0)


def test_components_find_what_was_put_in() -> None:
    random = np.random.default_rng(0)
    image, seed = random.normal(0, 0.1, 4000), random.normal(0, 0.05, (200, 1))
    found = components(random.random((200, 4000)) < 0.5 + (image + seed).clip(-0.5, 0.5))
    assert found.image == pytest.approx(0.01, rel=0.1)
    assert found.seed == pytest.approx(0.0025, rel=0.25)
    assert found.answer == pytest.approx(0.25 - 0.0125, rel=0.02)


@pytest.mark.parametrize("by", ["probe", "subset"])
def test_split_finds_what_was_put_in(by: str) -> None:
    random, seeds, count, images = np.random.default_rng(0), 400, 5, 2000
    pretraining, within = random.normal(0, 0.02, (seeds, 1)), random.normal(0, 0.01, (seeds, count))
    chance = 0.7 + random.normal(0, 0.1, images)  # of an image
    able = pretraining + within
    first = random.random((seeds, images)) < chance + able[:, :1]
    found = split(first, (0.7 + able).tolist(), by)
    other = {"probe": found.subset, "subset": found.probe}[by]
    assert found.test == pytest.approx(math.sqrt(0.7 * 0.3 / images), rel=0.05)
    assert found.pretraining == pytest.approx(0.02, rel=0.1)
    assert getattr(found, by) == pytest.approx(0.01, rel=0.1)
    assert found.seed == pytest.approx(math.hypot(0.02, 0.01), rel=0.1)
    assert other is None


def test_split_tells_only_what_the_runs_tell() -> None:
    correct = np.random.default_rng(0).random((3, 500)) < 0.8
    alone, together = split(correct[:1]), split(correct)
    assert (alone.seed, alone.pretraining, alone.probe, alone.subset) == (None,) * 4
    assert together.seed == pytest.approx(correct.mean(1).std(ddof=1))
    assert (together.pretraining, together.probe, together.subset) == (None,) * 3
    once = split(correct, [[0.8], [0.7], [0.9]], "probe")  # one repetition tells nothing
    assert (once.pretraining, once.probe) == (None, None)
    one = split(correct[:1], [[0.8, 0.9]], "subset")
    assert (one.seed, one.pretraining) == (None, None)
    assert one.subset == pytest.approx(0.1 / math.sqrt(2))
    same = split(correct, [[0.7, 0.9]] * 3, "probe")  # the seeds' means are equal
    assert same.pretraining == 0


# ---- many data sets ---------------------------------------------------------------------------------------------


def test_friedman_is_that_of_scipy_in_iman_and_davenports_form() -> None:
    scores = np.random.default_rng(0).normal(size=(12, 5)) + np.arange(5) * 0.4
    chi2 = stats.friedmanchisquare(*scores.T).statistic
    wanted = stats.f.sf(11 * chi2 / (12 * 4 - chi2), 4, 44)
    assert friedman(scores).p == pytest.approx(wanted)


def test_the_critical_difference_is_that_of_demsars_example() -> None:
    # Demsar 2006: 4 classifiers on 14 data sets, q(0.05) = 2.569: 2.569 * sqrt(4 * 5 / (6 * 14)) = 1.25
    found = friedman(np.tile([4.0, 3.0, 2.0, 1.0], (14, 1)))
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    assert found.ranks == (1, 2, 3, 4)
    assert found.groups == ((0, 1), (1, 2), (2, 3))
    assert found.p == 0
    level = friedman(np.ones((6, 3)))
    assert (level.p, level.ranks, level.groups) == (1.0, (2, 2, 2), ((0, 1, 2),))


@pytest.mark.parametrize("shape", [(4, 3), (5, 2)])
def test_few_data_sets_or_methods_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="needs 5 data sets and 3 methods"):
        friedman(np.zeros(shape))


# ---- before the experiment --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
@pytest.mark.parametrize("delta", [0.1, 1.0, 2.5])
def test_power_is_that_of_statsmodels(delta: float, seeds: int) -> None:
    wanted = reference.tt_ind_solve_power(effect_size=delta / 0.5, nobs1=seeds, alpha=0.05)
    assert power(delta, 0.5, seeds) == pytest.approx(wanted, abs=1e-6)


def test_seeds_needed_is_the_first_number_that_has_the_power() -> None:
    # a difference of one standard deviation takes 17 of each (Cohen 1988, Table 2.4.1)
    assert seeds_needed(1.0, 1.0) == 17
    assert power(1.0, 1.0, 17) >= 0.8 > power(1.0, 1.0, 16)
    assert seeds_needed(100.0, 1.0) == 2
    assert seeds_needed(0.5, 0.0) == 2
    assert seeds_needed(0.001, 1.0) is None


@pytest.mark.parametrize(("delta", "spread"), [(0.5, 0.5), (0.5, 0.3), (1.0, 0.4)])
def test_seeds_needed_give_the_promised_power_within_3_points(delta: float, spread: float) -> None:
    seeds = seeds_needed(delta, spread)
    assert seeds is not None
    random, runs = np.random.default_rng(seeds), 20_000
    first, second = random.normal(delta, spread, (runs, seeds)), random.normal(0, spread, (runs, seeds))
    seen = (stats.ttest_ind(first, second, axis=1).pvalue <= 0.05).mean()
    assert seen == pytest.approx(power(delta, spread, seeds), abs=0.012)
    before = power(delta, spread, seeds - 1)
    assert before < 0.8 < seen + 0.012  # no seed too many; small numbers of seeds cannot meet 0.8 exactly


def test_the_smallest_difference_has_the_power_asked_for() -> None:
    for seeds in (2, 3, 10):
        smallest = smallest_difference(0.2, seeds)
        assert smallest is not None
        assert power(smallest, 0.2, seeds) == pytest.approx(0.8, abs=1e-6)
    assert smallest_difference(0.2, 1) is None
    assert smallest_difference(0.0, 3) == 0
