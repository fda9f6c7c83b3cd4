"""What this machine has: the first thing to read when something does not work."""

import importlib.metadata
import netrc
import os
import platform
import typing as t
from pathlib import Path

import torch

from bench import datasets
from bench.host import machine
from results import wandb_mirror


def report(data_root: Path | None = None) -> t.Iterator[str]:
    """Lines about the machine, the versions, the data that is found without a download, and wandb."""
    yield f"python      {platform.python_version()} on {platform.platform()}"
    for name in ("frostbench", "torch", "torchvision", "numpy", "scikit-learn", "pandas", "wandb"):
        yield f"{name:<11} {importlib.metadata.version(name)}"
    yield f"processor   {machine.processor_name()}"
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield f"GPUs        {', '.join(gpus) or 'none'}"
    device = machine.pick_device("auto")
    yield f"precision   auto is {machine.pick_precision('auto', device)} on {device}"
    for name in datasets.DATASETS:
        if ":" in name:
            continue
        try:
            dataset = datasets.load(name, root=data_root, offline=True)
            yield f"{name:<13} {len(dataset.train):,} + {len(dataset.test):,} images, fingerprint {dataset.fingerprint}"
        except datasets.DataMissing:
            yield f"{name:<13} not found; a suite that needs it downloads it, unless --offline"
        except datasets.DataError as error:
            yield f"{name:<13} damaged: {error}"
    yield from _wandb()


def _wandb() -> t.Iterator[str]:
    """The key, and what holds of a suite that leaves all of it open, each with the variable that says so."""
    key = "WANDB_API_KEY" in os.environ or _netrc_has_wandb()
    yield f"wandb       {'API key found' if key else 'no API key: mode offline works; for online run `wandb login`'}"
    try:
        target, by = wandb_mirror.target({})
    except ValueError as error:
        yield f"            {error}"
        return
    stops = "whatever a suite sets" if target.mode == "off" else "even if a suite sets online"
    holds = {
        "mode": f"{target.mode}, {stops}" if "mode" in by and target.mode != "online" else target.mode,
        "project": target.project,
        "entity": target.entity or "the account's own",
        "tags": ", ".join(target.tags) or "none",
        "directory": target.directory or "the suite's",
    }
    for name, value in holds.items():
        source = by.get(name) or ("default" if name == "directory" else "unless a suite sets it")
        yield f"  {name:<10}{value} ({source})"


def _netrc_has_wandb() -> bool:
    try:
        return any("wandb" in host for host in netrc.netrc().hosts)
    except (OSError, netrc.NetrcParseError):
        return False
