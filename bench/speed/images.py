"""Real images, and features of them, as many as are asked for."""

import contextlib
import dataclasses

import numpy as np
import torch
from torch import nn

from bench import datasets
from bench.pipeline.extract import extract
from encoders.base import ImageSet
from protocols.base import FeatureSet


def digits(train: int, test: int) -> tuple[str, ImageSet, ImageSet]:
    """Real digits: MNIST where it is found, else the 5,000 that are always here, drawn as often as it takes."""
    for name in ("mnist", "mnist5k"):
        with contextlib.suppress(datasets.DataMissing):
            found = datasets.load(name, offline=True)
            drawn = name if train <= len(found.train) else f"{name} (drawn again)"
            return drawn, _drawn(found.train, train), _drawn(found.test, test)
    raise datasets.DataMissing("neither mnist nor mnist5k was found")


def colour_or_padded(train: int) -> tuple[str, ImageSet, ImageSet]:
    """32 x 32 images: CIFAR-10 where it is found, else digits with a frame of black."""
    with contextlib.suppress(datasets.DataMissing):
        found = datasets.load("cifar10", offline=True)
        return "cifar10", _drawn(found.train, train), _drawn(found.test, 1_000)
    name, *sets = digits(train, 1_000)
    framed = [dataclasses.replace(s, images=np.pad(s.images, ((0, 0), (0, 0), (2, 2), (2, 2)))) for s in sets]
    return f"{name} (padded to 32x32)", framed[0], framed[1]


def _drawn(images: ImageSet, count: int) -> ImageSet:
    """So many images: the first ones, and all over again where there are fewer."""
    rows = np.arange(count) % len(images)
    assert images.labels is not None
    return dataclasses.replace(images, images=images.images[rows], labels=images.labels[rows])


def features_of(module: nn.Module, tap: str, images: ImageSet, device: torch.device) -> FeatureSet:
    with torch.no_grad():
        taps = tuple(module(torch.from_numpy(np.array(images.images[:1])).to(device)))
    rows = torch.cat([batch[tap] for _, batch in extract(type(module).__name__, module, images, taps, device)])
    return FeatureSet(rows.to(device), torch.from_numpy(np.array(images.labels)).to(device), len(images.classes))
