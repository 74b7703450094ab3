"""SAEs as files: this library's own layout and the formats of others."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from saeflow.artifacts import write_sealed_json
from saeflow.config.sae_files import (
    NOTHING,
    SAE_FORMATS,
    SINGLE_FILE,
    Given,
    files_of,
    folder_of,
    sae_format,
)
from saeflow.errors import SaeflowError
from saeflow.hub.files import RECORD, Fetched, fetch
from saeflow.saes.crosscoder import Crosscoder, as_crosscoder, difference_as_crosscoder
from saeflow.saes.feeds import Feed
from saeflow.saes.formats import crosscoder, crosscoder_learning, saelens
from saeflow.saes.formats.folding import for_uncentred
from saeflow.saes.placing import placed, warn_of_training
from saeflow.saes.sae import PER_TOKEN, SAE

if TYPE_CHECKING:
    from saeflow.config.sections import Published


class Format(NamedTuple):
    """A format's reader, and its writer where it is written here."""

    load: Callable[[Path, Given], SAE]
    heeded: frozenset[str]
    """What a study may say of its SAEs, where their files do not."""
    save: Callable[[Path, SAE], None] | None

    @classmethod
    def of(cls, name: str) -> Format:
        """What the module of that name defines."""
        module = import_module(f"saeflow.saes.formats.{name}")
        heeded: frozenset[str] = getattr(module, "HEEDED", frozenset())
        return cls(module.load, heeded, getattr(module, "save", None))


FORMATS = {name: Format.of(name) for name in SAE_FORMATS}
"""Every format that the config knows is the module of its name in `saeflow.saes.formats`."""


def save_sae(directory: Path, sae: SAE) -> None:
    """Write an SAE in this library's own layout, which is SAELens 6."""
    saelens.save(directory, sae)


def load_sae(directory: Path) -> SAE:
    """Read an SAE in this library's own layout; raises as `import_sae` does."""
    return import_sae(directory, "saelens")


def save_trained(directory: Path, trained: SAE, feed: Feed) -> None:
    """Write the result of a training as what it is: an SAE or transcoder, or a crosscoder.

    Args:
        trained: as the training gave it.
        feed: what it was trained on.
    """
    if feed.n_sources > 1:
        save_crosscoder(directory, as_crosscoder(trained, feed.n_sources, feed.read))
    else:
        save_sae(directory, trained)


def save_crosscoder(directory: Path, trained: Crosscoder) -> None:
    """Write a crosscoder in this library's own layout."""
    crosscoder.save(directory, trained)


def load_crosscoder(directory: Path) -> Crosscoder:
    """Read a crosscoder in this library's own layout, or in that of crosscoder_learning.

    Raises:
        SaeflowError: the folder holds none, or a damaged one.
    """
    theirs = crosscoder_learning.is_crosscoder(directory)
    return crosscoder_learning.load(directory) if theirs else crosscoder.load(directory)


def load_of_models(directory: Path) -> Crosscoder:
    """Read what tells models apart: a crosscoder, or an SAE of their difference as one.

    Raises:
        SaeflowError: the folder holds neither, or a damaged one.
    """
    if crosscoder.is_crosscoder(directory) or crosscoder_learning.is_crosscoder(directory):
        return load_crosscoder(directory)
    return difference_as_crosscoder(load_sae(directory))


def import_sae(path: Path, named: str = "auto", given: Given = NOTHING) -> SAE:
    """Read an SAE in any format, checked and folded.

    Args:
        path: the folder with its files, or one of them.
        named: the format; ``auto`` tells it from the names of the files.
        given: what its files do not say.

    Raises:
        SaeflowError: there is no SAE that is known here, or a damaged one, or its files say
            themselves what is given.
    """
    path = Path(path)
    name = sae_format(path, named)
    if given.normalize_activations not in (None, *PER_TOKEN):
        raise SaeflowError(
            f"{path}: normalize_activations '{given.normalize_activations}' is not known here; "
            f"known are {' and '.join(PER_TOKEN)}"
        )
    for key, value in given._asdict().items():
        if value is not None and key not in FORMATS[name].heeded:
            raise SaeflowError(
                f"{path}: format '{name}' takes no {key}; its files say all that is read "
                f"(remove saes.<name>.{key})"
            )
    try:
        return FORMATS[name].load(path if name == SINGLE_FILE else folder_of(path), given)
    except (
        ArithmeticError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:  # a config is anybody's JSON
        raise SaeflowError(
            f"{path}: its config is not one of format '{name}' ({type(error).__name__}: "
            f"{error}); get it again or name its format"
        ) from error


@dataclass(frozen=True)
class Elsewhere:
    """What a study says of an SAE that is not trained there.

    Attributes:
        named: its format; ``auto`` tells it from the names of the files.
        hook: where it will be read.
        target: where it writes, if it is a transcoder.
        centred: whether it was trained on centred activations; see `for_uncentred`.
        given: what its files do not say.
        d_sae: number of latents that the config says it has.
    """

    named: str = "auto"
    hook: str | None = None
    target: str | None = None
    centred: bool = False
    given: Given = NOTHING
    d_sae: int | None = None


def sae_from_elsewhere(path: Path, said: Elsewhere) -> SAE:
    """Read an SAE as a study has it; raises as `import_sae` and `placed` do."""
    sae = import_sae(path, said.named, said.given)
    sae = for_uncentred(sae) if said.centred else sae
    warn_of_training(sae)
    return placed(sae, said.hook, said.target) if said.hook else sae


def sae_from_hub(published: Published, key: str, said: Elsewhere) -> tuple[SAE, Fetched]:
    """Fetch an SAE into the hub's cache and read it.

    Args:
        published: its folder, or its one file.
        key: of the config, for messages.
        said: what the study says of it.

    Returns:
        The SAE, whose metadata say where it came from, and its files.

    Raises:
        SaeflowError: what `saeflow.hub.files.fetch`, `import_sae` and `placed` raise, or it has
            another number of latents.
    """

    file = (published.file or "").strip("/").rpartition("/")[2]

    def wanted(names: Set[str], _: object) -> list[str]:
        try:
            return files_of(names, said.named, file if file in names else None)
        except SaeflowError as error:
            raise SaeflowError(f"{key}: {published.where} {published.file or ''} {error}") from None

    fetched = fetch(published, key, wanted, beside=True)
    named = fetched.folder / file
    sae = sae_from_elsewhere(named if file in fetched.names else fetched.folder, said)
    if said.d_sae not in (None, sae.d_sae):
        raise SaeflowError(
            f"{key}: the SAE of {published.where} has {sae.d_sae} latents, not {said.d_sae}; "
            "correct d_sae"
        )
    return replace(sae, metadata={**sae.metadata, "published": fetched.origin}), fetched


def fetch_sae(published: Published, key: str, said: Elsewhere, directory: Path) -> None:
    """Write what `sae_from_hub` gives in this library's own layout, with the record of where it
    came from; raises as that does."""
    sae, fetched = sae_from_hub(published, key, said)
    write_sealed_json(directory / RECORD, fetched.record)
    save_sae(directory, sae)


def export_sae(directory: Path, sae: SAE, named: str) -> None:
    """Write an SAE for another library.

    Raises:
        SaeflowError: the format is not written here, or cannot hold this SAE.
    """
    if sae.per_token and named in FORMATS and named != "saelens":
        raise SaeflowError(
            f"{directory}: format '{named}' holds no SAE that normalises each token's activation "
            f"('{sae.per_token}'); use saelens"
        )
    save = FORMATS[named].save if named in FORMATS else None
    if not save:
        written = ", ".join(name for name, format in FORMATS.items() if format.save)
        raise SaeflowError(f"format '{named}' is not written here; written are {written}")
    save(Path(directory), sae)
