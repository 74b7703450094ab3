"""Labels stand on a page of their own and wherever a latent is shown, and cannot break it."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest
import report_study
from checkout import ROOT
from pages import assert_whole, pages_of

from saeflow.analyses.labels.adapter import ADAPTER
from saeflow.analyses.labels.summary import SUMMARY, TABLE, label_table
from saeflow.analyses.labels.wording import LABELS
from saeflow.report.payload import value_of
from saeflow.tables import write_table


def scored() -> pl.DataFrame:
    means = {
        f"{name}{end}": value
        for name, value in (("value", 0.75), ("over_random", 0.25), ("over_tokens", None))
        for end in ("", "_low", "_high")
    }
    row = {"sae": "main", "source": "tokens", "score": "detection", "latents": 40, "random": 0.5}
    return pl.DataFrame([row | means | {"believed": 0.6, "missing": 0}], schema=SUMMARY)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study whose latent 5, which goals are aimed at, has two labels: one hostile,
    which is believed."""
    root = tmp_path_factory.mktemp("labels") / "tales"
    report_study.write_study(root, figures=[], latents=16)
    kept = ("examples", "logit_lens", "effects", "steering")
    report_study.ask_only_for(root, *kept, labels={"saes": ["main"]})
    rows = [
        (5, "tokens", 'predicts "sea"', "logit lens"),
        (5, "import", report_study.HOSTILE, report_study.HOSTILE_TITLE),
        (9, "tokens", 'predicts "ship"', "logit lens"),
    ]
    table = label_table("main", [pl.DataFrame(rows, schema=LABELS, orient="row")])
    believed = (pl.col("latent") == 5) & (pl.col("source") == "import")
    table = table.with_columns(doubtful=~believed)
    write_table(root / "labels/main/labels.parquet", table, TABLE)
    write_table(root / "labels/main/summary.parquet", scored(), SUMMARY)
    said = {"pairs": "latent", "way": "shuffled", "scale": 1.23, "n": 50}
    said |= {f"{name}{end}": 0.25 for name in ("loss", "right") for end in ("", "_low", "_high")}
    write_table(root / "labels/main/adapter.parquet", pl.DataFrame([said], ADAPTER), ADAPTER)
    return report_study.write_report(root, root.parent / "report", root.parent / "goals").parent


def test_the_page_lists_every_label_and_says_which_are_doubtful(written: Path) -> None:
    text = (written / "labels.html").read_text()
    assert "predicts &#34;sea&#34;" in text
    assert text.count("(doubtful)") == 2
    assert 'href="latents.html#/main/5"' in text
    assert "0.75" in text
    assert "the study&#39;s own model" in text
    assert "60%" in text
    assert "50 words of latents</td><td>scale and bias, another&#39;s direction" in text
    assert "<td>1.23</td><td>0.25 (0.25 to 0.25)</td><td>25% (25% to 25%)" in text
    assert_whole(pages_of(written), written)


def test_a_hostile_label_stays_text_on_every_page(written: Path) -> None:
    named = [written / f"{page}.html" for page in ("labels", "goals", "steering", "goal-anger")]
    for page in named:
        text = page.read_text()
        assert "<script>alert(1)" not in text, page
        assert "<b onmouseover" not in text, page
        assert "&lt;script&gt;alert(1)" in text, page
    assert "</script><script>alert" not in (written / "data/latents-main.js").read_text("ascii")


def test_pages_of_latents_know_the_labels_of_all_sources(written: Path) -> None:
    labels = value_of((written / "data/latents-main.js").read_text("ascii"))["labels"]
    assert [row[:2] for row in labels] == [[5, "tokens"], [5, "import"], [9, "tokens"]]
    assert labels[1][2] == report_study.HOSTILE
    assert [doubtful for *_, doubtful in labels] == [True, False, True]


def test_goals_name_their_latents_by_the_label_that_is_believed(written: Path) -> None:
    text = (written / "goals.html").read_text()
    link = '<a href="latents.html#/main/5">5</a> <span class="note" title="The &lt;/script&gt;'
    assert link in text
    assert "predicts" not in text
    goal = (written / "goal-anger.html").read_text()
    assert link in goal
    assert 'data-latent="5"' not in goal
    assert 'data-latent="' in goal  # those without a label are known by what they fire on


def test_templates_name_latents_in_one_way_that_knows_their_labels() -> None:
    written = re.compile(r"\{\{ *\w+\.latent *[|}]|latents\.html#/[^\"]+/")
    every = sorted((ROOT / "src/saeflow").rglob("templates/*.html"))
    templates = [file for file in every if "chess" not in file.parts]  # has no labels
    assert len(templates) > 15
    for template in templates:
        text = re.sub(r'data-latent="[^"]*"', "", template.read_text())
        allowed = 1 if template.name == "macros.html" else 0
        assert len(written.findall(text)) == allowed, template
