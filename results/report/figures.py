"""What the files beside the records show: losses, mistakes, maps of features, neighbours, pictures, curves.

A file that is not there, or is damaged, gives None here, and the page says that there is nothing to show; what is
damaged is noted in `damaged`, {file: what is wrong with it}.
"""

import base64
import io
import json
import typing as t
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from PIL import Image

from results import arrays, files, predictions, store
from results.arrays import Array
from results.layout import RunDirectory
from results.metrics import written
from results.record import Record
from results.report import charts
from results.rows import Row

MAX_CLASSES = 20  # of a confusion matrix that can still be read
TSNE_POINTS = 300  # of a map; its time grows faster than they do
TSNE_STEPS = 500
PICTURE_BYTES = 2_000_000  # of pictures of a kind, so that the page stays small
MAX_LABELS = 1000  # of a dataset whose mistakes are counted
MAX_MAPS = 30  # of a dataset
MAX_TSNE = 12  # of these; each takes about a second
MAX_BYTES = 2**26  # bytes, unpacked: no view or predictions of ours come near
MAX_PIXELS = 2**24  # pixels: a hundred images of 400 x 400
MAX_LOSS = 1e100  # loss that can be drawn beside others
MAX_COORDINATE = 1e12  # of a map; what lies beyond are no features
Damaged = dict[Path, str]
T = t.TypeVar("T")


# ---- losses -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    name: str
    chart: Markup
    note: str


def training(name: str, runs: t.Sequence[RunDirectory], damaged: Damaged) -> Training | None:
    """The losses of each player over the epochs, a line a seed; None if nothing was learned by gradient."""
    histories = [history for run in runs if (history := _history(run, damaged))]
    players = sorted({column for history in histories for row in history for column in row if column.endswith("_loss")})
    lines = []
    for player in players:
        for history in histories:
            points = [(row["epoch"], row[player]) for row in history if player in row]
            points = [point for point in points if max(map(abs, point)) < MAX_LOSS]
            if points:
                epochs, losses = zip(*points)
                lines.append(charts.Line(player.removesuffix("_loss"), epochs, losses))
    if not lines:
        return None
    last = "; ".join(f"{line.name} ends at {charts.number(line.y[-1])}" for line in lines[: 2 * len(players)])
    speeds = [row["images_per_second"] for history in histories for row in history if "images_per_second" in row]
    seeds = len(histories)
    note = f"{seeds} seed{'' if seeds == 1 else 's'}"
    note += f", {sum(speeds) / len(speeds):,.0f} images a second" if speeds else ""
    moved = {name: row[name] for history in histories for row in history for name in row if name.endswith("_updates")}
    if moved:
        note += "; updates: " + ", ".join(f"{name.removesuffix('_updates')} {n:,.0f}" for name, n in moved.items())
    return Training(name, charts.lines(lines, f"Losses of {name} over its epochs: {last}."), note)


def _history(run: RunDirectory, damaged: Damaged) -> list[dict[str, float]] | None:
    return _noted(damaged, run.history, lambda: store.read_history(run))


def _noted(damaged: Damaged, path: Path, read: t.Callable[[], T]) -> T | None:
    """What is read of a file; None where there is none, or a damaged one, which is noted."""
    try:
        return read()
    except files.Missing:
        return None
    except files.StoreError as error:
        damaged[path] = error.problem
        return None


# ---- mistakes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Matrix:
    title: str
    note: str
    classes: list[str]
    rows: list[list[tuple[str, float]]]  # of each true class the shares, as printed too; empty for too many classes
    recalls: list[
        tuple[str, str, int]
    ]  # of each class its name, its recall in percent, "-" without test images; images
    worst: str  # the pairs that are confused most


def confusions(
    row: Row, runs: t.Mapping[str, RunDirectory], classes: t.Sequence[str] | None, damaged: Damaged
) -> Matrix | None:
    """True classes against predicted ones, summed over the seeds whose predictions are there."""
    found = [one for record in row.records if (one := _predictions(record, runs, damaged))]
    if not found:
        return None
    size = 1 + int(max(one[name].max() for one in found for name in ("predicted", "label")))
    if size > MAX_LABELS:
        return None
    counts = np.zeros((size, size), np.int64)
    for one in found:
        places = one["label"].astype(np.int64) * size + one["predicted"]
        counts += np.bincount(places, minlength=size * size).reshape(size, size)
    names = [*(classes or []), *map(str, range(len(classes or []), size))]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    mistakes = np.where(np.eye(size, dtype=bool), 0, shares)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:3]
    pairs = [(place // size, place % size) for place in order.tolist() if mistakes.flat[place] > 0]
    worst = "; ".join(f"{names[a]} taken for {names[b]}: {100 * shares[a, b]:.1f} %" for a, b in pairs)
    seeds = "first seed" if len(found) == 1 else f"{len(found)} seeds together"
    return Matrix(
        row.full_name,
        f"{row.protocol}, {written(row.mean or 0.0, row.metric)} %, {seeds}",
        names[:size],
        [[(_percent(share), share) for share in row] for row in shares.tolist()] if size <= MAX_CLASSES else [],
        [
            (name, f"{100 * share:.2f}" if images else "-", images // len(found))
            for name, share, images in zip(names, shares.diagonal().tolist(), counts.sum(axis=1).tolist())
        ],
        worst or "no mistakes",
    )


def _percent(share: float) -> str:
    """Rounded; nothing for what rounds to 0."""
    text = f"{100 * share:.0f}"
    return "" if text == "0" else text


def _predictions(record: Record, runs: t.Mapping[str, RunDirectory], damaged: Damaged) -> dict[str, Array] | None:
    run = runs.get(record.key)
    if run is None or record.predictions is None or not record.test_images:
        return None
    return _noted(damaged, run.path / record.predictions, lambda: predictions.beside(record, run.path))


# ---- maps -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Map:
    title: str
    charts: list[tuple[str, Markup]]  # what it is, and it
    classes: list[tuple[int, str]]


def maps(name: str, tap: str, run: RunDirectory, damaged: Damaged, *, tsne: bool) -> Map | None:
    """Test images where their features lie: their first two principal components, and t-SNE if asked for."""
    view = _view(run, tap, damaged)
    if view is None or not view["variance_shares"].any():
        return None
    classes, labels, projection = view["classes"].tolist(), view["labels"].tolist(), view["projection"]
    flat = projection[:, :2] if projection.shape[1] > 1 else np.pad(projection, ((0, 0), (0, 1)))
    share = 100 * float(view["variance_shares"][:2].sum())
    drawn = [
        (
            f"PCA: {share:.0f} % of the variance",
            charts.scatter(
                flat.tolist(), labels, classes, f"PCA map of {len(labels)} test images, {name}, coloured by class."
            ),
        )
    ]
    placed = _tsne(projection[:TSNE_POINTS]) if tsne else None
    if placed is not None:
        about = f"t-SNE map of {len(placed)} test images, {name}, coloured by class."
        drawn.append(("t-SNE", charts.scatter(placed.tolist(), labels[: len(placed)], classes, about)))
    return Map(name, drawn, [(one, classes[one]) for one in sorted(set(labels))])


def _tsne(rows: Array) -> Array | None:
    """None for too few rows to have neighbourhoods."""
    if len(rows) < 10 or rows.shape[1] < 2:
        return None
    from sklearn.manifold import TSNE  # noqa: PLC0415 - slow to import
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # noqa: PLC0415

    perplexity = min(30.0, (len(rows) - 1) / 3)
    with threadpool_limits(1):  # several help few points little, and spin where the machine is busy
        return TSNE(init="pca", perplexity=perplexity, max_iter=TSNE_STEPS, random_state=0).fit_transform(rows)


# ---- pictures ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    title: str
    about: str  # in place of it, for who cannot see it
    source: str  # a data: URI
    width: int
    height: int
    frames: list[tuple[float, float, float, float]]  # x, y, width and height of what is marked in it


def neighbours(name: str, tap: str, run: RunDirectory, damaged: Damaged) -> tuple[Picture, str] | None:
    """Test images with their nearest training images, those of another class framed; and how many those are."""
    view = _view(run, tap, damaged)
    picture = _picture(run, run.neighbours(tap), damaged)
    if view is None or picture is None:
        return None
    queries, found, classes = view["query_labels"], view["neighbour_labels"], view["classes"].tolist()
    source, width, height, gap = picture
    rows, columns = len(found), 1 + found.shape[1]
    across, down = (width + gap) / columns, (height + gap) / rows
    wrong = found != queries[:, None]
    frames = [
        (across * (column + 1), down * row, across - gap, down - gap) for row, column in np.argwhere(wrong).tolist()
    ]
    pairs = (
        f"{classes[query]}: {' '.join(classes[one] for one in near)}"
        for query, near in zip(queries.tolist(), found.tolist())
    )
    about = f"Nearest training images of {rows} test images, {name}. Class, then its neighbours': {'; '.join(pairs)}."
    note = f"{found.size - int(wrong.sum())} of {found.size} neighbours are of the test image's class"
    return Picture(name, about, source, width, height, frames), note


PICTURES = {
    "reconstructions": "Test images, each above its reconstruction",
    "samples": "Samples",
    "interpolations": "Interpolations between two codes, left to right",
}


def picture_files(run: RunDirectory) -> list[Path]:
    """Where a run keeps what its generator makes."""
    return [run.pictures / f"{kind}.png" for kind in PICTURES]


def pictures(name: str, run: RunDirectory, damaged: Damaged) -> t.Iterator[Picture]:
    """What the encoder's generator makes."""
    for (kind, text), path in zip(PICTURES.items(), picture_files(run)):
        picture = _picture(run, path, damaged)
        if picture:
            source, width, height, _ = picture
            yield Picture(f"{name}: {kind}", f"{text}, {name}.", source, width, height, [])


def within(shown: t.Iterable[T], of: t.Callable[[T], Picture], most: int = PICTURE_BYTES) -> list[T]:
    """The first of these whose pictures are no larger together than `most` bytes; none is drawn after those."""
    kept, left = [], most
    for one in shown:
        left -= len(of(one).source)
        if left < 0:
            break
        kept.append(one)
    return kept


def _picture(run: RunDirectory, path: Path, damaged: Damaged) -> tuple[str, int, int, int] | None:
    """A PNG of a grid as a data: URI with its width, height and gap; each of its pixels once, if it was enlarged."""
    pixels = _noted(damaged, path, lambda: _pixels(run, path))
    if pixels is None:
        return None
    for times in range(8, 1, -1):
        small = pixels[::times, ::times]
        if np.array_equal(small.repeat(times, 0).repeat(times, 1)[: pixels.shape[0], : pixels.shape[1]], pixels):
            pixels = small
            break
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return source, pixels.shape[1], pixels.shape[0], 2


def _pixels(run: RunDirectory, path: Path) -> Array:
    """A PNG's, decoded once its header says that they are not too many. Raises StoreError."""
    content = store.read_kept(run, path, MAX_BYTES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is looked at here
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are shown")
                if image.mode not in ("L", "LA", "RGB", "RGBA"):
                    raise ValueError(f"pixels of the kind {image.mode}; wanted those of a grid of images")
                return np.asarray(image)
    except Exception as error:  # of a damaged file Pillow raises whatever its plugins stumble over
        raise files.StoreError(f"cannot be drawn: {error}", path) from error


def _view(run: RunDirectory, tap: str, damaged: Damaged) -> dict[str, Array] | None:
    """What a run left of a tap's features, if its arrays fit together."""
    path = run.view(tap)
    return _noted(damaged, path, lambda: _checked_view(run, path))


def _checked_view(run: RunDirectory, path: Path) -> dict[str, Array]:
    kept = arrays.read_view(run, path, MAX_BYTES)
    classes = _column(path, kept, "classes", lambda one: one.dtype.kind == "U")
    _column(path, kept, "variance_shares", _are_coordinates)
    points = _column(path, kept, "projection", _are_coordinates, 2)
    labels, queries = (_column(path, kept, name, _are_classes) for name in ("labels", "query_labels"))
    near = _column(path, kept, "neighbour_labels", _are_classes, 2)
    highest = max((int(one.max()) for one in (labels, queries, near) if one.size), default=0)
    fits = labels.size and near.size and len(points) == len(labels) and len(near) == len(queries)
    if not fits or highest >= len(classes) or not points.shape[1]:
        raise files.StoreError("its arrays do not fit together", path)
    return kept


def _column(path: Path, kept: dict[str, Array], name: str, holds: t.Callable[[Array], bool], axes: int = 1) -> Array:
    """An array of a file, if it is of its kind. Raises StoreError."""
    if name not in kept:
        raise files.StoreError(f"it has no array {name!r}", path)
    if kept[name].ndim != axes or not holds(kept[name]):
        raise files.StoreError(f"{name} cannot be {kept[name].dtype} {kept[name].shape} with such values", path)
    return kept[name]


def _are_classes(values: Array) -> bool:
    return values.dtype.kind in "iu" and bool((values >= 0).all())


def _are_coordinates(values: Array) -> bool:
    return values.dtype.kind == "f" and bool((np.abs(values) < MAX_COORDINATE).all())


# ---- curves -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    title: str
    setting: str
    chart: Markup
    header: list[float]
    rows: list[tuple[str, list[str]]]  # the same numbers as a table


def curves(rows: t.Iterable[Row]) -> list[Curve]:
    """Scores over a protocol's number that a suite asks in several sizes (k, labels a class), or over an encoder's.

    An encoder's settings count from three of them on: two are variants, not a curve.
    """
    known: dict[tuple[str, ...], dict[str, dict[float, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        record = row.records[0]
        protocol = f"{record.protocol}@{record.protocol_version}"
        for setting, value, others in _numbers(record.protocol_params):
            known["protocol", protocol, setting, others][row.full_name][value] = row
        for setting, value, others in _numbers(record.params):
            name = f"{record.encoder} · {record.tap}"
            known["encoder", row.protocol or "", setting, json.dumps([record.encoder, others])][name][value] = row
    found = []
    for (kind, protocol, setting, _), by_name in known.items():
        least = 2 if kind == "protocol" else 3
        lines = {name: dict(sorted(at.items())) for name, at in by_name.items() if len(at) >= least}
        if lines:
            means = {name: {value: one.mean or 0.0 for value, one in at.items()} for name, at in lines.items()}
            found.append(curve(protocol, setting, means))
    return found


def curve(protocol: str, setting: str, lines: dict[str, dict[float, float]]) -> Curve:
    best_first = sorted(lines, key=lambda name: -max(lines[name].values()))
    values = sorted({value for at in lines.values() for value in at})
    drawn = [charts.Line(name, list(lines[name]), list(lines[name].values())) for name in best_first]
    logarithmic = values[0] > 0 and values[-1] >= 8 * values[0]
    chart = charts.lines(
        drawn, f"{protocol} over {setting}; the table below has the numbers.", logarithmic=logarithmic, percent=True
    )
    rows = [(name, [f"{100 * lines[name][v]:.2f}" if v in lines[name] else "-" for v in values]) for name in best_first]
    return Curve(protocol, setting, chart, values, rows)


def _numbers(params: dict[str, t.Any]) -> t.Iterator[tuple[str, float, str]]:
    """Every number among parameters, with the others as text."""
    for name, value in params.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield name, value, json.dumps({other: params[other] for other in sorted(params) if other != name})


def class_names(run: RunDirectory, tap: str, damaged: Damaged) -> list[str] | None:
    """The dataset's, as the run left them."""
    view = _view(run, tap, damaged)
    return None if view is None else view["classes"].tolist()
