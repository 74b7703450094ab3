"""What the rules of the logit lens say of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saeflow.analyses import Study
from saeflow.analyses.logit_lens.settings import LogitLens
from saeflow.config import read_token_sets
from saeflow.workflow import Workflow, digest


class TokenSetFiles:
    """The study's own token sets, whose files are no inputs but params, as settings are: what they
    say is a trigger, and where they lie and how old they are is none.
    """

    def __init__(self, flow: Workflow[Study], lens: LogitLens) -> None:
        self._files = [flow.sought(file) for file in lens.token_sets.files]
        sets = [read_token_sets(Path(file)) for file in self._files]
        self._digest = digest(of for named in sets for of in named.values())

    def paths(self, wildcards: Any, input: Any) -> list[str]:
        """A param: the files."""
        return self._files

    def said(self, wildcards: Any) -> str:
        """A param, and so a trigger: what they say."""
        return self._digest


READS = TokenSetFiles
