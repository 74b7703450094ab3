"""Where an SAE's folder says that it was trained: the model, the hook or module that it reads, and,
of a transcoder, the one that it writes.

Nothing here reads weights: a study that reads an SAE elsewhere is refused before any job. Names are
those of an SAE's metadata: ``model_name``; ``hook_name`` and ``hook_name_out`` are hooks,
``hf_hook_name`` and ``hf_hook_name_out`` modules of transformers, and ``layer_3`` where the layer
alone is said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from saeflow.artifacts import read_json
from saeflow.config.sae_files import folder_of, llama_scope_config, sae_format
from saeflow.errors import SaeflowError
from saeflow.models.places import hooks_at

READ, WRITTEN = ("hook_name", "hf_hook_name"), ("hook_name_out", "hf_hook_name_out")
"""Names under which metadata have where an SAE reads, and where it writes."""
EMBEDDING = "hook_embed"
_GEMMA_SCOPE = re.compile(r"gemma-scope-\w+-\w+-(res|mlp|att|transcoders)$")
_SITES: Mapping[str, tuple[str, str | None]] = {
    "res": ("hook_resid_post", None),
    "mlp": ("hook_mlp_out", None),
    "att": ("attn.hook_z", None),
    "transcoders": ("mlp.hook_in", "hook_mlp_out"),
}
_MODULES: Mapping[str, tuple[str, ...]] = {
    "resid_post": ("output",),
    "attn_out": ("self_attn.o_proj.input",),
    "mlp_out": ("post_feedforward_layernorm.output",),
    "transcoder": ("pre_feedforward_layernorm.output", "post_feedforward_layernorm.output"),
}


def of_gemma_scope(directory: Path) -> dict[str, str]:
    """What the names of the folders tell, as they were published:
    ``gemma-scope-2b-pt-res/layer_20/width_16k/…``, or ``embedding/width_4k/…``, whose SAEs read
    embeddings as the table has them, before Gemma multiplies them by √d_model."""
    names = directory.resolve().parts[-6:]
    if "embedding" in names[-3:]:
        return {"hook_name": EMBEDDING}
    layer = next(
        (match[1] for name in names if (match := re.fullmatch(r"layer_(\d+)", name))), None
    )
    site = next((_SITES[match[1]] for name in names if (match := _GEMMA_SCOPE.search(name))), None)
    if layer is None:
        return {}
    read, written = site or (None, None)
    named = {
        "hf_hook_name": read and f"blocks.{layer}.{read}",
        "hf_hook_name_out": written and f"blocks.{layer}.{written}",
    }
    return {name: place for name, place in named.items() if place} or {
        "hf_hook_name": f"layer_{layer}"
    }


def of_gemma_scope_2(directory: Path) -> dict[str, str]:
    """What the config says of model and modules; without one, what the folder's name tells, as
    published: ``resid_post_all/layer_12_width_16k_l0_small``."""
    if (directory / "config.json").exists():
        config = read_json(directory / "config.json")
        return _strings(
            model_name=config.get("model_name"),
            hf_hook_name=config.get("hf_hook_point_in"),
            hf_hook_name_out=config.get("hf_hook_point_out"),
        )
    directory = directory.resolve()
    layer = re.match(r"layer_(\d+)_", directory.name)
    kind = next((kind for kind in _MODULES if directory.parent.name.startswith(kind)), None)
    if not layer or not kind:
        return {}
    names = zip(("hf_hook_name", "hf_hook_name_out"), _MODULES[kind], strict=False)
    return {name: f"model.layers.{layer[1]}.{place}" for name, place in names}


def of_llama_scope(directory: Path) -> dict[str, str]:
    """The hooks of its config."""
    config = read_json(llama_scope_config(directory))
    return _strings(
        hook_name=config.get("hook_point_in"), hook_name_out=config.get("hook_point_out")
    )


def of_sparsify(directory: Path) -> dict[str, str]:
    """The folder bears the name of a module; a transcoder reads its input and writes its output."""
    if read_json(directory / "cfg.json").get("transcode", False):
        return {"hf_hook_name": f"{directory.name}.input", "hf_hook_name_out": directory.name}
    return {"hf_hook_name": directory.name}


def of_dictionary_learning(directory: Path) -> dict[str, str]:
    """Model and module of its config; the layer alone where the module's name does not tell it."""
    config = read_json(directory / "config.json")
    trainer, buffer = config["trainer"], config.get("buffer")
    place = trainer.get("submodule_name")
    of_input = isinstance(buffer, dict) and buffer.get("io") == "in"
    if of_input and isinstance(place, str) and "." in place:
        place = f"{place}.input"
    if not isinstance(place, str) or hooks_at(place) is None:
        layer = trainer.get("layer")
        place = f"layer_{layer}" if isinstance(layer, int) else place
    return _strings(model_name=trainer.get("lm_name"), hf_hook_name=place)


def of_saelens(directory: Path) -> dict[str, str]:
    """Of all versions; its reader keeps the metadata whole."""
    config = read_json(directory / "cfg.json")
    fields = {**config, **config["metadata"]} if "metadata" in config else config
    return _strings(
        model_name=fields.get("model_name"),
        hook_name=fields.get("hook_name") or fields.get("hook_point"),
        hook_name_out=fields.get("hook_name_out"),
    )


def _strings(**named: Any) -> dict[str, str]:
    """What is said at all; where an SAE writes what it reads, that is no place of its own."""
    said = {name: value for name, value in named.items() if isinstance(value, str) and value}
    for read, written in zip(READ, WRITTEN, strict=True):
        if read in said and said[read] == said.get(written):
            del said[written]
    return said


PLACES: Mapping[str, Callable[[Path], dict[str, str]]] = {
    "saelens": of_saelens,
    "gemma_scope": of_gemma_scope,
    "gemma_scope_2": of_gemma_scope_2,
    "llama_scope": of_llama_scope,
    "sparsify": of_sparsify,
    "dictionary_learning": of_dictionary_learning,
}
"""By format. What a single file says takes a look at its weights (`saes.formats.single_file`)."""


def places_of(path: Path, named: str = "auto") -> dict[str, str]:
    """Where an SAE's folder says that it was trained; empty where it says nothing, is a single
    file, or cannot be read, which those tell that look at the files."""
    try:
        place = PLACES.get(sae_format(path, named))
        return place(folder_of(path)) if place else {}
    except (SaeflowError, AttributeError, KeyError, TypeError):
        return {}
