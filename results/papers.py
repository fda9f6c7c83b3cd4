"""What papers published, and our numbers beside theirs.

Only numbers that were read in the paper, in its authors' code, or quoted by another paper, which then is named.
"""

import typing as t
from dataclasses import dataclass, field

from results import tables
from results.leaderboard import Leaderboard
from results.metrics import METRICS, interval, written
from results.record import Json, Record
from results.rows import Row
from results.statistics import wilson

BIGAN = "Donahue et al. 2017, Table 1"
AAE = "Makhzani et al. 2015"
DIM = "Hjelm et al. 2019, Table 3"
SOLO = "solo-learn, README at 9187ea3"
LIGHTLY = "lightly, benchmarks.rst at e8d317fc"
Numbers = dict[str, Json]


@dataclass(frozen=True)
class Published:
    """A number of a paper, and which of our records are about the same thing."""

    paper: str
    name: str  # the paper's for the method
    value: float  # a fraction, but for METRICS
    plus_minus: float | None  # as it is printed; nothing that was read says whether it is a deviation or an interval
    encoder: str
    tap: str
    protocol: str
    params: Numbers = field(default_factory=dict)  # that make it this method
    recipe: Numbers = field(default_factory=dict)  # the paper's, from which ours may differ and then says so
    settings: Numbers = field(default_factory=dict)  # of the protocol
    metric: str = "top1"
    dataset: str = "mnist"
    images: int = 10_000  # tested, which give a share its interval
    otherwise: str = ""  # how its evaluation differs from ours


def _nearest(name: str, top1: float, encoder: str, tap: str = "penultimate", **params: Json) -> Published:
    """A cell of BiGAN's table: the 1-nearest neighbour by Euclidean distance after 400 epochs."""
    settings: Numbers = {"k": 1, "metric": "euclidean"}
    recipe: Numbers = {
        "epochs": 400, "hidden": 1024, "latent": 50, "batch_size": 128, "learning_rate": 2e-4, "weight_decay": 2.5e-5,
    }  # fmt: skip
    return Published(
        BIGAN, name, top1, None, encoder, tap, "knn", {"body": "mlp", **params}, recipe, settings,
        otherwise="its gallery has 50,000 images, ours all of train",
    )  # fmt: skip


def _machine(name: str, encoder: str, tap: str, top1: float, plus_minus: float) -> Published:
    """A cell of Deep InfoMax's table of linear support vector machines on CIFAR-10, over 5 runs."""
    params: Numbers = {"body": "conv", "latent": 64}
    return Published(
        DIM, name, top1, plus_minus, encoder, tap, "svm", params, dataset="cifar10",
        otherwise="its hinge is not squared, its epochs are not told",
    )  # fmt: skip


def _solo(name: str, encoder: str, top1: float, also: str = "", **recipe: Json) -> Published:
    """A row of solo-learn's table for CIFAR-10: ResNet-18 with a 3x3 stem, 1,000 epochs, the recipe of its file."""
    known: Numbers = {"epochs": 1000, "batch_size": 256, **recipe}
    return Published(
        SOLO, name, top1, None, encoder, "backbone", "linear", {"body": "resnet18"}, known, dataset="cifar10",
        otherwise="; ".join(filter(None, ["its linear head learns beside the network, one seed", also])),
    )  # fmt: skip


def _lightly(name: str, encoder: str, short: float, long: float) -> tuple[Published, Published]:
    """Cells of lightly's two tables for CIFAR-10: ResNet-18, 200 epochs of batches of 128 and 800 of 512."""
    settings: Numbers = {"k": 200, "metric": "cosine", "weights": "temperature", "temperature": 0.1}
    one, other = (
        Published(
            LIGHTLY, f"{name}, {epochs} epochs", top1, None, encoder, "backbone", "knn", {"body": "resnet18"},
            {"epochs": epochs, "batch_size": batch}, settings, dataset="cifar10",
            otherwise="its best epoch on the test set, one run, a recipe of its own (SGD, no blur)",
        )
        for epochs, batch, top1 in ((200, 128, short), (800, 512, long))
    )  # fmt: skip
    return one, other


PUBLISHED = (
    _nearest("BiGAN", 0.9739, "bigan", objective="gan"),
    _nearest("D", 0.9730, "latent_regressor", "discriminator", joint_weight=0.0),
    _nearest("LR", 0.9744, "latent_regressor", joint_weight=0.0),
    _nearest("JLR", 0.9713, "latent_regressor", joint_weight=0.25),
    _nearest("AE (l2)", 0.9758, "autoencoder", loss="l2"),
    _nearest("AE (l1)", 0.9763, "autoencoder", loss="l1"),
    Published(
        f"{AAE}, quoted by hjweide/adversarial-autoencoder issue 2", "AAE, 100 labels", 0.9810, 0.0010,
        "semisupervised_aae", "label", "argmax", {"labels": 100},
    ),
    Published(
        f"{AAE}, quoted by GMVAE (Dilokthanakul et al. 2016, Table 1)", "AAE, 16 clusters", 0.9045, 0.0205,
        "clustering_aae", "cluster", "assignment", {"clusters": 16},
    ),
    Published(
        f"{AAE}, quoted by GMVAE (Dilokthanakul et al. 2016, Table 1)", "AAE, 30 clusters", 0.9590, 0.0113,
        "clustering_aae", "cluster", "assignment", {"clusters": 30},
    ),
    Published(
        f"{AAE}, 10,000 samples, quoted by the eVAE paper, Table 2", "AAE", 340, 2,
        "aae", "samples", "generative", {"body": "mlp", "prior": "gaussian", "posterior": "deterministic"},
        {"latent": 8, "prior_std": 5.0, "hidden": 1000}, {"samples": 10_000}, "parzen",
    ),
    Published(
        "Goodfellow et al. 2014, quoted by the eVAE paper, Table 2", "GAN", 225, 2,
        "gan", "samples", "generative", {"objective": "gan"}, {"optimizer": "sgd"}, {"samples": 10_000}, "parzen",
    ),
    _machine("VAE, conv", "vae", "conv", 0.5383, 0.0062),
    _machine("VAE, fc", "vae", "penultimate", 0.4214, 0.0369),
    _machine("VAE, Y", "vae", "code", 0.3959, 0.0001),
    _machine("AAE, conv", "aae", "conv", 0.5522, 0.0006),
    _machine("AAE, fc", "aae", "penultimate", 0.4334, 0.0110),
    _machine("AAE, Y", "aae", "code", 0.3776, 0.0018),
    _machine("BiGAN, conv", "bigan", "conv", 0.5640, 0.0112),
    _machine("BiGAN, fc", "bigan", "penultimate", 0.3842, 0.0686),
    _machine("BiGAN, Y", "bigan", "code", 0.4490, 0.0013),
    _solo("MoCo v2+", "moco", 0.9294, learning_rate=0.3, outputs=256),
    _solo("BYOL", "byol", 0.9258, learning_rate=1.0, outputs=256),
    _solo("Barlow Twins", "barlow_twins", 0.9210, learning_rate=0.3, outputs=2048),
    _solo("VICReg", "vicreg", 0.9207, learning_rate=0.3, outputs=2048),
    _solo("SimCLR", "simclr", 0.9074, learning_rate=0.4, outputs=256),
    _solo("SimSiam", "simsiam", 0.9051, learning_rate=0.5, outputs=2048),
    _solo("DINO", "dino", 0.8952, "its file now gives about 87 (issue 397)", learning_rate=0.3, outputs=256),
    *_lightly("SimCLR", "simclr", 0.847, 0.879),
    *_lightly("MoCo", "moco", 0.838, 0.899),
    *_lightly("BYOL", "byol", 0.869, 0.910),
    *_lightly("SimSiam", "simsiam", 0.819, 0.904),
    *_lightly("Barlow Twins", "barlow_twins", 0.842, 0.859),
    *_lightly("DINO", "dino", 0.840, 0.848),
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """One of our encoders beside a paper's. Intervals are of 95 %."""

    published: Published
    label: str
    ours: float
    our_interval: tuple[float, float] | None  # the leaderboard's
    their_interval: tuple[float, float] | None  # over test images (Wilson); None for what is no share of them
    seeds: int
    remark: str  # how our recipe differs

    @property
    def difference(self) -> float:
        return self.ours - self.published.value

    @property
    def agrees(self) -> bool | None:
        """Whether each number lies in the other's interval; None where theirs is not known."""
        if self.our_interval is None or self.their_interval is None:
            return None
        (low, high), (their_low, their_high) = self.our_interval, self.their_interval
        return low <= self.published.value <= high and their_low <= self.ours <= their_high


def compare(board: Leaderboard) -> list[Comparison]:
    """The rows of a leaderboard beside every published number that they are about, as papers have them.

    Whole test sets only.
    """
    rows = sorted((row for row in board.rows if row.at), key=lambda row: (row.encoder, row.protocol))
    return [
        _compare(published, row)
        for published in PUBLISHED
        for row in rows
        if row.metric == published.metric and _is_about(row.records[0], published)
    ]


def _is_about(record: Record, published: Published) -> bool:
    asked = (published.dataset, published.encoder, published.tap, published.protocol)
    part = (record.pretrain, record.limit, record.size, record.mode)
    return (
        (record.dataset, record.encoder, record.tap, record.protocol) == asked
        and (record.split, *part) == ("test", None, None, None, None)
        and published.metric in record.metrics
        and all(record.params.get(name, value) == value for name, value in published.params.items())
        and published.settings.items() <= record.protocol_params.items()
    )


def _compare(published: Published, row: Row) -> Comparison:
    record, theirs = row.records[0], None
    if published.metric not in METRICS:
        low, high = wilson(published.value, published.images)
        theirs = float(low), float(high)
    ours = None if row.low is None or row.high is None else (row.low, row.high)
    recipe = ((name, record.params.get(name), value) for name, value in published.recipe.items())
    differs = [f"{name} {ours}, theirs {value}" for name, ours, value in recipe if ours != value]
    unknown = "meaning of its ± not stated" if published.plus_minus is not None else ""
    remark = "; ".join([*differs, *filter(None, [published.otherwise, unknown])])
    return Comparison(published, record.label, row.mean or 0.0, ours, theirs, row.seeds, remark)


WORDS = ("paper", "its name", "agree", "label", "recipe")
HEADER = ("paper", "its name", "its number", "ours", "seeds", "difference", "agree", "label", "recipe")
COLUMNS = (  # as data: fractions in 0..1, but for METRICS
    "paper", "its_name", "dataset", "encoder", "tap", "protocol", "metric", "published", "published_plus_minus",
    "published_low", "published_high", "ours", "low", "high", "seeds", "difference", "agrees", "label", "recipe",
)  # fmt: skip
LEGEND = (
    "In percent but for log-densities (nats). Ours with the 95 % interval of the leaderboard. They agree if each "
    "number lies in the other's interval, which is for theirs the sampling of its test images; of a log-density that "
    "is not known."
)
UNEXPLAINED = (
    " Theirs ± what is printed, whose meaning is not stated where it was read: it is not taken for an interval."
)


def render(
    comparisons: t.Sequence[Comparison],
    format: tables.Format = "table",
    *,
    width: int | None = None,
    colour: bool = False,
) -> str:
    """The comparisons as text. Fractions in percent, differences in points; `agree`: each lies in the other's."""
    empty = "No record is about a published number: `frostbench run papers/bigan_table1` makes some."
    rows, plain = [_cells(one) for one in comparisons], [_plain(one) for one in comparisons]
    legend = LEGEND + UNEXPLAINED * any(one.published.plus_minus is not None for one in comparisons)
    made = [tables.Table("Ours beside published numbers", WORDS, HEADER, rows, legend, plain)] if rows else []
    return tables.render(made, format, columns=COLUMNS, empty=empty, width=width, colour=colour)


def _plain(one: Comparison) -> dict[str, Json]:
    about = one.published
    values = (
        about.paper, about.name, about.dataset, about.encoder, about.tap, about.protocol, about.metric, about.value,
        about.plus_minus, *(one.their_interval or (None, None)), one.ours, *(one.our_interval or (None, None)),
        one.seeds, one.difference, one.agrees, one.label, one.remark,
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _cells(one: Comparison) -> list[str]:
    metric, theirs = one.published.metric, one.published.plus_minus
    behind = interval(one.ours, *one.our_interval, metric) if one.our_interval else ""
    return [
        one.published.paper,
        one.published.name,
        written(one.published.value, metric) + ("" if theirs is None else f" ± {written(theirs, metric)}"),
        f"{written(one.ours, metric)} {behind}".rstrip(),
        str(one.seeds),
        f"{'+' * (one.difference >= 0)}{written(one.difference, metric)}",
        {True: "yes", False: "no", None: "unknown"}[one.agrees],
        one.label,
        one.remark,
    ]
