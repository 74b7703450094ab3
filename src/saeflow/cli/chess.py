"""``saeflow chess``, its second half: concepts in an SAE's latents, how they go with skill, and
interventions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from saeflow import options
from saeflow.cli.chess_data import Positions
from saeflow.cli.chess_engine import app
from saeflow.config.sections import concepts as sections

if TYPE_CHECKING:
    from saeflow.chess.labelling import Labelled
    from saeflow.chess.model import MaiaAtSite, SiteSAE
    from saeflow.chess.reading import Read
    from saeflow.chess.subject import Subject
    from saeflow.corpora.chess.examples import Examples

__all__ = ["app"]

Split = Annotated[str, typer.Option(help="Which games: model, sae or eval.")]
SiteName = Annotated[str, typer.Option("--hook", help="A site of the model: blocks.1.resid_post.")]
Tokens = Annotated[
    str, typer.Option(help="What the SAE reads of a site: the mean of the tokens, or all of them.")
]
LabelsFile = Annotated[
    Path, typer.Option("--labels", help="Which concepts hold in which positions.")
]
Associations = Annotated[Path, typer.Option(help="Which latents tell which concepts.")]
Engine = Annotated[Path | None, typer.Option(help="Table of an engine's best moves: fen, best.")]
Folder = Annotated[Path, typer.Option("--output", help="Folder of the tables.")]


@app.command()
def concepts(
    positions: Positions,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    split: Split = "eval",
    threads: options.Threads = 1,
) -> None:
    """Say which concepts hold in which positions, and which games are held out."""
    options.set_pools(threads)
    from saeflow.chess.io import save_labels
    from saeflow.chess.labelling import label_positions
    from saeflow.corpora.chess.io import load_examples

    wanted = options.parsed(sections.Concepts, settings)
    save_labels(output, label_positions(load_examples(positions, split), wanted, seed))


@app.command()
def associate(
    model: options.ModelFolder,
    hook: SiteName,
    sae: options.SAEFolder,
    positions: Positions,
    labels: LabelsFile,
    settings: options.Settings,
    seed: options.Seed,
    output: Folder,
    split: Split = "eval",
    tokens: Tokens = "mean",
    threads: options.Threads = 1,
) -> None:
    """Find the latents that tell each concept, and fit probes and differences of means beside
    them."""
    options.use_device(threads)
    from saeflow.chess.association import associate as find
    from saeflow.chess.example_boards import example_boards
    from saeflow.chess.io import write_tables
    from saeflow.chess.probes import probe_kept

    wanted, here = options.parsed(sections.Concepts, settings), _site(model, hook, sae, tokens)
    examples, labelled, read = _read(here, positions, split, labels)
    table, found = find(read.latents, labelled, wanted, seed)
    write_tables(
        output,
        concepts=table,
        associations=found,
        probes=probe_kept(read.activations, labelled, table, wanted),
        boards=example_boards(read.latents, examples, labelled, found),
    )


@app.command()
def skill(
    model: options.ModelFolder,
    hook: SiteName,
    sae: options.SAEFolder,
    positions: Positions,
    labels: LabelsFile,
    associations: Associations,
    settings: options.Settings,
    seed: options.Seed,
    output: Folder,
    engine: Engine = None,
    split: Split = "eval",
    tokens: Tokens = "mean",
    threads: options.Threads = 1,
) -> None:
    """Measure what latents hold and what the model does at every rating it is told."""
    options.use_device(threads)
    from saeflow.chess.io import write_tables
    from saeflow.chess.skill import skill as measure

    wanted, here = options.parsed(sections.Skill, settings), _site(model, hook, sae, tokens)
    subject = _subject(here, positions, split, labels, associations, engine)
    by_rating, by_concept = measure(here.model, here.sae, subject, wanted, seed)
    write_tables(output, skill=by_rating, awareness=by_concept)


@app.command()
def intervene(
    model: options.ModelFolder,
    hook: SiteName,
    sae: options.SAEFolder,
    positions: Positions,
    labels: LabelsFile,
    associations: Associations,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    engine: Engine = None,
    split: Split = "eval",
    tokens: Tokens = "mean",
    threads: options.Threads = 1,
) -> None:
    """Change concepts' latents and measure what becomes of the model's moves, with controls."""
    options.use_device(threads)
    from saeflow.chess.interventions import intervene as change
    from saeflow.chess.io import write_named

    wanted, here = options.parsed(sections.Interventions, settings), _site(model, hook, sae, tokens)
    subject = _subject(here, positions, split, labels, associations, engine)
    beat = options.progress("intervene, ratings")
    write_named(output, "interventions", change(here.model, here.sae, subject, wanted, seed, beat))


@app.command()
def transitions(
    model: options.ModelFolder,
    positions: Positions,
    settings: options.Settings,
    seed: options.Seed,
    output: options.Output,
    engine: Engine = None,
    split: Split = "eval",
    threads: options.Threads = 1,
) -> None:
    """Find positions that the model solves from some rating upwards."""
    options.use_device(threads)
    from saeflow.chess.io import best_moves, write_named
    from saeflow.chess.model import MaiaAtSite
    from saeflow.chess.transitions import transitions as find
    from saeflow.corpora.chess.boards import write_fens
    from saeflow.corpora.chess.io import load_examples
    from saeflow.models.maia2_io import load_maia2

    maia, examples = load_maia2(model, options.device()), load_examples(positions, split)
    best = best_moves(engine, write_fens(examples.boards)) if engine else None
    wanted = options.parsed(sections.Transitions, settings)
    write_named(
        output, "transitions", find(MaiaAtSite(maia, maia.hooks[-1]), examples, best, wanted, seed)
    )


class _Site(NamedTuple):
    model: MaiaAtSite
    sae: SiteSAE


def _site(model: Path, hook: str, sae: Path, tokens: str) -> _Site:
    from saeflow.chess.model import MaiaAtSite, site_sae
    from saeflow.models.maia2_io import load_maia2

    return _Site(
        MaiaAtSite(load_maia2(model, options.device()), hook),
        site_sae(options.open_sae(sae), tokens),
    )


def _read(
    site: _Site, positions: Path, split: str, labels: Path
) -> tuple[Examples, Labelled, Read]:
    """The studied positions, their labels, and what the site holds of each at its player's own
    rating."""
    from saeflow.chess.io import load_labels
    from saeflow.chess.reading import read_site
    from saeflow.corpora.chess.io import load_examples

    labelled = load_labels(labels)
    examples = load_examples(positions, split).part(labelled.rows)
    beat = options.progress("read the site, positions")
    ratings = examples.rating_self.astype("int64")
    return examples, labelled, read_site(site.model, site.sae, examples.boards, ratings, beat)


def _subject(
    site: _Site, positions: Path, split: str, labels: Path, associations: Path, engine: Path | None
) -> Subject:
    from saeflow.chess.io import best_moves, read_associations
    from saeflow.chess.subject import Subject
    from saeflow.corpora.chess.boards import write_fens

    examples, labelled, read = _read(site, positions, split, labels)
    best = best_moves(engine, write_fens(examples.boards)) if engine else None
    return Subject(examples, labelled, read_associations(associations), read.latents, best)
