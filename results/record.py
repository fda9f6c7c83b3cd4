"""One judged tap of one run, as plain data. A record stands alone: no other file is needed to read it."""

import typing as t

from pydantic import BaseModel, ConfigDict, Field, model_validator

Json = t.Any  # what json.loads can return
Equal = tuple[tuple[int, ...], ...]  # groups of versions; those of one group are of one definition


class Provenance(BaseModel):
    """Where a number was made. Secrets never come in here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    commit: str | None  # git commit of the code, None outside a checkout
    dirty: bool | None  # uncommitted changes at the time
    versions: dict[str, str]  # python and the libraries that move numbers
    device: str  # the processor's or the GPU's own name
    threads: int
    ranks: int = 1  # processes that trained it together, each with so many threads
    precision: str
    started: str  # ISO 8601, UTC
    resumed_elsewhere: bool = False  # its training went on where bits differ from where it began: not repeatable
    solvers: dict[str, int] = Field(default_factory=dict)  # by protocol of the suite, the revision of its solver


class Alarm(BaseModel):
    """A sign, seen without any label, that features have collapsed or that a training was hardly one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    value: float
    threshold: float  # on whose wrong side the value is
    text: str  # a plain sentence with both


class Run(BaseModel):
    """What was run: the part that a run.json and the records of its run have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: t.Literal[1] = 1
    suite: str
    key: str  # content key of the run, 16 hex digits
    dataset: str
    split: t.Literal["test", "validation"]  # what was scored: the test set, or a validation set
    limit: int | None  # rows of train and of test kept, None for all
    pretrain: str | None = (
        None  # the dataset that the encoder learned from, if another; limit and split are its own too
    )
    size: int | None = None  # pixels a side that images were scaled to, None for as they are
    mode: t.Literal["grey", "rgb"] | None = None  # that they were converted to
    fingerprint: str  # of the data
    train_images: int
    test_images: int
    encoder: str  # the method's name
    label: str  # what the suite calls this variant
    params: dict[str, Json]  # every parameter, defaults included
    encoder_version: int
    code: str = ""  # digest of the plugin's file that the encoder comes from
    is_control: bool
    is_pretrained: bool = False  # before, on other data
    labels: int | t.Literal["all"] = 0  # of the training images that the encoder was given
    seed: int
    epoch: int | None = None  # after which its training was ended for a snapshot; None: it is whole

    @classmethod
    def of(cls, run: t.Mapping[str, Json]) -> "Run":
        """That part of a run.json; those of before lack what has a default here."""
        return Run.model_validate({name: run[name] for name in Run.model_fields if name in run})


RUN_NEEDS = tuple(name for name, field in Run.model_fields.items() if field.is_required())  # of a run.json


class Record(Run):
    """One score of one tap (status 'done'), or one run that failed (status 'failed': tap and protocol are None)."""

    status: t.Literal["done", "failed"]
    error: str | None = None
    tap: str | None = None
    dimensions: int | None = None
    protocol: str | None = None
    protocol_label: str | None = None
    protocol_params: dict[str, Json] = Field(default_factory=dict)
    protocol_version: int | None = None
    protocol_code: str = ""  # digest of the plugin's file that the protocol comes from
    metrics: dict[str, float] = Field(default_factory=dict)  # fractions in 0..1, the first shown; or METRICS
    details: dict[str, Json] = Field(default_factory=dict)
    alarms: list[Alarm] = Field(default_factory=list)  # about the tap's features; records of before have none
    updates: dict[str, int] = Field(default_factory=dict)  # by player: how often it moved; older records have none
    predictions: str | None = None  # file with a class for every test image, beside this record's run directory
    predictions_sha256: str | None = None  # of what it says, whatever wrote the file; records of before have none
    seconds: dict[str, float]  # fit, extract, score
    provenance: Provenance


def dataset_label(
    name: str, limit: int | None, split: str, pretrain: str | None, size: int | None, mode: str | None
) -> str:
    """What tables call it: `mnist (limit 1000)`, `fashion_mnist from mnist`, `mnist (32 x 32, rgb)`."""
    form = ", ".join(filter(None, [f"{size} x {size}" if size else "", mode]))
    parts = [name, f"from {pretrain}" if pretrain else "", f"({form})" if form else ""]
    parts += [f"(limit {limit})" if limit else "", "(validation)" if split == "validation" else ""]
    return " ".join(filter(None, parts))


class RunFacts(BaseModel):
    """The types of what a run.json says, where it says it: older ones lack some fields."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    suite: str = ""
    key: str = ""
    dataset: str = ""
    split: t.Literal["test", "validation"] = "test"
    limit: int | None = None
    pretrain: str | None = None
    size: int | None = None
    mode: str | None = None
    fingerprint: str = ""
    train_images: int = 0
    test_images: int = 0
    encoder: str = ""
    label: str = ""
    params: dict[str, Json] = Field(default_factory=dict)
    encoder_version: int = 0
    code: str = ""
    is_control: bool = False
    is_pretrained: bool = False
    labels: int | t.Literal["all"] = 0
    seed: int = 0
    seconds: dict[str, float] = Field(default_factory=dict)
    updates: dict[str, int] = Field(default_factory=dict)
    provenance: Provenance | None = None
    taps: dict[str, int] = Field(default_factory=dict)  # with their dimensions
    weights_sha256: str = ""
    generator_sha256: str = ""
    files: dict[str, str] | None = None  # the SHA-256 of whatever else a run leaves; of before there were such, None


class Asked(BaseModel):
    """An encoder or a protocol of a suite, with every parameter."""

    model_config = ConfigDict(frozen=True)

    name: str
    label: str
    params: dict[str, Json] = Field(default_factory=dict)
    version: int | None = None  # older suites have those of encoders beside them
    code: str = ""  # digest of the plugin's file that it comes from
    equal_versions: Equal | dict[str, Equal] = ()  # of an encoder by precision


class Plan(BaseModel):
    """What tables take from a suite.json: the order of its protocols, and which recipe a label stands for now."""

    model_config = ConfigDict(frozen=True)

    suite: str = ""
    encoders: tuple[Asked, ...] = ()
    protocols: tuple[Asked, ...] = ()
    control_of: dict[str, str] = Field(default_factory=dict)  # label: that of its own untrained network

    @model_validator(mode="before")
    @classmethod
    def _versions_of_before(cls, plan: Json) -> Json:
        """Older suites have the versions of encoders apart, by label."""
        versions, encoders = (
            (plan.get(key) for key in ("encoder_versions", "encoders")) if isinstance(plan, dict) else (0, 0)
        )
        if not isinstance(versions, dict) or not isinstance(encoders, list):
            return plan
        named = [
            {"version": versions.get(str(one.get("label")))} | one if isinstance(one, dict) else one for one in encoders
        ]
        return plan | {"encoders": named}

    def asks_for(self, record: Record) -> bool | None:
        """Whether a run of this record's recipe belongs to the suite; None where the suite knows no such label."""
        asked = {one.label: one for one in self.encoders}
        if record.label not in asked:
            return None
        one = asked[record.label]
        same = (one.name, one.params, one.code) == (record.encoder, record.params, record.code)
        return same and one.version in Definitions([self]).encoder(record)


def equal(groups: t.Iterable[tuple[int, ...]], version: int) -> tuple[int, ...]:
    """The versions of the same definition as this one, itself among them."""
    return next((group for group in groups if version in group), (version,))


class Definitions:
    """Which versions of encoders and protocols are of one definition, as far as suites say."""

    def __init__(self, plans: t.Iterable[Plan]) -> None:
        self.groups: dict[tuple[str, str], list[tuple[int, ...]]] = {}  # by name, and of an encoder by precision
        for plan in plans:
            for one in (*plan.encoders, *plan.protocols):
                known = one.equal_versions
                for precision, groups in (known if isinstance(known, dict) else {"": known}).items():
                    joint = self.groups.setdefault((one.name, precision), [])
                    for group in groups:  # suites of different days know different parts of one
                        joined = {*group}.union(*(other for other in joint if {*other} & {*group}))
                        joint[:] = [other for other in joint if not {*other} & joined]
                        joint.append(tuple(sorted(joined, reverse=True)))

    def encoder(self, record: Record) -> tuple[int, ...]:
        """The versions of a record's encoder that learn what its own did, in the same precision."""
        return equal(self.groups.get((record.encoder, record.provenance.precision), ()), record.encoder_version)

    def protocol(self, record: Record) -> tuple[int, ...]:
        return equal(self.groups.get((record.protocol or "", ""), ()), record.protocol_version or 0)

    def newest(self, records: t.Sequence[Record]) -> list[Record]:
        """The records, each with the newest versions of its label's definitions that stand among them."""
        if not self.groups:  # each version is a definition of its own
            return list(records)
        last: dict[tuple[t.Any, ...], int] = {}
        made = []
        for one in records:
            encoder = (one.label, one.encoder, one.provenance.precision, self.encoder(one))
            protocol = (one.protocol_label, one.protocol, self.protocol(one))
            last[encoder] = max(last.get(encoder, 0), one.encoder_version)
            last[protocol] = max(last.get(protocol, 0), one.protocol_version or 0)
            made.append((encoder, protocol))
        return [
            one
            if (last[encoder], last[protocol]) == (one.encoder_version, one.protocol_version or 0)
            else one.model_copy(
                update={"encoder_version": last[encoder], "protocol_version": last[protocol] if one.protocol else None}
            )
            for one, (encoder, protocol) in zip(records, made)
        ]
