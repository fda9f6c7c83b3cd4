"""The harness: suites in, judged runs out. The only package that imports the other three."""

import importlib.util
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent

# `encoders` and `results` are also the names of other people's packages; half of theirs and half of ours would be worse
# than nothing.
for _name in ("encoders", "protocols", "results"):
    _spec = importlib.util.find_spec(_name)
    _found = Path(_spec.origin).resolve().parent.parent if _spec and _spec.origin else None
    if _found != HOME:
        raise ImportError(
            f"frostbench's package {_name!r} should come from {HOME} and comes from {_found or 'nowhere'}: another "
            f"distribution or a folder called {_name!r} stands before it; rename or uninstall that"
        )
