"""The one training loop. A method says who plays, what each loses and who moves when; everything else is here, once.

A step is a list of turns. A turn is one forward pass and the losses of the players that move on it: two players in
one turn are updated simultaneously, each by its gradient at the same parameters; players in successive turns alternate.

What changes while training is in `State` and nowhere else. Randomness is not part of it: the order of the images is a
pure function of (seed, epoch), and dropout and noise of (seed, step).
"""

import dataclasses
import math
import time
import typing as t

import numpy as np
import torch
from torch import Tensor, nn

from encoders.base import EncoderError, ImageSet, Progress, Training, derive_seed, frozen

REPORT_SECONDS = 0.5  # between two progress reports
SETTLE_BATCHES = 1000  # of 128 images: as many as BiGAN's authors average batch-norm over


class NonFiniteLoss(EncoderError):
    """A loss became NaN or infinite; the message names the step and the player."""


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam as the papers set it: `weight_decay` is an L2 term added to the gradient."""

    learning_rate: float
    beta1: float = 0.5
    beta2: float = 0.999
    weight_decay: float = 0.0

    def __call__(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        betas = (self.beta1, self.beta2)
        return torch.optim.Adam(parameters, self.learning_rate, betas, weight_decay=self.weight_decay, fused=True)


@dataclasses.dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum."""

    learning_rate: float
    momentum: float = 0.0

    def __call__(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, self.learning_rate, self.momentum, fused=True)


def constant(fraction: float) -> float:  # noqa: ARG001 - a schedule is a function of the fraction done
    return 1.0


def constant_then_decay(fraction: float) -> float:
    """Constant for the first half of the training, then exponentially down to 1 % (Donahue et al. 2017)."""
    return 0.01 ** max(0.0, 2 * fraction - 1)


@dataclasses.dataclass(frozen=True)
class Player:
    """Networks that move together down one loss."""

    name: str
    networks: t.Sequence[nn.Module]
    optimizer: t.Callable[[list[nn.Parameter]], torch.optim.Optimizer]
    schedule: t.Callable[[float], float] = constant  # fraction of the epochs done -> factor of the learning rate

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for network in self.networks for parameter in network.parameters()]


@dataclasses.dataclass(frozen=True)
class Turn:
    """One forward pass on uint8 images (b, c, h, w) gives {player: its loss}; just those players move, at once."""

    losses: t.Callable[[Tensor], dict[str, Tensor]]
    times: int = 1  # repetitions within a step, each on images of its own


@dataclasses.dataclass
class State:
    """All that changes while training, at the boundary between two steps: what a checkpoint has to hold."""

    players: dict[str, Player]
    optimizers: dict[str, torch.optim.Optimizer]
    step: int = 0  # steps finished, over all epochs

    @classmethod
    def start(cls, players: t.Sequence[Player]) -> "State":
        return cls({p.name: p for p in players}, {p.name: p.optimizer(p.parameters()) for p in players})


def train(
    run: Training, images: ImageSet, players: t.Sequence[Player], turns: t.Sequence[Turn], epochs: int, batch_size: int
) -> None:
    """Train the players' networks in place, on `run.device`, and append a row an epoch to `run.history`.

    An epoch reads each image once, but for the last incomplete batch. Raises NonFiniteLoss.
    """
    for player in players:
        for network in player.networks:
            network.to(run.device).train()
    state = State.start(players)
    pixels = torch.from_numpy(np.array(images.images)).to(run.device)  # bytes: a quarter of the floats they become
    reads = max(turn.times for turn in turns)  # batches a step uses up
    batch = min(batch_size, len(pixels) // reads)
    steps = len(pixels) // (batch * reads)
    watch = _Watch(run, [p.name for p in players], epochs, steps, batch * reads)
    with run.seeded("training"):
        for epoch in range(epochs):
            for name, optimizer in state.optimizers.items():
                _scale_learning_rate(optimizer, state.players[name].schedule(epoch / epochs))
            order = _order(run, epoch, len(pixels))
            for index in range(steps):
                torch.manual_seed(derive_seed(run.seed, "step", state.step))
                first = index * batch * reads
                for turn in turns:
                    for repetition in range(turn.times):
                        start = first + repetition * batch
                        _take(turn, pixels[order[start : start + batch]], state, run, watch)
                state.step += 1
                watch.step_done()
            watch.epoch_done()


def _take(turn: Turn, images: Tensor, state: State, run: Training, watch: "_Watch") -> None:
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.precision == "bfloat16"):
        losses = turn.losses(images)
    last = len(losses) - 1
    for index, (name, loss) in enumerate(losses.items()):
        parameters = state.players[name].parameters()
        gradients = torch.autograd.grad(loss, parameters, retain_graph=index < last)
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient
        watch.loss(name, loss.detach() / turn.times)
    for name in losses:  # only now: every gradient was taken at the same parameters
        state.optimizers[name].step()


def _scale_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * factor


def _order(run: Training, epoch: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(derive_seed(run.seed, "order", epoch))
    return torch.randperm(count, generator=generator).to(run.device)


class _Watch:
    """Collects losses on the device without waiting for it; looks at them at intervals and at the end of an epoch."""

    def __init__(self, run: Training, names: list[str], epochs: int, steps: int, images_per_step: int) -> None:
        self.run, self.epochs, self.steps, self.images_per_step = run, epochs, steps, images_per_step
        self.columns = {name: column for column, name in enumerate(names)}
        self.losses = torch.zeros(steps, len(names), device=run.device)
        self.epoch = self.index = self.checked = 0
        self.started = self.epoch_started = self.reported = time.perf_counter()

    def loss(self, name: str, value: Tensor) -> None:
        self.losses[self.index, self.columns[name]] += value  # of all repetitions, so that no NaN is lost

    def step_done(self) -> None:
        self.index += 1
        if time.perf_counter() - self.reported > REPORT_SECONDS:
            self._check()
            self._report()

    def epoch_done(self) -> None:
        self._check()
        seconds = time.perf_counter() - self.epoch_started
        means = self._means()
        speed = self.steps * self.images_per_step / seconds
        row = {"epoch": self.epoch + 1, "seconds": seconds, "images_per_second": speed}
        self.run.history.append(row | {f"{name}_loss": mean for name, mean in means.items()})
        self._report()
        self.losses.zero_()
        self.epoch, self.index, self.checked = self.epoch + 1, 0, 0
        self.epoch_started = time.perf_counter()

    def _means(self) -> dict[str, float]:
        means = self.losses[: self.index].mean(dim=0).tolist()
        return {name: means[column] for name, column in self.columns.items()}

    def _check(self) -> None:
        bad = ~torch.isfinite(self.losses[self.checked : self.index])
        if bool(bad.any()):
            row, column = (int(value) for value in bad.nonzero()[0])
            name, step = list(self.columns)[column], self.epoch * self.steps + self.checked + row + 1
            value = float(self.losses[self.checked + row, column])
            raise NonFiniteLoss(
                f"the {name}'s loss became {value} at step {step} (epoch {self.epoch + 1} of {self.epochs}); "
                "a smaller learning_rate usually helps"
            )
        self.checked = self.index

    def _report(self) -> None:
        self.reported = time.perf_counter()
        done = self.epoch * self.steps + self.index
        elapsed = self.reported - self.started
        self.run.report(
            Progress(
                epoch=done // self.steps,
                epochs=self.epochs,
                fraction=done / (self.epochs * self.steps),
                images_per_second=done * self.images_per_step / max(elapsed, 1e-9),
                losses=self._means(),
                seconds_left=elapsed * (self.epochs * self.steps / done - 1) if done else math.inf,
            )
        )


def settle(module: nn.Module, images: ImageSet, run: Training, batch_size: int = 128) -> nn.Module:
    """The module on `run.device`, frozen, its batch-norm statistics averaged afresh over real training images.

    While training, the running statistics lag behind the weights and, in a discriminator, mix real images with
    generated ones. As Donahue et al. and Radford et al. did: a plain average over batches, unbiased variance.
    """
    frozen(module).to(run.device)
    layers = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average
        layer.train()
    if layers:
        batch = min(batch_size, len(images))
        with torch.no_grad():
            for start in list(range(0, len(images) - batch + 1, batch))[:SETTLE_BATCHES]:
                module(torch.from_numpy(np.array(images.images[start : start + batch])).to(run.device))
    return frozen(module)
