"""Batch-norm statistics for frozen networks, averaged afresh once the weights have stopped moving.

While training, the running statistics lag behind the weights and, in a discriminator, mix real images with generated
ones. As Donahue et al. and Radford et al. did: a plain average over batches, unbiased variance.
"""

import typing as t

import numpy as np
import torch
from torch import Tensor, nn

from encoders.base import ImageSet, Training, frozen

GENERATOR_BATCHES = 20  # of 128 codes: samples need less care than features
ENCODER_BATCHES = 1000  # of 128 images: as many as BiGAN's authors average over


def recalibrate_batch_norm(module: nn.Module, images: ImageSet, run: Training, batch_size: int = 128) -> nn.Module:
    """The module on `run.device`, frozen, its batch-norm statistics averaged afresh over real training images."""
    batch = min(batch_size, len(images))
    starts = list(range(0, len(images) - batch + 1, batch))[:ENCODER_BATCHES]
    rows = (images.images[start : start + batch] for start in starts)
    return _recalibrated(module, (torch.from_numpy(np.array(some)) for some in rows), run)


def recalibrate_generator(
    generator: nn.Module, draw: t.Callable[[int, torch.device], Tensor | None], run: Training, batch_size: int = 128
) -> nn.Module:
    """The generator on `run.device`, frozen, its batch-norm statistics averaged afresh over codes that `draw` gives."""
    with run.seeded("settle"):
        codes = (draw(batch_size, run.device) for _ in range(GENERATOR_BATCHES))
        return _recalibrated(generator, (some for some in codes if some is not None), run)


def encoded(taps: nn.Module, images: ImageSet) -> t.Callable[[int, torch.device], Tensor]:
    """Draws codes of images, for the generator of a method whose codes follow no prior."""

    def draw(count: int, device: torch.device) -> Tensor:
        rows = images.images[torch.randint(len(images), (count,)).numpy()]
        with torch.no_grad():
            codes: Tensor = taps(torch.from_numpy(rows).to(device))["code"]
        return codes

    return draw


def finish(
    taps: nn.Module,
    generator: nn.Module,
    draw: t.Callable[[int, torch.device], Tensor | None],
    data: ImageSet,
    run: Training,
) -> nn.Module:
    """The end of `fit`: both modules frozen and recalibrated. Leaves `run.generator`; returns the encoder."""
    recalibrate_batch_norm(taps, data, run)
    run.generator = recalibrate_generator(generator, draw, run)
    return taps


def _recalibrated(module: nn.Module, batches: t.Iterable[Tensor], run: Training) -> nn.Module:
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
