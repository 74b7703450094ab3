"""Effects and approximators of a hub, in this library's layout or that of the SAE-TS release."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from saeflow.analyses.effects.io import (
    check_finite,
    open_effects,
    read_approximation,
    save_approximation,
)
from saeflow.analyses.effects.published import OnProgress, import_effects, read_adapter
from saeflow.artifacts import atomic, write_sealed_json
from saeflow.errors import SaeflowError
from saeflow.hub.files import RECORD, fetch, place

if TYPE_CHECKING:
    from saeflow.config.sections import Published


def fetch_effects(
    published: Published,
    key: str,
    merged: Path,
    metadata: dict[str, Any],
    progress: OnProgress | None = None,
) -> None:
    """Fetch effects and write them as ``effects.h5``, with the record of where they came from.

    Args:
        published: an ``effects.h5`` or a ``.pt`` file of the release.
        key: of the config, for messages.
        merged: the file to write.
        metadata: of the file, where the published one has none of its own; ``hook`` is in it.
        progress: called with (rows done, rows).

    Raises:
        SaeflowError: what `saeflow.hub.files.fetch` raises, or the file is damaged, something else,
            or of another hook.
    """
    fetched = fetch(published, key)
    if fetched.path.suffix == ".pt":
        import_effects(fetched.path, merged, {**metadata, "published": fetched.origin}, progress)
    else:
        with open_effects(fetched.path) as table:
            _check_hook(key, table.metadata, metadata["hook"])
            check_finite(fetched.path, table)
        with atomic(merged) as temporary:
            place(fetched.path, temporary)
    write_sealed_json(merged.parent / RECORD, fetched.record)


def fetch_approximator(
    published: Published,
    key: str,
    directory: Path,
    W_dec: Float[Tensor, "d_sae d_model"],
    metadata: dict[str, Any],
) -> None:
    """Fetch an approximator and write it as ``approximator.safetensors``, with the record of where
    it came from.

    Args:
        published: an ``approximator.safetensors`` or a ``.pt`` file of the release.
        key: of the config, for messages.
        directory: of the file to write.
        W_dec: decoder of the SAE whose latents it predicts.
        metadata: of the file; ``hook`` is in it.

    Raises:
        SaeflowError: what `saeflow.hub.files.fetch` raises, or the file is damaged, something else,
            or for another SAE.
    """
    fetched = fetch(published, key)
    if fetched.path.suffix == ".pt":
        approximation = read_adapter(fetched.path, W_dec)
    else:
        approximation, stated = read_approximation(fetched.path)
        _check_hook(key, stated, metadata["hook"])
        if approximation.M.shape != W_dec.T.shape:
            shape, needed = list(approximation.M.shape), list(W_dec.T.shape)
            raise SaeflowError(
                f"{key}: M {shape} is not {needed}; take the SAE that it was fitted for"
            )
    write_sealed_json(directory / RECORD, fetched.record)
    save_approximation(directory, approximation, {**metadata, "published": fetched.origin})


def _check_hook(key: str, metadata: dict[str, Any], hook: str) -> None:
    if metadata.get("hook", hook) != hook:
        raise SaeflowError(
            f"{key}: is of {metadata['hook']}, and the study's hook is {hook}; make them agree"
        )
