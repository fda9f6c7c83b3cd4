"""Charts as inline SVG: no library, no fixed colours. They take their colours from the page's style sheet."""

import math
import typing as t
from dataclasses import dataclass

from markupsafe import Markup, escape

HUES = 5  # of the style sheet, told apart by colour-blind readers; with SHAPES they tell 20 classes apart
DASHES = ("", "6 3", "2 3", "8 3 2 3")
SHAPES = (
    "h0",
    "m-2.2-2.2l4.4 4.4m0-4.4l-4.4 4.4",
    "m0-2.6l2.6 4.6h-5.2z",
    "m-2.2-2.2h4.4v4.4h-4.4z",
)  # dot, cross, ...


@dataclass(frozen=True)
class Line:
    """A line of a chart; lines of one name share their colour and are named once."""

    name: str
    x: t.Sequence[float]
    y: t.Sequence[float]


@dataclass(frozen=True)
class Scale:
    """From values to 0..1, clipped to it."""

    low: float
    high: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        low, high, here = (self._bent(one) for one in (self.low, self.high, value))
        return min(1.0, max(0.0, (here - low) / (high - low)))

    def _bent(self, value: float) -> float:
        return math.log(value) if self.logarithmic else value

    def ticks(self, about: int = 4) -> list[float]:
        """Round values inside the scale: 1, 2 or 5 times a power of ten apart."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            every = [one * 10.0**power for power in powers for one in ((1, 2, 5) if len(powers) <= 4 else (1,))]
        else:
            raw = (self.high - self.low) / about
            power = 10.0 ** math.floor(math.log10(raw))
            step = next(one * power for one in (1, 2, 5, 10) if one * power >= raw * 0.999)
            every = [n * step for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        slack = (self.high - self.low) * 1e-9
        return [tick for tick in every if self.low - slack <= tick <= self.high + slack]


def scale(values: t.Iterable[float], margin: float = 0.06, logarithmic: bool = False) -> Scale:
    """One that holds all these values, with a margin of its length on either side."""
    known = list(values)
    low, high = min(known), max(known)
    if logarithmic:
        return Scale(low, high, True) if low < high else Scale(low / 2, high * 2, True)
    pad = (high - low) * margin if low < high else abs(high) * 0.1 or 1.0
    return Scale(low - pad, high + pad)


def number(value: float, digits: int = 4) -> str:
    """Short, as an axis has it: 0.25, 40, 1,000, 1e+06."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.{digits}g}"


def ticks_as_text(ticks: t.Sequence[float]) -> list[str]:
    """With as many digits as tell where they are, which on a narrow scale are more than `number` has."""
    digits = next(n for n in range(4, 18) if n == 17 or all(math.isclose(float(f"{x:.{n}g}"), x) for x in ticks))
    return [number(tick, digits) for tick in ticks]


# ---- means, intervals and seeds ---------------------------------------------------------------------------------


def interval(
    at: Scale, mean: float, low: float | None, high: float | None, values: t.Sequence[float], reference: float | None
) -> Markup:
    """One row of a forest plot, as wide as its place: a bar for the mean, a line for its interval, a ring a seed.

    What lies outside the scale is cut with an arrow. `reference` is a dotted line through every row.
    """
    parts = []
    if reference is not None:
        parts.append(f'<line class="reference" x1="{_share(at(reference))}" x2="{_share(at(reference))}" y2="26"/>')
    if low is not None and high is not None:
        parts.append(f'<line class="interval" x1="{_share(at(low))}" x2="{_share(at(high))}" y1="13" y2="13"/>')
        if low < at.low:
            parts.append('<path class="cut" d="M7 9l-5 4 5 4"/>')
        if high > at.high:
            parts.append('<svg x="100%" overflow="visible"><path class="cut" d="M-7 9l5 4-5 4"/></svg>')
    parts += [f'<circle class="seed" cx="{_share(at(value))}" cy="13" r="3.5"/>' for value in values]
    parts.append(f'<line class="mean" x1="{_share(at(mean))}" x2="{_share(at(mean))}" y1="5" y2="21"/>')
    return Markup(f'<svg class="track" width="100%" height="26" aria-hidden="true">{"".join(parts)}</svg>')  # noqa: S704


def axis(at: Scale, show: t.Callable[[float], str] = number) -> Markup:
    """The numbers below such rows."""
    parts = [
        f'<line x1="{_share(at(tick))}" x2="{_share(at(tick))}" y2="5"/>'
        f'<text x="{_share(at(tick))}" y="18" text-anchor="middle">{escape(show(tick))}</text>'
        for tick in at.ticks()
    ]
    return Markup(f'<svg class="track axis" width="100%" height="22" aria-hidden="true">{"".join(parts)}</svg>')  # noqa: S704


def _share(part: float) -> str:
    return f"{100 * part:.2f}%"


# ---- lines ------------------------------------------------------------------------------------------------------


def lines(
    drawn: t.Sequence[Line], about: str, *, logarithmic: bool = False, percent: bool = False, named: int = 5
) -> Markup:
    """A chart of lines, the first `named` names in colour and with their names at their right ends, the others grey."""
    names = list(dict.fromkeys(line.name for line in drawn))[:named]
    longest = max((len(name) for name in names), default=0)
    across = scale((x for line in drawn for x in line.x), 0.0, logarithmic)
    up = scale(y for line in drawn for y in line.y)
    shown = ticks_as_text([100 * tick if percent else tick for tick in up.ticks()])
    heights = [(tick, f"{text} %" if percent else text) for tick, text in zip(up.ticks(), shown)]
    width, height, top, below = 340, 210, 8, 24
    left = 12 + 6.5 * max(len(text) for _, text in heights)
    right = min(140, 12 + 7 * longest)

    def place(x: float, y: float) -> tuple[float, float]:
        return left + across(x) * (width - left - right), height - below - up(y) * (height - top - below)

    parts = []
    for tick, text in heights:
        y = place(drawn[0].x[0], tick)[1]
        parts.append(f'<line class="grid" x1="{left:.0f}" x2="{width - right:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 5:.0f}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    whole = all(float(x).is_integer() for line in drawn for x in line.x)  # there is no half of an epoch
    last = -math.inf
    for tick in across.ticks(4):
        x = place(tick, drawn[0].y[0])[0]
        if x - last < 28 or (whole and not float(tick).is_integer()):
            continue
        last = x
        parts.append(f'<text x="{x:.1f}" y="{height - 7}" text-anchor="middle">{number(tick)}</text>')
    ends: dict[str, float] = {}
    for line in reversed(drawn):
        style = f"hue{names.index(line.name) % HUES}" if line.name in names else "other"
        dashes = DASHES[names.index(line.name) % len(DASHES)] if line.name in names else ""
        points = [place(x, y) for x, y in zip(line.x, line.y)]
        joined = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(f'<path class="line {style}" stroke-dasharray="{dashes}" d="M{joined}"/>')
        if len(points) == 1 or logarithmic:
            parts += [f'<circle class="spot {style}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points]
        ends[line.name] = points[-1][1]
    beside = sorted((name for name in names if name), key=lambda name: ends[name])
    lowest = height - below - 13 * (len(beside) - 1) + 4
    y = -math.inf
    for order, name in enumerate(beside):
        y = min(max(ends[name] + 4, y + 13), lowest + 13 * order)
        style = f"hue{names.index(name) % HUES}"
        parts.append(f'<text class="{style}" x="{width - right + 6:.0f}" y="{y:.1f}">{escape(_cut(name, 19))}</text>')
    return _svg(width, height, about, parts, "chart")


# ---- points -----------------------------------------------------------------------------------------------------


def scatter(
    points: t.Sequence[t.Sequence[float]], labels: t.Sequence[int], classes: t.Sequence[str], about: str
) -> Markup:
    """A map of points (x, y), a colour and a shape a class, with the class's name at the median of its points."""
    side = 260
    across, up = (scale(point[axis] for point in points) for axis in (0, 1))
    placed = [(across(x) * side, (1 - up(y)) * side) for x, y in points]
    parts, names = [], []
    for one in sorted(set(labels)):
        own = [place for place, label in zip(placed, labels) if label == one]
        shape = SHAPES[one // HUES % len(SHAPES)]
        path = "".join(f"M{x:.0f} {y:.0f}{shape}" for x, y in own)
        style = "dots" if shape == SHAPES[0] else "marks"
        parts.append(f'<path class="{style} hue{one % HUES}" data-class="{one}" d="{path}"/>')
        x, y = (sorted(place[axis] for place in own)[len(own) // 2] for axis in (0, 1))
        names.append(
            f'<text class="name" data-class="{one}" x="{x:.0f}" y="{y + 4:.0f}">{escape(_cut(classes[one], 10))}</text>'
        )
    return _svg(side, side, about, [*parts, *names], "map")


def swatch(one: int) -> Markup:
    """The mark of a class, as maps have it."""
    shape = SHAPES[one // HUES % len(SHAPES)]
    style = "dots" if shape == SHAPES[0] else "marks"
    return Markup(  # noqa: S704
        f'<svg class="swatch" width="12" height="12" aria-hidden="true">'
        f'<path class="{style} hue{one % HUES}" d="M6 6{shape}"/></svg>'
    )


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _svg(width: float, height: float, about: str, parts: t.Sequence[str], style: str) -> Markup:
    return Markup(  # noqa: S704 - every text among the parts is escaped where it is made
        f'<svg class="{style}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(about)}">'
        f"{''.join(parts)}</svg>"
    )
