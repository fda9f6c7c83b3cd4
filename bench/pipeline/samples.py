"""What a frozen generator makes: samples, reconstructions, pictures of both, and what looks wrong with them."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from bench.pipeline.diagnostics import constant_samples, prior_mismatch
from encoders.base import Features, Generative, ImageSet, ImageShape, derive_seed, seeded
from results.record import Alarm

SAMPLES = "samples"  # stands in place of a tap where what a generator makes is judged
BATCH = 500
SIDE = 10  # images in a row and in a column of a picture


@torch.no_grad()
def make(recipe: Generative, generator: nn.Module, codes: Tensor) -> Tensor:
    """The images of codes, float32 (n, c, h, w) in [0, 1], in main memory."""
    device = next((tensor.device for tensor in generator.state_dict().values()), codes.device)
    made = [recipe.pictures(generator(some.to(device)).float()).cpu() for some in torch.split(codes, BATCH)]
    return torch.cat(made).clamp_(0, 1)


def draw(recipe: Generative, shape: ImageShape, count: int, seed: int) -> Tensor | None:
    """Codes of images from the prior: a pure function of its arguments; None if it has none."""
    with seeded(seed, "samples"):
        return recipe.draw_for(shape, count, torch.device("cpu"))


def alarms(recipe: Generative, samples: Tensor | None, features: Features, test: ImageSet, seed: int) -> list[Alarm]:
    """What looks collapsed about samples, beside test images and their features."""
    found: list[Alarm] = []
    if samples is not None:
        found += constant_samples(samples, torch.from_numpy(np.array(test.images)) / 255)
    codes = None if recipe.codes_are_means else recipe.codes(features)
    prior = None if codes is None else draw(recipe, test.shape, len(codes), seed)
    if codes is not None and prior is not None:
        generator = torch.Generator().manual_seed(derive_seed(seed, "directions"))
        found += prior_mismatch(codes.cpu(), prior, generator)
    return found


def pictures(
    recipe: Generative, generator: nn.Module, module: nn.Module, test: ImageSet, seed: int
) -> dict[str, bytes]:
    """{file name: a PNG}: `samples`; `reconstructions`, below each test image its own; `interpolations`.

    An interpolation goes in equal steps from the code on the left to the one on the right.
    """
    found: dict[str, Tensor] = {}
    codes = draw(recipe, test.shape, SIDE * SIDE, seed)
    if codes is not None:
        found["samples"] = make(recipe, generator, codes)
        steps = torch.linspace(0, 1, SIDE)[:, None]
        between = [torch.lerp(codes[row], codes[row + SIDE], steps) for row in range(SIDE)]
        found["interpolations"] = make(recipe, generator, torch.cat(between))
    originals = torch.from_numpy(np.array(test.images[: SIDE * SIDE // 2]))
    device = next((tensor.device for tensor in module.state_dict().values()), originals.device)
    with torch.no_grad():
        own = recipe.codes(module(originals.to(device)))
    if own is not None:
        rows = zip(torch.split(originals / 255, SIDE), torch.split(make(recipe, generator, own), SIDE))
        found["reconstructions"] = torch.cat([part for pair in rows for part in pair])
    return {f"{name}.png": grid(images) for name, images in found.items()}


def grid(images: Tensor, columns: int = SIDE) -> bytes:
    """A PNG of images (n, c, h, w) in [0, 1] in rows, with a gap of two pixels, small ones enlarged."""
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    canvas = np.full((rows * (height + 2) - 2, columns * (width + 2) - 2, channels), 255, np.uint8)
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for place, image in enumerate(pixels):
        top, left = place // columns * (height + 2), place % columns * (width + 2)
        canvas[top : top + height, left : left + width] = image
    picture = Image.fromarray(canvas.squeeze(2) if channels == 1 else canvas)
    enlarged = max(1, 64 // width)
    buffer = io.BytesIO()
    picture.resize((picture.width * enlarged, picture.height * enlarged), Image.Resampling.NEAREST).save(buffer, "png")
    return buffer.getvalue()
