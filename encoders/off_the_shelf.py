"""Networks that libraries know by name, `torchvision:NAME` and `timm:NAME`, and what they read their images like.

A network comes with fresh weights. Nothing is downloaded but by `download`.
"""

import difflib
import functools
import importlib
import logging
import re
import sys
import types
import typing as t
from pathlib import Path

import torch
from torch import nn

from encoders.base import EncoderError

LIBRARIES = ("torchvision", "timm")
NMS = "Tensor dets, Tensor scores, float iou_threshold"
Interpolation = t.Literal["bilinear", "bicubic"]

logger = logging.getLogger(__name__)


class Preprocessing(t.NamedTuple):
    size: int | None  # pixels a side; None: images stay as they are
    interpolation: Interpolation
    mean: tuple[float, ...]  # of each channel, of pixels in 0..1
    std: tuple[float, ...]


IMAGENET = Preprocessing(None, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def is_of_library(model: str) -> bool:
    return model.partition(":")[0] in LIBRARIES


def near(name: str, names: t.Iterable[str]) -> str:
    """The names that come nearest: ': did you mean 'stem.1'?', or '' if there is none."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.4)
    return f": did you mean {' or '.join(map(repr, close))}?" if close else ""


def network(model: str) -> nn.Module:
    """A library's network with fresh weights. Raises EncoderError for a name that it does not have."""
    library, _, name = model.partition(":")
    if library == "torchvision":
        made: nn.Module = import_torchvision()[0].models.get_model(_published(name)[0], weights=None)
        return made
    timm = _timm()
    if not timm.is_model(name.partition(".")[0]):  # no other place that timm would look for, such as hf-hub:
        raise EncoderError(f"timm has no network {name!r}{near(name, timm.list_models())}")
    try:
        made = timm.create_model(name, pretrained=False)
    except RuntimeError as error:  # of a tag
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        raise EncoderError(f"timm has no network {name!r}{near(name, tags)}") from error
    return made


def preprocessing(model: str, network: nn.Module) -> Preprocessing:
    """What a network's images are made like: as its library says, or else as is usual for ImageNet.

    The whole image is resized; the central crop that libraries take of photographs is left out.
    """
    library, _, name = model.partition(":")
    if library == "torchvision":
        about = _published(name)[1].transforms()
        interpolation, size = about.interpolation.value, about.crop_size[0]
    elif library == "timm":
        about = types.SimpleNamespace(**importlib.import_module("timm.data").resolve_model_data_config(network))
        interpolation, size = about.interpolation, about.input_size[-1]
    else:
        return IMAGENET
    known: Interpolation = "bilinear" if interpolation == "bilinear" else "bicubic"  # the nearest to lanczos and others
    return Preprocessing(size, known, tuple(map(float, about.mean)), tuple(map(float, about.std)))


def download(model: str, *, offline: bool) -> Path:
    """The file of a library's own weights, fetched unless it is there. Raises EncoderError."""
    library, _, name = model.partition(":")
    try:
        if library == "timm":
            known = _timm().get_pretrained_cfg(name)
            if known is None or not known.hf_hub_id:
                raise EncoderError(f"timm knows no place that has weights of {name!r}; name a file: `weights: FILE`")
            logger.warning("weights of %s: model.safetensors of https://huggingface.co/%s", model, known.hf_hub_id)
            hub = importlib.import_module("huggingface_hub")
            return Path(hub.hf_hub_download(known.hf_hub_id, "model.safetensors", local_files_only=offline))
        url = _published(name)[1].url
        path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
        if not path.exists():
            if offline:
                raise EncoderError(f"the weights of {model} are not in {path.parent}, and --offline downloads none")
            logger.warning("weights of %s: downloading %s to %s", model, url, path.parent)
            path.parent.mkdir(parents=True, exist_ok=True)
            digest = re.search(r"-([0-9a-f]+)\.\w+$", path.name)
            torch.hub.download_url_to_file(url, str(path), digest and digest[1], progress=False)
        return path
    except EncoderError:
        raise
    except Exception as error:  # of many classes, as networks and libraries have them
        raise EncoderError(f"the weights of {model} are not to be had: {type(error).__name__}: {error}") from error


def _published(name: str) -> tuple[str, t.Any]:
    """A network's name and the weights that NAME or NAME/WEIGHTS means."""
    models = import_torchvision()[0].models
    network, _, tag = name.partition("/")
    if network not in models.list_models(module=models):
        known = models.list_models(module=models)
        raise EncoderError(f"torchvision has no network {network!r} for whole images{near(network, known)}")
    published = models.get_model_weights(network)
    if tag and tag not in published.__members__:
        known = ", ".join(published.__members__)
        raise EncoderError(f"torchvision's {network} has no weights {tag!r}; it has {known}")
    return network, published[tag] if tag else published.DEFAULT


def _timm() -> t.Any:
    import_torchvision()  # which timm imports
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise EncoderError(f"timm cannot be imported ({error}): pip install 'frostbench[timm]'") from error


@functools.cache
def import_torchvision() -> tuple[types.ModuleType, torch.library.Library | None]:
    """torchvision, and what stands in for the operators that its build lacks; None if it is whole.

    A torchvision built for another torch (PyPI's build beside a CPU-only torch) cannot load its compiled operators, and
    its import then fails because two of them are described without a guard (pytorch/vision issues 8985, 9077). Where,
    and only where, that happens the two schemas are defined here and the import is tried again: datasets, transforms
    and models then work, the compiled operators say themselves that they are missing. Defining them beside a whole
    torchvision would abort the process, so nothing is touched unless the plain import has failed with exactly that
    error.
    """
    try:
        return importlib.import_module("torchvision"), None
    except RuntimeError as error:
        if str(error) != "operator torchvision::nms does not exist":
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    stand_in = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    stand_in.define(f"nms({NMS}) -> Tensor")  # type: ignore[no-untyped-call]
    stand_in.define(f"qnms({NMS}) -> Tensor")  # type: ignore[no-untyped-call]
    return importlib.import_module("torchvision"), stand_in  # the cache keeps it: its schemas would leave with it
