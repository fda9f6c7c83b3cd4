"""Pretrained: a frozen network off the shelf. It has seen other data than the encoders beside it.

Source: whoever trained the network. It is one that a library knows by name, an ONNX file, or what `network` gives in a
subclass of your own. The weights are a file, and one that holds code is refused. Images are made what the network was
trained on: grey ones become RGB by repetition, all are resized to a square and normalised.
"""

import hashlib
import io
import typing as t
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from pydantic import Field, PositiveFloat, PositiveInt, field_validator
from pydantic_core.core_schema import ValidationInfo
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import off_the_shelf
from encoders.base import Encoder, EncoderError, Features, ImageSet, ImageShape, Training, frozen, seeded
from encoders.loading import MAX_WEIGHTS_BYTES, regular, unlike
from encoders.networks import unit
from encoders.off_the_shelf import Interpolation, Preprocessing

PENULTIMATE, OUTPUT = "penultimate", "output"  # taps: what the last linear layer reads, what the whole network gives
ONNX = "onnx"
AT_A_TIME = 2**20  # pixels that go through a network together: maps of a whole batch of large images take gigabytes

Pool = t.Literal["avg", "cls", "flatten"]


class Pretrained(Encoder):
    """A network trained elsewhere, read from a file and frozen; nothing is learned here."""

    source: t.ClassVar[str] = "a file; trained on other data"
    is_pretrained: t.ClassVar[bool] = True
    places: t.ClassVar[tuple[str, ...]] = ("weights", "download")

    model: str = ""
    """Network: torchvision:NAME, torchvision:NAME/WEIGHTS, timm:NAME or onnx:FILE; of a subclass any word, or none."""
    weights: str = ""
    """File of the network's weights: safetensors, or a state dict written by torch.save. No part of the key."""
    download: bool = False
    """Whether the library's own weights are downloaded if `weights` names no file. No part of the key."""
    layers: tuple[str, ...] = ()
    """Layers to tap, as `frostbench taps` lists them. Default: penultimate for a library's network, else output."""
    pool: Pool = "avg"
    """Pooling of maps (c, h, w) or tokens (n, d): their mean; the first token; or none, all in one row."""
    size: PositiveInt | None = None
    """Pixels a side that images are resized to. Default: the library's, or the ONNX file's; else as they are."""
    interpolation: Interpolation | None = None
    """How images are resized. Default: as the library does, else bilinear."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel, of pixels in 0..1. Default: the library's, else ImageNet's."""
    std: tuple[PositiveFloat, ...] | None = Field(None, validate_default=True)
    """Standard deviation of each channel, as for mean."""
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$")
    """SHA-256 of the weights' file; filled in, or compared with the file's."""
    onnx_bytes: int = Field(0, ge=0)
    """Size of an ONNX file in bytes; filled in."""

    @field_validator("layers")
    @classmethod
    def _are_taps(cls, layers: tuple[str, ...]) -> tuple[str, ...]:
        """Names that can be those of files."""
        if wrong := [name for name in layers if not name or name.startswith(".") or {*name} & {*"/\\"}]:
            raise ValueError(f"{wrong[0]!r} cannot be the name of a tap: no '/', no '\\', no '.' in front")
        if len({*layers}) < len(layers):
            raise ValueError(f"wanted different layers; got {', '.join(layers)}")
        return layers

    @field_validator("std")
    @classmethod
    def _fits_the_mean(cls, std: tuple[float, ...] | None, info: ValidationInfo) -> tuple[float, ...] | None:
        lengths = {len(one) for one in (std, info.data.get("mean")) if one is not None}
        if len(lengths) > 1 or lengths - {1, 3}:
            raise ValueError("wanted mean and std of one channel or of three")
        return std

    @property
    def taps(self) -> tuple[str, ...]:
        return self.layers or (PENULTIMATE if off_the_shelf.is_of_library(self.model) else OUTPUT,)

    def network(self) -> nn.Module:
        """The network; its weights are replaced by those of the file, if `weights` names one. To be overridden."""
        if not off_the_shelf.is_of_library(self.model):
            raise EncoderError(
                f"pretrained: wanted `model: torchvision:NAME`, `timm:NAME` or `onnx:FILE`; got {self.model!r}; "
                "a network of your own is a subclass of Pretrained in a plugin"
            )
        return off_the_shelf.network(self.model)

    def resolved(self, *, offline: bool = False) -> t.Self:
        """With the digest of the weights, and the taps and the preprocessing that follow from the network."""
        weights, model = self._file and str(Path(self._file).expanduser().absolute()), self.model
        if self.download and not weights and off_the_shelf.is_of_library(model):
            weights = str(off_the_shelf.download(model, offline=offline))
        model = ONNX if self._is_onnx else model
        known = self.model_copy(update={"model": model, "weights": weights, "layers": self.taps})
        network = known._built()
        found: dict[str, t.Any] = {"sha256": known._filled(network)}
        if isinstance(network, _Program):
            found["onnx_bytes"] = len(network.program)
        return known.model_copy(update=known.preprocessing(network)._asdict() | found)

    def preprocessing(self, network: nn.Module) -> Preprocessing:
        """What images are made like before the network reads them; raises EncoderError if that cannot be."""
        known = off_the_shelf.preprocessing(self.model, network)
        if isinstance(network, _Program):
            known = known._replace(size=network.side)
        given = {name: getattr(self, name) for name in known._fields}
        found = known._replace(**{name: value for name, value in given.items() if value is not None})
        if len(found.mean) != len(found.std):
            raise EncoderError(f"pretrained: mean of {len(found.mean)} channels and std of {len(found.std)}; set both")
        return found

    def build(self, shape: ImageShape) -> nn.Module:
        network = self._built()
        prepared = self.preprocessing(network)
        if shape[0] not in (1, len(prepared.mean)):
            raise EncoderError(f"pretrained: images of {shape[0]} channels; mean and std are of {len(prepared.mean)}")
        return _Tapped(network, self.taps, self.pool, prepared)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        if not self.sha256:
            return self.resolved().fit(data, run)
        module = t.cast(_Tapped, self.build(data.shape))
        self._filled(module.network)
        return frozen(module).to(run.device)

    def tappable(self, shape: ImageShape) -> dict[str, tuple[int, ...]]:
        """{what can be tapped: its shape for one image of this shape}, in the order in which they are computed."""
        network = self._built()
        if isinstance(network, _Program):
            self._filled(network)
        names = [name for name, _ in network.named_modules() if name]
        module = _Tapped(network, (), self.pool, self.preprocessing(network)).eval()
        with torch.no_grad():
            given = module.outputs(torch.zeros(1, *shape, dtype=torch.uint8), names)
        return {name: tuple(one.shape[1:]) for name, one in given.items() if isinstance(one, Tensor)}

    @property
    def _is_shipped(self) -> bool:
        """Whether the network is one of ours, whose fresh weights are worth nothing."""
        return type(self).network is Pretrained.network

    @property
    def _is_onnx(self) -> bool:
        return self._is_shipped and self.model.partition(":")[0] == ONNX

    @property
    def _file(self) -> str:
        """That of the weights: `onnx:FILE` names it too."""
        return self.weights or (self.model.partition(":")[2] if self._is_onnx else "")

    def _built(self) -> nn.Module:
        """The network before it is given weights; the same one each time."""
        if self._is_onnx:
            return _Program(self.onnx_bytes)
        with seeded(0, "pretrained"):
            network = self.network()
        modules = [name for name, _ in network.named_modules() if name]
        missing = [name for name in self.taps if name not in (PENULTIMATE, OUTPUT, *modules)]
        if missing:
            raise EncoderError(
                f"pretrained: the network has no layer {missing[0]!r}{off_the_shelf.near(missing[0], modules)}"
            )
        return network

    def _filled(self, network: nn.Module) -> str:
        """Put the weights of the file into the network; their SHA-256, which must be the recipe's if that has one."""
        digest = self._digest(network)
        if self.sha256 not in ("", digest):
            raise EncoderError(
                f"pretrained: the weights in {self._file or 'the network'} have changed: wanted the SHA-256 "
                f"{self.sha256}, got {digest}; run the command again to use them as they are now"
            )
        return digest

    def _digest(self, network: nn.Module) -> str:
        if not self._file:
            if self._is_shipped:
                raise EncoderError(
                    "pretrained: wanted `weights: FILE`, which results do not keep"
                    if self.sha256
                    else "pretrained: wanted `weights: FILE`, or `download: true` for the library's own"
                )
            given = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
            return hashlib.sha256(safetensors.torch.save(given)).hexdigest()
        try:
            with regular(Path(self._file), MAX_WEIGHTS_BYTES) as file:
                content = file.read()
        except EncoderError as error:
            raise EncoderError(f"pretrained: {error}") from error
        if isinstance(network, _Program):
            network.fill(content, self.taps)
        else:
            _fill(network, content, self._file)
        return hashlib.sha256(content).hexdigest()


def _fill(network: nn.Module, content: bytes, file: str) -> None:
    """Weights from a state dict, by name; all of them, and no others. No code that the file may hold is run."""
    try:
        if content[8:9] == b"{":  # a header in JSON
            weights = safetensors.torch.load(content)
        else:
            weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        stored = {name: list(tensor.shape) for name, tensor in weights.items()}
    except Exception as error:  # damaged, a pickle with code, TorchScript, or no state dict
        reason = str(error).partition("\n")[0]
        raise EncoderError(
            f"pretrained: {file} holds no plain weights, and nothing else is read: {type(error).__name__}: {reason}; "
            "write it with safetensors.torch.save_file(network.state_dict(), FILE)"
        ) from error
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        wanted = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
        fitting = sum(stored.get(name) == shape for name, shape in wanted.items())
        raise EncoderError(
            f"pretrained: the weights in {file} are of another network: {fitting} of its {len(stored)} tensors fit the "
            f"{len(wanted)} that are wanted; {unlike(wanted, stored)}"
        ) from error


class _Tapped(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, layers: tuple[str, ...], pool: Pool, prepared: Preprocessing) -> None:
        super().__init__()
        self.network, self.layers, self.pool = network, layers, pool
        self.size, self.interpolation = prepared.size, prepared.interpolation
        self.register_buffer("mean", torch.tensor(prepared.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(prepared.std)[:, None, None])

    def prepared(self, images: Tensor) -> Tensor:
        """Bytes (b, c, h, w) -> what the network reads."""
        pixels = unit(images)
        if self.size and images.shape[2:] != (self.size, self.size):
            pixels = F.interpolate(pixels, (self.size, self.size), mode=self.interpolation, antialias=True).clamp(0, 1)
        return (pixels - self.mean) / self.std  # which repeats a grey channel

    def outputs(self, images: Tensor, layers: t.Sequence[str]) -> dict[str, t.Any]:
        x = self.prepared(images)
        return self.network(x) if isinstance(self.network, _Program) else _outputs(self.network, x, layers)

    def forward(self, images: Tensor) -> Features:
        side = self.size or images.shape[-1]
        pieces = [self._features(piece) for piece in torch.split(images, max(1, AT_A_TIME // side**2))]
        return {layer: torch.cat([piece[layer] for piece in pieces]) for layer in self.layers}

    def _features(self, images: Tensor) -> Features:
        given = self.outputs(images, self.layers)
        return {layer: self._pooled(layer, given.get(layer)).float() for layer in self.layers}

    def _pooled(self, layer: str, output: t.Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim < 2 or (output.ndim == 2 and self.pool == "cls"):
            came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise EncoderError(f"pretrained: {layer!r} gives {came}, of which there is no {self.pool!r}; tap another")
        if self.pool == "flatten" or output.ndim == 2:
            return output.flatten(1)
        if output.ndim == 3:  # tokens (b, n, d)
            return output[:, 0] if self.pool == "cls" else output.mean(dim=1)
        if self.pool == "cls":
            raise EncoderError(
                f"pretrained: {layer!r} gives maps {tuple(output.shape)}, without a token: set `pool: avg`"
            )
        return output.flatten(2).mean(dim=2)


def _outputs(network: nn.Module, x: Tensor, layers: t.Sequence[str]) -> dict[str, t.Any]:
    """What modules give, by name; hooked only meanwhile, so that the network can be copied."""
    given: dict[str, t.Any] = {}

    def keep(name: str, output: t.Any) -> None:
        given[name] = output.clone() if isinstance(output, Tensor) else output  # a ReLU behind it may write there

    def after(name: str) -> t.Callable[..., None]:
        return lambda _module, _inputs, output: keep(name, output)

    linear = [module for module in network.modules() if isinstance(module, nn.Linear)][-1:]
    if PENULTIMATE in layers and not linear:
        raise EncoderError(f"pretrained: the network has no linear layer, so no {PENULTIMATE!r}: tap a module by name")
    hooks = [last.register_forward_pre_hook(lambda _module, inputs: keep(PENULTIMATE, inputs[0])) for last in linear]
    known = (name for name in layers if name not in (PENULTIMATE, OUTPUT))
    hooks += [network.get_submodule(name).register_forward_hook(after(name)) for name in known]
    try:
        output = network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return {**given, OUTPUT: output}


class _Program(nn.Module):
    """An ONNX file, as a buffer of bytes; it runs on the processor."""

    program: Tensor

    def __init__(self, length: int) -> None:
        super().__init__()
        self.register_buffer("program", torch.zeros(length, dtype=torch.uint8))
        self.session: t.Any = None

    def __getstate__(self) -> dict[str, t.Any]:
        return {**self.__dict__, "session": None}

    def fill(self, content: bytes, layers: t.Sequence[str]) -> None:
        self.session = _session(content)
        self.program = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        inputs, outputs = self.session.get_inputs(), [one.name for one in self.session.get_outputs()]
        if len(inputs) != 1:
            raise EncoderError("pretrained: the ONNX file reads more than images")
        if unknown := [name for name in layers if name not in (OUTPUT, *outputs)]:
            raise EncoderError(f"pretrained: the ONNX file gives no {unknown[0]!r}; it gives {', '.join(outputs)}")

    @property
    def side(self) -> int | None:
        """Pixels of the images that it reads, if it says so and they are squares."""
        sides = self.session.get_inputs()[0].shape[2:] if self.session else []
        return sides[0] if len(sides) == 2 and sides[0] == sides[1] and isinstance(sides[0], int) else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.session = self.session or _session(self.program.cpu().numpy().tobytes())
        entry, outputs = self.session.get_inputs()[0], [one.name for one in self.session.get_outputs()]
        together = entry.shape[0] if isinstance(entry.shape[0], int) else max(len(x), 1)
        pieces = [self._run(entry, outputs, piece) for piece in torch.split(x.cpu(), together)]
        given = {name: torch.cat(rows).to(x.device) for name, rows in zip(outputs, zip(*pieces))}
        return {**given, OUTPUT: given[outputs[0]]}

    def _run(self, entry: t.Any, wanted: list[str], x: Tensor) -> list[Tensor]:
        try:
            return [torch.from_numpy(np.array(rows)) for rows in self.session.run(wanted, {entry.name: x.numpy()})]
        except Exception as error:  # onnxruntime's own, of many classes
            came = f"{entry.name} {entry.shape}; got {tuple(x.shape)}: {str(error).partition(chr(10))[0]}"
            raise EncoderError(f"pretrained: the ONNX file reads {came}; set size, mean and std") from error


def _session(content: bytes) -> t.Any:
    try:
        import onnxruntime  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise EncoderError("pretrained: onnx: needs onnxruntime: pip install 'frostbench[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise EncoderError(f"pretrained: the ONNX file cannot be read: {reason}") from error
