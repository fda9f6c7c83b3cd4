"""What a discriminator and a generator lose. Logits are (b,); every loss is a mean in nats."""

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    """Half the binary cross-entropy of calling `real` real and half that of calling `fake` fake: ln 2 by guessing.

    With the arguments exchanged it is the non-saturating loss of those who want the judge fooled both ways (BiGAN).
    """
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2


def non_saturating(fake: Tensor) -> Tensor:
    """-log D(G(z)): the generator's loss that Goodfellow et al. 2014 train with."""
    return F.softplus(-fake).mean()


def minimax(fake: Tensor) -> Tensor:
    """log(1 - D(G(z))): the generator's loss of the minimax game, flat where the discriminator is sure."""
    return -F.softplus(fake).mean()
