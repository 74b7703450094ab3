"""The report of a study of chess in a real browser: every page opens from a disk and can be used by
everybody."""

from __future__ import annotations

from pathlib import Path

import chess_report_study
import pytest
from browsing import (
    NEEDS_CHROMIUM,
    PHONE,
    Opened,
    browser,
    opened,
    playwright,
    serious_findings,
    shown,
    too_wide,
    until,
)

from saeflow.chess.report.io import write_report

__all__ = ["browser", "shown"]
pytestmark = [pytest.mark.browser, NEEDS_CHROMIUM]
PAGES = [
    "index.html",
    "concepts.html",
    "concepts-resid.html",
    "latents.html",
    "latents.html#/resid/9",
    "saes.html",
]
LISTED = ".grid .rows .row"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser") / "knights"
    figures = ["chess_accuracy", "chess_board_auc"]
    chess_report_study.write_chess_study(root, figures)
    return write_report(root, root.parent / "report", stages=chess_report_study.STAGES).parent


def concepts(page: playwright.Page) -> list[str]:
    """The concepts that are listed."""
    return page.locator(f"{LISTED} > :first-child").all_inner_texts()


def areas(page: playwright.Page) -> list[float]:
    """Their areas."""
    return [float(text) for text in page.locator(f"{LISTED} > :nth-child(3)").all_inner_texts()]


def surely(page: playwright.Page) -> list[float]:
    """Ends of the intervals of their areas, those that there are."""
    told = page.locator(f"{LISTED} > :nth-child(4)").all_inner_texts()
    ends = [text for text in told if text != "–"]
    assert told[: len(ends)] == ends  # what few games have has none, and comes last
    return [float(text) for text in ends]


def test_every_page_opens_without_complaint_and_asks_for_nothing_elsewhere(
    shown: Opened, folder: Path
) -> None:
    for name in PAGES:
        shown.go(f"file://{folder}/{name}")
        assert shown.page.locator("h1:visible").count() == 1, name
        for details in shown.page.locator("details").all():
            details.evaluate("node => node.open = true")
        shown.page.evaluate(
            "document.querySelectorAll('img').forEach(node => node.loading = 'eager')"
        )
        until(shown.page, "[...document.images].every(image => image.complete)")
        hidden = "getComputedStyle(image).display === 'none'"
        assert shown.page.evaluate(
            f"[...document.images].every(image => image.naturalWidth > 0 || {hidden})"
        ), name
        assert shown.page.locator("[role=alert]").count() == 0, name
    assert shown.complaints == []
    assert any("boards/resid/000.svg" in url for url in shown.requests)
    assert [
        url for url in shown.requests if not url.startswith((f"file://{folder}", "data:", "about:"))
    ] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_page(
    browser: playwright.Browser, folder: Path, theme: str
) -> None:
    assert serious_findings(browser, folder, PAGES, theme) == []


def test_every_page_fits_a_phone(browser: playwright.Browser, folder: Path) -> None:
    page_opened = opened(browser, viewport=PHONE)
    for name in PAGES:
        page_opened.go(f"file://{folder}/{name}")
        assert too_wide(page_opened.page) <= 0, name
    page_opened.page.context.close()


def test_concepts_are_sorted_and_searched_and_the_address_keeps_it(
    shown: Opened, folder: Path
) -> None:
    page = shown.page
    shown.go(f"file://{folder}/concepts-resid.html")
    assert len(surely(page)) > 5
    assert surely(page) == sorted(surely(page), reverse=True)
    page.click(".grid [role=columnheader] button:text-is('AUC')")
    until(page, "location.hash === '#?sort=auc&falling='")
    assert areas(page) == sorted(areas(page), reverse=True)
    assert concepts(page)[0] == "in check"
    page.click(".grid [role=columnheader] button:text-is('AUC')")
    until(page, "location.hash === '#?sort=auc'")
    assert areas(page)[0] == 0.55
    assert areas(page) == sorted(areas(page))
    for query, expected in (
        ("threat auc>0.9", "2 of 169"),
        ("family:piece b1", "1 of 169"),
        ("q<0.05", "168 of 169"),
        ("latent=53 family:offensive", "1 of 169"),
        ("queen", "No concept meets"),
        ("kurtosis>3", "Not known here: kurtosis"),
    ):
        page.fill("#query", query)
        until(page, f"document.getElementById('found').textContent.includes({expected!r})")
    page.fill("#query", "family:piece b1")
    until(page, "document.getElementById('found').textContent.includes('1 of')")
    assert concepts(page) == ["their rook on b1"]
    kept = page.url
    shown.go(kept)
    assert page.input_value("#query") == "family:piece b1"
    assert concepts(page) == ["their rook on b1"]


def test_the_keyboard_leads_from_a_concept_to_its_boards(shown: Opened, folder: Path) -> None:
    page = shown.page
    shown.go(f"file://{folder}/concepts-resid.html")
    page.keyboard.press("/")
    page.keyboard.type("f7")
    until(page, "location.hash.includes('f7')")
    page.keyboard.press("Enter")  # to the list, whose first concept has no boards
    assert concepts(page) == ["defensive threat f7", "offensive threat f7", "their rook on f7"]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "boards-offensive_threat_f7"


def test_a_latent_s_page_draws_its_positions_and_the_pieces_that_go_with_it(
    shown: Opened, folder: Path
) -> None:
    page = shown.page
    shown.go(f"file://{folder}/latents.html#/resid/9")
    assert page.locator("h1:visible").inner_text() == "Latent 9 their rook on b2"
    first = page.locator("svg.position").first
    assert first.locator("use").count() == 32  # nothing was taken yet
    assert "rooks a1 h1" in first.get_attribute("aria-label")
    assert "Move played: h5f7." in first.get_attribute("aria-label")
    queen = first.locator("use[href='#white-queen']").get_attribute("transform")
    assert queen == f"translate({16 + 7 * 45} {16 + 3 * 45})"  # h5
    box = page.evaluate(
        "(() => { const {width, height} = document.querySelector('svg.position use')"
        ".getBoundingClientRect(); return [width, height]; })()"
    )
    assert min(box) > 10  # the pieces are drawn
    assert (
        "activation 13 · h5f7 by a player of 1300-1399"
        in page.locator("figcaption").first.inner_text()
    )
    assert page.locator("svg.squares").count() == 2
    theirs = page.locator("svg.squares").nth(1)
    assert "their rook on b2 +0.60" in theirs.get_attribute("aria-label")
    assert theirs.locator(".hundredths").all_text_contents() == ["+60"]
    assert page.locator("svg.squares").first.locator(".hundredths").all_text_contents() == ["−25"]
    assert page.locator(".bar-mark").count() == 4  # of five bins one is empty
    assert "offensive threat b2" in page.locator("table", has_text="interval").inner_text()
    page.click("a[rel=next]")
    until(page, "document.body.dataset.ready === '#/resid/10'")
    shown.go(f"file://{folder}/latents.html#/resid/63")
    assert "never fires" in page.locator("#latent .headline").inner_text()
    assert shown.complaints == []


def test_the_list_of_concepts_leads_to_latents(shown: Opened, folder: Path) -> None:
    page = shown.page
    shown.go(f"file://{folder}/concepts-resid.html#?q=f7&sort=auc")
    page.locator(f"{LISTED} a[href*='latents.html']").first.click()
    page.wait_for_url("**/latents.html#/resid/53")
    page.wait_for_selector("h1:visible")
    assert page.locator("h1:visible").inner_text().startswith("Latent 53")
    page.click("#up")
    until(page, "document.body.dataset.ready === '#/resid'")
    page.fill("#query", "rook on b2")
    until(page, "document.getElementById('found').textContent.includes('1 of 64')")


def test_curves_along_the_ratings_change_with_the_group(shown: Opened, folder: Path) -> None:
    page = shown.page
    shown.go(f"file://{folder}/concepts-resid.html")
    assert page.locator("#skill-chart .series").count() == 4
    alt = page.locator("#skill-chart svg").get_attribute("aria-label")
    assert "defensive threat" in alt
    marks = page.locator("#skill-chart .tick[text-anchor=middle]").all_text_contents()
    assert marks[:2] == ["<1100", "1200"]  # bins 0 and 2 by the ratings that they begin with
    assert marks[-1] == ">=2000"
    assert "willingness from 0.2 to 0.6" in alt.replace("0.200", "0.2").replace("0.600", "0.6")
    page.locator("input[name=skill-group][value=offensive_threat]").check(force=True)
    assert "offensive threat" in page.locator("#skill-chart svg").get_attribute("aria-label")


def test_without_scripts_boards_and_tables_can_still_be_read(
    browser: playwright.Browser, folder: Path
) -> None:
    page_opened = opened(browser, java_script_enabled=False)
    page_opened.page.goto(f"file://{folder}/concepts-resid.html")
    assert page_opened.page.locator("svg.heat:visible").count() == 3
    # One for each of two groups of concepts, and the transition points under edits.
    assert page_opened.page.locator("#edits table").count() == 3
    assert "allow scripts" in page_opened.page.locator("noscript").first.inner_text()
    page_opened.page.context.close()
