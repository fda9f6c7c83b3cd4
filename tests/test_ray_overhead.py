"""What Ray costs, beside runs in this process: at the start, between two runs, and in a run.

A run's own time is that of a fixed number of digests in one thread, so nothing but the executor can change it. Both
executors are measured in one call, as a machine's speed drifts. On 2 cores of an AMD EPYC, three runs:

            start   between two   a fit's wall   its processor
    serial  2.4 s        0.07 s         7.92 s          7.89 s
    ray     7.4 s        0.09 s         7.91 s          7.91 s

    pytest -m ray tests/test_ray_overhead.py -s     # a minute on a machine that does nothing else
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
encoders: [{name: burn, digests: 7000}]
protocols: [{name: knn, k: 1}]
wandb: {mode: off}
"""


class Took(t.NamedTuple):
    """Seconds of a suite of three runs."""

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
    fits = [[float(stamp) for stamp in line.split()] for line in (where / "stamps").read_text().splitlines()]
    assert len(fits) == 3
    return Took(
        fits[0][0] - started,
        statistics.mean(later[0] - earlier[2] for earlier, later in zip(fits, fits[1:])),
        statistics.mean(fit[2] - fit[0] for fit in fits),
        statistics.mean(fit[3] - fit[1] for fit in fits),
    )


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ray_adds_less_than_five_percent_to_runs_of_a_minute(tmp_path: Path) -> None:
    found = {executor: took(tmp_path / executor, executor) for executor in ("serial", "ray")}
    for executor, seconds in found.items():
        print(executor, *(f"{name} {value:.2f} s" for name, value in seconds._asdict().items()))
    serial, ray = found["serial"], found["ray"]
    overhead = (ray.between - serial.between) / 60 + ray.processor / serial.processor - 1
    print(f"overhead of a run of a minute: {overhead:.1%}; once: {ray.start - serial.start:.1f} s")
    assert overhead < 0.05
