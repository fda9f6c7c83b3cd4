"""Which records are of one row: the settings that move an encoder's numbers and a protocol's, and a name for them."""

import json
import typing as t
from collections import defaultdict

from results.record import Json, Record, dataset_label

Key = t.TypeVar("Key")


def dataset_name(record: Record) -> str:
    return dataset_label(record.dataset, record.limit, record.split, record.pretrain, record.size, record.mode)


def versioned(record: Record) -> str:
    return f"{record.protocol_label}@{record.protocol_version}"


def encoder_facts(record: Record) -> dict[str, Json]:
    """What moves an encoder's numbers besides data and seed."""
    made = {"method": record.encoder, "version": record.encoder_version, "precision": record.provenance.precision}
    made |= {"ranks": record.provenance.ranks} if record.provenance.ranks > 1 else {}
    made |= {"epoch": record.epoch} if record.epoch else {}
    return record.params | made | ({"plugin": record.code} if record.code else {})


def encoder_key(record: Record) -> tuple[str, str]:
    return record.label, as_json(encoder_facts(record))


def protocol_facts(record: Record) -> dict[str, Json]:
    made = {"protocol": record.protocol} | ({"plugin": record.protocol_code} if record.protocol_code else {})
    return record.protocol_params | made


def protocol_key(record: Record) -> tuple[str, str]:
    return versioned(record), as_json(protocol_facts(record))


def told_apart(things: dict[Key, tuple[str, dict[str, Json]]]) -> dict[Key, str]:
    """A name for each thing: its own, and for namesakes the facts in which they differ."""
    namesakes: dict[str, list[Key]] = defaultdict(list)
    for key, (name, _) in things.items():
        namesakes[name].append(key)
    shown = {}
    for name, keys in namesakes.items():
        facts = [things[key][1] for key in keys]
        differing = [fact for fact in sorted(set().union(*facts)) if len({as_json(one.get(fact)) for one in facts}) > 1]
        for key, one in zip(keys, facts):
            told = ", ".join(f"{fact}={_word(one[fact])}" for fact in differing if fact in one)
            shown[key] = f"{name} ({told})" if told else name
    return shown


def _word(value: Json) -> str:
    return value if isinstance(value, str) else as_json(value)


def as_json(value: Json) -> str:
    return json.dumps(value, sort_keys=True)
