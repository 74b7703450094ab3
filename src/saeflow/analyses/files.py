"""Files that analyses name in the config: where they lie, or will, and what rules say of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from saeflow.config import read_token_sets
from saeflow.config.sections.labelled import TextSource
from saeflow.config.sections.published import below
from saeflow.hub.labelled import package_folder, published_folder, sources_of
from saeflow.workflow import Workflow, digest

_FETCHED = "resources/published"


class LabelledFiles:
    """Files of labelled texts by what an analysis calls them: local ones, and those that are
    fetched.

    Args:
        flow: the rules' view of the study.
        key: of the config, under which they are named.
        named: what the config says of them.
    """

    def __init__(self, flow: Workflow[Any], key: str, named: Mapping[str, TextSource]) -> None:
        placed = {name: _place(flow, source) for name, source in named.items()}
        self.files = {name: file for name, file in placed.items() if file}
        self.fetched = sources_of(
            [source.package for source in named.values() if source.package],
            [source.published for source in named.values() if source.published],
            key,
        )

    @property
    def local(self) -> list[str]:
        """The files that lie on this machine."""
        files = (file for file in self.files.values() if not file.startswith(f"{_FETCHED}/"))
        return list(dict.fromkeys(files))

    @property
    def folders(self) -> list[str]:
        """The folders of those that are fetched."""
        return [f"{_FETCHED}/{folder}/labelled" for folder in self.fetched]

    @property
    def options(self) -> list[str]:
        """Where each lies, as NAME=FILE."""
        return [f"{name}={file}" for name, file in self.files.items()]


def _place(flow: Workflow[Any], source: TextSource) -> str:
    """Where the texts lie, or will; nowhere if they stand in the config."""
    if source.path:
        return flow.sought(source.path)
    if source.package:
        folder, file = package_folder(source.package), source.package.file
    elif source.published:
        folder, file = published_folder(source.published), source.published.file or ""
    else:
        return ""
    return f"{_FETCHED}/{folder}/labelled/{below(file)}"


class TokenSetFiles:
    """Token sets of the user, whose files are no inputs but params, as settings are: what they say
    is a trigger, and where they lie and how old they are is none.

    Args:
        flow: the rules' view of the study.
        files: that the config names.
    """

    def __init__(self, flow: Workflow[Any], files: Iterable[str]) -> None:
        self._files = [flow.sought(file) for file in files]
        self.sets = {
            name: of for file in self._files for name, of in read_token_sets(Path(file)).items()
        }
        self._digest = digest(self.sets.values())

    def paths(self, wildcards: Any, input: Any) -> list[str]:
        """A param: the files."""
        return self._files

    def said(self, wildcards: Any) -> str:
        """A param, and so a trigger: what they say."""
        return self._digest
