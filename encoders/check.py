"""The promises every encoder keeps, callable on your own: `check_encoder(MyEncoder(), train)`."""

import dataclasses
import json
import typing as t

import numpy as np
import torch
from torch import Tensor, nn

from encoders.base import Encoder, EncoderError, Features, Generative, ImageSet, Keeper, Training, visible_to

_PROCESSOR = torch.device("cpu")
ROUNDINGS = 16.0  # so many times what the last bits of the weights move, a feature may be moved by another batch


def check_encoder(
    recipe: Encoder,
    train: ImageSet,
    precision: t.Literal["float32", "bfloat16"] = "float32",
    device: torch.device = _PROCESSOR,
) -> None:
    """Fit the recipe twice on `train` (some hundred images are plenty); raise EncoderError at a broken promise.

    The recipe survives JSON; fitting needs no labels beyond its budget, leaves the images and torch's random state
    alone and gives the same bits for the same seed, also if it is stopped after its second step and goes on from the
    state that was kept; the module is frozen, gives the promised taps as finite float32 rows, each that of its image
    alone, and its weights alone, loaded into a fresh `build`, give the same features. A `Generative` recipe leaves a
    frozen generator behind whose images are in 0..1 and follow from its weights alone; log-likelihoods are finite.
    """
    name = type(recipe).__name__
    parsed = type(recipe).model_validate_json(recipe.model_dump_json())
    _require(parsed == recipe, name, "does not survive a round trip through JSON")
    json.dumps(recipe.model_dump(mode="json"), allow_nan=False)
    given = visible_to(train, recipe, seed=0)
    pixels = np.array(given.images)
    random_state = torch.get_rng_state()
    run = Training(0, device, precision)
    module = recipe.fit(given, run)
    _require(torch.equal(random_state, torch.get_rng_state()), name, "changes torch's global random state")
    _require(np.array_equal(pixels, given.images), name, "changes the images it is given")
    _require(not any(part.training for part in module.modules()), name, "returns a module in training mode")
    _require(not any(p.requires_grad for p in module.parameters()), name, "returns parameters that require gradients")
    features = _features(module, given)
    _require(tuple(features) == recipe.taps, name, f"promises taps {recipe.taps} and gives {tuple(features)}")
    for tap, rows in features.items():
        well = rows.ndim == 2 and len(rows) == len(given) and rows.dtype == torch.float32 and rows.shape[1] > 0
        _require(well, name, f"gives {rows.dtype} {tuple(rows.shape)} at tap {tap!r}, not float32 (n, d)")
        _require(bool(torch.isfinite(rows).all()), name, f"gives NaN or infinity at tap {tap!r}")
    if (found := dependent_tap(module, given.images, device)) is not None:
        depend = "depend on the other images of its batch, or on chance"
        raise EncoderError(f"{name} gives features of an image at tap {found!r} that {depend}")
    repeated = _features(recipe.fit(given, Training(0, device, precision)), given)
    _require(_equal(features, repeated), name, "gives different features for the same seed")
    stopped = _features(fit_with_a_stop(recipe, given, Training(0, device, precision), after=2), given)
    _require(_equal(features, stopped), name, "gives different features when it is stopped and resumed")
    with torch.random.fork_rng():
        fresh = recipe.build(given.shape).eval().to(device)
    fresh.load_state_dict(module.state_dict(), strict=True)
    same = _equal(features, _features(fresh, given))
    _require(same, name, "gives different features after its weights were saved and loaded")
    if isinstance(recipe, Generative):
        _check_generator(recipe, module, run.generator, features, given, device)


def dependent_tap(module: nn.Module, images: np.ndarray[t.Any, t.Any], device: torch.device) -> str | None:
    """A tap where an image's features depend on the other images of its batch, its place there, or chance; or None."""
    probe, company = np.array(images[:8]), 255 - np.array(images[-8:])
    batch = torch.from_numpy(np.concatenate([probe, company])).to(device)
    together = _forward(module, batch)
    behind = _forward(module, batch.flip(0))  # another place, behind other neighbours
    alone = [_forward(module, image[None]) for image in batch[: len(probe)]]
    slack: Features = {}
    for tap, rows in together.items():
        ours = rows[: len(probe)]
        for others in (behind[tap].flip(0)[: len(probe)], torch.cat([one[tap] for one in alone])):
            if not alike(others, ours):
                slack = slack or _rounding(module, batch, together)
                if not alike(others, ours, slack[tap]):
                    return tap
    return None


def alike(rows: Tensor, others: Tensor, slack: Tensor | float = 0.0) -> bool:
    """Equal but for rounding, which depends on the size of a batch; `slack` (d,) is what it may be beside the usual."""
    largest = float(others.abs().nan_to_num(0, 0, 0).max())
    close = torch.isclose(rows, others, rtol=1e-4, atol=1e-5 * largest, equal_nan=True)
    return bool((close | ((rows - others).abs() <= slack)).all())


def _rounding(module: nn.Module, batch: Tensor, features: Features) -> Features:
    """How far rounding may move each unit of each tap, (d,): several times what the last bits of the weights do.

    A layer divided by a tiny running deviation, as of images of low contrast, magnifies it. 0 where the same batch has
    other features the next time: that is chance.
    """
    random = torch.Generator().manual_seed(0)
    moved = {}
    for name, weights in (*module.named_parameters(), *module.named_buffers()):
        if weights.is_floating_point():
            signs = torch.randint(0, 2, weights.shape, generator=random).to(weights.device) * 2 - 1
            moved[name] = weights * (1 + torch.finfo(weights.dtype).eps * signs)
    again, other = _forward(module, batch), _forward(module, batch, moved)
    return {
        tap: ROUNDINGS * (rows - other[tap]).abs().amax(dim=0) * alike(again[tap], rows)
        for tap, rows in features.items()
    }


@torch.no_grad()
def _forward(module: nn.Module, images: Tensor, weights: dict[str, Tensor] | None = None) -> Features:
    taps = torch.func.functional_call(module, weights, (images,)) if weights else module(images)
    return {tap: rows.float().cpu().contiguous() for tap, rows in taps.items()}


def fit_with_a_stop(recipe: Encoder, images: ImageSet, run: Training, after: int) -> nn.Module:
    """Fit, stop after so many steps, and fit again from the state that was kept; at once if it never asks to stop."""
    keeper = Stopper(after)
    try:
        return recipe.fit(images, dataclasses.replace(run, keeper=keeper))
    except KeyboardInterrupt:
        run.keeper = keeper
        return recipe.fit(images, run)


class Stopper(Keeper):
    """Keeps one state in memory and asks a training to stop there, once."""

    def __init__(self, after: int) -> None:
        self.after, self.steps = after, 0
        self.content: bytes | None = None

    @property
    def stopping(self) -> bool:
        return self.steps == self.after

    def due(self) -> bool:
        self.steps += 1
        return False

    def keep(self, step: int, content: bytes) -> None:  # noqa: ARG002
        self.content = content

    def kept(self, largest: int) -> t.Iterator[bytes]:  # noqa: ARG002
        yield from [self.content] if self.content else []

    def reject(self, problem: str) -> None:
        raise EncoderError(f"the saved state cannot be used: {problem}")


@torch.no_grad()
def _check_generator(
    recipe: Generative,
    module: nn.Module,
    generator: nn.Module | None,
    features: Features,
    images: ImageSet,
    device: torch.device,
) -> None:
    name = type(recipe).__name__
    if generator is None:
        raise EncoderError(f"{name} does not set run.generator")
    _require(not any(part.training for part in generator.modules()), name, "leaves a generator in training mode")
    with torch.random.fork_rng():
        fresh = recipe.build_generator(images.shape).eval().to(device)
        drawn = recipe.draw_for(images.shape, 8, device)
        likelihoods = recipe.log_likelihoods(module, generator, images, images)
    for what, nats in likelihoods.items():
        well = nats.shape == (len(images),) and bool(torch.isfinite(nats).all())
        _require(well, name, f"gives a {what} that is not a finite number for each image")
    fresh.load_state_dict(generator.state_dict(), strict=True)
    own = recipe.codes({tap: rows[:8] for tap, rows in features.items()})
    _require(drawn is not None or own is not None, name, "has a generator, but no codes for it")
    for codes in (drawn, own):
        if codes is not None:
            made = recipe.pictures(generator(codes))
            _require(made.shape == (len(codes), *images.shape), name, f"makes images {tuple(made.shape)}")
            _require(bool(((made >= 0) & (made <= 1)).all()), name, "makes images that are not in 0..1")
            same = torch.equal(made, recipe.pictures(fresh(codes)))
            _require(same, name, "makes different images after its generator's weights were saved and loaded")


@torch.no_grad()
def _features(module: torch.nn.Module, images: ImageSet) -> Features:
    device = next((tensor.device for tensor in (*module.parameters(), *module.buffers())), _PROCESSOR)
    features: Features = module(torch.from_numpy(np.array(images.images)).to(device))
    return features


def _equal(features: Features, others: Features) -> bool:
    return all(torch.equal(rows, others[tap]) for tap, rows in features.items())


def _require(kept: bool, name: str, broken: str) -> None:
    if not kept:
        raise EncoderError(f"{name} {broken}")
