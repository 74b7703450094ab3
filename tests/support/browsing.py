"""A real browser for the tests of reports; what imports it is skipped where there is none."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'"
)
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
)
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
NEEDS_CHROMIUM = pytest.mark.skipif(
    not CHROMIUM, reason="there is no Chromium: apt-get install chromium"
)

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# Rows after the fourth are like it, and axe looks at every cell of them.
ALIKE_LEFT_OUT = {
    "exclude": [
        ["tbody tr:nth-child(n+5)"],
        [".grid .row:nth-child(n+5)"],
        [".passages li:nth-child(n+3)"],
    ]
}


def until(page: playwright.Page, condition: str, seconds: float = 20) -> None:
    """Wait until a condition holds; asked from outside, since pages let no script be made from
    text."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"never came true: {condition}"
        time.sleep(0.02)


class Opened(NamedTuple):
    """A page, and what it complained of or asked for."""

    page: playwright.Page
    complaints: list[str]
    requests: list[str]

    def go(self, address: str) -> None:
        """Open an address and wait until everything on the page is there."""
        self.page.goto("about:blank")
        self.page.goto(address)
        self.page.wait_for_load_state("load")
        if "latents.html" in address or "concepts-" in address:
            until(self.page, "document.body.dataset.ready !== undefined")
        elif "goal-" in address:
            self.page.wait_for_selector("#curve-chart svg")


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


def opened(browser: playwright.Browser, **options: object) -> Opened:
    context = browser.new_context(**{"viewport": WIDE, **options})
    page = context.new_page()
    page_opened = Opened(page, [], [])
    page.on(
        "console",
        lambda message: (
            page_opened.complaints.append(message.text) if message.type != "log" else None
        ),
    )
    page.on("pageerror", lambda error: page_opened.complaints.append(str(error)))
    page.on(
        "dialog",
        lambda dialog: (
            page_opened.complaints.append(f"dialog: {dialog.message}"),
            dialog.dismiss(),
        ),
    )
    page.on("request", lambda request: page_opened.requests.append(request.url))
    return page_opened


@pytest.fixture
def shown(browser: playwright.Browser) -> Iterator[Opened]:
    page_opened = opened(browser)
    yield page_opened
    page_opened.page.context.close()


def serious_findings(
    browser: playwright.Browser, folder: Path, pages: Sequence[str], theme: str
) -> list[tuple[str, str, str]]:
    """What axe finds serious on pages, every detail unfolded: the page, the rule and the
    element."""
    page_opened = opened(browser, color_scheme=theme)
    serious = []
    for name in pages:
        page_opened.go(f"file://{folder}/{name}")
        page_opened.page.evaluate(
            "document.querySelectorAll('details').forEach(node => node.open = true)"
        )
        page_opened.page.wait_for_timeout(100)
        serious += [(name, *complaint) for complaint in _complaints_of_axe(page_opened.page)]
    page_opened.page.context.close()
    return serious


def too_wide(page: playwright.Page) -> int:
    """How many pixels a page is wider than its window."""
    return page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def _complaints_of_axe(page: playwright.Page) -> list[tuple[str, str]]:
    """What axe finds serious on a page: the rule and the element."""
    rules = (
        axe.Axe()
        .run(page, context=ALIKE_LEFT_OUT, options={"resultTypes": ["violations"]})
        .response
    )
    assert {"color-contrast", "document-title"} <= {rule["id"] for rule in rules["passes"]}
    violations = [
        violation
        for violation in rules["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
    return [
        (violation["id"], node["html"][:160])
        for violation in violations
        for node in violation["nodes"]
    ]
