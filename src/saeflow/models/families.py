"""Which module of a model has which tensor, by family.

The families of the table below were read in the code of `transformers`, and run with its slow
leaves exchanged (`saeflow.models.fast_layers`). Every other decoder gets its places from
TransformerLens (`saeflow.models.adapters`) and runs as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

from saeflow.config.hooks import NOT_IN_THE_STREAM, OF_A_MODULE

PARALLEL = "attention and MLP read the same residual stream, so there is none between them"


class Place(NamedTuple):
    """Where a family keeps the tensor of a site."""

    module: str
    """Path of the module below the layer; empty for the layer itself."""
    side: Literal["input", "output", "normalized"]
    """``normalized`` is what a norm gives before its weights; it can only be read."""
    editable: bool = True
    """False where the model goes on with another copy of the tensor, so that an edit would be half
    an edit."""
    factor: float = 1.0
    """The tensor is the module's times this; Granite scales what it adds to the residual stream."""

    @property
    def tensor(self) -> tuple[str, str, float]:
        """What two places share that hold one tensor."""
        return self.module, self.side, self.factor


@dataclass(frozen=True)
class Family:
    """How the models of one kind are put together."""

    model_class: str
    """Name of the class in `transformers`."""
    layers: str
    """Path of the list of layers in the model."""
    final_norm: str | None
    """Path of the norm between the last layer and the unembedding."""
    sites: Mapping[str, Place]
    """Of `saeflow.config.hooks.SITES`, those that a layer has."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Of those that it has not, why."""
    adapted: bool = False
    """Whether the places come from TransformerLens: of the code beyond them nothing is known, so
    its tensors are copied before anyone keeps them, and no part of it is exchanged."""

    @property
    def stack(self) -> str:
        """Path of the model without its unembedding: embeddings, layers, final norm."""
        return self.layers.rpartition(".")[0]

    def first_name(self, site: str) -> str:
        """The first of the sites that have the same tensor."""
        if site not in self.sites:
            return site
        tensor = self.sites[site].tensor
        return next(name for name, place in self.sites.items() if place.tensor == tensor)

    def writes_stream(self, site: str) -> bool:
        """Whether the tensor of a site is the residual stream, or is added to it as it is but for
        a factor."""
        added = OF_A_MODULE.get(site)
        if added is None or added not in self.sites:
            return site not in NOT_IN_THE_STREAM
        # A norm that stands after the module is beside it; a module that adds the stream itself
        # holds the one whose output is added.
        return self.sites[added].module.startswith(self.sites[site].module)


def _sites(
    attention: str,
    projection: str,
    norms: tuple[str, str],
    added: tuple[str, str] | None = None,
    parallel: bool = False,
) -> Mapping[str, Place]:
    """The places of a family.

    Args:
        attention: module of attention.
        projection: its output projection, whose input is the heads side by side.
        norms: before attention and before the MLP.
        added: modules whose outputs are added to the residual stream, where these are not attention
            and MLP themselves.
        parallel: whether attention and MLP read the same stream, and nothing is between.
    """
    of_attention, of_mlp = added or (attention, "mlp")
    sites = {
        "hook_resid_pre": Place("", "input"),
        "ln1.hook_normalized": Place(norms[0], "normalized", editable=False),
        "attn.hook_z": Place(projection, "input"),
        "hook_attn_out": Place(of_attention, "output"),
        "attn.hook_out": Place(attention, "output"),
        "hook_resid_mid": Place(norms[1], "input", editable=False),
        "ln2.hook_normalized": Place(norms[1], "normalized", editable=False),
        "mlp.hook_in": Place("mlp", "input"),
        "hook_mlp_out": Place(of_mlp, "output"),
        "mlp.hook_out": Place("mlp", "output"),
        "hook_resid_post": Place("", "output"),
    }
    if parallel:
        del sites["hook_resid_mid"]
    return MappingProxyType(sites)


_LLAMA = _sites("self_attn", "self_attn.o_proj", ("input_layernorm", "post_attention_layernorm"))
# Gemma 2 and 3 normalise what attention and MLP give before it is added.
_GEMMA2 = _sites(
    "self_attn",
    "self_attn.o_proj",
    ("input_layernorm", "pre_feedforward_layernorm"),
    added=("post_attention_layernorm", "post_feedforward_layernorm"),
)
_GPT2 = _sites("attn", "attn.c_proj", ("ln_1", "ln_2"))
_NEOX_NORMS = ("input_layernorm", "post_attention_layernorm")
_NEOX = _sites("attention", "attention.dense", _NEOX_NORMS, parallel=True)
NEOX_IN_SEQUENCE = _sites("attention", "attention.dense", _NEOX_NORMS)
"""Of models whose config says ``use_parallel_residual: false``."""


def _like_llama(model_class: str, sites: Mapping[str, Place] = _LLAMA) -> Family:
    return Family(model_class, "model.layers", "model.norm", sites)


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "llama": _like_llama("LlamaForCausalLM"),
        "mistral": _like_llama("MistralForCausalLM"),
        "qwen2": _like_llama("Qwen2ForCausalLM"),
        "qwen3": _like_llama("Qwen3ForCausalLM"),
        "gemma": _like_llama("GemmaForCausalLM"),
        "gemma2": _like_llama("Gemma2ForCausalLM", _GEMMA2),
        "gemma3_text": _like_llama("Gemma3ForCausalLM", _GEMMA2),
        "gpt2": Family("GPT2LMHeadModel", "transformer.h", "transformer.ln_f", _GPT2),
        "gpt_neox": Family(
            "GPTNeoXForCausalLM",
            "gpt_neox.layers",
            "gpt_neox.final_layer_norm",
            _NEOX,
            {"hook_resid_mid": PARALLEL},
        ),
    }
)
"""By the ``model_type`` of a checkpoint's config.json."""
