"""Tiny GGUF files, written by llama.cpp's own package in the way of its converter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tiny_models import tiny_model
from transformers import PreTrainedModel

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("Ġ Ġ", "ĠĠ ĠĠ", "Ġ t", "h e", "Ġt he", "i n", "1 2", "Ġ 2", "Ã ©", "Ġ a")
ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
}
"""GGUF's name of each family."""
QUANTISED = ("Q4_1", "Q8_0", "Q4_0", "Q5_1", "F16", "BF16", "F32")


def byte_alphabet() -> list[str]:
    """The 256 characters that byte-level tokenizers write bytes as."""
    plain = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def vocabulary() -> list[str]:
    """Special tokens, bytes, and what merges make."""
    return [*SPECIAL, *byte_alphabet(), *(merge.replace(" ", "") for merge in MERGES)]


def tiny_gguf_model(family: str, **overrides: Any) -> PreTrainedModel:
    """A random model whose rows are whole blocks of quantised numbers."""
    size: dict[str, Any] = {
        "hidden_size": 64,
        "vocab_size": len(vocabulary()),
        "num_attention_heads": 4,
    }
    if family != "gpt2":
        size |= {"intermediate_size": 96, "num_key_value_heads": 2}
    if family in ("llama", "qwen3", "gemma2", "gemma3_text"):
        size["head_dim"] = 16
    if family in ("gemma2", "gemma3_text"):
        size |= {"query_pre_attn_scalar": 16, "sliding_window": 4, "layer_types": None}
    if family == "gemma3_text":
        size["num_hidden_layers"] = 6  # the last of which attends to everything
    return tiny_model(family, **{"bos_token_id": 1, "eos_token_id": 2, **size, **overrides})


def write_gguf(
    file: Path,
    model: PreTrainedModel,
    family: str = "llama",
    cut: str = "smollm",
    pieces: Sequence[str] = (),
    opens_with_space: bool = True,
    **changes: Any,
) -> dict[str, torch.Tensor]:
    """Write a model, its matrices in one quantisation after another.

    Args:
        file: where.
        model: of a family of `ARCHITECTURES`.
        family: which.
        cut: how text is cut, by llama.cpp's name.
        pieces: a vocabulary of sentencepiece in place of the byte-level one: three special tokens,
            256 bytes, and the rest with the best first.
        opens_with_space: whether a space is put before texts in such a vocabulary.
        changes: metadata in place of what the model has; None leaves a key out.

    Returns:
        The weights of `transformers` that the numbers in the file stand for, taken apart again by
        the package that wrote them.
    """
    architecture, config = ARCHITECTURES[family], model.config
    writer = gguf.GGUFWriter(file, changes.pop("general.architecture", architecture))
    metadata: dict[str, Any] = {
        f"{architecture}.context_length": config.max_position_embeddings,
        f"{architecture}.block_count": config.num_hidden_layers,
        f"{architecture}.embedding_length": config.hidden_size,
        f"{architecture}.attention.head_count": config.num_attention_heads,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": cut,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.chat_template": TEMPLATE,
    }
    if family == "gpt2":
        metadata[f"{architecture}.feed_forward_length"] = 4 * config.hidden_size
        metadata[f"{architecture}.attention.layer_norm_epsilon"] = config.layer_norm_epsilon
    else:
        theta = config.rope_parameters.get("full_attention", config.rope_parameters)["rope_theta"]
        metadata |= {
            f"{architecture}.feed_forward_length": config.intermediate_size,
            f"{architecture}.attention.head_count_kv": config.num_key_value_heads,
            f"{architecture}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
            f"{architecture}.rope.freq_base": theta,
        }
    if getattr(config, "head_dim", None) and family != "qwen2":
        metadata[f"{architecture}.attention.key_length"] = config.head_dim
    if family in ("gemma2", "gemma3_text"):
        metadata[f"{architecture}.attention.sliding_window"] = config.sliding_window
    if family == "gemma2":
        metadata["gemma2.attn_logit_softcapping"] = config.attn_logit_softcapping
        metadata["gemma2.final_logit_softcapping"] = config.final_logit_softcapping
    if pieces:
        metadata |= {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": None}
    for key, value in {**metadata, **changes}.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif value is not None:
            writer.add_uint32(key, value)
    if pieces:
        writer.add_bool("tokenizer.ggml.add_space_prefix", opens_with_space)
        writer.add_array("tokenizer.ggml.tokens", list(pieces))
        kinds = [2, 3, 3] + 256 * [6] + (len(pieces) - 259) * [1]
        writer.add_array("tokenizer.ggml.token_type", kinds)
        writer.add_array("tokenizer.ggml.scores", [-float(i) for i in range(len(pieces))])
    else:
        _add_vocabulary(writer)
    expected = _add_tensors(writer, model, family)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    writer.add_array("tokenizer.ggml.tokens", vocabulary())
    writer.add_array(
        "tokenizer.ggml.token_type", [3 if token in SPECIAL else 1 for token in vocabulary()]
    )
    writer.add_array("tokenizer.ggml.merges", list(MERGES))


def _add_tensors(
    writer: gguf.GGUFWriter, model: PreTrainedModel, family: str
) -> dict[str, torch.Tensor]:
    number = next(n for n, name in gguf.MODEL_ARCH_NAMES.items() if name == ARCHITECTURES[family])
    names = gguf.get_tensor_name_map(number, model.config.num_hidden_layers)
    expected = {}
    for i, (name, tensor) in enumerate(model.state_dict().items()):
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        stored_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        weights = tensor.numpy()
        transposed = family == "gpt2" and weights.ndim == 2 and ".h." in name
        shifted = family.startswith("gemma") and name.endswith("norm.weight")
        stored = weights.T if transposed else weights + np.float32(1) if shifted else weights
        kind = gguf.GGMLQuantizationType[
            QUANTISED[i % len(QUANTISED)] if weights.ndim == 2 else "F32"
        ]
        # every row is quantised for itself, so that the order of rows is no matter to the numbers
        values = gguf.dequantize(gguf.quantize(stored, kind), kind).astype(np.float32)
        back = values.T if transposed else values - np.float32(1) if shifted else values
        expected[name] = torch.from_numpy(np.array(back, order="C"))
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(
            name.split(".")[-2]
        )
        if family == "llama" and heads:
            shape = (getattr(model.config, heads), 2, -1, *stored.shape[1:])
            stored = stored.reshape(shape).swapaxes(1, 2).reshape(stored.shape)
        writer.add_tensor(
            stored_name, gguf.quantize(np.array(stored, order="C"), kind), raw_dtype=kind
        )
    return expected
