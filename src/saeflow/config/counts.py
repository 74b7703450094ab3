"""How many of a thing a config means, without running anything."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from saeflow.config.sae_files import latents_of
from saeflow.config.sections import Effects, Study, Vectors
from saeflow.errors import SaeflowError


def latent_count(study: Study, sae: str) -> int:
    """Number of latents of one of the study's SAEs, from its settings or from its files.

    Raises:
        SaeflowError: neither the config nor the folder of an SAE to import says it.
    """
    source = study.saes[sae]
    if source.declared_width:
        return source.declared_width
    if not source.path:
        raise SaeflowError(
            f"saes.{sae}.d_sae: is needed, since latents are counted before the SAE is fetched; "
            "give their number"
        )
    try:
        return latents_of(Path(str(source.path)), source.format)
    except SaeflowError as error:
        raise SaeflowError(f"saes.{sae}.path: {error}") from None


def tensor_shape(path: Path, name: str) -> tuple[int, int]:
    """Shape of a matrix in a safetensors file, from the file's header.

    Raises:
        SaeflowError: the file is absent or cut short, or holds no such matrix.
    """
    if not path.is_file():
        raise SaeflowError(
            f"effects.vectors.path: {path} does not exist; correct the path or make the file first"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            if name not in file.keys():  # noqa: SIM118 - the file is no dictionary
                raise SaeflowError(
                    f"effects.vectors: {path} has no tensor '{name}', but "
                    f"{', '.join(sorted(file.keys())) or 'none'}; "
                    "name one of them"
                )
            shape = file.get_slice(name).get_shape()
    except (SafetensorError, OSError) as error:
        raise SaeflowError(
            f"effects.vectors.path: {path} is no whole safetensors file "
            f"({str(error).splitlines()[0]}); get it again"
        ) from None
    if len(shape) != 2:
        raise SaeflowError(
            f"effects.vectors: '{name}' of {path} has shape {shape}; it must be [n, d_model]"
        )
    return shape[0], shape[1]


def vector_range(vectors: Vectors, rows: int) -> range:
    """The numbers of the vectors that are measured.

    Args:
        vectors: where they come from, and which.
        rows: how many the source holds; of mixtures and random directions, how many are taken by
            default.

    Raises:
        SaeflowError: the range goes beyond the source, or there is no vector.
    """
    start, stop = vectors.range or (0, rows)
    if vectors.kind not in ("mixtures", "random") and stop > rows:
        raise SaeflowError(
            f"effects.vectors.range: [{start}, {stop}] goes beyond the source, which has {rows} "
            "vectors; lower it"
        )
    if start >= stop:
        raise SaeflowError("effects.vectors: the source holds no vectors; take another")
    return range(start, stop)


def block_ids(effects: Effects, rows: int, block: int) -> range:
    """The numbers of the vectors of one block.

    Args:
        effects: settings.
        rows: how many vectors the source holds.
        block: counted from 0.

    Raises:
        SaeflowError: there is no such block, or what `vector_range` raises.
    """
    numbers = vector_range(effects.vectors, rows)
    ids = numbers[block * effects.block_size : (block + 1) * effects.block_size]
    if not ids:
        raise SaeflowError(
            f"effects: block {block} is empty; {len(numbers)} vectors make "
            f"{-(-len(numbers) // effects.block_size)} "
            f"blocks of {effects.block_size}, counted from 0"
        )
    return ids


def vector_count(study: Study) -> int:
    """Number of vectors whose effects are measured.

    Raises:
        SaeflowError: the source cannot be read, or has fewer vectors than are asked for.
    """
    return len(vector_range(study.effects.vectors, _source_rows(study)))


def block_count(study: Study) -> int:
    """Number of blocks of vectors whose effects are measured; raises as `vector_count` does."""
    return -(-vector_count(study) // study.effects.block_size)


def _source_rows(study: Study) -> int:
    vectors = study.effects.vectors
    if vectors.kind == "file":
        return tensor_shape(Path(str(vectors.path)), vectors.tensor)[0]
    if vectors.kind == "sae_ts":
        return tensor_shape(Path(str(vectors.path)), "M")[1]
    return latent_count(study, vectors.sae or study.steering_sae)
