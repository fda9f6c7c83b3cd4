"""Errors as text: without secrets of the environment, printable, and of bounded length."""

import json
import os
import re
import traceback
import typing as t
import urllib.parse

SECRET = re.compile(  # what the name of a variable with a secret holds; PAT is a personal access token
    r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|PASS$|(^|_)(PASS|PAT|PWD)(_|$)", re.IGNORECASE
)
DIRECTORIES = ("PWD", "OLDPWD")  # which the pattern would take for passwords
IN_URL = re.compile(r"://([^/?#@\s:]*)(?::([^/?#\s]*))?@")  # the name, or the name and the password
MAX_CHARACTERS = 2_000, 20_000  # characters of a message, of a traceback
MIN_CHARACTERS = 4  # characters; a shorter value would be found in words and numbers that are none


def redacted(text: str) -> str:
    """The text with each secret value of the environment replaced by its variable's name in brackets.

    Secrets are the values of variables whose names say so, and the password, or else the name, in an address such as
    http://name:password@proxy, whatever its variable is called. The text is `printable`.
    """
    found = {
        form: name for name, value in os.environ.items() for secret in _secrets(name, value) for form in _forms(secret)
    }
    for value in sorted(found, key=len, reverse=True):  # one may be part of another
        text = text.replace(value, f"[{found[value]}]")
    return printable(text)


def message(error: BaseException, *, kind: bool = True) -> str:
    """What an error says, after its type unless `kind` is false, whatever its `str` does."""
    try:
        said = str(error)
    except Exception as second:
        said, kind = f"its text cannot be had: {type(second).__name__}", True
    name = type(error).__name__
    return shortened(redacted(f"{name}: {said}" if kind and said else said or name), MAX_CHARACTERS[0])


def trace(error: BaseException) -> str:
    """Where an error came from, as Python prints it."""
    return shortened(redacted("".join(traceback.format_exception(error))), MAX_CHARACTERS[1])


def shortened(text: str, longest: int) -> str:
    """The text without its middle, if it is too long."""
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]} [... of {len(text):,} characters ...] {text[-longest // 2 :]}"


def _secrets(name: str, value: str) -> t.Iterator[str]:
    if SECRET.search(name) and name not in DIRECTORIES and len(value) >= MIN_CHARACTERS:
        yield value
    for user, password in IN_URL.findall(value):
        secret = password or user
        yield from (one for one in {secret, urllib.parse.unquote(secret)} if len(one) >= MIN_CHARACTERS)


def _forms(secret: str) -> set[str]:
    """A secret as it is, as programs print it, and as addresses hold it."""
    quoted = {urllib.parse.quote(secret, safe=safe, errors="surrogateescape") for safe in ("", "/")}
    quoted.add(urllib.parse.quote_plus(secret, errors="surrogateescape"))
    lower = {re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), one) for one in quoted}
    return {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], *quoted, *lower}


def printable(text: str) -> str:
    """The text with each character that would steer a terminal, or that no file can hold, written out: \\x1b."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in text)
