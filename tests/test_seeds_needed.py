"""`frostbench seeds-needed`, with answers from a table of Cohen's and from the records of three seeds."""

import typing as t
from pathlib import Path

import pytest

from results import layout, store
from results.leaderboard import leaderboard
from results.record import Provenance, Record
from results.seeds_needed import needed, render, sentence


def records(label: str, values: t.Sequence[float], **changes: t.Any) -> list[Record]:
    where: dict[str, t.Any] = {"commit": None, "dirty": None, "versions": {}, "device": "Test", "threads": 1}
    made = Provenance(**where, precision="float32", started="2025-01-01T00:00:00Z")
    about: dict[str, t.Any] = {
        "suite": "s", "key": "0" * 16, "dataset": "digits", "split": "test", "limit": None, "fingerprint": "f" * 16,
        "train_images": 10, "test_images": 360, "encoder": label, "label": label, "params": {}, "encoder_version": 1,
        "is_control": False, "status": "done", "tap": "code", "dimensions": 2, "protocol": "linear",
        "protocol_label": "linear", "protocol_params": {}, "protocol_version": 1, "seconds": {}, "provenance": made,
    }  # fmt: skip
    return [Record(**about | {"seed": n, "metrics": {"top1": value}} | changes) for n, value in enumerate(values)]


def test_rows_have_the_seeds_that_their_spread_takes() -> None:
    made = [*records("bigan", [0.89, 0.90, 0.91]), *records("pixels", [0.9, 0.9]), *records("alone", [0.9])]
    rows = {row.encoder: row for row in needed(leaderboard(made), delta=0.01, power=0.8)}
    assert set(rows) == {"bigan", "pixels"}  # one seed shows no spread
    assert rows["bigan"].deviation == pytest.approx(0.01)
    assert rows["bigan"].needed == 17  # a difference of one standard deviation: Cohen 1988, Table 2.4.1
    # the upper 80 % limit of the variance is 2 / 0.446 times it (chi-squared of 2 degrees): 67 to 69 seeds
    assert 67 <= (rows["bigan"].cautious or 0) <= 72
    assert (rows["bigan"].seen or 0) > 0.01
    assert (rows["pixels"].needed, rows["pixels"].seen) == (2, 0)
    text = render(list(rows.values()), 0.01, 0.8, width=100, colour=False)
    assert "a difference of 1 points in 80 % of experiments" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100
    (equal,) = [line for line in text.splitlines() if line.startswith("pixels")]
    assert equal.split()[-4:] == ["0.00", "-", "-", "-"]  # two of a kind promise nothing of a third
    assert "Seeds that came out equal tell no spread" in " ".join(text.split())


def test_a_known_spread_is_a_sentence() -> None:
    assert sentence(0.01, 0.01, 0.8).startswith("17 seeds of each method show a difference of 1 points in 80 %")
    assert sentence(0.0001, 0.1, 0.8).startswith("more than 10,000 seeds")


@pytest.fixture
def frostbench(frostbench: t.Callable[..., t.Any]) -> t.Callable[..., tuple[int, str]]:
    """`frostbench seeds-needed`: its exit code and all that it said."""

    def call(*arguments: str) -> tuple[int, str]:
        done = frostbench("seeds-needed", *arguments)
        return done.code, done.out + done.err

    return call


def test_the_command_reads_records_or_takes_a_spread(frostbench: t.Callable[..., tuple[int, str]]) -> None:
    status, said = frostbench("--delta", "1", "--sd", "1")
    assert (status, said[:8]) == (0, "17 seeds")
    for record in records("bigan", [0.89, 0.90, 0.91]):
        run = layout.run_directory(Path("runs"), "bigan", "digits", record.seed, record.key)
        store.publish_record(run.record("code", "linear@1"), record)
    status, said = frostbench("--delta", "1")
    assert status == 0
    assert "bigan" in said and " 17 " in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--delta", "1"], "no results in runs"),
        (["--delta", "0"], "greater than or equal to 0.001"),
        (["--delta", "1", "--sd", "-1"], "greater than or equal to 0"),
        (["--delta", "one"], "should be a valid number"),
        (["--delta", "1", "--power", "1"], "less than or equal to 0.999"),
        ([], "Missing option"),
        (
            ["--delta", "1", "empty"],
            "empty has no row of two seeds; give their standard deviation with --sd",
        ),
    ],
)
def test_nonsense_is_a_sentence_and_exit_code_2(
    frostbench: t.Callable[..., tuple[int, str]], arguments: list[str], message: str
) -> None:
    Path("empty").mkdir()
    status, said = frostbench(*arguments)
    assert status == 2
    assert message in said
