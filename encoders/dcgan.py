"""DCGAN: a convolutional discriminator's layers, pooled to 4x4 and concatenated.

Source: Radford, Metz, Chintala 2015, arXiv:1511.06434, with the 5x5 kernels and 64-128-256 channels of the authors'
32x32 discriminator (Newmu/dcgan_code, svhn). The layers follow the size of the image: three at 28x28 and 32x32.
Trained on the dataset it is scored on; the paper's CIFAR-10 number used a discriminator trained on ImageNet.
"""

import math
import typing as t

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import objectives
from encoders.base import Encoder, Features, ImageSet, ImageShape, Training
from encoders.networks import STD, double, half, halvings, normal_weights
from encoders.training import Adam, Player, Turn, settle, train

KERNEL = 5


class DCGAN(Encoder):
    """Generator against discriminator, both convolutional, one step each in turn."""

    source: t.ClassVar[str] = "Radford et al. 2015, arXiv:1511.06434"

    latent: PositiveInt = 100  # dimensions of the noise, uniform on (-1, 1)
    width: PositiveInt = 64  # channels of the first layer; doubled by each one after it
    layers: PositiveInt = 3  # at most; fewer where the images are small
    epochs: NonNegativeInt = 25
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat = 2e-4
    beta1: NonNegativeFloat = 0.5

    @property
    def taps(self) -> tuple[str, ...]:
        return ("last", "all")

    def build(self, shape: ImageShape) -> "_Discriminator":
        return _Discriminator(shape, self.width, self.layers)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            taps = self.build(data.shape)
            generator = _Generator(data.shape, self.latent, self.width, self.layers)

        def sample(count: int, device: torch.device) -> Tensor:
            return generator(torch.rand(count, self.latent, device=device) * 2 - 1)

        def judge(images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                fake = sample(len(images), images.device)
            return {"discriminator": objectives.cross_entropy(taps.logits(_signed(images)), taps.logits(fake))}

        def fool(images: Tensor) -> dict[str, Tensor]:
            return {"generator": objectives.non_saturating(taps.logits(sample(len(images), images.device)))}

        adam = Adam(self.learning_rate, self.beta1)
        players = [Player("discriminator", [taps], adam), Player("generator", [generator], adam)]
        train(run, data, players, [Turn(judge), Turn(fool)], self.epochs, self.batch_size)
        return settle(taps, data, run)


class _Discriminator(nn.Module):
    """Strided convolutions with LeakyReLU(0.2), batch-norm in all but the first. Images in [-1, 1]; logits (b,)."""

    def __init__(self, shape: ImageShape, width: int, layers: int) -> None:
        super().__init__()
        sizes = halvings(shape, KERNEL)[: layers + 1]
        widths = [shape[0], *(width << layer for layer in range(len(sizes) - 1))]
        self.convs = nn.ModuleList(half(i, o, KERNEL) for i, o in zip(widths, widths[1:]))
        self.norms = nn.ModuleList([nn.Identity(), *(nn.BatchNorm2d(channels) for channels in widths[2:])])
        self.last = nn.Linear(widths[-1] * math.prod(sizes[-1]), 1, bias=False)
        _initialise(self)

    def forward(self, images: Tensor) -> Features:
        pooled = [F.adaptive_max_pool2d(layer, 4).flatten(1) for layer in self._layers(_signed(images))]
        return {"last": pooled[-1], "all": torch.cat(pooled, dim=1)}  # 4,096-d and 7,168-d at 28x28 and 32x32

    def logits(self, x: Tensor) -> Tensor:
        return self.last(self._layers(x)[-1].flatten(1)).squeeze(1)

    def _layers(self, x: Tensor) -> list[Tensor]:
        layers = []
        for conv, norm in zip(self.convs, self.norms):
            x = F.leaky_relu(norm(conv(x)), 0.2)
            layers.append(x)
        return layers


class _Generator(nn.Module):
    """The discriminator's mirror with ReLU, batch-norm in all but the last. Gives images in [-1, 1]."""

    def __init__(self, shape: ImageShape, latent: int, width: int, layers: int) -> None:
        super().__init__()
        sizes = halvings(shape, KERNEL)[: layers + 1]
        widths = [shape[0], *(width << layer for layer in range(len(sizes) - 1))]
        self.start = (widths[-1], *sizes[-1])
        self.dense = nn.Linear(latent, math.prod(self.start), bias=False)
        grow: list[nn.Module] = [nn.BatchNorm2d(widths[-1]), nn.ReLU()]
        for layer in range(len(sizes) - 1, 0, -1):
            grow.append(double(widths[layer], widths[layer - 1], KERNEL, sizes[layer], sizes[layer - 1]))
            if layer > 1:
                grow += [nn.BatchNorm2d(widths[layer - 1]), nn.ReLU()]
        self.grow = nn.Sequential(*grow, nn.Tanh())
        _initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.grow(self.dense(z).view(-1, *self.start))


def _initialise(network: nn.Module) -> None:
    network.apply(normal_weights)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1, STD)


def _signed(images: Tensor) -> Tensor:
    """Bytes -> floats in [-1, 1]."""
    return images.float().div_(127.5).sub_(1)
