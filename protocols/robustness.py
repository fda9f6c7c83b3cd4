"""Robustness: how much of a probe's accuracy is left on corrupted test images, none of which it was fitted on.

Source: Hendrycks and Dietterich 2019, arXiv:1903.12261. Differs: the classifier is a probe of frozen features; the
number is accuracy, not error relative to a reference network's; the damage is that of bench/datasets/corruptions.py.
"""

import collections
import typing as t

import torch
from torch import Tensor

from protocols.base import Corrupted, CorruptionProtocol, FeatureSet, Scores, accuracy
from protocols.linear import Linear
from protocols.nearest import nearest


class Robustness(CorruptionProtocol):
    """Accuracy on corrupted test images of a probe fitted on clean train features.

    The probe is fitted once: the class of the nearest train row (`knn`: k = 1, Euclidean), or logistic regression
    (`linear`, as the protocol of that name by default). The test images are then read, first clean, then with each kind
    of damage (noise, blur, rotation, occlusion, contrast) at severities 1 to 5, the same images for every encoder.

    `corrupted_top1`: the mean over kinds and severities. `clean_top1`: on the images as they are, which is also what
    the predictions are of. Details: for each kind its mean `top1` and the share at each severity, and the probe's fit.
    """

    version = 5  # 1 to 4 chose the linear probe's strength by validation accuracy
    equal_versions = ((4, 3, 2, 1),)  # 2 to 5 of linear are equal, and knn has no solver
    source = "Hendrycks and Dietterich 2019, arXiv:1903.12261"

    probe: t.Literal["knn", "linear"] = "knn"
    """Classifier that is fitted on clean features: the nearest train row, or logistic regression."""

    def judge(self, train: FeatureSet, test: FeatureSet, corrupted: t.Iterable[Corrupted], *, seed: int) -> Scores:
        classify, details = self._fitted(train, seed)
        predictions = classify(test.features)
        clean = accuracy(predictions, test.labels)
        found: dict[str, dict[str, float]] = collections.defaultdict(dict)
        others = {}
        for kind, severity, rows in corrupted:
            others[f"{kind}{severity}"] = classify(rows.features)
            found[kind][str(severity)] = accuracy(others[f"{kind}{severity}"], rows.labels)
        kinds = {kind: {"top1": _mean(shares), "severities": shares} for kind, shares in found.items()}
        metrics = {"corrupted_top1": _mean({kind: _mean(shares) for kind, shares in found.items()})}
        return Scores(metrics | {"clean_top1": clean}, predictions, {"corruptions": kinds, **details}, others)

    def _fitted(self, train: FeatureSet, seed: int) -> tuple[t.Callable[[Tensor], Tensor], dict[str, t.Any]]:
        """From features (n, d) to classes (n,); and what is to be told of the fit."""
        if self.probe == "knn":
            return lambda x: train.labels[nearest(x, train.features, 1, "euclidean").rows[:, 0]], {}
        problem, fit, details = Linear().fit(train, seed)
        return lambda x: problem.predictions(problem.logits(fit, x)), {"fit": details}


def _mean(shares: dict[str, float]) -> float:
    return float(torch.tensor(list(shares.values()), dtype=torch.float64).mean())
