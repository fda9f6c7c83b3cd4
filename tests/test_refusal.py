"""A training that is not gone on with here says so in its row, whoever tells it, and whatever failed before."""

import typing as t
from pathlib import Path

import pytest

from bench import launch
from bench.host.progress import Display
from bench.host.stopping import Stopping
from bench.launch import processes
from bench.pipeline import execute
from bench.pipeline.checkpoints import ResumeRefused
from bench.pipeline.plan import PlannedRun, Settings
from results import store

SUITE = """
suite: small
datasets: [{name: digits, limit: 40}]
seeds: [0]
encoders: [pixels]
protocols: [{name: knn, k: 1}]
wandb: {mode: off}
"""


@pytest.fixture
def failed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[PlannedRun, Settings]:
    """A run with a failed.json of an earlier call, which is now refused."""
    (tmp_path / "small.yaml").write_text(SUITE)
    settings = launch.settings(
        output=tmp_path / "runs", threads=1, device="cpu", data_root=None, offline=True, plugins=[]
    )
    [planned], _ = launch.plan(launch.read(str(tmp_path / "small.yaml"), [], "", 0, []), settings)

    def fails(*_: object) -> t.NoReturn:
        raise ValueError("no luck")

    monkeypatch.setattr(execute, "_execute", fails)
    assert processes.attempt(planned, settings, Stopping(), wait=True) == 0
    assert "no luck" in str(processes.outcome(planned, 0))

    def refuses(*_: object) -> t.NoReturn:
        raise ResumeRefused("was stopped elsewhere")

    monkeypatch.setattr(execute, "_execute", refuses)
    return planned, settings


def test_a_worker_tells_the_refusal_and_no_older_failure(
    failed_before: tuple[PlannedRun, Settings],
) -> None:
    planned, settings = failed_before
    status = processes.attempt(planned, settings, Stopping(), wait=True)
    error = processes.outcome(planned, status)
    assert error == "was stopped elsewhere"
    assert isinstance(error, processes.Refused)
    assert store.read_record(planned.directory.failed).error == "was stopped elsewhere"  # for its table


def test_so_does_this_process(failed_before: tuple[PlannedRun, Settings]) -> None:
    planned, settings = failed_before
    with Display([planned.title]) as display:
        [(_, _, error)] = processes.serial([planned], settings, display, Stopping())
    assert error == "was stopped elsewhere"
    assert isinstance(error, processes.Refused)
