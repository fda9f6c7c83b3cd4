"""Checkpoints of one run on disk: two generations, each believed only if its SHA-256, its name, fits."""

import contextlib
import hashlib
import logging
import re
import shutil
import time
import typing as t
from pathlib import Path

from bench.host.stopping import Stopping
from encoders.base import EncoderError, Keeper
from encoders.checkpoint import CheckpointError
from results import files

Resume = t.Literal["exact", "inexact", "never"]
GENERATIONS = 2
MAX_SHARE = 0.01  # of a training's time that may go into keeping its state
_NAME = re.compile(r"step(?P<step>\d{1,12})-((?P<generation>\d{1,9})-)?(?P<sha256>[0-9a-f]{64})\.safetensors")

logger = logging.getLogger(__name__)


class ResumeRefused(EncoderError):
    """A training that was stopped elsewhere, and is not gone on with here; no failure of its method."""


class Checkpoints(Keeper):
    """Two generations of a training's state, in a directory of their own.

    `run` is the run's content key, and `environment` whatever else its last bits depend on. A state from another
    environment is refused, unless `resume` is 'inexact': `exact` then says that the run is no longer repeatable.
    """

    def __init__(
        self,
        directory: Path,
        run: str,
        environment: dict[str, str],
        *,
        seconds: float,
        resume: Resume,
        stopping: Stopping,
    ) -> None:
        self.directory, self.run, self.machine = directory, run, environment
        self.seconds, self.resume, self.stop = seconds, resume, stopping
        self.exact = True
        self.last = self.asked = time.monotonic()
        self.cost = 0.0  # seconds that the last one took, from the question whether it is due
        self.read: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {"run": self.run, "exact": "yes" if self.exact else "no"} | self.machine

    @property
    def stopping(self) -> bool:
        return self.stop.asked

    def listening(self) -> contextlib.AbstractContextManager[None]:
        return self.stop.listening()

    def due(self) -> bool:
        self.asked = time.monotonic()
        return self.asked - self.last >= max(self.seconds, self.cost / MAX_SHARE)

    def keep(self, step: int, content: bytes) -> None:
        """Raises files.Unwritable; what was kept before is then still there."""
        generation, _ = max(self._found(), default=(0, 0))
        name = f"step{step}-{generation + 1}-{hashlib.sha256(content).hexdigest()}.safetensors"
        files.replace(self.directory / name, content)
        for old in self._newest_first()[GENERATIONS:]:
            old.unlink(missing_ok=True)
        self.last = time.monotonic()
        self.cost = self.last - self.asked

    def kept(self, largest: int) -> t.Iterator[bytes]:
        if self.resume == "never":
            shutil.rmtree(self.directory, ignore_errors=True)
        for path in self._newest_first():
            self.read = path
            try:
                size = path.stat().st_size
                content = path.read_bytes() if size <= largest else None
            except OSError as error:
                self.reject(f"it cannot be read: {error.strerror}")
                continue
            if content is None:
                self.reject(f"it has {size:,} bytes; a checkpoint of this training has fewer than {largest:,}")
            elif hashlib.sha256(content).hexdigest() != _NAME.fullmatch(path.name)["sha256"]:  # type: ignore[index]
                self.reject("it has changed since it was written")
            else:
                yield content

    def check_compatible(self, environment: dict[str, str]) -> None:
        if environment.get("run") != self.run:
            raise CheckpointError(f"it belongs to the run {environment.get('run')}, not to {self.run}")
        names = sorted(self.machine.keys() | environment.keys() - {"run", "exact"})
        changed = [
            f"{name} {environment.get(name)}, now {self.machine.get(name)}"
            for name in names
            if environment.get(name) != self.machine.get(name)
        ]
        if changed and self.resume == "exact":
            then = environment.get("threads")
            exact = f"--threads {then} resumes to the same bits, " if then != self.machine.get("threads") else ""
            raise ResumeRefused(
                f"was interrupted in a different environment ({'; '.join(changed)}), so its last bits would differ; "
                f"{exact if len(changed) == 1 else ''}--resume inexact resumes and marks the result, "
                "--resume never starts over"
            )
        self.exact = not changed and environment.get("exact") == "yes"

    def reject(self, problem: str) -> None:
        logger.warning(
            "cannot use the checkpoint %s: %s; trying the one before it, or starting over", self.read, problem
        )
        if self.read:
            files.set_aside(self.read)

    def _found(self) -> dict[tuple[int, int], Path]:
        """What is kept, by generation and step: a clock can be set back, and a later training have fewer steps."""
        names = {path: _NAME.fullmatch(path.name) for path in self.directory.glob("step*.safetensors")}
        return {(int(name["generation"] or 0), int(name["step"])): path for path, name in names.items() if name}

    def _newest_first(self) -> list[Path]:
        return [path for _, path in sorted(self._found().items(), reverse=True)]
