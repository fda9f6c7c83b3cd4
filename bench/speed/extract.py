"""Extraction: ours to files and with its proofs, beside a plain loop into memory."""

import functools
import tempfile
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from bench.pipeline.extract import features_on_disk
from bench.speed.images import digits
from bench.speed.plain import BATCH, Transformed
from bench.speed.race import Case, Effort, Rates, Row, noted, race, seconds_of
from encoders.base import Encoder, frozen, seeded
from encoders.bigan import BiGAN
from encoders.dcgan import DCGAN


def cases(at: Rates, effort: Effort) -> list[Case]:
    return [
        ("BiGAN", functools.partial(_extract_rows, BiGAN(), effort.gallery, at, effort)),
        ("DCGAN", functools.partial(_extract_rows, DCGAN(), effort.gallery // 10, at, effort)),
    ]


def _extract_rows(recipe: Encoder, count: int, at: Rates, effort: Effort) -> list[Row]:
    """All taps of fresh weights: ours to files and with its proofs, theirs into memory."""
    name, train, _ = digits(count, 1)
    with seeded(0, "init"):
        module = frozen(recipe.build(train.shape)).to(at.device)
    loader = DataLoader(Transformed(train), BATCH)
    memory: dict[str, int | None] = {}

    def ours() -> float:
        with tempfile.TemporaryDirectory() as place, noted(memory, "ours", at.device):
            parts = {"train": train}
            arguments = (Path(place) / "features", "frozen", module, parts, recipe.taps, at.device)
            return seconds_of(functools.partial(features_on_disk, *arguments), at.device)

    @torch.no_grad()
    def plain() -> None:
        batches = [module(x.to(at.device).mul(255)) for x in loader]
        for tap in recipe.taps:
            torch.cat([batch[tap].cpu() for batch in batches])

    seconds = race({"ours": ours, "theirs": functools.partial(seconds_of, plain, at.device)}, effort)
    one = torch.from_numpy(train.images[:1].copy())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        widths = sum(rows.shape[1] for rows in module.cpu()(one).values())
    traffic = len(train) * (train.images[0].nbytes + 8 * widths)  # pixels read; features written, and to the files
    return [
        Row(
            "extract",
            f"{type(recipe).__name__}, {len(recipe.taps)} taps ({widths:,}-d) of {len(train):,} {name} images",
            ours=seconds["ours"],
            images=len(train),
            alternative="plain loop over a DataLoader",
            theirs=seconds["theirs"],
            limit=at.limit(len(train) * counter.get_total_flops(), traffic),
            added_bytes=memory["ours"],
        )
    ]
