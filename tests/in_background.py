"""The command line in a process that is forked from one in which its imports are done, as they take seconds."""

import os
import signal
import sys
from pathlib import Path

import torch._dynamo  # noqa: F401 - what the first optimizer imports

from bench import launch
from bench.__main__ import main
from bench.suites import resolve

os.fsync = os.fstat  # as in tests/conftest.py: no test cuts the power
launch.read("smoke", [], "", 0, [])
resolve.protocols()


def command_line(directory: Path, said: Path, arguments: tuple[str, ...]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where who started the tests ignores them, as nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.chdir(directory)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), sys.stderr.fileno())
    sys.argv = ["frostbench", *arguments]
    main()
