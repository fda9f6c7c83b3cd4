"""Corrupted images, of which the pixels are known without running the code."""

import pytest
import torch
from torch import Tensor

from bench.datasets.corruptions import KINDS, SEVERITIES, blur, contrast, corrupt, noise, occlusion, rotation

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 6, 9)]


def images(count: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, *shape), dtype=torch.uint8, generator=generator)


def drawing() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_damage_keeps_the_form_and_grows_with_severity(kind: str, shape: tuple[int, int, int]) -> None:
    clean = images(4, *shape)
    kept = clean.clone()
    made = [corrupt(clean, kind, severity, seed=3) for severity in (0, *SEVERITIES)]
    assert torch.equal(clean, kept)
    assert torch.equal(made[0], clean) and made[0].data_ptr() != clean.data_ptr()
    assert all(one.dtype == torch.uint8 and one.shape == clean.shape for one in made)
    distances = [float((one.float() - clean.float()).square().mean()) for one in made]
    assert distances[-1] > max(distances[0], distances[1])
    if kind != "rotation":  # which soon is as far as it goes
        assert distances == sorted(distances)


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_a_function_of_the_seed_and_leave_the_random_state(kind: str) -> None:
    clean, state = images(40, 1, 12, 12), torch.get_rng_state()
    once = corrupt(clean, kind, 3, seed=1)
    assert torch.equal(corrupt(clean, kind, 3, seed=1), once)
    assert torch.equal(corrupt(clean, kind, 3, seed=2), once) == (kind in ("blur", "contrast"))  # these draw nothing
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_has_its_deviation_and_no_mean() -> None:
    added = noise(torch.full((10, 1, 50, 50), 128.0), 0.1, drawing()) - 128
    assert float(added.mean()) == pytest.approx(0, abs=1)  # standard error 0.16
    assert float(added.std()) == pytest.approx(25.5, rel=0.03)


def test_pixels_stay_in_range_and_round_to_the_nearest() -> None:
    black, white = torch.zeros(1, 1, 30, 30, dtype=torch.uint8), torch.full((1, 1, 30, 30), 255, dtype=torch.uint8)
    assert int((corrupt(black, "noise", 5, 0) == 0).sum()) in range(380, 520)  # half of 900 would be below
    assert int((corrupt(white, "noise", 5, 0) == 255).sum()) in range(380, 520)


def test_blur_spreads_a_point_like_a_gaussian_and_keeps_a_plane() -> None:
    point = torch.zeros(1, 3, 21, 21)
    point[0, 1, 10, 10] = 100
    spread = blur(point, 2 / 21, drawing())  # two pixels
    assert float(spread[0, 1].sum()) == pytest.approx(100, rel=1e-5)
    assert not spread[0, [0, 2]].any()
    fallen = spread[0, 1, 10, 12] / spread[0, 1, 10, 10]
    assert float(fallen) == pytest.approx(0.60653, rel=1e-4)  # exp(-2^2 / (2 * 2^2))
    assert torch.allclose(spread[0, 1], spread[0, 1].T)
    plane = torch.full((2, 1, 9, 7), 40.0)
    assert torch.allclose(blur(plane, 0.3, drawing()), plane)


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_a_quarter_turn_is_that_of_rot90(shape: tuple[int, int, int]) -> None:
    clean = images(20, *shape).float()
    turned = rotation(clean, 90, drawing())
    ways = {1: 0, -1: 0}
    for before, after in zip(clean, turned):
        for way in ways:
            ways[way] += torch.allclose(after, torch.rot90(before, way, (1, 2)), atol=0.05)
    assert sum(ways.values()) == 20 and min(ways.values()) > 2  # to either side


def test_a_half_turn_of_an_oblong_is_a_flip_of_both_axes() -> None:
    clean = images(3, 1, 6, 9).float()
    assert torch.allclose(rotation(clean, 180, drawing()), clean.flip(2, 3), atol=0.05)


def test_an_oblong_is_turned_and_not_sheared() -> None:
    bar = torch.zeros(1, 1, 11, 21)
    bar[0, 0, 5, 6:15] = 1  # nine pixels across the centre
    upright = rotation(bar, 90, drawing())[0, 0]
    assert torch.allclose(upright[1:10, 10], torch.ones(9), atol=1e-4)
    assert float(upright.sum()) == pytest.approx(9, abs=1e-3)


def test_occlusion_is_one_grey_square_inside_and_everywhere_in_turn() -> None:
    hidden = occlusion(torch.zeros(200, 3, 10, 12), 0.4, drawing()) == 128
    assert torch.equal(hidden.sum(dim=(2, 3)), torch.full((200, 3), 16))
    assert torch.equal(hidden.any(dim=3).sum(dim=2), torch.full((200, 3), 4))  # 4 x 4
    assert bool(hidden.any(dim=0).all())


def test_contrast_keeps_the_mean_and_its_share_of_the_distance() -> None:
    clean = torch.tensor([[[[0.0, 200.0]], [[50.0, 50.0]]]])  # two channels of two pixels
    assert torch.allclose(contrast(clean, 0.1, drawing()), torch.tensor([[[[90.0, 110.0]], [[50.0, 50.0]]]]))
