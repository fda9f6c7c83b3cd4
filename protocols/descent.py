"""What the probes trained by gradient descent share: the loop, and how the learning rate is chosen."""

import abc
import math
import typing as t

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from protocols.base import FeatureSet, Protocol, Scores, accuracy, at_once, stratified_split
from protocols.probabilities import beside

LearningRates = t.Annotated[
    tuple[PositiveFloat, ...],
    Field(min_length=1, strict=False, description="Learning rates to try; validation rows choose one."),
]
Epochs = t.Annotated[PositiveInt, Field(description="Passes over the train rows.")]


class Descent(Protocol):
    """A network on the frozen features, trained by mini-batches with the learning rate that validation rows choose.

    Features are standardised by the mean and standard deviation of the rows fitted on (a constant feature becomes 0).
    Cross-entropy is minimised while the learning rate falls to 0 along half a cosine. Every learning rate is tried on
    the rest of a stratified split of train; the one with the highest validation accuracy, of equals the lowest
    validation loss, is trained again on all of train, and test is read once. A batch is always full: an epoch's random
    order goes on where the last one's ended.

    Beside `top1`: log loss, calibration and, of more than ten classes, top-5, see `protocols.probabilities`.

    Details: the chosen `learning_rate`; its training on all of train as `refit`, with the mean loss of its last epoch
    (nats); every training of the selection as `path`. With `repeats` above 1 the training on all of train is done so
    often, each time with other initial weights, orders and dropout: predictions and metrics are of the first, and
    `repeats` has the `top1` of each, which tells the probe's own randomness from that of pretraining.
    """

    learning_rates: LearningRates
    epochs: Epochs
    batch: PositiveInt = 256
    """Train rows per step."""
    validation: t.Annotated[float, Field(gt=0, lt=1)] = 1 / 6
    """Share of the train rows held out to choose the learning rate; 10,000 of MNIST's 60,000."""
    repeats: PositiveInt = 1
    """How often the network is trained with the chosen learning rate; the score is that of the first."""

    @abc.abstractmethod
    def network(self, dimensions: int, classes: int) -> nn.Module:
        """Features (b, dimensions) -> logits (b, classes), with fresh weights."""

    @abc.abstractmethod
    def optimizer(self, parameters: t.Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer: ...

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:
        size = min(max(1, round(self.validation * len(train))), len(train) - 1)
        fitted_rows, held_rows = (
            torch.from_numpy(rows).to(train.labels.device)
            for rows in stratified_split(train.labels.cpu().numpy(), size, seed)
        )
        held = train.rows(held_rows) if size else train
        path = []
        for learning_rate in self.learning_rates:
            trained = self._train(train, fitted_rows, learning_rate, seed)
            logits = trained.logits(held.features)
            right = accuracy(logits.argmax(dim=1), held.labels)
            loss = float(functional.cross_entropy(logits.double(), held.labels))
            path.append(trained.report() | {"validation_accuracy": right, "validation_loss": loss})
        best = max(path, key=lambda tried: (tried["validation_accuracy"], -tried["validation_loss"]))["learning_rate"]
        everything = torch.arange(len(train), device=train.labels.device)
        again = [int(np.random.SeedSequence((seed, one)).generate_state(1)[0]) for one in range(1, self.repeats)]
        refits = [self._train(train, everything, best, one) for one in (seed, *again)]
        queries = test.features
        outputs = [refit.logits(queries) for refit in refits]
        answers = [logits.argmax(dim=1) for logits in outputs]
        truth = test.labels
        top1 = [accuracy(predictions, truth) for predictions in answers]
        details: dict[str, t.Any] = {"learning_rate": best, "validation_rows": size, "refit": refits[0].report()}
        details["path"] = path
        if self.repeats > 1:
            details["repeats"] = [{"top1": one} for one in top1]
        others = {f"repeat{one}": predictions for one, predictions in enumerate(answers) if one}
        more = beside(outputs[0], answers[0], truth, likelihood=True)
        return Scores({"top1": top1[0]} | more, answers[0], details, others)

    def _train(self, train: FeatureSet, rows: Tensor, learning_rate: float, seed: int) -> "_Trained":
        """A network trained on these rows; the same for the same arguments, and no other random number is drawn."""
        device = train.features.device
        chance = torch.Generator().manual_seed(seed)
        scale = _Scale.of(train.features, rows)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            network = self.network(train.features.shape[1], train.classes).to(device)
            optimizer = self.optimizer(network.parameters(), learning_rate)
            steps = self.epochs * math.ceil(len(rows) / self.batch)
            orders = math.ceil(steps * self.batch / len(rows))
            order = torch.cat([torch.randperm(len(rows), generator=chance) for _ in range(orders)]).to(device)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            losses = torch.zeros(steps, device=device)
            for step, batch in enumerate(torch.split(order[: steps * self.batch], self.batch)):
                drawn = rows[batch]
                loss = functional.cross_entropy(network(scale(train.features[drawn])), train.labels[drawn])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                losses[step] = loss.detach()
        last = float(losses[-(steps // self.epochs) :].double().mean())
        return _Trained(learning_rate, scale, network.eval().requires_grad_(False), last, steps)


class _Scale(t.NamedTuple):
    mean: Tensor  # float64 (d,)
    factor: Tensor  # float64 (d,)

    @classmethod
    def of(cls, features: Tensor, rows: Tensor) -> "_Scale":
        """In blocks of float64: float32 loses what varies far from 0."""
        parts = torch.split(rows, max(1, at_once(features.device) // features.shape[1]))
        mean = torch.stack([features[part].double().sum(dim=0) for part in parts]).sum(dim=0) / len(rows)
        squares = torch.stack([(features[part].double() - mean).square().sum(dim=0) for part in parts]).sum(dim=0)
        varies = torch.stack([(features[part] != features[rows[0]]).any(dim=0) for part in parts]).any(dim=0)
        return cls(mean, torch.where(varies, squares / len(rows), torch.inf).rsqrt())

    def __call__(self, features: Tensor) -> Tensor:
        return ((features.double() - self.mean) * self.factor).float()


class _Trained(t.NamedTuple):
    learning_rate: float
    scale: _Scale
    network: nn.Module
    loss: float
    steps: int

    def logits(self, features: Tensor) -> Tensor:
        parts = torch.split(features, max(1, at_once(features.device) // features.shape[1]))
        return torch.cat([self.network(self.scale(part)) for part in parts])

    def report(self) -> dict[str, t.Any]:
        return {"learning_rate": self.learning_rate, "loss": self.loss, "steps": self.steps}
