"""What the linear probes share: how the strength of their penalty is chosen, and when the test rows are read."""

import abc
import typing as t

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from protocols.base import FeatureSet, Protocol, Scores, stratified_split
from protocols.solver import Fit, Loss, Problem

Strengths = t.Annotated[
    tuple[PositiveFloat, ...],
    Field(min_length=1, strict=False, description="L2 penalties to try, from strong to weak; validation rows choose."),
]


class Probe(Protocol):
    """A loss of linear maps of the frozen features, minimised with the penalty that validation rows choose.

    Features are standardised by the mean and standard deviation of the rows fitted on (a constant feature becomes 0).
    Then mean loss + strength / 2 * |weights|^2 is minimised, the biases not penalised. The strengths are tried from
    strong to weak on the rest of a stratified split of train, until the validation loss has grown twice in a row. Of
    those tried the one with the highest validation accuracy, of equals the lowest validation loss, is fitted again on
    all of train, and test is read once. Classes that train lacks are never predicted.

    Details: the chosen `strength`; its fit on all of train as `refit`; every fit of the selection as `path`. Each fit
    has its mean `loss`, its `objective`, its `gap` (the objective is at most this far above the minimum, up to float32
    rounding), its `passes` over the features, how many of these read them rounded to bfloat16 (`rounded_passes`: the
    first, where that is native; never the last), and whether the gap met the tolerance (`converged`).
    """

    strengths: Strengths
    validation: t.Annotated[float, Field(gt=0, lt=1)] = 1 / 6
    """Share of the train rows held out to choose the penalty; 10,000 of MNIST's 60,000."""
    tolerance: PositiveFloat = 1e-3
    """Largest certified gap between the objective and its minimum."""
    max_passes: PositiveInt = 1000
    """Maximum number of passes over the features per fit; two more measure the gap that is reached by then."""

    @property
    @abc.abstractmethod
    def loss(self) -> Loss: ...

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:
        problem, refit, details = self.fit(train, seed)
        predictions = problem.predictions(problem.logits(refit, test.features))
        top1 = float((predictions == test.labels).double().mean())
        return Scores({"top1": top1}, predictions, details)

    def fit(self, train: FeatureSet, seed: int) -> tuple[Problem, Fit, dict[str, t.Any]]:
        """The problem of all of train, its solution at the chosen strength, and the details of the choice."""
        size = min(max(1, round(self.validation * len(train))), len(train) - 1)
        fitted_rows, held_rows = (
            torch.from_numpy(rows).to(train.labels.device)
            for rows in stratified_split(train.labels.cpu().numpy(), size, seed)
        )
        problem = Problem(train.features, train.labels, self.loss, fitted_rows)
        held = train.rows(held_rows) if size else train
        path: list[_Tried] = []
        for strength in sorted(self.strengths, reverse=True):  # from the easy problem to the hard, each from the last
            fit = problem.solve(strength, self.tolerance, self.max_passes, path[-1].fit if path else None)
            path.append(_Tried(*problem.judge(fit, held), fit))
            if len(path) > 2 and path[-3].loss < path[-2].loss < path[-1].loss:
                break
        best = max(path, key=lambda tried: (tried.accuracy, -tried.loss)).fit
        spectrum = problem.spectrum  # near enough that of all rows: it speeds the way and does not move the end
        del problem  # its copy of the features makes room for the next
        problem = Problem(train.features, train.labels, self.loss, spectrum=spectrum)
        start = best if len(best.weights) == len(problem.present) else None
        refit = problem.solve(best.strength, self.tolerance, self.max_passes, start)
        details = {"strength": refit.strength, "validation_rows": size, "refit": refit.report()}
        details["path"] = [tried.report() for tried in path]
        return problem, refit, details


class _Tried(t.NamedTuple):
    accuracy: float  # on validation rows
    loss: float
    fit: Fit

    def report(self) -> dict[str, t.Any]:
        return {"validation_accuracy": self.accuracy, "validation_loss": self.loss} | self.fit.report()
