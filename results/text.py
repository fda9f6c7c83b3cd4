"""Tables as text: for a terminal, a pipe or a file, in every format that leaderboards come in."""

import html
import io
import json
import re
import textwrap
import typing as t
from dataclasses import dataclass

from results.record import Json
from results.redaction import printable

Format = t.Literal["table", "markdown", "csv", "latex", "html", "json"]
FORMATS: dict[Format, str] = {  # to what the names of such files end in
    "table": "txt",
    "markdown": "md",
    "csv": "csv",
    "latex": "tex",
    "html": "html",
    "json": "json",
}


@dataclass(frozen=True)
class Table:
    """Rows as people read them, and the same rows as data."""

    title: str
    words: t.Sequence[str]  # of the header, those that stand left
    header: t.Sequence[str]
    rows: t.Sequence[t.Sequence[str]]
    legend: str
    plain: t.Sequence[dict[str, Json]]  # for csv and json


def render(
    tables: t.Sequence[Table],
    format: Format,
    *,
    columns: t.Sequence[str],  # that `plain` has
    empty: str,  # a sentence in place of no table
    width: int | None = None,
    colour: bool = False,
) -> str:
    """The tables one below the other, as text that ends with a newline; of `csv` and `json` all rows in one list."""
    plain = [row for one in tables for row in one.plain]
    if format == "json":
        return to_json(plain)
    if format == "csv":
        return to_csv(plain, columns)
    if format == "markdown":
        return "\n".join(map(_markdown, tables)) or f"{empty}\n"
    if format == "latex":
        return "\n".join([LATEX_NEEDS, *map(_latex, tables)]) if tables else f"% {empty}\n"
    if format == "html":
        return page(tables[0].title if tables else "Nothing", map(_html, tables) if tables else [paragraph(empty)])
    return "\n".join(_terminal(one, width, colour) for one in tables) or f"{empty}\n"


# ---- for people -------------------------------------------------------------------------------------------------


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
        grid.add_column(Text(printable(name), "bold"), justify="left" if name in words else "right", overflow="fold")
    for place, row in enumerate(rows):
        grid.add_row(*(Text(printable(cell)) for cell in row), style=styles[place] if styles else "")
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


def _terminal(one: Table, width: int | None, colour: bool) -> str:
    legend = textwrap.fill(printable(one.legend), min(width or 100, 100), break_on_hyphens=False)
    grid = table(one.words, one.header, one.rows, width=width, colour=colour)
    return f"{printable(one.title)}\n{grid}\n{legend}\n"


def markdown(words: t.Sequence[str], header: t.Sequence[str], rows: t.Sequence[t.Sequence[str]]) -> str:
    """The same in Markdown."""
    rule = ["---" if name in words else "---:" for name in header]
    lines = [map(escape_markdown, header), rule, *(map(escape_markdown, row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def escape_markdown(text: str) -> str:
    return "".join(f"\\{one}" if one in "\\`*_[]<>|~#" else one for one in text)


def _markdown(one: Table) -> str:
    grid = markdown(one.words, one.header, one.rows)
    return f"**{escape_markdown(one.title)}**\n\n{grid}\n{escape_markdown(one.legend)}\n"


# ---- for documents ----------------------------------------------------------------------------------------------

LATEX_NEEDS = r"% needs \usepackage{booktabs,adjustbox} and, for \textquotedbl, \usepackage[T1]{fontenc}"
_LATEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    **{one: f"\\{one}" for one in "{}$&#_%"},
}


def escape_latex(text: str) -> str:
    return "".join(_LATEX.get(one, one) for one in text)


def latex(
    name: str,
    caption: str,
    sides: str,
    header: t.Sequence[str],
    rows: t.Iterable[t.Sequence[str]],
    legend: str,
) -> str:
    """A float of rows that are escaped already, made smaller where it is larger than a page; `name` is in its label."""
    lines = [
        r"\begin{table}", r"\centering", rf"\caption{{{escape_latex(caption)}}}",
        rf"\label{{tab:{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}}}",
        r"\begin{adjustbox}{max width=\linewidth, max totalheight=0.8\textheight}", rf"\begin{{tabular}}{{{sides}}}",
        r"\toprule", " & ".join(map(escape_latex, header)) + r" \\", r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows), r"\bottomrule", r"\end{tabular}", r"\end{adjustbox}",
        rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {escape_latex(legend)}}}", r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _latex(one: Table) -> str:
    sides = "".join("l" if name in one.words else "r" for name in one.header)
    return latex(one.title, one.title, sides, one.header, [[*map(escape_latex, row)] for row in one.rows], one.legend)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.4 system-ui, sans-serif; margin: 2rem; overflow-x: auto; }
table { border-collapse: collapse; margin-bottom: 2rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: bold; padding-bottom: .5rem; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #8884; }
.word { text-align: left; }
tbody th { font-weight: normal; }
</style>
</head>
<body>
CONTENT
</body>
</html>
"""


def page(title: str, content: t.Iterable[str]) -> str:
    """An HTML page of these elements."""
    return _PAGE.replace("TITLE", html.escape(title)).replace("CONTENT", "\n".join(content))


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _html(one: Table) -> str:
    def line(cells: t.Sequence[str], tags: t.Iterable[str]) -> str:
        written = (
            f"<{tag}{' class=word' if name in one.words else ''}>{html.escape(cell)}</{tag[:2]}>"
            for cell, tag, name in zip(cells, tags, one.header)
        )
        return f"<tr>{''.join(written)}</tr>"

    head = line(one.header, ['th scope="col"'] * len(one.header))
    body = [line(row, ['th scope="row"', *["td"] * (len(row) - 1)]) for row in one.rows]
    lines = ["<table>", f"<caption>{html.escape(one.title)}</caption>", f"<thead>{head}</thead>", "<tbody>", *body]
    return "\n".join([*lines, "</tbody>", "</table>", paragraph(one.legend)])


FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # begins of a cell that is run


# ---- for programs -----------------------------------------------------------------------------------------------


def to_json(rows: t.Sequence[dict[str, Json]]) -> str:
    return json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(rows: t.Sequence[dict[str, Json]], columns: t.Sequence[str]) -> str:
    """Lists and objects as JSON; text that a spreadsheet would take for a formula with a ' in front, as OWASP has it.

    So begin =, +, -, @, tabs and ends of line, and their full-width forms. Numbers are no text and keep their signs.
    https://owasp.org/www-community/attacks/CSV_Injection
    """
    import pandas as pd  # noqa: PLC0415 - slow to import

    def cell(one: Json) -> Json:
        if isinstance(one, list | dict):
            return json.dumps(one)
        if not isinstance(one, str):
            return one
        one = re.sub(r"\r(?!\n)", "\n", one)  # alone it would end a row, since nothing quotes it
        return f"'{one}" if one.startswith(FORMULA) else one

    flat = [{name: cell(one) for name, one in row.items()} for row in rows]
    return pd.DataFrame(flat, columns=list(columns), dtype=object).to_csv(index=False, lineterminator="\n")
