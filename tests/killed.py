"""The command line, ended by SIGKILL at a chosen moment of its dealings with the output directory.

A moment lies just before a call that changes files there (open, write, fsync, link, rename, unlink, mkdir, rmdir), or
in the middle of a write, when half of its bytes are in the file. Just after a call is just before the next one.

A server, so that its imports are paid for once: a line of JSON in, {"where": directory, "words": [...], "moment": n or
null}, and when the call that a fork has made of it is over, a line out: {"status": ..., "moments": [...]}.
"""

import builtins
import contextlib
import importlib
import io
import json
import math
import os
import signal
import sys
import typing as t
from pathlib import Path

from bench.__main__ import main
from bench.pipeline import checkpoints

CALLS = ("fsync", "link", "replace", "rename", "unlink", "remove", "mkdir", "rmdir")


class Moments:
    """Counts the moments of this process below a directory, and ends it at the chosen one."""

    def __init__(self, root: Path, chosen: int | None, log: Path) -> None:
        self.root, self.chosen, self.count, self.log = root, chosen, 0, log.open("w")

    def watch(self) -> None:
        for name in CALLS:
            setattr(os, name, self._watched(name, getattr(os, name)))
        self.open = io.open
        for module in (io, builtins):
            module.open = self._open  # type: ignore[attr-defined]

    def reached(self, name: str, path: Path) -> bool:
        """Whether this moment, which is counted, is the chosen one."""
        print(f"{name}: {path.relative_to(self.root)}", file=self.log, flush=True)
        self.count += 1
        return self.count - 1 == self.chosen

    def _watched(self, name: str, call: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        def watched(*arguments: t.Any, **named: t.Any) -> t.Any:
            about, directory = arguments[-1 if name in ("link", "replace", "rename") else 0], named.get("dir_fd")
            path = opened(about) if isinstance(about, int) else Path(opened(directory) if directory else "", about)
            idle = path.absolute().exists() == (name == "mkdir") and name in ("mkdir", "unlink")
            if path.absolute().is_relative_to(self.root) and not idle and self.reached(name, path.absolute()):
                end()
            return call(*arguments, **named)

        return watched

    def _open(self, path: t.Any, mode: str = "r", *arguments: t.Any, **named: t.Any) -> t.Any:
        place = Path(path if isinstance(path, str | Path) else opened(path)).absolute()
        if mode[0] == "r" or not place.is_relative_to(self.root):
            return self.open(path, mode, *arguments, **named)
        if self.reached("open", place):
            end()
        file = self.open(path, mode, *arguments, **named)
        write = file.write

        def watched(content: t.Any) -> int:
            if self.reached("write", place):
                end()
            if self.reached("half a write", place):
                write(content[: len(content) // 2])
                file.flush()
                end()
            written: int = write(content)
            return written

        file.write = watched  # type: ignore[method-assign]
        return file


def opened(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def call(where: Path, words: list[str], moment: int | None) -> None:
    """What a fork does."""
    os.chdir(where)
    log = (where / "log").open("w")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.argv = ["frostbench", *words]
    checkpoints.MAX_SHARE = math.inf  # else the next one waits until a hundred times its cost is over
    Moments(where / "runs", moment, where / "moments").watch()
    try:
        main()
    except SystemExit as stop:
        status = int(stop.code or 0)
    except BaseException:  # into the log, as of any other program
        sys.excepthook(*sys.exc_info())
        status = 70
    (where / "modules").write_text("\n".join(sys.modules))
    os._exit(status)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        asked = json.loads(line)
        if (child := os.fork()) == 0:
            call(Path(asked["where"]), asked["words"], asked["moment"])
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for name in Path(asked["where"], "modules").read_text().split() if status == 0 else ():
            with contextlib.suppress(ImportError):  # so that no later call has to
                importlib.import_module(name)
        moments = Path(asked["where"], "moments").read_text().splitlines()
        print(json.dumps({"status": status, "moments": moments}), file=answers, flush=True)
