"""MoCo: a view of an image is told from a queue of other images by what the network's running mean says of its partner.

Source: v1 He et al. 2020, arXiv:1911.05722; v2, with a projector and stronger views, Chen, Fan, Girshick, He 2020,
arXiv:2003.04297. Defaults: solo-learn's v2+ for CIFAR (scripts/pretrain/cifar/mocov2plus.yaml), where both views are
queries, each with a queue of its own, and the teacher's momentum rises. Differs: batches are not shuffled for the
teacher's batch-norm, nor are they there; and what encoders/joint_embedding.py lists.
"""

import typing as t

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import parameters, views
from encoders.base import EncoderError, ImageSet, Training
from encoders.batch_norm import recalibrate_batch_norm
from encoders.joint_embedding import MomentumTeacher, _JointEmbedding, exact, steps_of
from encoders.networks import Projector
from encoders.players import SGD, Player, WarmupCosine


def info_nce(queries: Tensor, keys: Tensor, others: Tensor, temperature: float) -> Tensor:
    """The cross-entropy of finding each query's key (b, d) among it and others (n, d), by products over temperature."""
    own = (queries * keys).sum(dim=1, keepdim=True)
    logits = torch.cat([own, queries @ others.T], dim=1) / temperature  # (b, 1 + n)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))


class Queue(nn.Module):
    """The newest keys of each of two views (2, n, d); random directions at first. Part of the loop's state."""

    keys: Tensor
    oldest: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(2, size, width), dim=2))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))

    def put(self, keys: Tensor) -> None:
        """Replace the oldest by keys (2, b, d)."""
        places = (self.oldest + torch.arange(keys.shape[1], device=keys.device)) % self.keys.shape[1]
        self.keys[:, places] = keys
        self.oldest.copy_((places[-1] + 1) % self.keys.shape[1])


class MoCo(_JointEmbedding):
    """Contrast of a view's projection with the teacher's of earlier images, which a queue keeps."""

    source: t.ClassVar[str] = "Chen et al. 2020, arXiv:2003.04297"
    colour_views: t.ClassVar[views.Preset] = "symmetric_weak"

    outputs: parameters.ProjectorOutputs = 256
    queue: PositiveInt = 32_768
    """Keys of earlier images that each view is compared with; at least a batch."""
    temperature: parameters.Temperature = 0.2
    teacher_momentum: float = Field(0.99, ge=0, lt=1)
    """Decay rate of the teacher's weights at first; it rises to the next like half a cosine."""
    last_teacher_momentum: float = Field(0.999, ge=0, le=1)
    """Decay rate of the teacher's weights at the end."""
    learning_rate: PositiveFloat = 0.3
    """Step size of SGD for batches of 256."""
    momentum: parameters.Momentum = 0.9

    def losses(self, one: Tensor, other: Tensor) -> dict[str, Tensor]:
        """Of queries `one` (b, d) and keys `other` (b + n, d), their own before those of the queue."""
        return {"encoder": info_nce(one, other[: len(one)], other[len(one) :], self.temperature)}

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        batch = min(self.batch_size, len(data))
        if self.queue < batch:
            raise EncoderError(
                f"moco: a queue of {self.queue} keys has no room for a batch of {batch}; set queue to {batch} or more"
            )
        with run.seeded("init"):
            taps = self.build(data.shape)
            queue = Queue(self.queue, self.outputs)
        whole = steps_of(self.epochs, self.batch_size, data)
        teacher = MomentumTeacher(taps, self.teacher_momentum, whole, self.last_teacher_momentum)

        def step(x: Tensor, other: Tensor) -> dict[str, Tensor]:
            queries = [F.normalize(taps.project(view), dim=1) for view in (x, other)]
            with torch.no_grad():
                keys = [F.normalize(teacher.network.project(view), dim=1) for view in (other, x)]
            with exact(x):
                parts = [
                    self.losses(query, torch.cat([key, queued]))["encoder"]
                    for query, key, queued in zip(queries, keys, queue.keys)
                ]
            queue.put(torch.stack([run.group.gather(key) for key in keys]))
            return {"encoder": (parts[0] + parts[1]) / 2}

        sgd = SGD(self.learning_rate, self.momentum, self.weight_decay)
        networks = [taps, teacher, queue]
        player = Player("encoder", networks, sgd, WarmupCosine(self.warmup), lambda: teacher.follow(taps), by_step=True)
        self._train(run, data, [player], step)
        return recalibrate_batch_norm(taps, data, run)

    def _projector(self, widths: t.Sequence[int]) -> Projector:
        return Projector(widths, norm=False)
