"""Tables as text, in every format, for a terminal, a pipe or a file; and the words of a leaderboard's table."""

import html
import itertools
import json
import re
import textwrap
import typing as t
from collections import defaultdict
from dataclasses import dataclass

from results.metrics import ABOUT, FEATURES, GEOMETRY, METRICS, SAMPLES, interval, written
from results.record import Json
from results.redaction import printable
from results.rows import (
    COLUMNS,
    SAW_LABELS,
    SEVERAL,
    Column,
    Row,
    Section,
    agreed,
    headings_of,
    is_called,
    kind_of,
    other_versions,
    sections,
)

Format = t.Literal["table", "markdown", "csv", "latex", "html", "json"]
FORMATS: dict[Format, str] = {  # to what the names of such files end in
    "table": "txt",
    "markdown": "md",
    "csv": "csv",
    "latex": "tex",
    "html": "html",
    "json": "json",
}
Cells = t.Sequence[str]
GAP = 2  # columns of a terminal between two of a table


@dataclass(frozen=True)
class Emphasis:
    """How a row is printed."""

    bold: t.Collection[int] = ()  # places of its cells
    control: bool = False  # its name is in italics, with "(control)" behind
    failure: str = ""  # stands in place of all cells behind the first


@dataclass(frozen=True)
class Table:
    """Rows as people read them, and the same rows as data."""

    title: str
    words: Cells  # of the header, those whose columns are aligned left; the first column is
    header: Cells
    rows: t.Sequence[Cells]
    legend: str = ""
    plain: t.Sequence[dict[str, Json]] = ()  # for csv and json
    emphasis: t.Sequence[Emphasis] = ()  # of each row
    groups: t.Sequence[t.Sequence[int]] = ()  # columns that stay together where a table is wider than a terminal
    name: str = ""  # for references to it; the title if not given

    def styled(self) -> t.Iterator[tuple[Cells, Emphasis]]:
        return zip(self.rows, self.emphasis or itertools.repeat(Emphasis()))


def render(
    tables: t.Sequence[Table],
    format: Format,
    *,
    columns: t.Sequence[str],  # that `plain` has
    empty: str,  # a sentence in place of no table
    title: str = "",  # of a page; that of the first table if not given
    legend: str = "",  # of all tables together, in place of their own, but in LaTeX, where each table is on its own
    width: int | None = None,
    colour: bool = False,
) -> str:
    """The tables one below the other, as text that ends with a newline; of `csv` and `json` all rows in one list.

    `table` folds what is wider than `width` columns (None, for pipes and files: as wide as it must be).
    """
    plain = [row for one in tables for row in one.plain]
    if format == "json":
        return to_json(plain)
    if format == "csv":
        return to_csv(plain, columns)
    if format == "latex":
        return "\n".join([LATEX_NEEDS, *map(_latex, tables)]) if tables else f"% {empty}\n"
    if format == "html":
        content = html_elements(tables, legend) if tables else [paragraph(empty)]
        return page(title or (tables[0].title if tables else "Nothing"), content)
    if format == "markdown":
        return "\n\n".join(_markdown(tables, legend) if tables else [empty]) + "\n"
    lines = _terminal(tables, legend, width, colour) if tables else wrapped(empty, width)
    return "\n".join(line.rstrip() for line in lines).rstrip("\n") + "\n"


# ---- for people -------------------------------------------------------------------------------------------------


def table(
    words: Cells,
    header: Cells,
    rows: t.Sequence[Cells],
    *,
    styles: Cells = (),  # of each row the codes of ANSI, such as "31" for red
    width: int | None = None,
    colour: bool = False,
) -> str:
    """Rows of cells under a header, folded to `width` columns (None: as wide as it must be). `words` stand left."""
    left = [name in words for name in header]
    header, *rows = ([printable(cell).expandtabs() for cell in row] for row in (header, *rows))
    spans = [_widest(column) for column in zip(header, *rows)]
    while width and sum(spans) + GAP * (len(spans) - 1) > width and max(spans) > 8:
        spans[spans.index(max(spans))] -= 1
    marks = [[style] * len(header) for style in styles or [""] * len(rows)]
    return "\n".join(line.rstrip() for line in _grid(header, rows, spans, left, marks, colour)) + "\n"


def wrapped(text: str, width: int | None, indent: str = "") -> list[str]:
    """The lines of a paragraph, at most 100 columns wide."""
    return textwrap.wrap(printable(text), min(width or 100, 100), subsequent_indent=indent, break_on_hyphens=False)


def _terminal(tables: t.Sequence[Table], legend: str, width: int | None, colour: bool) -> list[str]:
    lines = []
    for one in tables:
        lines += wrapped(one.title, width)
        for grid in _grids(one, width, colour):
            lines += [*grid, ""]
        for row, how in one.styled():
            if how.failure:
                lines += wrapped(f"{row[0]}: {how.failure}", width, "  ")
        lines += [*wrapped("" if legend else one.legend, width), ""]
    return [*lines, *wrapped(legend, width)]


def _grids(one: Table, width: int | None, colour: bool) -> t.Iterator[list[str]]:
    """The lines of the table for a terminal; of several with some of the groups each, where it has wider ones than fit.

    Not by rich, whose table of 5,000 rows takes two seconds.
    """
    done = [(row, how) for row, how in one.styled() if not how.failure]
    rows = [[f"{row[0]} (control)" if how.control else row[0], *row[1:]] for row, how in done]
    if not one.groups or not rows:
        yield from [table(one.words, one.header, rows, width=width, colour=colour).splitlines()] if rows else []
        return
    heads = [name.split() if width else [name] for name in one.header]
    natural = [_widest([*head, *cells]) for head, cells in zip(heads, zip(*rows))]
    left = [name in one.words for name in one.header]
    first, second = natural[:2]
    front, back = range(2, one.groups[0][0]), range(one.groups[-1][-1] + 1, len(natural))
    wide = [sum(natural[place] + GAP for place in group) for group in one.groups]
    room = (width or 10_000) - sum(natural[place] + GAP for place in (*front, *back)) - GAP  # for names and scores
    least = min(first, 12) + min(second, 12)  # names can still be read when folded to this
    parts: list[list[int]] = [[]]
    for place in range(len(wide)):
        if parts[-1] and least + sum(wide[one] for one in [*parts[-1], place]) > room:
            parts.append([])
        parts[-1].append(place)
    for part in parts:
        names = max(least, room - sum(wide[place] for place in part))
        spans = [min(first, max(names // 2, names - second)), 0, *natural[2:]]
        spans[1] = min(second, names - spans[0])
        shown = [0, 1, *front, *(place for group in part for place in one.groups[group]), *back]
        marks = [[";".join(["1"] * (place in how.bold) + ["3"] * how.control) for place in shown] for _, how in done]
        picked = ([cells[place] for place in shown] for cells in (one.header, *rows))
        header, *cells = picked
        yield _grid(header, cells, [spans[place] for place in shown], [left[place] for place in shown], marks, colour)


def _grid(
    header: Cells,
    rows: t.Sequence[Cells],
    spans: t.Sequence[int],
    left: t.Sequence[bool],
    marks: t.Sequence[Cells],
    colour: bool,
) -> list[str]:
    """Lines of columns that are so many characters wide; marks: ANSI's codes of each cell."""
    names = [_folded(name, span) for name, span in zip(header, spans)]
    high = max(map(len, names))
    lines = _laid([[""] * (high - len(name)) + name for name in names], spans, left, ["1"] * len(spans), colour)
    lines.append("─" * (sum(spans) + GAP * (len(spans) - 1)))
    for row, styles in zip(rows, marks):
        lines += _laid([_folded(cell, span) for cell, span in zip(row, spans)], spans, left, styles, colour)
    return lines


def _widest(cells: t.Iterable[str]) -> int:
    from rich.cells import cell_len  # noqa: PLC0415 - slow to import

    return max(cell_len(line) for cell in cells for line in cell.split("\n"))


def _folded(cell: str, width: int) -> list[str]:
    """A cell in as many lines as it takes."""
    from rich.cells import cell_len  # noqa: PLC0415 - slow to import

    if cell_len(cell) <= width and "\n" not in cell:
        return [cell]
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    return [line.plain.rstrip() for line in Text(cell).wrap(Console(), width, overflow="fold")]


def _laid(
    cells: t.Sequence[list[str]], spans: t.Sequence[int], left: t.Sequence[bool], styles: Cells, colour: bool
) -> list[str]:
    """A row of folded cells as lines."""
    from rich.cells import cell_len  # noqa: PLC0415 - slow to import

    lines = []
    for parts in itertools.zip_longest(*cells, fillvalue=""):
        laid = []
        for part, span, is_left, style in zip(parts, spans, left, styles):
            space = " " * (span - cell_len(part))
            shown = f"\x1b[{style}m{part}\x1b[0m" if colour and style and part else part
            laid.append(shown + space if is_left else space + shown)
        lines.append((" " * GAP).join(laid))
    return lines


def markdown(words: Cells, header: Cells, rows: t.Sequence[Cells]) -> str:
    """The same in Markdown."""
    return _pipes(words, header, [[*map(escape_markdown, row)] for row in rows]) + "\n"


def _pipes(words: Cells, header: Cells, rows: t.Iterable[Cells]) -> str:
    rule = ["---" if name in words else "---:" for name in header]
    return "\n".join(f"| {' | '.join(line)} |" for line in (map(escape_markdown, header), rule, *rows))


def escape_markdown(text: str) -> str:
    return "".join(f"\\{one}" if one in "\\`*_[]<>|~#" else one for one in text)


def _markdown(tables: t.Sequence[Table], legend: str) -> list[str]:
    blocks = []
    for one in tables:
        rows = [
            cells if len(cells) > 2 or not how.failure else [*cells, *[""] * (len(one.header) - 2)]
            for cells, how in _escaped(one, escape_markdown, "**CELL**", "*CELL*")
        ]
        blocks += [f"**{escape_markdown(one.title)}**", _pipes(one.words, one.header, rows)]
        blocks += [] if legend else [escape_markdown(one.legend)]
    return [*blocks, escape_markdown(legend)] if legend else blocks


def _escaped(
    one: Table, escape: t.Callable[[str], str], bold: str, italics: str
) -> t.Iterator[tuple[list[str], Emphasis]]:
    """The rows in a format that writes CELL so; a failure stands alone behind the name."""
    for row, how in one.styled():
        first, *cells = map(escape, row)
        name = f"{italics.replace('CELL', first)} (control)" if how.control else first
        if how.failure:
            yield [name, escape(how.failure)], how
        else:
            yield [name, *(bold.replace("CELL", c) if at in how.bold else c for at, c in enumerate(cells, 1))], how


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


def _latex(one: Table) -> str:
    """A float, made smaller where it is larger than a page."""
    rows = []
    for cells, how in _escaped(one, escape_latex, r"\textbf{CELL}", r"\emph{CELL}"):
        if how.failure:
            cells[1] = rf"\multicolumn{{{len(one.header) - 1}}}{{p{{0.6\linewidth}}}}{{\raggedright {cells[1]}}}"
        rows.append(cells)
    sides = "".join("l" if name in one.words else "r" for name in one.header)
    label = re.sub("[^a-z0-9]+", "-", (one.name or one.title).lower()).strip("-")
    lines = [
        r"\begin{table}", r"\centering", rf"\caption{{{escape_latex(one.title)}}}", rf"\label{{tab:{label}}}",
        r"\begin{adjustbox}{max width=\linewidth, max totalheight=0.8\textheight}", rf"\begin{{tabular}}{{{sides}}}",
        r"\toprule", " & ".join(map(escape_latex, one.header)) + r" \\", r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows), r"\bottomrule", r"\end{tabular}", r"\end{adjustbox}",
        rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {escape_latex(one.legend)}}}", r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


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


def html_elements(tables: t.Sequence[Table], legend: str = "") -> list[str]:
    """The tables and their legends, or one for all of them, without the page around them."""
    content = []
    for one in tables:
        words = [" class=word" if name in one.words else "" for name in one.header]
        head = "".join(f'<th scope="col"{word}>{html.escape(name)}</th>' for name, word in zip(one.header, words))
        content += [
            "<table>",
            f"<caption>{html.escape(one.title)}</caption>",
            f"<thead><tr>{head}</tr></thead>",
            "<tbody>",
        ]
        for (first, *cells), how in _escaped(one, html.escape, "<strong>CELL</strong>", "<em>CELL</em>"):
            row = f'<th scope="row"{words[0]}>{first}</th>'
            if how.failure:
                row += f'<td colspan="{len(words) - 1}" class=word>{cells[0]}</td>'
            else:
                row += "".join(f"<td{word}>{cell}</td>" for cell, word in zip(cells, words[1:]))
            content.append(f"<tr>{row}</tr>")
        content += ["</tbody>", "</table>", *([] if legend else [paragraph(one.legend)])]
    return [*content, paragraph(legend)] if legend else content


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


# ---- a leaderboard -------------------------------------------------------------------------------------------------

EMPTY = "No results yet: `frostbench run SUITE.yaml` makes some."
Show = t.Literal["scores", "differences"]
ALARM = " (!)"  # stands behind a tap whose features look collapsed, or whose training was hardly one
OVER, RANK = "over untrained", "rank"  # titles of what stands beside a score
BUDGET = ("argmax", "fewshot")  # read no more labels than the encoder, or few; of encoders that saw labels, the first
WHOLE = ("linear", "knn", "svm", "sgd_linear", "mlp")  # read the labels of all training images


def leaderboard(
    rows: t.Sequence[Row], format: Format, *, show: Show, sort: str, width: int | None = None, colour: bool = False
) -> str:
    """The rows of a leaderboard in a format, see `Leaderboard.render`; sort: what orders them."""
    if format == "json":
        return to_json([row.plain() for row in rows])
    if format == "csv":
        return to_csv([row.plain() for row in rows], COLUMNS)
    found, legend = [_table(section, show, sort) for section in sections(rows)], _legend(rows, show)
    return render(
        found, format, columns=(), empty=EMPTY, title="Leaderboard", legend=legend, width=width, colour=colour
    )


def notebook(rows: t.Sequence[Row], *, sort: str) -> str:
    """The same as HTML without the page around it."""
    tables = [_table(section, "scores", sort) for section in sections(rows)]
    return "\n".join(html_elements(tables, _legend(rows, "scores")) if tables else [paragraph(EMPTY)])


def _table(section: Section, show: Show, sort: str) -> Table:
    columns, names = section.columns, column_names(section)
    over = {one for one in columns if any(row.over_untrained is not None for row in section.at(one))}
    ranked = {one for one in columns if any(row.rank_low for row in section.at(one))}
    by = {row.at for row in section.rows if row.at and sort and is_called(row, sort)}
    ordered = [names[one] for one in columns if not by or one in by][:1] if len(columns) > 1 else []
    ordered = {"encoder": ["encoder"], "training": ["seconds of training"]}.get(sort, ordered)
    protocols = dict.fromkeys(section.at(column)[0].protocol or "" for column in columns)
    front = ["encoder", "tap", *(["labels"] if section.labelled else [])]
    header, groups = [*front], []
    for column in columns:
        titles = [names[column], *([OVER] if column in over else []), *([RANK] if column in ranked else [])]
        groups.append(range(len(header), len(header) + len(titles)))
        header += map(clean, titles)
    rows, emphasis = [], []
    for line in section.lines:
        cells = [clean(line.one.encoder), clean(line.one.tap or "") + ALARM * any(row.alarms for row in line.rows)]
        cells += [labels(line.one)] if section.labelled else []
        for column in columns:
            row = line.cells.get(column)
            cells.append(_score(row, line.one.seeds, show) if row else "-")
            cells += [" ".join(over_untrained(row)).rstrip()] if column in over else []
            cells += [ranks(row)] if column in ranked else []
        seeds = (
            str(line.one.seeds) if line.one.seeds == line.one.of_seeds else f"{line.one.seeds} of {line.one.of_seeds}"
        )
        rows.append([*cells, seeds, "-" if line.one.fit_seconds is None else f"{line.one.fit_seconds:.1f}"])
        best = [
            group[0] for column, group in zip(columns, groups) if (row := line.cells.get(column)) and row.may_be_best
        ]
        emphasis.append(Emphasis(best, line.one.is_control))
    for row in section.failures:
        saw = f"; saw {labels(row)} labels" if section.labelled else ""
        counted = f"{row.seeds} of {_count(row.of_seeds, 'seed')}{saw}"
        rows.append([clean(row.encoder)])
        emphasis.append(Emphasis((), row.is_control, clean(f"failed: {row.error or 'no reason given'} ({counted})")))
    return Table(
        ", ".join([_caption(section), *map(clean, protocols), *(f"ordered by {clean(name)}" for name in ordered)]),
        ("encoder", "tap"),
        [*header, "seeds", "training s"],
        rows,
        _legend(section.rows, show),
        emphasis=emphasis,
        groups=groups,
        name=" ".join([section.dataset, section.subject, {SAW_LABELS: "labels"}.get(section.saw, section.saw)]),
    )


def column_names(section: Section) -> dict[Column, str]:
    """What heads the columns: protocol and metric, without what goes without saying."""
    headings = headings_of(section.rows)
    several = [len({column[part] for column in section.columns}) > 1 for part in (0, 1)]
    names = {}
    for column in section.columns:
        protocol = headings[column.protocol]
        if any(one.is_fraction for one in section.columns):
            names[column] = f"{protocol} {column.metric}" if several[1] else protocol
        else:
            title = METRICS[column.metric].title
            names[column] = f"{protocol} {title}" if several[0] else title
    return names


def _score(row: Row, seeds: int, show: Show) -> str:
    """'96.84 ± 0.31', '99.80 (98.21 to 100.00)' or '-0.52 (-1.40 to 0.28)'; '(n=1)' behind a score of fewer seeds."""
    times, digits = _printed(row.metric)
    if show == "differences" and row.difference:  # the best keeps its score
        ends = [end for end in (row.difference_low, row.difference_high) if end is not None]
        text = f"{times * row.difference:+.{digits}f}"
        text += f" ({' to '.join(f'{times * end:.{digits}f}' for end in ends)})" if ends else ""
    else:
        text = f"{written(row.mean or 0.0, row.metric)} {interval_of(row)}".rstrip()
    return text if row.seeds == seeds else f"{text} (n={row.seeds})"


def over_untrained(row: Row | None) -> tuple[str, str]:
    """('+3.92', '± 0.45'), in points; ('-', '') without a control of its own."""
    if row is None or row.over_untrained is None:
        return "-", ""
    times, digits = _printed(row.metric)
    value, low, high = row.over_untrained, row.over_untrained_low, row.over_untrained_high
    behind = "" if low is None or high is None else interval(value, low, high, row.metric, of_difference=True)
    return f"{times * value:+.{digits}f}", behind


def _printed(metric: str | None) -> tuple[int, int]:
    """What a metric is multiplied with to be printed, and its digits behind the point."""
    return (1, METRICS[metric].digits) if metric in METRICS else (100, 2)


def interval_of(row: Row) -> str:
    """'± 0.31' or '(98.21 to 100.00)'; nothing where it is not known."""
    if row.mean is None or row.low is None or row.high is None:
        return ""
    return interval(row.mean, row.low, row.high, row.metric)


def ranks(row: Row | None) -> str:
    if row is None or row.rank_low is None:
        return "-"
    return str(row.rank_low) if row.rank_low == row.rank_high else f"{row.rank_low}-{row.rank_high}"


def labels(row: Row) -> str:
    return "all" if row.labels is None else f"{row.labels:,}"


def _caption(section: Section) -> str:
    """The dataset, its size and where the numbers were made, as far as all rows agree."""
    rows = [row for row in section.rows if row.status == "done"] or section.failures
    facts = [clean(section.dataset)]
    if rows[0].train_images and rows[0].test_images:
        facts[0] += f": {rows[0].train_images:,} train and {rows[0].test_images:,} test images"
    threads = agreed([row.threads for row in rows])
    facts.append(_named(agreed([row.device for row in rows]), "{}", "several devices"))
    facts.append("several thread counts" if threads == SEVERAL else _count(threads, "thread"))
    facts.append(_named(agreed([row.precision for row in rows]), "{}", "several precisions"))
    facts.append(_named(agreed([row.commit for row in rows]), "commit {}", "several commits"))
    return ", ".join(fact for fact in (*facts, section.saw, section.subject) if fact)


def _named(value: str | None, one: str, several: str) -> str:
    return several if value == SEVERAL else one.format(clean(value)) if value else ""


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


ELSEWHERE = (
    " Encoders pretrained on other data, which may have had labels, stand apart; they learn nothing here and have one "
    "seed."
)


def _legend(rows: t.Sequence[Row], show: Show) -> str:
    """What the scores of these rows are, what their intervals and ranks cover, and what else needs a word."""
    metrics = sorted({kind_of(row.metric) for row in rows if row.metric and row.metric not in METRICS})
    legend = f"Scores: {clean(', '.join(metrics))} in percent, mean over seeds" if metrics else "Mean over seeds"
    legend += " ± half of its 95 % interval, or both ends where the mean is not in its middle."
    legend += _intervals_cover(rows)
    if any(row.over_untrained is not None for row in rows):
        legend += " Over untrained: the score minus that of the same network before training, on the same test images,"
        legend += " with its 95 % interval (Holm)."
        if any(row.over_untrained is not None and row.labels != 0 for row in rows):
            legend += " That network saw no labels, and has its row among the encoders that saw none."
    if show == "differences":
        legend += " Below the best row are differences to it, with simultaneous 95 % intervals."
    if any(row.rank_low for row in rows):
        legend += " Rank: simultaneous 95 % rank interval (Bonferroni over all pairs). Bold: not significantly worse"
        legend += " than the best (5 %, each row compared with every other one)."
    legend += " Seconds: mean over seeds."
    if any(row.is_control for row in rows):
        legend += " (control): a baseline that a learned encoder has to beat."
    if any(row.labels != 0 for row in rows):
        legend += " Encoders that saw labels of the training images stand apart, with the number of these labels."
        legend += labels_read(rows)
    legend += ELSEWHERE * any(row.is_pretrained for row in rows)
    legend += _about_metrics({row.metric for row in rows if row.metric})
    if any(row.alarms for row in rows):
        hardly = " or hardly trained" if any(row.updates for row in rows if row.alarms) else ""
        legend += f" (!) marks what looks collapsed{hardly}, whatever it scores: why is in the csv and the json."
    return legend


def _intervals_cover(rows: t.Sequence[Row]) -> str:
    """Sentences, each behind a space: what may be new, and what was borrowed."""
    legend = ""
    over = {row.interval_over for row in rows if row.interval_over}
    few = {row.seeds for row in rows if row.interval_over == "images"}
    if "seeds and images" in over:
        legend += " Intervals cover new seeds and new test images"
        legend += f"; those of rows with {_listed(few)} cover new test images for these trained models." if few else "."
    elif few:
        ranked = " and ranks" * any(row.rank_low for row in rows)
        legend += f" With {_listed(few)}, all intervals{ranked} are about these trained models on new test images,"
        legend += " not about training again."
    for protocol, versions in _joined_versions(rows).items():
        legend += f" {clean(protocol)} also holds scores of version{'s' * (len(versions) > 1)} {_and(versions)}: the"
        legend += " same definition, solved in another way; intervals include that this moves 4 of 1,000 predictions."
    alone = {row.metric or "" for row in rows if row.interval_over == "seeds"}
    if alone:
        titles = sorted(METRICS[one].title if one in METRICS else one for one in alone)
        legend += f" Intervals of {', '.join(titles)} cover new seeds only."
    borrowed = sorted({row.borrowed_from for row in rows if row.borrowed_from})
    if borrowed:
        count = str(borrowed[0]) if len(borrowed) == 1 else f"{borrowed[0]} to {borrowed[-1]}"
        legend += f" Variances over seeds are moderated across the {count} rows of a column (empirical Bayes)."
    return legend


def _about_metrics(metrics: t.Collection[str]) -> str:
    """Sentences, each behind a space, about those that need a word."""
    kinds = {kind_of(metric) for metric in metrics}
    about = [f"{name}: {text}" for name, text in ABOUT.items() if name in kinds]
    about += [f"{one.title}: {one.about}" for name, one in METRICS.items() if name in metrics and one.of == FEATURES]
    legend = f" {'; '.join(about)}." if about else ""
    for subject in (SAMPLES, GEOMETRY):
        about = [f"{one.title}: {one.about}" for name, one in METRICS.items() if name in metrics and one.of == subject]
        legend += f" Of {subject}: {'; '.join(about)}." if about else ""
    return legend


def labels_read(rows: t.Iterable[Row]) -> str:
    """A sentence, behind a space: which protocols read all labels whatever an encoder saw, and which one does not."""
    judged = {
        clean(row.protocol_key.label): row.records[0].protocol
        for row in sorted(rows, key=lambda row: row.column or 0)
        if row.labels != 0 and row.protocol_key
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
        if row.protocol_key and (others := other_versions(row)):
            found[row.protocol_key.name] |= set(others)
    return {name: sorted(versions) for name, versions in sorted(found.items())}


def _and(numbers: t.Sequence[int]) -> str:
    """'2', '1 and 2', '1, 2 and 3'."""
    return " and ".join(filter(None, [", ".join(map(str, numbers[:-1])), str(numbers[-1])]))


def _listed(seeds: t.Collection[int]) -> str:
    """'1 seed', '1 or 2 seeds'."""
    return " or ".join(map(str, sorted(seeds))) + (" seed" if set(seeds) == {1} else " seeds")


def clean(text: str) -> str:
    """One line of printable characters: labels and errors come from files, and a terminal obeys control characters."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())
