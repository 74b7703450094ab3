"""llama.cpp's control vectors: a GGUF file with one tensor ``direction.<layer>`` per layer.

llama.cpp adds ``direction.N`` to the output of layer N, counted from 0, at all positions, which is
``blocks.N.hook_resid_post``. Layer 0 has none: neither the loader nor the model takes a
``direction.0``. Layers that the file does not name get nothing. What ``--control-vector-scaled``
gives multiplies the tensor.
"""

from __future__ import annotations

from pathlib import Path

from gguf import GGUFWriter

from saeflow.analyses.steering.exports.content import Content
from saeflow.artifacts import atomic
from saeflow.errors import SaeflowError

READS = ("vector", "model")
SUFFIXES = (".gguf",)

_OTHER_NAMES = {"mistral": "llama", "gpt_neox": "gptneox", "gemma3_text": "gemma3"}
"""Of families whose type is another word in llama.cpp."""


def save(path: Path, content: Content) -> None:
    """Write the vector times the scale.

    Raises:
        SaeflowError: the vector is added behind layer 0, or what `Content.steered` raises.
    """
    steered = content.steered
    if steered.layer == 0:
        raise SaeflowError(
            f"{content.files['vector']}: is added behind layer 0, where llama.cpp adds no control "
            "vector; export one of a later layer"
        )
    model_type = steered.config.model_type
    with atomic(path) as temporary:
        writer = GGUFWriter(temporary, "controlvector")
        writer.add_string("controlvector.model_hint", _OTHER_NAMES.get(model_type, model_type))
        writer.add_int32("controlvector.layer_count", 1)  # of the file, not of the model
        writer.add_tensor(f"direction.{steered.layer}", steered.added.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
