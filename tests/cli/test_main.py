"""What the command line says of mistakes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from saeflow.cli.main import main


def test_every_line_of_several_complaints_says_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("study: tales\nseed: many\nnothing: 1\n")
    monkeypatch.setattr(sys, "argv", ["saeflow", "plan", str(config)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 2
    assert [line for line in lines if not line.startswith(f"saeflow: {config}: ")] == []
