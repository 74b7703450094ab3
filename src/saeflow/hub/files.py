"""Fetches files of a hub at one commit into the hub's cache, and checks that they are what was
promised.

The environment is obeyed: ``HF_TOKEN``, ``HF_ENDPOINT``, ``HF_HOME``, and ``HF_HUB_OFFLINE=1`` to
take everything from the cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import tqdm

from saeflow.artifacts import inside, sha256
from saeflow.config.sections import Published
from saeflow.errors import SaeflowError
from saeflow.hub.mishaps import patiently, told_in_one_sentence
from saeflow.terminal import printable

RECORD = "published.json"
"""Stands beside everything that was fetched: repository, revision, the commit that it was, and
checksums."""
SHOWN_NAMES = 8

Choose = Callable[[set[str], Callable[[str], Path]], Iterable[str]]
"""Which files are wanted, of the names on offer; the second argument fetches one to look into
it."""


class Fetched(NamedTuple):
    """Files of a repository on this machine."""

    folder: Path
    """The folder that the config names, or the one of the file that it names."""
    names: list[str]
    """Of the files, relative to the folder."""
    record: dict[str, Any]
    """What `RECORD` holds."""

    @property
    def path(self) -> Path:
        """The one file that the config names."""
        return self.folder / self.names[0]

    @property
    def origin(self) -> dict[str, Any]:
        """What an artifact's metadata keeps of the record."""
        return {name: self.record[name] for name in ("repo", "repo_type", "commit", "file")}


class _Promise(NamedTuple):
    """What the hub says that a file is; None where it does not say."""

    size: int | None = None
    sha256: str | None = None
    blob: str | None = None
    """SHA-1 of a file that git keeps itself."""


class _Offer(NamedTuple):
    """What a repository holds at one commit."""

    commit: str
    files: dict[str, _Promise]
    online: bool


def fetch(
    published: Published,
    key: str,
    choose: Choose = lambda names, _: names,
    beside: bool = False,
) -> Fetched:
    """Fetch a file, or some files of a folder, all of one commit.

    Args:
        published: what the config says of them.
        key: of the config, for messages.
        choose: which files of a folder; default is all.
        beside: of a file, the files of its folder are on offer, too.

    Raises:
        SaeflowError: no such repository, revision or file, no access, no network, no space, another
            checksum.
    """
    with told_in_one_sentence(key, published.repo, published.repo_type, published.revision):
        offer = _offer(published, key)
        base, names = _below(published, offer, key)
        file = names if len(names) == 1 else set()
        if beside:
            within = {name.removeprefix(base) for name in offer.files if name.startswith(base)}
            names = names | {name for name in within if "/" not in name}
        store = _Store(published, key, offer)
        wanted = sorted(set(choose(names, lambda name: store.fetch(base + name))))
        _check_names(published, key, wanted, names)
        store.check_space(base + name for name in wanted)
        paths = {name: store.fetch(base + name) for name in wanted}
    held = [name for name in wanted if name in file] or wanted
    _check_config(published, key, {name: store.digests[base + name] for name in held})
    files = {
        name: {"sha256": store.digests[base + name], "bytes": path.stat().st_size}
        for name, path in paths.items()
    }
    named = {key: getattr(published, key) for key in ("repo", "repo_type", "revision")}
    first = next(iter(paths.items()))
    folder = first[1].parents[first[0].count("/")]
    return Fetched(
        folder, wanted, {**named, "commit": offer.commit, "file": published.file, "files": files}
    )


def _check_names(published: Published, key: str, wanted: Iterable[str], offered: set[str]) -> None:
    """See that the names of files, which a hub or a file of it chose, are on offer and lead nowhere
    else."""
    for name in wanted:
        inside(Path(published.repo), name)
        if name not in offered:
            raise SaeflowError(
                f"{key}: {published.where} has no file '{name}', which another file of it names"
            )


def place(source: Path, target: Path) -> None:
    """Give a cached file a second name, or copy it where file systems or permissions forbid
    that."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _offer(published: Published, key: str) -> _Offer:
    if constants.is_offline_mode():
        snapshot = _cached(published)
        names = [
            path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()
        ]
        return _Offer(snapshot.name, dict.fromkeys(names, _Promise()), online=False)
    info = patiently(
        lambda: HfApi().repo_info(
            published.repo,
            repo_type=published.repo_type,
            revision=published.revision,
            files_metadata=True,
        )
    )
    if info.siblings is None:
        raise SaeflowError(
            f"{key}: {constants.ENDPOINT} does not say which files {published.where} has; check "
            "HF_ENDPOINT"
        )
    files = {
        file.rfilename: _Promise(
            file.size, file.lfs.sha256 if file.lfs else None, None if file.lfs else file.blob_id
        )
        for file in info.siblings
    }
    return _Offer(str(info.sha), files, online=True)


def _cached(published: Published) -> Path:
    """The cache's folder of the commit that a revision was when it was last fetched."""
    folder = repo_folder_name(repo_id=published.repo, repo_type=published.repo_type)
    storage = Path(constants.HF_HUB_CACHE, folder)
    pointer = storage / "refs" / published.revision
    commit = pointer.read_text().strip() if pointer.is_file() else published.revision
    snapshot = inside(storage / "snapshots", commit)
    if not snapshot.is_dir():
        raise LocalEntryNotFoundError(str(snapshot))
    return snapshot


def _below(published: Published, offer: _Offer, key: str) -> tuple[str, set[str]]:
    """The folder that is meant, as a prefix, and the names in it that are on offer."""
    file = (published.file or "").strip("/")
    if file in offer.files:
        base, _, name = file.rpartition("/")
        return f"{base}/" if base else "", {name}
    base = f"{file}/" if file else ""
    if names := {name.removeprefix(base) for name in offer.files if name.startswith(base)}:
        return base, names
    if not offer.online:
        raise LocalEntryNotFoundError(file)
    raise SaeflowError(
        f"{key}: {published.where} has no file or folder '{file}', but "
        f"{_listed(sorted(offer.files))}; correct {key}.file"
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return f"{', '.join(names[:SHOWN_NAMES]) or 'nothing'}{more}"


class _Bar(tqdm):
    """A bar on a terminal; in a log a word every ten seconds."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "mininterval": 0.1 if sys.stderr.isatty() else 10.0})


class _Store:
    """The hub's cache, for the files of one commit."""

    def __init__(self, published: Published, key: str, offer: _Offer) -> None:
        self.published, self.key, self.offer = published, key, offer
        self.digests: dict[str, str] = {}
        self.paths: dict[str, Path] = {}

    def fetch(self, name: str) -> Path:
        """The path of a file in the cache, fetched if need be, and checked."""
        if name not in self.paths:
            path = self._download(name, again=False)
            if not self._is_as_promised(name, path):
                path = self._download(name, again=True)  # what lay in the cache was damaged
                if not self._is_as_promised(name, path):
                    raise SaeflowError(
                        f"{self.key}: {name} of {self.published.where} arrived, and not with the "
                        "checksum that the hub names; start again, or name another revision"
                    )
            self.paths[name] = path
        return self.paths[name]

    def check_space(self, names: Iterable[str]) -> None:
        """Refuse what would not fit beside what is there already."""
        absent = [name for name in names if name not in self.paths and not self._in_cache(name)]
        needed = sum(self.offer.files[name].size or 0 for name in absent)
        place = next(
            path
            for path in (Path(constants.HF_HUB_CACHE), *Path(constants.HF_HUB_CACHE).parents)
            if path.exists()
        )
        free = shutil.disk_usage(place).free
        if needed > free:
            raise SaeflowError(
                f"{self.key}: {self.published.where} takes {needed / 1e9:,.1f} GB, and the disk of "
                f"{constants.HF_HUB_CACHE} has {free / 1e9:,.1f} GB left; make space there or set "
                "HF_HOME"
            )

    def _in_cache(self, name: str) -> bool:
        folder = repo_folder_name(repo_id=self.published.repo, repo_type=self.published.repo_type)
        return Path(constants.HF_HUB_CACHE, folder, "snapshots", self.offer.commit, name).exists()

    def _download(self, name: str, again: bool) -> Path:
        if not self.offer.online:
            return Path(self._ask(name, self.published.revision, local_files_only=True))
        if not self._in_cache(name):
            size = self.offer.files[name].size
            length = f", {size:,} bytes" if size else ""
            print(
                printable(f"fetch {self.published.repo}@{self.offer.commit}: {name}{length}"),
                file=sys.stderr,
                flush=True,
            )
        if not self.paths and self.published.revision != self.offer.commit:
            # by its own name once, so that the cache learns what the revision means: for offline
            # use
            self._ask(name, self.published.revision, force_download=again)
        return Path(self._ask(name, self.offer.commit, force_download=again))

    def _ask(self, name: str, revision: str, **options: bool) -> str:
        repo, kind = self.published.repo, self.published.repo_type

        def ask() -> str:
            return str(
                hf_hub_download(
                    repo, name, repo_type=kind, revision=revision, tqdm_class=_Bar, **options
                )
            )

        return patiently(ask)

    def _is_as_promised(self, name: str, path: Path) -> bool:
        promise, self.digests[name] = self.offer.files[name], sha256(path)
        # The cache names a file by the hub's ETag.
        etag = path.resolve().name if path.is_symlink() else None
        digests = {64: self.digests[name], 40: _git_blob(path)}  # a checksum is told by its length
        promised = [digest for digest in (promise.sha256, promise.blob, etag) if digest]
        return all(digest == digests.get(len(digest), digest) for digest in promised)


def _git_blob(path: Path) -> str:
    """The SHA-1 by which git, and the hub's ETag, names a file."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _check_config(published: Published, key: str, digests: dict[str, str]) -> None:
    """Hold the file to the checksum of the config."""
    if not published.sha256:
        return
    if len(digests) != 1:
        raise SaeflowError(
            f"{key}.sha256: is one for {len(digests)} files; name one file, or a commit as the "
            "revision"
        )
    ((name, digest),) = digests.items()
    if digest != published.sha256:
        raise SaeflowError(
            f"{key}: {name} of {published.where} has SHA-256 {digest}, and {key}.sha256 says "
            f"{published.sha256}; name the revision that you mean, or correct the checksum"
        )
