"""The harness: suites in, judged runs out. The only package that imports the other three.

For notebooks and scripts, see docs/python.md: `run_suite`, `read_records`, `leaderboard`, `load` and `score`. They are
imported when they are first used, so that `import bench` takes no time.
"""

import importlib
import importlib.util
import typing as t
from pathlib import Path

if t.TYPE_CHECKING:
    from bench.notebook import leaderboard, load, read_records, run_suite, score

__all__ = ["leaderboard", "load", "read_records", "run_suite", "score"]

HOME = Path(__file__).resolve().parent.parent

# `encoders` and `results` are also the names of other people's packages; half of theirs and half of ours would be worse
# than nothing.
for _name in ("encoders", "protocols", "results"):
    _spec = importlib.util.find_spec(_name)
    _found = Path(_spec.origin).resolve().parent.parent if _spec and _spec.origin else None
    if _found != HOME:
        raise ImportError(
            f"frostbench's package {_name!r} should come from {HOME} but comes from {_found or 'nowhere'}: another "
            f"distribution or folder named {_name!r} precedes it on sys.path; rename or uninstall it"
        )


def __getattr__(name: str) -> t.Any:
    if name in __all__:
        return getattr(importlib.import_module("bench.notebook"), name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
