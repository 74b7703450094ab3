"""The file that the model ``steered`` of lm-evaluation-harness reads (``steer_path``): a dictionary
saved by torch, of what is done to the outputs of modules.

Modules go by their paths below the ``base_model`` of the model of transformers: ``layers.12`` of a
Llama, ``h.5`` of GPT-2. The vector is added at all positions.
"""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from saeflow.analyses.steering.exports.content import Content, Steered
from saeflow.artifacts import atomic, read_object
from saeflow.errors import SaeflowError

READS = ("vector", "model")
SUFFIXES = (".pt", ".pth")


def save(path: Path, content: Content) -> None:
    """Write the unit vector and its coefficient, for the module whose output it is added to.

    Raises:
        SaeflowError: what `module_of` and `Content.steered` raise.
    """
    steered = content.steered
    action = {
        "steering_vector": steered.vector.vector.cpu().clone(),
        "steering_coefficient": float(steered.scale),
        "action": "add",
        "bias": None,
        "head_index": None,
    }
    with atomic(path) as temporary:
        torch.save({module_of(steered): action}, temporary)


def module_of(steered: Steered) -> str:
    """The path of the layer below the model's ``base_model``.

    Raises:
        SaeflowError: lm-evaluation-harness loads the checkpoint as another class of models.
    """
    file = steered.checkpoint / "config.json"
    if read_object(file).get("model_type") != steered.config.model_type:
        raise SaeflowError(
            f"{steered.checkpoint}: is a model of images, too, whose layers lie elsewhere when "
            "lm-evaluation-harness loads it; export the vector for its model of text alone"
        )
    prefix = getattr(transformers, steered.family.model_class).base_model_prefix
    return f"{steered.family.layers.removeprefix(f'{prefix}.')}.{steered.layer}"
