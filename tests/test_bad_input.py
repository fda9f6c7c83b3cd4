"""Nonsense in, one clear sentence out: the exit code says whose mistake it is, and nothing is written."""

import gzip
import io
import struct
import typing as t
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

GOOD = """suite: small
datasets: [digits]
seeds: [0]
encoders: [pixels]
protocols: [linear]
wandb: {mode: off}
"""


@pytest.fixture
def say(frostbench: t.Callable[..., t.Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., str]:
    """Run the command line in an empty directory; it must end with this code, write nothing, and show no traceback."""
    monkeypatch.setenv("FROSTBENCH_DATA", str(tmp_path / "nowhere"))

    def call(code: int, *arguments: str) -> str:
        before = set(tmp_path.rglob("*"))
        done = frostbench(*arguments)
        assert done.code == code, done.err
        assert "Traceback" not in done.err
        assert not done.out
        assert set(tmp_path.rglob("*")) == before
        return str(done.err)

    return call


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[pixels]", "[bigann]", ["small.yaml:4", "bigann", "did you mean 'bigan'?"]),
        ("[pixels]", "[{name: bigan, epoch: 3}]", ["small.yaml:4", "epoch", "epochs"]),
        ("[pixels]", "[{name: bigan, epochs: '3'}]", ["small.yaml:4", "epochs", "'3'"]),
        ("[pixels]", "[{name: bigan, epochs: -1}]", ["small.yaml:4", "epochs", "-1"]),
        ("[pixels]", "[{name: bigan, learning_rate: .nan}]", ["small.yaml:4", "learning_rate", "nan"]),
        ("[pixels]", "[{name: untrained, architecture: bigann}]", ["small.yaml:4", "bigann"]),
        ("[pixels]", "[]", ["small.yaml:4", "encoders"]),
        ("[digits]", "[mnistt]", ["small.yaml:2", "mnistt", "mnist"]),
        ("seeds: [0]", "seeds: [0]\nseeds: [1]", ["small.yaml:4", "seeds"]),
        ("[linear]", "[lineer]", ["small.yaml:5", "lineer", "did you mean 'linear'?"]),
        (GOOD, "", ["small.yaml"]),
        (GOOD, "suite: [", ["small.yaml:1"]),
    ],
)
def test_a_wrong_suite_is_a_usage_error(say: t.Callable[..., str], old: str, new: str, words: list[str]) -> None:
    Path("small.yaml").write_text(GOOD.replace(old, new))
    said = say(2, "run", "small.yaml")
    assert [word for word in words if word not in said] == []


def test_all_mistakes_of_a_file_are_told_at_once(say: t.Callable[..., str]) -> None:
    Path("small.yaml").write_text(GOOD.replace("pixels", "bigann").replace("linear", "lineer").replace("[0]", "[x]"))
    assert len(say(2, "run", "small.yaml").strip().splitlines()) >= 3


def test_a_missing_suite_names_the_nearest(say: t.Callable[..., str]) -> None:
    assert "quickstart" in say(2, "run", "quickstar")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--set", "bigan.epochs=3"], "bigan"),
        (["--set", "precision=float31"], "float32"),
        (["--set", "precision"], "KEY=VALUE"),
        (["--seeds", "5-1"], "5-1"),
        (["--device", "gpu"], "try auto"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--plugin", "absent.py"], "no such file"),
        (["--jobs", "-1"], "--jobs"),
        (["--threads", "100000"], "--threads 100000 is too many"),
        (["--seeds", "x"], "wanted seeds such as"),
    ],
)
def test_wrong_options_are_usage_errors(say: t.Callable[..., str], arguments: list[str], word: str) -> None:
    Path("small.yaml").write_text(GOOD)
    assert word in say(2, "run", "small.yaml", *arguments)


def test_an_output_that_cannot_be_written_is_said_before_any_work(say: t.Callable[..., str]) -> None:
    Path("small.yaml").write_text(GOOD)
    Path("taken").write_text("a file where the directory should be")
    assert "taken" in say(2, "run", "small.yaml", "--output", "taken")


def test_a_dataset_that_is_not_here_says_where_it_looked_and_how_to_get_it(say: t.Callable[..., str]) -> None:
    Path("small.yaml").write_text(GOOD.replace("digits", "mnist"))
    said = say(4, "run", "small.yaml", "--offline")
    assert str(Path("nowhere").absolute()) in said
    assert "--offline" in said


def idx(array: np.ndarray[t.Any, t.Any]) -> bytes:
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def write_mnist(root: Path, images: bytes, labels: bytes) -> None:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))


PIXELS = np.zeros((20, 28, 28))
LABELS = np.arange(20) % 10


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (idx(PIXELS)[:-100], idx(LABELS)),  # truncated
        (b"\0\0\x0d\x03" + idx(PIXELS)[4:], idx(LABELS)),  # floats, says the magic number
        (b"GARBAGE" + idx(PIXELS), idx(LABELS)),
        (idx(PIXELS), idx(np.full(20, 200))),  # no such digit
        (idx(PIXELS), idx(LABELS[:10])),  # half of them
        (idx(PIXELS), idx(LABELS)),  # whole, but not MNIST
    ],
)
def test_damaged_idx_files_are_refused_and_named(say: t.Callable[..., str], images: bytes, labels: bytes) -> None:
    Path("small.yaml").write_text(GOOD.replace("digits", "mnist"))
    write_mnist(Path("data"), images, labels)
    assert "MNIST" in say(4, "run", "small.yaml", "--data-root", "data", "--offline")


def png(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_npz_with_pickled_objects_is_refused(say: t.Callable[..., str]) -> None:
    np.savez("bad.npz", x_train=np.array([{"a": 1}], dtype=object), y_train=LABELS, x_test=PIXELS, y_test=LABELS)
    Path("small.yaml").write_text(GOOD.replace("digits", "'npz:bad.npz'"))
    assert "bad.npz" in say(4, "run", "small.yaml")


def test_a_train_set_of_one_class_is_refused(say: t.Callable[..., str]) -> None:
    images = PIXELS.astype(np.uint8)
    np.savez("one.npz", x_train=images, y_train=np.zeros(20, int), x_test=images, y_test=np.zeros(20, int))
    Path("small.yaml").write_text(GOOD.replace("digits", "'npz:one.npz'"))
    assert "class" in say(4, "run", "small.yaml")


def test_a_folder_without_images_is_refused(say: t.Callable[..., str]) -> None:
    Path("empty/cats").mkdir(parents=True)
    Path("small.yaml").write_text(GOOD.replace("digits", "'folder:empty'"))
    assert "empty" in say(4, "run", "small.yaml")


def test_an_image_that_does_not_decode_is_named(say: t.Callable[..., str]) -> None:
    for name, colour in [("cats", 0), ("dogs", 255)]:
        Path("pets", name).mkdir(parents=True)
        for number in range(5):
            Path("pets", name, f"{number}.png").write_bytes(png(colour + (number if colour == 0 else -number)))
    Path("pets/dogs/3.png").write_bytes(b"not a picture")
    Path("small.yaml").write_text(GOOD.replace("digits", "'folder:pets'"))
    assert "3.png" in say(4, "run", "small.yaml")


OWN = """
import typing as t
from torch import nn
from encoders.base import Encoder, frozen


class Net(nn.Module):
    def forward(self, images):
        features = images.flatten(1).float()
        return {TAP: features - features.mean(0) if BATCH else features}


class Mine(Encoder):
    source: t.ClassVar[str] = "me"
    FIELD

    @property
    def taps(self):
        return (TAP,)

    def build(self, shape):
        return Net()

    def fit(self, data, run):
        return frozen(Net())
"""


@pytest.mark.parametrize(
    ("tap", "batch", "field", "words"),
    [
        ("'a'", True, "", "depend on the other images of its batch"),
        ("'a/b'", False, "", "cannot be part of a path"),
        ("'a'", False, "width: int", "width: Field required"),
        ("'a'", False, "x: t.ClassVar[int] = 1", None),
    ],
)
def test_check_names_the_promise_that_is_broken(
    say: t.Callable[..., str], tap: str, batch: bool, field: str, words: str | None
) -> None:
    source = OWN.replace("TAP", tap).replace("BATCH", str(batch)).replace("FIELD", field)
    Path("mine.py").write_text(source)
    if words:
        assert words in say(2, "check", "mine.py")


def test_an_encoder_without_a_source_is_refused(say: t.Callable[..., str]) -> None:
    Path("mine.py").write_text(OWN.replace('source: t.ClassVar[str] = "me"', "").replace("FIELD", ""))
    assert "wanted `source" in say(2, "check", "mine.py")


def test_an_unknown_name_is_answered_by_the_nearest(say: t.Callable[..., str]) -> None:
    assert "did you mean 'bigan'?" in say(2, "describe", "bigann")
    assert "absent" in say(2, "leaderboard", "absent")
    assert "suite.json" in say(2, "sync", "absent")


BUG = """from encoders.pixels import Pixels
class Mine(Pixels):
    def fit(self, data, run):
        1 / 0
"""
NAN = """from encoders.base import frozen
from encoders.pixels import Pixels
class Mine(Pixels):
    def fit(self, data, run):
        module = frozen(self.build(data.shape))
        module.register_forward_hook(lambda _module, _given, taps: {"pixels": taps["pixels"] * float("nan")})
        return module
"""


@pytest.mark.parametrize("words", ["check mine.py", "extract mine --plugin mine.py --dataset digits --output f.npz"])
def test_a_bug_in_ones_own_encoder_is_named_by_its_line(words: str, frostbench: t.Callable[..., t.Any]) -> None:
    Path("mine.py").write_text(BUG)
    done = frostbench(*words.split())
    assert done.code in (1, 2)
    assert "ZeroDivisionError: division by zero (mine.py, line 4)" in done.err
    assert "internal" not in done.err


def test_nan_features_of_ones_own_encoder_are_called_that(frostbench: t.Callable[..., t.Any]) -> None:
    Path("mine.py").write_text(NAN)
    assert "Mine gives NaN or infinity at tap 'pixels'" in frostbench("check", "mine.py").err
    suite = ["smoke", "--limit", "100", "--set", "encoders=[mine]", "--set", "wandb.mode=off", "--plugin", "mine.py"]
    done = frostbench("run", *suite)
    assert "encoder 'mine', tap 'pixels': " in done.err
    assert " images have NaN or infinite features" in done.err
    assert "atol" not in done.err
