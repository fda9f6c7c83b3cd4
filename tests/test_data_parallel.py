"""One training by several processes: each takes its part of every batch, and all take the same step."""

import dataclasses
import typing as t
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from bench.host import distributed
from bench.host.distributed import process_group
from encoders import networks
from encoders.barlow_twins import BarlowTwins
from encoders.base import Encoder, EncoderError, ImageSet, Training, seeded
from encoders.check import Stopper
from encoders.denoising_autoencoder import DenoisingAutoencoder
from encoders.dino import DINO
from encoders.distributed import ProcessGroup
from encoders.gan import GAN
from encoders.lejepa import LeJEPA
from encoders.moco import MoCo
from encoders.networks import DCGANDiscriminator, Projector, signed
from encoders.players import Adam, Player, Turn
from encoders.simclr import SimCLR
from encoders.training import train
from encoders.vae import VAE
from encoders.vicreg import VICReg
from encoders.wgan_gp import WGANGP
from results import store


def digits() -> ImageSet:
    images, _ = load_digits(return_X_y=True)
    pixels = np.round(images[:120] * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    return ImageSet(pixels, None, tuple("0123456789"), "digits")


class Body(nn.Sequential):
    """In place of one that has batch-norm."""

    width = 16

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())


class _Plain:
    def _projector(self, widths: t.Sequence[int]) -> Projector:
        return Projector(widths, norm=False)


class PlainVICReg(_Plain, VICReg):
    pass


class PlainBarlowTwins(_Plain, BarlowTwins):
    pass


class PlainLeJEPA(_Plain, LeJEPA):
    pass


SIZES: dict[str, t.Any] = {"body": "small", "projector": 8, "outputs": 6, "epochs": 2, "batch_size": 20}
COMPARING: list[Encoder] = [  # the images of a batch with each other, or with what all ranks saw before
    SimCLR(**SIZES),
    PlainVICReg(**SIZES),
    PlainBarlowTwins(**SIZES),
    PlainLeJEPA(slices=16, **SIZES),
    MoCo(queue=50, **SIZES),
    DINO(prototypes=10, **SIZES),
]
WITHOUT_BATCH_NORM: list[Encoder] = [
    *COMPARING,
    VAE(epochs=2, hidden=16, batch_size=20),
    DenoisingAutoencoder(epochs=2, hidden=16, batch_size=20),
    WGANGP(body="mlp", epochs=2, hidden=16, latent=8, batch_size=20, critic_steps=2),
    GAN(epochs=2, generator_hidden=16, discriminator_hidden=8, batch_size=20),  # with dropout
]
WITH_BATCH_NORM = WGANGP(body="conv", epochs=1, width=2, latent=8, batch_size=20, critic_steps=1)
Fitted = tuple[dict[str, Tensor], list[dict[str, float]]]


def fit(recipe: Encoder, group: ProcessGroup, keeper: Stopper | None = None) -> Fitted:
    """All weights, and losses."""
    run = Training(0, group=group, keeper=keeper if group.rank == 0 else None)
    with mock.patch.dict(networks.POOLED_BODIES, small=Body):
        weights = {f"encoder {name}": tensor for name, tensor in recipe.fit(digits(), run).state_dict().items()}
    if run.generator:
        weights |= run.generator.state_dict()
    return weights, [{k: v for k, v in row.items() if "second" not in k} for row in run.history]


def convolutions(group: ProcessGroup) -> dict[str, Tensor]:
    """The weights of two channels-last convolutions that have learned how bright an image is."""
    images = digits()
    images = dataclasses.replace(images, images=images.images.repeat(2, axis=2).repeat(2, axis=3))
    with seeded(0):
        network = DCGANDiscriminator((1, 16, 16), 4, 2, norm=False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def look(images: Tensor) -> dict[str, Tensor]:
        x = signed(images)
        return {"only": (network.logits(x) - x.mean(dim=(1, 2, 3))).square().mean()}

    train(Training(0, group=group), images, [Player("only", [network], Adam(1e-3))], [Turn(look)], 2, 20)
    return network.state_dict()


def everything(group: ProcessGroup) -> list[list[Fitted]]:
    """Each recipe twice, and once stopped in the middle."""
    torch.set_num_threads(1)
    found = []
    for recipe in [*WITHOUT_BATCH_NORM, WITH_BATCH_NORM]:
        keeper = Stopper(after=4)
        found.append([fit(recipe, group), fit(recipe, group)])
        with pytest.raises(KeyboardInterrupt):
            fit(recipe, group, keeper)
        found[-1].append(fit(recipe, group, keeper))
    return found


@pytest.fixture(scope="module")
def fitted(forkserver: object) -> list[list[Fitted]]:
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multiprocessing.get_context", lambda _method: forkserver)
        with process_group(everything, (), 2, "cpu") as group:
            found = everything(group)
    torch.set_num_threads(before)
    return found


def test_two_processes_repeat_also_after_a_stop(fitted: list[list[Fitted]]) -> None:
    for (weights, history), *others in fitted:
        for other, other_history in others:
            assert all(torch.equal(weights[name], other[name]) for name in weights)
            assert history == other_history


def test_they_equal_one_process_on_the_joined_batch(fitted: list[list[Fitted]]) -> None:
    for recipe, ((weights, history), *_) in zip(WITHOUT_BATCH_NORM, fitted):
        alone, alone_history = fit(recipe, ProcessGroup())
        for name in alone:
            torch.testing.assert_close(weights[name], alone[name], rtol=1e-4, atol=1e-6)
        assert history == [pytest.approx(row, rel=1e-5, abs=1e-6) for row in alone_history]


@pytest.mark.usefixtures("forked_workers")
def test_they_equal_one_process_also_where_weights_are_channels_last() -> None:
    alone = convolutions(ProcessGroup())
    with process_group(convolutions, (), 2, "cpu") as group:
        weights = convolutions(group)
    for name in alone:
        torch.testing.assert_close(weights[name], alone[name], rtol=1e-4, atol=1e-6)


def test_batch_norm_sees_a_ranks_own_rows(fitted: list[list[Fitted]]) -> None:
    weights, _ = fitted[-1][0]
    alone, _ = fit(WITH_BATCH_NORM, ProcessGroup())
    assert not all(torch.allclose(weights[name].float(), alone[name].float(), rtol=1e-3) for name in alone)


DRAWS: dict[str, t.Callable[[int], Tensor]] = {
    "randn": lambda rows: torch.randn(rows, 3, device="cpu"),
    "rand of a tuple": lambda rows: torch.rand((rows, 2)),
    "one of each row": torch.rand,
    "randint": lambda rows: torch.randint(10, (rows, 2)),
    "randint between": lambda rows: torch.randint(5, 10, (rows,), device="cpu"),
    "like": lambda rows: torch.randn_like(torch.zeros(rows, 4)),
    "dropout": lambda rows: F.dropout(torch.ones(rows, 5), 0.5, True),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("batches", [1, 2])
def test_ranks_share_out_the_noise_of_the_whole_batch(draw: t.Callable[[int], Tensor], batches: int) -> None:
    torch.manual_seed(0)
    whole, after = draw(batches * 12), torch.rand(1)
    for rank in range(3):
        torch.manual_seed(0)
        with ProcessGroup(rank, 3).noise(rows=4):
            part = draw(batches * 4)
        assert torch.equal(part.unflatten(0, (batches, 4)), whole.unflatten(0, (batches, 12))[:, rank::3])
        assert torch.equal(torch.rand(1), after)


def test_what_is_no_row_of_the_batch_is_the_same_for_all() -> None:
    drawn = []
    for rank in range(2):
        torch.manual_seed(0)
        with ProcessGroup(rank, 2).noise(rows=4):
            drawn.append((torch.randn(3, 4), torch.rand(()), F.dropout(torch.ones(4), 0.5, False)))
    assert all(torch.equal(one, other) for one, other in zip(*drawn))


def test_batches_that_cannot_be_shared_out_are_refused() -> None:
    with pytest.raises(EncoderError, match="3 ranks cannot divide batches of 20; set batch_size to a multiple"):
        VAE(epochs=1, hidden=16, batch_size=20).fit(digits(), Training(0, group=ProcessGroup(0, 3)))


def dies(group: ProcessGroup) -> None:
    raise SystemExit(7)


@pytest.mark.usefixtures("forked_workers")
def test_a_rank_that_dies_is_named() -> None:
    with (
        pytest.raises(EncoderError, match="rank 1 of 2 exited with status 7"),
        process_group(dies, (), 2, "cpu") as group,
    ):
        group.mean([torch.zeros(3)])


class Diverges(VAE):
    """Learns until its fourth step."""

    def fit(self, data: ImageSet, run: Training) -> torch.nn.Module:
        network = torch.nn.Linear(64, 1)
        steps = 0

        def look(images: Tensor) -> dict[str, Tensor]:
            nonlocal steps
            steps += 1
            return {"only": network(images.flatten(1) / 255).square().mean() * (float("nan") if steps == 4 else 1)}

        train(run, data, [Player("only", [network], Adam(1e-3))], [Turn(look)], 100, 20)
        return network


def diverges(group: ProcessGroup) -> None:
    """The other rank's part: what became of it is where a test can read it, and its process stays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("encoders.history.REPORT_SECONDS", 0.0)
        try:
            Diverges().fit(digits(), Training(0, group=group))
        except EncoderError as error:
            came = str(error)
    told = came.encode()
    torch.distributed.send(torch.frombuffer(bytearray(told.ljust(200)), dtype=torch.uint8), 0)


def test_a_loss_that_is_not_finite_ends_all_ranks() -> None:
    """Also in the middle of an epoch, where the first rank alone looks at the losses."""
    with process_group(diverges, (), 2, "cpu") as group, pytest.MonkeyPatch.context() as patch:
        patch.setattr("encoders.history.REPORT_SECONDS", 0.0)
        with pytest.raises(EncoderError, match="the only's loss became nan at step 4"):
            Diverges().fit(digits(), Training(0, group=group))
        told = torch.zeros(200, dtype=torch.uint8)
        torch.distributed.recv(told, 1)
    assert told.numpy().tobytes().decode().strip() == "a loss of the first rank became NaN or infinite"


def means(group: ProcessGroup) -> None:
    group.mean([torch.zeros(3)])


@pytest.mark.usefixtures("forked_workers")
def test_an_error_of_the_first_rank_is_no_other_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "EXIT_SECONDS", 0.5)
    with pytest.raises(torch.OutOfMemoryError, match="none is left"), process_group(means, (), 2, "cpu"):
        raise torch.OutOfMemoryError("none is left")


SUITE = """
suite: small
datasets: [{name: digits, limit: 60}]
seeds: [0]
encoders: [{name: vae, hidden: 16, epochs: 1, batch_size: 20}]
protocols: [{name: knn, k: 1}]
controls: none
wandb: {mode: off}
"""


@pytest.mark.usefixtures("forked_workers")
def test_a_suite_with_ranks_has_a_key_of_its_own_and_says_so(
    tmp_path: Path, frostbench: t.Callable[..., t.Any]
) -> None:
    (tmp_path / "small.yaml").write_text(SUITE)
    for ranks in ("2", "1"):
        done = frostbench("run", "small.yaml", "--threads", "1", "--ranks", ranks)
        assert done.code == 0, done.err
    made = store.read_store(tmp_path / "runs").records
    assert {record.status for record in made} == {"done"}
    assert {record.provenance.ranks for record in made} == {1, 2}
    assert len({record.key for record in made}) == 2
