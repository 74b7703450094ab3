"""The key that an endpoint wants to know, from the environment or from ``.env``."""

from __future__ import annotations

import os
from pathlib import Path

from saeflow.config.sections import Calls
from saeflow.errors import SaeflowError

NO_KEY = "none"  # what a server of one's own is sent


def key_of(calls: Calls, dotenv: Path = Path(".env")) -> str | None:
    """The key; None where there is none.

    Raises:
        SaeflowError: `.env` cannot be read.
    """
    from dotenv import dotenv_values

    try:
        written = dotenv_values(dotenv).get(calls.key) if dotenv.is_file() else None
    except (OSError, UnicodeDecodeError):
        raise SaeflowError(
            f"{dotenv}: cannot be read as text; correct it, or move it away"
        ) from None
    return (os.environ.get(calls.key) or written or "").strip() or None


def find_key(calls: Calls, dotenv: Path = Path(".env")) -> str:
    """The key; a server of one's own needs none.

    Raises:
        SaeflowError: there is no key and the endpoint is OpenAI's, or it cannot be sent.
    """
    key = key_of(calls, dotenv)
    if not key and not calls.base_url:
        absent = f"neither the environment nor .env has {calls.key}"
        raise SaeflowError(
            f"calls.key: {absent}; set it, or name another endpoint in calls.base_url"
        )
    if key and not (key.isascii() and key.isprintable()):
        wrong = f"the value of {calls.key} holds a line break or another character that no key has"
        raise SaeflowError(f"calls.key: {wrong}; set it again")
    return key or NO_KEY
