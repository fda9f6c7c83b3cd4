"""Results on disk: what is there, what is done. The files are the truth; everything else is made again from them.

A file is there whole or not at all, whoever is killed and whoever else writes: its content goes to a private file in
the same directory, is synced, and is then linked to its name (published once) or moved there (replaced). No locks.

    <suite directory>/<label>/<dataset>/seed<k>-<key>/
        run.json  encoder.safetensors  encoder.json  history.csv  failed.json  checkpoint/  features/
                                            run.json has the SHA-256 of weights, recipe, history, pictures and views
        generator.safetensors  pictures/    of methods that make images
        publishing/  in_flight.json         while the files above take their places; while one process makes the run
        views/<tap>.npz  views/neighbours-<tap>.png     of the features, for the report
        scores/<tap>/<protocol>.json        a Record each, with a SHA-256 over the rest of it
        predictions/<tap>/<protocol>.npz
        conflicts/, scores/<tap>/conflicts/ what was published a second time with different content: kept, never used
        scores/<tap>/corrupt/               damaged records that a whole one has taken the place of: kept, never used
"""

import contextlib
import csv
import errno
import fcntl
import functools
import hashlib
import io
import itertools
import json
import math
import os
import re
import secrets
import shutil
import socket
import stat
import time
import typing as t
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from results.metrics import METRICS, lowest
from results.record import Json, Plan, Record, RunFacts

ROOM = 64 * 2**20  # bytes that must be free before a run starts: its weights, features and scores
LARGEST_JSON = 16 * 2**20  # bytes; a record has a few thousand
LARGEST = 16 * 2**30  # bytes of any file of a run: weights of 4 billion numbers
LONGEST_PATH = 4096 - 1024  # bytes of a run's directory: Linux takes 4,096 in all, macOS less

CHANGED = "changed since it was written: run.json has another sha256"

_RUN = re.compile(r"seed\d+-[0-9a-f]{16}")
_IN_RUN = re.compile(rf"/{_RUN.pattern}/")
_PUBLISHING = "publishing"
_TEMPORARY = re.compile(r"\.frostbench-(?P<host>.+)-(?P<process>\d{1,9})-[0-9a-f]{8}\.tmp")
_UNHASHED = {*Record.model_fields, "taps", "weights_sha256", "generator_sha256"}  # fields of a run.json without a hash
_FORGOTTEN = 24 * 3600  # seconds; no write takes a day, so an older temporary file is stray whatever machine made it


class StoreError(Exception):
    """A file that cannot be written, read or trusted; the message names it and says why."""

    exit_code = 2


class Missing(StoreError):
    """There is no such file."""


class Unwritable(StoreError):
    """No room, or no right to write: nothing that another run could do better."""


class Claimed(StoreError):
    """Another process is at this run; the message names it."""


class Conflict(StoreError):
    """The same name was published twice with different content; the message names both, and both are kept."""


# ---- writing ----------------------------------------------------------------------------------------------------


def publish(path: Path, content: bytes) -> None:
    """Write a file that is made once. Already there with the same content is fine.

    Raises Conflict if something else stands there, after keeping this content in conflicts/ beside it, and StoreError
    if it cannot be written.
    """
    if not _link(path, content) and read_bytes(path) != content:
        raise _conflict(path, content)


def replace(path: Path, content: bytes) -> None:
    """Write a file that may be made again: whoever reads finds the old content or the new, whole.

    Raises StoreError if it cannot be written; the old content is then still there.
    """
    with _beside(path, content) as temporary:
        temporary.replace(path)


def publish_record(path: Path, record: Record) -> None:
    """Write a record once. Already there with the same numbers is fine: the run was repeated and came out the same.

    A damaged record in its place is set aside in corrupt/. A failed run's record replaces the attempt's before.
    Raises Conflict and StoreError like `publish`, and StoreError for a record that could not be read back.
    """
    content = _record_to_bytes(path, record)
    if record.status == "failed":
        return replace(path, content)
    while not _link(path, content):
        try:
            there = read_record(path)
        except StoreError:
            set_aside(path)
        else:
            if _same_numbers(there, record):
                return None
            raise _conflict(path, content)
    return None


def publish_run(directory: Path, run: dict[str, Json], files: t.Mapping[str, bytes]) -> None:
    """Write a run.json and the files it speaks of, by their names in the run's directory, once: all of them or none.

    They are written apart, and take the name publishing/ in one rename; whoever sees that name can finish the rest.
    Already there with the same weights is fine, whenever and by whom they were made. Raises Conflict, of which
    conflicts/ keeps the run.json, and Unwritable.
    """
    content = sealed(directory, run)
    ready, there = directory / _PUBLISHING, directory / "run.json"
    settle(directory)  # what another process has begun
    if not there.exists():
        with private_directory(ready) as private:
            for name, part in {**files, there.name: content}.items():
                replace(private / name, part)
        settle(directory)
    hashes = ("weights_sha256", "generator_sha256")
    now = read_run(there)
    if [now.get(one) for one in hashes] != [run.get(one) for one in hashes]:
        raise _conflict(there, content)


def sealed(directory: Path, run: dict[str, Json]) -> bytes:
    """A run.json with the hash of all that it says."""
    return canonical(run | {"sha256": _digest(directory, json.loads(canonical(run)))})  # of the order in the file


def settle(directory: Path) -> None:
    """Give the files of a publication that was begun their places, run.json last. Raises Unwritable."""
    ready, last = directory / _PUBLISHING, "run.json"
    with writing(directory / last):
        try:
            opened = os.open(ready, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return
        try:  # by the directory itself: another one can have its name by now
            found = os.fwalk(".", dir_fd=opened)
            names = [os.path.normpath(f"{parent}/{name}") for parent, _, files, _ in found for name in files]
            if last in names and not (directory / last).exists():  # else they came too late
                for some in (sorted({*names} - {last}), [last]):
                    places = [directory / name for name in some]
                    for name, place in zip(some, places):
                        _make_directory(place.parent)
                        with contextlib.suppress(FileNotFoundError):  # somebody else was quicker
                            os.replace(name, place, src_dir_fd=opened)
                    for parent in sorted({place.parent for place in places}):
                        _sync(parent)
        finally:
            os.close(opened)
        shutil.rmtree(ready, ignore_errors=True)


def file_digests(run: "RunDirectory", paths: t.Iterable[Path] | None = None) -> dict[str, str]:
    """{file of a run: its SHA-256}, for run.json; of all that lies beside its weights unless told which."""
    wanted = files_beside(run) if paths is None else paths
    return {name_in(run, path): file_digest(path) for path in wanted}


def note_files(run: "RunDirectory", paths: t.Iterable[Path]) -> None:
    """Have run.json say the SHA-256 of files that were made again from the frozen encoder; old ones say none."""
    about = read_run(run.run_json)
    if about.get("files") is not None:
        replace(run.run_json, sealed(run.path, about | {"files": about["files"] | file_digests(run, paths)}))


@contextlib.contextmanager
def private_directory(path: Path) -> t.Iterator[Path]:
    """A private directory to fill, which gets this name when the block ends well; it is gone if the name is taken.

    What is to outlive a power cut must be synced by whoever writes it. Raises Unwritable if it cannot be made.
    """
    private = path.parent / _temporary_name()
    try:
        with writing(path):
            private.mkdir(parents=True)
        yield private
        try:
            private.rename(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else somebody else was quicker
                raise Unwritable(_explain(path, error)) from error
    finally:
        shutil.rmtree(private, ignore_errors=True)


@contextlib.contextmanager
def writing(path: Path) -> t.Iterator[None]:
    """An OSError inside the block is Unwritable, which says that `path` is not written, and what to do."""
    try:
        yield
    except OSError as error:
        raise Unwritable(_explain(path, error)) from error


def canonical(value: Json) -> bytes:
    """The one way this value is written as JSON: sorted keys, UTF-8, a line a value, a newline at the end.

    Raises StoreError for NaN, infinity and whatever else JSON has no words for.
    """
    return _dump(value, sort_keys=True)


def check_writable(directory: Path) -> None:
    """Try, before any work is done, what publishing will need. Raises StoreError if it cannot be had."""
    with token(directory):
        pass
    free = shutil.disk_usage(directory).free
    if free < ROOM:
        wanted = f"a run needs {ROOM // 2**20} MiB for its weights, features and scores"
        raise Unwritable(f"{directory} has {free // 2**20} MiB free; {wanted}: make room or choose another directory")


@contextlib.contextmanager
def token(directory: Path) -> t.Iterator[Path]:
    """An empty file of a new name, there inside the block: whoever sees it sees this directory. Raises Unwritable."""
    path = directory / _temporary_name()
    publish(path, b"")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def claim(directory: Path, *, wait: bool) -> t.Iterator[bool]:
    """Inside the block no other process that asks has this run; the claim ends with the process, however that ends.

    Gives whether the file system has locks.
    It only saves work: where locks do not reach (some network file systems) two processes make the same run, and
    publishing sorts it out. Raises Claimed at once if another process is at it, unless told to wait, and Unwritable.
    """
    with writing(directory):
        _make_directory(directory)
        descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Claimed(f"{directory}: another process is at this run") from None
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def sweep(directory: Path) -> int:
    """Remove the temporary files and directories that killed processes left below this one; returns how many."""
    swept = 0
    for path in list(directory.rglob(".frostbench-*.tmp")):
        if _is_stray(path):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            swept += 1
    return swept


# ---- where things are -------------------------------------------------------------------------------------------


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
    def views(self) -> Path:
        return self.path / "views"

    def view(self, tap: str) -> Path:
        return self.views / f"{_component(tap)}.npz"

    def neighbours(self, tap: str) -> Path:
        return self.views / f"neighbours-{_component(tap)}.png"

    def record(self, tap: str, protocol: str) -> Path:
        return self.path / "scores" / _component(tap) / f"{_component(protocol)}.json"

    def predictions(self, tap: str, protocol: str) -> Path:
        return self.path / "predictions" / _component(tap) / f"{_component(protocol)}.npz"


def run_directory(suite_directory: Path, label: str, dataset_slug: str, seed: int, key: str) -> RunDirectory:
    """Where a run keeps its files. Raises StoreError for a name that is not a plain file name."""
    name = f"seed{seed}-{key}"
    if not _RUN.fullmatch(name):
        raise StoreError(f"a run needs a seed from 0 up and a key of 16 hex digits; got seed {seed} and key {key!r}")
    _component(suite_directory.name)
    return RunDirectory(checked_path(suite_directory / _component(label) / _component(dataset_slug) / name))


# ---- reading ----------------------------------------------------------------------------------------------------


def runs_below(directory: Path) -> t.Iterator[RunDirectory]:
    """Every run directory below this one, those behind links to directories last."""
    for parent, directories, _ in _walk(directory):
        directories[:] = sorted(name for name in directories if name != "corrupt" and not name.startswith("."))
        if _RUN.fullmatch(Path(parent).name):
            directories.clear()
            yield RunDirectory(Path(parent))


@dataclass(frozen=True)
class Contents:
    """What a store holds. Damaged files are named with what is wrong; they are left where they are and not used."""

    records: list[Record]  # done and failed, in an order that does not depend on where they lie
    runs: list[dict[str, Json]]  # the run.json of every run
    damaged: list[tuple[Path, str]]
    whole: dict[Path, Record] = field(
        default_factory=dict, compare=False
    )  # every record that could be read, by its file
    plans: list[Plan] = field(default_factory=list)  # of each suite.json, in the order of their paths


def read_store(directory: Path) -> Contents:
    """Everything below a directory: of one run, a suite, several suites, or published records laid out like them.

    The same scores found twice (a copied directory, a run that two suites share) count once. Of a run that was made
    twice where bits may differ (another device, number of threads or version of a library) the newest counts. Where two
    finished records claim different numbers for the same thing made alike neither is used, and both are reported.
    Raises StoreError if there is no such directory.
    """
    if not checked_path(directory).is_dir():
        raise StoreError(f"no results in {directory}: there is no such directory")
    found: list[tuple[tuple[str | int, ...], Path, Record]] = []
    runs: list[dict[str, Json]] = []
    plans: list[Plan] = []
    damaged: list[tuple[Path, str]] = []
    for path in sorted(_files(directory, damaged)):
        try:
            if path.name == "run.json":
                runs.append(read_run(path))
            elif path.name == "suite.json":
                plans.append(_read_plan(path))
            else:
                record = read_record(path)
                found.append((_identity(record), path, record))
        except StoreError as error:
            damaged.append((path, str(error).removeprefix(f"{path}: ")))
    found.sort(key=lambda one: one[2].provenance.started, reverse=True)
    found.sort(key=lambda one: one[0])
    records: list[Record] = []
    for _, copies in itertools.groupby(found, key=lambda one: one[0]):
        same = [(path, record) for _, path, record in copies]  # the newest first
        alone = len(same) == 1 or same[0][1].status == "failed"
        rivals = {} if alone else {path: _rival(record, same) for path, record in same}
        damaged += [
            (path, f"has other numbers than {rival} for the same thing; neither is used: keep one")
            for path, rival in rivals.items()
            if rival
        ]
        records += [record for path, record in same if not rivals.get(path)][:1]
    return Contents(records, runs, sorted(damaged), {path: record for _, path, record in found}, plans)


def read_record(path: Path) -> Record:
    """One record, its hash verified before anything in it is used.

    Raises StoreError for a file that is missing, too large, not JSON, of another schema, or changed since written.
    """
    value = _read_json(path)
    if not isinstance(value, dict) or not isinstance(claimed := value.pop("sha256", None), str):
        raise StoreError(f"{path}: not a record: it has no sha256")
    if claimed != _digest(path, value):
        raise StoreError(f"{path}: changed since it was written: its sha256 does not fit")
    if value.get("schema_version") != 1:
        raise StoreError(f"{path}: schema version {value.get('schema_version')}; this frostbench reads version 1")
    try:
        record = Record.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise StoreError(f"{path}: not a record of schema version 1: {place}: {first['msg']}") from error
    _check_meaning(path, record)
    return record


def is_record(path: Path) -> bool:
    """Whether a whole record lies there."""
    try:
        read_record(path)
    except StoreError:
        return False
    return True


def read_run(path: Path, *needed: str) -> dict[str, Json]:
    """The run.json of a finished training, its hash verified; only those of before there were hashes have none.

    Raises StoreError for a file that is not one, lacks a `needed` field, or changed since written.
    """
    value = _read_json(path)
    if not isinstance(value, dict) or value.get("schema_version") != 1:
        raise StoreError(f"{path}: not a run of schema version 1, which is what this frostbench reads")
    claimed = value.pop("sha256", None)
    hashed = claimed is not None or not value.keys() <= _UNHASHED
    if hashed and claimed != _digest(path, value):
        raise StoreError(f"{path}: changed since it was written: its sha256 does not fit")
    try:
        RunFacts.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise StoreError(f"{path}: not a run of schema version 1: {place}: {first['msg']}") from error
    if lacking := [field for field in needed if field not in value]:
        raise StoreError(f"{path}: not a whole run: it lacks {', '.join(lacking)}")
    return value


def _read_plan(path: Path) -> Plan:
    try:
        return Plan.model_validate(_read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise StoreError(f"{path}: not a suite: {place}: {first['msg']}") from error


def open_file(path: Path, largest: int = LARGEST) -> io.BufferedReader:
    """A regular file of at most `largest` bytes, open for reading. Raises Missing, or StoreError for any other kind."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for its writer
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Missing(f"{path}: there is no such file") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise StoreError(f"{path}: not a regular file")
    if status.st_size > largest:
        os.close(descriptor)
        raise StoreError(f"{path}: larger than {largest:,} bytes, which no such file of ours is")
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, largest: int = LARGEST) -> bytes:
    """What a regular file of at most `largest` bytes holds. Raises Missing and StoreError."""
    with open_file(path, largest) as file:
        try:
            return file.read()
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from error


def file_digest(path: Path, largest: int = LARGEST) -> str:
    """SHA-256 of a regular file, read a piece at a time. Raises Missing and StoreError."""
    with open_file(path, largest) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_kept(run: RunDirectory, path: Path, largest: int = LARGEST) -> bytes:
    """What a file of a run holds, if run.json has its SHA-256; an older run.json, which has none, is believed.

    Raises Missing and StoreError.
    """
    content = read_bytes(path, largest)
    with contextlib.suppress(Missing):  # published without it
        known = read_run(run.run_json).get("files")
        if known is not None and known.get(name_in(run, path)) != hashlib.sha256(content).hexdigest():
            raise StoreError(f"{path}: {CHANGED}")
    return content


def is_kept(run: RunDirectory, path: Path) -> bool:
    """Whether a file of a run is there, and as run.json has it."""
    try:
        read_kept(run, path)
    except StoreError:
        return False
    return True


def read_history(run: RunDirectory) -> list[dict[str, float]]:
    """The rows of history.csv without what is not finite, each with an epoch; none for what is not trained by gradient.

    Raises Missing and StoreError.
    """
    try:
        text = read_kept(run, run.history, LARGEST_JSON).decode()
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(text.splitlines())]
    except (ValueError, TypeError, csv.Error) as error:
        raise StoreError(f"{run.history}: not a history: {error}") from error
    finite = [{name: value for name, value in row.items() if math.isfinite(value)} for row in rows]
    if not all("epoch" in row for row in finite):
        raise StoreError(f"{run.history}: not a history: wanted a number in the column 'epoch' of each row")
    return finite


def files_beside(run: RunDirectory) -> list[Path]:
    """What lies beside the weights and records of a run: its recipe, its history, pictures and views."""
    found = (run.encoder_json, run.history, *_visible(run.pictures), *_visible(run.views))
    return [path for path in found if os.path.lexists(path)]


def _visible(directory: Path) -> list[Path]:
    return sorted(path for path in directory.glob("*") if not path.name.startswith("."))


def name_in(run: RunDirectory, path: Path) -> str:
    """What run.json calls a file of its run."""
    return path.relative_to(run.path).as_posix()


# ---- how it is done ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _beside(path: Path, content: bytes) -> t.Iterator[Path]:
    """A private file with this content, synced, that the block gives its name; afterwards the name is synced too."""
    temporary = path.parent / _temporary_name()
    try:
        with writing(path):
            _make_directory(path.parent)
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
            temporary.unlink(missing_ok=True)
            _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _link(path: Path, content: bytes) -> bool:
    """Give this content the name if it is free; whether it was."""
    with _beside(path, content) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:  # perhaps our own: on NFS the answer to a link that worked can be lost
            return False
    return True


def _conflict(path: Path, content: bytes) -> Conflict:
    digest = hashlib.sha256(content).hexdigest()[:16]
    kept = path.parent / "conflicts" / f"{path.stem}-{digest}{path.suffix}"
    publish(kept, content)
    return Conflict(f"{path} was published before with different content; this one is kept as {kept}: compare them")


def set_aside(path: Path) -> None:
    """Keep a damaged file under corrupt/ beside it, out of the way of a whole one."""
    aside = path.parent / "corrupt" / f"{path.stem}-{secrets.token_hex(4)}{path.suffix}"
    with writing(aside):
        _make_directory(aside.parent)
        with contextlib.suppress(FileNotFoundError):  # somebody else was quicker
            path.rename(aside)


def _make_directory(directory: Path) -> None:
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for one in missing:
        _sync(one.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"disk full, {path} is not written: make room and run the same command again; what was finished is kept"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EOPNOTSUPP):
        needed = "an output directory must be writable and on a file system with hard links"
        return f"{path} is not written: {error.strerror}; {needed}: choose another one"
    return f"{path} is not written: {error.strerror or error}"


@functools.cache
def _here() -> str:
    """Where a process's number tells who it is: this host since it was started, and on it this container."""
    boot = namespace = ""
    with contextlib.suppress(OSError):  # of Linux only
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
        namespace = re.sub(r"\D", "", str(Path("/proc/self/ns/pid").readlink()))
    return f"{socket.gethostname()}-{boot}-{namespace}"


def _temporary_name() -> str:
    return f".frostbench-{_here()}-{os.getpid()}-{secrets.token_hex(4)}.tmp"


def _is_stray(path: Path) -> bool:
    name = _TEMPORARY.fullmatch(path.name)
    if not name:
        return False
    try:
        if time.time() - path.lstat().st_mtime > _FORGOTTEN:
            return True
        if name["host"] != _here():
            return False
        os.kill(int(name["process"]), 0)  # signal 0 only asks whether the process is there
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False  # gone already, or somebody else's process
    return False


def checked_path(path: Path) -> Path:
    """A path that files can lie below, and that can be written down. Raises StoreError."""
    try:
        size = len(str(path).encode())
    except UnicodeEncodeError as error:
        raise StoreError(f"{str(path)!r} is not UTF-8; wanted a path that can be written down: rename it") from error
    if size > LONGEST_PATH or any(len(part.encode()) > 255 for part in path.parts):
        raise StoreError(f"{path} is too long: wanted {LONGEST_PATH:,} bytes at most, 255 in each part")
    return path


def _component(name: str) -> str:
    """A name that is safe as one part of a path, and that says nothing special to `read_store`."""
    if not name or len(name.encode(errors="replace")) > 200:
        raise StoreError(f"{name!r} cannot be part of a path: wanted 1 to 200 bytes")
    if name.startswith(".") or not name.isprintable() or "/" in name or "\\" in name:
        raise StoreError(f"{name!r} cannot be part of a path: no '/', no '\\', no '.' in front, nothing unprintable")
    if name in ("conflicts", "corrupt", "wandb") or _RUN.fullmatch(name):
        raise StoreError(f"{name!r} cannot be part of a path: the store keeps other things under this name")
    return name


def _dump(value: Json, *, sort_keys: bool) -> bytes:
    try:
        text = json.dumps(value, sort_keys=sort_keys, indent=1, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise StoreError(f"this cannot be written as JSON: {error}") from error


def _record_to_bytes(path: Path, record: Record) -> bytes:
    """The fields in the record's own order, not sorted: the first metric is the one that tables show."""
    value = record.model_dump()  # not mode="json", which would quietly write None for NaN
    content = _dump(value | {"sha256": _digest(path, value)}, sort_keys=False)
    if len(content) > LARGEST_JSON:
        raise StoreError(f"{path}: a record may have {LARGEST_JSON} bytes; this one has {len(content)}")
    _check_meaning(path, record)
    return content


def _check_meaning(path: Path, record: Record) -> None:
    """What types do not say: its tap names a file, its predictions are the run's own, its metrics are fractions."""
    if record.tap is not None:
        try:
            _component(record.tap)
        except StoreError as error:
            raise StoreError(f"{path}: its tap {error}") from error
    if record.predictions is not None:
        predictions = PurePosixPath(record.predictions)
        if predictions.parts[:1] != ("predictions",) or ".." in predictions.parts or "\0" in record.predictions:
            wanted = "which are not its own: wanted a file below predictions/"
            raise StoreError(f"{path}: names the predictions {record.predictions!r}, {wanted}")
    for metric, value in record.metrics.items():
        if metric not in METRICS and not lowest(metric) <= value <= 1:
            raise StoreError(f"{path}: metrics are fractions in {lowest(metric):g}..1; {metric} is {value}")


def _digest(path: Path, value: dict[str, Json]) -> str:
    """SHA-256 over what a record says, not over how its lines are laid out."""
    try:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()
    except (TypeError, ValueError) as error:
        raise StoreError(f"{path}: not JSON: {error}") from error


def _read_json(path: Path) -> Json:
    content = read_bytes(path, LARGEST_JSON)
    if not content.strip(b"\0"):
        raise StoreError(f"{path}: empty, or only zeros: perhaps the machine went down while it was written")
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not JSON: {error}") from error


def _files(directory: Path, damaged: list[tuple[Path, str]]) -> t.Iterator[Path]:
    """Every suite.json, run.json and record below a directory; conflicts and what cannot be read go to `damaged`."""

    def unreadable(error: OSError) -> None:
        damaged.append((Path(error.filename), f"cannot be read: {error.strerror}"))

    for parent, directories, files in _walk(directory.absolute(), unreadable):
        above, here = parent.split("/")[-2:]
        is_run = _RUN.fullmatch(here) is not None
        unread = ("corrupt", "predictions", "features", "checkpoint", "pictures", "views") if is_run else ("corrupt",)
        directories[:] = [name for name in directories if name not in unread and not name.startswith(".")]
        if not is_run and not _IN_RUN.search(parent):
            yield from (Path(parent, name) for name in files if name == "suite.json")
            continue
        for name in [*files, *(name for name in directories if name.endswith(".json"))]:  # a directory there is damage
            if name.startswith("."):
                continue
            if (above == "scores" and name.endswith(".json")) or (is_run and name in ("run.json", "failed.json")):
                yield Path(parent, name)
            elif here == "conflicts":
                problem = "another content was published first under this name; not used: compare the two"
                damaged.append((Path(parent, name), problem))


def _walk(
    directory: Path, unreadable: t.Callable[[OSError], object] | None = None
) -> t.Iterator[tuple[str, list[str], list[str]]]:
    """Like os.walk, through links to directories too, but through each directory once and its own name first."""
    waiting, seen = [str(directory)], set()
    while waiting:
        for parent, directories, files in os.walk(waiting.pop(0), onerror=unreadable):
            here = os.stat(parent)  # noqa: PTH116 - making a Path takes longer than asking
            if (here.st_dev, here.st_ino) in seen:
                directories.clear()
                continue
            seen.add((here.st_dev, here.st_ino))
            yield parent, directories, files
            waiting += [path for name in directories if os.path.islink(path := f"{parent}/{name}")]  # noqa: PTH114


def _identity(record: Record) -> tuple[str | int, ...]:
    """What a record is about. Its numbers should follow from this, so it is also the order of a store's records."""
    run = (record.dataset, record.label, record.seed, record.key, record.status)
    judged = (record.tap or "", record.protocol_label or "", record.protocol_version or 0, record.protocol_code)
    return *run, *judged, json.dumps(record.protocol_params, sort_keys=True)


def _rival(record: Record, same: t.Iterable[tuple[Path, Record]]) -> Path | None:
    """Where a record of the same thing lies that was made alike and has other numbers: the newest such."""
    alike = (path for path, other in same if _made_alike(record, other) and not _same_numbers(record, other))
    return next(alike, None)


def _made_alike(one: Record, other: Record) -> bool:
    """Whether bits must be equal."""
    made = {"device", "threads", "ranks", "precision", "versions", "resumed_elsewhere"}
    solvers = [record.details.get("solver", 1) for record in (one, other)]
    return solvers[0] == solvers[1] and (
        one.provenance.model_dump(include=made) == other.provenance.model_dump(include=made)
    )


def _same_numbers(one: Record, other: Record) -> bool:
    """Equal as JSON, apart from when, where and in which suite they were made, how long that took, alarms and digests.

    An alarm is no number of the run's: older records have none, and thresholds may change. Nor have they digests,
    counts of updates, the revision of a solver, or every metric that a protocol reports by now.
    """
    circumstances = ("suite", "seconds", "provenance", "alarms", "updates", "predictions_sha256", "metrics")
    left_out: dict[str, t.Any] = {**dict.fromkeys(circumstances, True), "details": {"solver"}}
    told = [json.dumps(record.model_dump(exclude=left_out), sort_keys=True) for record in (one, other)]
    shared = one.metrics.keys() & other.metrics.keys()
    return told[0] == told[1] and all(one.metrics[name] == other.metrics[name] for name in shared)
