"""The formats that SAEs are published in: told by the names of their files, their width read from
their headers.

Nothing here reads weights: the workflow must know an SAE's number of latents before it imports
torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from saeflow.artifacts import read_json
from saeflow.config.single_file import named_weights, settings_beside, single_weights, widths
from saeflow.errors import SaeflowError
from saeflow.tensors import SUFFIXES, read_headers

if TYPE_CHECKING:
    from saeflow.config.sections import Published

LARGEST = 1 << 28
"""More than the latents of any SAE, so that what is made for each of them stays countable."""
SINGLE_FILE = "single_file"
"""The format of an SAE that is one file of tensors, whatever its name."""


class Given(NamedTuple):
    """What a study says of an SAE from elsewhere where its files do not: None where it does not.

    Attributes:
        k: latents per token that TopK keeps.
        scale: what activations were multiplied by before the SAE read them.
        threshold: what a latent's value must exceed, of BatchTopK or JumpReLU.
        apply_b_dec_to_input: whether the decoder's bias is subtracted from the input.
        normalize_activations: how each token's activation is normalised by itself, in SAELens'
            words (`saeflow.saes.sae.PER_TOKEN`).
    """

    k: int | None = None
    scale: float | None = None
    threshold: float | None = None
    apply_b_dec_to_input: bool | None = None
    normalize_activations: str | None = None


NOTHING = Given()


class SAEFiles(NamedTuple):
    """How one format is told, and where it says how many latents there are.

    Attributes:
        names: sets of files; a folder that holds all of one set is of this format.
        latents: the number of latents of such a folder, or file.
        reads: how many numbers the activations have that such an SAE reads.
        writes: the same of what it gives, where that may be another number.
        beside: files that are read too where they are there; a star stands for anything.
    """

    names: tuple[frozenset[str], ...]
    latents: Callable[[Path], int]
    reads: Callable[[Path], int]
    writes: Callable[[Path], int] | None = None
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
    return int(read_headers(directory / "params.npz")["threshold"].shape[0])


def _of_gemma_scope_2(directory: Path) -> int:
    return int(read_headers(directory / "params.safetensors")["threshold"].shape[0])


def _of_single_file(path: Path) -> int:
    return _widths_of_single_file(path)[1]


def _widths_of_single_file(path: Path) -> tuple[int, int]:
    path = weights_file(path)
    return widths(path, named_weights(path, read_headers(path)))


def _written_by_single_file(path: Path) -> int:
    path = weights_file(path)
    weights = named_weights(path, read_headers(path))
    reads, latents = widths(path, weights)
    decoder = weights.tensors.get("W_dec")  # of one that is not there the encoder's turn is taken
    return _other_side(decoder.shape, latents) if decoder is not None else reads


def _in_saelens(directory: Path, *names: str) -> int:
    config = read_json(directory / "cfg.json")
    return count_in(config, next(name for name in names if name in config))


def _beside_latents(path: Path, *names: str) -> int:
    """The side of a matrix that is not the number of latents, which the thresholds tell."""
    tensors = read_headers(path)
    shape = next(tensors[name].shape for name in names if name in tensors)
    return _other_side(shape, int(tensors["threshold"].shape[0]))


def _other_side(shape: Sequence[int], latents: int) -> int:
    return int(shape[1] if shape[0] == latents else shape[0])


SAE_FORMATS: dict[str, SAEFiles] = {
    "saelens": SAEFiles(
        (frozenset({"cfg.json", "sae_weights.safetensors"}),),
        _of_saelens,
        lambda directory: _in_saelens(directory, "d_in"),
        lambda directory: _in_saelens(directory, "d_out", "d_in"),
        frozenset({"activation_scaler.json"}),
    ),
    "gemma_scope": SAEFiles(
        (frozenset({"params.npz"}),),
        _of_gemma_scope,
        lambda directory: _beside_latents(directory / "params.npz", "W_enc"),
        lambda directory: _beside_latents(directory / "params.npz", "W_dec"),
    ),
    "gemma_scope_2": SAEFiles(
        (frozenset({"params.safetensors"}),),
        _of_gemma_scope_2,
        lambda directory: _beside_latents(directory / "params.safetensors", "w_enc", "W_enc"),
        lambda directory: _beside_latents(directory / "params.safetensors", "w_dec", "W_dec"),
        frozenset({"config.json"}),
    ),
    "dictionary_learning": SAEFiles(
        (frozenset({"config.json", "ae.pt"}),),
        _of_dictionary_learning,
        lambda directory: count_in(
            read_json(directory / "config.json")["trainer"], "activation_dim"
        ),
    ),
    "sparsify": SAEFiles(
        (frozenset({"cfg.json", "sae.safetensors"}),),
        _of_sparsify,
        lambda directory: count_in(read_json(directory / "cfg.json"), "d_in"),
    ),
    "llama_scope": SAEFiles(
        (
            frozenset({"hyperparams.json"}),
            frozenset({"config.json", "sae_weights.safetensors"}),
            frozenset({"config.json", "checkpoints"}),
        ),
        _of_llama_scope,
        lambda directory: count_in(read_json(llama_scope_config(directory)), "d_model"),
        beside=frozenset({"checkpoints/*.safetensors", "sae_weights.safetensors"}),
    ),
    SINGLE_FILE: SAEFiles(
        (),
        _of_single_file,
        lambda path: _widths_of_single_file(path)[0],
        _written_by_single_file,
    ),
}


def sae_format(path: Path, named: str = "auto") -> str:
    """The format of an SAE's folder or file: the one that is named, or the first whose files are
    all there.

    Raises:
        SaeflowError: there is no such folder, file or format, or the files are of no known one.
    """
    path = Path(path)
    if named not in ("auto", *SAE_FORMATS):
        raise SaeflowError(
            f"{path}: there is no format '{named}'; known are {', '.join(SAE_FORMATS)}"
        )
    if not path.exists():
        raise SaeflowError(f"{path}: no such folder or file; correct the SAE's path")
    if named != "auto":
        return named
    folder = path if path.is_dir() else path.parent
    offered = {inside.name for inside in folder.iterdir()}
    if name := _format_named(offered, None if path.is_dir() else path.name):
        return name
    single = single_weights(f"{path}: ", offered) if path.is_dir() else path.name
    if single and single.endswith(SUFFIXES):
        return SINGLE_FILE
    raise SaeflowError(f"{path}: holds no SAE in a known format ({_formats()}); correct its path")


def weights_file(path: Path) -> Path:
    """The file of an SAE that is one file: it, or the only one of its folder.

    Raises:
        SaeflowError: the folder has none, or several.
    """
    if path.is_file():
        single_weights(f"{path}: ", {path.name})  # tells of what is a part of something larger
        return path
    name = single_weights(f"{path}: ", {inside.name for inside in path.iterdir()})
    if name is None:
        raise SaeflowError(f"{path}: holds no file of weights; correct the SAE's path")
    return path / name


def folder_of(path: Path) -> Path:
    """The folder with an SAE's files, of which `path` may be one."""
    return path if path.is_dir() else path.parent


def files_of(offered: Set[str], named: str = "auto", file: str | None = None) -> list[str]:
    """The files of an SAE, of those in a folder.

    Args:
        offered: names of files, relative to the folder.
        named: the format; ``auto`` is the first whose files are all there.
        file: the one that the user names.

    Raises:
        SaeflowError: there is no such format, or no SAE in it.
    """
    if named not in ("auto", *SAE_FORMATS):
        raise SaeflowError(f"there is no format '{named}'; known are {', '.join(SAE_FORMATS)}")
    there = offered | {name.partition("/")[0] for name in offered}
    kind = _format_named(there, file) if named == "auto" else named
    files = SAE_FORMATS[kind or SINGLE_FILE]
    for those in files.names:
        if those <= there:
            return sorted(
                name
                for name in offered
                if name in those or any(fnmatch(name, pattern) for pattern in files.beside)
            )
    weights = file or (single_weights("", offered) if kind in (None, SINGLE_FILE) else None)
    if not weights:
        raise SaeflowError(
            f"is no SAE in a known format ({_formats()}); name its folder or its file"
        )
    return [weights, *(offered & set(settings_beside(weights)))]


def _format_named(offered: Set[str], file: str | None) -> str | None:
    """The first format all of whose files are on offer, and among them the one that is named."""
    for name, files in SAE_FORMATS.items():
        for those in files.names:
            if those <= offered and (file is None or file in those):
                return name
    return None


def _formats() -> str:
    return "; ".join(
        f"{name}: {' or '.join(' + '.join(sorted(those)) for those in files.names) or _ANY}"
        for name, files in SAE_FORMATS.items()
    )


_ANY = f"one file that ends in {', '.join(SUFFIXES)}"


_UNREADABLE = (
    *(ArithmeticError, AttributeError, KeyError, TypeError, ValueError, IndexError, OSError),
)


def latents_of(path: Path, named: str = "auto") -> int:
    """Number of latents of an SAE's folder or file, from a header or a config alone.

    Raises:
        SaeflowError: it holds no SAE in that format, or does not say how wide it is.
    """
    path = Path(path)
    name = sae_format(path, named)
    try:
        latents = SAE_FORMATS[name].latents(path if name == SINGLE_FILE else folder_of(path))
        files = path.rglob("*") if path.is_dir() else [path]
        held = sum(file.stat().st_size for file in files if file.is_file())
        if latents > held:  # each has weights to read and to write it
            raise ValueError(f"says {latents:,}, and its files have {held:,} bytes")
        return latents
    except _UNREADABLE as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SaeflowError(
            f"{path}: does not say how many latents it has, as format '{name}' does ({what}); "
            "get it again or name its format"
        ) from None


class Widths(NamedTuple):
    """How many numbers the activations have that an SAE reads, and those that it writes; None
    where that is not told."""

    reads: int | None
    writes: int | None


def widths_of(path: Path, named: str = "auto") -> Widths:
    """What an SAE's folder or file says of the activations that it is for.

    Raises:
        SaeflowError: it holds no SAE in that format.
    """
    path = Path(path)
    name = sae_format(path, named)
    files, place = SAE_FORMATS[name], path if name == SINGLE_FILE else folder_of(path)

    def width_or_none(width: Callable[[Path], int]) -> int | None:
        try:
            return width(place)
        except (*_UNREADABLE, StopIteration):  # the job that reads the SAE tells what is wrong
            return None

    return Widths(width_or_none(files.reads), width_or_none(files.writes or files.reads))


def cached_sae(published: Published) -> Path | None:
    """The folder or file of an SAE of a hub in the hub's cache; None where it is not there."""
    from huggingface_hub import try_to_load_from_cache

    place = published.file or ""
    formats = {name for files in SAE_FORMATS.values() for those in files.names for name in those}
    for inside in ("", *sorted(formats)):
        name = "/".join(filter(None, [place, inside]))
        file = name and try_to_load_from_cache(
            published.repo, name, revision=published.revision, repo_type=published.repo_type
        )
        if file and isinstance(file, str):
            return Path(file).parent if inside else Path(file)
    return None
