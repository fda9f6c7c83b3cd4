"""Pictures of the images on which two rows of a leaderboard differ the most."""

import io
import typing as t
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench import datasets
from bench.pipeline.plan import Settings, load_images
from bench.suites.suite import DatasetSpec
from encoders.base import ImageSet
from results import files
from results.comparison import Comparison

ACROSS, DOWN = 12, 3  # pictures
SIDE, LINE = 72, 16  # pixels of a picture, and of a line under it
MARGIN = 8


def check_name(path: Path) -> None:
    """Raises StoreError for a file that is not named as what `draw` writes."""
    if path.suffix != ".png":
        raise files.StoreError(f"cannot write {path}: pictures are PNG files; give a name that ends in .png")


def draw(comparison: Comparison, path: Path, data_root: Path | None) -> str:
    """Write a PNG of images that one got right and the other wrong, those first on which most seeds agree.

    Returns a sentence: where it is, or why there is none. Downloads nothing. Raises StoreError if it cannot be written.
    """
    record, counts = comparison.record, f"{comparison.won} images won, {comparison.lost} lost"
    if not comparison.won + comparison.lost:
        return "no pictures: both rows classify the same images correctly"
    try:
        loaded = load_images(DatasetSpec.of(record), Settings(output=Path(), data_root=data_root, offline=True))
    except datasets.DataMissing:
        return f"no pictures: {record.dataset} was not found; set --data-root DIR or FROSTBENCH_DATA=DIR"
    except datasets.DataError as error:
        return f"no pictures: {error}"
    if loaded.fingerprint != record.fingerprint:
        return f"no pictures: {record.dataset} has changed since it was scored"
    buffer = io.BytesIO()
    _grid(comparison, loaded.test).save(buffer, "png")
    files.replace(path, buffer.getvalue())
    return f"{path} shows {counts}, {comparison.dataset}, {comparison.heading}"


def _grid(comparison: Comparison, test: ImageSet) -> Image.Image:
    net = comparison.net
    order = np.argsort(-net, kind="stable")
    most = ACROSS * DOWN
    sections = [
        (f"{comparison.first} right, {comparison.second} wrong: {comparison.won} images", order[net[order] > 0][:most]),
        (f"{comparison.second} right, {comparison.first} wrong: {comparison.lost} images",
         order[::-1][net[order[::-1]] < 0][:most]),
    ]  # fmt: skip
    several = max(comparison.seeds) > 1
    cell = SIDE + (1 + several) * LINE + MARGIN
    height = sum(3 * MARGIN + LINE + cell * -(-len(rows) // ACROSS) for _, rows in sections) + 2 * LINE
    sheet = Image.new("RGB", (ACROSS * (SIDE + MARGIN) + MARGIN, height), "white")
    pen, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(12), MARGIN
    for title, rows in sections:
        pen.text((MARGIN, top), title, "black", font)
        top += LINE + MARGIN
        for place, row in enumerate(rows.tolist()):
            left, upper = MARGIN + place % ACROSS * (SIDE + MARGIN), top + place // ACROSS * cell
            sheet.paste(_picture(test.images[row]), (left, upper))
            pen.text((left, upper + SIDE + 1), _name(test, row), "black", font)
            if several:
                first, second = (f"{comparison.right[side, row]}/{comparison.seeds[side]}" for side in (0, 1))
                pen.text((left, upper + SIDE + LINE), f"{first}  {second}", "black", font)
        top += cell * -(-len(rows) // ACROSS) + MARGIN
    if several:
        under = f"Under each: its class, and how many seeds of {comparison.first} and {comparison.second} are right."
        pen.text((MARGIN, top), under, "black", font)
    return sheet


def _picture(image: np.ndarray[t.Any, np.dtype[np.uint8]]) -> Image.Image:
    """(c, h, w) bytes in a square, its pixels kept sharp where they are enlarged."""
    shown = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
    return shown.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST if max(image.shape) < SIDE else None)


def _name(test: ImageSet, row: int) -> str:
    assert test.labels is not None
    return test.classes[int(test.labels[row])][:11]
