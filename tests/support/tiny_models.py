"""Tiny random models of every supported family, saved as checkpoint directories with a
tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from saeflow.models.families import FAMILIES
from saeflow.models.fast_layers import with_fast_layers
from saeflow.models.language_model import LanguageModel, without_progress_bars

WORDS = (
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "under",
    "mat",
    "tree",
    "and",
    "then",
    ".",
    ",",
    "I",
    "think",
)
D_VOCAB = 64
N_LAYERS = 3

_COMMON = {
    "vocab_size": D_VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
_GATED = {**_COMMON, "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}
# a window shorter than the tests' sequences, so that a wrong mask shows
_HYBRID = {
    **_GATED,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", _GATED),
    "mistral": ("Mistral", {**_GATED, "sliding_window": 4}),
    "qwen2": ("Qwen2", {key: value for key, value in _GATED.items() if key != "head_dim"}),
    "qwen3": ("Qwen3", _GATED),
    "gemma": ("Gemma", _GATED),
    "gemma2": (
        "Gemma2",
        {
            **_HYBRID,
            "query_pre_attn_scalar": 8,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3_text": ("Gemma3Text", {**_HYBRID, "query_pre_attn_scalar": 8}),
    "gpt2": ("GPT2", _COMMON),
    "gpt_neox": ("GPTNeoX", {**_COMMON, "intermediate_size": 48}),
}
FAMILY_NAMES = tuple(CONFIGS)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer of a few words; BOS is 0, EOS 1, unknown 2."""
    vocabulary = {word: index for index, word in enumerate(("<bos>", "<eos>", "<unk>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<start> ' + message['role'] + ' ' + "
    "message['content'] }}{{ ' <stop> ' }}{% endfor %}{% if add_generation_prompt %}{{ '<start> "
    "assistant ' }}{% endif %}"
)
"""Writes BOS and closes every turn with ``<stop>``, as the templates of Gemma and Llama 3 do with
tokens of theirs."""


def chat_tokenizer(template: str | None = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """A word-level tokenizer that writes all words small, with the tokens of a chat: ``<start>`` is
    3, ``<stop>`` 4."""
    names = (
        "<bos>",
        "<eos>",
        "<unk>",
        "<start>",
        "<stop>",
        *map(str.lower, WORDS),
        "user",
        "assistant",
        "system",
    )
    vocabulary = {word: index for index, word in enumerate(names)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = ["<start>", "<stop>"]
    named = {
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
        "additional_special_tokens": special,
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=template, **named)


def chat_language_model(
    family: str = "llama", template: str | None = CHAT_TEMPLATE, seed: int = 0
) -> LanguageModel:
    """A random model with such a tokenizer, which knows no word for most of what the model
    draws."""
    model, tokenizer = tiny_model(family, seed).requires_grad_(False), chat_tokenizer(template)
    return LanguageModel(with_fast_layers(model), tokenizer, FAMILIES[model.config.model_type])


def tiny_model(family: str, seed: int = 0, **overrides: Any) -> PreTrainedModel:
    """A random model of a family, wide awake: every parameter is random, norms and biases too, so
    that nothing cancels.

    Args:
        family: one of `FAMILY_NAMES`.
        seed: of the weights.
        overrides: settings of the config in place of the tiny ones.
    """
    prefix, settings = CONFIGS[family]
    config = getattr(transformers, f"{prefix}Config")(**{**settings, **overrides})
    name = {"GPT2": "GPT2LMHeadModel", "Gemma3Text": "Gemma3ForCausalLM"}.get(
        prefix, f"{prefix}ForCausalLM"
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = getattr(transformers, name)(config).eval()
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def tiny_language_model(family: str, seed: int = 0, **overrides: Any) -> LanguageModel:
    """A random model with tokenizer, as `load_model` gives it."""
    model = tiny_model(family, seed, **overrides).requires_grad_(False)
    return LanguageModel(with_fast_layers(model), tiny_tokenizer(), FAMILIES[family])


def tiny_tokens(rows: int = 2, length: int = 12, seed: int = 0) -> torch.Tensor:
    """Random tokens ``[rows, length]`` that open with BOS."""
    tokens = torch.randint(
        3, D_VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed)
    )
    tokens[:, 0] = 0
    return tokens


def save_tiny_model(directory: Path, family: str, seed: int = 0, **overrides: Any) -> Path:
    """Write a checkpoint directory with a tokenizer and give it back."""
    with without_progress_bars():
        tiny_model(family, seed, **overrides).save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory
