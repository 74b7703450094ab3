"""A page of the documentation for every notebook beside this file, with the outputs that it keeps.

MkDocs calls `on_files` and `on_page_markdown`; see ``hooks`` in ``mkdocs.yml``.
"""

import json
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

FOLDER = Path(__file__).parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those that are written by hand."""
    for notebook in sorted(FOLDER.glob("*.ipynb")):
        uri = f"{FOLDER.name}/{notebook.stem}.md"
        files.append(File.generated(config, uri, content=page(notebook)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links lead to a notebook's page; in a checkout they lead to the notebook."""
    return re.sub(rf"\(({FOLDER.name}/[\w-]+)\.ipynb\)", r"(\1.md)", markdown)


def page(notebook: Path) -> str:
    """A notebook as Markdown: its words, its code, and below each cell of code what it gave."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        shown = "".join(map(_text, cell["outputs"])).rstrip("\n")
        parts += [f"```text\n{shown}\n```"] if shown else []
    parts.append(f"[This page as a notebook]({notebook.name})")
    return "\n\n".join(parts) + "\n"


def _text(output: dict) -> str:
    return "".join(output["text"] if "text" in output else output["data"]["text/plain"])
