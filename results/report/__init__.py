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

from results import store
from results.leaderboard import leaderboard
from results.metrics import METRICS
from results.record import Record
from results.report import boards, charts, figures
from results.report.boards import Section
from results.report.figures import Curve, Map, Matrix, Picture, Training
from results.store import RunDirectory

NAME = "report.html"


@dataclass(frozen=True)
class Chapter:
    """Everything about one dataset."""

    dataset: str
    sections: list[Section]
    curves: list[Curve]
    trainings: list[Training]
    untrained: list[str]  # encoders without losses
    matrices: list[Matrix]
    maps: list[Map]
    neighbours: list[tuple[Picture, str]]
    pictures: list[Picture]
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


def page(directory: Path) -> str:
    """Everything below a directory: of a run, a suite, several suites, or published records.

    Raises StoreError if there is no such directory.
    """
    contents = store.read_store(directory)
    board = leaderboard(contents.records, contents.plans)
    runs = {run.path.name.rpartition("-")[2]: run for run in store.runs_below(directory)}
    chapters = [
        _chapter(dataset, sections, runs) for dataset, sections in boards.sections(board.rows, contents.records).items()
    ]
    done = [record for record in contents.records if record.status == "done"]
    files = resources.files(__name__)
    style, script = (files.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"score": boards.score, "swatch": charts.swatch, "counted": boards.count}
    environment.filters["folding"] = _folding
    return environment.from_string(files.joinpath("page.html").read_text("utf-8")).render(
        title=" + ".join(sorted({record.suite for record in contents.records})) or "nothing yet",
        chapters=chapters,
        boards=boards,
        metrics=METRICS,
        alarms=_alarms(board.rows),
        damaged=[(path.name, problem) for path, problem in contents.damaged],
        versions=_versions(done),
        newest=max((record.provenance.started for record in done), default=""),
        tsne_points=figures.TSNE_POINTS,
        tsne_steps=figures.TSNE_STEPS,
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _folding(name: str | None) -> Markup:
    """A name that a narrow screen breaks behind its underscores."""
    return escape(name).replace("_", Markup("_<wbr>"))


def _chapter(dataset: str, sections: list[Section], runs: dict[str, RunDirectory]) -> Chapter:
    features = [section for section in sections if section.of_fractions]
    encoders: dict[str, dict[int, Record]] = defaultdict(dict)  # the best first; seed -> one of its records
    first_taps: list[tuple[str, str, RunDirectory]] = []  # of the first seed
    matrices = []
    for section in sections:
        for line in section.lines:
            for judged in line.judged.values():
                encoders[line.one.encoder] |= {record.seed: record for record in judged.records}
    for section in features:
        for line in section.lines:
            run = _first(encoders[line.one.encoder], runs)
            if run is not None and line.one.tap is not None:
                first_taps.append((line.name, line.one.tap, run))
            best = next(iter(line.judged.values()))
            classes = None if run is None or line.one.tap is None else figures.class_names(run, line.one.tap)
            if line.is_best_tap and (matrix := figures.confusions(best, runs, classes)):
                matrices.append(matrix)
    trainings = {
        name: figures.training(name, [runs[by_seed[seed].key] for seed in sorted(by_seed) if by_seed[seed].key in runs])
        for name, by_seed in encoders.items()
    }
    maps = [found for one in first_taps if (found := figures.maps(*one))]
    neighbours = [near for one in first_taps if (near := figures.neighbours(*one))]
    drawn = {name: _first(by_seed, runs) for name, by_seed in encoders.items()}
    pictures = [picture for name, run in drawn.items() if run for picture in figures.pictures(name, run)]
    kept_neighbours = figures.within([picture for picture, _ in neighbours])
    kept_pictures = figures.within(pictures)
    return Chapter(
        dataset=dataset,
        sections=sections,
        curves=figures.curves(judged for section in features for judged in section.judged),
        trainings=[training for training in trainings.values() if training],
        untrained=[name for name, training in trainings.items() if not training],
        matrices=matrices,
        maps=maps,
        neighbours=[(picture, note) for picture, note in neighbours if picture in kept_neighbours],
        pictures=kept_pictures,
        unseen=[name for name, tap, run in first_taps if not run.view(tap).exists()],
        left_out=len(pictures) - len(kept_pictures) + len(neighbours) - len(kept_neighbours),
        made=[_made(name, by_seed) for name, by_seed in encoders.items() if by_seed],
    )


def _first(by_seed: dict[int, Record], runs: dict[str, RunDirectory]) -> RunDirectory | None:
    """The run of the first seed."""
    return runs.get(by_seed[min(by_seed)].key) if by_seed else None


def _made(encoder: str, by_seed: dict[int, Record]) -> Made:
    first = by_seed[min(by_seed)]
    params = ", ".join(f"{name} {json.dumps(value)}" for name, value in first.params.items()) or "none"
    return Made(encoder, first.encoder, [(seed, by_seed[seed].key) for seed in sorted(by_seed)], first, params)


def _alarms(rows: t.Iterable[t.Any]) -> list[tuple[str, str]]:
    """What looks collapsed: (encoder and tap, a sentence)."""
    return list(dict.fromkeys((f"{row.encoder} · {row.tap}", text) for row in rows for text in row.alarms))


def _versions(records: t.Iterable[Record]) -> list[str]:
    """Every set of libraries that moved a number."""
    told = (", ".join(f"{name} {version}" for name, version in r.provenance.versions.items()) for r in records)
    return list(dict.fromkeys(told))
