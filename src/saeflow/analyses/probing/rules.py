"""What the rules of probing say of a study."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from saeflow.analyses import Study
from saeflow.analyses.files import LabelledFiles
from saeflow.analyses.probing import hooks, saes
from saeflow.analyses.probing.catalogue import chosen_sets, parts
from saeflow.analyses.probing.settings import Probing
from saeflow.errors import SaeflowError
from saeflow.workflow import Workflow, repeated


class ProbedFiles:
    """The sets that a study probes, and where their files lie, or will."""

    def __init__(self, flow: Workflow[Study], own: Probing) -> None:
        self._sets = chosen_sets(Path(flow.sought(own.catalogue)), own)
        named = dict(parts(self._sets))
        self.files = LabelledFiles(flow, "probing.sets", named)
        for name, source in named.items():
            if source.path and not os.path.exists(self.files.files[name]):
                raise SaeflowError(
                    f"probing.sets: {name} names '{source.path}', which does not exist; correct "
                    "its path in the catalogue"
                )

    def options(self, wildcards: Any, input: Any) -> list[str]:
        """A param: where each file lies, as the command's options."""
        return repeated("--file", self.files.options)

    def said(self, wildcards: Any) -> str:
        """A param, and so a trigger: the sets, as JSON."""
        sets = {name: texts.model_dump(mode="json") for name, texts in self._sets.items()}
        return json.dumps(sets, ensure_ascii=True)


READS = ProbedFiles


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


def letter_options(own: Probing) -> list[str]:
    """The options that say what a probe must know of letters."""
    if not own.absorption:
        return []
    return [
        *("--probe-f1", str(own.absorption.probe_f1)),
        *("--letters", str(own.absorption.letters)),
    ]
