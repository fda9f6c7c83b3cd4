"""What Ray costs, beside runs in this process: in all, at the start, between two runs, and in a run.

A run's own time is that of a fixed number of digests in one thread, about a minute, so nothing but the executor can
change it. Both executors are measured in one call, as a machine's speed drifts. Three runs, on 2 cores of an AMD EPYC:

                in all   start   between two   a fit's wall   its processor
    serial     191.6 s   3.2 s        0.17 s        62.21 s         62.20 s
    ray        193.2 s   7.7 s        0.14 s        60.87 s         60.99 s

So it adds 4.5 s a call, less than what runs of a minute differ by. Where other work takes a core, its own processes
compete with the runs: 5.6 % more with half a core taken, 8.4 % on one core alone.

    pytest -m ray tests/test_ray_overhead.py -s     # 7 minutes on a machine that does nothing else
"""

import statistics
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest

PLUGIN = """
import hashlib, time, typing as t
from pathlib import Path
from torch import nn
from encoders.base import Encoder, frozen

class Flat(nn.Module):
    def forward(self, images):
        return {"flat": images.flatten(1) / 255}

class Burn(Encoder):
    '''Takes as long as so many digests of a mebibyte.'''
    source: t.ClassVar[str] = "a test"
    digests: int

    @property
    def taps(self):
        return ("flat",)

    def build(self, shape):
        return Flat()

    def fit(self, data, run):
        stamps = [time.monotonic(), time.process_time()]
        for _ in range(self.digests):
            hashlib.blake2b(bytes(2**20))
        stamps += [time.monotonic(), time.process_time()]
        with Path(__file__).with_name("stamps").open("a") as file:
            file.write(" ".join(map(str, stamps)) + "\\n")
        return frozen(self.build(data.shape))
"""
SUITE = """
suite: burning
datasets: [{name: digits, limit: 60}]
seeds: [0, 1, 2]
encoders: [{name: burn, digests: 53000}]
protocols: [{name: knn, k: 1}]
wandb: {mode: off}
"""


class Took(t.NamedTuple):
    """Seconds of a suite of three runs."""

    whole: float
    start: float  # until the first fit begins
    between: float  # the end of a fit and the beginning of the next
    wall: float  # of a fit
    processor: float


def took(where: Path, executor: str) -> Took:
    where.mkdir()
    (where / "mine.py").write_text(PLUGIN)
    (where / "burning.yaml").write_text(SUITE)
    command = [sys.executable, "-m", "bench", "run", "burning.yaml", "--plugin", "mine.py", "--threads", "1"]
    started = time.monotonic()
    subprocess.run([*command, "--jobs", "1", "--executor", executor], cwd=where, check=True, capture_output=True)
    whole = time.monotonic() - started
    fits = [[float(stamp) for stamp in line.split()] for line in (where / "stamps").read_text().splitlines()]
    assert len(fits) == 3
    return Took(
        whole,
        fits[0][0] - started,
        statistics.mean(later[0] - earlier[2] for earlier, later in zip(fits, fits[1:])),
        statistics.mean(fit[2] - fit[0] for fit in fits),
        statistics.mean(fit[3] - fit[1] for fit in fits),
    )


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ray_adds_less_than_five_percent_to_runs_of_a_minute(tmp_path: Path) -> None:
    found = {executor: took(tmp_path / executor, executor) for executor in ("serial", "ray")}
    for executor, seconds in found.items():
        print(executor, *(f"{name} {value:.2f} s" for name, value in seconds._asdict().items()))
    serial, ray = found["serial"], found["ray"]
    print(f"overhead: {ray.whole / serial.whole - 1:.1%}, of which the start {ray.start - serial.start:.1f} s")
    assert ray.whole < 1.05 * serial.whole
