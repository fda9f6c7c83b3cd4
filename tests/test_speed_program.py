"""`frostbench speed`: that it measures what it says, not how fast anything is."""

import json
import multiprocessing
import time
import typing as t
from pathlib import Path

import pytest
import torch

from bench import speed
from bench.speed import train
from bench.speed.race import Effort, Memory, Rates, Row, race

CPU = torch.device("cpu")
AT = Rates(CPU, 1, {"float32": 1e11}, 1e10)
TINY = Effort(rounds=1, seconds=0, train_images=256, gallery=600, queries=200, records=1, thorough=False)


def test_the_plain_loop_has_a_process_of_its_own_whose_end_is_told() -> None:
    with train._apart("BiGAN", 256, AT) as lap:
        seconds, accuracy = lap()
        assert seconds > 0
        assert 0.1 < accuracy <= 1
        (child,) = multiprocessing.active_children()
        child.kill()
        with pytest.raises(RuntimeError, match="the plain loop's process ended with exit code -9"):
            lap()
    assert not multiprocessing.active_children()


def test_the_contestants_run_in_turn_and_the_median_counts() -> None:
    laps: dict[str, t.Iterator[float]] = {"ours": iter([9.0, 1.0, 5.0, 2.0]), "theirs": iter([9.0, 4.0, 4.0, 4.0])}
    order: list[str] = []

    def lap(name: str) -> float:
        order.append(name)
        return next(laps[name])

    effort = Effort(3, 60, 0, 0, 0, 0, thorough=False)
    assert race({name: lambda name=name: lap(name) for name in laps}, effort) == {"ours": 2.0, "theirs": 4.0}
    assert order == ["ours", "theirs"] * 4


def test_a_lap_that_warms_up_never_counts_however_little_time_there_is() -> None:
    laps = iter([100.0, 1.0])
    assert race({"ours": lambda: next(laps)}, Effort(3, 0, 0, 0, 0, 0, thorough=False)) == {"ours": 1.0}


def test_memory_is_what_was_added_at_the_peak() -> None:
    with Memory(CPU) as used:
        held = torch.ones(2**24)
        end = time.monotonic() + 60
        while used.peak - used.before < 60 * 2**20 and time.monotonic() < end:  # until the thread has looked
            time.sleep(0.01)
        del held
        time.sleep(0.05)
    assert used.added is not None
    assert 60 * 2**20 < used.added < 100 * 2**20


def test_a_limit_is_products_at_their_rate_and_traffic_at_memorys() -> None:
    assert AT.limit(flops=2e11, traffic=5e9) == pytest.approx(2.5)


def test_the_probes_are_compared_on_the_same_real_digits() -> None:
    path, single = speed.measure(["linear"], AT, TINY)
    for row in (path, single):
        assert "600 x 784 mnist" in row.case
        assert row.ours and row.theirs and row.limit
        assert row.our_accuracy == pytest.approx(row.their_accuracy, abs=0.05)
        assert row.our_accuracy > 0.7
    ours, theirs = (float(part.split()[-1]) for part in single.remark.split(";")[0].split(","))
    assert ours == pytest.approx(theirs, abs=2e-3)
    rows = [row for row in speed.measure(["knn"], AT, TINY) if row.ours]
    assert rows
    assert {row.remark for row in rows} == {"100.00% of its neighbours are as near as ours"}
    assert all(row.our_accuracy == row.their_accuracy for row in rows)


def test_extraction_is_compared_on_all_taps() -> None:
    bigan, dcgan = speed.measure(["extract"], AT, TINY)
    assert "2 taps (1,074-d) of 600 mnist" in bigan.case
    assert dcgan.images == 60
    assert bigan.ours and bigan.theirs and bigan.limit


def test_a_case_that_fails_is_a_row_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Row]:
        raise RuntimeError("no luck")

    monkeypatch.setitem(speed.SECTIONS, "knn", lambda *_: [("pixels", broken)])
    (row,) = speed.measure(["knn"], AT, TINY)
    assert (row.failed, row.remark, row.ours) == (True, "failed: RuntimeError: no luck", None)


def test_the_table_and_the_file_say_the_same() -> None:
    row = Row("knn", "a case", 2.0, 1000, "theirs", 5.0, 1.0, 0.9, 0.91, 3 * 2**20, "why")
    printed = speed.table([row])
    assert printed.splitlines()[-1].split() == [
        "knn", "a", "case", "2", "500", "theirs", "5", "2.50", "1", "50%", "90.00%", "91.00%", "3", "why",
    ]  # fmt: skip
    written = json.loads(json.dumps(speed.report(AT, [row])))
    assert written["rows"][0]["ours"] == 2.0
    assert written["machine"]["threads"] == 1


def test_the_command_prints_the_table_and_writes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frostbench: t.Callable[..., t.Any]
) -> None:
    monkeypatch.setattr(speed, "rates", lambda *_: AT)
    monkeypatch.setattr(speed, "QUICK", TINY)
    done = frostbench("speed", "extract", "--quick", "--threads", "1")
    assert done.code == 0, done.err
    assert "plain loop over a DataLoader" in done.out
    assert len(json.loads((tmp_path / "speed.json").read_text())["rows"]) == 2
