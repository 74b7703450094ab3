"""What models are asked about latents: wordings of a file."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import yaml
from pydantic import ValidationError

from saeflow.config.reading import complaints
from saeflow.config.section import Section, Text
from saeflow.errors import SaeflowError

_MARK = re.compile(r"\{(label|passages|passage)\}")


class Wordings(Section):
    """One question, to a hosted model and to the study's own."""

    hosted: Text
    """The system message; label and passages follow."""
    local: Text
    """With ``{label}`` and ``{passage}`` or ``{passages}`` where they stand."""

    @property
    def digest(self) -> str:
        """Names the wording where answers are kept: another wording is another question."""
        return hashlib.sha256(self.hosted.encode()).hexdigest()[:8]

    def asked(self, label: str, passage: str, passages: str = "") -> str:
        """The question to the study's own model."""
        texts = {"label": label, "passage": passage, "passages": passages}
        return _MARK.sub(lambda match: texts[match[1]], self.local)


class AskingPrompts(Section):
    """All questions."""

    explanation: Wordings
    detection: Wordings
    fuzzing: Wordings
    simulation: Wordings
    intruder: Wordings
    generation: Wordings


def read_prompts(path: Path) -> AskingPrompts:
    """Read a file of wordings.

    Raises:
        SaeflowError: it cannot be read, or lacks a question.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return AskingPrompts.model_validate(values)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())
        raise SaeflowError(f"{path}: cannot be read as YAML ({line}); correct it") from None
    except ValidationError as error:
        lines = (f"{path}: {line}" for line in complaints(error))
        raise SaeflowError("\n".join(lines)) from None
