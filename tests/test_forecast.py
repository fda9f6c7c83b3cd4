"""What a suite will cost: arithmetic by hand, and a small suite held to its forecast."""

import time
import typing as t
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import launch
from bench.launch import forecast
from bench.launch.forecast import Cost, Forecast
from bench.pipeline.plan import Settings
from encoders.base import ImageSet, Progress, Training
from encoders.bigan import BiGAN
from protocols.base import Corrupted
from protocols.robustness import Robustness

SUITE = """
suite: small
datasets: [{name: digits, limit: 900}]
seeds: [0, 1]
encoders:
  - pixels
  - {name: pca, components: 5}
  - {name: bigan, hidden: 64, latent: 8, epochs: 15}
protocols: [{name: knn, k: 1}, {name: linear, strengths: [0.1]}]
controls: none
wandb: {mode: off}
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., tuple[dict[str, Cost], list[str]]]:
    """The cost of each run of the suite by title, and what was said."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(SUITE)

    def plan(**how: t.Any) -> tuple[dict[str, Cost], list[str]]:
        said: list[str] = []
        suite = launch.read("small.yaml", [], "", 0, [])
        return {one.title: cost for one, cost in launch.costs(suite, settings(), said.append, **how)}, said

    return plan


def settings() -> Settings:
    return launch.settings(output=Path("runs"), threads=1, device="cpu", data_root=None, offline=True, plugins=[])


def make(seeds: str) -> None:
    launch.launch(launch.read("small.yaml", [], seeds, 0, []), settings())


def test_costs_add_up_as_runs_follow_each_other() -> None:
    assert forecast.of_suite([Cost(1.0, 5, 10, 7), Cost(2.0, 4, 20, 9)], 1) == Cost(3.0, 5, 30, 9)


def test_of_runs_beside_each_other_the_last_to_end_counts() -> None:
    """3 s beside 1 s and 1 s, then 4 s from second 2 on; the two largest are in memory at once at the worst."""
    runs = [Cost(3.0, 5, 1, 1), Cost(1.0, 6, 1, 2), Cost(1.0, 2, 1, 3), Cost(4.0, 3, 1, 4)]
    assert forecast.of_suite(runs, 2) == Cost(6.0, 11, 4, 7)


def test_what_grows_with_the_images_is_extrapolated() -> None:
    assert forecast._whole(lambda count: 3.0 + count / 1000, 60_000) == (pytest.approx(63), 0.0)
    assert forecast._whole(lambda count: 3.0 + (count / 1000) ** 2, 60_000, pairs=True) == (pytest.approx(3603), 0.0)
    assert forecast._whole(float, 1700) == (1700, 0.0)  # as large as it is: measured
    assert forecast._whole(lambda count: 2.0 - count / 10_000, 60_000) == (pytest.approx(1.6), 0.0)  # noise: no growth


def test_what_the_first_call_takes_longer_is_told_apart() -> None:
    times = iter([0.75, 0.25, 1.0])
    assert forecast._whole(lambda _: next(times), 7000) == (pytest.approx(1.75), 0.5)


def test_a_trial_sees_how_fast_a_training_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.2 s to start, then 1 % of the training every 0.1 s: 10.2 s in all."""
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    trial = forecast._Trial(2.0)
    for step in range(1, 31):
        now = 0.2 + step / 10
        trial.report(Progress(0, 1, step / 100, 1.0, {}, 1.0))
        if trial.stopping:
            break
    trial.end()
    assert step == 18
    assert trial.whole == pytest.approx(10.2)


def test_a_trial_ends_soon_and_leaves_no_trace() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2000, 1, 8, 8), dtype=np.uint8)
    trial = forecast._Trial(0.2)
    with pytest.raises(KeyboardInterrupt):
        BiGAN(hidden=32).fit(ImageSet(images, None, ("a", "b"), "x"), Training(0, report=trial.report, keeper=trial))
    assert trial.is_training
    assert trial.seen[-1][1] < 1


def test_views_and_alarms_are_counted_for_taps_that_have_none(
    monkeypatch: pytest.MonkeyPatch, told: t.Callable[[], tuple[dict[str, Cost], list[str]]]
) -> None:
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)

    def pass_by(seconds: float) -> t.Callable[..., None]:
        def call(*_: object) -> None:
            nonlocal now
            now += seconds

        return call

    monkeypatch.setattr(forecast.snapshots, "keep", pass_by(3.0))
    monkeypatch.setattr(forecast, "diagnose", pass_by(0.5))
    for what in ("_fit", "_extract", "_score"):
        monkeypatch.setattr(forecast.Forecast, what, lambda *_: 0.0)
    costs, _ = told()
    assert costs["pixels, digits (limit 900), seed 0"].seconds == 3.5
    assert costs["bigan, digits (limit 900), seed 1"].seconds == 7.0  # two taps


def test_a_suite_holds_to_its_forecast(
    told: t.Callable[[], tuple[dict[str, Cost], list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.perf_counter", time.process_time)  # whatever else the machine does
    monkeypatch.setattr(forecast, "TRIAL_SECONDS", 0.5)
    before, said = told()
    assert not Path("runs").exists()
    assert [line for line in said if line.startswith("measuring")] == [
        *("measuring pixels on digits (limit 900)", "measuring knn on 64 features", "measuring linear on 64 features"),
        *("measuring pca on digits (limit 900)", "measuring knn on 5 features", "measuring linear on 5 features"),
        *("measuring bigan on digits (limit 900)", "measuring knn on 8 features", "measuring linear on 8 features"),
    ]
    make("0")
    after, said = told()
    assert said == []  # seed 1 is believed to take what seed 0 took
    assert {cost for title, cost in after.items() if title.endswith("seed 0")} == {Cost(0.0, 0, 0, 0)}
    first, then = before["bigan, digits (limit 900), seed 1"], after["bigan, digits (limit 900), seed 1"]
    assert 1 / 10 < first.seconds / then.seconds < 10  # of a second: the slow test is strict
    on_disk = sum(path.stat().st_size for path in Path("runs/small/bigan").rglob("*") if path.is_file())
    assert 1 / 1.5 < first.disk / on_disk < 1.5
    make("1")
    assert set(told()[0].values()) == {Cost(0.0, 0, 0, 0)}


def test_corrupted_images_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: t.Callable[[], tuple[dict[str, Cost], list[str]]]
) -> None:
    """Of 359 test images: 10 ms to damage one, 1 ms for its features, 0.1 ms for its class, all 25 times; a fit of 3 s.

    So long takes the fit whatever the number of images.
    """
    suite = "suite: small\ndatasets: [digits]\nseeds: [0]\nencoders: [pixels]\nprotocols: [robustness]\n"
    (tmp_path / "small.yaml").write_text(suite)
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)

    def corrupt(images: torch.Tensor, _kind: str, _severity: int, _seed: int = 0, **_: object) -> torch.Tensor:
        nonlocal now
        now += len(images) * 10e-3
        return images

    def judge(_self: object, _train: object, _test: object, corrupted: t.Iterable[Corrupted], *, seed: int) -> None:
        nonlocal now
        now += 3.0 + seed
        for _, _, rows in corrupted:
            now += len(rows) * 1e-4

    def extract(_self: Forecast, name: tuple[str, ...], *_: object) -> float:
        _self.extracted[name] = 1797e-3
        return 0.0

    monkeypatch.setattr(forecast.corruptions, "corrupt", corrupt)
    monkeypatch.setattr(Robustness, "judge", judge)
    monkeypatch.setattr(Forecast, "_extract", extract)
    for what in ("_fit", "_look"):
        monkeypatch.setattr(Forecast, what, lambda *_: 0.0)
    costs, said = told()
    assert said == ["measuring robustness on 64 features"]
    [cost] = costs.values()
    assert cost.seconds == pytest.approx(3 + 25 * 359 * 11.1e-3)


@pytest.mark.parametrize(("own_process", "starts"), [(False, 1), (True, 7)])
def test_the_command_and_its_workers_start(
    monkeypatch: pytest.MonkeyPatch,
    told: t.Callable[..., tuple[dict[str, Cost], list[str]]],
    own_process: bool,
    starts: int,
) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: 0.0)
    for what in ("_fit", "_extract", "_score", "_look"):
        monkeypatch.setattr(Forecast, what, lambda *_: 0.0)
    assert sum(cost.seconds for cost in told(start=2.5, own_process=own_process)[0].values()) == starts * 2.5


def test_what_judges_samples_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: t.Callable[[], tuple[dict[str, Cost], list[str]]]
) -> None:
    """60,000 images at 0.2 ms for the classifier, a third of that for those it looks at; 10 us a distance."""
    judge = "protocols: [{name: generative, samples: 1000, validation: 100}, {name: two_sample, samples: 600}]"
    encoder = "encoders: [{name: vae, hidden: 16, epochs: 1}]"
    datasets = SUITE.partition("seeds")[0]
    (tmp_path / "small.yaml").write_text(
        f"{datasets}seeds: [0]\n{encoder}\n{judge}\ncontrols: none\nwandb: {{mode: off}}\n"
    )
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)

    def train(_rows: object, _shape: object, images: int) -> None:
        nonlocal now
        now += images * 2e-4

    def compare(images: t.Sized, samples: t.Sized, _sigmas: object) -> None:
        nonlocal now
        now += len(images) * len(samples) * 1e-5

    monkeypatch.setattr(forecast.generative, "train_classifier", train)
    monkeypatch.setattr(forecast.generative, "log_densities", compare)
    monkeypatch.setattr(forecast.Forecast, "_fit", lambda *_: 0.0)
    monkeypatch.setattr(forecast.Forecast, "_look", lambda *_: 0.0)
    costs, said = told()
    assert said == ["measuring the classifier of samples on digits"]
    [cost] = costs.values()
    test = 359  # as many images, of 1,797
    of_quality = (60_000 + (1000 + test) / 3) * 2e-4 + (100 + test) * 1000 * 1e-5
    assert cost.seconds == pytest.approx(of_quality + (60_000 + 600 / 3) * 2e-4)  # 300 are held out, of either kind


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_quickstart_suite_takes_what_was_foretold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that does nothing else."""
    monkeypatch.chdir(tmp_path)
    suite = launch.read("quickstart", ["wandb.mode=off"], "", 0, [])
    here = launch.settings(output=Path("runs"), threads=0, device="cpu", data_root=None, offline=True, plugins=[])
    foretold = sum(cost.seconds for _, cost in launch.costs(suite, here, print))
    seconds = launch.launch(suite, here).seconds
    assert 1 / 1.5 < foretold / seconds < 1.5
