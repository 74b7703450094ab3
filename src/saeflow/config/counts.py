"""How many of a thing a config means, without running anything."""

from __future__ import annotations

from pathlib import Path

from saeflow.config.sae_files import latents_of
from saeflow.config.sections import Core
from saeflow.errors import SaeflowError


def latent_count(study: Core, sae: str) -> int:
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
