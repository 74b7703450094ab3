"""The report tells what was measured, is whole without a network, and shows model text as text."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import figure_tables as made
import numpy as np
import polars as pl
import pytest
import report_study
import yaml
from pages import Page, assert_same_files, assert_whole, pages_of

from saeflow.analyses.reading import read_study
from saeflow.analyses.steering.methods import BY_NAME
from saeflow.describe.study import jobs_of
from saeflow.errors import SaeflowError
from saeflow.report import io as report_io
from saeflow.report.dark import GROUND, LIGHT, dark
from saeflow.report.files import ASSETS
from saeflow.report.folder import StudyFolder
from saeflow.report.page import study_context
from saeflow.report.payload import script, value_of
from saeflow.report.site import Site

DRAWN = ["methods_forest", "effect_scales"]
TONES = (GROUND, LIGHT)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studies") / "tales"
    report_study.write_study(root, goals=2, figures=DRAWN)
    return root


def written_from(study: Path, output: Path) -> Path:
    return report_study.write_report(study, output, study.parent / "goals").parent


@pytest.fixture(scope="module")
def written(study: Path) -> Path:
    return written_from(study, study.parent / "report")


@pytest.fixture(scope="module")
def pages(written: Path) -> dict[str, Page]:
    return pages_of(written)


def data(written: Path, name: str) -> dict:
    return value_of((written / f"data/{name}.js").read_text("ascii"))


def test_a_sign_beside_a_number_is_explained_on_the_page_that_has_it(written: Path) -> None:
    pages = {path.name: path.read_text() for path in written.glob("*.html")}
    marked = [name for name, text in pages.items() if "≈ </span>" in text]
    assert "steering.html" in marked
    assert any(name.startswith("goal-") for name in marked)
    assert [name for name in marked if "<b>≈</b>: among the best" not in pages[name]] == []


def test_every_reference_is_a_file_of_the_folder(pages: dict[str, Page], written: Path) -> None:
    assert set(pages) == {
        "index.html",
        "steering.html",
        "effects.html",
        "goals.html",
        "saes.html",
        "latents.html",
        "goal-anger.html",
        *(f"goal-{name}.html" for name in made.GOALS[1:2]),
    }
    assert all(len(page.links) > 8 for page in pages.values())
    assert_whole(pages, written)


def test_stylesheets_and_scripts_load_nothing_and_parse_no_markup(written: Path) -> None:
    for asset in [*(written / "assets").iterdir()]:
        content = (
            asset.read_text()
            .replace("http://www.w3.org/2000/svg", "")
            .replace("https://www.neuronpedia.org/", "")
        )
        for word in (
            "http:",
            "https:",
            "url(",
            "@import",
            "fetch(",
            "XMLHttpRequest",
            "innerHTML",
            "insertAdjacent",
            "eval(",
        ):
            assert word not in content, (asset.name, word)
    own = {"goal.js", "latent-page.js", "latents.js"}
    assert {path.name for path in (written / "assets").iterdir()} == {*ASSETS, *own, "palette.css"}


def test_every_figure_has_an_alternative_text_and_its_table(
    pages: dict[str, Page], written: Path
) -> None:
    shown = {"methods_forest": pages["steering.html"], "effect_scales": pages["effects.html"]}
    assert all(len(page.alternatives) == 2 for page in shown.values())  # on light and dark ground
    assert all(len(text) > 40 for page in shown.values() for text in page.alternatives)
    assert shown["methods_forest"].alternatives[0].startswith("Dot charts")
    for name in DRAWN:
        assert f"figures/{name}.csv" in shown[name].links
        table = data(written, f"figure-{name}")
        rows = pl.read_csv(written / f"figures/{name}.csv")
        assert table["columns"] == rows.columns
        assert (table["count"], len(table["rows"])) == (len(rows), min(len(rows), 300))


def test_figures_on_dark_ground_keep_no_colour_of_light_ground(written: Path) -> None:
    recoloured = (written / "figures/methods_forest.dark.svg").read_text().lower()
    for colour in (
        "#ffffff",
        "#222222",
        "#e4e4e4",
        *(BY_NAME[name].look.colour.lower() for name in report_study.METHODS),
    ):
        assert colour in (written / "figures/methods_forest.svg").read_text().lower()
        assert colour not in recoloured
    assert dark('<svg a="b"><path/></svg>').startswith('<svg fill="#E6E6E1" a="b">')


def test_a_picture_inside_a_figure_is_turned_round_on_dark_ground_and_keeps_its_hues() -> None:
    light = '<svg a="b"><defs><style/></defs><g><image href="x"/></g></svg>'
    svg = ElementTree.fromstring(dark(light))
    matrix = np.array(svg.find(".//feColorMatrix").get("values").split(), float).reshape(4, 5)
    assert svg.find(".//image").get("filter") == f"url(#{svg.find('.//filter').get('id')})"

    def seen(red: float, green: float, blue: float) -> np.ndarray:
        return (matrix @ [red, green, blue, 1, 1])[:3].clip(0, 1)

    ground, ink = (np.array([int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)]) for c in TONES)
    assert seen(1, 1, 1) == pytest.approx([ground[0]] * 3, abs=0.01)  # white is the ground
    assert seen(0, 0, 0) == pytest.approx([ink[0]] * 3, abs=0.01)
    dark_red, dark_blue = seen(0.4, 0, 0.12), seen(0.02, 0.19, 0.38)
    assert dark_red.argmax() == 0
    assert dark_blue.argmax() == 2
    assert dark_red.mean() > 0.7
    assert dark_blue.mean() > 0.7


def test_every_figure_leaves_room_for_itself_and_is_there_for_print(
    pages: dict[str, Page], written: Path
) -> None:
    pictures = [
        named
        for page in pages.values()
        for tag, named in page.elements
        if tag == "img" and (named.get("src") or "").startswith("figures/")
    ]
    assert len(pictures) == 2 * len(DRAWN)
    for named in pictures:
        drawing = ElementTree.parse(written / str(named["src"])).getroot()
        width, height = (float(drawing.get(side)[:-2]) for side in ("width", "height"))
        assert float(named["width"]) / float(named["height"]) == pytest.approx(
            width / height, rel=0.01
        )
        assert ("loading" in named) == (named["class"] == "on-dark")


def test_model_text_is_data_and_never_markup(pages: dict[str, Page], written: Path) -> None:
    for page in pages.values():
        assert not any("evil" in (named.get("src") or "") for tag, named in page.elements)
        assert not any(name.startswith("on") for _, named in page.elements for name in named)
        assert all(named.get("src") for tag, named in page.elements if tag == "script")
    texts = data(written, "goal-anger")["texts"]["caa"]["0"]
    assert texts[1][:2] == ["The", report_study.HOSTILE]
    assert texts[2][3] is None
    for path in written.rglob("data/**/*.js"):
        content = path.read_bytes()
        assert content.isascii()
        assert b"<" not in content


def test_a_title_with_markup_is_shown_as_it_is_written(written: Path) -> None:
    text = (written / "goals.html").read_text()
    assert "&lt;b onmouseover=alert(3)&gt;London&lt;/b&gt;" in text
    assert report_study.HOSTILE_TITLE not in text


@pytest.mark.parametrize(
    "text", [report_study.HOSTILE, "\ud800 alone \udfff", "\u2028\u2029\0", "</template>"]
)
def test_any_text_comes_back_from_a_script_as_it_was(text: str) -> None:
    made_script = script("a/b", {"text": text})
    assert made_script.isascii()
    assert not set("<>&") & set(made_script)
    assert value_of(made_script) == {"text": text}


def test_a_lone_surrogate_is_written_as_a_reference(study: Path) -> None:
    results = StudyFolder(study, read_study).results()
    context = study_context(results, {}) | {"config": "a \ud800 b"}
    page = Site(results, {"index": "Study"}).page("index.html", context)
    assert b"a &#55296; b" in page


def test_tables_have_headers_with_scope_and_sections_have_names(pages: dict[str, Page]) -> None:
    for page in pages.values():
        headers = [named for tag, named in page.elements if tag == "th"]
        assert all(named.get("scope") in ("row", "col") for named in headers)
        ids = {named["id"] for _, named in page.elements if "id" in named}
        sections = [named for tag, named in page.elements if tag == "section"]
        assert all(named.get("aria-label") or named["aria-labelledby"] in ids for named in sections)
    assert sum(tag == "th" for tag, _ in pages["steering.html"].elements) > 20


def test_the_study_s_page_says_what_was_run(written: Path) -> None:
    text = (written / "index.html").read_text()
    for words in (
        " has the highest average product on held-out completions, 0.",
        "Entropy of the corpus",
        "1.840",
        "0.064",
        "blocks.1.hook_resid_post",
        "471,648",
    ):
        assert words in text
    effects = (written / "effects.html").read_text()
    assert "rows of the decoder of SAE main" in effects
    assert "384" in effects


def test_the_study_s_page_says_when_its_jobs_ran_and_what_they_took(
    study: Path, tmp_path: Path
) -> None:
    began = datetime(2026, 3, 1, 23, 50, tzinfo=UTC)
    for rule, name, end, seconds in (
        ("train_sae", "main.jsonl", 70, 60.0),
        ("train_sae", "other.jsonl", 1800, 1000.0),
        ("write_corpus", "eval.jsonl", 10, 10.0),
    ):
        file = tmp_path / "benchmarks" / rule / name
        file.parent.mkdir(parents=True, exist_ok=True)
        record = {"s": seconds, "cpu_time": seconds / 2, "max_rss": 100.0}
        file.write_text(f"{json.dumps({'s': 1.0})}\n{json.dumps(record)}\n")
        os.utime(file, (0, began.timestamp() + end))
    jobs = jobs_of(tmp_path / "benchmarks")
    assert (jobs.began, jobs.ended) == (began, began + timedelta(seconds=1800))
    folder = StudyFolder(study, read_study, {"steering": study.parent / "goals"})
    index = " ".join(report_io.write_report(folder, tmp_path / "report", jobs).read_text().split())
    for words in ("1 March 2026, 23:50 to 2 March 2026, 00:20", "18 min", "9 min", "1060.0"):
        assert words in index, words
    assert index.count('href="#cost"') == 1
    assert jobs_of(tmp_path / "none") is None


def test_the_same_study_gives_the_same_bytes(study: Path, written: Path, tmp_path: Path) -> None:
    assert_same_files(written, written_from(study, tmp_path / "again"))


def test_what_a_study_does_not_have_is_left_out(study: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    for name in ("config.yaml", "steering/summary.parquet", "steering/best.parquet"):
        (few / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(study / name, few / name)
    output = report_study.write_report(few, tmp_path / "report").parent
    text = (output / "index.html").read_text()
    assert " has the highest average product on held-out completions, 0." in text
    assert "was not measured" in text
    for absent in ("<img", "latents.html", "Targets and side effects"):
        assert absent not in text
    goal = (output / "goal-anger.html").read_text()
    assert "Curves" in goal
    for absent in ("Side effects", "text-controls"):
        assert absent not in goal
    assert not (output / "latents.html").exists()
    assert "Planted features" not in (output / "saes.html").read_text()


def test_files_of_an_older_config_are_not_shown(study: Path, written: Path, tmp_path: Path) -> None:
    copy = tmp_path / "tales"
    shutil.copytree(study, copy)
    shutil.copytree(copy / "steering/anger", copy / "steering/old_goal")
    shutil.copytree(copy / "saes/main", copy / "saes/old_sae")
    shutil.copytree(copy / "logit_lens/main", copy / "logit_lens/old_sae")
    shutil.copytree(study.parent / "goals", tmp_path / "goals")
    again = written_from(copy, tmp_path / "report")
    files = [path.relative_to(written) for path in written.rglob("*") if path.is_file()]
    assert len(files) == sum(path.is_file() for path in again.rglob("*"))
    assert all((again / name).read_bytes() == (written / name).read_bytes() for name in files)


def test_a_report_takes_the_place_of_an_older_one_and_of_nothing_else(
    study: Path, tmp_path: Path
) -> None:
    output = tmp_path / "report"
    written_from(study, output)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(study / "config.yaml", bare)
    report_study.write_report(bare, output)
    assert not (output / "figures/methods_forest.svg").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    for folder in (mine, output):
        (folder / "thesis.txt").write_text("years of work")
        with pytest.raises(
            SaeflowError, match=r"holds thesis\.txt, which was not written there by this command"
        ):
            written_from(study, folder)
        assert (folder / "thesis.txt").read_text() == "years of work"


def test_a_missing_table_or_broken_picture_is_told_in_one_sentence(
    study: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    whole = (copy / "figures/effect_scales.svg").read_text()
    (copy / "figures/effect_scales.svg").write_text("<svg")
    with pytest.raises(
        SaeflowError, match=r"effect_scales\.svg: is not as effect_scales.json says"
    ):
        report_study.write_report(copy, tmp_path / "report")
    (copy / "figures/effect_scales.svg").write_text(whole)
    (copy / "logit_lens/main/tokens.parquet").write_bytes(b"no table")
    with pytest.raises(SaeflowError, match=r"tokens.parquet: is no whole Parquet table"):
        report_study.write_report(copy, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_study_needs_nothing_but_its_config(study: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    values = yaml.safe_load((study / "config.yaml").read_text())
    (bare / "config.yaml").write_text(yaml.safe_dump(values))
    pages_of(report_study.write_report(bare, tmp_path / "unscored").parent)
    assert "Nothing has been scored." in (tmp_path / "unscored/steering.html").read_text()
    report_study.ask_only_for(bare)
    written = pages_of(report_study.write_report(bare, tmp_path / "report").parent)
    assert set(written) == {"index.html", "saes.html"}
    assert_whole(written, tmp_path / "report")


def test_a_study_without_analyses_is_told_from_its_core_alone(study: Path, tmp_path: Path) -> None:
    root = tmp_path / "tales"
    shutil.copytree(study, root)
    report_study.ask_only_for(root)
    output = report_study.write_report(root, tmp_path / "report").parent
    pages = pages_of(output)
    assert set(pages) == {"index.html", "saes.html"}
    assert_whole(pages, output)
    index = (output / "index.html").read_text()
    for words in ("471,648", "1.840", "blocks.1.hook_resid_post", "What was run"):
        assert words in index
    assert 'id="found-1"' not in index
    saes = (output / "saes.html").read_text()
    assert "0.948" in saes
    assert "Planted features" in saes
    assert {file.name for file in (output / "data").iterdir()} == {"saes.js"}
    assert list((output / "figures").iterdir()) == []
