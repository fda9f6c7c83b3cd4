"""What every encoder is made of: images go in, a frozen module comes out.

An `Encoder` is a recipe: a frozen pydantic model whose fields are its hyper-parameters. `fit` turns the recipe and
a training set into an `nn.Module` in eval mode that maps uint8 images (b, c, h, w) to `{tap: features (b, d)}`.
"""

import abc
import contextlib
import dataclasses
import hashlib
import json
import typing as t

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from encoders.distributed import ProcessGroup

ImageShape = tuple[int, int, int]  # channels, height, width
Features = dict[str, Tensor]  # tap -> (b, d)


class EncoderError(Exception):
    """An encoder that cannot be fitted or trusted; the message names it and says why."""

    exit_code = 2


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images with or without their labels, in memory or memory-mapped.

    `fingerprint` names pixels and labels whatever the order of the rows or the format they were stored in.
    """

    images: np.ndarray[t.Any, np.dtype[np.uint8]]  # (n, c, h, w)
    labels: np.ndarray[t.Any, np.dtype[np.int64]] | None  # (n,), in 0..len(classes)-1; -1 where withheld
    classes: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> ImageShape:
        _, channels, height, width = self.images.shape
        return channels, height, width

    def check_classes(self, classes: int) -> None:
        """Raise EncoderError if there are more classes or fewer."""
        if len(self.classes) != classes:
            came = len(self.classes)
            raise EncoderError(f"classes={classes}, but the dataset has {came} classes: set `classes: {came}`")

    def without_labels(self) -> "ImageSet":
        return dataclasses.replace(self, labels=None)

    def with_labels(self, count: int, seed: int) -> "ImageSet":
        """The same images with `count` of their labels, equally many a class within one; the others are -1.

        Which rows keep theirs is a pure function of the labels and the seed, and a larger count keeps those of a
        smaller one. A class with fewer images than its share keeps all of its own, and the other classes share the
        rest. Raises EncoderError if there are fewer images than `count`.
        """
        assert self.labels is not None
        if count > len(self):
            raise EncoderError(f"a label budget of {count} exceeds {len(self)} images; set it to {len(self)} or less")
        shuffled = np.random.Generator(np.random.Philox(derive_seed(seed, "labels"))).permutation(len(self))
        by_class = shuffled[np.argsort(self.labels[shuffled], kind="stable")]
        _, starts, counts = np.unique(self.labels[by_class], return_index=True, return_counts=True)
        rank = np.empty(len(self), np.int64)
        rank[by_class] = np.arange(len(self)) - np.repeat(starts, counts)  # of a row within its class
        kept = shuffled[np.argsort(rank[shuffled], kind="stable")][:count]  # one of each class, then a second, ...
        labels = np.full_like(self.labels, -1)
        labels[kept] = self.labels[kept]
        return dataclasses.replace(self, labels=labels)


def derive_seed(seed: int, *stream: str | int) -> int:
    """A seed in 0..2**63-1 for one named stream: a pure function of its arguments, so any step can be redone alone."""
    name = json.dumps([seed, *stream]).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") >> 1


@contextlib.contextmanager
def seeded(seed: int, *stream: str | int) -> t.Iterator[None]:
    """Torch's global generators follow this stream inside the block and are found as they were after it.

    GPUs that are not in use yet stay so: asking for their state would start CUDA in a run on the processor.
    """
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if in_use else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive_seed(seed, *stream))
        yield


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a training stands; the loop hands one out every now and then."""

    epoch: int  # epochs finished
    epochs: int
    fraction: float  # of the whole training, 0..1
    images_per_second: float
    losses: dict[str, float]  # player -> mean over the epoch so far
    seconds_left: float


class Keeper:
    """Keeps a training's state, hands it back, and knows when somebody wants it to stop; this one does none of it."""

    @property
    def environment(self) -> dict[str, str]:
        """What the training is and what its bits depend on; every checkpoint carries them."""
        return {}

    @property
    def stopping(self) -> bool:
        """Whether somebody asked the training to stop at the next step."""
        return False

    def due(self) -> bool:
        """Whether the state should be kept now, between two steps."""
        return False

    def keep(self, step: int, content: bytes) -> None:
        """Keep the state after this many steps."""

    def kept(self, largest: int) -> t.Iterator[bytes]:  # noqa: ARG002
        """What was kept, newest first, as long as the reader asks for more; nothing of more than `largest` bytes."""
        return iter(())

    def check_compatible(self, environment: dict[str, str]) -> None:
        """Agree to go on from a state of this environment.

        Raises CheckpointError if it is another training's, and EncoderError if the result would not be that of one
        undisturbed training.
        """

    def reject(self, problem: str) -> None:
        """Do not use what `kept` gave last."""

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Inside the block, whoever wants the training to stop says so by `stopping` and waits for the next step."""
        return contextlib.nullcontext()


@dataclasses.dataclass
class Training:
    """The settings and the state of one fit: everything that is not the recipe.

    The loop writes `history`, a row an epoch, and keeps its state with the `keeper`; a recipe that learns to make
    images leaves its `generator` here.
    """

    seed: int
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    precision: t.Literal["float32", "bfloat16"] = "float32"
    report: t.Callable[[Progress], None] = lambda _: None
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    keeper: Keeper | None = None
    group: ProcessGroup = dataclasses.field(default_factory=ProcessGroup)  # its rank 0 alone has a keeper
    trainings: int = 0  # how often the loop was called
    earlier_seconds: float = 0.0  # of an earlier fit that was stopped, from whose state the loop went on
    ends_after: int | None = None  # epochs, as if it was stopped there; schedules stay those of the recipe
    kept_after: t.Mapping[int, Keeper] = dataclasses.field(default_factory=dict)  # epochs -> who keeps the state then
    generator: nn.Module | None = None  # what a `Generative` recipe makes images with, frozen

    @property
    def updates(self) -> dict[str, int]:
        """How often each player has moved; nothing for a method that the loop does not train."""
        counts = [(column, int(count)) for row in self.history for column, count in row.items()]
        return {name.removesuffix("_updates"): count for name, count in counts if name.endswith("_updates")}

    def seeded(self, *stream: str | int) -> contextlib.AbstractContextManager[None]:
        return seeded(self.seed, *stream)


class Encoder(BaseModel, abc.ABC):
    """A recipe for a frozen feature extractor. Subclass it in a file of your own to add a method."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    version: t.ClassVar[int] = 1  # raised by a change that can move a number
    # By precision: versions that learn the same bits. The first of a group stands in keys, so that a change which moves
    # bfloat16 only raises the version, joins the end of float32's group, and moves no key of float32.
    equal_versions: t.ClassVar[dict[str, tuple[tuple[int, ...], ...]]] = {}
    source: t.ClassVar[str]  # where the method comes from
    uses_labels: t.ClassVar[bool] = False
    is_control: t.ClassVar[bool] = False  # pinned in every table: what a learned encoder has to beat
    is_pretrained: t.ClassVar[bool] = False  # on other data, before: it stands apart, and is run with one seed
    places: t.ClassVar[tuple[str, ...]] = ()  # fields that say where something is: in no key, no record and no row

    @property
    def label_budget(self) -> int | None:
        """How many labels of the training images it is given if it `uses_labels`; None: all of them."""
        return None

    @property
    def revision(self) -> int:
        """The version of all the code that this recipe runs."""
        return self.version

    @property
    def equal_revisions(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """By precision: revisions that learn the same bits, the one that stands in keys first."""
        return self.equal_versions

    @property
    def runs_code_of(self) -> tuple[type["Encoder"], ...]:
        """The recipes whose code it runs: those of a plugin have a digest where ours have a version."""
        return (type(self),)

    def resolved(self, *, offline: bool = False) -> t.Self:  # noqa: ARG002 - for those that can download
        """The recipe with what it reads outside of itself filled in, such as the digest of a file.

        Raises EncoderError if that is not there or does not fit.
        """
        return self

    @property
    @abc.abstractmethod
    def taps(self) -> tuple[str, ...]:
        """The names of the layers it gives, shallow to deep."""

    @abc.abstractmethod
    def build(self, shape: ImageShape) -> nn.Module:
        """The module whose taps are the features, with fresh weights from torch's global generator.

        Raises EncoderError if images of this shape cannot be encoded.
        """

    @abc.abstractmethod
    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        """Learn from the training images, as `visible_to` gives them. The module is returned frozen."""


class Generative(Encoder):
    """A recipe that also learns to make images from codes; its `fit` leaves the frozen generator in `run.generator`."""

    @property
    def codes_are_means(self) -> bool:
        """Whether an image has many codes, of which `codes` gives the mean: means alone do not follow the prior."""
        return False

    @abc.abstractmethod
    def build_generator(self, shape: ImageShape) -> nn.Module:
        """The module that makes images (n, c, h, w) of codes, with fresh weights from torch's global generator."""

    def draw(self, count: int, device: torch.device) -> Tensor | None:  # noqa: ARG002
        """So many codes from torch's global generator, whose images are samples; None if it can only reconstruct."""
        return None

    def draw_for(self, shape: ImageShape, count: int, device: torch.device) -> Tensor | None:  # noqa: ARG002
        """`draw`, for codes whose dimensions may depend on those of the images."""
        return self.draw(count, device)

    def codes(self, features: Features) -> Tensor | None:
        """The codes of images with these features, whose images are reconstructions; None if there are none."""
        return features.get("code")

    def pictures(self, made: Tensor) -> Tensor:
        """What the generator gives, as floats in [0, 1]."""
        return made

    def log_likelihoods(
        self,
        module: nn.Module,  # noqa: ARG002
        generator: nn.Module,  # noqa: ARG002
        train: ImageSet,  # noqa: ARG002
        test: ImageSet,  # noqa: ARG002
    ) -> dict[str, Tensor]:
        """{metric: nats of each test image (n,)} under the frozen model; {} if the method has none.

        `log_likelihood` is the log-density of its pixels, `elbo` a lower bound of that, and `binary_elbo` one of the
        log-probability of its pixels made binary at random. What the model leaves open is chosen on `train`; what has
        to be drawn comes from torch's global generator.
        """
        return {}


def visible_to(data: ImageSet, recipe: Encoder, seed: int) -> ImageSet:
    """What a recipe gets to see of the training set: no labels unless it `uses_labels`, and no more than its budget."""
    if not recipe.uses_labels:
        return data.without_labels()
    return data if recipe.label_budget is None else data.with_labels(recipe.label_budget, seed)


def frozen(module: nn.Module) -> nn.Module:
    """The same module in eval mode, its parameters no longer learning."""
    return module.eval().requires_grad_(False)
