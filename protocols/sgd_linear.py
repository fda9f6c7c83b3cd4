"""SGD linear probe: a linear classifier on frozen features, trained as self-supervised learning papers train theirs.

Source: momentum 0.9, no weight decay, batches of 256, 100 epochs along a cosine, as in DINO (Caron et al. 2021,
arXiv:2104.14294). Differs: features are standardised and no image is augmented; validation rows choose the learning
rate, which DINO sweeps on its validation set, and test is read once. The protocol `linear` solves the same problem.
"""

import typing as t

import torch
from torch import nn

from protocols.descent import Descent, Epochs, LearningRates


class SGDLinear(Descent):
    """Accuracy of a linear classifier on the frozen features, trained by SGD.

    Weights and biases start at 0; see `Descent`.
    """

    source = "Caron et al. 2021, arXiv:2104.14294"

    learning_rates: LearningRates = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)
    epochs: Epochs = 100

    def network(self, dimensions: int, classes: int) -> nn.Module:
        linear = nn.Linear(dimensions, classes)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        return linear

    def optimizer(self, parameters: t.Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, learning_rate, momentum=0.9)
