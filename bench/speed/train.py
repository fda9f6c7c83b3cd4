"""Training: an epoch of ours in each native precision beside an epoch of a plain loop, from fresh weights each time.

The plain loop has a process of its own, as it would have from its author: what ours sets for the process it trains in,
such as how malloc keeps freed memory, would speed it up too.
"""

import contextlib
import dataclasses
import functools
import multiprocessing
import signal
import typing as t
from multiprocessing.connection import Connection

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench.speed.images import colour_or_padded, digits, features_of
from bench.speed.plain import BATCH, Plain, plain_aae, plain_bigan, plain_dcgan, plain_epoch
from bench.speed.race import Case, Effort, Precision, Rates, Row, noted, race
from encoders.aae import AAE
from encoders.base import Encoder, ImageSet, ImageShape, Training, frozen, seeded
from encoders.bigan import BiGAN
from encoders.dcgan import DCGAN
from protocols.knn import KNN

METHODS: dict[str, tuple[type[Encoder], t.Callable[[ImageShape, torch.device], Plain], str]] = {
    "BiGAN": (BiGAN, plain_bigan, "penultimate"),
    "AAE": (AAE, plain_aae, "penultimate"),
    "DCGAN 32x32": (DCGAN, plain_dcgan, "last"),
}


def cases(at: Rates, effort: Effort) -> list[Case]:
    return [(method, functools.partial(_train_rows, method, at, effort)) for method in METHODS]


def _train_rows(method: str, at: Rates, effort: Effort) -> list[Row]:
    """One epoch in each native precision, in turn with the plain loop; all start from fresh weights each time."""
    recipe, plain_of, tap = METHODS[method]
    count = 50_000 if at.device.type == "cuda" else effort.train_images // (3 if recipe is DCGAN else 1)
    name, train, test = _images(method, count)
    kept: dict[str, nn.Module] = {}
    top1: dict[str, float] = {}
    memory: dict[str, int | None] = {}

    def ours(precision: Precision) -> float:
        run = Training(0, at.device, precision)
        with noted(memory, precision, at.device):
            kept[precision] = recipe(epochs=1).fit(train.without_labels(), run)  # type: ignore[call-arg]
        return run.history[0]["seconds"]

    with _apart(method, count, at) as plain_lap:

        def theirs() -> float:
            seconds, top1["plain"] = plain_lap()
            return seconds

        seconds = race({"plain": theirs} | {p: functools.partial(ours, p) for p in at.products}, effort)
    batches = len(train) // BATCH
    few = dataclasses.replace(train, images=train.images[:BATCH], labels=None)
    flops = batches * (_flops(recipe, few, epochs=2) - _flops(recipe, few, epochs=1))
    weights = batches * plain_of(train.shape, torch.device("cpu")).weights
    top1 |= {one: _nearest_accuracy(module, tap, train, test, at.device) for one, module in kept.items()}
    rows = [
        Row(
            "train",
            f"{method}, {precision}, an epoch of {len(train):,} {name} images",
            ours=seconds[precision],
            images=batches * BATCH,
            alternative="plain PyTorch loop, float32",
            theirs=seconds["plain"],
            # Adam reads a weight, its gradient and two moments, and writes all but the gradient; and a bfloat16 copy.
            limit=at.limit(flops, weights * (28 + 2 * (precision == "bfloat16")), precision),
            our_accuracy=top1[precision],
            their_accuracy=top1["plain"],
            added_bytes=memory[precision],
            remark=f"1-NN on {tap} after this epoch",
        )
        for precision in at.products
    ]
    if at.device.type == "cuda" and recipe is BiGAN:
        rows += [_recipe(row, precision, 400 * 60_000 / (batches * BATCH)) for precision, row in zip(at.products, rows)]
    return rows


def _images(method: str, count: int) -> tuple[str, ImageSet, ImageSet]:
    return colour_or_padded(count) if METHODS[method][0] is DCGAN else digits(count, 1_000)


@contextlib.contextmanager
def _apart(method: str, count: int, at: Rates) -> t.Iterator[t.Callable[[], tuple[float, float]]]:
    """A process that takes a lap of the plain loop when called: its seconds, and the accuracy of what it learned."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_plain_laps, args=(there, method, count, at.device, at.threads), daemon=True)
    process.start()
    there.close()

    def told() -> t.Any:
        try:
            return here.recv()
        except (EOFError, ConnectionResetError):
            process.join()
            raise RuntimeError(f"the plain loop's process ended with exit code {process.exitcode}") from None

    def lap() -> tuple[float, float]:
        with contextlib.suppress(BrokenPipeError):
            here.send("go")
        return told()

    try:
        assert told() == "ready"  # its start takes seconds that are no part of the race
        yield lap
    finally:
        process.kill()
        process.join()


def _plain_laps(orders: Connection, method: str, count: int, device: torch.device, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    torch.set_num_threads(threads)
    recipe, plain_of, tap = METHODS[method]
    _, train, test = _images(method, count)
    with contextlib.suppress(EOFError, BrokenPipeError):  # nobody asks any more
        orders.send("ready")
        while orders.recv():
            with seeded(0, "init"):
                plain = plain_of(train.shape, device)
            seconds = plain_epoch(plain, train, device, signed=recipe is DCGAN)
            orders.send((seconds, _nearest_accuracy(frozen(plain.taps), tap, train, test, device)))


def _recipe(row: Row, precision: Precision, times: float) -> Row:
    """What the paper's whole training would take."""
    return Row(
        "train",
        f"BiGAN, {precision}, its 400 epochs of 60,000 images, projected",
        ours=times * (row.ours or 0),
        images=400 * 60_000,
        alternative=row.alternative,
        theirs=times * (row.theirs or 0),
        limit=times * (row.limit or 0),
    )


def _flops(recipe: type[Encoder], images: ImageSet, epochs: int) -> int:
    """Operations of all matrix products and convolutions of a training, counted on the processor."""
    with FlopCounterMode(display=False) as counter:
        recipe(epochs=epochs).fit(images, Training(0))  # type: ignore[call-arg]
    return counter.get_total_flops()


def _nearest_accuracy(module: nn.Module, tap: str, train: ImageSet, test: ImageSet, device: torch.device) -> float:
    sets = [features_of(module.to(device), tap, images, device) for images in (train, test)]
    return KNN(k=1).score(*sets, seed=0).metrics["top1"]
