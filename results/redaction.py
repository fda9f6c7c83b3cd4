"""Secrets of the environment stay out of whatever is written."""

import json
import os

NAMES = ("KEY", "TOKEN", "SECRET", "PASSWORD")  # what the name of a variable with a secret holds
SHORTEST = 4  # characters; a shorter value would be found in words and numbers that are none


def redacted(text: str) -> str:
    """The text with each secret value of the environment replaced by its variable's name in brackets."""
    found = {
        form: name
        for name, value in os.environ.items()
        if len(value) >= SHORTEST and any(part in name.upper() for part in NAMES)
        for form in (value, repr(value)[1:-1], json.dumps(value)[1:-1])  # as it is, and as programs print it
    }
    for value in sorted(found, key=len, reverse=True):  # one may be part of another
        text = text.replace(value, f"[{found[value]}]")
    return text
