"""What the page of a study of chess shows: the study at a glance, and its SAEs beside each
other."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from saeflow.chess.report import wording
from saeflow.chess.report.results import ChessResults, ConceptTables
from saeflow.counting import counted
from saeflow.figures.style import words
from saeflow.report.page import provenance_facts
from saeflow.report.wording import Fact, interval, number, readable

TOLD_WELL = 0.9
"""An area from which on a concept counts as told well."""
RATE = 0.05
"""The false discovery rate below which a latent counts as telling a concept."""


class ConceptLine(NamedTuple):
    """One SAE in the table of all SAEs; areas are on held-out games, medians over concepts."""

    sae: str
    hook: str
    concepts: int
    sure: int
    """Concepts whose latent tells them at the false discovery rate `RATE`."""
    tested: int
    """Concepts that enough held-out games have and lack, so that this can be asked."""
    well: int
    """Concepts whose latent has an area of at least `TOLD_WELL`."""
    well_by_probe: int
    latent: float | None
    probe: float | None
    means: float | None
    chance: float | None
    """The area that labels out of step reach on the same games, over concepts that are tested."""


def chess_context(results: ChessResults) -> dict[str, Any]:
    """What the page of a study of chess is filled from."""
    lines = concept_lines(results)
    return {
        "headline": headline(results, lines),
        "tiles": tiles(results),
        "lines": lines,
        "accuracy": accuracy_rows(results.accuracy),
        "transitions": transition_facts(results.transitions),
        "engine": engine_facts(results),
        "tuning": tuning_rows(results.fine_tuning),
        "run": run_facts(results),
        "stages": [row for row in results.stages.to_dicts() if row["rule"] != "write_report"],
        "provenance": provenance_facts(results.provenance),
        "config": results.config,
        "level": results.study.concepts.interval if results.study.concepts else None,
    }


def concept_lines(results: ChessResults) -> list[ConceptLine]:
    """How well each SAE's latents tell concepts."""
    return [
        _line(results.study.hook_of(name), name, tables) for name, tables in results.tables.items()
    ]


def _line(hook: str, sae: str, tables: ConceptTables) -> ConceptLine:
    best = tables.best
    if best.is_empty():
        return ConceptLine(sae, hook, 0, 0, 0, 0, 0, None, None, None, None)
    middle = {name: best[name].median() for name in ("auc", "probe", "means", "auc_chance")}
    return ConceptLine(
        sae=sae,
        hook=hook,
        concepts=len(best),
        sure=len(best.filter((pl.col("q") < RATE) & (pl.col("auc") > 0.5))),
        tested=best["untested"].null_count(),
        well=len(best.filter(pl.col("auc") >= TOLD_WELL)),
        well_by_probe=len(best.filter(pl.col("probe") >= TOLD_WELL)),
        latent=middle["auc"],  # type: ignore[arg-type]
        probe=middle["probe"],  # type: ignore[arg-type]
        means=middle["means"],  # type: ignore[arg-type]
        chance=middle["auc_chance"],  # type: ignore[arg-type]
    )


def headline(results: ChessResults, lines: list[ConceptLine]) -> list[str]:
    """What was found, as measured, in sentences; empty where no concept was looked for."""
    answered = [line for line in lines if line.concepts]
    if not answered:
        return []
    top = max(answered, key=lambda line: (line.well, line.latent or 0))
    sentences = [
        f"Of {counted(top.concepts, 'concept')}, the latents of {top.sae} tell {top.well:,} with "
        f"an area of {TOLD_WELL} or more on held-out games; a linear probe of the same activations "
        f"tells {top.well_by_probe:,}."
    ]
    if len(answered) > 1:
        level = sum(line.well == top.well for line in answered) > 1
        sentences.append(
            f"Of the {len(answered)} SAEs none tells more{', others as many' if level else ''}."
        )
    return [*sentences, *_along_ratings(top.sae, results.tables[top.sae].skill), *_edits(results)]


def _along_ratings(sae: str, skill: pl.DataFrame) -> list[str]:
    """How knowing, by an SAE's latents, and doing change with the rating that the model is told."""
    if "rating" not in skill.columns:
        return []
    sentences = []
    followed = skill.drop_nulls(["rating", "awareness", "willingness"])
    for group in followed["group"].unique(maintain_order=True):
        rows = followed.filter(pl.col("group") == group).sort("rating")
        weakest, strongest = rows.row(0, named=True), rows.row(-1, named=True)
        changes = [
            f"{name} {weakest[name]:.2f} to {strongest[name]:.2f}"
            for name in ("awareness", "willingness")
        ]
        sentences.append(
            f"{words(group).capitalize()} in {sae}, from the weakest to the strongest rating: "
            f"{', '.join(changes)}."
        )
    return sentences


def _edits(results: ChessResults) -> list[str]:
    """How many edits made the right move more probable by more than their interval, how many
    mistakes they mended, and the same of random latents."""
    tables = [table.interventions for table in results.tables.values()]
    reported = [table.filter(split="report") for table in tables if not table.is_empty()]
    if not reported:
        return []
    edited, random = (pl.concat(reported).filter(kind=kind) for kind in ("edited", "random"))
    settings = len(edited.filter(set="needs"))
    if not settings:
        return []
    (raised, lowered), by_chance = _moved(edited), _moved(random)
    sentences = [
        "Editing a concept's latents where it is needed made the right move more probable, with an "
        f"interval above zero, in {raised} of {settings} settings, and less in {lowered}; the same "
        f"edit of random latents more in {by_chance[0]} and less in {by_chance[1]}."
    ]
    probe, other = (pl.concat(reported).filter(kind=kind) for kind in ("probe", "probe_of_another"))
    if settings := len(probe.filter(set="needs")):
        (raised, lowered), (by_other, _) = _moved(probe), _moved(other)
        sentences.append(
            f"Moving along its linear probe did so in {raised} of {settings}, and less in "
            f"{lowered}; along the probes of other concepts more in {by_other}."
        )
    wrong = [table.filter(set="missed")["gain"].drop_nulls() for table in (edited, random)]
    if all(map(len, wrong)):
        own, chance = (float(np.median(gains)) for gains in wrong)
        sentences.append(
            "Of the positions that need a concept and that the model gets wrong, the edit mends "
            f"{own:.0%} in the middle setting, random latents {chance:.0%}."
        )
    return [*sentences, *_shifted([table.shifts for table in results.tables.values()])]


def _shifted(tables: list[pl.DataFrame]) -> list[str]:
    """How many positions are solved from an earlier rating on under the edit, and how many from a
    later one, over all SAEs and groups."""
    measured = [table for table in tables if not table.is_empty()]
    if not measured:
        return []
    rows = pl.concat(measured)
    shares = []
    for kind in ("edited", "random"):
        own = rows.filter(kind=kind)
        weights = own["n"] / own["n"].sum()
        shares += [float((own[name] * weights).sum()) for name in ("earlier", "later")]
    return [
        "Of the positions that need a concept, {:.0%} are solved from an earlier rating on under "
        "the edit, and {:.0%} from a later one or none; with random latents {:.0%} and "
        "{:.0%}.".format(*shares)
    ]


def _moved(rows: pl.DataFrame) -> tuple[int, int]:
    """In how many settings the right move becomes more probable where a concept is needed, and in
    how many less, beyond the interval."""
    needed = rows.filter(set="needs")
    return (
        len(needed.filter(pl.col("right_gain_low") > 0)),
        len(needed.filter(pl.col("right_gain_high") < 0)),
    )


def tiles(results: ChessResults) -> list[Fact]:
    """The study at a glance."""
    study = results.study
    hooks = ", ".join(dict.fromkeys(map(study.hook_of, study.saes)))
    facts = [
        Fact("model", study.model.name, wording.PLAYERS[_source(results)]),
        Fact("positions", f"{results.positions:,}", f"from {counted(results.games, 'game')}"),
        Fact("SAEs", str(len(study.saes)), hooks),
    ]
    if study.concepts:
        choosing, held = next(iter(results.tables.values())).studied
        concepts = max(len(tables.best) for tables in results.tables.values())
        facts.insert(2, Fact("studied", f"{choosing + held:,}", f"{held:,} of them held out"))
        families = ", ".join(map(words, study.concepts.families))
        facts.append(Fact("concepts", f"{concepts:,}", families))
    return facts


def run_facts(results: ChessResults) -> list[Fact]:
    """What was run, from the games to the interventions."""
    study = results.study
    played = study.positions.self_play
    source = (
        f"{counted(played.games, 'game')} of the model with itself"
        if played
        else "played games, read from files"
    )
    return [
        Fact("Model of human play", study.model.name, wording.PLAYERS[_source(results)]),
        Fact(
            "Positions",
            f"{results.positions:,}",
            f"{source}; {counted(results.games, 'game')} gave positions",
        ),
        *_read_facts(results.read),
        Fact(
            "Cached positions",
            f"{study.activations.positions:,}",
            f"at most, of the split {study.activations.split}; "
            f"{wording.TOKENS[study.activations.tokens]}",
        ),
        *(Fact("SAE", name, _sae_note(results, name)) for name in study.saes),
        *_studied_facts(results),
        Fact("Seed", str(study.seed), "every random draw follows from it"),
    ]


def _read_facts(read: dict[str, Any]) -> list[Fact]:
    """What became of the games of files: those that were kept, and those lost by the reason."""
    games = dict(read.get("games") or {})
    if not games:
        return []
    kept = games.pop("kept", 0)
    facts = [Fact("Games read", f"{kept + sum(games.values()):,}", f"{kept:,} of them kept")]
    first = "; ".join(read.get("faults") or [])
    return facts + [
        Fact(
            f"Games left out: {reason}",
            f"{count:,}",
            f"the first of them: {first}" if reason == "malformed" and first else "",
        )
        for reason, count in sorted(games.items(), key=lambda item: -item[1])
    ]


def _studied_facts(results: ChessResults) -> list[Fact]:
    """The positions in which concepts were sought."""
    if not results.study.concepts:
        return []
    choosing, held = next(iter(results.tables.values())).studied
    skipped = max(
        tables.concepts["skipped"].drop_nulls().len() if len(tables.concepts) else 0
        for tables in results.tables.values()
    )
    notes = {
        "Studied positions": (choosing + held, "of the split eval, which no SAE was trained on"),
        "that choose latents": (choosing, "the best latents of a concept are found on them"),
        "held out": (
            held,
            "of other games; all that is reported of concepts is measured on them",
        ),
        "Concepts passed over": (skipped, "too few positions have or lack them"),
    }
    return [Fact(label, f"{count:,}", note) for label, (count, note) in notes.items()]


def _source(results: ChessResults) -> str:
    model = results.study.model
    return next(name for name in wording.PLAYERS if getattr(model, name) is not None)


def _sae_note(results: ChessResults, name: str) -> str:
    sae = results.study.saes[name]
    if sae.train is None:
        return f"at {sae.hook}, from {sae.path}"
    train = sae.train
    return (
        f"{train.traits.label} at {sae.hook}, {counted(train.d_sae, 'latent')}, trained here on "
        f"{counted(train.tokens, 'row')}"
    )


class AccuracyRow(NamedTuple):
    """How well the model predicts the players of one rating bin, told their bin."""

    ratings: str
    positions: str
    games: str
    top1: str
    top3: str
    loss: str
    frequent: str
    uniform: str


def accuracy_rows(accuracy: pl.DataFrame) -> list[AccuracyRow]:
    """The table of accuracy by rating, each bin told as it is."""
    if accuracy.is_empty():
        return []
    return [
        AccuracyRow(
            ratings=row["ratings"],
            positions=f"{row['n']:,}",
            games=f"{row['games']:,}",
            top1=f"{number(row['top1'], 3)} {interval(row, 'top1')}".strip(),
            top3=number(row["top3"], 3),
            loss=number(row["loss"], 3),
            frequent=number(row["top1_frequent"], 3),
            uniform=number(row["top1_uniform"], 3),
        )
        for row in accuracy.filter(pl.col("told") == pl.col("rating_bin"))
        .sort("rating_bin")
        .to_dicts()
    ]


def transition_facts(transitions: pl.DataFrame) -> list[Fact]:
    """How many positions the model solves at which ratings."""
    if transitions.is_empty():
        return []
    counts = dict(transitions.group_by("kind").len().iter_rows())
    facts = [
        Fact(label, f"{counts.get(kind, 0):,}", note)
        for kind, (label, note) in wording.TRANSITIONS.items()
    ]
    chance = transitions.filter(pl.col("kind") == "transition")["by_chance"].drop_nulls()
    if len(chance):
        facts.append(
            Fact(
                "Chance of a transition",
                readable(float(chance.mean())),  # type: ignore[arg-type]
                wording.BY_CHANCE,
            )
        )
    return facts


def engine_facts(results: ChessResults) -> list[Fact]:
    """What an engine was asked, and how many blunders it found."""
    asked = results.study.engine
    if asked is None or results.engine.is_empty():
        return []
    names = ", ".join(sorted(results.engine["engine"].drop_nulls().unique()))
    facts = [
        Fact(
            "Positions",
            f"{len(results.engine):,}",
            f"of the split {asked.split}, evaluated by {names}",
        )
    ]
    if silent := results.engine["evaluation"].null_count():
        facts.append(
            Fact("Without a score", f"{silent:,}", "the engine says not what they are worth")
        )
    if not (sought := results.study.blunders):
        return facts
    if results.blunders.is_empty():
        return [*facts, Fact("Blunders", "0", f"moves that lose {sought.least:g} pawns or more")]
    counts = dict(results.blunders.group_by("source").len().iter_rows())
    return facts + [
        Fact(
            label, f"{counts.get(source, 0):,}", f"{note}; they lose {sought.least:g} pawns or more"
        )
        for source, (label, note) in wording.BLUNDERS.items()
    ]


class TuningRow(NamedTuple):
    """The model before and after further training, on one set of positions of one rating."""

    cases: str
    ratings: str
    positions: str
    before: str
    after: str
    gain: str
    loss_before: str
    loss_after: str
    first: bool
    """Of its set."""


def tuning_rows(table: pl.DataFrame) -> list[TuningRow]:
    """The table of what further training on blunders changed: of each set all ratings together,
    then each."""
    rows = []
    for row in table.to_dicts():
        accuracies = {
            name: f"{number(row[name], 3)} {interval(row, name)}".strip()
            for name in ("top1_before", "top1_after")
        }
        gain = "–" if row["gain"] is None else f"{row['gain']:+.3f} {interval(row, 'gain')}".strip()
        rows.append(
            TuningRow(
                cases=row["set"],
                ratings=row["ratings"],
                positions=f"{row['n']:,}",
                before=accuracies["top1_before"],
                after=accuracies["top1_after"],
                gain=gain,
                loss_before=number(row["loss_before"], 3),
                loss_after=number(row["loss_after"], 3),
                first=row["rating_bin"] is None,
            )
        )
    return rows
