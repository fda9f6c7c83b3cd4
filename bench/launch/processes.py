"""Executors: what turns planned runs into finished ones. Each yields (run, seconds, error or None) as runs end.

Here are those of one machine; `ray_cluster` has the one of several.
"""

import collections
import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import time
import typing as t

import torch

from bench.host import machine
from bench.host.distributed import local_world
from bench.host.progress import Display, Lines, Teller
from bench.host.stopping import Stopping, begin, ignore_sigint
from bench.pipeline.checkpoints import ResumeRefused
from bench.pipeline.execute import execute
from bench.pipeline.plan import PlannedRun, Settings, fail, failure
from results import files, store

Ended = tuple[PlannedRun, float, str | None]
# How a worker's call went, as it says itself. Its exit status says nothing: a method can end the process with any.
ENDED = 0  # the files say how
NO_ROOM = 74  # the store could not be written
HELD = 73  # another process is at the run
NOT_RESUMED = 77  # the run was stopped where its bits would differ
STOPPED = 75  # it was asked to stop
ATTEMPTS = 3  # at a run whose process dies; each goes on from the last checkpoint
STOP_SECONDS = 30  # for a worker to finish its step and keep its state


class Refused(str):
    """The error of a run that is not gone on with here: the same command would end so again."""


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
                error = execute(run, settings, display, stopping, wait=wait, alone=True)
            except files.Claimed:
                held.append(run)
                continue
            except ResumeRefused as refused:
                error = Refused(refused)
            yield run, time.monotonic() - started, error


def processes(
    runs: t.Sequence[PlannedRun], settings: Settings, jobs: int, display: Display
) -> t.Generator[Ended, None, None]:
    """A process for each run, `jobs` at a time. One that dies is started again, and in the end fails its run only.

    Where a user asked for more threads in all than there are cores, threads that spin while they wait would starve
    those they wait for: these sleep (docs/log.md).
    """
    if jobs * settings.ranks * settings.threads > machine.available_cores():
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    waiting = collections.deque((run, 1, False) for run in runs)  # a run, the attempt, whether to wait for others
    working: dict[int, tuple[t.Any, t.Any, PlannedRun, int, int, float]] = {}
    slots = list(range(jobs))  # of the jobs; each has a GPU of its own as far as there are enough
    try:
        while waiting or working:
            while waiting and len(working) < jobs:
                run, attempt, wait = waiting.popleft()
                slot = slots.pop(0)
                here = dataclasses.replace(settings, device=_device_of(slot, settings))
                worker, pipe = _start(run, here, wait, display)
                working[worker.sentinel] = worker, pipe, run, attempt, slot, time.monotonic()
            left = None
            if settings.time_limit:
                left = max(0.0, min(one[-1] for one in working.values()) + settings.time_limit - time.monotonic())
            ended = multiprocessing.connection.wait(list(working), left)
            if not ended:  # the time of the oldest is up
                worker, pipe, run, _, slot, started = working.pop(min(working, key=lambda one: working[one][-1]))
                _stop([worker])
                slots.append(slot)
                yield run, time.monotonic() - started, _overdue(run, settings, _status_of(pipe))
            for sentinel in ended:
                worker, pipe, run, attempt, slot, started = working.pop(t.cast(int, sentinel))
                worker.join()
                slots.append(slot)
                status = _status_of(pipe)
                died = status == STOPPED or (status is None and worker.exitcode < 0)
                if status == HELD:  # looked at again when all else is done
                    waiting.append((run, attempt, True))
                elif died and attempt < ATTEMPTS:
                    display.say(f"{run.title}: {_ended(status, worker.exitcode)}; trying again")
                    waiting.appendleft((run, attempt + 1, True))
                elif status is None or died:
                    error = _ended(status, worker.exitcode)
                    yield run, time.monotonic() - started, _fail(run, settings, error)
                else:
                    yield run, time.monotonic() - started, outcome(run, status)
    finally:
        _stop([worker for worker, *_ in working.values()])


def _device_of(slot: int, settings: Settings) -> str:
    gpus, ranks_here = torch.cuda.device_count(), local_world(settings.ranks)
    return machine.gpu_of(settings.device, gpus, slot=slot, ranks=ranks_here)


def _start(run: PlannedRun, settings: Settings, wait: bool, display: Display) -> tuple[t.Any, t.Any]:
    """A worker that makes a run, and the pipe over which it says how its call went."""
    spawn = multiprocessing.get_context("spawn")
    pipe, tell = spawn.Pipe(duplex=False)
    stderr = display.hear(run.title)
    work = pickle.dumps((_work, (run, settings, wait, stderr is not None)))
    worker = spawn.Process(target=begin, args=(work, stderr, tell), name=run.title)
    ignore_sigint(worker)
    tell.close()
    if stderr:
        stderr.close()  # the worker has it, and its end is the end of what it says
    return worker, pipe


def room(jobs: int) -> int:
    """How many of so many jobs at a time this machine has room for: one a core, each with memory for a worker.

    A worker holds no less than this process, which has read the suite's data.
    """
    free = machine.available_memory()
    return max(1, min(jobs, machine.available_cores(), jobs if free is None else free // machine.resident()))


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


def _status_of(pipe: t.Any) -> int | None:
    """What a worker that has ended said of its call; None of one that was ended first."""
    with pipe:
        try:
            return int(pipe.recv_bytes()) if pipe.poll() else None
        except EOFError:
            return None


def _work(run: PlannedRun, settings: Settings, wait: bool, heard: bool, tell: t.Any) -> None:
    stopping = Stopping()
    try:
        with stopping.on_signals():
            status = attempt(run, settings, stopping, wait=wait, heard=heard)
    except KeyboardInterrupt:
        status = STOPPED
    with contextlib.suppress(OSError):  # nobody is left to be told
        tell.send_bytes(b"%d" % status)


def attempt(run: PlannedRun, settings: Settings, stopping: Stopping, *, wait: bool, heard: bool = False) -> int:
    """Execute a run in a worker, `heard` by a Display; a status that tells how it went. Raises KeyboardInterrupt."""
    lines = Teller() if heard else Lines(run.title)
    lines.start()
    try:
        execute(run, settings, lines, stopping, wait=wait)
    except ResumeRefused:
        return NOT_RESUMED
    except files.Unwritable as error:
        sys.stderr.write(f"{error}\n")
        return NO_ROOM
    except files.Claimed:
        return HELD
    finally:
        lines.stop()
    return ENDED


def _overdue(run: PlannedRun, settings: Settings, status: int | None) -> str | None:
    """What is to be said of a run that was stopped for its time, unless it was done before it heard of that."""
    if status == ENDED:
        return outcome(run, status)
    limit = f"{settings.time_limit:g}"
    message = f"exceeded --time-limit {limit}; with a longer limit it resumes from its last checkpoint"
    return _fail(run, settings, message)


def _fail(run: PlannedRun, settings: Settings, message: str) -> str:
    device = machine.pick_device(settings.device)
    fail(run, message, machine.provenance(device, settings.threads, run.precision, settings.ranks))
    return message


def outcome(run: PlannedRun, status: int) -> str | None:
    """The error of a run that a worker has executed, as the files say; None if it is done."""
    if status == NO_ROOM:
        raise files.Unwritable(f"{run.title}: the results could not be written")
    if run.directory.failed.exists():
        error = failure(store.read_record(run.directory.failed))
        return Refused(error) if status == NOT_RESUMED else error
    return None


def _ended(status: int | None, exitcode: int) -> str:
    if status == STOPPED:
        return "its process was told to stop"
    if exitcode < 0:
        return f"its process was killed by {signal.Signals(-exitcode).name}, perhaps for lack of memory"
    return f"its process exited with status {exitcode} before the run was done"
