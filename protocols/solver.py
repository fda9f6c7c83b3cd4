"""The solver of the linear probes: a convex loss of linear maps of standardised features, minimised to a certificate.

Full-batch L-BFGS (Liu and Nocedal 1989), preconditioned by the features' covariance, which is factorised once for all
strengths. Every pass reads the features once; products are float32, sums float64. Where bfloat16 is native and the
tolerance is not tight, the way starts on many features rounded to it, whose passes take half to two thirds as long; it
ends, and is certified, on the features themselves.
"""

import abc
import collections
import functools
import typing as t

import torch
from torch import Tensor
from torch.nn import functional

from protocols.base import FeatureSet, at_once, multiplies_bfloat16

_EXACT = 1536  # features up to which the covariance is factorised whole; beyond, as many directions as _RANK
_RANK = 1024
_SKETCHED = 16384  # rows that stand for all in the covariance; 60,000 save one pass of fifty and cost a second
_KEPT = 2**29  # numbers (2 GiB) up to which the standardised features are kept; beyond, each pass standardises again
_ROUNDED = range(2**22, 2**31)  # numbers of features kept in bfloat16 too (to 4 GiB); fewer stay in cache as float32
_ROUNDED_TOLERANCE = 3e-4  # of gaps, down to which these show the way; what comes below is hidden by the rounding


_Dot = t.Callable[[Tensor, Tensor], Tensor]


class Losses(t.NamedTuple):
    values: Tensor  # (n,), of each row
    slopes: Tensor  # (n, classes), their derivatives by the logits
    curvature: Tensor  # float64, the sum of the second derivatives by each logit


class Loss(abc.ABC):
    """A convex, differentiable loss of a row's logits, one for each class; it is what tells one probe from another."""

    likelihood: t.ClassVar[bool] = False  # the softmax of its logits are probabilities
    couples_classes: t.ClassVar[bool]  # False: a sum of losses of one logit each; each class is a problem of its own

    @abc.abstractmethod
    def __call__(self, logits: Tensor, labels: Tensor) -> Losses:
        """Of logits (n, classes) and labels (n,), which number the classes."""

    @abc.abstractmethod
    def first_biases(self, shares: Tensor) -> Tensor:
        """The best biases (classes,) without weights, for classes that are `shares` of the rows; float64."""

    @abc.abstractmethod
    def best_biases(self, plain: Tensor, labels: Tensor, biases: Tensor) -> tuple[Tensor, bool]:
        """The biases to add to logits without, `plain`, for the lowest mean loss; whether its slopes are <= 1e-6."""


class Fit(t.NamedTuple):
    strength: float
    weights: Tensor  # float64 (classes present, d), of standardised features
    biases: Tensor  # float64 (classes present,)
    loss: float  # mean over rows
    objective: float
    gap: float
    passes: int  # over the features
    rounded_passes: int  # of these, over the features rounded to bfloat16
    converged: bool

    @property
    def relative_gap(self) -> float:
        return relative(self.gap, self.objective)

    def report(self) -> dict[str, t.Any]:
        return {name: value for name, value in self._asdict().items() if name not in ("weights", "biases")}


def relative(gap: float, objective: float) -> float:
    """A gap as tolerances count it: over the objective, which counts as at least 0.01 and at most 1.

    Small objectives are those of classes that separate well. The same gap leaves more of their weights open.
    """
    return gap / min(1.0, max(0.01, objective))


class Problem:
    """A probe of features (n, d), or of `rows` of them, standardised here, to be solved at any strength.

    The mean loss + strength / 2 * |weights|^2 is to be minimised over weights and biases.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        loss: Loss,
        rows: Tensor | None = None,
        spectrum: "_Spectrum | None" = None,
    ) -> None:
        self.features, self.loss = features, loss
        self.rows = torch.arange(len(features), device=features.device) if rows is None else rows
        self.whole = rows is None
        n, d = len(self.rows), features.shape[1]
        self.size = max(256, at_once(features.device) // d)  # of a slice
        self.unit: Tensor | None = None
        self.present, self.labels = torch.unique(labels[self.rows], return_inverse=True)
        self.shares = self.labels.bincount().double() / n
        total = torch.zeros(d, dtype=torch.float64, device=features.device)
        low = high = features[self.rows[0]]
        for x in self.raw():
            total += x.sum(0, dtype=torch.float64)
            low, high = torch.minimum(low, x.amin(0)), torch.maximum(high, x.amax(0))
        self.unit = self._unit(torch.maximum(low.abs(), high.abs()))
        self.mean = (total / n if self.unit is None else total / n * self.unit).float()
        squares = torch.zeros_like(total)  # added up at once: lists of small results keep large slices' memory apart
        for x in self.raw():
            squares += x.sub(self.mean).square_().sum(0, dtype=torch.float64)
        # The mean of equal numbers may differ from them.
        self.factor = torch.where(low < high, squares / n, torch.inf).rsqrt().float()
        self.kept: Tensor | None = None
        if n * d <= _KEPT:
            self.kept = features.new_empty(n, d)
            for x, raw in zip(torch.split(self.kept, self.size), self.raw()):
                torch.sub(raw, self.mean, out=x).mul_(self.factor)
        self.spectrum = _Spectrum.of(self.sample(), n) if spectrum is None else spectrum

    @staticmethod
    def _unit(largest: Tensor) -> Tensor | None:
        """Powers of two that bring columns near 1 whose squares float32 does not hold; None if it holds them all.

        A softmax that never takes a class has such a column. The numbers of other columns keep their bits.
        """
        exponent = torch.frexp(largest).exponent.clamp(-126, 126)
        far = (largest > 0) & (exponent.abs() > 30)
        return torch.where(far, torch.exp2(-exponent.double()), 1.0).float() if bool(far.any()) else None

    def raw(self) -> t.Iterable[Tensor]:
        """The rows before their mean is taken off, in their units."""
        if self.whole:  # nothing is copied
            slices: t.Iterable[Tensor] = torch.split(self.features, self.size)
        else:
            slices = (self.features[rows] for rows in torch.split(self.rows, self.size))
        return slices if self.unit is None else (x * self.unit for x in slices)

    def standardised(self, features: Tensor) -> Tensor:
        features = features if self.unit is None else features * self.unit
        return features.sub(self.mean).mul_(self.factor)  # in float64 it takes six times as long

    def slices(self) -> t.Iterable[Tensor]:
        """The standardised rows, float32."""
        if self.kept is not None:
            return torch.split(self.kept, self.size)
        return (x.sub(self.mean).mul_(self.factor) for x in self.raw())

    def sample(self) -> Tensor:
        """The standardised rows that stand for all in the spectrum, float32."""
        n = len(self.rows)
        some = torch.linspace(0, n - 1, min(n, _SKETCHED), device=self.rows.device).long()
        if self.kept is not None:
            return self.kept[some]
        return self.standardised(self.features[self.rows[some]])

    @functools.cached_property
    def rounded(self) -> Tensor | None:
        """The standardised rows in bfloat16, where they are many and the device multiplies such."""
        n, d = len(self.rows), self.features.shape[1]
        if n * d not in _ROUNDED or not multiplies_bfloat16(self.features.device):
            return None
        rounded = self.features.new_empty(n, d, dtype=torch.bfloat16)
        for part, x in zip(torch.split(rounded, self.size), self.slices()):
            part.copy_(x)
        return rounded

    def logits(self, fit: Fit, features: Tensor) -> Tensor:
        parts = [self.standardised(x).double() @ fit.weights.T + fit.biases for x in torch.split(features, self.size)]
        return torch.cat(parts)  # float64 (n, classes present)

    def predictions(self, logits: Tensor) -> Tensor:
        return self.present[logits.argmax(dim=1)]  # the first of equals

    def of_all_classes(self, logits: Tensor, classes: int) -> Tensor:
        """Logits (n, classes present) as (n, classes), with -inf for what train lacks."""
        everything = logits.new_full((len(logits), classes), -torch.inf)
        everything[:, self.present] = logits
        return everything

    def judge(self, fit: Fit, held: FeatureSet) -> tuple[float, float]:
        """Accuracy on all rows; mean loss on rows of the classes known here (a class unknown here has no logit)."""
        logits = self.logits(fit, held.features)
        accuracy = (self.predictions(logits) == held.labels).double().mean()
        right = held.labels[:, None] == self.present  # (n, classes present), at most one in a row
        known = right.any(dim=1)
        losses = self.loss(logits[known], right[known].int().argmax(dim=1)).values
        return float(accuracy), float(losses.mean()) if len(losses) else 0.0

    def solve(self, strength: float, tolerance: float, max_passes: int, start: Fit | None) -> Fit:
        """Minimise over weights and biases, from `start` or from no weights and the best biases for none.

        With the best biases for its weights the objective is as strongly convex as its penalty, so it is at most
        |gradient|^2 / (2 strength) above its minimum: the gap. In exact arithmetic it is also the gap to the dual
        problem. While the way goes on, the biases are variables like the weights; they are settled before a gap counts.
        """
        classes, d = len(self.present), self.features.shape[1]
        weights = torch.zeros(classes, d).to(self.shares) if start is None else start.weights
        biases = self.loss.first_biases(self.shares) if start is None else start.biases
        rounded = self.rounded if tolerance >= _ROUNDED_TOLERANCE else None  # for as long as it shows the way
        at = self.evaluate(torch.cat([weights, biases[:, None]], dim=1), strength, rounded)
        steps: collections.deque[tuple[Tensor, Tensor]] = collections.deque(maxlen=10)
        passes, rounded_passes, stuck, certified = 1, 0, False, False
        lowest, lowest_at = at.gap, passes
        while passes < max_passes:
            if at.gap < lowest:
                lowest, lowest_at = at.gap, passes
            if rounded is not None and (
                stuck or passes > lowest_at + 10 or at.gap <= _ROUNDED_TOLERANCE or at.relative_gap <= tolerance
            ):
                if stuck:
                    steps.clear()
                rounded, rounded_passes, stuck = None, passes, False
                at = self.evaluate(at.variables, strength)
                passes += 1
            if stuck:
                break
            if rounded is None and at.relative_gap <= tolerance:
                variables, settled = self.with_best_biases(at.variables)
                at = self.evaluate(variables, strength)
                passes += 2
                certified = settled and at.relative_gap <= tolerance
                if certified:
                    break
            precondition = self.spectrum.preconditioner(at.curvature, strength, steps[-1] if steps else None, self.dot)
            direction = -_two_loops(at.gradient, steps, precondition, self.dot)
            downhill = float((direction * at.gradient).sum())
            if downhill >= 0:  # rounding has spoiled what the last steps tell of the curvature
                stuck = rounded is not None or not steps
                steps.clear()
                continue
            found = self._search(at, direction, downhill, strength, rounded, max_passes - passes)
            passes += found.passes
            stuck = found.worse or found.endless  # there are no more digits to go downhill by
            if found.worse:
                continue
            new = found.point
            move, change = new.variables - at.variables, new.gradient - at.gradient
            if bool((self.dot(move, change) > 0).all()):
                steps.append((move, change))
            at = new
        if rounded is not None:
            rounded_passes = passes
        if not certified:  # the gap of whatever was reached
            at = self.evaluate(self.with_best_biases(at.variables)[0], strength)
            passes += 2
        weights, biases = at.variables[:, :-1], at.variables[:, -1]
        return Fit(strength, weights, biases, at.loss, at.objective, at.gap, passes, rounded_passes, certified)

    def _search(
        self, at: "_Point", direction: Tensor, downhill: float, strength: float, rounded: Tensor | None, most: int
    ) -> "_Found":
        """The slope along a line grows on a convex function: close in on where it is near 0, in so many passes."""
        low, low_slope, high, high_slope, step = 0.0, downhill, 0.0, 0.0, 1.0
        rounding = 1e-6 if rounded is None else 1e-4
        for passes in range(1, 21):
            new = self.evaluate(at.variables + step * direction, strength, rounded)
            slope = float((direction * new.gradient).sum())
            worse = new.objective > at.objective * (1 + rounding)
            if (not worse and abs(slope) <= 0.9 * -downhill) or passes >= most:
                return _Found(new, passes, worse, endless=False)
            if slope < 0 and not worse:
                low, low_slope = step, slope
            else:
                high, high_slope = step, abs(slope)
            share = low_slope / (low_slope - high_slope)
            step = low + (high - low) * min(max(share, 0.1), 0.9) if high else 4 * step
        return _Found(new, passes, worse, endless=True)

    def dot(self, one: Tensor, other: Tensor) -> Tensor:
        """The product of two steps (classes, d + 1): (), or where classes do not meet in the loss (classes, 1)."""
        products = one * other
        return products.sum() if self.loss.couples_classes else products.sum(dim=1, keepdim=True)

    def evaluate(self, variables: Tensor, strength: float, rounded: Tensor | None = None) -> "_Point":
        """One read of the features: products in float32, sums in float64. `variables`: weights and biases, (c, d + 1).

        The gap is as good as the biases are. With `rounded` it is that of those features in place of the exact ones.
        Weights and slopes are sums of two bfloat16 numbers each then; their products with the features are rounded.
        """
        n, weights = len(self.rows), variables[:, :-1]
        columns, biases = _columns(weights), variables[:, -1].float()
        slices, size = self.slices(), self.size
        if rounded is not None:
            size = min(2**16, max(1024, 2**22 // columns.shape[1]))  # large slices are faster, if the logits are few
            columns, slices = _halves(columns), torch.split(rounded, size)
        gradient = torch.zeros_like(variables)
        loss = curvature = torch.zeros((), dtype=torch.float64, device=variables.device)
        for x, labels in zip(slices, torch.split(self.labels, size)):
            logits = x @ columns if rounded is None else _joined(x @ columns)
            losses = self.loss(logits[:, : len(weights)] + biases, labels)
            loss = loss + losses.values.sum(dtype=torch.float64)
            curvature = curvature + losses.curvature
            slopes = losses.slopes
            gradient[:, :-1] += slopes.T @ x if rounded is None else _joined((_halves(slopes).T @ x).T).T
            gradient[:, -1] += slopes.sum(dim=0)
        gradient /= n
        gradient[:, :-1] += strength * weights
        data_loss = float(loss) / n
        objective = data_loss + strength / 2 * float(weights.square().sum())
        gap = float(gradient[:, :-1].square().sum()) / (2 * strength)
        return _Point(variables, gradient, data_loss, objective, gap, float(curvature) / (n * len(variables)))

    def with_best_biases(self, variables: Tensor) -> tuple[Tensor, bool]:
        """The same weights with the best biases for them, and whether they were found."""
        columns = _columns(variables[:, :-1])
        plain = torch.cat([(x @ columns)[:, : len(variables)] for x in self.slices()])
        biases, settled = self.loss.best_biases(plain, self.labels, variables[:, -1])
        return torch.cat([variables[:, :-1], biases[:, None]], dim=1), settled


def _columns(weights: Tensor) -> Tensor:
    """Weights (classes, d) as columns in float32, and zeros up to a multiple of 16: ten take three times as long."""
    return functional.pad(weights.float(), (0, 0, 0, -len(weights) % 16)).T.contiguous()


def _halves(x: Tensor) -> Tensor:
    """Float32 (n, c) as the sum of two bfloat16 numbers, side by side: (n, 2 c)."""
    first = x.bfloat16()
    return torch.cat([first, (x - first).bfloat16()], dim=1)


def _joined(halves: Tensor) -> Tensor:
    first, second = halves.float().chunk(2, dim=1)
    return first + second


class _Point(t.NamedTuple):
    variables: Tensor  # float64 (classes, d + 1): weights, and in the last column biases
    gradient: Tensor  # of the objective, float64 (classes, d + 1)
    loss: float
    objective: float
    gap: float
    curvature: float  # of the loss by a logit: the mean of its second derivatives

    @property
    def relative_gap(self) -> float:
        return relative(self.gap, self.objective)


class _Found(t.NamedTuple):
    """Where a search along a line ended."""

    point: _Point
    passes: int
    worse: bool  # than where it began, by more than rounding
    endless: bool  # it was given up


class _Spectrum(t.NamedTuple):
    """The features' second moments: the largest eigenvalues with their directions, and the mean of the others."""

    values: Tensor  # float32 (r,)
    directions: Tensor  # float32 (d, r), orthonormal
    rest: float

    @classmethod
    def of(cls, x: Tensor, rows: int) -> "_Spectrum":
        """Of standardised rows, or of these of so many; exact for few features, else Nystrom's from a random sketch.

        Source: Frangella, Tropp, Udell 2023, arXiv:2110.02820, algorithm 2.1.
        """
        n, d = x.shape
        if n < d and n <= _EXACT:  # float32 fails to find the eigenvectors of so many eigenvalues that are 0
            values, left = torch.linalg.eigh((x @ x.T / n).double())
            values, left = values[values > 1e-6 * values[-1]], left[:, values > 1e-6 * values[-1]]
            return cls(values.float(), (x.T.double() @ left * (n * values).rsqrt()).float(), 0.0)
        if d <= _EXACT:
            moments = x.T @ x / n
            if n < rows:  # a pixel that is seldom inked may be blank in these, though it varies by 1 as every column
                moments.diagonal().clamp_(min=1)
            values, directions = _eigh(moments)
            return cls(values.clamp(min=0), directions, 0.0)
        trace = sum(float(part.square().sum(dtype=torch.float64)) for part in torch.split(x, 1024)) / n
        if not trace:  # nothing varies
            return cls(x.new_zeros(0), x.new_zeros(d, 0), 0.0)
        test = torch.randn(d, _RANK, generator=torch.Generator().manual_seed(0)).to(x)
        test = torch.linalg.qr(test).Q
        sketch = x.T @ (x @ test) / n
        shift = 1e-6 * float(torch.linalg.matrix_norm(sketch))
        sketch += shift * test
        factor = torch.linalg.cholesky((test.T @ sketch).double())
        left = torch.linalg.solve_triangular(factor, sketch.double().T, upper=False).float()  # (r, d)
        squares, turn = _eigh(left @ left.T)
        directions = (left.T @ turn) * squares.clamp(min=1e-20).rsqrt()
        values = (squares - shift).clamp(min=0)
        return cls(values, directions, max(0.0, trace - float(values.sum())) / (d - _RANK))

    def preconditioner(
        self, curvature: float, strength: float, newest: tuple[Tensor, Tensor] | None, dot: _Dot
    ) -> t.Callable[[Tensor], Tensor]:
        """The inverse of the Hessian if all logits were curved alike, as long as the newest step says it is."""
        curvature = max(curvature, 1e-12)
        d, known = self.directions.shape
        # Nothing is left over by all directions; to add its share and take it off again would cost float32's digits.
        rest = 0.0 if known == d else 1 / (curvature * self.rest + strength)
        own = 1 / (curvature * self.values.double() + strength) - rest

        def plain(gradient: Tensor) -> Tensor:
            weights = gradient[:, :-1]
            along = (weights.float() @ self.directions).double() * own
            moved = (along.float() @ self.directions.T).double() + rest * weights
            return torch.cat([moved, gradient[:, -1:] / curvature], dim=1)

        if newest is None:
            return plain
        move, change = newest
        scale = dot(move, change) / dot(change, plain(change))
        return lambda gradient: scale * plain(gradient)


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors; in float64 where float32 fails, as on what a collapsed encoder gives."""
    try:
        values, vectors = torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        values, vectors = torch.linalg.eigh(matrix.double())
    return values.to(matrix), vectors.to(matrix)


def _two_loops(
    gradient: Tensor,
    steps: t.Iterable[tuple[Tensor, Tensor]],
    precondition: t.Callable[[Tensor], Tensor],
    dot: _Dot,
) -> Tensor:
    """L-BFGS: the inverse of the curvature seen over the last steps (moves, changes of gradient), on the gradient."""
    direction = gradient
    backwards = []
    for move, change in reversed(list(steps)):
        weight = dot(move, direction) / dot(move, change)
        backwards.append(weight)
        direction = direction - weight * change
    direction = precondition(direction)
    for (move, change), weight in zip(steps, reversed(backwards)):
        direction = direction + (weight - dot(change, direction) / dot(move, change)) * move
    return direction
