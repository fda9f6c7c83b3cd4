"""Names become the classes they mean: ours, a plugin file's, an installed package's; everything else is refused."""

import hashlib
import importlib.metadata
import pickle
import sys

import pytest

from bench.errors import ConfigError, nearest
from bench.suites import resolve
from bench.suites.sources import sources
from encoders.base import Encoder
from encoders.pixels import Pixels

ENCODER = '''
from __future__ import annotations
from encoders.base import Encoder, frozen
from encoders.pixels import Pixels

class {name}(Encoder):
    """One feature."""

    source = "a test"
    width: int = 3
    deep: tuple[int, ...] = (1, 2)

    @property
    def taps(self):
        return ("mean",)

    def build(self, shape):
        raise NotImplementedError

    def fit(self, train, run):
        raise NotImplementedError
'''

PROTOCOL = '''
from protocols.base import Protocol

class Majority(Protocol):
    """The most frequent class."""

    source = "a test"

    def score(self, train, test, *, seed):
        raise NotImplementedError
'''


@pytest.fixture
def plugin(tmp_path):
    def written(text, name="mine.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    before = set(sys.modules)
    yield written
    for name in [name for name in sys.modules if name.startswith("frostbench_plugin_")]:
        del sys.modules[name]
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__path__", getattr(sys.modules[name], "__file__", ""))):
            del sys.modules[name]


def test_our_encoders_are_named_by_their_files():
    found = resolve.encoders()
    assert found["pixels"] is Pixels
    assert list(found) == sorted(found)
    assert all(
        issubclass(recipe, Encoder) and recipe.__module__ == f"encoders.{name}" for name, recipe in found.items()
    )
    assert not {"base", "training", "networks"} & found.keys()


def test_every_method_of_the_first_set_is_there():
    assert {"pixels", "untrained", "pca", "autoencoder", "gan", "dcgan", "bigan", "aae"} <= resolve.encoders().keys()
    assert {"linear", "knn"} <= resolve.protocols().keys()


@pytest.mark.parametrize(
    ("class_name", "name"),
    [("MyEncoder", "my_encoder"), ("NADE", "nade"), ("VAE2Small", "vae2_small"), ("BetaVAE", "beta_vae")],
)
def test_a_plugin_is_named_by_its_class_in_snake_case(plugin, class_name, name):
    path = plugin(ENCODER.format(name=class_name))
    new = resolve.encoders([path]).keys() - resolve.encoders().keys()
    assert new == {name}
    assert resolve.protocols([path]) == resolve.protocols()


def test_a_plugin_is_the_same_class_each_time_and_can_be_sent_to_workers(plugin):
    path = plugin(ENCODER.format(name="Mine"))
    first = resolve.encoders([path, path])["mine"]
    assert resolve.encoders([path])["mine"] is first
    assert pickle.loads(pickle.dumps(first(width=4))) == first(width=4)


def test_a_plugin_may_be_a_protocol(plugin):
    path = plugin(PROTOCOL)
    assert "majority" in resolve.protocols([path])
    assert resolve.encoders([path]) == resolve.encoders()


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("x = 1\nraise SystemExit(0)\n", 2, "SystemExit"),
        ("x = 1\n\nimport no_such_module_here\n", 3, "no_such_module_here"),
        ("def f(:\n", 1, "SyntaxError"),
        ("x = 1\n", None, "found none"),
        ("from encoders.pixels import Pixels\n", None, "found none"),
        (ENCODER.format(name="_Private"), None, "found none"),
        (
            ENCODER.format(name="Pixels").replace("from encoders.pixels import Pixels\n", ""),
            None,
            "encoders.pixels.Pixels",
        ),
        (ENCODER.format(name="Größe"), None, "not a valid name"),
        (ENCODER.format(name="Mine").replace("width:", "label:"), None, "'label'"),
    ],
)
def test_a_plugin_that_cannot_be_used_says_why(plugin, text, line, says):
    path = plugin(text)
    with pytest.raises(ConfigError) as caught:
        resolve.encoders([path])
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == (str(path), line)
    assert says in problem.message


def test_a_plugin_that_is_no_python_file_says_what_it_is(plugin, tmp_path):
    for path, came in (
        (tmp_path / "none.py", "no such file"),
        (tmp_path, "a directory"),
        (plugin("", "a.txt"), "another kind"),
    ):
        with pytest.raises(ConfigError, match=came):
            resolve.encoders([path])


@pytest.mark.parametrize(
    ("name", "value", "left_out"),
    [
        ("installed", "encoders.pixels:Pixels", None),
        ("pixels", "encoders.pixels:Pixels", "rename"),
        ("broken", "no_such_module_here:Thing", "no_such_module_here"),
        ("odd", "encoders.base:derive_seed", "wanted a concrete Encoder"),
        ("abstract", "encoders.base:Encoder", "wanted a concrete Encoder"),
        ("Bad Name", "encoders.pixels:Pixels", "not a valid name"),
    ],
)
def test_an_installed_package_adds_encoders_and_a_broken_one_is_left_out(monkeypatch, name, value, left_out, request):
    def entry_points(group):
        entry = importlib.metadata.EntryPoint(name, value, group)
        return [entry] if group == "frostbench.encoders" else []

    before = resolve.encoders()
    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    resolve.installed.cache_clear()
    request.addfinalizer(resolve.installed.cache_clear)
    if left_out:
        with pytest.warns(UserWarning, match=left_out):
            assert resolve.encoders() == before
    else:
        assert resolve.encoders() == before | {name: Pixels}


@pytest.mark.parametrize("known", [resolve.encoders, resolve.protocols])
def test_every_parameter_has_a_help_text(known):
    fields = {f"{name}.{key}": field for name, recipe in known().items() for key, field in recipe.model_fields.items()}
    assert [parameter for parameter, field in fields.items() if not field.description] == []


def test_the_help_text_of_a_plugins_parameter_is_the_docstring_under_it(plugin):
    text = ENCODER.format(name="Mine").replace(
        "    deep:", '    depth: int = 2\n    """Number of layers."""\n    deep:'
    )
    mine = resolve.encoders([plugin(text)])["mine"]
    assert mine.model_fields["depth"].description == "Number of layers."


# ---- the code of a plugin ----------------------------------------------------------------------------------------


def mine(imports, name="Mine"):
    return ENCODER.format(name=name).replace("from encoders.base", f"{imports}\nfrom encoders.base", 1)


def key(path):
    return resolve.code(resolve.encoders([path])["mine"]())


def test_a_plugin_without_helpers_has_the_digest_of_its_file(plugin):
    path = plugin(mine("import os, json, torch, numpy.linalg, encoders.pca"))
    assert sources(path) == {"": path}
    assert key(path) == hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    assert resolve.code(Pixels()) == ""


IMPORTS = {  # how the plugin imports, and which of the files beside it then have a part in it
    "import one": {"one"},
    "from one import two": {"one"},
    "import pack.inner": {"pack", "pack.inner", "pack.other"},  # the inner module imports the other
    "from pack import inner as x": {"pack", "pack.inner", "pack.other"},
    "from pack import *": {"pack", "pack.inner", "pack.other"},
    "import importlib; importlib.import_module('pack.other')": {"pack", "pack.other"},
    "import bare.deep.leaf": {"bare.deep.leaf", "one"},  # without any __init__.py
    "def late():\n    import two": {"two", "one"},
    "try:\n    import absent\nexcept ImportError:\n    import one": {"one"},
}


@pytest.fixture
def helpers(plugin, tmp_path, monkeypatch):
    files = {
        "one": "FACTOR = 1\ntwo = 2\n",
        "two": "def f():\n    from one import FACTOR\n    return FACTOR\n",
        "pack/__init__": "__all__ = ['inner', 'other']\n",
        "pack/inner": "from . import other\n",
        "pack/other": "FACTOR = 1\n",
        "bare/deep/leaf": "import one\n",
        "unused": "FACTOR = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        plugin(text, f"{name}.py")
    return tmp_path


@pytest.mark.parametrize("imports", IMPORTS)
def test_what_a_plugin_imports_from_beside_it_is_part_of_its_code(plugin, helpers, monkeypatch, imports):
    monkeypatch.syspath_prepend(str(helpers))
    path = plugin(mine(imports))
    assert sources(path).keys() == {"", *IMPORTS[imports]}
    keys = [key(path)]
    for file in ("one", "two", "pack/__init__", "pack/inner", "pack/other", "bare/deep/leaf", "unused"):
        changed = helpers / f"{file}.py"
        changed.write_text(changed.read_text() + "# changed\n")
        keys.append(key(path))
        name = file.replace("/__init__", "").replace("/", ".")
        assert (keys[-1] != keys[-2]) == (name in IMPORTS[imports]), file


def test_what_is_imported_once_the_path_is_set_is_found_beside_the_plugin(plugin, helpers):
    late = "def late():\n    import sys\n    sys.path.insert(0, HERE)\n    import two\n"
    assert sources(plugin(mine(late))).keys() == {"", "one", "two"}


def test_a_helper_that_changes_is_imported_anew_in_the_same_process(plugin, helpers, monkeypatch):
    # Of the same size and within the second, where Python takes the compiled file for the one of the text.
    monkeypatch.syspath_prepend(str(helpers))
    path, other = (
        plugin(mine("import two").replace("= 3", "= two.f()")),
        plugin(mine("import one", "Other"), "other.py"),
    )
    before = key(path)
    assert resolve.encoders([path, other])["mine"]().width == 1
    (helpers / "one.py").write_text("FACTOR = 2\ntwo = 2\n")
    assert resolve.encoders([path], reread=False)["mine"]().width == 1  # a run goes on with what it began with
    assert resolve.code(resolve.encoders([path], reread=False)["mine"]()) == before
    assert resolve.encoders([other, path])["mine"]().width == 2
    assert key(path) != before
    (helpers / "one.py").write_text("FACTOR = 1\ntwo = 2\n")
    assert (resolve.encoders([path])["mine"]().width, key(path)) == (1, before)


def test_a_helper_that_lies_elsewhere_and_is_not_installed_is_part_of_the_code(plugin, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    helper = plugin("FACTOR = 1\n", "elsewhere/from_afar.py")
    monkeypatch.syspath_prepend(str(helper.parent))
    path = plugin(mine("import from_afar"))
    before = key(path)
    helper.write_text("FACTOR = 2\n")
    assert key(path) != before


def test_plugins_of_two_folders_have_each_its_own_helper_or_are_refused(plugin, tmp_path):
    paths = []
    for place, factor in (("left", 7), ("right", 8)):
        (tmp_path / place).mkdir()
        plugin(f"FACTOR = {factor}\n", f"{place}/helper_of_both.py")
        text = mine("import helper_of_both", place.capitalize()).replace("= 3", "= helper_of_both.FACTOR")
        paths.append(plugin(text, f"{place}/{place}.py"))
    left, right = paths
    for _ in range(2):  # in one process, in any order
        assert resolve.encoders([left])["left"]().width == 7
        assert resolve.encoders([right])["right"]().width == 8
    with pytest.raises(ConfigError) as refused:
        resolve.encoders(paths)
    said = str(refused.value)
    assert all(str(name) in said for name in (*paths, *(path.with_name("helper_of_both.py") for path in paths)))
    assert "rename one of them" in said
    right.with_name("helper_of_both.py").rename(right.with_name("helper_of_right.py"))
    right.write_text(right.read_text().replace("helper_of_both", "helper_of_right"))
    found = resolve.encoders(paths)
    assert (found["left"]().width, found["right"]().width) == (7, 8)


def test_a_helper_in_a_package_that_is_installed_has_a_version_instead(plugin, tmp_path, monkeypatch):
    (tmp_path / "site-packages").mkdir()
    plugin("FACTOR = 1\n", "site-packages/installed_here.py")
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    path = plugin(mine("import installed_here"))
    assert sources(path) == {"": path}


@pytest.mark.parametrize("mended", [True, False])
def test_a_plugin_that_cannot_be_imported_can_be_mended(plugin, helpers, monkeypatch, mended):
    monkeypatch.syspath_prepend(str(helpers))
    path = plugin(mine("import one\nif one.FACTOR == 1:\n    raise ValueError('one')"))
    with pytest.raises(ConfigError, match="one"):
        resolve.encoders([path])
    if mended:
        (helpers / "one.py").write_text("FACTOR = 2\ntwo = 2\n")
        assert "mine" in resolve.encoders([path])


@pytest.mark.parametrize(
    ("name", "found"), [("bigann", "bigan"), ("BiGAN", "bigan"), ("pixel", "pixels"), ("zzz", None), ("", None)]
)
def test_nearest_is_the_most_alike_or_nothing(name, found):
    assert nearest(name, ["bigan", "gan", "pixels"]) == (f" (did you mean {found!r}?)" if found else "")
