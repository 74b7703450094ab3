"""How many of a thing a config means, without running anything."""

from __future__ import annotations

from pathlib import Path

from saeflow.artifacts import read_json
from saeflow.config.sections import Study
from saeflow.errors import SaeflowError


def latent_count(study: Study, sae: str) -> int:
    """Number of latents of one of the study's SAEs, from its settings or from its files.

    Raises:
        SaeflowError: an SAE to import has no readable cfg.json.
    """
    source = study.saes[sae]
    if source.train:
        return source.train.d_sae
    file = Path(str(source.path), "cfg.json")
    try:
        return int(read_json(file)["d_sae"])
    except KeyError:
        raise SaeflowError(f"saes.{sae}.path: {file} does not say d_sae; it is not a SAELens 6 directory") from None


def vector_count(study: Study) -> int:
    """Number of vectors whose effects are measured.

    Raises:
        SaeflowError: more decoder rows are asked for than the SAE has.
    """
    latents = latent_count(study, study.steering_sae)
    count = study.effects.count or latents
    if study.effects.vectors == "decoder" and count > latents:
        raise SaeflowError(
            f"effects.count: {count} decoder rows are asked for, but SAE '{study.steering_sae}' has {latents}"
        )
    return count


def block_count(study: Study) -> int:
    """Number of blocks of vectors whose effects are measured; raises as `vector_count` does."""
    return -(-vector_count(study) // study.effects.block_size)


def shard_count(study: Study) -> int:
    """Number of shards of the activation cache."""
    blocks = study.corpus.tokens.sae // study.corpus.context
    return -(-blocks // study.activations.blocks_per_shard)
