"""Views: copies of images that still show what they show, each image changed by amounts of its own.

What is drawn comes from torch's global generator, which the loop seeds by (seed, step). A view takes one row of uniform
numbers per image, drawn on the processor: an image's row does not depend on the device, or on the size of its batch.
The changes are made where the images are, all of a batch at once: crop, flip and blur are one product with matrices of
rows and of columns, jitter and grey one matrix of colours.

Source: the transforms of torchvision as SimCLR chains them (Chen et al. 2020, arXiv:2002.05709, appendix A).
Differs: crops are bilinear, and not aligned to pixels; a side longer than the image is cut to it, not drawn again; hue
turns about the grey axis of YIQ, not in HSV; values are cut to [0, 1] once, before solarizing.
"""

import dataclasses
import math
import typing as t

import torch
from torch import Tensor
from torch.nn import functional as F

from encoders.base import EncoderError, ImageShape

TURN = math.radians(15)  # at most, either way
STRETCH = 0.15  # of each side, longer or shorter
SHIFT = 1 / 14  # of each side: two pixels of 28
PROBE, REACH = 10 / 28, 1.5 / 28  # root mean squares over pixels in [0, 1]; of 28 x 28, IMSAT's lengths on MNIST

RATIO = 4 / 3  # of a crop's width to its height at the most; its inverse at the least
SIGMA = 0.1, 2.0  # of a blur, in pixels
DRAWS = (4, 1, 1, 4, 4, 1, 2, 1, 2, 5)  # uniform numbers that a view takes of an image, change by change
GREY = torch.tensor([0.299, 0.587, 0.114])  # luma, ITU-R BT.601
YIQ = torch.tensor([GREY.tolist(), [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


@dataclasses.dataclass(frozen=True)
class View:
    """What may be changed of an image, how far and how often; by default nothing."""

    crop: float = 1.0  # least share of the area that is kept, and enlarged to the whole
    flip: float = 0.0  # probability that left and right change places
    jitter: float = 0.0  # probability of the next four, in an order that is drawn, too
    brightness: float = 0.0  # factors are uniform within 1 +- this
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0  # turns of the circle of colours, at most, either way
    grey: float = 0.0  # probability of losing all colour
    blur: float = 0.0  # probability of a Gaussian blur
    solarize: float = 0.0  # probability that pixels of 1/2 and more become their negatives
    shift: float = 0.0  # of each side, at most, either way; the edge is repeated
    affine: bool = False  # whether it is turned, stretched and shifted first, as `jittered` does

    @property
    def reads_colour(self) -> bool:
        return self.jitter > 0 or self.grey > 0

    def __call__(self, x: Tensor, draws: Tensor) -> Tensor:
        """The view of images x (b, c, h, w) in [0, 1] that uniform numbers (b, sum(DRAWS)) choose, in float32."""
        parts = torch.split(draws, list(DRAWS), dim=1)
        with torch.autocast(x.device.type, enabled=False):
            moved = _mapped(x.float(), *_limits(2 * parts[-1] - 1)) if self.affine else x.float()
            placed = self._placed(moved, parts)
            return self._coloured(placed, parts).clamp(0, 1) if self.reads_colour or self.solarize else placed

    def _placed(self, x: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
        count, channels, height, width = x.shape
        (area, ratio, down, right), (flip,), shift = parts[0].T, parts[1].T, self.shift * (2 * parts[8] - 1)
        (blur, sigma) = parts[6].T
        area, ratio = self.crop + (1 - self.crop) * area, RATIO ** ((2 * ratio - 1) * (self.crop < 1))
        high, wide = (area / ratio).sqrt().clamp(max=1), (area * ratio).sqrt().clamp(max=1)
        rows = _crop(height, (1 - high) * down + shift[:, 0], high)
        columns = _crop(width, (1 - wide) * right + shift[:, 1], wide)
        columns = torch.where((flip < self.flip)[:, None, None], columns.flip(1), columns)
        if self.blur:
            deviation = torch.where(blur < self.blur, SIGMA[0] + (SIGMA[1] - SIGMA[0]) * sigma, 0)
            rows, columns = torch.bmm(_blur(height, deviation), rows), torch.bmm(_blur(width, deviation), columns)
        x = torch.bmm(rows, x.transpose(1, 2).reshape(count, height, channels * width))
        x = torch.bmm(x.view(count, height * channels, width), columns.mT)
        return x.view(count, height, channels, width).transpose(1, 2)

    def _coloured(self, x: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
        jitter, amounts, order, grey, solarize = parts[2], parts[3], parts[4], parts[5], parts[7]
        if self.reads_colour:
            reach = amounts.new_tensor([self.brightness, self.contrast, self.saturation, self.hue])
            amounts = reach * (2 * amounts - 1) * (jitter < self.jitter)
            colours = jitter_matrix(x.mean(dim=(2, 3)), amounts, order.argsort(dim=1))
            colours = torch.where((grey < self.grey)[:, :, None], _grey(x.device) @ colours, colours)
            moved = torch.baddbmm(colours[:, :3, 3:], colours[:, :3, :3], x.flatten(2))
            x = moved.view(x.shape).clamp(0, 1)
        return torch.where((solarize < self.solarize)[:, :, None, None] & (x >= 0.5), 1 - x, x)


_JITTERED = View(crop=0.08, flip=0.5, jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, grey=0.2)
_STRONG = View(
    crop=0.08, flip=0.5, jitter=0.8, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, grey=0.2, blur=0.5
)
_WEAK = dataclasses.replace(_JITTERED, saturation=0.4, blur=0.5)
_SOLARIZED = dataclasses.replace(_JITTERED, crop=0.2, solarize=0.1)
_DIGIT = View(crop=0.4, affine=True)

# The two views of an image by the name of their recipe: solo-learn's for CIFAR, and one of ours for grey digits, which
# have no colour to lose and change their meaning when flipped.
PRESETS: dict[str, tuple[View, View]] = {
    "symmetric": (_STRONG, _STRONG),
    "symmetric_weak": (_WEAK, _WEAK),
    "asymmetric": (_JITTERED, dataclasses.replace(_JITTERED, solarize=0.2)),
    "solarized": (_SOLARIZED, _SOLARIZED),
    "digits": (_DIGIT, _DIGIT),
}
Preset = t.Literal["symmetric", "symmetric_weak", "asymmetric", "solarized", "digits"]


def preset(name: Preset | None, colour: Preset, shape: ImageShape) -> tuple[View, View]:
    """The views of that name; without one those called `colour` where images have three channels, else `digits`.

    Raises EncoderError for views that change colours of images which have none.
    """
    chosen = name or (colour if shape[0] == 3 else "digits")
    if shape[0] != 3 and any(view.reads_colour for view in PRESETS[chosen]):
        raise EncoderError(
            f"views: {chosen} changes colours, but the images have {shape[0]} channels; "
            "set `views: digits`, or leave it out"
        )
    return PRESETS[chosen]


def views_of(x: Tensor, recipe: t.Sequence[View]) -> list[Tensor]:
    """The views of images x (b, c, h, w) in [0, 1], from torch's global generator."""
    draws = torch.rand(len(x), len(recipe), sum(DRAWS), device=x.device)
    return [view(x, draws[:, index]) for index, view in enumerate(recipe)]


def check_changes(x: Tensor, recipe: t.Sequence[View]) -> None:
    """Raise EncoderError if the views of images x (b, c, h, w) in [0, 1] are these images: nothing could be learned."""
    if all(torch.allclose(view, x, atol=1e-4) for view in views_of(x, recipe)):
        fields = [(view, field) for view in recipe for field in dataclasses.fields(view)]
        asked = sorted({field.name for view, field in fields if getattr(view, field.name) != field.default})
        raise EncoderError(
            f"views of {len(x)} training images do not differ from the images ({', '.join(asked) or 'no change'}), so "
            "nothing could be learned from them; set `views` to another preset, or look at the images"
        )


def quarter_turns(x: Tensor, counts: Tensor) -> Tensor:
    """Square images (b, c, n, n), each turned to the left by so many quarters (b,) as torch.rot90 does."""
    turned = torch.stack([torch.rot90(x, count, (2, 3)) for count in range(4)])
    return turned[counts % 4, torch.arange(len(x), device=x.device)]


def jitter_matrix(mean: Tensor, amounts: Tensor, order: Tensor) -> Tensor:
    """What brightness, contrast, saturation and hue do to colours (r, g, b, 1), as matrices (b, 4, 4).

    `mean` (b, 3) is each image's mean colour, `amounts` (b, 4) how far each factor lies from 1, and hue from 0 turns,
    and `order` (b, 4) which of the four comes when. All zero give the identity.
    """
    count, device = len(mean), mean.device
    grey, none = _grey(device).expand(count, 4, 4), torch.eye(4, device=device).expand(count, 4, 4)
    black = torch.zeros(4, 4, device=device)
    black[3, 3] = 1
    factors, angle = (1 + amounts[:, :3, None, None]).unbind(1), 2 * math.pi * amounts[:, 3]
    hue, yiq = none.clone(), YIQ.to(device)
    cosine, sine = angle.cos(), angle.sin()
    turn = none[:, :3, :3].clone()
    turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = cosine, -sine, sine, cosine
    hue[:, :3, :3] = torch.linalg.inv(yiq) @ turn @ yiq
    brightness, saturation = (factors[i] * none + (1 - factors[i]) * to for i, to in ((0, black), (2, grey)))
    whole, rows = none, torch.arange(count, device=device)
    for place in range(4):
        here = torch.bmm(whole, F.pad(mean, (0, 1), value=1.0)[:, :, None])  # the mean colour so far
        level = black.repeat(count, 1, 1)
        level[:, :3, 3] = torch.bmm(grey, here)[:, :3, 0]
        contrast = factors[1] * none + (1 - factors[1]) * level
        steps = torch.stack([brightness, contrast, saturation, hue], dim=1)
        whole = torch.bmm(steps[rows, order[:, place]], whole)
    return whole


def jittered(x: Tensor) -> Tensor:
    """Images (b, c, h, w), each turned, stretched and shifted by amounts of its own, uniform within the limits above.

    Bilinear; what lies outside of an image is the pixel at its edge. In float32, in which a grid keeps its place.
    """
    with torch.autocast(x.device.type, enabled=False):
        either_way = [2 * torch.rand(len(x), width, device=x.device) - 1 for width in (1, 2, 2)]
        return _mapped(x.float(), *_limits(torch.cat(either_way, dim=1)))


def _limits(amounts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Turn (b,), stretch (b, 2) and shift (b, 2) of amounts (b, 5) in -1..1; a grid is two units wide."""
    return TURN * amounts[:, 0], 1 + STRETCH * amounts[:, 1:3], 2 * SHIFT * amounts[:, 3:]


def _mapped(x: Tensor, turn: Tensor, stretch: Tensor, shift: Tensor) -> Tensor:
    wide, high = stretch.T
    rows = [turn.cos() * wide, -turn.sin() * wide, shift[:, 0]], [turn.sin() * high, turn.cos() * high, shift[:, 1]]
    affine = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    grid = F.affine_grid(affine, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _crop(size: int, start: Tensor, length: Tensor) -> Tensor:
    """Matrices (b, size, size) that enlarge a part of a line of pixels to the whole of it, bilinearly.

    The part starts at `start` and is `length` long (b,), both as shares of the line; what lies outside is its edge.
    """
    pixels = torch.arange(size, device=start.device)
    first, last = size * start, size * (start + length) - 1
    places = (first[:, None] + length[:, None] * (pixels + 0.5) - 0.5).clamp(first[:, None], last[:, None])
    return (1 - (places.clamp(0, size - 1)[:, :, None] - pixels).abs()).clamp(min=0)


def _blur(size: int, deviation: Tensor) -> Tensor:
    """Matrices (b, size, size) that blur a line of pixels; the identity where the deviation (b,), in pixels, is 0."""
    pixels = torch.arange(size, device=deviation.device)
    distance = (pixels[:, None] - pixels).square()
    weights = torch.exp(-distance / (2 * deviation.square().clamp(min=1e-3))[:, None, None])
    return weights / weights.sum(dim=2, keepdim=True)


def _grey(device: torch.device) -> Tensor:
    """The matrix that takes (r, g, b, 1) to its grey."""
    matrix = torch.zeros(4, 4)
    matrix[:3, :3], matrix[3, 3] = GREY, 1
    return matrix.to(device)


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
