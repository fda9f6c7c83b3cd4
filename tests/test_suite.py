"""A suite file becomes plain, checked data; whatever is wrong with it is said at once, with its line and way out."""

import json
import pickle
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import ConfigError
from bench.suites.reading import read_suite, shipped
from bench.suites.schema import json_schema
from bench.suites.suite import DatasetSpec, EncoderSpec, ProtocolSpec, RunSpec, WandbSpec
from encoders.autoencoder import Autoencoder
from results.record import Run

CONFIGS = Path(__file__).parent.parent / "configs"
PRECISIONS = ("float32", "bfloat16")

GOOD = """\
suite: mine
datasets: [mnist, {name: digits, limit: 100, split: validation}]
seeds: 3-5
encoders:
  - pixels
  - {name: pca, components: 7}
  - {name: pca, label: pca-wide, components: 70}
protocols:
  - {name: knn, k: 5, metric: cosine}
wandb: {mode: off}
"""

PLUGIN = """
import typing as t
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat
from encoders.base import Encoder

class Layer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    units: int = 8

class Mine(Encoder):
    source = "a test"
    version = 7
    width: int = Field(ge=2, le=64)
    rate: PositiveFloat = 1e-3
    deep: tuple[int, ...] = (1, 2)
    layer: Layer = Layer()
    scale: float | t.Literal["auto"] = "auto"
    @property
    def taps(self): ...
    def build(self, shape): ...
    def fit(self, train, run): ...
"""


@pytest.fixture
def write(tmp_path):
    def written(text, name="s.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return written


def complaints(path, **keywords):
    """[(line, text without the file and line)]"""
    with pytest.raises(ConfigError) as caught:
        read_suite(path, **keywords)
    problems = caught.value.problems
    assert str(caught.value).splitlines() == [str(problem) for problem in problems]
    return [(problem.line, str(problem).partition(": ")[2]) for problem in problems]


def test_a_suite_says_everything_with_every_default(write):
    suite = read_suite(write(GOOD))
    assert suite.suite == "mine"
    assert suite.datasets == (DatasetSpec(name="mnist"), DatasetSpec(name="digits", limit=100, split="validation"))
    assert suite.seeds == (3, 4, 5)
    assert [encoder.label for encoder in suite.encoders] == ["pixels", "pca", "pca-wide"]
    assert [encoder.params.get("components") for encoder in suite.encoders] == [None, 7, 70]
    (knn,) = suite.protocols
    assert (knn.name, knn.label, knn.version) == ("knn", "knn", 1)
    assert knn.params == {"k": 5, "metric": "cosine", "weights": "uniform", "temperature": 0.07}
    assert suite.precision == "float32"
    assert suite.wandb == WandbSpec(mode="off", project=None, entity=None)


def test_runs_are_datasets_x_seeds_x_encoders_as_plain_data(write):
    suite = read_suite(write(GOOD))
    runs = suite.runs()
    assert [(run.dataset.name, run.encoder.label, run.seed) for run in runs] == [
        (dataset, label, seed)
        for dataset in ("mnist", "digits")
        for seed in (3, 4, 5)
        for label in ("pixels", "pca", "pca-wide")
    ]
    assert all(run.protocols == suite.protocols and run.suite == "mine" for run in runs)
    assert pickle.loads(pickle.dumps(runs)) == runs
    assert RunSpec.model_validate_json(runs[0].model_dump_json()) == runs[0]


def test_labels_of_datasets_say_what_was_cut():
    assert DatasetSpec(name="mnist").label == "mnist"
    assert DatasetSpec(name="mnist", limit=1000).label == "mnist (limit 1000)"
    assert DatasetSpec(name="mnist", limit=9, split="validation").label == "mnist (limit 9) (validation)"


def test_the_key_is_of_what_decides_the_weights_and_of_nothing_else():
    spec = RunSpec(
        suite="a",
        dataset=DatasetSpec(name="mnist"),
        encoder=EncoderSpec(name="pca", label="pca", params={"components": 50, "whiten": False}, version=1),
        protocols=(ProtocolSpec(name="knn", label="knn", params={"k": 1}, version=1),),
        seed=0,
        precision="float32",
    )
    key = spec.key("f00d", "float32")
    assert len(key) == 16
    assert set(key) <= set("0123456789abcdef")
    turned = {"whiten": False, "components": 50}
    for same in (
        {"suite": "b"},
        {"protocols": ()},
        {"dataset": DatasetSpec(name="npz:elsewhere")},
        {"precision": "auto"},
        {"encoder": EncoderSpec(name="pca", label="other", params=turned, version=1)},
    ):
        assert spec.model_copy(update=same).key("f00d", "float32") == key
    for other in (
        {"seed": 1},
        {"encoder": EncoderSpec(name="pca", label="pca", params=turned, version=2)},
        {"encoder": EncoderSpec(name="pca", label="pca", params={**turned, "components": 51}, version=1)},
        {"encoder": EncoderSpec(name="pcb", label="pca", params=turned, version=1)},
    ):
        assert spec.model_copy(update=other).key("f00d", "float32") != key
    assert len({key, spec.key("f00e", "float32"), spec.key("f00d", "bfloat16")}) == 3


def test_a_key_stays_what_it_was():
    """Finished runs are found by their keys: a change here makes every stored run a stranger."""
    spec = RunSpec(
        suite="a",
        dataset=DatasetSpec(name="mnist"),
        encoder=EncoderSpec(name="pca", label="pca", params={"components": 50, "whiten": False}, version=1),
        protocols=(),
        seed=0,
        precision="auto",
    )
    assert spec.key("f00d", "float32") == "d93b1cc428d0f9c1"
    assert ProtocolSpec(name="knn", label="1-nn", params={"k": 1}, version=2).file_name == "1-nn@2-e09d91ef"


def test_a_run_is_the_spec_it_was_made_from_whatever_older_files_lack():
    described = {
        "schema_version": 1, "suite": "a", "key": "0" * 16, "dataset": "mnist", "split": "test", "limit": None,
        "fingerprint": "f00d", "train_images": 9, "test_images": 9, "encoder": "pca", "label": "pca",
        "params": {"components": 50, "whiten": False}, "encoder_version": 1, "is_control": False, "seed": 0,
        "taps": {"components": 50},
    }  # fmt: skip
    spec = RunSpec.of(Run.of(described), "float32")
    assert spec.key("f00d", "float32") == "d93b1cc428d0f9c1"
    assert spec.dataset == DatasetSpec(name="mnist")
    assert RunSpec.of(Run.of(described), "float32", code="abc").key("f00d", "float32") != "d93b1cc428d0f9c1"


def test_a_change_of_bfloat16_alone_moves_no_key_of_float32(write, monkeypatch):
    text = "suite: a\ndatasets: [digits]\nseeds: [0]\nencoders: [ENTRY]\nprotocols: [linear]\ncontrols: none\n"
    for entry in ("autoencoder", "{name: untrained, architecture: autoencoder}"):

        def keys(entry=entry):
            (run,) = read_suite(write(text.replace("ENTRY", entry))).runs()
            return {precision: [one.key("f", precision) for one in run.equals(precision)] for precision in PRECISIONS}

        with monkeypatch.context() as patch:
            patch.setattr(Autoencoder, "version", 1)
            patch.setattr(Autoencoder, "equal_versions", {})
            first = keys()
            patch.setattr(Autoencoder, "version", 2)
            second = keys()
            patch.undo()
            now = keys()
            assert now["float32"] == second["float32"] + first["float32"]  # 2 moved bfloat16 only, as is said since
            assert now["bfloat16"] == second["bfloat16"]
            patch.setattr(Autoencoder, "version", 3)
            patch.setattr(Autoencoder, "equal_versions", {"float32": ((2, 1, 3),)})
            third = keys()
        assert third["float32"][0] == now["float32"][0]
        assert not {*third["bfloat16"]} & {*now["bfloat16"]}


def test_a_default_written_out_changes_no_key(write):
    bare = read_suite(write("suite: a\ndatasets: [digits]\nseeds: [0]\nencoders: [pca]\nprotocols: [knn]\n"))
    params = json.dumps(bare.encoders[0].params)
    full = read_suite(
        write(
            f"suite: a\ndatasets: [digits]\nseeds: [0]\nencoders: [{{name: pca, {params[1:-1]}}}]\nprotocols: [knn]\n"
        )
    )
    assert full == bare
    assert full.runs()[0].key("f", "float32") == bare.runs()[0].key("f", "float32")


def test_order_changes_only_the_order_of_runs(write):
    entries = yaml.safe_load(GOOD)
    turned = {key: value[::-1] if isinstance(value, list) else value for key, value in reversed(entries.items())}
    turned["wandb"] = {"mode": "off"}  # PyYAML reads off as False
    here, there = read_suite(write(GOOD)), read_suite(write(json.dumps(turned), "t.yaml"))
    assert {run.model_dump_json() for run in here.runs()} == {run.model_dump_json() for run in there.runs()}
    assert here.runs() != there.runs()


def test_a_plugin_is_named_like_any_other(write):
    plugin = Path(write(PLUGIN, "mine.py"))
    text = "suite: a\ndatasets: [digits]\nseeds: [0]\nprotocols: [knn]\n"
    text += "encoders: [{name: mine, width: 4, deep: [3], rate: 1}]\n"
    (run,) = read_suite(write(text), plugins=[plugin]).runs()
    assert run.encoder.params == {"width": 4, "rate": 1.0, "deep": [3], "layer": {"units": 8}, "scale": "auto"}
    assert run.encoder.version == 7
    assert complaints(write(text)) == [(5, "encoders[0]: no encoder 'mine'; `frostbench list encoders` shows them")]


def test_all_problems_of_a_file_come_at_once(write):
    plugin = Path(write(PLUGIN, "mine.py"))
    text = """\
suite: No Good
datasets: [mnist5, mnist, mnist, {name: digits, limit: 0, splt: test}]
seeds: [0, -1, 1.5, 0]
encoders:
  - pixel
  - {name: bigan, epocs: 3, epochs: -4, learning_rate: .nan, body: cnv}
  - name: mine
    rate: '1e-3'
    deep: 3
    layer: {unit: 1}
    scale: big
  - {name: mine, label: other, width: 65, scale: 1e999}
  - pixels
  - pixels
  - 7
  - name: pca
    components: true
    components: 4
protocols:
  - {name: knn, k: 0, metric: cosin}
  - {name: linear, label: a/b}
wandb: {mode: onlin, entitty: me, project: a/b, tags: [""]}
precision: float16
sedes: 1
"""
    name = "wanted a name such as bigan-long (^[a-z0-9][a-z0-9_-]{0,63}$)"
    assert sorted(complaints(write(text), plugins=[plugin])) == sorted(
        [
            (1, f"suite: {name}, got 'No Good'"),
            (2, "datasets[0]: no dataset 'mnist5' (did you mean 'mnist5k'?)"),
            (2, "datasets[2]: the same as datasets[1]; remove one"),
            (2, "datasets[3].limit: wanted a number > 0, got 0"),
            (2, "datasets[3].splt: unknown key (did you mean 'split'?)"),
            (3, "seeds[1]: wanted a number >= 0, got -1"),
            (3, "seeds[2]: wanted an integer, got 1.5"),
            (3, "seeds[3]: the same as seeds[0]; remove one"),
            (5, "encoders[0]: no encoder 'pixel' (did you mean 'pixels'?)"),
            (6, "encoders[1].epocs: unknown key (did you mean 'epochs'?)"),
            (6, "encoders[1].epochs: wanted a number >= 0, got -4"),
            (6, "encoders[1].learning_rate: wanted a finite number, got '.nan'"),
            (6, "encoders[1].body: wanted 'mlp' or 'conv', got 'cnv' (did you mean 'conv'?)"),
            (7, "encoders[2].width: is missing; add `width: ...`"),
            (8, "encoders[2].rate: wanted a number, got '1e-3'"),
            (9, "encoders[2].deep: wanted a list, got 3"),
            (10, "encoders[2].layer.unit: unknown key (did you mean 'units'?)"),
            (11, "encoders[2].scale: wanted a number or 'auto', got 'big'"),
            (12, "encoders[3].width: wanted a number <= 64, got 65"),
            (12, "encoders[3].scale: wanted a finite number, got '1e999'"),
            (14, "encoders[5]: label 'pixels' is taken by encoders[4]; add a `label:`"),
            (15, "encoders[6]: wanted a name, or a mapping with `name: NAME`, got 7"),
            (17, "encoders[7].components: wanted an integer, got true"),
            (18, "encoders[7].components: key written twice, first on line 17, column 5"),
            (20, "protocols[0].k: wanted a number > 0, got 0"),
            (20, "protocols[0].metric: wanted 'euclidean' or 'cosine', got 'cosin' (did you mean 'cosine'?)"),
            (21, f"protocols[1].label: {name}, got 'a/b'"),
            (22, "wandb.mode: wanted 'off', 'offline' or 'online', got 'onlin' (did you mean 'online'?)"),
            (22, "wandb.project: wanted a name of at most 128 characters, none of them / \\ # ? % :, got 'a/b'"),
            (22, "wandb.tags[0]: wanted a string of at least 1, got ''"),
            (22, "wandb.entitty: unknown key (did you mean 'entity'?)"),
            (23, "precision: wanted 'float32', 'bfloat16' or 'auto', got 'float16' (did you mean 'bfloat16'?)"),
            (24, "sedes: unknown key (did you mean 'seeds'?)"),
        ]
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "",
            [
                "wanted a mapping with suite, datasets, seeds, encoders, protocols, precision, snapshot_split, wandb, "
                "controls, got nothing"
            ],
        ),
        (
            "- a",
            [
                "wanted a mapping with suite, datasets, seeds, encoders, protocols, precision, snapshot_split, wandb, "
                "controls, got ['a']"
            ],
        ),
        (
            "seeds: []\nencoders: []\n",
            [
                "datasets: is missing; add `datasets: [mnist5k]`",
                "encoders: wanted at least 1, got []",
                "protocols: is missing; add `protocols: [linear]`",
                "seeds: wanted at least 1, got []",
                "suite: is missing; add `suite: mine`",
            ],
        ),
        (GOOD.replace("3-5", "5-3"), ["seeds: wanted a list [0, 1, 2] or a range 0-2, got '5-3'"]),
        (GOOD.replace("3-5", "0-9999999999"), ["seeds: wanted a list [0, 1, 2] or a range 0-2, got '0-9999999999'"]),
        (GOOD.replace("[mnist,", "['folder:',"), ["datasets[0]: no dataset 'folder:' (did you mean 'folder:PATH'?)"]),
        (
            GOOD.replace("- pixels", "- label: x"),
            ["encoders[0]: wanted a name, or a mapping with `name: NAME`, got {'label': 'x'}"],
        ),
        ("a: [1", ["not YAML, while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"]),
    ],
)
def test_what_is_missing_or_empty_is_said(write, text, expected):
    assert sorted(text for _, text in complaints(write(text))) == expected


TRAINED = """\
suite: mine
datasets: [digits]
seeds: [0]
encoders:
  - pixels
  - {name: untrained, architecture: bigan}
  - {name: bigan, epochs: 2}
  - {name: bigan, label: slow, learning_rate: 0.01}
  - {name: autoencoder, epochs: 3}
  - {name: gan, generator_hidden: 20}
  - {name: aae, hidden: 20}
  - {name: aae, label: aae-wide, hidden: 30, epochs: 3}
  - semisupervised_aae
protocols: [linear]
"""


def test_each_trained_encoder_has_its_own_untrained_network_as_its_control(write):
    suite = read_suite(write(TRAINED))
    assert suite.control_of == {
        "bigan": "untrained", "slow": "untrained", "autoencoder": "untrained",  # one network before its first step
        "gan": "gan-untrained", "aae": "aae-untrained", "aae-wide": "aae-wide-untrained",
        "semisupervised_aae": "semisupervised_aae-untrained",  # which sees no labels
    }  # fmt: skip
    added = {one.label: one.params for one in suite.encoders[9:]}
    assert added["aae-wide-untrained"]["architecture"] == "aae"
    assert added["aae-wide-untrained"]["parameters"]["hidden"] == 30
    default = read_suite(write(TRAINED.replace("hidden: 30, epochs: 3", "hidden: 30"))).encoders[-2]
    assert default == suite.encoders[-2]  # how long is trained has no part in its key
    assert [one.label for one in suite.encoders] == [
        *("pixels", "untrained", "bigan", "slow", "autoencoder", "gan", "aae", "aae-wide", "semisupervised_aae"),
        *("gan-untrained", "aae-untrained", "aae-wide-untrained", "semisupervised_aae-untrained"),
    ]


def test_controls_can_be_left_out_or_be_those_of_some_encoders(write):
    none = read_suite(write(TRAINED + "controls: none\n"))
    assert (len(none.encoders), none.control_of) == (9, {})
    some = read_suite(write(TRAINED + "controls: [gan, bigan]\n"))
    assert some.control_of == {"bigan": "untrained", "gan": "gan-untrained"}
    assert complaints(write(TRAINED + "controls: [gam]\n")) == [
        (15, "controls[0]: no encoder has the label 'gam' (did you mean 'gan'?)")
    ]
    taken = read_suite(write(TRAINED.replace("- pixels", "- {name: pixels, label: gan-untrained}")))
    assert taken.control_of["gan"] == "gan-untrained-2"


def test_a_plugins_encoder_has_its_own_control_too(write, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\nfrom encoders.base import Encoder\n"
        "class Mine(Encoder):\n    source = 'a test'\n    epochs: int = 3\n"
        "    @property\n    def taps(self): return ('code',)\n"
        "    def build(self, shape): return nn.Linear(28, 2)\n    def fit(self, data, run): ...\n"
    )
    text = "suite: a\ndatasets: [digits]\nseeds: [0]\nencoders: [mine]\nprotocols: [linear]\n"
    suite = read_suite(write(text), plugins=[tmp_path / "mine.py"])
    assert suite.control_of == {"mine": "mine-untrained"}
    assert suite.encoders[1].params["architecture"] == "mine"
    assert suite.encoders[1].code  # the plugin's code is part of its key


def test_datasets_may_be_paths(write):
    suite = read_suite(write(GOOD.replace("mnist", "'folder:some where/x'")))
    assert suite.datasets[0].name == "folder:some where/x"


def test_a_file_that_cannot_be_read_says_why(tmp_path, write):
    def only(path):
        ((line, text),) = complaints(path)
        return line, text

    assert "cannot be read" in only(str(tmp_path))[1]
    (tmp_path / "latin.yaml").write_bytes(b"suite: a\n# \xe9t\xe9\n")
    assert only(str(tmp_path / "latin.yaml")) == (2, "wanted UTF-8, got the byte 0xe9")
    assert "at most 1,048,576 bytes" in only(write("#" * 2**21))[1]
    assert "did you mean 'quickstart'?" in only("quickstar")[1]
    write("", "there.yaml")
    assert "did you mean" in only(str(tmp_path / "thre.yaml"))[1]
    assert "cannot be read" in only("a\0b")[1]


@pytest.mark.parametrize("item", ["seeds: [x]", "datasets: [7]", "datasets: [{name: mnist, limit: a}]"])
def test_a_bad_item_is_not_also_a_list_that_is_too_short(write, item):
    text = re.sub(rf"(?m)^{item.partition(':')[0]}:.*$", item, GOOD)
    (problem,) = complaints(write(text))
    assert "at least" not in problem[1]


def test_overrides_are_put_in(write):
    suite = read_suite(
        write(GOOD),
        overrides=[
            "seeds=0-1",
            "precision=auto",
            "wandb.mode=offline",
            "wandb.entity=me",
            "pca-wide.components=80",
            "pca-wide.label=wider",
            "wider.components=90",
            "knn.k=3",
            "datasets=[digits]",
        ],
    )
    assert suite.seeds == (0, 1)
    assert suite.precision == "auto"
    assert suite.wandb == WandbSpec(mode="offline", entity="me")
    assert [(encoder.label, encoder.params.get("components")) for encoder in suite.encoders[1:]] == [
        ("pca", 7),
        ("wider", 90),
    ]
    assert suite.protocols[0].params["k"] == 3
    assert suite.datasets == (DatasetSpec(name="digits"),)


def test_an_override_gives_a_bare_name_its_parameters(write):
    text = GOOD.replace("- pixels", "- pca").replace("{name: pca, components: 7}", "{name: pca, label: b}")
    suite = read_suite(write(text), overrides=["pca.components=3"])
    assert [encoder.params["components"] for encoder in suite.encoders] == [3, 50, 70]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("pca.components=x", "wanted an integer, got 'x'"),
        ("pca.components=-3", "wanted a number > 0, got -3"),
        ("pca.components=", "wanted an integer, got nothing"),
        ("pca.components=.nan", "wanted a finite number, got '.nan'"),
        ("pca.component=3", "unknown key (did you mean 'components'?)"),
        ("pcaa.components=3", "this suite has no key and no label 'pcaa' (did you mean 'pca'?)"),
        ("pca", "wanted KEY=VALUE"),
        ("pca.=3", "wanted KEY=VALUE"),
        ("pca=3", "wanted pca.PARAMETER=VALUE"),
        ("seed=3", "this suite has no key and no label 'seed' (did you mean 'seeds'?)"),
        ("seeds=3", "wanted a list [0, 1, 2] or a range 0-2, got 3"),
        ("seeds=[0, -1]", "[1]: wanted a number >= 0, got -1"),
        ("wandb.mode=onlin", "wanted 'off', 'offline' or 'online', got 'onlin' (did you mean 'online'?)"),
        ("wandb.mod=off", "unknown key (did you mean 'mode'?)"),
        ("datasets.limit=3", "datasets takes no keys"),
        ("pca.components.x=3", "encoders[1].components takes no keys"),
        (
            "pca.components=[",
            "not YAML, while parsing a flow node, expected the node content, but found '<stream end>'",
        ),
        ("pca.a.b=1", "unknown key; wanted one of components, whiten, label"),
        ("suite=A", "wanted a name such as bigan-long (^[a-z0-9][a-z0-9_-]{0,63}$), got 'A'"),
    ],
)
def test_a_wrong_override_is_named_in_its_problem(write, override, says):
    with pytest.raises(ConfigError) as caught:
        read_suite(write(GOOD), overrides=[override])
    assert str(caught.value) == f"--set {override}: {says}"


words = st.sampled_from(["suite", "datasets", "seeds", "encoders", "protocols", "wandb", "name", "label", "pca", "knn"])
keys = words | st.text(max_size=3)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-1, 1) | keys,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(keys, values, max_size=6), st.lists(st.text() | keys.map("{0}.{0}=1".format), max_size=2))
@settings(max_examples=100, deadline=None)
def test_any_data_is_a_suite_or_a_config_error(tmp_path_factory, data, overrides):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError):
        read_suite(str(path), overrides=overrides)


@pytest.mark.parametrize("name", ["smoke", "quickstart", "mnist", "cifar10"])
def test_shipped_suites_are_read_by_name(name):
    assert shipped()[name] == CONFIGS / f"{name}.yaml"
    suite = read_suite(name)
    assert suite.suite == name
    assert shipped()[name].read_text().startswith("# yaml-language-server: $schema=suite.schema.json\n#")
    assert {"pixels", "untrained", "pca"} <= {encoder.name for encoder in suite.encoders}
    assert [protocol.label for protocol in suite.protocols] == ["linear", "knn"]
    assert suite.protocols[1].params["k"] == 1


def test_the_shipped_schema_is_the_one_of_this_code():
    shipped_schema = json.loads((CONFIGS / "suite.schema.json").read_text())
    assert shipped_schema == json_schema(), "run `frostbench schema > configs/suite.schema.json`"


def test_the_schema_knows_every_parameter_with_its_note():
    entries = json_schema()["properties"]["encoders"]["items"]["anyOf"]
    assert "bigan" in entries[0]["enum"]
    (bigan,) = [entry for entry in entries[1:] if entry["properties"]["name"] == {"const": "bigan"}]
    assert bigan["properties"]["epochs"]["default"] == 400
    assert "decays" in bigan["properties"]["learning_rate"]["description"]
    assert bigan["additionalProperties"] is False


def test_the_schema_of_a_recipe_in_a_recipe_is_among_the_definitions(write):
    schema = json_schema([Path(write(PLUGIN, "mine.py"))])
    (mine,) = [entry for entry in schema["properties"]["encoders"]["items"]["anyOf"][1:] if entry["title"] == "Mine"]
    assert mine["required"] == ["name", "width"]
    assert mine["properties"]["layer"]["$ref"] == "#/$defs/Layer"
    assert "Layer" in schema["$defs"]
    assert "mine" not in schema["properties"]["encoders"]["items"]["anyOf"][0]["enum"]
