"""check_protocol: the promises that every protocol keeps, for ours in the tests and for yours on your machine."""

import functools
import json
import math
import typing as t

import numpy as np
import torch
from torch import Tensor

from protocols.base import FeatureSet, Protocol, ProtocolError, Quality, SampleProtocol, Samples, Scores


class Sealed(FeatureSet):
    """Test rows that can be read once: their features, then their labels. `len` and `classes` can be asked any time."""

    def __init__(self, rows: FeatureSet) -> None:
        super().__init__(rows.features, rows.labels, rows.classes)
        object.__setattr__(self, "size", len(rows))
        object.__setattr__(self, "read", [])

    def __len__(self) -> int:
        return int(object.__getattribute__(self, "size"))

    def __getattribute__(self, name: str) -> t.Any:
        if name in ("features", "labels") and "read" in object.__getattribute__(self, "__dict__"):
            read = object.__getattribute__(self, "read")
            if name in read:
                raise ProtocolError(f"the test set is sealed: its {name} are read a second time")
            if name == "labels" and "features" not in read:
                raise ProtocolError("the test set is sealed: its labels are read before its features are classified")
            read.append(name)
        return object.__getattribute__(self, name)


def check_protocol(protocol: Protocol, device: torch.device | None = None) -> None:
    """Score small made-up features in every way a benchmark does; takes seconds. Up to k = 300 neighbours can pass.

    They lie on `device`, by default the processor.

    A SampleProtocol is given images in place of features, and others as samples. Raises ProtocolError with the first
    promise that is not kept. Of a protocol that answers with Quality only:

    - the same arguments and seed give the same metrics, which are finite; details are plain JSON;
    - features of the test rows are read once, and then labels, once;
    - a class that train lacks, one test row (of a SampleProtocol two), and two train rows are judged without an error;
    - arguments, and the global random state of torch and numpy, are left as they were.

    Of one that answers with Scores also:

    - features that tell the classes apart score 1; constant features and shuffled labels score about chance;
    - predictions are int64 (n_test,) of known classes; metrics are fractions in 0..1, or, behind the first, indices
      down to -1;
    - a prediction follows from train and its own test row: neither the order of the test rows, nor which others there
      are, nor any test label moves it, so nothing is selected on test.
    """
    blobs = functools.partial(_blobs, device=device)
    train, test = blobs(rows=900, seed=0), blobs(rows=60, seed=1)
    scores = _checked(protocol, train, test, "perfect features")
    again = _checked(protocol, train, test, "perfect features, a second time")
    _hold(again, _same(scores, again), "the same scores for the same arguments and seed")
    if isinstance(scores, Scores):
        _hold(scores, _first(scores) == 1, "score 1 on features that tell the classes apart")
        _check_selection(protocol, blobs)
    constant = (FeatureSet(torch.full_like(one.features, 0.1), one.labels, 3) for one in (train, test))
    noise = np.random.Generator(np.random.Philox(5))
    shuffled = (FeatureSet(one.features, one.labels[torch.from_numpy(noise.permutation(len(one)))], 3)
                for one in (blobs(rows=600, seed=6), blobs(rows=600, seed=7)))  # fmt: skip
    for case, (gallery, query) in {"constant features": constant, "shuffled labels": shuffled}.items():
        scores = _checked(protocol, gallery, query, case)
        chance = not isinstance(scores, Scores) or abs(_first(scores) - 1 / 3) <= 0.1
        _hold(scores, chance, f"about 1/3 on {case} of three equal classes")
    _checked(protocol, train.rows((train.labels != 2).nonzero()[:, 0]), test, "a class that train lacks")
    few = 2 if isinstance(protocol, SampleProtocol) else 1  # test images have a spread
    _checked(protocol, train, test.rows(torch.arange(few)), f"{few} test row{'s' * (few > 1)}")
    _checked(protocol, train.rows(torch.tensor([0, 1])), test, "two train rows")


def _check_selection(protocol: Protocol, blobs: t.Callable[..., FeatureSet]) -> None:
    """Overlapping classes, where a choice shows: where every row is certain, neither order nor selection can."""
    train, test = blobs(rows=120, seed=2, spread=4.0), blobs(rows=60, seed=3, spread=4.0)
    straight = _checked(protocol, train, test, "overlapping classes")
    order = torch.from_numpy(np.random.Generator(np.random.Philox(4)).permutation(len(test)))
    turned = _checked(protocol, train, test.rows(order), "test rows in another order")
    _hold(turned, _predicted(turned, straight, order), "a prediction that follows its test row")
    close = all(math.isclose(turned.metrics[name], value, abs_tol=1e-9) for name, value in straight.metrics.items())
    _hold(turned, close, "metrics that do not depend on the order of the test rows")
    some = torch.arange(0, len(test), 3)
    alone = _checked(protocol, train, test.rows(some), "some of the test rows")
    _hold(alone, _predicted(alone, straight, some), "a prediction that does not depend on the other test rows")
    renamed = FeatureSet(test.features, (test.labels + 1) % 3, 3)
    blind = _checked(protocol, train, renamed, "other test labels")
    _hold(blind, _predicted(blind, straight, slice(None)), "a prediction that does not depend on test labels")


def _blobs(*, rows: int, seed: int, spread: float = 0.1, device: torch.device | None = None) -> FeatureSet:
    """Three equal classes around (10, 0, 0, 0, 0), (0, 10, 0, 0, 0) and (0, 0, 10, 0, 0)."""
    labels = torch.arange(rows) % 3
    centres = 10 * torch.eye(3, 5)
    noise = np.random.Generator(np.random.Philox(seed)).normal(scale=spread, size=(rows, 5))
    features = centres[labels] + torch.from_numpy(noise).float()
    return FeatureSet(features.to(device), labels.to(device), 3)


def _checked(protocol: Protocol, train: FeatureSet, test: FeatureSet, case: str) -> Scores | Quality:
    """Score, and hold what must hold whatever the features are."""
    arguments = [train.features, train.labels, test.features, test.labels]
    before = [tensor.clone() for tensor in arguments]
    states = _random_states()
    try:
        scores = _judged(protocol, train, test)
    except Exception as error:
        raise ProtocolError(f"{protocol!r} fails on {case}: {type(error).__name__}: {error}") from error
    promises = {
        "arguments left as they were": all(torch.equal(one, other) for one, other in zip(arguments, before)),
        "the global random state of torch and numpy left as it was": _random_states() == states,
        "at least one metric": bool(scores.metrics),
        "metrics that are finite": all(math.isfinite(value) for value in scores.metrics.values()),
        "details that are plain JSON": _is_json(scores.details),
    }
    if isinstance(scores, Scores):
        predicted = scores.predictions
        promises |= {
            "predictions int64 (n_test,)": predicted.dtype == torch.int64 and predicted.shape == test.labels.shape,
            "predictions of known classes": bool(((predicted >= 0) & (predicted < train.classes)).all()),
            "metrics that are fractions in 0..1": (
                0 <= _first(scores) <= 1
                and all(-1 <= value <= 1 for name, value in scores.metrics.items() if name != "log_loss")
            ),
        }
    for promise, kept in promises.items():
        _hold(scores, kept, f"{promise} ({case})")
    return scores


def _judged(protocol: Protocol, train: FeatureSet, test: FeatureSet) -> Scores | Quality:
    if not isinstance(protocol, SampleProtocol):
        return protocol.score(train, Sealed(test), seed=0)
    drawn = _blobs(rows=min(protocol.samples, 300), seed=8, device=test.features.device).features
    images, reconstructions = (torch.sigmoid(rows).view(-1, 1, 1, 5) for rows in (drawn, test.features))
    train, test = (FeatureSet(torch.sigmoid(one.features), one.labels, one.classes) for one in (train, test))
    return protocol.judge(Samples(images, reconstructions, (1, 1, 5)), train, Sealed(test), seed=0)


def _hold(scores: Scores | Quality, kept: bool, promise: str) -> None:
    if not kept:
        raise ProtocolError(f"expected {promise}; got metrics {scores.metrics}")


def _first(scores: Scores) -> float:
    return next(iter(scores.metrics.values()), 0.0)


def _same(one: Scores | Quality, other: Scores | Quality) -> bool:
    alike = one.metrics == other.metrics and one.details == other.details
    return alike and _predicted(one, other, slice(None))


def _predicted(one: Scores | Quality, other: Scores | Quality, rows: Tensor | slice) -> bool:
    """Whether predictions are those of the other's `rows`."""
    if isinstance(one, Scores) and isinstance(other, Scores):
        return torch.equal(one.predictions, other.predictions[rows])
    return isinstance(one, Quality) and isinstance(other, Quality)


def _random_states() -> tuple[t.Any, ...]:
    # numpy's global state is read here to see that nobody used it
    name, keys, *rest = t.cast("tuple[t.Any, ...]", np.random.get_state())
    return torch.get_rng_state().tolist(), name, keys.tolist(), rest


def _is_json(details: t.Any) -> bool:
    try:
        return bool(json.loads(json.dumps(details, allow_nan=False)) == details)
    except (TypeError, ValueError):
        return False
