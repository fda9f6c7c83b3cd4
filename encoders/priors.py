"""Distributions that an adversarial autoencoder's codes should follow: what its discriminator calls real.

Each draws float32 rows (count, dimensions) from torch's global generator on the device asked for. The two-dimensional
figures stand in every pair of a longer code. Source: Makhzani et al. 2015, arXiv:1511.05644, sections 2.3, 4 and 5;
what the paper leaves open of their geometry is as in its public implementations (musyoku/adversarial-autoencoder,
conan7882/adversarial-autoencoders).
"""

import abc
import math
import typing as t
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


class Prior(t.Protocol):
    """Anything that codes can be drawn from."""

    def sample(self, count: int, device: torch.device) -> Tensor: ...


@dataclass(frozen=True)
class Gaussian:
    """N(0, std^2) in each dimension."""

    dimensions: int
    std: float = 1.0

    def sample(self, count: int, device: torch.device) -> Tensor:
        return torch.randn(count, self.dimensions, device=device) * self.std


@dataclass(frozen=True)
class Uniform:
    """Uniform on (-limit, limit) in each dimension."""

    dimensions: int
    limit: float = 2.0  # hjweide/adversarial-autoencoder's, whose README reports the authors' advice

    def sample(self, count: int, device: torch.device) -> Tensor:
        return (torch.rand(count, self.dimensions, device=device) * 2 - 1) * self.limit


@dataclass(frozen=True)
class _Figure(abc.ABC):
    """A two-dimensional distribution in each pair of dimensions; pairs choose their components independently."""

    dimensions: int  # even
    components: int = 10

    def sample(self, count: int, device: torch.device) -> Tensor:
        return self._draw(torch.randint(self.components, (count, self.dimensions // 2), device=device))

    def sample_of(self, component: Tensor) -> Tensor:
        """Rows whose every pair lies in the component named."""
        return self._draw(component[:, None].expand(-1, self.dimensions // 2))

    @abc.abstractmethod
    def _draw(self, component: Tensor) -> Tensor:
        """Components (n, pairs) -> codes (n, dimensions)."""


@dataclass(frozen=True)
class MixtureOfGaussians(_Figure):
    """Petals around the origin: component k lies in the direction 2 pi k / components and is stretched along it."""

    distance: float = 1.4  # of a petal's middle from the origin
    length: float = 0.5  # standard deviation along the petal
    width: float = 0.05  # and across it

    def _draw(self, component: Tensor) -> Tensor:
        angle = component * (2 * math.pi / self.components)
        along = torch.randn(component.shape, device=component.device) * self.length + self.distance
        across = torch.randn(component.shape, device=component.device) * self.width
        x = along * angle.cos() - across * angle.sin()
        y = along * angle.sin() + across * angle.cos()
        return torch.stack([x, y], dim=2).flatten(1)


@dataclass(frozen=True)
class SwissRoll(_Figure):
    """Two turns of a spiral without thickness, radius 0 to 3, in slices of equal probability from the inside out."""

    radius: float = 3.0
    turns: float = 2.0

    def _draw(self, component: Tensor) -> Tensor:
        within = torch.rand(component.shape, device=component.device)
        way = ((component + within) / self.components).sqrt()  # the root spreads the rows evenly over the length
        angle = way * (2 * math.pi * self.turns)
        return torch.stack([self.radius * way * angle.cos(), self.radius * way * angle.sin()], dim=2).flatten(1)


@dataclass(frozen=True)
class Categorical:
    """One-hot rows, each of the components as likely as any other."""

    components: int

    def sample(self, count: int, device: torch.device) -> Tensor:
        return self.sample_of(torch.randint(self.components, (count,), device=device))

    def sample_of(self, component: Tensor) -> Tensor:
        return F.one_hot(component, self.components).float()
