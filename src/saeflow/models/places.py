"""Names that other libraries give to tensors of the forward pass, as hooks.

SAEs are published with the place that they were trained at in one of four languages:
TransformerLens names, also those of its version 3 (``blocks.5.hook_out``); paths of modules with a
side (Gemma Scope 2: ``model.layers.5.self_attn.o_proj.input``) or without one, which is the output
(sparsify: ``layers.5.mlp``); words (dictionary_learning: ``resid_post_layer_5``); and a layer
alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from saeflow.config.hooks import OF_A_MODULE, SITES, one_name
from saeflow.models.families import FAMILIES

# Where a name holds a family's, in the order of looking: the first that matches.
_FAMILY_OF_MODEL = (
    (r"gemma-?v?3", "gemma3_text"),
    (r"gemma-?v?2-(2b|9b|27b)", "gemma2"),
    ("gemma", "gemma"),
    (r"qwen-?3", "qwen3"),
    ("qwen", "qwen2"),
    ("mistral", "mistral"),
    ("pythia|neox", "gpt_neox"),
    (r"gpt-?2", "gpt2"),
    ("llama|smollm", "llama"),
)
WITHOUT_CENTRE = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")
"""Families whose norms read the mean over the width, so that TransformerLens leaves it in their
weights."""

_TRANSFORMER_LENS = re.compile(r"blocks\.(\d+)\.([\w.]+)")
_MODULE = re.compile(r"(?:\w+\.)*?(layers|h|blocks?)\.(\d+)(?:\.([\w.]+))?")
_WORDS = re.compile(r"(resid|attn|attention|mlp)(?:_(pre|mid|post|out|in))?[_.]?layer[_.]?(\d+)")
_LAYER = re.compile(r"layer[_ .]?(\d+)")

# Names of TransformerLens for what may be one of several tensors. Its versions differ on the norms:
# what version 4 calls ``hook_normalized`` is before their weights everywhere; versions 1 and 2 had
# it behind them in LayerNorm, and where the weights are folded into the MLP's, it is what this one
# reads. Gemma Scope's transcoders, trained behind the weights, are published under that name, too.
_AMBIGUOUS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "hook_mlp_in": ("hook_resid_mid", "mlp.hook_in"),
        "ln1.hook_in": ("hook_resid_pre",),
        "ln1_post.hook_out": ("hook_attn_out",),
        "ln2_post.hook_out": ("hook_mlp_out",),
        "ln2.hook_in": ("hook_resid_mid",),
        "ln2.hook_out": ("mlp.hook_in",),
        "ln2.hook_normalized": ("ln2.hook_normalized", "mlp.hook_in"),
    }
)
_WORD_SITES = {
    "resid": "hook_resid_post",
    "resid_pre": "hook_resid_pre",
    "resid_in": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "resid_out": "hook_resid_post",
    "attn": "hook_attn_out",
    "attn_out": "hook_attn_out",
    "attention_out": "hook_attn_out",
    "mlp": "hook_mlp_out",
    "mlp_out": "hook_mlp_out",
    "mlp_in": "mlp.hook_in",
}
# Models whose embeddings are not yet what the first layer reads: positions are added, or a norm or
# a factor stands behind. Some are GPT-2s or GPT-Neos by other names.
_LEARNED_POSITIONS = re.compile(
    r"gpt-?2|gpt-?neo(?!-?x)|\bopt\b|bloom|starcoder(?!-?2)|bigcode|tiny-?stories|cerebras-gpt"
    r"|dialogpt|gpt-sw3|openai-gpt|othello|santacoder|galactica|biogpt|xglm|granite"
    r"|(?:gelu|solu|attn-only)-\d+l"
)
# Parts of models that read pictures or sound, and encoders: their layers are others.
_BESIDE_THE_TEXT = re.compile(
    r"(?:\w+\.)*?(?:\w*(?:vision|visual|audio|image|speech)\w*|(?<!transformer\.)encoder)\..+"
)
_EMBEDDING = re.compile(
    r"(?:\w+\.)*(hook_embed|embed\.hook_out|embed_tokens|embeddings|embed_in|wte|tok_embeddings)"
    r"(?:\.output)?"
)
# Tensors of the forward pass before or after all layers, for which no hook stands.
_OUTSIDE = re.compile(
    r"(?:\w+\.)*(hook_pos_embed|pos_embed\.\w+|wpe|lm_head|unembed\.\w+|embed_out"
    r"|ln_final\.hook_(normalized|scale|out)|ln_f|final_layer_norm|(?:model|decoder)\.norm)"
    r"(?:\.output)?"
)
# Modules beside those of the table of families whose input or output is the same tensor as a
# hook's.
_LLAMA = {
    ("self_attn.o_proj", "output"): "attn.hook_out",
    ("mlp.down_proj", "output"): "mlp.hook_out",
    ("mlp.gate_proj", "input"): "mlp.hook_in",
    ("mlp.up_proj", "input"): "mlp.hook_in",
    ("input_layernorm", "input"): "hook_resid_pre",
    ("post_attention_layernorm", "output"): "mlp.hook_in",
}
_GEMMA2 = {
    ("self_attn.o_proj", "output"): "attn.hook_out",
    ("mlp.down_proj", "output"): "mlp.hook_out",
    ("mlp.gate_proj", "input"): "mlp.hook_in",
    ("mlp.up_proj", "input"): "mlp.hook_in",
    ("input_layernorm", "input"): "hook_resid_pre",
    ("pre_feedforward_layernorm", "output"): "mlp.hook_in",
}
_BESIDE: Mapping[str, Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma"), _LLAMA),
        **dict.fromkeys(("gemma2", "gemma3_text"), _GEMMA2),
        "gpt2": {
            ("attn.c_proj", "output"): "attn.hook_out",
            ("mlp.c_proj", "output"): "mlp.hook_out",
            ("mlp.c_fc", "input"): "mlp.hook_in",
            ("ln_1", "input"): "hook_resid_pre",
            ("ln_2", "output"): "mlp.hook_in",
        },
        "gpt_neox": {
            ("attention.dense", "output"): "attn.hook_out",
            ("mlp.dense_4h_to_h", "output"): "mlp.hook_out",
            ("mlp.dense_h_to_4h", "input"): "mlp.hook_in",
            ("input_layernorm", "input"): "hook_resid_pre",
            ("post_attention_layernorm", "output"): "mlp.hook_in",
        },
    }
)


def family_of(model_name: str) -> str | None:
    """The family of `FAMILIES` that a model's name tells; None where it tells none."""
    name = model_name.lower()
    return next((family for pattern, family in _FAMILY_OF_MODEL if re.search(pattern, name)), None)


def hooks_at(name: str, model_name: str = "") -> frozenset[str] | None:
    """The hooks that a name may mean, each by its `canonical_hook`.

    Args:
        name: of a place, in any of the languages.
        model_name: whose forward pass it is; where it tells no family, all are tried whose layers
            are called so.

    Returns:
        None where the name says nothing here; empty where it names a tensor that no hook stands
        for.
    """
    name = name.strip()
    if _BESIDE_THE_TEXT.fullmatch(name):
        return frozenset()
    if _OUTSIDE.fullmatch(name):
        return frozenset()
    if _EMBEDDING.fullmatch(name):
        # Where positions are added to it, or a norm stands behind it, it is in no layer's stream.
        beside = _LEARNED_POSITIONS.search(model_name.lower())
        return frozenset() if beside else frozenset({"blocks.0.hook_resid_pre"})
    if match := _TRANSFORMER_LENS.fullmatch(name):
        return _tensors(int(match[1]), _AMBIGUOUS.get(match[2], [match[2]]), model_name)
    if match := _MODULE.fullmatch(name):
        sites = _sites_of_module(match[1], match[3] or "", family_of(model_name))
        return _tensors(int(match[2]), sites, model_name)
    if match := _WORDS.search(name):
        site = _WORD_SITES.get("_".join(filter(None, match.group(1, 2))))
        return _tensors(int(match[3]), [site] if site else [], model_name)
    if match := _LAYER.fullmatch(name):
        return _tensors(int(match[1]), [site for site in SITES if site != SITES[0]], model_name)
    return None


def canonical_hook(hook: str, model_name: str = "") -> str:
    """One name for every tensor.

    What a module gives and what is added to the residual stream are one tensor but in some
    families; where the model's name tells none, they are taken for one.
    """
    name = one_name(hook)
    layer, _, site = name.removeprefix("blocks.").partition(".")
    family = family_of(model_name)
    if family:
        return f"blocks.{layer}.{FAMILIES[family].first_name(site)}"
    return f"blocks.{layer}.{OF_A_MODULE.get(site, site)}"


def _tensors(layer: int, sites: Iterable[str], model_name: str) -> frozenset[str]:
    hooks = (f"blocks.{layer}.{site}" for site in sites)
    return frozenset(
        canonical_hook(hook, model_name)
        for hook in hooks
        if one_name(hook).split(".", 2)[2] in SITES
    )


def _sites_of_module(container: str, path: str, family: str | None) -> frozenset[str]:
    """The sites whose tensor is the output, or the input where the path says so, of a module of a
    layer."""
    module, side = path, "output"
    for ending in ("input", "output"):
        if path == ending or path.endswith(f".{ending}"):
            module, side = path[: -len(ending)].rstrip("."), ending
    if not module:  # the layer itself, whatever the family
        return frozenset({"hook_resid_pre" if side == "input" else "hook_resid_post"})
    families = (
        [family]
        if family
        else [key for key, names in FAMILIES.items() if names.layers.endswith(container)]
    )
    return frozenset(
        site
        for key in families
        for site, of_module in (
            *((site, (place.module, place.side)) for site, place in FAMILIES[key].sites.items()),
            *((site, place) for place, site in _BESIDE[key].items()),
        )
        if of_module == (module, side)
    )


def said_elsewhere(metadata: Mapping[str, Any], names: Sequence[str], hook: str) -> str | None:
    """The first of these names under which metadata say another place than a hook; None where all
    agree, or say nothing that is known."""
    model = str(metadata.get("model_name", ""))
    for name in names:
        said = str(metadata.get(name, ""))
        hooks = hooks_at(said, model)
        if hooks is not None and canonical_hook(hook, model) not in hooks:
            return in_words(said, model)
    return None


def in_words(said: str, model: str) -> str:
    """A name of a place in some model, with its hook where that is another name."""
    hooks = hooks_at(said, model)
    if hooks is None or canonical_hook(said, model) in hooks:
        return said
    if not hooks:
        return f"{said} (no hook here)"
    return f"{said} ({next(iter(hooks))})" if len(hooks) == 1 else said
