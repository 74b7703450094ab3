"""Reading a study of a language model."""

from __future__ import annotations

from pathlib import Path

from saeflow.analyses import Study
from saeflow.config.complaints import shown
from saeflow.config.reading import checked, merged_files
from saeflow.errors import SaeflowError


def read_study(*paths: Path) -> Study:
    """Read a study of a language model from YAML files, later ones over earlier ones.

    Raises:
        SaeflowError: a file cannot be read, or a key is unknown, missing or wrong; all complaints,
            a line each; or the study is of another kind.
    """
    values, source = merged_files(*paths), ", ".join(map(str, paths))
    kind = values.get("kind", "language")
    if isinstance(kind, str) and kind != "language":
        raise SaeflowError(
            f"{source}: kind: must be 'language', as this command reads studies of language models "
            f"alone; got {shown(kind)}"
        )
    return checked(Study, values, source)
