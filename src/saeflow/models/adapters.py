"""Places of tensors from TransformerLens's architecture adapters.

TransformerLens describes every architecture that it supports by an adapter: a tree of components
under the names of its hooks, each with the path of the module of `transformers` that it stands for.
The tree is made from the model's config alone. Neither weights nor a bridge are needed to read it:
the config is translated to TransformerLens's own, the adapter is chosen by the name of the model's
class, and its ``component_mapping`` holds components that no module has been put into.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from saeflow.config.hooks import OF_A_MODULE, SITES
from saeflow.errors import SaeflowError
from saeflow.models.families import FAMILIES, NEOX_IN_SEQUENCE, PARALLEL, Family, Place

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_SIDES = {"hook_in": "input", "hook_out": "output", "hook_normalized": "normalized"}
_SCALED = {"hook_attn_out": "scaled_attn_submodule", "hook_mlp_out": "scaled_mlp_submodule"}


# The smallest OPT but one. TransformerLens's adapter names the places of the others for it, too.
_AROUND_NORMS = ("ln1.hook_normalized", "hook_resid_mid", "ln2.hook_normalized")
_NORMS_BEHIND = "norms stand behind attention and MLP in this model, not before them"
_TWO_KINDS = "layers of two kinds have it at different places"


def family_of(config: PretrainedConfig) -> Family:
    """The family of the models with a config: from our own table, else from TransformerLens.

    Raises:
        SaeflowError: as `adapted_family` does.
    """
    if config.model_type not in FAMILIES:
        return adapted_family(config)
    family = FAMILIES[config.model_type]
    if config.model_type == "gpt_neox" and not config.use_parallel_residual:
        return replace(family, sites=NEOX_IN_SEQUENCE, absent={})
    return family


def class_of(model_type: str) -> str | None:
    """The class in `transformers` of the decoders of a type; None where there is none."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    names = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    return names if isinstance(names, str) or names is None else names[0]


def adapted_family(config: PretrainedConfig) -> Family:
    """The family that TransformerLens describes for a config.

    Raises:
        SaeflowError: `transformers` has no decoder of the type, TransformerLens has no adapter for
            it, or the adapter names no residual stream that goes from layer to layer.
    """
    where = f"models: models of type '{config.model_type}'"
    model_class = class_of(config.model_type)
    if model_class is None:
        raise SaeflowError(
            f"{where} are no decoders of text that transformers knows; name a causal language model"
        )
    components, decodes = _components(config, model_class)
    if components is None:
        raise SaeflowError(
            f"{where} ({model_class}) are known neither here nor to TransformerLens's adapters; "
            "name a model of another family"
        )
    block = components.get("blocks")
    # What is added to the stream comes before what a module gives: `Family.first_name`.
    order = sorted(SITES, key=OF_A_MODULE.__contains__)
    places = {site: _place(block, site) for site in order} if block is not None else {}
    if not getattr(config, "do_layer_norm_before", True):
        places |= dict.fromkeys(_AROUND_NORMS, _NORMS_BEHIND)
    if block is not None and _differs_by_layer(block):
        places |= dict.fromkeys((*_AROUND_NORMS, "hook_attn_out", "hook_mlp_out"), _TWO_KINDS)
    sites = {site: place for site, place in places.items() if isinstance(place, Place)}
    if not decodes or not {"hook_resid_pre", "hook_resid_post"} <= sites.keys():
        raise SaeflowError(
            f"{where} ({model_class}) have no residual stream that goes from layer to layer of a "
            "decoder, as far as TransformerLens's adapter tells; name a model of another family"
        )
    final_norm = components.get("ln_final")
    return Family(
        model_class,
        block.name,
        final_norm.name if final_norm is not None else None,
        MappingProxyType(sites),
        {site: reason for site, reason in places.items() if isinstance(reason, str)},
        adapted=True,
    )


def _components(config: PretrainedConfig, model_class: str) -> tuple[Any, bool]:
    """The tree of an adapter, None where TransformerLens has no adapter, and whether the
    architecture decodes."""
    import torch
    from transformer_lens.factories.architecture_adapter_factory import (
        SUPPORTED_ARCHITECTURES,
        ArchitectureAdapterFactory,
    )
    from transformer_lens.model_bridge.sources import build_bridge_config_from_hf

    # Some names differ in capitals: PhimoeForCausalLM is PhiMoEForCausalLM there.
    by_name = {name.lower(): name for name in SUPPORTED_ARCHITECTURES}
    name = by_name.get(model_class.lower())
    if name is None:
        return None, False
    try:
        translated = build_bridge_config_from_hf(deepcopy(config), name, "", torch.float32)
        adapter = ArchitectureAdapterFactory.select_architecture_adapter(translated)
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise SaeflowError(
            f"models: TransformerLens's adapter for {model_class} cannot read the model's "
            f"config.json ({reason}); name a model of another family"
        ) from error
    return adapter.component_mapping or {}, adapter.supports_generation


def _differs_by_layer(block: Any) -> bool:
    """Whether an architecture's own kind of layer chooses its places when it is given a module
    (OLMo Hybrid), which is not known from the config."""
    return "supported_architectures" in type(block).set_original_component.__module__


def _place(block: Any, site: str) -> Place | str:
    """Where a layer keeps a site's tensor, or why it has none."""
    if site in _SCALED and hasattr(block, "residual_contribution_scale"):
        scaled = block.submodules.get(getattr(block, _SCALED[site]) or "")
        if scaled is None:
            return "what is added to the residual stream there is no module's output"
        return Place(scaled.name, "output", factor=block.residual_contribution_scale)
    return _in_tree(block, "", site.split("."), site)


def _in_tree(component: Any, path: str, names: list[str], site: str) -> Place | str:
    """The place of a hook below a component, whose module lies at a path."""
    name, *below = names
    if target := component.hook_aliases.get(name):
        first = target if isinstance(target, str) else target[0]
        return _in_tree(component, path, [*first.split("."), *below], site)
    if below:
        child = component.submodules.get(name)
        if child is None:
            return _reason(site, name)
        inside = path if child.name is None else f"{path}.{child.name}".lstrip(".")
        return _in_tree(child, inside, below, site)
    if component.name is None and name in ("hook_in", "hook_out"):
        # Layers that hold both layers of the MLP themselves: its input is the first one's.
        return _in_tree(component, path, [name.removeprefix("hook_"), name], site)
    if name not in _SIDES or not hasattr(component, name):
        return _reason(site, name)
    side: Any = _SIDES[name]
    # What a norm or a module between reads, the residual stream goes on beside.
    read_only = side == "normalized" or site == "hook_resid_mid"
    return Place(path, side, editable=not read_only)


def _reason(site: str, name: str) -> str:
    """Why an adapter has no hook for a site."""
    if site == "hook_resid_mid":
        return PARALLEL
    if name in ("ln1", "ln2"):
        before = "attention" if name == "ln1" else "the MLP"
        return f"no norm of its own stands before {before}"
    return f"TransformerLens's adapter names no {name} in a layer"
