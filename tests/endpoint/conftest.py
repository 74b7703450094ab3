"""What every question to the judge on loopback needs."""

from __future__ import annotations

import pytest
from judge_server import KEY


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key that the server takes, where `judge` looks for one."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
