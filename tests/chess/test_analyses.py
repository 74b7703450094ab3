"""Transition points, labels on disk, and every command of the analyses on a small random Maia-2."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import chess
import numpy as np
import polars as pl
import pytest
import torch
from chess_positions import positions_table, random_play
from planted_chess import GATED, N_BINS, planted_subject
from typer.testing import CliRunner

from saeflow.chess.analyses.concepts.association import ASSOCIATIONS, CONCEPTS
from saeflow.chess.analyses.concepts.example_boards import BOARDS
from saeflow.chess.analyses.concepts.io import load_labels, save_labels
from saeflow.chess.analyses.concepts.labelling import label_positions
from saeflow.chess.analyses.concepts.probes import PROBES
from saeflow.chess.analyses.concepts.settings import Concepts
from saeflow.chess.analyses.interventions.interventions import INTERVENTIONS
from saeflow.chess.analyses.interventions.points import SHIFTS
from saeflow.chess.analyses.interventions.points import TRANSITIONS as EDITED_TRANSITIONS
from saeflow.chess.analyses.skill.skill import AWARENESS, SKILL
from saeflow.chess.analyses.transitions.settings import Transitions
from saeflow.chess.analyses.transitions.transitions import (
    TRANSITIONS,
    transition_points,
    transitions,
)
from saeflow.chess.commands import app
from saeflow.chess.games.boards import read_fens
from saeflow.chess.games.io import best_moves
from saeflow.chess.games.moves import MOVES
from saeflow.chess.knowledge.concepts import label
from saeflow.chess.knowledge.responses import answers
from saeflow.chess.knowledge.views import View
from saeflow.chess.player.io import save_maia2
from saeflow.chess.player.maia2 import Maia2
from saeflow.chess.player.planes import encode
from saeflow.chess.player.settings import ChessModel
from saeflow.chess.saes.reading import embed_boards, judged, read_site
from saeflow.chess.saes.site import MaiaAtSite, site_sae
from saeflow.errors import SaeflowError
from saeflow.saes.io import save_sae
from saeflow.saes.sae import SAE
from saeflow.tables import read_table

SHAPE = ChessModel(
    dim_cnn=8, blocks_cnn=1, dim_vit=16, blocks_vit=2, heads=2, dim_head=8, dim_elo=4
)


@pytest.fixture(scope="module")
def maia() -> Maia2:
    torch.manual_seed(0)
    return Maia2(SHAPE).eval().requires_grad_(False)


def random_sae(width: int) -> SAE:
    generator = torch.Generator().manual_seed(1)
    rows = torch.nn.functional.normalize(torch.randn(48, width, generator=generator), dim=1)
    return SAE("topk", rows.T.contiguous(), rows, torch.zeros(48), torch.zeros(width), k=6)


def test_all_orders_of_right_and_wrong_are_told_apart() -> None:
    right = np.array(list(product([False, True], repeat=5))).T
    points = transition_points(right)
    for column, kind, at in zip(right.T, points.kind, points.at, strict=True):
        steps = [
            index for index in range(1, 5) if column[index:].all() and not column[:index].any()
        ]
        expected = (
            "always"
            if column.all()
            else "never"
            if not column.any()
            else "transition"
            if steps
            else "irregular"
        )
        assert kind == expected
        assert at == (steps[0] if steps else -1)


@pytest.mark.parametrize("bins", [2, 5, 11])
def test_the_chance_of_a_transition_is_the_share_of_orders_that_agree_with_the_strongest_bin(
    bins: int,
) -> None:
    right = np.array(list(product([False, True], repeat=bins))).T
    points = transition_points(right)
    for count, strongest in product(range(bins + 1), (False, True)):
        alike = (right.sum(axis=0) == count) & (right[-1] == strongest)
        if alike.any():
            share = (points.kind[alike] == "transition").mean()
            assert np.allclose(points.by_chance[alike], share, atol=1e-12), (count, strongest)


def test_transitions_of_the_planted_model_are_where_its_skill_sets_in() -> None:
    subject, _ = planted_subject(GATED)
    points = transitions(GATED, subject.examples, None, Transitions(positions=300), seed=0)
    assert dict(points.schema) == TRANSITIONS
    assert points.height == 300
    assert set(points["kind"]) <= {
        "always",
        "transition",
        "irregular",
    }  # the strongest is always right
    solved = points.filter(kind="transition")
    assert solved.height > 20
    assert solved["transition"].is_between(1, N_BINS - 1).all()
    assert (solved["right_strongest"] > solved["right_weakest"]).all()
    assert (solved["weakest_choice"] != solved["right"]).all()
    none = np.full(len(subject.played), -1)
    assert transitions(
        GATED, subject.examples, none, Transitions(correct="best"), seed=0
    ).is_empty()


@pytest.mark.parametrize(
    ("fen", "concept", "expected"),
    [
        ("r5k1/8/8/8/8/8/6B1/6K1", "offensive_threat_a8", {"g2a8"}),
        # The knight e4 may go, or be guarded by the king or the bishop; taking the attacker saves
        # it, too.
        ("4k3/8/8/3p4/4N3/8/8/4K3", "defensive_threat_e4", None),
        ("6k1/5ppp/8/8/8/8/8/R5K1", "has_mate_threat", {"a1a8"}),
        ("q5k1/8/8/8/8/8/6B1/6K1", "can_capture_queen_mine", {"g2a8"}),
        ("6k1/8/8/6p1/8/4B3/8/6K1", "capture_possible_on_g5_mine", {"e3g5"}),
    ],
)
def test_moves_that_answer_a_concept(fen: str, concept: str, expected: set[str] | None) -> None:
    boards = read_fens([f"{fen} w - - 0 1"])
    families = ["offensive_threat", "defensive_threat", "strategic"]
    labels = label(boards, families)
    index = [each.name for each in labels.concepts].index(concept)
    assert labels.values[0, index]
    moves = {MOVES[move] for move in answers(labels.concepts[index], View(boards))[0].nonzero()[0]}
    if expected is None:
        expected = set()
        for move in (board := chess.Board(boards_fen(fen))).legal_moves:
            board.push(move)
            piece = board.piece_at(chess.E4)
            against, by = (
                len(board.attackers(side, chess.E4)) for side in (chess.BLACK, chess.WHITE)
            )
            if not (piece and piece.color and against > by):
                expected.add(move.uci())
            board.pop()
        assert 0 < len(expected) < board.legal_moves.count()
    assert moves == expected


def boards_fen(placement: str) -> str:
    return f"{placement} w - - 0 1"


def test_rescues_of_random_play_are_those_python_chess_finds() -> None:
    played = random_play(150, seed=6)
    labels = label(played.boards, ["defensive_threat"])
    checked = 0
    for position, square in zip(*labels.values.nonzero(), strict=True):
        board = played.python[position]
        rescues = answers(labels.concepts[square], View(played.boards.part(np.array([position]))))[
            0
        ]
        for move in board.legal_moves:
            board.push(move)
            mine = board.color_at(square) is chess.WHITE
            lost = mine and len(board.attackers(chess.BLACK, square)) > len(
                board.attackers(chess.WHITE, square)
            )
            board.pop()
            assert rescues[MOVES.index(move.uci())] == (not lost)
        checked += 1
    assert checked > 100


def test_labels_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    subject, _ = planted_subject(GATED)
    save_labels(tmp_path / "labels.safetensors", subject.labelled)
    labelled = load_labels(tmp_path / "labels.safetensors")
    assert labelled.labels.concepts == subject.concepts
    assert (labelled.labels.values == subject.labels.values).all()
    for name in ("rows", "games", "held_out"):
        assert (getattr(labelled, name) == getattr(subject.labelled, name)).all()
    with pytest.raises(SaeflowError, match="no such file"):
        load_labels(tmp_path / "none.safetensors")
    (tmp_path / "labels.safetensors").write_bytes(b"not so")
    with pytest.raises(SaeflowError, match="holds no labels of positions"):
        load_labels(tmp_path / "labels.safetensors")


def test_studied_positions_are_whole_games_drawn_by_their_names() -> None:
    subject, _ = planted_subject(GATED)
    settings = Concepts(families=["offensive_threat"], positions=500)
    studied = label_positions(subject.examples, settings, seed=3)
    assert len(studied.rows) == 500
    whole = [
        game
        for game in set(studied.games)
        if (studied.games == game).sum() < (subject.examples.games == game).sum()
    ]
    assert len(whole) <= 1  # only the last is cut
    with pytest.raises(SaeflowError, match="too few games"):
        label_positions(subject.examples.part(subject.examples.games == 0), settings, seed=3)


def test_an_engine_s_moves_are_found_by_position(tmp_path: Path) -> None:
    table = pl.DataFrame({"fen": ["a", "b", "a", "c"], "best": ["e2e4", None, "d2d4", "g1f3"]})
    table.write_parquet(tmp_path / "engine.parquet")
    best = best_moves(tmp_path / "engine.parquet", ["c", "b", "a", "x"])
    assert best is not None
    assert best.tolist() == [MOVES.index("g1f3"), -1, MOVES.index("e2e4"), -1]
    table.drop("best").write_parquet(tmp_path / "engine.parquet")
    with pytest.raises(SaeflowError, match="has no column best"):
        best_moves(tmp_path / "engine.parquet", ["a"])


def test_maia_at_its_site_says_what_the_model_says(maia: Maia2) -> None:
    boards = random_play(40, seed=7).boards
    at = MaiaAtSite(maia, "blocks.0.mlp")
    ratings = torch.arange(40) % 11
    expected = maia(encode(boards), ratings, ratings).moves
    assert torch.equal(at.judge(at.embed(boards), ratings, lambda x: x), expected)
    assert not torch.allclose(at.judge(at.embed(boards), ratings, lambda x: x + 1), expected)
    assert torch.equal(
        at.judge(at.embed(boards), ratings, lambda x: x), expected
    )  # nothing stays behind
    with pytest.raises(SaeflowError, match=r"no hook 'blocks\.7\.mlp'"):
        MaiaAtSite(maia, "blocks.7.mlp")
    with pytest.raises(SaeflowError, match="not 'first'"):
        site_sae(random_sae(16), "first")


def test_an_untrained_model_chooses_legal_moves_only(maia: Maia2) -> None:
    boards = random_play(600, seed=8).boards
    at = MaiaAtSite(maia, "blocks.1.resid_post")
    for batch in embed_boards(at, boards):
        said = judged(at, batch, 5, lambda x: 50 * x)
        assert batch.legal.gather(1, said.choice[:, None]).all()


@pytest.mark.parametrize("tokens", ["mean", "all"])
def test_latents_of_a_position_are_read_at_its_own_rating(maia: Maia2, tokens: str) -> None:
    boards = random_play(50, seed=9).boards
    sae, at = site_sae(random_sae(16), tokens), MaiaAtSite(maia, "blocks.1.resid_post")
    ratings = np.arange(50) % 11
    read = read_site(at, sae, boards, ratings)
    seen: list[torch.Tensor] = []
    for index in range(50):
        first = torch.tensor([ratings[index]])
        at.judge(
            at.embed(boards.part(slice(index, index + 1))), first, lambda x: seen.append(x) or x
        )
    activations = torch.cat(seen)
    assert np.allclose(read.activations, activations.mean(dim=1), atol=1e-5)
    dense = (
        sae.sae.encode(activations).mean(dim=1)
        if tokens == "all"
        else sae.sae.encode(activations.mean(dim=1))
    )
    values = np.stack([read.latents.column(latent) for latent in range(48)], axis=1)
    assert np.allclose(values, dense.numpy(), atol=1e-5)


def test_every_command_of_the_analyses_writes_its_tables(maia: Maia2, tmp_path: Path) -> None:
    save_maia2(tmp_path / "model", maia, {})
    save_sae(tmp_path / "sae", random_sae(16))
    positions_table(random_play(2400, seed=11, share=0.12)).write_parquet(
        tmp_path / "positions.parquet"
    )
    families = ["offensive_threat", "strategic"]
    settings = {"families": families, "minimum": 5, "latents": 2, "rotations": 3, "positions": 1500}
    group = {"groups": ["offensive_threat"], "positions": 500, "resamples": 100, "controls": 1}
    narrow = {"bins": [0, 3], "modes": ["add"], "strengths": [4.0], "latents": [1], "minimum": 2}
    at = {
        name: str(tmp_path / name)
        for name in ("positions.parquet", "labels.safetensors", "model", "sae", "out")
    }
    where = ["--positions", at["positions.parquet"], "--split", "model", "--seed", "0"]
    site = ["--model", at["model"], "--hook", "blocks.1.resid_post", "--sae", at["sae"]]
    site += ["--labels", at["labels.safetensors"]]
    tables = ["--associations", f"{at['out']}/associations.parquet"]
    commands = {
        "concepts": ([*where], settings, "labels.safetensors"),
        "associate": ([*where, *site], settings, "out"),
        "skill": ([*where, *site, *tables], group, "out"),
        "intervene": (
            [*where, *site, *tables, "--directions", f"{at['out']}/directions.safetensors"],
            group | narrow,
            "edited",
        ),
        "transitions": (
            [*where, "--model", at["model"]],
            {"positions": 50},
            "out/transitions.parquet",
        ),
    }
    for name, (arguments, section, output) in commands.items():
        line = [
            name,
            *arguments,
            "--settings",
            json.dumps(section),
            "--output",
            str(tmp_path / output),
        ]
        done = CliRunner().invoke(app, line, catch_exceptions=False)
        assert done.exit_code == 0, (name, done.output)
    schemas = {
        "concepts": CONCEPTS,
        "associations": ASSOCIATIONS,
        "probes": PROBES,
        "boards": BOARDS,
        "skill": SKILL,
        "awareness": AWARENESS,
        "transitions": TRANSITIONS,
    }
    for name, schema in schemas.items():
        assert read_table(tmp_path / "out" / f"{name}.parquet", schema).height > 0, name
    edited = {"interventions": INTERVENTIONS, "transitions": EDITED_TRANSITIONS, "shifts": SHIFTS}
    for name, schema in edited.items():
        assert read_table(tmp_path / "edited" / f"{name}.parquet", schema).height > 0, name
    assert set(read_table(tmp_path / "edited/shifts.parquet")["kind"]) == {
        "edited", "random", "probe", "probe_of_another",
    }  # fmt: skip
    probes = read_table(tmp_path / "out" / "probes.parquet")
    assert set(probes["method"]) == {"probe", "difference_of_means"}
