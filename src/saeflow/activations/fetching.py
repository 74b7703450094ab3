"""Activation caches of a hub."""

from __future__ import annotations

from collections.abc import Callable, Set
from pathlib import Path
from typing import TYPE_CHECKING

from saeflow.activations.io import MANIFEST, ActivationStore
from saeflow.artifacts import atomic, read_object, write_sealed_json
from saeflow.errors import SaeflowError
from saeflow.hub.files import RECORD, fetch, place

if TYPE_CHECKING:
    from saeflow.config.sections import Published


def fetch_cache(published: Published, key: str, hook: str, directory: Path) -> None:
    """Fetch the cache of one hook, its manifest last, with the record of where it came from.

    Args:
        published: the folder of the cache; ``{hook}`` in it stands for the hook.
        key: of the config, for messages.
        hook: where the activations were taken.
        directory: where the files go.

    Raises:
        SaeflowError: what `saeflow.hub.files.fetch` raises, or the folder holds no whole cache of
            this hook.
    """
    at_hook = published.model_copy(
        update={"file": (published.file or "").replace("{hook}", hook) or None}
    )

    def wanted(names: Set[str], locate: Callable[[str], Path]) -> list[str]:
        if MANIFEST not in names:
            raise SaeflowError(
                f"{key}: {at_hook.where} has no {MANIFEST} in '{at_hook.file or '.'}'; name the "
                "cache's folder"
            )
        manifest = locate(MANIFEST)
        try:
            return [MANIFEST, *(str(shard["file"]) for shard in read_object(manifest)["shards"])]
        except (KeyError, TypeError):
            raise SaeflowError(
                f"{key}: the {MANIFEST} of {at_hook.where} names no shards; publish it again"
            ) from None

    fetched = fetch(at_hook, key, wanted)
    store = ActivationStore.open(fetched.folder)
    if store.hook != hook:
        raise SaeflowError(
            f"{key}: is the cache of {store.hook}, not of {hook}; name the folder of that hook"
        )
    for shard in store.shards:
        if fetched.record["files"][shard["file"]]["sha256"] != shard["sha256"]:
            raise SaeflowError(
                f"{key}: {shard['file']} of {at_hook.where} is not the one of its {MANIFEST}; "
                "publish it again"
            )
    write_sealed_json(directory / RECORD, fetched.record)
    for name in [name for name in fetched.names if name != MANIFEST] + [MANIFEST]:
        with atomic(directory / name) as temporary:
            place(fetched.folder / name, temporary)
