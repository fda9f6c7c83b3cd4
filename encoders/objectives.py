"""What a discriminator and a generator lose. Logits are (b,); every loss is a mean in nats, in float32.

A `Divergence` is one row of f-GAN's tables (Nowozin, Cseke, Tomioka 2016, arXiv:1606.00709): GAN, DCGAN and BiGAN
choose one by its name. Where a printed table has an integral of p and q that does not fit the f beside it, f counts:
Pearson's is (p - q)^2 / q and Neyman's (p - q)^2 / p, which are printed exchanged; Jensen-Shannon's is twice the
divergence, printed with the factor 1/2; alpha's is (p^alpha q^(1 - alpha) - 1) / (alpha (alpha - 1)), printed with p
and q exchanged. Of alpha 2 and -1 it is half of Pearson's and of Neyman's. Differs: the conjugate of an
alpha-divergence with alpha > 1 is -1/alpha left of its kink, where the power alone would be that of a negative number.
"""

import dataclasses
import math
import typing as t

import torch
from torch import Tensor
from torch.nn import functional as F

Objective = t.Literal[
    "gan",
    "jensen_shannon",
    "weighted_jensen_shannon",
    "kl",
    "reverse_kl",
    "jeffrey",
    "pearson",
    "neyman",
    "squared_hellinger",
    "total_variation",
    "alpha",
]
GeneratorLoss = t.Literal["non_saturating", "minimax"]
Map = t.Callable[[Tensor], Tensor]


def cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    """Half the binary cross-entropy of calling `real` real and half that of calling `fake` fake: ln 2 by guessing.

    With the arguments exchanged it is the non-saturating loss of those who want the judge fooled both ways (BiGAN).
    """
    return (F.softplus(-real.float()).mean() + F.softplus(fake.float()).mean()) / 2


def non_saturating(fake: Tensor) -> Tensor:
    """-log D(G(z)): the generator's loss that Goodfellow et al. 2014 train with."""
    return F.softplus(-fake.float()).mean()


@dataclasses.dataclass(frozen=True)
class Divergence:
    """D_f(P, Q) = E_Q[f(p/q)] between real P and generated Q, and the bound on it that a discriminator V maximises.

    D_f(P, Q) >= E_P[g(V)] - E_Q[f*(g(V))] for every V, with equality where g(V) = f'(p/q). All maps are elementwise.
    """

    name: str  # of the divergence that the bound estimates
    f: Map  # the generator function of u = p/q > 0: convex
    slope: Map  # f'(u), of which 1 divides real from generated
    activation: Map  # g: logits onto the domain of f*, rising
    conjugate: Map  # f*(s) = sup over u of us - f(u)
    composite: Map  # f*(g(v)), so written that only what is itself out of range overflows
    domain: tuple[float, float] = (-math.inf, math.inf)  # of f*
    multiple: float = 1.0  # D_f is so many times the divergence it is named after ..
    minimum: float = 0.0  # .. above f(1), its value for P = Q

    @property
    def observed(self) -> str:
        """What the history calls `estimate`."""
        return f"{self.name}_bound"

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Half the bound, negated: for GAN's objective, `cross_entropy` to the bit."""
        return -(self.activation(real.float()).mean() - self.composite(fake.float()).mean()) / 2

    def generator_loss(self, fake: Tensor, kind: GeneratorLoss) -> Tensor:
        """Minimax: the bound itself. Non-saturating: -E_Q[g(V)], which has its steepest slope where V is sure."""
        if kind == "minimax":
            return -self.composite(fake.float()).mean()
        return -self.activation(fake.float()).mean()

    def pair_loss(self, real: Tensor, fake: Tensor, kind: GeneratorLoss) -> Tensor:
        """Of encoder and generator together. Non-saturating: the discriminator's loss with real and fake exchanged."""
        if kind == "minimax":
            return -self.discriminator_loss(real, fake)
        return self.discriminator_loss(fake, real)

    def estimate(self, discriminator_loss: Tensor) -> Tensor:
        """The lower bound on the divergence that `name` means; on Jensen-Shannon's in nats, which is at most ln 2.

        For GAN's objective, 2 JS(P, Q) - 2 ln 2 >= E_P[log D] + E_Q[log(1 - D)], so this is ln 2 - cross-entropy. It is
        taken while the discriminator trains: with dropout, and batch-norm over real and generated images apart.
        """
        return (-2 * discriminator_loss - self.minimum) / self.multiple


def divergence(objective: Objective, pi: float = 0.5, alpha: float = 0.5) -> Divergence:
    """By name. `pi` in 0..1 weighs P in the weighted Jensen-Shannon divergence; alpha of 1 is KL, of 0 reverse KL."""
    if objective == "weighted_jensen_shannon":
        return _weighted_jensen_shannon(pi)
    if objective == "alpha":
        return KL if alpha == 1 else REVERSE_KL if alpha == 0 else _alpha(alpha)
    return DIVERGENCES[objective]


def wasserstein(real: Tensor, fake: Tensor) -> Tensor:
    """E_P[V] - E_Q[V]: for a critic of slope at most 1, a lower bound on the Wasserstein-1 distance."""
    return real.float().mean() - fake.float().mean()


def gradient_penalty(critic: t.Callable[..., Tensor], real: t.Sequence[Tensor], fake: t.Sequence[Tensor]) -> Tensor:
    """Mean of (|gradient| - 1)^2 at random points between `real` and `fake`, each a tuple of the critic's inputs.

    The gradient is with respect to all inputs together. In float32, as its own gradient is taken.
    Source: Gulrajani et al. 2017, arXiv:1704.00028.
    """
    with torch.autocast(real[0].device.type, enabled=False):
        share = torch.rand(len(real[0]), device=real[0].device)
        points = [
            torch.lerp(b.float(), a.float(), share.view(-1, *[1] * (a.ndim - 1))).detach().requires_grad_()
            for a, b in zip(real, fake)
        ]
        gradients = torch.autograd.grad(critic(*points).sum(), points, create_graph=True)
        norms = torch.cat([gradient.flatten(1) for gradient in gradients], dim=1).norm(dim=1)  # (b,)
        return (norms - 1).square().mean()


# -- f-GAN's table ----------------------------------------------------------------------------------------------------


def _identity(v: Tensor) -> Tensor:
    return v


def _log_sigmoid(v: Tensor) -> Tensor:
    return -F.softplus(-v)


def _log_softplus(v: Tensor) -> Tensor:
    """log(softplus(v)), which is v itself where e^v is lost beside 1."""
    return torch.where(v < -30, v, F.softplus(v.clamp(min=-30)).log())


def _log_one_minus_exp(a: Tensor) -> Tensor:
    """log(1 - e^-a) for a > 0."""
    return torch.where(a < 0.7, (-torch.expm1(-a.clamp(max=0.7))).log(), torch.log1p(-torch.exp(-a.clamp(min=0.7))))


def _jeffrey_conjugate(s: Tensor) -> Tensor:
    """W(e^(1-s)) + 1/W(e^(1-s)) + s - 2, with Lambert's W, whose slope is the maximising u = 1/W."""
    y = 1 - s.detach()
    w = torch.where(y < 1, y, y.clamp(min=1).log())  # log W solves w + e^w = y; from here Newton's steps fall to it
    for _ in range(6):
        w = w - (w + w.exp() - y) / (1 + w.exp())
    u = torch.exp(-w)
    return u * s - (1 - u) * w  # us - f(u), whose derivative by s is u as u maximises it


GAN = Divergence(
    "jensen_shannon",
    f=lambda u: u * u.log() - (u + 1) * torch.log1p(u),
    slope=lambda u: _log_sigmoid(u.log()),
    activation=_log_sigmoid,
    conjugate=lambda s: -_log_one_minus_exp(-s),
    composite=F.softplus,
    domain=(-math.inf, 0.0),
    multiple=2.0,
    minimum=-2 * math.log(2),
)
JENSEN_SHANNON = Divergence(
    "jensen_shannon",
    f=lambda u: u * u.log() - (u + 1) * torch.log((1 + u) / 2),
    slope=lambda u: math.log(2) + _log_sigmoid(u.log()),
    activation=lambda v: math.log(2) + _log_sigmoid(v),
    conjugate=lambda s: -math.log(2) - _log_one_minus_exp(math.log(2) - s),
    composite=lambda v: F.softplus(v) - math.log(2),
    domain=(-math.inf, math.log(2)),
    multiple=2.0,
)
KL = Divergence(
    "kl",
    f=lambda u: u * u.log(),
    slope=lambda u: u.log() + 1,
    activation=_identity,
    conjugate=lambda s: torch.exp(s - 1),
    composite=lambda v: torch.exp(v - 1),
)
REVERSE_KL = Divergence(
    "reverse_kl",
    f=lambda u: -u.log(),
    slope=lambda u: -1 / u,
    activation=lambda v: -torch.exp(-v),
    conjugate=lambda s: -1 - torch.log(-s),
    composite=lambda v: v - 1,
    domain=(-math.inf, 0.0),
)
JEFFREY = Divergence(
    "jeffrey",
    f=lambda u: (u - 1) * u.log(),
    slope=lambda u: 1 - 1 / u + u.log(),
    activation=_identity,
    conjugate=_jeffrey_conjugate,
    composite=_jeffrey_conjugate,
)
PEARSON = Divergence(
    "pearson",
    f=lambda u: (u - 1).square(),
    slope=lambda u: 2 * (u - 1),
    activation=_identity,
    conjugate=lambda s: s.square() / 4 + s,  # over all real u, as in the paper; over u > 0 it stays -1 left of s = -2
    composite=lambda v: v.square() / 4 + v,
)
NEYMAN = Divergence(
    "neyman",
    f=lambda u: (1 - u).square() / u,
    slope=lambda u: 1 - 1 / u.square(),
    activation=lambda v: -torch.expm1(-v),
    conjugate=lambda s: 2 - 2 * torch.sqrt(1 - s),
    composite=lambda v: -2 * torch.expm1(-v / 2),
    domain=(-math.inf, 1.0),
)
SQUARED_HELLINGER = Divergence(
    "squared_hellinger",
    f=lambda u: (u.sqrt() - 1).square(),
    slope=lambda u: 1 - 1 / u.sqrt(),
    activation=lambda v: -torch.expm1(-v),
    conjugate=lambda s: s / (1 - s),
    composite=torch.expm1,
    domain=(-math.inf, 1.0),
)
TOTAL_VARIATION = Divergence(
    "total_variation",
    f=lambda u: (u - 1).abs() / 2,
    slope=lambda u: torch.sign(u - 1) / 2,
    activation=lambda v: torch.tanh(v) / 2,
    conjugate=_identity,
    composite=lambda v: torch.tanh(v) / 2,
    domain=(-0.5, 0.5),
)
DIVERGENCES: dict[str, Divergence] = {
    "gan": GAN,
    "jensen_shannon": JENSEN_SHANNON,
    "kl": KL,
    "reverse_kl": REVERSE_KL,
    "jeffrey": JEFFREY,
    "pearson": PEARSON,
    "neyman": NEYMAN,
    "squared_hellinger": SQUARED_HELLINGER,
    "total_variation": TOTAL_VARIATION,
}  # those without a parameter


def _weighted_jensen_shannon(pi: float) -> Divergence:
    """pi KL(P, M) + (1 - pi) KL(Q, M) with M = pi P + (1 - pi) Q; the Jensen-Shannon divergence at pi = 1/2."""
    top, rest = -pi * math.log(pi), math.log1p(-pi)

    def composite(v: Tensor) -> Tensor:
        exact = _log_one_minus_exp(F.softplus(-v.clamp(max=30)) / pi)  # log(1 - e^(s/pi) pi), of s = g(v)
        return (1 - pi) * (rest - torch.where(v > 30, -v - math.log(pi), exact))

    return Divergence(
        "weighted_jensen_shannon",
        f=lambda u: pi * u * u.log() - (1 - pi + pi * u) * torch.log(1 - pi + pi * u),
        slope=lambda u: pi * (u.log() - torch.log(1 - pi + pi * u)),
        activation=lambda v: top + _log_sigmoid(v),
        conjugate=lambda s: (1 - pi) * (rest - torch.log1p(-pi * torch.exp(s / pi))),
        composite=composite,
        domain=(-math.inf, top),
    )


def _alpha(alpha: float) -> Divergence:
    power = alpha / (alpha - 1)

    def conjugate(s: Tensor) -> Tensor:
        return ((s * (alpha - 1) + 1).clamp(min=0) ** power - 1) / alpha

    def composite(v: Tensor) -> Tensor:
        return (torch.exp(power * (math.log(1 - alpha) + _log_softplus(-v))) - 1) / alpha

    return Divergence(
        "alpha",
        f=lambda u: (u**alpha - 1 - alpha * (u - 1)) / (alpha * (alpha - 1)),
        slope=lambda u: (u ** (alpha - 1) - 1) / (alpha - 1),
        activation=_identity if alpha > 1 else lambda v: 1 / (1 - alpha) - F.softplus(-v),
        conjugate=conjugate,
        composite=conjugate if alpha > 1 else composite,
        domain=(-math.inf, math.inf) if alpha > 1 else (-math.inf, 1 / (1 - alpha)),
    )
