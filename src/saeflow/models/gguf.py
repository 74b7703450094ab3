"""GGUF files, llama.cpp's format: one becomes a Hugging Face checkpoint directory.

The `gguf` package reads the file, gives tensors their names and takes quantised ones apart;
`transformers` reads the tokenizer and most of the config. Its loader of weights is not used: it
passes over tensors that it has no place for, fills absent ones with random numbers, does not know
of scaled rotary positions, and holds the whole model in memory.

Weights are written in float32, the numbers that the file's blocks stand for. What llama.cpp's
converter did to a family's weights is undone: rows of queries and keys of Llama stand in the order
of `transformers`, norms of Gemma are less one, matrices of GPT-2 are transposed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers

from saeflow import seals
from saeflow.config.gguf_header import ARCHITECTURES, gguf_header
from saeflow.errors import SaeflowError
from saeflow.models.adapters import class_of
from saeflow.seals import stamp

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

WEIGHTS = "model.safetensors"
BYTES_PER_FILE = 4 << 30
"""Of weights, which are in memory while their file is written."""
_KEPT_FREQUENCIES = "rope_freqs.weight"
_LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""Of every Llama 3.1, 3.2 and 3.3; a GGUF file keeps the factors of frequencies that follow."""


def _in_order(name: str, weights: np.ndarray, config: PretrainedConfig) -> np.ndarray:
    """Rows of queries and keys as halves; llama.cpp rotates neighbours."""
    if ".attn_q." in name:
        heads = config.num_attention_heads
    elif ".attn_k." in name:
        heads = config.num_key_value_heads
    else:
        return weights
    pairs = weights.reshape(heads, weights.shape[0] // heads // 2, 2, *weights.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weights.shape)


def _less_one(name: str, weights: np.ndarray, config: PretrainedConfig) -> np.ndarray:
    return weights - np.float32(1) if name.endswith("norm.weight") else weights


def _transposed(name: str, weights: np.ndarray, config: PretrainedConfig) -> np.ndarray:
    matrices = (".attn_qkv.weight", ".attn_output.weight", ".ffn_up.weight", ".ffn_down.weight")
    return weights.T if name.endswith(matrices) else weights


def _as_it_is(name: str, weights: np.ndarray, config: PretrainedConfig) -> np.ndarray:
    return weights


_UNDONE: dict[str, Callable[[str, np.ndarray, PretrainedConfig], np.ndarray]] = {
    "llama": _in_order,
    "qwen2": _as_it_is,
    "qwen3": _as_it_is,
    "gemma2": _less_one,
    "gemma3": _less_one,
    "gpt2": _transposed,
}
"""What is done to a tensor of each architecture, by GGUF's names."""
assert tuple(_UNDONE) == ARCHITECTURES

_SETTINGS = {
    "context_length": "max_position_embeddings",
    "attention.key_length": "head_dim",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
"""Of the config, which `transformers` does not read from every architecture's metadata."""
_OF_THE_LARGEST = {"gemma2": 46, "gemma3": 62}
"""Layers of the 27B models, whose queries have another scale, as llama.cpp tells them, too."""

_GPT2_SPLIT = (
    "gpt-2",
    "default",
    "phi-2",
    "olmo",
    "jais",
    "mpt",
    "trillion",
    "gigachat",
    "roberta-bpe",
)
_DIGITS_APART = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
"""What llama.cpp calls two ways to cut text before bytes are paired."""


def write_checkpoint(file: Path, directory: Path) -> None:
    """Write what a GGUF file holds as config, weights, tokenizer and chat template of a Hugging
    Face checkpoint.

    Args:
        file: of any quantisation, of one of `ARCHITECTURES`.
        directory: an empty folder.

    Raises:
        SaeflowError: it is no whole GGUF file, of another architecture, or holds what the
            checkpoint would have no place for.
    """
    file = Path(file)
    if file.is_file():
        seals.refuse_pointer(file)
    header = gguf_header(file)
    with _told_in_one_sentence(file, "is cut short or damaged"):
        reader = gguf.GGUFReader(file)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {tensor.name: tensor for tensor in reader.tensors}
    architecture = header["general.architecture"]
    if (parts := metadata.get("split.count", 1)) > 1:
        raise SaeflowError(
            f"{file}: is one of {parts} parts; put them together with llama-gguf-split --merge"
        )
    with _told_in_one_sentence(file, "has metadata that no model follows from"):
        config = _config(file, architecture, metadata, tensors)
        names = _names(file, architecture, config, tensors)
    with _told_in_one_sentence(file, "has a tokenizer that cannot be read"):
        tokenizer = _tokenizer(file, metadata)
    _write_settings(directory, config, metadata)
    tokenizer.save_pretrained(directory)

    def weights(name: str) -> torch.Tensor:
        stored = tensors[name]
        with _told_in_one_sentence(file, f"has a tensor {name} that cannot be read"):
            values = gguf.dequantize(stored.data, stored.tensor_type).astype(np.float32, copy=False)
            values = _UNDONE[architecture](name, values, config)
            return torch.from_numpy(np.array(values, order="C"))  # a copy: the file is read only

    sizes = {name: 4 * int(np.prod(tensors[name].shape)) for name in names}
    _write_weights(directory, names, sizes, weights)


@contextmanager
def _told_in_one_sentence(file: Path, what: str) -> Iterator[None]:
    """Turn whatever the libraries raise at bytes that they did not expect into a sentence."""
    try:
        yield
    except SaeflowError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise SaeflowError(f"{file}: {what} ({lines[0][:200]}); fetch it again") from error


def _config(
    file: Path, architecture: str, metadata: dict[str, Any], tensors: dict[str, Any]
) -> PretrainedConfig:
    """The config, with what `transformers` leaves out of it."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    said = {
        name: metadata[f"{architecture}.{key}"]
        for key, name in _SETTINGS.items()
        if f"{architecture}.{key}" in metadata and hasattr(config, name)
    }
    if config.num_hidden_layers == _OF_THE_LARGEST.get(architecture):
        said["query_pre_attn_scalar"] = config.hidden_size // config.num_attention_heads
    elif architecture in _OF_THE_LARGEST:
        said["query_pre_attn_scalar"] = said.get("head_dim", config.head_dim)
    said["vocab_size"] = int(tensors["token_embd.weight"].shape[1])
    said["tie_word_embeddings"] = "output.weight" not in tensors
    for name, value in said.items():
        setattr(config, name, value)
    config.architectures = [class_of(config.model_type)]
    _scale_positions(file, config, architecture, metadata, tensors)
    return config


def _scale_positions(
    file: Path,
    config: PretrainedConfig,
    architecture: str,
    metadata: dict[str, Any],
    tensors: dict[str, Any],
) -> None:
    """Put into the config how rotary positions are scaled beyond the length of pretraining."""
    scaling = metadata.get(f"{architecture}.rope.scaling.type", "none")
    if scaling == "linear":
        factor = float(metadata[f"{architecture}.rope.scaling.factor"])
        parameters = config.rope_parameters.get("full_attention", config.rope_parameters)
        parameters.update(rope_type="linear", factor=factor)
    elif scaling != "none":
        raise SaeflowError(
            f"{file}: scales rotary positions by '{scaling}', which is not read from GGUF; give a "
            "Hugging Face checkpoint"
        )
    if _KEPT_FREQUENCIES not in tensors:
        return
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    stored = torch.from_numpy(np.array(tensors.pop(_KEPT_FREQUENCIES).data, dtype=np.float32))
    width = 2 * len(stored)
    plain = 1 / config.rope_parameters["rope_theta"] ** (torch.arange(0, width, 2).float() / width)
    config.rope_parameters.update(rope_type="llama3", factor=float(stored.max()), **_LLAMA3)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    if scaled.shape != stored.shape or not torch.allclose(plain / scaled, stored, rtol=1e-4):
        raise SaeflowError(
            f"{file}: scales the frequencies of rotary positions otherwise than Llama 3; give a "
            "Hugging Face checkpoint"
        )


def _names(
    file: Path, architecture: str, config: PretrainedConfig, tensors: dict[str, Any]
) -> dict[str, str]:
    """The names of the parameters by those of the file's tensors: each has the other, of one
    shape."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    mapping = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    names = {}
    for name, shape in shapes.items():
        module, _, kind = name.rpartition(".")
        stored = f"{mapping.get_name(module)}.{kind}"
        if stored not in tensors:
            raise SaeflowError(f"{file}: lacks the tensor {stored}; fetch it again")
        # a matrix may stand transposed
        if sorted(tensors[stored].shape.tolist()) != sorted(shape):
            raise SaeflowError(
                f"{file}: its tensor {stored} is {_shape(tensors[stored])}, and the metadata make "
                f"it {shape}; fetch it again"
            )
        names[stored] = name
    if others := sorted(tensors.keys() - names.keys()):
        raise SaeflowError(
            f"{file}: holds {others[0]} and {len(others) - 1} more tensors that a model of type "
            f"'{config.model_type}' has no place for; give a Hugging Face checkpoint"
        )
    return names


def _shape(tensor: Any) -> tuple[int, ...]:
    return tuple(tensor.shape[::-1].tolist())


def _tokenizer(file: Path, metadata: dict[str, Any]) -> PreTrainedTokenizerFast:
    """The tokenizer, its text cut as the file says."""
    from transformers import AutoTokenizer
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    tokenizer = AutoTokenizer.from_pretrained(
        file.parent, gguf_file=file.name, local_files_only=True
    )
    backend = tokenizer.backend_tokenizer
    kind, cut = (metadata.get(f"tokenizer.ggml.{name}") for name in ("model", "pre"))
    if kind == "gpt2" and cut in _DIGITS_APART:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    elif kind == "gpt2" and cut not in (None, *_GPT2_SPLIT, *GGUF_PRE_TOKENIZER_SPLITS):
        raise SaeflowError(
            f"{file}: its tokenizer cuts text in the way '{cut}', which is not known here; give a "
            "Hugging Face checkpoint"
        )
    elif kind == "llama" and isinstance(backend.pre_tokenizer, pre_tokenizers.Metaspace):
        _open_texts(backend, metadata.get("tokenizer.ggml.add_space_prefix", True))
    return tokenizer


def _open_texts(backend: Tokenizer, with_space: bool) -> None:
    """Put a space before every text, whatever it begins with, or before none, as sentencepiece and
    llama.cpp do; `transformers` leaves out what a text has already, and so loses it."""
    spaces: list[normalizers.Normalizer] = [normalizers.Replace(" ", "▁")]
    pieces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if with_space:
        spaces.insert(0, normalizers.Prepend("▁"))
        pieces.append(decoders.Strip(" ", 1, 0))
    backend.normalizer, backend.pre_tokenizer = normalizers.Sequence(spaces), None
    backend.decoder = decoders.Sequence(pieces)


def _write_settings(directory: Path, config: PretrainedConfig, metadata: dict[str, Any]) -> None:
    """Write the configs of the model and of generation, which names every token that ends a
    text."""
    from transformers import GenerationConfig

    config.dtype = torch.float32
    config.save_pretrained(directory)
    ends = (metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
    ids = list(dict.fromkeys(token for token in ends if token is not None))
    opening = metadata.get("tokenizer.ggml.bos_token_id")
    GenerationConfig(bos_token_id=opening, eos_token_id=ids or None).save_pretrained(directory)


def _write_weights(
    directory: Path,
    names: dict[str, str],
    sizes: dict[str, int],
    weights: Callable[[str], torch.Tensor],
) -> None:
    """Write the weights in as many files as it takes to hold few in memory."""
    files: list[list[str]] = [[]]
    for name in names:
        if files[-1] and sum(sizes[other] for other in files[-1]) + sizes[name] > BYTES_PER_FILE:
            files.append([])
        files[-1].append(name)
    places: dict[str, str] = {}
    for i, held in enumerate(files, start=1):
        several = f"model-{i:05d}-of-{len(files):05d}.safetensors"
        file = several if len(files) > 1 else WEIGHTS
        tensors = {names[name]: weights(name) for name in held}
        save_file(tensors, directory / file, metadata={"format": "pt", **stamp()})
        seals.seal(directory / file)
        places |= dict.fromkeys(tensors, file)
    if len(files) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places}
        (directory / f"{WEIGHTS}.index.json").write_text(json.dumps(index, indent=2))
