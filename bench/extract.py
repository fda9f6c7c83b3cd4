"""A frozen module and images -> features, with proof that the module was frozen all the while."""

import hashlib
import typing as t

import numpy as np
import torch
from torch import Tensor, nn

from encoders.base import EncoderError, Features, ImageSet

BATCH = 512


class NotFrozen(EncoderError):
    """A module that would give other features another time, or in another batch; the message names the encoder."""


def extract(name: str, module: nn.Module, images: ImageSet, taps: t.Sequence[str], device: torch.device) -> Features:
    """{tap: float32 (n, d)} in main memory, for every image.

    Raises NotFrozen if the module is in training mode, changes while it is used, or lets images of a batch influence
    each other; EncoderError if its taps or their values are not what was promised.
    """
    check_frozen(name, module, images, device)
    before = weights_hash(module)
    features: Features = {}
    for start in range(0, len(images), BATCH):
        for tap, rows in _forward(module, images.images[start : start + BATCH], device).items():
            if start == 0:
                features[tap] = torch.empty(len(images), *rows.shape[1:])
            features[tap][start : start + BATCH] = rows
    if weights_hash(module) != before:
        raise NotFrozen(f"encoder {name!r} is not frozen: its parameters or buffers changed during extraction")
    for tap, rows in _forward(module, images.images[:BATCH], device).items():
        if not _alike(rows, features[tap][:BATCH]):
            raise NotFrozen(f"encoder {name!r} is not frozen: at tap {tap!r} the same images have other features later")
    if tuple(features) != tuple(taps):
        raise EncoderError(f"encoder {name!r} promised the taps {', '.join(taps)} and gave {', '.join(features)}")
    for tap, rows in features.items():
        if rows.ndim != 2:
            raise EncoderError(f"encoder {name!r}, tap {tap!r}: features must be (n, d); got {tuple(rows.shape)}")
        if not torch.isfinite(rows).all():
            bad = int((~torch.isfinite(rows).all(dim=1)).sum())
            raise EncoderError(
                f"encoder {name!r}, tap {tap!r}: {bad} of {len(rows)} images have NaN or infinite features"
            )
    return features


def check_frozen(name: str, module: nn.Module, images: ImageSet, device: torch.device) -> None:
    """Raise NotFrozen if any part is in training mode or learning, or an image's features depend on its neighbours."""
    training = [part or "the module itself" for part, layer in module.named_modules() if layer.training]
    if training:
        raise NotFrozen(f"encoder {name!r} is not frozen: in training mode: {', '.join(training)}")
    learning = [part for part, parameter in module.named_parameters() if parameter.requires_grad]
    if learning:
        raise NotFrozen(f"encoder {name!r} is not frozen: still asks for gradients: {', '.join(learning)}")
    probe, company = np.array(images.images[:8]), 255 - np.array(images.images[-8:])
    together = _forward(module, np.concatenate([probe, company]), device)
    behind = _forward(module, np.concatenate([company, probe[::-1]]), device)  # another place, other neighbours
    alone = [_forward(module, image[None], device) for image in probe]
    for tap, rows in together.items():
        ours, elsewhere = rows[: len(probe)], behind[tap].flip(0)[: len(probe)]
        if not (_alike(elsewhere, ours) and _alike(torch.cat([one[tap] for one in alone]), ours)):
            raise NotFrozen(
                f"encoder {name!r} is not frozen: at tap {tap!r} an image's features depend on the other images of its "
                "batch, or on chance"
            )


def _alike(rows: Tensor, others: Tensor) -> bool:
    """Equal but for rounding, which depends on the size of a batch."""
    return torch.allclose(rows, others, rtol=1e-4, atol=1e-5 * float(others.abs().max()), equal_nan=True)


def weights_hash(module: nn.Module) -> str:
    """A digest of every parameter and buffer, those outside the state dict included."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@torch.no_grad()
def _forward(module: nn.Module, images: np.ndarray[t.Any, t.Any], device: torch.device) -> dict[str, Tensor]:
    taps = module(torch.from_numpy(np.array(images)).to(device))
    return {tap: rows.float().cpu() for tap, rows in taps.items()}
