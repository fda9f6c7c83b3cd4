"""Snapshots: a run's encoder as it was after some epochs of its training, frozen and judged like a run.

A snapshot is the same training, ended early. The loop keeps its state for it in passing, and `fit` goes on from there
to what ends it, so it moves no bit of the training and no recipe knows of it. Where that state is missing, it trains
again. Its files lie in the run's directory, laid out like a suite's.
"""

import dataclasses
from pathlib import Path

from bench.pipeline.checkpoints import Checkpoints
from bench.pipeline.judge import is_there
from bench.pipeline.plan import PlannedRun, Settings, load_data, recipe, wanted
from bench.suites.suite import DatasetSpec, ProtocolSpec, snapshot_key
from results.layout import RunDirectory, run_directory


def of(
    planned: PlannedRun, settings: Settings, fingerprints: dict[tuple[DatasetSpec, DatasetSpec], str]
) -> list[PlannedRun]:
    """The snapshots of a run, each with what is missing of it. fingerprints: gets those of data that it lacks."""
    made = []
    for spec in planned.spec.snapshots():
        assert spec.snapshot is not None
        key, directory = _place(planned, spec.snapshot.epoch)
        data = spec.dataset, spec.snapshot.learned_from
        if data not in fingerprints:
            fingerprints[data] = load_data(spec, settings).fingerprint
        whole = tuple(wanted(spec, recipe(spec, settings), settings))
        one = dataclasses.replace(
            planned, spec=spec, key=key, directory=directory, fingerprint=fingerprints[data], missing=whole, again=False
        )
        made.append(dataclasses.replace(one, missing=left(one)))
    return made


def left(snapshot: PlannedRun) -> tuple[tuple[str, ProtocolSpec], ...]:
    """What a snapshot still lacks of what it lacked."""
    return tuple(one for one in snapshot.missing if not is_there(snapshot, one))


def of_training(snapshot: PlannedRun) -> RunDirectory:
    """The run that it is a snapshot of."""
    return RunDirectory(snapshot.directory.path.parents[3])


def keepers(planned: PlannedRun, keeper: Checkpoints) -> dict[int, Checkpoints]:
    """By epoch, who keeps the state that a training has then for the snapshot that goes on from it."""
    if planned.spec.snapshot:
        return {}
    places = {epoch: _place(planned, epoch) for epoch in sorted({*planned.spec.encoder.snapshots})}
    return {
        epoch: _Passing(keeper, directory.checkpoint, key)
        for epoch, (key, directory) in places.items()
        if not directory.run_json.exists()
    }


class _Passing(Checkpoints):
    """Keeps states of one training for another, which is as repeatable as the first."""

    def __init__(self, keeper: Checkpoints, directory: Path, run: str) -> None:
        super().__init__(
            directory, run, keeper.machine, seconds=keeper.seconds, resume=keeper.resume, stopping=keeper.stop
        )
        self.passed = keeper

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"exact": self.passed.environment["exact"]}


def _place(planned: PlannedRun, epoch: int) -> tuple[str, RunDirectory]:
    spec, key = planned.spec, snapshot_key(planned.key, epoch)
    place = run_directory(planned.directory.snapshots, f"epoch{epoch}", spec.snapshot_split, spec.seed, key)
    return key, place
