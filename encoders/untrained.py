"""Untrained: any other encoder as it is before its first step, batch-norm settled. What training has to beat.

An untrained BiGAN encoder already classifies MNIST by its nearest neighbour at 96.84 % (Donahue et al.'s log, epoch 0).
"""

import importlib
import json
import typing as t

from pydantic import Field, field_validator
from pydantic_core.core_schema import ValidationInfo
from torch import nn

from encoders.base import Encoder, ImageSet, ImageShape, Training
from encoders.training import settle


class Untrained(Encoder):
    """The weights another encoder starts from, for the same seed, and nothing learned."""

    source: t.ClassVar[str] = "the architecture's own"
    is_control: t.ClassVar[bool] = True

    architecture: str = "bigan"  # the name of an encoder that is trained
    parameters: dict[str, t.Any] = Field(default_factory=dict, validate_default=True)  # where they differ from its own

    @field_validator("parameters")
    @classmethod
    def _fill_in(cls, parameters: dict[str, t.Any], info: ValidationInfo) -> dict[str, t.Any]:
        """Every default of the architecture, so that changing one makes this another recipe too."""
        if "architecture" not in info.data:  # it was wrong itself, which is said already
            return parameters
        return _recipe(info.data["architecture"], parameters).model_dump(mode="json")

    @property
    def revision(self) -> int:
        """Grows with its own version and with the architecture's."""
        return self.version + _recipe(self.architecture, self.parameters).version - 1

    @property
    def taps(self) -> tuple[str, ...]:
        return _recipe(self.architecture, self.parameters).taps

    def build(self, shape: ImageShape) -> nn.Module:
        return _recipe(self.architecture, self.parameters).build(shape)

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            module = self.build(data.shape)
        return settle(module, data, run)


def _recipe(architecture: str, parameters: dict[str, t.Any]) -> Encoder:
    """An encoder of this package by its file's name; that only a trained one will do is seen by its epochs."""
    try:
        module = importlib.import_module(f"encoders.{architecture}")
    except ModuleNotFoundError as error:
        raise ValueError(f"no encoder {architecture!r}; frostbench list encoders shows them") from error
    own = (value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__)
    for recipe in own:
        if issubclass(recipe, Encoder) and "epochs" in recipe.model_fields:
            return recipe.model_validate_json(json.dumps(parameters))
    raise ValueError(f"{architecture!r} is not an encoder that is trained, so it has no untrained state")
