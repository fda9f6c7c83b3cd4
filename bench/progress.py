"""What a person sees of a suite while it runs, on stderr: bars on a terminal, a line every 30 s elsewhere."""

import sys
import threading
import types
import typing as t

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from encoders import base
from results.redaction import printable

LINE_SECONDS = 30.0  # between two lines about the same run where there is no terminal


class Display:
    """Shows a suite and the run it is at. Use it as a context manager; it is a run's Watcher."""

    def __init__(self, runs: int, terminal: bool | None = None) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.live = self.console.is_terminal if terminal is None else terminal
        self.total, self.done = runs, 0
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}"),
            console=self.console,
            disable=not self.live,
            transient=True,
        )
        self.suite: TaskID = self.bars.add_task("runs", total=runs, detail="")
        self.run: TaskID | None = None
        self.lines = Lines("")

    def __enter__(self) -> t.Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.bars.stop()
        self.lines.stop()

    def start(self, title: str) -> None:
        self._close()
        self.run = self.bars.add_task(title, total=None, detail="")
        if not self.live:
            self.lines = Lines(title)
            self.lines.start()

    def stage(self, text: str) -> None:
        self.lines.stage(text)
        if self.run is not None:
            self.bars.update(self.run, detail=text)

    def training(self, progress: base.Progress) -> None:
        self.lines.training(progress)
        if self.run is not None:
            done = int(progress.fraction * progress.epochs)
            self.bars.update(self.run, total=progress.epochs, completed=done, detail=_training(progress))

    def finish(self, title: str, seconds: float, error: str | None) -> None:
        self._close()
        self.done += 1
        self.bars.update(self.suite, completed=self.done)
        outcome = f"failed: {error}" if error else f"done in {clock(seconds)}"
        self.console.print(printable(f"[{self.done}/{self.total}] {title}: {outcome}"), markup=False, soft_wrap=True)

    def _close(self) -> None:
        self.lines.stop()
        if self.run is not None:
            self.bars.remove_task(self.run)
            self.run = None


class Lines(threading.Thread):
    """A run's Watcher where there is no terminal: says every 30 s where it is, however long one stage takes."""

    def __init__(self, title: str) -> None:
        super().__init__(daemon=True)
        self.title, self.text = title, "starting"
        self.stopped = threading.Event()

    def stage(self, text: str) -> None:
        self.text = text

    def training(self, progress: base.Progress) -> None:
        self.text = f"epoch {progress.epoch} of {progress.epochs}, {_training(progress)}"

    def stop(self) -> None:
        self.stopped.set()

    def run(self) -> None:
        while not self.stopped.wait(LINE_SECONDS):
            print(f"{self.title}: {self.text}", file=sys.stderr, flush=True)  # noqa: T201 - what this class is for


def _training(progress: base.Progress) -> str:
    losses = ", ".join(f"{player} {loss:.3f}" for player, loss in progress.losses.items())
    return f"{progress.images_per_second:,.0f} images/s, {losses}, {clock(progress.seconds_left)} left"


def clock(seconds: float) -> str:
    """12 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"


def size(count: float) -> str:
    """Bytes as 3 MB, 1.2 GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
