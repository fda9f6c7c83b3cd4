"""`frostbench score`: features of any model become a row; nonsense becomes one sentence and an exit code."""

import json
import typing as t
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bench import data, features
from bench.formats import DataError
from protocols.base import FeatureSet
from results import store
from results.record import Record

LABELS = np.arange(60) % 3
CLEAR = np.eye(3, dtype=np.float32)[LABELS]  # whoever scores less than 1 on these is wrong
GOOD = {"train_features": CLEAR, "train_labels": LABELS, "test_features": CLEAR[:30], "test_labels": LABELS[:30]}
Frostbench = t.Callable[..., tuple[int, str, str]]


def table(**arrays: t.Any) -> pa.Table:
    return pa.table({"split": ["train"] * 60 + ["test"] * 30, "label": np.concatenate([LABELS, LABELS[:30]])} | arrays)


def records() -> list[Record]:
    return store.read_store(Path("runs")).records


def write_every_layout(both: np.ndarray[t.Any, t.Any]) -> list[Path]:
    """The same features in each layout that is documented."""
    labels, split = np.concatenate([LABELS, LABELS[:30]]), np.array(["train"] * 60 + ["test"] * 30)
    np.savez(
        "four.npz", train_features=both[:60], train_labels=LABELS, test_features=both[60:], test_labels=LABELS[:30]
    )
    np.savez_compressed("split.npz", features=both.astype(np.float64), labels=labels.astype(np.uint8), split=split)
    flat = pa.array(both.reshape(-1))
    pq.write_table(table(features=pa.FixedSizeListArray.from_arrays(flat, 3)), "fixed.parquet")
    pq.write_table(table(features=pa.array(both.tolist())), "list.parquet", row_group_size=7)
    pq.write_table(table(a=both[:, 0], b=both[:, 1], c=both[:, 2]), "wide.parquet")
    return [Path(name) for name in ("four.npz", "split.npz", "fixed.parquet", "list.parquet", "wide.parquet")]


def test_every_layout_holds_the_same_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    both = np.random.default_rng(0).normal(size=(90, 3)).astype(np.float32)
    for path in write_every_layout(both):
        train, test = features.read(path)
        assert np.array_equal(train.features.numpy(), both[:60]), path
        assert np.array_equal(test.features.numpy(), both[60:]), path
        assert test.labels.tolist() == LABELS[:30].tolist(), path


@pytest.mark.parametrize("way", ["of a split", "named", "of two levels", "without metadata"])
def test_the_index_of_a_data_frame_is_no_feature(way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    both = np.random.default_rng(0).normal(size=(90, 3)).astype(np.float32)
    rows = np.random.default_rng(1).permutation(90)  # as a split leaves them
    frame = table(a=both[:, 0], b=both[:, 1], c=both[:, 2]).to_pandas().set_index(rows)
    if way == "named":
        frame = frame.rename_axis("image")
    elif way == "of two levels":
        frame = frame.set_index(["split", rows])
    frame.to_parquet(path := tmp_path / "own.parquet")
    if way == "without metadata":
        pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    train, test = features.read(path)
    assert np.array_equal(train.features.numpy(), both[:60])
    assert np.array_equal(test.features.numpy(), both[60:])
    index = {"named": "image", "of two levels": "__index_level_1__"}.get(way, "__index_level_0__")
    told = f"own.parquet: the features are 3 columns, 'a', 'b', 'c'; 1 not read: '{index}' (an index)"
    assert told in caplog.text


def test_how_many_columns_are_features_and_which_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = np.random.default_rng(0).normal(size=(90, 12))
    pq.write_table(table(**{f"f{k}": rows[:, k] for k in range(12)}), tmp_path / "wide.parquet")
    features.read(tmp_path / "wide.parquet")
    assert "12 columns, 'f0', 'f1', 'f2', 'f3', 'f4', ..., 'f9', 'f10', 'f11'" in caplog.text
    pq.write_table(table(features=rows.tolist(), id=rows[:, 0]), tmp_path / "list.parquet")
    features.read(tmp_path / "list.parquet")
    assert "list.parquet: the features are the column 'features'; 1 not read: 'id'" in caplog.text


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_what_is_written_is_read_back(suffix: str, tmp_path: Path) -> None:
    train, test = (FeatureSet(torch.randn(n, 5), torch.arange(n) % 3, classes=3) for n in (9, 6))
    features.write(tmp_path / f"f.{suffix}", train, test)
    for before, after in zip((train, test), features.read(tmp_path / f"f.{suffix}")):
        assert torch.equal(before.features, after.features)
        assert torch.equal(before.labels, after.labels)


def test_a_row_stands_in_the_leaderboard_under_its_name(frostbench: Frostbench) -> None:
    np.savez("own.npz", **GOOD)
    status, out, _ = frostbench("score", "own.npz", "--name", "my-model")
    assert status == 0
    assert "my-model" in out
    rows = json.loads(frostbench("leaderboard", "--format", "json")[1])
    assert {(row["encoder"], row["protocol"], row["mean"]) for row in rows} == {
        ("my-model", "knn@1", 1.0),
        ("my-model", "linear@5", 1.0),
    }
    assert {(row["train_images"], row["test_images"]) for row in rows} == {(60, 30)}


def test_files_of_one_name_are_the_seeds_of_one_row(frostbench: Frostbench) -> None:
    for seed in range(3):
        np.savez("own.npz", **GOOD | {"train_features": CLEAR + seed})
        frostbench("score", "own.npz", "--seed", str(seed), "--protocol", "knn")
    (row,) = json.loads(frostbench("leaderboard", "--format", "json")[1])
    assert row["seeds"] == 3


def test_scoring_again_changes_nothing_and_another_claim_is_another_row(frostbench: Frostbench) -> None:
    np.savez("own.npz", **GOOD)
    for labels in ("0", "0", "all"):
        assert frostbench("score", "own.npz", "--protocol", "knn", "--labels", labels)[0] == 0
    rows = json.loads(frostbench("leaderboard", "--format", "json")[1])
    assert sorted(row["labels"] for row in rows) == [0, 60]


def test_different_test_sets_never_share_a_table(frostbench: Frostbench) -> None:
    np.savez("one.npz", **GOOD)
    np.savez("two.npz", **GOOD | {"test_labels": LABELS[1:31]})
    np.savez("three.npz", **GOOD | {"test_features": CLEAR[:30] * 2})
    for name in ("one", "two", "three"):
        frostbench("score", f"{name}.npz", "--protocol", "knn")
    rows = json.loads(frostbench("leaderboard", "--format", "json")[1])
    tables = {row["encoder"]: row["dataset"] for row in rows}
    assert tables["one"] == tables["three"] != tables["two"]


def test_features_of_a_datasets_images_stand_beside_a_suites(frostbench: Frostbench) -> None:
    suite = ["run", "smoke", "--limit", "100", "--set", "encoders=[pixels]", "--set", "wandb.mode=off"]
    assert frostbench(*suite, "--set", "protocols=[knn]")[0] == 0
    digits = data.load("digits", limit=100)
    rows = {
        f"{part}_{name}": array
        for part, images in (("train", digits.train), ("test", digits.test))
        for name, array in (("features", images.images.reshape(100, -1)), ("labels", images.labels))
    }
    np.savez("own.npz", **rows)
    of = ["--dataset", "digits", "--limit", "100", "--protocol", "knn"]
    status, out, err = frostbench("score", "own.npz", *of, "--format", "json")
    assert status == 0, err
    ours, theirs = sorted(json.loads(out), key=lambda row: row["encoder"])
    assert (ours["encoder"], theirs["encoder"]) == ("own", "pixels")
    assert ours["dataset"] == theirs["dataset"]
    assert ours["values"] == theirs["values"]  # the neighbours of pixels in 0..255 are those in 0..1

    turned = {name: array[::-1] for name, array in rows.items()}
    np.savez("turned.npz", **turned)
    status, _, err = frostbench("score", "turned.npz", *of)
    assert status == 4
    assert "of 100 labels that are not those of digits (limit 100)" in err
    assert frostbench("score", "own.npz", "--dataset", "digits")[0] == 4  # its 1,438 and 359


def test_protocols_take_the_settings_of_suites(frostbench: Frostbench) -> None:
    np.savez("own.npz", **GOOD)
    frostbench("score", "own.npz", "--protocol", "{name: knn, k: 20, label: knn20}", "--protocol", "svm")
    assert {(one.protocol_label, one.protocol_params.get("k")) for one in records()} == {("knn20", 20), ("svm", None)}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"test_features": np.full((30, 3), np.nan)}, "test: features must be finite; 30 of 30 rows hold NaN"),
        ({"test_features": np.full((30, 3), 1e300)}, "test: features must be finite"),
        ({"train_features": CLEAR[:, :0]}, "must have the same d"),
        ({"train_features": CLEAR[:, :2]}, "must have the same d"),
        ({"train_features": LABELS}, "train_features must be real numbers (n, d); got int64 (60,)"),
        ({"train_features": CLEAR.astype(str)}, "train_features must be real numbers"),
        ({"train_features": CLEAR.astype(complex)}, "train_features must be real numbers"),
        ({"train_features": CLEAR.astype(object)}, "pickled objects are not read"),
        (
            {"train_labels": LABELS[:59]},
            "train needs a label for each of its rows, of which it has one or more; got 60",
        ),
        ({"train_labels": LABELS.astype(float)}, "train_labels must be whole numbers (n,); got float64"),
        ({"train_labels": LABELS - 1}, "labels must lie in 0..59"),
        ({"test_labels": LABELS[:30] + 60}, "labels must lie in 0..59"),
        ({"train_labels": LABELS * 0}, "train has one class"),
        ({"test_features": CLEAR[:0], "test_labels": LABELS[:0]}, "one or more; got 0 rows"),
        ({"test_features": np.float32(1)}, "single number"),
    ],
)
def test_arrays_that_cannot_be_judged_are_named(frostbench: Frostbench, changed: dict[str, t.Any], words: str) -> None:
    np.savez("own.npz", **GOOD | changed)
    status, out, err = frostbench("score", "own.npz")
    assert (status, out) == (4, "")
    assert "own.npz" in err
    assert words in err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ({"features": [[1.0]] * 89 + [[1.0, 2.0]]}, "equally many in every row; got 1 to 2"),
        ({"features": [[1.0]] * 89 + [None]}, "1 of 90 rows have no features"),
        ({"features": [[1.0]] * 89 + [[None]]}, "1 features are null"),
        ({"features": ["x"] * 90}, "features must be a list of numbers a row; got string"),
        ({"features": [["x"]] * 90}, "must be real numbers"),
        ({"a": np.ones(90), "id": ["x"] * 90}, "id is string"),
        ({"split": ["train"] * 89 + ["dev"], "a": np.ones(90)}, "'train' or 'test' in every row; got 'dev'"),
        ({"label": [0.5] * 90, "a": np.ones(90)}, "labels must be whole numbers"),
        ({}, "features must"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_judged_are_named(frostbench: Frostbench, column: dict[str, t.Any], words: str) -> None:
    whole = {name: table()[name] for name in ("split", "label")}
    pq.write_table(pa.table(whole | column), "own.parquet")
    status, _, err = frostbench("score", "own.parquet")
    assert (status, words in err) == (4, True), err


def test_files_that_are_no_features_are_named(frostbench: Frostbench) -> None:
    np.savez("own.npz", **{name: array for name, array in GOOD.items() if name != "test_labels"})
    assert "missing: test_labels" in frostbench("score", "own.npz")[2]
    whole = Path("own.npz").read_bytes()
    Path("half.npz").write_bytes(whole[: len(whole) // 2])
    np.save("single.npy", CLEAR)
    Path("single.npz").write_bytes(Path("single.npy").read_bytes())
    Path("text.npz").write_text("not an archive")
    Path("text.parquet").write_text("not a table")
    with zipfile.ZipFile("strange.npz", "w") as archive:
        for name in GOOD:
            archive.writestr(f"{name}.npy", "no array")
    for name in ("half.npz", "single.npz", "text.npz", "text.parquet", "strange.npz", "absent.npz"):
        status, _, err = frostbench("score", name)
        assert (status, name in err) == (4, True), err
    assert frostbench("score", "own.csv")[::2] == (
        2,
        "own.csv: wanted a file of features that ends in .npz or .parquet\n",
    )
    assert "--protocol 'nonsense': no protocol" in frostbench("score", "half.npz", "--protocol", "nonsense")[2]


def test_files_that_would_unpack_to_very_much_are_refused(frostbench: Frostbench) -> None:
    np.savez_compressed("bomb.npz", **GOOD | {"train_features": np.zeros((60, 1_000_000), np.float32)})
    many = pa.DictionaryArray.from_arrays(pa.array(np.zeros(20_000, np.int32)), pa.array(["train" * 100_000]))
    pq.write_table(
        pa.table({"split": many, "label": np.zeros(20_000, int), "a": np.zeros(20_000)}),
        "bomb.parquet",
        store_schema=False,
    )
    for name in ("bomb.npz", "bomb.parquet"):
        status, _, err = frostbench("score", name)
        assert (status, "would unpack from" in err) == (4, True), err


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_a_damaged_file_is_read_or_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"f.{suffix}"
    rows = FeatureSet(torch.randn(12, 3), torch.arange(12) % 3, classes=3)
    features.write(path, rows, rows)
    whole = path.read_bytes()
    refused = 0
    for start in range(0, len(whole), max(1, len(whole) // 100)):
        damaged = bytearray(whole)
        damaged[start] ^= 0x55
        for content in (damaged, whole[:start]):
            path.write_bytes(content)
            try:
                features.read(path)
            except DataError as error:
                assert str(path) in str(error)
                refused += 1
    assert refused > 100  # every shorter file, and more


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--protocol", "kn"], "did you mean 'knn'?"),
        (["--protocol", "{name: knn, k: 0}"], "k: wanted"),
        (["--protocol", "{name: knn"], "--protocol"),
        (["--protocol", "knn", "--protocol", "knn"], "label 'knn' is taken"),
        (["--protocol", "argmax"], "'argmax' reads label of encoders of ours"),
        (["--protocol", "{name: knn, label: ../up}"], "label"),
        (["--name", "../up"], "wanted a name such as my-model"),
        (["--labels", "some"], "wanted a number or all"),
        (["--limit", "10"], "name one by --dataset"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_wrong_options_are_usage_errors(frostbench: Frostbench, arguments: list[str], words: str) -> None:
    np.savez("own.npz", **GOOD)
    status, out, err = frostbench("score", "own.npz", *arguments)
    assert (status, out) == (2, "")
    assert words in err
    assert not Path("runs").exists()


def test_a_dataset_that_is_none_is_answered_by_the_nearest(frostbench: Frostbench) -> None:
    np.savez("own.npz", **GOOD)
    status, _, err = frostbench("score", "own.npz", "--dataset", "digit")
    assert (status, "did you mean 'digits'?" in err) == (2, True)
