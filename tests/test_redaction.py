"""No secret of the environment gets into a file or a log."""

import os
import typing as t
from pathlib import Path

import pytest

from results.redaction import message, printable, redacted

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
controls: none
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


@pytest.mark.parametrize(
    "name", ["DB_PASSWD", "SMTP_PASS", "SSHPASS", "GITHUB_PAT", "gitlab_pat", "MYSQL_PWD", "SSH_PASSPHRASE"]
)
def test_names_that_say_password_in_short(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "s3cr3t/+ value")
    text = "s3cr3t/+ value, s3cr3t%2F%2B%20value, s3cr3t/%2B%20value, s3cr3t%2f%2b%20value, s3cr3t%2F%2B+value"
    assert redacted(text) == ", ".join([f"[{name}]"] * 5)


@pytest.mark.parametrize("name", ["PATH", "PWD", "OLDPWD", "PATTERN", "TRESPASS_LOG"])
def test_names_that_only_look_like_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/some/where")
    assert redacted("/some/where") == "/some/where"


@pytest.mark.parametrize("name", ["DATABASE_URL", "https_proxy", "WANDB_BASE_URL", "REDIS"])
def test_the_password_in_an_address_is_a_secret_and_the_rest_is_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "https://somebody:p%40ss%2Fword@proxy.example:8080/path")
    said = redacted("no answer from https://somebody:p%40ss%2Fword@proxy.example:8080/path with p@ss/word")
    assert said == f"no answer from https://somebody:[{name}]@proxy.example:8080/path with [{name}]"
    monkeypatch.setenv(name, "https://ghp_token@github.com")
    assert redacted("https://ghp_token@github.com") == f"https://[{name}]@github.com"


def test_no_control_character_reaches_a_terminal() -> None:
    text = "a\x1b[31mb\x9bc\x7f\r\u202e\ud800 \u00e9\u4e2d\n\tend"
    assert printable(text) == "a\\x1b[31mb\\x9bc\\x7f\\r\\u202e\\ud800 \u00e9\u4e2d\n\tend"
    assert printable(text).encode().decode() == printable(text)
    assert printable("plain ± text") == "plain ± text"


def test_names_of_files_are_escaped_wherever_they_are_said(
    tmp_path: Path, frostbench: t.Callable[..., tuple[int, str, str]]
) -> None:
    hostile = tmp_path / "runs\x1b]0;owned\x07"
    broken = hostile / "small" / "label" / "data" / f"seed0-{'a' * 16}"
    broken.mkdir(parents=True)
    for name in ("run.json", "failed.json"):
        (broken / name).write_text("{")
    for command in (["verify"], ["leaderboard"], ["report"], ["export", hostile / "absent"], ["compare", "a", "b"]):
        first, *rest = command
        where = [*rest, hostile] if first != "export" else [*rest, "out"]
        _, out, err = frostbench(first, *where)
        assert "\x1b" not in out + err, command
        assert "\x07" not in out + err, command
        assert "\\x1b" in out + err, command


def test_the_password_in_the_address_of_wandbs_server_is_not_said(
    frostbench: t.Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_BASE_URL", "http://somebody:s3cr3t@127.0.0.1:9")
    changes = [word for one in ("encoders=[pixels]", "wandb.mode=online") for word in ("--set", one)]
    status, out, err = frostbench("run", "smoke", "--limit", "100", *changes)
    assert status == 0
    assert "s3cr3t" not in out + err
    assert "no answer from http://somebody:[WANDB_BASE_URL]@127.0.0.1:9" in err


@pytest.mark.parametrize("words", [["run", "small.yaml", "--plugin", "mine.py"], ["--debug", "check", "mine.py"]])
def test_nothing_that_is_written_or_said_holds_a_secret(
    words: list[str], tmp_path: Path, frostbench: t.Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "small.yaml").write_text(SUITE)
    home = tmp_path / "home"
    home.mkdir()
    for name, value in {**SECRETS, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FROSTBENCH_CACHE")  # all that is written is looked through
    code, out, err = frostbench(*words)
    assert code in (2, 3), err
    assert "[HF_TOKEN]" in err  # the error was said, without it
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    if words[0] == "run":
        assert any(path.name == "failed.json" and b"[db_password]" in content for path, content in written.items())
        assert any(path.suffix == ".wandb" for path in written)
    for value in SECRETS.values():
        assert value not in out + err
        assert [path for path, content in written.items() if value.encode() in content] == []
