"""What the commands of chess share: options, and opening the player at a site with its SAE."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from saeflow import options

if TYPE_CHECKING:
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
Directions = Annotated[Path, typer.Option(help="Directions that tell concepts.")]
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
