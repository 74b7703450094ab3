"""The report's pages as text: templates filled with what is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from saeflow.counting import counted
from saeflow.figures.style import words
from saeflow.palette import Look
from saeflow.report.dark import lighter
from saeflow.report.latent_labels import LatentLabels
from saeflow.report.page import Findings
from saeflow.report.wording import interval, number


class Site:
    """Fills templates; every page has the same frame.

    Args:
        results: the study.
        pages: those that the bar of every page links to: label by name.
        templates: packages whose templates are used beside those of all studies.
        titles: names as people read them, such as of goals.
        looks: series with a look of their own.
        latents: SAEs whose latents have pages.
        labels: of latents in words.
    """

    def __init__(
        self,
        results: Findings,
        pages: Mapping[str, str],
        templates: Sequence[str] = (),
        titles: Mapping[str, str] | None = None,
        looks: Mapping[str, Look] | None = None,
        latents: Sequence[str] = (),
        labels: LatentLabels | None = None,
    ) -> None:
        named = titles or {}
        loaders = [jinja2.PackageLoader(name) for name in (*templates, "saeflow.report")]
        self._environment = jinja2.Environment(
            loader=jinja2.ChoiceLoader(loaders),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "words": words,
            "number": number,
            "interval": interval,
            "counted": counted,
        }
        self._shared: dict[str, Any] = {
            "study": results.study,
            "figures": results.placed,
            "title_of": lambda name: named.get(name) or words(name),
            "latents_saes": list(latents),
            "label_of": (labels or LatentLabels()).of,
            "pages": list(pages.items()),
            "known_methods": list(looks or {}),
        }

    def page(self, template: str, context: Mapping[str, Any]) -> bytes:
        """A page in UTF-8; a lone surrogate, which UTF-8 cannot hold, becomes a reference that
        browsers show as �."""
        text = self._environment.get_template(template).render(self._shared | dict(context))
        return text.encode("utf-8", "xmlcharrefreplace")


def palette(looks: Mapping[str, Look]) -> str:
    """A stylesheet with the colours and shapes of series, the same as in the figures; lighter on
    dark ground."""
    lines = ["/* Colours and shapes of methods, from the figures. */"]
    for name, look in looks.items():
        colours = f"--method: {look.colour}; --method-dark: {lighter(look.colour)}"
        lines.append(f".method-{name} {{ {colours}; --shape: {look.marker.lower()}; }}")
    return "\n".join(lines) + "\n"
