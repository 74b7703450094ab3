"""SAEs and models whose activations have unlike widths, as far as files of both are on this
machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from saeflow.artifacts import read_object
from saeflow.config.gguf_header import hugging_face_config, is_gguf
from saeflow.config.model_files import config_file, width_at
from saeflow.config.sae_files import cached_sae, widths_of
from saeflow.config.section import Complaint
from saeflow.config.shipped import shipped_or_own
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from saeflow.config.sections import Core
    from saeflow.config.sections.saes import SAE, Cache


def about_widths(study: Core) -> list[Complaint]:
    """SAEs that read or write activations of another width than those of the model there: SAEs from
    elsewhere, trainings that begin with the weights of another SAE, crosscoders, and SAEs of
    differences."""
    complaints = []
    for name, sae in study.saes.items():
        key, places = f"saes.{name}", study.caches_of(name)
        own = [_width_of(study, place) for place in places]
        if sae.kind in ("crosscoder", "difference"):
            whose = "a crosscoder's" if sae.kind == "crosscoder" else "a difference's"
            complaints += _unlike(key, whose, places, own)
        elif not sae.train:
            folder = _folder_of(sae)
            key = f"{key}.{'path' if sae.path else 'published'}"
            theirs = _widths_in(folder, sae.format)
            complaints += _misfits(key, f"{folder}: the SAE", theirs, own, places)
        elif other := sae.train.init_from:
            key = f"{key}.train.init_from"
            if other in study.saes:
                theirs = [_width_of(study, place) for place in study.caches_of(other)]
            else:
                theirs = _widths_in(shipped_or_own(other), "auto")
            complaints += _misfits(key, f"'{other}'", theirs, own, places)
    return complaints


def _misfits(
    key: str,
    whose: str,
    theirs: Sequence[int | None],
    own: Sequence[int | None],
    places: Sequence[Cache],
) -> list[Complaint]:
    """The first of what an SAE reads and writes that has another width than the model there."""
    if not theirs:
        return []
    pairs = (
        ("reads", theirs[0], own[0], places[0]),
        ("writes", theirs[-1], own[-1], places[-1]),
    )
    for does, its, width, (model, hook) in pairs:
        if its and width and its != width:
            reason = (
                f"{whose} {does} activations of {its:,} numbers, and those of '{model}' at {hook} "
                f"have {width:,}; name an SAE of this model, or correct model or hook"
            )
            return [(key, reason)]
    return []


def _unlike(
    key: str, whose: str, places: Sequence[Cache], own: Sequence[int | None]
) -> list[Complaint]:
    """Sources of two widths that are read together."""
    sources = [(width, place) for width, place in zip(own, places, strict=True) if width]
    for width, (model, hook) in sources[1:]:
        first, (its_model, its_hook) = sources[0]
        if width != first:
            reason = (
                f"{whose} sources have one width, and activations of '{its_model}' at "
                f"{its_hook} have {first:,} numbers, those of '{model}' at {hook} {width:,}; "
                "choose others"
            )
            return [(key, reason)]
    return []


def _folder_of(sae: SAE) -> Path | None:
    """The files of an SAE from elsewhere, where they are here already."""
    if sae.path:
        return Path(sae.path)
    return cached_sae(sae.published) if sae.published else None


def _widths_in(folder: Path | None, named: str) -> Sequence[int | None]:
    """What an SAE from elsewhere reads and writes; nothing where its files are not here."""
    if not folder or not folder.exists():
        return ()
    try:
        return widths_of(folder, named)
    except SaeflowError:  # told by those that look at the files alone
        return ()


def _width_of(study: Core, place: Cache) -> int | None:
    """The width of a model's activations at a hook; None where its config is not here."""
    if place.model not in study.all_models:  # a complaint of its own
        return None
    model = study.origin_of(place.model)
    if model.train:
        return model.train.d_model
    try:
        file = config_file(model)
        if not file or not file.is_file():
            return None
        config = hugging_face_config(file) if is_gguf(file) else read_object(file)
        return width_at(config, place.hook)
    except SaeflowError:  # as above
        return None
