"""The one place that imports torchvision: `from bench.datasets._torchvision import torchvision`, or `download`.

`encoders.off_the_shelf` copes with builds that lack their operators.
"""

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path

from encoders.off_the_shelf import import_torchvision

TIMEOUT = 30  # seconds without a byte; torchvision sets none, and would wait for a silent server for ever
MAX_BYTES = 4 * 2**30  # bytes of a download; STL-10's, the largest, has 2.6e9
MAX_SECONDS = 6 * 3600.0  # seconds of a download: those at 120 kB/s

torchvision, stand_in = import_torchvision()


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
