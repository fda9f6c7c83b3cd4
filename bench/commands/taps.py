"""What can be tapped in a pretrained network, with shapes."""

import typing as t
from pathlib import Path

from bench.errors import config_error, nearest
from bench.suites import resolve
from encoders.base import ImageShape
from encoders.pretrained import Pretrained
from results import tables


def taps(source: str, shape: str, plugins: t.Sequence[Path], width: int | None = None) -> str:
    """A table of layers and the shapes of what they give for one image; `layers:` of a suite takes their names.

    source: torchvision:NAME, timm:NAME, onnx:FILE, or an encoder of a plugin that is `Pretrained`. Weights are not
    read, except an ONNX file's. Raises ConfigError for another source, and EncoderError for a network that is not
    there.
    """
    found = _recipe(source, plugins).tappable(_shape(shape))
    header = ("layer", "shape")
    return tables.table(header, header, [(name, " x ".join(map(str, one))) for name, one in found.items()], width=width)


def _recipe(source: str, plugins: t.Sequence[Path]) -> Pretrained:
    if ":" in source:
        return Pretrained(model=source)
    known = {name: one for name, one in resolve.encoders(plugins).items() if issubclass(one, Pretrained)}
    if source not in known:
        wanted = "torchvision:NAME, timm:NAME, onnx:FILE, or a pretrained encoder of a --plugin"
        raise config_error("SOURCE", f"wanted {wanted}; got {source!r}{nearest(source, known)}")
    return known[source]()


def _shape(text: str) -> ImageShape:
    sides = text.split(",")
    if len(sides) != 3 or not all(side.strip().isdecimal() and 0 < int(side) <= 4096 for side in sides):
        raise config_error("--shape", f"wanted channels, height and width such as 3,32,32; got {text!r}")
    channels, height, width = map(int, sides)
    return channels, height, width
