"""Executors: what turns planned runs into finished ones. Each yields (run, seconds, error or None) as runs end.

Here are those of one machine; `bench.cluster` has the one of several.
"""

import collections
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import typing as t

from bench import machine
from bench.checkpoints import ResumeRefused
from bench.progress import Display, Lines
from bench.run import PlannedRun, Settings, execute, fail
from bench.stopping import Stopping, start_deaf, stop_with_parent
from results import store

Ended = tuple[PlannedRun, float, str | None]
NO_ROOM = 74  # a worker's exit status when the store could not be written (sysexits' EX_IOERR)
HELD = 73  # when another process is at the run (EX_CANTCREAT)
NOT_RESUMED = 77  # when the run was stopped where its bits would differ (EX_NOPERM)
STOPPED = 75  # and when it was asked to stop (EX_TEMPFAIL)
ATTEMPTS = 3  # at a run whose process dies; each goes on from the last checkpoint
STOP_SECONDS = 30  # for a worker to finish its step and keep its state


def serial(
    runs: t.Sequence[PlannedRun], settings: Settings, display: Display, stopping: Stopping
) -> t.Generator[Ended, None, None]:
    """One run after the other, in this process."""
    held: list[PlannedRun] = []  # by other processes: looked at again when all else is done
    for wait, some in ((False, runs), (True, held)):
        for run in some:
            display.start(run.title)
            started = time.monotonic()
            try:
                error = execute(run, settings, display, stopping, wait=wait)
            except store.Claimed:
                held.append(run)
                continue
            except ResumeRefused as refused:
                error = str(refused)
            yield run, time.monotonic() - started, error


def processes(runs: t.Sequence[PlannedRun], settings: Settings, jobs: int) -> t.Generator[Ended, None, None]:
    """A process for each run, `jobs` at a time. One that dies is started again, and in the end fails its run only.

    Where a user asked for more threads in all than there are cores, threads that spin while they wait would starve
    those they wait for: these sleep (docs/log.md).
    """
    if jobs * settings.ranks * settings.threads > machine.available_cores():
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    spawn = multiprocessing.get_context("spawn")
    waiting = collections.deque((run, 1, False) for run in runs)  # a run, the attempt, whether to wait for others
    working: dict[int, tuple[t.Any, PlannedRun, int, int, float]] = {}
    slots = list(range(jobs))  # of the jobs; each has a GPU of its own as far as there are enough
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                run, attempt, wait = waiting.popleft()
                slot = slots.pop(0)
                here = dataclasses.replace(settings, device=machine.device_of_slot(settings.device, slot))
                worker = spawn.Process(target=_work, args=(run, here, wait), name=run.title)
                start_deaf(worker)
                working[worker.sentinel] = worker, run, attempt, slot, time.monotonic()
            left = None
            if settings.time_limit:
                left = max(0.0, min(one[-1] for one in working.values()) + settings.time_limit - time.monotonic())
            ended = multiprocessing.connection.wait(list(working), left)
            if not ended:  # the time of the oldest is up
                worker, run, _, slot, started = working.pop(min(working, key=lambda one: working[one][-1]))
                _stop([worker])
                slots.append(slot)
                yield run, time.monotonic() - started, _overdue(run, settings, worker.exitcode)
            for sentinel in ended:
                worker, run, attempt, slot, started = working.pop(t.cast(int, sentinel))
                worker.join()
                slots.append(slot)
                if worker.exitcode == HELD:  # looked at again when all else is done
                    waiting.append((run, attempt, True))
                elif worker.exitcode < 0 and attempt < ATTEMPTS:
                    sys.stderr.write(f"{run.title}: {_ended_by(worker.exitcode)}; trying again\n")
                    waiting.appendleft((run, attempt + 1, True))
                else:
                    yield run, time.monotonic() - started, _outcome(run, worker.exitcode, settings)
    finally:
        _stop([worker for worker, *_ in working.values()])


def _stop(workers: list[t.Any]) -> None:
    """Ask workers to stop, so that they keep the state of their trainings; end those that take too long."""
    try:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(STOP_SECONDS)
    finally:  # at once after a second Ctrl-C
        for worker in workers:
            worker.kill()
            worker.join()


def _work(run: PlannedRun, settings: Settings, wait: bool) -> None:
    stopping = Stopping()
    try:
        with stopping.on_signals():
            threading.Thread(target=stop_with_parent, daemon=True).start()
            status = attempt(run, settings, stopping, wait=wait)
    except KeyboardInterrupt:
        status = STOPPED
    raise SystemExit(status)


def attempt(run: PlannedRun, settings: Settings, stopping: Stopping, *, wait: bool) -> int:
    """Execute a run in a worker; the exit status that tells how it went. Raises KeyboardInterrupt."""
    lines = Lines(run.title)
    lines.start()
    try:
        execute(run, settings, lines, stopping, wait=wait)
    except ResumeRefused as error:
        sys.stderr.write(f"{run.title} {error}\n")
        return NOT_RESUMED
    except store.Unwritable as error:
        sys.stderr.write(f"{error}\n")
        return NO_ROOM
    except store.Claimed:
        return HELD
    finally:
        lines.stop()
    return 0


def _outcome(run: PlannedRun, status: int, settings: Settings) -> str | None:
    """What is to be said of a run whose process has ended."""
    if status in (0, NO_ROOM, NOT_RESUMED):
        return outcome(run, status)
    message = _ended_by(status) if status < 0 else f"its process ended with status {status}"
    device = machine.pick_device(settings.device)
    fail(run, message, machine.provenance(device, settings.threads, run.precision, settings.ranks))
    return message


def _overdue(run: PlannedRun, settings: Settings, status: int) -> str | None:
    """What is to be said of a run that was stopped for its time, unless it was done before it heard of that."""
    if status == 0:
        return outcome(run, status)
    limit = f"{settings.time_limit:g}"
    message = f"took longer than --time-limit {limit}; with more seconds it goes on from its last state"
    device = machine.pick_device(settings.device)
    fail(run, message, machine.provenance(device, settings.threads, run.precision, settings.ranks))
    return message


def outcome(run: PlannedRun, status: int) -> str | None:
    """The error of a run that a worker has executed, as the files say; None if it is done."""
    if status == NO_ROOM:
        raise store.Unwritable(f"{run.title}: the results could not be written")
    if status == NOT_RESUMED:
        return "was stopped in another environment; --resume inexact goes on from there, --resume never starts over"
    if run.directory.failed.exists():
        return store.read_record(run.directory.failed).error
    return None


def _ended_by(status: int) -> str:
    return f"its process was ended by {signal.Signals(-status).name}; perhaps memory ran out"
