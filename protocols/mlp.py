"""MLP: one hidden layer on frozen features, which asks what a small network finds in them, not what a line does.

Source: the probe of Deep InfoMax (Hjelm et al. 2019, arXiv:1808.06670), table 1, as its code has it: 200 units, batch
normalisation, dropout of 0.1, ReLU. Differs: theirs takes features as they are and trains for 1,000 epochs at 1e-4, cut
to a tenth after 50 and after 100, in batches of 64, and the paper averages the last 100 epochs' test accuracy; here
validation rows choose the learning rate, it falls along a cosine, and test is read once, at the end.
"""

import typing as t

import torch
from pydantic import Field, PositiveInt
from torch import nn

from protocols.descent import Descent, Epochs, LearningRates


class MLP(Descent):
    """Accuracy of a network with one hidden layer on the frozen features.

    Trained by Adam, see `Descent`; no linear probe, and no number of one to be compared with it.
    """

    source = "Hjelm et al. 2019, arXiv:1808.06670, table 1"

    learning_rates: LearningRates = (3e-3, 1e-3, 3e-4)
    epochs: Epochs = 30
    units: PositiveInt = 200
    """Units of the hidden layer."""
    dropout: t.Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Probability that a hidden unit is dropped in training."""

    def network(self, dimensions: int, classes: int) -> nn.Module:
        return nn.Sequential(
            nn.Linear(dimensions, self.units),
            nn.BatchNorm1d(self.units),
            nn.Dropout(self.dropout),
            nn.ReLU(),
            nn.Linear(self.units, classes),
        )

    def optimizer(self, parameters: t.Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, learning_rate)
