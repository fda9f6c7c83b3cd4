"""Writes the generated parts of README.md and docs/ again (`make docs`); tests/test_published.py holds them current.

A generated part stands between `<!-- NAME ARGUMENTS -->` and `<!-- end -->`. NAME is a suite under results/published,
whose leaderboard is printed (ARGUMENTS: only these rows), or a function of PARTS.
"""

import enum
import json
import re
import typing as t
from pathlib import Path

import typer
from markupsafe import escape

from bench.__main__ import EXCHANGE, FIND, LOOK, RUN, TRUST, app
from bench.suites import catalogue, resolve
from bench.suites.schema import json_schema
from results import leaderboard
from results.report import boards
from results.rows import sections
from results.store import read_store

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "results" / "published"
PAGES = ("README.md", "docs/results.md", "docs/commands.md", "docs/methods.md", "docs/speed.md")
PICTURES = {"docs/mnist.svg": ("mnist", "linear")}  # file -> suite and protocol
PART = re.compile(r"<!-- (\w+)((?: [^ \n]+)*) -->\n.*?<!-- end -->", re.DOTALL)


def current(file: str) -> str:
    """What a generated file should hold."""
    if file in PICTURES:
        return forest(*PICTURES[file])

    def part(found: re.Match[str]) -> str:
        name, arguments = found[1], found[2].split()
        made = PARTS[name](*arguments) if name in PARTS else table(name, *arguments)
        return f"<!-- {name}{found[2]} -->\n{made.strip()}\n<!-- end -->"

    return PART.sub(part, (ROOT / file).read_text(encoding="utf-8"))


# ---- results --------------------------------------------------------------------------------------------------------


def table(name: str, *rows: str) -> str:
    board = leaderboard.of(read_store(PUBLISHED / name))
    if rows:
        board = leaderboard.Leaderboard([row for row in board.rows if f"{row.encoder}/{row.tap}" in rows])
    return board.render("markdown")


LEFT, WIDTH, RIGHT, TOP, LINE = 250, 400, 60, 54, 26  # pixels
STYLE = """
svg { font: 13px sans-serif; fill: #1b1b1b } .paper { fill: #fff } .track { overflow: visible }
.interval, .mean { stroke: #1f5fa8; stroke-width: 2.5 } .seed { fill: #fff; fill-opacity: .6; stroke: #1f5fa8 }
.reference { stroke: #777; stroke-dasharray: 1 3; stroke-width: 1.5 } .cut { fill: none; stroke: #1f5fa8 }
.axis line { stroke: #777 } .control { fill: #666 } .control .interval { stroke: #777; stroke-dasharray: 5 3 }
.control .mean, .control .seed, .control .cut { stroke: #777 }
"""


def forest(name: str, protocol: str) -> str:
    """The report's forest plot of one column of a published leaderboard, as an SVG file."""
    section, *_ = sections(leaderboard.of(read_store(PUBLISHED / name)).rows)
    column = next(one for one in section.columns if one.protocol.label == protocol)
    plot = boards.forest(section, column)
    title = f"{name}, {plot.title}: mean, 95 % interval and every seed; grey: controls; dotted: the best control"
    parts = [f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>"]
    parts.append('<rect class="paper" width="100%" height="100%"/>')
    parts.append(f'<text x="8" y="22">{escape(title)}</text>')
    for place, row in enumerate(plot.rows):
        y = TOP + LINE * place - 13
        parts.append(
            f'<g class="{"control" if row.is_control else "encoder"}">'
            f'<text x="{LEFT - 12}" y="{y + 18}" text-anchor="end">{escape(row.name)}</text>'
            f'<svg x="{LEFT}" y="{y}" width="{WIDTH}" height="{LINE}" overflow="visible">{row.track}</svg>'
            f'<text x="{LEFT + WIDTH + 12}" y="{y + 18}">{escape(row.score)}</text></g>'
        )
    below = TOP + LINE * len(plot.rows) - 8
    parts.append(f'<svg x="{LEFT}" y="{below}" width="{WIDTH}" height="22" overflow="visible">{plot.axis}</svg>')
    size = f'viewBox="0 0 {LEFT + WIDTH + RIGHT} {below + 28}" width="{LEFT + WIDTH + RIGHT}"'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">', *parts, "</svg>"]) + "\n"


def speed(name: str) -> str:
    """One record of `frostbench speed`."""
    measured = json.loads((ROOT / "docs" / "speed" / f"{name}.json").read_text(encoding="utf-8"))
    machine = measured["machine"]
    rates = ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {kind}" for kind, rate in sorted(machine["flops"].items()))
    lines = [
        f"{machine['device']}, {machine['threads']} threads, {rates}, {machine['memory'] / 1e9:.0f} GB/s of memory "
        f"([record](speed/{name}.json)):\n",
        "| job | this harness | alternative | its time | times as fast | of the limit | accuracy | its accuracy |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in measured["rows"]:
        ours, theirs = row["ours"], row["theirs"]
        cells = [
            f"{row['section']}: {row['case']}",
            f"{ours:.3g} s",
            row["alternative"],
            f"{theirs:.3g} s" if theirs else "-",
            f"{theirs / ours:.2f}" if theirs else "-",
            f"{row['limit'] / ours:.0%}" if row["limit"] else "-",
            *(f"{100 * one:.2f} %" if one is not None else "-" for one in (row["our_accuracy"], row["their_accuracy"])),
        ]
        lines.append(_cells(cells))
    return "\n".join(lines)


# ---- commands and methods -------------------------------------------------------------------------------------------


def commands() -> str:
    """Every command with its arguments and options, in the groups of `frostbench --help`."""
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    hints = {
        (one.name or one.callback.__name__): t.get_type_hints(one.callback, include_extras=True)
        for one in app.registered_commands
    }
    lines = []
    for group in (RUN, LOOK, TRUST, EXCHANGE, FIND):
        lines.append(f"## {group}\n")
        for name, command in known.items():
            if (getattr(command, "rich_help_panel", "") or FIND) == group:
                lines += [f"### frostbench {name}\n", f"{command.help}\n"]
                if command.params:
                    lines += ["| argument or option | default | meaning |", "| --- | --- | --- |"]
                for one in command.params:
                    hint, about = t.get_args(hints[name][one.name])  # of Annotated
                    lines.append(_cells([_spelled(one, hint), _default(one), about.help or ""]))
                lines.append("")
    return "\n".join(lines)


def _spelled(parameter: t.Any, hint: t.Any) -> str:
    """`--jobs INT`, `--format table|csv`, `DIRECTORY`."""
    while t.get_origin(hint) not in (None, t.Literal):  # a list, or a union with None
        hint = t.get_args(hint)[0]
    choices = [*hint] if isinstance(hint, enum.EnumType) else t.get_args(hint)
    value = parameter.metavar or "|".join(map(str, choices)) or hint.__name__.upper()
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`{f': {value}' if choices else ''}"
    names = "/".join([*parameter.opts, *parameter.secondary_opts])
    return f"`{names}`" if hint is bool else f"`{names} {value}`"


def _default(parameter: t.Any) -> str:
    default = parameter.default
    if parameter.required:
        return "required"
    if isinstance(default, bool) or default is None:
        return ""
    return ", ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)


def recipes(section: str) -> str:
    """Every encoder, or every protocol: what it is, its source, its taps and its parameters."""
    known = resolve.encoders() if section == "encoders" else resolve.protocols()
    entries = json_schema()["properties"][section]["items"]["anyOf"][1:]  # the first has the names alone
    schemas = {one["properties"]["name"]["const"]: one["properties"] for one in entries}
    lines = ["| name | what it does |", "| --- | --- |"]
    about = dict(line.split(maxsplit=1) for line in catalogue.listing(section).splitlines())
    lines += [f"| [{name}](#{name}) | {_escaped(about[name])} |" for name in known]
    for name in known:
        first, *facts = catalogue.description(name).splitlines()
        facts = [fact for fact in facts if fact.startswith(("source:", "taps:", "a control:"))]
        lines += [f"\n#### {name}\n", f"{first.partition(': ')[2]} ({first.partition(' (')[2].partition(')')[0]})\n"]
        lines += [f"- {fact[0].upper()}{fact[1:]}" for fact in facts]
        parameters = {key: value for key, value in schemas[name].items() if key not in ("name", "label", "snapshots")}
        if parameters:
            lines += ["", "| parameter | default | meaning |", "| --- | --- | --- |"]
        for key, value in parameters.items():
            default = value.get("default", "required")
            shown = default if isinstance(default, str) else json.dumps(default)
            choices = [choice for one in [value, *value.get("anyOf", [])] for choice in one.get("enum", [])]
            note = "; ".join(filter(None, [" \\| ".join(map(str, choices)), _escaped(value.get("description", ""))]))
            lines.append(f"| `{key}` | {_escaped(shown)} | {note} |")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _cells(cells: t.Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


PARTS: dict[str, t.Callable[..., str]] = {"commands": commands, "recipes": recipes, "speed": speed}


if __name__ == "__main__":
    for file in (*PAGES, *PICTURES):
        content = current(file)
        (ROOT / file).write_text(content, encoding="utf-8")
