"""Conditional VAE: a variational autoencoder whose decoder is told the class, so the code is left with the style.

Source: Sohn, Lee and Yan 2015 (NIPS 28); Kingma et al. 2014, arXiv:1406.5298, whose M2 it is with all labels known.
Differs: the encoder is not told the class, so that an image has features without a label; networks, likelihoods and
optimiser are those of encoders/vae.py.
"""

import typing as t

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import networks, parameters
from encoders.base import Features, ImageSet, ImageShape, Training
from encoders.batch_norm import finish
from encoders.networks import CodeTaps, logits_of, unit
from encoders.players import Adam, Player, Turn, constant_then_decay
from encoders.priors import Categorical
from encoders.training import train
from encoders.vae import _VariationalAutoencoder, bernoulli, divergence, gaussian, lower_bounds


class ConditionalVAE(_VariationalAutoencoder):
    """Maximise the evidence lower bound of images given their class. Samples are of all classes, equally often.

    Its history has both terms and the bound (`elbo`), given the class, in nats an image. The likelihood of test images
    is bounded without their labels: every class is as likely as any other.
    """

    source: t.ClassVar[str] = "Sohn et al. 2015, NIPS 28; Kingma et al. 2014, arXiv:1406.5298"
    uses_labels: t.ClassVar[bool] = True

    classes: parameters.Classes = 10
    latent: PositiveInt = 20
    """Dimensions of the style."""

    def build_generator(self, shape: ImageShape) -> nn.Module:
        return logits_of(networks.AAE_BODIES[self.body][1](shape, self.latent + self.classes, self.hidden))

    def draw(self, count: int, device: torch.device) -> Tensor:
        style, label = torch.randn(count, self.latent, device=device), Categorical(self.classes).sample(count, device)
        return torch.cat([style, label], dim=1)

    def codes(self, features: Features) -> None:
        """None: the decoder asks for the label as well."""

    def log_likelihoods(
        self, module: nn.Module, generator: nn.Module, train: ImageSet, test: ImageSet
    ) -> dict[str, Tensor]:
        assert isinstance(module, CodeTaps)
        device, body = next(generator.parameters()).device, module.body

        def decoder(label: int) -> t.Callable[[Tensor], Tensor]:
            return lambda code: generator(self._with_label(code, torch.full((len(code),), label, device=device)))

        decoders = [decoder(label) for label in range(self.classes)]
        return lower_bounds(self.likelihood, lambda x: body(x)[1], decoders, train, test, device)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        data.check_classes(self.classes)
        with run.seeded("init"):
            taps = self.build(data.shape)
            decoder = self.build_generator(data.shape)
        log_likelihood = bernoulli if self.likelihood == "bernoulli" else gaussian

        def bound(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            x = unit(images)
            mean, log_variance = taps.body(x)[1].float().chunk(2, dim=1)
            code = mean + torch.randn_like(mean) * (log_variance / 2).exp()
            likelihood = log_likelihood(decoder(self._with_label(code, labels)).float(), x)
            kl = divergence(mean, log_variance).mean()
            return {"vae": kl - likelihood, "log_likelihood": likelihood, "kl": kl, "elbo": likelihood - kl}

        players = [Player("vae", [taps.body, decoder], Adam(self.learning_rate, self.beta1), constant_then_decay)]
        turn = Turn(bound, observes=("log_likelihood", "kl", "elbo"), reads_labels=True)
        train(run, data, players, [turn], self.epochs, self.batch_size)
        return finish(taps, decoder, self.draw, data, run)

    def _with_label(self, code: Tensor, labels: Tensor) -> Tensor:
        return torch.cat([code, F.one_hot(labels, self.classes)], dim=1)
