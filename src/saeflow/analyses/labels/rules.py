"""What the rules of labels say of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saeflow.analyses import Study
from saeflow.analyses.labels import sources
from saeflow.analyses.labels.prompts import read_prompts
from saeflow.analyses.labels.settings import Labels
from saeflow.workflow import Workflow, digest


class AskingFile:
    """The file of what is asked, which is no input but a param, as settings are: what it says is a
    trigger, and where it lies and how old it is is none."""

    def __init__(self, flow: Workflow[Study], own: Labels) -> None:
        asks = own.scores.kinds or "explainer" in own.sources
        self._path = flow.sought(own.asked.prompts)
        self._said = digest([read_prompts(Path(self._path))]) if asks else ""

    def path(self, wildcards: Any, input: Any) -> str:
        """A param: the file."""
        return self._path

    def said(self, wildcards: Any) -> str:
        """A param, and so a trigger: what it says."""
        return self._said


READS = AskingFile


def target_table(flow: Workflow[Study], sae: str) -> list[str]:
    """The table of what goals are aimed at, where these latents are to be labelled."""
    study = flow.study
    wanted = study.labels and study.labels.latents.targets and sae == study.target_sae
    return ["results/{study}/steering/targets.parquet"] if wanted else []


def lens_table(flow: Workflow[Study]) -> list[str]:
    """What latents promote, where the logit lens tells."""
    return ["results/{study}/logit_lens/{sae}/tokens.parquet"] if flow.study.logit_lens else []


def dreams_of(flow: Workflow[Study], sae: str) -> list[str]:
    """What was dreamed of an SAE's latents, where labels are scored by it."""
    own = flow.study.labels
    asked = own and "dreams" in own.scores.kinds and sae in flow.names.get("dreamed", ())
    names = ("targets", "fronts") if asked else ()
    return [f"results/{{study}}/dreaming/{sae}/{name}.parquet" for name in names]


def label_files(flow: Workflow[Study], sae: str) -> list[str]:
    """The labels of an SAE, source by source."""
    own = flow.study.labels
    assert own is not None, "a study that asks for it"
    named = sources(own, sae, flow.names["labelled_crosscoder"])
    return [f"results/{{study}}/labels/{sae}/{source}.parquet" for source in named]


def hook_option(flow: Workflow[Study], sae: str) -> list[str]:
    """Where an SAE reads, as an option; a crosscoder fires on no text that one model reads."""
    of_several = sae in flow.names["labelled_crosscoder"]
    return [] if of_several else ["--hook", flow.study.hook_of(sae)]


def imported_file(flow: Workflow[Study], sae: str) -> str:
    """The file of labels of an SAE."""
    own = flow.study.labels
    return flow.sought(own.imported[sae]) if own else ""
