"""Small views of frozen features, left beside a run's records for a page to show: a map's points, and neighbours."""

import io
import typing as t

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from bench.pipeline import samples
from encoders.base import ImageSet
from protocols.base import FeatureSet
from protocols.nearest import nearest
from results import files
from results.layout import RunDirectory

POINTS = 500  # test images of a map
DIMENSIONS = 50  # of their features that are kept
QUERIES = 10  # test images whose neighbours are shown
NEIGHBOURS = 9


class Neighbourhood(t.NamedTuple):
    """Some test images and their nearest training images by Euclidean distance, nearest first."""

    queries: Tensor  # int64 (q,), rows of test: the first of each class, of the first QUERIES classes
    rows: Tensor  # int64 (q, k), rows of train
    distances: Tensor  # float64 (q, k)


def keep(directory: RunDirectory, tap: str, features: dict[str, FeatureSet], images: dict[str, ImageSet]) -> None:
    """Write the views of one tap, from the features and images of `train` and `test`. Raises files.Unwritable."""
    train, test = features["train"], features["test"]
    points = evenly(len(test))
    projected, shares = projection(test.features[points])
    found = neighbourhood(train, test)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        classes=np.array(images["test"].classes),
        points=points.numpy(),
        labels=test.labels[points].numpy(),
        projection=projected.numpy(),
        variance_shares=shares.numpy(),
        queries=found.queries.numpy(),
        query_labels=test.labels[found.queries].numpy(),
        neighbours=found.rows.numpy(),
        neighbour_labels=train.labels[found.rows].numpy(),
        distances=found.distances.numpy(),
    )
    files.replace(directory.view(tap), buffer.getvalue())
    files.replace(directory.neighbours(tap), _strip(found, images["train"], images["test"]))


def evenly(count: int) -> Tensor:
    """At most POINTS rows of `count`, in even steps: rows lie in an order that has nothing to do with their images."""
    points = min(count, POINTS)
    return torch.arange(points) * count // points


def projection(features: Tensor) -> tuple[Tensor, Tensor]:
    """Principal components of features (n, d): float32 (n, p), p at most DIMENSIONS, and the variance's share of each.

    Equal up to sign to what any other program gives; here the largest coordinate of each component is positive.
    """
    rows = features.double()
    rows = rows - rows.mean(dim=0)
    products = (rows @ rows.T).numpy()  # n x n, however wide the features are
    last = len(rows) - 1
    found = scipy.linalg.eigh(products, subset_by_index=(last - min(DIMENSIONS - 1, last, rows.shape[1] - 1), last))
    variances, directions = (torch.from_numpy(part[..., ::-1].copy()) for part in found)  # the largest first
    variances.clamp_(min=0)
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    projected = directions * largest.sign() * variances.sqrt()
    return projected.float(), (variances / max(products.trace(), 1e-300)).float()


def neighbourhood(train: FeatureSet, test: FeatureSet) -> Neighbourhood:
    """The nearest training rows of the first test row of each class."""
    _, first = np.unique(test.labels.numpy(), return_index=True)
    queries = torch.from_numpy(first[:QUERIES])
    found = nearest(test.features[queries], train.features, min(NEIGHBOURS, len(train)), "euclidean")
    return Neighbourhood(queries, found.rows, found.distances)


def _strip(found: Neighbourhood, train: ImageSet, test: ImageSet) -> bytes:
    """A PNG: in each row a test image and, right of it, its neighbours."""
    shown = [
        torch.from_numpy(np.concatenate([test.images[[query]], train.images[rows]]))
        for query, rows in zip(found.queries.tolist(), found.rows.numpy())
    ]
    return samples.grid(torch.cat(shown) / 255, columns=1 + found.rows.shape[1])
