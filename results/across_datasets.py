"""Rows over many data sets: mean ranks, Friedman's test, and the critical-difference diagram of Demsar 2006."""

import html
import typing as t
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from results import tables
from results.leaderboard import Leaderboard
from results.metrics import METRICS
from results.rows import beside_images, data_of
from results.statistics import Friedman, friedman

MIN_DATASETS, MIN_ROWS = 5, 3  # below these the test says nothing
HEADER = ("row", "mean rank", "no worse than the best")
COLUMNS = ("protocol", "row", "mean_rank", "no_worse_than_the_best", "critical_difference", "p", "datasets")  # as data
LEFT, TOP, WIDTH, LINE = 180.0, 46.0, 360.0, 22.0  # pixels of the diagram: the axis, and the distance of two names


@dataclass(frozen=True)
class Overall:
    """One protocol's rows on the data sets that all of them have."""

    protocol: str
    datasets: tuple[str, ...]
    rows: tuple[str, ...]  # encoder/tap, the best mean rank first
    result: Friedman  # its ranks and groups go by the places in `rows`


def across_datasets(board: Leaderboard) -> list[Overall]:
    """Every protocol whose rows are complete on 5 data sets, at least 3 of them, in the order of the tables' columns.

    Data sets are the sample, not seeds. Of several choices of them, the most rows that share at least five count;
    encoders that saw labels stand aside.
    """
    scores: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    largest: dict[str, int] = {}  # a data set counts once, however many subsets of it were run
    for row in board.rows:
        name = data_of(row)
        largest[name] = max(largest.get(name, 0), row.train_images or 0)
    for row in board.rows:
        name = data_of(row)
        if (row.train_images or 0) < largest[name]:
            continue
        if row.protocol and row.mean is not None and row.metric not in METRICS and not beside_images(row):
            scores[row.protocol][f"{row.encoder}/{row.tap}"].setdefault(name, row.mean)  # of several metrics the first
    found = []
    places = {row.protocol: row.column or 0 for row in reversed(board.rows)}  # of the first table that has it
    for protocol, rows in sorted(scores.items(), key=lambda item: (places[item[0]], item[0])):
        datasets, complete = _complete(rows)
        if len(complete) < MIN_ROWS:
            continue
        result = friedman(np.array([[rows[name][dataset] for name in complete] for dataset in datasets]))
        order = sorted(range(len(complete)), key=result.ranks.__getitem__)
        place = {old: new for new, old in enumerate(order)}
        sorted_result = Friedman(
            result.p,
            tuple(result.ranks[one] for one in order),
            result.critical_difference,
            tuple(tuple(sorted(place[one] for one in group)) for group in result.groups),
        )
        found.append(Overall(protocol, tuple(datasets), tuple(complete[one] for one in order), sorted_result))
    return found


def _complete(rows: dict[str, dict[str, float]]) -> tuple[list[str], list[str]]:
    """The data sets that most rows have, five or more, and the rows that have all of them."""
    count: dict[str, int] = defaultdict(int)
    for one in rows.values():
        for dataset in one:
            count[dataset] += 1
    by_count = sorted(count, key=lambda dataset: (-count[dataset], dataset))
    best: tuple[list[str], list[str]] = [], []
    for size in range(MIN_DATASETS, len(by_count) + 1):
        datasets = sorted(by_count[:size])
        complete = sorted(name for name, one in rows.items() if all(dataset in one for dataset in datasets))
        if len(complete) >= max(MIN_ROWS, len(best[1])):
            best = datasets, complete
    return best


def render(
    found: t.Sequence[Overall], format: tables.Format = "table", *, width: int | None = None, colour: bool = False
) -> str:
    """A table a protocol, as text that ends with a newline."""
    empty = (
        f"Ranks over data sets need {MIN_DATASETS} of them, and {MIN_ROWS} rows that all of them have, "
        "judged by one protocol."
    )
    return tables.render(list(map(_table, found)), format, columns=COLUMNS, empty=empty, width=width, colour=colour)


def _table(one: Overall) -> tables.Table:
    result = one.result
    equal_to_best = [rank <= result.ranks[0] + result.critical_difference for rank in result.ranks]
    p = f"= {result.p:.4f}" if result.p >= 1e-4 else "< 0.0001"
    legend = (
        f"Mean ranks over {len(one.datasets)} data sets ({', '.join(one.datasets)}). That all are equally good: "
        f"p {p} (Friedman's test, Iman and Davenport's F). Two differ if their mean ranks are "
        f"{result.critical_difference:.2f} or more apart (Nemenyi, 5 %). This is about new data sets like these."
    )
    values = [
        [one.protocol, name, rank, equal, result.critical_difference, result.p, list(one.datasets)]
        for name, rank, equal in zip(one.rows, result.ranks, equal_to_best)
    ]
    return tables.Table(
        one.protocol,
        HEADER[:1],
        HEADER,
        [
            [name, f"{rank:.2f}", "yes" if equal else "no"]
            for name, rank, equal in zip(one.rows, result.ranks, equal_to_best)
        ],
        legend,
        [dict(zip(COLUMNS, row)) for row in values],
    )


def diagram(one: Overall) -> str:
    """The critical-difference diagram as SVG: mean ranks on an axis, bars over rows that are not told apart."""
    result, count = one.result, len(one.rows)
    half = -(-count // 2)

    def at(rank: float) -> float:
        return LEFT + WIDTH * (rank - 1) / max(count - 1, 1)

    parts = [_line(at(1), TOP, at(count), TOP)]
    for tick in range(1, count + 1):
        parts += [_line(at(tick), TOP - 5, at(tick), TOP), _text(at(tick), TOP - 9, str(tick), "middle")]
    parts.append(_line(at(1), 14, at(1 + result.critical_difference), 14, 2))
    parts.append(_text(at(1), 10, f"critical difference {result.critical_difference:.2f}", "start"))
    bars = [group for group in result.groups if len(group) > 1]
    for level, group in enumerate(bars):
        bar = TOP + 9 + 6 * level
        parts.append(_line(at(result.ranks[group[0]]) - 4, bar, at(result.ranks[group[-1]]) + 4, bar, 3))
    below = TOP + 22 + 6 * len(bars)
    for place, (name, rank) in enumerate(zip(one.rows, result.ranks)):
        left = place < half
        height = below + LINE * (place if left else count - 1 - place)
        edge = LEFT - 8 if left else LEFT + WIDTH + 8
        parts += [_line(at(rank), TOP, at(rank), height), _line(at(rank), height, edge, height)]
        parts.append(_text(edge + (-4 if left else 4), height + 4, f"{name} ({rank:.2f})", "end" if left else "start"))
    size = f"{2 * LEFT + WIDTH} {below + LINE * half}"
    title = html.escape(f"{one.protocol}: mean ranks over {len(one.datasets)} data sets")
    style = "font: 12px sans-serif; background: white"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" style="{style}" role="img">'
    return "\n".join([head, f"<title>{title}</title>", *parts, "</svg>"]) + "\n"


def _line(x1: float, y1: float, x2: float, y2: float, width: float = 1) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="black" stroke-width="{width}"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'
