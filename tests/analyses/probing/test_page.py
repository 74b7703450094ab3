"""The pages of probing hold what the tables say, and escape what texts hold."""

from __future__ import annotations

from pathlib import Path

import probing_tables
import yaml
from pages import assert_whole, pages_of
from studies import study_config

from saeflow.analyses.reading import read_study
from saeflow.report.folder import StudyFolder
from saeflow.report.io import write_report
from saeflow.tables import write_table


def written(root: Path, tables: bool) -> Path:
    """The report of a study that asks for probing alone."""
    values = study_config("minimal")
    probing = {**values["probing"], "sets": [*probing_tables.NAMES, probing_tables.SKIPPED]}
    kept = {key: values[key] for key in ("study", "corpus", "model", "hook", "saes")}
    root.mkdir(parents=True)
    (root / "config.yaml").write_text(yaml.safe_dump({**kept, "probing": probing}))
    for path, table in probing_tables.tables().items() if tables else ():
        write_table(root / path, table)
    return write_report(StudyFolder(root, read_study), root / "report").parent


def test_every_set_has_a_page_and_a_skipped_one_its_reason(tmp_path: Path) -> None:
    folder = written(tmp_path / "study", tables=True)
    pages = pages_of(folder)
    assert_whole(pages, folder)
    assert {"probing.html", "probing-sst2.html", "probing-cola.html"} <= set(pages)
    assert "probing-flat.html" not in pages
    text = (folder / "probing.html").read_text()
    assert "Skipped: it has one class only (&#39;yes&#39;, 20 rows)." in text
    assert "Over 3 sets the best probe on latents" in text
    assert "data-sortable" in text
    assert "0.610 ± 0.020" in text
    assert "frozen decoder" in text
    beside = (folder / "saes.html").read_text()
    assert "Sparse probing, 1 latent" in beside
    assert "Full absorption" in beside
    own = (folder / "probing-sst2.html").read_text()
    assert "&lt;b&gt;" in own
    assert "<b>" not in own.split("basis-title")[1].split("</footer>")[0].replace(
        "<b>small</b>", ""
    )
    assert "far" in own


def test_a_study_whose_probes_have_not_run_has_its_page(tmp_path: Path) -> None:
    folder = written(tmp_path / "study", tables=False)
    assert "No set has been probed." in (folder / "probing.html").read_text()
    assert not list(folder.glob("probing-*.html"))
