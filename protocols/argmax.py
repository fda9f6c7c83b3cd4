"""Argmax: the features are a classifier's own scores, and the largest is its answer.

Source: the error of semi-supervised classifiers, as in Makhzani et al. 2015, arXiv:1511.05644, section 5.
"""

from protocols.base import FeatureSet, Protocol, Scores, accuracy


class Argmax(Protocol):
    """Accuracy of the largest feature as the predicted class; of equals, the first.

    Feature i is the score of class i; there can be features beyond the classes, which are not read. Nothing is learned
    and no training label is used, so the number is of the labels that the encoder itself saw.
    """

    source = "Makhzani et al. 2015, arXiv:1511.05644, section 5"
    reads = ("label",)

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:  # noqa: ARG002  # nothing is learned
        predictions = test.features[:, : test.classes].argmax(dim=1)
        return Scores({"top1": accuracy(predictions, test.labels)}, predictions, {})
