"""Adversarial autoencoder: an autoencoder whose codes are pushed onto a prior by a discriminator.

Source: Makhzani et al. 2015, arXiv:1511.05644; its three posteriors and the priors of its figures. Differs:
Adam, as every public implementation we know uses it, in place of the paper's SGD with momentum; the `conv` body is Deep
InfoMax's encoder. The prior of a category times a Gaussian has encoders of its own: clustering_aae, semisupervised_aae.
"""

import typing as t

import torch
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import networks, objectives, parameters
from encoders.adversarial_autoencoder import _AdversarialAutoencoder
from encoders.base import Features, ImageSet, ImageShape, Training
from encoders.batch_norm import finish
from encoders.networks import CodeDiscriminator, CodeTaps, unit
from encoders.players import Turn
from encoders.priors import Gaussian, MixtureOfGaussians, Prior, SwissRoll, Uniform
from encoders.training import train

NOISE = 0.3  # standard deviation of the universal posterior's noise: about the root mean square of MNIST's pixels
DRAWS = 8  # of this noise, for features


class AAE(_AdversarialAutoencoder):
    """Reconstruct images; train a discriminator of codes and prior; train the encoder against it: three turns a batch.

    The posterior is what an image's code is drawn from while training: a `deterministic` function of the image, a
    `gaussian` whose mean and variance the encoder gives, or `universal`, a function of the image and of noise in one
    more channel. Features are not drawn anew: they are the Gaussian's mean, and the mean over eight draws of the noise
    that are kept with the weights.
    """

    version: t.ClassVar[int] = 3
    equal_versions: t.ClassVar = {"float32": ((2, 1),)}  # 2 moved what saturates in bfloat16
    source: t.ClassVar[str] = "Makhzani et al. 2015, arXiv:1511.05644"

    body: parameters.Body = "mlp"
    posterior: t.Literal["deterministic", "gaussian", "universal"] = "deterministic"
    """Where a code is drawn from in training: a function of the image, a Gaussian, or a function of image and noise."""
    prior: t.Literal["gaussian", "uniform", "mixture", "swiss_roll"] = "gaussian"
    """Distribution that the codes should follow."""
    latent: PositiveInt = 8
    """Dimensions of the code; even for mixture and swiss_roll, which are two-dimensional and repeated in each pair."""
    prior_std: PositiveFloat = 5.0
    """Standard deviation of the prior gaussian; the other priors have a fixed scale."""

    @property
    def revision(self) -> int:
        """One more for the universal posterior, whose features were read without noise before."""
        return self.version + (self.posterior == "universal")

    @property
    def taps(self) -> tuple[str, ...]:
        return (*networks.AAE_BODIES[self.body][0].taps, "code")

    @model_validator(mode="after")
    def _figures_need_pairs(self) -> t.Self:
        if self.prior in ("mixture", "swiss_roll") and self.latent % 2:
            raise ValueError(f"the prior {self.prior!r} is two-dimensional; set latent to 2 or another even number")
        return self

    def build(self, shape: ImageShape) -> CodeTaps:
        body = networks.AAE_BODIES[self.body][0]
        if self.posterior == "gaussian":
            return CodeTaps(body(shape, 2 * self.latent, self.hidden), _Mean())
        if self.posterior == "universal":
            channels, height, width = shape
            return CodeTaps(_Noisy(body((channels + 1, height, width), self.latent, self.hidden), shape), nn.Identity())
        return CodeTaps(body(shape, self.latent, self.hidden), nn.Identity())

    @property
    def codes_are_means(self) -> bool:
        return self.posterior != "deterministic"

    def build_generator(self, shape: ImageShape) -> nn.Module:
        return networks.AAE_BODIES[self.body][1](shape, self.latent, self.hidden)

    def draw(self, count: int, device: torch.device) -> Tensor:
        return self._prior.sample(count, device)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            taps = self.build(data.shape)
            decoder = self.build_generator(data.shape)
            discriminator = CodeDiscriminator(self.latent, self.hidden)

        def drawn(outputs: Tensor) -> Tensor:
            """Codes from what the body gives."""
            if self.posterior != "gaussian":
                return outputs
            mean, log_variance = outputs.float().chunk(2, dim=1)
            return mean + (log_variance / 2).exp() * torch.randn_like(mean)

        def reconstruct(images: Tensor) -> dict[str, Tensor]:
            x = unit(images)
            return {"autoencoder": F.mse_loss(decoder(drawn(taps.body(x)[1])).float(), x)}

        judged: list[Tensor] = []  # the last batch's outputs: the encoder stands still until it hides them

        def discriminator_step(images: Tensor) -> dict[str, Tensor]:
            judged[:] = [taps.body(unit(images))[1]]
            code = drawn(judged[0].detach())
            real = self.draw(len(code), code.device)
            return {"discriminator": objectives.cross_entropy(*discriminator(torch.cat([real, code])).chunk(2))}

        def encoder_step(images: Tensor) -> dict[str, Tensor]:
            noisy = self.posterior == "universal"  # the noise that enters the body is new in each turn
            outputs = taps.body(unit(images))[1] if noisy else judged[0]
            return {"encoder": objectives.non_saturating(discriminator(drawn(outputs)))}

        players = self._players(taps, decoder, discriminator)
        turns = [Turn(reconstruct), Turn(discriminator_step), Turn(encoder_step)]
        train(run, data, players, turns, self.epochs, self.batch_size)
        return finish(taps, decoder, self.draw, data, run)

    @property
    def _prior(self) -> Prior:
        if self.prior == "gaussian":
            return Gaussian(self.latent, self.prior_std)
        return {"uniform": Uniform, "mixture": MixtureOfGaussians, "swiss_roll": SwissRoll}[self.prior](self.latent)


class _Mean(nn.Module):
    """Means and log-variances side by side -> the means."""

    def forward(self, outputs: Tensor) -> Tensor:
        return outputs.chunk(2, dim=1)[0]


class _Noisy(nn.Module):
    """A body with Gaussian noise in one more channel: new while it learns; once frozen, the mean over a few draws."""

    noise: Tensor

    def __init__(self, body: nn.Module, shape: ImageShape) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("noise", NOISE * torch.randn(DRAWS, 1, *shape[1:]))

    def forward(self, x: Tensor) -> tuple[Features, Tensor]:
        if self.training:
            return self._given(x, NOISE * torch.randn_like(x[:, :1]))
        layers, outputs = zip(*(self._given(x, noise.expand(len(x), -1, -1, -1)) for noise in self.noise))
        return {tap: _mean([one[tap] for one in layers]) for tap in layers[0]}, _mean(outputs)

    def _given(self, x: Tensor, noise: Tensor) -> tuple[Features, Tensor]:
        features: tuple[Features, Tensor] = self.body(torch.cat([x, noise], dim=1))
        return features


def _mean(tensors: t.Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).mean(dim=0)
