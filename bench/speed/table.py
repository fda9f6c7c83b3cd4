"""What a person and a file are told of the measurements."""

import dataclasses
import io
import typing as t

from bench.speed.race import Rates, Row


def report(at: Rates, rows: t.Sequence[Row]) -> dict[str, t.Any]:
    """Plain data: seconds, bytes, fractions."""
    made = {"device": str(at).partition(",")[0], "threads": at.threads, "flops": at.products, "memory": at.memory}
    return {"machine": made, "rows": [dataclasses.asdict(row) for row in rows]}


def table(rows: t.Sequence[Row], *, width: int | None = None, colour: bool = False) -> str:
    """The rows as text, folded to `width` columns (None, for pipes and files: as wide as it must be)."""
    import rich.box  # noqa: PLC0415 - slow to import
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    grid = Table(box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    words = ("section", "case", "alternative", "remark")
    for name in (
        "section", "case", "ours s", "a second", "alternative", "theirs s", "ratio", "limit s", "of limit", "accuracy",
        "theirs", "MiB", "remark",
    ):  # fmt: skip
        grid.add_column(Text(name, "bold"), justify="left" if name in words else "right", overflow="fold")
    for row in rows:
        rate = row.images / row.ours if row.images and row.ours else None
        ratio = row.theirs / row.ours if row.theirs and row.ours else None
        share = row.limit / row.ours if row.limit and row.ours else None
        cells = [
            row.section, row.case, _cell(row.ours, ".3g"), _cell(rate, ",.0f"), row.alternative,
            _cell(row.theirs, ".3g"), _cell(ratio, ".2f"), _cell(row.limit, ".3g"), _cell(share, ".0%"),
            _cell(row.our_accuracy, ".2%"), _cell(row.their_accuracy, ".2%"),
            _cell(None if row.added_bytes is None else row.added_bytes / 2**20, ",.0f"), row.remark,
        ]  # fmt: skip
        grid.add_row(*(Text(cell) for cell in cells), style="red" if row.failed else "")
    console = Console(
        file=io.StringIO(),
        width=width or 10_000,
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
    )
    console.print(grid)
    printed = t.cast(io.StringIO, console.file).getvalue()
    return "\n".join(line.rstrip() for line in printed.splitlines()) + "\n"


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
