"""What a user can mend: problems with their place, and how messages quote values and propose names.

An exception of ours has an `exit_code`, with which the command line ends: 2 for usage and configuration, 4 for data.
"""

import dataclasses
import difflib
import re
import typing as t

Json = t.Any  # what json.loads can return
KeyPath = tuple[str | int, ...]  # keys and list indices from the root: ("encoders", 2, "epochs")


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing that is wrong with an input, and where it stands."""

    file: str  # or the command-line option it came from
    line: int | None  # from 1; None if it is about the whole of it
    column: int | None
    path: KeyPath
    message: str  # what was wanted, what came

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return " ".join(": ".join(filter(None, (place, key_path(self.path), self.message))).splitlines())


class ConfigError(Exception):
    """Everything that is wrong with an input, one problem a line."""

    exit_code = 2

    def __init__(self, problems: t.Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = list(problems)

    def __str__(self) -> str:
        more = len(self.problems) - 50
        return "\n".join([*map(str, self.problems[:50])] + [f"... and {more} more problems"] * (more > 0))


def config_error(place: str, problem: str) -> ConfigError:
    """What is wrong with a file as a whole, or with an option of the command line."""
    return ConfigError([Problem(place, None, None, (), problem)])


def key_path(path: KeyPath) -> str:
    """`encoders[2].epochs`, safe to print whatever the keys hold."""
    text = ""
    for part in path:
        if isinstance(part, str) and re.fullmatch(r"[\w-]+", part):
            text += f".{part}" if text else part
        else:
            text += f"[{quoted(part)}]"
    return text


def quoted(value: Json) -> str:
    """A value as a message quotes it: on one line, and short."""
    text = "nothing" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def nearest(name: str, choices: t.Iterable[str]) -> str:
    """` (did you mean 'bigan'?)` for the choice most like a name, or nothing if none is."""
    spelled = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name[:100].lower(), spelled, 1)
    return f" (did you mean {spelled[close[0]]!r}?)" if close else ""
