"""Records to ranked tables. A pure function of the records, in whatever order they come.

What cannot be compared never shares a table (other data, another limit or split; encoders that saw labels, or other
data before, have a section of their own), a column (another definition or other settings of a protocol) or a row (other
parameters of an encoder, even under the same label). Versions of one definition go by the newest of them.

Ranks are those of a whole column, from the scores of its seeds and the answers to its test images. What filters leave
out keeps its rank and its part in every number, so choosing rows changes none; controls always stay in.
"""

import dataclasses
import difflib
import math
import typing as t
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from results import by_class, predictions, tables
from results.by_class import Told
from results.identity import (
    as_json,
    dataset_name,
    encoder_facts,
    encoder_key,
    protocol_facts,
    protocol_key,
    told_apart,
    versioned,
)
from results.metrics import GEOMETRY, METRICS, RECALL, SAMPLES, bounds, is_beside
from results.record import Definitions, Json, Plan, Record
from results.rows import (
    PRETRAINED,
    SAW_LABELS,
    Row,
    agreed,
    apart,
    is_called,
    is_recall,
    names_of,
    otherwise,
    section_of,
    subject_of,
)
from results.statistics import Answers, Correct, Scores, contrasts, deviation, mean, ranking
from results.store import Contents
from results.tables import BUDGET, Format, Show

if t.TYPE_CHECKING:
    import pandas as pd

Cell = tuple[str, str, str, str]  # encoder, tap, protocol, metric
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
    "is_pretrained": ("is_pretrained", "bool"),
    **{name: (name, COUNT) for name in ("labels", "dimensions", "train_images", "test_images")},
    "fit_seconds": ("fit_seconds", NUMBER),
    **{name: (name, WORD) for name in ("status", "error")},
}


class Unknown(Exception):
    """A name that no row of a leaderboard has; the message says which there are."""

    exit_code = 2


@dataclass(frozen=True)
class Leaderboard:
    """The rows of every table: datasets in the alphabet, in each the encoders that saw no label, then those that did,
    then those pretrained on other data.

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
                _check_known(kind, name, {one for row in self.rows for one in names_of(row)[kind]})
        rows = [
            row
            for row in self.rows
            if all(
                not names or not row_names or row_names & set(names) or (row.is_control and kind in ("encoder", "tap"))
                for kind, names in wanted.items()
                for row_names in [names_of(row)[kind]]
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
        return tables.leaderboard(self.rows, format, show=show, sort=self.sort, width=width, colour=colour)

    def to_pandas(self) -> "pd.DataFrame":
        """A row a cell of the tables, fractions in 0..1; the names of its columns are those of `Row`, one level deep.

        What fails stands there too, with its error and without a value.
        """
        import pandas as pd  # noqa: PLC0415 - slow to import

        found = {title: [getattr(row, name) for row in self.rows] for title, (name, _) in FRAME.items()}
        return pd.DataFrame({title: pd.Series(found[title], dtype=kind) for title, (_, kind) in FRAME.items()})

    def _repr_html_(self) -> str:
        """The tables as a notebook shows them."""
        return "\n".join(tables.html_elements(self.rows, sort=self.sort))


MAIN = ("linear", "knn", "svm", "sgd_linear", "mlp", "fewshot", "argmax")  # protocols that judge for their own sake


# ---- records to rows --------------------------------------------------------------------------------------------


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
    datasets: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in oldest_first:  # a run can fail before its data is known: it then stands with its namesakes
        name = dataset_name(record)
        datasets[name, record.fingerprint or known.get(name, "")].append(record)
    shown = told_apart({table: (table[0], {"data": table[1][:12]}) for table in datasets})
    sections = [
        (
            shown[table],
            [one for one in datasets[table] if apart(one) == saw and _about(one) == subject],
            [one for one in datasets[table] if saw == SAW_LABELS and _is_guest(one) and _about(one) == subject],
        )
        for table in sorted(datasets)
        for saw in ("", SAW_LABELS, PRETRAINED)
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
            recalls = filter(is_recall, scores) if RECALL in self.asked else ()
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
    labelled = any(apart(record) == SAW_LABELS for record in records)
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
        return str(architecture), as_json(built), record.provenance.precision

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
            np.array([otherwise(row) * MOVED / images for row in rows.values()]) if images else None,
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
    return subject_of(next(iter(record.metrics), None))


def _column_order(column: tuple[str, str]) -> tuple[str, int, str]:
    protocol, metric = column
    if is_recall(metric):
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
        further={name: value for name, value in means.items() if name != metric and not is_recall(name)},
        recalls=_recalls(means),
        keys=tuple(record.key for record in members),
        versions=tuple(record.protocol_version or 0 for record in members) if protocol else (),
        method=one.encoder,
        is_control=one.is_control,
        is_pretrained=one.is_pretrained,
        labels=one.labels if one.labels != "all" else one.train_images or None,
        dimensions=one.dimensions,
        fit_seconds=sum(fits) / len(fits) if fits else None,
        updates=min((record.updates for record in members), key=lambda moved: min(moved.values(), default=0)),
        limit=one.limit,
        split=one.split,
        train_images=one.train_images,
        test_images=one.test_images,
        device=agreed([one.device for one in made]),
        threads=agreed([one.threads for one in made]),
        precision=agreed([one.precision for one in made]),
        commit=agreed([one.commit and one.commit[:10] + (" with changes" if one.dirty else "") for one in made]),
        status=one.status,
        error=one.error,
        alarms=tuple({alarm.name: alarm.text for record in reversed(members) for alarm in record.alarms}.values()),
    )


def _recalls(scores: dict[str, float]) -> tuple[float | None, ...]:
    places = {int(name.removeprefix(f"{RECALL}_")): value for name, value in scores.items() if is_recall(name)}
    return tuple(places.get(place) for place in range(1 + max(places, default=-1)))


# ---- choosing rows ----------------------------------------------------------------------------------------------


def _check_known(kind: str, name: str, known: t.Collection[str]) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        there = f" (did you mean {close[0]!r}?)" if close else ""
        raise Unknown(f"no {kind} {name!r} in these results{there}; there are {', '.join(sorted(known)) or 'none'}")


def _sorted(rows: list[Row], by: str) -> list[Row]:
    """The lines of each section by a column, or by the first ones if it is not said; what failed stays last."""
    columns = {name: row for row in rows if row.protocol for name in (*names_of(row)["protocol"], row.metric or "")}
    if by:
        _check_known("column", by, {"encoder", "training", *columns})
    lines: dict[tuple[tuple[str, str, str], str, str], list[Row]] = defaultdict(list)
    for row in rows:
        lines[section_of(row), row.encoder, row.tap or f"failed: {row.error}"].append(row)
    sections = list(dict.fromkeys(section for section, *_ in lines))
    there: dict[tuple[str, str, str], set[int]] = defaultdict(set)  # the columns of each
    for row in rows:
        there[section_of(row)] |= {row.column} if row.column else set()

    def place(line: tuple[tuple[str, str, str], str, str]) -> tuple[t.Any, ...]:
        cells = lines[line]
        if by == "encoder":
            key: t.Any = line[1]
        elif by == "training":
            key = math.inf if cells[0].fit_seconds is None else cells[0].fit_seconds
        else:
            ranks = {row.column: _rank(row) for row in cells if not by or is_called(row, by)}
            key = [ranks.get(column, math.inf) for column in sorted(there[line[0]])]
        return sections.index(line[0]), cells[0].status == "failed", key

    return [row for line in sorted(lines, key=place) for row in lines[line]]
