"""The JSON schema of suite files, with which editors complete and check them."""

import typing as t
from pathlib import Path

from bench.datasets import DATASETS
from bench.errors import Json
from bench.suites import resolve
from bench.suites.suite import KEYS, EncoderSpec, Suite
from encoders.base import Encoder
from protocols.base import Protocol


def json_schema(plugins: t.Sequence[Path] = ()) -> dict[str, Json]:
    """The JSON schema of suite files, for editors: every encoder and protocol with its parameters."""
    schema = Suite.model_json_schema()
    for unwritten in ("EncoderSpec", "ProtocolSpec"):
        del schema["$defs"][unwritten]
    datasets = [name for name in DATASETS if ":" not in name]
    forms = "|".join(name.partition(":")[0] for name in DATASETS if ":" in name)
    dataset: Json = {"anyOf": [{"enum": datasets}, {"type": "string", "pattern": f"^({forms}):."}]}
    schema["$defs"]["DatasetSpec"]["properties"]["name"] |= dataset
    schema["$defs"]["DatasetSpec"]["properties"]["pretrain"]["anyOf"] = [*dataset["anyOf"], {"type": "null"}]
    properties = {key: schema["properties"][key] for key in KEYS}
    properties["datasets"]["items"] = {"anyOf": [dataset, {"$ref": "#/$defs/DatasetSpec"}]}
    properties["seeds"] = {
        "anyOf": [properties["seeds"], {"type": "string", "pattern": "^[0-9]+-[0-9]+$"}],
        "description": properties["seeds"].pop("description"),
    }
    for section, known in (("encoders", resolve.encoders(plugins)), ("protocols", resolve.protocols(plugins))):
        bare = [
            name for name, recipe in known.items() if not any(f.is_required() for f in recipe.model_fields.values())
        ]
        entries = [_entry_schema(name, recipe, schema["$defs"]) for name, recipe in known.items()]
        properties[section]["items"] = {"anyOf": [{"enum": bare}, *entries]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "properties": properties}


def _entry_schema(name: str, recipe: type[Encoder | Protocol], definitions: dict[str, Json]) -> Json:
    """What a suite may say of one encoder or protocol; the models among its parameters go to the definitions."""
    schema = recipe.model_json_schema()
    definitions |= schema.pop("$defs", {})
    label = {"type": "string", "pattern": resolve.NAME, "description": "what tables call it; its name by default"}
    beside = {"name": {"const": name}, "label": label}
    if "epochs" in recipe.model_fields:
        beside["snapshots"] = EncoderSpec.model_json_schema()["properties"]["snapshots"]
    schema["properties"] = {**beside, **schema["properties"]}
    return {**schema, "required": ["name", *schema.get("required", [])]}
