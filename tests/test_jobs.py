"""Several runs at a time: how many there is room for, what a terminal of 80 columns shows, and that no orphan stays."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
import typing as t
from pathlib import Path

import pytest

from bench import launch
from bench.host import machine
from bench.host.progress import Display
from bench.launch import processes
from encoders import base

PATIENCE = 120  # seconds that a machine with much to do may take
TITLES = ["noisy, digits (limit 40), seed 0", "noisy, digits (limit 40), seed 1"]
SUITE = """
suite: noise
datasets: [{name: digits, limit: 40}]
seeds: 0-1
encoders: [noisy]
protocols: [{name: knn, k: 1}]
wandb: {mode: off}
"""
NOISY = """
import os, time, typing as t
from pathlib import Path
from encoders.base import Encoder, Progress, frozen
from encoders.pixels import Pixels

class Noisy(Pixels):
    source: t.ClassVar[str] = "a test"
    def fit(self, data, run):
        os.write(2, f"a word of seed {run.seed}\\n".encode())
        while not Path("seen").exists():
            run.report(Progress(1, 4, 0.3, 10.0, {"player": 0.5}, 90.0))
            time.sleep(0.05)
        return super().fit(data, run)
"""


def wait_for(true: t.Callable[[], t.Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


class Terminal:
    """What a terminal of 80 columns shows of a command."""

    def __init__(self, *command: str, cwd: Path) -> None:
        self.end, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "CI")}
        self.process = subprocess.Popen(
            command, cwd=cwd, env=environment | {"TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self.said = ""
        self.lines, self.row, self.column = [""], 0, 0

    def read(self) -> bool:
        """Show what comes next; False at the end."""
        try:
            came = os.read(self.end, 65536).decode(errors="replace")
        except OSError:
            return False
        self.said += came
        return bool(came)

    def show(self) -> list[str]:
        """The lines on the screen and above it, after all that was said."""
        lines, row, column = [""], 0, 0
        for one in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.", self.said, re.DOTALL):
            if one == "\n":
                row, lines = row + 1, lines + [""] * (row + 1 == len(lines))
            elif one == "\r":
                column = 0
            elif up := re.fullmatch(r"\x1b\[(\d+)A", one):
                row = max(0, row - int(up[1]))
            elif one == "\x1b[2K":
                lines[row] = ""
            elif not one.startswith("\x1b"):
                lines[row] = lines[row][:column].ljust(column) + one + lines[row][column + 1 :]
                column += 1
        return [line.rstrip() for line in lines]


def test_a_terminal_of_80_columns_shows_every_run_and_when_all_will_be_done(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    (tmp_path / "noise.yaml").write_text(SUITE)
    command = [sys.executable, "-m", "bench.__main__", "run", "noise.yaml", "--plugin", "noisy.py"]
    terminal = Terminal(*command, "--executor", "processes", "--jobs", "2", "--threads", "1", cwd=tmp_path)
    try:
        both = machine.available_cores() > 1
        while terminal.read():
            shown = terminal.show()
            active = [line for line in shown if "epoch 1/4" in line]
            if len(active) == 1 + both and "about" in "".join(shown):
                break
        (tmp_path / "seen").touch()
        (suite,) = [line for line in shown if line.startswith("runs")]
        assert re.fullmatch(r"runs +━+╺?━* 0/2 +\d:\d\d:\d\d +about \d min \d\d s left", suite)
        for seed, line in enumerate(active):
            assert re.fullmatch(
                rf"noisy, seed {seed}, digits.* ━+[╸╺]?━* epoch 1/4 \d:\d\d:\d\d +1 min 30 s left", line
            )
        assert max(map(len, shown)) <= 80
        while terminal.read():
            pass
        assert terminal.process.wait(PATIENCE) == 0
    finally:
        terminal.process.kill()
        os.close(terminal.end)
    shown = terminal.show()
    assert {"a word of seed 0", "a word of seed 1"} < set(shown)
    assert sorted(re.sub(r".*\] | in .*", "", line) for line in shown if line.startswith("[")) == [
        f"{title}: done" for title in TITLES
    ]
    assert not [line for line in shown if "━" in line or "\x1e" in line]


def test_what_other_seeds_took_tells_when_all_will_be_done() -> None:
    titles = [f"{label}, mnist, seed {seed}" for seed in range(2) for label in ("slow", "fast")]
    with Display(titles, jobs=2, terminal=False) as display:
        told = lambda: display.bars.tasks[0].fields["left"]  # noqa: E731
        display.start(titles[0])
        assert told() == ""
        display.training(base.Progress(1, 2, 0.5, 1.0, {}, seconds_left=50.0))
        assert told() == "about 1 min 40 s left"  # four such runs, two at a time
        display.finish(titles[0], 100.0, None)
        display.start(titles[1])
        display.finish(titles[1], 20.0, None)
        assert told() == "about 1 min 00 s left"  # (100 + 20) / 2
        display.finish(titles[2], 1.0, "no luck")  # which tells nothing of those that succeed


@pytest.mark.parametrize(
    ("jobs", "cores", "memory", "room"),
    [(1000, 2, 10, 2), (1000, 64, 3, 3), (1000, 64, None, 64), (1000, 8, 0, 1), (2, 8, 10, 2), (0, 8, 10, 1)],
)
def test_jobs_are_no_more_than_cores_and_memory_have_room_for(
    jobs: int, cores: int, memory: int | None, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "available_cores", lambda: cores)
    monkeypatch.setattr(machine, "available_memory", lambda: memory and memory * 10**9)
    monkeypatch.setattr(machine, "resident", lambda: 10**9)
    assert processes.room(jobs) == room


def test_a_thousand_jobs_are_not_taken_as_said(
    frostbench: t.Callable[..., t.Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def started(runs: t.Sequence[t.Any], settings: t.Any, jobs: int, display: t.Any) -> t.Iterator[t.Any]:
        asked.append(jobs)
        yield from ()

    monkeypatch.setattr(processes, "processes", started)
    monkeypatch.setattr(machine, "available_cores", lambda: 2)
    done = frostbench("run", "smoke", "--jobs", "1000", "--set", "encoders=[pixels]", "--set", "wandb.mode=off")
    assert asked == [2]
    assert "--jobs 1000 exceeds the cores or the memory of this machine; running 2 at a time" in done.err


def test_memory_is_of_the_machine_and_of_this_process() -> None:
    assert 10**6 < machine.resident() < 10**12
    free = machine.available_memory()
    assert free is None or 0 <= free < 10**15


def test_a_worker_ends_with_its_parent_while_it_still_imports(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"""
import os, pathlib, sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            pathlib.Path({str(tmp_path)!r}, f"importing-{{os.getpid()}}").touch()
            time.sleep(1000)
if "--multiprocessing-fork" in sys.orig_argv:
    sys.meta_path.insert(0, Slow())
""")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "bench.__main__", "run", "smoke", "--executor", "processes", "--limit", "100"]
    process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.DEVNULL)
    workers: list[int] = []
    try:
        wait_for(lambda: list(tmp_path.glob("importing-*")))
        workers = [int(one.name.partition("-")[2]) for one in tmp_path.glob("importing-*")]
        assert workers and all(map(alive, workers))
        process.kill()
        process.wait()
        wait_for(lambda: not any(map(alive, workers)))
    finally:
        for one in [process.pid, *workers]:
            if alive(one):
                os.kill(one, signal.SIGKILL)
        process.wait()


def alive(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_a_refused_run_is_not_to_be_tried_with_the_same_command(tmp_path: Path) -> None:
    board: t.Any = None
    refused = launch.Launched(tmp_path, 4, 3, 2, 0, 1, 1.0, board, ()).summary.splitlines()[0]
    assert refused.startswith("1 of 4 runs completed")  # those that failed are counted apart
    assert ", 1 failed: run the same command to retry" in refused
    assert ", 1 not resumed: use --threads as before, --resume inexact or --resume never" in refused
    only = launch.Launched(tmp_path, 4, 3, 1, 0, 1, 1.0, board, ()).summary
    assert "same command" not in only
