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
    the decoder's bias had defaults.
    """
    if (
        not isinstance(config, dict)
        or "metadata" in config
        or not {"hook_name", "hook_point"} & config.keys()
    ):
        return config
    activation = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    architecture = config.get("architecture", "standard")
    config_of_6 = {name: config[name] for name in KEPT if name in config}
    config_of_6["architecture"] = architecture if activation == "relu" else activation
    if activation == "topk":
        config_of_6["k"] = config.get("activation_fn_kwargs", {}).get("k", 0)
    config_of_6["apply_b_dec_to_input"] = config.get("apply_b_dec_to_input", True)
    normalisation = config.get("normalize_activations", "none")
    if isinstance(normalisation, bool):
        normalisation = "expected_average_only_in" if normalisation else "none"
    config_of_6["normalize_activations"] = str(normalisation)
    metadata = {name: config[name] for name in METADATA if name in config}
    hook = config.get("hook_name", config.get("hook_point"))
    added = {
        "hook_name": hook,
        "prepend_bos": config.get("prepend_bos", True),
        "sae_lens_version": "6.0.0",
        "before_6": True,
    }
    return {**config_of_6, "metadata": {**metadata, **added}}
