"""VAE: an autoencoder whose codes are distributions, held near a Gaussian prior by their divergence from it.

Source: Kingma and Welling 2013, arXiv:1312.6114; beta by Higgins et al. 2017. Differs: the adversarial autoencoder's
perceptrons with ReLU in place of one layer of tanh units, Adam in place of Adagrad, or Deep InfoMax's convolutions; the
Gaussian likelihood has one variance for all pixels, the batch's best (Rybkin et al. 2021, arXiv:2006.13202): with one a
pixel, those that never vary have a density without bound.
"""

import math
import typing as t

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import networks, parameters
from encoders.base import Generative, ImageSet, ImageShape, Training
from encoders.batch_norm import finish
from encoders.networks import CodeTaps, logits_of, unit
from encoders.players import Adam, Player, Turn, constant_then_decay
from encoders.training import train

Likelihood = t.Annotated[
    t.Literal["bernoulli", "gaussian"],
    Field(
        description="Distribution of a pixel given the code: bernoulli takes its grey for a probability, gaussian has "
        "one variance for all pixels."
    ),
]


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) of codes (b, d), summed over dimensions: (b,) nats."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2


def bernoulli(logits: Tensor, x: Tensor) -> Tensor:
    """The log-likelihood of images x in [0, 1] where each pixel is a probability: the mean over the batch, in nats."""
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)


def gaussian(logits: Tensor, x: Tensor) -> Tensor:
    """The log-density of images x about sigmoid(logits), of the variance that makes it largest: batch mean, nats."""
    variance = F.mse_loss(torch.sigmoid(logits), x)
    return -x[0].numel() / 2 * (math.log(2 * math.pi) + variance.log() + 1)


VARIANCE_IMAGES = 10_000  # training images that choose the variance of the Gaussian likelihood of test images


@torch.no_grad()
def lower_bounds(
    likelihood: Likelihood,
    posterior: t.Callable[[Tensor], Tensor],
    decoders: t.Sequence[t.Callable[[Tensor], Tensor]],
    train: ImageSet,
    test: ImageSet,
    device: torch.device,
) -> dict[str, Tensor]:
    """The evidence lower bound of each test image, in nats: the mean over equally likely decoders, one code drawn.

    bernoulli: it bounds the log-probability of a binary image, averaged over images whose pixels are 1 with their grey
    as the probability. gaussian: it bounds the log-density of the pixels, with the variance that is best for `train`.
    """

    def decoded(images: np.ndarray[t.Any, np.dtype[np.uint8]]) -> t.Iterator[tuple[Tensor, Tensor, Tensor]]:
        for some in torch.split(torch.from_numpy(np.array(images)), 500):
            x = unit(some.to(device))
            mean, log_variance = posterior(x).chunk(2, dim=1)
            noise = torch.randn(mean.shape).to(device)  # the same on every device
            code = mean + noise * (log_variance / 2).exp()
            yield x, torch.stack([decode(code) for decode in decoders]), divergence(mean, log_variance)

    def squared_errors(logits: Tensor, x: Tensor) -> Tensor:
        return (torch.sigmoid(logits) - x).square().flatten(2).double().sum(dim=2)

    pixels = math.prod(train.shape)
    if likelihood == "gaussian":  # one variance for all pixels
        errors = [squared_errors(logits, x).amin(dim=0) for x, logits, _ in decoded(train.images[:VARIANCE_IMAGES])]
        variance = float(torch.cat(errors).mean()) / pixels

    def log_likelihoods(logits: Tensor, x: Tensor) -> Tensor:
        if likelihood == "gaussian":
            return -(squared_errors(logits, x) / variance + pixels * math.log(2 * math.pi * variance)) / 2
        entropy = F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")
        return -entropy.flatten(2).double().sum(dim=2)

    bounds = [log_likelihoods(logits, x).logsumexp(dim=0) - kl for x, logits, kl in decoded(test.images)]
    name = "elbo" if likelihood == "gaussian" else "binary_elbo"
    return {name: torch.cat(bounds).cpu() - math.log(len(decoders))}


class Mean(nn.Module):
    """The first half of what the body gives; the second is the log-variance."""

    def forward(self, posterior: Tensor) -> Tensor:
        return posterior[:, : posterior.shape[1] // 2]


class _VariationalAutoencoder(Generative):
    """An encoder that gives a Gaussian for each image, and a decoder that gives logits of pixels."""

    likelihood: Likelihood = "bernoulli"
    body: parameters.Body = "mlp"
    latent: PositiveInt
    hidden: parameters.Hidden = 1000
    epochs: parameters.Epochs = 400
    batch_size: parameters.BatchSize = 100
    learning_rate: parameters.DecayingLearningRate = 1e-3
    beta1: parameters.Beta1 = 0.9

    @property
    def taps(self) -> tuple[str, ...]:
        return (*networks.AAE_BODIES[self.body][0].taps, "code")

    def build(self, shape: ImageShape) -> CodeTaps:
        return CodeTaps(networks.AAE_BODIES[self.body][0](shape, 2 * self.latent, self.hidden), Mean())

    def pictures(self, made: Tensor) -> Tensor:
        return torch.sigmoid(made)


class VAE(_VariationalAutoencoder):
    """Maximise the evidence lower bound: the log-likelihood of an image given its code, minus the KL divergence.

    Its history has both terms and the bound (`elbo`), in nats an image. The features are those of the posterior's mean.
    """

    source: t.ClassVar[str] = "Kingma and Welling 2013, arXiv:1312.6114"

    beta: NonNegativeFloat = 1.0
    """Weight of the KL divergence; 1 is the evidence lower bound."""
    latent: PositiveInt = 20
    """Dimensions of the code; the paper's likelihoods have 3 to 200."""

    @property
    def codes_are_means(self) -> bool:
        return True

    def build_generator(self, shape: ImageShape) -> nn.Module:
        return logits_of(networks.AAE_BODIES[self.body][1](shape, self.latent, self.hidden))

    def draw(self, count: int, device: torch.device) -> Tensor:
        return torch.randn(count, self.latent, device=device)

    def log_likelihoods(
        self, module: nn.Module, generator: nn.Module, train: ImageSet, test: ImageSet
    ) -> dict[str, Tensor]:
        assert isinstance(module, CodeTaps)
        device, body = next(generator.parameters()).device, module.body
        return lower_bounds(self.likelihood, lambda x: body(x)[1], [generator], train, test, device)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            taps = self.build(data.shape)
            decoder = self.build_generator(data.shape)
        log_likelihood = bernoulli if self.likelihood == "bernoulli" else gaussian

        def bound(images: Tensor) -> dict[str, Tensor]:
            x = unit(images)
            mean, log_variance = taps.body(x)[1].float().chunk(2, dim=1)
            code = mean + torch.randn_like(mean) * (log_variance / 2).exp()
            likelihood = log_likelihood(decoder(code).float(), x)
            kl = divergence(mean, log_variance).mean()
            loss = self.beta * kl - likelihood
            return {"vae": loss, "log_likelihood": likelihood, "kl": kl, "elbo": likelihood - kl}

        players = [Player("vae", [taps.body, decoder], Adam(self.learning_rate, self.beta1), constant_then_decay)]
        turn = Turn(bound, observes=("log_likelihood", "kl", "elbo"))
        train(run, data, players, [turn], self.epochs, self.batch_size)
        return finish(taps, decoder, self.draw, data, run)
