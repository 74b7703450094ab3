"""``saeflow publish``: a study's artifacts to a hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeflow import config, options
from saeflow.counting import counted


def publish(
    study: Annotated[Path, typer.Argument(help="Folder of the study: results/<study>.")],
    repo: Annotated[
        str | None, typer.Option(help="Where to, owner/name; default: the study's `publish.repo`.")
    ] = None,
    settings: Annotated[
        str | None, typer.Option(help="The section `publish`, as JSON, in place of the study's.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Upload; without it, only tell what would be uploaded.")
    ] = False,
) -> None:
    """Upload effects, approximator, SAEs and figures with a card that tells of them; without --yes,
    only say so."""
    options.set_pools(1)
    from saeflow.analyses.reading import read_study
    from saeflow.publishing.io import CARD, pack, send, write_record

    if settings:
        chosen = options.parsed(config.Publish, settings)
    else:
        chosen = read_study(study / "config.yaml").publish
    chosen = options.parsed(
        config.Publish, chosen.model_copy(update={"repo": repo or chosen.repo}).model_dump_json()
    )
    directory = study / "publish"
    parcel = pack(study, chosen, directory)
    for name, path in parcel.files.items():
        options.say(f"{path.stat().st_size:>15,}  {name}")
    options.say(
        f"{parcel.size:>15,}  bytes in {counted(len(parcel.files), 'file')}; the card: "
        f"{directory / CARD}"
    )
    if parcel.left_out:
        options.say(
            f"left out, as the study fetched or did not make them: {', '.join(parcel.left_out)}"
        )
    if not chosen.licence:
        options.say("no licence is named: others may not use it; set publish.licence")
    commit = send(parcel, f"Publish the study {study.name}") if yes or chosen.upload else None
    write_record(parcel, commit, directory)
    if commit:
        options.say(f"uploaded to the {chosen.repo_type} repository {chosen.repo}, commit {commit}")
    else:
        options.say(
            f"nothing was uploaded; --yes uploads to the {chosen.repo_type} repository "
            f"{chosen.repo}"
        )
