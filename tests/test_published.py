"""What this project prints as its own numbers can be made again from the records it keeps."""

import re
import runpy
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from bench.__main__ import app
from bench.suites import resolve
from results import leaderboard
from results.comparison import compare
from results.store import read_store

ROOT = Path(__file__).resolve().parent.parent
DOCS = runpy.run_path(str(ROOT / "docs" / "tables.py"))
UNTRACED = {"bigan_table1"}  # made from an export of a commit, which docs/results.md names: there was no git to ask
SUITES = sorted(path.name for path in (ROOT / "results" / "published").iterdir() if path.is_dir())


@pytest.mark.parametrize("file", [*DOCS["PAGES"], *DOCS["PICTURES"]])
def test_a_generated_page_is_what_make_docs_writes(file: str) -> None:
    assert (ROOT / file).read_text(encoding="utf-8") == DOCS["current"](file), "`make docs` writes it again"


@pytest.mark.parametrize("suite", SUITES)
def test_every_published_suite_has_its_table(suite: str) -> None:
    assert read_store(ROOT / "results" / "published" / suite).damaged == []
    assert f"<!-- {suite} -->\n**" in (ROOT / "docs/results.md").read_text(encoding="utf-8")


def test_generated_pages_have_every_command_and_every_recipe() -> None:
    commands, methods = ((ROOT / page).read_text(encoding="utf-8") for page in ("docs/commands.md", "docs/methods.md"))
    for command in app.registered_commands:
        assert f"\n### frostbench {command.name or command.callback.__name__}\n" in commands  # type: ignore[union-attr]
    for name in [*resolve.encoders(), *resolve.protocols()]:
        assert f"\n#### {name}\n" in methods


def test_every_argument_and_option_has_a_help_text() -> None:
    rows = re.findall(r"^\| `.*$", (ROOT / "docs/commands.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 100
    assert [row for row in rows if row.endswith("|  |")] == []


def test_the_pictures_are_svg() -> None:
    for file in DOCS["PICTURES"]:
        assert ElementTree.parse(ROOT / file).getroot().tag == "{http://www.w3.org/2000/svg}svg"


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        file, _, heading = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, link


@pytest.mark.parametrize("suite", SUITES)
def test_a_published_suite_asks_for_exactly_the_recipes_of_its_records(suite: str) -> None:
    contents = read_store(ROOT / "results" / "published" / suite)
    (plan,) = contents.plans
    assert all(plan.asks_for(record) for record in contents.records)
    assert {one.label for one in plan.encoders} == {record.label for record in contents.records}
    judged = [record for record in contents.records if record.protocol]
    asked = {(one.label, repr(sorted(one.params.items()))) for one in plan.protocols}
    assert asked == {(one.protocol_label, repr(sorted(one.protocol_params.items()))) for one in judged}


def test_the_published_mnist_table_tells_most_of_its_rows_apart() -> None:
    rows = leaderboard.of(read_store(ROOT / "results" / "published" / "mnist")).rows
    for protocol, least in (("linear@2", 85), ("knn@1", 60)):
        judged = [row for row in rows if row.protocol == protocol]
        assert sum((row.rank_low or 0) - 1 for row in judged) >= least  # of 120 pairs
    bigan = next(row for row in rows if (row.encoder, row.tap, row.protocol) == ("bigan", "penultimate", "linear@2"))
    assert bigan.untrained == "untrained"
    assert (bigan.over_untrained_low or 0) > 0


@pytest.mark.parametrize("suite", SUITES)
def test_published_records_come_from_a_commit_and_agree_with_their_predictions(suite: str) -> None:
    folder = ROOT / "results" / "published" / suite
    for record in read_store(folder).records:
        if suite not in UNTRACED:
            assert record.provenance.commit
            assert record.provenance.dirty is False
        if record.status == "failed":
            assert "became" in (record.error or "")  # a loss that diverged; other failures are not results
            continue
        if record.tap == "samples":
            assert record.predictions is None
            continue
        (run,) = folder.glob(f"{record.label}/*/seed{record.seed}-{record.key}")
        with np.load(run / str(record.predictions)) as kept:
            assert record.metrics["top1"] == pytest.approx((kept["predicted"] == kept["label"]).mean())


# ---- numbers in prose -----------------------------------------------------------------------------------------------

Quoted = tuple[str, str, str, str]  # suite, label, tap, protocol; where it ends in a digit behind #, of that seed alone
KNN, SVM, CLUSTERS = "knn", "svm", "assignment"
TABLE_1 = [("bigan_table1", label, tap, KNN) for label, tap in (
    ("bigan", "penultimate"), ("lr-and-d", "discriminator"), ("lr-and-d", "penultimate"), ("ae-l2", "penultimate"),
    ("ae-l1", "penultimate"), ("jlr", "penultimate"),
)]  # fmt: skip
BIGAN, D, LR, L2, L1, JLR = TABLE_1
LABELS = [("aae_semisupervised", label, "label", "argmax") for label in (
    "labels-100", "labels-1000", "consistent-100", "consistent-1000",
)]  # fmt: skip
QUOTED: list[tuple[str, str, list[Quoted]]] = [  # a file, its words with _ for each number, and whose numbers these are
    ("docs/results.md", "1-NN: BiGAN _ (97.39), its GAN's discriminator _ (97.30), latent regressor _ (97.44), "
     "autoencoder l2 _ (97.58) and l1 _ (97.63); the joint latent regressor _ (97.13)", TABLE_1),
    ("docs/results.md", "(AAE _, VAE _, BiGAN _, untrained _)",
     [("dim_table3", label, "code", SVM) for label in ("aae", "vae", "bigan", "untrained")]),
    ("docs/results.md", "k-means is first (_), by nearest neighbours PCA (_)",
     [("methods", "kmeans", "pooled", "linear"), ("methods", "pca", "components", KNN)]),
    ("docs/results.md", "it has _ to _ % at the penultimate layer",
     [("bigan_precision", "bigan", "penultimate", f"{KNN}#{seed}") for seed in (1, 0)]),
    ("configs/papers/aae_clustering.yaml",
     "consistent-16 _, _, _, _, _ % with seeds 0 to 4, consistent-30 _ % with seed 0",
     [*(("aae_clustering", "consistent-16", "cluster", f"{CLUSTERS}#{seed}") for seed in range(5)),
      ("aae_clustering", "consistent-30", "cluster", CLUSTERS)]),
    ("configs/papers/aae_semisupervised.yaml",
     "labels-100 _, labels-1000 _, consistent-100 _, consistent-1000 _ %", LABELS),
    ("configs/papers/bigan_table1.yaml",
     "): BiGAN _, D _, LR _, JLR _, AE (l2) _, AE (l1) _.", [BIGAN, D, LR, JLR, L2, L1]),
    ("configs/papers/bigan_table1.yaml", "results/published/mnist): BiGAN _, AE (l2) _.",
     [("mnist", "bigan", "penultimate", KNN), ("mnist", "autoencoder-l2", "penultimate", KNN)]),
    ("configs/papers/dcgan_features.yaml", "svm on all layers _, untrained _, pixels _.",
     [("dcgan_features", "dcgan", "all", SVM), ("dcgan_features", "untrained", "all", SVM),
      ("dcgan_features", "pixels", "pixels", SVM)]),
    ("configs/papers/dim_table3.yaml", "VAE _ / _ / _, AAE _ / _ / _, BiGAN _ / _ / _, untrained _ / _ / _.",
     [("dim_table3", label, tap, SVM) for label in ("vae", "aae", "bigan", "untrained")
      for tap in ("conv", "penultimate", "code")]),
    ("configs/papers/aae_likelihood.yaml", "AAE _, VAE _, GAN _ nats.",
     [("aae_likelihood", label, "samples", "generative") for label in ("aae", "vae", "gan")]),
    ("configs/papers/fgan_mnist.yaml", "in nats: Pearson _, total variation _, Neyman _, reverse KL _, "
     "squared Hellinger _, Jeffrey _, GAN and Jensen-Shannon _ (one loss but for a constant), KL _.",
     [("fgan_mnist", label, "samples", "generative") for label in (
         "pearson", "total-variation", "neyman", "reverse-kl", "squared-hellinger", "jeffrey", "gan", "kl")]),
    ("docs/log.md", "brackets): BiGAN _ (97.39), D _ (97.30), LR _ (97.44), AE l2 _ (97.58), AE l1 _ (97.63)",
     [BIGAN, D, LR, L2, L1]),
    ("docs/log.md", "JLR: _ (97.13), its discriminator _.", [JLR, ("bigan_table1", "jlr", "discriminator", KNN)]),
    ("docs/log.md", "reaches _ and _ % on the test set after 20 epochs (one seed), with it _ and _.", LABELS),
]  # fmt: skip
THEIRS = [  # numbers of papers
    r"90\.45 (±|\+-) 2\.05( %)?( with 16 clusters)? and 95\.90 (±|\+-) 1\.13",
    r"98\.10 (±|\+-) 0\.10",
    "BiGAN 97.39, D 97.30, LR 97.44, JLR 97.13, AE \\(l2\\) 97.58, AE \\(l1\\) 97.63",
    "its authors' log has 96.28",
    "82.8 % with an L2-SVM",
    r"VAE 53\.83 .*? 44\.90 \+- \.13",
    r"MoCo v2\+ 92\.94, .*? VICReg 90\.12",
]
NUMBER = r"(-?\d+(?:\.\d+)?)"


def prose(file: str) -> str:
    """What is said in sentences, in one line: without tables and code; of a suite, its comments."""
    text = (ROOT / file).read_text(encoding="utf-8")
    if file.endswith(".yaml"):
        text = "\n".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    text = re.sub(r"<!-- \w[^\n]* -->\n.*?<!-- end -->|```.*?```|^\|.*?$", "", text, flags=re.DOTALL | re.MULTILINE)
    return " ".join(text.split())


def pattern(words: str) -> str:
    return NUMBER.join(map(re.escape, words.split("_")))


@pytest.mark.parametrize(("file", "words", "quoted"), QUOTED)
def test_a_number_in_a_sentence_is_what_its_records_say(file: str, words: str, quoted: list[Quoted]) -> None:
    (found,) = re.finditer(pattern(words), prose(file))
    for printed, (suite, label, tap, protocol) in zip(found.groups(), quoted, strict=True):
        name, _, seed = protocol.partition("#")
        values = [
            one.metrics.get("parzen", 100 * one.metrics.get("top1", 0.0))
            for one in read_store(ROOT / "results" / "published" / suite).records
            if (one.label, one.tap, one.protocol_label) == (label, tap, name)
            and (suite != "bigan_precision" or one.provenance.precision == "float32")
            and (not seed or one.seed == int(seed))
        ]
        digits = len(printed.partition(".")[2])
        assert values
        assert f"{sum(values) / len(values):.{digits}f}" == printed, (label, tap)


@pytest.mark.parametrize(
    "file",
    [
        "README.md",
        *(f"docs/{page}.md" for page in ("results", "commands", "methods", "data", "plugins", "distributed", "speed")),
        *(str(one.relative_to(ROOT)) for one in (ROOT / "configs").rglob("*.yaml")),
    ],
)
def test_no_accuracy_stands_in_a_sentence_without_a_record(file: str) -> None:
    text = prose(file)
    for words in [pattern(words) for where, words, _ in QUOTED if where == file] + THEIRS:
        text = re.sub(words, "", text)
    assert not re.findall(r".{20}\b[1-9]\d\.\d{1,2}\b(?! s\b)", text)


def test_every_code_of_dim_table3_beats_the_untrained_one_and_no_other_layer_does() -> None:
    folder = ROOT / "results" / "published" / "dim_table3"
    assert "every code beats the untrained network's" in prose("docs/results.md")
    for label in ("aae", "vae", "bigan"):
        for tap in ("conv", "penultimate", "code"):
            (one,) = compare(f"{label}/{tap}", f"untrained/{tap}", folder)
            assert (one.difference.mean > 0 and one.images_p < 0.05) == (tap == "code")


def test_k_means_and_pca_are_first_in_methods() -> None:
    rows = leaderboard.of(read_store(ROOT / "results" / "published" / "methods")).rows
    for protocol, first in (("linear@2", "kmeans"), ("knn@1", "pca")):
        judged = [row for row in rows if row.protocol == protocol and row.labels == 0]
        assert max(judged, key=lambda row: row.mean or 0.0).encoder == first
