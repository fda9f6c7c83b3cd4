"""Runs as Ray tasks: whatever dies, the records are those of the serial run; nothing listens beyond this machine."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest

from bench.host.machine import MachineError
from bench.launch import ray_cluster
from results import files, store

PLUGIN = """
import os, time, typing as t
from pathlib import Path
import torch
from torch import nn
from encoders.base import Encoder, frozen

HERE = Path(__file__).parent

class Project(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.linear = nn.Linear(shape[0] * shape[1] * shape[2], 16)

    def forward(self, images):
        return {"flat": self.linear(images.flatten(1) / 255)}

class Gated(Encoder):
    '''Says who fits it, and waits until it may go on.'''
    source: t.ClassVar[str] = "a test"

    @property
    def taps(self):
        return ("flat",)

    def build(self, shape):
        return Project(shape)

    def fit(self, data, run):
        with (HERE / "fits").open("a") as file:
            file.write(f"{os.getpid()} {run.seed} {torch.get_num_threads()}\\n")
        while not (HERE / "go").exists():
            time.sleep(0.05)
        with run.seeded("init"):
            return frozen(self.build(data.shape))
"""
SUITE = """
suite: small
datasets: [{name: digits, limit: 60}]
seeds: 0-4
encoders: [gated]
protocols: [{name: knn, k: 1}]
wandb: {mode: off}
"""
TRAINED = """
suite: trained
datasets: [{name: digits, limit: 500}]
seeds: [0]
encoders: [{name: denoising_autoencoder, hidden: 64, epochs: 1500}]
protocols: [{name: knn, k: 1}]
wandb: {mode: off}
"""


class Suite:
    """A suite's files in a directory, and frostbench started there."""

    def __init__(self, where: Path) -> None:
        self.where, self.started = where, list[subprocess.Popen[str]]()
        (where / "mine.py").write_text(PLUGIN)
        (where / "small.yaml").write_text(SUITE)
        (where / "trained.yaml").write_text(TRAINED)

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bench", "run", *words, "--threads", "1"]
        process = subprocess.Popen(command, cwd=self.where, stderr=subprocess.PIPE, text=True)
        self.started.append(process)
        return process

    def end(self, process: subprocess.Popen[str], status: int = 0) -> str:
        said = process.communicate(timeout=150)[1]
        assert process.returncode == status, said
        return said

    def fits(self, wanted: int) -> list[tuple[int, int]]:
        """(process, seed) of each fit that was begun, once there are so many."""
        file = self.where / "fits"
        until(lambda: file.exists() and len(file.read_text().splitlines()) >= wanted)
        lines = [line.split() for line in file.read_text().splitlines()]
        assert {threads for *_, threads in lines} == {"1"}
        return [(int(process), int(seed)) for process, seed, _ in lines]


@pytest.fixture
def suite(tmp_path: Path) -> t.Iterator[Suite]:
    suite = Suite(tmp_path)
    yield suite
    for process in suite.started:
        process.kill()
        process.wait()


def until(done: t.Callable[[], object], seconds: float = 100.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def told(directory: Path) -> dict[str, bytes]:
    """All records and run.jsons below a directory as bytes, but for the times."""
    found = {}
    for path in [*directory.rglob("scores/*/*.json"), *directory.rglob("run.json")]:
        value = json.loads(path.read_bytes())
        del value["seconds"], value["provenance"]["started"]
        value.pop("sha256", None)
        found[str(path.relative_to(directory))] = files.canonical(value)
    return found


def listeners(processes: t.Container[int]) -> set[str]:
    """The addresses, in the kernel's hexadecimal, where these processes listen."""
    sockets = {}
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A":
                sockets[f"socket:[{inode}]"] = local.partition(":")[0]
    found = set()
    for directory in Path("/proc").glob("[0-9]*"):
        if int(directory.name) in processes:
            for file in (directory / "fd").iterdir():
                with contextlib.suppress(OSError):
                    found |= {sockets[name] for name in [str(file.readlink())] if name in sockets}
    return found


def family(process: int) -> set[int]:
    """A process and all that it started, and what these did."""
    known = {process}
    parents = {}
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(directory.name)] = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
    while more := {child for child, parent in parents.items() if parent in known} - known:
        known |= more
    return known


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_whatever_dies_the_records_are_those_of_the_serial_run(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three nodes of one core: a worker is killed, a node goes, the driver is killed and started again."""
    for name, value in (ray_cluster.PRUDENT | ray_cluster.LOCAL | {"RAY_AUTH_TOKEN": "0" * 64}).items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        lost = [nodes.add_node(num_cpus=1), nodes.add_node(num_cpus=1)][1]
        words = ("small.yaml", "--plugin", "mine.py", "--executor", "ray", "--address", nodes.address)
        driver = suite.start(*words)
        suite.fits(3)
        driver.kill()
        driver.communicate()

        driver = suite.start(*words)
        (victim, seed), *_ = suite.fits(6)[3:]
        os.kill(victim, signal.SIGKILL)
        suite.fits(7)
        nodes.remove_node(lost, allow_graceful=False)
        (suite.where / "go").touch()
        suite.end(driver)
    finally:
        nodes.shutdown()
    assert seed in [one for _, one in suite.fits(8)[6:]]
    suite.end(suite.start("small.yaml", "--plugin", "mine.py", "--output", "serial"))
    assert len(told(suite.where / "runs")) == 10
    assert told(suite.where / "runs") == told(suite.where / "serial")
    assert store.read_store(suite.where / "runs").damaged == []
    assert not list((suite.where / "runs").rglob(".frostbench*"))


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_on_one_machine_it_listens_on_loopback_and_stops_with_its_state_kept(suite: Suite) -> None:
    words = ("trained.yaml", "--executor", "ray", "--checkpoint-every", "3")
    driver = suite.start(*words)
    until(lambda: list(suite.where.glob("runs/trained/*/*/*/checkpoint/step*")))
    addresses = listeners(family(driver.pid))
    assert addresses and addresses <= LOOPBACK
    driver.terminate()
    said = suite.end(driver, 130)
    assert f"To resume: frostbench run {' '.join(words)}" in said
    kept = list(suite.where.glob("runs/trained/*/*/*/checkpoint/step*"))
    assert len(kept) == 2 and not told(suite.where / "runs")  # the second when it was stopped, which was soon
    suite.end(suite.start(*words))
    suite.end(suite.start("trained.yaml", "--output", "serial"))
    assert told(suite.where / "runs") == told(suite.where / "serial")


def test_a_node_without_the_output_or_with_other_code_is_refused(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("x = 1")
    ours = ray_cluster.code_sha256([plugin])
    with files.token(tmp_path) as token:
        assert ray_cluster._refusal(ours, token, [plugin]) == ""
        plugin.write_text("x = 2")
        assert "has different code" in ray_cluster._refusal(ours, token, [plugin])
        plugin.unlink()
        assert "has different code" in ray_cluster._refusal(ours, token, [plugin])
    assert "does not see" in ray_cluster._refusal(ours, token, [])
    assert not list(tmp_path.iterdir())


def node(cpus: float, gpus: float = 0, alive: bool = True) -> dict[str, t.Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus} | ({"GPU": gpus} if gpus else {})}


def test_what_no_node_has_is_an_error_and_not_a_wait() -> None:
    ray_cluster._check_room([node(2), node(4, 1)], cores=4, gpus=1)
    for nodes in ([node(8), node(2, 1)], [node(8, 1, alive=False)], []):
        with pytest.raises(MachineError, match=r"4 CPUs \(--threads\) and 1 GPUs"):
            ray_cluster._check_room(nodes, cores=4, gpus=1)


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MachineError, match=r"pip install -e '.\[ray\]'"), ray_cluster._connected("", 1):
        pass
