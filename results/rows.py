"""The rows of a leaderboard and the tables that they make, as data: whatever prints them reads this structure."""

import functools
import typing as t
from collections import Counter, defaultdict
from dataclasses import dataclass, field, fields

from results.identity import DatasetKey, EncoderKey, ProtocolKey
from results.metrics import METRICS, RECALL
from results.record import Json, Record

SEVERAL = "several"  # stands where the runs behind a row or a table disagree


class Column(t.NamedTuple):
    """What a table compares rows by."""

    protocol: ProtocolKey
    metric: str

    @property
    def is_fraction(self) -> bool:
        return self.metric not in METRICS

    @property
    def higher_is_better(self) -> bool:
        return self.is_fraction or METRICS[self.metric].higher_is_better


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tap of one encoder judged by one protocol, over its seeds; or an encoder that failed, over those that did."""

    dataset: str  # with limit and split; of namesakes with the data's fingerprint
    encoder: str  # the suite's label; of namesakes with the settings in which they differ
    tap: str | None
    protocol: str | None  # label@version; of namesakes with the settings in which they differ
    settings: dict[str, Json] | None  # all of the protocol's, with its name and a plugin's code
    metric: str | None
    column: int | None = None  # its place in the table, from 1; column 1 orders the rows
    mean: float | None  # like `low`, `high` and `values` a fraction in 0..1, unless the metric is one of METRICS
    low: float | None = None  # the 95 % interval of the mean, over what `interval_over` says
    high: float | None = None
    interval_over: str | None = None  # "seeds and images", "images" or "seeds"; "images": of these trained models
    rank_low: int | None = None  # the best rank in its table and protocol, 1 being the best; None: nothing is known
    rank_high: int | None = None
    tie: int | None = None  # 1: no row is significantly better; 2: none but those of 1; and so on
    difference: float | None = None  # the mean minus the best one; above 0 is better only where lower is better
    difference_low: float | None = None  # its interval, simultaneous with all others of the column (95 %)
    difference_high: float | None = None
    may_be_best: bool | None = None  # no row of its column is significantly better
    untrained: str | None = None  # the encoder that is its own network before training
    over_untrained: float | None = None  # the mean minus that of the same tap there; its sign is as of `difference`
    over_untrained_low: float | None = None  # its interval, which leaves out 0 exactly if p is at most 0.05
    over_untrained_high: float | None = None
    over_untrained_p: float | None = None  # corrected for all such differences of the column (Holm)
    borrowed_from: int = 0  # rows whose variances over seeds moderate its own; 0: none
    seeds: int
    of_seeds: int  # that its table has
    values: tuple[float, ...]  # one a seed, in the order of the seeds
    further: dict[str, float]  # means over seeds of the metrics shown on request, as far as every seed has them
    recalls: tuple[float | None, ...]  # by class, means over seeds; None for a class without test images; () if unknown
    keys: tuple[str, ...]  # of the runs, in the order of the seeds
    versions: tuple[int, ...]  # of the protocol, in the order of the seeds: all of one definition
    method: str
    is_control: bool  # a baseline for learned encoders
    is_pretrained: bool  # before, on other data
    labels: int | None  # of the training images that it saw; None: all of those that a failed run did not count
    dimensions: int | None
    fit_seconds: float | None  # mean over seeds
    updates: dict[str, int]  # by player, in the seed that had the fewest; older records have none
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
    dataset_key: DatasetKey = field(repr=False)  # this and what follows is not written to files
    encoder_key: EncoderKey = field(repr=False)
    protocol_key: ProtocolKey | None = field(repr=False)
    records: tuple[Record, ...] = field(repr=False, compare=False)  # its own, one a seed, in the order of the seeds

    @property
    def at(self) -> Column | None:
        return Column(self.protocol_key, self.metric) if self.protocol_key and self.metric else None

    @property
    def full_name(self) -> str:
        return f"{self.encoder} · {self.tap}"

    def plain(self) -> dict[str, Json]:
        """The row as files have it; they say `control` for `is_control`."""
        values = (getattr(self, name) for name in FIELDS)
        return dict(zip(COLUMNS, (list(one) if isinstance(one, tuple) else one for one in values)))


FIELDS = [one.name for one in fields(Row) if one.repr]
COLUMNS = [name.removeprefix("is_") for name in FIELDS]  # of csv and json


# ---- the tables they make ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One tap of one encoder in the columns of its table."""

    cells: dict[Column, Row]
    is_best_tap: bool  # of its encoder

    @property
    def rows(self) -> list[Row]:
        return list(self.cells.values())

    @functools.cached_property
    def one(self) -> Row:
        """The row of the most seeds."""
        return max(self.rows, key=lambda row: row.seeds)


@dataclass(frozen=True)
class Section:
    """The rows of one table: of one dataset and one subject, by encoders that saw as much beside the images."""

    dataset: str
    saw: str  # what encoders saw beside the images: "", SAW_LABELS or PRETRAINED
    subject: str  # "": features, of which all other metrics tell something
    lines: list[Line]
    failures: list[Row]
    columns: list[Column]

    @property
    def labelled(self) -> bool:
        return self.saw == SAW_LABELS

    @property
    def rows(self) -> list[Row]:
        return [*(row for line in self.lines for row in line.rows), *self.failures]

    @property
    def of_fractions(self) -> bool:
        return all(column.is_fraction for column in self.columns)

    def at(self, column: Column) -> list[Row]:
        """The rows of a column, in the order of the lines."""
        return [line.cells[column] for line in self.lines if column in line.cells]


SAW_LABELS, PRETRAINED = "encoders that saw labels", "pretrained on other data"


def beside_images(one: Row | Record) -> str:
    """What an encoder saw beside the dataset's images, for which it has a table of its own; "" if nothing."""
    return PRETRAINED if one.is_pretrained else SAW_LABELS if one.labels != 0 else ""


def sections(rows: t.Iterable[Row]) -> list[Section]:
    """The tables of a leaderboard's rows, all in the rows' own order."""
    groups: dict[tuple[DatasetKey, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.dataset_key, beside_images(row), subject_of(row.metric)].append(row)
    made = []
    for (_, saw, subject), members in groups.items():
        taps: dict[tuple[EncoderKey, str | None], dict[Column, Row]] = defaultdict(dict)
        columns: dict[Column, int] = {}
        for row in members:
            if row.at:
                taps[row.encoder_key, row.tap][row.at] = row
                columns[row.at] = row.column or 0
        best = dict(reversed(taps))  # the first tap of each encoder
        lines = [Line(cells, best[encoder] == tap) for (encoder, tap), cells in taps.items()]
        failures = [row for row in members if not row.at]
        ordered = sorted(columns, key=columns.__getitem__)
        made.append(Section(members[0].dataset, saw, subject, lines, failures, ordered))
    return made


SETTINGS = {  # of a protocol, that say what its numbers are
    "cluster": ("method",), "fewshot": ("labels", "head"), "generative": ("samples",), "knn": ("k", "metric"),
    "robustness": ("probe",), "two_sample": ("samples",),
}  # fmt: skip


def headings(protocols: t.Mapping[ProtocolKey, tuple[str, dict[str, Json]]]) -> dict[ProtocolKey, str]:
    """{protocol: what heads its columns}, from {protocol: (its full name, its settings)}.

    'knn (k=5, cosine)': its label and the settings that matter. Its version stands in the caption; where two would
    have the same heading, it is the full name.
    """
    found = {}
    for key, (_, settings) in protocols.items():
        shown = [(name, settings[name]) for name in SETTINGS.get(settings["protocol"], ()) if name in settings]
        words = ", ".join(value if isinstance(value, str) else f"{name}={value}" for name, value in shown)
        found[key] = key.label + (f" ({words})" if words else "")
    often = Counter(found.values())
    return {key: heading if often[heading] == 1 else protocols[key][0] for key, heading in found.items()}


def headings_of(rows: t.Iterable[Row]) -> dict[ProtocolKey, str]:
    return headings({row.protocol_key: (row.protocol or "", row.settings or {}) for row in rows if row.protocol_key})


# ---- what rows go by --------------------------------------------------------------------------------------------


def subject_of(metric: str | None) -> str:
    return METRICS[metric].of if metric in METRICS else ""


def names_of(row: Row) -> dict[str, set[str]]:
    """What a row goes by; of a run that failed, neither a tap nor a protocol."""
    key = row.protocol_key
    return {
        "encoder": {row.encoder, row.encoder_key.label, row.method},
        "tap": {row.tap} if row.tap else set(),
        "protocol": {row.protocol or "", key.name, key.label} if key else set(),
        "dataset": {row.dataset, row.dataset_key.name, data_of(row)},
    }


def data_of(row: Row) -> str:
    """The dataset, whatever its size, limit and split."""
    one = row.records[0]
    return f"{one.dataset} from {one.pretrain}" if one.pretrain else one.dataset


def is_called(row: Row, column: str) -> bool:
    return column == row.metric or column in names_of(row)["protocol"]


def is_recall(metric: str) -> bool:
    return metric.startswith(f"{RECALL}_")


def kind_of(metric: str) -> str:
    return RECALL if is_recall(metric) else metric


def other_versions(row: Row) -> list[int]:
    """The versions by which some of its seeds were judged that are not the one its column is named by."""
    return [version for version in row.versions if row.protocol_key and version != row.protocol_key.version]


def agreed(values: t.Sequence[t.Any]) -> t.Any:
    """The value that all have, or SEVERAL."""
    return values[0] if len(set(values)) == 1 else SEVERAL
