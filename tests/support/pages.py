"""Pages of a report as the tests ask about them."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """The parts of a page that the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.alternatives: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.elements.append((tag, named))
        self.links += [
            value
            for name, value in attrs
            if name in ("src", "href", "srcset", "action", "poster") and value
        ]
        if tag == "img":
            self.alternatives.append(named.get("alt") or "")


def pages_of(folder: Path) -> dict[str, Page]:
    """Every page of a report, by its file's name."""
    return {path.name: Page(path.read_text()) for path in folder.glob("*.html")}


def assert_whole(pages: dict[str, Page], folder: Path) -> None:
    """Assert that every reference leads to a file of the folder or a place of its page, and that
    names are unique."""
    for name, page in pages.items():
        ids = [named["id"] for _, named in page.elements if "id" in named]
        assert len(ids) == len(set(ids)), name
        for link in page.links:
            file, _, anchor = link.partition("#")
            if link.startswith("data:"):
                continue
            assert "//" not in link, (name, link)
            assert not file or (folder / file).is_file(), (name, link)
            assert file or anchor in ids, (name, link)


def assert_same_files(first: Path, other: Path) -> None:
    """Assert that two folders hold the same files, to the byte."""
    files, others = (
        {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        for folder in (first, other)
    )
    assert files.keys() == others.keys()
    assert [name for name in files if files[name] != others[name]] == []
