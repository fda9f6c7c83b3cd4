"""What a person and a file are told of the measurements."""

import dataclasses
import typing as t

from bench.speed.race import Rates, Row
from results import tables

WORDS = ("section", "case", "alternative", "remark")
HEADER = (
    "section", "case", "ours s", "a second", "alternative", "theirs s", "ratio", "limit s", "of limit", "accuracy",
    "theirs", "MiB", "remark",
)  # fmt: skip


def report(at: Rates, rows: t.Sequence[Row]) -> dict[str, t.Any]:
    """Plain data: seconds, bytes, fractions."""
    made = {"device": str(at).partition(",")[0], "threads": at.threads, "flops": at.products, "memory": at.memory}
    return {"machine": made, "rows": [dataclasses.asdict(row) for row in rows]}


def table(rows: t.Sequence[Row], *, width: int | None = None, colour: bool = False) -> str:
    """The rows as text, folded to `width` columns (None, for pipes and files: as wide as it must be)."""
    styles = ["31" if row.failed else "" for row in rows]
    return tables.table(WORDS, HEADER, [_cells(row) for row in rows], styles=styles, width=width, colour=colour)


def _cells(row: Row) -> list[str]:
    rate = row.images / row.ours if row.images and row.ours else None
    ratio = row.theirs / row.ours if row.theirs and row.ours else None
    share = row.limit / row.ours if row.limit and row.ours else None
    return [
        row.section, row.case, _cell(row.ours, ".3g"), _cell(rate, ",.0f"), row.alternative, _cell(row.theirs, ".3g"),
        _cell(ratio, ".2f"), _cell(row.limit, ".3g"), _cell(share, ".0%"), _cell(row.our_accuracy, ".2%"),
        _cell(row.their_accuracy, ".2%"), _cell(None if row.added_bytes is None else row.added_bytes / 2**20, ",.0f"),
        row.remark,
    ]  # fmt: skip


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
