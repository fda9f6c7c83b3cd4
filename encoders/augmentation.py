"""Changes to images that leave what they show, drawn afresh at every step from torch's global generator."""

import math
import typing as t

import torch
from torch import Tensor
from torch.nn import functional as F

TURN = math.radians(15)  # at most, either way
STRETCH = 0.15  # of each side, longer or shorter
SHIFT = 1 / 14  # of each side: two pixels of 28
PROBE, REACH = 10 / 28, 1.5 / 28  # root mean squares over pixels in [0, 1]; of 28 x 28, IMSAT's lengths on MNIST


def jittered(x: Tensor) -> Tensor:
    """Images (b, c, h, w), each turned, stretched and shifted by amounts of its own, uniform within the limits above.

    Bilinear; what lies outside of an image is the pixel at its edge. In float32, in which a grid keeps its place.
    """
    count, device = len(x), x.device
    turn, (wide, high), shift = (
        _uniform(count, 1, TURN, device)[:, 0],
        (1 + _uniform(count, 2, STRETCH, device)).T,
        _uniform(count, 2, 2 * SHIFT, device),  # a grid is two units wide
    )
    rows = [turn.cos() * wide, -turn.sin() * wide, shift[:, 0]], [turn.sin() * high, turn.cos() * high, shift[:, 1]]
    with torch.autocast(device.type, enabled=False):
        affine = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
        grid = F.affine_grid(affine, list(x.shape), align_corners=False)
        return F.grid_sample(x.float(), grid, padding_mode="border", align_corners=False)


def worst_shift(x: Tensor, changed: t.Callable[[Tensor], Tensor]) -> Tensor:
    """The shift of each image (b, c, h, w) by `REACH` that changes the answer most, as far as one gradient tells.

    `changed` gives a scalar, the least for x itself. Virtual adversarial training's power iteration, once (Miyato,
    Maeda, Koyama, Nakae, Ishii 2016, arXiv:1507.00677).
    """
    with torch.enable_grad():
        direction = _of_length(torch.randn_like(x), PROBE).requires_grad_()
        (gradient,) = torch.autograd.grad(changed(x + direction), direction)
    return _of_length(gradient.float(), REACH)


def _of_length(x: Tensor, length: float) -> Tensor:
    return length * x / x.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-20)


def _uniform(count: int, width: int, reach: float, device: torch.device) -> Tensor:
    return reach * (2 * torch.rand(count, width, device=device) - 1)
