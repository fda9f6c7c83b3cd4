"""Snapshots of trainings: the same bits as a training that ended there, scored beside the tables, never in them."""

import shutil
import typing as t
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import launch
from bench.errors import ConfigError
from bench.pipeline import epochs, fit
from bench.pipeline.plan import Settings
from bench.suites.reading import read_suite
from encoders.base import Encoder, ImageSet, Training
from encoders.check import Stopper
from encoders.moco import MoCo
from encoders.wgan import WGAN
from results import curves, leaderboard, store
from results.layout import RunDirectory, runs_below
from results.report import page
from results.wandb_mirror import WandbTarget, wandb_runs

SUITE = """
suite: small
datasets: [digits]
seeds: [0]
encoders: [{name: gan, generator_hidden: 8, discriminator_hidden: 8, epochs: 3EXTRA}]
protocols: [{name: knn, k: 1}]
controls: none
wandb: {mode: "off"}
"""


def run(output: Path, extra: str = ", snapshots: [3, 1]", more: str = "") -> RunDirectory:
    """The training's directory."""
    suite = read_suite(SUITE.replace("EXTRA", extra) + more)
    launched = launch.launch(suite, Settings(output=output, device="cpu", threads=1))
    assert not launched.failed and not launched.problems
    (directory,) = runs_below(output)
    return directory


def weights(directory: RunDirectory) -> str:
    return str(store.read_run(directory.run_json)["weights_sha256"])


def snapshots(directory: RunDirectory) -> dict[int, RunDirectory]:
    found = runs_below(directory.snapshots) if directory.snapshots.is_dir() else ()
    return {int(one.path.parents[1].name.removeprefix("epoch")): one for one in found}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return run(tmp_path_factory.mktemp("made"))


def test_snapshots_move_no_bit_of_the_training_and_are_not_in_its_key(made: RunDirectory, tmp_path: Path) -> None:
    alone = run(tmp_path, "")
    assert alone.path.name == made.path.name  # seed and key
    assert weights(alone) == weights(made)
    assert not alone.snapshots.exists()


def test_a_snapshot_is_the_training_ended_there(made: RunDirectory, tmp_path: Path) -> None:
    found = snapshots(made)
    assert sorted(found) == [1, 3]
    assert weights(found[3]) == weights(made) != weights(found[1])
    assert [len(store.read_history(found[epoch])) for epoch in (1, 3)] == [1, 3]
    assert not any(one.checkpoint.exists() for one in found.values())
    output = tmp_path / "later"
    shutil.copytree(made.path.parents[3], output)
    (later,) = runs_below(output)
    shutil.rmtree(later.snapshots)  # with the states that the training left in passing
    run(output)
    assert {epoch: weights(one) for epoch, one in snapshots(later).items()} == {
        epoch: weights(one) for epoch, one in found.items()
    }


@pytest.mark.parametrize(
    "recipe",
    [
        WGAN(body="mlp", hidden=8, epochs=3, batch_size=40, critic_steps=3, critic_steps_at_first=3),
        MoCo(body="small", projector=8, outputs=4, queue=50, epochs=3, batch_size=50),
    ],
    ids=lambda recipe: type(recipe).__name__,
)
def test_a_state_kept_in_passing_goes_on_to_the_training_ended_there(recipe: Encoder) -> None:
    """Also where a step reaches into the next epoch: each of WGAN's has three batches, and an epoch two."""
    images = np.random.default_rng(0).integers(0, 256, (100, 1, 8, 8), np.uint8)
    data = ImageSet(images, None, ("0",), "noise")
    passing = Stopper(after=-1)
    whole = recipe.fit(data, Training(0, kept_after={1: passing})).state_dict()
    assert passing.content
    ended = [recipe.fit(data, Training(0, ends_after=1, keeper=one)).state_dict() for one in (None, passing)]
    plain = recipe.fit(data, Training(0)).state_dict()
    assert all(torch.equal(whole[name], plain[name]) for name in whole)
    assert all(torch.equal(ended[0][name], ended[1][name]) for name in whole)
    assert not all(torch.equal(ended[0][name], whole[name]) for name in whole)


def test_nothing_is_left_to_do_afterwards(made: RunDirectory) -> None:
    suite = read_suite(SUITE.replace("EXTRA", ", snapshots: [1, 3]"))
    planned, _ = launch.plan(suite, Settings(output=made.path.parents[3], device="cpu", threads=1))
    assert [one.spec.snapshot and one.spec.snapshot.epoch for one in planned] == [None, 1, 3]
    assert not any(one.missing for one in planned)
    assert {epochs.of_training(one).path for one in planned[1:]} == {made.path}


def test_a_training_that_was_stopped_leaves_the_same_snapshots(made: RunDirectory, tmp_path: Path) -> None:
    """After the epoch of a snapshot, whose state is then kept."""
    output = tmp_path / "stopped"
    suite = read_suite(SUITE.replace("EXTRA", ", snapshots: [1, 3]"))
    settings = Settings(output=output, device="cpu", threads=1)
    original = fit.Checkpoints.keep
    kept = []

    def keep(self: t.Any, step: int, content: bytes) -> None:
        original(self, step, content)
        kept.append(step)
        if len(kept) == 20:  # in the second epoch
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit.Checkpoints, "keep", keep)
        patch.setattr(fit.Checkpoints, "due", lambda _: True)
        with pytest.raises(KeyboardInterrupt):
            launch.launch(suite, settings)
    assert len(kept) == len(set(kept)) + 1  # the step after the first epoch, in passing
    stopped = run(output)
    assert {epoch: weights(one) for epoch, one in snapshots(stopped).items()} == {
        epoch: weights(one) for epoch, one in snapshots(made).items()
    }


def test_snapshots_are_judged_on_a_validation_set_unless_the_suite_says_test(
    made: RunDirectory, tmp_path: Path
) -> None:
    records = curves.snapshots(made)
    assert {(one.split, one.train_images, one.test_images) for one in records} == {("validation", 1198, 240)}
    assert [one.epoch for one in records] == [1, 1, 3, 3]
    tested = curves.snapshots(run(tmp_path, more="snapshot_split: test\n"))
    assert {(one.split, one.train_images, one.test_images) for one in tested} == {("test", 1438, 359)}
    of_training = {one.tap: one.metrics for one in store.read_store(made.path).records}
    assert {one.tap: one.metrics for one in tested if one.epoch == 3} == of_training


def test_no_table_shows_snapshots_but_the_report_and_wandb_do(made: RunDirectory) -> None:
    suite = made.path.parents[2]
    records = store.read_store(suite).records
    assert {(one.epoch, one.split) for one in records} == {(None, "test")}
    assert len(leaderboard.of(store.read_store(suite)).rows) == len(records)
    assert "epochs of training, snapshots on digits (validation)" in page(suite)
    (sent,) = [one for one in wandb_runs(suite, WandbTarget("offline")) if one.job_type == "run"]
    assert [row["epoch"] for row in sent.history] == [1, 2, 3, 1, 1, 3, 3]
    assert any(name.startswith("digits (validation)/") for name in sent.history[-1])


def test_a_curve_is_the_mean_over_seeds(made: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    first = curves.snapshots(made)[0]
    seeds = iter([[first.model_copy(update={"metrics": {"top1": top1}})] for top1 in (0.25, 0.5)])
    monkeypatch.setattr(curves, "snapshots", lambda _: next(seeds))
    found = curves.over_epochs([("gan", made), ("gan", made)])
    assert found == {("knn@1", "digits (validation)"): {f"gan · {first.tap}": {1.0: 0.375}}}


@pytest.mark.parametrize(
    ("extra", "more", "message"),
    [
        (", snapshots: [4]", "", "wanted an epoch of the training, which has 3; got 4"),
        (", snapshots: [0]", "", "wanted a number > 0, got 0"),
        (", snapshots: 1", "", "wanted a list, got 1"),
        ("}, {name: pca, snapshots: [1]", "", "pca is not trained in epochs, so it has no snapshots"),
        ("}, {name: supervised_aae, snapshots: [1]", "", "supervised_aae learns from labels of the images that its"),
        ("", "snapshot_split: train\n", "wanted 'test' or 'validation', got 'train'"),
    ],
)
def test_snapshots_that_cannot_be_are_refused(extra: str, more: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_suite(SUITE.replace("EXTRA", extra) + more)
    assert message in str(refused.value)


def test_labels_are_no_matter_where_others_are_judged() -> None:
    extra = "}, {name: supervised_aae, snapshots: [1]"
    assert read_suite(SUITE.replace("EXTRA", extra) + "snapshot_split: test\n")
    assert read_suite(SUITE.replace("EXTRA", extra).replace("[digits]", "[{name: digits, split: validation}]"))
