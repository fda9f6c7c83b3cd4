"""Leaderboards from records with numbers known by hand, in every format parsed back."""

import csv
import dataclasses
import html.parser
import io
import json
import random
import re
import time
import typing as t
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from results import layout, store
from results.leaderboard import Leaderboard, Unknown, leaderboard, of
from results.record import Alarm, Asked, Plan, Provenance, Record
from results.rows import COLUMNS, Row
from results.statistics import wilson
from results.tables import EMPTY, FORMATS, Format, to_csv

FOLDING = [40, 60, 80, 100]


def record(label: str = "bigan", score: float = 0.9, seed: int = 0, **changes: t.Any) -> Record:
    made = {"commit": "0123456789abcdef", "dirty": False, "versions": {}, "device": "Test CPU", "threads": 2}
    made |= {"precision": "float32", "started": "2025-01-01T00:00:00Z"} | changes.pop("made", {})
    done: dict[str, t.Any] = {
        "suite": "s",
        "key": "0" * 16,
        "dataset": "mnist5k",
        "split": "test",
        "limit": None,
        "fingerprint": "f" * 32,
        "train_images": 4000,
        "test_images": 1000,
        "encoder": label,
        "label": label,
        "params": {"epochs": 10},
        "encoder_version": 1,
        "is_control": label in ("pixels", "untrained", "pca"),
        "seed": seed,
        "status": "done",
        "tap": "code",
        "dimensions": 50,
        "protocol": "linear",
        "protocol_label": "linear",
        "protocol_params": {},
        "protocol_version": 1,
        "metrics": {"top1": score, "balanced": 0.123},
        "seconds": {"fit": 10.0, "extract": 0.1, "score": 0.2},
        "provenance": Provenance(**made),
    }
    return Record(**(done | changes))


def failed(label: str, error: str, seed: int = 0, **changes: t.Any) -> Record:
    nothing = {"tap": None, "protocol": None, "protocol_label": None, "protocol_version": None, "dimensions": None}
    return record(
        label, seed=seed, **nothing | {"status": "failed", "error": error, "metrics": {}, "seconds": {}} | changes
    )


def knn(label: str = "bigan", score: float = 0.9, seed: int = 0, **changes: t.Any) -> Record:
    return record(
        label, score, seed, **{"protocol": "knn", "protocol_label": "knn", "protocol_params": {"k": 1}} | changes
    )


# bigan: mean 0.96, standard deviation 0.01, so half-width 4.302653 * 0.01 / sqrt(3) = 0.0248413
BOARD = [
    *(record("bigan", score, seed) for seed, score in enumerate((0.95, 0.96, 0.97))),
    *(knn("bigan", score, seed) for seed, score in enumerate((0.91, 0.92, 0.93))),
    *(record("pixels", 0.9684, seed, tap="pixels", seconds={"fit": 0.0}) for seed in range(3)),
    knn("pixels", 0.9684, 0, tap="pixels", seconds={"fit": 0.0}),
    *(record("aae", 0.5, seed, seconds={"fit": 4.0 + seed}) for seed in range(2)),
    failed("aae", "non-finite loss\nof the discriminator", 2),
]
# Of 1,000 images 96.84 reaches down 1.28 points, 96 1.40, 92 1.85, 50 3.09 (Wilson); three seeds 2.484 either way;
# (2.484^4.5 + 1.40^4.5)^(1 / 4.5) is 2.52, with 1.85 it is 2.62; the other sides are 2.50 and 2.55.
WANTED = [  # encoder, tap, linear, rank, knn (k=1), rank, seeds, training s
    ["pixels", "pixels", "96.84 (95.56 to 97.76)", "1-2", "96.84 (95.56 to 97.76) (n=1)", "1", "3", "0.0"],
    ["bigan", "code", "96.00 ± 2.51", "1-2", "92.00 ± 2.58", "2", "3", "10.0"],
    ["aae", "code", "50.00 ± 3.09", "3", "-", "-", "2 of 3", "4.5"],
]
FAILURE = "failed: non-finite loss of the discriminator (1 of 3 seeds)"
HEADER = ["encoder", "tap", "linear", "rank", "knn (k=1)", "rank", "seeds", "training s"]
CAPTION = "mnist5k: 4,000 train and 1,000 test images, Test CPU, 2 threads, float32, commit 0123456789"
ORDERED = f"{CAPTION}, linear@1, knn@1, ordered by linear"


def tables_of(board: Leaderboard) -> list[str]:
    return list(dict.fromkeys(row.dataset for row in board.rows))


def protocols_of(board: Leaderboard) -> list[str | None]:
    return sorted({row.protocol for row in board.rows}, key=str)


def encoders_of(board: Leaderboard) -> list[str]:
    return sorted({row.encoder for row in board.rows})


# ---- rows -------------------------------------------------------------------------------------------------------


def test_a_row_has_the_numbers_known_by_hand() -> None:
    row = next(row for row in leaderboard(BOARD).rows if (row.encoder, row.protocol) == ("bigan", "linear@1"))
    assert (row.dataset, row.tap, row.metric, row.seeds, row.of_seeds) == ("mnist5k", "code", "top1", 3, 3)
    assert row.values == (0.95, 0.96, 0.97)
    low, high = wilson(0.96, 1000)  # of new images; the seeds' half-width is known by hand
    reach = [(0.0248413**4.5 + side**4.5) ** (1 / 4.5) for side in (0.96 - low, high - 0.96)]
    assert (row.mean, row.low, row.high) == pytest.approx((0.96, 0.96 - reach[0], 0.96 + reach[1]), abs=1e-6)
    assert row.interval_over == "seeds and images"
    assert (row.fit_seconds, row.is_control, row.status, row.error) == (10.0, False, "done", None)
    single = next(row for row in leaderboard(BOARD).rows if (row.encoder, row.protocol) == ("pixels", "knn@1"))
    assert (single.mean, single.low, single.high, single.seeds) == (0.9684, *wilson(0.9684, 1000), 1)
    assert single.interval_over == "images"
    assert single.is_control


def test_rows_are_ranked_by_the_first_protocol_then_the_second() -> None:
    board = leaderboard(
        [record("a", 0.5), knn("a", 0.9), record("b", 0.6), knn("b", 0.1), record("c", 0.5), knn("c", 0.95)]
    )
    assert [row.encoder for row in board.rows] == ["b", "b", "c", "c", "a", "a"]
    assert [(row.protocol, row.column) for row in board.rows] == [("linear@1", 1), ("knn@1", 2)] * 3


def clustered(label: str, score: float) -> Record:
    return record(label, score, protocol="cluster", protocol_label="cluster", metrics={"top1": score, "nmi": 1 - score})


def plan(*protocols: str, **encoders: dict[str, t.Any]) -> Plan:
    """Of the suite that records are of."""
    return Plan(
        suite=record().suite,
        encoders=tuple(Asked(name=label, label=label, params=params, version=1) for label, params in encoders.items()),
        protocols=tuple(Asked(name=name, label=name) for name in protocols),
    )


MIXED = [
    made for label, score in (("a", 0.9), ("b", 0.8), ("c", 0.7))
    for made in (clustered(label, 1 - score), record(label, score), knn(label, 0.6 if label == "b" else 0.7))
]  # fmt: skip


@pytest.mark.parametrize(
    ("protocols", "columns", "encoders"),
    [
        ((), ["linear top1", "knn (k=1) top1", "cluster top1", "cluster nmi"], "abc"),
        (("cluster", "linear", "knn"), ["cluster top1", "cluster nmi", "linear top1", "knn (k=1) top1"], "cba"),
        (("knn",), ["knn (k=1) top1", "linear top1", "cluster top1", "cluster nmi"], "acb"),  # a and c equal
    ],
)
def test_columns_stand_as_the_suite_has_them_and_the_first_orders_and_is_named(
    protocols: tuple[str, ...], columns: list[str], encoders: str
) -> None:
    board = leaderboard(MIXED, [plan(*protocols)])
    ((header, _, *lines),) = markdown_tables(board.render("markdown"))
    assert [name for name in header[2:-2] if name != "rank"] == columns
    assert [line[0] for line in lines] == list(encoders)
    for form in ("table", "markdown", "html"):
        assert f"ordered by {columns[0]}" in " ".join(board.render(form).split())


def test_the_column_that_orders_is_never_one_that_is_hidden() -> None:
    board = leaderboard(MIXED)
    assert "ordered by knn (k=1)" not in board.render("markdown")
    chosen = board.select(protocols=["knn", "cluster"])
    assert [row.encoder for row in chosen.rows if row.protocol == "knn@1"] == ["c", "a", "b"]
    assert "ordered by knn (k=1) top1**" in chosen.render("markdown")
    assert "ordered by cluster nmi**" in board.select(sort="nmi").render("markdown")
    assert "ordered by seconds of training**" in board.select(sort="training").render("markdown")
    assert {(row.encoder, row.protocol, row.metric): (row.tie, row.rank_low) for row in board.rows} == {
        (row.encoder, row.protocol, row.metric): (row.tie, row.rank_low) for row in board.select(sort="nmi").rows
    }


def failures(board: Leaderboard) -> list[str]:
    return [row.encoder for row in board.rows if row.status == "failed"]


def test_a_failure_of_the_recipe_that_the_suite_asks_for_is_not_hidden_by_another_of_its_label() -> None:
    old, new = {"epochs": 10}, {"epochs": 20}
    failure = failed("aae", "diverged", params=new)
    success = record(
        "aae", 0.5, params=old, made=record().provenance.model_dump() | {"started": "2030-01-01T00:00:00Z"}
    )
    assert failures(leaderboard([failure, success], [plan(aae=new)])) == ["aae (epochs=20)"]
    assert failures(leaderboard([failure, success], [plan(aae=old)])) == []
    assert failures(leaderboard([failure, success])) == []  # nobody knows which it is: the newest
    mended = success.model_copy(update={"params": new})
    assert failures(leaderboard([failure, mended], [plan(aae=new)])) == []
    assert failures(leaderboard([failure], [plan(aae=old)])) == []
    assert failures(leaderboard([failure], [plan(other=old)])) == ["aae"]


def test_the_order_of_the_records_changes_nothing() -> None:
    records = [*BOARD, record("bigan", 0.3, params={"epochs": 20}), record("bigan", 0.2, fingerprint="e" * 32)]
    records += [record("pca", 0.9, dataset="digits"), knn("pca", 0.9, protocol_params={"k": 5})]
    wanted = leaderboard(records)
    for turn in range(20):
        random.Random(turn).shuffle(records)
        assert leaderboard(records) == wanted


def test_a_label_that_looks_like_another_ones_settings_has_a_row_of_its_own() -> None:
    made = [record("pca", 0.9, params={"k": 1}), record("pca", 0.8, params={"k": 2}), record("pca (k=1)", 0.7)]
    board = leaderboard(made)
    assert [(row.encoder, row.mean) for row in board.rows] == [
        ("pca (k=1)", 0.9),
        ("pca (k=2)", 0.8),
        ("pca (k=1)", 0.7),
    ]
    assert [row.records for row in board.rows] == [(one,) for one in made]
    (table,) = markdown_tables(board.render("markdown"))
    assert len(table) == 2 + 3
    assert len(json.loads(board.render("json"))) == 3


def test_a_protocols_label_may_look_like_a_version_or_settings() -> None:
    board = leaderboard([record(protocol_label="a@b (c)"), record(score=0.8, protocol_label="a")])
    assert {row.protocol for row in board.rows} == {"a@b (c)@1", "a@1"}
    assert "| a | rank | a@b (c) | rank |" in board.render("markdown")
    assert [row.mean for row in board.select(protocols=["a"]).rows] == [0.8]


def test_which_of_equal_rows_was_made_first_changes_nothing() -> None:
    def board(labels: str) -> Leaderboard:
        made = {label: record().provenance.model_copy(update={"started": f"2026-01-0{day}T00:00:00+00:00"})
                for day, label in enumerate(labels, 1)}  # fmt: skip
        scores = [(0.90, 0.92), (0.80, 0.82)]
        return leaderboard(
            judge(label, score, seed, provenance=made[label])
            for judge, pair in zip((record, knn), scores)
            for label in labels
            for seed, score in enumerate(pair)
        )

    wanted = board("abc")
    assert [row.encoder for row in wanted.rows] == list("aabbcc")
    for labels in ("bca", "cba"):
        assert board(labels) == wanted


def test_a_failed_encoder_is_a_row_with_its_error_and_how_many_seeds() -> None:
    board = leaderboard([failed("aae", "no room", seed) for seed in range(2)] + [failed("aae", "other", 2), record()])
    rows = [row for row in board.rows if row.status == "failed"]
    assert [(row.encoder, row.error, row.seeds, row.of_seeds) for row in rows] == [
        ("aae", "no room", 2, 3),
        ("aae", "other", 1, 3),
    ]
    assert board.rows[0].encoder == "bigan"  # what failed comes last
    assert rows[0].mean is None
    assert rows[0].values == ()


def test_a_run_that_failed_before_its_data_was_read_stands_with_its_namesakes() -> None:
    board = leaderboard([record(), failed("aae", "no such dataset", fingerprint="", train_images=0, test_images=0)])
    assert tables_of(board) == ["mnist5k"]
    assert CAPTION in board.render("markdown")


def test_a_seed_that_two_runs_claim_counts_once_the_newest() -> None:
    older, newer = ({"started": f"2025-01-0{day}T00:00:00Z"} for day in (1, 2))
    (row,) = leaderboard([record(score=0.7, made=newer, key="a" * 16), record(score=0.2, made=older)]).rows
    assert row.values == (0.7,)


# ---- what never mixes -------------------------------------------------------------------------------------------


def test_subsets_validation_splits_and_other_data_have_tables_of_their_own() -> None:
    other = [
        record(limit=1000),
        record(split="validation"),
        record(limit=1000, split="validation"),
        record(dataset="digits"),
    ]
    board = leaderboard([record(), *other])
    assert tables_of(board) == [
        "digits",
        "mnist5k",
        "mnist5k (limit 1000)",
        "mnist5k (limit 1000) (validation)",
        "mnist5k (validation)",
    ]
    board = leaderboard([record(), record(fingerprint="e" * 32)])
    assert tables_of(board) == ["mnist5k (data=eeeeeeeeeeee)", "mnist5k (data=ffffffffffff)"]


def test_versions_and_settings_of_a_protocol_have_columns_of_their_own() -> None:
    assert protocols_of(leaderboard([record(), record(protocol_version=2)])) == ["linear@1", "linear@2"]
    board = leaderboard([knn(), knn(protocol_params={"k": 20, "metric": "cosine"})])
    assert protocols_of(board) == ["knn@1 (k=1)", "knn@1 (k=20, metric=cosine)"]
    board = leaderboard([knn(), record(protocol_label="knn", protocol_params={"k": 1})])
    assert protocols_of(board) == ["knn@1 (protocol=knn)", "knn@1 (protocol=linear)"]
    assert all(row.seeds == 1 for row in board.rows)


@pytest.mark.parametrize("order", [1, -1])
def test_what_suites_of_different_days_know_of_a_definition_is_joined(order: int) -> None:
    groups = [((5, 4, 2),), ((7, 5),)][::order]
    plans = [
        Plan(suite=f"s{place}", protocols=(Asked(name="linear", label="linear", equal_versions=some),))
        for place, some in enumerate(groups)
    ]
    old, new = record("aae", 0.9, protocol_version=2), record("bigan", 0.8, protocol_version=7)
    assert protocols_of(leaderboard([old, new], plans)) == ["linear@7"]


def test_versions_of_one_definition_share_a_column_and_the_legend_says_so() -> None:
    plans = [Plan(suite="s", protocols=(Asked(name="linear", label="linear", equal_versions=((5, 4, 2),)),))]
    old, new = record("aae", 0.9, protocol_version=2), record("bigan", 0.8, protocol_version=5)
    assert protocols_of(leaderboard([old, new])) == ["linear@2", "linear@5"]
    board = leaderboard([old, new], plans)
    assert protocols_of(board) == ["linear@5"]
    assert [(row.encoder, row.versions, row.column) for row in board.rows] == [("aae", (2,), 1), ("bigan", (5,), 1)]
    first, second = board.rows
    low, high = wilson(0.9, 1000)
    more = 1.959964**2 * 0.004 / 1000  # 4 of 1,000 predictions may be others, each an image more or less
    ends = (0.9 - ((0.9 - low) ** 2 + more) ** 0.5, 0.9 + ((high - 0.9) ** 2 + more) ** 0.5)
    assert (first.low, first.high) == pytest.approx(ends, abs=1e-9)
    assert (second.low, second.high) == pytest.approx(wilson(0.8, 1000))
    alone = leaderboard([record("aae", 0.9), record("bigan", 0.8)]).rows[1]
    assert (second.difference_high or 0) > (alone.difference_high or 0)
    remark = "linear@5 also holds scores of version 2: the same definition, solved in another way"
    assert remark in " ".join(board.render("table").split())
    assert json.loads(board.render("json"))[0]["versions"] == [2]
    for single in (leaderboard([old], plans), leaderboard([new], plans)):
        assert "also holds" not in single.render("table")
    assert protocols_of(leaderboard([old, record(protocol_version=6)], plans)) == ["linear@2", "linear@6"]


def test_seeds_of_versions_that_learn_the_same_are_one_row_in_their_precision() -> None:
    equal = Asked(name="bigan", label="bigan", params={"epochs": 10}, version=2, equal_versions={"float32": ((2, 1),)})
    plans = [Plan(suite="s", encoders=(equal,))]
    for precision, rows in (("float32", ["bigan"]), ("bfloat16", ["bigan (version=1)", "bigan (version=2)"])):
        made = {"precision": precision}
        records = [record(seed=seed, encoder_version=1 + seed, made=made) for seed in range(2)]
        assert encoders_of(leaderboard(records, plans)) == rows
        error = failed("bigan", "no luck", encoder="bigan", encoder_version=1, seed=2, made=made)
        assert ("no luck" in leaderboard([*records, error], plans).render("table")) == (precision == "float32")


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"params": {"epochs": 400}}, ["bigan (epochs=10)", "bigan (epochs=400)"]),
        ({"params": {"epochs": 10, "prior": "swiss"}}, ["bigan", "bigan (prior=swiss)"]),
        ({"encoder_version": 2}, ["bigan (version=1)", "bigan (version=2)"]),
        ({"encoder": "ali"}, ["bigan (method=ali)", "bigan (method=bigan)"]),
        ({"made": {"precision": "bfloat16"}}, ["bigan (precision=bfloat16)", "bigan (precision=float32)"]),
    ],
)
def test_namesakes_that_differ_are_rows_of_their_own_and_say_how(changes: dict[str, t.Any], shown: list[str]) -> None:
    board = leaderboard([record(score=0.9), record(score=0.5, seed=1, **changes)])
    assert encoders_of(board) == shown
    assert sorted(row.mean or 0 for row in board.rows) == [0.5, 0.9]


def test_other_devices_and_commits_are_seeds_of_the_same_row_and_the_caption_says_so() -> None:
    other = {"device": "Other", "threads": 4, "commit": "f" * 40, "dirty": True}
    board = leaderboard([record(), record(seed=1, made=other)])
    assert [row.seeds for row in board.rows] == [2]
    caption = "several devices, several thread counts, float32, several commits"
    assert caption in board.render("markdown")
    assert "Other, 4 threads, float32, commit ffffffffff with changes" in leaderboard([record(made=other)]).render(
        "html"
    )
    assert "commit" not in leaderboard([record(made={"commit": None})]).render("markdown")


# ---- formats, parsed back ---------------------------------------------------------------------------------------


def test_json_is_a_list_of_rows_with_fractions() -> None:
    board = leaderboard(BOARD)
    rows = json.loads(board.render("json"), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert rows == [row.plain() for row in board.rows]
    wanted = {"dataset", "encoder", "tap", "protocol", "metric", "mean", "low", "high", "seeds"}
    assert wanted | {"values", "method", "control", "fit_seconds", "limit", "split"} <= set(rows[0])
    assert all(list(row) == COLUMNS for row in rows)
    by_hand = next(row for row in rows if (row["encoder"], row["protocol"]) == ("bigan", "linear@1"))
    assert by_hand["mean"] == pytest.approx(0.96)
    assert by_hand["values"] == [0.95, 0.96, 0.97]
    assert by_hand["limit"] is None
    assert rows[-1]["error"] == "non-finite loss\nof the discriminator"
    assert rows[-1]["mean"] is None


def test_no_cell_of_a_csv_is_a_formula() -> None:
    begins = ["=HYPERLINK(1)", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\uff1d1"]
    rows = [{"label": text, "mean": -0.5, "values": [-1.0]} for text in begins] + [{"label": "a=b", "mean": None}]
    written = to_csv(rows, ["label", "mean", "values"])
    read = list(csv.DictReader(io.StringIO(written, newline="")))
    assert [row["label"] for row in read] == [*(f"'{text}".replace("\r", "\n") for text in begins), "a=b"]
    assert [row["mean"] for row in read] == ["-0.5"] * len(begins) + [""]
    assert read[0]["values"] == "[-1.0]"


def test_csv_has_the_same_rows() -> None:
    board = leaderboard([*BOARD, record("b,\"'\n", 0.1, limit=1000)])
    frame = pd.read_csv(io.StringIO(board.render("csv")), dtype={"limit": "Int64"})
    assert list(frame.columns) == COLUMNS
    assert len(frame) == len(board.rows)
    for found, row in zip(frame.to_dict("records"), board.rows):
        assert found["encoder"] == row.encoder
        assert found["control"] == row.is_control
        assert json.loads(found["values"]) == list(row.values)
        for name in ("mean", "low", "high", "fit_seconds", "limit", "tap", "error"):
            wanted = getattr(row, name)
            assert pd.isna(found[name]) if wanted is None else found[name] == wanted


def markdown_tables(text: str) -> list[list[list[str]]]:
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    split = re.compile(r"(?<!\\)\|")
    rows = [[[cell.strip() for cell in split.split(line)[1:-1]] for line in block] for block in blocks]
    return [[[re.sub(r"\\(.)", r"\1", cell) for cell in row] for row in table] for table in rows]


def marked(row: list[str], bold: str) -> list[str]:
    """A row with the scores of what may be the best in bold."""
    best = {"pixels": [2, 4], "bigan": [2], "aae": []}[row[0]]
    return [bold.replace("{}", cell) if place in best else cell for place, cell in enumerate(row)]


def test_markdown_has_the_table() -> None:
    text = leaderboard(BOARD).render("markdown")
    ((header, rule, *body),) = markdown_tables(text)
    assert header == HEADER
    assert rule == ["---", "---", *["---:"] * 6]
    pixels, *others = [marked(row, "**{}**") for row in WANTED]
    assert body == [["*pixels* (control)", *pixels[1:]], *others, ["aae", FAILURE, *[""] * 6]]
    assert f"**{ORDERED}**" in text
    assert text.endswith("\n")
    assert "top1 in percent" in text.splitlines()[-1]
    legend = text.splitlines()[-1]
    assert "new seeds and new test images; those of rows with 1 or 2 seeds cover new test images for these" in legend


def test_an_alarm_of_any_seed_marks_its_tap_in_every_format_and_no_other() -> None:
    dead = Alarm(name="dead_units", value=0.75, threshold=0.5, text="75% of the 8 units have the same value")
    board = leaderboard([record(), record(seed=1, alarms=[dead]), record("aae", 0.5)])
    assert [row.alarms for row in board.rows] == [(dead.text,), ()]
    for form in t.get_args(Format):
        text = board.render(form)
        if form in ("json", "csv"):
            assert text.count(dead.text) == 1
        else:
            assert text.count("code (!)") == 1
            assert "(!) marks what looks collapsed" in " ".join(text.split())
            assert "(!)" not in leaderboard(BOARD).render(form)


class Tables(html.parser.HTMLParser):
    """Every table as rows of (tag, scope, text); complains where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[tuple[str, str | None, str]]]] = []
        self.captions: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "meta":
            return
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "caption":
            self.captions.append("")
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append((tag, dict(attributes).get("scope"), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "caption" in self.open:
            self.captions[-1] += data
        if {"td", "th"} & set(self.open):
            tag, scope, text = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = tag, scope, text + data


def test_html_has_the_table_with_scopes_and_a_caption() -> None:
    text = leaderboard(BOARD).render("html")
    parsed = Tables(text)
    ((header, *body),) = parsed.tables
    assert header == [("th", "col", name) for name in HEADER]
    assert [[cell for _, _, cell in row] for row in body[:3]] == [["pixels (control)", *WANTED[0][1:]], *WANTED[1:]]
    assert all(row[0][:2] == ("th", "row") and {tag for tag, _, _ in row[1:]} == {"td"} for row in body)
    assert [cell for _, _, cell in body[3]] == ["aae", FAILURE]
    assert parsed.captions == [ORDERED]
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')


def test_latex_has_the_table_in_booktabs() -> None:
    text = leaderboard(BOARD).render("latex")
    rows = [line.removesuffix(r" \\").split(" & ") for line in text.splitlines() if line.endswith(r" \\")]
    pixels, *others = [[c.replace("±", r"$\pm$") for c in marked(row, r"\textbf{{}}")] for row in WANTED]
    failure = r"\multicolumn{7}{p{0.6\linewidth}}{\raggedright " + FAILURE + "}"
    assert rows == [HEADER, [r"\emph{pixels} (control)", *pixels[1:]], *others, ["aae", failure]]
    for wanted in (r"\begin{tabular}{llrrrrrr}", r"\toprule", r"\midrule", r"\bottomrule", rf"\caption{{{ORDERED}}}"):
        assert wanted in text
    assert r"in percent, mean over seeds $\pm$ half of its 95 \% interval" in text


def test_a_latex_table_fits_the_page_has_its_legend_in_the_float_and_a_label() -> None:
    samples = record("vae", metrics={"parzen": 80.0}, tap="samples", protocol="generative", protocol_label="g")
    text = leaderboard([*BOARD, samples]).render("latex")
    floats = re.findall(r"\\begin{table}\n(.*?)\\end{table}", text, re.DOTALL)
    assert [re.findall(r"\\label{(.*)}", one) for one in floats] == [
        ["tab:mnist5k"],
        ["tab:mnist5k-what-encoders-generate"],
    ]
    assert all(r"\begin{adjustbox}{max width=\linewidth" in one for one in floats)
    assert "Scores: top1 in percent" in floats[0] and "Parzen" not in floats[0]
    assert "Parzen: log-density" in floats[1]
    outside = re.sub(r"\\begin{table}.*?\\end{table}", "", text, flags=re.DOTALL)
    assert all(line.startswith("%") for line in outside.split("\n") if line)


def test_the_terminal_table_is_whole_and_plain_in_a_pipe() -> None:
    long = "an-encoder-with-a-very-long-name-" * 5
    error = "RuntimeError: " + "something long went wrong; " * 20
    text = leaderboard([*BOARD, record(long, 0.1), failed("gan", error)]).render("table")
    lines = [re.split(r" {2,}", line) for line in text.splitlines()]
    assert HEADER in lines
    assert ["pixels (control)", *WANTED[0][1:]] in lines
    assert WANTED[1] in lines
    assert [long, "code", "10.00 ± 1.86", "4", "-", "-", "1 of 3", "10.0"] in lines
    assert " ".join(error.split()) in " ".join(text.split())
    assert "\x1b" not in text
    assert "…" not in text


@pytest.mark.parametrize("width", FOLDING)
def test_the_terminal_table_folds_and_cuts_nothing(width: int) -> None:
    board = leaderboard(
        [*BOARD, *(record("an-encoder-with-a-long-name", 0.123, protocol_label=f"p{n}") for n in range(6))]
    )
    text = board.render("table", width=width)
    if width >= 80:
        assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for score in ("96.84 (95.56 to 97.76) (n=1)", "92.00 ± 2.58", "96.00 ± 2.51", "50.00 ± 3.09"):
        assert text.count(score) == leaderboard(BOARD).render("table").count(score)  # no number is folded either
    assert text.count("12.30 ±") == 6
    assert all(f"p{n}" in text.split("encoder", 1)[1] for n in range(6))


def test_colour_is_only_there_when_asked_for() -> None:
    coloured = leaderboard(BOARD).render("table", width=80, colour=True)
    assert "\x1b[" in coloured
    assert "\x1b" not in leaderboard(BOARD).render("table", width=80)
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in coloured.splitlines()]
    assert plain == leaderboard(BOARD).render("table", width=80).splitlines()


def test_two_datasets_are_two_tables() -> None:
    board = leaderboard([*BOARD, record(dataset="digits", train_images=1500, test_images=297)])
    assert len(markdown_tables(board.render("markdown"))) == 2
    assert len(Tables(board.render("html")).tables) == 2
    assert board.render("latex").count(r"\begin{tabular}") == 2
    for form in ("table", "markdown", "html"):
        assert "digits: 1,500 train and 297 test images" in board.render(form)


@pytest.mark.parametrize("form", FORMATS)
def test_headings_have_settings_captions_versions_and_files_both(form: t.Any) -> None:
    nearest = {"k": 5, "metric": "cosine", "weights": "uniform"}
    made = [record(), record(protocol_version=2), knn(protocol_params=nearest)]
    text = " ".join(leaderboard(made).render(form).split())
    if form in ("csv", "json"):
        assert "knn@1" in text and "knn (k=5" not in text
        return
    assert "linear@1, linear@2, knn@1, ordered by linear@1" in text  # two of a name say their versions in the heading
    again = leaderboard([record(protocol_version=2), knn(protocol_params=nearest)]).render(form, width=None)
    assert "knn (k=5, cosine)" in again and "linear@2, knn@1, ordered by linear" in " ".join(again.split())
    weighted = [knn(protocol_params=nearest), knn(protocol_params=nearest | {"weights": "distance"})]
    assert "knn@1 (weights=distance)" in " ".join(leaderboard(weighted).render(form).split())


@pytest.mark.parametrize("score", [0.0, 0.004, 0.5, 0.85, 0.968, 0.999, 1.0])
def test_plus_minus_is_half_of_an_interval_and_what_is_lopsided_has_both_ends(score: float) -> None:
    board = leaderboard([record(score=score)])
    (row,) = board.rows
    low, high = 100 * (row.low or 0.0), 100 * (row.high or 0.0)
    ((_, _, (_, _, cell, *_)),) = markdown_tables(board.render("markdown"))
    cell = cell.strip("*")
    half = re.fullmatch(r"[\d.]+ ± ([\d.]+)", cell)
    if half:
        assert float(half[1]) == pytest.approx((high - low) / 2, abs=0.006)
        assert abs((high + low) / 2 - 100 * score) < (high - low) / 20
    else:
        assert cell.endswith(f" ({low:.2f} to {high:.2f})")
    assert bool(half) == (score in (0.5, 0.85))


def test_several_metrics_are_named_in_the_header() -> None:
    ((header, *_),) = markdown_tables(leaderboard([record(), knn(metrics={"nmi": 0.5})]).render("markdown"))
    assert header[2:5] == ["linear top1", "rank", "knn (k=1) nmi"]  # one seed of what is no share of images has no rank


@pytest.mark.parametrize("form", ["table", "markdown", "html", "latex"])
def test_both_ends_of_an_interval_are_shown_where_half_of_it_would_go_beyond_what_can_be(form: Format) -> None:
    text = leaderboard([record(score=0.98), record(score=1.0, seed=1)], variance="own").render(form)
    # t(0.975, 1 degree) = 12.7062, times 0.01 less a tenth of the deviation of images, 0.83 points (Wilson) / 1.96
    assert "99.00 (86.83 to 100.00)" in text
    assert "or both ends where the mean is not in its middle" in " ".join(text.replace(r"$\pm$", "±").split())
    # Wilson's interval of 20 of 20: 1 / (1 + 1.96^2 / 20) is 83.89 %; of none it is the mirror image
    right, wrong = (leaderboard([record(score=score, test_images=20)]).render(form) for score in (1.0, 0.0))
    assert "100.00 (83.89 to 100.00)" in right
    assert "0.00 (0.00 to 16.11)" in wrong


EVIL = "<script>alert('x')</script> & 50% of_a|b \\ {c} $d$ #1 ~e ^f \"g\" *h* [i](j) `k`\x1b[31m\r\nl"


def test_labels_are_escaped_in_every_format() -> None:
    board = leaderboard([record(EVIL, 0.5, tap=EVIL, protocol_label=EVIL), failed("gan", EVIL)])
    shown = EVIL.replace("\x1b", " ").replace("\r\n", " ")
    ((header, _, first, second),) = markdown_tables(board.render("markdown"))
    assert (first[0], first[1], header[2]) == (shown, shown, shown)
    assert second[1] == f"failed: {shown} (1 of 1 seed)"
    ((header_cells, first_cells, second_cells),) = Tables(board.render("html")).tables
    assert [first_cells[0][2], first_cells[1][2], header_cells[2][2]] == [shown] * 3
    assert second_cells[1][2] == f"failed: {shown} (1 of 1 seed)"
    assert "<script" not in board.render("html")
    latex = board.render("latex")
    escaped = r"\& 50\% of\_a\textbar{}b \textbackslash{} \{c\} \$d\$ \#1 \textasciitilde{}e \textasciicircum{}f"
    assert latex.count(escaped) == 5
    assert r"\textless{}script\textgreater{}" in latex
    for form in ("table", "markdown", "latex", "html"):
        assert not {"\x1b", "\r"} & set(board.render(form))
    assert shown in board.render("table")
    assert json.loads(board.render("json"))[0]["encoder"] == EVIL
    frame = pd.read_csv(io.StringIO(board.render("csv"), newline=""))
    assert frame["encoder"][0] == EVIL


@pytest.mark.parametrize("form", FORMATS)
def test_an_empty_store_says_so_plainly(form: t.Any) -> None:
    text = leaderboard([]).render(form)
    assert text.endswith("\n")
    if form == "json":
        assert json.loads(text) == []
    elif form == "csv":
        assert text == ",".join(COLUMNS) + "\n"
    elif form == "html":
        assert "No results yet" in text
        assert Tables(text).tables == []
    else:
        assert EMPTY in text


@pytest.mark.parametrize("form", FORMATS)
def test_only_failures_still_make_a_table(form: t.Any) -> None:
    text = leaderboard([failed("gan", "no memory", train_images=0, test_images=0)]).render(form)
    assert "no memory" in text
    assert "gan" in text


def test_ten_thousand_records_take_less_than_three_seconds(slack: int) -> None:
    records = [
        record(
            f"encoder{one % 50}",
            (one % 97) / 100,
            one % 10,
            tap=f"tap{one // 500 % 5}",
            protocol_label=f"p{one // 2500}",
        )
        for one in range(10_000)
    ]
    started = time.process_time()  # whatever else the machine does
    board = leaderboard(records)
    text = board.render("markdown")
    assert time.process_time() - started < 3 * slack
    assert len(board.rows) == 50 * 5 * 4
    assert all(isinstance(row, Row) and row.seeds == 1 for row in board.rows)
    assert len(markdown_tables(text)[0]) == 50 * 5 + 2


@pytest.mark.parametrize(
    ("rows", "columns", "seeds", "most"),
    [
        (1000, 1, 2, 6),
        (40, 40, 1, 6),
        pytest.param(5000, 1, 2, 6, marks=pytest.mark.slow),
        pytest.param(100, 100, 1, 6, marks=pytest.mark.slow),
    ],
)
def test_thousands_of_records_are_ranked_and_printed_in_seconds_in_whatever_shape(
    rows: int, columns: int, seeds: int, most: float
) -> None:
    records = [
        record(f"encoder{row}", (row * 7919 + seed) % 4999 / 4999, seed, protocol_label=f"p{column}")
        for row in range(rows)
        for column in range(columns)
        for seed in range(seeds)
    ]
    started = time.process_time()
    board = leaderboard(records)
    text = board.render("table")
    assert time.process_time() - started < most
    assert len(board.rows) == rows * columns
    assert f"encoder{rows - 1}" in text


@pytest.mark.parametrize(
    ("rows", "with_answers", "most"),
    [
        (60, True, 5.0),
        pytest.param(200, True, 2.0, marks=pytest.mark.slow),
        pytest.param(2000, False, 6.0, marks=pytest.mark.slow),
    ],
)
def test_a_directory_of_thousands_of_records_is_ranked_in_seconds(
    tmp_path: Path, rows: int, with_answers: bool, most: float
) -> None:
    """Of five seeds each; 10,000 predictions beside every record where there are answers."""
    truth, kept = np.zeros(10_000, np.uint8), []
    for seed in range(5):
        predicted = np.random.default_rng(seed).random(10_000) < 0.05 + seed / 1000
        buffer = io.BytesIO()
        np.savez_compressed(buffer, predicted=predicted.astype(np.uint8), label=truth)
        kept.append((float(1 - predicted.mean()), buffer.getvalue()))
    for place in range(rows):
        for seed, (score, content) in enumerate(kept):
            label = f"encoder{place}"
            run = layout.run_directory(tmp_path, label, "mnist", seed, f"{seed:016x}")
            made = record(label, score, seed, key=f"{seed:016x}", dataset="mnist", test_images=10_000)
            if with_answers:
                path = run.predictions("code", "linear@1-aa")
                made = made.model_copy(update={"predictions": path.relative_to(run.path).as_posix()})
                path.parent.mkdir(parents=True)
                path.write_bytes(content)
            path = run.record("code", "linear@1-aa")
            path.parent.mkdir(parents=True)
            path.write_bytes(store._record_to_bytes(path, made))  # publishing syncs each, which takes a minute
    started = time.process_time()
    board = of(store.read_store(tmp_path))
    board.render("markdown")
    assert time.process_time() - started < most
    assert [row.seeds for row in board.rows] == [5] * rows
    assert {row.borrowed_from for row in board.rows} == {rows if with_answers else 0}


# ---- encoders that saw labels -----------------------------------------------------------------------------------


LABELLED = [
    record("pixels", 0.9, tap="pixels"),
    record("aae", 0.8),
    record("semi", 0.99, tap="label", labels=100),
    record("told", 0.7, labels="all"),
    failed("lost", "no luck", labels="all", train_images=0, test_images=0),
]


def test_encoders_that_saw_labels_come_behind_those_that_did_not_however_good() -> None:
    rows = leaderboard(LABELLED).rows
    assert [(row.encoder, row.labels) for row in rows] == [
        ("pixels", 0), ("aae", 0), ("semi", 100), ("told", 4000), ("lost", None),
    ]  # fmt: skip


@pytest.mark.parametrize("format", ["table", "markdown", "latex", "html"])
def test_encoders_that_saw_labels_have_a_table_of_their_own_with_their_number(format: t.Any) -> None:
    text = leaderboard(LABELLED).render(format)
    apart, told = text.split("encoders that saw labels", 1)
    assert "aae" in apart and "pixels" in apart
    assert not any(name in apart for name in ("semi", "told", "lost"))
    semi = next(line for line in told.splitlines() if "semi" in line)
    assert re.findall(r"[\w.,]+", re.sub(r"<.*?>|\\textbf|\$\\pm\$", " ", semi)) == [
        "semi",
        "label",
        "100",
        "99.00",
        "98.17",
        "to",
        "99.46",
        "1",
        "1",
        "10.0",
    ]
    assert "4,000" in next(line for line in told.splitlines() if "told" in line and "train and" not in line)
    assert re.search(r"failed: no luck \(1 of 1 seed; saw all labels\)", told)


def test_of_encoders_that_saw_labels_rows_stand_by_what_reads_no_more_and_the_legend_says_who_does() -> None:
    def judged(label: str, scores: dict[str, float], **changes: t.Any) -> list[Record]:
        return [record(label, score, protocol=name, protocol_label=name, **changes) for name, score in scores.items()]

    made = [*judged("a", {"knn": 0.99, "linear": 0.9, "argmax": 0.8}, labels=100),
            *judged("b", {"knn": 0.90, "linear": 0.8, "argmax": 0.9}, labels=100)]  # fmt: skip
    board = leaderboard(made, [plan("knn", "linear", "argmax")])
    ((header, _, *lines),) = markdown_tables(board.render("markdown"))
    assert [name for name in header[3:-2] if name != "rank"] == ["argmax", "knn", "linear"]
    assert [line[0] for line in lines] == ["b", "a"]
    for form in ("table", "markdown", "latex", "html"):
        said = " ".join(board.render(form).split())
        assert "knn and linear read the labels of all training images; rows stand by argmax, which does not." in said
    few = leaderboard(
        [*made, *judged("a", {"fewshot": 0.7}, labels=100, protocol_params={"labels": 10, "head": "svm"})]
    )
    assert [row.protocol for row in few.rows][:2] == ["fewshot@1", "argmax@1"]
    assert "read the labels of all" not in leaderboard(judged("a", {"argmax": 0.8}, labels=100)).render("markdown")
    assert "linear reads the labels of all" in leaderboard(judged("a", {"linear": 0.8}, labels=9)).render("markdown")


TOLD = [
    *(record("semi", 0.97, seed, test_images=10_000, labels=100, params={"width": 7, "epochs": 3}) for seed in (0, 1)),
    *(record("told", 0.96, seed, test_images=10_000, labels="all") for seed in (0, 1)),
]
OF_TOLD = [
    record("semi-untrained", 0.95, seed, test_images=10_000, encoder="untrained", is_control=True,
           params={"architecture": "semi", "parameters": {"width": 7, "epochs": 9}}) for seed in (0, 1)
]  # fmt: skip


def test_encoders_that_saw_labels_are_compared_with_their_own_control_in_its_own_section() -> None:
    seen = leaderboard(TOLD + OF_TOLD, answers=right)
    assert [(row.encoder, row.labels) for row in seen.rows] == [("semi-untrained", 0), ("semi", 100), ("told", 4000)]
    control, semi, told = seen.rows
    assert (control.rank_high, control.over_untrained) == (1, None)
    assert (semi.untrained, semi.over_untrained) == ("semi-untrained", pytest.approx(0.02))
    assert (told.untrained, told.over_untrained) == (None, None)
    won, images = 200, 10_002  # images won by both seeds and none lost (Bonett and Price 2012); one difference
    half = 1.959964 * (((won + 2) / images - (won / images) ** 2) / images) ** 0.5
    assert semi.over_untrained_low == pytest.approx(0.02 - half, rel=1e-3)
    assert semi.over_untrained_high == pytest.approx(0.02 + half, rel=1e-3)
    assert (semi.over_untrained_p or 1) < 1e-6
    legend = " ".join(seen.render("markdown").split())
    assert "That network saw no labels, and has its row among the encoders that saw none." in legend
    assert "That network saw no labels" not in leaderboard(CONTROLLED, answers=right).render("markdown")
    by_suite = leaderboard(TOLD + OF_TOLD, [Plan(suite="s", control_of={"told": "semi-untrained"})], right).rows
    assert by_suite[2].over_untrained == pytest.approx(0.01)


def test_a_control_elsewhere_moves_nothing_else_where_labels_were_seen() -> None:
    more = [record("pixels", 0.99, seed, test_images=10_000, protocol_label="another") for seed in range(3)]
    lost = failed("gan-untrained", "no luck", encoder="untrained", is_control=True, test_images=10_000)
    beside = {row.encoder: row for row in leaderboard([*TOLD, *OF_TOLD, *more, lost], answers=right).rows if row.labels}
    alone = {row.encoder: row for row in leaderboard(TOLD, answers=right).rows}
    assert list(beside) == list(alone)
    own = [one.name for one in dataclasses.fields(Row) if "untrained" in one.name]
    for name, row in beside.items():
        assert dataclasses.replace(row, **dict.fromkeys(own)) == alone[name]


@pytest.mark.parametrize("width", FOLDING)
def test_the_number_of_labels_stands_beside_every_part_of_a_folded_table(width: int) -> None:
    many = [record("semi", 0.99, labels=100, protocol_label=f"probe-number-{n}") for n in range(8)]
    text = leaderboard(many).render("table", width=width)
    assert max(map(len, text.splitlines())) <= max(width, 100)
    assert len(re.findall(r"code +100 ", text)) == sum("99.00 (" in line for line in text.splitlines())


def test_files_say_how_many_labels_an_encoder_saw() -> None:
    board = leaderboard(LABELLED)
    assert [row["labels"] for row in json.loads(board.render("json"))] == [0, 0, 100, 4000, None]
    assert pd.read_csv(io.StringIO(board.render("csv")))["labels"].tolist()[:4] == [0, 0, 100, 4000]


# ---- ranks and differences --------------------------------------------------------------------------------------


SEEDS = [  # of 10,000 images, three seeds: the first two cannot be told apart, the third can
    *(record("good", score, seed, test_images=10_000) for seed, score in enumerate((0.9700, 0.9702, 0.9698))),
    *(record("twin", score, seed, test_images=10_000) for seed, score in enumerate((0.9690, 0.9692, 0.9688))),
    *(record("pixels", score, seed, test_images=10_000) for seed, score in enumerate((0.8, 0.8, 0.8))),
]


def test_rows_have_rank_intervals_tie_groups_and_differences_to_the_best() -> None:
    rows = {row.encoder: row for row in leaderboard(SEEDS).rows}
    assert {name: (row.rank_low, row.rank_high, row.tie) for name, row in rows.items()} == {
        "good": (1, 2, 1), "twin": (1, 2, 1), "pixels": (3, 3, 2),
    }  # fmt: skip
    assert (rows["good"].difference, rows["good"].difference_low, rows["good"].difference_high) == (0, 0, 0)
    lacks = rows["pixels"]
    assert lacks.difference == pytest.approx(-0.17)
    assert (lacks.difference_low or 0) < -0.17 < (lacks.difference_high or 0) < 0
    assert (rows["twin"].difference_high or 0) > 0
    text = leaderboard(SEEDS).render("markdown", show="differences")
    assert "| **97.00 ±" in text
    assert "| **-0.10 (-0.69 to 0.49)**" in text
    assert f"| -17.00 ({100 * (lacks.difference_low or 0):.2f} to " in text


def test_where_less_is_better_the_least_is_first() -> None:
    made = [record(name, tap="samples", protocol="generative", seed=seed, metrics={"kl_to_uniform": score + seed / 1e5})
            for name, score in (("near", 0.1), ("far", 2.0)) for seed in range(5)]  # fmt: skip
    near, far = leaderboard(made).rows
    assert (near.encoder, near.rank_low, near.rank_high, near.interval_over) == ("near", 1, 1, "seeds")
    assert (far.rank_low, far.tie, far.difference) == (2, 2, pytest.approx(1.9))
    assert 1.8 < (far.difference_low or 0) < 1.9 < (far.difference_high or 0) < 2
    alone = leaderboard(made[:1]).rows[0]
    assert (alone.rank_low, alone.tie, alone.low, alone.interval_over) == (None, None, None, None)


# ---- answers and controls ---------------------------------------------------------------------------------------


def answered(**scores: t.Sequence[float]) -> tuple[list[Record], t.Callable[[Record], t.Any]]:
    """Records of 10,000 images, a score a seed, and their answers: whoever scores more is right about more of them."""
    made = [
        record(label, score, seed, test_images=10_000)
        for label, values in scores.items()
        for seed, score in enumerate(values)
    ]
    return made, lambda one: np.arange(10_000) < round(10_000 * one.metrics["top1"])


def test_answers_to_the_same_images_show_differences_that_scores_alone_do_not() -> None:
    made, read = answered(good=[0.970], less=[0.968])
    ranks = {row.encoder: (row.rank_low, row.rank_high) for row in leaderboard(made).rows}
    assert ranks == {"good": (1, 2), "less": (1, 2)}
    rows = {row.encoder: row for row in leaderboard(made, answers=read).rows}  # 20 images won, none lost
    assert {name: (row.rank_low, row.rank_high) for name, row in rows.items()} == {"good": (1, 1), "less": (2, 2)}
    assert (rows["good"].may_be_best, rows["less"].may_be_best) == (True, False)
    half = 1.959964 * ((22 / 10_002 - (20 / 10_002) ** 2) / 10_002) ** 0.5  # Bonett and Price 2012
    assert rows["less"].difference_high == pytest.approx(-0.002 + half, abs=1e-9)


def test_two_seeds_are_these_trained_models_and_three_a_sample() -> None:
    made, read = answered(two=[0.97, 0.93], three=[0.97, 0.95, 0.93])
    rows = {row.encoder: row for row in leaderboard(made, answers=read).rows}
    assert (rows["two"].interval_over, rows["three"].interval_over) == ("images", "seeds and images")
    assert (
        (rows["two"].high or 0) - (rows["two"].low or 0) < 0.02 < (rows["three"].high or 0) - (rows["three"].low or 0)
    )
    legend = leaderboard([one for one in made if one.label == "two"]).render("markdown").splitlines()[-1]
    assert "With 2 seeds, all intervals and ranks are about these trained models on new test images" in legend
    own = {row.encoder: row for row in leaderboard(made, answers=read, variance="own").rows}
    assert {row.interval_over for row in own.values()} == {"seeds and images"}
    assert own["two"].high == 1.0


def test_variances_are_borrowed_from_eight_rows_on_and_the_legend_says_from_how_many() -> None:
    random = np.random.default_rng(0)
    spread = {f"e{place}": (0.95 + random.normal(0, 0.002, 3)).tolist() for place in range(8)}
    noise = {one: random.random(10_000) for one in [*spread, "few"]}

    def board(names: t.Iterable[str]) -> Leaderboard:
        made, _ = answered(**{name: spread[name] for name in names})
        exact = [one.model_copy(update={"metrics": {"top1": float(read(one).mean())}}) for one in made]
        return leaderboard(exact, answers=read)

    def read(one: Record) -> t.Any:
        own = np.random.default_rng([one.seed, int(one.label[1:])]).random(10_000)
        return 0.7 * noise[one.label] + 0.3 * own < one.metrics["top1"] * 0.8

    rows = board(spread).rows
    assert {row.borrowed_from for row in rows} == {8}
    assert "moderated across the 8 rows of a column" in board(spread).render("markdown")
    assert {row.borrowed_from for row in board(list(spread)[:7]).rows} == {0}
    chosen = board(spread).select(encoders=["e1"]).rows
    assert [row for row in rows if row.encoder == "e1"] == chosen


CONTROLLED = [
    *(record("bigan", score, seed, test_images=10_000) for seed, score in enumerate((0.97, 0.97, 0.97))),
    *(
        record("untrained", score, seed, test_images=10_000,
               params={"architecture": "bigan", "parameters": {"epochs": 400}})
        for seed, score in enumerate((0.96, 0.96, 0.96))
    ),
    *(record("aae", 0.955, seed, test_images=10_000, params={"hidden": 7}) for seed in range(3)),
    *(record("aae-untrained", 0.94, seed, test_images=10_000, encoder="untrained", is_control=True,
             params={"architecture": "aae", "parameters": {"hidden": 8}}) for seed in range(3)),
]  # fmt: skip


def right(one: Record) -> t.Any:
    return np.arange(10_000) < round(10_000 * one.metrics["top1"])


def test_an_encoder_is_compared_with_its_own_network_before_training() -> None:
    suite = Plan(suite="s", control_of={"aae": "aae-untrained"})
    rows = {row.encoder: row for row in leaderboard(CONTROLLED, [suite], right).rows}
    bigan, aae = rows["bigan"], rows["aae"]
    assert (bigan.untrained, aae.untrained) == ("untrained", "aae-untrained")  # by its parameters; by its suite
    assert (rows["untrained"].untrained, rows["aae-untrained"].over_untrained) == (None, None)
    assert bigan.over_untrained == pytest.approx(0.01)
    assert aae.over_untrained == pytest.approx(0.015)
    assert 0 < (bigan.over_untrained_low or 0) < 0.01 < (bigan.over_untrained_high or 0)
    assert (bigan.over_untrained_p or 1) < 1e-6
    without = {row.encoder: row for row in leaderboard(CONTROLLED, answers=right).rows}
    assert (without["aae"].untrained, without["aae"].over_untrained) == (None, None)  # another number of units
    won, images = 100, 10_002  # images won and none lost; two differences: Holm's first step has level 0.025
    half = 2.241403 * (((won + 2) / images - (won / images) ** 2) / images) ** 0.5
    assert bigan.over_untrained_high == pytest.approx(0.01 + half, rel=1e-3)


@pytest.mark.parametrize("format", ["table", "markdown", "latex", "html"])
def test_the_difference_over_the_untrained_network_stands_beside_each_score(format: t.Any) -> None:
    text = leaderboard(CONTROLLED, answers=right).render(format)
    assert "over untrained" in text
    line = next(line for line in text.splitlines() if "+1.00" in line)
    assert re.search(r"97\.00 .*\+1\.00.*0\.20", line.replace("$\\pm$", "±"))
    assert "Over untrained: the score minus that of the same network before training" in " ".join(text.split())
    assert "over untrained" not in leaderboard(BOARD).render(format)


# ---- choosing ---------------------------------------------------------------------------------------------------


CHOICE = [*BOARD, record("bigan", 0.7, tap="penultimate"), record("pca", 0.9, dataset="digits", tap="components")]


def test_controls_stay_whatever_is_chosen() -> None:
    board = leaderboard(CHOICE)
    assert encoders_of(board.select(encoders=["aae"])) == ["aae", "pca", "pixels"]
    assert encoders_of(board.select(taps=["penultimate"])) == [
        "aae",
        "bigan",
        "pca",
        "pixels",
    ]  # aae failed before taps
    assert {row.tap for row in board.select(taps=["penultimate"]).rows} == {"components", "penultimate", "pixels", None}
    assert encoders_of(board.select(encoders=["aae"], datasets=["mnist5k"])) == ["aae", "pixels"]


def test_choosing_changes_no_number() -> None:
    board = leaderboard(CHOICE)
    chosen = board.select(encoders=["aae"], protocols=["linear"])
    assert set(protocols_of(chosen)) == {None, "linear@1"}
    assert all(row in board.rows for row in chosen.rows)
    assert board.select() == board


def test_lines_are_sorted_by_a_protocol_a_name_or_the_time() -> None:
    board = leaderboard(BOARD)
    for by, wanted in {
        "linear": ["pixels", "bigan", "aae"], "knn@1": ["pixels", "bigan", "aae"], "top1": ["pixels", "bigan", "aae"],
        "encoder": ["aae", "bigan", "pixels"], "training": ["pixels", "aae", "bigan"],
    }.items():  # fmt: skip
        rows = board.select(sort=by).rows
        assert list(dict.fromkeys(row.encoder for row in rows if row.status == "done")) == wanted
        assert rows[-1].status == "failed"
        assert sorted(map(repr, rows)) == sorted(map(repr, board.rows))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"encoders": ["bigann"]}, r"no encoder 'bigann' in these results \(did you mean 'bigan'\?\)"),
        ({"taps": ["conv"]}, "no tap 'conv' in these results"),
        ({"protocols": ["linear@2"]}, r"\(did you mean 'linear@1'\?\)"),
        ({"datasets": ["cifar10"]}, "there are digits, mnist5k"),
        ({"sort": "quality"}, "no column 'quality' in these results"),
    ],
)
def test_names_that_no_row_has_are_said_with_those_there_are(choice: dict[str, t.Any], message: str) -> None:
    with pytest.raises(Unknown, match=message):
        leaderboard(CHOICE).select(**choice)


def test_geometry_and_samples_have_sections_of_their_own_each_with_its_legend() -> None:
    geometry = {"effective_rank": 38.61, "uniformity": -1.166}
    made = [
        record("bigan", 0.9),
        record("bigan", metrics=geometry, protocol="geometry", protocol_label="geometry"),
        record("bigan", metrics={"parzen": 220.4}, protocol="generative", protocol_label="generative", tap="samples"),
    ]
    classes, samples, spaces = leaderboard(made).render("markdown").split("\n\n**")[:3]
    assert "90.00" in classes and "38.6" not in classes
    assert "what encoders generate" in samples and "220.4" in samples and "38.6" not in samples
    assert "how features fill their space" in spaces and "38.6" in spaces and "-1.166" in spaces
    said = leaderboard(made[:2]).render("markdown")
    assert "Of how features fill their space: effective rank: " in said
    assert "Of what encoders generate" not in said


def test_a_changed_plugin_file_is_another_row_and_another_column() -> None:
    """Its parameters and its version may well be the same."""
    old, new = record("mine", 0.1, seed=0, code="a" * 8), record("mine", 0.9, seed=1, code="b" * 8)
    assert [(row.encoder, row.mean, row.seeds) for row in leaderboard([old, new]).rows] == [
        ("mine (plugin=bbbbbbbb)", 0.9, 1),
        ("mine (plugin=aaaaaaaa)", 0.1, 1),
    ]
    old, new = record("pca", 0.1, protocol_code="a" * 8), record("pca", 0.9, protocol_code="b" * 8)
    assert sorted((row.protocol, row.mean) for row in leaderboard([old, new]).rows) == [
        ("linear@1 (plugin=aaaaaaaa)", 0.1),
        ("linear@1 (plugin=bbbbbbbb)", 0.9),
    ]


def test_what_has_no_best_value_has_no_rank() -> None:
    def geometry(label: str, value: float, seed: int) -> Record:
        return record(label, seed=seed, protocol="geometry", metrics={"effective_rank": value})

    rows = leaderboard(
        [geometry(label, value, seed) for label, value in (("a", 9.0), ("b", 2.0)) for seed in (0, 1)]
    ).rows
    assert len(rows) == 2
    assert {(row.rank_low, row.tie, row.difference) for row in rows} == {(None, None, None)}


def test_a_mean_over_images_tells_of_other_images_whatever_it_is_called() -> None:
    means = {"a": 0.4505, "b": 0.4504}
    made = [record(label, seed=seed, metrics={"map": mean}) for label, mean in means.items() for seed in (0, 1)]
    told = [(row.interval_over, row.rank_low, row.rank_high) for row in leaderboard(made, variance="own").rows]
    assert told == [("seeds and images", 1, 2)] * 2


def test_no_difference_is_larger_than_all_there_is() -> None:
    rows = leaderboard([record("a", 0.9, 0), record("a", 0.2, 1), record("b", 0.5, 0), record("b", 0.1, 1)]).rows
    assert all(-1 <= end <= 1 for row in rows for end in (row.difference_low, row.difference_high) if end is not None)


def test_what_stands_beside_a_protocols_first_metric_is_shown_and_not_ranked() -> None:
    def clustered(label: str, top1: float, ari: float, seed: int) -> Record:
        metrics = {"top1": top1, "nmi": 0.5, "ari": ari}
        return record(label, seed=seed, protocol="cluster", protocol_label="cluster", metrics=metrics)

    made = [clustered("a", 0.4, -0.02, 0), clustered("a", 0.5, -0.04, 1), clustered("b", 0.3, 0.9, 0)]
    board = leaderboard(made)
    shown = {(row.encoder, row.metric): (row.mean, row.rank_low is not None) for row in board.rows}
    assert shown["a", "ari"] == (pytest.approx(-0.03), False)
    assert shown["a", "nmi"] == (0.5, False) and shown["a", "top1"] == (0.45, True)
    header = next(line for line in board.render("markdown").splitlines() if line.startswith("| encoder"))
    assert header == "| encoder | tap | cluster top1 | rank | cluster ari | cluster nmi | seeds | training s |"
    assert board.rows[0].encoder == "a"  # by top1, not by what comes first in the alphabet
