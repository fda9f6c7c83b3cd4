"""The machine a number is made on: device, threads, precision, and the provenance that records carry."""

import contextlib
import ctypes
import datetime
import functools
import gc
import importlib.metadata
import logging
import os
import platform
import random
import re
import resource
import signal
import subprocess
import sys
import typing as t
import warnings
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bench import HOME
from protocols.base import multiplies_bfloat16
from results.record import Provenance

logger = logging.getLogger(__name__)

Precision = t.Literal["auto", "float32", "bfloat16"]


class MachineError(Exception):
    """Something was asked for that this machine does not have."""

    exit_code = 2


def pick_device(name: str) -> torch.device:
    """'auto' is the first GPU where there is one, the processor elsewhere."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise MachineError(f"no device {name!r}; try auto, cpu, cuda or cuda:1") from error
    if device.type not in ("cpu", "cuda"):
        raise MachineError(f"device {name!r} is not supported; try auto, cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MachineError(f"no device {name!r}: this machine has {torch.cuda.device_count()} GPUs; try --device cpu")
    return device


def gpu_of(name: str, gpus: int, *, slot: int = 0, ranks: int = 1, rank: int = 0) -> str:
    """The device of one rank of one of several runs at a time, on a machine with so many GPUs.

    Each rank has a GPU of its own: those of `cuda:2` have cuda:2, cuda:3, ...; where no number was asked for, runs at
    a time share out the GPUs, and those of more slots than there is room for share them. Raises MachineError if there
    are fewer GPUs.
    """
    kind, _, number = name.partition(":")
    if kind not in ("auto", "cuda") or (kind == "auto" and not gpus) or not (number or "0").isdecimal():
        return name  # not a GPU, or `pick_device` says what is wrong
    first = int(number) if number else slot % max(1, gpus // ranks) * ranks
    if ranks > 1 and first + ranks > gpus:
        wanted = f"cuda:{first} to cuda:{first + ranks - 1}, one for each rank"
        raise MachineError(f"--device {name} needs {wanted}; {gpus} GPUs are here; try --device cpu or fewer --ranks")
    return f"cuda:{first + rank}"


def pick_precision(name: Precision, device: torch.device) -> t.Literal["float32", "bfloat16"]:
    """'auto' is bfloat16 where the device multiplies it natively, float32 elsewhere."""
    if name != "auto":
        return name
    return "bfloat16" if multiplies_bfloat16(device) else "float32"


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resident() -> int:
    """Bytes that this process has taken at most: what libraries need is among them."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_memory() -> int | None:
    """Bytes that new processes can take, of the machine and of the container this one is in; None where none tells."""
    free = []
    with contextlib.suppress(OSError, ValueError):
        (kilobytes,) = re.findall(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
        free.append(1024 * int(kilobytes))
    with contextlib.suppress(OSError, ValueError):  # where it says "max" there is no limit
        group = Path("/sys/fs/cgroup")
        free.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    return max(0, min(free)) if free else None


def prepare(threads: int) -> None:
    """Fix what would otherwise change the bits of a result from one process to the next, and keep freed memory."""
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(threads)  # of libraries yet to be loaded
    threadpool_limits(threads)  # of those that are, such as NumPy's
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc's malloc keep some 256 MiB of what is freed, in place of giving it back and asking for it again.

    The tensors of a training step come and go by the hundred, and each page that comes anew is zeroed first: a
    twentieth of the time of small steps.
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h's names for them
    with contextlib.suppress(AttributeError, OSError, TypeError):  # of glibc only
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 2**25)
        libc.mallopt(trim_threshold, 2**28)


@contextlib.contextmanager
def left_as_it_was(who: str) -> t.Iterator[None]:
    """After the block what it has changed of this process at large is put back, and a warning says who changed what.

    Random states, filters of warnings and `np.errstate` are put back without a word: whoever imports changes them.
    """
    before = _at_large()
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    timed = signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0)
    descriptors = {one: os.dup(one) for one in (1, 2) if _is_open(one)}
    draws = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        with warnings.catch_warnings(), np.errstate():
            yield
    finally:
        changed = [(name, now) for name, now in _at_large().items() if now != before[name]]
        found = [f"{name} ({before[name]} before, {now} after)" for name, now in changed]
        for name in before if changed else ():  # all, as some move others
            with contextlib.suppress(Exception):  # such as a directory that is gone
                _AT_LARGE[name][1](before[name])
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                with contextlib.suppress(ValueError, OSError):  # not the main thread, or nobody's to set
                    signal.signal(number, handler)
                    found.append(f"the handler of {getattr(number, 'name', number)}")
        if not timed and signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0):
            signal.setitimer(signal.ITIMER_REAL, 0)
            found.append("the alarm timer")
        for one, kept in descriptors.items():
            if not _is_open(one) or not os.path.samestat(os.fstat(one), os.fstat(kept)):
                os.dup2(kept, one)
                found.append(f"file descriptor {one}")
            os.close(kept)
        random.setstate(draws[0])
        np.random.set_state(draws[1])
        torch.set_rng_state(draws[2])
        if found:
            logger.warning("%s changed global state of this process, which was restored: %s", who, ", ".join(found))


def _at_large() -> dict[str, t.Any]:
    now: dict[str, t.Any] = {}
    for name, (get, _) in _AT_LARGE.items():
        try:
            now[name] = get()
        except Exception as error:  # such as of precisions that contradict each other
            now[name] = type(error).__name__
    return now


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _put_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _attribute(owner: t.Any, name: str) -> tuple[t.Callable[[], t.Any], t.Callable[[t.Any], None]]:
    return functools.partial(getattr, owner, name), functools.partial(setattr, owner, name)


_AT_LARGE: dict[str, tuple[t.Callable[[], t.Any], t.Callable[[t.Any], t.Any]]] = {  # what is asked, how it is set
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": (torch.get_default_device, _put_device),
    "torch's grad mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's anomaly detection": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "torch's threads": (torch.get_num_threads, torch.set_num_threads),
    "torch's deterministic algorithms": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    "torch's matmul precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "torch's denormals": (
        lambda: bool(torch.tensor([1e-310], dtype=torch.float64, device="cpu") * 1 == 0),
        torch.set_flush_denormal,
    ),
    **{
        f"torch.backends.{name}": _attribute(functools.reduce(getattr, path.split("."), torch), flag)
        for name in (
            *("cudnn.enabled", "cudnn.benchmark", "cudnn.deterministic", "cudnn.allow_tf32", "mkldnn.enabled"),
            *("cuda.matmul.allow_tf32", "cuda.matmul.allow_fp16_reduced_precision_reduction"),
            *("cuda.matmul.allow_bf16_reduced_precision_reduction", "fp32_precision", "cuda.matmul.fp32_precision"),
            *("cudnn.conv.fp32_precision", "cudnn.rnn.fp32_precision", "mkldnn.fp32_precision"),
            *("mkldnn.matmul.fp32_precision", "mkldnn.conv.fp32_precision", "mkldnn.rnn.fp32_precision"),
        )
        for path, _, flag in (f"backends.{name}".rpartition("."),)
    },
    **{
        f"torch's autocast on {device}": (
            functools.partial(torch.is_autocast_enabled, device),
            functools.partial(torch.set_autocast_enabled, device),
        )
        for device in ("cpu", "cuda")
    },
    "the working directory": (os.getcwd, os.chdir),
    "the umask": (_umask, os.umask),
    "sys.stdin": _attribute(sys, "stdin"),
    "sys.stdout": _attribute(sys, "stdout"),
    "sys.stderr": _attribute(sys, "stderr"),
    "the recursion limit": (sys.getrecursionlimit, sys.setrecursionlimit),
    "the garbage collector": (gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    "the logging level": _attribute(logging.root.manager, "disable"),
}


def provenance(device: torch.device, threads: int, precision: str, ranks: int = 1) -> Provenance:
    """Where and with what a run is made; names no user, host or path."""
    commit, dirty = _commit()
    return Provenance(
        commit=commit,
        dirty=dirty,
        versions={name: importlib.metadata.version(name) for name in ("frostbench", "torch", "numpy", "scikit-learn")}
        | {"python": platform.python_version()},
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        threads=threads,
        ranks=ranks,
        precision=precision,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def numeric_environment(device: torch.device, threads: int) -> dict[str, str]:
    """What the last bits of a training depend on beside its run's key, by name."""
    about = {"torch": torch.__version__, "threads": str(threads), "processor": _processor()}
    about["instructions"] = torch.backends.cpu.get_cpu_capability()
    if device.type == "cuda":
        tf32 = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
        about |= {"GPU": torch.cuda.get_device_name(device), "CUDA": str(torch.version.cuda), "TF32": str(tf32)}
    return about | {name: os.environ[name] for name in ("MKL_CBWR", "ONEDNN_MAX_CPU_ISA") if name in os.environ}


def processor_name() -> str:
    """The processor's own name, or its architecture where the system does not tell, and how many cores are ours."""
    return f"{_processor()}, {available_cores()} cores"


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


@functools.cache
def _commit() -> tuple[str | None, bool | None]:
    """The commit of the checkout this code stands in and whether it was changed since; None, None elsewhere."""
    if not (HOME / ".git").exists():
        return None, None
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(HOME), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10)  # noqa: S603 - our own words
    return done.stdout.strip()
