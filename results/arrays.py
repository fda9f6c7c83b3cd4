"""Arrays from a .npz archive that anybody may have written or damaged."""

import io
import typing as t
import zipfile
from pathlib import Path

import numpy as np

from results import store
from results.store import RunDirectory, StoreError

LARGEST = 2**28  # bytes, packed and unpacked: no view or predictions of ours come near
Array = np.ndarray[t.Any, np.dtype[t.Any]]


def read_arrays(path: Path, largest: int = LARGEST) -> dict[str, Array]:
    """Every array of a file, none of them pickled. Raises store.Missing and StoreError."""
    return _unpacked(path, store.read_bytes(path, largest), largest)


def read_view(run: RunDirectory, path: Path, largest: int = LARGEST) -> dict[str, Array]:
    """The same of a file that run.json may have the SHA-256 of. Raises store.Missing and StoreError."""
    return _unpacked(path, store.read_kept(run, path, largest), largest)


def _unpacked(path: Path, content: bytes, largest: int) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > largest:
            raise ValueError(f"it unpacks to {size:,} bytes, more than {largest:,}")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return dict(file)
    except Exception as error:  # a damaged header raises whatever zipfile, NumPy and Python's parser stumble over
        raise StoreError(f"{path}: cannot be read: {error}") from error
