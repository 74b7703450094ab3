"""The report in a real browser: every page opens from a disk and from a server, alone, and can be used by everybody."""

from __future__ import annotations

import functools
import http.server
import io
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import latent_tables
import numpy as np
import polars as pl
import pytest
import report_study
import yaml
from browsing import (
    NEEDS_CHROMIUM,
    PHONE,
    WIDE,
    Opened,
    browser,
    opened,
    playwright,
    serious_findings,
    shown,
    too_wide,
    until,
)
from checkout import ROOT
from PIL import Image

from saeflow.analyses.steering.methods import BY_NAME
from saeflow.corpora import tales

__all__ = ["browser", "shown"]
pytestmark = [pytest.mark.browser, NEEDS_CHROMIUM]

ARTIFACTS = ROOT / "tests" / "artifacts"
PAGES = ["index.html", "steering.html", "effects.html", "goals.html", "goal-anger.html", "goal-christian_evangelist.html", "saes.html", "latents.html",
         "latents.html#/main/1", "latents.html#/main/49"]  # fmt: skip
KINDS_OF_PAGES = [
    name
    for name in PAGES
    if name not in ("goal-christian_evangelist.html", "latents.html#/main/49")
]
MANY = 65_536
PAPER = {"width": 718, "height": 1047}  # A4 less margins of a centimetre, in pixels
# What the report promises on two idle cores; a machine that does other work as well may take three times as long.
FIRST_VIEW, SEARCH, SLACK = 1.0, 0.2, 3
MOST_INDEX = 3_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("browser") / "tales"
    figures = ["methods_forest", "sae_training"]
    report_study.write_study(root, goals=2, figures=figures)
    return report_study.write_report(root, root.parent / "report", root.parent / "goals").parent


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

    running = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()


@pytest.mark.parametrize("where", ["disk", "server"])
def test_every_page_opens_without_complaint_and_asks_for_nothing_elsewhere(
    shown: Opened, folder: Path, server: str, where: str
) -> None:
    base = f"file://{folder}" if where == "disk" else server
    for name in PAGES:
        shown.go(f"{base}/{name}")
        assert shown.page.locator("h1:visible").count() == 1, name
        assert shown.page.locator("[role=alert]").count() == 0, name
    for details in shown.page.locator("details").all():
        details.evaluate("node => node.open = true")
    assert shown.complaints == []
    assert len(shown.requests) > 40
    outside = [
        url for url in shown.requests if not url.startswith((base, "data:", "about:", "blob:"))
    ]
    assert outside == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_page(
    browser: playwright.Browser, folder: Path, theme: str
) -> None:
    assert serious_findings(browser, folder, KINDS_OF_PAGES, theme) == []


@pytest.mark.parametrize(("mode", "options"), [
    ("light", {}), ("dark", {"color_scheme": "dark"}), ("phone", {"viewport": PHONE}),
])  # fmt: skip
def test_every_page_fits_its_window_and_is_kept_as_a_picture(
    browser: playwright.Browser, folder: Path, mode: str, options: dict[str, object]
) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    page_opened = opened(browser, **options)
    for name in PAGES:
        page_opened.go(f"file://{folder}/{name}")
        assert too_wide(page_opened.page) <= 0, name
        file = name.replace(".html", "").replace("#/", "-").replace("/", "-")
        page_opened.page.screenshot(path=ARTIFACTS / f"{file}-{mode}.png", full_page=True)
    page_opened.page.context.close()


@pytest.mark.parametrize("key", ["examples", "effects", "steering", None])
def test_the_pages_of_a_study_with_one_analysis_or_none_open_and_fit_a_phone(
    browser: playwright.Browser, folder: Path, tmp_path: Path, key: str | None
) -> None:
    root = tmp_path / "tales"
    shutil.copytree(folder.parent / "tales", root)
    changed = {}
    if key == "steering":
        changed = {"steering": yaml.safe_load((root / "config.yaml").read_text())["steering"]}
        changed["steering"]["vectors"]["methods"] = ["caa", "sae", "random"]
    report_study.ask_only_for(root, *([key] if key else []), **changed)
    output = report_study.write_report(root, tmp_path / "report").parent
    phone = opened(browser, viewport=PHONE)
    for page in sorted(output.glob("*.html")):
        phone.go(f"file://{page}")
        assert too_wide(phone.page) <= 0, page.name
        assert phone.page.locator("h1:visible").count() == 1, page.name
        assert phone.page.locator("[role=alert]").count() == 0, page.name
    if key == "examples":
        phone.go(f"file://{output}/latents.html#/main/1")
        assert phone.page.locator("article .passages li").count() == 6
    assert phone.complaints == []
    phone.page.context.close()


@pytest.mark.parametrize("name", ["steering.html", "saes.html", "goal-anger.html", "index.html"])
def test_a_link_to_a_place_of_a_page_lands_there(shown: Opened, folder: Path, name: str) -> None:
    shown.go(f"file://{folder}/{name}")
    places = "nodes => nodes.map(node => node.id)"
    named = shown.page.locator("main section[id], main figure[id]").evaluate_all(places)
    assert named
    for place in named:
        shown.go(f"file://{folder}/{name}#{place}")
        shown.page.wait_for_timeout(200)
        top, room = shown.page.evaluate(
            """place => {
              const end = document.documentElement.scrollHeight - innerHeight - scrollY;
              return [document.getElementById(place).getBoundingClientRect().top, end];
            }""",
            place,
        )
        assert 0 <= top < 150 or room < 2, (place, top)


@pytest.mark.parametrize("name", ["steering.html", "saes.html"])
def test_a_printed_page_has_its_figures_dark_on_white(
    browser: playwright.Browser, folder: Path, name: str
) -> None:
    page_opened = opened(browser, color_scheme="dark")
    page_opened.go(f"file://{folder}/{name}")
    page_opened.page.emulate_media(media="print")
    pictures = page_opened.page.locator(".sheet img").evaluate_all(
        """nodes => nodes.filter((node) => node.checkVisibility()).map((node) =>
          [node.className, node.complete && node.naturalWidth > 0, node.getBoundingClientRect().height])"""
    )
    assert len(pictures) == page_opened.page.locator("figure.picture").count() > 0
    assert all(kind == "on-light" and there and height > 50 for kind, there, height in pictures)
    colours = page_opened.page.evaluate(
        "() => ['color', 'backgroundColor'].map((name) => getComputedStyle(document.body)[name])"
    )
    assert colours == ["rgb(27, 28, 26)", "rgb(255, 255, 255)"]
    page_opened.page.context.close()


def test_a_printed_chart_keeps_its_key_and_nothing_to_press(
    browser: playwright.Browser, folder: Path
) -> None:
    page_opened = opened(browser)
    page_opened.go(f"file://{folder}/goal-anger.html")
    page_opened.page.wait_for_selector("#effect-chart svg")
    methods = page_opened.page.locator("#curve-controls .legend label").all_inner_texts()
    assert len(methods) > 2
    page_opened.page.locator("#curve-controls .legend input").first.uncheck()
    page_opened.page.emulate_media(media="print")

    def printed(controls: str) -> list[str]:
        shown = page_opened.page.locator(f"#{controls} label, #{controls} input").filter(
            visible=True
        )
        return [text.strip() for text in shown.all_inner_texts()]

    drawn = [name.strip() for name in methods]
    assert printed("curve-controls") == ["product", *drawn[1:]]
    assert printed("effect-controls") == [name for name in drawn if not BY_NAME[name].in_words]
    assert not printed("text-controls")
    page_opened.page.context.close()


def test_a_printed_list_of_latents_has_every_column_on_the_paper(
    browser: playwright.Browser, folder: Path
) -> None:
    found = opened(browser, viewport=PAPER)
    found.go(f"file://{folder}/latents.html")
    shown = found.page.locator(".grid .rows .row").count()
    found.page.emulate_media(media="print")
    found.page.wait_for_timeout(300)
    right, cut, rows = found.page.evaluate(
        """() => {
          const cells = [...document.querySelectorAll(".grid [role=columnheader], .grid [role=gridcell]")];
          return [
            Math.max(...cells.map((cell) => cell.getBoundingClientRect().right)),
            cells.filter((cell) => cell.scrollWidth > cell.clientWidth + 1).map((cell) => cell.textContent),
            new Set(cells.map((cell) => Math.round(cell.getBoundingClientRect().top))).size,
          ];
        }"""
    )
    assert right <= PAPER["width"]
    assert cut == []
    assert rows == shown + 1 > 10  # each in a line of its own, below the headings
    found.page.context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    ("name", "place", "sticky"),  # whether what stands at the left stays there
    [
        ("goal-anger.html", "#curves > .scroll", False),
        ("latents.html", ".grid", True),
        ("steering.html", "#figure-methods_forest .sheet", False),
    ],
)
def test_what_goes_on_behind_an_edge_has_a_shade_there(
    browser: playwright.Browser, folder: Path, name: str, place: str, sticky: bool, theme: str
) -> None:
    found = opened(browser, viewport=PHONE, color_scheme=theme)
    found.go(f"file://{folder}/{name}")
    box = found.page.locator(place).first
    box.scroll_into_view_if_needed()
    box.evaluate(
        """async (node) => {
          const images = [...node.querySelectorAll("img")];
          images.forEach((image) => (image.loading = "eager"));
          await Promise.all(images.map((image) => image.decode().catch(() => null)));
        }"""
    )

    def edges(left: int) -> list[bool]:
        """Whether there is a shade at the left and at the right: somewhere at the edge the
        background is another than inside."""
        box.evaluate("(node, left) => node.scrollTo(left, 0)", left)
        found.page.wait_for_timeout(100)
        pixels = np.asarray(Image.open(io.BytesIO(box.screenshot())).convert("L"), int)
        ground = np.bincount(pixels.ravel()).argmax()
        sides = (pixels[:, 2:5], pixels[:, -5:-2])
        shaded = (np.abs(side - ground).min(axis=1) > 8 for side in sides)
        return [bool(rows.mean() > 0.2) for rows in shaded]

    assert edges(0) == [False, True]
    assert edges(100_000) == [not sticky, False]
    found.page.context.close()


def test_no_script_runs_but_the_report_s_own(shown: Opened, folder: Path, server: str) -> None:
    for base in (f"file://{folder}", server):
        shown.go(f"{base}/index.html")
        ran = shown.page.evaluate(
            """() => {
              const script = document.createElement("script");
              script.textContent = "window.ran = true";
              document.body.append(script);
              const image = document.createElement("div");
              image.innerHTML = "<img src=x onerror='window.ran = true'>";
              document.body.append(image);
              return new Promise((resolve) => setTimeout(() => resolve(window.ran ?? false), 200));
            }"""
        )
        assert ran is False


def test_hostile_text_is_shown_letter_by_letter(shown: Opened, folder: Path) -> None:
    shown.go(f"file://{folder}/goal-anger.html#scale=2")
    texts = shown.page.locator("#cards blockquote p").all_text_contents()
    assert report_study.HOSTILE in texts
    assert shown.page.locator("#cards script, #cards img, #cards b").count() == 0
    shown.go(f"file://{folder}/goal-christian_evangelist.html")
    assert shown.page.locator("h1").inner_text() == report_study.HOSTILE_TITLE
    shown.go(f'file://{folder}/latents.html#/main?q="</script>"')
    cells = shown.page.locator(".grid .rows .row").first.inner_text()
    assert "</script><script>alert('token')</script>" in cells
    assert shown.complaints == []


def rows(page: playwright.Page) -> list[int]:
    return [int(text) for text in page.locator(".grid .rows .row a").all_text_contents()]


def test_search_finds_tokens_numbers_and_conditions(shown: Opened, folder: Path) -> None:
    shown.go(f"file://{folder}/latents.html")
    page = shown.page
    assert (
        page.locator("#found").inner_text()
        == f"{report_study.LATENTS} of {report_study.LATENTS} latents."
    )

    def searched(query: str) -> list[int]:
        page.fill("#query", query)
        asked = "(new URLSearchParams(location.hash.split('?')[1] ?? '').get('q') ?? '')"
        until(
            page,
            f"document.body.dataset.ready === (location.hash || '#') && {asked} === {json.dumps(query)}",
        )
        return rows(page)

    assert 17 in searched("17")
    assert searched("latent=17") == [17]
    assert searched("is:dead") == [49, 99]
    assert searched("is:target") == [5]
    assert searched("class:partition latent<9") == [1, 5]
    best = pl.read_parquet(folder.parent / "tales/logit_lens/main/enrichment.parquet").sort(
        pl.col("ks").abs()
    )
    best = (
        best.group_by("latent", maintain_order=True)
        .last()
        .filter(pl.col("latent") < 30, set="digits")
    )
    assert searched("set:digit latent<30") == sorted(best["latent"])
    assert len(best) > 2
    assert searched("kurtosis>1e9") == []
    assert "No latent meets this search." in page.locator("#found").inner_text()
    searched("colour>3")
    assert "Not known here: colour." in page.locator("#found").inner_text()


def test_a_search_takes_the_names_of_goals_and_the_headings_of_columns(
    shown: Opened, folder: Path
) -> None:
    page = shown.page

    def searched(query: str) -> list[int]:
        shown.go(f"file://{folder}/latents.html#/main?q={quote(query)}")
        assert "Not known here" not in page.locator("#found").inner_text(), query
        return rows(page)

    aimed = searched("goal:anger")
    assert aimed == [5]
    assert 5 in searched("anger")
    assert searched("evangelist is:target") == searched('"christian evangelist" is:target') == [5]
    assert searched("goal:nothing_of_the_kind") == []
    goals = page.locator(".grid [role=columnheader]", has_text="target of")
    assert goals.count() == 1
    searched("is:target")
    assert "anger, christian evangelist" in page.locator(".grid .rows .row").inner_text()
    headings = page.locator(".grid .numeric[role=columnheader]").all_text_contents()
    names = page.locator("#names code").all_text_contents()
    assert names == [heading.lower().replace(" ", "_") for heading in headings]
    assert len(names) == 9
    for name in names:
        assert len(searched(f"{name}>-1e9")) > 0, name
    kept = "nodes => nodes.map(node => node.title)"
    explained = page.locator(".grid .numeric[role=columnheader]").evaluate_all(kept)
    assert all(len(text) > 15 and "undefined" not in text for text in explained)
    assert searched("fires_on<1e-4") == searched("density<1e-4")


def test_every_link_between_pages_leads_to_a_place_that_is_there(
    shown: Opened, folder: Path
) -> None:
    page, wanted = shown.page, set()
    for name in PAGES:
        shown.go(f"file://{folder}/{name}")
        links = page.locator("a[href]").evaluate_all("nodes => nodes.map(node => node.href)")
        wanted |= {link for link in links if link.startswith("file:") and "#" in link}
    anchors = sorted(link for link in wanted if "#/" not in link)
    assert any("#text-caa" in link for link in anchors)
    assert any("#method-caa" in link for link in anchors)
    for link in anchors:
        shown.go(link)
        place = page.locator(f"[id='{link.partition('#')[2]}']")
        assert place.count() == 1, link
        until(page, f"document.getElementById({place.get_attribute('id')!r}).checkVisibility()")
    for link in sorted(wanted - set(anchors))[:20]:
        shown.go(link)
        assert page.locator("[role=alert]").count() == 0, link


def test_what_a_chart_tells_of_a_point_is_in_sight(
    browser: playwright.Browser, folder: Path
) -> None:
    for size in (WIDE, PHONE, {"width": 900, "height": 320}):
        page_opened = opened(browser, viewport=size)
        page_opened.go(f"file://{folder}/goal-anger.html")
        chart = page_opened.page.locator("#curve-chart svg")
        chart.scroll_into_view_if_needed()
        for dot in (chart.locator(".dot").first, chart.locator(".dot").last):
            dot.hover(force=True)
            hint = page_opened.page.locator("#curve-chart .told")
            assert "product" in hint.inner_text()
            box = hint.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= size["width"]
            assert 0 <= box["y"] <= size["height"] - box["height"], (size, box)
        page_opened.page.context.close()


def test_words_that_count_for_the_behaviour_are_marked_in_texts(
    browser: playwright.Browser, folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "tales"
    shutil.copytree(folder.parent / "tales", root)
    shutil.copytree(folder.parent / "goals", tmp_path / "goals")
    for file in root.glob("steering/anger/*/completions.parquet"):
        said = pl.lit("The furious guests, FURIOUSLY angry at the anger of infuriated furies.")
        pl.read_parquet(file).with_columns(text=said).write_parquet(file)
    goal = tmp_path / "goals/anger.yaml"
    values = yaml.safe_load(goal.read_text()) | {"words": ["furious*", "at the anger"]}
    goal.write_text(yaml.safe_dump(values))

    def marked(kind: str) -> list[str]:
        config = yaml.safe_load((root / "config.yaml").read_text())
        config["steering"]["judge"] |= {"kind": kind}
        (root / "config.yaml").write_text(yaml.safe_dump(config))
        output = report_study.write_report(root, tmp_path / "report", tmp_path / "goals").parent
        page_opened = opened(browser)
        page_opened.go(f"file://{output}/goal-anger.html")
        cards = page_opened.page.locator("#text-caa blockquote").first
        words = cards.locator("mark").all_text_contents()
        assert page_opened.complaints == []
        page_opened.page.context.close()
        return words

    assert marked("lexical") == ["furious", "FURIOUSLY", "at the anger"]
    planted = marked("planted")
    share = tales.behaviour(
        "The furious guests, FURIOUSLY angry at the anger of infuriated furies."
    )
    assert set(planted) <= {"furious", "FURIOUSLY", "angry", "anger"}
    assert (len(planted) > 0) == (share["anger"] > 0)


def test_the_list_is_sorted_by_any_statistic_in_both_directions(
    shown: Opened, folder: Path
) -> None:
    shown.go(f"file://{folder}/latents.html")
    page = shown.page
    names = page.locator("#sort option").evaluate_all("nodes => nodes.map(node => node.value)")
    assert len(names) == 10
    for name in names:
        for falling in ("", "&falling="):
            shown.go(f"file://{folder}/latents.html#/main?sort={name}{falling}")
            values = page.evaluate(
                """async ([name, falling]) => {
                  const index = await saeflow.indexOf("main");
                  const { places } = index.search("", name, falling);
                  const column = index.statistics.find((one) => one.name === name);
                  return [...places].map((i) => column ? column.values[i] : i);
                }""",
                [name, bool(falling)],
            )
            numbers = [value for value in values if value == value]
            assert numbers == sorted(numbers, reverse=bool(falling)), name
            assert all(value != value for value in values[len(numbers) :])
    page.click(".grid [role=columnheader] button:text-is('kurtosis')")
    until(page, "location.hash.includes('sort=kurtosis')")
    assert page.locator("[aria-sort]").inner_text().startswith("kurtosis")


def test_links_into_the_report_and_the_way_back_work(shown: Opened, folder: Path) -> None:
    page = shown.page
    shown.go(f"file://{folder}/latents.html#/main?q=class%3Apartition&sort=kurtosis&falling=")
    listed = rows(page)
    page.locator(".grid .rows .row").nth(2).click()
    page.wait_for_selector("article h1")
    assert page.locator("article h1").inner_text().startswith(f"Latent {listed[2]} ")
    assert page.title().startswith(f"Latent {listed[2]} ")
    page.click("article nav a[rel=next]")
    until(
        page,
        f"document.querySelector('article h1').textContent.startsWith('Latent {listed[2] + 1} ')",
    )
    page.go_back()
    page.go_back()
    page.wait_for_selector("#grid:visible")
    assert page.input_value("#query") == "class:partition"
    assert rows(page)[:10] == listed[:10]
    page.go_forward()
    until(
        page, f"document.querySelector('article h1').textContent.startsWith('Latent {listed[2]} ')"
    )
    shown.go(f"file://{folder}/latents.html#/main/9999")
    assert "none of number 9999" in page.locator("[role=alert]").inner_text()


def test_the_slider_shows_the_texts_of_its_scale_and_keeps_it_in_the_address(
    shown: Opened, folder: Path
) -> None:
    page = shown.page
    shown.go(f"file://{folder}/goal-anger.html")
    # Unsteered, six methods with vectors and one in words.
    assert page.locator("#cards .card").count() == 8
    assert all(
        "chosen" in text
        for text in page.locator("#cards .card .meta:nth-child(2)").all_text_contents()[1:]
    )
    page.locator("#scale").focus()
    before = page.input_value("#scale")
    page.keyboard.press("ArrowRight")
    index = int(before) + 1
    until(page, f"location.hash === '#scale={index}'")
    texts = page.locator("#cards .card").nth(1).inner_text()
    assert f"by caa at {(0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)[index]}" in texts
    assert "behaviour 0.50 · coherence 0.90" in texts
    page.keyboard.press("Home")
    until(page, "location.hash === '#scale=0'")
    assert page.locator("#cards .card").count() == 1
    page.go_back()
    until(page, f"document.getElementById('scale').value === '{index}'")
    page.check("input[name=which][value=chosen]")
    until(page, "location.hash === '#scale=chosen'")


def test_curves_change_with_the_measure_and_hide_a_method(shown: Opened, folder: Path) -> None:
    page = shown.page
    shown.go(f"file://{folder}/goal-anger.html")
    assert page.locator("#curve-chart .series").count() == 7
    assert "product along the scale" in page.locator("#curve-chart svg").get_attribute("aria-label")
    page.locator("input[name=measure][value=coherence]").check(force=True)
    assert "coherence along the scale" in page.locator("#curve-chart svg").get_attribute(
        "aria-label"
    )
    dots = "nodes => nodes.map(node => node.querySelector('.dot').getAttribute('class'))"
    shapes = page.locator("#curve-chart .series").evaluate_all(dots)
    looks = [BY_NAME[name].look.marker.lower() for name in (*report_study.METHODS, "few_shot")]
    assert shapes == [f"dot shape-{shape}" for shape in looks]
    assert len(set(shapes)) == len(shapes)
    page.locator("#curve-controls .legend input").first.uncheck()
    assert page.locator("#curve-chart .series").count() == 6
    link = page.locator("#side-effects table a").first
    assert link.get_attribute("href") == "latents.html#/main/5"
    page.wait_for_selector("#side-effects .word .token")


def test_the_report_can_be_used_with_the_keyboard_alone(shown: Opened, folder: Path) -> None:
    page = shown.page
    shown.go(f"file://{folder}/index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # brand, Study, Latents
    page.wait_for_url("**/latents.html*")
    until(page, "document.body.dataset.ready !== undefined")
    page.keyboard.press("/")
    page.keyboard.type("class:suppression")
    until(page, "location.hash.includes('suppression')")
    page.keyboard.press("Enter")  # to the list
    page.keyboard.press("ArrowDown")
    wanted = rows(page)[1]
    assert page.locator(".grid").get_attribute("aria-activedescendant") == "row-1"
    page.keyboard.press("Enter")
    page.wait_for_selector("article h1")
    assert page.evaluate("document.activeElement.tagName") == "H1"
    assert page.locator("article h1").inner_text().startswith(f"Latent {wanted} ")
    page.go_back()
    page.wait_for_selector("#grid:visible")
    until(page, "document.activeElement.getAttribute('role') === 'grid'")
    assert page.locator(".grid .row.active a").inner_text() == str(wanted)


def test_a_reader_s_colours_outlast_the_page_and_the_system_s_come_first(
    browser: playwright.Browser, folder: Path, server: str
) -> None:
    page_opened = opened(browser, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    page_opened.go(f"{server}/steering.html")
    assert page_opened.page.evaluate(ground) == "rgb(22, 23, 22)"
    page_opened.page.locator("img.on-dark").first.wait_for(state="visible")
    page_opened.page.click("#theme")
    assert page_opened.page.evaluate(ground) == "rgb(252, 252, 250)"
    page_opened.page.locator("img.on-light").first.wait_for(state="visible")
    page_opened.go(f"{server}/saes.html")
    assert page_opened.page.evaluate(ground) == "rgb(252, 252, 250)"
    page_opened.page.context.close()


def test_without_scripts_the_study_and_its_tables_can_still_be_read(
    browser: playwright.Browser, folder: Path
) -> None:
    page_opened = opened(browser, java_script_enabled=False)
    page_opened.page.goto(f"file://{folder}/goal-anger.html")
    # Along the scale, at the chosen scales, and what scores do not see there.
    assert page_opened.page.locator("#curves table").count() == 3
    page_opened.page.goto(f"file://{folder}/steering.html")
    assert page_opened.page.locator("#main-table").is_visible()
    page_opened.page.goto(f"file://{folder}/index.html")
    assert "highest average product" in page_opened.page.locator("main").inner_text()
    page_opened.page.goto(f"file://{folder}/latents.html")
    assert "allow scripts" in page_opened.page.locator("noscript").inner_text()
    page_opened.page.context.close()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose SAE has 65,536 latents."""
    root = tmp_path_factory.mktemp("many") / "tales"
    report_study.write_study(root, goals=2, figures=[], latents=0)
    latent_tables.write_latents(root, "main", MANY, latent_tables.words(50_000), contexts=0)
    return report_study.write_report(root, root.parent / "report").parent


def test_sixty_five_thousand_latents_stay_small_and_quick(
    browser: playwright.Browser, many: Path
) -> None:
    at_once = [many / "latents.html", many / "data/latents-main.js", *(many / "assets").iterdir()]
    size = sum(path.stat().st_size for path in at_once)
    assert size < MOST_INDEX
    assert len(list((many / "data/latents-main").iterdir())) == MANY // 64
    page_opened = opened(browser)
    views = []
    for _ in range(3):
        page_opened.page.goto("about:blank")
        started = time.monotonic()
        page_opened.page.goto(f"file://{many}/latents.html")
        page_opened.page.wait_for_selector(".grid .rows .row")
        views.append(time.monotonic() - started)
    first_view = min(views)  # what a page takes, and not what else the machine does
    slowest = max(page_opened.page.evaluate(
        """async () => {
          const taken = [];
          const [query, count] = [document.getElementById("query"), document.getElementById("found")];
          for (const asked of ["b", "ba", "bar", "kurtosis>20", "class:partition skewness<0", "zzzz", ""]) {
            const before = performance.now();
            const told = new Promise((resolve) => new MutationObserver(resolve).observe(count, { childList: true }));
            query.value = asked;
            query.dispatchEvent(new Event("input", { bubbles: true }));
            await told;
            await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
            taken.push(performance.now() - before);
          }
          return taken;
        }"""
    )) / 1000  # fmt: skip
    page_opened.go(f"file://{many}/latents.html#/main/65535")
    assert page_opened.page.locator("article h1").inner_text().startswith("Latent 65535")
    assert page_opened.complaints == []
    page_opened.page.context.close()
    print(
        f"index {size:,} bytes, first view {first_view:.2f} s, slowest search {1000 * slowest:.0f} ms"
    )
    assert first_view < SLACK * FIRST_VIEW
    assert slowest < SLACK * SEARCH
