"""What several test files need; the files beside this one are loaded by path, as tests/ is not a package."""

import importlib.util
import sys
import types
import typing as t
from pathlib import Path

import pytest

from bench.__main__ import main


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


@pytest.fixture
def frostbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> t.Callable[..., tuple[int, str, str]]:
    """The command line in this process, in an empty directory: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["frostbench", *arguments])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return call
