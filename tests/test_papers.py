"""Ours beside published numbers."""

import io
import json
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bench.suites import resolve
from bench.suites.reading import read_suite
from encoders import dcgan, gan, objectives, wgan, wgan_gp
from results import papers
from results.leaderboard import leaderboard
from results.papers import BIGAN, PUBLISHED, render
from results.record import Provenance, Record
from results.statistics import wilson

MADE = Provenance(
    commit=None, dirty=None, versions={}, device="a", threads=1, precision="float32", started="2026-01-01T00:00:00"
)  # fmt: skip


CONFIGS = Path(__file__).resolve().parent.parent / "configs"
PAPERS_OWN = {
    "body": "mlp", "objective": "gan", "epochs": 400, "hidden": 1024, "latent": 50, "batch_size": 128,
    "learning_rate": 2e-4, "weight_decay": 2.5e-5,
}  # fmt: skip


def record(top1: float, seed: int = 0, **changes: object) -> Record:
    values = {
        "suite": "s", "key": f"{seed:016x}", "dataset": "mnist", "split": "test", "limit": None, "fingerprint": "f",
        "train_images": 60_000, "test_images": 10_000, "encoder": "bigan", "label": "bigan",
        "params": PAPERS_OWN, "encoder_version": 1, "is_control": False,
        "seed": seed, "status": "done", "tap": "penultimate", "protocol": "knn", "protocol_label": "knn",
        "protocol_params": {"k": 1, "metric": "euclidean", "weights": "uniform"}, "protocol_version": 1,
        "metrics": {"top1": top1}, "seconds": {}, "provenance": MADE,
    }  # fmt: skip
    return Record.model_validate(values | changes)


def compare(records: list[Record]) -> list[papers.Comparison]:
    return papers.compare(leaderboard(records))


def test_one_seed_is_held_against_the_sampling_of_test_images() -> None:
    (one,) = compare([record(0.9720)])
    assert (one.published.paper, one.published.name, one.published.value) == (BIGAN, "BiGAN", 0.9739)
    assert one.difference == pytest.approx(-0.0019)
    assert one.our_interval == pytest.approx(wilson(0.972, 10_000))
    assert one.their_interval == pytest.approx(wilson(0.9739, 10_000))
    assert one.agrees
    assert not compare([record(0.9705)])[0].agrees  # 0.34 points off, 0.31 are theirs to miss


def test_several_seeds_have_the_interval_of_the_leaderboard() -> None:
    records = [record(value, seed) for seed, value in enumerate((0.9730, 0.9740, 0.9750))]
    (one,) = compare(records)
    (row,) = leaderboard(records).rows
    assert (one.seeds, one.ours) == (3, pytest.approx(0.974))
    assert one.our_interval == (row.low, row.high)  # of new seeds and new images


@pytest.mark.parametrize(
    "changes",
    [
        {"limit": 1000}, {"split": "validation"}, {"dataset": "mnist5k"}, {"tap": "code"}, {"encoder": "ali"},
        {"protocol_params": {"k": 5, "metric": "euclidean"}}, {"protocol_params": {"k": 1, "metric": "cosine"}},
        {"params": {"body": "conv"}}, {"params": {"body": "mlp", "objective": "kl"}}, {"metrics": {"top5": 0.9}},
    ],
)  # fmt: skip
def test_what_is_about_something_else_is_not_compared(changes: dict[str, object]) -> None:
    assert compare([record(0.97, **changes)]) == []


def test_a_shorter_training_says_so_and_stays_apart() -> None:
    short = PAPERS_OWN | {"epochs": 10}
    long, brief = compare([record(0.97), record(0.96, params=short, label="short")])
    gallery = "its gallery has 50,000 images, ours all of train"
    assert (long.remark, brief.remark) == (gallery, f"epochs 10, theirs 400; {gallery}")
    printed = render([long, brief])
    assert "97.39  97.00 ± 0.33" in printed
    assert "-0.39  no" in printed
    assert "frostbench run papers/bigan_table1" in render([])


def test_log_densities_are_in_nats() -> None:
    made = {
        "encoder": "gan", "tap": "samples", "params": {"objective": "gan", "optimizer": "sgd"},
        "protocol": "generative", "protocol_params": {"samples": 10_000}, "metrics": {"parzen": 220.5},
    }  # fmt: skip
    (one,) = compare([record(0, **made)])
    assert (one.our_interval, one.agrees) == (None, None)  # nothing that was read says what its ± 2 is
    assert "225.0 ± 2.0  220.5 " in render([one])
    assert "unknown  bigan  meaning of its ± not stated" in render([one])
    assert "-4.5" in render([one])


def test_a_plus_minus_that_no_one_explains_is_shown_and_not_used() -> None:
    made = {"encoder": "vae", "tap": "code", "protocol": "svm", "protocol_params": {}, "dataset": "cifar10"}
    (one,) = compare([record(0.3965, **made, params={"body": "conv", "latent": 64})])  # theirs: 39.59 ± .01
    assert one.agrees  # .06 points off, where 10,000 images give .96
    assert "39.59 ± 0.01" in render([one]) and one.remark.endswith("meaning of its ± not stated")


@pytest.mark.parametrize("kind", ["encoders", "taps", "protocols", "datasets"])
def test_only_what_is_asked_for_is_compared(kind: str) -> None:
    ae = record(0.98, encoder="autoencoder", label="ae", params=PAPERS_OWN | {"loss": "l2"})
    board = leaderboard([record(0.97), ae])
    names = {"encoders": ["ae"], "taps": ["penultimate"], "protocols": ["knn@1"], "datasets": ["mnist"]}
    kept = papers.compare(board.select(**{kind: names[kind]}))
    assert [one.label for one in kept] == (["ae"] if kind == "encoders" else ["bigan", "ae"])


def test_every_format_has_the_same_numbers() -> None:
    found = compare([record(0.97), record(0.96, label="<b>|_&")])
    values = json.loads(render(found, "json"))
    assert [(row["published"], row["ours"], row["agrees"]) for row in values] == [
        (0.9739, 0.96, False),
        (0.9739, 0.97, False),
    ]
    assert values == pd.read_csv(io.StringIO(render(found, "csv"))).replace({np.nan: None}).to_dict("records")
    cells = {
        "markdown": r"\<b\>\|\_&",
        "latex": r"\textless{}b\textgreater{}\textbar{}\_\&",
        "html": "&lt;b&gt;|_&amp;",
    }
    for form, label in cells.items():
        said = render(found, form)
        assert label in said and "96.00" in said and "-1.39" in said and "They agree if" in said
    assert "<b>" not in render(found, "html")
    assert render([], "json") == "[]\n" and render([], "csv").startswith("paper,its_name,")
    assert all("No record is about" in render([], form) for form in ("markdown", "latex", "html"))


def test_every_number_names_methods_taps_and_settings_that_there_are() -> None:
    encoders, protocols = resolve.encoders(), resolve.protocols()
    for one in PUBLISHED:
        recipe = encoders[one.encoder](**one.params)
        assert one.tap in (*recipe.taps, "samples")
        assert one.recipe.keys() <= type(recipe).model_fields.keys()
        protocols[one.protocol](**one.settings)


def test_self_supervised_numbers_say_by_which_protocol() -> None:
    params = {"body": "resnet18", "epochs": 200, "batch_size": 256, "learning_rate": 0.4, "outputs": 256}
    made = {"encoder": "simclr", "label": "simclr", "tap": "backbone", "dataset": "cifar10", "params": params}
    knn = {"k": 200, "metric": "cosine", "weights": "temperature", "temperature": 0.1}
    linear = {"protocol": "linear", "protocol_label": "linear", "protocol_params": {}}
    found = compare([record(0.9, **made, **linear), record(0.85, **made, protocol_params=knn)])
    best = "its best epoch on the test set, one run, a recipe of its own (SGD, no blur)"
    assert {(one.published.name, one.published.value): one.remark for one in found} == {
        ("SimCLR", 0.9074): "epochs 200, theirs 1000; its linear head learns beside the network, one seed",
        ("SimCLR, 200 epochs", 0.847): f"batch_size 256, theirs 128; {best}",
        ("SimCLR, 800 epochs", 0.879): f"epochs 200, theirs 800; batch_size 256, theirs 512; {best}",
    }
    assert not compare([record(0.85, **made | {"tap": "projector1"}, protocol_params=knn)])
    assert not compare([record(0.85, **made | {"params": params | {"body": "small"}}, protocol_params=knn)])


def test_the_suite_of_self_supervised_methods_is_about_their_numbers() -> None:
    read = read_suite("ssl_cifar10")
    own = [one for one in PUBLISHED if one.paper in (papers.SOLO, papers.LIGHTLY)]
    recipes = {one.name: one.params for one in read.encoders}
    for one in own:
        assert one.params.items() <= recipes[one.encoder].items()
        protocols = [each.params for each in read.protocols if each.name == one.protocol]
        assert any(one.settings.items() <= params.items() for params in protocols)
        header = (CONFIGS / "ssl_cifar10.yaml").read_text()
        assert f"{100 * one.value:.2f}".removesuffix("0") in header  # 84.7, 92.94
    for one in own:
        if one.paper == papers.SOLO:
            assert one.recipe.items() <= recipes[one.encoder].items()


def test_the_papers_suites_are_about_their_numbers() -> None:
    asked = {"bigan_table1": BIGAN, "aae_clustering": "16 clusters", "aae_semisupervised": "100 labels"}
    for name, about in asked.items():
        read = read_suite(f"papers/{name}")
        named = {(encoder.name, protocol.name) for encoder in read.encoders for protocol in read.protocols}
        wanted = {(one.encoder, one.protocol) for one in PUBLISHED if about in (one.paper, one.name.partition(", ")[2])}
        assert wanted
        assert wanted <= named


def test_no_two_objectives_of_a_suite_are_one_loss() -> None:
    read, logits = read_suite("papers/fgan_mnist"), torch.linspace(-3, 3, 50)
    losses = {}
    for encoder in (one for one in read.encoders if one.name == "gan"):
        one = objectives.divergence(encoder.params["objective"])
        losses[encoder.label] = torch.stack([one.activation(logits), one.composite(logits)])
    for label, loss in losses.items():
        apart = [(loss - other).std(dim=1).max() for name, other in losses.items() if name != label]
        assert min(apart) > 1e-3, label  # 0 where they are one loss but for a constant


LISTED = [
    (dcgan, "gives each batch to one of the two, and draws noise for each. It adds an L2 term"),
    (gan, "mnist.yaml): uniform noise"),
    (wgan, "first 25 epochs have one step of the generator each"),
    (wgan_gp, "defaults and networks are those of the authors' code for CIFAR-10"),
    (wgan_gp, "Their MNIST code (gan_mnist.py) differs from this: batches of 50"),
    (wgan_gp, "Versions before 3 moved each weight of the convolutional critic by another's gradient"),
    (objectives, "f counts: Pearson's is (p - q)^2 / q and Neyman's (p - q)^2 / p"),
    (objectives, "Jensen-Shannon's is twice the divergence"),
    (objectives, "alpha's is (p^alpha q^(1 - alpha) - 1) / (alpha (alpha - 1))"),
]


@pytest.mark.parametrize(("module", "words"), LISTED)
def test_what_differs_from_a_source_is_listed(module: types.ModuleType, words: str) -> None:
    assert words in " ".join(str(module.__doc__).split())
