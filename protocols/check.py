"""check_protocol: the promises that every protocol keeps, for ours in the tests and for yours on your machine."""

import json
import math
import typing as t

import numpy as np
import torch

from protocols.base import FeatureSet, Protocol, ProtocolError, Scores


def check_protocol(protocol: Protocol) -> None:
    """Score small made-up features in every way a benchmark does; takes seconds. Up to k = 300 neighbours can pass.

    Raises ProtocolError with the first promise that is not kept:

    - features that tell the classes apart score 1; constant features and shuffled labels score about chance;
    - predictions are int64 (n_test,) of known classes; metrics are fractions in 0..1; details are plain JSON;
    - the same arguments and seed give the same scores; the order of the test rows orders the predictions, no more;
    - a class that train lacks, one test row, and two train rows are judged without an error;
    - arguments, and the global random state of torch and numpy, are left as they were.
    """
    train, test = _blobs(rows=900, seed=0), _blobs(rows=60, seed=1)
    scores = _checked(protocol, train, test, "perfect features")
    _hold(scores, _first(scores) == 1, "score 1 on features that tell the classes apart")

    again = _checked(protocol, train, test, "perfect features, a second time")
    _hold(again, _same(scores, again), "the same scores for the same arguments and seed")

    # One judge of overlapping classes: where every row is certain, order and chance cannot show.
    blurred, query = _blobs(rows=120, seed=2, spread=4.0), _blobs(rows=60, seed=3, spread=4.0)
    straight = _checked(protocol, blurred, query, "overlapping classes")
    order = torch.from_numpy(np.random.Generator(np.random.Philox(4)).permutation(len(query)))
    turned = _checked(protocol, blurred, query.rows(order), "test rows in another order")
    _hold(
        turned, torch.equal(turned.predictions, straight.predictions[order]), "a prediction that follows its test row"
    )
    close = all(math.isclose(turned.metrics[name], value, abs_tol=1e-9) for name, value in straight.metrics.items())
    _hold(turned, close, "metrics that do not depend on the order of the test rows")

    constant = FeatureSet(torch.full((900, 5), 0.1), train.labels, 3)
    scores = _checked(protocol, constant, FeatureSet(torch.full((60, 5), 0.1), test.labels, 3), "constant features")
    _hold(scores, abs(_first(scores) - 1 / 3) <= 0.1, "about 1/3 on constant features of three equal classes")

    noise = np.random.Generator(np.random.Philox(5))
    shuffled = [FeatureSet(one.features, one.labels[torch.from_numpy(noise.permutation(len(one)))], 3)
                for one in (_blobs(rows=600, seed=6), _blobs(rows=600, seed=7))]  # fmt: skip
    scores = _checked(protocol, shuffled[0], shuffled[1], "shuffled labels")
    _hold(scores, abs(_first(scores) - 1 / 3) <= 0.1, "about 1/3 on shuffled labels of three equal classes")

    _checked(protocol, train.rows((train.labels != 2).nonzero()[:, 0]), test, "a class that train lacks")
    _checked(protocol, train, test.rows(torch.tensor([0])), "one test row")
    _checked(protocol, train.rows(torch.tensor([0, 1])), test, "two train rows")


def _blobs(*, rows: int, seed: int, spread: float = 0.1) -> FeatureSet:
    """Three equal classes around (10, 0, 0, 0, 0), (0, 10, 0, 0, 0) and (0, 0, 10, 0, 0)."""
    labels = torch.arange(rows) % 3
    centres = 10 * torch.eye(3, 5)
    noise = np.random.Generator(np.random.Philox(seed)).normal(scale=spread, size=(rows, 5))
    return FeatureSet(centres[labels] + torch.from_numpy(noise).float(), labels, 3)


def _checked(protocol: Protocol, train: FeatureSet, test: FeatureSet, case: str) -> Scores:
    """Score, and hold what must hold whatever the features are."""
    arguments = [train.features, train.labels, test.features, test.labels]
    before = [tensor.clone() for tensor in arguments]
    states = _random_states()
    try:
        scores = protocol.score(train, test, seed=0)
    except Exception as error:
        raise ProtocolError(f"{protocol!r} fails on {case}: {type(error).__name__}: {error}") from error
    promises = {
        "arguments left as they were": all(torch.equal(one, other) for one, other in zip(arguments, before)),
        "the global random state of torch and numpy left as it was": _random_states() == states,
        "predictions int64 (n_test,)": (
            scores.predictions.dtype == torch.int64 and scores.predictions.shape == test.labels.shape
        ),
        "predictions of known classes": bool(((scores.predictions >= 0) & (scores.predictions < train.classes)).all()),
        "at least one metric": bool(scores.metrics),
        "metrics that are fractions in 0..1": all(0 <= value <= 1 for value in scores.metrics.values()),
        "details that are plain JSON": _is_json(scores.details),
    }
    for promise, kept in promises.items():
        _hold(scores, kept, f"{promise} ({case})")
    return scores


def _hold(scores: Scores, kept: bool, promise: str) -> None:
    if not kept:
        raise ProtocolError(f"expected {promise}; got metrics {scores.metrics}")


def _first(scores: Scores) -> float:
    return next(iter(scores.metrics.values()))


def _same(one: Scores, other: Scores) -> bool:
    alike = one.metrics == other.metrics and one.details == other.details
    return alike and torch.equal(one.predictions, other.predictions)


def _random_states() -> tuple[t.Any, ...]:
    # numpy's global state is read here to see that nobody used it
    name, keys, *rest = t.cast("tuple[t.Any, ...]", np.random.get_state())
    return torch.get_rng_state().tolist(), name, keys.tolist(), rest


def _is_json(details: t.Any) -> bool:
    try:
        return bool(json.loads(json.dumps(details, allow_nan=False)) == details)
    except (TypeError, ValueError):
        return False
