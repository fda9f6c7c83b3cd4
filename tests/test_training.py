"""The training loop, on games whose answers are known by hand."""

import math
import typing as t
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from encoders import checkpoint, training
from encoders.base import ImageSet, Progress, Training
from encoders.batch_norm import recalibrate_batch_norm
from encoders.history import NonFiniteLoss
from encoders.players import LARS, SGD, Adam, Player, Turn, WarmupCosine, constant_then_decay
from encoders.training import train


def numbered(count: int) -> ImageSet:
    """Images of one pixel whose value is their number."""
    return ImageSet(np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1), None, ("only",), "numbered")


class Scalar(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))


def game(turns_of: str, steps: int) -> tuple[float, float]:
    """a descends a*b and b ascends it, from (1, 2), at learning rate 0.1."""
    a, b = Scalar(1.0), Scalar(2.0)
    players = [Player("a", [a], SGD(0.1)), Player("b", [b], SGD(0.1))]

    def both(images: Tensor) -> dict[str, Tensor]:
        return {"a": a.value * b.value, "b": -a.value * b.value}

    def first(images: Tensor) -> dict[str, Tensor]:
        return {"a": a.value * b.value}

    def second(images: Tensor) -> dict[str, Tensor]:
        return {"b": -a.value * b.value}

    turns = [Turn(both)] if turns_of == "simultaneous" else [Turn(first), Turn(second)]
    train(Training(0), numbered(steps), players, turns, epochs=1, batch_size=1)
    return a.value.item(), b.value.item()


def test_simultaneous_updates_take_both_gradients_at_the_same_parameters() -> None:
    assert game("simultaneous", 1) == pytest.approx((1 - 0.1 * 2, 2 + 0.1 * 1))


def test_alternating_updates_show_the_second_player_the_first_ones_move() -> None:
    assert game("alternating", 1) == pytest.approx((0.8, 2 + 0.1 * 0.8))


def seen(times: int, epochs: int, count: int = 10, batch_size: int = 3, seed: int = 0) -> list[list[int]]:
    batches: list[list[int]] = []
    weight = Scalar(0.0)

    def look(images: Tensor) -> dict[str, Tensor]:
        batches.append(images.flatten().tolist())
        return {"only": weight.value * 0}

    turns = [Turn(look, lambda _: times)]
    train(Training(seed), numbered(count), [Player("only", [weight], SGD(0.1))], turns, epochs, batch_size)
    return batches


def test_an_epoch_reads_every_image_once_but_for_the_incomplete_batch() -> None:
    batches = seen(times=1, epochs=1)
    flat = [number for batch in batches for number in batch]
    assert [len(batch) for batch in batches] == [3, 3, 3]
    assert len(set(flat)) == 9


def test_repetitions_of_a_turn_read_images_of_their_own() -> None:
    batches = seen(times=3, epochs=1)
    assert len(batches) == 3
    assert len({number for batch in batches for number in batch}) == 9


def test_a_step_may_reach_from_one_epoch_into_the_next() -> None:
    batches = seen(times=2, epochs=2)
    epochs = [{number for batch in half for number in batch} for half in (batches[:3], batches[3:])]
    assert len(batches) == 6
    assert [len(epoch) for epoch in epochs] == [9, 9]


def test_a_turn_may_end_with_the_epoch_and_every_move_is_counted() -> None:
    moves: list[str] = []
    players = [Player(name, [Scalar(0.0)], SGD(0.0)) for name in ("critic", "generator")]

    def of(index: int) -> t.Callable[[Tensor], dict[str, Tensor]]:
        def move(images: Tensor) -> dict[str, Tensor]:
            moves.append(players[index].name[0])
            return {players[index].name: players[index].parameters()[0] * 0}

        return move

    def critic_steps(step: int) -> int:
        return 4 if step < 2 else 2

    run = Training(0)
    turns = [Turn(of(0), critic_steps, ends_with_epoch=True), Turn(of(1))]
    train(run, numbered(6), players, turns, epochs=3, batch_size=2)
    assert "".join(moves) == "cccg" + "cccg" + "ccg" + "cg"  # of three batches each: 4 asked, 4 asked, 2 and 2 asked
    assert [row["epoch"] for row in run.history] == [1, 2, 3]
    assert [(row["critic_updates"], row["generator_updates"]) for row in run.history] == [(3, 1), (6, 2), (9, 4)]
    assert run.updates == {"critic": 9, "generator": 4}


def test_how_often_a_turn_is_taken_can_depend_on_the_step_and_exceed_an_epoch() -> None:
    calls: list[int] = []
    weight, run = Scalar(0.0), Training(0)
    players = [Player("critic", [weight], SGD(0.0)), Player("other", [Scalar(0.0)], SGD(0.0))]

    def criticise(images: Tensor) -> dict[str, Tensor]:
        calls.append(len(images))
        return {"critic": weight.value * 0 + len(calls)}

    def answer(images: Tensor) -> dict[str, Tensor]:
        return {"other": players[1].parameters()[0] * 0, "gap": torch.tensor(4.0)}

    turns = [Turn(criticise, lambda step: 7 if step == 0 else 1), Turn(answer, observes=("gap",))]
    train(run, numbered(6), players, turns, epochs=5, batch_size=2)
    assert len(calls) == 7 + 8  # three batches an epoch: 7 for the first step, then 8 steps of one
    assert [row["epoch"] for row in run.history] == [2, 3, 4, 5]
    assert [row["critic_loss"] for row in run.history] == [pytest.approx(v) for v in (4, 8.5, 11, 14)]
    assert {row["gap"] for row in run.history} == {4.0}


def test_what_follows_a_move_is_done() -> None:
    weight = Scalar(0.0)

    def clip() -> None:
        with torch.no_grad():
            weight.value.clamp_(-0.01, 0.01)

    players = [Player("only", [weight], SGD(1.0), after=clip)]
    train(Training(0), numbered(3), players, [Turn(lambda _: {"only": -weight.value})], epochs=1, batch_size=1)
    assert weight.value.item() == pytest.approx(0.01)


def test_epochs_and_seeds_have_orders_of_their_own_and_the_same_seed_the_same() -> None:
    assert seen(1, 2)[:3] != seen(1, 2)[3:]
    assert seen(1, 1, seed=1) != seen(1, 1, seed=0) == seen(1, 1, seed=0)


def test_a_batch_larger_than_the_data_is_all_of_it() -> None:
    assert [sorted(batch) for batch in seen(1, 1, count=5, batch_size=100)] == [[0, 1, 2, 3, 4]]


def test_a_loss_that_is_not_finite_names_step_and_player() -> None:
    good, bad = Scalar(1.0), Scalar(1.0)
    steps = iter(range(100))

    def diverge(images: Tensor) -> dict[str, Tensor]:
        return {"good": good.value * 1, "bad": bad.value * (math.nan if next(steps) == 6 else 1.0)}

    players = [Player("good", [good], SGD(0.0)), Player("bad", [bad], SGD(0.0))]
    with pytest.raises(NonFiniteLoss, match=r"the bad's loss became nan at step 7 \(epoch 2 of 3\)"):
        train(Training(0), numbered(5), players, [Turn(diverge)], epochs=3, batch_size=1)


def test_a_loss_that_is_not_finite_in_one_repetition_of_a_turn_is_seen() -> None:
    weight = Scalar(1.0)
    calls = iter(range(100))

    def diverge(images: Tensor) -> dict[str, Tensor]:
        return {"only": weight.value * (math.nan if next(calls) == 0 else 1.0)}

    with pytest.raises(NonFiniteLoss, match="at step 1 "):
        train(Training(0), numbered(6), [Player("only", [weight], SGD(0.0))], [Turn(diverge, lambda _: 3)], 1, 1)


def test_the_learning_rate_is_constant_for_half_and_then_falls_to_a_hundredth() -> None:
    assert [constant_then_decay(f) for f in (0, 0.25, 0.5)] == [1, 1, 1]
    assert constant_then_decay(0.75) == pytest.approx(0.1)
    assert constant_then_decay(1.0) == pytest.approx(0.01)


def test_the_schedule_reaches_the_optimizer() -> None:
    weight = Scalar(0.0)

    def climb(images: Tensor) -> dict[str, Tensor]:
        return {"only": -weight.value}

    def halved(fraction: float) -> float:
        return 1.0 if fraction < 0.5 else 0.5

    train(Training(0), numbered(1), [Player("only", [weight], SGD(1.0), halved)], [Turn(climb)], 4, 1)
    assert weight.value.item() == 1 + 1 + 0.5 + 0.5


def test_a_schedule_by_step_moves_within_an_epoch_and_by_epoch_does_not() -> None:
    asked: dict[bool, list[float]] = {True: [], False: []}

    def asks(by_step: bool) -> Player:
        schedule = lambda fraction: asked[by_step].append(fraction) or 1.0  # noqa: E731
        return Player(str(by_step), [Scalar(0.0)], SGD(0.1), schedule, by_step=by_step)

    players = [asks(True), asks(False)]
    turn = Turn(lambda images: {player.name: player.parameters()[0] * 0 for player in players})
    train(Training(0), numbered(2), players, [turn], epochs=2, batch_size=1)
    assert asked == {True: [0, 0.25, 0.5, 0.75], False: [0, 0, 0.5, 0.5]}


def test_warm_up_is_linear_and_half_a_cosine_follows() -> None:
    schedule = WarmupCosine(0.2)
    assert [schedule(fraction) for fraction in (0.1, 0.2, 0.6)] == pytest.approx([0.5, 1, 0.5])
    assert 0 < schedule(0) < 0.01 and schedule(1) == pytest.approx(0)


def test_lars_takes_steps_in_proportion_to_a_layer_and_plain_ones_for_biases() -> None:
    network = nn.Linear(2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[3.0, 4.0]]))  # of length 5
        network.bias.fill_(1.0)

    def pull(images: Tensor) -> dict[str, Tensor]:
        return {"only": (network.weight * torch.tensor([[6.0, 8.0]])).sum() + 2 * network.bias.sum()}

    lars = LARS(0.5, momentum=0.9, weight_decay=1.0, trust=0.1)
    train(Training(0), numbered(1), [Player("only", [network], lars)], [Turn(pull)], epochs=1, batch_size=1)
    # gradient and decay: (9, 12); factor: .1 * 5 / (10 + 1 * 5) / .5 = 1 / 15; a step of .5
    assert network.weight.flatten().tolist() == pytest.approx([3 - 0.5 * 9 / 15, 4 - 0.5 * 12 / 15])
    assert network.bias.item() == pytest.approx(1 - 0.5 * 2)  # neither factor nor decay


def test_lars_never_steps_further_than_the_learning_rate_times_the_gradient() -> None:
    weight = nn.Parameter(torch.full((1, 1), 100.0))
    optimizer = LARS(0.1, momentum=0.0)([weight])
    weight.grad = torch.ones(1, 1)
    optimizer.step()
    assert weight.item() == pytest.approx(99.9)  # trust .02 * 100 / 1 / .1 is 20, cut to 1


def test_what_requires_no_gradient_is_kept_in_the_state_and_does_not_move() -> None:
    moving, still = Scalar(1.0), Scalar(2.0)
    still.requires_grad_(False)
    player = Player("both", [moving, still], SGD(0.1))
    train(Training(0), numbered(2), [player], [Turn(lambda images: {"both": moving.value * still.value})], 1, 1)
    assert (moving.value.item(), still.value.item()) == pytest.approx((1 - 2 * 0.1 * 2, 2))
    assert len(checkpoint.weights([player])) == 2


def test_history_has_a_row_an_epoch_with_every_players_mean_loss() -> None:
    weight = Scalar(0.0)

    def climb(images: Tensor) -> dict[str, Tensor]:
        return {"only": -weight.value}

    run = Training(0)
    train(run, numbered(2), [Player("only", [weight], SGD(1.0))], [Turn(climb)], epochs=2, batch_size=1)
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert [row["only_loss"] for row in run.history] == [-0.5, -2.5]  # weights 0, 1, then 2, 3
    assert all(row["images_per_second"] > 0 for row in run.history)


def test_noise_is_a_function_of_seed_and_step_and_the_global_state_is_left_alone() -> None:
    def noise(seed: int) -> list[float]:
        weight, drawn = Scalar(0.0), []

        def draw(images: Tensor) -> dict[str, Tensor]:
            drawn.append(torch.rand(()).item())
            return {"only": weight.value * 0}

        train(Training(seed), numbered(4), [Player("only", [weight], SGD(0.0))], [Turn(draw)], 1, 1)
        return drawn

    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = noise(0)
    assert torch.equal(before, torch.get_rng_state())
    assert noise(0) == first != noise(1)
    assert len(set(first)) == 4


@pytest.mark.parametrize("optimizer", [Adam(0.1), SGD(0.1, momentum=0.5), LARS(0.1, weight_decay=0.1)])
@pytest.mark.parametrize("layout", ["plain", "transposed", "channels-last", "a part of a larger one"])
def test_a_weight_moves_by_its_own_gradient_whatever_its_layout(optimizer: Adam | SGD | LARS, layout: str) -> None:
    network, start = nn.Module(), torch.linspace(-1, 1, 48).view(2, 3, 4, 2)
    weight = {
        "plain": start.clone(),
        "transposed": start.transpose(0, 3).contiguous().transpose(0, 3),
        "channels-last": start.clone(memory_format=torch.channels_last),
        "a part of a larger one": torch.zeros(4, 3, 8, 2)[::2, :, 4:].copy_(start),
    }[layout]
    network.weight = nn.Parameter(weight)
    pulls = torch.linspace(-1, 2, 48).view(2, 3, 4, 2)

    def pull(images: Tensor) -> dict[str, Tensor]:
        return {"only": (pulls * network.weight).sum()}  # the gradient has the layout of `pulls`

    train(Training(0), numbered(2), [Player("only", [network], optimizer)], [Turn(pull)], epochs=1, batch_size=1)
    plain = start.clone().requires_grad_()
    twin = optimizer([plain])  # type: ignore[list-item]
    for _ in range(2):
        plain.grad = pulls.clone()
        twin.step()
    torch.testing.assert_close(network.weight.detach(), plain.detach())


def test_bfloat16_computes_in_bfloat16_and_keeps_weights_in_float32() -> None:
    layer = nn.Linear(1, 1)
    kinds = []

    def forward(images: Tensor) -> dict[str, Tensor]:
        output = layer(images.flatten(1).float())
        kinds.append(output.dtype)
        return {"only": output.float().mean()}

    run = Training(0, precision="bfloat16")
    train(run, numbered(4), [Player("only", [layer], Adam(1e-3))], [Turn(forward)], 1, 2)
    assert set(kinds) == {torch.bfloat16}
    assert layer.weight.dtype == torch.float32


def test_progress_is_reported_and_ends_at_one() -> None:
    weight = Scalar(0.0)
    reports: list[Progress] = []

    def still(images: Tensor) -> dict[str, Tensor]:
        return {"only": weight.value * 1}

    run = Training(0, report=reports.append)
    train(run, numbered(4), [Player("only", [weight], SGD(0.1))], [Turn(still)], epochs=3, batch_size=2)
    assert reports[-1].fraction == 1
    assert reports[-1].epoch == reports[-1].epochs == 3
    assert reports[-1].seconds_left == 0


def test_settled_statistics_are_the_plain_average_over_batches_of_real_images() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(1, momentum=0.1)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"out": self.norm(images.flatten(1).float())}

    net = Net()
    net.norm.running_mean.fill_(1e6)  # whatever training left there
    recalibrate_batch_norm(net, numbered(8), Training(0), batch_size=4)
    assert net.norm.running_mean.item() == pytest.approx(3.5)
    assert net.norm.running_var.item() == pytest.approx(np.var([0, 1, 2, 3], ddof=1))  # of each batch, not between them
    assert not any(part.training for part in net.modules())
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_a_mapped_file_gives_the_bits_of_a_copy_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(60, 1, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    labels = np.arange(60) % 3

    def losses(images: np.ndarray) -> list[float]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = nn.Linear(16, 3)

        def classify(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return {"only": nn.functional.cross_entropy(network(images.flatten(1) / 255), labels)}

        run = Training(0)
        turn = Turn(classify, reads_labels=True)
        train(
            run, ImageSet(images, labels, ("a", "b", "c"), ""), [Player("only", [network], Adam(0.01))], [turn], 3, 20
        )
        return [row["only_loss"] for row in run.history]

    in_memory = losses(pixels)
    monkeypatch.setattr(training, "SHARE_OF_MEMORY", 0)
    monkeypatch.setattr(training.np, "array", lambda given: np.asarray([] if given.ndim == 4 else given))  # no copy
    assert losses(np.load(tmp_path / "images.npy", mmap_mode="r")) == in_memory


def test_what_older_plugins_import_from_the_loop_is_still_there() -> None:
    assert (training.Adam, training.SGD, training.Player, training.Turn) == (Adam, SGD, Player, Turn)
    assert (training.constant_then_decay, training.settle) == (constant_then_decay, recalibrate_batch_norm)
