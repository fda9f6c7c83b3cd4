"""A suite's file becomes a checked `Suite`; everything that is wrong with it is said at once, each with its line."""

import collections
import dataclasses
import itertools
import json
import re
import typing as t
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bench import HOME
from bench.datasets import DATASETS
from bench.errors import ConfigError, Json, KeyPath, Problem, config_error, key_path, nearest, quoted
from bench.suites import controls, resolve, strict_yaml
from bench.suites.suite import KEYS, MAX_SEEDS, DatasetSpec, EncoderSpec, ProtocolSpec, Suite
from encoders.base import Encoder, EncoderError
from protocols.base import Protocol

EXAMPLES = {
    "suite": "suite: mine",
    "datasets": "datasets: [mnist5k]",
    "seeds": "seeds: [0, 1, 2]",
    "encoders": "encoders: [pixels, bigan]",
    "protocols": "protocols: [linear]",
}


def shipped() -> dict[str, Path]:
    """The suites that come with Frostbench, by name."""
    wheel, checkout = HOME / "bench" / "configs", HOME / "configs"
    folder = wheel if wheel.is_dir() else checkout
    found = sorted(folder.rglob("*.yaml"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}


def read_suite(
    path_or_name: str, *, overrides: t.Sequence[str] = (), plugins: t.Sequence[Path] = (), offline: bool = False
) -> Suite:
    """A suite from a YAML file, by the name of a shipped one or, over several lines, from what a file would say.

    `KEY=VALUE` overrides are put in.

    A KEY is a key of the suite (`precision`, `wandb.mode`), or `LABEL.PARAMETER` of an encoder or a protocol. Raises
    ConfigError with every problem there is.
    """
    if "\n" in path_or_name:
        text, origin = path_or_name, "the suite"
    else:
        path = shipped().get(path_or_name) or Path(path_or_name)
        text, origin = _text(path), str(path)
    draft = _Draft(strict_yaml.compose(text, origin), offline=offline)
    for override in overrides:
        draft.override(override)
    return draft.checked(resolve.encoders(plugins), resolve.protocols(plugins))


def read_protocols(entries: t.Sequence[str], plugins: t.Sequence[Path] = ()) -> tuple[ProtocolSpec, ...]:
    """Protocols as a command line names them: `linear`, or as in a suite `{name: knn, k: 20}`. Raises ConfigError."""
    recipes = _recipes("protocols", entries, "--protocol", resolve.protocols(plugins))
    return tuple(ProtocolSpec(**recipe) for recipe in recipes)


def read_encoder(entry: str, origin: str, plugins: t.Sequence[Path] = ()) -> EncoderSpec:
    """An encoder as a command line names it, `pca` or `{name: pca, components: 20}`, and its version."""
    (recipe,) = _recipes("encoders", [entry], origin, resolve.encoders(plugins))
    return EncoderSpec(**recipe)


def read_dataset(entry: str) -> DatasetSpec:
    """A dataset as a command line names it: `mnist`, or as in a suite `{name: mnist, size: 32}`. Raises ConfigError."""
    if not entry.startswith("{"):
        return DatasetSpec(name=entry)  # which `datasets.load` looks up
    draft = _Draft(strict_yaml.compose("datasets: []", "--dataset"))
    draft.put(("datasets",), [strict_yaml.read(entry, "--dataset").value], f"--dataset {quoted(entry)}")
    asked = draft.data["datasets"][0]
    draft.check_dataset(("datasets",), asked)
    try:
        dataset = DatasetSpec.model_validate_json(json.dumps(asked))
    except ValidationError as error:
        for path, message in _explained(error, DatasetSpec, asked).items():
            draft.complain(("datasets", *path), message)
    if draft.problems:
        raise ConfigError(draft.problems)
    return dataset


def _recipes(
    section: str, entries: t.Sequence[str], origin: str, known: t.Mapping[str, type[Encoder | Protocol]]
) -> list[dict[str, Json]]:
    """The entries of one section, each with all its parameters. Raises ConfigError with every problem."""
    draft = _Draft(strict_yaml.compose(f"{section}: []", origin))
    draft.put((section,), [strict_yaml.read(entry, origin).value for entry in entries], origin)
    draft.origins |= {(section, place): f"{origin} {quoted(entry)}" for place, entry in enumerate(entries)}
    recipes = [draft.recipe((section, place), entry, known) for place, entry in enumerate(draft.entries(section))]
    for place, recipe in enumerate(recipes):
        if not (isinstance(recipe["label"], str) and re.fullmatch(resolve.NAME, recipe["label"])):
            draft.complain((section, place, "label"), f"wanted {resolve.NAME}, got {quoted(recipe['label'])}")
    draft.check_distinct()
    if draft.problems:
        raise ConfigError(draft.problems)
    return recipes


def _text(path: Path) -> str:
    """What a file says. Raises ConfigError if it cannot be read."""
    line = None
    try:
        with path.open("rb") as file:
            data = file.read(strict_yaml.MAX_CHARACTERS + 1)
        if len(data) <= strict_yaml.MAX_CHARACTERS:
            return data.decode()
        message = f"wanted a suite of at most {strict_yaml.MAX_CHARACTERS:,} bytes, got more"
    except FileNotFoundError:
        beside = [str(other) for other in path.parent.glob("*.yaml")]
        message = f"no such file{nearest(str(path), [*shipped(), *beside])}; shipped are {', '.join(shipped())}"
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"wanted UTF-8, got the byte 0x{data[error.start]:02x}"
    except (OSError, ValueError) as error:
        message = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    raise ConfigError([Problem(str(path), line, None, (), message)])


class _Draft:
    """A suite on its way: plain data, what of it the command line put in, and what is wrong with it so far."""

    def __init__(self, document: strict_yaml.Document, *, offline: bool = False) -> None:
        self.document, self.offline = document, offline
        self.problems = list(document.problems)
        self.unread = {(problem.path, problem.line, problem.column) for problem in document.problems}
        self.origins: dict[KeyPath, str] = {}  # what the command line put in
        self.data = document.value
        if not isinstance(self.data, dict):
            self.complain((), f"wanted a mapping with {', '.join(KEYS)}, got {quoted(self.data)}")
            raise ConfigError(self.problems)
        self.spell_out()

    def complain(self, path: KeyPath, message: str) -> None:
        for length in range(len(path), 0, -1):
            if origin := self.origins.get(path[:length]):
                self.problems.append(Problem(origin, None, None, path[length:], message))
                return
        line, column = self.document.position(path)
        if (path, line, column) not in self.unread:  # what could not be read is not wrong a second time
            self.problems.append(Problem(self.document.file, line, column, path, message))

    def entries(self, section: str) -> list[Json]:
        entries = self.data.get(section)
        return entries if isinstance(entries, list) else []

    def spell_out(self) -> None:
        """One form for what has two: a bare name becomes a mapping, a range of seeds a list."""
        for section in ("datasets", "encoders", "protocols"):
            for index, entry in enumerate(self.entries(section)):
                if isinstance(entry, str):
                    self.data[section][index] = {"name": entry}
        ends = re.fullmatch(r"([0-9]{1,10})-([0-9]{1,10})", str(self.data.get("seeds")))
        if ends and int(ends[1]) <= int(ends[2]) < int(ends[1]) + MAX_SEEDS:
            self.data["seeds"] = list(range(int(ends[1]), int(ends[2]) + 1))

    def override(self, text: str) -> None:
        """Put one `KEY=VALUE` in."""
        origin, (key, equals, written) = f"--set {text}", text.partition("=")
        first, *rest = key.split(".")
        places: dict[str, KeyPath] = {}
        for section in ("encoders", "protocols"):
            for index, entry in enumerate(self.entries(section)):
                if isinstance(entry, dict):
                    places.setdefault(str(entry.get("label", entry.get("name"))), (section, index))
        places |= {key: (key,) for key in KEYS}
        if not equals or not all((first, *rest)):
            message = "wanted KEY=VALUE"
        elif first not in places:
            message = f"this suite has no key and no label {quoted(first)}{nearest(first, places)}"
        elif not rest and first not in KEYS:
            message = f"wanted {first}.PARAMETER=VALUE"
        else:
            try:
                self.put((*places[first], *rest), strict_yaml.read(written, origin).value, origin)
            except ConfigError as error:
                self.problems += [dataclasses.replace(problem, line=None, column=None) for problem in error.problems]
            return
        self.problems.append(Problem(origin, None, None, (), message))

    def put(self, path: KeyPath, value: Json, origin: str) -> None:
        here: Json = self.data
        for depth, part in enumerate(path[:-1]):
            if isinstance(here, dict) and part not in here:
                here[part] = {}
                self.origins[path[: depth + 1]] = origin
            here = here[part] if isinstance(here, dict) or isinstance(part, int) else None
        if not isinstance(here, dict):
            raise config_error(origin, f"{key_path(path[:-1])} takes no keys")
        here[path[-1]] = value
        self.origins[path] = origin
        self.spell_out()

    def checked(self, encoders: t.Mapping[str, type[Encoder]], protocols: t.Mapping[str, type[Protocol]]) -> Suite:
        """The suite. Raises ConfigError with every problem, in the order of the file."""
        data: dict[str, Json] = {key: value for key, value in self.data.items() if key in KEYS}
        for key in self.data:
            if key not in KEYS:
                self.complain((key,), _unknown(key, KEYS))
        if not isinstance(data.get("seeds", []), list):
            self.complain(("seeds",), f"wanted a list [0, 1, 2] or a range 0-2, got {quoted(data['seeds'])}")
            data["seeds"] = [0]
        for index, entry in enumerate(self.entries("datasets")):
            self.check_dataset(("datasets", index), entry)
        recipes = [self.recipe(("encoders", i), entry, encoders) for i, entry in enumerate(self.entries("encoders"))]
        judges = [self.recipe(("protocols", i), entry, protocols) for i, entry in enumerate(self.entries("protocols"))]
        recipes += self.add_controls(data, recipes, encoders)
        data |= {"encoders": recipes} if recipes else {}
        data |= {"protocols": judges} if judges else {}
        self.check_distinct()
        try:
            suite = Suite.model_validate_json(json.dumps(data))
        except ValidationError as error:
            for path, message in _explained(error, Suite, self.data).items():
                self.complain(path, message)
        if self.problems:
            raise ConfigError(sorted(self.problems, key=lambda problem: problem.line or strict_yaml.MAX_CHARACTERS))
        return suite

    def add_controls(
        self, data: dict[str, Json], recipes: list[dict[str, Json]], encoders: t.Mapping[str, type[Encoder]]
    ) -> list[dict[str, Json]]:
        """The untrained networks that the suite lacks; `data` learns whose control each is."""
        wanted = data.get("controls", "own")
        labels = [str(recipe["label"]) for recipe in recipes]
        if isinstance(wanted, list):
            for index, label in enumerate(wanted):
                if label not in labels:
                    self.complain(
                        ("controls", index), f"no encoder has the label {quoted(label)}{nearest(str(label), labels)}"
                    )
        if self.problems or wanted == "none":
            return []
        made = {
            str(recipe["label"]): (
                recipe["name"],
                encoders[recipe["name"]].model_validate_json(json.dumps(recipe["params"])),
            )
            for recipe in recipes
        }
        known = {controls.network(*made[label]): label for label in reversed(labels) if made[label][0] == "untrained"}
        added, data["control_of"] = [], {}
        for label, (name, encoder) in made.items():
            if not controls.is_trained(encoder) or (isinstance(wanted, list) and label not in wanted):
                continue
            body = controls.network(name, encoder)
            if body not in known:
                known[body] = next(one for one in _names(label) if one not in labels)
                labels.append(known[body])
                entry = controls.entry(name, encoder) | {"label": known[body]}
                added.append(self.recipe(("encoders", label), entry, encoders))
            data["control_of"][label] = known[body]
        return added

    def check_dataset(self, path: KeyPath, entry: Json) -> None:
        names = [entry.get(key) for key in ("name", "pretrain")] if isinstance(entry, dict) else []
        for name in names:
            if isinstance(name, str):
                form, _, place = name.partition(":")
                if (f"{form}:PATH" if place else name) not in DATASETS or not name.isprintable():
                    self.complain(path, f"no dataset {quoted(name)}{nearest(name, DATASETS) or _listing('datasets')}")
        if isinstance(entry, dict) and names[0] is not None and names[0] == names[1]:
            self.complain((*path, "pretrain"), "is the dataset itself, which encoders learn from by default; remove it")

    def recipe(self, path: KeyPath, entry: Json, known: t.Mapping[str, type[Encoder | Protocol]]) -> dict[str, Json]:
        """An entry with all its parameters, checked by the class that its name means."""
        kind = str(path[0])
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str) and name in known:
            beside = {"snapshots": entry["snapshots"]} if kind == "encoders" and "snapshots" in entry else {}
            params = {key: value for key, value in entry.items() if key not in ("name", "label", *beside)}
            spec = {"name": name, "label": entry.get("label", name), "params": {}, "version": known[name].version}
            spec |= beside
            try:
                checked = known[name].model_validate_json(json.dumps(params))
                if isinstance(checked, Encoder):
                    checked = checked.resolved(offline=self.offline)
                    spec |= {"version": checked.revision, "equal_versions": checked.equal_revisions}
                    spec |= {"is_pretrained": checked.is_pretrained}
                else:
                    spec["equal_versions"] = checked.equal_versions
                spec["params"], spec["code"] = checked.model_dump(mode="json"), resolve.code(checked)
                if isinstance(checked, Encoder):
                    spec["places"] = {place: spec["params"].pop(place) for place in checked.places}
                    if beside:
                        self.check_snapshots((*path, "snapshots"), beside["snapshots"], name, checked)
            except EncoderError as error:
                self.complain(path, str(error))
            except ValidationError as error:
                for inner, message in _explained(error, known[name], params).items():
                    self.complain((*path, *inner), message)
            return spec
        if isinstance(name, str):
            self.complain(path, f"no {kind[:-1]} {quoted(name)}{nearest(name, known) or _listing(kind)}")
        else:
            self.complain(path, f"wanted a name, or a mapping with `name: NAME`, got {quoted(entry)}")
        label = entry.get("label", "unknown") if isinstance(entry, dict) else "unknown"
        return {"name": "unknown", "label": label, "params": {}, "version": 0}

    def check_snapshots(self, path: KeyPath, epochs: Json, name: str, recipe: Encoder) -> None:
        """Complain of snapshots that no training passes, or whose judges it has seen the labels of."""
        if not controls.is_trained(recipe):
            self.complain(path, f"{name} is not trained in epochs, so it has no snapshots; remove it")
            return
        last = t.cast(t.Any, recipe).epochs
        for index, epoch in enumerate(epochs if isinstance(epochs, list) else []):
            if isinstance(epoch, int) and epoch > last:
                self.complain((*path, index), f"wanted an epoch of the training, which has {last}; got {epoch}")
        held_out = self.data.get("snapshot_split", "validation") == "validation"
        on_test = [
            one for one in self.entries("datasets") if isinstance(one, dict) and one.get("split") != "validation"
        ]
        if recipe.uses_labels and held_out and on_test:
            way_out = "give the datasets `split: validation`, or the suite `snapshot_split: test`"
            self.complain(path, f"{name} learns from labels of the images that its snapshots are judged on; {way_out}")

    def check_distinct(self) -> None:
        """Complain of two entries that would be one run, or one row of a table."""
        for section in ("datasets", "seeds", "encoders", "protocols"):
            earlier: dict[str, str] = {}
            for index, entry in enumerate(self.entries(section)):
                identity, place = entry, f"{section}[{index}]"
                if isinstance(entry, dict) and section == "datasets":
                    identity = DatasetSpec.model_construct(name="").model_dump() | entry
                elif isinstance(entry, dict):
                    identity = entry.get("label", entry.get("name"))
                first = earlier.setdefault(json.dumps(identity, sort_keys=True), place)
                if first != place and section in ("datasets", "seeds"):
                    self.complain((section, index), f"the same as {first}; remove one")
                elif first != place and identity is not None:
                    self.complain((section, index), f"label {quoted(identity)} is taken by {first}; add a `label:`")


def _names(label: str) -> t.Iterator[str]:
    """Labels for an encoder's control: `bigan-untrained`, `bigan-untrained-2`, ..."""
    yield f"{label[:54]}-untrained"
    for number in itertools.count(2):
        yield f"{label[:50]}-untrained-{number}"


WANTED = {  # in our words, by pydantic's name for what went wrong
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "finite_number": "a finite number",
    "greater_than": "a number > {gt}",
    "greater_than_equal": "a number >= {ge}",
    "less_than": "a number < {lt}",
    "less_than_equal": "a number <= {le}",
    "too_short": "at least {min_length}",
    "too_long": "at most {max_length}",
    "string_too_short": "a string of at least {min_length}",
    "string_too_long": "a string of at most {max_length}",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "a name such as bigan-long ({pattern})",
}


def _explained(error: ValidationError, model: type[BaseModel], data: Json) -> dict[KeyPath, str]:
    """What pydantic found, in our words, by the path in the data that each is about."""
    faults: dict[KeyPath, list[ErrorDetails]] = collections.defaultdict(list)
    for fault in error.errors(include_url=False):
        if fault["type"] == "too_short" and len(fault["input"]) >= fault["ctx"]["min_length"]:
            continue  # it counts only the items that are right; the others are said already
        faults[_within(data, fault)].append(fault)
    return {path: _message(same, _keys(model, path[:-1])) for path, same in faults.items()}


def _within(data: Json, fault: ErrorDetails) -> KeyPath:
    """Where a fault is in the data: without the members of unions, which pydantic adds to its location."""
    path: KeyPath = ()
    for part in fault["loc"]:
        if part in (data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()):
            path, data = (*path, part), data[part]
    return (*path, fault["loc"][-1]) if fault["type"] == "missing" else path


def _keys(model: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys that may be written in the model at a path; none if no model is there."""
    for part in path:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation if part in model.model_fields else None
            members = [c for c in (annotation, *t.get_args(annotation)) if isinstance(c, type)]
            model = next((c for c in members if issubclass(c, BaseModel)), BaseModel)
    return [*model.model_fields, "label"] if issubclass(model, Encoder | Protocol) else list(model.model_fields)


def _message(faults: t.Sequence[ErrorDetails], keys: t.Sequence[str]) -> str:
    """One message for what is wrong with one value; a union finds a fault for each of its members."""
    kind, came = faults[0]["type"], faults[0]["input"]
    key = str(faults[0]["loc"][-1]) if faults[0]["loc"] else ""
    if raised := faults[0].get("ctx", {}).get("error"):  # by a recipe's own check
        return str(raised)
    if kind == "missing":
        return f"is missing; add `{EXAMPLES.get(key, f'{key}: ...')}`"
    if kind == "extra_forbidden":
        return _unknown(key, keys)
    wanted = " or ".join(dict.fromkeys(map(_wanted, faults)))
    near = nearest(came, re.findall(r"'([^']*)'", wanted)) if isinstance(came, str) else ""
    return f"wanted {wanted}, got {quoted(came)}{near}"


def _wanted(fault: ErrorDetails) -> str:
    if fault["type"] not in WANTED:
        return fault["msg"].removeprefix("Input should be ")
    limits = {name: f"{value:g}" if isinstance(value, float) else value for name, value in fault.get("ctx", {}).items()}
    return WANTED[fault["type"]].format_map(limits)


def _unknown(key: str, keys: t.Collection[str]) -> str:
    return f"unknown key{nearest(key, keys) or '; wanted one of ' + ', '.join(keys) if keys else ''}"


def _listing(kind: str) -> str:
    return f"; `frostbench list {kind}` shows them"
