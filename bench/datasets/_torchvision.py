"""The one place that imports torchvision: `from bench.datasets._torchvision import torchvision`, or `download`.

A torchvision built for another torch (PyPI's build beside a CPU-only torch) cannot load its compiled operators, and its
import then fails because two of them are described without a guard (pytorch/vision issues 8985, 9077). Where, and only
where, that happens the two schemas are defined here and the import is tried again: datasets, transforms and models then
work, the compiled operators say themselves that they are missing. Defining them beside a whole torchvision would abort
the process, so nothing is touched unless the plain import has failed with exactly that error.
"""

import hashlib
import http.client
import importlib
import sys
import time
import types
import urllib.error
import urllib.request
from pathlib import Path

import torch

TIMEOUT = 30  # seconds without a byte; torchvision sets none, and would wait for a silent server for ever
MAX_BYTES = 4 * 2**30  # bytes of a download; STL-10's, the largest, has 2.6e9
MAX_SECONDS = 6 * 3600.0  # seconds of a download: those at 120 kB/s
NMS = "Tensor dets, Tensor scores, float iou_threshold"

stand_in: torch.library.Library | None = None  # kept here because its schemas leave with it; None: torchvision is whole


def _import_torchvision() -> types.ModuleType:
    global stand_in  # noqa: PLW0603 -- one library a process, whatever imports this
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if str(error) != "operator torchvision::nms does not exist":
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    stand_in = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    stand_in.define(f"nms({NMS}) -> Tensor")  # type: ignore[no-untyped-call]
    stand_in.define(f"qnms({NMS}) -> Tensor")  # type: ignore[no-untyped-call]
    return importlib.import_module("torchvision")


torchvision = _import_torchvision()


def download(dataset: str, folder: Path) -> None:
    """Fetch the files of torchvision's dataset class of this name into the folder, in the layout that class reads.

    Raises OSError if a file is not to be had, ValueError if one is not the published file by the MD5 pinned there.
    """
    published = getattr(torchvision.datasets, dataset)
    if hasattr(published, "mirrors"):  # MNIST and its kin
        below = folder / dataset / "raw"
        for file, md5 in published.resources:
            _fetch([mirror + file for mirror in published.mirrors], below, file, md5)
    elif hasattr(published, "split_list"):  # SVHN
        for url, file, md5 in (published.split_list[part] for part in ("train", "test")):
            _fetch([url], folder, file, md5)
    else:
        _fetch([published.url], folder, published.filename, published.tgz_md5)
        archive = str(folder / published.filename)
        torchvision.datasets.utils.extract_archive(archive, str(folder), remove_finished=True)


def _fetch(urls: list[str], folder: Path, file: str, md5: str) -> None:
    """The file from the first of the urls that gives it."""
    failures: list[str] = []
    came_wrong = False
    folder.mkdir(parents=True, exist_ok=True)
    for url in urls:
        try:
            if _stream(url, folder / file) == md5:
                return
            failures.append(f"{url}: wrong MD5")
            came_wrong = True
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{url}: {error}")
            if isinstance(error, urllib.error.HTTPError):
                error.close()
    if came_wrong:
        raise ValueError(f"{', '.join(urls)}: not the published file, whose MD5 is {md5}")
    raise ConnectionError("; ".join(failures))


def _stream(url: str, path: Path) -> str:
    """Download to a file, within the limits of size and time; its MD5. Raises OSError and HTTPException."""
    request = urllib.request.Request(url, headers={"User-Agent": "frostbench"})  # noqa: S310 - torchvision's addresses
    until = time.monotonic() + MAX_SECONDS
    digest = hashlib.md5(usedforsecurity=False)
    size = 0
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response, path.open("wb") as file:  # noqa: S310
        announced = response.length
        while content := response.read1(2**16):
            size += len(content)
            if size > MAX_BYTES:
                raise ConnectionError(f"more than {MAX_BYTES:,} bytes")
            if time.monotonic() > until:
                raise ConnectionError(f"took longer than {MAX_SECONDS / 3600:g} hours")
            digest.update(content)
            file.write(content)
    if announced is not None and size != announced:
        raise ConnectionError(f"ended after {size:,} of {announced:,} bytes")
    return digest.hexdigest()
