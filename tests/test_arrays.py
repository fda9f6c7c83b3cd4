"""Files of arrays: what is damaged is a ValueError, whatever NumPy stumbles over."""

import contextlib
import io
import pickle
import typing as t
import zipfile
from pathlib import Path

import numpy as np
import pytest

from results.arrays import read_npy, read_npz

ROWS = np.arange(12, dtype=np.int64).reshape(3, 4)


def npy(array: np.ndarray[t.Any, t.Any], *, pickled: bool = False) -> bytes:
    np.save(buffer := io.BytesIO(), array, allow_pickle=pickled)
    return buffer.getvalue()


def npz(**members: bytes) -> bytes:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


DAMAGED = {
    "nothing": b"",
    "text": b"text",
    "no end": npy(ROWS)[:-1],
    "a header without an end": npy(ROWS).replace(b"}", b" ", 1),  # TokenError in NumPy
    "a header that is no Python": npy(ROWS).replace(b"(3, 4)", b"(3, 04"),  # SyntaxError
    "a shape as large as the universe": npy(ROWS).replace(b"(3, 4), }           ", b"(3, 4000000000000)} "),
    "objects": npy(np.array([{}]), pickled=True),
    "a pickle": pickle.dumps([1]),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damage_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "rows.npy").write_bytes(content)
    for mapped in (True, False):
        with pytest.raises(ValueError, match=r"\w"):
            read_npy(path, mapped=mapped)
    for source in (content, npz(rows=content)):
        with pytest.raises(ValueError, match=r"\w"):
            read_npz(source, 10**6)


def test_every_flipped_bit_of_a_header_is_a_value_error_or_harmless() -> None:
    content = npy(ROWS)
    for place in range(128 * 8):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        with contextlib.suppress(ValueError):
            read_npz(npz(rows=bytes(flipped)), 10**6)


def test_whole_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "rows.npy").write_bytes(npy(ROWS))
    mapped = read_npy(tmp_path / "rows.npy")
    mapped[0] = 7
    np.testing.assert_array_equal(read_npy(tmp_path / "rows.npy", mapped=False), ROWS)
    (tmp_path / "rows.npz").write_bytes(npz(rows=npy(ROWS), others=npy(ROWS[0])))
    assert set(read_npz(tmp_path / "rows.npz", 10**6)) == {"rows", "others"}
    found = read_npz((tmp_path / "rows.npz").read_bytes(), 10**6, ["rows"])
    assert set(found) == {"rows"}
    np.testing.assert_array_equal(found["rows"], ROWS)
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "none.npz", 10**6)


def test_what_is_too_large_or_missing_is_refused() -> None:
    content = npz(rows=npy(ROWS))
    with pytest.raises(ValueError, match="more than 100 bytes"):
        read_npz(content, 100)
    with pytest.raises(ValueError, match="classes"):
        read_npz(content, 10**6, ["classes"])
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        archive.writestr("rows", b"text")
    with pytest.raises(ValueError, match="rows is no array"):
        read_npz(buffer.getvalue(), 10**6)
