"""Where the files of a run lie.

<suite directory>/<label>/<dataset>/seed<k>-<key>/
    run.json  encoder.safetensors  encoder.json  history.csv  failed.json  checkpoint/  features/
                                        run.json has the SHA-256 of weights, recipe, history, pictures and views
    generator.safetensors  pictures/    of methods that make images
    publishing/  in_flight.json         while the files above take their places; while one process makes the run
    snapshots/epoch<n>/<dataset>/seed<k>-<key>/     the same of the encoder after some epochs; not in tables
    views/<tap>.npz  views/neighbours-<tap>.png     of the features, for the report
    scores/<tap>/<protocol>.json        a Record each, with a SHA-256 over the rest of it
    predictions/<tap>/<protocol>.npz
    conflicts/, scores/<tap>/conflicts/ what was published a second time with different content: kept, never used
    scores/<tap>/corrupt/               damaged records that a whole one has taken the place of: kept, never used
"""

import functools
import os
import re
import typing as t
from dataclasses import dataclass
from pathlib import Path

from results.files import StoreError, checked_path

_RUN = re.compile(r"seed\d+-[0-9a-f]{16}")
_IN_RUN = re.compile(rf"/{_RUN.pattern}/")


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run. A protocol is named '<label>@<version>-<protocol key>' here."""

    path: Path

    @property
    def run_json(self) -> Path:
        return self.path / "run.json"

    @property
    def weights(self) -> Path:
        return self.path / "encoder.safetensors"

    @property
    def generator(self) -> Path:
        return self.path / "generator.safetensors"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    @property
    def encoder_json(self) -> Path:
        return self.path / "encoder.json"

    @property
    def history(self) -> Path:
        return self.path / "history.csv"

    @property
    def failed(self) -> Path:
        return self.path / "failed.json"

    @property
    def in_flight(self) -> Path:
        return self.path / "in_flight.json"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @property
    def features(self) -> Path:
        """A cache, which may be deleted at any time."""
        return self.path / "features"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    @property
    def views(self) -> Path:
        return self.path / "views"

    def view(self, tap: str) -> Path:
        return self.views / f"{component(tap)}.npz"

    def neighbours(self, tap: str) -> Path:
        return self.views / f"neighbours-{component(tap)}.png"

    def record(self, tap: str, protocol: str) -> Path:
        return self.path / "scores" / component(tap) / f"{component(protocol)}.json"

    def predictions(self, tap: str, protocol: str) -> Path:
        return self.path / "predictions" / component(tap) / f"{component(protocol)}.npz"


def run_directory(suite_directory: Path, label: str, dataset_slug: str, seed: int, key: str) -> RunDirectory:
    """Where a run keeps its files. Raises StoreError for a name that is not a plain file name."""
    name = f"seed{seed}-{key}"
    if not _RUN.fullmatch(name):
        raise StoreError(f"a run needs a seed from 0 up and a key of 16 hex digits; got seed {seed} and key {key!r}")
    component(suite_directory.name)
    return RunDirectory(checked_path(suite_directory / component(label) / component(dataset_slug) / name))


@functools.lru_cache
def component(name: str) -> str:
    """A name that is safe as one part of a path, and that says nothing special to `read_store`."""
    if not name or len(name.encode(errors="replace")) > 200:
        raise StoreError(f"{name!r} cannot be part of a path: wanted 1 to 200 bytes")
    if name.startswith(".") or not name.isprintable() or "/" in name or "\\" in name:
        raise StoreError(f"{name!r} cannot be part of a path: no '/', no '\\', no '.' in front, nothing unprintable")
    if name in ("conflicts", "corrupt", "wandb") or _RUN.fullmatch(name):
        raise StoreError(f"{name!r} cannot be part of a path: the store keeps other things under this name")
    return name


def files_beside(run: RunDirectory) -> list[Path]:
    """What lies beside the weights and records of a run: its recipe, its history, pictures and views."""
    found = (run.encoder_json, run.history, *_visible(run.pictures), *_visible(run.views))
    return [path for path in found if os.path.lexists(path)]


def _visible(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("*") if not path.name.startswith("."))


def name_in(run: RunDirectory, path: Path) -> str:
    """What run.json calls a file of its run."""
    return path.relative_to(run.path).as_posix()


def runs_below(directory: Path) -> t.Iterator[RunDirectory]:
    """Every run directory below this one, those behind links to directories last."""
    for parent, directories, _ in _walk(directory):
        directories[:] = sorted(name for name in directories if name != "corrupt" and not name.startswith("."))
        if _RUN.fullmatch(Path(parent).name):
            directories.clear()
            yield RunDirectory(Path(parent))


def result_files(directory: Path, damaged: list[tuple[Path, str]]) -> list[Path]:
    """Every suite.json, run.json and record below a directory, in the order of their paths.

    Conflicts and what cannot be read go to `damaged`.
    """
    found: list[list[str]] = []  # by their parts: sorting paths takes longer

    def unreadable(error: OSError) -> None:
        damaged.append((Path(error.filename), f"cannot be read: {error.strerror}"))

    for parent, directories, files in _walk(directory.absolute(), unreadable):
        above, here = parent.split("/")[-2:]
        is_run = _RUN.fullmatch(here) is not None
        unread = (
            ("corrupt", "predictions", "features", "checkpoint", "pictures", "views", "snapshots")
            if is_run
            else ("corrupt",)
        )
        directories[:] = [name for name in directories if name not in unread and not name.startswith(".")]
        if not is_run and not _IN_RUN.search(parent):
            found += [[*parent.split("/"), name] for name in files if name == "suite.json"]
            continue
        for name in [*files, *(name for name in directories if name.endswith(".json"))]:  # a directory there is damage
            if name.startswith("."):
                continue
            if (above == "scores" and name.endswith(".json")) or (is_run and name in ("run.json", "failed.json")):
                found.append([*parent.split("/"), name])
            elif here == "conflicts":
                problem = "another content was published first under this name; not used: compare the two"
                damaged.append((Path(parent, name), problem))
    return [Path("/".join(parts)) for parts in sorted(found)]


def _walk(
    directory: Path, unreadable: t.Callable[[OSError], object] | None = None
) -> t.Iterator[tuple[str, list[str], list[str]]]:
    """Like os.walk, through links to directories too, but through each directory once and its own name first."""
    waiting, names = [str(directory)], list[str]()
    seen: set[tuple[int, int]] = set()  # directories by device and inode, once there are links
    while waiting:
        stack, through_link = [waiting.pop(0)], bool(names)
        seen |= set(map(_inode, names)) if through_link and not seen else set()
        while stack:
            parent = stack.pop()
            if through_link and (inode := _inode(parent)) in seen:
                continue
            seen |= {inode} if through_link else set()
            names.append(parent)
            try:
                with os.scandir(parent) as entries:
                    found = list(entries)
            except OSError as error:
                if unreadable:
                    unreadable(error)
                continue
            below = {entry.name: entry.is_symlink() for entry in found if _is_directory(entry)}
            directories = list(below)
            yield parent, directories, [entry.name for entry in found if entry.name not in below]
            waiting += [f"{parent}/{name}" for name in directories if below[name]]
            stack += [f"{parent}/{name}" for name in reversed(directories) if not below[name]]


def _inode(directory: str) -> tuple[int, int]:
    status = os.stat(directory)  # noqa: PTH116 - making a Path takes longer than asking
    return status.st_dev, status.st_ino


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
