"""Chat templates: messages as the text that a model was taught to read them as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TODAY = date(2024, 7, 26)
"""What templates that write the day's date are told, so that a study's prompts stay what they
are."""


def rendered(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], **choices: bool
) -> str:
    """Messages as text; whatever the template raises is raised.

    Args:
        tokenizer: of the model, with a template.
        messages: each with ``role`` and ``content``.
        choices: those of ``apply_chat_template``.
    """
    template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        template = _DATE + template
    text = tokenizer.apply_chat_template(
        list(map(dict, messages)), chat_template=template, tokenize=False, **choices
    )
    assert isinstance(text, str)
    return text


_PARTS = "".join(
    f"|replace('%{part}', '{TODAY.strftime('%' + part)}')" for part in "aAbBdmyYjHIMSp"
)
_DATE = f"{{% macro strftime_now(format) %}}{{{{ format{_PARTS} }}}}{{% endmacro %}}{{{{ '' }}}}"
"""Goes before the day's date that templates are given, which only a macro of their own can hide."""
