"""What counts every class alike, however many images it has: recalls, balanced accuracy and macro F1.

From the predictions beside a record, so that old records have them too. Source: scikit-learn's definitions.
"""

import re
import typing as t

import numpy as np

from results.predictions import Classes, Predictions
from results.statistics import Answers

Counts = np.ndarray[t.Any, np.dtype[np.float64]]  # (classes,)


def scores(predictions: Predictions) -> dict[str, float]:
    """Every metric by its name, the mean over draws.

    `recall_3`: the share of the images of class 3 that are given it; a class without test images has none.
    `balanced_accuracy`: the mean of the recalls. `macro_f1`: the mean over classes of 2 * right / (images + times
    predicted); a class without test images counts as 0 if it is predicted and not at all if it is not.
    """
    size = 1 + int(max(predictions.predicted.max(), predictions.label.max()))
    counted = [_counts(one, predictions.label, size) for one in predictions.predicted]
    images = counted[0].images
    there = images.nonzero()[0].tolist()
    recalls = np.mean([one.right for one in counted], axis=0) / np.maximum(images, 1)
    found = {"balanced_accuracy": float(recalls[there].mean())}
    found["macro_f1"] = float(np.mean([one.f1.sum() / np.count_nonzero(one.both) for one in counted]))
    return found | {f"recall_{one}": float(recalls[one]) for one in there}


def is_by_class(metric: str | None) -> bool:
    return bool(re.fullmatch(r"balanced_accuracy|macro_f1|recall_\d+", metric or ""))


def answers(metric: str, rows: t.Sequence[t.Sequence[Predictions | None]]) -> Answers | None:
    """What rows, each of several seeds, answered, as the metric counts it; None if no row has test images to tell.

    Images are drawn class by class: the metric is a mean over classes of means over their images. That is exact for
    recalls and balanced accuracy; for F1 it is linear in how often each image is drawn, near what was drawn.
    """
    known = next((one for row in rows for one in row if one), None)
    if known is None:
        return None
    classes = [int(metric.removeprefix("recall_"))] if metric.startswith("recall_") else np.unique(known.label).tolist()
    strata = [(1 / len(classes), (known.label == one).nonzero()[0]) for one in classes]
    count = _f1_of_images if metric == "macro_f1" else _right
    whole = [
        np.stack([count(one) for one in row if one]) if all(one and _is_same(one, known) for one in row) else None
        for row in rows
    ]
    return Answers.by_stratum(whole, strata)


def _is_same(one: Predictions, other: Predictions) -> bool:
    return np.array_equal(one.label, other.label)


class _Counts(t.NamedTuple):
    right: Counts
    images: Counts
    predicted: Counts

    @property
    def both(self) -> Counts:
        return self.images + self.predicted

    @property
    def f1(self) -> Counts:
        """Of each class; 0 where it is neither there nor predicted."""
        return 2 * self.right / np.maximum(self.both, 1)


def _counts(predicted: Classes, label: Classes, size: int) -> _Counts:
    rows = (label[predicted == label], label, predicted)
    return _Counts(*(np.bincount(one, minlength=size).astype(np.float64) for one in rows))


def _right(predictions: Predictions) -> Counts:
    return np.asarray((predictions.predicted == predictions.label).mean(0))


def _f1_of_images(predictions: Predictions) -> Counts:
    """The slope of macro F1 by how often an image is drawn, times the images of its class and the classes there."""
    found, size = [], 1 + int(max(predictions.predicted.max(), predictions.label.max()))
    for predicted in predictions.predicted:
        one = _counts(predicted, predictions.label, size)
        both = np.maximum(one.both, 1)
        slope = one.f1 / both
        scale = one.images * np.count_nonzero(one.images) / np.count_nonzero(one.both)
        right = np.where(predicted == predictions.label, 2 / both[predictions.label], 0.0)
        found.append(scale[predictions.label] * (right - slope[predictions.label] - slope[predicted]))
    return np.asarray(np.mean(found, axis=0))
