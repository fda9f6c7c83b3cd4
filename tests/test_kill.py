"""A suite that is killed at any moment of its dealings with the disk, and started again, comes to the same files."""

import hashlib
import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from results import leaderboard, predictions, store
from results.record import Record
from results.tables import FORMATS

SUITE = """
suite: small
datasets: [{name: digits, limit: 40}]
seeds: [0]
encoders:
  - {name: vae, hidden: 16, latent: 4, epochs: 2, batch_size: 20}
  - pixels
protocols: [{name: knn, k: 1}, {name: knn, k: 3, label: knn3}]
controls: none
wandb: {mode: off}
"""
WORDS = ["run", "small.yaml", "--threads", "1", "--checkpoint-every", "0"]
KILLED = -9
KINDS = {"open", "write", "half a write", "fsync", "link", "replace", "rename", "unlink", "mkdir", "rmdir"}


class Server:
    """Makes calls of the command line that are killed at a moment of their dealings with the disk: tests/killed.py."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("killed.py"))]
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # whoever forks must be
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=os.environ | alone)

    def call(self, where: Path, moment: int | None = None) -> tuple[int, list[str]]:
        """Its status and the moments that it has seen."""
        where.mkdir(exist_ok=True)
        (where / "small.yaml").write_text(SUITE)
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps({"where": str(where), "words": WORDS, "moment": moment}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["status"], answer["moments"]

    def finish(self, where: Path) -> None:
        """Start again undisturbed: nothing that is there is made a second time."""
        before = made(where)
        assert self.call(where)[0] == 0, (where / "log").read_text()
        after = made(where)
        assert {path: after.get(path) for path in before} == before


@pytest.fixture(scope="module")
def server() -> t.Iterator[Server]:
    server = Server()
    yield server
    assert server.process.stdin and server.process.stdout
    server.process.stdin.close()
    server.process.wait()
    server.process.stdout.close()


class Undisturbed(t.NamedTuple):
    moments: list[str]
    files: dict[str, t.Any]


@pytest.fixture(scope="module")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    where = tmp_path_factory.mktemp("undisturbed")
    status, moments = server.call(where)
    assert status == 0, (where / "log").read_text()
    return Undisturbed(moments, files(where))


def files(where: Path) -> dict[str, t.Any]:
    """Every file below the output directory, times aside: their bytes, or what records, tables and histories say."""
    found: dict[str, t.Any] = {}
    contents = store.read_store(where / "runs")
    assert not contents.damaged
    timeless = [
        record.model_copy(
            update={"seconds": {"fit": 1.0}, "provenance": record.provenance.model_copy(update={"started": ""})}
        )
        for record in contents.records
    ]
    answers = predictions.answers(predictions.classes(contents))
    originals = {id(copy): record for copy, record in zip(timeless, contents.records)}

    def read(record: Record) -> t.Any:
        return answers(originals[id(record)])

    for path in (where / "runs").rglob("*"):
        name = path.relative_to(where).as_posix()
        if path.is_dir():
            found[name] = "a directory"
        elif "/scores/" in name:
            found[name] = store.read_record(path).model_dump(exclude={"seconds": True, "provenance": {"started"}})
        elif path.name == "run.json":
            run = store.read_run(path)
            del run["seconds"], run["provenance"]["started"], run["files"]["history.csv"]  # which tells times, too
            found[name] = run
        elif path.name == "history.csv":
            titles, *rows = [line.split(",") for line in path.read_text().splitlines()]
            timed = {titles.index("seconds"), titles.index("images_per_second")}
            found[name] = [titles, *([cell for at, cell in enumerate(row) if at not in timed] for row in rows)]
        elif path.stem == "leaderboard":
            form = next(form for form, suffix in FORMATS.items() if path.suffix == f".{suffix}")
            assert path.read_text() == leaderboard.of(contents).render(form)
            found[name] = leaderboard.leaderboard(timeless, contents.plans, read).render(form)
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def made(where: Path) -> dict[Path, t.Any]:
    """What is published once, as it lies there; and the weights of a run that says that they are whole."""
    runs = [*where.rglob("seed*/run.json")]
    whole = [run.with_name(name) for run in runs for name in ("encoder.safetensors", "history.csv")]
    once = [*where.rglob("scores/*/*.json"), *whole]
    told = {run: store.read_run(run) | {"files": None} for run in runs}  # it learns the hashes of views that come later
    return told | {path: (path.read_bytes(), path.stat().st_ino) for path in once}


def check(server: Server, where: Path, moment: int, undisturbed: Undisturbed) -> None:
    assert server.call(where, moment)[0] == KILLED
    server.finish(where)
    assert files(where) == undisturbed.files, undisturbed.moments[moment]


def test_all_that_is_there_came_by_calls_that_are_watched(undisturbed: Undisturbed) -> None:
    named = {moment.partition(": ")[2] for moment in undisturbed.moments}
    assert {name.removeprefix("runs/") for name in undisturbed.files} <= named


def test_killed_at_a_moment_of_every_kind(server: Server, undisturbed: Undisturbed, tmp_path: Path) -> None:
    kinds: dict[str, list[int]] = {}
    for moment, what in enumerate(undisturbed.moments):
        kinds.setdefault(what.partition(":")[0], []).append(moment)
    assert kinds.keys() == KINDS
    for moments in kinds.values():
        moment = moments[2 * len(moments) // 3]
        check(server, tmp_path / str(moment), moment, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_every_moment(server: Server, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """pytest -m slow tests/test_kill.py"""
    for moment in range(len(undisturbed.moments)):
        check(server, tmp_path / str(moment), moment, undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_again_and_again(server: Server, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Each call comes one moment further than the one before, until one comes through."""
    moment = 0
    while server.call(tmp_path, moment)[0] == KILLED:
        moment += 1
    assert moment > 20
    server.finish(tmp_path)
    assert files(tmp_path) == undisturbed.files
