"""The page of dreams shows prompts with what each token does, and says what was not beaten."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import report_study
from pages import assert_whole, pages_of

from saeflow.analyses.dreaming.dreams import SCHEMAS
from saeflow.analyses.dreaming.page import beaten
from saeflow.tables import write_table

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The folder of a study that was reported, with the tables of two targets."""
    root = tmp_path / "tales"
    report_study.write_study(root, figures=[], latents=0)
    report_study.ask_only_for(root, dreaming={"targets": {"logits": {"next": {"token": "x"}}}})
    prompt = {
        "token_ids": [4, 9], "tokens": [" a", HOSTILE], "text": f" a{HOSTILE}",
        "along": [-1.0, 3.0], "cross_entropy": 4.0,
    }  # fmt: skip
    front = prompt | {
        "method": "epo", "place": 0, "value": 3.0, "lent": [0.5, 2.5], "text_value": 1.25,
        "text_cross_entropy": 5.0, "reads_back": False,
    }  # fmt: skip
    row = {
        "method": "epo", "spent": 1234, "scale": 1.0, "best": 3.0, "best_cross_entropy": 4.0,
    }  # fmt: skip
    beside = {
        "context_activation": 2.0, "context_value": 1.0, "context_cross_entropy": 3.5,
        "matched": None, "beats_activation": True, "beats_matched": False, "distinct": 0.75,
    }  # fmt: skip
    of_main = {
        "targets": [row | beside | {"target": "12", "kind": "latent", "latents": [12]}],
        "fronts": [
            front | {"target": "12"},
            front | {"target": "12", "place": 1, "token_ids": [9, 4]},
        ],
        "contexts": [
            prompt
            | {"target": "12", "token_ids": [9, 4], "rank": 0, "activation": 2.0, "value": 1.0}
        ],
    }
    of_none = {
        "targets": [row | {"target": HOSTILE, "kind": "logits", "latents": []}],
        "fronts": [front | {"target": HOSTILE, "reads_back": True}],
    }
    for folder, tables in (("main", of_main), ("without-sae", of_none)):
        for name, schema in SCHEMAS.items():
            table = pl.DataFrame(tables.get(name, []), schema=schema)
            write_table(root / f"dreaming/{folder}/{name}.parquet", table)
    return root


def test_the_page_tells_dreams_and_hides_nothing(study: Path, tmp_path: Path) -> None:
    output = report_study.write_report(study, tmp_path / "report").parent
    assert_whole(pages_of(output), output)
    page = (output / "dreaming.html").read_text()
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert 'class="on depth-9"' in page
    assert "lends 2.500 to the value" in page
    assert page.count("its text is read as other tokens, and is worth 1.250") == 1
    assert page.count("the data's own text") + page.count("the data&#39;s own text") == 1
    assert "reaches 1.000 at 3.500 nats; no less likely, dreams reach nothing." in page
    assert "1,234 passes" in page
    assert "2.000 where it stands" in page


def test_it_is_counted_how_often_the_data_is_beaten() -> None:
    rows = [
        {"method": "epo", "beats_activation": yes, "beats_matched": not yes}
        for yes in (True, True, False)
    ]
    rows.append({"method": "epo", "beats_activation": None, "beats_matched": None})
    assert beaten(rows)[0].startswith(
        "By EPO 2 of 3 latents were moved more than by any stored context, and 1 of 3"
    )
    assert beaten(rows[3:]) == []
    several = [{"method": "epo", "beats_activation": None, "beats_matched": True}]
    assert beaten(several) == [
        "By EPO 1 of 1 targets were moved more than by the data's best text of the same length "
        "that is no likelier."
    ]
