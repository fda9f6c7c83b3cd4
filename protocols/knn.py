"""k-NN: a test row takes the class that its k nearest train rows vote for, found exactly.

Source: k=1, Euclidean, un-normalised features as in BiGAN (Donahue et al. 2017, arXiv:1605.09782); cosine with weights
exp(similarity / temperature) as in InstDisc (Wu et al. 2018, arXiv:1805.01978) and DINO (Caron et al. 2021,
arXiv:2104.14294). Differs: neighbours are the float64 ones, with stated rules for ties, on every device.
"""

import logging
import typing as t

import torch
from pydantic import PositiveFloat, PositiveInt, model_validator

from protocols.base import FeatureSet, Protocol, Scores, accuracy
from protocols.nearest import Metric, Neighbours, nearest
from protocols.probabilities import beside

logger = logging.getLogger(__name__)


class KNN(Protocol):
    """Accuracy of the vote of the nearest train rows (the gallery).

    Neighbours are those of distances computed in float64: Euclidean, or 1 - cosine similarity, where a row of zeros has
    similarity 0 to every row. The rules where a choice is needed:

    - equal distances: the smaller gallery row is nearer. Cosine similarities are equal where nothing but float64's
      rounding parts them: those of rows of one direction, of rows of zeros, of whole numbers;
    - equal votes: the smaller class label wins, as in scikit-learn;
    - k beyond the gallery: every gallery row votes, with a warning in the log and in the details;
    - `distance` weights are 1 / distance; where some neighbours lie at distance 0, only those vote, as in scikit-learn.

    Beside `top1`, for k of at least 5 and more than ten classes: `top5`, the share of test rows whose class is among
    the five with the most votes; of equals the smaller label, and never one without a vote. Votes are no probabilities:
    one test row whose class has none would make a log loss infinite.

    Details: `k` as used, and `exact_scans`, the number of test rows whose neighbours the fast search could not prove,
    so that a scan of the whole gallery in float64 found them; settings that are scored together share a search.
    """

    source = "Donahue et al. 2017, arXiv:1605.09782; Wu et al. 2018, arXiv:1805.01978"

    k: PositiveInt = 1
    """Number of neighbours that vote."""
    metric: Metric = "euclidean"
    """Distance between features; cosine is 1 - cosine similarity."""
    weights: t.Literal["uniform", "distance", "temperature"] = "uniform"
    """Weight of a vote: equal, 1 / distance, or exp(cosine similarity / temperature)."""
    temperature: PositiveFloat = 0.07
    """Temperature of the weights; only for temperature weights."""

    @model_validator(mode="after")
    def _temperature_is_of_similarities(self) -> t.Self:
        if self.weights == "temperature" and self.metric != "cosine":
            raise ValueError("temperature weights are exp(cosine similarity / temperature); add `metric: cosine`")
        return self

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:
        return next(self.score_all([self], train, test, seed=seed))

    @classmethod
    def score_all(
        cls,
        protocols: t.Sequence[t.Self],
        train: FeatureSet,
        test: FeatureSet,
        *,
        seed: int,  # noqa: ARG003  # nothing is drawn
    ) -> t.Iterator[Scores]:
        """One search for each metric, for the largest k that is asked of it."""
        found: dict[Metric, Neighbours] = {}
        for protocol in protocols:
            metric = protocol.metric
            if metric not in found:
                most = max(other.k for other in protocols if other.metric == metric)
                found[metric] = nearest(test.features, train.features, min(most, len(train)), metric)
            yield protocol._judge(found[metric], train, test)

    def _judge(self, found: Neighbours, train: FeatureSet, test: FeatureSet) -> Scores:
        """What the first k of the neighbours vote for."""
        k = min(self.k, len(train))
        rows, distances = found.rows[:, :k], found.distances[:, :k]
        if self.weights == "uniform":
            weights = torch.ones_like(distances)
        elif self.weights == "distance":
            weights = 1 / distances
            touches = weights.isinf()
            weights = torch.where(touches.any(dim=1, keepdim=True), touches.double(), weights)
        else:  # relative to the nearest, so that no temperature overflows
            weights = torch.exp((distances[:, :1] - distances) / self.temperature)
        votes = torch.zeros(len(test), train.classes, dtype=torch.float64, device=weights.device)
        every = torch.arange(len(test), device=weights.device)
        for i in range(k):  # one neighbour at a time: the order of the sum is the same on every device
            votes[every, train.labels[rows[:, i]]] += weights[:, i]
        predictions = votes.argmax(dim=1)  # the first of equals
        details: dict[str, t.Any] = {"k": k, "exact_scans": found.exact_scans}
        if k < self.k:
            details["warning"] = f"k={self.k} neighbours asked of {len(train)} gallery rows; using {k}"
            logger.warning(details["warning"])
        truth = test.labels
        metrics = {"top1": accuracy(predictions, truth)}
        if self.k >= 5:
            metrics |= beside(votes.log(), predictions, truth, likelihood=False)
        return Scores(metrics, predictions, details)
