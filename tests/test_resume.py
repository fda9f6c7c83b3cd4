"""A training that is stopped or killed goes on to the same bits; what cannot be trusted is not gone on from."""

import dataclasses
import hashlib
import json
import os
import random
import re
import signal
import time
import typing as t
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.datasets import load_digits

from bench.host import machine
from bench.host.stopping import Stopping
from bench.pipeline.checkpoints import Checkpoints, Resume
from bench.suites import resolve
from encoders import checkpoint
from encoders.aae import AAE
from encoders.ali import ALI
from encoders.autoencoder import Autoencoder
from encoders.barlow_twins import BarlowTwins
from encoders.base import Encoder, EncoderError, ImageSet, Training, visible_to
from encoders.bigan import BiGAN
from encoders.byol import BYOL
from encoders.check import Stopper
from encoders.checkpoint import CheckpointError
from encoders.clustering_aae import ClusteringAAE
from encoders.conditional_vae import ConditionalVAE
from encoders.dcgan import DCGAN
from encoders.denoising_autoencoder import DenoisingAutoencoder
from encoders.dino import DINO
from encoders.gan import GAN
from encoders.label_informed_aae import LabelInformedAAE
from encoders.latent_regressor import LatentRegressor
from encoders.lejepa import LeJEPA
from encoders.moco import MoCo
from encoders.rotation import Rotation
from encoders.semisupervised_aae import SemiSupervisedAAE
from encoders.simclr import SimCLR
from encoders.simsiam import SimSiam
from encoders.supervised_aae import SupervisedAAE
from encoders.vae import VAE
from encoders.vicreg import VICReg
from encoders.wgan import WGAN
from encoders.wgan_gp import WGANGP
from results import files, store


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images[:300] * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    return ImageSet(pixels, labels[:300].astype(np.int64), tuple("0123456789"), "digits")


@pytest.fixture(scope="module")
def larger(digits: ImageSet) -> ImageSet:
    """Twenty at 20x20, where every convolutional body has at least two convolutions."""
    images = np.pad(digits.images[:20].repeat(2, axis=2).repeat(2, axis=3), ((0, 0), (0, 0), (2, 2), (2, 2)))
    return dataclasses.replace(digits, images=images, labels=digits.labels[:20])  # type: ignore[index]


RECIPES: list[Encoder] = [
    BiGAN(epochs=2, hidden=32),
    WGAN(epochs=4, width=4, critic_steps=2, critic_steps_at_first=3, spectral_norm=True),
    WGAN(epochs=4, width=4, critic_steps_at_first=3),
    WGANGP(epochs=3, width=4, critic_steps=2),
    AAE(epochs=2, hidden=32, posterior="universal"),
    ALI(epochs=2, body="mlp", hidden=32),
    VAE(epochs=2, hidden=32),
    Autoencoder(epochs=2, hidden=32),
    DenoisingAutoencoder(epochs=2, hidden=32),
    LatentRegressor(epochs=2, hidden=32),
    SupervisedAAE(epochs=2, hidden=32),
    LabelInformedAAE(epochs=2, hidden=32, labels=20),
    SemiSupervisedAAE(epochs=2, hidden=32, labels=20),
    ClusteringAAE(epochs=2, hidden=32),
    DCGAN(epochs=2, width=4),
    GAN(epochs=2, generator_hidden=32, discriminator_hidden=16),
    LatentRegressor(epochs=1, hidden=32, after_gan=True),  # its encoder waits for half of the steps
    ConditionalVAE(epochs=2, hidden=32),
]
WIDE: list[Encoder] = [  # in float32 alone: a processor without bfloat16 takes long to imitate it
    BiGAN(epochs=2, hidden=32, body="conv"),
    BiGAN(epochs=3, hidden=32, body="conv", objective="wasserstein_gp", critic_steps=2),
    AAE(epochs=2, hidden=32, body="conv"),
    ALI(epochs=2, hidden=32),
    Autoencoder(epochs=2, hidden=32, body="conv"),
    LatentRegressor(epochs=2, hidden=32, body="conv", joint_weight=0.25),
    VAE(epochs=2, hidden=32, body="conv"),
    ConditionalVAE(epochs=2, hidden=32, body="conv"),
    DenoisingAutoencoder(epochs=2, hidden=32, body="conv"),
    VICReg(epochs=2, body="small", projector=16, outputs=16, learning_rate=1e-3),
    SimCLR(epochs=2, body="small", projector=16, outputs=16),
    BarlowTwins(epochs=2, body="small", projector=16, outputs=16),
    BYOL(epochs=2, body="small", projector=16, outputs=16, predictor=16),
    MoCo(epochs=2, body="small", projector=16, outputs=16, queue=80),
    DINO(epochs=2, body="small", projector=16, outputs=16, prototypes=12),
    SimSiam(epochs=2, body="small", projector=16, outputs=16, predictor=16),
    LeJEPA(epochs=2, body="small", projector=16, outputs=16, slices=16),
    Rotation(epochs=2, body="small"),
]


def test_every_trained_recipe_is_stopped_here() -> None:
    trained = {recipe for recipe in resolve.encoders().values() if "epochs" in recipe.model_fields}
    assert {type(recipe) for recipe in [*RECIPES, *WIDE]} == trained
    with_convolutions = {recipe for recipe in trained if "body" in recipe.model_fields} | {DCGAN}
    convolutions = {
        type(one): sum(isinstance(layer, torch.nn.Conv2d) for layer in one.build((1, 20, 20)).modules())
        for one in [*RECIPES, *WIDE]
        if getattr(one, "body", "conv") != "mlp"
    }
    assert all(convolutions[kind] >= 2 for kind in with_convolutions)


def bits(run: Training, module: torch.nn.Module) -> str:
    """All that a fit leaves behind, times aside."""
    digest = hashlib.sha256()
    for part in (module, run.generator):
        for name, tensor in part.state_dict().items() if part else ():
            digest.update(name.encode() + tensor.numpy().tobytes())
    told = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in run.history]
    return digest.hexdigest() + json.dumps(told)


@pytest.mark.parametrize(
    ("recipe", "precision", "threads"),
    [
        *((one, "float32", 1) for one in [*RECIPES, *WIDE]),
        *((one, "float32", 2) for one in RECIPES if isinstance(one, BiGAN | DCGAN)),
        *((one, "bfloat16", 1) for one in RECIPES),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_going_on_gives_the_same_bits(
    recipe: Encoder,
    precision: t.Literal["float32", "bfloat16"],
    threads: int,
    larger: ImageSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("encoders.batch_norm.GENERATOR_BATCHES", 2)
    recipe = recipe.model_copy(update={"batch_size": 5})  # four batches an epoch
    digits = visible_to(larger, recipe, seed=0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        undisturbed = Training(0, precision=precision)
        expected = bits(undisturbed, recipe.fit(digits, undisturbed))
        for steps in (1, 5):  # in the first epoch, and after it where a step is a batch
            first = Training(0, precision=precision, keeper=Stopper(steps))
            with pytest.raises(KeyboardInterrupt):
                recipe.fit(digits, first)
            second = Training(0, precision=precision, keeper=first.keeper)
            assert bits(second, recipe.fit(digits, second)) == expected, steps
    finally:
        torch.set_num_threads(before)


STOPPED_AT = 7
RECIPE = WGAN(
    body="mlp", hidden=16, spectral_norm=True, clip=1.0, learning_rate=0.01, epochs=4, batch_size=50, critic_steps=2,
    critic_steps_at_first=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def stopped(digits: ImageSet) -> Stopper:
    keeper = Stopper(STOPPED_AT)
    with pytest.raises(KeyboardInterrupt):
        RECIPE.fit(digits, Training(0, keeper=keeper))
    return keeper


def went_on(keeper: Stopper, digits: ImageSet, change: t.Callable[[dict[str, t.Any], dict[str, t.Any]], None]) -> str:
    """The bits of a training that goes on from the kept state as `change` leaves it: its facts, its tensors."""
    assert keeper.content is not None
    tensors = safetensors.torch.load(keeper.content)
    facts = json.loads(bytes(tensors.pop("facts").numpy()))
    change(facts, tensors)
    other = Stopper(STOPPED_AT)
    other.steps = STOPPED_AT
    document = torch.frombuffer(bytearray(json.dumps(facts).encode()), dtype=torch.uint8)
    other.content = safetensors.torch.save({**tensors, "facts": document})
    run = Training(0, keeper=other)
    return bits(run, RECIPE.fit(digits, run))


def test_every_part_of_the_state_is_needed(stopped: Stopper, digits: ImageSet) -> None:
    """A state one of whose parts is another training's goes on to something else."""
    undisturbed = Training(0)
    expected = bits(undisturbed, RECIPE.fit(digits, undisturbed))
    start = Stopper(1)  # of another seed
    with pytest.raises(KeyboardInterrupt):
        RECIPE.fit(digits, Training(1, keeper=start))
    assert start.content is not None and stopped.content is not None
    other = safetensors.torch.load(start.content)
    parts = {re.sub(r"\d+", "*", name) for name in other} - {"facts"}
    assert {"losses", "generator/optimizer/*/square_avg"} <= parts
    assert any("_u" in part for part in parts)
    assert went_on(stopped, digits, lambda facts, tensors: None) == expected
    pointless = []
    for part in sorted(parts):

        def forget(facts: dict[str, t.Any], tensors: dict[str, t.Any], part: str = part) -> None:
            for name in tensors:
                if re.sub(r"\d+", "*", name) == part:
                    tensors[name] = other[name]

        if went_on(stopped, digits, forget) == expected:
            pointless.append(part)
    redundant = re.compile(
        r".*(running_mean|running_var|num_batches_tracked"  # averaged afresh once the training has ended
        r"|optimizer/\*/step"  # RMSprop counts and does not look
        r"|_u|last\..*_v)$"  # spectral norm makes _u of _v, and _v of a single row alone
    )
    assert [part for part in pointless if not redundant.match(part)] == []
    wrong_facts: dict[str, t.Any] = {"step": 6, "read": 15, "read_before": 13, "taken": [0, 0, 0], "history": []}
    for fact, wrong in wrong_facts.items():
        try:
            came = went_on(stopped, digits, lambda facts, _: facts.update({fact: wrong}))  # noqa: B023
        except EncoderError as error:
            came = str(error)
        assert came != expected, fact


def damaged(content: bytes, how: str) -> bytes:  # noqa: PLR0912 - a case a damage
    tensors = safetensors.torch.load(content)
    facts = json.loads(bytes(tensors["facts"].numpy()))
    name = next(name for name in tensors if name.endswith("exp_avg"))
    match how:
        case "truncated":
            return content[: len(content) // 2]
        case "zeros":
            return bytes(len(content))
        case "a header of 2**62 bytes":
            return (2**62).to_bytes(8, "little") + content[8:]
        case "other shape":
            tensors[name] = torch.zeros(3, 3)
        case "other type":
            tensors[name] = tensors[name].double()
        case "not finite":
            tensors[name] = tensors[name] / 0
        case "a tensor missing":
            del tensors[name]
        case "a stray tensor":
            tensors["stray"] = torch.zeros(1)
        case "no facts":
            del tensors["facts"]
        case "facts that are no JSON":
            tensors["facts"] = torch.zeros(10, dtype=torch.uint8)
        case "facts of floats":
            tensors["facts"] = torch.full((3,), torch.nan)
        case "negative step":
            facts["step"] = -1
            tensors["facts"] = torch.frombuffer(bytearray(json.dumps(facts).encode()), dtype=torch.uint8)
        case "all is read, and far more":
            facts |= {"read": 10**15, "read_before": 10**15 - facts["index"]}
            tensors["facts"] = torch.frombuffer(bytearray(json.dumps(facts).encode()), dtype=torch.uint8)
        case "deep":
            tensors["facts"] = torch.frombuffer(bytearray(b"[" * 100_000), dtype=torch.uint8)
    return safetensors.torch.save(tensors)


HOW = [
    "truncated", "zeros", "a header of 2**62 bytes", "other shape", "other type", "not finite", "a tensor missing",
    "a stray tensor", "no facts", "facts that are no JSON", "facts of floats", "negative step", "deep",
    "all is read, and far more",
]  # fmt: skip


@pytest.mark.parametrize("how", HOW)
def test_a_state_that_cannot_be_one_is_refused(how: str, digits: ImageSet) -> None:
    recipe, keeper = BiGAN(epochs=2, hidden=8, batch_size=50), Stopper(2)
    with pytest.raises(KeyboardInterrupt):
        recipe.fit(digits, Training(0, keeper=keeper))
    assert keeper.content is not None
    keeper.content = damaged(keeper.content, how)
    with pytest.raises(EncoderError, match="the saved state cannot be used"):
        recipe.fit(digits, Training(0, keeper=keeper))


# ---- on disk ----------------------------------------------------------------------------------------------------


def checkpoints(directory: Path, resume: Resume = "exact", **environment: str) -> Checkpoints:
    return Checkpoints(directory, "key", environment, seconds=0, resume=resume, stopping=Stopping())


def test_two_generations_are_kept_and_a_damaged_one_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = checkpoints(tmp_path)
    assert keeper.due()
    for step in (1, 2, 10):
        keeper.keep(step, f"state {step}".encode())
    assert list(keeper.kept(100)) == [b"state 10", b"state 2"]
    (newest,) = tmp_path.glob("step10-*")
    newest.write_bytes(b"state 1O")
    assert list(keeper.kept(100)) == [b"state 2"]
    assert "it has changed since it was written; trying the one before" in caplog.text
    assert [path.name[:6] for path in (tmp_path / "corrupt").iterdir()] == ["step10"]
    assert list(keeper.kept(3)) == []
    assert "it has 7 bytes; a checkpoint of this training has fewer than 3" in caplog.text


def test_a_clock_that_was_set_back_makes_no_state_older(tmp_path: Path) -> None:
    keeper = checkpoints(tmp_path)
    for step in (7, 8):
        keeper.keep(step, f"state {step}".encode())
    for path in tmp_path.iterdir():
        os.utime(path, (4e9, 4e9))
    keeper.keep(9, b"state 9")
    assert list(checkpoints(tmp_path).kept(100)) == [b"state 9", b"state 8"]
    checkpoints(tmp_path).keep(1, b"of the method's next training")
    assert next(keeper.kept(100)) == b"of the method's next training"


def test_states_of_an_older_version_are_gone_on_from(tmp_path: Path) -> None:
    for step in (7, 10):
        content = f"state {step}".encode()
        (tmp_path / f"step{step}-{hashlib.sha256(content).hexdigest()}.safetensors").write_bytes(content)
    assert list(checkpoints(tmp_path).kept(100)) == [b"state 10", b"state 7"]


@pytest.mark.parametrize("name", ["circumstances", "environment"])
def test_the_environment_of_a_state_is_read_under_both_names_and_written_under_the_older(name: str) -> None:
    made: dict[str, t.Any] = {name: {"run": "key"}, "training": 1, "step": 3, "read": 3, "read_before": 0, "index": 3}
    made |= {"taken": [3], "history": [], "epoch_seconds": 1.0, "seconds": 1.0}
    document = torch.frombuffer(bytearray(json.dumps(made).encode()), dtype=torch.uint8)
    metadata, _ = checkpoint.from_bytes(safetensors.torch.save({"facts": document}), {})
    assert metadata.environment == {"run": "key"}
    written = safetensors.torch.load(checkpoint.to_bytes(metadata, {}))["facts"]
    assert json.loads(bytes(written.numpy()))["circumstances"] == {"run": "key"}


def test_another_environment_is_refused_and_marked_if_one_insists(tmp_path: Path) -> None:
    kept = {"run": "key", "exact": "yes", "threads": "2"}
    checkpoints(tmp_path, threads="2").check_compatible(kept)
    with pytest.raises(EncoderError, match=r"\(threads 2, now 1\).*--resume inexact.*--resume never"):
        checkpoints(tmp_path, threads="1").check_compatible(kept)
    with pytest.raises(CheckpointError, match="to the run key, not to other"):
        Checkpoints(tmp_path, "other", {}, seconds=0, resume="exact", stopping=Stopping()).check_compatible(
            {"run": "key"}
        )
    insisting = checkpoints(tmp_path, "inexact", threads="1")
    insisting.check_compatible(kept)
    assert not insisting.exact
    again = checkpoints(tmp_path, threads="1")
    again.check_compatible(insisting.environment)  # the mark stays, whoever goes on from there
    assert not again.exact


def test_keeping_takes_a_hundredth_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    keeper = Checkpoints(tmp_path, "key", {}, seconds=60, resume="exact", stopping=Stopping())
    now = 59
    assert not keeper.due()
    now = 60
    assert keeper.due()
    now = 62  # what it took to write the state
    keeper.keep(1, b"state")
    now = 262 - 1
    assert not keeper.due()
    now = 262
    assert keeper.due()


def test_never_starts_anew(tmp_path: Path) -> None:
    checkpoints(tmp_path).keep(3, b"state")
    assert list(checkpoints(tmp_path, "never").kept(100)) == []
    assert list(checkpoints(tmp_path).kept(100)) == []


def test_the_environment_names_what_moves_bits_and_no_place() -> None:
    told = machine.numeric_environment(torch.device("cpu"), 3)
    assert told["threads"] == "3"
    assert {"torch", "processor", "instructions"} <= told.keys()


# ---- whole suites -----------------------------------------------------------------------------------------------

SUITE = """
suite: small
datasets: [{name: mnist5k, limit: 300}]
seeds: [0]
encoders:
  - {name: bigan, hidden: 64, latent: 8, epochs: 12, batch_size: 50}
  - {name: aae, hidden: 64, epochs: 8, batch_size: 50}
  - {name: dcgan, width: 4, epochs: 2, batch_size: 50}
protocols: [{name: knn, k: 1}]
controls: none
wandb: {mode: off}
"""


Start = t.Callable[..., t.Any]


@pytest.fixture(scope="module")
def start(in_background: Start) -> Start:
    """Start the suite in a directory, in a process of its own."""

    def go(where: Path, *options: str) -> t.Any:
        (where / "small.yaml").write_text(SUITE)
        return in_background(where, "run", "small.yaml", "--threads", "1", *options)

    return go


def told(where: Path) -> dict[str, t.Any]:
    """Everything a suite came to, times aside: records, weights, histories, predictions."""
    root = where / "runs" / "small"
    found: dict[str, t.Any] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.suffix in (".safetensors", ".npz"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif "/scores/" in name and path.suffix == ".json":
            record = store.read_record(path)
            found[name] = record.model_dump(exclude={"seconds", "provenance"})
        elif path.name == "history.csv":
            rows = [line.split(",") for line in path.read_text().splitlines()]
            moving = [index for index, title in enumerate(rows[0]) if title in ("seconds", "images_per_second")]
            found[name] = [[cell for index, cell in enumerate(row) if index not in moving] for row in rows]
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, start: Start) -> dict[str, t.Any]:
    where = tmp_path_factory.mktemp("undisturbed")
    code, said = start(where).end()
    assert code == 0, said
    return told(where)


def wait_for(found: t.Callable[[], object], process: t.Any) -> None:
    """Until there is something, or the process is through."""
    deadline = time.monotonic() + 100
    while process.running() and not found():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kills(where: Path, start: Start, count: int, seed: int) -> int:
    """Start the suite and kill it at a random moment, so many times; how often it was not through before."""
    draw, killed = random.Random(seed), 0
    for _ in range(count):
        process = start(where, "--checkpoint-every", "0.02")
        wait_for(lambda: list(where.rglob("encoder.json")) or list(where.rglob("checkpoint/step*")), process)
        time.sleep(draw.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        killed += process.end()[0] == -signal.SIGKILL
    return killed


def finish(where: Path, start: Start) -> None:
    """Start it again undisturbed; a run at which it was killed twice between two checkpoints is tried in a worker."""
    code, said = start(where).end()
    if "the process has died 2 times at this run" in said:
        code, said = start(where, "--executor", "processes").end()
    assert code == 0, said


def test_killed_suites_come_to_the_same_bits(tmp_path: Path, undisturbed: dict[str, t.Any], start: Start) -> None:
    assert kills(tmp_path, start, 3, seed=1) > 0
    finish(tmp_path, start)
    assert told(tmp_path) == undisturbed
    assert not list(tmp_path.rglob("checkpoint"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_kills(tmp_path: Path, undisturbed: dict[str, t.Any], start: Start) -> None:
    killed = 0
    for round_ in range(100):
        where = tmp_path / str(round_)
        where.mkdir()
        killed += kills(where, start, 5, seed=round_)
        finish(where, start)
        assert told(where) == undisturbed, round_
        if killed >= 100:
            return
    pytest.fail(f"only {killed} kills came before the suite was through")


@pytest.mark.parametrize(("jobs", "number"), [("1", signal.SIGHUP), ("2", signal.SIGTERM)])
def test_a_signal_keeps_the_state_and_another_environment_is_refused(
    jobs: str, number: signal.Signals, tmp_path: Path, start: Start
) -> None:
    endless = ["--set", "encoders=[{name: bigan, hidden: 64, epochs: 100000, batch_size: 50}]"]
    process = start(tmp_path, *endless, "--checkpoint-every", "0.1", "--jobs", jobs)
    wait_for(lambda: list(tmp_path.glob("runs/small/bigan/*/*/checkpoint/step*")), process)
    process.send_signal(number)
    code, said = process.end()
    assert code == 130, said
    assert "stopping after this step" in said
    assert "To resume: frostbench run small.yaml" in said
    assert "Traceback" not in said
    assert list(tmp_path.rglob("checkpoint/step*"))
    code, said = start(tmp_path, *endless, "--threads", "2").end()
    assert code == 3
    assert "was interrupted in a different environment (threads 1, now 2)" in said
    assert "--threads 1 resumes to the same bits, --resume inexact" in said
    assert "not resumed: use --threads" in said and "same command" not in said
    (row,) = re.findall(r"bigan: failed: was interrupted.*", (tmp_path / "runs/small/leaderboard.txt").read_text())
    assert row
    assert list(tmp_path.rglob("checkpoint/step*"))


def test_a_full_disk_keeps_the_last_good_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second checkpoint finds no room; the first is still there, and the suite ends with a sentence."""
    keeper = checkpoints(tmp_path)
    keeper.keep(1, b"state 1")

    def full(_descriptor: int) -> t.NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(files.Unwritable, match=r"disk full.*make room and run the same command again"):
        keeper.keep(2, b"state 2")
    monkeypatch.undo()
    assert list(keeper.kept(100)) == [b"state 1"]
    assert not list(tmp_path.glob(".frostbench*"))


def test_the_second_signal_stops_at_once() -> None:
    stopping = Stopping()
    with stopping.on_signals():
        with stopping.listening():
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopping.asked
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
        other = Stopping()
        with other.on_signals(), pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_terminal_that_is_closed_stops_once_however_often_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, _text: str) -> None:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("sys.stderr", Closed())
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where who started the tests ignores it
    stopping = Stopping()
    with stopping.on_signals(), stopping.listening():
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        assert stopping.asked
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Stopping().on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
