"""Whole runs, as a user starts them: what is written, what is repeated, what fails, what changes no number."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import time
import typing as t
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import launch
from bench.host import machine
from bench.host.progress import Display
from bench.launch import processes
from bench.pipeline import execute
from encoders.bigan import BiGAN
from protocols.linear import Linear
from results import files, layout, store, wandb_mirror
from results.metrics import METRICS, SAMPLES

LINEAR = "{name: linear, strengths: [0.1, 0.01]}"
SUITE = f"""
suite: small
datasets: [{{name: digits, limit: 300}}]
seeds: [0]
encoders:
  - pixels
  - {{name: bigan, hidden: 32, latent: 8, epochs: 2}}
protocols: [{LINEAR}, {{name: knn, k: 1}}]
controls: none
wandb: {{mode: off}}
"""

PLUGIN = """
import io, os, random, signal, sys, typing as t, warnings
import numpy as np
import torch
from torch import nn
from encoders.base import Encoder, ImageSet, Training, frozen

class Flat(nn.Module):
    def forward(self, images):
        return {"flat": images.flatten(1).float()}

class Blank(nn.Module):
    def forward(self, images):
        return {"flat": 0 * images.flatten(1).float()}

class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")

def meddle():
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("medium")
    torch.set_flush_denormal(True)
    np.seterr(all="raise")
    os.chdir("/")
    os.umask(0o777)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warnings.simplefilter("error")
    sys.stdout = sys.stderr = io.StringIO()
    random.seed(0)
    np.random.seed(0)

class Odd(Encoder):
    source: t.ClassVar[str] = "a test"
    way: str = "well"

    @property
    def taps(self):
        return ("flat",)

    def build(self, shape):
        return Blank() if self.way == "blank" else Flat()

    def fit(self, data: ImageSet, run: Training):
        if self.way == "labels":
            assert data.labels is None
        if self.way == "raises":
            raise RuntimeError("no luck")
        if self.way == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.way.startswith("exits"):
            sys.exit(int(self.way.split()[1]))
        if self.way.startswith("ends"):
            os._exit(int(self.way.split()[1]))
        if self.way == "closes":
            raise GeneratorExit
        if self.way == "descends":
            self.fit(data, run)
        if self.way == "chatters":
            raise RuntimeError("a\\ud800\\x1b[2J" + 400_000 * "long ")
        if self.way == "mute":
            raise Mute
        if self.way == "meddles":
            meddle()
        if self.way == "hangs":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            signal.sigwait([signal.SIGUSR1])  # for ever, in C
        if self.way == "trains on":
            return self.build(data.shape).train()
        if self.way == "file" and not os.path.exists("mended"):
            raise RuntimeError("not yet")
        return frozen(self.build(data.shape))
"""


LATE = """
import typing as t
from protocols.base import Protocol

class First(Protocol):
    source: t.ClassVar[str] = "a test"
    plugged: bool = True

    def score(self, train, test, *, seed):
        raise RuntimeError("no luck")
"""


class Done(t.Protocol):
    code: int
    out: str
    err: str


@pytest.fixture
def frostbench(frostbench: t.Callable[..., Done]) -> t.Callable[..., Done]:
    """The command line in a directory that holds the suite and the plugin, offline, with one thread."""
    Path("small.yaml").write_text(SUITE)
    Path("odd.py").write_text(PLUGIN)

    def call(*arguments: str) -> Done:
        return frostbench(*arguments, *(["--threads", "1"] if arguments[0] == "run" else []))

    return call


def numbers(directory: Path) -> dict[tuple[t.Any, ...], t.Any]:
    """Every record's numbers by what they are of, times and places aside."""
    found = {}
    for record in store.read_store(directory).records:
        identity = record.dataset, record.limit, record.label, record.seed, record.tap, record.protocol_label
        found[identity] = record.key, record.metrics, record.details, record.dimensions
    return found


def knn_first(suite: str) -> str:
    return suite.replace(f"[{LINEAR}, {{name: knn, k: 1}}]", f"[{{name: knn, k: 1}}, {LINEAR}]")


def predictions(directory: Path) -> dict[str, bytes]:
    return {path.name + path.parent.name: path.read_bytes() for path in sorted(directory.rglob("*.npz"))}


def times(directory: Path) -> dict[Path, int]:
    files = (path for path in directory.rglob("seed*/**/*") if path.is_file() and "features" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_run_leaves_weights_history_records_and_predictions(frostbench: t.Callable[..., Done]) -> None:
    done = frostbench("run", "small.yaml")
    assert done.code == 0, done.err
    (bigan,) = Path("runs/small/bigan/digits-limit300").iterdir()
    assert bigan.name.startswith("seed0-")
    assert len(bigan.name) == len("seed0-") + 16
    assert {path.name for path in bigan.iterdir()} == {
        "run.json", "encoder.safetensors", "encoder.json", "generator.safetensors", "history.csv", "pictures", "scores",
        "predictions", "views",
    }  # fmt: skip
    assert {path.name for path in (bigan / "views").iterdir()} == {
        "code.npz", "penultimate.npz", "neighbours-code.png", "neighbours-penultimate.png"
    }  # fmt: skip
    assert (bigan / "history.csv").read_text().splitlines()[0].startswith("epoch,seconds,images_per_second,")
    assert len((bigan / "history.csv").read_text().splitlines()) == 1 + 2
    records = store.read_store(Path("runs/small")).records
    taps = {(record.label, record.tap, record.protocol) for record in records}
    assert taps == {
        (label, tap, protocol)
        for label, tap in [("pixels", "pixels"), ("bigan", "penultimate"), ("bigan", "code")]
        for protocol in ("linear", "knn")
    }
    for record in records:
        (directory,) = Path("runs/small").glob(f"{record.label}/*/seed0-{record.key}")
        with np.load(directory / str(record.predictions)) as kept:
            assert kept["predicted"].shape == kept["label"].shape == (record.test_images,)
            assert record.metrics["top1"] == pytest.approx((kept["predicted"] == kept["label"]).mean())
        assert record.provenance.threads == 1
        assert record.limit == 300
    assert done.out.strip() == Path("runs/small/leaderboard.txt").read_text().strip()
    assert {path.suffix for path in Path("runs/small").glob("leaderboard.*")} == {
        ".txt", ".md", ".csv", ".tex", ".html", ".json",
    }  # fmt: skip


def test_a_second_run_does_nothing_and_says_so(frostbench: t.Callable[..., Done]) -> None:
    first = frostbench("run", "small.yaml")
    before = times(Path("runs"))
    second = frostbench("run", "small.yaml")
    assert second.code == 0
    assert "all 2 runs are done; nothing to do" in second.err
    assert second.out == first.out
    assert times(Path("runs")) == before


def test_a_table_keeps_the_rows_of_a_label_that_is_a_link(frostbench: t.Callable[..., Done]) -> None:
    frostbench("run", "small.yaml", "--set", "encoders=[pixels, {name: pca, components: 5}]")
    Path("runs/small/pca").rename("elsewhere")
    Path("runs/small/pca").symlink_to(Path("elsewhere").absolute())
    done = frostbench("run", "small.yaml", "--set", "encoders=[pixels, {name: random_projection, components: 5}]")
    assert done.code == 0, done.err
    assert {line.split()[0] for line in done.out.splitlines() if line} >= {"pixels", "pca", "random_projection"}


def test_a_suite_that_names_another_protocol_first_orders_its_table_by_that(frostbench: t.Callable[..., Done]) -> None:
    Path("small.yaml").write_text(SUITE.replace("  - {name: bigan, hidden: 32, latent: 8, epochs: 2}\n", ""))
    assert "ordered by linear" in frostbench("run", "small.yaml").out
    Path("small.yaml").write_text(knn_first(Path("small.yaml").read_text()))
    done = frostbench("run", "small.yaml")
    assert "nothing to do" in done.err
    assert "ordered by knn" in done.out
    assert done.out.strip() == frostbench("leaderboard", "runs").out.strip()


def test_a_failure_of_a_protocol_that_the_suite_has_no_more_is_none(frostbench: t.Callable[..., Done]) -> None:
    Path("late.py").write_text(LATE)
    plain = SUITE.replace("  - {name: bigan, hidden: 32, latent: 8, epochs: 2}\n", "").replace(f"{LINEAR}, ", "")
    Path("small.yaml").write_text(plain.replace("k: 1}]", "k: 1}, first]"))
    assert frostbench("run", "small.yaml", "--plugin", "late.py").code == 3
    assert "no luck" in frostbench("leaderboard", "runs").out
    Path("small.yaml").write_text(plain)
    done = frostbench("run", "small.yaml")
    assert done.code == 0
    assert "no luck" not in done.out
    assert not list(Path("runs").rglob("failed.json"))


@pytest.mark.usefixtures("forked_workers")
def test_order_jobs_and_protocols_change_no_number(frostbench: t.Callable[..., Done]) -> None:
    frostbench("run", "small.yaml")
    expected, predicted = numbers(Path("runs")), predictions(Path("runs"))
    turned = SUITE.replace("  - pixels\n", "").replace("protocols:", "  - pixels\nprotocols:")
    Path("turned.yaml").write_text(knn_first(turned))
    frostbench("run", "turned.yaml", "--output", "turned", "--jobs", "2")
    assert numbers(Path("turned")) == expected
    assert predictions(Path("turned")) == predicted
    frostbench("run", "small.yaml", "--output", "alone", "--set", f"protocols=[{LINEAR}]")
    assert numbers(Path("alone")) == {key: value for key, value in expected.items() if key[-1] == "linear"}


def test_the_same_seed_gives_the_same_bits_and_another_does_not(frostbench: t.Callable[..., Done]) -> None:
    def weights(output: str) -> list[bytes]:
        return [path.read_bytes() for path in sorted(Path(output).rglob("bigan/**/encoder.safetensors"))]

    frostbench("run", "small.yaml", "--output", "a", "--seeds", "0-1")
    frostbench("run", "small.yaml", "--output", "b", "--seeds", "1,0")
    assert weights("a") == weights("b")
    assert len(set(weights("a"))) == 2
    assert numbers(Path("a")) == numbers(Path("b"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, frostbench_in: t.Callable[..., None]) -> dict[t.Any, t.Any]:
    """The numbers of the suite where nothing was before."""
    directory = tmp_path_factory.mktemp("fresh")
    (directory / "small.yaml").write_text(SUITE)
    frostbench_in(directory, "run", "small.yaml", "--threads", "1")
    return numbers(directory / "runs")


def test_a_new_protocol_refits_nothing(frostbench: t.Callable[..., Done], fresh: dict[t.Any, t.Any]) -> None:
    frostbench("run", "small.yaml", "--set", f"protocols=[{LINEAR}]")
    fitted = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("encoder.safetensors")}
    done = frostbench("run", "small.yaml")
    assert done.code == 0, done.err
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("encoder.safetensors")} == fitted
    assert numbers(Path("runs")) == fresh  # weights read back score as those just trained


def test_a_run_that_equal_versions_have_finished_is_finished(
    frostbench: t.Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BiGAN, "version", 1)
    monkeypatch.setattr(BiGAN, "equal_versions", {})
    monkeypatch.setattr(Linear, "version", 98)
    frostbench("run", "small.yaml")
    before = numbers(Path("runs"))
    monkeypatch.setattr(BiGAN, "version", 3)
    monkeypatch.setattr(BiGAN, "equal_versions", {"float32": ((2, 1, 3),)})
    monkeypatch.setattr(Linear, "version", 99)
    monkeypatch.setattr(Linear, "equal_versions", ((99, 98),))
    monkeypatch.setattr(Linear, "solver", 2)
    again = frostbench("run", "small.yaml")
    assert "all 2 runs are done; nothing to do" in again.err
    assert numbers(Path("runs")) == before
    assert "linear@98" in again.out
    assert "linear@99" not in again.out

    protocols = f"[{LINEAR}, {{name: knn, k: 1}}, {{name: knn, k: 3, label: near}}]"
    more = frostbench("run", "small.yaml", "--set", f"protocols={protocols}")
    assert more.code == 0, more.err
    records = store.read_store(Path("runs")).records
    assert {record.encoder_version for record in records if record.label == "bigan"} == {1}  # as in their run's key
    assert frostbench("verify", "runs").code == 0

    monkeypatch.setattr(Linear, "equal_versions", ())
    anew = frostbench("run", "small.yaml")
    assert "2 of 2 runs completed" in anew.err
    scored = [record for record in store.read_store(Path("runs")).records if record.protocol == "linear"]
    assert {(record.protocol_version, record.details["solver"]) for record in scored} == {(98, 1), (99, 2)}

    monkeypatch.setattr(BiGAN, "equal_versions", {"bfloat16": ((3, 1),)})  # which says nothing of float32
    assert "1 of 2 runs completed" in frostbench("run", "small.yaml").err
    made = [json.loads(path.read_text()) for path in Path("runs/small/bigan").rglob("run.json")]
    told = [(one["encoder_version"], one["provenance"]["solvers"]) for one in made]
    assert sorted(told, key=str) == [(1, {"linear": 1, "knn": 1}), (3, {"linear": 2, "knn": 1})]


def test_what_a_generator_makes_is_pictured_and_judged(
    frostbench: t.Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protocols.generative.CLASSIFIER_IMAGES", 500)
    frostbench("run", "small.yaml")
    (bigan,) = Path("runs/small/bigan/digits-limit300").iterdir()
    assert {path.name for path in (bigan / "pictures").iterdir()} == {
        "samples.png", "reconstructions.png", "interpolations.png",
    }  # fmt: skip
    with Image.open(bigan / "pictures/samples.png") as picture:
        assert picture.size == (8 * (10 * 10 - 2), 8 * (10 * 10 - 2))
    weights = (bigan / "generator.safetensors").stat().st_mtime_ns
    with_samples = f"protocols=[{LINEAR}, {{name: knn, k: 1}}, {{name: generative, samples: 200}}]"
    done = frostbench("run", "small.yaml", "--set", with_samples)
    assert done.code == 0, done.err
    assert "what encoders generate" in done.out
    assert (bigan / "generator.safetensors").stat().st_mtime_ns == weights  # nothing was trained again
    frostbench("run", "small.yaml", "--set", with_samples, "--output", "fresh")
    found = numbers(Path("runs"))
    assert found == numbers(Path("fresh"))
    (key,) = [identity for identity in found if identity[4] == "samples"]
    others = {"log_likelihood", "elbo", "binary_elbo", "two_sample_accuracy", "two_sample_p"}
    assert list(found[key][1]) == [name for name, one in METRICS.items() if one.of == SAMPLES and name not in others]

    (bigan / "generator.safetensors").write_bytes(b"")
    for path in bigan.glob("scores/samples/*"):
        path.unlink()
    assert frostbench("run", "small.yaml", "--set", with_samples).code == 0
    assert numbers(Path("runs")) == found


def test_models_with_a_likelihood_are_judged_by_it(frostbench: t.Callable[..., Done]) -> None:
    vaes = "{name: vae, epochs: 1, hidden: 8}, {name: vae, label: gaussian, likelihood: gaussian, epochs: 1, hidden: 8}"
    methods = f"encoders=[{{name: gmm, components: 2, pca: 5}}, {vaes}]"
    done = frostbench("run", "small.yaml", "--set", methods, "--set", "protocols=[{name: generative, samples: 100}]")
    assert done.code == 0, done.err
    found = {record.label: record for record in store.read_store(Path("runs")).records}
    names = {"gmm": "log_likelihood", "gaussian": "elbo", "vae": "binary_elbo"}
    for label, name in names.items():
        assert names.keys() == found.keys()
        assert set(names.values()) & found[label].metrics.keys() == {name}
        assert found[label].details[f"{name}_standard_error"] > 0
    for title in ("log-likelihood", "ELBO", "binary ELBO"):
        assert title in done.out


def test_features_that_were_kept_give_the_scores_that_fresh_ones_give(frostbench: t.Callable[..., Done]) -> None:
    frostbench("run", "small.yaml", "--keep-features", "--set", "protocols=[{name: knn, k: 1}]")
    files = {path: path.stat().st_mtime_ns for path in Path("runs").rglob("features/*/*.npy")}
    assert len(files) == 6
    frostbench("run", "small.yaml", "--keep-features")
    assert {path: path.stat().st_mtime_ns for path in Path("runs").rglob("features/*/*.npy")} == files
    assert "--keep-features" not in frostbench("run", "small.yaml", "--keep-features").err
    frostbench("run", "small.yaml", "--output", "fresh")
    assert numbers(Path("runs")) == numbers(Path("fresh"))
    said = frostbench("run", "small.yaml", "--output", "fresh", "--keep-features").err
    (told,) = [line for line in said.splitlines() if line.startswith("--keep-features: 2 runs have no features/")]
    extract = told.partition("`frostbench ")[2].partition("`")[0]
    assert re.fullmatch(r"extract \S+/fresh/small/\S+/seed0-\w{16} --output FILE.npz", extract)


def test_settings_that_are_scored_together_have_the_numbers_that_they_have_alone(
    frostbench: t.Callable[..., Done],
) -> None:
    settings = ["{name: knn}", LINEAR, "{name: knn, k: 5, label: k5}", "{name: knn, metric: cosine, label: cosine}"]
    frostbench("run", "small.yaml", "--output", "together", "--set", f"protocols=[{', '.join(settings)}]")
    for setting in settings:
        frostbench("run", "small.yaml", "--output", "alone", "--set", f"protocols=[{setting}]")
    assert len(numbers(Path("together"))) == 4 * 3  # pixels, and two taps of BiGAN
    assert numbers(Path("together")) == numbers(Path("alone"))
    assert predictions(Path("together")) == predictions(Path("alone"))


@pytest.mark.parametrize("way", ["changed", "gone", "run.json cut"])
def test_an_encoder_that_is_damaged_is_trained_again(
    way: str, frostbench: t.Callable[..., Done], fresh: dict[t.Any, t.Any]
) -> None:
    frostbench("run", "small.yaml", "--set", f"protocols=[{LINEAR}]")
    (path,) = Path("runs").rglob("bigan/**/encoder.safetensors")
    content = bytearray(path.read_bytes())
    if way == "changed":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif way == "gone":
        path.unlink()
    else:
        path.with_name("run.json").write_text("{")
    done = frostbench("run", "small.yaml")
    assert done.code == 0, done.err
    assert path.read_bytes() == content
    assert numbers(Path("runs")) == fresh


GENERATIVE = """
suite: small
datasets: [{name: digits, limit: 100}]
seeds: [0]
encoders: [{name: bigan, hidden: 8, latent: 2, epochs: 1}]
protocols: [{name: knn, k: 1}, generative]
controls: none
wandb: {mode: off}
"""
DAMAGED = (
    ("encoder.safetensors",),
    ("generator.safetensors",),
    ("run.json",),
    (
        "encoder.json",
        "pictures/samples.png",
        "views/code.npz",
        "views/neighbours-code.png",
        "predictions/code/knn@*.npz",
    ),
    ("history.csv",),
)


@pytest.mark.parametrize("files", DAMAGED, ids=lambda files: files[0])
def test_what_is_damaged_of_a_finished_run_is_made_again_or_the_message_says_how(
    files: tuple[str, ...], frostbench: t.Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protocols.generative.CLASSIFIER_IMAGES", 500)
    Path("small.yaml").write_text(GENERATIVE)
    assert frostbench("run", "small.yaml").code == 0
    (run,) = Path("runs/small/bigan").glob("*/seed0-*")
    paths = [path for file in files for path in run.glob(file)]
    assert len(paths) == len(files)
    before = {one: one.read_bytes() for one in run.rglob("*") if one.is_file()}
    for path in paths:
        damaged = bytearray(before[path])
        damaged[len(damaged) // 3] ^= 1
        path.write_bytes(damaged if path.name != "run.json" else damaged[:99])
    done = frostbench("run", "small.yaml")
    assert done.code == 0, done.err
    lines = [line for line in done.err.splitlines() for path in paths if f"{path}: " in line]
    assert len(lines) == len(paths)
    if files == ("history.csv",):
        assert f"remove {run.absolute()} and run the same command" in lines[0]
        shutil.rmtree(run)
    else:
        assert all("damaged and made again" in line for line in lines)
        timed = {run / "run.json", run / "history.csv"}
        assert [one for one in before.keys() - timed if one.read_bytes() != before[one]] == []
    done = frostbench("run", "small.yaml")
    assert done.code == 0
    assert [line for line in done.err.splitlines() for path in paths if str(path) in line] == []
    assert all(path.exists() for path in paths)


def test_a_record_that_is_damaged_is_made_again(frostbench: t.Callable[..., Done]) -> None:
    frostbench("run", "small.yaml")
    expected = numbers(Path("runs"))
    (path,) = Path("runs").rglob("bigan/**/code/knn@*.json")
    path.write_text(path.read_text().replace('"top1": 0', '"top1": 1'))
    again = frostbench("run", "small.yaml")
    assert again.code == 0
    assert f"damaged and made again: {path.resolve()}" in again.err
    assert numbers(Path("runs")) == expected
    assert store.read_store(Path("runs")).damaged == []


def test_a_protocol_that_breaks_its_promises_fails_its_run_only(frostbench: t.Callable[..., Done]) -> None:
    Path("greedy.py").write_text(
        "import typing as t\n"
        "from protocols.base import Protocol, Scores\n\n\n"
        "class Greedy(Protocol):\n"
        "    source: t.ClassVar[str] = 'a test'\n\n"
        "    def score(self, train, test, *, seed):\n"
        "        return Scores({'top1': 1.5}, test.labels, {})\n"
    )
    done = frostbench("run", "small.yaml", "--plugin", "greedy.py", "--set", "protocols=[greedy]")
    assert done.code == 3
    assert "metrics are fractions in 0..1; top1 is 1.5" in done.err
    assert {record.status for record in store.read_store(Path("runs")).records} == {"failed"}


def test_a_changed_plugin_makes_other_runs(frostbench: t.Callable[..., Done]) -> None:
    arguments = ["run", "small.yaml", "--set", "encoders=[odd]"]
    frostbench(*arguments, "--plugin", "odd.py")
    Path("changed").mkdir()
    Path("changed/odd.py").write_text(PLUGIN.replace(".float()", ".float() * 0"))
    done = frostbench(*arguments, "--plugin", "changed/odd.py")
    assert "1 of 1 runs completed" in done.err
    assert len(list(Path("runs/small/odd/digits-limit300").iterdir())) == 2


def test_limits_that_make_two_datasets_one_are_one_run(frostbench: t.Callable[..., Done]) -> None:
    two = "datasets=[{name: digits, limit: 200}, digits]"
    done = frostbench("run", "small.yaml", "--set", two, "--set", "encoders=[pixels]", "--limit", "100")
    assert "1 of 1 runs completed" in done.err


def test_two_suites_at_once_in_one_place_agree(tmp_path: Path, start: t.Callable[..., t.Any]) -> None:
    both = [start("--threads", "1") for _ in range(2)]
    assert [process.end()[0] for process in both] == [0, 0]
    assert store.read_store(tmp_path / "runs").damaged == []


def test_a_failing_run_is_a_record_and_the_suite_goes_on(frostbench: t.Callable[..., Done]) -> None:
    encoders = "encoders=[{name: odd, way: raises}, pixels, {name: odd, label: spy, way: labels}]"
    done = frostbench("run", "small.yaml", "--plugin", "odd.py", "--set", encoders)
    assert done.code == 3
    assert "odd, digits (limit 300), seed 0: failed: RuntimeError: no luck" in done.err
    records = store.read_store(Path("runs")).records
    assert {record.label for record in records if record.status == "done"} == {"pixels", "spy"}
    (failed,) = [record for record in records if record.status == "failed"]
    assert failed.error == "RuntimeError: no luck"
    line = 1 + PLUGIN.splitlines().index('            raise RuntimeError("no luck")')
    (path,) = Path.cwd().glob("runs/small/odd/*/*/failed.json")
    assert f"RuntimeError: no luck (odd.py, line {line}); details in {path}" in done.err
    assert "no luck" in failed.details["traceback"]
    assert "no luck" in done.out  # the table says it too


HELPER = """
def learn(data):
    return data["images"]
"""


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_bug_in_what_a_plugin_imports_is_named_by_its_file(
    frostbench: t.Callable[..., Done], monkeypatch: pytest.MonkeyPatch, jobs: str
) -> None:
    here = Path.cwd()
    (here / "my_helper.py").write_text(HELPER)
    (here / "helped.py").write_text(
        PLUGIN.replace('raise RuntimeError("no luck")', "import my_helper; my_helper.learn(data)")
    )
    monkeypatch.setattr(sys, "path", [*sys.path])  # which learns where the plugin lies
    encoders = "encoders=[{name: odd, way: raises}]"
    done = frostbench("run", "small.yaml", "--plugin", "helped.py", "--set", encoders, "--jobs", jobs)
    said = "TypeError: 'ImageSet' object is not subscriptable (my_helper.py, line 3); details in "
    assert (done.code, said in done.err) == (3, True), done.err
    (here / "my_helper.py").write_text(HELPER.replace("return data", "raise ValueError"))
    done = frostbench("run", "small.yaml", "--plugin", "helped.py", "--set", encoders)
    assert "my_helper.py, line 3" in done.err
    assert len({record.code for record in store.read_store(Path("runs")).records}) == 2


@pytest.mark.usefixtures("forked_workers")
def test_a_plugin_that_changes_once_its_suite_was_read_is_not_run(
    frostbench: t.Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, plugin = launch.settings, Path("odd.py").absolute()

    def edited(*given: t.Any, **more: t.Any) -> t.Any:
        plugin.write_text(PLUGIN + "# edited")
        return real(*given, **more)

    monkeypatch.setattr(launch, "settings", edited)
    suite = ["run", "small.yaml", "--plugin", "odd.py", "--set", "encoders=[odd]"]
    done = frostbench(*suite, "--jobs", "2")  # whose workers find the new file
    assert "the plugin of 'odd' has changed since the suite was read: run the command again" in done.err
    assert done.code == 3
    done = frostbench(*suite)
    assert "1 of 1 runs completed" in done.err
    assert done.code == 0


LAYER = """
import typing as t
from torch import nn
from encoders.base import Encoder, frozen
from encoders.pixels import Pixels

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.BatchNorm1d(width))

    def forward(self, images):
        return {"layer": self.layer(images.float() / 255)}

class Mine(Encoder):
    source: t.ClassVar[str] = "a test"
    width: int = 5

    @property
    def taps(self):
        return ("layer",)

    def build(self, shape):
        net = Net(self.width)
        net.layer[1] = nn.Linear(shape[0] * shape[1] * shape[2], self.width)
        return net

    def fit(self, data, run):
        return frozen(self.build(data.shape))

class Bare(Pixels):
    pass
"""


def test_the_untrained_state_of_a_plugins_architecture_is_a_run_like_others(frostbench: t.Callable[..., Done]) -> None:
    Path("layer.py").write_text(LAYER)
    encoders = "encoders=[{name: untrained, architecture: mine, parameters: {width: 7}}]"
    suite = ["run", "small.yaml", "--plugin", "layer.py", "--set", encoders]
    assert frostbench(*suite).code == 0
    records = store.read_store(Path("runs")).records
    assert {(record.dimensions, record.params["parameters"]["width"], record.is_control) for record in records} == {
        (7, 7, True)
    }
    assert {record.code for record in records} == {hashlib.sha256(LAYER.encode()).hexdigest()[:12]}
    assert "nothing to do" in frostbench(*suite).err
    assert "keys of encoders that are not built in" not in frostbench("verify").out
    Path("layer.py").write_text(LAYER + "# changed")
    assert "1 of 1 runs completed" in frostbench(*suite).err
    assert len(list(Path("runs/small/untrained").glob("*/*/run.json"))) == 2
    (run, _) = Path("runs/small/untrained").glob("*/*")
    done = frostbench("export", run, "out", "--plugin", "layer.py")
    assert done.code == 0, done.err
    bare = frostbench(*suite[:-1], "encoders=[{name: untrained, architecture: bare}]")
    assert "'bare' has no trained weights, so it has no untrained state" in bare.err
    none = frostbench(*suite[:-1], "encoders=[{name: untrained, architecture: mime}]")
    assert (none.code, "no encoder 'mime'" in none.err) == (2, True)


def test_a_failed_run_is_tried_again_and_its_record_goes_when_it_succeeds(frostbench: t.Callable[..., Done]) -> None:
    arguments = ["run", "small.yaml", "--plugin", "odd.py", "--set", "encoders=[{name: odd, way: file}]"]
    assert frostbench(*arguments).code == 3
    Path("mended").touch()
    assert frostbench(*arguments).code == 0
    assert {record.status for record in store.read_store(Path("runs")).records} == {"done"}


def test_a_failure_leaves_the_table_when_its_label_and_seed_succeed(frostbench: t.Callable[..., Done]) -> None:
    frostbench("run", "small.yaml", "--plugin", "odd.py", "--set", "encoders=[{name: odd, way: raises}]")
    time.sleep(1.1)  # records tell their start by the second
    done = frostbench("run", "small.yaml", "--plugin", "odd.py", "--set", "encoders=[odd]")
    assert done.code == 0
    assert "no luck" not in done.out


def test_a_run_that_fails_after_some_scores_shows_both(frostbench: t.Callable[..., Done]) -> None:
    protocols = "protocols=[{name: knn, k: 1}, {name: first, plugged: true}]"
    Path("late.py").write_text(LATE)
    done = frostbench("run", "small.yaml", "--plugin", "late.py", "--set", "encoders=[pixels]", "--set", protocols)
    assert done.code == 3
    assert "knn@1" in done.out
    assert "no luck" in done.out


def test_fail_fast_stops_at_the_first_failure(frostbench: t.Callable[..., Done]) -> None:
    encoders = "encoders=[{name: odd, way: raises}, pixels]"
    done = frostbench("run", "small.yaml", "--plugin", "odd.py", "--set", encoders, "--fail-fast")
    assert done.code == 3
    assert [record.status for record in store.read_store(Path("runs")).records] == ["failed"]


def test_a_module_that_is_not_frozen_is_refused_by_name(frostbench: t.Callable[..., Done]) -> None:
    done = frostbench("run", "small.yaml", "--plugin", "odd.py", "--set", "encoders=[{name: odd, way: trains on}]")
    assert done.code == 3
    assert "encoder 'odd' is not frozen: in training mode: the module itself" in done.err


def test_features_that_collapsed_are_scored_and_marked(frostbench: t.Callable[..., Done]) -> None:
    odd = "encoders=[{name: odd, label: well}, {name: odd, label: blank, way: blank}]"
    done = frostbench("run", "small.yaml", "--plugin", "odd.py", "--set", odd)
    assert done.code == 0, done.err
    found = {record.label: [one.name for one in record.alarms] for record in store.read_store(Path("runs")).records}
    assert found == {"well": [], "blank": ["dead_units", "effective_rank"]}
    (row,) = (line for line in done.out.splitlines() if line.startswith("blank"))
    assert row.split()[1:3] == ["flat", "(!)"]


def test_every_players_updates_are_counted_and_few_raise_an_alarm(frostbench: t.Callable[..., Done]) -> None:
    wgan = "encoders=[{name: wgan, body: mlp, hidden: 8, batch_size: 50, epochs: 3}, pixels]"
    done = frostbench("run", "small.yaml", "--set", wgan)
    assert done.code == 0, done.err
    (path,) = Path("runs/small/wgan").glob("*/*/run.json")
    counts = {"critic": 18, "generator": 3}  # 6 batches an epoch, all of them in the critic's first turns of 100
    assert json.loads(path.read_text())["updates"] == counts
    header, *rows = [line.split(",") for line in path.with_name("history.csv").read_text().splitlines()]
    assert [rows[-1][header.index(f"{player}_updates")] for player in counts] == ["18", "3"]

    def told() -> dict[str, tuple[dict[str, int], list[str]]]:
        records = store.read_store(Path("runs")).records
        return {record.label: (record.updates, [one.name for one in record.alarms]) for record in records}

    assert told()["pixels"] == ({}, [])
    assert told()["wgan"][0] == counts and "few_updates" in told()["wgan"][1]
    table = json.loads(Path("runs/small/leaderboard.json").read_text())
    assert counts in [row["updates"] for row in table]
    assert "(!) marks what looks collapsed or hardly trained" in " ".join(done.out.split())
    before = told()
    shutil.rmtree(path.parent / "scores")  # scored again, from the encoder that was kept
    assert frostbench("run", "small.yaml", "--set", wgan).code == 0
    assert told() == before


def test_a_loss_that_is_not_finite_fails_its_run_with_step_and_player(frostbench: t.Callable[..., Done]) -> None:
    gan = "encoders=[{name: gan, generator_hidden: 16, discriminator_hidden: 8, epochs: 5, learning_rate: 1e30}]"
    done = frostbench("run", "small.yaml", "--set", gan)
    assert done.code == 3
    assert "discriminator's loss became" in done.err
    assert "at step" in done.err


@pytest.mark.usefixtures("forked_workers")
def test_a_run_that_hangs_fails_when_its_time_is_up(
    frostbench: t.Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 1)
    arguments = ["run", "small.yaml", "--plugin", "odd.py", "--time-limit", "2"]
    done = frostbench(*arguments, "--set", "encoders=[{name: odd, way: hangs}]")
    assert done.code == 3
    assert "odd, digits (limit 300), seed 0: failed: exceeded --time-limit 2;" in done.err
    (failed,) = store.read_store(Path("runs")).records
    assert (failed.status, failed.error) == ("failed", done.err.partition("failed: ")[2].partition("; details in")[0])
    done = frostbench(*arguments, "--executor", "ray")
    assert (done.code, "remove it with torchrun and ray" in done.err) == (2, True)


@pytest.mark.parametrize("option", ["--ranks", "--threads"])
def test_thousands_of_processes_are_refused(frostbench: t.Callable[..., Done], option: str) -> None:
    done = frostbench("plan", "small.yaml", option, "5000")
    assert (done.code, f"{option} 5000 is too many" in done.err) == (2, True)


@pytest.mark.usefixtures("forked_workers")
def test_a_worker_that_dies_fails_its_run_and_no_other(frostbench: t.Callable[..., Done]) -> None:
    encoders = "encoders=[{name: odd, way: dies}, pixels]"
    done = frostbench("run", "small.yaml", "--plugin", "odd.py", "--set", encoders, "--jobs", "2")
    assert done.code == 3
    assert "its process was killed by SIGKILL, perhaps for lack of memory" in done.err
    statuses = {record.label: record.status for record in store.read_store(Path("runs")).records}
    assert statuses == {"odd": "failed", "pixels": "done"}


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("code", [0, 73, 74])
def test_an_exit_status_is_not_taken_for_a_workers_word(code: int, frostbench: t.Callable[..., Done]) -> None:
    encoders = (
        f"encoders=[{{name: odd, label: a, way: ends {code}}}, {{name: odd, label: b, way: exits {code}}}, pixels]"
    )
    done = frostbench("run", "small.yaml", "--plugin", "odd.py", "--set", encoders, "--jobs", "2")
    assert done.code == 3, done.err
    assert f"its process exited with status {code} before the run was done" in done.err
    records = store.read_store(Path("runs")).records
    assert {record.label: record.status for record in records} == {"a": "failed", "b": "failed", "pixels": "done"}
    assert {record.error for record in records if record.label == "b"} == {f"SystemExit: {code}"}


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("exits 0", "SystemExit: 0"),
        ("closes", "GeneratorExit"),
        ("descends", "RecursionError: maximum recursion depth exceeded"),
        ("mute", "Mute: its text cannot be had: RuntimeError"),
        ("chatters", r"RuntimeError: a\ud800\x1b[2Jlong long"),
    ],
)
def test_whatever_is_raised_fails_its_run_only(way: str, said: str, frostbench: t.Callable[..., Done]) -> None:
    encoders = f"encoders=[{{name: odd, way: {way}}}, pixels]"
    done = frostbench("run", "small.yaml", "--plugin", "odd.py", "--set", encoders)
    assert done.code == 3, done.err
    (failed,) = [record for record in store.read_store(Path("runs")).records if record.status == "failed"]
    assert str(failed.error).startswith(said)
    assert len(str(failed.error)) < 3_000 and len(failed.details["traceback"]) < 30_000
    assert failed.details["traceback"]
    assert said in done.err
    assert "[2/2] pixels, digits (limit 300), seed 0: done in " in done.err


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize("way", ["ends 0", "dies"])
def test_a_run_at_which_the_process_dies_twice_is_a_failure_and_the_next_is_made(
    way: str, tmp_path: Path, in_background: t.Callable[..., t.Any], frostbench: t.Callable[..., Done]
) -> None:
    words = ["run", "small.yaml", "--plugin", "odd.py", "--threads", "1", "--set"]
    words.append(f"encoders=[{{name: odd, way: {way}}}, pixels]")
    ended = [in_background(tmp_path, *words).end() for _ in range(3)]
    assert [code for code, _ in ended] == ([0, 0, 3] if way == "ends 0" else [-9, -9, 3])
    assert "the process has died 2 times at this run" in ended[2][1]
    records = store.read_store(Path("runs")).records
    assert {record.label: record.status for record in records} == {"odd": "failed", "pixels": "done"}
    code, said = in_background(tmp_path, *words).end()
    assert (code, "the process has died 2 times at this run" in said) == (3, True)  # and no third time
    done = frostbench(*words, "--executor", "processes")
    assert (done.code, "the process has died" in done.err) == (3, False)  # there it is tried again


def test_a_death_after_a_checkpoint_is_none_at_the_same_place(tmp_path: Path) -> None:
    directory = layout.run_directory(tmp_path, "bigan", "digits", 0, "0" * 16)
    for step in range(5):
        with execute._noted(directory):
            note = directory.in_flight.read_bytes()
        files.replace(directory.in_flight, note)  # as a process leaves it that is killed
        files.replace(directory.checkpoint / f"step{step}.safetensors", b"")
    with execute._noted(directory):
        pass


def test_what_one_encoder_changes_of_the_process_does_not_reach_the_next(
    frostbench: t.Callable[..., Done], caplog: pytest.LogCaptureFixture
) -> None:
    frostbench("run", "small.yaml", "--output", "alone")
    before = machine._at_large(), signal.getsignal(signal.SIGTERM), np.geterr(), random.getstate()
    assert not caplog.messages  # none of ours changes a thing
    encoders = "encoders=[{name: odd, way: meddles}, pixels, {name: bigan, hidden: 32, latent: 8, epochs: 2}]"
    done = frostbench("run", "small.yaml", "--plugin", "odd.py", "--set", encoders)
    assert done.code == 0, done.err
    assert (machine._at_large(), signal.getsignal(signal.SIGTERM), np.geterr(), random.getstate()) == before
    (said,) = caplog.messages
    assert said.startswith(
        "odd, digits (limit 300), seed 0: its encoder changed global state of this process, which was "
    )
    assert "restored: torch's default dtype (torch.float32" in said
    for what in ("grad mode", "threads", "deterministic", "matmul", "the working directory", "SIGTERM", "sys.stdout"):
        assert what in said
    found = numbers(Path("runs"))
    assert numbers(Path("alone")).items() <= found.items()


def test_results_that_are_removed_meanwhile_are_not_counted_as_made(
    frostbench: t.Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Display.finish

    def remove(self: Display, title: str, seconds: float, error: str | None) -> None:
        finish(self, title, seconds, error)
        if title.startswith("pixels"):
            shutil.rmtree("runs")

    monkeypatch.setattr(Display, "finish", remove)
    done = frostbench("run", "small.yaml")
    assert done.code == 3
    assert "1 of 2 runs completed" in done.err
    assert "pixels, digits (limit 300), seed 0: its results have been deleted: run the same command" in done.err
    monkeypatch.setattr(Display, "finish", finish)
    assert "1 of 2 runs completed" in frostbench("run", "small.yaml").err


def test_a_changed_run_json_reaches_no_record(frostbench: t.Callable[..., Done]) -> None:
    frostbench("run", "small.yaml", "--set", f"protocols=[{LINEAR}]")
    (path,) = Path("runs").rglob("bigan/**/run.json")
    path.write_text(path.read_text().replace('"resumed_elsewhere": false', '"resumed_elsewhere": true '))
    assert frostbench("run", "small.yaml").code == 0
    records = store.read_store(Path("runs")).records
    assert len(records) == 6
    assert not any(record.provenance.resumed_elsewhere for record in records)


def test_a_validation_run_leaves_the_test_set_alone(frostbench: t.Callable[..., Done]) -> None:
    validation = "datasets=[{name: digits, split: validation}]"
    frostbench("run", "small.yaml", "--set", validation, "--set", "encoders=[pixels]")
    records = store.read_store(Path("runs")).records
    assert {record.split for record in records} == {"validation"}
    assert all(record.train_images + record.test_images == 1797 - 359 for record in records)
    assert "digits (validation)" in frostbench("leaderboard").out


def test_a_full_disk_ends_the_suite_plainly_and_loses_nothing(
    frostbench: t.Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    synced = 0

    def full(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        if synced > 83:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    done = frostbench("run", "small.yaml")
    assert done.code == 2
    assert "disk full" in done.err
    kept = {path: stamp for path, stamp in times(Path("runs")).items() if "predictions" not in path.parts}
    monkeypatch.setattr(os, "fsync", real)
    contents = store.read_store(Path("runs"))
    assert contents.damaged == []
    assert frostbench("run", "small.yaml").code == 0
    assert {path: stamp for path, stamp in times(Path("runs")).items() if path in kept} == kept


@pytest.fixture
def start(tmp_path: Path, in_background: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
    """Start the suite in a process of its own."""
    (tmp_path / "small.yaml").write_text(SUITE)

    def go(*options: str) -> t.Any:
        return in_background(tmp_path, "run", "small.yaml", *options)

    return go


def wait_for(found: t.Callable[[], object]) -> None:
    deadline = time.monotonic() + 100
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


LONG = ["--set", "bigan.epochs=100000", "--threads", "1"]
RECORDS = "runs/small/pixels/*/*/scores/*/*.json"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_a_suite_that_is_stopped_goes_on_where_it_was(
    number: signal.Signals,
    code: int,
    tmp_path: Path,
    start: t.Callable[..., t.Any],
    frostbench: t.Callable[..., Done],
) -> None:
    process = start(*LONG)
    wait_for(lambda: list(tmp_path.glob(RECORDS)))
    for _ in range(3):  # a signal that falls into a callback of Python's own is lost, so a user sends another
        process.send_signal(number)
        if process.wait(20):
            break
    came, said = process.end()
    assert came == code, said
    if code == 130:
        assert "stopped; finished runs are kept. To resume: frostbench run small.yaml --set bigan.epochs" in said
        assert "Traceback" not in said
    (finished,) = Path("runs/small/pixels/digits-limit300").glob("*/run.json")
    before = finished.stat().st_mtime_ns
    done = frostbench("run", "small.yaml")
    assert done.code == 0, done.err
    assert finished.stat().st_mtime_ns == before


def test_stopping_parallel_runs_leaves_no_worker_behind(tmp_path: Path, start: t.Callable[..., t.Any]) -> None:
    process = start("--jobs", "2", *LONG)
    wait_for(lambda: list(tmp_path.glob(RECORDS)))
    workers = children(process.pid)
    assert workers
    process.send_signal(signal.SIGINT)
    code, said = process.end()
    assert code == 130, said
    wait_for(lambda: not any(map(alive, workers)))


def alive(pid: str) -> bool:
    """A process that has ended and whose status nobody has asked for has no command line any more."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except FileNotFoundError:
        return False


def children(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        pytest.skip("this system does not list a process's children")


def test_lines_tell_how_a_run_goes_where_there_is_no_terminal(
    frostbench: t.Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.host.progress.LINE_SECONDS", 0.01)
    monkeypatch.setattr("encoders.history.REPORT_SECONDS", 0.0)
    done = frostbench("run", "small.yaml", "--set", "bigan.epochs=100")
    assert re.search(r"bigan, digits \(limit 300\), seed 0: epoch \d+ of 100, ", done.err)
    assert "images/s, discriminator 0." in done.err
    assert "[2/2] bigan, digits (limit 300), seed 0: done in " in done.err
    assert "\x1b" not in done.err
    assert json.loads(Path("runs/small/leaderboard.json").read_text())


WITNESS = '''

class Witness(Odd):
    """Fails unless it is shown exactly the labels of its budget."""

    uses_labels: t.ClassVar[bool] = True
    labels: int | None = 25

    @property
    def label_budget(self):
        return self.labels

    def fit(self, data: ImageSet, run: Training):
        shown = data.labels[data.labels >= 0]
        wanted = len(data) if self.labels is None else self.labels
        if len(shown) != wanted or (self.labels and not all(2 <= (shown == one).sum() <= 3 for one in range(10))):
            raise RuntimeError(f"shown {len(shown)} labels")
        return frozen(self.build(data.shape))
'''


def test_an_encoder_is_shown_the_labels_of_its_budget_and_its_row_says_how_many(
    frostbench: t.Callable[..., Done],
) -> None:
    Path("odd.py").write_text(PLUGIN + WITNESS)
    encoders = "encoders=[witness, {name: witness, label: all, labels: null}, {name: odd, label: spy, way: labels}]"
    done = frostbench("run", "small.yaml", "--plugin", "odd.py", "--set", encoders)
    assert done.code == 0, done.err
    records = store.read_store(Path("runs/small")).records
    assert {(record.label, record.labels) for record in records} == {("witness", 25), ("all", "all"), ("spy", 0)}
    (run,) = Path("runs/small").glob("witness/*/seed0-*/run.json")
    assert json.loads(run.read_text())["labels"] == 25
    apart, told = done.out.split("encoders that saw labels")
    assert "spy" in apart and "witness" not in apart
    assert "25" in next(line for line in told.splitlines() if "witness" in line)


def test_encoders_that_see_labels_have_controls_which_stand_where_no_labels_were_seen(
    frostbench: t.Callable[..., Done],
) -> None:
    told = ("semisupervised_aae", "label_informed_aae", "supervised_aae", "conditional_vae")
    body = "hidden: 16, latent: 4, epochs: 1"
    entries = ", ".join(f"{{name: {name}, {body}{', labels: 100' * (name in told[:2])}}}" for name in told)
    changes = ["--set", "controls=own", "--set", f"encoders=[{entries}]", "--set", "protocols=[{name: knn, k: 1}]"]
    done = frostbench("run", "small.yaml", *changes)
    assert done.code == 0, done.err
    rows = json.loads(Path("runs/small/leaderboard.json").read_text())
    controls = {(row["encoder"], row["tap"]): row for row in rows if row["labels"] == 0}
    assert all(row["control"] for row in controls.values())
    assert {row["encoder"] for row in rows if row["labels"]} == set(told)
    for row in (row for row in rows if row["labels"]):
        control = controls[row["untrained"], row["tap"]]
        assert row["over_untrained"] == pytest.approx(row["mean"] - control["mean"])
        assert row["over_untrained_low"] < row["over_untrained"] < row["over_untrained_high"]
    apart, seen = done.out.split("encoders that saw labels", 1)
    assert "over untrained" in seen and "over untrained" not in apart


def test_a_budget_beyond_the_training_images_fails_with_what_to_type(frostbench: t.Callable[..., Done]) -> None:
    Path("odd.py").write_text(PLUGIN + WITNESS)
    done = frostbench("run", "small.yaml", "--plugin", "odd.py", "--set", "encoders=[{name: witness, labels: 400}]")
    assert done.code == 3
    assert "a label budget of 400 exceeds 300 images; set it to 300 or less" in " ".join(done.out.split())


def test_a_protocol_judges_only_the_taps_it_reads(frostbench: t.Callable[..., Done]) -> None:
    done = frostbench("run", "small.yaml", "--set", "protocols=[assignment, argmax, {name: knn, k: 1}]")
    assert done.code == 0, done.err
    judged = {(record.tap, record.protocol) for record in store.read_store(Path("runs/small")).records}
    assert judged == {("pixels", "knn"), ("penultimate", "knn"), ("code", "knn")}


@pytest.mark.parametrize(
    ("name", "gpus", "devices"),
    [
        ("auto", 0, ["auto"] * 3),
        ("cpu", 2, ["cpu"] * 3),
        ("cuda", 2, ["cuda:0", "cuda:1", "cuda:0"]),
        ("auto", 3, ["cuda:0", "cuda:1", "cuda:2"]),
        ("cuda:1", 2, ["cuda:1"] * 3),
    ],
)
def test_parallel_runs_take_gpus_in_turn(name: str, gpus: int, devices: list[str]) -> None:
    assert [machine.gpu_of(name, gpus, slot=slot) for slot in range(3)] == devices


@pytest.mark.parametrize(
    ("name", "gpus", "slot", "devices"),
    [
        ("cuda", 4, 0, ["cuda:0", "cuda:1"]),
        ("cuda", 4, 1, ["cuda:2", "cuda:3"]),
        ("cuda", 5, 2, ["cuda:0", "cuda:1"]),  # no third pair is left
        ("cuda:1", 3, 0, ["cuda:1", "cuda:2"]),
        ("auto", 0, 1, ["auto", "auto"]),
        ("cpu", 4, 1, ["cpu", "cpu"]),
    ],
)
def test_each_rank_of_a_run_has_a_gpu_of_its_own(name: str, gpus: int, slot: int, devices: list[str]) -> None:
    found = [machine.gpu_of(name, gpus, slot=slot, ranks=2, rank=rank) for rank in range(2)]
    assert found == devices
    # what the first rank was given leads to the same
    assert [machine.gpu_of(found[0], gpus, ranks=2, rank=rank) for rank in range(2)] == devices


@pytest.mark.parametrize("name", ["cuda:1", "cuda:2"])
def test_ranks_that_would_share_a_gpu_are_refused(name: str) -> None:
    with pytest.raises(machine.MachineError, match="one for each rank; 2 GPUs are here; try --device cpu"):
        machine.gpu_of(name, 2, ranks=2)


def test_the_store_is_read_once_before_a_suite_and_once_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "suite: small\ndatasets: [{name: digits, limit: 40}]\nseeds: [0]\nencoders: [pixels]\nprotocols: [knn]\n"
    (tmp_path / "small.yaml").write_text(f"{text}wandb: {{mode: offline}}\n")
    settings = launch.settings(output=tmp_path, threads=1, device="cpu", data_root=None, offline=True, plugins=[])
    reads: list[Path] = []
    read_store = store.read_store

    def counted(path: Path) -> store.Contents:
        reads.append(path)
        return read_store(path)

    monkeypatch.setattr(store, "read_store", counted)
    monkeypatch.setattr(wandb_mirror, "_send_due", lambda _directory, _target, runs, _deadline: (runs, ["sent"] * 2))
    for _ in range(2):  # the first time there is no directory, the second nothing to do
        launched = launch.launch(launch.read(str(tmp_path / "small.yaml"), [], "", 0, []), settings)
        assert not any("wandb" in problem for problem in launched.problems)
        assert len(reads) == 1
        reads.clear()
    launch.launch(launch.read(str(tmp_path / "small.yaml"), [], "0-1", 0, []), settings)
    assert len(reads) == 2
