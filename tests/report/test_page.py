"""The report tells what was measured, is whole without a network, and shows model text as text."""

from __future__ import annotations

import base64
import math
import shutil
from pathlib import Path

import figure_tables as made
import latent_tables
import numpy as np
import polars as pl
import pytest
import report_study
import yaml
from pages import Page, assert_same_files, assert_whole, pages_of

from saeflow.analyses import ANALYSES
from saeflow.analyses.examples import latent_pages
from saeflow.analyses.examples.latent_index import STATISTICS
from saeflow.analyses.reading import read_study
from saeflow.analyses.steering import results
from saeflow.analyses.steering.method_effects import goal_means, method_effects, strongest
from saeflow.analyses.steering.methods import BY_NAME, METHODS
from saeflow.analyses.steering.page import steering_context
from saeflow.analyses.steering.report_results import Cost, SteeringFolder
from saeflow.analyses.steering.sample_texts import first_samples, sample_texts
from saeflow.endpoint.ledger import Usage
from saeflow.errors import SaeflowError
from saeflow.report.dark import dark
from saeflow.report.files import ASSETS
from saeflow.report.folder import StudyFolder
from saeflow.report.page import study_context
from saeflow.report.payload import half_floats, script, value_of
from saeflow.report.site import Site, palette
from saeflow.statistics.permutation import holm, smallest_p

DRAWN = ["methods_forest", "effect_scales"]
ANALYSED = [analysis.key for analysis in ANALYSES]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("studies") / "tales"
    report_study.write_study(root, goals=2, figures=DRAWN)
    return root


def written_from(study: Path, output: Path, figures: list[str] | None = None) -> Path:
    return report_study.write_report(
        study, output, DRAWN if figures is None else figures, study.parent / "goals"
    ).parent


@pytest.fixture(scope="module")
def written(study: Path) -> Path:
    return written_from(study, study.parent / "report")


@pytest.fixture(scope="module")
def pages(written: Path) -> dict[str, Page]:
    return pages_of(written)


def data(written: Path, name: str) -> dict:
    return value_of((written / f"data/{name}.js").read_text("ascii"))


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
    own = {"goal.js", "latent-index.js", "latent-list.js", "latent-page.js", "latents.js"}
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
        *(method.look.colour.lower() for method in BY_NAME.values()),
    ):
        assert (
            colour in (written / "figures/methods_forest.svg").read_text().lower()
            or colour == BY_NAME["fgaa"].look.colour.lower()
        )
        assert colour not in recoloured
    assert dark('<svg a="b"><path/></svg>').startswith('<svg fill="#E6E6E1" a="b">')


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
    found = StudyFolder(study, read_study).results([])
    context = study_context(found, {}) | {"config": "a \ud800 b"}
    page = Site(found, {"index": "Study"}).page("index.html", context)
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
    for told in (
        " has the highest average product on held-out completions, 0.",
        "Entropy of the corpus",
        "1.840",
        "0.064",
        "blocks.1.hook_resid_post",
        "471,648",
    ):
        assert told in text
    effects = (written / "effects.html").read_text()
    assert "rows of the decoder of SAE main" in effects
    assert "384" in effects


def test_what_a_judge_cost_is_told_with_its_tokens(study: Path) -> None:
    folder = StudyFolder(study, read_study)
    steering = folder.section("steering")
    usage = [
        Usage("judge-1", "rating@1", 1000, 1011, 152_000, 9_000, 0.0234),
        Usage("own", "pair@1", 8, 8, 900, 80, None),
    ]
    found = SteeringFolder(folder, steering).results()
    context = steering_context(found, []) | {"cost": Cost(1019, 0.0234, usage)}
    site = Site(folder.results([]), {}, ["saeflow.analyses.steering"])
    text = site.page("steering.html", context).decode()
    for told in (
        "1,019 calls",
        "0.02 US dollars",
        "judge-1",
        "152,000",
        "9,000",
        "0.0234",
        "no price is known",
    ):
        assert told in text


def test_the_same_study_gives_the_same_bytes(study: Path, written: Path, tmp_path: Path) -> None:
    assert_same_files(written, written_from(study, tmp_path / "again"))


def test_what_a_study_does_not_have_is_left_out(study: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    for name in ("config.yaml", "steering/summary.parquet", "steering/best.parquet"):
        (few / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(study / name, few / name)
    output = report_study.write_report(few, tmp_path / "report", list(report_study.FIGURES)).parent
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


def test_latents_that_the_config_no_longer_asks_about_are_not_shown(
    study: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "tales"
    shutil.copytree(study, copy)
    config = yaml.safe_load((copy / "config.yaml").read_text())
    (copy / "config.yaml").write_text(yaml.safe_dump(config | {"logit_lens": None}))
    output = written_from(copy, tmp_path / "report")
    assert {one["name"] for one in data(output, "latents-main")["statistics"]} == {
        "density",
        "maximum",
        "mean_active",
        "top_token_share",
    }
    (copy / "config.yaml").write_text(
        yaml.safe_dump(config | {"logit_lens": None, "examples": None})
    )
    output = written_from(copy, tmp_path / "report")
    assert not (output / "latents.html").exists()
    assert "latents.html" not in (output / "goal-anger.html").read_text()


def test_a_report_takes_the_place_of_an_older_one_and_of_nothing_else(
    study: Path, tmp_path: Path
) -> None:
    output = tmp_path / "report"
    written_from(study, output)
    written_from(study, output, figures=[])
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
        report_study.write_report(copy, tmp_path / "report", DRAWN)
    (copy / "figures/effect_scales.svg").write_text(whole)
    (copy / "logit_lens/main/tokens.parquet").write_bytes(b"no table")
    with pytest.raises(SaeflowError, match=r"tokens.parquet: is no whole Parquet table"):
        report_study.write_report(copy, tmp_path / "report", [])
    assert not (tmp_path / "report").exists()


def test_a_study_needs_nothing_but_its_config(study: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    values = yaml.safe_load((study / "config.yaml").read_text())
    (bare / "config.yaml").write_text(yaml.safe_dump(values))
    pages_of(report_study.write_report(bare, tmp_path / "unscored", []).parent)
    assert "Nothing has been scored." in (tmp_path / "unscored/steering.html").read_text()
    core = {key: value for key, value in values.items() if key not in ANALYSED}
    (bare / "config.yaml").write_text(yaml.safe_dump(core))
    written = pages_of(report_study.write_report(bare, tmp_path / "report", []).parent)
    assert set(written) == {"index.html", "saes.html"}
    assert_whole(written, tmp_path / "report")


def test_the_list_of_latents_holds_every_statistic_to_three_digits(
    study: Path, written: Path
) -> None:
    index = data(written, "latents-main")
    activity = pl.read_parquet(study / "examples/main/latents.parquet")
    lens = pl.read_parquet(study / "logit_lens/main/latents.parquet")
    columns = {
        one["name"]: unpacked_halves(one["values"], index["count"]) for one in index["statistics"]
    }
    assert set(columns) == {one.name for one in STATISTICS} - {
        "r2"
    }  # this study has no fit by latent
    np.testing.assert_allclose(columns["kurtosis"], lens["kurtosis"], rtol=1e-3)
    np.testing.assert_allclose(columns["maximum"], activity["maximum"], rtol=1e-3)
    alive = activity["density"].to_numpy() > 0
    np.testing.assert_allclose(
        10 ** columns["density"][alive], activity["density"].to_numpy()[alive], rtol=1e-2
    )
    assert np.isnan(columns["density"][~alive]).all()
    fires = [
        index["words"][number] or None
        for number in unpacked_integers(index["fires"], index["count"])
    ]
    assert fires == activity["top_token"].to_list()
    tokens = (
        pl.read_parquet(study / "logit_lens/main/tokens.parquet")
        .filter(side="top", rank=1)
        .sort("latent")
    )
    second = [
        index["words"][number] for number in unpacked_integers(index["promotes"][1], index["count"])
    ]
    assert second == tokens["token"].to_list()
    assert index["neuronpedia"] == "tales-lm/1-res"
    assert index["targeted"] == [[5, "anger", 1.0], [5, made.GOALS[1], 1.0]]


def unpacked_halves(text: str, count: int) -> np.ndarray:
    return planes(text, count, 2).view("<f2").ravel().astype(float)


def unpacked_integers(text: str, count: int) -> np.ndarray:
    return planes(text, count, 4).view("<u4").ravel()


def planes(text: str, count: int, width: int) -> np.ndarray:
    return np.ascontiguousarray(
        np.frombuffer(base64.b64decode(text), np.uint8).reshape(width, count).T
    )


def test_a_latent_s_page_holds_what_the_tables_say(study: Path, written: Path) -> None:
    chunk = data(written, "latents-main/00001")
    assert (chunk["first"], len(chunk["latents"])) == (64, 64)
    latent, entry = 70, chunk["latents"][6]
    contexts = pl.read_parquet(study / "examples/main/contexts.parquet").filter(latent=latent)
    vocabulary = latent_tables.words(400)
    maximum = pl.read_parquet(study / "examples/main/latents.parquet")["maximum"][latent]
    assert len(entry["contexts"]) == len(contexts) == 6
    for shown, row in zip(entry["contexts"], contexts.to_dicts(), strict=True):
        assert [chunk["words"][str(token)] for token in shown[5]] == [
            vocabulary[token] for token in row["token_ids"]
        ]
        np.testing.assert_allclose(
            np.array(shown[6]) / 999 * maximum, row["activations"], atol=maximum / 999
        )
    tokens = pl.read_parquet(study / "logit_lens/main/tokens.parquet").filter(
        latent=latent, side="bottom"
    )
    assert [word for word, _ in entry["tokens"]["bottom"]] == tokens["token"].to_list()
    assert [name for name, *_ in entry["sets"]] == (
        pl.read_parquet(study / "logit_lens/main/enrichment.parquet")
        .filter(latent=latent)
        .sort(pl.col("ks").abs(), descending=True)["set"]
        .to_list()
    )
    assert entry["raised"] == [[latent, 1.0]]
    assert entry["lowered"] == [[latent + 1, -0.5]]
    assert sum(entry["histogram"]["counts"]) > 0


def test_a_latent_that_never_fires_has_no_contexts_and_no_histogram(written: Path) -> None:
    dead = data(written, "latents-main/00000")["latents"][49]
    assert (dead["contexts"], dead["histogram"], dead["statistics"]["density"]) == ([], None, None)
    assert dead["tokens"]["top"]


def test_neighbours_are_those_of_the_full_table_of_cosines() -> None:
    decoder = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
    decoder /= np.linalg.norm(decoder, axis=1, keepdims=True)
    cosines = decoder.astype(float) @ decoder.T.astype(float)
    np.fill_diagonal(cosines, -2)
    found = latent_pages.nearest(decoder, range(100, 140), 5)
    for place, pairs in zip(range(100, 140), found, strict=True):
        order = np.argsort(-cosines[place])[:5]
        assert [latent for latent, _ in pairs] == order.tolist()
        np.testing.assert_allclose([value for _, value in pairs], cosines[place][order], atol=1e-6)


def test_the_largest_are_in_order_and_never_unknown() -> None:
    values = np.array([1.0, np.nan, 3.0, 3.0, -2.0, np.inf])
    assert latent_pages.largest(values, 6) == [(2, 3.0), (3, 3.0), (0, 1.0), (4, -2.0)]
    assert latent_pages.largest(values, 3) == [(2, 3.0), (3, 3.0), (0, 1.0)]
    raised, lowered = latent_pages.moved(np.array([0.0, 2.0, -1.0, 0.5]))
    assert (raised, lowered) == ([(1, 2.0), (3, 0.5)], [(2, -1.0)])


def test_numbers_beyond_half_precision_stay_finite() -> None:
    found = unpacked_halves(half_floats(np.array([1e9, -1e9, math.nan, 0.25])), 4)
    assert found[0] == 65504
    assert found[1] == -65504
    assert math.isnan(found[2])
    assert found[3] == 0.25


def test_tokens_without_spaces_are_set_apart_in_contexts() -> None:
    assert latent_pages.gap(["the", "dog", "."]) == " "
    assert latent_pages.gap([" the", " dog", "s"]) == ""


def scored(**products: float) -> pl.DataFrame:
    rows = [
        {
            "goal": goal,
            "method": method,
            "product": value,
            "product_low": value - 0.04,
            "product_high": value + 0.04,
            "unsteered_product": 0.03,
            "scale": 2.0,
            "in_sample_product": value + 0.02,
            "in_sample_scale": 3.0,
        }
        for goal in ("anger", "love", "average")
        for method, value in products.items()
    ]
    return pl.DataFrame(rows)


def compared(
    *rows: tuple[str, str, float, float],
    goals: tuple[str, ...] = ("anger", "love", "average"),
    units: int = 32,
) -> pl.DataFrame:
    """Method, other, difference and p-value of every comparison, alike for all goals."""
    table = pl.DataFrame(
        list(rows), schema=["method", "other", "difference", "p_value"], orient="row"
    ).with_columns(
        difference_low=pl.col("difference") - 0.06,
        difference_high=pl.col("difference") + 0.06,
        units=pl.lit(units, pl.Int64),
    )
    tables = pl.concat([table.with_columns(goal=pl.lit(goal)) for goal in goals])
    return tables.with_columns(p_holm=holm(tables["p_value"].to_numpy()))


def test_the_best_is_marked_only_where_every_rival_is_behind_by_the_corrected_test() -> None:
    best = scored(caa=0.62, sae_ts=0.55, random=0.05)
    far = ("caa", "random", 0.57, 0.0001), ("sae_ts", "random", 0.5, 0.0001)
    assert results.marks(best, compared(("caa", "sae_ts", 0.07, 0.016), *far), "anger") == {
        "caa": "best"
    }
    # 0.018 would do for one goal; of two goals and their average, one in twenty studies would claim
    # something.
    unsure = compared(("caa", "sae_ts", 0.07, 0.018), *far)
    assert results.marks(best, unsure, "anger") == {"caa": "tie", "sae_ts": "tie"}
    turned = compared(("sae_ts", "caa", -0.07, 0.018), ("random", "caa", -0.57, 0.0001), far[1])
    assert results.marks(best, turned, "anger") == {"caa": "tie", "sae_ts": "tie"}
    assert results.marks(best, pl.DataFrame(), "anger") == dict.fromkeys(
        ("caa", "sae_ts", "random"), "tie"
    )
    assert results.marks(scored(caa=0.5), pl.DataFrame(), "anger") == {}


def test_a_difference_is_turned_round_with_its_interval() -> None:
    turned = results.difference(compared(("sae", "caa", -0.2, 0.001)), "love", "caa", "sae")
    assert turned is not None
    assert turned == pytest.approx((0.2, 0.14, 0.26, 0.001, 0.003, 32))
    assert turned.sure


def test_the_headline_says_who_wins_who_loses_and_how_sure_that_is() -> None:
    best = scored(caa=0.62, sae_ts=0.55)
    ahead = " ".join(results.headline(best, compared(("caa", "sae_ts", 0.07, 0.00004))))
    assert ahead.startswith(
        "caa has the highest average product on held-out completions, 0.62 [0.58, 0.66]."
    )
    assert "ahead of sae_ts, the next, by 0.07 [0.01, 0.13] (p < 0.0001)." in ahead
    assert "The lowest is sae_ts with 0.55 [0.51, 0.59]." in ahead
    assert "in 2 (caa in 2)" in ahead
    level = " ".join(results.headline(best, compared(("caa", "sae_ts", 0.07, 0.03))))
    assert "It cannot be told apart from sae_ts" in level
    assert "In none of the 2 goals" in level
    assert "More of them are needed" not in level


def test_nothing_is_claimed_that_the_smallest_p_value_forbids_and_the_report_says_so() -> None:
    best = scored(caa=0.9, sae_ts=0.1)
    for units, possible in ((6, False), (7, True)):
        table = compared(("caa", "sae_ts", 0.8, smallest_p(units)), units=units)
        assert results.marks(best, table, "anger") == (
            {"caa": "best"} if possible else {"caa": "tie", "sae_ts": "tie"}
        )
        lines = " ".join(results.headline(best, table))
        assert ("With 6 held-out completions" in lines) == (not possible)


def test_a_method_without_scores_has_a_dash_and_no_rank() -> None:
    best = scored(caa=0.62, sae_ts=0.55, rotation=0.1).with_columns(
        product=pl.when((pl.col("method") == "rotation") & (pl.col("goal") != "love"))
        .then(None)
        .otherwise("product")
    )
    rows = results.result_rows(best, pl.DataFrame())
    assert rows[0].goal == "average of 2 goals"
    assert rows[0].cells[2].value == "–"
    assert "rotation cannot be ranked" in " ".join(results.headline(best, pl.DataFrame()))
    assert results.headline(pl.DataFrame(), pl.DataFrame()) == []


def test_scales_that_could_not_be_chosen_are_marked_and_the_intervals_say_what_they_are_for(
    tmp_path: Path,
) -> None:
    root = tmp_path / "tales"
    report_study.write_study(root, goals=2, figures=[], latents=0)
    table = root / "steering/summary.parquet"
    pl.read_parquet(table).with_columns(eligible=pl.col("scale_index") != 3).write_parquet(table)
    pages = pages_of(written_from(root, tmp_path / "report", []))
    text = (tmp_path / "report/goal-anger.html").read_text()
    assert text.count("too few scores") == len(made.METHODS)
    assert "less than 50 % of the" in " ".join(text.split())
    assert pages
    index = " ".join((tmp_path / "report/index.html").read_text().split())
    assert "Scales that could not be chosen" in index
    steering = " ".join((tmp_path / "report/steering.html").read_text().split())
    assert (
        "95 % intervals, for more completions of the study&#39;s one prompt and for no other "
        "prompts" in steering
    )


def test_one_goal_needs_no_average() -> None:
    best = scored(caa=0.62, sae_ts=0.55).filter(pl.col("goal") != "love")
    assert [row.goal for row in results.result_rows(best, pl.DataFrame())] == ["anger"]
    assert "product for the goal anger" in results.headline(best, pl.DataFrame())[0]


def test_samples_are_the_first_of_every_prompt_before_the_second_of_any() -> None:
    rows = [
        {"goal": "g", "method": "m", "scale_index": 0, "prompt": prompt, "sample": sample}
        for prompt in ("one", "two")
        for sample in range(4)
    ]
    chosen = first_samples(pl.DataFrame(rows), 3)
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
    (row,) = method_effects([goal_means(table, {0: 1.0}), pl.DataFrame()])
    assert (row.target, row.predicted, row.others) == (1.5, 2.0, 0.75)
    found = strongest(table, {2: 1.0})["caa"]
    assert [(effect.latent, effect.target) for effect in found] == [
        (2, True),
        (0, False),
        (1, False),
        (3, False),
    ]
    assert method_effects([goal_means(table, {})]) == []


def test_the_average_over_goals_weighs_goals_alike() -> None:
    one = pl.DataFrame({"method": ["caa"], "latent": [0], "predicted": [1.0], "measured": [2.0]})
    other = pl.DataFrame(
        {"method": ["caa"] * 2, "latent": [0, 1], "predicted": [3.0, 0.0], "measured": [4.0, -1.0]}
    )
    (row,) = method_effects([goal_means(one, {0: 1.0}), goal_means(other, {0: 2.0})])
    assert (row.target, row.predicted, row.others) == (3.0, 2.0, 0.5)


def test_a_missing_score_is_shown_with_its_reason() -> None:
    keys = {
        "goal": ["g"],
        "method": ["m"],
        "scale_index": [0],
        "completion_id": ["c"],
        "prompt": ["p"],
        "text": ["p t"],
    }
    scores = pl.DataFrame(
        {
            "completion_id": ["c"] * 2,
            "criterion": ["behaviour", "coherence"],
            "score": [0.5, None],
            "reason": [None, "refused"],
        }
    )
    assert sample_texts(pl.DataFrame(keys), scores) == {
        "m": {"0": [["p", "p t", 0.5, None, "refused"]]}
    }


def test_methods_have_the_colours_of_the_figures() -> None:
    text = palette({method.name: method.look for method in METHODS})
    assert all(
        f".method-{name} {{ --method: {method.look.colour};" in text
        for name, method in BY_NAME.items()
    )


def test_a_study_of_sixteen_goals_is_told_whole() -> None:
    best = made.best(made.summary(16))
    rows = results.result_rows(best, made.comparisons(best))
    assert len(rows) == 17
    assert {len(row.cells) for row in rows} == {6}
