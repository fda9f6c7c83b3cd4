"""A strict reader of YAML: plain data that means what it looks like, every problem with its line.

Read are mappings with string keys, lists, strings, finite numbers, true, false and null. `1e-3` is a number; `no`,
`010`, `1:2` and `2026-01-01` are strings. Refused is what lets a file say one thing twice, or hold more than is written
in it: duplicate keys, anchors and aliases, merge keys, tags, several documents, NaN, and more than a suite ever needs.
Source: the core schema of YAML 1.2, https://yaml.org/spec/1.2.2/#103-core-schema. Differs: a number is written without
leading zeros, in decimal.
"""

import dataclasses
import math
import re
import typing as t

import yaml

from bench.errors import ConfigError, Json, KeyPath, Problem, quoted

Place = tuple[int, int]  # line and column, from 1

MAX_CHARACTERS, MAX_DEPTH, MAX_NODES = 2**20, 32, 10_000  # far above any suite, soon refused

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CONSTANTS = dict.fromkeys(("", "~", "null", "Null", "NULL"))
_CONSTANTS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class Document:
    """What a text says, and where it says it."""

    file: str
    value: Json
    positions: dict[KeyPath, Place]
    problems: list[Problem]  # what was refused; the value goes on without it

    def position(self, path: KeyPath) -> Place:
        """(line, column), from 1, of a key or list item, or of the nearest thing around it that the text holds."""
        while path not in self.positions:
            path = path[:-1]
        return self.positions[path]


def read(text: str, file: str) -> Document:
    """The text as plain data. Raises ConfigError with every problem; `file` is the name they give it."""
    document = compose(text, file)
    if document.problems:
        raise ConfigError(document.problems)
    return document


def compose(text: str, file: str) -> Document:
    """As `read`, but what can be passed over is listed in `problems`. Raises ConfigError where reading cannot go on."""
    reading = _Reading(file)
    if len(text) > MAX_CHARACTERS:
        reading.stop(f"wanted at most {MAX_CHARACTERS:,} characters, got {len(text):,}", (1, 1))
    try:
        reading.loader = yaml.SafeLoader(text)
        return Document(file, reading.document(), reading.positions, reading.problems)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = before.count("\n") + 1, error.position - before.rfind("\n")
        reading.stop(f"not YAML, the character {quoted(text[error.position])} is not allowed", place)
    except yaml.MarkedYAMLError as error:
        where = error.problem_mark or error.context_mark or reading.loader.get_mark()
        reading.stop(", ".join(filter(None, ("not YAML", error.context, error.problem))), _place(where))
    except (ValueError, OverflowError) as error:  # PyYAML hands escapes such as "\Uffffffff" to chr() unchecked
        reading.stop(f"not YAML, {error}", _place(reading.loader.get_mark()))


class _Reading:
    """One pass over PyYAML's events, in pure Python: its C parser crashes on deep nesting."""

    loader: t.Any  # a yaml.SafeLoader, whose methods have no types

    def __init__(self, file: str) -> None:
        self.file = file
        self.positions: dict[KeyPath, Place] = {(): (1, 1)}
        self.problems: list[Problem] = []
        self.nodes = 0

    def refuse(self, message: str, path: KeyPath, place: Place) -> None:
        self.problems.append(Problem(self.file, *place, path, message))

    def stop(self, message: str, place: Place, path: KeyPath = ()) -> t.NoReturn:
        raise ConfigError([*self.problems, Problem(self.file, *place, path, message)])

    def document(self) -> Json:
        self.loader.get_event()  # the stream's start
        if self.loader.check_event(yaml.StreamEndEvent):
            return None
        self.loader.get_event()  # the document's start
        value = self.value((), (1, 1), self.loader.get_event())
        self.loader.get_event()  # the document's end
        if not self.loader.check_event(yaml.StreamEndEvent):
            self.stop("wanted one document, got a second one", _place(self.loader.peek_event().start_mark))
        return value

    def value(self, path: KeyPath, place: Place, event: t.Any) -> Json:
        self.positions.setdefault(path, place)
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self.stop(f"wanted at most {MAX_NODES:,} values, got more", place)
        if len(path) > MAX_DEPTH:
            self.stop(f"wanted at most {MAX_DEPTH} levels, got more", place)
        if event.anchor is not None:  # an alias has it too
            self.refuse("anchors and aliases are not supported; write the value out", path, place)
        if isinstance(event, yaml.AliasEvent):
            return None
        if event.tag is not None:
            self.refuse(f"tags are not supported; remove {quoted(event.tag)}", path, place)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path)
        return self.mapping(path) if isinstance(event, yaml.MappingStartEvent) else self.scalar(event, path, place)

    def sequence(self, path: KeyPath) -> list[Json]:
        items: list[Json] = []
        while not isinstance(event := self.loader.get_event(), yaml.SequenceEndEvent):
            items.append(self.value((*path, len(items)), _place(event.start_mark), event))
        return items

    def mapping(self, path: KeyPath) -> dict[str, Json]:
        entries: dict[str, Json] = {}
        while not isinstance(event := self.loader.get_event(), yaml.MappingEndEvent):
            place = _place(event.start_mark)
            if not isinstance(event, yaml.ScalarEvent):
                self.stop("wanted a string as key, got a list, a mapping or an alias", place, path)
            key = self.value(path, place, event)
            if not isinstance(key, str):
                key, came = quoted(event.value), quoted(key)
                self.refuse(f"wanted a string as key, got {came}; quote it", (*path, key), place)
            elif key == "<<" and event.style is None:
                self.refuse("merge keys are not supported; write the entries out", path, place)
            if key in entries:
                line, column = self.positions[*path, key]
                self.refuse(f"key written twice, first on line {line}, column {column}", (*path, key), place)
            entries.setdefault(key, self.value((*path, key), place, self.loader.get_event()))
        return entries

    def scalar(self, event: yaml.ScalarEvent, path: KeyPath, place: Place) -> Json:
        text = event.value
        if _SURROGATE.search(text):
            self.refuse(f"wanted whole characters, got half a surrogate pair in {quoted(text)}", path, place)
        elif event.style is not None:  # quoted, or a block of text
            return text
        elif text in _CONSTANTS:
            return _CONSTANTS[text]
        elif _INTEGER.fullmatch(text):
            if len(text) <= 20 and -(2**63) <= int(text) < 2**63:
                return int(text)
            self.refuse(f"wanted a 64-bit integer, got {quoted(text)}", path, place)
        elif _NOT_FINITE.fullmatch(text) or (_FLOAT.fullmatch(text) and not math.isfinite(float(text))):
            self.refuse(f"wanted a finite number, got {quoted(text)}", path, place)
        else:
            return float(text) if _FLOAT.fullmatch(text) else text
        return None


def _place(mark: yaml.Mark) -> Place:
    return mark.line + 1, mark.column + 1
