"""RBM: a restricted Boltzmann machine, whose hidden units' probabilities are the features.

Source: Smolensky 1986; fitted by stochastic maximum likelihood, also called persistent contrastive divergence (Tieleman
2008), as scikit-learn's BernoulliRBM does it. Defaults are scikit-learn's. A pixel in [0, 1] is taken for the
probability that it is on.
"""

import math
import typing as t

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from encoders import parameters
from encoders.base import Encoder, Features, ImageSet, ImageShape, Training, derive_seed, frozen
from encoders.networks import unit


class RBM(Encoder):
    """Binary pixels and binary hidden units, each layer independent given the other."""

    source: t.ClassVar[str] = "Tieleman 2008; sklearn.neural_network.BernoulliRBM"

    hidden: PositiveInt = 256
    """Number of hidden units."""
    iterations: PositiveInt = 10
    """Passes over the training images."""
    batch_size: parameters.BatchSize = 10
    learning_rate: PositiveFloat = 0.1
    """Step size of stochastic gradient ascent."""

    @property
    def taps(self) -> tuple[str, ...]:
        return ("hidden",)

    def build(self, shape: ImageShape) -> nn.Module:
        return _HiddenUnits(math.prod(shape), self.hidden)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        from sklearn.neural_network import BernoulliRBM  # noqa: PLC0415 - a second that most runs need not wait

        fitted = BernoulliRBM(
            self.hidden,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            n_iter=self.iterations,
            random_state=derive_seed(run.seed, "rbm") % 2**32,
        ).fit(unit(torch.from_numpy(data.images.reshape(len(data), -1).copy())).numpy())
        module = self.build(data.shape)
        weight, bias = torch.from_numpy(fitted.components_), torch.from_numpy(fitted.intercept_hidden_)
        module.load_state_dict({"weight": weight, "bias": bias})
        return frozen(module).to(run.device)


class _HiddenUnits(nn.Module):
    weight: Tensor
    bias: Tensor

    def __init__(self, pixels: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(hidden, pixels))
        self.register_buffer("bias", torch.zeros(hidden))

    def forward(self, images: Tensor) -> Features:
        return {"hidden": torch.sigmoid(nn.functional.linear(unit(images.flatten(1)), self.weight, self.bias))}
