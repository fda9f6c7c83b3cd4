"""What a measurement is: contestants in turn, the machine's own limits, memory, and the row that comes of it."""

import contextlib
import ctypes
import dataclasses
import functools
import statistics
import threading
import time
import typing as t
from pathlib import Path

import torch

from bench.host import machine

Precision = t.Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Row:
    """A job done by ours and by the alternative. Times in seconds; accuracies are fractions of test images."""

    section: str
    case: str
    ours: float | None = None
    images: int | None = None  # that ours works on, for images a second
    alternative: str = "-"
    theirs: float | None = None
    limit: float | None = None
    our_accuracy: float | None = None
    their_accuracy: float | None = None
    added_bytes: int | None = None  # at the peak of ours, over what was there before
    remark: str = ""
    failed: bool = False


@dataclasses.dataclass(frozen=True)
class Rates:
    """What this machine does at its best: measured, not looked up."""

    device: torch.device
    threads: int
    products: dict[Precision, float]  # floating-point operations a second, of native precisions only
    memory: float  # bytes a second, read and written

    def limit(self, flops: float, traffic: float, precision: Precision = "float32") -> float:
        """The least seconds for so many operations of matrix products and so many bytes."""
        return flops / self.products[precision] + traffic / self.memory

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else machine.processor_name()
        products = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {precision}" for precision, rate in self.products.items())
        return f"{name}, threads: {self.threads}\nmatrix products {products}; memory {self.memory / 1e9:,.1f} GB/s"


def rates(device: torch.device, threads: int) -> Rates:
    """Measure products of square matrices and the copying of an array far larger than any cache: about 2 seconds."""
    machine.prepare(threads)
    size = 8192 if device.type == "cuda" else 2048
    products: dict[Precision, float] = {}
    for precision in t.get_args(Precision):
        if precision == "float32" or machine.pick_precision("auto", device) == precision:
            a = torch.randn(size, size, device=device).to(getattr(torch, precision))
            out = torch.empty_like(a)
            products[precision] = 2 * size**3 / _fastest(functools.partial(torch.mm, a, a, out=out), device)
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    memory = 2 * source.nbytes / _fastest(functools.partial(target.copy_, source), device)
    return Rates(device, threads, products, memory)


def _fastest(work: t.Callable[[], object], device: torch.device) -> float:
    return min(seconds_of(work, device) for _ in range(8))


def seconds_of(work: t.Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is measured: two minutes on two cores, or ten."""

    rounds: int
    seconds: float  # after which a case begins no further round
    train_images: int
    gallery: int  # train images of the probes
    queries: int  # test images
    records: int  # of the largest leaderboard
    thorough: bool  # with the cases that take minutes


Case = tuple[str, t.Callable[[], list[Row]]]


def race(contestants: t.Mapping[str, t.Callable[[], float]], effort: Effort) -> dict[str, float]:
    """Median seconds of each, in turn. The first lap warms up and does not count."""
    for run in contestants.values():
        run()
    laps: dict[str, list[float]] = {name: [] for name in contestants}
    started = time.perf_counter()
    for _ in range(effort.rounds):
        for name, run in contestants.items():
            laps[name].append(run())
        if time.perf_counter() - started > effort.seconds:
            break
    return {name: statistics.median(lap) for name, lap in laps.items()}


class Memory:
    """The peak of memory inside the block over what was there before; None where the system does not tell."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.added, self.ended = device, t.cast(int | None, None), threading.Event()

    def __enter__(self) -> t.Self:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.before = torch.cuda.memory_allocated(self.device)
        else:
            _return_free_memory()
            self.before = self.peak = _anonymous_memory()
            self.sampler = threading.Thread(target=self._sample)
            self.sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.added = torch.cuda.max_memory_allocated(self.device) - self.before
        else:
            self.ended.set()
            self.sampler.join()
            self.added = self.peak - self.before if self.before else None

    def _sample(self) -> None:
        while not self.ended.wait(0.005):
            self.peak = max(self.peak, _anonymous_memory())


@contextlib.contextmanager
def noted(memory: dict[str, int | None], name: str, device: torch.device) -> t.Iterator[None]:
    """Notes the peak of memory under `name` in the first lap; watching takes time, so later ones go without."""
    if name in memory:
        yield
    else:
        with Memory(device) as used:
            yield
        memory[name] = used.added


def _return_free_memory() -> None:
    """What the allocator holds back from earlier work would hide what is asked for now."""
    with contextlib.suppress(AttributeError, OSError):  # of glibc only
        ctypes.CDLL(None).malloc_trim(0)


def _anonymous_memory() -> int:
    """Bytes of this process that are not pages of files; 0 where the system does not tell."""
    with contextlib.suppress(OSError), Path("/proc/self/status").open(encoding="ascii") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024
    return 0
