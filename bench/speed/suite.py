"""Suites: start, resumption, leaderboards and the decoding of datasets."""

import functools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from bench import datasets, launch
from bench.host import machine
from bench.pipeline.plan import PlannedRun
from bench.speed.race import Case, Effort, Rates, Row, race, seconds_of
from results import leaderboard, store
from results.record import Record

THOUSAND = """
suite: thousand
datasets: [digits]
seeds: 0-99
encoders: [{encoders}]
protocols: [{{name: knn, k: 1}}]
wandb: {{mode: off}}
"""


def cases(at: Rates, effort: Effort) -> list[Case]:
    cases: list[Case] = [
        ("start", functools.partial(_start_rows, effort)),
        ("resume and leaderboard", functools.partial(_resume_rows, at, effort)),
    ]
    return cases + [(name, functools.partial(_decode_rows, name)) for name in ("mnist", "cifar10")]


def _start_rows(effort: Effort) -> list[Row]:
    def start(*arguments: str) -> float:
        command = [sys.executable, *arguments]
        run = functools.partial(subprocess.run, command, check=True, capture_output=True)
        return seconds_of(run, torch.device("cpu"))

    ours, theirs = functools.partial(start, "-m", "bench", "--help"), functools.partial(start, "-c", "import torch")
    seconds = race({"ours": ours, "theirs": theirs}, effort)
    alternative = "python -c 'import torch'"
    return [Row("suite", "frostbench --help", seconds["ours"], None, alternative, seconds["theirs"])]


def _resume_rows(at: Rates, effort: Effort) -> list[Row]:
    """A thousand finished runs, published as a suite publishes them, without a training."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "thousand.yaml"
        encoders = ", ".join(f"{{name: bigan, label: bigan{i}, latent: {i}}}" for i in range(1, 11))
        file.write_text(THOUSAND.format(encoders=encoders))
        suite = launch.read(str(file), [], "", 0, [])
        settings = launch.settings(
            output=Path(place), threads=at.threads, device="cpu", data_root=None, offline=True, plugins=[]
        )
        planned, _ = launch.plan(suite, settings)
        provenance = machine.provenance(torch.device("cpu"), at.threads, "float32")

        def publish(run: PlannedRun, protocol: str) -> None:
            record = Record(
                suite=run.spec.suite, key=run.key, dataset="digits", split="test", limit=None,
                fingerprint=run.fingerprint, train_images=1, test_images=1, encoder=run.spec.encoder.name,
                label=run.spec.encoder.label, params=run.spec.encoder.params, encoder_version=1, is_control=False,
                seed=run.spec.seed, status="done", tap=run.missing[0][0], dimensions=1, protocol="knn",
                protocol_label=protocol, protocol_params=run.spec.protocols[0].params, protocol_version=1,
                metrics={"top1": run.spec.seed / 100}, seconds={"fit": 1.0}, provenance=provenance,
            )  # fmt: skip
            for tap, wanted in run.missing:
                name = wanted.file_name if protocol == wanted.label else protocol
                store.publish_record(run.directory.record(tap, name), record.model_copy(update={"tap": tap}))

        for run in planned:
            publish(run, "knn")
        again: list[launch.Launched] = []
        started = time.perf_counter()
        again.append(launch.launch(suite, settings))
        resumed = time.perf_counter() - started
        if again[0].made:
            raise RuntimeError(f"{again[0].made} of 1,000 finished runs were made again")
        rows = [Row("suite", f"resume of {len(planned):,} finished runs", resumed)]
        taps = len(planned[0].missing)
        for more in range(1, max(1, effort.records // (taps * len(planned)))):
            for run in planned:
                publish(run, f"knn{more}")
        directory = settings.output / suite.suite
        seconds = seconds_of(
            lambda: leaderboard.leaderboard(store.read_store(directory).records).render("table"), at.device
        )
        count = len(store.read_store(directory).records)
        return [*rows, Row("suite", f"leaderboard from {count:,} records", seconds)]


def _decode_rows(name: str) -> list[Row]:
    """A dataset decoded and checked for the first time, and found decoded the second time."""
    with tempfile.TemporaryDirectory() as place:
        load = functools.partial(datasets.load, name, cache=Path(place), offline=True)
        cpu = torch.device("cpu")
        try:
            first, second = seconds_of(load, cpu), seconds_of(load, cpu)
        except datasets.DataMissing:
            return []
        found = load()
        count = len(found.train) + len(found.test)
        del found
    return [Row("suite", f"{name} decoded and checked", first, count, remark=f"{second:.2f} s from the cache")]
