"""How many vectors a config means, and in how many blocks, without running anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from saeflow.analyses.effects.settings import Effects, Vectors
from saeflow.config.counts import latent_count
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from saeflow.analyses import Study


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
                    f"{', '.join(sorted(file.keys())) or 'none'}; name one of them"
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


def block_ids(vectors: Vectors, rows: int, block: int) -> range:
    """The numbers of the vectors of one block.

    Args:
        vectors: where they come from, and which.
        rows: how many vectors the source holds.
        block: counted from 0.

    Raises:
        SaeflowError: there is no such block, or what `vector_range` raises.
    """
    numbers = vector_range(vectors, rows)
    ids = numbers[block * vectors.block_size : (block + 1) * vectors.block_size]
    if not ids:
        raise SaeflowError(
            f"effects: block {block} is empty; {len(numbers)} vectors make "
            f"{-(-len(numbers) // vectors.block_size)} blocks of {vectors.block_size}, counted "
            "from 0"
        )
    return ids


def vector_count(study: Study, effects: Effects) -> int:
    """Number of vectors whose effects are measured.

    Raises:
        SaeflowError: the source cannot be read, or has fewer vectors than are asked for.
    """
    vectors = effects.vectors
    if vectors.kind == "file":
        rows = tensor_shape(Path(str(vectors.path)), vectors.tensor)[0]
    elif vectors.kind == "sae_ts":
        rows = tensor_shape(Path(str(vectors.path)), "M")[1]
    else:
        rows = latent_count(study, vectors.sae or study.target_sae)
    return len(vector_range(vectors, rows))


def block_files(study: Study, effects: Effects, sae: str) -> list[str]:
    """The blocks of one SAE's effects below the study's folder, of a fixed number of vectors each;
    raises as `vector_count` does."""
    numbers = range(block_count(study, effects))
    return [f"effects/{sae}/shards/block-{block:04d}.safetensors" for block in numbers]


def block_count(study: Study, effects: Effects) -> int:
    """Number of blocks of vectors whose effects are measured; raises as `vector_count` does."""
    return -(-vector_count(study, effects) // effects.vectors.block_size)
