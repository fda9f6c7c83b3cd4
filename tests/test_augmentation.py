"""Changed copies of images: what they keep, how far they go, and that each image goes its own way."""

import dataclasses

import numpy as np
import pytest
import torch

from encoders import views
from encoders.base import EncoderError, seeded
from encoders.views import (
    DRAWS,
    PRESETS,
    REACH,
    View,
    check_changes,
    jitter_matrix,
    jittered,
    preset,
    quarter_turns,
    views_of,
    worst_shift,
)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing moves but what a test sets, and every draw is the largest that there is."""
    for name in ("TURN", "STRETCH", "SHIFT"):
        monkeypatch.setattr(views, name, 0.0)
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
    only.setattr(views, "SHIFT", 2 / 28)
    assert torch.allclose(jittered(spot(10, 12)), spot(8, 10), atol=1e-5)  # what is read lies further down and right


def test_a_quarter_turn_sends_the_top_to_the_left(only: pytest.MonkeyPatch) -> None:
    only.setattr(views, "TURN", torch.pi / 2)
    assert torch.allclose(jittered(spot(0, 13)), spot(14, 0), atol=1e-5)


def test_stretching_to_double_reads_every_second_pixel(only: pytest.MonkeyPatch) -> None:
    only.setattr(views, "STRETCH", 1.0)
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


@pytest.fixture
def colours() -> torch.Tensor:
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def seen(view: View, x: torch.Tensor, seed: int = 0) -> torch.Tensor:
    with seeded(seed, "step", 1):
        return views_of(x, [view])[0]


@pytest.mark.parametrize(
    "view",
    [
        View(),
        View(jitter=1.0),  # of factors 1 and no turn of the hue
        View(crop=1.0, flip=0.0),
    ],
    ids=str,
)
def test_a_view_that_changes_nothing_is_the_image(view: View, colours: torch.Tensor) -> None:
    assert torch.allclose(seen(view, colours), colours, atol=1e-6)


@pytest.mark.parametrize(
    ("view", "wanted"),
    [
        (View(flip=1.0), lambda x: x.flip(3)),
        (View(solarize=1.0), lambda x: torch.where(x >= 0.5, 1 - x, x)),
        (
            View(grey=1.0),
            lambda x: (0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]).expand(-1, 3, -1, -1),
        ),
    ],
    ids=["flip", "solarize", "grey by BT.601"],
)
def test_a_certain_change_is_what_its_name_says(view: View, wanted: object, colours: torch.Tensor) -> None:
    assert torch.allclose(seen(view, colours), wanted(colours), atol=1e-6)  # type: ignore[operator]


def drawn(count: int, **chosen: float) -> torch.Tensor:
    """Uniform numbers of 1/2, but for those of the crop (area, ratio, down, right) that are given."""
    draws = torch.full((count, sum(DRAWS)), 0.5)
    for place, name in enumerate(("area", "ratio", "down", "right")):
        draws[:, place] = chosen.get(name, 0.5)
    return draws


def test_a_crop_enlarges_its_part_as_torch_does() -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    quarter = View(crop=0.25)(x, drawn(2, area=0.0, down=0.5, right=1.0))  # rows 8 to 23, columns 16 to 31
    wanted = torch.nn.functional.interpolate(x[:, :, 8:24, 16:], size=(32, 32), mode="bilinear", align_corners=False)
    assert torch.allclose(quarter, wanted, atol=1e-5)


def test_a_blur_is_gaussian_and_keeps_constant_images() -> None:
    draws = drawn(1)  # of the middle deviation, 1.05 pixels
    spread = View(blur=1.0)(spot(16, 16, 33), draws)[0, 0]
    wanted = np.exp(-(np.subtract.outer(np.arange(33), [16]).ravel() ** 2) / (2 * 1.05**2))
    assert torch.allclose(spread, torch.from_numpy(np.outer(wanted, wanted) / wanted.sum() ** 2).float(), atol=1e-6)
    assert torch.allclose(View(blur=1.0)(torch.full((1, 3, 9, 9), 0.3), draws), torch.tensor(0.3))


def test_a_shift_repeats_the_edge() -> None:
    ramp = torch.arange(16.0).expand(1, 1, 16, 16) / 16
    draws = drawn(1)
    draws[:, 18:20] = torch.tensor([0.5, 1.0])  # down and right
    assert torch.allclose(View(shift=1 / 8)(ramp, draws)[0, 0, 0, -4:] * 16, torch.tensor([14.0, 15.0, 15.0, 15.0]))


@pytest.mark.parametrize(
    ("amounts", "wanted"),
    [
        ((0.5, 0, 0, 0), lambda x, mean: 1.5 * x),
        ((0, 0.5, 0, 0), lambda x, mean: 1.5 * x - 0.5 * (mean @ np.array([0.299, 0.587, 0.114]))),
        ((0, 0, -1, 0), lambda x, mean: np.repeat([[x @ np.array([0.299, 0.587, 0.114])]], 3, axis=1)[0]),
        ((0.5, -1, 0, 0), lambda x, mean: np.full(3, 1.5 * mean @ np.array([0.299, 0.587, 0.114]))),  # of the brighter
    ],
    ids=["brightness", "contrast", "saturation", "contrast after brightness"],
)
def test_jitter_is_torchvisions_formula(amounts: tuple[float, ...], wanted: object) -> None:
    rng = np.random.default_rng(0)
    colour, mean = rng.random(3), rng.random(3)
    matrix = jitter_matrix(
        torch.tensor(mean).float()[None], torch.tensor([amounts], dtype=torch.float32), torch.arange(4)[None]
    )[0].numpy()
    assert matrix[:3] @ [*colour, 1] == pytest.approx(wanted(colour, mean), abs=1e-6)  # type: ignore[operator]


def test_hue_keeps_grey_and_returns_after_a_whole_turn() -> None:
    mean, order = torch.rand(1, 3), torch.arange(4)[None]
    half = jitter_matrix(mean, torch.tensor([[0, 0, 0, 0.5]]), order)[0]
    assert torch.allclose(half @ torch.tensor([0.4, 0.4, 0.4, 1]), torch.tensor([0.4, 0.4, 0.4, 1]), atol=1e-3)
    assert torch.allclose(half @ half, torch.eye(4), atol=1e-5)
    assert not torch.allclose(half, torch.eye(4), atol=0.1)


@pytest.mark.parametrize("name", PRESETS)
def test_every_image_of_a_batch_has_draws_of_its_own(name: str) -> None:
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2)).expand(8, 3, 32, 32)
    for view in views_of(x, PRESETS[name]):
        assert view.shape == x.shape and view.dtype == torch.float32
        assert float(view.min()) >= 0 and float(view.max()) <= 1 + 1e-6
        assert all(not torch.allclose(view[i], view[j], atol=1e-2) for i in range(8) for j in range(i))


@pytest.mark.parametrize("name", PRESETS)
def test_views_are_a_pure_function_of_seed_and_step(name: str, colours: torch.Tensor) -> None:
    def both(step: int, x: torch.Tensor) -> list[torch.Tensor]:
        with seeded(3, "step", step), torch.autocast("cpu", torch.bfloat16):
            return views_of(x, PRESETS[name])

    first, again, later = both(1, colours), both(1, colours), both(2, colours)
    assert all(torch.equal(a, b) and not torch.allclose(a, c, atol=1e-2) for a, b, c in zip(first, again, later))
    assert not torch.allclose(*first, atol=1e-2)  # two views of one image
    fewer = both(1, colours[:2])
    assert all(torch.allclose(a[:2], b, atol=1e-6) for a, b in zip(first, fewer))  # the batch's size changes no draw


def test_the_data_choose_their_views() -> None:
    assert preset(None, "symmetric", (3, 32, 32)) == PRESETS["symmetric"]
    assert preset(None, "symmetric", (1, 28, 28)) == PRESETS["digits"] == preset("digits", "symmetric", (3, 32, 32))
    with pytest.raises(EncoderError, match=r"the images have 1 channels; set `views: digits`"):
        preset("solarized", "symmetric", (1, 28, 28))


def test_views_that_do_nothing_are_named(colours: torch.Tensor) -> None:
    check_changes(colours, PRESETS["symmetric"])
    with pytest.raises(EncoderError, match="views of 6 training images do not differ from the images"):
        check_changes(colours, (View(), View()))
    with pytest.raises(EncoderError, match="look at the images"):
        check_changes(torch.zeros(5, 1, 28, 28), PRESETS["digits"])


def test_quarter_turns_are_torchs(colours: torch.Tensor) -> None:
    turned = quarter_turns(colours, torch.tensor([0, 1, 2, 3, 4, 1]))
    assert all(torch.equal(turned[i], torch.rot90(colours[i], k, (1, 2))) for i, k in enumerate((0, 1, 2, 3, 0, 1)))


def test_half_precision_around_a_view_moves_no_pixel(colours: torch.Tensor) -> None:
    view = dataclasses.replace(PRESETS["symmetric"][0], affine=True)
    with torch.autocast("cpu", torch.bfloat16):
        inside = seen(view, colours)
    assert torch.equal(inside, seen(view, colours))
