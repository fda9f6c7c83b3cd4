"""What people bring themselves: encoders and protocols of their own, to be checked."""

import contextlib
import typing as t
from pathlib import Path

import torch
from pydantic import ValidationError

from bench import datasets
from bench.errors import config_error
from bench.pipeline.extract import extract
from bench.suites import resolve
from bench.suites.sources import place
from encoders.base import EncoderError, Training, visible_to
from encoders.check import check_encoder
from protocols.base import ProtocolError
from protocols.check import check_protocol
from results import files, layout


def check(path: Path, device: torch.device) -> t.Iterator[str]:
    """Check every encoder and protocol of a plugin file with its default parameters; a line for each that passes.

    Raises EncoderError or ProtocolError with the promise that is broken, ConfigError for a file that holds neither.
    """
    encoders = {name: one for name, one in resolve.encoders([path]).items() if name not in resolve.encoders()}
    protocols = {name: one for name, one in resolve.protocols([path]).items() if name not in resolve.protocols()}
    if not encoders and not protocols:
        problem = "wanted a file that defines a subclass of encoders.base.Encoder or of protocols.base.Protocol"
        raise config_error(str(path), problem)
    images = datasets.load("digits", limit=300).train
    for name, encoder in encoders.items():
        with _named(name):
            recipe = encoder().resolved()
            check_encoder(recipe, images, device=device)
            module = recipe.fit(visible_to(images, recipe, seed=0), Training(0, device))
            for _ in extract(name, module, images, recipe.taps, device):
                pass  # it is the proof that counts
            for tap in recipe.taps:
                layout.RunDirectory(Path()).record(tap, name)  # a tap becomes the name of a directory
        yield f"encoder {name} passes all checks"
    for name, protocol in protocols.items():
        with _named(name):
            check_protocol(protocol(), device)
        yield f"protocol {name} passes all checks"


@contextlib.contextmanager
def _named(name: str) -> t.Iterator[None]:
    """Errors of other people's code, as sentences that say whose they are."""
    try:
        yield
    except (EncoderError, ProtocolError, files.StoreError) as error:
        raise EncoderError(f"{name}: {error}") from error
    except ValidationError as error:
        wrong = ", ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise EncoderError(
            f"{name} needs a default for every parameter, since it is checked with them: {wrong}"
        ) from error
    except Exception as error:
        where = f" ({place(error)})" if place(error) else ""
        raise EncoderError(f"{name} fails: {type(error).__name__}: {error}{where}") from error
