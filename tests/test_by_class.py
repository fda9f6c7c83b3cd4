"""Balanced accuracy, macro F1 and recalls: scikit-learn's numbers, honest intervals, and columns on request."""

import io
import json
import typing as t
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, recall_score
from typer.testing import CliRunner

from bench.__main__ import app
from results import by_class, files, layout, leaderboard, store
from results.metrics import interval, written
from results.predictions import Predictions
from results.record import Provenance, Record
from results.report import page
from results.statistics import Scores, contrasts

LABELS = np.repeat([0, 1, 2], [60, 30, 10])


def told(label: t.Any, *predicted: t.Any) -> Predictions:
    return Predictions(np.array(predicted), np.array(label))


def guesses(seed: int, recalls: t.Sequence[float] = (0.9, 0.7, 0.4), label: t.Any = LABELS) -> t.Any:
    """Each class is told with its recall, else the next one."""
    random = np.random.default_rng(seed)
    return np.where(random.random(len(label)) < np.array(recalls)[label], label, (label + 1) % len(recalls))


# ---- numbers ----------------------------------------------------------------------------------------------------


def test_scores_are_those_of_scikit_learn() -> None:
    predicted = guesses(0)
    found = by_class.scores(told(LABELS, predicted))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(LABELS, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(LABELS, predicted, average="macro"))
    assert [found[f"recall_{one}"] for one in range(3)] == pytest.approx(
        list(recall_score(LABELS, predicted, average=None))
    )


def test_a_class_that_test_lacks_has_no_recall_and_an_f1_of_0_if_it_is_predicted() -> None:
    label, predicted = np.array([0, 0, 2, 2, 2]), np.array([0, 1, 2, 2, 0])
    found = by_class.scores(told(label, predicted))
    assert set(found) == {"balanced_accuracy", "macro_f1", "recall_0", "recall_2"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of such a class
        assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(label, predicted))
        assert found["macro_f1"] == pytest.approx(f1_score(label, predicted, average="macro"))
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert found["macro_f1"] == pytest.approx((2 / 4 + 0 + 4 / 5) / 3)


def test_a_class_that_is_neither_there_nor_predicted_counts_for_nothing() -> None:
    label, predicted = np.array([0, 0, 5, 5]), np.array([0, 5, 5, 5])
    found = by_class.scores(told(label, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(label, predicted, average="macro"))


def test_of_several_draws_scores_are_the_mean() -> None:
    draws = [guesses(seed) for seed in range(3)]
    alone = [by_class.scores(told(LABELS, one)) for one in draws]
    for name, value in by_class.scores(told(LABELS, *draws)).items():
        assert value == pytest.approx(np.mean([one[name] for one in alone]))


# ---- intervals --------------------------------------------------------------------------------------------------


def column(metric: str, *rows: t.Any) -> Scores:
    """Rows of one seed each."""
    made = [told(LABELS, one) for one in rows]
    means = np.array([by_class.scores(one)[metric] for one in made])
    count = len(rows)
    answers = by_class.answers(metric, [[one] for one in made])
    return Scores(means, np.zeros(count), np.ones(count, np.int64), len(LABELS), answers)


def test_a_recall_has_the_interval_of_a_share_of_the_images_of_its_class() -> None:
    predicted = np.where(np.arange(100) < 55, 0, 2)  # 55 of class 0 are right, all of 2, none of 1
    below, above = column("recall_0", predicted).reach(0.95)
    # 55 of 60, Wilson: 81.9 to 96.4 by hand; the images are taken for slightly fewer, as an image more of either
    # extreme is counted
    assert 55 / 60 - below[0] == pytest.approx(0.819, abs=0.015)
    assert 55 / 60 + above[0] == pytest.approx(0.964, abs=0.015)


def test_images_of_a_small_class_count_for_more() -> None:
    right = LABELS.copy()
    of_many, of_few = right.copy(), right.copy()
    of_many[:5] = 1  # five of 60 are wrong
    of_few[-5:] = 1  # five of 10
    many, few = (column("balanced_accuracy", one).reach(0.95)[0][0] for one in (of_many, of_few))
    assert few > 1.7 * many


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
@pytest.mark.parametrize(
    ("recalls", "images"),
    [((0.95, 0.8, 0.6), (900, 90, 30)), ((0.99, 0.97, 0.95), (900, 90, 30)), ((0.9, 0.9, 0.9), (1000, 50, 50))],
)
def test_intervals_cover_the_truth(metric: str, recalls: t.Any, images: t.Any) -> None:
    label = np.repeat(np.arange(3), images)
    truth = by_class.scores(told(*_expected(np.array(recalls), np.array(images))))[metric]
    covered, apart, rounds = 0, 0, 300
    for one in range(rounds):
        rows = [told(label, guesses(1000 * one + row, recalls, label)) for row in range(2)]
        means = np.array([by_class.scores(row)[metric] for row in rows])
        answers = by_class.answers(metric, [[row] for row in rows])
        scores = Scores(means, np.zeros(2), np.ones(2, np.int64), len(label), answers)
        below, above = scores.reach(0.95)
        covered += int(np.sum((means - below <= truth) & (truth <= means + above)))
        found = contrasts(scores, np.array([0]), np.array([1]))
        apart += int(abs(found.difference[0]) > found.half[0])
    assert 0.93 <= covered / (2 * rounds) <= 0.995
    assert apart / rounds <= 0.08  # of two that are equally good


def _expected(recalls: t.Any, images: t.Any) -> tuple[t.Any, t.Any]:
    """Labels and predictions in which every class has exactly its recall."""
    label = np.repeat(np.arange(3), 1000 * images)
    place = np.concatenate([np.arange(1000 * one) / (1000 * one) for one in images])
    return label, np.where(place < recalls[label], label, (label + 1) % 3)


def test_of_seeds_that_answer_alike_answers_have_no_noise() -> None:
    same = told(LABELS, guesses(0))
    answers = by_class.answers("macro_f1", [[same, same, same], [same, told(LABELS, guesses(1)), same]])
    assert answers is not None
    assert answers.noise[0] == 0 < answers.noise[1]


# ---- columns on request -----------------------------------------------------------------------------------------


def publish(suite: Path, label: str, seed: int, predicted: t.Any, protocol: str = "linear", **metrics: float) -> Record:
    made = Provenance(
        commit=None, dirty=None, versions={}, device="cpu", threads=1, precision="float32", started="2025-01-01"
    )
    record = Record(
        suite="small", key=f"{sum(map(ord, label)):08x}{seed:08x}", dataset="mnist5k", split="test", limit=None,
        fingerprint="f" * 16, train_images=400, test_images=len(LABELS), encoder=label, label=label, params={},
        encoder_version=1, is_control=False, seed=seed, status="done", tap="code", dimensions=5, protocol=protocol,
        protocol_label=protocol, protocol_version=1, predictions=f"predictions/code/{protocol}.npz",
        metrics={"top1": float((predicted == LABELS).mean()), **metrics}, seconds={"fit": 1.0}, provenance=made,
    )  # fmt: skip
    run = layout.run_directory(suite, label, "data", seed, record.key)
    buffer = io.BytesIO()
    np.savez(buffer, predicted=predicted.astype(np.uint8), label=LABELS.astype(np.uint8))
    files.replace(run.predictions("code", protocol), buffer.getvalue())
    store.publish_record(run.record("code", protocol), record)
    return record


MANY, FEW = (1.0, 0.6, 0.1), (0.8, 0.8, 0.8)  # the first is right more often, the second on more classes


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    for seed in range(3):
        publish(tmp_path / "small", "many", seed, guesses(seed, MANY), log_loss=2.5 + seed, ece=0.1)
        publish(tmp_path / "small", "few", seed, guesses(10 + seed, FEW), log_loss=0.5, ece=0.25)
        publish(tmp_path / "small", "many", seed, guesses(20 + seed, MANY), "knn")
    return tmp_path / "small"


def test_a_metric_asked_for_stands_in_place_of_the_protocols_own_and_orders_the_rows(suite: Path) -> None:
    contents = store.read_store(suite)
    assert contents.damaged == []  # a log loss of 4.5 is no fraction
    rows = leaderboard.of(contents, metrics=["balanced_accuracy"]).rows
    assert [(row.encoder, row.protocol, row.metric) for row in rows] == [
        ("few", "linear@1", "balanced_accuracy"),
        ("many", "linear@1", "balanced_accuracy"),
        ("many", "knn@1", "balanced_accuracy"),
    ]
    wanted = tuple(balanced_accuracy_score(LABELS, guesses(10 + seed, FEW)) for seed in range(3))
    assert rows[0].values == pytest.approx(wanted)
    assert rows[0].interval_over == "seeds and images"
    assert (rows[0].low or 0) < np.mean(wanted) < (rows[0].high or 0)
    assert [row.metric for row in leaderboard.of(contents).rows] == ["top1"] * 3


def test_without_a_request_rows_have_the_means_of_what_could_be_asked_for(suite: Path) -> None:
    rows = json.loads(leaderboard.of(store.read_store(suite)).render("json"))
    linear, knn = (
        next(r for r in rows if (r["encoder"], r["protocol"]) == ("many", one)) for one in ("linear@1", "knn@1")
    )
    assert linear["further"]["log_loss"] == pytest.approx(3.5)
    assert set(linear["further"]) == {"log_loss", "ece", "balanced_accuracy", "macro_f1"}
    assert set(knn["further"]) == {"balanced_accuracy", "macro_f1"}  # an old record has what its predictions give
    assert linear["recalls"] == pytest.approx(
        np.mean([recall_score(LABELS, guesses(seed, MANY), average=None) for seed in range(3)], axis=0).tolist()
    )


def test_log_loss_and_calibration_are_better_lower(suite: Path) -> None:
    contents = store.read_store(suite)
    for metric, best in (("log_loss", "few"), ("ece", "many")):
        rows = leaderboard.of(contents, metrics=[metric]).rows
        assert rows[0].encoder == best
        assert rows[0].may_be_best
        assert {row.interval_over for row in rows} == {"seeds"}
    low = leaderboard.of(contents, metrics=["log_loss"]).rows[1].low
    assert low is not None and low >= 0
    assert written(0.123, "ece") == "0.1230"
    assert interval(0.01, 0.0, 0.05, "log_loss") == "(0.0000 to 0.0500)"  # no log loss is below 0


def test_recall_stands_for_that_of_every_class_in_their_order(suite: Path) -> None:
    rows = leaderboard.of(store.read_store(suite), metrics=["recall"]).rows
    assert [row.metric for row in rows if row.encoder == "few"] == ["recall_0", "recall_1", "recall_2"]
    assert {row.rank_low for row in rows} == {None}  # ten columns without ranks are still read
    assert None not in {row.low for row in rows}


@pytest.mark.parametrize("form", ["table", "markdown", "html", "latex"])
def test_a_legend_explains_ranks_only_where_there_are_some(suite: Path, form: t.Any) -> None:
    contents = store.read_store(suite)
    recall, balanced = (
        " ".join(leaderboard.of(contents, metrics=[one]).render(form).split())
        for one in ("recall", "balanced_accuracy")
    )
    assert "Rank:" in balanced and "Bold:" in balanced
    assert "rank" not in recall.lower() and "Bold" not in recall


def test_each_rows_own_variance_is_borrowed_from_nobody(tmp_path: Path) -> None:
    for row in range(9):
        for seed in range(3):
            publish(tmp_path / "small", f"e{row}", seed, guesses(10 * row + seed, MANY if row and seed else FEW))
    contents = store.read_store(tmp_path / "small")
    borrowed, own = (
        {row.encoder: row for row in leaderboard.of(contents, variance, ["balanced_accuracy"]).rows}
        for variance in ("borrowed", "own")
    )
    assert {row.borrowed_from for row in borrowed.values()} == {9}
    assert {row.borrowed_from for row in own.values()} == {0}
    assert any((own[name].low, own[name].high) != (row.low, row.high) for name, row in borrowed.items())
    assert "moderated" not in leaderboard.of(contents, "own", ["balanced_accuracy"]).render("markdown")


@pytest.mark.parametrize("form", ["table", "markdown", "html", "latex"])
def test_fractions_and_others_stand_side_by_side(suite: Path, form: t.Any) -> None:
    text = leaderboard.of(store.read_store(suite), metrics=["log_loss", "macro_f1"]).render(form)
    header = text.replace(r"\_", "_")
    assert header.index("linear log_loss") < header.index("linear macro_f1") < header.index("knn macro_f1")
    assert "mean of the F1 of all classes" in " ".join(text.split()).replace("\n", " ")
    assert "3.5000" in text


def test_the_command_line_shows_them_and_names_those_there_are(suite: Path) -> None:
    arguments = ["leaderboard", str(suite), "--metric", "balanced_accuracy", "--metric", "ece", "--format", "csv"]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "balanced_accuracy" in shown.stdout
    assert ",ece," in shown.stdout
    with pytest.raises(leaderboard.Unknown, match=r"no metric 'balanced' .*did you mean 'balanced_accuracy'"):
        leaderboard.of(store.read_store(suite), metrics=["balanced"])


def test_predictions_that_are_damaged_leave_their_metrics_out(suite: Path) -> None:
    for path in suite.glob("*/*/*/predictions/code/linear.npz"):
        path.write_bytes(b"nothing")
    rows = leaderboard.of(store.read_store(suite)).rows
    assert [row.recalls == () for row in rows] == [row.protocol == "linear@1" for row in rows]


def test_the_report_has_a_table_of_them_and_recalls_beside_the_mistakes(suite: Path) -> None:
    text = " ".join(page(suite).split())
    assert '<th scope="col" class="number">balanced accuracy</th><th scope="col" class="number">macro f1</th>' in text
    assert "15 bins of equal width" in text
    recalls = np.mean([recall_score(LABELS, guesses(10 + seed, FEW), average=None) for seed in range(3)], axis=0)
    for recall, images in zip(recalls, (60, 30, 10)):
        assert f'<td class="recall">{100 * recall:.2f}</td><td class="recall">{images}</td>' in text
