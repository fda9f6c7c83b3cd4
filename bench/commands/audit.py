"""The audit: protocols score at chance where labels say nothing, and images of train that recur in test are counted.

Labels of train and of test are permuted, each among themselves. Were those of train permuted alone, all rows of a tight
cluster would be right or wrong together, and no binomial interval would hold. With both, a score above chance means
that test labels, or the order of rows, got into the predictions. The control is the same with the labels as they are.
"""

import dataclasses
import math
import typing as t
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from bench import datasets
from bench.errors import config_error
from bench.pipeline.judge import judge_corrupted, pixels_of
from bench.suites import resolve
from bench.suites.reading import read_dataset, read_suite
from encoders.base import ImageSet, derive_seed
from protocols.base import CorruptionProtocol, FeatureSet, Protocol, Quality, SampleProtocol, Scores
from protocols.nearest import nearest
from results.statistics import holm

IMAGES = 5000  # of train, and of test, that protocols are tried on: as good for this as all of them
LEVEL = 0.01  # probability of a false alarm, of all protocols of a dataset together
NEAR = 0.15  # of a test image's contrast: MNIST's nearest are further away, and those of its thin ones not by much
SHOWN = 5  # pairs of near-duplicates


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a protocol that classifies test rows. Shares are in 0..1."""

    rows: int  # of test
    permuted: float  # share classified rightly where labels say nothing
    chance: float  # share expected there of predictions of each class as often as these
    p: float  # that chance alone is as far from it; two-sided
    true: float  # share classified rightly with the labels as they are
    control: float  # p that chance alone is as good

    @property
    def faults(self) -> tuple[str, ...]:
        wrong = {"not at chance": self.p <= LEVEL, "no better on true labels": self.control > LEVEL}
        return tuple(fault for fault, is_so in wrong.items() if is_so)

    def cells(self) -> tuple[str, ...]:
        low, high = stats.binom.interval(1 - LEVEL, self.rows, self.chance)
        interval = f"{100 * low / self.rows:.2f}..{100 * high / self.rows:.2f}"
        permuted, chance, true = (f"{100 * share:.2f}" for share in (self.permuted, self.chance, self.true))
        return permuted, chance, interval, f"{self.p:.3f}", true, ", ".join(self.faults) or "ok"


@dataclasses.dataclass(frozen=True)
class Pair:
    """A test image and its nearest train image."""

    test: int  # row
    train: int
    distance: float  # root mean square difference of pixels, as a share of the test image's contrast
    labels: tuple[int, int]  # of the test row, of the train row


@dataclasses.dataclass(frozen=True)
class Duplicates:
    """Test images that are in train as well."""

    exact: int  # the same bytes
    relabelled: int  # of these, the ones that no train image of the same bytes gives the same label
    near: tuple[Pair, ...]  # not the same bytes, nearest first
    threshold: float
    train_images: int
    test_images: int

    def lines(self) -> list[str]:
        counted = (
            f"{self.test_images:,} test images: {self.exact:,} also in train ({self.train_images:,} images) byte for "
            f"byte, {self.relabelled:,} of these with a different label; {len(self.near):,} more differ from a train "
            f"image by at most {self.threshold:g} of their contrast"
        )
        shown = [
            f"  test row {pair.test} and train row {pair.train}: {pair.distance:.3f}; classes {pair.labels[0]} and "
            f"{pair.labels[1]}"
            for pair in self.near[:SHOWN]
        ]
        return [counted, *shown]


@dataclasses.dataclass(frozen=True)
class Audit:
    """What was found on one dataset."""

    dataset: str
    verdicts: dict[str, Verdict]  # by label@version; p-values with Holm's correction
    unmoved: dict[str, bool]  # of protocols that give no class: whether their numbers are the same for permuted labels
    duplicates: Duplicates

    @property
    def holds(self) -> bool:
        """Of the protocols; recurring images are the data's own, and are shown."""
        return not any(verdict.faults for verdict in self.verdicts.values()) and all(self.unmoved.values())

    def render(self) -> str:
        lines: list[tuple[str, ...]] = [("protocol", "permuted", "chance", f"{1 - LEVEL:.0%} range", "p", "true", "")]
        lines += [(protocol, *verdict.cells()) for protocol, verdict in self.verdicts.items()]
        lines += [(protocol, *"-----", "ok, uses no labels" if same else "depends on the labels, but predicts no class")
                  for protocol, same in self.unmoved.items()]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*lines)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
        return "\n".join([self.dataset, *table, *self.duplicates.lines()])


def audits(
    suite: str,
    dataset: str,
    *,
    seed: int,
    near: float,
    data_root: Path | None,
    offline: bool,
    plugins: t.Sequence[Path] = (),
) -> t.Iterator[Audit]:
    """An audit of each dataset of a suite with the suite's protocols, or of one dataset with all that there are.

    Raises ConfigError unless exactly one of the two is named, and what `datasets.load` raises.
    """
    if bool(suite) == bool(dataset):
        raise config_error("audit", "wanted either a suite or --dataset NAME")
    known = resolve.protocols(plugins)
    if suite:
        checked = read_suite(suite, plugins=plugins)
        wanted = {f"{one.label}@{one.version}": one.recipe(known) for one in checked.protocols}
        specs = checked.datasets
    else:
        wanted = {f"{name}@{one.version}": one() for name, one in known.items()}
        specs = (read_dataset(dataset),)
    judges = {label: one for label, one in wanted.items() if not isinstance(one, SampleProtocol)}
    for spec in specs:
        whole = datasets.load(spec.name, **spec.asked(), root=data_root, offline=offline)
        limit = min(spec.limit or IMAGES, IMAGES)
        few = datasets.load(spec.name, **spec.asked() | {"limit": limit}, root=data_root, offline=offline)
        verdicts, unmoved = judged(judges, pixels_of(few.train), pixels_of(few.test), seed, few.test)
        yield Audit(spec.label, verdicts, unmoved, duplicates(whole.train, whole.test, near))


def judged(
    protocols: t.Mapping[str, Protocol], train: FeatureSet, test: FeatureSet, seed: int, images: ImageSet | None = None
) -> tuple[dict[str, Verdict], dict[str, bool]]:
    """The verdicts on protocols that classify, and whether the others' numbers are unmoved by the labels.

    A protocol that reads a tap with a meaning of its own is given a row's products with the mean rows of the classes;
    one that corrupts images those of the test rows, whose pixels the features are.
    """
    centres = torch.stack([train.features[train.labels == label].mean(dim=0) for label in range(train.classes)])
    centres = centres.nan_to_num()  # of a class that train lacks
    alike = [FeatureSet(one.features @ (centres - centres.mean(dim=0)).T, one.labels, one.classes)
             for one in (train, test)]  # fmt: skip
    permuted = [torch.from_numpy(np.random.default_rng(derive_seed(seed, "audit", part)).permutation(len(one)))
                for part, one in (("train", train), ("test", test))]  # fmt: skip
    verdicts, unmoved = {}, {}
    for label, protocol in protocols.items():
        sets = [train, test] if protocol.reads is None else alike
        nothing = [FeatureSet(one.features, one.labels[rows], one.classes) for one, rows in zip(sets, permuted)]
        blind, seeing = (_scored(protocol, given, images, seed) for given in (nothing, sets))
        if not (isinstance(blind, Scores) and isinstance(seeing, Scores)):
            unmoved[label] = blind.metrics == seeing.metrics
            continue
        right, chance = _right(blind.predictions, nothing[1])
        p = float(stats.binomtest(right, len(test), chance).pvalue)
        truly, by_chance = _right(seeing.predictions, test)
        control = float(stats.binomtest(truly, len(test), by_chance, alternative="greater").pvalue)
        verdicts[label] = Verdict(len(test), right / len(test), chance, p, truly / len(test), control)
    p_values, controls = (holm([getattr(one, name) for one in verdicts.values()]) for name in ("p", "control"))
    corrected = zip(verdicts.items(), p_values, controls)
    return {label: dataclasses.replace(one, p=p, control=control) for (label, one), p, control in corrected}, unmoved


def _scored(protocol: Protocol, sets: list[FeatureSet], images: ImageSet | None, seed: int) -> Scores | Quality:
    train, test = sets
    if not isinstance(protocol, CorruptionProtocol):
        return protocol.score(train, test, seed=seed)
    assert images is not None

    def relabelled(damaged: ImageSet) -> FeatureSet:
        return dataclasses.replace(pixels_of(damaged), labels=test.labels)

    return next(judge_corrupted([protocol], train, test, images, relabelled, seed))


def _right(predictions: Tensor, test: FeatureSet) -> tuple[int, float]:
    """How many predictions are right, and the share expected if they had nothing to do with the labels."""
    shares = [labels.bincount(minlength=test.classes).double() / len(test) for labels in (predictions, test.labels)]
    return int((predictions == test.labels).sum()), float(shares[0] @ shares[1])


def duplicates(train: ImageSet, test: ImageSet, threshold: float = NEAR) -> Duplicates:
    """Test images of which train has a copy, or one that differs by at most `threshold` of the test image's contrast.

    The nearest train image is that of the smallest Euclidean distance between pixels. The difference is the root of
    their mean square, the contrast the standard deviation of the test image's pixels. It sees no shifted or cropped
    copies. An image of one grey level has no contrast, and only exact copies.
    """
    assert train.labels is not None and test.labels is not None
    copies: dict[bytes, set[int]] = {}
    for image, label in zip(train.images, train.labels.tolist()):
        copies.setdefault(image.tobytes(), set()).add(label)
    same = [copies.get(image.tobytes()) for image in test.images]
    exact = np.array([labels is not None for labels in same])
    relabelled = sum(labels is not None and own not in labels for labels, own in zip(same, test.labels.tolist()))
    queries, gallery = (pixels_of(part).features for part in (test, train))
    closest = nearest(queries, gallery, 1, "euclidean")
    contrasts = queries.double().std(dim=1, correction=0).numpy()
    differences = closest.distances[:, 0].numpy() / math.sqrt(queries.shape[1])
    is_near = (differences <= threshold * contrasts) & ~exact & (contrasts > 0)
    pairs = []
    for row in is_near.nonzero()[0].tolist():
        other = int(closest.rows[row, 0])
        labels = int(test.labels[row]), int(train.labels[other])
        pairs.append(Pair(row, other, float(differences[row] / contrasts[row]), labels))
    pairs.sort(key=lambda pair: pair.distance)
    return Duplicates(int(exact.sum()), relabelled, tuple(pairs), threshold, len(train), len(test))
