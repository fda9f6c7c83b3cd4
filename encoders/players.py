"""Who moves in a training, down which loss and in which turn: players, their optimisers and schedules.

A step is a list of turns. A turn is one forward pass and the losses of the players that move on it: two players in
one turn are updated simultaneously, each by its gradient at the same parameters; players in successive turns alternate.
"""

import dataclasses
import math
import typing as t

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam as the papers set it: `weight_decay` is an L2 term added to the gradient."""

    learning_rate: float
    beta1: float = 0.5
    beta2: float = 0.999
    weight_decay: float = 0.0

    def __call__(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        betas = (self.beta1, self.beta2)
        return torch.optim.Adam(
            parameters, self.learning_rate, betas, weight_decay=self.weight_decay, fused=_dense(parameters)
        )


@dataclasses.dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum, Nesterov's if asked; `weight_decay` as for Adam."""

    learning_rate: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False

    def __call__(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            parameters,
            self.learning_rate,
            self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            fused=_dense(parameters),
        )


@dataclasses.dataclass(frozen=True)
class LARS:
    """SGD with momentum whose steps are scaled by layer (You et al. 2017, arXiv:1708.03888).

    The gradient of a weight, its L2 term included, is multiplied by `trust` |weight| / |gradient| over the learning
    rate, at the most by 1: solo-learn's `clip_lr`. Biases and norms have neither the factor nor the L2 term.
    """

    learning_rate: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    trust: float = 0.02

    def __call__(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return _LARS(parameters, self.learning_rate, self.momentum, self.weight_decay, self.trust)


class _LARS(torch.optim.Optimizer):
    def __init__(
        self, params: t.Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float, trust: float
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: t.Any = None) -> None:  # type: ignore[override]  # noqa: ARG002 - no closure in the loop
        for group in self.param_groups:
            for weight in group["params"]:
                move = weight.grad
                if weight.ndim > 1:
                    size, slope = weight.norm(), move.norm()
                    decay = group["weight_decay"]
                    factor = (group["trust"] / group["lr"] * size / (slope + decay * size + 1e-8)).clamp(max=1)
                    move = torch.where((size > 0) & (slope > 0), factor * (move + decay * weight), move)
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight)
                velocity = state["momentum_buffer"].mul_(group["momentum"]).add_(move)
                weight.sub_(velocity, alpha=group["lr"])


def _dense(parameters: list[nn.Parameter]) -> bool:
    """Whether none is a part of a larger tensor: fused optimisers would go through the memory of the whole."""
    return all(torch.empty_like(parameter).stride() == parameter.stride() for parameter in parameters)


def constant(fraction: float) -> float:  # noqa: ARG001 - a schedule is a function of the fraction done
    return 1.0


def constant_then_decay(fraction: float) -> float:
    """Constant for the first half of the training, then exponentially down to 1 % (Donahue et al. 2017)."""
    return 0.01 ** max(0.0, 2 * fraction - 1)


@dataclasses.dataclass(frozen=True)
class WarmupCosine:
    """Linearly up over the share `warmup` of the training, from 1e-4; then down to 0 as half a cosine does."""

    warmup: float

    def __call__(self, fraction: float) -> float:
        if fraction < self.warmup:
            return max(fraction / self.warmup, 1e-4)
        return (1 + math.cos(math.pi * (fraction - self.warmup) / (1 - self.warmup))) / 2


@dataclasses.dataclass(frozen=True)
class Player:
    """Networks that move together down one loss. Parameters that require no gradient stay where `after` puts them."""

    name: str
    networks: t.Sequence[nn.Module]
    optimizer: t.Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    schedule: t.Callable[[float], float] = constant  # fraction of the epochs done -> factor of the learning rate
    after: t.Callable[[], None] | None = None  # called when the player has moved, such as to clip its weights
    by_step: bool = False  # the schedule follows the steps within an epoch, too

    def parameters(self) -> list[nn.Parameter]:
        return [one for network in self.networks for one in network.parameters() if one.requires_grad]


def once(step: int) -> int:  # noqa: ARG001 - how often a turn is taken is a function of the step
    return 1


@dataclasses.dataclass(frozen=True)
class Turn:
    """One forward pass on uint8 images (b, c, h, w) gives {player: its loss}; just those players move, at once.

    What it gives under the names in `observes` moves nobody: the history keeps its mean over each epoch. A turn that
    `reads_labels` is given those of the images too: int64 (b,), -1 where withheld.
    """

    losses: t.Callable[..., dict[str, Tensor]]
    times: t.Callable[[int], int] = once  # step, from 0 -> repetitions within it, each on images of its own
    observes: tuple[str, ...] = ()
    reads_labels: bool = False
    ends_with_epoch: bool = False  # with fewer repetitions where the epoch has no images left for all
