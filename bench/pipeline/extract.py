"""A frozen module and images -> features, with proof that the module was frozen all the while.

Features pass through memory a batch at a time into files that protocols read as memory maps, so that features larger
than memory can be judged. The files are a cache: whoever deletes them loses only the time to make them again.
"""

import hashlib
import io
import json
import logging
import math
import shutil
import typing as t
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from encoders.base import EncoderError, Features, ImageSet
from encoders.check import alike, dependent_tap
from results import files
from results.arrays import read_npy

logger = logging.getLogger(__name__)

VERSION = 1  # of the files; raised by a change that can move a feature
# Bytes that a batch's layers may take. A processor is fastest while they stay in its caches: BiGAN's perceptrons with
# 512 to 1,024 images (43,000 a second; 34,000 with 4,096), DCGAN's convolutions with 64 to 256.
MEMORY = {"cpu": 2**24, "cuda": 2**30}


class NotFrozen(EncoderError):
    """A module that would give other features another time, or in another batch; the message names the encoder."""


def features_on_disk(
    directory: Path,
    name: str,
    module: nn.Module,
    parts: dict[str, ImageSet],
    taps: t.Sequence[str],
    device: torch.device,
) -> dict[str, Features]:
    """{part: {tap: float32 (n, d)}}, mapped from `directory`/<tap>/<part>.npy.

    The files are made unless they are there, whole, and of the same weights, images and taps. Each tensor is private to
    its caller: writing to it changes no file, and it stays readable after the files are gone. Raises what `extract`
    raises, and files.Unwritable.
    """
    belongs_to = {
        "version": VERSION,
        "weights": weights_hash(module),
        "device": device.type,
        "images": {part: images.fingerprint for part, images in parts.items()},
        "taps": list(taps),
    }
    if not directory.exists() or (found := _read(directory, belongs_to)) is None:
        shutil.rmtree(directory, ignore_errors=True)
        with files.private_directory(directory) as private:
            sums = {part: _write(private, part, extract(name, module, parts[part], taps, device)) for part in parts}
            with files.writing(index := private / "features.json"):
                index.write_bytes(files.canonical({"of": belongs_to, "sums": sums}))
            found = {part: {tap: _mapped(private / tap / f"{part}.npy") for tap in taps} for part in parts}
    return found


def _write(directory: Path, part: str, batches: t.Iterator[tuple[int, Features]]) -> dict[str, int]:
    """Fill <tap>/<part>.npy batch by batch; {tap: the sum of the file's 32-bit words}, which gives damage away."""
    opened: dict[str, t.BinaryIO] = {}
    sums: dict[str, int] = {}
    try:
        for count, batch in batches:
            for tap, rows in batch.items():
                with files.writing(path := directory / tap / f"{part}.npy"):
                    if tap not in opened:
                        path.parent.mkdir(exist_ok=True)
                        opened[tap] = path.open("wb")
                        described = {"descr": "<f4", "fortran_order": False, "shape": (count, rows.shape[1])}
                        np.lib.format.write_array_header_1_0(header := io.BytesIO(), described)
                        opened[tap].write(header.getvalue())
                        sums[tap] = _sum(np.frombuffer(header.getvalue(), "<i4"))
                    opened[tap].write(rows.numpy().astype("<f4", copy=False).data)
                sums[tap] += _sum(rows.numpy().astype("<f4", copy=False).view("<i4"))
    finally:
        for tap, file in opened.items():
            with files.writing(directory / tap / f"{part}.npy"):
                file.close()
    return sums


def _read(directory: Path, belongs_to: dict[str, t.Any]) -> dict[str, Features] | None:
    """The features of these files; None if they belong to something else or are not whole."""
    try:
        known = json.loads((directory / "features.json").read_bytes())
        if known["of"] != belongs_to:
            return None
        found = {
            part: {tap: _mapped(directory / tap / f"{part}.npy") for tap in belongs_to["taps"]}
            for part in belongs_to["images"]
        }
        sums = {
            part: {tap: _sum(np.memmap(directory / tap / f"{part}.npy", "<i4", "r")) for tap in taps}
            for part, taps in found.items()
        }
        if sums != known["sums"]:
            raise ValueError("they have changed since they were written")
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("the features in %s are damaged (%s); extracting them again", directory, error)
        return None
    return found


def _mapped(path: Path) -> Tensor:
    return torch.from_numpy(read_npy(path))


def _sum(words: np.ndarray[t.Any, np.dtype[np.int32]]) -> int:
    return int(words.sum(dtype=np.int64))


def extract(
    name: str, module: nn.Module, images: ImageSet, taps: t.Sequence[str], device: torch.device
) -> t.Iterator[tuple[int, Features]]:
    """The number of images and {tap: float32 (b, d)} in main memory, a batch after the other, in the images' order.

    The batch is the largest power of two of which all layers fit `MEMORY`. Raises NotFrozen if the module is in
    training mode, changes while it is used, or lets images of a batch influence each other; EncoderError if its taps or
    their values are not what was promised. What was handed out counts only when the last batch came without an error.
    """
    check_frozen(name, module, images, device)
    before = weights_hash(module)
    size = _batch_size(module, images, device)
    first: Features = {}
    bad = dict.fromkeys(taps, 0)
    for start in range(0, len(images), size):
        batch = _forward(module, images.images[start : start + size], device)
        first = first or batch
        if tuple(batch) != tuple(taps):
            raise EncoderError(f"encoder {name!r} promised the taps {', '.join(taps)} and gave {', '.join(batch)}")
        for tap, rows in batch.items():
            if rows.ndim != 2 or not rows.shape[1]:
                raise EncoderError(f"encoder {name!r}, tap {tap!r}: features must be (n, d); got {tuple(rows.shape)}")
            if not math.isfinite(float(rows.sum())):  # NaN or infinity, unless finite ones overflow
                bad[tap] += int((~torch.isfinite(rows).all(dim=1)).sum())
        yield len(images), batch
    if weights_hash(module) != before:
        raise NotFrozen(f"encoder {name!r} is not frozen: its parameters or buffers changed during extraction")
    for tap, rows in _forward(module, images.images[:size], device).items():
        if not alike(rows, first[tap]):
            raise NotFrozen(f"encoder {name!r} is not frozen: at tap {tap!r} the same images gave other features later")
    for tap, count in bad.items():
        if count:
            raise EncoderError(
                f"encoder {name!r}, tap {tap!r}: {count} of {len(images)} images have NaN or infinite features"
            )


def _batch_size(module: nn.Module, images: ImageSet, device: torch.device) -> int:
    """A power of two, or fewer images where there are fewer."""
    used = images.images[0].nbytes

    def count(_layer: nn.Module, _inputs: t.Any, output: t.Any) -> None:
        nonlocal used
        used += output.nbytes if isinstance(output, Tensor) else 0

    hooks = [layer.register_forward_hook(count) for layer in module.modules()]
    try:
        _forward(module, images.images[:1], device)
    finally:
        for hook in hooks:
            hook.remove()
    return 2 ** max(0, (MEMORY[device.type] // used).bit_length() - 1)


def check_frozen(name: str, module: nn.Module, images: ImageSet, device: torch.device) -> None:
    """Raise NotFrozen if any part is in training mode or learning, or an image's features depend on its neighbours."""
    training = [part or "the module itself" for part, layer in module.named_modules() if layer.training]
    if training:
        raise NotFrozen(f"encoder {name!r} is not frozen: in training mode: {', '.join(training)}")
    learning = [part for part, parameter in module.named_parameters() if parameter.requires_grad]
    if learning:
        raise NotFrozen(f"encoder {name!r} is not frozen: parameters require gradients: {', '.join(learning)}")
    if (tap := dependent_tap(module, images.images, device)) is not None:
        raise NotFrozen(
            f"encoder {name!r} is not frozen: at tap {tap!r} an image's features depend on the other images of its "
            "batch, or on chance"
        )


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
    return {tap: rows.float().cpu().contiguous() for tap, rows in taps.items()}
