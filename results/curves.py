"""Accuracy against epochs: what the snapshots of trainings scored, which no table shows."""

import typing as t
from collections import defaultdict

from results import store
from results.identity import dataset_name, protocol_key
from results.layout import RunDirectory
from results.metrics import METRICS
from results.record import Record

Curves = dict[
    tuple[str, str], dict[str, dict[float, float]]
]  # (protocol, data): encoder and tap: epoch: mean over seeds


def snapshots(run: RunDirectory) -> list[Record]:
    """The records of a run's snapshots, the oldest first: those that come later come last."""
    if not run.snapshots.is_dir():
        return []
    done = (record for record in store.read_store(run.snapshots).records if record.status == "done" and record.epoch)
    return sorted(done, key=lambda one: (one.provenance.started, one.epoch, one.tap, protocol_key(one).name))


def rows(run: RunDirectory) -> list[dict[str, float]]:
    """A row for each score of a snapshot, for a history: {"epoch": 5, "<data>/<tap>/<protocol>/<metric>": ...}."""
    return [
        {"epoch": float(one.epoch or 0), f"{dataset_name(one)}/{one.tap}/{protocol_key(one).name}/{metric}": value}
        for one in snapshots(run)
        for metric, value in list(one.metrics.items())[:1]
    ]


def over_epochs(named: t.Iterable[tuple[str, RunDirectory]]) -> Curves:
    """The first metric of each protocol, as far as it is a fraction, of runs with their encoders' names."""
    found: dict[tuple[str, str], dict[str, dict[float, list[float]]]] = defaultdict(dict)
    for name, run in named:
        for one in snapshots(run):
            metric, value = next(iter(one.metrics.items()))
            if metric not in METRICS:
                line = found[protocol_key(one).name, dataset_name(one)].setdefault(f"{name} · {one.tap}", {})
                line.setdefault(float(one.epoch or 0), []).append(value)
    return {
        place: {
            name: {epoch: sum(values) / len(values) for epoch, values in sorted(line.items())}
            for name, line in lines.items()
        }
        for place, lines in found.items()
    }
