"""What several test files need; the files beside this one are loaded by path, as tests/ is not a package."""

import contextlib
import importlib.util
import multiprocessing
import multiprocessing.context
import multiprocessing.forkserver
import os
import signal
import sys
import types
import typing as t
from pathlib import Path

import pytest

from bench.__main__ import main

if "PYTEST_XDIST_WORKER" in os.environ:  # each has a core; said before torch is imported
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["OMP_WAIT_POLICY"] = "passive"  # where a test asks for two


def _load(name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fake_wandb() -> t.Iterator[t.Any]:
    """A Weights & Biases server on loopback, of tests/fake_wandb.py."""
    server = _load("fake_wandb").FakeWandb()
    yield server
    server.stop()


@pytest.fixture
def read_offline_run() -> t.Callable[[Path], t.Any]:
    """From the directory of an offline wandb run to what it says, by tests/read_offline_run.py."""
    function: t.Callable[[Path], t.Any] = _load("read_offline_run").read_offline_run
    return function


@pytest.fixture(scope="session")
def gpu() -> types.ModuleType:
    """A GPU where there is none, of tests/pretend_gpu.py."""
    return _load("pretend_gpu")


class InBackground:
    """The command line in a process of its own."""

    def __init__(self, process: multiprocessing.context.ForkServerProcess, stderr: Path) -> None:
        self.process, self.stderr = process, stderr
        self.pid = t.cast(int, process.pid)

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, number)

    def running(self) -> bool:
        return self.process.is_alive()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended by then."""
        self.process.join(seconds)
        return not self.process.is_alive()

    def end(self, seconds: float = 200) -> tuple[int, str]:
        """Its exit code, and what it said on stderr."""
        assert self.wait(seconds), self.stderr.read_text()
        return t.cast(int, self.process.exitcode), self.stderr.read_text()


@pytest.fixture(scope="session")
def forkserver() -> t.Iterator[multiprocessing.context.ForkServerContext]:
    """What starts processes by forking one in which the imports of tests/in_background.py are done."""
    here = str(Path(__file__).parent)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["in_background"])
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(here)
        patch.setenv("PYTHONPATH", os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])]))
        multiprocessing.forkserver.ensure_running()
        yield context


@pytest.fixture
def forked_workers(forkserver: multiprocessing.context.ForkServerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are forked, where each would import for seconds; they know the environment of the first test only."""
    monkeypatch.setattr("multiprocessing.get_context", lambda _method=None: forkserver)


@pytest.fixture(scope="session")
def in_background(
    tmp_path_factory: pytest.TempPathFactory, forkserver: multiprocessing.context.ForkServerContext
) -> t.Iterator[t.Callable[..., InBackground]]:
    """Start the command line in a directory, by tests/in_background.py."""
    from in_background import command_line

    started: list[InBackground] = []

    def start(directory: Path, *arguments: str) -> InBackground:
        stderr = tmp_path_factory.mktemp("background") / "stderr.txt"
        stderr.touch()  # it may be killed before it says a thing
        process = forkserver.Process(target=command_line, args=(directory, stderr, arguments))
        process.start()
        started.append(InBackground(process, stderr))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.join()


class Done(t.NamedTuple):
    code: int
    out: str
    err: str


def command_line(*arguments: t.Any) -> int:
    """Its exit code, with these arguments and in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["frostbench", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


@pytest.fixture(params=[pytest.param(5, id="any machine"), pytest.param(1, id="quiet machine", marks=pytest.mark.slow)])
def slack(request: pytest.FixtureRequest) -> int:
    """How many times the seconds of a quiet machine a test may take; slow tests are strict."""
    return t.cast(int, request.param)


@pytest.fixture(scope="session", autouse=True)
def hears_ctrl_c() -> t.Iterator[None]:
    """Also in the background of a shell, whose jobs ignore it, and so would all that they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> t.Iterator[None]:
    """No test cuts the power, and disks take seconds over thousands of files: only the descriptors are looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[None]:
    """What is decoded of data sets is shared by all tests, and kept out of the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FROSTBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def frostbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> t.Callable[..., Done]:
    """The command line in this process, in an empty directory: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: t.Any) -> Done:
        capsys.readouterr()
        return Done(command_line(*arguments), *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def frostbench_in() -> t.Callable[..., None]:
    """The command line in this process and a directory, where it must succeed: for what a module's tests share."""

    def call(directory: Path, *arguments: t.Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(directory)
            assert command_line(*arguments) == 0

    return call
