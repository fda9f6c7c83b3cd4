"""What there is to put into a suite, in words: the lists and descriptions that the command line prints."""

import json
import typing as t
from pathlib import Path

from bench import resolve, suite
from bench.data import DATASETS
from encoders.base import Encoder
from protocols.base import Protocol


class UnknownName(Exception):
    """Nothing is called so; the message says what comes nearest."""


def listing(kind: t.Literal["encoders", "protocols", "datasets", "suites"], plugins: t.Sequence[Path] = ()) -> str:
    """A line each: the name and what it is."""
    if kind == "datasets":
        return _aligned(DATASETS)
    if kind == "suites":
        return _aligned({name: _about(path) for name, path in suite.shipped().items()})
    recipes: dict[str, t.Any] = resolve.encoders(plugins) if kind == "encoders" else resolve.protocols(plugins)
    return _aligned({name: _first_line(recipe) for name, recipe in recipes.items()})


def description(name: str, plugins: t.Sequence[Path] = ()) -> str:
    """What an encoder or a protocol is, where it comes from, its taps, and every parameter with its default.

    Raises UnknownName with the nearest name for one that does not exist.
    """
    recipes: dict[str, type[Encoder] | type[Protocol]] = {}
    recipes |= resolve.protocols(plugins)
    recipes |= resolve.encoders(plugins)
    if name in DATASETS:
        return f"{name}: {DATASETS[name]}"
    if name not in recipes:
        choices = [*recipes, *DATASETS]
        hint = resolve.nearest(name, choices) or "; frostbench list encoders (or protocols, datasets) shows them"
        raise UnknownName(f"nothing is called {name!r}{hint}")
    recipe = recipes[name]
    kind = "encoder" if issubclass(recipe, Encoder) else "protocol"
    lines = [f"{name} ({kind}, version {recipe.version}): {_first_line(recipe)}", f"source: {recipe.source}"]
    if issubclass(recipe, Encoder):
        lines.append(f"taps: {_taps(recipe)}")
        if recipe.is_control:
            lines.append("a control: pinned in every table")
    notes = resolve.notes(recipe)
    parameters = {
        f"{field} = {'(required)' if info.is_required() else _yaml(info.get_default(call_default_factory=True))}":
        notes.get(field, "")
        for field, info in recipe.model_fields.items()
    }  # fmt: skip
    return "\n".join([*lines, "parameters:" if parameters else "no parameters", _aligned(parameters, "  ")]).rstrip()


def _taps(recipe: type[Encoder]) -> str:
    try:
        return ", ".join(recipe().taps)
    except ValueError:  # a parameter has no default
        return "depend on its parameters"


def _about(path: Path) -> str:
    """The comment under a suite's first line."""
    comments = [line[1:].strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    about = " ".join(line for line in comments if not line.startswith("yaml-language-server"))
    return about.partition(". ")[0].rstrip(".")


def _first_line(recipe: type) -> str:
    return (recipe.__doc__ or "").strip().partition("\n")[0]


def _yaml(value: t.Any) -> str:
    """A default as one would write it in a suite."""
    return value if isinstance(value, str) else json.dumps(value)


def _aligned(rows: dict[str, str], indent: str = "") -> str:
    width = max(map(len, rows), default=0)
    return "\n".join(f"{indent}{name:<{width}}  {about}".rstrip() for name, about in rows.items())
