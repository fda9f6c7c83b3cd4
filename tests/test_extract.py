"""Freezing is proved: whatever would give other features another time, or in another batch, is refused by name."""

import typing as t

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.extract import NotFrozen, extract, weights_hash
from encoders.base import EncoderError, ImageSet, frozen

CPU = torch.device("cpu")
RANDOM = np.random.default_rng(0)
IMAGES = ImageSet(RANDOM.integers(0, 256, (1100, 1, 4, 4), dtype=np.uint8), None, ("a", "b"), "random")


class Net(nn.Module):
    """Sixteen pixels through a layer and whatever a test adds."""

    def __init__(self, then: t.Callable[[nn.Module, Tensor], Tensor] = lambda _, x: x) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(16, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.then = then

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.then(self, self.layer(images.flatten(1).float() / 255))}


def test_features_are_those_of_each_image_in_order() -> None:
    net = frozen(Net())
    features = extract("net", net, IMAGES, ("out",), CPU)["out"]
    pixels = torch.from_numpy(IMAGES.images).flatten(1).float() / 255
    assert features.dtype == torch.float32
    assert torch.allclose(features, net.layer(pixels), atol=1e-6)


def test_a_module_in_training_mode_is_refused() -> None:
    net = frozen(Net())
    net.layer.train()
    with pytest.raises(NotFrozen, match="encoder 'net' is not frozen: in training mode: layer"):
        extract("net", net, IMAGES, ("out",), CPU)


def test_a_module_that_still_learns_is_refused() -> None:
    net = frozen(Net())
    net.layer.weight.requires_grad_(True)
    with pytest.raises(NotFrozen, match=r"still asks for gradients: layer\.weight"):
        extract("net", net, IMAGES, ("out",), CPU)


def count(net: nn.Module, x: Tensor) -> Tensor:
    net.calls += 1
    return x


def test_a_module_that_changes_its_buffers_is_refused() -> None:
    with pytest.raises(NotFrozen, match="parameters or buffers changed"):
        extract("net", frozen(Net(count)), IMAGES, ("out",), CPU)


def test_features_that_depend_on_the_batch_are_refused() -> None:
    with pytest.raises(NotFrozen, match="at tap 'out' an image's features depend on the other images"):
        extract("net", frozen(Net(lambda _, x: x - x.mean(dim=0))), IMAGES, ("out",), CPU)


@pytest.mark.parametrize(
    "then",
    [
        lambda _, x: x - x[:1],
        lambda _, x: x - x[:8].mean(dim=0),
        lambda _, x: x / len(x),
        lambda _, x: x.flip(0),
    ],
    ids=["first of the batch", "first eight", "size of the batch", "place in the batch"],
)
def test_features_that_depend_on_the_batch_in_other_ways_are_refused(then: t.Callable[..., Tensor]) -> None:
    with pytest.raises(NotFrozen, match="depend on the other images"):
        extract("net", frozen(Net(then)), IMAGES, ("out",), CPU)


def test_features_that_change_from_call_to_call_are_refused() -> None:
    calls = iter(range(1000))
    drift = frozen(Net(lambda _, x: x + 1e-6 * next(calls) ** 3))  # too slow to be seen between two calls
    with pytest.raises(NotFrozen, match=r"other features later|depend on"):
        extract("net", drift, IMAGES, ("out",), CPU)


def test_features_that_depend_on_chance_are_refused() -> None:
    with torch.random.fork_rng(), pytest.raises(NotFrozen, match="or on chance"):
        extract("net", frozen(Net(lambda _, x: nn.functional.dropout(x, 0.5))), IMAGES, ("out",), CPU)


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(EncoderError, match="tap 'out': 1100 of 1100 images have NaN or infinite features"):
        extract("net", frozen(Net(lambda _, x: x / 0)), IMAGES, ("out",), CPU)


def test_taps_must_be_those_promised() -> None:
    with pytest.raises(EncoderError, match="promised the taps code and gave out"):
        extract("net", frozen(Net()), IMAGES, ("code",), CPU)


def test_features_must_be_rows() -> None:
    with pytest.raises(EncoderError, match=r"features must be \(n, d\)"):
        extract("net", frozen(Net(lambda _, x: x[:, :, None])), IMAGES, ("out",), CPU)


def test_the_hash_sees_every_parameter_and_buffer() -> None:
    net = frozen(Net())
    before = weights_hash(net)
    assert before == weights_hash(net)
    net.calls += 1
    assert weights_hash(net) != before
