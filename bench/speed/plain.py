"""Methods as repositories write them: a DataLoader of transformed images, forward passes for each update, Adam."""

import typing as t

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from bench.speed.race import seconds_of
from encoders import networks
from encoders.aae import AAE
from encoders.base import ImageSet, ImageShape

BATCH = 128


class Transformed(Dataset[Tensor]):
    """A dataset as torchvision has them: an image becomes a PIL image and then, by ToTensor, floats when asked for."""

    def __init__(self, images: ImageSet, signed: bool = False) -> None:
        from bench.datasets._torchvision import torchvision  # noqa: PLC0415 - heavy, and needed for nothing else

        self.pixels = images.images.transpose(0, 2, 3, 1).squeeze()  # (n, h, w) or (n, h, w, 3)
        steps = [torchvision.transforms.ToTensor()]
        steps += [torchvision.transforms.Normalize(0.5, 0.5)] if signed else []
        self.transform = torchvision.transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(Image.fromarray(self.pixels[index]))


class Plain(t.NamedTuple):
    """A method as repositories write it: alternating updates with forward passes of their own, float32, Adam as is."""

    step: t.Callable[[Tensor], None]  # on a batch of floats
    optimizers: list[torch.optim.Optimizer]
    taps: nn.Module  # uint8 images -> features

    @property
    def weights(self) -> int:
        """How many a step moves."""
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        return sum(parameter.numel() for group in groups for parameter in group["params"])


def _adam(learning_rate: float, *parts: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for part in parts for p in part.parameters()], learning_rate, (0.5, 0.999))


def _move(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def plain_bigan(shape: ImageShape, device: torch.device) -> Plain:
    """Discriminator, then generator and encoder."""
    encoder = networks.BiGANEncoder(shape, 50).to(device)
    generator = networks.BiGANGenerator(shape, 50).to(device)
    discriminator = networks.BiGANDiscriminator(shape, 50).to(device)
    judge, fool = _adam(2e-4, discriminator), _adam(2e-4, generator, encoder)
    ones, zeros = torch.ones(BATCH, device=device), torch.zeros(BATCH, device=device)

    def loss(x: Tensor, z: Tensor, real: Tensor, fake: Tensor) -> Tensor:
        of_real = discriminator(x, torch.tanh(encoder(x)[1] / 2))
        of_fake = discriminator(generator(z), z)
        return F.binary_cross_entropy_with_logits(of_real, real) + F.binary_cross_entropy_with_logits(of_fake, fake)

    def step(x: Tensor) -> None:
        z = torch.rand(len(x), 50, device=device) * 2 - 1
        _move(judge, loss(x, z, ones, zeros))
        _move(fool, loss(x, z, zeros, ones))

    return Plain(step, [judge, fool], networks.CodeTaps(encoder, networks.Squash()))


def plain_aae(shape: ImageShape, device: torch.device) -> Plain:
    """Reconstruction, discriminator, encoder."""
    encoder, decoder = networks.MLPEncoder(shape, 8).to(device), networks.MLPDecoder(shape, 8).to(device)
    discriminator = networks.CodeDiscriminator(8).to(device)
    reconstruct, judge, hide = _adam(2e-4, encoder, decoder), _adam(1e-4, discriminator), _adam(1e-4, encoder)
    ones, zeros = torch.ones(BATCH, device=device), torch.zeros(BATCH, device=device)

    def step(x: Tensor) -> None:
        _move(reconstruct, F.mse_loss(decoder(encoder(x)[1]), x))
        prior = torch.randn(len(x), 8, device=device) * AAE().prior_std
        of_prior, of_code = discriminator(prior), discriminator(encoder(x)[1].detach())
        real = F.binary_cross_entropy_with_logits(of_prior, ones)
        _move(judge, real + F.binary_cross_entropy_with_logits(of_code, zeros))
        _move(hide, F.binary_cross_entropy_with_logits(discriminator(encoder(x)[1]), ones))

    return Plain(step, [reconstruct, judge, hide], networks.CodeTaps(encoder, nn.Identity()))


def plain_dcgan(shape: ImageShape, device: torch.device) -> Plain:
    """Discriminator on real and generated images, then generator on the same noise."""
    discriminator = networks.DCGANDiscriminator(shape, 64, 3).to(device)
    generator = networks.DCGANGenerator(shape, 100, 64, 3).to(device)
    judge, fool = _adam(2e-4, discriminator), _adam(2e-4, generator)
    ones, zeros = torch.ones(BATCH, device=device), torch.zeros(BATCH, device=device)

    def step(x: Tensor) -> None:
        fake = generator(torch.rand(len(x), 100, device=device) * 2 - 1)
        real = F.binary_cross_entropy_with_logits(discriminator.logits(x), ones)
        _move(judge, real + F.binary_cross_entropy_with_logits(discriminator.logits(fake.detach()), zeros))
        _move(fool, F.binary_cross_entropy_with_logits(discriminator.logits(fake), ones))

    return Plain(step, [judge, fool], discriminator)


def plain_epoch(plain: Plain, images: ImageSet, device: torch.device, signed: bool = False) -> float:
    """Seconds of one epoch of a plain loop, and its networks trained by it."""
    loader = DataLoader(Transformed(images, signed), BATCH, shuffle=True, drop_last=True)

    def epoch() -> None:
        for x in loader:
            plain.step(x.to(device))

    return seconds_of(epoch, device)
