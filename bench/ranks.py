"""The processes of a data-parallel training: started with it, on this machine, and gone when it has ended."""

import contextlib
import datetime
import multiprocessing
import multiprocessing.connection
import os
import sys
import tempfile
import threading
import typing as t
from pathlib import Path

import torch
import torch.distributed

from bench.stopping import start_deaf, stop_with_parent
from encoders.base import EncoderError
from encoders.ranks import Ranks

EXIT_SECONDS = 10.0  # between a rank's last word and its end
PATIENCE = datetime.timedelta(minutes=10)  # of a rank for the others, such as while they decode their data


@contextlib.contextmanager
def together(follow: t.Callable[..., None], arguments: tuple[t.Any, ...], world: int, kind: str) -> t.Iterator[Ranks]:
    """Inside the block this process is rank 0, and the others call follow(*arguments, ranks).

    kind: of the device, cpu or cuda. Everything listens on loopback. Raises EncoderError if another rank dies.
    """
    if world == 1:
        yield Ranks()
        return
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="frostbench-") as directory:
        meeting = Path(directory, "ranks")
        others = [
            spawn.Process(target=_other, args=(follow, arguments, meeting, Ranks(rank, world), kind), daemon=True)
            for rank in range(1, world)
        ]
        try:
            for other in others:
                start_deaf(other)
            with _joined(meeting, Ranks(0, world), kind) as ranks:
                yield ranks
        except RuntimeError as error:
            ended = multiprocessing.connection.wait([other.sentinel for other in others], EXIT_SECONDS)
            for rank, other in enumerate(others, 1):
                if other.sentinel in ended:
                    other.join()
                    raise EncoderError(f"rank {rank} of {world} ended with status {other.exitcode}") from error
            raise
        finally:
            for other in others:
                other.kill()
                other.join()


def _other(follow: t.Callable[..., None], arguments: tuple[t.Any, ...], meeting: Path, ranks: Ranks, kind: str) -> None:
    threading.Thread(target=stop_with_parent, daemon=True).start()
    with _joined(meeting, ranks, kind):
        follow(*arguments, ranks)
        threading.Event().wait()  # for the first, which may still read what this one sent, to end it


@contextlib.contextmanager
def _joined(meeting: Path, ranks: Ranks, kind: str) -> t.Iterator[Ranks]:
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    torch.distributed.init_process_group(
        "nccl" if kind == "cuda" else "gloo",
        init_method=meeting.as_uri(),  # torch's store on TCP would listen on all interfaces
        rank=ranks.rank,
        world_size=ranks.world,
        timeout=PATIENCE,
    )
    try:
        yield ranks
    finally:
        torch.distributed.destroy_process_group()
