"""The report of a study of chess tells what its tables hold, with boards, and needs nothing beside
itself."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import chess.svg
import chess_report_study
import chess_tables as made
import numpy as np
import polars as pl
import pytest
import torch
import yaml
from pages import Page, assert_same_files, assert_whole, pages_of

from saeflow.artifacts import write_sealed_json
from saeflow.chess.analyses.concepts.example_boards import (
    BOARDS_SHOWN,
    CONCEPTS_SHOWN,
    example_boards,
)
from saeflow.chess.analyses.concepts.labelling import Labelled
from saeflow.chess.games.boards import read_fens
from saeflow.chess.games.examples import Examples
from saeflow.chess.knowledge.concepts import Concept, Labels
from saeflow.chess.report import boards
from saeflow.chess.report.concept_list import list_value
from saeflow.chess.report.io import write_report
from saeflow.chess.report.page import _line
from saeflow.chess.report.results import ConceptTables
from saeflow.errors import SaeflowError
from saeflow.report.payload import value_of
from saeflow.statistics.sparse_latents import SparseLatents


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chess") / "knights"
    chess_report_study.write_chess_study(root)
    return root


@pytest.fixture(scope="module")
def written(study: Path) -> Path:
    stages = chess_report_study.STAGES
    return write_report(study, study.parent / "report", stages=stages).parent


@pytest.fixture(scope="module")
def pages(written: Path) -> dict[str, Page]:
    return pages_of(written)


def text_of(path: Path) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", path.read_text())))


def test_every_page_is_there_and_every_reference_is_a_file_of_the_folder(
    pages: dict[str, Page], written: Path
) -> None:
    assert set(pages) == {
        "index.html",
        "concepts.html",
        "latents.html",
        "saes.html",
        "concepts-resid.html",
        "concepts-mlp.html",
    }
    assert_whole(pages, written)


def test_the_study_s_page_tells_what_was_run_and_found(written: Path) -> None:
    text = text_of(written / "index.html")
    areas = made.associations().filter((pl.col("direction") == 1) & (pl.col("rank") == 0))
    well = len(areas.filter(pl.col("auc") >= 0.9))
    assert (
        f"Of {len(areas)} concepts, the latents of resid tell {well} with an area of 0.9 or more"
        in text
    )
    assert f"tells {len(areas)}. Of the 2 SAEs none tells more, others as many." in text
    assert "awareness 0.85 to 0.85, willingness 0.20 to 0.60" in text
    assert (
        "in 40 of 40 settings, and less in 0; the same edit of random latents more in 0 and less"
        in text
    )
    assert "gets wrong, the edit mends 40% in the middle setting, random latents 0%" in text
    for words in (
        "1100-1199",
        "0.305 [0.28, 0.33]",
        "from 2 games",
        "1,200 of them held out",
        "associate concepts 2 34.6",
    ):
        assert words in text, words
    assert "write report" not in text
    assert "Solved from some rating upwards 1 wrong" in text


def test_games_that_were_left_out_are_told_by_the_reason(study: Path, tmp_path: Path) -> None:
    root = shutil.copytree(study, tmp_path / "read")
    read = {
        "games": {"kept": 2, "malformed": 3, "without ratings": 1_204},
        "positions": 3,
        "faults": ["abcdefgh: holds a null move"],
    }
    write_sealed_json(root / "games/positions.json", read)
    text = text_of(write_report(root, tmp_path / "report"))
    assert "Games read 1,209 2 of them kept" in text
    assert "Games left out: without ratings 1,204" in text
    assert "Games left out: malformed 3 the first of them: abcdefgh: holds a null move" in text


def test_of_concepts_in_few_games_the_report_claims_nothing_and_counts_what_it_could_ask() -> None:
    few = pl.col("square") % 8 == 0
    rows = made.associations(("resid",)).with_columns(
        auc_low=0.6,
        auc_high=0.9,
        auc_chance=pl.when(~few).then(0.55),
        untested=pl.when(few).then(pl.lit("only 4 held-out games have it, fewer than 30")),
    )
    empty = pl.DataFrame()
    tables = ConceptTables(made.concepts(), rows, made.probes(), *[empty] * 4)
    best = tables.best
    silent = best.filter(pl.col("untested").is_not_null())
    assert silent.height == 21
    assert silent.select("p", "q", "auc_low", "auc_high").null_count().row(0) == (21,) * 4
    assert silent["auc"].null_count() == 0
    line = _line("blocks.1.resid_post", "resid", tables)
    assert (line.concepts, line.tested, line.chance) == (len(best), len(best) - 21, 0.55)
    assert line.sure <= line.tested
    listed = {
        statistic["name"]: statistic["values"]
        for statistic in list_value("resid", best, set())["statistics"]
    }
    places = [place for place, reason in enumerate(best["untested"]) if reason]
    assert all(
        listed[name][place] is None
        for name in ("p", "q", "auc_low", "auc_high")
        for place in places
    )


def test_an_engine_s_word_is_told_where_one_was_asked(
    study: Path, written: Path, tmp_path: Path
) -> None:
    text = text_of(written / "index.html")
    for words in (
        "Positions 3 of the split eval, evaluated by Fishy 1",
        "Blunders played 2 moves that were played; they lose 1.5 pawns or more",
        "Blunders of the weakest rating 1 choices",
        "blunders all 50 0.300 [0.25, 0.35] 0.500 [0.45, 0.55] +0.200 [0.15, 0.25] 2.100 2.000",
        "ordinary 1500-1599 50 0.300 [0.25, 0.35] 0.290",
    ):
        assert words in text, words
    silent = tmp_path / "silent"
    shutil.copytree(study, silent)
    config = yaml.safe_load((silent / "config.yaml").read_text()) | {
        "engine": None,
        "blunders": None,
        "fine_tune": None,
    }
    (silent / "config.yaml").write_text(yaml.safe_dump(config))
    page = write_report(silent, tmp_path / "report").read_text()
    assert "Fishy" not in page
    assert 'id="engine"' not in page


def test_the_report_of_a_study_without_analyses_tells_of_its_core(
    study: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(study, bare)
    config = yaml.safe_load((bare / "config.yaml").read_text())
    for key in ("examples", "concepts", "skill", "interventions", "transitions", "engine"):
        config[key] = None
    (bare / "config.yaml").write_text(
        yaml.safe_dump(config | {"blunders": None, "fine_tune": None})
    )
    output = write_report(bare, tmp_path / "report").parent
    assert {file.name for file in output.glob("*.html")} == {"index.html", "saes.html"}
    page = text_of(output / "index.html")
    assert "Model of human play" in page
    assert "that choose latents" not in page
    for section in ("concepts", "skill", "interventions", "engine"):
        assert f'id="{section}"' not in (output / "index.html").read_text()
    assert_whole(pages_of(output), output)


def test_saes_stand_beside_each_other_in_the_words_of_boards(written: Path) -> None:
    text = text_of(written / "saes.html")
    assert "blocks.1.resid_post , blocks.1.mlp" in text
    assert "Same first move 0.483 0.483 share of positions" in text
    assert "latents that are active per position" in text
    assert "text that no SAE" not in text
    assert "may be active at a time" not in text  # nothing sets k of a JumpReLU


def test_the_list_of_concepts_holds_what_the_tables_say(written: Path) -> None:
    value = value_of((written / "data/concepts-resid.js").read_text("ascii"))
    areas = made.associations().filter((pl.col("direction") == 1) & (pl.col("rank") == 0))
    columns = {column["name"]: column["values"] for column in value["statistics"]}
    assert value["count"] == len(areas)
    np.testing.assert_allclose(columns["auc"], areas["auc"], rtol=1e-5)
    assert set(columns["probe"]) == {0.97}
    assert set(columns["means"]) == {0.8}
    assert columns["q"][0] == pytest.approx(-3)  # as its decimal logarithm
    assert columns["q"][-1] is None
    assert value["words"][value["fires"][1]] == "defensive threat b1"
    assert value["numbers"][1] == 1
    assert [place for place in value["places"] if place] == ["offensive_threat_f7", "in_check"]


def test_boards_of_areas_are_coloured_numbered_and_told(
    pages: dict[str, Page], written: Path
) -> None:
    page = pages["concepts-resid.html"]
    boards_told = [named["aria-label"] for tag, named in page.elements if tag == "svg"]
    assert len(boards_told) == 3
    assert boards_told[0].startswith("Board of defensive threat, area under the ROC curve")
    assert "56 squares, median 0.74, from 0.55 on a1 to 0.92 on h7" in boards_told[0]
    assert not any("style" in named for _, named in page.elements)
    text = (written / "concepts-resid.html").read_text()
    assert text.count('<th scope="row">8</th><td>–</td>') == 3
    assert 'data-sae="resid"' in text


def test_a_heat_map_colours_the_squares_it_is_given_and_no_others() -> None:
    drawn = ElementTree.fromstring(boards.heat_map({0: 0.5, 63: 1.0, 1: 0.3}, 'a "b" <c>'))
    kind = "{http://www.w3.org/2000/svg}"
    assert drawn.get("aria-label") == 'a "b" <c>'
    assert [node.text for node in drawn.iter(f"{kind}text")] == ["50", "100", "30"]
    places = {
        node.text: (float(node.get("x")), float(node.get("y")))
        for node in drawn.iter(f"{kind}text")
    }
    assert places["50"][0] < places["30"][0] < places["100"][0]  # a1 at the left, h8 at the right
    assert places["50"][1] > places["100"][1]  # and the first rank below
    coloured = [node.get("fill") for node in drawn.iter(f"{kind}rect") if node.get("class") is None]
    assert coloured[-3:] == ["#00224d", "#00224d", "#fde737"]  # below one half as dark as one half


def test_positions_are_pictures_with_every_piece_in_their_text(
    pages: dict[str, Page], written: Path
) -> None:
    page = pages["concepts-resid.html"]
    assert page.alternatives[0] == (
        "White to move. White: king e1, queen h5, rooks a1 h1, bishops c1 c4, knights b1 g1, pawns "
        "a2 b2 c2 d2 f2 g2 h2 e4. Black: king e8, queen d8, rooks a8 h8, bishops c8 f8, knights c6 "
        "g8, pawns e5 a7 b7 c7 d7 f7 g7 h7. Marked: f7. Move played: Qxf7#."
    )
    assert "Marked" not in page.alternatives[2]
    circle = (written / "boards/resid/000.svg").read_text()
    assert (
        circle.count("<circle") - (written / "boards/resid/002.svg").read_text().count("<circle")
        == 1
    )
    text = text_of(written / "concepts-resid.html")
    assert "Latent 53 , AUC 0.86 [0.81, 0.91]; 1 of 2 positions have the concept." in text
    assert "has the concept · activation 4.25 · Qxf7# by a player of 1500-1599" in text


def test_interventions_stand_beside_their_controls_with_intervals(written: Path) -> None:
    text = text_of(written / "concepts-mlp.html")
    nothing, helps = "+0.00 [-0.04, +0.04]", "+0.25 [+0.21, +0.29]"
    sentences = (
        "add 2, 1 latent along its probe, add 2 the concept is needed 200 – "
        f"{helps} {nothing} {nothing} +0.00 [+0.00, +0.00] {helps} {nothing} +0.12 [+0.08, +0.17]"
    )
    assert sentences in text
    assert "Left out: defensive threat, >=2000: only 3 positions" in text
    assert (
        "0.9" not in re.findall(r"<1100 add [^–]*the concept is needed [^h]*", text)[0]
    )  # what chose is not reported


def test_a_long_table_of_edits_is_folded_under_a_sentence(written: Path) -> None:
    page = (written / "concepts-resid.html").read_text()
    edits = page[page.index('id="edits"') : page.index('id="skipped"')]
    assert edits.count("<details>") == len(made.GROUPS)
    said = (
        "Where the concept is needed, the edit of its latents gains +0.25 [+0.21, +0.29] for the "
        "model told <1100, and +0.25 [+0.21, +0.29] told 1900-1999. 10 ratings as a table"
    )
    assert text_of(written / "concepts-resid.html").count(said) == len(made.GROUPS)


def test_every_latent_has_a_page_with_its_boards_histogram_and_squares(written: Path) -> None:
    listed = value_of((written / "data/latents-resid.js").read_text())
    assert listed["count"] == 64
    assert listed["words"][listed["fires"][9]] == "their rook on b2"
    assert listed["fires"][63] == 0
    assert listed["headings"] == {"fires": "goes with"}
    numbers = {column["name"]: column["values"] for column in listed["statistics"]}
    assert numbers["maximum"][:2] == [4.0, 5.0]
    assert numbers["density"][0] == pytest.approx(np.log10(0.2))
    assert numbers["density"][63] is None
    assert numbers["correlation"][5] == 0.6
    assert numbers["auc"][55] == pytest.approx(0.55 + 0.4 * 13 / 14, abs=1e-6)
    pages = value_of((written / "data/latents-resid/00000.js").read_text())
    assert (pages["first"], pages["strata"], len(pages["latents"])) == (0, 4, 64)
    assert pages["ratings"][3] == "1300-1399"
    page = pages["latents"][9]
    assert [board[0] for board in page["boards"]] == ["top", "top", "q1", "q4"]
    assert page["boards"][0] == ["top", 13.0, made.MATE, "h5f7", 3]
    assert page["histogram"] == {"low": 0, "high": 13.0, "counts": [60, 20, 5, 0, 2]}
    assert sorted(page["squares"]) == [[0, "my_queen", -0.25], [9, "their_rook", 0.6]]
    assert page["leading"][0] == ["their rook on b2", 0.6, 2.0, 0.1, 300]
    # It was the first of three concepts of its square and the second of those of a1.
    concepts = {(name, direction, place) for name, direction, place, *_ in page["concepts"]}
    assert ("offensive threat b2", 1, 1) in concepts
    assert ("offensive threat b2", -1, 1) in concepts
    assert ("offensive threat a2", 1, 2) in concepts
    assert pages["latents"][63]["boards"] == []
    page = (written / "concepts-resid.html").read_text()
    assert 'Latent <a href="latents.html#/resid/53">53</a>' in page
    assert value_of((written / "data/concepts-resid.js").read_text())["pages"] is True


def test_pieces_of_boards_have_no_styles_that_a_page_refuses_and_look_alike() -> None:
    symbols = ElementTree.fromstring(f"<svg>{boards.piece_symbols()}</svg>")
    assert {piece.get("id") for piece in symbols} == {
        f"{side}-{kind}"
        for side in ("white", "black")
        for kind in ("pawn", "knight", "bishop", "rook", "queen", "king")
    }
    assert all(node.get("style") is None for node in symbols.iter())
    whole = ElementTree.fromstring("<svg>" + "".join(chess.svg.PIECES.values()) + "</svg>")
    for ours, theirs in zip(symbols.iter(), whole.iter(), strict=True):
        looks = dict(
            part.strip().split(":") for part in (theirs.get("style") or "").split(";") if part
        )
        for name, value in looks.items():
            assert ours.get(name.strip()) == value.strip()


def test_it_is_told_from_which_rating_on_moves_are_found_before_and_under_edits(
    written: Path,
) -> None:
    text = text_of(written / "concepts-mlp.html")
    assert (
        "along its probe 4 0.75 [0.70, 0.80] 1.00 [0.95, 1.05] 0.75 [0.70, 0.80] 0.00 [-0.05, 0.05]"
        in text
    )
    assert "random latents 4 0.75 [0.70, 0.80] 0.75 [0.70, 0.80] 0.00 [-0.05, 0.05] 0.25" in text
    index = text_of(written / "index.html")
    assert (
        "50% are solved from an earlier rating on under the edit, and 0% from a later one or none; "
        "with random latents 0% and 25%." in index
    )
    assert "Moving along its linear probe did so in 40 of 40, and less in 0" in index
    assert "along the probes of other concepts more in 0." in index


def test_the_same_study_gives_the_same_bytes(study: Path, written: Path, tmp_path: Path) -> None:
    again = write_report(study, tmp_path / "again", stages=chess_report_study.STAGES).parent
    assert_same_files(written, again)


def test_what_a_study_does_not_have_is_left_out(study: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    with pytest.raises(SaeflowError, match=r"config.yaml: no such file; a report needs it"):
        write_report(few, tmp_path / "report")
    shutil.copy(study / "config.yaml", few)
    output = write_report(few, tmp_path / "report").parent
    assert "No concept was looked for." in (output / "index.html").read_text()
    page = (output / "concepts-resid.html").read_text()
    for absent in ("<svg", "<img", 'id="edits"', 'id="skill"', 'id="search"'):
        assert absent not in page
    (few / "games").mkdir()
    (few / "games/positions.parquet").write_bytes(b"no table")
    with pytest.raises(SaeflowError, match=r"positions.parquet: cannot be read as positions"):
        write_report(few, tmp_path / "report")


def test_example_boards_are_the_most_active_held_out_ones_one_of_a_game() -> None:
    n = 24
    generator = np.random.default_rng(0)
    names = [Concept(f"piece_{i}", "piece", i) for i in range(4)] + [
        Concept("in_check", "strategic")
    ]
    games = np.arange(n) // 2
    labelled = Labelled(
        np.arange(n), games, games % 2 == 1, Labels(names, generator.random((n, 5)) < 0.5)
    )
    dense = np.abs(generator.normal(size=(n, 5))).astype(np.float32)
    dense[:, 4] = 0

    latents = SparseLatents.of([torch.from_numpy(dense)])
    fens = [made.MATE] * n
    numbers = np.zeros(n, np.int8)
    examples = Examples(read_fens(fens), np.zeros(n, np.int16), numbers, numbers, numbers, games)
    table = pl.DataFrame(
        [
            {
                "concept": concept.name,
                "family": concept.family,
                "square": concept.square,
                "direction": 1,
                "rank": 0,
                "latent": i,
                "auc_selection": 0.6 + 0.05 * i,
            }
            for i, concept in enumerate(names)
        ],
        schema=made.ASSOCIATIONS,
    )
    boards = example_boards(latents, examples, labelled, table)
    assert (
        boards["concept"].unique(maintain_order=True).to_list()
        == ["piece_3", "piece_2", "piece_1"][:CONCEPTS_SHOWN]
    )
    for latent in (1, 2, 3):
        own = boards.filter(latent=latent)
        best = {}
        for row in np.argsort(-dense[:, latent]):
            if labelled.held_out[row]:
                best.setdefault(int(games[row]), row)
        rows = list(best.values())[:BOARDS_SHOWN]
        np.testing.assert_allclose(own["activation"], dense[rows, latent])
        assert own["holds"].to_list() == labelled.labels.values[rows, latent].tolist()
        assert own["place"].to_list() == list(range(BOARDS_SHOWN))
