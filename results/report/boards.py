"""Leaderboards as the page has them: who is first and whether that is real, the table, every mean with its interval."""

import typing as t
from collections import defaultdict
from dataclasses import dataclass

from markupsafe import Markup

from results.identity import protocol_facts
from results.metrics import ABOUT, FURTHER, METRICS, interval, written
from results.record import Record
from results.report import charts
from results.rows import SAW_LABELS, SEVERAL, Row, apart
from results.tables import OVER, labels_read, over_untrained, titles

Column = tuple[str, str]  # protocol, metric


@dataclass(frozen=True)
class Judged:
    """A row of the leaderboard and the records it was made of, one a seed."""

    row: Row
    records: tuple[Record, ...]

    @property
    def column(self) -> Column:
        return self.row.protocol or "", self.row.metric or ""

    @property
    def name(self) -> str:
        return f"{self.row.encoder} · {self.row.tap}"

    @property
    def mean(self) -> float:
        assert self.row.mean is not None
        return self.row.mean


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
class Line:
    """One tap of one encoder, judged by some protocols."""

    place: int  # 1 is the best
    one: Row
    judged: dict[Column, Judged]
    is_best_tap: bool  # of its encoder

    @property
    def name(self) -> str:
        return f"{self.one.encoder} · {self.one.tap}"

    @property
    def alarmed(self) -> bool:
        return any(judged.row.alarms for judged in self.judged.values())


@dataclass(frozen=True)
class Verdict:
    """What a protocol says, in sentences."""

    protocol: str
    winner: str
    is_control: bool
    score: str
    sentences: list[str]


@dataclass(frozen=True)
class Section:
    """What shares a table: features or samples of encoders that saw a dataset's images, labels too, or other data."""

    title: str
    lines: list[Line]
    failures: list[Row]
    columns: list[Column]

    @property
    def judged(self) -> list[Judged]:
        return [judged for line in self.lines for judged in line.judged.values()]

    @property
    def protocols(self) -> list[str]:
        """With their versions, which no heading has."""
        return list(dict.fromkeys(protocol for protocol, _ in self.columns))

    @property
    def labels_read(self) -> str:
        return labels_read(judged.row for line in self.lines for judged in line.judged.values())

    @property
    def of_fractions(self) -> bool:
        return all(metric not in METRICS for _, metric in self.columns)

    def ranked(self, column: Column) -> list[Judged]:
        """Those with a number in this column, the best first; of equal ones, that to which differences are taken."""
        down = -1 if higher_is_better(column[1]) else 1
        return sorted(
            (line.judged[column] for line in self.lines if column in line.judged),
            key=lambda j: (down * j.mean, (j.row.difference_low, j.row.difference_high) != (0.0, 0.0)),
        )


def sections(rows: t.Iterable[Row], records: t.Iterable[Record]) -> dict[str, list[Section]]:
    """{dataset: its sections}, in the leaderboard's order."""
    by_run: dict[tuple[str, str | None], list[Record]] = defaultdict(list)
    for record in records:
        by_run[record.key, record.tap].append(record)
    grouped: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        grouped[row.dataset, apart(row), METRICS[row.metric].of if row.metric in METRICS else "features"].append(row)
    found: dict[str, list[Section]] = defaultdict(list)
    for (dataset, saw, subject), members in grouped.items():
        title = subject[0].upper() + subject[1:] + (f": {saw}" if saw else "")
        found[dataset].append(_section(title, members, by_run))
    return found


def _section(title: str, rows: list[Row], by_run: dict[tuple[str, str | None], list[Record]]) -> Section:
    taps: dict[tuple[str, str | None], dict[Column, Judged]] = defaultdict(dict)
    for row in rows:
        if row.status == "done":
            judged = Judged(row, _behind(row, by_run))
            taps[row.encoder, row.tap][judged.column] = judged
    seen: set[str] = set()
    lines = []
    for place, ((encoder, _), judged_by) in enumerate(taps.items(), 1):
        one = max((judged.row for judged in judged_by.values()), key=lambda row: row.seeds)
        lines.append(Line(place, one, judged_by, encoder not in seen))
        seen.add(encoder)
    columns = {judged.column: judged.row.column or 0 for line in lines for judged in line.judged.values()}
    return Section(
        title,
        lines,
        [row for row in rows if row.status == "failed"],
        sorted(columns, key=columns.__getitem__),
    )


def _behind(row: Row, by_run: dict[tuple[str, str | None], list[Record]]) -> tuple[Record, ...]:
    """The records of a row: those of its runs and tap under its protocol's name, version and settings."""
    return tuple(
        record
        for key in row.keys
        for record in by_run[key, row.tap]
        if record.protocol_version in row.versions
        and f"{row.protocol}".startswith(f"{record.protocol_label}@")
        and protocol_facts(record) == row.settings
    )


# ---- numbers as text --------------------------------------------------------------------------------------------


def higher_is_better(metric: str) -> bool:
    return metric not in METRICS or METRICS[metric].higher_is_better


def count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


# ---- the table --------------------------------------------------------------------------------------------------


def fields(section: Section) -> list[Field]:
    """The columns of a section's table, behind place, encoder and tap, which are its rows' headings."""
    labelled = [Field("labels", _labels)] if section.lines and apart(section.lines[0].one) == SAW_LABELS else []
    scores = []
    for column in section.columns:
        by_best = higher_is_better(column[1])
        scores.append(Field(title(section, column), _scored(column), descending_first=by_best))
        if any(judged.row.over_untrained is not None for judged in section.ranked(column)):
            scores.append(Field(OVER, _over_untrained(column)))
        if section.of_fractions and any(judged.row.rank_low for judged in section.ranked(column)):
            scores.append(Field("rank", _ranks(column), descending_first=False))
    return [
        *labelled,
        *scores,
        *([Field("dimensions", _dimensions)] if section.of_fractions else []),
        Field("seeds", _seeds),
        Field("training s", _training, descending_first=False),
    ]


def title(section: Section, column: Column) -> str:
    """What heads a column: protocol and metric, or the metric alone where it has a name and the table one protocol."""
    protocol, metric = column
    known = METRICS.get(metric)
    several = len({one for one, _ in section.columns}) > 1
    protocol = titles(judged.row for line in section.lines for judged in line.judged.values())[protocol]
    return f"{protocol} {metric if known is None else known.title}" if known is None or several else known.title


def _scored(column: Column) -> t.Callable[[Line], Cell]:
    def cell(line: Line) -> Cell:
        judged = line.judged.get(column)
        if judged is None:
            return Cell("-")
        row = judged.row
        behind = "" if row.low is None or row.high is None else interval(judged.mean, row.low, row.high, column[1])
        fewer = "" if row.seeds == line.one.seeds else f" (n={row.seeds})"
        return Cell(written(judged.mean, column[1]), behind + fewer, judged.mean, bool(row.may_be_best))

    return cell


def _over_untrained(column: Column) -> t.Callable[[Line], Cell]:
    """By how much it beats its own network before training, in points."""

    def cell(line: Line) -> Cell:
        judged = line.judged.get(column)
        if judged is None or judged.row.over_untrained is None:
            return Cell("-")
        value, _, half = over_untrained(judged.row).partition(" ")
        return Cell(value, half, judged.row.over_untrained)

    return cell


def _ranks(column: Column) -> t.Callable[[Line], Cell]:
    """The ranks that a row may have, sorted by their middle."""

    def cell(line: Line) -> Cell:
        judged = line.judged.get(column)
        if judged is None or judged.row.rank_low is None or judged.row.rank_high is None:
            return Cell("-")
        low, high = judged.row.rank_low, judged.row.rank_high
        return Cell(str(low) if low == high else f"{low}-{high}", order=(low + high) / 2)

    return cell


def _labels(line: Line) -> Cell:
    seen = line.one.labels
    return Cell("all" if seen is None else f"{seen:,}", order=seen)


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
        if row.protocol and row.metric and row.mean is not None:
            found[f"{row.encoder} · {row.tap}", row.protocol][row.metric] = row
    names = [name for name in FURTHER if any(name in one for one in found.values())]
    about = [f"{further_title(name)}: {METRICS[name].about if name in METRICS else ABOUT[name]}" for name in names]
    if not names:
        return None
    return Further(
        [further_title(name) for name in names],
        [(*name, [_further_cell(one.get(metric)) for metric in names]) for name, one in found.items()],
        about,
    )


def further_title(metric: str) -> str:
    return METRICS[metric].title if metric in METRICS else metric.replace("_", " ")


def _further_cell(row: Row | None) -> Cell:
    if row is None or row.mean is None:
        return Cell("-")
    known = row.low is not None and row.high is not None
    behind = interval(row.mean, row.low or 0.0, row.high or 0.0, row.metric) if known else ""
    return Cell(written(row.mean, row.metric), behind, row.mean)


# ---- who is first, and is it real? ------------------------------------------------------------------------------


def verdicts(section: Section) -> list[Verdict]:
    """A protocol each: its leader, how many rows may be the best, whoever follows, and the first of the other kind."""
    found = []
    for column in section.columns:
        ranked = section.ranked(column)
        first, others = ranked[0], ranked[1:]
        follows = next((judged for judged in others if judged.row.encoder != first.row.encoder), None)
        rival = next((judged for judged in others if judged.row.is_control != first.row.is_control), None)
        kind = "learned encoder" if first.row.is_control else "control"
        tied = sum(bool(judged.row.may_be_best) for judged in ranked)
        sentences = [f"{tied} of {count(len(ranked), 'row')} may be the best."] if tied > 1 else []
        if follows:
            also = f", the best {kind}," if follows is rival else ", the next encoder,"
            sentences.append(f"{follows.name}{also} is {_behind_best(follows)}.")
        if rival and rival is not follows:
            sentences.append(f"The best {kind}, {rival.name}, is {_behind_best(rival)}.")
        if not rival:
            sentences.append(f"There is no {kind} to compare with.")
        sentences += _over_controls(ranked)
        found.append(Verdict(column[0], first.name, first.row.is_control, written(first.mean, column[1]), sentences))
    return found


def _over_controls(ranked: list[Judged]) -> t.Iterator[str]:
    """How many rows are better, and how many worse, than the same network before training; and the best of them."""
    over = [judged for judged in ranked if judged.row.over_untrained_p is not None]
    if not over:
        return
    sure = [judged for judged in over if (judged.row.over_untrained_p or 0.0) <= 0.05]
    better = sum((judged.row.over_untrained or 0.0) > 0 for judged in sure)
    yield (
        f"Of {count(len(over), 'trained row')} with an untrained network of its own, {better} "
        f"{'is' if better == 1 else 'are'} significantly better than it, {len(sure) - better} worse (Holm, 5 %)."
    )
    most = max(over, key=lambda judged: judged.row.over_untrained or 0.0)
    yield f"{most.name} gains most over its own: {over_untrained(most.row)} points."


def _behind_best(judged: Judged) -> str:
    """'0.65 points behind, not told apart (95 % interval -0.10 to 1.40)'."""
    row = judged.row
    gap = "level" if not row.difference else f"{-100 * row.difference:.2f} points behind"
    if row.difference_low is None or row.difference_high is None:
        return f"{gap}; one seed cannot tell it from chance"
    told = "not told apart" if row.difference_low <= 0 <= row.difference_high else "told apart"
    low, high = (min(100.0, max(-100.0, -100 * end)) for end in (row.difference_high, row.difference_low))
    return f"{gap}, {told} (95 % interval {round(low, 2) + 0.0:.2f} to {round(high, 2) + 0.0:.2f})"  # 0.00, not -0.00


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
    ranked = section.ranked(column)
    best = {line.name for line in section.lines if line.is_best_tap}
    at = charts.scale(value for judged in ranked for value in judged.row.values)
    control = next((judged.mean for judged in ranked if judged.row.is_control), None)
    rows = []
    for judged in ranked:
        row = judged.row
        track = charts.interval(at, judged.mean, row.low, row.high, row.values, control)
        rows.append(ForestRow(judged.name, row.is_control, judged.name in best, written(judged.mean, column[1]), track))
    shown = charts.axis(at, lambda value: f"{100 * value:.4g} %")
    about = f"{column[0]}, {column[1]}: {count(len(rows), 'row')}, from {rows[0].name} with {rows[0].score} "
    about += f"to {rows[-1].name} with {rows[-1].score}. The table above has the same numbers."
    return Forest(f"{column[0]} {column[1]}", about, rows, shown, control is not None)


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
