"""What the rules of labels say of a study."""

from __future__ import annotations

from saeflow.analyses import Study
from saeflow.workflow import Workflow


def target_table(flow: Workflow[Study], sae: str) -> list[str]:
    """The table of what goals are aimed at, where these latents are to be labelled."""
    study = flow.study
    wanted = study.labels and study.labels.latents.targets and sae == study.target_sae
    return ["results/{study}/steering/targets.parquet"] if wanted else []


def imported_file(flow: Workflow[Study], sae: str) -> str:
    """The file of labels of an SAE."""
    own = flow.study.labels
    return flow.sought(own.imported[sae]) if own else ""
