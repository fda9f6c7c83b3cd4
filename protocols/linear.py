"""Linear probe: multinomial logistic regression on frozen features, solved to a certificate.

Source: logistic-regression probes of frozen features (Alain and Bengio 2016, arXiv:1610.01644), with the strength
chosen on held-out train rows as DCGAN chose its SVM's (Radford et al. 2015, arXiv:1511.06434). Differs from probes
trained by SGD: the problem is convex, so it is solved, and the details say how nearly. Solver: full-batch L-BFGS (Liu
and Nocedal 1989), preconditioned by the features' covariance, which is factorised once for all strengths.
"""

import collections
import typing as t

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from protocols.base import FeatureSet, Protocol, Scores, stratified_split

_EXACT = 1536  # features up to which the covariance is factorised whole; beyond, as many directions as _RANK
_RANK = 1024
_SKETCHED = 16384  # rows that those directions are found on


class Linear(Protocol):
    """The share of test rows that multinomial logistic regression on the frozen features classifies rightly.

    Features are standardised by the mean and standard deviation of the rows fitted on (a constant feature becomes 0).
    Then mean cross-entropy (nats) + strength / 2 * |weights|^2 is minimised, the biases not penalised; scikit-learn's C
    is 1 / (strength * rows). The strengths are tried from strong to weak on the rest of a stratified split of train,
    until the validation loss has grown twice in a row. Of those tried the one with the highest validation accuracy, of
    equals the lowest validation loss, is fitted again on all of train, and test is read once. Classes that train lacks
    are never predicted.

    Details: the chosen `strength`; its fit on all of train as `refit`; every fit of the selection as `path`. Each fit
    has its mean cross-entropy `loss`, its `objective`, its `gap` (the objective is at most this far above the minimum,
    in nats, up to float32 rounding), its `passes` over the features, and whether the gap met the tolerance
    (`converged`).
    """

    version = 2  # 1 took another way to within the tolerance
    source = "Alain and Bengio 2016, arXiv:1610.01644"

    strengths: t.Annotated[tuple[PositiveFloat, ...], Field(min_length=1, strict=False)] = (
        1.0, 3e-1, 1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5,
    )  # fmt: skip
    validation: t.Annotated[float, Field(gt=0, lt=1)] = 1 / 6  # of train, held out to choose; MNIST: 10,000 of 60,000
    tolerance: PositiveFloat = 1e-3  # of the objective, in nats, certified
    max_passes: PositiveInt = 1000  # over the features, a fit; two more tell the gap of what is reached by then

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:
        size = min(max(1, round(self.validation * len(train))), len(train) - 1)
        fitted_rows, held_rows = (
            torch.from_numpy(rows).to(train.labels.device)
            for rows in stratified_split(train.labels.cpu().numpy(), size, seed)
        )
        problem = _Problem(train.features[fitted_rows], train.labels[fitted_rows])
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
        problem = _Problem(train.features, train.labels, spectrum)
        start = best if len(best.weights) == len(problem.present) else None
        refit = problem.solve(best.strength, self.tolerance, self.max_passes, start)
        predictions = problem.present[problem.logits(refit, test.features).argmax(dim=1)]  # the first of equals
        top1 = float((predictions == test.labels).double().mean())
        details = {"strength": refit.strength, "validation_rows": size, "refit": refit.report()}
        details["path"] = [tried.report() for tried in path]
        return Scores({"top1": top1}, predictions, details)


def fit(features: Tensor, labels: Tensor, strength: float, tolerance: float = 1e-3, max_passes: int = 1000) -> "Fit":
    """One regression of labels (n,) on features (n, d), standardised inside, without a selection."""
    return _Problem(features, labels).solve(strength, tolerance, max_passes, None)


class Fit(t.NamedTuple):
    strength: float
    weights: Tensor  # float64 (classes present, d), of standardised features
    biases: Tensor  # float64 (classes present,)
    loss: float  # mean cross-entropy, nats
    objective: float
    gap: float
    passes: int
    converged: bool

    def report(self) -> dict[str, t.Any]:
        return {name: value for name, value in self._asdict().items() if name not in ("weights", "biases")}


class _Tried(t.NamedTuple):
    accuracy: float  # on validation rows
    loss: float
    fit: Fit

    def report(self) -> dict[str, t.Any]:
        return {"validation_accuracy": self.accuracy, "validation_loss": self.loss} | self.fit.report()


class _Problem:
    """Logistic regression of labels (n,) on features (n, d), standardised here, to be solved at any strength."""

    def __init__(self, features: Tensor, labels: Tensor, spectrum: "_Spectrum | None" = None) -> None:
        n, d = features.shape
        self.rows = max(256, 2**20 // d)  # of a slice: 4 MiB, which stays in cache
        self.present, self.labels = torch.unique(labels, return_inverse=True)
        self.shares = self.labels.bincount().double() / n
        self.mean = torch.stack([x.double().sum(0) for x in self.slices(features)]).sum(0) / n
        variance = torch.stack([(x.double() - self.mean).square().sum(0) for x in self.slices(features)]).sum(0) / n
        varies = features.amax(0) > features.amin(0)  # exactly: the mean of equal numbers may differ from them
        self.factor = torch.where(varies, variance, torch.inf).rsqrt()
        self.x = torch.empty_like(features)
        for x, raw in zip(self.slices(self.x), self.slices(features)):
            x.copy_(self.standardised(raw))
        self.spectrum = _Spectrum.of(self.x) if spectrum is None else spectrum

    def slices(self, rows: Tensor) -> tuple[Tensor, ...]:
        return torch.split(rows, self.rows)

    def standardised(self, features: Tensor) -> Tensor:
        return (features.double() - self.mean) * self.factor  # float64 (n, d)

    def logits(self, fit: Fit, features: Tensor) -> Tensor:
        parts = [self.standardised(x) @ fit.weights.T + fit.biases for x in self.slices(features)]
        return torch.cat(parts)  # float64 (n, classes present)

    def judge(self, fit: Fit, held: FeatureSet) -> tuple[float, float]:
        """Accuracy on all rows; mean cross-entropy on rows of the classes known here (on others it is infinite)."""
        logits = self.logits(fit, held.features)
        accuracy = (self.present[logits.argmax(dim=1)] == held.labels).double().mean()
        right = held.labels[:, None] == self.present  # (n, classes present), at most one in a row
        known = right.any(dim=1)
        losses = logits.logsumexp(dim=1)[known] - logits[right]
        return float(accuracy), float(losses.mean()) if len(losses) else 0.0

    def solve(self, strength: float, tolerance: float, max_passes: int, start: Fit | None) -> Fit:
        """Minimise over weights and biases, from `start` or from no weights and the classes' frequencies.

        With the best biases for its weights the objective is as strongly convex as its penalty, so it is at most
        |gradient|^2 / (2 strength) above its minimum: the gap. In exact arithmetic it is also the gap to the dual
        problem. While the way goes on, the biases are variables like the weights; they are settled before a gap counts.
        """
        classes, d = len(self.present), self.x.shape[1]
        weights = torch.zeros(classes, d).to(self.shares) if start is None else start.weights
        biases = self.shares.log() if start is None else start.biases
        at = self.evaluate(torch.cat([weights, biases[:, None]], dim=1), strength)
        steps: collections.deque[tuple[Tensor, Tensor]] = collections.deque(maxlen=10)
        passes, stuck, certified = 1, False, False
        while passes < max_passes and not stuck:
            if at.gap <= tolerance:
                variables, settled = self.with_best_biases(at.variables)
                at = self.evaluate(variables, strength)
                passes += 2
                certified = settled and at.gap <= tolerance
                if certified:
                    break
            precondition = self.spectrum.preconditioner(at.curvature, strength, steps[-1] if steps else None)
            direction = -_two_loops(at.gradient, steps, precondition)
            downhill = float((direction * at.gradient).sum())
            low, low_slope, high, high_slope, step = 0.0, downhill, 0.0, 0.0, 1.0
            for _ in range(20):  # the slope along a line grows on a convex function: close in on where it is near 0
                new = self.evaluate(at.variables + step * direction, strength)
                passes += 1
                slope = float((direction * new.gradient).sum())
                worse = new.objective > at.objective * (1 + 1e-6)  # by more than float32 rounding
                if (not worse and abs(slope) <= 0.9 * -downhill) or passes >= max_passes:
                    break
                if slope < 0 and not worse:
                    low, low_slope = step, slope
                else:
                    high, high_slope = step, abs(slope)
                share = low_slope / (low_slope - high_slope)
                step = low + (high - low) * min(max(share, 0.1), 0.9) if high else 4 * step
            else:
                stuck = True  # float32 has no more digits to go downhill by
            if worse:
                break
            move, change = new.variables - at.variables, new.gradient - at.gradient
            if float((move * change).sum()) > 0:
                steps.append((move, change))
            at = new
        if not certified:  # the gap of whatever was reached
            at = self.evaluate(self.with_best_biases(at.variables)[0], strength)
            passes += 2
        weights, biases = at.variables[:, :-1], at.variables[:, -1]
        return Fit(strength, weights, biases, at.loss, at.objective, at.gap, passes, certified)

    def evaluate(self, variables: Tensor, strength: float) -> "_Point":
        """One read of the features: products in float32, sums in float64. `variables`: weights and biases, (c, d + 1).

        The gap is as good as the biases are.
        """
        n, weights = len(self.x), variables[:, :-1]
        columns, biases = weights.T.float().contiguous(), variables[:, -1].float()
        gradient = torch.zeros_like(variables)
        loss = mass = torch.zeros((), dtype=torch.float64, device=self.x.device)
        for x, labels in zip(self.slices(self.x), self.slices(self.labels)):
            logits = torch.addmm(biases, x, columns)
            total, own = logits.logsumexp(dim=1, keepdim=True), labels[:, None]
            loss = loss + (total - logits.gather(1, own)).sum(dtype=torch.float64)
            residual = (logits - total).exp_()  # the probabilities, minus 1 at the right class
            mass = mass + (residual - residual.square()).sum(dtype=torch.float64)
            residual.scatter_add_(1, own, -torch.ones_like(total))
            gradient[:, :-1] += residual.T @ x
            gradient[:, -1] += residual.sum(dim=0)
        gradient /= n
        gradient[:, :-1] += strength * weights
        data_loss = float(loss) / n
        objective = data_loss + strength / 2 * float(weights.square().sum())
        gap = float(gradient[:, :-1].square().sum()) / (2 * strength)
        return _Point(variables, gradient, data_loss, objective, gap, float(mass) / (n * len(variables)))

    def with_best_biases(self, variables: Tensor) -> tuple[Tensor, bool]:
        """The same weights with the best biases for them, and whether they were found."""
        plain = torch.cat([x @ variables[:, :-1].T.float() for x in self.slices(self.x)])
        biases, settled = self.best_biases(plain, variables[:, -1])
        return torch.cat([variables[:, :-1], biases[:, None]], dim=1), settled

    def best_biases(self, plain: Tensor, biases: Tensor) -> tuple[Tensor, bool]:
        """Biases that make each class as probable as it is frequent, and whether they were found.

        Newton's method with the step length that always goes downhill (Sun and Tran-Dinh 2019, arXiv:1703.04599).
        """
        classes = len(biases)
        for _ in range(50):
            probabilities = torch.softmax(plain + biases.float(), dim=1)
            excess = probabilities.mean(dim=0, dtype=torch.float64) - self.shares
            if float(excess.abs().max()) <= 1e-6:
                return biases, True
            pairs = torch.stack([p.T @ p for p in torch.split(probabilities, 8192)]).double().sum(0) / len(plain)
            pairs.fill_diagonal_(0)
            curvature = pairs.sum(dim=0).diag() - pairs + 1 / classes  # adding the same to all biases changes nothing
            curvature.diagonal().add_(1e-9)
            move = torch.linalg.solve(curvature, excess)
            length = move.max() - move.min()
            biases = biases - move * torch.log1p(length) / length
        return biases, False


class _Point(t.NamedTuple):
    variables: Tensor  # float64 (classes, d + 1): weights, and in the last column biases
    gradient: Tensor  # of the objective, float64 (classes, d + 1)
    loss: float
    objective: float
    gap: float
    curvature: float  # of the loss by a logit: mean of p (1 - p)


class _Spectrum(t.NamedTuple):
    """The features' second moments: the largest eigenvalues with their directions, and the mean of the others."""

    values: Tensor  # float32 (r,)
    directions: Tensor  # float32 (d, r), orthonormal
    rest: float

    @classmethod
    def of(cls, x: Tensor) -> "_Spectrum":
        """Exact for few features; else Nystrom's approximation from a random sketch of some rows.

        Source: Frangella, Tropp, Udell 2023, arXiv:2110.02820, algorithm 2.1.
        """
        n, d = x.shape
        if d <= _EXACT:
            values, directions = torch.linalg.eigh(x.T @ x / n)
            return cls(values.clamp(min=0), directions, 0.0)
        rows = x[torch.linspace(0, n - 1, min(n, _SKETCHED), device=x.device).long()]
        trace = float(rows.square().sum(dtype=torch.float64)) / len(rows)
        test = torch.randn(d, _RANK, generator=torch.Generator().manual_seed(0)).to(x)
        test = torch.linalg.qr(test).Q
        sketch = rows.T @ (rows @ test) / len(rows)
        shift = 1e-6 * float(torch.linalg.matrix_norm(sketch))
        sketch += shift * test
        factor = torch.linalg.cholesky((test.T @ sketch).double())
        left = torch.linalg.solve_triangular(factor, sketch.double().T, upper=False).float()  # (r, d)
        squares, turn = torch.linalg.eigh(left @ left.T)
        directions = (left.T @ turn) * squares.clamp(min=1e-20).rsqrt()
        values = (squares - shift).clamp(min=0)
        return cls(values, directions, max(0.0, trace - float(values.sum())) / (d - _RANK))

    def preconditioner(
        self, curvature: float, strength: float, newest: tuple[Tensor, Tensor] | None
    ) -> t.Callable[[Tensor], Tensor]:
        """The inverse of the Hessian if all logits were curved alike, as long as the newest step says it is."""
        curvature = max(curvature, 1e-12)
        rest = 1 / (curvature * self.rest + strength)
        own = 1 / (curvature * self.values.double() + strength) - rest

        def plain(gradient: Tensor) -> Tensor:
            weights = gradient[:, :-1]
            along = (weights.float() @ self.directions).double() * own
            moved = (along.float() @ self.directions.T).double() + rest * weights
            return torch.cat([moved, gradient[:, -1:] / curvature], dim=1)

        if newest is None:
            return plain
        move, change = newest
        scale = float((move * change).sum() / (change * plain(change)).sum())
        return lambda gradient: scale * plain(gradient)


def _two_loops(
    gradient: Tensor, steps: t.Iterable[tuple[Tensor, Tensor]], precondition: t.Callable[[Tensor], Tensor]
) -> Tensor:
    """L-BFGS: the inverse of the curvature seen over the last steps (moves, changes of gradient), on the gradient."""
    direction = gradient
    backwards = []
    for move, change in reversed(list(steps)):
        weight = (move * direction).sum() / (move * change).sum()
        backwards.append(weight)
        direction = direction - weight * change
    direction = precondition(direction)
    for (move, change), weight in zip(steps, reversed(backwards)):
        direction = direction + (weight - (change * direction).sum() / (move * change).sum()) * move
    return direction
