"""Errors as text: without secrets of the environment, printable, and of bounded length."""

import json
import os
import re
import traceback

NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD")  # what the name of a variable with a secret holds
LONGEST = 2_000, 20_000  # characters of a message, of a traceback
SHORTEST = 4  # characters; a shorter value would be found in words and numbers that are none

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def redacted(text: str) -> str:
    """The text with each secret value of the environment replaced by its variable's name in brackets.

    Control characters and lone surrogates, which a terminal obeys and no file takes, become escapes.
    """
    found = {
        form: name
        for name, value in os.environ.items()
        if len(value) >= SHORTEST and any(part in name.upper() for part in NAMES)
        for form in (value, repr(value)[1:-1], json.dumps(value)[1:-1])  # as it is, and as programs print it
    }
    for value in sorted(found, key=len, reverse=True):  # one may be part of another
        text = text.replace(value, f"[{found[value]}]")
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def message(error: BaseException, *, kind: bool = True) -> str:
    """What an error says, after its type unless `kind` is false, whatever its `str` does."""
    try:
        said = str(error)
    except Exception as second:
        said, kind = f"its text cannot be had: {type(second).__name__}", True
    name = type(error).__name__
    return shortened(redacted(f"{name}: {said}" if kind and said else said or name), LONGEST[0])


def trace(error: BaseException) -> str:
    """Where an error came from, as Python prints it."""
    return shortened(redacted("".join(traceback.format_exception(error))), LONGEST[1])


def shortened(text: str, longest: int) -> str:
    """The text without its middle, if it is too long."""
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]} [... of {len(text):,} characters ...] {text[-longest // 2 :]}"
