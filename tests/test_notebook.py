"""What `import bench` gives: suites, records, tables, frozen encoders and scores without a command line."""

import dataclasses
import html
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.api.types import is_numeric_dtype
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

import bench
from bench.datasets.formats import DataError
from bench.errors import ConfigError
from encoders.base import EncoderError
from results.files import StoreError
from results.leaderboard import Leaderboard, Unknown
from results.tables import EMPTY

SUITE = {
    "suite": "small",
    "datasets": [{"name": "digits", "limit": 200}],
    "seeds": [0],
    "encoders": ["pixels", {"name": "autoencoder", "hidden": 8, "latent": 4, "epochs": 1}],
    "protocols": [{"name": "knn", "k": 1}],
    "wandb": {"mode": "off"},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> t.Any:
    return bench.run_suite(SUITE, output=tmp_path_factory.mktemp("runs"), threads=1)


def test_importing_bench_loads_neither_torch_nor_pandas() -> None:
    code = "import sys, bench; print([one for one in ('torch', 'pandas', 'numpy') if one in sys.modules], dir(bench))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("[] ")
    assert all(repr(name) in out for name in bench.__all__)


def test_what_bench_has_not_is_said_with_what_it_has() -> None:
    with pytest.raises(AttributeError, match="no attribute 'run_suit'; it has leaderboard, load, read_records"):
        bench.run_suit  # type: ignore[attr-defined]  # noqa: B018


def test_a_suite_is_run_from_a_dict_a_text_or_a_file(done: t.Any, tmp_path: Path) -> None:
    assert (done.failed, done.planned) == (0, 3)
    assert "3 of 3 runs completed" in done.summary
    text = """suite: small\ndatasets: [{name: digits, limit: 200}]\nseeds: [7]\nencoders: [pixels]
protocols: [{name: knn, k: 1}]\nwandb: {mode: off}\n"""
    again = {"output": done.directory.parent, "threads": 1}
    nothing = bench.run_suite(text, seeds=[0], **again)
    assert "all 1 runs are done" in nothing.summary
    path = tmp_path / "suite.yaml"
    path.write_text(text)
    assert "all 1 runs are done" in bench.run_suite(path, seeds="0", **again).summary
    assert bench.run_suite(path, seeds=range(2), limit=150, overrides=["suite=other"], **again).planned == 2


@pytest.mark.parametrize(
    ("suite", "changes", "message"),
    [
        (3, {}, "wanted a path, the name of a suite, its text or a dict; got int"),
        ({"suite": {1, 2}}, {}, "wanted plain data, as in a YAML file; Object of type set"),
        ("quickstrt", {}, "did you mean 'quickstart'"),
        (SUITE | {"encoders": ["bigam"]}, {}, "no encoder 'bigam' (did you mean 'bigan'?)"),
        (SUITE, {"overrides": "bigan.epochs=5"}, 'such as overrides=["bigan.epochs=5"]'),
        (SUITE, {"seeds": ["a"]}, "wanted seeds such as 0-2 or 0,3,5, got 'a'"),
    ],
)
def test_what_is_wrong_with_a_suite_is_said(suite: t.Any, changes: t.Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        bench.run_suite(suite, output=tmp_path, **changes)
    assert not list(tmp_path.iterdir())


def test_records_are_read(done: t.Any, tmp_path: Path) -> None:
    records = bench.read_records(done.directory)
    assert {one.label for one in records} >= {"pixels", "autoencoder", "autoencoder-untrained"}
    with pytest.raises(StoreError, match="there is no such directory"):
        bench.read_records(tmp_path / "none")


def test_a_table_has_a_tidy_row_a_cell(done: t.Any) -> None:
    board = bench.leaderboard(done.directory, encoders=["autoencoder"], datasets=["digits"])
    found = board.to_pandas()
    assert len(found) == len(board.rows)
    assert found.columns.nlevels == found.index.nlevels == 1
    for name in ("limit", "value", "low", "high", "rank_low", "rank_high", "over_untrained", "seeds", "labels"):
        assert is_numeric_dtype(found[name]), name
    row = next(row for row in board.rows if row.over_untrained is not None)
    same = found[(found.encoder == row.encoder) & (found.tap == row.tap) & (found.metric == row.metric)].iloc[0]
    assert (same.value, same.over_untrained, same.rank_high) == (row.mean, row.over_untrained, row.rank_high)
    assert found[found.is_control].over_untrained.isna().all()
    with pytest.raises(Unknown, match="autoencodr"):
        bench.leaderboard(done.directory, encoders=["autoencodr"])
    empty = Leaderboard([]).to_pandas()
    assert (len(empty), list(empty.columns)) == (0, list(found.columns))
    pd.testing.assert_series_equal(empty.dtypes, found.dtypes)


def test_a_notebook_shows_the_tables_with_every_cell_escaped(done: t.Any) -> None:
    board = bench.leaderboard(done.directory)
    shown = board._repr_html_()
    assert shown.count("<table>") == 1 and "<style" not in shown and "<html" not in shown
    assert shown.count("<tr>") == 1 + len({(row.encoder, row.tap) for row in board.rows})
    bad = "<script>alert(1)</script>"
    evil = Leaderboard([dataclasses.replace(row, encoder=bad, tap=bad, dataset=bad) for row in board.rows[:1]])
    assert "<script" not in evil._repr_html_() and html.escape(bad) in evil._repr_html_()
    assert EMPTY in html.unescape(Leaderboard([])._repr_html_())


def test_a_frozen_encoder_is_loaded(done: t.Any, tmp_path: Path) -> None:
    (run,) = done.directory.glob("autoencoder/*/seed0-*")
    features = bench.load(run)(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    assert all(len(one) == 2 for one in features.values())
    with pytest.raises(EncoderError, match="cannot be read"):
        bench.load(tmp_path)


ROWS, CLASSES = load_digits(return_X_y=True)
DIGITS = ROWS[:600], CLASSES[:600], ROWS[600:800], CLASSES[600:800]


def test_arrays_and_tensors_are_scored_alike_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    protocols: list[t.Any] = [{"name": "knn", "k": 1, "metric": "euclidean"}, "fewshot"]
    found = bench.score(*DIGITS, protocols=protocols)
    theirs = KNeighborsClassifier(1).fit(*DIGITS[:2]).score(*DIGITS[2:])
    assert found["knn"].metrics["top1"] == pytest.approx(theirs)
    again = bench.score(*map(torch.from_numpy, DIGITS), protocols=protocols)
    pd.testing.assert_frame_equal(found.to_pandas(), again.to_pandas())
    assert list(found.to_pandas().columns) == ["protocol", "metric", "value"]
    assert list(dict.fromkeys(found.to_pandas().protocol)) == ["knn", "fewshot"]
    assert found._repr_html_().startswith("<table")
    other = bench.score(*DIGITS, protocols=["fewshot"], seed=1)
    assert other["fewshot"].metrics != found["fewshot"].metrics
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changed", "protocols", "error", "message"),
    [
        ({0: ROWS[:5]}, ["knn"], DataError, "train needs at least one row, and one label per row"),
        ({0: ROWS[:600] * np.nan}, ["knn"], DataError, "features must be finite"),
        ({1: CLASSES[:600] / 2}, ["knn"], DataError, "train_labels must be whole numbers (n,); got float64 (600,)"),
        ({2: ROWS[600:800, :3]}, ["knn"], DataError, "features of train and test must have the same d"),
        ({0: [[1], [2, 3]]}, ["knn"], DataError, "score: wanted arrays of numbers"),
        ({}, "knn", ConfigError, 'wanted a list, such as ["linear", "knn"]; got \'knn\''),
        ({}, ["kn"], ConfigError, "no protocol 'kn' (did you mean 'knn'?)"),
        ({}, ["argmax"], ConfigError, "'argmax' scores label of an encoder in a suite"),
    ],
)
def test_what_cannot_be_scored_is_said(
    changed: dict[int, t.Any], protocols: t.Any, error: type[Exception], message: str
) -> None:
    given = [changed.get(place, one) for place, one in enumerate(DIGITS)]
    with pytest.raises(error, match=re.escape(message)):
        bench.score(*given, protocols=protocols)


def test_the_page_about_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "python.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/python.md", "exec"), {})
    out = capsys.readouterr().out
    assert "autoencoder-untrained" in out and "'code': (5, 8)" in out and "top1" in out
