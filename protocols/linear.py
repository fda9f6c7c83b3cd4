"""Linear probe: multinomial logistic regression on frozen features, solved to a certificate.

Source: logistic-regression probes of frozen features (Alain and Bengio 2016, arXiv:1610.01644), with the strength
chosen on held-out train rows as DCGAN chose its SVM's (Radford et al. 2015, arXiv:1511.06434). Differs from probes
trained by SGD: the problem is convex, so it is solved, and the details say how nearly.
"""

import torch
from torch import Tensor

from protocols.probe import Probe, Strengths
from protocols.solver import Fit, Loss, Losses, Problem


class Linear(Probe):
    """Accuracy of multinomial logistic regression on the frozen features.

    Features are standardised by the mean and standard deviation of the rows fitted on (a constant feature becomes 0).
    Then mean cross-entropy (nats) + strength / 2 * |weights|^2 is minimised, the biases not penalised; scikit-learn's C
    is 1 / (strength * rows). The strength has the lowest mean cross-entropy on held-out train rows,
    and test is read once: see `Probe`.
    """

    version = 6  # 1 to 5 chose by validation accuracy, to a gap of 1e-3, down to 3e-5
    equal_versions = ((5, 4, 3, 2),)  # 1 chose another strength in half of the trials
    source = "Alain and Bengio 2016, arXiv:1610.01644"

    strengths: Strengths = (1.0, 3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6)

    @property
    def loss(self) -> Loss:
        return CrossEntropy()


def fit(features: Tensor, labels: Tensor, strength: float, tolerance: float = 1e-5, max_passes: int = 1000) -> Fit:
    """One regression of labels (n,) on features (n, d), standardised inside, without a selection."""
    return Problem(features, labels, CrossEntropy()).solve(strength, tolerance, max_passes, None)


class CrossEntropy(Loss):
    """-log softmax(logits)[label], in nats."""

    likelihood = True
    couples_classes = True

    def __call__(self, logits: Tensor, labels: Tensor) -> Losses:
        total, own = logits.logsumexp(dim=1, keepdim=True), labels[:, None]
        values = (total - logits.gather(1, own))[:, 0]
        slopes = (logits - total).exp_()  # the probabilities, minus 1 at the right class
        curvature = (slopes - slopes.square()).sum(dtype=torch.float64)
        slopes.scatter_add_(1, own, -torch.ones_like(total))
        return Losses(values, slopes, curvature)

    def first_biases(self, shares: Tensor) -> Tensor:
        return shares.log()

    def best_biases(self, plain: Tensor, labels: Tensor, biases: Tensor) -> tuple[Tensor, bool]:
        """Biases that make each class as probable as it is frequent, and whether they were found.

        Newton's method with the step length that always goes downhill (Sun and Tran-Dinh 2019, arXiv:1703.04599).
        """
        classes = len(biases)
        shares = labels.bincount().double() / len(labels)
        for _ in range(50):
            probabilities = torch.softmax(plain + biases.float(), dim=1)
            excess = probabilities.mean(dim=0, dtype=torch.float64) - shares
            if float(excess.abs().max()) <= 1e-6:
                return biases, True
            pairs = torch.stack([p.T @ p for p in torch.split(probabilities, 8192)]).double().sum(0) / len(plain)
            pairs.fill_diagonal_(0)
            curvature = pairs.sum(dim=0).diag() - pairs + 1 / classes  # adding the same to all biases changes nothing
            curvature.diagonal().add_(1e-9)
            move = torch.linalg.solve(curvature, excess)
            length = move.max() - move.min()
            biases = biases - move * torch.log1p(length) / length
        return biases, False
