"""Tables for a terminal, a pipe or a file."""

import io
import typing as t


def table(
    words: t.Sequence[str],
    header: t.Sequence[str],
    rows: t.Sequence[t.Sequence[str]],
    *,
    styles: t.Sequence[str] = (),
    width: int | None = None,
    colour: bool = False,
) -> str:
    """Rows of cells under a header, folded to `width` columns (None: as wide as it must be). `words` stand left."""
    import rich.box  # noqa: PLC0415 - slow to import
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    grid = Table(box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in header:
        grid.add_column(Text(name, "bold"), justify="left" if name in words else "right", overflow="fold")
    for place, row in enumerate(rows):
        grid.add_row(*(Text(cell) for cell in row), style=styles[place] if styles else "")
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


def markdown(words: t.Sequence[str], header: t.Sequence[str], rows: t.Sequence[t.Sequence[str]]) -> str:
    """The same in Markdown."""

    def escape(cell: str) -> str:
        return "".join(f"\\{one}" if one in "\\`*_[]<>|~#" else one for one in cell)

    rule = ["---" if name in words else "---:" for name in header]
    lines = [map(escape, header), rule, *(map(escape, row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
