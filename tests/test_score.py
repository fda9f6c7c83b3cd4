"""`frostbench score`: features of any model become a row; nonsense becomes one sentence and an exit code."""

import json
import typing as t
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from PIL import Image

from bench import datasets
from bench.commands import feature_files
from bench.datasets.formats import DataError
from protocols.base import FeatureSet
from protocols.linear import Linear
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
    parts = {name: (both[:60], both[60:])["test" in name] for name in ("train_features", "test_features")}
    parts |= {"train_labels": LABELS, "test_labels": LABELS[:30]}
    Path("arrays").mkdir()
    for name, array in parts.items():
        np.save(f"arrays/{name}.npy", array)
    tensors = {name: torch.from_numpy(array.copy()) for name, array in parts.items()}
    safetensors.torch.save_file(tensors, "f.safetensors")
    torch.save(tensors, "f.pt")
    torch.save({"features": torch.from_numpy(both), "labels": labels.tolist(), "split": split.tolist()}, "split.pt")
    with h5py.File("f.h5", "w") as file, h5py.File("split.h5", "w") as other:
        for name, array in parts.items():
            file.create_dataset(name, data=array, compression="gzip")
        other["features"], other["labels"], other["split"] = both.astype(np.float64), labels, split.tolist()
    npz, parquet = ("four.npz", "split.npz"), ("fixed.parquet", "list.parquet", "wide.parquet")
    return [Path(one) for one in (*npz, *parquet, "arrays", "f.safetensors", "f.pt", "split.pt", "f.h5", "split.h5")]


def test_every_layout_holds_the_same_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    both = np.random.default_rng(0).normal(size=(90, 3)).astype(np.float32)
    for path in write_every_layout(both):
        train, test = feature_files.read(path)
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
    train, test = feature_files.read(path)
    assert np.array_equal(train.features.numpy(), both[:60])
    assert np.array_equal(test.features.numpy(), both[60:])
    index = {"named": "image", "of two levels": "__index_level_1__"}.get(way, "__index_level_0__")
    told = f"own.parquet: the features are 3 columns, 'a', 'b', 'c'; 1 not read: '{index}' (an index)"
    assert told in caplog.text


def test_how_many_columns_are_features_and_which_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = np.random.default_rng(0).normal(size=(90, 12))
    pq.write_table(table(**{f"f{k}": rows[:, k] for k in range(12)}), tmp_path / "wide.parquet")
    feature_files.read(tmp_path / "wide.parquet")
    assert "12 columns, 'f0', 'f1', 'f2', 'f3', 'f4', ..., 'f9', 'f10', 'f11'" in caplog.text
    pq.write_table(table(features=rows.tolist(), id=rows[:, 0]), tmp_path / "list.parquet")
    feature_files.read(tmp_path / "list.parquet")
    assert "list.parquet: the features are the column 'features'; 1 not read: 'id'" in caplog.text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e5m2, torch.float64])
def test_short_floats_of_tensors_are_numbers(dtype: torch.dtype, tmp_path: Path) -> None:
    parts = {name: torch.from_numpy(array.copy()) for name, array in GOOD.items()}
    parts |= {name: (parts[name] * 1.75).to(dtype) for name in ("train_features", "test_features")}
    safetensors.torch.save_file(parts, tmp_path / "f.safetensors")
    torch.save(parts, tmp_path / "f.pt")
    for name in ("f.safetensors", "f.pt"):
        train, test = feature_files.read(tmp_path / name)
        assert torch.equal(train.features, torch.from_numpy(CLEAR) * 1.75)
        assert torch.equal(test.features, torch.from_numpy(CLEAR[:30]) * 1.75)


class Runs:
    def __reduce__(self) -> t.Any:
        return Path.touch, (Path("ran"),)


def test_nothing_that_a_file_of_tensors_brings_is_run_or_followed(frostbench: Frostbench) -> None:
    good = {name: torch.from_numpy(array.copy()) for name, array in GOOD.items()}
    torch.save(good | {"train_features": Runs()}, "code.pt")
    torch.save([good], "list.pt")
    torch.save(good | {"train_features": torch.zeros(1, 1).expand(60, 10**9)}, "repeated.pt")
    torch.save(good | {"train_features": good["train_features"].to_sparse()}, "sparse.pt")
    safetensors.torch.save_file({name: one for name, one in good.items() if "test" not in name}, "half.safetensors")
    with h5py.File("else.h5", "w") as file:
        file.update(GOOD)
    for name, link in {"link": h5py.ExternalLink("else.h5", "train_features"), "soft": h5py.SoftLink("/a")}.items():
        with h5py.File(f"{name}.h5", "w") as file:
            file.update({key: array for key, array in GOOD.items() if key != "train_features"})
            file["a"] = CLEAR
            file["train_features"] = link
    with h5py.File("outside.h5", "w") as file:
        file.update({key: array for key, array in GOOD.items() if key != "train_features"})
        file.create_dataset("train_features", (60, 3), "f4", external=[("else.h5", 0, 720)])
    with h5py.File("bomb.h5", "w") as file:
        file.update({key: array for key, array in GOOD.items() if key != "train_features"})
        file.create_dataset("train_features", (60, 10**8), "f4", chunks=(1, 10**4), fillvalue=0)
    Path("folder").mkdir()
    for name, array in GOOD.items():
        np.save(f"folder/{name}.npy", array if name != "test_labels" else np.array([Runs()] * 30))
    for name in ("text.pt", "text.safetensors", "text.h5"):
        Path(name).write_text("no such format")
    for name, words in {
        "code.pt": "nothing else is read",
        "list.pt": "wanted a dictionary of tensors; got list",
        "repeated.pt": "would unpack from",
        "sparse.pt": "nothing else is read",
        "half.safetensors": "missing: test_features, test_labels",
        "link.h5": "train_features is a link; links are not followed",
        "soft.h5": "train_features is a link; links are not followed",
        "outside.h5": "train_features must be a dataset stored in this file",
        "bomb.h5": "would unpack from",
        "folder": "pickled objects are not read",
        "text.pt": "nothing else is read",
        "text.safetensors": "is not a readable safetensors file",
        "text.h5": "is not a readable HDF5 file",
    }.items():
        status, _, err = frostbench("score", name)
        assert (status, words in err, name in err) == (4, True, True), err
    assert not Path("ran").exists()
    status, _, err = frostbench("score", "folder/train_features.npy")
    assert (status, "for .npy files give their directory, which has train_features.npy" in err) == (2, True), err


def test_columns_of_a_table_beyond_float32_are_named(frostbench: Frostbench) -> None:
    pq.write_table(table(a=np.full(90, 1e300), b=np.ones(90)), "own.parquet")
    assert "train: 60 of 60 rows exceed 3.4e+38" in frostbench("score", "own.parquet")[2]


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_what_is_written_is_read_back(suffix: str, tmp_path: Path) -> None:
    train, test = (FeatureSet(torch.randn(n, 5), torch.arange(n) % 3, classes=3) for n in (9, 6))
    feature_files.write(tmp_path / f"f.{suffix}", train, test)
    for before, after in zip((train, test), feature_files.read(tmp_path / f"f.{suffix}")):
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
        ("my-model", f"linear@{Linear.version}", 1.0),
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
    digits = datasets.load("digits", limit=100)
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
    assert "of 100 labels differ from those of digits (limit 100)" in err
    assert frostbench("score", "own.npz", "--dataset", "digits")[0] == 4  # its 1,438 and 359


def test_a_dataset_takes_the_size_and_mode_of_suites(frostbench: Frostbench) -> None:
    for part, images in (("train", 60), ("test", 30)):
        for row in range(images):
            folder = Path("pictures", part, "abc"[row % 3])
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8 + row % 2, 8), row, np.uint8)).save(folder / f"{row}.png")
    entry = "{name: folder:pictures, size: 6, mode: rgb}"
    for command in (("extract", "pixels", "--output", "own.npz"), ("audit",)):
        status, _, err = frostbench(*command, "--dataset", "folder:pictures")
        assert (status, "--dataset '{name: ..., size: 64}' on a command line" in err) == (4, True), err
    status, out, err = frostbench("extract", "pixels", "--output", "own.npz", "--dataset", entry, "--limit", "15")
    assert (status, "108 features (pixels) of 15 + 15 images of folder:pictures (6 x 6, rgb) (limit 15)" in out) == (
        0,
        True,
    ), out + err
    score = ("score", "own.npz", "--protocol", "knn", "--dataset")
    assert frostbench(*score, entry, "--limit", "15")[0] == 0
    (record,) = records()
    assert (record.dataset, record.limit, record.size, record.mode) == ("folder:pictures", 15, 6, "rgb")
    status, _, err = frostbench(*score, entry)
    assert f"`frostbench extract pixels --dataset '{entry}' --output images.npz` writes its images" in err
    status, _, err = frostbench("audit", "--dataset", "{name: folder:pictures, mode: rgb}")
    assert (status, "8 x 9" in err and "{name: ..., size: 64}" in err) == (4, True), err


def test_a_dataset_that_is_spelled_wrong_is_a_sentence(frostbench: Frostbench) -> None:
    for entry, said in (
        ("{name: digits, sise: 4}", "did you mean 'size'?"),
        ("{name: digit}", "did you mean 'digits'?"),
        ("{name: digits, size: 0}", "size"),
        ("{size: 4}", "name"),
        ("{name: [digits", "--dataset"),
    ):
        status, _, err = frostbench("extract", "pixels", "--output", "own.npz", "--dataset", entry)
        assert (status, said in err) == (2, True), err


def test_protocols_take_the_settings_of_suites(frostbench: Frostbench) -> None:
    np.savez("own.npz", **GOOD)
    frostbench("score", "own.npz", "--protocol", "{name: knn, k: 20, label: knn20}", "--protocol", "svm")
    assert {(one.protocol_label, one.protocol_params.get("k")) for one in records()} == {("knn20", 20), ("svm", None)}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"test_features": np.full((30, 3), np.nan)}, "test: features must be finite; 30 of 30 rows hold NaN"),
        ({"test_features": np.full((30, 3), 1e300)}, "test: 30 of 30 rows exceed 3.4e+38"),
        ({"test_features": np.full((30, 3), np.inf)}, "test: features must be finite; 30 of 30 rows hold NaN"),
        (
            {"train_features": CLEAR.astype(np.float64) * 1e-60},
            "train: float32 rounds all numbers, at most 1e-60, to 0",
        ),
        (
            {"train_features": torch.from_numpy(CLEAR).bfloat16().view(torch.uint16).numpy()},
            "train_features have the type uint16, which may hold the bits of bfloat16; save them as float32",
        ),
        (
            {"train_features": CLEAR.astype(np.float16).view("V2")},
            "train_features have the type |V2, which may hold the bits",
        ),
        (
            {"test_labels": np.where(np.arange(30) < 4, 3, LABELS[:30])},
            "4 test rows have labels that no train row has (3); add such rows to train, or remove them from test",
        ),
        ({"train_features": CLEAR[:, :0]}, "must have the same d"),
        ({"train_features": CLEAR[:, :2]}, "must have the same d"),
        ({"train_features": LABELS}, "train_features must be real numbers (n, d); got int64 (60,)"),
        ({"train_features": CLEAR.astype(str)}, "train_features must be real numbers"),
        ({"train_features": CLEAR.astype(complex)}, "train_features must be real numbers"),
        ({"train_features": CLEAR.astype(object)}, "pickled objects are not read"),
        (
            {"train_labels": LABELS[:59]},
            "train needs at least one row, and one label per row; got 60",
        ),
        ({"train_labels": LABELS.astype(float)}, "train_labels must be whole numbers (n,); got float64"),
        ({"train_labels": LABELS - 1}, "labels must lie in 0..59"),
        ({"test_labels": LABELS[:30] + 60}, "labels must lie in 0..59"),
        ({"train_labels": LABELS * 0}, "train has one class"),
        ({"test_features": CLEAR[:0], "test_labels": LABELS[:0]}, "one label per row; got 0 rows"),
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
        ({"features": [[1.0]] * 89 + [[1.0, 2.0]]}, "the same number of features; got 1 to 2"),
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
    status, _, err = frostbench("score", "own.csv")
    assert (status, "own.csv: wanted a file of features that ends in .npz, .parquet, .safetensors, .pt" in err) == (
        2,
        True,
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
    feature_files.write(path, rows, rows)
    whole = path.read_bytes()
    refused = 0
    for start in range(0, len(whole), max(1, len(whole) // 100)):
        damaged = bytearray(whole)
        damaged[start] ^= 0x55
        for content in (damaged, whole[:start]):
            path.write_bytes(content)
            try:
                feature_files.read(path)
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
        (["--protocol", "argmax"], "'argmax' scores label of an encoder in a suite"),
        (["--protocol", "{name: knn, label: ../up}"], "label"),
        (["--name", "../up"], "wanted a name such as my-model"),
        (["--labels", "some"], "wanted a number or all"),
        (["--limit", "10"], "name it with --dataset"),
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
