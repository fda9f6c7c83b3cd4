"""The control of a trained encoder: the same network before its first step, which encoders can share."""

import hashlib
import json
import typing as t

import safetensors.torch

from encoders.base import Encoder, EncoderError, ImageShape, seeded
from encoders.untrained import Untrained

SHAPES: tuple[ImageShape, ...] = ((1, 28, 28), (3, 32, 32))  # tried in turn


def is_trained(recipe: Encoder) -> bool:
    """Whether it learns weights: what its training is worth, with or without labels, is seen beside its control."""
    return "epochs" in type(recipe).model_fields and not recipe.is_control


def entry(name: str, recipe: Encoder) -> dict[str, t.Any]:
    """What a suite says of the control of an encoder of this name. The length of the training has no part in it."""
    parameters = recipe.model_dump(mode="json")
    if not type(recipe).model_fields["epochs"].is_required():
        del parameters["epochs"]
    return {"name": "untrained", "architecture": name, "parameters": parameters}


def network(name: str, recipe: Encoder) -> str:
    """A digest of the network before its first step: its layers, their first weights and its taps.

    An `untrained` recipe has the digest of its architecture.
    """
    digest = hashlib.sha256(json.dumps(recipe.taps).encode())
    for shape in SHAPES:
        try:
            with seeded(0, "control"):
                module = recipe.build(shape)
        except EncoderError:
            continue
        digest.update(str(module).encode())
        digest.update(safetensors.torch.save({key: one.contiguous() for key, one in module.state_dict().items()}))
        return digest.hexdigest()
    known = recipe.parameters if isinstance(recipe, Untrained) else recipe.model_dump(mode="json")
    return json.dumps([recipe.architecture if isinstance(recipe, Untrained) else name, known], sort_keys=True)
