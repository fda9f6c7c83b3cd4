"""ALI: a stochastic encoder, learned as BiGAN's is, whose codes are samples of a Gaussian for each image.

Source: Dumoulin et al. 2017, arXiv:1606.00704, with the networks and settings for CIFAR-10 of the authors' code
(IshmaelBelghazi/ALI). Features are deterministic: the code is the posterior's mean.
Differs: at other sizes than 32x32 the last large convolution spans what is left (3x3 at 28x28); `mlp` takes BiGAN's
perceptrons, as the paper has none.
"""

import typing as t

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import networks, objectives, parameters
from encoders.base import EncoderError, Features, Generative, ImageSet, ImageShape, Training
from encoders.batch_norm import finish
from encoders.networks import unit
from encoders.players import Adam, Player, Turn
from encoders.training import train

SQUARES = ((5, 1), (4, 2), (4, 1), (4, 2))  # kernel and stride of the first convolutions
WIDTHS = (32, 64, 128, 256, 512)  # channels of those and of the one that leaves 1x1
STD = 0.01  # of every initial weight
SLOPE = 0.1  # of the leaky units


class ALI(Generative):
    """Encoder and generator, trained together against a discriminator of (image, code) pairs; codes are sampled."""

    version: t.ClassVar[int] = 2
    equal_versions: t.ClassVar = {"float32": ((2, 1),)}  # 2 moved what saturates in bfloat16
    source: t.ClassVar[str] = "Dumoulin et al. 2017, arXiv:1606.00704"

    body: t.Literal["conv", "mlp"] = "conv"
    """Networks: the paper's convolutions (conv), or BiGAN's perceptrons (mlp)."""
    latent: PositiveInt = 64
    """Dimensions of the code, which is standard normal."""
    hidden: PositiveInt = 1024
    """Units of each hidden layer; only for the body mlp."""
    epochs: NonNegativeInt = 100
    """Passes over the training images. 100 is the paper's for SVHN; it takes 6,475 for CIFAR-10."""
    batch_size: parameters.BatchSize = 100
    learning_rate: parameters.LearningRate = 1e-4
    discriminator_learning_rate: parameters.DiscriminatorLearningRate = None
    beta1: parameters.Beta1 = 0.5

    @property
    def taps(self) -> tuple[str, ...]:
        return ("penultimate", "code") if self.body == "mlp" else ("penultimate", "code", "all")

    def build(self, shape: ImageShape) -> "_Taps":
        if self.body == "mlp":
            return _Taps(networks.BiGANEncoder(shape, 2 * self.latent, self.hidden))
        return _Taps(_Encoder(shape, self.latent))

    @property
    def codes_are_means(self) -> bool:
        return True

    def build_generator(self, shape: ImageShape) -> nn.Module:
        if self.body == "mlp":
            return networks.BiGANGenerator(shape, self.latent, self.hidden)
        return _Generator(shape, self.latent)

    def draw(self, count: int, device: torch.device) -> Tensor:
        return torch.randn(count, self.latent, device=device)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            taps = self.build(data.shape)
            generator = self.build_generator(data.shape)
            if self.body == "mlp":
                discriminator: nn.Module = networks.BiGANDiscriminator(data.shape, self.latent, self.hidden)
            else:
                discriminator = _Discriminator(data.shape, self.latent)
        if isinstance(generator, _Generator):
            generator.start_at(data)
        divergence = objectives.divergence("gan")

        def play(images: Tensor) -> dict[str, Tensor]:
            x = unit(images)
            z = self.draw(len(x), x.device)
            mean, log_std = taps.body(x)[1].float().chunk(2, dim=1)
            real = discriminator(x, mean + log_std.exp() * torch.randn_like(mean))
            fake = discriminator(generator(z), z)
            loss = divergence.discriminator_loss(real, fake)
            return {
                "discriminator": loss,
                "generator": divergence.pair_loss(real, fake, "non_saturating"),
                divergence.observed: divergence.estimate(loss),
            }

        judging = Adam(self.discriminator_learning_rate or self.learning_rate, self.beta1)
        players = [
            Player("discriminator", [discriminator], judging),
            Player("generator", [generator, taps.body], Adam(self.learning_rate, self.beta1)),
        ]
        train(run, data, players, [Turn(play, observes=(divergence.observed,))], self.epochs, self.batch_size)
        return finish(taps, generator, self.draw, data, run)


class _Taps(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Tensor) -> Features:
        layers, posterior = self.body(unit(images))
        mean = posterior.chunk(2, dim=1)[0]
        features = {"penultimate": layers["penultimate"], "code": mean}
        if "below" in layers:  # with it, what the paper's SVM sees
            features["all"] = torch.cat([layers["below"], layers["penultimate"], mean], dim=1)
        return features


class _Encoder(nn.Module):
    """Convolutions without padding down to 1x1 (32-28-13-10-4-1), 512, mean and log standard deviation of the code."""

    def __init__(self, shape: ImageShape, latent: int) -> None:
        super().__init__()
        widths = (shape[0], *WIDTHS, 512)
        windows = [*_windows(shape), ((1, 1), 1)]
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, kernel, stride, bias=False) for i, o, (kernel, stride) in zip(widths, widths[1:], windows)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for channels in widths[1:])
        self.last = nn.Linear(512, 2 * latent)
        self.apply(_small_weights)

    def forward(self, x: Tensor) -> tuple[Features, Tensor]:
        layers = []
        for conv, norm in zip(self.convs, self.norms):
            x = F.leaky_relu(norm(conv(x)), SLOPE)
            layers.append(x.flatten(1))
        return {"below": torch.cat(layers[-3:-1], dim=1), "penultimate": layers[-1]}, self.last(layers[-1])


class _Generator(nn.Module):
    """The encoder's mirror, 1-4-10-13-28-32, then two 1x1 convolutions. Images in [0, 1], about the mean one."""

    def __init__(self, shape: ImageShape, latent: int) -> None:
        super().__init__()
        widths = (latent, *reversed(WIDTHS[:-1]), WIDTHS[0])
        sizes = [(1, 1), *reversed(_sizes(shape))]
        layers: list[nn.Module] = []
        for i, o, (kernel, stride), small, large in zip(
            widths, widths[1:], reversed(_windows(shape)), sizes, sizes[1:]
        ):
            height, width = (b - stride * (a - 1) - span for a, b, span in zip(small, large, kernel))
            missing = (height, width)  # where a stride had left rows or columns over
            layers += [nn.ConvTranspose2d(i, o, kernel, stride, output_padding=missing, bias=False), *_normed(o)]
        layers += [nn.Conv2d(32, 32, 1, bias=False), *_normed(32), nn.Conv2d(32, shape[0], 1, bias=False)]
        self.grow = nn.Sequential(*layers)
        self.apply(_small_weights)
        self.bias = nn.Parameter(torch.zeros(shape))

    def start_at(self, data: ImageSet) -> None:
        """Begin with images about the mean of these."""
        mean = torch.from_numpy(data.images.mean(axis=0) / 255).float()
        self.bias.data = torch.logit(mean.clamp(1e-7, 1 - 1e-7))

    def forward(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.grow(z[:, :, None, None]) + self.bias)  # the bias makes it float32


class _Discriminator(nn.Module):
    """Maxout of two pieces: convolutions of the image, 512-512 of the code, 1024-1024 of both. Logits (b,)."""

    def __init__(self, shape: ImageShape, latent: int) -> None:
        super().__init__()
        widths = (shape[0], *WIDTHS)
        self.image = nn.ModuleList(
            nn.Conv2d(i, 2 * o, kernel, stride) for i, o, (kernel, stride) in zip(widths, widths[1:], _windows(shape))
        )
        self.code = nn.ModuleList([nn.Linear(latent, 1024), nn.Linear(512, 1024)])
        self.both = nn.ModuleList([nn.Linear(1024, 2048), nn.Linear(1024, 2048)])
        self.last = nn.Linear(1024, 1)
        self.apply(_small_weights)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        h = torch.cat([self._through(self.image, x).flatten(1), self._through(self.code, z)], dim=1)
        for layer in self.both:
            h = _maxout(layer(F.dropout(h, 0.5, self.training)))
        return self.last(F.dropout(h, 0.5, self.training)).squeeze(1)

    def _through(self, layers: nn.ModuleList, h: Tensor) -> Tensor:
        for index, layer in enumerate(layers):
            h = _maxout(layer(F.dropout(h, 0.5 if index else 0.2, self.training)))
        return h


def _sizes(shape: ImageShape) -> list[tuple[int, int]]:
    """Heights and widths of the image and after each of SQUARES."""
    sizes = [shape[1:]]
    for kernel, stride in SQUARES:
        height, width = sizes[-1]
        sizes.append(((height - kernel) // stride + 1, (width - kernel) // stride + 1))
    if min(sizes[-1]) < 1:
        raise EncoderError(f"ALI's convolutions need at least 20x20 pixels; got {shape[1]}x{shape[2]}; try body: mlp")
    return sizes


def _windows(shape: ImageShape) -> list[tuple[tuple[int, int], int]]:
    """Kernel and stride of every convolution down to 1x1."""
    return [*(((kernel, kernel), stride) for kernel, stride in SQUARES), (_sizes(shape)[-1], 1)]


def _normed(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels), nn.LeakyReLU(SLOPE)]


def _maxout(pieces: Tensor) -> Tensor:
    return torch.maximum(*pieces.chunk(2, dim=1))


def _small_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
