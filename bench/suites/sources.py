"""The files whose code a plugin runs: its own, and those that it imports and that come with no package."""

import ast
import contextlib
import importlib.util
import pkgutil
import sys
import sysconfig
import traceback
import typing as t
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from bench import HOME

OURS = [HOME / name for name in ("bench", "encoders", "protocols", "results")]
STANDARD = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]


def sources(plugin: Path) -> dict[str, Path]:
    """{the name of a module: its file}, that of the plugin by the name "".

    An import counts wherever in a file it stands, and in the files that are imported; none is run. It is looked up as
    Python does, and then beside the plugin. Left out is what has a version: the standard library, installed packages
    and ours. A name that is computed is not seen.
    """
    found, left = {"": plugin}, [(plugin, "")]
    while left:
        path, package = left.pop()
        for name in _imports(path, package):
            for module, spec in _chain(name, plugin.parent):
                file = Path(spec.origin or "")
                if module not in found and file.is_file():
                    found[module] = file
                    left.append((file, module if spec.submodule_search_locations else module.rpartition(".")[0]))
    return dict(sorted(found.items()))


def _imports(path: Path, package: str) -> t.Iterator[str]:
    """What a file imports: modules, and names that may be modules; `a.*` for all that there is in a."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError):  # which Python will say, or it is compiled
        return
    for node in nodes:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names = [f"{module}{'' if module.endswith('.') else '.'}{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            names = [str(node.args[0].value)] if called in ("import_module", "__import__") else []
        for name in names:
            with contextlib.suppress(ImportError):  # above the topmost package
                yield importlib.util.resolve_name(name, package)


def _chain(name: str, beside: Path) -> t.Iterator[tuple[str, ModuleSpec]]:
    """Of `a.b.c`, those among a, a.b and a.b.c that are modules and come with no package, each with its whole name."""
    whole, inside = "", [str(beside)]
    for part in name.split("."):
        if part == "*":
            for each in pkgutil.iter_modules(inside):
                yield from _chain(f"{whole}.{each.name}", beside)
            return
        spec = (None if whole else _found(part)) or PathFinder.find_spec(
            part, inside
        )  # imports no package, as a.b would
        if spec is None or _has_version(spec):
            return
        whole, inside = f"{whole}.{part}".lstrip("."), list(spec.submodule_search_locations or [])
        yield whole, spec


def _found(name: str) -> ModuleSpec | None:
    """What an import would find, were nothing imported yet."""
    for finder in sys.meta_path:
        with contextlib.suppress(
            AttributeError, ImportError, ValueError
        ):  # of an odd finder, which an import would meet
            if spec := finder.find_spec(name, None):
                return spec
    return None


def _has_version(spec: ModuleSpec) -> bool:
    if spec.origin in ("built-in", "frozen"):
        return True
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or [])
    return all(map(_is_installed, places))


def _is_installed(place: str) -> bool:
    path = Path(place).resolve()
    return bool({"site-packages", "dist-packages"} & set(path.parts)) or any(
        path.is_relative_to(known) for known in (*OURS, *STANDARD)
    )


def imports(package: str, files: t.Iterable[Path]) -> bool:
    """Whether any of the files imports the package, or a part of it."""
    return any(name.partition(".")[0] == package for file in files for name in _imports(file, ""))


def place(error: BaseException) -> str:
    """`mine.py, line 12`: where code that comes with no package raised an error, or called what did; "" if none did."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_file() and not _is_installed(frame.filename):
            shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
            return f"{shown}, line {frame.lineno}"
    return ""
