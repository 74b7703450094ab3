"""The report's pages as text: templates filled with what was found."""

from __future__ import annotations

from typing import Any

import jinja2

from saeflow.analyses.steering.methods import METHODS
from saeflow.figures.style import words
from saeflow.report import results
from saeflow.report.dark import lighter
from saeflow.report.page import Findings

STUDY_PAGES = {"index": "Study", "goals": "Goals", "latents": "Latents", "saes": "SAEs"}
"""What the bar of every page links to, by the pages' names."""


class Site:
    """Fills templates; every page has the same frame.

    Args:
        found: the study.
        latents: SAEs whose latents have pages.
        pages: those that the bar links to; that of latents only where some have pages.
        templates: a package whose templates are used beside those of all studies.
    """

    def __init__(
        self,
        found: Findings,
        latents: list[str],
        pages: dict[str, str] = STUDY_PAGES,
        templates: str | None = None,
    ) -> None:
        packages = [name for name in (templates, "saeflow.report") if name]
        self._environment = jinja2.Environment(
            loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in packages]),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {"words": words, "number": results.number}
        self._shared: dict[str, Any] = {
            "study": found.study,
            "figures": found.placed,
            "title_of": found.title,
            "latents_saes": latents,
            "pages": [
                (name, label) for name, label in pages.items() if name != "latents" or latents
            ],
            "known_methods": [method.name for method in METHODS],
        }

    def page(self, template: str, context: dict[str, Any]) -> bytes:
        """A page in UTF-8; a lone surrogate, which UTF-8 cannot hold, becomes a reference that
        browsers show as �."""
        text = self._environment.get_template(template).render(self._shared | context)
        return text.encode("utf-8", "xmlcharrefreplace")


def palette() -> str:
    """A stylesheet with the methods' colours, the same as in the figures; lighter on dark
    ground."""
    lines = ["/* Colours of methods, from the figures. */"]
    for method in METHODS:
        colour = method.look.colour
        looks = f"--method: {colour}; --method-dark: {lighter(colour)}"
        lines.append(f".method-{method.name} {{ {looks}; --shape: {method.look.marker.lower()}; }}")
    return "\n".join(lines) + "\n"
