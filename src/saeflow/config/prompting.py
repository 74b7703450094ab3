"""Whether a model can do with the messages among prompts, as far as files tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from saeflow.artifacts import read_object
from saeflow.config.gguf_header import gguf_header, is_gguf
from saeflow.config.section import Complaint
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from saeflow.config.sections import Model, Prompt

TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
SETTINGS = "tokenizer_config.json"


def about_prompts(model: Model, key: str, prompts: Sequence[Prompt]) -> list[Complaint]:
    """A complaint for every prompt that is given as messages to a model that is known to have no
    chat template.

    Args:
        model: that is prompted.
        key: of the prompts.
        prompts: text or messages.
    """
    messages = [f"{key}.{i}" for i, prompt in enumerate(prompts) if not isinstance(prompt, str)]
    if messages and (reason := why_no_messages(model)):
        return [(place, f"holds messages, and {reason}") for place in messages]
    return []


def why_no_messages(model: Model) -> str | None:
    """Why the model cannot write messages; None where it can, or its files are not here yet."""
    if model.train:
        return "a model trained here on 'tales' has no chat template; write text"
    folder = Path(model.path or "")
    if is_gguf(model.path) and folder.is_file():
        return _why_not_of_gguf(folder)
    if (
        not model.path
        or not (folder / SETTINGS).is_file()
        or any((folder / name).exists() for name in TEMPLATES)
    ):
        return None
    try:
        settings = read_object(folder / SETTINGS)
    except SaeflowError:  # told when it is loaded
        return None
    if settings.get("chat_template"):
        return None
    return (
        f"the tokenizer in {folder} has no chat template; write text, or put chat_template.jinja "
        "there"
    )


def _why_not_of_gguf(file: Path) -> str | None:
    try:
        template = gguf_header(file).get("tokenizer.chat_template")
    except SaeflowError:  # a complaint of its own
        return None
    return None if template else f"{file} has no chat template; write text"
