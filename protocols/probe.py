"""What the linear probes share: how the strength of their penalty is chosen, and when the test rows are read."""

import abc
import itertools
import typing as t

import torch
from pydantic import Field, PositiveFloat, PositiveInt

from protocols.base import FeatureSet, Protocol, Scores, stratified_split
from protocols.probabilities import beside
from protocols.solver import Fit, Loss, Problem

_MANY = 2**18  # numbers of features from which on strengths far from the choice are solved roughly, in half the time
_ROUGH = 1e-2  # the tolerance of these


Strengths = t.Annotated[
    tuple[PositiveFloat, ...],
    Field(min_length=1, strict=False, description="L2 penalties to try, from strong to weak; validation rows choose."),
]


class Probe(Protocol):
    """A loss of linear maps of the frozen features, minimised with the penalty that validation rows choose.

    Features are standardised by the mean and standard deviation of the rows fitted on (a constant feature becomes 0).
    Then mean loss + strength / 2 * |weights|^2 is minimised, the biases not penalised. The strengths are tried from
    strong to weak on the rest of a stratified split of train, until the validation loss has grown twice in a row. Of
    those tried the one with the lowest validation loss (the probe's own loss, without penalty; of equals the
    strongest) is fitted again on all of train, and test is read once. Classes that train lacks are never predicted.

    Beside `top1`: what `protocols.probabilities` makes of the logits; of losses that are a likelihood, log loss and
    calibration too.

    Of 2^18 numbers of features and more the strengths are tried until the loss has grown once, each to a tolerance of
    1e-2 at first. Then the best of them is solved to a tenth of its gap, and to a tenth of that, down to `tolerance`,
    as long as a neighbour may be better: a loss counts as known up to twice its last change, that of a neighbour not
    solved further up to four times the best's. Of fewer numbers each strength meets the tolerance.

    Details: the chosen `strength`, its `validation_loss` and the `gap` of its fit on all of train, which is `refit`;
    the `edge` of `strengths` that it is, "strongest" or "weakest", if one (then also a `warning`); every fit of the
    selection as `path`. Each fit has its mean `loss`, its `objective`, its `gap` (the objective is at most this far
    above the minimum, up to float32 rounding), its `passes` over the features, how many of these read them rounded to
    bfloat16 (`rounded_passes`: of each solution the first, where that is native; never the last), and whether the gap
    met the tolerance (`converged`): it is at most that share of the objective, where an objective above 1 counts as 1
    and one below 0.01 as 0.01.
    """

    strengths: Strengths
    validation: t.Annotated[float, Field(gt=0, lt=1)] = 1 / 6
    """Share of the train rows held out to choose the penalty; 10,000 of MNIST's 60,000."""
    tolerance: PositiveFloat = 1e-5
    """Largest certified gap between the objective and its minimum, as a share of the objective (see `relative`)."""
    max_passes: PositiveInt = 1000
    """Maximum number of passes over the features per fit; two more measure the gap that is reached by then."""

    @property
    @abc.abstractmethod
    def loss(self) -> Loss: ...

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:
        problem, refit, details = self.fit(train, seed)
        logits = problem.logits(refit, test.features)
        predictions, truth = problem.predictions(logits), test.labels
        top1 = float((predictions == truth).double().mean())
        more = beside(problem.of_all_classes(logits, test.classes), predictions, truth, likelihood=self.loss.likelihood)
        return Scores({"top1": top1} | more, predictions, details)

    def fit(self, train: FeatureSet, seed: int) -> tuple[Problem, Fit, dict[str, t.Any]]:
        """The problem of all of train, its solution at the chosen strength, and the details of the choice."""
        size = min(max(1, round(self.validation * len(train))), len(train) - 1)
        fitted_rows, held_rows = (
            torch.from_numpy(rows).to(train.labels.device)
            for rows in stratified_split(train.labels.cpu().numpy(), size, seed)
        )
        problem = Problem(train.features, train.labels, self.loss, fitted_rows)
        held = train.rows(held_rows) if size else train
        waiting = sorted(self.strengths)  # taken from the end: from the easy problem to the hard, each from the last
        rough = train.features.numel() >= _MANY
        first = max(_ROUGH, self.tolerance) if rough else self.tolerance
        path: list[_Tried] = []
        while True:
            if waiting and not _rising(path, 1 if rough else 2):
                start = path[-1].fit if path else None
                fit = problem.solve(waiting.pop(), first, self.max_passes, start)
                path.append(_Tried(*problem.judge(fit, held), None, fit))
            elif close := _undecided(path, self.tolerance):
                for place in close:
                    path[place] = self._tightened(path[place], problem, held)
            else:
                break
        chosen = min(path, key=lambda tried: tried.loss)
        best = chosen.fit
        spectrum = problem.spectrum  # near enough that of all rows: it speeds the way and does not move the end
        del problem  # its copy of the features makes room for the next
        problem = Problem(train.features, train.labels, self.loss, spectrum=spectrum)
        start = best if len(best.weights) == len(problem.present) else None
        refit = problem.solve(best.strength, self.tolerance, self.max_passes, start)
        details: dict[str, t.Any] = {"strength": refit.strength, "validation_loss": chosen.loss, "gap": refit.gap}
        edges = {min(self.strengths): "weakest", max(self.strengths): "strongest"} if len(self.strengths) > 1 else {}
        details["edge"] = edge = edges.get(refit.strength)
        if edge:
            details["warning"] = f"strength={refit.strength:g}, the {edge} tried, has the lowest validation loss"
        details |= {"validation_rows": size, "refit": refit.report(), "path": [tried.report() for tried in path]}
        return problem, refit, details

    def _tightened(self, tried: "_Tried", problem: Problem, held: FeatureSet) -> "_Tried":
        """The same strength, solved to a tenth of its gap."""
        before = tried.fit
        tolerance, left = max(before.relative_gap / 10, self.tolerance), max(1, self.max_passes - before.passes)
        fit = problem.solve(before.strength, tolerance, left, before)
        accuracy, loss = problem.judge(fit, held)
        passes = {name: getattr(before, name) + getattr(fit, name) for name in ("passes", "rounded_passes")}
        return _Tried(accuracy, loss, abs(loss - tried.loss), fit._replace(**passes))


class _Tried(t.NamedTuple):
    accuracy: float  # on validation rows
    loss: float
    change: float | None  # of the loss, when the strength was last solved further
    fit: Fit

    def report(self) -> dict[str, t.Any]:
        return {"validation_accuracy": self.accuracy, "validation_loss": self.loss} | self.fit.report()


def _rising(path: list[_Tried], times: int) -> bool:
    """Whether the validation loss has grown so many times in a row."""
    losses = [tried.loss for tried in path[-times - 1 :]]
    return len(losses) > times and all(before < after for before, after in itertools.pairwise(losses))


def _undecided(path: list[_Tried], tolerance: float) -> list[int]:
    """The places that must be solved further before the lowest loss is known: the best, and neighbours near it."""
    best = min(range(len(path)), key=lambda place: path[place].loss)
    neighbours = [place for place in (best - 1, best + 1) if 0 <= place < len(path)]
    open_ = [place for place, (*_, fit) in enumerate(path) if fit.converged and fit.relative_gap > tolerance]
    change = path[best].change
    if change is None:
        return [best] if neighbours and best in open_ else []

    def lowest(tried: _Tried) -> float:
        return tried.loss - (4 * change if tried.change is None else 2 * tried.change)

    near = [place for place in neighbours if lowest(path[place]) <= path[best].loss + 2 * change]
    return [place for place in (best, *near) if place in open_] if near else []
