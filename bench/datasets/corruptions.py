"""Corrupted images: five kinds of damage in five severities, the same for every encoder.

Source: Hendrycks and Dietterich 2019, arXiv:1903.12261, where a clean-trained classifier is judged on corrupted test
images of five severities. Differs: five kinds and not fifteen, of which rotation and occlusion are ours; our strengths,
lengths in shares of the image's side, so that they mean the same for 28 x 28 grey and 32 x 32 colour images; and the
images are made when they are needed, not stored. A change that moves a pixel raises the version of `robustness`.
"""

import math
import typing as t

import torch
from torch import Tensor
from torch.nn import functional

from encoders.base import derive_seed

SEVERITIES = (1, 2, 3, 4, 5)
_ROWS = 1000  # images that are floats at once


def corrupt(images: Tensor, kind: str, severity: int, seed: int) -> Tensor:
    """The same images, uint8 (n, c, h, w), with damage of one of KINDS at severity 0 (none) to 5: a new tensor.

    What is drawn is a pure function of the seed, the kind and an image's row, and not of the severity: the same patch
    grows, the same noise rises.
    """
    if severity == 0:
        return images.clone()
    damage, strengths = KINDS[kind]
    generator = torch.Generator().manual_seed(derive_seed(seed, "corruption", kind))
    parts = [damage(part.float(), strengths[severity - 1], generator) for part in torch.split(images, _ROWS)]
    return torch.cat([part.round_().clamp_(0, 255).to(torch.uint8) for part in parts])


def noise(images: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Independent Gaussian noise on every pixel; `deviation` as a share of white."""
    return images + 255 * deviation * torch.randn(images.shape, generator=generator)


def blur(images: Tensor, width: float, generator: torch.Generator) -> Tensor:  # noqa: ARG001  # nothing is drawn
    """A Gaussian blur, its deviation `width` of the shorter side; what lies beyond an edge is like the edge."""
    channels, sigma = images.shape[1], width * min(images.shape[2:])
    radius = math.ceil(3 * sigma)
    kernel = torch.exp(-torch.arange(-radius, radius + 1).float().square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(channels, 1, 1, -1)
    padded = functional.pad(images, (radius,) * 4, mode="replicate")
    return functional.conv2d(functional.conv2d(padded, kernel, groups=channels), kernel.mT, groups=channels)


def rotation(images: Tensor, degrees: float, generator: torch.Generator) -> Tensor:
    """Turned about the centre, to the left or to the right by lot; corners are filled with what lies at the edge."""
    sides = torch.randint(2, (len(images),), generator=generator) * 2 - 1
    angle = math.radians(degrees) * sides
    ratio = images.shape[2] / images.shape[3]  # coordinates go from -1 to 1 along both sides
    zero = torch.zeros(len(images))
    rows = [[angle.cos(), -angle.sin() * ratio, zero], [angle.sin() / ratio, angle.cos(), zero]]
    matrices = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)  # (n, 2, 3)
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def occlusion(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A grey square (128) somewhere inside, its side `share` of the shorter side."""
    height, width = images.shape[2:]
    side = max(1, round(share * min(height, width)))
    place = torch.rand(len(images), 2, 1, generator=generator)
    hidden = []
    for axis, length in enumerate((height, width)):
        first = (place[:, axis] * (length - side + 1)).long()  # (n, 1)
        pixels = torch.arange(length)
        hidden.append((first <= pixels) & (pixels < first + side))
    patch = hidden[0][:, :, None] & hidden[1][:, None, :]  # (n, h, w)
    return images.masked_fill(patch[:, None], 128)


def contrast(images: Tensor, kept: float, generator: torch.Generator) -> Tensor:  # noqa: ARG001  # nothing is drawn
    """Pixels drawn to the mean of their channel in the image, of whose distance a share is `kept`."""
    means = images.mean(dim=(2, 3), keepdim=True)
    return means + kept * (images - means)


Damage = t.Callable[[Tensor, float, torch.Generator], Tensor]
KINDS: dict[str, tuple[Damage, tuple[float, ...]]] = {  # with a strength for each severity
    "noise": (noise, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "blur": (blur, (0.02, 0.04, 0.06, 0.08, 0.1)),
    "rotation": (rotation, (10, 20, 30, 40, 50)),
    "occlusion": (occlusion, (0.2, 0.3, 0.4, 0.5, 0.6)),
    "contrast": (contrast, (0.8, 0.6, 0.4, 0.2, 0.1)),
}
