"""Addresses of endpoints: what may stand in a config, which is recorded, reported and published."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

QUERY = ("api-version",)
"""What may be asked for behind the ``?``: Azure wants its version; keys must not stand there."""


def fault_of_address(address: str, key: str) -> str | None:
    """What is wrong with the base address of an endpoint, and what to write; None if nothing is.

    Args:
        address: such as ``http://localhost:8000/v1``. No part of it that may be secret is repeated.
        key: the variable that holds what an endpoint wants to know of its caller.
    """
    secret = f"it is recorded and shown; take it out, and set the variable {key} to"
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018 - raises where the port is no number
    except ValueError:
        return "is no address; write one such as http://localhost:8000/v1"
    if "@" in parts.netloc:
        return f"holds a name or password; {secret} 'Basic NAME:PASSWORD'"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return (
            "must open with http:// or https:// and a host; write one such as "
            "http://localhost:8000/v1"
        )
    if any(not character.isprintable() or character.isspace() for character in address):
        return "holds a blank or a line break; write one such as http://localhost:8000/v1"
    if parts.fragment or any(
        name not in QUERY for name, _ in parse_qsl(parts.query, keep_blank_values=True)
    ):
        return f"holds more than {', '.join(QUERY)} behind its path; {secret} the key"
    if parts.path.rstrip("/").endswith("/chat/completions"):
        return "ends in /chat/completions, which every call adds; leave that out"
    return None
