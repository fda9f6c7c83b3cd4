"""What there is to put into a suite, in words: the lists and descriptions that the command line prints."""

import json
import textwrap
import typing as t
from pathlib import Path

from bench.datasets import DATASETS
from bench.errors import nearest
from bench.suites import resolve
from bench.suites.reading import shipped
from encoders.base import Encoder
from encoders.off_the_shelf import is_of_library
from encoders.pretrained import Pretrained
from encoders.untrained import Untrained
from protocols.base import Protocol

SPELLED_OUT = {  # the words of a name that are abbreviations
    "aae": "adversarial autoencoder",
    "ali": "adversarially learned inference",
    "bigan": "bidirectional generative adversarial network",
    "byol": "bootstrap your own latent",
    "dcgan": "deep convolutional generative adversarial network",
    "dino": "self-distillation with no labels",
    "gan": "generative adversarial network",
    "gmm": "Gaussian mixture model",
    "knn": "k nearest neighbours",
    "lejepa": "lean joint-embedding predictive architecture",
    "mlp": "multilayer perceptron",
    "moco": "momentum contrast",
    "pca": "principal component analysis",
    "rbm": "restricted Boltzmann machine",
    "simclr": "simple contrastive learning of representations",
    "simsiam": "simple Siamese representation learning",
    "svm": "support vector machine",
    "vae": "variational autoencoder",
    "vicreg": "variance-invariance-covariance regularization",
    "wgan": "Wasserstein generative adversarial network",
    "gp": "with gradient penalty",
}

ENLARGED = 3  # times a side, from which on it is remarked
MAX_NAME_COLUMNS = 36  # columns of a name with a text beside it: half of a terminal's 80 columns are left for the text


class UnknownName(Exception):
    """Nothing is called so; the message says what comes nearest."""

    exit_code = 2


def listing(
    kind: t.Literal["encoders", "protocols", "datasets", "suites"],
    plugins: t.Sequence[Path] = (),
    width: int | None = None,
) -> str:
    """A line each: the name and what it is; folded to a width if there is one."""
    if kind == "datasets":
        return _aligned(DATASETS, width=width)
    if kind == "suites":
        return _aligned({name: _about(path) for name, path in shipped().items()}, width=width)
    recipes: dict[str, t.Any] = resolve.encoders(plugins) if kind == "encoders" else resolve.protocols(plugins)
    return _aligned({name: _what(name, recipe) for name, recipe in recipes.items()}, width=width)


def description(name: str, plugins: t.Sequence[Path] = (), width: int | None = None) -> str:
    """What an encoder or a protocol is, its source and taps, and every parameter with its default and its choices.

    A name such as `torchvision:resnet18` is that of a pretrained network. Folded to a width if there is one. Raises
    UnknownName with the nearest name for one that does not exist.
    """
    network: dict[str, t.Any] = {"model": name} if is_of_library(name) else {}
    name = "pretrained" if network else name
    recipes: dict[str, type[Encoder] | type[Protocol]] = {}
    recipes |= resolve.protocols(plugins)
    recipes |= resolve.encoders(plugins)
    if name in DATASETS:
        return _folded(f"{name}: {DATASETS[name]}", width)
    if name not in recipes:
        choices = [*recipes, *DATASETS]
        hint = nearest(name, choices) or "; `frostbench list encoders` (or protocols, datasets) shows them"
        raise UnknownName(f"no encoder, protocol or dataset is named {name!r}{hint}")
    recipe = recipes[name]
    kind = "encoder" if issubclass(recipe, Encoder) else "protocol"
    lines = [f"{name} ({kind}, version {recipe.version}): {_what(name, recipe)}", f"source: {recipe.source}"]
    if issubclass(recipe, Encoder):
        lines.append(f"taps: {_taps(recipe, **network)}")
        if recipe.is_control:
            lines.append("a control: pinned in every table")
        if issubclass(recipe, Untrained):
            others = resolve.encoders(plugins).items()
            trained = [other for other, one in others if "epochs" in one.model_fields and not one.is_control]
            lines.append(f"architectures: {', '.join(trained)}")
    if issubclass(recipe, Pretrained) and (network or recipe.network is not Pretrained.network):
        lines += _preprocessing(recipe(**network))
    parameters = {
        f"{field} = {'(required)' if info.is_required() else _yaml(info.get_default(call_default_factory=True))}":
        _note(info.annotation, info.description or "")
        for field, info in recipe.model_fields.items()
    }  # fmt: skip
    lines.append("parameters:" if parameters else "no parameters")
    return "\n".join([*(_folded(line, width) for line in lines), _aligned(parameters, "  ", width)]).rstrip()


def _preprocessing(recipe: Pretrained) -> list[str]:
    """What a pretrained network's images are made like, and a remark where small ones are enlarged a lot."""
    found = recipe.preprocessing(recipe.network())
    resized = (
        f"resized to {found.size} x {found.size} ({found.interpolation})" if found.size else "as large as they are"
    )
    mean, std = (", ".join(f"{one:g}" for one in channels) for channels in (found.mean, found.std))
    lines = [f"preprocessing: {resized}, grey made RGB, less mean {mean}, divided by std {std}"]
    often = {side: (found.size or side) / side for side in (28, 32)}
    if max(often.values()) >= ENLARGED:
        sides = " and ".join(f"{side} x {side} {times:.1f} times" for side, times in often.items())
        lines.append(f"remark: enlarges images of {sides}, which adds no detail and costs as much as large images do")
    return lines


def _taps(recipe: type[Encoder], **given: t.Any) -> str:
    try:
        return ", ".join(recipe(**given).taps)
    except ValueError:  # a parameter has no default
        return "depend on its parameters"


def _about(path: Path) -> str:
    """The comment under a suite's first line."""
    comments = [line[1:].strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    about = " ".join(line for line in comments if not line.startswith("yaml-language-server"))
    return about.partition(". ")[0].rstrip(".")


def _what(name: str, recipe: type) -> str:
    """The name spelled out, where it is an abbreviation, and the first line about it."""
    words = name.split("_")
    spelled = " ".join(SPELLED_OUT.get(word, word) for word in words)
    first = (recipe.__doc__ or "").strip().partition("\n")[0]
    return (f"{spelled[0].upper()}{spelled[1:]}. " if set(words) & set(SPELLED_OUT) else "") + first


def _note(annotation: t.Any, note: str) -> str:
    """The choices, if there are some, and what is said of the parameter."""
    members = [annotation] if t.get_origin(annotation) is t.Literal else t.get_args(annotation)  # of a union
    choices = [one for member in members if t.get_origin(member) is t.Literal for one in t.get_args(member)]
    numbers = ["a number"] * bool(choices and {int, float} & set(members))
    return ". ".join(filter(None, [" | ".join([*numbers, *map(str, choices)]), note]))


def _yaml(value: t.Any) -> str:
    """A default as one would write it in a suite."""
    return value if isinstance(value, str) else json.dumps(value)


def _aligned(rows: dict[str, str], indent: str = "", width: int | None = None) -> str:
    column = max((len(name) for name in rows if len(name) <= MAX_NAME_COLUMNS), default=0)
    hanging = " " * (len(indent) + column + 2)
    lines = []
    for name, about in rows.items():
        beside = len(name) <= column  # or else, for a long default, the text begins on the next line
        lines += [] if beside else [_folded(indent + name, width, f"{indent}    ")]
        lines.append(_folded(f"{indent}{name if beside else '':<{column}}  {about}".rstrip(), width, hanging))
    return "\n".join(lines)


def _folded(line: str, width: int | None, hanging: str = "  ") -> str:
    if width is None or len(line) <= width:
        return line
    return textwrap.fill(line, max(width, len(hanging) + 20), subsequent_indent=hanging, break_on_hyphens=False)
