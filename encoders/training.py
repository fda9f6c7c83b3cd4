"""The one training loop. A method says who plays, what each loses and who moves when (`players`); the loop is here.

What changes while training is in `State` and nowhere else, so a training that was killed goes on from a kept state to
the same bits. Randomness is not part of it: the order of the images is a pure function of (seed, epoch), and dropout
and noise of (seed, step).
"""

import contextlib
import dataclasses
import os
import typing as t

import numpy as np
import torch
from torch import Tensor

from encoders import checkpoint
from encoders.base import EncoderError, ImageSet, Keeper, Training, derive_seed
from encoders.batch_norm import recalibrate_batch_norm as settle  # noqa: F401 - its name before, for older plugins
from encoders.checkpoint import CheckpointError
from encoders.distributed import ProcessGroup
from encoders.history import History, NonFiniteLoss
from encoders.players import SGD, Adam, Player, Turn, constant, constant_then_decay  # noqa: F401 - for older plugins

GO_ON, STOP, DIVERGED = "gsd"  # what the first rank tells the others after each step
SHARE_OF_MEMORY = 0.25  # of the device's, for the training images; more are left where they lie


@dataclasses.dataclass
class State:
    """All that changes while training, at the boundary between two steps: what a checkpoint holds."""

    players: dict[str, Player]
    optimizers: dict[str, torch.optim.Optimizer]
    history: History
    step: int = 0  # steps finished, over all epochs
    read: int = 0  # batches used up by them

    @classmethod
    def start(cls, players: t.Sequence[Player], history: History) -> "State":
        return cls({p.name: p for p in players}, {p.name: p.optimizer(p.parameters()) for p in players}, history)

    def to_bytes(self, environment: dict[str, str]) -> bytes:
        """Raises NonFiniteLoss."""
        states = [
            checkpoint.optimizer_state(player, self.optimizers[name]) or checkpoint.first_optimizer_state(player)
            for name, player in self.players.items()
        ]
        tensors = {**self._weights(), **{name: tensor for one in states for name, tensor in one.items()}}
        return checkpoint.to_bytes(self.history.metadata(environment, self.step), tensors)

    def resume(self, keeper: Keeper | None, run: Training) -> None:
        """Go on from the newest state that was kept and can be used, if there is one; all ranks from the first's."""
        expected = self._weights()
        for player in self.players.values():
            expected |= checkpoint.expected_optimizer_state(player)
        content = run.group.broadcast(self._newest_usable(keeper, expected) if keeper else b"")
        if content:
            metadata, tensors = checkpoint.from_bytes(content, expected)
            with torch.no_grad():
                for name, tensor in self._weights().items():
                    tensor.copy_(tensors[name])
            for name, player in self.players.items():
                checkpoint.load_optimizer_state(player, self.optimizers[name], tensors)
            self.step, self.read = metadata.step, metadata.read
            self.history.resume(metadata)

    def _newest_usable(self, keeper: Keeper, expected: dict[str, Tensor]) -> bytes:
        size = sum(tensor.nbytes for tensor in expected.values())
        for content in keeper.kept(largest=2 * size + 2**24):
            try:
                metadata, _ = checkpoint.from_bytes(content, expected)
                self.history.check(metadata)
                keeper.check_compatible(metadata.environment)
            except CheckpointError as error:
                keeper.reject(str(error))
            else:
                return content
        return b""

    def _weights(self) -> dict[str, Tensor]:
        return checkpoint.weights(self.players.values()) | {"losses": self.history.sums}


def train(
    run: Training, images: ImageSet, players: t.Sequence[Player], turns: t.Sequence[Turn], epochs: int, batch_size: int
) -> None:
    """Train the players' networks in place, on `run.device`, and append a row an epoch to `run.history`.

    An epoch reads each image once, but for the last incomplete batch. A step that takes a turn several times uses as
    many batches, and reaches into the next epoch unless the turn `ends_with_epoch`. With a `run.keeper` it goes on
    where an earlier call was stopped; it ends early where `run.ends_after` says so. Each of several `run.group` takes
    its part of every batch, and all end with the same weights. Raises NonFiniteLoss, KeyboardInterrupt between two
    steps if the keeper is asked to stop, and EncoderError for a batch that the ranks cannot share out.
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
    group = run.group
    if batch % group.world_size:
        raise EncoderError(f"{group.world_size} ranks cannot divide batches of {batch}; set batch_size to a multiple")
    orders = _Orders(run.seed, len(images), pixels.home)
    history = History(
        run, [p.name for p in players], [n for turn in turns for n in turn.observes], epochs, batches, batch
    )
    history.takes = lambda step: max(turn.times(step) for turn in turns)
    state = State.start(players, history)
    keeper = run.keeper
    with run.seeded("training"), keeper.listening() if keeper else contextlib.nullcontext():
        state.resume(keeper, run)
        end = epochs if run.ends_after is None else min(epochs, run.ends_after)
        while state.read < end * batches:
            epoch = state.read // batches
            for name, optimizer in state.optimizers.items():
                player = state.players[name]
                done = state.read / batches if player.by_step else epoch
                _scale_learning_rate(optimizer, player.schedule(done / epochs))
            _seed(derive_seed(run.seed, "step", state.step), run.device)
            left = batches - state.read % batches  # of this epoch
            times = [
                min(turn.times(state.step), left) if turn.ends_with_epoch else turn.times(state.step) for turn in turns
            ]
            for turn, repetitions in zip(turns, times):
                for repetition in range(repetitions):
                    at = state.read + repetition
                    start = at % batches * batch
                    rows = orders[at // batches][start + group.rank : start + batch : group.world_size]
                    inputs: tuple[Tensor, ...] = (pixels[rows],)
                    if turn.reads_labels:
                        inputs = (*inputs, labels[rows.to(run.device, non_blocking=True)])
                    _take(turn, inputs, state, run, history)
            before = state.read
            state.step += 1
            state.read += max(times)
            passing = [one for after, one in run.kept_after.items() if before < after * batches <= state.read]
            _step_done(state, keeper, passing, group)


def _step_done(state: State, keeper: Keeper | None, passing: t.Sequence[Keeper], group: ProcessGroup) -> None:
    """Look at the losses, and keep the state where it is due or passed. All ranks end where the first one does.

    Raises NonFiniteLoss, and KeyboardInterrupt if the keeper is asked to stop.
    """
    word, diverged = GO_ON, NonFiniteLoss("a loss of the first rank became NaN or infinite")
    try:
        state.history.step_done(state.read)
        for one in passing:
            one.keep(state.step, state.to_bytes(one.environment))
        due = keeper is not None and keeper.due()
        if keeper and keeper.stopping:
            word = STOP
        if keeper and (due or word == STOP):
            keeper.keep(state.step, state.to_bytes(keeper.environment))
    except NonFiniteLoss as error:
        word, diverged = DIVERGED, error
    word = group.broadcast_word(word)
    if word == DIVERGED:
        raise diverged
    if word == STOP:
        raise KeyboardInterrupt


def _take(turn: Turn, inputs: tuple[Tensor, ...], state: State, run: Training, history: History) -> None:
    with (
        torch.autocast(run.device.type, torch.bfloat16, enabled=run.precision == "bfloat16"),
        run.group.noise(rows=len(inputs[0])),
    ):
        given = turn.losses(*inputs)
    values = {name: value.detach() for name, value in given.items()}
    for name, value in zip(values, run.group.mean([*values.values()])):
        history.record(name, value)
    for name in turn.observes:
        del given[name]
    last = len(given) - 1
    for index, (name, loss) in enumerate(given.items()):
        parameters = state.players[name].parameters()
        gradients = torch.autograd.grad(loss, parameters, retain_graph=index < last)
        for parameter, gradient in zip(parameters, run.group.mean(gradients)):
            parameter.grad = checkpoint.in_layout_of(parameter, gradient)
    for name in given:  # only now: every gradient was taken at the same parameters
        state.optimizers[name].step()
        after = state.players[name].after
        if after is not None:
            after()


def _seed(seed: int, device: torch.device) -> None:
    """The generators that a step draws from. torch.manual_seed gives the same bits, and takes .2 to .3 ms: for each
    kind of device that is not in use it writes down the call stack."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)


def _scale_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * factor


class _Pixels:
    """Images by their rows, as bytes on the device: all copied there at once, or each batch from where they lie if they
    would take more than a share of its memory. So a file that is larger than memory can be mapped and learned from.

    `home` is where the numbers of rows have to lie. A GPU gets each batch from one of two buffers in pinned memory:
    while it takes a step the processor, which is ahead, already fills the other.
    """

    def __init__(self, images: ImageSet, device: torch.device) -> None:
        self.images, self.device = images.images, device
        if device.type == "cuda":
            memory, _ = torch.cuda.mem_get_info(device)
        else:
            memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        fits = self.images.nbytes <= SHARE_OF_MEMORY * memory
        self.copy = torch.from_numpy(np.array(self.images)).to(device) if fits else None
        self.home = device if fits else torch.device("cpu")
        self.buffers: list[tuple[Tensor, torch.cuda.Event]] = []  # the one that is filled next comes first

    def __getitem__(self, rows: Tensor) -> Tensor:
        if self.copy is not None:
            return self.copy[rows]
        read = torch.from_numpy(self.images[rows.numpy()])
        if self.device.type != "cuda":
            return read
        while len(self.buffers) < 2:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.buffers.append((torch.empty(read.shape, dtype=read.dtype, pin_memory=True), event))
        (buffer, copied), *others = self.buffers
        copied.synchronize()  # the copy before the last
        batch = buffer[: len(read)].copy_(read).to(self.device, non_blocking=True)
        copied.record()
        self.buffers = [*others, (buffer, copied)]
        return batch


class _Orders:
    """The images' order in each epoch; the newest two are kept, since a step may reach from one into the next."""

    def __init__(self, seed: int, count: int, device: torch.device) -> None:
        self.seed, self.count, self.device = seed, count, device
        self.known: dict[int, Tensor] = {}

    def __getitem__(self, epoch: int) -> Tensor:
        if epoch not in self.known:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
            order = torch.randperm(self.count, generator=generator).to(self.device)
            self.known = {old: self.known[old] for old in self.known if old == epoch - 1} | {epoch: order}
        return self.known[epoch]
