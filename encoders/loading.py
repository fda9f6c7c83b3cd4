"""Frozen encoders from their files: recipe, parameters and image shape as JSON, the weights as safetensors."""

import contextlib
import functools
import hashlib
import importlib
import inspect
import itertools
import json
import os
import pkgutil
import stat
import struct
import threading
import types
import typing as t
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.utils import parametrize

from encoders.base import Encoder, EncoderError, Features, ImageShape, frozen

WEIGHTS, RECIPE = "encoder.safetensors", "encoder.json"
AGAIN = "copy it again, or `frostbench run` with its suite trains it again"
MAX_RECIPE_BYTES = 2**20  # bytes; one has a few hundred
PARTS = 20  # layers and weights that a network may be given as it is built, for each tensor of its file
MAX_WEIGHTS_BYTES = 2**34  # those of 4 billion numbers
MAX_HEADER_BYTES = 10**8  # of a safetensors file, as its own library has it
MAX_SIDE = 2**14  # pixels

plugin_encoders: dict[str, type[Encoder]] = {}  # encoders of plugins and packages, by name, once they were resolved
Class = t.TypeVar("Class")
_counting = threading.RLock()  # one load at a time replaces the initializer of torch.s layers


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
        with regular(path, MAX_RECIPE_BYTES) as file:
            about = json.loads(file.read())
        channels, height, width = map(int, about["shape"])
        name, version, shape = about["encoder"], about["encoder_version"], (channels, height, width)
        encoder = (recipe or named(name)).model_validate_json(json.dumps(about["params"]))
        described = Description(name, encoder, shape, about["weights_sha256"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise EncoderError(f"{path} does not describe a frozen encoder: {type(error).__name__}: {error}") from error
    if not all(0 < size <= MAX_SIDE for size in shape):
        raise EncoderError(f"{path}: sizes of images must lie in 1..{MAX_SIDE}; got {shape}")
    equal = encoder.equal_revisions.get("float32", ())  # in which a frozen encoder computes
    if version != encoder.revision and not any({version, encoder.revision} <= {*group} for group in equal):
        raise EncoderError(
            f"{path} was made by version {version} of {name!r}, but this frostbench has version {encoder.revision}: "
            "train it again, or load it with the version of frostbench in run.json"
        )
    return described


def restore(build: t.Callable[[ImageShape], nn.Module], shape: ImageShape, path: Path, sha256: str | None) -> nn.Module:
    """The frozen module of these weights, which must have this digest. Raises EncoderError.

    The sizes that the file's header names are held against the module's, of which none takes memory until they agree.
    """
    stored = check_size(path)
    with regular(path, MAX_WEIGHTS_BYTES) as file:
        weights = file.read()
    if hashlib.sha256(weights).hexdigest() != sha256:
        raise EncoderError(f"{path}: changed since it was written: its sha256 does not fit")
    try:
        with torch.random.fork_rng(), _no_more_parts(path, len(stored)):
            wanted = _sizes(build, shape)
            if wanted is not None and wanted != stored:
                raise EncoderError(f"{path} does not match its recipe: {unlike(wanted, stored)}")
            module = build(shape)
        module.load_state_dict(safetensors.torch.load(weights), strict=True)
    except (EncoderError, MemoryError):
        raise
    except Exception as error:  # a recipe's own mistake, or weights that are those of another
        raise EncoderError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    return frozen(module)


def _sizes(build: t.Callable[[ImageShape], nn.Module], shape: ImageShape) -> dict[str, list[int]] | None:
    """The shape of each tensor of a module by name; None for a module that cannot be built without its memory."""
    try:
        with torch.device("meta"):
            module = build(shape)
    except _TooManyParts:
        raise
    except Exception:  # one that looks at its numbers as it is built
        return None
    return {name: list(tensor.shape) for name, tensor in module.state_dict().items()}


class _TooManyParts(EncoderError):
    pass


@contextlib.contextmanager
def _no_more_parts(path: Path, tensors: int) -> t.Iterator[None]:
    """Raise EncoderError once a network in the making has far more layers than are weights for: each takes time."""
    left = itertools.count(PARTS * (tensors + 100), -1)

    def count(*_: t.Any) -> None:
        if next(left) <= 0:
            raise _TooManyParts(f"{path} does not match its recipe: it has {tensors:,} tensors, the network many more")

    def counted(module: nn.Module, *args: t.Any, **kwargs: t.Any) -> None:
        count()
        start(module, *args, **kwargs)

    with _counting, contextlib.ExitStack() as ends:
        start = nn.Module.__init__
        ends.callback(register_module_parameter_registration_hook(count).remove)
        ends.callback(setattr, nn.Module, "__init__", start)
        nn.Module.__init__ = counted  # type: ignore[assignment]  # layers that nothing holds yet
        yield


def unlike(wanted: dict[str, list[int]], stored: dict[str, list[int]]) -> str:
    name = min(name for name in wanted.keys() | stored.keys() if wanted.get(name) != stored.get(name))
    return f"{name}: wanted {wanted.get(name, 'no such tensor')}, got {stored.get(name, 'no such tensor')}"


def check_size(path: Path) -> dict[str, list[int]]:
    """The shape of each tensor in a safetensors file, whose size must be what its header says. Raises EncoderError."""
    with regular(path, MAX_WEIGHTS_BYTES) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > MAX_HEADER_BYTES:
                raise ValueError(f"a header of {length:,} bytes")
            if 8 + length > size:
                raise ValueError(f"it has {size:,} bytes, but its header has {length:,}")
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            end = 8 + length + max((int(one["data_offsets"][1]) for one in header.values()), default=0)
            shapes = {name: [int(side) for side in one["shape"]] for name, one in header.items()}
        except (struct.error, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            raise EncoderError(f"{path} is truncated or damaged: it has no weights ({error}); {AGAIN}") from error
    if size != end:
        came = f"it has {size:,} bytes, but its header describes {end:,}"
        raise EncoderError(f"{path} is truncated or damaged: {came}; {AGAIN}")
    return shapes


def regular(path: Path, largest: int) -> t.BinaryIO:
    """A regular file of at most so many bytes, open for reading. Raises EncoderError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for its writer
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size <= largest:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    wanted = f"wanted a regular file of at most {largest:,} bytes"
    raise EncoderError(f"{path} is {'too large' if stat.S_ISREG(status.st_mode) else 'not a regular file'}: {wanted}")


def defined(module: types.ModuleType, base: type[Class]) -> list[type[Class]]:
    """The subclasses that a module defines: neither imported there, nor abstract, nor private."""
    classes = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, base)]
    mine = [one for one in classes if one.__module__ == module.__name__ and not inspect.isabstract(one)]
    return [one for one in mine if not one.__name__.startswith("_")]


@functools.cache
def named(name: str) -> type[Encoder]:
    """The class of one of our encoders. Raises EncoderError if there is none of this name."""
    if name in {module.name for module in pkgutil.iter_modules(importlib.import_module("encoders").__path__)}:
        for recipe in defined(importlib.import_module(f"encoders.{name}"), Encoder):  # type: ignore[type-abstract]
            return recipe
    raise EncoderError(f"no built-in encoder is named {name!r}; for your own, use load(DIR, recipe=YourEncoder)")
