"""What the rules of the logit lens say of a study."""

from __future__ import annotations

from saeflow.analyses import Study
from saeflow.analyses.files import TokenSetFiles
from saeflow.analyses.logit_lens.settings import LogitLens
from saeflow.workflow import Workflow


def token_set_files(flow: Workflow[Study], lens: LogitLens) -> TokenSetFiles:
    """The study's own token sets."""
    return TokenSetFiles(flow, lens.token_sets.files)


READS = token_set_files
