"""The wandb mirror: everything arrives once, and whatever wandb does, a suite loses nothing but a little time."""

import collections
import fcntl
import functools
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import textwrap
import time
import typing as t
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.pipeline import fit
from results import files, layout, store, wandb_mirror
from results.record import Provenance, Record
from results.statistics import wilson
from results.wandb_mirror import Live, MirrorReport, WandbTarget, _server, mirror, sync, target, wandb_runs

IMAGES = 3  # of the test set
OFFLINE = WandbTarget("offline", project="birds")
ONLINE = WandbTarget("online", project="birds")
BUSY = 60  # seconds that a machine with much to do may take longer; wandb itself would try for minutes
BIGAN, PIXELS, FAILED = "b" * 16, "c" * 16, "d" * 16
HISTORY = "epoch,seconds,images_per_second,judge,coder\n1,2.0,1000,0.69,nan\n2,2.5,800,0.6,1.5\n3,2.0,1000,inf,1.25\n"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No account, no settings, no proxies of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith(("WANDB_", "NETRC")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Three runs: one trained for three epochs and judged at two taps, one control, one that failed."""
    directory = tmp_path / "runs" / "mnist"
    for tap, top1 in (("code", 0.75), ("penultimate", 0.875)):
        add(directory, record(tap=tap, metrics={"top1": top1, "balanced": 0.5}))
    add(directory, record(key=PIXELS, label="pixels", encoder="pixels", is_control=True, metrics={"top1": 1.0}))
    for made, history in ((record(), HISTORY), (record(key=PIXELS, label="pixels", encoder="pixels"), "epoch\n")):
        run = made.model_dump(mode="json", exclude={"tap", "metrics", "details", "status", "error", "predictions"})
        files.publish(place(directory, made).run_json, files.canonical(run | {"taps": {"code": 50}}))
        files.publish(place(directory, made).history, history.encode())
    failed = record(
        key=FAILED, label="gan", encoder="gan", status="failed", error="loss is NaN", tap=None, protocol=None
    )
    store.publish_record(place(directory, failed).failed, failed)
    return directory


@pytest.fixture
def online(fake_wandb: t.Any, monkeypatch: pytest.MonkeyPatch) -> t.Any:
    """A server, and a key for it."""
    monkeypatch.setenv("WANDB_BASE_URL", fake_wandb.url)
    monkeypatch.setenv("WANDB_API_KEY", fake_wandb.key)
    return fake_wandb


def record(**changes: t.Any) -> Record:
    made = {"commit": "6e0b0c7", "dirty": False, "versions": {"torch": "2.13.0"}, "device": "cpu", "threads": 1}
    done: dict[str, t.Any] = {
        **{"suite": "mnist", "key": BIGAN, "dataset": "mnist5k", "split": "test", "limit": 1000},
        **{"fingerprint": "f" * 32, "train_images": 1000, "test_images": IMAGES, "encoder": "bigan", "label": "bigan"},
        **{"params": {"epochs": 3}, "encoder_version": 1, "is_control": False, "seed": 4, "status": "done"},
        **{"tap": "code", "dimensions": 50, "protocol": "knn", "protocol_label": "knn", "protocol_version": 1},
        **{"metrics": {"top1": 0.75}, "seconds": {"fit": 12.5, "extract": 0.25, "score": 0.5}},
        "provenance": Provenance(**made, precision="float32", started="2020-01-01T00:00:00Z"),
    }
    return Record(**done | changes)


def place(directory: Path, made: Record) -> layout.RunDirectory:
    return layout.run_directory(directory, made.label, "mnist5k-1000", made.seed, made.key)


def add(directory: Path, made: Record) -> None:
    assert made.tap is not None
    name, predictions = f"{made.protocol_label}@1-12345678", io.BytesIO()
    np.savez(predictions, predicted=np.array([len(made.tap), 1, 2], np.uint8), label=np.array([0, 1, 2], np.uint8))
    path = place(directory, made).predictions(made.tap, name)
    files.replace(path, predictions.getvalue())
    relative = path.relative_to(place(directory, made).path).as_posix()
    made = made.model_copy(update={"predictions": relative})
    store.publish_record(place(directory, made).record(made.tap, name), made)


def runs_of(server: t.Any) -> dict[str, t.Any]:
    """By the names that people see."""
    return {run.fields["displayName"]: run for run in server.runs.values()}


def epochs_of(run: t.Any) -> list[dict[str, t.Any]]:
    """The rows of its history that are of epochs; pictures and charts stand in others."""
    return [row for row in run.history if "images_per_second" in row]


def table_of(server: t.Any) -> list[dict[str, t.Any]]:
    """The rows of the table that the leaderboard run shows now."""
    run = runs_of(server)["leaderboard-mnist"]
    table = json.loads(run.files[run.summary["leaderboard"]["path"]])
    return [dict(zip(table["columns"], row)) for row in table["data"]]


def assert_all_there_once(server: t.Any) -> None:
    """What the suite above comes to, however often and with whatever interruptions it was sent."""
    runs = runs_of(server)
    assert sorted(runs) == [
        "bigan-mnist5k (limit 1000)-seed4",
        "gan-mnist5k (limit 1000)-seed4",
        "leaderboard-mnist",
        "pixels-mnist5k (limit 1000)-seed4",
    ]
    assert len(server.runs) == 4
    history = epochs_of(runs["bigan-mnist5k (limit 1000)-seed4"])
    assert [of_epoch(row) for row in history] == [
        {"epoch": 1, "seconds": 2.0, "images_per_second": 1000, "judge": 0.69},
        {"epoch": 2, "seconds": 2.5, "images_per_second": 800, "judge": 0.6, "coder": 1.5},
        {"epoch": 3, "seconds": 2.0, "images_per_second": 1000, "coder": 1.25},
    ]
    assert [row["_step"] for row in history] == [0, 1, 2]
    assert epochs_of(runs["pixels-mnist5k (limit 1000)-seed4"]) == []
    summary = runs["bigan-mnist5k (limit 1000)-seed4"].summary
    assert summary["status"] == "done"
    assert summary["mnist5k (limit 1000)/code/knn@1/top1"] == 0.75
    assert summary["mnist5k (limit 1000)/penultimate/knn@1/top1"] == 0.875
    assert summary["seconds/fit"] == 12.5
    failed = runs["gan-mnist5k (limit 1000)-seed4"].summary
    assert (failed["status"], failed["error"]) == ("failed", "loss is NaN")
    assert {(row["encoder"], row["tap"]): row["mean"] for row in table_of(server) if row["status"] == "done"} == {
        ("bigan", "code"): 0.75,
        ("bigan", "penultimate"): 0.875,
        ("pixels", "code"): 1.0,
    }
    kept = [artifact for artifact in server.artifacts.values() if artifact["type"] == "records"]
    assert kept[-1]["state"] == "COMMITTED"
    sent = [json.loads(line) for line in kept[-1]["files"]["records.jsonl"].splitlines()]
    assert sorted(one["key"] for one in sent) == [BIGAN, BIGAN, PIXELS, FAILED]


def of_epoch(row: dict[str, t.Any]) -> dict[str, t.Any]:
    """What was logged of an epoch: without wandb's own columns, and the pictures and charts that join the last one."""
    return {name: value for name, value in row.items() if not name.startswith("_") and "/" not in name}


def files_with(text: str, directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


# ---- what the environment says ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suite", "environment", "holds", "told_by"),
    [
        ("", "", "offline", ""),
        ("online", "disabled", "off", "WANDB_MODE"),
        ("offline", "disabled", "off", "WANDB_MODE"),
        ("online", "offline", "offline", "WANDB_MODE"),
        ("online", "dryrun", "offline", "WANDB_MODE"),
        ("off", "offline", "off", ""),  # each can say that nothing is sent
        ("off", "online", "off", ""),
        ("offline", "online", "offline", ""),
        ("", "online", "online", "WANDB_MODE"),
        ("", "disabled", "off", "WANDB_MODE"),
    ],
)
def test_an_environment_that_sends_nothing_wins(suite: str, environment: str, holds: str, told_by: str) -> None:
    found, by = target({"mode": suite or None}, {"WANDB_MODE": environment} if environment else {})
    assert (found.mode, by.get("mode", "")) == (holds, told_by)


def test_the_environment_fills_what_the_suite_leaves_open() -> None:
    told = {"WANDB_PROJECT": "env", "WANDB_ENTITY": "team", "WANDB_TAGS": "a, b,", "WANDB_DIR": "/w"}
    filled = WandbTarget("offline", "env", "team", ("a", "b"), "/w")
    sources = {name: f"WANDB_{name.upper()}" for name in ("project", "entity", "tags")} | {"directory": "WANDB_DIR"}
    assert target({}, told) == (filled, sources)
    said = {"mode": "online", "project": "own", "entity": "me", "tags": ["c"]}
    assert target(said, told) == (WandbTarget("online", "own", "me", ("c",), "/w"), {"directory": "WANDB_DIR"})


@pytest.mark.parametrize(
    ("name", "value"), [("MODE", "offlin"), ("PROJECT", "a/b"), ("PROJECT", "p" * 129), ("ENTITY", "me?")]
)
def test_what_wandb_would_refuse_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"^WANDB_{name}: wanted .*, got '{re.escape(value)}'"):
        target({}, {f"WANDB_{name}": value})


def test_files_go_where_wandb_dir_says(
    suite: Path, read_offline_run: t.Callable[[Path], t.Any], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "scratch"
    found, _ = target({"project": "birds"}, {"WANDB_DIR": str(elsewhere), "WANDB_TAGS": "mine"})
    assert mirror(suite, found) == MirrorReport(4, 0, None)
    runs = {run.name: run for run in map(read_offline_run, (elsewhere / "wandb").glob("offline-run-*"))}
    assert len(runs) == 4 and all(run.whole for run in runs.values())
    assert runs["leaderboard-mnist"].tags == ["mine"]
    assert runs["bigan-mnist5k (limit 1000)-seed4"].tags == ["mine", "mnist5k", "bigan"]
    assert list((suite / "wandb").glob("*offline-run-*")) == list((elsewhere / "wandb").glob(".*")) == []
    (records,) = runs["leaderboard-mnist"].artifacts["records"]
    assert elsewhere in records.parents and records.exists()


# ---- offline ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["loss\n1\n", "epoch,loss\n1,one\n", "epoch\n\xff", f"epoch\n{'1' * 140_000}x\n"])
def test_one_damaged_history_keeps_nothing_else_from_being_sent(suite: Path, text: str) -> None:
    (path, *_) = sorted(suite.rglob("history.csv"))
    path.write_bytes(text.encode("latin-1"))
    damaged: list[files.StoreError] = []
    runs = wandb_runs(suite, OFFLINE, damaged)
    assert [run.job_type for run in runs] == ["leaderboard", "run", "run", "run"]
    assert len(damaged) == 1 and str(damaged[0]).startswith(f"{path}: not a history")


def test_a_damaged_history_is_said_once(suite: Path) -> None:
    (path, *_) = sorted(suite.rglob("history.csv"))
    path.write_bytes(b"loss\n1\n")
    assert f"left out, being damaged: {path}: not a history" in str(mirror(suite, OFFLINE).problem)
    assert mirror(suite, OFFLINE, told=[path]).problem is None  # one line about it is enough


@pytest.mark.parametrize("kind", ["elsewhere", "pipe", "device", "sparse", "text"])
def test_predictions_are_read_from_the_runs_directory_and_with_limits(suite: Path, tmp_path: Path, kind: str) -> None:
    made = record(predictions="predictions/code/x.npz", protocol_label="other")
    if kind == "elsewhere":
        path = place(suite, made).record("code", "other")
        value = made.model_dump() | {"predictions": "../../../../secret.npz"}
        path.write_text(json.dumps(value | {"sha256": store._digest(path, value)}))
        named = path
    else:
        store.publish_record(place(suite, made).record("code", "other"), made)
        named = place(suite, made).path / "predictions/code/x.npz"
        named.parent.mkdir(parents=True, exist_ok=True)
        if kind == "pipe":
            os.mkfifo(named)
        elif kind == "device":
            named.symlink_to("/dev/zero")
        elif kind == "sparse":
            named.touch()
            os.truncate(named, 2**40)
        else:
            np.savez(named.with_suffix(""), predicted=np.array(["a", "b", "c"]), label=np.arange(3))
    damaged: list[files.StoreError] = []
    runs = wandb_runs(suite, OFFLINE, damaged)
    assert "code/other@1" not in [column for run in runs for column, _, _ in run.predictions]
    assert str(named) in " ".join([*map(str, damaged), *(str(path) for path, _ in store.read_store(suite).damaged)])


def test_what_takes_too_long_to_read_ends_in_time(suite: Path) -> None:
    assert "the time was up" in str(mirror(suite, OFFLINE, timeout=-1.0).problem)


def test_the_ledger_keeps_no_password_of_the_servers_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "https://me:secret@wandb.example/path@x")
    assert _server(WandbTarget("online")) == "https://wandb.example/path@x"


def test_off_writes_nothing(suite: Path) -> None:
    assert mirror(suite, WandbTarget("off")) == MirrorReport(0, 0, None)
    assert not (suite / "wandb").exists()


def test_offline_files_say_what_the_records_say(
    suite: Path, read_offline_run: t.Callable[[Path], t.Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "5ec2e7" * 7)
    assert mirror(suite, OFFLINE) == MirrorReport(4, 0, None)
    runs = {run.name: run for run in map(read_offline_run, (suite / "wandb").glob("offline-run-*"))}
    assert len(runs) == 4 and all(run.whole and run.project == "birds" for run in runs.values())
    bigan = runs["bigan-mnist5k (limit 1000)-seed4"]
    assert bigan.id.startswith(BIGAN)
    assert (bigan.group, bigan.job_type) == ("mnist", "run")
    assert bigan.config["params"] == {"epochs": 3} and bigan.config["versions"] == {"torch": "2.13.0"}
    assert [(row["epoch"], row.get("judge")) for row in epochs_of(bigan)] == [(1, 0.69), (2, 0.6), (3, None)]
    assert bigan.summary["mnist5k (limit 1000)/penultimate/knn@1/top1"] == 0.875
    board = runs["leaderboard-mnist"]
    assert board.job_type == "leaderboard"
    table = board.tables["leaderboard"]
    rows = [dict(zip(table["columns"], row)) for row in table["data"]]
    assert {row["mean"] for row in rows if row["encoder"] == "bigan"} == {0.75, 0.875}
    bars = board.tables["bars/mnist5k (limit 1000), knn@1, top1_table"]
    assert bars["columns"] == ["row", "mean", "low", "high"]
    low, high = wilson(0.75, IMAGES)
    assert [f"bigan/code ({100 * low:.2f} to {100 * high:.2f})", 0.75, low, high] in [
        [*row[:2], pytest.approx(row[2]), pytest.approx(row[3])] for row in bars["data"]
    ]
    assert [row[1] for row in bars["data"]] == [1.0, 0.875, 0.75]
    assert bars["data"][0][0] == f"pixels/code ({100 * wilson(1.0, IMAGES)[0]:.2f} to 100.00)"
    (records,) = board.artifacts["records"]
    assert suite in records.parents and len(records.read_bytes().splitlines()) == 4
    (predictions,) = bigan.artifacts["predictions"]
    assert pq.read_table(predictions).to_pydict() == {
        "row": [0, 1, 2],
        "label": [0, 1, 2],
        "code/knn@1": [4, 1, 2],
        "penultimate/knn@1": [11, 1, 2],
    }
    assert files_with("5ec2e7" * 7, tmp_path) == []
    assert list((tmp_path / "home").iterdir()) == []
    assert mirror(suite, OFFLINE) == MirrorReport(0, 4, None)
    assert len(list((suite / "wandb").glob("offline-run-*"))) == 4


def test_offline_update_does_not_repeat_the_history(suite: Path, read_offline_run: t.Callable[[Path], t.Any]) -> None:
    mirror(suite, OFFLINE)
    add(suite, record(protocol_label="linear", metrics={"top1": 0.5}))
    assert mirror(suite, OFFLINE) == MirrorReport(2, 2, None)
    parts = [read_offline_run(path) for path in (suite / "wandb").glob(f"offline-run-*-{BIGAN}*")]
    assert sorted(len(epochs_of(part)) for part in parts) == [0, 3]
    assert any("mnist5k (limit 1000)/code/linear@1/top1" in part.summary for part in parts)


def test_pictures_and_mistakes_of_a_run_are_sent(suite: Path, read_offline_run: t.Callable[[Path], t.Any]) -> None:
    picture = io.BytesIO()
    Image.new("L", (4, 4)).save(picture, "png")
    for kind in ("samples", "reconstructions"):
        files.replace(place(suite, record()).pictures / f"{kind}.png", picture.getvalue())
    view = io.BytesIO()
    np.savez(view, classes=np.array(["cat", "dog", "newt"]))
    files.replace(place(suite, record()).view("code"), view.getvalue())
    assert mirror(suite, OFFLINE) == MirrorReport(4, 0, None)
    (directory,) = (suite / "wandb").glob(f"offline-run-*-{BIGAN}*")
    run = read_offline_run(directory)
    shown = {name: value for row in run.history for name, value in row.items()}
    for kind in ("samples", "reconstructions"):
        sent = shown[f"pictures/{kind}"]
        assert (sent["_type"], sent["width"]) == ("image-file", 4)
        assert (directory / "files" / sent["path"]).exists()
    (mistakes,) = [table for name, table in run.tables.items() if name == "mistakes/code/knn@1_table"]
    counts = {tuple(row[:2]): row[2] for row in mistakes["data"]}
    assert counts["dog", "dog"] == counts["newt", "newt"] == 1  # of labels 0, 1, 2, told 4, 1, 2
    assert counts["cat", "4"] == 1
    assert mirror(suite, OFFLINE) == MirrorReport(0, 4, None)


# ---- while a suite runs ---------------------------------------------------------------------------------------------


def test_a_history_is_sent_as_it_grows_and_repeated_by_nobody(suite: Path, online: t.Any) -> None:
    about = record().model_dump(mode="json")
    where = place(suite, record())
    ended = where.run_json.rename(where.path / "ended.json")
    header, *rows = HISTORY.splitlines(keepends=True)
    files.replace(where.history, "".join([header, rows[0]]).encode())
    with Live(suite, ONLINE, [(about, where)], seconds=0.2):
        until(lambda: [len(run.history) for run in online.runs.values()] == [1])
        files.replace(where.history, "".join([header, *rows[:2]]).encode())
        until(lambda: [len(run.history) for run in online.runs.values()] == [2])
    (run,) = online.runs.values()
    assert run.summary["status"] == "running"
    assert run.fields["displayName"] == "bigan-mnist5k (limit 1000)-seed4"
    ended.rename(where.run_json)
    files.replace(where.history, HISTORY.encode())
    assert mirror(suite, ONLINE) == MirrorReport(4, 0, None)
    assert_all_there_once(online)


def test_a_wandb_that_hangs_does_not_hold_a_suite_up(suite: Path, online: t.Any) -> None:
    online.answers = "nothing"
    where = place(suite, record())
    where.run_json.unlink()
    with Live(suite, ONLINE, [(record().model_dump(mode="json"), where)], seconds=0.1):
        until(lambda: list((suite / "wandb").glob(".sending-*")))
        started = time.monotonic()
    assert time.monotonic() - started < 5 + BUSY
    until(lambda: not list((suite / "wandb").glob(".sending-*")))


TRAINS = """
import time, typing as t
from pathlib import Path
from encoders.base import Progress
from encoders.pixels import Pixels

class Trains(Pixels):
    source: t.ClassVar[str] = "a test"
    def fit(self, data, run):
        end = time.monotonic() + 60
        while not Path("seen").exists() and time.monotonic() < end:
            run.history[:] = [{"epoch": 1.0, "player_loss": 0.5}]
            run.report(Progress(1, 4, 0.3, 10.0, {"player": 0.5}, 90.0))
            time.sleep(0.05)
        return super().fit(data, run)
"""


def test_curves_are_there_before_the_training_has_ended(
    online: t.Any, frostbench: t.Callable[..., t.Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trains.py").write_text(TRAINS)
    monkeypatch.setattr(fit, "HISTORY_SECONDS", 0.0)
    monkeypatch.setattr(wandb_mirror, "Live", functools.partial(Live, seconds=0.2))
    states: list[str] = []

    def look(name: str) -> None:
        rows = [row for one in online.runs.values() for row in one.history if row.get("player_loss") == 0.5]
        if rows and not states:
            states.extend("running" if not list(tmp_path.glob("runs/**/run.json")) else "ended" for _ in rows[:1])
            (tmp_path / "seen").touch()

    online.before = look
    options = ["--set", "encoders=[trains]", "--plugin", "trains.py", "--set", "wandb.mode=online"]
    done = frostbench("run", "smoke", "--limit", "100", *options)
    assert done.code == 0, done.err
    assert states == ["running"]
    (sent,) = [one for one in online.runs.values() if one.fields["displayName"].startswith("trains")]
    assert [row["epoch"] for row in sent.history if "player_loss" in row] == [1]
    assert sent.summary["status"] == "done"


@pytest.mark.parametrize("mode", ["off", "offline"])
def test_nothing_is_sent_meanwhile_where_nothing_goes_online(suite: Path, mode: t.Any) -> None:
    where = place(suite, record())
    where.run_json.unlink()
    with Live(suite, WandbTarget(mode), [(record().model_dump(mode="json"), where)], seconds=0.0) as live:
        assert not live.thread.is_alive()
    assert not (suite / "wandb").exists()


# ---- online -----------------------------------------------------------------------------------------------------


def test_online_everything_arrives_once(suite: Path, online: t.Any, tmp_path: Path) -> None:
    assert mirror(suite, ONLINE) == MirrorReport(4, 0, None)
    assert_all_there_once(online)
    bigan = runs_of(online)["bigan-mnist5k (limit 1000)-seed4"]
    assert bigan.id.startswith(BIGAN) and bigan.fields["groupName"] == "mnist" and bigan.fields["project"] == "birds"
    config = {name: entry["value"] for name, entry in bigan.config.items()}
    assert config["seed"] == 4 and config["precision"] == "float32" and config["params"] == {"epochs": 3}
    sent = [one for one in online.artifacts.values() if one["type"] == "predictions"]
    assert [one["state"] for one in sent] == ["COMMITTED"] * 2
    assert {one["name"].rpartition("-")[0] for one in sent} == {f"predictions-{BIGAN}", f"predictions-{PIXELS}"}
    for row in table_of(online):
        assert type(row["seeds"]) is int
        assert all(row[name] is None or type(row[name]) in (int, float) for name in ("mean", "low", "high"))
    assert files_with(online.key, tmp_path) == []
    assert list((tmp_path / "home").iterdir()) == []
    assert [path.name for path in (suite / "wandb").iterdir() if path.name not in ("ledger", "lock")] == []
    online.requests.clear()
    assert sync(suite, OFFLINE) == MirrorReport(0, 4, None)
    assert online.requests == []


def test_a_new_record_reaches_its_run_without_repeating_the_history(suite: Path, online: t.Any) -> None:
    mirror(suite, ONLINE)
    add(suite, record(protocol_label="linear", metrics={"top1": 0.5}))
    assert mirror(suite, ONLINE) == MirrorReport(2, 2, None)
    bigan = runs_of(online)["bigan-mnist5k (limit 1000)-seed4"]
    assert [row["epoch"] for row in epochs_of(bigan)] == [1, 2, 3]
    assert bigan.summary["mnist5k (limit 1000)/code/linear@1/top1"] == 0.5
    assert bigan.summary["mnist5k (limit 1000)/code/knn@1/top1"] == 0.75
    assert ("bigan", "linear@1", 0.5) in [(row["encoder"], row["protocol"], row["mean"]) for row in table_of(online)]


@pytest.mark.slow
def test_a_lost_ledger_repeats_nothing(suite: Path, online: t.Any) -> None:
    mirror(suite, ONLINE)
    shutil.rmtree(suite / "wandb")
    assert mirror(suite, ONLINE) == MirrorReport(0, 4, None)
    assert_all_there_once(online)
    assert {run.ends for run in online.runs.values()} == {1}


def test_an_offline_suite_is_sent_once_by_sync(suite: Path, online: t.Any) -> None:
    assert mirror(suite, OFFLINE).sent == 4
    assert online.requests == []
    assert sync(suite, OFFLINE) == MirrorReport(4, 0, None)
    assert sync(suite, OFFLINE) == MirrorReport(0, 4, None)
    assert_all_there_once(online)
    assert {run.ends for run in online.runs.values()} == {1}


@pytest.mark.slow
def test_a_failed_run_that_succeeds_later_is_the_same_run(suite: Path, online: t.Any) -> None:
    mirror(suite, ONLINE)
    made = record(key=FAILED, label="gan", encoder="gan", train_images=900)
    directory = place(suite, made)
    directory.failed.unlink()
    add(suite, made)
    run = made.model_dump(mode="json", exclude={"tap", "metrics", "details", "status", "error", "predictions"})
    files.publish(directory.run_json, files.canonical(run | {"taps": {"code": 50}}))
    files.publish(directory.history, HISTORY.encode())
    assert mirror(suite, ONLINE) == MirrorReport(2, 2, None)
    assert len(online.runs) == 4
    gan = runs_of(online)["gan-mnist5k (limit 1000)-seed4"]
    assert (gan.summary["status"], gan.summary.get("error")) == ("done", None)
    assert gan.config["taps"]["value"] == {"code": 50} and gan.config["train_images"]["value"] == 900
    assert [row["epoch"] for row in gan.history] == [1, 2, 3]


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("CommitArtifact", marks=pytest.mark.slow),
        "history",
        pytest.param("after it", marks=pytest.mark.slow),
    ],
)
def test_a_server_that_dies_midway_gets_the_rest_later(
    suite: Path, online: t.Any, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(name: str) -> None:
        rows = [len(run.history) for run in online.runs.values() if run.id.startswith(BIGAN)]
        in_history = moment != "CommitArtifact" and name.endswith("file_stream") and rows
        if name == moment or (in_history and (moment == "history" or rows[0])):
            died.append(name)
            online.stop()

    died: list[str] = []
    online.before = die
    time_is_up_once(monkeypatch, lambda: died)
    report = mirror(suite, ONLINE)
    assert report.problem is not None and f"frostbench sync {suite}" in report.problem
    assert report.sent < 4
    online.before = lambda name: None
    died.clear()
    online.start()
    assert sync(suite, ONLINE).problem is None
    assert_all_there_once(online)
    assert sync(suite, ONLINE) == MirrorReport(0, 4, None)


# ---- what can go wrong ------------------------------------------------------------------------------------------


def test_refused(suite: Path, online: t.Any) -> None:
    online.stop()
    report = mirror(suite, ONLINE, timeout=20)
    online.start()
    assert report.sent == 0 and report.problem is not None
    assert "refused" in report.problem and f"frostbench sync {suite}" in report.problem


def test_a_server_that_never_answers_costs_a_few_seconds(suite: Path, online: t.Any) -> None:
    online.answers = "nothing"
    started = time.monotonic()
    report = mirror(suite, ONLINE)
    assert time.monotonic() - started < 5 + BUSY
    assert report.problem is not None and "no answer" in report.problem


def test_unavailable_from_the_start(suite: Path, online: t.Any) -> None:
    online.answers = "unavailable"
    report = mirror(suite, ONLINE)
    assert report.problem is not None and "503" in report.problem


def test_what_the_server_does_not_show_is_not_taken_for_sent(suite: Path, online: t.Any) -> None:
    """wandb calls a run finished whose history was refused."""
    online.answers = "all but history"
    report = mirror(suite, ONLINE, timeout=20)
    assert report.sent == 0 and report.problem is not None and "does not show" in report.problem
    assert not (suite / "wandb" / "ledger").exists()


def test_unavailable_after_the_start_ends_in_time_and_leaves_no_process(
    suite: Path, online: t.Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    class Noted(subprocess.Popen[bytes]):
        def __init__(self, *args: t.Any, **options: t.Any) -> None:
            super().__init__(*args, **options)
            started.append(self.pid)

    def fail(name: str) -> None:
        if name.endswith("file_stream"):
            online.answers = "unavailable"

    monkeypatch.setattr(subprocess, "Popen", Noted)
    online.before = fail
    begun = time.monotonic()
    report = mirror(suite, ONLINE, timeout=3)
    assert time.monotonic() - begun < 3 + BUSY
    assert report.problem is not None and "frostbench sync" in report.problem
    (group,) = started
    assert_none_alive(group)


def test_a_key_that_the_server_refuses(suite: Path, online: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    report = mirror(suite, ONLINE, timeout=10)
    assert report.sent == 0 and report.problem is not None
    assert "f" * 40 not in report.problem


def test_without_a_key_nobody_is_asked_on_a_terminal(suite: Path, fake_wandb: t.Any) -> None:
    code = f"""
        from pathlib import Path
        from results.wandb_mirror import *
        print(mirror(Path({str(suite)!r}), WandbTarget("online")))
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "WANDB_BASE_URL": fake_wandb.url, "COLUMNS": "1000"},
        start_new_session=True,
        # its controlling terminal, where passwords are read
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )
    os.close(theirs)
    said = b""
    try:
        while b"\n" not in said:
            said += os.read(ours, 10_000)
        assert process.wait(BUSY) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert said.startswith(b"MirrorReport(sent=0, already=0, problem='wandb: no API key")
    assert said.count(b"\n") == 1 and b"wandb login" in said
    assert "UpsertBucket" not in fake_wandb.requests


def shadow(directory: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another module called wandb comes first."""
    directory.mkdir()
    (directory / "wandb.py").write_text(textwrap.dedent(code))
    monkeypatch.syspath_prepend(str(directory))


def test_a_wandb_that_raises(suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow(tmp_path / "shadow", "raise RuntimeError('the wand is broken')", monkeypatch)
    report = mirror(suite, OFFLINE)
    assert report.sent == 0 and report.problem is not None and "the wand is broken" in report.problem


def test_no_wandb(suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow(tmp_path / "shadow", "raise ModuleNotFoundError('no', name='wandb')", monkeypatch)
    report = mirror(suite, OFFLINE)
    assert report.sent == 0 and report.problem is not None and "pip install wandb" in report.problem


def test_a_wandb_that_crashes(suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shadow(tmp_path / "shadow", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", monkeypatch)
    report = mirror(suite, OFFLINE)
    assert report.sent == 0 and report.problem is not None and "broke down (0 of 4 runs sent)" in report.problem


def test_a_wandb_that_hangs_is_killed_with_its_children(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"""
        import os, pathlib, signal, subprocess, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen(["sleep", "600"])
        pathlib.Path({str(tmp_path / "group")!r}).write_text(str(os.getpgrp()))
        time.sleep(600)
    """
    shadow(tmp_path / "shadow", code, monkeypatch)
    group = tmp_path / "group"
    time_is_up_once(monkeypatch, lambda: group.exists() and group.read_text())
    report = mirror(suite, OFFLINE)
    assert report.sent == 0 and report.problem is not None and "the time was up" in report.problem
    assert_none_alive(int(group.read_text()))
    assert list((suite / "wandb").glob(".sending-*")) == []


def test_a_suite_that_is_killed_while_it_sends_leaves_neither_process_nor_directory(
    suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"""
        import os, pathlib, subprocess, time
        subprocess.Popen(["sleep", "600"])
        pathlib.Path({str(tmp_path / "group")!r}).write_text(str(os.getpgrp()))
        time.sleep(600)
    """
    shadow(tmp_path / "shadow", code, monkeypatch)
    program = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(tmp_path / "shadow")!r})
        from results.wandb_mirror import WandbTarget, mirror
        mirror(Path({str(suite)!r}), WandbTarget("offline"), timeout=600)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    try:
        until(lambda: (tmp_path / "group").exists() and (tmp_path / "group").read_text())
        assert list((suite / "wandb").glob(".sending-*"))
    finally:
        process.kill()
    until(lambda: not list((suite / "wandb").glob(".sending-*")))
    assert_none_alive(int((tmp_path / "group").read_text()))
    process.wait()
    with (suite / "wandb" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def time_is_up_once(monkeypatch: pytest.MonkeyPatch, happened: t.Callable[[], object]) -> None:
    """Let the mirror's time be over when something has happened, however fast the machine is."""

    def wait(process: subprocess.Popen[bytes], limit: float, _stop: object) -> None:
        until(lambda: happened() or process.poll() is not None)
        if process.poll() is None:
            raise subprocess.TimeoutExpired(process.args, limit)

    monkeypatch.setattr(wandb_mirror, "_wait", wait)


def until(done: t.Callable[[], object]) -> None:
    end = time.monotonic() + 100
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def assert_none_alive(group: int) -> None:
    """No process of a group goes on; those that were killed may need a moment, or wait to be buried."""
    for _ in range(2000):
        listed = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
        fields = [line.split() for line in listed.splitlines()]
        if not any(int(of) == group and not state.startswith("Z") for of, state in fields):
            return
        time.sleep(0.05)
    raise AssertionError(f"a process of group {group} was left behind")


@pytest.mark.slow
def test_interrupted_by_the_user(suite: Path, online: t.Any) -> None:
    """Ctrl-C goes through, and what was sent before counts."""
    seen = collections.Counter[str]()

    def interrupt(name: str) -> None:
        seen[name] += 1
        if name.endswith("file_stream") and len(online.runs) == 3:
            online.before = lambda name: None
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)

    online.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        mirror(suite, ONLINE)
    report = sync(suite, ONLINE)
    assert report.problem is None and 0 < report.sent < 4
    assert_all_there_once(online)


def test_two_at_once_do_not_send_twice(suite: Path) -> None:
    (suite / "wandb").mkdir()
    with (suite / "wandb" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        report = mirror(suite, OFFLINE)
    assert report.sent == 0 and report.problem is not None and "another process" in report.problem
    assert list((suite / "wandb").glob("offline-run-*")) == []


def test_no_such_directory_is_a_problem_not_an_exception(tmp_path: Path) -> None:
    report = mirror(tmp_path / "nowhere", OFFLINE)
    assert report.problem is not None and "nowhere" in report.problem
