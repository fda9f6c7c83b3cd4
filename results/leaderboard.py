"""Records to ranked tables. A pure function of the records, in whatever order they come.

What cannot be compared never shares a table (other data, another limit or split; encoders that saw labels have a
section of their own), a column (another definition or other settings of a protocol) or a row (other parameters of an
encoder, even under the same label). Versions of one definition go by the newest of them.

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
from results.identity import (
    DatasetKey,
    EncoderKey,
    ProtocolKey,
    as_json,
    dataset_name,
    disambiguate,
    encoder_facts,
    encoder_key,
    protocol_facts,
    protocol_key,
)
from results.metrics import GEOMETRY, METRICS, RECALL, SAMPLES, bounds, is_beside
from results.predictions import Predictions
from results.record import Definitions, Json, Plan, Record
from results.rows import (
    PRETRAINED,
    SAW_LABELS,
    Column,
    Row,
    agreed,
    beside_images,
    is_called,
    is_recall,
    names_of,
    other_versions,
    sections,
    subject_of,
)
from results.statistics import Answers, Correct, Scores, contrasts, deviation, mean, ranking
from results.store import Contents
from results.tables import BUDGET, Format, Show

if t.TYPE_CHECKING:
    import pandas as pd

Cell = tuple[EncoderKey, str, Column]  # the encoder and its tap
Variance = t.Literal["borrowed", "own"]
Read = t.Callable[[Record], Correct | None]  # the answers of a record, see `predictions.answers`
ReadClasses = t.Callable[[Record], Predictions | None]  # its predictions, see `predictions.classes`
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
        return tables.notebook(self.rows, sort=self.sort)


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
    named = [(dataset_name(record), record) for record in oldest_first]
    known = {name: record.fingerprint for name, record in named if record.fingerprint}
    groups: dict[DatasetKey, dict[tuple[str, str], list[Record]]] = defaultdict(lambda: defaultdict(list))
    for name, record in named:  # a run can fail before its data is known: it then stands with its namesakes
        key = DatasetKey(name, record.fingerprint or known.get(name, ""))
        groups[key][beside_images(record), _about(record)].append(record)
    names = disambiguate({key: (key.name, {"data": key.fingerprint[:12]}) for key in groups})
    further = _Further(classes, metrics)
    rows = []
    for key in sorted(groups):
        for saw in ("", SAW_LABELS, PRETRAINED):
            for subject in ("", SAMPLES, GEOMETRY):
                members = groups[key][saw, subject]
                guests = [one for one in groups[key]["", subject] if saw == SAW_LABELS and _is_guest(one)]
                if members:
                    section = _Section(key, names[key], members, guests)
                    rows += _ranked(section, order, by_suite, answers, variance, further)
    for metric in metrics:
        _check_known("metric", metric, further.seen | ({RECALL} if "recall_0" in further.seen else set()))
    return Leaderboard(rows)


class _Further:
    """The scores of records: their own, and what their predictions give beside."""

    def __init__(self, classes: ReadClasses, asked: t.Collection[str]) -> None:
        self.classes, self.asked = classes, asked
        self.seen: set[str] = set()
        self.known: dict[int, dict[str, float]] = {}

    def scores(self, record: Record) -> dict[str, float]:
        if id(record) not in self.known:
            predicted = self.classes(record)
            self.known[id(record)] = record.metrics | (by_class.scores(predicted) if predicted else {})
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


class _Section(t.NamedTuple):
    """The records of one table, oldest first."""

    key: DatasetKey
    name: str
    records: list[Record]
    guests: list[Record]  # no rows of it: their rows' scores are only subtracted


def _is_guest(record: Record) -> bool:
    """Whether encoders that saw labels are compared with it though it saw none: it may be one's own control."""
    return record.is_control and record.status == "done"


def _ranked(
    section: _Section,
    order: dict[str, int],
    by_suite: t.Mapping[str, Plan],
    answers: Read,
    variance: Variance,
    further: _Further,
) -> list[Row]:
    """The rows of one table."""
    everyone = [*section.records, *section.guests]
    named = Definitions(by_suite.values()).newest(everyone)
    keys = [encoder_key(name) for name in named]
    examples = dict(zip(keys, named))
    encoders = disambiguate({key: (one.label, encoder_facts(one)) for key, one in examples.items()})
    done = [
        (key, protocol_key(name), one)
        for key, name, one in zip(keys, named, everyone)
        if one.status == "done" and one.metrics
    ]
    judged = {protocol: one for _, protocol, one in done}
    protocols = disambiguate({key: (key.name, protocol_facts(one)) for key, one in judged.items()})
    cells: dict[Cell, list[Record]] = defaultdict(list)
    for key, protocol, record in done:
        for metric in further.shown(record):
            cells[key, record.tap or "", Column(protocol, metric)].append(record)
    failed = [(key, one) for key, one in zip(keys, everyone) if one.status == "failed"]
    succeeded = {(key, one.seed): one.provenance.started for key, _, one in done if failed}  # the newest, being sorted
    succeeded_as = {(one.label, one.seed): one.provenance.started for *_, one in done if failed}
    failures: dict[tuple[EncoderKey, str], list[Record]] = defaultdict(list)
    for key, one in failed:
        is_asked = by_suite[one.suite].asks_for(one) if one.suite in by_suite else None
        mended = succeeded.get((key, one.seed), "") if is_asked else succeeded_as.get((one.label, one.seed), "")
        if is_asked is not False and mended <= one.provenance.started:
            failures[key, one.error or ""].append(one)

    of_seeds = len({record.seed for record in section.records})
    controls = _controls(list(zip(keys, everyone)), by_suite)

    def row(encoder: EncoderKey, protocol: ProtocolKey | None, metric: str | None, members: list[Record]) -> Row:
        names = encoders[encoder], protocols[protocol] if protocol else None
        return _row(section, (encoder, protocol), names, metric, of_seeds, members, further)

    scored = {cell: row(cell[0], *cell[2], members) for cell, members in cells.items()}
    main = {name: place for place, name in enumerate(MAIN)}
    labelled = any(beside_images(record) == SAW_LABELS for record in section.records)
    places = {
        key: (
            labelled and one.protocol not in BUDGET,
            order.get(key.label, len(order)),
            main.get(one.protocol or "", len(main)),
            protocols[key],
        )
        for key, one in judged.items()
    }
    wanted = {name: place for place, name in enumerate(further.asked)}
    visitors = set(keys[len(section.records) :])
    columns = sorted(
        {column for encoder, _, column in cells if encoder not in visitors},
        key=lambda column: (
            places[column.protocol][:-1],
            wanted.get(column.metric, len(wanted)),
            places[column.protocol][-1],
            _place(column.metric),
        ),
    )
    lines = sorted(  # before they are compared: of equal rows the first is the best
        {cell[:2] for cell in cells if cell[0] not in visitors},
        key=lambda line: ([_rank(scored.get((*line, column))) for column in columns], encoders[line[0]], line[1]),
    )
    for place, column in enumerate(columns, 1):
        hosts = {cell: scored[cell] for line in lines if (cell := (*line, column)) in scored}
        guests = {cell: row for cell, row in scored.items() if cell[0] in visitors and cell[2] == column}
        compared = _compared(hosts, guests, answers, variance, controls, further.classes)
        for cell, results in compared.items():
            own = encoders[controls[cell[0]]] if cell[0] in controls else None
            scored[cell] = dataclasses.replace(scored[cell], column=place, untrained=own, **results)
    last = sorted(failures, key=lambda failure: (encoders[failure[0]], failure[1]))
    return [
        *(scored[cell] for line in lines for column in columns if (cell := (*line, column)) in scored),
        *(row(failure[0], None, None, failures[failure]) for failure in last),
    ]


def _controls(encoded: list[tuple[EncoderKey, Record]], by_suite: t.Mapping[str, Plan]) -> dict[EncoderKey, EncoderKey]:
    """{encoder: the one that is its own untrained network}: as its suite has it, or with its parameters but epochs."""

    def body(architecture: Json, params: Json, record: Record) -> tuple[str, str, str]:
        built = {name: value for name, value in params.items() if name != "epochs"}
        return str(architecture), as_json(built), record.provenance.precision

    by_label: dict[tuple[str, str], EncoderKey] = {}
    by_body: dict[tuple[str, str, str], EncoderKey] = {}
    for key, record in encoded:
        if record.is_control:
            by_label[record.label, record.provenance.precision] = key
            if isinstance(record.params.get("parameters"), dict):
                by_body[body(record.params.get("architecture"), record.params["parameters"], record)] = key
    found = {}
    for key, record in encoded if by_label else ():
        label = by_suite[record.suite].control_of.get(record.label) if record.suite in by_suite else None
        own = by_label.get((label or "", record.provenance.precision))
        if not own and by_body:
            own = by_body.get(body(record.encoder, record.params, record))
        if own and not record.is_control:
            found[key] = own
    return found


def _compared(
    column: dict[Cell, Row],
    guests: dict[Cell, Row],
    answers: Read,
    variance: Variance,
    controls: t.Mapping[EncoderKey, EncoderKey],
    classes: ReadClasses,
) -> dict[Cell, dict[str, t.Any]]:
    """What the rows of a table say of each other under one protocol: fields of each, intervals and ranks among them.

    Guests have a part in the differences over their own controls alone.
    """
    one = next(iter(column.values()))
    metric = one.metric or ""
    better = -1 if metric in METRICS and not METRICS[metric].higher_is_better else 1
    counts_classes = by_class.is_by_class(metric)
    images = one.test_images if metric in SHARES or counts_classes else None

    def scores_of(rows: t.Collection[Row]) -> Scores:
        sampled = [row.seeds > (1 if images is None or variance == "own" else 2) for row in rows]
        answered = None
        if counts_classes:
            answered = by_class.answers(metric, [[classes(record) for record in row.records] for row in rows])
        elif metric == "top1" and variance == "borrowed":
            answered = _answers(rows, one.test_images, answers)
        return Scores(
            better * np.array([row.mean for row in rows], np.float64),
            np.array([deviation(row.values) if many else 0.0 for row, many in zip(rows, sampled)]),
            np.array([row.seeds if many else 1 for row, many in zip(rows, sampled)]),
            images,
            answered,
            np.array([len(other_versions(row)) / row.seeds * MOVED / images for row in rows]) if images else None,
            borrows=variance == "borrowed",
        )

    scores = scores_of(column.values())
    found, (below, above) = ranking(scores), scores.reach(0.95)
    least, highest = bounds(metric)
    # of geometry nothing is best, and what stands beside a protocol's first metric is not what rows are ranked by
    ranked = METRICS[metric].of != GEOMETRY if metric in METRICS else not is_beside(metric)
    widest = highest - least
    over = {cell: (controls[cell[0]], *cell[1:]) for cell in column if cell[0] in controls}
    over = {cell: own for cell, own in over.items() if own in column or own in guests} if ranked else {}
    visiting = {own: guests[own] for own in over.values() if own in guests}
    places = {cell: place for place, cell in enumerate((*column, *visiting))}
    first, second = (np.array([places[cell] for cell in cells], np.int64) for cells in (over, over.values()))
    contrast = contrasts(scores_of((column | visiting).values()) if visiting else scores, first, second)
    compared: dict[Cell, dict[str, t.Any]] = {}
    for place, (cell, row) in enumerate(column.items()):
        about = [name for name, known in (("seeds", scores.seeds[place] > 1), ("images", images is not None)) if known]
        results = compared[cell] = {"borrowed_from": scores.prior.rows if scores.seeds[place] > 1 else 0}
        if about:
            reach = sorted((-better * float(below[place]), better * float(above[place])))
            middle = row.mean or 0.0
            results |= {"low": max(least, middle + reach[0]), "high": min(highest, middle + reach[1])}
            results |= {"interval_over": " and ".join(about)}
        if ranked:
            ends = sorted(better * float(end[place]) for end in (found.difference_low, found.difference_high))
            low, high = (min(max(end, -widest), widest) for end in ends)
            results |= {"difference": better * float(found.difference[place])}
            results |= {"difference_low": low} if math.isfinite(low) else {}
            results |= {"difference_high": high} if math.isfinite(high) else {}
        if about and ranked:
            results |= {"rank_low": int(found.low[place]), "rank_high": int(found.high[place])}
            results |= {"tie": int(found.tie[place]), "may_be_best": bool(found.may_be_best[place])}
    for place, cell in enumerate(over):
        middle, half = better * float(contrast.difference[place]), float(contrast.half[place])
        compared[cell] |= {"over_untrained": middle}
        if math.isfinite(half):
            low, high = max(middle - half, -widest), min(middle + half, widest)
            compared[cell] |= {"over_untrained_low": low, "over_untrained_high": high}
            compared[cell] |= {"over_untrained_p": float(contrast.p[place])}
    return compared


def _answers(rows: t.Iterable[Row], images: int, answers: Read) -> Answers | None:
    """The answers of rows whose every seed has them; None if there are none."""
    correct: list[Correct | None] = []
    for row in rows:
        answered = [answers(record) for record in row.records]
        whole = [one for one in answered if one is not None and len(one) == images]
        correct.append(np.stack(whole) if len(whole) == len(answered) else None)
    return Answers.of(correct, images) if any(one is not None for one in correct) else None


def _about(record: Record) -> str:
    """What a record's metrics are of, where they are no fractions."""
    return subject_of(next(iter(record.metrics), None))


def _place(metric: str) -> tuple[int, str]:
    """Where a metric stands among those of its protocol."""
    if is_recall(metric):
        return int(metric.removeprefix(f"{RECALL}_")), metric
    return list(METRICS).index(metric) if metric in METRICS else is_beside(metric), metric


def _rank(row: Row | None) -> float:
    """Smaller is better; what is missing comes last."""
    if row is None or row.mean is None:
        return math.inf
    return row.mean if row.metric in METRICS and not METRICS[row.metric].higher_is_better else -row.mean


def _row(
    section: _Section,
    keys: tuple[EncoderKey, ProtocolKey | None],
    names: tuple[str, str | None],
    metric: str | None,
    of_seeds: int,
    records: list[Record],
    further: _Further,
) -> Row:
    """One row from records, oldest first, that differ in their seeds only; or that failed with the same error.

    A seed counts once, in its newest record. Intervals and ranks are those of the row's column, see `_compared`.
    """
    newest = {record.seed: record for record in records}
    members = [newest[seed] for seed in sorted(newest)]
    one, provenances = members[0], [record.provenance for record in members]
    scores = [further.scores(record) for record in members]
    values = tuple(score[metric] for score in scores) if metric else ()
    means = {name: mean([score[name] for score in scores]) for name in scores[0] if all(name in one for one in scores)}
    fits = [record.seconds["fit"] for record in members if "fit" in record.seconds]
    return Row(
        dataset=section.name,
        encoder=names[0],
        tap=one.tap,
        protocol=names[1],
        settings=protocol_facts(one) if metric else None,
        metric=metric,
        mean=mean(values) if values else None,
        seeds=len(members),
        of_seeds=of_seeds,
        values=values,
        further={name: value for name, value in means.items() if name != metric and not is_recall(name)},
        recalls=_recalls(means),
        keys=tuple(record.key for record in members),
        versions=tuple(record.protocol_version or 0 for record in members) if metric else (),
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
        device=agreed([one.device for one in provenances]),
        threads=agreed([one.threads for one in provenances]),
        precision=agreed([one.precision for one in provenances]),
        commit=agreed([one.commit and one.commit[:10] + (" with changes" if one.dirty else "") for one in provenances]),
        status=one.status,
        error=one.error,
        alarms=tuple({alarm.name: alarm.text for record in reversed(members) for alarm in record.alarms}.values()),
        dataset_key=section.key,
        encoder_key=keys[0],
        protocol_key=keys[1],
        records=tuple(members),
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
    if by:
        columns = {name for row in rows if row.protocol for name in (*names_of(row)["protocol"], row.metric or "")}
        _check_known("column", by, {"encoder", "training", *columns})

    def place(cells: list[Row], columns: list[Column]) -> t.Any:
        one = cells[0]
        if by == "encoder":
            return one.encoder
        if by == "training":
            return math.inf if one.fit_seconds is None else one.fit_seconds
        ranks = {row.at: _rank(row) for row in cells if not by or is_called(row, by)}
        return [ranks.get(column, math.inf) for column in columns]

    ordered: list[Row] = []
    for section in sections(rows):
        for line in sorted(section.lines, key=lambda line: place(line.rows, section.columns)):
            ordered += line.rows
        ordered += sorted(section.failures, key=lambda row: place([row], section.columns))
    return ordered
