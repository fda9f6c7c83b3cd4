"""Ranks over data sets: a table by hand, what is left out, and the diagram."""

import dataclasses
import io
import json
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from results.across_datasets import across_datasets, diagram, render
from results.leaderboard import Leaderboard
from results.record import Record
from results.rows import Row
from results.statistics import friedman


def row(encoder: str, dataset: str, mean: float, **changes: object) -> Row:
    empty = dict.fromkeys(field.name for field in dataclasses.fields(Row))
    about: dict[str, object] = {
        "encoder": encoder,
        "dataset": dataset,
        "tap": "code",
        "protocol": "knn@1",
        "metric": "top1",
        "mean": mean,
    }
    about |= {"values": (mean,), "alarms": (), "labels": 0, "records": (Record.model_construct(dataset=dataset),)}
    return Row(**{**empty, **about, **changes})  # type: ignore[arg-type]


DATASETS = ("a", "b", "c", "d", "e", "f")
SCORES = {  # ranks: best 1 1 1 1 1 2, middle 2 2 2 2 2 1, worst always 3
    "best": (0.9, 0.8, 0.9, 0.7, 0.9, 0.5),
    "middle": (0.8, 0.7, 0.8, 0.6, 0.8, 0.6),
    "worst": (0.1, 0.2, 0.3, 0.1, 0.2, 0.3),
}


def board(datasets: int = 6) -> Leaderboard:
    return Leaderboard(
        [
            row(name, dataset, score)
            for name, scores in SCORES.items()
            for dataset, score in zip(DATASETS[:datasets], scores)
        ]
    )


def test_mean_ranks_are_those_by_hand() -> None:
    (found,) = across_datasets(board())
    assert found.protocol == "knn@1" and found.datasets == DATASETS
    assert found.rows == ("best/code", "middle/code", "worst/code")
    assert found.result.ranks == pytest.approx((7 / 6, 11 / 6, 3))
    assert found.result.critical_difference == pytest.approx(
        2.343 * (3 * 4 / (6 * 6)) ** 0.5, abs=1e-3
    )  # Demsar's table 5
    assert found.result.groups == ((0, 1), (1, 2))  # 0.67 and 1.17 apart; 1.83 is more than 1.35
    said = render([found])
    assert "best/code         1.17" in said and said.count("yes") == 2 and said.count(" no\n") == 1
    assert "6 data sets (a, b, c, d, e, f)" in said


def test_rows_that_lack_a_data_set_saw_labels_or_are_no_fractions_stand_aside() -> None:
    rows = board().rows
    extra = [row("half", dataset, 0.5) for dataset in DATASETS[:3]]
    extra += [row("taught", dataset, 1.0, labels=100) for dataset in DATASETS]
    extra += [row("best", dataset, 1.0, protocol="geometry@1", metric="rankme") for dataset in DATASETS]
    found = [one for one in across_datasets(Leaderboard([*rows, *extra])) if one.protocol == "knn@1"]
    assert found == across_datasets(board())


def test_protocols_stand_in_the_order_of_the_columns() -> None:
    knn = [dataclasses.replace(one, column=2) for one in board().rows]
    linear = [dataclasses.replace(one, protocol="linear@2", column=1) for one in board().rows]
    assert [one.protocol for one in across_datasets(Leaderboard([*knn, *linear]))] == ["linear@2", "knn@1"]


def test_subsets_of_one_data_set_count_once() -> None:
    rows = [dataclasses.replace(one, train_images=1000) for one in board().rows]
    small = [dataclasses.replace(one, dataset=f"{one.dataset} (limit 100)", train_images=100, mean=0.5) for one in rows]
    assert across_datasets(Leaderboard([*rows, *small])) == across_datasets(board())


def test_a_data_set_that_few_rows_have_is_left_out() -> None:
    extra = [row(name, "g", 0.5) for name in ("best", "new")]
    assert across_datasets(Leaderboard([*board().rows, *extra])) == across_datasets(board())


def test_every_format_has_the_same_ranks() -> None:
    found = across_datasets(board())
    values = json.loads(render(found, "json"))
    assert [(row["row"], row["no_worse_than_the_best"]) for row in values] == [
        ("best/code", True), ("middle/code", True), ("worst/code", False)
    ]  # fmt: skip
    assert [row["mean_rank"] for row in values] == pytest.approx([7 / 6, 11 / 6, 3])
    table = pd.read_csv(io.StringIO(render(found, "csv")))
    assert list(table.mean_rank) == [row["mean_rank"] for row in values]
    assert list(map(json.loads, table.datasets)) == [list(DATASETS)] * 3
    for form, row in {
        "markdown": "| middle/code | 1.83 | yes |",
        "latex": r"middle/code & 1.83 & yes \\",
        "html": '<th scope="row" class=word>middle/code</th><td>1.83</td><td>yes</td>',
    }.items():
        said = render(found, form)
        assert row in said and "knn@1" in said and "critical" not in said and "1.35 or more apart" in said


def test_too_few_data_sets_are_said() -> None:
    assert across_datasets(board(4)) == []
    assert "need 5 of them" in render([])
    with pytest.raises(ValueError, match="needs 5 data sets"):
        friedman(np.zeros((4, 3)))


def test_the_diagram_shows_every_row_and_a_bar_a_group() -> None:
    (found,) = across_datasets(board())
    hostile = dataclasses.replace(found, rows=("<script>/code", *found.rows[1:]))
    drawn = ElementTree.fromstring(diagram(hostile))
    words = [element.text or "" for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert [word for word in words if "/code" in word] == [
        "<script>/code (1.17)",
        "middle/code (1.83)",
        "worst/code (3.00)",
    ]
    bars = [one for one in drawn.iter("{http://www.w3.org/2000/svg}path") if one.get("stroke-width") == "3"]
    assert len(bars) == len(found.result.groups)


def test_of_several_metrics_of_a_protocol_the_first_is_ranked() -> None:
    beside = [row(name, dataset, 1 - score, metric="nmi") for name, scores in SCORES.items()
              for dataset, score in zip(DATASETS, scores)]  # fmt: skip
    (found,) = across_datasets(Leaderboard([*board().rows, *beside]))
    assert found.rows == ("best/code", "middle/code", "worst/code")
