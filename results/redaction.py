"""Secrets of the environment stay out of whatever is written, and control characters out of what a terminal shows."""

import json
import os
import re
import typing as t
import urllib.parse

SECRET = re.compile(  # what the name of a variable with a secret holds; PAT is a personal access token
    r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|PASS$|(^|_)(PASS|PAT|PWD)(_|$)", re.IGNORECASE
)
DIRECTORIES = ("PWD", "OLDPWD")  # which the pattern would take for passwords
IN_URL = re.compile(r"://([^/?#@\s:]*)(?::([^/?#\s]*))?@")  # the name, or the name and the password
SHORTEST = 4  # characters; a shorter value would be found in words and numbers that are none


def redacted(text: str) -> str:
    """The text with each secret value of the environment replaced by its variable's name in brackets.

    Secrets are the values of variables whose names say so, and the password, or else the name, in an address such as
    http://name:password@proxy, whatever its variable is called.
    """
    found = {
        form: name for name, value in os.environ.items() for secret in _secrets(name, value) for form in _forms(secret)
    }
    for value in sorted(found, key=len, reverse=True):  # one may be part of another
        text = text.replace(value, f"[{found[value]}]")
    return text


def _secrets(name: str, value: str) -> t.Iterator[str]:
    if SECRET.search(name) and name not in DIRECTORIES and len(value) >= SHORTEST:
        yield value
    for user, password in IN_URL.findall(value):
        secret = password or user
        yield from (one for one in {secret, urllib.parse.unquote(secret)} if len(one) >= SHORTEST)


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
