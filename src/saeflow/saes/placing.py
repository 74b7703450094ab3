"""Where an SAE reads and writes: what it says of itself, held against what a study says of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from saeflow.errors import SaeflowError, warn
from saeflow.models.places import canonical_hook, hooks_at, in_words, said_elsewhere
from saeflow.saes.crosscoder import Crosscoder
from saeflow.saes.named_places import READ, WRITTEN
from saeflow.saes.sae import SAE


def placed(sae: SAE, hook: str, target: str | None = None) -> SAE:
    """The SAE with the hook at which a study reads it, a transcoder with the one at which it
    writes, too.

    Args:
        sae: imported.
        hook: where it is read.
        target: where it writes, if it is a transcoder.

    Raises:
        SaeflowError: it says itself that it was trained elsewhere, or it is a transcoder and no
            target is given.
    """
    _check(sae, READ, "reads", hook, "hook")
    if not target:
        if sae.is_transcoder:
            said = next(
                (sae.metadata[name] for name in WRITTEN if name in sae.metadata),
                "the hook that it writes",
            )
            raise SaeflowError(
                f"sae: is a transcoder; set its target to {in_words(str(said), _model(sae))} "
                "(saes.<name>.target)"
            )
        return replace(sae, metadata=_metadata(sae, {"hook_name": hook}))
    _check(sae, WRITTEN, "writes", target, "target")
    return replace(sae, metadata=_metadata(sae, {"hook_name": hook, "hook_name_out": target}))


def warn_of_training(sae: SAE, models: Collection[str] = ()) -> None:
    """Say what an SAE was trained on that a study does not give it: texts without BOS, another
    model.

    Args:
        sae: imported.
        models: names that the study's model goes by; none where it is not at hand.
    """
    if sae.metadata.get("prepend_bos") is False:
        warn(
            "sae: was trained on texts without BOS, with which all texts open here; its first "
            "tokens differ"
        )
    said = str(sae.metadata.get("model_name") or "")
    if said and models and _bare(said) not in {_bare(model) for model in models}:
        warn(
            f"sae: was trained on the model '{said}', and this one is '{next(iter(models))}'; look "
            "whether it fits"
        )


def _model(sae: SAE) -> str:
    return str(sae.metadata.get("model_name", ""))


def _bare(model: str) -> str:
    """A model's name without its owner, in one spelling; TransformerLens calls GPT-2
    ``gpt2-small``."""
    name = model.rstrip("/").rsplit("/", 1)[-1].lower().removesuffix("-hf")
    return "gpt2" if name == "gpt2-small" else name


def _metadata(sae: SAE, hooks: dict[str, str]) -> dict[str, Any]:
    """An SAE's metadata with hooks of the study; a name that was a module's is kept under the name
    for those."""
    metadata = dict(sae.metadata)
    for name, hook in hooks.items():
        said = metadata.get(name)
        if said and not str(said).startswith("blocks."):
            metadata.setdefault(f"hf_{name}", said)
        metadata[name] = hook
    return metadata


def _check(sae: SAE, names: Sequence[str], does: str, hook: str, key: str) -> None:
    """Hold every name of the place that an SAE was trained at against the study's hook."""
    if said := said_elsewhere(sae.metadata, names, hook):
        raise SaeflowError(f"sae: {does} {said}, not {hook}; correct its {key} (saes.<name>.{key})")


def with_sources(crosscoder: Crosscoder, sources: Sequence[str]) -> Crosscoder:
    """The crosscoder with the sources of a study.

    Args:
        crosscoder: imported.
        sources: ``model:hook`` of each, in order.

    Raises:
        SaeflowError: it has another number of sources, or says itself that it reads others.
    """
    if len(sources) != crosscoder.n_sources:
        raise SaeflowError(
            f"crosscoder: has {crosscoder.n_sources} sources, and {len(sources)} are named; name "
            "each"
        )
    named = [dict(zip(("model", "hook"), source.split(":", 1), strict=True)) for source in sources]
    for said, source in zip(crosscoder.metadata.get("sources") or [], named, strict=False):
        hooks = hooks_at(str(said.get("hook", ""))) if isinstance(said, dict) else None
        if hooks is not None and canonical_hook(source["hook"]) not in hooks:
            raise SaeflowError(
                f"crosscoder: reads {said['hook']}, not {source['hook']}; name its sources in its "
                "order"
            )
    return replace(crosscoder, metadata={**crosscoder.metadata, "sources": named})


def sources_of(crosscoder: Crosscoder, models: Collection[str]) -> list[tuple[str, str]]:
    """Model and hook of each of a crosscoder's sources.

    Raises:
        SaeflowError: it does not name them, or names a model that is not at hand.
    """
    named = crosscoder.metadata.get("sources") or []
    try:
        sources = [(str(source["model"]), str(source["hook"])) for source in named]
    except (KeyError, TypeError):
        sources = []
    if len(sources) != crosscoder.n_sources:
        raise SaeflowError(
            "crosscoder: does not name its sources; import it with their models and hooks"
        )
    for model, _ in sources:
        if model not in models:
            raise SaeflowError(
                f"crosscoder: reads the model '{model}', and only {', '.join(models)} are given"
            )
    return sources
