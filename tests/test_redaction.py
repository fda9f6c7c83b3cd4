"""No secret of the environment gets into a file or a log."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from results.redaction import message, redacted

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "HF_TOKEN": "hf_averysecrettoken",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG",
    "db_password": "correct horse",
}

PLUGIN = """
import os, typing as t
from encoders.base import Encoder

class Leaky(Encoder):
    source: t.ClassVar[str] = "a test"

    @property
    def taps(self):
        return ("flat",)

    def build(self, shape):
        raise RuntimeError

    def fit(self, data, run):
        password = os.environ["db_password"]
        raise RuntimeError(f"cannot log in as {os.environ['HF_TOKEN']} with {password}: {dict(os.environ)}")
"""

SUITE = """
suite: small
datasets: [{name: digits, limit: 100}]
seeds: [0]
encoders: [pixels, {name: bigan, hidden: 8, latent: 2, epochs: 1}, leaky]
protocols: [{name: knn, k: 1}]
wandb: {mode: offline}
"""


def test_the_longest_secret_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHORT_TOKEN", "abcd")
    monkeypatch.setenv("LONG_TOKEN", "abcdefgh")
    monkeypatch.setenv("KEY_OF_NOTHING", "1")
    monkeypatch.setenv("COLOUR", "green")
    monkeypatch.setenv("QUOTED_PASSWORD", "a'b\"c")
    assert redacted("abcdefgh, abcd, 1, green") == "[LONG_TOKEN], [SHORT_TOKEN], 1, green"
    assert redacted(repr({"one": "a'b\"c"})) == "{'one': '[QUOTED_PASSWORD]'}"


def test_what_a_terminal_obeys_is_shown_as_an_escape() -> None:
    assert redacted("a\x1b[2J\r\x9b\ud800 b\tc\nd ±") == r"a\x1b[2J\r\x9b\ud800 b" + "\tc\nd ±"


def test_a_long_text_keeps_its_beginning_and_its_end_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONG_TOKEN", "abcdefgh")
    said = message(ValueError("first " + "abcdefgh" * 10**6 + " last"))
    assert said.startswith("ValueError: first [LONG_TOKEN]") and said.endswith("[LONG_TOKEN] last")
    assert "abcd" not in said and len(said) < 2_100
    assert message(ValueError()) == "ValueError"


@pytest.mark.parametrize("words", [["run", "small.yaml", "--plugin", "mine.py"], ["--debug", "check", "mine.py"]])
def test_nothing_that_is_written_or_said_holds_a_secret(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "small.yaml").write_text(SUITE)
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, **SECRETS, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    environment.pop("FROSTBENCH_CACHE")  # all that is written is looked through
    command = [sys.executable, "-m", "bench", *words]
    done = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, timeout=100)
    assert done.returncode in (2, 3), done.stderr.decode()
    assert b"[HF_TOKEN]" in done.stderr  # the error was said, without it
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    if words[0] == "run":
        assert any(path.name == "failed.json" and b"[db_password]" in content for path, content in written.items())
        assert any(path.suffix == ".wandb" for path in written)
    for value in SECRETS.values():
        assert value.encode() not in done.stdout + done.stderr
        assert [path for path, content in written.items() if value.encode() in content] == []
