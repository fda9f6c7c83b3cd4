"""Untrained: any other encoder as it is before its first step, batch-norm settled. What training has to beat.

An untrained BiGAN encoder already classifies MNIST by its nearest neighbour at 96.84 % (Donahue et al.'s log, epoch 0).
"""

import json
import typing as t

from pydantic import Field, field_validator
from pydantic_core.core_schema import ValidationInfo
from torch import nn

from encoders.base import Encoder, EncoderError, ImageSet, ImageShape, Training
from encoders.batch_norm import recalibrate_batch_norm
from encoders.loading import named, plugin_encoders


class Untrained(Encoder):
    """The initial weights of another encoder for the same seed; nothing is learned."""

    source: t.ClassVar[str] = "the architecture's own"
    is_control: t.ClassVar[bool] = True

    architecture: str = "bigan"
    """Name of a trained encoder, whose network is taken."""
    parameters: dict[str, t.Any] = Field(default_factory=dict, validate_default=True)
    """Parameters of that encoder; those left out have its defaults."""

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
        return self.version + _recipe(self.architecture, self.parameters).revision - 1

    @property
    def equal_revisions(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Those of the architecture's."""
        equal = _recipe(self.architecture, self.parameters).equal_revisions
        return {
            precision: tuple(tuple(self.version + one - 1 for one in group) for group in groups)
            for precision, groups in equal.items()
        }

    @property
    def runs_code_of(self) -> tuple[type[Encoder], ...]:
        return type(self), *_recipe(self.architecture, self.parameters).runs_code_of

    @property
    def taps(self) -> tuple[str, ...]:
        return _recipe(self.architecture, self.parameters).taps

    def build(self, shape: ImageShape) -> nn.Module:
        module = _recipe(self.architecture, self.parameters).build(shape)
        if not any(True for _ in module.parameters()):
            raise EncoderError(f"{self.architecture!r} has no trained weights, so it has no untrained state")
        return module

    def fit(self, data: ImageSet, run: Training) -> nn.Module:
        with run.seeded("init"):
            module = self.build(data.shape)
        return recalibrate_batch_norm(module, data, run)


def _recipe(architecture: str, parameters: dict[str, t.Any]) -> Encoder:
    """An encoder by its name; that only a trained one of ours will do is seen by its epochs. Raises ValueError."""
    try:
        recipe = plugin_encoders.get(architecture) or named(architecture)
    except EncoderError:
        raise ValueError(f"no encoder {architecture!r}; `frostbench list encoders` shows them") from None
    if not (architecture in plugin_encoders or "epochs" in recipe.model_fields):
        raise ValueError(f"{architecture!r} is not a trained encoder, so it has no untrained state")
    return recipe.model_validate_json(json.dumps(parameters))
