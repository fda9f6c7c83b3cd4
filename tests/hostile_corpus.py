"""Files that mean ill or are broken, made here, and what reads each: `read_all` tells how every one of them went.

Run as a program with a directory to work in; prints a line of JSON. Loaded by test_hostile.py.
"""

import contextlib
import gzip
import io
import json
import os
import pickle
import random
import resource
import struct
import sys
import time
import typing as t
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from PIL import Image

from bench import datasets
from bench.datasets import formats
from bench.datasets.formats import DataError
from bench.errors import ConfigError
from bench.suites.reading import read_suite
from encoders import checkpoint
from encoders.base import EncoderError
from protocols.base import ProtocolError
from results import files, store
from results.files import StoreError
from results.record import Provenance, Record

TYPED = (ConfigError, DataError, EncoderError, ProtocolError, StoreError)
CANARY = "executed"
MEGABYTE = bytes(10**6)


class Touch:
    """Unpickled, this leaves a file behind."""

    def __reduce__(self) -> tuple[t.Any, tuple[str, ...]]:
        return os.system, (f"touch {CANARY}",)


Case = tuple[str, str, bytes, t.Callable[[Path], object]]  # kind, name, content, what reads it


# ---- whole ones, to be damaged ----------------------------------------------------------------------------------

SUITE = b"""suite: small
datasets: [{name: digits, limit: 100}]
seeds: [0, 1]
encoders: [pixels, {name: bigan, epochs: 2}]
protocols: [linear, {name: knn, k: 1}]
wandb: {mode: off}
"""


def whole_idx(count: int = 20) -> bytes:
    return struct.pack(">4B3I", 0, 0, 8, 3, count, 8, 8) + bytes(range(64)) * count


def whole_npz() -> bytes:
    buffer = io.BytesIO()
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    labels = np.arange(20) % 2
    np.savez(buffer, train_images=images, train_labels=labels, test_images=images[:6], test_labels=labels[:6])
    return buffer.getvalue()


def png(side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def parquet(images: list[bytes], **columns: t.Any) -> bytes:
    labels = [row % 2 for row in range(len(images))]
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": pa.array(images, pa.binary()), "label": labels} | columns), buffer)
    return buffer.getvalue()


def whole_record(path: Path) -> bytes:
    made = Provenance(
        commit=None, dirty=None, versions={}, device="here", threads=1, precision="float32", started="2026-01-01"
    )
    record = Record(
        suite="small", key="0" * 16, dataset="digits", split="test", limit=None, fingerprint="f", train_images=9,
        test_images=9, encoder="pixels", label="pixels", params={}, encoder_version=1, is_control=True, seed=0,
        status="done", tap="pixels", protocol="knn", protocol_label="knn", protocol_version=1, metrics={"top1": 0.5},
        seconds={}, provenance=made,
    )  # fmt: skip
    store.publish_record(path, record)
    return path.read_bytes()


EXPECTED = {"weight": torch.zeros(3, 4), "bias": torch.zeros(4)}


def whole_checkpoint() -> bytes:
    facts = checkpoint.CheckpointMetadata(
        environment={"run": "key"}, training=1, step=3, read=3, read_before=0, index=3, taken=[3], history=[],
        epoch_seconds=1.0, seconds=1.0,
    )  # fmt: skip
    return checkpoint.to_bytes(facts, EXPECTED)


# ---- readers ----------------------------------------------------------------------------------------------------


def read_checkpoint(path: Path) -> object:
    return checkpoint.from_bytes(path.read_bytes(), EXPECTED)


def read_data(form: str) -> t.Callable[[Path], object]:
    def read(path: Path) -> object:
        place = path if form == "npz" else path.parent
        return datasets.load(f"{form}:{place}", cache=path.parent / "cache", offline=True)

    return read


def read_folder(path: Path) -> object:
    """The file is one of two images of a class; the others are well."""
    root = path.parent / "images"
    for number in range(12):
        folder = root / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(png())
    (root / "0" / path.name).write_bytes(path.read_bytes())
    return datasets.load(f"folder:{root}", cache=path.parent / "cache", offline=True)


def read_idx(path: Path) -> object:
    return formats.read_idx(path, 3)


def read_in_store(path: Path) -> object:
    """As a record among others: `read_store` must name it and go on."""
    contents = store.read_store(path.parents[2])
    if contents.damaged:
        raise StoreError(str(contents.damaged))
    return contents


# ---- what is wrong with them ------------------------------------------------------------------------------------


def damaged(content: bytes) -> t.Iterator[tuple[str, bytes]]:
    """The same for every kind of file: cut, flipped, overwritten, doubled, replaced."""
    draw = random.Random(len(content))
    for share in (0.0, 0.01, 0.1, 0.5, 0.9, 0.99):
        yield f"cut at {share:.0%}", content[: int(share * len(content))]
    yield "without its last byte", content[:-1]
    yield "zeros", bytes(len(content))
    yield "ones", b"\xff" * len(content)
    yield "noise", draw.randbytes(len(content))
    yield "twice", content + content
    yield "with a tail of zeros", content + bytes(1000)
    yield "backwards", content[::-1]
    for share in (0.02, 0.3, 0.6, 0.95):
        at = int(share * len(content))
        yield f"a bit flipped at {share:.0%}", content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]
        yield f"16 bytes lost at {share:.0%}", content[:at] + content[at + 16 :]
    yield "a pickle", pickle.dumps(Touch())
    yield "a tag that runs code", f"!!python/object/apply:os.system ['touch {CANARY}']".encode()


def suites() -> t.Iterator[tuple[str, bytes]]:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)}, *{chr(97 + i)}]\n" for i in range(20)
    )
    merge = "a: &a {k: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [{', '.join(['*a'] * 9)}]}}\n" for i in range(9))
    texts = {
        "alias bomb": bomb,
        "merge bomb": merge,
        "loop": "&a [*a]",
        "deep": "[" * 100_000,
        "deep mapping": "{a: " * 100_000,
        "deep blocks": "- " * 100_000,
        "complex keys": "? " * 100_000,
        "large": "a" * 3_000_000,
        "many values": "- 1\n" * 200_000,
        "many keys": "".join(f"k{i}: 1\n" for i in range(100_000)),
        "many documents": "---\na\n" * 50_000,
        "digits": "seeds: [" + "1" * 1_000_000 + "]",
        "exponent": "seeds: [1e999999999]",
        "module": "!!python/module:os",
        "object": f"!!python/object/new:os.system ['touch {CANARY}']",
        "date": "suite: 2026-01-01",
        "no": "suite: no",
        "null byte": "suite: a\0b",
        "surrogate": 'suite: "\\ud800"',
        "suite name with a path": SUITE.decode().replace("suite: small", "suite: ../../outside"),
        "absolute suite name": SUITE.decode().replace("suite: small", "suite: /tmp/outside"),
        "label with a path": SUITE.decode().replace("epochs: 2", "label: ../../outside"),
        "label of dots": SUITE.decode().replace("epochs: 2", "label: .."),
        "protocol label with a path": SUITE.decode().replace("k: 1", "label: ../x"),
        "encoder by path": SUITE.decode().replace("name: bigan", "name: os.system"),
        "a million seeds": SUITE.decode().replace("[0, 1]", "0-999999999"),
        "negative": SUITE.decode().replace("epochs: 2", "epochs: -1"),
        "not a number": SUITE.decode().replace("epochs: 2", "epochs: .nan"),
        "environment": SUITE.decode().replace("small", "${oc.env:HOME}"),
        "doubled key": SUITE.decode() + "suite: other\n",
    }
    for name, text in texts.items():
        yield name, text.encode(errors="surrogatepass")


def tensors() -> t.Iterator[tuple[str, bytes]]:
    def of(header: t.Any, body: bytes = b"", length: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + body

    entry = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}
    yield "header of 2**62 bytes", of(b"{}", length=2**62)
    yield "header of 100 MB", of(b"{}", length=10**8)
    yield "shape of 10**6 x 10**6", of({"weight": {**entry, "shape": [10**6, 10**6]}}, bytes(48))
    yield "offsets that overlap", of({"weight": entry, "bias": {**entry, "shape": [4]}}, bytes(48))
    yield "offsets backwards", of({"weight": {**entry, "data_offsets": [48, 0]}}, bytes(48))
    yield "negative shape", of({"weight": {**entry, "shape": [-3, 4]}}, bytes(48))
    yield "unknown type", of({"weight": {**entry, "dtype": "PY"}}, bytes(48))
    yield "deep header", of(b"[" * 100_000)
    yield "no facts", safetensors.torch.save(EXPECTED)
    for name, facts in {
        "facts that are a list": b"[]",
        "facts of the wrong types": b'{"step": "3"}',
        "facts with a huge number": b'{"step": ' + b"9" * 10_000 + b"}",
        "facts that are infinite": b'{"seconds": Infinity}',
        "facts that nest": b"[" * 200_000,
    }.items():
        document = torch.frombuffer(bytearray(facts), dtype=torch.uint8)
        yield name, safetensors.torch.save({**EXPECTED, "facts": document})
    yield "a pickle of torch", _torch_save()


def _torch_save() -> bytes:
    buffer = io.BytesIO()
    torch.save(Touch(), buffer)
    return buffer.getvalue()


def records(whole: bytes) -> t.Iterator[tuple[str, bytes]]:
    value = json.loads(whole)
    for name, change in {
        "another metric": {"metrics": {"top1": 0.9}},
        "a metric above one": {"metrics": {"top1": 2.0}},
        "another schema": {"schema_version": 2},
        "no hash": {"sha256": None},
        "a field too many": {"extra": 1},
        "a path as label": {"label": "../../outside"},
    }.items():
        yield name, json.dumps(value | change).encode()
    yield "not a number", whole.replace(b"0.5", b"NaN")
    yield "deep", b"[" * 1_000_000
    yield "large", b'{"a": "' + b"a" * (17 * 2**20) + b'"}'
    yield "a huge number", b'{"sha256": "x", "schema_version": ' + b"1" * 100_000 + b"}"
    yield "a list", b"[]"
    yield "latin 1", "{'ü'}".encode("latin-1")


def archives() -> t.Iterator[tuple[str, bytes]]:
    def zipped(members: dict[str, bytes], megabytes: int = 0) -> bytes:
        """megabytes: of zeros behind each member of images."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, content in members.items():
                with archive.open(name, "w") as member:
                    member.write(content)
                    member.writelines([MEGABYTE] * megabytes * name.endswith("images.npy"))
        return buffer.getvalue()

    def array(shape: str, kind: str = "|u1", body: bytes = b"") -> bytes:
        header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body

    labels = array("(20,)", "<i8", bytes(160))
    names = ("train_images", "train_labels", "test_images", "test_labels")

    def of(images: bytes) -> bytes:
        return zipped(dict(zip((f"{name}.npy" for name in names), (images, labels, images, labels))))

    bomb = array("(20, 4000, 4000)")
    yield (
        "a bomb of 300 MB",
        zipped(dict(zip((f"{name}.npy" for name in names), (bomb, labels, bomb, labels))), megabytes=320),
    )
    yield "a shape of 10**15", of(array("(1000000, 1000000, 1000)"))
    yield "a shape of 10**30", of(array(f"({10**10}, {10**10}, {10**10})"))
    yield "a negative shape", of(array("(-20, 8, 8)"))
    yield "an object array", of(array("(1,)", "|O", pickle.dumps([Touch()])))
    yield "a header that is code", of(array("__import__('os').system('touch executed')"))
    yield "a deep header", of(array("(" * 90))
    yield "structured", of(array("(2,)", "|V8", bytes(16)))
    yield "names with paths", zipped({"../../outside.npy": labels, "/tmp/outside.npy": labels})
    yield "no arrays", zipped({})
    yield "text in place of arrays", zipped({f"{name}.npy": b"hello" for name in names})
    yield "one array", array("(2, 2)", body=bytes(4))
    yield "floats", of(array("(20, 1, 1)", "<f8", bytes(160)))
    yield "not finite floats", of(array("(20, 1, 1)", "<f8", struct.pack("<20d", *[float("nan")] * 20)))


def images() -> t.Iterator[tuple[str, bytes]]:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    def claiming(width: int, height: int, body: bytes) -> bytes:
        header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")

    yield "a bomb of 30,000 x 30,000", claiming(30_000, 30_000, zlib.compress(bytes(10**6)))
    yield "a bomb of 4 GB a side", claiming(2**31 - 1, 2**31 - 1, zlib.compress(b""))
    yield "no pixels", claiming(0, 0, zlib.compress(b""))
    yield "another size", png(16)
    compressor = zlib.compressobj(9)
    text = b"k\0\0" + b"".join(compressor.compress(MEGABYTE) for _ in range(200)) + compressor.flush()
    whole = png()
    yield "a text that inflates", whole[:33] + chunk(b"zTXt", text) + whole[33:]
    yield "PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(touch executed) system\n"
    yield "SVG", b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
    gif = io.BytesIO()
    Image.new("L", (8, 8)).save(gif, "GIF")
    yield "GIF", gif.getvalue()
    colour = io.BytesIO()
    Image.new("RGBA", (8, 8)).save(colour, "PNG")
    yield "transparent", colour.getvalue()


def tables() -> t.Iterator[tuple[str, bytes]]:
    yield "no images", parquet([])
    yield "images that are none", parquet([b"hello"] * 4)
    yield "empty images", parquet([b""] * 4)
    yield "two columns of images", parquet([png()] * 4, other=pa.array([png()] * 4, pa.binary()))
    large = png(200)
    many = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), pa.array([large], pa.binary()))
    buffer = io.BytesIO()
    plain = pa.table({"image": many, "label": np.arange(100_000) % 2})
    pq.write_table(plain, buffer, store_schema=False)
    yield "one image in 100,000 rows", buffer.getvalue()
    buffer = io.BytesIO()
    zeros = pa.table({"image": pa.array([bytes(400_000_000)]), "label": [0]})
    pq.write_table(zeros, buffer, compression="zstd", use_dictionary=False, write_statistics=False)
    yield "an image of 400 MB of zeros", buffer.getvalue()
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": pa.array([png()] * 4), "label": ["a", "b", "a", "b"]}), buffer)
    yield "labels that are words", buffer.getvalue()
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": pa.array([png(), None]), "label": [0, 1]}), buffer)
    yield "a row without an image", buffer.getvalue()
    buffer = io.BytesIO()
    table = pa.table({"image": pa.array([png()] * 4), "label": [0, 1, 0, 1]})
    pq.write_table(table.replace_schema_metadata({b"huggingface": b"[" * 100_000}), buffer)
    yield "deep metadata", buffer.getvalue()


def headers() -> t.Iterator[tuple[str, bytes]]:
    def claiming(*shape: int) -> bytes:
        return struct.pack(">4B3I", 0, 0, 8, 3, *shape) + bytes(1280)

    yield "2**32 images", claiming(2**32 - 1, 8, 8)
    yield "images of 2**32 pixels a side", claiming(1, 2**32 - 1, 2**32 - 1)
    yield "more than there are", claiming(21, 8, 8)
    yield "fewer than there are", claiming(19, 8, 8)
    yield "2 GB", claiming(2**21, 32, 32)
    yield "another type", struct.pack(">4B3I", 0, 0, 0x0D, 3, 20, 8, 8) + bytes(1280)
    yield "another number of dimensions", struct.pack(">4B4I", 0, 0, 8, 4, 20, 1, 8, 8) + bytes(1280)


def zipped_headers() -> t.Iterator[tuple[str, bytes]]:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9) as file:
        file.write(struct.pack(">4B3I", 0, 0, 8, 3, 300_000, 32, 32))
        file.writelines([MEGABYTE[:307_200]] * 1000)
    yield "a bomb of 300 MB", buffer.getvalue()
    yield "not gzip", whole_idx()
    yield "cut", gzip.compress(whole_idx())[:-20]


def corpus(place: Path) -> t.Iterator[Case]:
    record = whole_record(place / "whole.json")
    run = {"schema_version": 1, "weights_sha256": "0"}
    hashed = files.canonical(run | {"sha256": store._digest(place, run)})
    kinds: dict[str, tuple[bytes, t.Callable[[Path], object], t.Iterator[tuple[str, bytes]]]] = {
        "suite.yaml": (SUITE, lambda path: read_suite(str(path)), suites()),
        "state.safetensors": (whole_checkpoint(), read_checkpoint, tensors()),
        "record.json": (record, store.read_record, records(record)),
        "run.json": (hashed, store.read_run, iter(())),
        "data.npz": (whole_npz(), read_data("npz"), archives()),
        "train-0.parquet": (parquet([png()] * 12), read_data("parquet"), tables()),
        "image.png": (png(), read_folder, images()),
        "images-idx3-ubyte": (whole_idx(), read_idx, headers()),
        "images-idx3-ubyte.gz": (gzip.compress(whole_idx()), read_idx, zipped_headers()),
        "knn.json": (record, read_in_store, records(record)),
    }
    for file, (whole, read, special) in kinds.items():
        yield file, "as it should be", whole, read
        for name, content in [*damaged(whole), *special]:
            yield file, name, content, read


def read_all(place: Path) -> list[dict[str, t.Any]]:
    """Read every file in a directory of its own; how each went: refused by which error or read, CPU seconds, memory."""
    read_suite("quickstart")  # the first suite of all imports every encoder and protocol
    outcomes = []
    for number, (file, name, content, read) in enumerate(corpus(place)):
        folder = place / f"{number:03d}"
        path = folder / file
        if file == "knn.json":
            path = folder / "pixels" / "digits" / f"seed0-{'0' * 16}" / "scores" / "pixels" / file
            read_path = path
        else:
            read_path = path
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        if file.startswith("train-"):
            (folder / "test-0.parquet").write_bytes(parquet([png()] * 4))
        forget_the_peak()
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            read(read_path)
            outcome, said = "read", ""
        except TYPED as error:
            outcome, said = "refused", str(error)
        except BaseException as error:
            outcome, said = "crashed", repr(error)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        seconds = time.process_time() - started
        outcomes.append(
            {"file": file, "name": name, "outcome": outcome, "said": said[:300], "seconds": seconds, "grown": grown}
        )
    return outcomes


def forget_the_peak() -> None:
    """Of memory, which making the files raises; only Linux does."""
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    working = Path(sys.argv[1])
    os.chdir(working)
    print(json.dumps(read_all(working)))
