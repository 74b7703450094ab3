"""Tiny random models of many families, put together from their configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_models import D_VOCAB, tiny_tokenizer
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from saeflow.models.language_model import without_progress_bars

N_LAYERS = 2
_COMMON = {"vocab_size": D_VOCAB, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
_SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
_PLAIN = {**_SHAPE, "intermediate_size": 48}
_GROUPED = {**_PLAIN, "num_key_value_heads": 2}
_EXPERTS = {**_GROUPED, "num_experts_per_tok": 2}
_OLD = {"n_embd": 32, "n_layer": N_LAYERS, "n_head": 4, "n_positions": 64}
_HYBRID = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
_GEMMA = {**_GROUPED, **_HYBRID, "head_dim": 8, "query_pre_attn_scalar": 8}
_GRANITE = {
    "residual_multiplier": 0.5,
    "embedding_multiplier": 2.0,
    "logits_scaling": 3.0,
    "attention_multiplier": 0.3,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": _OLD,
    "llama": _GROUPED,
    "mistral": {**_GROUPED, "sliding_window": 4},
    "qwen2": _GROUPED,
    "qwen3": {**_GROUPED, "head_dim": 8},
    "gemma": {**_GROUPED, "head_dim": 8},
    "gemma2": {**_GEMMA, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    "gemma3_text": _GEMMA,
    "gpt_neox": _PLAIN,
    "gpt_neox (in sequence)": {**_PLAIN, "use_parallel_residual": False},
    "phi": _PLAIN,
    "phi3": _GROUPED,
    "phimoe": {**_EXPERTS, "num_local_experts": 4},
    "gptj": {**_OLD, "rotary_dim": 4},
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": N_LAYERS,
        "num_heads": 4,
        "max_position_embeddings": 64,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
    },
    "gpt_bigcode": _OLD,
    "opt": {**_SHAPE, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {"hidden_size": 32, "n_layer": N_LAYERS, "n_head": 4},
    "falcon": {**_SHAPE, "ffn_hidden_size": 48},
    "falcon (in sequence)": {**_SHAPE, "ffn_hidden_size": 48, "parallel_attn": False},
    "mpt": {"d_model": 32, "n_layers": N_LAYERS, "n_heads": 4, "max_seq_len": 64},
    "stablelm": _GROUPED,
    "starcoder2": _GROUPED,
    "olmo": _GROUPED,
    "olmo2": _GROUPED,
    "olmoe": {**_EXPERTS, "num_experts": 4},
    "cohere": _GROUPED,
    "granite": {**_GROUPED, **_GRANITE},
    "granitemoe": {**_EXPERTS, **_GRANITE, "num_local_experts": 4},
    "mixtral": {**_EXPERTS, "num_local_experts": 4},
    "qwen3_moe": {
        **_EXPERTS,
        "head_dim": 8,
        "num_experts": 4,
        "moe_intermediate_size": 16,
        "decoder_sparse_step": 1,
    },
    "gpt_oss": {**_EXPERTS, **_HYBRID, "head_dim": 8, "num_local_experts": 4},
    "smollm3": _GROUPED,
    "nemotron": _GROUPED,
    **{
        name: {**_GROUPED, "head_dim": 8, "sliding_window": 4}
        for name in (
            "apertus",
            "arcee",
            "bitnet",
            "cohere2",
            "ernie4_5",
            "exaone4",
            "glm",
            "glm4",
            "hunyuan_v1_dense",
            "jais2",
            "ministral3",
            "nanochat",
            "olmo3",
            "seed_oss",
            "vaultgemma",
        )
    },
    "codegen": {**_OLD, "rotary_dim": 4},
    "xglm": {"d_model": 32, "num_layers": N_LAYERS, "attention_heads": 4, "ffn_dim": 48},
    "qwen2_moe": {
        **_EXPERTS,
        "num_experts": 4,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
    "deepseek_v3": {
        **_EXPERTS,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "n_shared_experts": 1,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 8,
        "q_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4,
        "v_head_dim": 8,
        "num_key_value_heads": 4,
    },
    "lfm2": {**_GROUPED, "layer_types": ["conv", "full_attention"]},
    "qwen3_next": {
        **_EXPERTS,
        "head_dim": 8,
        "num_experts": 4,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "layer_types": ["linear_attention", "full_attention"],
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
    },
    "mamba": {"hidden_size": 32, "num_hidden_layers": N_LAYERS, "state_size": 4},
}
"""By ``model_type``; in brackets, what is particular."""


def family_model(name: str, seed: int = 0) -> torch.nn.Module:
    """A random model of a family; every parameter is random, norms and biases too."""
    config = CONFIG_MAPPING[name.partition(" ")[0]](**_COMMON, **CONFIGS[name])
    return _random(lambda: AutoModelForCausalLM.from_config(config), seed)


def save_family_model(directory: Path, name: str) -> Path:
    """Write a checkpoint directory of one with a tokenizer."""
    _saved(directory, family_model(name))
    if name == "phimoe":  # as its checkpoints write it, and TransformerLens knows it
        config = directory / "config.json"
        config.write_text(config.read_text().replace("PhimoeFor", "PhiMoEFor"))
    return directory


def multimodal_model() -> Any:
    """A random Gemma 3 that reads images, too."""
    vision = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 28,
        "patch_size": 14,
    }
    text = {**_COMMON, **CONFIGS["gemma3_text"], "pad_token_id": 0}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return _random(lambda: Gemma3ForConditionalGeneration(config), 0)


def save_multimodal(directory: Path, text: Path) -> None:
    """Write a checkpoint of one, and one of its text's model alone.

    TransformerBridge is given the second: for a model that reads images it installs packages.
    """
    whole = multimodal_model()
    _saved(directory, whole)
    alone = Gemma3ForCausalLM(whole.config.text_config).eval()
    alone.model.load_state_dict(whole.model.language_model.state_dict())
    _saved(text, alone)


def _random(make: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = make().eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def _saved(directory: Path, model: Any) -> Path:
    with without_progress_bars():
        model.save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory
