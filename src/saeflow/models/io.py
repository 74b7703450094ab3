"""Checkpoint directories: saved, linked, fetched from the hub. Every one appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saeflow.artifacts import atomic, read_json, sha256, write_json
from saeflow.errors import SaeflowError
from saeflow.models.language_model import POINTER, without_progress_bars

if TYPE_CHECKING:
    from saeflow.models.training import TrainedModel

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
OTHER_FILES = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


def save_model(directory: Path, trained: TrainedModel, metrics: Mapping[str, Any]) -> None:
    """Write a Hugging Face checkpoint directory with its tokenizer, ``training.parquet`` and ``metrics.json``.

    Raises:
        SaeflowError: the disk is full or the folder cannot be written.
    """
    with atomic(directory) as temporary:
        with without_progress_bars():
            trained.model.save_pretrained(temporary)
        trained.tokenizer.save_pretrained(temporary)
        trained.curve.write_parquet(temporary / "training.parquet")
        write_json(temporary / "metrics.json", dict(metrics))


def link_model(path: Path, directory: Path) -> None:
    """Make a directory that stands for a local checkpoint: ``model.json`` with its path and its files' checksums.

    Args:
        path: a Hugging Face checkpoint directory.
        directory: what `load_model` will be given.

    Raises:
        SaeflowError: there is no checkpoint at ``path``.
    """
    path = Path(path).resolve()
    if not path.is_dir():
        raise SaeflowError(f"{path}: no such model directory; check model.path")
    names = _needed({file.name for file in path.iterdir() if file.is_file()}, path.joinpath, str(path))
    with atomic(directory) as temporary:
        write_json(temporary / POINTER, {"path": str(path), "files": _checksums(path, names)})


def fetch_model(repo: str, revision: str, directory: Path) -> None:
    """Fetch the files of a hub model that are needed to run it, all of one commit, into a checkpoint directory.

    ``model.json`` beside them records repository, revision, the commit it resolved to, and checksums. The environment
    is obeyed: ``HF_TOKEN``, ``HF_ENDPOINT``, ``HF_HOME``, and ``HF_HUB_OFFLINE=1`` to take everything from the cache.

    Args:
        repo: ``owner/name``.
        revision: branch, tag or commit.
        directory: where the files go.

    Raises:
        SaeflowError: no such repository or revision, no access to it, no network, no safetensors weights.
    """
    with _told_in_one_sentence(repo, revision):
        snapshot, names = _snapshot(repo, revision)
    with atomic(directory) as temporary:
        temporary.mkdir()
        for name in names:
            _place(snapshot / name, temporary / name)
        record = {"repo": repo, "revision": revision, "commit": snapshot.name, "files": _checksums(temporary, names)}
        write_json(temporary / POINTER, record)


def _snapshot(repo: str, revision: str) -> tuple[Path, list[str]]:
    """The cache folder of the commit a revision resolves to, named by that commit, and the needed files in it."""
    from huggingface_hub import HfApi, errors, hf_hub_download

    where = f"{repo}@{revision}"
    try:
        info = HfApi().model_info(repo, revision=revision)
    except errors.OfflineModeIsEnabled:
        snapshot = Path(hf_hub_download(repo, CONFIG, revision=revision, local_files_only=True)).parent
        return snapshot, _needed({file.name for file in snapshot.iterdir()}, snapshot.joinpath, where)

    def download(name: str) -> Path:
        return Path(hf_hub_download(repo, name, revision=info.sha))

    names = _needed({sibling.rfilename for sibling in info.siblings or ()}, download, where)
    hf_hub_download(repo, CONFIG, revision=revision)  # the cache learns what the revision means, for offline use
    paths = [download(name) for name in names]
    return paths[0].parent, names


def _needed(offered: set[str], locate: Callable[[str], Path], where: str) -> list[str]:
    """The files a model needs to run, of those on offer.

    Args:
        offered: names of the files of the checkpoint.
        locate: gives the path of one of them; called for the index of weights in several files, which names these.
        where: the checkpoint, for messages.
    """
    if CONFIG not in offered:
        raise SaeflowError(f"{where}: has no {CONFIG}; name a Hugging Face checkpoint of a transformers model")
    if WEIGHTS in offered:
        weights = [WEIGHTS]
    elif WEIGHTS_INDEX in offered:
        weights = [WEIGHTS_INDEX, *sorted(set(read_json(locate(WEIGHTS_INDEX))["weight_map"].values()))]
    else:
        raise SaeflowError(f"{where}: has no weights as {WEIGHTS}; name a revision that has, or convert the checkpoint")
    if absent := [name for name in weights if name not in offered]:
        raise SaeflowError(f"{where}: lacks {absent[0]}, which {WEIGHTS_INDEX} names; fetch the checkpoint again")
    return [CONFIG, *weights, *(name for name in OTHER_FILES if name in offered)]


def _checksums(folder: Path, names: Iterable[str]) -> dict[str, dict[str, str | int]]:
    return {name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in names}


def _place(source: Path, target: Path) -> None:
    """Give a cached file a second name, or copy it where file systems or permissions forbid that."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def _told_in_one_sentence(repo: str, revision: str) -> Iterator[None]:
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.GatedRepoError:
        raise SaeflowError(
            f"{repo}: is gated; accept its terms on {constants.ENDPOINT}/{repo} and set HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise SaeflowError(f"{repo}: has no revision '{revision}'; check model.revision") from None
    except errors.RepositoryNotFoundError:
        raise SaeflowError(
            f"{repo}: is not on {constants.ENDPOINT}, or is private; check model.repo, or set HF_TOKEN"
        ) from None
    except errors.LocalEntryNotFoundError:
        raise SaeflowError(
            f"{repo}@{revision}: is not in the cache, and HF_HUB_OFFLINE is set or the network is down; fetch it online"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise SaeflowError(f"{repo}@{revision}: {constants.ENDPOINT} answered {status}; try again later") from error
    except SaeflowError:
        raise
    except OSError as error:
        if error.errno is None:
            raise _unreachable(repo, error) from error
        raise SaeflowError(
            f"{repo}@{revision}: cannot be stored ({error.strerror}); check HF_HOME and its disk"
        ) from error
    except Exception as error:  # the hub's client has changed its HTTP library, and with it these classes, twice
        raise _unreachable(repo, error) from error


def _unreachable(repo: str, error: Exception) -> SaeflowError:
    return SaeflowError(
        f"{repo}: the hub cannot be reached ({type(error).__name__}); "
        "check the network and HF_ENDPOINT, or set HF_HUB_OFFLINE=1 to use the cache"
    )
