"""From a name to the class it means: ours by file name, a plugin's by class name, a package's by its entry point.

A suite file is data and names only what is found here. What runs code is said elsewhere: a plugin on the command line,
an entry point (`frostbench.encoders`, `frostbench.protocols`) by installing its package.
"""

import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import pkgutil
import re
import sys
import traceback
import types
import typing as t
import warnings
from pathlib import Path

from bench.errors import ConfigError, Problem, config_error
from bench.suites.sources import imports, sources
from encoders.base import Encoder
from encoders.loading import defined, plugin_encoders
from protocols.base import Protocol

NOT_METHODS = {"encoders.sklearn"}  # holds no method, and scikit-learn takes seconds to import
PLUGIN = "frostbench_plugin_"  # what the modules of plugins are called here
NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"  # names become the names of files

_read: dict[str, dict[str, str]] = {}  # a plugin's module: {module: SHA-256} of what it was imported from
_folders: list[str] = []  # of plugins, as they stand at the end of sys.path
Base = t.TypeVar("Base", bound=Encoder | Protocol)


def encoders(plugins: t.Sequence[Path] = (), *, reread: bool = True) -> dict[str, type[Encoder]]:
    """Every encoder there is, by the name that suites call it, in alphabetical order.

    reread: whether a plugin that was changed since it was imported is imported again. Raises ConfigError for one that
    cannot be read or takes a name that is taken.
    """
    found = _found(Encoder, "encoders", plugins, reread)  # type: ignore[type-abstract]
    plugin_encoders.update({name: one for name, one in found.items() if not one.__module__.startswith("encoders.")})
    return found


def protocols(plugins: t.Sequence[Path] = (), *, reread: bool = True) -> dict[str, type[Protocol]]:
    """Every protocol there is; as `encoders`."""
    return _found(Protocol, "protocols", plugins, reread)  # type: ignore[type-abstract]


def code(recipe: Encoder | Protocol) -> str:
    """A digest of the plugin that a recipe runs, which belongs to every key made with it; "" where none has a part.

    Of a plugin's file, and of those it imports that come with no package; ours and packages have versions instead.
    """
    classes = recipe.runs_code_of if isinstance(recipe, Encoder) else (type(recipe),)
    digests = sorted({_digest(_read[one.__module__]) for one in classes if one.__module__ in _read})
    if len(digests) > 1:
        digests = [hashlib.sha256("".join(digests).encode()).hexdigest()]
    return digests[0][:12] if digests else ""


def _found(base: type[Base], package: str, plugins: t.Sequence[Path], reread: bool) -> dict[str, type[Base]]:
    found = dict(installed(base, package))  # type: ignore[arg-type]
    paths = list(dict.fromkeys(plugin.resolve() for plugin in plugins))
    _check_helpers(paths)
    for path in paths:
        for recipe in defined(_plugin(path, reread), base):
            try:
                _add(found, _snake_case(recipe.__name__), recipe)
            except ValueError as error:
                raise config_error(str(path), str(error)) from error
    return dict(sorted(found.items()))


@functools.cache
def installed(base: type[Base], package: str) -> t.Mapping[str, type[Base]]:
    """The recipes of ours and of installed packages, looked for once a process: to look takes milliseconds."""
    found: dict[str, type[Base]] = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if (name := f"{package}.{module.name}") not in NOT_METHODS:
            for recipe in defined(importlib.import_module(name), base):
                _add(found, module.name, recipe)
    for entry in importlib.metadata.entry_points(group=f"frostbench.{package}"):
        try:
            recipe = entry.load()
            if not (isinstance(recipe, type) and issubclass(recipe, base) and not inspect.isabstract(recipe)):
                raise TypeError(f"wanted a concrete {base.__name__} class, got {recipe!r}")
            _add(found, entry.name, recipe)
        except Exception as error:  # one broken package must not take all suites with it
            warnings.warn(f"cannot load {entry.name!r} of {package} ({entry.value}): {error}", stacklevel=4)
    return types.MappingProxyType(found)


def _check_helpers(plugins: t.Sequence[Path]) -> None:
    """Of two modules of one name Python would import the first for both plugins. Raises ConfigError."""
    if len({plugin.parent for plugin in plugins}) < 2:
        return
    beside: dict[str, tuple[Path, Path]] = {}
    for plugin in plugins:
        _put_first(plugin.parent)
        for part, file in sources(plugin).items() if plugin.is_file() else ():
            other, taken = beside.setdefault(part, (plugin, file)) if part else (plugin, file)
            if taken != file:
                raise config_error(
                    str(plugin), f"imports {file} as {part!r}, but {other} imports {taken} as that; rename one of them"
                )


def _put_first(folder: Path) -> None:
    """Look for modules here before the folders of other plugins, and after all that is installed."""
    place = str(folder)
    if place in sys.path and place not in _folders:  # where the user has it
        return
    for other in _folders:
        with contextlib.suppress(ValueError):
            sys.path.remove(other)
    _folders[:] = [place, *(other for other in _folders if other != place)]
    sys.path.extend(_folders)


def _add(found: dict[str, type[Base]], name: str, recipe: type[Base]) -> None:
    if not re.fullmatch(NAME, name):
        raise ValueError(f"class {recipe.__name__}: {name!r} is not a valid name; wanted {NAME}")
    if not isinstance(getattr(recipe, "source", None), str):
        raise ValueError(f"class {recipe.__name__}: wanted `source: t.ClassVar[str]`, where the method comes from")
    if name in found:
        taken = found[name]
        raise ValueError(f"class {recipe.__name__}: {name!r} is {taken.__module__}.{taken.__name__}; rename the class")
    if reserved := recipe.model_fields.keys() & {"name", "label"}:
        raise ValueError(f"class {recipe.__name__}: {min(reserved)!r} is a key of suites; rename the parameter")
    found[name] = recipe


def _plugin(path: Path, reread: bool) -> types.ModuleType:
    """The module of a Python file, imported once a process, and again where it or what it imports has changed."""
    name = f"{PLUGIN}{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules and not reread:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        came = "a file of another kind" if path.is_file() else "a directory" if path.is_dir() else "no such file"
        raise config_error(str(path), f"wanted a Python file (.py), got {came}")
    _put_first(path.parent)  # for what it imports from beside it
    files = sources(path)
    digests = {part: hashlib.sha256(file.read_bytes()).hexdigest() for part, file in files.items()}
    if name in sys.modules and digests == _read[name]:
        return sys.modules[name]
    if name in sys.modules or any(_is_another(part, files[part], digests[part]) for part in files):
        _forget(files)
    _read[name] = digests
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # where pydantic and pickle look it up
    try:
        if imports("torchvision", files.values()):
            _mend_torchvision()
        try:
            spec.loader.exec_module(module)
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            _mend_torchvision()  # which a package imports that the plugin imports
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        frames = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else frames[-1] if frames else None
        message = f"cannot be imported; {type(error).__name__}: {error}"
        raise ConfigError([Problem(str(path), line, None, (), message)]) from error
    if not any(defined(module, base) for base in (Encoder, Protocol)):
        del sys.modules[name]
        message = "wanted a subclass of encoders.base.Encoder or protocols.base.Protocol, found none"
        raise config_error(str(path), message)
    return module


def _is_another(part: str, file: Path, digest: str) -> bool:
    """Whether a module of this name was imported for a plugin as the file was before, or from another file."""
    spec = getattr(sys.modules.get(part), "__spec__", None)
    read = {each[part] for each in _read.values() if part and part in each}
    return spec is not None and (spec.origin != str(file) or bool(read - {digest}))


def _forget(files: dict[str, Path]) -> None:
    """Import these modules anew, also where Python would take the compiled file: of the same second and size."""
    for part, file in files.items():
        package, _, name = part.rpartition(".")
        sys.modules.pop(part, None)
        vars(sys.modules.get(package, types.ModuleType(""))).pop(name, None)
        with contextlib.suppress(OSError, NotImplementedError):
            Path(importlib.util.cache_from_source(str(file))).unlink()
    importlib.invalidate_caches()


def _digest(read: dict[str, str]) -> str:
    """Of the files of a plugin; of one file that of its content."""
    return read[""] if len(read) == 1 else hashlib.sha256(json.dumps(read).encode()).hexdigest()


def _mend_torchvision() -> None:
    with contextlib.suppress(ImportError, RuntimeError, OSError):  # the plugin meets it, too, if it cannot do without
        importlib.import_module("bench.datasets._torchvision")


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
