"""Assignment: clusters are named after the training images that belong to them most, then read as predictions.

Source: Makhzani et al. 2015, arXiv:1511.05644, section 6: the most probable validation image of a cluster gives the
whole cluster its label. Differs: the images that name clusters are the training images, so that none is read twice.
"""

import typing as t

import torch

from protocols.base import FeatureSet, Protocol, Scores, accuracy


class Assignment(Protocol):
    """Accuracy of clusters, the largest of d features, that are named after their training images.

    Feature i of a row is how much the row belongs to cluster i. The training rows that belong to a cluster the most are
    its head; where rounding leaves several, the label that most of them have is its name, of equals the smallest.
    Labels of training rows are used for these names only; several clusters can have one name, and a class none.

    `top1` is 1 - the clustering error. Details: `names`, the class of each cluster, and `test_rows`, its size.
    """

    source = "Makhzani et al. 2015, arXiv:1511.05644, section 6"
    reads = ("cluster",)

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:  # noqa: ARG002  # nothing is drawn
        head = train.features == train.features.amax(dim=0)  # (n, clusters)
        votes = torch.stack([head[train.labels == label].sum(dim=0) for label in range(train.classes)])
        names = votes.argmax(dim=0)  # (clusters,); the first of equals
        clusters = test.features.argmax(dim=1)
        predictions = names[clusters]
        sizes = torch.bincount(clusters, minlength=len(names))
        details: dict[str, t.Any] = {"names": names.tolist(), "test_rows": sizes.tolist()}
        return Scores({"top1": accuracy(predictions, test.labels)}, predictions, details)
