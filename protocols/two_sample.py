"""How often a fresh classifier tells samples from real images: the classifier two-sample test."""

import torch
from scipy.stats import binom

from protocols.base import FeatureSet, Quality, SampleProtocol, Samples
from protocols.generative import CLASSIFIER_IMAGES, looked_at, train_classifier


class TwoSample(SampleProtocol):
    """The accuracy of a classifier that tells samples from test images, and its p-value if they were alike.

    Half of the samples and as many train images fit a small convolutional network, which starts afresh for every
    generator; it then tells apart the other half and as many test images. Samples are rounded to 256 greys first, as
    images are stored.

    - `two_sample_accuracy`: 0.5 is chance, which is best; 1 says that it always can.
    - `two_sample_p`: the probability of this accuracy or a higher one if samples and images were of one distribution:
      the number that it tells right is then at most as spread as a fair coin's, so n of them are Binomial(n, 1/2).
      Small says that they differ; large, that this network cannot tell.

    A generator without a prior has no samples, and gets no number. Differs from the source: the network sees a fixed
    number of images in training, and the null distribution is exact, not normal.
    """

    source = "Lopez-Paz and Oquab 2017, arXiv:1610.06545"

    def judge(self, made: Samples, train: FeatureSet, test: FeatureSet, *, seed: int) -> Quality:
        if made.images is None:
            return Quality({}, {})
        samples = made.images.flatten(1).mul(255).round().div(255)
        fitted, unseen = samples.tensor_split([len(samples) // 2])
        fitted, unseen = fitted[: len(train)], unseen[: len(test)]
        chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[: len(fitted)]
        real = torch.arange(2, device=samples.device).repeat_interleave(len(fitted))
        both = FeatureSet(torch.cat([fitted, train.features[chosen]]), real, 2)
        classifier = train_classifier(both, made.shape, CLASSIFIER_IMAGES)
        predicted = looked_at(classifier, torch.cat([unseen, test.features[: len(unseen)]]))[1]
        right = int((predicted == torch.arange(2, device=predicted.device).repeat_interleave(len(unseen))).sum())
        metrics = {
            "two_sample_accuracy": right / len(predicted),
            "two_sample_p": float(binom.sf(right - 1, len(predicted), 0.5)),
        }
        return Quality(metrics, {"held_out": len(predicted), "told_right": right})
