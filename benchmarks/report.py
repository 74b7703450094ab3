"""Seconds, memory and bytes of writing a report about many latents, and how quick its list of latents is in Chromium.

Makes tables of a study that never was (those of the tests), writes its report, opens the list and searches it. Beside
it: the same browser on a page that holds one word, and the tables as they lie on disk.

    python benchmarks/report.py [--latents 65536] [--contexts 28] [--d-model 768] [--rounds 5]

With ``--contexts 0`` a latent's page holds its numbers and tokens only; the list is the same.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests/support"))

import latent_tables  # noqa: E402
import report_study  # noqa: E402
from playwright.sync_api import Page, sync_playwright  # noqa: E402

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
QUERIES = ("b", "ba", "bar", "kurtosis>20", "class:partition skewness<0", "zzzz", "")
SEARCH = """async (asked) => {
  const [query, count] = [document.getElementById("query"), document.getElementById("found")];
  const before = performance.now();
  const told = new Promise((resolve) => new MutationObserver(resolve).observe(count, { childList: true }));
  query.value = asked;
  query.dispatchEvent(new Event("input", { bubbles: true }));
  await told;
  await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  return performance.now() - before;
}"""


def size(*paths: Path) -> float:
    """Megabytes of files and of folders with all that is in them."""
    files = [
        file
        for path in paths
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.is_file()
    ]
    return sum(file.stat().st_size for file in files) / 1e6


def opening(page: Page, address: str, sign: str) -> float:
    """Seconds from asking for a page until what it is for is on it."""
    page.goto("about:blank")
    started = time.perf_counter()
    page.goto(address)
    page.wait_for_selector(sign)
    return time.perf_counter() - started


def spread(values: list[float]) -> str:
    """Smallest, median, largest."""
    ranked = sorted(values)
    return f"{ranked[0]:.3f} / {ranked[len(ranked) // 2]:.3f} / {ranked[-1]:.3f} s"


def browse(report: Path, rounds: int) -> None:
    bare = report.parent / "bare.html"
    bare.write_text("<!DOCTYPE html><title>bare</title><h1>bare</h1>")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        print(f"Chromium {browser.version}; smallest / median / largest of {rounds}")
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        print(
            "bare page   ", spread([opening(page, f"file://{bare}", "h1") for _ in range(rounds)])
        )
        address = f"file://{report}/latents.html"
        print(
            "first view  ",
            spread([opening(page, address, ".grid .rows .row") for _ in range(rounds)]),
        )
        taken = [page.evaluate(SEARCH, query) / 1000 for _ in range(rounds) for query in QUERIES]
        print("search      ", spread(taken))
        opening(page, address, ".grid .rows .row")
        page.evaluate("location.hash = '#/main/1'")
        page.wait_for_selector("article h1")
        print(
            "latent pages",
            spread(
                [opening(page, f"{address}#/main/{64 * i}", "article h1") for i in range(rounds)]
            ),
        )
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("latents", 65_536), ("contexts", 28), ("d-model", 768), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "tales")
        report_study.write_study(root, goals=2, figures=[], latents=0)
        vocabulary = latent_tables.words(50_000)
        latent_tables.write_latents(
            root, "main", options.latents, vocabulary, options.contexts, options.d_model
        )
        before, held = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        report = report_study.write_report(root, root.parent / "report").parent
        taken, most = (
            time.process_time() - before,
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        )
        print(
            f"{options.latents:,} latents, {options.contexts} contexts each, d_model {options.d_model}"
        )
        print(
            f"write: {taken:.1f} CPU s; memory {most / 1e6:.2f} GB, {held / 1e6:.2f} GB before it was written"
        )
        print(f"tables {size(root):.1f} MB, report {size(report):.1f} MB")
        index = size(report / "latents.html", report / "data/latents-main.js", report / "assets")
        print(f"what the list loads: {index:.2f} MB")
        browse(report, options.rounds)


if __name__ == "__main__":
    main()
