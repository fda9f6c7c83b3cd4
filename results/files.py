"""Files that are there whole or not at all, whoever is killed and whoever else writes.

Content goes to a private file in the same directory, is synced, and is then linked to its name (published once) or
moved there (replaced). No locks.
"""

import contextlib
import errno
import fcntl
import functools
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import socket
import stat
import time
import typing as t
from pathlib import Path

from results.record import Json

MIN_FREE_BYTES = 64 * 2**20  # bytes that must be free before a run starts: its weights, features and scores
MAX_JSON_BYTES = 16 * 2**20  # bytes; a record has a few thousand
MAX_BYTES = 16 * 2**30  # bytes of any file of a run: weights of 4 billion numbers
MAX_PATH_BYTES = 4096 - 1024  # bytes of a run's directory: Linux takes 4,096 in all, macOS less
_TEMPORARY = re.compile(r"\.frostbench-(?P<host>.+)-(?P<process>\d{1,9})-[0-9a-f]{8}\.tmp")
_FORGOTTEN = 24 * 3600  # seconds; no write takes a day, so an older temporary file is stray whatever machine made it


class StoreError(Exception):
    """A file that cannot be written, read or trusted; the message names it and says why."""

    exit_code = 2

    def __init__(self, problem: str, path: Path | None = None) -> None:
        super().__init__(problem if path is None else f"{path}: {problem}")
        self.problem, self.path = problem, path


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
    if not link(path, content) and read_bytes(path) != content:
        raise conflict(path, content)


def replace(path: Path, content: bytes) -> None:
    """Write a file that may be made again: whoever reads finds the old content or the new, whole.

    Raises StoreError if it cannot be written; the old content is then still there.
    """
    with _beside(path, content) as temporary:
        temporary.replace(path)


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
    return to_json(value, sort_keys=True)


def to_json(value: Json, *, sort_keys: bool) -> bytes:
    try:
        text = json.dumps(value, sort_keys=sort_keys, indent=1, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise StoreError(f"this cannot be written as JSON: {error}") from error


def check_writable(directory: Path) -> None:
    """Try, before any work is done, what publishing will need. Raises StoreError if it cannot be had."""
    with token(directory):
        pass
    free = shutil.disk_usage(directory).free
    if free < MIN_FREE_BYTES:
        wanted = f"a run needs {MIN_FREE_BYTES // 2**20} MiB for its weights, features and scores"
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
        make_directory(directory)
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


def link(path: Path, content: bytes) -> bool:
    """Give this content the name if it is free; whether it was."""
    with _beside(path, content) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:  # perhaps our own: on NFS the answer to a link that worked can be lost
            return False
    return True


def conflict(path: Path, content: bytes) -> Conflict:
    digest = hashlib.sha256(content).hexdigest()[:16]
    kept = path.parent / "conflicts" / f"{path.stem}-{digest}{path.suffix}"
    publish(kept, content)
    return Conflict(f"{path} was published before with different content; this one is kept as {kept}: compare them")


def set_aside(path: Path) -> None:
    """Keep a damaged file under corrupt/ beside it, out of the way of a whole one."""
    aside = path.parent / "corrupt" / f"{path.stem}-{secrets.token_hex(4)}{path.suffix}"
    with writing(aside):
        make_directory(aside.parent)
        with contextlib.suppress(FileNotFoundError):  # somebody else was quicker
            path.rename(aside)


# ---- reading ----------------------------------------------------------------------------------------------------


def open_file(path: Path, max_bytes: int = MAX_BYTES) -> io.BufferedReader:
    """A regular file of at most `max_bytes`, open for reading. Raises Missing, or StoreError for any other kind."""
    return os.fdopen(_opened(path, max_bytes)[0], "rb")


def _opened(path: Path, max_bytes: int) -> tuple[int, int]:
    """A descriptor of the same, and the size of the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would wait for its writer
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Missing("there is no such file", path) from error
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot be read: {getattr(error, 'strerror', None) or error}", path) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise StoreError("not a regular file", path)
    if status.st_size > max_bytes:
        os.close(descriptor)
        raise StoreError(f"larger than {max_bytes:,} bytes, which no such file of ours is", path)
    return descriptor, status.st_size


def read_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """What a regular file of at most `max_bytes` bytes holds. Raises Missing and StoreError."""
    descriptor, size = _opened(path, max_bytes)
    parts: list[bytes] = []  # without a file object, which asks the system twice as much
    try:
        while size > 0 and (part := os.read(descriptor, size)):
            parts.append(part)
            size -= len(part)
    except OSError as error:
        raise StoreError(f"cannot be read: {error.strerror or error}", path) from error
    finally:
        os.close(descriptor)
    return b"".join(parts)


def read_json(path: Path) -> Json:
    content = read_bytes(path, MAX_JSON_BYTES)
    if not content.strip(b"\0"):
        raise StoreError("empty, or only zeros: perhaps the machine went down while it was written", path)
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise StoreError(f"not JSON: {error}", path) from error


def file_digest(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """SHA-256 of a regular file, read a piece at a time. Raises Missing and StoreError."""
    with open_file(path, max_bytes) as file:
        try:
            return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise StoreError(f"cannot be read: {error.strerror or error}", path) from error


def checked_path(path: Path) -> Path:
    """A path that files can lie below, and that can be written down. Raises StoreError."""
    try:
        size = len(str(path).encode())
    except UnicodeEncodeError as error:
        raise StoreError(f"{str(path)!r} is not UTF-8; wanted a path that can be written down: rename it") from error
    if size > MAX_PATH_BYTES or any(len(part.encode()) > 255 for part in path.parts):
        raise StoreError(f"{path} is too long: wanted {MAX_PATH_BYTES:,} bytes at most, 255 in each part")
    return path


# ---- how it is done ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _beside(path: Path, content: bytes) -> t.Iterator[Path]:
    """A private file with this content, synced, that the block gives its name; afterwards the name is synced too."""
    temporary = path.parent / _temporary_name()
    try:
        with writing(path):
            make_directory(path.parent)
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
            temporary.unlink(missing_ok=True)
            sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def make_directory(directory: Path) -> None:
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for one in missing:
        sync(one.parent)


def sync(directory: Path) -> None:
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
