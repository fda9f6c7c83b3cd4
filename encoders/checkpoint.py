"""The state of a training as bytes, and back: safetensors with one JSON document among its tensors.

Nothing that is read is executed. A checkpoint is believed only if the names, shapes and types in it are those of the
training that reads it and every number is finite; it is looked at as a whole before anything of it is used.
"""

import contextlib
import json
import typing as t

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError
from torch import Tensor

from encoders.base import EncoderError

if t.TYPE_CHECKING:
    from encoders.training import Player

_FACTS = "facts"  # the name of the tensor that holds the JSON document


class CheckpointError(EncoderError):
    """A checkpoint that cannot be used; the message says why."""


class Keeper(t.Protocol):
    """Who keeps a training's state, hands it back, and knows when somebody wants it to stop."""

    @property
    def circumstances(self) -> dict[str, str]:
        """What the training is and what its bits depend on; every checkpoint carries them."""

    @property
    def stopping(self) -> bool:
        """Whether somebody asked the training to stop at the next step."""

    def due(self) -> bool:
        """Whether the state should be kept now, between two steps."""

    def keep(self, step: int, content: bytes) -> None:
        """Keep the state after this many steps."""

    def kept(self, largest: int) -> t.Iterator[bytes]:
        """What was kept, newest first, as long as the reader asks for more; nothing of more than `largest` bytes."""

    def accept(self, circumstances: dict[str, str]) -> None:
        """Agree to go on from a state of these circumstances.

        Raises CheckpointError if it is another training's, and EncoderError if the result would not be that of one
        undisturbed training.
        """

    def unusable(self, problem: str) -> None:
        """What `kept` gave last cannot be used."""

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Inside the block, whoever wants the training to stop says so by `stopping` and waits for the next step."""


class Facts(BaseModel):
    """All of a state that is no tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    circumstances: dict[str, str]
    training: PositiveInt  # which one it is, where a method trains several times
    step: PositiveInt  # steps finished, over all epochs
    read: PositiveInt  # batches used up by them
    read_before: NonNegativeInt  # of them, by the epochs that are over
    index: NonNegativeInt  # steps of the epoch so far
    taken: list[NonNegativeInt]  # how many losses of each column the epoch's sums have
    history: list[dict[str, int | float]]
    epoch_seconds: float  # of the epoch so far
    seconds: float  # of the training so far


def weights(players: t.Iterable["Player"]) -> dict[str, Tensor]:
    """The players' own parameters and buffers by name, each once, though players share networks."""
    seen: dict[int, None] = {}
    named = {}
    for player in players:
        for index, network in enumerate(player.networks):
            for name, tensor in network.state_dict(keep_vars=True).items():
                if id(tensor) not in seen:
                    seen[id(tensor)] = None
                    named[f"{player.name}/{index}/{name}"] = tensor
    return named


def memory(player: "Player", optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What a player's optimiser remembers of each of its parameters, by name."""
    state: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    return {
        f"{player.name}/optimizer/{index}/{name}": tensor
        for index, remembered in state.items()
        for name, tensor in remembered.items()
    }


def in_layout_of(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The same numbers in the parameter's order of memory. Fused optimisers need it: on a processor they read weight,
    gradient and moments side by side in memory and ignore strides; on a GPU they raise where strides differ."""
    return tensor if tensor.stride() == parameter.stride() else torch.empty_like(parameter).copy_(tensor)


def recall(player: "Player", optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimiser its memory back: what `memory` named."""
    state: dict[int, dict[str, Tensor]] = {}
    prefix, parameters = f"{player.name}/optimizer/", player.parameters()
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            index, _, what = name.removeprefix(prefix).partition("/")
            like = parameters[int(index)]
            own = in_layout_of(like, tensor) if tensor.shape == like.shape else tensor  # a count of steps has none
            state.setdefault(int(index), {})[what] = own
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def expected_memory(player: "Player") -> dict[str, Tensor]:
    """Tensors like those that `memory` gives once the player has moved, found by letting one such optimiser move."""
    copies = [torch.nn.Parameter(torch.zeros_like(parameter)) for parameter in player.parameters()]
    optimizer = player.optimizer(copies)
    for copy in copies:
        copy.grad = torch.zeros_like(copy)
    optimizer.step()
    return memory(player, optimizer)


def first_memory(player: "Player") -> dict[str, Tensor]:
    """What `memory` would give of a player that has not moved yet: Adam and SGD begin with zeros."""
    return {name: torch.zeros_like(tensor) for name, tensor in expected_memory(player).items()}


def to_bytes(facts: Facts, tensors: dict[str, Tensor]) -> bytes:
    """Both in one file."""
    document = torch.frombuffer(bytearray(facts.model_dump_json().encode()), dtype=torch.uint8)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save({**whole, _FACTS: document})


def from_bytes(content: bytes, expected: dict[str, Tensor]) -> tuple[Facts, dict[str, Tensor]]:
    """What `to_bytes` was given. Raises CheckpointError unless the tensors are like the expected ones, and finite."""
    try:
        tensors = safetensors.torch.load(content)
        facts = Facts.model_validate(json.loads(bytes(tensors.pop(_FACTS).numpy())))
    except KeyError:
        raise CheckpointError("it has no facts in it") from None
    except (safetensors.SafetensorError, ValidationError, ValueError, RecursionError, TypeError) as error:
        raise CheckpointError(f"it is no checkpoint: {str(error).splitlines()[0]}") from error
    for name in sorted(tensors.keys() ^ expected.keys()):
        raise CheckpointError(f"it {'lacks' if name in expected else 'has a stray'} {name}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape or tensor.dtype != expected[name].dtype:
            wanted, came = (f"{one.dtype} {tuple(one.shape)}" for one in (expected[name], tensor))
            raise CheckpointError(f"{name} is {came}; wanted {wanted}")
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{name} is not finite")
    return facts, tensors
