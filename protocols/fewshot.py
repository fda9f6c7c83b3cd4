"""Few-shot probe: a linear head that is shown a few labelled rows a class, drawn again and again.

Source: the 1,000 balanced labels of SVHN in DCGAN (Radford et al. 2015, arXiv:1511.06434) and ALI (Dumoulin et al.
2016, arXiv:1606.00704): an L2-SVM, the mean of 100 draws. Differs: they choose its C on 10,000 further labelled rows,
which no one with so few labels has; here the strength is chosen within the labels drawn.
"""

import math
import statistics
import typing as t

import numpy as np
import torch
from pydantic import PositiveInt

from protocols.base import FeatureSet, Protocol, Scores, accuracy
from protocols.linear import Linear
from protocols.probabilities import beside
from protocols.probe import Probe
from protocols.svm import SVM

HEADS: dict[str, Probe] = {"svm": SVM(), "linear": Linear()}


class FewShot(Protocol):
    """Accuracy of a classifier fitted on a few labels per class, averaged over random draws.

    A draw takes `labels` train rows of each class (all of a class that has fewer) without replacement, and the head,
    `svm` or `linear` with its defaults, chooses its strength on a split of these and is fitted on all of them. No other
    train row is read, and features are standardised by the rows drawn, which hurts where these are very few. Draw i is
    the same for the same labels and seed, and fewer draws are the first of more. Where no class has more rows than
    `labels`, one draw is made, of all rows, and a warning stands in the details.

    `mean_top1`: over draws, as are top-5 and, of the head `linear`, log loss and calibration: see
    `protocols.probabilities`. Predictions are those of the first draw: a vote of all draws would have seen more labels.
    Details: `spread`, the standard deviation over draws (0 for one); `draws`, each with its `top1`, its `rows`, and the
    head's details, the selection path among them.
    """

    version = 5  # 1 to 4 chose the head's strength by validation accuracy
    equal_versions = ((4, 3, 2),)  # 1 moved 3 of 1,000 in one trial of 5
    source = "Radford et al. 2015, arXiv:1511.06434; Dumoulin et al. 2016, arXiv:1606.00704"

    labels: PositiveInt = 10
    """Labelled train rows per class."""
    draws: PositiveInt = 10
    """Number of random draws that are averaged."""
    head: t.Literal["svm", "linear"] = "svm"
    """Classifier that is fitted on each draw, with its defaults."""

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:
        fitted = []
        largest = int(train.labels.bincount().max())
        count = self.draws if self.labels < largest else 1  # of all rows there is one draw
        for draw in range(count):
            rows = balanced(train.labels.cpu().numpy(), self.labels, (seed, draw))
            few = train.rows(torch.from_numpy(rows).to(train.labels.device))
            fitted.append((len(rows), *HEADS[self.head].fit(few, seed)))
        queries = test.features
        outputs = [problem.logits(fit, queries) for _, problem, fit, _ in fitted]
        answers = [problem.predictions(logits) for (_, problem, _, _), logits in zip(fitted, outputs)]
        truth = test.labels
        likelihood = HEADS[self.head].loss.likelihood
        more = [
            beside(problem.of_all_classes(logits, test.classes), predictions, truth, likelihood=likelihood)
            for (_, problem, _, _), logits, predictions in zip(fitted, outputs, answers)
        ]
        top1 = [accuracy(predictions, truth) for predictions in answers]
        draws = [{"top1": one, "rows": rows} | about for one, (rows, _, _, about) in zip(top1, fitted)]
        details: dict[str, t.Any] = {"spread": statistics.stdev(top1) if count > 1 else 0.0, "draws": draws}
        if count < self.draws:
            asked = f"draws={self.draws} with labels={self.labels}, but no class has more than {largest} train rows"
            details["warning"] = f"{asked}; using one draw of all rows"
        others = {f"draw{draw}": predictions for draw, predictions in enumerate(answers) if draw}
        means = {name: math.fsum(one[name] for one in more) / count for name in more[0]}  # draws have the same classes
        return Scores({"mean_top1": math.fsum(top1) / count} | means, answers[0], details, others)


def balanced(
    labels: np.ndarray[t.Any, np.dtype[np.int64]], each: int, entropy: t.Sequence[int]
) -> np.ndarray[t.Any, np.dtype[np.int64]]:
    """Sorted indices of `each` random rows of every class, or of all rows of a class that has fewer."""
    shuffled = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy))).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, first, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    rank = np.arange(len(labels)) - np.repeat(first, counts)  # within its class
    return np.sort(by_class[rank < each])
