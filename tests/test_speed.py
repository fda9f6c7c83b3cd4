"""Speed claims, each a ratio measured side by side in one run."""

import statistics
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from bench import data
from encoders.base import Training
from encoders.bigan import BiGAN
from encoders.networks import BiGANDiscriminator, BiGANEncoder, BiGANGenerator

BATCH = 128


def plain_loop(images: torch.Tensor) -> float:
    """Images a second of BiGAN as repositories write it: a DataLoader of floats, alternating updates, default Adam."""
    shape = (1, 28, 28)
    encoder, generator, discriminator = (body(shape, 50) for body in (BiGANEncoder, BiGANGenerator, BiGANDiscriminator))
    judge = torch.optim.Adam(discriminator.parameters(), 2e-4, (0.5, 0.999))
    players = torch.optim.Adam([*generator.parameters(), *encoder.parameters()], 2e-4, (0.5, 0.999))
    ones, zeros = torch.ones(BATCH), torch.zeros(BATCH)
    loader = DataLoader(TensorDataset(images.float() / 255), BATCH, shuffle=True, drop_last=True)
    started = time.perf_counter()
    for (x,) in loader:
        z = torch.rand(BATCH, 50) * 2 - 1
        for optimizer, real, fake in ((judge, ones, zeros), (players, zeros, ones)):
            of_real = discriminator(x, torch.tanh(encoder(x)[1] / 2))
            of_fake = discriminator(generator(z), z)
            loss = F.binary_cross_entropy_with_logits(of_real, real) + F.binary_cross_entropy_with_logits(of_fake, fake)
            for network in (encoder, generator, discriminator):
                nn.Module.zero_grad(network)
            loss.backward()
            optimizer.step()
    return len(loader) * BATCH / (time.perf_counter() - started)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_bigan_trains_at_least_1_7_times_as_fast_as_a_plain_alternating_loop() -> None:
    images = data.load("mnist5k").train.without_labels()
    tensor = torch.from_numpy(images.images[:2560].copy())
    ratios = []
    for _ in range(3):
        plain = plain_loop(tensor)
        run = Training(0)
        BiGAN(epochs=1).fit(images, run)
        ours = run.history[0]["images_per_second"]
        print(f"plain {plain:,.0f} images/s, ours {ours:,.0f}, ratio {ours / plain:.2f}")
        ratios.append(ours / plain)
    assert statistics.median(ratios) >= 1.7
