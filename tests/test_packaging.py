"""What users install: the wheel's contents, that it runs away from the checkout, and that nobody shadows it."""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("bench", "encoders", "protocols", "results")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("frostbench-*.whl")
    return path


def test_the_wheel_holds_the_four_packages_the_page_and_the_suites(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {path.relative_to(ROOT).as_posix() for one in PACKAGES for path in (ROOT / one).rglob("*.py")}
    typed = {f"{package}/py.typed" for package in PACKAGES}
    configs = {f"bench/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.*")}
    about = {name for name in names if ".dist-info/" in name}
    page = {f"results/report/page.{suffix}" for suffix in ("html", "css", "js")}
    assert names - about == sources | typed | page | configs
    assert any(name.endswith("licenses/LICENSE") for name in about)


def test_the_wheel_runs_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, with this one's dependencies lent to it."""
    home = tmp_path / "env"
    venv.create(home, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    lent = [path for path in sys.path if path.endswith("site-packages")]
    away = tmp_path / "away"
    away.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PYTHONPATH"] = os.pathsep.join([str(site), *lent])

    def frostbench(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "bench", *arguments]
        return subprocess.run(command, cwd=away, env=environment, capture_output=True, text=True, check=False)

    only = "[{name: pixels}]"
    done = frostbench("run", "smoke", "--set", f"encoders={only}", "--set", "wandb.mode=off", "--limit", "200")
    assert done.returncode == 0, done.stderr
    rows = json.loads((away / "runs" / "smoke" / "leaderboard.json").read_text())
    assert {row["encoder"] for row in rows} == {"pixels"}


def test_the_citation_has_the_version_and_the_workflow_names_targets_that_exist() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert set(workflow["jobs"]) == {"lint", "test", "lowest"}
    steps = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    targets = {step.removeprefix("make ") for step in steps if step.startswith("make ")}
    makefile = (ROOT / "Makefile").read_text()
    assert targets and all(f"\n{target}:" in makefile for target in targets)


@pytest.mark.parametrize("name", ["encoders", "protocols", "results"])
def test_a_package_of_the_same_name_in_front_of_ours_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-P", "-c", "import bench"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"frostbench's package '{name}' should come from {ROOT} but comes from {tmp_path}" in done.stderr


def test_the_help_answers_at_once() -> None:
    """Heavy imports are lazy: the command line alone brings none of them."""
    heavy = ("torch", "numpy", "pandas", "sklearn", "wandb", "pydantic", "rich.progress")
    code = f"import sys, bench.__main__; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()
