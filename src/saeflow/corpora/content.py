"""What a record says: text, a chat, or the tokens of a text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from saeflow.artifacts import json_of
from saeflow.config.sections import Corpus
from saeflow.errors import SaeflowError

Message = dict[str, Any]
Document = str | list[int] | list[Message]
"""Text, token ids, or messages with ``role`` and ``content``."""

ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant"}
"""Names of roles in data sets, and in chat templates."""
MASK = "attention_mask"
USUAL = {"messages": ("messages", "conversations"), "token_ids": ("input_ids", "tokens")}
"""By the key that names a field of such content: what is looked for where no key names any, and the
files have no field ``text``."""
_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")
_SHOWN = 12


class Content(NamedTuple):
    """Where in a record its document stands.

    Attributes:
        key: of the section ``corpus`` that names such fields: ``field``, ``messages`` or
            ``token_ids``.
        fields: their names; those in fields of fields are joined by dots.
    """

    key: str
    fields: tuple[str, ...]


def content_of(corpus: Corpus, record: Mapping[str, Any], where: str) -> Content:
    """What to read from records like this one.

    Args:
        corpus: names fields.
        record: values, or examples of them, by field.
        where: it stands, for messages.

    Raises:
        SaeflowError: it lacks a field that is named, or there is none to read.
    """
    if corpus.messages:
        content = Content("messages", (corpus.messages,))
    elif corpus.token_ids:
        content = Content("token_ids", (corpus.token_ids,))
    else:
        content = Content("field", corpus.fields)
    absent = [field for field in content.fields if not _has(record, field)]
    if not absent:
        return content
    if not corpus.names_fields:
        for key, usual in USUAL.items():
            for name in usual:
                if name in record and _key_for(record[name]) in (key, None):
                    return Content(key, (name,))
    names = ", ".join(list(record)[:_SHOWN]) or "no field at all"
    raise SaeflowError(
        f"{where}: has no field '{absent[0]}' but {names}; {_advice(content.key, record)}"
    )


def columns_of(corpus: Corpus, samples: Mapping[str, Any], where: str) -> list[str]:
    """The columns of a table that its documents are read from; raises as `content_of` does."""
    content = content_of(corpus, samples, where)
    names = [field if field in samples else field.split(".")[0] for field in content.fields]
    return [*names, MASK] if content.key == "token_ids" and MASK in samples else names


def document_of(content: Content, record: Any, where: str) -> Document:
    """The document of one record, empty where its fields are.

    Raises:
        SaeflowError: a field is absent or holds something else.
    """
    if not isinstance(record, Mapping):
        kind = "null" if record is None else f"a {type(record).__name__}"
        key = _key_for(record)
        name = USUAL[key][0] if key in USUAL else "text"
        raise SaeflowError(
            f'{where}: is {kind}, no record with fields; write it as {{"{name}": …}}, or remove it'
        )
    values = [_value(record, field, where) for field in content.fields]
    match content.key:
        case "messages":
            return _messages(values[0], content.fields[0], where)
        case "token_ids":
            return _token_ids(values[0], record.get(MASK), content.fields[0], where)
    parts = [
        _text(value, field, where)
        for value, field in zip(values, content.fields, strict=True)
        if value is not None
    ]
    return _joined(parts)


def characters(document: Document) -> int:
    """How long a document is, in characters; four stand for a token."""
    if isinstance(document, str):
        return len(document)
    return sum(4 if isinstance(part, int) else len(str(part["content"])) for part in document)


def _joined(parts: list[str]) -> str:
    """Several texts as one, a line's end between them where neither brings a space."""
    text = ""
    for part in parts:
        gap = text and part and not (text[-1].isspace() or part[0].isspace())
        text += "\n" + part if gap else part
    return text


def _has(record: Mapping[str, Any], field: str) -> bool:
    value: Any = record
    if field in record:
        return True
    for name in field.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    return True


def _value(record: Mapping[str, Any], field: str, where: str) -> Any:
    if field in record:
        return record[field]
    value: Any = record
    for name in field.split("."):
        if value is None:
            return None
        if not isinstance(value, Mapping) or name not in value:
            raise SaeflowError(
                f"{where}: has no field '{field}', unlike the first record; remove the record, or "
                "give the field, which may be empty"
            )
        value = value[name]
    return value


def _key_for(value: Any) -> str | None:
    """The key of the section ``corpus`` that a field with such a value is named in, if there is
    one."""
    if isinstance(value, str):
        return "field"
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return "messages" if {"role", "from"} & set(value[0]) else None
    if isinstance(value, list) and value and type(value[0]) is int:
        return "token_ids"
    return None


def _holds_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _advice(key: str, record: Mapping[str, Any]) -> str:
    """Which key to set to what, so that something is read."""
    if {"prompt", "completion"} <= set(record) and key == "field":
        return "set corpus.field, for example to [prompt, completion]"
    named = {name: _key_for(value) for name, value in record.items()}
    within = [name for name, value in record.items() if _holds_records(value)]
    if within and not any(named.values()):
        return f"'{within[0]}' holds records itself: write them as a list, or one in each line"
    fitting = [name for name, wanted in named.items() if wanted == key]
    if not fitting and (others := [name for name, wanted in named.items() if wanted]):
        return f"set corpus.{named[others[0]]}, for example to {others[0]}"
    longest = max(fitting, key=lambda name: len(record[name]), default=None)
    return f"set corpus.{key}" + (f", for example to {longest}" if longest else "")


def _text(value: Any, field: str, where: str) -> str:
    """A field's value, if it is text that UTF-8 can hold."""
    if not isinstance(value, str):
        key, kind = _key_for(value), type(value).__name__
        other = f"name it in corpus.{key} instead" if key else "set corpus.field to one that has"
        raise SaeflowError(f"{where}: has no text but a {kind} in the field '{field}'; {other}")
    return _whole(value, field, where)


def _whole(value: str, field: str, where: str) -> str:
    """A text without half characters."""
    if not value.isascii() and (half := _HALF_A_CHARACTER.search(value)):
        raise SaeflowError(
            f"{where}: holds half of a character (\\u{ord(half[0]):04x}, a lone surrogate) in the "
            f"field '{field}'; correct or remove the record"
        )
    return value


def _messages(value: Any, field: str, where: str) -> list[Message]:
    if isinstance(value, str) and value.strip():
        try:
            value = json_of(value, where)
        except ValueError:
            raise SaeflowError(
                f"{where}: has text, not messages, in the field '{field}'; name it in corpus.field "
                "instead"
            ) from None
    if not value:
        return []
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise SaeflowError(
            f"{where}: has no list of messages in the field '{field}'; set corpus.messages to one "
            "that has"
        )
    return [_message(each, field, where) for each in value]


def _message(raw: Mapping[str, Any], field: str, where: str) -> Message:
    """A message under the names that templates know: ``from`` and ``value`` are ShareGPT's."""
    role = raw.get("role") or raw.get("from")
    if not isinstance(role, str):
        raise SaeflowError(
            f"{where}: a message in the field '{field}' names no role; give it role and content, "
            "or from and value"
        )
    _whole(json.dumps(raw, ensure_ascii=False, default=str), field, where)
    content = raw.get("content") if raw.get("content") is not None else raw.get("value")
    if isinstance(content, list):  # parts, of which a model of text reads the texts
        if not all(map(_is_text_part, content)):
            raise SaeflowError(
                f"{where}: a message in the field '{field}' holds something else than text; leave "
                "it out"
            )
        content = "".join(part["text"] or "" for part in content)
    rest = {
        name: each
        for name, each in raw.items()
        if name not in ("role", "from", "content", "value") and each is not None
    }
    if content is not None and not isinstance(content, str):
        raise SaeflowError(
            f"{where}: a message in the field '{field}' has no text but a {type(content).__name__} "
            'for content; give it text, or parts such as {"type": "text", "text": "…"}'
        )
    return {"role": ROLES.get(role, role), "content": content or "", **rest}


def _is_text_part(part: Any) -> bool:
    """Whether a part of a message is text; in tables those that are not have null for it."""
    if not isinstance(part, Mapping) or "text" not in part:
        return False
    text, kind = part["text"], part.get("type")
    return isinstance(text, str) or (text is None and str(kind or "text").endswith("text"))


def _token_ids(value: Any, mask: Any, field: str, where: str) -> list[int]:
    """The ids of a text, without those that a mask says are padding."""
    if not value and not isinstance(value, str):
        return []
    flat = isinstance(value, list) and not any(isinstance(each, list) for each in value)
    ids = np.asarray(value if flat else None)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        key = _key_for(value)
        other = f"name it in corpus.{key} instead"
        if key in ("token_ids", None):
            other = "set corpus.token_ids to one that is, of whole numbers alone"
        raise SaeflowError(f"{where}: the field '{field}' is no list of token ids; {other}")
    if (ids < 0).any():
        raise SaeflowError(
            f"{where}: holds the token id {ids.min()} in the field '{field}', as labels do; set "
            "corpus.token_ids to the tokens themselves"
        )
    if isinstance(mask, list):
        if len(mask) != len(ids):
            raise SaeflowError(
                f"{where}: has {len(ids)} token ids in the field '{field}' and {len(mask)} values "
                f"in {MASK}; correct or remove the record"
            )
        ids = ids[np.asarray(mask, dtype=bool)]
    return [int(token) for token in ids]
