"""A folder with what examples name, in which tests work."""

from __future__ import annotations

from pathlib import Path

import pytest
from notebook_files import write_files


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("notebook")
    write_files(root)
    return root


@pytest.fixture
def here(files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(files)
    return files
