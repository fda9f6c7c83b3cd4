"""torchvision: mended where its build lacks its operators, untouched where it is whole, imported in one place only."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]


def run(code: str, *, before: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The code in a fresh interpreter, a folder of packages ahead of the installed ones."""
    first = f"import sys; sys.path.insert(0, {str(before)!r})\n" if before else ""
    return subprocess.run([sys.executable, "-c", first + code], capture_output=True, text=True, check=False, cwd=ROOT)


def fake(folder: Path, body: str) -> Path:
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(body)
    return folder


def test_transforms_and_grids_work_here() -> None:
    from bench.datasets import _torchvision

    v2 = importlib.import_module("torchvision.transforms.v2.functional")
    assert v2.horizontal_flip(torch.arange(6).reshape(1, 2, 3)).tolist() == [[[2, 1, 0], [5, 4, 3]]]
    assert v2.to_pil_image(np.zeros((4, 5, 3), np.uint8)).size == (5, 4)
    grid = _torchvision.torchvision.utils.make_grid(torch.zeros(6, 1, 4, 4), nrow=3, padding=0)
    assert grid.shape == (3, 8, 12)


def test_it_stands_in_only_for_what_is_missing() -> None:
    code = """
import importlib
try:
    importlib.import_module("torchvision")
except RuntimeError:
    whole = False  # and somebody else's failed import is mended too
else:
    whole = True
from bench.datasets import _torchvision
assert (_torchvision.stand_in is None) == whole, (whole, _torchvision.stand_in)
assert sys.modules["torchvision"] is _torchvision.torchvision
"""
    result = run(f"import sys\n{code}")
    assert result.returncode == 0, result.stderr


def test_a_whole_torchvision_is_left_alone_and_other_errors_are_raised(tmp_path: Path) -> None:
    errors = [
        "RuntimeError('operator torchvision::roi_align does not exist')",
        "RuntimeError('something else')",
        "ImportError('libcudart.so.13: cannot open shared object file')",
    ]
    code = f"""
import importlib, pathlib, torch
for error in {errors!r}:
    pathlib.Path({str(tmp_path)!r}, "torchvision", "__init__.py").write_text("raise " + error)
    importlib.invalidate_caches()
    try:
        importlib.import_module("bench.datasets._torchvision")
    except (RuntimeError, ImportError) as caught:
        assert repr(caught) == error, caught
    else:
        raise AssertionError(error)
pathlib.Path({str(tmp_path)!r}, "torchvision", "__init__.py").write_text("whole = True")
importlib.invalidate_caches()
from bench.datasets import _torchvision
assert _torchvision.torchvision.whole
assert _torchvision.stand_in is None
assert not hasattr(torch.ops.torchvision, "nms")
"""
    result = run(f"import sys; sys.dont_write_bytecode = True\n{code}", before=fake(tmp_path, ""))
    assert result.returncode == 0, result.stderr


def test_missing_operators_are_stood_in_for_once(tmp_path: Path) -> None:
    body = """
import torch
from . import half
torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: dets)
torch.library.register_fake("torchvision::qnms")(lambda dets, scores, iou_threshold: dets)
"""
    fake(tmp_path, body)
    (tmp_path / "torchvision" / "half.py").write_text("import torchvision as parent")
    code = """
from bench.datasets import _torchvision
assert _torchvision.stand_in is not None
assert _torchvision.torchvision.half.parent is _torchvision.torchvision  # nothing is left of the failed import
"""
    result = run(code, before=tmp_path)
    assert result.returncode == 0, result.stderr


MINE = """
{imports}
from encoders.pixels import Pixels

class Mine(Pixels):
    pass
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import torchvision",
        "from torchvision import half",
        "try:\n    import torchvision\nexcept Exception:\n    raise SystemExit('gave up')",
        "import models",  # of a package that imports it
    ],
)
def test_a_plugin_may_import_it_before_ours_does(tmp_path: Path, imports: str) -> None:
    body = """
import torch
from . import half
torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: dets)
"""
    packages = tmp_path / "site-packages"
    packages.mkdir()
    fake(packages, body)
    (packages / "torchvision" / "half.py").write_text("import torchvision as parent")
    (packages / "models").mkdir()
    (packages / "models" / "__init__.py").write_text("import torchvision")
    plugin = tmp_path / "mine.py"
    plugin.write_text(MINE.format(imports=imports))
    code = f"""
from pathlib import Path
from bench.suites import resolve
assert "bench.datasets._torchvision" not in sys.modules
assert "mine" in resolve.encoders([Path({str(plugin)!r})])
from bench.datasets import _torchvision
assert _torchvision.torchvision is sys.modules["torchvision"]
assert _torchvision.torchvision.half.parent is _torchvision.torchvision
"""
    result = run(code, before=packages)
    assert result.returncode == 0, result.stderr


def test_a_plugin_without_it_does_not_wait_for_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE.format(imports=""))
    code = "from pathlib import Path; from bench.suites import resolve; resolve.encoders([Path('mine.py')])"
    script = f"import os; os.chdir({str(tmp_path)!r}); {code}; sys.exit('torchvision' in sys.modules)"
    assert run(f"import sys; {script}").returncode == 0


def test_an_error_that_stays_is_raised_not_repeated(tmp_path: Path) -> None:
    always = "raise RuntimeError('operator torchvision::nms does not exist')"
    result = run("from bench.datasets import _torchvision", before=fake(tmp_path, always))
    assert result.returncode == 1
    assert result.stderr.strip().endswith("operator torchvision::nms does not exist")


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_no_other_file_imports_it() -> None:
    packages = ("bench", "encoders", "protocols", "results")
    files = [file for package in packages for file in (ROOT / package).rglob("*.py")]
    assert ROOT / "bench" / "datasets" / "__init__.py" in files
    strays = [str(file) for file in files if any(name.split(".")[0] == "torchvision" for name in imported(file))]
    assert strays == []
