"""Leaderboards as the page has them: who is first and whether that is real, the table, every mean with its interval."""

import typing as t
from collections import defaultdict
from dataclasses import dataclass

from markupsafe import Markup

from results.metrics import ABOUT, FURTHER, METRICS, written
from results.report import charts
from results.rows import SEVERAL, Column, Line, Row, Section, headings_of
from results.tables import OVER, interval_of, labels, over_untrained, ranks


@dataclass(frozen=True)
class Cell:
    text: str
    behind: str = ""  # printed small and grey behind it
    order: float | str | None = None  # what the column is sorted by; None comes last
    is_best: bool = False  # no other row is told to be better


@dataclass(frozen=True)
class Field:
    """A column of the page's table. To add one, add it to `fields`."""

    title: str
    cell: t.Callable[["Line"], Cell]
    descending_first: bool = True  # what a first click gives: the best on top


@dataclass(frozen=True)
class Verdict:
    """What a protocol says, in sentences."""

    protocol: str
    winner: str
    is_control: bool
    score: str
    sentences: list[str]


def ranked(section: Section, column: Column) -> list[Row]:
    """Those with a number in this column, the best first; of equal ones, that to which differences are taken."""
    down = -1 if column.higher_is_better else 1
    return sorted(
        section.at(column),
        key=lambda row: (down * (row.mean or 0.0), (row.difference_low, row.difference_high) != (0.0, 0.0)),
    )


def heading(section: Section) -> str:
    subject = section.subject or "features"
    return subject[0].upper() + subject[1:] + (f": {section.saw}" if section.saw else "")


def protocols(section: Section) -> list[str]:
    """With their versions, which no heading has."""
    return list(dict.fromkeys(protocol(section, column) for column in section.columns))


def protocol(section: Section, column: Column) -> str:
    return section.at(column)[0].protocol or ""


# ---- numbers as text --------------------------------------------------------------------------------------------


def count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


# ---- the table --------------------------------------------------------------------------------------------------


def fields(section: Section) -> list[Field]:
    """The columns of a section's table, behind place, encoder and tap, which are its rows' headings."""
    scores = []
    for column in section.columns:
        rows = section.at(column)
        scores.append(Field(title(section, column), _scored(column), descending_first=column.higher_is_better))
        if any(row.over_untrained is not None for row in rows):
            scores.append(Field(OVER, _over_untrained(column)))
        if section.of_fractions and any(row.rank_low for row in rows):
            scores.append(Field("rank", _ranks(column), descending_first=False))
    return [
        *([Field("labels", lambda line: Cell(labels(line.one), order=line.one.labels))] if section.labelled else []),
        *scores,
        *([Field("dimensions", _dimensions)] if section.of_fractions else []),
        Field("seeds", _seeds),
        Field("training s", _training, descending_first=False),
    ]


def title(section: Section, column: Column) -> str:
    """What heads a column: protocol and metric, or the metric alone where it has a name and the table one protocol."""
    metric = column.metric if column.is_fraction else METRICS[column.metric].title
    several = len({one.protocol for one in section.columns}) > 1
    return f"{headings_of(section.rows)[column.protocol]} {metric}" if column.is_fraction or several else metric


def _scored(column: Column) -> t.Callable[[Line], Cell]:
    def cell(line: Line) -> Cell:
        row = line.cells.get(column)
        if row is None:
            return Cell("-")
        fewer = "" if row.seeds == line.one.seeds else f" (n={row.seeds})"
        return _score(row, fewer)

    return cell


def _score(row: Row | None, fewer: str = "") -> Cell:
    if row is None or row.mean is None:
        return Cell("-")
    return Cell(written(row.mean, row.metric), interval_of(row) + fewer, row.mean, bool(row.may_be_best))


def _over_untrained(column: Column) -> t.Callable[[Line], Cell]:
    """By how much it beats its own network before training, in points."""

    def cell(line: Line) -> Cell:
        row = line.cells.get(column)
        return Cell(*over_untrained(row), row.over_untrained if row else None)

    return cell


def _ranks(column: Column) -> t.Callable[[Line], Cell]:
    """The ranks that a row may have, sorted by their middle."""

    def cell(line: Line) -> Cell:
        row = line.cells.get(column)
        if row is None or row.rank_low is None or row.rank_high is None:
            return Cell("-")
        return Cell(ranks(row), order=(row.rank_low + row.rank_high) / 2)

    return cell


def _dimensions(line: Line) -> Cell:
    return Cell("-") if line.one.dimensions is None else Cell(f"{line.one.dimensions:,}", order=line.one.dimensions)


def _seeds(line: Line) -> Cell:
    one = line.one
    return Cell(str(one.seeds), "" if one.seeds == one.of_seeds else f"of {one.of_seeds}", one.seeds)


def _training(line: Line) -> Cell:
    seconds = line.one.fit_seconds
    return Cell("-") if seconds is None else Cell(f"{seconds:,.1f}", order=seconds)


@dataclass(frozen=True)
class Further:
    """What tables show on request only, of every tap and protocol that has some of it."""

    header: list[str]
    rows: list[tuple[str, str, list[Cell]]]  # encoder and tap, protocol, and a cell a metric
    about: list[str]


def further(rows: t.Iterable[Row]) -> Further | None:
    """From rows with these metrics."""
    found: dict[tuple[str, str], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        if row.protocol and row.metric:
            found[row.full_name, row.protocol][row.metric] = row
    names = [name for name in FURTHER if any(name in one for one in found.values())]
    about = [f"{further_title(name)}: {METRICS[name].about if name in METRICS else ABOUT[name]}" for name in names]
    if not names:
        return None
    return Further(
        [further_title(name) for name in names],
        [(*name, [_score(one.get(metric)) for metric in names]) for name, one in found.items()],
        about,
    )


def further_title(metric: str) -> str:
    return METRICS[metric].title if metric in METRICS else metric.replace("_", " ")


# ---- who is first, and is it real? ------------------------------------------------------------------------------


def verdicts(section: Section) -> list[Verdict]:
    """A protocol each: its leader, how many rows may be the best, whoever follows, and the first of the other kind."""
    found = []
    for column in section.columns:
        rows = ranked(section, column)
        first, others = rows[0], rows[1:]
        follows = next((row for row in others if row.encoder_key != first.encoder_key), None)
        rival = next((row for row in others if row.is_control != first.is_control), None)
        kind = "learned encoder" if first.is_control else "control"
        tied = sum(bool(row.may_be_best) for row in rows)
        sentences = [f"{tied} of {count(len(rows), 'row')} may be the best."] if tied > 1 else []
        if follows:
            also = f", the best {kind}," if follows is rival else ", the next encoder,"
            sentences.append(f"{follows.full_name}{also} is {_behind_best(follows)}.")
        if rival and rival is not follows:
            sentences.append(f"The best {kind}, {rival.full_name}, is {_behind_best(rival)}.")
        if not rival:
            sentences.append(f"There is no {kind} to compare with.")
        sentences += _over_controls(rows)
        score = written(first.mean or 0.0, column.metric)
        found.append(Verdict(protocol(section, column), first.full_name, first.is_control, score, sentences))
    return found


def _over_controls(rows: list[Row]) -> t.Iterator[str]:
    """How many rows are better, and how many worse, than the same network before training; and the best of them."""
    over = [row for row in rows if row.over_untrained_p is not None]
    if not over:
        return
    sure = [row for row in over if (row.over_untrained_p or 0.0) <= 0.05]
    better = sum((row.over_untrained or 0.0) > 0 for row in sure)
    yield (
        f"Of {count(len(over), 'trained row')} with an untrained network of its own, {better} "
        f"{'is' if better == 1 else 'are'} significantly better than it, {len(sure) - better} worse (Holm, 5 %)."
    )
    most = max(over, key=lambda row: row.over_untrained or 0.0)
    yield f"{most.full_name} gains most over its own: {' '.join(over_untrained(most)).rstrip()} points."


def _behind_best(row: Row) -> str:
    """'0.65 points behind, not told apart (95 % interval -0.10 to 1.40)'."""
    gap = "level" if not row.difference else f"{-100 * row.difference:.2f} points behind"
    if row.difference_low is None or row.difference_high is None:
        return f"{gap}; one seed cannot tell it from chance"
    apart = "not told apart" if row.difference_low <= 0 <= row.difference_high else "told apart"
    low, high = (min(100.0, max(-100.0, -100 * end)) for end in (row.difference_high, row.difference_low))
    return f"{gap}, {apart} (95 % interval {round(low, 2) + 0.0:.2f} to {round(high, 2) + 0.0:.2f})"  # 0.00, not -0.00


# ---- means, intervals, seeds ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ForestRow:
    name: str
    is_control: bool
    is_best_tap: bool
    score: str
    track: Markup


@dataclass(frozen=True)
class Forest:
    title: str
    about: str
    rows: list[ForestRow]
    axis: Markup
    has_reference: bool


def forest(section: Section, column: Column) -> Forest:
    """Every mean of a column with its interval and its seeds, over one axis that every seed lies on."""
    best = {id(row) for line in section.lines if line.is_best_tap for row in line.rows}
    judged = ranked(section, column)
    at = charts.scale(value for row in judged for value in row.values)
    control = next((row.mean for row in judged if row.is_control), None)
    rows = []
    for row in judged:
        mean = row.mean or 0.0
        track = charts.interval(at, mean, row.low, row.high, row.values, control)
        rows.append(ForestRow(row.full_name, row.is_control, id(row) in best, written(mean, column.metric), track))
    shown = charts.axis(at, lambda value: f"{100 * value:.4g} %")
    name = protocol(section, column)
    about = f"{name}, {column.metric}: {count(len(rows), 'row')}, from {rows[0].name} with {rows[0].score} "
    about += f"to {rows[-1].name} with {rows[-1].score}. The table above has the same numbers."
    return Forest(f"{name} {column.metric}", about, rows, shown, control is not None)


def caption(section: Section) -> str:
    """The data's size and where the numbers were made, as far as all rows agree."""
    rows = [line.one for line in section.lines] or section.failures
    facts = []
    if rows[0].train_images and rows[0].test_images:
        facts.append(f"{rows[0].train_images:,} training and {rows[0].test_images:,} test images")
    for values, thing in (({row.device for row in rows}, "devices"), ({row.precision for row in rows}, "precisions")):
        (*_, value) = values
        facts.append(value if len(values) == 1 and value != SEVERAL else f"several {thing}")
    return ", ".join(facts)
