"""The one training loop. A method says who plays, what each loses and who moves when; everything else is here, once.

A step is a list of turns. A turn is one forward pass and the losses of the players that move on it: two players in
one turn are updated simultaneously, each by its gradient at the same parameters; players in successive turns alternate.

What changes while training is in `State` and nowhere else, so a training that was killed goes on from a kept state to
the same bits. Randomness is not part of it: the order of the images is a pure function of (seed, epoch), and dropout
and noise of (seed, step).
"""

import contextlib
import dataclasses
import os
import time
import typing as t

import numpy as np
import torch
from torch import Tensor, nn

from encoders import checkpoint
from encoders.base import EncoderError, ImageSet, Progress, Training, derive_seed, frozen
from encoders.checkpoint import CheckpointError, Facts

REPORT_SECONDS = 0.5  # between two progress reports
SHARE_OF_MEMORY = 0.25  # of the device's, for the training images; more are left where they lie
SETTLE_DRAWS = 20  # of 128 codes, for a generator: its samples need less care than features
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
        return torch.optim.Adam(
            parameters, self.learning_rate, betas, weight_decay=self.weight_decay, fused=_dense(parameters)
        )


@dataclasses.dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum."""

    learning_rate: float
    momentum: float = 0.0

    def __call__(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, self.learning_rate, self.momentum, fused=_dense(parameters))


def _dense(parameters: list[nn.Parameter]) -> bool:
    """Whether none is a part of a larger tensor: fused optimisers would go through the memory of the whole."""
    return all(torch.empty_like(parameter).stride() == parameter.stride() for parameter in parameters)


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
    after: t.Callable[[], None] | None = None  # called when the player has moved, such as to clip its weights

    def parameters(self) -> list[nn.Parameter]:
        return [parameter for network in self.networks for parameter in network.parameters()]


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


@dataclasses.dataclass
class State:
    """All that changes while training, at the boundary between two steps: what a checkpoint holds."""

    players: dict[str, Player]
    optimizers: dict[str, torch.optim.Optimizer]
    watch: "_Watch"
    step: int = 0  # steps finished, over all epochs
    read: int = 0  # batches used up by them

    @classmethod
    def start(cls, players: t.Sequence[Player], watch: "_Watch") -> "State":
        return cls({p.name: p for p in players}, {p.name: p.optimizer(p.parameters()) for p in players}, watch)

    def to_bytes(self, circumstances: dict[str, str]) -> bytes:
        """Raises NonFiniteLoss."""
        remembered = [
            checkpoint.memory(player, self.optimizers[name]) or checkpoint.first_memory(player)
            for name, player in self.players.items()
        ]
        tensors = {**self._weights(), **{name: tensor for one in remembered for name, tensor in one.items()}}
        return checkpoint.to_bytes(self.watch.facts(circumstances, self.step), tensors)

    def resume(self, keeper: checkpoint.Keeper | None, run: Training) -> None:
        """Go on from the newest state that was kept and can be used, if there is one; all ranks from the first's."""
        expected = self._weights()
        for player in self.players.values():
            expected |= checkpoint.expected_memory(player)
        content = run.ranks.first_gives(self._usable(keeper, expected) if keeper else b"", run.device)
        if content:
            facts, tensors = checkpoint.from_bytes(content, expected)
            with torch.no_grad():
                for name, tensor in self._weights().items():
                    tensor.copy_(tensors[name])
            for name, player in self.players.items():
                checkpoint.recall(player, self.optimizers[name], tensors)
            self.step, self.read = facts.step, facts.read
            self.watch.go_on(facts)

    def _usable(self, keeper: checkpoint.Keeper, expected: dict[str, Tensor]) -> bytes:
        size = sum(tensor.nbytes for tensor in expected.values())
        for content in keeper.kept(largest=2 * size + 2**24):
            try:
                facts, _ = checkpoint.from_bytes(content, expected)
                self.watch.check(facts)
                keeper.accept(facts.circumstances)
            except CheckpointError as error:
                keeper.unusable(str(error))
            else:
                return content
        return b""

    def _weights(self) -> dict[str, Tensor]:
        return checkpoint.weights(self.players.values()) | {"losses": self.watch.sums}


def train(
    run: Training, images: ImageSet, players: t.Sequence[Player], turns: t.Sequence[Turn], epochs: int, batch_size: int
) -> None:
    """Train the players' networks in place, on `run.device`, and append a row an epoch to `run.history`.

    An epoch reads each image once, but for the last incomplete batch. A step that takes a turn several times uses as
    many batches, and reaches into the next epoch unless the turn `ends_with_epoch`. With a `run.keeper` it goes on
    where an earlier call was stopped. Each of several `run.ranks` takes its part of every batch, and all end with the
    same weights. Raises NonFiniteLoss, KeyboardInterrupt between two steps if the keeper is asked to stop, and
    EncoderError for a batch that the ranks cannot share out.
    """
    run.trainings += 1
    for player in players:
        for network in player.networks:
            network.to(run.device).train()
    pixels = _Pixels(images, run.device)
    known = np.full(len(images), -1) if images.labels is None else np.array(images.labels)
    labels = torch.from_numpy(known).to(run.device)
    batch = min(batch_size, len(images))
    batches = len(images) // batch  # of an epoch
    ranks = run.ranks
    if batch % ranks.world:
        raise EncoderError(f"{ranks.world} ranks cannot share out batches of {batch}; set batch_size to a multiple")
    orders = _Orders(run, len(images))
    watch = _Watch(run, [p.name for p in players], [n for turn in turns for n in turn.observes], epochs, batches, batch)
    watch.takes = lambda step: max(turn.times(step) for turn in turns)
    state = State.start(players, watch)
    keeper = run.keeper
    with run.seeded("training"), keeper.listening() if keeper else contextlib.nullcontext():
        state.resume(keeper, run)
        while state.read < epochs * batches:
            epoch = state.read // batches
            for name, optimizer in state.optimizers.items():
                _scale_learning_rate(optimizer, state.players[name].schedule(epoch / epochs))
            torch.manual_seed(derive_seed(run.seed, "step", state.step))
            left = batches - state.read % batches  # of this epoch
            times = [
                min(turn.times(state.step), left) if turn.ends_with_epoch else turn.times(state.step) for turn in turns
            ]
            for turn, repetitions in zip(turns, times):
                for repetition in range(repetitions):
                    at = state.read + repetition
                    start = at % batches * batch
                    rows = orders[at // batches][start + ranks.rank : start + batch : ranks.world]
                    shown = (pixels[rows], labels[rows]) if turn.reads_labels else (pixels[rows],)
                    _take(turn, shown, state, run, watch)
            state.step += 1
            state.read += max(times)
            watch.step_done(state.read)
            due = keeper is not None and keeper.due()
            stopping = ranks.first_says(keeper is not None and keeper.stopping, run.device)
            if keeper and (due or stopping):
                keeper.keep(state.step, state.to_bytes(keeper.circumstances))
            if stopping:
                raise KeyboardInterrupt


def _take(turn: Turn, shown: tuple[Tensor, ...], state: State, run: Training, watch: "_Watch") -> None:
    with (
        torch.autocast(run.device.type, torch.bfloat16, enabled=run.precision == "bfloat16"),
        run.ranks.noise(rows=len(shown[0])),
    ):
        given = turn.losses(*shown)
    values = {name: value.detach() for name, value in given.items()}
    for name, value in zip(values, run.ranks.mean([*values.values()])):
        watch.saw(name, value)
    for name in turn.observes:
        del given[name]
    last = len(given) - 1
    for index, (name, loss) in enumerate(given.items()):
        parameters = state.players[name].parameters()
        gradients = torch.autograd.grad(loss, parameters, retain_graph=index < last)
        for parameter, gradient in zip(parameters, run.ranks.mean(gradients)):
            parameter.grad = checkpoint.in_layout_of(parameter, gradient)
    for name in given:  # only now: every gradient was taken at the same parameters
        state.optimizers[name].step()
        after = state.players[name].after
        if after is not None:
            after()


def _scale_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * factor


class _Pixels:
    """Images by their rows, as bytes on the device: all copied there at once, or each batch from where they lie if they
    would take more than a share of its memory. So a file that is larger than memory can be mapped and learned from.
    """

    def __init__(self, images: ImageSet, device: torch.device) -> None:
        self.images, self.device = images.images, device
        if device.type == "cuda":
            memory, _ = torch.cuda.mem_get_info(device)
        else:
            memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        fits = self.images.nbytes <= SHARE_OF_MEMORY * memory
        self.copy = torch.from_numpy(np.array(self.images)).to(device) if fits else None

    def __getitem__(self, rows: Tensor) -> Tensor:
        if self.copy is not None:
            return self.copy[rows]
        return torch.from_numpy(self.images[rows.cpu().numpy()]).to(self.device)


class _Orders:
    """The images' order in each epoch; the newest two are kept, since a step may reach from one into the next."""

    def __init__(self, run: Training, count: int) -> None:
        self.run, self.count = run, count
        self.known: dict[int, Tensor] = {}

    def __getitem__(self, epoch: int) -> Tensor:
        if epoch not in self.known:
            generator = torch.Generator().manual_seed(derive_seed(self.run.seed, "order", epoch))
            order = torch.randperm(self.count, generator=generator).to(self.run.device)
            self.known = {old: self.known[old] for old in self.known if old == epoch - 1} | {epoch: order}
        return self.known[epoch]


class _Watch:
    """Collects losses on the device without waiting for it; looks at them at intervals and at the end of an epoch."""

    def __init__(
        self, run: Training, players: list[str], observed: list[str], epochs: int, batches: int, batch: int
    ) -> None:
        self.run, self.players, self.epochs, self.batches, self.batch = run, players, epochs, batches, batch
        self.columns = {name: column for column, name in enumerate([*players, *observed])}
        self.sums = torch.zeros(batches, len(self.columns), device=run.device)  # a row a step of this epoch
        self.taken = [0] * len(self.columns)  # how many values a column's sums have in all
        self.read = self.read_before = self.steps = self.index = self.checked = 0
        self.started = self.epoch_started = self.reported = time.perf_counter()
        self.first = 0  # batches used up by an earlier call, where this one goes on
        self.takes = once  # step -> batches that it uses up

    def facts(self, circumstances: dict[str, str], step: int) -> Facts:
        """What of a state is no tensor. Raises NonFiniteLoss: what has diverged is not worth keeping."""
        self._check()
        now = time.perf_counter()
        return Facts(
            circumstances=circumstances,
            training=self.run.trainings,
            step=step,
            read=self.read,
            read_before=self.read_before,
            index=self.index,
            taken=self.taken,
            history=self.run.history,
            epoch_seconds=now - self.epoch_started,
            seconds=self.run.earlier_seconds + now - self.started,
        )

    def check(self, facts: Facts) -> None:
        """Raises CheckpointError for facts that cannot be this training's."""
        if facts.training != self.run.trainings:
            raise CheckpointError(f"it is of training {facts.training} of this method; this is {self.run.trainings}")
        same_epoch = facts.read_before // self.batches == facts.read // self.batches
        possible = facts.index <= facts.read - facts.read_before and facts.step <= facts.read
        possible &= facts.read - self.takes(facts.step - 1) < self.epochs * self.batches
        if not (same_epoch and possible and len(facts.taken) == len(self.taken)):
            raise CheckpointError("its counts of steps and batches do not fit together")
        if any(f"{n}_loss" in row and f"{n}_updates" not in row for row in facts.history for n in self.players):
            raise CheckpointError("its history does not count each player's updates")

    def go_on(self, facts: Facts) -> None:
        self.read, self.read_before, self.first = facts.read, facts.read_before, facts.read
        self.steps, self.index, self.checked = facts.step, facts.index, facts.index
        self.taken = list(facts.taken)
        self.run.history[:] = facts.history
        self.run.earlier_seconds += facts.seconds
        self.epoch_started = time.perf_counter() - facts.epoch_seconds

    def saw(self, name: str, value: Tensor) -> None:
        column = self.columns[name]
        self.sums[self.index, column] += value  # of all repetitions, so that no NaN is lost
        self.taken[column] += 1

    def step_done(self, read: int) -> None:
        """`read`: batches used up by all steps so far."""
        ended = read // self.batches > self.read // self.batches
        self.index, self.steps, self.read = self.index + 1, self.steps + 1, read
        if ended:
            self._epoch_done()
        elif self.run.ranks.rank == 0 and time.perf_counter() - self.reported > REPORT_SECONDS:
            self._check()
            self._report()

    def _epoch_done(self) -> None:
        self._check()
        seconds = time.perf_counter() - self.epoch_started
        speed = (self.read - self.read_before) * self.batch / seconds
        row = {"epoch": min(self.read // self.batches, self.epochs), "seconds": seconds, "images_per_second": speed}
        means = {f"{name}_loss" if name in self.players else name: mean for name, mean in self._means().items()}
        earlier = self.run.updates
        updates = {
            f"{name}_updates": earlier.get(name, 0) + self.taken[self.columns[name]] for name in self.players
        }  # so far
        self.run.history.append(row | means | updates)
        self._report()
        self.sums.zero_()
        self.taken = [0] * len(self.columns)
        self.read_before, self.index, self.checked = self.read, 0, 0
        self.epoch_started = time.perf_counter()

    def _means(self) -> dict[str, float]:
        sums = self.sums[: self.index].sum(dim=0).tolist()
        return {name: sums[column] / max(self.taken[column], 1) for name, column in self.columns.items()}

    def _check(self) -> None:
        bad = ~torch.isfinite(self.sums[self.checked : self.index])
        if bool(bad.any()):
            row, column = (int(value) for value in bad.nonzero()[0])
            name, step = list(self.columns)[column], self.steps - self.index + self.checked + row + 1
            value, epoch = float(self.sums[self.checked + row, column]), (self.read - 1) // self.batches + 1
            what = f"the {name}'s loss" if name in self.players else name
            raise NonFiniteLoss(
                f"{what} became {value} at step {step} (epoch {min(epoch, self.epochs)} of {self.epochs}); "
                "a smaller learning_rate usually helps"
            )
        self.checked = self.index

    def _report(self) -> None:
        self.reported = time.perf_counter()
        whole, now = self.epochs * self.batches, self.read - self.first
        elapsed = self.reported - self.started
        self.run.report(
            Progress(
                epoch=min(self.read // self.batches, self.epochs),
                epochs=self.epochs,
                fraction=min(self.read / whole, 1.0),
                images_per_second=now * self.batch / max(elapsed, 1e-9),
                losses=self._means(),
                seconds_left=elapsed * max(whole - self.read, 0) / max(now, 1),
            )
        )


def settle(module: nn.Module, images: ImageSet, run: Training, batch_size: int = 128) -> nn.Module:
    """The module on `run.device`, frozen, its batch-norm statistics averaged afresh over real training images.

    While training, the running statistics lag behind the weights and, in a discriminator, mix real images with
    generated ones. As Donahue et al. and Radford et al. did: a plain average over batches, unbiased variance.
    """
    batch = min(batch_size, len(images))
    starts = list(range(0, len(images) - batch + 1, batch))[:SETTLE_BATCHES]
    rows = (images.images[start : start + batch] for start in starts)
    return _settle(module, (torch.from_numpy(np.array(some)) for some in rows), run)


def settle_generator(
    generator: nn.Module, draw: t.Callable[[int, torch.device], Tensor | None], run: Training, batch_size: int = 128
) -> nn.Module:
    """The generator on `run.device`, frozen, its batch-norm statistics averaged afresh over codes that `draw` gives."""
    with run.seeded("settle"):
        codes = (draw(batch_size, run.device) for _ in range(SETTLE_DRAWS))
        return _settle(generator, (some for some in codes if some is not None), run)


def encoded(taps: nn.Module, images: ImageSet) -> t.Callable[[int, torch.device], Tensor]:
    """Draws codes of images, for the generator of a method whose codes follow no prior."""

    def draw(count: int, device: torch.device) -> Tensor:
        rows = images.images[torch.randint(len(images), (count,)).numpy()]
        with torch.no_grad():
            codes: Tensor = taps(torch.from_numpy(rows).to(device))["code"]
        return codes

    return draw


def _settle(module: nn.Module, batches: t.Iterable[Tensor], run: Training) -> nn.Module:
    frozen(module).to(run.device)
    layers = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average
        layer.train()
    if layers:
        with torch.no_grad():
            for batch in batches:
                module(batch.to(run.device))
    return frozen(module)
