"""A row of a leaderboard, and what it goes by."""

import dataclasses
import typing as t
from dataclasses import dataclass

from results.metrics import METRICS, RECALL
from results.record import Json, Record

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
    is_pretrained: bool  # before, on other data
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


def subject_of(metric: str | None) -> str:
    return METRICS[metric].of if metric in METRICS else ""


SAW_LABELS, PRETRAINED = "encoders that saw labels", "pretrained on other data"


def apart(one: Row | Record) -> str:
    """Why an encoder stands in a section of its own: what it saw beside the images; "" if nothing."""
    return PRETRAINED if one.is_pretrained else SAW_LABELS if one.labels != 0 else ""


def section_of(row: Row) -> tuple[str, str, str]:
    """The rows of one table agree in this."""
    return row.dataset, apart(row), subject_of(row.metric)


def names_of(row: Row) -> dict[str, set[str]]:
    """What a row goes by; of a run that failed, neither a tap nor a protocol."""
    return {
        "encoder": {row.encoder, row.encoder.partition(" (")[0], row.method},
        "tap": {row.tap} if row.tap else set(),
        "protocol": {row.protocol, row.protocol.partition(" (")[0], row.protocol.partition("@")[0]}
        if row.protocol
        else set(),
        "dataset": {row.dataset, row.dataset.partition(" (")[0]},
    }


def is_called(row: Row, column: str) -> bool:
    return column == row.metric or column in names_of(row)["protocol"]


def is_recall(metric: str) -> bool:
    return metric.startswith(f"{RECALL}_")


def kind_of(metric: str) -> str:
    return RECALL if is_recall(metric) else metric


def otherwise(row: Row) -> float:
    """The share of its seeds that were judged by another version of the definition than its column is named by."""
    return sum(not (row.protocol or "").partition(" (")[0].endswith(f"@{one}") for one in row.versions) / row.seeds


def agreed(values: t.Sequence[t.Any]) -> t.Any:
    """The value that all have, or SEVERAL."""
    return values[0] if len(set(values)) == 1 else SEVERAL
