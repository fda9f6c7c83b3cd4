"""What `import bench` gives notebooks and scripts; see docs/python.md. What cannot be used is an error, as there."""

import dataclasses
import json
import typing as t
from pathlib import Path

import numpy as np
import torch

from bench import launch
from bench.commands.feature_files import checked, plain
from bench.commands.score import TAP, protocols_of_features
from bench.datasets.formats import DataError
from bench.errors import config_error
from bench.launch import Executor, Launched
from bench.pipeline.judge import by_protocol, configured, judge
from bench.suites import resolve
from encoders import load
from protocols.base import FeatureSet, Quality, Scores
from results import leaderboard as tables
from results import store
from results.leaderboard import Leaderboard
from results.record import Record

if t.TYPE_CHECKING:
    import pandas as pd

__all__ = ["leaderboard", "load", "read_records", "run_suite", "score"]


def run_suite(
    suite: str | Path | t.Mapping[str, t.Any],
    *,
    output: str | Path = "runs",
    executor: Executor = "serial",
    jobs: int = 0,
    threads: int = 0,
    device: str = "auto",
    seeds: str | t.Iterable[int] = "",
    limit: int = 0,
    overrides: t.Iterable[str] = (),
    fail_fast: bool = False,
    data_root: str | Path | None = None,
    offline: bool = False,
    plugins: t.Iterable[str | Path] = (),
) -> Launched:
    """Do what is missing of a suite, as `frostbench run` does; its `board` is the leaderboard, `failed` counts runs.

    suite: a YAML file, the name of a shipped suite, what such a file says as text of several lines, or as a dict.
    overrides: such as "bigan.epochs=5". Other arguments are the command's. Progress goes to stderr.

    Raises ConfigError, DataError and MachineError before anything is written. Runs that fail raise nothing.
    """
    if not isinstance(suite, str | Path | t.Mapping):
        raise config_error("suite", f"wanted a path, the name of a suite, its text or a dict; got {_kind(suite)}")
    if isinstance(overrides, str) or isinstance(plugins, str | Path):
        raise config_error("overrides, plugins", 'wanted lists, such as overrides=["bigan.epochs=5"]')
    if isinstance(suite, t.Mapping):
        try:
            suite = json.dumps(suite, indent=1) + "\n"  # which is YAML
        except (TypeError, ValueError) as error:
            raise config_error("suite", f"wanted plain data, as in a YAML file; {error}") from None
    seeds = seeds if isinstance(seeds, str) else ",".join(map(str, seeds))
    paths = [Path(plugin) for plugin in plugins]
    read = launch.read(str(suite), list(overrides), seeds, limit, paths, offline=offline)
    settings = launch.settings(
        output=Path(output),
        threads=threads,
        device=device,
        data_root=Path(data_root) if data_root else None,
        offline=offline,
        plugins=paths,
        jobs=jobs,
    )
    return launch.launch(read, settings, jobs=jobs, executor=executor, fail_fast=fail_fast)


def read_records(directory: str | Path = "runs") -> list[Record]:
    """Every record of a suite's directory, or of one that holds several. Raises StoreError if there is none."""
    return store.read_store(Path(directory)).records


def leaderboard(
    directory: str | Path = "runs",
    *,
    variance: tables.Variance = "borrowed",
    metrics: t.Collection[str] = (),
    encoders: t.Collection[str] = (),
    taps: t.Collection[str] = (),
    protocols: t.Collection[str] = (),
    datasets: t.Collection[str] = (),
    sort: str = "",
) -> Leaderboard:
    """The ranked tables of a directory, which a notebook shows; `to_pandas` gives a row a cell.

    Arguments are those of `frostbench leaderboard`. Raises StoreError for no directory, Unknown for a name that no row
    has.
    """
    board = tables.of(store.read_store(Path(directory)), variance, metrics)
    return board.select(encoders=encoders, taps=taps, protocols=protocols, datasets=datasets, sort=sort)


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What protocols say of features: `judgement["linear"]` has `metrics`, `predictions` and `details`."""

    found: dict[str, Scores | Quality]  # by the protocol's label

    def __getitem__(self, protocol: str) -> Scores | Quality:
        return self.found[protocol]

    def to_pandas(self) -> "pd.DataFrame":
        """A row a metric: protocol, metric, value."""
        import pandas as pd  # noqa: PLC0415 - slow to import

        rows = [(label, *one) for label, scores in self.found.items() for one in scores.metrics.items()]
        return pd.DataFrame(rows, columns=["protocol", "metric", "value"])

    def _repr_html_(self) -> str:
        html: str = self.to_pandas().to_html(index=False)
        return html


def score(
    features: t.Any,
    labels: t.Any,
    test_features: t.Any,
    test_labels: t.Any,
    *,
    protocols: t.Iterable[str | t.Mapping[str, t.Any]] = ("linear", "knn"),
    seed: int = 0,
    plugins: t.Iterable[str | Path] = (),
) -> Judgement:
    """Judge features of any model as `frostbench score` does; nothing is written.

    features (n, d) and labels (n,) are of train; arrays of NumPy, tensors, or what NumPy makes an array of. protocols:
    names, or with settings {"name": "knn", "k": 20}. Raises DataError for features that cannot be judged, ConfigError
    for a protocol that is none, ProtocolError for one that is not defined on them.
    """
    if isinstance(protocols, str | t.Mapping):
        raise config_error("protocols", f'wanted a list, such as ["linear", "knn"]; got {protocols!r}')
    paths = [Path(plugin) for plugin in plugins]
    entries = [one if isinstance(one, str) else json.dumps(dict(one)) for one in protocols]
    asked, known = protocols_of_features(entries, paths), resolve.protocols(paths)
    train, test = _feature_sets(features, labels, test_features, test_labels)
    found: dict[str, Scores | Quality] = {}
    for (tap, kind), specs in by_protocol((TAP, one) for one in asked).items():
        scored = known[kind].score_all(configured(known, specs), train, test, seed=seed)
        found |= {judged.protocol.label: judged.scores for judged in judge(tap, specs, scored)}
    return Judgement({one.label: found[one.label] for one in asked})


def _feature_sets(*given: t.Any) -> tuple[FeatureSet, FeatureSet]:
    try:
        arrays = tuple(plain(one) if isinstance(one, torch.Tensor) else np.asarray(one) for one in given)
    except (TypeError, ValueError) as error:
        raise DataError(f"score: wanted arrays of numbers; {error}") from error
    return checked("score", arrays)


def _kind(value: t.Any) -> str:
    return type(value).__name__
