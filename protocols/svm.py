"""Linear SVM: a squared-hinge separation of each class from the others on frozen features, solved to a certificate.

Source: the L2-SVM on the features of DCGAN (Radford et al. 2015, arXiv:1511.06434) and ALI (Dumoulin et al. 2016,
arXiv:1606.00704): scikit-learn's LinearSVC, its C chosen on held-out train rows. Differs: LinearSVC takes the features
as they are and penalises the biases like weights, less so the larger its `intercept_scaling`; here features are
standardised and the biases free.
"""

import torch
from torch import Tensor

from protocols.probe import Probe, Strengths
from protocols.solver import Loss, Losses


class SVM(Probe):
    """Accuracy of a linear one-vs-rest L2-SVM on the frozen features.

    Features are standardised by the mean and standard deviation of the rows fitted on (a constant feature becomes 0).
    Then the mean over rows of the squared hinges max(0, 1 - sign * logit)^2, summed over classes (the sign is 1 for
    the row's own class and -1 for the others), + strength / 2 * |weights|^2 is minimised, the biases not penalised;
    scikit-learn's C is 1 / (strength * rows). The largest logit wins. The strength has the lowest mean of these
    sums on held-out train rows, and test is read once: see `Probe`.
    """

    version = 5  # 1 to 4 chose by validation accuracy, down to 3e-4
    equal_versions = ((4, 3, 2, 1),)
    source = "Radford et al. 2015, arXiv:1511.06434; Dumoulin et al. 2016, arXiv:1606.00704"

    strengths: Strengths = (10.0, 3.0, 1.0, 3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6)

    @property
    def loss(self) -> Loss:
        return SquaredHinge()


class SquaredHinge(Loss):
    """The sum over classes of max(0, 1 - sign * logit)^2; sign is 1 for the label's class, -1 for the others."""

    couples_classes = False

    def __call__(self, logits: Tensor, labels: Tensor) -> Losses:
        own = labels[:, None]
        short = (1 + logits).scatter_(1, own, 1 - logits.gather(1, own)).clamp_(min=0)  # of its side's margin
        slopes = 2 * short
        slopes.scatter_(1, own, -slopes.gather(1, own))
        return Losses(short.square().sum(dim=1), slopes, 2 * short.count_nonzero().double())

    def first_biases(self, shares: Tensor) -> Tensor:
        return 2 * shares - 1

    def best_biases(self, plain: Tensor, labels: Tensor, biases: Tensor) -> tuple[Tensor, bool]:
        """Newton's method for each class by itself, in an interval that holds the best bias and closes in on it."""
        low, high = (-1 - plain.amax(dim=0)).double(), (1 - plain.amin(dim=0)).double()
        for _ in range(50):
            slopes = self(plain + biases.float(), labels).slopes
            slope = slopes.mean(dim=0, dtype=torch.float64)
            if float(slope.abs().max()) <= 1e-6:
                return biases, True
            low, high = torch.where(slope < 0, biases, low), torch.where(slope > 0, biases, high)
            newton = biases - slope / (2 * (slopes != 0).double().mean(dim=0))
            biases = torch.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
        return biases, False
