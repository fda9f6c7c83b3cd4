"""Sets that outgrow memory: read, sorted, checked and split a slice at a time, to the same rows as any others."""

import gzip
import io
import subprocess
import sys
import typing as t
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import datasets
from bench.datasets import formats

SHAPE = (64, 64, 3)
Write = t.Callable[[Path, int], str]


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (count, *SHAPE), np.uint8), np.arange(count) % 10


def npz(where: Path, count: int) -> str:
    (train, labels), (test, test_labels) = images(count, 0), images(100, 1)
    np.savez(where / "x.npz", x_train=train, y_train=labels, x_test=test, y_test=test_labels)
    return f"npz:{where}/x.npz"


def bmp(image: np.ndarray) -> bytes:  # decoded in no time
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "BMP")
    return buffer.getvalue()


def folder(where: Path, count: int) -> str:
    for part, size, seed in (("train", count, 0), ("test", 100, 1)):
        for row, (image, label) in enumerate(zip(*images(size, seed))):
            place = where / "folder" / part / str(label)
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{row}.bmp").write_bytes(bmp(image))
    return f"folder:{where}/folder"


def parquet(where: Path, count: int) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (where / "parquet").mkdir()
    for part, size, seed in (("train", count, 0), ("test", 100, 1)):
        pixels, labels = images(size, seed)
        schema = pa.schema([("image", pa.struct([("bytes", pa.binary())])), ("label", pa.int64())])
        with pq.ParquetWriter(where / "parquet" / f"{part}-0.parquet", schema, compression="none") as file:
            for start in range(0, size, 200):
                some = [{"bytes": bmp(image)} for image in pixels[start : start + 200]]
                file.write_table(pa.table({"image": some, "label": labels[start : start + 200]}, schema))
    return f"parquet:{where}/parquet"


def stl10(where: Path, count: int) -> str:
    place = where / "stl10_binary"
    place.mkdir()
    for part, size in (("train", count), ("test", 100)):
        np.random.default_rng(0).integers(0, 256, size * 3 * 96 * 96, np.uint8).tofile(place / f"{part}_X.bin")
        (np.arange(size, dtype=np.uint8) % 10 + 1).tofile(place / f"{part}_y.bin")
    return "stl10"


def mnist(where: Path, count: int) -> str:
    place = where / "MNIST/raw"
    place.mkdir(parents=True)
    for part, size in (("train", count), ("t10k", 100)):
        pixels = np.random.default_rng(0).integers(0, 256, (size, 28, 28), np.uint8)
        header = bytes([0, 0, 8, 3]) + np.array(pixels.shape, ">u4").tobytes()
        with gzip.open(place / f"{part}-images-idx3-ubyte.gz", "wb", 1) as file:
            file.write(header + pixels.tobytes())
        labels = np.arange(size, dtype=np.uint8) % 10
        header = bytes([0, 0, 8, 1]) + np.array(labels.shape, ">u4").tobytes()
        (place / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    return "mnist"


LOAD = """
import sys
from pathlib import Path
from bench import datasets
from bench.datasets import formats

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

few, many, fraction, where = sys.argv[1:]
formats.SLICE //= int(fraction)
datasets.IN_MEMORY //= int(fraction)
datasets._check_published = lambda *_: None
datasets.load(few, root=Path(where, "few"), cache=Path(where, "cache"))  # what the libraries take
before = peak()
roots = {"root": Path(where, "many"), "cache": Path(where, "cache")}
whole = datasets.load(many, **roots)
some = datasets.load(many, split="validation", limit=round(0.6 * len(whole.train)), **roots)
print(whole.train.images.nbytes, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the memory")
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("write", "count", "fraction"),
    [
        (npz, 3_500, 8),
        pytest.param(npz, 14_000, 1, marks=pytest.mark.slow),
        pytest.param(folder, 14_000, 1, marks=pytest.mark.slow),
        pytest.param(parquet, 14_000, 1, marks=pytest.mark.slow),
        pytest.param(stl10, 6_000, 1, marks=pytest.mark.slow),
        pytest.param(mnist, 210_000, 1, marks=pytest.mark.slow),
    ],
)
def test_memory_has_a_bound_however_large_the_set(write: Write, count: int, fraction: int, tmp_path: Path) -> None:
    """160 MB of pixels are decoded, split and limited in half of that; 40 MB likewise with buffers of an eighth."""
    for size in ("few", "many"):
        (tmp_path / size).mkdir()
    few, many = write(tmp_path / "few", 100), write(tmp_path / "many", count)
    command = [sys.executable, "-c", LOAD, few, many, str(fraction), str(tmp_path)]
    pixels, taken = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert pixels > (150e6 if fraction == 1 else 40e6)
    assert taken < (80e6 if fraction == 1 else 20e6)


def test_slices_change_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows at a time, and every selection by way of the cache."""
    name = npz(tmp_path, 230)

    def loaded(cache: str) -> list[datasets.Dataset]:
        validation = {"split": "validation"}
        ways: list[dict[str, t.Any]] = [{}, {"limit": 70}, validation, validation | {"limit": 70}]
        return [datasets.load(name, cache=tmp_path / cache, **way) for way in ways]

    usual = loaded("usual")
    monkeypatch.setattr(formats, "SLICE", 3 * 64 * 64 * 3)
    monkeypatch.setattr(datasets, "IN_MEMORY", 0)
    sliced = loaded("sliced")
    for one, other in [*zip(usual, sliced), *zip(usual, loaded("sliced"))]:
        assert one.fingerprint == other.fingerprint
        for a, b in ((one.train, other.train), (one.test, other.test)):
            assert a.fingerprint == b.fingerprint
            np.testing.assert_array_equal(a.images, b.images)
            np.testing.assert_array_equal(a.labels, b.labels)
    assert len(list((tmp_path / "usual/decoded").iterdir())) == 2
    assert len(list((tmp_path / "sliced/decoded").iterdir())) == 7  # both limited, train in two, the larger limited
