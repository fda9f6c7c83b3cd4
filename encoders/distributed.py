"""Several processes that train one encoder: each takes a part of every batch, and all take the same step.

A rank reads the rows [rank::world_size] of a batch, and the mean of the ranks' gradients moves the weights, which
therefore stay the same everywhere. Where a loss is a mean over the batch, or `gather`s it first, this is, up to
rounding, the training of one process on the whole batch. Batch-norm sees the rank's own rows only, and so does another
loss that is no mean, such as the VAE's `gaussian`: these are repeatable, and another training.
"""

import contextlib
import dataclasses
import typing as t

import torch
import torch.distributed
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


@dataclasses.dataclass(frozen=True)
class ProcessGroup:
    """This process among those of torch's default process group; by default it is alone."""

    rank: int = 0
    world_size: int = 1
    control: torch.distributed.ProcessGroup | None = None  # for messages between processors, where gradients go by NCCL

    def mean(self, tensors: t.Sequence[Tensor]) -> list[Tensor]:
        """The mean of each tensor over the ranks, the same bits on all of them."""
        if self.world_size == 1:
            return list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        parts = torch.split(flat / self.world_size, [tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors)]

    def gather(self, rows: Tensor) -> Tensor:
        """The rows (b, d) of all ranks in the order of the whole batch. What follows has to be the same on all ranks:
        the mean of their gradients is then that of one process."""
        if self.world_size == 1:
            return rows
        whole: Tensor = _Gathered.apply(rows, self)  # type: ignore[no-untyped-call]
        return whole

    def broadcast_word(self, word: str) -> str:
        """The word of rank 0, of one letter, on every rank."""
        if self.world_size == 1:
            return word
        letter = torch.tensor([ord(word)])
        torch.distributed.broadcast(letter, 0, group=self.control)
        return chr(int(letter))

    def broadcast(self, content: bytes) -> bytes:
        """The content of rank 0, on every rank."""
        if self.world_size == 1:
            return content
        size = torch.tensor([len(content)])
        torch.distributed.broadcast(size, 0, group=self.control)
        given = torch.zeros(int(size), dtype=torch.uint8)
        if content and self.rank == 0:
            given = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        if len(given):
            torch.distributed.broadcast(given, 0, group=self.control)
        return given.numpy().tobytes()

    def noise(self, rows: int) -> contextlib.AbstractContextManager[t.Any]:
        """Inside the block, random tensors with a row for each of this rank's `rows` images are its part of those that
        one process would draw for the whole batch."""
        return contextlib.nullcontext() if self.world_size == 1 else _OfWholeBatch(self, rows)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: t.Any, rows: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        whole = rows.new_zeros(len(rows) * group.world_size, *rows.shape[1:])
        whole[group.rank :: group.world_size] = rows
        torch.distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: t.Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total[ctx.group.rank :: ctx.group.world_size], None


class _OfWholeBatch(TorchFunctionMode):
    """Every rank draws for the whole batch, so that their generators stay together, and keeps its own rows.

    What has another number of rows, and what other functions of torch draw, is the same for all ranks.
    """

    def __init__(self, group: ProcessGroup, rows: int) -> None:
        super().__init__()
        self.group, self.rows = group, rows

    def __torch_function__(
        self, function: t.Any, types: t.Any, args: tuple[t.Any, ...] = (), kwargs: dict[str, t.Any] | None = None
    ) -> t.Any:
        options = dict(kwargs or {})
        if function in (torch.randn, torch.rand):
            size = options.pop("size", None) or (args if isinstance(args[0], int) else args[0])
            return self._part(lambda size: function(size, **options), size)
        if function is torch.randint:
            *bounds, size = args
            integers: t.Callable[..., Tensor] = torch.randint
            return self._part(lambda size: integers(*bounds, size, **options), size)
        if function in (torch.randn_like, torch.rand_like):
            draw, like = torch.randn if function is torch.randn_like else torch.rand, args[0]
            return self._part(lambda size: draw(size, dtype=like.dtype, device=like.device), like.shape)
        if function is F.dropout and options["training"]:
            p, x = options["p"], args[0]
            ones = x.new_ones(1)
            return x * self._part(lambda size: F.dropout(ones.expand(size), p), x.shape)
        return function(*args, **options)

    def _part(self, draw: t.Callable[[t.Any], Tensor], size: t.Sequence[int]) -> Tensor:
        if not size or size[0] % self.rows:
            return draw(size)
        count, *rest = size  # several batches, where a method looks at them together
        whole = draw((count * self.group.world_size, *rest))
        batches = whole.view(count // self.rows, self.rows * self.group.world_size, *rest)
        return batches[:, self.group.rank :: self.group.world_size].reshape(size)
