"""Files that mean ill or are broken: each is refused in words, soon, in little memory, and nothing in it is run."""

import json
import os
import subprocess
import sys
import tempfile
import time
import typing as t
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import ConfigError
from bench.suites.reading import read_suite

UNNOTICED = {  # damage that no reader can see: after the end, or in numbers that no checksum guards
    "suite.yaml": {"without its last byte"},
    "state.safetensors": {"a bit flipped at 60%"},  # bench.checkpoints has the SHA-256
    "record.json": {"without its last byte"},
    "knn.json": {"without its last byte"},
    "run.json": {"without its last byte"},
    "data.npz": {"twice", "with a tail of zeros", "a bit flipped at 2%"},
    "train-0.parquet": {"twice", "a bit flipped at 30%", "a bit flipped at 60%", "a bit flipped at 95%"},
    "image.png": {
        *("cut at 90%", "cut at 99%", "without its last byte", "twice", "with a tail of zeros"),
        *("a bit flipped at 95%", "16 bytes lost at 95%"),
    },
    "images-idx3-ubyte": {f"a bit flipped at {share}%" for share in (2, 30, 60, 95)},
    "images-idx3-ubyte.gz": {"with a tail of zeros"},
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, t.Any]]:
    place = tmp_path_factory.mktemp("corpus")
    inside = place / "inside"
    inside.mkdir()
    program = Path(__file__).with_name("hostile_corpus.py")
    environment = {**os.environ, "PYTHONPATH": str(program.parents[1])}
    command = [sys.executable, str(program), str(inside)]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in place.iterdir()] == ["inside"]  # nothing was written beside it
    made = {path.name for path in inside.iterdir() if not path.name.isdigit()}
    assert made == {"whole.json"}  # and nothing was run that leaves a file behind
    found: list[dict[str, t.Any]] = json.loads(done.stdout)
    return found


def test_every_file_is_refused_in_words_or_read(outcomes: list[dict[str, t.Any]]) -> None:
    assert len(outcomes) >= 200
    assert [one for one in outcomes if one["outcome"] == "crashed"] == []
    whole = [one for one in outcomes if one["name"] == "as it should be"]
    assert [one["file"] for one in whole if one["outcome"] != "read"] == []
    read = {(one["file"], one["name"]) for one in outcomes if one["outcome"] == "read"}
    unnoticed = {(file, name) for file, names in UNNOTICED.items() for name in names}
    assert read - unnoticed == {(one["file"], one["name"]) for one in whole}


def test_each_is_done_with_soon_and_in_little_memory(outcomes: list[dict[str, t.Any]], slack: int) -> None:
    assert [one for one in outcomes if one["seconds"] > slack] == []  # of CPU
    assert [one for one in outcomes if one["grown"] > 150] == []  # MB


def test_what_is_refused_is_told_in_a_few_words(outcomes: list[dict[str, t.Any]]) -> None:
    said = Counter(len(one["said"]) > 0 for one in outcomes if one["outcome"] == "refused")
    assert said.keys() == {True}


# ---- any suite --------------------------------------------------------------------------------------------------

SUITE = """suite: small
datasets: [{name: digits, limit: 100}]
seeds: [0, 1]
encoders:
  - pixels
  - {name: bigan, label: mine, epochs: 2, learning_rate: 1e-3}
protocols: [linear, {name: knn, k: 1, metric: euclidean}]
precision: float32
controls: none
wandb: {mode: off, project: mine}
"""
WORDS = [
    *("null", "true", "-1", "0", "1e999", ".nan", "''", "[]", "{}", "0-5", "9" * 30, "../x", "&a", "*a", "!!x", "<<: "),
    *("suite: ", "seeds: ", "name: ", "epochs: ", "label: ", "bigan", "knn", "- ", ": ", "\n", "\n  ", ", ", "[", "]"),
    *("{", "}", "'", '"', "#", "|", ">", "\t", "\0", "\ud800", "ü", "%YAML 9", "---", "? "),
]
edits = st.lists(
    st.tuples(st.integers(0, len(SUITE)), st.integers(0, 12), st.sampled_from(WORDS) | st.text(max_size=6)), max_size=5
)


def read_edited(edited: list[tuple[int, int, str]], seconds: int) -> None:
    """A suite with some of its characters replaced is read or refused in words, in so many seconds."""
    text = SUITE
    for start, length, word in edited:
        text = text[:start] + word + text[start + length :]
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(text.encode(errors="surrogatepass"))
        file.flush()
        # twice if it was slow: a collection of all the garbage so far may fall into the first time
        assert seconds_to_read(file.name) < seconds or seconds_to_read(file.name) < seconds


def seconds_to_read(name: str) -> float:
    """Of CPU."""
    started = time.process_time()
    try:
        for _ in read_suite(name).runs():
            pass
    except ConfigError as error:
        assert str(error)
    return time.process_time() - started


@given(edits)
@settings(max_examples=150, deadline=None)
def test_any_suite_is_read_or_refused(edited: list[tuple[int, int, str]]) -> None:
    read_edited(edited, 5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(edits)
@settings(max_examples=100_000, deadline=None)
def test_a_hundred_thousand_suites(edited: list[tuple[int, int, str]]) -> None:
    read_edited(edited, 1)
