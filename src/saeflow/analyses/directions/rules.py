"""What the rules of directions say of a study."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from saeflow.analyses import Study
from saeflow.analyses.directions import models
from saeflow.analyses.directions.prompts import read_prompts
from saeflow.analyses.directions.settings import Directions
from saeflow.artifacts import sha256
from saeflow.config.embedded import EMBEDDED
from saeflow.errors import SaeflowError
from saeflow.judging.goals import read_goal_for
from saeflow.workflow import Workflow, digest, repeated


class PromptFile:
    """The prompts, read and split before any job; their file is no input but a param, as settings
    are: what it says is a trigger, and where it lies and how old it is is none.

    Raises:
        SaeflowError: a class is absent or too small, or a token of the behaviour is none of a model
            whose tokenizer is on this machine.
    """

    def __init__(self, flow: Workflow[Study], own: Directions) -> None:
        path = own.prompts.path
        self._file = Path(flow.sought(path)) if path else None
        read_prompts(own.prompts, own.sources, self._file, flow.study.seed)
        judged = own.judged
        self._goal = Path(flow.sought(judged.goal)) if judged else None
        self._behaviour = read_goal_for(judged.judge, self._goal) if judged and self._goal else None
        for name in models(flow.study, own):
            _check_tokens(flow.study, own, name)

    def options(self, wildcards: Any, input: Any) -> list[str]:
        """A param: where the file lies, as the command's options."""
        return repeated("--prompts", [self._file] if self._file else [])

    def goal(self, wildcards: Any, input: Any) -> Path | None:
        """A param: where the goal's file lies that a judge is asked about."""
        return self._goal

    def goal_said(self, wildcards: Any) -> str:
        """A param, and so a trigger: what that says."""
        return digest([self._behaviour] if self._behaviour else [])

    def said(self, wildcards: Any) -> str:
        """A param, and so a trigger: what it says."""
        return sha256(self._file) if self._file else hashlib.sha256(b"").hexdigest()


READS = PromptFile


def _check_tokens(study: Study, own: Directions, name: str) -> None:
    """Refuse tokens of the behaviour that a tokenizer on this machine knows as none or several."""
    from tokenizers import Tokenizer

    origin = study.origin_of(name)
    folder = EMBEDDED if origin.train else Path(origin.path or "")
    if not own.behaviour.tokens or not (folder / "tokenizer.json").is_file():
        return
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for number, text in enumerate(own.behaviour.tokens):
        encoded = tokenizer.encode(text, add_special_tokens=False)
        if len(encoded.ids) != 1 or encoded.tokens == ["<unk>"]:
            pieces = ", ".join(map(repr, encoded.tokens)) or "nothing"
            raise SaeflowError(
                f"directions.behaviour.tokens.{number}: {text!r} is no single token of '{name}' "
                f"but {pieces}; name one that answers begin with"
            )


def source_files(flow: Workflow[Study], own: Directions, direction: str) -> list[Any]:
    """What a direction is made of beside the model's own activations."""
    sources = own.sources
    if direction in sources.difference_of_models:
        both = sources.difference_of_models[direction]
        folder = f"results/{flow.study.study}/directions"
        return [f"{folder}/{name}/activations.safetensors" for name in (both.model, both.less)]
    if direction in sources.latent:
        return [flow.located(f"saes/{sources.latent[direction].sae}/sae_weights.safetensors")]
    if direction in sources.vector:
        return [flow.sought(sources.vector[direction].path)]
    return []


def latent_options(study: Study, own: Directions, direction: str) -> list[str]:
    """Where the SAE of a latent reads, as the command's options."""
    latent = own.sources.latent.get(direction)
    return ["--hook", study.hook_of(latent.sae)] if latent else []
