"""Records to Weights & Biases: a copy made from the files of a suite's directory, never the other way round.

One wandb run for each of ours (config, history, scores) and one that holds the leaderboard and every record. What was
sent is noted in `<suite directory>/wandb/ledger/`, so the next call sends only what is new; a server that already has a
run is believed, and its history goes on where it ends there. wandb runs in a process of its own with a time limit:
whatever it does (prompt, hang, raise), the suite loses at most that time. wandb/ can be deleted at any time.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import http.client
import json
import math
import os
import re
import select
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from results import curves, files, layout, store
from results.layout import RunDirectory
from results.metrics import interval
from results.record import Json, Record, dataset_label

MAX_CLASSES = 50  # of a confusion matrix that can still be read
LIMIT = 30.0  # seconds that a suite gives to wandb at once
LIVE_SECONDS = 60.0  # between two looks at the histories of runs that are being made
ENDING = 1.0  # seconds kept of the time limit for ending the processes
DESCRIBES_RUN = (  # what a run.json and the records of a run have in common
    *("suite", "key", "dataset", "split", "limit", "fingerprint", "train_images", "test_images"),
    *("encoder", "label", "params", "encoder_version", "is_control", "seed"),
)
COLUMNS = (  # of the leaderboard's rows: text, or numbers that wandb can sort by
    *("dataset", "encoder", "tap", "protocol", "metric", "mean", "low", "high", "rank_low", "rank_high", "tie"),
    *("untrained", "over_untrained", "over_untrained_low", "over_untrained_high", "over_untrained_p"),
    *("difference", "difference_low", "difference_high", "seeds", "of_seeds", "control"),
    *("labels", "dimensions", "fit_seconds", "device", "precision", "commit", "status", "error"),
)
Mode = t.Literal["off", "offline", "online"]
INHERITED = ("WANDB_API_KEY", "WANDB_BASE_URL")  # any other WANDB_ variable could make our runs somebody else's


MODES_UPWARD: tuple[Mode, ...] = ("off", "offline", "online")  # the least that is sent first
MODES: dict[str, Mode] = {  # what WANDB_MODE can say
    **{"online": "online", "run": "online", "shared": "online"},
    **{"offline": "offline", "dryrun": "offline", "disabled": "off"},
}


@dataclass(frozen=True)
class WandbTarget:
    """Where the copy goes. Without an entity it is the account's own."""

    mode: Mode
    project: str = "frostbench"
    entity: str | None = None
    tags: tuple[str, ...] = ()
    directory: str | None = None  # that gets `wandb/` with the files of offline runs; None: the suite's own


@dataclass(frozen=True)
class MirrorReport:
    """How many wandb runs were sent now and before, and what the user should know, in one sentence."""

    sent: int
    already: int
    problem: str | None


@dataclass(frozen=True)
class WandbRun:
    """One run as wandb is to show it: plain data, a pure function of the records."""

    id: str
    name: str
    group: str
    job_type: t.Literal["run", "leaderboard"]
    tags: tuple[str, ...]
    config: dict[str, Json]
    summary: dict[str, Json]
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)  # a row an epoch
    table: list[dict[str, Json]] = dataclasses.field(default_factory=list)  # rows of the leaderboard
    records: list[dict[str, Json]] = dataclasses.field(default_factory=list)
    predictions: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)  # column, file, its SHA-256
    pictures: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)  # kind, file, its SHA-256
    classes: list[str] = dataclasses.field(default_factory=list)  # names, as far as the run left them

    @property
    def content(self) -> str:
        """SHA-256 over everything it says. Raises StoreError for NaN and infinity, which are never sent."""
        fields = dataclasses.asdict(self)
        for kind in ("predictions", "pictures"):
            fields[kind] = [(name, digest) for name, _, digest in getattr(self, kind)]
        return hashlib.sha256(files.canonical(fields)).hexdigest()


def target(
    asked: t.Mapping[str, Json], environment: t.Mapping[str, str] = os.environ
) -> tuple[WandbTarget, dict[str, str]]:
    """Where the copy goes, and of mode, project, entity, tags and directory which variable says so, if one does.

    `asked` is what a suite says, None or nothing where it leaves it open. A WANDB_MODE that sends nothing wins over the
    suite; all else fills what is open. Raises ValueError for a variable that wandb would not take.
    """
    variables = {
        name: environment.get(f"WANDB_{name.upper()}", "").strip() for name in ("mode", "project", "entity", "dir")
    }
    tags = tuple(tag[:64] for tag in map(str.strip, environment.get("WANDB_TAGS", "").split(",")) if tag)
    if variables["mode"] and variables["mode"] not in MODES:
        raise ValueError(f"WANDB_MODE: wanted online, offline or disabled, got {variables['mode']!r}")
    for name in ("project", "entity"):
        try:
            checked_name(variables[name] or "-")
        except ValueError as error:
            raise ValueError(f"WANDB_{name.upper()}: {error}") from None
    says: dict[str, t.Any] = variables | {"mode": MODES.get(variables["mode"]), "tags": tags}
    holds = {name: asked.get(name) for name in ("mode", "project", "entity", "tags")}
    by = {name: f"WANDB_{name.upper()}" for name in holds if holds[name] is None and says[name]}
    if (
        holds["mode"] is not None
        and says["mode"]
        and MODES_UPWARD.index(says["mode"]) < MODES_UPWARD.index(holds["mode"])
    ):
        by["mode"] = "WANDB_MODE"
    holds |= {name: says[name] for name in by}
    by |= {"directory": "WANDB_DIR"} if variables["dir"] else {}
    found = WandbTarget(
        holds["mode"] or "offline",
        holds["project"] or "frostbench",
        holds["entity"],
        tuple(holds["tags"] or ()),
        str(Path(variables["dir"]).absolute()) if variables["dir"] else None,
    )
    return found, by


def checked_name(name: str) -> str:
    """Raises ValueError for a project or an entity that wandb would refuse."""
    if not 0 < len(name) <= 128 or not name.isprintable() or set(name) & set("/\\#?%:"):
        raise ValueError(f"wanted a name of at most 128 characters, none of them / \\ # ? % :, got {name!r}")
    return name


def mirror(
    directory: Path,
    target: WandbTarget,
    timeout: float = LIMIT,
    told: t.Collection[Path] = (),
    contents: store.Contents | None = None,
) -> MirrorReport:
    """Send what this target has not seen of a suite's directory. Never raises, never asks, ends in `timeout` seconds.

    Offline, wandb's files are written to `<directory>/wandb/offline-run-*`, where the target has no other directory.
    told: damaged files of which the user knows already. contents: what `read_store` has read of the directory.
    """
    if target.mode == "off":
        return MirrorReport(0, 0, None)
    again = f"`frostbench sync {directory}` sends what is missing" if target.mode == "online" else "run the suite again"
    try:
        report = _mirror(directory, target, time.monotonic() + timeout, told, contents)
    except files.StoreError as error:
        report = MirrorReport(0, 0, str(error))
    except Exception as error:  # a mirror that breaks must not break what it shows
        report = MirrorReport(0, 0, f"{type(error).__name__}: {error}")
    if report.problem is None:
        return report
    return dataclasses.replace(report, problem=f"wandb: {report.problem}; no result is lost: {again}")


def sync(directory: Path, target: WandbTarget, timeout: float = 600.0) -> MirrorReport:
    """Send what the online target has not seen, whatever the suite's mode is; otherwise like `mirror`."""
    return mirror(directory, dataclasses.replace(target, mode="online"), timeout)


class Live:
    """Sends the histories of a suite's runs as they grow, from a process of its own. Use it as a context manager.

    runs: what a run.json says of each, as far as it is known, and its directory. Whatever wandb does, leaving the block
    takes a few seconds; what it did not get, `mirror` sends when the suite has ended.
    """

    def __init__(
        self,
        directory: Path,
        target: WandbTarget,
        runs: t.Sequence[tuple[dict[str, Json], layout.RunDirectory]],
        seconds: float = LIVE_SECONDS,
    ) -> None:
        self.directory, self.target, self.runs, self.seconds = directory, target, runs, seconds
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> t.Self:
        if self.target.mode == "online":
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        if self.thread.is_alive():
            self.thread.join(5 * ENDING)

    def _look(self) -> None:
        while not self.stop.wait(self.seconds):
            with contextlib.suppress(Exception):  # of which `mirror` will speak
                growing = [
                    _growing(run, place, self.target)
                    for run, place in self.runs
                    if place.history.exists() and not place.run_json.exists()
                ]
                _send_due(self.directory, self.target, growing, time.monotonic() + LIMIT, self.stop)


def _growing(run: dict[str, Json], place: RunDirectory, target: WandbTarget) -> WandbRun:
    return WandbRun(
        id=_id(run, target),
        name=f"{run['label']}-{_dataset(run)}-seed{run['seed']}",
        group=run["suite"],
        job_type="run",
        tags=_tags(target, run["dataset"], run["encoder"]),
        config=run,
        summary={"status": "running"},
        history=store.read_history(place),
    )


# ---- from records to wandb runs ---------------------------------------------------------------------------------


def wandb_runs(
    directory: Path,
    target: WandbTarget,
    damaged: list[files.StoreError] | None = None,
    deadline: float = math.inf,
    contents: store.Contents | None = None,
) -> list[WandbRun]:
    """The leaderboard first, then every run of a suite's directory. A directory without records has none.

    damaged: gets the error of each file that is left out for being damaged. Raises StoreError at the deadline.
    """
    contents = contents or store.read_store(directory)
    if not contents.records:
        return []
    fitted = {_identity(run): run for run in contents.runs if run.keys() >= {*DESCRIBES_RUN, "provenance"}}
    places: dict[str, list[RunDirectory]] = {}
    for place in layout.runs_below(directory):
        places.setdefault(f"{place.path.parents[1].name}/{place.path.name}", []).append(place)
    judged: dict[tuple[Json, ...], list[Record]] = {}
    for record in contents.records:
        judged.setdefault(_identity(dict(record)), []).append(record)
    runs = []
    for identity, records in judged.items():
        if time.monotonic() > deadline:
            raise files.StoreError("the time was up while the results were read")
        one = records[0]
        here = places.get(f"{one.label}/seed{one.seed}-{one.key}", [])
        runs.append(_run(here, fitted.get(identity), records, target, [] if damaged is None else damaged))
    return [_leaderboard(contents, target), *runs]


def _identity(run: dict[str, Json]) -> tuple[Json, ...]:
    """What tells one run from another, of a run.json or of a record."""
    return tuple(run[name] for name in ("suite", "label", "dataset", "limit", "split", "seed", "key"))


def _run(
    places: list[RunDirectory],
    fitted: dict[str, Json] | None,
    records: list[Record],
    target: WandbTarget,
    damaged: list[files.StoreError],
) -> WandbRun:
    first = records[0]
    about = fitted or first.model_dump(mode="json")
    dataset = _dataset(dict(first))
    failed = next((record for record in records if record.status == "failed"), None)
    summary: dict[str, Json] = {"status": "failed" if failed else "done", "error": failed and failed.error}
    for record in sorted(records, key=lambda record: record.provenance.started):  # of a changed protocol, the newest
        summary |= {f"seconds/{stage}": seconds for stage, seconds in record.seconds.items() if stage != "score"}
        if record.status == "done":
            judged = f"{dataset}/{record.tap}/{record.protocol_label}@{record.protocol_version}"
            summary |= {f"{judged}/{metric}": value for metric, value in record.metrics.items()}
            summary |= {f"{judged}/seconds": record.seconds["score"]}
    return WandbRun(
        id=_id(about, target),
        name=f"{first.label}-{dataset}-seed{first.seed}",
        group=first.suite,
        job_type="run",
        tags=_tags(target, about["dataset"], about["encoder"], *["control"] * about["is_control"]),
        config={name: about[name] for name in DESCRIBES_RUN}
        | {"taps": about.get("taps"), "labels": first.labels, "pretrain": first.pretrain}
        | about["provenance"],
        summary=summary,
        history=[*_history(places, damaged), *(row for place in places[:1] for row in curves.rows(place))]
        if fitted
        else [],
        predictions=_predictions(places, records, damaged),
        pictures=[
            (path.stem, str(path.absolute()), files.file_digest(path))
            for place in places[:1]
            for path in sorted(place.pictures.glob("*.png"))
            if store.is_kept(place, path)
        ],
        classes=_classes(places),
    )


def _id(run: dict[str, Json], target: WandbTarget) -> str:
    return f"{run['key']}-{_digest([*_identity(run), target.entity, target.project])}"


def _leaderboard(contents: store.Contents, target: WandbTarget) -> WandbRun:
    from results import leaderboard  # noqa: PLC0415  # it brings scipy, which the sending process can spare

    records = contents.records
    suites = "-".join(sorted({record.suite for record in records}))
    return WandbRun(
        id=f"leaderboard-{_digest([suites, target.entity, target.project])}",
        name=f"leaderboard-{suites}",
        group=suites,
        job_type="leaderboard",
        tags=_tags(target),
        config={"suite": suites},
        summary={"records": len(records)},
        table=[{name: row[name] for name in COLUMNS} for row in (row.plain() for row in leaderboard.of(contents).rows)],
        records=[record.model_dump(mode="json") for record in records],
    )


def _tags(target: WandbTarget, *own: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*target.tags, *(tag[:64] for tag in own)]))  # wandb takes no longer ones


def _dataset(run: dict[str, Json]) -> str:
    limit, split, pretrain, size, mode = (run.get(name) for name in ("limit", "split", "pretrain", "size", "mode"))
    return dataset_label(str(run["dataset"]), limit, str(split), pretrain, size, mode)


def _classes(places: list[RunDirectory]) -> list[str]:
    """The names of the classes; none of a view that is damaged, which is the report's to say."""
    from results.arrays import read_view  # noqa: PLC0415 - only where there is something to send

    for place in places:
        for view in place.views.glob("*.npz"):
            with contextlib.suppress(files.StoreError, KeyError):
                return [str(name) for name in read_view(place, view)["classes"].tolist()]
    return []


def _history(places: list[RunDirectory], damaged: list[files.StoreError]) -> list[dict[str, float]]:
    """The rows of history.csv, without what is not finite. Encoders that are not trained by gradient have none."""
    for place in places:
        try:
            return store.read_history(place)
        except files.Missing:
            continue
        except files.StoreError as error:
            damaged.append(error)
    return []


def _predictions(
    places: list[RunDirectory], records: list[Record], damaged: list[files.StoreError]
) -> list[tuple[str, str, str]]:
    """What each record says of every image: the column it becomes, the file it is in, and that file's SHA-256."""
    from results import predictions  # noqa: PLC0415 - it brings numpy, which the sending process can spare

    found = {}
    for record in records:
        for place in places if record.predictions else []:
            path = (place.path / str(record.predictions)).absolute()
            try:
                predictions.beside(
                    record, place.path.absolute()
                )  # the process that sends them will be able to read them
                column = f"{record.tap}/{record.protocol_label}@{record.protocol_version}"
                found[column] = str(path), files.file_digest(path, predictions.MAX_SHOWN_BYTES)
            except files.Missing:
                continue
            except files.StoreError as error:
                damaged.append(error)
    return [(column, *found[column]) for column in sorted(found)]


def _digest(value: Json) -> str:
    return hashlib.sha256(files.canonical(value)).hexdigest()[:8]


# ---- what is due, and the process that sends it -----------------------------------------------------------------


def _mirror(
    directory: Path, target: WandbTarget, deadline: float, told: t.Collection[Path], contents: store.Contents | None
) -> MirrorReport:
    damaged: list[files.StoreError] = []
    runs = wandb_runs(directory, target, damaged, deadline, contents)
    new = [str(error) for error in damaged if error.path not in told]
    if not runs:
        return MirrorReport(0, 0, None)
    due, said = _send_due(directory, target, runs, deadline)
    if due is None:
        return MirrorReport(0, 0, "another process is sending the same results")
    sent, known = said.count("sent"), said.count("known")
    problem = f"left out, being damaged: {'; '.join(new)}" if new else None
    if sent + known < len(due):
        why = next(line.removeprefix("problem ") for line in said if line.startswith("problem "))
        problem = f"{why} ({sent + known} of {len(due)} runs sent)"
    return MirrorReport(sent, len(runs) - len(due) + known, problem)


def _send_due(
    directory: Path, target: WandbTarget, runs: list[WandbRun], deadline: float, stop: threading.Event | None = None
) -> tuple[list[WandbRun] | None, list[str]]:
    """What of some runs the target has not seen, and what the process that sends it said; None while another does."""
    home = directory.absolute() / "wandb"
    home.mkdir(exist_ok=True)
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None, []
        folder = Path(target.directory or directory.absolute()) / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        for killed in home.glob(".sending-*"):
            shutil.rmtree(killed, ignore_errors=True)
        due = [run for run in runs if _sent(home, target, run.id).get("content") != run.content]
        said = _send_apart(home, folder, target, due, deadline, lock.fileno(), stop) if due else []
    return due, said


def _sent(home: Path, target: WandbTarget, run: str) -> dict[str, Json]:
    """The ledger's entry: the content that was sent last, and how many rows of history. Empty if there is none."""
    try:
        entry = json.loads(files.read_bytes(_ledger(home, target, run), files.MAX_JSON_BYTES))
    except (files.StoreError, ValueError):
        return {}
    return entry if isinstance(entry, dict) and entry.get("server") == _server(target) else {}


def _ledger(home: Path, target: WandbTarget, run: str) -> Path:
    place = urllib.parse.quote(f"{target.mode}-{target.entity or 'default'}-{target.project}", safe="")
    return home / "ledger" / place / f"{run}.json"


def _server(target: WandbTarget) -> str | None:
    """Whose ledger it is: what one server has, another has not. Its name and password are not kept."""
    address = os.environ.get("WANDB_BASE_URL") if target.mode == "online" else None
    return address and re.sub(r"(?<=://)[^/]*@", "", address)


def _send_apart(
    home: Path,
    folder: Path,
    target: WandbTarget,
    due: list[WandbRun],
    deadline: float,
    lock: int,
    stop: threading.Event | None,
) -> list[str]:
    """Have a process of its own send what is due; returns what it said, a line a run, then why there is no more."""
    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix=".sending-", dir=home, ignore_cleanup_errors=True)
        work = Path(stack.enter_context(temporary))
        limit = max(0.0, deadline - time.monotonic() - ENDING)
        alive, held = os.pipe()
        stack.callback(os.close, held)
        job = {
            "home": str(home),
            "folder": str(folder),
            "work": str(work),
            "limit": limit,
            "target": dataclasses.asdict(target),
            "alive": alive,
        }
        job["runs"] = [dataclasses.asdict(run) for run in due]
        (work / "job.json").write_bytes(files.canonical(job))
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "results.wandb_mirror"],
            stdin=stack.enter_context((work / "job.json").open()),
            stdout=stack.enter_context((work / "said").open("w")),
            stderr=subprocess.DEVNULL,
            env=_environment(folder, work, target),
            cwd=work,
            start_new_session=True,  # no terminal to ask on, and a group to kill by its id
            pass_fds=[lock, alive],  # the lock is held until this process has ended too
        )
        os.close(alive)
        ending = "problem the process that sends it broke down"
        try:
            _wait(process, limit, stop)
        except subprocess.TimeoutExpired:
            ending = "problem the time was up"
        finally:
            _end(process)
        return [*(work / "said").read_text().splitlines(), ending]


def _wait(process: subprocess.Popen[bytes], limit: float, stop: threading.Event | None) -> None:
    """Until it ends, or is to stop. Raises TimeoutExpired."""
    if stop is None:
        process.wait(limit)
        return
    end = time.monotonic() + limit
    while process.poll() is None and not stop.wait(0.1):
        if time.monotonic() > end:
            raise subprocess.TimeoutExpired(process.args, limit)


def _environment(folder: Path, work: Path, target: WandbTarget) -> dict[str, str]:
    """Ours, so that proxies and certificates hold, without what would turn wandb's head."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_") or name in INHERITED}
    return plain | {
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),  # it finds the modules that we find
        "TMPDIR": str(work),
        "WANDB_CACHE_DIR": str(work / "cache"),
        "WANDB_DATA_DIR": str(work if target.mode == "online" else folder),  # artifacts wait there for `wandb sync`
        "WANDB_ERROR_REPORTING": "false",  # or its service goes on reporting for 10 s after a failure
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process; its service sees that and ends after removing its socket, or is killed after a while."""
    process.kill()
    process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):  # the group has ended; macOS says it the second way
        for _ in range(10):
            os.killpg(process.pid, 0)
            time.sleep(ENDING / 20)
        os.killpg(process.pid, signal.SIGKILL)


# ---- inside that process ----------------------------------------------------------------------------------------


class _UnsentError(Exception):
    """A reason why wandb did not get something, for the user."""


class _InOurGroup(subprocess.Popen[t.Any]):
    """wandb gives its service a session of its own; here it stays in the group that is killed."""

    def __init__(self, *args: t.Any, **options: t.Any) -> None:
        super().__init__(*args, **options | {"start_new_session": False})


def _send_all(job: dict[str, Json]) -> None:
    """Send the runs one after the other, saying of each how it went."""
    _guard(Path(job["work"]), job["alive"])
    signal.alarm(math.ceil(job["limit"]) + 1)  # should nobody be left to end us
    target, (home, folder, work) = (
        WandbTarget(**job["target"]),
        (Path(job[name]) for name in ("home", "folder", "work")),
    )
    try:
        import wandb  # noqa: PLC0415

        subprocess.Popen = _InOurGroup  # type: ignore[misc]
        if target.mode == "online":
            _check_server(wandb)
        for run in [WandbRun(**run) for run in job["runs"]]:
            if target.mode == "online" and _holds(wandb, target, run):
                said = "known"
            else:
                _send(wandb, home, folder, work, target, run)
                said = "sent"
            entry = {"content": run.content, "rows": len(run.history), "server": _server(target)}
            files.replace(_ledger(home, target, run.id), files.canonical(entry))
            _say(said)
        wandb.teardown()
    except ModuleNotFoundError as error:
        _say(f"problem no module {error.name}: pip install wandb")
    except Exception as error:
        kind = "" if isinstance(error, _UnsentError) else f"{type(error).__name__}: "
        _say("problem " + (kind + str(error)).partition("\n")[0].rstrip(". "))
    os._exit(0)  # wandb's own ending can wait for the network


def _guard(work: Path, alive: int) -> None:
    """Leave a process that outlives us and the suite: if this is killed it ends all that we started, and cleans up.

    alive: a pipe that ends with the suite.
    """
    sender = os.getpid()
    if os.fork():
        return
    os.setsid()
    os.dup2(alive, 0)
    os.closerange(1, 256)  # the lock above all
    gone: list[int] = []
    while os.getppid() == sender and not gone:
        gone, _, _ = select.select([0], [], [], ENDING / 10)
    if gone or select.select([0], [], [], 0)[0]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(sender, signal.SIGKILL)
        shutil.rmtree(work, ignore_errors=True)
    os._exit(0)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _check_server(wandb: t.Any) -> None:
    """A server that answers within 3 s, and a key for it, before wandb starts to wait for either."""
    address = wandb.setup().settings.base_url
    try:
        urllib.request.urlopen(address, timeout=3).close()  # noqa: S310  # the user's own WANDB_BASE_URL
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise _UnsentError(f"{address} answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if not isinstance(reason, ssl.SSLError):  # it is there, and wandb knows more certificates than some Pythons
            raise _UnsentError(f"no answer from {address} ({reason})") from error
    if not wandb.login(prompt=False):
        raise _UnsentError(f"no API key for {address}: type `wandb login` or set WANDB_API_KEY")


def _holds(wandb: t.Any, target: WandbTarget, run: WandbRun) -> bool:
    """Whether the server says that it has all of a run."""
    path = "/".join(filter(None, (target.entity, target.project, run.id)))
    try:
        there = wandb.Api(timeout=10).run(path)
    except (ValueError, wandb.Error):
        return False
    return bool(there.summary_metrics.get("content") == run.content and there.historyLineCount >= len(run.history))


def _send(wandb: t.Any, home: Path, folder: Path, work: Path, target: WandbTarget, run: WandbRun) -> None:
    """Make or update one wandb run. Raises _UnsentError if the server does not confirm it."""
    started = wandb.init(
        id=run.id,
        name=run.name,
        group=run.group,
        job_type=run.job_type,
        project=target.project,
        entity=target.entity,
        tags=run.tags,
        mode=target.mode,
        resume="allow",
        dir=work,
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
            init_timeout=15,
            finish_timeout=30,
            finish_timeout_raises=True,
        ),
    )
    started.config.update(run.config, allow_val_change=True)  # given to init, what a resumed run had would stay
    started.define_metric("epoch")
    started.define_metric("*", step_metric="epoch")
    before = _sent(home, target, run.id)
    first = started.starting_step if target.mode == "online" else before.get("rows", 0)
    for step in range(first, len(run.history)):
        started.log(run.history[step], step=step)
    if run.table:
        data = [[row[name] for name in COLUMNS] for row in run.table]
        shown = {"leaderboard": wandb.Table(columns=list(COLUMNS), data=data)}
        for title, bars in _bars(run.table).items():
            table = wandb.Table(columns=["row", "mean", "low", "high"], data=bars)
            shown[f"bars/{title}"] = wandb.plot.bar(table, "row", "mean", title=title)
        started.log(shown)
    if run.records:
        artifact = wandb.Artifact(f"records-{run.group}", type="records")
        with artifact.new_file("records.jsonl") as file:
            file.writelines(json.dumps(record) + "\n" for record in run.records)
        started.log_artifact(artifact)
        if target.mode == "online":
            artifact.wait(timeout=30)
    shown = {f"pictures/{kind}": wandb.Image(path) for kind, path, _ in run.pictures}
    shown |= {f"mistakes/{column}": chart for column, chart in _mistakes(wandb, run)}
    if shown:
        started.log(shown)
    if run.predictions:
        artifact = wandb.Artifact(f"predictions-{run.id}", type="predictions")
        artifact.add_file(str(_prediction_table(work, run)))
        started.log_artifact(artifact)
        if target.mode == "online":
            artifact.wait(timeout=30)
    started.summary.update(run.summary | {"content": run.content})  # last: where it is, the rest is too
    started.finish()
    if target.mode == "online":
        _confirm(wandb, target, run)
    else:
        _keep(folder, work, run, anew=not before)


def _bars(rows: list[dict[str, Json]]) -> dict[str, list[list[Json]]]:
    """[row with its interval, mean, low, high] by dataset and protocol, the best first, as the leaderboard has them."""
    bars: dict[str, list[list[Json]]] = {}
    for row in rows:
        if row["mean"] is not None:
            title = f"{row['dataset']}, {row['protocol']}, {row['metric']}"
            name, ends = f"{row['encoder']}/{row['tap']}", (row["low"], row["high"])
            if None not in ends:
                name += f" {interval(row['mean'], *ends, row['metric'])}"
            bars.setdefault(title, []).append([name, row["mean"], *ends])
    return bars


def _mistakes(wandb: t.Any, run: WandbRun) -> t.Iterator[tuple[str, t.Any]]:
    """A confusion matrix for each column of predictions, where there are few enough classes to be seen."""
    from results import predictions  # noqa: PLC0415 - only where there is something to send

    for column, path, _ in run.predictions:
        classes = predictions.read(Path(path))
        true, predicted = classes["label"], classes["predicted"]
        count = 1 + max(true.max(), predicted.max(), len(run.classes) - 1)
        if true.shape == predicted.shape and count <= MAX_CLASSES:
            names = [*run.classes, *map(str, range(len(run.classes), count))]
            yield (
                column,
                wandb.plot.confusion_matrix(
                    y_true=true.tolist(), preds=predicted.tolist(), class_names=names, title=column
                ),
            )


def _prediction_table(work: Path, run: WandbRun) -> Path:
    """A Parquet file: the row of each test image in the dataset's canonical order, its class, a prediction a column."""
    import numpy as np  # noqa: PLC0415 - only where there is something to send
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    from results import predictions  # noqa: PLC0415

    columns: dict[str, t.Any] = {}
    for column, path, _ in run.predictions:
        classes = predictions.read(Path(path))
        columns = columns or {"row": np.arange(len(classes["label"])), "label": classes["label"]}
        columns[column] = classes["predicted"]
    place = work / run.id / "predictions.parquet"
    place.parent.mkdir()
    pq.write_table(pa.table(columns), place)
    return place


def _confirm(wandb: t.Any, target: WandbTarget, run: WandbRun) -> None:
    for _ in range(10):  # a server may take a moment to show what it has
        if _holds(wandb, target, run):
            return
        time.sleep(0.5)
    raise _UnsentError(f"the server does not show run {run.id} as it was sent")


def _keep(folder: Path, work: Path, run: WandbRun, *, anew: bool) -> None:
    """Move wandb's files to their place, now that they are whole; files that no ledger knows of give way."""
    for stray in folder.glob(f"offline-run-*-{run.id}*") if anew else ():
        shutil.rmtree(stray)
    for made in (work / "wandb").glob(f"offline-run-*-{run.id}"):
        place = folder / made.name
        while place.exists():  # twice in one second
            place = place.with_name(f"{place.name}-1")
        whole = shutil.move(made, place.with_name(f".{place.name}"))  # it may be on another disk
        Path(whole).rename(place)


if __name__ == "__main__":
    _send_all(json.load(sys.stdin))
