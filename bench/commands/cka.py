"""How alike two encoders see the same test images: linear CKA of each layer of one with each of the other."""

import typing as t
from pathlib import Path

import torch
from torch import Tensor

from bench.commands import export, feature_files
from bench.datasets.formats import DataError
from bench.host import machine
from bench.pipeline import extract
from bench.pipeline.plan import Settings, load_images
from protocols.geometry import linear_cka

Layers = dict[str, Tensor]  # name -> float32 (n, d)


class Likeness(t.NamedTuple):
    first: str  # a layer
    second: str
    cka: float  # 0 to 1, 1 for the same but for a turn and a scale


def cka(first: Path, second: Path, settings: Settings) -> list[Likeness]:
    """Of test features of two files of `frostbench extract` or two runs, or of one of each: layer by layer.

    A run is that of its directory, on its own dataset. Raises DataError for test rows that are not of the same images,
    as far as their labels tell, and what reading either raises.
    """
    machine.prepare(settings.threads)
    (layers, labels), (others, other_labels) = (_test(path, settings) for path in (first, second))
    if not torch.equal(labels, other_labels):
        differ = ", with different labels" * (len(labels) == len(other_labels))
        came = f"{len(labels):,} and {len(other_labels):,} rows{differ}"
        raise DataError(f"{first} and {second}: wanted features of the same test images in the same order, got {came}")
    return [Likeness(one, other, linear_cka(x, y)) for one, x in layers.items() for other, y in others.items()]


def render(found: list[Likeness]) -> str:
    """A line a pair."""
    wide = [max(len(name) for name in names) for names in zip(*((one.first, one.second) for one in found))]
    return "\n".join(f"{one.first:<{wide[0]}}  {one.second:<{wide[1]}}  {one.cka:.4f}" for one in found)


def _test(path: Path, settings: Settings) -> tuple[Layers, Tensor]:
    """Features of test by layer, and labels. The layer of a file is called what the file is."""
    if not path.is_dir() or feature_files.is_directory(path):
        _, test = feature_files.read(path)
        return {path.name: test.features}, test.labels
    opened = export.open_run(path, settings)
    images = load_images(opened.dataset, settings)
    if images.fingerprint != opened.about["fingerprint"]:
        raise DataError(f"{path}: {opened.dataset.label} differs from the data that this run was scored on")
    device = machine.pick_device(settings.device)
    label = opened.about["label"]
    batches = [
        batch for _, batch in extract.extract(label, opened.module.to(device), images.test, opened.recipe.taps, device)
    ]
    assert images.test.labels is not None
    layers = {f"{label}/{tap}": torch.cat([batch[tap] for batch in batches]) for tap in opened.recipe.taps}
    return layers, torch.from_numpy(images.test.labels.copy())
