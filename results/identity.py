"""Which records are of one row: the settings that move an encoder's numbers and a protocol's, and a name for them."""

import json
import typing as t
from collections import defaultdict

from results.record import Json, Record, dataset_label

Key = t.TypeVar("Key")


class DatasetKey(t.NamedTuple):
    """Data that scores can be compared on."""

    name: str  # with size, limit and split
    fingerprint: str


class EncoderKey(t.NamedTuple):
    """What has the same weights but for the seed."""

    label: str
    facts: str  # `encoder_facts` as JSON


class ProtocolKey(t.NamedTuple):
    """One definition of a protocol with its settings."""

    label: str
    version: int  # the newest one of the definition
    facts: str  # `protocol_facts` as JSON

    @property
    def name(self) -> str:
        return f"{self.label}@{self.version}"


def dataset_name(record: Record) -> str:
    return dataset_label(record.dataset, record.limit, record.split, record.pretrain, record.size, record.mode)


def encoder_facts(record: Record) -> dict[str, Json]:
    """What moves an encoder's numbers besides data and seed."""
    facts = {"method": record.encoder, "version": record.encoder_version, "precision": record.provenance.precision}
    facts |= {"ranks": record.provenance.ranks} if record.provenance.ranks > 1 else {}
    facts |= {"epoch": record.epoch} if record.epoch else {}
    return record.params | facts | ({"plugin": record.code} if record.code else {})


def encoder_key(record: Record) -> EncoderKey:
    return EncoderKey(record.label, as_json(encoder_facts(record)))


def protocol_facts(record: Record) -> dict[str, Json]:
    plugin = {"plugin": record.protocol_code} if record.protocol_code else {}
    return record.protocol_params | {"protocol": record.protocol} | plugin


def protocol_key(record: Record) -> ProtocolKey:
    facts = as_json(protocol_facts(record))
    return ProtocolKey(record.protocol_label or "", record.protocol_version or 0, facts)


def disambiguate(things: t.Mapping[Key, tuple[str, dict[str, Json]]]) -> dict[Key, str]:
    """{key: its name}, from {key: (name, facts)}: namesakes get the facts in which they differ behind their name."""
    namesakes: dict[str, list[Key]] = defaultdict(list)
    for key, (name, _) in things.items():
        namesakes[name].append(key)
    names = {}
    for name, keys in namesakes.items():
        facts = [things[key][1] for key in keys]
        differing = [fact for fact in sorted(set().union(*facts)) if len({as_json(one.get(fact)) for one in facts}) > 1]
        for key, one in zip(keys, facts):
            settings = ", ".join(f"{fact}={_word(one[fact])}" for fact in differing if fact in one)
            names[key] = f"{name} ({settings})" if settings else name
    return names


def _word(value: Json) -> str:
    return value if isinstance(value, str) else as_json(value)


as_json = json.JSONEncoder(sort_keys=True).encode  # made once: a call of json.dumps makes one each time
