"""The command line: arguments only, no logic. stdout is the result, stderr is progress and errors.

Heavy imports wait inside the commands: `frostbench --help` answers at once.
"""

import enum
import io
import os
import re
import shlex
import shutil
import signal
import sys
import time
import traceback
import typing as t
from pathlib import Path

import typer
from typer.core import TyperGroup

INTERNAL, USAGE, FAILED, DATA, INTERRUPTED, UNREAD = 1, 2, 3, 4, 130, 141  # the last: as if SIGPIPE had ended us

RUN, LOOK, TRUST = "Run a suite", "Inspect results", "Check results"
EXCHANGE, FIND = "Import and export features and encoders", "Get information"


class Grouped(TyperGroup):
    """The commands in groups, in whose lists no summary is cut."""

    def format_commands(self, ctx: t.Any, formatter: t.Any) -> None:  # noqa: ARG002 - as typer has it
        for group in (RUN, LOOK, TRUST, EXCHANGE, FIND):
            with formatter.section(group):
                formatter.write_dl([(_name(one), _about(one)) for one in COMMANDS if one.rich_help_panel == group])


app = typer.Typer(
    name="frostbench",
    cls=Grouped,
    help="Pretrain unsupervised encoders, freeze them, score the frozen features and rank them.",
    epilog="Exit codes: 0 done, 1 internal error, 2 usage or configuration, 3 some runs failed, 4 data missing or "
    "damaged, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

SuiteName = t.Annotated[
    str, typer.Argument(metavar="SUITE", help="YAML file, or name of a shipped suite such as quickstart.")
]
Directory = t.Annotated[Path, typer.Argument(help="Results directory of one suite, or of several.")]
Output = t.Annotated[Path, typer.Option(help="Results directory; each suite gets a subdirectory.")]
Override = t.Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a value of the suite, such as bigan.epochs=5.")
]
Seeds = t.Annotated[str, typer.Option(metavar="SEEDS", help="Seeds to run instead of the suite's: 0-2, or 0,3,5.")]
Limit = t.Annotated[int, typer.Option(min=0, help="Keep this many train and test images (0: as in the suite).")]
Plugin = t.Annotated[list[Path], typer.Option(help="Python file that defines encoders or protocols.")]
DataRoot = t.Annotated[Path | None, typer.Option(help="Directory to search for datasets first.")]
Offline = t.Annotated[bool, typer.Option("--offline", help="Never download data.")]
Device = t.Annotated[str, typer.Option(help="Device to compute on: auto, cpu, cuda or cuda:1.")]
Jobs = t.Annotated[int, typer.Option(min=0, help="Runs to execute in parallel (0: one; with Ray: as many as fit).")]
Threads = t.Annotated[int, typer.Option(min=0, help="Threads per run (0: number of cores divided by --jobs).")]
Ranks = t.Annotated[
    int, typer.Option(min=1, help="Processes or GPUs that train each run together; changes the run's key.")
]
Kind = t.Literal["encoders", "protocols", "datasets", "suites"]
Against = t.Literal["papers"]
Executor = t.Literal["serial", "processes", "ray"]
Resume = t.Literal["exact", "inexact", "never"]
SplitName = t.Annotated[
    t.Literal["test", "validation"], typer.Option(help="Score on the test set, or on validation images.")
]
ImageLimit = t.Annotated[int, typer.Option(min=0, help="Keep this many train and test images (0: all).")]
OwnThreads = t.Annotated[int, typer.Option(min=0, help="Number of threads (0: one per core).")]
OF_DATASET = "A name, or '{name: cifar10, size: 28, mode: grey}'."
OF_PROTOCOL = "Protocol to score with: a name, or '{name: knn, k: 20}'."
ExportFormat = t.Literal["safetensors", "torch.export", "onnx"]
Format = t.Literal["table", "markdown", "csv", "latex", "html", "json"]
Show = t.Literal["scores", "differences"]
Variance = t.Literal["borrowed", "own"]
Compared = t.Literal["table", "markdown", "json"]


class Section(enum.StrEnum):  # typer takes no list of literals
    train = enum.auto()
    extract = enum.auto()
    linear = enum.auto()
    knn = enum.auto()
    suite = enum.auto()


def _version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        print(importlib.metadata.version("frostbench"))
        raise typer.Exit


@app.callback()
def _options(
    debug: t.Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: t.Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version.")
    ] = False,
) -> None:
    pass  # `main` reads --debug, since it speaks of errors outside typer too


@app.command(rich_help_panel=RUN)
def run(
    suite: SuiteName,
    output: Output = Path("runs"),
    executor: t.Annotated[Executor, typer.Option(help="Run serially, in one process per run, or on Ray.")] = "serial",
    jobs: Jobs = 0,
    address: t.Annotated[str, typer.Option(help="Ray cluster: auto or HOST:PORT (default: start Ray here).")] = "",
    threads: Threads = 0,
    ranks: Ranks = 1,
    device: Device = "auto",
    seeds: Seeds = "",
    limit: Limit = 0,
    override: Override = [],  # noqa: B006 - typer makes its own
    fail_fast: t.Annotated[bool, typer.Option("--fail-fast", help="Stop at the first run that fails.")] = False,
    keep_features: t.Annotated[
        bool, typer.Option("--keep-features", help="Keep the extracted features in each run's features/.")
    ] = False,
    checkpoint_every: t.Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Time between checkpoints of a training.")
    ] = 60.0,
    resume: t.Annotated[
        Resume, typer.Option(help="How to resume an interrupted training: exact refuses where bits would differ.")
    ] = "exact",
    time_limit: t.Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="Fail a run that takes longer (0: no limit).")
    ] = 0.0,
    data_root: DataRoot = None,
    offline: Offline = False,
    plugin: Plugin = [],  # noqa: B006
) -> None:
    """Run what is not done yet and print the leaderboard; rerun to resume."""
    from bench import launch
    from bench.host import distributed as processes
    from bench.pipeline.fit import worker_fit

    if processes.torchrun().rank:
        processes.serve(worker_fit)
        return
    checked = launch.read(suite, override, seeds, limit, plugin, offline=offline)
    settings = launch.settings(
        output=output, threads=threads, device=device, data_root=data_root, offline=offline, plugins=plugin, jobs=jobs,
        keep_features=keep_features, checkpoint_seconds=checkpoint_every, resume=resume, ranks=ranks,
        time_limit=time_limit,
    )  # fmt: skip
    try:
        launched = launch.launch(checked, settings, jobs=jobs, executor=executor, address=address, fail_fast=fail_fast)
    except KeyboardInterrupt:
        _say(f"stopped; finished runs are kept. To resume: frostbench {shlex.join(sys.argv[1:])}")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        processes.shutdown_workers()
    _show(launched.board.render, "table")
    _say(launched.summary)
    if launched.failed or launched.lost:
        raise typer.Exit(FAILED)


@app.command(rich_help_panel=RUN)
def init(
    file: t.Annotated[Path, typer.Argument(metavar="FILE", help="Suite file to write.")] = Path("suite.yaml"),
) -> None:
    """Write a commented suite to start from."""
    from bench.commands import init

    overwrite = file.exists() and sys.stdin.isatty() and typer.confirm(f"{file} exists. Overwrite it?", err=True)
    init.write(file, overwrite=overwrite)
    _tell(f"wrote {file}")
    _tell(f"next: frostbench run {shlex.quote(str(file))}")


@app.command(rich_help_panel=RUN)
def plan(
    suite: SuiteName,
    output: Output = Path("runs"),
    executor: t.Annotated[Executor, typer.Option(help="Executor that the runs would use.")] = "serial",
    threads: Threads = 0,
    jobs: Jobs = 0,
    ranks: Ranks = 1,
    device: Device = "auto",
    seeds: Seeds = "",
    limit: Limit = 0,
    override: Override = [],  # noqa: B006
    cost: t.Annotated[bool, typer.Option(help="Measure briefly what was never run here, to estimate its cost.")] = True,
    data_root: DataRoot = None,
    offline: Offline = False,
    plugin: Plugin = [],  # noqa: B006
) -> None:
    """Show which runs are done, and estimate time, memory and disk of the others."""
    from bench import launch
    from bench.host.progress import clock, size
    from bench.launch import processes
    from bench.launch.forecast import of_suite

    checked = launch.read(suite, override, seeds, limit, plugin, offline=offline)
    settings = launch.settings(
        output=output, threads=threads, device=device, data_root=data_root, offline=offline, plugins=plugin, jobs=jobs,
        ranks=ranks,
    )  # fmt: skip
    if not cost:
        for planned in launch.plan(checked, settings)[0]:
            _tell(f"{'to do' if planned.missing else 'done '}  {planned.title}  {planned.directory.path}")
        return
    costs = []
    start, own_process = time.process_time(), executor != "serial" or jobs > 1
    for planned, needed in launch.costs(checked, settings, _say, start=start, own_process=own_process):
        if planned.missing:
            costs.append(needed)
        took = clock(needed.seconds) if planned.missing else ""
        _tell(f"{'to do' if planned.missing else 'done '}  {planned.title:<44}  {took:>12}  {planned.directory.path}")
    if costs:
        jobs = jobs if executor == "ray" else processes.room(jobs)
        total, how = of_suite(costs, jobs or 1), f"{jobs} at a time" if jobs > 1 else "one after the other"
        _say(
            f"{len(costs)} runs to do, {how}: about {clock(total.seconds)}, {size(total.memory)} of memory; "
            f"{size(total.disk)} of disk, and {size(total.passing)} more of it during the runs"
        )


@app.command(rich_help_panel=LOOK)
def leaderboard(
    directory: Directory = Path("runs"),
    format_: t.Annotated[Format, typer.Option("--format", help="Output format.")] = "table",
    against: t.Annotated[Against | None, typer.Option(help="Compare with published numbers instead.")] = None,
    encoder: t.Annotated[list[str], typer.Option(help="Show only this label or method, and the controls.")] = [],  # noqa: B006
    tap: t.Annotated[list[str], typer.Option(help="Show only this tap, and the controls.")] = [],  # noqa: B006
    protocol: t.Annotated[list[str], typer.Option(help="Show only this protocol: linear, or linear@2.")] = [],  # noqa: B006
    dataset: t.Annotated[list[str], typer.Option(help="Show only this dataset.")] = [],  # noqa: B006
    metric: t.Annotated[
        list[str],
        typer.Option(help="Metric in place of each protocol's own: balanced_accuracy, macro_f1, recall, log_loss."),
    ] = [],  # noqa: B006
    sort: t.Annotated[
        str, typer.Option(help="Protocol, metric, encoder or training (default: the first column).")
    ] = "",
    show: t.Annotated[Show, typer.Option(help="Show scores, or differences to the best row.")] = "scores",
    variance: t.Annotated[
        Variance, typer.Option(help="Variance over seeds: moderated across the column, or each row's own.")
    ] = "borrowed",
    over_datasets: t.Annotated[
        bool, typer.Option("--over-datasets", help="Show mean ranks over datasets (five or more) instead.")
    ] = False,
    diagram: t.Annotated[
        Path | None, typer.Option(help="With --over-datasets: write a critical-difference diagram (SVG).")
    ] = None,
) -> None:
    """Print the leaderboard of what was run."""
    from results import across_datasets as overall
    from results import files, leaderboard, papers, store

    contents = store.read_store(directory)
    board = leaderboard.of(contents, variance, [] if against else metric)
    board = board.select(encoders=encoder, taps=tap, protocols=protocol, datasets=dataset, sort=sort)
    if against:
        _show(papers.render, papers.compare(board), format_)
    elif over_datasets:
        ranks = overall.across_datasets(board)
        _show(overall.render, ranks, format_)
        if diagram and ranks:
            files.replace(diagram, overall.diagram(ranks[0]).encode())
            _say(f"{diagram} shows the ranks by {ranks[0].protocol}")
    else:
        _show(board.render, format_, show=show)
    for path, problem in contents.damaged:
        _say(f"not used: {path}: {problem}")


@app.command(rich_help_panel=LOOK)
def compare(
    first: t.Annotated[str, typer.Argument(help="Row: bigan/code, pixels, or DIRECTORY/bigan/code.")],
    second: t.Annotated[str, typer.Argument(help="Row to compare it with.")],
    directory: Directory = Path("runs"),
    protocol: t.Annotated[list[str], typer.Option(help="Show only this protocol: linear, or linear@2.")] = [],  # noqa: B006
    dataset: t.Annotated[list[str], typer.Option(help="Show only this dataset.")] = [],  # noqa: B006
    format_: t.Annotated[Compared, typer.Option("--format", help="Output format.")] = "table",
    details: t.Annotated[
        bool, typer.Option("--details", help="Show each pair of seeds and the components of the variance.")
    ] = False,
    pictures: t.Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw the images that only one of the two classifies correctly."),
    ] = None,
    data_root: DataRoot = None,
) -> None:
    """Compare two rows on the same test images: difference, interval, p, images won and lost."""
    from bench.commands import disagreements
    from results import comparison

    if pictures:
        disagreements.check_name(pictures)
    found = comparison.compare(first, second, directory, protocols=protocol, datasets=dataset)
    _show(comparison.render, found, format_, details=details)
    if pictures:
        _say(disagreements.draw(found[0], pictures, data_root))


@app.command("seeds-needed", rich_help_panel=LOOK)
def seeds_needed(
    delta: t.Annotated[float, typer.Option(min=0.001, max=100, help="Difference to detect, in percentage points.")],
    directory: Directory = Path("runs"),
    sd: t.Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Standard deviation over seeds, in points; no results are read."),
    ] = None,
    power: t.Annotated[float, typer.Option(min=0.06, max=0.999, help="Statistical power.")] = 0.8,
) -> None:
    """Estimate how many seeds a difference needs, from the variance over the seeds that were run."""
    from results import leaderboard, seeds_needed, store

    if sd is not None:
        _print(seeds_needed.sentence(delta / 100, sd / 100, power))
        return
    contents = store.read_store(directory)
    rows = seeds_needed.needed(leaderboard.of(contents), delta / 100, power)
    if not rows:
        raise leaderboard.Unknown(f"{directory} has no row of two seeds; give their standard deviation with --sd")
    _show(seeds_needed.render, rows, delta / 100, power)


@app.command(rich_help_panel=LOOK)
def why(
    run: t.Annotated[Path, typer.Argument(metavar="RUN", help="Run directory: runs/SUITE/LABEL/DATASET/seed0-...")],
    against: t.Annotated[str, typer.Argument(help="Another run, or a suite (default: the run's own).")] = "",
    override: Override = [],  # noqa: B006
    device: Device = "auto",
    data_root: DataRoot = None,
    plugin: Plugin = [],  # noqa: B006
) -> None:
    """Explain why a run is not reused: which parts of its content key differ."""
    from bench import launch
    from bench.commands import explain

    settings = launch.settings(output=Path("runs"), device=device, data_root=data_root, offline=True, plugins=plugin)
    _show(explain.why(run, against, settings, override).render)


@app.command(rich_help_panel=EXCHANGE)
def score(
    features: t.Annotated[Path, typer.Argument(metavar="FILE", help="File or directory of features and labels.")],
    name: t.Annotated[str, typer.Option(help="Row name (default: file name).")] = "",
    protocol: t.Annotated[list[str], typer.Option(metavar="PROTOCOL", help=OF_PROTOCOL)] = ["linear", "knn"],  # noqa: B006
    dataset: t.Annotated[
        str, typer.Option(help=f"Dataset the images come from, in its canonical order. {OF_DATASET}")
    ] = "",
    limit: ImageLimit = 0,
    split: SplitName = "test",
    seed: t.Annotated[
        int, typer.Option(min=0, help="Seed of the pretraining; files with the same name share a row.")
    ] = 0,
    labels: t.Annotated[str, typer.Option(help="Number of training labels the model saw, or all.")] = "0",
    output: Output = Path("runs"),
    threads: OwnThreads = 0,
    format_: t.Annotated[Format, typer.Option("--format", help="Output format of the table.")] = "table",
    data_root: DataRoot = None,
    offline: Offline = False,
    plugin: Plugin = [],  # noqa: B006
) -> None:
    """Score the features of any model and print the table with them.

    FILE.npz holds the arrays train_features (n, d), train_labels (n,), test_features and test_labels; or features,
    labels and split ("train" or "test" for each row). FILE.parquet has the columns split, label and features (a list
    of numbers per row), or numeric columns instead of features. `frostbench extract` writes both formats.
    FILE.safetensors, FILE.pt, FILE.h5 and a directory of .npy files hold the arrays of FILE.npz under the same names.
    """
    from bench import launch
    from bench.commands import score as scoring

    settings = launch.settings(output=output, threads=threads, data_root=data_root, offline=offline, plugins=plugin)
    images = scoring.named(dataset, limit, split)
    board = scoring.score(features, name, protocol, images, seed, labels, settings)
    _show(board.render, format_)


@app.command(rich_help_panel=EXCHANGE)
def extract(
    source: t.Annotated[
        str, typer.Argument(metavar="RUN|ENCODER", help="Run directory, or an encoder to fit, such as pca.")
    ],
    output: t.Annotated[Path, typer.Option(help="File to write: FILE.npz or FILE.parquet.")],
    tap: t.Annotated[str, typer.Option(help="Tap (layer) to extract; required if there are several.")] = "",
    dataset: t.Annotated[str, typer.Option(help=f"Dataset to encode (default: the run's). {OF_DATASET}")] = "",
    limit: ImageLimit = 0,
    split: SplitName = "test",
    seed: t.Annotated[int, typer.Option(min=0, help="Seed of an encoder that is fitted.")] = 0,
    device: Device = "auto",
    threads: OwnThreads = 0,
    data_root: DataRoot = None,
    offline: Offline = False,
    plugin: Plugin = [],  # noqa: B006
) -> None:
    """Write the features of train and test images to a file for `frostbench score`."""
    from bench import launch
    from bench.commands import export, score

    settings = launch.settings(threads=threads, device=device, data_root=data_root, offline=offline, plugins=plugin)
    _tell(export.write_features(source, output, tap, score.named(dataset, limit, split), seed, settings))


@app.command(rich_help_panel=LOOK)
def cka(
    first: t.Annotated[Path, typer.Argument(metavar="FILE|RUN", help="File of features, or run directory.")],
    second: t.Annotated[Path, typer.Argument(metavar="FILE|RUN", help="The same, for the same test images.")],
    device: Device = "auto",
    threads: OwnThreads = 0,
    data_root: DataRoot = None,
    offline: Offline = False,
    plugin: Plugin = [],  # noqa: B006
) -> None:
    """Compare two encoders layer by layer: linear CKA of their test features."""
    from bench import launch
    from bench.commands import cka

    settings = launch.settings(threads=threads, device=device, data_root=data_root, offline=offline, plugins=plugin)
    _print(cka.render(cka.cka(first, second, settings)))


@app.command(rich_help_panel=EXCHANGE)
def export(
    run: t.Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    directory: t.Annotated[Path, typer.Argument(metavar="DIR", help="Directory to write the encoder to.")],
    format_: t.Annotated[ExportFormat, typer.Option("--format", help="Output format.")] = "safetensors",
    threads: OwnThreads = 0,
    data_root: DataRoot = None,
    offline: Offline = False,
    plugin: Plugin = [],  # noqa: B006
) -> None:
    """Export a run's frozen encoder, then load it again and compare its features."""
    from bench import launch
    from bench.commands import export

    settings = launch.settings(threads=threads, data_root=data_root, offline=offline, plugins=plugin)
    _tell(export.export(run, directory, format_, settings))


@app.command(rich_help_panel=TRUST)
def verify(directory: Directory = Path("runs")) -> None:
    """Check all hashes and recompute every stored score from its predictions."""
    from bench.commands import verify

    report = verify.verify(directory)
    _tell(report.text())
    if report.problems:
        raise typer.Exit(FAILED)


@app.command(rich_help_panel=TRUST)
def reproduce(
    run: t.Annotated[
        Path, typer.Argument(metavar="RUN", help="Run directory, or the directory of a row (all its seeds).")
    ],
    threads: t.Annotated[int, typer.Option(min=0, help="Number of threads (0: as recorded).")] = 0,
    device: Device = "auto",
    data_root: DataRoot = None,
    offline: Offline = False,
    plugin: Plugin = [],  # noqa: B006
) -> None:
    """Train a run again from its record and compare the results."""
    from bench.commands import reproduce
    from bench.pipeline.plan import Settings

    settings = Settings(
        output=Path(), threads=threads, device=device, data_root=data_root, offline=offline, plugins=tuple(plugin)
    )
    failed = False
    for outcome in reproduce.reproduce(run, settings):
        _tell(outcome.text())
        failed |= outcome.verdict == "not reproduced"
    if failed:
        raise typer.Exit(FAILED)


@app.command("list", rich_help_panel=FIND)
def list_(
    kind: t.Annotated[Kind, typer.Argument(help="Kind of thing to list.")] = "encoders",
    plugin: Plugin = [],  # noqa: B006
) -> None:
    """List encoders, protocols, datasets or shipped suites."""
    from bench.suites import catalogue

    width, _ = _terminal()
    _print(catalogue.listing(kind, plugin, width))


@app.command(rich_help_panel=FIND)
def describe(
    name: t.Annotated[
        str, typer.Argument(help="Name of an encoder, a protocol or a dataset, or torchvision:resnet18.")
    ],
    plugin: Plugin = [],  # noqa: B006
) -> None:
    """Describe an encoder or protocol: source, taps, parameters, defaults and choices."""
    from bench.suites import catalogue

    width, _ = _terminal()
    _print(catalogue.description(name, plugin, width))


@app.command(rich_help_panel=FIND)
def taps(
    source: t.Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="torchvision:NAME, timm:NAME, onnx:FILE, or a pretrained encoder of a plugin."
        ),
    ],
    shape: t.Annotated[str, typer.Option(metavar="C,H,W", help="Shape of the images, before they are resized.")] = (
        "3,32,32"
    ),
    plugin: Plugin = [],  # noqa: B006
) -> None:
    """List what can be tapped in a pretrained network, with the shape of each output."""
    from bench.commands import taps

    width, _ = _terminal()
    _print(taps.taps(source, shape, plugin, width))


@app.command(rich_help_panel=EXCHANGE)
def check(
    file: t.Annotated[Path, typer.Argument(help="Python file that defines encoders or protocols.")],
    device: Device = "cpu",
) -> None:
    """Test your own encoder or protocol against the contract that the shipped ones pass."""
    from bench.commands import check
    from bench.host import machine

    for line in check.check(file, machine.pick_device(device)):
        _tell(line)


@app.command(rich_help_panel=TRUST)
def audit(
    suite: t.Annotated[
        str, typer.Argument(metavar="[SUITE]", help="Suite whose datasets and protocols are audited.")
    ] = "",
    dataset: t.Annotated[
        str, typer.Option(help=f"Audit one dataset with every protocol instead of a suite. {OF_DATASET}")
    ] = "",
    seed: t.Annotated[int, typer.Option(min=0, help="Seed of the permutation and the protocols.")] = 0,
    near: t.Annotated[
        float, typer.Option(min=0, help="Largest difference of near-duplicates, relative to an image's contrast.")
    ] = 0.15,
    data_root: DataRoot = None,
    offline: Offline = False,
    plugin: Plugin = [],  # noqa: B006
) -> None:
    """Check that permuted labels score at chance; count train images that recur in test."""
    from bench.commands import audit

    failed = False
    found = audit.audits(suite, dataset, seed=seed, near=near, data_root=data_root, offline=offline, plugins=plugin)
    for one in found:
        _print(one.render())
        failed |= not one.holds
    if failed:
        raise typer.Exit(FAILED)


@app.command(rich_help_panel=FIND)
def schema() -> None:
    """Print the JSON schema of suite files, for completion in editors."""
    import json

    from bench.suites.schema import json_schema

    print(json.dumps(json_schema(), indent=2))


@app.command(rich_help_panel=RUN)
def sync(
    directory: t.Annotated[Path, typer.Argument(help="Results directory of a suite.")],
    project: t.Annotated[str, typer.Option(help="W&B project (default: the suite's).")] = "",
    entity: t.Annotated[str, typer.Option(help="W&B user or team (default: the suite's).")] = "",
) -> None:
    """Upload the runs of a suite to Weights & Biases that are not there yet."""
    from bench import launch

    report = launch.sync(directory, project, entity)
    print(f"{report.sent} runs uploaded, {report.already} were there already")
    if report.problem:
        _say(report.problem)
        raise typer.Exit(FAILED)


@app.command(rich_help_panel=RUN)
def merge(
    into: t.Annotated[Path, typer.Argument(help="Results directory of one suite, or of several.")],
    others: t.Annotated[
        list[Path], typer.Argument(metavar="OTHER...", help="Results directories to copy from; left unchanged.")
    ],
) -> None:
    """Copy missing runs and records from other results directories into one."""
    from bench import launch

    merged, records = launch.merge(into, others)
    _tell(f"{merged.new} records copied, {merged.same} were there already; {into} has {records}")
    for problem in merged.problems:
        _say(problem)
    if merged.problems:
        raise typer.Exit(FAILED)


@app.command(rich_help_panel=LOOK)
def report(
    directory: Directory = Path("runs"),
    output: t.Annotated[
        Path | None, typer.Option(help="HTML file to write (default: report.html in the directory).")
    ] = None,
    open_: t.Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
) -> None:
    """Write an HTML report: tables, intervals, losses, confusions, maps and pictures."""
    import webbrowser

    from results import files, store
    from results.report import NAME, page

    output = output or directory / NAME
    contents = store.read_store(directory)
    if not contents.records:
        _say(f"{directory} has no results yet, so the page is empty")
    files.replace(output, page(directory, contents).encode())
    _tell(str(output))
    if open_ and not webbrowser.open(output.absolute().as_uri()):
        _say("no browser found: open the page yourself")


@app.command(rich_help_panel=FIND)
def doctor(data_root: DataRoot = None) -> None:
    """Show the machine, versions, available datasets and W&B settings."""
    from bench.commands import doctor

    for line in doctor.report(data_root):
        _tell(line)


@app.command(rich_help_panel=FIND)
def speed(
    sections: t.Annotated[list[Section], typer.Argument(help="Parts to measure (default: all).")] = [],  # noqa: B006
    quick: t.Annotated[
        bool, typer.Option("--quick", help="Smaller jobs: two minutes on two cores instead of ten.")
    ] = False,
    device: Device = "auto",
    threads: Threads = 0,
    output: t.Annotated[Path, typer.Option(help="JSON file to write the measurements to.")] = Path("speed.json"),
) -> None:
    """Compare the speed of this harness with plain PyTorch, scikit-learn and FAISS here."""
    from bench import launch, speed
    from bench.host import machine
    from results import files

    settings = launch.settings(threads=threads, device=device)
    at = speed.rates(machine.pick_device(device), settings.threads)
    print(f"{at}\n", flush=True)
    rows = list(speed.measure(sections or list(Section), at, speed.QUICK if quick else speed.FULL, _say))
    _show(speed.table, rows)
    files.replace(output, files.canonical(speed.report(at, rows)))
    if any(row.failed for row in rows):
        raise typer.Exit(FAILED)


COMMANDS = app.registered_commands


def _name(command: typer.models.CommandInfo) -> str:
    return command.name or str(getattr(command.callback, "__name__", ""))


def _about(command: typer.models.CommandInfo) -> str:
    return " ".join((command.callback.__doc__ or "").partition("\n\n")[0].split())


def main() -> None:
    """Run the command line; errors that a user can mend are a sentence on stderr and an exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, from the first moment on
    _open_streams()
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup sets
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    debug = "--debug" in sys.argv[1:]
    if debug:
        sys.argv.remove("--debug")
    try:
        _call(debug)
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does: nothing is left to be said
        _close_streams(1, 2)
        raise SystemExit(UNREAD) from None


def _open_streams() -> None:
    """Output goes to nowhere where it was closed (`>&-`), and characters that a terminal lacks are replaced."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # and its number would be that of the next file that is opened
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _close_streams(*numbers: int) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    for number in numbers:
        os.dup2(nothing, number)


def _call(debug: bool) -> None:
    word = next((word for word in sys.argv[1:] if not word.startswith("-")), "--help")
    asked = [one for one in COMMANDS if _name(one) == word]
    try:
        app.registered_commands = asked or ([] if word == "--help" else COMMANDS)  # typer takes a while for each
        app()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # which typer has made a 1
            raise end.__context__ from None
        _flush()
        raise
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        if debug:
            _say(traceback.format_exc())
        if isinstance(error, OSError) and traceback.extract_tb(error.__traceback__)[-1].filename == __file__:
            _unwritten(error)  # by a print of this file
        status, where = _status(error), _place(error)
        internal = f"{type(error).__name__}: {error}{where}; frostbench --debug ... shows where"
        if not where:
            internal = f"internal error: {internal}"
        _say(internal if status == INTERNAL else str(error))
        raise SystemExit(status) from None
    finally:
        app.registered_commands = COMMANDS


def _flush() -> None:
    """Write what is left now, while a reader that has gone, or a full disk, can be told from an error of ours."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _unwritten(error)


def _unwritten(error: OSError) -> t.NoReturn:
    _close_streams(1)
    _say(f"cannot write the output: {error.strerror or error}")
    raise SystemExit(INTERNAL) from None


def _status(error: Exception) -> int:
    """The exit code that a class of ours names; what is none of ours is an internal error."""
    code = getattr(error, "exit_code", INTERNAL)
    return code if code in (USAGE, DATA) else INTERNAL


def _place(error: Exception) -> str:
    """Where code of the user's own, which a plugin brings, raised an error; "" if none did."""
    sources = sys.modules.get("bench.suites.sources")
    where = sources.place(error) if sources else ""
    return f" ({where})" if where else ""


def _show(render: t.Callable[..., str], *what: t.Any, **options: t.Any) -> None:
    """Print what `render` makes of these arguments, as wide as the terminal and in its colours."""
    width, colour = _terminal()
    _print(render(*what, **options, width=width, colour=colour))


def _terminal() -> tuple[int | None, bool]:
    """The width of the terminal and whether it may be coloured, if it is one."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else None
    return width, terminal and "NO_COLOR" not in os.environ


def _print(text: str) -> None:
    """A result; of what would steer a terminal only colours get there."""
    if sys.stdout.isatty():
        from results.redaction import printable

        parts = re.split(r"(\x1b\[[\d;]*m)", text)  # every second one is a colour
        text = "".join(part if place % 2 else printable(part) for place, part in enumerate(parts))
    print(text.rstrip("\n"))


def _tell(text: str) -> None:
    """A line with names of files in it."""
    from results.redaction import printable

    print(printable(text), flush=True)


def _say(text: str) -> None:
    from results.redaction import printable, redacted

    print(printable(redacted(text)), file=sys.stderr)


if __name__ == "__main__":
    main()
