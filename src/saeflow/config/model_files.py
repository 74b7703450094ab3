"""What a model's own config.json says, read without torch: the config is checked before any job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saeflow.artifacts import read_json, read_object
from saeflow.config.gguf_header import hugging_face_config, is_gguf
from saeflow.errors import SaeflowError
from saeflow.seals import refuse_pointer
from saeflow.tensors import read_headers

if TYPE_CHECKING:
    from saeflow.config.sections import Model

CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
LAYER_NAMES = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
WIDTH_NAMES = ("hidden_size", "n_embd", "d_model")
HEAD_NAMES = ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")
_COUNTS = (  # what a config counts of a model's parts
    *(*CONTEXT_NAMES, *LAYER_NAMES, *WIDTH_NAMES, *HEAD_NAMES),
    *("vocab_size", "head_dim", "num_key_value_heads", "intermediate_size", "n_inner", "ffn_dim"),
)
_MOST = 1 << 31  # of anything that is counted
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
WEIGHTS = ".safetensors"


def text_section(config: dict[str, Any]) -> dict[str, Any]:
    """What a config.json says of the language model, which may be one part of a model of images
    and text."""
    section = config.get("text_config")
    return section if isinstance(section, dict) and "model_type" in section else config


def context_in(directory: Path) -> int | None:
    """The most tokens that the model in a folder reads at once; None where the folder does not say
    it.

    Args:
        directory: a Hugging Face checkpoint directory, a .gguf file, or none.
    """
    try:
        config = _config_at(directory)
    except (SaeflowError, OSError, ValueError):  # the job that loads the model tells what is wrong
        return None
    for section in (config, config.get("text_config")) if isinstance(config, dict) else ():
        if context := _number(section, CONTEXT_NAMES):
            return context
    return None


def size_in(directory: Path, names: Sequence[str]) -> int | None:
    """A number that the config of the model in a folder says of its text's part: its layers, its
    width; None where it does not say it.

    Args:
        directory: a Hugging Face checkpoint directory, a .gguf file, or none.
        names: what families call it.
    """
    try:
        config = _config_at(directory)
    except (SaeflowError, OSError, ValueError):  # as above
        return None
    return _number(text_section(config), names) if isinstance(config, dict) else None


def width_at(config: Mapping[str, Any], hook: str) -> int | None:
    """How many numbers an activation has at a hook, as a model's config.json tells; None where it
    does not.

    Args:
        config: of the model.
        hook: its name.
    """
    section = text_section(dict(config))
    width = _number(section, WIDTH_NAMES)
    if not hook.endswith(".attn.hook_z"):
        return width
    heads, each = _number(section, HEAD_NAMES), _number(section, ("head_dim",))
    return heads * (each or width // heads) if heads and width else None


def fault_of_checkpoint(directory: Path) -> str | None:
    """Why no model can be loaded from a folder, as far as the names of its files and its config
    tell."""
    try:
        fault = fault_of_config(read_object(directory / "config.json"))
    except (SaeflowError, OSError, ValueError):  # the job that loads the model tells what is wrong
        fault = None
    return fault or fault_of_weights(directory) or fault_of_tokenizer(directory)


def fault_of_config(config: Mapping[str, Any]) -> str | None:
    """Why a config.json describes no model, as far as its numbers tell: transformers takes what
    they are, and some models that cannot run are found out late, or never."""
    section = text_section(dict(config))
    for name in _COUNTS:
        values = section.get(name)
        for value in values if isinstance(values, list) else [values]:
            if value is not None and not (type(value) is int and 0 < value <= _MOST):
                return (
                    f"its config.json says {name} {str(value)[:40]!r}, which must be a whole "
                    f"number from 1 to {_MOST:,}; fetch the checkpoint again"
                )
    width, heads = _number(section, WIDTH_NAMES), _number(section, HEAD_NAMES)
    if width and heads and heads > width:
        return (
            f"its config.json says {heads} heads of {width} dimensions together; fetch the "
            "checkpoint again"
        )
    return None


def fault_of_weights(directory: Path) -> str | None:
    """The same of the weights alone: of files that are there, their headers."""
    if not any(directory.glob(f"*{WEIGHTS}")):
        return f"has no weights in {WEIGHTS} files; convert the checkpoint first"
    names = _shards(directory / f"model{WEIGHTS}.index.json") or [f"model{WEIGHTS}"]
    files = [directory / name for name in names]
    if len(files) > 1 and (absent := [file.name for file in files if not file.is_file()]):
        return f"lacks {', '.join(absent)}, which its index names; fetch the checkpoint again"
    for file in files:
        try:
            if file.is_file() and file.stat().st_size:
                read_headers(file)
        except SaeflowError as error:
            return str(error).removeprefix(f"{directory}/")
    return None


def _shards(index: Path) -> list[str]:
    """The files that a checkpoint's weights lie in, where they are several."""
    try:
        named = read_object(index).get("weight_map")
    except (SaeflowError, OSError, ValueError):  # the job that loads the model tells what is wrong
        return []
    return sorted(set(map(str, named.values()))) if isinstance(named, dict) else []


def fault_of_tokenizer(directory: Path) -> str | None:
    """The same of the tokenizer alone: of a tokenizer.json, whether it is whole."""
    if not any((directory / name).is_file() for name in TOKENIZER_FILES):
        return "has no tokenizer; put its tokenizer.json there"
    file = directory / "tokenizer.json"
    if not file.is_file():
        return None
    try:
        refuse_pointer(file)
    except SaeflowError as error:
        return str(error).removeprefix(f"{directory}/")
    # Tokenizers may be tens of megabytes: one that is cut short lacks its last brace.
    with open(file, "rb") as opened:
        first = opened.read(64).lstrip()[:1]
        opened.seek(max(0, file.stat().st_size - 64))
        last = opened.read().rstrip()[-1:]
    whole = first == b"{" and last == b"}"
    return (
        None
        if whole
        else ("its tokenizer.json cannot be read (no JSON mapping, or cut short); fetch it again")
    )


def _config_at(directory: Path) -> Any:
    return (
        hugging_face_config(directory)
        if is_gguf(directory)
        else read_json(directory / "config.json")
    )


def vocabulary_in(directory: Path) -> int:
    """How many tokens the model in a folder has a row for.

    Raises:
        SaeflowError: its config.json is absent, damaged or does not say it.
    """
    file = directory / "config.json"
    size = text_section(read_object(file)).get("vocab_size")
    if type(size) is not int:
        raise SaeflowError(f"{file}: does not say vocab_size; fetch the checkpoint again")
    return size


def _number(section: Any, names: Sequence[str]) -> int | None:
    values = (section.get(name) for name in names) if isinstance(section, dict) else ()
    return next((value for value in values if type(value) is int and value > 0), None)


def too_long(tokens: int, context: int, name: str) -> str:
    """Why a length is refused, and what to do."""
    return (
        f"{tokens} is more than the context of {name}, {context} (max_position_embeddings); lower "
        "it"
    )


def config_file(model: Model) -> Path | None:
    """A model's config.json, in its folder or in the hub's cache; or its GGUF file. None where it
    is trained here or was not fetched yet."""
    if model.path:
        given = Path(model.path)
        return given if is_gguf(given) else given / "config.json"
    if not (published := model.published):
        return None
    from huggingface_hub import try_to_load_from_cache

    name = "/".join(filter(None, [published.file, "config.json"]))
    file = try_to_load_from_cache(
        published.repo, name, revision=published.revision, repo_type=published.repo_type
    )
    return Path(file) if isinstance(file, str) else None
