"""The processes of a data-parallel training.

They are started with it on this machine, and gone when it has ended; or torchrun has started them, on one machine or
several, and all but the first do their part of one training after the other.
"""

import contextlib
import dataclasses
import datetime
import functools
import itertools
import json
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import typing as t
from pathlib import Path

import torch
import torch.distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from bench.host import machine
from bench.host.stopping import STOPS, begin, ignore_sigint
from encoders.base import EncoderError
from encoders.distributed import ProcessGroup

EXIT_SECONDS = 10.0  # between a rank's last word and its end
MAX_PER_CORE = 4  # ranks, or threads of one, at most: each rank takes a process of some 400 MB
TIMEOUT = datetime.timedelta(minutes=10)  # of a rank for the others, such as while they decode their data
STEP_TIMEOUT = datetime.timedelta(seconds=45)  # of gradients on GPUs, where nothing else tells that a rank is gone


@contextlib.contextmanager
def process_group(
    worker: t.Callable[..., None], arguments: tuple[str, ...], world: int, device: str
) -> t.Iterator[ProcessGroup]:
    """Inside the block this process is rank 0, and the others call worker(*arguments, ranks).

    device: the first rank's, such as cpu or cuda:0; the others have those of `machine.gpu_of`. Everything listens on
    loopback, unless torchrun does. Raises EncoderError if another rank dies.
    """
    if world == 1:
        yield ProcessGroup()
        return
    if torchrun().world_size > 1:
        with _leading(arguments, device) as ranks:
            yield ranks
        return
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="frostbench-") as directory:
        meeting = Path(directory, "ranks")
        others = [
            spawn.Process(
                target=begin,
                args=(pickle.dumps((_other, (worker, arguments, meeting, ProcessGroup(rank, world), device))),),
                daemon=True,
            )
            for rank in range(1, world)
        ]
        try:
            for other in others:
                ignore_sigint(other)
            with contextlib.ExitStack() as until:
                try:  # a store on TCP would be open to all
                    yield until.enter_context(_joined(ProcessGroup(0, world), device, init_method=meeting.as_uri()))
                except RuntimeError as error:  # before the others are let go, who would then end, too
                    ended = multiprocessing.connection.wait([other.sentinel for other in others], EXIT_SECONDS)
                    for rank, other in enumerate(others, 1):
                        if other.sentinel in ended:
                            other.join()
                            raise EncoderError(f"rank {rank} of {world} exited with status {other.exitcode}") from error
                    raise
        finally:
            for other in others:
                other.kill()
                other.join()


def _other(
    worker: t.Callable[..., None], arguments: tuple[t.Any, ...], meeting: Path, ranks: ProcessGroup, device: str
) -> None:
    with _joined(ranks, device, init_method=meeting.as_uri()) as group:
        worker(*arguments, group)
        threading.Event().wait()  # for the first, which may still read what this one sent, to end it


@contextlib.contextmanager
def _joined(ranks: ProcessGroup, device: str, **meeting: t.Any) -> t.Iterator[ProcessGroup]:
    """NCCL sums tensors of GPUs; what ranks tell each other goes over gloo, which waits for no GPU."""
    if local_world(ranks.world_size) == ranks.world_size:
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback
    own = torch.device(device_of(ranks, device))
    if own.type == "cuda":
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "2")  # end what hangs, and not the process
        torch.cuda.set_device(own)
    torch.distributed.init_process_group(
        "nccl" if own.type == "cuda" else "gloo",
        **meeting,
        rank=ranks.rank,
        world_size=ranks.world_size,
        timeout=STEP_TIMEOUT if own.type == "cuda" else TIMEOUT,
        device_id=own if own.type == "cuda" else None,
    )
    try:
        control = torch.distributed.new_group(backend="gloo", timeout=TIMEOUT) if own.type == "cuda" else None
        yield dataclasses.replace(ranks, control=control)
    finally:
        torch.distributed.destroy_process_group()


# --- started by torchrun ----------------------------------------------------------------------------------------------

_NUMBERS = itertools.count()  # of the trainings of this process


def torchrun() -> ProcessGroup:
    """This process among those that torchrun has started; alone if it has not."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return ProcessGroup()
    return ProcessGroup(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


def check_processes(ranks: int, threads: int) -> None:
    """Raises MachineError for many more ranks, or threads of one, than this machine has cores."""
    cores = machine.available_cores()
    most = MAX_PER_CORE * cores
    for count, name in ((local_world(ranks), "ranks"), (threads, "threads")):
        if count > most:
            raise machine.MachineError(f"--{name} {count} is too many for {cores} cores; wanted {most} or fewer")


def local_world(world: int) -> int:
    """How many of so many ranks are on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if torchrun().world_size > 1 else world


def device_of(ranks: ProcessGroup, device: str) -> str:
    """This rank's device, where the first one of its machine has this one or the command line asked for it."""
    local_rank = int(os.environ["LOCAL_RANK"]) if torchrun().world_size > 1 else ranks.rank
    gpus = torch.cuda.device_count()
    return machine.gpu_of(device, gpus, ranks=local_world(ranks.world_size), rank=local_rank)


def serve(call: t.Callable[..., None]) -> None:
    """What a process that torchrun has started beside the first one does: its part of each training, until
    `shutdown_workers`.

    In a training it hears no signal: the first rank does, and tells the others after which step to stop.
    """
    store, ranks = _store(), torchrun()
    for number in itertools.count():
        _wait(store, f"{number}")
        task = json.loads(store.get(f"{number}"))
        if not task:
            return
        device, *arguments = task
        heard = {one: signal.signal(one, signal.SIG_IGN) for one in STOPS}
        try:
            with _joined(ranks, device, store=PrefixStore(f"{number}/", store)) as group:
                try:
                    call(*arguments, group)
                except Exception as error:  # told before the first rank finds this one gone
                    store.set(f"{number} failed", f"{ranks.rank} of {ranks.world_size}: {error}")
                    raise
                _wait(store, f"{number} over")  # the first may still read what this one sent
        except Exception as error:  # the run fails, and says so where the first rank is
            sys.stderr.write(f"rank {ranks.rank}: {error}\n")
        except KeyboardInterrupt:  # told by the first rank
            pass
        for one, handler in heard.items():
            signal.signal(one, handler)


def shutdown_workers() -> None:
    """There will be no more trainings for processes that `serve`."""
    if torchrun().world_size > 1:
        _store().set(f"{next(_NUMBERS)}", "[]")


@contextlib.contextmanager
def _leading(arguments: tuple[str, ...], device: str) -> t.Iterator[ProcessGroup]:
    """The first rank's part of what `serve` does."""
    store, number = _store(), next(_NUMBERS)
    store.set(f"{number}", json.dumps([device, *arguments]))
    with contextlib.ExitStack() as until:
        try:
            yield until.enter_context(_joined(torchrun(), device, store=PrefixStore(f"{number}/", store)))
        except RuntimeError as error:  # before the others are let go, who would then fail, too
            if not store.check([f"{number} failed"]):
                raise
            raise EncoderError(f"rank {store.get(f'{number} failed').decode()}") from error
        finally:
            store.set(f"{number} over", "")


@functools.cache
def _store() -> Store:
    store, _, _ = next(iter(rendezvous("env://")))
    return store


def _wait(store: Store, key: str) -> None:
    while not store.check([key]):
        time.sleep(0.05)
