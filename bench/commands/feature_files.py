"""Files of features with labels, of train and of test: `frostbench score` reads them, `frostbench extract` writes them.

    FILE.npz          train_features (n, d), train_labels (n,), test_features (m, d), test_labels (m,); or features
                      (n + m, d), labels (n + m,) and split (n + m,), which says train or test of each row
    FILE.safetensors  the first of these by name; FILE.pt, a dictionary that torch.save wrote, and FILE.h5: either
    DIR               train_features.npy, train_labels.npy, test_features.npy, test_labels.npy
    FILE.parquet      columns split and label, and features, a list of d numbers a row; or in place of features
                      any columns of numbers, which are the features in the file's order; an index of pandas is none

Features are numbers and become float32; labels are whole numbers from 0. Nothing that a file brings is run.
"""

# ruff: noqa: PLC0415 -- pyarrow is slow to import
import io
import logging
import re
import typing as t
import zipfile
from pathlib import Path

import numpy as np
import safetensors
import torch
from torch import Tensor

from bench.datasets.formats import Array, DataError, check_unpacked_size, read_columns, readable
from bench.errors import config_error, quoted
from protocols.base import FeatureSet, ProtocolError
from results import files

logger = logging.getLogger(__name__)

ARRAYS = ("train_features", "train_labels", "test_features", "test_labels")
SPLIT_ARRAYS = ("features", "labels", "split")


def read(path: Path) -> tuple[FeatureSet, FeatureSet]:
    """Train and test.

    Raises DataError for a file that is not there, not of this layout, or not to be judged, ConfigError for its name.
    """
    return checked(str(path), _arrays(path))


def checked(path: str, arrays: tuple[Array, ...]) -> tuple[FeatureSet, FeatureSet]:
    """Train and test from arrays in the order of ARRAYS; `path` says where they are from. Raises DataError."""
    train_features, train_labels, test_features, test_labels = arrays
    for name, array in zip(ARRAYS, arrays):
        if name.endswith("features") and (array.dtype == np.uint16 or array.dtype.str == "|V2"):
            bits = "the bits of bfloat16; save them as float32 (`tensor.float()`), or integers as int32"
            raise DataError(f"{path}: {name} have the type {array.dtype}, which may hold {bits}")
    for name, array in zip(ARRAYS, arrays):
        wanted, kinds, ndim = ("whole", "iu", 1) if name.endswith("labels") else ("real", "fiu", 2)
        if array.dtype.kind not in kinds or array.ndim != ndim:
            shape = "(n, d)" if ndim == 2 else "(n,)"
            raise DataError(f"{path}: {name} must be {wanted} numbers {shape}; got {array.dtype} {array.shape}")
    if train_features.shape[1] != test_features.shape[1]:
        came = f"{train_features.shape} and {test_features.shape}"
        raise DataError(f"{path}: features of train and test must have the same d; got {came}")
    for part, features, labels in (("train", *arrays[:2]), ("test", *arrays[2:])):
        if len(features) != len(labels) or not len(labels):
            came = f"{len(features):,} rows and {len(labels):,} labels"
            raise DataError(f"{path}: {part} needs at least one row, and one label per row; got {came}")
    low = int(min(train_labels.min(), test_labels.min()))
    high = int(max(train_labels.max(), test_labels.max()))
    if low < 0 or high >= len(train_labels):
        wanted = f"0..{len(train_labels) - 1}, as train has {len(train_labels)} rows"
        raise DataError(f"{path}: labels must lie in {wanted}; got {low}..{high}")
    if len(np.unique(train_labels)) < 2:
        raise DataError(f"{path}: train has one class; classification needs at least two")
    unlearned = np.setdiff1d(test_labels, train_labels)
    if len(unlearned):
        rows = f"{int(np.isin(test_labels, unlearned).sum()):,} test rows have labels that no train row has"
        way_out = "add such rows to train, or remove them from test"
        raise DataError(
            f"{path}: {rows} ({', '.join(map(str, unlearned[:5]))}{', ...' * (len(unlearned) > 5)}); {way_out}"
        )
    train = _set(f"{path}, train", train_features, train_labels, high + 1)
    return train, _set(f"{path}, test", test_features, test_labels, high + 1)


def _arrays(path: Path) -> tuple[Array, ...]:
    """In the order of ARRAYS, as the file has them."""
    if is_directory(path):
        return _read_npy(path)
    if path.suffix not in _READERS:
        many = f"for .npy files give their directory, which has {', '.join(f'{name}.npy' for name in ARRAYS)}"
        raise config_error(str(path), f"wanted a file of features that ends in {', '.join(_READERS)}; {many}")
    if not path.is_file():
        raise DataError(f"{path}: not a regular file" if path.exists() else f"{path}: no such file")
    return _READERS[path.suffix](path)


def write(path: Path, train: FeatureSet, test: FeatureSet) -> None:
    """The same rows in the same order, in the first layout of the format that the name asks for.

    Raises ConfigError for another suffix, files.Unwritable where it cannot be written.
    """
    check_name(path)
    buffer = io.BytesIO()
    if path.suffix == ".npz":
        parts = (train.features, train.labels, test.features, test.labels)
        arrays: dict[str, t.Any] = {name: part.numpy() for name, part in zip(ARRAYS, parts)}
        np.savez(buffer, **arrays)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        features = np.concatenate([train.features.numpy(), test.features.numpy()])
        columns = {
            "split": pa.array(["train"] * len(train) + ["test"] * len(test)),
            "label": pa.array(np.concatenate([train.labels.numpy(), test.labels.numpy()])),
            "features": pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), features.shape[1]),
        }
        pq.write_table(pa.table(columns), buffer)
    files.replace(path, buffer.getvalue())


def is_directory(path: Path) -> bool:
    """Whether features lie there as .npy files."""
    return (path / f"{ARRAYS[0]}.npy").is_file()


def check_name(path: Path) -> None:
    """Raise ConfigError for a name that says neither format that is written."""
    if path.suffix not in (".npz", ".parquet"):
        raise config_error(str(path), "wanted a file of features that ends in .npz or .parquet")


def _set(where: str, features: Array, labels: Array, classes: int) -> FeatureSet:
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite
        rows = torch.from_numpy(np.ascontiguousarray(features, np.float32))
    scale = "scale the features"
    if features.dtype.kind == "f" and features.dtype.itemsize > 4 and features.size:
        beyond = int((~torch.isfinite(rows).all(dim=1).numpy() & np.isfinite(features).all(axis=1)).sum())
        if beyond:
            largest = f"{torch.finfo(rows.dtype).max:.1e}"
            raise DataError(f"{where}: {beyond} of {len(rows)} rows exceed {largest}, float32's largest; {scale}")
        if features.any() and not rows.any():
            raise DataError(f"{where}: float32 rounds all numbers, at most {np.abs(features).max():.0e}, to 0; {scale}")
    try:
        return FeatureSet(rows, torch.from_numpy(labels.astype(np.int64)), classes)
    except ProtocolError as error:
        raise DataError(f"{where}: {error}") from error


def _divided(path: Path, features: Array, labels: Array, split: Array) -> tuple[Array, ...]:
    """The four arrays of one pair and its split."""
    if not len(features) == len(labels) == len(split):
        came = f"{len(features):,}, {len(labels):,} and {len(split):,}"
        raise DataError(f"{path}: features, labels and split must have the same number of rows; got {came}")
    strange = sorted(set(np.unique(split).tolist()) - {"train", "test"}, key=repr)
    if strange:
        raise DataError(f"{path}: split must be 'train' or 'test' in every row; got {strange[0]!r}")
    train, test = split == "train", split == "test"
    return features[train], labels[train], features[test], labels[test]


def _named(path: Path, held: t.Collection[str], get: t.Callable[[str], Array]) -> tuple[Array, ...]:
    """The four arrays, of those that a file holds by name."""
    names = next((names for names in (ARRAYS, SPLIT_ARRAYS) if set(names) <= set(held)), None)
    if names is None:
        nearest = max((ARRAYS, SPLIT_ARRAYS), key=lambda names: len(set(names) & set(held)))
        missing = [name for name in nearest if name not in held]
        wanted = f"wanted the arrays {', '.join(ARRAYS)}, or {', '.join(SPLIT_ARRAYS)}"
        raise DataError(f"{path}: {wanted}; missing: {', '.join(missing)}")
    arrays = tuple(get(name) for name in names)
    if any(not array.ndim for array in arrays):
        raise DataError(f"{path}: wanted arrays of rows; got a single number")
    return arrays if names is ARRAYS else _divided(path, *arrays)


def _read_npz(path: Path) -> tuple[Array, ...]:
    wanted = f"{path}: wanted an .npz file of plain arrays; pickled objects are not read"
    with readable(wanted), path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        members = archive.zip.infolist()
        check_unpacked_size(path, sum(member.file_size for member in members), path.stat().st_size)
        return _named(path, set(archive), lambda name: np.asarray(archive[name]))


def _read_npy(folder: Path) -> tuple[Array, ...]:
    held = {name for name in ARRAYS if (folder / f"{name}.npy").is_file()}

    def get(name: str) -> Array:
        with readable(f"{folder / name}.npy: wanted a plain array; pickled objects are not read"):
            return np.asarray(np.load(folder / f"{name}.npy", allow_pickle=False))

    return _named(folder, held, get)


def _read_safetensors(path: Path) -> tuple[Array, ...]:
    unreadable = f"{path} is not a readable safetensors file"
    with readable(unreadable, why=True), safetensors.safe_open(path, framework="pt") as file:
        return _named(path, file.keys(), lambda name: plain(file.get_tensor(name)))


def _read_pt(path: Path) -> tuple[Array, ...]:
    def get(name: str) -> Array:
        held = content[name]
        if not isinstance(held, Tensor):
            return np.array(held)
        check_unpacked_size(path, held.numel() * held.element_size(), path.stat().st_size)  # rows can be one, repeated
        return plain(held)

    with readable(f"{path}: wanted what torch.save writes of a dictionary of tensors; nothing else is read"):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_unpacked_size(path, sum(one.file_size for one in archive.infolist()), path.stat().st_size)
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise DataError(f"{path}: wanted a dictionary of tensors; got {type(content).__name__}")
        return _named(path, [name for name in content if isinstance(name, str)], get)


def plain(tensor: Tensor) -> Array:
    """A tensor as NumPy has it: bfloat16 and other short floats as float32."""
    short = tensor.is_floating_point() and tensor.dtype != torch.float64
    return np.asarray((tensor.detach().float() if short else tensor.detach()).cpu().numpy())


def _read_h5(path: Path) -> tuple[Array, ...]:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: reading HDF5 needs h5py: pip install h5py") from error

    def get(name: str) -> Array:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise DataError(f"{path}: {name} is a link; links are not followed")
        found = file[name]
        if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
            raise DataError(f"{path}: {name} must be a dataset stored in this file")
        check_unpacked_size(path, found.nbytes, path.stat().st_size)
        return np.array(found.asstr()[()] if h5py.check_string_dtype(found.dtype) else found[()])

    with readable(f"{path} is not a readable HDF5 file", why=True), h5py.File(path, "r") as file:
        return _named(path, set(file), get)


def _read_parquet(path: Path) -> tuple[Array, ...]:
    import pyarrow.parquet as pq

    with readable(f"{path} is not a readable Parquet file", why=True):
        schema = pq.read_schema(path)
        names = schema.names
        missing = [name for name in ("split", "label") if name not in names]
        if missing:
            wanted = "wanted the columns split, label and features (a list of numbers a row, or columns of numbers)"
            raise DataError(f"{path}: {wanted}; missing: {', '.join(missing)}")
        if len(set(names)) < len(names):
            raise DataError(f"{path}: two columns have the same name")
        read = ["split", "label", *_feature_columns(path, schema)]
        return _divided(path, *_columns(path, read_columns(path, read)))


def _feature_columns(path: Path, schema: t.Any) -> list[str]:
    """The columns to be read as features; says which they are unless that is plain."""
    index = {name for name in (schema.pandas_metadata or {}).get("index_columns", []) if isinstance(name, str)}
    index |= {name for name in schema.names if re.fullmatch(r"__index_level_\d+__", name)}  # the metadata may be lost
    others = [name for name in schema.names if name not in ("split", "label")]
    found = ["features"] if "features" in others else [name for name in others if name not in index]
    left = [quoted(name) + " (an index)" * (name in index) for name in others if name not in found]
    if left or found != ["features"]:
        what = "the column 'features'" if found == ["features"] else f"{len(found):,} columns, {_listed(found)}"
        more = f"; {len(left):,} not read: {', '.join(left[:10])}" if left else ""
        logger.warning("%s: the features are %s%s", path, what, more)
    return found


def _listed(names: list[str]) -> str:
    if len(names) > 10:
        return f"{_listed(names[:5])}, ..., {_listed(names[-3:])}"
    return ", ".join(map(quoted, names))


def _columns(path: Path, table: t.Any) -> tuple[Array, Array, Array]:
    """Features, labels and split."""
    import pyarrow as pa

    for name in table.column_names:
        if table[name].null_count:
            raise DataError(f"{path}: {table[name].null_count:,} of {len(table):,} rows have no {name}")
    labels, split = table["label"].to_numpy(), np.array(table["split"].to_pylist())
    if "features" in table.column_names:
        return _list_to_rows(path, table["features"]), labels, split
    columns = []
    for name in table.column_names:
        if name not in ("split", "label"):
            if not (pa.types.is_integer(table[name].type) or pa.types.is_floating(table[name].type)):
                raise DataError(f"{path}: columns but split and label must be numbers; {name} is {table[name].type}")
            columns.append(table[name].to_numpy())
    return np.stack(columns, axis=1) if columns else np.empty((len(table), 0), np.float32), labels, split


def _list_to_rows(path: Path, column: t.Any) -> Array:
    """A column of lists as (n, d)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not (
        pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type)
    ):
        raise DataError(f"{path}: features must be a list of numbers a row; got {column.type}")
    lengths = sorted(pc.list_value_length(column).unique().to_pylist())
    if len(lengths) != 1:
        came = f"{lengths[0]} to {lengths[-1]}" if lengths else "no rows"
        raise DataError(f"{path}: every row must have the same number of features; got {came}")
    flat = pc.list_flatten(column)
    if flat.null_count:
        raise DataError(f"{path}: {flat.null_count:,} features are null")
    return np.asarray(flat.to_numpy()).reshape(-1, lengths[0]) if lengths[0] else np.empty((len(column), 0))


_READERS: dict[str, t.Callable[[Path], tuple[Array, ...]]] = {
    ".npz": _read_npz,
    ".parquet": _read_parquet,
    ".safetensors": _read_safetensors,
    ".pt": _read_pt,
    ".h5": _read_h5,
}
