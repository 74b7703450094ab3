"""What the commands of chess share: options, and reading the subject of an analysis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from saeflow import options

if TYPE_CHECKING:
    from saeflow.chess.analyses.concepts.labelling import Labelled
    from saeflow.chess.analyses.concepts.subject import Subject
    from saeflow.chess.games.examples import Examples
    from saeflow.chess.saes.reading import Read
    from saeflow.chess.saes.site import MaiaAtSite, SiteSAE

Positions = Annotated[Path, typer.Option(help="Table of positions.")]
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


class OpenSite(NamedTuple):
    """The player at a site, and the SAE that reads it."""

    model: MaiaAtSite
    sae: SiteSAE


def open_site(model: Path, hook: str, sae: Path, tokens: str) -> OpenSite:
    """The player and an SAE from their folders, on this process's device."""
    from saeflow.chess.player.io import load_maia2
    from saeflow.chess.saes.site import MaiaAtSite, site_sae

    return OpenSite(
        MaiaAtSite(load_maia2(model, options.device()), hook),
        site_sae(options.open_sae(sae), tokens),
    )


def read_labelled(
    site: OpenSite, positions: Path, split: str, labels: Path
) -> tuple[Examples, Labelled, Read]:
    """The studied positions, their labels, and what the site holds of each at its player's own
    rating."""
    from saeflow.chess.analyses.concepts.io import load_labels
    from saeflow.chess.games.io import load_examples
    from saeflow.chess.saes.reading import read_site

    labelled = load_labels(labels)
    examples = load_examples(positions, split).part(labelled.rows)
    beat = options.progress("read the site, positions")
    ratings = examples.rating_self.astype("int64")
    return examples, labelled, read_site(site.model, site.sae, examples.boards, ratings, beat)


def read_subject(
    site: OpenSite,
    positions: Path,
    split: str,
    labels: Path,
    associations: Path,
    engine: Path | None,
) -> Subject:
    """What skill and interventions are studied on."""
    from saeflow.chess.analyses.concepts.io import best_moves, read_associations
    from saeflow.chess.analyses.concepts.subject import Subject
    from saeflow.chess.games.boards import write_fens

    examples, labelled, read = read_labelled(site, positions, split, labels)
    best = best_moves(engine, write_fens(examples.boards)) if engine else None
    return Subject(examples, labelled, read_associations(associations), read.latents, best)
