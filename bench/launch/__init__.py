"""A suite from start to end: what is missing is run, the tables are written, wandb gets its copy."""

import collections
import contextlib
import dataclasses
import json
import os
import re
import shlex
import sys
import time
import typing as t
from pathlib import Path

from bench.errors import config_error
from bench.host import machine
from bench.host.distributed import check_processes, local_world, torchrun
from bench.host.progress import Display, clock
from bench.host.stopping import Stopping
from bench.launch import processes, ray_cluster
from bench.launch.forecast import Cost, Forecast
from bench.pipeline import damage, epochs
from bench.pipeline.checkpoints import Resume
from bench.pipeline.execute import keeps_features
from bench.pipeline.plan import PlannedRun, Settings, load_images
from bench.pipeline.plan import plan as plan_run
from bench.suites.reading import read_suite
from bench.suites.suite import MAX_SEEDS, DatasetSpec, Suite, WandbSpec
from results import files, leaderboard, store, wandb_mirror
from results.leaderboard import Leaderboard
from results.merge import Merged
from results.merge import merge as merge_stores
from results.record import Record
from results.store import Contents
from results.tables import FORMATS
from results.wandb_mirror import MODES, MirrorReport, WandbTarget

Executor = t.Literal["serial", "processes", "ray"]


@dataclasses.dataclass(frozen=True)
class Launched:
    """What became of a suite."""

    directory: Path
    planned: int
    made: int  # runs of this call, failed ones included
    failed: int
    lost: int  # that were made, now or before, and whose results are not there
    refused: int  # of those that failed: to be gone on with otherwise
    seconds: float
    board: Leaderboard
    problems: tuple[str, ...]  # files that are not used, and what wandb did not get

    @property
    def summary(self) -> str:
        """A few lines for a person."""
        if self.made or self.lost:
            first = f"{self.made - self.failed} of {self.planned} runs completed in {clock(self.seconds)}"
            if again := self.failed - self.refused:
                first += f", {again} failed: run the same command to retry"
            if self.refused:
                first += f", {self.refused} not resumed: use --threads as before, --resume inexact or --resume never"
        else:
            first = f"all {self.planned} runs are done; nothing to do"
        then = f"next: frostbench report {shlex.quote(str(self.directory))} --open"
        return "\n".join([f"{first}; results in {self.directory}", *self.problems, then])


def read(
    suite: str,
    overrides: t.Sequence[str],
    seeds: str,
    limit: int,
    plugins: t.Sequence[Path],
    *,
    offline: bool = False,
) -> Suite:
    """A suite as the command line changes it. Raises ConfigError."""
    checked = read_suite(suite, overrides=overrides, plugins=plugins, offline=offline)
    if seeds:
        checked = checked.model_copy(update={"seeds": _seeds(seeds)})
    if limit:
        limited = dict.fromkeys(one.model_copy(update={"limit": limit}) for one in checked.datasets)
        checked = checked.model_copy(update={"datasets": tuple(limited)})
    return checked


def _seeds(text: str) -> tuple[int, ...]:
    """0-2 or 0,3,5 or both, each seed once. Raises ConfigError."""
    seeds: dict[int, None] = {}
    for part in text.split(","):
        ends = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
        if not first <= last < first + MAX_SEEDS:
            problem = f"wanted seeds such as 0-2 or 0,3,5, got {text!r}"
            raise config_error("--seeds", problem)
        seeds |= dict.fromkeys(range(first, last + 1))
    return tuple(seeds)


def settings(
    *,
    output: Path = Path(),
    threads: int = 0,
    device: str = "cpu",
    data_root: Path | None = None,
    offline: bool = False,
    plugins: t.Sequence[Path] = (),
    jobs: int = 0,
    keep_features: bool = False,
    checkpoint_seconds: float = 60.0,
    resume: Resume = "exact",
    ranks: int = 1,
    time_limit: float = 0.0,
) -> Settings:
    """Paths made absolute and the number of threads made definite, so that workers need no more than this.

    0 threads are the cores shared out among the jobs and their ranks. The ranks are those of torchrun where it has
    started this process. Raises MachineError for many more threads than there are cores, and for other ranks.
    """
    world = torchrun().world_size
    if world > 1 and (jobs > 1 or ranks not in (1, world)):
        raise machine.MachineError(
            f"torchrun started {world} ranks that train one run at a time; remove --ranks and --jobs"
        )
    ranks = max(ranks, world)
    check_processes(ranks, threads)
    return Settings(
        output=files.checked_path(output.absolute()),
        data_root=data_root and data_root.absolute(),
        offline=offline,
        device=device,
        threads=threads or max(1, machine.available_cores() // (jobs or 1) // local_world(ranks)),
        ranks=ranks,
        plugins=tuple(plugin.absolute() for plugin in plugins),
        keep_features=keep_features,
        checkpoint_seconds=checkpoint_seconds,
        resume=resume,
        time_limit=time_limit,
    )


def plan(suite: Suite, settings: Settings) -> tuple[list[PlannedRun], Contents]:
    """Every run of a suite with its place and what is missing there, and all that its directory holds.

    Reads the datasets and every record once; writes no results.
    """
    directory = settings.output / suite.suite
    contents = store.read_store(directory) if directory.is_dir() else Contents([], [], [])
    fingerprints: dict[DatasetSpec, str] = {}
    planned = []
    for spec in suite.runs():
        if spec.dataset not in fingerprints:
            fingerprints[spec.dataset] = load_images(spec.dataset, settings).fingerprint
        planned.append(plan_run(spec, fingerprints[spec.dataset], settings, contents.whole))
    records: dict[Path, dict[Path, Record]] = collections.defaultdict(dict)
    for path, record in contents.whole.items():
        records[path.parents[2]][path] = record
    damaged = [damage.to_make_again(one.directory, records[one.directory.path]) for one in planned]
    for place, (one, again) in enumerate(zip(planned, damaged)):
        if again.problems:
            whole = contents.whole.keys() - again.records
            missing = plan_run(one.spec, one.fingerprint, settings, whole).missing
            planned[place] = dataclasses.replace(one, missing=missing, again=True)
    problems = [problem for again in damaged for problem in again.problems]
    judged: dict[tuple[DatasetSpec, DatasetSpec], str] = {}
    planned += [snapshot for one in planned for snapshot in epochs.of(one, settings, judged)]
    return planned, dataclasses.replace(contents, damaged=sorted({*contents.damaged, *problems}))


def costs(
    suite: Suite, settings: Settings, say: t.Callable[[str], None], *, start: float = 0.0, own_process: bool = False
) -> t.Iterator[tuple[PlannedRun, Cost]]:
    """Every run of a suite with what it will cost here; a done one costs nothing. Raises what `plan` raises.

    start: seconds until a process is ready to read the suite's data. own_process: whether each run has one.
    """
    started = time.perf_counter()
    planned, contents = plan(suite, settings)
    for path, problem in contents.damaged:
        say(f"damaged and not used: {path}: {problem}")
    start += time.perf_counter() - started
    mirror = 0.0 if _target(suite.wandb).mode == "off" else start  # a process more, and libraries about as large
    known = Forecast(settings, contents, say, command=start + mirror, worker=start if own_process else 0.0)
    for one in planned:
        yield one, known.cost(one) if one.missing else Cost(0.0, 0, 0, 0)
    for protocol in known.unknown:
        say(f"not included: {protocol}, which has never run on this machine")


def launch(
    suite: Suite,
    settings: Settings,
    *,
    jobs: int = 0,
    executor: Executor = "serial",
    address: str = "",
    fail_fast: bool = False,
) -> Launched:
    """Do what is missing of a suite. Finished runs are never repeated.

    jobs: runs at a time, where more than one makes processes of 'serial'; 0 is one, or with 'ray' as many as there is
    room for. address: of a Ray cluster; '' starts Ray here.

    Raises MachineError, ConfigError and DataError before anything is written, StoreError where results cannot be kept,
    and KeyboardInterrupt on Ctrl-C or SIGTERM; what was finished until then is kept, and the state of a training.
    """
    started = time.monotonic()
    if torchrun().world_size > 1 and executor != "serial":
        raise machine.MachineError("torchrun started ranks that train one run at a time; remove --executor")
    target = _target(suite.wandb)
    if settings.time_limit and (torchrun().world_size > 1 or executor == "ray"):
        raise machine.MachineError("--time-limit works on this machine only; remove it with torchrun and ray")
    if executor != "ray":  # whose nodes may have what this machine has not
        machine.pick_device(settings.device)
    planned, contents = plan(suite, settings)
    damaged = contents.damaged
    missing = [one for one in planned if one.missing]
    directory = settings.output / suite.suite
    done, failed, refused = [one for one in planned if not one.missing], 0, 0
    files.sweep(directory)
    if missing:
        files.check_writable(directory)
    settled = [one.directory.failed for one in planned if not one.missing and one.directory.failed.exists()]
    for failed_json in settled:  # of a protocol that the suite has no more: all that it asks for is there
        failed_json.unlink(missing_ok=True)
    changed = _keep(suite, directory) or bool(missing or settled)
    if missing:
        stopping = Stopping()
        own_process = executor == "processes" or jobs > 1 or settings.time_limit
        jobs = jobs if executor == "ray" else _within_room(jobs)
        titles = [one.title for one in missing]
        live = wandb_mirror.Live(
            directory, target, [(_known(one), one.directory) for one in missing if not one.spec.snapshot]
        )
        with Display(titles, jobs or 1) as display, live, stopping.on_signals(), contextlib.closing(
            ray_cluster.ray_tasks(missing, settings, jobs, address)
            if executor == "ray"
            else processes.processes(missing, settings, jobs or 1, display)
            if own_process
            else processes.serial(missing, settings, display, stopping)
        ) as ended:  # fmt: skip
            for one, seconds, error in ended:
                failed += error is not None
                refused += isinstance(error, processes.Refused)
                done += [one] if error is None else []
                known = error and one.directory.failed.exists()
                display.finish(one.title, seconds, f"{error}; details in {one.directory.failed}" if known else error)
                if error and fail_fast:
                    break
        if not (directory / "suite.json").exists():  # all of the directory was removed meanwhile
            _keep(suite, directory)
    if changed:
        contents = store.read_store(directory)
    lost = [
        one
        for one in done
        if (
            epochs.left(one)
            if one.spec.snapshot
            else plan_run(one.spec, one.fingerprint, settings, contents.whole).missing
        )
    ]
    made = failed + sum(bool(one.missing) and one not in lost for one in done)
    board = _tables(directory, contents)
    seconds = time.monotonic() - started
    unused = [*contents.damaged, *(lost_file for one in planned for lost_file in damage.lost(one.directory))]
    mirrored = wandb_mirror.mirror(directory, target, told=[path for path, _ in unused], contents=contents)
    problems = [f"not used: {path}: {problem}" for path, problem in unused]
    aside = [(path, problem) for path, problem in damaged if path not in dict(contents.damaged)]
    problems += [f"damaged and made again: {path}: {problem}" for path, problem in aside]
    problems += [f"{one.title}: its results have been deleted: run the same command" for one in lost]
    problems += _without_features(planned) if settings.keep_features else []
    problems += [mirrored.problem] if mirrored.problem else []
    return Launched(directory, len(planned), made, failed, len(lost), refused, seconds, board, tuple(problems))


def _without_features(planned: list[PlannedRun]) -> list[str]:
    """What is said of runs that keep no features where --keep-features asks for them."""
    bare = [one.directory.path for one in planned if not keeps_features(one.directory)]
    if not bare:
        return []
    of = f"{len(bare)} {'runs have' if len(bare) > 1 else 'run has'}"
    way_out = f"`frostbench extract {shlex.quote(str(bare[0]))} --output FILE.npz` writes them"
    return [f"--keep-features: {of} no features/, because it was done before or failed; {way_out}"]


def _within_room(jobs: int) -> int:
    room = processes.room(jobs)
    if jobs > room:
        sys.stderr.write(f"--jobs {jobs} exceeds the cores or the memory of this machine; running {room} at a time\n")
    return min(jobs, room)


def _known(planned: PlannedRun) -> dict[str, t.Any]:
    """What its run.json will say, as far as it is known before."""
    spec, data = planned.spec, planned.spec.dataset
    return {
        **{"suite": spec.suite, "key": planned.key, "label": spec.encoder.label, "encoder": spec.encoder.name},
        **{"dataset": data.name, "limit": data.limit, "split": data.split, "pretrain": data.pretrain},
        **{"size": data.size, "mode": data.mode},
        **{"params": spec.encoder.params, "encoder_version": spec.encoder.version, "seed": spec.seed},
    }


def _keep(suite: Suite, directory: Path) -> bool:
    """Write suite.json, from which tables take their order and their recipes, unless it says so already."""
    path, content = directory / "suite.json", files.canonical(suite.model_dump(mode="json"))
    with contextlib.suppress(files.StoreError):
        if files.read_bytes(path, files.MAX_JSON_BYTES) == content:
            return False
    files.replace(path, content)
    return True


def merge(into: Path, others: t.Iterable[Path]) -> tuple[Merged, int]:
    """Copy what other stores have more and write the tables again; what was done, and how many records there are."""
    merged = merge_stores(into, others)
    for suite in [into, *into.iterdir()]:
        if (suite / "suite.json").exists():
            _tables(suite, store.read_store(suite))
    return merged, len(store.read_store(into).records)


def _tables(directory: Path, contents: Contents) -> Leaderboard:
    board = leaderboard.of(contents)
    for form, suffix in FORMATS.items():
        files.replace(directory / f"leaderboard.{suffix}", board.render(form).encode())
    return board


def sync(directory: Path, project: str, entity: str) -> MirrorReport:
    """Send to wandb what it has not seen of a suite's directory, to the project its suite names unless told another."""
    try:
        suite = json.loads(files.read_bytes(directory / "suite.json", files.MAX_JSON_BYTES))
        target = _target(WandbSpec.model_validate(suite["wandb"]), project=project, entity=entity)
    except files.Missing as error:
        raise files.StoreError(f"{directory} is not a suite directory: it has no suite.json") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise files.StoreError(f"{directory / 'suite.json'} is damaged: `frostbench run` writes it again") from error
    if MODES.get(mode := os.environ.get("WANDB_MODE", "").strip(), "online") != "online":
        raise config_error("WANDB_MODE", f"{mode!r} uploads nothing; use `WANDB_MODE=online frostbench sync ...`")
    return wandb_mirror.sync(directory, target)


def _target(spec: WandbSpec, **options: str) -> WandbTarget:
    """Where wandb's copy goes. Raises ConfigError for what wandb would refuse."""
    try:
        for name in filter(None, options.values()):
            wandb_mirror.checked_name(name)
        return wandb_mirror.target(spec.model_dump() | {name: value for name, value in options.items() if value})[0]
    except ValueError as error:
        raise config_error("wandb", str(error)) from None
