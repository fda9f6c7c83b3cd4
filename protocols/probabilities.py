"""What a probe's logits say beside the class that it tells: top-5 accuracy, log loss, calibration.

Source: top-5 as in ILSVRC (Russakovsky et al. 2015, arXiv:1409.0575); expected calibration error as in Guo et al. 2017,
arXiv:1706.04599, over 15 bins of equal width.
"""

import torch
from torch import Tensor
from torch.nn import functional

BINS = 15  # of confidence, ((i - 1) / 15, i / 15]
MANY = 10  # classes, above which five guesses tell something


def beside(logits: Tensor, predictions: Tensor, labels: Tensor, *, likelihood: bool) -> dict[str, float]:
    """The metrics of logits (n, classes), predictions (n,) and labels (n,), as far as they are defined.

    logits: -inf for a class that cannot be told, such as one that train lacks. likelihood: their softmax is meant as
    probabilities. `top5`, of more than ten classes: the share of rows whose class is among the five largest logits; of
    equals the smaller class comes first. `log_loss`: mean of -log(probability of the row's class), nats, 0 is best;
    left out where a row's class cannot be told, as it would be infinite. `ece`: in each bin of confidence, which is the
    probability of the predicted class, the mean confidence less the share that is right; the mean of its size over
    rows, 0..1, 0 is best.
    """
    found = {}
    own = logits.gather(1, labels[:, None])
    if logits.shape[1] > MANY:
        smaller = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
        ahead = ((logits > own) | ((logits == own) & smaller)).sum(dim=1)
        found["top5"] = float(((ahead < 5) & own[:, 0].isfinite()).double().mean())
    if likelihood:
        logs = functional.log_softmax(logits.double(), dim=1)
        loss = -logs.gather(1, labels[:, None]).mean()
        if bool(loss.isfinite()):
            found["log_loss"] = max(0.0, float(loss))
        confidence = logs.gather(1, predictions[:, None])[:, 0].exp()
        found["ece"] = calibration_error(confidence, predictions == labels)
    return found


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """The expected calibration error of confidences in 0..1, float64 (n,), and whether each row is right, bool (n,)."""
    edges = confidence * BINS - 1e-9  # rounding moves nothing over an edge
    bins = torch.ceil(edges).long().clamp(1, BINS)
    gaps = torch.zeros(BINS + 1, dtype=torch.float64, device=confidence.device)
    gaps.index_add_(0, bins, confidence - right.double())
    return float(gaps.abs().sum() / len(confidence))
