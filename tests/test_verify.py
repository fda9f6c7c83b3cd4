"""`frostbench verify` names every file that was tampered with."""

import json
import os
import re
import shutil
import typing as t
import zipfile
from pathlib import Path

import numpy as np
import pytest

from results import predictions, store

SUITE = """
suite: small
datasets: [{name: digits, limit: 100}]
seeds: 0-1
encoders:
  - pixels
  - {name: bigan, hidden: 8, latent: 2, epochs: 1}
protocols: [{name: knn, k: 1}, generative]
controls: none
wandb: {mode: off}
"""
Frostbench = t.Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, frostbench_in: t.Callable[..., None]) -> Path:
    """The output of a suite, made once."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "small.yaml").write_text(SUITE)
    frostbench_in(folder, "run", "small.yaml", "--threads", "1")
    return folder / "runs"


@pytest.fixture
def runs(whole: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return Path(shutil.copytree(whole, tmp_path / "runs"))


def one(runs: Path, pattern: str) -> Path:
    return sorted(runs.glob(f"small/{pattern}"))[0]


def resealed(path: Path, **changed: t.Any) -> None:
    """A record changed by somebody who knows how its hash is made."""
    value = json.loads(path.read_text()) | changed
    del value["sha256"]
    path.write_text(json.dumps(value | {"sha256": store._digest(path, value)}))


RECORD = "bigan/*/seed0-*/scores/code/knn@*.json"
PREDICTIONS = "bigan/*/seed0-*/predictions/code/knn@*.npz"
TAMPERINGS: dict[str, tuple[t.Callable[[Path], object], str, str]] = {}  # what is done, to which file, what is said


def tampering(pattern: str, words: str) -> t.Callable[[t.Callable[[Path], object]], t.Callable[[Path], object]]:
    def add(tamper: t.Callable[[Path], object]) -> t.Callable[[Path], object]:
        TAMPERINGS[tamper.__name__] = tamper, pattern, words
        return tamper

    return add


@tampering("bigan/*/seed0-*/encoder.safetensors", "changed since it was written: run.json has another sha256")
def weights_of_another_mood(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


TAMPERINGS["generator"] = (
    weights_of_another_mood,
    "bigan/*/seed0-*/generator.safetensors",
    "run.json has another sha256",
)


def rewrite(path: Path, **changed: t.Any) -> None:
    with np.load(path) as arrays:
        np.savez_compressed(path.with_suffix(""), **{**arrays, **changed})


@tampering(PREDICTIONS, "its record has another sha256")
def predictions_swapped_at_the_same_accuracy(path: Path) -> None:
    with np.load(path) as arrays:
        predicted, label = arrays["predicted"], arrays["label"]
    (row, *_) = np.flatnonzero(predicted != label)
    predicted[row] = next(one for one in range(10) if one not in (predicted[row], label[row]))
    rewrite(path, predicted=predicted)


@tampering(PREDICTIONS, "is gone")
def no_predictions(path: Path) -> None:
    path.unlink()


@tampering(PREDICTIONS, "cannot be read")
def predictions_that_are_no_archive(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


@tampering(PREDICTIONS, "cannot be read: TokenError")
def predictions_whose_header_is_damaged(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(b"}", b" ", 1))  # a header that does not end


@tampering(PREDICTIONS, "cannot be read")
def predictions_that_are_pickled(path: Path) -> None:
    rewrite(path, predicted=np.array([{}] * 100))


@tampering(PREDICTIONS, "wanted two rows of classes")
def predictions_that_are_no_classes(path: Path) -> None:
    rewrite(path, predicted=np.zeros(100))


@tampering(RECORD, "changed since it was written: its sha256 does not fit")
def a_better_number(path: Path) -> None:
    path.write_text(path.read_text().replace('"top1": 0.', '"top1": 0.9'))


@tampering(RECORD, "has top1 0.990000; its predictions give 0.")
def a_better_number_sealed_again(path: Path) -> None:
    resealed(path, metrics={"top1": 0.99})


@tampering(RECORD, "does not match its encoder, data, seed and precision")
def other_parameters(path: Path) -> None:
    resealed(path, params=json.loads(path.read_text())["params"] | {"epochs": 400})


@tampering(RECORD, "belongs at code/knn@1-")
def another_protocol(path: Path) -> None:
    resealed(path, protocol_params=json.loads(path.read_text())["protocol_params"] | {"k": 2})


@tampering(RECORD, "belongs to the run seed7-")
def another_seed(path: Path) -> None:
    resealed(path, seed=7)


@tampering(RECORD, "schema version 2; this frostbench reads version 1")
def another_version(path: Path) -> None:
    resealed(path, schema_version=2)


@tampering(RECORD, "not JSON")
def half_a_record(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


@tampering(RECORD, "names the predictions '../../../etc/passwd', which are not its own")
def predictions_from_elsewhere(path: Path) -> None:
    resealed(path, predictions="../../../etc/passwd")


@tampering(RECORD, "its true classes differ")
def other_true_classes_all_sealed_again(path: Path) -> None:
    kept = path.parents[2] / json.loads(path.read_text())["predictions"]
    with np.load(kept) as arrays:
        predicted = arrays["predicted"].astype(np.int64)
    rewrite(kept, label=predicted)  # every answer is right
    digest = predictions.digest({"predicted": predicted, "label": predicted})
    resealed(path, metrics={"top1": 1.0}, predictions_sha256=digest)


@tampering("bigan/*/seed0-*/run.json", "seed is 5; its records have 0")
def a_run_of_another_seed(path: Path) -> None:
    resealed(path, seed=5)


@tampering("bigan/*/seed0-*/run.json", "changed since it was written: its sha256 does not fit")
def a_faster_training(path: Path) -> None:
    path.write_text(re.sub(r'"fit": [\d.e-]+', '"fit": 0.125', path.read_text()))


@tampering("bigan/*/seed0-*/encoder.json", "params differs from run.json")
def another_recipe(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"params": {}}))


@tampering("bigan/*/seed0-*/encoder.json", "does not describe an encoder")
def no_recipe(path: Path) -> None:
    path.write_text("[]")


@tampering("leaderboard.md", "differs from the table of the records")
def a_better_table(path: Path) -> None:
    path.write_text(path.read_text().replace("bigan", "big"))


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def sparse(path: Path) -> None:
    os.truncate(path, 2**33)


BESIDE = ("encoder.json", "history.csv", "pictures/samples.png", "views/code.npz", "views/neighbours-code.png")
for file in BESIDE:
    for tamper in (flipped, zeroed):
        TAMPERINGS[f"{file} {tamper.__name__}"] = tamper, f"bigan/*/seed0-*/{file}", "run.json has another sha256"
for file in (*BESIDE, "encoder.safetensors", "generator.safetensors", "predictions/code/knn@*.npz", "run.json"):
    TAMPERINGS[f"{file} piped"] = piped, f"bigan/*/seed0-*/{file}", "regular file"
TAMPERINGS["tables piped"] = piped, "leaderboard.md", "not a regular file"
TAMPERINGS["sparse weights"] = sparse, "bigan/*/seed0-*/encoder.safetensors", "damaged: it has 8,589,934,592 bytes"
TAMPERINGS["sparse history"] = sparse, "bigan/*/seed0-*/history.csv", "larger than"


@pytest.mark.parametrize("name", TAMPERINGS)
def test_what_was_tampered_with_is_named(runs: Path, frostbench: Frostbench, name: str) -> None:
    tamper, pattern, words = TAMPERINGS[name]
    path = one(runs, pattern)
    tamper(path)
    status, out, err = frostbench("verify", "runs")
    assert status == 3, err
    assert [line for line in out.splitlines() if str(path) in line and words in line], out


def test_what_was_not_touched_fits(runs: Path, frostbench: Frostbench) -> None:
    status, out, _ = frostbench("verify", "runs")
    assert status == 0, out
    first, *rest = out.splitlines()
    assert first == "no problems; checked: 6 numbers, 8 records, 4 runs, 6 weights, 26 files beside, 6 tables"
    assert rest == ["not checked: numbers of protocols that predict no class (14)"]


MANY = """
suite: small
datasets: [{name: digits, limit: 120}]
seeds: [0]
encoders: [pixels]
protocols:
  - {name: fewshot, labels: 2, draws: 3}
  - {name: cluster, restarts: 1}
  - {name: mlp, epochs: 1, learning_rates: [0.01], repeats: 3}
  - robustness
  - retrieval
wandb: {mode: off}
"""


@pytest.fixture
def many(tmp_path: Path, frostbench: Frostbench) -> Path:
    (tmp_path / "small.yaml").write_text(MANY)
    status, _, err = frostbench("run", "small.yaml", "--threads", "1")
    assert status == 0, err
    return tmp_path / "runs"


def test_every_metric_that_predictions_give_is_made_again(many: Path, frostbench: Frostbench) -> None:
    status, out, _ = frostbench("verify", "runs")
    assert status == 0, out
    # fewshot 1 and 2 more draws; cluster 3; mlp 1 and 2 more trainings; robustness 2 and 25 kinds of damage
    assert "no problems; checked: 36 numbers" in out
    unchecked = [line for line in out.splitlines() if line.startswith("not checked")]
    assert sorted(unchecked) == [
        f"not checked: {name}, which needs features, not predictions (1)"
        for name in ("ece", "log_loss", "map", "precision_at_10")
    ]
    lies = {"fewshot": {"mean_top1": 0.99}, "cluster": {"nmi": 0.99}, "robustness": {"corrupted_top1": 0.99}}
    for protocol, lie in lies.items():
        path = one(many, f"pixels/*/seed0-*/scores/pixels/{protocol}@*.json")
        resealed(path, metrics=json.loads(path.read_text())["metrics"] | lie)
    mlp = one(many, "pixels/*/seed0-*/scores/pixels/mlp@*.json")
    details = json.loads(mlp.read_text())["details"]
    details["repeats"][2]["top1"] = 0.999
    resealed(mlp, details=details)
    status, out, _ = frostbench("verify", "runs")
    assert status == 3
    for name in ("mean_top1 0.99", "nmi 0.99", "corrupted_top1 0.99", "repeat2 0.999"):
        assert f"has {name}" in out


def test_draws_that_were_changed_are_found_and_older_files_lack_them(many: Path, frostbench: Frostbench) -> None:
    path = one(many, "pixels/*/seed0-*/predictions/pixels/fewshot@*.npz")
    with np.load(path) as arrays:
        kept = dict(arrays)
    rewrite(path, draw1=kept["draw2"])
    status, out, _ = frostbench("verify", "runs")
    assert status == 3
    assert "its record has another sha256" in out
    np.savez_compressed(path.with_suffix(""), predicted=kept["predicted"], label=kept["label"])
    record = one(many, "pixels/*/seed0-*/scores/pixels/fewshot@*.json")
    resealed(record, predictions_sha256=None)
    for form in ("csv", "json"):  # which have the mean recalls of all draws
        one(many, f"leaderboard.{form}").unlink()
    status, out, _ = frostbench("verify", "runs")
    assert status == 0, out
    assert "not checked: mean_top1, whose predictions older records lack (1)" in out
    assert "not checked: repetitions, whose predictions older records lack (2)" in out


def test_runs_of_before_there_were_hashes_of_all_files_stay_valid(runs: Path, frostbench: Frostbench) -> None:
    for path in runs.rglob("run.json"):
        about = json.loads(path.read_text())
        del about["files"], about["sha256"]
        path.write_text(json.dumps(about))
    status, out, _ = frostbench("verify", "runs")
    assert status == 0, out
    assert "recipes, histories, pictures and views, whose hashes older runs lack (26)" in out


def test_results_behind_links_to_directories_are_verified(runs: Path, frostbench: Frostbench) -> None:
    (runs / "small" / "bigan").rename(runs.parent / "elsewhere")
    (runs / "small" / "bigan").symlink_to(runs.parent / "elsewhere")
    (runs.parent / "elsewhere" / "back").symlink_to(runs)  # round and round
    status, out, _ = frostbench("verify", "runs")
    assert status == 0, out
    assert out.startswith("no problems; checked: 6 numbers, 8 records, 4 runs, 6 weights")


def test_weights_that_were_not_kept_are_said_to_be_unchecked(runs: Path, frostbench: Frostbench) -> None:
    for path in runs.rglob("*.safetensors"):
        path.unlink()
    status, out, _ = frostbench("verify", "runs")
    assert status == 0, out
    assert "not checked: weights, which were not kept (6)" in out


def test_where_there_is_no_result_there_is_nothing_to_verify(frostbench: Frostbench) -> None:
    Path("empty").mkdir()
    for place, words in (("empty", "no results in empty"), ("absent", "there is no such directory")):
        status, out, err = frostbench("verify", place)
        assert (status, out, words in err) == (2, "", True), err
