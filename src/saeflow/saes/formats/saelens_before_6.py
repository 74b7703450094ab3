"""``cfg.json`` as SAELens wrote it before version 6, in the words of version 6."""

from __future__ import annotations

from typing import Any

KEPT = (
    "d_in",
    "d_sae",
    "dtype",
    "device",
    "rescale_acts_by_decoder_norm",
    "finetuning_scaling_factor",
    "d_out",
    "n_sources",
)
METADATA = (
    "model_name",
    "context_size",
    "dataset_path",
    "hook_head_index",
    "neuronpedia_id",
    "model_from_pretrained_kwargs",
)


def modern(config: Any) -> Any:
    """A config of version 6; one that is no config from before is given back as it is.

    Version 6 keeps where an SAE reads under ``metadata``; before, it stood at the top, as
    ``hook_name`` or ``hook_point``, and architecture, activation function and the subtraction of
    the decoder's bias had defaults. SAELens takes every config that names no version for one from
    before, also where another library wrote it with ``metadata``, and so does this.
    """
    if not isinstance(config, dict):
        return config
    metadata = config.get("metadata")
    fields = metadata if isinstance(metadata, dict) else {}
    layout = str(config.get("sae_lens_version") or fields.get("sae_lens_version") or "0")
    layout = layout.lstrip("v")
    if not layout.partition(".")[0].isdigit() or int(layout.partition(".")[0]) >= 6:
        return config
    config = {**fields, **config}
    activation = config.get("activation_fn") or config.get("activation_fn_str") or "relu"
    architecture = config.get("architecture") or "standard"
    config_of_6 = {name: config[name] for name in KEPT if name in config}
    if activation == "relu" or activation == architecture:
        config_of_6["architecture"] = architecture
    else:
        plain = architecture == "standard"
        config_of_6["architecture"] = activation if plain else f"{architecture} with {activation}"
    if config_of_6["architecture"] == "topk":
        kwargs = config.get("activation_fn_kwargs") or {}
        config_of_6["k"] = kwargs.get("k", config.get("k", 0))
    subtracts = "transcoder" not in architecture
    config_of_6["apply_b_dec_to_input"] = config.get("apply_b_dec_to_input", subtracts)
    normalisation = config.get("normalize_activations") or "none"
    if normalisation is True:
        normalisation = "expected_average_only_in"
    if str(normalisation).lower() in ("none", "null"):
        normalisation = "none"
    config_of_6["normalize_activations"] = str(normalisation)
    added = {
        **fields,
        **{name: config[name] for name in METADATA if name in config},
        "hook_name": config.get("hook_name", config.get("hook_point")),
        "prepend_bos": config.get("prepend_bos", True),
        "sae_lens_version": "6.0.0",
        "before_6": metadata is None,
    }
    return {
        **config_of_6,
        "metadata": {name: value for name, value in added.items() if value is not None},
    }
