"""A suite whose ranks torchrun has started: the numbers of `--ranks`, and nobody left waiting."""

import json
import socket
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest

from bench import launch
from bench.host.machine import MachineError
from results import store

SUITE = """
suite: small
datasets: [{name: digits, limit: 60}]
seeds: [0]
encoders:
  - {name: vae, hidden: 16, epochs: 1, batch_size: 20}
  - {name: vae, label: odd, hidden: 16, epochs: 1, batch_size: 15}
  - {name: vae, label: wide, hidden: 32, epochs: 1, batch_size: 20}
protocols: [{name: knn, k: 1}]
controls: none
wandb: {mode: off}
"""


def torchrun(where: Path, *words: str) -> "subprocess.Popen[str]":
    (where / "small.yaml").write_text(SUITE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    command += ["--master-port", str(port), "-m", "bench", "run", "small.yaml", "--threads", "1", *words]
    return subprocess.Popen(command, cwd=where, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def weights(directory: Path) -> dict[str, str]:
    return {
        run.parent.parent.parent.name: json.loads(run.read_bytes())["weights_sha256"]
        for run in directory.rglob("run.json")
    }


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_torchrun_makes_the_runs_of_ranks(tmp_path: Path) -> None:
    """One of the three cannot be shared out: it fails, and the one behind it is made all the same."""
    process = torchrun(tmp_path)
    said = process.communicate(timeout=200)[1]
    assert process.returncode == 1
    assert "1 failed" in said
    failed = [record for record in store.read_store(tmp_path / "runs").records if record.status == "failed"]
    assert [record.label for record in failed] == ["odd"]
    assert "2 ranks cannot divide batches of 15" in str(failed[0].error)
    command = [
        sys.executable,
        "-m",
        "bench",
        "run",
        "small.yaml",
        "--threads",
        "1",
        "--ranks",
        "2",
        "--output",
        "ranks",
    ]
    subprocess.run(command, check=False, cwd=tmp_path, capture_output=True)
    found = weights(tmp_path / "runs")
    assert found.keys() == {"vae", "wide"}
    assert found == weights(tmp_path / "ranks")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_signal_keeps_the_state_of_all_ranks(tmp_path: Path) -> None:
    process = torchrun(tmp_path, "--set", "vae.epochs=100000", "--checkpoint-every", "0.1")
    deadline = time.monotonic() + 100
    while not list(tmp_path.glob("runs/small/vae/*/*/checkpoint/step*")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.terminate()
    said = process.communicate(timeout=100)[1]
    assert "stopping after this step" in said
    assert len(list(tmp_path.rglob("checkpoint/step*"))) == 1


def test_torchrun_counts_its_ranks_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": 0, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    options: dict[str, t.Any] = {
        "output": Path("runs"),
        "threads": 1,
        "device": "cpu",
        "data_root": None,
        "offline": True,
        "plugins": [],
    }
    assert launch.settings(**options).ranks == 4
    assert launch.settings(**options, ranks=4).ranks == 4
    wrongs: list[dict[str, t.Any]] = [{"ranks": 2}, {"jobs": 2}]
    for wrong in wrongs:
        with pytest.raises(MachineError, match="torchrun started 4 ranks"):
            launch.settings(**options, **wrong)
