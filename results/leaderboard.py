"""Records to ranked tables. A pure function of the records, in whatever order they come.

What cannot be compared never shares a table (other data, another limit or split; encoders that saw labels have a
section of their own), a column (another definition or other settings of a protocol) or a row (other parameters of an
encoder, even under the same label). Versions of one definition go by the newest of them.

Ranks are those of a whole column, from the scores of its seeds and the answers to its test images. What filters leave
out keeps its rank and its part in every number, so choosing rows changes none; controls always stay in.
"""

import dataclasses
import difflib
import html
import itertools
import json
import math
import textwrap
import typing as t
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np

from results import by_class, predictions, text
from results.by_class import Told
from results.metrics import (
    ABOUT,
    FEATURES,
    GEOMETRY,
    METRICS,
    RECALL,
    SAMPLES,
    bounds,
    interval,
    is_beside,
    written,
)
from results.record import Definitions, Json, Plan, Record, dataset_label
from results.statistics import Answers, Correct, Scores, contrasts, deviation, mean, ranking
from results.store import Contents
from results.text import Format

if t.TYPE_CHECKING:
    import pandas as pd

EMPTY = "No results yet: `frostbench run SUITE.yaml` makes some."
Key = t.TypeVar("Key")
Cell = tuple[str, str, str, str]  # encoder, tap, protocol, metric
Show = t.Literal["scores", "differences"]
Variance = t.Literal["borrowed", "own"]
Read = t.Callable[[Record], Correct | None]  # the answers of a record, see `predictions.answers`
ReadClasses = t.Callable[[Record], Told | None]  # its predictions, see `predictions.classes`
# Means over the test images of what lies in 0..1, which tell of other images too; other metrics tell of seeds only.
# No such mean varies more than a share does, so its interval is wide enough.
SHARES = ("top1", "mean_top1", "corrupted_top1", "clean_top1", "map", "top5")
# Of 1,000 predictions, as many as another way to the same optimum may move; `tests/test_versions.py` holds all to it.
# Each moves the number of right ones by one at most, up or down alike, so the variance of a share of n images is
# MOVED / n at most: 8 % of what sampling adds at 95 % right, 2 % at 70.
MOVED = 4e-3
ALARM = " (!)"  # stands behind a tap whose features look collapsed, or whose training was hardly one
OVER, RANK = "over untrained", "rank"  # titles of what stands beside a score
SEVERAL = "several"  # stands where the runs behind a row or a table disagree


@dataclass(frozen=True)
class Row:
    """One tap of one encoder judged by one protocol, over its seeds; or an encoder that failed, over those that did."""

    dataset: str  # with limit and split, and what tells it from a namesake
    encoder: str  # the suite's label, and what tells it from a namesake
    tap: str | None
    protocol: str | None  # label@version, and what tells it from a namesake
    settings: dict[str, Json] | None  # all of the protocol's, with its name and a plugin's code
    metric: str | None
    column: int | None  # its place in the table, from 1; column 1 orders the rows
    mean: float | None  # like `low`, `high` and `values` a fraction in 0..1, unless the metric is one of METRICS
    low: float | None  # the 95 % interval of the mean, over what `interval_over` says
    high: float | None
    interval_over: str | None  # "seeds and images", "images" or "seeds": what may be new; one seed is that one model
    rank_low: int | None  # the best that it may have among the rows of its table and protocol; None: nothing is known
    rank_high: int | None
    tie: int | None  # 1: no row is told to be better; 2: none is but those of 1; and so on
    difference: float | None  # of the mean to the best one; better is positive only where lower is better
    difference_low: float | None  # its interval, which holds together with all others of its column in 95 %
    difference_high: float | None
    may_be_best: bool | None  # no row of its column is significantly better
    untrained: str | None  # the encoder that is its own network before training
    over_untrained: float | None  # its mean less that of the same tap there; better is positive as for `difference`
    over_untrained_low: float | None  # the interval of that; it leaves out 0 exactly if p is at most 0.05
    over_untrained_high: float | None
    over_untrained_p: float | None  # corrected for all such differences of the column (Holm)
    borrowed_from: int  # rows whose variances over seeds moderate its own; 0: none
    seeds: int
    of_seeds: int  # that its table has
    values: tuple[float, ...]  # one a seed, in the order of the seeds
    further: dict[str, float]  # the means over seeds of what tables show on request, as far as every seed has it
    recalls: tuple[float | None, ...]  # by class, means over seeds; None for one that test lacks; () if not known
    keys: tuple[str, ...]  # of the runs, in the same order
    versions: tuple[int, ...]  # of the protocol, in the same order: all of one definition
    method: str
    is_control: bool  # what a learned encoder has to beat
    labels: int | None  # of the training images that it saw; None: all of those that a failed run did not count
    dimensions: int | None
    fit_seconds: float | None  # mean over seeds
    updates: dict[str, int]  # by player: how often it moved, in the seed where that was least; older records have none
    limit: int | None
    split: str
    train_images: int
    test_images: int
    device: str
    threads: int | str
    precision: str
    commit: str | None
    status: t.Literal["done", "failed"]
    error: str | None
    alarms: tuple[str, ...]  # what is wrong with the features in some seed, a sentence each

    def plain(self) -> dict[str, Json]:
        """The row as files have it; they say `control` for `is_control`."""
        row = dataclasses.asdict(self) | {name: list(getattr(self, name)) for name in LISTS}
        return dict(zip(COLUMNS, row.values()))


LISTS = ("values", "keys", "versions", "alarms", "recalls")
COLUMNS = [field.name.removeprefix("is_") for field in dataclasses.fields(Row)]
WORD, NUMBER, COUNT = "object", "float64", "Int64"  # of pandas; the last knows missing ones
FRAME = {  # a column of `Leaderboard.to_pandas`: what of a row it holds
    **{name: (name, WORD) for name in ("dataset", "split")},
    "limit": ("limit", COUNT),
    **{name: (name, WORD) for name in ("encoder", "method", "tap", "protocol", "metric")},
    "value": ("mean", NUMBER),
    **{name: (name, NUMBER) for name in ("low", "high")},
    **{name: (name, COUNT) for name in ("rank_low", "rank_high")},
    "untrained": ("untrained", WORD),
    **{f"over_untrained{end}": (f"over_untrained{end}", NUMBER) for end in ("", "_low", "_high")},
    "seeds": ("seeds", COUNT),
    "is_control": ("is_control", "bool"),
    **{name: (name, COUNT) for name in ("labels", "dimensions", "train_images", "test_images")},
    "fit_seconds": ("fit_seconds", NUMBER),
    **{name: (name, WORD) for name in ("status", "error")},
}


class Unknown(Exception):
    """A name that no row of a leaderboard has; the message says which there are."""

    exit_code = 2


@dataclass(frozen=True)
class Leaderboard:
    """The rows of every table: datasets in the alphabet, in each the encoders that saw no label, then those that did.

    In both the features come first, then what the encoders generate; the best on top, what failed last.
    """

    rows: list[Row]
    sort: str = ""  # what orders the rows in place of a table's first column

    def select(
        self,
        *,
        encoders: t.Collection[str] = (),
        taps: t.Collection[str] = (),
        protocols: t.Collection[str] = (),
        datasets: t.Collection[str] = (),
        sort: str = "",
    ) -> "Leaderboard":
        """The rows with these names; no name of a kind keeps all of it. Controls stay, whatever encoders and taps are.

        Encoders go by label or method, protocols with or without their version, datasets with or without their limit.
        `sort`: by a protocol or a metric, the best first, by "encoder" or by "training", the shortest first; by a
        table's first column that is left if not given. No number changes, ranks included. Raises Unknown.
        """
        wanted = {"encoder": encoders, "tap": taps, "protocol": protocols, "dataset": datasets}
        for kind, names in wanted.items():
            for name in names:
                _check_known(kind, name, {one for row in self.rows for one in _names(row)[kind]})
        rows = [
            row
            for row in self.rows
            if all(
                not names or not row_names or row_names & set(names) or (row.is_control and kind in ("encoder", "tap"))
                for kind, names in wanted.items()
                for row_names in [_names(row)[kind]]
            )
        ]
        return Leaderboard(_sorted(rows, sort), sort)

    def render(self, format: Format, *, show: Show = "scores", width: int | None = None, colour: bool = False) -> str:
        """The leaderboard as text that ends with a newline.

        `json` and `csv` have the rows, fractions in 0..1. The others have a table a dataset, one more for encoders that
        saw labels, and one for what encoders generate; fractions in percent; or the differences to the best, in points.
        `table` folds what is wider than `width` columns (None, for pipes and files: as wide as it must be) and cuts
        nothing.
        """
        if format == "json":
            return text.to_json([row.plain() for row in self.rows])
        if format == "csv":
            return text.to_csv([row.plain() for row in self.rows], COLUMNS)
        sections = self._sections()
        tables = [_table(rows, show, self.sort) for rows in sections.values()]
        legend = _legend(self.rows, show) if tables else EMPTY
        if format == "markdown":
            return _markdown(tables, legend)
        if format == "latex":
            return _latex(tables, [_legend(rows, show) for rows in sections.values()])
        if format == "html":
            return _html(tables, legend)
        return _terminal(tables, legend, width, colour)

    def _sections(self) -> dict[tuple[str, bool, str], list[Row]]:
        sections: dict[tuple[str, bool, str], list[Row]] = defaultdict(list)
        for row in self.rows:
            sections[_section(row)].append(row)
        return sections

    def to_pandas(self) -> "pd.DataFrame":
        """A row a cell of the tables, fractions in 0..1; the names of its columns are those of `Row`, one level deep.

        What fails stands there too, with its error and without a value.
        """
        import pandas as pd  # noqa: PLC0415 - slow to import

        found = {title: [getattr(row, name) for row in self.rows] for title, (name, _) in FRAME.items()}
        return pd.DataFrame({title: pd.Series(found[title], dtype=kind) for title, (_, kind) in FRAME.items()})

    def _repr_html_(self) -> str:
        """The tables as a notebook shows them."""
        tables = [_table(rows, "scores", self.sort) for rows in self._sections().values()]
        return "\n".join(_html_elements(tables, _legend(self.rows, "scores") if tables else EMPTY))


# ---- records to rows --------------------------------------------------------------------------------------------


BUDGET = ("argmax", "fewshot")  # read no more labels than the encoder, or few; of encoders that saw labels, the first
WHOLE = ("linear", "knn", "svm", "sgd_linear", "mlp")  # read the labels of all training images
MAIN = ("linear", "knn", "svm", "sgd_linear", "mlp", "fewshot", "argmax")  # protocols that judge for their own sake


def of(contents: Contents, variance: Variance = "borrowed", metrics: t.Collection[str] = ()) -> Leaderboard:
    """The leaderboard of all that a store holds, with the answers that lie beside its records."""
    classes = predictions.classes(contents)
    return leaderboard(contents.records, contents.plans, predictions.answers(classes), variance, classes, metrics)


def leaderboard(
    records: t.Iterable[Record],
    plans: t.Sequence[Plan] = (),
    answers: Read = lambda _: None,
    variance: Variance = "borrowed",
    classes: ReadClasses = lambda _: None,
    metrics: t.Collection[str] = (),
) -> Leaderboard:
    """Rank by the mean of a table's first protocol, where equal or missing by the second, and so on.

    Protocols stand as the suites have them, those that no suite has as in MAIN and then the alphabet. A seed counts
    once in a cell: if several runs claim it, the newest does. A failure is shown until its recipe succeeds with its
    seed, or its suite gives its label another recipe; of a label that no suite has, until the label succeeds.

    Rows with at most two seeds stand for these trained models, others for new seeds too. Where `answers` are there,
    differences are paired by test image, and a variance over seeds is moderated by those of its column. `variance`
    "own" does neither, and takes two seeds for a sample; but what counts classes alike is always paired.

    metrics: what columns show in place of each protocol's own metric: others of its records or, where there are
    `classes`, of `by_class`; "recall" is the recall of every class. Raises Unknown for one that no record has.
    """
    asked = dict.fromkeys(protocol.label for plan in plans for protocol in plan.protocols)
    order = {label: place for place, label in enumerate(asked)}
    by_suite = {plan.suite: plan for plan in plans}
    oldest_first = sorted(records, key=lambda record: (record.provenance.started, record.key))
    known = {dataset_name(record): record.fingerprint for record in oldest_first if record.fingerprint}
    tables: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in oldest_first:  # a run can fail before its data is known: it then stands with its namesakes
        name = dataset_name(record)
        tables[name, record.fingerprint or known.get(name, "")].append(record)
    shown = told_apart({table: (table[0], {"data": table[1][:12]}) for table in tables})
    sections = [
        (
            shown[table],
            [one for one in tables[table] if (one.labels != 0) == labelled and _about(one) == subject],
            [one for one in tables[table] if labelled and _is_guest(one) and _about(one) == subject],
        )
        for table in sorted(tables)
        for labelled in (False, True)
        for subject in ("", SAMPLES, GEOMETRY)
    ]
    further = _Further(classes, metrics)
    rows = [
        row
        for dataset, members, guests in sections
        for row in _ranked(dataset, members, guests, order, by_suite, answers, variance, further)
    ]
    for name in metrics:
        _check_known("metric", name, further.seen | ({RECALL} if "recall_0" in further.seen else set()))
    return Leaderboard(rows)


class _Further:
    """The scores of records: their own, and what their predictions give beside."""

    def __init__(self, classes: ReadClasses, asked: t.Collection[str]) -> None:
        self.classes, self.asked = classes, asked
        self.seen: set[str] = set()
        self.known: dict[int, dict[str, float]] = {}

    def scores(self, record: Record) -> dict[str, float]:
        if id(record) not in self.known:
            told = self.classes(record)
            self.known[id(record)] = record.metrics | (by_class.scores(told) if told else {})
            self.seen |= self.known[id(record)].keys()
        return self.known[id(record)]

    def shown(self, record: Record) -> list[str]:
        """The metrics that have columns."""
        scores = self.scores(record)
        if self.asked:
            recalls = filter(_is_recall, scores) if RECALL in self.asked else ()
            return [name for name in (*self.asked, *recalls) if name in scores]
        first, *others = record.metrics
        return list(record.metrics) if _about(record) else [first, *filter(is_beside, others)]


def _is_guest(record: Record) -> bool:
    """Whether encoders that saw labels are compared with it though it saw none: it may be one's own control."""
    return record.is_control and record.labels == 0 and record.status == "done"


def _ranked(
    dataset: str,
    records: list[Record],
    guests: list[Record],
    order: dict[str, int],
    by_suite: t.Mapping[str, Plan],
    answers: Read,
    variance: Variance,
    further: _Further,
) -> list[Row]:
    """The rows of one section of a table. Guests are no rows of it: their rows' scores are only subtracted."""
    named = Definitions(by_suite.values()).newest([*records, *guests])
    encoded = [(encoder_key(name), record) for name, record in zip(named, [*records, *guests])]
    encoders = told_apart({encoder_key(name): (name.label, encoder_facts(name)) for name in named})
    judged = [name if name.status == "done" and name.metrics else None for name in named]
    done = [(key, protocol_key(name), one) for (key, one), name in zip(encoded, judged) if name]
    protocols = told_apart({protocol_key(name): (versioned(name), protocol_facts(name)) for name in judged if name})
    cells: dict[Cell, list[Record]] = defaultdict(list)
    for encoder, protocol, record in done:
        for metric in further.shown(record):
            cells[encoders[encoder], record.tap or "", protocols[protocol], metric].append(record)
    succeeded = {(key, one.seed): one.provenance.started for key, _, one in done}  # the newest, being sorted
    succeeded_as = {(one.label, one.seed): one.provenance.started for *_, one in done}
    failures: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for key, one in encoded:
        if one.status == "failed":
            is_asked = by_suite[one.suite].asks_for(one) if one.suite in by_suite else None
            mended = succeeded.get((key, one.seed), "") if is_asked else succeeded_as.get((one.label, one.seed), "")
            if is_asked is not False and mended <= one.provenance.started:
                failures[encoders[key], one.error or ""].append(one)

    of_seeds = len({record.seed for record in records})
    controls = {encoders[key]: own for key, own in _controls(encoded, encoders, by_suite).items()}
    scored = {cell: _row(dataset, cell[0], *cell[2:], of_seeds, members, further) for cell, members in cells.items()}
    main = {name: place for place, name in enumerate(MAIN)}
    labelled = any(record.labels != 0 for record in records)
    places = {
        protocols[key]: (
            labelled and one.protocol not in BUDGET,
            order.get(one.protocol_label or "", len(order)),
            main.get(one.protocol or "", len(main)),
        )
        for _, key, one in done
    }
    wanted = {name: place for place, name in enumerate(further.asked)}
    visitors = {encoders[key] for key, _ in encoded[len(records) :]}
    hosts = [cell for cell in cells if cell[0] not in visitors]
    visiting = [cell for cell in cells if cell[0] in visitors]
    columns = sorted(
        {cell[2:] for cell in hosts},
        key=lambda column: (places[column[0]], wanted.get(column[1], len(wanted)), _column_order(column)),
    )
    ordered = sorted(  # before they are compared: of equal rows the first is the best
        {cell[:2] for cell in hosts},
        key=lambda line: ([_rank(scored.get((*line, *column))) for column in columns], line),
    )
    for place, column in enumerate(columns, 1):
        rows = {cell: scored[cell] for line in ordered if (cell := (*line, *column)) in scored}
        own = {cell: scored[cell] for cell in visiting if cell[2:] == column}
        members = {cell: by_seed(cells[cell]) for cell in (*rows, *own)}
        compared = _compared(rows, own, members, answers, variance, controls, further.classes)
        scored |= {cell: dataclasses.replace(row, column=place) for cell, row in compared.items()}
    failed = [
        _row(dataset, encoder, None, None, of_seeds, failures[encoder, error], further)
        for encoder, error in sorted(failures)
    ]
    return [scored[cell] for line in ordered for column in columns if (cell := (*line, *column)) in scored] + failed


def _controls(
    encoded: list[tuple[tuple[str, str], Record]], encoders: dict[tuple[str, str], str], by_suite: t.Mapping[str, Plan]
) -> dict[tuple[str, str], str]:
    """{encoder: the one that is its own untrained network}: as its suite has it, or with its parameters but epochs."""

    def body(architecture: Json, params: Json, record: Record) -> tuple[str, str, str]:
        built = {name: value for name, value in params.items() if name != "epochs"}
        return str(architecture), _json(built), record.provenance.precision

    by_label: dict[tuple[str, str], str] = {}
    by_body: dict[tuple[str, str, str], str] = {}
    for key, record in encoded:
        if record.is_control:
            by_label[record.label, record.provenance.precision] = encoders[key]
            if isinstance(record.params.get("parameters"), dict):
                by_body[body(record.params.get("architecture"), record.params["parameters"], record)] = encoders[key]
    found = {}
    for key, record in encoded:
        label = by_suite[record.suite].control_of.get(record.label) if record.suite in by_suite else None
        own = by_label.get((label or "", record.provenance.precision))
        own = own or by_body.get(body(record.encoder, record.params, record))
        if own and not record.is_control:
            found[key] = own
    return found


def _compared(
    column: dict[Cell, Row],
    guests: dict[Cell, Row],
    members: t.Mapping[Cell, list[Record]],
    answers: Read,
    variance: Variance,
    controls: t.Mapping[str, str],
    classes: ReadClasses,
) -> dict[Cell, Row]:
    """The rows of a table under one protocol, each with its interval, its ranks and how it differs from others.

    Guests have a part in the differences over their own controls alone.
    """
    one = next(iter(column.values()))
    better = -1 if one.metric in METRICS and not METRICS[one.metric].higher_is_better else 1
    counts_classes = by_class.is_by_class(one.metric)
    images = one.test_images if one.metric in SHARES or counts_classes else None

    def scores_of(rows: dict[Cell, Row]) -> Scores:
        made = [members[cell] for cell in rows]
        sampled = [row.seeds > (1 if images is None or variance == "own" else 2) for row in rows.values()]
        return Scores(
            better * np.array([row.mean for row in rows.values()], np.float64),
            np.array([deviation(row.values) if many else 0.0 for row, many in zip(rows.values(), sampled)]),
            np.array([row.seeds if many else 1 for row, many in zip(rows.values(), sampled)]),
            images,
            by_class.answers(one.metric or "", [[classes(record) for record in records] for records in made])
            if counts_classes
            else _answers(made, images, answers)
            if one.metric == "top1" and variance == "borrowed"
            else None,
            np.array([_otherwise(row) * MOVED / images for row in rows.values()]) if images else None,
        )

    scores = scores_of(column)
    found, (below, above) = ranking(scores), scores.reach(0.95)
    least, highest = bounds(one.metric)
    # of geometry nothing is best, and what stands beside a protocol's first metric is not what rows are ranked by
    ranked = METRICS[one.metric].of != GEOMETRY if one.metric in METRICS else not is_beside(one.metric or "")
    widest = highest - least
    over = {cell: (controls[cell[0]], *cell[1:]) for cell in column if controls.get(cell[0])}
    over = {cell: own for cell, own in over.items() if own in column or own in guests} if ranked else {}
    visiting = {own: guests[own] for own in over.values() if own in guests}
    places = {cell: place for place, cell in enumerate((*column, *visiting))}
    first, second = (np.array([places[cell] for cell in cells], np.int64) for cells in (over, over.values()))
    contrast = contrasts(scores_of(column | visiting) if visiting else scores, first, second)
    compared = {}
    for place, (cell, row) in enumerate(column.items()):
        about = [name for name, known in (("seeds", scores.seeds[place] > 1), ("images", images is not None)) if known]
        middle, reach = row.mean or 0.0, sorted((-better * float(below[place]), better * float(above[place])))
        apart = sorted(better * float(ends[place]) for ends in (found.difference_low, found.difference_high))
        apart = [min(max(end, -widest), widest) for end in apart]
        compared[cell] = dataclasses.replace(
            row,
            low=max(least, middle + reach[0]) if about else None,
            high=min(highest, middle + reach[1]) if about else None,
            interval_over=" and ".join(about) or None,
            rank_low=int(found.low[place]) if about and ranked else None,
            rank_high=int(found.high[place]) if about and ranked else None,
            tie=int(found.tie[place]) if about and ranked else None,
            difference=better * float(found.difference[place]) if ranked else None,
            difference_low=apart[0] if ranked and math.isfinite(apart[0]) else None,
            difference_high=apart[1] if ranked and math.isfinite(apart[1]) else None,
            may_be_best=bool(found.may_be_best[place]) if about and ranked else None,
            untrained=controls.get(cell[0]),
            borrowed_from=scores.prior.rows if scores.seeds[place] > 1 else 0,
        )
    for place, cell in enumerate(over):
        middle, half = better * float(contrast.difference[place]), float(contrast.half[place])
        known = math.isfinite(half)
        compared[cell] = dataclasses.replace(
            compared[cell],
            over_untrained=middle,
            over_untrained_low=max(middle - half, -widest) if known else None,
            over_untrained_high=min(middle + half, widest) if known else None,
            over_untrained_p=float(contrast.p[place]) if known else None,
        )
    return compared


def _otherwise(row: Row) -> float:
    """The share of its seeds that were judged by another version of the definition than its column is named by."""
    return sum(not (row.protocol or "").partition(" (")[0].endswith(f"@{one}") for one in row.versions) / row.seeds


def _answers(rows: t.Iterable[list[Record]], images: int | None, answers: Read) -> Answers | None:
    """The answers of rows whose every seed has them; None if there are none."""
    assert images is not None
    correct: list[Correct | None] = []
    for records in rows:
        made = [answers(record) for record in records]
        whole = [one for one in made if one is not None and len(one) == images]
        correct.append(np.stack(whole) if len(whole) == len(records) else None)
    return Answers.of(correct, images) if any(one is not None for one in correct) else None


def by_seed(records: t.Iterable[Record]) -> list[Record]:
    """The newest record of each seed, in the order of the seeds; records come oldest first."""
    newest = {record.seed: record for record in records}
    return [newest[seed] for seed in sorted(newest)]


def _about(record: Record) -> str:
    """What a record's metrics are of, where they are no fractions."""
    return _subject(next(iter(record.metrics), None))


def _subject(metric: str | None) -> str:
    return METRICS[metric].of if metric in METRICS else ""


def _column_order(column: tuple[str, str]) -> tuple[str, int, str]:
    protocol, metric = column
    if _is_recall(metric):
        return protocol, int(metric.removeprefix(f"{RECALL}_")), metric
    return protocol, list(METRICS).index(metric) if metric in METRICS else is_beside(metric), metric


def _rank(row: Row | None) -> float:
    """Smaller is better; what is missing comes last."""
    if row is None or row.mean is None:
        return math.inf
    return row.mean if row.metric in METRICS and not METRICS[row.metric].higher_is_better else -row.mean


def _row(
    dataset: str,
    encoder: str,
    protocol: str | None,
    metric: str | None,
    of_seeds: int,
    records: list[Record],
    scores: _Further,
) -> Row:
    """One row from records, oldest first, that differ in their seeds only; or that failed with the same error.

    Its interval and its ranks are those of its column.
    """
    members = by_seed(records)
    one, made = members[0], [record.provenance for record in members]
    made_of = [scores.scores(record) for record in members]
    values = [one[metric] for one in made_of] if metric else []
    means = {name: mean([one[name] for one in made_of]) for name in made_of[0] if all(name in one for one in made_of)}
    fits = [record.seconds["fit"] for record in members if "fit" in record.seconds]
    return Row(
        dataset=dataset,
        encoder=encoder,
        tap=one.tap,
        protocol=protocol,
        settings=protocol_facts(one) if protocol else None,
        metric=metric,
        column=None,
        mean=mean(values) if values else None,
        low=None,
        high=None,
        interval_over=None,
        rank_low=None,
        rank_high=None,
        tie=None,
        difference=None,
        difference_low=None,
        difference_high=None,
        may_be_best=None,
        untrained=None,
        over_untrained=None,
        over_untrained_low=None,
        over_untrained_high=None,
        over_untrained_p=None,
        borrowed_from=0,
        seeds=len(members),
        of_seeds=of_seeds,
        values=tuple(values),
        further={name: value for name, value in means.items() if name != metric and not _is_recall(name)},
        recalls=_recalls(means),
        keys=tuple(record.key for record in members),
        versions=tuple(record.protocol_version or 0 for record in members) if protocol else (),
        method=one.encoder,
        is_control=one.is_control,
        labels=one.labels if one.labels != "all" else one.train_images or None,
        dimensions=one.dimensions,
        fit_seconds=sum(fits) / len(fits) if fits else None,
        updates=min((record.updates for record in members), key=lambda moved: min(moved.values(), default=0)),
        limit=one.limit,
        split=one.split,
        train_images=one.train_images,
        test_images=one.test_images,
        device=_agreed([one.device for one in made]),
        threads=_agreed([one.threads for one in made]),
        precision=_agreed([one.precision for one in made]),
        commit=_agreed([one.commit and one.commit[:10] + (" with changes" if one.dirty else "") for one in made]),
        status=one.status,
        error=one.error,
        alarms=tuple({alarm.name: alarm.text for record in reversed(members) for alarm in record.alarms}.values()),
    )


def _is_recall(metric: str) -> bool:
    return metric.startswith(f"{RECALL}_")


def _kind(metric: str) -> str:
    return RECALL if _is_recall(metric) else metric


def _recalls(scores: dict[str, float]) -> tuple[float | None, ...]:
    places = {int(name.removeprefix(f"{RECALL}_")): value for name, value in scores.items() if _is_recall(name)}
    return tuple(places.get(place) for place in range(1 + max(places, default=-1)))


def dataset_name(record: Record) -> str:
    return dataset_label(record.dataset, record.limit, record.split, record.pretrain, record.size, record.mode)


def versioned(record: Record) -> str:
    return f"{record.protocol_label}@{record.protocol_version}"


def encoder_facts(record: Record) -> dict[str, Json]:
    """What moves an encoder's numbers besides data and seed."""
    made = {"method": record.encoder, "version": record.encoder_version, "precision": record.provenance.precision}
    made |= {"ranks": record.provenance.ranks} if record.provenance.ranks > 1 else {}
    return record.params | made | ({"plugin": record.code} if record.code else {})


def protocol_facts(record: Record) -> dict[str, Json]:
    made = {"protocol": record.protocol} | ({"plugin": record.protocol_code} if record.protocol_code else {})
    return record.protocol_params | made


def encoder_key(record: Record) -> tuple[str, str]:
    return record.label, _json(encoder_facts(record))


def protocol_key(record: Record) -> tuple[str, str]:
    return versioned(record), _json(protocol_facts(record))


def told_apart(things: dict[Key, tuple[str, dict[str, Json]]]) -> dict[Key, str]:
    """A name for each thing: its own, and for namesakes the facts in which they differ."""
    namesakes: dict[str, list[Key]] = defaultdict(list)
    for key, (name, _) in things.items():
        namesakes[name].append(key)
    shown = {}
    for name, keys in namesakes.items():
        facts = [things[key][1] for key in keys]
        differing = [fact for fact in sorted(set().union(*facts)) if len({_json(one.get(fact)) for one in facts}) > 1]
        for key, one in zip(keys, facts):
            told = ", ".join(f"{fact}={_word(one[fact])}" for fact in differing if fact in one)
            shown[key] = f"{name} ({told})" if told else name
    return shown


def _json(value: Json) -> str:
    return json.dumps(value, sort_keys=True)


def _word(value: Json) -> str:
    return value if isinstance(value, str) else _json(value)


def _agreed(values: t.Sequence[t.Any]) -> t.Any:
    return values[0] if len(set(values)) == 1 else SEVERAL


# ---- choosing rows ----------------------------------------------------------------------------------------------


def _names(row: Row) -> dict[str, set[str]]:
    """What a row goes by; of a run that failed, neither a tap nor a protocol."""
    return {
        "encoder": {row.encoder, row.encoder.partition(" (")[0], row.method},
        "tap": {row.tap} if row.tap else set(),
        "protocol": {row.protocol, row.protocol.partition(" (")[0], row.protocol.partition("@")[0]}
        if row.protocol
        else set(),
        "dataset": {row.dataset, row.dataset.partition(" (")[0]},
    }


def _check_known(kind: str, name: str, known: t.Collection[str]) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        there = f" (did you mean {close[0]!r}?)" if close else ""
        raise Unknown(f"no {kind} {name!r} in these results{there}; there are {', '.join(sorted(known)) or 'none'}")


def _section(row: Row) -> tuple[str, bool, str]:
    """The rows of one table agree in this."""
    return row.dataset, row.labels != 0, _subject(row.metric)


def _sorted(rows: list[Row], by: str) -> list[Row]:
    """The lines of each section by a column, or by the first ones if it is not said; what failed stays last."""
    columns = {name: row for row in rows if row.protocol for name in (*_names(row)["protocol"], row.metric or "")}
    if by:
        _check_known("column", by, {"encoder", "training", *columns})
    lines: dict[tuple[tuple[str, bool, str], str, str], list[Row]] = defaultdict(list)
    for row in rows:
        lines[_section(row), row.encoder, row.tap or f"failed: {row.error}"].append(row)
    sections = list(dict.fromkeys(section for section, *_ in lines))
    there: dict[tuple[str, bool, str], set[int]] = defaultdict(set)  # the columns of each
    for row in rows:
        there[_section(row)] |= {row.column} if row.column else set()

    def place(line: tuple[tuple[str, bool, str], str, str]) -> tuple[t.Any, ...]:
        cells = lines[line]
        if by == "encoder":
            key: t.Any = line[1]
        elif by == "training":
            key = math.inf if cells[0].fit_seconds is None else cells[0].fit_seconds
        else:
            ranks = {row.column: _rank(row) for row in cells if not by or _is_called(row, by)}
            key = [ranks.get(column, math.inf) for column in sorted(there[line[0]])]
        return sections.index(line[0]), cells[0].status == "failed", key

    return [row for line in sorted(lines, key=place) for row in lines[line]]


def _is_called(row: Row, column: str) -> bool:
    return column == row.metric or column in _names(row)["protocol"]


# ---- rows to text -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    """What tables print of one tap of one encoder, or in place of everything but the encoder how it failed."""

    encoder: str
    is_control: bool
    tap: str = ""
    labels: str = ""  # that it saw
    scores: tuple[tuple[str, ...], ...] = ()  # of each column a score, the difference over the control, and a rank
    best: tuple[bool, ...] = ()  # no row of the column is significantly better
    seeds: str = ""
    fit_seconds: str = ""
    failure: str = ""

    @property
    def cells(self) -> list[str]:
        """Everything behind the encoder."""
        return [self.tap, *([self.labels] if self.labels else []), *sum(self.scores, ()), self.seeds, self.fit_seconds]

    def written(self, escape: t.Callable[[str], str], bold: str) -> list[str]:
        """The same in some format, where `bold` prints the scores of what may be best."""
        scores = [
            [bold.replace("CELL", escape(cell[0])) if best else escape(cell[0]), *cell[1:]]
            for cell, best in zip(self.scores, self.best)
        ]
        labels = [self.labels] if self.labels else []
        judged = [cell for pair in scores for cell in pair]
        return [escape(self.tap), *labels, *judged, self.seeds, self.fit_seconds]


@dataclass(frozen=True)
class _Table:
    name: str
    caption: str
    columns: list[tuple[str, ...]]  # a protocol or a metric, with "over untrained" and "rank" where it tells them
    lines: list[_Line]
    labelled: bool  # a section of encoders that saw labels

    @property
    def header(self) -> list[str]:
        labels = ["labels"] if self.labelled else []
        return ["encoder", "tap", *labels, *sum(self.columns, ()), "seeds", "training s"]


def _table(rows: list[Row], show: Show, sort: str) -> _Table:
    metrics = {row.metric for row in rows if row.metric}
    beside = {
        OVER: {(row.protocol or "", row.metric or "") for row in rows if row.over_untrained is not None},
        RANK: {(row.protocol or "", row.metric or "") for row in rows if row.rank_low},
    }
    places = {(row.protocol or "", row.metric or ""): row.column or 0 for row in rows if row.status == "done"}
    columns = sorted(places, key=lambda column: (places[column], column))
    lines: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        lines[row.encoder, row.tap or f"failed: {row.error}"].append(row)
    title = titles(rows)
    if metrics and metrics <= METRICS.keys():
        several = len({protocol for protocol, _ in columns}) > 1
        header = [f"{title[one]} {METRICS[name].title}" if several else METRICS[name].title for one, name in columns]
    else:
        header = [title[one] if len(metrics) == 1 else f"{title[one]} {metric}" for one, metric in columns]
    by = {(row.protocol or "", row.metric or "") for row in rows if row.protocol and sort and _is_called(row, sort)}
    ordered = [name for name, column in zip(header, columns) if not by or column in by][:1]
    ordered = {"encoder": ["encoder"], "training": ["seconds of training"]}.get(
        sort, ordered if len(header) > 1 else []
    )
    return _Table(
        " ".join([rows[0].dataset, _subject(rows[0].metric), "labels" * (rows[0].labels != 0)]),
        ", ".join(
            [
                _caption(rows),
                *map(_clean, dict.fromkeys(name for name, _ in columns)),
                *(f"ordered by {_clean(name)}" for name in ordered),
            ]
        ),
        [
            (_clean(name), *(extra for extra, told in beside.items() if column in told))
            for name, column in zip(header, columns)
        ],
        [_line(cells, columns, beside, show) for cells in lines.values()],
        labelled=rows[0].labels != 0,
    )


def _line(
    cells: list[Row], columns: list[tuple[str, str]], beside: dict[str, set[tuple[str, str]]], show: Show
) -> _Line:
    one = max(cells, key=lambda row: row.seeds)
    encoder = _clean(one.encoder)
    if one.status == "failed":
        saw = f"; saw {_labels(one)} labels" if one.labels != 0 else ""
        counted = f"{one.seeds} of {_count(one.of_seeds, 'seed')}{saw}"
        failure = _clean(f"failed: {one.error or 'no reason given'} ({counted})")
        return _Line(encoder, one.is_control, failure=failure)
    made = {(row.protocol, row.metric): row for row in cells}
    judged = [made.get(column) for column in columns]
    return _Line(
        encoder,
        one.is_control,
        tap=_clean(one.tap or "") + (ALARM if any(row.alarms for row in cells) else ""),
        labels=_labels(one) if one.labels != 0 else "",
        scores=tuple(
            (
                _score(row, one.seeds, show) if row else "-",
                *([over_untrained(row)] if column in beside[OVER] else []),
                *([_ranks(row)] if column in beside[RANK] else []),
            )
            for row, column in zip(judged, columns)
        ),
        best=tuple(row is not None and bool(row.may_be_best) for row in judged),
        seeds=str(one.seeds) if one.seeds == one.of_seeds else f"{one.seeds} of {one.of_seeds}",
        fit_seconds="-" if one.fit_seconds is None else f"{one.fit_seconds:.1f}",
    )


def _score(row: Row, seeds: int, show: Show) -> str:
    """'96.84 ± 0.31', '99.80 (98.21 to 100.00)' or '-0.52 (-1.40 to 0.28)'; '(n=1)' behind a score of fewer seeds."""
    times, digits = _printed(row.metric)
    if show == "differences" and row.difference:  # the best keeps its score
        ends = [end for end in (row.difference_low, row.difference_high) if end is not None]
        text = f"{times * row.difference:+.{digits}f}"
        text += f" ({' to '.join(f'{times * end:.{digits}f}' for end in ends)})" if ends else ""
    else:
        text = f"{written(row.mean or 0.0, row.metric)} {_interval(row)}".rstrip()
    return text if row.seeds == seeds else f"{text} (n={row.seeds})"


def over_untrained(row: Row | None) -> str:
    """'+3.92 ± 0.45', in points; '-' without a control of its own."""
    if row is None or row.over_untrained is None:
        return "-"
    times, digits = _printed(row.metric)
    text = f"{times * row.over_untrained:+.{digits}f}"
    if row.over_untrained_low is None or row.over_untrained_high is None:
        return text
    ends = row.over_untrained_low, row.over_untrained_high
    return f"{text} {interval(row.over_untrained, *ends, row.metric, of_difference=True)}"


def _printed(metric: str | None) -> tuple[int, int]:
    """What a metric is multiplied with to be printed, and its digits behind the point."""
    return (1, METRICS[metric].digits) if metric in METRICS else (100, 2)


def _interval(row: Row) -> str:
    if row.mean is None or row.low is None or row.high is None:
        return ""
    return interval(row.mean, row.low, row.high, row.metric)


def _ranks(row: Row | None) -> str:
    if row is None or row.rank_low is None:
        return "-"
    return str(row.rank_low) if row.rank_low == row.rank_high else f"{row.rank_low}-{row.rank_high}"


def _labels(row: Row) -> str:
    return "all" if row.labels is None else f"{row.labels:,}"


SETTINGS = {  # of a protocol, that say what its numbers are
    "cluster": ("method",), "fewshot": ("labels", "head"), "generative": ("samples",), "knn": ("k", "metric"),
    "robustness": ("probe",), "two_sample": ("samples",),
}  # fmt: skip


def titles(rows: t.Iterable[Row]) -> dict[str, str]:
    """What heads each protocol's columns: 'knn (k=5, cosine)', its name and the settings that matter.

    Its version stands in the caption; in the title, too, where two would have the same.
    """
    found = {}
    for row in rows:
        if row.protocol and row.protocol not in found:
            known = row.settings or {}
            shown = [(name, known[name]) for name in SETTINGS.get(known.get("protocol", ""), ()) if name in known]
            told = ", ".join(value if isinstance(value, str) else f"{name}={value}" for name, value in shown)
            found[row.protocol] = row.protocol.partition("@")[0] + (f" ({told})" if told else "")
    often = Counter(found.values())
    return {protocol: title if often[title] == 1 else protocol for protocol, title in found.items()}


def _caption(rows: list[Row]) -> str:
    """The dataset, its size and where the numbers were made, as far as all rows agree."""
    made = [row for row in rows if row.status == "done"] or rows
    one, facts = made[0], [_clean(made[0].dataset)]
    if one.train_images and one.test_images:
        facts[0] += f": {one.train_images:,} train and {one.test_images:,} test images"
    threads = _agreed([row.threads for row in made])
    facts.append(_named(_agreed([row.device for row in made]), "{}", "several devices"))
    facts.append("several thread counts" if threads == SEVERAL else _count(threads, "thread"))
    facts.append(_named(_agreed([row.precision for row in made]), "{}", "several precisions"))
    facts.append(_named(_agreed([row.commit for row in made]), "commit {}", "several commits"))
    if one.labels != 0:
        facts.append("encoders that saw labels")
    facts.append(_subject(one.metric))
    return ", ".join(fact for fact in facts if fact)


def _named(value: str | None, one: str, several: str) -> str:
    return several if value == SEVERAL else one.format(_clean(value)) if value else ""


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _legend(rows: list[Row], show: Show) -> str:
    metrics = sorted({_kind(row.metric) for row in rows if row.metric and row.metric not in METRICS})
    legend = f"Scores: {_clean(', '.join(metrics))} in percent, mean over seeds" if metrics else "Mean over seeds"
    legend += " ± half of its 95 % interval, or both ends where the mean is not in its middle."
    over = {row.interval_over for row in rows if row.interval_over}
    few = {row.seeds for row in rows if row.interval_over == "images"}
    if "seeds and images" in over:
        legend += " Intervals cover new seeds and new test images"
        legend += f"; those of rows with {_listed(few)} cover new test images for these trained models." if few else "."
    elif few:
        legend += f" With {_listed(few)}, all intervals and ranks are about these trained models on new test images,"
        legend += " not about training again."
    for protocol, versions in _joined_versions(rows).items():
        legend += f" {_clean(protocol)} also holds scores of version{'s' * (len(versions) > 1)} {_and(versions)}: the"
        legend += " same definition, solved in another way; intervals include that this moves 4 of 1,000 predictions."
    alone = {row.metric or "" for row in rows if row.interval_over == "seeds"}
    if alone:
        titles = sorted(METRICS[one].title if one in METRICS else one for one in alone)
        legend += f" Intervals of {', '.join(titles)} cover new seeds only."
    borrowed = sorted({row.borrowed_from for row in rows if row.borrowed_from})
    if borrowed:
        count = str(borrowed[0]) if len(borrowed) == 1 else f"{borrowed[0]} to {borrowed[-1]}"
        legend += f" Variances over seeds are moderated across the {count} rows of a column (empirical Bayes)."
    if any(row.over_untrained is not None for row in rows):
        legend += " Over untrained: the score minus that of the same network before training, on the same test images,"
        legend += " with its 95 % interval (Holm)."
        if any(row.over_untrained is not None and row.labels != 0 for row in rows):
            legend += " That network saw no labels, and has its row among the encoders that saw none."
    if show == "differences":
        legend += " Below the best row are differences to it, with simultaneous 95 % intervals."
    legend += " Rank: simultaneous 95 % rank interval (Bonferroni over all pairs). Bold: not significantly worse than"
    legend += " the best (5 %, each row compared with every other one). Seconds: mean over seeds."
    if any(row.is_control for row in rows):
        legend += " (control): a baseline that a learned encoder has to beat."
    if any(row.labels != 0 for row in rows):
        legend += " Encoders that saw labels of the training images stand apart, with the number of these labels."
        legend += labels_read(rows)
    made = {row.metric for row in rows}
    told = [f"{name}: {about}" for name, about in ABOUT.items() if name in {_kind(one or "") for one in made}]
    told += [f"{one.title}: {one.about}" for name, one in METRICS.items() if name in made and one.of == FEATURES]
    legend += f" {'; '.join(told)}." if told else ""
    for subject in (SAMPLES, GEOMETRY):
        about = [f"{one.title}: {one.about}" for name, one in METRICS.items() if name in made and one.of == subject]
        legend += f" Of {subject}: {'; '.join(about)}." if about else ""
    if any(row.alarms for row in rows):
        hardly = " or hardly trained" if any(row.updates for row in rows if row.alarms) else ""
        legend += f" (!) marks what looks collapsed{hardly}, whatever it scores: why is in the csv and the json."
    return legend


def labels_read(rows: t.Iterable[Row]) -> str:
    """A sentence, behind a space: which protocols read all labels whatever an encoder saw, and which one does not."""
    judged = {
        _clean(row.protocol.partition("@")[0]): row.settings.get("protocol")
        for row in sorted(rows, key=lambda row: row.column or 0)
        if row.labels != 0 and row.protocol and row.settings
    }
    whole = [name for name, protocol in judged.items() if protocol in WHOLE]
    few = next((name for name, protocol in judged.items() if protocol in BUDGET), None)
    if not whole:
        return ""
    reading = f"{' and '.join(whole)} read{'s' * (len(whole) == 1)} the labels of all training images"
    said = f" Of these encoders, too, {reading}"
    return f"{said}; rows stand by {few}, which does not." if few else f"{said}."


def _joined_versions(rows: t.Iterable[Row]) -> dict[str, list[int]]:
    """{a protocol with its version: the other ones of the same definition that some of its scores have}"""
    found: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        if row.protocol and _otherwise(row):
            name = row.protocol.partition(" (")[0]
            found[name] |= {one for one in row.versions if not name.endswith(f"@{one}")}
    return {name: sorted(versions) for name, versions in sorted(found.items())}


def _and(numbers: t.Sequence[int]) -> str:
    """'2', '1 and 2', '1, 2 and 3'."""
    return " and ".join(filter(None, [", ".join(map(str, numbers[:-1])), str(numbers[-1])]))


def _listed(seeds: t.Collection[int]) -> str:
    """'1 seed', '1 or 2 seeds'."""
    return " or ".join(map(str, sorted(seeds))) + (" seed" if set(seeds) == {1} else " seeds")


def _clean(text: str) -> str:
    """One line of printable characters: labels and errors come from files, and a terminal obeys control characters."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def _markdown(tables: list[_Table], legend: str) -> str:
    escape = text.escape_markdown

    def row(cells: t.Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    blocks = []
    for table in tables:
        marks = ["---", "---", *("---:" for _ in table.header[2:])]
        lines = [row(escape(name) for name in table.header), row(marks)]
        for line in table.lines:
            encoder = f"*{escape(line.encoder)}* (control)" if line.is_control else escape(line.encoder)
            cells = line.written(escape, "**CELL**")
            if line.failure:
                cells = [escape(line.failure), *[""] * (len(table.header) - 2)]
            lines.append(row([encoder, *cells]))
        blocks += [f"**{escape(table.caption)}**", "\n".join(lines)]
    return "\n\n".join([*blocks, escape(legend) if tables else legend]) + "\n"


def _latex(tables: list[_Table], legends: list[str]) -> str:
    escape = text.escape_latex
    if not tables:
        return f"% {EMPTY}\n"
    floats = []
    for table, legend in zip(tables, legends):
        rows = []
        for line in table.lines:
            encoder = rf"\emph{{{escape(line.encoder)}}} (control)" if line.is_control else escape(line.encoder)
            cells = line.written(escape, r"\textbf{CELL}")
            if line.failure:
                words = rf"\raggedright {escape(line.failure)}"
                cells = [rf"\multicolumn{{{len(table.header) - 1}}}{{p{{0.6\linewidth}}}}{{{words}}}"]
            rows.append([encoder, *cells])
        sides = "ll" + "r" * (len(table.header) - 2)
        floats.append(text.latex(table.name, table.caption, sides, table.header, rows, legend))
    return "\n".join([text.LATEX_NEEDS, *floats])


def _html(tables: list[_Table], legend: str) -> str:
    return text.page("Leaderboard", _html_elements(tables, legend))


def _html_elements(tables: list[_Table], legend: str) -> list[str]:
    content = []
    for table in tables:
        names = [
            f'<th scope="col"{" class=word" * (i < 2)}>{html.escape(one)}</th>' for i, one in enumerate(table.header)
        ]
        content += ["<table>", f"<caption>{html.escape(table.caption)}</caption>"]
        content += [f"<thead><tr>{''.join(names)}</tr></thead>", "<tbody>"]
        for line in table.lines:
            encoder = html.escape(line.encoder)
            row = f'<th scope="row" class=word>{f"<em>{encoder}</em> (control)" if line.is_control else encoder}</th>'
            if line.failure:
                row += f'<td colspan="{len(names) - 1}" class=word>{html.escape(line.failure)}</td>'
            else:
                tap, *cells = line.written(html.escape, "<strong>CELL</strong>")
                row += f"<td class=word>{tap}</td>" + "".join(f"<td>{cell}</td>" for cell in cells)
            content.append(f"<tr>{row}</tr>")
        content += ["</tbody>", "</table>"]
    return [*content, text.paragraph(legend)]


def _terminal(tables: list[_Table], legend: str, width: int | None, colour: bool) -> str:
    lines: list[str] = []

    def prose(text: str, indent: str = "") -> None:
        lines.extend(textwrap.wrap(text, min(width or 100, 100), subsequent_indent=indent, break_on_hyphens=False))

    for table in tables:
        prose(table.caption)
        for grid in _grids(table, width, colour):
            lines += [*grid, ""]
        for line in table.lines:
            if line.failure:
                prose(f"{line.encoder}: {line.failure}", indent="  ")
        lines.append("")
    prose(legend)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _grids(table: _Table, width: int | None, colour: bool) -> t.Iterator[list[str]]:
    """The lines of the table for a terminal; with more columns than fit, of several with some of the protocols each.

    Not by rich, whose table of 5,000 rows takes two seconds.
    """
    from rich.cells import cell_len  # noqa: PLC0415 - slow to import

    def widest(header: str, cells: t.Iterable[str]) -> int:
        return max(map(cell_len, [*(header.split() if width else [header]), *cells]))

    done = [line for line in table.lines if not line.failure]
    if not done:
        return
    names = [f"{line.encoder} (control)" if line.is_control else line.encoder for line in done]
    rows = [[name, *line.cells] for name, line in zip(names, done)]
    encoder, tap, *judged, seeds, seconds = map(widest, table.header, zip(*rows))
    labels = [judged.pop(0)] if table.labelled else []
    gap, before = 2, 2 + len(labels)
    widths, places = iter(judged), itertools.count(before)
    scores = [sum(next(widths) + gap for _ in column) - gap for column in table.columns]
    cells = [[next(places) for _ in column] for column in table.columns]
    room = (width or 10_000) - sum(one + gap for one in labels) - seeds - seconds - 3 * gap  # for names and scores
    least = min(encoder, 12) + min(tap, 12)  # names can still be read when folded to this
    groups: list[list[int]] = [[]]
    for place in range(len(scores)):
        if groups[-1] and least + sum(scores[one] + gap for one in [*groups[-1], place]) > room:
            groups.append([])
        groups[-1].append(place)
    for group in groups:
        left = max(least, room - sum(scores[one] + gap for one in group))
        first = min(encoder, max(left // 2, left - tap))
        wide = [first, min(tap, left - first), *labels, *judged, seeds, seconds]
        shown = [*range(before), *(cell for place in group for cell in cells[place]), len(wide) - 2, len(wide) - 1]
        spans = [wide[place] for place in shown]
        header = [_folded(table.header[place], wide[place]) for place in shown]
        high = max(map(len, header))
        lines = _laid([[""] * (high - len(name)) + name for name in header], spans, ["1"] * len(shown), colour)
        lines.append("─" * (sum(spans) + gap * (len(spans) - 1)))
        for line, row in zip(done, rows):
            best = {cell[0] for cell, one in zip(cells, line.best) if one}
            styles = ["1" * (place in best) + "3" * line.is_control for place in shown]
            lines += _laid([_folded(row[place], wide[place]) for place in shown], spans, styles, colour)
        yield lines


def _folded(cell: str, width: int) -> list[str]:
    """A cell in as many lines as it takes."""
    from rich.cells import cell_len  # noqa: PLC0415 - slow to import

    if cell_len(cell) <= width:
        return [cell]
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    return [line.plain.rstrip() for line in Text(cell).wrap(Console(), width, overflow="fold")]


def _laid(cells: list[list[str]], spans: list[int], styles: list[str], colour: bool) -> list[str]:
    """A row of folded cells as lines: names stand left, scores right; styles are digits of ANSI's."""
    from rich.cells import cell_len  # noqa: PLC0415 - slow to import

    lines = []
    for parts in itertools.zip_longest(*cells, fillvalue=""):
        laid = []
        for place, (part, span, style) in enumerate(zip(parts, spans, styles)):
            space = " " * (span - cell_len(part))
            shown = f"\x1b[{';'.join(style)}m{part}\x1b[0m" if colour and style and part else part
            laid.append(space + shown if place > 1 else shown + space)
        lines.append("  ".join(laid))
    return lines
