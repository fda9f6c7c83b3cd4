"""Names become the classes they mean: ours, a plugin file's, an installed package's; everything else is refused."""

import importlib.metadata
import pickle
import sys

import pytest

from bench import resolve
from bench.strict_yaml import ConfigError
from encoders.base import Encoder
from encoders.pixels import Pixels

ENCODER = '''
from __future__ import annotations
from encoders.base import Encoder, frozen
from encoders.pixels import Pixels

class {name}(Encoder):
    """One feature."""

    source = "a test"
    width: int = 3  # features
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

    yield written
    for name in [name for name in sys.modules if name.startswith("frostbench_plugin_")]:
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
        (ENCODER.format(name="Größe"), None, "no name for a method"),
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
        ("Bad Name", "encoders.pixels:Pixels", "no name for a method"),
    ],
)
def test_an_installed_package_adds_encoders_and_a_broken_one_is_left_out(monkeypatch, name, value, left_out):
    def entry_points(group):
        entry = importlib.metadata.EntryPoint(name, value, group)
        return [entry] if group == "frostbench.encoders" else []

    before = resolve.encoders()
    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    if left_out:
        with pytest.warns(UserWarning, match=left_out):
            assert resolve.encoders() == before
    else:
        assert resolve.encoders() == before | {name: Pixels}


def test_notes_are_descriptions_or_the_comments_behind_parameters(plugin):
    text = ENCODER.format(name="Mine").replace("import Pixels", "import Pixels\nfrom pydantic import Field")
    text = text.replace("deep:", 'depth: int = Field(2, description="of layers")  # more\n    deep:')
    mine = resolve.encoders([plugin(text)])["mine"]
    assert resolve.notes(mine) == {"width": "features", "depth": "of layers"}


@pytest.mark.parametrize(
    ("name", "found"), [("bigann", "bigan"), ("BiGAN", "bigan"), ("pixel", "pixels"), ("zzz", None), ("", None)]
)
def test_nearest_is_the_most_alike_or_nothing(name, found):
    assert resolve.nearest(name, ["bigan", "gan", "pixels"]) == (f" (did you mean {found!r}?)" if found else "")
