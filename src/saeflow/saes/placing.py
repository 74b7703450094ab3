"""Where an SAE reads and writes: what it says of itself, held against what a study says of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from saeflow.errors import SaeflowError
from saeflow.saes.crosscoder import Crosscoder
from saeflow.saes.sae import SAE

_TRANSFORMER_LENS = re.compile(r"blocks\.(\d+)\.(.+)")


def placed(sae: SAE, hook: str, target: str | None = None) -> SAE:
    """The SAE, a transcoder with the hooks at which a study reads and writes it.

    Args:
        sae: imported.
        hook: where it is read.
        target: where it writes, if it is a transcoder.

    Raises:
        SaeflowError: it says itself that it was trained elsewhere, or it is a transcoder and no target is given.
    """
    _check("reads", str(sae.metadata.get("hook_name", "")), hook, "hook")
    if not target:
        if sae.is_transcoder:
            said = sae.metadata.get("hook_name_out", "the hook that it writes")
            raise SaeflowError(f"sae: is a transcoder; set its target to {said} (saes.<name>.target)")
        return sae
    _check("writes", str(sae.metadata.get("hook_name_out", "")), target, "target")
    return replace(sae, metadata={**sae.metadata, "hook_name": hook, "hook_name_out": target})


def _check(does: str, said: str, told: str, key: str) -> None:
    """A name of another library says nothing here."""
    if _TRANSFORMER_LENS.fullmatch(said) and _tensor(said) != _tensor(told):
        raise SaeflowError(f"sae: {does} {said}, not {told}; correct its {key} (saes.<name>.{key})")


def _tensor(hook: str) -> str:
    """The residual stream before a layer is the one after the layer below."""
    found = _TRANSFORMER_LENS.fullmatch(hook)
    if found and found[2] == "hook_resid_pre" and int(found[1]) > 0:
        return f"blocks.{int(found[1]) - 1}.hook_resid_post"
    return hook


def with_sources(crosscoder: Crosscoder, sources: Sequence[str]) -> Crosscoder:
    """The crosscoder with the sources of a study.

    Args:
        crosscoder: imported.
        sources: ``model:hook`` of each, in order.

    Raises:
        SaeflowError: it has another number of sources.
    """
    if len(sources) != crosscoder.n_sources:
        raise SaeflowError(f"crosscoder: has {crosscoder.n_sources} sources, and {len(sources)} are named; name each")
    named = [dict(zip(("model", "hook"), source.split(":", 1), strict=True)) for source in sources]
    return replace(crosscoder, metadata={**crosscoder.metadata, "sources": named})


def sources_of(crosscoder: Crosscoder, models: Collection[str]) -> list[tuple[str, str]]:
    """Model and hook of each of a crosscoder's sources.

    Raises:
        SaeflowError: it does not name them, or names a model that is not at hand.
    """
    named = crosscoder.metadata.get("sources") or []
    try:
        found = [(str(source["model"]), str(source["hook"])) for source in named]
    except (KeyError, TypeError):
        found = []
    if len(found) != crosscoder.n_sources:
        raise SaeflowError("crosscoder: does not name its sources; import it with their models and hooks")
    for model, _ in found:
        if model not in models:
            raise SaeflowError(f"crosscoder: reads the model '{model}', and only {', '.join(models)} are given")
    return found
