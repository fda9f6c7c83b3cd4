"""The commands beside `run`, as a user types them."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from bench.__main__ import app, main
from bench.suites.reading import read_suite
from results.tables import FORMATS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def frostbench(frostbench: t.Callable[..., t.Any]) -> t.Callable[..., str]:
    """The command line; it must succeed. Gives stdout."""

    def call(*arguments: str) -> str:
        done = frostbench(*arguments)
        assert done.code == 0, done.err
        return str(done.out)

    return call


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (
            "encoders",
            "aae ali autoencoder barlow_twins bigan byol clustering_aae conditional_vae dcgan "
            "denoising_autoencoder dino gan gmm image_statistics kmeans label_informed_aae latent_regressor "
            "lejepa moco pca pixels pretrained random_convolutions random_patches random_projection rbm rotation "
            "semisupervised_aae simclr simsiam supervised_aae untrained vae vicreg wgan wgan_gp",
        ),
        (
            "protocols",
            "argmax assignment cluster fewshot generative geometry knn linear mlp retrieval robustness sgd_linear svm "
            "two_sample",
        ),
        (
            "datasets",
            "mnist5k digits mnist fashion_mnist cifar10 cifar100 svhn stl10 folder:PATH npz:PATH parquet:PATH idx:PATH",
        ),
        (
            "suites",
            "quickstart mnist cifar10 methods smoke papers/aae_clustering papers/aae_likelihood "
            "papers/aae_semisupervised papers/bigan_table1 papers/dcgan_features papers/dim_table3 papers/fgan_mnist "
            "ssl_cifar10 today campaign/dcgan_mnist campaign/fashion_mnist campaign/mnist",
        ),
    ],
)
def test_list_shows_every_name_with_a_line_about_it(kind: str, names: str, frostbench: t.Callable[..., str]) -> None:
    lines = frostbench("list", kind).splitlines()
    assert set(names.split()) == {line.split()[0] for line in lines}
    assert all(len(line.split()) > 3 for line in lines)


def test_describe_shows_source_taps_parameters_and_defaults(frostbench: t.Callable[..., str]) -> None:
    said = frostbench("describe", "bigan")
    assert "Donahue et al. 2017, arXiv:1605.09782" in said
    assert "taps: penultimate, code" in said
    assert "epochs = 400" in said
    assert "learning_rate = 0.0002" in said
    assert "k = 1" in frostbench("describe", "knn")
    assert "10,000" in frostbench("describe", "mnist")
    (line,) = [one for one in frostbench("describe", "untrained").splitlines() if one.startswith("architectures: ")]
    names = line.removeprefix("architectures: ").split(", ")
    assert {"bigan", "dcgan", "supervised_aae", "wgan_gp"} < set(names)
    assert not {"pca", "pixels", "untrained"} & set(names)


def test_the_schema_is_the_one_that_the_suites_name(frostbench: t.Callable[..., str]) -> None:
    assert json.loads(frostbench("schema")) == json.loads((ROOT / "configs" / "suite.schema.json").read_text())


def test_plan_tells_what_is_done_and_writes_nothing(frostbench: t.Callable[..., str], tmp_path: Path) -> None:
    arguments = ["smoke", "--limit", "100", "--set", "encoders=[pixels]", "--set", "wandb.mode=off"]
    said = frostbench("plan", *arguments)
    assert said.startswith("to do  pixels, digits (limit 100), seed 0") and " s  " in said
    assert frostbench("plan", *arguments, "--no-cost").startswith("to do  pixels, digits (limit 100), seed 0  /")
    assert not list(tmp_path.iterdir())
    frostbench("run", *arguments)
    assert frostbench("plan", *arguments).startswith("done   pixels")


def test_the_leaderboard_comes_in_every_format(frostbench: t.Callable[..., str]) -> None:
    frostbench("run", "smoke", "--limit", "100", "--set", "encoders=[pixels]", "--set", "wandb.mode=off")
    for form, suffix in FORMATS.items():
        said = frostbench("leaderboard", "runs/smoke", "--format", form)
        assert said.strip() == Path(f"runs/smoke/leaderboard.{suffix}").read_text().strip()
    (row, _) = json.loads(frostbench("leaderboard", "--format", "json"))
    assert {"dataset", "encoder", "tap", "protocol", "metric", "mean", "low", "high", "seeds"} <= set(row)
    assert 0 <= row["mean"] <= 1


def test_the_suite_says_which_protocol_orders_its_tables(frostbench: t.Callable[..., str]) -> None:
    protocols = "protocols=[{name: knn, k: 1}, linear]"
    frostbench(
        "run", "smoke", "--limit", "100", "--set", "encoders=[pixels]", "--set", protocols, "--set", "wandb.mode=off"
    )
    for said in (frostbench("leaderboard"), Path("runs/smoke/leaderboard.txt").read_text()):
        assert "ordered by knn (k=1, euclidean)" in " ".join(said.split())
    frostbench("report")
    assert "Placed by knn (k=1, euclidean) top1" in Path("runs/report.html").read_text()
    assert "ordered by linear" in " ".join(frostbench("leaderboard", "--sort", "linear").split())


def test_check_vouches_for_an_encoder_of_ones_own(frostbench: t.Callable[..., str]) -> None:
    Path("mine.py").write_text("from encoders.pixels import Pixels\n\n\nclass MyPixels(Pixels):\n    '''Mine.'''\n")
    assert frostbench("check", "mine.py") == "encoder my_pixels passes all checks\n"


def python_examples(page: str) -> dict[str, str]:
    """{the name in its first line: an example}."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return {one[1]: one[0] for one in re.findall(r"```python\n(# (\w+\.py)\n.*?)```", text, re.DOTALL)}


@pytest.mark.parametrize(
    ("page", "file", "said"),
    [
        ("README.md", "mine.py", "encoder my_encoder"),
        ("docs/plugins.md", "my_autoencoder.py", "encoder my_autoencoder"),
        ("docs/plugins.md", "nearest_mean.py", "protocol nearest_mean"),
        ("docs/plugins.md", "my_network.py", "encoder my_network"),
    ],
)
def test_an_example_keeps_its_promises(page: str, file: str, said: str, frostbench: t.Callable[..., str]) -> None:
    Path(file).write_text(python_examples(page)[file])
    assert frostbench("check", file) == f"{said} passes all checks\n"


def test_every_example_is_run_by_a_test() -> None:
    assert [*python_examples("README.md")] == ["mine.py"]
    assert [*python_examples("docs/plugins.md")] == ["my_autoencoder.py", "nearest_mean.py", "my_network.py"]
    (order,) = python_examples("docs/data.md").values()
    held: dict[str, t.Any] = {}
    exec(order, held)
    assert (len(held["images"]), len(held["labels"]), len(held["test_images"])) == (4000, 4000, 1000)


def test_the_readmes_suite_can_be_read(tmp_path: Path) -> None:
    (suite,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "mine.yaml").write_text(suite)
    assert [one.label for one in read_suite(str(tmp_path / "mine.yaml")).encoders[:3]] == [
        "pixels",
        "bigan",
        "bigan-short",
    ]


def test_init_writes_a_suite_that_runs_and_overwrites_nothing_unasked(
    frostbench: t.Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert frostbench("init", "My first.yaml").splitlines()[-1] == "next: frostbench run 'My first.yaml'"
    less = ["--limit", "60", "--seeds", "0", "--set", "wandb.mode=off", "--set", "controls=none"]
    for setting in ("epochs=0", "hidden=16", "latent=4"):
        less += ["--set", f"autoencoder.{setting}", "--set", f"autoencoder-l1.{setting}"]
    assert "autoencoder-l1" in frostbench("run", "My first.yaml", *less, "--set", "pca.components=5")
    assert Path("runs/my-first").is_dir()
    Path("mine.yaml").write_text("mine")
    with pytest.raises(AssertionError, match=r"mine.yaml: exists already.*frostbench init OTHER.yaml"):
        frostbench("init", "mine.yaml")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, kept in (("n", True), ("y", False)):
        monkeypatch.setattr("typer.confirm", lambda *_, answer=answer, **__: answer == "y")
        if kept:
            with pytest.raises(AssertionError, match="exists already"):
                frostbench("init", "mine.yaml")
        else:
            frostbench("init", "mine.yaml")
        assert (Path("mine.yaml").read_text() == "mine") is kept


def test_doctor_tells_versions_data_and_wandb(
    frostbench: t.Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FROSTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FROSTBENCH_DATA", raising=False)
    for name in filter(lambda name: name.startswith("WANDB_"), list(os.environ)):
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_API_KEY", "s3cret" * 7)
    said = frostbench("doctor")
    assert "torch" in said
    assert "mnist5k       4,000 + 1,000 images" in said
    assert "cifar10       not found" in said
    assert "API key found" in said
    assert "s3cret" not in said
    assert "  mode      offline (unless a suite sets it)" in said
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_PROJECT", "birds")
    said = frostbench("doctor")
    assert "  mode      off, whatever a suite sets (WANDB_MODE)" in said
    assert "  project   birds (WANDB_PROJECT)" in said


def test_an_environment_without_wandb_is_heard(
    frostbench: t.Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    frostbench("run", "smoke", "--limit", "100", "--set", "encoders=[pixels]", "--set", "wandb.mode=online")
    assert not (tmp_path / "runs" / "smoke" / "wandb").exists()
    with pytest.raises(AssertionError, match="WANDB_MODE: 'disabled' uploads nothing"):
        frostbench("sync", "runs/smoke")
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(AssertionError, match=r"wanted a name of at most 128 characters, .* got 'a/b'"):
        frostbench("sync", "runs/smoke", "--project", "a/b")
    monkeypatch.setenv("WANDB_PROJECT", "a/b")
    with pytest.raises(AssertionError, match="WANDB_PROJECT: wanted a name"):
        frostbench("run", "smoke", "--limit", "100", "--set", "encoders=[pca]")
    assert not (tmp_path / "runs" / "smoke" / "pca").exists()


def test_help_has_its_commands_in_groups_and_cuts_no_summary(
    frostbench: t.Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = frostbench("--help")
    assert max(map(len, said.splitlines())) <= 80
    assert "..." not in said.replace("[ARGS]...", "")
    groups = dict(re.findall(r"^(\w.+):\n((?:  .*\n)+)", said, re.MULTILINE))
    assert "  run    Run what is not done yet" in groups["Run a suite"]
    assert "  verify     Check all hashes and recompute every stored score from its\n             predictions." in said
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        assert f"\n  {name} " in said
        assert max(map(len, frostbench(name, "--help").splitlines())) <= 80


def test_lists_say_what_abbreviations_mean(frostbench: t.Callable[..., str]) -> None:
    lines = dict(line.split(maxsplit=1) for line in frostbench("list", "encoders").splitlines())
    assert lines["aae"].startswith("Adversarial autoencoder. Reconstruct")
    assert lines["ali"].startswith("Adversarially learned inference. ")
    assert lines["gmm"].startswith("Gaussian mixture model. ")
    assert lines["wgan_gp"].startswith("Wasserstein generative adversarial network with gradient penalty. ")
    assert lines["pixels"].startswith("Every pixel")
    assert "): Support vector machine. Accuracy of" in frostbench("describe", "svm")


MINE = '''
import typing as t
from encoders.base import Encoder

class Mine(Encoder):
    source = "a test"
    scale: float | t.Literal["auto"] = "auto"
    """Factor of all pixels."""
    @property
    def taps(self): return ("tap",)
    def build(self, shape): ...
    def fit(self, data, run): ...
'''


def test_describe_shows_the_choices_of_a_parameter(frostbench: t.Callable[..., str], tmp_path: Path) -> None:
    said = frostbench("describe", "aae")
    assert re.search(r"  body = mlp +mlp \| conv\. Networks", said, re.MULTILINE)
    assert re.search(r"  posterior = deterministic +deterministic \| gaussian \| universal\. ", said, re.MULTILINE)
    (tmp_path / "mine.py").write_text(MINE)
    mine = frostbench("describe", "mine", "--plugin", "mine.py")
    assert re.search(r"  scale = auto +a number \| auto\. Factor of all pixels\.$", mine, re.MULTILINE)


def test_descriptions_fit_into_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.suites import catalogue, resolve

    for name in [*resolve.encoders(), *resolve.protocols()]:
        lines = catalogue.description(name, width=80).split("\n")
        assert max(map(len, lines)) <= 80, name
        beside = [line for line in lines if re.match(r"  \w+ = ", line)]
        assert all(re.match(r"  .{,36}  \S|  \S.{36,}$", line) for line in beside), name  # no text is squeezed


def test_a_run_says_what_is_next_and_the_report_opens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, frostbench: t.Callable[..., str], capsys: t.Any
) -> None:
    from bench.launch import Launched
    from results.leaderboard import leaderboard

    (tmp_path / "my runs").mkdir()
    done = Launched(tmp_path / "my runs", 1, 1, 0, 0, 0, 1.0, leaderboard([]), ())
    told, command = done.summary.splitlines()[-1].split("frostbench ")
    assert told == "next: "
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    frostbench(*shlex.split(command))
    assert opened == [(tmp_path / "my runs" / "report.html").as_uri()]
    frostbench("report", str(tmp_path / "my runs"))
    assert len(opened) == 1


def test_version_and_help(frostbench: t.Callable[..., str]) -> None:
    assert frostbench("--version") == "0.1.0\n"
    assert "Exit codes" in frostbench("--help")


@pytest.mark.parametrize("arguments", ["leaderboard {store} --format json", "list encoders", "--help"])
def test_a_reader_that_has_gone_ends_a_command_quietly(arguments: str) -> None:
    store = ROOT / "results" / "published" / "quickstart"
    assert unread(arguments.format(store=store), hear_errors=True) == (141, "")


def test_an_error_is_still_said_to_whom_reads_it() -> None:
    status, said = unread("leaderboard none", hear_errors=True)
    assert (status, said.count("\n")) == (2, 1)
    assert unread("leaderboard none", hear_errors=False) == (141, "")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "ascii"])
def test_a_terminal_that_lacks_characters_shows_the_others(
    encoding: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FROSTBENCH_CACHE", str(tmp_path / "cache"))
    Path("a.yaml").write_text("suite: \u65e5\n", encoding="utf-8")  # a message that tells of it
    small = str(ROOT / "results" / "published" / "quickstart")
    commands = [
        ["--help"], ["list", "protocols"], ["describe", "vae"], ["run", "a.yaml"], ["compare", "pixels", "pca", small],
        ["seeds-needed", "--delta", "1", "--sd", "0.5"],
        *(["leaderboard", small, *more.split()] for more in ("", "--format latex", "--against papers")),
        ["report", small, "--output", "\u65e5.html"],
    ]  # fmt: skip
    for command in commands:
        streams = [io.TextIOWrapper(io.BytesIO(), encoding, errors="strict") for _ in range(2)]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            patch.setattr(sys, "argv", ["frostbench", *command])
            with pytest.raises(SystemExit) as ended:
                main()
        said = [stream.buffer.getvalue().decode(encoding) for stream in streams if not stream.flush()]
        assert ended.value.code == (2 if command == ["run", "a.yaml"] else 0), said
        assert "Error" not in said[1], command
    assert "?.html" in said[0]


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)], ids=str)
def test_closed_streams_are_no_error_and_no_file_takes_their_place(closed: tuple[int, ...], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "run", "smoke", "--limit", "100", "--set", "encoders=[pixels]"]
    command += ["--set", "wandb.mode=off", "--output", str(tmp_path)]
    words = " ".join(f"{number}{'<' if number == 0 else '>'}&-" for number in closed)
    shell = ["sh", "-c", f'exec "$@" {words}', "sh", *command]
    ended = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr
    assert ("pixels" in ended.stdout, "1 of 1 runs completed" in ended.stderr) == (1 not in closed, 2 not in closed)
    (record,) = tmp_path.glob("smoke/pixels/*/*/scores/pixels/linear*.json")
    json.loads(record.read_text())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_output_that_is_full_is_a_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "bench", "list", "encoders"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "cannot write the output: No space left on device\n")


def unread(arguments: str, *, hear_errors: bool) -> tuple[int, str]:
    """The exit status of a command whose output nobody reads, and its stderr where that is read."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "bench", *arguments.split()]
    errors = subprocess.PIPE if hear_errors else writer
    ended = subprocess.run(command, stdout=writer, stderr=errors, text=True, check=False)
    os.close(writer)
    return ended.returncode, ended.stderr or ""
