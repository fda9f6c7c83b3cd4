"""`frostbench reproduce` says how near a training comes again, and what was otherwise."""

import json
import re
import shutil
import typing as t
from pathlib import Path

import numpy as np
import pytest

from bench.commands.reproduce import _held
from results import store
from results.record import Record
from results.statistics import wilson

SUITE = """
suite: small
datasets: [{name: digits, limit: 100}]
seeds: 0-1
encoders: [{name: bigan, hidden: 8, latent: 2, epochs: 1}]
protocols: [{name: knn, k: 1}]
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
def row(whole: Path, tmp_path: Path) -> Path:
    """A copy of the row's directory, without weights, as results are published."""
    copied = Path(shutil.copytree(whole / "small" / "bigan", tmp_path / "bigan"))
    for path in copied.rglob("*.safetensors"):
        path.unlink()
    return copied


def run_of(row: Path) -> Path:
    (run,) = row.glob("*/seed0-*")
    return run


def rewrite(path: Path, **changed: t.Any) -> None:
    value = json.loads(path.read_text()) | changed
    if value.pop("sha256", None):
        value["sha256"] = store._digest(path, value)
    path.write_text(json.dumps(value))


def test_a_row_comes_out_the_same_bit_for_bit_and_leaves_nothing(
    row: Path, frostbench: Frostbench, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    status, out, err = frostbench("reproduce", row)
    assert status == 0, err
    assert out.splitlines() == [f"bigan, digits (limit 100), seed {seed}: bit-identical" for seed in (0, 1)]
    assert re.match(r"training 2 runs again, which took \d+ s when recorded\n", err)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("field", ["ranks", "threads"])
def test_no_run_json_starts_thousands_of_processes(row: Path, frostbench: Frostbench, field: str) -> None:
    path = run_of(row) / "run.json"
    made = json.loads(path.read_text())["provenance"]
    rewrite(path, provenance=made | {field: 5000})
    status, out, err = frostbench("reproduce", run_of(row))
    assert (status, out) == (2, "")
    assert f"--{field} 5000 is too many" in err


def test_a_run_json_that_lacks_something_is_named(row: Path, frostbench: Frostbench) -> None:
    path = run_of(row) / "run.json"
    path.write_text(json.dumps({"schema_version": 1, "seed": 0}))
    status, _, err = frostbench("reproduce", run_of(row))
    assert status == 2
    assert f"{path}: it lacks the fields suite, key, dataset" in err


@pytest.mark.parametrize("field", ["is_control", "split", "label"])
@pytest.mark.parametrize("command", [("reproduce",), ("why",), ("export", "out")])
def test_every_command_on_an_older_run_names_the_field_that_it_lacks(
    row: Path, frostbench: Frostbench, command: tuple[str, ...], field: str
) -> None:
    path = run_of(row) / "run.json"
    about = json.loads(path.read_text())
    path.write_bytes(store.sealed(path, {name: about[name] for name in about if name not in (field, "sha256")}))
    status, _, err = frostbench(command[0], run_of(row), *command[1:])
    assert status == 2
    assert f"{path}: it lacks the field {field}: an older frostbench wrote it" in err


def test_other_weights_with_the_same_numbers_are_within_the_interval(row: Path, frostbench: Frostbench) -> None:
    rewrite(run_of(row) / "run.json", weights_sha256="0" * 64)
    status, out, _ = frostbench("reproduce", run_of(row))
    assert (status, out.splitlines()[0]) == (0, "bigan, digits (limit 100), seed 0: within the interval")
    assert "weights: different" in out


@pytest.mark.parametrize(("images", "verdict", "status"), [(1, "within the interval", 0), (40, "not reproduced", 3)])
def test_a_number_is_held_against_its_interval(
    row: Path, frostbench: Frostbench, images: int, verdict: str, status: int
) -> None:
    """Of 100 images, Wilson's interval reaches 6 to 10 on either side."""
    path = next(run_of(row).glob("scores/code/*.json"))
    top1 = json.loads(path.read_text())["metrics"]["top1"]
    claimed = round(top1 + images / 100 if top1 < 0.5 else top1 - images / 100, 2)
    rewrite(path, metrics={"top1": claimed})
    came, out, _ = frostbench("reproduce", run_of(row))
    assert (came, out.splitlines()[0]) == (status, f"bigan, digits (limit 100), seed 0: {verdict}")
    assert f"code knn top1: {claimed:.4f} recorded, {top1:.4f} now, {'inside' if not status else 'outside'}" in out


@pytest.mark.parametrize("metric", ["mean_top1", "clean_top1", "map"])
def test_whatever_leaderboards_give_an_interval_is_held_against_that(metric: str) -> None:
    def made(value: float) -> Record:
        return Record.model_construct(
            tap="code", protocol_label="few", predictions=None, metrics={metric: value}, test_images=100
        )

    assert _held(False, [(made(0.9), made(0.85), None)])[0] == "within the interval"
    verdict, findings = _held(False, [(made(0.9), made(0.7), None)])
    low, high = wilson(0.9, 100)
    assert (verdict, findings[1].endswith(f"outside {low:.4f} to {high:.4f}")) == ("not reproduced", True)


def test_other_predictions_are_not_the_same_bits(row: Path, frostbench: Frostbench) -> None:
    path = next(run_of(row).glob("predictions/code/*.npz"))
    with np.load(path) as arrays:
        predicted, label = arrays["predicted"], arrays["label"]
    predicted[0] = (predicted[0] + 1) % 10
    np.savez_compressed(path, predicted=predicted, label=label)
    _, out, _ = frostbench("reproduce", run_of(row))
    assert out.splitlines()[0].endswith("within the interval")
    assert "weights: identical" in out
    assert "code knn: different predictions" in out
    path.unlink()
    assert "code knn: predictions not kept" in frostbench("reproduce", run_of(row))[1]


def test_what_was_otherwise_is_named(row: Path, frostbench: Frostbench) -> None:
    made = json.loads((run_of(row) / "run.json").read_text())["provenance"]
    made |= {"versions": made["versions"] | {"torch": "1.0"}, "device": "an abacus"}
    rewrite(run_of(row) / "run.json", provenance=made, encoder_version=0)
    out = frostbench("reproduce", run_of(row), "--threads", "2")[1]
    for words in (
        "torch: 1.0 then, ",
        "device: an abacus then, ",
        "threads: 1 then, 2 now",
        "encoder's version: 0 then",
    ):
        assert f"different environment: {words}" in out


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"fingerprint": "0" * 16}, "its data has changed: digits (limit 100) has different images"),
        ({"encoder": "bigann"}, "no encoder or protocol is named 'bigann'"),
        ({"params": {"epochs": -1}}, "the parameters of bigan have changed"),
    ],
)
def test_what_cannot_be_made_again_is_said(
    row: Path, frostbench: Frostbench, changed: dict[str, t.Any], words: str
) -> None:
    rewrite(run_of(row) / "run.json", **changed)
    status, out, err = frostbench("reproduce", run_of(row))
    assert (status, out) == (2, "")
    assert words in err


def test_where_there_is_no_run_nothing_is_trained(frostbench: Frostbench, tmp_path: Path) -> None:
    status, _, err = frostbench("reproduce", tmp_path)
    assert (status, "no run in" in err) == (2, True)
