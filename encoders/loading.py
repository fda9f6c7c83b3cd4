"""Frozen encoders from their files: recipe, parameters and image shape as JSON, the weights as safetensors."""

import hashlib
import importlib
import inspect
import json
import pkgutil
import typing as t
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from encoders.base import Encoder, EncoderError, Features, ImageShape, frozen

WEIGHTS, RECIPE = "encoder.safetensors", "encoder.json"
LARGEST_RECIPE = 2**20  # bytes; one has a few hundred
LARGEST_SIDE = 2**14  # pixels

brought: dict[str, type[Encoder]] = {}  # encoders of plugins and packages, by name, once they were resolved


class Description(t.NamedTuple):
    """What a directory says of the frozen encoder in it."""

    name: str
    encoder: Encoder
    shape: ImageShape
    sha256: str  # of its weights


def load(directory: str | Path, recipe: type[Encoder] | None = None) -> nn.Module:
    """The frozen encoder in a directory: uint8 images (n, c, h, w) -> {tap: float32 features (n, d)}.

    recipe: the class of an encoder of your own; ours are found by name. Nothing that the files bring is run. As a part
    of another module it stays in eval mode and gives no gradients; it can be pickled.

    Raises EncoderError for files that are missing, changed since written, or of another version of the encoder.
    """
    name, encoder, shape, sha256 = describe(Path(directory), recipe)
    return _Loaded(name, shape, plain(restore(encoder.build, shape, Path(directory, WEIGHTS), sha256)))


def plain(module: nn.Module) -> nn.Module:
    """A frozen module with its weights as they are used: PyTorch pickles no layer with a spectral norm."""
    for layer in list(module.modules()):
        if parametrize.is_parametrized(layer):
            for name in list(t.cast(nn.ModuleDict, layer.parametrizations)):
                parametrize.remove_parametrizations(layer, name)
    return frozen(module)


class _Loaded(nn.Module):
    """A frozen encoder that stays frozen as a part of other modules, and reads nothing but images of its shape."""

    def __init__(self, name: str, shape: ImageShape, encoder: nn.Module) -> None:
        super().__init__()
        self.name, self.shape, self.encoder = name, shape, encoder
        self.training = False

    def train(self, mode: bool = True) -> t.Self:  # noqa: ARG002 - batch-norm would average what passes through
        return self

    @torch.no_grad()  # also where somebody asks all parameters of a whole for gradients
    def forward(self, images: Tensor) -> Features:
        if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.shape[1:] != self.shape:
            came = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            wanted = f"a uint8 tensor (n, {', '.join(map(str, self.shape))})"
            raise EncoderError(f"{self.name!r} reads {wanted}; got {came}")
        features: Features = self.encoder.eval()(images)  # whoever set its parts to train one by one
        return features


def describe(directory: Path, recipe: type[Encoder] | None = None) -> Description:
    """What `load` would load. Raises EncoderError."""
    path = directory / RECIPE
    try:
        with path.open("rb") as file:
            about = json.loads(file.read(LARGEST_RECIPE))
        channels, height, width = map(int, about["shape"])
        name, version, shape = about["encoder"], about["encoder_version"], (channels, height, width)
        encoder = (recipe or named(name)).model_validate_json(json.dumps(about["params"]))
        described = Description(name, encoder, shape, about["weights_sha256"])
    except OSError as error:
        raise EncoderError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise EncoderError(f"{path} describes no frozen encoder: {type(error).__name__}: {error}") from error
    if not all(0 < size <= LARGEST_SIDE for size in shape):
        raise EncoderError(f"{path}: sizes of images must lie in 1..{LARGEST_SIDE}; got {shape}")
    if version != encoder.revision:
        raise EncoderError(
            f"{path} is of version {version} of {name!r}; this frostbench has version {encoder.revision}: "
            "train it again, or load it with the frostbench that run.json names"
        )
    return described


def restore(build: t.Callable[[ImageShape], nn.Module], shape: ImageShape, path: Path, sha256: str | None) -> nn.Module:
    """The frozen module of these weights, which must have this digest. Raises EncoderError."""
    try:
        weights = path.read_bytes()
    except OSError as error:
        raise EncoderError(f"{path} cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(weights).hexdigest() != sha256:
        raise EncoderError(f"{path}: changed since it was written: its sha256 does not fit")
    with torch.random.fork_rng():
        module = build(shape)
    module.load_state_dict(safetensors.torch.load(weights), strict=True)
    return frozen(module)


def named(name: str) -> type[Encoder]:
    """The class of one of our encoders. Raises EncoderError if there is none of this name."""
    package = importlib.import_module("encoders")
    if name in {module.name for module in pkgutil.iter_modules(package.__path__)}:
        module = importlib.import_module(f"encoders.{name}")
        for recipe in vars(module).values():
            mine = isinstance(recipe, type) and issubclass(recipe, Encoder) and recipe.__module__ == module.__name__
            if mine and not inspect.isabstract(recipe) and not recipe.__name__.startswith("_"):
                return recipe
    raise EncoderError(f"no encoder of ours is called {name!r}; of your own, load(DIR, recipe=YourEncoder)")
