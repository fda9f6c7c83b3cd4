"""The result store: whole or absent, once, verified before use; whoever is killed, whatever is damaged."""

import contextlib
import errno
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import typing as t
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from results import files, layout, store
from results.files import Conflict, StoreError
from results.layout import RunDirectory
from results.record import Alarm, Provenance, Record

KEY = "0123456789abcdef"


def record(**changes: t.Any) -> Record:
    done: dict[str, t.Any] = {
        "suite": "s",
        "key": KEY,
        "dataset": "mnist5k",
        "split": "test",
        "limit": None,
        "fingerprint": "f" * 32,
        "train_images": 4000,
        "test_images": 1000,
        "encoder": "bigan",
        "label": "bigan",
        "params": {"epochs": 10, "widths": [1024, 1024]},
        "encoder_version": 1,
        "is_control": False,
        "seed": 0,
        "status": "done",
        "tap": "code",
        "dimensions": 50,
        "protocol": "knn",
        "protocol_label": "knn",
        "protocol_params": {"k": 1},
        "protocol_version": 1,
        "metrics": {"top1": 0.9684, "balanced": 0.1 + 0.2},
        "details": {"path": [[1e-3, 0.5], [1e-2, 0.75]], "note": "± ünïcode"},
        "predictions": "predictions/code/knn@1-aaaa.npz",
        "seconds": {"fit": 12.5, "extract": 0.25, "score": 0.5},
        "provenance": provenance(),
    }
    return Record(**(done | changes))


def provenance(**changes: t.Any) -> Provenance:
    made: dict[str, t.Any] = {
        "commit": "c" * 40,
        "dirty": False,
        "versions": {"python": "3.11.7"},
        "device": "cpu",
        "threads": 2,
        "precision": "float32",
        "started": "2025-01-01T00:00:00Z",
    }
    return Provenance(**(made | changes))


def a_run(suite: Path, label: str = "bigan", seed: int = 0) -> RunDirectory:
    return layout.run_directory(suite, label, "mnist5k", seed, KEY)


def litter(directory: Path) -> list[Path]:
    return list(directory.rglob("*.tmp"))


# ---- published once ---------------------------------------------------------------------------------------------


def test_publishing_twice_the_same_is_fine_and_something_else_keeps_both(tmp_path: Path) -> None:
    path = tmp_path / "new" / "directories" / "run.json"
    files.publish(path, b"one")
    files.publish(path, b"one")
    with pytest.raises(Conflict) as caught:
        files.publish(path, b"two")
    (kept,) = (path.parent / "conflicts").iterdir()
    assert path.read_bytes() == b"one"
    assert kept.read_bytes() == b"two"
    assert str(path) in str(caught.value)
    assert str(kept) in str(caught.value)
    assert not litter(tmp_path)


def test_replacing_gives_the_new_content(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        files.replace(tmp_path / "leaderboard.csv", content)
        assert (tmp_path / "leaderboard.csv").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["leaderboard.csv"]


def race(barrier: Barrier, directory: Path, me: int, outcomes: t.Any) -> None:
    for turn in range(25):
        barrier.wait()
        try:
            files.publish(directory / f"{turn}.json", f"{me} ".encode() * 5000)
            outcomes.put((turn, me))
        except Conflict:
            outcomes.put((turn, None))


def test_of_four_processes_racing_for_a_name_exactly_one_wins_and_nothing_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, outcomes = context.Barrier(4), context.SimpleQueue()
    racers = [context.Process(target=race, args=(barrier, tmp_path, me, outcomes)) for me in range(4)]
    for racer in racers:
        racer.start()
    told = [outcomes.get() for _ in range(100)]
    for racer in racers:
        racer.join()
    for turn in range(25):
        (winner,) = [me for when, me in told if when == turn and me is not None]
        assert (tmp_path / f"{turn}.json").read_bytes() == f"{winner} ".encode() * 5000
        kept = {path.read_bytes() for path in (tmp_path / "conflicts").glob(f"{turn}-*.json")}
        assert kept == {f"{me} ".encode() * 5000 for me in range(4) if me != winner}
    assert not litter(tmp_path)


# ---- killed, disk full ------------------------------------------------------------------------------------------

KILL = """
    def kill(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)
    def then_kill(real):
        return lambda *arguments: (real(*arguments), kill())
"""
MOMENTS = {  # injection -> whether the record is there afterwards, and how many temporary files
    "signal.signal(signal.SIGXFSZ, signal.SIG_DFL); resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))": (False, 1),
    "os.fsync = kill": (False, 1),
    "os.fsync = then_kill(os.fsync)": (False, 1),
    "os.link = kill": (False, 1),
    "os.link = then_kill(os.link)": (True, 1),
    "Path.unlink = kill": (True, 1),
    "files.sync = kill": (True, 0),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_leaves_nothing_or_the_whole_record(tmp_path: Path, moment: str) -> None:
    path = tmp_path / f"seed0-{KEY}" / "scores" / "code" / "knn@1-aaaa.json"
    path.parent.mkdir(parents=True)
    (tmp_path / "wanted.json").write_text(record().model_dump_json())
    program = "import os, resource, signal\nfrom pathlib import Path\nfrom results import files, store\n"
    program += "from results.record import Record\n" + textwrap.dedent(KILL)
    program += f"wanted = Record.model_validate_json(Path({str(tmp_path / 'wanted.json')!r}).read_text())\n"
    program += f"{moment}\nstore.publish_record(Path({str(path)!r}), wanted)\n"
    killed = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert killed.returncode in (-signal.SIGKILL, -signal.SIGXFSZ), killed.stderr.decode()
    contents = store.read_store(tmp_path)
    is_there, strays = MOMENTS[moment]
    assert contents.records == ([record()] if is_there else [])
    assert contents.damaged == []
    assert files.sweep(tmp_path) == strays  # of the process that is gone
    store.publish_record(path, record())
    assert store.read_record(path) == record()
    assert not litter(tmp_path)


@pytest.mark.parametrize("moment", ["write", "fsync"])
def test_a_full_disk_keeps_the_old_state_and_leaves_no_litter(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "leaderboard.csv", tmp_path / "run.json"
    files.replace(old, b"old")

    def full(*_: object) -> t.NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class FullFile:
        def __init__(self, path: Path) -> None:
            path.touch(exist_ok=False)

        def __enter__(self) -> "FullFile":
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, content: bytes) -> int:
            full()

    with monkeypatch.context() as patch:
        if moment == "write":
            patch.setattr(Path, "open", lambda path, mode: FullFile(path))
        else:
            patch.setattr(os, "fsync", full)
        for write, path in ((files.replace, old), (files.publish, new)):
            with pytest.raises(StoreError, match=r"disk full, .* is not written: make room and run the same command"):
                write(path, b"new")
    assert old.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["leaderboard.csv"]


def test_a_write_that_stops_half_way_leaves_nothing(tmp_path: Path) -> None:
    # the kernel itself refuses the 501st byte (EFBIG): no mock between the code and the file
    program = f"""
        import resource
        from pathlib import Path
        from results import files
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        try:
            files.publish(Path({str(tmp_path / "run.json")!r}), b"x" * 501)
        except files.StoreError as error:
            print(error)
    """
    told = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == f"{tmp_path / 'run.json'} is not written: File too large"
    assert list(tmp_path.iterdir()) == []


def test_sweeping_spares_the_living_other_machines_and_other_peoples_files(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = socket.gethostname()
    with files.token(tmp_path) as token:
        here, _, _ = token.name.partition(f"-{os.getpid()}-")
    names = {
        f"{here}-{gone.pid}-00000000.tmp": True,
        f"{here}-{os.getpid()}-00000000.tmp": False,
        f".frostbench-not-{host}-{gone.pid}-00000000.tmp": False,
        f".frostbench-not-{host}-{gone.pid}-11111111.tmp": True,  # a day old
        ".frostbench-notes.tmp": False,
        "paper.tmp": False,
    }
    deep = tmp_path / "deep" / "down"
    deep.mkdir(parents=True)
    for name in names:
        (deep / name).touch()
    os.utime(deep / f".frostbench-not-{host}-{gone.pid}-11111111.tmp", (0, time.time() - 90_000))
    assert files.sweep(tmp_path) == 2
    assert {path.name for path in deep.iterdir()} == {name for name, stray in names.items() if not stray}


def test_sweeping_spares_a_container_on_the_same_host(tmp_path: Path) -> None:
    """Its processes have numbers of their own: what is nobody here can be alive there."""
    program = f"""
        import os
        from pathlib import Path
        os.readlink = lambda path: "pid:[1]"
        from results import files
        with files.token(Path({str(tmp_path)!r})):
            os._exit(0)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)
    (theirs,) = litter(tmp_path)
    assert files.sweep(tmp_path) == 0
    os.utime(theirs, (0, time.time() - 90_000))
    assert files.sweep(tmp_path) == 1


# ---- whole runs -------------------------------------------------------------------------------------------------

RUN: dict[str, t.Any] = {"schema_version": 1, "key": KEY, "seconds": {"fit": 1.5}}


def a_training(name: str) -> tuple[dict[str, t.Any], dict[str, bytes]]:
    files = {"encoder.safetensors": name.encode(), "history.csv": name.encode(), "pictures/samples.png": name.encode()}
    return RUN | {"weights_sha256": name}, files


def lies(run: RunDirectory) -> dict[str, bytes]:
    return {path.relative_to(run.path).as_posix(): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_who_comes_late_overwrites_nothing(tmp_path: Path) -> None:
    """Also where no lock has told the two apart."""
    run = a_run(tmp_path)
    store.publish_run(run.path, *a_training("first"))
    before = lies(run)
    assert before.keys() == {"run.json", *a_training("first")[1]}
    store.publish_run(run.path, *a_training("first"))
    with pytest.raises(Conflict, match="published before with different content"):
        store.publish_run(run.path, *a_training("second"))
    after = lies(run)
    assert {name: after.pop(name) for name in before} == before
    assert [name.partition("/")[0] for name in after] == ["conflicts"]


def test_who_comes_late_between_the_look_and_the_rename_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, real, first = a_run(tmp_path), Path.rename, []

    def slow(self: Path, target: Path) -> Path:
        if not first:
            first.append(self)
            store.publish_run(run.path, *a_training("first"))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", slow)
    with pytest.raises(Conflict):
        store.publish_run(run.path, *a_training("second"))
    assert run.weights.read_bytes() == run.history.read_bytes() == b"first"
    assert store.read_run(run.run_json)["weights_sha256"] == "first"
    assert not (run.path / "publishing").exists()


@pytest.mark.parametrize("moment", [0, 4, 5, 8])
def test_a_publication_that_was_begun_is_finished_or_never_was(tmp_path: Path, moment: int) -> None:
    """Killed before one of its renames: of three files and run.json apart, of all four, of each to its place."""
    run = a_run(tmp_path)
    (tmp_path / "training.json").write_text(json.dumps(RUN | {"weights_sha256": "first"}))
    program = f"""
        import json, os, signal
        from pathlib import Path
        from results import store
        renames = iter(range(100))
        def counted(real):
            return lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL) if next(renames) == {moment} else real(*a, **k)
        os.replace, os.rename = counted(os.replace), counted(os.rename)
        training = json.loads(Path({str(tmp_path / "training.json")!r}).read_text())
        store.publish_run(Path({str(run.path)!r}), training, {a_training("first")[1]!r})
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not run.run_json.exists()
    begun = moment > 4
    assert (run.path / "publishing").exists() == begun
    store.publish_run(run.path, *a_training("second" if not begun else "first"))
    wanted = (b"second", b"first")[begun]
    assert run.weights.read_bytes() == run.history.read_bytes() == (run.pictures / "samples.png").read_bytes() == wanted
    files.sweep(tmp_path)
    assert lies(run).keys() == {"run.json", *a_training("first")[1]}


def test_any_flipped_bit_of_a_run_json_is_found_or_harmless(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    store.publish_run(run.path, *a_training("first"))
    content, told = run.run_json.read_bytes(), store.read_run(run.run_json)
    for at in range(len(content)):
        for bit in range(8):
            run.run_json.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
            try:
                came = store.read_run(run.run_json)
            except StoreError:
                continue
            assert came == told, (at, bit)  # a space that has become another one


def test_a_run_json_from_before_there_were_hashes_is_read(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    files.publish(run.run_json, files.canonical(RUN | {"weights_sha256": "first"}))
    assert store.read_run(run.run_json) == RUN | {"weights_sha256": "first"}


# ---- can it be written ------------------------------------------------------------------------------------------


def test_a_directory_that_can_be_written_is_left_empty(tmp_path: Path) -> None:
    files.check_writable(tmp_path / "runs" / "mnist")
    assert list((tmp_path / "runs" / "mnist").iterdir()) == []


def test_a_file_in_place_of_the_directory_is_said(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(StoreError, match=r"runs/mnist/.* Not a directory; an output directory must be writable"):
        files.check_writable(tmp_path / "runs" / "mnist")


def test_a_file_system_without_hard_links_is_found_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> t.NoReturn:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StoreError, match="hard links: choose another"):
        files.check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=5 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StoreError, match="has 5 MiB free; a run needs 64 MiB"):
        files.check_writable(tmp_path)


# ---- names ------------------------------------------------------------------------------------------------------


def test_a_run_keeps_its_files_where_the_design_says() -> None:
    run = layout.run_directory(Path("runs/mnist"), "bigan-long", "mnist", 2, KEY)
    assert run.path == Path(f"runs/mnist/bigan-long/mnist/seed2-{KEY}")
    assert run.record("code", "knn@1-aa") == run.path / "scores/code/knn@1-aa.json"
    assert run.predictions("code", "knn@1-aa") == run.path / "predictions/code/knn@1-aa.npz"
    files = [run.run_json, run.weights, run.encoder_json, run.history, run.failed, run.checkpoint]
    names = ["run.json", "encoder.safetensors", "encoder.json", "history.csv", "failed.json", "checkpoint"]
    assert files == [run.path / name for name in names]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "/etc", ".hidden", "a\0b", "a\nb", "x" * 201])
def test_names_cannot_leave_the_directory(name: str) -> None:
    runs, run = Path("runs"), RunDirectory(Path("runs/x"))
    with pytest.raises(StoreError, match="cannot be part of a path"):
        layout.run_directory(runs, name, "mnist", 0, KEY)
    with pytest.raises(StoreError, match="cannot be part of a path"):
        layout.run_directory(runs, "bigan", name, 0, KEY)
    with pytest.raises(StoreError, match="cannot be part of a path"):
        run.record(name, "knn@1-aa")
    with pytest.raises(StoreError, match="cannot be part of a path"):
        run.predictions("code", name)


@pytest.mark.parametrize(("seed", "key"), [(-1, KEY), (0, "abc"), (0, KEY.upper()), (0, "../" + KEY[3:])])
def test_a_run_needs_a_seed_and_a_key(seed: int, key: str) -> None:
    with pytest.raises(StoreError, match="16 hex digits"):
        layout.run_directory(Path("runs"), "bigan", "mnist", seed, key)


# ---- records ----------------------------------------------------------------------------------------------------


def test_canonical_json_is_one_way_of_writing() -> None:
    assert files.canonical({"b": [1.5, None], "a": "±"}) == '{\n "a": "±",\n "b": [\n  1.5,\n  null\n ]\n}\n'.encode()
    for value in (float("nan"), [float("inf")], {1, 2}, Path("x"), "\ud800"):
        with pytest.raises(StoreError, match="cannot be written as JSON"):
            files.canonical(value)


def test_a_record_comes_back_as_it_was_with_its_first_metric_first(tmp_path: Path) -> None:
    wanted = record(metrics={"top1": 0.9, "balanced": 0.1 + 0.2, "a": 1e-300})
    path = a_run(tmp_path).record("code", "knn@1-aaaa")
    store.publish_record(path, wanted)
    assert store.read_record(path) == wanted
    assert list(store.read_record(path).metrics) == ["top1", "balanced", "a"]
    assert len(json.loads(path.read_text())["sha256"]) == 64


def test_a_run_repeated_with_the_same_numbers_is_no_conflict(tmp_path: Path) -> None:
    path = a_run(tmp_path).record("code", "knn@1-aaaa")
    store.publish_record(path, record())
    store.publish_record(path, record(seconds={"fit": 99.0}, provenance=provenance(started="2025-01-02T00:00:00Z")))
    assert store.read_record(path) == record()
    with pytest.raises(Conflict, match="published before with different content"):
        store.publish_record(path, record(metrics={"top1": 0.5}))
    contents = store.read_store(tmp_path)
    assert contents.records == [record()]
    ((conflict, why),) = contents.damaged
    assert conflict.parent.name == "conflicts"
    assert "another content was published first" in why


def test_a_record_from_before_there_were_alarms_is_read_and_agrees_with_one_that_has_them(tmp_path: Path) -> None:
    path = a_run(tmp_path).record("code", "knn@1-aaaa")
    value = record().model_dump(exclude={"alarms"})
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(value | {"sha256": store._digest(path, value)}))
    assert store.read_record(path) == record()
    alarm = Alarm(name="dead_units", value=0.75, threshold=0.5, text="75% of the 8 units have the same value")
    alarmed = record(alarms=[alarm], provenance=provenance(started="2025-01-02T00:00:00Z"))
    again = a_run(tmp_path / "again").record("code", "knn@1-aaaa")
    store.publish_record(again, alarmed)
    assert store.read_record(again).alarms == [alarm]
    assert store.read_store(tmp_path) == store.Contents([alarmed], [], [])


def test_a_damaged_record_makes_way_for_a_whole_one_and_is_kept(tmp_path: Path) -> None:
    path = a_run(tmp_path).record("code", "knn@1-aaaa")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    store.publish_record(path, record())
    assert store.read_store(tmp_path) == store.Contents([record()], [], [])
    (aside,) = (path.parent / "corrupt").iterdir()
    assert aside.read_bytes() == b"damaged"


def test_a_failed_attempt_replaces_the_one_before(tmp_path: Path) -> None:
    failed: dict[str, t.Any] = {"status": "failed", "tap": None, "protocol": None, "metrics": {}}
    for error in ("first", "second"):
        store.publish_record(a_run(tmp_path).failed, record(error=error, **failed))
    assert [found.error for found in store.read_store(tmp_path).records] == ["second"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"details": {"loss": float("nan")}}, "JSON"),
        ({"details": {"loss": {1, 2, object()}}}, "JSON"),
        ({"metrics": {"top1": 96.84}}, r"fractions in 0\.\.1; top1 is 96.84"),
        ({"details": {"log": "x" * files.MAX_JSON_BYTES}}, "may have"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path: Path, changes: dict[str, t.Any], why: str) -> None:
    with pytest.raises(StoreError, match=why):
        store.publish_record(tmp_path / "record.json", record(**changes))
    assert list(tmp_path.iterdir()) == []


# ---- damage -----------------------------------------------------------------------------------------------------


def rehashed(path: Path, change: t.Callable[[dict[str, t.Any]], None]) -> bytes:
    """The record with something changed and a hash that fits: only the schema can tell."""
    value = json.loads(path.read_text())
    del value["sha256"]
    change(value)
    return json.dumps(value | {"sha256": store._digest(path, value)}).encode()


DAMAGE: dict[str, tuple[t.Callable[[Path], bytes], str]] = {
    "bit flip": (lambda path: path.read_bytes().replace(b"0.9684", b"0.9685"), "changed since it was written"),
    "hash lost": (lambda path: path.read_bytes().replace(b'"sha256"', b'"sha257"'), "no sha256"),
    "truncation": (lambda path: path.read_bytes()[:-100], "not JSON"),
    "zero-fill": (lambda path: bytes(len(path.read_bytes())), "only zeros"),
    "zero tail": (lambda path: path.read_bytes()[:300] + bytes(300), "not JSON"),
    "empty": (lambda path: b"", "empty"),
    "not JSON": (lambda path: b"top1: 0.9", "not JSON"),
    "not UTF-8": (lambda path: b"\xff\xfe{}", "not JSON"),
    "deep": (lambda path: b"[" * 100_000, "not JSON"),
    "long number": (lambda path: b"1" * 100_000, "not JSON"),
    "a list": (lambda path: b"[]", "no sha256"),
    "infinite": (lambda path: path.read_bytes().replace(b"0.9684", b"1e9999"), "not JSON compliant"),
    "huge": (lambda path: path.read_bytes() + b" " * files.MAX_JSON_BYTES, "larger than"),
    "next schema": (lambda path: rehashed(path, lambda value: value.update(schema_version=2)), "schema version 2"),
    "missing field": (lambda path: rehashed(path, lambda value: value.pop("seed")), "lacks the field seed"),
    "another field": (lambda path: rehashed(path, lambda value: value.update(x=1)), "x: Extra inputs"),
    "wrong type": (lambda path: rehashed(path, lambda value: value.update(seed="zero")), "seed: Input should be"),
    "percent": (lambda path: rehashed(path, lambda value: value.update(metrics={"top1": 96.8})), "fractions in 0..1"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_reported_not_used_and_not_deleted(tmp_path: Path, kind: str) -> None:
    damage, why = DAMAGE[kind]
    good, bad = a_run(tmp_path, seed=1).record("code", "knn@1-aa"), a_run(tmp_path).record("code", "knn@1-aa")
    store.publish_record(good, record(seed=1))
    store.publish_record(bad, record())
    damaged = damage(bad)
    bad.write_bytes(damaged)
    contents = store.read_store(tmp_path)
    assert contents.records == [record(seed=1)]
    ((path, told),) = contents.damaged
    assert path == bad
    assert why in told
    assert str(bad) not in told  # said once, by the path
    assert bad.read_bytes() == damaged
    with pytest.raises(StoreError, match=r"knn@1-aa\.json: "):
        store.read_record(bad)


def test_any_flipped_bit_is_found_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    store.publish_record(path, record())
    whole, found = path.read_bytes(), 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            assert store.read_record(path) == record()  # white space became other white space
        except StoreError:
            found += 1
    assert found > 0.6 * len(whole)


def test_a_damaged_run_json_is_reported_too(tmp_path: Path) -> None:
    files.publish(a_run(tmp_path).run_json, files.canonical({"schema_version": 1, "key": KEY}))
    files.publish(a_run(tmp_path, seed=1).run_json, b"[1]")
    files.publish(a_run(tmp_path, seed=2).run_json, b"")
    contents = store.read_store(tmp_path)
    assert contents.runs == [{"schema_version": 1, "key": KEY}]
    assert [path.parent.name[:5] for path, _ in contents.damaged] == ["seed1", "seed2"]


def test_a_pipe_in_place_of_a_record_does_not_hang(tmp_path: Path) -> None:
    path = a_run(tmp_path).failed
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    assert store.read_store(tmp_path).damaged == [(path, "not a regular file")]


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "directory", "link to a device"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "encoder.safetensors"
    with contextlib.ExitStack() as until:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            until.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
        elif kind == "directory":
            path.mkdir()
        elif kind == "device":
            path = Path(os.devnull)
        else:
            path.symlink_to("/dev/zero")
        for read in (files.read_bytes, files.file_digest, store.read_record, store.read_run):
            with pytest.raises(StoreError, match=r"not a regular file|No such device"):
                read(path)


def test_a_directory_in_place_of_a_record_or_a_run_json_is_damage(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    places = [run.record("code", "knn@1-aa"), run.run_json]
    for place in places:
        place.mkdir(parents=True)
    assert store.read_store(tmp_path).damaged == [(path, "not a regular file") for path in sorted(places)]
    store.publish_record(places[0], record())
    assert store.read_store(tmp_path).records == [record()]


def test_sizes_are_looked_at_before_a_byte_is_read(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    path.touch()
    os.truncate(path, files.MAX_BYTES + 1)  # sparse: it takes no room
    for read in (files.read_bytes, files.file_digest, store.read_record):
        with pytest.raises(StoreError, match="larger than"):
            read(path)
    with pytest.raises(files.Missing, match="no such file"):
        files.read_bytes(tmp_path / "absent")


@pytest.mark.parametrize(
    "text",
    [
        "loss\n0.5\n",
        "epoch,loss\ninf,0.5\n",
        "epoch,loss\nnan,0.5\n",
        "epoch,loss\n1\n",
        "epoch,loss\n1,2,3\n",
        "epoch,loss\n1,one\n",
        "epoch,loss\n1,2j\n",
        f"epoch,loss\n1,{'1' * 200_000}\n",
        "epoch,loss\n1,\ud800\n",
    ],
)
def test_what_is_no_history_is_damage(tmp_path: Path, text: str) -> None:
    run = a_run(tmp_path)
    files.replace(run.history, text.encode(errors="surrogatepass"))
    with pytest.raises(StoreError, match="not a history"):
        store.read_history(run)


def test_a_history_is_read_without_what_is_not_finite(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    files.replace(run.history, b"epoch,loss\n1,inf\n2,0.5\n3,-inf\n4,nan\n")
    assert store.read_history(run) == [{"epoch": 1}, {"epoch": 2, "loss": 0.5}, {"epoch": 3}, {"epoch": 4}]
    files.replace(run.history, b"epoch,seconds\n")
    assert store.read_history(run) == []


def test_a_file_is_believed_if_run_json_has_its_hash_or_is_older_than_these(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    files.replace(run.history, b"epoch\n1\n")
    assert store.read_history(run) == [{"epoch": 1}]  # published without a run.json
    files.replace(run.run_json, files.canonical({"schema_version": 1}))
    assert store.is_kept(run, run.history)
    files.replace(run.run_json, store.sealed(tmp_path, {"schema_version": 1, "files": store.file_digests(run)}))
    assert store.is_kept(run, run.history)
    files.replace(run.history, b"epoch\n2\n")
    with pytest.raises(StoreError, match="changed since it was written"):
        store.read_history(run)
    store.note_files(run, [run.history])
    assert store.read_history(run) == [{"epoch": 2}]


@pytest.mark.parametrize("about", [{"params": []}, {"seed": "0"}, {"files": {"history.csv": 1}}, {"provenance": 0}])
def test_a_run_json_of_other_types_is_damaged(tmp_path: Path, about: dict[str, t.Any]) -> None:
    files.replace(tmp_path / "run.json", store.sealed(tmp_path, {"schema_version": 1, **about}))
    with pytest.raises(StoreError, match=f"not a run of schema version 1: {next(iter(about))}"):
        store.read_run(tmp_path / "run.json")


def test_a_run_json_that_lacks_what_is_needed_is_named(tmp_path: Path) -> None:
    files.replace(tmp_path / "run.json", files.canonical({"schema_version": 1, "seed": 0}))
    with pytest.raises(StoreError, match="lacks the fields encoder, params"):
        store.read_run(tmp_path / "run.json", "encoder", "seed", "params")


# ---- the whole store --------------------------------------------------------------------------------------------


def test_reading_finds_the_same_from_the_run_the_suite_and_above_and_skips_the_rest(tmp_path: Path) -> None:
    run = a_run(tmp_path / "runs" / "mnist")
    store.publish_record(run.record("code", "knn@1-aa"), record())
    store.publish_record(run.record("penultimate", "knn@1-aa"), record(tap="penultimate"))
    files.publish(run.run_json, files.canonical({"schema_version": 1}))
    files.publish(run.encoder_json, b"{}")
    files.publish(run.predictions("code", "knn@1-aa"), b"")
    files.replace(tmp_path / "runs" / "mnist" / "leaderboard.json", b"[]")
    (run.path / "scores" / "code" / ".knn@1-aa.json.swp").write_bytes(b"editor")
    (run.path / "scores" / "code" / files._temporary_name()).write_bytes(b"half")
    shutil.copytree(tmp_path / "runs" / "mnist", tmp_path / "runs" / ".trash")
    wanted = store.Contents([record(), record(tap="penultimate")], [{"schema_version": 1}], [])
    for directory in (run.path, run.path.parent, tmp_path / "runs" / "mnist", tmp_path):
        assert store.read_store(directory) == wanted


def test_links_to_directories_of_suites_and_labels_are_followed_once(tmp_path: Path) -> None:
    runs, far = tmp_path / "runs", tmp_path / "far"
    store.publish_record(a_run(runs / "here").record("code", "knn@1-aa"), record())
    store.publish_record(a_run(far / "suite", seed=1).record("code", "knn@1-aa"), record(seed=1))
    store.publish_record(a_run(far, "label", seed=2).record("code", "knn@1-aa"), record(seed=2))
    (runs / "linked").symlink_to(far / "suite")
    (runs / "here" / "linked").symlink_to(far / "label")
    (runs / "here" / "round").symlink_to(runs)
    (runs / "here" / "nowhere").symlink_to(tmp_path / "nowhere")
    contents = store.read_store(runs)
    assert [one.seed for one in contents.records] == [0, 1, 2]
    assert contents.damaged == []
    named = {path.relative_to(runs).parts[:2] for path in contents.whole}
    assert named == {("here", "bigan"), ("here", "linked"), ("linked", "bigan")}
    assert len(list(layout.runs_below(runs))) == 3


@pytest.mark.parametrize("label", ["corrupt", "conflicts", "wandb", f"seed0-{KEY}"])
def test_names_of_the_stores_own_are_refused(tmp_path: Path, label: str) -> None:
    for suite, named in ((tmp_path, label), (tmp_path / label, "bigan")):
        with pytest.raises(StoreError, match="the store keeps other things under this name"):
            a_run(suite, named)


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), "x" * 256, "/".join(["x" * 200] * 20)])
def test_paths_that_cannot_be_written_down_or_are_too_long_are_refused(tmp_path: Path, name: str) -> None:
    for use in (store.read_store, a_run):
        with pytest.raises(StoreError, match=r"not UTF-8|too long"):
            use(tmp_path / name / "small")


def test_reading_does_not_depend_on_where_things_lie(tmp_path: Path) -> None:
    records = [record(seed=seed, tap=tap) for seed in range(3) for tap in ("code", "penultimate")]
    for suite, order in (("a", records), ("b", records[::-1])):
        for place, one in enumerate(order):
            store.publish_record(a_run(tmp_path / suite / str(place), seed=one.seed).record("x", "knn@1-aa"), one)
    assert store.read_store(tmp_path / "a") == store.read_store(tmp_path / "b") == store.Contents(records, [], [])


def test_a_copied_directory_counts_once_and_unequal_copies_not_at_all(tmp_path: Path) -> None:
    for suite, started in (("one", "2025-01-01T00:00:00Z"), ("two", "2025-01-02T00:00:00Z")):
        again = record(suite=suite, seconds={"fit": 1.0}, provenance=provenance(started=started))
        store.publish_record(a_run(tmp_path / suite).record("code", "knn@1-aa"), again)
    store.publish_record(a_run(tmp_path / "one", seed=1).record("code", "knn@1-aa"), record(seed=1))
    contents = store.read_store(tmp_path)
    # the newest stands for both
    assert [(found.suite, found.seed) for found in contents.records] == [
        ("two", 0),
        ("s", 1),
    ]
    assert contents.damaged == []
    other = a_run(tmp_path / "three", seed=1).record("code", "knn@1-aa")
    store.publish_record(other, record(seed=1, metrics={"top1": 0.5}))
    contents = store.read_store(tmp_path)
    assert [found.seed for found in contents.records] == [0]
    assert [path.relative_to(tmp_path).parts[0] for path, _ in contents.damaged] == ["one", "three"]
    assert all("other numbers than" in why for _, why in contents.damaged)


def test_a_metric_that_a_protocol_reports_since_then_is_no_other_number(tmp_path: Path) -> None:
    for suite, day, more in (("one", 1, {}), ("two", 2, {"top5": 0.9})):
        made = provenance(started=f"2025-01-0{day}T00:00:00Z")
        judged = record(metrics={"top1": 0.5} | more, provenance=made)
        store.publish_record(a_run(tmp_path / suite).record("code", "knn@1-aa"), judged)
    contents = store.read_store(tmp_path)
    assert (contents.damaged, [found.metrics for found in contents.records]) == ([], [{"top1": 0.5, "top5": 0.9}])


def test_scores_of_another_solver_need_not_have_the_same_bits(tmp_path: Path) -> None:
    kept = a_run(tmp_path / "one").record("code", "knn@1-aa")
    store.publish_record(kept, record(metrics={"top1": 0.5}))
    store.publish_record(
        kept, record(metrics={"top1": 0.5}, details=record().details | {"solver": 1})
    )  # old ones say none
    made = provenance(started="2025-01-02T00:00:00Z")
    newer = record(metrics={"top1": 0.6}, details=record().details | {"solver": 2}, provenance=made)
    store.publish_record(a_run(tmp_path / "two").record("code", "knn@1-aa"), newer)
    contents = store.read_store(tmp_path)
    assert [found.metrics for found in contents.records] == [{"top1": 0.6}]
    assert contents.damaged == []


def test_of_a_run_made_again_where_bits_may_differ_the_newest_counts(tmp_path: Path) -> None:
    for suite, day, threads, top1 in (("one", 1, 1, 0.5), ("two", 2, 2, 0.6)):
        made = provenance(started=f"2025-01-0{day}T00:00:00Z", threads=threads)
        path = a_run(tmp_path / suite).record("code", "knn@1-aa")
        store.publish_record(path, record(suite=suite, metrics={"top1": top1}, provenance=made))
    contents = store.read_store(tmp_path)
    assert [found.metrics for found in contents.records] == [{"top1": 0.6}]
    assert contents.damaged == []
    assert len(contents.whole) == 2


def test_a_newer_run_made_elsewhere_hides_no_contradiction_between_older_ones(tmp_path: Path) -> None:
    for suite, day, threads, top1 in (("one", 1, 1, 0.5), ("two", 2, 1, 0.6), ("three", 3, 2, 0.7)):
        made = provenance(started=f"2025-01-0{day}T00:00:00Z", threads=threads)
        path = a_run(tmp_path / suite).record("code", "knn@1-aa")
        store.publish_record(path, record(suite=suite, metrics={"top1": top1}, provenance=made))
    contents = store.read_store(tmp_path)
    assert [found.metrics for found in contents.records] == [{"top1": 0.7}]
    assert [path.relative_to(tmp_path).parts[0] for path, _ in contents.damaged] == ["one", "two"]


def test_other_settings_or_versions_of_a_protocol_are_other_records(tmp_path: Path) -> None:
    records = [record(), record(protocol_params={"k": 5}), record(protocol_version=2), record(protocol_label="one")]
    for place, one in enumerate(records):
        store.publish_record(a_run(tmp_path).record("code", f"knn@1-{place}"), one)
    contents = store.read_store(tmp_path)
    assert len(contents.records) == 4
    assert contents.damaged == []


def test_no_directory_is_an_error_and_an_empty_one_is_empty(tmp_path: Path) -> None:
    assert store.read_store(tmp_path) == store.Contents([], [], [])
    with pytest.raises(StoreError, match=r"no results in .*nowhere: there is no such directory"):
        store.read_store(tmp_path / "nowhere")


def test_the_store_never_imports_torch_or_pandas() -> None:
    program = "import sys, results.store; assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_rand_index_below_chance_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    store.publish_record(path, record(metrics={"top1": 0.1, "ari": -0.02}))
    assert store.read_record(path).metrics["ari"] == -0.02
    with pytest.raises(files.StoreError, match=r"ari is -1\.5"):
        store.publish_record(tmp_path / "two.json", record(metrics={"top1": 0.1, "ari": -1.5}))


def test_the_versions_of_encoders_are_read_where_older_suites_have_them_too(tmp_path: Path) -> None:
    encoder = {"name": "pca", "label": "small", "params": {}}
    now = {"suite": "now", "encoders": [encoder | {"version": 3}]}
    before = {"suite": "then", "encoders": [encoder], "encoder_versions": {"small": 3}}
    for suite in (now, before):
        files.replace(tmp_path / suite["suite"] / "suite.json", files.canonical(suite))
    plans = store.read_store(tmp_path).plans
    assert [one.version for plan in plans for one in plan.encoders] == [3, 3]
    made = {"encoder": "pca", "label": "small", "params": {}}
    for plan in plans:
        assert plan.asks_for(record(**made, encoder_version=3))
        assert not plan.asks_for(record(**made, encoder_version=2))


def test_a_suite_is_read_for_its_order_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    protocols = [{"name": name, "label": name, "params": {}, "version": 1} for name in ("knn", "linear")]
    whole = {"suite": "one", "protocols": protocols, "encoders": [], "wandb": {"mode": "off"}}
    files.replace(tmp_path / "one" / "suite.json", files.canonical(whole))
    files.replace(tmp_path / "two" / "suite.json", files.canonical({"suite": "two", "protocols": 5}))
    files.replace(tmp_path / "three" / "suite.json", b"{")
    contents = store.read_store(tmp_path)
    assert [(plan.suite, [one.label for one in plan.protocols]) for plan in contents.plans] == [
        ("one", ["knn", "linear"])
    ]
    (unread, why), (wrong, what) = contents.damaged
    assert (unread, "not JSON" in why) == (tmp_path / "three" / "suite.json", True)
    assert (wrong, "not a suite: protocols" in what) == (tmp_path / "two" / "suite.json", True)
