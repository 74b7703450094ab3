"""What a GGUF file says of its model, read without torch: the config is checked before any job.

Only the metadata at the head of the file are read, and of arrays only their length.
"""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from saeflow.errors import SaeflowError

SUFFIX = ".gguf"
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2")
"""Those that `saeflow.models.gguf` converts; Mistral is `llama` there."""
_SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LONGEST_KEY, _LONGEST_TEXT = 1 << 16, 1 << 26
_MOST_KEYS = 1 << 16


def is_gguf(path: str | Path | None) -> bool:
    """Whether a path of the config names a GGUF file rather than a checkpoint directory."""
    return bool(path) and Path(str(path)).suffix == SUFFIX


def gguf_header(file: Path) -> dict[str, Any]:
    """The metadata by their keys; of an array its length.

    Raises:
        SaeflowError: it is no GGUF file, is cut short, or of an architecture that is not converted.
    """
    file = Path(file)
    if not file.is_file():
        raise SaeflowError(f"{file}: no such file; check model.path")
    state = file.stat()
    return _header(file, state.st_size, state.st_mtime_ns)


@cache
def _header(file: Path, size: int, changed: int) -> dict[str, Any]:
    try:
        with open(file, "rb") as opened:
            header = _read(opened)
    except (struct.error, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise SaeflowError(
            f"{file}: is no GGUF file, or is cut short or damaged ({error}); fetch it again"
        ) from None
    architecture = header.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise SaeflowError(
            f"{file}: models of architecture '{str(architecture)[:40]}' are not read from GGUF; "
            f"those of {', '.join(ARCHITECTURES)} are, else give a Hugging Face checkpoint"
        )
    return header


def hugging_face_config(file: Path) -> dict[str, Any]:
    """What its ``config.json`` will say of the model's size; raises as `gguf_header` does."""
    header = gguf_header(file)
    named = {
        "max_position_embeddings": "context_length",
        "num_hidden_layers": "block_count",
        "hidden_size": "embedding_length",
        "intermediate_size": "feed_forward_length",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "head_dim": "attention.key_length",
    }
    model_type = header["general.architecture"]
    values = {name: header.get(f"{model_type}.{key}") for name, key in named.items()}
    vocabulary = header.get(f"{model_type}.vocab_size", header.get("tokenizer.ggml.tokens"))
    return {"model_type": model_type, "vocab_size": vocabulary} | {
        name: value for name, value in values.items() if value is not None
    }


def _read(file: BinaryIO) -> dict[str, Any]:
    magic, version, _, count = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError("it does not begin as GGUF of version 2 or 3 does")
    if count > _MOST_KEYS:
        raise ValueError(f"it tells of {count} keys")
    return {_text(file, _LONGEST_KEY): _value(file, _number(file, "I")) for _ in range(count)}


def _number(file: BinaryIO, kind: str) -> Any:
    return struct.unpack(f"<{kind}", file.read(struct.calcsize(kind)))[0]


def _text(file: BinaryIO, longest: int) -> str:
    if (length := _number(file, "Q")) > longest:
        raise ValueError(f"it tells of a text of {length} bytes")
    text = file.read(length)
    if len(text) < length:
        raise ValueError("it ends within its metadata")
    return text.decode("utf-8", errors="replace")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(file, _LONGEST_TEXT)
    if kind != _ARRAY:
        return _number(file, _SCALARS[kind])
    of, length = _number(file, "I"), _number(file, "Q")
    if of in _SCALARS:
        file.seek(length * struct.calcsize(f"<{_SCALARS[of]}"), 1)
    else:
        for _ in range(length):
            _value(file, of)
    return length
