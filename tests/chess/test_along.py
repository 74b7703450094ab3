"""Directions of concepts on a model with a known mechanism: fitted where it was planted, moved along
as asked, and what that does to the rating from which on the right move is found."""

from __future__ import annotations

from pathlib import Path

import chess
import numpy as np
import polars as pl
import pytest
import torch
from planted_chess import DIRECTIONS, GATED, N_BINS, SAME, PlantedModel, planted_subject

from saeflow.chess.analyses.concepts.directions import ConceptDirections
from saeflow.chess.analyses.concepts.io import load_directions, save_directions
from saeflow.chess.analyses.interventions.along import Along
from saeflow.chess.analyses.interventions.edits import Lines, Shifted
from saeflow.chess.analyses.interventions.interventions import Intervened, intervene
from saeflow.chess.analyses.interventions.points import NOWHERE, Found, found_from, shifts
from saeflow.chess.analyses.interventions.settings import Interventions
from saeflow.chess.games.boards import read_fens
from saeflow.chess.games.moves import MOVES
from saeflow.chess.saes.reading import embed_boards, judged, read_site
from saeflow.errors import DamagedError, SaeflowError
from saeflow.options import parsed
from saeflow.statistics.clusters import Resampling

METHODS = ("probe", "difference_of_means")
SETTINGS = Interventions(
    groups=["offensive_threat"],
    modes=["multiply", "add", "clamp"],
    strengths=[40.0],
    latents=[1],
    directions=list(METHODS),
    direction_strengths=[1.0, 40.0],
    positions=100,
    controls=2,
    resamples=200,
    minimum=15,
)


@pytest.fixture(scope="module")
def measured() -> Intervened:
    subject, sae = planted_subject(GATED)
    return intervene(GATED, sae, subject, SETTINGS, seed=0)


@pytest.mark.parametrize("method", METHODS)
def test_directions_point_where_the_concept_was_planted(method: str) -> None:
    subject, _ = planted_subject(GATED)
    directions = subject.directions
    assert directions is not None
    threats = {
        concept.name: concept.square
        for concept in subject.concepts
        if concept.family == "offensive_threat"
    }
    rows = {
        threats[name]: row for name, row in directions.of_method(method).items() if name in threats
    }
    assert len(rows) > 25
    planted = directions.vectors[list(rows.values())] @ DIRECTIONS[:64].numpy().T
    assert planted.argmax(axis=1).tolist() == list(rows)
    assert np.median(planted.max(axis=1)) > 0.75


def test_places_along_directions_are_means_of_positions_that_chose() -> None:
    subject, sae = planted_subject(GATED)
    assert subject.directions is not None
    ratings = subject.examples.rating_self.astype(np.int64)
    x = read_site(GATED, sae, subject.examples.boards, ratings).activations
    x = x[subject.labelled.rows]
    columns = {concept.name: place for place, concept in enumerate(subject.concepts)}
    chosen = subject.parts.selection
    for row, name in enumerate(subject.directions.concepts):
        along = x[chosen].astype(np.float64) @ subject.directions.vectors[row]
        holds = subject.labels.values[chosen, columns[name]]
        assert np.linalg.norm(subject.directions.vectors[row]) == pytest.approx(1, abs=1e-5)
        assert subject.directions.without[row] == pytest.approx(along[~holds].mean(), abs=1e-5)
        assert subject.directions.apart[row] == pytest.approx(
            along[holds].mean() - along[~holds].mean(), abs=1e-5
        )
        assert subject.directions.apart[row] > 0


def test_moving_along_the_concept_s_direction_helps_where_it_is_needed_and_others_do_not(
    measured: Intervened,
) -> None:
    table = measured.interventions.filter(split="report")
    for method in METHODS:
        needs, absent = (table.filter(kind=method, set=cases) for cases in ("needs", "absent"))
        assert needs["rating"].to_list() == [0, 1, 2]
        assert (needs["gain_low"] > 0.1).all()
        assert (needs["accuracy"] > 0.9).all()
        assert set(needs["mode"]) <= {"add", "clamp"}
        assert (needs["latents"] == 0).all()
        # Where the concept is absent a direction acts all the same: a latent's edit may not.
        assert (absent["moved"] > 0).all()
        others = table.filter(kind=f"{method}_of_another", set="needs")
        assert (others["gain"] < needs["gain"] - 0.1).all()
        assert (others["moved"] > 0).all()
    tried = measured.interventions.filter(split="selection", kind="probe", set="needs")
    assert tried.height == 3 * 2 * 2  # ratings, modes but multiply, strengths
    assert (tried.group_by("rating").agg(pl.col("chosen").sum())["chosen"] == 1).all()


def test_edits_of_latents_are_the_same_with_and_without_directions_beside_them(
    measured: Intervened,
) -> None:
    subject, sae = planted_subject(GATED)
    alone = intervene(
        GATED,
        sae,
        subject._replace(directions=None),
        SETTINGS.model_copy(update={"directions": []}),
        seed=0,
    )
    own = pl.col("kind").is_in(["edited", "strength_1", "random", "reconstruction"])
    assert measured.interventions.filter(own).equals(alone.interventions)
    with pytest.raises(SaeflowError, match="edits along directions want those of concepts"):
        intervene(GATED, sae, subject._replace(directions=None), SETTINGS, seed=0)


def test_add_goes_on_and_clamp_goes_to_a_place_and_nothing_else_moves() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, 3, 16, generator=generator)
    vectors = torch.nn.functional.normalize(torch.randn(4, 16, generator=generator), dim=1)
    vectors[3] = 0  # no direction
    lines = Lines(vectors, torch.tensor([0.5, -1.0, 0.0, 2.0]), torch.tensor([2.0, 1.0, 3.0, 9.0]))
    for mode, expected in (
        ("add", lambda before: before + 1.5 * lines.apart[:3]),
        ("clamp", lambda before: lines.without[:3] + 1.5 * lines.apart[:3]),
    ):
        after = Shifted(lines, mode, 1.5)(x)
        places = [(y.mean(dim=1) * vectors).sum(dim=1)[:3] for y in (x, after)]
        torch.testing.assert_close(places[1], expected(places[0]))
        change = after - x
        assert torch.equal(after[3], x[3])
        torch.testing.assert_close(change[:, 0], change[:, 2])  # tokens move together
        across = change[:3, 0] - (change[:3, 0] * vectors[:3]).sum(dim=1)[:, None] * vectors[:3]
        assert float(across.abs().max()) < 1e-6


def test_in_place_of_a_direction_stand_those_of_other_squares_each_once() -> None:
    subject, _ = planted_subject(GATED)
    assert subject.directions is not None
    places = [
        place
        for place, concept in enumerate(subject.concepts)
        if concept.family == "offensive_threat"
    ]
    along = Along.of("probe", "offensive_threat", places, subject, 5, 0)
    assert along.rows
    square_of = {concept.name: concept.square for concept in subject.concepts}
    for place, own in along.rows.items():
        drawn = [draw[place] for draw in along.others]
        assert len({own, *drawn}) == 6
        assert subject.directions.concepts[own] == subject.concepts[place].name
        for row in drawn:
            assert subject.directions.methods[row] == "probe"
            assert square_of[subject.directions.concepts[row]] != subject.concepts[place].square
    with pytest.raises(SaeflowError, match="1000 directions of other concepts were to be drawn"):
        Along.of("probe", "offensive_threat", places, subject, 1000, 0)


def test_the_rating_that_finds_the_right_move_is_the_model_s_own_before_and_lower_under_the_edit(
    measured: Intervened,
) -> None:
    first = measured.transitions.filter(kind="edited")
    assert first.height == measured.shifts["n"][0] > 15
    boards = read_fens(first["fen"].to_list())
    batches = embed_boards(GATED, boards)
    chosen = np.stack(
        [
            torch.cat([judged(GATED, batch, rating).choice for batch in batches]).numpy()
            for rating in range(N_BINS)
        ]
    )
    right = [MOVES[move] for move in chosen[-1]]
    assert first["right"].to_list() == right
    right_at = chosen[:-1] == chosen[-1]
    for row, hits in zip(first.to_dicts(), right_at.T, strict=True):
        upwards = [rating for rating in range(N_BINS - 1) if hits[rating:].all()]
        assert row["before"] == (min(upwards) if upwards else None)
        square = chess.parse_square(row["concept"].removeprefix("offensive_threat_"))
        assert chess.Move.from_uci(row["right"]).to_square == square
    by_kind = {row["kind"]: row for row in measured.shifts.to_dicts()}
    before = first["before"]
    late = (before.is_null() | (before > 0)).mean()
    assert late > 0.2
    for kind in ("edited", *METHODS):
        row = by_kind[kind]
        assert row["earlier"] == pytest.approx(late, abs=0.1)
        assert row["later"] < 0.05
        assert row["solved_after"] > 0.95
        assert row["solved_before"] == pytest.approx(before.is_not_null().mean())
        assert row["earlier_low"] <= row["earlier"] <= row["earlier_high"]
    assert by_kind["random"]["earlier"] < 0.1


def test_an_edit_that_does_nothing_moves_no_transition_point() -> None:
    level = PlantedModel(used=SAME)
    subject, sae = planted_subject(level)
    settings = SETTINGS.model_copy(
        update={"modes": ["multiply"], "strengths": [1 + 1e-12], "directions": []}
    )
    intervened = intervene(level, sae, subject, settings, seed=0)
    edited = intervened.transitions.filter(kind="edited")
    assert edited["before"].equals(edited["after"], null_equal=True)
    assert intervened.shifts.filter(kind="edited").select("earlier", "later").row(0) == (0, 0)


def test_points_are_counted_from_the_ratings_that_were_told() -> None:
    right = np.array([[1, 0, 0, 1], [1, 0, 1, 0], [1, 0, 1, 1]], bool)
    points = found_from(right, [2, 5, 9])
    assert points.kind.tolist() == ["always", "never", "transition", "irregular"]
    assert points.at.tolist() == [2, NOWHERE, 5, NOWHERE]
    after = {("edited", 0): np.array([5, 9, 2, NOWHERE]), ("random", 0): np.array([2, 2, 5, NOWHERE]),
             ("random", 1): np.array([2, NOWHERE, 9, NOWHERE])}  # fmt: skip
    games = Resampling(np.arange(4), 100, 0.95, np.random.default_rng(0))
    edited, random = shifts(
        "threats", games, 4, points, {key: Found(points.kind, at) for key, at in after.items()}
    )
    assert [edited[name] for name in ("earlier", "later", "solved_before", "solved_after")] == [
        0.5, 0.25, 0.5, 0.75,
    ]  # fmt: skip
    assert [random[name] for name in ("earlier", "later", "solved_before", "solved_after")] == [
        0.125, 0.125, 0.5, 0.625,
    ]  # fmt: skip


def test_directions_come_back_from_their_file_and_belong_to_a_hook(tmp_path: Path) -> None:
    subject, _ = planted_subject(GATED)
    assert subject.directions is not None
    path = tmp_path / "directions.safetensors"
    save_directions(path, subject.directions, "blocks.1.mlp")
    back = load_directions(path, "blocks.1.mlp")
    assert back.concepts == subject.directions.concepts
    assert back.methods == subject.directions.methods
    for name in ("vectors", "without", "apart"):
        assert np.array_equal(getattr(back, name), getattr(subject.directions, name))
    with pytest.raises(
        SaeflowError, match=r"is from hook 'blocks\.1\.mlp' and positions are read at"
    ):
        load_directions(path, "blocks.0.mlp")
    with pytest.raises(SaeflowError, match="no such file; make it first"):
        load_directions(tmp_path / "none.safetensors", "blocks.1.mlp")
    save_directions(path, ConceptDirections(["a"], [], *subject.directions[2:]), "blocks.1.mlp")
    with pytest.raises(DamagedError, match="names more or fewer concepts than it has directions"):
        load_directions(path, "blocks.1.mlp")


def test_directions_cannot_be_multiplied() -> None:
    with pytest.raises(SaeflowError, match="directions cannot be multiplied"):
        parsed(Interventions, '{"modes": ["multiply"]}')
    assert parsed(Interventions, '{"modes": ["multiply"], "directions": []}').directions == []
