"""Arrays out of .npy and .npz files that may be damaged; nothing that a file brings is run.

NumPy and zipfile meet damage with whatever they stumble over, such as TokenError and SyntaxError in a header or
NotImplementedError in an archive. Here all of it is a ValueError, or a StoreError of a file of ours.
"""

import contextlib
import io
import typing as t
from pathlib import Path

import numpy as np

from results import store
from results.files import StoreError
from results.layout import RunDirectory

MAX_BYTES = 2**28  # bytes, packed and unpacked: no view or predictions of ours come near
Array = np.ndarray[t.Any, np.dtype[t.Any]]


def read_view(run: RunDirectory, path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Array]:
    """Every array of a file that run.json may have the SHA-256 of, none of them pickled.

    Raises store.Missing and StoreError.
    """
    content = store.read_kept(run, path, max_bytes)
    try:
        return read_npz(content, max_bytes)
    except ValueError as error:
        raise StoreError(f"cannot be read: {error}", path) from error


def read_npz(source: Path | bytes, max_bytes: int, names: t.Collection[str] = ()) -> dict[str, Array]:
    """The arrays of these names, or all, of an archive that unpacks to no more than `max_bytes` bytes.

    source: a file or its content. Raises ValueError for what is no archive of plain arrays, or has not all of them,
    OSError for a file that cannot be opened.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file, damage_as_value_error():
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("a single array, not an archive of several")
        with loaded as archive:
            members = archive.zip.infolist() if archive.zip else []
            if sum(member.file_size for member in members) > max_bytes:
                raise ValueError(f"it unpacks to more than {max_bytes:,} bytes")
            arrays = {name: archive[name] for name in names or archive}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # the content of a member that is none
            raise ValueError(f"{name} is no array")
    return arrays


def read_npy(path: Path, *, mapped: bool = True) -> Array:
    """The array of a file, mapped so that writing to it changes no file, or read into memory.

    Raises ValueError for what is no plain array, OSError for a file that cannot be opened.
    """
    with path.open("rb") as file, damage_as_value_error():
        np.lib.format.read_magic(file)  # np.load would take an archive or a pickle, too
        return np.asarray(np.load(path, mmap_mode="c" if mapped else None, allow_pickle=False))


@contextlib.contextmanager
def damage_as_value_error() -> t.Iterator[None]:
    try:
        yield
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from error
