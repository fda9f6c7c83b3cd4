"""The executor `ray`: a Ray task a run, on this machine or on a cluster. Needs frostbench[ray].

A run goes out as JSON, and how it went comes back; what it found is read from the files, so all nodes must share the
output directory. Ray starts a run whose worker or node has died again, perhaps while the old one is still at work
somewhere: claims and publishing by link sort that out, as between any two processes.

Whoever reaches Ray's ports may run code. Without an address everything listens on loopback only, behind a token that
lasts as long as the call; a cluster is secured by whoever starts it (docs/distributed.md).
"""

import _thread
import collections
import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import logging
import os
import platform
import secrets
import signal
import sys
import threading
import time
import typing as t
from pathlib import Path

import torch
from pydantic import TypeAdapter

from bench import HOME
from bench.host import machine
from bench.host.machine import MachineError
from bench.host.stopping import Stopping
from bench.launch.processes import ATTEMPTS, HELD, STOP_SECONDS, STOPPED, Ended, attempt, outcome
from bench.pipeline.plan import PlannedRun, Settings, fail
from bench.suites.sources import sources
from results import files, redaction

REFUSED = 78  # a task's status on a node that is not set up like the machine that planned it (sysexits' EX_CONFIG)
TOUCH_SECONDS = 600.0  # a token must not look a day old to another machine that sweeps
LOOK_SECONDS = 1.0  # between two looks at the token, whose end ends the runs
PRUDENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_task_oom_retries": str(ATTEMPTS - 1)}  # else without end
LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # only then everything listens on loopback
    "RAY_AUTH_MODE": "token",
    "RAY_worker_niceness": "0",  # as any other executor's runs
    "OMP_WAIT_POLICY": "passive",  # Ray's own processes share the cores, and threads that spin would starve each other
}


@dataclasses.dataclass(frozen=True)
class _Job:
    run: PlannedRun
    settings: Settings
    wait: bool  # where another process is at the run


_JOB = TypeAdapter(_Job)


def ray_tasks(
    runs: t.Sequence[PlannedRun], settings: Settings, jobs: int, address: str
) -> t.Generator[Ended, None, None]:
    """A Ray task for each run, `jobs` at a time, or as many as there is room for if that is 0.

    address: of a cluster, as `ray.init` takes it; '' starts Ray here, for this call. Raises MachineError without Ray,
    without a node that has what a run asks for, and for a node that is not set up like this machine.
    """
    on_gpu = settings.device.startswith("cuda") or (settings.device == "auto" and torch.cuda.is_available())
    settings = dataclasses.replace(settings, device="cuda" if on_gpu else "cpu")  # Ray says which of a node's
    cores, gpus = settings.threads * settings.ranks, settings.ranks if on_gpu else 0
    planned_by = code_sha256(settings.plugins)
    waiting = collections.deque((run, 1, False) for run in runs)  # a run, the attempt, whether to wait for others
    working: dict[t.Any, tuple[PlannedRun, int]] = {}
    suite = settings.output / runs[0].spec.suite
    with _connected(address, cores) as ray, files.token(suite) as token:
        _check_room(ray.nodes(), cores, gpus)
        task = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=ATTEMPTS - 1)(_work)
        try:
            while waiting or working:
                while waiting and (len(working) < jobs or not jobs):
                    run, attempts, wait = waiting.popleft()
                    job = _JOB.dump_json(_Job(run, settings, wait)).decode()
                    working[task.options(name=run.title).remote(planned_by, str(token), job)] = run, attempts
                ended, _ = ray.wait(list(working), timeout=TOUCH_SECONDS)
                token.touch()
                for one in ended:
                    run, attempts = working.pop(one)
                    result = _result(ray, one, run, settings)
                    if result["status"] == HELD:  # looked at again when all else is done
                        waiting.append((run, attempts, True))
                    elif result["status"] == STOPPED and attempts < ATTEMPTS:  # by its node, which goes down
                        waiting.appendleft((run, attempts + 1, True))
                    else:
                        yield run, result["seconds"], outcome(run, result["status"])
        finally:
            token.unlink(missing_ok=True)  # ray.cancel can end this process, of a task that ends in the same moment
            if working:
                ray.wait(list(working), num_returns=len(working), timeout=STOP_SECONDS)


def _result(ray: t.Any, task: t.Any, run: PlannedRun, settings: Settings) -> dict[str, t.Any]:
    """What an ended task tells of its run; of one whose worker kept dying, that it failed."""
    try:
        result: dict[str, t.Any] = json.loads(ray.get(task))
    except ray.exceptions.RayTaskError as error:
        raise MachineError(f"{run.title}: failed on a node: {redaction.message(error.cause)}") from error
    except ray.exceptions.RayError as error:  # all of Ray's own attempts are used up
        message = f"its worker died {ATTEMPTS} times; the last error is: {redaction.message(error).splitlines()[0]}"
        fail(run, message, machine.provenance(torch.device("cpu"), settings.threads, run.precision, settings.ranks))
        return {"status": 0, "seconds": 0.0}
    if result["status"] == REFUSED:
        raise MachineError(result["problem"])
    return result


def code_sha256(plugins: t.Iterable[Path]) -> str:
    """A digest of all code that makes runs: our four packages, the plugins, and what those import beside them."""
    ours = sorted(
        file for name in ("bench", "encoders", "protocols", "results") for file in (HOME / name).rglob("*.py")
    )
    digest = hashlib.sha256()
    found = {plugin: sources(plugin) if plugin.is_file() else {"": plugin} for plugin in plugins}
    theirs = [(f"{plugin} {name}".strip(), file) for plugin, read in found.items() for name, file in read.items()]
    for name, file in [(str(file.relative_to(HOME)), file) for file in ours] + theirs:
        content = file.read_bytes() if file.exists() else b""
        digest.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return digest.hexdigest()


def _work(planned_by: str, token: str, job: str) -> str:
    """On a node: execute a run; JSON that tells how it went."""
    problem = _refusal(planned_by, Path(token), [Path(file) for file in json.loads(job)["settings"]["plugins"]])
    if problem:
        return json.dumps({"status": REFUSED, "problem": problem})
    started, wanted, stopping = time.monotonic(), _JOB.validate_json(job), Stopping()
    try:
        with stopping.on_signals(), _stopped_without(Path(token)):
            status = attempt(wanted.run, wanted.settings, stopping, wait=wanted.wait)
    except KeyboardInterrupt:
        status = STOPPED
    return json.dumps({"status": status, "seconds": time.monotonic() - started})


@contextlib.contextmanager
def _stopped_without(token: Path) -> t.Iterator[None]:
    """In the block this process is interrupted, as by Ctrl-C, once the token is gone; a training keeps its state."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(LOOK_SECONDS):
            with contextlib.suppress(OSError):  # of a shared disk that does not answer: not known to be gone
                if not token.exists():
                    _thread.interrupt_main()  # what ray.cancel would have called
                    return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _refusal(planned_by: str, token: Path, plugins: t.Iterable[Path]) -> str:
    """Why this node must not make runs of that plan; "" if it may."""
    here = f"the node {platform.node()}"
    if not token.exists():
        return (
            f"{here} does not see this machine's {token.parent}: all nodes must share an output directory; without one "
            "run on each machine, then combine the results with `frostbench merge`"
        )
    if code_sha256(plugins) != planned_by:
        return f"{here} has different code of frostbench or of a plugin: install the same on all nodes"
    return ""


def _check_room(nodes: t.Sequence[dict[str, t.Any]], cores: int, gpus: int) -> None:
    """Raises MachineError where a run would wait for ever for a node that it fits on."""
    rooms = [(one["Resources"].get("CPU", 0), one["Resources"].get("GPU", 0)) for one in nodes if one["Alive"]]
    if not any(room[0] >= cores and room[1] >= gpus for room in rooms):
        found = ", ".join(f"{cpu:g} CPUs and {gpu:g} GPUs" for cpu, gpu in rooms)
        raise MachineError(
            f"a run needs {cores} CPUs (--threads) and {gpus} GPUs (--device); no node has them: {found}"
        )


@contextlib.contextmanager
def _connected(address: str, cores: int) -> t.Iterator[t.Any]:
    """The module ray, connected to the cluster there, or to Ray started here for the length of the block."""
    if importlib.util.find_spec("ray") is None:
        raise MachineError("--executor ray needs Ray: pip install -e '.[ray]' in frostbench's checkout")
    private = {} if address else LOCAL | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with _environment(PRUDENT | private), contextlib.redirect_stdout(sys.stderr):  # Ray repeats what tasks print
        import ray  # noqa: PLC0415 - an extra, and it reads the environment

        room = {} if address else {"num_cpus": max(cores, machine.available_cores()), "include_dashboard": False}
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address or "local", logging_level=logging.WARNING, **room)
        except ConnectionError as error:
            raise MachineError(f"no Ray cluster at {address}: {str(error).splitlines()[0]}") from error
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray takes it away
        try:
            yield ray
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> t.Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
