"""What a SAELens config says of the training beside the weights: heeded, or told where nothing here
can heed it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saeflow.errors import warn
from saeflow.models.places import WITHOUT_CENTRE, family_of, hooks_at

_CENTRED_SITES = (
    "hook_resid_pre",
    "hook_resid_mid",
    "hook_resid_post",
    "hook_attn_out",
    "hook_mlp_out",
)


def trained_centred(where: Path, metadata: Mapping[str, Any]) -> bool:
    """Whether TransformerLens gave the training activations less their mean over the width.

    It does so where ``center_writing_weights`` is set, the model's norms are layer norms, and the
    hook reads what layers write. SAELens sets it to false and writes that down; before it did
    either, it was true.

    Args:
        where: the SAE's folder, for the warning where the file does not say it.
        metadata: of the SAE.
    """
    family = family_of(str(metadata.get("model_name", "")))
    hooks = hooks_at(str(metadata.get("hook_name", ""))) or frozenset()
    if family in WITHOUT_CENTRE or not any(hook.endswith(_CENTRED_SITES) for hook in hooks):
        return False
    options = metadata.get("model_from_pretrained_kwargs")
    if isinstance(options, dict) and "center_writing_weights" in options:
        return bool(options["center_writing_weights"])
    if metadata.get("before_6") and family and options is None:
        warn(
            f"{where}: does not say whether it was trained on centred activations, as SAEs of "
            f"{metadata['model_name']} were before SAELens wrote it down; set centred "
            "(saes.<name>.centred) if it was"
        )
    return False
