"""Every figure of every kind of study keeps to what a figure is."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import jinja2
import polars as pl
import pytest
from checkout import ROOT
from drawing import FIGURES, SMALL, drawn, tables_of, texts
from studies import TINY, changed, study_config

from saeflow import kinds
from saeflow.figures.figure import declared, figures_of
from saeflow.figures.io import write_figure

IN_BRACES = re.compile(r"\{[^}]*\}+")
RULE_OUTPUT = re.compile(r"results/\{+study\}+/([^\"]+)")


def outputs_of_rules() -> set[str]:
    """Every path that a rule makes, with a star for what stands in braces."""
    made, directive = set(), ""
    for file in sorted((ROOT / "rules").glob("*.smk")):
        for line in file.read_text("utf-8").splitlines():
            if named := re.fullmatch(r"\s*(\w+):.*", line):
                directive = named[1]
            if directive == "output" and (path := RULE_OUTPUT.search(line)):
                made.add(IN_BRACES.sub("*", path[1]))
    return made


@pytest.mark.parametrize("name", FIGURES)
def test_every_table_of_a_figure_is_made_by_a_rule(name: str) -> None:
    made = outputs_of_rules()
    assert {"saes/summary.parquet", "saes/*/metrics.json"} <= made
    for table in FIGURES[name].tables:
        path = IN_BRACES.sub("any", table)
        places = (path, path.rpartition("/")[0])  # itself, or a folder that is made whole
        assert any(fnmatch(place, output) for place in places for output in made), path


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_told_in_words(name: str) -> None:
    figure = FIGURES[name]
    assert 8 < len(figure.title) < 70
    assert figure.caption.endswith(".")
    assert "  " not in figure.caption
    assert len(drawn(name).alt) > 40


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_its_place_on_a_page_of_the_report(name: str) -> None:
    place = f'figures("{FIGURES[name].section}")'
    pages = sorted((ROOT / "src/saeflow").rglob("templates/*.html"))
    assert any(place in page.read_text("utf-8") for page in pages)


def test_no_two_figures_of_a_kind_of_study_have_one_name() -> None:
    for kind in kinds.KINDS.values():
        names = [figure.name for figure in declared(kind.study, kind.study.analyses)]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_the_same_bytes_twice_and_leaves_its_table(
    name: str, tmp_path: Path
) -> None:
    figure = FIGURES[name]
    first, second = (
        write_figure(figure, tables_of(figure), SMALL, tmp_path / folder) for folder in "ab"
    )
    assert [path.name for path in first] == [f"{name}.png", f"{name}.svg", f"{name}.csv"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert not list(tmp_path.rglob("*.part"))
    assert b"matplotlib" not in first[0].read_bytes().lower()
    assert b"mathdefault" not in first[1].read_bytes(), "a label of an axis is a formula"
    rows, kept = drawn(name).rows, pl.read_csv(first[2])
    assert (kept.columns, len(kept)) == (rows.columns, len(rows))


@pytest.mark.parametrize("name", FIGURES)
def test_absent_and_empty_tables_give_a_figure_that_says_so(name: str) -> None:
    made = tables_of(FIGURES[name])
    for empty in ([pl.DataFrame()] * len(made), [table.clear() for table in made]):
        drawing, alt, _ = drawn(name, *empty)
        assert "no data" in texts(drawing)
        assert alt.startswith("No data")


@pytest.mark.parametrize("name", FIGURES)
def test_missing_values_are_skipped(name: str) -> None:
    first, *others = tables_of(FIGURES[name])
    never_missing = {"low", "high"}  # the ends of a histogram
    numbers = [
        column
        for column, kind in first.schema.items()
        if kind == pl.Float64 and column not in never_missing
    ]
    holes = first.with_row_index("at").with_columns(
        pl.when(pl.col("at") % 5 == 1).then(None).otherwise(pl.col(column)).alias(column)
        for column in numbers
    )
    drawing, alt, _ = drawn(name, holes.drop("at"), *others)
    drawing.canvas.draw()
    assert "nan" not in alt.lower()


def test_the_report_of_snakemake_says_what_figures_declare() -> None:
    study = kinds.check_any_study(TINY)
    flow = kinds.workflow_of(study, ROOT, str)
    template = jinja2.Template((ROOT / "workflow/report/figure.rst").read_text("utf-8"))
    assert set(flow.figures) == set(figures_of(study))
    for name, figure in flow.figures.items():
        caption = flow.caption(SimpleNamespace(figure=name), input=[])
        job = SimpleNamespace(params=SimpleNamespace(caption=caption))
        assert template.render(snakemake=job) == f"**{figure.title}.** {figure.caption}"


def test_a_figure_of_a_model_waits_for_the_folder_that_holds_its_table() -> None:
    flow = kinds.workflow_of(kinds.check_any_study(TINY), ROOT, str)
    folder = f"results/{TINY['study']}/models/{TINY['model']['name']}"
    assert flow.tables("model_training") == [folder, f"{folder}.metrics.json"]


def test_a_study_has_the_figures_of_what_it_asks_for() -> None:
    whole = kinds.check_any_study(changed(TINY, {"examples": {}, "logit_lens": {}}))
    core = kinds.check_any_study(
        changed(TINY, {"steering": None, "effects": None, "logit_lens": None, "examples": None})
    )
    assert list(figures_of(core)) == ["sae_training", "sae_recovery", "model_training"]
    assert set(figures_of(core)) < set(figures_of(whole))
    assert {"pareto", "side_effects", "effect_scales", "lens_moments"} <= set(figures_of(whole))
    alone = kinds.check_any_study(changed(TINY, {"steering": None}))
    assert not {"pareto", "side_effects"} & set(figures_of(alone))


def test_a_figure_of_what_a_study_has_none_of_is_not_drawn() -> None:
    study = kinds.check_any_study(TINY)
    assert "crosscoder_sources" not in figures_of(study)
    assert "lens_layers" not in figures_of(study)  # it has one SAE
    assert "sae_training" in figures_of(kinds.check_any_study(study_config("reported-chess")))
