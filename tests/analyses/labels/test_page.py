"""Labels stand on a page of their own and wherever a latent is shown, and cannot break it."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import report_study
from pages import assert_whole, pages_of

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
    """The report of a study whose latent 5 has two labels, one of them hostile."""
    root = tmp_path_factory.mktemp("labels") / "tales"
    report_study.write_study(root, figures=[], latents=16)
    report_study.ask_only_for(root, "examples", "logit_lens", labels={"saes": ["main"]})
    rows = [
        (5, "tokens", 'predicts "sea"', "logit lens"),
        (5, "import", report_study.HOSTILE, report_study.HOSTILE_TITLE),
        (9, "tokens", 'predicts "ship"', "logit lens"),
    ]
    table = label_table("main", [pl.DataFrame(rows, schema=LABELS, orient="row")])
    write_table(root / "labels/main/labels.parquet", table, TABLE)
    write_table(root / "labels/main/summary.parquet", scored(), SUMMARY)
    return report_study.write_report(root, root.parent / "report").parent


def test_the_page_lists_every_label_and_says_which_are_doubtful(written: Path) -> None:
    text = (written / "labels.html").read_text()
    assert "predicts &#34;sea&#34;" in text
    assert text.count("(doubtful)") == 3
    assert 'href="latents.html#/main/5"' in text
    assert "0.75" in text
    assert "the study&#39;s own model" in text
    assert "60%" in text
    assert_whole(pages_of(written), written)


def test_a_hostile_label_stays_text_on_every_page(written: Path) -> None:
    text = (written / "labels.html").read_text()
    assert "<script>alert(1)" not in text
    assert "<b onmouseover" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "</script><script>alert" not in (written / "data/latents-main.js").read_text("ascii")


def test_pages_of_latents_know_the_labels_of_all_sources(written: Path) -> None:
    labels = value_of((written / "data/latents-main.js").read_text("ascii"))["labels"]
    assert [row[:2] for row in labels] == [[5, "tokens"], [5, "import"], [9, "tokens"]]
    assert labels[1][2] == report_study.HOSTILE
    assert all(doubtful for *_, doubtful in labels)
