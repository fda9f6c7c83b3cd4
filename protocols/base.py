"""What every protocol is made of: features and labels go in, named numbers and a prediction for each test row come out.

A `Protocol` is a frozen pydantic model whose fields are its settings; `score` is a pure function of its arguments.
"""

import abc
import dataclasses
import typing as t

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor


class ProtocolError(Exception):
    """Features that cannot be judged; the message says what was wanted and what came."""

    exit_code = 2


@dataclasses.dataclass(frozen=True)
class FeatureSet:
    """Finite features with their labels, checked once here and trusted afterwards. Protocols compute where they lie."""

    features: Tensor  # float32 (n, d)
    labels: Tensor  # int64 (n,), in 0..classes-1
    classes: int

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.features.dtype != torch.float32 or 0 in self.features.shape:
            came = f"{self.features.dtype} {tuple(self.features.shape)}"
            raise ProtocolError(f"features must be float32 (n, d), and not empty; got {came}")
        if self.labels.shape != self.features.shape[:1] or self.labels.dtype != torch.int64:
            came = f"{self.labels.dtype} {tuple(self.labels.shape)}"
            raise ProtocolError(f"labels must be int64 ({len(self.features)},), one a row; got {came}")
        slices = torch.split(self.features, max(1, at_once(self.features.device) // self.features.shape[1]))
        rows = sum(int((~torch.isfinite(part).all(dim=1)).sum()) for part in slices)
        if rows:
            raise ProtocolError(f"features must be finite; {rows} of {len(self.features)} rows hold NaN or infinity")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= self.classes:
            raise ProtocolError(f"labels must lie in 0..{self.classes - 1}; got {low}..{high}")

    def __len__(self) -> int:
        return len(self.features)

    def rows(self, index: Tensor) -> "FeatureSet":
        return FeatureSet(self.features[index], self.labels[index], self.classes)

    def to(self, device: torch.device) -> "FeatureSet":
        return FeatureSet(self.features.to(device), self.labels.to(device), self.classes)


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a protocol found: fractions in 0..1, a class for every test row, and how it was chosen."""

    metrics: dict[str, float]  # the first one is the one tables show
    predictions: Tensor  # int64 (n_test,)
    details: dict[str, t.Any]  # plain JSON: the selection path, convergence, what a reader needs to trust the number
    others: dict[str, Tensor] = dataclasses.field(default_factory=dict)  # more int64 (n_test,) that metrics are made of


@dataclasses.dataclass(frozen=True)
class Quality:
    """What a protocol found that gives no row a class: in what a generator made, or in features without labels."""

    metrics: dict[str, float]  # of results.metrics, which knows their units
    details: dict[str, t.Any]  # plain JSON


class Protocol(BaseModel, abc.ABC):
    """A way of judging frozen features."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    version: t.ClassVar[int] = 1  # names the definition: raised by a change of what is computed, not of how
    equal_versions: t.ClassVar[tuple[tuple[int, ...], ...]] = ()  # of one definition each: they share a column
    solver: t.ClassVar[int] = 1  # raised by another way to the same numbers, up to rounding; in no key and no column
    source: t.ClassVar[str]
    reads: t.ClassVar[tuple[str, ...] | None] = None  # the taps whose features have its meaning; None: all
    features_only: t.ClassVar[bool] = True  # whether features and labels are all it needs

    @abc.abstractmethod
    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores | Quality:
        """Choose on a split of `train`, refit on all of it, then read `test` once: its features, then its labels.

        Quality where it is not classes that are told. Raises ProtocolError for features it is not defined on.
        """

    @classmethod
    def score_all(
        cls, protocols: t.Sequence[t.Self], train: FeatureSet, test: FeatureSet, *, seed: int
    ) -> t.Iterator[Scores | Quality]:
        """What `score` gives for each of several settings of this protocol, which may share their work."""
        return (protocol.score(train, test, seed=seed) for protocol in protocols)


@dataclasses.dataclass(frozen=True)
class Samples:
    """What a generator made. Images are floats in [0, 1]."""

    images: Tensor | None  # float32 (m, c, h, w), of codes drawn from the prior; None if the method has none
    reconstructions: Tensor | None  # float32 (n_test, c, h, w), of the test images' codes; None if it has none
    shape: tuple[int, int, int]  # (c, h, w)
    log_likelihoods: t.Mapping[str, Tensor] = dataclasses.field(default_factory=dict)  # {a metric: nats (n_test,)}


class SampleProtocol(Protocol):
    """A way of judging what an encoder's generator makes, beside the real images; it knows no features."""

    reads = ("samples",)  # in place of a tap
    features_only = False

    samples: t.Annotated[int, Field(ge=2)] = 10_000
    """Number of images that the generator makes."""

    @abc.abstractmethod
    def judge(self, made: Samples, train: FeatureSet, test: FeatureSet, *, seed: int) -> Quality:
        """What is made against real images: `train` and `test` are their pixels in [0, 1], (n, c * h * w)."""

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:  # noqa: ARG002
        raise ProtocolError(f"{type(self).__name__} judges what a generator makes, not features")


class Corrupted(t.NamedTuple):
    """Features of the test images with damage of a kind."""

    kind: str
    severity: int  # from 1, the least
    rows: FeatureSet  # in the order of the clean test rows


class CorruptionProtocol(Protocol):
    """A way of judging features by those of corrupted test images, beside those of the images as they are."""

    features_only = False

    @abc.abstractmethod
    def judge(self, train: FeatureSet, test: FeatureSet, corrupted: t.Iterable[Corrupted], *, seed: int) -> Scores:
        """Fit on `train`; then read `test`, and `corrupted`, which makes its images as it is read, once."""

    def score(self, train: FeatureSet, test: FeatureSet, *, seed: int) -> Scores:  # noqa: ARG002
        raise ProtocolError(f"{type(self).__name__} needs the corrupted images, not features alone")


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """The share of rows (n,) whose prediction is their label."""
    return float((predictions == labels).double().mean())


def at_once(device: torch.device, on_processor: int = 2**20) -> int:
    """How many numbers to compute with at a time: by default 4 MiB, which stay in a processor's cache. A GPU has
    memory for more, and a kernel takes a few microseconds however little it does."""
    return 2**26 if device.type == "cuda" else on_processor


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16, which are far faster than float32's."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()


def stratified_split(
    labels: np.ndarray[t.Any, np.dtype[np.int64]], size: int, seed: int
) -> tuple[np.ndarray[t.Any, np.dtype[np.int64]], np.ndarray[t.Any, np.dtype[np.int64]]]:
    """Two sorted index arrays (rest, chosen) with `size` rows chosen, each class in proportion (largest remainders).

    A pure function of its arguments. Every class with at least two rows keeps one on either side where `size` allows.
    Raises ValueError where `size` is not in 0..n.
    """
    if not 0 <= size <= len(labels):
        raise ValueError(f"cannot choose {size} of {len(labels)} rows; choose 0..{len(labels)}")
    _, group, counts = np.unique(labels, return_inverse=True, return_counts=True)
    low = np.minimum(counts - 1, 1)
    high = counts - low
    low, high = low * (low.sum() <= size), np.where(size <= high.sum(), high, counts)
    share = counts * size / max(len(labels), 1)
    chosen = np.clip(np.floor(share).astype(np.int64), low, high)
    while chosen.sum() != size:  # the class furthest from its share moves first; of equals, the smaller label
        up = chosen.sum() < size
        gap = (
            np.where(chosen < high, share - chosen, -np.inf) if up else np.where(chosen > low, chosen - share, -np.inf)
        )
        chosen[np.argmax(gap)] += 1 if up else -1
    shuffled = np.random.Generator(np.random.Philox(seed)).permutation(len(labels))
    by_class = shuffled[np.argsort(group[shuffled], kind="stable")]
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)  # within its class
    taken = rank < np.repeat(chosen, counts)
    return np.sort(by_class[~taken]), np.sort(by_class[taken])
