"""An adversarial autoencoder whose code is a category and a style, each with a prior and a discriminator of its own.

Source: Makhzani et al. 2015, arXiv:1511.05644, sections 5 and 6: the network that its semi-supervised and its
clustering recipe share. The category is a softmax that should look one-hot, the style should look Gaussian.
Three additions that the paper does not have, off unless a recipe asks, after IMSAT (Hu et al. 2017, arXiv:1702.08720):
`consistency`, that a jittered copy of an image has its category; `smoothness`, that the least change that matters most
leaves it the same; and `balance`, that a batch takes all categories equally often, which a discriminator that sees one
image at a time asks for but weakly.

Differs: batch-norm in the encoder, on the logits of the category too. Without it all images of a batch share a category
at first and the discriminator sends them from one to the next; with it every category is taken from the first epoch.
"""

import abc
import math
import typing as t

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import objectives, parameters
from encoders.base import Features, Generative, ImageShape
from encoders.networks import CodeDiscriminator, MLPDecoder, unit
from encoders.players import Adam, Player, Turn, constant_then_decay
from encoders.priors import Categorical, Gaussian
from encoders.views import jittered, worst_shift


class CategoryAndStyle(nn.Module):
    """784 - h - h - (categories, style): uint8 images -> {'penultimate', 'code', NAME: probabilities of categories}.

    `code` is the style.
    """

    def __init__(self, shape: ImageShape, categories: int, latent: int, hidden: int, name: str) -> None:
        super().__init__()
        self.name, self.categories, self.latent = name, categories, latent
        self.body = nn.Sequential(
            nn.Flatten(),
            nn.Linear(shape[0] * shape[1] * shape[2], hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(),
        )  # fmt: skip
        self.category = nn.Sequential(nn.Linear(hidden, categories, bias=False), nn.BatchNorm1d(categories))
        self.style = nn.Linear(hidden, latent)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images in [0, 1] -> logits of the categories (b, categories), style (b, latent)."""
        h = self.body(x)
        return self.category(h), self.style(h)

    def forward(self, images: Tensor) -> Features:
        h = self.body(unit(images))
        return {"penultimate": h, "code": self.style(h), self.name: probabilities(self.category(h))}


def probabilities(logits: Tensor) -> Tensor:
    """Softmax of the rows (b, k), in float32 always: bfloat16 rounds a sure category to 1, where the slope is 0."""
    return logits.float().softmax(dim=1)


def blurred(values: Tensor, std: float) -> Tensor:
    """The values with Gaussian noise of this standard deviation added."""
    return values + std * torch.randn_like(values)


def inconsistency(category: Tensor, logits: Tensor) -> Tensor:
    """Mean over rows of KL(category || softmax(logits)) in nats, both (b, k), at least 0. No gradient to `category`."""
    return F.kl_div(logits.float().log_softmax(dim=1), category.detach().float(), reduction="batchmean")


def imbalance(category: Tensor) -> Tensor:
    """KL from the mean of the rows (b, k) to uniform, in nats: 0 if all are taken equally often, at most ln k."""
    mean = category.float().mean(dim=0)
    return math.log(len(mean)) + torch.xlogy(mean, mean).sum()


class _CategoryAndStyleAAE(Generative):
    """An adversarial autoencoder of a category and a style."""

    category_tap: t.ClassVar[str]  # with the probabilities of the categories

    latent: PositiveInt
    hidden: parameters.Hidden = 500
    epochs: parameters.Epochs = 100
    batch_size: parameters.BatchSize = 100
    learning_rate: parameters.DecayingLearningRate = 1e-3
    adversarial_learning_rate: parameters.AdversarialLearningRate = 1e-3
    discriminator_learning_rate: parameters.AdversaryLearningRate = None
    beta1: parameters.Beta1 = 0.9
    adversarial_beta1: NonNegativeFloat = 0.5
    """beta1 of discriminators and encoder as adversaries."""

    @property
    @abc.abstractmethod
    def _categories(self) -> int:
        """How many there are."""

    @property
    def taps(self) -> tuple[str, ...]:
        return ("penultimate", "code", self.category_tap)

    def build(self, shape: ImageShape) -> CategoryAndStyle:
        return CategoryAndStyle(shape, self._categories, self.latent, self.hidden, self.category_tap)

    def build_generator(self, shape: ImageShape) -> MLPDecoder:
        return MLPDecoder(shape, self._categories + self.latent, self.hidden)

    def draw(self, count: int, device: torch.device) -> Tensor:
        category = Categorical(self._categories).sample(count, device)
        style = Gaussian(self.latent).sample(count, device)
        return torch.cat([category, style], dim=1)

    def codes(self, features: Features) -> Tensor:
        return torch.cat([features[self.category_tap], features["code"]], dim=1)

    def _game(
        self,
        taps: CategoryAndStyle,
        decoder: nn.Module,
        *,
        pixel_noise: float,
        judge_noise: float,
        decoder_noise: float,
        consistency: float,
        smoothness: float,
        balance: float,
    ) -> tuple[list[Player], list[Turn]]:
        """Who plays, and the three turns a batch: reconstruct, judge category and style, hide both in their priors.

        The three noises are standard deviations of Gaussian noise on the images that the encoder reads, and on the
        category and the style that the discriminators and the decoder read. The decoder's keeps a soft category from
        being used as more style. `consistency`, `smoothness` and `balance` weigh the additions beside the encoder's
        adversarial loss. The weights are drawn here, from torch's global generator.
        """
        category_judge = CodeDiscriminator(taps.categories, self.hidden)
        style_judge = CodeDiscriminator(taps.latent, self.hidden)
        category_prior, style_prior = Categorical(taps.categories), Gaussian(taps.latent)

        def encode(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x = unit(images)
            logits, style = taps.heads(blurred(x, pixel_noise))
            return x, probabilities(logits), style

        def loss(judge: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
            return objectives.cross_entropy(judge(blurred(real, judge_noise)), judge(blurred(fake, judge_noise)))

        def reconstruct(images: Tensor) -> dict[str, Tensor]:
            x, category, style = encode(images)
            code = blurred(torch.cat([category, style], dim=1), decoder_noise)
            return {"autoencoder": F.mse_loss(decoder(code).float(), x)}

        def discriminator_step(images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                _, category, style = encode(images)
            count, device = len(images), images.device
            return {
                "category_discriminator": loss(category_judge, category_prior.sample(count, device), category),
                "style_discriminator": loss(style_judge, style_prior.sample(count, device), style),
            }

        def encoder_step(images: Tensor) -> dict[str, Tensor]:
            x, category, style = encode(images)
            seen = category_judge(blurred(category, judge_noise)), style_judge(blurred(style, judge_noise))
            loss = objectives.non_saturating(seen[0]) + objectives.non_saturating(seen[1])

            def changed(copies: Tensor) -> Tensor:
                return inconsistency(category, taps.heads(copies)[0])

            if consistency:
                loss = loss + consistency * changed(blurred(jittered(x), pixel_noise))
            if smoothness:
                loss = loss + smoothness * changed(x + worst_shift(x, changed))
            if balance:
                loss = loss + balance * imbalance(category)
            return {"encoder": loss}

        reconstruction = Adam(self.learning_rate, self.beta1)
        adversarial = Adam(self.adversarial_learning_rate, self.adversarial_beta1)
        judging = Adam(self.discriminator_learning_rate or self.adversarial_learning_rate, self.adversarial_beta1)
        players = [
            Player("autoencoder", [taps, decoder], reconstruction, constant_then_decay),
            Player("category_discriminator", [category_judge], judging, constant_then_decay),
            Player("style_discriminator", [style_judge], judging, constant_then_decay),
            Player("encoder", [taps], adversarial, constant_then_decay),
        ]
        return players, [Turn(reconstruct), Turn(discriminator_step), Turn(encoder_step)]
