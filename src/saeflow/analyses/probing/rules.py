"""What the rules of probing say of a study."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from saeflow.analyses import Study
from saeflow.analyses.probing import hooks, saes
from saeflow.analyses.probing.catalogue import chosen_sets, parts
from saeflow.analyses.probing.fetching import package_folder, published_folder, sources_of
from saeflow.analyses.probing.settings import Probing
from saeflow.config.sections.labelled import TextSource
from saeflow.config.sections.published import below
from saeflow.errors import SaeflowError
from saeflow.workflow import Workflow, repeated

_FETCHED = "resources/published"


class LabelledFiles:
    """The sets that a study probes, and where their files lie, or will."""

    def __init__(self, flow: Workflow[Study], own: Probing) -> None:
        self._flow = flow
        self._sets = chosen_sets(Path(flow.sought(own.catalogue)), own)
        named = dict(parts(self._sets))
        self._files: dict[str, str] = {}
        for name, source in named.items():
            if file := self._file(source):
                self._files[name] = file
            if source.path and not os.path.exists(file):
                raise SaeflowError(
                    f"probing.sets: {name} names '{source.path}', which does not exist; correct "
                    "its path in the catalogue"
                )
        self._fetched = sources_of(
            [source.package for source in named.values() if source.package],
            [source.published for source in named.values() if source.published],
        )

    def _file(self, source: TextSource) -> str:
        if source.path:
            return self._flow.sought(source.path)
        if source.package:
            folder, file = package_folder(source.package), source.package.file
        elif source.published:
            folder, file = published_folder(source.published), source.published.file or ""
        else:
            return ""
        return f"{_FETCHED}/{folder}/labelled/{below(file)}"

    @property
    def sources(self) -> list[str]:
        """The folders of what is fetched."""
        return list(self._fetched)

    def wanted(self, wildcards: Any) -> str:
        """A param: what is fetched of one source, as JSON."""
        return self._fetched[wildcards.source].model_dump_json(ensure_ascii=True)

    @property
    def inputs(self) -> list[str]:
        """Local files, and the folders of those that are fetched."""
        local = [file for file in self._files.values() if not file.startswith(f"{_FETCHED}/")]
        fetched = [f"{_FETCHED}/{folder}/labelled" for folder in self._fetched]
        return list(dict.fromkeys([*local, *fetched]))

    def options(self, wildcards: Any, input: Any) -> list[str]:
        """A param: where each file lies, as the command's options."""
        return repeated("--file", [f"{name}={file}" for name, file in self._files.items()])

    def said(self, wildcards: Any) -> str:
        """A param, and so a trigger: the sets, as JSON."""
        sets = {name: texts.model_dump(mode="json") for name, texts in self._sets.items()}
        return json.dumps(sets, ensure_ascii=True)


READS = LabelledFiles


def sae_inputs(flow: Workflow[Study], own: Probing) -> list[Any]:
    """The weights of the SAEs that are probed."""
    names = saes(flow.study, own)
    return [flow.located(f"saes/{name}/sae_weights.safetensors") for name in names]


def sae_options(flow: Workflow[Study], own: Probing) -> list[str]:
    """The options that name each SAE's hook."""
    study = flow.study
    places = [f"{name}={study.hook_of(name)}" for name in saes(study, own)]
    return repeated("--place", places)


def hook_options(flow: Workflow[Study], own: Probing) -> list[str]:
    """The options that name the hooks whose activations are probed."""
    return repeated("--hook", hooks(flow.study, own))
