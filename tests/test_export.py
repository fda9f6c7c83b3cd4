"""What `frostbench extract` and `export` write means the same when it is read back; what was changed is not read."""

import copy
import hashlib
import json
import os
import pickle
import re
import shutil
import sys
import typing as t
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from bench import datasets
from bench.commands.export import _pooled
from encoders import load
from encoders.base import Encoder, EncoderError, frozen
from encoders.pca import PCA
from results import store
from results.store import read_record

SUITE = """
suite: small
datasets: [{name: digits, limit: 100}]
seeds: [3]
encoders:
  - {name: bigan, hidden: 32, latent: 8, epochs: 1}
  - {name: pca, components: 5}
  - {name: kmeans, centroids: 16, patch: 4, patches: 500}
protocols: [linear, {name: knn, k: 1}]
controls: none
wandb: {mode: off}
"""
Frostbench = t.Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, frostbench_in: t.Callable[..., None]) -> Path:
    """A suite's directory, made once."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "small.yaml").write_text(SUITE)
    frostbench_in(folder, "run", "small.yaml", "--threads", "1")
    return folder / "runs" / "small"


def run_of(suite: Path, label: str) -> Path:
    (run,) = (suite / label).glob("*/seed3-*")
    return run


@pytest.fixture
def images() -> torch.Tensor:
    return torch.from_numpy(np.array(datasets.load("digits", limit=100).test.images))


@pytest.mark.parametrize(("label", "tap"), [("bigan", "code"), ("pca", "components")])
@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_extracted_features_score_what_their_run_scored(
    suite: Path, frostbench: Frostbench, label: str, tap: str, suffix: str
) -> None:
    run, file = run_of(suite, label), f"{label}.{suffix}"
    assert frostbench("extract", run, "--tap", tap, "--output", file)[0] == 0
    knn = "{name: knn, k: 1}"
    of = ["--dataset", "digits", "--limit", "100", "--seed", "3", "--protocol", "linear", "--protocol", knn]
    status, _, err = frostbench("score", file, *of)
    assert status == 0, err
    (again,) = Path("runs").glob("features/*/*/seed3-*")
    for path in (run / "scores" / tap).iterdir():
        ours, theirs = read_record(path), read_record(again / "scores" / "features" / path.name)
        for field in ("metrics", "details", "fingerprint", "dimensions"):
            assert getattr(ours, field) == getattr(theirs, field), field
        assert [one for one in ours.alarms if one.name != "few_updates"] == theirs.alarms  # of features alone
        kept = (run / str(ours.predictions)).read_bytes()
        assert kept == (again / str(theirs.predictions)).read_bytes()


def test_an_encoder_that_is_no_run_is_fitted(frostbench: Frostbench) -> None:
    status, out, _ = frostbench("extract", "pixels", "--dataset", "digits", "--limit", "100", "--output", "pixels.npz")
    assert (status, out) == (0, "pixels.npz: 64 features (pixels) of 100 + 100 images of digits (limit 100)\n")
    with np.load("pixels.npz") as rows:
        digits = datasets.load("digits", limit=100)
        assert np.array_equal(
            np.rint(rows["test_features"] * 255).astype(np.uint8).reshape(-1, 1, 8, 8), digits.test.images
        )
        assert np.array_equal(rows["train_labels"], digits.train.labels)


@pytest.mark.parametrize("label", ["bigan", "pca", "kmeans"])
@pytest.mark.parametrize("form", ["safetensors", "torch.export", "onnx"])
def test_an_exported_encoder_gives_the_runs_features(
    suite: Path, frostbench: Frostbench, images: torch.Tensor, label: str, form: str
) -> None:
    wanted = load(run_of(suite, label))(images)
    status, out, err = frostbench("export", run_of(suite, label), "out", "--format", form)
    assert status == 0, err
    assert "loaded again" in out
    if form == "safetensors":
        came = load("out")(images)
    elif form == "torch.export":
        came = torch.export.load("out/encoder.pt2").module()(images)
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession("out/encoder.onnx", providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        values = session.run(names, {"images": images.numpy()})
        came = dict(zip(names, map(torch.from_numpy, values)))
    assert tuple(came) == tuple(wanted) == tuple(json.loads(Path("out/encoder.json").read_text())["taps"])
    for tap, rows in wanted.items():
        torch.testing.assert_close(came[tap], rows, rtol=0, atol=1e-4 * float(rows.abs().max()))


def off_by_a_bit(opened: t.Any, _: Path, images: torch.Tensor) -> dict[str, torch.Tensor]:
    return {tap: rows + 1e-3 for tap, rows in opened.module(images).items()}


def test_an_export_that_differs_is_not_written(
    suite: Path, frostbench: Frostbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.commands.export._program", off_by_a_bit)
    status, _, err = frostbench("export", run_of(suite, "pca"), "out", "--format", "torch.export")
    assert (status, "cannot export" in err, Path("out").exists()) == (2, True, False)


def test_a_missing_library_is_installed_from_the_checkout(
    suite: Path, frostbench: Frostbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status, _, err = frostbench("export", run_of(suite, "pca"), "out", "--format", "onnx")
    assert status == 2
    assert err == "onnx needs onnxruntime: pip install -e '.[onnx]' in frostbench's checkout\n"


@pytest.mark.parametrize("form", ["torch.export", "onnx"])
def test_a_module_that_asks_how_many_images_there_are_is_refused(
    suite: Path, frostbench: Frostbench, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.compiler.is_exporting", lambda: False)  # k-means then takes its images a few at a time
    status, _, err = frostbench("export", run_of(suite, "kmeans"), "out", "--format", form)
    assert (status, f"{form} does not support its operations" in err, Path("out").exists()) == (2, True, False)


@pytest.mark.parametrize("size", [7, 8, 5])
def test_pooling_in_onnx_words_is_torchs(size: int) -> None:
    maps = torch.randn(3, 2, size, size + 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(_pooled(maps, (4, 4))[0], torch.nn.functional.adaptive_max_pool2d(maps, 4))


class Mine(Encoder):
    """An encoder of somebody's own: the mean pixel."""

    source: t.ClassVar[str] = "a test"

    @property
    def taps(self) -> tuple[str, ...]:
        return ("mean",)

    def build(self, shape: t.Any) -> torch.nn.Module:
        class Mean(torch.nn.Module):
            def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
                return {"mean": images.float().mean((1, 2, 3))[:, None]}

        return Mean()

    def fit(self, data: t.Any, run: t.Any) -> torch.nn.Module:
        return frozen(self.build(data.shape))


def test_an_encoder_of_ones_own_is_loaded_by_its_class(suite: Path, tmp_path: Path, images: torch.Tensor) -> None:
    weights = safetensors.torch.save({})
    (tmp_path / "encoder.safetensors").write_bytes(weights)
    about = {"encoder": "mine", "encoder_version": 1, "params": {}, "shape": [1, 8, 8], "taps": ["mean"]}
    about["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    (tmp_path / "encoder.json").write_text(json.dumps(about))
    assert load(tmp_path, Mine)(images)["mean"].shape == (100, 1)
    with pytest.raises(EncoderError, match="no built-in encoder is named 'mine'"):
        load(tmp_path)


def test_an_encoder_of_another_version_that_learns_the_same_is_loaded(
    suite: Path, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load(run_of(suite, "pca"))(images)["components"]
    monkeypatch.setattr(PCA, "version", 2)
    monkeypatch.setattr(PCA, "equal_versions", {"float32": ((2, 1),)})
    assert torch.equal(load(run_of(suite, "pca"))(images)["components"], before)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("encoder", "bigann", "no built-in encoder"),
        ("encoder", "sklearn", "no built-in encoder"),
        ("encoder", "../pca", "no built-in encoder"),
        ("encoder", None, "no built-in encoder"),
        ("encoder_version", 99, "by version 99 of 'pca'"),
        ("params", {"components": -1}, "does not describe a frozen encoder"),
        ("shape", [1, 8], "does not describe a frozen encoder"),
        ("shape", [1, 8, 2**40], "sizes of images"),
        ("weights_sha256", "0" * 64, "changed since it was written"),
    ],
)
def test_what_was_changed_is_not_loaded(suite: Path, tmp_path: Path, field: str, value: t.Any, words: str) -> None:
    shutil.copytree(run_of(suite, "pca"), tmp_path / "run")
    about = json.loads((tmp_path / "run" / "encoder.json").read_text())
    (tmp_path / "run" / "encoder.json").write_text(json.dumps(about | {field: value}))
    with pytest.raises(EncoderError, match=words):
        load(tmp_path / "run")


def test_no_file_speaks_to_the_terminal(suite: Path, tmp_path: Path, frostbench: t.Callable[..., t.Any]) -> None:
    run = Path(shutil.copytree(run_of(suite, "pca"), tmp_path / "run"))
    about = json.loads((run / "encoder.json").read_text())
    (run / "encoder.json").write_text(json.dumps(about | {"encoder_version": "\x1b]0;owned\x07"}))
    status, _, err = frostbench("export", run, "out")
    assert status == 2
    assert r"was made by version \x1b]0;owned\x07 of 'pca'" in err


def header(content: bytes) -> dict[str, t.Any]:
    return t.cast(dict[str, t.Any], json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]))


def packed(described: dict[str, t.Any], data: bytes) -> bytes:
    text = json.dumps(described).encode()
    return len(text).to_bytes(8, "little") + text + data


WEIGHTS: dict[str, tuple[t.Callable[[bytes], bytes], str]] = {
    "cut": (lambda content: content[:-8], "is truncated or damaged: it has .*; copy it again, or `frostbench run`"),
    "cut in its header": (
        lambda content: content[:40],
        r"truncated or damaged: it has no weights \(it has 40 bytes, but its header has .*; copy it again",
    ),
    "nothing": (lambda content: b"", "has no weights"),
    "text": (lambda content: b"weights of mine", "has no weights"),
    "a header of any size": (lambda content: b"\xff" * 64, "has no weights"),
    "longer": (lambda content: content + b"\0", "damaged: it has"),
    "of another encoder": (
        lambda content: safetensors.torch.save({"mean": torch.zeros(3)}),
        "does not match its recipe",
    ),
    "of one type and another size": (
        lambda content: packed(
            {name: one | {"dtype": "F64"} for name, one in header(content).items()}, content[8 + content[0] :]
        ),
        "damaged|cannot be loaded",
    ),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_that_do_not_fit_are_a_plain_message(
    suite: Path, tmp_path: Path, frostbench: Frostbench, kind: str
) -> None:
    change, words = WEIGHTS[kind]
    run = tmp_path / "run"
    shutil.copytree(run_of(suite, "pca"), run)
    weights = change((run / "encoder.safetensors").read_bytes())
    (run / "encoder.safetensors").write_bytes(weights)
    sha256 = hashlib.sha256(weights).hexdigest()  # by somebody who knows how it is made
    for name in ("encoder.json", "run.json"):
        about = json.loads((run / name).read_text()) | {"weights_sha256": sha256}
        (run / name).write_text(json.dumps(about))
    del about["sha256"]
    (run / "run.json").write_bytes(store.sealed(run, about))
    status, out, err = frostbench("export", run, "out")
    assert (status, out) == (2, "")
    assert re.search(words, err), err
    assert "internal error" not in err
    assert not Path("out").exists()


def test_a_recipe_of_enormous_networks_takes_no_memory(suite: Path, tmp_path: Path) -> None:
    shutil.copytree(run_of(suite, "bigan"), tmp_path / "run")
    path = tmp_path / "run" / "encoder.json"
    about = json.loads(path.read_text())
    about["params"]["hidden"] = 2**22  # 70 TB
    path.write_text(json.dumps(about))
    with pytest.raises(EncoderError, match=r"does not match its recipe: .*: wanted"):
        load(tmp_path / "run")


class Deep(Mine):
    """As many layers as its parameter says."""

    layers: int = 3
    more: int = 0
    made: t.ClassVar[list[int]] = []

    def build(self, shape: t.Any) -> torch.nn.Module:
        made = [self.layer() for _ in range(self.layers)] + [self.layer(torch.nn.Identity) for _ in range(self.more)]
        return torch.nn.Sequential(*made)

    def layer(self, kind: t.Any = torch.nn.Linear) -> torch.nn.Module:
        self.made.append(1)
        module: torch.nn.Module = kind(1, 1)
        return module


@pytest.mark.parametrize("parameter", ["layers", "more"])
def test_a_recipe_of_a_million_layers_is_refused_before_they_are_made(parameter: str, tmp_path: Path) -> None:
    weights = safetensors.torch.save(Deep().build(None).state_dict())
    (tmp_path / "encoder.safetensors").write_bytes(weights)
    about = {"encoder": "deep", "encoder_version": 1, "params": {}, "shape": [1, 8, 8], "taps": ["mean"]}
    about["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    (tmp_path / "encoder.json").write_text(json.dumps(about))
    load(tmp_path, Deep)
    (tmp_path / "encoder.json").write_text(json.dumps(about | {"params": {parameter: 10**6}}))
    Deep.made.clear()
    with pytest.raises(EncoderError, match="does not match its recipe: it has 6 tensors, the network many more"):
        load(tmp_path, Deep)
    assert len(Deep.made) < 10_000
    torch.nn.Linear(2, 2)  # others are counted no more


@pytest.mark.parametrize("name", ["encoder.json", "encoder.safetensors", "run.json"])
@pytest.mark.parametrize("kind", ["pipe", "sparse", "directory", "link to a device"])
def test_what_is_no_file_to_read_is_a_plain_message(
    suite: Path, tmp_path: Path, frostbench: Frostbench, name: str, kind: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_of(suite, "pca"), run)
    if kind == "sparse":
        os.truncate(run / name, 2**35)
    else:
        (run / name).unlink()
        if kind == "pipe":
            os.mkfifo(run / name)
        elif kind == "directory":
            (run / name).mkdir()
        else:
            (run / name).symlink_to("/dev/zero")
    status, out, err = frostbench("export", run, "out")
    assert (status, out, "internal error" in err, Path("out").exists()) == (2, "", False, False)
    assert str(run / name) in err


def test_weights_that_were_changed_are_not_loaded(suite: Path, tmp_path: Path) -> None:
    shutil.copytree(run_of(suite, "pca"), tmp_path / "run")
    weights = tmp_path / "run" / "encoder.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(EncoderError, match="changed since it was written"):
        load(tmp_path / "run")
    weights.unlink()
    with pytest.raises(EncoderError, match="cannot be read"):
        load(tmp_path / "run")


@pytest.mark.parametrize(
    "wrong", [torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 9, 9, dtype=torch.uint8), torch.zeros(8, 8, dtype=torch.uint8)]
)
def test_a_loaded_encoder_refuses_what_are_no_images_of_its_own(suite: Path, wrong: torch.Tensor) -> None:
    with pytest.raises(EncoderError, match=r"'pca' reads a uint8 tensor \(n, 1, 8, 8\); got"):
        load(run_of(suite, "pca"))(wrong)


@pytest.mark.parametrize("label", ["bigan", "pca", "kmeans"])
def test_a_loaded_encoder_stays_frozen_as_a_part_of_another_module(
    suite: Path, images: torch.Tensor, label: str
) -> None:
    encoder = load(run_of(suite, label))
    before = encoder(images)
    taps = list(before)
    whole = torch.nn.ModuleDict({"encoder": encoder, "head": torch.nn.Linear(before[taps[-1]].shape[1], 3)})
    whole.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(whole.parameters(), lr=0.1)
    for _ in range(3):
        whole["head"](whole["encoder"](images[:30])[taps[-1]]).square().mean().backward()
        optimizer.step()
        for part in whole.modules():
            part.train()
    assert whole["head"].training
    assert not encoder.training
    assert all(torch.equal(rows, before[tap]) for tap, rows in encoder(images).items())


@pytest.mark.parametrize("label", ["bigan", "pca", "kmeans"])
def test_a_loaded_encoder_can_be_pickled_copied_and_saved(
    suite: Path, images: torch.Tensor, label: str, tmp_path: Path
) -> None:
    encoder = load(run_of(suite, label))
    torch.save(encoder, tmp_path / "encoder.pt")
    others = [pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)]
    for other in [*others, torch.load(tmp_path / "encoder.pt", weights_only=False)]:
        assert all(torch.equal(rows, encoder(images)[tap]) for tap, rows in other(images).items())
        with pytest.raises(EncoderError, match="reads a uint8 tensor"):
            other(images.float())


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["extract", "BIGAN", "--output", "f.npz"], 2, "--tap: wanted one of penultimate, code"),
        (["extract", "BIGAN", "--tap", "kode", "--output", "f.npz"], 2, "got 'kode'"),
        (["extract", "BIGAN", "--tap", "code", "--output", "f.csv"], 2, "ends in .npz or .parquet"),
        (
            ["extract", "BIGAN", "--tap", "code", "--dataset", "mnist5k", "--output", "f.npz"],
            2,
            "takes images (1, 8, 8)",
        ),
        (["extract", "pca", "--output", "f.npz"], 2, "pca needs a dataset to learn from"),
        (["extract", "pcaa", "--dataset", "digits", "--output", "f.npz"], 2, "did you mean 'pca'?"),
        (["extract", ".", "--output", "f.npz"], 2, "is not a run directory"),
        (["export", "absent", "out"], 2, "is not a run directory"),
        (["export", "BARE", "out"], 2, "has no encoder.safetensors"),
    ],
)
def test_what_cannot_be_taken_out_is_said(
    suite: Path, frostbench: Frostbench, tmp_path: Path, arguments: list[str], status: int, words: str
) -> None:
    shutil.copytree(run_of(suite, "pca"), tmp_path / "bare")
    (tmp_path / "bare" / "encoder.safetensors").unlink()
    places = {"BIGAN": str(run_of(suite, "bigan")), "BARE": "bare"}
    came, out, err = frostbench(*(places.get(argument, argument) for argument in arguments))
    assert (came, out) == (status, ""), err
    assert words in err
    assert not list(tmp_path.glob("f.*"))
    assert not Path("out").exists()
