"""Reads what wandb wrote offline: LevelDB's log format around protocol buffers. Checked against wandb 0.31 only.

Blocks of 32 KiB hold chunks of a 7-byte head (CRC-32 over type and body, length, type: 1 whole, 2 first, 3 middle, 4
last) and a body; the file opens with 7 bytes of its own.
"""

import dataclasses
import json
import struct
import typing as t
import zlib
from pathlib import Path

from wandb.proto import wandb_internal_pb2

BLOCK = 32 * 1024
Json = t.Any


@dataclasses.dataclass
class OfflineRun:
    """What a `wandb/offline-run-*` directory says."""

    id: str
    project: str
    name: str
    group: str
    job_type: str
    tags: list[str]
    config: dict[str, Json]
    history: list[dict[str, Json]]
    summary: dict[str, Json]
    artifacts: dict[str, list[Path]]  # type -> the staged files
    tables: dict[str, Json]  # key -> columns and data
    whole: bool  # whether the run was finished


def read_offline_run(directory: Path) -> OfflineRun:
    (path,) = directory.glob("run-*.wandb")
    run = OfflineRun("", "", "", "", "", [], {}, [], {}, {}, {}, False)
    for body in _bodies(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(body)
        match record.WhichOneof("record_type"):
            case "run":
                said = record.run
                run.id, run.project, run.name = said.run_id, said.project, said.display_name
                run.group, run.job_type = said.run_group, said.job_type
                run.tags = list(said.tags)
                run.config |= _items(said.config.update)
            case "config":
                run.config |= _items(record.config.update)
            case "history":
                run.history.append(_items(record.history.item))
            case "summary":
                run.summary |= _items(record.summary.update)
            case "artifact":
                staged = [Path(entry.local_path) for entry in record.artifact.manifest.contents]
                run.artifacts.setdefault(record.artifact.type, []).extend(staged)
            case "exit":
                run.whole = record.exit.exit_code == 0
    for row in run.history:
        for key, value in row.items():
            if isinstance(value, dict) and value.get("_type") == "table-file":
                run.tables[key] = json.loads((directory / "files" / value["path"]).read_bytes())
    return run


def _bodies(content: bytes) -> t.Iterator[bytes]:
    assert content[:4] == b":W&B"
    at, body = 7, b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:  # too little is left of the block for a head
            at += BLOCK - at % BLOCK
            continue
        checksum, length, kind = struct.unpack("<IHB", content[at : at + 7])
        if (checksum, length, kind) == (0, 0, 0):
            break
        chunk = content[at + 7 : at + 7 + length]
        assert zlib.crc32(bytes([kind]) + chunk) == checksum
        at += 7 + length
        body = chunk if kind in (1, 2) else body + chunk
        if kind in (1, 4):
            yield body


def _items(items: t.Any) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for item in items:
        *outer, last = item.nested_key or [item.key]
        inside = found
        for key in outer:
            inside = inside.setdefault(key, {})
        inside[last] = json.loads(item.value_json)
    return found
