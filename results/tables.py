"""Tables as text, in every format, for a terminal, a pipe or a file; and the words of a leaderboard's table."""

import html
import io
import itertools
import json
import re
import textwrap
import typing as t
from collections import Counter, defaultdict
from dataclasses import dataclass

from results.metrics import ABOUT, FEATURES, GEOMETRY, METRICS, SAMPLES, interval, written
from results.record import Json
from results.redaction import printable
from results.rows import (
    COLUMNS,
    SAW_LABELS,
    SEVERAL,
    Row,
    agreed,
    apart,
    is_called,
    kind_of,
    otherwise,
    section_of,
    subject_of,
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


# ---- a leaderboard -------------------------------------------------------------------------------------------------

EMPTY = "No results yet: `frostbench run SUITE.yaml` makes some."
Show = t.Literal["scores", "differences"]
ALARM = " (!)"  # stands behind a tap whose features look collapsed, or whose training was hardly one
OVER, RANK = "over untrained", "rank"  # titles of what stands beside a score
BUDGET = ("argmax", "fewshot")  # read no more labels than the encoder, or few; of encoders that saw labels, the first
WHOLE = ("linear", "knn", "svm", "sgd_linear", "mlp")  # read the labels of all training images


def sections(rows: t.Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """The rows of each table, by dataset, what encoders saw beside it, and what the numbers are of."""
    found: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        found[section_of(row)].append(row)
    return found


def html_elements(rows: t.Sequence[Row], *, sort: str) -> list[str]:
    """The tables of a leaderboard and their legend, without the page around them."""
    tables = [_table(members, "scores", sort) for members in sections(rows).values()]
    return _html_of(tables, _legend(rows, "scores") if tables else EMPTY)


def leaderboard(
    rows: t.Sequence[Row], format: Format, *, show: Show, sort: str, width: int | None = None, colour: bool = False
) -> str:
    """The rows of a leaderboard in a format, see `Leaderboard.render`; sort: what orders them."""
    if format == "json":
        return to_json([row.plain() for row in rows])
    if format == "csv":
        return to_csv([row.plain() for row in rows], COLUMNS)
    found = sections(rows)
    tables = [_table(members, show, sort) for members in found.values()]
    legend = _legend(rows, show) if tables else EMPTY
    if format == "markdown":
        return _markdown_of(tables, legend)
    if format == "latex":
        return _latex_of(tables, [_legend(members, show) for members in found.values()])
    if format == "html":
        return page("Leaderboard", _html_of(tables, legend))
    return _terminal_of(tables, legend, width, colour)


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
    saw = apart(rows[0])
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
    by = {(row.protocol or "", row.metric or "") for row in rows if row.protocol and sort and is_called(row, sort)}
    ordered = [name for name, column in zip(header, columns) if not by or column in by][:1]
    ordered = {"encoder": ["encoder"], "training": ["seconds of training"]}.get(
        sort, ordered if len(header) > 1 else []
    )
    return _Table(
        " ".join([rows[0].dataset, subject_of(rows[0].metric), {SAW_LABELS: "labels"}.get(saw, saw)]),
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
        labelled=saw == SAW_LABELS,
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
        labels=_labels(one) if apart(one) == SAW_LABELS else "",
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
    threads = agreed([row.threads for row in made])
    facts.append(_named(agreed([row.device for row in made]), "{}", "several devices"))
    facts.append("several thread counts" if threads == SEVERAL else _count(threads, "thread"))
    facts.append(_named(agreed([row.precision for row in made]), "{}", "several precisions"))
    facts.append(_named(agreed([row.commit for row in made]), "commit {}", "several commits"))
    facts.append(apart(one))
    facts.append(subject_of(one.metric))
    return ", ".join(fact for fact in facts if fact)


def _named(value: str | None, one: str, several: str) -> str:
    return several if value == SEVERAL else one.format(_clean(value)) if value else ""


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


ELSEWHERE = (
    " Encoders pretrained on other data, which may have had labels, stand apart; they learn nothing here and have one "
    "seed."
)


def _legend(rows: t.Sequence[Row], show: Show) -> str:
    metrics = sorted({kind_of(row.metric) for row in rows if row.metric and row.metric not in METRICS})
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
    legend += ELSEWHERE * any(row.is_pretrained for row in rows)
    made = {row.metric for row in rows}
    told = [f"{name}: {about}" for name, about in ABOUT.items() if name in {kind_of(one or "") for one in made}]
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
        if row.protocol and otherwise(row):
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


def _markdown_of(tables: list[_Table], legend: str) -> str:
    escape = escape_markdown

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


def _latex_of(tables: list[_Table], legends: list[str]) -> str:
    escape = escape_latex
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
        floats.append(latex(table.name, table.caption, sides, table.header, rows, legend))
    return "\n".join([LATEX_NEEDS, *floats])


def _html_of(tables: list[_Table], legend: str) -> list[str]:
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
    return [*content, paragraph(legend)]


def _terminal_of(tables: list[_Table], legend: str, width: int | None, colour: bool) -> str:
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
