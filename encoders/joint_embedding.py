"""What methods that compare two views of an image share: body, projector, views, and the training of one player.

Defaults are solo-learn's for CIFAR (vturrisi/solo-learn, scripts/pretrain/cifar), except where a method says so: rates,
decay, widths, weights and views. LARS's momentum of 0.9 and the depth and norms of projectors are the customary ones.
Differs for all: crops are resampled bilinearly; colours are scaled to [-1, 1], not by their mean and deviation; one
process's batch, no synchronised batch-norm; after training, batch-norm is averaged afresh over images as they are, not
over views.
"""

import abc
import contextlib
import copy
import math
import typing as t

import torch
from torch import Tensor, nn

from encoders import networks, parameters, views
from encoders.base import Encoder, EncoderError, ImageSet, ImageShape, Training
from encoders.batch_norm import recalibrate_batch_norm
from encoders.networks import ProjectedTaps, Projector, unit
from encoders.players import LARS, Player, Turn, WarmupCosine
from encoders.training import train

LOOKED_AT = 64  # images whose views are compared with them before training


class _JointEmbedding(Encoder):
    """Two views of each image, projected; each method says what it loses."""

    colour_views: t.ClassVar[views.Preset] = "asymmetric"
    projector_layers: t.ClassVar[int] = 2
    observes: t.ClassVar[tuple[str, ...]] = ()  # terms of the loss that the history keeps

    views: parameters.Views = None
    body: parameters.PooledBody = "resnet18"
    projector: parameters.ProjectorHidden = 2048
    outputs: parameters.ProjectorOutputs = 2048
    epochs: parameters.Epochs = 1000
    batch_size: parameters.PairBatchSize = 256
    learning_rate: parameters.LARSLearningRate = 0.3
    weight_decay: parameters.WeightDecay = 1e-4
    warmup: parameters.Warmup = 0.01

    @property
    def taps(self) -> tuple[str, ...]:
        return ("backbone", *(f"projector{layer}" for layer in range(1, self.projector_layers + 1)))

    def build(self, shape: ImageShape) -> ProjectedTaps:
        body = networks.POOLED_BODIES[self.body](shape)
        hidden = [self.projector] * (self.projector_layers - 1)
        taps = ProjectedTaps(body, self._projector([body.width, *hidden, self.outputs]))
        return taps.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            taps = self.build(data.shape)

        def step(x: Tensor, other: Tensor) -> dict[str, Tensor]:
            one, two = (run.group.gather(taps.project(view)) for view in (x, other))
            with exact(one):
                return self.losses(one, two)

        self._train(run, data, [self._player("encoder", [taps])], step)
        return recalibrate_batch_norm(taps, data, run)

    @abc.abstractmethod
    def losses(self, one: Tensor, other: Tensor) -> dict[str, Tensor]:
        """The loss of the player `encoder` and what it `observes`, from the projections (b, d) of two views."""

    def _projector(self, widths: t.Sequence[int]) -> Projector:
        return Projector(widths)

    def _player(self, name: str, moved: t.Sequence[nn.Module], after: t.Callable[[], None] | None = None) -> Player:
        lars = LARS(self.learning_rate, weight_decay=self.weight_decay)
        return Player(name, moved, lars, WarmupCosine(self.warmup), after, by_step=True)

    def _train(
        self,
        run: Training,
        data: ImageSet,
        players: t.Sequence[Player],
        step: t.Callable[[Tensor, Tensor], dict[str, Tensor]],
    ) -> None:
        """Train the players on two views of each image, after a look at whether the views differ from it."""
        recipe = views.preset(self.views, self.colour_views, data.shape)
        if len(data) < 2:
            raise EncoderError(f"needs at least two training images, to compare their views; got {len(data)}")
        batch, ranks = min(self.batch_size, len(data)), run.group.world_size
        if batch < 2 * ranks:
            raise EncoderError(
                f"batch-norm needs two images a rank; got {batch} a batch for {ranks} ranks: set batch_size to "
                f"{2 * ranks} or more, with as many images"
            )
        with run.seeded("look"):
            views.check_changes(unit(torch.from_numpy(data.images[:LOOKED_AT].copy())), recipe)

        def turn(images: Tensor) -> dict[str, Tensor]:
            one, other = views.views_of(unit(images), recipe)
            return step(one, other)

        train(run, data, players, [Turn(turn, observes=self.observes)], self.epochs, self.batch_size)


def exact(x: Tensor) -> contextlib.AbstractContextManager[t.Any]:
    """Inside the block products are computed in the type of their factors, also where the training is in bfloat16."""
    return torch.autocast(x.device.type, enabled=False)


def steps_of(epochs: int, batch_size: int, images: ImageSet) -> int:
    """How many steps a training has whose turns are taken once."""
    return epochs * (len(images) // min(batch_size, len(images)))


Network = t.TypeVar("Network", bound=nn.Module)


class MomentumTeacher(nn.Module, t.Generic[Network]):
    """A copy of a network that follows it: weights are running means of the network's, and never learn.

    Given to a player beside the network, it is part of the loop's state, its count of steps too.
    """

    steps: Tensor

    def __init__(self, network: Network, momentum: float, whole: int, last: float = 1.0) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.momentum, self.last, self.whole = momentum, last, whole  # the decay rate at first, and after so many steps
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def follow(self, network: Network) -> None:
        """momentum * own + (1 - momentum) * the network's; momentum rises to `last` as half a cosine does (BYOL)."""
        wave = (1 + torch.cos(math.pi * self.steps / self.whole)) / 2  # from 1 to 0
        part = (1 - self.last) + (self.last - self.momentum) * wave  # 1 - momentum
        for own, weight in zip(self.network.parameters(), network.parameters()):
            own.lerp_(weight, part)
        self.steps += 1
