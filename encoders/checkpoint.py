"""The state of a training as bytes, and back: safetensors with one JSON document among its tensors.

Nothing that is read is executed. A checkpoint is believed only if the names, shapes and types in it are those of the
training that reads it and every number is finite; it is looked at as a whole before anything of it is used.
"""

import json
import typing as t

import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError
from torch import Tensor

from encoders.base import EncoderError
from encoders.players import Player

_METADATA = "facts"  # the name of the tensor that holds the JSON document


class CheckpointError(EncoderError):
    """A checkpoint that cannot be used; the message says why."""


class CheckpointMetadata(BaseModel):
    """All of a state that is no tensor."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True)

    environment: dict[str, str] = Field(alias="circumstances")  # its name in the file
    training: PositiveInt  # which one it is, where a method trains several times
    step: PositiveInt  # steps finished, over all epochs
    read: PositiveInt  # batches used up by them
    read_before: NonNegativeInt  # of them, by the epochs that are over
    index: NonNegativeInt  # steps of the epoch so far
    taken: list[NonNegativeInt]  # how many losses of each column the epoch's sums have
    history: list[dict[str, int | float]]
    epoch_seconds: float  # of the epoch so far
    seconds: float  # of the training so far


def weights(players: t.Iterable[Player]) -> dict[str, Tensor]:
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


def optimizer_state(player: Player, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What a player's optimiser keeps of each of its parameters, by name."""
    state: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    return {
        f"{player.name}/optimizer/{index}/{name}": tensor
        for index, kept in state.items()
        for name, tensor in kept.items()
    }


def in_layout_of(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The same numbers in the parameter's order of memory. Fused optimisers need it: on a processor they read weight,
    gradient and moments side by side in memory and ignore strides; on a GPU they raise where strides differ."""
    return tensor if tensor.stride() == parameter.stride() else torch.empty_like(parameter).copy_(tensor)


def load_optimizer_state(player: Player, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimiser back what `optimizer_state` named."""
    state: dict[int, dict[str, Tensor]] = {}
    prefix, parameters = f"{player.name}/optimizer/", player.parameters()
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            index, _, what = name.removeprefix(prefix).partition("/")
            like = parameters[int(index)]
            own = in_layout_of(like, tensor) if tensor.shape == like.shape else tensor  # a count of steps has none
            state.setdefault(int(index), {})[what] = own
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def expected_optimizer_state(player: Player) -> dict[str, Tensor]:
    """Tensors like those of `optimizer_state` once the player has moved, found by letting one such optimiser move."""
    copies = [torch.nn.Parameter(torch.zeros_like(parameter)) for parameter in player.parameters()]
    optimizer = player.optimizer(copies)
    for copy in copies:
        copy.grad = torch.zeros_like(copy)
    optimizer.step()
    return optimizer_state(player, optimizer)


def first_optimizer_state(player: Player) -> dict[str, Tensor]:
    """What `optimizer_state` would give of a player that has not moved yet: Adam and SGD begin with zeros."""
    return {name: torch.zeros_like(tensor) for name, tensor in expected_optimizer_state(player).items()}


def to_bytes(metadata: CheckpointMetadata, tensors: dict[str, Tensor]) -> bytes:
    """Both in one file."""
    document = torch.frombuffer(bytearray(metadata.model_dump_json(by_alias=True).encode()), dtype=torch.uint8)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save({**whole, _METADATA: document})


def from_bytes(content: bytes, expected: dict[str, Tensor]) -> tuple[CheckpointMetadata, dict[str, Tensor]]:
    """What `to_bytes` was given. Raises CheckpointError unless the tensors are like the expected ones, and finite."""
    try:
        tensors = safetensors.torch.load(content)
        metadata = CheckpointMetadata.model_validate(json.loads(bytes(tensors.pop(_METADATA).numpy())))
    except KeyError:
        raise CheckpointError("it holds no metadata") from None
    except (safetensors.SafetensorError, ValidationError, ValueError, RecursionError, TypeError) as error:
        raise CheckpointError(f"it is not a checkpoint: {str(error).splitlines()[0]}") from error
    for name in sorted(tensors.keys() ^ expected.keys()):
        raise CheckpointError(f"it {'lacks' if name in expected else 'has an unexpected'} {name}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape or tensor.dtype != expected[name].dtype:
            wanted, came = (f"{one.dtype} {tuple(one.shape)}" for one in (expected[name], tensor))
            raise CheckpointError(f"{name} is {came}; wanted {wanted}")
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{name} is not finite")
    return metadata, tensors
