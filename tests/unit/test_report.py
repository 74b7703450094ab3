"""The report tells what was measured, is whole without a network, and shows model text as text."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import figure_tables as made
import jinja2
import polars as pl
import pytest
import report_study

from saeflow.errors import SaeflowError
from saeflow.figures.registry import FIGURES
from saeflow.report import results
from saeflow.report.io import write_report
from saeflow.report.page import SECTIONS, script_json
from saeflow.report.side_effects import goal_effects, method_effects
from saeflow.report.texts import first_samples

DRAWN = ("methods_forest", "effect_scales")


class Page(HTMLParser):
    """The parts of a page that the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.alternatives: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self._script: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.elements.append((tag, named))
        self.links += [
            value for name, value in attrs if name in ("src", "href", "srcset", "action", "poster") and value
        ]
        if tag == "img":
            self.alternatives.append(named.get("alt") or "")
        self._script = named.get("id") if tag == "script" else None

    def handle_data(self, data: str) -> None:
        if self._script:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._script = None


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studies") / "tales"
    report_study.write_study(root, goals=2, figures=DRAWN)
    return root


@pytest.fixture(scope="module")
def written(study: Path) -> Path:
    files = report_study.files(study)
    return write_report(study, files, study.parent / "report")


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page(written.read_text())


def test_every_reference_is_a_file_of_the_folder(page: Page, written: Path) -> None:
    assert len(page.links) > 10
    for link in page.links:
        if not link.startswith(("#", "data:,")):
            assert "//" not in link
            assert (written.parent / link).is_file(), link
    ids = {named["id"] for _, named in page.elements if "id" in named}
    assert {link[1:] for link in page.links if link.startswith("#")} <= ids


def test_the_stylesheet_and_script_load_nothing(written: Path) -> None:
    for asset in (written.parent / "assets").iterdir():
        content = asset.read_text()
        assert not any(
            word in content for word in ("http:", "https:", "url(", "@import", "fetch(", "XMLHttpRequest", "innerHTML")
        )


def test_every_figure_has_an_alternative_text_and_its_table(page: Page, written: Path) -> None:
    assert len(page.alternatives) == len(DRAWN)
    assert all(len(text) > 40 for text in page.alternatives)
    assert page.alternatives[0].startswith("Dot charts")
    for name in DRAWN:
        assert f"figures/{name}.csv" in page.links


def test_model_text_is_shown_as_text_and_never_as_markup(page: Page) -> None:
    assert not any(tag == "img" and "evil" in (named.get("src") or "") for tag, named in page.elements)
    assert [tag for tag, _ in page.elements].count("script") == 2
    texts = json.loads(page.scripts["text-data"])
    shown = [text["text"] for text in texts["goals"][0]["methods"][0]["scales"][0]["texts"]]
    assert shown[1] == report_study.HOSTILE


def test_hostile_characters_never_end_a_script_block() -> None:
    raw = script_json({"text": "</script><!--<script> \u2028 & ]]>"})
    assert not set("<>&\u2028") & set(raw)
    assert json.loads(raw)["text"] == "</script><!--<script> \u2028 & ]]>"


def test_tables_have_headers_with_scope_and_sections_have_names(page: Page) -> None:
    headers = [named for tag, named in page.elements if tag == "th"]
    assert len(headers) > 20
    assert all(named.get("scope") in ("row", "col") for named in headers)
    ids = {named["id"] for _, named in page.elements if "id" in named}
    sections = [named for tag, named in page.elements if tag == "section"]
    assert all(named["aria-labelledby"] in ids for named in sections)
    assert [tag for tag, _ in page.elements].count("h1") == 1


def test_the_page_says_what_was_run(written: Path) -> None:
    text = written.read_text()
    for told in (
        " has the highest average product on held-out completions, 0.",
        "Entropy of the corpus",
        "1.840",
        "0.064",
        "blocks.1.hook_resid_post",
        "471,648",
    ):
        assert told in text
    assert "rows of the decoder of SAE main" in text
    assert "384" in text


def test_the_same_study_gives_the_same_bytes(study: Path, written: Path, tmp_path: Path) -> None:
    again = write_report(study, reversed(report_study.files(study)), tmp_path / "again")
    assert again.read_bytes() == written.read_bytes()


def test_what_a_study_does_not_have_is_left_out(study: Path, tmp_path: Path) -> None:
    few = ("config.yaml", "steering/summary.parquet", "steering/best.parquet")
    text = write_report(study, [study / name for name in few], tmp_path).read_text()
    assert " has the highest average product on held-out completions, 0." in text
    assert "was not measured" in text
    for absent in ("<img", "text-data", "Planted features", "Side effects"):
        assert absent not in text
    without = [path for path in report_study.files(study) if path.name != "recovery.parquet"]
    text = write_report(study, without, tmp_path).read_text()
    assert "Planted features" not in text
    assert "Explained variance" in text


def test_a_missing_table_or_broken_picture_is_told_in_one_sentence(study: Path, tmp_path: Path) -> None:
    with pytest.raises(SaeflowError, match=r"best.parquet is not among the files"):
        write_report(study, [study / "config.yaml", study / "steering/summary.parquet"], tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    (copy / "figures/effect_scales.svg").write_text("<svg")
    with pytest.raises(SaeflowError, match="cannot be read as SVG"):
        write_report(copy, report_study.files(copy), tmp_path / "report")


def scored(**products: float) -> pl.DataFrame:
    rows = [
        {"goal": goal, "method": method, "product": value, "product_low": value - 0.04, "product_high": value + 0.04,
         "unsteered_product": 0.03, "scale": 2.0, "in_sample_product": value + 0.02, "in_sample_scale": 3.0}
        for goal in ("anger", "love", "average") for method, value in products.items()
    ]  # fmt: skip
    return pl.DataFrame(rows)


def compared(
    *rows: tuple[str, str, float, float, float], goals: tuple[str, ...] = ("anger", "love", "average")
) -> pl.DataFrame:
    schema = ["method", "other", "difference", "difference_low", "difference_high"]
    table = pl.DataFrame(list(rows), schema=schema, orient="row")
    return pl.concat([table.with_columns(goal=pl.lit(goal)) for goal in goals])


def test_the_best_is_marked_only_where_its_differences_exclude_zero() -> None:
    best = scored(caa=0.62, sae_ts=0.55, random=0.05)
    sure = compared(
        ("caa", "sae_ts", 0.07, 0.01, 0.13), ("caa", "random", 0.57, 0.5, 0.6), ("sae_ts", "random", 0.5, 0.4, 0.6)
    )
    assert results.marks(best, sure, "anger") == {"caa": "best"}
    unsure = compared(
        ("sae_ts", "caa", -0.07, -0.15, 0.01), ("random", "caa", -0.57, -0.6, -0.5), ("sae_ts", "random", 0.5, 0.4, 0.6)
    )
    assert results.marks(best, unsure, "anger") == {"caa": "tie", "sae_ts": "tie"}
    assert results.marks(best, pl.DataFrame(), "anger") == dict.fromkeys(("caa", "sae_ts", "random"), "tie")
    assert results.marks(scored(caa=0.5), pl.DataFrame(), "anger") == {}


def test_a_difference_is_turned_round_with_its_interval() -> None:
    found = results.difference(compared(("sae", "caa", -0.2, -0.3, -0.1)), "love", "caa", "sae")
    assert found == (0.2, 0.1, 0.3)
    assert found.sure


def test_the_headline_says_who_wins_who_loses_and_how_sure_that_is() -> None:
    best = scored(caa=0.62, sae_ts=0.55)
    ahead = " ".join(results.headline(best, compared(("caa", "sae_ts", 0.07, 0.01, 0.13))))
    assert ahead.startswith("caa has the highest average product on held-out completions, 0.62 [0.58, 0.66].")
    assert "ahead of sae_ts, the next, by 0.07 [0.01, 0.13]" in ahead
    assert "The lowest is sae_ts with 0.55 [0.51, 0.59]." in ahead
    assert "in 2 (caa in 2)" in ahead
    level = " ".join(results.headline(best, compared(("caa", "sae_ts", 0.07, -0.01, 0.15))))
    assert "It cannot be told apart from sae_ts" in level
    assert "In none of the 2 goals" in level


def test_a_method_without_scores_has_a_dash_and_no_rank() -> None:
    best = scored(caa=0.62, sae_ts=0.55, rotation=0.1).with_columns(
        product=pl.when((pl.col("method") == "rotation") & (pl.col("goal") != "love")).then(None).otherwise("product")
    )
    rows = results.result_rows(best, pl.DataFrame())
    assert rows[0].goal == "average of 2 goals"
    assert rows[0].cells[2].value == "–"
    assert "rotation cannot be ranked" in " ".join(results.headline(best, pl.DataFrame()))
    assert results.headline(pl.DataFrame(), pl.DataFrame()) == []


def test_one_goal_needs_no_average() -> None:
    best = scored(caa=0.62, sae_ts=0.55).filter(pl.col("goal") != "love")
    assert [row.goal for row in results.result_rows(best, pl.DataFrame())] == ["anger"]
    assert "product for the goal anger" in results.headline(best, pl.DataFrame())[0]


def test_samples_are_the_first_of_every_prompt_before_the_second_of_any() -> None:
    rows = [
        {"goal": "g", "method": "m", "scale_index": 0, "prompt": prompt, "sample": sample}
        for prompt in ("one", "two") for sample in range(4)
    ]  # fmt: skip
    chosen = first_samples(pl.DataFrame(rows))
    assert chosen.select("prompt", "sample").rows() == [("one", 0), ("two", 0), ("one", 1)]


def test_side_effects_tell_targets_from_all_other_latents() -> None:
    table = pl.DataFrame(
        {
            "goal": ["g"] * 4,
            "method": ["caa"] * 4,
            "latent": range(4),
            "predicted": [2.0, 0.0, 0.1, 0.0],
            "measured": [1.5, -0.5, 0.25, 0.0],
        }
    )
    (row,) = method_effects(table, {"g": {0: 1.0}})
    assert (row.target, row.predicted, row.others) == (1.5, 2.0, 0.75)
    found = goal_effects(table, {"g": {2: 1.0}})["g"]
    assert [(effect.latent, effect.target) for effect in found] == [(2, True), (0, False), (1, False), (3, False)]
    assert method_effects(table, {}) == []


def test_every_figure_has_its_place_on_the_page() -> None:
    placed = [name for names in SECTIONS.values() for name in names]
    assert sorted(placed) == sorted(FIGURES)


def test_captions_of_the_workflow_are_those_of_the_figures() -> None:
    template = jinja2.Template((Path(__file__).parents[2] / "workflow/report/figure.rst").read_text())
    for name, kind in FIGURES.items():
        told = template.render(snakemake=SimpleNamespace(wildcards=SimpleNamespace(figure=name)))
        assert told.strip() == f"**{kind.title}.** {kind.caption}"


def test_a_study_of_sixteen_goals_is_told_whole() -> None:
    best = made.best(made.summary(16))
    rows = results.result_rows(best, made.comparisons(best))
    assert len(rows) == 17
    assert {len(row.cells) for row in rows} == {6}
