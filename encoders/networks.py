"""Bodies that several methods share, under the names of the papers that drew them.

Images are floats (b, c, h, w), in [0, 1] unless a class says otherwise. Nothing here has a bias before a batch-norm.
"""

import functools
import math
import typing as t

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from encoders.base import EncoderError, Features, ImageShape

STD = 0.02  # of every initial weight, in DCGAN and BiGAN alike


def normal_weights(module: nn.Module) -> None:
    """Weights from N(0, 0.02^2), for `Module.apply`."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=STD)


def plain_norm(width: int, dimensions: int = 1) -> nn.Module:
    """Batch-norm without gain and bias, as BiGAN has it everywhere."""
    norm = nn.BatchNorm1d if dimensions == 1 else nn.BatchNorm2d
    return norm(width, eps=1e-8, affine=False)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


class Sigmoid(nn.Sigmoid):
    """In float32 always: bfloat16 rounds what is above 0.998 to 1, where the slope is 0 and nothing is learned."""

    def forward(self, logits: Tensor) -> Tensor:
        return super().forward(logits.float())


class Tanh(nn.Tanh):
    """In float32 always, as `Sigmoid`."""

    def forward(self, logits: Tensor) -> Tensor:
        return super().forward(logits.float())


# -- Donahue et al. 2017: multilayer perceptrons for MNIST ------------------------------------------------------------


class BiGANEncoder(nn.Module):
    """784 - 1024 - 1024 - latent. Gives {'penultimate'} and the logits of the code."""

    taps = ("penultimate",)

    def __init__(self, shape: ImageShape, latent: int, hidden: int = 1024) -> None:
        super().__init__()
        self.first = _linear(math.prod(shape), hidden)
        self.second = _linear(hidden, hidden)
        self.norm = plain_norm(hidden)
        self.last = _linear(hidden, latent)
        self.apply(normal_weights)

    def forward(self, x: Tensor) -> tuple[Features, Tensor]:
        h = F.leaky_relu(self.first(x.flatten(1)), 0.2)
        h = F.leaky_relu(self.norm(self.second(h)), 0.2)
        return {"penultimate": h}, self.last(h)


class BiGANGenerator(nn.Module):
    """latent - 1024 - 1024 - 784, the code entering the second layer once more. Gives images in [0, 1]."""

    def __init__(self, shape: ImageShape, latent: int, hidden: int = 1024) -> None:
        super().__init__()
        self.shape = shape
        self.first, self.first_norm = _linear(latent, hidden), plain_norm(hidden)
        self.second, self.skip, self.second_norm = _linear(hidden, hidden), _linear(latent, hidden), plain_norm(hidden)
        self.last = _linear(hidden, math.prod(shape))
        self.squash = Sigmoid()
        self.apply(normal_weights)

    def forward(self, z: Tensor) -> Tensor:
        h = F.relu(self.first_norm(self.first(z)))
        h = F.relu(self.second_norm(self.second(h) + self.skip(z)))
        return self.squash(self.last(h)).view(-1, *self.shape)


class BiGANDiscriminator(nn.Module):
    """784 - 1024 - 1024 - 1, the code entering the second layer additively. Gives logits (b,), zero at the start.

    Without `latent` it judges images alone; without `norm` it can be a critic under a gradient penalty.
    """

    def __init__(self, shape: ImageShape, latent: int | None, hidden: int = 1024, norm: bool = True) -> None:
        super().__init__()
        self.first = _linear(math.prod(shape), hidden)
        self.second = _linear(hidden, hidden)
        self.code = None if latent is None else _linear(latent, hidden)
        self.norm = plain_norm(hidden) if norm else nn.Identity()
        self.last = _linear(hidden, 1)
        self.apply(normal_weights)
        nn.init.zeros_(self.last.weight)

    def penultimate(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        h = self.second(F.leaky_relu(self.first(x.flatten(1)), 0.2))
        if self.code is not None:
            h = h + self.code(z)
        return F.leaky_relu(self.norm(h), 0.2)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        return self.last(self.penultimate(x, z)).squeeze(1)


# -- Strided convolutions: the same three roles for colour images -----------------------------------------------------


def halvings(shape: ImageShape, kernel: int) -> list[tuple[int, int]]:
    """Heights and widths through convolutions of stride 2, padding (kernel - 1) // 2, for as long as both stay >= 4."""
    sizes = [shape[1:]]
    while True:
        height, width = ((size + 2 * ((kernel - 1) // 2) - kernel) // 2 + 1 for size in sizes[-1])
        if min(height, width) < 4:
            break
        sizes.append((height, width))
    if len(sizes) == 1:
        raise EncoderError(f"convolutions of stride 2 need images of at least 8x8; got {shape[1]}x{shape[2]}")
    return sizes


def half(inputs: int, outputs: int, kernel: int, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=2, padding=(kernel - 1) // 2, bias=bias)


def double(inputs: int, outputs: int, kernel: int, small: tuple[int, int], large: tuple[int, int]) -> nn.Module:
    """The transposed convolution that takes `small` maps to `large` ones, undoing `half`."""
    padding = (kernel - 1) // 2
    missing = (
        large[0] - (2 * small[0] - 2 - 2 * padding + kernel),
        large[1] - (2 * small[1] - 2 - 2 * padding + kernel),
    )
    return nn.ConvTranspose2d(inputs, outputs, kernel, 2, padding, output_padding=missing, bias=False)


class ConvEncoder(nn.Module):
    """4x4 convolutions of stride 2 (64-128-256 at 32x32), then 1024, then the code: Deep InfoMax's encoder.

    Gives {'conv', 'penultimate'} and the logits of the code. Source: Hjelm et al. 2019; leaky units as in BiGAN.
    """

    taps = ("conv", "penultimate")

    def __init__(self, shape: ImageShape, latent: int, hidden: int = 1024, width: int = 64) -> None:
        super().__init__()
        self.convs = _conv_stack(shape, width, normed_from=0)
        self.dense = _linear(_flat(shape, width), hidden)
        self.norm = plain_norm(hidden)
        self.last = _linear(hidden, latent)
        self.apply(normal_weights)

    def forward(self, x: Tensor) -> tuple[Features, Tensor]:
        conv = self.convs(x).flatten(1)
        h = F.leaky_relu(self.norm(self.dense(conv)), 0.2)
        return {"conv": conv, "penultimate": h}, self.last(h)


class ConvGenerator(nn.Module):
    """The mirror of ConvEncoder's convolutions. Gives images in [0, 1]."""

    def __init__(self, shape: ImageShape, latent: int, hidden: int = 1024, width: int = 64) -> None:  # noqa: ARG002
        super().__init__()
        sizes = halvings(shape, 4)
        widths = [shape[0], *(width << stage for stage in range(len(sizes) - 1))]
        self.start = (widths[-1], *sizes[-1])
        self.dense = _linear(latent, math.prod(self.start))
        layers: list[nn.Module] = [plain_norm(widths[-1], 2), nn.ReLU()]
        for stage in range(len(sizes) - 1, 0, -1):
            layers.append(double(widths[stage], widths[stage - 1], 4, sizes[stage], sizes[stage - 1]))
            if stage > 1:
                layers += [plain_norm(widths[stage - 1], 2), nn.ReLU()]
        self.grow = nn.Sequential(*layers, Sigmoid())
        self.apply(normal_weights)

    def forward(self, z: Tensor) -> Tensor:
        return self.grow(self.dense(z).view(-1, *self.start))


class ConvDiscriminator(nn.Module):
    """ConvEncoder's convolutions, then a dense layer that the code enters. Logits (b,), zero at the start.

    `latent` and `norm` as in BiGANDiscriminator.
    """

    def __init__(
        self, shape: ImageShape, latent: int | None, hidden: int = 1024, norm: bool = True, width: int = 64
    ) -> None:
        super().__init__()
        self.convs = _conv_stack(shape, width, normed_from=1 if norm else None)
        self.dense = _linear(_flat(shape, width), hidden)
        self.code = None if latent is None else _linear(latent, hidden)
        self.norm = plain_norm(hidden) if norm else nn.Identity()
        self.last = _linear(hidden, 1)
        self.apply(normal_weights)
        nn.init.zeros_(self.last.weight)

    def penultimate(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        h = self.dense(self.convs(x).flatten(1))
        if self.code is not None:
            h = h + self.code(z)
        return F.leaky_relu(self.norm(h), 0.2)

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        return self.last(self.penultimate(x, z)).squeeze(1)


def _conv_stack(shape: ImageShape, width: int, *, normed_from: int | None) -> nn.Sequential:
    """Convolutions of stride 2 with leaky units; those from the `normed_from`th on have batch-norm."""
    layers: list[nn.Module] = []
    inputs = shape[0]
    for stage in range(len(halvings(shape, 4)) - 1):
        layers.append(half(inputs, width << stage, 4))
        if normed_from is not None and stage >= normed_from:
            layers.append(plain_norm(width << stage, 2))
        layers.append(nn.LeakyReLU(0.2))
        inputs = width << stage
    return nn.Sequential(*layers)


def _flat(shape: ImageShape, width: int) -> int:
    sizes = halvings(shape, 4)
    return (width << (len(sizes) - 2)) * math.prod(sizes[-1])


# -- Makhzani et al. 2015: the adversarial autoencoder's perceptrons --------------------------------------------------


class MLPEncoder(nn.Module):
    """784 - 1000 - 1000 - latent with ReLU units. Gives {'penultimate'} and the code."""

    taps = ("penultimate",)

    def __init__(self, shape: ImageShape, latent: int, hidden: int = 1000) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(math.prod(shape), hidden), nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, latent)

    def forward(self, x: Tensor) -> tuple[Features, Tensor]:
        h = F.relu(self.second(F.relu(self.first(x.flatten(1)))))
        return {"penultimate": h}, self.last(h)


class MLPDecoder(nn.Module):
    """latent - 1000 - 1000 - 784 with ReLU units. Gives images in [0, 1]."""

    def __init__(self, shape: ImageShape, latent: int, hidden: int = 1000) -> None:
        super().__init__()
        self.shape = shape
        self.body = nn.Sequential(
            nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, math.prod(shape)), Sigmoid(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z).view(-1, *self.shape)


class CodeDiscriminator(nn.Module):
    """latent - 1000 - 1000 - 1 with ReLU units, without batch-norm: tells codes from the prior. Logits (b,)."""

    def __init__(self, latent: int, hidden: int = 1000) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z).squeeze(1)


# -- Radford et al. 2015: the convolutional game that DCGAN, WGAN and WGAN-GP play; images in [-1, 1] -----------------

KERNEL = 5


class DCGANDiscriminator(nn.Module):
    """Strided convolutions with LeakyReLU(0.2), batch-norm in all but the first. As a module it gives taps.

    `logits` (b,) of float images plays the game. With `layer_taps`, the layers below the last are taps of their own.
    Without `norm` it has biases instead. Raises EncoderError if `layer_taps` asks for more layers than fit the images.
    """

    def __init__(
        self, shape: ImageShape, width: int, layers: int, *, norm: bool = True, layer_taps: bool = False
    ) -> None:
        super().__init__()
        sizes = halvings(shape, KERNEL)[: layers + 1]
        if layer_taps and len(sizes) <= layers:
            raise EncoderError(
                f"layer_taps needs {layers} layers, but {shape[1]}x{shape[2]} images have room for {len(sizes) - 1}; "
                f"set layers to {len(sizes) - 1}"
            )
        self.layer_taps = layer_taps
        widths = [shape[0], *(width << layer for layer in range(len(sizes) - 1))]
        self.convs = nn.ModuleList(half(i, o, KERNEL, bias=not norm) for i, o in zip(widths, widths[1:]))
        norms = (nn.BatchNorm2d(channels) if norm else nn.Identity() for channels in widths[2:])
        self.norms = nn.ModuleList([nn.Identity(), *norms])
        self.last = nn.Linear(widths[-1] * math.prod(sizes[-1]), 1, bias=False)
        _dcgan_weights(self)

    def forward(self, images: Tensor) -> Features:
        pooled = [F.adaptive_max_pool2d(layer, 4).flatten(1) for layer in self._layers(signed(images))]
        below = {f"layer{index}": layer for index, layer in enumerate(pooled[:-1], 1)} if self.layer_taps else {}
        return {**below, "last": pooled[-1], "all": torch.cat(pooled, dim=1)}  # 4,096 and 7,168 at 28x28 and 32x32

    def logits(self, x: Tensor) -> Tensor:
        return self.last(self._layers(x)[-1].flatten(1)).squeeze(1)

    def _layers(self, x: Tensor) -> list[Tensor]:
        layers = []
        for conv, norm in zip(self.convs, self.norms):
            x = F.leaky_relu(norm(conv(x)), 0.2)
            layers.append(x)
        return layers


class DCGANGenerator(nn.Module):
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
        self.grow = nn.Sequential(*grow, Tanh())
        _dcgan_weights(self)

    def forward(self, z: Tensor) -> Tensor:
        return self.grow(self.dense(z).view(-1, *self.start))


def _dcgan_weights(network: nn.Module) -> None:
    """Weights from N(0, 0.02^2), gains from N(1, 0.02^2), biases zero."""
    network.apply(normal_weights)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1, STD)
        elif isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


# -- Arjovsky et al. 2017: the Wasserstein GAN's perceptrons; images in [-1, 1] ---------------------------------------


class MLPCritic(nn.Module):
    """784 - 512 - 512 - 512 - 1 with ReLU units. As a module it gives its hidden layers; `logits` plays the game."""

    taps = ("hidden1", "hidden2", "hidden3")

    def __init__(self, shape: ImageShape, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(inputs, hidden) for inputs in (math.prod(shape), hidden, hidden))
        self.last = nn.Linear(hidden, 1)

    def forward(self, images: Tensor) -> Features:
        return dict(zip(self.taps, self._layers(signed(images))))

    def logits(self, x: Tensor) -> Tensor:
        return self.last(self._layers(x)[-1]).squeeze(1)

    def _layers(self, x: Tensor) -> list[Tensor]:
        layers, h = [], x.flatten(1)
        for layer in self.layers:
            h = F.relu(layer(h))
            layers.append(h)
        return layers


class MLPGenerator(nn.Module):
    """latent - 512 - 512 - 512 - 784 with ReLU units, linear at the end: its images may lie outside [-1, 1]."""

    def __init__(self, shape: ImageShape, latent: int, hidden: int) -> None:
        super().__init__()
        self.shape = shape
        self.body = nn.Sequential(
            nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, math.prod(shape)),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        return self.body(z).float().view(-1, *self.shape)


# -- Bodies of self-supervised methods: images in [-1, 1], pooled to a vector ------------------------------------------


class ResNet(nn.Module):
    """Residual blocks of two 3x3 convolutions, pooled by their mean: (b, c, h, w) -> (b, widths[-1]).

    Each width but the first halves the image. Source: He et al. 2016, arXiv:1512.03385. By default ResNet-18 with
    the stem that CIFAR has everywhere: a 3x3 convolution, and no max-pooling. With a `patch` the stem is a 4x4
    convolution of stride 2.
    """

    def __init__(
        self, shape: ImageShape, widths: t.Sequence[int] = (64, 128, 256, 512), blocks: int = 2, *, patch: bool = False
    ) -> None:
        super().__init__()
        stem = half(shape[0], widths[0], 4) if patch else nn.Conv2d(shape[0], widths[0], 3, padding=1, bias=False)
        layers: list[nn.Module] = [stem, nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for before, width in zip((widths[0], *widths), widths):
            layers.append(_Residual(before, width, stride=1 if before == width else 2))
            layers += [_Residual(width, width, stride=1) for _ in range(blocks - 1)]
        self.layers = nn.Sequential(*layers)
        self.width = widths[-1]
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean(dim=(2, 3))


class _Residual(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(h)) + self.shortcut(x))


class PooledConv(nn.Module):
    """ConvEncoder's convolutions, pooled by their mean."""

    def __init__(self, shape: ImageShape, width: int = 64) -> None:
        super().__init__()
        self.convs = _conv_stack(shape, width, normed_from=0)
        self.width = width << (len(halvings(shape, 4)) - 2)
        self.apply(normal_weights)

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x).mean(dim=(2, 3))


class Projector(nn.Module):
    """Dense layers with `units` between them. Gives every layer's, the last without them.

    `norm` gives each layer but the last a batch-norm, `last_norm` the last one without gain and bias.
    """

    def __init__(
        self,
        widths: t.Sequence[int],
        *,
        norm: bool = True,
        last_norm: bool = False,
        units: t.Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths, widths[1:-1]):
            dense = nn.Linear(inputs, outputs, bias=not norm)
            layers.append(nn.Sequential(dense, *([nn.BatchNorm1d(outputs)] if norm else []), units()))
        dense = nn.Linear(widths[-2], widths[-1], bias=not last_norm)
        layers.append(nn.Sequential(dense, *([nn.BatchNorm1d(widths[-1], affine=False)] if last_norm else [])))
        self.layers = nn.ModuleList(layers)

    def forward(self, h: Tensor) -> list[Tensor]:
        given = []
        for layer in self.layers:
            h = layer(h)
            given.append(h)
        return given


class ProjectedTaps(nn.Module):
    """A pooled body and its projector: as a module uint8 images -> their units; `project` plays the game."""

    def __init__(self, body: nn.Module, projector: Projector) -> None:
        super().__init__()
        self.body, self.projector = body, projector

    def forward(self, images: Tensor) -> Features:
        pooled = self.body(signed(images))
        layers = self.projector(pooled)
        return {"backbone": pooled, **{f"projector{index}": layer for index, layer in enumerate(layers, 1)}}

    def project(self, x: Tensor) -> Tensor:
        """The projector's last layer for images x in [0, 1], in float32."""
        last: Tensor = self.projector(self.body(2 * x - 1))[-1]
        return last.float()


def spectral_norm(network: nn.Module) -> None:
    """Divide every weight matrix by its largest singular value from now on (Miyato et al. 2018, arXiv:1802.05957).

    A convolution counts as the matrix (outputs, inputs x kernel), so its slope may exceed 1 by the kernel's overlap.
    """
    for layer in list(network.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            parametrizations.spectral_norm(layer)


class CodeTaps(nn.Module):
    """A frozen encoder body as a feature extractor: uint8 images -> its layers and the code."""

    def __init__(self, body: nn.Module, squash: nn.Module) -> None:
        super().__init__()
        self.body, self.squash = body, squash

    def forward(self, images: Tensor) -> Features:
        layers, logits = self.body(unit(images))
        return {**layers, "code": self.squash(logits)}


class Squash(nn.Module):
    """2 sigmoid(logits) - 1: codes in (-1, 1), as uniform noise has them."""

    def forward(self, logits: Tensor) -> Tensor:
        return torch.tanh(logits.float() / 2)


def unit(images: Tensor) -> Tensor:
    """Bytes -> floats in [0, 1]."""
    return images.float().div_(255)


def logits_of(decoder: nn.Module) -> nn.Module:
    """The decoder without its last sigmoid, for losses that are stable on logits only. Changes it in place."""
    stack = next(part for part in decoder.children() if isinstance(part, nn.Sequential))
    assert isinstance(stack[-1], nn.Sigmoid)
    stack[-1] = nn.Identity()
    return decoder


def signed(images: Tensor) -> Tensor:
    """Bytes -> floats in [-1, 1]."""
    return images.float().div_(127.5).sub_(1)


AAE_BODIES: dict[str, tuple[t.Any, t.Any]] = {  # encoder and decoder, by what a recipe calls its body
    "mlp": (MLPEncoder, MLPDecoder),
    "conv": (ConvEncoder, ConvGenerator),
}
BIGAN_BODIES: dict[str, tuple[t.Any, t.Any, t.Any]] = {  # encoder, generator and discriminator
    "mlp": (BiGANEncoder, BiGANGenerator, BiGANDiscriminator),
    "conv": (ConvEncoder, ConvGenerator, ConvDiscriminator),
}
POOLED_BODIES: dict[str, t.Callable[[ImageShape], t.Any]] = {
    "resnet18": ResNet,
    "small": functools.partial(ResNet, widths=(32, 64, 128, 256), blocks=1, patch=True),
    "conv": PooledConv,
}
