"""Freezing is proved: whatever would give other features another time, or in another batch, is refused by name."""

import dataclasses
import errno
import math
import shutil
import typing as t
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from bench import launch
from bench.pipeline import extract as extraction
from bench.pipeline.extract import NotFrozen, features_on_disk, weights_hash
from encoders.base import Encoder, EncoderError, Features, ImageSet, Training, frozen
from encoders.bigan import BiGAN
from encoders.check import check_encoder
from encoders.untrained import Untrained
from protocols.base import FeatureSet
from results import files, predictions, store

CPU = torch.device("cpu")
RANDOM = np.random.default_rng(0)
IMAGES = ImageSet(RANDOM.integers(0, 256, (1100, 1, 4, 4), dtype=np.uint8), None, ("a", "b"), "random")


class Net(nn.Module):
    """Sixteen pixels through a layer and whatever a test adds."""

    def __init__(self, then: t.Callable[[nn.Module, Tensor], Tensor] = lambda _, x: x) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(16, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.then = then

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.then(self, self.layer(images.flatten(1).float() / 255))}


def extract(*given: t.Any) -> Features:
    """All batches in one."""
    batches = [batch for _, batch in extraction.extract(*given)]
    return {tap: torch.cat([batch[tap] for batch in batches]) for tap in batches[0]}


def test_features_are_those_of_each_image_in_order() -> None:
    net = frozen(Net())
    features = extract("net", net, IMAGES, ("out",), CPU)["out"]
    pixels = torch.from_numpy(IMAGES.images).flatten(1).float() / 255
    assert features.dtype == torch.float32
    assert torch.allclose(features, net.layer(pixels), atol=1e-6)


def test_a_module_in_training_mode_is_refused() -> None:
    net = frozen(Net())
    net.layer.train()
    with pytest.raises(NotFrozen, match="encoder 'net' is not frozen: in training mode: layer"):
        extract("net", net, IMAGES, ("out",), CPU)


def test_a_module_that_still_learns_is_refused() -> None:
    net = frozen(Net())
    net.layer.weight.requires_grad_(True)
    with pytest.raises(NotFrozen, match=r"parameters require gradients: layer\.weight"):
        extract("net", net, IMAGES, ("out",), CPU)


def count(net: nn.Module, x: Tensor) -> Tensor:
    net.calls += 1
    return x


def test_a_module_that_changes_its_buffers_is_refused() -> None:
    with pytest.raises(NotFrozen, match="parameters or buffers changed"):
        extract("net", frozen(Net(count)), IMAGES, ("out",), CPU)


def test_features_that_depend_on_the_batch_are_refused() -> None:
    with pytest.raises(NotFrozen, match="at tap 'out' an image's features depend on the other images"):
        extract("net", frozen(Net(lambda _, x: x - x.mean(dim=0))), IMAGES, ("out",), CPU)


@pytest.mark.parametrize(
    "then",
    [
        lambda _, x: x - x[:1],
        lambda _, x: x - x[:8].mean(dim=0),
        lambda _, x: x / len(x),
        lambda _, x: x.flip(0),
    ],
    ids=["first of the batch", "first eight", "size of the batch", "place in the batch"],
)
def test_features_that_depend_on_the_batch_in_other_ways_are_refused(then: t.Callable[..., Tensor]) -> None:
    with pytest.raises(NotFrozen, match="depend on the other images"):
        extract("net", frozen(Net(then)), IMAGES, ("out",), CPU)


LOW_CONTRAST = dataclasses.replace(IMAGES, images=200 + IMAGES.images // 64)


class Sharp(Net):
    """Normalized by the deviation of images that hardly differ, so that rounding is seen in the features."""

    def __init__(self, then: t.Callable[[nn.Module, Tensor], Tensor] = lambda _, x: x) -> None:
        super().__init__(then)
        pixels = torch.from_numpy(LOW_CONTRAST.images).flatten(1) / 255
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.wide, self.norm = nn.Linear(16, 512), nn.BatchNorm1d(512, eps=1e-12, momentum=None)
        self.wide.weight.data += 30  # what all pixels have in common outweighs what tells them apart
        with torch.no_grad():
            self.norm(self.wide(pixels))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.then(self, self.norm(self.wide(images.flatten(1) / 255)))}


def test_rounding_that_a_tiny_deviation_magnifies_is_no_dependence_on_the_batch() -> None:
    rows = extract("sharp", frozen(Sharp()), LOW_CONTRAST, ("out",), CPU)["out"]
    alone = frozen(Sharp())(torch.from_numpy(LOW_CONTRAST.images[:1]))["out"]
    assert not torch.allclose(rows[:1], alone, 1e-4, 1e-5 * float(rows[:8].abs().max()))  # it is not the usual rounding


@pytest.mark.parametrize(
    "then",
    [lambda _, x: x + 0.02 * x.mean(dim=0), lambda _, x: nn.functional.dropout(x, 0.01)],
    ids=["batch", "chance"],
)
def test_dependence_on_the_batch_is_found_where_rounding_is_magnified(then: t.Callable[..., Tensor]) -> None:
    with torch.random.fork_rng(), pytest.raises(NotFrozen, match="depend on the other images"):
        extract("sharp", frozen(Sharp(then)), LOW_CONTRAST, ("out",), CPU)


@pytest.mark.parametrize("recipe", [BiGAN(epochs=1, hidden=32), Untrained(parameters={"hidden": 32})], ids=repr)
def test_our_encoders_are_frozen_on_images_of_low_contrast(recipe: Encoder) -> None:
    images = (200 + load_digits().images[:300]).astype(np.uint8).reshape(-1, 1, 8, 8)
    low = ImageSet(images, None, ("a",), "low contrast")
    check_encoder(recipe, low)
    extract("ours", recipe.fit(low, Training(0)), low, recipe.taps, CPU)


def test_features_that_change_from_call_to_call_are_refused() -> None:
    calls = iter(range(1000))
    drift = frozen(Net(lambda _, x: x + 1e-6 * next(calls) ** 3))  # too slow to be seen between two calls
    with pytest.raises(NotFrozen, match=r"gave other features later|depend on"):
        extract("net", drift, IMAGES, ("out",), CPU)


def test_features_that_depend_on_chance_are_refused() -> None:
    with torch.random.fork_rng(), pytest.raises(NotFrozen, match="or on chance"):
        extract("net", frozen(Net(lambda _, x: nn.functional.dropout(x, 0.5))), IMAGES, ("out",), CPU)


def test_features_that_are_not_finite_are_refused() -> None:
    for broken in (lambda _, x: x / 0, lambda _, x: x * math.nan):
        with pytest.raises(EncoderError, match="tap 'out': 1100 of 1100 images have NaN or infinite features"):
            extract("net", frozen(Net(broken)), IMAGES, ("out",), CPU)


def test_taps_must_be_those_promised() -> None:
    with pytest.raises(EncoderError, match="promised the taps code and gave out"):
        extract("net", frozen(Net()), IMAGES, ("code",), CPU)


def test_features_must_be_rows() -> None:
    with pytest.raises(EncoderError, match=r"features must be \(n, d\)"):
        extract("net", frozen(Net(lambda _, x: x[:, :, None])), IMAGES, ("out",), CPU)


def test_the_hash_sees_every_parameter_and_buffer() -> None:
    net = frozen(Net())
    before = weights_hash(net)
    assert before == weights_hash(net)
    net.calls += 1
    assert weights_hash(net) != before


# ---- on disk ----------------------------------------------------------------------------------------------------

PARTS = {"train": IMAGES, "test": dataclasses.replace(IMAGES, images=IMAGES.images[:100], fingerprint="some of them")}


class Calls(Net):
    """Counts the images that pass through."""

    images = 0

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        Calls.images += len(images)
        return super().forward(images)


def made(directory: Path, net: nn.Module, parts: dict[str, ImageSet] = PARTS) -> tuple[dict[str, Features], bool]:
    """The features, and whether the images passed through the module for them."""
    Calls.images = 0
    found = features_on_disk(directory, "net", net, parts, ("out",), CPU)
    return found, Calls.images > 0


def test_features_on_disk_are_the_features_and_are_made_once(tmp_path: Path) -> None:
    net = frozen(Calls())
    for expected in (True, False):
        found, anew = made(tmp_path / "features", net)
        assert anew is expected
        assert list(found) == list(PARTS)
        for part, images in PARTS.items():
            assert torch.equal(found[part]["out"], extract("net", net, images, ("out",), CPU)["out"])
    assert np.load(tmp_path / "features/out/train.npy").shape == (1100, 3)
    assert {path.name for path in tmp_path.iterdir()} == {"features"}


def test_other_weights_other_images_and_another_version_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, other = frozen(Calls()), frozen(Calls())
    with torch.no_grad():
        other.layer.bias += 1
    made(tmp_path / "features", net)
    found, anew = made(tmp_path / "features", other)
    assert anew
    assert torch.equal(found["train"]["out"], extract("net", other, IMAGES, ("out",), CPU)["out"])
    flipped = dataclasses.replace(IMAGES, images=IMAGES.images[::-1].copy(), fingerprint="flipped")
    found, anew = made(tmp_path / "features", other, PARTS | {"test": flipped})
    assert anew
    assert torch.equal(found["test"]["out"], found["train"]["out"].flip(0))
    monkeypatch.setattr(extraction, "VERSION", 999)
    assert made(tmp_path / "features", other, PARTS | {"test": flipped})[1]


@pytest.mark.parametrize(
    "way",
    [
        "a row of zeros",
        "cut",
        "a file gone",
        "a header elsewhere",
        "no header",
        "no index",
        "an index of something else",
    ],
)
def test_features_that_are_not_whole_are_made_again(way: str, tmp_path: Path) -> None:
    net, path = frozen(Calls()), tmp_path / "features/out/train.npy"
    first, _ = made(tmp_path / "features", net)
    before = first["train"]["out"].clone()
    content = path.read_bytes()
    if way == "a row of zeros":
        path.write_bytes(content[:-12] + bytes(12))
    elif way == "cut":
        path.write_bytes(content[:-12])
    elif "header" in way:  # one bit says that it ends earlier, another that it is no Python
        byte, bit = (8, 5) if way == "a header elsewhere" else (10, 1)
        path.write_bytes(content[:byte] + bytes([content[byte] ^ 1 << bit]) + content[byte + 1 :])
    elif way == "a file gone":
        path.unlink()
    elif way == "no index":
        (tmp_path / "features/features.json").unlink()
    else:
        (tmp_path / "features/features.json").write_text("[]")
    found, anew = made(tmp_path / "features", net)
    assert anew
    assert torch.equal(found["train"]["out"], before)
    assert path.read_bytes() == content


def test_a_protocol_reads_the_map_itself_and_can_change_no_file(tmp_path: Path) -> None:
    found, _ = made(tmp_path / "features", frozen(Net()))
    rows = found["train"]["out"]
    judged = FeatureSet(rows, torch.zeros(len(rows), dtype=torch.int64), 1)
    assert judged.features.data_ptr() == rows.data_ptr()
    before = (tmp_path / "features/out/train.npy").read_bytes()
    judged.features.zero_()
    assert (tmp_path / "features/out/train.npy").read_bytes() == before
    assert made(tmp_path / "features", frozen(Net()))[0]["train"]["out"].any()


def test_features_stay_readable_when_their_files_are_deleted(tmp_path: Path) -> None:
    found, _ = made(tmp_path / "features", frozen(Net()))
    before = found["test"]["out"].clone()
    shutil.rmtree(tmp_path / "features")
    assert torch.equal(found["test"]["out"], before)


def test_a_full_disk_says_so_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, path: Path) -> None:
            self.file = path.open("xb")

        def write(self, rows: memoryview) -> None:
            if len(rows) > 128:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.file.write(rows)

        def close(self) -> None:
            self.file.close()

    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, mode="r", **more: Full(path) if mode == "wb" else real(path, mode, **more)
    )
    with pytest.raises(files.Unwritable, match=r"disk full, .*train\.npy is not written: make room"):
        made(tmp_path / "features", frozen(Net()))
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="NaN"):
        made(tmp_path / "features", frozen(Net(lambda _, x: x / 0)))
    assert list(tmp_path.iterdir()) == []


def test_the_batch_is_the_largest_power_of_two_whose_layers_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    # An image takes 16 bytes and its one layer 3 float32: 28. The module itself gives a dict, which holds no more.
    monkeypatch.setattr(extraction, "MEMORY", {"cpu": 28 * 64 + 27})
    sizes = [len(batch["out"]) for _, batch in extraction.extract("net", frozen(Net()), IMAGES, ("out",), CPU)]
    assert sizes == [64] * 17 + [1100 - 17 * 64]


# ---- in a run ---------------------------------------------------------------------------------------------------

SUITE = """
suite: small
datasets: [{name: digits, limit: 100}]
seeds: [0]
encoders: [pixels]
protocols: [{name: knn, k: 1}]
wandb: {mode: off}
"""


def run_small(tmp_path: Path, overrides: t.Sequence[str] = (), **how: t.Any) -> list[Path]:
    """The suite run; what its one run keeps of its features."""
    (tmp_path / "small.yaml").write_text(SUITE)
    suite = launch.read(str(tmp_path / "small.yaml"), overrides, "", 0, [])
    launched = launch.launch(
        suite,
        launch.settings(
            output=tmp_path / "runs", threads=1, device="cpu", data_root=None, offline=True, plugins=[], **how
        ),
    )
    assert launched.failed == 0
    return sorted(path.relative_to(tmp_path) for path in tmp_path.glob("runs/small/*/*/*/features/*"))


def test_features_of_a_run_that_has_all_its_scores_are_removed(tmp_path: Path) -> None:
    assert run_small(tmp_path) == []
    assert list(tmp_path.rglob("*.tmp")) == []


def test_features_that_were_kept_serve_a_protocol_that_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = run_small(tmp_path, keep_features=True)
    assert [path.name for path in kept] == ["features.json", "kept", "pixels"]
    monkeypatch.setattr(extraction, "extract", lambda *_: pytest.fail("extracted again"))
    assert run_small(tmp_path, ["protocols=[{name: knn, k: 3}]"], keep_features=True) == kept
    assert run_small(tmp_path, ["protocols=[{name: knn, k: 5}]"]) == kept  # nobody asked to have them deleted


def test_a_run_that_was_stopped_goes_on_with_its_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: t.Any, **__: t.Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(predictions, "to_npz", stop)
        with pytest.raises(KeyboardInterrupt):
            run_small(tmp_path)
    monkeypatch.setattr(extraction, "extract", lambda *_: pytest.fail("extracted again"))
    assert run_small(tmp_path) == []
    assert len(store.read_store(tmp_path / "runs").records) == 1


def test_what_a_killed_extraction_left_is_swept(tmp_path: Path) -> None:
    left = tmp_path / f".frostbench-{files._here()}-999999999-00000000.tmp"
    (left / "out").mkdir(parents=True)
    (left / "out/train.npy").write_bytes(b"half")
    assert files.sweep(tmp_path) == 1
    assert not left.exists()
