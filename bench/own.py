"""What people bring themselves: features of a model of theirs to be scored, encoders and protocols to be checked."""

import contextlib
import json
import typing as t
import zipfile
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from bench import data, resolve
from bench.extract import extract
from bench.resolve import nearest
from bench.strict_yaml import ConfigError, Problem
from encoders.base import EncoderError, Training, shown
from encoders.check import check_encoder
from protocols.base import FeatureSet, ProtocolError
from protocols.check import check_protocol
from results import store

ARRAYS = ("train_features", "train_labels", "test_features", "test_labels")


def score(path: Path, protocols: t.Sequence[str], seed: int, plugins: t.Sequence[Path] = ()) -> str:
    """Judge the features of an .npz file, (n, d) with whole-number labels (n,), by protocols with their defaults.

    Gives a JSON list with a row for each metric. Raises ProtocolError for arrays that cannot be judged and ConfigError
    for a protocol that does not exist.
    """
    known = resolve.protocols(plugins)
    unknown = [name for name in protocols if name not in known]
    if unknown:
        wrong = [f"no protocol {name!r}{nearest(name, known)}" for name in unknown]
        raise ConfigError([Problem("--protocol", None, None, (), message) for message in wrong])
    train, test = _read(path)
    rows = []
    for name in protocols or [name for name, protocol in known.items() if protocol.reads is None]:
        judge = known[name]()
        scores = judge.score(train, test, seed=seed)
        facts = {"protocol": f"{name}@{judge.version}", "params": judge.model_dump(mode="json"), "seed": seed}
        rows += [facts | {"metric": metric, "value": value} for metric, value in scores.metrics.items()]
    return json.dumps(rows, indent=1)


def _read(path: Path) -> tuple[FeatureSet, FeatureSet]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in ARRAYS if name not in archive]
            if missing:
                raise ProtocolError(f"{path}: wanted the arrays {', '.join(ARRAYS)}; missing: {', '.join(missing)}")
            arrays = [archive[name] for name in ARRAYS]
    except FileNotFoundError as error:
        raise ProtocolError(f"{path}: no such file") from error
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ProtocolError(f"{path}: wanted an .npz file of plain numeric arrays; it is none") from error
    train_features, train_labels, test_features, test_labels = arrays
    for name, array in zip(ARRAYS, arrays):
        wanted = np.integer if name.endswith("labels") else np.floating
        if not np.issubdtype(array.dtype, wanted):
            raise ProtocolError(f"{path}: {name} must be {wanted.__name__} numbers; got {array.dtype}")
    if train_features.ndim != 2 or train_features.shape[1:] != test_features.shape[1:]:
        came = f"{train_features.shape} and {test_features.shape}"
        raise ProtocolError(f"{path}: features must be (n, d) with one d for train and test; got {came}")
    lowest = int(min(train_labels.min(initial=0), test_labels.min(initial=0)))
    high = int(max(train_labels.max(initial=0), test_labels.max(initial=0)))
    if lowest < 0 or high >= len(train_labels):
        rows = len(train_labels)
        raise ProtocolError(f"{path}: wanted labels in 0..{rows - 1}, train having {rows} rows; got {lowest}..{high}")
    classes = high + 1
    train = _set(f"{path}, train", train_features, train_labels, classes)
    return train, _set(f"{path}, test", test_features, test_labels, classes)


def _set(where: str, features: np.ndarray[t.Any, t.Any], labels: np.ndarray[t.Any, t.Any], classes: int) -> FeatureSet:
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused
        rows = torch.from_numpy(features.astype(np.float32))
    try:
        return FeatureSet(rows, torch.from_numpy(labels.astype(np.int64)), classes)
    except ProtocolError as error:
        raise ProtocolError(f"{where}: {error}") from error


def check(path: Path) -> t.Iterator[str]:
    """Check every encoder and protocol of a plugin file with its default parameters; a line for each that passes.

    Raises EncoderError or ProtocolError with the promise that is broken, ConfigError for a file that holds neither.
    """
    encoders = {name: one for name, one in resolve.encoders([path]).items() if name not in resolve.encoders()}
    protocols = {name: one for name, one in resolve.protocols([path]).items() if name not in resolve.protocols()}
    if not encoders and not protocols:
        problem = "wanted a file that defines a subclass of encoders.base.Encoder or of protocols.base.Protocol"
        raise ConfigError([Problem(str(path), None, None, (), problem)])
    images = data.load("digits", limit=300).train
    for name, encoder in encoders.items():
        with _named(name):
            recipe = encoder()
            check_encoder(recipe, images)
            module = recipe.fit(shown(images, recipe, seed=0), Training(seed=0))
            for _ in extract(name, module, images, recipe.taps, torch.device("cpu")):
                pass  # it is the proof that counts
            for tap in recipe.taps:
                store.RunDirectory(Path()).record(tap, name)  # a tap becomes the name of a directory
        yield f"encoder {name} keeps its promises"
    for name, protocol in protocols.items():
        with _named(name):
            check_protocol(protocol())
        yield f"protocol {name} keeps its promises"


@contextlib.contextmanager
def _named(name: str) -> t.Iterator[None]:
    """Errors of other people's code, as sentences that say whose they are."""
    try:
        yield
    except (EncoderError, ProtocolError, store.StoreError) as error:
        raise EncoderError(f"{name}: {error}") from error
    except ValidationError as error:
        wrong = ", ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise EncoderError(
            f"{name} is checked with its default parameters, and has not all of them: {wrong}"
        ) from error
    except Exception as error:
        raise EncoderError(f"{name} fails: {type(error).__name__}: {error}") from error
