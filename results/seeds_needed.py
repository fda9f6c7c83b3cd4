"""How many seeds a difference takes, from the spread of the seeds that are there. In percentage points."""

import typing as t
from dataclasses import dataclass

from scipy.special import chdtri

from results import tables
from results.leaderboard import Leaderboard
from results.metrics import METRICS
from results.rows import headings_of
from results.statistics import MAX_SEEDS, deviation, seeds_needed, smallest_difference

HEADER = ("dataset", "encoder", "tap", "protocol", "seeds", "sd", "needed", "cautious", "seen now")
WORDS = HEADER[:4]


@dataclass(frozen=True)
class Needed:
    """One row of a leaderboard, against a method whose seeds spread as its own do."""

    dataset: str
    encoder: str
    tap: str
    protocol: str  # what heads its column
    seeds: int  # that it has
    deviation: float  # of a seed, as a fraction
    needed: int | None  # seeds of each method; None: more than 10,000
    cautious: int | None  # the same for the largest spread that these few seeds leave likely
    seen: float | None  # the smallest difference that the seeds it has would show


def needed(board: Leaderboard, delta: float, power: float) -> list[Needed]:
    """The rows of two seeds or more; `delta` is a fraction. What is cautious takes the spread's upper 80 % limit."""
    rows, headings = [], headings_of(board.rows)
    for row in board.rows:
        if row.seeds > 1 and row.protocol_key and row.metric not in METRICS:
            spread = deviation(row.values)
            largest = spread * ((row.seeds - 1) / float(chdtri(row.seeds - 1, 0.8))) ** 0.5
            rows.append(
                Needed(
                    row.dataset,
                    row.encoder,
                    row.tap or "",
                    headings[row.protocol_key],
                    row.seeds,
                    spread,
                    seeds_needed(delta, spread, power),
                    seeds_needed(delta, largest, power),
                    smallest_difference(spread, row.seeds, power),
                )
            )
    return rows


def render(rows: t.Sequence[Needed], delta: float, power: float, *, width: int | None, colour: bool) -> str:
    """The rows as text that ends with a newline."""
    cells = [
        [row.dataset, row.encoder, row.tap, row.protocol, str(row.seeds), f"{100 * row.deviation:.2f}",
         *(("-", "-", "-") if _is_equal(row) else (_count(row.needed), _count(row.cautious), _points(row.seen)))]
        for row in rows
    ]  # fmt: skip
    several = len({row.dataset for row in rows}) > 1
    table = tables.table(
        WORDS, HEADER[not several :], [row[not several :] for row in cells], width=width, colour=colour
    )
    legend = (
        f"Needed: seeds of each of two methods that show a difference of {100 * delta:g} points in {100 * power:g} % "
    )
    legend += "of experiments (two-sided t test at 5 %), both spreading over seeds as this row does. A few seeds tell "
    legend += "their own spread badly: cautious takes the upper 80 % limit of it. Seen now: the smallest difference "
    legend += "that the seeds which are there would show. All of this is about new seeds on these test images."
    legend += " Seeds that came out equal tell no spread (-)." * any(map(_is_equal, rows))
    title = "" if several else f"{rows[0].dataset}\n"
    return "\n".join([title + table, *tables.wrapped(legend, width), ""])


def sentence(delta: float, spread: float, power: float) -> str:
    """The answer for one known spread; fractions in, points out."""
    seeds = seeds_needed(delta, spread, power)
    each = f"more than {MAX_SEEDS:,} seeds" if seeds is None else f"{seeds} seeds"
    return (
        f"{each} of each method show a difference of {100 * delta:g} points in {100 * power:g} % of experiments, "
        f"if seeds spread with a standard deviation of {100 * spread:g} points (two-sided t test at 5 %).\n"
    )


def _is_equal(row: Needed) -> bool:
    return row.deviation < 1e-12  # what rounding leaves of nothing


def _points(difference: float | None) -> str:
    return "-" if difference is None else f"{100 * difference:.2f}"


def _count(seeds: int | None) -> str:
    return f"> {MAX_SEEDS:,}" if seeds is None else str(seeds)
