"""The formats that SAEs are published in: told by the names of their files, their width read from
their headers.

Nothing here reads weights: the workflow must know an SAE's number of latents before it imports
torch.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from saeflow.artifacts import read_json
from saeflow.errors import SaeflowError

LARGEST = 1 << 28
"""More than the latents of any SAE, so that what is made for each of them stays countable."""
_DAMAGE = (OSError, zipfile.BadZipFile, SafetensorError)


class SAEFiles(NamedTuple):
    """How one format is told, and where it says how many latents there are.

    Attributes:
        names: sets of files; a folder that holds all of one set is of this format.
        latents: the number of latents of such a folder.
        beside: files that are read too where they are there.
    """

    names: tuple[frozenset[str], ...]
    latents: Callable[[Path], int]
    beside: frozenset[str] = frozenset()


def count_in(config: Mapping[str, Any], name: str) -> int:
    """A number of latents, dimensions or active latents in somebody's config.

    Raises:
        KeyError: the config does not say it.
        ValueError: it is no whole number, below one, or larger than any SAE.
    """
    return _count(config[name], name)


def _count(value: Any, name: str) -> int:
    whole = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 1 <= value <= LARGEST
        and value % 1 == 0
    )
    if not whole:
        raise ValueError(
            f"{name} is {str(value)[:40]!r} and must be a whole number from 1 to {LARGEST:,}"
        )
    return int(value)


def _of_saelens(directory: Path) -> int:
    return count_in(read_json(directory / "cfg.json"), "d_sae")


def _of_sparsify(directory: Path) -> int:
    return expanded(read_json(directory / "cfg.json"), "num_latents", "d_in")


def _of_dictionary_learning(directory: Path) -> int:
    return count_in(read_json(directory / "config.json")["trainer"], "dict_size")


def expanded(config: Mapping[str, Any], latents: str, width: str) -> int:
    """Number of latents, of which some configs give the ratio to the model's width alone; raises as
    `count_in` does."""
    if config.get(latents):
        return count_in(config, latents)
    return _count(config[width] * config["expansion_factor"], f"{width} × expansion_factor")


def llama_scope_config(directory: Path) -> Path:
    """The file with an SAE's settings: Llama Scope as published first, or as its library writes
    now."""
    first = directory / "hyperparams.json"
    return first if first.exists() else directory / "config.json"


def llama_scope_latents(config: dict[str, Any]) -> int:
    """Number of latents of a config of Llama Scope; raises as `count_in` does."""
    return expanded(config, "d_sae", "d_model")


def _of_llama_scope(directory: Path) -> int:
    return llama_scope_latents(read_json(llama_scope_config(directory)))


def _of_gemma_scope(directory: Path) -> int:
    """From the header of one array in the archive; the array itself is not read."""
    with (
        zipfile.ZipFile(directory / "params.npz") as archive,
        archive.open("threshold.npy") as array,
    ):
        version = np.lib.format.read_magic(array)
        header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        return int(header(array)[0][0])


def _of_gemma_scope_2(directory: Path) -> int:
    with safe_open(directory / "params.safetensors", framework="numpy") as file:
        return int(file.get_slice("threshold").get_shape()[0])


SAE_FORMATS: dict[str, SAEFiles] = {
    "saelens": SAEFiles(
        (frozenset({"cfg.json", "sae_weights.safetensors"}),),
        _of_saelens,
        frozenset({"activation_scaler.json"}),
    ),
    "gemma_scope": SAEFiles((frozenset({"params.npz"}),), _of_gemma_scope),
    "gemma_scope_2": SAEFiles((frozenset({"params.safetensors"}),), _of_gemma_scope_2),
    "dictionary_learning": SAEFiles(
        (frozenset({"config.json", "ae.pt"}),), _of_dictionary_learning
    ),
    "sparsify": SAEFiles((frozenset({"cfg.json", "sae.safetensors"}),), _of_sparsify),
    "llama_scope": SAEFiles(
        (frozenset({"hyperparams.json"}), frozenset({"config.json", "sae_weights.safetensors"})),
        _of_llama_scope,
        frozenset({"checkpoints/final.safetensors", "sae_weights.safetensors"}),
    ),
}


def sae_format(directory: Path, named: str = "auto") -> str:
    """The format of an SAE's folder: the one that is named, or the first whose files are all there.

    Raises:
        SaeflowError: there is no such folder or format, or the folder's files are of no known one.
    """
    directory = Path(directory)
    if named not in ("auto", *SAE_FORMATS):
        raise SaeflowError(
            f"{directory}: there is no format '{named}'; known are {', '.join(SAE_FORMATS)}"
        )
    if not directory.is_dir():
        raise SaeflowError(f"{directory}: no such folder; correct the SAE's path")
    if named != "auto":
        return named
    offered = {path.name for path in directory.iterdir()}
    for name, files in SAE_FORMATS.items():
        if any(those <= offered for those in files.names):
            return name
    raise SaeflowError(
        f"{directory}: holds no SAE in a known format ({_known()}); correct the SAE's path"
    )


def files_of(offered: Set[str], named: str = "auto") -> list[str]:
    """The files of an SAE, of those in a folder.

    Args:
        offered: names of files, relative to the folder.
        named: the format; ``auto`` is the first whose files are all there.

    Raises:
        SaeflowError: there is no such format, or no SAE in it.
    """
    if named not in ("auto", *SAE_FORMATS):
        raise SaeflowError(f"there is no format '{named}'; known are {', '.join(SAE_FORMATS)}")
    for name, files in SAE_FORMATS.items():
        for those in files.names:
            if named in ("auto", name) and those <= offered:
                return sorted(those | (files.beside & offered))
    raise SaeflowError(f"is no SAE in a known format ({_known()}); name its folder or its file")


def _known() -> str:
    return "; ".join(
        f"{name}: {' or '.join(' + '.join(sorted(those)) for those in files.names)}"
        for name, files in SAE_FORMATS.items()
    )


def latents_of(directory: Path, named: str = "auto") -> int:
    """Number of latents of an SAE's folder, from a header or a config alone.

    Raises:
        SaeflowError: the folder holds no SAE in that format, or does not say how wide it is.
    """
    directory = Path(directory)
    name = sae_format(directory, named)
    try:
        latents = SAE_FORMATS[name].latents(directory)
        held = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
        if latents > held:  # each has weights to read and to write it
            raise ValueError(f"says {latents:,}, and its files have {held:,} bytes")
        return latents
    except (
        ArithmeticError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        *_DAMAGE,
    ) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SaeflowError(
            f"{directory}: does not say how many latents it has, as format '{name}' does ({what}); "
            "get it again or name its format"
        ) from None
