"""What a training has seen: the mean losses and updates of each epoch, the progress reports, and a stop at NaN."""

import time
import typing as t

import torch
from torch import Tensor

from encoders.base import EncoderError, Progress, Training
from encoders.checkpoint import CheckpointError, CheckpointMetadata
from encoders.players import once

REPORT_SECONDS = 0.5  # between two progress reports


class NonFiniteLoss(EncoderError):
    """A loss became NaN or infinite; the message names the step and the player."""


class History:
    """Collects losses on the device without waiting for it; looks at them at intervals and at the end of an epoch."""

    def __init__(
        self, run: Training, players: list[str], observed: list[str], epochs: int, batches: int, batch: int
    ) -> None:
        self.run, self.players, self.epochs, self.batches, self.batch = run, players, epochs, batches, batch
        self.columns = {name: column for column, name in enumerate([*players, *observed])}
        self.sums = torch.zeros(batches, len(self.columns), device=run.device)  # a row a step of this epoch
        self.taken = [0] * len(self.columns)  # how many values a column's sums have in all
        self.read = self.read_before = self.steps = self.index = self.checked = 0
        self.started = self.epoch_started = self.reported = time.perf_counter()
        self.first = 0  # batches used up by an earlier call, where this one goes on
        self.takes: t.Callable[[int], int] = once  # step -> batches that it uses up

    def metadata(self, environment: dict[str, str], step: int) -> CheckpointMetadata:
        """What of a state is no tensor. Raises NonFiniteLoss: what has diverged is not worth keeping."""
        self._check()
        now = time.perf_counter()
        return CheckpointMetadata(
            environment=environment,
            training=self.run.trainings,
            step=step,
            read=self.read,
            read_before=self.read_before,
            index=self.index,
            taken=self.taken,
            history=self.run.history,
            epoch_seconds=now - self.epoch_started,
            seconds=self.run.earlier_seconds + now - self.started,
        )

    def check(self, metadata: CheckpointMetadata) -> None:
        """Raises CheckpointError for metadata that cannot be this training's."""
        if metadata.training != self.run.trainings:
            raise CheckpointError(f"it is from training {metadata.training} of this method, not {self.run.trainings}")
        same_epoch = metadata.read_before // self.batches == metadata.read // self.batches
        possible = metadata.index <= metadata.read - metadata.read_before and metadata.step <= metadata.read
        possible &= metadata.read - self.takes(metadata.step - 1) < self.epochs * self.batches
        if not (same_epoch and possible and len(metadata.taken) == len(self.taken)):
            raise CheckpointError("its counts of steps and batches do not fit together")
        if any(f"{n}_loss" in row and f"{n}_updates" not in row for row in metadata.history for n in self.players):
            raise CheckpointError("its history does not count each player's updates")

    def resume(self, metadata: CheckpointMetadata) -> None:
        self.read, self.read_before, self.first = metadata.read, metadata.read_before, metadata.read
        self.steps, self.index, self.checked = metadata.step, metadata.index, metadata.index
        self.taken = list(metadata.taken)
        self.run.history[:] = metadata.history
        self.run.earlier_seconds += metadata.seconds
        self.epoch_started = time.perf_counter() - metadata.epoch_seconds

    def record(self, name: str, value: Tensor) -> None:
        column = self.columns[name]
        self.sums[self.index, column] += value  # of all repetitions, so that no NaN is lost
        self.taken[column] += 1

    def step_done(self, read: int) -> None:
        """`read`: batches used up by all steps so far."""
        ended = read // self.batches > self.read // self.batches
        self.index, self.steps, self.read = self.index + 1, self.steps + 1, read
        if ended:
            self._epoch_done()
        elif self.run.group.rank == 0 and time.perf_counter() - self.reported > REPORT_SECONDS:
            self._check()
            self._report()

    def _epoch_done(self) -> None:
        self._check()
        seconds = time.perf_counter() - self.epoch_started
        speed = (self.read - self.read_before) * self.batch / seconds
        row = {"epoch": min(self.read // self.batches, self.epochs), "seconds": seconds, "images_per_second": speed}
        means = {f"{name}_loss" if name in self.players else name: mean for name, mean in self._means().items()}
        earlier = self.run.updates
        updates = {
            f"{name}_updates": earlier.get(name, 0) + self.taken[self.columns[name]] for name in self.players
        }  # so far
        self.run.history.append(row | means | updates)
        self._report()
        self.sums.zero_()
        self.taken = [0] * len(self.columns)
        self.read_before, self.index, self.checked = self.read, 0, 0
        self.epoch_started = time.perf_counter()

    def _means(self) -> dict[str, float]:
        sums = self.sums[: self.index].sum(dim=0).tolist()
        return {name: sums[column] / max(self.taken[column], 1) for name, column in self.columns.items()}

    def _check(self) -> None:
        bad = ~torch.isfinite(self.sums[self.checked : self.index])
        if bool(bad.any()):
            row, column = (int(value) for value in bad.nonzero()[0])
            name, step = list(self.columns)[column], self.steps - self.index + self.checked + row + 1
            value, epoch = float(self.sums[self.checked + row, column]), (self.read - 1) // self.batches + 1
            what = f"the {name}'s loss" if name in self.players else name
            raise NonFiniteLoss(
                f"{what} became {value} at step {step} (epoch {min(epoch, self.epochs)} of {self.epochs}); "
                "a smaller learning_rate usually helps"
            )
        self.checked = self.index

    def _report(self) -> None:
        self.reported = time.perf_counter()
        whole, now = self.epochs * self.batches, self.read - self.first
        elapsed = self.reported - self.started
        self.run.report(
            Progress(
                epoch=min(self.read // self.batches, self.epochs),
                epochs=self.epochs,
                fraction=min(self.read / whole, 1.0),
                images_per_second=now * self.batch / max(elapsed, 1e-9),
                losses=self._means(),
                seconds_left=elapsed * max(whole - self.read, 0) / max(now, 1),
            )
        )
