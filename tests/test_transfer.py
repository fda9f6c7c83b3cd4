"""Transfer: encoders learn from one dataset and are judged on another."""

import typing as t
from pathlib import Path

import numpy as np
import pytest

from bench import datasets
from bench.commands.verify import verify
from bench.errors import ConfigError
from bench.suites.reading import read_suite
from bench.suites.suite import DatasetSpec
from results import store
from results.identity import dataset_name
from results.record import Record, Run

SUITE = """
suite: moved
datasets: [{name: "npz:b.npz", pretrain: "npz:a.npz"}, "npz:a.npz", "npz:b.npz"]
seeds: [0]
encoders: [{name: pca, components: 3}]
protocols: [{name: knn, k: 1}]
wandb: {mode: off}
"""
MOVED = "npz:b.npz from npz:a.npz"


@pytest.fixture
def frostbench(frostbench: t.Callable[..., tuple[int, str, str]]) -> t.Callable[..., tuple[int, str, str]]:
    """The command line in a directory that holds the suite."""
    Path("moved.yaml").write_text(SUITE)
    return frostbench


def write(name: str, *, seed: int, train: int = 30, side: int = 4) -> None:
    """Two classes, the second brighter."""
    draw = np.random.Generator(np.random.Philox(seed))
    arrays = {}
    for part, count in (("train", train), ("test", 12)):
        labels = np.arange(count) % 2
        arrays[f"{part}_images"] = draw.integers(0, 100, (count, side, side), np.uint8) + 100 * labels[:, None, None]
        arrays[f"{part}_images"] = arrays[f"{part}_images"].astype(np.uint8)
        arrays[f"{part}_labels"] = labels
    np.savez(name, **t.cast(dict[str, t.Any], arrays))


def runs() -> dict[str, tuple[Record, Path]]:
    """{the dataset's name in tables: its record and the directory of its run}."""
    return {dataset_name(one := store.read_record(path)): (one, path.parents[2])
            for path in store.read_store(Path("runs")).whole}  # fmt: skip


def test_the_encoder_is_that_of_one_dataset_and_the_rows_are_those_of_the_other(
    frostbench: t.Callable[..., tuple[int, str, str]],
) -> None:
    write("a.npz", seed=0)
    write("b.npz", seed=1, train=50)
    code, table, told = frostbench("run", "moved.yaml", "--threads", "1")
    assert code == 0, told
    assert MOVED in table
    found = runs()
    weights = {name: (run / "encoder.safetensors").read_bytes() for name, (_, run) in found.items()}
    assert weights[MOVED] == weights["npz:a.npz"] != weights["npz:b.npz"]
    record, run = found[MOVED]
    assert (record.dataset, record.pretrain, record.train_images) == ("npz:b.npz", "npz:a.npz", 50)
    labels = {
        name: np.load(run / str(one.predictions), allow_pickle=False)["label"] for name, (one, run) in found.items()
    }
    assert np.array_equal(labels[MOVED], labels["npz:b.npz"])

    keys = {name: one.key for name, (one, _) in found.items()}
    assert len(set(keys.values())) == 3
    assert not verify(Path("runs")).problems
    frostbench("run", "moved.yaml", "--threads", "1")
    assert runs() == found  # nothing is made twice
    code, said, told = frostbench("reproduce", str(run))
    assert code == 0, told
    assert "bit-identical" in said
    code, said, told = frostbench("why", str(run), "moved.yaml")
    assert code == 0, told
    assert f"{MOVED}, seed 0): nothing that decides its weights has changed" in said
    assert frostbench("extract", str(run), "--output", "features.npz")[0] == 0

    write("a.npz", seed=2)  # what was learned from is in the key, and so are the images judged on
    frostbench("run", "moved.yaml", "--threads", "1")
    after_a = {one.key for one in store.read_store(Path("runs")).records if one.pretrain}
    write("b.npz", seed=3, train=50)
    frostbench("run", "moved.yaml", "--threads", "1")
    after_b = {one.key for one in store.read_store(Path("runs")).records if one.pretrain}
    assert (len(after_a), len(after_b)) == (2, 3)


def test_images_of_two_shapes_are_an_error_that_names_both(
    frostbench: t.Callable[..., tuple[int, str, str]],
) -> None:
    write("a.npz", seed=0, side=5)
    write("b.npz", seed=1)
    code, _, told = frostbench("run", "moved.yaml")
    assert code == 4
    assert f"{MOVED}: wanted images of one shape (c, h, w), got (1, 5, 5) of npz:a.npz and (1, 4, 4)" in told
    assert not Path("runs").exists()


def test_size_and_mode_make_two_shapes_one(frostbench: t.Callable[..., tuple[int, str, str]]) -> None:
    write("a.npz", seed=0, side=5)
    write("b.npz", seed=1)
    moved = SUITE.replace('pretrain: "npz:a.npz"', 'pretrain: "npz:a.npz", size: 6, mode: rgb')
    Path("moved.yaml").write_text(
        moved.replace('"npz:a.npz", "npz:b.npz"]', '{name: "npz:b.npz", size: 6}, "npz:b.npz"]')
    )
    code, table, told = frostbench("run", "moved.yaml", "--threads", "1")
    assert code == 0, told
    found = runs()
    assert set(found) == {f"{MOVED} (6 x 6, rgb)", "npz:b.npz (6 x 6)", "npz:b.npz"}
    assert all(name in table for name in found)
    record, run = found[f"{MOVED} (6 x 6, rgb)"]
    assert (record.size, record.mode, record.limit) == (6, "rgb", None)
    assert "-6-rgb-from-" in run.parent.name
    assert len({one.key for one, _ in found.values()}) == 3
    assert not verify(Path("runs")).problems
    frostbench("run", "moved.yaml", "--threads", "1")
    assert runs() == found  # nothing is made twice
    code, said, told = frostbench("reproduce", str(run))
    assert (code, "bit-identical" in said) == (0, True), told
    code, said, told = frostbench("why", str(run), "moved.yaml")
    assert (code, "nothing that decides its weights has changed" in said) == (0, True), told
    code, said, told = frostbench("why", str(run), str(found["npz:b.npz"][1]))
    assert "(6 x 6, rgb)" in said
    code, said, told = frostbench("extract", str(run), "--output", "features.npz")
    assert (code, "(6 x 6, rgb)" in said) == (0, True), told


def test_what_says_no_size_and_mode_keeps_its_key_and_place() -> None:
    specs = {spec.encoder.label: spec for spec in read_suite("smoke").runs()}
    keys = {label: specs[label].key("0" * 16, "float32") for label in ("pixels", "pca")}
    assert keys == {"pixels": "03aafa257e3e9f71", "pca": "a22769087a9ca83d"}  # as before there was size
    spec = specs["pixels"].dataset
    assert spec.asked() == {"limit": None, "split": "test", "size": None, "mode": None}
    assert datasets.slug(spec.name, **spec.asked()) == "digits"
    assert datasets.load("digits", **spec.asked()).fingerprint == "4936954fa36b1f20"
    assert datasets.load("mnist5k", offline=True).fingerprint == "7626d8810335ccdb"
    before = {"dataset": "digits", "limit": None, "split": "test"}  # of a run.json
    assert DatasetSpec.of(Run.model_construct(**before)) == spec


def test_a_dataset_of_its_own_keeps_its_key_and_place() -> None:
    suite = read_suite("smoke")
    spec = next(one for one in suite.runs() if one.encoder.label == "pixels")
    assert spec.dataset.pretrain is None
    assert spec.dataset.label == "digits"
    digits = datasets.load("digits")
    assert digits.pretraining is digits.train
    assert spec.key(digits.fingerprint, "float32") == "8e03267806b33fff"  # as it was before there was transfer
    moved = spec.dataset.model_copy(update={"pretrain": "mnist", "limit": 5})
    assert moved.label == "digits from mnist (limit 5)"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{name: mnist, pretrain: mnits}", "no dataset 'mnits' (did you mean 'mnist'?)"),
        ("{name: mnist, pretrain: mnist}", "is the dataset itself, which encoders learn from by default; remove it"),
        ("{name: mnist, pretrain: 3}", "wanted a string"),
        ("{name: mnist, size: 0}", "wanted a number >= 1, got 0"),
        ("{name: mnist, size: 99999}", "wanted a number <= 1024"),
        ("{name: mnist, mode: gray}", "did you mean 'grey'?"),
        ("{name: mnist, mode: RGBA}", "wanted 'grey' or 'rgb'"),
    ],
)
def test_a_wrong_source_is_named_with_its_line(entry: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(f"suite: wrong\nseeds: [0]\ndatasets:\n  - {entry}\nencoders: [pixels]\nprotocols: [linear]\n")
    with pytest.raises(ConfigError) as caught:
        read_suite(str(path))
    assert problem in str(caught.value) and "wrong.yaml:4:" in str(caught.value)
