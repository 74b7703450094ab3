"""What the rules of geometry say of a study."""

from __future__ import annotations

from typing import Any

from saeflow.analyses import Study
from saeflow.analyses.files import LabelledFiles, TokenSetFiles
from saeflow.analyses.geometry import saes
from saeflow.analyses.geometry.settings import Geometry
from saeflow.config.sections.labelled import TextSource
from saeflow.errors import SaeflowError
from saeflow.workflow import Workflow, repeated


def sources_of(own: Geometry) -> dict[str, TextSource]:
    """The texts of lines, by ``<line>`` and ``<line>/<other texts>``."""
    named = {name: line.texts for name, line in own.points.lines.items()}
    for name, line in own.points.lines.items():
        named |= {f"{name}/{other}": source for other, source in line.read_off.items()}
    return named


class GeometryFiles:
    """The files of texts and of token sets that geometry reads."""

    def __init__(self, flow: Workflow[Study], own: Geometry) -> None:
        self.files = LabelledFiles(flow, "geometry.points.lines", sources_of(own))
        self.token_sets = TokenSetFiles(flow, own.latents.files if own.latents else ())
        for name, group in (own.latents.groups if own.latents else {}).items():
            if group.token_set and group.token_set not in self.token_sets.sets:
                raise SaeflowError(
                    f"geometry.latents.groups.{name}.token_set: no file has the set "
                    f"'{group.token_set}' but {', '.join(self.token_sets.sets)}; name one of these"
                )

    def options(self, wildcards: Any, input: Any) -> list[str]:
        """A param: where each file lies, as the command's options."""
        return repeated("--texts", self.files.options)

    def set_options(self, wildcards: Any, input: Any) -> list[str]:
        """A param: the files of token sets, as the command's options."""
        return repeated("--token-sets", self.token_sets.paths(wildcards, input))


READS = GeometryFiles


def sae_inputs(flow: Workflow[Study], own: Geometry) -> list[Any]:
    """The weights of the SAEs whose latents are looked at."""
    return [flow.located(f"saes/{name}/sae_weights.safetensors") for name in saes(flow.study, own)]


def sae_options(flow: Workflow[Study], own: Geometry) -> list[str]:
    """The options that name each SAE's hook."""
    study = flow.study
    return repeated("--place", [f"{name}={study.hook_of(name)}" for name in saes(study, own)])
