"""Executors: what turns planned runs into finished ones. Each yields (run, seconds, error or None) as runs end."""

import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import os
import signal
import sys
import time
import typing as t

from bench import machine
from bench.progress import Display, Lines
from bench.run import PlannedRun, Settings, execute, fail
from results import store

Ended = tuple[PlannedRun, float, str | None]
NO_ROOM = 74  # a worker's exit status when the store could not be written (sysexits' EX_IOERR)


def serial(runs: t.Sequence[PlannedRun], settings: Settings, display: Display) -> t.Generator[Ended, None, None]:
    """One run after the other, in this process."""
    for run in runs:
        display.start(run.title)
        started = time.monotonic()
        error = execute(run, settings, display)
        yield run, time.monotonic() - started, error


def processes(runs: t.Sequence[PlannedRun], settings: Settings, jobs: int) -> t.Generator[Ended, None, None]:
    """A process for each run, `jobs` at a time. A process that dies fails its run and no other.

    Where a user asked for more threads in all than there are cores, threads that spin while they wait would starve
    those they wait for: these sleep (docs/log.md).
    """
    if jobs * settings.threads > machine.available_cores():
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    spawn = multiprocessing.get_context("spawn")
    waiting = list(reversed(runs))
    working: dict[int, tuple[t.Any, PlannedRun, float]] = {}
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                run = waiting.pop()
                worker = spawn.Process(target=_work, args=(run, settings), name=run.title)
                _start_deaf(worker)
                working[worker.sentinel] = worker, run, time.monotonic()
            for sentinel in multiprocessing.connection.wait(list(working)):
                worker, run, started = working.pop(t.cast(int, sentinel))
                worker.join()
                yield run, time.monotonic() - started, _outcome(run, worker.exitcode, settings)
    finally:
        for worker, _, _ in working.values():
            worker.kill()
            worker.join()


def _start_deaf(worker: multiprocessing.context.SpawnProcess) -> None:
    """Start a worker that never hears Ctrl-C, not even while it imports: its parent does, and ends it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        worker.start()
    finally:
        signal.signal(signal.SIGINT, before)


def _work(run: PlannedRun, settings: Settings) -> None:
    lines = Lines(run.title)
    lines.start()
    try:
        execute(run, settings, lines)
    except store.Unwritable as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(NO_ROOM) from error


def _outcome(run: PlannedRun, status: int, settings: Settings) -> str | None:
    """What the files say of a run whose process has ended."""
    if status == NO_ROOM:
        raise store.Unwritable(f"{run.title}: the results could not be written")
    if status:
        message = f"its process ended with status {status}"
        if status < 0:
            message = f"its process was ended by {signal.Signals(-status).name}; perhaps memory ran out"
        fail(run, message, machine.provenance(machine.pick_device(settings.device), settings.threads, run.precision))
        return message
    if run.directory.failed.exists():
        return store.read_record(run.directory.failed).error
    return None
