"""What a person sees of a suite while it runs, on stderr: bars on a terminal, a line every 30 s elsewhere."""

import collections
import contextlib
import dataclasses
import json
import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
import time
import types
import typing as t

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from encoders import base
from results.redaction import printable

LINE_SECONDS = 30.0  # between two lines about the same run where there is no terminal
WIDE = 110  # columns of a terminal that has room for the losses, too
MARK = "\x1e"  # opens what a worker tells of its run, for its bar; all else that it says is for people


class Display:
    """Shows a suite and the runs it is at. Use it as a context manager; it is the Watcher of runs in this process.

    titles: of the runs to come, `jobs` at a time. What was seen of other seeds tells when all will be done.
    """

    def __init__(self, titles: t.Sequence[str], jobs: int = 1, terminal: bool | None = None) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.live = self.console.is_terminal if terminal is None else terminal
        self.total, self.done, self.jobs = len(titles), 0, jobs
        self.waiting = collections.Counter(map(_kind, titles))
        self.took: dict[str, list[float]] = {}  # seconds of finished runs, by kind
        self.bars = Progress(*_columns(self.console.width), console=self.console, disable=not self.live,
                             transient=True, expand=True)  # fmt: skip
        self.suite = self.bars.add_task("runs", total=self.total, count=f"0/{self.total}", left="", detail="")
        self.active: dict[str, _Active] = {}
        self.run: _Active | None = None  # that is in this process
        self.lock = threading.RLock()

    def __enter__(self) -> t.Self:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        for title in list(self.active):
            self._close(title)
        self.bars.stop()

    def start(self, title: str) -> None:
        if self.run is not None:  # another process is at it
            self._close(self.run.title)
        self.run = self._open(title)

    def stage(self, text: str) -> None:
        if self.run is not None:
            self._stage(self.run, text)

    def training(self, progress: base.Progress) -> None:
        if self.run is not None:
            self._training(self.run, progress)

    def finish(self, title: str, seconds: float, error: str | None) -> None:
        active = self.active.get(title)
        if active and active.relay:
            active.relay.join(1)  # what it said last stands above what became of it
        self._close(title)
        self.done += 1
        if not error:
            self.took.setdefault(_kind(title), []).append(seconds)
        self.bars.update(self.suite, completed=self.done, count=f"{self.done}/{self.total}")
        self._foretell()
        outcome = f"failed: {error}" if error else f"done in {clock(seconds)}"
        self.say(f"[{self.done}/{self.total}] {title}: {outcome}")

    def say(self, line: str) -> None:
        """A line above the bars."""
        self.console.print(printable(line), markup=False, soft_wrap=True)

    def hear(self, title: str) -> multiprocessing.connection.Connection | None:
        """On a terminal, what a worker's stderr is to be: its lines come above the bars, what it tells into its own."""
        if not self.live:
            return None
        reading, writing = multiprocessing.Pipe(duplex=False)
        active = self._open(title)
        active.relay = threading.Thread(target=self._relay, args=(active, reading), daemon=True)
        active.relay.start()
        return writing

    def _relay(self, active: "_Active", reading: multiprocessing.connection.Connection) -> None:
        with open(os.dup(reading.fileno()), encoding="utf-8", errors="replace") as lines:  # noqa: PTH123 - no path
            reading.close()
            for line in lines:
                text, _, message = line.rstrip("\n").partition(MARK)
                if text.strip():
                    self.say("".join(one if one.isprintable() else " " for one in text))
                if message:
                    stage, progress = json.loads(message)
                    if progress:
                        self._training(active, base.Progress(**progress))
                    else:
                        self._stage(active, stage)

    def _open(self, title: str) -> "_Active":
        with self.lock:
            self._close(title)
            self.waiting -= collections.Counter([_kind(title)])
            label, rest = title.partition(", ")[::2]
            *dataset, seed = rest.rsplit(", ", 1)  # the seed comes first, since a narrow terminal cuts the end
            bar = self.bars.add_task(
                ", ".join(filter(None, [label, seed, *dataset])), total=None, count="starting", left="", detail=""
            )
            active = self.active[title] = _Active(title, bar)
        if not self.live:
            active.lines = Lines(title)
            active.lines.start()
        return active

    def _close(self, title: str) -> None:
        with self.lock:
            if active := self.active.pop(title, None):
                self.bars.remove_task(active.bar)
                if active.lines:
                    active.lines.stop()

    def _stage(self, active: "_Active", text: str) -> None:
        active.left = None
        self._update(active, count=text, left="", detail="")
        if active.lines:
            active.lines.stage(text)

    def _training(self, active: "_Active", progress: base.Progress) -> None:
        active.left = progress.seconds_left
        count, left = f"epoch {progress.epoch}/{progress.epochs}", f"{clock(progress.seconds_left)} left"
        self._update(active, total=1.0, completed=progress.fraction, count=count, left=left, detail=_speed(progress))
        if active.lines:
            active.lines.training(progress)
        self._foretell()

    def _update(self, active: "_Active", **shown: t.Any) -> None:
        with self.lock:
            if active.bar in self.bars.task_ids:  # what a worker told last may come after its end
                self.bars.update(active.bar, **shown)

    def _foretell(self) -> None:
        seconds = self._left()
        self.bars.update(self.suite, left="" if seconds is None else f"about {clock(seconds)} left")

    def _left(self) -> float | None:
        """Seconds until all is done, by what runs took and trainings have left; None if none tells."""
        with self.lock:
            now, active = time.monotonic(), list(self.active.values())
        seen = [seconds for kind in self.took.values() for seconds in kind]
        seen = seen or [now - one.started + one.left for one in active if one.left is not None]
        if not seen:
            return None
        known = {kind: sum(seconds) / len(seconds) for kind, seconds in self.took.items()}
        typical = sum(seen) / len(seen)
        lefts = [
            max(0.0, known.get(_kind(one.title), typical) - (now - one.started)) if one.left is None else one.left
            for one in active
        ]
        waiting = sum(known.get(kind, typical) * count for kind, count in self.waiting.items())
        return max([(sum(lefts) + waiting) / self.jobs, *lefts])


@dataclasses.dataclass
class _Active:
    """A run that is being made."""

    title: str
    bar: t.Any
    started: float = dataclasses.field(default_factory=time.monotonic)
    left: float | None = None  # seconds, while it trains
    lines: "Lines | None" = None
    relay: threading.Thread | None = None


class Teller:
    """The Watcher of a run in a worker whose stderr a Display hears."""

    def start(self) -> None:
        pass

    stop = start

    def stage(self, text: str) -> None:
        self._tell(text, None)

    def training(self, progress: base.Progress) -> None:
        self._tell("", dataclasses.asdict(progress))

    def _tell(self, *message: t.Any) -> None:
        with contextlib.suppress(OSError):  # nobody listens any more
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{MARK}{json.dumps(message)}\n".encode())


def _columns(width: int) -> list[ProgressColumn]:
    """Of a bar: what it is of, how far it is, since when and how much longer; losses where there is room for them."""

    def column(field: str, **layout: t.Any) -> TextColumn:
        return TextColumn(field, markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", **layout))

    return [
        column("{task.description}", ratio=1),
        BarColumn(table_column=Column(width=10)),
        column("{task.fields[count]}", max_width=20),
        TimeElapsedColumn(table_column=Column(width=8)),
        column("{task.fields[left]}"),
        *([column("{task.fields[detail]}", ratio=1)] if width >= WIDE else []),
    ]


def _kind(title: str) -> str:
    """What runs of several seeds share."""
    return title.rpartition(", seed ")[0]


class Lines(threading.Thread):
    """A run's Watcher where there is no terminal: says every 30 s where it is, however long one stage takes."""

    def __init__(self, title: str) -> None:
        super().__init__(daemon=True)
        self.title, self.text = title, "starting"
        self.stopped = threading.Event()

    def stage(self, text: str) -> None:
        self.text = text

    def training(self, progress: base.Progress) -> None:
        self.text = (
            f"epoch {progress.epoch} of {progress.epochs}, {_speed(progress)}, {clock(progress.seconds_left)} left"
        )

    def stop(self) -> None:
        self.stopped.set()

    def run(self) -> None:
        while not self.stopped.wait(LINE_SECONDS):
            print(f"{self.title}: {self.text}", file=sys.stderr, flush=True)  # noqa: T201 - what this class is for


def _speed(progress: base.Progress) -> str:
    losses = [f"{player} {loss:.3f}" for player, loss in progress.losses.items()]
    return ", ".join([f"{progress.images_per_second:,.0f} images/s", *losses])


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
