"""Ctrl-C, SIGTERM and SIGHUP: a training is stopped between two steps, with its state kept; everything else at once."""

import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import os
import pickle
import signal
import sys
import threading
import types
import typing as t

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopping:
    """Whether somebody asked this process to stop. A flag that a training reads, since an exception can get lost.

    Python drops what a signal handler raises inside a callback of its own, such as one of the garbage collector's.
    """

    def __init__(self) -> None:
        self.asked = self._listening = False

    @contextlib.contextmanager
    def listening(self) -> t.Iterator[None]:
        """Inside the block the first signal only sets `asked`; a second one stops at once, as outside of it."""
        self._listening = True
        try:
            yield
        finally:
            self._listening = False

    @contextlib.contextmanager
    def on_signals(self) -> t.Iterator[None]:
        """Inside the block Ctrl-C, SIGTERM and SIGHUP come here. Only the main thread can do this."""
        heard = [one for one in STOPS if signal.getsignal(one) is not signal.SIG_IGN]
        before = {one: signal.signal(one, self._stop) for one in heard}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def _stop(self, number: int, _frame: types.FrameType | None) -> None:
        again, self.asked = self.asked, True
        if again and number == signal.SIGHUP:  # of a terminal that is closed several come
            return
        if again or not self._listening:
            raise KeyboardInterrupt
        with contextlib.suppress(OSError):  # of a terminal that is closed
            sys.stderr.write("stopping after this step, from which the same command resumes; once more stops at once\n")


def ignore_sigint(worker: multiprocessing.context.SpawnProcess) -> None:
    """Start a worker that never hears of the terminal, not even while it imports: its parent does, and ends it."""
    before = {one: signal.signal(one, signal.SIG_IGN) for one in (signal.SIGINT, signal.SIGHUP)}
    try:
        worker.start()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def begin(call: bytes, stderr: multiprocessing.connection.Connection | None = None, *pipes: t.Any) -> None:
    """What a worker does before it imports what it works with: from here on it ends with its parent.

    call: a function and its first arguments, pickled; the pipes are its last. stderr: takes what the worker says, also
    on a terminal's stdout.
    """
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    if stderr is not None:
        for stream in (1, 2) if os.isatty(1) else (2,):
            os.dup2(stderr.fileno(), stream)
        stderr.close()
    function, arguments = pickle.loads(call)  # noqa: S301 - its parent wrote it
    function(*arguments, *pipes)


def _stop_with_parent() -> None:
    """Nobody would read what an orphan prints, and the next call of the suite would make its run a second time."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
