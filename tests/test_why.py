"""`frostbench why`: each part of a run's key is named when it is changed, and nothing else."""

import json
import re
import typing as t
from pathlib import Path

import pytest

from encoders.pca import PCA
from protocols.knn import KNN

SUITE = """
suite: small
datasets: [{name: digits, limit: 200}]
seeds: [0, 1]
encoders:
  - pixels
  - {name: pca, components: 3}
protocols: [{name: knn, k: 1}]
wandb: {mode: off}
"""
PLUGIN = """
from encoders.pixels import Pixels

class Mine(Pixels):
    '''Pixels of one's own.'''
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, frostbench_in: t.Callable[..., None]) -> Path:
    """A directory in which the suite was run, and one of a plugin's encoder."""
    directory = tmp_path_factory.mktemp("why")
    (directory / "suite.yaml").write_text(SUITE)
    (directory / "mine.py").write_text(PLUGIN)
    plugged = SUITE.replace("suite: small", "suite: plugged").replace("[0, 1]", "[0]").replace("- pixels", "- mine")
    (directory / "plugged.yaml").write_text(plugged)
    for arguments in (["suite.yaml"], ["plugged.yaml", "--plugin", "mine.py"]):
        frostbench_in(directory, "run", *arguments, "--threads", "1")
    return directory


@pytest.fixture
def why(
    made: Path, frostbench: t.Callable[..., t.Any], monkeypatch: pytest.MonkeyPatch
) -> t.Callable[..., tuple[int, str]]:
    monkeypatch.chdir(made)

    def call(*arguments: str) -> tuple[int, str]:
        done = frostbench("why", *arguments)
        return done.code, done.out + done.err

    return call


def run_of(suite: str, label: str, seed: int = 0) -> str:
    (run,) = Path("runs", suite, label).glob(f"*/seed{seed}-*")
    return str(run)


def changed(said: str) -> list[list[str]]:
    """The rows of the table."""
    lines = [line for line in said.splitlines() if re.search(r"\S {2,}\S", line)]
    return [re.split(r" {2,}", line) for line in lines[1:]]


def test_what_has_not_changed_has_the_same_key(why: t.Callable[..., tuple[int, str]]) -> None:
    status, said = why(run_of("small", "pca"), "suite.yaml")
    assert status == 0
    assert "nothing that decides its weights has changed" in said
    assert changed(said) == []
    assert "To do" not in said


@pytest.mark.parametrize(
    ("override", "row"),
    [
        ("pca.components=4", ["pca.components", "3", "4"]),
        ("precision=bfloat16", ["precision", "float32", "bfloat16"]),
        ("seeds=[5]", ["seed", "0", "5"]),
    ],
)
def test_one_changed_part_is_the_only_one_told(
    why: t.Callable[..., tuple[int, str]], override: str, row: list[str]
) -> None:
    _, said = why(run_of("small", "pca"), "suite.yaml", "--set", override)
    assert changed(said) == [row]
    assert "has a different key from suite.yaml" in said


def test_other_data_and_another_version_are_told(why: t.Callable[..., tuple[int, str]], made: Path) -> None:
    _, said = why(run_of("small", "pca"), "suite.yaml", "--set", "datasets=[{name: digits, limit: 300}]")
    assert [row[0] for row in changed(said)] == ["data", "data fingerprint"]
    assert changed(said)[0] == ["data", "digits (limit 200)", "digits (limit 300)"]
    run = made / "older"
    run.mkdir(exist_ok=True)
    described = json.loads(Path(run_of("small", "pca"), "run.json").read_text())
    del described["sha256"], described["files"]  # as older ones are
    (run / "run.json").write_text(json.dumps(described | {"encoder_version": 77}))
    _, said = why(str(run), "suite.yaml")
    assert ["encoder version", "77", str(described["encoder_version"])] in changed(said)


def test_a_version_that_learns_the_same_is_no_difference(
    why: t.Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PCA, "version", 2)
    _, said = why(run_of("small", "pca"), "suite.yaml")
    assert changed(said) == [["encoder version", "1", "2"]]
    monkeypatch.setattr(PCA, "equal_versions", {"float32": ((2, 1),)})
    monkeypatch.setattr(KNN, "version", 2)
    monkeypatch.setattr(KNN, "equal_versions", ((2, 1),))
    _, said = why(run_of("small", "pca"), "suite.yaml")
    assert "nothing that decides its weights has changed" in said
    assert "To do" not in said


def test_two_runs_are_compared(why: t.Callable[..., tuple[int, str]]) -> None:
    _, said = why(run_of("small", "pca"), run_of("small", "pca", seed=1))
    assert changed(said) == [["seed", "0", "1"]]
    _, said = why(run_of("small", "pca"), run_of("plugged", "pca"))
    assert "nothing that decides its weights has changed" in said  # the suite has no part in the key


def test_a_changed_plugin_is_told(why: t.Callable[..., tuple[int, str]], made: Path) -> None:
    arguments = (run_of("plugged", "mine"), "plugged.yaml", "--plugin")
    assert "nothing that decides its weights has changed" in why(*arguments, "mine.py")[1]
    (made / "other").mkdir(exist_ok=True)
    (made / "other" / "mine.py").write_text(PLUGIN + "\n# changed\n")
    ((part, was, _),) = changed(why(*arguments, "other/mine.py")[1])
    assert (part, was) == ("plugin code", "another")


def test_what_is_still_to_be_scored_says_what_changed(why: t.Callable[..., tuple[int, str]]) -> None:
    _, said = why(run_of("small", "pca"), "suite.yaml", "--set", "knn.k=5")
    assert "nothing that decides its weights has changed" in said
    assert "To do: knn@1: scored before: k was 1, is 5 (components)" in said
    _, said = why(run_of("small", "pca"), "suite.yaml", "--set", "protocols=[linear]")
    assert re.search(r"To do: linear@\d+: not scored yet \(components\)", said)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs"], "runs is not a run directory: wanted one such as"),
        (["nowhere"], "nowhere is not a run directory"),
        (["RUN"], "no shipped suite is named 'small'; give its file"),
        (["RUN", "nowhere.yaml"], "no such file"),
        (["RUN", "suite.yaml", "--set", "encoders=[pixels]"], "has no label 'pca'; it has pixels"),
    ],
)
def test_nonsense_is_a_sentence_and_exit_code_2(
    why: t.Callable[..., tuple[int, str]], arguments: list[str], message: str
) -> None:
    status, said = why(*[run_of("small", "pca") if one == "RUN" else one for one in arguments])
    assert status == 2
    assert message in said
