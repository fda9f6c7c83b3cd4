"""The report: records, and the files beside them, as one HTML page that needs nothing else.

It depends on nothing but these files: the same files give the same page.
"""

import base64
import hashlib
import json
import typing as t
from collections import defaultdict
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from results import curves, layout, leaderboard, store
from results.layout import RunDirectory
from results.metrics import FURTHER, METRICS
from results.record import Record
from results.report import boards, charts, figures
from results.report.figures import Curve, Map, Matrix, Picture, Training
from results.rows import Row, Section, sections
from results.store import Contents
from results.tables import labels_read

NAME = "report.html"


@dataclass(frozen=True)
class Chapter:
    """Everything about one dataset."""

    dataset: str
    sections: list[Section]
    further: boards.Further | None
    curves: list[Curve]
    trainings: list[Training]
    untrained: list[str]  # encoders without losses
    matrices: list[Matrix]
    maps: list[Map]
    neighbours: list[tuple[Picture, str]]
    pictures: list[Picture]
    unmapped: int  # taps without a map, for the page's weight and its time
    unseen: list[str]  # taps whose run left no view
    left_out: int  # pictures, for the page's weight
    made: list["Made"]


@dataclass(frozen=True)
class Made:
    """Where an encoder's numbers come from."""

    encoder: str
    method: str
    seeds: list[tuple[int, str]]  # with the run's key
    first: Record
    params: str


def page(directory: Path, contents: Contents | None = None) -> str:
    """Everything below a directory: of a run, a suite, several suites, or published records.

    contents: what `read_store` has read of it. Raises StoreError if there is no such directory.
    """
    contents = contents or store.read_store(directory)
    board = leaderboard.of(contents)
    further = _further(contents, board)
    runs = {run.path.name.rpartition("-")[2]: run for run in layout.runs_below(directory)}
    damaged: figures.Damaged = dict(contents.damaged)
    by_dataset: dict[str, list[Section]] = defaultdict(list)
    for section in sections(board.rows):
        by_dataset[section.dataset].append(section)
    chapters = [
        _chapter(dataset, members, runs, damaged, [row for row in further if row.dataset == dataset])
        for dataset, members in by_dataset.items()
    ]
    done = [record for record in contents.records if record.status == "done"]
    files = resources.files(__name__)
    style, script = (files.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"swatch": charts.swatch, "counted": boards.count}
    environment.filters["folding"] = _folding
    return environment.from_string(files.joinpath("page.html").read_text("utf-8")).render(
        title=" + ".join(sorted({record.suite for record in contents.records})) or "nothing yet",
        chapters=chapters,
        boards=boards,
        metrics=METRICS,
        labels_read=labels_read,
        alarms=_alarms(board.rows),
        damaged=[(_place(path, directory), problem) for path, problem in sorted(damaged.items())],
        versions=_versions(done),
        newest=max((record.provenance.started for record in done), default=""),
        most_tsne=figures.MAX_TSNE,
        tsne_points=figures.TSNE_POINTS,
        tsne_steps=figures.TSNE_STEPS,
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _further(contents: Contents, board: leaderboard.Leaderboard) -> list[Row]:
    """The rows of what tables show on request, as far as there is some."""
    known = {name for row in board.rows for name in (row.metric, *row.further)}
    names = [name for name in FURTHER if name in known]
    return leaderboard.of(contents, metrics=names).rows if names else []


def _place(path: Path, directory: Path) -> str:
    """A file's name below the directory that the page is about."""
    return path.relative_to(directory).as_posix() if path.is_relative_to(directory) else path.name


def _folding(name: str | None) -> Markup:
    """A name that a narrow screen breaks behind its underscores."""
    return escape(name).replace("_", Markup("_<wbr>"))


def _chapter(
    dataset: str,
    sections: list[Section],
    runs: dict[str, RunDirectory],
    damaged: figures.Damaged,
    further: list[Row],
) -> Chapter:
    features = [section for section in sections if section.of_fractions]
    encoders: dict[str, dict[int, Record]] = defaultdict(dict)  # the best first; seed -> one of its records
    first_taps: list[tuple[str, str, RunDirectory]] = []  # of the first seed
    matrices = []
    classes: list[str] | None = None  # the dataset's, as the first run that names them has them
    for section in sections:
        for line in section.lines:
            for row in line.rows:
                encoders[row.encoder] |= {record.seed: record for record in row.records}
    for section in features:
        for line in section.lines:
            run = _first(encoders[line.one.encoder], runs)
            named = None
            if run is not None and line.one.tap is not None:
                first_taps.append((line.one.full_name, line.one.tap, run))
                if run.view(line.one.tap).exists():
                    named = classes = classes or figures.class_names(run, line.one.tap, damaged)
            if line.is_best_tap and (matrix := figures.confusions(line.rows[0], runs, named, damaged)):
                matrices.append(matrix)
    trainings = {
        name: figures.training(name, [runs[one.key] for _, one in sorted(by_seed.items()) if one.key in runs], damaged)
        for name, by_seed in encoders.items()
    }
    maps = [
        found
        for place, one in enumerate(first_taps[: figures.MAX_MAPS])
        if (found := figures.maps(*one, damaged, tsne=place < figures.MAX_TSNE))
    ]
    near = (pair for one in first_taps if (pair := figures.neighbours(*one, damaged)))
    neighbours = figures.within(near, of=lambda pair: pair[0])
    drawn = [(name, run) for name, by_seed in encoders.items() if (run := _first(by_seed, runs))]
    made = (picture for name, run in drawn for picture in figures.pictures(name, run, damaged))
    pictures = figures.within(made, of=lambda picture: picture)
    files = {run.neighbours(tap) for _, tap, run in first_taps} | {
        path for _, run in drawn for path in figures.picture_files(run)
    }
    there = sum(path.exists() for path in files - damaged.keys())
    return Chapter(
        dataset=dataset,
        sections=sections,
        further=boards.further(further),
        curves=[
            *figures.curves(row for section in features for line in section.lines for row in line.rows),
            *(
                figures.curve(protocol, f"epochs of training, snapshots on {data}", lines)
                for (protocol, data), lines in curves.over_epochs(
                    (name, runs[one.key])
                    for name, by_seed in encoders.items()
                    for one in by_seed.values()
                    if one.key in runs
                ).items()
            ),
        ],
        trainings=[training for training in trainings.values() if training],
        untrained=[name for name, training in trainings.items() if not training],
        matrices=matrices,
        maps=maps,
        neighbours=neighbours,
        pictures=pictures,
        unmapped=max(0, len(first_taps) - figures.MAX_MAPS),
        unseen=[name for name, tap, run in first_taps if not run.view(tap).exists()],
        left_out=max(0, there - len(neighbours) - len(pictures)),
        made=[_made(name, by_seed) for name, by_seed in encoders.items() if by_seed],
    )


def _first(by_seed: dict[int, Record], runs: dict[str, RunDirectory]) -> RunDirectory | None:
    """The run of the first seed."""
    return runs.get(by_seed[min(by_seed)].key) if by_seed else None


def _made(encoder: str, by_seed: dict[int, Record]) -> Made:
    first = by_seed[min(by_seed)]
    params = ", ".join(f"{name} {json.dumps(value)}" for name, value in first.params.items()) or "none"
    return Made(encoder, first.encoder, [(seed, by_seed[seed].key) for seed in sorted(by_seed)], first, params)


def _alarms(rows: t.Iterable[Row]) -> list[tuple[str, str]]:
    """What looks collapsed: (encoder and tap, a sentence)."""
    return list(dict.fromkeys((row.full_name, text) for row in rows for text in row.alarms))


def _versions(records: t.Iterable[Record]) -> list[str]:
    """Every set of libraries that moved a number."""
    sets = (", ".join(f"{name} {version}" for name, version in r.provenance.versions.items()) for r in records)
    return list(dict.fromkeys(sets))
