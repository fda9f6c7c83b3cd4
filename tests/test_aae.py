"""The adversarial autoencoder's family: what each variant sees, gives, and learns."""

import math
import typing as t

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.datasets import load_digits

from encoders.aae import AAE
from encoders.base import Encoder, EncoderError, ImageSet, ImageShape, Training, visible_to
from encoders.category_and_style import imbalance, inconsistency
from encoders.clustering_aae import ClusteringAAE
from encoders.label_informed_aae import LabelInformedAAE
from encoders.priors import MixtureOfGaussians
from encoders.semisupervised_aae import SemiSupervisedAAE
from encoders.supervised_aae import SupervisedAAE
from protocols.argmax import Argmax
from protocols.assignment import Assignment
from protocols.base import FeatureSet, Protocol


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    return ImageSet(pixels, labels.astype(np.int64), tuple("0123456789"), "digits")


def part(data: ImageSet, rows: slice) -> ImageSet:
    assert data.labels is not None
    return ImageSet(data.images[rows], data.labels[rows], data.classes, "part")


def top1(recipe: Encoder, tap: str, protocol: Protocol, digits: ImageSet) -> float:
    train, test = part(digits, slice(0, 1400)), part(digits, slice(1400, None))
    module = recipe.fit(visible_to(train, recipe, seed=0), Training(seed=0))
    sets = []
    for one in (train, test):
        assert one.labels is not None
        sets.append(FeatureSet(module(torch.from_numpy(one.images))[tap], torch.from_numpy(one.labels), 10))
    return protocol.score(sets[0], sets[1], seed=0).metrics["top1"]


SMALL: list[Encoder] = [
    AAE(hidden=16, epochs=1, posterior="gaussian", prior="uniform"),
    AAE(hidden=16, epochs=1, posterior="universal", prior="mixture"),
    SupervisedAAE(hidden=16, epochs=1),
    LabelInformedAAE(hidden=16, epochs=1, labels=20),
    SemiSupervisedAAE(hidden=16, epochs=1, labels=20),
    ClusteringAAE(hidden=16, epochs=1),
]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)], ids=str)
@pytest.mark.parametrize("recipe", SMALL, ids=lambda recipe: repr(recipe)[:40])
def test_each_learns_at_the_sizes_of_mnist_and_cifar10(
    recipe: Encoder, shape: ImageShape, precision: t.Literal["float32", "bfloat16"]
) -> None:
    rng = np.random.Generator(np.random.Philox(0))
    noise = ImageSet(rng.integers(0, 256, (40, *shape), np.uint8), np.arange(40) % 10, tuple("0123456789"), "noise")
    images = torch.from_numpy(noise.images)
    one, other = (
        recipe.fit(visible_to(noise, recipe, seed=0), Training(0, precision=precision))(images) for _ in range(2)
    )
    assert tuple(one) == recipe.taps
    assert all(rows.dtype == torch.float32 and bool(torch.isfinite(rows).all()) for rows in one.values())
    assert all(torch.equal(one[tap], other[tap]) for tap in recipe.taps)


# ---- what is withheld -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 10, 37, 100, 1797])
def test_a_budget_is_kept_and_balanced(budget: int, digits: ImageSet) -> None:
    labels = digits.with_labels(budget, seed=3).labels
    assert labels is not None and digits.labels is not None
    kept = labels >= 0
    assert kept.sum() == budget
    assert np.array_equal(labels[kept], digits.labels[kept])
    assert set(labels[~kept]) <= {-1}
    counts = np.bincount(labels[kept], minlength=10)
    assert budget == 1797 or counts.max() - counts.min() <= 1


def test_budgets_are_nested_and_depend_on_the_seed_alone(digits: ImageSet) -> None:
    def rows(budget: int, seed: int) -> set[int]:
        labels = digits.with_labels(budget, seed).labels
        assert labels is not None
        return set(np.flatnonzero(labels >= 0).tolist())

    assert rows(50, 0) < rows(100, 0)
    assert rows(100, 0) == rows(100, 0) != rows(100, 1)


def test_classes_with_few_images_give_all_and_the_others_share_the_rest() -> None:
    few = ImageSet(np.zeros((9, 1, 8, 8), np.uint8), np.array([0, 1, 1, 1, 1, 2, 2, 2, 2]), ("a", "b", "c"), "few")
    labels = few.with_labels(7, seed=0).labels
    assert labels is not None
    assert np.bincount(labels[labels >= 0]).tolist() == [1, 3, 3]
    with pytest.raises(EncoderError, match="a label budget of 10 exceeds 9 images; set it to 9 or less"):
        few.with_labels(10, seed=0)


@pytest.mark.parametrize(
    ("recipe", "count"),
    [
        (AAE(), None),
        (ClusteringAAE(), None),
        (SemiSupervisedAAE(), 100),
        (SemiSupervisedAAE(labels=20), 20),
        (LabelInformedAAE(labels=None), 1797),
        (SupervisedAAE(), 1797),
    ],
    ids=repr,
)
def test_each_recipe_is_shown_what_it_declares(recipe: Encoder, count: int | None, digits: ImageSet) -> None:
    labels = visible_to(digits, recipe, seed=0).labels
    assert (None if labels is None else (labels >= 0).sum()) == count


def test_withheld_labels_move_no_weight(digits: ImageSet) -> None:
    recipe = SemiSupervisedAAE(epochs=1, hidden=16, labels=20)
    given = visible_to(digits, recipe, seed=0)
    assert given.labels is not None and digits.labels is not None
    changed = np.where(given.labels >= 0, digits.labels, 9 - digits.labels)  # all the others are wrong
    again = ImageSet(digits.images, np.where(given.labels >= 0, changed, -1), digits.classes, "changed")
    one, other = (recipe.fit(data, Training(seed=0)).state_dict() for data in (given, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


# ---- posteriors and priors --------------------------------------------------------------------------------------


def test_the_gaussian_posteriors_code_is_its_mean(digits: ImageSet) -> None:
    module = AAE(posterior="gaussian", latent=3, hidden=16, epochs=1).fit(digits.without_labels(), Training(seed=0))
    images = torch.from_numpy(digits.images[:5])
    outputs = module.body(images.float() / 255)[1]
    assert outputs.shape == (5, 6)
    assert torch.equal(module(images)["code"], outputs[:, :3])


@pytest.mark.parametrize("body", ["mlp", "conv"])
def test_the_universal_posteriors_features_are_the_mean_over_noise_that_it_saw_in_training(
    body: t.Literal["mlp", "conv"], digits: ImageSet
) -> None:
    recipe = AAE(posterior="universal", latent=3, hidden=16, epochs=1, body=body)
    module = recipe.fit(digits.without_labels(), Training(seed=0))
    images = torch.from_numpy(digits.images[:5])
    x = images.float() / 255
    noise = module.body.noise
    assert noise.std().item() == pytest.approx(0.3, rel=0.1)  # about as much power as the pixels
    drawn = [module.body.body(torch.cat([x, one.expand_as(x)], dim=1)) for one in noise]
    assert len(drawn) == 8 and not torch.allclose(drawn[0][1], drawn[1][1])  # the noise is read
    torch.testing.assert_close(module(images)["code"], sum(one[1] for one in drawn) / 8)
    layers = sum(one[0]["penultimate"] for one in drawn) / 8
    torch.testing.assert_close(module(images)["penultimate"], layers)
    seen = []
    module.body.train()
    module.body.body.register_forward_pre_hook(lambda _, given: seen.append(given[0][:, 1:]))
    for _ in range(50):
        module.body(x)
    assert torch.cat(seen).std().item() == pytest.approx(0.3, rel=0.05)


def test_two_dimensional_priors_need_an_even_code() -> None:
    with pytest.raises(ValidationError, match="set latent to 2 or another even number"):
        AAE(prior="swiss_roll", latent=3)


def test_codes_follow_the_swiss_roll_to_its_edge(digits: ImageSet) -> None:
    recipe = AAE(prior="swiss_roll", latent=2, hidden=64, epochs=40, learning_rate=1e-3, adversarial_learning_rate=1e-3)
    code = recipe.fit(digits.without_labels(), Training(seed=0))(torch.from_numpy(digits.images))["code"]
    assert 2 < code.norm(dim=1).quantile(0.95) < 4  # the roll's own 95 % lie within 2.92


# ---- labels -----------------------------------------------------------------------------------------------------


def test_a_supervised_decoder_makes_use_of_the_label(digits: ImageSet) -> None:
    def error(labels: np.ndarray[t.Any, np.dtype[np.int64]]) -> float:
        run = Training(seed=0)
        recipe = SupervisedAAE(hidden=32, epochs=15, latent=1, learning_rate=5e-3, batch_size=32)
        recipe.fit(ImageSet(digits.images[:600], labels[:600], digits.classes, "digits"), run)
        return run.history[-1]["autoencoder_loss"]

    assert digits.labels is not None
    shuffled = np.random.Generator(np.random.Philox(0)).permutation(digits.labels[:600])
    assert error(digits.labels) < 0.8 * error(shuffled)  # one number and a true label say more than with a false one


def test_each_class_goes_to_its_petal(digits: ImageSet) -> None:
    recipe = LabelInformedAAE(
        labels=None, hidden=64, epochs=30, learning_rate=1e-3, adversarial_learning_rate=1e-3, batch_size=64
    )
    code = recipe.fit(digits, Training(seed=0))(torch.from_numpy(digits.images))["code"]
    petals = MixtureOfGaussians(2).sample_of(torch.arange(10).repeat_interleave(200)).view(10, 200, 2).mean(1)
    nearest = torch.cdist(code, petals).argmin(dim=1)
    assert (nearest == torch.from_numpy(digits.labels)).float().mean() > 0.4  # by chance: 0.1


def test_semi_supervised_classes_are_learned_from_fifty_labels(digits: ImageSet) -> None:
    recipe = SemiSupervisedAAE(labels=50, hidden=64, epochs=15)
    assert top1(recipe, "label", Argmax(), digits) > 0.75


def test_semi_supervised_refuses_another_number_of_classes(digits: ImageSet) -> None:
    with pytest.raises(EncoderError, match="classes=9, but the dataset has 10 classes: set `classes: 10`"):
        SemiSupervisedAAE(classes=9).fit(digits, Training(seed=0))


@pytest.fixture(scope="module")
def clustered(digits: ImageSet) -> float:
    """How well the paper's clusters agree with classes."""
    return top1(ClusteringAAE(hidden=64, epochs=25), "cluster", Assignment(), digits)


def test_clusters_agree_with_classes_though_no_label_is_seen(clustered: float) -> None:
    assert clustered > 0.55


def test_a_decoder_that_reads_loud_codes_learns_no_more_than_the_mean_image(digits: ImageSet) -> None:
    def error(code_noise: float) -> float:
        run = Training(seed=0)
        ClusteringAAE(hidden=32, epochs=20, code_noise=code_noise, learning_rate=5e-3).fit(digits.without_labels(), run)
        return run.history[-1]["autoencoder_loss"]

    spread = float((digits.images / 255).var(axis=0).mean())
    assert error(0.0) < 0.8 * spread
    assert error(100.0) > 0.95 * spread


def test_consistency_is_a_divergence_from_the_image_to_its_copy() -> None:
    category = torch.tensor([[0.5, 0.5], [1.0, 0.0]], requires_grad=True)
    logits = torch.tensor([[0.75, 0.25], [0.5, 0.5]]).log()
    wanted = (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25) + math.log(2)) / 2
    assert float(inconsistency(category, logits)) == pytest.approx(wanted, rel=1e-6)
    assert not inconsistency(category, logits).requires_grad  # the copy follows the image, not the image the copy


def test_balance_is_zero_for_even_clusters_and_ln_k_for_one() -> None:
    assert float(imbalance(torch.eye(4))) == pytest.approx(0, abs=1e-6)
    assert float(imbalance(torch.eye(4)[[2, 2, 2]])) == pytest.approx(math.log(4))


def test_consistent_and_balanced_clusters_follow_digits_more_closely(clustered: float, digits: ImageSet) -> None:
    added = ClusteringAAE(hidden=64, epochs=25, noise=0, consistency=1, smoothness=1, balance=0.8)
    assert top1(added, "cluster", Assignment(), digits) > clustered + 0.05


@pytest.mark.slow
def test_a_consistent_classifier_needs_fewer_labels(digits: ImageSet) -> None:
    paper, added = (SemiSupervisedAAE(labels=20, hidden=64, epochs=25, consistency=weight) for weight in (0, 1))
    assert top1(added, "label", Argmax(), digits) > top1(paper, "label", Argmax(), digits) + 0.03


@pytest.mark.parametrize("addition", ["consistency", "smoothness", "balance"])
def test_each_addition_changes_what_is_learned(addition: str, digits: ImageSet) -> None:
    def weights(strength: float) -> torch.Tensor:
        recipe = ClusteringAAE.model_validate({"hidden": 16, "epochs": 1, addition: strength})
        return recipe.fit(part(digits, slice(0, 200)).without_labels(), Training(seed=0)).state_dict()[
            "category.0.weight"
        ]

    assert not torch.equal(weights(0.0), weights(1.0))


def test_categories_are_probabilities(digits: ImageSet) -> None:
    module = ClusteringAAE(clusters=7, hidden=16, epochs=0).fit(digits.without_labels(), Training(seed=0))
    cluster = module(torch.from_numpy(digits.images))["cluster"]
    assert cluster.shape == (1797, 7)
    assert torch.allclose(cluster.sum(1), torch.ones(1797))
