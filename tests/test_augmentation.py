"""Jittered copies: what they keep, how far they go, and that each image goes its own way."""

import pytest
import torch

from encoders import augmentation
from encoders.augmentation import REACH, jittered, worst_shift


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing moves but what a test sets, and every draw is the largest that there is."""
    for name in ("TURN", "STRETCH", "SHIFT"):
        monkeypatch.setattr(augmentation, name, 0.0)
    monkeypatch.setattr(torch, "rand", lambda *size, device=None: torch.ones(size, device=device))
    return monkeypatch


def spot(row: int, column: int, size: int = 28) -> torch.Tensor:
    image = torch.zeros(1, 1, size, size)
    image[0, 0, row, column] = 1
    return image


def test_without_limits_an_image_is_its_own_copy(only: pytest.MonkeyPatch) -> None:
    images = torch.rand_like(torch.empty(3, 2, 28, 20))
    assert torch.allclose(jittered(images), images, atol=1e-5)


def test_a_shift_is_two_pixels_of_28(only: pytest.MonkeyPatch) -> None:
    only.setattr(augmentation, "SHIFT", 2 / 28)
    assert torch.allclose(jittered(spot(10, 12)), spot(8, 10), atol=1e-5)  # what is read lies further down and right


def test_a_quarter_turn_sends_the_top_to_the_left(only: pytest.MonkeyPatch) -> None:
    only.setattr(augmentation, "TURN", torch.pi / 2)
    assert torch.allclose(jittered(spot(0, 13)), spot(14, 0), atol=1e-5)


def test_stretching_to_double_reads_every_second_pixel(only: pytest.MonkeyPatch) -> None:
    only.setattr(augmentation, "STRETCH", 1.0)
    ramp = torch.arange(28.0).expand(1, 1, 28, 28)  # its value is the column
    inside = jittered(ramp)[0, 0, 14, 7:21]
    assert torch.allclose(inside, 2 * (torch.arange(7.0, 21.0) - 13.5) + 13.5, atol=1e-4)


def test_each_image_goes_its_own_way_and_stays_in_range() -> None:
    torch.manual_seed(0)
    images = torch.rand(1, 3, 32, 32).expand(6, 3, 32, 32)
    copies = jittered(images)
    assert copies.shape == images.shape and copies.dtype == torch.float32
    assert float(copies.min()) >= 0 and float(copies.max()) <= 1
    assert all(not torch.allclose(copies[i], copies[j], atol=1e-2) for i in range(6) for j in range(i))


def test_a_constant_image_stays_constant() -> None:
    assert torch.allclose(jittered(torch.full((4, 1, 28, 28), 0.7)), torch.tensor(0.7))


def test_half_precision_around_it_moves_no_pixel() -> None:
    torch.manual_seed(1)
    wanted = jittered(spot(10, 12))
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(jittered(spot(10, 12)), wanted)


def test_the_worst_shift_goes_up_the_gradient_as_far_as_allowed() -> None:
    torch.manual_seed(0)
    x, slope = torch.rand(5, 1, 28, 28), torch.randn(5, 1, 28, 28)
    shift = worst_shift(x, lambda seen: (slope * (seen - x)).sum())
    assert torch.allclose(shift.flatten(1).norm(dim=1), torch.tensor(REACH * 28))  # 1.5 of an image of MNIST
    cosine = torch.nn.functional.cosine_similarity(shift.flatten(1), slope.flatten(1))
    assert torch.allclose(cosine, torch.ones(5))


def test_where_nothing_changes_no_shift_is_worst() -> None:
    x = torch.rand(2, 3, 32, 32)
    assert not worst_shift(x, lambda seen: 0 * seen.sum()).any()
