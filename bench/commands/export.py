"""What leaves the house: the features of a frozen encoder as a file, and the encoder in formats that others read."""

# ruff: noqa: PLC0415 -- a format's libraries are imported when it is written
import tempfile
import typing as t
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.commands import feature_files
from bench.datasets import HINT, Dataset
from bench.errors import config_error
from bench.host import machine
from bench.pipeline.judge import features_of
from bench.pipeline.plan import Settings, load_images
from bench.suites import resolve
from bench.suites.reading import read_encoder
from bench.suites.suite import DatasetSpec
from encoders import load
from encoders.base import Encoder, EncoderError, Features, ImageShape, Training, visible_to
from encoders.loading import RECIPE, WEIGHTS, describe, restore
from results import files, store
from results.record import RUN_NEEDS, Json, Run

Format = t.Literal["safetensors", "torch.export", "onnx"]
FILES: dict[Format, str] = {"safetensors": WEIGHTS, "torch.export": "encoder.pt2", "onnx": "encoder.onnx"}
TOLERANCE: dict[Format, float] = {"safetensors": 0.0, "torch.export": 1e-5, "onnx": 1e-4}  # of a tap's largest feature
CHECKED = 64  # test images whose features are compared after writing


class Opened(t.NamedTuple):
    """A finished run, read from its directory."""

    about: dict[str, Json]  # its run.json
    recipe: Encoder
    module: nn.Module  # frozen, in main memory
    shape: ImageShape
    dataset: DatasetSpec


def open_run(directory: Path, settings: Settings) -> Opened:
    """The frozen encoder of a run.

    Raises StoreError for a directory that is not a run's, ConfigError for an encoder that this frostbench does not
    know, EncoderError for one that is not there or was changed.
    """
    if not (directory / "run.json").exists():
        wanted = "wanted one such as runs/SUITE/LABEL/DATASET/seed0-KEY, of a run that did not fail"
        raise files.StoreError(f"{directory} is not a run directory: {wanted}")
    about = store.read_run(directory / "run.json", *RUN_NEEDS)
    known = resolve.encoders(settings.plugins)
    if about["encoder"] not in known:
        raise config_error(
            "--plugin", f"{directory} was made by {about['encoder']!r}, which is not a built-in encoder: give its file"
        )
    if not (directory / WEIGHTS).exists():
        raise EncoderError(f"{directory} has no {WEIGHTS}: run its suite with another --output to train it again")
    _, recipe, shape, sha256 = describe(directory, known[about["encoder"]])
    module = restore(recipe.build, shape, directory / WEIGHTS, sha256)
    return Opened(about, recipe, module, shape, DatasetSpec.of(Run.of(about)))


# ---- features -------------------------------------------------------------------------------------------------------


def write_features(
    source: str, path: Path, tap: str, dataset: DatasetSpec | None, seed: int, settings: Settings
) -> str:
    """Write the features of train and test where `frostbench score` reads them; a line that says what they are.

    source: a run's directory, or an encoder as a suite has it, which is then fitted with this seed. dataset: None for
    the run's own. tap: "" for the only one.

    Raises ConfigError for what is not there to choose, and what `open_run`, `load_images`, `features_of` and
    `feature_files.write` raise.
    """
    feature_files.check_name(path)
    device = machine.pick_device(settings.device)
    machine.prepare(settings.threads)
    if Path(source).is_dir():
        opened = open_run(Path(source), settings)
        images = _images(opened, source, dataset, settings)
        dataset = dataset or opened.dataset
        recipe, module = opened.recipe, opened.module
        tap = _tap(recipe, tap)
    else:
        spec = read_encoder(source, "RUN or ENCODER", settings.plugins)
        if dataset is None:
            raise config_error("--dataset", f"{spec.label} needs a dataset to learn from, such as --dataset mnist5k")
        recipe = spec.recipe(resolve.encoders(settings.plugins))
        tap = _tap(recipe, tap)
        images = load_images(dataset, settings)
        module = recipe.fit(visible_to(images.pretraining, recipe, seed), Training(seed, device))
    module.to(device)
    train, test = (features_of(source, module, tap, recipe.taps, device, part) for part in (images.train, images.test))
    feature_files.write(path, train, test)
    size = f"{len(train):,} + {len(test):,} images of {dataset.label}"
    return f"{path}: {train.features.shape[1]} features ({tap}) of {size}"


def _images(opened: Opened, source: str, dataset: DatasetSpec | None, settings: Settings) -> Dataset:
    images = load_images(dataset or opened.dataset, settings)
    if dataset is None and images.fingerprint != opened.about["fingerprint"]:
        raise config_error(
            "--dataset", f"{opened.dataset.label} has changed since {source} learned from it; name the dataset to read"
        )
    if images.train.shape != opened.shape:
        raise config_error(
            "--dataset",
            f"{source} takes images {opened.shape}, but those of {images.name} are {images.train.shape}; {HINT}",
        )
    return images


def _tap(recipe: Encoder, tap: str) -> str:
    if tap in recipe.taps:
        return tap
    if tap or len(recipe.taps) > 1:
        raise config_error("--tap", f"wanted one of {', '.join(recipe.taps)}" + (f", got {tap!r}" if tap else ""))
    return recipe.taps[0]


# ---- encoders -------------------------------------------------------------------------------------------------------


def export(source: Path, directory: Path, form: Format, settings: Settings) -> str:
    """Write a run's frozen encoder, read it back, and compare the features of test images; a line that says how well.

    The directory gets encoder.json and encoder.safetensors (as `encoders.load` reads), encoder.pt2 (a program of
    `torch.export`) or encoder.onnx. All take uint8 images (n, c, h, w), any n, and give every tap by its name.

    Raises EncoderError where the format has no words for what the module does, or what was read back differs by more
    than TOLERANCE; nothing is written then. Raises what `open_run` and `datasets.load` raise.
    """
    machine.prepare(settings.threads)
    opened = open_run(source, settings)
    test = _images(opened, str(source), None, settings).test
    images = torch.from_numpy(np.array(test.images[:CHECKED]))
    with tempfile.TemporaryDirectory() as temporary:
        private = Path(temporary)
        for name in (RECIPE, WEIGHTS):
            (private / name).write_bytes(files.read_bytes(source / name))
        write = {"safetensors": _safetensors, "torch.export": _program, "onnx": _onnx}[form]
        try:
            written = write(opened, private, images)
        except ImportError as error:
            raise EncoderError(
                f"{form} needs {error.name}: pip install -e '.[onnx]' in frostbench's checkout"
            ) from error
        except Exception as error:  # an exporter meets what it does not know with whatever it stumbles over
            reason = str(error).strip().partition("\n")[0]
            raise EncoderError(f"cannot export {source}: {form} does not support its operations ({reason})") from error
        differences = [_difference(rows, written[tap]) for tap, rows in opened.module(images).items()]
        if max(differences) > TOLERANCE[form]:
            came = f"{max(differences):.1e} of a tap's largest feature, more than {TOLERANCE[form]:.0e}"
            raise EncoderError(f"cannot export {source}: as {form} its features differ by up to {came}")
        for name in (RECIPE, FILES[form]):
            files.replace(directory / name, (private / name).read_bytes())
    said = f"differ by up to {max(differences):.0e} of a tap's largest" if max(differences) else "are the same"
    return f"{directory / FILES[form]}: loaded again, the features of {len(images)} test images {said}"


def _difference(rows: Tensor, others: Tensor) -> float:
    return float((rows - others).abs().max() / rows.abs().max().clamp_min(1e-30))


def _safetensors(opened: Opened, directory: Path, images: Tensor) -> Features:
    return load(directory, type(opened.recipe))(images)


def _program(opened: Opened, directory: Path, images: Tensor) -> Features:
    path = directory / FILES["torch.export"]
    torch.export.save(_exported(opened), path)
    features: Features = torch.export.load(path).module()(images)
    return features


def _onnx(opened: Opened, directory: Path, images: Tensor) -> Features:
    import onnxruntime

    path, taps = directory / FILES["onnx"], list(opened.recipe.taps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch uses here what torch deprecates
        exported = _exported(opened).run_decompositions({torch.ops.aten.adaptive_max_pool2d.default: _pooled})
        program = torch.onnx.export(exported, input_names=["images"], output_names=taps, verbose=False)
    assert program is not None
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return {tap: torch.from_numpy(rows) for tap, rows in zip(taps, session.run(taps, {"images": images.numpy()}))}


def _pooled(images: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Adaptive max-pooling in words that ONNX has; the places of the maxima, which nobody reads, are 0."""
    for dim, cells in zip((2, 3), size):
        length = images.shape[dim]
        windows = [(cell * length // cells, -(-(cell + 1) * length // cells)) for cell in range(cells)]
        parts = [images.narrow(dim, start, stop - start).amax(dim, keepdim=True) for start, stop in windows]
        images = torch.cat(parts, dim)
    return images, torch.zeros_like(images, dtype=torch.int64)


def _exported(opened: Opened) -> torch.export.ExportedProgram:
    """The module as a program that takes any number of images."""
    example = torch.zeros(2, *opened.shape, dtype=torch.uint8)
    return torch.export.export(opened.module, (example,), dynamic_shapes=({0: torch.export.Dim("images")},))
