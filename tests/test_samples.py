"""What generators make."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from bench import datasets
from bench.pipeline import samples
from encoders.base import Generative, ImageSet, Training
from encoders.bigan import BiGAN
from encoders.vae import VAE

RECIPES: list[Generative] = [BiGAN(hidden=16, latent=4, epochs=1), VAE(hidden=16, latent=4, epochs=1)]


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return datasets.load("digits", limit=200).train


def test_samples_are_a_function_of_the_seed_and_leave_chance_alone(digits: ImageSet) -> None:
    state = torch.get_rng_state()
    for recipe in RECIPES:
        one, again, other = (samples.draw(recipe, digits.shape, 5, seed) for seed in (0, 0, 1))
        assert one is not None
        assert again is not None
        assert other is not None
        assert torch.equal(one, again)
        assert not torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())


def test_pictures_show_test_images_above_their_reconstructions(digits: ImageSet) -> None:
    recipe, run = RECIPES[0], Training(0)
    module = recipe.fit(digits.without_labels(), run)
    assert run.generator is not None
    found = samples.pictures(recipe, run.generator, module, digits, 0)
    assert set(found) == {"samples.png", "reconstructions.png", "interpolations.png"}
    pixels = np.array(Image.open(io.BytesIO(found["reconstructions.png"])))
    assert np.array_equal(pixels[4 : 8 * 8 : 8, 4 : 8 * 8 : 8], digits.images[0, 0])  # eight times as large
    made = samples.make(recipe, run.generator, module(torch.from_numpy(digits.images[:1]))["code"])
    below = pixels[8 * 10 + 4 : 8 * 18 : 8, 4 : 8 * 8 : 8]
    assert np.abs(below - made[0, 0].numpy() * 255).max() <= 0.51


def test_means_of_posteriors_are_not_held_against_the_prior(digits: ImageSet) -> None:
    features = {"code": torch.zeros(200, 4)}  # what a collapsed encoder gives, and a posterior that ignores the image
    names = [{alarm.name for alarm in samples.alarms(recipe, None, features, digits, 0)} for recipe in RECIPES]
    assert names == [{"prior_mismatch"}, set()]
