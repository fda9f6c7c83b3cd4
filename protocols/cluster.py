"""Clustering: the features fall into as many clusters as there are classes, and each cluster is one class.

Source: accuracy under the best one-to-one matching of clusters and classes (the Hungarian method), as in Xie et al.
2016, arXiv:1511.06335; NMI; the adjusted Rand index of Hubert and Arabie 1985; spectral clusters after Ng, Jordan and
Weiss 2002. Differs: clusters are found in train rows and matched by their labels, so that test rows are read once;
most papers match on the rows that they score, which can only score higher.
"""

import typing as t
import warnings

import numpy as np
import scipy.linalg
import scipy.sparse
import torch
from pydantic import PositiveInt
from torch import Tensor

from protocols.base import FeatureSet, Protocol, Scores, accuracy
from protocols.nearest import nearest

if t.TYPE_CHECKING:
    from sklearn.cluster import KMeans

_DENSE = 1000  # rows up to which all eigenvectors are found at once; beyond, the few that are needed one after another


class Cluster(Protocol):
    """Accuracy of clusters of features, matched one to one with the classes.

    `kmeans`: a test row belongs to the nearest centre. `spectral`: k-means on the leading eigenvectors, rows made unit
    length, of the normalised graph that joins each of at most `rows` train rows, evenly spaced, with its nearest ones;
    a test row belongs where the nearest of them does. There are as many clusters as classes, or as rows if fewer.

    `top1`: accuracy; `nmi`: mutual information of clusters and classes of test rows over the mean of their entropies,
    0..1; `ari`: adjusted Rand index, 1 for the classes themselves, 0 on average for chance, below 0 for worse. All
    are better higher. Features are taken as they are. Details: `names`, the class of each cluster; `train_rows`, its
    size; `train_top1`.
    """

    source = "Xie et al. 2016, arXiv:1511.06335; Ng et al. 2002, NIPS"

    method: t.Literal["kmeans", "spectral"] = "kmeans"
    """How train rows are clustered."""
    restarts: PositiveInt = 10
    """Runs of k-means from random starts; the tightest is kept."""
    neighbours: PositiveInt = 10
    """Nearest rows that each row is joined with in the graph; only for spectral."""
    rows: PositiveInt = 5000
    """Maximum number of train rows that are clustered; only for spectral."""

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:
        from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - a second that most runs need not wait
        from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score  # noqa: PLC0415

        if self.method == "kmeans":
            model = self._kmeans(train.features.cpu().numpy(), train.classes, seed)
            labels, fitted = train.labels, torch.from_numpy(model.labels_).long()
            clusters = torch.from_numpy(model.predict(test.features.cpu().numpy())).long()
        else:
            rows = torch.linspace(0, len(train) - 1, min(self.rows, len(train)), device=train.labels.device).long()
            labels, x = train.labels[rows], train.features[rows]
            embedded = self._embedded(x, min(train.classes, len(x)), seed)
            fitted = torch.from_numpy(self._kmeans(embedded, train.classes, seed).labels_).long()
            clusters = fitted[nearest(test.features, x, 1, "euclidean").rows[:, 0].cpu()]
        votes = np.zeros((int(fitted.max()) + 1, train.classes), np.int64)
        np.add.at(votes, (fitted.numpy(), labels.cpu().numpy()), 1)
        names = torch.from_numpy(linear_sum_assignment(votes, maximize=True)[1])
        truth = test.labels.cpu()
        metrics = {
            "top1": accuracy(names[clusters], truth),
            "nmi": float(np.clip(normalized_mutual_info_score(truth.numpy(), clusters.numpy()), 0, 1)),
            "ari": float(adjusted_rand_score(truth.numpy(), clusters.numpy())),
        }
        details: dict[str, t.Any] = {"names": names.tolist(), "train_rows": votes.sum(axis=1).tolist()}
        details["train_top1"] = accuracy(names[fitted], labels.cpu())
        return Scores(metrics, names[clusters].to(train.labels.device), details)

    def _kmeans(self, x: np.ndarray[t.Any, t.Any], classes: int, seed: int) -> "KMeans":
        from sklearn.cluster import KMeans  # noqa: PLC0415
        from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

        model = KMeans(min(classes, len(x)), n_init=self.restarts, random_state=seed)
        with warnings.catch_warnings():  # of fewer distinct rows than clusters: the details show clusters without rows
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit(x)

    def _embedded(self, x: Tensor, clusters: int, seed: int) -> np.ndarray[t.Any, np.dtype[np.float64]]:
        """Rows as points (n, clusters) on a sphere, close where the graph has many short ways."""
        n, k = len(x), min(self.neighbours, len(x) - 1)
        joined = nearest(x, x, k + 1, "euclidean").rows.cpu().numpy()  # a row is its own neighbour, or its copy is
        ones = np.ones(n * (k + 1))
        graph = scipy.sparse.csr_array((ones, joined.ravel(), np.arange(0, len(ones) + 1, k + 1)), shape=(n, n))
        graph = (graph + graph.T) / 2
        scale = scipy.sparse.diags_array(1 / np.sqrt(graph.sum(axis=1)))
        graph = scale @ graph @ scale
        if n <= _DENSE:
            _, vectors = scipy.linalg.eigh(graph.toarray(), subset_by_index=(n - clusters, n - 1))
        else:
            start = np.random.Generator(np.random.Philox(seed)).normal(size=n)
            _, vectors = scipy.sparse.linalg.eigsh(graph, clusters, which="LA", v0=start)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)
