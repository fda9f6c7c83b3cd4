"""One store under several writers, and two stores that become one: nothing is made twice, lost or torn."""

import json
import os
import typing as t
from pathlib import Path

import pytest

from results import files, layout, store
from results.files import StoreError
from results.merge import merge
from results.record import Record

PLUGIN = """
import os, typing as t
from torch import nn
from encoders.base import Encoder, frozen

class Flat(nn.Module):
    def forward(self, images):
        return {"flat": images.flatten(1).float()}

class Counted(Encoder):
    source: t.ClassVar[str] = "a test"

    @property
    def taps(self):
        return ("flat",)

    def build(self, shape):
        return Flat()

    def fit(self, data, run):
        file = os.open("fits", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{run.seed}\\n".encode())
        os.close(file)
        return frozen(Flat())
"""

SUITE = """
suite: small
datasets: [{name: digits, limit: 40}]
seeds: SEEDS
encoders: [counted]
protocols: [{name: knn, k: 1}]
wandb: {mode: off}
"""


def together(start: t.Callable[..., t.Any], where: Path, processes: int, seeds: int) -> None:
    """So many processes started at once on the same suite; every run is fitted once, every record is whole."""
    (where / "mine.py").write_text(PLUGIN)
    (where / "small.yaml").write_text(SUITE.replace("SEEDS", f"0-{seeds - 1}"))
    words = ["run", "small.yaml", "--threads", "1", "--plugin", "mine.py"]
    ended = [one.end() for one in [start(where, *words) for _ in range(processes)]]
    assert [code for code, _ in ended] == [0] * processes, ended
    fits = sorted(int(line) for line in (where / "fits").read_text().split())
    assert fits == list(range(seeds))
    contents = store.read_store(where / "runs")
    assert len(contents.records) == len(contents.runs) == seeds
    assert contents.damaged == []
    assert len({record.code for record in contents.records}) == 1 and contents.records[0].code  # of the plugin's file
    assert not list((where / "runs").rglob(".frostbench*"))


def test_three_processes_share_a_suite(tmp_path: Path, in_background: t.Callable[..., t.Any]) -> None:
    together(in_background, tmp_path, processes=3, seeds=12)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_eight_processes_and_two_hundred_runs(tmp_path: Path, in_background: t.Callable[..., t.Any]) -> None:
    together(in_background, tmp_path, processes=8, seeds=200)


def test_a_claim_is_exclusive_and_ends_with_the_block(tmp_path: Path) -> None:
    with files.claim(tmp_path / "run", wait=False):
        with (
            pytest.raises(files.Claimed, match="another process is at this run"),
            files.claim(tmp_path / "run", wait=False),
        ):
            pass
        with files.claim(tmp_path / "other", wait=False):
            pass
    with files.claim(tmp_path / "run", wait=False):
        pass


# ---- merging ----------------------------------------------------------------------------------------------------

MERGED = """
suite: small
datasets: [{name: digits, limit: 100}]
seeds: SEEDS
encoders: [pixels, {name: untrained, architecture: bigan, parameters: {hidden: 8}}]
protocols: [{name: knn, k: 1}]
controls: none
wandb: {mode: off}
"""


@pytest.fixture
def made(tmp_path: Path, frostbench: t.Callable[..., t.Any]) -> t.Callable[[str, str], Path]:
    """Make the suite with these seeds below a directory of this name."""

    def make(name: str, seeds: str) -> Path:
        (tmp_path / "small.yaml").write_text(MERGED.replace("SEEDS", seeds))
        assert frostbench("run", "small.yaml", "--output", name, "--threads", "1").code == 0
        return tmp_path / name

    return make


def numbers(directory: Path) -> list[tuple[str, int, dict[str, float]]]:
    return [(record.label, record.seed, record.metrics) for record in store.read_store(directory).records]


def test_two_stores_become_one(made: t.Callable[[str, str], Path], frostbench: t.Callable[..., t.Any]) -> None:
    one, two, both = made("one", "[0, 1]"), made("two", "[1, 2]"), made("both", "[0, 1, 2]")
    assert frostbench("merge", "one", "two")[:2] == (0, "3 records copied, 3 were there already; one has 9\n")
    assert numbers(one) == numbers(both)
    assert len(list(two.rglob("scores/*/*.json"))) == 6
    names = {path.relative_to(both) for path in both.rglob("*") if path.is_file()}
    assert names == {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    rows = json.loads((one / "small/leaderboard.json").read_text())
    assert [row["seeds"] for row in rows] == [3, 3, 3]
    assert merge(one, [two]).new == 0


def test_other_numbers_for_the_same_are_kept_and_named(made: t.Callable[[str, str], Path]) -> None:
    one, two = made("one", "[0]"), made("two", "[0]")
    path = next(two.rglob("pixels/**/scores/*/*.json"))
    record = store.read_record(path)
    path.unlink()
    store.publish_record(path, Record(**record.model_dump() | {"metrics": {"top1": 0.5}}))
    before = numbers(one)
    merged = merge(one, [two])
    assert len(merged.problems) == 1 and "was published before with different content" in merged.problems[0]
    assert numbers(one) == before
    assert len(list(one.rglob("conflicts/*.json"))) == 1


def test_what_is_damaged_on_the_other_side_is_named_and_not_copied(made: t.Callable[[str, str], Path]) -> None:
    one, two = made("one", "[0]"), made("two", "[1]")
    torn, lost, astray = sorted(two.rglob("scores/*/*.json"))
    torn.write_bytes(torn.read_bytes()[:100])
    (Path(str(lost).replace("/scores/", "/predictions/")).with_suffix(".npz")).unlink()
    record = store.read_record(astray)
    astray.unlink()
    value = record.model_dump() | {"predictions": "predictions/../../../outside.npz"}
    astray.write_text(json.dumps(value | {"sha256": store._digest(astray, value)}))
    merged = merge(one, [two])
    assert merged.new == 0
    assert [word in said for word, said in zip(("not JSON", "no such file", "below predictions"), merged.problems)] == [
        True
    ] * 3


def test_what_links_lead_to_elsewhere_or_is_no_file_or_damaged_is_not_copied(
    made: t.Callable[[str, str], Path], tmp_path: Path
) -> None:
    one, two = made("one", "[0]"), made("two", "[1]")
    secret = tmp_path / "secret"
    secret.write_text("a key")
    linked, other = sorted(run.path for run in layout.runs_below(two))
    (linked / "history.csv").unlink()
    (linked / "history.csv").symlink_to(secret)
    (other / "encoder.safetensors").unlink()
    os.mkfifo(other / "encoder.safetensors")
    assert [
        words in said for words, said in zip(("leads out of", "not a regular file"), merge(one, [two]).problems)
    ] == [True] * 2
    assert [
        said.startswith(f"the run {run} is left out: ")
        for run, said in zip((linked, other), merge(one, [two]).problems)
    ] == [True] * 2
    (other / "encoder.safetensors").unlink()
    (other / "encoder.safetensors").write_bytes(bytes(2**20))
    assert "encoder.safetensors: changed since it was written" in merge(one, [two]).problems[1]
    assert not [path for path in one.rglob("*") if path.is_file() and b"a key" in path.read_bytes()]
    assert not list(one.rglob("seed1-*/run.json"))


def test_another_suite_is_not_taken_into_a_suite(made: t.Callable[[str, str], Path]) -> None:
    one, two = made("one", "[0]"), made("two", "[0]")
    path = two / "small" / "suite.json"
    path.write_text(path.read_text().replace('"suite": "small"', '"suite": "other"'))
    with pytest.raises(StoreError, match=r"of the suite 'small' and .* of 'other'"):
        merge(one / "small", [two / "small"])


@pytest.mark.parametrize(
    ("into", "other", "said"),
    [("one", "nowhere", "no such directory"), ("one/small", "two", "one suite's directory and .* is not")],
)
def test_what_does_not_fit_is_refused(into: str, other: str, said: str, made: t.Callable[[str, str], Path]) -> None:
    made("one", "[0]"), made("two", "[0]")
    with pytest.raises(StoreError, match=said):
        merge(Path(into), [Path(other)])
