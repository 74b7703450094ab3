"""Whether a study's model and judge can do with the messages among its prompts, as far as files
tell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saeflow.artifacts import read_object
from saeflow.config.section import Complaint
from saeflow.errors import SaeflowError

if TYPE_CHECKING:
    from saeflow.config.sections import Model, Study

TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
SETTINGS = "tokenizer_config.json"


def about_prompts(study: Study) -> list[Complaint]:
    """A complaint for every prompt that is given as messages to a model that is known to have no
    chat template, and for a judge that would be shown the template's marks as what was written."""
    messages = [
        f"{key}.{place}"
        for key, prompts in (
            ("effects.prompts", study.effects.prompts),
            ("steering.prompts", study.steering.prompts),
        )
        for place, prompt in enumerate(prompts)
        if not isinstance(prompt, str)
    ]
    complaints = []
    if messages and (reason := _why_not(study.model)):
        complaints = [(key, f"holds messages, and {reason}") for key in messages]
    if (
        study.judge.kind == "openai"
        and study.judge.template == "rating@1"
        and any("steering" in key for key in messages)
    ):
        reason = (
            "'rating@1' has the marks of the chat template judged as text; set continuation@1, as "
            "prompts are messages"
        )
        complaints.append(("judge.template", reason))
    return complaints


def _why_not(model: Model) -> str | None:
    """Why the model cannot write messages; None where it can, or its files are not here yet."""
    if model.train:
        return "a model trained here on 'tales' has no chat template; write text"
    folder = Path(model.path or "")
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
