"""The pages of directions say in sentences what edits do, and show no answers."""

from __future__ import annotations

from pathlib import Path

import direction_tables
import report_study
import yaml
from pages import assert_whole, pages_of
from studies import study_config

from saeflow.tables import write_table

SECTION = {
    "prompts": {
        "path": "workflow/organisms/cooking-prompts.csv",
        "with_it": "cooking",
        "without_it": "other",
        "speaker": "nobody",
    },
    "behaviour": {"phrases": ["Sorry"]},
    "sources": {"contrast": {"refusal": {}, "topic": {}}},
}


def written(root: Path) -> Path:
    """A study whose tables are plausible, and no more of it than that."""
    values = study_config("minimal")
    core = {key: values[key] for key in ("study", "corpus", "model", "hook", "saes")}
    core["model"] = core["model"] | {"name": "base"}
    tuned = {"name": "taught", "tune": {"path": "workflow/organisms/refuses-cooking.yaml"}}
    root.mkdir()
    study = core | {"models": [tuned], "directions": SECTION}
    (root / "config.yaml").write_text(yaml.safe_dump(study))
    for pattern, table in direction_tables.tables().items():
        keys = ["model"] + ["direction"] * ("{direction}/" in pattern)
        for key, own in table.group_by(keys, maintain_order=True):
            names = dict(zip(("directed_model", "direction"), map(str, key), strict=False))
            path = root / pattern.format(**names)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_table(path, own.drop(keys))
    return root


def test_each_direction_has_a_page_that_tells_what_edits_do_beside_random_directions(
    tmp_path: Path,
) -> None:
    output = report_study.write_report(written(tmp_path / "small"), tmp_path / "report").parent
    pages = pages_of(output)
    assert {"directions.html", "direction-refusal.html", "direction-topic.html"} <= set(pages)
    assert_whole(pages, output)
    text = " ".join((output / "direction-refusal.html").read_text().replace("&#39;", "'").split())
    assert (
        "Ablated, the share of answers to 'cooking' that show the behaviour goes from 0.95 "
        "[0.90, 1.00] to 0.05 [0.00, 0.10]; with random directions ablated it is 0.95" in text
    )
    assert "1 gaps of it added, the share of answers to 'other' goes from 0.00" in text
    assert "no candidate meets it" in text  # in the model that was not taught
    assert "Answers are not shown" in text


def test_a_study_that_has_measured_nothing_yet_has_its_pages(tmp_path: Path) -> None:
    root = written(tmp_path / "small")
    for table in (root / "directions").rglob("*.parquet"):
        table.unlink()
    output = report_study.write_report(root, tmp_path / "report").parent
    assert "direction-refusal.html" in pages_of(output)
