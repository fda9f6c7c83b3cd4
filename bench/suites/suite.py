"""A suite: which encoders learn from which data with which seeds, and how their features are judged.

Frozen plain data with every default filled in, and the content keys made of it. `reading` makes them from files.
"""

import hashlib
import json
import typing as t

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt

from bench.errors import Json
from bench.suites import resolve
from encoders.base import Encoder
from protocols.base import Protocol
from results import wandb_mirror
from results.record import Equal, Run, dataset_label, equal

Name = t.Annotated[str, Field(pattern=resolve.NAME)]
Seed = t.Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy and scikit-learn take
Split = t.Literal["test", "validation"]
Precision = t.Literal["float32", "bfloat16", "auto"]
WandbName = t.Annotated[str, AfterValidator(wandb_mirror.checked_name)]
Tag = t.Annotated[str, Field(min_length=1, max_length=64)]
MAX_SEEDS = 1000
Recipe = t.TypeVar("Recipe", Encoder, Protocol)


class _Plain(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DatasetSpec(_Plain):
    """Images to learn from and to be judged on."""

    name: str = Field(description="a dataset, or folder:PATH, npz:PATH, parquet:PATH, idx:PATH")
    limit: PositiveInt | None = Field(None, description="images kept of train and of test, each class in proportion")
    split: Split = Field(
        "test", description="the test set, or a validation set: the dataset's own, or else a part of train"
    )
    pretrain: str | None = Field(None, description="another dataset, whose train images encoders learn from instead")
    size: int | None = Field(None, ge=1, le=1024, description="pixels a side, of the largest square in the middle")
    mode: t.Literal["grey", "rgb"] | None = Field(None, description="make images grey or RGB")

    @classmethod
    def of(cls, run: Run) -> "DatasetSpec":
        """The data of a run, as it was asked for; nothing is checked again."""
        known = {key: getattr(run, key) for key in ("limit", "split", "pretrain", "size", "mode")}
        return cls.model_construct(name=run.dataset, **known)

    def asked(self) -> dict[str, t.Any]:
        """What `datasets.load` and `datasets.slug` take besides a name."""
        return self.model_dump(include={"limit", "split", "size", "mode"})

    @property
    def label(self) -> str:
        """What tables call it: `mnist (limit 1000)`, `fashion_mnist from mnist`."""
        return dataset_label(self.name, self.limit, self.split, self.pretrain, self.size, self.mode)


class _MethodSpec(_Plain):
    """What an encoder and a protocol have in common."""

    name: str
    label: Name
    params: dict[str, Json]  # every one of them
    version: int
    code: str = ""  # of a plugin

    @property
    def arguments(self) -> dict[str, Json]:
        """What the method's class takes."""
        return self.params

    def recipe(self, known: t.Mapping[str, type[Recipe]]) -> Recipe:
        """The method with its parameters, of the class that its name means."""
        return known[self.name].model_validate_json(json.dumps(self.arguments))


class EncoderSpec(_MethodSpec):
    """An encoder's recipe."""

    places: dict[str, Json] = Field(default_factory=dict)  # parameters that say where files are; in no key
    is_pretrained: bool = False  # run with the first seed alone
    equal_versions: dict[str, Equal] = Field(default_factory=dict)  # by precision; in no key
    snapshots: tuple[PositiveInt, ...] = Field(
        (), description="epochs after which a frozen copy is kept and judged, too; in no key"
    )

    @property
    def arguments(self) -> dict[str, Json]:
        return self.params | self.places


class ProtocolSpec(_MethodSpec):
    """A protocol with its settings."""

    equal_versions: Equal = ()  # in no key

    def key(self) -> str:
        """8 hex digits for what the protocol does: its name, version, settings, and a plugin's code."""
        return _digest([self.name, self.version, self.params, *filter(None, [self.code])])[:8]

    @property
    def file_name(self) -> str:
        """`knn@1-0a1b2c3d`, for the files that hold what it found."""
        return f"{self.label}@{self.version}-{self.key()}"

    @property
    def file_names(self) -> list[str]:
        """Of what it found in this or another version of the same definition, this one's first."""
        versions = dict.fromkeys((self.version, *equal(self.equal_versions, self.version)))
        return [self.model_copy(update={"version": version}).file_name for version in versions]


class WandbSpec(_Plain):
    """Whether and where Weights & Biases mirrors the results."""

    mode: wandb_mirror.Mode | None = Field(None, description="WANDB_MODE by default, else offline")
    project: WandbName | None = Field(None, description="WANDB_PROJECT by default, else frostbench")
    entity: WandbName | None = Field(
        None, description="a user or team; WANDB_ENTITY by default, else the account's own"
    )
    tags: tuple[Tag, ...] | None = Field(None, description="of every run; WANDB_TAGS by default")


class SnapshotSpec(_Plain):
    """What makes a run one of an encoder as it was in the middle of its training."""

    epoch: PositiveInt  # epochs that were over
    learned_from: DatasetSpec  # the data of the training


class RunSpec(_Plain):
    """One encoder, one dataset, one seed: what a worker is told."""

    suite: str
    dataset: DatasetSpec
    encoder: EncoderSpec
    protocols: tuple[ProtocolSpec, ...]
    seed: int
    precision: Precision
    snapshot_split: Split = "validation"
    snapshot: SnapshotSpec | None = None

    @classmethod
    def of(cls, run: Run, precision: str, code: str | None = None) -> "RunSpec":
        """What was run, as its run.json or a record of it says, without protocols; nothing is checked again.

        code: the plugin's, which the run.json of older runs does not say.
        """
        encoder = EncoderSpec.model_construct(
            name=run.encoder,
            label=run.label,
            params=run.params,
            version=run.encoder_version,
            code=run.code if code is None else code,
            is_pretrained=run.is_pretrained,
        )
        return cls.model_construct(
            suite=run.suite,
            dataset=DatasetSpec.of(run),
            encoder=encoder,
            protocols=(),
            seed=run.seed,
            precision=t.cast(Precision, precision),
        )

    def key(self, fingerprint: str, precision: str, ranks: int = 1) -> str:
        """16 hex digits for everything that decides the fitted weights, and nothing else.

        `fingerprint` is the data's, `precision` the one that 'auto' came down to; `ranks` train it
        together. Labels, the suite, its order and its protocols have no part in it.
        """
        made_by = [self.encoder.name, self.encoder.version, self.encoder.params, *filter(None, [self.encoder.code])]
        return _digest([made_by, fingerprint, self.seed, precision, *([ranks] if ranks > 1 else [])])[:16]

    def snapshots(self) -> list[t.Self]:
        """A run for each snapshot of its training; in no way part of its own key."""
        data = self.dataset.model_copy(update={"split": self.snapshot_split})
        made = (SnapshotSpec(epoch=epoch, learned_from=self.dataset) for epoch in sorted({*self.encoder.snapshots}))
        return [self.model_copy(update={"dataset": data, "snapshot": one}) for one in made]

    def equals(self, precision: str) -> list[t.Self]:
        """The run in each version of its encoder that learns the same in this precision; new ones are the first."""
        versions = equal(self.encoder.equal_versions.get(precision, ()), self.encoder.version)
        encoders = [self.encoder.model_copy(update={"version": version}) for version in versions]
        return [self.model_copy(update={"encoder": encoder}) for encoder in encoders]


class Suite(_Plain):
    """A benchmark: datasets x encoders x seeds, each judged by every protocol."""

    suite: Name = Field(description="the name of the benchmark, and of its directory")
    datasets: tuple[DatasetSpec, ...] = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field(min_length=1, max_length=MAX_SEEDS, description="a list, or a range such as 0-2")
    encoders: tuple[EncoderSpec, ...] = Field(min_length=1)
    protocols: tuple[ProtocolSpec, ...] = Field(min_length=1)
    precision: Precision = Field("float32", description="of training; auto is bfloat16 where the device computes it")
    snapshot_split: Split = Field(
        "validation", description="what snapshots of encoders in training are judged on: keep the test set for the end"
    )
    wandb: WandbSpec = WandbSpec()
    controls: t.Literal["own", "none"] | tuple[Name, ...] = Field(
        "own", description="trained encoders that are compared with their own network before training: own is all"
    )
    control_of: dict[str, str] = Field(default_factory=dict)  # label: that of its control; not for files to say

    def runs(self) -> list[RunSpec]:
        """Every run there is, dataset by dataset; in each all encoders with the first seed, then with the next.

        A frozen network from elsewhere learns nothing, so that it has the first seed alone.
        """
        return [
            RunSpec(
                suite=self.suite,
                dataset=dataset,
                encoder=encoder,
                protocols=self.protocols,
                seed=seed,
                precision=self.precision,
                snapshot_split=self.snapshot_split,
            )
            for dataset in self.datasets
            for seed in self.seeds
            for encoder in self.encoders
            if seed == self.seeds[0] or not encoder.is_pretrained
        ]


KEYS = tuple(key for key in Suite.model_fields if key != "control_of")  # of a suite's file


def snapshot_key(key: str, epoch: int) -> str:
    """The content key of a training of this key that ended after so many epochs."""
    return _digest([key, "epoch", epoch])[:16]


def _digest(content: Json) -> str:
    """The same for the same JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
